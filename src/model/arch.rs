//! A transformer, described by data.
//!
//! One set of switches covers GPT-2, BERT, RoBERTa, ALBERT and ModernBERT; a family is a setting
//! of the switches (`families.rs`) and a way to name the tensors (`crate::hf`). Glossary, used in
//! every shape of the crate: N tokens, S sequences, C width, E embedding width, H heads, D head
//! width, F inner width, V vocabulary, L layers, M rows whose loss counts.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;

/// Whose tensor names and `config.json` a model reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Gpt2,
    Bert,
    Roberta,
    Albert,
    Modernbert,
    /// A combination of switches that no published family has: our own names and config.
    Custom,
}

/// Where a block normalises: its input (and once more at the end), or its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    Pre,
    Post,
}

/// How a token learns where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Positions {
    /// A table of `context + offset` rows; the first token takes row `offset` (RoBERTa: 2).
    Learned { offset: usize },
    /// Rotate-half rotary embedding; `local_theta` is the base on windowed layers.
    Rotary { theta: f64, local_theta: f64 },
}

/// What turns the last hidden state into logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// The decoder alone.
    Plain,
    /// dense [C → E], activation, norm, then the decoder.
    Transform,
}

/// Dropout probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dropouts {
    /// On the sum of the embeddings (after their norm, where there is one).
    pub embed: f64,
    /// On each branch before it joins the residual.
    pub hidden: f64,
    /// On the attention probabilities.
    pub attention: f64,
}

/// What a task's head answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// One of K classes a sequence.
    Classes,
    /// Any of K labels a sequence.
    Flags,
    /// K numbers a sequence.
    Values,
    /// One of K classes a token.
    Tokens,
    /// Where a span of each sequence begins and ends: two logits a token.
    Spans,
}

impl TaskKind {
    /// Whether it answers for sequences as a whole.
    pub fn is_of_sequences(self) -> bool {
        matches!(self, TaskKind::Classes | TaskKind::Flags | TaskKind::Values)
    }
}

/// What stands for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Its first token.
    First,
    /// Its last.
    Last,
    /// The mean of all.
    Mean,
}

/// A task's head: [`TaskForm`], then a classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub kind: TaskKind,
    /// Names of its K outputs.
    pub labels: Vec<String>,
    /// Of kinds that are of sequences.
    pub pooling: Pooling,
    /// Dropout of what the classifier reads.
    pub dropout: f64,
}

/// What a family has between the hidden states and the classifier of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskForm {
    /// A product [C, C] and its activation; with a bias?
    pub dense: Option<(Activation, bool)>,
    /// A norm after it.
    pub norm: bool,
    /// Dropout before it, too.
    pub drop_first: bool,
    /// Whether the classifier has a bias.
    pub bias: bool,
}

/// The switches of the one transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arch {
    pub family: Family,
    /// V
    pub vocab: usize,
    /// C
    pub width: usize,
    /// E; differs from C where embeddings are factorised (ALBERT).
    pub embed_width: usize,
    /// Number of blocks that a token passes through, L.
    pub layers: usize,
    /// H
    pub heads: usize,
    /// F: width after the activation (a gated MLP's first product is 2F wide).
    pub inner: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Rows of the token-type table; 0 for none.
    pub token_types: usize,
    pub positions: Positions,
    pub norm: NormKind,
    pub norm_bias: bool,
    pub eps: f64,
    pub placement: Placement,
    /// A norm on the sum of the embeddings.
    pub embed_norm: bool,
    /// Pre-norm only: whether the very first block normalises its input (ModernBERT: no).
    pub first_norm: bool,
    pub activation: Activation,
    /// act(a) ∘ b with [a; b] = W x, instead of act(W x).
    pub gated: bool,
    /// Biases of the products in the blocks.
    pub bias: bool,
    pub causal: bool,
    /// Local layers attend to |i − j| ≤ window.
    pub window: Option<usize>,
    /// Layer i is global iff i % global_every == 0 (only with a window).
    pub global_every: usize,
    /// Distinct blocks are `groups × group_depth`; equal to `layers` where nothing is shared.
    pub groups: usize,
    pub group_depth: usize,
    /// The decoder's weight is the token table.
    pub tied: bool,
    pub head: Head,
    /// Of the head's transform; RoBERTa's is the erf GELU whatever the blocks use.
    pub head_activation: Activation,
    pub head_bias: bool,
    pub decoder_bias: bool,
    /// A pooler (tanh on the first token) and a classifier of sequence pairs.
    pub pair: bool,
    /// A task's head, in the place of the language model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    pub dropout: Dropouts,
    /// Standard deviation of the weights at the start.
    pub init_std: f64,
}

/// Why an architecture cannot exist.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ArchError {
    #[error("model.{0} is 0: give it at least 1")]
    Zero(&'static str),
    #[error("model.{0} is {1}: at most {2} can be")]
    TooLarge(&'static str, usize, usize),
    #[error(
        "width {width} is not a multiple of heads {heads}: the nearest number of heads that \
         divides it is {nearest}"
    )]
    Heads { width: usize, heads: usize, nearest: usize },
    #[error("rotary positions need an even head width, got {0}: change width or heads")]
    OddRotary(usize),
    #[error("layers {layers} is not a multiple of group_depth {depth}")]
    GroupDepth { layers: usize, depth: usize },
    #[error("groups {groups} is more than the {layers} layers there are: lower groups")]
    Groups { groups: usize, layers: usize },
    #[error("a window of 0 would leave each token alone: use at least 1, or no window")]
    Window,
    #[error(
        "a tied decoder needs logits from width {embed_width}, but a plain head gives {width}: \
             set head = \"transform\", or tied = false"
    )]
    Tied { width: usize, embed_width: usize },
    #[error("{0} is {1}, which is not a probability below 1")]
    Dropout(&'static str, f64),
    #[error("{0} is {1}: it must be a positive number")]
    NotPositive(&'static str, f64),
    #[error("first_norm = false leaves one block without a norm, so its blocks cannot be shared")]
    SharedFirst,
    #[error("a task of {kind:?} has {want} outputs, not {got}: {}", why(*kind))]
    Outputs { kind: TaskKind, want: &'static str, got: usize },
    #[error("two outputs of the task are called {0:?}: give each its own name")]
    TwoOutputs(String),
    #[error("activation tanh is for poolers: use gelu, gelu_tanh or silu in blocks and head")]
    Tanh,
}

fn why(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Spans => "one for where a span begins and one for where it ends",
        _ => "name them in task.labels",
    }
}

impl Task {
    /// Whether each output means the same as the other's; a number's name is of no account.
    pub fn answers_as(&self, other: &Task) -> bool {
        let same = match self.kind {
            TaskKind::Values => self.labels.len() == other.labels.len(),
            _ => self.labels == other.labels,
        };
        self.kind == other.kind && same
    }

    fn validate(&self) -> Result<(), ArchError> {
        let (kind, got) = (self.kind, self.labels.len());
        let want = match kind {
            TaskKind::Spans if got != 2 => "two",
            TaskKind::Classes | TaskKind::Tokens if got < 2 => "at least two",
            TaskKind::Flags | TaskKind::Values if got == 0 => "at least one",
            _ => {
                let mut known = HashSet::new();
                return match self.labels.iter().find(|label| !known.insert(*label)) {
                    Some(label) => Err(ArchError::TwoOutputs(label.clone())),
                    None => Ok(()),
                };
            }
        };
        Err(ArchError::Outputs { kind, want, got })
    }
}

impl Arch {
    /// Separators between two texts.
    pub fn separators(&self) -> usize {
        if self.family == Family::Roberta { 2 } else { 1 }
    }

    /// D
    pub fn head_dim(&self) -> usize {
        self.width / self.heads
    }

    /// Which distinct block layer `l` uses.
    ///
    /// The group is transformers' `int(i / (layers / groups))`, float division included: that
    /// differs from integer division where the quotient rounds down, as in 9 / (18 / 14).
    pub fn block_of(&self, l: usize) -> usize {
        let (outer, inner) = (l / self.group_depth, l % self.group_depth);
        let outers = self.layers / self.group_depth;
        let group = (outer as f64 / (outers as f64 / self.groups as f64)) as usize;
        group * self.group_depth + inner
    }

    /// The form of a task's head.
    pub fn task_form(&self, kind: TaskKind) -> TaskForm {
        let bare = TaskForm { dense: None, norm: false, drop_first: false, bias: true };
        let pooler = TaskForm { dense: Some((Activation::Tanh, true)), ..bare };
        let transform =
            TaskForm { dense: Some((self.head_activation, self.head_bias)), norm: true, ..bare };
        match self.family {
            Family::Bert | Family::Albert if kind.is_of_sequences() => pooler,
            Family::Roberta if kind.is_of_sequences() => TaskForm { drop_first: true, ..pooler },
            Family::Bert | Family::Albert | Family::Roberta => bare,
            Family::Gpt2 => TaskForm { bias: !kind.is_of_sequences(), ..bare },
            Family::Modernbert => transform,
            Family::Custom if self.head == Head::Transform => transform,
            Family::Custom => bare,
        }
    }

    /// Whether transformers has to know a padding token, to find the last token of a text among
    /// several: the one that ends texts, where there is no other.
    pub fn is_padded(&self) -> bool {
        self.causal && self.task.is_some()
    }

    /// The same model with a task's head.
    pub fn for_task(&self, task: Task) -> Arch {
        Arch { task: Some(task), pair: false, ..self.clone() }
    }

    /// Logits of a row that reaches the head.
    pub fn outputs(&self) -> usize {
        self.task.as_ref().map_or(self.vocab, |task| task.labels.len())
    }

    /// Number of distinct blocks.
    pub fn blocks(&self) -> usize {
        self.groups * self.group_depth
    }

    /// The window of layer `l`; `None` attends to the whole sequence.
    pub fn window_of(&self, l: usize) -> Option<usize> {
        self.window.filter(|_| !l.is_multiple_of(self.global_every))
    }

    /// The same model with every switch that has no effect at its resting value, so that equal
    /// models compare equal.
    pub fn canonical(&self) -> Arch {
        let mut arch = self.clone();
        if arch.head == Head::Plain {
            arch.head_activation = Activation::Gelu;
            arch.head_bias = false;
        }
        if arch.placement == Placement::Post {
            arch.first_norm = true;
        }
        if arch.global_every == 1 {
            arch.window = None;
        }
        if arch.window.is_none() {
            arch.global_every = 1;
            if let Positions::Rotary { theta, local_theta } = &mut arch.positions {
                *local_theta = *theta;
            }
        }
        arch
    }

    /// Refuses what cannot be built, with the way out.
    pub fn validate(&self) -> Result<(), ArchError> {
        // Ids and positions are i32; the rest is far beyond any model, and keeps products of
        // sizes from overflowing.
        const INDICES: usize = i32::MAX as usize;
        const WIDTHS: usize = 1 << 20;
        const LAYERS: usize = 1 << 14;
        for (name, value, most) in [
            ("vocab", self.vocab, INDICES),
            ("width", self.width, WIDTHS),
            ("embed_width", self.embed_width, WIDTHS),
            ("layers", self.layers, LAYERS),
            ("heads", self.heads, WIDTHS),
            ("inner", self.inner, WIDTHS),
            ("context", self.context, INDICES),
            ("global_every", self.global_every, INDICES),
            ("groups", self.groups, LAYERS),
            ("group_depth", self.group_depth, LAYERS),
        ] {
            if value == 0 {
                return Err(ArchError::Zero(name));
            }
            if value > most {
                return Err(ArchError::TooLarge(name, value, most));
            }
        }
        if !self.width.is_multiple_of(self.heads) {
            let divides = |h: &usize| self.width.is_multiple_of(*h);
            let below = (1..self.heads).rev().find(divides).unwrap_or(1);
            let above = (self.heads + 1..=self.width).find(divides).unwrap_or(self.width);
            let nearest = if self.heads - below <= above - self.heads { below } else { above };
            return Err(ArchError::Heads { width: self.width, heads: self.heads, nearest });
        }
        if let Positions::Rotary { theta, local_theta } = self.positions {
            if !self.head_dim().is_multiple_of(2) {
                return Err(ArchError::OddRotary(self.head_dim()));
            }
            positive("positions.theta", theta)?;
            positive("positions.local_theta", local_theta)?;
        }
        if !self.layers.is_multiple_of(self.group_depth) {
            return Err(ArchError::GroupDepth { layers: self.layers, depth: self.group_depth });
        }
        if self.groups > self.layers / self.group_depth {
            return Err(ArchError::Groups { groups: self.groups, layers: self.layers });
        }
        if self.window == Some(0) {
            return Err(ArchError::Window);
        }
        if self.tied && self.head == Head::Plain && self.embed_width != self.width {
            return Err(ArchError::Tied { width: self.width, embed_width: self.embed_width });
        }
        if !self.first_norm && self.placement == Placement::Pre && self.blocks() < self.layers {
            return Err(ArchError::SharedFirst);
        }
        if [self.activation, self.head_activation].contains(&Activation::Tanh) {
            return Err(ArchError::Tanh);
        }
        for (name, p) in [
            ("dropout.embed", self.dropout.embed),
            ("dropout.hidden", self.dropout.hidden),
            ("dropout.attention", self.dropout.attention),
            ("task.dropout", self.task.as_ref().map_or(0.0, |task| task.dropout)),
        ] {
            if !(0.0..1.0).contains(&p) {
                return Err(ArchError::Dropout(name, p));
            }
        }
        if let Some(task) = &self.task {
            task.validate()?;
        }
        positive("eps", self.eps)?;
        positive("init_std", self.init_std)
    }
}

fn positive(name: &'static str, value: f64) -> Result<(), ArchError> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(ArchError::NotPositive(name, value)) }
}

#[cfg(test)]
mod tests {
    use crate::model::arch::Arch;
    use crate::model::families::preset;

    /// Groups as transformers computes them: shares as equal as can be, and its float rounding.
    #[test]
    fn layers_share_blocks_as_transformers_has_it() {
        let albert = preset("albert-tiny").unwrap();
        let blocks = |layers, groups, group_depth| {
            let arch = Arch { layers, groups, group_depth, ..albert.clone() };
            (0..layers).map(|l| arch.block_of(l)).collect::<Vec<_>>()
        };
        assert_eq!(blocks(7, 3, 1), [0, 0, 0, 1, 1, 2, 2]);
        assert_eq!(blocks(6, 2, 2), [0, 1, 0, 1, 2, 3]);
        // Python: int(9 / (18 / 14)) == 6, though 9 · 14 = 7 · 18.
        assert_eq!(blocks(18, 14, 1)[8..11], [6, 6, 7]);
    }
}
