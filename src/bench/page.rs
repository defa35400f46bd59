//! A report as one page that needs nothing else: a roofline, and of a step its time line.
//!
//! The roofline (Williams, Waterman, Patterson 2009) sets each row's rate of operations against
//! its operations a byte; above it lies min(compute, operations a byte · bandwidth). It looks as
//! the report of a run does, and like it takes no script: a pointer that rests on a mark shows the
//! browser's own tip.

use std::fmt::Write;

use super::report::{Report, Row, StepFacts};
use crate::telemetry::format::{count, figure};
use crate::telemetry::report::page;
use crate::telemetry::svg::escape;

/// What the ops of a step are drawn as: the beginning of their names, a class of the style below,
/// and what they are called. The last takes all others.
const KINDS: [(&[&str], &str, &str); 5] = [
    (&["linear"], "k0", "products"),
    (&["attention"], "k1", "attention"),
    (&["norm", "add_norm"], "k2", "norms"),
    (&["head_loss"], "k3", "head and loss"),
    (&[""], "k4", "other"),
];

const STYLE: &str = "<style>\n\
    .k0 { fill: var(--train); color: var(--train); } .k1 { fill: var(--heldout); color: \
    var(--heldout); }\n.k2 { fill: var(--pair); color: var(--pair); } .k3 { fill: var(--mark); \
    color: var(--mark); }\n.k4 { fill: var(--soft); color: var(--soft); }\n\
    .legend .k0::before, .legend .k1::before, .legend .k2::before, .legend .k3::before, \
    .legend .k4::before { color: inherit; }\n\
    .time { display: block; width: 100%; height: 56px; }\n\
    .scroll { overflow-x: auto; }\n.roof { stroke: var(--soft); }\n</style>\n";

/// The page.
pub fn render(report: &Report) -> String {
    let step = report.step.as_ref().map_or(String::new(), time_line);
    let sections = [STYLE.into(), header(report), roofline(report), step, table(report)].concat();
    page(&format!("{}, {}", report.device.name, report.kind), &sections)
}

/// The class of an op, and what it is called.
fn kind(op: &str) -> (&'static str, &'static str) {
    let of = KINDS.iter().find(|(starts, ..)| starts.iter().any(|start| op.starts_with(start)));
    of.map_or(("k4", "other"), |(_, class, label)| (class, label))
}

fn legend() -> String {
    let items = KINDS.iter().map(|(_, class, label)| format!("<li class='{class}'>{label}</li>"));
    format!("<ul class='legend'>{}</ul>", items.collect::<String>())
}

fn header(report: &Report) -> String {
    let (device, ceilings) = (&report.device, &report.ceilings);
    let emulated = match device.place.as_str() {
        "emulator" => "<p class='facts'>The emulator's times: they say nothing of a GPU.</p>",
        _ => "",
    };
    let mut out = format!(
        "<header><p class='kicker'>warpwright {} bench</p>\n<h1>{} <span class='chip'>{}</span>\
         </h1>\n<p class='facts'><span>{}</span> <span>copy {} B/s</span> <span>product {} FLOP/s\
         , by {}</span></p>{emulated}</header>\n",
        escape(&report.version),
        escape(&device.name),
        escape(&report.kind),
        escape(&report.what),
        count(ceilings.bytes_per_s),
        count(ceilings.flops_per_s),
        escape(&ceilings.product_of),
    );
    if let Some(step) = &report.step {
        let idle = format!("in no op: {:.1}% of the step", 100.0 * step.idle_share);
        let tiles = [
            ("A step", format!("{} ms", figure(1e3 * step.seconds)), "median".to_string()),
            ("Tokens a second", count(step.tokens_per_s), "all real".into()),
            ("Sequences a second", figure(step.sequences_per_s), String::new()),
            ("MFU", format!("{:.1}%", 100.0 * step.mfu), format!("of {} FLOP/s", count(step.peak))),
            ("Idle", format!("{} ms", figure(1e3 * step.idle)), idle),
            ("Floor", format!("{} ms", figure(1e3 * step.floor)), "of its ops".into()),
        ];
        let predicted = step.predicted.as_ref().map(|plan| {
            let times =
                format!("{} plan; took {:.2} times it", plan.gpu, step.seconds / plan.seconds);
            ("Predicted", format!("{} ms", figure(1e3 * plan.seconds)), times)
        });
        let energy = step.energy.map(|energy| {
            ("Energy", format!("{} mJ", figure(1e3 * energy.per_token)), "a token".into())
        });
        let tiles = tiles.into_iter().chain(predicted).chain(energy).map(|(label, value, more)| {
            format!(
                "<div class='tile'><p class='label'>{label}</p><p class='value'>{value}</p>\
                 <p class='more'>{more}</p></div>\n"
            )
        });
        let _ = write!(out, "<section class='tiles'>\n{}</section>\n", tiles.collect::<String>());
    }
    out
}

/// Powers of ten that hold all values, at least one apart.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value.log10()), high.max(value.log10()))
    });
    if low > high {
        return (0, 1);
    }
    let (low, high) = (low.floor() as i32, high.ceil() as i32);
    (low, high.max(low + 1))
}

fn roofline(report: &Report) -> String {
    let ceilings = &report.ceilings;
    let drawn = |row: &&Row| {
        [row.flops, row.bytes, row.flops_per_s].iter().all(|v| v.is_finite() && *v > 0.0)
    };
    let rows: Vec<&Row> = report.rows.iter().filter(drawn).collect();
    let intensity = |row: &Row| row.flops / row.bytes;
    let ridge = ceilings.flops_per_s / ceilings.bytes_per_s;
    let (x0, x1) = decades(rows.iter().map(|row| intensity(row)).chain([ridge]));
    let rates = rows.iter().map(|row| row.flops_per_s).chain([ceilings.flops_per_s]);
    let (y0, y1) = decades(rates);
    // Percent of the plot, from its upper left.
    let left = |v: f64| 100.0 * (v.log10() - f64::from(x0)) / f64::from(x1 - x0);
    let top = |v: f64| 100.0 - 100.0 * (v.log10() - f64::from(y0)) / f64::from(y1 - y0);
    let mut out = String::new();
    // Writing to a String cannot fail.
    for decade in y0..=y1 {
        let (value, y) = (10f64.powi(decade), top(10f64.powi(decade)));
        let _ = writeln!(
            out,
            "<line class='grid' x1='0' x2='100%' y1='{y:.2}%' y2='{y:.2}%'/>\
             <text class='tick y' x='-8' y='{y:.2}%' dy='4'>{}</text>",
            count(value)
        );
    }
    for decade in x0..=x1 {
        let (value, x) = (10f64.powi(decade), left(10f64.powi(decade)));
        let value = if value < 1.0 { format!("{value}") } else { count(value) };
        let _ = writeln!(out, "<text class='tick x' x='{x:.2}%' y='100%' dy='20'>{value}</text>");
    }
    // The roof falls to the left of its ridge, and leaves the plot on the left or at the bottom.
    let start = 10f64.powi(x0).max(10f64.powi(y0) / ceilings.bytes_per_s);
    let roof = [(start, start * ceilings.bytes_per_s), (ridge, ceilings.flops_per_s)];
    let _ = writeln!(
        out,
        "<line class='roof' x1='{:.2}%' y1='{:.2}%' x2='{:.2}%' y2='{:.2}%'/>\
         <line class='roof' x1='{:.2}%' y1='{:.2}%' x2='100%' y2='{:.2}%'/>",
        left(roof[0].0),
        top(roof[0].1),
        left(roof[1].0),
        top(roof[1].1),
        left(roof[1].0),
        top(roof[1].1),
        top(roof[1].1),
    );
    for row in rows {
        let _ = writeln!(
            out,
            "<circle class='{} dot' cx='{:.2}%' cy='{:.2}%' r='5'><title>{} {}: {} µs, {:.1}% of \
             the ceiling</title></circle>",
            kind(&row.op).0,
            left(intensity(row)),
            top(row.flops_per_s),
            escape(&row.op),
            escape(&row.shape),
            figure(1e6 * row.seconds),
            100.0 * row.of_ceiling,
        );
    }
    format!(
        "<section class='large'><h2>Roofline <small>operations a second by operations a byte; what \
         does no arithmetic is in the table alone</small></h2>\n<figure class='card'>{}\
         <div class='plot'><svg role='img' aria-label='Roofline'>\n{out}</svg></div></figure>\
         </section>\n",
        legend()
    )
}

/// Calls of a step end to end; what is idle is not drawn.
fn time_line(step: &StepFacts) -> String {
    let total: f64 = step.sequence.iter().map(|(_, seconds)| seconds).sum();
    if total.is_nan() || total <= 0.0 {
        return String::new();
    }
    let (mut out, mut at) = (String::new(), 0.0);
    for (op, seconds) in &step.sequence {
        let _ = write!(
            out,
            "<rect class='{}' x='{:.3}%' width='{:.3}%' height='100%'><title>{op}: {} µs, from {} \
             ms on</title></rect>",
            kind(op).0,
            100.0 * at / total,
            100.0 * seconds / total,
            figure(1e6 * seconds),
            figure(1e3 * at),
        );
        at += seconds;
    }
    format!(
        "<section><h2>A step, call by call <small>{} ms in {} calls</small></h2>\n\
         <figure class='card'><svg class='time' role='img' aria-label='Time line'>{out}</svg>{}\
         </figure></section>\n",
        figure(1e3 * total),
        step.sequence.len(),
        legend()
    )
}

fn table(report: &Report) -> String {
    const HEADS: [&str; 7] = ["calls", "µs", "TFLOP/s", "TB/s", "bound", "of ceiling", "of floor"];
    let peers = report.peers();
    let mut heads = HEADS.to_vec();
    heads.extend(peers.iter().flat_map(|_| ["cuBLASLt µs", "cuBLASLt / ours"]));
    let row = |row: &Row| {
        let mut cells = vec![
            row.calls.to_string(),
            figure(1e6 * row.seconds),
            figure(row.flops_per_s / 1e12),
            figure(row.bytes_per_s / 1e12),
            escape(&row.bound),
            format!("{:.1}%", 100.0 * row.of_ceiling),
            format!("{:.1}%", 100.0 * row.of_floor),
        ];
        let peer = row.peer.as_ref().zip(row.ratio());
        cells.extend(
            peer.iter()
                .flat_map(|(peer, ratio)| [figure(1e6 * peer.seconds), format!("{ratio:.2}")]),
        );
        cells.resize(heads.len(), String::new());
        let cells = heads.iter().zip(cells);
        let cells = cells.map(|(head, cell)| format!("<td data-label='{head}'>{cell}</td>"));
        let (op, shape) = (escape(&row.op), escape(&row.shape));
        let cells: String = cells.collect();
        format!("<tr><th scope='row'>{op} <small>{shape}</small></th>{cells}</tr>\n")
    };
    let rows: String = report.rows.iter().map(row).collect();
    let columns = heads.iter().map(|head| format!("<th scope='col'>{head}</th>"));
    let heads: String = columns.collect();
    let said = peers.map_or(String::new(), |said| format!(" <small>cuBLASLt {said}</small>"));
    format!(
        "<section><h2>Rows{said}</h2>\n<div class='card scroll'><table class='ops'><thead><tr>\
         <th scope='col'>Op</th>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\
         </section>\n"
    )
}
