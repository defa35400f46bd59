//! Compiles the kernels for GPUs: finds nvcc, makes a fatbin of each file, holds ptxas's report to
//! the rules of [`crate::ptxas`] and generates `kernels.rs`, which embeds everything.
//!
//! nvcc is looked for in this order, and the first that is new enough is taken:
//!
//! 1. `NVCC` (set but empty: no CUDA is wanted)
//! 2. `CUDA_HOME/bin`, `CUDA_PATH/bin`
//! 3. `.cuda/` of this repository, where `scripts/cuda-toolkit.sh` puts NVIDIA's wheels
//! 4. `PATH`
//! 5. `/usr/local/cuda/bin`, `/opt/cuda/bin`
//! 6. the wheels of the active Python

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::emulator::Compiler;
use crate::jobs::{self, Job, beside};
use crate::ptxas::Report;

/// Older ptxas miscompiles, silently.
const OLDEST: (u32, u32) = (13, 3);

/// Chips that get machine code, unless a file's head says `// arch:`. The first also gets PTX,
/// which any newer chip can compile when it meets it.
const CHIPS: &[&str] = &["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100"];

/// Chips to build for in place of all, separated by spaces: saves time while writing a kernel.
pub const CHIPS_WANTED: &str = "WARPWRIGHT_CUDA_ARCH";

/// Where wheels keep nvcc, below the folder they were installed in.
const IN_WHEELS: &str = "nvidia/cu13/bin/nvcc";

pub struct Nvcc {
    pub path: PathBuf,
    version: String,
}

impl Nvcc {
    /// The first that is new enough; the error says in one sentence why there is none.
    pub fn find() -> Result<Nvcc, String> {
        if env::var("NVCC").is_ok_and(|path| path.trim().is_empty()) {
            return Err("NVCC is empty: built without CUDA".into());
        }
        let mut refused = Vec::new();
        for path in candidates().filter(|path| path.is_file()) {
            match Nvcc::accept(path) {
                Ok(nvcc) => return Ok(nvcc),
                Err(why) => refused.push(why),
            }
        }
        let how = "scripts/cuda-toolkit.sh fetches one that is (no root or GPU is needed)";
        if refused.is_empty() {
            return Err(format!("no nvcc is here: built without CUDA; {how}"));
        }
        Err(format!("no nvcc is new enough: built without CUDA; {how}: {}", refused.join("; ")))
    }

    fn accept(path: PathBuf) -> Result<Nvcc, String> {
        let shown = path.display();
        let said = Command::new(&path).arg("--version").output();
        let said = said.map_err(|e| format!("{shown} does not run: {e}"))?;
        let version = String::from_utf8_lossy(&said.stdout).into_owned();
        match release(&version) {
            Some(release) if release >= OLDEST => Ok(Nvcc { path, version }),
            Some((major, minor)) => Err(format!(
                "{shown} is {major}.{minor}, whose ptxas can overwrite the registers that a wgmma \
                 still reads (triton issues 9433 and 11781; mended in {}.{})",
                OLDEST.0, OLDEST.1
            )),
            None => Err(format!("{shown} does not tell its version")),
        }
    }
}

fn candidates() -> impl Iterator<Item = PathBuf> {
    let variable = |name| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = |name| variable(name).map(|home| home.join("bin/nvcc"));
    let first = [variable("NVCC"), home("CUDA_HOME"), home("CUDA_PATH")];
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<_> = env::split_paths(&on_path).map(|folder| folder.join("nvcc")).collect();
    // Python takes a moment to start, so it is asked only when all else failed.
    let wheels = std::iter::once_with(python_folders).flatten();
    (first.into_iter().flatten())
        .chain([Path::new(".cuda").join(IN_WHEELS)])
        .chain(on_path)
        .chain(["/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc"].map(PathBuf::from))
        .chain(wheels.map(|folder| folder.join(IN_WHEELS)))
        // nvcc finds its own parts relative to the path it was started by.
        .map(|path| fs::canonicalize(&path).unwrap_or(path))
}

/// Where the active Python keeps its packages.
fn python_folders() -> Vec<PathBuf> {
    let ask = "import site, sysconfig; \
               print(sysconfig.get_path('purelib'), site.getusersitepackages(), sep='\\n')";
    let said = ["python3", "python"].into_iter().find_map(|python| {
        let said = Command::new(python).args(["-c", ask]).output().ok()?;
        said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
    });
    said.unwrap_or_default().lines().map(PathBuf::from).collect()
}

/// `(13, 3)` of `Cuda compilation tools, release 13.3, V13.3.33`.
fn release(version: &str) -> Option<(u32, u32)> {
    let (_, rest) = version.split_once("release ")?;
    let (major, rest) = rest.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Compiles all kernels into `compiled` and embeds them by files in `out`. The error is what nvcc
/// said, or each remark that the rules forbid.
pub fn build(
    nvcc: &Nvcc,
    host: &Compiler,
    kernels: &[PathBuf],
    compiled: &Path,
    out: &Path,
    at_once: usize,
) -> Result<(), String> {
    let wanted = env::var(CHIPS_WANTED).unwrap_or_default();
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let mut compile = Vec::new();
    for source in kernels {
        let text = fs::read_to_string(source).map_err(|e| format!("{}: {e}", source.display()))?;
        let mut chips = chips(&text);
        chips.retain(|chip| wanted.is_empty() || wanted.contains(chip));
        if !chips.is_empty() {
            compile.push(job(nvcc, host, source, &chips, compiled));
        }
    }
    let outcomes = jobs::run(compile, at_once);
    let said: Vec<String> = outcomes.iter().filter(|o| !o.ok).map(|o| o.log.clone()).collect();
    if !said.is_empty() {
        return Err(said.join("\n"));
    }
    let mut problems = Vec::new();
    let mut resources = String::from("module\tkernel\tarch\tregisters\tshared\tstack\tconstant\n");
    for outcome in &outcomes {
        let (source, module) = (outcome.source.display(), stem(outcome));
        let report = Report::parse(&outcome.log);
        problems.extend(report.problems.iter().map(|p| format!("{source}: {p}")));
        for k in &report.kernels {
            let numbers = [k.registers, k.shared, k.stack, k.constant].map(|n| n.to_string());
            let (kernel, arch, numbers) = (&k.kernel, &k.arch, numbers.join("\t"));
            writeln!(resources, "{module}\t{kernel}\t{arch}\t{numbers}").expect("to memory");
        }
        let remarks = outcome.log.lines().filter(|line| line.contains("warning"));
        remarks.for_each(|line| println!("cargo::warning={line}"));
    }
    let nvcc = release(&nvcc.version).map_or(String::new(), |(a, b)| format!("{a}.{b}"));
    embed(&outcomes, &nvcc, &resources, out).map_err(|e| format!("{}: {e}", out.display()))?;
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// A file of kernels, without folder and extension.
fn stem(outcome: &jobs::Outcome) -> String {
    outcome.source.file_stem().expect("a kernel has a name").to_string_lossy().into_owned()
}

/// Embeds nothing.
pub fn absent(out: &Path) {
    embed(&[], "", "", out).expect("the build folder can be written");
}

/// Chips that a file's first lines name (`// arch: sm_90a`), or all.
fn chips(text: &str) -> Vec<&str> {
    let named = text.lines().take(20).find_map(|line| line.strip_prefix("// arch: "));
    named.map_or(CHIPS.to_vec(), |chips| chips.split_whitespace().collect())
}

fn job(nvcc: &Nvcc, host: &Compiler, source: &Path, chips: &[&str], folder: &Path) -> Job {
    let stem = source.file_stem().expect("a kernel has a name").to_string_lossy();
    let output = folder.join("cuda").join(format!("{stem}.fatbin"));
    let mut command = vec![nvcc.path.to_string_lossy().into_owned()];
    let mut add = |words: &[&str]| command.extend(words.iter().map(|word| word.to_string()));
    add(&["-fatbin", "-O3", "-std=c++17", "-lineinfo", "-Ikernels"]);
    add(&["-Xptxas", "-v,-warn-spills", "--compress-mode=size"]);
    if let [compiler] = host.command.as_slice() {
        add(&["-ccbin", compiler]);
    }
    for chip in chips {
        let version = chip.trim_start_matches("sm_");
        let ptx = if *chip == CHIPS[0] { format!(",compute_{version}") } else { String::new() };
        add(&[&format!("-gencode=arch=compute_{version},code=[{chip}{ptx}]")]);
    }
    add(&["-MMD", "-MF", &beside(&output, "d").to_string_lossy()]);
    add(&[&source.to_string_lossy(), "-o", &output.to_string_lossy()]);
    Job { output, command, inputs: vec![source.to_path_buf()], salt: nvcc.version.clone() }
}

/// Writes `kernels.rs`, which `src/device/gpu/module.rs` includes, and `resources.tsv`, which it
/// embeds.
fn embed(
    modules: &[jobs::Outcome],
    nvcc: &str,
    resources: &str,
    out: &Path,
) -> std::io::Result<()> {
    let images: String = modules
        .iter()
        .map(|module| {
            let path = &module.output;
            let image = format!("&Aligned(*include_bytes!({path:?}))");
            format!("    ({:?}, {{ const I: &Aligned<[u8]> = {image}; &I.0 }}),\n", stem(module))
        })
        .collect();
    let aligned = "/// The driver reads fatbins in words.\n\
                   #[repr(C, align(16))]\n\
                   struct Aligned<B: ?Sized>(B);\n\n";
    let aligned = if modules.is_empty() { "" } else { aligned };
    let (table, with_ptx) = (out.join("resources.tsv"), CHIPS[0]);
    let code = format!(
        "{aligned}\
         /// Name of a file of kernels, and its fatbin.\n\
         pub static MODULES: &[(&str, &[u8])] = &[\n{images}];\n\n\
         /// A row for each kernel on each chip, below a row of names.\n\
         pub static RESOURCES: &str = include_str!({table:?});\n\n\
         /// Version of the nvcc that compiled them; empty where there was none.\n\
         pub static NVCC: &str = {nvcc:?};\n\n\
         /// The chip beside whose machine code lies PTX.\n\
         const WITH_PTX: &str = {with_ptx:?};\n"
    );
    fs::write(table, resources)?;
    fs::write(out.join("kernels.rs"), code)
}
