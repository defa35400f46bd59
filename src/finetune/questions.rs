//! Questions whose answers are spans of a context: SQuAD's JSON (1.1 and 2.0), or rows.
//!
//! ```text
//! {"question": …, "context": …, "answer": "Oslo", "answer_start": 17}     one answer
//! {"question": …, "context": …, "answers": {"text": […], "answer_start": […]}}   any of these
//! ```
//! Starts count characters; where there is none, the answer is where it first occurs. No answer, an
//! empty one or an empty list says that the context has none.
//!
//! A context too long for a sequence is read in windows that overlap by `stride` tokens, as
//! transformers' run_qa has it: one that does not hold the whole answer is held to its first token,
//! which stands for none.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::examples::{Columns, Example, ExampleError, Gold, Sequence};
use super::frame::{Frame, ids};
use super::table::{Record, Table, TableError};
use crate::data::{IGNORE, files};

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// In its file, from 1; of SQuAD's JSON its number there.
    pub line: u64,
    pub question: String,
    pub context: String,
    /// None where the context has no answer; an empty one in the file says so, too.
    pub answers: Vec<Answer>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answer {
    pub text: String,
    /// The character of the context that it begins with.
    #[serde(rename = "answer_start")]
    pub start: Option<usize>,
}

/// The questions of a file.
#[derive(Debug, Clone)]
pub struct Questions {
    pub path: PathBuf,
    pub questions: Vec<Question>,
}

impl Questions {
    /// # Errors
    /// A file that cannot be read or has no question; a row without its columns.
    pub fn read(path: &Path, columns: &Columns) -> Result<Questions, ExampleError> {
        let mut questions = match path.extension().is_some_and(|extension| extension == "json") {
            true => squad(path)?,
            false => rows(&Table::read(path)?, columns)?,
        };
        for question in &mut questions {
            question.answers.retain(|answer| !answer.text.trim().is_empty());
        }
        match questions.is_empty() {
            true => Err(TableError::Empty(path.into()).into()),
            false => Ok(Questions { path: path.into(), questions }),
        }
    }
}

#[derive(Deserialize)]
struct Squad {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    question: String,
    #[serde(default)]
    answers: Vec<Answer>,
    #[serde(default)]
    is_impossible: bool,
}

fn squad(path: &Path) -> Result<Vec<Question>, ExampleError> {
    let io = |source| TableError::Io { path: path.into(), source };
    let text = files::read_text(path).map_err(io)?;
    let wrong =
        |e: serde_json::Error| ExampleError::Squad { path: path.into(), why: e.to_string() };
    let squad: Squad = serde_json::from_slice(&text).map_err(wrong)?;
    let mut questions = Vec::new();
    for Paragraph { context, qas } in squad.data.into_iter().flat_map(|a| a.paragraphs) {
        for Asked { question, answers, is_impossible } in qas {
            questions.push(Question {
                line: questions.len() as u64 + 1,
                question,
                context: context.clone(),
                answers: if is_impossible { vec![] } else { answers },
            });
        }
    }
    Ok(questions)
}

fn rows(table: &Table, columns: &Columns) -> Result<Vec<Question>, ExampleError> {
    let context = columns.pair.as_deref().expect("a question's columns have a context");
    let question = |record: &Record| {
        Ok(Question {
            line: record.line,
            question: table.text(record, &columns.text)?,
            context: table.text(record, context)?,
            answers: answers(table, record, &columns.label)?,
        })
    };
    table.records.iter().map(question).collect()
}

fn answers(table: &Table, record: &Record, column: &str) -> Result<Vec<Answer>, TableError> {
    const STARTS: &str = "answer_start";
    let wrong = |why| table.wrong(record, why);
    let start = |value: &Value| -> Result<Option<usize>, TableError> {
        let text = value.as_str().map(str::trim);
        let number = value.as_u64().or_else(|| text?.parse().ok()).map(|n| n as usize);
        match number {
            None if !value.is_null() && text != Some("") => {
                Err(wrong(format!("{STARTS} {value} is no number of a character")))
            }
            number => Ok(number),
        }
    };
    let value = table.value(record, column)?;
    // As Hugging Face's data sets have it: lists of texts and of their starts.
    let (texts, starts) = match value.as_object() {
        Some(lists) => (lists.get("text").unwrap_or(&Value::Null), lists.get(STARTS)),
        None => (value, record.get(STARTS)),
    };
    let texts = match texts {
        Value::Null => vec![],
        Value::String(text) => vec![text.clone()],
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).map(str::to_string).collect()
        }
        _ => return Err(wrong(format!("{column} is no answer and no list of answers"))),
    };
    let starts = match starts {
        Some(Value::Array(list)) => list.iter().map(start).collect::<Result<Vec<_>, _>>()?,
        Some(one) => vec![start(one)?],
        None => vec![],
    };
    let starts = starts.into_iter().chain(std::iter::repeat(None));
    Ok(texts.into_iter().zip(starts).map(|(text, start)| Answer { text, start }).collect())
}

impl Answer {
    /// The bytes of `context` that it is; none if it is not there.
    pub fn place(&self, context: &str) -> Option<Range<usize>> {
        let begin = match self.start {
            None => context.find(&self.text)?,
            Some(0) => 0,
            Some(start) => context.char_indices().nth(start)?.0,
        };
        context[begin..].starts_with(&self.text).then(|| begin..begin + self.text.len())
    }
}

/// What there is to say of a question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Remark {
    /// Its answer is not where it is said to be: nothing is learnt from it.
    pub astray: bool,
    /// The question took more than half of a sequence.
    pub cut: bool,
}

/// The example of a question; of its answers the first is learnt.
///
/// # Errors
/// See [`Frame`].
pub fn example(
    frame: &Frame,
    asked: Question,
    stride: usize,
) -> Result<(Example, Remark), ExampleError> {
    let Question { line, question, context, answers } = asked;
    let room = frame.room(2)?;
    let mut first = ids(&frame.pieces(question.trim_start())?);
    let cut = first.len() > room / 2;
    first.truncate(room / 2);
    let room = room - first.len();
    let pieces = frame.pieces(&context)?;
    let place = answers.first().map(|answer| answer.place(&context));
    let mut sequences = Vec::new();
    for window in windows(pieces.len(), room, stride) {
        let pieces = &pieces[window];
        let mut sequence = frame.sequence(&first, Some(&ids(pieces)))?;
        sequence.spans = vec![None; sequence.ids.len()];
        let at = frame.last_at(Some(first.len()));
        for (span, piece) in sequence.spans[at..].iter_mut().zip(pieces) {
            *span = Some(piece.bytes.clone());
        }
        sequence.targets = match &place {
            None => vec![0, 0],
            Some(None) => vec![IGNORE, IGNORE],
            Some(Some(place)) => {
                ends(&sequence, place).unwrap_or([0, 0]).map(|end| end as i32).to_vec()
            }
        };
        sequences.push(sequence);
    }
    let gold = Gold::Answers(answers.into_iter().map(|answer| answer.text).collect());
    let remark = Remark { astray: place.is_some_and(|place| place.is_none()), cut };
    Ok((Example { line, text: context, question: Some(question), sequences, gold }, remark))
}

/// The windows of `room` that cover `tokens`, each but the first with `stride` of the one before it
/// (or with half of them, where that is less).
pub fn windows(tokens: usize, room: usize, stride: usize) -> Vec<Range<usize>> {
    let step = room - stride.min(room / 2);
    let last = tokens.saturating_sub(room).div_ceil(step);
    (0..=last).map(|i| i * step..(i * step + room).min(tokens)).collect()
}

/// The first and the last token of `place`, if all of it is in the sequence.
pub fn ends(sequence: &Sequence, place: &Range<usize>) -> Option<[usize; 2]> {
    let spans = || sequence.spans.iter().enumerate().filter_map(|(i, s)| Some((i, s.as_ref()?)));
    // The last token that begins no later, the first that ends no earlier.
    let (first, _) = spans().take_while(|(_, span)| span.start <= place.start).last()?;
    let (last, _) = spans().find(|(_, span)| span.end >= place.end)?;
    (first <= last).then_some([first, last])
}

/// How answers are found among tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decoding {
    /// Of beginnings, of ends, and of spans, those that are looked at.
    pub best: usize,
    /// Tokens of an answer at most.
    pub longest: usize,
    /// No answer is given where none is likelier by more than this; always one without it.
    pub threshold: Option<f64>,
}

impl Default for Decoding {
    /// run_qa's, of data where each question has an answer.
    fn default() -> Self {
        Decoding { best: 20, longest: 30, threshold: None }
    }
}

/// A span of the context.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub bytes: Range<usize>,
    /// The sum of both ends' logits.
    pub score: f64,
}

/// What a model found.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The best first.
    pub spans: Vec<Found>,
    /// The score of there being no answer: the least of all windows', as one is enough to find it.
    pub null: f64,
    pub threshold: Option<f64>,
}

impl Decoded {
    /// How much likelier no answer is than the best one [nats].
    pub fn doubt(&self) -> f64 {
        self.spans.first().map_or(f64::INFINITY, |best| self.null - best.score)
    }

    /// The answer, if one is given.
    pub fn answer(&self) -> Option<&Found> {
        let doubted = self.threshold.is_some_and(|threshold| self.doubt() > threshold);
        self.spans.first().filter(|_| !doubted)
    }

    /// Of the answer (or of there being none) among all that was looked at.
    pub fn probability(&self) -> f64 {
        let null = self.threshold.map(|_| self.null);
        let scores = || self.spans.iter().map(|span| span.score).chain(null);
        let top = scores().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores().map(|score| (score - top).exp()).sum();
        let said = self.answer().map_or(self.null, |answer| answer.score);
        if total > 0.0 { (said - top).exp() / total } else { 1.0 }
    }
}

/// The best spans by `logits` [tokens of all sequences, 2], as run_qa has it.
pub fn decode(sequences: &[Sequence], logits: &[f64], how: &Decoding) -> Decoded {
    let mut spans = Vec::new();
    let (mut null, mut rest) = (f64::INFINITY, logits);
    for sequence in sequences {
        let (now, after) = rest.split_at(2 * sequence.ids.len());
        rest = after;
        null = null.min(now[0] + now[1]);
        let ends = |which: usize| best(now, which, how.best);
        for start in ends(0) {
            for &end in ends(1).iter().filter(|&&end| end >= start && end - start < how.longest) {
                if let (Some(first), Some(last)) = (&sequence.spans[start], &sequence.spans[end]) {
                    let score = now[2 * start] + now[2 * end + 1];
                    spans.push(Found { bytes: first.start..last.end, score });
                }
            }
        }
    }
    spans.sort_by(|a, b| b.score.total_cmp(&a.score));
    // That there is none takes a place among them.
    let better = spans.iter().filter(|span| span.score >= null).count();
    let taken = usize::from(how.threshold.is_some() && better < how.best);
    spans.truncate(how.best - taken);
    Decoded { spans, null, threshold: how.threshold }
}

/// The tokens with the largest logits, of starts (0) or of ends (1).
fn best(logits: &[f64], which: usize, count: usize) -> Vec<usize> {
    let mut tokens: Vec<usize> = (0..logits.len() / 2).collect();
    tokens.sort_by(|a, b| logits[2 * b + which].total_cmp(&logits[2 * a + which]));
    tokens.truncate(count);
    tokens
}

/// Whether any question has no answer.
pub fn some_unanswerable(examples: &[Example]) -> bool {
    let none = |gold: &Gold| matches!(gold, Gold::Answers(answers) if answers.is_empty());
    examples.iter().any(|example| none(&example.gold))
}
