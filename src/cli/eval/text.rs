//! `warpwright eval text`: texts beside references.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{OutArgs, conclude};
use crate::eval::metrics::bootstrap::Bootstrap;
use crate::eval::metrics::{bleu, chrf};
use crate::eval::results::{Measured, Results};

/// Texts beside references, line by line: BLEU and chrF, equal to sacreBLEU's
///
/// To have a model write the texts first, see `eval completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    warpwright eval text --hypotheses out.fr --references test.fr\n  \
    warpwright eval text --hypotheses out.fr --references one.fr two.fr")]
pub struct TextArgs {
    /// What a system wrote, a text a line
    #[arg(long, value_name = "FILE")]
    pub hypotheses: PathBuf,
    /// What is right, as many lines; several files where there are several references
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub references: Vec<PathBuf>,
    #[command(flatten)]
    pub out: OutArgs,
}

/// Reads, measures and tells.
pub fn run(args: &TextArgs) -> Result<()> {
    let hypotheses = lines(&args.hypotheses)?;
    ensure!(!hypotheses.is_empty(), "{} has no lines", args.hypotheses.display());
    let mut references = vec![Vec::new(); hypotheses.len()];
    for path in &args.references {
        let found = lines(path)?;
        let (here, there) = (found.len(), hypotheses.len());
        ensure!(
            here == there,
            "{} has {here} lines, {} has {there}: give a reference for each",
            path.display(),
            args.hypotheses.display()
        );
        references.iter_mut().zip(found).for_each(|(all, text)| all.push(text));
    }
    let results = Results {
        task: "text",
        model: None,
        data: args.hypotheses.display().to_string(),
        examples: hypotheses.len(),
        unit: "lines",
        metrics: translation(&hypotheses, &references, &Bootstrap::default()),
        settings: json!({
            "references": args.references,
            "bleu": bleu::signature(args.references.len()),
            "chrf": chrf::signature(args.references.len()),
        }),
        rows: vec![],
    };
    conclude(&results, &args.out)
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(text.lines().map(str::to_string).collect())
}

/// BLEU and chrF of a corpus.
pub fn translation<H: AsRef<str>, R: AsRef<[S]>, S: AsRef<str>>(
    hypotheses: &[H],
    references: &[R],
    bootstrap: &Bootstrap,
) -> Vec<Measured> {
    let pairs = || hypotheses.iter().zip(references);
    let bleus: Vec<bleu::Counts> =
        pairs().map(|(h, r)| bleu::sentence(h.as_ref(), r.as_ref())).collect();
    let chrfs: Vec<chrf::Counts> =
        pairs().map(|(h, r)| chrf::sentence(h.as_ref(), r.as_ref())).collect();
    let bleu = |picked: &[usize]| {
        Some(picked.iter().map(|&i| bleus[i]).sum::<bleu::Counts>().bleu().score)
    };
    let chrf =
        |picked: &[usize]| Some(picked.iter().map(|&i| chrfs[i]).sum::<chrf::Counts>().chrf());
    vec![
        Measured::new("BLEU", bleus.len(), bootstrap, bleu),
        Measured::new("chrF2", chrfs.len(), bootstrap, chrf),
    ]
}
