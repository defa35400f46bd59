//! Our token shard: tokens of many documents end to end, memory-mapped, checked.
//!
//! All little-endian. T tokens of W bytes (2 or 4), D documents, none of them empty:
//!
//! ```text
//! byte  0  8   magic "WARPTOKS"
//!       8  4   version, 1
//!      12  4   W
//!      16  8   vocabulary: every token is below it
//!      24  8   fingerprint of the tokenizer
//!      32  8   T
//!      40  8   D
//!      48  8   XXH3-64 of all bytes from 64 to the end
//!      56  8   XXH3-64 of bytes 0 to 55
//!      64  T·W tokens, then zeros up to a multiple of 8
//!          8·(D+1)  boundaries: 0, then the end of each document in tokens; the last is T
//! ```
//!
//! Offsets are u64 from end to end, so 2^32 tokens and 2 GiB are nothing special. [`Shard::open`]
//! checks everything but the tokens (header, size, boundaries: 8 bytes a document); the tokens are
//! hashed and held to the vocabulary by [`Shard::verify`], one pass at the speed of the disk, which
//! a run does once at its start and `data inspect` always.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapMut};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::files;

const _: () = assert!(cfg!(target_endian = "little"), "shards are mapped, not byte-swapped");
const _: () = assert!(usize::BITS == 64, "shards above 4 GiB need 64-bit addresses");

pub const MAGIC: &[u8; 8] = b"WARPTOKS";
pub const VERSION: u32 = 1;
const HEADER: usize = 64;

/// Bytes hashed and checked at a time: a multiple of 8 that stays in a core's cache.
const VERIFY_CHUNK: usize = 1 << 18;

/// The ways a token file can fail to be what it says.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {found} bytes is shorter than a header; the file was cut, make it again")]
    HeaderCut { path: PathBuf, found: u64 },
    #[error(
        "{0}: not a token file of a known kind (.wws, llm.c or nanoGPT .bin); make shards with \
         `warpwright data tokenize`"
    )]
    Magic(PathBuf),
    #[error("{path}: format version {found}, this program reads {known}; update the program")]
    Version { path: PathBuf, found: u32, known: u32 },
    #[error("{0}: the header does not match its checksum; the file is damaged, make it again")]
    HeaderChecksum(PathBuf),
    #[error("{path}: tokens of {width} bytes; only 2 and 4 exist, make the shard again")]
    Width { path: PathBuf, width: u32 },
    #[error(
        "{path}: truncated: its header counts {tokens} tokens and {documents} documents, which \
         take {expected} bytes, but it has {found}; copy or make it again"
    )]
    Truncated { path: PathBuf, tokens: u64, documents: u64, expected: u128, found: u64 },
    #[error("{path}: {extra} bytes follow the last one its header counts; make it again")]
    Trailing { path: PathBuf, extra: u64 },
    #[error(
        "{path}: boundaries begin at token {begin} and end at {end}, not at 0 and {tokens}; the \
         file is damaged, make it again"
    )]
    BoundaryEnds { path: PathBuf, begin: u64, end: u64, tokens: u64 },
    #[error(
        "{path}: document {document} ends before it begins; the file is damaged, make it again"
    )]
    BoundaryOrder { path: PathBuf, document: u64 },
    #[error("{0}: the tokens do not match their checksum; the file is damaged, make it again")]
    Checksum(PathBuf),
    #[error(
        "{path}: token {index} is {token}, beyond the vocabulary of {vocabulary}; the shard \
         belongs to another tokenizer or is damaged"
    )]
    TokenBeyondVocabulary { path: PathBuf, index: u64, token: u32, vocabulary: u64 },
}

/// Tokens as they lie in the file.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'a> {
    U16(&'a [u16]),
    U32(&'a [u32]),
}

impl Tokens<'_> {
    pub fn len(&self) -> usize {
        match self {
            Tokens::U16(tokens) => tokens.len(),
            Tokens::U32(tokens) => tokens.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, i: usize) -> u32 {
        match self {
            Tokens::U16(tokens) => u32::from(tokens[i]),
            Tokens::U32(tokens) => tokens[i],
        }
    }

    /// Appends the tokens to `ids`.
    pub fn append_to(&self, ids: &mut Vec<i32>) {
        match self {
            Tokens::U16(tokens) => ids.extend(tokens.iter().map(|&token| i32::from(token))),
            Tokens::U32(tokens) => ids.extend(tokens.iter().map(|&token| token as i32)),
        }
    }

    pub fn max(&self) -> Option<u32> {
        match self {
            Tokens::U16(tokens) => tokens.iter().max().map(|&token| u32::from(token)),
            Tokens::U32(tokens) => tokens.iter().max().copied(),
        }
    }

    pub fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Tokens::U16(tokens) => Tokens::U16(&tokens[range]),
            Tokens::U32(tokens) => Tokens::U32(&tokens[range]),
        }
    }

    pub fn to_vec(&self) -> Vec<u32> {
        (0..self.len()).map(|i| self.get(i)).collect()
    }
}

/// Where documents lie, in tokens.
pub(super) enum Documents {
    /// `D + 1` boundaries in the mapped file, from this byte.
    Mapped { at: usize, count: u64 },
    /// Found by scanning a foreign file: the document's tokens without its end-of-text tokens.
    Found(Vec<Range<u64>>),
}

/// An open token file, our own or foreign.
pub struct Shard {
    pub(super) path: PathBuf,
    pub(super) map: Mmap,
    pub(super) width: usize,
    pub(super) tokens_at: usize,
    pub(super) tokens: u64,
    pub(super) documents: Documents,
    /// Exclusive bound on tokens; `None` in foreign formats, which do not say.
    pub(super) vocabulary: Option<u64>,
    pub(super) fingerprint: Option<u64>,
    pub(super) checksum: Option<u64>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shard({}, {} tokens)", self.path.display(), self.tokens)
    }
}

impl Shard {
    /// Maps a shard of ours and checks its header, its size and its boundaries.
    pub fn open(path: &Path) -> Result<Self, ShardError> {
        let map = map(path)?;
        if map.len() >= MAGIC.len() && &map[..MAGIC.len()] != MAGIC {
            return Err(ShardError::Magic(path.into()));
        }
        if map.len() < HEADER {
            return Err(ShardError::HeaderCut { path: path.into(), found: map.len() as u64 });
        }
        let u32_at = |at: usize| u32::from_le_bytes(map[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(map[at..at + 8].try_into().expect("8 bytes"));
        if u32_at(8) != VERSION {
            let (path, found) = (path.into(), u32_at(8));
            return Err(ShardError::Version { path, found, known: VERSION });
        }
        if xxh3_64(&map[..HEADER - 8]) != u64_at(HEADER - 8) {
            return Err(ShardError::HeaderChecksum(path.into()));
        }
        let width = match u32_at(12) {
            width @ (2 | 4) => width as usize,
            width => return Err(ShardError::Width { path: path.into(), width }),
        };
        let (tokens, count) = (u64_at(32), u64_at(40));
        let boundaries_at = check_size(path, map.len() as u64, tokens, width, count)?;
        let shard = Shard {
            path: path.into(),
            width,
            tokens_at: HEADER,
            tokens,
            documents: Documents::Mapped { at: boundaries_at, count },
            vocabulary: Some(u64_at(16)),
            fingerprint: Some(u64_at(24)),
            checksum: Some(u64_at(48)),
            map,
        };
        shard.check_boundaries()?;
        Ok(shard)
    }

    /// Documents that lie in memory, none of them empty; `path` is where they come from.
    pub fn of_documents(path: &Path, documents: &[Vec<u32>]) -> Result<Self, ShardError> {
        let io = |source| ShardError::Io { path: path.into(), source };
        let tokens: usize = documents.iter().map(Vec::len).sum();
        // A map of no byte is none.
        let mut map = MmapMut::map_anon((4 * tokens).max(4)).map_err(io)?;
        let (mut at, mut ranges) = (0, Vec::with_capacity(documents.len()));
        for ids in documents {
            map[4 * at..4 * (at + ids.len())].copy_from_slice(bytemuck::cast_slice(ids));
            ranges.push(at as u64..(at + ids.len()) as u64);
            at += ids.len();
        }
        Ok(Shard {
            path: path.into(),
            map: map.make_read_only().map_err(io)?,
            width: 4,
            tokens_at: 0,
            tokens: tokens as u64,
            documents: Documents::Found(ranges),
            vocabulary: None,
            fingerprint: None,
            checksum: None,
        })
    }

    fn check_boundaries(&self) -> Result<(), ShardError> {
        let boundaries = self.boundaries();
        let (begin, end) = (boundaries[0], boundaries[boundaries.len() - 1]);
        let path = || self.path.clone();
        if let Some(i) = boundaries.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(ShardError::BoundaryOrder { path: path(), document: i as u64 });
        }
        if begin != 0 || end != self.tokens {
            let tokens = self.tokens;
            return Err(ShardError::BoundaryEnds { path: path(), begin, end, tokens });
        }
        Ok(())
    }

    /// Hashes every token and holds it to the vocabulary, as far as the format says either.
    pub fn verify(&self) -> Result<(), ShardError> {
        self.verify_below(self.vocabulary.unwrap_or(u64::MAX))
    }

    /// As [`Self::verify`], with every token below `vocabulary`: for a model whose table is of
    /// that size, and for foreign files, which do not say.
    pub fn verify_below(&self, vocabulary: u64) -> Result<(), ShardError> {
        let mut hash = Xxh3::new();
        let bytes = self.tokens as usize * self.width;
        for at in (0..bytes).step_by(VERIFY_CHUNK) {
            let range = at..bytes.min(at + VERIFY_CHUNK);
            hash.update(&self.map[self.tokens_at + range.start..self.tokens_at + range.end]);
            let first = (range.start / self.width) as u64;
            let tokens = self.tokens(first..(range.end / self.width) as u64);
            self.check_range(first, tokens, vocabulary)?;
        }
        hash.update(&self.map[self.tokens_at + bytes..]);
        match self.checksum {
            Some(expected) if expected != hash.digest() => {
                Err(ShardError::Checksum(self.path.clone()))
            }
            _ => Ok(()),
        }
    }

    fn check_range(&self, first: u64, tokens: Tokens, vocabulary: u64) -> Result<(), ShardError> {
        if tokens.max().is_none_or(|max| u64::from(max) < vocabulary) {
            return Ok(());
        }
        let beyond = (0..tokens.len()).find(|&i| u64::from(tokens.get(i)) >= vocabulary);
        let i = beyond.expect("the maximum is in the slice");
        Err(ShardError::TokenBeyondVocabulary {
            path: self.path.clone(),
            index: first + i as u64,
            token: tokens.get(i),
            vocabulary,
        })
    }

    fn boundaries(&self) -> &[u64] {
        match self.documents {
            Documents::Mapped { at, count } => {
                bytemuck::cast_slice(&self.map[at..at + 8 * (count as usize + 1)])
            }
            Documents::Found(_) => &[],
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tokens of the file, a foreign file's end-of-text tokens included.
    pub fn token_count(&self) -> u64 {
        self.tokens
    }

    pub fn document_count(&self) -> u64 {
        match &self.documents {
            Documents::Mapped { count, .. } => *count,
            Documents::Found(ranges) => ranges.len() as u64,
        }
    }

    /// Bytes a token.
    pub fn width(&self) -> usize {
        self.width
    }

    pub fn vocabulary(&self) -> Option<u64> {
        self.vocabulary
    }

    pub fn fingerprint(&self) -> Option<u64> {
        self.fingerprint
    }

    /// XXH3 of all that follows the header, which [`Self::verify`] holds it to, if the format has it.
    pub fn checksum(&self) -> Option<u64> {
        self.checksum
    }

    /// The tokens in `range`.
    pub fn tokens(&self, range: Range<u64>) -> Tokens<'_> {
        assert!(range.end <= self.tokens, "tokens {range:?} of {}", self.tokens);
        let at = |token: u64| self.tokens_at + token as usize * self.width;
        let bytes = &self.map[at(range.start)..at(range.end)];
        match self.width {
            2 => Tokens::U16(bytemuck::cast_slice(bytes)),
            _ => Tokens::U32(bytemuck::cast_slice(bytes)),
        }
    }

    /// Where document `i` lies, in tokens; never empty.
    pub fn document(&self, i: u64) -> Range<u64> {
        match &self.documents {
            Documents::Mapped { .. } => {
                let boundaries = self.boundaries();
                boundaries[i as usize]..boundaries[i as usize + 1]
            }
            Documents::Found(ranges) => ranges[i as usize].clone(),
        }
    }
}

/// Maps a file for reading.
pub(super) fn map(path: &Path) -> Result<Mmap, ShardError> {
    let io = |source| ShardError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is only read, and token files are written beside and renamed, never changed
    // in place, by this program. A file that someone else truncates while it is mapped ends the
    // process with SIGBUS; nothing mapped is trusted as more than bytes.
    unsafe { Mmap::map(&file) }.map_err(io)
}

/// Where the boundaries begin, if the counts fit a file of `found` bytes exactly. In u128, where no
/// header can make the sum wrap.
fn check_size(
    path: &Path,
    found: u64,
    tokens: u64,
    width: usize,
    documents: u64,
) -> Result<usize, ShardError> {
    let boundaries_at = (HEADER as u128 + u128::from(tokens) * width as u128).next_multiple_of(8);
    let expected = boundaries_at + 8 * (u128::from(documents) + 1);
    let path = path.into();
    if expected > u128::from(found) {
        return Err(ShardError::Truncated { path, tokens, documents, expected, found });
    }
    if expected < u128::from(found) {
        return Err(ShardError::Trailing { path, extra: (u128::from(found) - expected) as u64 });
    }
    Ok(boundaries_at as usize)
}

/// Writes one shard as a stream: beside (`NAME.partial`), then synced and renamed by
/// [`Self::finish`]. Dropped before that, it removes what it wrote. Memory: 8 bytes a document.
pub struct ShardWriter {
    path: PathBuf,
    partial: files::Partial,
    out: BufWriter<File>,
    hash: Xxh3,
    width: usize,
    vocabulary: u64,
    fingerprint: u64,
    /// `[D + 1]`, of the documents ended so far.
    boundaries: Vec<u64>,
    tokens: u64,
}

impl ShardWriter {
    /// Tokens take 2 bytes where `vocabulary` allows, else 4.
    pub fn create(path: &Path, vocabulary: u64, fingerprint: u64) -> Result<Self, ShardError> {
        let io = |source| ShardError::Io { path: path.into(), source };
        let (partial, file) = files::Partial::create(path).map_err(io)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&[0; HEADER]).map_err(io)?;
        Ok(ShardWriter {
            path: path.into(),
            partial,
            out,
            hash: Xxh3::new(),
            width: if vocabulary <= 1 << 16 { 2 } else { 4 },
            vocabulary,
            fingerprint,
            boundaries: vec![0],
            tokens: 0,
        })
    }

    /// Appends tokens to the open document. Panics at a token beyond the vocabulary.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), ShardError> {
        let vocabulary = self.vocabulary;
        assert!(tokens.iter().all(|&t| u64::from(t) < vocabulary), "token beyond {vocabulary}");
        self.tokens += tokens.len() as u64;
        if self.width == 2 {
            let narrow: Vec<u16> = tokens.iter().map(|&token| token as u16).collect();
            self.write(bytemuck::cast_slice(&narrow))
        } else {
            self.write(bytemuck::cast_slice(tokens))
        }
    }

    /// Ends the open document; one without tokens leaves no trace.
    pub fn end_document(&mut self) {
        if self.boundaries.last() != Some(&self.tokens) {
            self.boundaries.push(self.tokens);
        }
    }

    pub fn token_count(&self) -> u64 {
        self.tokens
    }

    pub fn document_count(&self) -> u64 {
        self.boundaries.len() as u64 - 1
    }

    /// Ends the open document, writes boundaries and header, syncs and renames.
    pub fn finish(mut self) -> Result<(), ShardError> {
        self.end_document();
        let bytes = HEADER + self.tokens as usize * self.width;
        self.write(&[0; 8][..bytes.next_multiple_of(8) - bytes])?;
        let boundaries = std::mem::take(&mut self.boundaries);
        self.write(bytemuck::cast_slice(&boundaries))?;
        let header = self.header(boundaries.len() as u64 - 1);
        let ShardWriter { path, partial, mut out, .. } = self;
        let io = |source| ShardError::Io { path: path.clone(), source };
        out.seek(SeekFrom::Start(0)).map_err(io)?;
        out.write_all(&header).map_err(io)?;
        let file = out.into_inner().map_err(|e| io(e.into_error()))?;
        partial.finish(file).map_err(io)
    }

    fn header(&self, documents: u64) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(self.width as u32).to_le_bytes());
        let words = [self.vocabulary, self.fingerprint, self.tokens, documents, self.hash.digest()];
        header[16..56].copy_from_slice(bytemuck::cast_slice(&words));
        let checksum = xxh3_64(&header[..HEADER - 8]);
        header[HEADER - 8..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ShardError> {
        self.hash.update(bytes);
        let path = &self.path;
        self.out.write_all(bytes).map_err(|source| ShardError::Io { path: path.clone(), source })
    }
}
