//! Stacked bars: what the time of each step is made of, each bar the whole of its step.

use super::svg::{self, Anchor, Scale, Svg, WIDTH, swatch};
use crate::explain::record::{PartKind, StepExplanation};
use crate::quantity::{duration, percent};
use crate::record::{Record, StepTotal};
use crate::recorder::{Phase, StepKind};
use crate::report::ShownSteps;

const BAR: f64 = 28.0;
const ROW: f64 = 58.0;
const LEFT: f64 = 8.0;
const RIGHT: f64 = WIDTH - 8.0;

struct Bar {
    title: String,
    wall_ns: f64,
    parts: Vec<Segment>,
}

struct Segment {
    class: &'static str,
    name: &'static str,
    ns: f64,
}

const PARTS: [PartKind; 15] = [
    PartKind::Compute,
    PartKind::Weights,
    PartKind::Kv,
    PartKind::Activations,
    PartKind::Ramp,
    PartKind::AboveFloors,
    PartKind::Communication,
    PartKind::OutsideOperations,
    PartKind::LaunchLate,
    PartKind::Dependency,
    PartKind::AfterLast,
    PartKind::UnknownGap,
    PartKind::Gaps,
    PartKind::Host,
    PartKind::Unexplained,
];

fn class_of_part(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Compute => "part compute",
        PartKind::Weights => "part weights",
        PartKind::Kv => "part kv",
        PartKind::Activations => "part activations",
        PartKind::Ramp => "part ramp",
        PartKind::AboveFloors => "part above-floors",
        PartKind::Communication => "part communication",
        PartKind::OutsideOperations | PartKind::Overlap => "part outside",
        PartKind::LaunchLate => "part launch-late",
        PartKind::Dependency => "part dependency",
        PartKind::AfterLast => "part after-last",
        PartKind::UnknownGap => "part unknown-gap",
        PartKind::Gaps => "part gaps",
        PartKind::Host => "part host",
        PartKind::Unexplained => "part unexplained",
    }
}

pub(super) fn class_of_phase(phase: Phase) -> &'static str {
    match phase {
        Phase::TokenPool => "phase token-pool",
        Phase::KvAlloc => "phase kv-alloc",
        Phase::Prepare => "phase prepare",
        Phase::Forward => "phase forward",
        Phase::Sample => "phase sample",
        Phase::Other => "phase other",
    }
}

fn title_of(step: &StepExplanation) -> String {
    format!(
        "{}, {}: {}",
        step.kind.title(),
        step.label,
        duration(step.wall_ns)
    )
}

/// The parts of every step; nothing without a step that took time.
pub(super) fn parts(steps: &[StepExplanation]) -> Option<String> {
    let bars: Vec<Bar> = steps
        .iter()
        .map(|step| Bar {
            title: title_of(step),
            wall_ns: step.wall_ns,
            parts: step
                .parts
                .iter()
                .map(|part| Segment {
                    class: class_of_part(part.kind),
                    name: part.kind.title(),
                    ns: part.ns,
                })
                .collect(),
        })
        .collect();
    let keys = PARTS.map(|kind| (class_of_part(kind), kind.title()));
    draw(
        &bars,
        &keys,
        "Parts of each step's time, percent of the step",
    )
}

/// The phases of every step: host time, or the GPU's where that was taken.
pub(super) fn phases(record: &Record, steps: &[StepExplanation]) -> Option<String> {
    let bars: Vec<Bar> = steps
        .iter()
        .filter_map(|explained| {
            let shown = ShownSteps::of(record.points.get(explained.point)?);
            let step = match explained.kind {
                StepKind::Prefill => shown.prefill,
                StepKind::Decode => shown.decode,
            }?;
            let mut total = StepTotal::empty();
            total.add(step);
            let parts = Phase::ALL.into_iter().map(|phase| Segment {
                class: class_of_phase(phase),
                name: phase.name(),
                ns: total.phase_ns(phase) as f64,
            });
            Some(Bar {
                title: title_of(explained),
                wall_ns: explained.wall_ns,
                parts: parts.collect(),
            })
        })
        .collect();
    let keys = Phase::ALL.map(|phase| (class_of_phase(phase), phase.name()));
    draw(&bars, &keys, "Phases of each step, percent of the step")
}

fn draw(bars: &[Bar], keys: &[(&'static str, &'static str)], label: &str) -> Option<String> {
    let bars: Vec<&Bar> = bars.iter().filter(|bar| bar.wall_ns > 0.0).collect();
    if bars.is_empty() {
        return None;
    }
    let bottom = bars.len() as f64 * ROW + 4.0;
    let mut svg = Svg::new(bottom + 44.0);
    let scale = Scale::between(0.0, 100.0, LEFT, RIGHT);
    for (row, bar) in bars.iter().enumerate() {
        let top = row as f64 * ROW + 22.0;
        svg.text("bar-title", [LEFT, top - 7.0], Anchor::Start, &bar.title);
        // Parts that overlap (a GPU and a host that work at once) may be more than the whole.
        let sum: f64 = bar.parts.iter().map(|p| p.ns.max(0.0)).sum();
        let whole = sum.max(bar.wall_ns);
        let mut from = 0.0;
        for part in bar.parts.iter().filter(|p| p.ns > 0.0) {
            let share = part.ns / whole;
            let (start, end) = (scale.at(100.0 * from), scale.at(100.0 * (from + share)));
            let told = format!(
                "{}: {}, {} of the step",
                part.name,
                duration(part.ns),
                percent(share)
            );
            svg.rect(part.class, [start, top], [end - start, BAR], &told);
            let (long, short) = (format!("{} {}", part.name, percent(share)), percent(share));
            let fits = |text: &String| svg::text_width(text) + 10.0 < end - start;
            if let Some(text) = [long, short].into_iter().find(fits) {
                let class = format!("inside {}", part.class);
                let middle = [(start + end) / 2.0, top + BAR / 2.0 + 4.5];
                svg.text(&class, middle, Anchor::Middle, &text);
            }
            from += share;
        }
    }
    for tick in scale.ticks(10) {
        let at = scale.at(tick);
        svg.line("axis", [at, bottom - 4.0], [at, bottom + 1.0]);
        let anchor = match tick {
            0.0 => Anchor::Start,
            t if t >= 100.0 => Anchor::End,
            _ => Anchor::Middle,
        };
        svg.text(
            "tick",
            [at, bottom + 15.0],
            anchor,
            &svg::tick_label(tick, ""),
        );
    }
    svg.line("axis", [LEFT, bottom - 4.0], [RIGHT, bottom - 4.0]);
    let middle = [(LEFT + RIGHT) / 2.0, bottom + 36.0];
    svg.text("axis-title", middle, Anchor::Middle, "% of the step");
    let shown: Vec<String> = keys
        .iter()
        .filter(|(class, _)| {
            let parts = bars.iter().flat_map(|bar| &bar.parts);
            parts.into_iter().any(|p| p.class == *class && p.ns > 0.0)
        })
        .map(|(class, name)| swatch(class, name))
        .collect();
    Some(svg.finish(label) + &format!("<p class=\"legend\">{}</p>\n", shown.join(" · ")))
}
