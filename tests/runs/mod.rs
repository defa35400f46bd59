//! Small runs of the real program, for tests.
#![allow(dead_code)] // Each test binary uses its own part.

use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than any of these runs takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What makes a run small; the data come from [`Lab::text`].
pub const SMALL: [&str; 11] = [
    "model.width=16",
    "model.heads=2",
    "model.layers=2",
    "model.inner=24",
    "data.vocabulary=300",
    "data.heldout=0.2",
    "batch.tokens=128",
    "batch.context=16",
    "train.eval_tokens=256",
    "train.eval_every=0",
    "train.steps=6",
];

/// A folder with a text, and the program at hand.
pub struct Lab {
    pub dir: TempDir,
}

impl Lab {
    pub fn new() -> Lab {
        let lab = Lab { dir: tempfile::tempdir().expect("a temporary folder") };
        lab.write("corpus.txt", text());
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file in a temporary folder");
        path
    }

    /// The program, run in this folder.
    pub fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_warpwright"));
        command.current_dir(self.dir.path()).args(args);
        command
    }

    /// `pretrain` of a small model into `out`, with `more` arguments.
    pub fn pretrain(&self, out: &str, more: &[&str]) -> Command {
        let mut command = self.program(&["pretrain", "--threads", "1", "--out", out]);
        for set in SMALL.iter().chain(&["data.text=[\"corpus.txt\"]"]) {
            command.args(["--set", set]);
        }
        command.args(more);
        command
    }

    pub fn resume(&self, out: &str) -> Command {
        self.program(&["pretrain", "--threads", "1", "--resume", "--out", out])
    }

    /// A data set `shards` of the text.
    pub fn shards(&self, name: &str) {
        let args = ["data", "tokenize", "corpus.txt", "--vocab-size", "300", "--heldout", "0.2"];
        succeeds(self.program(&args).args(["--out", name]));
    }
}

/// Documents of a few sentences, no two alike.
pub fn text() -> String {
    let nouns = ["whale", "captain", "harpoon", "sea", "mast", "storm", "island", "letter"];
    let verbs = ["saw", "followed", "forgot", "praised", "hunted", "feared", "painted"];
    let sentence = |i: usize| {
        let (a, b) = (nouns[i % nouns.len()], nouns[(i / 3) % nouns.len()]);
        format!("On day {i} the {a} {} the {b} again. ", verbs[i % verbs.len()])
    };
    let document = |d: usize| (0..6).map(|s| sentence(6 * d + s)).collect::<String>();
    (0..60).map(document).collect::<Vec<_>>().join("\n\n\n")
}

/// Runs to the end, however long a slow machine takes; panics if that is beyond patience.
pub fn run(command: &mut Command) -> Output {
    // Into files, as a pipe that nobody empties blocks who writes.
    let [mut out, mut err] = [0, 1].map(|_| tempfile::tempfile().unwrap());
    command.stdin(Stdio::null());
    command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let [stdout, stderr] = [&mut out, &mut err].map(|file| {
        let mut written = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut written).unwrap();
        written
    });
    Output { status, stdout, stderr }
}

/// Standard output and standard error of a run that succeeds.
pub fn succeeds(command: &mut Command) -> (String, String) {
    let output = run(command);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    (out, err)
}

/// The message of a run that refuses: an exit code of 1 or 2, no panic, and all of `parts` said.
pub fn refuses(command: &mut Command, parts: &[&str]) -> String {
    let output = run(command);
    let (out, err) = texts(&output);
    assert!(!err.contains("panicked"), "{command:?} panics:\n{err}");
    let code = output.status.code();
    assert!(matches!(code, Some(1 | 2)), "{command:?}: {}\n{out}\n{err}", output.status);
    for part in parts {
        assert!(err.contains(part), "{command:?} does not say {part:?}:\n{err}");
    }
    err
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Starts a run in the background.
pub fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal by name.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.unwrap().success(), "kill -s {name}");
}

/// Waits until `is` holds.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The records of a run's log, of one kind.
pub fn records(run: &Path, kind: &str) -> Vec<Value> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let records = lines.map(|line| serde_json::from_str::<Value>(line).expect("a record"));
    records.filter(|record| record["kind"] == kind).collect()
}

/// The steps that the log holds, in its order.
pub fn steps(run: &Path) -> Vec<u64> {
    records(run, "train").iter().map(|r| r["step"].as_u64().unwrap()).collect()
}

/// Weights and moments of the newest checkpoint, byte for byte.
pub fn state(run: &Path) -> [Vec<u8>; 2] {
    ["model.safetensors", "optimizer.safetensors"].map(|name| {
        let path = run.join("checkpoints/last").join(name);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    })
}

/// The steps of the checkpoints there are, ascending.
pub fn checkpoints(run: &Path) -> Vec<u64> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<u64> =
        names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort();
    steps
}

/// Flips a bit of a file's byte; from the end where `at` is negative.
pub fn flip(path: &Path, at: i64) {
    let mut bytes = fs::read(path).unwrap();
    let len = bytes.len() as i64;
    bytes[at.rem_euclid(len) as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Waits for `time`, or less if `is` comes to hold.
pub fn wait_until_or(time: Duration, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < time && !is() {
        std::thread::sleep(Duration::from_micros(500));
    }
}
