//! The parameters of a model: one flat arena, and a table of names, shapes and places in it.
//!
//! Initial values, weight decay and the learning-rate group are fields of the parameter itself,
//! never decided by index or by matching names.

use crate::model::arch::{Arch, Head, Placement, Positions, Task};
use crate::ops::Span;
use crate::ops::embed::Embed;
use crate::ops::linear::Linear;
use crate::ops::norm::Norm;

/// Each parameter starts on a multiple of this many elements, so that wide loads are aligned on
/// every device; the gaps hold zeros and stay zero.
const ALIGN: usize = 64;

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    Zeros,
    Ones,
    /// Normal with this standard deviation.
    Normal(f64),
}

/// One named parameter.
#[derive(Debug, Clone)]
pub struct Param {
    /// Our own name, e.g. `layers.3.qkv.weight`; `crate::hf` knows the families' names.
    pub name: String,
    /// [n_out, n_in] for products (torch's `Linear`), [n] for biases and norms.
    pub shape: Vec<usize>,
    pub span: Span,
    pub init: Init,
    /// Whether weight decay applies: to matrices and tables, not to norms and biases.
    pub decay: bool,
}

/// All parameters, in the order that data meets them.
#[derive(Debug, Clone, Default)]
pub struct ParamTable {
    pub params: Vec<Param>,
    /// Elements of the arena, gaps included.
    pub arena_len: usize,
}

impl ParamTable {
    /// Number of parameters, gaps left out.
    pub fn count(&self) -> usize {
        self.params.iter().map(|p| p.span.len).sum()
    }

    pub fn get(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|p| p.name == name)
    }

    fn add(&mut self, name: String, shape: &[usize], init: Init, decay: bool) -> Span {
        let span = Span { start: self.arena_len, len: shape.iter().product() };
        self.arena_len = (span.start + span.len).next_multiple_of(ALIGN);
        self.params.push(Param { name, shape: shape.to_vec(), span, init, decay });
        span
    }

    fn table(&mut self, name: &str, rows: usize, width: usize, std: f64) -> Span {
        self.add(name.to_string(), &[rows, width], Init::Normal(std), true)
    }

    fn linear(&mut self, name: &str, n_in: usize, n_out: usize, bias: bool, std: f64) -> Linear {
        let weight = self.add(format!("{name}.weight"), &[n_out, n_in], Init::Normal(std), true);
        let bias = bias.then(|| self.add(format!("{name}.bias"), &[n_out], Init::Zeros, false));
        Linear { weight, bias, n_in, n_out }
    }

    fn norm(&mut self, name: &str, arch: &Arch, width: usize) -> Norm {
        let weight = self.add(format!("{name}.weight"), &[width], Init::Ones, false);
        let bias =
            arch.norm_bias.then(|| self.add(format!("{name}.bias"), &[width], Init::Zeros, false));
        Norm { kind: arch.norm, weight, bias, width, eps: arch.eps }
    }
}

/// The weights of one distinct block.
#[derive(Debug, Clone)]
pub struct Block {
    /// Before attention (pre-norm; absent on ModernBERT's first block) or after it (post-norm).
    pub attn_norm: Option<Norm>,
    /// [3C, C]: rows of q, then k, then v.
    pub qkv: Linear,
    pub attn_out: Linear,
    /// Before the MLP (pre-norm) or after it (post-norm).
    pub mlp_norm: Norm,
    /// [F, C], or [2F, C] when gated: rows of the activated half, then of the other.
    pub fc: Linear,
    pub mlp_out: Linear,
}

/// The head's transform: dense, activation, norm.
#[derive(Debug, Clone)]
pub struct Transform {
    pub dense: Linear,
    pub norm: Norm,
}

/// The sequence-pair head: tanh(dense(first token)), then two classes.
#[derive(Debug, Clone)]
pub struct Pair {
    pub pooler: Linear,
    pub classifier: Linear,
}

/// What a task's head has before its classifier.
#[derive(Debug, Clone)]
pub struct TaskLayout {
    pub dense: Option<Linear>,
    pub norm: Option<Norm>,
}

/// Where every weight of a model lies.
#[derive(Debug, Clone)]
pub struct Layout {
    pub table: ParamTable,
    pub embed: Embed,
    pub embed_norm: Option<Norm>,
    /// [C, E], where embeddings are factorised.
    pub embed_proj: Option<Linear>,
    /// Distinct blocks; layer l uses `arch.block_of(l)`.
    pub blocks: Vec<Block>,
    /// Pre-norm only.
    pub final_norm: Option<Norm>,
    pub transform: Option<Transform>,
    /// [V, E]; its weight is the token table's span when tied. With a task, its classifier [K, C].
    pub decoder: Linear,
    pub pair: Option<Pair>,
    pub task: Option<TaskLayout>,
}

impl Layout {
    pub fn new(arch: &Arch) -> Layout {
        let (c, e, std) = (arch.width, arch.embed_width, arch.init_std);
        let mut t = ParamTable::default();
        let embed = Embed {
            tokens: t.table("embed.tokens", arch.vocab, e, std),
            positions: match arch.positions {
                Positions::Learned { offset } => {
                    Some(t.table("embed.positions", arch.context + offset, e, std))
                }
                Positions::Rotary { .. } => None,
            },
            offset: match arch.positions {
                Positions::Learned { offset } => offset,
                Positions::Rotary { .. } => 0,
            },
            types: (arch.token_types > 0).then(|| t.table("embed.types", arch.token_types, e, std)),
            width: e,
        };
        let embed_norm = arch.embed_norm.then(|| t.norm("embed.norm", arch, e));
        let embed_proj = (e != c).then(|| t.linear("embed.proj", e, c, true, std));
        let blocks = (0..arch.blocks()).map(|b| block(&mut t, arch, b)).collect();
        let final_norm = (arch.placement == Placement::Pre).then(|| t.norm("final_norm", arch, c));
        let body = Body { embed, embed_norm, embed_proj, blocks, final_norm };
        match &arch.task {
            Some(task) => Layout::with_task(t, arch, task, body),
            None => Layout::with_decoder(t, arch, body),
        }
    }

    fn with_task(mut t: ParamTable, arch: &Arch, task: &Task, body: Body) -> Layout {
        let (c, std) = (arch.width, arch.init_std);
        let form = arch.task_form(task.kind);
        let head = TaskLayout {
            dense: form.dense.map(|(_, bias)| t.linear("task.dense", c, c, bias, std)),
            norm: form.norm.then(|| t.norm("task.norm", arch, c)),
        };
        let classifier = t.linear("task.classifier", c, task.labels.len(), form.bias, std);
        Layout { task: Some(head), ..Layout::of(t, body, classifier) }
    }

    fn with_decoder(mut t: ParamTable, arch: &Arch, body: Body) -> Layout {
        let (c, e, std) = (arch.width, arch.embed_width, arch.init_std);
        let transform = (arch.head == Head::Transform).then(|| Transform {
            dense: t.linear("head.dense", c, e, arch.head_bias, std),
            norm: t.norm("head.norm", arch, e),
        });
        let n_in = if arch.head == Head::Transform { e } else { c };
        let weight = match arch.tied {
            true => body.embed.tokens,
            false => t.table("decoder.weight", arch.vocab, n_in, std),
        };
        let bias = arch
            .decoder_bias
            .then(|| t.add("decoder.bias".to_string(), &[arch.vocab], Init::Zeros, false));
        let decoder = Linear { weight, bias, n_in, n_out: arch.vocab };
        let pair = arch.pair.then(|| Pair {
            pooler: t.linear("pooler", c, c, true, std),
            classifier: t.linear("pair", c, 2, true, std),
        });
        Layout { transform, pair, ..Layout::of(t, body, decoder) }
    }

    /// Nothing between the body and the last product.
    fn of(table: ParamTable, body: Body, decoder: Linear) -> Layout {
        let Body { embed, embed_norm, embed_proj, blocks, final_norm } = body;
        Layout {
            table,
            embed,
            embed_norm,
            embed_proj,
            blocks,
            final_norm,
            transform: None,
            decoder,
            pair: None,
            task: None,
        }
    }
}

/// All of a layout that is not its head's.
struct Body {
    embed: Embed,
    embed_norm: Option<Norm>,
    embed_proj: Option<Linear>,
    blocks: Vec<Block>,
    final_norm: Option<Norm>,
}

fn block(t: &mut ParamTable, arch: &Arch, b: usize) -> Block {
    let (c, f, std) = (arch.width, arch.inner, arch.init_std);
    let name = |part: &str| format!("layers.{b}.{part}");
    // Pre-norm sums 2L branches into the residual; GPT-2 scales their last products so that the
    // sum's variance does not grow with depth.
    let out_std = match arch.placement {
        Placement::Pre => std / (2.0 * arch.layers as f64).sqrt(),
        Placement::Post => std,
    };
    let normed = arch.placement == Placement::Post || arch.first_norm || b > 0;
    let attn_norm = normed.then(|| t.norm(&name("attn_norm"), arch, c));
    Block {
        attn_norm,
        qkv: t.linear(&name("qkv"), c, 3 * c, arch.bias, std),
        attn_out: t.linear(&name("attn_out"), c, c, arch.bias, out_std),
        mlp_norm: t.norm(&name("mlp_norm"), arch, c),
        fc: t.linear(&name("fc"), c, if arch.gated { 2 * f } else { f }, arch.bias, std),
        mlp_out: t.linear(&name("mlp_out"), f, c, arch.bias, out_std),
    }
}
