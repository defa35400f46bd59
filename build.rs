//! Compiles `kernels/` twice, for GPUs and for the emulator, as far as there are compilers.
//!
//! A missing tool is a warning and a program without that part: no nvcc, no CUDA; no C++ compiler,
//! no emulator either. A kernel that does not compile, spills or makes ptxas give up on a Hopper
//! instruction (C75xx) fails the build. Neither GPU nor driver is ever needed.

#[path = "build/cuda.rs"]
mod cuda;
#[path = "build/emulator.rs"]
mod emulator;
#[path = "build/jobs.rs"]
mod jobs;
#[path = "build/ptxas.rs"]
mod ptxas;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::available_parallelism;

use emulator::Compiler;

fn main() -> ExitCode {
    for path in ["build.rs", "build", "kernels"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["CXX", "NVCC", "CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", cuda::CHIPS_WANTED] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let built = emulate(&out).and_then(|()| embed(&out));
    for line in built.as_ref().err().iter().flat_map(|said| said.lines()) {
        println!("cargo::error={line}");
    }
    if built.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where compiled kernels lie: one place for all builds of a profile, as cargo gives `check` and
/// `build` an OUT_DIR each. It locks the profile's folder, so only one build writes there.
fn compiled(out: &Path) -> PathBuf {
    let profile = out.ancestors().nth(3).expect("OUT_DIR is PROFILE/build/NAME/out");
    profile.join("kernels")
}

/// The emulated kernels.
fn emulate(out: &Path) -> Result<(), String> {
    let (kernels, runtime) = (kernels(), sources("kernels/emulator", "cpp"));
    if kernels.is_empty() || runtime.is_empty() {
        emulator::absent();
        return Ok(());
    }
    match compiler(out) {
        Ok(compiler) => emulator::build(&compiler, &kernels, &runtime, &compiled(out), at_once()),
        Err(why) => {
            emulator::absent();
            warn(&format!("{why}: built without the emulator"));
            Ok(())
        }
    }
}

/// The kernels for GPUs.
fn embed(out: &Path) -> Result<(), String> {
    let kernels = kernels();
    if kernels.is_empty() {
        cuda::absent(out);
        return Ok(());
    }
    let tools = cuda::Nvcc::find().and_then(|nvcc| {
        let host = compiler(out).map_err(|why| format!("{why}, which nvcc needs"))?;
        Ok((nvcc, host))
    });
    match tools {
        Ok((nvcc, host)) => {
            // Built anew when the toolkit goes or changes.
            println!("cargo::rerun-if-changed={}", nvcc.path.display());
            cuda::build(&nvcc, &host, &kernels, &compiled(out), out, at_once())
        }
        Err(why) => {
            cuda::absent(out);
            warn(&why);
            Ok(())
        }
    }
}

/// A C++ compiler, on a system that the emulator and the flags here are written for.
fn compiler(out: &Path) -> Result<Compiler, String> {
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os != "linux") {
        return Err("kernels are compiled on Linux only".into());
    }
    if env::var("HOST").ok() != env::var("TARGET").ok() {
        return Err("kernels are not cross-compiled".into());
    }
    Compiler::find(out)
}

/// One line from this script; cargo looks again when `build.rs` is touched.
fn warn(why: &str) {
    println!("cargo::warning={why}; when that has changed: touch build.rs");
}

/// All files of kernels; no two have the same name.
fn kernels() -> Vec<PathBuf> {
    ["kernels", "kernels/ladder"].into_iter().flat_map(|folder| sources(folder, "cu")).collect()
}

/// Files of a folder with an extension, in the order of their names.
fn sources(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// As many jobs as cargo was told to run.
fn at_once() -> usize {
    let told = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    told.unwrap_or_else(|| available_parallelism().map_or(1, |cores| cores.get()))
}
