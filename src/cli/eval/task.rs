//! `warpwright eval task`: a finetuned model on labelled rows.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::device::OnDevice;
use super::super::finetune::RowArgs;
use super::super::remarks;
use super::{ModelArgs, OutArgs, bar, say, write};
use crate::checkpoint::model_folder;
use crate::data::Tokenizer;
use crate::device::Device;
use crate::eval::metrics::bootstrap::Bootstrap;
use crate::eval::results::{Measured, Results};
use crate::finetune::examples::{Columns, Example};
use crate::finetune::findings::Findings;
use crate::finetune::infer::Labeller;
use crate::finetune::outcome::{Metric, Predictions};
use crate::finetune::questions::Decoding;
use crate::finetune::reader::Data;
use crate::finetune::saying::said;
use crate::hf::ModelDir;
use crate::model::arch::{Task, TaskKind};

/// A finetuned model on labelled rows that it has not learnt from
///
/// What `finetune` tells of the rows that it holds out, for any other: of classes accuracy, F1 and
/// Matthews correlation, with how often each was taken for another; of labels F1, of numbers
/// Pearson, Spearman and squared error, of words accuracy and F1 of entities, of answers SQuAD's
/// F1 and exact match; and what the model is most wrong about.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright eval task --model runs/finetune --input test.csv --positive good\n  \
    warpwright eval task --model runs/pairs --input dev.tsv --text sentence1 \\\n    \
    --pair sentence2 --label score --out results.json\n  \
    warpwright eval task --model runs/answers --input dev-v2.0.json --longest 384")]
pub struct TaskArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A file as `finetune --train` takes it
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    #[command(flatten)]
    pub rows: RowArgs,
    /// Of classes and labels: precision, recall and F1 of this one, too
    #[arg(long, value_name = "LABEL")]
    pub positive: Option<String>,
    /// Seed of the intervals' resamples; `finetune` takes that of its training
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub out: OutArgs,
}

/// What was read.
struct Asked {
    task: Task,
    columns: Columns,
    examples: Vec<Example>,
    decoding: Decoding,
    /// Of the outputs.
    positive: Option<usize>,
}

#[derive(Serialize)]
struct Found<'a> {
    #[serde(flatten)]
    results: Results,
    #[serde(flatten)]
    findings: Findings<'a>,
}

/// Reads, asks and tells.
pub fn run(args: &TaskArgs) -> Result<()> {
    let asked = read(args)?;
    let predictions = args.model.on.run(&args.model.model, Judging { args, asked: &asked })?;
    let Asked { task, examples, decoding, .. } = &asked;
    let results = results(args, &asked, &predictions);
    let findings = Findings::of(Some(task), examples, &predictions, decoding);
    say(results.table().trim_end())?;
    say(findings.text(&task.labels).trim_end())?;
    write(&Found { results, findings }, &args.out)
}

fn read(args: &TaskArgs) -> Result<Asked> {
    args.rows.answers.check()?;
    let (path, model) = (&args.input, args.model.model.display());
    let folder = model_folder(&args.model.model);
    let arch = ModelDir::open(&folder)?.arch;
    let Some(task) = arch.task.clone() else {
        bail!(
            "{model} has no task's head: make one with `warpwright finetune`, or see `eval loss` \
             and `eval completion`, which measure language models"
        );
    };
    ensure!(
        task.kind != TaskKind::Values || task.labels.len() == 1,
        "{model} tells {} numbers of a text: rows have one",
        task.labels.len()
    );
    let positive = args.positive.as_ref().map(|name| positive(&task, name)).transpose()?;
    let columns = args.rows.columns(Some(task.kind))?;
    let data = Data::read(path, Some(task.kind), &columns)?;
    let tokenizer = Tokenizer::load(&folder)?;
    let examples = args.rows.examples((&arch, &tokenizer), &columns, path, data)?;
    let decoding = args.rows.answers.decoding_of([&examples]);
    Ok(Asked { task, columns, examples, decoding, positive })
}

/// The output of that name.
fn positive(task: &Task, name: &str) -> Result<usize> {
    ensure!(
        matches!(task.kind, TaskKind::Classes | TaskKind::Flags),
        "--positive: the model tells neither classes nor labels of texts; leave it away"
    );
    let found = task.labels.iter().position(|label| label == name);
    let known = task.labels.join(", ");
    found.with_context(|| format!("--positive {name:?} is none of the model's: {known}"))
}

struct Judging<'a> {
    args: &'a TaskArgs,
    asked: &'a Asked,
}

impl OnDevice for Judging<'_> {
    type Done = Predictions;

    fn run_on<D: Device>(self, dev: D) -> Result<Predictions> {
        let Asked { examples, decoding, .. } = self.asked;
        let labeller = Labeller::open(dev, &self.args.model.model)?;
        remarks(&labeller.report, &labeller.tokenizer, &labeller.model.arch);
        let sequences = examples.iter().flat_map(|example| &example.sequences);
        let bar = bar(sequences.map(|sequence| sequence.ids.len() as u64).sum());
        let found = labeller.judge(examples, decoding, |tokens| bar.inc(tokens as u64))?;
        bar.finish_and_clear();
        Ok(found)
    }
}

fn results(args: &TaskArgs, asked: &Asked, predictions: &Predictions) -> Results {
    let Asked { task, columns, examples, decoding, positive } = asked;
    let bootstrap = Bootstrap { seed: args.seed, ..Bootstrap::default() };
    let of = |name: &str, metric: &(dyn Fn(&[usize]) -> Option<f64> + Sync)| {
        Measured::new(name, examples.len(), &bootstrap, metric)
    };
    let mut metrics: Vec<Measured> = Metric::all(Some(task.kind))
        .iter()
        .map(|&metric| of(metric.name(), &|picked| predictions.of(metric, picked)))
        .collect();
    if let &Some(output) = positive {
        let scores = |picked: &[usize]| predictions.scores(output, picked);
        metrics.push(of("precision", &|picked| Some(scores(picked)?.precision)));
        metrics.push(of("recall", &|picked| Some(scores(picked)?.recall)));
        metrics.push(of("F1", &|picked| Some(scores(picked)?.f1)));
    }
    let mut settings = json!({
        "labels": task.labels,
        "text": columns.text,
        "pair": columns.pair,
        "label": columns.label,
        "positive": args.positive,
        "longest": args.rows.longest,
        "seed": args.seed,
    });
    if task.kind == TaskKind::Spans {
        settings["stride"] = args.rows.answers.stride.into();
        settings["longest_answer"] = decoding.longest.into();
        settings["null_threshold"] = decoding.threshold.into();
    }
    let row = |(example, logits): (&Example, &Vec<f64>)| {
        let mut row = said(task, example, logits, decoding);
        row.insert("line".into(), example.line.into());
        row.insert("right".into(), example.gold.shown(&task.labels));
        Value::Object(row)
    };
    Results {
        task: "task",
        model: Some(args.model.model.display().to_string()),
        data: args.input.display().to_string(),
        examples: examples.len(),
        unit: match task.kind {
            TaskKind::Tokens => "sentences",
            TaskKind::Spans => "questions",
            _ => "rows",
        },
        metrics,
        settings,
        rows: examples.iter().zip(&predictions.logits).map(row).collect(),
    }
}
