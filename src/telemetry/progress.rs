//! Training's face in the terminal: a bar with the latest figures, messages above it.
//!
//! Where stderr is not a terminal (a file, a job log) the bar becomes a plain line every ten
//! seconds, so that logs stay short and still show life.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::format::{count, duration, figure};
use super::metrics::{EvalRecord, TrainRecord};

const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Shows a run's progress on stderr.
pub struct Progress {
    /// None where stderr is not a terminal.
    bar: Option<ProgressBar>,
    total: u64,
    start: u64,
    started: Instant,
    last_line: Option<Instant>,
    /// The latest held-out loss [nats a token].
    pub(super) heldout: Option<f64>,
    /// That of the unigram model, to be told beside it.
    pub baseline: Option<f64>,
}

impl Progress {
    /// Of a run of `total_steps` steps, `start_step` of which were taken earlier.
    pub fn new(total_steps: u64, start_step: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:12.cyan/dim} {pos}/{len} {wide_msg}")
                .expect("the template is valid")
                .progress_chars("━╸─");
            ProgressBar::new(total_steps).with_style(style).with_position(start_step)
        });
        Self {
            bar,
            total: total_steps,
            start: start_step,
            started: Instant::now(),
            last_line: None,
            heldout: None,
            baseline: None,
        }
    }

    /// Shows a step that was just taken.
    pub fn step(&mut self, record: &TrainRecord) {
        let status = status(record, self.heldout, self.seconds_left(record.step));
        match &self.bar {
            Some(bar) => {
                bar.set_message(status);
                bar.set_position(record.step);
            }
            None => {
                let due = self.last_line.is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL);
                if due || record.step >= self.total {
                    self.last_line = Some(Instant::now());
                    print(&format!("step {}/{}  {status}", record.step, self.total));
                }
            }
        }
    }

    /// Says how held-out text fared, and keeps the loss in sight.
    pub fn eval(&mut self, record: &EvalRecord) {
        self.heldout = Some(record.loss);
        let (loss, accuracy) = (figure(record.loss), 100.0 * record.accuracy);
        let unigram =
            self.baseline.map(|b| format!(" (unigram {})", figure(b))).unwrap_or_default();
        self.say(&format!(
            "step {}: held-out loss {loss}{unigram}, perplexity {}, accuracy {accuracy:.1}%",
            record.step,
            figure(record.loss.exp())
        ));
    }

    /// Prints a line above the bar.
    pub fn say(&self, message: &str) {
        match &self.bar {
            Some(bar) => bar.println(message),
            None => print(message),
        }
    }

    /// Leaves the bar as it stands, whether the run is complete or interrupted.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }

    /// Seconds until the end at this session's pace, evaluations included.
    fn seconds_left(&self, step: u64) -> f64 {
        let taken = step.saturating_sub(self.start).max(1);
        let remaining = self.total.saturating_sub(step);
        self.started.elapsed().as_secs_f64() * remaining as f64 / taken as f64
    }
}

/// The most telling first: a narrow terminal cuts the end off.
fn status(record: &TrainRecord, heldout: Option<f64>, seconds_left: f64) -> String {
    let mut parts = vec![format!("{} left", duration(seconds_left))];
    parts.push(format!("loss {}", figure(record.loss)));
    parts.extend(heldout.map(|loss| format!("held-out {}", figure(loss))));
    parts.push(format!("{} tokens/s", count(record.tokens_per_s)));
    if record.skipped > 0 {
        parts.push(format!("{} skipped", record.skipped));
    }
    parts.join(" · ")
}

/// A closed stderr is no reason to stop training, so a failure to print is ignored.
fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_names_what_there_is() {
        let mut record = TrainRecord {
            step: 7,
            loss: 4.56789,
            pair_loss: None,
            lr: 3e-4,
            grad_norm: 1.0,
            tokens: 7 << 13,
            tokens_per_s: 61_234.0,
            seconds: 1.0,
            skipped: 0,
        };
        assert_eq!(status(&record, None, 125.0), "2 min 5 s left · loss 4.568 · 61.2k tokens/s");
        record.skipped = 2;
        record.loss = f64::NAN;
        assert_eq!(
            status(&record, Some(4.6), 0.0),
            "0 s left · loss – · held-out 4.600 · 61.2k tokens/s · 2 skipped"
        );
    }
}
