//! A vector for a text: the mean of its last hidden states, or that of its first token.

use super::passes::{self, Row};
use crate::device::{Buffer, Class, Device};
use crate::model::arch::Pooling;
use crate::predict::{NotFinite, PredictError, Predictor};

/// How texts become vectors.
#[derive(Debug, Clone, Copy)]
pub struct Embedding {
    pub pooling: Pooling,
    /// Scaled to length 1.
    pub normalise: bool,
    /// Tokens of a text that count, special ones included.
    pub longest: usize,
}

/// A text's vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// [C]
    pub vector: Vec<f64>,
    /// Tokens, special ones included.
    pub tokens: usize,
    /// Whether the text was longer than that.
    pub cut: bool,
}

impl<D: Device> Predictor<D> {
    /// The vectors of texts.
    ///
    /// # Errors
    /// A tokenizer that is not the model's, or has no special tokens where the model needs them;
    /// vectors that are not finite.
    pub fn embed(&self, texts: &[String], how: Embedding) -> Result<Vec<Embedded>, PredictError> {
        let arch = &self.model.arch;
        let longest = how.longest.min(arch.context);
        let mut sequences = Vec::new();
        let mut cut = Vec::new();
        for text in texts {
            let ids = self.encode(text)?;
            if ids.is_empty() {
                return Err(PredictError::NoSpecial("<|endoftext|>"));
            }
            cut.push(ids.len() > longest);
            sequences.push(Row { ids: self.shortened(ids, longest), rows: vec![] });
        }
        let c = arch.width;
        let mut found = Vec::new();
        passes::run(&self.dev, &self.model, &sequences, |first, acts, batch| {
            let s = batch.counts.sequences;
            let hidden = self.model.hidden(acts);
            let vectors = match how.pooling {
                Pooling::Mean => {
                    let mut means = self.dev.x(Class::Scratch, s * c);
                    self.dev.mean_rows(&mut means, hidden, &batch.cu_seqlens, c, s);
                    means.to_vec()
                }
                of_one => {
                    let row = |ends: &[i32]| {
                        let row = if of_one == Pooling::First { ends[0] } else { ends[1] - 1 };
                        let mut vector = vec![0.0; c];
                        hidden.read(row as usize * c, &mut vector);
                        vector
                    };
                    batch.ends.windows(2).flat_map(row).collect()
                }
            };
            for (i, vector) in vectors.chunks_exact(c).enumerate() {
                let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
                let scale = if how.normalise && norm > 0.0 { 1.0 / norm } else { 1.0 };
                found.push(Embedded {
                    vector: vector.iter().map(|x| x * scale).collect(),
                    tokens: sequences[first + i].ids.len(),
                    cut: cut[first + i],
                });
            }
        })?;
        NotFinite::unless(found.iter().flat_map(|found| &found.vector).copied())?;
        Ok(found)
    }

    /// The first `longest` ids; a masked model's last stays the one that ends a text.
    fn shortened(&self, mut ids: Vec<u32>, longest: usize) -> Vec<u32> {
        if let Some(&last) = ids.last().filter(|_| ids.len() > longest) {
            ids.truncate(longest);
            if !self.model.arch.causal {
                ids[longest - 1] = last;
            }
        }
        ids
    }
}
