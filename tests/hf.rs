//! Hugging Face directories: configs of every family and version, real files byte by byte, and one
//! test per way a directory can be wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;
use warpwright::hf::{
    ConfigError, Entry, FloatType, LoadError, ModelDir, SafeError, SafeFile, SaveError, SpecialIds,
    fits_family, pieces, read_config, read_ids, save_model, write_config, write_safetensors,
};
use warpwright::model::arch::{Arch, Family, Head, Placement, Positions};
use warpwright::model::families::{PRESETS, preset};
use warpwright::model::params::{Layout, Param, ParamTable};
use warpwright::ops::activation::Activation;
use warpwright::ops::norm::NormKind;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn table(arch: &Arch) -> ParamTable {
    Layout::new(arch).table
}

/// Values that f32, f16 and bf16 all hold exactly, a different one at every place nearby.
fn arena(table: &ParamTable) -> Vec<f64> {
    (0..table.arena_len).map(|i| (i * 37 % 251) as f64 / 8.0 - 15.0).collect()
}

fn from(arena: &[f64]) -> impl FnMut(&Param, usize, &mut [f64]) {
    |param, start, out| out.copy_from_slice(&arena[param.span.start + start..][..out.len()])
}

fn save(dir: &Path, arch: &Arch, dtype: FloatType, arena: &[f64]) {
    save_model(dir, arch, &SpecialIds::default(), dtype, &table(arch), from(arena)).unwrap();
}

/// The directory's parameters in an arena of zeros, and the report.
fn load(dir: &Path) -> Result<(Vec<f64>, warpwright::hf::LoadReport), LoadError> {
    let model = ModelDir::open(dir)?;
    let table = table(&model.arch);
    let mut arena = vec![0.0; table.arena_len];
    let report = model.load(&table, |param, start, values| {
        arena[param.span.start + start..][..values.len()].copy_from_slice(values)
    })?;
    Ok((arena, report))
}

/// The arena as a load must return it: gaps at zero.
fn without_gaps(table: &ParamTable, arena: &[f64]) -> Vec<f64> {
    let mut clean = vec![0.0; arena.len()];
    table.params.iter().for_each(|p| clean[p.span.range()].copy_from_slice(&arena[p.span.range()]));
    clean
}

/// A small model of each family and of each variation that changes names or shapes.
fn variants() -> Vec<Arch> {
    let small = |name: &str| Arch { vocab: 40, context: 12, ..preset(name).unwrap() };
    let tied = |arch: &Arch| Arch { tied: false, ..arch.clone() };
    let tiny = ["gpt2-tiny", "bert-tiny", "roberta-tiny", "albert-tiny", "modernbert-tiny"];
    let mut all: Vec<Arch> = tiny.iter().map(|name| small(name)).collect();
    all.extend(tiny.iter().map(|name| tied(&small(name))));
    all.push(Arch { pair: true, ..small("bert-tiny") });
    let albert = small("albert-tiny");
    all.push(Arch { pair: true, groups: 3, group_depth: 2, layers: 14, ..albert });
    let modern = small("modernbert-tiny");
    all.push(Arch { bias: true, norm_bias: true, head_bias: true, ..modern.clone() });
    all.push(Arch { decoder_bias: false, window: None, global_every: 1, ..modern }.canonical());
    let family = Family::Custom;
    all.push(Arch { family, norm: NormKind::Rms, gated: true, ..small("gpt2-tiny") }.canonical());
    all
}

// ---- config.json --------------------------------------------------------------------------------

#[test]
fn every_preset_and_variant_comes_back_from_its_config() {
    let presets = PRESETS.iter().map(|(name, _)| preset(name).unwrap());
    for arch in presets.chain(variants()) {
        let config = write_config(&arch, &SpecialIds::default(), FloatType::Bf16).unwrap();
        assert_eq!(read_config(&config).unwrap(), arch);
        assert!(fits_family(&arch));
        // And through text, where floats must survive.
        let odd = Arch { eps: 1.0 / 3e5, init_std: 1.0 / 768f64.sqrt(), ..arch };
        let config = write_config(&odd, &SpecialIds::default(), FloatType::F32).unwrap();
        let text: Value = serde_json::from_str(&config.to_string()).unwrap();
        assert_eq!(read_config(&text).unwrap(), odd);
    }
}

#[test]
fn configs_of_transformers_4_and_5_are_the_presets() {
    for version in ["4.48.3", "4.57.6", "5.23.0"] {
        for (file, name) in [
            ("gpt2", "gpt2"),
            ("bert-base-uncased", "bert-base"),
            ("roberta-base", "roberta-base"),
            ("albert-base-v2", "albert-base"),
            ("modernbert-base", "modernbert-base"),
        ] {
            let path = golden().join(format!("configs/transformers-{version}/{file}.json"));
            let arch = read_config(&read(&path)).unwrap();
            assert_eq!(arch, preset(name).unwrap(), "{}", path.display());
        }
    }
}

#[test]
fn absent_keys_take_the_class_defaults() {
    let arch = |kind: &str| read_config(&json!({ "model_type": kind })).unwrap();
    assert_eq!(arch("gpt2"), preset("gpt2").unwrap());
    assert_eq!(arch("bert"), preset("bert-base").unwrap());
    assert_eq!(arch("modernbert"), preset("modernbert-base").unwrap());
    let roberta = preset("roberta-base").unwrap();
    assert_eq!(arch("roberta"), Arch { eps: 1e-12, token_types: 2, context: 510, ..roberta });
    let xxlarge = Arch { width: 4096, heads: 64, inner: 16384, ..preset("albert-base").unwrap() };
    assert_eq!(arch("albert"), xxlarge);
}

#[test]
fn modernbert_says_its_layers_and_bases_in_two_ways() {
    let read = |extra: Value| {
        let mut config = json!({ "model_type": "modernbert", "num_hidden_layers": 4 });
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        read_config(&config)
    };
    let (full, local) = ("full_attention", "sliding_attention");
    let old = read(json!({
        "global_attn_every_n_layers": 2, "global_rope_theta": 5e4, "local_rope_theta": null,
        "local_attention": 32,
    }));
    let new = read(json!({
        "layer_types": [full, local, full, local], "local_attention": 32,
        "rope_parameters": {
            full: { "rope_type": "default", "rope_theta": 5e4 },
            local: { "rope_type": "default", "rope_theta": 5e4 },
        },
    }));
    let arch = old.unwrap();
    assert_eq!((arch.window, arch.global_every), (Some(16), 2));
    assert_eq!(arch.positions, Positions::Rotary { theta: 5e4, local_theta: 5e4 });
    assert_eq!(new.unwrap(), arch);
    let all_global = read(json!({ "layer_types": [full, full, full, full] })).unwrap();
    assert_eq!((all_global.window, all_global.global_every), (None, 1));
    let odd = read(json!({ "layer_types": [full, full, local, local] }));
    assert!(matches!(odd, Err(ConfigError::Unsupported { key, .. }) if key == "layer_types"));
    let short = read(json!({ "layer_types": [full] }));
    assert!(matches!(short, Err(ConfigError::LayerTypes { got: 1, layers: 4 })));
    let yarn = json!({ "rope_parameters": { full: { "rope_type": "yarn", "rope_theta": 1e4 } } });
    assert!(matches!(read(yarn), Err(ConfigError::Unsupported { key, .. }) if key == "rope_type"));
}

#[test]
fn what_cannot_be_computed_is_refused_by_name() {
    for (kind, key, value) in [
        ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true)),
        ("gpt2", "scale_attn_weights", json!(false)),
        ("gpt2", "activation_function", json!("relu")),
        ("gpt2", "add_cross_attention", json!(true)),
        ("bert", "is_decoder", json!(true)),
        ("bert", "position_embedding_type", json!("relative_key")),
        ("bert", "hidden_act", json!("relu")),
        ("bert", "type_vocab_size", json!(0)),
        ("bert", "quantization_config", json!({ "bits": 4 })),
        ("bert", "pruned_heads", json!({ "1": [0] })),
        ("roberta", "max_position_embeddings", json!(2)),
        ("albert", "embedding_size", json!(4096)),
        ("modernbert", "mlp_bias", json!(true)),
        ("modernbert", "rope_scaling", json!({ "factor": 2.0 })),
    ] {
        let error = read_config(&json!({ "model_type": kind, key: value })).unwrap_err();
        assert!(matches!(&error, ConfigError::Unsupported { key: k, .. } if k == key), "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
    let error = read_config(&json!({ "model_type": "gpt2", "n_embd": "wide" })).unwrap_err();
    assert_eq!(error.to_string(), "config.json: n_embd must be a whole number, not \"wide\"");
    let error = read_config(&json!({ "model_type": "gpt2", "n_head": 7 })).unwrap_err();
    assert!(matches!(error, ConfigError::Arch(_)), "{error}");
    assert!(matches!(read_config(&json!([])), Err(ConfigError::NotAnObject)));
    assert!(matches!(read_config(&json!({})), Err(ConfigError::NoModelType)));
    let t5 = read_config(&json!({ "model_type": "t5" }));
    assert!(matches!(t5, Err(ConfigError::ModelType(_))));
    let custom = read_config(&json!({ "model_type": "warpwright", "warpwright": { "vocab": 1 } }));
    assert!(matches!(custom, Err(ConfigError::Custom(_))));
}

#[test]
fn a_switch_that_the_family_cannot_say_is_refused_at_write() {
    let of = |name: &str| preset(name).unwrap();
    for (field, arch) in [
        ("gated", Arch { gated: true, ..of("gpt2-tiny") }),
        ("norm", Arch { norm: NormKind::Rms, ..of("gpt2-tiny") }),
        ("token_types", Arch { token_types: 2, ..of("gpt2-tiny") }),
        ("head", Arch { head: Head::Transform, ..of("gpt2-tiny") }),
        ("placement", Arch { placement: Placement::Pre, ..of("bert-tiny") }),
        ("bias", Arch { bias: false, ..of("bert-tiny") }),
        ("causal", Arch { causal: true, ..of("bert-tiny") }),
        ("groups", Arch { groups: 1, ..of("bert-tiny") }),
        ("head_activation", Arch { head_activation: Activation::Silu, ..of("bert-tiny") }),
        ("pair", Arch { pair: true, ..of("roberta-tiny") }),
        ("pair", Arch { pair: true, ..of("modernbert-tiny") }),
        ("first_norm", Arch { first_norm: true, ..of("modernbert-tiny") }),
        ("window", Arch { window: Some(8), global_every: 3, ..of("albert-tiny") }),
    ] {
        let error = write_config(&arch, &SpecialIds::default(), FloatType::F32).unwrap_err();
        let named = matches!(&error, ConfigError::Inexpressible { field: f, .. } if f == field);
        assert!(named, "{field}: {error}");
        assert!(!fits_family(&arch));
        assert!(fits_family(&Arch { family: Family::Custom, ..arch }));
    }
    // What a plain head's activation would be makes no difference.
    assert!(fits_family(&Arch { head_activation: Activation::Silu, ..of("gpt2-tiny") }));
}

#[test]
fn special_tokens_are_written_and_checked() {
    let arch = preset("roberta-tiny").unwrap();
    let ids = SpecialIds { bos: Some(0), pad: Some(1), mask: Some(4), ..Default::default() };
    let config = write_config(&arch, &ids, FloatType::F32).unwrap();
    assert_eq!(read_ids(&config), ids);
    // Null, not absent: an absent pad id would be the class default, perhaps beyond the vocabulary.
    assert_eq!(config.get("eos_token_id"), Some(&Value::Null));
    let default = write_config(&arch, &SpecialIds::default(), FloatType::F32).unwrap();
    assert_eq!(read_ids(&default).pad, Some(1));
    let pad = SpecialIds { pad: Some(0), ..ids };
    let error = write_config(&arch, &pad, FloatType::F32).unwrap_err();
    assert!(matches!(error, ConfigError::Pad { pad: 0, offset: 2 }), "{error}");
    let beyond = SpecialIds { mask: Some(2048), ..ids };
    let error = write_config(&arch, &beyond, FloatType::F32).unwrap_err();
    assert!(matches!(error, ConfigError::Id { name: "mask", id: 2048, vocab: 2048 }), "{error}");
    let list = read_ids(&json!({ "eos_token_id": [7, 8] }));
    assert_eq!(list.eos, Some(7));
}

// ---- weights ------------------------------------------------------------------------------------

type Tensor = (safetensors::Dtype, Vec<usize>, Vec<u8>);
type Tensors = BTreeMap<String, Tensor>;

/// A file as the safetensors crate reads it.
fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, t): (&str, safetensors::tensor::TensorView)| {
        (name.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))
    };
    file.iter().map(tensor).collect()
}

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
        let names: std::collections::BTreeSet<_> = pieces.iter().map(|p| &p.name).collect();
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

/// Rewrites a directory's tensors under other names; `None` leaves one out.
fn rename(dir: &Path, to: impl Fn(&str) -> Option<String>) {
    let path = dir.join("model.safetensors");
    let stored = tensors(&path);
    let stored: Vec<_> = stored.iter().filter_map(|(n, t)| Some((to(n)?, t))).collect();
    write(&path, &stored);
}

fn write(path: &Path, stored: &[(String, &Tensor)]) {
    let entry = |(name, t): &(String, &Tensor)| {
        let (name, shape) = (name.clone(), t.1.clone());
        Entry { name, dtype: FloatType::F32, shape }
    };
    let entries: Vec<Entry> = stored.iter().map(entry).collect();
    write_safetensors(path, &[], &entries, |i, out| {
        let value = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap()) as f64;
        out.put(&stored[i].1.2.chunks(4).map(value).collect::<Vec<_>>())
    })
    .unwrap();
}

/// A saved `variants()`-like model, its arena, and its folder.
fn saved(name: &str) -> (TempDir, Vec<f64>) {
    let arch = Arch { vocab: 40, context: 12, ..preset(name).unwrap() };
    let table = table(&arch);
    let arena = without_gaps(&table, &arena(&table));
    let dir = TempDir::new().unwrap();
    save(dir.path(), &arch, FloatType::F32, &arena);
    (dir, arena)
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
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert!(load(dir.path()).unwrap().0 == arena);
    fs::remove_file(dir.path().join("b.safetensors")).unwrap();
    assert!(matches!(load(dir.path()), Err(LoadError::NoShard(_))));
    fs::write(&index, json!({ "weight_map": { "x": "../b.safetensors" } }).to_string()).unwrap();
    assert!(matches!(load(dir.path()), Err(LoadError::Index { .. })));
    fs::write(&index, "{}").unwrap();
    assert!(matches!(load(dir.path()), Err(LoadError::Index { .. })));
}

// ---- a folder that is wrong ---------------------------------------------------------------------

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
    let put = |_, out: &mut warpwright::hf::TensorWriter| out.put(&[0.0; 4]);
    let error = write_safetensors(Path::new("/dev/full"), &[], &entries, put).unwrap_err();
    assert!(matches!(error, SafeError::Full { .. }), "{error}");
}

// ---- the format itself --------------------------------------------------------------------------

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
    let file = SafeFile::open(&path).unwrap();
    assert_eq!(file.metadata("a"), Some("b"));
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
