//! Small models and batches for tests.
#![allow(dead_code)] // Each test binary uses its own part.

use warpwright::data::Batch;
use warpwright::device::{Buffer, Class, Device};
use warpwright::model::activations::Activations;
use warpwright::model::arch::{Arch, Dropouts, Pooling, Task, TaskKind};
use warpwright::model::batch::{Capacity, DeviceBatch};
use warpwright::model::families::preset;
use warpwright::model::heads::{Labelled, Sums};
use warpwright::model::params::{Init, Layout};
use warpwright::model::transformer::{DropoutKey, Model};
use warpwright::rng::{Philox, Stream};

/// A preset shrunk to awkward sizes, everything that it switches on kept.
pub fn shrunk(name: &str) -> Arch {
    let arch = preset(name).unwrap();
    let layers = if arch.window.is_some() { 4 } else { 3 };
    let shared = arch.groups < arch.layers;
    Arch {
        vocab: 37,
        width: 24,
        embed_width: if arch.embed_width == arch.width { 24 } else { 10 },
        layers,
        heads: 3,
        inner: 20,
        context: 23,
        window: arch.window.map(|_| 4),
        groups: if shared { 1 } else { layers },
        dropout: Dropouts::default(),
        ..arch
    }
}

/// Every family, and the switches that no family sets.
pub fn zoo() -> Vec<(String, Arch)> {
    let mut zoo: Vec<(String, Arch)> =
        ["gpt2", "bert-base", "roberta-base", "albert-base", "modernbert-base"]
            .map(|name| (name.to_string(), shrunk(name)))
            .into();
    let dropout = Dropouts { embed: 0.1, hidden: 0.2, attention: 0.3 };
    let json = |arch: &Arch, changes: serde_json::Value| -> Arch {
        let mut value = serde_json::to_value(arch).unwrap();
        for (key, change) in changes.as_object().unwrap() {
            value[key] = change.clone();
        }
        serde_json::from_value(value).unwrap()
    };
    let (gpt, bert, albert) = (shrunk("gpt2"), shrunk("bert-base"), shrunk("albert-base"));
    let llama = serde_json::json!({
        "family": "custom", "norm": "rms", "norm_bias": false, "bias": false, "gated": true,
        "activation": "silu", "tied": false,
        "positions": { "rotary": { "theta": 10000.0, "local_theta": 10000.0 } },
    });
    zoo.push(("llama-like".into(), json(&gpt, llama)));
    zoo.push(("gpt2 with dropout".into(), Arch { dropout, ..gpt.clone() }));
    zoo.push(("causal windows".into(), Arch { window: Some(3), global_every: 2, ..gpt }));
    zoo.push(("bert with pairs and dropout".into(), Arch { pair: true, dropout, ..bert.clone() }));
    zoo.push(("rms post-norm".into(), json(&bert, serde_json::json!({ "norm": "rms" }))));
    let grouped = Arch { layers: 6, groups: 2, group_depth: 2, pair: true, ..albert };
    zoo.push(("albert, two groups of two".into(), grouped));
    for (name, arch) in &zoo {
        arch.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    zoo
}

/// A task whose two outputs are each a softmax over a sequence: what adds the same to all of a
/// sequence's logits has a gradient of zero, but for rounding, which no relative bound allows for.
pub fn spans() -> (String, Arch) {
    let labels = vec!["start".into(), "end".into()];
    let (kind, pooling) = (TaskKind::Spans, Pooling::First);
    let task = Task { kind, labels, pooling, dropout: 0.0 };
    ("bert-base, spans".into(), shrunk("bert-base").for_task(task))
}

/// Every other kind of task, pooling and form of a head.
pub fn tasks() -> Vec<(String, Arch)> {
    use Pooling::{First, Last, Mean};
    use TaskKind::{Classes, Flags, Tokens, Values};
    let dropout = Dropouts { embed: 0.1, hidden: 0.2, attention: 0.3 };
    let tasks = [
        ("bert-base", Classes, First, 3, 0.2),
        ("roberta-base", Classes, First, 2, 0.2),
        ("albert-base", Flags, First, 4, 0.0),
        ("gpt2", Classes, Last, 3, 0.0),
        ("modernbert-base", Values, Mean, 2, 0.2),
        ("modernbert-base", Flags, First, 1, 0.0),
        ("modernbert-base", Tokens, First, 5, 0.0),
        ("roberta-base", Tokens, First, 3, 0.2),
        ("bert-base", Classes, Mean, 2, 0.2),
    ];
    let all = tasks.map(|(family, kind, pooling, outputs, p)| {
        let labels = (0..outputs).map(|k| format!("label {k}")).collect();
        let mut arch = shrunk(family).for_task(Task { kind, labels, pooling, dropout: p });
        arch.dropout = if p > 0.0 { dropout } else { arch.dropout };
        (format!("{family}, {kind:?} by {pooling:?}"), arch)
    });
    all.into()
}

/// A stream of numbers in [0, 1).
pub fn uniform(seed: u64) -> impl FnMut() -> f64 {
    let (philox, mut i) = (Philox::new(seed), 0);
    move || {
        i += 1;
        f64::from(philox.block(Stream::Sample, 0, i)[0]) / 4_294_967_296.0
    }
}

/// Sequences of these lengths with random tokens; causal targets, or a third of the rows masked.
pub fn batch(arch: &Arch, lengths: &[usize], seed: u64) -> Batch {
    let mut u = uniform(seed);
    let mut below = |n: usize| (u() * n as f64) as i32;
    let n = lengths.iter().sum();
    let mut cu_seqlens = vec![0];
    let mut positions = Vec::new();
    for &len in lengths {
        positions.extend(0..len as i32);
        cu_seqlens.push(positions.len() as i32);
    }
    let ids: Vec<i32> = (0..n).map(|_| below(arch.vocab)).collect();
    let types = (0..n).map(|_| below(arch.token_types.max(1))).collect();
    if let Some(task) = &arch.task {
        let (s, outputs) = (lengths.len(), arch.outputs());
        let (targets, reals): (Vec<i32>, usize) = match task.kind {
            TaskKind::Classes => ((0..s).map(|_| below(outputs)).collect(), 0),
            TaskKind::Tokens => ((0..n).map(|_| below(outputs)).collect(), 0),
            TaskKind::Flags | TaskKind::Values => (vec![], s * outputs),
            TaskKind::Spans => {
                (lengths.iter().flat_map(|&len| [below(len), below(len)]).collect(), 0)
            }
        };
        let reals = (0..reals).map(|_| f64::from(below(2))).collect();
        let rows = task.rows(&cu_seqlens);
        let (pairs, to_mask) = (vec![], None);
        return Batch { ids, positions, types, cu_seqlens, rows, targets, reals, pairs, to_mask };
    }
    let mut targets: Vec<i32> = (0..n).map(|_| below(arch.vocab)).collect();
    targets[n / 2] = -100;
    let mut rows = None;
    if !arch.causal {
        let firsts: Vec<i32> = cu_seqlens.clone();
        let kept: Vec<i32> =
            (0..n as i32).filter(|i| !firsts.contains(i) && below(3) == 0).collect();
        targets.truncate(kept.len());
        rows = Some(kept);
    }
    let pairs = if arch.pair { lengths.iter().map(|_| below(2)).collect() } else { vec![] };
    Batch { ids, positions, types, cu_seqlens, rows, targets, pairs, ..Batch::default() }
}

/// Parameters away from their initial values, so that every term of a gradient counts.
pub fn lively(arch: &Arch, seed: u64) -> Vec<f64> {
    let layout = Layout::new(arch);
    let mut arena = vec![0.0; layout.table.arena_len];
    let mut u = uniform(seed);
    for param in &layout.table.params {
        let fan = *param.shape.last().unwrap() as f64;
        for value in &mut arena[param.span.range()] {
            let z = 2.0 * u() - 1.0;
            *value = match (param.init, param.shape.len()) {
                (Init::Ones, _) => 1.0 + 0.3 * z,
                (_, 1) => 0.3 * z,
                _ => 1.2 * z / fan.sqrt(),
            };
        }
    }
    arena
}

/// A model, a batch and all memory for a training pass.
pub struct Rig<D: Device> {
    pub dev: D,
    pub model: Model<D>,
    pub acts: Activations<D>,
    pub batch: DeviceBatch<D>,
    pub sums: Sums<D>,
    pub labelled: Labelled<D>,
    pub grads: D::Acc,
    pub key: Option<DropoutKey>,
}

impl<D: Device> Rig<D> {
    pub fn new(dev: D, arch: &Arch, params: &[f64], batch: &Batch) -> Self {
        let capacity = Capacity::of(batch, arch.pair);
        let mut model = Model::new(&dev, arch).unwrap();
        model.params.write(0, params);
        let mut loaded = DeviceBatch::new(&dev, capacity, false);
        loaded.load(batch, arch.pair);
        let acc = |len| dev.acc(Class::Scratch, len);
        let (sums, grads) = (Sums { tokens: acc(3), pairs: acc(3) }, acc(params.len()));
        let acts = Activations::new(&dev, arch, capacity, true);
        let key = (arch.dropout != Dropouts::default()).then_some(DropoutKey { seed: 5, micro: 2 });
        let mut labelled = Labelled::new(&dev);
        labelled.count(&model, std::slice::from_ref(batch));
        Rig { dev, model, acts, batch: loaded, sums, labelled, grads, key }
    }

    /// Forward and backward; the gradients, summed anew.
    pub fn gradients(&mut self) -> Vec<f64> {
        let Rig { dev, model, acts, batch, sums, labelled, grads, key } = self;
        dev.zero_acc(grads);
        model.forward(dev, acts, batch, *key);
        model.loss_backward(dev, sums, grads, acts, batch, labelled, *key);
        model.backward(dev, grads, acts, batch, *key);
        grads.to_vec()
    }

    /// Forward alone: the loss that the gradients are of.
    pub fn loss(&mut self) -> f64 {
        let Rig { dev, model, acts, batch, sums, key, .. } = self;
        dev.zero_acc(&mut sums.tokens);
        dev.zero_acc(&mut sums.pairs);
        model.forward(dev, acts, batch, *key);
        model.loss(dev, sums, acts, batch, *key);
        let [tokens, pairs] = [&sums.tokens, &sums.pairs].map(|sums| sums.to_vec());
        tokens[0] / tokens[2].max(1.0) + pairs[0] / pairs[2].max(1.0)
    }
}
