//! `warpwright bench gemm`: matrix products, of models and of the ladder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Common, Session, Wanted};
use crate::bench::call::Call;
use crate::bench::lengths::Lengths;
use crate::bench::measure::{Facts, facts};
use crate::bench::{recorder, sweep, tune};
use crate::cli::{cuts_file, say};
use crate::device::gpu::Gemm;
use crate::device::gpu::tuned::{Entry, Tuned};
use crate::plan;
use crate::telemetry::format::commas;

/// The models whose products `gemm` sweeps.
const SWEPT: [&str; 4] = ["gpt2", "bert-base", "bert-large", "gpt2-xl"];

/// Time the matrix products of several models
///
/// Forward, and both products of the backward, at every shape that a step of these models has; and
/// beside each cuBLASLt's, where it is found (see `bench ops`).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright bench gemm --json gemm.json\n  \
    warpwright bench gemm --tune --preset gpt2      then: pretrain --tuned, bench step --tuned\n  \
    warpwright bench gemm --ladder                  from a naive product to the final one\n  \
    warpwright bench gemm --preset gpt2,gpt2-xl --tokens 16384")]
pub struct GemmArgs {
    #[command(flatten)]
    pub common: Common,
    /// Models, with commas between [default: gpt2,bert-base,bert-large,gpt2-xl; on the emulator,
    /// gpt2-tiny]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub preset: Vec<String>,
    /// Rows of the products [default: 65536; on the emulator, 128]
    #[arg(long, value_name = "TOKENS")]
    pub tokens: Option<usize>,
    /// Instead, every rung of the ladder of products (kernels/ladder/) at 4096³ and at GPT-2's
    /// first MLP product; on the emulator at little ones
    #[arg(long, conflicts_with_all = ["preset", "tokens"])]
    pub ladder: bool,
    /// Instead, try every cut of each product that fits (tiles, clusters, splits), and keep the
    /// fastest, for `--tuned` of training and benchmarks, in FILE [default: one for each kind of
    /// GPU in the user's cache, XDG_CACHE_HOME/warpwright]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ladder", "tuned", "json", "html"])]
    pub tune: Option<Option<PathBuf>>,
}

pub fn gemm(args: &GemmArgs) -> Result<()> {
    let common = &args.common;
    if args.ladder {
        return ladder(common);
    }
    let tokens = common.tokens(args.tokens)?;
    let default = common.either(&SWEPT[..], &["gpt2-tiny"]).iter().map(|name| name.to_string());
    let names = if args.preset.is_empty() { default.collect() } else { args.preset.clone() };
    let mut calls = Vec::new();
    for name in &names {
        let wanted = Wanted::of(common, Some(name), &[], (None, tokens, None))?;
        let mut more = recorder::calls(&wanted.arch, &wanted.batch(&Lengths::Fixed))?;
        let product = |call: &Call| !matches!(call, Call::ActBackward { .. });
        more.retain(|(call, _)| call.family() == "linear" && product(call));
        sweep::merge(&mut calls, more);
    }
    if let Some(file) = &args.tune {
        return tune(common, file.as_deref(), &calls);
    }
    let what = format!("products of {}, {} tokens", names.join(", "), commas(tokens as u64));
    Session::open(common)?.rows("gemm", what, &calls)
}

/// Finds the fastest cut of each product and keeps it, in `file` if one is named.
fn tune(common: &Common, file: Option<&Path>, calls: &[(Call, u64)]) -> Result<()> {
    if common.gemm == Gemm::Cublaslt {
        bail!("cuBLASLt cuts its products itself: leave --gemm away");
    }
    if common.emulated() && file.is_none() {
        bail!(
            "the emulator's times mean nothing: to see how tuning works, name a file, --tune FILE"
        );
    }
    let session = Session::open(common)?;
    let (gpu, bench) = (&session.gpu, session.bench());
    let properties = gpu.driver().properties();
    let path = cuts_file(file, gpu)?;
    let mut tuned = if path.exists() {
        let why = "there is nothing to add to (remove the file, or name another with --tune FILE)";
        Tuned::read(&path, properties).context(why)?
    } else {
        Tuned::new(properties)
    };
    if !common.no_verify {
        session.verify("linear")?;
    }
    for (call, _) in calls {
        let Some(key) = tune::key(call) else { continue };
        let Facts { op, memory, .. } = facts(call);
        let name = format!("{op:<15}{:<26}", call.shape());
        let room = bench.room()?;
        if memory > room {
            let (need, free) = (plan::size(memory), plan::size(room));
            say(format_args!("{name} it takes {need}, and {free} is free: lower --tokens"))?;
            continue;
        }
        let host = bench.time(call).with_context(|| name.clone())?.seconds;
        let cuts = gpu.product_cuts(key);
        let best = bench.tune(call, &cuts).with_context(|| name.clone())?;
        let Some((cut, seconds)) = best else { continue };
        let (micros, ratio) = (1e6 * seconds, host / seconds);
        say(format_args!("{name}{micros:>10.1} µs, {ratio:.2} × the host's choice: {cut}"))?;
        tuned.keep(Entry { key, cut, seconds });
        // Each as it comes: what was measured is not lost with the rest.
        tuned.write(&path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let named = file.map_or(String::new(), |file| format!(" {}", file.display()));
    let path = path.display();
    Ok(say(format_args!("kept in {path}: pretrain and bench take it by --tuned{named}"))?)
}

/// Every rung that the device runs, shape by shape.
fn ladder(common: &Common) -> Result<()> {
    let mut session = Session::open(common)?;
    session.start("ladder", "a product as a ladder".into(), &["ladder"])?;
    let shapes: &[_] = common
        .either(&[[4096, 4096, 4096], [65536, 768, 3072]], &[[128, 128, 128], [128, 64, 256]]);
    for &[rows, n_in, n_out] in shapes {
        let call = sweep::product(rows, n_in, n_out);
        let rungs: Vec<_> = session.gpu.rungs().collect();
        for rung in rungs {
            let ceilings = &session.report.ceilings;
            let row = session.bench().rung(rung, &call, ceilings).context(rung.name())?;
            say(row.line())?;
            session.report.rows.push(row);
        }
    }
    session.finish()
}
