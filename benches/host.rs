//! What a step on a GPU costs the host: its code run, noted and compared with the step before, over
//! a driver that does nothing. The device works on the step before meanwhile.
//!
//!     cargo bench --bench host

use criterion::{Criterion, criterion_group, criterion_main};
use warpwright::bench::batches;
use warpwright::device::gpu::driver::Properties;
use warpwright::device::gpu::dry::Dry;
use warpwright::device::gpu::{Gpu, Kernels};
use warpwright::model::batch::Capacity;
use warpwright::model::families::preset;
use warpwright::train::step::{StepKey, Trainer};

fn host(c: &mut Criterion) {
    let mut group = c.benchmark_group("host");
    for (name, context) in [("gpt2", 1024), ("bert-base", 512), ("bert-large", 512)] {
        let arch = preset(name).expect("it is listed");
        let masked = (!arch.causal).then_some(0.15);
        let batch = batches::batch(&arch, &vec![context; 65_536 / context], masked);
        let (micros, masker) = batches::unmasked(&arch, &[batch]);
        let properties = Properties {
            name: "none".into(),
            capability: (9, 0),
            processors: 132,
            memory: 1 << 37,
            shared_per_block: 227 << 10,
        };
        let dev = Gpu::new(Box::new(Dry::new(properties)), Kernels::Fast);
        let capacity = Capacity::of(&micros[0], arch.pair);
        let mut trainer = Trainer::new(&dev, &arch, capacity, 1, masker.as_ref(), 0.1)
            .expect("the architecture is valid");
        let mut step = 0;
        group.bench_function(format!("a step of {name}, 64k tokens"), |b| {
            b.iter(|| {
                let key = StepKey { seed: 1, step };
                trainer.step(&dev, &micros, key, &batches::update());
                step += 1;
            });
        });
    }
    group.finish();
}

criterion_group!(benches, host);
criterion_main!(benches);
