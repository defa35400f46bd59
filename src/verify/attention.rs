//! Checks of attention: forward and backward in one, over ragged batches.

use super::draw::{Angles, int, poisoned_acc, poisoned_x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::Buffer;
use crate::device::cpu::{Cpu, Element};
use crate::device::gpu::{AttentionCut, Gpu};
use crate::ops::Dropout;
use crate::ops::attention::{
    Attended, Attention, AttentionOps, Packed, hopper_queries, longest_first,
};

/// Tokens of a batch that belong to no sequence: kernels leave them alone.
const SPARE: usize = 3;

struct AttentionCheck<'a> {
    lengths: &'a [usize],
    at: Attention,
    /// Deviation of q, k and v.
    spread: f64,
    /// Whether the gradients of q and k are rotated back.
    rotary: bool,
    /// None: as the host chooses.
    cut: Option<AttentionCut>,
}

impl<E: Element> Check<Cpu<E>> for AttentionCheck<'_> {
    fn run(&self, dev: &Cpu<E>, draw: &mut Draw) -> Vec<Output> {
        self.run_on(dev, draw)
    }
}

impl Check<Gpu> for AttentionCheck<'_> {
    fn run(&self, dev: &Gpu, draw: &mut Draw) -> Vec<Output> {
        dev.fix_attention(self.cut);
        let out = self.run_on(dev, draw);
        dev.fix_attention(None);
        out
    }
}

impl AttentionCheck<'_> {
    fn run_on<D: AttentionOps>(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let at = &self.at;
        let tokens: usize = self.lengths.iter().sum();
        let (rows, width) = (tokens + SPARE, at.heads * at.head_dim);
        let mut ends = vec![0];
        for length in self.lengths {
            ends.push(ends[ends.len() - 1] + *length as i32);
        }
        let (cu_seqlens, order) = (&int(dev, &ends), &int(dev, &longest_first(&ends)));
        let qkv = &draw.x(dev, rows * 3 * width, self.spread);
        let d_o = draw.x(dev, rows * width, 1.0);
        let mut o = poisoned_x(dev, rows * width);
        let mut lse = poisoned_acc(dev, rows * at.heads);
        let mut dqkv = poisoned_x(dev, rows * 3 * width);
        let angles = self.rotary.then(|| {
            let mut positions: Vec<i32> = self.lengths.iter().flat_map(|&n| 0..n as i32).collect();
            positions.resize(rows, 0);
            Angles::new(dev, &positions, rows, at.head_dim)
        });
        let packed = || Packed { qkv, cu_seqlens, order, ends: &ends };
        dev.attention(&mut o, &mut lse, packed(), at);
        let saved = Attended { o: &o, lse: &lse };
        let rotation = angles.as_ref().map(Angles::rotation);
        dev.attention_backward(&mut dqkv, &d_o, saved, packed(), at, rotation);

        // The longest sum that a result takes.
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        let terms = longest.max(at.head_dim);
        let kind = Kind::StoredRows { terms, width: at.head_dim };
        let stored = |tensor, values| Output { tensor, values, kind };
        let first = |values: Vec<f64>, width: usize| values[..tokens * width].to_vec();
        let dqkv = first(dqkv.to_vec(), 3 * width);
        let part = |p: usize| -> Vec<f64> {
            dqkv.chunks_exact(width).skip(p).step_by(3).flatten().copied().collect()
        };
        // Where a query sees itself alone, its p is 1 and no score has a gradient: what is left of
        // it by rounding is judged beside ones, not beside nothing.
        let alone = if longest <= 1 || at.window == Some(0) { 1.0 } else { 0.0 };
        let of_scores = |p: usize| part(p).into_iter().map(|v| v + alone).collect();
        let lse = first(lse.to_vec(), at.heads);
        vec![
            stored("o", first(o.to_vec(), width)),
            Output { tensor: "lse", values: lse, kind: Kind::Summed(terms) },
            stored("dq", of_scores(0)),
            stored("dk", of_scores(1)),
            stored("dv", part(2)),
        ]
    }
}

/// Which keys a query sees.
type Band = (bool, Option<usize>);

const CAUSAL: Band = (true, None);
const BOTH_WAYS: Band = (false, None);

fn shape(heads: usize, head_dim: usize, (causal, window): Band, p: f64) -> Attention {
    let dropout = (p > 0.0).then_some(Dropout { p, seed: 11, step: 5, site: 2 });
    Attention { heads, head_dim, causal, window, dropout }
}

fn check(v: &mut Verifier, lengths: &[usize], heads: usize, d: usize, band: Band, p: f64) {
    check_as(v, lengths, shape(heads, d, band, p), 1.0, false);
}

fn check_rotary(v: &mut Verifier, lengths: &[usize], heads: usize, d: usize, band: Band, p: f64) {
    check_as(v, lengths, shape(heads, d, band, p), 1.0, true);
}

fn check_as(v: &mut Verifier, lengths: &[usize], at: Attention, spread: f64, rotary: bool) {
    let Attention { heads, head_dim, causal, window, dropout } = at;
    let mut shape = match lengths {
        [] | [_] | [_, _] | [_, _, _] => format!("{lengths:?}"),
        [first, .., last] => format!("[{first} .. {last}]×{}", lengths.len()),
    };
    shape += &format!(" {heads}×{head_dim}{}", if causal { " causal" } else { "" });
    if let Some(w) = window {
        shape += &format!(" ±{w}");
    }
    if let Some(Dropout { p, .. }) = dropout {
        shape += &format!(" p {p}");
    }
    if spread != 1.0 {
        shape += &format!(" spread {spread}");
    }
    if rotary {
        shape += " rotary";
    }
    for (name, cut) in cuts(v, &at) {
        let check = AttentionCheck { lengths, at, spread, rotary, cut };
        v.check("attention", format!("{shape}{name}"), &check);
    }
}

/// Every kind of kernel that takes such heads. Few blocks, so that each goes through several items.
fn cuts(v: &Verifier, at: &Attention) -> Vec<(String, Option<AttentionCut>)> {
    let mut cuts = vec![(String::new(), Some(AttentionCut::Portable))];
    if v.gpu.naive() || !v.gpu.has_hopper() {
        return cuts;
    }
    for queries in hopper_queries(at) {
        let cut = AttentionCut::Hopper { queries, blocks: 3 };
        cuts.push((format!(", hopper {queries}"), Some(cut)));
    }
    cuts
}

pub fn attention(v: &mut Verifier) {
    let widths = [16, 32, 48, 64, 80, 96, 128, 256];
    let bands = [CAUSAL, BOTH_WAYS, (false, Some(20)), (true, Some(33)), (false, Some(0))];
    // Every width, some twice tiled, with and without dropout; every band.
    for (i, d) in widths.into_iter().enumerate() {
        check(v, &[7, 0, 65, 1], 1, d, bands[i % 4], 0.0);
        check(v, &[1, 33], 2, d, bands[(i + 1) % 4], 0.25);
    }
    for band in bands {
        check(v, &[130], 1, 64, band, 0.0);
    }
    check(v, &[113, 64], 2, 64, CAUSAL, 0.1);
    // Scores so far apart that later tiles of keys outgrow the first: what is summed shrinks.
    for band in [CAUSAL, BOTH_WAYS] {
        check_as(v, &[130], shape(1, 64, band, 0.0), 3.0, false);
    }
    check(v, &[0, 0], 1, 64, CAUSAL, 0.0);
    check_rotary(v, &[7, 0, 65, 1], 2, 64, BOTH_WAYS, 0.0);
    check_rotary(v, &[33, 5], 2, 80, CAUSAL, 0.0);
    // Several tiles of queries and keys, sections of several sequences.
    if v.gpu.has_hopper() && !v.gpu.naive() {
        for band in bands {
            check(v, &[7, 400, 0, 257, 1], 2, 64, band, 0.0);
        }
        check(v, &[300], 1, 128, CAUSAL, 0.0);
        check(v, &[140, 290], 1, 128, (false, Some(64)), 0.0);
        check(v, &[130, 260], 2, 64, BOTH_WAYS, 0.1);
        check(v, &[300], 1, 64, (false, Some(33)), 0.1);
        check(v, &[7, 140, 270], 1, 128, BOTH_WAYS, 0.1);
        check(v, &[290], 1, 128, (true, Some(100)), 0.25);
        check(v, &[650], 1, 64, (false, Some(64)), 0.0);
        check(v, &[513], 1, 64, BOTH_WAYS, 0.0);
        // Both ways, the block that rotates a tile of dq is not that of the same keys.
        check_rotary(v, &[7, 400, 0, 257, 1], 2, 64, BOTH_WAYS, 0.0);
        check_rotary(v, &[130, 260], 2, 64, (false, Some(64)), 0.1);
        check_rotary(v, &[140, 33], 2, 128, BOTH_WAYS, 0.0);
        check_rotary(v, &[300], 1, 128, CAUSAL, 0.1);
    }
    if v.sizes == Sizes::Full {
        full(v);
    }
}

fn full(v: &mut Verifier) {
    let bands = [CAUSAL, BOTH_WAYS, (false, Some(64)), (true, Some(100))];
    for length in [1, 64, 113, 239, 256, 512, 799, 1023, 1024, 4096, 4224] {
        for band in bands {
            check(v, &[length], 2, 64, band, 0.0);
        }
        check(v, &[length], 1, 128, CAUSAL, 0.0);
        check(v, &[length], 1, 128, BOTH_WAYS, 0.0);
    }
    for d in [16, 32, 48, 64, 80, 96, 128, 256] {
        for band in bands {
            check(v, &[799, 1, 0, 1023, 130], 2, d, band, 0.1);
        }
    }
    // 65,536 tokens: documents as they come, empty and of one token among them.
    let mut ragged: Vec<usize> =
        (0..).map(|i: usize| i * 7919 % 1024 / (1 + i % 3)).take(200).collect();
    ragged[3] = 0;
    ragged[4] = 1;
    ragged.push(65_536 - ragged.iter().sum::<usize>());
    check(v, &ragged, 12, 64, CAUSAL, 0.0);
    check(v, &[512; 128], 12, 64, BOTH_WAYS, 0.1);
    check(v, &[1024; 64], 12, 64, CAUSAL, 0.0);
    check_rotary(v, &ragged, 12, 64, BOTH_WAYS, 0.0);
}
