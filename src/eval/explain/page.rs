//! The page of an explained prediction: one file, no script, light and dark.

use std::fmt::Write;

use super::Explained;
use crate::telemetry::report::page;
use crate::telemetry::svg::escape;

/// What a page tells.
pub struct Told<'a> {
    /// The model, and what kind it is.
    pub model: &'a str,
    pub kind: &'a str,
    /// [T]
    pub tokens: &'a [String],
    /// The likeliest outputs, best first, and their probabilities (or values).
    pub outputs: &'a [(String, f64)],
    /// Of them, the one that is explained.
    pub explained: usize,
    /// What the outputs are, in words.
    pub question: &'a str,
    pub is_value: bool,
    pub found: &'a Explained,
}

/// Shades of a map.
const SHADES: usize = 10;
/// Keys that a row's tip names.
const NAMED: usize = 5;
/// The share of a head's attention that makes a habit of it.
const HABIT: f64 = 0.4;

const STYLE: &str = "<style>\n\
    .tokens { display: flex; flex-wrap: wrap; gap: 8px 4px; }\n\
    .token-box { text-align: center; min-width: 2.4em; max-width: 100%; }\n\
    .token-box b { display: block; font-weight: 500; padding: 3px 7px; border-radius: 6px; \
    overflow-wrap: anywhere; white-space: pre-wrap; background: color-mix(in srgb, var(--with) \
    var(--share), transparent); }\n\
    .token-box small { font-size: 11px; color: var(--soft); }\n\
    section > h3 { display: block; margin: 18px 0 8px; }\n\
    .tokens + .legend { margin-top: 14px; }\n\
    .for { --with: var(--train); } .against { --with: var(--heldout); }\n\
    .legend .for::before { color: var(--train); border-top-width: 8px; } \
    .legend .against::before { color: var(--heldout); border-top-width: 8px; }\n\
    .maps { display: grid; gap: 14px; \
    grid-template-columns: repeat(auto-fill, minmax(136px, 1fr)); }\n\
    .maps figcaption { color: var(--soft); font-size: 12px; line-height: 1.3; \
    min-height: 2.6em; }\n\
    .maps figcaption b { color: var(--ink); font-weight: 550; }\n\
    .map { display: block; width: 100%; aspect-ratio: 1; background: var(--page); \
    border: 1px solid var(--edge); }\n\
    .map path { fill: var(--train); }\n\
    .map rect { fill: transparent; } .map rect:hover { fill: var(--ink); fill-opacity: 0.18; }\n\
    .outputs { list-style: none; padding: 0; max-width: 560px; }\n\
    .sample .token { white-space: pre; }\n</style>\n";

/// The page.
pub fn render(told: &Told) -> String {
    let sections = [STYLE.into(), header(told), outputs(told), saliency(told), maps(told)].concat();
    page(told.model, &sections)
}

fn header(told: &Told) -> String {
    format!(
        "<header><p class='kicker'>warpwright explain</p>\n<h1>{} <span class='chip'>{}</span></h1>\
         </header>\n",
        escape(told.model),
        escape(told.kind)
    )
}

fn outputs(told: &Told) -> String {
    let largest =
        told.outputs.iter().map(|(_, value)| value.abs()).fold(f64::MIN_POSITIVE, f64::max);
    let item = |(i, (name, value)): (usize, &(String, f64))| {
        let (wide, shown) = match told.is_value {
            true => (100.0 * value.abs() / largest, format!("{value:.3}")),
            false => (100.0 * value, format!("{:.1}%", 100.0 * value)),
        };
        let class = if i == told.explained { " class='right'" } else { "" };
        format!(
            "<li{class}><span class='token'>{}</span><svg aria-hidden='true'><rect \
             width='{wide:.1}%' height='100%' rx='3'/></svg>\
             <span class='share'>{shown}</span></li>\n",
            escape(&visible(name))
        )
    };
    format!(
        "<section><h2>{} <small>bold: what is explained below</small></h2>\n<div class='card \
         sample'><ol class='outputs'>\n{}</ol></div></section>\n",
        escape(told.question),
        told.outputs.iter().enumerate().map(item).collect::<String>()
    )
}

fn saliency(told: &Told) -> String {
    let saliency = &told.found.saliency;
    let largest = saliency.iter().map(|s| s.abs()).fold(f64::MIN_POSITIVE, f64::max);
    // Two digits of the largest.
    let decimals = (1.0 - largest.log10().floor()).clamp(0.0, 12.0) as usize;
    let token = |(token, s): (&String, &f64)| {
        let class = if *s < 0.0 { "against" } else { "for" };
        // Half the colour at most: text stays legible on it.
        let share = 50.0 * s.abs() / largest;
        format!(
            "<span class='token-box {class}'><b style='--share: {share:.0}%'>{}</b>\
             <small>{s:+.decimals$}</small></span>\n",
            escape(&visible(token)),
        )
    };
    let what = if told.is_value { "the value" } else { "log p" };
    format!(
        "<section><h2>What each token adds <small>gradient × input of {what} of {}</small></h2>\n\
         <div class='card'><div class='tokens'>\n{}</div>\n<ul class='legend'>\
         <li class='for'>speaks for it</li><li class='against'>speaks against it</li></ul>\
         </div></section>\n",
        escape(&visible(&told.outputs[told.explained].0)),
        told.tokens.iter().zip(saliency).map(token).collect::<String>()
    )
}

/// A token that can be seen.
fn visible(token: &str) -> String {
    match token.trim() {
        "" if token.contains('\n') => "⏎".into(),
        "" => "␣".into(),
        _ => token.replace('\n', "⏎"),
    }
}

fn maps(told: &Told) -> String {
    let mut out = String::from(
        "<section><h2>Where attention looks <small>a map a head</small></h2>\n<p class='lead'>Rows \
         are tokens that look, from the first at the top; columns those that are looked at, from \
         the left; the stronger the colour, the more. Point at a row to read it. Under a map: \
         where most of its attention goes, if it has such a habit.</p>\n",
    );
    for (l, heads) in told.found.attention.iter().enumerate() {
        let figures = heads.iter().enumerate().map(|(h, map)| figure(l, h, map, told.tokens));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<h3>Layer {}</h3>\n<div class='card maps'>\n{}</div>",
            l + 1,
            figures.collect::<String>()
        );
    }
    out + "</section>\n"
}

fn figure(l: usize, h: usize, map: &[f64], tokens: &[String]) -> String {
    let n = tokens.len();
    let mut cells = vec![String::new(); SHADES + 1];
    for (at, p) in map.iter().enumerate() {
        // Small shares are seen too.
        let shade = (p.sqrt() * SHADES as f64).round() as usize;
        let _ = write!(cells[shade.min(SHADES)], "M{} {}h1v1h-1z", at % n, at / n);
    }
    let shaded = cells.iter().enumerate().skip(1).filter(|(_, path)| !path.is_empty());
    let shaded = shaded.map(|(shade, path)| {
        format!("<path fill-opacity='{:.1}' d='{path}'/>", shade as f64 / SHADES as f64)
    });
    let rows = map.chunks_exact(n).enumerate().map(|(i, row)| {
        let tip = escape(&tip(i, row, tokens));
        format!("<rect y='{i}' width='{n}' height='1'><title>{tip}</title></rect>")
    });
    let name = format!("Layer {}, head {}", l + 1, h + 1);
    format!(
        "<figure><svg class='map' viewBox='0 0 {n} {n}' shape-rendering='crispEdges' role='img' \
         aria-label='{name}'>{}{}</svg><figcaption><b>head {}</b>{}</figcaption></figure>\n",
        shaded.collect::<String>(),
        rows.collect::<String>(),
        h + 1,
        habit(map, n).map_or(String::new(), |habit| format!(" {habit}"))
    )
}

/// `whale looks at the 61%, sea 20%`
fn tip(i: usize, row: &[f64], tokens: &[String]) -> String {
    let mut keys: Vec<usize> = (0..row.len()).collect();
    keys.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    let named = keys.iter().take(NAMED).filter(|&&j| row[j] >= 0.01);
    let named = named.map(|&j| format!("{} {:.0}%", visible(&tokens[j]), 100.0 * row[j]));
    format!("{} looks at {}", visible(&tokens[i]), named.collect::<Vec<_>>().join(", "))
}

/// Where most of a head's attention goes, if that can be said in a word.
fn habit(map: &[f64], n: usize) -> Option<String> {
    let mean = |key: &dyn Fn(usize) -> Option<usize>| {
        let share = |i: usize| key(i).map(|j| map[i * n + j]);
        (0..n).filter_map(share).sum::<f64>() / n as f64
    };
    let habits = [
        ("the first token", mean(&|_| Some(0))),
        ("the last token", mean(&|_| Some(n - 1))),
        ("itself", mean(&|i| Some(i))),
        ("the token before", mean(&|i| i.checked_sub(1))),
        ("the next token", mean(&|i| Some(i + 1).filter(|&j| j < n))),
    ];
    let (name, share) = habits.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (share >= HABIT).then(|| format!("{name} {:.0}%", 100.0 * share))
}
