//! Few-shot prompts: a question filled into a template, after some that are answered.
//!
//! ```text
//! {template of shot 1} its completion      shots: drawn for each question anew
//!
//! {template of shot 2} its completion
//!
//! {template of the question}               the prompt ends here; completions are judged after it
//! ```
//!
//! As in lm-evaluation-harness, the blank between a prompt and a completion counts with the
//! completion, prompt and completion are tokenised together, and the completion's tokens are those
//! after as many as the prompt has by itself.

use std::path::PathBuf;

use serde_json::Value;

use super::likelihood::Asked;
use crate::data::order::Permutation;
use crate::device::Device;
use crate::finetune::table::{Record, Table, TableError};
use crate::predict::{PredictError, Predictor};
use crate::rng::Philox;

/// Between shots.
const BETWEEN: &str = "\n\n";

/// Why rows cannot become prompts, or prompts be judged.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(
        "the template {0:?} has a {{ without a }}: write {{column}} where its text is to stand"
    )]
    Brace(String),
    #[error("{shots} shots are asked for, but {path} has {there} rows{but}")]
    Shots { shots: usize, path: String, there: usize, but: &'static str },
    #[error("{path}, line {line}: {source}")]
    Judged { path: PathBuf, line: u64, source: Box<PredictError> },
    #[error("{path}, line {line}: {completion:?} has no token of its own after its prompt")]
    NoToken { path: PathBuf, line: u64, completion: String },
    #[error(
        "{path}, line {line}: nothing stands before the first token, and the tokenizer has no end \
         of text to put there: give the question some text"
    )]
    NothingBefore { path: PathBuf, line: u64 },
}

/// Text with columns of a row in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Text, then the column after it, if any.
    parts: Vec<(String, Option<String>)>,
}

impl Template {
    /// Reads `Q: {question}\nA:`, where `\n` may be a line break or those two characters.
    pub fn parse(text: &str) -> Result<Template, PromptError> {
        let text = text.replace("\\n", "\n");
        let (mut rest, mut parts) = (text.as_str(), Vec::new());
        while let Some((before, after)) = rest.split_once('{') {
            let (column, after) =
                after.split_once('}').ok_or_else(|| PromptError::Brace(text.clone()))?;
            parts.push((before.to_string(), Some(column.to_string())));
            rest = after;
        }
        parts.push((rest.to_string(), None));
        Ok(Template { parts })
    }

    fn fill(&self, table: &Table, record: &Record) -> Result<String, TableError> {
        let mut filled = String::new();
        for (text, column) in &self.parts {
            filled.push_str(text);
            if let Some(column) = column {
                filled.push_str(&table.text(record, column)?);
            }
        }
        Ok(filled)
    }
}

/// A question with its possible completions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In its file, from 1.
    pub line: u64,
    pub prompt: String,
    pub completions: Vec<String>,
    /// Which of them is right.
    pub right: usize,
}

/// Where the completions of a row are.
#[derive(Debug, Clone)]
pub enum Answers {
    /// A column with a list of texts, and one with the right one's number (from 0) or text.
    Choices { choices: String, answer: String },
    /// A column with the only one.
    One(String),
}

/// All rows of a table as questions.
///
/// # Errors
/// A missing column; choices that are not a list of two texts or more; an answer that is none of
/// them; the line is named.
pub fn questions(
    table: &Table,
    template: &Template,
    answers: &Answers,
) -> Result<Vec<Question>, PromptError> {
    let question = |record: &Record| {
        let prompt = template.fill(table, record)?;
        let (completions, right) = match answers {
            Answers::One(column) => (vec![table.text(record, column)?], 0),
            Answers::Choices { choices, answer } => {
                let completions = texts(table, record, choices)?;
                let right = place(table, record, answer, &completions)?;
                (completions, right)
            }
        };
        Ok(Question { line: record.line, prompt, completions, right })
    };
    table.records.iter().map(question).collect()
}

fn texts(table: &Table, record: &Record, column: &str) -> Result<Vec<String>, TableError> {
    let value = table.value(record, column)?;
    let text = |value: &Value| value.as_str().map(str::to_string);
    let texts = value.as_array().and_then(|list| list.iter().map(text).collect::<Option<Vec<_>>>());
    texts.filter(|texts| texts.len() > 1).ok_or_else(|| {
        table.wrong(record, format!("{column} is {value}, not a list of two texts or more"))
    })
}

fn place(
    table: &Table,
    record: &Record,
    column: &str,
    choices: &[String],
) -> Result<usize, TableError> {
    let value = table.value(record, column)?;
    let found = match value {
        Value::String(text) => choices.iter().position(|choice| choice == text),
        value => value.as_u64().map(|number| number as usize).filter(|&i| i < choices.len()),
    };
    let wrong = || {
        let last = choices.len() - 1;
        table.wrong(record, format!("{column} is {value}, neither one of 0 to {last} nor a choice"))
    };
    found.ok_or_else(wrong)
}

/// How questions become prompts.
#[derive(Debug, Clone)]
pub struct Prompter {
    /// Where questions are from, for errors.
    pub path: PathBuf,
    /// What shots are drawn from; a question is never its own shot.
    pub pool: Vec<Question>,
    /// Where it is from, for errors.
    pub pool_path: String,
    pub shots: usize,
    pub seed: u64,
    /// Between a prompt and its completion.
    pub delimiter: String,
    /// Whether `<|endoftext|>` stands before a causal model's prompt, as in training here.
    pub begins: bool,
}

/// A prompt with one of its completions, in tokens.
pub struct Framed {
    pub asked: Asked,
    /// Whether the prompt's beginning was left away to fit the context.
    pub cut: bool,
}

impl Prompter {
    /// The prompt of question number `i` with its shots.
    pub fn prompt(&self, i: usize, question: &Question) -> Result<String, PromptError> {
        let n = self.pool.len() as u64;
        let order = (n > 0).then(|| Permutation::new(Philox::new(self.seed), i as u32, n));
        let drawn = order.iter().flat_map(|order| (0..n).map(|j| &self.pool[order.at(j) as usize]));
        let itself = |shot: &&Question| {
            (&shot.prompt, &shot.completions) != (&question.prompt, &question.completions)
        };
        let shots: Vec<&Question> = drawn.filter(itself).take(self.shots).collect();
        if shots.len() < self.shots {
            let but =
                if self.shots <= self.pool.len() { ", the question itself among them" } else { "" };
            let (shots, there, path) = (self.shots, self.pool.len(), self.pool_path.clone());
            return Err(PromptError::Shots { shots, path, there, but });
        }
        let mut prompt = String::new();
        for shot in shots {
            prompt += &shot.prompt;
            prompt += &self.delimiter;
            prompt += &shot.completions[shot.right];
            prompt += BETWEEN;
        }
        Ok(prompt + &question.prompt)
    }

    /// `prompt` and `completion` as a model reads them.
    ///
    /// # Errors
    /// A completion without a token, or longer than the model's context.
    pub fn frame<D: Device>(
        &self,
        predictor: &Predictor<D>,
        line: u64,
        prompt: &str,
        completion: &str,
    ) -> Result<Framed, PromptError> {
        let path = || self.path.clone();
        let judged = |source| PromptError::Judged { path: path(), line, source: Box::new(source) };
        let encode = |text: &str| {
            predictor.tokenizer.encode(text).map_err(|error| judged(PredictError::Tokenizer(error)))
        };
        let bare = prompt.trim_end();
        let completion = [&prompt[bare.len()..], &self.delimiter, completion].concat();
        let whole = encode(&[bare, &completion].concat())?;
        let own = encode(bare)?.len();
        if own >= whole.len() {
            return Err(PromptError::NoToken { path: path(), line, completion });
        }
        let arch = &predictor.model.arch;
        let specials = predictor.tokenizer.specials();
        let missing = |name| judged(PredictError::NoSpecial(name));
        let (first, last) = if arch.causal {
            (specials.eot.filter(|_| self.begins || own == 0), None)
        } else {
            let cls = specials.cls.ok_or_else(|| missing("[CLS]"))?;
            (Some(cls), Some(specials.sep.ok_or_else(|| missing("[SEP]"))?))
        };
        if arch.causal && first.is_none() && own == 0 {
            return Err(PromptError::NothingBefore { path: path(), line });
        }
        // A causal model's last token is predicted, not read.
        let (context, tokens) = (arch.context, whole.len() - own);
        let framed = usize::from(first.is_some()) + usize::from(last.is_some());
        let room = (context + usize::from(arch.causal)).saturating_sub(framed);
        if tokens + usize::from(first.is_none()) > room {
            return Err(judged(PredictError::TooLong { tokens, context }));
        }
        // Of a prompt that is too long the end stays, which is the question.
        let skip = whole.len().saturating_sub(room);
        let mut ids: Vec<u32> = first.into_iter().collect();
        ids.extend(&whole[skip..]);
        let scored = (ids.len() - tokens..ids.len()).collect();
        ids.extend(last);
        Ok(Framed { asked: Asked { ids, scored }, cut: skip > 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn table(text: &str) -> Table {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        let table = Table::read(&path).unwrap();
        Table { path: Path::new("rows.jsonl").into(), ..table }
    }

    fn choices() -> Answers {
        Answers::Choices { choices: "choices".into(), answer: "answer".into() }
    }

    #[test]
    fn templates_name_columns() {
        let table = table("{\"q\": \"Why?\", \"n\": 3}\n");
        let filled = |text: &str| {
            let template = Template::parse(text).unwrap();
            template.fill(&table, &table.records[0]).map_err(|e| e.to_string())
        };
        assert_eq!(filled("{n}. {q}\\nA:").unwrap(), "3. Why?\nA:");
        assert_eq!(filled("no column").unwrap(), "no column");
        assert!(filled("{p}").unwrap_err().contains("no column \"p\"; it has q, n"));
        assert!(Template::parse("{q").unwrap_err().to_string().contains("{ without a }"));
    }

    #[test]
    fn shots_are_drawn_by_seed_and_never_the_question() {
        let rows: String = (0..9)
            .map(|i| format!("{{\"q\": \"{i}?\", \"choices\": [\"a\", \"b\"], \"answer\": 1}}\n"))
            .collect();
        let template = Template::parse("{q}").unwrap();
        let pool = questions(&table(&rows), &template, &choices()).unwrap();
        let prompter = |shots, seed| Prompter {
            path: "rows.jsonl".into(),
            pool: pool.clone(),
            pool_path: "rows.jsonl".into(),
            shots,
            seed,
            delimiter: " ".into(),
            begins: true,
        };
        let prompt = |shots, seed, i: usize| prompter(shots, seed).prompt(i, &pool[i]).unwrap();
        assert_eq!(prompt(0, 1, 3), "3?");
        let two = prompt(2, 1, 3);
        assert!(two.ends_with("? b\n\n3?") && two.matches(" b\n\n").count() == 2, "{two}");
        assert_eq!(prompt(2, 1, 3), two);
        let all: Vec<String> = (0..9)
            .flat_map(|i| (1..9).map(move |s| (s, i)))
            .map(|(seed, i)| prompt(2, seed, i))
            .collect();
        assert!(all.iter().any(|prompt| !prompt.starts_with(&two[..2])));
        assert!((0..9).all(|i| !prompt(8, 5, i)[..40].contains(&format!("{i}?"))));
        let error = prompter(9, 1).prompt(0, &pool[0]).unwrap_err().to_string();
        assert!(error.contains("9 rows, the question itself among them"), "{error}");
    }

    #[test]
    fn rows_that_are_no_questions_say_where() {
        let template = Template::parse("{q}").unwrap();
        for (row, part) in [
            ("{\"q\": \"\", \"choices\": \"a\", \"answer\": 0}", "not a list of two texts"),
            ("{\"q\": \"\", \"choices\": [\"a\"], \"answer\": 0}", "not a list of two texts"),
            ("{\"q\": \"\", \"choices\": [\"a\", 1], \"answer\": 0}", "not a list of two texts"),
            ("{\"q\": \"\", \"choices\": [\"a\", \"b\"], \"answer\": 2}", "neither one of 0 to 1"),
            ("{\"q\": \"\", \"choices\": [\"a\", \"b\"], \"answer\": \"c\"}", "nor a choice"),
            ("{\"q\": \"\", \"choices\": [\"a\", \"b\"], \"answer\": -1}", "nor a choice"),
            ("{\"q\": null, \"choices\": [\"a\", \"b\"], \"answer\": 1}", "q is null"),
        ] {
            let table = table(&format!("\n{row}\n"));
            let why = questions(&table, &template, &choices()).unwrap_err().to_string();
            assert!(why.contains("rows.jsonl, line 2: ") && why.contains(part), "{row}: {why}");
        }
        let found = table("{\"q\": \"x\", \"choices\": [\"a\", \"b\"], \"answer\": \"b\"}\n");
        assert_eq!(questions(&found, &template, &choices()).unwrap()[0].right, 1);
    }
}
