//! Whether there are kernels for an architecture, asked before anything is trained.

use crate::model::arch::{Arch, Positions};
use crate::model::params::Layout;
use crate::ops::attention::{self, Attention};
use crate::ops::{activation, embed, linear, loss, norm, rope};

/// The first shape of `arch` that no kernel takes, and what comes nearest, in words.
pub fn supports(arch: &Arch) -> Result<(), String> {
    let layout = Layout::new(arch);
    embed::supports(arch.embed_width)?;
    norm::supports(arch.embed_width)?;
    norm::supports(arch.width)?;
    let blocks = layout.blocks.iter().flat_map(|b| [&b.qkv, &b.attn_out, &b.fc, &b.mlp_out]);
    let transform = layout.transform.as_ref().map(|transform| &transform.dense);
    for at in blocks.chain(&layout.embed_proj).chain(transform) {
        linear::supports(at)?;
    }
    loss::supports(&layout.decoder)?;
    if arch.gated {
        activation::supports(arch.inner)?;
    }
    if matches!(arch.positions, Positions::Rotary { .. }) {
        rope::supports(arch.head_dim())?;
    }
    attention::supports(&Attention {
        heads: arch.heads,
        head_dim: arch.head_dim(),
        causal: arch.causal,
        window: arch.window,
        dropout: None,
    })
}
