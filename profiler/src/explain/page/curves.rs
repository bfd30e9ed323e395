//! Curves over batch size and input length, where a record holds several points: time of a step and its floor, and tokens per second.

use super::svg::{self, Anchor, Scale, Shape, Svg, WIDTH};
use crate::explain::record::StepExplanation;
use crate::quantity::{duration, significant};
use crate::record::{Point, Record};
use crate::recorder::StepKind;

const PANEL_HEIGHT: f64 = 250.0;
const LEFT: f64 = 72.0;
/// Room on the right of a panel for the names of its curves.
const NAMES: f64 = 76.0;
const MOST_SERIES: usize = 8;

/// What a curve runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Batch,
    Input,
}

impl Over {
    fn title(self) -> &'static str {
        match self {
            Over::Batch => "batch size, requests",
            Over::Input => "input length, tokens",
        }
    }

    fn of(self, point: &Point) -> usize {
        match self {
            Over::Batch => point.batch_size,
            Over::Input => point.input_len,
        }
    }

    /// What the points of one curve have in common, and its name.
    fn rest(self, point: &Point) -> ([usize; 2], String) {
        match self {
            Over::Batch => (
                [point.input_len, point.output_len],
                format!("in={}", point.input_len),
            ),
            Over::Input => (
                [point.batch_size, point.output_len],
                format!("batch={}", point.batch_size),
            ),
        }
    }
}

struct Sample {
    x: f64,
    wall_ns: f64,
    floor_ns: f64,
    tokens_per_s: f64,
    floor_tokens_per_s: f64,
    label: String,
}

struct Series {
    key: [usize; 2],
    name: String,
    samples: Vec<Sample>,
}

/// The curves; empty when no two points differ in batch size or in input length alone.
pub(super) fn plots(record: &Record, steps: &[StepExplanation]) -> String {
    let mut plots = String::new();
    for over in [Over::Batch, Over::Input] {
        for kind in [StepKind::Prefill, StepKind::Decode] {
            let series = series(record, steps, over, kind);
            if !series.is_empty() {
                plots += &panels(&series, over, kind);
            }
        }
    }
    plots
}

fn series(record: &Record, steps: &[StepExplanation], over: Over, kind: StepKind) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for step in steps.iter().filter(|s| s.kind == kind && s.wall_ns > 0.0) {
        let Some(point) = record.points.get(step.point) else {
            continue;
        };
        let tokens = point.batch_size as f64
            * match kind {
                StepKind::Prefill => point.input_len as f64,
                StepKind::Decode => 1.0,
            };
        let floor_ns: f64 = step.operations.iter().map(|o| o.floor_ns).sum();
        let sample = Sample {
            x: over.of(point) as f64,
            wall_ns: step.wall_ns,
            floor_ns,
            tokens_per_s: tokens / (step.wall_ns / 1e9),
            floor_tokens_per_s: tokens / (floor_ns / 1e9),
            label: point.label(),
        };
        let (key, name) = over.rest(point);
        match all.iter_mut().find(|s| s.key == key) {
            Some(series) => series.samples.push(sample),
            None => all.push(Series {
                key,
                name,
                samples: vec![sample],
            }),
        }
    }
    for series in &mut all {
        series.samples.sort_by(|a, b| a.x.total_cmp(&b.x));
        series.samples.dedup_by(|a, b| a.x == b.x);
    }
    // Output lengths are named where they are what tells two curves apart.
    let names: Vec<String> = all.iter().map(|s| s.name.clone()).collect();
    for series in &mut all {
        if names.iter().filter(|name| **name == series.name).count() > 1 {
            series.name += &format!(" out={}", series.key[1]);
        }
    }
    all.retain(|s| s.samples.len() > 1);
    all.truncate(MOST_SERIES);
    all
}

/// Time on the left, tokens per second on the right.
fn panels(series: &[Series], over: Over, kind: StepKind) -> String {
    let mut svg = Svg::new(PANEL_HEIGHT + 74.0);
    let half = WIDTH / 2.0;
    let time = Panel {
        left: 0.0,
        title: format!("{} step, time", kind.name()),
        label_of: svg::time_label,
        value_of: |s| [s.wall_ns, s.floor_ns],
    };
    let rate = Panel {
        left: half,
        title: format!("{}, token/s", kind.name()),
        label_of: |v| svg::tick_label(v, ""),
        value_of: |s| [s.tokens_per_s, s.floor_tokens_per_s],
    };
    for panel in [time, rate] {
        panel.draw(&mut svg, series, over);
    }
    let label = format!(
        "{} steps over {}: time and tokens per second, with their floors",
        kind.title(),
        over.title()
    );
    svg.finish(&label)
}

struct Panel {
    left: f64,
    title: String,
    label_of: fn(f64) -> String,
    /// The measured value and the one at the floor.
    value_of: fn(&Sample) -> [f64; 2],
}

impl Panel {
    fn draw(&self, svg: &mut Svg, series: &[Series], over: Over) {
        let (left, right) = (self.left + LEFT, self.left + WIDTH / 2.0 - NAMES);
        let (top, bottom) = (26.0, 26.0 + PANEL_HEIGHT);
        let samples = || series.iter().flat_map(|s| &s.samples);
        let x = Scale::log(samples().map(|s| s.x), 0.06, left, right);
        let y = Scale::log(samples().flat_map(self.value_of), 0.1, bottom, top);
        let (Some(x), Some(y)) = (x, y) else {
            return;
        };
        svg.text("bar-title", [left, top - 9.0], Anchor::Start, &self.title);
        for tick in y.ticks(8) {
            let at = y.at(tick);
            svg.line("grid", [left, at], [right, at]);
            let label = (self.label_of)(tick);
            svg.text("tick", [left - 7.0, at + 4.0], Anchor::End, &label);
        }
        // The values that were measured are the ticks, as far as there is room.
        let mut values: Vec<f64> = samples().map(|s| s.x).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let mut free_from = f64::MIN;
        for value in values {
            let at = x.at(value);
            let label = svg::tick_label(value, "");
            let half = svg::text_width(&label) / 2.0;
            if at - half > free_from {
                svg.line("axis", [at, bottom], [at, bottom + 4.0]);
                svg.text("tick", [at, bottom + 18.0], Anchor::Middle, &label);
                free_from = at + half + 4.0;
            }
        }
        svg.line("axis", [left, bottom], [right, bottom]);
        svg.line("axis", [left, top], [left, bottom]);
        let middle = [(left + right) / 2.0, bottom + 40.0];
        svg.text("axis-title", middle, Anchor::Middle, over.title());
        let mut names: Vec<(f64, &str)> = Vec::new();
        for (index, series) in series.iter().enumerate() {
            self.curve(svg, &x, &y, index, series);
            if let Some(last) = series.samples.last() {
                names.push((y.at((self.value_of)(last)[0]), &series.name));
            }
        }
        // Names of curves that end close together make room for each other.
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free_from = f64::MIN;
        for (at, name) in names {
            let baseline = (at + 4.0).max(free_from);
            free_from = baseline + 14.0;
            let name = svg::fitted(name, NAMES - 6.0);
            svg.text("label", [right + 8.0, baseline], Anchor::Start, &name);
        }
    }

    fn curve(&self, svg: &mut Svg, x: &Scale, y: &Scale, index: usize, series: &Series) {
        let shape = [Shape::Circle, Shape::Square, Shape::Diamond][index % 3];
        let shade = index % 4;
        let place = |sample: &Sample, value: f64| [x.at(sample.x), y.at(value)];
        let with_floor = series.samples.iter().filter(|s| s.floor_ns > 0.0);
        let floors: Vec<[f64; 2]> = with_floor
            .map(|s| place(s, (self.value_of)(s)[1]))
            .collect();
        svg.polyline(&format!("curve floor curve-{shade}"), &floors);
        let line: Vec<[f64; 2]> = series
            .samples
            .iter()
            .map(|s| place(s, (self.value_of)(s)[0]))
            .collect();
        svg.polyline(&format!("curve curve-{shade}"), &line);
        for sample in &series.samples {
            let told = format!(
                "{}: {} ({} at its floor), {} token/s",
                sample.label,
                duration(sample.wall_ns),
                duration(sample.floor_ns),
                significant(sample.tokens_per_s, 4),
            );
            let at = place(sample, (self.value_of)(sample)[0]);
            svg.mark(&format!("dot curve-{shade}"), shape, at, 4.5, &told);
        }
    }
}
