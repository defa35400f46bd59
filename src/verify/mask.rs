//! Checks of masking on the device: all must agree to the bit.

use super::draw::int;
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::data::masking::{Masker, SPECIAL, WORD_START};
use crate::data::objective::{Masking, Unit};
use crate::device::Buffer;
use crate::ops::mask::{MaskOps, Masked, Unmasked};
use crate::rng::Philox;

struct Mask {
    tokens: usize,
    masking: Masking,
    start: u64,
}

const VOCAB: usize = 97;

impl<D: MaskOps> Check<D> for Mask {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let n = self.tokens;
        let ids = int(dev, &draw.below(n, VOCAB));
        // Ids 0 to 4 are special; of the rest, two in three begin a word.
        let flag = |id: usize| match id {
            0..5 => SPECIAL,
            _ if id.is_multiple_of(3) => 0,
            _ => WORD_START,
        };
        let flags: Vec<u8> = (0..VOCAB).map(flag).collect();
        let on_device = int(dev, &flags.iter().map(|&f| i32::from(f)).collect::<Vec<_>>());
        let positions: Vec<i32> = (0..n).map(|i| (i % 41) as i32).collect();
        let positions = int(dev, &positions);
        let masker = Masker::new(Philox::new(11), self.masking, 4, flags, n);
        let spoiled = |len: usize| int(dev, &vec![i32::MIN; len]);
        let (mut masked, mut count) = (spoiled(n), int(dev, &[5]));
        let (mut rows, mut targets) = (spoiled(masker.capacity()), spoiled(masker.capacity()));
        let out =
            Masked { ids: &mut masked, rows: &mut rows, targets: &mut targets, count: &mut count };
        let input = Unmasked {
            ids: &ids,
            positions: &positions,
            flags: &on_device,
            start: self.start,
            tokens: n,
            countable: n - n / 10,
        };
        dev.mask(out, input, &masker);
        let exact = |tensor, buffer: &D::Int| {
            let values = buffer.to_vec().into_iter().map(f64::from).collect();
            Output { tensor, values, kind: Kind::Exact }
        };
        vec![
            exact("ids", &masked),
            exact("rows", &rows),
            exact("targets", &targets),
            exact("count", &count),
        ]
    }
}

pub fn mask(v: &mut Verifier) {
    let long = if v.sizes == Sizes::Full { 65_536 } else { 3000 };
    for (name, unit) in [("token", Unit::Token), ("word", Unit::Word), ("span", Unit::Span)] {
        // The third fills the capacity: every token selected, and six deviations are few.
        let cases = [(1, 0.15, 0), (1025, 0.3, 5), (64, 1.0, 0), (long, 0.15, (1 << 32) - 7)];
        for (tokens, rate, start) in cases {
            let masking = Masking { rate, keep: 0.1, random: 0.1, unit };
            let shape = format!("{tokens} by {name}, rate {rate}");
            v.check("mask", shape, &Mask { tokens, masking, start });
        }
    }
}
