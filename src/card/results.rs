//! What was measured, and the energy that it took.

use std::path::Path;

use serde_json::Value;

use super::{CardError, Origin, file_name, json, table};
use crate::telemetry::Record;
use crate::telemetry::format::{commas, count, figure};

/// Figures on one set of data.
pub struct Table {
    /// None: what the model is for.
    pub task: Option<String>,
    pub data: String,
    pub rows: Vec<Row>,
}

/// A metric, and the ends of its interval of 95% where there is one.
pub struct Row {
    pub metric: String,
    pub value: f64,
    pub ends: Option<(f64, f64)>,
}

/// What the model's own folder says.
pub fn of(origin: &Origin) -> Vec<Table> {
    match origin {
        Origin::Unknown => vec![],
        Origin::Finetuned(results) => {
            let rows = rows(&results["metrics"]);
            let held = results["held_out"].as_u64().map(|n| format!("{} held-out rows", commas(n)));
            let data = held.unwrap_or_else(|| "held-out rows".into());
            Some(Table { task: None, data, rows })
                .filter(|t| !t.rows.is_empty())
                .into_iter()
                .collect()
        }
        Origin::Run(run) => {
            let evals = run.log.records.iter().rev().filter_map(|record| match record {
                Record::Eval(eval) => Some(eval),
                _ => None,
            });
            let Some(eval) = evals.into_iter().find(|eval| Some(eval.step) == run.step) else {
                return vec![];
            };
            let row = |metric: &str, value| Row { metric: metric.into(), value, ends: None };
            let mut rows = vec![
                row("loss [nats a token]", eval.loss),
                row("perplexity", eval.loss.exp()),
                row("accuracy", eval.accuracy),
            ];
            rows.extend(eval.pair_accuracy.map(|pair| row("accuracy of pairs", pair)));
            let tokens = commas(eval.tokens);
            let data = format!("held-out text, {tokens} predicted tokens, at step {}", eval.step);
            vec![Table { task: None, data, rows }]
        }
    }
}

/// What `warpwright eval … --out` wrote.
pub fn evaluated(path: &Path) -> Result<Table, CardError> {
    let command = "eval … --out";
    let results = json(path, command)?;
    let lacks = |what| CardError::Lacks { path: path.into(), what, command };
    let text = |key: &'static str| results[key].as_str().ok_or_else(|| lacks(key));
    let rows = rows(&results["metrics"]);
    if rows.is_empty() {
        return Err(lacks("metrics"));
    }
    let examples = results["examples"].as_u64().ok_or_else(|| lacks("examples"))?;
    let data = file_name(Path::new(text("data")?));
    let data = format!("{data}, {} {}", commas(examples), text("unit")?);
    Ok(Table { task: Some(text("task")?.into()), data, rows })
}

fn rows(metrics: &Value) -> Vec<Row> {
    let row = |metric: &Value| {
        Some(Row {
            metric: metric["metric"].as_str()?.into(),
            value: metric["value"].as_f64()?,
            ends: metric["low"].as_f64().zip(metric["high"].as_f64()),
        })
    };
    metrics.as_array().map_or(vec![], |all| all.iter().filter_map(row).collect())
}

/// Markdown.
pub fn tables(all: &[Table]) -> String {
    if all.is_empty() {
        return "Not measured, or not known here.\n\n".into();
    }
    let one = |Table { task, data, rows }: &Table| {
        let task = task.as_ref().map_or(String::new(), |task| format!("`eval {task}`: "));
        let mut cells = vec![["", "value", "95% interval"].map(String::from).to_vec()];
        cells.extend(rows.iter().map(|row| {
            let ends = row.ends.map(|(low, high)| format!("{low:.4} to {high:.4}"));
            let ends = ends.unwrap_or_else(|| "not measured".into());
            vec![row.metric.clone(), format!("{:.4}", row.value), ends]
        }));
        format!("On {task}{data}:\n\n{}", table(&cells))
    };
    all.iter().map(one).collect()
}

/// What each seed of a finetuning came to, in Markdown; nothing of a single one.
pub fn seeds(origin: &Origin) -> String {
    let Origin::Finetuned(results) = origin else { return String::new() };
    let over = &results["over_seeds"];
    let (Some(mean), Some(deviation)) = (over["mean"].as_f64(), over["deviation"].as_f64()) else {
        return String::new();
    };
    let metric = results["chosen_by"].as_str().unwrap_or("metric");
    let mut cells = vec![vec!["seed".into(), metric.into()]];
    for pair in results["seeds"].as_array().into_iter().flatten() {
        let value = pair[1].as_f64().map_or("undefined".into(), |value| format!("{value:.4}"));
        cells.push(vec![pair[0].to_string(), value]);
    }
    cells.push(vec!["mean ± deviation".into(), format!("{mean:.4} ± {deviation:.4}")]);
    format!("Every seed, on the same rows; this model is the best of them:\n\n{}", table(&cells))
}

/// What training took, as far as it was measured.
pub fn energy(origin: &Origin, bench: Option<&Path>) -> Result<String, CardError> {
    let counted = match origin {
        Origin::Run(run) => run.last().and_then(|train| {
            let joules = run.log.energy(train.step)?;
            let each = figure(joules / train.tokens as f64);
            let all = count(joules);
            Some(format!("{all} J for its training and held-out losses, {each} J a trained token"))
        }),
        Origin::Finetuned(results) => results["joules"].as_f64().map(|joules| {
            let seeds = results["seeds"].as_array().map_or(1, Vec::len);
            format!("{} J for finetuning and measuring, seeds: {seeds}", count(joules))
        }),
        Origin::Unknown => None,
    };
    if let Some(counted) = counted {
        return Ok(format!("{counted} (the GPU alone, by NVML)."));
    }
    let Some(path) = bench else { return Ok("Not measured.".into()) };
    let command = "bench step --json";
    let report = json(path, command)?;
    let lacks = |what| CardError::Lacks { path: path.into(), what, command };
    let joules = report["step"]["energy"]["per_token"].as_f64().ok_or_else(|| lacks("energy"))?;
    let gpu = report["device"]["name"].as_str().ok_or_else(|| lacks("device"))?;
    let measured = format!(
        "{} J a trained token on {gpu} (NVML, of steps alone, measured apart from this run)",
        figure(joules)
    );
    let tokens = match origin {
        Origin::Run(run) => run.last().map(|train| train.tokens as f64),
        _ => None,
    };
    Ok(match tokens {
        Some(tokens) => {
            format!("{measured}; so about {} J for its tokens.", count(joules * tokens))
        }
        None => format!("{measured}."),
    })
}
