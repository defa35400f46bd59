//! Embeddings: x[n] = tokens[ids[n]] + positions[offset + pos[n]] + types[type[n]].
//!
//! Backward adds dx[n] to the same rows; a row that occurs often is summed in the order of the
//! tokens by one owner, so the result repeats.

use rayon::prelude::*;

use super::{Cost, Span};
use crate::device::Memory;
use crate::device::cpu::{Cpu, Element, for_row_blocks, rows_per_task};

/// The tables and where they lie.
#[derive(Debug, Clone, Copy)]
pub struct Embed {
    /// [V, E]
    pub tokens: Span,
    /// [context + offset, E]
    pub positions: Option<Span>,
    /// The row of the first position.
    pub offset: usize,
    /// [types, E]
    pub types: Option<Span>,
    /// E
    pub width: usize,
}

/// What a token is, on the device.
pub struct Tokens<'a, D: Memory> {
    /// [N]
    pub ids: &'a D::Int,
    /// [N], from 0 in each sequence
    pub positions: &'a D::Int,
    /// [N]
    pub types: &'a D::Int,
    /// N
    pub rows: usize,
}

pub trait EmbedOps: Memory + Sized {
    /// y [N, E] = the sum of the tables' rows.
    fn embed(&self, y: &mut Self::X, tokens: Tokens<Self>, params: &Self::X, at: &Embed);

    /// The tables' rows in `grads` += dy [N, E].
    fn embed_backward(&self, grads: &mut Self::Acc, dy: &Self::X, tokens: Tokens<Self>, at: &Embed);
}

/// `size` bytes an element of the activations, `table` of the tables, whose rows cross memory once
/// however many tokens share them (in the backward: read and written, so `table` is twice `Acc`).
pub fn cost(at: &Embed, rows: usize, size: usize, table: usize) -> Cost {
    let tables = [Some(at.tokens), at.positions, at.types].into_iter().flatten();
    let touched: usize = tables.clone().map(|t| t.len.min(rows * at.width)).sum();
    let elements = rows * at.width;
    Cost {
        flops: (elements * tables.count()) as f64,
        bytes: (elements * size + touched * table) as f64,
    }
}

impl<E: Element> EmbedOps for Cpu<E> {
    fn embed(&self, y: &mut Vec<E>, t: Tokens<Self>, params: &Vec<E>, at: &Embed) {
        let e = at.width;
        let row = |table: Span, i: usize| &params[table.range()][i * e..(i + 1) * e];
        for_row_blocks(&mut y[..t.rows * e], e, |first, y| {
            for (n, y) in (first..).zip(y.chunks_exact_mut(e)) {
                let token = row(at.tokens, t.ids[n] as usize);
                let position = at.positions.map(|p| row(p, at.offset + t.positions[n] as usize));
                let kind = at.types.map(|k| row(k, t.types[n] as usize));
                for i in 0..e {
                    let mut sum = token[i].wide();
                    if let Some(position) = position {
                        sum += position[i].wide();
                    }
                    if let Some(kind) = kind {
                        sum += kind[i].wide();
                    }
                    y[i] = E::round(sum);
                }
            }
        });
    }

    fn embed_backward(&self, grads: &mut Vec<E::Acc>, dy: &Vec<E>, t: Tokens<Self>, at: &Embed) {
        let mut add = |table: Span, index: &(dyn Fn(usize) -> usize + Sync)| {
            let task = rows_per_task(table.len / at.width);
            grads[table.range()].par_chunks_mut(task * at.width).enumerate().for_each(|(i, d)| {
                let owned = i * task..i * task + d.len() / at.width;
                for (n, dy) in (0..t.rows).zip(dy.chunks_exact(at.width)) {
                    let row = index(n);
                    if owned.contains(&row) {
                        let d = &mut d[(row - owned.start) * at.width..][..at.width];
                        for (d, dy) in d.iter_mut().zip(dy) {
                            *d += dy.wide();
                        }
                    }
                }
            });
        };
        add(at.tokens, &|n| t.ids[n] as usize);
        if let Some(positions) = at.positions {
            add(positions, &|n| at.offset + t.positions[n] as usize);
        }
        if let Some(types) = at.types {
            add(types, &|n| t.types[n] as usize);
        }
    }
}
