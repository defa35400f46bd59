//! Tensors: real files byte by byte, old names, shards, rounding.

use std::collections::BTreeSet;
use std::fs;

use safetensors::SafeTensors;
use serde_json::json;
use tempfile::TempDir;
use warpwright::hf::{
    Entry, FloatType, LoadError, ModelDir, SafeFile, pieces, save_model, write_safetensors,
};
use warpwright::model::arch::Arch;
use warpwright::model::families::preset;

use super::{
    arena, from, golden, load, rename, save, saved, table, tensors, variants, without_gaps, write,
};

#[test]
fn real_files_load_whole_and_are_saved_as_they_were() {
    for case in [
        "gpt2",
        "bert",
        "bert-pretraining",
        "roberta",
        "albert-1",
        "albert-3",
        "albert-pretraining",
        "modernbert",
        "bert-classes",
        "bert-flags",
        "bert-values",
        "bert-tokens",
        "bert-spans",
        "roberta-classes",
        "roberta-flags",
        "roberta-tokens",
        "roberta-spans",
        "albert-classes",
        "albert-values",
        "albert-tokens",
        "albert-spans",
        "gpt2-classes",
        "gpt2-values",
        "gpt2-tokens",
        "gpt2-spans",
        "modernbert-classes",
        "modernbert-flags",
        "modernbert-mean",
        "modernbert-tokens",
        "modernbert-spans",
    ] {
        let dir = golden().join(case);
        let (arena, report) = load(&dir).unwrap();
        assert_eq!(report, Default::default(), "{case}");
        let model = ModelDir::open(&dir).unwrap();
        let out = TempDir::new().unwrap();
        let (table, ids) = (table(&model.arch), model.ids);
        save_model(out.path(), &model.arch, &ids, FloatType::F32, &table, from(&arena)).unwrap();
        let files = [&dir, out.path()].map(|d| tensors(&d.join("model.safetensors")));
        assert_eq!(files[0], files[1], "{case}");
        let ours = ModelDir::open(out.path()).unwrap();
        assert_eq!(ours.arch, model.arch);
        assert_eq!(ours.config["architectures"], model.config["architectures"]);
        for key in ["tie_word_embeddings", "layer_types", "rope_parameters", "dtype"] {
            assert_eq!(ours.config.get(key), model.config.get(key), "{case}: {key}");
        }
    }
}

#[test]
fn what_is_saved_is_loaded_bit_by_bit() {
    for arch in variants() {
        let table = table(&arch);
        let arena = without_gaps(&table, &arena(&table));
        for dtype in [FloatType::F64, FloatType::F32, FloatType::F16, FloatType::Bf16] {
            let dir = TempDir::new().unwrap();
            save(dir.path(), &arch, dtype, &arena);
            let (loaded, report) = load(dir.path()).unwrap();
            assert!(loaded == arena, "{arch:?} {dtype:?}");
            assert_eq!(report, Default::default());
        }
    }
}

#[test]
fn pieces_cover_every_parameter_once() {
    for arch in variants() {
        let table = table(&arch);
        let pieces = pieces(&arch, &table);
        let mut next = vec![0; table.params.len()];
        for piece in &pieces {
            assert_eq!(piece.rows.start, next[piece.param], "{}", piece.name);
            next[piece.param] = piece.rows.end;
        }
        let rows: Vec<usize> = table.params.iter().map(|p| p.shape[0]).collect();
        assert_eq!(next, rows);
        let names: BTreeSet<_> = pieces.iter().map(|p| &p.name).collect();
        assert_eq!(names.len(), pieces.len());
    }
}

/// A large tensor crosses in several chunks, transposed ones too.
#[test]
fn tensors_beyond_a_chunk_arrive_whole() {
    let arch = Arch {
        vocab: 6000,
        width: 600,
        embed_width: 600,
        inner: 2400,
        layers: 1,
        groups: 1,
        ..preset("gpt2-tiny").unwrap()
    };
    let table = table(&arch);
    let arena = without_gaps(&table, &arena(&table));
    let dir = TempDir::new().unwrap();
    save(dir.path(), &arch, FloatType::F32, &arena);
    assert!(load(dir.path()).unwrap().0 == arena);
}

#[test]
fn older_names_are_understood() {
    let (dir, arena) = saved("bert-tiny");
    rename(dir.path(), |name| {
        let name = name.strip_prefix("bert.").unwrap_or(name);
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        let name = name.replace("LayerNorm.bias", "LayerNorm.beta");
        Some(name.replace("cls.predictions.bias", "cls.predictions.decoder.bias"))
    });
    let (loaded, report) = load(dir.path()).unwrap();
    assert!(loaded == arena);
    assert_eq!(report, Default::default());
    let (dir, arena) = saved("gpt2-tiny");
    rename(dir.path(), |name| Some(name.strip_prefix("transformer.").unwrap_or(name).to_string()));
    assert!(load(dir.path()).unwrap().0 == arena);
}

#[test]
fn buffers_and_tied_duplicates_are_passed_over_and_the_rest_reported() {
    let (dir, arena) = saved("gpt2-tiny");
    let path = dir.path().join("model.safetensors");
    let stored = tensors(&path);
    let scalar = (safetensors::Dtype::F32, vec![1], vec![0; 4]);
    let mut all: Vec<_> = stored.iter().map(|(n, t)| (n.clone(), t)).collect();
    all.push(("lm_head.weight".into(), &stored["transformer.wte.weight"]));
    for name in ["transformer.h.0.attn.bias", "h.1.attn.masked_bias", "score.weight"] {
        all.push((name.into(), &scalar));
    }
    write(&path, &all);
    let (loaded, report) = load(dir.path()).unwrap();
    assert!(loaded == arena);
    assert_eq!(report.leftover, ["score.weight"]);
}

#[test]
fn heads_may_be_missing_but_the_body_may_not() {
    let (dir, _) = saved("bert-tiny");
    rename(dir.path(), |name| (!name.starts_with("cls.")).then(|| name.to_string()));
    let (_, report) = load(dir.path()).unwrap();
    assert_eq!(report.missing.len(), 5);
    assert!(report.missing.contains(&"cls.predictions.transform.dense.weight".to_string()));
    rename(dir.path(), |name| (!name.contains(".key.")).then(|| name.to_string()));
    match load(dir.path()).unwrap_err() {
        LoadError::Missing { name, others, .. } => {
            assert_eq!(name, "bert.encoder.layer.0.attention.self.key.weight");
            assert_eq!(others, 5);
        }
        error => panic!("{error}"),
    }
}

#[test]
fn shards_are_joined() {
    let (dir, arena) = saved("bert-tiny");
    let path = dir.path().join("model.safetensors");
    let stored = tensors(&path);
    let mut map = serde_json::Map::new();
    for (i, shard) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let half = stored.iter().enumerate().filter(|(n, _)| n % 2 == i).map(|(_, t)| t);
        let half: Vec<_> = half.map(|(n, t)| (n.clone(), t)).collect();
        write(&dir.path().join(shard), &half);
        map.extend(half.iter().map(|(n, _)| (n.clone(), json!(shard))));
    }
    fs::remove_file(&path).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    // With the mark that some editors put first.
    fs::write(&index, format!("\u{feff}{}", json!({ "weight_map": map }))).unwrap();
    assert!(load(dir.path()).unwrap().0 == arena);
    // An index that lies, and files that both have a tensor.
    let refused = |part: &str| {
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    };
    let with = |name: &str, file: &str| {
        let mut lying = map.clone();
        lying.insert(name.into(), json!(file));
        fs::write(&index, json!({ "weight_map": lying }).to_string()).unwrap();
    };
    with("ghost", "a.safetensors");
    refused("tensor ghost is not in \"a.safetensors\"");
    let (first, _) = stored.iter().next().unwrap();
    with(first, "b.safetensors");
    refused(&format!("tensor {first} is not in \"b.safetensors\""));
    with(first, "a.safetensors");
    let b = fs::read(dir.path().join("b.safetensors")).unwrap();
    write(
        &dir.path().join("b.safetensors"),
        &stored.iter().map(|(n, t)| (n.clone(), t)).collect::<Vec<_>>(),
    );
    refused(&format!("tensor {first} is in both"));
    fs::write(dir.path().join("b.safetensors"), b).unwrap();
    fs::remove_file(dir.path().join("b.safetensors")).unwrap();
    assert!(matches!(load(dir.path()), Err(LoadError::NoShard(_))));
    fs::write(&index, json!({ "weight_map": { "x": "../b.safetensors" } }).to_string()).unwrap();
    assert!(matches!(load(dir.path()), Err(LoadError::Index { .. })));
    fs::write(&index, "{}").unwrap();
    assert!(matches!(load(dir.path()), Err(LoadError::Index { .. })));
}

#[test]
fn values_are_rounded_to_nearest_even() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.safetensors");
    // bf16 has 8 bits: 1 + 2^-8 is a tie (down to even), a little more is not.
    let values = [1.0 + 2f64.powi(-8), 1.0 + 2f64.powi(-8) + 2f64.powi(-23), -3.0, 1e-40];
    let types = [FloatType::F64, FloatType::F32, FloatType::F16, FloatType::Bf16];
    let entry = |dtype| Entry { name: format!("{dtype:?}"), dtype, shape: vec![2, 2] };
    let entries = types.map(entry);
    write_safetensors(&path, &[("a", "b")], &entries, |_, out| out.put(&values)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["a"], "b");
    let file = SafeFile::open(&path).unwrap();
    assert_eq!(file.names(), ["F64", "F32", "F16", "Bf16"]);
    let read = |name: &str| {
        let stored = file.get(name).unwrap().unwrap();
        let mut out = vec![0.0; stored.count()];
        stored.read(0, &mut out);
        assert_eq!(stored.shape, [2, 2]);
        out
    };
    assert_eq!(read("F64"), values);
    assert_eq!(read("F32")[..3], values[..3]);
    assert_eq!(read("F16"), [values[0], values[0], -3.0, 0.0]);
    assert_eq!(read("Bf16")[..3], [1.0, 1.0 + 2f64.powi(-7), -3.0]);
    assert!(file.get("absent").unwrap().is_none());
    assert_eq!(tensors(&path).len(), 4);
}

#[test]
fn a_value_beyond_its_type_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.safetensors");
    for (dtype, most, beyond) in [
        (FloatType::F64, f64::MAX, f64::MAX),
        (FloatType::F32, f64::from(f32::MAX), 3.5e38),
        (FloatType::F16, 65504.0, -65520.0),
        (FloatType::Bf16, 3.38e38, -3.4e38),
    ] {
        let entries = [Entry { name: "large".into(), dtype, shape: vec![3] }];
        let write = |value| {
            let values = [value, f64::INFINITY, f64::NAN];
            write_safetensors(&path, &[], &entries, |_, out| out.put(&values))
        };
        write(most).unwrap();
        if dtype != FloatType::F64 {
            let why = write(beyond).unwrap_err().to_string();
            assert!(why.contains("in tensor large is beyond "), "{why}");
        }
    }
}
