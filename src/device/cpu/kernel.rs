//! Products of f32 matrices for CPUs with AVX2 and FMA: y [m, n] = or += a [m, k] b [k, n].
//!
//! Blocking after Goto and van de Geijn (2008). The innermost unit is a tile of y, MR × NR =
//! 6 × 16, kept in 12 of the 16 vector registers: a step of k loads two vectors of b and
//! broadcasts six elements of a for 12 multiply-adds, 6 cycles' work for two FMA units. Around it:
//!
//!   for NC columns of b, KC of its rows: pack them in panels [KC, NR]      → L3
//!     for MC rows of a, the same KC columns: pack them in panels [KC, MR]  → L2
//!       for each panel of b                                                → L1
//!         for each panel of a: tile += panel of a · panel of b
//!
//! Packing reads either layout and any stored type, and pads with zeros, so the tile knows neither.
//!
//! The sizes. A panel of b is used MC / MR times in a row and should stay in L1 (32 KiB) while
//! panels of a stream past: KC · NR · 4 B = 24 KiB gives KC = 384, and leaves 8 KiB for a's
//! 9 KiB, of which a line is needed once. The block of a must stay in L2 (512 KiB, of which
//! another thread of the core may own half): MC · KC · 4 B = 216 KiB, MC = 144. The block of b
//! is read from L3 once for every MC rows: NC = 2048, 3 MiB. A tile costs 2 · MR · NR · 4 B of
//! traffic with y for MR · NR · KC multiply-adds, so a large KC matters most.
//!
//! Each element of y is summed in blocks of k, in order, whatever else is computed: a result does
//! not depend on the number of threads.

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::Element;
use super::product::Mat;
use crate::ops::Into;

const MR: usize = 6;
const NR: usize = 16;
const KC: usize = 384;
const MC: usize = 144;
const NC: usize = 2048;
/// f32 in a vector.
const LANES: usize = 8;

thread_local! {
    /// Packed a, then packed b; grown to the largest product so far.
    static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Whether this file is the best choice here: with AVX-512 the gemm crate's wider kernels are.
pub fn suits() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && !is_x86_feature_detected!("avx512f")
}

/// y [m, n] = or += a [m, k] b [k, n], row-major, all sizes above zero.
pub fn product<E, F>(y: &mut [f32], a: Mat<E>, b: Mat<F>, into: Into)
where
    E: Element<Acc = f32>,
    F: Element<Acc = f32>,
{
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(k == b.rows && m * n <= y.len());
    // Equal parts, as a short last one costs as much packing for less work.
    let kc = k.div_ceil(k.div_ceil(KC)).next_multiple_of(LANES);
    let mc = m.div_ceil(m.div_ceil(MC)).next_multiple_of(MR);
    let nc = n.next_multiple_of(NR).min(NC);
    // A panel of a is stored in whole vectors, the last of which reaches beyond it.
    let a_len = mc * kc + LANES;
    PACKED.with_borrow_mut(|packed| {
        if packed.len() < a_len + nc * kc {
            *packed = vec![0.0; a_len + nc * kc];
        }
        let (packed_a, packed_b) = packed.split_at_mut(a_len);
        for j in (0..n).step_by(nc) {
            for p in (0..k).step_by(kc) {
                let (columns, depth) = (nc.min(n - j), kc.min(k - p));
                pack::<F, NR>(packed_b, b.t(), j, columns, p, depth);
                for i in (0..m).step_by(mc) {
                    let rows = mc.min(m - i);
                    pack::<E, MR>(packed_a, a, i, rows, p, depth);
                    let add = into == Into::Add || p > 0;
                    let y = &mut y[i * n + j..];
                    tiles(y, packed_a, packed_b, (rows, columns, depth), n, add);
                }
            }
        }
    });
}

/// y [rows, columns], of rows `stride` long, = or += packed a · packed b.
fn tiles(
    y: &mut [f32],
    a: &[f32],
    b: &[f32],
    (rows, columns, depth): (usize, usize, usize),
    stride: usize,
    add: bool,
) {
    for j in (0..columns).step_by(NR) {
        let b = &b[j * depth..][..NR * depth];
        for i in (0..rows).step_by(MR) {
            let a = &a[i * depth..][..MR * depth];
            let (live_rows, live) = (MR.min(rows - i), NR.min(columns - j));
            let y = &mut y[i * stride + j..];
            if live_rows == MR && live == NR {
                // SAFETY: `suits` was asked for AVX2 and FMA.
                unsafe { tile(y, a, b, stride, add) };
                continue;
            }
            let mut edge = [0.0; MR * NR];
            // SAFETY: as above.
            unsafe { tile(&mut edge, a, b, NR, false) };
            for (r, edge) in edge.chunks_exact(NR).take(live_rows).enumerate() {
                for (y, &edge) in y[r * stride..][..live].iter_mut().zip(edge) {
                    *y = if add { *y + edge } else { edge };
                }
            }
        }
    }
}

/// y [MR, NR], of rows `stride` long, = or += a · b for a panel [depth, MR] and one [depth, NR].
#[target_feature(enable = "avx2,fma")]
fn tile(y: &mut [f32], a: &[f32], b: &[f32], stride: usize, add: bool) {
    let depth = b.len() / NR;
    assert!(a.len() >= depth * MR && y.len() >= (MR - 1) * stride + NR);
    let y = y.as_mut_ptr();
    let mut sums = [[_mm256_setzero_ps(); 2]; MR];
    // y is seldom in L1 by now; the loop below hides its way there.
    for i in 0..MR {
        for end in [0, NR - 1] {
            // SAFETY: a hint; the address is inside y, as asserted.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(y.add(i * stride + end).cast()) };
        }
    }
    let mut step = |p: usize| {
        // SAFETY: p < depth, so that both rows end within the lengths asserted above.
        let (a, b) = unsafe { (a.as_ptr().add(p * MR), b.as_ptr().add(p * NR)) };
        // SAFETY: as above.
        let b = unsafe { [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(LANES))] };
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above, i < MR.
            let a = unsafe { _mm256_set1_ps(*a.add(i)) };
            sums[0] = _mm256_fmadd_ps(a, b[0], sums[0]);
            sums[1] = _mm256_fmadd_ps(a, b[1], sums[1]);
        }
    };
    let whole = depth - depth % 4;
    for p in (0..whole).step_by(4) {
        step(p);
        step(p + 1);
        step(p + 2);
        step(p + 3);
    }
    for p in whole..depth {
        step(p);
    }
    for (i, sums) in sums.into_iter().enumerate() {
        for (half, sum) in sums.into_iter().enumerate() {
            // SAFETY: i < MR and half < 2, so this vector is inside y, as asserted.
            unsafe {
                let y = y.add(i * stride + half * LANES);
                let sum = if add { _mm256_add_ps(_mm256_loadu_ps(y), sum) } else { sum };
                _mm256_storeu_ps(y, sum);
            }
        }
    }
}

/// Rows `first` to `first + rows` of x, its columns `p` to `p + depth`, as panels [depth, W]: each
/// holds W rows, transposed; rows that are missing from the last are zero.
fn pack<E: Element<Acc = f32>, const W: usize>(
    out: &mut [f32],
    x: Mat<E>,
    first: usize,
    rows: usize,
    p: usize,
    depth: usize,
) {
    let whole = rows - rows % W;
    let start = first * x.row + p * x.col;
    let x_at = |i: usize, p: usize| start + i * x.row + p * x.col;
    let mut done = 0;
    if x.row == 1 {
        // Rows of x lie side by side: 8 columns at a time, of all panels.
        for p in (0..depth).step_by(8) {
            for i in (0..whole).step_by(W) {
                for p in p..depth.min(p + 8) {
                    let from = &x.data[x_at(i, p)..][..W];
                    let to = &mut out[i * depth + p * W..][..W];
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = from.wide();
                    }
                }
            }
        }
        done = depth;
    } else if x.col == 1 {
        done = depth - depth % LANES;
        for i in (0..whole).step_by(W) {
            for p in (0..done).step_by(LANES) {
                for l in (0..W).step_by(LANES) {
                    let mut square = [[0.0; LANES]; LANES];
                    for (r, row) in square.iter_mut().enumerate().take(W - l) {
                        let from = &x.data[x_at(i + l + r, p)..][..LANES];
                        *row = std::array::from_fn(|c| from[c].wide());
                    }
                    // SAFETY: `suits` was asked for AVX2.
                    let square = unsafe { transpose(&square) };
                    for (c, column) in square.iter().enumerate() {
                        // Of a panel narrower than a vector the next column overwrites the rest.
                        out[i * depth + (p + c) * W + l..][..LANES].copy_from_slice(column);
                    }
                }
            }
        }
    }
    // What is left: the last columns of whole panels, and a panel that is not whole.
    for i in (0..rows).step_by(W) {
        let (live, from) = (W.min(rows - i), if i < whole { done } else { 0 });
        for p in from..depth {
            for (l, to) in out[i * depth + p * W..][..W].iter_mut().enumerate() {
                *to = if l < live { x.data[x_at(i + l, p)].wide() } else { 0.0 };
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn transpose(x: &[[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
    // SAFETY: a row is as long as a vector.
    let row = |i: usize| unsafe { _mm256_loadu_ps(x[i].as_ptr()) };
    // Rows i and i + 4 in the two halves, so that what follows stays within halves.
    let pairs: [__m256; 8] = std::array::from_fn(|i| {
        let (a, b) = (row(i % 4), row(i % 4 + 4));
        match i / 4 {
            0 => _mm256_permute2f128_ps::<0x20>(a, b),
            _ => _mm256_permute2f128_ps::<0x31>(a, b),
        }
    });
    let mut out = [[0.0; LANES]; LANES];
    for half in 0..2 {
        let [a, b, c, d] = std::array::from_fn(|i| pairs[half * 4 + i]);
        let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let columns = [
            _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low),
            _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
        ];
        for (i, column) in columns.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(out[half * 4 + i].as_mut_ptr(), column) };
        }
    }
    out
}
