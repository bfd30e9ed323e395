//! The roofline plot of a point: what its operations reach, under what the device can do.

use super::svg::{self, Anchor, Scale, Shape, Svg, WIDTH};
use crate::explain::record::{OperationExplanation, StepExplanation};
use crate::quantity::{percent, with_prefix};
use crate::record::Roofs;
use crate::recorder::StepKind;

const HEIGHT: f64 = 470.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = WIDTH - 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = HEIGHT - 56.0;
const LARGEST_RADIUS: f64 = 20.0;
const SMALLEST_RADIUS: f64 = 3.0;
/// Operations below this share of their step have a point but no label.
const LABELLED_SHARE: f64 = 0.005;
/// The height of a label.
const LINE: f64 = 14.0;

/// The lines to hold operations against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    /// Drawn solid.
    pub(super) measured: Option<&'a Roofs>,
    /// Drawn dashed.
    pub(super) datasheet: Option<&'a Roofs>,
}

struct Point<'a> {
    operation: &'a OperationExplanation,
    kind: StepKind,
    intensity: f64,
    flops_per_s: f64,
    share: f64,
    ns: f64,
}

/// The shape of a kind of step, for the legend too.
pub(super) fn shape_of(kind: StepKind) -> (Shape, &'static str) {
    match kind {
        StepKind::Prefill => (Shape::Square, "mark prefill"),
        StepKind::Decode => (Shape::Circle, "mark decode"),
    }
}

fn points<'a>(step: &'a StepExplanation) -> impl Iterator<Item = Point<'a>> {
    step.operations.iter().filter_map(move |operation| {
        let ns = operation.ns.filter(|ns| *ns > 0.0)?;
        let has_place = operation.flops > 0.0 && operation.bytes > 0.0;
        has_place.then(|| Point {
            operation,
            kind: step.kind,
            intensity: operation.flops / operation.bytes,
            flops_per_s: operation.flops / (ns / 1e9),
            share: if step.wall_ns > 0.0 {
                (ns / step.wall_ns).min(1.0)
            } else {
                0.0
            },
            ns,
        })
    })
}

/// The plot of the steps of one point; nothing when no operation can be placed.
pub(super) fn plot(steps: &[&StepExplanation], lines: &Lines<'_>) -> Option<String> {
    let mut points: Vec<Point<'_>> = steps.iter().flat_map(|step| points(step)).collect();
    if points.is_empty() {
        return None;
    }
    // Small marks are drawn over large ones.
    points.sort_by(|a, b| b.share.total_cmp(&a.share));
    let all_roofs = || [lines.measured, lines.datasheet].into_iter().flatten();
    let ridges = all_roofs().flat_map(|roofs| {
        let last = roofs.bandwidth.last();
        last.map(|level| roofs.flops_per_s / level.bytes_per_s)
    });
    let x = Scale::log(
        points.iter().map(|p| p.intensity).chain(ridges),
        0.45,
        LEFT,
        RIGHT,
    )?;
    let y = Scale::log(
        points
            .iter()
            .map(|p| p.flops_per_s)
            .chain(all_roofs().map(|r| r.flops_per_s)),
        0.35,
        BOTTOM,
        TOP,
    )?;
    let mut svg = Svg::new(HEIGHT);
    axes(&mut svg, &x, &y);
    let mut taken: Vec<Area> = points
        .iter()
        .map(|point| {
            let (cx, cy) = (x.at(point.intensity), y.at(point.flops_per_s));
            let r = radius(point.share);
            [cx - r, cy - r, cx + r, cy + r]
        })
        .collect();
    if let Some(roofs) = lines.datasheet {
        roof(&mut svg, &x, &y, roofs, false, &mut taken);
    }
    if let Some(roofs) = lines.measured {
        roof(&mut svg, &x, &y, roofs, true, &mut taken);
    }
    for point in &points {
        mark(&mut svg, &x, &y, point);
    }
    labels(&mut svg, &x, &y, &points, taken);
    let label =
        "Roofline: operations by FLOP per byte and FLOP per second, under the roofs of the device";
    Some(svg.finish(label) + &legend(steps, lines) + &unplaced(steps))
}

fn axes(svg: &mut Svg, x: &Scale, y: &Scale) {
    for tick in y.ticks(8) {
        let at = y.at(tick);
        svg.line("grid", [LEFT, at], [RIGHT, at]);
        let label = svg::tick_label(tick, "FLOP/s");
        svg.text("tick", [LEFT - 8.0, at + 4.0], Anchor::End, &label);
    }
    for tick in x.ticks(10) {
        let at = x.at(tick);
        svg.line("grid", [at, TOP], [at, BOTTOM]);
        let label = svg::tick_label(tick, "");
        svg.text("tick", [at, BOTTOM + 18.0], Anchor::Middle, &label);
    }
    svg.line("axis", [LEFT, BOTTOM], [RIGHT, BOTTOM]);
    svg.line("axis", [LEFT, TOP], [LEFT, BOTTOM]);
    svg.text(
        "axis-title",
        [(LEFT + RIGHT) / 2.0, BOTTOM + 42.0],
        Anchor::Middle,
        "arithmetic intensity, FLOP / byte",
    );
}

/// A box of the picture: left, top, right, bottom.
type Area = [f64; 4];

/// A roof: per memory level a slope that ends at the level of arithmetic.
fn roof(
    svg: &mut Svg,
    x: &Scale,
    y: &Scale,
    roofs: &Roofs,
    is_measured: bool,
    taken: &mut Vec<Area>,
) {
    let (class, whose) = if is_measured {
        ("roof", "measured")
    } else {
        ("roof datasheet", "data sheet")
    };
    let is_usable = |rate: f64| rate.is_finite() && rate > 0.0;
    let flops_per_s = roofs.flops_per_s;
    if !is_usable(flops_per_s) {
        return;
    }
    let [first, last] = x.ends();
    let bottom = y.ends()[0];
    let mut flat_from = last;
    for (index, level) in roofs.bandwidth.iter().enumerate() {
        if !is_usable(level.bytes_per_s) {
            continue;
        }
        let ridge = (flops_per_s / level.bytes_per_s).min(last);
        let start = (bottom / level.bytes_per_s).max(first);
        if !is_usable(ridge) || ridge <= start {
            continue;
        }
        flat_from = flat_from.min(ridge);
        let from = [x.at(start), y.at(level.bytes_per_s * start)];
        let to = [x.at(ridge), y.at(level.bytes_per_s * ridge)];
        svg.line(class, from, to);
        let label = format!("{} {}", level.name, with_prefix(level.bytes_per_s, "B/s"));
        let (run, rise) = (to[0] - from[0], to[1] - from[1]);
        let length = run.hypot(rise);
        let wide = svg::text_width(&label) + 16.0;
        if length <= wide {
            continue;
        }
        // Pieces along the slope, so that other labels keep off it.
        let pieces = |along: f64| -> Vec<Area> {
            let piece = |i: i32| {
                let t = (along + wide * f64::from(i) / 8.0) / length;
                let [px, py] = [from[0] + run * t, from[1] + rise * t];
                [px - 8.0, py - 20.0, px + 10.0, py]
            };
            (0..8).map(piece).collect()
        };
        // Neighbouring slopes lie close: their labels begin to look for room at different ends.
        let room = length - wide;
        let first = [0.05, 0.45, 0.25, 0.65][index % 2 + if is_measured { 0 } else { 2 }];
        let along: Vec<f64> = (0..12)
            .map(|i| 8.0 + room * (first + f64::from(i) / 12.0).fract())
            .collect();
        let is_free = |along: &&f64| {
            let pieces = pieces(**along);
            !pieces.iter().any(|a| taken.iter().any(|b| overlap(a, b)))
        };
        let Some(along) = along.iter().find(is_free).or(along.first()).copied() else {
            continue;
        };
        let at = [
            from[0] + run / length * along + 5.0 * rise / length,
            from[1] + rise / length * along - 5.0 * run / length,
        ];
        let degrees = rise.atan2(run).to_degrees();
        svg.turned_text("roof-label", at, Anchor::Start, degrees, &label);
        taken.extend(pieces(along));
    }
    let top = y.at(flops_per_s);
    svg.line(class, [x.at(flat_from.max(first)), top], [RIGHT, top]);
    let label = format!("{} {whose}", with_prefix(flops_per_s, "FLOP/s"));
    let width = svg::text_width(&label);
    // As far to the right as there is room above the line.
    let flat = (RIGHT - x.at(flat_from.max(first))).max(0.0);
    let area = |end: f64| [end - width, top - 18.0, end, top - 2.0];
    let ends = (0..24).map(|i| RIGHT - 4.0 - flat * f64::from(i) / 24.0);
    let is_free =
        |end: &f64| end - width > LEFT && !taken.iter().any(|other| overlap(&area(*end), other));
    let end = ends.clone().find(is_free).unwrap_or(RIGHT - 4.0);
    svg.text("roof-label", [end, top - 6.0], Anchor::End, &label);
    taken.push(area(end));
}

fn radius(share: f64) -> f64 {
    (share.max(0.0).sqrt() * 2.0 * LARGEST_RADIUS).clamp(SMALLEST_RADIUS, LARGEST_RADIUS)
}

fn mark(svg: &mut Svg, x: &Scale, y: &Scale, point: &Point<'_>) {
    let operation = point.operation;
    let mut title = format!(
        "{} {} ({}): {} at {:.3} FLOP/B, {}, {} of the step",
        point.kind.name(),
        operation.name,
        operation.kernel,
        with_prefix(point.flops_per_s, "FLOP/s"),
        point.intensity,
        crate::quantity::duration(point.ns),
        percent(point.share),
    );
    if let Some(efficiency) = operation.efficiency {
        title += &format!(", {} of its roof", percent(efficiency));
    }
    if operation.is_above_roof {
        title += " (above it: the cost model or a roof is wrong)";
    }
    let (shape, class) = shape_of(point.kind);
    let class = if operation.is_above_roof {
        format!("{class} above")
    } else {
        class.to_owned()
    };
    let at = [x.at(point.intensity), y.at(point.flops_per_s)];
    svg.mark(&class, shape, at, radius(point.share), &title);
}

/// Labels where they cover neither each other nor a mark, largest operations first; where there is no room, none.
fn labels(svg: &mut Svg, x: &Scale, y: &Scale, points: &[Point<'_>], mut taken: Vec<Area>) {
    let place = |p: &Point<'_>| [x.at(p.intensity), y.at(p.flops_per_s)];
    for point in points.iter().filter(|p| p.share >= LABELLED_SHARE) {
        let text = svg::fitted(&point.operation.name, 180.0);
        let center = place(point);
        let width = svg::text_width(&text);
        let Some((area, distance)) = free_place(center, radius(point.share), width, &taken) else {
            continue;
        };
        let [left, top, right, bottom] = area;
        let baseline = bottom - 3.5;
        if distance > 12.0 {
            // To the nearest side of the label.
            let end = [
                center[0].clamp(left, right),
                center[1].clamp(top + 3.0, bottom - 3.0),
            ];
            svg.line("leader", center, end);
        }
        svg.text("label", [left, baseline], Anchor::Start, &text);
        taken.push(area);
    }
}

/// The free place for a label that lies nearest to its mark, and how far from the mark it is.
fn free_place(center: [f64; 2], radius: f64, width: f64, taken: &[Area]) -> Option<(Area, f64)> {
    const DISTANCES: [f64; 8] = [4.0, 12.0, 24.0, 40.0, 60.0, 84.0, 112.0, 144.0];
    // Right, left, below, above, and between.
    const DIRECTIONS: [[f64; 2]; 12] = [
        [1.0, 0.0],
        [-1.0, 0.0],
        [0.0, 1.0],
        [0.0, -1.0],
        [0.87, 0.5],
        [0.87, -0.5],
        [-0.87, 0.5],
        [-0.87, -0.5],
        [0.5, 0.87],
        [0.5, -0.87],
        [-0.5, 0.87],
        [-0.5, -0.87],
    ];
    for distance in DISTANCES {
        for [dx, dy] in DIRECTIONS {
            let reach = radius + distance;
            // The middle of the label's nearest side lies `reach` away from the mark's centre.
            let middle = [
                center[0] + dx * (reach + width / 2.0),
                center[1] + dy * (reach + LINE / 2.0),
            ];
            let area = [
                middle[0] - width / 2.0,
                middle[1] - LINE / 2.0,
                middle[0] + width / 2.0,
                middle[1] + LINE / 2.0,
            ];
            let is_inside =
                area[0] > LEFT && area[2] < RIGHT && area[1] > TOP && area[3] < BOTTOM - 2.0;
            if is_inside && !taken.iter().any(|other| overlap(&area, other)) {
                return Some((area, distance));
            }
        }
    }
    None
}

fn overlap(a: &Area, b: &Area) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

fn legend(steps: &[&StepExplanation], lines: &Lines<'_>) -> String {
    let mut items = Vec::new();
    for (kind, symbol) in [(StepKind::Prefill, "■"), (StepKind::Decode, "●")] {
        if steps.iter().any(|s| s.kind == kind) {
            let (_, class) = shape_of(kind);
            items.push(format!(
                "<span class=\"key {class}\">{symbol}</span> {}",
                kind.name()
            ));
        }
    }
    items.push("area: share of the step's time".to_owned());
    if lines.measured.is_some() {
        items.push("<span class=\"key\">──</span> roof measured in this run".to_owned());
    }
    if lines.datasheet.is_some() {
        items.push("<span class=\"key\">╌╌</span> roof by the data sheet".to_owned());
    }
    format!("<p class=\"legend\">{}</p>\n", items.join(" · "))
}

/// What the plot cannot show, so that nobody misses it.
fn unplaced(steps: &[&StepExplanation]) -> String {
    let mut told = Vec::new();
    for step in steps {
        let missing = step
            .operations
            .iter()
            .filter(|o| o.flops <= 0.0 || o.bytes <= 0.0);
        let named: Vec<String> = missing
            .filter_map(|o| {
                let share = o.ns? / step.wall_ns;
                (share >= LABELLED_SHARE)
                    .then(|| format!("{} ({})", svg::escape(&o.name), percent(share)))
            })
            .collect();
        if !named.is_empty() {
            told.push(format!("{}: {}", step.kind.name(), named.join(", ")));
        }
    }
    if told.is_empty() {
        return String::new();
    }
    format!(
        "<p class=\"note\">Without arithmetic, and so without a place here: {} (of the step).</p>\n",
        told.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_a_cluster_do_not_cover_each_other() {
        let mut taken: Vec<Area> = vec![[395.0, 195.0, 405.0, 205.0]];
        for _ in 0..9 {
            let (area, _) = free_place([400.0, 200.0], 5.0, 60.0, &taken).unwrap();
            assert!(!taken.iter().any(|other| overlap(&area, other)), "{area:?}");
            taken.push(area);
        }
    }

    #[test]
    fn areas_are_shares() {
        let ratio = radius(0.16) / radius(0.04);
        assert!((ratio - 2.0).abs() < 1e-9);
        assert_eq!(radius(f64::NAN), SMALLEST_RADIUS);
    }
}
