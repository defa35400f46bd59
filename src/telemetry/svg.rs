//! Line charts as SVG that fit any width without a script.
//!
//! A viewBox that scales would shrink the text with the chart. So positions are percentages of an
//! outer `<svg>` as wide as its box, whose text keeps its size, and only the curves live in an
//! inner `<svg>` that stretches a 1000 × 1000 square (strokes exempt) over the same area. Hovering
//! shows values: each chart has a row of transparent probes, each holding its own text.

use std::fmt::Write;

use super::format::{commas, count, figure, scientific};

/// Points drawn a line: more than any screen can tell apart, so that long runs stay small pages.
const MOST_POINTS: usize = 1000;
/// Columns that answer to the pointer.
const MOST_PROBES: usize = 100;
/// Distances between ticks that an axis should have, about.
const TICKS: usize = 5;

/// (step, value); a value that is not finite is a gap.
pub type Point = (f64, f64);

pub struct Series {
    pub label: &'static str,
    /// CSS class, which gives the colour.
    pub class: &'static str,
    pub points: Vec<Point>,
    /// Marks each point, as far as they are few.
    pub dots: bool,
}

impl Series {
    fn finite(&self) -> impl DoubleEndedIterator<Item = Point> {
        self.points.iter().copied().filter(|p| p.1.is_finite())
    }

    /// The points that get a dot: those of few values, and one that is alone.
    fn dotted(&self) -> Option<Vec<Point>> {
        let most = if self.dots { MOST_PROBES } else { 1 };
        let points: Vec<_> = self.finite().take(most + 1).collect();
        (points.len() <= most).then_some(points)
    }
}

/// Something that happened at a step.
pub struct Mark {
    pub step: f64,
    pub text: String,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Axis {
    /// From the least value to the greatest.
    Fit,
    /// From zero.
    Zero,
    /// Logarithmic where the values span more than a factor of 20.
    Log,
}

pub struct Chart<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub axis: Axis,
    pub series: Vec<Series>,
    /// A value to compare with, and its name.
    pub baseline: Option<(f64, &'static str)>,
    pub marks: Vec<Mark>,
    /// What the marks are, for the legend.
    pub marks_label: &'static str,
    pub last_step: f64,
}

impl Chart<'_> {
    /// A `<figure>` with heading, legend and plot.
    pub fn render(&self) -> String {
        let (title, unit) = (escape(self.title), escape(self.unit));
        format!(
            "<figure class='card'>\n<figcaption><h3>{title}</h3> <span class='unit'>{unit}\
             </span>{}</figcaption>\n{}</figure>\n",
            self.legend(),
            if self.values().next().is_some() {
                self.plot()
            } else {
                "<p class='none'>Nothing recorded yet.</p>\n".into()
            }
        )
    }

    /// Finite values of all series.
    fn values(&self) -> impl Iterator<Item = f64> {
        self.series.iter().flat_map(Series::finite).map(|p| p.1)
    }

    fn legend(&self) -> String {
        let mut keys: Vec<_> = self.series.iter().map(|s| (s.class, s.label)).collect();
        keys.extend(self.baseline.map(|(_, label)| ("baseline", label)));
        if !self.marks.is_empty() {
            keys.push(("mark", self.marks_label));
        }
        if keys.len() < 2 {
            return String::new();
        }
        let item = |(class, label)| format!("<li class='{class}'>{label}</li>");
        format!("<ul class='legend'>{}</ul>", keys.into_iter().map(item).collect::<String>())
    }

    fn plot(&self) -> String {
        let y = self.y_scale();
        let x = Scale::steps(self.last_step);
        let at =
            |(step, value): Point| (100.0 * x.position(step), 100.0 - 100.0 * y.position(value));
        let mut out = format!(
            "<div class='plot'><svg role='img' aria-label='{}'><desc>{}</desc>\n",
            escape(self.title),
            escape(&self.description())
        );
        self.draw_axes(&mut out, &x, &y);
        let baseline =
            self.baseline.map(|(value, label)| (at((0.0, value)).1, label, figure(value)));
        if let Some((top, ..)) = baseline {
            let _ = writeln!(
                out,
                "<line class='baseline' x1='0' x2='100%' y1='{top:.2}%' y2='{top:.2}%'/>"
            );
        }
        out.push_str(
            "<svg width='100%' height='100%' viewBox='0 0 1000 1000' \
             preserveAspectRatio='none' class='curves'>",
        );
        for series in &self.series {
            let points = thin(&series.points, MOST_POINTS);
            let _ = write!(out, "<path class='{}' d='{}'/>", series.class, path(&points, at));
        }
        out.push_str("</svg>\n");
        self.draw_probes(&mut out, at);
        // Over all lines, so as to stay legible.
        if let Some((top, label, value)) = baseline {
            let _ = writeln!(
                out,
                "<text class='label' x='100%' y='{top:.2}%' dy='-6'>{label} {value}</text>"
            );
        }
        out.push_str("</svg></div>\n");
        out
    }

    fn y_scale(&self) -> Scale {
        let mut values: Vec<_> = self.values().chain(self.baseline.map(|b| b.0)).collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (values[0], values[values.len() - 1]);
        if self.axis == Axis::Log && least > 0.0 && greatest > 20.0 * least {
            return Scale::log(least / 1.2, greatest * 1.2);
        }
        // A few wild values (a loss that jumped) must not flatten everything else; they are drawn
        // at the upper edge.
        let common = values[(values.len() - 1) * 99 / 100];
        let high = if greatest > 3.0 * common && common > 0.0 { 1.5 * common } else { greatest };
        let low = if self.axis == Axis::Fit { least } else { least.min(0.0) };
        Scale::nice(low, high)
    }

    fn draw_axes(&self, out: &mut String, x: &Scale, y: &Scale) {
        for (tick, label) in y.ticks() {
            let top = 100.0 - 100.0 * y.position(tick);
            let _ = writeln!(
                out,
                "<line class='grid' x1='0' x2='100%' y1='{top:.2}%' y2='{top:.2}%'/>\
                 <text class='tick y' x='-8' y='{top:.2}%' dy='4'>{label}</text>"
            );
        }
        for (tick, label) in x.ticks() {
            let left = 100.0 * x.position(tick);
            let _ = writeln!(
                out,
                "<text class='tick x' x='{left:.2}%' y='100%' dy='20'>{label}</text>"
            );
        }
    }

    /// What the pointer can touch: columns for the last line, every dot, every mark.
    fn draw_probes(&self, out: &mut String, at: impl Fn(Point) -> (f64, f64)) {
        let mut probe = |shape: String, step: f64, text: String| {
            let (step, text) = (commas(step as u64), escape(&text));
            let text = format!("step {step} · {text}");
            let _ = writeln!(
                out,
                "<g class='probe'>{shape}<text class='label' x='100%' y='-10'>{text}</text></g>"
            );
        };
        let mut lines = self.series.iter().filter(|s| s.dotted().is_none());
        if let Some(line) = lines.clone().find(|s| s.class == "train").or(lines.next_back()) {
            let finite: Vec<_> = line.finite().collect();
            let shown: Vec<_> = finite.iter().step_by(finite.len() / MOST_PROBES + 1).collect();
            let width = 100.0 / shown.len().max(1) as f64;
            for &&point in &shown {
                let (left, top) = at(point);
                let shape = format!(
                    "<rect x='{:.2}%' width='{width:.2}%' height='100%'/>\
                     <circle class='{}' cx='{left:.2}%' cy='{top:.2}%' r='4'/>",
                    left - width / 2.0,
                    line.class
                );
                probe(shape, point.0, format!("{} {}", line.label, figure(point.1)));
            }
        }
        for mark in &self.marks {
            let (left, _) = at((mark.step, 1.0));
            let shape = format!(
                "<line class='mark' x1='{left:.2}%' x2='{left:.2}%' y1='0' y2='100%'/>\
                 <circle class='mark' cx='{left:.2}%' cy='100%' r='4'/>"
            );
            probe(shape, mark.step, mark.text.clone());
        }
        for series in &self.series {
            let points = series.dotted().unwrap_or_default();
            let radius = if points.len() > 30 { 3 } else { 4 };
            for point in points {
                let (left, top) = at(point);
                let shape = format!(
                    "<circle class='dot {}' cx='{left:.2}%' cy='{top:.2}%' r='{radius}'/>",
                    series.class
                );
                probe(shape, point.0, format!("{} {}", series.label, figure(point.1)));
            }
        }
    }

    /// The chart in words, for those who cannot see it.
    fn description(&self) -> String {
        let mut text = format!("{} by step.", self.title);
        for series in &self.series {
            if let (Some(first), Some(last)) = (series.finite().next(), series.finite().next_back())
            {
                let _ = write!(
                    text,
                    " {}: {} at step {}, {} at step {}.",
                    series.label,
                    figure(first.1),
                    first.0,
                    figure(last.1),
                    last.0
                );
            }
        }
        text
    }
}

/// Maps values to 0..=1; what lies beyond is drawn at the edge.
struct Scale {
    low: f64,
    high: f64,
    /// Between ticks; none on a logarithmic scale.
    step: Option<f64>,
}

impl Scale {
    /// From 0 to the last training step, ticks at whole steps.
    fn steps(last: f64) -> Self {
        let high = last.max(1.0);
        Self { low: 0.0, high, step: Some(tick_step(high).max(1.0)) }
    }

    fn log(low: f64, high: f64) -> Self {
        Self { low, high, step: None }
    }

    /// A linear scale widened to whole ticks, and never empty.
    fn nice(low: f64, high: f64) -> Self {
        let room = if high > low { 0.0 } else { low.abs().max(1e-6) * 0.1 };
        let (low, high) = (low - room, high + room);
        let step = tick_step(high - low);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Self { low, high, step: Some(step) }
    }

    fn position(&self, value: f64) -> f64 {
        let along = if self.step.is_none() {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        along.clamp(0.0, 1.0)
    }

    /// Round values and their labels, least first.
    fn ticks(&self) -> Vec<(f64, String)> {
        let Some(step) = self.step else {
            return self
                .log_ticks()
                .into_iter()
                .map(|tick| (tick, tick_label(tick, tick, tick)))
                .collect();
        };
        // A millionth of a step forgives rounding at both ends.
        let first = (self.low / step - 1e-6).ceil() as i64;
        let last = (self.high / step + 1e-6).floor() as i64;
        let largest = first.abs().max(last.abs()) as f64 * step;
        let tick = |i| i as f64 * step;
        (first..=last).map(|i| (tick(i), tick_label(tick(i), step, largest))).collect()
    }

    /// 1, 2 and 5 of each decade, or 1 only, or every so many decades: the most that stay few.
    fn log_ticks(&self) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let ticks = |multiples: &[f64]| -> Vec<f64> {
            let decade = |d| multiples.iter().map(move |m| m * 10f64.powi(d));
            let all = decades.clone().flat_map(decade);
            all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
        };
        let (fine, coarse) = (ticks(&[1.0, 2.0, 5.0]), ticks(&[1.0]));
        if fine.len() <= TICKS + 2 {
            return fine;
        }
        coarse.iter().copied().step_by(coarse.len().div_ceil(TICKS + 1)).collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that about [`TICKS`] of them make `range`.
fn tick_step(range: f64) -> f64 {
    let rough = range / TICKS as f64;
    let power = 10f64.powf(rough.log10().floor());
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|m| m * power >= rough * 0.8).unwrap_or(10.0);
    multiple * power
}

/// `0.5`, `1.0` · `2,000` · `5k`, `10k` · `2e-4`: in the unit of the axis's `largest` tick, with
/// the decimals that its `step` calls for, so that all labels of an axis agree.
fn tick_label(tick: f64, step: f64, largest: f64) -> String {
    if tick == 0.0 {
        return "0".into();
    }
    let scaled = |unit: f64| {
        let decimals = -(step / unit * 1.000_001).log10().floor();
        format!("{:.*}", decimals.clamp(0.0, 3.0) as usize, tick / unit)
    };
    match largest {
        v if step < 0.0009 || v >= 1e15 => scientific(tick),
        v if v < 1000.0 => scaled(1.0),
        v if v < 10_000.0 && tick > 0.0 => commas(tick as u64),
        v if v < 1e6 => scaled(1e3) + "k",
        v if v < 1e9 => scaled(1e6) + "M",
        _ => count(tick),
    }
}

/// SVG path data; gaps at values that are not finite, a dot for a point between gaps.
fn path(points: &[Point], at: impl Fn(Point) -> (f64, f64)) -> String {
    let mut out = String::new();
    for run in points.split(|p| !p.1.is_finite()) {
        for (i, &point) in run.iter().enumerate() {
            let (left, top) = at(point);
            let command = if i == 0 { 'M' } else { 'L' };
            let _ = write!(out, "{command}{:.1} {:.1}", 10.0 * left, 10.0 * top);
        }
        if run.len() == 1 {
            out.push_str("h0");
        }
    }
    out
}

/// At most `most` points that keep every extreme: the least and greatest of equal stretches.
pub fn thin(points: &[Point], most: usize) -> Vec<Point> {
    if points.len() <= most {
        return points.to_vec();
    }
    let mut out = Vec::with_capacity(most);
    for stretch in points.chunks(points.len().div_ceil(most / 2)) {
        let finite = || stretch.iter().filter(|p| p.1.is_finite());
        let by_value = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
        match (finite().min_by(by_value), finite().max_by(by_value)) {
            (Some(&low), Some(&high)) if low.0 == high.0 => out.push(low),
            (Some(&low), Some(&high)) if low.0 < high.0 => out.extend([low, high]),
            (Some(&low), Some(&high)) => out.extend([high, low]),
            _ => out.push((stretch[0].0, f64::NAN)),
        }
    }
    out
}

/// The mean of up to `half` points to either side of each, symmetric at the start, where losses
/// fall fast. Values that are not finite are passed over.
pub fn smooth(points: &[Point], half: usize) -> Vec<Point> {
    // sums[i] is the sum and number of the first i points' finite values.
    let mut sums = vec![(0.0, 0usize)];
    for &(_, value) in points {
        let (sum, n) = sums[sums.len() - 1];
        sums.push(if value.is_finite() { (sum + value, n + 1) } else { (sum, n) });
    }
    let mean = |i: usize| {
        let reach = half.min(i);
        let (first, end) = (sums[i - reach], sums[(i + reach + 1).min(points.len())]);
        (end.0 - first.0) / (end.1 - first.1) as f64
    };
    points.iter().enumerate().map(|(i, p)| (p.0, mean(i))).collect()
}

/// Text made safe for HTML contents and attributes; control characters that HTML forbids become �.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !"\n\t".contains(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale) -> String {
        scale.ticks().into_iter().map(|(_, label)| label).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(Scale::nice(4.2, 9.7)), "4 5 6 7 8 9 10");
        assert_eq!(labels(Scale::nice(7.05, 10.1)), "7.0 7.5 8.0 8.5 9.0 9.5 10.0 10.5");
        assert_eq!(labels(Scale::nice(0.0, 6e-4)), "0 1e-4 2e-4 3e-4 4e-4 5e-4 6e-4");
        assert_eq!(labels(Scale::nice(0.11, 0.34)), "0.10 0.15 0.20 0.25 0.30 0.35");
        assert_eq!(labels(Scale::steps(1200.0)), "0 200 400 600 800 1,000 1,200");
        assert_eq!(labels(Scale::steps(52_000.0)), "0 10k 20k 30k 40k 50k");
        assert_eq!(labels(Scale::nice(0.0, 0.000_99)), "0 2e-4 4e-4 6e-4 8e-4 1e-3");
        assert_eq!(labels(Scale::nice(0.0, 0.005)), "0 0.001 0.002 0.003 0.004 0.005");
        assert_eq!(labels(Scale::nice(0.0, 3e300)), "0 5e299 1e300 1.5e300 2e300 2.5e300 3e300");
        assert_eq!(labels(Scale::steps(1.0)), "0 1");
        assert_eq!(labels(Scale::log(0.3, 40.0)), "0.5 1 2 5 10 20");
        assert_eq!(labels(Scale::log(0.03, 40_000.0)), "0.1 1 10 100 1,000 10k");
    }

    #[test]
    fn a_scale_is_never_empty() {
        for value in [0.0, 1e-4, 5.0, -3.0] {
            let scale = Scale::nice(value, value);
            assert!(scale.high > scale.low && scale.ticks().len() >= 2, "{value}");
        }
    }

    #[test]
    fn thinning_keeps_extremes_and_gaps() {
        let mut points: Vec<Point> = (0..100_000).map(|i| (i as f64, (i % 7) as f64)).collect();
        points[31_337].1 = 99.0;
        points[50_000..60_000].iter_mut().for_each(|p| p.1 = f64::NAN);
        let thinned = thin(&points, 1000);
        assert!(thinned.len() <= 1000);
        assert!(thinned.contains(&(31_337.0, 99.0)));
        assert!(thinned.iter().any(|p| p.1.is_nan()));
        assert!(thinned.is_sorted_by_key(|p| p.0));
    }

    #[test]
    fn smoothing_passes_over_nan_and_keeps_constants() {
        let points: Vec<Point> =
            (0..50).map(|i| (i as f64, if i == 20 { f64::NAN } else { 3.0 })).collect();
        assert!(smooth(&points, 5).iter().all(|p| p.1 == 3.0));
        assert!(smooth(&[(1.0, f64::NAN)], 5)[0].1.is_nan());
        assert!(smooth(&[], 5).is_empty());
    }

    #[test]
    fn paths_break_at_gaps() {
        let points = [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0)];
        assert_eq!(path(&points, |p| p), "M0.0 10.0L10.0 20.0M30.0 40.0h0");
    }

    #[test]
    fn escaping() {
        assert_eq!(escape("a<b & \"c'\0"), "a&lt;b &amp; &quot;c&#39;\u{fffd}");
    }
}
