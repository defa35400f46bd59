//! Our parameters and the families' tensors.
//!
//! One of our tensors is one or several of theirs, row by row: `qkv.weight` [3C, C] is BERT's
//! query, key and value; GPT-2's products are the same values stored as [in, out]. The tables
//! below are all there is to it: `*` stands for the block (for ALBERT: group, then layer in the
//! group), a name given twice is divided equally among the tensors it lists, and `.weight` and
//! `.bias` of a module follow it. Names are those that `save_pretrained` writes.

use std::ops::Range;

use crate::model::arch::{Arch, Family, TaskKind};
use crate::model::params::{Param, ParamTable};

/// A stored tensor, and the part of a parameter that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The tensor's name in `model.safetensors`.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<usize>,
    /// Which parameter of the table it belongs to.
    pub param: usize,
    /// The rows of the parameter, [n_out, n_in] or [n], that it holds.
    pub rows: Range<usize>,
    /// Whether it is stored as [n_in, n_out] (GPT-2's `Conv1D`).
    pub transposed: bool,
}

/// Ours, theirs.
type Names = [(&'static str, &'static str)];

const GPT2: &Names = &[
    ("embed.tokens", "transformer.wte.weight"),
    ("embed.positions", "transformer.wpe.weight"),
    ("layers.*.attn_norm", "transformer.h.*.ln_1"),
    ("layers.*.qkv", "transformer.h.*.attn.c_attn"),
    ("layers.*.attn_out", "transformer.h.*.attn.c_proj"),
    ("layers.*.mlp_norm", "transformer.h.*.ln_2"),
    ("layers.*.fc", "transformer.h.*.mlp.c_fc"),
    ("layers.*.mlp_out", "transformer.h.*.mlp.c_proj"),
    ("final_norm", "transformer.ln_f"),
    ("decoder.weight", "lm_head.weight"),
];

const BERT: &Names = &[
    ("embed.tokens", "bert.embeddings.word_embeddings.weight"),
    ("embed.positions", "bert.embeddings.position_embeddings.weight"),
    ("embed.types", "bert.embeddings.token_type_embeddings.weight"),
    ("embed.norm", "bert.embeddings.LayerNorm"),
    ("layers.*.qkv", "bert.encoder.layer.*.attention.self.query"),
    ("layers.*.qkv", "bert.encoder.layer.*.attention.self.key"),
    ("layers.*.qkv", "bert.encoder.layer.*.attention.self.value"),
    ("layers.*.attn_out", "bert.encoder.layer.*.attention.output.dense"),
    ("layers.*.attn_norm", "bert.encoder.layer.*.attention.output.LayerNorm"),
    ("layers.*.fc", "bert.encoder.layer.*.intermediate.dense"),
    ("layers.*.mlp_out", "bert.encoder.layer.*.output.dense"),
    ("layers.*.mlp_norm", "bert.encoder.layer.*.output.LayerNorm"),
    ("head.dense", "cls.predictions.transform.dense"),
    ("head.norm", "cls.predictions.transform.LayerNorm"),
    ("decoder.weight", "cls.predictions.decoder.weight"),
    ("decoder.bias", "cls.predictions.bias"),
    ("pooler", "bert.pooler.dense"),
    ("pair", "cls.seq_relationship"),
];

const ROBERTA: &Names = &[
    ("embed.tokens", "roberta.embeddings.word_embeddings.weight"),
    ("embed.positions", "roberta.embeddings.position_embeddings.weight"),
    ("embed.types", "roberta.embeddings.token_type_embeddings.weight"),
    ("embed.norm", "roberta.embeddings.LayerNorm"),
    ("layers.*.qkv", "roberta.encoder.layer.*.attention.self.query"),
    ("layers.*.qkv", "roberta.encoder.layer.*.attention.self.key"),
    ("layers.*.qkv", "roberta.encoder.layer.*.attention.self.value"),
    ("layers.*.attn_out", "roberta.encoder.layer.*.attention.output.dense"),
    ("layers.*.attn_norm", "roberta.encoder.layer.*.attention.output.LayerNorm"),
    ("layers.*.fc", "roberta.encoder.layer.*.intermediate.dense"),
    ("layers.*.mlp_out", "roberta.encoder.layer.*.output.dense"),
    ("layers.*.mlp_norm", "roberta.encoder.layer.*.output.LayerNorm"),
    ("head.dense", "lm_head.dense"),
    ("head.norm", "lm_head.layer_norm"),
    ("decoder.weight", "lm_head.decoder.weight"),
    ("decoder.bias", "lm_head.bias"),
];

const ALBERT: &Names = &[
    ("embed.tokens", "albert.embeddings.word_embeddings.weight"),
    ("embed.positions", "albert.embeddings.position_embeddings.weight"),
    ("embed.types", "albert.embeddings.token_type_embeddings.weight"),
    ("embed.norm", "albert.embeddings.LayerNorm"),
    ("embed.proj", "albert.encoder.embedding_hidden_mapping_in"),
    ("layers.*.qkv", "albert.encoder.albert_layer_groups.*.albert_layers.*.attention.query"),
    ("layers.*.qkv", "albert.encoder.albert_layer_groups.*.albert_layers.*.attention.key"),
    ("layers.*.qkv", "albert.encoder.albert_layer_groups.*.albert_layers.*.attention.value"),
    ("layers.*.attn_out", "albert.encoder.albert_layer_groups.*.albert_layers.*.attention.dense"),
    (
        "layers.*.attn_norm",
        "albert.encoder.albert_layer_groups.*.albert_layers.*.attention.LayerNorm",
    ),
    ("layers.*.fc", "albert.encoder.albert_layer_groups.*.albert_layers.*.ffn"),
    ("layers.*.mlp_out", "albert.encoder.albert_layer_groups.*.albert_layers.*.ffn_output"),
    (
        "layers.*.mlp_norm",
        "albert.encoder.albert_layer_groups.*.albert_layers.*.full_layer_layer_norm",
    ),
    ("head.dense", "predictions.dense"),
    ("head.norm", "predictions.LayerNorm"),
    ("decoder.weight", "predictions.decoder.weight"),
    ("decoder.bias", "predictions.bias"),
    ("pooler", "albert.pooler"),
    ("pair", "sop_classifier.classifier"),
];

const MODERNBERT: &Names = &[
    ("embed.tokens", "model.embeddings.tok_embeddings.weight"),
    ("embed.norm", "model.embeddings.norm"),
    ("layers.*.attn_norm", "model.layers.*.attn_norm"),
    ("layers.*.qkv", "model.layers.*.attn.Wqkv"),
    ("layers.*.attn_out", "model.layers.*.attn.Wo"),
    ("layers.*.mlp_norm", "model.layers.*.mlp_norm"),
    ("layers.*.fc", "model.layers.*.mlp.Wi"),
    ("layers.*.mlp_out", "model.layers.*.mlp.Wo"),
    ("final_norm", "model.final_norm"),
    ("head.dense", "head.dense"),
    ("head.norm", "head.norm"),
    ("decoder", "decoder"),
];

/// What a family calls the parts of a task's head.
fn task_names(family: Family, kind: TaskKind) -> &'static Names {
    match (family, kind) {
        (Family::Bert, kind) if kind.is_of_sequences() => {
            &[("task.dense", "bert.pooler.dense"), ("task.classifier", "classifier")]
        }
        (Family::Albert, kind) if kind.is_of_sequences() => {
            &[("task.dense", "albert.pooler"), ("task.classifier", "classifier")]
        }
        (Family::Roberta, kind) if kind.is_of_sequences() => {
            &[("task.dense", "classifier.dense"), ("task.classifier", "classifier.out_proj")]
        }
        (Family::Gpt2, kind) if kind.is_of_sequences() => &[("task.classifier", "score")],
        (Family::Modernbert, _) => &[
            ("task.dense", "head.dense"),
            ("task.norm", "head.norm"),
            ("task.classifier", "classifier"),
        ],
        (_, TaskKind::Spans) => &[("task.classifier", "qa_outputs")],
        _ => &[("task.classifier", "classifier")],
    }
}

/// A head's bias is two parameters that are one in all models but transformers 5's untied ones,
/// which compute with the second.
const TWINS: &Names = &[
    ("cls.predictions.bias", "cls.predictions.decoder.bias"),
    ("lm_head.bias", "lm_head.decoder.bias"),
    ("predictions.bias", "predictions.decoder.bias"),
];

fn names_of(family: Family) -> &'static Names {
    match family {
        Family::Gpt2 => GPT2,
        Family::Bert => BERT,
        Family::Roberta => ROBERTA,
        Family::Albert => ALBERT,
        Family::Modernbert => MODERNBERT,
        Family::Custom => &[],
    }
}

/// The prefix that a family's base model has in a model with a head, and lacks on its own.
pub(super) fn base_prefix(family: Family) -> &'static str {
    match family {
        Family::Gpt2 => "transformer.",
        Family::Bert => "bert.",
        Family::Roberta => "roberta.",
        Family::Albert => "albert.",
        Family::Modernbert => "model.",
        Family::Custom => "",
    }
}

/// The other name of a head's bias.
pub(super) fn twin(name: &str) -> Option<&'static str> {
    TWINS.iter().find_map(|&(a, b)| match name {
        _ if name == a => Some(b),
        _ if name == b => Some(a),
        _ => None,
    })
}

/// Where a tied model's files may hold the token table a second time.
pub(super) fn decoder_weight(family: Family) -> &'static str {
    match family {
        Family::Modernbert | Family::Custom => "decoder.weight",
        other => names_of(other).iter().find(|(ours, _)| *ours == "decoder.weight").unwrap().1,
    }
}

/// The stored tensors that make up a model, in the order of its parameters; together they cover
/// every parameter once.
///
/// The arch must be one that its family can describe (`read_config` returns no other, and
/// `write_config` accepts no other): a parameter without a name there asserts.
pub fn pieces(arch: &Arch, table: &ParamTable) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (index, param) in table.params.iter().enumerate() {
        let names = stored_names(arch, param);
        assert!(!names.is_empty(), "{:?} has no tensor for {}", arch.family, param.name);
        let transposed = arch.family == Family::Gpt2
            && param.name.starts_with("layers.")
            && param.shape.len() == 2;
        let rows = param.shape[0] / names.len();
        for (i, name) in names.into_iter().enumerate() {
            let mut shape = param.shape.clone();
            shape[0] = rows;
            if transposed {
                shape.reverse();
            }
            let rows = i * rows..(i + 1) * rows;
            pieces.push(Piece { name, shape, param: index, rows, transposed });
        }
    }
    pieces
}

/// The tensors that hold a parameter's rows, in order.
fn stored_names(arch: &Arch, param: &Param) -> Vec<String> {
    if arch.family == Family::Custom {
        return vec![param.name.clone()];
    }
    let (pattern, block) = split_block(&param.name);
    // A table or the decoder's weight goes by its whole name, a module's parts by the module's.
    let (module, leaf) = pattern.rsplit_once('.').unwrap_or((&pattern, ""));
    let of_task = arch.task.as_ref().map_or(&[][..], |task| task_names(arch.family, task.kind));
    let names = || names_of(arch.family).iter().chain(of_task);
    let whole = names().filter(|(ours, _)| *ours == pattern).map(|(_, n)| n.to_string());
    let parts = names().filter(|(ours, _)| *ours == module).map(|(_, n)| format!("{n}.{leaf}"));
    whole.chain(parts).map(|name| fill(arch, &name, block)).map(|name| untied(arch, name)).collect()
}

/// `layers.7.qkv.weight` → (`layers.*.qkv.weight`, 7); other names as they are.
fn split_block(name: &str) -> (String, usize) {
    let block = name.strip_prefix("layers.").and_then(|rest| {
        let (number, rest) = rest.split_once('.')?;
        Some((format!("layers.*.{rest}"), number.parse().ok()?))
    });
    block.unwrap_or_else(|| (name.to_string(), 0))
}

/// Puts the block's number for `*`; of two, the first is the group.
fn fill(arch: &Arch, pattern: &str, block: usize) -> String {
    if pattern.matches('*').count() == 2 {
        let (group, layer) = (block / arch.group_depth, block % arch.group_depth);
        return pattern.replacen('*', &group.to_string(), 1).replacen('*', &layer.to_string(), 1);
    }
    pattern.replace('*', &block.to_string())
}

/// The head's bias is named after the decoder where the decoder is a tensor of its own.
fn untied(arch: &Arch, name: String) -> String {
    if arch.tied {
        return name;
    }
    twin(&name).map_or(name, str::to_string)
}
