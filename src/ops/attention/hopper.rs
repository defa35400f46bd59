//! Launches of `kernels/attention_hopper.cu` and `attention_hopper_backward.cu`: which variant, how
//! many blocks, and in what order they come to their work. For compute capability 9.0 and heads of
//! width 64 and 128; the kernels of [`super::gpu`] do the rest.

use bytemuck::{Pod, Zeroable};
use half::bf16;

use super::gpu::Call;
use super::{Attended, Attention, Packed};
use crate::device::gpu::driver::{Address, TensorMap, TileShape};
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::{AttentionCut, Gpu, Tensor};
use crate::ops::rope::Rotation;

/// Keys of a tile.
const KEYS: usize = 128;

/// `Batch` of `kernels/attention_hopper.cuh`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct BatchArg {
    cu_seqlens: u64,
    order: u64,
    sequences: i32,
    heads: i32,
    section: i32,
    items: i32,
    counter: u64,
}

/// A kernel of the forward, by head width and the queries that a block takes at a time.
struct Forward {
    head_dim: usize,
    queries: usize,
    plain: &'static str,
    /// None where registers do not suffice.
    dropout: Option<&'static str>,
    /// Of k and v.
    stages: usize,
}

const FORWARD: [Forward; 3] = [
    Forward {
        head_dim: 64,
        queries: 128,
        plain: "attention_hopper_64x128",
        dropout: Some("attention_hopper_64x128_dropout"),
        stages: 4,
    },
    Forward {
        head_dim: 64,
        queries: 192,
        plain: "attention_hopper_64x192",
        dropout: None,
        stages: 4,
    },
    Forward {
        head_dim: 128,
        queries: 128,
        plain: "attention_hopper_128x128",
        dropout: Some("attention_hopper_128x128_dropout"),
        stages: 2,
    },
];

impl Forward {
    fn threads(&self) -> u32 {
        (128 + 2 * self.queries) as u32
    }

    /// Dynamic shared memory [bytes]: two slots of q, stages of k and v, barriers, two items.
    fn shared(&self) -> usize {
        let tiles = 2 * self.queries + 2 * self.stages * KEYS;
        tiles * self.head_dim * size_of::<bf16>() + (4 + 4 * self.stages) * 8 + 2 * ITEM
    }

    fn kernel(&self, at: &Attention) -> Option<&'static str> {
        if at.dropout.is_some() { self.dropout } else { Some(self.plain) }
    }

    /// Tiles that the host takes it to be worth: three warpgroups hide one another's exponentials
    /// better than two, which is taken to be worth an eighth; but rows of a tile beyond the end of
    /// its sequence are work for nothing.
    fn cost(&self, ends: &[i32]) -> f64 {
        let rows = tiles(ends, self.queries) * self.queries;
        rows as f64 * if self.queries > 128 { 1.0 } else { 1.125 }
    }
}

/// A kernel of the backward, `Backward` of `kernels/attention_hopper_backward.cu`.
struct Backward {
    head_dim: usize,
    plain: &'static str,
    dropout: &'static str,
    queries: usize,
    /// Items whose k and v are in shared memory.
    slots: usize,
}

const BACKWARD: [Backward; 2] = [
    Backward {
        head_dim: 64,
        plain: "attention_hopper_backward_64",
        dropout: "attention_hopper_backward_64_dropout",
        queries: 128,
        slots: 2,
    },
    Backward {
        head_dim: 128,
        plain: "attention_hopper_backward_128",
        dropout: "attention_hopper_backward_128_dropout",
        queries: 64,
        slots: 1,
    },
];

impl Backward {
    /// A producer's warpgroup and two of consumers.
    const THREADS: u32 = 384;
    /// Of q, do and ds.
    const STAGES: usize = 2;

    /// Dynamic shared memory [bytes]: k and v of items, stages of q and do and of ds, a tile of dq
    /// in f32, statistics, barriers, items.
    fn shared(&self) -> usize {
        let (d, queries) = (self.head_dim, self.queries);
        let bf16s = 2 * self.slots * KEYS * d + Self::STAGES * queries * (2 * d + KEYS);
        let stats = Self::STAGES * queries * size_of::<[f32; 2]>();
        let barriers = 2 * self.slots + 2 * Self::STAGES + 2;
        bf16s * 2 + queries * d * 4 + stats + barriers * 8 + self.slots * ITEM
    }
}

/// `Parts` of that file.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PartsArg {
    sums: u64,
    turns: u64,
    rows: i32,
    padding: i32,
}

/// Bytes of an `Item`.
const ITEM: usize = 20;

/// Tiles of `rows` rows of all sequences.
fn tiles(ends: &[i32], rows: usize) -> usize {
    let length = |pair: &[i32]| (pair[1] - pair[0]) as usize;
    ends.windows(2).map(|pair| length(pair).div_ceil(rows)).sum()
}

/// The kernel of a forward: the cheapest by [`Forward::cost`] that there is.
fn choose(at: &Attention, ends: &[i32]) -> Option<&'static Forward> {
    let fits = |f: &&Forward| f.head_dim == at.head_dim && f.kernel(at).is_some();
    let cost = |f: &&Forward| f.cost(ends);
    FORWARD.iter().filter(fits).min_by(|a, b| cost(a).total_cmp(&cost(b)))
}

/// The tiles of queries that these kernels have for an attention; none if it is not theirs.
pub fn hopper_queries(at: &Attention) -> Vec<usize> {
    let fits = |f: &&Forward| f.head_dim == at.head_dim && f.kernel(at).is_some();
    FORWARD.iter().filter(fits).map(|f| f.queries).collect()
}

/// How many sequences blocks take up at a time, so that all of them have work for two tiles on one
/// level of the section (`Walk` in the kernels), and few more, so that the L2 holds it.
fn section(at: &Attention, ends: &[i32], blocks: usize) -> usize {
    let lengths = ends.windows(2).map(|pair| (pair[1] - pair[0]) as usize);
    let longest = lengths.max().unwrap_or(0);
    let seen = at.window.map_or(longest, |w| longest.min(2 * w + KEYS));
    let steps = seen.div_ceil(if at.causal { 2 * KEYS } else { KEYS }).max(1);
    (2 * blocks).div_ceil(at.heads * steps).clamp(1, 32)
}

/// A launch in the making: of the kernels here, `blocks` at most.
pub(super) struct Plan {
    forward: &'static Forward,
    blocks: usize,
}

impl Gpu {
    /// How these kernels would do a batch; none if it is not theirs.
    pub(super) fn hopper_attention(&self, packed: &Packed<Gpu>, at: &Attention) -> Option<Plan> {
        let processors = self.driver().properties().processors as usize;
        match self.fixed_attention() {
            _ if !self.has_hopper() => None,
            Some(AttentionCut::Portable) => None,
            Some(AttentionCut::Hopper { queries, blocks }) => {
                let fits = |f: &&Forward| f.head_dim == at.head_dim && f.queries == queries;
                let found = FORWARD.iter().find(fits).filter(|f| f.kernel(at).is_some());
                found.map(|forward| Plan { forward, blocks })
            }
            None => choose(at, packed.ends).map(|forward| Plan { forward, blocks: processors }),
        }
    }

    /// Rows of a packed tensor in boxes [rows, 64], swizzled by 128 bytes.
    fn rows_map(&self, base: Address, width: usize, rows: usize, tile: usize) -> TensorMap {
        self.tensor_map(&TileShape {
            base,
            element_bytes: 2,
            dims: &[width as u64, rows as u64],
            strides: &[width as u64 * 2],
            tile: &[64, tile as u32],
            swizzle: 128,
        })
    }

    fn batch_arg(&self, call: &Call, items: usize, blocks: usize) -> Arg {
        let (packed, at) = (&call.packed, call.at);
        Arg::of(BatchArg {
            cu_seqlens: packed.cu_seqlens.address().0,
            order: packed.order.address().0,
            sequences: packed.sequences() as i32,
            heads: at.heads as i32,
            section: section(at, packed.ends, blocks) as i32,
            items: items as i32,
            counter: self.counter().0,
        })
    }

    /// o and lse of a batch.
    pub(super) fn hopper_forward(
        &self,
        plan: &Plan,
        o: &mut Tensor<bf16>,
        lse: &mut Tensor<f32>,
        call: &Call,
    ) {
        let (at, width) = (call.at, 3 * call.at.width());
        let Forward { queries, .. } = *plan.forward;
        let items = tiles(call.packed.ends, queries) * at.heads;
        let qkv = call.packed.qkv.address();
        let args = [
            self.rows_map(qkv, width, call.rows, queries).into(),
            self.rows_map(qkv, width, call.rows, KEYS).into(),
            o.into(),
            lse.into(),
            self.batch_arg(call, items, plan.blocks),
            Arg::of(call.band()),
            call.scale().into(),
            at.dropout.into(),
        ];
        let shape = Shape::new(plan.blocks.min(items), plan.forward.threads());
        let kernel = plan.forward.kernel(at).expect("it was chosen for this");
        self.launch(kernel, shape.shared(plan.forward.shared()), &args);
    }

    /// dqkv of a batch, dq and dk rotated back.
    pub(super) fn hopper_backward(
        &self,
        plan: &Plan,
        dqkv: &mut Tensor<bf16>,
        d_o: &Tensor<bf16>,
        saved: &Attended<Self>,
        call: &Call,
        rotation: Option<Rotation<Self>>,
    ) {
        let (at, rows, width) = (call.at, call.rows, call.at.width());
        let of_width = BACKWARD.iter().find(|b| b.head_dim == at.head_dim);
        let backward = of_width.expect("there is one for each forward");
        let queries = backward.queries;
        // Statistics, sums of dq, turns.
        let turns = rows / queries + call.packed.sequences() + 1;
        let sums_at = call.stats_bytes().next_multiple_of(256);
        let turns_at = sums_at + rows * width * size_of::<f32>();
        let stats = self.workspace(turns_at + turns * at.heads * size_of::<u32>());
        let (sums, turns_at) = (stats.offset(sums_at), stats.offset(turns_at));
        self.attention_delta(stats, d_o, saved, call, Some((turns_at, turns)));

        let items = tiles(call.packed.ends, KEYS) * at.heads;
        let qkv = call.packed.qkv.address();
        let args = [
            self.rows_map(qkv, 3 * width, rows, KEYS).into(),
            self.rows_map(qkv, 3 * width, rows, queries).into(),
            self.rows_map(d_o.address(), width, rows, queries).into(),
            dqkv.into(),
            stats.into(),
            Arg::of(PartsArg { sums: sums.0, turns: turns_at.0, rows: rows as i32, padding: 0 }),
            self.batch_arg(call, items, plan.blocks),
            Arg::of(call.band()),
            call.scale().into(),
            at.dropout.into(),
            Rotation::arg(rotation),
        ];
        let shape = Shape::new(plan.blocks.min(items), Backward::THREADS);
        let kernel = if at.dropout.is_some() { backward.dropout } else { backward.plain };
        self.launch(kernel, shape.shared(backward.shared()), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fit_a_multiprocessor() {
        for forward in &FORWARD {
            assert!(forward.shared() <= 227 * 1024, "{}", forward.plain);
        }
        for backward in &BACKWARD {
            assert!(backward.shared() <= 227 * 1024, "{}", backward.plain);
        }
    }

    #[test]
    fn tiles_that_waste_rows_are_not_chosen() {
        let at = |head_dim, dropout| Attention {
            heads: 12,
            head_dim,
            causal: false,
            window: None,
            dropout,
        };
        let queries = |at: &Attention, length: i32| {
            let ends: Vec<i32> = (0..9).map(|s| s * length).collect();
            choose(at, &ends).map(|forward| forward.queries)
        };
        let plain = at(64, None);
        assert_eq!(
            [128, 512, 4096].map(|length| queries(&plain, length)),
            [Some(128), Some(128), Some(192)]
        );
        let dropout = crate::ops::Dropout { p: 0.1, seed: 1, step: 1, site: 1 };
        for at in [at(64, Some(dropout)), at(128, None), at(128, Some(dropout))] {
            assert_eq!(queries(&at, 4096), Some(128));
        }
        assert_eq!(queries(&at(96, None), 4096), None);
    }

    #[test]
    fn a_section_keeps_all_blocks_at_work() {
        let at = Attention { heads: 12, head_dim: 64, causal: false, window: None, dropout: None };
        let section = |length: i32| {
            let ends: Vec<i32> = (0..40).map(|s| s * length).collect();
            section(&at, &ends, 132)
        };
        assert_eq!([128, 512, 4096].map(section), [22, 6, 1]);
    }
}
