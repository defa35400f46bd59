//! The program from its arguments on: what it refuses, and with which words; what it does.
//!
//! A refusal exits with 1 or 2, never panics, and says what to do next (`runs::refuses`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

#[path = "../runs/mod.rs"]
mod runs;

mod card;
mod commands;
mod configuration;
mod data;
mod eval;
mod explain;
mod finetune;
mod finetune_flags;
mod folders;
mod kept;
mod models;

use runs::{Lab, refuses, succeeds};

/// A small masked and a small causal model, `masked` and `causal`, trained once for all tests that
/// only read them.
fn trained() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trained");
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        let lab = Lab::new();
        let out = |name| place.join(name).display().to_string();
        succeeds(&mut lab.pretrain(&out("masked"), &["--set", "train.steps=20"]));
        succeeds(&mut lab.pretrain(&out("causal"), &["--objective", "causal"]));
        place
    })
}

fn masked() -> String {
    trained().join("masked").display().to_string()
}

fn causal() -> String {
    trained().join("causal").display().to_string()
}

/// A copy of the best checkpoint of a run.
fn copied(lab: &Lab, run: &str, to: &str) -> PathBuf {
    let (from, to) = (Path::new(run).join("checkpoints/best"), lab.path(to));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    to
}
