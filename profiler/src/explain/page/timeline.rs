//! A step by time: the phases of the host, the layers, and the operations; and one layer of it enlarged, with names.

use super::bars::class_of_phase;
use super::svg::{self, Anchor, Scale, Svg, WIDTH, swatch};
use crate::explain::record::StepExplanation;
use crate::quantity::duration;
use crate::record::{Operation, Record, Step};
use crate::recorder::{StepKind, Timer};
use crate::report::ShownSteps;

const LEFT: f64 = 96.0;
const RIGHT: f64 = WIDTH - 16.0;
const LANE: f64 = 30.0;
const GAP: f64 = 8.0;
/// Operations with a shade of their own; the rest share one.
const SHADES: usize = 7;
/// What is narrower is drawn together with its neighbours.
const NARROW: f64 = 0.35;

/// The timeline of the step that an explanation is about; nothing when its operations were not kept or nothing timed them.
pub(super) fn plot(
    record: &Record,
    explained: &StepExplanation,
    shades: &[String],
) -> Option<String> {
    let shown = ShownSteps::of(record.points.get(explained.point)?);
    let step = match explained.kind {
        StepKind::Prefill => shown.prefill,
        StepKind::Decode => shown.decode,
    }?;
    let timed: Vec<&Operation> = step
        .operations
        .iter()
        .filter(|o| o.timer != Timer::None && o.duration_ns > 0)
        .collect();
    if timed.is_empty() || step.wall_ns == 0 {
        return None;
    }
    let layers = layers(&timed);
    let mut plots = whole(step, &timed, &layers, shades);
    plots += &legend(shades);
    if let Some(layer) = typical(&layers) {
        plots += &enlarged(layer, &timed, shades);
    }
    Some(plots)
}

/// Operations by the share of their steps' time, those with a shade of their own: the same in all timelines of a page.
pub(super) fn shades(steps: &[StepExplanation]) -> Vec<String> {
    let mut sums: Vec<(&str, f64)> = Vec::new();
    for step in steps.iter().filter(|s| s.wall_ns > 0.0) {
        for operation in &step.operations {
            let share = operation.ns.unwrap_or(0.0) / step.wall_ns;
            match sums.iter_mut().find(|(name, _)| *name == operation.name) {
                Some((_, sum)) => *sum += share,
                None => sums.push((&operation.name, share)),
            }
        }
    }
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    let most = sums.into_iter().take(SHADES);
    most.map(|(name, _)| name.to_owned()).collect()
}

fn class_of(name: &str, shades: &[String]) -> String {
    match shades.iter().position(|shade| shade == name) {
        Some(index) => format!("operation shade-{index}"),
        None => "operation shade-rest".to_owned(),
    }
}

fn end_ns(operation: &Operation) -> f64 {
    operation.start_ns as f64 + operation.duration_ns as f64
}

/// A run of operations of one layer.
struct LayerSpan {
    layer: u32,
    from_ns: f64,
    to_ns: f64,
    /// Of the timed operations: the first, and one past the last.
    operations: [usize; 2],
}

fn layers(operations: &[&Operation]) -> Vec<LayerSpan> {
    let mut spans: Vec<LayerSpan> = Vec::new();
    let mut before = None;
    for (index, operation) in operations.iter().enumerate() {
        if let Some(layer) = operation.layer {
            let (from_ns, to_ns) = (operation.start_ns as f64, end_ns(operation));
            match spans.last_mut() {
                Some(span) if before == Some(layer) => {
                    span.to_ns = span.to_ns.max(to_ns);
                    span.from_ns = span.from_ns.min(from_ns);
                    span.operations[1] = index + 1;
                }
                _ => spans.push(LayerSpan {
                    layer,
                    from_ns,
                    to_ns,
                    operations: [index, index + 1],
                }),
            }
        }
        before = operation.layer;
    }
    spans
}

/// The layer of which the time lies nearest to the median.
fn typical(layers: &[LayerSpan]) -> Option<&LayerSpan> {
    let mut by_time: Vec<&LayerSpan> = layers.iter().collect();
    by_time.sort_by(|a, b| (a.to_ns - a.from_ns).total_cmp(&(b.to_ns - b.from_ns)));
    by_time.get(by_time.len() / 2).copied()
}

fn whole(
    step: &Step,
    operations: &[&Operation],
    layers: &[LayerSpan],
    shades: &[String],
) -> String {
    let wall_ns = step.wall_ns as f64;
    let (unit, divisor) = svg::time_unit(wall_ns);
    let scale = Scale::up_to(wall_ns / divisor, LEFT, RIGHT);
    let at = |ns: f64| scale.at(ns / divisor);
    let device = if operations.iter().any(|o| o.timer == Timer::Event) {
        "device"
    } else {
        "operations"
    };
    let lane_top = |lane: usize| 6.0 + lane as f64 * (LANE + GAP);
    let lanes = if layers.is_empty() { 2 } else { 3 };
    let bottom = lane_top(lanes);
    let mut svg = Svg::new(bottom + 44.0);
    time_axis(&mut svg, &scale, bottom, unit);

    lane_title(&mut svg, lane_top(0), "host phases");
    let mut labelled_to = LEFT;
    for phase in &step.phases {
        let (from, to) = (
            at(phase.start_ns as f64),
            at(phase.start_ns as f64 + phase.host_ns as f64),
        );
        let class = class_of_phase(phase.name);
        let told = format!("{}: {}", phase.name.name(), duration(phase.host_ns as f64));
        let top = lane_top(0);
        svg.rect(class, [from, top], [(to - from).max(0.5), LANE], &told);
        let name = phase.name.name();
        if svg::text_width(name) + 8.0 < to - from && from >= labelled_to {
            let middle = [(from + to) / 2.0, top + LANE / 2.0 + 4.5];
            svg.text(&format!("inside {class}"), middle, Anchor::Middle, name);
            labelled_to = to;
        }
    }

    if lanes == 3 {
        lane_title(&mut svg, lane_top(1), "layers");
        let mut odd = false;
        for span in layers {
            let (from, to) = (at(span.from_ns), at(span.to_ns));
            let class = if odd { "layer odd" } else { "layer" };
            odd = !odd;
            let told = format!(
                "layer {}: {}",
                span.layer,
                duration(span.to_ns - span.from_ns)
            );
            let top = lane_top(1);
            svg.rect(class, [from, top], [to - from, LANE], &told);
            let name = span.layer.to_string();
            if svg::text_width(&name) + 4.0 < to - from {
                let middle = [(from + to) / 2.0, top + LANE / 2.0 + 4.5];
                svg.text("inside layer", middle, Anchor::Middle, &name);
            }
        }
    }

    let top = lane_top(lanes - 1);
    lane_title(&mut svg, top, device);
    // Operations too narrow to see are drawn with their neighbours, so that the page of a long step stays small.
    let mut merged: Option<(f64, f64, usize)> = None;
    let flush = |svg: &mut Svg, merged: &mut Option<(f64, f64, usize)>| {
        if let Some((from, to, count)) = merged.take() {
            let told = format!("{count} short operations");
            svg.rect(
                "operation shade-rest",
                [from, top],
                [to - from, LANE],
                &told,
            );
        }
    };
    for operation in operations {
        let (from, to) = (at(operation.start_ns as f64), at(end_ns(operation)));
        if to - from < NARROW {
            match &mut merged {
                Some((_, end, count)) if from - *end < NARROW && from >= *end - NARROW => {
                    *end = end.max(to);
                    *count += 1;
                }
                _ => {
                    flush(&mut svg, &mut merged);
                    merged = Some((from, to, 1));
                }
            }
            continue;
        }
        flush(&mut svg, &mut merged);
        let class = class_of(&operation.name, shades);
        svg.rect(&class, [from, top], [to - from, LANE], &told(operation));
    }
    flush(&mut svg, &mut merged);
    svg.finish("Timeline of the step: phases of the host, layers, operations")
}

fn told(operation: &Operation) -> String {
    let layer = operation
        .layer
        .map_or_else(String::new, |layer| format!(", layer {layer}"));
    format!(
        "{} ({}){layer}: {} from {}",
        operation.name,
        operation.kernel,
        duration(operation.duration_ns as f64),
        duration(operation.start_ns as f64)
    )
}

fn enlarged(span: &LayerSpan, operations: &[&Operation], shades: &[String]) -> String {
    const LABELS: usize = 4;
    let long_ns = (span.to_ns - span.from_ns).max(1.0);
    let (unit, divisor) = svg::time_unit(long_ns);
    let scale = Scale::up_to(long_ns / divisor, LEFT, RIGHT);
    let at = |ns: f64| scale.at((ns - span.from_ns) / divisor);
    let top = 6.0 + LABELS as f64 * 15.0;
    let bottom = top + LANE + GAP;
    let mut svg = Svg::new(bottom + 44.0);
    time_axis(&mut svg, &scale, bottom, unit);
    lane_title(&mut svg, top, &format!("layer {}", span.layer));
    // Labels stand above their operations, on the first line where there is room.
    let mut free_from = [0.0_f64; LABELS];
    let [first, last] = span.operations;
    for operation in operations.get(first..last).unwrap_or_default() {
        let (from, to) = (at(operation.start_ns as f64), at(end_ns(operation)));
        let class = class_of(&operation.name, shades);
        svg.rect(
            &class,
            [from, top],
            [(to - from).max(0.3), LANE],
            &told(operation),
        );
        let text = svg::fitted(&operation.name, 150.0);
        let width = svg::text_width(&text);
        let middle = (from + to) / 2.0;
        let start = (middle - width / 2.0).clamp(LEFT, (RIGHT - width).max(LEFT));
        let line = free_from.iter().position(|free| start >= *free);
        if let Some(line) = line {
            if let Some(free) = free_from.get_mut(line) {
                *free = start + width + 8.0;
            }
            let baseline = top - 7.0 - 15.0 * line as f64;
            svg.line("leader", [middle, baseline + 2.0], [middle, top]);
            svg.text("label", [start, baseline], Anchor::Start, &text);
        }
    }
    let note = format!(
        "<p class=\"note\">Layer {} alone, the one whose time is the median of all layers ({}):</p>\n",
        span.layer,
        duration(long_ns)
    );
    note + &svg.finish("One layer of the step, enlarged")
}

fn lane_title(svg: &mut Svg, top: f64, title: &str) {
    let at = [LEFT - 8.0, top + LANE / 2.0 + 4.5];
    svg.text("tick", at, Anchor::End, title);
}

fn time_axis(svg: &mut Svg, scale: &Scale, bottom: f64, unit: &str) {
    for tick in scale.ticks(10) {
        let at = scale.at(tick);
        svg.line("grid", [at, 4.0], [at, bottom]);
        let label = svg::tick_label(tick, "");
        svg.text("tick", [at, bottom + 16.0], Anchor::Middle, &label);
    }
    svg.line("axis", [LEFT, bottom], [RIGHT, bottom]);
    let title = format!("time, {unit}");
    let middle = [(LEFT + RIGHT) / 2.0, bottom + 37.0];
    svg.text("axis-title", middle, Anchor::Middle, &title);
}

fn legend(shades: &[String]) -> String {
    let mut items: Vec<String> = shades
        .iter()
        .map(|name| {
            (
                class_of(name, shades),
                svg::escape(&svg::fitted(name, 200.0)),
            )
        })
        .map(|(class, name)| swatch(&class, &name))
        .collect();
    items.push(swatch("operation shade-rest", "all others"));
    format!("<p class=\"legend\">{}</p>\n", items.join(" · "))
}
