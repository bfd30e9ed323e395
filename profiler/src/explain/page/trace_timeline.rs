//! A step of a trace by time: its streams, where the GPU was idle and why, and the calls of its host; and a layer of it enlarged.

use super::svg::{self, Anchor, Scale, Svg, WIDTH, swatch};
use super::trace::{axis, cause_class, class_of};
use crate::quantity::duration;
use crate::timeline::{CallKind, Cause, Drawing, DrawnActivity, Family, StepAnalysis};

/// Streams with a lane of their own; those that ran longest.
const MOST_STREAMS: usize = 6;
const LEFT: f64 = 96.0;
const RIGHT: f64 = WIDTH - 16.0;
const LANE: f64 = 30.0;
const SPACE: f64 = 8.0;
/// What is narrower is drawn together with its neighbours.
const NARROW: f64 = 0.35;

/// The whole step, and a layer's length of its middle.
pub(super) fn timelines(step: &StepAnalysis, drawing: &Drawing) -> Option<String> {
    if drawing.span_ns == 0 || drawing.activities.is_empty() {
        return None;
    }
    let mut keys: Vec<String> = step
        .families
        .iter()
        .take(7)
        .map(|time| swatch(&class_of(time.family, step), time.family.label()))
        .collect();
    if step.families.len() > 7 {
        keys.push(swatch("operation shade-rest", "all others"));
    }
    let mut causes: Vec<Cause> = drawing.gaps.iter().map(|gap| gap.2).collect();
    causes.sort_unstable();
    causes.dedup();
    keys.extend(
        causes
            .into_iter()
            .map(|cause| swatch(cause_class(cause), cause.label())),
    );
    let intro = format!(
        "<p>{}, {}.</p>\n",
        svg::escape(&step.name),
        duration(step.span_ns as f64)
    );
    let mut content = intro + &lanes(step, drawing, [0, drawing.span_ns], false);
    content += &format!("<p class=\"legend\">{}</p>\n", keys.join(" · "));
    if let Some(layers) = step.layers.as_ref().filter(|layers| layers.count > 1) {
        let length = drawing.span_ns / layers.count;
        let from = typical_layer(drawing, length);
        content += &format!(
            "<p class=\"note\">As long as one of its {} layers, from its middle:</p>\n",
            layers.count
        );
        content += &lanes(step, drawing, [from, from.saturating_add(length)], true);
    }
    Some(content)
}

/// Where a layer begins nearest to the middle of the step: behind a run of attention kernels.
fn typical_layer(drawing: &Drawing, length: u64) -> u64 {
    let wanted = (drawing.span_ns / 2).saturating_sub(length / 2);
    let starts = drawing
        .activities
        .windows(2)
        .filter(|pair| pair[0].family == Family::Attention && pair[1].family != Family::Attention)
        .map(|pair| pair[1].start_ns);
    starts
        .min_by_key(|start| start.abs_diff(wanted))
        .unwrap_or(wanted)
}

fn lanes(step: &StepAnalysis, drawing: &Drawing, [from, to]: [u64; 2], has_labels: bool) -> String {
    const LABELS: usize = 6;
    let long_ns = to.saturating_sub(from).max(1) as f64;
    let (unit, divisor) = svg::time_unit(long_ns);
    let scale = Scale::up_to(long_ns / divisor, LEFT, RIGHT);
    let at = |ns: i128| scale.at((ns - i128::from(from)) as f64 / divisor);
    let streams = streams(drawing);
    let has_calls = drawing
        .calls
        .iter()
        .any(|call| i128::from(call.start_ns) + i128::from(call.duration_ns) > i128::from(from));
    let above = if has_labels {
        LABELS as f64 * 15.0
    } else {
        0.0
    };
    let lanes = streams.len() + 1 + usize::from(has_calls);
    let top_of = |lane: usize| 6.0 + above + lane as f64 * (LANE + SPACE);
    let bottom = top_of(lanes);
    let mut svg = Svg::new(bottom + 44.0);
    axis(&mut svg, &scale, [LEFT, RIGHT], bottom, unit);
    let mut free_from = [LEFT; LABELS];
    for (lane, stream) in streams.iter().enumerate() {
        let top = top_of(lane);
        let title = match streams.len() {
            1 => "GPU".to_owned(),
            _ => format!("stream {stream}"),
        };
        lane_title(&mut svg, top, &title);
        let own = drawing.activities.iter().filter(|a| a.stream == *stream);
        let inside =
            own.filter(|a| a.start_ns < to && a.start_ns.saturating_add(a.duration_ns) > from);
        let boxes = inside.map(|a| {
            let ends = [
                at(a.start_ns.into()),
                at(i128::from(a.start_ns) + i128::from(a.duration_ns)),
            ];
            (ends, class_of(a.family, step), told_activity(a), a)
        });
        let boxes: Vec<_> = boxes.collect();
        draw_boxes(
            &mut svg,
            top,
            boxes
                .iter()
                .map(|(ends, class, told, _)| (*ends, class.as_str(), told.as_str())),
        );
        // Labels stand above the first lane only: those of others would cross it.
        if has_labels && lane == 0 {
            for (ends, _, _, activity) in &boxes {
                label(&mut svg, &mut free_from, *ends, top, activity);
            }
        }
    }
    let top = top_of(streams.len());
    lane_title(&mut svg, top, "idle");
    let gaps = drawing.gaps.iter().filter(|gap| gap.0 < to && gap.1 > from);
    let gaps: Vec<_> = gaps
        .map(|&(start, end, cause)| {
            let told = format!("{}: {}", cause.label(), duration((end - start) as f64));
            ([at(start.into()), at(end.into())], cause_class(cause), told)
        })
        .collect();
    draw_boxes(
        &mut svg,
        top,
        gaps.iter()
            .map(|(ends, class, told)| (*ends, *class, told.as_str())),
    );
    if has_calls {
        let top = top_of(streams.len() + 1);
        lane_title(&mut svg, top, "host calls");
        let calls: Vec<_> = drawing
            .calls
            .iter()
            .map(|call| {
                let end = i128::from(call.start_ns) + i128::from(call.duration_ns);
                let (class, what) = match call.kind {
                    CallKind::Wait => ("layer", "waits"),
                    CallKind::GraphLaunch => ("layer odd", "launches a graph"),
                    _ => ("layer odd", "launches"),
                };
                let told = format!("{what}: {}", duration(call.duration_ns as f64));
                (
                    [at(call.start_ns.into()), at(end)],
                    class,
                    told,
                    end > i128::from(from) && i128::from(call.start_ns) < i128::from(to),
                )
            })
            .filter(|call| call.3)
            .collect();
        draw_boxes(
            &mut svg,
            top,
            calls
                .iter()
                .map(|(ends, class, told, _)| (*ends, *class, told.as_str())),
        );
    }
    svg.finish(match has_labels {
        true => "A part of the step, enlarged",
        false => "The step by time: kernels, idle time, calls of the host",
    })
}

fn told_activity(activity: &DrawnActivity) -> String {
    format!(
        "{} ({}): {} from {}",
        activity.name,
        activity.family.label(),
        duration(activity.duration_ns as f64),
        duration(activity.start_ns as f64)
    )
}

/// The streams that ran longest, by number.
fn streams(drawing: &Drawing) -> Vec<u32> {
    let mut sums: Vec<(u32, u64)> = Vec::new();
    for activity in &drawing.activities {
        match sums
            .iter_mut()
            .find(|(stream, _)| *stream == activity.stream)
        {
            Some((_, sum)) => *sum = sum.saturating_add(activity.duration_ns),
            None => sums.push((activity.stream, activity.duration_ns)),
        }
    }
    sums.sort_by_key(|&(stream, sum)| (std::cmp::Reverse(sum), stream));
    sums.into_iter()
        .take(MOST_STREAMS)
        .map(|(stream, _)| stream)
        .collect()
}

/// Boxes of a lane; those too narrow to see are drawn with their neighbours, so that the page of a long step stays small.
fn draw_boxes<'a>(
    svg: &mut Svg,
    top: f64,
    boxes: impl Iterator<Item = ([f64; 2], &'a str, &'a str)>,
) {
    let mut merged: Option<([f64; 2], &str, usize)> = None;
    let flush = |svg: &mut Svg, merged: &mut Option<([f64; 2], &str, usize)>| {
        if let Some(([from, to], class, count)) = merged.take() {
            let told = format!("{count} short ones");
            svg.rect(class, [from, top], [(to - from).max(0.2), LANE], &told);
        }
    };
    for ([from, to], class, told) in boxes {
        if to - from >= NARROW {
            flush(svg, &mut merged);
            svg.rect(class, [from, top], [to - from, LANE], told);
            continue;
        }
        match &mut merged {
            Some(([_, end], known, count)) if *known == class && from - *end < NARROW => {
                *end = end.max(to);
                *count += 1;
            }
            _ => {
                flush(svg, &mut merged);
                merged = Some(([from, to], class, 1));
            }
        }
    }
    flush(svg, &mut merged);
}

fn label(svg: &mut Svg, free_from: &mut [f64], ends: [f64; 2], top: f64, activity: &DrawnActivity) {
    let text = svg::fitted(&activity.name, 190.0);
    let width = svg::text_width(&text);
    let middle = (ends[0] + ends[1]) / 2.0;
    let start = (middle - width / 2.0).clamp(LEFT, (RIGHT - width).max(LEFT));
    if let Some(line) = free_from.iter().position(|free| start >= *free) {
        free_from[line] = start + width + 8.0;
        let baseline = top - 7.0 - 15.0 * line as f64;
        svg.line("leader", [middle, baseline + 2.0], [middle, top]);
        svg.text("label", [start, baseline], Anchor::Start, &text);
    }
}

fn lane_title(svg: &mut Svg, top: f64, title: &str) {
    svg.text(
        "tick",
        [LEFT - 8.0, top + LANE / 2.0 + 4.5],
        Anchor::End,
        title,
    );
}
