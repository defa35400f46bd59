//! Philox4x32-10, the one source of randomness in the program.
//!
//! A counter-based generator is a keyed bijection on 128-bit counters: ten rounds of
//!
//! ```text
//! (hi0, lo0) = M0·c0,  (hi1, lo1) = M1·c2        32 × 32 -> 64 bit products
//! c' = (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0),  k' = k + (W0, W1)
//! ```
//!
//! (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.) There is
//! no state to carry or save: every draw is a pure function of (seed, stream, step, index), so a
//! resumed run needs the step number only, and a thread on a GPU computes the same bits alone.
//!
//! ```text
//! key     = (seed low, seed high)
//! counter = (index low, index high, step, stream)
//! stream  = use | site << 8          use: a `Stream`; site: which layer or parameter, from 0
//! ```
//!
//! **Invariant.** Two different uses never share a (stream, step) pair: that is what makes their
//! draws independent. Numbers in `Stream` are part of every checkpoint's meaning; never reuse one.

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;
const ROUNDS: usize = 10;

/// What a draw is for: the low eight bits of the last counter word.
///
/// | use | step | index |
/// |---|---|---|
/// | `Order` | epoch | Feistel round << 32 \| half |
/// | `Mask` | 0 | position in the token stream; words: decision, kind, token, span length |
/// | `Pair` | epoch | piece << 4 \| try |
/// | `Dropout` | optimizer step | element / 4, word element % 4; the site is the layer's |
/// | `Init` | 0 | element / 4, word element % 4; the site is the parameter's |
/// | `Sample` | text of a batch | tokens generated so far |
/// | `Rounding` | optimizer step | element / 4, word element % 4 |
/// | `Resample` | resample | draw / 4, word draw % 4 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    Order = 0,
    Mask = 1,
    Pair = 2,
    Dropout = 3,
    Init = 4,
    Sample = 5,
    Rounding = 6,
    Resample = 7,
}

impl Stream {
    /// The counter's last word for this use at `site` (below 2^24).
    pub fn site(self, site: u32) -> u32 {
        assert!(site < 1 << 24, "rng site {site} needs more than 24 bits");
        self as u32 | site << 8
    }
}

impl From<Stream> for u32 {
    fn from(stream: Stream) -> u32 {
        stream.site(0)
    }
}

/// The generator: a key. `Copy`, eight bytes, shareable by any number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    pub fn new(seed: u64) -> Self {
        Philox { key: [seed as u32, (seed >> 32) as u32] }
    }

    pub fn seed(&self) -> u64 {
        u64::from(self.key[1]) << 32 | u64::from(self.key[0])
    }

    /// Four independent uniform words for (stream, step, index).
    #[inline]
    pub fn block(&self, stream: impl Into<u32>, step: u32, index: u64) -> [u32; 4] {
        philox4x32_10([index as u32, (index >> 32) as u32, step, stream.into()], self.key)
    }

    /// Four independent draws of the standard normal for (stream, step, index), by [`normals`].
    pub fn normal(&self, stream: impl Into<u32>, step: u32, index: u64) -> [f64; 4] {
        normals(self.block(stream, step, index))
    }
}

#[inline]
fn philox4x32_10(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let p0 = u64::from(M0) * u64::from(c[0]);
        let p1 = u64::from(M1) * u64::from(c[2]);
        let (hi0, hi1) = ((p0 >> 32) as u32, (p1 >> 32) as u32);
        c = [hi1 ^ c[1] ^ k[0], p1 as u32, hi0 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(W0), k[1].wrapping_add(W1)];
    }
    c
}

/// A float in [0, 1) from the top 24 bits of a word: exact, so every device agrees.
#[inline]
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// True with probability `p`, to 24 bits.
#[inline]
pub fn chance(word: u32, p: f32) -> bool {
    uniform(word) < p
}

/// An integer in [0, n): the high half of word × n. No value is off by more than n / 2^32.
#[inline]
pub fn below(word: u32, n: u32) -> u32 {
    ((u64::from(word) * u64::from(n)) >> 32) as u32
}

/// An integer in [0, n) from two words, for n beyond 32 bits.
#[inline]
pub fn below_u64(words: [u32; 2], n: u64) -> u64 {
    let word = u64::from(words[0]) << 32 | u64::from(words[1]);
    ((u128::from(word) * u128::from(n)) >> 64) as u64
}

/// Box–Muller on words (0, 1) and (2, 3): √(−2 ln u)·(cos 2πv, sin 2πv), in f64, reaching 6.8 σ.
/// `libm`, not the system's maths library, so that weights start bitwise equal everywhere.
pub fn normals(words: [u32; 4]) -> [f64; 4] {
    let unit = |word: u32| (f64::from(word) + 0.5) * 2f64.powi(-32);
    let pair = |u: u32, v: u32| {
        let radius = libm::sqrt(-2.0 * libm::log(unit(u)));
        let angle = std::f64::consts::TAU * unit(v);
        [radius * libm::cos(angle), radius * libm::sin(angle)]
    };
    let ([a, b], [c, d]) = (pair(words[0], words[1]), pair(words[2], words[3]));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of Random123 1.14, lines `philox4x32 10`.
    #[test]
    fn known_answers_of_random123() {
        let (zero, ones) = ([0; 4], [u32::MAX; 4]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        for (counter, key, expected) in [
            (zero, [0, 0], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            (ones, [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ] {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn a_block_is_the_documented_counter() {
        let rng = Philox::new(0x299f_31d0_a409_3822);
        let (step, index) = (0x1319_8a2e, 0x85a3_08d3_243f_6a88);
        assert_eq!(rng.block(0x0370_7344u32, step, index)[0], 0xd16c_fe09);
        assert_eq!(Stream::Dropout.site(7), 3 | 7 << 8);
    }

    #[test]
    fn ranges_hold_at_their_ends() {
        assert_eq!(uniform(0), 0.0);
        assert_eq!(uniform(u32::MAX), 1.0 - 1.0 / 16_777_216.0);
        assert!(!chance(0, 0.0) && chance(u32::MAX, 1.0));
        assert_eq!((below(0, 7), below(u32::MAX, 7)), (0, 6));
        assert_eq!(below_u64([u32::MAX, u32::MAX], 1 << 40), (1 << 40) - 1);
    }

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let rng = Philox::new(7);
        let draws: Vec<f64> = (0..50_000).flat_map(|i| rng.normal(Stream::Init, 0, i)).collect();
        let moment = |k| draws.iter().map(|x| x.powi(k)).sum::<f64>() / draws.len() as f64;
        // Five standard errors: the k-th sample moment has variance (m_2k − m_k²)/n.
        let bound = |variance: f64| 5.0 * (variance / draws.len() as f64).sqrt();
        assert!(moment(1).abs() < bound(1.0), "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < bound(2.0), "variance {}", moment(2));
        assert!(moment(3).abs() < bound(15.0), "skewness {}", moment(3));
        assert!((moment(4) - 3.0).abs() < bound(96.0), "kurtosis {}", moment(4));
    }
}
