//! Encoding text word by word, each distinct word once.
//!
//! Text repeats its words, and the library works each one out anew. Remembering them is six times
//! as fast over the first megabytes, and over twenty times once the words are known
//! (`benches/results/data.md`).
//!
//! A chunk is a run of white space with the run of anything else that follows it. GPT-2's pattern
//! and BERT's splitting never match across the border from one chunk to the next, and look no
//! further than their own chunk; so there, and only there (see `Tokenizer`), the ids of a text are
//! the ids of its chunks, one after another.

use std::collections::HashMap;

/// Chunks remembered at most, about 20 MB.
const CAPACITY: usize = 1 << 18;

/// Longest chunk worth remembering, in bytes.
const LONGEST: usize = 48;

/// The chunks of `text`, in order and without gaps.
pub fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let word = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        let end = rest[word..].find(char::is_whitespace).map_or(rest.len(), |len| word + len);
        let (chunk, tail) = rest.split_at(end);
        rest = tail;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Ids of chunks met before. One thread's at a time.
#[derive(Default)]
pub struct WordCache {
    /// Where a chunk's ids lie in `ids`: begin and length.
    known: HashMap<Box<str>, (u32, u32)>,
    ids: Vec<u32>,
}

impl WordCache {
    /// Appends the ids of `text` to `out`, asking `encode` for chunks not met before.
    pub fn encode<E>(
        &mut self,
        text: &str,
        out: &mut Vec<u32>,
        mut encode: impl FnMut(&str) -> Result<Vec<u32>, E>,
    ) -> Result<(), E> {
        for chunk in chunks(text) {
            if let Some(&(begin, len)) = self.known.get(chunk) {
                out.extend_from_slice(&self.ids[begin as usize..(begin + len) as usize]);
                continue;
            }
            let ids = encode(chunk)?;
            out.extend_from_slice(&ids);
            if chunk.len() <= LONGEST && self.known.len() < CAPACITY {
                let place = (self.ids.len() as u32, ids.len() as u32);
                self.known.insert(chunk.into(), place);
                self.ids.extend(ids);
            }
        }
        Ok(())
    }
}

/// How often each chunk occurs in `texts`.
pub fn count<S: AsRef<str>>(texts: impl Iterator<Item = S>) -> HashMap<Box<str>, u64> {
    let mut counts: HashMap<Box<str>, u64> = HashMap::new();
    for text in texts {
        for chunk in chunks(text.as_ref()) {
            match counts.get_mut(chunk) {
                Some(count) => *count += 1,
                None => _ = counts.insert(chunk.into(), 1),
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_text() {
        let text = "  a\n\nb's \u{3000}ç,d  ";
        let parts: Vec<&str> = chunks(text).collect();
        assert_eq!(parts, ["  a", "\n\nb's", " \u{3000}ç,d", "  "]);
        assert_eq!(chunks("").count(), 0);
    }
}
