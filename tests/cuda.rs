//! The CUDA driver's side of [`Cuda`], on a machine without a GPU: against `cuda/driver.cpp`, a
//! `libcuda.so` that runs kernels on the emulator and puts work off as long as the rules allow.
//!
//! A process loads a driver once, so each test runs again in a process of its own.

#[path = "cuda/blas.rs"]
mod blas;
mod runs;
mod support;

use std::env;
use std::ffi::c_void;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use runs::Lab;
use warpwright::bench::call::Call;
use warpwright::bench::ceilings;
use warpwright::bench::measure::Bench;
use warpwright::device::gpu::cuda::{Cuda, probe};
use warpwright::device::gpu::driver::{Address, Driver, Fetch, Launch, TileShape};
use warpwright::device::gpu::work::{Params, Work};
use warpwright::device::gpu::{Gpu, Kernels, module};
use warpwright::device::meter::Meter;
use warpwright::device::{Buffer, Class, Memory};
use warpwright::model::batch::Capacity;
use warpwright::ops::optimizer::{Rule, Update};
use warpwright::ops::reduce::ReduceOps;
use warpwright::train::step::{Outcome, StepKey, Trainer};
use warpwright::verify::{Request, Row, Sizes, verify};

/// The library of emulated kernels; empty where there was no C++ compiler.
const EMULATOR: &str = env!("WARPWRIGHT_EMULATOR_PLAIN");

/// Compiles the driver; its folder.
fn driver() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| library("cuda", "driver.cpp", "libcuda.so"))
}

/// Compiles a library of `tests/cuda`; its folder.
fn library(folder: &str, source: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).unwrap();
    let compiler = env::var("CXX").unwrap_or("c++".into());
    let mut words = compiler.split_whitespace();
    // Under a name of this process, and renamed: another run may have the last one loaded.
    let made = folder.join(format!("{name}.{}", std::process::id()));
    let built = Command::new(words.next().unwrap())
        .args(words)
        .args(["-std=c++17", "-Wall", "-shared", "-fPIC"])
        .args([&Path::new("tests/cuda").join(source), Path::new("-o"), &made])
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success());
    fs::rename(made, folder.join(name)).unwrap();
    folder
}

/// Runs `body` in a process that finds the driver, with something wrong with it or not; what the
/// driver logged. In that process itself, nothing comes back.
fn on_driver(test: &str, wrong: &str, body: fn()) -> Option<String> {
    on_libraries(test, wrong, &|| None, body)
}

/// The same, with a folder of further libraries.
fn on_libraries(
    test: &str,
    wrong: &str,
    more: &dyn Fn() -> Option<PathBuf>,
    body: fn(),
) -> Option<String> {
    if env::var_os("FAKE_CUDA").is_some() {
        body();
        return None;
    }
    if EMULATOR.is_empty() {
        eprintln!("no C++ compiler, so no driver to test against");
        return None;
    }
    let folders = [Some(driver().to_path_buf()), more()];
    let log = driver().join(format!("{}.log", test.replace("::", ".")));
    let _ = fs::remove_file(&log);
    let ran = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("LD_LIBRARY_PATH", env::join_paths(folders.into_iter().flatten()).unwrap())
        .env("FAKE_CUDA", wrong)
        .env("FAKE_EMULATOR", EMULATOR)
        .env("FAKE_CUDA_LOG", &log)
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&said));
    Some(fs::read_to_string(log).unwrap_or_default())
}

/// A GPU whose kernels are all in one module.
fn gpu() -> Cuda {
    #[repr(align(16))]
    struct Image([u8; 16]);
    static IMAGE: Image = Image([0; 16]);
    Cuda::with_kernels(|kernel| (kernel != "lost").then_some(("all", &IMAGE.0[..]))).unwrap()
}

/// One block that runs `store_naive`: bf16 `to` of f32 `from`.
fn store(gpu: &Cuda, to: Address, from: Address, len: u64, launch: Launch) -> Result<(), String> {
    let params: [*const c_void; 3] =
        [(&raw const to).cast(), (&raw const from).cast(), (&raw const len).cast()];
    // SAFETY: the kernel takes two pointers and a 64-bit length, and the memory is as long.
    unsafe { gpu.launch(&launch, &params) }.map_err(|e| e.0)
}

const STORE: Launch = Launch {
    kernel: "store_naive",
    grid: [1, 1, 1],
    block: [256, 1, 1],
    cluster: [1, 1, 1],
    shared: 0,
    cooperative: false,
    overlaps: false,
};

fn upload_floats(gpu: &Cuda, values: &[f32]) -> Address {
    let to = gpu.alloc(size_of_val(values), "test").unwrap();
    gpu.upload(to, bytemuck::cast_slice(values)).unwrap();
    to
}

#[test]
fn a_machine_without_a_driver_is_told_so() {
    // SAFETY: as the probe itself.
    let present = unsafe { libloading::Library::new("libcuda.so.1") }.is_ok();
    match probe::devices() {
        Ok(devices) => assert!(present && !devices.is_empty()),
        Err(why) => {
            assert_eq!(why == probe::Unavailable::NoDriver, !present, "{why}");
            assert!(why.to_string().len() > 40, "{why}");
        }
    }
}

#[test]
fn a_gpu_tells_its_properties() {
    on_driver("a_gpu_tells_its_properties", "", || {
        let devices = probe::devices().unwrap();
        assert_eq!(devices.len(), 1);
        let probe::Device { properties, clock, l2, pci } = &devices[0];
        assert_eq!(properties, gpu().properties());
        assert_eq!((properties.capability, properties.processors), ((9, 0), 132));
        assert_eq!((properties.shared_per_block, properties.memory), (227 * 1024, 8 << 30));
        // Its clock it does not tell.
        assert_eq!((*clock, *l2), (None, Some(50 << 20)));
        assert_eq!(pci.as_deref(), Some("00000000:3B:00.0"));
        let gpu = gpu();
        let _some = gpu.alloc(1 << 20, "test").unwrap();
        assert_eq!(gpu.free_memory(), Ok((8 << 30) - (1 << 20)));
    });
}

/// `info` beside a driver with something wrong: what it prints for programs.
fn info() -> serde_json::Value {
    let (json, _) = runs::succeeds(&mut Lab::new().program(&["info", "--json"]));
    serde_json::from_str(&json).unwrap()
}

#[test]
fn info_tells_of_a_gpu() {
    on_driver("info_tells_of_a_gpu", "", || {
        let cuda = &info()["cuda"];
        assert_eq!(
            (&cuda["driver"], &cuda["gpus"][0]["capability"]),
            (&"13.0".into(), &"9.0".into())
        );
        let (kernels, why) = (cuda["gpus"][0]["kernels"].as_str().unwrap(), &cuda["unusable"]);
        if module::MODULES.is_empty() {
            assert!(kernels.contains("none") && why.as_str().unwrap().contains("nvcc"), "{cuda}");
        } else {
            assert!(why.is_null() && cuda["gpus"][0]["free"] == 8_u64 << 30, "{cuda}");
        }
    });
}

#[test]
fn info_tells_of_an_old_driver() {
    on_driver("info_tells_of_an_old_driver", "old", || {
        let cuda = &info()["cuda"];
        assert!(cuda["gpus"].as_array().unwrap().is_empty() && cuda["driver"] == "12.2", "{cuda}");
        assert!(cuda["unusable"].as_str().unwrap().contains("release 580"), "{cuda}");
    });
}

/// Before anything is taken of it: by what any such run takes, or by the plan.
#[test]
fn a_gpu_that_is_too_small_is_refused() {
    on_driver("a_gpu_that_is_too_small_is_refused", "small", || {
        if module::MODULES.is_empty() {
            eprintln!("built without nvcc: no run gets as far as memory");
            return;
        }
        let lab = Lab::new();
        let says = ["of the GPU's memory, and 67.11 MB is free", "lower batch.micro"];
        let large = ["pretrain", "--device", "cuda", "--preset", "bert-base"];
        runs::refuses(&mut lab.program(&large), &says);
        assert!(!lab.path("runs").exists());
        let sets = ["--set", "batch.tokens=65536", "--set", "model.width=32"];
        runs::refuses(lab.pretrain("run", &["--device", "cuda"]).args(sets), &says);
    });
}

#[test]
fn an_old_driver_is_refused() {
    on_driver("an_old_driver_is_refused", "old", || is_refused(&["12.2", "release 580"]));
}

#[test]
fn a_driver_without_a_gpu_is_told() {
    on_driver("a_driver_without_a_gpu_is_told", "none", || {
        is_refused(&["finds no GPU", "CUDA_VISIBLE_DEVICES"]);
    });
}

#[test]
fn an_old_gpu_is_refused() {
    on_driver("an_old_gpu_is_refused", "turing", || is_refused(&["fake GPU", "7.5", "8.0"]));
}

#[test]
fn a_busy_gpu_is_told() {
    on_driver("a_busy_gpu_is_told", "busy", || is_refused(&["busy", "nvidia-smi"]));
}

/// The GPU cannot be used, for a reason that has these words.
fn is_refused(words: &[&str]) {
    let why = Cuda::with_kernels(|_| None).unwrap_err().to_string();
    for word in words {
        assert!(why.contains(word), "{why}");
    }
}

#[test]
fn copies_arrive_whole_and_in_order() {
    let log = on_driver("copies_arrive_whole_and_in_order", "", || {
        let gpu = gpu();
        // More than all staging slots, and not a multiple of one.
        let bytes: Vec<u8> = (0..20_000_003u32).map(|i| (i * 7 + i / 1009) as u8).collect();
        let [a, b] = ["a", "b"].map(|label| gpu.alloc(bytes.len(), label).unwrap());
        gpu.fill(b, 1, bytes.len()).unwrap();
        gpu.upload(a, &bytes).unwrap();
        gpu.copy(b.offset(1), a, 5).unwrap();
        gpu.fill(b.offset(3), 9, 1).unwrap();
        let mut read = vec![0; bytes.len()];
        gpu.download(a, &mut read).unwrap();
        assert!(read == bytes);
        gpu.download(b, &mut read[..8]).unwrap();
        assert_eq!(read[..8], [1, bytes[0], bytes[1], 9, bytes[3], bytes[4], 1, 1]);
        // Nothing to do is no error.
        gpu.upload(a, &[]).unwrap();
        gpu.fill(a, 0, 0).unwrap();
        gpu.copy(a, b, 0).unwrap();
        gpu.download(a, &mut []).unwrap();
        [a, b].into_iter().for_each(|address| gpu.free(address));
    });
    // All that was taken was given back.
    assert!(log.is_none_or(|log| log == "released\n"));
}

/// The driver of the tests does nothing before somebody waits.
#[test]
fn results_are_fetched_and_uploads_given_without_waiting() {
    on_driver("results_are_fetched_and_uploads_given_without_waiting", "", || {
        let gpu = gpu();
        let word = gpu.alloc(4, "test").unwrap();
        let fetches: Vec<Fetch> = (0..40u32)
            .map(|step| {
                gpu.upload(word, &step.to_le_bytes()).unwrap();
                gpu.fetch(word, 4).unwrap()
            })
            .collect();
        let last = fetches[39];
        assert!(!gpu.arrived(last));
        let read = |fetch| {
            let mut bytes = [0; 4];
            gpu.fetched(fetch, &mut bytes).unwrap();
            u32::from_le_bytes(bytes)
        };
        assert_eq!(read(fetches[39 - 15]), 39 - 15);
        assert!(!gpu.arrived(last));
        assert_eq!(read(last), 39);
        assert!(gpu.arrived(last));
        gpu.free(word);
    });
}

#[test]
fn a_kernel_runs_with_its_arguments() {
    let log = on_driver("a_kernel_runs_with_its_arguments", "", || {
        let gpu = gpu();
        let floats: Vec<f32> = (0..256).map(|i| i as f32).collect();
        let from = upload_floats(&gpu, &floats);
        let to = gpu.alloc(512, "test").unwrap();
        assert_eq!(gpu.signature("store_naive").unwrap(), Some(vec![8, 8, 8]));
        let no_such = gpu.signature("no_such").unwrap_err().0;
        assert!(no_such.contains("500"), "{no_such}");
        let lost = gpu.signature("lost").unwrap_err().0;
        assert!(lost.contains("no kernel `lost`"), "{lost}");
        let large = Launch { shared: 100_000, cooperative: true, ..STORE };
        store(&gpu, to, from, 256, large).unwrap();
        store(&gpu, to, from, 256, Launch { cluster: [2, 1, 1], grid: [2, 1, 1], ..large })
            .unwrap();
        let mut bits = [0u16; 256];
        gpu.download(to, bytemuck::cast_slice_mut(&mut bits)).unwrap();
        assert!(bits.iter().zip(floats).all(|(bits, x)| u32::from(*bits) << 16 == x.to_bits()));
        let huge = Launch { shared: 300_000, ..STORE };
        let why = store(&gpu, to, from, 256, huge).unwrap_err();
        assert!(why.contains("300000") && why.contains("232448"), "{why}");
        let wide = Launch { cluster: [16, 1, 1], grid: [16, 1, 1], ..STORE };
        store(&gpu, to, from, 256, wide).unwrap();
        [to, from].into_iter().for_each(|address| gpu.free(address));
    });
    let Some(log) = log else { return };
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        lines,
        [
            "attribute store_naive 8 100000",
            "launch store_naive shared 100000 cluster 1 cooperative 1",
            "launch store_naive shared 100000 cluster 2 cooperative 1",
            // 14: clusters of more than 8 blocks
            "attribute store_naive 14 1",
            "launch store_naive shared 0 cluster 16 cooperative 0",
            "released",
        ]
    );
}

#[test]
fn a_recording_runs_again() {
    let log = on_driver("a_recording_runs_again", "", || {
        let gpu = gpu();
        let from = upload_floats(&gpu, &[1.0; 256]);
        let to = gpu.alloc(512, "test").unwrap();
        gpu.fill(to, 0, 512).unwrap();
        let read = |gpu: &Cuda| {
            let mut bits = [0u16; 256];
            gpu.download(to, bytemuck::cast_slice_mut(&mut bits)).unwrap();
            f32::from_bits(u32::from(bits[255]) << 16)
        };
        let launch = |from: Address, count: u64| {
            let mut params = Params::default();
            [to.0, from.0, count].iter().for_each(|arg| params.push(&arg.to_ne_bytes()));
            Work::Launch(STORE, params)
        };
        let half = |byte| Work::Fill { to: to.offset(508), byte, bytes: 2 };
        let (again, twice) = (upload_floats(&gpu, &[2.0; 256]), Work::may_replace);
        let copy = Work::Copy { to: to.offset(510), from: to, bytes: 2 };
        // SAFETY: as for `store`: both places have 256 elements.
        unsafe {
            let recording = gpu.record(&[launch(from, 256), half(9), copy.clone()]).unwrap();
            assert_eq!(read(&gpu), 0.0);
            gpu.replay(recording).unwrap();
            assert_eq!(read(&gpu), 1.0);
            // What the device has not done yet is not revised with the rest.
            gpu.fill(to, 0, 512).unwrap();
            gpu.replay(recording).unwrap();
            gpu.revise(recording, 0, &launch(again, 255)).unwrap();
            gpu.revise(recording, 1, &half(7)).unwrap();
            assert_eq!(read(&gpu), 1.0);
            gpu.replay(recording).unwrap();
            assert_eq!(read(&gpu), 2.0);
            assert!(twice(&half(1), &half(2)) && !twice(&half(1), &copy));
            gpu.forget(recording);
            // A recording that fails leaves the stream as it was.
            let lost = Work::Launch(Launch { kernel: "lost", ..STORE }, Params::default());
            assert!(gpu.record(&[half(1), lost]).unwrap_err().0.contains("lost"));
        }
        gpu.fill(to, 0, 512).unwrap();
        assert_eq!(read(&gpu), 0.0);
        [to, from, again].into_iter().for_each(|address| gpu.free(address));
    });
    assert!(log.is_none_or(|log| log.ends_with("\nreleased\n") && !log.contains("left")));
}

/// What four steps, whose arguments and sizes change, end in.
fn trained(dev: &Meter<Gpu>) -> (Vec<f64>, Outcome) {
    let zoo = support::zoo().into_iter();
    let mut arch = zoo.clone().find(|(name, _)| name.starts_with("bert with")).unwrap().1;
    (arch.width, arch.embed_width, arch.inner) = (48, 48, 40);
    let sizes: [&[usize]; 4] = [&[7, 1, 23, 12], &[7, 1, 23, 12], &[20, 9], &[20, 9]];
    let passes = [1, 2].map(|seed| sizes.map(|lengths| support::batch(&arch, lengths, seed)));
    let capacity = Capacity { tokens: 43, sequences: 4, rows: 43, reals: 0 };
    let mut trainer = Trainer::new(dev, &arch, capacity, 2, None, 0.1).unwrap();
    trainer.initialise(dev, 1);
    let update = Update { rule: Rule::default(), lr: 1e-3, clip: 1.0, stochastic: None };
    for step in 0..4 {
        let micros = [&passes[0], &passes[1]].map(|of| of[step].clone());
        let micros = &micros[..if step < 3 { 2 } else { 1 }];
        let update = Update { lr: 1e-3 * step as f64, ..update };
        trainer.step(dev, micros, StepKey { seed: 5, step: step as u64 }, &update);
    }
    assert_eq!(dev.fault(), None);
    (trainer.state.master.to_vec(), trainer.outcome())
}

/// Steps as graphs and launch by launch: to the bit the same, though the driver does nothing before
/// the host waits.
#[test]
fn steps_run_as_graphs() {
    let log = on_driver("steps_run_as_graphs", "", || {
        let gpu = || Gpu::new(Box::new(gpu()), Kernels::Fast);
        let by_call = {
            let plain = gpu();
            trained(&Meter::by_clock(plain.clone(), Box::new(plain)))
        };
        let overlapping = Meter::new(gpu());
        overlapping.device().overlap(true);
        assert_eq!(trained(&overlapping), by_call);
    });
    let Some(log) = log else { return };
    assert!(log.ends_with("\nreleased\n") && !log.contains("left"), "{log}");
    // The second and third step are revisions; the fourth has one pass less.
    let graphs: Vec<&str> = log.split("graph recorded").collect();
    assert_eq!(graphs.len(), 3);
    for (kernel, times) in [("update", 2), ("embed", 2), ("judge", 0)] {
        let revised = graphs[1].lines().filter(|line| *line == format!("revised {kernel}"));
        assert_eq!(revised.count(), times, "{kernel}: {log}");
    }
    assert!(graphs[1].contains("revised a fill") && !graphs[2].contains("revised"));
}

#[test]
fn time_passes_between_marks() {
    let log = on_driver("time_passes_between_marks", "", || {
        let gpu = gpu();
        let memory = gpu.alloc(4, "test").unwrap();
        let mut before = gpu.mark().unwrap();
        // More marks than are kept.
        for i in 0..10_000 {
            gpu.fill(memory, 0, 4).unwrap();
            let mark = gpu.mark().unwrap();
            if i % 999 == 0 {
                let seconds = gpu.elapsed(before, mark).unwrap();
                assert!((seconds - 1e-3).abs() < 1e-9, "{seconds}");
            }
            before = mark;
        }
        gpu.free(memory);
    });
    assert!(log.is_none_or(|log| log == "released\n"));
}

#[test]
fn exhausted_memory_says_for_what() {
    on_driver("exhausted_memory_says_for_what", "small", || {
        let gpu = gpu();
        let some = gpu.alloc(1 << 20, "weights").unwrap();
        let why = gpu.alloc(1 << 30, "moments").unwrap_err().0;
        for word in ["1073741824 bytes for moments", "66060288 free", "micro-batch"] {
            assert!(why.contains(word), "{why}");
        }
        // What is there can still be used.
        gpu.upload(some, &[1, 2, 3]).unwrap();
        gpu.wait().unwrap();
        gpu.free(some);
    });
}

#[test]
fn a_kernel_that_went_astray_is_among_those_named() {
    on_driver("a_kernel_that_went_astray_is_among_those_named", "astray", || {
        let gpu = gpu();
        let from = upload_floats(&gpu, &[1.0; 256]);
        let to = gpu.alloc(512, "test").unwrap();
        store(&gpu, to, from, 256, STORE).unwrap();
        let why = gpu.wait().unwrap_err().0;
        for word in ["astray", "store_naive", "CUDA_LAUNCH_BLOCKING=1", "verify"] {
            assert!(why.contains(word), "{why}");
        }
        assert!(gpu.upload(to, &[0; 4]).is_err());
    });
}

#[test]
fn tensor_maps_are_encoded_and_refused() {
    on_driver("tensor_maps_are_encoded_and_refused", "", || {
        let gpu = gpu();
        let base = gpu.alloc(64 * 128 * 2, "test").unwrap();
        let shape = TileShape {
            base,
            element_bytes: 2,
            dims: &[128, 64],
            strides: &[256],
            tile: &[64, 32],
            swizzle: 128,
        };
        assert_ne!(gpu.tensor_map(&shape).unwrap().0, [0; 16]);
        let why = gpu.tensor_map(&TileShape { strides: &[255], ..shape }).unwrap_err().0;
        assert!(why.contains("255"), "{why}");
        gpu.free(base);
    });
}

/// The rows of a family's verification, all of which pass.
fn verified(gpu: &Gpu, family: &str) -> Vec<Row> {
    let request = Request {
        gpu,
        kernels: "fast",
        sizes: Sizes::Small,
        seed: 1,
        repeats: 1,
        only: Some(family),
        fail_fast: true,
    };
    let rows = verify(request, &mut |row| println!("{}", row.line()));
    assert!(rows.iter().all(|row| row.passed()));
    rows
}

/// The whole way: ops, launchers, driver, kernels.
#[test]
fn verification_passes_over_the_driver() {
    let log = on_driver("verification_passes_over_the_driver", "", || {
        let gpu = Gpu::new(Box::new(gpu()), Kernels::Fast);
        // Arenas and one launch; tensor maps, clusters and workspace.
        for family in ["optimizer", "linear"] {
            assert!(verified(&gpu, family).len() > 20);
        }
    });
    assert!(log.is_none_or(|log| log.ends_with("\nreleased\n") && !log.contains("left")));
}

/// Work is timed by the driver's events, on memory that goes back to it.
#[test]
fn calls_are_timed_over_the_driver() {
    let log = on_driver("calls_are_timed_over_the_driver", "", || {
        let gpu = Gpu::new(Box::new(gpu()), Kernels::Fast);
        let bench = Bench { gpu: &gpu, emulated: true, l2: 4096, budget: 0.0, known: None };
        let ceilings = ceilings::measure(&bench).unwrap();
        for call in [Call::ZeroX { len: 1000 }, Call::Store { len: 1000 }] {
            let row = bench.row(&call, 1, &ceilings).unwrap().unwrap();
            assert!(row.samples >= 5, "{row:?}");
        }
        // Marks are given anew after some thousands; a meter reads its own before that.
        let dev = Meter::by_clock(gpu.clone(), Box::new(gpu.clone()));
        let mut x = dev.x(Class::Scratch, 8);
        (0..5000).for_each(|_| dev.zero_x(&mut x, 8));
        let record = dev.by_size()[0];
        assert_eq!((record.calls, dev.sequence().len()), (5000, 5000));
        assert!(record.seconds.is_finite() && gpu.fault().is_none());
    });
    assert!(log.is_none_or(|log| log.ends_with("\nreleased\n") && !log.contains("left")));
}

/// Kernels of one source are there for the emulator and for every chip, under the same names.
#[test]
fn every_kernel_was_compiled_for_gpus() {
    if module::MODULES.is_empty() || EMULATOR.is_empty() {
        eprintln!("built without nvcc or without a C++ compiler: nothing to compare");
        return;
    }
    let emulator = warpwright::device::gpu::emulator::Emulator::new(Default::default()).unwrap();
    for kernel in emulator.kernels() {
        let (name, image) = module::of_kernel(kernel).unwrap_or_else(|| panic!("no {kernel}"));
        assert_eq!(image[..4], 0xba55_ed50_u32.to_le_bytes(), "{name} is no fatbin");
        assert_eq!(image.as_ptr() as usize % 16, 0);
    }
    let hopper = module::built().filter(|built| built.arch == "sm_90a");
    assert_eq!(hopper.count(), emulator.kernels().count());
}
