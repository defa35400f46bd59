//! Every way to cut a product, for those who measure which is fastest.

use super::{gpu, hopper};
use crate::device::gpu::tuned::Key;
use crate::device::gpu::{Gpu, ProductCut};

/// Most shares of k that are tried.
pub(super) const MOST_SPLITS: usize = 64;

/// Numbers of shares of so many steps of k, none of which is empty.
pub(super) fn splits(steps: usize, most: usize) -> impl Iterator<Item = usize> {
    let steps = steps.max(1);
    (1..=most).filter(move |&splits| steps.div_ceil(steps.div_ceil(splits)) == splits)
}

impl Gpu {
    /// All tiles, clusters and splits that fit a product, of the kernels that were asked for.
    pub fn product_cuts(&self, key: Key) -> Vec<ProductCut> {
        let processors = self.driver().properties().processors as usize;
        let hopper = self.has_hopper().then(|| hopper::cuts(key, processors));
        let all = hopper.into_iter().flatten().chain(gpu::cuts(key));
        all.filter(|cut| self.gemm().makes(cut)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu::tuned::{Entry, Op, Tuned};
    use crate::device::gpu::{Gemm, Kernels, Place, open};

    #[test]
    fn a_measured_cut_is_taken_and_one_of_other_kernels_is_not() {
        let gpu = open(Place::Emulator, Kernels::Fast).expect("there is a C++ compiler");
        let key = Key { op: Op::LinearDw, m: 256, n: 264, k: 4096 };
        let cuts = gpu.product_cuts(key);
        let count = |is: fn(&ProductCut) -> bool| cuts.iter().filter(|cut| is(cut)).count();
        // Five tiles, alone and, but for the two of 256 rows, in pairs; one to eight shares.
        assert_eq!(count(|cut| matches!(cut, ProductCut::Hopper { .. })), 8 * 8);
        assert!(count(|cut| matches!(cut, ProductCut::Portable { .. })) >= 3);
        let cut = cuts[5];
        let mut tuned = Tuned::new(gpu.driver().properties());
        tuned.keep(Entry { key, cut, seconds: 1.0 });
        assert_eq!(gpu.cut_of(&key), None);
        gpu.use_tuned(Some(tuned));
        assert_eq!(gpu.cut_of(&key), Some(cut));
        assert_eq!(gpu.cut_of(&Key { op: Op::Linear, ..key }), None);
        gpu.use_gemm(Gemm::Portable).unwrap();
        assert_eq!(gpu.cut_of(&key), None);
        let fixed = Some(ProductCut::Portable { tile: 2, splits: 1 });
        gpu.fix_products(fixed);
        assert_eq!(gpu.cut_of(&key), fixed);
    }
}
