//! Two reports side by side: what became slower, what faster, beyond the spread of the samples.

use super::report::{Report, Row};

/// How a row of B compares with that of A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Slower,
    Faster,
    /// The quartiles overlap.
    Same,
}

/// One op at one shape, in both.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub op: String,
    pub shape: String,
    /// Medians [s].
    pub a: f64,
    pub b: f64,
    pub verdict: Verdict,
}

impl Pair {
    fn of(a: &Row, b: &Row) -> Pair {
        let verdict = match (b.low > a.high, b.high < a.low) {
            (true, _) => Verdict::Slower,
            (_, true) => Verdict::Faster,
            _ => Verdict::Same,
        };
        let (op, shape) = (a.op.clone(), a.shape.clone());
        Pair { op, shape, a: a.seconds, b: b.seconds, verdict }
    }

    /// B's time over A's.
    pub fn ratio(&self) -> f64 {
        self.b / self.a
    }

    /// Whether B is slower, beyond spread, by more than a factor.
    pub fn fails(&self, slower: f64) -> bool {
        self.verdict == Verdict::Slower && self.ratio() > slower
    }

    pub fn line(&self) -> String {
        let Pair { op, shape, a, b, verdict } = self;
        let said = match verdict {
            Verdict::Slower => "slower",
            Verdict::Faster => "faster",
            Verdict::Same => "within spread",
        };
        let (a, b) = (1e6 * a, 1e6 * b);
        format!("{op:<19}{shape:<38}{a:>12.1}{b:>12.1}{:>8.3}  {said}", self.ratio())
    }
}

/// The heading of [`Pair::line`].
pub fn heading() -> String {
    let (a, b) = ("A µs", "B µs");
    format!("{:<19}{:<38}{a:>12}{b:>12}{:>8}", "op", "shape", "B / A")
}

/// Rows of both, in A's order, and the names of those that only one has.
pub fn compare(a: &Report, b: &Report) -> (Vec<Pair>, Vec<String>) {
    let same = |x: &Row, y: &Row| (&x.op, &x.shape) == (&y.op, &y.shape);
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    let name = |row: &Row, which: &str| format!("only in {which}: {} {}", row.op, row.shape);
    for row in &a.rows {
        match b.rows.iter().find(|other| same(row, other)) {
            Some(other) => pairs.push(Pair::of(row, other)),
            None => alone.push(name(row, "A")),
        }
    }
    let new = b.rows.iter().filter(|row| !a.rows.iter().any(|other| same(row, other)));
    alone.extend(new.map(|row| name(row, "B")));
    (pairs, alone)
}
