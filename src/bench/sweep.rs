//! Sweeps: shapes of one family beyond those of one model.

use super::call::{Arena, Call};
use super::lengths::Lengths;
use crate::ops::Span;
use crate::ops::attention::Attention;
use crate::ops::linear::Linear;

/// What a head may see.
const SEEN: [(bool, Option<usize>); 3] = [(true, None), (false, None), (false, Some(64))];

/// Attention, forward and backward, over `tokens` tokens at a time: each head width (with as many
/// heads as make `width`) at each length, causal, bidirectional and in windows of ±64. Sequences
/// are as `lengths` has them, up to each length.
pub fn attention(
    tokens: usize,
    width: usize,
    head_dims: &[usize],
    longest: &[usize],
    lengths: &Lengths,
) -> Vec<(Call, u64)> {
    let mut calls = Vec::new();
    for &head_dim in head_dims {
        for &longest in longest {
            let mut ends = vec![0];
            for length in lengths.draw(longest, tokens) {
                ends.push(ends[ends.len() - 1] + length as i32);
            }
            for (causal, window) in SEEN {
                let heads = (width / head_dim).max(1);
                let at = Attention { heads, head_dim, causal, window, dropout: None };
                calls.push((Call::Attention { at, ends: ends.clone() }, 1));
                calls.push((Call::AttentionBackward { at, ends: ends.clone(), rotary: None }, 1));
            }
        }
    }
    calls
}

/// y [rows, n_out] = x Wᵀ, without a bias.
pub fn product(rows: usize, n_in: usize, n_out: usize) -> Call {
    let at = Linear { weight: Span::first(n_in * n_out), bias: None, n_in, n_out };
    Call::Linear { at: Arena::default().linear(&at), rows }
}

/// Adds the calls that are not there yet.
pub fn merge(calls: &mut Vec<(Call, u64)>, more: Vec<(Call, u64)>) {
    for (call, _) in more {
        if !calls.iter().any(|(known, _)| *known == call) {
            calls.push((call, 1));
        }
    }
}
