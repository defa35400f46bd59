//! The keys of each family's `config.json`, read and written side by side.
//!
//! Class defaults are those of transformers' configuration classes, not of the published models.

use serde_json::{Map, Value, json};

use super::config::ConfigError;
use super::keys::{Keys, activation_name, unsupported};
use crate::model::arch::{Arch, Dropouts, Family, Head, Placement, Positions};
use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => unreachable!("keys are written as an object, not {other}"),
    }
}

// ---- GPT-2 --------------------------------------------------------------------------------------

pub(super) fn read_gpt2(k: &Keys) -> Result<Arch, ConfigError> {
    k.must_be("scale_attn_weights", json!(true))?;
    k.must_be("scale_attn_by_inverse_layer_idx", json!(false))?;
    let width = k.usize("n_embd", 768)?;
    let layers = k.usize("n_layer", 12)?;
    Ok(Arch {
        family: Family::Gpt2,
        vocab: k.usize("vocab_size", 50257)?,
        width,
        embed_width: width,
        layers,
        heads: k.usize("n_head", 12)?,
        inner: k.usize("n_inner", width.saturating_mul(4))?,
        context: k.usize("n_positions", 1024)?,
        token_types: 0,
        positions: Positions::Learned { offset: 0 },
        norm: NormKind::Layer,
        norm_bias: true,
        eps: k.f64("layer_norm_epsilon", 1e-5)?,
        placement: Placement::Pre,
        embed_norm: false,
        first_norm: true,
        activation: k.activation("activation_function", Activation::GeluTanh)?,
        gated: false,
        bias: true,
        causal: true,
        window: None,
        global_every: 1,
        groups: layers,
        group_depth: 1,
        tied: k.bool("tie_word_embeddings", true)?,
        head: Head::Plain,
        head_activation: Activation::Gelu,
        head_bias: false,
        decoder_bias: false,
        pair: false,
        task: None,
        dropout: Dropouts {
            embed: k.f64("embd_pdrop", 0.1)?,
            hidden: k.f64("resid_pdrop", 0.1)?,
            attention: k.f64("attn_pdrop", 0.1)?,
        },
        init_std: k.f64("initializer_range", 0.02)?,
    })
}

pub(super) fn gpt2_keys(arch: &Arch) -> Map<String, Value> {
    object(json!({
        "vocab_size": arch.vocab,
        "n_embd": arch.width,
        "n_layer": arch.layers,
        "n_head": arch.heads,
        "n_inner": arch.inner,
        "n_positions": arch.context,
        "n_ctx": arch.context,
        "layer_norm_epsilon": arch.eps,
        "activation_function": activation_name(arch.activation),
        "embd_pdrop": arch.dropout.embed,
        "resid_pdrop": arch.dropout.hidden,
        "attn_pdrop": arch.dropout.attention,
    }))
}

// ---- BERT, RoBERTa, ALBERT ----------------------------------------------------------------------

/// What the three classes assume where a key is absent.
struct EncoderDefaults {
    vocab: usize,
    width: usize,
    heads: usize,
    inner: usize,
    activation: Activation,
    dropout: f64,
}

/// What BERT, RoBERTa and ALBERT configs have in common, as a BERT.
fn read_encoder(k: &Keys, default: EncoderDefaults) -> Result<Arch, ConfigError> {
    k.must_be("is_decoder", json!(false))?;
    let width = k.usize("hidden_size", default.width)?;
    let layers = k.usize("num_hidden_layers", 12)?;
    let activation = k.activation("hidden_act", default.activation)?;
    let hidden = k.f64("hidden_dropout_prob", default.dropout)?;
    let token_types = k.usize("type_vocab_size", 2)?;
    if token_types == 0 {
        return Err(unsupported("type_vocab_size", &json!(0), "these families need at least 1"));
    }
    Ok(Arch {
        family: Family::Bert,
        vocab: k.usize("vocab_size", default.vocab)?,
        width,
        embed_width: width,
        layers,
        heads: k.usize("num_attention_heads", default.heads)?,
        inner: k.usize("intermediate_size", default.inner)?,
        context: k.usize("max_position_embeddings", 512)?,
        token_types,
        positions: Positions::Learned { offset: 0 },
        norm: NormKind::Layer,
        norm_bias: true,
        eps: k.f64("layer_norm_eps", 1e-12)?,
        placement: Placement::Post,
        embed_norm: true,
        first_norm: true,
        activation,
        gated: false,
        bias: true,
        causal: false,
        window: None,
        global_every: 1,
        groups: layers,
        group_depth: 1,
        tied: k.bool("tie_word_embeddings", true)?,
        head: Head::Transform,
        head_activation: activation,
        head_bias: true,
        decoder_bias: true,
        task: None,
        pair: k.is_one_of(&["BertForPreTraining", "BertForNextSentencePrediction"]),
        dropout: Dropouts {
            embed: hidden,
            hidden,
            attention: k.f64("attention_probs_dropout_prob", default.dropout)?,
        },
        init_std: k.f64("initializer_range", 0.02)?,
    })
}

fn encoder_defaults(vocab: usize) -> EncoderDefaults {
    let activation = Activation::Gelu;
    EncoderDefaults { vocab, width: 768, heads: 12, inner: 3072, activation, dropout: 0.1 }
}

pub(super) fn read_bert(k: &Keys) -> Result<Arch, ConfigError> {
    read_encoder(k, encoder_defaults(30522))
}

pub(super) fn read_roberta(k: &Keys) -> Result<Arch, ConfigError> {
    let arch = read_encoder(k, encoder_defaults(50265))?;
    // Positions are counted from pad id + 1, and the table has room for those rows too.
    let offset = k.usize("pad_token_id", 1)?.saturating_add(1);
    let rows = arch.context;
    let Some(context) = rows.checked_sub(offset).filter(|&n| n > 0) else {
        let wanted = format!("it must be more than pad_token_id + 1 = {offset}");
        return Err(unsupported("max_position_embeddings", &json!(rows), &wanted));
    };
    Ok(Arch {
        family: Family::Roberta,
        context,
        positions: Positions::Learned { offset },
        head_activation: Activation::Gelu,
        pair: false,
        ..arch
    })
}

pub(super) fn read_albert(k: &Keys) -> Result<Arch, ConfigError> {
    let default = EncoderDefaults {
        vocab: 30000,
        width: 4096,
        heads: 64,
        inner: 16384,
        activation: Activation::GeluTanh,
        dropout: 0.0,
    };
    let arch = read_encoder(k, default)?;
    let embed_width = k.usize("embedding_size", 128)?;
    if embed_width == arch.width {
        let why = "it must differ from hidden_size, since equal widths have no projection here";
        return Err(unsupported("embedding_size", &json!(embed_width), why));
    }
    // `num_hidden_layers` counts passes through a group, each of `inner_group_num` blocks.
    let group_depth = k.usize("inner_group_num", 1)?;
    Ok(Arch {
        family: Family::Albert,
        embed_width,
        layers: arch.layers.saturating_mul(group_depth),
        groups: k.usize("num_hidden_groups", 1)?,
        group_depth,
        pair: k.is_one_of(&["AlbertForPreTraining"]),
        ..arch
    })
}

pub(super) fn bert_keys(arch: &Arch) -> Map<String, Value> {
    object(json!({
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads,
        "intermediate_size": arch.inner,
        "hidden_act": activation_name(arch.activation),
        "hidden_dropout_prob": arch.dropout.hidden,
        "attention_probs_dropout_prob": arch.dropout.attention,
        "max_position_embeddings": arch.context,
        "type_vocab_size": arch.token_types,
        "layer_norm_eps": arch.eps,
    }))
}

pub(super) fn roberta_keys(arch: &Arch) -> Map<String, Value> {
    let mut map = bert_keys(arch);
    let offset = match arch.positions {
        Positions::Learned { offset } => offset,
        Positions::Rotary { .. } => 0, // refused when read back
    };
    map.insert("max_position_embeddings".into(), json!(arch.context + offset));
    map
}

pub(super) fn albert_keys(arch: &Arch) -> Map<String, Value> {
    let mut map = bert_keys(arch);
    map.insert("embedding_size".into(), json!(arch.embed_width));
    map.insert("num_hidden_layers".into(), json!(arch.layers / arch.group_depth));
    map.insert("num_hidden_groups".into(), json!(arch.groups));
    map.insert("inner_group_num".into(), json!(arch.group_depth));
    map
}

// ---- ModernBERT ---------------------------------------------------------------------------------

pub(super) fn read_modernbert(k: &Keys) -> Result<Arch, ConfigError> {
    let width = k.usize("hidden_size", 768)?;
    let layers = k.usize("num_hidden_layers", 22)?;
    let bias = k.bool("attention_bias", false)?;
    k.must_be("mlp_bias", json!(bias))?;
    let window = k.usize("local_attention", 128)? / 2;
    Ok(Arch {
        family: Family::Modernbert,
        vocab: k.usize("vocab_size", 50368)?,
        width,
        embed_width: width,
        layers,
        heads: k.usize("num_attention_heads", 12)?,
        inner: k.usize("intermediate_size", 1152)?,
        context: k.usize("max_position_embeddings", 8192)?,
        token_types: 0,
        positions: read_rotary(k)?,
        norm: NormKind::Layer,
        norm_bias: k.bool("norm_bias", false)?,
        eps: k.f64("norm_eps", 1e-5)?,
        placement: Placement::Pre,
        embed_norm: true,
        first_norm: false,
        activation: k.activation("hidden_activation", Activation::Gelu)?,
        gated: true,
        bias,
        causal: false,
        window: Some(window),
        global_every: read_global_every(k, layers)?,
        groups: layers,
        group_depth: 1,
        tied: k.bool("tie_word_embeddings", true)?,
        head: Head::Transform,
        head_activation: k.activation("classifier_activation", Activation::Gelu)?,
        head_bias: k.bool("classifier_bias", false)?,
        decoder_bias: k.bool("decoder_bias", true)?,
        pair: false,
        task: None,
        dropout: Dropouts {
            embed: k.f64("embedding_dropout", 0.0)?,
            hidden: k.f64("mlp_dropout", 0.0)?,
            attention: k.f64("attention_dropout", 0.0)?,
        },
        init_std: k.f64("initializer_range", 0.02)?,
    })
}

/// The two bases: in `rope_parameters` (transformers 5), or keys of their own (4), where a null
/// local base means the global one.
fn read_rotary(k: &Keys) -> Result<Positions, ConfigError> {
    k.must_be_absent("rope_scaling")?;
    let theta = k.f64("global_rope_theta", 160_000.0)?;
    let local = match k.0.get("local_rope_theta") {
        Some(Value::Null) => theta,
        _ => k.f64("local_rope_theta", 10_000.0)?,
    };
    let of = |kind: &str, old: f64| {
        let nested = k.get("rope_parameters").and_then(|p| p.get(kind)).and_then(Value::as_object);
        let Some(nested) = nested else { return Ok(old) };
        Keys(nested).must_be("rope_type", json!("default"))?;
        Keys(nested).f64("rope_theta", old)
    };
    Ok(Positions::Rotary {
        theta: of("full_attention", theta)?,
        local_theta: of("sliding_attention", local)?,
    })
}

/// The n of "layer i is global iff i % n == 0": from `layer_types` where there is such a list
/// (transformers 5), else from `global_attn_every_n_layers` (4).
fn read_global_every(k: &Keys, layers: usize) -> Result<usize, ConfigError> {
    let every = k.usize("global_attn_every_n_layers", 3)?;
    let Some(value) = k.get("layer_types") else { return Ok(every) };
    let types = value.as_array().map_or(&[][..], Vec::as_slice);
    if types.len() != layers {
        return Err(ConfigError::LayerTypes { got: types.len(), layers });
    }
    let fits = |n: &usize| {
        let kind =
            |i: usize| if i.is_multiple_of(*n) { "full_attention" } else { "sliding_attention" };
        *n > 0 && types.iter().enumerate().all(|(i, t)| t.as_str() == Some(kind(i)))
    };
    // The key first: of the numbers that fit a short list, it is the one that was meant.
    std::iter::once(every).chain(1..=layers).find(fits).ok_or_else(|| {
        let supported = "full_attention on every n-th layer from the first, sliding_attention on \
             the others";
        unsupported("layer_types", value, supported)
    })
}

pub(super) fn modernbert_keys(arch: &Arch) -> Map<String, Value> {
    let (theta, local_theta) = match arch.positions {
        Positions::Rotary { theta, local_theta } => (theta, local_theta),
        Positions::Learned { .. } => (0.0, 0.0), // refused when read back
    };
    let kind = |l| if arch.window_of(l).is_some() { "sliding_attention" } else { "full_attention" };
    let layer_types: Vec<&str> = (0..arch.layers).map(kind).collect();
    object(json!({
        "vocab_size": arch.vocab,
        "hidden_size": arch.width,
        "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads,
        "intermediate_size": arch.inner,
        "max_position_embeddings": arch.context,
        "hidden_activation": activation_name(arch.activation),
        "classifier_activation": activation_name(arch.head_activation),
        "norm_eps": arch.eps,
        "norm_bias": arch.norm_bias,
        "attention_bias": arch.bias,
        "mlp_bias": arch.bias,
        "classifier_bias": arch.head_bias,
        "decoder_bias": arch.decoder_bias,
        "embedding_dropout": arch.dropout.embed,
        "mlp_dropout": arch.dropout.hidden,
        "attention_dropout": arch.dropout.attention,
        // With no window, every layer is global and this is not used.
        "local_attention": 2 * arch.window.unwrap_or(64),
        "global_attn_every_n_layers": arch.global_every,
        "global_rope_theta": theta,
        "local_rope_theta": local_theta,
        "layer_types": layer_types,
        "rope_parameters": {
            "full_attention": { "rope_type": "default", "rope_theta": theta },
            "sliding_attention": { "rope_type": "default", "rope_theta": local_theta },
        },
    }))
}

// ---- our own ------------------------------------------------------------------------------------

pub(super) fn custom_keys(arch: &Arch) -> Map<String, Value> {
    object(json!({ "warpwright": arch }))
}
