//! What helps to read a prediction: what each token adds to it, and where attention looks.
//!
//! ```text
//! attention   p_ij = exp(q_i · k_j / √D − lse_i)      of each layer and head, j allowed for i
//! saliency_i  Σ_c x_ic · ∂ log p / ∂x_ic              gradient × input (Shrikumar et al., 2016)
//! ```
//!
//! x_i is token i's embedding as the blocks read it, after its norm (before one, scaling it would
//! change nothing); p the probability of what is explained (of an answer the product of its ends';
//! of a task that tells numbers, the number itself). Saliency is how much log p would change, to
//! first order, were x_i scaled; attention is where values were taken from. Neither is a reason:
//! both only say what to look at.

pub mod page;

use crate::data::{Batch, IGNORE};
use crate::device::{Buffer, Class, Device};
use crate::logits::{sigmoid, softmax};
use crate::model::activations::Activations;
use crate::model::arch::TaskKind;
use crate::model::batch::{Capacity, DeviceBatch};
use crate::model::heads::{Labelled, Sums};
use crate::model::transformer::Model;
use crate::ops::attention::Attention;

/// One sequence in front of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    pub ids: Vec<u32>,
    /// Token types.
    pub types: Vec<i32>,
    /// Of a language model, or of a task about tokens: the row whose prediction it is about.
    pub row: usize,
}

/// What is explained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// One of the outputs.
    Output(usize),
    /// The answer that begins and ends with these tokens.
    Span([usize; 2]),
}

/// What a prediction rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// [T]
    pub saliency: Vec<f64>,
    /// [L][H] of [T, T]: how much query i (row) takes from key j (column).
    pub attention: Vec<Vec<Vec<f64>>>,
}

impl Subject {
    fn batch<D: Device>(&self, model: &Model<D>) -> Batch {
        let n = self.ids.len() as i32;
        let cu_seqlens = vec![0, n];
        let rows = match &model.arch.task {
            None => Some(vec![self.row as i32]),
            Some(task) => task.rows(&cu_seqlens),
        };
        Batch {
            ids: self.ids.iter().map(|&id| id as i32).collect(),
            positions: (0..n).collect(),
            types: self.types.clone(),
            cu_seqlens,
            rows,
            ..Batch::default()
        }
    }
}

/// The model's logits for a subject: [V] of a language model, [K] of a task, [T, 2] of answers.
pub fn logits<D: Device>(dev: &D, model: &Model<D>, subject: &Subject) -> Vec<f64> {
    let mut batch = subject.batch(model);
    batch.targets = vec![IGNORE; batch.rows.as_ref().map_or(batch.ids.len(), Vec::len)];
    let capacity = Capacity::of(&batch, false);
    let mut loaded = DeviceBatch::new(dev, capacity, false);
    loaded.load(&batch, false);
    let mut acts = Activations::new(dev, &model.arch, capacity, false);
    let outputs = model.arch.outputs();
    let Some(task) = &model.arch.task else {
        model.forward(dev, &mut acts, &loaded, None);
        let mut logits = dev.x(Class::Scratch, outputs);
        model.logits(dev, &mut logits, &mut acts, &loaded);
        return logits.to_vec();
    };
    let logits = model.read_task_logits(dev, &mut acts, &loaded);
    match task.kind {
        TaskKind::Tokens => logits[subject.row * outputs..][..outputs].to_vec(),
        _ => logits,
    }
}

/// The probabilities that such logits stand for; of values, the values.
pub fn probabilities(kind: Option<TaskKind>, logits: &[f64]) -> Vec<f64> {
    match kind {
        Some(TaskKind::Values) => logits.to_vec(),
        Some(TaskKind::Flags) => sigmoid(logits),
        _ => softmax(logits),
    }
}

/// The probability of the answer with these ends, by logits [T, 2]: of both together.
pub fn span_probability(logits: &[f64], ends: [usize; 2]) -> f64 {
    let of = |which: usize| {
        let each: Vec<f64> = logits.iter().skip(which).step_by(2).copied().collect();
        probabilities(None, &each)[ends[which]]
    };
    of(0) * of(1)
}

/// What `target`, by its [`logits`], rests on.
pub fn explain<D: Device>(
    dev: &D,
    model: &Model<D>,
    subject: &Subject,
    logits: &[f64],
    target: Target,
) -> Explained {
    let mut batch = subject.batch(model);
    let pair = model.arch.pair;
    batch.pairs = vec![IGNORE; usize::from(pair)];
    // What a loss's gradient is multiplied by to be that of −log p, or of minus the value.
    let mut scale = 1.0;
    match (model.arch.task.as_ref().map(|task| task.kind), target) {
        // The loss is the mean of both ends'.
        (_, Target::Span(ends)) => {
            batch.targets = ends.map(|end| end as i32).to_vec();
            scale = 2.0;
        }
        // Targets of the other outputs are such that their gradients vanish.
        (Some(kind @ (TaskKind::Flags | TaskKind::Values)), Target::Output(target)) => {
            batch.reals = probabilities(Some(kind), logits);
            scale = logits.len() as f64;
            match kind {
                TaskKind::Flags => batch.reals[target] = 1.0,
                _ => batch.reals[target] += 0.5,
            }
        }
        (Some(TaskKind::Tokens), Target::Output(target)) => {
            batch.targets = vec![IGNORE; batch.ids.len()];
            batch.targets[subject.row] = target as i32;
        }
        (_, Target::Output(target)) => batch.targets = vec![target as i32],
    }
    let capacity = Capacity::of(&batch, pair);
    let mut loaded = DeviceBatch::new(dev, capacity, false);
    loaded.load(&batch, pair);
    let mut acts = Activations::new(dev, &model.arch, capacity, true);
    let mut labelled = Labelled::new(dev);
    labelled.count(model, std::slice::from_ref(&batch));
    let acc = |len| dev.acc(Class::Scratch, len);
    let mut sums = Sums { tokens: acc(3), pairs: acc(3) };
    let mut grads = acc(model.layout.table.arena_len);
    model.forward(dev, &mut acts, &loaded, None);
    model.loss_backward(dev, &mut sums, &mut grads, &mut acts, &loaded, &labelled, None);
    model.backward(dev, &mut grads, &mut acts, &loaded, None);

    let (n, width) = (subject.ids.len(), model.arch.embed_width);
    let [mut input, mut gradient] = [(); 2].map(|()| vec![0.0; n * width]);
    acts.start.embedded().read(0, &mut input);
    model.embedded_gradient(&acts).read(0, &mut gradient);
    let rows = input.chunks_exact(width).zip(gradient.chunks_exact(width));
    let dot = |(x, g): (&[f64], &[f64])| x.iter().zip(g).map(|(x, g)| x * g).sum::<f64>();
    let saliency = rows.map(|row| -scale * dot(row)).collect();
    Explained { saliency, attention: attention(model, &acts, n) }
}

/// [L][H] of [T, T]: what a forward pass over one sequence of `n` tokens attended to.
fn attention<D: Device>(model: &Model<D>, acts: &Activations<D>, n: usize) -> Vec<Vec<Vec<f64>>> {
    let arch = &model.arch;
    let (c, d, heads) = (arch.width, arch.head_dim(), arch.heads);
    let layer = |l: usize| {
        let (mut qkv, mut lse) = (vec![0.0; n * 3 * c], vec![0.0; n * heads]);
        acts.layers[l].qkv.read(0, &mut qkv);
        acts.layers[l].lse.read(0, &mut lse);
        let window = arch.window_of(l);
        let at = Attention { heads, head_dim: d, causal: arch.causal, window, dropout: None };
        let part = |i: usize, part: usize, h: usize| &qkv[i * 3 * c + part * c + h * d..][..d];
        let head = |h: usize| {
            let mut map = vec![0.0; n * n];
            for i in 0..n {
                for j in at.keys(i, n) {
                    let dot: f64 =
                        part(i, 0, h).iter().zip(part(j, 1, h)).map(|(q, k)| q * k).sum();
                    map[i * n + j] = (dot / (d as f64).sqrt() - lse[i * heads + h]).exp();
                }
            }
            map
        };
        (0..heads).map(head).collect()
    };
    (0..arch.layers).map(layer).collect()
}
