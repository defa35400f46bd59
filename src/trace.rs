//! One batch through a checkpoint: logits, loss and every gradient, to be held against any other
//! framework.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::checkpoint::model_folder;
use crate::data::files::{self, Partial};
use crate::data::{Batch, IGNORE};
use crate::device::{Buffer, Class, Device};
use crate::hf::{
    Entry, FloatType, LoadError, LoadReport, ModelDir, Piece, SafeError, pieces, put_piece,
    write_error, write_safetensors,
};
use crate::model::activations::Activations;
use crate::model::arch::{Arch, ArchError, TaskKind};
use crate::model::batch::{Capacity, DeviceBatch};
use crate::model::heads::{Labelled, Sums};
use crate::model::params::Param;
use crate::model::transformer::Model;

/// What `--input` holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Sequences of any lengths.
    pub input_ids: Vec<Vec<u32>>,
    /// As many as `input_ids`; 0 where left out.
    pub token_type_ids: Option<Vec<Vec<u32>>>,
    /// As many as `input_ids`, −100 ignored; causal: the ids themselves, shifted inside. Of a
    /// task's head: see [`Labels`].
    pub labels: Option<Labels>,
    /// One a sequence, of the sentence-pair head; −100 ignored.
    pub pair_labels: Option<Vec<i32>>,
}

/// What the loss holds logits to: a list a sequence, or a number a sequence.
///
/// Of tokens as many as `input_ids`; of classes a class a sequence, of flags a list of 0 and 1, of
/// values a list or one number; of spans [start, end], counted within the sequence.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Labels {
    One(Vec<f64>),
    Lists(Vec<Vec<f64>>),
}

impl Labels {
    /// A list a sequence.
    fn lists(&self) -> Vec<Vec<f64>> {
        match self {
            Labels::One(each) => each.iter().map(|&label| vec![label]).collect(),
            Labels::Lists(lists) => lists.clone(),
        }
    }
}

/// Why a batch cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0} exists: name another file")]
    Exists(PathBuf),
    #[error("{path} is not a batch: {why}")]
    Input { path: PathBuf, why: String },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Arch(#[from] ArchError),
    #[error(transparent)]
    Write(#[from] SafeError),
    #[error("{0}")]
    Device(String),
    #[error("{0} lacks {1}, which the loss needs: give a model with its head")]
    NoHead(PathBuf, String),
}

/// Traces the batch in the file `input` through the model at `model` and writes `output`
/// (safetensors, `dtype`): `logits` [tokens, V], or of a task [sequences or tokens, K], and with
/// labels `loss` [1] and `grad.NAME`.
///
/// # Errors
/// An `output` that exists, which may be the model's own weights; a batch that is none, or not of
/// the model's; what cannot be read or written.
pub fn trace<D: Device>(
    dev: &D,
    model: &Path,
    input: &Path,
    output: &Path,
    dtype: FloatType,
) -> Result<LoadReport, TraceError> {
    if output.exists() {
        return Err(TraceError::Exists(output.to_path_buf()));
    }
    let folder = model_folder(model);
    let dir = ModelDir::open(&folder)?;
    let io = |source| TraceError::Io { path: input.to_path_buf(), source };
    let wrong = |why| TraceError::Input { path: input.to_path_buf(), why };
    let json = files::read_text(input).map_err(io)?;
    let parsed: Input = serde_json::from_slice(&json).map_err(|e| wrong(e.to_string()))?;
    let batch = parsed.batch(&dir.arch).map_err(wrong)?;
    let unwritten = |source| write_error(output, source);
    let (partial, file) = Partial::create(output).map_err(unwritten)?;

    let (model, report) = dir.model::<_, TraceError>(dev)?;
    let labelled = parsed.labels.is_some() || parsed.pair_labels.is_some();
    if let Some(name) = report.missing.first().filter(|_| labelled) {
        return Err(TraceError::NoHead(folder, name.clone()));
    }
    let traced = run(dev, &model, &batch, labelled);
    if let Some(fault) = dev.fault() {
        return Err(TraceError::Device(fault));
    }
    write(partial.path(), &model, &traced, dtype)?;
    partial.finish(file).map_err(unwritten)?;
    Ok(report)
}

/// What a trace finds.
struct Traced {
    /// [N, V], or [M, K]
    logits: Vec<f64>,
    /// [S, 2], with a pair head and labels
    pair_logits: Option<Vec<f64>>,
    /// The loss and the gradients' arena, with labels.
    trained: Option<(f64, Vec<f64>)>,
}

fn run<D: Device>(dev: &D, model: &Model<D>, batch: &Batch, labelled: bool) -> Traced {
    let (arch, capacity) = (&model.arch, Capacity::of(batch, model.arch.pair));
    let mut loaded = DeviceBatch::new(dev, capacity, false);
    loaded.load(batch, arch.pair);
    let mut acts = Activations::new(dev, arch, capacity, true);
    model.forward(dev, &mut acts, &loaded, None);
    let logits = if arch.task.is_some() {
        model.task_logits(dev, &mut acts, &loaded, None);
        acts.head.task.as_ref().expect("activations of a task").logits.to_vec()
    } else {
        let mut logits = dev.x(Class::Scratch, batch.ids.len() * arch.vocab);
        model.logits(dev, &mut logits, &mut acts, &loaded);
        logits.to_vec()
    };
    let pair_logits = labelled.then(|| model.pair_logits(dev, &mut acts, &loaded)).flatten();
    let trained = labelled.then(|| {
        let mut labelled = Labelled::new(dev);
        labelled.count(model, std::slice::from_ref(batch));
        let acc = |len| dev.acc(Class::Scratch, len);
        let mut sums = Sums { tokens: acc(3), pairs: acc(3) };
        let mut grads = acc(model.layout.table.arena_len);
        model.loss_backward(dev, &mut sums, &mut grads, &mut acts, &loaded, &labelled, None);
        model.backward(dev, &mut grads, &mut acts, &loaded, None);
        let mean = |sums: &D::Acc| {
            let sums = sums.to_vec();
            sums[0] / sums[2].max(1.0)
        };
        (mean(&sums.tokens) + mean(&sums.pairs), grads.to_vec())
    });
    Traced { logits, pair_logits: pair_logits.map(|l| l.to_vec()), trained }
}

fn write<D: Device>(
    output: &Path,
    model: &Model<D>,
    traced: &Traced,
    dtype: FloatType,
) -> Result<(), SafeError> {
    let (table, v) = (&model.layout.table, model.arch.outputs());
    let entry = |name: String, shape: Vec<usize>| Entry { name, dtype, shape };
    let mut entries = vec![entry("logits".into(), vec![traced.logits.len() / v, v])];
    let mut plain: Vec<&[f64]> = vec![&traced.logits];
    if let Some(pair) = &traced.pair_logits {
        entries.push(entry("pair_logits".into(), vec![pair.len() / 2, 2]));
        plain.push(pair);
    }
    let mut stored: Vec<Piece> = Vec::new();
    let loss = traced.trained.as_ref().map(|(loss, _)| [*loss]);
    if let Some(loss) = &loss {
        entries.push(entry("loss".into(), vec![1]));
        plain.push(loss);
        stored = pieces(&model.arch, table);
        entries.extend(stored.iter().map(|p| entry(format!("grad.{}", p.name), p.shape.clone())));
    }
    let grads = traced.trained.as_ref().map_or(&[][..], |(_, grads)| grads);
    let mut source = |param: &Param, start: usize, out: &mut [f64]| {
        out.copy_from_slice(&grads[param.span.start + start..][..out.len()]);
    };
    write_safetensors(output, &[("format", "pt")], &entries, |i, out| match plain.get(i) {
        Some(values) => out.put(values),
        None => {
            let piece = &stored[i - plain.len()];
            put_piece(out, &table.params[piece.param], piece, &mut source)
        }
    })
}

impl Input {
    /// The sequences as one token-flat batch in which every row reaches the head.
    fn batch(&self, arch: &Arch) -> Result<Batch, String> {
        let lengths: Vec<usize> = self.input_ids.iter().map(Vec::len).collect();
        if lengths.iter().sum::<usize>() == 0 {
            return Err("input_ids holds no token".into());
        }
        if let Some(&longest) = lengths.iter().max().filter(|&&len| len > arch.context) {
            return Err(format!(
                "a sequence has {longest} tokens, the model takes {}: cut it",
                arch.context
            ));
        }
        let ids = flatten(&self.input_ids, arch.vocab, "input_ids", "the vocabulary")?;
        let mut types = vec![0; ids.len()];
        if let Some(given) = &self.token_type_ids {
            same_lengths(given, &lengths, "token_type_ids")?;
            types = flatten(given, arch.token_types.max(1), "token_type_ids", "the token types")?;
        }
        let (mut targets, reals) = self.truth(arch, &lengths)?;
        let mut cu_seqlens = vec![0];
        let mut positions = Vec::new();
        for &len in &lengths {
            if arch.causal && arch.task.is_none() && len > 0 {
                // Each row is held to the label of the next; the last has none.
                let end = positions.len() + len;
                targets[positions.len()..end].rotate_left(1);
                targets[end - 1] = IGNORE;
            }
            positions.extend(0..len as i32);
            cu_seqlens.push(positions.len() as i32);
        }
        let pairs = match (&self.pair_labels, arch.pair) {
            (Some(pairs), true) if pairs.len() == lengths.len() => pairs.clone(),
            (Some(_), true) => return Err("pair_labels is not one a sequence".into()),
            (Some(_), false) => return Err("pair_labels, but the model has no pair head".into()),
            (None, pair) => vec![IGNORE; if pair { lengths.len() } else { 0 }],
        };
        if let Some(label) = pairs.iter().find(|l| ![0, 1, IGNORE].contains(l)) {
            return Err(format!("pair label {label} is not 0, 1 or -100"));
        }
        let rows = arch.task.as_ref().and_then(|task| task.rows(&cu_seqlens));
        let to_mask = None;
        Ok(Batch { ids, positions, types, cu_seqlens, rows, targets, reals, pairs, to_mask })
    }

    /// Targets and real targets of sequences of such lengths.
    fn truth(&self, arch: &Arch, lengths: &[usize]) -> Result<(Vec<i32>, Vec<f64>), String> {
        let kind = arch.task.as_ref().map(|task| task.kind);
        let each_is_told_of = arch.pair || kind.is_some_and(TaskKind::is_of_sequences);
        if each_is_told_of && lengths.contains(&0) {
            return Err("a sequence has no token: there is nothing to label".into());
        }
        let each = |count: usize| vec![count; lengths.len()];
        let (wanted, below) = match kind {
            None | Some(TaskKind::Tokens) => (lengths.to_vec(), arch.outputs()),
            Some(TaskKind::Classes) => (each(1), arch.outputs()),
            Some(TaskKind::Flags | TaskKind::Values) => (each(arch.outputs()), 0),
            Some(TaskKind::Spans) => (each(2), arch.context),
        };
        let count = wanted.iter().sum();
        let lists = self.labels.as_ref().map(Labels::lists);
        if let Some(labels) = &lists {
            same_lengths(labels, &wanted, "labels")?;
        }
        if matches!(kind, Some(TaskKind::Flags | TaskKind::Values)) {
            return Ok((vec![], lists.map_or(vec![0.0; count], |lists| lists.concat())));
        }
        let targets = lists.map_or(Ok(vec![IGNORE; count]), |lists| classes(&lists, below))?;
        Ok((targets, vec![]))
    }
}

fn same_lengths<T>(given: &[Vec<T>], lengths: &[usize], name: &str) -> Result<(), String> {
    let same =
        given.len() == lengths.len() && given.iter().zip(lengths).all(|(g, l)| g.len() == *l);
    if same { Ok(()) } else { Err(format!("{name} is not of the shape of input_ids")) }
}

/// Whole numbers below `outputs`, or −100.
fn classes(labels: &[Vec<f64>], outputs: usize) -> Result<Vec<i32>, String> {
    let class = |&label: &f64| {
        let inside = (0.0..outputs as f64).contains(&label) && label.fract() == 0.0;
        if inside || label == f64::from(IGNORE) {
            return Ok(label as i32);
        }
        Err(format!("label {label} is neither -100 nor a whole number below {outputs}"))
    };
    labels.iter().flatten().map(class).collect()
}

fn flatten(of: &[Vec<u32>], below: usize, name: &str, what: &str) -> Result<Vec<i32>, String> {
    match of.iter().flatten().find(|&&id| id as usize >= below) {
        Some(id) => Err(format!("{name} has {id}, beyond {what} ({below})")),
        None => Ok(of.concat().into_iter().map(|id| id as i32).collect()),
    }
}
