//! cuBLASLt as the program calls it, against `cuda/blas.cpp`: a library that knows matrices by
//! columns, checks what it is told of them, and multiplies on the CPU.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::{gpu, library, on_driver, on_libraries, trained, verified};
use warpwright::bench::call::{Arena, Call};
use warpwright::bench::measure::Bench;
use warpwright::bench::prepare::{Operands, Out};
use warpwright::bench::{ceilings, peer};
use warpwright::device::gpu::cuda::blas::{ALIGNED, Kind, Product};
use warpwright::device::gpu::{Gemm, Gpu, Kernels};
use warpwright::device::meter::Meter;
use warpwright::device::{Buffer, Class, Memory};
use warpwright::ops::Span;
use warpwright::ops::linear::Linear;

/// Runs `body` where the driver and the library are found.
fn on_library(test: &str, body: fn()) -> Option<String> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = || library("cuda-blas", "blas.cpp", "libcublasLt.so");
    on_libraries(test, "", &|| Some(BUILT.get_or_init(built).clone()), body)
}

fn opened() -> Gpu {
    Gpu::new(Box::new(gpu()), Kernels::Fast)
}

/// Small whole numbers: bf16 holds them, and their sums here, exactly.
fn numbers(len: usize, seed: usize) -> Vec<f64> {
    (0..len).map(|i| ((i * 7 + seed + i / 5) % 9) as f64 - 4.0).collect()
}

/// out [rows, columns] = before + Σ over `inner`, by rows, as the ops define the products.
fn by_hand(product: &Product, a: &[f64], b: &[f64], before: &[f64]) -> Vec<f64> {
    let Product { kind, rows: n, n_in: i, n_out: o, stride: s, add, .. } = *product;
    let at_y = |r: usize, y: usize| r * s + y;
    let mut out: Vec<f64> = before.iter().map(|v| if add { *v } else { 0.0 }).collect();
    for r in 0..n {
        for x in 0..i {
            for y in 0..o {
                match kind {
                    // y[r, y] += W[y, x] x[r, x]
                    Kind::Y => out[at_y(r, y)] += a[y * i + x] * b[r * i + x],
                    // dx[r, x] += W[y, x] dy[r, y]
                    Kind::Dx => out[r * i + x] += a[y * i + x] * b[at_y(r, y)],
                    // dW[y, x] += x[r, x] dy[r, y]
                    Kind::Dw => out[y * i + x] += a[r * i + x] * b[at_y(r, y)],
                }
            }
        }
    }
    out
}

/// What the library makes of `product`, and what it should.
fn result(gpu: &Gpu, product: Product, way: usize) -> (Vec<f64>, Vec<f64>) {
    let blas = gpu.driver().blas().unwrap();
    let [a, b, out] = product.lens();
    let values = [numbers(a, 1), numbers(b, 2), numbers(out, 3)];
    let x = |values: &[f64]| {
        let mut x = gpu.x(Class::Scratch, values.len());
        x.write(0, values);
        x
    };
    let to = match product.kind {
        Kind::Dw => {
            let mut acc = gpu.acc(Class::Scratch, out);
            acc.write(0, &values[2]);
            Out::Acc(acc)
        }
        _ => Out::X(x(&values[2])),
    };
    let operands = Operands { a: x(&values[0]), b: x(&values[1]), out: to };
    let prepared = blas.prepare(&product).unwrap();
    assert_eq!(prepared.ways(), 5, "those that fit");
    blas.multiply(&prepared, way, operands.places()).unwrap();
    let mut read = vec![0.0; out];
    match &operands.out {
        Out::X(x) => x.read(0, &mut read),
        Out::Acc(acc) => acc.read(0, &mut read),
    }
    (read, by_hand(&product, &values[0], &values[1], &values[2]))
}

/// With three sides that differ, a matrix that is turned or strided wrongly cannot come out right.
#[test]
fn the_three_products_are_those_of_the_ops() {
    let log = on_library("blas::the_three_products_are_those_of_the_ops", || {
        let gpu = opened();
        assert_eq!(gpu.driver().blas().unwrap().version(), "13.4.1");
        for kind in [Kind::Y, Kind::Dx, Kind::Dw] {
            for (stride, add) in [(40, false), (48, true)] {
                let (rows, n_in, n_out, alignment) = (24, 16, 40, ALIGNED);
                let product = Product { kind, rows, n_in, n_out, stride, alignment, add };
                let (found, wanted) = result(&gpu, product, 0);
                assert_eq!(found, wanted, "{product:?}");
            }
        }
        assert_eq!(gpu.fault(), None);
    });
    let Some(log) = log else { return };
    let calls: Vec<&str> = log.lines().filter(|line| line.starts_with("matmul")).collect();
    let wanted = [
        "matmul 16x40 ld 16 T, 16x24 ld 16 -> 40x24 ld 40 bf16 beta 0 takes 4",
        "matmul 16x40 ld 16 T, 16x24 ld 16 -> 40x24 ld 48 bf16 beta 1 takes 4",
        "matmul 16x40 ld 16, 40x24 ld 40 -> 16x24 ld 16 bf16 beta 0 takes 4",
        "matmul 16x40 ld 16, 40x24 ld 48 -> 16x24 ld 16 bf16 beta 1 takes 4",
        "matmul 16x24 ld 16, 40x24 ld 40 T -> 16x40 ld 16 f32 beta 0 takes 4",
        "matmul 16x24 ld 16, 40x24 ld 48 T -> 16x40 ld 16 f32 beta 1 takes 4",
    ];
    assert_eq!(calls, wanted);
    assert!(!log.contains("left"), "{log}");
}

fn linear(n_in: usize, n_out: usize) -> Linear {
    let weight = Span::first(n_in * n_out);
    Arena::default().linear(&Linear { weight, bias: None, n_in, n_out })
}

/// A row of a bench has the time of the fastest algorithm, past those that refuse.
#[test]
fn the_fastest_algorithm_is_the_peer() {
    let log = on_library("blas::the_fastest_algorithm_is_the_peer", || {
        let gpu = opened();
        let bench = Bench { gpu: &gpu, emulated: true, l2: 4096, budget: 0.0, known: None };
        let ceilings = ceilings::measure(&bench).unwrap();
        assert_eq!(ceilings.product_of, "cuBLASLt");
        let flops = 2.0 * 128f64.powi(3) / 2e-3;
        assert!((ceilings.flops_per_s / flops - 1.0).abs() < 1e-6, "{ceilings:?}");
        let calls = [
            Call::Linear { at: linear(16, 24), rows: 8 },
            Call::LinearDx { at: linear(16, 24), rows: 8, into: warpwright::ops::Into::Add },
            Call::LinearDw { at: linear(16, 24), rows: 8 },
        ];
        for call in &calls {
            let row = bench.row(call, 1, &ceilings).unwrap().unwrap();
            let peer = row.peer.as_ref().unwrap();
            assert!((peer.seconds - 2e-3).abs() < 1e-9, "{row:?}");
            assert_eq!(peer.algorithms, 5);
            assert!((row.ratio().unwrap() - 2e-3 / row.seconds).abs() < 1e-9);
        }
        // Neither what the library refuses nor what is no product has a peer.
        let odd = Call::Linear { at: linear(15, 24), rows: 8 };
        for call in [odd, Call::ZeroX { len: 100 }] {
            assert_eq!(bench.row(&call, 1, &ceilings).unwrap().unwrap().peer, None, "{call:?}");
        }
    });
    let Some(log) = log else { return };
    // Five and more of each way, and the last round by the fastest again.
    let calls: Vec<&str> = log.lines().filter(|line| line.starts_with("matmul")).collect();
    for takes in ["takes 4", "takes 7", "takes -2", "takes 2", "takes 3"] {
        assert!(calls.iter().filter(|call| call.ends_with(takes)).count() > 5, "{takes}");
    }
    assert!(calls[calls.len() - 1].ends_with("takes 2"));
    assert!(log.ends_with("released\n") && !log.contains("left"), "{log}");
}

/// Every product by the library, with what surrounds it, beside the reference.
#[test]
fn its_products_pass_verification() {
    let log = on_library("blas::its_products_pass_verification", || {
        let gpu = opened();
        gpu.use_gemm(Gemm::Cublaslt).unwrap();
        for family in ["linear", "loss"] {
            let rows = verified(&gpu, family);
            let by_it = rows.iter().filter(|row| row.line().contains(", cublaslt"));
            assert!(by_it.count() > if family == "linear" { 20 } else { 5 });
        }
    });
    let Some(log) = log else { return };
    let kinds = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    // y with a bias and without, dx set and added to, dW; little rows and few inputs too.
    for (what, least) in [("bf16 beta 0", 20), ("bf16 beta 1", 15), ("f32 beta 1", 5)] {
        assert!(kinds(what) >= least, "{what}: {}", kinds(what));
    }
    let gates = ["library_gate", "library_gate_backward"];
    let others = ["library_bias", "library_act", "library_db", "act_backward_gelu"];
    for kernel in others.into_iter().chain(gates) {
        assert!(kinds(kernel) > 0, "{kernel}");
    }
    assert!(!log.contains("left"), "{log}");
}

/// The library's products as nodes of a step's graph, and call by call: to the bit the same.
#[test]
fn its_products_run_in_graphs() {
    let log = on_library("blas::its_products_run_in_graphs", || {
        let gpu = || {
            let gpu = opened();
            gpu.use_gemm(Gemm::Cublaslt).unwrap();
            gpu
        };
        let by_call = {
            let plain = gpu();
            trained(&Meter::by_clock(plain.clone(), Box::new(plain)))
        };
        assert_eq!(trained(&Meter::new(gpu())), by_call);
    });
    let Some(log) = log else { return };
    let (by_call, graphs) = log.split_once("graph recorded").unwrap();
    for part in [by_call, graphs] {
        assert!(part.contains("matmul"), "{log}");
    }
    assert!(graphs.contains("revised update") && !log.contains("left"), "{log}");
}

#[test]
fn calls_that_multiply_have_a_product() {
    let at = linear(16, 24);
    let of = |call: &Call| peer::product(call).map(|p| (p.kind, p.add, p.rows, p.n_in, p.n_out));
    let (rows, activation) = (8, warpwright::ops::activation::Activation::Gelu);
    let set = warpwright::ops::Into::Set;
    assert_eq!(of(&Call::Linear { at, rows }), Some((Kind::Y, false, 8, 16, 24)));
    assert_eq!(of(&Call::LinearAct { at, rows, activation }), Some((Kind::Y, false, 8, 16, 24)));
    let dx = Call::LinearDx { at, rows, into: set };
    assert_eq!(of(&dx), Some((Kind::Dx, false, 8, 16, 24)));
    assert_eq!(of(&Call::LinearDw { at, rows }), Some((Kind::Dw, true, 8, 16, 24)));
    assert_eq!(of(&Call::ActBackward { activation, len: 8 }), None);
}

#[test]
fn without_the_library_a_line_says_so() {
    // SAFETY: as the program itself looks for it.
    if unsafe { libloading::Library::new("libcublasLt.so.13") }.is_ok() {
        eprintln!("there is a cuBLASLt here");
        return;
    }
    on_driver("blas::without_the_library_a_line_says_so", "", || {
        let gpu = opened();
        let why = gpu.use_gemm(Gemm::Cublaslt).unwrap_err().0;
        assert!(why.starts_with("--gemm cublaslt") && why.contains("LD_LIBRARY_PATH"), "{why}");
        assert!(!why.contains('\n'));
        let bench = Bench { gpu: &gpu, emulated: true, l2: 0, budget: 0.0, known: None };
        assert_eq!(ceilings::measure(&bench).unwrap().product_of, "our own kernels");
    });
}
