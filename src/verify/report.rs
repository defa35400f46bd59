//! The table of a verification.

use std::fmt::Write;

use serde::Serialize;

/// Beyond this a bound holds nothing to account: the plain computation failed, or the truth is
/// nothing but rounding. The check is at fault.
const LOOSEST: f64 = 0.5;

/// One result of one check.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub op: &'static str,
    /// `naive` or `fast`
    pub kernels: &'static str,
    pub tensor: &'static str,
    pub shape: String,
    /// e(y), see [`super`].
    pub error: f64,
    pub bound: f64,
    /// Whether every run gave the same bits.
    pub repeats: bool,
    /// What stopped the device, if anything has.
    pub fault: Option<String>,
}

impl Row {
    pub fn passed(&self) -> bool {
        let bounded = self.error <= self.bound && self.bound <= LOOSEST;
        self.fault.is_none() && self.repeats && bounded
    }

    /// `ok`, or what is wrong.
    pub fn verdict(&self) -> &'static str {
        match self {
            Row { fault: Some(_), .. } => "FAULT",
            row if row.error.is_nan() || row.error > row.bound => "WRONG",
            row if row.bound > LOOSEST => "NO BOUND to speak of",
            Row { repeats: false, .. } => "DIFFERS between runs",
            _ => "ok",
        }
    }

    /// The row as the table prints it.
    pub fn line(&self) -> String {
        let Row { op, kernels, tensor, shape, error, bound, .. } = self;
        let what = format!("{op}: {tensor}");
        let verdict = self.verdict();
        format!("{what:<34} {kernels:<6} {shape:<34} {error:>9.2e} {bound:>9.2e}  {verdict}")
    }
}

/// The heading of [`Row::line`].
pub fn heading() -> String {
    let (op, kernels, shape, error, bound) = ("op: tensor", "", "shape", "error", "bound");
    format!("{op:<34} {kernels:<6} {shape:<34} {error:>9} {bound:>9}  verdict")
}

/// How many passed, and the first fault.
pub fn summary(rows: &[Row]) -> String {
    let passed = rows.iter().filter(|row| row.passed()).count();
    let mut text = format!("{passed} of {} results pass", rows.len());
    if let Some(fault) = rows.iter().find_map(|row| row.fault.as_ref()) {
        let _ = write!(text, "; stopped by: {fault}");
    }
    text
}
