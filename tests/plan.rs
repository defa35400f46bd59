//! Plans against what was derived by hand, and against the device that they stand for.

mod support;

use assert_cmd::Command;
use support::{Rig, batch, lively, shrunk};
use warpwright::device::cpu::Cpu;
use warpwright::device::meter::{Meter, OpRecord, table};
use warpwright::device::null::Null;
use warpwright::device::{Class, Format};
use warpwright::model::arch::{Arch, Dropouts};
use warpwright::model::families::{PRESETS, preset};
use warpwright::ops::optimizer::Rule;
use warpwright::plan::{Plan, PlanInput, Room, TooLarge, gpus, plan};

fn input(tokens: usize, context: usize, causal: bool) -> PlanInput {
    PlanInput {
        tokens,
        micro: tokens,
        context,
        masked: (!causal).then_some(0.15),
        x: Format::BF16,
        acc: Format::F32,
        rule: Rule::default(),
        capacity: None,
        kernels: None,
        tuned: None,
        gpus: vec![*gpus::gpu("H200").unwrap()],
    }
}

fn plan_of(name: &str, context: usize) -> Plan {
    let arch = Arch { dropout: Dropouts::default(), ..preset(name).unwrap() };
    plan(&arch, &input(65_536, context, arch.causal))
}

/// (TFLOP, GB, ms on an H200) of some ops together.
fn sum(plan: &Plan, ops: &[&str]) -> (f64, f64, f64) {
    let of = plan.ops.iter().filter(|op| ops.contains(&op.op));
    of.fold((0.0, 0.0, 0.0), |(flops, bytes, ms), op| {
        (flops + op.flops / 1e12, bytes + op.bytes / 1e9, ms + 1e3 * op.floors[0])
    })
}

fn close(what: &str, got: f64, want: f64, share: f64) {
    assert!((got - want).abs() <= share * want, "{what}: {got:.3}, derived by hand {want:.3}");
}

const FORWARD: [&str; 4] = ["linear", "linear_act", "linear_gate", "linear_rope"];
const INPUT_GRADIENT: [&str; 3] = ["linear_dx", "linear_dx_act", "linear_dx_gate"];
const NORMS: [&str; 3] = ["norm", "add_norm", "norm_backward"];
const ARENAS: [&str; 3] = ["update", "judge", "zero_acc"];

/// One stream of [65,536, 768] in bf16 in each of 12 layers [GB].
const STREAM: f64 = 12.0 * 65_536.0 * 768.0 * 2.0 / 1e9;

/// A step of 64k tokens, derived op by op for an H200. Where our ops are cut differently, the
/// difference in bytes is written as whole streams of activations.
#[test]
fn gpt2_agrees_with_the_floors_derived_by_hand() {
    let plan = plan_of("gpt2", 1024);
    // The residual is read by the norm here, not by the product: 2 streams fewer.
    // Weight gradients are read before they are added to: 85M of 4 bytes more.
    // The backward of attention needs no f32 copy of dq in memory: 9 streams fewer.
    // Norms read branch and residual, and write the sum: 4 streams more.
    for (ops, tflop, gb, more) in [
        (&FORWARD[..], 11.13, 26.7, -2.0 * STREAM),
        (&INPUT_GRADIENT[..], 11.13, 24.3, 0.0),
        (&["linear_dw"][..], 11.13, 19.7, 0.34),
        (&["attention"][..], 1.24, 4.8, 0.0),
        (&["attention_backward"][..], 3.09, 20.5, -9.0 * STREAM),
        (&NORMS[..], 0.0, 15.2, 4.0 * STREAM),
        // Vocabulary products, 20.4 GB, and cross-entropy, 13.2 GB.
        (&["head_loss"][..], 15.2, 20.4 + 13.2, 0.0),
        (&ARENAS[..], 0.0, 4.7, 0.0),
    ] {
        let (flops, bytes, _) = sum(&plan, ops);
        if tflop > 0.0 {
            close(&format!("{ops:?} TFLOP"), flops, tflop, 0.01);
        }
        close(&format!("{ops:?} GB"), bytes, gb + more, 0.02);
    }
    close("embedding, ms", sum(&plan, &["embed", "embed_backward"]).2, 0.15, 0.1);
    let gpu = &plan.gpus[0];
    // Fewer: cross-entropy hidden behind the products that it is fused with (3.1) and attention's
    // backward, bound by compute instead of bytes (0.9). More: norms (1.1).
    close("a step, ms", 1e3 * gpu.floor, 75.7 - 3.1 - 0.9 + 1.1, 0.005);
    close("a step, TFLOP", plan.flops() / 1e12, 52.9, 0.01);
}

#[test]
fn bert_agrees_with_the_floors_derived_by_hand() {
    let plan = plan_of("bert-base", 512);
    // Of the last layer only qkv, a quarter of its weights, sees all rows; the rest sees 15%.
    let layers = 11.0 + 0.25 + 0.75 * 0.15;
    for ops in [&FORWARD[..], &INPUT_GRADIENT[..], &["linear_dw"]] {
        close(&format!("{ops:?} TFLOP"), sum(&plan, ops).0, 11.13 * layers / 12.0, 0.02);
    }
    close("attention TFLOP", sum(&plan, &["attention"]).0, 1.24, 0.01);
    close("attention_backward TFLOP", sum(&plan, &["attention_backward"]).0, 3.09, 0.01);
    close("head_loss TFLOP", sum(&plan, &["head_loss"]).0, 1.40, 0.02);
    close("head_loss GB", sum(&plan, &["head_loss"]).1, 2.3 + 1.2, 0.06);
    close("arenas GB", sum(&plan, &ARENAS).1, 4.2, 0.02);
    close("embedding, ms", sum(&plan, &["embed", "embed_backward"]).2, 0.1, 0.1);
}

#[test]
fn model_flops_are_the_products_that_run_less_what_runs_twice() {
    for (name, _) in PRESETS {
        for pair in [false, true] {
            let arch = Arch { pair, ..preset(name).unwrap() };
            if pair && arch.causal {
                continue;
            }
            let context = arch.context.min(300);
            let plan = plan(&arch, &input(1000, context, arch.causal));
            let of = |op: &str| sum(&plan, &[op]).0 * 1e12;
            let products = FORWARD.iter().chain(&INPUT_GRADIENT).chain(&["linear_dw"]);
            let sequences = 1000_usize.div_ceil(context);
            let logits = plan.rows * arch.vocab + if pair { 2 * sequences } else { 0 };
            let want = products.map(|op| of(op)).sum::<f64>()
                + of("attention")
                + of("attention_backward") * 4.0 / 5.0
                + of("head_loss")
                - 5.0 * logits as f64;
            close(name, plan.model_flops, want, 1e-9);
        }
    }
}

#[test]
fn passes_divide_a_step_and_its_memory_but_not_its_work() {
    let arch = preset("bert-base").unwrap();
    let whole = plan(&arch, &input(65_536, 512, false));
    let cut = plan(&arch, &PlanInput { micro: 8192, ..input(65_536, 512, false) });
    close("model FLOPs", cut.model_flops, whole.model_flops, 1e-3);
    assert!(cut.memory[&Class::Activations] * 7 < whole.memory[&Class::Activations]);
    for class in [Class::Weights, Class::Master, Class::Gradients, Class::Moments] {
        assert_eq!(cut.memory[&class], whole.memory[&class]);
    }
    // bf16 weights, and f32 master, gradient and two moments; gaps between parameters are few.
    let bytes = |class| whole.memory[&class] as f64 / whole.parameters as f64;
    close("weights", bytes(Class::Weights), 2.0, 0.001);
    close("master", bytes(Class::Master), 4.0, 0.001);
    close("moments", bytes(Class::Moments), 8.0, 0.001);
}

#[test]
fn the_largest_pass_fits_and_one_sequence_more_does_not() {
    for (name, gpu) in [("gpt2", "RTX4090"), ("modernbert-base", "H100"), ("gpt2-xl", "L4")] {
        let arch = preset(name).unwrap();
        let gpu = *gpus::gpu(gpu).unwrap();
        let kernels = Some(gpu.properties());
        let of = |tokens| PlanInput {
            kernels: kernels.clone(),
            gpus: vec![gpu],
            ..input(tokens, 1024, arch.causal)
        };
        let largest = plan(&arch, &of(1024)).gpus[0].largest_micro;
        let fits = |tokens| plan(&arch, &of(tokens)).gpus[0].fits;
        assert!(largest == 0 || fits(largest), "{name}: {largest} tokens do not fit");
        assert!(!fits(largest + 1024), "{name}: more than {largest} tokens fit");
    }
}

/// On a GPU the step takes the workspace that its launches ask for, and more rows of logits.
#[test]
fn a_gpu_takes_a_workspace_and_more_logits() {
    let arch = preset("gpt2").unwrap();
    let cpu = plan(&arch, &input(65_536, 1024, true));
    let small = *gpus::gpu("RTX4090").unwrap();
    let h200 = input(65_536, 1024, true).gpus[0];
    let on_gpu = PlanInput {
        kernels: Some(h200.properties()),
        gpus: vec![h200, small],
        ..input(65_536, 1024, true)
    };
    let gpu = plan(&arch, &on_gpu);
    let more_logits = (8192 - 1024) * arch.vocab as u64 * 2;
    assert_eq!(gpu.memory[&Class::Scratch], cpu.memory[&Class::Scratch] + more_logits);
    let workspace = gpu.memory[&Class::Workspace];
    assert!(!cpu.memory.contains_key(&Class::Workspace));
    // At the least the statistics that attention's backward keeps: two f32 a row and head.
    assert!(workspace >= (65_536 * arch.heads * 8) as u64, "{workspace}");
    assert_eq!(gpu.gpus[0].bytes, gpu.bytes());
    assert!(gpu.gpus[0].fits && !gpu.gpus[1].fits);
    // A wide vocabulary takes as many rows as a GiB holds.
    let rows = |vocab| warpwright::device::Memory::logit_rows(&Null::gpu(), vocab);
    assert_eq!([1000, 50_304, 262_144, 10_000_000].map(rows), [8192, 8192, 2048, 1024]);
}

#[test]
fn a_meter_counts_alike_on_a_device_that_computes_and_on_one_that_does_not() {
    let arch = shrunk("modernbert-base");
    let batch = batch(&arch, &[7, 1, 23, 12], 3);
    let params = lively(&arch, 11);
    let mut bare = Rig::new(Cpu::<f32>::new(), &arch, &params, &batch);
    let mut real = Rig::new(Meter::new(Cpu::<f32>::new()), &arch, &params, &batch);
    let null = Null::new(Format::F32, Format::F32);
    let mut hollow = Rig::new(Meter::new(null), &arch, &params, &batch);
    assert_eq!(bare.gradients(), real.gradients(), "measuring changes the result");
    hollow.gradients();

    let counts = |records: Vec<OpRecord>| {
        let all = records.iter().map(|r| (r.op, r.calls, r.flops.to_bits(), r.bytes.to_bits()));
        all.collect::<Vec<_>>()
    };
    assert_eq!(counts(real.dev.by_size()), counts(hollow.dev.by_size()));

    let report = real.dev.report();
    assert!(report.is_sorted_by(|a, b| a.seconds >= b.seconds));
    let calls = |op| report.iter().find(|r| r.op == op).map(|r| r.calls);
    assert_eq!(calls("attention"), Some(arch.layers as u64));
    assert_eq!(table(&report).lines().count(), 1 + report.len());
    real.dev.reset();
    assert!(real.dev.report().is_empty());
}

#[test]
fn memory_that_is_not_there_is_refused() {
    Room::host().check(1).unwrap();
    let error: TooLarge = Room::gpu(8_000_000_000).check(9_000_000_000).unwrap_err();
    let says = "needs 9.00 GB of the GPU's memory, and 8.00 GB is free: lower batch.micro";
    assert!(error.to_string().contains(says), "{error}");
}

fn warpwright(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("warpwright").unwrap();
    command.arg("plan").args(args);
    command
}

#[test]
fn the_command_prints_for_people_and_for_programs() {
    let out = warpwright(&["--preset", "bert-base", "--seq", "512"]).assert().success();
    let text = String::from_utf8(out.get_output().stdout.clone()).unwrap();
    for part in ["109,514,298", "activations", "attention_backward", "a step", "H200", "MFU"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let args = ["--preset", "bert-base", "--gpu", "h100,RTX3090", "--micro", "8192", "--json"];
    let out = warpwright(&args).assert().success();
    let json: serde_json::Value = serde_json::from_slice(&out.get_output().stdout).unwrap();
    assert_eq!(json["parameters"], 109_514_298);
    assert_eq!(json["gpus"][1]["gpu"]["name"], "RTX3090");
    assert_eq!(json["ops"][0]["floors"].as_array().unwrap().len(), 2);
}

#[test]
fn the_command_refuses_what_cannot_be_planned() {
    for (args, says) in [
        (&["--gpu", "GTX-480"][..], "no GPU `GTX-480` is known"),
        (&["--preset", "gpt5"], "no preset `gpt5`"),
        (&["--preset", "bert-base", "--seq", "1024"], "longer than the model's 512 positions"),
        (&["--micro", "1000"], "must divide"),
        (&["--preset", "gpt2", "--objective", "masked"], "attends only to what came before"),
    ] {
        let out = warpwright(args).assert().failure();
        let error = String::from_utf8_lossy(&out.get_output().stderr).into_owned();
        assert!(error.contains(says), "{args:?}: {error}");
    }
}
