//! The learning rate as a function of the step.
//!
//! With peak η, w steps of warm-up, T steps in all, floor f and x = (s − w) / (T − w):
//!   warm-up   η (s + 1) / w                          while s < w
//!   constant  η
//!   linear    η (f + (1 − f)(1 − x))
//!   cosine    η (f + (1 − f)(1 + cos πx) / 2)
//!   wsd       η until the last `decay` share of T, then η (f + (1 − f)(1 − √y)), y its share run
//! (Loshchilov, Hutter 2017; Hägele et al. 2024 for warm-up–stable–decay with 1 − sqrt.)

use serde::{Deserialize, Serialize};

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    Constant,
    Linear,
    Cosine,
    /// Warm-up, stable, decay.
    Wsd,
}

/// A learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    pub shape: Shape,
    /// η
    pub peak: f64,
    /// w, in steps
    pub warmup: u64,
    /// f: the last learning rate as a share of the peak.
    pub floor: f64,
    /// `wsd` only: the share of all steps that decays.
    pub decay: f64,
}

impl Default for Schedule {
    /// What a small model learns fast by; the recipes of large ones name their own.
    fn default() -> Self {
        Schedule { shape: Shape::Wsd, peak: 3e-3, warmup: 60, floor: 0.0, decay: 0.4 }
    }
}

impl Schedule {
    /// The learning rate of step `s` (from 0) of `steps`.
    pub fn at(&self, s: u64, steps: u64) -> f64 {
        if s < self.warmup {
            return self.peak * (s + 1) as f64 / self.warmup as f64;
        }
        let run = (s - self.warmup) as f64 / steps.saturating_sub(self.warmup).max(1) as f64;
        let share = match self.shape {
            Shape::Constant => return self.peak,
            Shape::Linear => 1.0 - run.min(1.0),
            Shape::Cosine => (1.0 + (std::f64::consts::PI * run.min(1.0)).cos()) / 2.0,
            Shape::Wsd => {
                let length = self.decay * steps as f64;
                let decayed = (s as f64 - (steps as f64 - length)) / length.max(1.0);
                1.0 - decayed.clamp(0.0, 1.0).sqrt()
            }
        };
        self.peak * (self.floor + (1.0 - self.floor) * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(shape: Shape, s: u64) -> f64 {
        Schedule { shape, peak: 1.0, warmup: 10, floor: 0.1, decay: 0.2 }.at(s, 110)
    }

    #[test]
    fn every_shape_warms_up_peaks_and_ends_where_it_should() {
        for shape in [Shape::Constant, Shape::Linear, Shape::Cosine, Shape::Wsd] {
            assert_eq!(at(shape, 0), 0.1);
            assert_eq!(at(shape, 9), 1.0);
            assert_eq!(at(shape, 10), 1.0);
        }
        assert_eq!(at(Shape::Constant, 110), 1.0);
        assert!((at(Shape::Linear, 60) - 0.55).abs() < 1e-12);
        assert!((at(Shape::Cosine, 60) - 0.55).abs() < 1e-12);
        assert_eq!(at(Shape::Wsd, 88), 1.0);
        // Halfway through the decay, 1 − √½ is left above the floor.
        assert!((at(Shape::Wsd, 99) - (0.1 + 0.9 * (1.0 - 0.5f64.sqrt()))).abs() < 1e-12);
        for shape in [Shape::Linear, Shape::Cosine, Shape::Wsd] {
            assert!((at(shape, 110) - 0.1).abs() < 1e-12);
        }
    }
}
