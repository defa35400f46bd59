//! Compiles the kernels for the CPU: three libraries of the same sources.
//!
//! | library | kernels | finds |
//! |---|---|---|
//! | `plain` | -O2 | wrong results, deadlocks |
//! | `check` | -fsanitize=thread, whose calls at each access the emulator answers | races |
//! | `asan` | with AddressSanitizer | stray accesses |
//!
//! The compiler is `CXX`, else the first of c++, g++ and clang++ that works.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::jobs::{self, Job, beside};

/// A C++ compiler that works.
pub struct Compiler {
    /// The program, and words that `CXX` put after it.
    pub command: Vec<String>,
    version: String,
}

/// One library: what sets it apart from the others.
struct Flavour {
    name: &'static str,
    /// Tells the crate where it lies; empty if it was not built.
    variable: &'static str,
    kernels: &'static [&'static str],
    runtime: &'static [&'static str],
    link: &'static [&'static str],
}

/// Tells the crate where AddressSanitizer's own library lies.
const ASAN_RUNTIME: &str = "WARPWRIGHT_EMULATOR_ASAN_RUNTIME";

const FLAVOURS: &[Flavour] = &[
    Flavour {
        name: "plain",
        variable: "WARPWRIGHT_EMULATOR_PLAIN",
        kernels: &["-O2"],
        runtime: &["-O3", "-DEMU_BUILD=\"plain\""],
        link: &["-Wl,--no-undefined"],
    },
    // Linked without the sanitizer's own library: the runtime defines what the kernels call, and
    // the linker says which call it forgot.
    Flavour {
        name: "check",
        variable: "WARPWRIGHT_EMULATOR_CHECK",
        kernels: &["-fsanitize=thread", "-O1", "-fno-tree-vectorize"],
        runtime: &["-O3", "-DEMU_BUILD=\"check\""],
        link: &["-Wl,--no-undefined"],
    },
    Flavour {
        name: "asan",
        variable: "WARPWRIGHT_EMULATOR_ASAN",
        kernels: &["-fsanitize=address", "-fno-omit-frame-pointer", "-O1"],
        runtime: &["-fsanitize=address", "-fno-omit-frame-pointer", "-O1", "-DEMU_BUILD=\"asan\""],
        link: &["-fsanitize=address"],
    },
];

impl Compiler {
    /// The first that compiles a line of C++ with its library, or why there is none.
    pub fn find(out: &Path) -> Result<Compiler, String> {
        let named = env::var("CXX").unwrap_or_default();
        let mut why = "no C++ compiler found (CXX, c++, g++, clang++)".to_string();
        let candidates = [named.as_str(), "c++", "g++", "clang++"];
        for name in candidates.into_iter().filter(|name| !name.trim().is_empty()) {
            let command: Vec<String> = name.split_whitespace().map(String::from).collect();
            let Ok(said) = Command::new(&command[0]).args(&command[1..]).arg("--version").output()
            else {
                continue;
            };
            let version = String::from_utf8_lossy(&said.stdout).into_owned();
            let compiler = Compiler { command, version };
            match compiler.compiles(out) {
                Ok(()) => return Ok(compiler),
                Err(e) => why = format!("{name} does not compile C++: {e}"),
            }
        }
        Err(why)
    }

    fn compiles(&self, out: &Path) -> Result<(), String> {
        let source = out.join("probe.cpp");
        fs::write(&source, "#include <functional>\nstd::function<int()> f = [] { return 0; };\n")
            .map_err(|e| e.to_string())?;
        let said = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(["-std=c++17", "-fsyntax-only"])
            .arg(&source)
            .output()
            .map_err(|e| e.to_string())?;
        let line = |text: &[u8]| String::from_utf8_lossy(text).lines().next().map(String::from);
        if said.status.success() { Ok(()) } else { Err(line(&said.stderr).unwrap_or_default()) }
    }

    fn is_clang(&self) -> bool {
        self.version.contains("clang")
    }

    /// AddressSanitizer's shared library, which must be loaded before a process starts.
    fn asan(&self) -> Option<PathBuf> {
        let names: &[&str] = if self.is_clang() {
            &["libclang_rt.asan.so", "libclang_rt.asan-x86_64.so", "libclang_rt.asan-aarch64.so"]
        } else {
            &["libasan.so"]
        };
        names.iter().find_map(|name| {
            let said = Command::new(&self.command[0])
                .args(&self.command[1..])
                .arg(format!("-print-file-name={name}"))
                .output()
                .ok()?;
            let path = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
            // An unknown name is given back as it came; a linker script cannot be preloaded.
            let is_library = fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
            (path.is_absolute() && is_library).then_some(path)
        })
    }
}

/// Builds the libraries from kernels and runtime; tells the crate where they lie. The error is
/// what a compiler said.
pub fn build(
    compiler: &Compiler,
    kernels: &[PathBuf],
    runtime: &[PathBuf],
    out: &Path,
    at_once: usize,
) -> Result<(), String> {
    let asan = compiler.asan();
    let built = |flavour: &Flavour| flavour.name != "asan" || asan.is_some();
    if asan.is_none() {
        println!("cargo::warning=no AddressSanitizer library: the emulator is built without it");
    }
    let folder = out.join("emulator");
    let flavours: Vec<&Flavour> = FLAVOURS.iter().filter(|flavour| built(flavour)).collect();
    let mut compile = Vec::new();
    for flavour in &flavours {
        let sources = (kernels.iter().map(|source| (source, flavour.kernels)))
            .chain(runtime.iter().map(|source| (source, flavour.runtime)));
        compile.extend(sources.map(|(source, flags)| {
            compiler.compile(source, object(&folder.join(flavour.name), source), flags)
        }));
    }
    finish(jobs::run(compile, at_once))?;
    let link = flavours.iter().map(|flavour| compiler.link(flavour, kernels, runtime, &folder));
    finish(jobs::run(link.collect(), at_once))?;
    for flavour in &flavours {
        tell(flavour.variable, library(&folder, flavour));
    }
    tell(ASAN_RUNTIME, asan.unwrap_or_default());
    Ok(())
}

/// Tells the crate that nothing was built.
pub fn absent() {
    for flavour in FLAVOURS {
        tell(flavour.variable, PathBuf::new());
    }
    tell(ASAN_RUNTIME, PathBuf::new());
}

fn tell(variable: &str, path: PathBuf) {
    println!("cargo::rustc-env={variable}={}", path.display());
}

fn object(folder: &Path, source: &Path) -> PathBuf {
    let name = source.file_name().expect("a source has a name");
    beside(&folder.join(name), "o")
}

fn library(folder: &Path, flavour: &Flavour) -> PathBuf {
    folder.join(format!("libemulator-{}.so", flavour.name))
}

impl Compiler {
    fn compile(&self, source: &Path, output: PathBuf, flags: &[&str]) -> Job {
        let mut command = self.command.clone();
        let mut add = |words: &[&str]| command.extend(words.iter().map(|word| word.to_string()));
        add(&["-std=c++17", "-g", "-fPIC", "-fno-strict-aliasing"]);
        add(&["-Wall", "-Wno-unknown-pragmas", "-Wno-psabi"]);
        if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
            add(&["-march=x86-64-v3"]);
        }
        if !self.is_clang() {
            // Statics of templates must not be shared between libraries of one process.
            add(&["-fno-gnu-unique"]);
        }
        add(flags);
        add(&["-Ikernels/emulator", "-Ikernels", "-MMD", "-MF"]);
        add(&[&beside(&output, "d").to_string_lossy()]);
        add(&["-x", "c++", "-c", &source.to_string_lossy(), "-o", &output.to_string_lossy()]);
        Job { output, command, inputs: vec![source.to_path_buf()], salt: self.version.clone() }
    }

    fn link(
        &self,
        flavour: &Flavour,
        kernels: &[PathBuf],
        runtime: &[PathBuf],
        folder: &Path,
    ) -> Job {
        let sources = kernels.iter().chain(runtime);
        let objects = folder.join(flavour.name);
        let inputs: Vec<PathBuf> = sources.map(|source| object(&objects, source)).collect();
        let output = library(folder, flavour);
        let mut command = self.command.clone();
        let mut add = |words: &[&str]| command.extend(words.iter().map(|word| word.to_string()));
        add(&["-shared", "-fPIC", "-Wl,-Bsymbolic"]);
        if flavour.name == "asan" && self.is_clang() {
            add(&["-shared-libasan"]);
        }
        add(flavour.link);
        inputs.iter().for_each(|object| add(&[&object.to_string_lossy()]));
        add(&["-lpthread", "-ldl", "-o", &output.to_string_lossy()]);
        Job { output, command, inputs, salt: self.version.clone() }
    }
}

/// Shows each warning once; fails with what the compilers that failed said.
fn finish(outcomes: Vec<jobs::Outcome>) -> Result<(), String> {
    let (good, bad): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.ok);
    let warnings: BTreeSet<String> = good.into_iter().map(|outcome| outcome.log).collect();
    for line in warnings.iter().flat_map(|log| log.lines()) {
        println!("cargo::warning={line}");
    }
    // A kernel that fails in one flavour mostly fails in all: what the first said is enough.
    let said: BTreeSet<PathBuf> = bad.iter().map(|outcome| outcome.source.clone()).collect();
    let first = |source| bad.iter().find(|o| o.source == source).map(|o| o.log.clone());
    let said: Vec<String> = said.into_iter().filter_map(first).collect();
    if said.is_empty() { Ok(()) } else { Err(said.join("\n")) }
}
