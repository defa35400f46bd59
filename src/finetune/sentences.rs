//! Sentences whose words have a label each: from `.jsonl`, or from lines as CoNLL's.
//!
//! ```text
//! {"tokens": ["Alice", "sleeps"], "labels": ["B-PER", "O"]}        Alice  B-PER
//!                                                                  sleeps O
//!                                                                  (an empty line)
//! ```
//! A word's label is its first token's; its other tokens have none. Words are read with a space
//! between them. What is too long for a sequence goes on in another, from the next word on.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::examples::{Columns, Example, ExampleError, Gold, Sequence};
use super::frame::Frame;
use super::rows::{in_order, place};
use super::table::{Table, TableError};
use crate::data::tokenizer::Piece;
use crate::data::{IGNORE, files};

/// A sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentence {
    /// Of its first word.
    pub line: u64,
    pub words: Vec<String>,
    /// As many.
    pub labels: Vec<String>,
}

/// The sentences of a file.
#[derive(Debug, Clone)]
pub struct Sentences {
    pub path: PathBuf,
    pub sentences: Vec<Sentence>,
}

impl Sentences {
    /// # Errors
    /// A file that cannot be read or has no sentence; words and labels that are not as many, a line
    /// without a label; its line is named.
    pub fn read(path: &Path, columns: &Columns) -> Result<Sentences, TableError> {
        let sentences = match path.extension().is_some_and(|extension| extension == "jsonl") {
            true => lists(path, columns)?,
            false => lines(path)?,
        };
        match sentences.is_empty() {
            true => Err(TableError::Empty(path.into())),
            false => Ok(Sentences { path: path.into(), sentences }),
        }
    }

    /// The labels there are.
    ///
    /// # Errors
    /// Fewer than two.
    pub fn labels(&self) -> Result<Vec<String>, ExampleError> {
        let all = self.sentences.iter().flat_map(|sentence| sentence.labels.clone());
        match &in_order(all.collect())[..] {
            [only] => Err(ExampleError::OneLabel(only.clone())),
            labels => Ok(labels.to_vec()),
        }
    }

    /// The example of a sentence, and the words that are longer than a sequence.
    ///
    /// # Errors
    /// A label that is none of `labels`, an id beyond the vocabulary.
    pub fn example(
        &self,
        sentence: &Sentence,
        frame: &Frame,
        labels: &[String],
    ) -> Result<(Example, usize), ExampleError> {
        let Sentence { line, words, labels: named } = sentence;
        let path = self.path.clone();
        let wrong = |why| TableError::Row { path: path.clone(), line: *line, why };
        let classes = named.iter().map(|name| place(labels, name, wrong));
        let classes = classes.collect::<Result<Vec<usize>, _>>()?;
        let (text, words) = joined(words);
        example(frame, *line, text, words, classes)
    }
}

fn lists(path: &Path, columns: &Columns) -> Result<Vec<Sentence>, TableError> {
    let table = Table::read(path)?;
    let sentence = |record| {
        let words = table.names(record, &columns.text)?;
        let labels = table.labels(record, &columns.label)?;
        if words.len() != labels.len() {
            let (words, labels) = (words.len(), labels.len());
            return Err(table.wrong(record, format!("{words} words, but {labels} labels")));
        }
        Ok(Sentence { line: record.line, words, labels })
    };
    table.records.iter().map(sentence).filter(|s| s.as_ref().map_or(true, has_words)).collect()
}

fn has_words(sentence: &Sentence) -> bool {
    !sentence.words.is_empty()
}

/// Of each line the first field is the word, the last the label.
fn lines(path: &Path) -> Result<Vec<Sentence>, TableError> {
    let io = |source| TableError::Io { path: path.into(), source };
    let reader = BufReader::new(File::open(path).map_err(io)?);
    let mut sentences = Vec::new();
    let mut now = Sentence { line: 0, words: vec![], labels: vec![] };
    for line in files::lines(reader) {
        let (line, text) = line.map_err(io)?;
        if text.trim().is_empty() {
            sentences.push(std::mem::replace(
                &mut now,
                Sentence { line: 0, words: vec![], labels: vec![] },
            ));
            continue;
        }
        let fields: Vec<&str> = match text.contains('\t') {
            true => text.split('\t').map(str::trim).collect(),
            false => text.split_whitespace().collect(),
        };
        let (word, label) = match fields[..] {
            [word, .., label] if !label.is_empty() => (word, label),
            _ => {
                let why = "a word and no label: write them with a tab or a space between".into();
                return Err(TableError::Row { path: path.into(), line, why });
            }
        };
        // CoNLL-2003 has such lines between documents.
        if word != "-DOCSTART-" {
            now.line = if now.words.is_empty() { line } else { now.line };
            now.words.push(word.into());
            now.labels.push(label.into());
        }
    }
    sentences.push(now);
    sentences.retain(has_words);
    Ok(sentences)
}

/// Words with spaces between, and where they stand.
pub fn joined(words: &[String]) -> (String, Vec<Range<usize>>) {
    let mut text = String::new();
    let mut places = Vec::with_capacity(words.len());
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        places.push(text.len()..text.len() + word.len());
        text.push_str(word);
    }
    (text, places)
}

/// The words of a text as its tokenizer divides it.
pub fn words(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.bytes.is_empty()) {
        match words.last_mut().filter(|_| !piece.begins) {
            Some(word) => word.end = piece.bytes.end,
            None => words.push(piece.bytes.clone()),
        }
    }
    words
}

/// The example of words at such places of a text; with their classes, or with none. And how many
/// words were cut, being longer than a sequence.
///
/// # Errors
/// See [`Frame`].
pub fn example(
    frame: &Frame,
    line: u64,
    text: String,
    words: Vec<Range<usize>>,
    classes: Vec<usize>,
) -> Result<(Example, usize), ExampleError> {
    let room = frame.room(1)?;
    let pieces = frame.pieces(&text)?;
    let mut cut = 0;
    let mut sequences = Vec::new();
    let mut held: Vec<(u32, Option<usize>)> = Vec::new();
    let mut rest = &pieces[..];
    for (i, word) in words.iter().enumerate() {
        // Tokens before the word, of no word, go unread; but a token of the space before it is
        // its first.
        let before = rest.iter().take_while(|piece| piece.bytes.start < word.start).count();
        let own = rest[before..].iter().take_while(|piece| piece.bytes.start < word.end).count();
        let tokens = &rest[before..before + own];
        rest = &rest[before + own..];
        cut += usize::from(tokens.len() > room);
        let tokens = &tokens[..tokens.len().min(room)];
        if held.len() + tokens.len() > room {
            sequences.push(sequence(frame, &held, &words, &classes)?);
            held.clear();
        }
        let marked = tokens.iter().enumerate();
        held.extend(marked.map(|(at, piece)| (piece.id, (at == 0).then_some(i))));
    }
    if !held.is_empty() || sequences.is_empty() {
        sequences.push(sequence(frame, &held, &words, &classes)?);
    }
    let gold = Gold::Words(words, classes);
    Ok((Example { line, text, question: None, sequences, gold }, cut))
}

/// Tokens, each first one of a word with the word's number.
fn sequence(
    frame: &Frame,
    held: &[(u32, Option<usize>)],
    words: &[Range<usize>],
    classes: &[usize],
) -> Result<Sequence, ExampleError> {
    let ids: Vec<u32> = held.iter().map(|(id, _)| *id).collect();
    let mut sequence = frame.sequence(&ids, None)?;
    let tokens = sequence.ids.len();
    sequence.spans = vec![None; tokens];
    sequence.targets = vec![IGNORE; if classes.is_empty() { 0 } else { tokens }];
    for (at, (_, word)) in (frame.last_at(None)..).zip(held) {
        let Some(word) = *word else { continue };
        sequence.spans[at] = Some(words[word].clone());
        if let Some(&class) = classes.get(word) {
            sequence.targets[at] = class as i32;
        }
    }
    Ok(sequence)
}
