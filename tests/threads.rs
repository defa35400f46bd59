//! Results do not depend on how many threads there are: work is cut by size alone.

mod support;

use support::{Rig, batch, lively, zoo};
use warpwright::device::Buffer;
use warpwright::device::cpu::Cpu;

#[test]
fn a_pass_is_bitwise_equal_for_any_number_of_threads() {
    for (name, arch) in zoo() {
        let batch = batch(&arch, &[7, 1, 23, 12, 23, 20], 3);
        let params = lively(&arch, 11);
        let pass = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut rig = Rig::new(Cpu::<f32>::new(), &arch, &params, &batch);
                let grads = rig.gradients();
                let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<u64>>();
                (bits(&rig.sums.tokens.to_vec()), bits(&grads))
            })
        };
        let one = pass(1);
        for threads in [2, 3] {
            assert!(one == pass(threads), "{name}: {threads} threads differ from one");
        }
    }
}
