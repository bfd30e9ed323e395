//! Steps that others measured: each beside its floor, and their time against the batch with the fit's line.

use super::svg::{self, Anchor, Scale, Shape, Svg, WIDTH};
use crate::explain::results::StepsExplanation;
use crate::explain::step_work::StepShape;
use crate::quantity::duration;

const MOST_ROWS: usize = 40;
const MOST_SERIES: usize = 6;

/// Every step's time, floor, and what good kernels would take, on one logarithmic axis; nothing without floors.
pub(super) fn floors(steps: &StepsExplanation) -> Option<String> {
    const LEFT: f64 = 250.0;
    const RIGHT: f64 = WIDTH - 90.0;
    const ROW: f64 = 26.0;
    let rows: Vec<_> = steps
        .steps
        .iter()
        .filter_map(|s| Some((s, s.floor.as_ref()?)))
        .take(MOST_ROWS)
        .collect();
    let values = rows
        .iter()
        .flat_map(|(s, f)| [s.observation.seconds, f.total_s, f.good_kernels_s]);
    let scale = Scale::log(values.map(|s| s * 1e9), 0.12, LEFT, RIGHT)?;
    let bottom = 10.0 + rows.len() as f64 * ROW;
    let mut svg = Svg::new(bottom + 44.0);
    for tick in scale.ticks(7) {
        let at = scale.at(tick);
        svg.line("grid", [at, 4.0], [at, bottom]);
        let label = svg::time_label(tick);
        svg.text("tick", [at, bottom + 17.0], Anchor::Middle, &label);
    }
    svg.line("axis", [LEFT, bottom], [RIGHT, bottom]);
    let middle = [(LEFT + RIGHT) / 2.0, bottom + 38.0];
    svg.text("axis-title", middle, Anchor::Middle, "time of the step");
    for (index, (step, floor)) in rows.iter().enumerate() {
        let y = 10.0 + (index as f64 + 0.5) * ROW;
        let seconds = step.observation.seconds;
        let label = svg::fitted(&step.observation.shape.label(), LEFT - 16.0);
        svg.text("name", [LEFT - 10.0, y + 4.0], Anchor::End, &label);
        let at = |seconds: f64| scale.at(seconds * 1e9);
        svg.line("span", [at(floor.total_s), y], [at(seconds), y]);
        let told = format!("floor {}", duration(floor.total_s * 1e9));
        svg.rect(
            "floor-mark",
            [at(floor.total_s) - 1.5, y - 8.0],
            [3.0, 16.0],
            &told,
        );
        let told = format!("good kernels {}", duration(floor.good_kernels_s * 1e9));
        let place = [at(floor.good_kernels_s), y];
        svg.mark("good-mark", Shape::Diamond, place, 6.0, &told);
        let told = format!("measured {}", duration(seconds * 1e9));
        svg.mark("need within", Shape::Circle, [at(seconds), y], 5.5, &told);
        let times = format!(
            "{}×",
            crate::quantity::significant(seconds / floor.total_s, 3)
        );
        svg.text("name", [RIGHT + 12.0, y + 4.0], Anchor::Start, &times);
    }
    let legend = "<p class=\"legend\"><span class=\"key\">●</span> measured · <span class=\"key\">◇</span> good kernels, without \
                  communication · <span class=\"key\">┃</span> floor · on the right: measured over floor</p>\n";
    Some(svg.finish("Measured steps beside their floors") + legend)
}

/// What a fit's line runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Batch,
    NewTokens,
    Context,
}

impl Over {
    /// The first dimension in which the shapes differ.
    fn of(shapes: &[StepShape]) -> Option<Over> {
        let differs = |of: fn(&StepShape) -> u64| {
            let first = shapes.first().map(of);
            shapes.iter().any(|s| Some(of(s)) != first)
        };
        if differs(|s| s.batch_size) {
            Some(Over::Batch)
        } else if differs(|s| s.new_tokens) {
            Some(Over::NewTokens)
        } else {
            differs(|s| s.context).then_some(Over::Context)
        }
    }

    fn title(self) -> &'static str {
        match self {
            Over::Batch => "batch size, requests",
            Over::NewTokens => "prompt, tokens per request",
            Over::Context => "context, tokens per request",
        }
    }

    fn value(self, shape: &StepShape) -> u64 {
        match self {
            Over::Batch => shape.batch_size,
            Over::NewTokens => shape.new_tokens,
            Over::Context => shape.context,
        }
    }

    /// A shape like `shape` with another value.
    fn with(self, shape: &StepShape, value: u64) -> StepShape {
        match self {
            Over::Batch => StepShape {
                batch_size: value,
                ..*shape
            },
            Over::NewTokens => StepShape {
                new_tokens: value,
                // What was in the cache before stays there.
                context: value.saturating_add(shape.context.saturating_sub(shape.new_tokens)),
                ..*shape
            },
            Over::Context => StepShape {
                context: value,
                ..*shape
            },
        }
    }

    /// The shapes of one line, and its name.
    fn series(self, shape: &StepShape) -> ([u64; 2], String) {
        match self {
            Over::Batch if shape.new_tokens > 1 => (
                [shape.new_tokens, shape.context],
                format!("{} tokens each", shape.new_tokens),
            ),
            Over::Batch => (
                [shape.new_tokens, shape.context],
                format!("context {}", shape.context),
            ),
            _ => ([shape.batch_size, 0], format!("batch {}", shape.batch_size)),
        }
    }
}

/// Time against the batch (or the length, where that is what differs), and the fit; nothing with a single shape.
pub(super) fn fit(steps: &StepsExplanation) -> Option<String> {
    const LEFT: f64 = 76.0;
    const RIGHT: f64 = WIDTH - 160.0;
    const HEIGHT: f64 = 280.0;
    const TOP: f64 = 14.0;
    const BOTTOM: f64 = TOP + HEIGHT;
    let shapes: Vec<StepShape> = steps.steps.iter().map(|s| s.observation.shape).collect();
    let over = Over::of(&shapes)?;
    let most = shapes.iter().map(|s| over.value(s)).max()?;
    let most_ns = steps.steps.iter().map(|s| s.observation.seconds * 1e9);
    let (unit, divisor) = svg::time_unit(most_ns.clone().fold(0.0, f64::max));
    let x = Scale::linear([most as f64], LEFT, RIGHT);
    let fitted_ns = |shape: &StepShape| steps.fit.as_ref().map(|fit| fit.seconds(shape) * 1e9);
    let fitted = shapes.iter().filter_map(fitted_ns);
    let y = Scale::linear(most_ns.chain(fitted).map(|ns| ns / divisor), BOTTOM, TOP);
    let mut svg = Svg::new(BOTTOM + 48.0);
    for tick in y.ticks(7) {
        let at = y.at(tick);
        svg.line("grid", [LEFT, at], [RIGHT, at]);
        let label = svg::tick_label(tick, "");
        svg.text("tick", [LEFT - 7.0, at + 4.0], Anchor::End, &label);
    }
    for tick in x.ticks(8) {
        let at = x.at(tick);
        svg.line("axis", [at, BOTTOM], [at, BOTTOM + 4.0]);
        let label = svg::tick_label(tick, "");
        svg.text("tick", [at, BOTTOM + 18.0], Anchor::Middle, &label);
    }
    svg.line("axis", [LEFT, BOTTOM], [RIGHT, BOTTOM]);
    svg.line("axis", [LEFT, TOP], [LEFT, BOTTOM]);
    let middle = [(LEFT + RIGHT) / 2.0, BOTTOM + 40.0];
    svg.text("axis-title", middle, Anchor::Middle, over.title());
    svg.turned_text(
        "axis-title",
        [18.0, TOP + HEIGHT / 2.0],
        Anchor::Middle,
        -90.0,
        &format!("time of the step, {unit}"),
    );
    let mut lines: Vec<([u64; 2], String, StepShape, u64)> = Vec::new();
    for shape in &shapes {
        let (key, name) = over.series(shape);
        let value = over.value(shape);
        match lines.iter_mut().find(|(other, ..)| *other == key) {
            Some((.., end)) => *end = value.max(*end),
            None => lines.push((key, name, *shape, value)),
        }
    }
    lines.truncate(MOST_SERIES);
    let mut names: Vec<(f64, f64, String)> = Vec::new();
    for (index, (_, name, shape, end)) in lines.iter().enumerate() {
        // A prompt of no tokens is no step; a batch of none is what is fixed.
        let start = if over == Over::Batch {
            0
        } else {
            (*end).min(1)
        };
        let samples = (*end - start).clamp(1, 60);
        let line: Vec<[f64; 2]> = (0..=samples)
            .filter_map(|i| {
                let value = start + ((end - start) as f64 * i as f64 / samples as f64) as u64;
                let ns = fitted_ns(&over.with(shape, value))?;
                Some([x.at(value as f64), y.at(ns / divisor)])
            })
            .collect();
        svg.polyline(&format!("curve floor curve-{}", index % 4), &line);
        let at = [x.at(*end as f64), line.last().map_or(TOP, |p| p[1])];
        names.push((at[1], at[0], name.clone()));
    }
    for step in &steps.steps {
        let shape = &step.observation.shape;
        let (key, _) = over.series(shape);
        let Some(index) = lines.iter().position(|(other, ..)| *other == key) else {
            continue;
        };
        let ns = step.observation.seconds * 1e9;
        let fitted =
            fitted_ns(shape).map_or_else(String::new, |ns| format!(", fit {}", duration(ns)));
        let told = format!("{}: {}{fitted}", shape.label(), duration(ns));
        let at = [x.at(over.value(shape) as f64), y.at(ns / divisor)];
        let form = [Shape::Circle, Shape::Square, Shape::Diamond][index % 3];
        svg.mark(&format!("dot curve-{}", index % 4), form, at, 5.0, &told);
    }
    if lines.len() > 1 {
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free_from = f64::MIN;
        for (at, right, name) in names {
            let baseline = (at + 4.0).max(free_from);
            free_from = baseline + 14.0;
            svg.text(
                "label",
                [right + 10.0, baseline],
                Anchor::Start,
                &svg::fitted(&name, 148.0),
            );
        }
    }
    let legend = if steps.fit.is_some() {
        "<p class=\"legend\">Marks: measured. Dashed: the fit, whose value at 0 is what every step pays.</p>\n"
    } else {
        ""
    };
    Some(svg.finish("Time of a step against its size, measured and fitted") + legend)
}
