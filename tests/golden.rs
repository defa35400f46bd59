//! Every family against PyTorch and Hugging Face: logits, loss and every gradient of the committed
//! fixtures (`tests/golden/README.md`), through `trace`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use warpwright::device::Device;
use warpwright::device::cpu::Cpu;
use warpwright::hf::{FloatType, SafeFile};
use warpwright::trace::trace;

const CASES: [&str; 30] = [
    "gpt2",
    "bert",
    "roberta",
    "albert-1",
    "albert-3",
    "modernbert",
    "bert-pretraining",
    "albert-pretraining",
    "bert-classes",
    "bert-flags",
    "bert-values",
    "bert-tokens",
    "bert-spans",
    "roberta-classes",
    "roberta-tokens",
    "roberta-spans",
    "albert-classes",
    "albert-spans",
    "gpt2-classes",
    "gpt2-tokens",
    "gpt2-spans",
    "modernbert-classes",
    "modernbert-mean",
    "modernbert-tokens",
    "modernbert-spans",
    "albert-tokens",
    "roberta-flags",
    "albert-values",
    "gpt2-values",
    "modernbert-flags",
];

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn tensors(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let file = SafeFile::open(path).unwrap();
    let read = |name: String| {
        let stored = file.get(&name).unwrap().unwrap();
        let mut values = vec![0.0; stored.count()];
        stored.read(0, &mut values);
        (name, values)
    };
    file.names().into_iter().map(read).collect()
}

/// The largest error of any tensor, relative to the tensor's largest magnitude (or, where that is
/// rounding noise, as in the gradient of a key's bias, a thousandth of the largest gradient's), and
/// its name.
fn worst<D: Device>(dev: D, name: &str, dtype: FloatType) -> (f64, String) {
    let dir = case(name);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    trace(&dev, &dir, &dir.join("batch.json"), &out, dtype).unwrap();
    let (got, expected) = (tensors(&out), tensors(&dir.join("expected.safetensors")));
    let names = |t: &BTreeMap<String, Vec<f64>>| t.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(&expected), "{name}");
    let largest = |values: &[f64]| values.iter().fold(0.0f64, |top, w| top.max(w.abs()));
    let grads = expected.iter().filter(|(name, _)| name.starts_with("grad."));
    let floor = 1e-3 * grads.map(|(_, values)| largest(values)).fold(0.0, f64::max);
    let mut worst = (0.0, String::new());
    for (tensor, want) in &expected {
        let got = &got[tensor];
        assert_eq!(got.len(), want.len(), "{name}: {tensor}");
        // A key's bias adds the same to all scores of a softmax, and so does the bias of a span's
        // ends: its gradient is zero but for rounding, which is judged beside its weight's, a sum
        // over the same rows.
        let free =
            ["key", "qa_outputs", if name.ends_with("spans") { "classifier" } else { "key" }];
        let beside = free.iter().fold(tensor.clone(), |tensor, of| {
            tensor.replace(&format!("{of}.bias"), &format!("{of}.weight"))
        });
        let scale = largest(&expected[&beside]).max(floor);
        for (g, w) in got.iter().zip(want) {
            let error = (g - w).abs() / scale;
            assert!(error.is_finite(), "{name}: {tensor} is not finite");
            if error > worst.0 {
                worst = (error, tensor.clone());
            }
        }
    }
    worst
}

#[test]
fn f64_agrees_to_nine_digits() {
    for name in CASES {
        let (error, tensor) = worst(Cpu::<f64>::new(), name, FloatType::F64);
        println!("{name}: {error:.1e} in {tensor}");
        assert!(error < 1e-9, "{name}: {tensor} is off by {error:.1e} of its largest value");
    }
}

/// A gradient passes some 20 products (4 layers, 5 each way), each of up to 64 terms: its rounding
/// errors add up like a random walk to about ε √(20 · 64), and 8 covers the tails and the norms.
#[test]
fn f32_agrees_to_its_precision() {
    let bound = 8.0 * f64::from(f32::EPSILON) * (20.0f64 * 64.0).sqrt();
    for name in CASES {
        let (error, tensor) = worst(Cpu::<f32>::new(), name, FloatType::F32);
        println!("{name}: {error:.1e} in {tensor}, bound {bound:.1e}");
        assert!(error < bound, "{name}: {tensor} is off by {error:.1e} of its largest value");
    }
}
