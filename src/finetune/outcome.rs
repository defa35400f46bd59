//! What a finetuned model comes to: metrics with intervals, confusion, the worst mistakes.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::examples::Label;
use crate::eval::metrics::bootstrap::{Bootstrap, Interval};
use crate::eval::metrics::classification::{Confusion, multi_label};
use crate::eval::metrics::regression::{mean_squared_error, pearson, spearman};
use crate::eval::metrics::{Scores, classification};
use crate::model::arch::TaskKind;

/// What a model is judged by; larger is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Right answers; of several labels, all of an example's
    Accuracy,
    /// F1, the mean over classes or labels
    F1,
    /// F1 over all labels together
    MicroF1,
    /// Matthews correlation
    Matthews,
    /// Pearson correlation
    Pearson,
    /// Spearman correlation
    Spearman,
    /// Mean squared error, negative
    Mse,
}

impl Metric {
    /// The one that a kind of task is judged by where none is named.
    pub fn of(kind: TaskKind) -> Metric {
        match kind {
            TaskKind::Flags => Metric::MicroF1,
            TaskKind::Values => Metric::Pearson,
            _ => Metric::Accuracy,
        }
    }

    /// Those that a kind of task has.
    pub fn all(kind: TaskKind) -> &'static [Metric] {
        match kind {
            TaskKind::Flags => &[Metric::Accuracy, Metric::MicroF1, Metric::F1],
            TaskKind::Values => &[Metric::Pearson, Metric::Spearman, Metric::Mse],
            _ => &[Metric::Accuracy, Metric::F1, Metric::Matthews],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::F1 => "F1, macro",
            Metric::MicroF1 => "F1, micro",
            Metric::Matthews => "Matthews",
            Metric::Pearson => "Pearson",
            Metric::Spearman => "Spearman",
            Metric::Mse => "−MSE",
        }
    }
}

/// A model's outputs for examples, and what was right.
#[derive(Debug, Clone)]
pub struct Predictions {
    pub kind: TaskKind,
    /// K
    pub outputs: usize,
    /// [examples, K]
    pub logits: Vec<f64>,
    pub labels: Vec<Label>,
}

impl Predictions {
    /// Logits of example `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.logits[i * self.outputs..][..self.outputs]
    }

    /// The likeliest class of example `i`.
    pub fn class(&self, i: usize) -> usize {
        let row = self.row(i);
        (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a))).unwrap_or(0)
    }

    /// A metric of all examples; none where it is undefined.
    pub fn metric(&self, metric: Metric) -> Option<f64> {
        self.of(metric, &(0..self.labels.len()).collect::<Vec<_>>())
    }

    /// The same with an interval of 95%, by bootstrap.
    pub fn interval(&self, metric: Metric, seed: u64) -> Option<Interval> {
        let bootstrap = Bootstrap { seed, ..Bootstrap::default() };
        bootstrap.interval(self.labels.len(), |picked| self.of(metric, picked))
    }

    /// Of the examples `picked`.
    fn of(&self, metric: Metric, picked: &[usize]) -> Option<f64> {
        match self.kind {
            TaskKind::Values => {
                let gold: Vec<f64> = picked.iter().map(|&i| value(&self.labels[i])).collect();
                let found: Vec<f64> = picked.iter().map(|&i| self.row(i)[0]).collect();
                match metric {
                    Metric::Pearson => pearson(&gold, &found),
                    Metric::Spearman => spearman(&gold, &found),
                    _ => mean_squared_error(&gold, &found).map(|error| -error),
                }
            }
            TaskKind::Flags => {
                let gold: Vec<bool> =
                    picked.iter().flat_map(|&i| flags(&self.labels[i])).copied().collect();
                let found: Vec<bool> =
                    picked.iter().flat_map(|&i| self.row(i)).map(|&z| z > 0.0).collect();
                let rows = |flags: &[bool]| -> Vec<Vec<bool>> {
                    flags.chunks(self.outputs).map(<[bool]>::to_vec).collect()
                };
                let tallies = multi_label(self.outputs, &gold, &found);
                match metric {
                    Metric::Accuracy => classification::accuracy(&rows(&gold), &rows(&found)),
                    Metric::F1 => Some(Scores::macro_mean(&tallies).f1),
                    _ => Some(Scores::micro(&tallies).f1),
                }
            }
            _ => {
                let confusion = self.confusion(picked);
                match metric {
                    Metric::F1 => Some(confusion.macro_mean().f1),
                    Metric::Matthews => Some(confusion.matthews()),
                    _ => confusion.accuracy(),
                }
            }
        }
    }

    /// How often classes were taken for one another.
    pub fn confusion(&self, picked: &[usize]) -> Confusion {
        let gold: Vec<usize> = picked.iter().map(|&i| class(&self.labels[i])).collect();
        let found: Vec<usize> = picked.iter().map(|&i| self.class(i)).collect();
        Confusion::new(self.outputs, &gold, &found)
    }

    /// The examples with the largest losses, the worst first.
    pub fn worst(&self, count: usize) -> Vec<(usize, f64)> {
        let mut losses: Vec<(usize, f64)> =
            (0..self.labels.len()).map(|i| (i, self.loss(i))).collect();
        losses.sort_by(|a, b| b.1.total_cmp(&a.1));
        losses.truncate(count);
        losses
    }

    fn loss(&self, i: usize) -> f64 {
        let row = self.row(i);
        match &self.labels[i] {
            Label::Class(class) => {
                let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                row.iter().map(|z| (z - top).exp()).sum::<f64>().ln() + top - row[*class]
            }
            Label::Flags(flags) => {
                let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
                let each = row.iter().zip(flags);
                each.map(|(&z, &flag)| softplus(if flag { -z } else { z })).sum::<f64>()
            }
            Label::Value(value) => (row[0] - value).powi(2),
        }
    }
}

fn class(label: &Label) -> usize {
    match label {
        Label::Class(class) => *class,
        other => unreachable!("a class, not {other:?}"),
    }
}

fn flags(label: &Label) -> &[bool] {
    match label {
        Label::Flags(flags) => flags,
        other => unreachable!("flags, not {other:?}"),
    }
}

fn value(label: &Label) -> f64 {
    match label {
        Label::Value(value) => *value,
        other => unreachable!("a number, not {other:?}"),
    }
}
