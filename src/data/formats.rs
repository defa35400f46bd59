//! Token files of other programs, read where they lie.
//!
//! | file | layout, little-endian |
//! |---|---|
//! | llm.c, modded-nanogpt | 1,024-byte header of i32: 20240520, 1, T, 0, …; then T u16 |
//! | llm.c, Llama 3 | 1,024-byte header of i32: 20240801, 7, T, 0, …; then T u32 |
//! | nanoGPT | T u16, no header |
//!
//! They mark documents by an end-of-text token: before each one (llm.c) or after (nanoGPT). Either
//! way the documents are what lies between those tokens, which are left out here and put back by
//! packing, so the same file serves every objective. A file without the token is one document.

use std::ops::Range;
use std::path::Path;

use super::shard::{Documents, MAGIC, Shard, ShardError, Tokens, map};

const LLM_C_HEADER: usize = 1024;
const LLM_C_GPT2: (i32, i32) = (20_240_520, 1);
const LLM_C_LLAMA3: (i32, i32) = (20_240_801, 7);

/// GPT-2's `<|endoftext|>`, for u16 files.
pub const GPT2_EOT: u32 = 50_256;
/// Llama 3's `<|begin_of_text|>`, for u32 files.
pub const LLAMA3_EOT: u32 = 128_000;

/// Opens a token file of any known kind, told by its first bytes; a `.bin` with no known magic is
/// nanoGPT's. `eot` is the token between documents of a foreign file, by default the format's own.
pub fn open(path: &Path, eot: Option<u32>) -> Result<Shard, ShardError> {
    let bytes = map(path)?;
    let word = |i: usize| bytes.get(4 * i..4 * i + 4).map(|b| [b[0], b[1], b[2], b[3]]);
    let magic = word(0).map(i32::from_le_bytes);
    let is_bin = path.extension().is_some_and(|extension| extension == "bin");
    let (header, width, tokens) = match magic {
        Some(magic) if magic == LLM_C_GPT2.0 || magic == LLM_C_LLAMA3.0 => {
            if bytes.len() < LLM_C_HEADER {
                let found = bytes.len() as u64;
                return Err(ShardError::HeaderCut { path: path.into(), found });
            }
            let llama = magic == LLM_C_LLAMA3.0;
            let known = if llama { LLM_C_LLAMA3.1 } else { LLM_C_GPT2.1 } as u32;
            let [found, tokens] =
                [1, 2].map(|i| u32::from_le_bytes(word(i).expect("inside the header")));
            if found != known {
                return Err(ShardError::Version { path: path.into(), found, known });
            }
            (LLM_C_HEADER, if llama { 4 } else { 2 }, u64::from(tokens))
        }
        _ if bytes.starts_with(MAGIC) || !is_bin => return Shard::open(path),
        _ => (0, 2, (bytes.len() / 2) as u64),
    };
    let (expected, found) =
        (header as u128 + u128::from(tokens) * width as u128, bytes.len() as u64);
    if u128::from(found) < expected {
        let path = path.into();
        return Err(ShardError::Truncated { path, tokens, documents: 0, expected, found });
    }
    if u128::from(found) > expected {
        let extra = found - expected as u64;
        return Err(ShardError::Trailing { path: path.into(), extra });
    }
    let mut shard = Shard {
        path: path.into(),
        map: bytes,
        width,
        tokens_at: header,
        tokens,
        documents: Documents::Found(Vec::new()),
        vocabulary: None,
        fingerprint: None,
        checksum: None,
    };
    let eot = eot.unwrap_or(if width == 2 { GPT2_EOT } else { LLAMA3_EOT });
    shard.documents = Documents::Found(match shard.tokens(0..tokens) {
        Tokens::U16(tokens) => between(tokens, |token| u32::from(token) == eot),
        Tokens::U32(tokens) => between(tokens, |token| token == eot),
    });
    Ok(shard)
}

/// The runs of tokens between those that are an end of text.
fn between<T: Copy>(tokens: &[T], is_eot: impl Fn(T) -> bool) -> Vec<Range<u64>> {
    let mut documents = Vec::new();
    let mut begin = 0;
    let ends = tokens.iter().enumerate().filter(|(_, token)| is_eot(**token)).map(|(i, _)| i);
    for end in ends.chain([tokens.len()]) {
        if begin < end {
            documents.push(begin as u64..end as u64);
        }
        begin = end + 1;
    }
    documents
}
