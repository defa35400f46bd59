//! Every kernel on the emulator, in each of its modes, beside the CPU reference.

use warpwright::device::gpu::emulator::{self, Build, Emulator, Modes, Order};
use warpwright::device::gpu::{Gpu, Kernels};
use warpwright::verify::{Request, Sizes, summary, verify};

/// Runs all checks; every one must pass.
fn holds(modes: Modes, kernels: Kernels) {
    let emulator = Emulator::new(modes).unwrap();
    let gpu = Gpu::new(Box::new(emulator), kernels);
    gpu.overlap(true);
    let name = if kernels == Kernels::Naive { "naive" } else { "fast" };
    let (sizes, seed) = (Sizes::Small, 1);
    let (only, fail_fast) = (None, false);
    let request = Request { gpu: &gpu, kernels: name, sizes, seed, repeats: 2, only, fail_fast };
    let mut wrong = Vec::new();
    let rows = verify(request, &mut |row| {
        if !row.passed() {
            wrong.push(row.line());
        }
    });
    assert!(wrong.is_empty(), "{modes:?}: {}\n{}", summary(&rows), wrong.join("\n"));
    assert!(!rows.is_empty());
}

#[test]
fn plain_twins() {
    holds(Modes::default(), Kernels::Naive);
}

#[test]
fn fast_kernels() {
    holds(Modes::default(), Kernels::Fast);
}

#[test]
fn fast_kernels_late_and_last_first() {
    holds(Modes { lazy: true, order: Order::Lifo, ..Modes::default() }, Kernels::Fast);
}

#[test]
fn fast_kernels_in_random_order() {
    holds(Modes { lazy: true, order: Order::Random, seed: 5, ..Modes::default() }, Kernels::Fast);
}

#[test]
fn fast_kernels_without_a_race() {
    holds(Modes { build: Build::Check, ..Modes::default() }, Kernels::Fast);
}

#[test]
fn naive_kernels_without_a_race() {
    holds(Modes { build: Build::Check, ..Modes::default() }, Kernels::Naive);
}

/// In a process of its own, as AddressSanitizer must be there from the start.
#[test]
fn no_stray_access() {
    assert!(emulator::asan_library().is_some(), "built without AddressSanitizer");
    let verify =
        ["verify", "--build", "asan", "--kernels", "fast", "--repeats", "1", "--seed", "1"];
    let program = env!("CARGO_BIN_EXE_warpwright");
    let out = std::process::Command::new(program).args(verify).output().unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}\n{errors}");
}

/// The learner's view of a kernel: what each line costs in sectors and wavefronts.
#[test]
fn counters_name_lines_of_the_kernel() {
    let verify = ["verify", "--op", "reduce", "--kernels", "fast", "--counters", "--seed", "1"];
    let program = env!("CARGO_BIN_EXE_warpwright");
    let out = std::process::Command::new(program).args(verify).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}");
    let counted =
        |what: &str| said.lines().any(|l| l.starts_with("reduce.cu:") && l.contains(what));
    assert!(counted("32-byte sectors") && counted("wavefronts"), "{said}");
}
