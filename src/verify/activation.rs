//! Checks of the backward of activations; with products they are checked in `linear.rs`.

use half::bf16;

use super::draw::{poisoned_x, x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::cpu::{Cpu, Element};
use crate::device::gpu::{Gpu, Tensor};
use crate::device::{Buffer, Memory};
use crate::ops::activation::{Activation, launch_act_backward};
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
    let mut lengths = vec![1, 8, 2053];
    if v.sizes == Sizes::Full {
        lengths.push(1 << 24);
    }
    for (activation, name) in ACTIVATIONS {
        for &len in &lengths {
            v.check("act_backward", format!("{len}, {name}"), &ActBackward { len, activation });
        }
    }
}
