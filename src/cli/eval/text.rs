//! `warpwright eval text`: texts beside references.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{OutArgs, conclude};
use crate::data::files;
use crate::eval::metrics::bootstrap::Bootstrap;
use crate::eval::metrics::{bleu, chrf, squad};
use crate::eval::results::{Measured, Results};

/// Texts beside references, line by line: BLEU, chrF, and SQuAD's exact match and F1
///
/// BLEU and chrF are sacreBLEU's with its defaults; SQuAD's (v1.1) leave articles, case and
/// punctuation aside, and take the best reference. To have a model write the texts first, see
/// `eval completion`.
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
        metrics: beside(&hypotheses, &references, &Bootstrap::default()),
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
    let wrong = || format!("{} cannot be read", path.display());
    let lines = files::lines(BufReader::new(File::open(path).with_context(wrong)?));
    lines.map(|line| Ok(line.with_context(wrong)?.1)).collect()
}

/// What texts are worth beside references: BLEU and chrF of the corpus, SQuAD's exact match and F1.
pub fn beside<H: AsRef<str>, R: AsRef<[S]>, S: AsRef<str>>(
    texts: &[H],
    references: &[R],
    bootstrap: &Bootstrap,
) -> Vec<Measured> {
    let pairs = || texts.iter().zip(references).map(|(t, r)| (t.as_ref(), r.as_ref()));
    let bleus: Vec<bleu::Counts> = pairs().map(|(t, r)| bleu::sentence(t, r)).collect();
    let chrfs: Vec<chrf::Counts> = pairs().map(|(t, r)| chrf::sentence(t, r)).collect();
    let bleu = |picked: &[usize]| {
        Some(picked.iter().map(|&i| bleus[i]).sum::<bleu::Counts>().bleu().score)
    };
    let chrf =
        |picked: &[usize]| Some(picked.iter().map(|&i| chrfs[i]).sum::<chrf::Counts>().chrf());
    let answers: Vec<squad::Score> = pairs().map(|(t, r)| squad::v1(t, r)).collect();
    let of = |part: fn(&squad::Score) -> f64| answers.iter().map(part).collect::<Vec<_>>();
    vec![
        Measured::new("BLEU", bleus.len(), bootstrap, bleu),
        Measured::new("chrF2", chrfs.len(), bootstrap, chrf),
        Measured::mean("exact match, SQuAD", &of(|score| score.exact), bootstrap),
        Measured::mean("F1, SQuAD", &of(|score| score.f1), bootstrap),
    ]
}
