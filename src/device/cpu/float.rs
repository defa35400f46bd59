//! The numbers that the CPU device computes with ([`Float`]: f32, f64) and stores ([`Element`]:
//! those and bf16).
//!
//! The f32 functions are branch-free polynomials, so that loops over them vectorise; the f64 ones
//! are the libm functions, accurate to an ulp, because f64 is the reference that everything else
//! is held to.

use std::borrow::Cow;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use bytemuck::Pod;
use half::bf16;

use super::HostElement;
#[cfg(target_arch = "x86_64")]
use super::kernel;
use super::product::{Mat, product_by_crate};
use crate::device::Format;
use crate::ops::Into;

/// A type to compute in.
pub trait Float:
    Element<Acc = Self>
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
{
    const ZERO: Self;
    const ONE: Self;
    const NEG_INFINITY: Self;

    fn of(value: f64) -> Self;
    fn to_f64(self) -> f64;
    /// self · a + b, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    fn sqrt(self) -> Self;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn tanh(self) -> Self;
    fn erf(self) -> Self;
    fn is_finite(self) -> bool;

    /// y [m, n] = or += a [m, k] b [k, n], all sizes above zero.
    fn product<E, F>(y: &mut [Self], a: Mat<E>, b: Mat<F>, into: Into)
    where
        E: Element<Acc = Self>,
        F: Element<Acc = Self>,
    {
        product_by_crate(y, a, b, into);
    }
}

impl Float for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline(always)]
    fn mul_add(self, a: f64, b: f64) -> f64 {
        f64::mul_add(self, a, b)
    }

    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }

    fn exp(self) -> f64 {
        libm::exp(self)
    }

    fn ln(self) -> f64 {
        libm::log(self)
    }

    fn tanh(self) -> f64 {
        libm::tanh(self)
    }

    fn erf(self) -> f64 {
        libm::erf(self)
    }

    #[inline(always)]
    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }
}

impl Float for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn mul_add(self, a: f32, b: f32) -> f32 {
        f32::mul_add(self, a, b)
    }

    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }

    /// exp(x) = 2^n · exp(r), |r| ≤ ln 2 / 2, exp(r) by its Taylor polynomial of degree 7
    /// (truncated at 2e-9 relative); within 2 ulp. Below −87 it is 0 and above 88.7 infinite.
    #[inline(always)]
    fn exp(self) -> f32 {
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        // Adding and subtracting 1.5·2^23 rounds to an integer, which lands in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let x = if self > 88.73 { 88.73 } else { self };
        let x = if x < -87.4 { -87.4 } else { x };
        let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
        let mut p = 1.0 / 5040.0;
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = f32::mul_add(p, r, c);
        }
        // 2^n in two factors, as n reaches 128.
        let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        let half = n >> 1;
        let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
        let value = p * power(half) * power(n - half);
        let value = if self < -87.4 { 0.0 } else { value };
        if self > 88.73 { f32::INFINITY } else { value }
    }

    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }

    /// An odd rational approximation (13/6) on |x| ≤ 7.9, within 5 ulp of ±1, and ±1 itself from
    /// where tanh rounds to it: large arguments must have no slope. The coefficients are Eigen's.
    #[inline(always)]
    fn tanh(self) -> f32 {
        let x = if self > 7.905_31 { 7.905_31 } else { self };
        let x = if x < -7.905_31 { -7.905_31 } else { x };
        let s = x * x;
        let mut p = -2.760_768_5e-16;
        for c in [
            2.000_188e-13,
            -8.604_672e-11,
            5.122_297_3e-8,
            1.485_722_4e-5,
            6.372_619e-4,
            4.893_524_6e-3,
        ] {
            p = f32::mul_add(p, s, c);
        }
        let mut q = 1.198_258_4e-6;
        for c in [1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3] {
            q = f32::mul_add(q, s, c);
        }
        // Also where self is NaN.
        if self.abs() < 9.02 { x * p / q } else { self.signum() }
    }

    /// An odd rational approximation (13/8) on |x| ≤ 4, where erf rounds to ±1; the coefficients
    /// are Eigen's.
    #[inline(always)]
    fn erf(self) -> f32 {
        let x = if self > 4.0 { 4.0 } else { self };
        let x = if x < -4.0 { -4.0 } else { x };
        let s = x * x;
        let mut p = -2.726_142_3e-10;
        for c in [
            2.770_681_5e-8,
            -2.101_024e-6,
            -5.692_506_4e-5,
            -7.349_906_3e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ] {
            p = f32::mul_add(p, s, c);
        }
        let mut q = -1.456_607_2e-5;
        for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
            q = f32::mul_add(q, s, c);
        }
        x * p / q
    }

    #[inline(always)]
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }

    fn product<E, F>(y: &mut [f32], a: Mat<E>, b: Mat<F>, into: Into)
    where
        E: Element<Acc = f32>,
        F: Element<Acc = f32>,
    {
        #[cfg(target_arch = "x86_64")]
        if kernel::suits() {
            return kernel::product(y, a, b, into);
        }
        product_by_crate(y, a, b, into);
    }
}

/// A type to store.
pub trait Element: Pod + Send + Sync + HostElement<Host = f64> {
    /// The type its sums are held in.
    type Acc: Float;
    const NAME: &'static str;
    const FORMAT: Format;

    fn wide(self) -> Self::Acc;
    /// To nearest, ties to even.
    fn round(value: Self::Acc) -> Self;
    /// Up or down by chance, so that the mean over `word` is `value`; types that hold `Acc` round
    /// nothing.
    fn round_by(value: Self::Acc, word: u32) -> Self {
        let _ = word;
        Self::round(value)
    }

    /// `x` as `Acc`: borrowed where the types are one.
    fn widen(x: &[Self]) -> Cow<'_, [Self::Acc]>;
    /// Runs `f` on `y` as `Acc` and stores what it leaves, in place where the types are one.
    fn with_wide(y: &mut [Self], f: impl FnOnce(&mut [Self::Acc]));
}

macro_rules! computed_as_stored {
    ($float:ty, $name:literal, $format:expr) => {
        impl HostElement for $float {
            type Host = f64;

            #[inline(always)]
            fn to_host(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn from_host(value: f64) -> $float {
                value as $float
            }
        }

        impl Element for $float {
            type Acc = $float;
            const NAME: &'static str = $name;
            const FORMAT: Format = $format;

            #[inline(always)]
            fn wide(self) -> $float {
                self
            }

            #[inline(always)]
            fn round(value: $float) -> $float {
                value
            }

            fn widen(x: &[$float]) -> Cow<'_, [$float]> {
                Cow::Borrowed(x)
            }

            #[inline(always)]
            fn with_wide(y: &mut [$float], f: impl FnOnce(&mut [$float])) {
                f(y)
            }
        }
    };
}

computed_as_stored!(f64, "f64", Format::F64);
computed_as_stored!(f32, "f32", Format::F32);

impl HostElement for bf16 {
    type Host = f64;

    fn to_host(self) -> f64 {
        self.to_f64()
    }

    /// Through f32, as every kernel does: the master weight is an f32.
    fn from_host(value: f64) -> bf16 {
        bf16::from_f32(value as f32)
    }
}

impl Element for bf16 {
    type Acc = f32;
    const NAME: &'static str = "bf16";
    const FORMAT: Format = Format::BF16;

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn round(value: f32) -> bf16 {
        bf16::from_f32(value)
    }

    #[inline(always)]
    fn round_by(value: f32, word: u32) -> bf16 {
        if !value.is_finite() {
            return bf16::round(value);
        }
        bf16::from_bits(((value.to_bits() + (word & 0xffff)) >> 16) as u16)
    }

    fn widen(x: &[bf16]) -> Cow<'_, [f32]> {
        Cow::Owned(x.iter().map(|x| x.wide()).collect())
    }

    fn with_wide(y: &mut [bf16], f: impl FnOnce(&mut [f32])) {
        let mut wide = Self::widen(y).into_owned();
        f(&mut wide);
        for (y, &wide) in y.iter_mut().zip(&wide) {
            *y = bf16::round(wide);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Float;

    /// Largest error of `f` over `range`, in ulps of the f64 result rounded to f32.
    fn worst_ulp(range: (f32, f32), f: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        (0..=200_000)
            .map(|i| range.0 + (range.1 - range.0) * i as f32 / 200_000.0)
            .map(|x| {
                let want = exact(f64::from(x));
                let rounded = (want as f32).abs();
                let ulp = f64::from(rounded.next_up() - rounded);
                (f64::from(f(x)) - want).abs() / ulp.max(f64::from(f32::MIN_POSITIVE))
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn f32_functions_are_within_a_few_ulp() {
        let exp = worst_ulp((-87.0, 88.0), <f32 as Float>::exp, libm::exp);
        let tanh = worst_ulp((-10.0, 10.0), <f32 as Float>::tanh, libm::tanh);
        let erf = worst_ulp((-5.0, 5.0), <f32 as Float>::erf, libm::erf);
        assert!(exp <= 2.0 && tanh <= 5.0 && erf <= 7.0, "exp {exp}, tanh {tanh}, erf {erf}");
        for x in [9.02, 30.0, f32::INFINITY] {
            assert_eq!((Float::tanh(x), Float::tanh(-x)), (1.0, -1.0), "tanh {x}");
        }
        assert!(<f32 as Float>::tanh(f32::NAN).is_nan());
    }

    #[test]
    fn exp_keeps_the_edges() {
        let exp = <f32 as Float>::exp;
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(1000.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
