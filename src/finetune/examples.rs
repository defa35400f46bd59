//! Examples: what a model is given to read, and what is right.

use std::ops::Range;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::table::TableError;
use crate::data::IGNORE;
use crate::data::tokenizer::TokenizerError;
use crate::model::arch::TaskKind;

/// Which columns hold what.
#[derive(Debug, Clone)]
pub struct Columns {
    /// A text, the words of a sentence, a question or a prompt.
    pub text: String,
    /// The second of two texts: a question's context.
    pub pair: Option<String>,
    /// What is to be told of it.
    pub label: String,
}

impl Columns {
    /// Those that were named for text, pair and label, or a task's own; without one completions'.
    pub fn of_task(kind: Option<TaskKind>, named: [Option<&str>; 3]) -> Columns {
        let own = match kind {
            Some(TaskKind::Classes | TaskKind::Flags | TaskKind::Values) => ["text", "", "label"],
            Some(TaskKind::Tokens) => ["tokens", "", "labels"],
            Some(TaskKind::Spans) => ["question", "context", "answer"],
            None => ["prompt", "", "completion"],
        };
        let [text, pair, label] = [0, 1, 2].map(|i| named[i].unwrap_or(own[i]).to_string());
        Columns { text, pair: Some(pair).filter(|pair| !pair.is_empty()), label }
    }
}

/// Tokens, ready for the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sequence {
    pub ids: Vec<u32>,
    /// Token types, as many as `ids`.
    pub types: Vec<i32>,
    /// What the loss holds the model to, as [`crate::data::Batch`] has it, but of a language model
    /// for every token; empty where nobody knows.
    pub targets: Vec<i32>,
    pub reals: Vec<f64>,
    /// By token, the bytes of the example's text that an answer there means: of a word's first
    /// token the word, of a context's token its own. Empty where answers are of whole sequences.
    pub spans: Vec<Option<Range<usize>>>,
}

/// What is right for an example.
#[derive(Debug, Clone, PartialEq)]
pub enum Gold {
    Class(usize),
    Flags(Vec<bool>),
    Value(f64),
    /// Where the words stand in the text, and their classes.
    Words(Vec<Range<usize>>, Vec<usize>),
    /// Any of these; none if the text has no answer.
    Answers(Vec<String>),
    /// The text itself.
    Completion,
}

/// A row, a sentence or a question, ready for the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Where it stands in its file, from 1; of SQuAD's JSON, the question's number.
    pub line: u64,
    /// For people; and what `spans` are of.
    pub text: String,
    /// The question that is asked of `text`.
    pub question: Option<String>,
    /// One, but of what is too long for one.
    pub sequences: Vec<Sequence>,
    pub gold: Gold,
}

/// Examples of a file.
#[derive(Debug, Default)]
pub struct Examples {
    pub examples: Vec<Example>,
    /// What was cut or cannot be learnt, counted, in words.
    pub notes: Vec<String>,
}

/// Why data cannot become examples.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("the tokenizer has no {0} token, which {1} needs: give a model with its own tokenizer")]
    Special(&'static str, &'static str),
    #[error(
        "id {id} is beyond the vocabulary of {vocab}: the tokenizer is not this model's; give the \
         folder its own, or have the model take this one's with --tokenizer"
    )]
    Vocabulary { id: u32, vocab: usize },
    #[error("--longest {0} leaves no room for text: give more")]
    Longest(usize),
    #[error("the rows have one label alone, {0:?}: there is nothing to learn")]
    OneLabel(String),
    #[error("{path} is not SQuAD's JSON, {{\"data\": [{{\"paragraphs\": …}}]}}: {why}")]
    Squad { path: PathBuf, why: String },
    #[error("{0}: no question's answer is in its context: there is nothing to learn")]
    NoAnswer(PathBuf),
}

impl Sequence {
    /// Tokens that the loss is about.
    pub fn counted(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORE).count()
    }
}

impl Gold {
    /// What is right, for people; `labels` are the names of the outputs.
    pub fn shown(&self, labels: &[String]) -> Value {
        match self {
            Gold::Class(class) => json!(labels[*class]),
            Gold::Flags(flags) => {
                let named = labels.iter().zip(flags).filter(|(_, flag)| **flag);
                json!(named.map(|(label, _)| label).collect::<Vec<_>>())
            }
            Gold::Value(value) => json!(value),
            Gold::Words(_, classes) => {
                json!(classes.iter().map(|&class| &labels[class]).collect::<Vec<_>>())
            }
            Gold::Answers(answers) => json!(answers),
            Gold::Completion => Value::Null,
        }
    }
}
