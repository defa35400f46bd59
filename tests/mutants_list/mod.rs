//! The mutants, by family: a kernel's file, what is wrong, the edit, and the family whose checks
//! must notice.

mod attention;
mod attention_hopper;
mod cache;
mod elements;
mod hopper;
mod ladder;
mod norm;
mod product;
mod tables;
mod task;
mod training;

use std::fmt;

pub struct Mutant {
    pub file: &'static str,
    pub what: &'static str,
    /// Stands once in the file.
    pub from: &'static str,
    pub to: &'static str,
    /// As `verify --op` names it.
    pub family: &'static str,
    /// The first of `MODES` that catches it every time: races between blocks are left to `check`,
    /// as elsewhere blocks run on several threads, and may come out right.
    pub by: &'static str,
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}

/// A wrong result.
const fn fifo(
    family: &'static str,
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutant {
    Mutant { family, file, what, from, to, by: "fifo" }
}

/// A result that depends on which thread goes first.
const fn lifo(
    family: &'static str,
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutant {
    Mutant { family, file, what, from, to, by: "lifo" }
}

/// A copy that is not waited for.
const fn late(
    family: &'static str,
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutant {
    Mutant { family, file, what, from, to, by: "late" }
}

/// What no result shows.
const fn check(
    family: &'static str,
    file: &'static str,
    what: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutant {
    Mutant { family, file, what, from, to, by: "check" }
}

pub const FAMILIES: &[&[Mutant]] = &[
    product::PRODUCT,
    product::GATE,
    product::LOSS,
    hopper::HOPPER,
    ladder::LADDER,
    hopper::EPILOGUES,
    attention::FORWARD,
    attention::BACKWARD,
    attention_hopper::ATTENTION_HOPPER,
    cache::CACHE,
    norm::NORM,
    task::TASK,
    tables::EMBED,
    tables::GATHER,
    elements::ROPE,
    elements::ROTATION,
    elements::ACTIVATION,
    elements::DROPOUT,
    training::REDUCE,
    training::MASK,
    training::OPTIMIZER,
];
