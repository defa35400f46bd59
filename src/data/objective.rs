//! What a model is trained to predict: the configuration, as it stands in TOML.
//!
//! ```toml
//! objective = { kind = "masked", masking = { rate = 0.15, unit = "word" }, pair = "order" }
//! ```

use serde::{Deserialize, Serialize};

/// The training objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub enum Objective {
    /// Predict the next token (GPT).
    Causal,
    /// Restore masked tokens (BERT), with a sentence-pair objective beside it or without.
    Masked { masking: Masking, pair: Option<Pair> },
}

/// An objective as a table. (An internally tagged enum would let a causal one hold anything.)
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pair: Option<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    masking: Option<Masking>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Causal,
    Masked,
}

impl TryFrom<Table> for Objective {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        match table {
            Table { kind: Kind::Causal, pair: None, masking: None } => Ok(Objective::Causal),
            Table { kind: Kind::Causal, .. } => {
                Err("`masking` and `pair` belong to kind = \"masked\"; remove them")
            }
            Table { kind: Kind::Masked, pair, masking } => {
                Ok(Objective::Masked { masking: masking.unwrap_or_default(), pair })
            }
        }
    }
}

impl From<Objective> for Table {
    fn from(objective: Objective) -> Self {
        match objective {
            Objective::Causal => Table { kind: Kind::Causal, pair: None, masking: None },
            Objective::Masked { masking, pair } => {
                Table { kind: Kind::Masked, pair, masking: Some(masking) }
            }
        }
    }
}

/// Which tokens are masked, and what stands in their place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Masking {
    /// Share of tokens to restore, in (0, 1).
    pub rate: f32,
    /// Of those, the share left as they are.
    pub keep: f32,
    /// Of those, the share replaced by a random token; the rest becomes `[MASK]`.
    pub random: f32,
    pub unit: Unit,
}

impl Default for Masking {
    /// BERT's 15%, of which 80/10/10.
    fn default() -> Self {
        Masking { rate: 0.15, keep: 0.1, random: 0.1, unit: Unit::Token }
    }
}

/// What is masked together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Each token by itself.
    Token,
    /// All tokens of a word.
    Word,
    /// Runs of tokens of geometric length, as in SpanBERT.
    Span,
}

/// The sentence-pair objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pair {
    /// ALBERT's: are the halves in order (0) or swapped (1)?
    Order,
    /// BERT's: does the second half follow (0) or come from another document (1)?
    Next,
}
