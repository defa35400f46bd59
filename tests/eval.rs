//! Likelihoods beside transformers', by ids: the cases of `tests/golden/eval.py`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use warpwright::device::Buffer;
use warpwright::device::cpu::Cpu;
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
