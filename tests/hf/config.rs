//! `config.json`: every family and version, and what is refused.

use serde_json::{Value, json};
use warpwright::hf::{
    ConfigError, FloatType, SpecialIds, classifier_dropout, fits_family, read_config, read_ids,
    write_config,
};
use warpwright::model::arch::{Arch, Family, Head, Placement, Positions, TaskKind};
use warpwright::model::families::{PRESETS, preset};
use warpwright::ops::activation::Activation;
use warpwright::ops::norm::NormKind;

use super::{golden, read, variants};

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
    for key in ["vocab_size", "n_embd", "n_layer", "n_positions", "num_labels"] {
        let class = ["GPT2ForSequenceClassification"];
        let huge = json!({ "model_type": "gpt2", "architectures": class, key: 1u64 << 40 });
        let error = read_config(&huge).unwrap_err().to_string();
        assert!(error.contains("1099511627776") && error.contains("at most"), "{error}");
    }
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

/// What transformers' class makes of a pretrained model's config, by its defaults and its keys.
#[test]
fn a_classifier_s_dropout_is_the_config_s() {
    use TaskKind::{Classes, Spans, Tokens};
    let of = |config: &Value, kind| {
        classifier_dropout(config, &read_config(config).unwrap(), kind).unwrap()
    };
    for (model, key, kind, own) in [
        ("bert", "classifier_dropout", Classes, Some(0.2)),
        ("roberta", "classifier_dropout", Tokens, Some(0.2)),
        ("albert", "classifier_dropout_prob", Classes, Some(0.1)),
        ("modernbert", "classifier_dropout", Spans, Some(0.0)),
        ("gpt2", "classifier_dropout", Tokens, Some(0.1)),
        ("gpt2", "classifier_dropout", Classes, None),
        ("bert", "classifier_dropout", Spans, None),
    ] {
        let mut config = json!({"model_type": model, "hidden_dropout_prob": 0.2});
        assert_eq!(of(&config, kind), own, "{model} {kind:?}");
        config[key] = json!(0.4);
        assert_eq!(of(&config, kind), own.map(|_| 0.4), "{model} {kind:?}");
        config[key] = Value::Null;
        assert_eq!(of(&config, kind), own, "{model} {kind:?}");
    }
}
