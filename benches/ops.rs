//! The op families on the CPU device, at the shapes of a GPT of width 384 over 4,096 tokens, and
//! the products beside the gemm crate called directly on the same shapes with the same threads.
//!
//!     cargo bench --bench ops -- [filter]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use warpwright::device::cpu::Cpu;
use warpwright::ops::activation::Activation;
use warpwright::ops::attention::{Attended, Attention, AttentionOps, Packed, longest_first};
use warpwright::ops::dropout::DropoutOps;
use warpwright::ops::embed::{Embed, EmbedOps, Tokens};
use warpwright::ops::gather::GatherOps;
use warpwright::ops::linear::{Linear, LinearOps};
use warpwright::ops::loss::{LossGrads, LossInput, LossOps};
use warpwright::ops::norm::{Norm, NormKind, NormOps, Normed};
use warpwright::ops::optimizer::{Arenas, Group, OptimizerOps, Rule, Update};
use warpwright::ops::reduce::ReduceOps;
use warpwright::ops::rope::Rotation;
use warpwright::ops::{Dropout, Into, Span, dropout, gather, reduce, rope};
use warpwright::rng::{Philox, Stream};

const N: usize = 4096;
const C: usize = 384;
const F: usize = 1536;
const V: usize = 2048;
const S: usize = 256;
const CPU: fn() -> Cpu<f32> = Cpu::new;

/// `len` normal draws.
fn random(len: usize) -> Vec<f32> {
    let philox = Philox::new(7);
    let blocks = (0..len.div_ceil(4) as u64).flat_map(|i| philox.normal(Stream::Sample, 0, i));
    blocks.take(len).map(|z| z as f32).collect()
}

fn span(start: usize, len: usize) -> Span {
    Span { start, len }
}

/// y [m, n] = a [m, k] b [k, n] by the gemm crate itself, on all threads.
fn gemm_alone(y: &mut [f32], a: &[f32], b: &[f32], (m, n, k): (usize, usize, usize)) {
    let threads = gemm::Parallelism::Rayon(0);
    assert!(y.len() == m * n && a.len() == m * k && b.len() == k * n);
    // SAFETY: row-major matrices whose sizes were just checked.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            1,
            n as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}

/// Ours in the three layouts, then the crate's own call on the same three sizes.
fn linear(c: &mut Criterion) {
    let dev = CPU();
    for (name, n_in, n_out) in [("qkv", C, 3 * C), ("out", C, C), ("fc", C, F), ("proj", F, C)] {
        let (params, x, dy) = (random(n_in * n_out + n_out), random(N * n_in), random(N * n_out));
        let bias = Some(span(n_in * n_out, n_out));
        let at = Linear { weight: span(0, n_in * n_out), bias, n_in, n_out };
        let (mut y, mut dx) = (vec![0.0; N * n_out], vec![0.0; N * n_in]);
        let mut grads = vec![0.0; params.len()];
        let mut group = c.benchmark_group(format!("linear/{name}"));
        group.throughput(Throughput::Elements((2 * N * n_in * n_out) as u64));
        group.bench_function("forward", |b| b.iter(|| dev.linear(&mut y, &x, &params, &at, N)));
        group.bench_function("forward, gemm alone", |b| {
            b.iter(|| gemm_alone(&mut y, &x, &params[..n_in * n_out], (N, n_out, n_in)))
        });
        group.bench_function("dx", |b| {
            b.iter(|| dev.linear_dx(&mut dx, &dy, &params, &at, N, Into::Set))
        });
        group.bench_function("dx, gemm alone", |b| {
            b.iter(|| gemm_alone(&mut dx, &dy, &params[..n_in * n_out], (N, n_in, n_out)))
        });
        group.bench_function("dw", |b| b.iter(|| dev.linear_dw(&mut grads, &dy, &x, &at, N)));
        group.bench_function("dw, gemm alone", |b| {
            b.iter(|| gemm_alone(&mut grads[..n_in * n_out], &dy, &x, (n_out, n_in, N)))
        });
        group.finish();
    }
}

fn attention(c: &mut Criterion) {
    let dev = CPU();
    let (qkv, d_o) = (random(N * 3 * C), random(N * C));
    let cu_seqlens: Vec<i32> = (0..=N / S).map(|s| (s * S) as i32).collect();
    let (mut o, mut lse, mut dqkv) = (vec![0.0; N * C], vec![0.0; N * 6], vec![0.0; N * 3 * C]);
    let order = longest_first(&cu_seqlens);
    let packed = || Packed { qkv: &qkv, cu_seqlens: &cu_seqlens, order: &order, ends: &cu_seqlens };
    let mut group = c.benchmark_group("attention");
    for (name, causal, window) in
        [("causal", true, None), ("full", false, None), ("±64", false, Some(64))]
    {
        let at = Attention { heads: 6, head_dim: 64, causal, window, dropout: None };
        group.throughput(Throughput::Elements((4 * N / S * at.pairs(S) * C) as u64));
        group.bench_function(format!("{name}/forward"), |b| {
            b.iter(|| dev.attention(&mut o, &mut lse, packed(), &at))
        });
        group.bench_function(format!("{name}/backward"), |b| {
            b.iter(|| {
                let saved = Attended { o: &o, lse: &lse };
                dev.attention_backward(&mut dqkv, &d_o, saved, packed(), &at, None)
            })
        });
    }
    group.finish();
}

fn norm(c: &mut Criterion) {
    let dev = CPU();
    let (x, dy, params) = (random(N * C), random(N * C), random(2 * C));
    let (mut y, mut stats, mut grads) = (vec![0.0; N * C], vec![0.0; 2 * N], vec![0.0; 2 * C]);
    let bias = Some(span(C, C));
    let mut group = c.benchmark_group("norm");
    group.throughput(Throughput::Bytes((8 * N * C) as u64));
    for kind in [NormKind::Layer, NormKind::Rms] {
        let at = Norm { kind, weight: span(0, C), bias, width: C, eps: 1e-5 };
        group.bench_function(format!("{kind:?}/forward"), |b| {
            b.iter(|| dev.norm(&mut y, &mut stats, &x, &params, &at, N))
        });
        group.bench_function(format!("{kind:?}/backward"), |b| {
            b.iter(|| {
                let saved = Normed { x: &x, stats: &stats, params: &params };
                dev.norm_backward(&mut y, &mut grads, &dy, saved, &at, N, Into::Set)
            })
        });
    }
    group.finish();
}

/// The products around a gate.
fn gate(c: &mut Criterion) {
    let dev = CPU();
    let (params, x, dy) = (random(C * 2 * F), random(N * C), random(N * C));
    let (mut y, mut pre) = (vec![0.0; N * F], vec![0.0; N * 2 * F]);
    let mut dpre = vec![0.0; N * 2 * F];
    let up = Linear { weight: span(0, C * 2 * F), bias: None, n_in: C, n_out: 2 * F };
    let down = Linear { weight: span(0, F * C), bias: None, n_in: F, n_out: C };
    let mut group = c.benchmark_group("gate");
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        group.throughput(Throughput::Elements((4 * N * C * F) as u64));
        group.bench_function(format!("{activation:?}/forward"), |b| {
            b.iter(|| dev.linear_gate(&mut y, &mut pre, &x, &params, &up, activation, N))
        });
        group.throughput(Throughput::Elements((2 * N * C * F) as u64));
        group.bench_function(format!("{activation:?}/dx"), |b| {
            b.iter(|| dev.linear_dx_gate(&mut dpre, &dy, &pre, &params, &down, activation, N))
        });
    }
    group.finish();
}

fn embed(c: &mut Criterion) {
    let dev = CPU();
    let (params, dy) = (random((V + S) * C), random(N * C));
    let ids: Vec<i32> = (0..N).map(|i| (i * 769 % V) as i32).collect();
    let positions: Vec<i32> = (0..N).map(|i| (i % S) as i32).collect();
    let at = Embed {
        tokens: span(0, V * C),
        positions: Some(span(V * C, S * C)),
        offset: 0,
        types: None,
        width: C,
    };
    let tokens = || Tokens { ids: &ids, positions: &positions, types: &positions, rows: N };
    let (mut y, mut grads) = (vec![0.0; N * C], vec![0.0; params.len()]);
    let mut group = c.benchmark_group("embed");
    group.throughput(Throughput::Elements(N as u64));
    group.bench_function("forward", |b| b.iter(|| dev.embed(&mut y, tokens(), &params, &at)));
    group.bench_function("backward", |b| {
        b.iter(|| dev.embed_backward(&mut grads, &dy, tokens(), &at))
    });
    group.finish();
}

fn loss(c: &mut Criterion) {
    let dev = CPU();
    let (x, params) = (random(N * C), random(V * C));
    let targets: Vec<i32> = (0..N).map(|i| (i * 769 % V) as i32).collect();
    let at = Linear { weight: span(0, V * C), bias: None, n_in: C, n_out: V };
    let (mut sums, mut logits) = (vec![0.0; 3], vec![0.0; 1024 * V]);
    let (mut dx, mut grads) = (vec![0.0; N * C], vec![0.0; V * C]);
    let mut group = c.benchmark_group("loss");
    group.throughput(Throughput::Elements(N as u64));
    group.bench_function("head_loss, training", |b| {
        b.iter(|| {
            let labelled = &vec![N as i32];
            let train = Some(LossGrads { dx: &mut dx, grads: &mut grads, labelled });
            let input = LossInput { x: &x, targets: &targets, rows: N };
            dev.head_loss(&mut sums, train, &mut logits, input, &params, &at);
            black_box(sums[0])
        })
    });
    group.finish();
}

fn optimizer(c: &mut Criterion) {
    let dev = CPU();
    let len = 1 << 22;
    let grads = random(len);
    let (mut params, mut master) = (random(len), random(len));
    let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
    let control = vec![1.0, 1.0, 10.0, 0.0];
    let group_of_all = [Group { span: span(0, len), lr_scale: 1.0, decay: 0.1 }];
    let update = Update { rule: Rule::default(), lr: 1e-4, clip: 1.0, stochastic: None };
    let mut group = c.benchmark_group("optimizer");
    group.throughput(Throughput::Elements(len as u64));
    group.bench_function("adamw", |b| {
        b.iter(|| {
            let (params, master) = (&mut params, &mut master);
            let arenas = Arenas { params, master, m: &mut m, v: &mut v };
            dev.update(arenas, &grads, &control, &update, &group_of_all)
        })
    });
    group.finish();
}

/// The product that makes qkv, with the rotation that is part of it.
fn rope(c: &mut Criterion) {
    let dev = CPU();
    let table: Vec<f32> = rope::table(S, 64, 1e4).into_iter().map(|x| x as f32).collect();
    let positions: Vec<i32> = (0..N).map(|i| (i % S) as i32).collect();
    let (x, params, mut qkv) = (random(N * C), random(3 * C * C), vec![0.0; N * 3 * C]);
    let at = Linear { weight: Span::first(3 * C * C), bias: None, n_in: C, n_out: 3 * C };
    let mut group = c.benchmark_group("rope");
    group.throughput(Throughput::Elements((2 * N * C * 3 * C) as u64));
    group.bench_function("linear_rope", |b| {
        b.iter(|| {
            let rotation = Rotation { table: &table, positions: &positions, head_dim: 64 };
            dev.linear_rope(&mut qkv, &x, &params, &at, rotation, N)
        })
    });
    group.finish();
}

/// 30% of the rows, in order, as a masked model picks them.
fn gather(c: &mut Criterion) {
    let dev = CPU();
    let rows: Vec<i32> = (0..N as i32).filter(|i| i * 769 % 100 < 30).collect();
    let m = rows.len();
    let (x, mut y, mut dx) = (random(N * C), random(m * C), random(N * C));
    let mut group = c.benchmark_group("gather");
    group.throughput(Throughput::Bytes(gather::cost(C, m, 2, 4).bytes as u64));
    group.bench_function("gather", |b| b.iter(|| dev.gather(&mut y, &x, &rows, C, m)));
    group.throughput(Throughput::Bytes(gather::cost(C, m, 3, 4).bytes as u64));
    group.bench_function("scatter_add", |b| b.iter(|| dev.scatter_add(&mut dx, &y, &rows, C, m)));
    group.finish();
}

fn dropout(c: &mut Criterion) {
    let dev = CPU();
    let (x, mut y) = (random(N * C), vec![0.0; N * C]);
    let at = Dropout { p: 0.1, seed: 1, step: 0, site: 0 };
    let mut group = c.benchmark_group("dropout");
    group.throughput(Throughput::Bytes(dropout::cost(N * C, 4).bytes as u64));
    group.bench_function("dropout", |b| b.iter(|| dev.dropout(&mut y, &x, at, N * C)));
    group.finish();
}

fn reduce(c: &mut Criterion) {
    let dev = CPU();
    let len = 1 << 22;
    let (mut grads, sums, mut control) = (random(len), vec![1.0; 3], vec![0.0; reduce::CONTROL]);
    let mut group = c.benchmark_group("reduce");
    group.throughput(Throughput::Bytes(reduce::cost(len, 4).bytes as u64));
    group.bench_function("judge", |b| b.iter(|| dev.judge(&mut control, &grads, &sums)));
    group.bench_function("zero_acc", |b| b.iter(|| dev.zero_acc(&mut grads)));
    group.finish();
}

criterion_group! {
    name = families;
    config = Criterion::default().sample_size(10);
    targets = linear, gate, attention, norm, embed, loss, optimizer, rope, gather, dropout,
        reduce
}
criterion_main!(families);
