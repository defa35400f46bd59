//! One test per way a folder can be wrong.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use warpwright::hf::{
    Entry, FloatType, LoadError, ModelDir, SafeError, SafeFile, SaveError, SpecialIds,
    TensorWriter, save_model, write_safetensors,
};
use warpwright::model::arch::Arch;
use warpwright::model::families::preset;

use super::{arena, from, load, read, saved, table};

#[test]
fn folders_without_a_model_say_what_is_absent() {
    let dir = TempDir::new().unwrap();
    let open = |path: &Path| ModelDir::open(path).unwrap_err();
    assert!(matches!(open(&dir.path().join("no")), LoadError::NotFound(_)));
    assert!(matches!(open(dir.path()), LoadError::NoConfig(_)));
    let config = dir.path().join("config.json");
    fs::write(&config, "{").unwrap();
    assert!(matches!(open(&config), LoadError::NotADirectory(_)));
    assert!(matches!(open(dir.path()), LoadError::Json { .. }));
    fs::write(&config, "{}").unwrap();
    assert!(matches!(open(dir.path()), LoadError::Config { .. }));
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    assert!(matches!(open(dir.path()), LoadError::Read { .. }));
    fs::remove_dir(&config).unwrap();
    fs::write(&config, r#"{ "model_type": "gpt2" }"#).unwrap();
    assert!(matches!(open(dir.path()), LoadError::NoWeights(_)));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    let error = open(dir.path());
    assert!(matches!(error, LoadError::Pickle { class: "AutoModelForCausalLM", .. }));
    assert!(error.to_string().contains("python -c"), "{error}");
    for (class, auto) in [
        ("GPT2ForTokenClassification", "AutoModelForTokenClassification"),
        ("GPT2ForQuestionAnswering", "AutoModelForQuestionAnswering"),
        ("GPT2ForSequenceClassification", "AutoModelForSequenceClassification"),
    ] {
        let told = json!({ "model_type": "gpt2", "architectures": [class] });
        fs::write(&config, told.to_string()).unwrap();
        let error = open(dir.path()).to_string();
        assert!(error.contains(&format!("import {auto} as M")), "{error}");
    }
}

#[test]
fn damaged_weights_are_refused() {
    let (dir, _) = saved("gpt2-tiny");
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let open = || match ModelDir::open(dir.path()).unwrap_err() {
        LoadError::File(error) => error,
        error => panic!("{error}"),
    };
    for cut in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(matches!(open(), SafeError::Length { .. }), "{cut}: {}", open());
    }
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    assert!(matches!(open(), SafeError::Length { .. }));
    let mut flipped = whole.clone();
    flipped[9] = b'}';
    fs::write(&path, &flipped).unwrap();
    assert!(matches!(open(), SafeError::Header { .. }));
    let mut huge = whole.clone();
    huge[..8].fill(0xff);
    fs::write(&path, &huge).unwrap();
    assert!(matches!(open(), SafeError::Header { .. }));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(open(), SafeError::Open { .. }));
}

#[test]
fn each_lie_of_a_header_names_its_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let info = |shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let good = info("[2]", 0, 8);
    for (b, part) in [
        (info("[3]", 8, 16), "another length"),
        (info("[2]", 16, 8), "does not begin where"),
        (info("[4294967296,4294967296,4294967296]", 8, 16), "another length"),
        (info("[1]", 8, 16), "another length"),
        (info("[-2]", 8, 16), "no type, shape and place"),
        (r#"{"dtype":"F99","shape":[2],"data_offsets":[8,16]}"#.into(), "no type, shape"),
        ("7".into(), "no type, shape"),
        (info("[2]", 4, 12), "does not begin where"),
        (info("[1]", 12, 16), "does not begin where"),
        (format!("{},\"b\":{}", info("[2]", 8, 16), info("[2]", 8, 16)), "twice"),
    ] {
        let header = format!(r#"{{"a":{good},"b":{b}}}"#);
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 16]].concat();
        fs::write(&path, bytes).unwrap();
        let error = SafeFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("tensor b ") && error.contains(part), "{b}: {error}");
    }
}

#[test]
fn weights_of_another_shape_or_type_are_refused() {
    let (dir, _) = saved("bert-tiny");
    let path = dir.path().join("config.json");
    let mut config = read(&path);
    config["type_vocab_size"] = json!(3);
    fs::write(&path, config.to_string()).unwrap();
    match load(dir.path()).unwrap_err() {
        LoadError::Shape { name, got, want, .. } => {
            assert_eq!(name, "bert.embeddings.token_type_embeddings.weight");
            assert_eq!((got, want), (vec![2, 128], vec![3, 128]));
        }
        error => panic!("{error}"),
    }
    let (dir, _) = saved("gpt2-tiny");
    let path = dir.path().join("model.safetensors");
    let text = fs::read(&path).unwrap();
    let at = text.windows(5).position(|w| w == b"\"F32\"").unwrap();
    let mut ints = text;
    ints[at + 1] = b'I';
    fs::write(&path, ints).unwrap();
    let error = load(dir.path()).unwrap_err();
    assert!(matches!(error, LoadError::File(SafeError::Dtype { .. })), "{error}");
}

#[test]
fn saving_where_it_cannot_be_done_says_so() {
    let arch = preset("gpt2-tiny").unwrap();
    let (table, ids) = (table(&arch), SpecialIds::default());
    let arena = arena(&table);
    let save = |dir: &Path, arch: &Arch| {
        save_model(dir, arch, &ids, FloatType::F32, &table, from(&arena)).unwrap_err()
    };
    let dir = TempDir::new().unwrap();
    assert!(matches!(save(&dir.path().join("no"), &arch), SaveError::NotADirectory(_)));
    let gated = Arch { gated: true, ..arch.clone() };
    assert!(matches!(save(dir.path(), &gated), SaveError::Config(_)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    let error = save(dir.path(), &arch);
    assert!(matches!(error, SaveError::Write(SafeError::Write { .. })), "{error}");
}

/// Only Linux has a file that is always full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let entries = [Entry { name: "x".into(), dtype: FloatType::F32, shape: vec![4] }];
    let put = |_, out: &mut TensorWriter| out.put(&[0.0; 4]);
    let error = write_safetensors(Path::new("/dev/full"), &[], &entries, put).unwrap_err();
    assert!(matches!(error, SafeError::Full { .. }), "{error}");
}
