//! The keys of `config.json` that describe a task's head.

use serde_json::{Map, Value, json};

use super::config::ConfigError;
use super::keys::{Keys, unsupported};
use crate::model::arch::{Arch, Family, Pooling, Task, TaskKind};

const SEQUENCES: &str = "ForSequenceClassification";
const TOKENS: &str = "ForTokenClassification";
const SPANS: &str = "ForQuestionAnswering";

/// The task of a `config.json`, if its class has one.
pub(super) fn read(k: &Keys, arch: &Arch) -> Result<Option<Task>, ConfigError> {
    if arch.family == Family::Custom {
        return Ok(arch.task.clone());
    }
    let classes = k.get("architectures").and_then(Value::as_array);
    let class = classes.and_then(|list| list.first()).and_then(Value::as_str).unwrap_or("");
    let labels = labels(k)?;
    let kind = match class {
        _ if class.ends_with(SEQUENCES) => problem(k, labels.len())?,
        _ if class.ends_with(TOKENS) => TaskKind::Tokens,
        _ if class.ends_with(SPANS) => TaskKind::Spans,
        _ => return Ok(None),
    };
    let labels = if kind == TaskKind::Spans { vec!["start".into(), "end".into()] } else { labels };
    let pooling = match arch.family {
        _ if !kind.is_of_sequences() => Pooling::First,
        Family::Gpt2 => Pooling::Last,
        Family::Modernbert => pooling(k)?,
        _ => Pooling::First,
    };
    let dropout = dropout(k, arch, kind)?;
    Ok(Some(Task { kind, labels, pooling, dropout: dropout.unwrap_or(0.0) }))
}

/// The dropout before a classifier of such a task, as transformers reads it; none where it has
/// none.
fn dropout(k: &Keys, arch: &Arch, kind: TaskKind) -> Result<Option<f64>, ConfigError> {
    let hidden = arch.dropout.hidden;
    Ok(Some(match (arch.family, kind) {
        (Family::Custom, _) => hidden,
        (Family::Modernbert, _) => k.f64("classifier_dropout", 0.0)?,
        (_, TaskKind::Spans) => return Ok(None),
        (Family::Albert, _) => k.f64("classifier_dropout_prob", 0.1)?,
        (Family::Gpt2, TaskKind::Tokens) => k.f64("classifier_dropout", 0.1)?,
        (Family::Gpt2, _) => return Ok(None),
        (Family::Bert | Family::Roberta, _) => k.f64("classifier_dropout", hidden)?,
    }))
}

/// The same by the `config.json` of a model that may have no such classifier yet; `arch` is what
/// came of it.
///
/// # Errors
/// A key of the wrong type.
pub fn classifier_dropout(
    config: &Value,
    arch: &Arch,
    kind: TaskKind,
) -> Result<Option<f64>, ConfigError> {
    dropout(&Keys(config.as_object().ok_or(ConfigError::NotAnObject)?), arch, kind)
}

/// The names of the outputs, by number: `id2label`, or as many as `num_labels`, two if not stated.
fn labels(k: &Keys) -> Result<Vec<String>, ConfigError> {
    let Some(value) = k.get("id2label") else {
        let count = k.usize("num_labels", 2)?;
        if count > 1 << 20 {
            return Err(unsupported("num_labels", &json!(count), "at most 1048576 are"));
        }
        return Ok((0..count).map(|i| format!("LABEL_{i}")).collect());
    };
    let wanted = "names by number from 0 on, none left out";
    let wrong = || unsupported("id2label", value, wanted);
    let map = value.as_object().ok_or_else(wrong)?;
    let label = |i: usize| map.get(&i.to_string()).and_then(Value::as_str).map(str::to_string);
    (0..map.len()).map(|i| label(i).ok_or_else(wrong)).collect()
}

/// What transformers makes of a classifier of sequences: `problem_type`, or else by the number of
/// labels.
fn problem(k: &Keys, labels: usize) -> Result<TaskKind, ConfigError> {
    match k.get("problem_type") {
        None if labels == 1 => Ok(TaskKind::Values),
        None => Ok(TaskKind::Classes),
        Some(value) => match value.as_str() {
            Some("single_label_classification") => Ok(TaskKind::Classes),
            Some("multi_label_classification") => Ok(TaskKind::Flags),
            Some("regression") => Ok(TaskKind::Values),
            _ => {
                let wanted = "single_label_classification, multi_label_classification and \
                     regression are";
                Err(unsupported("problem_type", value, wanted))
            }
        },
    }
}

fn pooling(k: &Keys) -> Result<Pooling, ConfigError> {
    match k.get("classifier_pooling") {
        None => Ok(Pooling::First),
        Some(value) => match value.as_str() {
            Some("cls") => Ok(Pooling::First),
            Some("mean") => Ok(Pooling::Mean),
            _ => Err(unsupported("classifier_pooling", value, "cls and mean are")),
        },
    }
}

/// The class of transformers that reads such a model.
pub(super) fn class(family: Family, kind: TaskKind) -> String {
    let family = match family {
        Family::Gpt2 => "GPT2",
        Family::Bert => "Bert",
        Family::Roberta => "Roberta",
        Family::Albert => "Albert",
        Family::Modernbert => "ModernBert",
        Family::Custom => "Warpwright",
    };
    let task = match kind {
        TaskKind::Tokens => TOKENS,
        TaskKind::Spans => SPANS,
        _ => SEQUENCES,
    };
    format!("{family}{task}")
}

/// What [`read`] reads.
pub(super) fn keys(arch: &Arch, task: &Task) -> Map<String, Value> {
    let by_number = task.labels.iter().enumerate();
    let id2label: Map<String, Value> =
        by_number.clone().map(|(i, label)| (i.to_string(), json!(label))).collect();
    let label2id: Map<String, Value> =
        by_number.map(|(i, label)| (label.clone(), json!(i))).collect();
    let mut map = Map::new();
    if task.kind != TaskKind::Spans {
        map.insert("id2label".into(), Value::Object(id2label));
        map.insert("label2id".into(), Value::Object(label2id));
    }
    let problem = match task.kind {
        TaskKind::Classes => Some("single_label_classification"),
        TaskKind::Flags => Some("multi_label_classification"),
        TaskKind::Values => Some("regression"),
        TaskKind::Tokens | TaskKind::Spans => None,
    };
    if let Some(problem) = problem {
        map.insert("problem_type".into(), json!(problem));
    }
    let dropout = match arch.family {
        Family::Albert => "classifier_dropout_prob",
        _ => "classifier_dropout",
    };
    map.insert(dropout.into(), json!(task.dropout));
    if arch.family == Family::Modernbert {
        let mean = task.pooling == Pooling::Mean;
        map.insert("classifier_pooling".into(), json!(if mean { "mean" } else { "cls" }));
    }
    map
}
