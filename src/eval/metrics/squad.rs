//! Question answering: an answer beside one or several gold ones, as SQuAD's scripts score it.
//!
//! Answers are normalised: lower case, no ASCII punctuation, no articles (a, an, the), single
//! spaces. Then, for each gold answer,
//!
//! ```text
//! exact match = 1 if equal, else 0
//! F1          = 2·shared / (words + gold words)      shared: words of both, as bags
//! ```
//!
//! and the best gold answer counts. Version 1.1 (Rajpurkar et al., 2016) takes that as it is: two
//! answers that are nothing but articles match exactly, with F1 0. Version 2.0 (Rajpurkar, Jia and
//! Liang, 2018) has questions without an answer, whose one gold answer is the empty one; it leaves
//! out gold answers of which normalising leaves nothing (unless all are such), and where prediction
//! or gold is empty F1 is the exact match.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::Tally;
use super::text::{fields, shared};

/// What one answer earns, each in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub exact: f64,
    pub f1: f64,
}

/// An answer as it is compared.
pub fn normalize(answer: &str) -> String {
    // A word to Python's `\b`: letters and digits, without the combining marks of regex's own.
    static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\p{L}\p{N}]+").unwrap());
    let lower = answer.to_lowercase();
    let bare: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let spaced = WORD.replace_all(&bare, |word: &Captures| match &word[0] {
        "a" | "an" | "the" => " ".to_string(),
        other => other.to_string(),
    });
    fields(&spaced).collect::<Vec<_>>().join(" ")
}

/// SQuAD v1.1: the best exact match and the best F1 over `golds`, of which there is at least one.
pub fn v1<S: AsRef<str>>(prediction: &str, golds: &[S]) -> Score {
    assert!(!golds.is_empty(), "squad: SQuAD v1.1 has an answer to every question");
    let prediction = normalize(prediction);
    best(golds.iter().map(|gold| score(&prediction, &normalize(gold.as_ref()))))
}

/// SQuAD v2.0. No golds: the question has no answer, and the right prediction is an empty one.
pub fn v2<S: AsRef<str>>(prediction: &str, golds: &[S]) -> Score {
    let prediction = normalize(prediction);
    let mut golds: Vec<String> = golds.iter().map(|gold| normalize(gold.as_ref())).collect();
    golds.retain(|gold| !gold.is_empty());
    if golds.is_empty() {
        golds.push(String::new());
    }
    best(golds.iter().map(|gold| {
        let scored = score(&prediction, gold);
        let is_empty = prediction.is_empty() || gold.is_empty();
        if is_empty { Score { f1: scored.exact, ..scored } } else { scored }
    }))
}

/// A question of v2.0 for which a model has an answer, and doubts whether there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doubted {
    /// How much speaks for there being no answer: any finite number that grows with it.
    pub doubt: f64,
    /// What the answer earns (exact or F1) if it is given.
    pub score: f64,
    /// Whether there is one: if not, giving none earns 1.
    pub answerable: bool,
}

/// The threshold that is best in hindsight, and the mean score in percent that it earns: answers
/// are given where doubt ≤ threshold; −∞ is to give none. The lowest of equally good ones; `None`
/// without questions. Questions of equal doubt are answered together, which no threshold divides;
/// the script divides them.
pub fn best_threshold(questions: &[Doubted]) -> Option<(f64, f64)> {
    let none = |question: &Doubted| f64::from(!question.answerable);
    let mut sorted = questions.to_vec();
    sorted.sort_by(|a, b| a.doubt.total_cmp(&b.doubt));
    let mut earned: f64 = questions.iter().map(none).sum();
    let mut best = (f64::NEG_INFINITY, earned);
    for ties in sorted.chunk_by(|a, b| a.doubt == b.doubt) {
        earned += ties.iter().map(|question| question.score - none(question)).sum::<f64>();
        if earned > best.1 {
            best = (ties[0].doubt, earned);
        }
    }
    (!questions.is_empty()).then(|| (best.0, 100.0 * best.1 / questions.len() as f64))
}

/// Of two normalised answers, by v1.1.
fn score(prediction: &str, gold: &str) -> Score {
    let (ours, theirs) = (bag(fields(prediction)), bag(fields(gold)));
    let count = |bag: &HashMap<_, u64>| bag.values().sum();
    let correct = shared(&ours, &theirs);
    let tally = Tally { gold: count(&theirs), predicted: count(&ours), correct };
    Score { exact: f64::from(prediction == gold), f1: tally.f1() }
}

fn best(scores: impl Iterator<Item = Score>) -> Score {
    let none = Score { exact: 0.0, f1: 0.0 };
    scores.fold(none, |a, b| Score { exact: a.exact.max(b.exact), f1: a.f1.max(b.f1) })
}

fn bag<T: Hash + Eq>(items: impl Iterator<Item = T>) -> HashMap<T, u64> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}
