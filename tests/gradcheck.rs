//! Every gradient against central differences, in f64.
//!
//! With h = 1e-4·max(1, |w|) and the five-point stencil the truncation is O(h⁴) ~ 1e-16 of the
//! fifth derivative and the rounding ~ ε·loss/h ~ 1e-12, so a right gradient agrees far below the
//! bound of 1e-6 relative to the tensor's own scale.

mod support;

use support::{Rig, batch, lively, spans, tasks, uniform, zoo};
use warpwright::device::Buffer;
use warpwright::device::cpu::Cpu;

#[test]
fn every_family_and_switch_agrees_with_central_differences() {
    for (name, arch) in zoo().into_iter().chain(tasks()).chain([spans()]) {
        let batch = batch(&arch, &[7, 1, 23, 12], 3);
        let mut params = lively(&arch, 11);
        let mut rig = Rig::new(Cpu::<f64>::new(), &arch, &params, &batch);
        let grads = rig.gradients();
        let table = rig.model.layout.table.clone();
        let mut u = uniform(17);
        for param in &table.params {
            let of = &grads[param.span.range()];
            let scale = (of.iter().map(|g| g * g).sum::<f64>() / of.len() as f64).sqrt();
            if name.ends_with("spans") && scale < 1e-9 {
                // What is added to all of a sequence's logits.
                let last = format!("layers.{}.mlp_norm.bias", arch.layers - 1);
                assert!([&last, "task.classifier.bias"].contains(&&*param.name), "{}", param.name);
                continue;
            }
            assert!(scale > 1e-9, "{name}: {} has no gradient", param.name);
            for _ in 0..4 {
                let i = param.span.start + (u() * param.span.len as f64) as usize;
                let (w, h) = (params[i], 1e-4 * params[i].abs().max(1.0));
                let mut at = |shift: f64| {
                    params[i] = w + shift;
                    rig.model.params.write(0, &params);
                    rig.loss()
                };
                let near = (at(h) - at(-h)) * 8.0;
                let far = at(2.0 * h) - at(-2.0 * h);
                let numeric = (near - far) / (12.0 * h);
                at(0.0);
                let error = (numeric - grads[i]).abs() / (grads[i].abs() + scale);
                assert!(
                    error < 1e-6,
                    "{name}: {}[{}]: {} against {numeric} by differences, error {error:.1e}",
                    param.name,
                    i - param.span.start,
                    grads[i],
                );
            }
        }
    }
}
