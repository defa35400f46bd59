//! Checks of the gates and of the backward of activations.

use half::bf16;

use super::draw::{poisoned_x, x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::cpu::{Cpu, Element};
use crate::device::gpu::{Gpu, Tensor};
use crate::device::{Buffer, Memory};
use crate::ops::activation::{Activation, ActivationOps, launch_act_backward};
use crate::ops::linear::LinearOps;

const ACTIVATIONS: [(Activation, &str); 4] = [
    (Activation::Gelu, "gelu"),
    (Activation::GeluTanh, "gelu_tanh"),
    (Activation::Silu, "silu"),
    (Activation::Tanh, "tanh"),
];

/// Values that reach past where the activations saturate, and some far beyond.
fn wide_values(draw: &mut Draw, len: usize) -> Vec<f64> {
    let mut values = draw.values(len, 3.0);
    let special = [0.0, -30.0, 30.0, 100.0, -100.0, 1e-30, -1e4, 1e4];
    for (value, special) in values.iter_mut().skip(len / 2).zip(special) {
        *value = bf16::from_f64(special).to_f64();
    }
    values
}

/// [a; b] of each row, a from [`wide_values`].
fn pre(draw: &mut Draw, inner: usize, rows: usize) -> Vec<f64> {
    let (a, b) = (wide_values(draw, rows * inner), draw.values(rows * inner, 1.0));
    let halves = a.chunks_exact(inner).zip(b.chunks_exact(inner));
    halves.flat_map(|(a, b)| [a, b].concat()).collect()
}

struct Gate {
    rows: usize,
    inner: usize,
    activation: Activation,
}

impl<D: ActivationOps> Check<D> for Gate {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &Gate { rows, inner, activation } = self;
        let pre = x(dev, &pre(draw, inner, rows));
        let mut y = poisoned_x(dev, rows * inner);
        dev.gate(&mut y, &pre, activation, inner, rows);
        vec![Output { tensor: "y", values: y.to_vec(), kind: Kind::Stored(8) }]
    }
}

struct GateBackward(Gate);

impl<D: ActivationOps> Check<D> for GateBackward {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let Gate { rows, inner, activation } = self.0;
        let pre = x(dev, &pre(draw, inner, rows));
        let dy = draw.x(dev, rows * inner, 1.0);
        let mut dpre = poisoned_x(dev, rows * 2 * inner);
        dev.gate_backward(&mut dpre, &dy, &pre, activation, inner, rows);
        vec![Output { tensor: "dpre", values: dpre.to_vec(), kind: Kind::Stored(8) }]
    }
}

struct ActBackward {
    len: usize,
    activation: Activation,
}

/// `LinearOps::act_backward`, whose kernels belong to this family.
trait ActBackwardOps: Memory {
    fn act_backward(
        &self,
        dpre: &mut Self::X,
        dy: &Self::X,
        pre: &Self::X,
        activation: Activation,
        len: usize,
    );
}

impl<E: Element> ActBackwardOps for Cpu<E> {
    fn act_backward(
        &self,
        dpre: &mut Vec<E>,
        dy: &Vec<E>,
        pre: &Vec<E>,
        activation: Activation,
        len: usize,
    ) {
        LinearOps::act_backward(self, dpre, dy, pre, activation, len);
    }
}

impl ActBackwardOps for Gpu {
    fn act_backward(
        &self,
        dpre: &mut Tensor<bf16>,
        dy: &Tensor<bf16>,
        pre: &Tensor<bf16>,
        activation: Activation,
        len: usize,
    ) {
        let places = [dpre.address(), dy.address(), pre.address()];
        launch_act_backward(self, places, activation, len);
    }
}

impl<D: ActBackwardOps> Check<D> for ActBackward {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let &ActBackward { len, activation } = self;
        let pre = x(dev, &wide_values(draw, len));
        let dy = draw.x(dev, len, 1.0);
        let mut dpre = poisoned_x(dev, len);
        dev.act_backward(&mut dpre, &dy, &pre, activation, len);
        vec![Output { tensor: "dpre", values: dpre.to_vec(), kind: Kind::Stored(8) }]
    }
}

pub fn activation(v: &mut Verifier) {
    let full = v.sizes == Sizes::Full;
    let mut shapes = vec![(1, 8), (37, 24), (99, 1152)];
    let mut lengths = vec![1, 8, 2053];
    if full {
        shapes.push((65_536, 2048));
        lengths.push(1 << 24);
    }
    for (activation, name) in ACTIVATIONS {
        for &(rows, inner) in &shapes {
            let gate = Gate { rows, inner, activation };
            let shape = format!("{rows} × {inner}, {name}");
            v.check("gate", shape.clone(), &gate);
            v.check("gate_backward", shape, &GateBackward(gate));
        }
        for &len in &lengths {
            v.check("act_backward", format!("{len}, {name}"), &ActBackward { len, activation });
        }
    }
}
