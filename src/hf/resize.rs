//! A stored model at sizes that it does not have: other positions, another vocabulary.
//!
//! - Learnt positions beyond the stored ones start as copies of these, from the first on, again and
//!   again, as Longformer's did (Beltagy, Peters, Cohan 2020): near ones stay near.
//! - A token keeps the stored rows (of the table, and of the decoder) of the one that the model's
//!   own tokenizer spells the same; a special token those of the same role.
//! - Other tokens start at the mean of all stored rows, where they are as likely as an average one,
//!   not more likely than all others (Hewitt 2021).

use super::config::SpecialIds;
use super::load::ModelDir;
use super::names::Piece;
use super::safe::Stored;
use super::save::CHUNK;
use crate::data::Tokenizer;
use crate::model::arch::{Arch, Family, Positions};
use crate::model::params::Param;

/// Which rows of a table are whose.
pub(super) type Rows = Vec<Option<usize>>;

impl ModelDir {
    /// Has the model take sequences of `context` tokens.
    pub fn set_positions(&mut self, context: usize) {
        self.arch.context = context;
    }

    /// Has the model, whose tokenizer is `own`, read another's tokens. How many of them it knew.
    pub fn set_tokenizer(&mut self, own: &Tokenizer, other: &Tokenizer) -> usize {
        let (was, is) = (own.specials().roles(), other.specials().roles());
        let row = |id: u32| {
            let role = is.iter().position(|&of| of == Some(id));
            let by_role = role.and_then(|role| was[role]);
            let found = by_role.or_else(|| own.id(&other.token(id)?))? as usize;
            Some(found).filter(|&row| row < self.stored.vocab)
        };
        let rows: Rows = (0..other.vocabulary() as u32).map(row).collect();
        let known = rows.iter().flatten().count();
        self.arch.vocab = rows.len();
        self.tokens = Some(rows);
        self.ids = SpecialIds::from(&other.specials());
        if let (Family::Roberta, Positions::Learned { offset }, Some(pad)) =
            (self.arch.family, &mut self.arch.positions, other.specials().pad)
        {
            // RoBERTa counts positions from one after the padding token's id.
            *offset = pad as usize + 1;
        }
        known
    }

    /// The rows that the files have of a parameter whose rows may be others in the model.
    pub(super) fn stored_rows(&self, param: &str) -> Option<usize> {
        match param {
            "embed.tokens" | "decoder.weight" | "decoder.bias" => Some(self.stored.vocab),
            "embed.positions" => Some(self.stored.context + offset(&self.stored)),
            _ => None,
        }
    }

    /// For each row of a parameter the stored one it starts as, or none for their mean; nothing of
    /// a parameter that is as it was stored.
    pub(super) fn rows(&self, param: &str) -> Option<Rows> {
        if param != "embed.positions" {
            return self.tokens.clone().filter(|_| self.stored_rows(param).is_some());
        }
        let (before, context) = (offset(&self.stored), self.stored.context);
        let now = offset(&self.arch);
        let same = (before, context) == (now, self.arch.context);
        // Rows before the first position stand for no token.
        let rows = (0..now).map(|row| Some(row.min(before)));
        let learnt = (0..self.arch.context).map(|position| Some(before + position % context));
        (!same).then(|| rows.chain(learnt).collect())
    }
}

fn offset(arch: &Arch) -> usize {
    match arch.positions {
        Positions::Learned { offset } => offset,
        Positions::Rotary { .. } => 0,
    }
}

/// Hands over `rows` of a stored tensor, some at a time.
pub(super) fn stream(
    piece: &Piece,
    param: &Param,
    stored: &Stored,
    rows: &Rows,
    sink: &mut impl FnMut(&Param, usize, &[f64]),
) {
    assert!(!piece.transposed, "{}: tables are stored as they are", piece.name);
    let width: usize = param.shape[1..].iter().product();
    let mean = mean(stored, width);
    let mut values = vec![0.0; (CHUNK / width).max(1) * width];
    let mut first = 0;
    for chunk in rows.chunks(values.len() / width) {
        for (row, to) in chunk.iter().zip(values.chunks_exact_mut(width)) {
            match row {
                Some(row) => stored.read(row * width, to),
                None => to.copy_from_slice(&mean),
            }
        }
        sink(param, first * width, &values[..chunk.len() * width]);
        first += chunk.len();
    }
}

/// The mean of all rows: [width].
fn mean(stored: &Stored, width: usize) -> Vec<f64> {
    let count = stored.count() / width;
    let (mut sum, mut row) = (vec![0.0; width], vec![0.0; width]);
    for at in 0..count {
        stored.read(at * width, &mut row);
        sum.iter_mut().zip(&row).for_each(|(sum, value)| *sum += value);
    }
    sum.iter().map(|sum| sum / count as f64).collect()
}
