//! Files of labelled data, by the kind of task: what labels they have, and their examples.

use std::path::Path;

use super::completions;
use super::examples::{Columns, Example, ExampleError, Examples};
use super::frame::Frame;
use super::questions::{self, Questions};
use super::rows::{self, Rows};
use super::sentences::Sentences;
use super::table::{Record, Table};
use crate::data::Tokenizer;
use crate::model::arch::{Arch, TaskKind};

/// A file that was read.
pub enum Data {
    Rows(Table),
    Sentences(Sentences),
    Questions(Questions),
}

impl Data {
    /// Reads a file for a kind of task; for none, completions.
    ///
    /// # Errors
    /// One that is not of that kind.
    pub fn read(
        path: &Path,
        kind: Option<TaskKind>,
        columns: &Columns,
    ) -> Result<Data, ExampleError> {
        Ok(match kind {
            Some(TaskKind::Tokens) => Data::Sentences(Sentences::read(path, columns)?),
            Some(TaskKind::Spans) => Data::Questions(Questions::read(path, columns)?),
            _ => Data::Rows(Table::read(path)?),
        })
    }

    /// The names of the outputs of a model that is to learn from it.
    ///
    /// # Errors
    /// A missing column; fewer than two classes.
    pub fn labels(&self, kind: TaskKind, columns: &Columns) -> Result<Vec<String>, ExampleError> {
        match (self, kind) {
            (_, TaskKind::Values) => Ok(vec![columns.label.clone()]),
            (Data::Rows(table), _) => rows::labels(table, &columns.label, kind),
            (Data::Sentences(sentences), _) => sentences.labels(),
            (Data::Questions(_), _) => Ok(vec!["start".into(), "end".into()]),
        }
    }
}

/// What makes a model's examples of data.
pub struct Reader<'a> {
    pub arch: &'a Arch,
    pub tokenizer: &'a Tokenizer,
    pub columns: &'a Columns,
    /// Tokens of a sequence at most, special ones included.
    pub longest: usize,
    /// Tokens that neighbouring windows of a context share.
    pub stride: usize,
}

impl Reader<'_> {
    /// All examples of a file.
    ///
    /// # Errors
    /// A missing column, a label that the model does not have, an id beyond the vocabulary, a
    /// special token that the tokenizer lacks, no answer that is in its context; the row is named.
    pub fn read(&self, path: &Path, data: Data) -> Result<Examples, ExampleError> {
        let frame = Frame::new(self.arch, self.tokenizer, self.longest)?;
        match data {
            Data::Rows(table) => self.rows(&frame, &table),
            Data::Sentences(sentences) => self.sentences(&frame, &sentences),
            Data::Questions(questions) => self.questions(&frame, path, questions),
        }
    }

    fn rows(&self, frame: &Frame, table: &Table) -> Result<Examples, ExampleError> {
        let eot = self.tokenizer.specials().eot;
        let Reader { columns, arch, .. } = *self;
        let example = |record: &Record| -> Result<(Example, bool), ExampleError> {
            match &arch.task {
                Some(task) => {
                    let rows = Rows { frame, columns, kind: task.kind, labels: &task.labels };
                    rows.example(table, record)
                }
                None => completions::example(frame, table, record, columns, eot),
            }
        };
        let mut found = Examples::default();
        let mut cut = 0;
        for record in &table.records {
            let (example, was_cut) = example(record)?;
            cut += usize::from(was_cut);
            found.examples.push(example);
        }
        let longest = frame.longest;
        found.note(cut, || format!("{cut} rows were cut to {longest} tokens"), self);
        Ok(found)
    }

    fn sentences(&self, frame: &Frame, read: &Sentences) -> Result<Examples, ExampleError> {
        let labels = self.arch.task.as_ref().map_or(&[][..], |task| &task.labels);
        let mut found = Examples::default();
        let mut cut = 0;
        for sentence in &read.sentences {
            let (example, words) = read.example(sentence, frame, labels)?;
            cut += words;
            found.examples.push(example);
        }
        let longest = frame.longest;
        found.note(cut, || format!("{cut} words were cut to {longest} tokens"), self);
        Ok(found)
    }

    fn questions(
        &self,
        frame: &Frame,
        path: &Path,
        read: Questions,
    ) -> Result<Examples, ExampleError> {
        let mut found = Examples::default();
        let (mut cut, mut astray) = (0, Vec::new());
        for question in read.questions {
            let (example, remark) = questions::example(frame, question, self.stride)?;
            cut += usize::from(remark.cut);
            astray.extend(remark.astray.then_some(example.line));
            found.examples.push(example);
        }
        if astray.len() == found.examples.len() {
            return Err(ExampleError::NoAnswer(path.into()));
        }
        if let Some(first) = astray.first() {
            let what =
                if path.extension().is_some_and(|e| e == "json") { "question" } else { "line" };
            found.notes.push(format!(
                "{} answers are not where they should be in their contexts, the first of {what} \
                 {first}: nothing is learnt from them",
                astray.len()
            ));
        }
        let longest = frame.longest;
        found.note(
            cut,
            || format!("{cut} questions took over half of {longest} tokens and were cut"),
            self,
        );
        Ok(found)
    }
}

impl Examples {
    /// Tells what was cut, and what could be done.
    fn note(&mut self, count: usize, what: impl FnOnce() -> String, reader: &Reader) {
        if count > 0 {
            let more = match reader.longest < reader.arch.context {
                true => "--longest takes more",
                false => "the model takes no more: --positions makes it",
            };
            self.notes.push(format!("{} ({more})", what()));
        }
    }
}
