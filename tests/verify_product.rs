//! Temporary: the families of this branch on the emulator.
use warpwright::device::gpu::emulator::{Build, Emulator, Modes, Order};
use warpwright::device::gpu::{Gpu, Kernels};
use warpwright::verify::{Request, Sizes, verify};

#[test]
fn families() {
    let var = |n: &str| std::env::var(n).unwrap_or_default();
    let modes = Modes {
        build: match var("MODE").as_str() {
            "check" => Build::Check,
            "asan" => Build::Asan,
            _ => Build::Plain,
        },
        order: match var("ORDER").as_str() {
            "lifo" => Order::Lifo,
            "random" => Order::Random,
            _ => Order::Fifo,
        },
        lazy: var("LAZY") == "1",
        counters: var("COUNTERS") == "1",
        threads: 2,
        seed: 5,
    };
    let only = var("ONLY");
    let kinds: &[(&'static str, Kernels)] = if var("KIND") == "fast" {
        &[("fast", Kernels::Fast)]
    } else if var("KIND") == "naive" {
        &[("naive", Kernels::Naive)]
    } else {
        &[("naive", Kernels::Naive), ("fast", Kernels::Fast)]
    };
    let mut bad = 0;
    for (name, kernels) in kinds {
        let emulator = Emulator::new(modes).unwrap();
        let gpu = Gpu::new(Box::new(emulator), *kernels);
        let start = std::time::Instant::now();
        let mut last = 0.0;
        let sizes = if var("SIZES") == "full" { Sizes::Full } else { Sizes::Small };
        let repeats = if modes.build == Build::Plain { 2 } else { 1 };
        let rows = verify(
            Request { gpu: &gpu, kernels: name, sizes, seed: 1, repeats, only: Some(&only) },
            &mut |row| {
                let t = start.elapsed().as_secs_f64();
                println!("{:6.2} {}", t - last, row.line());
                if let Some(f) = &row.fault {
                    println!("{f}");
                }
                last = t;
            },
        );
        bad += rows.iter().filter(|r| !r.passed()).count();
        println!("{name}: {} rows, {:.1} s", rows.len(), start.elapsed().as_secs_f64());
    }
    assert_eq!(bad, 0);
}
