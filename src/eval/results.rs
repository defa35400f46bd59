//! What an evaluation came to, for people and for files.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::metrics::bootstrap::Bootstrap;
use super::metrics::shown;

/// A metric and its interval of 95%.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    pub metric: String,
    /// None where it is undefined.
    pub value: Option<f64>,
    /// None where there is no interval.
    pub low: Option<f64>,
    pub high: Option<f64>,
}

impl Measured {
    /// A figure by itself.
    pub fn plain(metric: &str, value: f64) -> Measured {
        Measured { metric: metric.into(), value: Some(value), low: None, high: None }
    }

    /// `of` some of so many examples, whose numbers it is given.
    pub fn new(
        metric: &str,
        examples: usize,
        bootstrap: &Bootstrap,
        of: impl Fn(&[usize]) -> Option<f64> + Sync,
    ) -> Measured {
        let value = of(&(0..examples).collect::<Vec<_>>());
        let interval = bootstrap.interval(examples, of);
        let (low, high) = (interval.map(|i| i.low), interval.map(|i| i.high));
        Measured { metric: metric.into(), value, low, high }
    }

    /// The mean of a number an example.
    pub fn mean(metric: &str, values: &[f64], bootstrap: &Bootstrap) -> Measured {
        let mean = |picked: &[usize]| {
            let sum: f64 = picked.iter().map(|&i| values[i]).sum();
            (!picked.is_empty()).then(|| sum / picked.len() as f64)
        };
        Measured::new(metric, values.len(), bootstrap, mean)
    }
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    pub task: &'static str,
    /// Where the model is from, if one was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The file, or files, with the examples.
    pub data: String,
    /// What was counted, and how many of it.
    pub examples: usize,
    pub unit: &'static str,
    pub metrics: Vec<Measured>,
    /// What the figures depend on.
    pub settings: Value,
    /// Example by example, where that says something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Value>,
}

impl Results {
    /// A table for people.
    pub fn table(&self) -> String {
        let Results { examples, unit, data, .. } = self;
        let mut out = format!("on {examples} {unit} of {data}:\n");
        let wide = self.metrics.iter().map(|m| m.metric.chars().count()).max().unwrap_or(0);
        for Measured { metric, value, low, high } in &self.metrics {
            let interval = match (low, high) {
                (None, None) => String::new(),
                (low, high) => format!("  [{}, {}]", shown(*low), shown(*high)),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {metric:<wide$}  {:>10}{interval}", shown(*value));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_a_metric() {
        let bootstrap = Bootstrap::default();
        let results = Results {
            task: "choice",
            model: None,
            data: "a.jsonl".into(),
            examples: 4,
            unit: "questions",
            metrics: vec![
                Measured::mean("accuracy", &[1.0, 1.0, 1.0, 1.0], &bootstrap),
                Measured::plain("loss", 2.5),
                Measured::mean("nothing", &[], &bootstrap),
            ],
            settings: Value::Null,
            rows: vec![],
        };
        let table = "on 4 questions of a.jsonl:\n  accuracy      1.0000  [1.0000, 1.0000]\n  \
                     loss          2.5000\n  nothing    undefined\n";
        assert_eq!(results.table(), table);
    }
}
