//! A training step on the CPU, the twin of `benches/peers/cpu_step.py`: the same model, batch and
//! optimizer on random tokens. Prints time by op, and last a line of JSON with every step's time.
//!
//!     cargo bench --bench step -- [gpt|bert] [steps]

use std::time::Instant;

use warpwright::data::Batch;
use warpwright::device::cpu::Cpu;
use warpwright::device::meter::{Meter, table};
use warpwright::model::arch::{Arch, Dropouts};
use warpwright::model::batch::Capacity;
use warpwright::model::families::preset;
use warpwright::ops::optimizer::{Rule, Update};
use warpwright::rng::{Philox, Stream, below};
use warpwright::train::step::{StepKey, Trainer};

const CONTEXT: usize = 256;
const SEQUENCES: usize = 16;
const WARM_UP: usize = 3;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let model = args.next().unwrap_or_else(|| "gpt".into());
    let steps: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(10);
    let base = preset(if model == "bert" { "bert-base" } else { "gpt2" }).expect("it is listed");
    let arch = Arch {
        vocab: 2048,
        width: 384,
        embed_width: 384,
        layers: 6,
        groups: 6,
        heads: 6,
        inner: 1536,
        context: CONTEXT,
        dropout: Dropouts::default(),
        ..base
    };
    let batch = random_batch(&arch);
    let dev = Meter::new(Cpu::<f32>::new());
    let mut trainer = Trainer::new(&dev, &arch, Capacity::of(&batch, false), 1, None, 0.1)
        .expect("the architecture is valid");
    trainer.initialise(&dev, 1);
    let update = Update { rule: Rule::default(), lr: 1e-4, clip: 1.0, stochastic: None };
    let mut seconds = Vec::new();
    for step in 0..WARM_UP + steps {
        if step == WARM_UP {
            dev.reset();
        }
        let began = Instant::now();
        trainer.step(
            &dev,
            std::slice::from_ref(&batch),
            StepKey { seed: 1, step: step as u64 },
            &update,
        );
        if step >= WARM_UP {
            seconds.push(began.elapsed().as_secs_f64());
        }
    }
    println!("{}", table(&dev.report()));
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let threads = rayon::current_num_threads();
    println!(
        "{}",
        serde_json::json!({
            "model": model, "threads": threads, "median_s": median,
            "tokens_per_s": (CONTEXT * SEQUENCES) as f64 / median,
            "loss": trainer.outcome().loss, "steps_s": seconds,
        })
    );
}

fn random_batch(arch: &Arch) -> Batch {
    let n = CONTEXT * SEQUENCES;
    let words = |index| Philox::new(1).block(Stream::Sample, 0, index);
    let draw = |of: usize| -> Vec<i32> {
        (0..n as u64).map(|i| below(words(i)[of], arch.vocab as u32) as i32).collect()
    };
    let mut targets = draw(1);
    let mut rows = None;
    if !arch.causal {
        let masked: Vec<i32> =
            (0..n as i32).filter(|&i| below(words(i as u64)[2], 100) < 15).collect();
        targets.truncate(masked.len());
        rows = Some(masked);
    }
    Batch {
        ids: draw(0),
        positions: (0..n).map(|i| (i % CONTEXT) as i32).collect(),
        types: vec![0; n],
        cu_seqlens: (0..=SEQUENCES).map(|s| (s * CONTEXT) as i32).collect(),
        rows,
        targets,
        pairs: vec![],
        ..Batch::default()
    }
}
