//! Token classification: whole entities, as seqeval's default mode (and `conlleval`) reads them.
//!
//! Tags are `O`, or `B`, `I`, `E` or `S` (begin, inside, end, single) with `-type`. An entity that
//! no `B` opens counts too:
//!
//! ```text
//! begins   at B and S, where the type changes, at I or E after O, E or S
//! ends     before O and before another that begins, after E and S
//! ```
//!
//! An entity is right if its type, first and last token are. (Ramshaw and Marcus, "Text chunking
//! using transformation-based learning", 1995; Tjong Kim Sang and De Meulder, CoNLL-2003.)

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::{AddAssign, Range};

use super::{Tally, added};

/// A tag that is none of these.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no tag of an entity: O, or one of B, I, E, S with a type as in B-PER")]
pub struct TagError(pub String);

/// What a run of tokens is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity<'a> {
    /// `_` where the tags name none.
    pub kind: &'a str,
    pub tokens: Range<usize>,
}

/// The entities of one sentence, in order.
pub fn entities<S: AsRef<str>>(tags: &[S]) -> Result<Vec<Entity<'_>>, TagError> {
    let mut found: Vec<Entity> = Vec::new();
    let (mut before, mut kind_before) = ('O', "");
    for (i, tag) in tags.iter().enumerate() {
        let (letter, kind) = parts(tag.as_ref())?;
        let is_new =
            matches!(letter, 'B' | 'S') || kind != kind_before || matches!(before, 'O' | 'E' | 'S');
        if letter != 'O' && is_new {
            found.push(Entity { kind, tokens: i..i + 1 });
        } else if letter != 'O' {
            found.last_mut().expect("an entity is open").tokens.end = i + 1;
        }
        (before, kind_before) = (letter, kind);
    }
    Ok(found)
}

/// `B-PER` → (B, PER).
fn parts(tag: &str) -> Result<(char, &str), TagError> {
    let (letter, kind) = tag.split_once('-').unwrap_or((tag, ""));
    let letter = match letter {
        "O" => 'O',
        "B" => 'B',
        "I" => 'I',
        "E" => 'E',
        "S" => 'S',
        _ => return Err(TagError(tag.into())),
    };
    Ok((letter, if kind.is_empty() { "_" } else { kind }))
}

/// Tallies by type, of a sentence or a corpus. They add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByType(pub BTreeMap<String, Tally>);

impl ByType {
    /// One sentence's.
    pub fn sentence<S: AsRef<str>>(gold: &[S], predicted: &[S]) -> Result<ByType, TagError> {
        assert_eq!(gold.len(), predicted.len(), "entities: tokens");
        let (gold, predicted) = (entities(gold)?, entities(predicted)?);
        let mut tallies = ByType::default();
        for entity in &gold {
            tallies.of(entity.kind).gold += 1;
        }
        // Two entities of a sentence share no token: one that begins where another does is either
        // the same or wrong.
        for entity in &predicted {
            let twin = gold.binary_search_by_key(&entity.tokens.start, |g| g.tokens.start);
            let is_right = twin.is_ok_and(|i| gold[i] == *entity);
            let tally = tallies.of(entity.kind);
            tally.predicted += 1;
            tally.correct += u64::from(is_right);
        }
        Ok(tallies)
    }

    /// All types together: its `scores()` are seqeval's micro average.
    pub fn total(&self) -> Tally {
        self.0.values().copied().sum()
    }

    fn of(&mut self, kind: &str) -> &mut Tally {
        self.0.entry(kind.into()).or_default()
    }
}

impl AddAssign for ByType {
    fn add_assign(&mut self, other: ByType) {
        for (kind, tally) in other.0 {
            *self.0.entry(kind).or_default() += tally;
        }
    }
}

impl Sum for ByType {
    fn sum<I: Iterator<Item = ByType>>(sentences: I) -> ByType {
        added(sentences)
    }
}
