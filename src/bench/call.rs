//! One call of an op, as a value: which op, at which shapes, and nothing of where it came from.
//! Weights lie in an arena of their own, and all dropout draws the same mask, so that the same op
//! in two layers is the same call.

use crate::data::Masking;
use crate::ops::activation::Activation;
use crate::ops::attention::Attention;
use crate::ops::embed::Embed;
use crate::ops::linear::Linear;
use crate::ops::norm::{Norm, NormKind};
use crate::ops::optimizer::{Group, Update};
use crate::ops::{Dropout, Into, Span};

/// A call, by the name of its method.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Embed {
        at: Embed,
        rows: usize,
    },
    EmbedBackward {
        at: Embed,
        rows: usize,
    },
    Norm {
        at: Norm,
        rows: usize,
    },
    AddNorm {
        at: Norm,
        rows: usize,
        dropout: Option<Dropout>,
    },
    NormBackward {
        at: Norm,
        rows: usize,
        into: Into,
    },
    Linear {
        at: Linear,
        rows: usize,
    },
    LinearAct {
        at: Linear,
        rows: usize,
        activation: Activation,
    },
    LinearGate {
        at: Linear,
        rows: usize,
        activation: Activation,
    },
    /// `context` rows in the table of angles.
    LinearRope {
        at: Linear,
        rows: usize,
        head_dim: usize,
        context: usize,
    },
    LinearDx {
        at: Linear,
        rows: usize,
        into: Into,
    },
    LinearDxAct {
        at: Linear,
        rows: usize,
        activation: Activation,
    },
    LinearDxGate {
        at: Linear,
        rows: usize,
        activation: Activation,
    },
    LinearDw {
        at: Linear,
        rows: usize,
    },
    ActBackward {
        activation: Activation,
        len: usize,
    },
    /// `ends` are where sequences begin, and N.
    Attention {
        at: Attention,
        ends: Vec<i32>,
    },
    /// `rotary`: rows in the table of angles, if there is one.
    AttentionBackward {
        at: Attention,
        ends: Vec<i32>,
        rotary: Option<usize>,
    },
    /// `count` rows out of `of`.
    Gather {
        width: usize,
        count: usize,
        of: usize,
    },
    ScatterAdd {
        width: usize,
        count: usize,
        of: usize,
    },
    Dropout {
        dropout: Dropout,
        len: usize,
    },
    /// `chunk` rows of logits at a time.
    HeadLoss {
        at: Linear,
        rows: usize,
        chunk: usize,
        train: bool,
    },
    Mask {
        masking: Masking,
        vocab: usize,
        tokens: usize,
    },
    ZeroX {
        len: usize,
    },
    ZeroAcc {
        len: usize,
    },
    Judge {
        len: usize,
    },
    Update {
        update: Update,
        groups: Vec<Group>,
        len: usize,
    },
    Store {
        len: usize,
    },
}

/// Lays spans into an arena of its own, aligned as the model's.
#[derive(Default)]
pub struct Arena {
    /// Elements.
    pub len: usize,
}

impl Arena {
    const ALIGN: usize = 64;

    pub fn place(&mut self, span: Span) -> Span {
        let start = self.len.next_multiple_of(Self::ALIGN);
        self.len = start + span.len;
        Span { start, len: span.len }
    }

    pub fn norm(&mut self, at: &Norm) -> Norm {
        Norm { weight: self.place(at.weight), bias: at.bias.map(|b| self.place(b)), ..*at }
    }

    pub fn linear(&mut self, at: &Linear) -> Linear {
        Linear { weight: self.place(at.weight), bias: at.bias.map(|b| self.place(b)), ..*at }
    }

    pub fn embed(&mut self, at: &Embed) -> Embed {
        let tokens = self.place(at.tokens);
        let positions = at.positions.map(|span| self.place(span));
        Embed { tokens, positions, types: at.types.map(|span| self.place(span)), ..*at }
    }
}

/// The one mask that is drawn wherever something is dropped with this probability.
pub fn still(dropout: Dropout) -> Dropout {
    Dropout { seed: 1, step: 0, site: 0, ..dropout }
}

/// The same, of an op that may go without.
pub fn still_if_any(dropout: Option<Dropout>) -> Option<Dropout> {
    dropout.filter(|d| d.p > 0.0).map(still)
}

impl Call {
    /// The family, as `verify` names them.
    pub fn family(&self) -> &'static str {
        match self {
            Call::Embed { .. } | Call::EmbedBackward { .. } => "embed",
            Call::Norm { .. } | Call::AddNorm { .. } | Call::NormBackward { .. } => "norm",
            Call::Linear { .. }
            | Call::LinearAct { .. }
            | Call::LinearGate { .. }
            | Call::LinearRope { .. }
            | Call::LinearDx { .. }
            | Call::LinearDxAct { .. }
            | Call::LinearDxGate { .. }
            | Call::LinearDw { .. }
            | Call::ActBackward { .. } => "linear",
            Call::Attention { .. } | Call::AttentionBackward { .. } => "attention",
            Call::Gather { .. } | Call::ScatterAdd { .. } => "gather",
            Call::Dropout { .. } => "dropout",
            Call::HeadLoss { .. } => "loss",
            Call::Mask { .. } => "mask",
            Call::ZeroX { .. } | Call::ZeroAcc { .. } | Call::Judge { .. } => "reduce",
            Call::Update { .. } | Call::Store { .. } => "optimizer",
        }
    }

    /// The shape in words, with all that tells two calls of one op apart.
    pub fn shape(&self) -> String {
        match self {
            Call::Embed { at, rows } | Call::EmbedBackward { at, rows } => {
                format!("{rows} × {} of {}", at.width, at.tokens.len / at.width.max(1))
            }
            Call::Norm { at, rows } => norm(at, *rows),
            Call::AddNorm { at, rows, dropout } => norm(at, *rows) + &dropped(dropout.as_ref()),
            Call::NormBackward { at, rows, into } => norm(at, *rows) + added(*into),
            Call::Linear { at, rows } | Call::LinearDw { at, rows } => linear(at, *rows),
            Call::LinearDx { at, rows, into } => linear(at, *rows) + added(*into),
            Call::LinearAct { at, rows, activation }
            | Call::LinearGate { at, rows, activation }
            | Call::LinearDxAct { at, rows, activation }
            | Call::LinearDxGate { at, rows, activation } => {
                format!("{}, {activation:?}", linear(at, *rows))
            }
            Call::ActBackward { activation, len } => format!("{len}, {activation:?}"),
            Call::LinearRope { at, rows, head_dim, .. } => {
                format!("{}, heads of {head_dim}", linear(at, *rows))
            }
            Call::Attention { at, ends } => attention(at, ends),
            Call::AttentionBackward { at, ends, rotary } => {
                attention(at, ends) + if rotary.is_some() { ", rotary" } else { "" }
            }
            Call::Gather { width, count, of } | Call::ScatterAdd { width, count, of } => {
                format!("{count} of {of} × {width}")
            }
            Call::Dropout { dropout, len } => format!("{len}{}", dropped(Some(dropout))),
            Call::HeadLoss { at, rows, chunk, train } => {
                let gradients = if *train { "" } else { ", loss alone" };
                format!("{}, by {chunk}{gradients}", linear(at, *rows))
            }
            Call::Mask { masking, tokens, .. } => {
                format!("{tokens} by {:?}, rate {}", masking.unit, masking.rate)
            }
            Call::ZeroX { len } | Call::ZeroAcc { len } | Call::Judge { len } => len.to_string(),
            Call::Update { len, .. } | Call::Store { len } => len.to_string(),
        }
    }
}

fn norm(at: &Norm, rows: usize) -> String {
    let kind = if at.kind == NormKind::Rms { ", RMS" } else { "" };
    format!("{rows} × {}{kind}", at.width)
}

fn linear(at: &Linear, rows: usize) -> String {
    let bias = if at.bias.is_some() { "" } else { ", no bias" };
    format!("{rows} × {} → {}{bias}", at.n_in, at.n_out)
}

fn added(into: Into) -> &'static str {
    if into == Into::Add { ", +=" } else { "" }
}

fn dropped(dropout: Option<&Dropout>) -> String {
    dropout.map_or(String::new(), |d| format!(", dropout {}", d.p))
}

/// `16 × 1024, 12 × 64, causal`: sequences × length, or their number and N where lengths differ.
fn attention(at: &Attention, ends: &[i32]) -> String {
    let lengths: Vec<i32> = ends.windows(2).map(|ends| ends[1] - ends[0]).collect();
    let (count, first) = (lengths.len(), lengths.first().copied().unwrap_or(0));
    let sequences = match lengths.iter().all(|&len| len == first) {
        true => format!("{count} × {first}"),
        false => format!("{count} of {} in all", ends.last().copied().unwrap_or(0)),
    };
    let seen = match (at.causal, at.window) {
        (true, None) => ", causal".into(),
        (true, Some(w)) => format!(", causal, −{w}"),
        (false, Some(w)) => format!(", ±{w}"),
        (false, None) => String::new(),
    };
    let dropped = dropped(at.dropout.as_ref());
    format!("{sequences}, {} × {}{seen}{dropped}", at.heads, at.head_dim)
}
