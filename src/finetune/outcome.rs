//! What a finetuned model comes to: metrics with intervals, confusion, how wrong it is where.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::examples::{Example, Gold};
use super::questions::{Decoding, Found, decode};
use super::saying::{tags, words};
use crate::eval::loss::Losses;
use crate::eval::metrics::bootstrap::{Bootstrap, Interval};
use crate::eval::metrics::classification::{ByClass, accuracy, confusion, multi_label};
use crate::eval::metrics::entities::ByType;
use crate::eval::metrics::regression::{mean_squared_error, pearson, spearman};
use crate::eval::metrics::squad::{self, Doubted};
use crate::eval::metrics::{Scores, Tally};
use crate::logits::{argmax, log_sum_exp};
use crate::model::arch::{Task, TaskKind};

/// Classes at most whose confusion is told.
const MATRIX: usize = 200;

/// What a model is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Right answers: of several labels, all of an example's; of words and tokens, each
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
    /// Mean squared error
    Mse,
    /// F1 of whole entities, as seqeval's
    EntityF1,
    /// Answers that are a right one to the word, as SQuAD's
    Exact,
    /// F1 of the words of answers, as SQuAD's
    AnswerF1,
    /// Perplexity of a token
    Perplexity,
}

impl Metric {
    /// Those that a kind of task has, the one that it is judged by first; of none, completions'.
    pub fn all(kind: Option<TaskKind>) -> &'static [Metric] {
        match kind {
            Some(TaskKind::Classes) => &[Metric::Accuracy, Metric::F1, Metric::Matthews],
            Some(TaskKind::Flags) => &[Metric::MicroF1, Metric::F1, Metric::Accuracy],
            Some(TaskKind::Values) => &[Metric::Pearson, Metric::Spearman, Metric::Mse],
            Some(TaskKind::Tokens) => &[Metric::EntityF1, Metric::Accuracy],
            Some(TaskKind::Spans) => &[Metric::AnswerF1, Metric::Exact],
            None => &[Metric::Perplexity, Metric::Accuracy],
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
            Metric::Mse => "MSE",
            Metric::EntityF1 => "entity F1",
            Metric::Exact => "exact",
            Metric::AnswerF1 => "answer F1",
            Metric::Perplexity => "perplexity",
        }
    }

    /// What a value is worth: more is better. One that is undefined is worth least.
    pub fn worth(self, value: Option<f64>) -> f64 {
        let value = value.filter(|value| !value.is_nan());
        match (self, value) {
            (_, None) => f64::NEG_INFINITY,
            (Metric::Mse | Metric::Perplexity, Some(value)) => -value,
            (_, Some(value)) => value,
        }
    }
}

/// What a model said of examples beside what was right.
#[derive(Debug, Clone)]
pub struct Predictions {
    judged: Judged,
    /// By example, for the worst of them.
    losses: Vec<f64>,
    /// By example [rows, K], of all its sequences; of completions none.
    pub logits: Vec<Vec<f64>>,
}

/// By example.
#[derive(Debug, Clone)]
enum Judged {
    /// Of so many classes, those that were right and that were said.
    Classes(usize, Vec<[usize; 2]>),
    /// The same of labels.
    Flags(Vec<[Vec<bool>; 2]>),
    Values(Vec<[f64; 2]>),
    Tokens(Vec<Tagged>),
    Spans(Vec<Answered>),
    Completions(Vec<Losses>),
}

#[derive(Debug, Clone, Copy)]
struct Tagged {
    /// Of whole entities; none where labels are no tags of entities.
    entities: Option<Tally>,
    right: usize,
    words: usize,
}

#[derive(Debug, Clone, Copy)]
struct Answered {
    score: squad::Score,
    /// Had the best answer been given.
    doubted: Doubted,
}

impl Predictions {
    /// Of `examples` by the `logits` [rows, K] of all sequences of each.
    pub fn of_task(
        task: &Task,
        examples: &[Example],
        logits: Vec<Vec<f64>>,
        decoding: &Decoding,
    ) -> Predictions {
        let k = task.labels.len();
        let pairs = || examples.iter().zip(&logits);
        let mut losses: Vec<f64> = pairs().map(|(example, z)| loss(example, z, k)).collect();
        let judged = match task.kind {
            TaskKind::Classes => {
                Judged::Classes(k, pairs().map(|(e, z)| [class(&e.gold), argmax(z)]).collect())
            }
            TaskKind::Flags => {
                let said = |z: &[f64]| z.iter().map(|&z| z > 0.0).collect();
                Judged::Flags(pairs().map(|(e, z)| [flags(&e.gold).to_vec(), said(z)]).collect())
            }
            TaskKind::Values => {
                Judged::Values(pairs().map(|(e, z)| [value(&e.gold), z[0]]).collect())
            }
            TaskKind::Tokens => {
                Judged::Tokens(pairs().map(|(e, z)| tagged(e, z, &task.labels)).collect())
            }
            TaskKind::Spans => {
                let (answered, wrong) = pairs().map(|(e, z)| answered(e, z, decoding)).unzip();
                losses = wrong;
                Judged::Spans(answered)
            }
        };
        Predictions { judged, losses, logits }
    }

    /// Of completions.
    pub fn of_completions(continued: Vec<Losses>) -> Predictions {
        let losses = continued.iter().map(|c| c.nll / c.tokens.max(1.0)).collect();
        Predictions { judged: Judged::Completions(continued), losses, logits: vec![] }
    }

    /// A metric of all examples; none where it is undefined.
    pub fn metric(&self, metric: Metric) -> Option<f64> {
        self.of(metric, &(0..self.losses.len()).collect::<Vec<_>>())
    }

    /// The same with an interval of 95%, by bootstrap over examples.
    pub fn interval(&self, metric: Metric, seed: u64) -> Option<Interval> {
        let bootstrap = Bootstrap { seed, ..Bootstrap::default() };
        bootstrap.interval(self.losses.len(), |picked| self.of(metric, picked))
    }

    /// Of the examples `picked`.
    pub fn of(&self, metric: Metric, picked: &[usize]) -> Option<f64> {
        match &self.judged {
            Judged::Classes(k, pairs) => {
                let found = by_class(*k, pairs, picked);
                match metric {
                    Metric::F1 => Some(found.macro_mean().f1),
                    Metric::Matthews => Some(found.matthews()),
                    _ => found.accuracy(),
                }
            }
            Judged::Flags(pairs) => match metric {
                Metric::Accuracy => {
                    let [gold, said] = picked_flags(pairs, picked);
                    accuracy(&gold, &said)
                }
                Metric::F1 => Some(Scores::macro_mean(&self.tallies(picked)?).f1),
                _ => Some(Scores::micro(&self.tallies(picked)?).f1),
            },
            Judged::Values(pairs) => {
                let [gold, said] = [0, 1]
                    .map(|which| -> Vec<f64> { picked.iter().map(|&i| pairs[i][which]).collect() });
                match metric {
                    Metric::Pearson => pearson(&gold, &said),
                    Metric::Spearman => spearman(&gold, &said),
                    _ => mean_squared_error(&gold, &said),
                }
            }
            Judged::Tokens(tagged) => {
                let picked = || picked.iter().map(|&i| tagged[i]);
                match metric {
                    Metric::EntityF1 => {
                        let tallies = picked().map(|t| t.entities).collect::<Option<Vec<_>>>()?;
                        Some(Scores::micro(&tallies).f1)
                    }
                    _ => ratio(
                        picked().map(|t| t.right as f64).sum(),
                        picked().map(|t| t.words as f64).sum(),
                    ),
                }
            }
            Judged::Spans(answered) => {
                let score = |i: &usize| match metric {
                    Metric::Exact => answered[*i].score.exact,
                    _ => answered[*i].score.f1,
                };
                ratio(picked.iter().map(score).sum(), picked.len() as f64)
            }
            Judged::Completions(continued) => {
                let sum = |of: fn(&Losses) -> f64| -> f64 {
                    picked.iter().map(|&i| of(&continued[i])).sum()
                };
                let tokens = sum(|c| c.tokens);
                match metric {
                    Metric::Perplexity => ratio(sum(|c| c.nll), tokens).map(f64::exp),
                    _ => ratio(sum(|c| c.right), tokens),
                }
            }
        }
    }

    /// Precision, recall and F1 of one class or label; of other tasks none.
    pub fn scores(&self, output: usize, picked: &[usize]) -> Option<Scores> {
        Some(self.tallies(picked)?[output].scores())
    }

    /// By class or label.
    fn tallies(&self, picked: &[usize]) -> Option<Vec<Tally>> {
        match &self.judged {
            Judged::Classes(k, pairs) => Some(by_class(*k, pairs, picked).tallies),
            Judged::Flags(pairs) => {
                let [gold, said] = picked_flags(pairs, picked);
                let labels = gold.first()?.len();
                Some(multi_label(labels, &gold.concat(), &said.concat()))
            }
            _ => None,
        }
    }

    /// How often classes were taken for one another; rows are what was right. None of very many.
    pub fn confusion(&self) -> Option<Vec<Vec<u64>>> {
        let Judged::Classes(k, pairs) = &self.judged else { return None };
        let [gold, said] = [0, 1].map(|of| pairs.iter().map(|pair| pair[of]).collect::<Vec<_>>());
        (*k <= MATRIX).then(|| confusion(*k, &gold, &said))
    }

    /// Of questions: the threshold of doubt that would have been best, and the F1 that it earns.
    pub fn best_threshold(&self) -> Option<(f64, f64)> {
        let Judged::Spans(answered) = &self.judged else { return None };
        let doubted: Vec<Doubted> = answered.iter().map(|a| a.doubted).collect();
        let (threshold, percent) = squad::best_threshold(&doubted)?;
        Some((threshold, percent / 100.0))
    }

    /// The examples with the largest losses, the worst first.
    pub fn worst(&self, count: usize) -> Vec<(usize, f64)> {
        let mut losses: Vec<(usize, f64)> = self.losses.iter().copied().enumerate().collect();
        losses.sort_by(|a, b| b.1.total_cmp(&a.1));
        losses.truncate(count);
        losses
    }
}

fn by_class(k: usize, pairs: &[[usize; 2]], picked: &[usize]) -> ByClass {
    let [gold, said] = [0, 1].map(|of| picked.iter().map(|&i| pairs[i][of]).collect::<Vec<_>>());
    ByClass::new(k, &gold, &said)
}

/// What was right of the examples `picked`, and what was said.
fn picked_flags<'a>(pairs: &'a [[Vec<bool>; 2]], picked: &[usize]) -> [Vec<&'a [bool]>; 2] {
    [0, 1].map(|which| picked.iter().map(|&i| &pairs[i][which][..]).collect())
}

/// None of nothing.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// How wrong logits [rows, k] are [nats; of numbers their square]; of questions, see
/// [`Predictions::of_task`].
fn loss(example: &Example, logits: &[f64], k: usize) -> f64 {
    let nll = |row: &[f64], class: usize| log_sum_exp(row) - row[class];
    match &example.gold {
        Gold::Class(class) => nll(logits, *class),
        Gold::Flags(flags) => {
            let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
            let each = logits.iter().zip(flags);
            each.map(|(&z, &flag)| softplus(if flag { -z } else { z })).sum()
        }
        Gold::Value(value) => (logits[0] - value).powi(2),
        Gold::Words(words, _) => {
            let targets = example.sequences.iter().flat_map(|sequence| &sequence.targets);
            let rows = targets.zip(logits.chunks_exact(k)).filter(|(target, _)| **target >= 0);
            let total: f64 = rows.map(|(&target, row)| nll(row, target as usize)).sum();
            total / words.len().max(1) as f64
        }
        Gold::Answers(_) | Gold::Completion => 0.0,
    }
}

fn tagged(example: &Example, logits: &[f64], labels: &[String]) -> Tagged {
    let Gold::Words(_, classes) = &example.gold else { unreachable!("{:?}", example.gold) };
    let said = words(example, logits, labels.len());
    let right = said
        .iter()
        .zip(classes)
        .filter(|(said, gold)| said.as_ref().is_some_and(|said| said.class == **gold));
    let gold: Vec<&str> = classes.iter().map(|&class| labels[class].as_str()).collect();
    let entities = ByType::sentence(&gold, &tags(&said, labels)).ok();
    Tagged {
        right: right.count(),
        words: classes.len(),
        entities: entities.map(|by_type| by_type.total()),
    }
}

/// What an answer earns, and how wrong it is: 1 − F1 as far as the model is sure of it.
fn answered(example: &Example, logits: &[f64], decoding: &Decoding) -> (Answered, f64) {
    let Gold::Answers(golds) = &example.gold else { unreachable!("{:?}", example.gold) };
    let decoded = decode(&example.sequences, logits, decoding);
    let score = |found: Option<&Found>| {
        let answer = found.map_or("", |found| &example.text[found.bytes.clone()]);
        match decoding.threshold {
            None if !golds.is_empty() => squad::v1(answer, golds),
            _ => squad::v2(answer, golds),
        }
    };
    let given = score(decoded.answer());
    let doubted = Doubted {
        doubt: decoded.doubt(),
        score: score(decoded.spans.first()).f1,
        answerable: !golds.is_empty(),
    };
    (Answered { score: given, doubted }, (1.0 - given.f1) * decoded.probability())
}

fn class(gold: &Gold) -> usize {
    match gold {
        Gold::Class(class) => *class,
        other => unreachable!("a class, not {other:?}"),
    }
}

fn flags(gold: &Gold) -> &[bool] {
    match gold {
        Gold::Flags(flags) => flags,
        other => unreachable!("flags, not {other:?}"),
    }
}

fn value(gold: &Gold) -> f64 {
    match gold {
        Gold::Value(value) => *value,
        other => unreachable!("a number, not {other:?}"),
    }
}
