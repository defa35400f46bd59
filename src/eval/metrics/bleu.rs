//! BLEU of a corpus, as sacreBLEU computes it by default.
//!
//! ```text
//! p_n   = 100·Σ matches_n / Σ n-grams_n       over sentences; n = 1…4
//! brief = 1 if h ≥ r, else exp(1 − r/h)       h, r: tokens of hypotheses, of references
//! BLEU  = brief · exp(Σ_n ln p_n / 4)         in [0, 100]
//! ```
//!
//! An n-gram matches at most as often as it occurs in one of the sentence's references, and r adds
//! up the references whose length is closest (the shorter of two). An order without a match gets
//! p_n = 100 / (2^k·n-grams_n), the k-th of them; BLEU is 0 where no word matches, or no hypothesis
//! has four tokens. (Papineni et al., 2002; Post, "A call for clarity in reporting BLEU scores",
//! 2018; tokens and smoothing are those of NIST's mteval-v13a.)

use std::collections::HashMap;
use std::iter::Sum;
use std::ops::AddAssign;
use std::sync::LazyLock;

use regex::Regex;

use super::text::{fields, is_space, ngrams, shared};
use super::{added, ratio};

/// The longest n-gram.
const ORDERS: usize = 4;

/// What a sentence, or a corpus, adds to BLEU. Counts add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub hypothesis: u64,         // tokens
    pub reference: u64,          // tokens
    pub matches: [u64; ORDERS],  // by order
    pub possible: [u64; ORDERS], // n-grams of the hypothesis
}

/// BLEU and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bleu {
    /// In [0, 100].
    pub score: f64,
    /// p_n, smoothed, in [0, 100]; 0 for all where no word matches.
    pub precisions: [f64; ORDERS],
    /// In [0, 1].
    pub brevity: f64,
}

/// The settings in sacreBLEU's words, for this number of references a sentence; sacreBLEU 2.6.0
/// adds its version.
pub fn signature(references: usize) -> String {
    format!("nrefs:{references}|case:mixed|eff:no|tok:13a|smooth:exp")
}

/// The counts of one sentence, with at least one reference. Texts are not tokenised.
pub fn sentence<S: AsRef<str>>(hypothesis: &str, references: &[S]) -> Counts {
    let tokenized = |text: &str| fields(&tokenize(text)).map(String::from).collect::<Vec<_>>();
    let ours = tokenized(hypothesis);
    let theirs: Vec<_> = references.iter().map(|text| tokenized(text.as_ref())).collect();
    let lengths = theirs.iter().map(Vec::len);
    let closest = lengths.min_by_key(|&length| (length.abs_diff(ours.len()), length));
    let closest = closest.expect("bleu: a sentence has a reference");
    let mut counts =
        Counts { hypothesis: ours.len() as u64, reference: closest as u64, ..Counts::default() };
    for n in 1..=ORDERS {
        let mut allowed = HashMap::new();
        for (ngram, count) in theirs.iter().flat_map(|reference| ngrams(reference, n)) {
            let most: &mut u64 = allowed.entry(ngram).or_default();
            *most = count.max(*most);
        }
        counts.matches[n - 1] = shared(&ngrams(&ours, n), &allowed);
        counts.possible[n - 1] = (ours.len() + 1).saturating_sub(n) as u64;
    }
    counts
}

impl Counts {
    /// The corpus' score, from the sum of its sentences' counts.
    pub fn bleu(&self) -> Bleu {
        let length_ratio = self.reference as f64 / self.hypothesis as f64;
        let brevity = match self.hypothesis {
            h if h >= self.reference => 1.0,
            0 => 0.0,
            _ => (1.0 - length_ratio).exp(),
        };
        let mut precisions = [0.0; ORDERS];
        if self.matches == [0; ORDERS] {
            return Bleu { score: 0.0, precisions, brevity };
        }
        let mut halved = 1.0;
        for (n, precision) in precisions.iter_mut().enumerate() {
            *precision = 100.0 * ratio(self.matches[n], self.possible[n]);
            if self.matches[n] == 0 && self.possible[n] > 0 {
                halved *= 2.0;
                *precision = 100.0 / (halved * self.possible[n] as f64);
            }
        }
        // An order without n-grams: ln 0 = −∞, and BLEU is 0.
        let logs: f64 = precisions.iter().map(|p| p.ln()).sum();
        Bleu { score: brevity * (logs / ORDERS as f64).exp(), precisions, brevity }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.hypothesis += other.hypothesis;
        self.reference += other.reference;
        for n in 0..ORDERS {
            self.matches[n] += other.matches[n];
            self.possible[n] += other.possible[n];
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(sentences: I) -> Counts {
        added(sentences)
    }
}

/// The text with white space between tokens, by mteval-v13a: ASCII punctuation stands alone, but
/// for apostrophes; full stops and commas only where no digit is beside them, hyphens only behind a
/// digit.
fn tokenize(text: &str) -> String {
    static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        [
            (r"([ -&(-+:-@/\[-`{-~])", " $1 "),
            (r"([^0-9])([.,])", "$1 $2 "),
            (r"([.,])([^0-9])", " $1 $2"),
            (r"([0-9])(-)", "$1 $2 "),
        ]
        .map(|(pattern, spaced)| (Regex::new(pattern).unwrap(), spaced))
    });
    let mut text = text.trim_end_matches(is_space).to_string();
    let marks = [("<skipped>", ""), ("-\n", ""), ("\n", " ")];
    let escapes = [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")];
    for (from, to) in marks.into_iter().chain(escapes) {
        text = text.replace(from, to);
    }
    // Rules look at a token's neighbours: the ends have some too.
    let text = format!(" {text} ");
    let apply = |text: String, (rule, spaced): &(Regex, &str)| {
        rule.replace_all(&text, *spaced).into_owned()
    };
    RULES.iter().fold(text, apply)
}
