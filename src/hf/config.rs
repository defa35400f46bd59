//! `config.json` ⇄ [`Arch`].
//!
//! Read as transformers 4 and 5 write it: an absent key means the family's class default, keys
//! that change nothing are ignored, and what this engine cannot compute is refused by name. What
//! is written says things both ways where the versions differ (`dtype` and `torch_dtype`,
//! `rope_parameters` and `global_rope_theta`), and is read back before it is accepted: a model
//! that its family's keys cannot describe is an error, never a file that says something else.
//!
//! Two differences touch training only. ModernBERT drops its `mlp_dropout` before the MLP's last
//! product, and ALBERT has none after its MLP; here both are [`Dropouts::hidden`], after it.
//!
//! [`Dropouts::hidden`]: crate::model::arch::Dropouts::hidden

use serde_json::{Value, json};

use super::families as of;
use super::keys::Keys;
use super::safe::FloatType;
use super::task;
use crate::data::tokenizer::Specials;
use crate::model::arch::{Arch, ArchError, Family, Positions};

/// Why a `config.json` cannot be read, or a model cannot be described by one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("config.json is not a JSON object: replace it by the one the model came with")]
    NotAnObject,
    #[error(
        "config.json has no model_type: it must be gpt2, bert, roberta, albert, modernbert or \
         warpwright"
    )]
    NoModelType,
    #[error(
        "config.json: model_type {0} is not supported: use a gpt2, bert, roberta, albert, \
         modernbert or warpwright model"
    )]
    ModelType(String),
    #[error("config.json: {key} must be {want}, not {got}")]
    Type { key: String, want: &'static str, got: String },
    #[error("config.json: {key} = {got} is not supported: {supported}")]
    Unsupported { key: String, got: String, supported: String },
    #[error("config.json: layer_types has {got} entries for {layers} layers: make them agree")]
    LayerTypes { got: usize, layers: usize },
    #[error("config.json: the model under key \"warpwright\" cannot be read: {0}")]
    Custom(serde_json::Error),
    #[error("the model cannot be built: {0}")]
    Arch(#[from] ArchError),
    #[error(
        "a {family} config.json cannot say {field} = {value} (it would be read as {read}): change \
         {field}, or set family = \"custom\""
    )]
    Inexpressible { family: String, field: String, value: String, read: String },
    #[error("{name}_token_id {id} is beyond the vocabulary of {vocab}: check the tokenizer")]
    Id { name: &'static str, id: usize, vocab: usize },
    #[error(
        "RoBERTa counts positions from its pad id + 1, so with pad id {pad} the offset of learned \
         positions must be {}, not {offset}: change one of them", .pad + 1
    )]
    Pad { pad: usize, offset: usize },
}

/// The special tokens that a `config.json` names; `None` is written as null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialIds {
    pub bos: Option<usize>,
    pub eos: Option<usize>,
    pub pad: Option<usize>,
    pub cls: Option<usize>,
    pub sep: Option<usize>,
    pub mask: Option<usize>,
}

impl From<&Specials> for SpecialIds {
    fn from(specials: &Specials) -> Self {
        let id = |id: Option<u32>| id.map(|id| id as usize);
        SpecialIds {
            bos: id(specials.eot),
            eos: id(specials.eot),
            pad: id(specials.pad),
            cls: id(specials.cls),
            sep: id(specials.sep),
            mask: id(specials.mask),
        }
    }
}

impl SpecialIds {
    fn pairs(&self) -> [(&'static str, Option<usize>); 6] {
        [
            ("bos", self.bos),
            ("eos", self.eos),
            ("pad", self.pad),
            ("cls", self.cls),
            ("sep", self.sep),
            ("mask", self.mask),
        ]
    }
}

/// The special tokens that a `config.json` states; class defaults are not filled in. Of several
/// `eos_token_id`s, the first.
pub fn read_ids(config: &Value) -> SpecialIds {
    let id = |name: &str| {
        let value = config.get(format!("{name}_token_id"))?;
        let value = value.as_array().and_then(|list| list.first()).unwrap_or(value);
        value.as_u64().and_then(|n| usize::try_from(n).ok())
    };
    SpecialIds {
        bos: id("bos"),
        eos: id("eos"),
        pad: id("pad"),
        cls: id("cls"),
        sep: id("sep"),
        mask: id("mask"),
    }
}

/// The model that a `config.json` describes, canonical and valid.
///
/// `architectures` decides the head: a task's, a language model's with a sentence-pair head, or
/// else a language model's.
///
/// # Errors
/// An unknown `model_type`, a key of the wrong type, a setting that this engine does not compute,
/// or sizes that cannot be built.
pub fn read_config(config: &Value) -> Result<Arch, ConfigError> {
    let map = config.as_object().ok_or(ConfigError::NotAnObject)?;
    let keys = Keys(map);
    let kind = keys.get("model_type").ok_or(ConfigError::NoModelType)?;
    keys.must_be_absent("quantization_config")?;
    keys.must_be_absent("pruned_heads")?;
    keys.must_be("add_cross_attention", json!(false))?;
    keys.must_be("position_embedding_type", json!("absolute"))?;
    let arch = match kind.as_str() {
        Some("gpt2") => of::read_gpt2(&keys)?,
        Some("bert") => of::read_bert(&keys)?,
        Some("roberta") => of::read_roberta(&keys)?,
        Some("albert") => of::read_albert(&keys)?,
        Some("modernbert") => of::read_modernbert(&keys)?,
        Some("warpwright") => {
            let arch = map.get("warpwright").cloned().unwrap_or(Value::Null);
            let arch = serde_json::from_value(arch).map_err(ConfigError::Custom)?;
            Arch { family: Family::Custom, ..arch }
        }
        _ => return Err(ConfigError::ModelType(kind.to_string())),
    };
    let arch = match task::read(&keys, &arch)? {
        Some(task) => arch.for_task(task),
        None => arch,
    };
    arch.validate()?;
    Ok(arch.canonical())
}

/// The `config.json` of a model whose weights are stored as `dtype`.
///
/// # Errors
/// A model that cannot be built, or that its family's keys cannot describe; a special token beyond
/// the vocabulary; a RoBERTa whose pad id and position offset disagree.
pub fn write_config(arch: &Arch, ids: &SpecialIds, dtype: FloatType) -> Result<Value, ConfigError> {
    arch.validate()?;
    let mut ids = *ids;
    if let (Family::Roberta, Positions::Learned { offset }) = (arch.family, arch.positions) {
        let pad = *ids.pad.get_or_insert(offset.saturating_sub(1));
        if pad + 1 != offset {
            return Err(ConfigError::Pad { pad, offset });
        }
    }
    let (kind, class, mut map) = match arch.family {
        Family::Gpt2 => ("gpt2", "GPT2LMHeadModel", of::gpt2_keys(arch)),
        Family::Bert if arch.pair => ("bert", "BertForPreTraining", of::bert_keys(arch)),
        Family::Bert => ("bert", "BertForMaskedLM", of::bert_keys(arch)),
        Family::Roberta => ("roberta", "RobertaForMaskedLM", of::roberta_keys(arch)),
        Family::Albert if arch.pair => ("albert", "AlbertForPreTraining", of::albert_keys(arch)),
        Family::Albert => ("albert", "AlbertForMaskedLM", of::albert_keys(arch)),
        Family::Modernbert => ("modernbert", "ModernBertForMaskedLM", of::modernbert_keys(arch)),
        Family::Custom => ("warpwright", "Warpwright", of::custom_keys(arch)),
    };
    let class = match &arch.task {
        Some(task) => {
            map.extend(task::keys(arch, task));
            task::class(arch.family, task.kind)
        }
        None => class.into(),
    };
    for (name, id) in ids.pairs() {
        if let Some(id) = id.filter(|&id| id >= arch.vocab) {
            return Err(ConfigError::Id { name, id, vocab: arch.vocab });
        }
        map.insert(format!("{name}_token_id"), json!(id));
    }
    map.insert("model_type".into(), json!(kind));
    map.insert("architectures".into(), json!([class]));
    map.insert("tie_word_embeddings".into(), json!(arch.tied));
    map.insert("initializer_range".into(), json!(arch.init_std));
    // transformers 5 reads the first, 4 up to 4.55 the second.
    map.insert("dtype".into(), json!(dtype.torch_name()));
    map.insert("torch_dtype".into(), json!(dtype.torch_name()));
    map.sort_keys();
    let config = Value::Object(map);
    same(kind, &arch.canonical(), &read_config(&config)?)?;
    Ok(config)
}

/// Whether the family's own `config.json` can describe this model; `Family::Custom` always can.
pub fn fits_family(arch: &Arch) -> bool {
    write_config(arch, &SpecialIds::default(), FloatType::F32).is_ok()
}

/// Fails with the first field that reading back did not return.
fn same(family: &str, written: &Arch, read: &Arch) -> Result<(), ConfigError> {
    let fields = |arch: &Arch| match serde_json::to_value(arch) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("an Arch is a JSON object, got {other:?}"),
    };
    let read = fields(read);
    for (field, value) in fields(written) {
        if read.get(&field) != Some(&value) {
            let read = read.get(&field).unwrap_or(&Value::Null).to_string();
            let (family, value) = (family.to_string(), value.to_string());
            return Err(ConfigError::Inexpressible { family, field, value, read });
        }
    }
    Ok(())
}
