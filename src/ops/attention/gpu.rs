//! Launches of `kernels/attention.cu` and `attention_backward.cu`.

use half::bf16;

use super::{Attended, Attention, AttentionOps, Packed};
use crate::device::Buffer;
use crate::device::gpu::driver::Address;
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::{Gpu, Tensor};
use crate::ops::rope::{Rotation, Turn};

/// The kernels of one head width D.
struct Kernels {
    head_dim: usize,
    forward: &'static str,
    /// Backward for keys and values, and for queries.
    keys: &'static str,
    queries: &'static str,
}

const KERNELS: &[Kernels] = &[
    Kernels {
        head_dim: 16,
        forward: "attention_16",
        keys: "attention_keys_16",
        queries: "attention_queries_16",
    },
    Kernels {
        head_dim: 32,
        forward: "attention_32",
        keys: "attention_keys_32",
        queries: "attention_queries_32",
    },
    Kernels {
        head_dim: 48,
        forward: "attention_48",
        keys: "attention_keys_48",
        queries: "attention_queries_48",
    },
    Kernels {
        head_dim: 64,
        forward: "attention_64",
        keys: "attention_keys_64",
        queries: "attention_queries_64",
    },
    Kernels {
        head_dim: 80,
        forward: "attention_80",
        keys: "attention_keys_80",
        queries: "attention_queries_80",
    },
    Kernels {
        head_dim: 96,
        forward: "attention_96",
        keys: "attention_keys_96",
        queries: "attention_queries_96",
    },
    Kernels {
        head_dim: 128,
        forward: "attention_128",
        keys: "attention_keys_128",
        queries: "attention_queries_128",
    },
    Kernels {
        head_dim: 256,
        forward: "attention_256",
        keys: "attention_keys_256",
        queries: "attention_queries_256",
    },
];

impl Kernels {
    /// Rows that a block of the forward owns: as many as its registers hold sums for.
    fn forward_tile(&self) -> usize {
        if self.head_dim <= 128 { 128 } else { 64 }
    }

    /// The same of the backward, and rows of the tiles that it goes through.
    fn backward_tile(&self) -> (usize, usize) {
        match self.head_dim {
            ..=64 => (128, STEP),
            65..=128 => (64, STEP),
            _ => (32, STEP / 2),
        }
    }
}

/// Rows of the tiles that a block of the forward goes through.
const STEP: usize = 32;

/// As in `kernels/attention.cuh`.
pub(in crate::ops) const NAIVE_THREADS: u32 = 256;

/// Whether there are kernels for this shape; else why not, and what comes nearest.
pub fn supports(at: &Attention) -> Result<(), String> {
    let width = at.head_dim;
    if KERNELS.iter().any(|kernels| kernels.head_dim == width) {
        return Ok(());
    }
    let nearest = KERNELS.iter().map(|kernels| kernels.head_dim).min_by_key(|d| d.abs_diff(width));
    Err(format!(
        "no attention kernel takes heads of width {width}: the nearest that one takes is {}",
        nearest.expect("there are kernels")
    ))
}

/// A batch as the launches see it.
pub(super) struct Call<'a> {
    pub packed: Packed<'a, Gpu>,
    pub at: &'a Attention,
    /// N
    pub rows: usize,
}

impl Call<'_> {
    fn kernels(&self) -> &'static Kernels {
        let mut all = KERNELS.iter();
        let found = all.find(|kernels| kernels.head_dim == self.at.head_dim);
        found.unwrap_or_else(|| panic!("attention: {}", supports(self.at).unwrap_err()))
    }

    /// Blocks for all tiles of `tile` rows, whatever the sequences' lengths (`find_tile` in
    /// `kernels/attention.cuh`), with `resident` rows in shared memory beside two stages of two
    /// tiles of `step`.
    fn shape(&self, tile: usize, resident: usize, step: usize) -> Shape {
        let bytes = (resident + 4 * step) * (self.at.head_dim + 8) * size_of::<bf16>();
        let blocks = [self.rows / tile + self.packed.sequences(), self.at.heads, 1];
        Shape::grid(blocks, 128).shared(bytes)
    }

    /// One block a row and head.
    fn naive_shape(&self) -> Shape {
        Shape::grid([self.rows + self.packed.sequences(), self.at.heads, 1], NAIVE_THREADS)
    }

    /// The keys that a query sees, behind and ahead of it.
    pub fn band(&self) -> [i32; 2] {
        let all = self.rows;
        let behind = self.at.window.unwrap_or(all).min(all) as i32;
        [behind, if self.at.causal { 0 } else { behind }]
    }

    /// 1/√D
    pub fn scale(&self) -> f32 {
        (1.0 / (self.at.head_dim as f64).sqrt()) as f32
    }

    /// Of (lse log2 e, δ) [H, N].
    pub fn stats_bytes(&self) -> usize {
        self.rows * self.at.heads * size_of::<[f32; 2]>()
    }

    /// What ends every list of arguments: the band of keys that a query sees, 1/√D, dropout.
    fn last_args(&self) -> [Arg; 4] {
        let [behind, ahead] = self.band();
        [behind.into(), ahead.into(), self.scale().into(), self.at.dropout.into()]
    }
}

impl AttentionOps for Gpu {
    fn attention(
        &self,
        o: &mut Tensor<bf16>,
        lse: &mut Tensor<f32>,
        packed: Packed<Self>,
        at: &Attention,
    ) {
        let rows = o.len() / at.width();
        let call = Call { packed, at, rows };
        let Packed { qkv, cu_seqlens, .. } = call.packed;
        let sequences = call.packed.sequences();
        if sequences == 0 {
            return;
        }
        if !self.naive()
            && let Some(plan) = self.hopper_attention(&call.packed, at)
        {
            return self.hopper_forward(&plan, o, lse, &call);
        }
        let mut args: Vec<Arg> = vec![
            o.into(),
            lse.into(),
            qkv.into(),
            cu_seqlens.into(),
            sequences.into(),
            at.heads.into(),
        ];
        if self.naive() {
            args.push(at.head_dim.into());
            args.extend(call.last_args());
            self.launch("attention_naive", call.naive_shape(), &args);
        } else {
            let kernels = call.kernels();
            args.extend(call.last_args());
            let tile = kernels.forward_tile();
            self.launch(kernels.forward, call.shape(tile, tile, STEP), &args);
        }
    }

    fn attention_backward(
        &self,
        dqkv: &mut Tensor<bf16>,
        d_o: &Tensor<bf16>,
        saved: Attended<Self>,
        packed: Packed<Self>,
        at: &Attention,
        rotation: Option<Rotation<Self>>,
    ) {
        let rows = d_o.len() / at.width();
        let call = Call { packed, at, rows };
        if call.packed.sequences() == 0 {
            return;
        }
        let mut to_turn = rotation;
        if self.naive() {
            self.backward_naive(dqkv, d_o, &saved, &call);
        } else if let Some(plan) = self.hopper_attention(&call.packed, at) {
            self.hopper_backward(&plan, dqkv, d_o, &saved, &call, to_turn.take());
        } else {
            self.backward_fast(dqkv, d_o, &saved, &call);
        }
        if let Some(rotation) = to_turn {
            let tokens = call.packed.tokens();
            self.rope(dqkv, rotation, at.width(), tokens, Turn::Backward);
        }
    }
}

impl Gpu {
    /// stats [H, N], and words that are set to zero, so many a head.
    pub(super) fn attention_delta(
        &self,
        stats: Address,
        d_o: &Tensor<bf16>,
        saved: &Attended<Self>,
        call: &Call,
        turns: Option<(Address, usize)>,
    ) {
        let (rows, heads) = (call.rows, call.at.heads);
        let args = [
            stats.into(),
            saved.o.into(),
            d_o.into(),
            saved.lse.into(),
            call.packed.cu_seqlens.into(),
            call.packed.sequences().into(),
            rows.into(),
            heads.into(),
            call.at.head_dim.into(),
            turns.map(|(turns, _)| turns).into(),
            turns.map_or(0, |(_, count)| count).into(),
        ];
        let shape = Shape::grid([rows.div_ceil(32), heads, 1], 256);
        self.launch("attention_delta", shape, &args);
    }

    fn backward_naive(
        &self,
        dqkv: &mut Tensor<bf16>,
        d_o: &Tensor<bf16>,
        saved: &Attended<Self>,
        call: &Call,
    ) {
        let Packed { qkv, cu_seqlens, .. } = call.packed;
        let sequences = call.packed.sequences();
        let mut args: Vec<Arg> = vec![
            dqkv.into(),
            qkv.into(),
            saved.o.into(),
            d_o.into(),
            saved.lse.into(),
            cu_seqlens.into(),
            sequences.into(),
            call.at.heads.into(),
            call.at.head_dim.into(),
        ];
        args.extend(call.last_args());
        self.launch("attention_queries_naive", call.naive_shape(), &args);
        self.launch("attention_keys_naive", call.naive_shape(), &args);
    }

    fn backward_fast(
        &self,
        dqkv: &mut Tensor<bf16>,
        d_o: &Tensor<bf16>,
        saved: &Attended<Self>,
        call: &Call,
    ) {
        let Packed { qkv, cu_seqlens, .. } = call.packed;
        let sequences = call.packed.sequences();
        let (rows, heads) = (call.rows, call.at.heads);
        let stats = self.workspace(call.stats_bytes());
        self.attention_delta(stats, d_o, saved, call, None);
        let mut args: Vec<Arg> = vec![
            dqkv.into(),
            qkv.into(),
            d_o.into(),
            stats.into(),
            cu_seqlens.into(),
            sequences.into(),
            rows.into(),
            heads.into(),
        ];
        args.extend(call.last_args());
        let kernels = call.kernels();
        let (tile, step) = kernels.backward_tile();
        self.launch(kernels.keys, call.shape(tile, 2 * tile, step), &args);
        self.launch(kernels.queries, call.shape(tile, 2 * tile, step), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_without_kernels_is_refused_with_the_nearest() {
        let of = |head_dim| {
            supports(&Attention { heads: 1, head_dim, causal: true, window: None, dropout: None })
        };
        for width in [16, 32, 48, 64, 80, 96, 128, 256] {
            assert_eq!(of(width), Ok(()));
        }
        for (width, nearest) in [(8, "16"), (65, "64"), (112, "96"), (120, "128"), (512, "256")] {
            let why = of(width).unwrap_err();
            assert!(why.ends_with(&format!("the nearest that one takes is {nearest}")), "{why}");
        }
    }
}
