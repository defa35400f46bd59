//! The README.md of a model that leaves this program, in the Hugging Face Hub's card format.
//!
//! YAML between two lines of `---`, then Markdown. Nothing is invented: every figure is one that a
//! run, a finetuning or an evaluation measured and wrote down, or that is counted in the data; what
//! nobody wrote down is said to be unknown.

mod data;
mod front;
mod results;
mod training;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::model_folder;
use crate::config::{Config, ConfigError};
use crate::data::files;
use crate::model::arch::{Arch, TaskKind};
use crate::model::params::Layout;
use crate::telemetry::format::count;
use crate::telemetry::{self, Record, metrics};

/// The card's name in a model's folder.
pub const FILE: &str = "README.md";

/// What no file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pub name: String,
    /// Of the model, by the Hub's name of it.
    pub license: Option<String>,
    /// By their ISO codes.
    pub languages: Vec<String>,
    /// The data's names on the Hub.
    pub datasets: Vec<String>,
    /// In words.
    pub data_license: Option<String>,
    /// The Hub's name of the model that this one was finetuned from.
    pub base: Option<String>,
    /// What `warpwright eval … --out` wrote of this model.
    pub evaluations: Vec<PathBuf>,
    /// What `warpwright bench step --json` wrote of this model.
    pub bench: Option<PathBuf>,
}

/// Why there is no card.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is not JSON ({source}): give what `warpwright {command}` wrote")]
    Json { path: PathBuf, source: serde_json::Error, command: &'static str },
    #[error("{path} has no {what}: give what `warpwright {command}` wrote")]
    Lacks { path: PathBuf, what: &'static str, command: &'static str },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Metrics(#[from] telemetry::Error),
}

/// Where a model comes from, with what was written down on the way.
pub enum Origin {
    /// A run of `pretrain`: its directory.
    Run(Box<Run>),
    /// `finetune`, and its results.
    Finetuned(Value),
    /// Nothing but a model.
    Unknown,
}

/// What a run's directory tells.
pub struct Run {
    config: Config,
    /// Where its tokens are.
    data: PathBuf,
    log: metrics::Log,
    /// Of the checkpoint that was taken.
    step: Option<u64>,
}

impl Run {
    /// The record of the last step that the model took.
    fn last(&self) -> Option<&metrics::TrainRecord> {
        self.log.records.iter().rev().find_map(|record| match record {
            Record::Train(train) if Some(train.step) == self.step => Some(train),
            _ => None,
        })
    }
}

impl Origin {
    /// Of the run or model that a user named.
    ///
    /// # Errors
    /// A configuration, a log or results that are damaged.
    pub fn of(path: &Path) -> Result<Origin, CardError> {
        let results = path.join("results.json");
        if path.join("config.toml").exists() {
            let config = Config::read(&path.join("config.toml"))?;
            let data = config.data.shards.clone().unwrap_or_else(|| path.join("data"));
            let log = match path.join(metrics::FILE) {
                log if log.exists() => metrics::read(&log)?,
                _ => metrics::Log::default(),
            };
            let state = model_folder(path).join("state.json");
            let step = match state.exists() {
                true => json(&state, "pretrain")?["progress"]["step"].as_u64(),
                false => None,
            };
            return Ok(Origin::Run(Box::new(Run { config, data, log, step })));
        }
        match results.exists() {
            true => Ok(Origin::Finetuned(json(&results, "finetune")?)),
            false => Ok(Origin::Unknown),
        }
    }
}

fn json(path: &Path, command: &'static str) -> Result<Value, CardError> {
    let bytes =
        std::fs::read(path).map_err(|source| CardError::Io { path: path.into(), source })?;
    let wrong = |source| CardError::Json { path: path.into(), source, command };
    serde_json::from_slice(&bytes).map_err(wrong)
}

impl Known {
    /// # Errors
    /// Evaluations or benches that are none.
    pub fn check(&self) -> Result<(), CardError> {
        self.evaluations.iter().try_for_each(|path| results::evaluated(path).map(drop))?;
        results::energy(&Origin::Unknown, self.bench.as_deref()).map(drop)
    }
}

/// Writes the card of the model in `folder`, of `arch`.
///
/// # Errors
/// Evaluations or benches that are none; a folder that cannot be written to.
pub fn write(folder: &Path, arch: &Arch, origin: &Origin, known: &Known) -> Result<(), CardError> {
    let path = folder.join(FILE);
    let card = render(arch, origin, known)?;
    files::write(&path, card.as_bytes()).map_err(|source| CardError::Io { path, source })
}

/// The card.
pub fn render(arch: &Arch, origin: &Origin, known: &Known) -> Result<String, CardError> {
    let mut measured = results::of(origin);
    for path in &known.evaluations {
        measured.push(results::evaluated(path)?);
    }
    let energy = results::energy(origin, known.bench.as_deref())?;
    let license = match &known.license {
        Some(license) => format!("License: {license}.\n\n"),
        None => "License: unknown; whoever publishes this model must state one.\n\n".into(),
    };
    let (counts, represented) = data::of(origin);
    let seeds = results::seeds(origin);
    Ok([
        front::matter(arch, known, &measured),
        format!("# {}\n\n{}\n\n{license}", known.name, summary(arch, origin, known)),
        format!("## Data\n\n{counts}{}", data::licenses(known)),
        format!("## Training\n\n{}", training::of(arch, origin)),
        format!("## Results\n\n{}{seeds}", results::tables(&measured)),
        format!("## Energy\n\n{energy}\n\n"),
        format!("## Limits and risks\n\n{}{represented}", limits(arch, origin)),
    ]
    .concat())
}

fn summary(arch: &Arch, origin: &Origin, known: &Known) -> String {
    let params = Layout::new(arch).table.params;
    let parameters = count(params.iter().map(|param| param.span.len as f64).sum());
    let family = front::family(arch);
    let what = match (&arch.task, arch.causal) {
        (Some(_), _) => format!("{} model", front::pipeline(arch).replace('-', " ")),
        (None, true) => "causal language model".into(),
        (None, false) => "masked language model".into(),
    };
    let from = match (origin, &known.base) {
        (Origin::Run(run), base) => match (run.config.init(), base) {
            (None, _) => "trained from random weights with warpwright".into(),
            (Some(_), Some(base)) => format!("trained further from {base} with warpwright"),
            (Some(init), None) => {
                format!("trained further from `{}` with warpwright", file_name(&init))
            }
        },
        (Origin::Finetuned(_), Some(base)) => format!("finetuned from {base} with warpwright"),
        (Origin::Finetuned(results), None) => match results["model"].as_str() {
            Some(model) => format!("finetuned from `{model}` with warpwright"),
            None => "finetuned with warpwright from a model unknown here".into(),
        },
        (Origin::Unknown, _) => "written by warpwright; how it was trained is unknown here".into(),
    };
    let Arch { layers, width, heads, context, vocab, .. } = arch;
    format!(
        "A {what} of {parameters} parameters ({family}, {layers} layers of width {width} with \
         {heads} heads, {context} tokens of context, a vocabulary of {vocab}), {from}."
    )
}

fn limits(arch: &Arch, origin: &Origin) -> String {
    let mut lines = vec![format!(
        "It reads {} tokens at most; what is longer must be cut or read in windows.",
        arch.context
    )];
    match &arch.task {
        None => lines.push(
            "It repeats what its data say, with their errors and prejudices, and nothing keeps it \
             to what is true."
                .into(),
        ),
        Some(task) => lines.push(match task.kind {
            TaskKind::Values => "It gives a number, whatever it is asked.".into(),
            TaskKind::Spans => answers(origin).into(),
            _ => format!(
                "It knows no answer beyond {}: whatever it is asked, it gives of these.",
                named(&task.labels)
            ),
        }),
    }
    if let Origin::Run(run) = origin {
        lines.extend(run.last().map(|train| {
            let tokens = count(train.tokens as f64);
            format!("It was trained on {tokens} tokens, repeats included.")
        }));
    }
    lines.push(
        "Nobody measured here how it treats groups of people, or what harm it can do.".into(),
    );
    bullets(&lines)
}

/// What to expect of a model that answers questions.
fn answers(origin: &Origin) -> &'static str {
    match origin {
        Origin::Finetuned(results) if results["null"].is_object() => {
            "It finds its answers in the text; that there is none it says where it is let \
             (`predict --null-threshold`), and is wrong about that too."
        }
        _ => "It finds its answers in the text, even where none is.",
    }
}

/// The first few of some labels.
fn named(labels: &[String]) -> String {
    const NAMED: usize = 12;
    let more = labels.len().saturating_sub(NAMED);
    let some = labels[..labels.len() - more].join(", ");
    if more > 0 { format!("{some} and {more} others") } else { some }
}

fn bullets(lines: &[String]) -> String {
    lines.iter().map(|line| format!("- {line}\n")).collect()
}

/// A table's rows, the first its head.
fn table(rows: &[Vec<String>]) -> String {
    // What would end a cell: names may hold anything.
    let cell = |text: &String| text.replace('|', "\\|").replace(['\n', '\r'], " ");
    let line = |cells: &Vec<String>| {
        format!("| {} |\n", cells.iter().map(cell).collect::<Vec<_>>().join(" | "))
    };
    let Some((head, rest)) = rows.split_first() else { return String::new() };
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    line(head) + &rule + &rest.iter().map(line).collect::<String>() + "\n"
}

/// What is left of a path where it leaves this machine.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
