//! The published models by name, and small ones of each family for tests and the demo.
//!
//! Source of every figure: the models' `config.json` on the Hugging Face hub. Where a family's
//! code and its published configs differ (RoBERTa's eps), the published config wins.

use crate::model::arch::{Arch, Dropouts, Family, Head, Placement, Positions};
use crate::ops::activation::Activation;
use crate::ops::norm::NormKind;

/// Every preset's name, and the line that `--help` says of it.
pub const PRESETS: [(&str, &str); 16] = [
    ("gpt2", "GPT-2 124M: 12 layers × 768"),
    ("gpt2-medium", "GPT-2 355M: 24 × 1024"),
    ("gpt2-large", "GPT-2 774M: 36 × 1280"),
    ("gpt2-xl", "GPT-2 1.5B: 48 × 1600"),
    ("gpt2-tiny", "the demo's GPT: 3 × 128"),
    ("bert-base", "BERT base, 110M: 12 × 768"),
    ("bert-large", "BERT large, 335M: 24 × 1024"),
    ("bert-tiny", "a BERT for tests: 3 × 128"),
    ("roberta-base", "RoBERTa base, 125M: 12 × 768"),
    ("roberta-large", "RoBERTa large, 355M: 24 × 1024"),
    ("roberta-tiny", "a RoBERTa for tests: 3 × 128"),
    ("albert-base", "ALBERT base v2, 12M: 12 × 768, one shared block"),
    ("albert-tiny", "an ALBERT for tests: 3 × 128"),
    ("modernbert-base", "ModernBERT base, 149M: 22 × 768"),
    ("modernbert-large", "ModernBERT large, 395M: 28 × 1024"),
    ("modernbert-tiny", "the demo's masked model: 3 × 128"),
];

/// The preset of this name.
pub fn preset(name: &str) -> Option<Arch> {
    Some(match name {
        "gpt2" => gpt2(768, 12, 12, 1024),
        "gpt2-medium" => gpt2(1024, 24, 16, 1024),
        "gpt2-large" => gpt2(1280, 36, 20, 1024),
        "gpt2-xl" => gpt2(1600, 48, 25, 1024),
        "gpt2-tiny" => demo(gpt2(128, 3, 4, 64)),
        "bert-base" => bert(768, 12, 12),
        "bert-large" => bert(1024, 24, 16),
        "bert-tiny" => demo(bert(128, 3, 4)),
        "roberta-base" => roberta(768, 12, 12),
        "roberta-large" => roberta(1024, 24, 16),
        "roberta-tiny" => demo(roberta(128, 3, 4)),
        "albert-base" => albert(768, 12, 12),
        "albert-tiny" => Arch { embed_width: 64, ..demo(albert(128, 3, 4)) },
        "modernbert-base" => modernbert(768, 22, 12, 1152),
        "modernbert-large" => modernbert(1024, 28, 16, 2624),
        "modernbert-tiny" => demo(modernbert(128, 3, 4, 256)),
        _ => return None,
    })
}

/// Small vocabulary and context, no dropout: a model that learns in minutes on a CPU.
fn demo(arch: Arch) -> Arch {
    Arch { vocab: 2048, context: 64, dropout: Dropouts::default(), ..arch }
}

/// Pre-norm, causal, learned positions, tanh GELU, tied plain head.
fn gpt2(width: usize, layers: usize, heads: usize, context: usize) -> Arch {
    Arch {
        family: Family::Gpt2,
        vocab: 50257,
        context,
        token_types: 0,
        eps: 1e-5,
        placement: Placement::Pre,
        embed_norm: false,
        activation: Activation::GeluTanh,
        causal: true,
        head: Head::Plain,
        head_bias: false,
        decoder_bias: false,
        ..bert(width, layers, heads)
    }
}

/// Post-norm, bidirectional, learned positions, erf GELU, tied head with a transform.
fn bert(width: usize, layers: usize, heads: usize) -> Arch {
    Arch {
        family: Family::Bert,
        vocab: 30522,
        width,
        embed_width: width,
        layers,
        heads,
        inner: 4 * width,
        context: 512,
        token_types: 2,
        positions: Positions::Learned { offset: 0 },
        norm: NormKind::Layer,
        norm_bias: true,
        eps: 1e-12,
        placement: Placement::Post,
        embed_norm: true,
        first_norm: true,
        activation: Activation::Gelu,
        gated: false,
        bias: true,
        causal: false,
        window: None,
        global_every: 1,
        groups: layers,
        group_depth: 1,
        tied: true,
        head: Head::Transform,
        head_activation: Activation::Gelu,
        head_bias: true,
        decoder_bias: true,
        task: None,
        pair: false,
        dropout: Dropouts { embed: 0.1, hidden: 0.1, attention: 0.1 },
        init_std: 0.02,
    }
}

/// BERT with one token type and positions from 2.
fn roberta(width: usize, layers: usize, heads: usize) -> Arch {
    Arch {
        family: Family::Roberta,
        vocab: 50265,
        token_types: 1,
        positions: Positions::Learned { offset: 2 },
        eps: 1e-5,
        ..bert(width, layers, heads)
    }
}

/// BERT with factorised embeddings, one shared block, tanh GELU and no dropout.
fn albert(width: usize, layers: usize, heads: usize) -> Arch {
    Arch {
        family: Family::Albert,
        vocab: 30000,
        embed_width: 128,
        activation: Activation::GeluTanh,
        head_activation: Activation::GeluTanh,
        groups: 1,
        dropout: Dropouts::default(),
        ..bert(width, layers, heads)
    }
}

/// Pre-norm, rotary, GeGLU, ±64 windows on two layers of three, hardly any bias.
fn modernbert(width: usize, layers: usize, heads: usize, inner: usize) -> Arch {
    Arch {
        family: Family::Modernbert,
        vocab: 50368,
        inner,
        context: 8192,
        token_types: 0,
        positions: Positions::Rotary { theta: 160_000.0, local_theta: 10_000.0 },
        norm_bias: false,
        eps: 1e-5,
        placement: Placement::Pre,
        first_norm: false,
        gated: true,
        bias: false,
        window: Some(64),
        global_every: 3,
        head_bias: false,
        dropout: Dropouts::default(),
        ..bert(width, layers, heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::Layout;

    #[test]
    fn every_preset_is_valid_and_has_the_published_size() {
        for (name, _) in PRESETS {
            preset(name).unwrap().validate().unwrap();
        }
        // Counted from the published checkpoints' tensors, masked-language-model heads included.
        for (name, count) in [
            ("gpt2", 124_439_808),
            ("gpt2-medium", 354_823_168),
            ("gpt2-large", 774_030_080),
            ("gpt2-xl", 1_557_611_200),
            ("bert-base", 109_514_298),
            ("roberta-base", 124_697_433),
            ("albert-base", 11_221_680),
            ("modernbert-base", 149_655_232),
        ] {
            assert_eq!(Layout::new(&preset(name).unwrap()).table.count(), count, "{name}");
        }
    }
}
