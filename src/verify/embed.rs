//! Checks of the embeddings, both ways.

use super::draw::{int, poisoned_x};
use super::{Check, Draw, Kind, Output, Sizes, Verifier};
use crate::device::Buffer;
use crate::ops::Span;
use crate::ops::embed::{Embed, EmbedOps, Tokens};

/// Sizes of the tables; a table of none is absent.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    width: usize,
    tokens: usize,
    positions: usize,
    types: usize,
}

/// Rows before that of position 0.
const OFFSET: usize = 2;

impl Shape {
    /// The tables in an arena, with gaps, and its length.
    fn tables(&self) -> (Embed, usize) {
        let mut end = 64;
        let mut table = |rows: usize| {
            let span = Span { start: end, len: rows * self.width };
            end = (end + span.len + 1).next_multiple_of(64);
            (rows > 0).then_some(span)
        };
        let tokens = table(self.tokens).expect("there are tokens");
        let (positions, types) = (table(self.positions), table(self.types));
        (Embed { tokens, positions, offset: OFFSET, types, width: self.width }, end)
    }

    /// Ids, positions and types of the tokens: a third of all are one token, the rest anything;
    /// positions rise within sequences.
    fn draw(&self, draw: &mut Draw) -> [Vec<i32>; 3] {
        let mut ids = draw.below(self.rows, self.tokens);
        let often = draw.below(self.rows, 3);
        for (id, _) in ids.iter_mut().zip(&often).filter(|(_, often)| **often == 0) {
            *id = (self.tokens / 2) as i32;
        }
        let longest = self.positions.max(OFFSET + 1) - OFFSET;
        let positions = (0..self.rows).map(|n| (n % longest) as i32).collect();
        [ids, positions, draw.below(self.rows, self.types.max(1))]
    }
}

struct Forward(Shape);

impl<D: EmbedOps> Check<D> for Forward {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let (at, arena) = self.0.tables();
        let [ids, positions, types] = self.0.draw(draw).map(|values| int(dev, &values));
        let params = draw.x(dev, arena, 1.0);
        let rows = self.0.rows;
        let mut y = poisoned_x(dev, rows * at.width);
        let tokens = Tokens { ids: &ids, positions: &positions, types: &types, rows };
        dev.embed(&mut y, tokens, &params, &at);
        vec![Output { tensor: "y", values: y.to_vec(), kind: Kind::Stored(3) }]
    }
}

struct Backward(Shape);

impl<D: EmbedOps> Check<D> for Backward {
    fn run(&self, dev: &D, draw: &mut Draw) -> Vec<Output> {
        let (at, arena) = self.0.tables();
        let [ids, positions, types] = self.0.draw(draw).map(|values| int(dev, &values));
        let rows = self.0.rows;
        let dy = draw.x(dev, rows * at.width, 1.0);
        let mut grads = draw.acc(dev, arena, 1.0);
        let tokens = Tokens { ids: &ids, positions: &positions, types: &types, rows };
        dev.embed_backward(&mut grads, &dy, tokens, &at);
        // The whole arena: rows that no token has, and the gaps, must stay as they were.
        vec![Output { tensor: "grads", values: grads.to_vec(), kind: Kind::Summed(rows) }]
    }
}

pub fn embed(v: &mut Verifier) {
    let shape =
        |rows, width, tokens, positions, types| Shape { rows, width, tokens, positions, types };
    // Tables of one to three digits, runs within a chunk, across two and across more than 32;
    // widths of less than a warp and of several; one type, a pair and more.
    let mut shapes = vec![
        shape(1, 8, 1, 0, 0),
        shape(64, 24, 5, 4, 1),
        shape(300, 768, 300, 130, 2),
        shape(700, 264, 3000, 0, 3),
        shape(513, 8, 70_000, 514, 2),
        shape(7000, 8, 50, 10, 5),
    ];
    if v.sizes == Sizes::Full {
        shapes.push(shape(4096, 768, 30_522, 514, 2));
        shapes.push(shape(65_536, 768, 30_522, 514, 2));
        shapes.push(shape(65_536, 128, 128_256, 0, 0));
    }
    for shape in shapes {
        let Shape { rows, width, tokens, positions, types } = shape;
        let name = format!("{rows} of {tokens}+{positions}+{types} × {width}");
        v.check("embed", name.clone(), &Forward(shape));
        v.check("embed_backward", name, &Backward(shape));
    }
}
