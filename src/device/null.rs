//! A device that stores nothing and computes nothing, but counts: what `plan` runs on.
//!
//! Its tensors are lengths; reading one gives zeros and writing one does nothing, except that
//! integers are kept, because the cost of attention depends on where sequences begin. So the real
//! code of a step runs through at any size, in the time of its calls, on a machine that could
//! never hold it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::data::masking::Masker;
use crate::device::{Buffer, Class, Format, LOGIT_ROWS, Memory, Repeats, gpu};
use crate::ops::Into;
use crate::ops::activation::Activation;
use crate::ops::attention::{Attended, Attention, AttentionOps, Packed};
use crate::ops::cache::{CacheOps, Kept};
use crate::ops::dropout::{Dropout, DropoutOps};
use crate::ops::embed::{Embed, EmbedOps, Tokens};
use crate::ops::gather::GatherOps;
use crate::ops::linear::{Linear, LinearOps};
use crate::ops::loss::{LossGrads, LossInput, LossOps};
use crate::ops::mask::{MaskOps, Masked, Unmasked};
use crate::ops::norm::{Norm, NormOps, Normed, Residual};
use crate::ops::optimizer::{Arenas, Group, OptimizerOps, Update};
use crate::ops::reduce::ReduceOps;
use crate::ops::rope::Rotation;
use crate::ops::task::{TaskOps, Truth};

/// Counts the memory that a device with these formats would take.
#[derive(Debug)]
pub struct Null {
    x: Format,
    acc: Format,
    gpu: bool,
    bytes: Mutex<BTreeMap<Class, u64>>,
}

impl Null {
    /// As though the CPU, storing `x` and summing in `acc`.
    pub fn new(x: Format, acc: Format) -> Self {
        Null { x, acc, gpu: false, bytes: Mutex::default() }
    }

    /// As though a GPU, but for its workspace.
    pub fn gpu() -> Self {
        Null { gpu: true, ..Null::new(Format::BF16, Format::F32) }
    }

    /// Bytes taken so far, by what they are for. Nothing is ever given back.
    pub fn bytes(&self) -> BTreeMap<Class, u64> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, class: Class, len: usize, size: usize) -> Hollow {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *bytes.entry(class).or_default() += (len * size) as u64;
        Hollow { len }
    }
}

/// A tensor without its elements.
#[derive(Debug)]
pub struct Hollow {
    len: usize,
}

impl Buffer for Hollow {
    type Host = f64;

    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, start: usize, out: &mut [f64]) {
        assert!(start + out.len() <= self.len, "read beyond a tensor of {}", self.len);
        out.fill(0.0);
    }

    fn write(&mut self, start: usize, values: &[f64]) {
        assert!(start + values.len() <= self.len, "write beyond a tensor of {}", self.len);
    }
}

impl Memory for Null {
    type X = Hollow;
    type Acc = Hollow;
    type Int = Vec<i32>;

    fn x_format(&self) -> Format {
        self.x
    }

    fn acc_format(&self) -> Format {
        self.acc
    }

    fn x(&self, class: Class, len: usize) -> Hollow {
        self.take(class, len, self.x.bytes)
    }

    fn acc(&self, class: Class, len: usize) -> Hollow {
        self.take(class, len, self.acc.bytes)
    }

    fn int(&self, class: Class, len: usize) -> Vec<i32> {
        self.take(class, len, size_of::<i32>());
        vec![0; len]
    }

    fn logit_rows(&self, vocab: usize) -> usize {
        if self.gpu { gpu::logit_rows(vocab) } else { LOGIT_ROWS }
    }
}

impl Repeats for Null {
    type Script = ();
}

type X = Hollow;
type Acc = Hollow;
type Int = Vec<i32>;

impl EmbedOps for Null {
    fn embed(&self, _: &mut X, _: Tokens<Self>, _: &X, _: &Embed) {}
    fn embed_backward(&self, _: &mut Acc, _: &X, _: Tokens<Self>, _: &Embed) {}
}

impl NormOps for Null {
    fn norm(&self, _: &mut X, _: &mut Acc, _: &X, _: &X, _: &Norm, _: usize) {}

    fn add_norm(
        &self,
        _: &mut X,
        _: &mut X,
        _: &mut Acc,
        _: Residual<X>,
        _: &X,
        _: &Norm,
        _: usize,
    ) {
    }

    fn norm_backward(
        &self,
        _: &mut X,
        _: &mut Acc,
        _: &X,
        _: Normed<Self>,
        _: &Norm,
        _: usize,
        _: Into,
    ) {
    }
}

impl LinearOps for Null {
    fn linear(&self, _: &mut X, _: &X, _: &X, _: &Linear, _: usize) {}

    fn linear_act(&self, _: &mut X, _: &mut X, _: &X, _: &X, _: &Linear, _: Activation, _: usize) {}

    fn linear_gate(&self, _: &mut X, _: &mut X, _: &X, _: &X, _: &Linear, _: Activation, _: usize) {
    }

    fn linear_rope(&self, _: &mut X, _: &X, _: &X, _: &Linear, _: Rotation<Self>, _: usize) {}

    fn linear_dx(&self, _: &mut X, _: &X, _: &X, _: &Linear, _: usize, _: Into) {}

    fn linear_dx_act(&self, _: &mut X, _: &X, _: &X, _: &X, _: &Linear, _: Activation, _: usize) {}

    fn linear_dx_gate(&self, _: &mut X, _: &X, _: &X, _: &X, _: &Linear, _: Activation, _: usize) {}

    fn linear_dw(&self, _: &mut Acc, _: &X, _: &X, _: &Linear, _: usize) {}
    fn act_backward(&self, _: &mut X, _: &X, _: &X, _: Activation, _: usize) {}
}

impl AttentionOps for Null {
    fn attention(&self, _: &mut X, _: &mut Acc, _: Packed<Self>, _: &Attention) {}

    fn attention_backward(
        &self,
        _: &mut X,
        _: &X,
        _: Attended<Self>,
        _: Packed<Self>,
        _: &Attention,
        _: Option<Rotation<Self>>,
    ) {
    }
}

impl CacheOps for Null {
    fn keep(&self, _: &mut X, _: &X, _: &Int, _: usize, _: usize) {}
    fn attend(&self, _: &mut X, _: &X, _: Kept<Self>, _: &Attention) {}
}

impl GatherOps for Null {
    fn gather(&self, _: &mut X, _: &X, _: &Int, _: usize, _: usize) {}
    fn scatter_add(&self, _: &mut X, _: &X, _: &Int, _: usize, _: usize) {}
}

impl DropoutOps for Null {
    fn dropout(&self, _: &mut X, _: &X, _: Dropout, _: usize) {}
}

impl LossOps for Null {
    fn head_loss(
        &self,
        _: &mut Acc,
        _: Option<LossGrads<Self>>,
        _: &mut X,
        _: LossInput<Self>,
        _: &X,
        _: &Linear,
    ) {
    }
}

impl TaskOps for Null {
    fn mean_rows(&self, _: &mut X, _: &X, _: &Int, _: usize, _: usize) {}
    fn mean_rows_backward(&self, _: &mut X, _: &X, _: &Int, _: usize, _: usize) {}
    fn task_loss(
        &self,
        _: &mut Acc,
        _: &mut X,
        _: Truth<Self>,
        _: usize,
        _: usize,
        _: Option<&Acc>,
    ) {
    }
}

impl MaskOps for Null {
    fn mask(&self, _: Masked<Self>, _: Unmasked<Self>, _: &Masker) {}
}

impl ReduceOps for Null {
    fn zero_x(&self, _: &mut X, _: usize) {}
    fn zero_acc(&self, _: &mut Acc) {}
    fn judge(&self, _: &mut Acc, _: &Acc, _: &Acc) {}
}

impl OptimizerOps for Null {
    fn update(&self, _: Arenas<Self>, _: &Acc, _: &Acc, _: &Update, _: &[Group]) {}
    fn store(&self, _: &mut X, _: &Acc) {}
}
