//! `warpwright eval labels`: predictions beside labels.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{OutArgs, conclude};
use crate::eval::metrics::bootstrap::Bootstrap;
use crate::eval::metrics::classification::ByClass;
use crate::eval::metrics::regression::{mean_squared_error, pearson, spearman};
use crate::eval::results::{Measured, Results};
use crate::finetune::table::Table;

/// Predictions beside labels: accuracy, F1, Matthews; of numbers Pearson, Spearman, squared error
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: {\"label\": \"good\", \"prediction\": \"bad\"}\n  \
    warpwright eval labels --input predictions.jsonl --positive good\n  \
    warpwright eval labels --input scores.tsv --label gold --prediction said --numbers")]
pub struct LabelsArgs {
    /// A row an example: .jsonl, .csv or .tsv
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Column of what is right
    #[arg(long, value_name = "COLUMN", default_value = "label")]
    pub label: String,
    /// Column of what was said
    #[arg(long, value_name = "COLUMN", default_value = "prediction")]
    pub prediction: String,
    /// They are numbers, not names
    #[arg(long, conflicts_with = "positive")]
    pub numbers: bool,
    /// The F1 of this class, too
    #[arg(long, value_name = "LABEL")]
    pub positive: Option<String>,
    #[command(flatten)]
    pub out: OutArgs,
}

/// Reads, measures and tells.
pub fn run(args: &LabelsArgs) -> Result<()> {
    let table = Table::read(&args.input)?;
    let (metrics, labels) = if args.numbers {
        (of_numbers(&numbers(&table, &args.label)?, &numbers(&table, &args.prediction)?), vec![])
    } else {
        of_names(args, &names(&table, &args.label)?, &names(&table, &args.prediction)?)?
    };
    let results = Results {
        task: "labels",
        model: None,
        data: args.input.display().to_string(),
        examples: table.records.len(),
        unit: "rows",
        metrics,
        settings: if args.numbers { Value::Null } else { json!({ "labels": labels }) },
        rows: vec![],
    };
    conclude(&results, &args.out)
}

fn names(table: &Table, column: &str) -> Result<Vec<String>> {
    table.records.iter().map(|record| Ok(table.text(record, column)?)).collect()
}

fn numbers(table: &Table, column: &str) -> Result<Vec<f64>> {
    let number = |record| {
        let text = table.text(record, column)?;
        let value = text.trim().parse().ok().filter(|value: &f64| value.is_finite());
        let wrong = || table.wrong(record, format!("{column} {text:?} is no number"));
        Ok(value.ok_or_else(wrong)?)
    };
    table.records.iter().map(number).collect()
}

fn of_numbers(gold: &[f64], said: &[f64]) -> Vec<Measured> {
    let some = |picked: &[usize]| -> [Vec<f64>; 2] {
        [gold, said].map(|values| picked.iter().map(|&i| values[i]).collect())
    };
    let of = |name, metric: fn(&[f64], &[f64]) -> Option<f64>| {
        Measured::new(name, gold.len(), &Bootstrap::default(), |picked| {
            let [gold, said] = some(picked);
            metric(&gold, &said)
        })
    };
    vec![
        of("Pearson", pearson),
        of("Spearman", spearman),
        of("mean squared error", mean_squared_error),
    ]
}

/// The metrics, and the classes that there are.
fn of_names(
    args: &LabelsArgs,
    gold: &[String],
    said: &[String],
) -> Result<(Vec<Measured>, Vec<String>)> {
    let mut labels: Vec<String> = gold.iter().chain(said).cloned().collect();
    labels.sort();
    labels.dedup();
    let place = |name: &String| labels.binary_search(name).expect("a label that was listed");
    let gold: Vec<usize> = gold.iter().map(place).collect();
    let said: Vec<usize> = said.iter().map(place).collect();
    let of = |name: &str, metric: &(dyn Fn(&ByClass) -> Option<f64> + Sync)| {
        Measured::new(name, gold.len(), &Bootstrap::default(), |picked| {
            let some = |of: &[usize]| -> Vec<usize> { picked.iter().map(|&i| of[i]).collect() };
            metric(&ByClass::new(labels.len(), &some(&gold), &some(&said)))
        })
    };
    let mut metrics = vec![
        of("accuracy", &ByClass::accuracy),
        of("F1, macro", &|c| Some(c.macro_mean().f1)),
        of("F1, micro", &|c| Some(c.micro().f1)),
        of("Matthews", &|c| Some(c.matthews())),
    ];
    if let Some(positive) = &args.positive {
        let known = labels.join(", ");
        let found = labels.iter().position(|label| label == positive);
        ensure!(found.is_some(), "--positive {positive:?} is none of the labels: {known}");
        let scores = move |c: &ByClass| found.map(|class| c.tallies[class].scores());
        metrics.push(of("precision", &|c| Some(scores(c)?.precision)));
        metrics.push(of("recall", &|c| Some(scores(c)?.recall)));
        metrics.push(of("F1", &|c| Some(scores(c)?.f1)));
    }
    Ok((metrics, labels))
}
