//! Every op of every architecture, judged alone: the links of the chain of trust f64 → f32 → bf16.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use support::{Rig, batch, lively, shrunk, tasks, uniform, zoo};
use warpwright::device::cpu::Cpu;
use warpwright::device::lockstep::Lockstep;
use warpwright::device::{Buffer, Class, Device, Memory};
use warpwright::model::arch::Arch;
use warpwright::model::batch::Capacity;
use warpwright::ops::Span;
use warpwright::ops::linear::{Linear, LinearOps};
use warpwright::ops::optimizer::{OptimizerOps, Rule, Update};
use warpwright::train::step::{StepKey, Trainer};

use half::bf16;

/// Trains `arch` for three steps of two micro-batches, each by another rule. There is no weight
/// decay: RMSprop normalises g + λw, and where the two nearly cancel it magnifies their rounding.
fn train<D: Device>(dev: &D, arch: &Arch) {
    let micros = [batch(arch, &[7, 1, 23, 12], 3), batch(arch, &[23, 9, 11], 4)];
    let [a, b] = micros.each_ref().map(|micro| Capacity::of(micro, arch.pair));
    let capacity = a.max(b);
    let mut trainer = Trainer::new(dev, arch, capacity, 2, None, 0.0).unwrap();
    trainer.state.master.write(0, &lively(arch, 11));
    dev.store(&mut trainer.model.params, &trainer.state.master);
    let rules = [
        Rule::default(),
        Rule::Sgd { momentum: 0.9, nesterov: true },
        Rule::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.9 },
    ];
    for (step, rule) in (0..).zip(rules) {
        let update = Update { rule, lr: 1e-3, clip: 1.0, stochastic: None };
        trainer.step(dev, &micros, StepKey { seed: 5, step }, &update);
        trainer.evaluate(dev, &micros);
    }
    let outcome = trainer.outcome();
    assert_eq!((outcome.applied, outcome.skipped), (3, 0));
}

/// Trains the whole zoo; the panic of a difference carries the architecture's name. Prints how
/// much of its bound each op used.
fn holds<A: Device, B: Device>(a: fn() -> A, b: fn() -> B) {
    let mut worst = std::collections::BTreeMap::new();
    for (name, arch) in zoo().into_iter().chain(tasks()) {
        let dev = Lockstep::new(a(), b());
        let outcome = catch_unwind(AssertUnwindSafe(|| train(&dev, &arch)));
        outcome.unwrap_or_else(|e| panic!("{name}: {}", message(e)));
        for (op, share) in dev.worst() {
            let most: &mut f64 = worst.entry(op).or_default();
            *most = most.max(share);
        }
    }
    for ((op, tensor), share) in &worst {
        println!("{op:<20} {tensor:<24} {share:.4}");
    }
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    let literal = panic.downcast_ref::<&str>().map(|s| s.to_string());
    panic.downcast_ref::<String>().cloned().or(literal).unwrap_or_default()
}

#[test]
fn f32_holds_to_f64() {
    holds(Cpu::<f64>::new, Cpu::<f32>::new);
}

#[test]
fn bf16_holds_to_f32() {
    holds(Cpu::<f32>::new, Cpu::<bf16>::new);
}

#[test]
fn bf16_holds_to_f64() {
    holds(Cpu::<f64>::new, Cpu::<bf16>::new);
}

type Pair = Lockstep<Cpu<f64>, Cpu<f32>>;

fn pair() -> Pair {
    Lockstep::new(Cpu::new(), Cpu::new())
}

/// Spoils element `i` on the judged device alone.
fn spoil(of: &mut impl Buffer<Host = f64>, i: usize, by: impl Fn(f64) -> f64) {
    let mut value = [0.0];
    of.read(i, &mut value);
    of.write(i, &value.map(by));
}

/// What `f` panics with.
fn caught(f: impl FnOnce()) -> String {
    message(catch_unwind(AssertUnwindSafe(f)).expect_err("nothing was caught"))
}

/// y [5, 7] = x [5, 6] Wᵀ, where B sees x[2, 3] as `by` makes it.
fn spoiled_product(by: impl Fn(f64) -> f64) -> String {
    let dev = pair();
    let (mut x, mut w) = (dev.x(Class::Batch, 30), dev.x(Class::Weights, 42));
    let mut y = dev.x(Class::Batch, 35);
    let mut u = uniform(1);
    let mut fill = |len| (0..len).map(|_| 2.0 * u() - 1.0).collect::<Vec<f64>>();
    x.write(0, &fill(30));
    w.write(0, &fill(42));
    let at = Linear { weight: Span::first(42), bias: None, n_in: 6, n_out: 7 };
    dev.linear(&mut y, &x, &w, &at, 5);
    spoil(&mut x.b, 2 * 6 + 3, by);
    caught(|| dev.linear(&mut y, &x, &w, &at, 5))
}

#[test]
fn a_small_error_is_caught_where_it_is() {
    let said = spoiled_product(|x| x * (1.0 + 1e-4));
    assert!(said.contains("linear: y[14] (row 2, column 0)"), "{said}");
    assert!(said.contains("on the reference") && said.contains("more than"), "{said}");
}

#[test]
fn what_is_not_a_number_never_passes() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let said = spoiled_product(|_| bad);
        assert!(said.contains("linear: y[14] (row 2, column 0)"), "{bad}: {said}");
    }
}

#[test]
fn the_first_op_that_reads_a_wrong_weight_is_named() {
    let arch = shrunk("bert-base");
    let batch = batch(&arch, &[7, 1, 23, 12], 3);
    for (weight, op) in [
        ("embed.tokens", "embed: y["),
        ("layers.0.attn_norm.bias", "add_norm: y["),
        ("layers.1.fc.weight", "linear_act: pre["),
        ("decoder.bias", "head_loss: "),
    ] {
        let mut rig = Rig::new(pair(), &arch, &lively(&arch, 11), &batch);
        let span = rig.model.layout.table.get(weight).unwrap().span;
        // Every element: a single row of the token table may not occur in the batch.
        for i in span.range() {
            spoil(&mut rig.model.params.b, i, |w| w * 1.01);
        }
        let said = caught(|| drop(rig.gradients()));
        assert!(said.contains(op), "{weight}: {said}");
    }
}

#[test]
fn a_wrong_update_is_caught() {
    let arch = shrunk("gpt2");
    let dev = pair();
    let micros = [batch(&arch, &[7, 1, 23, 12], 3)];
    let mut trainer =
        Trainer::new(&dev, &arch, Capacity::of(&micros[0], false), 1, None, 0.1).unwrap();
    trainer.state.master.write(0, &lively(&arch, 11));
    dev.store(&mut trainer.model.params, &trainer.state.master);
    spoil(&mut trainer.state.v.b, 5, |_| 1e-3);
    let update = Update { rule: Rule::default(), lr: 1e-3, clip: 1.0, stochastic: None };
    let key = StepKey { seed: 5, step: 0 };
    let said = caught(|| trainer.step(&dev, &micros, key, &update));
    assert!(said.contains("update: v[5]"), "{said}");
}

#[test]
fn the_reference_must_be_the_finer_of_the_two() {
    let said = caught(|| drop(Lockstep::new(Cpu::<bf16>::new(), Cpu::<f32>::new())));
    assert!(said.contains("at least as precise"), "{said}");
}
