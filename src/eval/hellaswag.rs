//! llm.c's file of HellaSwag: contexts, each with four completions of which one is right.
//!
//! ```text
//! i32 [256]   20240522, 1, examples, bytes of the longest example, 0, …       little-endian
//! u16 stream  of each example: 65535, its bytes, its index, its label, 4,
//!             {n, context [n]}, then four times {n, completion [n]}
//! ```
//!
//! Tokens are GPT-2's, with no end of text before them. llm.c takes the completion with the least
//! mean loss a token: what others call acc_norm.

use std::path::{Path, PathBuf};

use super::likelihood::Asked;

const MAGIC: i32 = 20_240_522;
const VERSION: i32 = 1;
const HEADER: usize = 1024;
const BEGIN: u16 = 65_535;
/// Of an example.
const COMPLETIONS: usize = 4;

/// The ways such a file can fail to be what it says.
#[derive(Debug, thiserror::Error)]
pub enum HellaswagError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {bytes} bytes are shorter than a header: copy or make it again")]
    Header { path: PathBuf, bytes: usize },
    #[error("{path} is not llm.c's file of HellaSwag: it begins with {found}, not {MAGIC}")]
    Magic { path: PathBuf, found: i32 },
    #[error("{path}: version {found}, this program reads {VERSION}: update one of them")]
    Version { path: PathBuf, found: i32 },
    #[error("{path}: example {example} is cut: copy or make the file again")]
    Cut { path: PathBuf, example: usize },
    #[error("{path}: example {example} {why}: the file is damaged, make it again")]
    Example { path: PathBuf, example: usize, why: String },
    #[error("{path}: {bytes} bytes follow the last example that its header counts: make it again")]
    Trailing { path: PathBuf, bytes: usize },
}

/// A context with its completions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub context: Vec<u32>,
    pub completions: [Vec<u32>; COMPLETIONS],
    /// The one that is right.
    pub label: usize,
}

impl Example {
    /// The context with each completion, of which all tokens are in question.
    pub fn asked(&self) -> impl Iterator<Item = Asked> {
        self.completions.iter().map(|completion| {
            let ids = [&self.context[..], completion].concat();
            Asked { scored: (self.context.len()..ids.len()).collect(), ids }
        })
    }
}

/// Reads the file.
///
/// # Errors
/// Each way in which it can be damaged; the example is named, from 0.
pub fn read(path: &Path) -> Result<Vec<Example>, HellaswagError> {
    let bytes =
        std::fs::read(path).map_err(|source| HellaswagError::Io { path: path.into(), source })?;
    if bytes.len() < HEADER {
        return Err(HellaswagError::Header { path: path.into(), bytes: bytes.len() });
    }
    let word = |i: usize| i32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().expect("4 bytes"));
    if word(0) != MAGIC {
        return Err(HellaswagError::Magic { path: path.into(), found: word(0) });
    }
    if word(1) != VERSION {
        return Err(HellaswagError::Version { path: path.into(), found: word(1) });
    }
    let stream: Vec<u16> = bytes[HEADER..]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let mut rest = &stream[..];
    let mut examples = Vec::new();
    for example in 0..word(2).max(0) as usize {
        let cut = || HellaswagError::Cut { path: path.into(), example };
        let wrong = |why| HellaswagError::Example { path: path.into(), example, why };
        let &[begin, size, ..] = rest else { return Err(cut()) };
        if begin != BEGIN {
            return Err(wrong(format!("begins with {begin}, not {BEGIN}")));
        }
        let (own, after) = rest.split_at_checked(size as usize / 2).ok_or_else(cut)?;
        examples.push(parse(own, example).map_err(wrong)?);
        rest = after;
    }
    match 2 * rest.len() + (bytes.len() - HEADER) % 2 {
        0 => Ok(examples),
        bytes => Err(HellaswagError::Trailing { path: path.into(), bytes }),
    }
}

/// One example, all of `own`.
fn parse(own: &[u16], number: usize) -> Result<Example, String> {
    let &[_, _, index, label, count, ref rest @ ..] = own else {
        return Err(format!("has {} words, too few for any", own.len()));
    };
    if index as usize != number {
        return Err(format!("calls itself {index}"));
    }
    if count as usize != COMPLETIONS || label as usize >= COMPLETIONS {
        return Err(format!("has {count} completions, of which {label} is right"));
    }
    let mut rest = rest;
    let mut run = || -> Result<Vec<u32>, String> {
        let (&n, after) = rest.split_first().ok_or("has fewer runs of tokens than it says")?;
        let (tokens, after) = after.split_at_checked(n as usize).ok_or("ends within a run")?;
        rest = after;
        if tokens.is_empty() {
            Err("has an empty run of tokens".into())
        } else {
            Ok(tokens.iter().map(|&token| u32::from(token)).collect())
        }
    };
    let context = run()?;
    let completions = [run()?, run()?, run()?, run()?];
    match rest.len() {
        0 => Ok(Example { context, completions, label: label as usize }),
        more => Err(format!("has {more} words more than its runs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(context: &[u16], label: u16, index: u16) -> Vec<u16> {
        let mut words = vec![BEGIN, 0, index, label, 4, context.len() as u16];
        words.extend(context);
        (0..4).for_each(|i| words.extend([2, 7 + i, 8]));
        words[1] = 2 * words.len() as u16;
        words
    }

    fn file(header: [i32; 4], words: &[u16]) -> Result<Vec<Example>, String> {
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(HEADER, 0);
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read(file.path()).map_err(|e| e.to_string())
    }

    const HEAD: [i32; 4] = [MAGIC, VERSION, 2, 99];

    #[test]
    fn examples_are_read_as_they_were_written() {
        let stream = [words(&[1, 2, 3], 2, 0), words(&[9], 0, 1)].concat();
        let examples = file(HEAD, &stream).unwrap();
        assert_eq!((examples.len(), examples[0].label), (2, 2));
        let asked: Vec<Asked> = examples[1].asked().collect();
        assert_eq!(asked[3], Asked { ids: vec![9, 10, 8], scored: vec![1, 2] });
    }

    #[test]
    fn each_way_to_lie_has_its_error() {
        let good = [words(&[1, 2, 3], 2, 0), words(&[9], 0, 1)].concat();
        let changed = |at: usize, to: u16| {
            let mut words = good.clone();
            words[at] = to;
            words
        };
        for (header, words, said) in [
            ([1, VERSION, 2, 99], good.clone(), "begins with 1, not 20240522"),
            ([MAGIC, 2, 2, 99], good.clone(), "version 2"),
            ([MAGIC, VERSION, 3, 99], good.clone(), "example 2 is cut"),
            ([MAGIC, VERSION, 1, 99], good.clone(), "38 bytes follow"),
            (HEAD, good[..good.len() - 1].to_vec(), "example 1 is cut"),
            (HEAD, changed(0, 3), "example 0 begins with 3"),
            (HEAD, changed(1, 4), "example 0 has 2 words, too few"),
            (HEAD, changed(2, 5), "example 0 calls itself 5"),
            (HEAD, changed(3, 4), "of which 4 is right"),
            (HEAD, changed(4, 5), "has 5 completions"),
            (HEAD, changed(5, 300), "ends within a run"),
            (HEAD, changed(9, 0), "an empty run"),
            (HEAD, changed(18, 1), "1 words more than its runs"),
        ] {
            let why = file(header, &words).unwrap_err();
            assert!(why.contains(said), "{said}: {why}");
        }
        let short = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(short.path(), [0; 9]).unwrap();
        assert!(read(short.path()).unwrap_err().to_string().contains("9 bytes are shorter"));
    }
}
