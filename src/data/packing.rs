//! Documents to one endless token stream, and the stream to micro-batches.
//!
//! A document of n tokens is cut into ⌈n / room⌉ pieces of equal length (to within one token),
//! where room = context − specials; each piece is framed by the objective's special tokens:
//!
//! ```text
//! masked   [CLS] piece [SEP]
//! pair     [CLS] A [SEP] B [SEP]          A, B: the piece's halves
//! causal   <|endoftext|> piece            and <|endoftext|> after it if it ends its document
//! none     piece                          no such token in the vocabulary
//! ```
//!
//! An epoch visits every piece once, in an order of its own (see `order`). The framed pieces of
//! epochs 0, 1, 2, … laid end to end are the stream; micro-batch k is its tokens [k·N, (k+1)·N). So
//! N is exact, nothing is padded and nothing lost: a piece that lies across a border is cut there
//! into two sequences.
//!
//! An epoch has E tokens whatever its order, so the epoch of a stream position is a division. To
//! find the piece there, a sparse index holds the stream offset of every 64th visit; it is computed
//! on entering an epoch, and is a cache, not state: any batch can be asked for at any time.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::dataset::Corpus;
use super::order::Permutation;
use crate::rng::Philox;

/// Documents between two entries of the index from pieces to documents.
const DOCUMENT_STRIDE: usize = 16;
/// Visits between two entries of an epoch's index of offsets.
const VISIT_STRIDE: u64 = 64;
/// Epochs whose index is kept: a batch can lie across two, and a thread may prefetch.
const KEPT_EPOCHS: usize = 3;

/// The special tokens around a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    None,
    Causal { eot: u32 },
    Masked { cls: u32, sep: u32 },
    Pair { cls: u32, sep: u32 },
}

impl Frame {
    /// The most special tokens a piece gets.
    pub fn specials(self) -> usize {
        match self {
            Frame::None => 0,
            Frame::Causal { .. } | Frame::Masked { .. } => 2,
            Frame::Pair { .. } => 3,
        }
    }

    fn around(self, ends_document: bool) -> u64 {
        match self {
            Frame::Causal { .. } => 1 + u64::from(ends_document),
            frame => frame.specials() as u64,
        }
    }
}

/// A run of a document's tokens that becomes one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its number among all pieces.
    pub number: u64,
    pub document: u64,
    /// Its first token in the document.
    pub begin: u64,
    pub len: u64,
    pub ends_document: bool,
}

/// The part of a framed piece that lies in a batch: one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub epoch: u32,
    pub piece: Piece,
    /// Tokens of the framed piece, from 0.
    pub framed: Range<usize>,
}

/// One split as a stream.
pub struct Packing {
    pub corpus: Arc<Corpus>,
    pub frame: Frame,
    rng: Philox,
    /// Tokens a piece has at most.
    room: u64,
    pieces: u64,
    split_documents: u64,
    /// Pieces before every `DOCUMENT_STRIDE`-th document.
    pieces_before: Vec<u64>,
    epoch_tokens: u64,
    /// (epoch, stream offset in it of every `VISIT_STRIDE`-th visit), latest last.
    offsets: Mutex<Vec<(u32, Arc<Vec<u64>>)>>,
}

impl Packing {
    /// `context`: tokens in the longest sequence, specials included. Panics if it has no room for
    /// a token, and on an empty corpus; the loader refuses both first.
    pub fn new(corpus: Arc<Corpus>, frame: Frame, context: usize, rng: Philox) -> Self {
        assert!(context > frame.specials(), "context {context} has no room in {frame:?}");
        assert!(corpus.documents() > 0, "packing an empty corpus");
        let room = (context - frame.specials()) as u64;
        let (mut pieces, mut split_documents, mut pieces_before) = (0, 0, Vec::new());
        for (document, length) in corpus.lengths().enumerate() {
            if document % DOCUMENT_STRIDE == 0 {
                pieces_before.push(pieces);
            }
            pieces += length.div_ceil(room);
            split_documents += u64::from(length > room);
        }
        let framing = match frame {
            Frame::Causal { .. } => pieces + corpus.documents(),
            frame => pieces * frame.specials() as u64,
        };
        let epoch_tokens = corpus.tokens() + framing;
        let offsets = Mutex::default();
        Packing {
            corpus,
            frame,
            rng,
            room,
            pieces,
            split_documents,
            pieces_before,
            epoch_tokens,
            offsets,
        }
    }

    /// Pieces of an epoch.
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// Tokens of an epoch, framing included.
    pub fn epoch_tokens(&self) -> u64 {
        self.epoch_tokens
    }

    /// Documents longer than a piece.
    pub fn split_documents(&self) -> u64 {
        self.split_documents
    }

    /// Piece `number`, by its document.
    pub fn piece(&self, number: u64) -> Piece {
        let block = self.pieces_before.partition_point(|&before| before <= number) - 1;
        let mut rest = number - self.pieces_before[block];
        let mut document = (block * DOCUMENT_STRIDE) as u64;
        loop {
            let length = self.corpus.length(document);
            let count = length.div_ceil(self.room);
            if rest < count {
                let cut = |i: u64| (u128::from(length) * u128::from(i) / u128::from(count)) as u64;
                let (begin, end) = (cut(rest), cut(rest + 1));
                let ends_document = rest + 1 == count;
                return Piece { number, document, begin, len: end - begin, ends_document };
            }
            rest -= count;
            document += 1;
        }
    }

    /// Tokens of a piece with its frame.
    pub fn framed_len(&self, piece: &Piece) -> u64 {
        piece.len + self.frame.around(piece.ends_document)
    }

    /// The sequences of stream tokens `[start, start + n)`, in order.
    pub fn spans(&self, start: u64, n: usize) -> Vec<Span> {
        let mut epoch = (start / self.epoch_tokens) as u32;
        let offset = start % self.epoch_tokens;
        let offsets = self.offsets(epoch);
        let entry = offsets.partition_point(|&at| at <= offset) - 1;
        let mut visit = entry as u64 * VISIT_STRIDE;
        let mut skip = offset - offsets[entry];
        let mut order = Permutation::new(self.rng, epoch, self.pieces);
        let (mut spans, mut left) = (Vec::new(), n as u64);
        while left > 0 {
            if visit == self.pieces {
                (epoch, visit) = (epoch + 1, 0);
                order = Permutation::new(self.rng, epoch, self.pieces);
            }
            let piece = self.piece(order.at(visit));
            let len = self.framed_len(&piece);
            if skip < len {
                let end = len.min(skip + left);
                spans.push(Span { epoch, piece, framed: skip as usize..end as usize });
                left -= end - skip;
            }
            skip = skip.saturating_sub(len);
            visit += 1;
        }
        spans
    }

    fn offsets(&self, epoch: u32) -> Arc<Vec<u64>> {
        let kept = || self.offsets.lock().expect("no thread panics while holding the index");
        if let Some((_, offsets)) = kept().iter().find(|(kept, _)| *kept == epoch) {
            return offsets.clone();
        }
        // Computed without the lock: a thread of the pool waiting inside it could deadlock. Two
        // threads that enter an epoch together both compute the same index.
        let offsets = Arc::new(self.compute_offsets(epoch));
        let mut kept = kept();
        kept.push((epoch, offsets.clone()));
        if kept.len() > KEPT_EPOCHS {
            kept.remove(0);
        }
        offsets
    }

    fn compute_offsets(&self, epoch: u32) -> Vec<u64> {
        let order = Permutation::new(self.rng, epoch, self.pieces);
        let visits = |entry: u64| entry * VISIT_STRIDE..self.pieces.min((entry + 1) * VISIT_STRIDE);
        let tokens = |entry: u64| -> u64 {
            visits(entry).map(|visit| self.framed_len(&self.piece(order.at(visit)))).sum()
        };
        let entries = self.pieces.div_ceil(VISIT_STRIDE);
        let lengths: Vec<u64> = (0..entries).into_par_iter().map(tokens).collect();
        let before = lengths.iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum - length)
        });
        before.collect()
    }
}
