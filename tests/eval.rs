//! Likelihoods and explanations beside transformers', by ids: the cases of `tests/golden/eval.py`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use warpwright::device::Buffer;
use warpwright::device::cpu::Cpu;
use warpwright::eval::explain::{
    Explained, Subject, Target, explain, logits, probabilities, span_probability,
};
use warpwright::eval::likelihood::{Asked, likelihoods};
use warpwright::hf::ModelDir;
use warpwright::model::transformer::Model;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden("eval.json")).unwrap()).unwrap()
}

fn get<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn model(dev: &Cpu<f64>, name: &str) -> Model<Cpu<f64>> {
    let dir = ModelDir::open(&golden(name)).unwrap();
    let mut model = Model::new(dev, &dir.arch).unwrap();
    let params = &mut model.params;
    dir.load(&model.layout.table, |param, start, values| {
        params.write(param.span.start + start, values);
    })
    .unwrap();
    model
}

#[test]
fn each_token_is_masked_in_turn() {
    let (dev, case) = (Cpu::<f64>::new(), &expected()["pseudo"]);
    let model = model(&dev, "bert");
    let asked = Asked { ids: get(&case["ids"]), scored: get(&case["scored"]) };
    // Beside a sequence of which nothing is asked.
    let none = Asked { ids: vec![5, 6], scored: vec![] };
    let mask = Some(get(&case["mask"]));
    let mut told = Vec::new();
    let asked = [none.clone(), asked, none];
    let found = likelihoods(&dev, &model, mask, &asked, |done| told.push(done)).unwrap();
    let want: Vec<f64> = get(&case["log_p"]);
    assert_eq!((found[0].each.len(), found[1].each.len(), told.last()), (0, 4, Some(&4)));
    for (got, want) in found[1].each.iter().zip(want) {
        assert!((got - want).abs() < 1e-9, "{got}, not {want}");
    }
    let unknown = [Asked { ids: vec![67], scored: vec![0] }];
    let error = likelihoods(&dev, &model, mask, &unknown, |_| {}).unwrap_err();
    assert!(error.to_string().contains("67 is beyond the vocabulary of 67"), "{error}");
    let known = [Asked { ids: vec![6], scored: vec![0] }];
    let error = likelihoods(&dev, &model, None, &known, |_| {}).unwrap_err();
    assert!(error.to_string().contains("no [MASK] token"), "{error}");
}

#[track_caller]
fn all_close(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.0f64, |top, w| top.max(w.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() < 1e-9 * scale, "{what}, {i}: {got}, not {want}");
    }
}

#[test]
fn saliency_and_attention_are_torch_s() {
    let dev = Cpu::<f64>::new();
    for case in expected()["explained"].as_array().unwrap() {
        let name: String = get(&case["case"]);
        let model = model(&dev, &name);
        let ids: Vec<u32> = get(&case["ids"]);
        let row: Option<usize> = get(&case["row"]);
        let types = vec![0; ids.len()];
        let subject = Subject { ids, types, row: row.unwrap_or(0) };
        let found = logits(&dev, &model, &subject);
        let kind = model.arch.task.as_ref().map(|task| task.kind);
        let (target, p) = match serde_json::from_value(case["target"].clone()) {
            Ok(ends) => (Target::Span(ends), span_probability(&found, ends)),
            Err(_) => {
                let output: usize = get(&case["target"]);
                (Target::Output(output), probabilities(kind, &found)[output])
            }
        };
        assert!((p.ln() - get::<f64>(&case["log_p"])).abs() < 1e-9, "{name}");
        let Explained { saliency, attention } = explain(&dev, &model, &subject, &found, target);
        all_close(&saliency, &get::<Vec<f64>>(&case["saliency"]), &name);
        let want: Vec<Vec<f64>> = get(&case["attentions"]);
        assert_eq!(attention.len(), want.len());
        for (heads, want) in attention.iter().zip(want) {
            all_close(&heads.concat(), &want, &name);
        }
    }
}

/// Of labels and numbers gradient × input has no golden file: its sum over tokens is held to a
/// difference, all embeddings scaled by their norm's weights.
#[test]
fn saliency_of_labels_and_numbers_is_the_slope() {
    let dev = Cpu::<f64>::new();
    for (name, target) in [("bert-flags", 2), ("bert-values", 0)] {
        let mut model = model(&dev, name);
        let kind = model.arch.task.as_ref().map(|task| task.kind);
        let subject = Subject { ids: vec![2, 17, 5, 30, 17, 3], types: vec![0; 6], row: 0 };
        let found = logits(&dev, &model, &subject);
        let Explained { saliency, .. } =
            explain(&dev, &model, &subject, &found, Target::Output(target));
        let norm = model.layout.embed_norm.as_ref().expect("BERT norms its embeddings");
        let spans = [norm.weight, norm.bias.expect("with a bias")];
        let mut told = |scale: f64| {
            let kept = spans.map(|span| {
                let mut values = vec![0.0; span.len];
                model.params.read(span.start, &mut values);
                let scaled: Vec<f64> = values.iter().map(|value| value * scale).collect();
                model.params.write(span.start, &scaled);
                values
            });
            let told = probabilities(kind, &logits(&dev, &model, &subject))[target];
            spans.iter().zip(kept).for_each(|(span, kept)| model.params.write(span.start, &kept));
            if name == "bert-flags" { told.ln() } else { told }
        };
        let slope = (told(1.0 + 1e-5) - told(1.0 - 1e-5)) / 2e-5;
        let sum: f64 = saliency.iter().sum();
        assert!((slope - sum).abs() < 1e-8, "{name}: {sum}, not {slope}");
    }
}
