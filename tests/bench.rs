//! `warpwright bench` on the emulator: that what it measures is what a step does, and that its
//! words and files are right. No test looks at how long anything took.

mod runs;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use runs::{Lab, refuses};
use support::zoo;
use warpwright::bench::batches::{self, batch};
use warpwright::bench::call::Call;
use warpwright::bench::lengths::Lengths;
use warpwright::bench::measure::{Bench, facts};
use warpwright::bench::prepare::{Source, block};
use warpwright::bench::report::{self, Energy, Peer, Predicted, Report};
use warpwright::bench::{ceilings, page, recorder, sweep};
use warpwright::data::Batch;
use warpwright::device::Memory;
use warpwright::device::gpu::cuda::nvml::{Nvml, Reading};
use warpwright::device::gpu::{self, Gpu, Kernels, Place};
use warpwright::device::meter::Meter;
use warpwright::device::null::Null;
use warpwright::model::arch::{Arch, Dropouts};
use warpwright::model::batch::Capacity;
use warpwright::train::step::{StepKey, Trainer};

/// Every family at widths that kernels take, with and without dropout.
fn archs() -> Vec<(String, Arch)> {
    let wide = |(name, arch): (String, Arch)| {
        let embed_width = if arch.embed_width == arch.width { 32 } else { 16 };
        let (width, heads, inner, vocab) = (32, 2, 40, 64);
        (name, Arch { width, embed_width, heads, inner, vocab, ..arch })
    };
    let mut archs: Vec<(String, Arch)> = zoo().into_iter().map(wide).collect();
    let dropout = Dropouts { embed: 0.1, hidden: 0.1, attention: 0.1 };
    let dropped = archs.iter().map(|(name, arch)| {
        (format!("{name}, dropout everywhere"), Arch { dropout, ..arch.clone() })
    });
    let dropped: Vec<_> = dropped.collect();
    archs.extend(dropped);
    archs
}

fn of(arch: &Arch) -> Batch {
    batch(arch, &Lengths::Mlperf.draw(20, 48), (!arch.causal).then_some(0.15))
}

fn emulator() -> Gpu {
    gpu::open(Place::Emulator, Kernels::Fast).expect("there is a C++ compiler")
}

/// Calls, operations and bytes by op are those of the step itself, counted by the meter.
#[test]
fn calls_are_those_of_a_step() {
    for (name, arch) in archs() {
        let batch = of(&arch);
        let dev = Meter::new(Null::gpu());
        let (micros, masker) = batches::unmasked(&arch, std::slice::from_ref(&batch));
        let capacity = Capacity::of(&micros[0], arch.pair);
        let masker = masker.as_ref();
        let mut trainer = Trainer::new(&dev, &arch, capacity, 1, masker, batches::DECAY).unwrap();
        let (key, update) = (StepKey { seed: 1, step: 0 }, batches::update());
        trainer.step(&dev, &micros, key, &update);
        let wanted: BTreeMap<&str, [f64; 3]> =
            dev.report().iter().map(|r| (r.op, [r.calls as f64, r.flops, r.bytes])).collect();

        let mut found: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
        for (call, count) in recorder::calls(&arch, &batch).unwrap() {
            let (of, count) = (facts(&call), count as f64);
            let sum = found.entry(of.op).or_default();
            *sum = [sum[0] + count, sum[1] + count * of.flops, sum[2] + count * of.bytes];
        }
        assert_eq!(found, wanted, "{name}");
    }
}

/// Two calls that differ can be told apart in a table, or `compare` would mix them up.
#[test]
fn no_two_calls_have_one_name() {
    for (name, arch) in archs() {
        let mut names = BTreeMap::new();
        for (call, _) in recorder::calls(&arch, &of(&arch)).unwrap() {
            let key = (facts(&call).op, call.shape());
            assert_eq!(names.insert(key.clone(), ()), None, "{name}: {key:?} twice");
        }
    }
}

/// Every call of every family runs on the kernels; the emulator would find a tensor too short.
#[test]
fn every_call_runs() {
    let mut calls = Vec::new();
    for (_, arch) in archs() {
        sweep::merge(&mut calls, recorder::calls(&arch, &of(&arch)).unwrap());
    }
    sweep::merge(&mut calls, sweep::attention(40, 64, &[32], &[16], &Lengths::Fixed));
    sweep::merge(&mut calls, vec![(Call::Store { len: 100 }, 1)]);
    let (gpu, block) = (emulator(), block(1000));
    let source = Source::new(&gpu, &block);
    for (call, _) in &calls {
        let mut ready = source.ready(call);
        (0..2).for_each(|_| ready(&gpu));
        assert_eq!(gpu.fault(), None, "{call:?}");
    }
}

/// Copies that together exceed the L2 three times are measured as one is.
#[test]
fn buffers_are_rotated() {
    let gpu = emulator();
    let bench = Bench { gpu: &gpu, emulated: true, l2: 100_000, budget: 0.0, known: None };
    let ceilings = ceilings::measure(&bench).unwrap();
    let call = Call::ZeroX { len: 1000 };
    let row = bench.row(&call, 7, &ceilings).unwrap().unwrap();
    assert_eq!((row.calls, row.shape.as_str(), row.bytes), (7, "1000", 2000.0));
    assert!(row.samples >= 5 && row.low <= row.seconds && row.seconds <= row.high, "{row:?}");
}

/// What a run that succeeds prints.
fn succeeds(command: &mut Command) -> String {
    runs::succeeds(command).0
}

/// A small model of this preset, so many tokens, and no time to spend.
fn small(preset: &str, tokens: &str) -> Vec<String> {
    let words = "--device emulator --budget 0 --seq 8 --set model.layers=1 --set model.vocab=64 \
                 --set model.inner=64 --preset";
    words.split_whitespace().chain([preset, "--tokens", tokens]).map(String::from).collect()
}

#[test]
fn ops_are_told_and_compared() {
    let lab = Lab::new();
    let args = ["bench", "ops", "--no-verify", "--json", "a.json"];
    let said = succeeds(lab.program(&args).args(small("bert-tiny", "16")));
    for words in ["of the emulator", "ceilings", "linear_dx_act", "64 → 128", "before: unknown"] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    let a = Report::read(&lab.path("a.json")).unwrap();
    assert_eq!((a.kind.as_str(), a.device.place.as_str()), ("ops", "emulator"));
    assert!(a.rows.len() > 20 && a.skipped.is_empty() && a.step.is_none());

    let compare = |more: &[&str]| {
        let mut program = lab.program(&["bench", "compare", "a.json"]);
        program.args(more);
        program
    };
    assert!(succeeds(&mut compare(&["a.json"])).contains("within spread"));
    // One that takes twice as long, beyond all spread; and one that is new.
    let mut b = a.clone();
    let row = &mut b.rows[0];
    let slow = 2.0 * row.high;
    (row.seconds, row.low, row.high) = (slow, slow, slow);
    b.rows[1].shape = "another".into();
    b.write(&lab.path("b.json")).unwrap();
    refuses(&mut compare(&["b.json"]), &["1 of", "slower"]);
    let said = succeeds(&mut compare(&["b.json", "--slower", "1e9"]));
    assert!(said.contains("only in A") && said.contains("only in B"), "{said}");
    let other =
        succeeds(lab.program(&["bench", "compare", "b.json", "a.json"]).args(["--slower", "2"]));
    assert!(other.contains("faster"), "{other}");
}

/// The fastest cuts are kept, added to and taken; a file that is damaged is neither.
#[test]
fn cuts_that_were_measured_are_kept_and_taken() {
    let lab = Lab::new();
    let gemm = ["bench", "gemm", "--no-verify", "--budget", "0", "--device", "emulator"];
    let gemm = |more: &[&str]| lab.program(&[&gemm[..], &["--tokens", "8"], more].concat());
    let said = succeeds(&mut gemm(&["--tune", "cuts.json"]));
    assert!(
        said.contains("the host's choice: ") && said.contains("take it by --tuned cuts.json"),
        "{said}"
    );
    let kept = std::fs::read_to_string(lab.path("cuts.json")).unwrap();
    let products = |text: &str| text.matches("\"key\"").count();
    assert!(products(&kept) > 5 && kept.contains("\"op\": \"linear_dw\""), "{kept}");
    let said = succeeds(&mut gemm(&["--tuned", "cuts.json"]));
    assert!(said.contains("8 tokens, tuned"), "{said}");
    std::fs::write(lab.path("cuts.json"), kept.replace("seconds\": ", "seconds\": 1")).unwrap();
    refuses(&mut gemm(&["--tuned", "cuts.json"]), &["is damaged", "bench gemm --tune"]);
    refuses(&mut gemm(&["--tune", "cuts.json"]), &["is damaged", "remove the file"]);
}

/// Every rung has a row at each shape.
#[test]
fn the_ladder_is_timed_rung_by_rung() {
    let lab = Lab::new();
    let args = ["bench", "gemm", "--ladder", "--budget", "0", "--device", "emulator"];
    let said = succeeds(lab.program(&args).args(["--no-verify", "--json", "a.json"]));
    let report = Report::read(&lab.path("a.json")).unwrap();
    let rungs = report.rows.iter().filter(|row| row.op.starts_with("ladder "));
    assert_eq!((rungs.count(), report.rows.len()), (12, 12), "{said}");
}

/// Products beside cuBLASLt's, where there is one: in the table, below it, on the page, in JSON.
#[test]
fn peers_are_told_where_there_are_any() {
    let lab = Lab::new();
    let args = ["bench", "gemm", "--no-verify", "--budget", "0", "--device", "emulator"];
    let said = succeeds(lab.program(&args).args(["--tokens", "8", "--json", "a.json"]));
    let alone = Report::read(&lab.path("a.json")).unwrap();
    let json = std::fs::read_to_string(lab.path("a.json")).unwrap();
    assert!(!said.contains("cuBLASLt") && !page::render(&alone).contains("cuBLASLt"), "{said}");
    assert!(!json.contains("peer") && said.contains("a product of our own kernels"));
    assert_eq!((alone.peers(), alone.rows[0].ratio()), (None, None));

    let mut beside = alone.clone();
    beside.cublaslt = "13.4.1".into();
    for (row, times) in beside.rows.iter_mut().zip([0.5, 2.0]) {
        let (seconds, samples) = (times * row.seconds, 5);
        row.peer = Some(Peer { seconds, low: seconds, high: seconds, samples, algorithms: 3 });
    }
    beside.write(&lab.path("b.json")).unwrap();
    assert_eq!(Report::read(&lab.path("b.json")).unwrap(), beside);
    assert!(beside.rows[1].line().ends_with("   2.00"), "{}", beside.rows[1].line());
    assert_eq!(
        beside.rows[1].line().chars().count(),
        report::heading(true).chars().count(),
        "columns"
    );
    assert!(beside.preamble().contains("cuBLASLt   13.4.1"));
    let mean = "1.00 times our time for the bare products: geometric mean of 2, from 0.50 to 2.00";
    assert!(beside.closing().contains(mean) && page::render(&beside).contains(mean));
    let rows = page::render(&beside).matches("data-label='cuBLASLt / ours'>").count();
    assert_eq!(rows, beside.rows.len());
}

#[test]
fn a_step_is_told() {
    let lab = Lab::new();
    let args = ["bench", "step", "--no-verify", "--json", "step.json", "--html", "step.html"];
    let said = succeeds(lab.program(&args).args(small("gpt2-tiny", "16")).args([
        "--lengths",
        "mlperf",
        "--micro",
        "8",
    ]));
    for words in ["tokens/s", "MFU", "model FLOPs", "idle", "floor", "activations"] {
        assert!(said.contains(words), "no {words} in\n{said}");
    }
    let json: Value =
        serde_json::from_slice(&std::fs::read(lab.path("step.json")).unwrap()).unwrap();
    assert_eq!(json["step"]["tokens"], 16);
    assert_eq!(json["rows"][0]["op"], "step");
    let mut report = Report::read(&lab.path("step.json")).unwrap();
    // The page stands alone, and has a mark for every op that computes, and every call.
    let page = std::fs::read_to_string(lab.path("step.html")).unwrap();
    for part in ["<script", "http://", "https://", "NaN", "inf%"] {
        assert!(!page.contains(part), "{part} in the page");
    }
    let computing = json["rows"].as_array().unwrap().iter().filter(|row| row["flops"] != 0.0);
    assert_eq!(page.matches("<circle").count(), computing.count());
    let calls: u64 = json["rows"].as_array().unwrap()[1..]
        .iter()
        .map(|row| row["calls"].as_u64().unwrap())
        .sum();
    assert_eq!(page.matches("<rect").count() as u64, calls);
    // `plan` does not know the emulator, and nothing tells of its energy. Where they do:
    let step = report.step.as_mut().unwrap();
    assert_eq!((&step.predicted, step.energy), (&None, None));
    (step.seconds, step.idle, step.idle_share) = (0.03, 0.003, 0.1);
    let (gpu, seconds, flops_per_s, bytes_per_s) = ("H200".into(), 0.02, 790e12, 4.3e12);
    step.predicted = Some(Predicted { gpu, seconds, flops_per_s, bytes_per_s });
    step.energy = Some(Energy { per_token: 0.00075, over: 5.0 });
    let (told, page) = (report.step.as_ref().unwrap().told(), page::render(&report));
    for words in ["20.000 ms by `warpwright plan`", "1.50 times", "(10.0% of the step)", "J a"] {
        assert!(told.contains(words), "no {words} in\n{told}");
    }
    for words in ["H200 plan; took 1.50 times it", "10.0% of the step", " mJ<"] {
        assert!(page.contains(words), "no {words} in the page");
    }
}

/// Lengths are those of a data set's documents, here of 2, 4 and 9 tokens, cut at 8.
#[test]
fn a_step_takes_the_lengths_of_documents() {
    let lab = Lab::new();
    let end = 50256u16;
    let ids = [1, 2, end, 1, 2, 3, 4, end, 1, 2, 3, 4, 5, 6, 7, 8, 9, end];
    lab.write("train.bin", ids.map(u16::to_le_bytes).concat());
    let args = ["bench", "step", "--no-verify", "--json", "step.json", "--lengths", "train.bin"];
    let said = succeeds(lab.program(&args).args(small("bert-tiny", "48")));
    assert!(said.contains("as long as the documents of train.bin, 48 tokens a step"), "{said}");
    let step = Report::read(&lab.path("step.json")).unwrap().step.unwrap();
    let (last, whole) = step.lengths.split_last().unwrap();
    assert!(whole.iter().all(|len| [2, 4, 8].contains(len)) && *last <= 8, "{:?}", step.lengths);
    assert_eq!(step.lengths.iter().sum::<usize>(), 48);
    assert_eq!((step.tokens, step.sequences), (48, step.lengths.len()));
    for lengths in ["nowhere.bin", "mlpref"] {
        let program = &mut lab.program(&["bench", "step", "--lengths", lengths]);
        refuses(program, &[lengths, "fixed or mlperf"]);
    }
}

/// Kernels are verified first, and a sweep has a row a mask and a direction.
#[test]
fn attention_is_verified_and_swept() {
    let lab = Lab::new();
    let args = ["bench", "attention", "--device", "emulator", "--budget", "0", "--tokens", "32"];
    let more = ["--width", "32", "--head-dim", "32", "--seq", "16,32", "--json", "a.json"];
    succeeds(lab.program(&args).args(more));
    assert_eq!(Report::read(&lab.path("a.json")).unwrap().rows.len(), 12);
}

#[test]
fn what_cannot_be_is_refused_with_a_way_out() {
    let lab = Lab::new();
    let bench = |args: &[&str]| {
        let mut program = lab.program(&["bench"]);
        program.args(args).args(["--device", "emulator"]);
        program
    };
    refuses(&mut bench(&["ops", "--preset", "gpt9"]), &["gpt9", "gpt2-xl"]);
    refuses(&mut bench(&["ops", "--tokens", "0"]), &["--tokens"]);
    refuses(&mut bench(&["ops", "--seq", "0"]), &["--seq"]);
    refuses(&mut bench(&["ops", "--op", "rope"]), &["no op of the family rope"]);
    refuses(&mut bench(&["ops", "--budget=-1"]), &["0 to 3600"]);
    refuses(&mut bench(&["step", "--micro", "3"]), &["micro"]);
    refuses(&mut bench(&["attention", "--head-dim", "63"]), &["63"]);
    refuses(&mut bench(&["attention", "--head-dim", "0"]), &["--head-dim"]);
    refuses(&mut bench(&["attention", "--seq", "0"]), &["--seq"]);
    lab.write("bad.json", "{}");
    let compare = |b| ["bench", "compare", "bad.json", b];
    refuses(&mut lab.program(&compare("bad.json")), &["bad.json", "--json"]);
    refuses(&mut lab.program(&compare("none.json")), &["bad.json"]);
}

/// A management library that knows one GPU, for a process that finds it.
#[test]
fn the_state_of_a_gpu_is_read_where_it_is_told() {
    if std::env::var_os("FAKE_NVML").is_some() {
        let nvml = Nvml::open("00000000:3B:00.0").unwrap();
        let wanted = Reading {
            clock: Some(1980),
            power: Some(699.5),
            power_limit: None,
            temperature: Some(71),
            throttled: Some(vec!["power cap".into()]),
        };
        assert_eq!(nvml.read(), wanted);
        assert_eq!(nvml.energy(), Some(5_000_000_123.456));
        assert!(Nvml::open("00000000:00:00.0").is_none());
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvml");
    std::fs::create_dir_all(&folder).unwrap();
    let compiler = std::env::var("CXX").unwrap_or("c++".into());
    let mut words = compiler.split_whitespace();
    let mut build = Command::new(words.next().unwrap());
    build.args(words).args(["-shared", "-fPIC", "tests/bench_nvml/nvml.cpp", "-o"]);
    if !build.arg(folder.join("libnvidia-ml.so.1")).status().is_ok_and(|built| built.success()) {
        eprintln!("no C++ compiler, so no library to test against");
        return;
    }
    let test = "the_state_of_a_gpu_is_read_where_it_is_told";
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env("LD_LIBRARY_PATH", folder)
        .env("FAKE_NVML", "1")
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}
