//! How a text, or two, become a sequence of a model.
//!
//! ```text
//! encoders   [CLS] first [SEP]     [CLS] first [SEP] second [SEP]   (RoBERTa: [SEP] [SEP] between)
//! causal     first                 first <|endoftext|> second
//! ```

use super::examples::{ExampleError, Sequence};
use crate::data::Tokenizer;
use crate::data::tokenizer::Piece;
use crate::model::arch::Arch;

/// What frames the sequences of a model.
pub struct Frame<'a> {
    arch: &'a Arch,
    tokenizer: &'a Tokenizer,
    /// Tokens of a sequence at most.
    pub longest: usize,
    begin: Vec<u32>,
    between: Vec<u32>,
    end: Vec<u32>,
}

impl<'a> Frame<'a> {
    /// # Errors
    /// A special token that the tokenizer lacks.
    pub fn new(
        arch: &'a Arch,
        tokenizer: &'a Tokenizer,
        longest: usize,
    ) -> Result<Self, ExampleError> {
        let longest = longest.min(arch.context);
        let specials = tokenizer.specials();
        let framing = [specials.cls, specials.sep, specials.eot];
        let beyond = |id: &u32| *id as usize >= arch.vocab;
        if let Some(id) = framing.into_iter().flatten().find(beyond) {
            return Err(ExampleError::Vocabulary { id, vocab: arch.vocab });
        }
        if arch.causal {
            let between = specials.eot.into_iter().collect();
            return Ok(Frame { arch, tokenizer, longest, begin: vec![], between, end: vec![] });
        }
        let missing = |name| ExampleError::Special(name, "an encoder's input");
        let cls = specials.cls.ok_or_else(|| missing("[CLS]"))?;
        let sep = specials.sep.ok_or_else(|| missing("[SEP]"))?;
        let between = vec![sep; arch.separators()];
        Ok(Frame { arch, tokenizer, longest, begin: vec![cls], between, end: vec![sep] })
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// An id beyond the model's vocabulary.
    pub fn pieces(&self, text: &str) -> Result<Vec<Piece>, ExampleError> {
        let pieces = self.tokenizer.pieces(text)?;
        match pieces.iter().find(|piece| piece.id as usize >= self.arch.vocab) {
            Some(piece) => Err(ExampleError::Vocabulary { id: piece.id, vocab: self.arch.vocab }),
            None => Ok(pieces),
        }
    }

    /// Tokens that are left for one text, or two.
    ///
    /// # Errors
    /// Not one.
    pub fn room(&self, texts: usize) -> Result<usize, ExampleError> {
        let between = if texts > 1 { self.between.len() } else { 0 };
        let framed = self.begin.len() + between + self.end.len();
        let room = self.longest.checked_sub(framed).filter(|&room| room >= texts);
        room.ok_or(ExampleError::Longest(self.longest))
    }

    /// Where the last of the texts begins in its sequence.
    pub fn last_at(&self, before: Option<usize>) -> usize {
        self.begin.len() + before.map_or(0, |before| before + self.between.len())
    }

    /// The sequence of a text, or two. An empty one of a causal model is a lone `<|endoftext|>`.
    ///
    /// # Errors
    /// A tokenizer without it.
    pub fn sequence(
        &self,
        first: &[u32],
        second: Option<&[u32]>,
    ) -> Result<Sequence, ExampleError> {
        let mut ids = self.begin.clone();
        ids.extend(first);
        let mut types = Vec::new();
        if let Some(second) = second {
            ids.extend(&self.between);
            types.resize(ids.len(), 0);
            ids.extend(second);
        }
        ids.extend(&self.end);
        let of_second = i32::from(self.arch.token_types > 1 && !types.is_empty());
        types.resize(ids.len(), of_second);
        if ids.is_empty() {
            let eot = self.tokenizer.specials().eot;
            ids.push(eot.ok_or(ExampleError::Special("<|endoftext|>", "an empty text"))?);
            types.push(0);
        }
        Ok(Sequence { ids, types, ..Sequence::default() })
    }
}

/// The ids of tokens.
pub fn ids(pieces: &[Piece]) -> Vec<u32> {
    pieces.iter().map(|piece| piece.id).collect()
}
