//! What a forward pass keeps for the backward, and the buffers that the backward works in.
//! All of it is taken before the first step.

use crate::device::{Class, Device, Memory};
use crate::model::arch::{Arch, Head, Placement};
use crate::model::batch::Capacity;
use crate::model::task::TaskActs;

/// A residual sum and its norm.
pub struct Join<D: Memory> {
    /// [N, C]
    pub sum: D::X,
    /// [N, C]
    pub y: D::X,
    /// [N, 2]
    pub stats: D::Acc,
}

/// One layer's.
pub struct LayerActs<D: Memory> {
    /// [N, 3C], rotated
    pub qkv: D::X,
    /// [N, C]
    pub o: D::X,
    /// [N, H]
    pub lse: D::Acc,
    /// After attention.
    pub attn: Join<D>,
    /// [N, F], or [N, 2F] when gated
    pub pre: D::X,
    /// [N, F]
    pub act: D::X,
    /// After the MLP.
    pub mlp: Join<D>,
}

/// The embeddings' stages; absent where the architecture has none.
pub struct StartActs<D: Memory> {
    /// [N, E]: the sum of the tables' rows
    pub sum: D::X,
    /// [N, E] and its [N, 2]
    pub normed: Option<(D::X, D::Acc)>,
    /// [N, E]
    pub dropped: Option<D::X>,
    /// [N, C]
    pub projected: Option<D::X>,
    /// [N, C] and its [N, 2]: the first block's norm, before any branch
    pub first: Option<(D::X, D::Acc)>,
}

impl<D: Memory> StartActs<D> {
    /// [N, E]: what the projection, or the first block, reads.
    pub fn embedded(&self) -> &D::X {
        let normed = self.normed.as_ref().map(|(y, _)| y);
        self.dropped.as_ref().or(normed).unwrap_or(&self.sum)
    }

    /// [N, C]: where the residual stream begins.
    pub fn residual(&self) -> &D::X {
        self.projected.as_ref().unwrap_or_else(|| self.embedded())
    }
}

/// The rows that go on after the last layer's attention.
pub struct PickedActs<D: Memory> {
    /// [M, C]
    pub o: D::X,
    /// [M, C]
    pub residual: D::X,
}

/// The head's transform.
pub struct TransformActs<D: Memory> {
    /// [M, E]
    pub pre: D::X,
    pub act: D::X,
    pub y: D::X,
    /// [M, 2]
    pub stats: D::Acc,
}

/// The head's.
pub struct HeadActs<D: Memory> {
    pub transform: Option<TransformActs<D>>,
    /// [chunk, V]
    pub logits: D::X,
    pub pair: Option<PairActs<D>>,
    pub task: Option<TaskActs<D>>,
}

/// The pair head's.
pub struct PairActs<D: Memory> {
    /// [S, C]
    pub first: D::X,
    pub pre: D::X,
    pub pooled: D::X,
    pub d_pooled: D::X,
    pub d_pre: D::X,
    /// [S, 2]
    pub logits: D::X,
}

/// Gradients of activations, reused from layer to layer.
pub struct Flow<D: Memory> {
    /// [N, C]: of a branch's input
    pub dh: D::X,
    /// [N, C]: of the residual stream
    pub dr: D::X,
    /// [N, C]: of a branch's output under dropout; elsewhere `dr` serves.
    pub dropped: Option<D::X>,
    /// [N, C]: of the attention's output
    pub d_o: D::X,
    /// [M, C]: the same, of picked rows
    pub d_o_picked: D::X,
    /// [N, 3C]
    pub dqkv: D::X,
    /// [N, F] or [N, 2F]
    pub dpre: D::X,
    /// [N, E], three of them: through the embeddings and through the head's transform
    pub de: [D::X; 3],
}

/// Everything a pass over one micro-batch works in.
pub struct Activations<D: Memory> {
    pub start: StartActs<D>,
    pub layers: Vec<LayerActs<D>>,
    pub picked: PickedActs<D>,
    pub head: HeadActs<D>,
    /// [N, C]: a branch's output, before it joins
    pub branch: D::X,
    /// Absent for inference.
    pub flow: Option<Flow<D>>,
}

impl<D: Device> Activations<D> {
    /// Takes the memory of a pass; with `training`, of its backward too.
    pub fn new(dev: &D, arch: &Arch, capacity: Capacity, training: bool) -> Self {
        let (n, m, s) = (capacity.tokens, capacity.rows, capacity.sequences);
        let (c, e, f) = (arch.width, arch.embed_width, arch.inner);
        let wide = if arch.gated { 2 * f } else { f };
        let x = |len| dev.x(Class::Activations, len);
        let acc = |len| dev.acc(Class::Activations, len);
        let scratch = |len| dev.x(Class::Scratch, len);
        let join = || Join { sum: x(n * c), y: x(n * c), stats: acc(n * 2) };
        let layer = |_| LayerActs {
            qkv: x(n * 3 * c),
            o: x(n * c),
            lse: acc(n * arch.heads),
            attn: join(),
            pre: x(n * wide),
            act: x(n * f),
            mlp: join(),
        };
        let pre_norm = arch.placement == Placement::Pre;
        let transform =
            || TransformActs { pre: x(m * e), act: x(m * e), y: x(m * e), stats: acc(m * 2) };
        let pair = || PairActs {
            first: x(s * c),
            pre: x(s * c),
            pooled: x(s * c),
            d_pooled: scratch(s * c),
            d_pre: scratch(s * c),
            logits: scratch(s * 2),
        };
        // A task's head stands in the place of the language model's.
        let has_head = |head| arch.task.is_none() && arch.head == head;
        let task = |task| TaskActs::new(dev, arch, task, capacity, training);
        let logits = match arch.task {
            Some(_) => 0,
            None => dev.logit_rows(arch.vocab).min(m) * arch.vocab,
        };
        let flow = || Flow {
            dh: scratch(n * c),
            dr: scratch(n * c),
            dropped: (arch.dropout.hidden > 0.0).then(|| scratch(n * c)),
            d_o: scratch(n * c),
            d_o_picked: scratch(m * c),
            dqkv: scratch(n * 3 * c),
            dpre: scratch(n * wide),
            de: [scratch(n * e), scratch(n * e), scratch(n * e)],
        };
        Activations {
            start: StartActs {
                sum: x(n * e),
                normed: arch.embed_norm.then(|| (x(n * e), acc(n * 2))),
                dropped: (training && arch.dropout.embed > 0.0).then(|| x(n * e)),
                projected: (e != c).then(|| x(n * c)),
                first: (pre_norm && arch.first_norm).then(|| (x(n * c), acc(n * 2))),
            },
            layers: (0..arch.layers).map(layer).collect(),
            picked: PickedActs { o: x(m * c), residual: x(m * c) },
            head: HeadActs {
                transform: has_head(Head::Transform).then(transform),
                logits: scratch(logits),
                pair: arch.pair.then(pair),
                task: arch.task.as_ref().map(task),
            },
            branch: scratch(n * c),
            flow: training.then(flow),
        }
    }
}
