//! Launches `kernels/cache.cu`.

use half::bf16;

use super::{CacheOps, Kept};
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::{Gpu, Tensor};
use crate::ops::attention::{Attention, supports};

/// The kernel of each head width; those of `supports`.
const KERNELS: [(usize, &str); 7] = [
    (16, "attend_16"),
    (32, "attend_32"),
    (48, "attend_48"),
    (64, "attend_64"),
    (80, "attend_80"),
    (96, "attend_96"),
    (128, "attend_128"),
];

/// Tokens that a block goes through, as `PART` of `kernels/cache.cu`. Fixed, so that a sequence's
/// results are the same whatever is beside it.
const PART: usize = 128;

const THREADS: u32 = 128;

impl CacheOps for Gpu {
    fn keep(
        &self,
        cache: &mut Tensor<bf16>,
        qkv: &Tensor<bf16>,
        rows: &Tensor<i32>,
        width: usize,
        count: usize,
    ) {
        let args = [cache.into(), qkv.into(), rows.into(), width.into(), count.into()];
        self.launch("keep", Shape::each(count * 2 * width / 8, THREADS), &args);
    }

    fn attend(&self, o: &mut Tensor<bf16>, qkv: &Tensor<bf16>, kept: Kept<Self>, at: &Attention) {
        let d = at.head_dim;
        let longest = kept.seen(at).max().unwrap_or(0);
        let heads = kept.known.len() * at.heads;
        let behind: Arg = at.window.map_or(i32::MAX, |window| window as i32).into();
        let scale = (1.0 / (d as f64).sqrt()) as f32;
        let Kept { cache, rows, lengths, stride, .. } = kept;
        let [cache, rows, lengths] = [cache.into(), rows.into(), lengths.into()];
        let last: [Arg; 4] = [stride.into(), at.heads.into(), behind, scale.into()];
        if self.naive() {
            let mut args = vec![o.into(), qkv.into(), cache, rows, lengths, d.into()];
            args.extend(last);
            return self.launch("attend_naive", Shape::new(heads, THREADS), &args);
        }
        let found = KERNELS.iter().find(|(width, _)| *width == d);
        let (_, kernel) = found.unwrap_or_else(|| panic!("attend: {}", supports(at).unwrap_err()));
        let parts = longest.div_ceil(PART);
        let sums = self.workspace(heads * parts * (d + 2) * size_of::<f32>());
        let mut args = vec![o.into(), sums.into(), qkv.into(), cache, rows, lengths];
        args.extend(last);
        self.launch(kernel, Shape::grid([heads, parts, 1], THREADS), &args);
        if parts > 1 {
            let sizes: [Arg; 4] = [heads.into(), at.heads.into(), d.into(), parts.into()];
            let [all, heads_arg, d_arg, parts] = sizes;
            let args = [o.into(), sums.into(), lengths, all, heads_arg, d_arg, behind, parts];
            self.launch("attend_join", Shape::each(heads * d, THREADS), &args);
        }
    }
}
