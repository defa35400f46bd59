//! Embeddings: x[n] = tokens[ids[n]] + positions[offset + pos[n]] + types[type[n]].
//!
//! Backward adds dx[n] to the same rows; a row that occurs often is summed in the order of the
//! tokens by one owner, so the result repeats.

use half::bf16;
use rayon::prelude::*;

use super::norm::partials_shape;
use super::{Cost, Span};
use crate::device::Memory;
use crate::device::cpu::{Cpu, Element, for_row_blocks, rows_per_task};
use crate::device::gpu::driver::Address;
use crate::device::gpu::launch::{Arg, Shape};
use crate::device::gpu::{Gpu, Tensor, limits};

/// The tables and where they lie.
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// Whether the kernels take rows of this width.
pub fn supports(width: usize) -> Result<(), String> {
    limits::multiple("an embedding's width", width, 8, usize::MAX)
}

const THREADS: u32 = 256;
/// Constants of `kernels/embed.cu`: tokens of a warp of the forward; values of a digit, entries
/// that a block sorts, entries of a chunk, columns that a warp sums, types that it sums.
const TOKENS: usize = 4;
const RADIX: usize = 256;
const SORT_TILE: usize = 4096;
const CHUNK: usize = 64;
const SLICE: usize = 256;
const PAIR: usize = 2;
/// Most strands of tokens whose types are summed apart: 12 warps a multiprocessor at width 768.
const STRANDS: usize = 512;
/// Bytes of an entry: row and token.
const ENTRY: usize = 8;

impl EmbedOps for Gpu {
    fn embed(&self, y: &mut Tensor<bf16>, t: Tokens<Self>, params: &Tensor<bf16>, at: &Embed) {
        let args = [
            y.into(),
            t.ids.into(),
            t.positions.into(),
            t.types.into(),
            params.at(at.tokens.start).into(),
            at.first_position(params).into(),
            at.types.map(|types| params.at(types.start)).into(),
            at.width.into(),
            t.rows.into(),
        ];
        let elements = t.rows * at.width;
        if self.naive() {
            return self.launch("embed_naive", Shape::each(elements, THREADS), &args);
        }
        assert_eq!(supports(at.width), Ok(()), "embed");
        let warps = t.rows.div_ceil(TOKENS);
        self.launch("embed", Shape::each(warps * 32, THREADS), &args);
    }

    fn embed_backward(
        &self,
        grads: &mut Tensor<f32>,
        dy: &Tensor<bf16>,
        t: Tokens<Self>,
        at: &Embed,
    ) {
        if self.naive() {
            let tables = [
                (Some(grads.at(at.tokens.start)), t.ids),
                (at.first_position(grads), t.positions),
                (at.types.map(|types| grads.at(types.start)), t.types),
            ];
            for (table, ids) in tables {
                let Some(table) = table else { continue };
                let args = [table.into(), ids.into(), dy.into(), at.width.into(), t.rows.into()];
                let shape = Shape::each(t.rows * at.width, THREADS);
                self.launch("embed_backward_naive", shape, &args);
            }
            return;
        }
        assert_eq!(supports(at.width), Ok(()), "embed_backward");
        if t.rows == 0 {
            return;
        }
        let scratch = Scratch::of(self, &t, at);
        let sorted = self.sort_rows(&scratch, &t, at);
        self.sum_rows(grads, dy, sorted, &scratch, at);
        if let Some(types) = at.types {
            self.sum_types(grads, dy, scratch.partials, &t, types, at.width);
        }
    }
}

impl Embed {
    /// The row of the first position.
    fn first_position<T>(&self, arena: &Tensor<T>) -> Option<Address> {
        self.positions.map(|p| arena.at(p.start + self.offset * self.width))
    }

    /// Rows of the tables of tokens and of both tables that are sorted.
    fn sorted_rows(&self) -> [usize; 2] {
        let tokens = self.tokens.len / self.width;
        [tokens, tokens + self.positions.map_or(0, |p| p.len / self.width)]
    }
}

/// Where the backward keeps what lives within it.
struct Scratch {
    /// Entries: two for each token where there are positions, else one.
    count: usize,
    /// [count] entries, twice: each pass of the sort goes from one to the other.
    entries: [Address; 2],
    /// [tiles, RADIX]
    counts: Address,
    /// [chunks, E]
    heads: Address,
    /// [chunks, E]
    tails: Address,
    /// [strands, types, E]
    partials: Address,
}

impl Scratch {
    fn of(gpu: &Gpu, t: &Tokens<Gpu>, at: &Embed) -> Scratch {
        let count = t.rows * if at.positions.is_some() { 2 } else { 1 };
        let chunks = count.div_ceil(CHUNK) * at.width * size_of::<f32>();
        let types = at.types.map_or(0, |types| strands(t.rows) * types.len * size_of::<f32>());
        let counts = count.div_ceil(SORT_TILE) * RADIX * size_of::<u32>();
        let parts = [count * ENTRY, count * ENTRY, counts, chunks, chunks, types];
        let parts = parts.map(|bytes| bytes.next_multiple_of(256));
        let mut next = gpu.workspace(parts.iter().sum());
        let [a, b, counts, heads, tails, partials] = parts.map(|bytes| {
            let part = next;
            next = next.offset(bytes);
            part
        });
        Scratch { count, entries: [a, b], counts, heads, tails, partials }
    }
}

fn strands(rows: usize) -> usize {
    rows.div_ceil(16).min(STRANDS)
}

impl Gpu {
    /// Lists the rows that tokens touch and sorts them; returns where they lie.
    fn sort_rows(&self, s: &Scratch, t: &Tokens<Self>, at: &Embed) -> Address {
        let [tokens, all] = at.sorted_rows();
        let [mut from, mut to] = s.entries;
        let positions = at.positions.map(|_| t.positions.at(0));
        let base = (tokens + at.offset) as u32;
        let args = [from.into(), t.ids.into(), positions.into(), base.into(), t.rows.into()];
        self.launch("embed_keys", Shape::each(t.rows, THREADS), &args);
        let bits = usize::BITS - (all - 1).leading_zeros();
        let shape = Shape::new(s.count.div_ceil(SORT_TILE), THREADS);
        for shift in (0..bits as i32).step_by(RADIX.ilog2() as usize) {
            let (counts, count): (Arg, Arg) = (s.counts.into(), s.count.into());
            self.launch("radix_count", shape, &[counts, from.into(), count, shift.into()]);
            let args = [to.into(), from.into(), counts, count, shift.into()];
            self.launch("radix_place", shape, &args);
            (from, to) = (to, from);
        }
        from
    }

    /// Adds dy to the tables of tokens and positions.
    fn sum_rows(
        &self,
        grads: &mut Tensor<f32>,
        dy: &Tensor<bf16>,
        sorted: Address,
        s: &Scratch,
        at: &Embed,
    ) {
        let tokens: Arg = grads.at(at.tokens.start).into();
        let positions: Arg = at.positions.map(|p| grads.at(p.start)).into();
        let base: Arg = (at.sorted_rows()[0] as u32).into();
        let (heads, tails): (Arg, Arg) = (s.heads.into(), s.tails.into());
        let (sorted, count, width): (Arg, Arg, Arg) =
            (sorted.into(), s.count.into(), at.width.into());
        let warps = s.count.div_ceil(CHUNK) * at.width.div_ceil(SLICE);
        let shape = Shape::each(warps * 32, THREADS);
        let args = [tokens, positions, base, heads, tails, sorted, dy.into(), count, width];
        self.launch("embed_sum", shape, &args);
        let args = [tokens, positions, base, heads, tails, sorted, count, width];
        self.launch("embed_join", shape, &args);
    }

    /// Adds dy to the table of types.
    fn sum_types(
        &self,
        grads: &mut Tensor<f32>,
        dy: &Tensor<bf16>,
        partials: Address,
        t: &Tokens<Self>,
        types: Span,
        width: usize,
    ) {
        let (strands, rows) = (strands(t.rows), types.len / width);
        let args = [
            partials.into(),
            t.types.into(),
            dy.into(),
            rows.into(),
            width.into(),
            t.rows.into(),
            strands.into(),
        ];
        let blocks = (strands * width.div_ceil(SLICE) * 32).div_ceil(THREADS as usize);
        self.launch("type_sums", Shape::grid([blocks, rows.div_ceil(PAIR), 1], THREADS), &args);
        let args =
            [grads.at(types.start).into(), partials.into(), types.len.into(), strands.into()];
        self.launch("type_join", partials_shape(types.len), &args);
    }
}
