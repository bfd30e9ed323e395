//! Small helpers for pictures: escaping, scales with ticks, and the few shapes that the plots are made of.
//!
//! Whatever the numbers, the result is well-formed: a coordinate that is not a number, or lies outside of every picture, is drawn at
//! the edge.

use std::fmt::Write as _;

use crate::quantity;

/// Width of a plot in its own units, which are pixels at its full size.
pub(super) const WIDTH: f64 = 860.0;
/// About the width of a character of a label.
pub(super) const CHARACTER: f64 = 6.4;

/// Text for an element or a quoted attribute; characters that XML cannot write become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            '\t' | '\n' | '\r' => escaped.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// `text` cut to what fits into `width`.
pub(super) fn fitted(text: &str, width: f64) -> String {
    let most = (width / CHARACTER).clamp(0.0, 1e4) as usize;
    if text.chars().count() <= most {
        return text.to_owned();
    }
    match most {
        0 => String::new(),
        most => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

/// How wide a label is, about.
pub(super) fn text_width(text: &str) -> f64 {
    CHARACTER * text.chars().count() as f64
}

fn coordinate(value: f64) -> f64 {
    if value.is_finite() {
        (value.clamp(-1e5, 1e5) * 100.0).round() / 100.0
    } else {
        0.0
    }
}

/// Where a text's position lies in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        }
    }
}

/// A picture under construction. Classes are those of `style.css`.
pub(super) struct Svg {
    height: f64,
    body: String,
}

impl Svg {
    /// An empty picture, [`WIDTH`] wide.
    pub(super) fn new(height: f64) -> Svg {
        Svg {
            height,
            body: String::new(),
        }
    }

    pub(super) fn line(&mut self, class: &str, from: [f64; 2], to: [f64; 2]) {
        let [x1, y1, x2, y2] = [from[0], from[1], to[0], to[1]].map(coordinate);
        let _ = writeln!(
            self.body,
            r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#
        );
    }

    /// A line through points; nothing with fewer than two.
    pub(super) fn polyline(&mut self, class: &str, points: &[[f64; 2]]) {
        if points.len() < 2 {
            return;
        }
        let listed: Vec<String> = points
            .iter()
            .map(|[x, y]| format!("{},{}", coordinate(*x), coordinate(*y)))
            .collect();
        let _ = writeln!(
            self.body,
            r#"<polyline class="{class}" points="{}"/>"#,
            listed.join(" ")
        );
    }

    /// A rectangle, with what a pointer over it is told.
    pub(super) fn rect(&mut self, class: &str, corner: [f64; 2], size: [f64; 2], title: &str) {
        let [x, y, width, height] =
            [corner[0], corner[1], size[0].max(0.0), size[1].max(0.0)].map(coordinate);
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}">{}</rect>"#,
            tooltip(title)
        );
    }

    /// A mark of a shape, `radius` large, with what a pointer over it is told.
    pub(super) fn mark(
        &mut self,
        class: &str,
        shape: Shape,
        center: [f64; 2],
        radius: f64,
        title: &str,
    ) {
        let [x, y, r] = [center[0], center[1], radius.max(0.0)].map(coordinate);
        let tooltip = tooltip(title);
        let _ = match shape {
            Shape::Circle => writeln!(
                self.body,
                r#"<circle class="{class}" cx="{x}" cy="{y}" r="{r}">{tooltip}</circle>"#
            ),
            Shape::Square => {
                let side = coordinate(1.77 * r); // the area of the circle
                let [left, top] = [x - side / 2.0, y - side / 2.0].map(coordinate);
                writeln!(
                    self.body,
                    r#"<rect class="{class}" x="{left}" y="{top}" width="{side}" height="{side}">{tooltip}</rect>"#
                )
            }
            Shape::Diamond => {
                let [left, right, top, bottom] = [x - r, x + r, y - r, y + r].map(coordinate);
                writeln!(
                    self.body,
                    r#"<polygon class="{class}" points="{left},{y} {x},{top} {right},{y} {x},{bottom}">{tooltip}</polygon>"#
                )
            }
        };
    }

    pub(super) fn text(&mut self, class: &str, at: [f64; 2], anchor: Anchor, text: &str) {
        let [x, y] = at.map(coordinate);
        let _ = writeln!(
            self.body,
            r#"<text class="{class}" x="{x}" y="{y}" text-anchor="{}">{}</text>"#,
            anchor.name(),
            escape(text)
        );
    }

    /// A text turned by `degrees` around its start.
    pub(super) fn turned_text(
        &mut self,
        class: &str,
        at: [f64; 2],
        anchor: Anchor,
        degrees: f64,
        text: &str,
    ) {
        let [x, y, degrees] = [at[0], at[1], degrees].map(coordinate);
        let _ = writeln!(
            self.body,
            r#"<text class="{class}" x="{x}" y="{y}" text-anchor="{}" transform="rotate({degrees} {x} {y})">{}</text>"#,
            anchor.name(),
            escape(text)
        );
    }

    /// The picture as a file of its own, on paper of the style's colour.
    pub(super) fn file(self, label: &str, style: &str) -> String {
        let height = coordinate(self.height);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\" aria-label=\"{}\">\n<style>\n{style}\nsvg {{ font-family: system-ui, sans-serif; }} svg .title {{ font-size: \
             16px; font-weight: 600; }}</style>\n<rect width=\"100%\" height=\"100%\" style=\"fill: var(--paper)\"/>\n{}</svg>\n",
            escape(label),
            self.body
        )
    }

    /// The picture; `label` says what it shows to who cannot see it.
    pub(super) fn finish(self, label: &str) -> String {
        format!(
            "<div class=\"plot\"><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">\n{}</svg></div>\n",
            coordinate(self.height),
            escape(label),
            self.body
        )
    }
}

fn tooltip(title: &str) -> String {
    if title.is_empty() {
        String::new()
    } else {
        format!("<title>{}</title>", escape(title))
    }
}

/// Shapes that differ without colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Square,
    Diamond,
}

/// Maps values to one direction of a picture.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    is_log: bool,
}

/// A logarithmic scale shows no more decades than this; smaller values lie at its edge.
const MOST_DECADES: f64 = 12.0;

impl Scale {
    /// From 0 to a little over the largest of `values`, drawn from `start` to `end`.
    pub(super) fn linear(values: impl IntoIterator<Item = f64>, start: f64, end: f64) -> Scale {
        let largest = values.into_iter().filter(|v| v.is_finite());
        let largest = largest.fold(0.0, f64::max).min(1e300);
        let to = if largest > 0.0 { largest * 1.05 } else { 1.0 };
        Scale {
            from: 0.0,
            to,
            start,
            end,
            is_log: false,
        }
    }

    /// From 0 to `to`, exactly.
    pub(super) fn up_to(to: f64, start: f64, end: f64) -> Scale {
        let scale = Scale::linear([], start, end);
        match to {
            to if to.is_finite() && to > 0.0 => Scale { to, ..scale },
            _ => scale,
        }
    }

    /// `from` to `to`, exactly.
    pub(super) fn between(from: f64, to: f64, start: f64, end: f64) -> Scale {
        let scale = Scale::linear([], start, end);
        if from.is_finite() && to.is_finite() && to > from {
            Scale { from, to, ..scale }
        } else {
            scale
        }
    }

    /// A logarithmic scale around the positive ones of `values`, `margin` decades wider on both sides.
    pub(super) fn log(
        values: impl IntoIterator<Item = f64>,
        margin: f64,
        start: f64,
        end: f64,
    ) -> Option<Scale> {
        let usable = values.into_iter().filter(|v| v.is_finite() && *v > 0.0);
        let logs: Vec<f64> = usable.map(f64::log10).collect();
        let largest = logs.iter().copied().reduce(f64::max)?;
        let smallest = logs.iter().copied().fold(largest, f64::min);
        let smallest = smallest.max(largest - MOST_DECADES);
        Some(Scale {
            from: smallest - margin,
            to: largest + margin,
            start,
            end,
            is_log: true,
        })
    }

    /// Where `value` is drawn; outside of the scale, at its edge.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = match (self.is_log, value > 0.0) {
            (true, true) => value.log10(),
            (true, false) => self.from,
            (false, _) => value,
        };
        let share = (value - self.from) / (self.to - self.from);
        let share = if share.is_nan() { 0.0 } else { share };
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// The values at the two ends.
    pub(super) fn ends(&self) -> [f64; 2] {
        let value = |v: f64| if self.is_log { 10_f64.powf(v) } else { v };
        [value(self.from), value(self.to)]
    }

    /// Values for ticks, in steps of 1, 2 or 5 times a power of ten, about `most` of them at most.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        let most = most.max(2);
        if self.is_log {
            self.log_ticks(most)
        } else {
            let step = round_up((self.to - self.from) / most as f64);
            let first = (self.from / step).ceil();
            (0..=most)
                .map(|i| (first + i as f64) * step)
                .filter(|v| v.is_finite() && *v <= self.to * (1.0 + 1e-9))
                .collect()
        }
    }

    fn log_ticks(&self, most: usize) -> Vec<f64> {
        let (low, high) = (self.from.floor() as i32, self.to.ceil() as i32);
        let is_inside = |v: &f64| {
            let log = v.log10();
            log.is_finite() && log >= self.from - 1e-9 && log <= self.to + 1e-9
        };
        let of_decade = |digits: &'static [f64]| {
            move |decade: i32| digits.iter().map(move |d| d * 10_f64.powi(decade))
        };
        for digits in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
            let decades = low..=high;
            let ticks: Vec<f64> = decades
                .flat_map(of_decade(digits))
                .filter(is_inside)
                .collect();
            if ticks.len() <= most && ticks.len() >= 2 {
                return ticks;
            }
        }
        let stride = ((high - low) as usize / most + 1).max(1);
        let decades = (low..=high).step_by(stride);
        decades.map(|d| 10_f64.powi(d)).filter(is_inside).collect()
    }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `value`.
fn round_up(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let digit = value / power;
    let rounded = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|d| digit <= d * (1.0 + 1e-9));
    rounded.unwrap_or(10.0) * power
}

/// A tick's number with a prefix and no more digits than it needs: `2 G`, `0.5`, `100 M`.
pub(super) fn tick_label(value: f64, unit: &str) -> String {
    if value > 0.0 && value < 1e-3 {
        return format!("{value:.0e} {unit}").trim_end().to_owned();
    }
    if unit.is_empty() && (1e3..1e5).contains(&value) {
        return format!("{value:.0}");
    }
    let shown = quantity::with_prefix(value, unit);
    let (number, rest) = shown.split_once(' ').unwrap_or((&shown, ""));
    let number = if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    };
    format!("{number} {rest}").trim_end().to_owned()
}

/// A tick of a logarithmic time axis: `50 µs`, `2 ms`.
pub(super) fn time_label(nanoseconds: f64) -> String {
    let shown = quantity::duration(nanoseconds);
    match shown.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            let number = number.trim_end_matches('0').trim_end_matches('.');
            format!("{number} {unit}")
        }
        _ => shown,
    }
}

/// The unit for a linear time axis, and nanoseconds in it.
pub(super) fn time_unit(largest_ns: f64) -> (&'static str, f64) {
    match largest_ns {
        ns if ns < 2e3 => ("ns", 1.0),
        ns if ns < 2e6 => ("µs", 1e3),
        ns if ns < 2e9 => ("ms", 1e6),
        _ => ("s", 1e9),
    }
}

/// An entry of a legend; `name` is already escaped.
pub(super) fn swatch(class: &str, name: &str) -> String {
    format!(
        "<span class=\"entry\"><svg class=\"swatch\" viewBox=\"0 0 16 12\"><rect class=\"{class}\" x=\"0\" y=\"0\" width=\"16\" height=\"12\"/></svg> {name}</span>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(scale: &Scale, expected: &[f64]) {
        let ticks = scale.ticks(6);
        assert_eq!(ticks.len(), expected.len(), "{ticks:?}");
        for (tick, expected) in ticks.iter().zip(expected) {
            assert!(
                (tick - expected).abs() <= 1e-9 * expected.abs(),
                "{ticks:?}"
            );
        }
    }

    #[test]
    fn ticks_are_round() {
        check(
            &Scale::up_to(10.0, 0.0, 1.0),
            &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0],
        );
        check(
            &Scale::up_to(2.6, 0.0, 1.0),
            &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5],
        );
        let log = |from, to| Scale::log([from, to], 0.0, 0.0, 1.0).unwrap();
        check(&log(1.0, 10.0), &[1.0, 2.0, 5.0, 10.0]);
        check(&log(0.1, 10.0), &[0.1, 0.3, 1.0, 3.0, 10.0]);
        check(&log(1.0, 1e5), &[1.0, 10.0, 1e2, 1e3, 1e4, 1e5]);
    }

    #[test]
    fn any_number_has_a_place() {
        for scale in [
            Scale::linear([f64::NAN, -1.0, f64::MAX], 10.0, 90.0),
            Scale::linear([], 10.0, 90.0),
            Scale::up_to(f64::NAN, 10.0, 90.0),
            Scale::log([f64::MIN_POSITIVE, f64::MAX], 0.5, 10.0, 90.0).unwrap(),
            Scale::log([1.0], 0.0, 10.0, 90.0).unwrap(),
        ] {
            for value in [f64::NAN, f64::INFINITY, -f64::MAX, 0.0, 1.0, f64::MAX] {
                assert!(
                    (10.0..=90.0).contains(&scale.at(value)),
                    "{scale:?} {value}"
                );
            }
            assert!(scale.ticks(8).len() <= 9, "{scale:?}");
        }
        assert!(Scale::log([0.0, -1.0, f64::NAN], 0.1, 0.0, 1.0).is_none());
    }

    #[test]
    fn labels_of_ticks_have_no_digit_too_many() {
        assert_eq!(tick_label(2e9, "FLOP/s"), "2 GFLOP/s");
        assert_eq!(tick_label(0.5, ""), "0.5");
        assert_eq!(tick_label(100.0, ""), "100");
        assert_eq!(tick_label(1024.0, ""), "1024");
        assert_eq!(time_label(50_000.0), "50 µs");
        assert_eq!(time_label(2e6), "2 ms");
        assert_eq!(time_label(5.0), "5 ns");
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            escape("a<b>&\"'\u{1}\n\u{ffff}"),
            "a&lt;b&gt;&amp;&quot;&#39;\u{fffd} \u{fffd}"
        );
        assert_eq!(fitted("attention", 40.0), "atten…");
        assert_eq!(fitted("attention", f64::NAN), "");
    }
}
