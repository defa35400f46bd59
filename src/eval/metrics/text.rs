//! Text as Python's functions see it, with which the reference programs are written.

use std::collections::HashMap;
use std::hash::Hash;

/// White space to `str.split` and `str.strip`: Unicode's, and ASCII's four separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// What lies between white space, as `str.split()`.
pub fn fields(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|field| !field.is_empty())
}

/// How often each run of `n` items occurs. `n` > 0.
pub fn ngrams<T: Hash + Eq>(items: &[T], n: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    for ngram in items.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// How many occurrences two counts share: Σ min.
pub fn shared<K: Hash + Eq>(a: &HashMap<K, u64>, b: &HashMap<K, u64>) -> u64 {
    a.iter().filter_map(|(key, &count)| Some(count.min(*b.get(key)?))).sum()
}
