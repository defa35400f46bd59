//! Writes a run directory with invented figures, to look at the report and to check the event files
//! without training anything:
//! ```text
//! cargo run --release --example synthetic_run -- /tmp/run
//! python tests/tensorboard/check.py /tmp/run
//! ```

use std::path::PathBuf;

use anyhow::Context;
use warpwright::telemetry::metrics::*;
use warpwright::telemetry::{Telemetry, report};

const STEPS: u64 = 1200;
const TOKENS_PER_STEP: u64 = 8192;

fn main() -> anyhow::Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).context("name a directory to write to")?);
    std::fs::create_dir_all(&dir)?;
    let mut telemetry = Telemetry::start(&dir, STEPS)?;
    telemetry.record(&Record::Run(facts()))?;
    // The run is interrupted after 700 steps and goes on from the checkpoint of step 640.
    for step in 1..=700 {
        take_step(&mut telemetry, step)?;
    }
    telemetry.progress.finish();
    let (mut telemetry, _) = Telemetry::resume(&dir, STEPS, 640)?;
    telemetry.record(&Record::Note(NoteRecord { step: 640, text: "resumed".into() }))?;
    for step in 641..=STEPS {
        take_step(&mut telemetry, step)?;
    }
    telemetry.record(&Record::Ops(ops()))?;
    telemetry.record(&Record::Samples(samples()))?;
    telemetry.progress.finish();
    println!("wrote {}", report::write(&dir, None)?.display());
    Ok(())
}

fn facts() -> RunRecord {
    RunRecord {
        preset: "demo".into(),
        family: "bert".into(),
        objective: "masked".into(),
        parameters: 3_412_992,
        tokens_per_step: TOKENS_PER_STEP,
        steps: STEPS,
        device: "cpu f32".into(),
        threads: 2,
        started: 1_793_714_700,
        version: env!("CARGO_PKG_VERSION").into(),
        baseline: Some(6.48),
    }
}

fn take_step(telemetry: &mut Telemetry, step: u64) -> anyhow::Result<()> {
    let along = step as f64 / STEPS as f64;
    let trend = 3.4 + 2.9 * (-5.0 * along).exp() + 2.2 * (-60.0 * along).exp();
    let broken = [311, 930].contains(&step);
    let warm_up = (step as f64 / 100.0).min(1.0);
    let skipped = u64::from(step >= 311) + u64::from(step >= 930);
    let pace = if (400..440).contains(&step) { 0.7 } else { 1.0 };
    telemetry.record(&Record::Train(TrainRecord {
        step,
        loss: if broken { f64::NAN } else { trend + 0.12 * noise(step) },
        pair_loss: None,
        lr: 1e-3 * warm_up * (0.1 + 0.45 * (1.0 + (std::f64::consts::PI * along).cos())),
        grad_norm: if broken {
            f64::INFINITY
        } else {
            (0.6 + 8.0 * (-40.0 * along).exp()) * (0.35 * noise(step + 9999)).exp()
        },
        tokens: step * TOKENS_PER_STEP,
        tokens_per_s: pace * (81_000.0 + 2_500.0 * noise(step + 77_777)),
        seconds: step as f64 * TOKENS_PER_STEP as f64 / 80_000.0,
        skipped,
    }))?;
    if broken {
        let text = "the gradient's norm is not finite; nothing was changed".into();
        telemetry.record(&Record::Note(NoteRecord { step, text }))?;
    }
    if step.is_multiple_of(100) {
        telemetry.record(&Record::Eval(EvalRecord {
            step,
            loss: trend + 0.08 + 0.02 * noise(step + 5),
            accuracy: 0.42 * (1.0 - (-4.0 * along).exp()),
            pair_accuracy: None,
            tokens: 24_310,
        }))?;
    }
    Ok(())
}

/// About normal, and the same for the same step.
fn noise(step: u64) -> f64 {
    let uniform = |i: u64| {
        let mixed = (step * 12 + i).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..12).map(uniform).sum::<f64>() - 6.0
}

fn ops() -> OpsRecord {
    let op = |op: &str, calls: u64, ms: f64, gflops: f64, megabytes: f64| OpTime {
        op: op.into(),
        calls: calls * 20,
        seconds: ms * 20e-3,
        flops: (gflops * 20e9) as u64,
        bytes: (megabytes * 20e6) as u64,
    };
    let ops = vec![
        op("linear.forward", 26, 21.4, 2.31, 41.0),
        op("linear.backward", 26, 43.9, 4.62, 80.0),
        op("attention.forward", 4, 6.1, 0.34, 8.4),
        op("attention.backward", 4, 13.8, 0.84, 17.0),
        op("norm.forward", 9, 1.3, 0.02, 19.0),
        op("norm.backward", 9, 2.4, 0.04, 28.0),
        op("activation.backward", 5, 1.9, 0.03, 25.0),
        op("loss", 1, 4.2, 0.01, 22.0),
        op("adamw", 1, 2.7, 0.05, 95.0),
        op("embed.forward", 1, 0.4, 0.0, 8.4),
        op("embed.backward", 1, 0.03, 0.0, 8.4),
    ];
    OpsRecord { step: STEPS, steps: 20, ops }
}

fn samples() -> SamplesRecord {
    let filled = |text: &str, answer: &str, guesses: [(&str, f64); 5]| Sample::Filled {
        text: text.into(),
        answer: Some(answer.into()),
        guesses: guesses
            .map(|(token, probability)| Guess { token: token.into(), probability })
            .into(),
    };
    let items = vec![
        filled(
            "The Congress of the United [MASK] shall assemble at least once in every year.",
            " States",
            [
                (" States", 0.93),
                (" Nations", 0.04),
                (" Kingdom", 0.01),
                (".", 0.006),
                (" and", 0.002),
            ],
        ),
        filled(
            "Call me [MASK].",
            " Ishmael",
            [(" sir", 0.12), (" so", 0.08), (" now", 0.07), (" it", 0.05), (" father", 0.04)],
        ),
        filled(
            "It was a clear steel-blue [MASK], and the firmaments of air and sea were hardly \
             separable in that all-pervading azure.",
            " day",
            [(" sky", 0.31), (" day", 0.22), (" sea", 0.11), (" light", 0.06), (" air", 0.03)],
        ),
    ];
    SamplesRecord { step: STEPS, items }
}
