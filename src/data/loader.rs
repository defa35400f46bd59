//! Micro-batches: packing's sequences, framed, labelled, masked.
//!
//! `batch(k)` is a pure function of k, callable from any thread. Causal targets are the next token
//! of the same sequence, none at its last. Pair objectives rearrange a piece without changing its
//! length, so that the stream's arithmetic holds:
//!
//! ```text
//! order   [CLS] A [SEP] B [SEP]  or with probability ½  [CLS] B [SEP] A [SEP]   label 1: swapped
//! next    [CLS] A [SEP] B [SEP]  or with probability ½  B replaced by as many   label 1: replaced
//!                                tokens of another document
//! ```
//!
//! A sequence that a batch border cut has no pair label. Where no other document among eight drawn
//! is long enough to replace B, the true B stays and is labelled so.

use std::fmt;
use std::sync::Arc;

use super::dataset::{Corpus, Dataset};
use super::masking::{Masker, SPECIAL, WORD_START};
use super::objective::{Masking, Objective, Pair};
use super::packing::{Frame, Packing, Piece, Span};
use super::tokenizer::{Specials, Tokenizer};
use super::{Batch, IGNORE, ToMask};
use crate::rng::{Philox, Stream, below_u64, chance};

/// Held-out order and masks are the same in every run, so that runs compare.
const HELDOUT_SEED: u64 = 0x6865_6c64_206f_7574;

/// Documents tried for a false second half.
const NEXT_TRIES: u64 = 8;

/// Why no batches can be made of a data set.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    #[error(
        "a batch of {tokens} tokens is shorter than one sequence of {context}; raise the tokens a \
         batch or lower the context"
    )]
    BatchShorterThanSequence { tokens: usize, context: usize },
    #[error(
        "a context of {context} leaves no room beside {specials} special tokens; raise it to \
         {needed} or more"
    )]
    ContextTooShort { context: usize, specials: usize, needed: usize },
    #[error(
        "the tokenizer has no {token} token, which a masked objective needs; train one with \
         `warpwright data tokenize --vocab-size`, or use the causal objective"
    )]
    MissingSpecial { token: &'static str },
    #[error("masking {field} = {value} is outside {range}")]
    MaskingRate { field: &'static str, value: f32, range: &'static str },
    #[error(
        "the data has a vocabulary of {shards}, the model's tokenizer only {tokenizer}; use the \
         tokenizer.json beside the shards"
    )]
    Vocabulary { shards: u64, tokenizer: u32 },
    #[error("next-sentence pairs need two documents or more; use `pair = \"order\"`")]
    OneDocument,
    #[error(
        "the data set has no held-out documents; tokenize again with a larger --heldout fraction \
         or more documents"
    )]
    NoHeldout,
}

/// What batches need to know of a tokenizer.
#[derive(Clone, Debug)]
pub struct Facts {
    pub vocabulary: u32,
    pub specials: Specials,
    /// `[V]` whether an id begins a word.
    pub word_starts: Vec<bool>,
    /// `[V]` whether an id is special, so never masked.
    pub special: Vec<bool>,
}

impl From<&Tokenizer> for Facts {
    fn from(tokenizer: &Tokenizer) -> Self {
        Facts {
            vocabulary: tokenizer.vocabulary() as u32,
            specials: tokenizer.specials(),
            word_starts: tokenizer.word_starts(),
            special: tokenizer.is_special(),
        }
    }
}

impl Facts {
    /// For token files with no tokenizer beside them: a vocabulary and, where the files have one,
    /// the token that ends a text. Serves the causal objective only.
    pub fn bare(vocabulary: u32, eot: Option<u32>) -> Self {
        let eot = eot.filter(|&id| id < vocabulary);
        let special = (0..vocabulary).map(|id| Some(id) == eot).collect();
        Facts {
            vocabulary,
            specials: Specials { eot, ..Specials::default() },
            word_starts: vec![true; vocabulary as usize],
            special,
        }
    }

    fn flags(&self) -> Vec<u8> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let pairs = self.word_starts.iter().zip(&self.special);
        pairs.map(|(&start, &special)| flag(start, WORD_START) | flag(special, SPECIAL)).collect()
    }
}

/// What an epoch consists of, to be shown at the start of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    pub documents: u64,
    /// Sequences, before batch borders cut some.
    pub pieces: u64,
    /// With framing.
    pub tokens: u64,
    /// Documents longer than the context, cut in pieces.
    pub split_documents: u64,
    pub context: usize,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Epoch { documents, pieces, tokens, split_documents, context } = self;
        write!(f, "{documents} documents, {pieces} sequences, {tokens} tokens an epoch")?;
        if *split_documents > 0 {
            write!(
                f,
                "; {split_documents} documents longer than the context of {context} are split"
            )?;
        }
        Ok(())
    }
}

/// Batches of one split.
struct Feed {
    packing: Packing,
    masker: Option<Masker>,
    pair: Option<Pair>,
    rng: Philox,
    tokens: usize,
}

/// Batches of a data set under one objective. `Send + Sync`.
pub struct Loader {
    train: Feed,
    /// Other data, and their share of the training batches.
    general: Option<(Feed, f64)>,
    heldout: Option<Feed>,
    vocabulary: u32,
    context: usize,
}

impl Loader {
    /// Batches of `tokens` tokens, sequences of at most `context`. A token of `dataset` that is not
    /// below the vocabulary, as [`Dataset::verify`] makes sure, comes through.
    pub fn new(
        dataset: &Dataset,
        facts: &Facts,
        objective: &Objective,
        tokens: usize,
        context: usize,
        seed: u64,
    ) -> Result<Self, LoaderError> {
        let frame = frame(&facts.specials, objective)?;
        check_shape(frame, tokens, context)?;
        let shards = dataset.shards().filter_map(|shard| shard.vocabulary()).max().unwrap_or(0);
        if shards > u64::from(facts.vocabulary) {
            return Err(LoaderError::Vocabulary { shards, tokenizer: facts.vocabulary });
        }
        let (masking, pair) = match objective {
            Objective::Causal => (None, None),
            Objective::Masked { masking, pair } => {
                check_masking(masking)?;
                let mask = facts.specials.mask;
                let mask = mask.ok_or(LoaderError::MissingSpecial { token: "[MASK]" })?;
                (Some((*masking, mask)), *pair)
            }
        };
        if pair == Some(Pair::Next) && dataset.train.documents() < 2 {
            return Err(LoaderError::OneDocument);
        }
        let feed = |corpus: &Arc<Corpus>, seed: u64| {
            let rng = Philox::new(seed);
            let masker = masking
                .map(|(masking, mask)| Masker::new(rng, masking, mask, facts.flags(), tokens));
            let packing = Packing::new(corpus.clone(), frame, context, rng);
            Feed { packing, masker, pair, rng, tokens }
        };
        Ok(Loader {
            train: feed(&dataset.train, seed),
            general: None,
            heldout: dataset.heldout.as_ref().map(|corpus| feed(corpus, HELDOUT_SEED)),
            vocabulary: facts.vocabulary,
            context,
        })
    }

    /// Has a share of the training batches, in (0, 1), come from the training split of other data
    /// of the same tokenizer: evenly among the others, in an order of their own.
    pub fn mix(&mut self, general: &Arc<Corpus>, share: f64) {
        let Feed { packing, masker, pair, rng, tokens } = &self.train;
        let packing = Packing::new(general.clone(), packing.frame, self.context, *rng);
        let feed =
            Feed { packing, masker: masker.clone(), pair: *pair, rng: *rng, tokens: *tokens };
        self.general = Some((feed, share));
    }

    /// Micro-batch `index` of the endless training stream.
    pub fn batch(&self, index: u64) -> Batch {
        self.training(index, true)
    }

    /// The same, for a device that masks it with [`Loader::masker`].
    pub fn unmasked(&self, index: u64) -> Batch {
        self.training(index, false)
    }

    fn training(&self, index: u64, masked: bool) -> Batch {
        let tokens = self.train.tokens;
        let Some((general, share)) = &self.general else {
            return self.train.batch(index, tokens, masked);
        };
        // General batches among the first so many.
        let among = |count: u64| (count as f64 * share) as u64;
        let before = among(index);
        match among(index + 1) > before {
            true => general.batch(before, tokens, masked),
            false => self.train.batch(index - before, tokens, masked),
        }
    }

    /// What masks the training stream, if anything does.
    pub fn masker(&self) -> Option<&Masker> {
        self.train.masker.as_ref()
    }

    /// The held-out batches, the same in every run: at most about `max_tokens` tokens (whole
    /// batches), in a fixed random order, each token once. Where the held-out text ends inside the
    /// last batch, its beginning fills the rest, unlabelled.
    pub fn heldout(&self, max_tokens: u64) -> Result<Vec<Batch>, LoaderError> {
        let feed = self.heldout.as_ref().ok_or(LoaderError::NoHeldout)?;
        let (n, total) = (feed.tokens as u64, feed.packing.epoch_tokens());
        let batches = total.min(max_tokens.max(1)).div_ceil(n);
        Ok((0..batches).map(|k| feed.batch(k, n.min(total - k * n) as usize, true)).collect())
    }

    /// What an epoch of training consists of.
    pub fn epoch(&self) -> Epoch {
        let packing = &self.train.packing;
        Epoch {
            documents: packing.corpus.documents(),
            pieces: packing.pieces(),
            tokens: packing.epoch_tokens(),
            split_documents: packing.split_documents(),
            context: self.context,
        }
    }

    /// The most sequences S a micro-batch can have: a framed piece has a token of text at least.
    pub fn sequence_capacity(&self) -> usize {
        let feed = &self.train;
        let shortest = 1 + match feed.packing.frame {
            Frame::Causal { .. } => 1,
            frame => frame.specials(),
        };
        feed.tokens.min(feed.tokens / shortest + 2)
    }

    /// The most labelled rows M a micro-batch can have.
    pub fn row_capacity(&self) -> usize {
        self.train.masker.as_ref().map_or(self.train.tokens, Masker::capacity)
    }

    /// The loss to beat: mean negative log-likelihood, in nats, of the targets of `heldout` under
    /// the frequencies of ids in the training split (in 64 million tokens of it, evenly spread, if
    /// it is larger), one added to each count.
    pub fn unigram_nll(&self, heldout: &[Batch]) -> f64 {
        let corpus = &self.train.packing.corpus;
        let mut counts = corpus.counts(self.vocabulary as usize, 64);
        if let Frame::Causal { eot } = self.train.packing.frame {
            counts[eot as usize] = corpus.documents();
        }
        let total = (counts.iter().sum::<u64>() + u64::from(self.vocabulary)) as f64;
        let nll = |target: &i32| -((counts[*target as usize] + 1) as f64 / total).ln();
        let targets = heldout.iter().flat_map(|batch| &batch.targets).filter(|&&t| t != IGNORE);
        let (sum, n) = targets.fold((0.0, 0u64), |(sum, n), target| (sum + nll(target), n + 1));
        sum / n as f64
    }
}

fn frame(specials: &Specials, objective: &Objective) -> Result<Frame, LoaderError> {
    let Objective::Masked { pair, .. } = objective else {
        return Ok(specials.eot.map_or(Frame::None, |eot| Frame::Causal { eot }));
    };
    let cls = specials.cls.ok_or(LoaderError::MissingSpecial { token: "[CLS]" })?;
    let sep = specials.sep.ok_or(LoaderError::MissingSpecial { token: "[SEP]" })?;
    Ok(match pair {
        None => Frame::Masked { cls, sep },
        Some(_) => Frame::Pair { cls, sep },
    })
}

fn check_shape(frame: Frame, tokens: usize, context: usize) -> Result<(), LoaderError> {
    let specials = frame.specials();
    // A pair needs a token on either side; a causal sequence one to predict from.
    let needed = specials + if matches!(frame, Frame::Pair { .. } | Frame::None) { 2 } else { 1 };
    if context < needed {
        return Err(LoaderError::ContextTooShort { context, specials, needed });
    }
    if tokens < context {
        return Err(LoaderError::BatchShorterThanSequence { tokens, context });
    }
    Ok(())
}

fn check_masking(masking: &Masking) -> Result<(), LoaderError> {
    let Masking { rate, keep, random, .. } = *masking;
    for (field, value, holds, range) in [
        ("rate", rate, rate > 0.0 && rate < 1.0, "(0, 1)"),
        ("keep", keep, (0.0..=1.0).contains(&keep), "[0, 1]"),
        ("random", random, (0.0..=1.0).contains(&random), "[0, 1]"),
        ("keep + random", keep + random, keep + random <= 1.0, "[0, 1]"),
    ] {
        if !holds {
            return Err(LoaderError::MaskingRate { field, value, range });
        }
    }
    Ok(())
}

/// A piece within its frame.
#[derive(Default)]
struct Framed {
    ids: Vec<i32>,
    types: Vec<i32>,
    pair: i32,
}

impl Feed {
    /// Tokens `[index·N, (index+1)·N)` of the stream, the first `countable` of them labelled;
    /// masked or to be masked.
    fn batch(&self, index: u64, countable: usize, masked: bool) -> Batch {
        let (n, start) = (self.tokens, index * self.tokens as u64);
        let spans = self.packing.spans(start, n);
        let mut batch = Batch {
            ids: Vec::with_capacity(n),
            positions: Vec::with_capacity(n),
            types: Vec::with_capacity(n),
            cu_seqlens: Vec::with_capacity(spans.len() + 1),
            ..Batch::default()
        };
        batch.cu_seqlens.push(0);
        let mut framed = Framed::default();
        for span in &spans {
            self.frame(span, &mut framed);
            let whole = span.framed == (0..framed.ids.len());
            batch.ids.extend_from_slice(&framed.ids[span.framed.clone()]);
            batch.types.extend_from_slice(&framed.types[span.framed.clone()]);
            batch.positions.extend(0..span.framed.len() as i32);
            batch.cu_seqlens.push(batch.ids.len() as i32);
            if self.pair.is_some() {
                let counts = whole && batch.ids.len() <= countable;
                batch.pairs.push(if counts { framed.pair } else { IGNORE });
            }
        }
        match (&self.masker, masked) {
            (None, _) => batch.targets = next_tokens(&batch, countable),
            (Some(masker), false) => {
                batch.to_mask = Some(ToMask { start, countable, rows: masker.capacity() });
            }
            (Some(masker), true) => {
                let (rows, targets) =
                    masker.apply(start, &mut batch.ids, &batch.cu_seqlens, countable);
                (batch.rows, batch.targets) = (Some(rows), targets);
            }
        }
        batch
    }

    fn frame(&self, span: &Span, out: &mut Framed) {
        let piece = &span.piece;
        out.ids.clear();
        out.types.clear();
        out.pair = IGNORE;
        match self.packing.frame {
            Frame::None => self.append(piece, 0, piece.len, out),
            Frame::Causal { eot } => {
                out.ids.push(eot as i32);
                self.append(piece, 0, piece.len, out);
                if piece.ends_document {
                    out.ids.push(eot as i32);
                }
            }
            Frame::Masked { cls, sep } => {
                out.ids.push(cls as i32);
                self.append(piece, 0, piece.len, out);
                out.ids.push(sep as i32);
            }
            Frame::Pair { cls, sep } => {
                out.ids.push(cls as i32);
                let first = self.append_halves(span.epoch, piece, sep as i32, out);
                out.ids.push(sep as i32);
                out.types.resize(first + 2, 0);
                out.types.resize(out.ids.len(), 1);
            }
        }
        out.types.resize(out.ids.len(), 0);
    }

    fn append(&self, piece: &Piece, begin: u64, len: u64, out: &mut Framed) {
        let corpus = &self.packing.corpus;
        corpus.document_part(piece.document, piece.begin + begin, len).append_to(&mut out.ids);
    }

    /// Appends `first [SEP] second` and sets the label; returns the length of the first half. A
    /// piece of one token has an empty half and no label.
    fn append_halves(&self, epoch: u32, piece: &Piece, sep: i32, out: &mut Framed) -> usize {
        let half = piece.len / 2;
        let draw = |n: u64| self.rng.block(Stream::Pair, epoch, piece.number << 4 | n);
        let flip = half > 0 && chance(draw(0)[0], 0.5);
        let a = (piece.begin, half);
        let b = (piece.begin + half, piece.len - half);
        let other = match (flip, self.pair) {
            (true, Some(Pair::Next)) => {
                (1..=NEXT_TRIES).find_map(|n| self.elsewhere(piece, b.1, draw(n)))
            }
            _ => None,
        };
        let swapped = flip && self.pair == Some(Pair::Order);
        let halves = match (swapped, other) {
            (true, _) => [(piece.document, b), (piece.document, a)],
            (_, Some((document, begin))) => [(piece.document, a), (document, (begin, b.1))],
            _ => [(piece.document, a), (piece.document, b)],
        };
        for (i, (document, (begin, len))) in halves.into_iter().enumerate() {
            if i == 1 {
                out.ids.push(sep);
            }
            self.packing.corpus.document_part(document, begin, len).append_to(&mut out.ids);
        }
        if half > 0 {
            out.pair = i32::from(swapped || other.is_some());
        }
        halves[0].1.1 as usize
    }

    /// `len` tokens of another document: its number and where they begin, if the drawn one is long
    /// enough. Documents are drawn by their number of pieces.
    fn elsewhere(&self, piece: &Piece, len: u64, words: [u32; 4]) -> Option<(u64, u64)> {
        let number = below_u64([words[0], words[1]], self.packing.pieces());
        let document = self.packing.piece(number).document;
        let room = self.packing.corpus.length(document).checked_sub(len)?;
        (document != piece.document).then(|| (document, below_u64([words[2], words[3]], room + 1)))
    }
}

/// `[N]`: the next token of the same sequence.
fn next_tokens(batch: &Batch, countable: usize) -> Vec<i32> {
    let mut targets = vec![IGNORE; batch.ids.len()];
    for sequence in batch.cu_seqlens.windows(2) {
        let last = (sequence[1] as usize - 1).min(countable);
        let rows = sequence[0] as usize..last.max(sequence[0] as usize);
        targets[rows.clone()].copy_from_slice(&batch.ids[rows.start + 1..rows.end + 1]);
    }
    targets
}
