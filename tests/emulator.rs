//! Whole training steps on the emulator, through the launch code that a GPU runs.

mod support;

use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use half::bf16;
use support::{batch, lively, spans, tasks, zoo};
use warpwright::data::masking::{Masker, SPECIAL, WORD_START};
use warpwright::data::{Batch, Masking, ToMask};
use warpwright::device::cpu::Cpu;
use warpwright::device::gpu::driver::{
    Address, Driver, Fetch, Launch, Mark, Properties, Recording, Result, TensorMap, TileShape,
};
use warpwright::device::gpu::emulator::{Emulator, Modes};
use warpwright::device::gpu::work::Work;
use warpwright::device::gpu::{Gpu, Kernels};
use warpwright::device::lockstep::Lockstep;
use warpwright::device::meter::Meter;
use warpwright::device::{Buffer, Device, Memory};
use warpwright::generate::decoder::{Decoder, Sequence};
use warpwright::generate::draw;
use warpwright::generate::sampling::Sampling;
use warpwright::model::arch::Arch;
use warpwright::model::batch::Capacity;
use warpwright::model::transformer::Model;
use warpwright::ops::optimizer::{OptimizerOps, Rule, Update};
use warpwright::rng::Philox;
use warpwright::train::step::{StepKey, Trainer};

fn emulated(kernels: Kernels) -> Gpu {
    let gpu = Gpu::new(Box::new(Emulator::new(Modes::default()).unwrap()), kernels);
    gpu.overlap(true);
    gpu
}

/// The zoo, at the multiples that kernels take.
fn gpu_zoo() -> Vec<(String, Arch)> {
    zoo().into_iter().chain(tasks()).map(sized).collect()
}

fn sized((name, arch): (String, Arch)) -> (String, Arch) {
    let embed_width = if arch.embed_width == arch.width { 48 } else { 16 };
    (name, Arch { width: 48, embed_width, inner: 40, ..arch })
}

fn trainer<D: Device>(dev: &D, arch: &Arch, capacity: Capacity) -> Trainer<D> {
    let mut trainer = Trainer::new(dev, arch, capacity, 1, None, 0.1).unwrap();
    trainer.state.master.write(0, &lively(arch, 11));
    dev.store(&mut trainer.model.params, &trainer.state.master);
    trainer
}

/// Some steps and an evaluation.
fn train<D: Device>(dev: &D, arch: &Arch, steps: u64) {
    let micro = batch(arch, &[7, 1, 23, 12], 3);
    let mut trainer = trainer(dev, arch, Capacity::of(&micro, arch.pair));
    let update = Update { rule: Rule::default(), lr: 1e-3, clip: 1.0, stochastic: None };
    for step in 0..steps {
        trainer.step(dev, std::slice::from_ref(&micro), StepKey { seed: 5, step }, &update);
    }
    trainer.evaluate(dev, std::slice::from_ref(&micro));
    assert_eq!(dev.fault(), None);
    let outcome = trainer.outcome();
    assert_eq!((outcome.applied, outcome.skipped), (steps, 0));
}

fn holds(kernels: Kernels) {
    // No relative bound holds for the gradient of a span's bias; see `spans`.
    let evaluated = (sized(spans()), 0);
    for ((name, arch), steps) in gpu_zoo().into_iter().map(|named| (named, 2)).chain([evaluated]) {
        let dev = Lockstep::new(Cpu::<bf16>::new(), emulated(kernels));
        let outcome = catch_unwind(AssertUnwindSafe(|| train(&dev, &arch, steps)));
        outcome.unwrap_or_else(|e| {
            let fault = dev.fault().unwrap_or_default();
            panic!("{name}: {} {fault}", e.downcast_ref::<String>().cloned().unwrap_or_default())
        });
    }
}

#[test]
fn every_architecture_holds_op_by_op_to_the_cpu() {
    holds(Kernels::Fast);
}

#[test]
fn plain_kernels_hold_too() {
    holds(Kernels::Naive);
}

/// Losses of twenty steps.
fn losses<D: Device>(dev: &D, arch: &Arch) -> Vec<f64> {
    let micros: Vec<_> = (0..4).map(|seed| batch(arch, &[7, 1, 23, 12], seed)).collect();
    let capacities = micros.iter().map(|micro| Capacity::of(micro, arch.pair));
    let capacity = capacities.reduce(Capacity::max).unwrap();
    let mut trainer = trainer(dev, arch, capacity);
    let update = Update { rule: Rule::default(), lr: 1e-3, clip: 1.0, stochastic: None };
    let step = |step: usize| {
        let micro = std::slice::from_ref(&micros[step % micros.len()]);
        trainer.step(dev, micro, StepKey { seed: 5, step: step as u64 }, &update);
        trainer.outcome().loss
    };
    (0..20).map(step).collect()
}

/// A loss is a mean of terms −log p, each read from logits that bf16 rounds by 2⁻⁹ of their size,
/// at most about 4 here, in both runs alike: they differ by 2 · 2⁻⁹ · 4 / √rows at first. Weights
/// drift apart with each update by what rounding changes of Adam's direction, at most its step
/// size: over twenty steps of 1e-3, the logits by at most 20 · 1e-3 times their gradient's norm,
/// about 1, of which rounding turns a share of 2⁻⁸ · √20. So 0.02 is more than three times both.
#[test]
fn twenty_steps_follow_the_cpu() {
    for name in ["gpt2", "bert-base"] {
        let arch = gpu_zoo().into_iter().find(|(n, _)| n == name).unwrap().1;
        let (cpu, gpu) = (Cpu::<bf16>::new(), emulated(Kernels::Fast));
        let (want, got) = (losses(&cpu, &arch), losses(&gpu, &arch));
        assert_eq!(gpu.fault(), None);
        for (step, (want, got)) in want.iter().zip(&got).enumerate() {
            assert!((want - got).abs() < 0.02, "{name}, step {step}: {want} and {got}");
        }
        assert!(got[19] < got[3], "{name} learns: {got:?}");
    }
}

/// Steps on batches that the device masks, and on the same masked by the host: what the loss counts
/// is the same to the bit, and rows without a token change sums by their rounding alone. After
/// three updates of 1e-3, whose direction rounding may turn, weights differ by 6e-3 at most.
#[test]
fn the_device_masks_as_the_host_does() {
    let arch =
        gpu_zoo().into_iter().find(|(name, _)| name.contains("pairs and dropout")).unwrap().1;
    let lengths = [7, 1, 23, 12];
    let (tokens, flags) =
        (43, (0..37).map(|id| if id < 3 { SPECIAL } else { WORD_START }).collect());
    let masker = Masker::new(Philox::new(9), Masking::default(), 2, flags, tokens);
    let dev = Lockstep::new(Cpu::<bf16>::new(), emulated(Kernels::Fast));
    let capacity = Capacity { tokens, sequences: 4, rows: masker.capacity() + 4, reals: 0 };
    let trained = |on_device: bool| {
        let masks = on_device.then_some(&masker);
        let mut trainer = Trainer::new(&dev, &arch, capacity, 2, masks, 0.1).unwrap();
        trainer.state.master.write(0, &lively(&arch, 11));
        dev.store(&mut trainer.model.params, &trainer.state.master);
        let update = Update { rule: Rule::default(), lr: 1e-3, clip: 1.0, stochastic: None };
        let micro = |number: u64| {
            let mut batch = batch(&arch, &lengths, number);
            let start = number * tokens as u64;
            if on_device {
                let to_mask = Some(ToMask { start, countable: 40, rows: masker.capacity() });
                return Batch { rows: None, targets: vec![], to_mask, ..batch };
            }
            let (rows, targets) = masker.apply(start, &mut batch.ids, &batch.cu_seqlens, 40);
            Batch { rows: Some(rows), targets, ..batch }
        };
        let outcomes: Vec<_> = (0..3)
            .map(|step| {
                let micros = [2 * step, 2 * step + 1].map(micro);
                trainer.step(&dev, &micros, StepKey { seed: 5, step }, &update);
                trainer.outcome()
            })
            .collect();
        (outcomes, trainer.state.master.to_vec())
    };
    let ((host, of_host), (device, of_device)) = (trained(false), trained(true));
    assert_eq!(dev.fault(), None);
    for (host, device) in host.iter().zip(&device) {
        assert!(host.labelled > 0 && host.labelled == device.labelled);
        assert!((host.loss - device.loss).abs() < 0.01, "{host:?} {device:?}");
    }
    assert_eq!(host[0].loss, device[0].loss);
    let furthest = of_host.iter().zip(&of_device).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(furthest <= 6e-3, "{furthest}");
}

/// Texts that grow, one going two ways on the way, as long as `of` has ids.
fn grow<D: Device>(dev: &D, arch: &Arch, of: &[Vec<u32>]) -> Vec<Vec<f64>> {
    let mut model = Model::new(dev, arch).unwrap();
    model.params.write(0, &lively(arch, 11));
    let mut decoder = Decoder::new(dev, &model, &[3, 20, arch.context + 1], 2, of[0].len());
    let mut next = of.iter().flatten().map(|&id| id % arch.vocab as u32).cycle();
    let mut new = |n| Sequence::new(next.by_ref().take(n).collect());
    let mut sequences = vec![new(3), new(20), new(arch.context + 1)];
    let step = |step: usize| {
        let logits = decoder.logits(&mut sequences).unwrap();
        if step == 1 {
            sequences.push(sequences[0].clone());
        }
        for (sequence, ids) in sequences.iter_mut().zip(of) {
            sequence.push(ids[step] % arch.vocab as u32);
        }
        logits
    };
    (0..of[0].len()).map(step).collect()
}

/// Op by op, over the cache and beyond the context.
#[test]
fn generation_holds_op_by_op_to_the_cpu() {
    let ids: Vec<Vec<u32>> =
        (0..4).map(|s| (0..6).map(|i| 7 * i + 5 * s + i * s).collect()).collect();
    for kernels in [Kernels::Fast, Kernels::Naive] {
        for (name, arch) in gpu_zoo() {
            if !arch.causal || arch.task.is_some() {
                continue;
            }
            let dev = Lockstep::new(Cpu::<bf16>::new(), emulated(kernels));
            let outcome = catch_unwind(AssertUnwindSafe(|| grow(&dev, &arch, &ids)));
            outcome.unwrap_or_else(|e| {
                let said = e.downcast_ref::<String>().cloned().unwrap_or_default();
                panic!("{name}: {said} {}", dev.fault().unwrap_or_default())
            });
            assert!(dev.worst().contains_key(&("attend", "o")), "{name}");
        }
    }
}

/// Greedy texts of the kernels are the reference's, token for token, as long as the likeliest is
/// that by more than rounding may change. Logits are of size 2, and some twenty stored values come
/// one after another on the way to them, each off by 2⁻⁹ of its size: √20 · 2⁻⁹ · 2 = 0.02 in all,
/// and 0.1 is five times that.
#[test]
fn kernels_write_what_the_reference_does() {
    let arch = gpu_zoo().into_iter().find(|(name, _)| name == "gpt2").unwrap().1;
    let prompts: Vec<Vec<u32>> = vec![vec![5], vec![3, 1, 4, 1, 5], vec![20, 30]];
    let greedy = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 1 };
    fn texts<D: Device>(
        dev: &D,
        arch: &Arch,
        prompts: &[Vec<u32>],
        how: &Sampling,
    ) -> Vec<Vec<u32>> {
        let mut model = Model::new(dev, arch).unwrap();
        model.params.write(0, &lively(arch, 11));
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let mut decoder = Decoder::new(dev, &model, &lengths, 1, 10);
        draw(&mut decoder, prompts.to_vec(), (0, 10, how), |_, _| Ok(false)).unwrap()
    }
    let want = texts(&Cpu::<f64>::new(), &arch, &prompts, &greedy);
    let got = texts(&emulated(Kernels::Fast), &arch, &prompts, &greedy);
    let dev = Cpu::<f64>::new();
    let mut model = Model::new(&dev, &arch).unwrap();
    model.params.write(0, &lively(&arch, 11));
    for ((prompt, want), got) in prompts.iter().zip(&want).zip(&got) {
        let same = want.iter().zip(got).take_while(|(want, got)| want == got).count();
        if same == want.len() {
            continue;
        }
        let ids = [&prompt[..], &want[..same]].concat();
        let mut decoder = Decoder::new(&dev, &model, &[ids.len()], 1, 0);
        let mut logits = decoder.logits(&mut [Sequence::new(ids)]).unwrap();
        logits.sort_by(|a, b| b.total_cmp(a));
        assert!(logits[0] - logits[1] < 0.1, "{want:?} {got:?}: {logits:?}");
    }
    assert!(want.iter().zip(&got).any(|(want, got)| want == got), "{want:?} {got:?}");
}

/// What a driver was asked for.
#[derive(Debug, Default)]
struct Counts {
    allocations: Cell<usize>,
    waits: Cell<usize>,
}

/// A driver that counts.
#[derive(Debug)]
struct Counting<D> {
    driver: D,
    counts: Rc<Counts>,
}

impl<D: Driver> Driver for Counting<D> {
    fn properties(&self) -> &Properties {
        self.driver.properties()
    }

    fn alloc(&self, bytes: usize, label: &'static str) -> Result<Address> {
        self.counts.allocations.set(self.counts.allocations.get() + 1);
        self.driver.alloc(bytes, label)
    }

    fn free(&self, address: Address) {
        self.driver.free(address);
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.driver.upload(to, bytes)
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.counts.waits.set(self.counts.waits.get() + 1);
        self.driver.download(from, bytes)
    }

    fn fetch(&self, from: Address, bytes: usize) -> Result<Fetch> {
        self.driver.fetch(from, bytes)
    }

    fn arrived(&self, fetch: Fetch) -> bool {
        self.driver.arrived(fetch)
    }

    fn fetched(&self, fetch: Fetch, bytes: &mut [u8]) -> Result<()> {
        self.counts.waits.set(self.counts.waits.get() + 1);
        self.driver.fetched(fetch, bytes)
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        self.driver.copy(to, from, bytes)
    }

    fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<()> {
        self.driver.fill(to, byte, bytes)
    }

    unsafe fn launch(&self, launch: &Launch, params: &[*const c_void]) -> Result<()> {
        // SAFETY: the caller's promise, handed on.
        unsafe { self.driver.launch(launch, params) }
    }

    fn signature(&self, kernel: &str) -> Result<Option<Vec<u32>>> {
        self.driver.signature(kernel)
    }

    fn tensor_map(&self, shape: &TileShape) -> Result<TensorMap> {
        self.driver.tensor_map(shape)
    }

    fn wait(&self) -> Result<()> {
        self.counts.waits.set(self.counts.waits.get() + 1);
        self.driver.wait()
    }

    fn mark(&self) -> Result<Mark> {
        self.driver.mark()
    }

    fn elapsed(&self, from: Mark, to: Mark) -> Result<f64> {
        self.driver.elapsed(from, to)
    }

    unsafe fn record(&self, work: &[Work]) -> Result<Recording> {
        // SAFETY: the caller's promise, handed on; so below.
        unsafe { self.driver.record(work) }
    }

    unsafe fn revise(&self, recording: Recording, index: usize, work: &Work) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.driver.revise(recording, index, work) }
    }

    unsafe fn replay(&self, recording: Recording) -> Result<()> {
        // SAFETY: as above.
        unsafe { self.driver.replay(recording) }
    }

    fn forget(&self, recording: Recording) {
        self.driver.forget(recording);
    }
}

#[test]
fn a_step_neither_allocates_nor_waits() {
    for (name, arch) in gpu_zoo() {
        let counts = Rc::new(Counts::default());
        let driver = Emulator::new(Modes::default()).unwrap();
        let counting = Counting { driver, counts: Rc::clone(&counts) };
        // Metered, as in a run.
        let dev = Meter::new(Gpu::new(Box::new(counting), Kernels::Fast));
        let micro = batch(&arch, &[7, 1, 23, 12], 3);
        let mut trainer = trainer(&dev, &arch, Capacity::of(&micro, arch.pair));
        let update = Update { rule: Rule::default(), lr: 1e-3, clip: 1.0, stochastic: None };
        let rehearsed = warpwright::plan::rehearsal::workspace(
            dev.device().driver().properties(),
            None,
            &arch,
            Capacity::of(&micro, arch.pair),
        );
        dev.device().reserve(rehearsed);
        let before = (counts.allocations.get(), counts.waits.get());
        // Outcomes are asked for after each step, and looked at when all have begun.
        let mut step = |step| {
            trainer.step(&dev, std::slice::from_ref(&micro), StepKey { seed: 5, step }, &update);
            trainer.pending()
        };
        let pending = [0, 1].map(&mut step);
        assert_eq!((counts.allocations.get(), counts.waits.get()), before, "{name}");
        let outcomes = pending.map(|pending| pending.outcome());
        assert!(outcomes[1].loss.is_finite(), "{name}: {:?}", dev.fault());
        assert_eq!(outcomes.map(|outcome| outcome.applied), [1, 2], "{name}");
        assert_ne!(outcomes[0].loss, outcomes[1].loss, "{name}");
    }
}
