//! A run that was stopped, in whatever way and at whatever moment, ends as one that never was.
//!
//! Everything is compared byte for byte: weights and moments of the last checkpoint.

mod runs;
mod support;

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use half::bf16;
use runs::{Lab, SMALL, checkpoints, flip, refuses, run, signal, spawn, state, steps, succeeds};
use warpwright::checkpoint::{newest, verify};
use warpwright::config::{Config, Dtype, Overrides};
use warpwright::device::Device;
use warpwright::device::cpu::Cpu;
use warpwright::device::gpu::tuned::{Entry, Key, Op, Tuned};
use warpwright::device::gpu::{self, Kernels, Place, ProductCut, emulator};
use warpwright::device::meter::Meter;
use warpwright::train::folder::RunFolder;
use warpwright::train::prepare::Prepared;
use warpwright::train::run::{End, Run, Session};
use warpwright::train::step::Trainer;

/// Post-norm, a sentence-pair loss, and dropout everywhere.
const BERT: [&str; 6] = [
    "model.preset=bert-tiny",
    "objective.pair=order",
    "objective.masking={ unit = \"word\", rate = 0.3 }",
    "model.dropout.embed=0.1",
    "model.dropout.hidden=0.1",
    "model.dropout.attention=0.1",
];
/// Two passes a step, clipped at almost nothing.
const GPT: [&str; 4] =
    ["model.preset=gpt2-tiny", "batch.micro=64", "train.clip=0.01", "schedule.shape=wsd"];

fn config(lab: &Lab, more: &[&str]) -> Config {
    let text = format!("data.text=['{}']", lab.path("corpus.txt").display());
    let set = SMALL.iter().chain(more).map(|s| s.to_string()).chain([text]).collect();
    Config::resolve(&Overrides { set, ..Overrides::default() }).unwrap()
}

/// Trains in `path`, anew or from its newest checkpoint.
fn train(config: &Config, path: &Path, resume: bool, stop: &AtomicBool) -> End {
    match config.dtype() {
        Dtype::F64 => train_on(Cpu::<f64>::new(), config, path, resume, stop),
        Dtype::F32 => train_on(Cpu::<f32>::new(), config, path, resume, stop),
        Dtype::Bf16 => train_on(Cpu::<bf16>::new(), config, path, resume, stop),
    }
}

fn train_on<D: Device>(
    dev: D,
    config: &Config,
    path: &Path,
    resume: bool,
    stop: &AtomicBool,
) -> End {
    let folder = match resume {
        true => RunFolder::resume(path).unwrap().0,
        false => RunFolder::create(path, config, false).unwrap(),
    };
    let data = Prepared::new(config, &folder.data()).unwrap();
    let dev = Meter::new(dev);
    let capacity = data.capacity(config.micro());
    let trainer =
        Trainer::new(&dev, &data.arch, capacity, config.passes(), None, config.train.decay)
            .unwrap();
    let dtype = config.dtype().of_sums();
    // A counter that has run before, of 1 J a look, and began anew since.
    let looks = Cell::new(if resume { 7.0 } else { 500.0 });
    let energy = || Some(looks.replace(looks.get() + 1.0));
    let run = Run { config, folder: &folder, data: &data, dtype, stop, energy: &energy };
    let mut session = match resume {
        true => Session::resume(&dev, &run, trainer).unwrap(),
        false => Session::start(&dev, &run, trainer).unwrap(),
    };
    session.train().unwrap()
}

/// Copies the run in `from` as it was when checkpoint `step` had just been taken, but for the log,
/// which a killed run leaves with more.
fn as_of(from: &Path, to: &Path, step: u64) {
    let copy = |a: &Path, b: &Path| {
        assert!(Command::new("cp").arg("-r").args([a, b]).status().unwrap().success());
    };
    fs::create_dir_all(to.join("checkpoints")).unwrap();
    for name in ["config.toml", "data", "metrics.jsonl"] {
        copy(&from.join(name), &to.join(name));
    }
    if from.join("products.json").exists() {
        copy(&from.join("products.json"), to);
    }
    let name = format!("checkpoints/step-{step:06}");
    copy(&from.join(&name), &to.join(&name));
}

#[test]
fn from_every_checkpoint_and_in_every_precision_the_end_is_the_same() {
    let lab = Lab::new();
    let go = AtomicBool::new(false);
    for (name, dtype, sets) in [
        ("bert f32", "dtype=f32", &BERT[..]),
        ("bert f64", "dtype=f64", &BERT[..]),
        ("bert bf16", "dtype=bf16", &BERT[..]),
        ("gpt f32", "dtype=f32", &GPT[..]),
        ("gpt f64", "dtype=f64", &GPT[..]),
        ("gpt bf16", "dtype=bf16", &GPT[..]),
        ("by chance", "dtype=bf16", &["train.stochastic_rounding=true"]),
        ("sgd", "dtype=f32", &["optimizer={ rule = \"sgd\", nesterov = true }"]),
        ("rmsprop", "dtype=f32", &["optimizer={ rule = \"rmsprop\", momentum = 0.5 }"]),
    ] {
        let keep = ["train.checkpoint_every=2", "train.keep=9", dtype];
        let config = config(&lab, &[sets, &keep].concat());
        let whole = lab.path(name);
        assert_eq!(train(&config, &whole, false, &go), End::Done);
        assert_eq!(checkpoints(&whole), [2, 4, 6]);
        for step in [2, 4, 6] {
            let resumed = lab.path(&format!("{name} from {step}"));
            as_of(&whole, &resumed, step);
            assert_eq!(train(&config, &resumed, true, &go), End::Done);
            assert!(state(&resumed) == state(&whole), "{name} from step {step} ends elsewhere");
            assert_eq!(steps(&resumed), [1, 2, 3, 4, 5, 6], "{name} from {step}");
            let energy = runs::records(&resumed, "energy");
            let joules: Vec<f64> = energy.iter().map(|e| e["joules"].as_f64().unwrap()).collect();
            assert_eq!(joules, [1.0, 2.0, 3.0], "{name} from {step}");
        }
    }
}

#[test]
fn a_raised_flag_stops_with_a_checkpoint_and_changes_nothing() {
    let lab = Lab::new();
    let config = config(&lab, &["train.steps=300", "model.preset=gpt2-tiny"]);
    let (whole, stopped) = (lab.path("whole"), lab.path("stopped"));
    train(&config, &whole, false, &AtomicBool::new(false));
    let flag = AtomicBool::new(false);
    let end = thread::scope(|scope| {
        let run = scope.spawn(|| train(&config, &stopped, false, &flag));
        runs::wait_until("step 3", || steps(&stopped).len() >= 3);
        flag.store(true, Ordering::Relaxed);
        run.join().unwrap()
    });
    let End::Interrupted(step) = end else {
        panic!("300 steps were over before the flag was seen")
    };
    assert_eq!(checkpoints(&stopped), [step]);
    assert_eq!(train(&config, &stopped, true, &AtomicBool::new(false)), End::Done);
    assert!(state(&stopped) == state(&whole), "stopped after step {step}");
    assert_eq!(steps(&stopped), (1..=300).collect::<Vec<_>>());
}

#[test]
fn ctrl_c_stops_cleanly_and_says_how_to_go_on() {
    let lab = Lab::new();
    let more = ["--set", "train.steps=400", "--dtype", "bf16"];
    succeeds(&mut lab.pretrain("whole", &more));
    let child = spawn(&mut lab.pretrain("stopped", &more));
    runs::wait_until("step 5", || steps(&lab.path("stopped")).len() >= 5);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("to go on:\n  warpwright pretrain --resume --out stopped"), "{said}");
    // The precision is the run's own: no flag repeats it.
    succeeds(&mut lab.resume("stopped"));
    assert!(state(&lab.path("stopped")) == state(&lab.path("whole")));
    assert_eq!(steps(&lab.path("stopped")), (1..=400).collect::<Vec<_>>());
}

#[test]
fn killed_at_random_moments_it_ends_the_same() {
    let lab = Lab::new();
    let sets = [&BERT[..], &["train.steps=60", "train.checkpoint_every=1"]].concat();
    let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    succeeds(&mut lab.pretrain("whole", &more));
    let path = lab.path("killed");
    let (mut draw, mut longest, mut kills) = (support::uniform(20), 0.03, 0);
    loop {
        let begun = path.join("metrics.jsonl").exists();
        let mut command = if begun { lab.resume("killed") } else { lab.pretrain("killed", &more) };
        let mut child = spawn(&mut command);
        let delay = Duration::from_secs_f64(draw() * longest);
        // In small steps, as a run that is done need not be waited for.
        runs::wait_until_or(delay, || child.try_wait().unwrap().is_some());
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            break;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), None, "it did not die of the kill:\n{said}");
        kills += 1;
        // Slow machines get further each time.
        longest *= 1.08;
    }
    assert!(kills >= 5, "only {kills} kills");
    assert!(state(&path) == state(&lab.path("whole")), "after {kills} kills");
    assert_eq!(steps(&path), (1..=60).collect::<Vec<_>>());
    assert!(!path.join("checkpoints/.partial").exists());
}

/// Kernels in place of the CPU's ops, through the driver's copies: weights in bf16, rounded to
/// nearest or by chance.
#[test]
fn on_the_emulator_the_end_is_the_same_too() {
    if emulator::builds().next().is_none() {
        eprintln!("built without a C++ compiler: no emulator");
        return;
    }
    let lab = Lab::new();
    let run = |rounding: &str| {
        let sets = ["model.preset=gpt2-tiny", "model.width=32", "batch.tokens=64", "train.steps=4"];
        let more = ["train.eval_tokens=64", "train.checkpoint_every=2", "model.dropout.hidden=0.1"];
        let rounds = format!("train.stochastic_rounding={rounding}");
        let sets = [&sets[..], &more, &[rounds.as_str()]].concat();
        let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let whole = format!("whole {rounding}");
        succeeds(lab.pretrain(&whole, &args).args(["--device", "emulator"]));
        assert_eq!(checkpoints(&lab.path(&whole)), [2, 4]);
        let resumed = format!("resumed {rounding}");
        as_of(&lab.path(&whole), &lab.path(&resumed), 2);
        succeeds(&mut lab.resume(&resumed));
        assert!(state(&lab.path(&resumed)) == state(&lab.path(&whole)), "rounding {rounding}");
        assert_eq!(steps(&lab.path(&resumed)), [1, 2, 3, 4]);
        state(&lab.path(&whole))
    };
    assert!(run("false") != run("true"), "chance changes nothing");
}

/// Cuts of products, which order sums, stay with the run that took them, whatever becomes of the
/// file that they came from; and a run that lost them says so.
#[test]
fn with_measured_cuts_the_end_is_the_same_too() {
    let Ok(gpu) = gpu::open(Place::Emulator, Kernels::Fast) else {
        eprintln!("built without a C++ compiler: no emulator");
        return;
    };
    let lab = Lab::new();
    let mut tuned = Tuned::new(gpu.driver().properties());
    for (m, n) in [(96, 32), (32, 32), (24, 32), (32, 24)] {
        let key = Key { op: Op::LinearDw, m, n, k: 64 };
        tuned.keep(Entry { key, cut: ProductCut::Portable { tile: 2, splits: 2 }, seconds: 1e-3 });
    }
    let (cuts, kept) = (lab.path("cuts.json"), lab.path("whole/products.json"));
    tuned.write(&cuts).unwrap();
    let sets = ["model.preset=gpt2-tiny", "model.width=32", "batch.tokens=64", "train.steps=4"];
    let more = ["train.eval_tokens=64", "train.checkpoint_every=2"];
    let sets: Vec<&str> = sets.iter().chain(&more).flat_map(|set| ["--set", set]).collect();
    let args = [&sets[..], &["--device", "emulator"]].concat();
    succeeds(&mut lab.pretrain("host", &args));
    succeeds(lab.pretrain("whole", &args).args(["--tuned", "cuts.json"]));
    assert!(state(&lab.path("host")) != state(&lab.path("whole")), "cuts change nothing");
    assert_eq!(fs::read(&kept).unwrap(), fs::read(&cuts).unwrap());
    fs::remove_file(&cuts).unwrap();
    as_of(&lab.path("whole"), &lab.path("resumed"), 2);
    succeeds(&mut lab.resume("resumed"));
    assert!(state(&lab.path("resumed")) == state(&lab.path("whole")));

    let path = lab.path("resumed/products.json");
    flip(&path, -40);
    refuses(&mut lab.resume("resumed"), &["products.json", "is damaged", "train.tuned = false"]);
    fs::remove_file(&path).unwrap();
    refuses(&mut lab.resume("resumed"), &["products.json", "cannot be read", "bring"]);
    let again = ["--tuned", "cuts.json"];
    refuses(lab.pretrain("new", &args).args(again), &["cuts.json", "bench gemm --tune"]);
    assert!(!lab.path("new").exists());
    // Without cuts that a run names, there are none.
    succeeds(lab.pretrain("resumed", &args).arg("--force"));
    assert!(state(&lab.path("resumed")) == state(&lab.path("host")) && !path.exists());
}

/// A finished run of 8 steps with checkpoints 4, 6 and 8.
fn finished(lab: &Lab, name: &str) {
    let keep = ["train.steps=8", "train.checkpoint_every=2", "train.keep=3"];
    let keep: Vec<&str> = keep.iter().flat_map(|set| ["--set", set]).collect();
    succeeds(&mut lab.pretrain(name, &keep));
    // Held-out losses fall here, so the best is among the last three.
    assert_eq!(checkpoints(&lab.path(name)), [4, 6, 8]);
}

#[test]
fn a_damaged_checkpoint_gives_way_to_an_older_one() {
    let lab = Lab::new();
    finished(&lab, "run");
    let path = lab.path("run");
    let whole = state(&path);
    let partial = path.join("checkpoints/.partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("model.safetensors"), "a write that was cut").unwrap();
    flip(&path.join("checkpoints/step-000008/model.safetensors"), -1);
    fs::remove_file(path.join("checkpoints/step-000006/optimizer.safetensors")).unwrap();
    let (_, said) = succeeds(&mut lab.resume("run"));
    for part in ["passed over", "step-000008", "checksum", "step-000006", "resumed from"] {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
    assert!(state(&path) == whole);
    assert_eq!(steps(&path), (1..=8).collect::<Vec<_>>());
    assert!(!partial.exists());
    for step in [6, 8] {
        verify(&path.join(format!("checkpoints/step-{step:06}"))).unwrap();
    }
}

/// A learning rate that makes everything worse from the first steps on: the best comes early.
const WORSE: [&str; 3] = ["schedule.peak=30", "schedule.warmup=0", "optimizer.rule=sgd"];

/// One that was passed over must not count among the newest that are kept.
#[test]
fn a_damaged_later_checkpoint_never_drives_out_a_whole_one() {
    let lab = Lab::new();
    let keep = ["train.steps=8", "train.checkpoint_every=2", "train.keep=3"];
    let sets = [&WORSE[..], &keep].concat();
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    succeeds(&mut lab.pretrain("run", &sets));
    let path = lab.path("run");
    let whole = state(&path);
    fs::create_dir(path.join("checkpoints/step-000100")).unwrap();
    for step in [6, 8] {
        flip(&path.join(format!("checkpoints/step-{step:06}/model.safetensors")), -1);
    }
    let config = fs::read_to_string(path.join("config.toml")).unwrap();
    fs::write(path.join("config.toml"), config.replace("keep = 3", "keep = 1")).unwrap();
    succeeds(&mut lab.resume("run"));
    assert!(state(&path) == whole);
    let (newest, progress, _) = newest(&path.join("checkpoints")).unwrap();
    assert!(newest.ends_with("step-000008") && progress.step == 8);
    // Otherwise being the best would have kept it.
    assert_ne!(progress.best.map(|(step, _)| step), Some(8));
}

#[test]
fn with_no_whole_checkpoint_left_nothing_is_started_over() {
    let lab = Lab::new();
    finished(&lab, "run");
    let path = lab.path("run");
    for step in [4, 6, 8] {
        flip(&path.join(format!("checkpoints/step-{step:06}/optimizer.safetensors")), -1);
    }
    let log = fs::read(path.join("metrics.jsonl")).unwrap();
    refuses(&mut lab.resume("run"), &["none of the checkpoints", "checksum", "--force"]);
    assert!(fs::read(path.join("metrics.jsonl")).unwrap() == log);
    assert_eq!(checkpoints(&path), [4, 6, 8]);
}

#[test]
fn the_last_few_and_the_best_are_kept() {
    let lab = Lab::new();
    let sets =
        [&WORSE[..], &["train.steps=9", "train.keep=2", "train.checkpoint_every=1"]].concat();
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    succeeds(&mut lab.pretrain("run", &sets));
    let path = lab.path("run");
    let losses: Vec<(u64, f64)> = runs::records(&path, "eval")
        .iter()
        .map(|r| (r["step"].as_u64().unwrap(), r["loss"].as_f64().unwrap_or(f64::INFINITY)))
        .filter(|(step, _)| *step > 0)
        .collect();
    assert_eq!(losses.len(), 9);
    let best = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
    let mut kept = vec![best, 8, 9];
    kept.sort();
    kept.dedup();
    assert_eq!(checkpoints(&path), kept, "{losses:?}");
    for (link, step) in [("last", 9), ("best", best)] {
        let target = fs::read_link(path.join("checkpoints").join(link)).unwrap();
        assert_eq!(target, Path::new(&format!("step-{step:06}")));
        verify(&path.join("checkpoints").join(link)).unwrap();
    }
}

/// A kill after a checkpoint's rename and before its links are set leaves them behind.
#[test]
fn links_left_behind_are_set_on_resuming() {
    let lab = Lab::new();
    finished(&lab, "run");
    let links = lab.path("run/checkpoints");
    for link in ["last", "best"] {
        fs::remove_file(links.join(link)).unwrap();
    }
    std::os::unix::fs::symlink("step-000004", links.join("last")).unwrap();
    succeeds(&mut lab.resume("run"));
    assert_eq!(fs::read_link(links.join("last")).unwrap(), Path::new("step-000008"));
    assert!(links.join("best/state.json").exists());
}

/// Files cannot grow beyond a limit, as on a full disk: the run stops, what was saved stays.
#[test]
fn a_checkpoint_that_does_not_fit_leaves_the_earlier_ones() {
    let lab = Lab::new();
    let more = ["--set", "train.steps=60", "--set", "train.checkpoint_every=20"];
    succeeds(&mut lab.pretrain("whole", &more));
    let mut child = spawn(&mut lab.pretrain("full", &more));
    let path = lab.path("full");
    runs::wait_until("a checkpoint", || path.join("checkpoints/last").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let before = checkpoints(&path);
    assert!(!before.contains(&60), "the run was over too soon");
    let largest = fs::metadata(path.join("checkpoints/last/optimizer.safetensors")).unwrap().len();
    // In blocks of 512 bytes: too few for the moments, enough for all else.
    let limit = (largest * 3 / 4) / 512;
    let program = env!("CARGO_BIN_EXE_warpwright");
    let line = format!(
        "trap '' XFSZ; ulimit -f {limit}; exec {program} pretrain --threads 1 --resume --out full"
    );
    let mut sh = Command::new("sh");
    sh.current_dir(lab.dir.path()).env("POSIXLY_CORRECT", "1").args(["-c", &line]);
    refuses(&mut sh, &["optimizer.safetensors", "File too large"]);
    assert_eq!(checkpoints(&path), before);
    assert!(!path.join("checkpoints/.partial").exists());
    verify(&path.join("checkpoints/last")).unwrap();
    succeeds(&mut lab.resume("full"));
    assert!(state(&path) == state(&lab.path("whole")));
    assert_eq!(steps(&path), (1..=60).collect::<Vec<_>>());
    assert!(run(&mut lab.resume("full")).status.success(), "a finished run resumes to its end");
    let log = fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("\"samples\"")).count(), 1);
}
