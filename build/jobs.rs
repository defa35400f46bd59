//! Runs compilers: several at once, each only where something changed.
//!
//! Beside an output `x.o` lie `x.o.stamp` (the command that made it; as old as the start of that
//! run), `x.o.log` (what the compiler said) and, where the compiler writes one, `x.o.d` (the files
//! it read, as a make rule). The output is current when its command is the same and nothing that
//! was read is younger than the stamp. The log is kept, so an unchanged build judges it again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// One run of a compiler or linker, which makes one file.
pub struct Job {
    pub output: PathBuf,
    /// The program and what it is told.
    pub command: Vec<String>,
    /// Files it is known to read; the dependency file adds the headers.
    pub inputs: Vec<PathBuf>,
    /// What else decides the result: the compiler's version.
    pub salt: String,
}

/// What became of a job.
pub struct Outcome {
    pub output: PathBuf,
    /// The job's first input.
    pub source: PathBuf,
    pub ok: bool,
    /// What the program said, now or when it last ran.
    pub log: String,
}

/// Runs what is not current, at most `jobs` at a time and large inputs first; the outcomes come in
/// the order of the jobs.
pub fn run(jobs: Vec<Job>, at_once: usize) -> Vec<Outcome> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    let size = |job: &Job| fs::metadata(&job.inputs[0]).map_or(0, |file| file.len());
    order.sort_by_key(|&i| std::cmp::Reverse(size(&jobs[i])));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((i, make(&jobs[i])));
        }
        done
    };
    let mut done: Vec<(usize, Outcome)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once.min(jobs.len())).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a job panicked")).collect()
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// The file that lies beside `output` with one more extension.
pub fn beside(output: &Path, extension: &str) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn make(job: &Job) -> Outcome {
    let (stamp, log) = (beside(&job.output, "stamp"), beside(&job.output, "log"));
    let outcome =
        |ok, log| Outcome { output: job.output.clone(), source: job.inputs[0].clone(), ok, log };
    let identity = format!("{}\n{}\n", job.salt, job.command.join("\n"));
    if current(job, &stamp, &identity) {
        return outcome(true, fs::read_to_string(&log).unwrap_or_default());
    }
    // Written before the run, so that a source saved while it is being read counts as younger.
    let started = beside(&job.output, "started");
    let prepared = fs::create_dir_all(job.output.parent().expect("outputs have a folder"))
        .and_then(|()| if stamp.exists() { fs::remove_file(&stamp) } else { Ok(()) })
        .and_then(|()| fs::write(&started, &identity));
    if let Err(e) = prepared {
        return outcome(false, format!("{}: {e}", job.output.display()));
    }
    let (program, arguments) = job.command.split_first().expect("a command names a program");
    let ran = match Command::new(program).args(arguments).output() {
        Ok(ran) => ran,
        Err(e) => return outcome(false, format!("{program}: {e}")),
    };
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if !ran.status.success() {
        let failed = format!("{said}{}: {}\n{}", program, ran.status, job.command.join(" "));
        return outcome(false, failed);
    }
    match fs::write(&log, &said).and_then(|()| fs::rename(&started, &stamp)) {
        Ok(()) => outcome(true, said),
        Err(e) => outcome(false, format!("{}: {e}", stamp.display())),
    }
}

fn current(job: &Job, stamp: &Path, identity: &str) -> bool {
    let Ok(since) = modified(stamp) else { return false };
    if !job.output.exists() || fs::read_to_string(stamp).is_ok_and(|made| made != identity) {
        return false;
    }
    let rule = fs::read_to_string(beside(&job.output, "d")).unwrap_or_default();
    let mut read: BTreeSet<PathBuf> = dependencies(&rule).into_iter().collect();
    read.extend(job.inputs.iter().cloned());
    read.iter().all(|file| modified(file).is_ok_and(|at| at < since))
}

fn modified(file: &Path) -> std::io::Result<SystemTime> {
    fs::metadata(file)?.modified()
}

/// The files that a make rule `target: file file \` names, over several lines.
pub fn dependencies(rule: &str) -> Vec<PathBuf> {
    let files = rule.split_once(':').map_or("", |(_, files)| files).replace("\\\n", " ");
    // A space inside a name comes as `\ `.
    let files = files.replace("\\ ", "\0");
    files.split_whitespace().map(|file| file.replace('\0', " ").into()).collect()
}
