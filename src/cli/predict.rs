//! `warpwright predict`: new text, labelled.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::device::{DeviceArgs, OnDevice};
use super::finetune::AnswerArgs;
use super::{lines, remarks, say};
use crate::device::Device;
use crate::finetune::examples::Columns;
use crate::finetune::infer::{Ask, Labeller, Reading};
use crate::finetune::questions::Questions;
use crate::finetune::table::{Record, Table};
use crate::model::arch::TaskKind;

/// Label new text by a finetuned model
///
/// Writes a JSON line for each: the likeliest class and all probabilities; the labels above one
/// half; the number; the entities among the words (or each word, where labels are no tags of
/// entities); the context's answer to the question, how likely it is, and the doubt that there is
/// one [nats]. Places count characters.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    warpwright predict --model runs/finetune \"A delight from start to finish.\"\n  \
    warpwright predict --model runs/finetune --input lines.txt > labels.jsonl\n  \
    warpwright predict --model runs/pairs --input new.csv --text question1 --pair question2\n  \
    warpwright predict --model runs/answers --with \"$(cat page.txt)\" \"Who wrote it?\"\n  \
    warpwright predict --model runs/answers --input dev-v2.0.json --null-threshold 0")]
pub struct PredictArgs {
    /// A folder that `warpwright finetune` wrote, or any of transformers' with a task's head
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// A text a line (- for standard input); or rows as .csv, .tsv or .jsonl, or SQuAD's .json
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub input: Option<PathBuf>,
    /// Of rows: the column of the text, the question or the words [default: text or question;
    /// of words tokens, if there is one]
    #[arg(id = "text_column", long = "text", value_name = "COLUMN", requires = "input")]
    #[arg(conflicts_with = "text")]
    pub text_column: Option<String>,
    /// Of rows: the column of a second text [default: of questions context]
    #[arg(long, value_name = "COLUMN", requires = "input", conflicts_with = "text")]
    pub pair: Option<String>,
    /// The second text of every TEXT; of questions the context
    #[arg(long, value_name = "TEXT", conflicts_with = "pair")]
    pub with: Option<String>,
    /// Tokens of a sequence, special ones included [default: what the model takes, 512 at most].
    /// Longer texts are cut; sentences and contexts go on in another
    #[arg(long, value_name = "TOKENS", default_value_t = 512, hide_default_value = true)]
    pub longest: usize,
    #[command(flatten)]
    pub answers: AnswerArgs,
    #[command(flatten)]
    pub on: DeviceArgs,
    #[arg(required_unless_present = "input")]
    pub text: Vec<String>,
}

/// Texts that are read before they are labelled together.
const AT_A_TIME: usize = 256;

/// Prints what the model says.
pub fn run(args: PredictArgs) -> Result<()> {
    args.on.run(&args.model.clone(), args)
}

impl OnDevice for PredictArgs {
    type Done = ();

    fn run_on<D: Device>(self, dev: D) -> Result<()> {
        label(dev, self)
    }
}

fn label<D: Device>(dev: D, args: PredictArgs) -> Result<()> {
    args.answers.check()?;
    let labeller = Labeller::open(dev, &args.model)?;
    remarks(&labeller.report, &labeller.tokenizer, &labeller.model.arch);
    let kind = labeller.task.kind;
    let how = Reading {
        longest: args.longest,
        stride: args.answers.stride,
        decoding: args.answers.decoding(),
    };
    let mut cut = 0;
    let mut tell = |asked: &[Ask]| -> Result<()> {
        let (said, was_cut) = labeller.label(asked, &how)?;
        cut += was_cut;
        for (ask, said) in asked.iter().zip(said) {
            let mut line = shown(ask, kind);
            line.extend(said);
            say(serde_json::to_string(&line)?)?;
        }
        Ok(())
    };
    match args.input.as_deref().filter(|path| is_of_rows(path)) {
        Some(path) => {
            let asked = rows(path, kind, &args)?;
            asked.chunks(AT_A_TIME).try_for_each(&mut tell)?;
        }
        None => lines(args.input.as_deref(), args.text, AT_A_TIME, |texts| {
            let ask = |text: &String| Ask::Text(text.clone(), args.with.clone());
            tell(&texts.iter().map(ask).collect::<Vec<_>>())
        })?,
    }
    if cut > 0 {
        eprintln!("{cut} texts were cut to {} tokens, or to what the model takes", args.longest);
    }
    Ok(())
}

fn is_of_rows(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("csv" | "tsv" | "jsonl" | "json"))
}

/// What is asked, as it stands in its line of output; a context, which may be long, does not.
fn shown(ask: &Ask, kind: TaskKind) -> Map<String, Value> {
    let pairs = match ask {
        Ask::Text(text, _) if kind == TaskKind::Spans => vec![("question", json!(text))],
        Ask::Text(text, None) => vec![("text", json!(text))],
        Ask::Text(text, Some(pair)) => vec![("text", json!(text)), ("pair", json!(pair))],
        Ask::Words(words) => vec![("text", json!(words.join(" ")))],
    };
    pairs.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// The rows of a file.
fn rows(path: &Path, kind: TaskKind, args: &PredictArgs) -> Result<Vec<Ask>> {
    if path.extension().is_some_and(|extension| extension == "json") {
        ensure!(kind == TaskKind::Spans, "{} is of questions, the model not", path.display());
        let none = Columns { text: String::new(), pair: None, label: String::new() };
        let questions = Questions::read(path, &none)?.questions.into_iter();
        return Ok(questions.map(|q| Ask::Text(q.question, Some(q.context))).collect());
    }
    let table = Table::read(path)?;
    let has = |column: &str| table.records[0].get(column).is_some();
    let own = match kind {
        TaskKind::Spans => "question",
        TaskKind::Tokens if has("tokens") => "tokens",
        _ => "text",
    };
    let column = args.text_column.as_deref().unwrap_or(own);
    let context = (kind == TaskKind::Spans && args.with.is_none()).then_some("context");
    let pair = args.pair.as_deref().or(context);
    let ask = |record: &Record| -> Result<Ask> {
        if record.get(column).is_some_and(Value::is_array) {
            if kind != TaskKind::Tokens {
                bail!(table.wrong(record, format!("{column} is a list of words, not a text")));
            }
            return Ok(Ask::Words(table.names(record, column)?));
        }
        let second = pair.map(|pair| table.text(record, pair)).transpose()?;
        Ok(Ask::Text(table.text(record, column)?, second.or_else(|| args.with.clone())))
    };
    table.records.iter().map(ask).collect()
}
