//! A trace of another profiler as a page: what is said of it, its steps, families, and the step of median length by time.

use super::html::{self, Page, Table, folded};
use super::roofline::{self, Lines};
use super::svg::{self, Anchor, Scale, Svg, WIDTH, swatch};
use super::trace_timeline::timelines;
use crate::activity::{Grade, Trust};
use crate::explain::record::{OperationExplanation, StepExplanation};
use crate::quantity::{duration, percent, significant};
use crate::record::Roofs;
use crate::recorder::StepKind;
use crate::report::none;
use crate::timeline::{self, Analysis, Cause, DeviceAnalysis, Family, Kind, StepAnalysis, Trace};

/// The page of an analysed trace. `roofs` are those of the GPU that floors were computed for.
pub fn trace_page(trace: &Trace, analysis: &Analysis, roofs: Option<&Roofs>) -> String {
    let name = analysis.trace.rsplit(['/', '\\']).next();
    let mut page = Page::new(
        &format!("{}, explained", name.unwrap_or("a trace")),
        vec![format!(
            "{} · {} that did anything",
            analysis.format.label(),
            match analysis.devices.len() {
                1 => "1 GPU".to_owned(),
                n => format!("{n} GPUs"),
            }
        )],
    );
    let several = analysis.devices.len() > 1;
    let per_device = |of: &dyn Fn(&DeviceAnalysis) -> Option<String>| -> String {
        let contents = analysis.devices.iter().filter_map(|device| {
            let content = of(device)?;
            let title = match device.device.name.as_str() {
                "" => format!("GPU {}", device.device.id),
                name => format!("GPU {}: {name}", device.device.id),
            };
            let is_first = analysis
                .devices
                .first()
                .is_some_and(|d| d.device.id == device.device.id);
            Some(match several {
                true => folded(&title, &content, is_first),
                false => content,
            })
        });
        contents.collect()
    };
    page.section(
        "says",
        "What it says",
        html::trust(&analysis.trust)
            + &per_device(&|device| {
                let sentences = timeline::sentences(analysis, device);
                Some(
                    sentences
                        .iter()
                        .map(|s| format!("<p>{}</p>\n", svg::escape(s)))
                        .collect(),
                )
            }),
    );
    page.section("steps", "Steps", per_device(&|device| steps(device)));
    page.section(
        "families",
        "What the GPU was busy with",
        per_device(&|device| {
            let step = timeline::typical_step(device)?.1;
            Some(families(step) + &kernels(step))
        }),
    );
    page.section(
        "timeline",
        "The step of median length",
        per_device(&|device| {
            let (index, step) = timeline::typical_step(device)?;
            let drawing = timeline::drawing(trace, device, index)?;
            timelines(step, &drawing)
        }),
    );
    page.section(
        "roofline",
        "Roofline",
        per_device(&|device| {
            let step = timeline::typical_step(device)?.1;
            let lines = Lines {
                measured: None,
                datasheet: Some(roofs?),
            };
            roofline::plot(&[&placed(step)], &lines)
        }),
    );
    let remarks = analysis
        .remarks
        .iter()
        .map(|r| format!("<p>{}</p>\n", svg::escape(r)));
    page.section("remarks", "To read with care", remarks.collect());
    page.finish()
}

/// More steps are drawn as columns, which need less room than rows with names.
const MOST_ROWS: usize = 16;
/// More steps than a picture has pixels to tell apart.
const MOST_COLUMNS: usize = 400;

pub(super) fn cause_class(cause: Cause) -> &'static str {
    match cause {
        Cause::LaunchedLate => "part launch-late",
        Cause::Dependency => "part dependency",
        Cause::Unknown => "part unknown-gap",
    }
}

/// What a step's span is made of.
fn segments(step: &StepAnalysis) -> Vec<(&'static str, &'static str, u64)> {
    let mut segments = vec![
        ("part weights", "busy with it", step.busy_ns),
        ("part host", "other work alone", step.others_ns),
    ];
    let gaps = step.gaps.iter();
    segments.extend(gaps.map(|gap| (cause_class(gap.cause), gap.cause.label(), gap.total_ns)));
    segments.retain(|(_, _, ns)| *ns > 0);
    segments
}

fn legend(steps: &[&StepAnalysis]) -> String {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for (class, name, _) in steps.iter().flat_map(|step| segments(step)) {
        if !keys.iter().any(|(known, _)| *known == class) {
            keys.push((class, name));
        }
    }
    let keys: Vec<String> = keys
        .iter()
        .map(|(class, name)| swatch(class, name))
        .collect();
    format!("<p class=\"legend\">{}</p>\n", keys.join(" · "))
}

/// Busy and idle time of each step.
fn steps(device: &DeviceAnalysis) -> Option<String> {
    let steps = device.steps.as_slice();
    let plot = match steps {
        [] => return None,
        few if few.len() <= MOST_ROWS => rows(few),
        many => columns(many),
    };
    let shown: Vec<&StepAnalysis> = steps.iter().take(MOST_COLUMNS).collect();
    Some(plot + &legend(&shown))
}

fn step_title(number: usize, step: &StepAnalysis) -> String {
    let mut title = format!("{number}: {}", step.kind.label());
    if let Some(requests) = step.requests {
        title += &match requests {
            1 => ", 1 request".to_owned(),
            n => format!(", {n} requests"),
        };
    }
    title
}

fn told(number: usize, step: &StepAnalysis, name: &str, ns: u64) -> String {
    format!(
        "{}: {name} {}, {} of {}",
        step_title(number, step),
        duration(ns as f64),
        percent(ns as f64 / step.span_ns.max(1) as f64),
        duration(step.span_ns as f64)
    )
}

fn rows(steps: &[StepAnalysis]) -> String {
    const LEFT: f64 = 210.0;
    const RIGHT: f64 = WIDTH - 110.0;
    const ROW: f64 = 26.0;
    let longest = steps.iter().map(|s| s.span_ns as f64).fold(0.0, f64::max);
    let (unit, divisor) = svg::time_unit(longest);
    let scale = Scale::up_to(longest / divisor, LEFT, RIGHT);
    let bottom = 8.0 + steps.len() as f64 * ROW;
    let mut svg = Svg::new(bottom + 44.0);
    axis(&mut svg, &scale, [LEFT, RIGHT], bottom, unit);
    for (index, step) in steps.iter().enumerate() {
        let top = 8.0 + index as f64 * ROW;
        let title = svg::fitted(&step_title(index + 1, step), LEFT - 16.0);
        svg.text("name", [LEFT - 10.0, top + 15.0], Anchor::End, &title);
        let mut from = 0.0;
        for (class, name, ns) in segments(step) {
            let to = from + ns as f64;
            let (start, end) = (scale.at(from / divisor), scale.at(to / divisor));
            svg.rect(
                class,
                [start, top],
                [end - start, ROW - 6.0],
                &told(index + 1, step, name, ns),
            );
            from = to;
        }
        let share = step.busy_ns as f64 / step.span_ns.max(1) as f64;
        let text = format!("{} busy", percent(share));
        svg.text("name", [RIGHT + 12.0, top + 15.0], Anchor::Start, &text);
    }
    svg.finish("Busy and idle time of each step")
}

fn columns(steps: &[StepAnalysis]) -> String {
    const LEFT: f64 = 64.0;
    const RIGHT: f64 = WIDTH - 16.0;
    const TOP: f64 = 12.0;
    const BOTTOM: f64 = 220.0;
    let shown = &steps[..steps.len().min(MOST_COLUMNS)];
    let longest = shown.iter().map(|s| s.span_ns as f64).fold(0.0, f64::max);
    let (unit, divisor) = svg::time_unit(longest);
    let scale = Scale::up_to(longest / divisor * 1.02, BOTTOM, TOP);
    let mut svg = Svg::new(BOTTOM + 40.0);
    for tick in scale.ticks(6) {
        let at = scale.at(tick);
        svg.line("grid", [LEFT, at], [RIGHT, at]);
        svg.text(
            "tick",
            [LEFT - 8.0, at + 4.0],
            Anchor::End,
            &svg::tick_label(tick, ""),
        );
    }
    let width = (RIGHT - LEFT) / shown.len() as f64;
    for (index, step) in shown.iter().enumerate() {
        let left = LEFT + index as f64 * width;
        let mut from = 0.0;
        for (class, name, ns) in segments(step) {
            let to = from + ns as f64;
            let (low, high) = (scale.at(from / divisor), scale.at(to / divisor));
            let size = [(width * 0.86).max(0.4), low - high];
            svg.rect(class, [left, high], size, &told(index + 1, step, name, ns));
            from = to;
        }
    }
    svg.line("axis", [LEFT, BOTTOM], [RIGHT, BOTTOM]);
    let title = format!("time of each step, {unit}, in the order in which they ran");
    svg.text(
        "axis-title",
        [(LEFT + RIGHT) / 2.0, BOTTOM + 26.0],
        Anchor::Middle,
        &title,
    );
    let mut plot = svg.finish("Busy and idle time of each step, in order");
    if steps.len() > shown.len() {
        plot += &format!(
            "<p class=\"note\">The first {} of {} steps.</p>\n",
            shown.len(),
            steps.len()
        );
    }
    plot
}

pub(super) fn axis(svg: &mut Svg, scale: &Scale, sides: [f64; 2], bottom: f64, unit: &str) {
    for tick in scale.ticks(8) {
        let at = scale.at(tick);
        svg.line("grid", [at, 4.0], [at, bottom]);
        svg.text(
            "tick",
            [at, bottom + 16.0],
            Anchor::Middle,
            &svg::tick_label(tick, ""),
        );
    }
    svg.line("axis", [sides[0], bottom], [sides[1], bottom]);
    let middle = [(sides[0] + sides[1]) / 2.0, bottom + 37.0];
    svg.text(
        "axis-title",
        middle,
        Anchor::Middle,
        &format!("time, {unit}"),
    );
}

/// The class of a family's colour: those that take most have one of their own.
pub(super) fn class_of(family: Family, step: &StepAnalysis) -> String {
    match step.families.iter().position(|time| time.family == family) {
        Some(index) if index < 7 => format!("operation shade-{index}"),
        _ => "operation shade-rest".to_owned(),
    }
}

/// Busy time by family, each beside its floor.
fn families(step: &StepAnalysis) -> String {
    const LEFT: f64 = 150.0;
    const RIGHT: f64 = WIDTH - 130.0;
    const ROW: f64 = 26.0;
    let floor_of = |family| step.floors.iter().find(|floor| floor.family == family);
    let largest = step.families.iter().map(|time| time.busy_ns as f64);
    let floors = step.floors.iter().map(|floor| floor.floor_ns as f64);
    let largest = largest.chain(floors).fold(0.0, f64::max);
    if largest <= 0.0 {
        return String::new();
    }
    let (unit, divisor) = svg::time_unit(largest);
    let scale = Scale::up_to(largest / divisor, LEFT, RIGHT);
    let bottom = 8.0 + step.families.len() as f64 * ROW;
    let mut svg = Svg::new(bottom + 44.0);
    axis(&mut svg, &scale, [LEFT, RIGHT], bottom, unit);
    let has_floors = !step.floors.is_empty();
    let mut header = vec!["family", "kernels", "time\nµs", "% of busy\ntime"];
    if has_floors {
        header.extend(["floor\nµs", "floor,\n% of time", "bound by"]);
    }
    let mut table = Table::new("lrrrrrl", &header);
    for (index, time) in step.families.iter().enumerate() {
        let top = 8.0 + index as f64 * ROW;
        svg.text(
            "name",
            [LEFT - 10.0, top + 15.0],
            Anchor::End,
            time.family.label(),
        );
        let share = time.busy_ns as f64 / step.busy_ns.max(1) as f64;
        let end = scale.at(time.busy_ns as f64 / divisor);
        let text = format!(
            "{}: {} in {} kernels, {} of the busy time",
            time.family.label(),
            duration(time.busy_ns as f64),
            time.count,
            percent(share)
        );
        let class = class_of(time.family, step);
        svg.rect(&class, [LEFT, top], [end - LEFT, ROW - 6.0], &text);
        let floor = floor_of(time.family);
        if let Some(floor) = floor {
            let at = scale.at(floor.floor_ns as f64 / divisor);
            let text = format!(
                "floor {}, by {}",
                duration(floor.floor_ns as f64),
                floor.bound_by
            );
            svg.rect("floor-mark", [at - 1.5, top - 2.0], [3.0, ROW - 2.0], &text);
        }
        let text = format!("{} {}", duration(time.busy_ns as f64), percent(share));
        svg.text(
            "name",
            [end.max(LEFT) + 12.0, top + 15.0],
            Anchor::Start,
            &text,
        );
        let microseconds = |ns: u64| significant(ns as f64 / 1e3, 4);
        let floor_share = |ns: u64| significant(100.0 * ns as f64 / time.busy_ns.max(1) as f64, 3);
        let mut cells = vec![
            time.family.label().to_owned(),
            time.count.to_string(),
            microseconds(time.busy_ns),
            significant(100.0 * share, 3),
        ];
        if has_floors {
            cells.extend([
                floor.map_or_else(none, |f| microseconds(f.floor_ns)),
                floor.map_or_else(none, |f| floor_share(f.floor_ns)),
                floor.map_or_else(String::new, |f| f.bound_by.clone()),
            ]);
        }
        table.row(cells);
    }
    let mut content = svg.finish("Busy time of the step by family of kernels");
    if has_floors {
        content += "<p class=\"legend\"><span class=\"key\">┃</span> floor: what the model's work needs at least on this GPU</p>\n";
    }
    content + &table.finish()
}

fn kernels(step: &StepAnalysis) -> String {
    let mut table = Table::new(
        "llrrr",
        &["kernel", "family", "count", "sum\nµs", "% of busy\ntime"],
    );
    for kernel in &step.top_kernels {
        table.row([
            kernel.name.clone(),
            kernel.family.label().to_owned(),
            kernel.count.to_string(),
            significant(kernel.sum_ns as f64 / 1e3, 4),
            significant(100.0 * kernel.sum_ns as f64 / step.busy_ns.max(1) as f64, 3),
        ]);
    }
    format!("<h3>Largest kernels</h3>\n{}", table.finish())
}

/// A step's families as a roofline takes operations: those with floors, of which the work is known.
fn placed(step: &StepAnalysis) -> StepExplanation {
    let operations = step.families.iter().filter_map(|time| {
        let floor = step
            .floors
            .iter()
            .find(|floor| floor.family == time.family)?;
        Some(OperationExplanation {
            name: time.family.label().to_owned(),
            kernel: format!("{} kernels", time.count),
            calls: time.count as f64,
            ns: Some(time.busy_ns as f64),
            floor_ns: floor.floor_ns as f64,
            efficiency: Some(floor.floor_ns as f64 / time.busy_ns.max(1) as f64),
            bound: Some(floor.bound_by.clone()),
            saving_ns: time.busy_ns.saturating_sub(floor.floor_ns) as f64,
            flops: floor.flops as f64,
            bytes: floor.bytes as f64,
            is_above_roof: time.busy_ns < floor.floor_ns,
        })
    });
    StepExplanation {
        point: 0,
        label: String::new(),
        kind: match step.kind {
            Kind::Prefill => StepKind::Prefill,
            _ => StepKind::Decode,
        },
        trust: Trust {
            grade: Grade::Limited,
            reasons: Vec::new(),
        },
        wall_ns: step.span_ns as f64,
        is_recorded: true,
        device: None,
        held_clock_mhz: None,
        parts: Vec::new(),
        operations: operations.collect(),
        statements: Vec::new(),
    }
}
