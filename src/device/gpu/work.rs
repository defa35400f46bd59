//! Work that a device is asked for, as data: what a recording is made of.

use std::ffi::c_void;

use super::cuda::blas::Product;
use super::driver::{Address, Launch};

/// The arguments of a launch, by value: each begins at a word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params {
    words: Vec<u64>,
    /// Of each, its first word and its bytes.
    places: Vec<(usize, usize)>,
}

impl Params {
    pub fn push(&mut self, bytes: &[u8]) {
        self.places.push((self.words.len(), bytes.len()));
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        self.words.extend(words);
    }

    /// The bytes of each.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        self.places.iter().map(move |&(word, len)| &bytes[8 * word..][..len])
    }

    /// Where each lies, as a driver takes them.
    pub fn pointers(&self) -> Vec<*const c_void> {
        self.places.iter().map(|&(word, _)| self.words[word..].as_ptr().cast()).collect()
    }
}

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    Launch(Launch, Params),
    Copy {
        to: Address,
        from: Address,
        bytes: usize,
    },
    Fill {
        to: Address,
        byte: u8,
        bytes: usize,
    },
    /// By cuBLASLt, of matrices at these places: A, B and D.
    Multiply(Product, [Address; 3]),
}

impl Work {
    /// Whether it can take the place of `old` in a recording: other arguments, grid, kernel or
    /// bytes, but not another kind of work.
    pub fn may_replace(&self, old: &Work) -> bool {
        match (self, old) {
            (Work::Launch(new, _), Work::Launch(old, _)) => {
                let kind = |launch: &Launch| (launch.cluster, launch.cooperative, launch.overlaps);
                kind(new) == kind(old)
            }
            (Work::Fill { .. }, Work::Fill { .. }) => true,
            (new, old) => new == old,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Params;

    #[test]
    fn arguments_keep_their_bytes_and_places() {
        let mut params = Params::default();
        let all: [&[u8]; 4] = [&[1, 2, 3, 4], &[9; 8], &[5; 20], &[7]];
        all.iter().for_each(|bytes| params.push(bytes));
        assert_eq!(params.iter().collect::<Vec<_>>(), all);
        for (bytes, pointer) in all.iter().zip(params.pointers()) {
            // SAFETY: the pointer is to that argument, which is as long.
            let there = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), bytes.len()) };
            assert_eq!(&there, bytes);
        }
    }
}
