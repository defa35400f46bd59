//! `warpwright bench gemm`: matrix products, of models and of the ladder.

use anyhow::{Context, Result};

use super::{Common, Session, Wanted};
use crate::bench::call::Call;
use crate::bench::lengths::Lengths;
use crate::bench::{recorder, sweep};
use crate::cli::say;
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
    let what = format!("products of {}, {} tokens", names.join(", "), commas(tokens as u64));
    Session::open(common)?.rows("gemm", what, &calls)
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
