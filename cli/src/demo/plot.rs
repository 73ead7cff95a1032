//! Plots as SVG, written by hand: no script, no font file, colours from the page's own variables.
//!
//! Every plot is drawn for two widths (see [`both_widths`]); the page shows the one that fits, so that its letters
//! keep their size on a phone and on paper.

use maud::{Markup, html};

/// The area of one drawing, in user units, which are CSS pixels where the page shows the plot unscaled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// One line of the evidence plot.
#[derive(Debug, Clone)]
pub(crate) struct Evidence<'a> {
    pub(crate) label: &'a str,
    /// The CSS class that gives the colour: `stamped` or `base`.
    pub(crate) class: &'a str,
    /// log10 of the e-value after each query; the plot starts from 0 before the first.
    pub(crate) log10_e: &'a [f64],
}

/// One panel of the training plot.
#[derive(Debug, Clone)]
pub(crate) struct Panel<'a> {
    pub(crate) title: &'a str,
    /// (step, value)
    pub(crate) points: &'a [(f64, f64)],
    /// Lowest and highest value shown; the data widen it.
    pub(crate) range: (f64, f64),
    /// A dashed line with its words, for a goal or a limit.
    pub(crate) mark: Option<(f64, &'a str)>,
    pub(crate) format: fn(f64) -> String,
}

/// One row of the bar plot: a share in [0, 1] with its interval, and the same share of the base model.
#[derive(Debug, Clone)]
pub(crate) struct Bar<'a> {
    pub(crate) label: &'a str,
    pub(crate) note: &'a str,
    pub(crate) value: f64,
    pub(crate) interval: (f64, f64),
    pub(crate) base: f64,
    pub(crate) count: String,
}

/// Draws the plot once for wide pages and once for narrow ones.
pub(crate) fn both_widths(height: f64, narrow_height: f64, draw: impl Fn(Frame) -> Markup) -> Markup {
    html! {
        div class="wide" { (draw(Frame { width: 760.0, height })) }
        div class="narrow" { (draw(Frame { width: 350.0, height: narrow_height })) }
    }
}

/// E-value after each query on a logarithmic axis, with the line that a proof must cross.
pub(crate) fn evidence(frame: Frame, series: &[Evidence<'_>], proof: f64) -> Markup {
    let values = || series.iter().flat_map(|line| line.log10_e.iter().copied()).filter(|value| value.is_finite());
    let low = values().fold(-1.0_f64, f64::min).floor();
    let high = values().fold(proof + 1.0, f64::max).ceil();
    let queries = series.iter().map(|line| line.log10_e.len()).max().unwrap_or(0).max(4) as f64;
    // Room at the right for the names of the lines, which stand at their ends.
    let room = 70.0 / (frame.width - 134.0);
    let area = Area::new(frame, (0.0, queries * (1.0 + room)), (low, high), 46.0, 18.0);
    let proof_words = format!("proof: e-value {}", power_of_ten_rounded(proof));
    // Below the line, on the side that a proof does not reach late (right) or early (left).
    let late =
        series.iter().any(|line| line.log10_e.len() as f64 > queries * 0.6 && line.log10_e.last() >= Some(&proof));
    let (proof_x, proof_anchor) = if late { (area.left + 6.0, "start") } else { (area.right - 6.0, "end") };
    html! {
        svg viewBox=(area.view_box()) role="img" aria-label="E-value after each query" {
            @for tick in steps(low, high, 6.0) {
                (area.grid(tick, &power_of_ten(tick)))
            }
            (area.x_axis(&whole_steps(queries, if frame.width < 500.0 { 6.0 } else { 12.0 }), "questions"))
            line class="axis" x1=(n(area.left)) x2=(n(area.right)) y1=(n(area.y(0.0))) y2=(n(area.y(0.0))) {}
            rect class="goal-area" x=(n(area.left)) y=(n(area.top)) width=(n(area.right - area.left)) height=(n(area.y(proof) - area.top)) {}
            line class="goal" x1=(n(area.left)) x2=(n(area.right)) y1=(n(area.y(proof))) y2=(n(area.y(proof))) {}
            text class="goal-label" x=(n(proof_x)) y=(n(area.y(proof) + 16.0)) text-anchor=(proof_anchor) { (proof_words) }
            @for line in series { (evidence_line(&area, line)) }
        }
    }
}

fn evidence_line(area: &Area, line: &Evidence<'_>) -> Markup {
    let points: Vec<(f64, f64)> =
        std::iter::once(0.0).chain(line.log10_e.iter().copied()).enumerate().map(|(i, e)| (i as f64, e)).collect();
    let last = points.last().copied().unwrap_or((0.0, 0.0));
    html! {
        g class=(line.class) {
            polyline class="line" points=(area.polyline(&points)) {}
            // Beyond a few dozen queries the dots would be a thick line.
            @if points.len() <= 80 {
                @for (x, y) in points.iter().skip(1) {
                    circle class="dot" cx=(n(area.x(*x))) cy=(n(area.y(*y))) r="3.5" {
                        title { (line.label) ", query " (n(*x)) ": e-value " (power_of_ten_rounded(*y)) }
                    }
                }
            }
            circle class="end" cx=(n(area.x(last.0))) cy=(n(area.y(last.1))) r="5.5" {}
            text class="series-label" x=(n(area.x(last.0) + 10.0)) y=(n(area.y(last.1) + 4.0)) { (line.label) }
        }
    }
}

/// A line over training steps.
pub(crate) fn panel(frame: Frame, panel: &Panel<'_>) -> Markup {
    let values = || panel.points.iter().map(|point| point.1).filter(|value| value.is_finite());
    let low = values().fold(panel.range.0, f64::min);
    let high = values().fold(panel.range.1, f64::max).max(low + 1e-9);
    let last_step = panel.points.iter().map(|point| point.0).fold(1.0, f64::max);
    let area = Area::new(frame, (0.0, last_step), (low, high), 46.0, 18.0);
    let finite: Vec<(f64, f64)> = panel.points.iter().copied().filter(|point| point.1.is_finite()).collect();
    html! {
        svg viewBox=(area.view_box()) role="img" aria-label=(panel.title) {
            @for tick in steps(low, high, 4.0) { (area.grid(tick, &(panel.format)(tick))) }
            (area.x_axis(&whole_steps(last_step, if frame.width < 500.0 { 5.0 } else { 10.0 }), "steps"))
            @if let Some((at, words)) = panel.mark {
                line class="goal" x1=(n(area.left)) x2=(n(area.right)) y1=(n(area.y(at))) y2=(n(area.y(at))) {}
                text class="goal-label" x=(n(area.left + 6.0)) y=(n(area.y(at) + mark_offset(&area, at))) { (words) }
            }
            g class="stamped" {
                polyline class="line" points=(area.polyline(&finite)) {}
                @if let Some((x, y)) = finite.last() {
                    circle class="end" cx=(n(area.x(*x))) cy=(n(area.y(*y))) r="4.5" {
                        title { "step " (n(*x)) ": " ((panel.format)(*y)) }
                    }
                }
            }
        }
    }
}

/// The words of a mark stand where training starts, far from its end: below a line that runs along the top, else above it.
fn mark_offset(area: &Area, at: f64) -> f64 {
    if area.y(at) - area.top < 24.0 { 16.0 } else { -7.0 }
}

/// Horizontal bars, one for each surface: label above, interval as a whisker, the base model's share as a hollow tick.
pub(crate) fn bars(width: f64, rows: &[Bar<'_>]) -> Markup {
    let row_height = 52.0;
    let right = 64.0;
    let height = row_height * rows.len() as f64 + 26.0;
    let x = |share: f64| 2.0 + share.clamp(0.0, 1.0) * (width - right - 4.0);
    html! {
        svg viewBox=(format!("0 0 {} {}", n(width), n(height))) role="img" aria-label="Success of every surface" {
            @for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
                line class="grid" x1=(n(x(share))) x2=(n(x(share))) y1="4" y2=(n(height - 20.0)) {}
                text class="tick" x=(n(x(share))) y=(n(height - 5.0)) text-anchor=(if share == 0.0 { "start" } else { "middle" }) { (format!("{:.0} %", share * 100.0)) }
            }
            @for (row, index) in rows.iter().zip(0_u32..) {
                @let y = f64::from(index) * row_height + 6.0;
                text class="bar-label" x="2" y=(n(y + 11.0)) { (row.label) @if !row.note.is_empty() { tspan class="muted" dx="8" { (row.note) } } }
                rect class="track" x=(n(x(0.0))) y=(n(y + 18.0)) width=(n(x(1.0) - x(0.0))) height="14" rx="3" {}
                rect class="bar" x=(n(x(0.0))) y=(n(y + 18.0)) width=(n((x(row.value) - x(0.0)).max(0.5))) height="14" rx="3" {
                    title { (row.label) ": " (row.count) ", 95 % interval " (format!("{:.1}–{:.1} %", row.interval.0 * 100.0, row.interval.1 * 100.0)) }
                }
                g class="whisker" {
                    line x1=(n(x(row.interval.0))) x2=(n(x(row.interval.1))) y1=(n(y + 25.0)) y2=(n(y + 25.0)) {}
                    line x1=(n(x(row.interval.0))) x2=(n(x(row.interval.0))) y1=(n(y + 21.0)) y2=(n(y + 29.0)) {}
                    line x1=(n(x(row.interval.1))) x2=(n(x(row.interval.1))) y1=(n(y + 21.0)) y2=(n(y + 29.0)) {}
                }
                rect class="base-tick" x=(n(x(row.base) - 1.5)) y=(n(y + 15.0)) width="4" height="20" rx="2" {
                    title { "original model: " (format!("{:.1} %", row.base * 100.0)) }
                }
                text class="bar-value" x=(n(width)) y=(n(y + 30.0)) text-anchor="end" { (row.count) }
            }
        }
    }
}

/// Maps data to the drawing.
struct Area {
    frame: Frame,
    x_range: (f64, f64),
    y_range: (f64, f64),
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Area {
    fn new(frame: Frame, x_range: (f64, f64), y_range: (f64, f64), left: f64, right: f64) -> Self {
        Self { frame, x_range, y_range, left, right: frame.width - right, top: 14.0, bottom: frame.height - 38.0 }
    }

    fn view_box(&self) -> String {
        format!("0 0 {} {}", n(self.frame.width), n(self.frame.height))
    }

    fn x(&self, value: f64) -> f64 {
        let span = (self.x_range.1 - self.x_range.0).max(f64::MIN_POSITIVE);
        self.left + (value - self.x_range.0) / span * (self.right - self.left)
    }

    fn y(&self, value: f64) -> f64 {
        let span = (self.y_range.1 - self.y_range.0).max(f64::MIN_POSITIVE);
        // An e-value may be infinite or NaN only through a bug; the page must still be drawable.
        let value = if value.is_finite() { value.clamp(self.y_range.0, self.y_range.1) } else { self.y_range.0 };
        self.bottom - (value - self.y_range.0) / span * (self.bottom - self.top)
    }

    fn polyline(&self, points: &[(f64, f64)]) -> String {
        points.iter().map(|(x, y)| format!("{},{}", n(self.x(*x)), n(self.y(*y)))).collect::<Vec<_>>().join(" ")
    }

    fn grid(&self, value: f64, words: &str) -> Markup {
        let y = self.y(value);
        html! {
            line class="grid" x1=(n(self.left)) x2=(n(self.right)) y1=(n(y)) y2=(n(y)) {}
            text class="tick" x=(n(self.left - 8.0)) y=(n(y + 4.0)) text-anchor="end" { (words) }
        }
    }

    fn x_axis(&self, ticks: &[f64], words: &str) -> Markup {
        html! {
            @for tick in ticks {
                text class="tick" x=(n(self.x(*tick))) y=(n(self.bottom + 17.0)) text-anchor="middle" { (n(*tick)) }
            }
            text class="axis-label" x=(n((self.left + self.right) / 2.0)) y=(n(self.bottom + 34.0)) text-anchor="middle" { (words) }
        }
    }
}

/// Round values from `low` to `high`, at most about `count` of them.
fn steps(low: f64, high: f64, count: f64) -> Vec<f64> {
    let rough = ((high - low) / count).max(f64::MIN_POSITIVE);
    let magnitude = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * magnitude).find(|s| *s >= rough * 0.999);
    let step = step.unwrap_or(rough);
    let first = (low / step).ceil();
    (0..64_u32)
        .map(|i| (first + f64::from(i)) * step)
        .take_while(|tick| *tick <= high + step * 1e-6)
        // -0 would be written with its sign.
        .map(|tick| if tick.abs() < step * 1e-6 { 0.0 } else { tick })
        .collect()
}

/// Round whole numbers from 0 to `high`, for counts.
fn whole_steps(high: f64, count: f64) -> Vec<f64> {
    steps(0.0, high, count.min(high.max(1.0))).into_iter().filter(|tick| tick.fract() == 0.0).collect()
}

/// A coordinate with at most two decimals and no trailing zeros.
fn n(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// 10 to an integer exponent with real superscripts: 10⁶, 10⁻². 1 for zero.
fn power_of_ten(exponent: f64) -> String {
    if exponent == 0.0 {
        return "1".to_owned();
    }
    let digits = n(exponent);
    let superscript = digits.chars().map(|c| match c {
        '-' => '⁻',
        '0' => '⁰',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4' => '⁴',
        '5' => '⁵',
        '6' => '⁶',
        '7' => '⁷',
        '8' => '⁸',
        '9' => '⁹',
        _ => '·',
    });
    std::iter::once("10".to_owned()).chain(superscript.map(String::from)).collect()
}

fn power_of_ten_rounded(exponent: f64) -> String {
    if exponent.is_finite() { format!("10^{exponent:.2}") } else { "unknown".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(steps(0.0, 10.0, 5.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(steps(-2.0, 7.0, 6.0), [-2.0, 0.0, 2.0, 4.0, 6.0]);
        assert!(steps(0.0, 0.0, 5.0).len() <= 64);
        assert_eq!(whole_steps(14.0, 6.0), [0.0, 5.0, 10.0]);
        assert_eq!(whole_steps(3.0, 6.0), [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn powers_are_written_with_superscripts() {
        assert_eq!(power_of_ten(6.0), "10⁶");
        assert_eq!(power_of_ten(-2.0), "10⁻²");
        assert_eq!(power_of_ten(0.0), "1");
    }

    #[test]
    fn a_series_that_is_not_a_number_still_draws() {
        let series = [Evidence { label: "x", class: "base", log10_e: &[f64::NAN, f64::INFINITY] }];
        let svg = evidence(Frame { width: 400.0, height: 200.0 }, &series, 6.0).into_string();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
