//! Tables: read, completed, changed by `--set`, and made a configuration.

use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError, TrainConfig};
use crate::checkpoint::model_folder;
use crate::hf::ModelDir;
use crate::model::arch::{Arch, Family};
use crate::model::families::preset;

/// Objective and preset each follow from the other where only one is given; constants of an
/// optimizer with no rule are AdamW's.
pub(super) fn complete(table: &mut Table) -> Result<(), ConfigError> {
    let named = |table: &Table, outer: &str, inner: &str| {
        Some(table.get(outer)?.get(inner)?.as_str()?.to_string())
    };
    if let Some(folder) = named(table, "model", "init") {
        return complete_init(table, &ModelDir::open(&model_folder(Path::new(&folder)))?.arch);
    }
    let causal = match (named(table, "objective", "kind"), named(table, "model", "preset")) {
        (Some(kind), _) => kind == "causal",
        (None, Some(name)) => preset(&name).is_some_and(|arch| arch.causal),
        (None, None) => false,
    };
    let kind = if causal { "causal" } else { "masked" };
    let model = if causal { "gpt2-tiny" } else { "modernbert-tiny" };
    if causal {
        // Every row of a causal batch passes the head: half the steps take the same two minutes.
        let half = TrainConfig::default().steps / 2;
        subtable(table, "train")?.entry("steps").or_insert(Value::Integer(half as i64));
    }
    subtable(table, "objective")?.entry("kind").or_insert(kind.into());
    subtable(table, "model")?.entry("preset").or_insert(model.into());
    if let Some(optimizer) = table.get_mut("optimizer").and_then(Value::as_table_mut) {
        optimizer.entry("rule").or_insert("adamw".into());
    }
    Ok(())
}

/// A model that goes on learning goes on with its own objective, at a rate that does not undo what
/// it knows.
fn complete_init(table: &mut Table, stored: &Arch) -> Result<(), ConfigError> {
    let kind = if stored.causal { "causal" } else { "masked" };
    subtable(table, "objective")?.entry("kind").or_insert(kind.into());
    subtable(table, "schedule")?.entry("peak").or_insert(5e-5.into());
    let context = INIT_CONTEXT.min(stored.context) as i64;
    subtable(table, "batch")?.entry("context").or_insert(context.into());
    Ok(())
}

/// Tokens of a sequence, where a model that goes on learning takes as many.
const INIT_CONTEXT: usize = 128;

/// `base` with some switches changed.
pub(super) fn with_switches(base: Arch, switches: Table) -> Result<Arch, ConfigError> {
    let wrong = |e: &dyn std::fmt::Display| ConfigError::Model(e.to_string());
    let mut table = Table::try_from(&base).map_err(|e| wrong(&e))?;
    let follows_width = base.embed_width == base.width && !switches.contains_key("embed_width");
    let follows_layers = base.groups == base.layers && !switches.contains_key("groups");
    let follows_blocks =
        base.head_activation == base.activation && !switches.contains_key("head_activation");
    let changed = !switches.is_empty();
    merge(&mut table, switches);
    let mut arch: Arch = table.try_into().map_err(|e| wrong(&e))?;
    if arch.task.is_some() {
        return Err(wrong(&"task: pretraining has a language model's head; leave it away"));
    }
    if follows_width {
        arch.embed_width = arch.width;
    }
    if follows_layers {
        arch.groups = arch.layers;
    }
    if follows_blocks && arch.family != Family::Roberta {
        arch.head_activation = arch.activation;
    }
    if changed && !crate::hf::fits_family(&arch) {
        arch.family = Family::Custom;
    }
    Ok(arch)
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

pub(super) fn read_table(path: &Path) -> Result<Table, ConfigError> {
    let io = |source| ConfigError::Io { path: path.into(), source };
    let text = std::fs::read_to_string(path).map_err(io)?;
    let syntax = |e: toml::de::Error| ConfigError::Syntax {
        path: path.into(),
        message: e.to_string().trim_end().to_string(),
    };
    text.parse().map_err(syntax)
}

pub(super) fn parse(table: Table) -> Result<Config, ConfigError> {
    table.try_into().map_err(|e: toml::de::Error| ConfigError::Shape(e.to_string()))
}

/// The table `model` or `objective`, made where it is not there.
pub(super) fn subtable<'a>(
    table: &'a mut Table,
    key: &'static str,
) -> Result<&'a mut Table, ConfigError> {
    let example = if key == "model" { "preset=bert-tiny" } else { "kind=causal" };
    let entry = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
    entry.as_table_mut().ok_or(ConfigError::NeedsTable(key, example))
}

/// `a.b.c=value`: the value is TOML, or else a plain string.
pub(super) fn set(table: &mut Table, assignment: &str) -> Result<(), ConfigError> {
    let Some((key, value)) = assignment.split_once('=') else {
        return Err(ConfigError::NotAnAssignment(assignment.into()));
    };
    let (key, value) = (key.trim(), value.trim());
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| Value::String(value.into()));
    let mut path: Vec<&str> = key.split('.').collect();
    let last = path.pop().filter(|last| !last.is_empty());
    let last = last.ok_or_else(|| ConfigError::NotAnAssignment(assignment.into()))?;
    let mut at = table;
    for part in path {
        let entry = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        let not_a_table = || ConfigError::NotATable { key: key.into(), at: part.into() };
        at = entry.as_table_mut().ok_or_else(not_a_table)?;
    }
    at.insert(last.into(), value);
    Ok(())
}
