//! The training step: what accumulates, what an optimizer does, and what a bad step does not.

mod runs;
mod support;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use support::{batch, lively, shrunk};
use warpwright::config::{Config, Overrides};
use warpwright::data::Batch;
use warpwright::device::Buffer;
use warpwright::device::Device;
use warpwright::device::cpu::Cpu;
use warpwright::device::meter::Meter;
use warpwright::model::arch::Arch;
use warpwright::model::batch::Capacity;
use warpwright::ops::optimizer::{OptimizerOps, Rule, Update};
use warpwright::train::folder::RunFolder;
use warpwright::train::prepare::Prepared;
use warpwright::train::run::{Run, RunError, Session};
use warpwright::train::step::{StepKey, Trainer};

const ADAMW: Rule = Rule::AdamW { beta1: 0.9, beta2: 0.98, eps: 1e-8 };

fn key(step: u64) -> StepKey {
    StepKey { seed: 9, step }
}

fn run<'a>(
    config: &'a Config,
    folder: &'a RunFolder,
    data: &'a Prepared,
    stop: &'a AtomicBool,
) -> Run<'a> {
    Run { config, folder, data, dtype: config.dtype().of_sums(), stop, energy: &|| None }
}

/// A trainer for batches like `largest`, with lively weights.
fn trainer<D: Device>(dev: &D, arch: &Arch, largest: &Batch, decay: f64) -> Trainer<D> {
    let capacity = Capacity::of(largest, arch.pair);
    let capacity = Capacity { rows: largest.ids.len() + capacity.sequences, ..capacity };
    let mut trainer = Trainer::new(dev, arch, capacity, 2, None, decay).unwrap();
    trainer.state.master.write(0, &lively(arch, 11));
    dev.store(&mut trainer.model.params, &trainer.state.master);
    trainer
}

/// Two batches, end to end.
fn joined(a: &Batch, b: &Batch) -> Batch {
    let shift = a.ids.len() as i32;
    let mut all = a.clone();
    all.ids.extend(&b.ids);
    all.positions.extend(&b.positions);
    all.types.extend(&b.types);
    all.cu_seqlens.extend(b.cu_seqlens[1..].iter().map(|end| end + shift));
    if let (Some(rows), Some(more)) = (&mut all.rows, &b.rows) {
        rows.extend(more.iter().map(|row| row + shift));
    }
    all.targets.extend(&b.targets);
    all.pairs.extend(&b.pairs);
    all
}

/// The largest difference of two arenas, as a share of the largest value.
fn difference(a: &[f64], b: &[f64]) -> f64 {
    let largest = |x: &mut dyn Iterator<Item = f64>| x.fold(0.0, |m: f64, x| m.max(x.abs()));
    largest(&mut a.iter().zip(b).map(|(a, b)| a - b)) / largest(&mut a.iter().copied())
}

#[test]
fn passes_that_accumulate_equal_the_large_batch() {
    for (name, pair) in [("gpt2", false), ("bert-base", false), ("bert-base", true)] {
        let arch = Arch { pair, ..shrunk(name) };
        // Unequal halves: a mean of means would show.
        let (a, b) = (batch(&arch, &[7, 1, 23], 3), batch(&arch, &[12, 3, 2, 20, 11], 4));
        let all = joined(&a, &b);
        assert_ne!(a.labelled(), b.labelled());
        let dev = Cpu::<f64>::new();
        let [mut large, mut small] = [0, 1].map(|_| trainer(&dev, &arch, &all, 0.1));
        let update = Update { rule: ADAMW, lr: 1e-2, clip: 0.5, stochastic: None };
        for step in 0..3 {
            large.step(&dev, std::slice::from_ref(&all), key(step), &update);
            small.step(&dev, &[a.clone(), b.clone()], key(step), &update);
            let (l, s) = (large.outcome(), small.outcome());
            assert!((l.loss - s.loss).abs() < 1e-12, "{name}: {} {}", l.loss, s.loss);
            assert!((l.norm - s.norm).abs() < 1e-12 * l.norm, "{name}: {} {}", l.norm, s.norm);
            assert_eq!((l.labelled, l.accuracy), (s.labelled, s.accuracy));
            let [x, y] = [&large, &small].map(|t| t.state.master.to_vec());
            let apart = difference(&x, &y);
            assert!(apart < 1e-12, "{name}, step {step}: {apart:.1e} apart");
        }
    }
}

/// One parameter's weights and moments under `rule`, as the papers have it, a number at a time.
struct Plain {
    w: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Plain {
    fn step(&mut self, rule: Rule, lr: f64, decay: f64, t: i32, grads: &[f64]) {
        for (i, &g) in grads.iter().enumerate() {
            let (w, m, v) = (&mut self.w[i], &mut self.m[i], &mut self.v[i]);
            match rule {
                Rule::AdamW { beta1, beta2, eps } => {
                    *w -= lr * decay * *w;
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    let m_hat = *m / (1.0 - beta1.powi(t));
                    let v_hat = *v / (1.0 - beta2.powi(t));
                    *w -= lr * m_hat / (v_hat.sqrt() + eps);
                }
                Rule::Sgd { momentum, nesterov } => {
                    let g = g + decay * *w;
                    *m = momentum * *m + g;
                    *w -= lr * if nesterov { g + momentum * *m } else { *m };
                }
                Rule::RmsProp { alpha, eps, momentum } => {
                    let g = g + decay * *w;
                    *v = alpha * *v + (1.0 - alpha) * g * g;
                    *m = momentum * *m + g / (v.sqrt() + eps);
                    *w -= lr * *m;
                }
            }
        }
    }
}

#[test]
fn optimizers_do_what_their_formulas_say() {
    let arch = shrunk("bert-base");
    let largest = batch(&arch, &[7, 1, 23], 3);
    for (rule, clip) in [
        (ADAMW, f64::INFINITY),
        (ADAMW, 0.05),
        (Rule::AdamW { beta1: 0.5, beta2: 0.6, eps: 1e-3 }, 1.0),
        (Rule::Sgd { momentum: 0.0, nesterov: false }, f64::INFINITY),
        (Rule::Sgd { momentum: 0.9, nesterov: false }, 0.05),
        (Rule::Sgd { momentum: 0.9, nesterov: true }, 0.05),
        (Rule::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0 }, f64::INFINITY),
        (Rule::RmsProp { alpha: 0.9, eps: 1e-6, momentum: 0.8 }, 0.05),
    ] {
        let dev = Cpu::<f64>::new();
        let mut trainer = trainer(&dev, &arch, &largest, 0.3);
        let params = trainer.model.layout.table.params.clone();
        let begin = trainer.state.master.to_vec();
        let of = |at: usize, len: usize| begin[at..at + len].to_vec();
        let zeros = |len| vec![0.0; len];
        let mut plain: Vec<Plain> = params
            .iter()
            .map(|p| p.span)
            .map(|s| Plain { w: of(s.start, s.len), m: zeros(s.len), v: zeros(s.len) })
            .collect();
        for step in 0..4 {
            let lr = 1e-2 / (1.0 + step as f64);
            let micro = batch(&arch, &[7, 1, 23], step);
            trainer.step(&dev, &[micro], key(step), &Update { rule, lr, clip, stochastic: None });
            let grads = trainer.state.grads.to_vec();
            let norm = params.iter().flat_map(|p| &grads[p.span.range()]).map(|g| g * g);
            let norm = norm.sum::<f64>().sqrt();
            assert!(clip.is_infinite() || clip > 0.5 || norm > 2.0 * clip, "{norm} is not clipped");
            let factor = (clip / (norm + 1e-6)).min(1.0);
            let found = trainer.state.master.to_vec();
            for (param, plain) in params.iter().zip(&mut plain) {
                // Matrices and tables decay, norms and biases do not.
                let decay = if param.shape.len() > 1 { 0.3 } else { 0.0 };
                let clipped: Vec<f64> =
                    grads[param.span.range()].iter().map(|g| g * factor).collect();
                plain.step(rule, lr, decay, step as i32 + 1, &clipped);
                let apart = difference(&plain.w, &found[param.span.range()]);
                assert!(apart < 1e-12, "{rule:?}, step {step}: {} is {apart:.1e} off", param.name);
            }
        }
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    let arch = shrunk("gpt2");
    let batch = batch(&arch, &[7, 1, 23], 3);
    let dev = Cpu::<f32>::new();
    let update = Update { rule: ADAMW, lr: 1e-2, clip: 1.0, stochastic: None };
    for poison in [f64::NAN, f64::INFINITY] {
        let mut trainer = trainer(&dev, &arch, &batch, 0.1);
        trainer.step(&dev, std::slice::from_ref(&batch), key(0), &update);
        let at = trainer.model.layout.table.get("embed.positions").unwrap().span.start;
        let [mut healthy, mut weight] = [[0.0], [poison]];
        trainer.state.master.read(at, &mut healthy);
        trainer.state.master.write(at, &weight);
        dev.store(&mut trainer.model.params, &trainer.state.master);
        let bits = |trainer: &Trainer<Cpu<f32>>| -> Vec<u64> {
            let state = &trainer.state;
            let arenas = [&state.master, &state.m, &state.v].map(Buffer::to_vec);
            let stored = trainer.model.params.to_vec();
            arenas.iter().flatten().chain(&stored).map(|x| x.to_bits()).collect()
        };
        let before = bits(&trainer);
        for step in 1..3 {
            trainer.step(&dev, std::slice::from_ref(&batch), key(step), &update);
            let outcome = trainer.outcome();
            assert_eq!((outcome.applied, outcome.skipped), (1, step), "{poison}");
        }
        assert!(bits(&trainer) == before, "{poison} reached the weights or the moments");
        // Healed, it goes on, and the moments' bias correction counts the applied steps only.
        weight = healthy;
        trainer.state.master.write(at, &weight);
        dev.store(&mut trainer.model.params, &trainer.state.master);
        trainer.step(&dev, std::slice::from_ref(&batch), key(3), &update);
        let outcome = trainer.outcome();
        assert_eq!((outcome.applied, outcome.skipped), (2, 2), "{poison}");
        assert!(outcome.loss.is_finite() && bits(&trainer) != before);
    }
}

#[test]
fn a_run_of_bad_steps_is_reported_and_stops() {
    let lab = runs::Lab::new();
    let text = format!("data.text=['{}']", lab.path("corpus.txt").display());
    let set = runs::SMALL.map(String::from).into_iter();
    let set = set.chain([text, "train.max_skipped=3".into(), "train.steps=50".into()]).collect();
    let config = Config::resolve(&Overrides { set, ..Overrides::default() }).unwrap();
    let path = lab.path("run");
    let folder = RunFolder::create(&path, &config, false).unwrap();
    let data = Prepared::new(&config, &folder.data()).unwrap();
    let dev = Meter::new(Cpu::<f32>::new());
    let trainer =
        Trainer::new(&dev, &data.arch, data.capacity(config.micro()), 1, None, 0.1).unwrap();
    let stop = AtomicBool::new(false);
    let run = run(&config, &folder, &data, &stop);
    let mut session = Session::start(&dev, &run, trainer).unwrap();
    session.trainer.model.params.write(0, &vec![f64::NAN; data.arch.vocab * data.arch.width]);
    let error = session.train().unwrap_err();
    assert!(matches!(error, RunError::NotFinite { count: 3, step: 3 }), "{error}");
    for part in ["3 steps in a row", "nothing was changed", "schedule.peak", "--resume"] {
        assert!(error.to_string().contains(part), "no {part} in: {error}");
    }
    assert_eq!(runs::steps(&path), [1, 2, 3]);
    let skipped: Vec<u64> =
        runs::records(&path, "train").iter().map(|r| r["skipped"].as_u64().unwrap()).collect();
    assert_eq!(skipped, [1, 2, 3]);
    let notes = runs::records(&path, "note");
    assert_eq!(notes.len(), 3);
    assert!(notes[0]["text"].as_str().unwrap().contains("not finite"));
}

/// Too many tokens to be read before the first step: what is wrong with them stops the run.
#[test]
fn damage_that_is_found_late_stops_the_run() {
    let lab = runs::Lab::new();
    let text = format!("data.text=['{}']", lab.path("corpus.txt").display());
    let set = runs::SMALL.map(String::from).into_iter();
    let set = set.chain([text, "train.steps=100000".into()]).collect();
    let config = Config::resolve(&Overrides { set, ..Overrides::default() }).unwrap();
    let folder = RunFolder::create(&lab.path("run"), &config, false).unwrap();
    let shards = Prepared::new(&config, &folder.data()).unwrap();
    drop(shards);
    let files = std::fs::read_dir(folder.data()).unwrap().map(|entry| entry.unwrap().path());
    let train = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("train");
    let shard = files.filter(|path| path.extension().is_some_and(|e| e == "wws")).find(train);
    let mut bytes = std::fs::read(shard.as_ref().unwrap()).unwrap();
    let half = bytes.len() / 2;
    bytes[half..half + 200].fill(0xff);
    std::fs::write(shard.unwrap(), bytes).unwrap();

    assert!(Prepared::open(&config, &folder.data()).is_err());
    let mut data = Prepared::checked(&config, &folder.data(), 0).unwrap();
    data.hold_out(&config).unwrap();
    let dev = Meter::new(Cpu::<f32>::new());
    let trainer =
        Trainer::new(&dev, &data.arch, data.capacity(config.micro()), 1, None, 0.1).unwrap();
    let stop = AtomicBool::new(false);
    let run = run(&config, &folder, &data, &stop);
    let error = Session::start(&dev, &run, trainer).unwrap().train().unwrap_err();
    assert!(matches!(error, RunError::Data(_)), "{error}");
    assert!(error.to_string().contains("beyond"), "{error}");
}

#[test]
fn one_batch_is_learnt_by_heart() {
    for name in ["gpt2", "bert-base", "modernbert-base", "albert-base", "roberta-base"] {
        let arch = shrunk(name);
        let batch = batch(&arch, &[12, 9, 17], 3);
        let dev = Cpu::<f32>::new();
        let capacity = Capacity::of(&batch, arch.pair);
        let mut trainer = Trainer::new(&dev, &arch, capacity, 2, None, 0.0).unwrap();
        trainer.initialise(&dev, 5);
        let first = trainer.evaluate(&dev, std::slice::from_ref(&batch)).loss;
        let chance = (arch.vocab as f64).ln();
        assert!((first - chance).abs() < 0.3, "{name} begins at {first}, chance is {chance}");
        for step in 0..60 {
            let update = Update { rule: ADAMW, lr: 1e-2, clip: 1.0, stochastic: None };
            trainer.step(&dev, std::slice::from_ref(&batch), key(step), &update);
        }
        let last = trainer.evaluate(&dev, std::slice::from_ref(&batch)).loss;
        assert!(last < 0.2 * first, "{name}: {first} to {last} only");
    }
}
