//! The emulator's own test: one-edit mutants of the real kernels, each of which verify must catch
//! in some mode. A mode that catches fewer than before is a regression.
//!
//! Prints the first mode that catches each mutant; with `MUTANTS=all` in the environment, what
//! every mode says of it. Needs the C++ compiler that built the emulator.

mod mutants_list;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mutants_list::{MUTANTS, Mutant};
use rayon::prelude::*;

/// A mode: its name, its build, and what `verify` takes for it. Cheapest first.
const MODES: [(&str, &str, &[&str]); 4] = [
    ("fifo", "plain", &[]),
    ("lifo", "plain", &["--order", "lifo"]),
    ("late", "plain", &["--lazy", "--order", "random"]),
    ("check", "check", &["--build", "check"]),
];

/// A run that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(180);

/// Where the build left its objects.
fn objects() -> PathBuf {
    let library = Path::new(env!("WARPWRIGHT_EMULATOR_PLAIN"));
    library.parent().expect("the emulator was built, as there is a C++ compiler").to_path_buf()
}

fn compiler() -> Command {
    Command::new(std::env::var("CXX").unwrap_or("c++".into()))
}

fn run(command: &mut Command, what: &str) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{what}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A library whose kernels are the project's, but for the mutant's file.
fn library(mutant: &Mutant, build: &str, folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("kernels").join(mutant.file)).unwrap();
    let what = format!("{}: {}", mutant.file, mutant.what);
    assert_eq!(source.matches(mutant.from).count(), 1, "{what}: `{}` once", mutant.from);
    let edited = folder.join(mutant.file);
    fs::write(&edited, source.replace(mutant.from, mutant.to)).unwrap();
    let (object, library) = (folder.join(format!("{build}.o")), folder.join(format!("{build}.so")));
    let flags: &[&str] = match build {
        "check" => &["-fsanitize=thread", "-O1", "-fno-tree-vectorize"],
        _ => &["-O1"],
    };
    let common =
        ["-std=c++17", "-g", "-fPIC", "-march=native", "-fno-strict-aliasing", "-w", "-x", "c++"];
    let mut compile = compiler();
    compile.args(common).args(flags);
    for include in ["kernels/emulator", "kernels"] {
        compile.arg("-I").arg(root.join(include));
    }
    run(compile.arg("-c").arg(&edited).arg("-o").arg(&object), &what);
    let mut link = compiler();
    link.args(["-shared", "-Wl,-Bsymbolic"]).arg(&object);
    let skip = format!("{}.o", mutant.file);
    for entry in fs::read_dir(objects().join(build)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".o") && name != skip {
            link.arg(path);
        }
    }
    run(link.args(["-lpthread", "-ldl", "-o"]).arg(&library), &what);
    library
}

/// Whether verify, in this mode, finds fault with the kernels of `library`.
fn caught(library: &Path, family: &str, mode: &[&str]) -> bool {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_warpwright"))
        .args(["verify", "--kernels", "fast", "--fail-fast", "--seed", "1", "--op", family])
        .args(mode)
        .arg("--library")
        .arg(library)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    loop {
        if let Some(status) = verify.try_wait().unwrap() {
            return !status.success();
        }
        if began.elapsed() > LONGEST {
            verify.kill().unwrap();
            verify.wait().unwrap();
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The modes that catch a mutant: the first, or all.
fn modes_that_catch(mutant: &Mutant, all: bool) -> Vec<&'static str> {
    let folder = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    let mut built: Vec<(&str, PathBuf)> = Vec::new();
    for (mode, build, flags) in MODES {
        if !built.iter().any(|(name, _)| *name == build) {
            built.push((build, library(mutant, build, folder.path())));
        }
        let (_, library) = built.iter().find(|(name, _)| *name == build).unwrap();
        if caught(library, mutant.family, flags) {
            found.push(mode);
            if !all {
                break;
            }
        }
    }
    found
}

#[test]
fn every_mutant_is_caught() {
    let all = std::env::var("MUTANTS").is_ok_and(|value| value == "all");
    let caught: Vec<Vec<&str>> =
        MUTANTS.par_iter().map(|mutant| modes_that_catch(mutant, all)).collect();
    for (mutant, modes) in MUTANTS.iter().zip(&caught) {
        println!("{:<14} {:<52} {}", mutant.file, mutant.what, modes.join(" "));
    }
    let count = caught.iter().filter(|modes| !modes.is_empty()).count();
    println!("{count} of {} mutants caught", MUTANTS.len());
    assert_eq!(count, MUTANTS.len(), "a mutant lives");
}
