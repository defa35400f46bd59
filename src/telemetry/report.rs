//! `report.html`: one page that shows a run, made from `metrics.jsonl` and needing nothing else.
//!
//! No script and nothing fetched, which the page's own content policy enforces; colours follow the
//! reader's light or dark preference, the layout any width. Made at the end of a run, or at any
//! time, of a running one too, by `warpwright report`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::format::{commas, count, date, duration, figure};
use super::metrics::{self, BLANK, Record, Sample};
use super::metrics::{
    EnergyRecord, EvalRecord, NoteRecord, OpTime, OpsRecord, RunRecord, SamplesRecord,
};
use super::metrics::{Guess, TrainRecord};
use super::svg::{Axis, Chart, Mark, Point, Series, escape, smooth};
use super::{Error, Result};

/// The report's name in a run directory.
pub const FILE: &str = "report.html";

const STYLE: &str = include_str!("report.css");
/// Marks a chart and lines a list of events can hold without drowning the rest.
const MOST_NOTES: usize = 40;

/// Writes the report of the run in directory `run` to `output`, or beside its metrics; returns
/// where it went.
///
/// # Errors
/// As [`metrics::read`]; [`Error::Empty`] for a log without records; [`Error::Write`].
pub fn write(run: &Path, output: Option<&Path>) -> Result<PathBuf> {
    let path = run.join(metrics::FILE);
    let log = metrics::read(&path)?;
    if log.records.is_empty() {
        return Err(Error::Empty { path });
    }
    let output = output.map_or_else(|| run.join(FILE), Path::to_path_buf);
    fs::write(&output, render(&log.records)).map_err(Error::write(&output))?;
    Ok(output)
}

/// The page for these records, whatever is missing among them.
pub fn render(records: &[Record]) -> String {
    let run = Run::new(records);
    let name = run.facts.map_or("Training run", |facts| &facts.preset);
    let sections = [header, tiles, charts, ops, samples, notes].map(|show| show(&run)).concat();
    page(name, &sections)
}

/// A page that needs nothing else, with these sections.
pub fn page(name: &str, sections: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n\
         <meta name='viewport' content='width=device-width, initial-scale=1'>\n\
         <meta name='color-scheme' content='light dark'>\n\
         <meta http-equiv='Content-Security-Policy' \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{} · warpwright</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         {sections}</main>\n</body>\n</html>\n",
        escape(name)
    )
}

/// A run's records by kind.
#[derive(Default)]
struct Run<'a> {
    facts: Option<&'a RunRecord>,
    steps: Vec<&'a TrainRecord>,
    evals: Vec<&'a EvalRecord>,
    ops: Option<&'a OpsRecord>,
    energy: Option<&'a EnergyRecord>,
    notes: Vec<&'a NoteRecord>,
    samples: Option<&'a SamplesRecord>,
}

impl<'a> Run<'a> {
    fn new(records: &'a [Record]) -> Self {
        let mut run = Self::default();
        for record in records {
            match record {
                Record::Run(r) => run.facts = Some(r),
                Record::Train(r) => run.steps.push(r),
                Record::Eval(r) => run.evals.push(r),
                Record::Ops(r) => run.ops = Some(r),
                Record::Energy(r) => run.energy = Some(r),
                Record::Note(r) => run.notes.push(r),
                Record::Samples(r) => run.samples = Some(r),
            }
        }
        run
    }

    /// One value a step, where there is one.
    fn series(&self, value: impl Fn(&TrainRecord) -> Option<f64>) -> Vec<Point> {
        self.steps.iter().filter_map(|r| Some((r.step as f64, value(r)?))).collect()
    }

    fn eval_series(&self, value: impl Fn(&EvalRecord) -> Option<f64>) -> Vec<Point> {
        self.evals.iter().filter_map(|r| Some((r.step as f64, value(r)?))).collect()
    }

    fn baseline(&self) -> Option<f64> {
        self.facts?.baseline.filter(|loss| loss.is_finite())
    }
}

fn header(run: &Run) -> String {
    let Some(facts) = run.facts else {
        return "<header><p class='kicker'>warpwright</p><h1>Training run</h1></header>\n".into();
    };
    format!(
        "<header><p class='kicker'>warpwright {}</p>\n<h1>{} <span class='chip'>{}</span></h1>\n\
         <p class='facts'><span>{}</span> <span>{}</span> <span>{} thread{}</span> \
         <span>{} tokens a step</span></p></header>\n",
        escape(&facts.version),
        escape(&facts.preset),
        escape(&facts.objective),
        date(facts.started),
        escape(&facts.device),
        facts.threads,
        if facts.threads == 1 { "" } else { "s" },
        commas(facts.tokens_per_step)
    )
}

fn tiles(run: &Run) -> String {
    let mut out = String::from("<section class='tiles' aria-label='Summary'>\n");
    let mut tile = |label: &str, value: String, more: String| {
        let _ = writeln!(
            out,
            "<div class='tile'><p class='label'>{label}</p><p class='value'>{value}</p>\
             <p class='more'>{more}</p></div>"
        );
    };
    let smoothed = smooth(&run.series(|r| Some(r.loss)), window(run));
    let (label, loss) = match (run.evals.last(), smoothed.last()) {
        (Some(eval), _) => ("Held-out loss", eval.loss),
        (None, Some(point)) => ("Training loss", point.1),
        (None, None) => ("Loss", f64::NAN),
    };
    let unigram = |of: fn(f64) -> f64| run.baseline().map(|b| format!("unigram {}", figure(of(b))));
    tile(label, figure(loss), unigram(|b| b).unwrap_or_else(|| "nats a token".into()));
    tile("Perplexity", figure(loss.exp()), unigram(f64::exp).unwrap_or_default());
    if let Some(facts) = run.facts {
        let family = escape(&facts.family);
        tile("Parameters", count(facts.parameters as f64), family);
    }
    let last = run.steps.last();
    let steps = match (last.map_or(0, |r| r.step), run.facts) {
        (taken, Some(facts)) if taken < facts.steps => {
            format!("{} of {} steps", commas(taken), commas(facts.steps))
        }
        (taken, _) => format!("{} steps", commas(taken)),
    };
    tile("Tokens seen", count(last.map_or(0, |r| r.tokens) as f64), steps);
    tile(
        "Tokens a second",
        count(median(run.steps.iter().map(|r| r.tokens_per_s))),
        "median".into(),
    );
    let skipped = match last.map_or(0, |r| r.skipped) {
        0 => "no step skipped".into(),
        1 => "1 step skipped".into(),
        n => format!("{} steps skipped", commas(n)),
    };
    tile("Training time", duration(last.map_or(0.0, |r| r.seconds)), skipped);
    if let Some(EnergyRecord { step, joules }) = run.energy {
        tile("Energy", format!("{} J", count(*joules)), format!("to step {}", commas(*step)));
    }
    out + "</section>\n"
}

/// Half the width of the smoothing window, in steps recorded.
fn window(run: &Run) -> usize {
    run.steps.len() / 80
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn charts(run: &Run) -> String {
    let evaluated = run.evals.last().map_or(0, |r| r.step);
    let last_step = run.steps.last().map_or(0, |r| r.step).max(evaluated) as f64;
    let chart = |title, unit, axis, series: Vec<Series>| Chart {
        title,
        unit,
        axis,
        series: series.into_iter().filter(|s| !s.points.is_empty()).collect(),
        baseline: None,
        marks: Vec::new(),
        marks_label: "",
        last_step,
    };
    let line = |label, class, points| Series { label, class, points, dots: false };
    let dots = |label, class, points| Series { label, class, points, dots: true };
    // What varies from step to step: faint as it is, and on top its smoothed course.
    let noisy = |value: fn(&TrainRecord) -> Option<f64>| {
        let raw = run.series(value);
        if window(run) == 0 {
            return vec![line("each step", "train", raw)];
        }
        let smoothed = smooth(&raw, window(run));
        vec![line("each step", "raw", raw), line("smoothed", "train", smoothed)]
    };

    let mut series = noisy(|r| Some(r.loss));
    series.push(dots("held-out", "heldout", run.eval_series(|r| Some(r.loss))));
    let mut loss = chart("Loss", "nats a token", Axis::Fit, series);
    loss.baseline = run.baseline().map(|loss| (loss, "unigram"));
    let recent = run.notes.iter().rev().take(MOST_NOTES);
    loss.marks = recent.map(|n| Mark { step: n.step as f64, text: n.text.clone() }).collect();
    loss.marks_label = "event";

    let series = vec![line("learning rate", "train", run.series(|r| Some(r.lr)))];
    let rate = chart("Learning rate", "", Axis::Zero, series);

    let series = noisy(|r| Some(r.grad_norm));
    let mut norm = chart("Gradient norm", "before clipping", Axis::Log, series);
    norm.marks = skipped_steps(run);
    norm.marks_label = "skipped step";

    let series = noisy(|r| Some(r.tokens_per_s));
    let throughput = chart("Throughput", "tokens a second", Axis::Zero, series);

    let percent = |share: f64| 100.0 * share;
    let series = vec![
        dots("token", "heldout", run.eval_series(|r| Some(percent(r.accuracy)))),
        dots("pair", "pair", run.eval_series(|r| r.pair_accuracy.map(percent))),
    ];
    let accuracy = chart("Held-out accuracy", "%", Axis::Zero, series);

    let series = noisy(|r| r.pair_loss);
    let pair = chart("Pair loss", "nats a pair", Axis::Fit, series);

    let small = [rate, norm, throughput, accuracy, pair];
    let small = small.iter().filter(|chart| chart.title != "Pair loss" || !chart.series.is_empty());
    format!(
        "<section><h2>Training <small>by step</small></h2>\n<div class='large'>{}</div>\n\
         <div class='small'>\n{}</div></section>\n",
        loss.render(),
        small.map(Chart::render).collect::<String>()
    )
}

/// Steps at which the count of skipped steps rose.
fn skipped_steps(run: &Run) -> Vec<Mark> {
    let mut before = 0;
    let mut marks = Vec::new();
    for r in &run.steps {
        if r.skipped > before {
            marks.push(Mark { step: r.step as f64, text: "skipped, not finite".into() });
        }
        before = r.skipped;
    }
    marks.split_off(marks.len().saturating_sub(MOST_NOTES))
}

/// Bars and figures in one table, which turns into a list on narrow screens.
fn ops(run: &Run) -> String {
    let Some(record) = run.ops else { return String::new() };
    let mut ops: Vec<_> = record.ops.iter().collect();
    ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let total: f64 = ops.iter().map(|op| op.seconds).filter(|s| s.is_finite()).sum();
    let longest = ops.iter().map(|op| op.seconds).fold(0.0, f64::max);
    let steps = record.steps.max(1) as f64;
    let mut rows = String::new();
    for op in ops {
        op_row(&mut rows, op, total, longest, steps);
    }
    format!(
        "<section><h2>Time by op</h2>\n<div class='card'><p class='lead'>{} ms a step in ops, \
         measured over {} step{} ending at step {}.</p>\n<table class='ops'><thead><tr>\
         <th scope='col'>Op</th><th scope='col' class='bar'>Share of time</th>\
         <th scope='col'>%</th><th scope='col'>ms/step</th><th scope='col'>calls/step</th>\
         <th scope='col'>GFLOP/s</th><th scope='col'>GB/s</th></tr></thead>\n<tbody>\n\
         {rows}</tbody></table></div></section>\n",
        figure(1e3 * total / steps),
        commas(record.steps),
        if record.steps == 1 { "" } else { "s" },
        commas(record.step)
    )
}

fn op_row(out: &mut String, op: &OpTime, total: f64, longest: f64, steps: f64) {
    // Of what took no measurable time, or did no arithmetic, there is no rate to speak of.
    let rate = |amount: u64| match amount as f64 / op.seconds / 1e9 {
        rate if amount > 0 && rate.is_finite() => figure_short(rate),
        _ => "–".into(),
    };
    let share = |whole: f64| if whole > 0.0 { 100.0 * op.seconds / whole } else { 0.0 };
    let _ = writeln!(
        out,
        "<tr><th scope='row'>{}</th><td class='bar'><svg aria-hidden='true'>\
         <rect width='{:.2}%' height='100%' rx='3'/></svg></td><td data-label='%'>{:.1}</td>\
         <td data-label='ms/step'>{}</td><td class='calls' data-label='calls/step'>{}</td>\
         <td data-label='GFLOP/s'>{}</td><td data-label='GB/s'>{}</td></tr>",
        escape(&op.op),
        share(longest),
        share(total),
        figure_short(1e3 * op.seconds / steps),
        count(op.calls as f64 / steps),
        rate(op.flops),
        rate(op.bytes)
    );
}

/// Enough digits for a table cell: `0.04`, `3.2`, `145`.
fn figure_short(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "–".into(),
        v if v >= 100.0 => commas(value.round() as u64),
        v if v >= 1.0 => format!("{value:.1}"),
        v if v >= 0.01 => format!("{value:.2}"),
        _ => figure(value),
    }
}

fn samples(run: &Run) -> String {
    let Some(record) = run.samples.filter(|r| !r.items.is_empty()) else { return String::new() };
    let cards: String = record.items.iter().map(sample).collect();
    let heading = match record.items[0] {
        Sample::Filled { .. } => "Words it fills in",
        Sample::Generated { .. } => "What it writes",
    };
    format!(
        "<section><h2>{heading} <small>at step {}</small></h2>\n<div class='samples'>\n{cards}\
         </div></section>\n",
        commas(record.step)
    )
}

fn sample(item: &Sample) -> String {
    match item {
        Sample::Filled { text, answer, guesses } => {
            let blank = "<span class='blank' role='img' aria-label='blank'></span>";
            let text = escape(text).replace(BLANK, blank);
            let answer = answer.as_deref().map(str::trim);
            let guessed = guesses.iter().any(|g| Some(g.token.trim()) == answer);
            let missed = answer.filter(|_| !guessed).map(|answer| {
                format!("<p class='missed'>The word was <b>{}</b>.</p>", escape(answer))
            });
            let list: String = guesses.iter().map(|g| guess(g, answer)).collect();
            format!(
                "<article class='card sample'><p class='text'>{text}</p>\n<ol>{list}</ol>{}\
                 </article>\n",
                missed.unwrap_or_default()
            )
        }
        Sample::Generated { prompt, text } => format!(
            "<article class='card sample'><p class='text written'><b>{}</b>{}</p></article>\n",
            escape(prompt),
            escape(text)
        ),
    }
}

fn guess(guess: &Guess, answer: Option<&str>) -> String {
    let token = guess.token.trim();
    let percent = 100.0 * guess.probability;
    let (class, verdict) = match answer == Some(token) {
        true => (" class='right'", " <span role='img' aria-label='right'>✓</span>"),
        false => ("", ""),
    };
    format!(
        "<li{class}><span class='token'>{}{verdict}</span><svg aria-hidden='true'>\
         <rect width='{percent:.1}%' height='100%' rx='3'/></svg>\
         <span class='share'>{percent:.1}%</span></li>",
        escape(token)
    )
}

fn notes(run: &Run) -> String {
    if run.notes.is_empty() {
        return String::new();
    }
    let earlier = run.notes.len().saturating_sub(MOST_NOTES);
    let mut items = match earlier {
        0 => String::new(),
        n => format!("<li class='earlier'>{} earlier events</li>\n", commas(n as u64)),
    };
    for note in &run.notes[earlier..] {
        let (step, text) = (commas(note.step), escape(&note.text));
        let _ = writeln!(items, "<li><b>step {step}</b> {text}</li>");
    }
    format!("<section><h2>Events</h2>\n<ul class='card notes'>\n{items}</ul></section>\n")
}
