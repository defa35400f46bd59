//! The emulator's own test: one-edit mutants of the real kernels, each of which verify must catch
//! in the mode that it names, the cheapest that does so every time. So a mode that catches fewer
//! than before is a regression.
//!
//! With `MUTANTS` in the environment, tries every mode: `all` of all mutants, another word of those
//! whose file or name has it. Needs the C++ compiler that built the emulator.

mod mutants_list;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mutants_list::{FAMILIES, Mutant};
use rayon::prelude::*;

/// A mode: its name, its build, and what `verify` takes for it. Cheapest first.
const MODES: [(&str, &str, &[&str]); 4] = [
    ("fifo", "plain", &[]),
    ("lifo", "plain", &["--order", "lifo"]),
    ("late", "plain", &["--lazy", "--order", "random"]),
    ("check", "check", &["--build", "check", "--repeats", "1"]),
];

/// A run that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(180);

/// The kernels' sources.
fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

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

/// Files of a folder.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_file())
}

/// Leaves the kernels in `folder`, the mutant's edit among them.
fn edit(mutant: &Mutant, folder: &Path) {
    fs::create_dir(folder.join("ladder")).unwrap();
    for path in files(&kernels()).chain(files(&kernels().join("ladder"))) {
        fs::copy(&path, folder.join(path.strip_prefix(kernels()).unwrap())).unwrap();
    }
    let edited = folder.join(mutant.file);
    let source = fs::read_to_string(&edited).unwrap();
    assert_eq!(source.matches(mutant.from).count(), 1, "{mutant}: `{}` once", mutant.from);
    fs::write(&edited, source.replace(mutant.from, mutant.to)).unwrap();
}

/// Whether the object was compiled from `file`: the build left what the compiler told it.
fn depends(object: &Path, file: &str) -> bool {
    let told = fs::read_to_string(object.with_extension("o.d")).unwrap();
    told.split_whitespace().any(|path| path == format!("kernels/{file}"))
}

/// A library of the kernels in `folder`: the objects of the build, but for those that the edit
/// reaches.
fn library(mutant: &Mutant, build: &str, folder: &Path) -> PathBuf {
    let flags: &[&str] = match build {
        "check" => &["-fsanitize=thread", "-O1", "-fno-tree-vectorize"],
        // Compiling takes longer than running.
        _ => &["-O0"],
    };
    let common =
        ["-std=c++17", "-fPIC", "-march=native", "-fno-strict-aliasing", "-w", "-x", "c++"];
    let mut link = compiler();
    link.args(["-shared", "-Wl,-Bsymbolic"]);
    let is_object = |path: &PathBuf| path.extension().is_some_and(|e| e == "o");
    for object in files(&objects().join(build)).filter(is_object) {
        if !depends(&object, mutant.file) {
            link.arg(object);
            continue;
        }
        let name = object.file_stem().unwrap();
        let places = [folder.join(name), folder.join("ladder").join(name)];
        let source = places.into_iter().find(|path| path.exists()).expect("it was copied");
        let object = folder.join(build).with_extension(object.file_name().unwrap());
        let mut compile = compiler();
        compile.args(common).args(flags);
        for include in [&kernels().join("emulator"), folder, &kernels()] {
            compile.arg("-I").arg(include);
        }
        run(compile.arg("-c").arg(source).arg("-o").arg(&object), &mutant.to_string());
        link.arg(object);
    }
    let library = folder.join(build).with_extension("so");
    run(link.args(["-lpthread", "-ldl", "-o"]).arg(&library), &mutant.to_string());
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

/// The modes that catch a mutant, of those wanted.
fn modes_that_catch(mutant: &Mutant, wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let folder = tempfile::tempdir().unwrap();
    edit(mutant, folder.path());
    let mut found = Vec::new();
    let mut built: Vec<(&str, PathBuf)> = Vec::new();
    for (mode, build, flags) in MODES.into_iter().filter(|(mode, ..)| wanted(mode)) {
        if !built.iter().any(|(name, _)| *name == build) {
            built.push((build, library(mutant, build, folder.path())));
        }
        let (_, library) = built.iter().find(|(name, _)| *name == build).unwrap();
        if caught(library, mutant.family, flags) {
            found.push(mode);
        }
    }
    println!("{:<22} {:<58} {}", mutant.file, mutant.what, found.join(" "));
    found
}

#[test]
fn every_mutant_is_caught() {
    let asked = std::env::var("MUTANTS").ok();
    let all = asked.is_some();
    let word = asked.filter(|asked| asked != "all").unwrap_or_default();
    let mutants = FAMILIES.iter().copied().flatten();
    let mutants: Vec<&Mutant> = mutants.filter(|m| m.to_string().contains(&word)).collect();
    let catch = |m: &&Mutant| modes_that_catch(m, |mode| all || mode == m.by);
    let caught: Vec<Vec<&str>> = mutants.par_iter().map(catch).collect();
    for (mode, ..) in MODES {
        let by = caught.iter().filter(|modes| modes.contains(&mode)).count();
        let alone = caught.iter().filter(|modes| **modes == [mode]).count();
        println!(
            "{mode:<6} catches {by}{}",
            if all { format!(", {alone} alone") } else { "".into() }
        );
    }
    let mut wrong = Vec::new();
    for (mutant, modes) in mutants.iter().zip(&caught) {
        if !modes.contains(&mutant.by) {
            wrong.push(format!("{mutant}: not {}, but {modes:?}", mutant.by));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
