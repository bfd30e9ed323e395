//! An analysis as people read it: sentences first, tables under them, remarks last.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::analysis::{Analysis, DeviceAnalysis, StepAnalysis};
use super::annotations::{Kind, Spelling};
use super::events::{Damage, Format};
use super::families::FamilyTime;
use super::hta::HtaShares;
use super::steps::Tie;
use super::tables::{families, gaps, groups, kernels};
use crate::quantity::{duration, percent};
use crate::report::{fold_line, fold_line_under, verdict};

/// Families below this part of the busy time are not named in a sentence; the table has them.
const WORTH_SAYING: f64 = 0.02;
/// As many families as a sentence names.
const IN_SENTENCE: usize = 6;

/// The whole analysis, with a line feed at its end.
pub fn text(analysis: &Analysis) -> String {
    let mut out = verdict(&analysis.trust) + "\n\n";
    let several = analysis.devices.len() > 1;
    for device in &analysis.devices {
        if several {
            let name = device_name(device).unwrap_or_else(|| "without a name".to_owned());
            let _ = writeln!(out, "GPU {}: {name}\n", device.device.id);
        }
        device_text(analysis, device, &mut out);
        out.push('\n');
    }
    if !analysis.remarks.is_empty() {
        out.push_str("To read with care:\n");
        for remark in &analysis.remarks {
            let _ = writeln!(out, "{}", fold_line_under(&format!("- {remark}"), 2));
        }
    }
    out
}

/// What is said of a GPU, a sentence or two each, without the tables.
pub fn sentences(analysis: &Analysis, device: &DeviceAnalysis) -> Vec<String> {
    let mut said = Vec::new();
    if let [_, _, ..] = device.steps.as_slice() {
        said.push(many_steps(device));
    }
    if let Some((index, step)) = typical_step(device) {
        if device.steps.len() > 1 {
            said.push(which_step(index));
        }
        said.extend(step_sentences(analysis, device, step));
    }
    said.extend(window_sentences(analysis, device));
    said
}

/// The step that the sentences are about, and its place: of median length of the kind and batch size that took the most time.
pub fn typical_step(device: &DeviceAnalysis) -> Option<(usize, &StepAnalysis)> {
    let step = typical_or_only(&device.steps)?;
    let index = device.steps.iter().position(|s| std::ptr::eq(s, step))?;
    Some((index, step))
}

fn which_step(index: usize) -> String {
    format!(
        "Step {}, of median length of the kind that took the most time:",
        index + 1
    )
}

fn device_text(analysis: &Analysis, device: &DeviceAnalysis, out: &mut String) {
    if let [_, _, ..] = device.steps.as_slice() {
        let _ = writeln!(out, "{}\n", fold_line(&many_steps(device)));
        out.push_str(&groups(&grouped(&device.steps)));
    }
    if let Some((index, step)) = typical_step(device) {
        if device.steps.len() > 1 {
            let _ = writeln!(out, "\n{}", which_step(index));
        }
        for sentence in step_sentences(analysis, device, step) {
            let _ = writeln!(out, "{}", fold_line(&sentence));
        }
    }
    for sentence in window_sentences(analysis, device) {
        let _ = writeln!(out, "{}", fold_line(&sentence));
    }
    if let Some(step) = typical_or_only(&device.steps) {
        let _ = writeln!(
            out,
            "\nBusy time by family\n{}",
            families(&step.families, &step.floors, step.busy_ns, step.span_ns)
        );
        if !step.gaps.is_empty() {
            let _ = writeln!(
                out,
                "\nIdle time by cause\n{}",
                gaps(&step.gaps, step.span_ns)
            );
        }
        let _ = writeln!(
            out,
            "\nLargest kernels\n{}",
            kernels(&step.top_kernels, step.busy_ns, step.span_ns)
        );
    } else {
        let window = &device.window;
        let _ = writeln!(
            out,
            "\nBusy time by family\n{}",
            families(&window.families, &[], window.busy_ns, window.span_ns)
        );
    }
}

fn typical_or_only(steps: &[StepAnalysis]) -> Option<&StepAnalysis> {
    (!steps.is_empty()).then(|| typical(steps))
}

/// Steps of one kind and batch size.
pub(super) type Groups<'a> = BTreeMap<(Kind, Option<u64>), Vec<&'a StepAnalysis>>;

/// The steps of each group come by their length.
fn grouped(steps: &[StepAnalysis]) -> Groups<'_> {
    let mut groups = Groups::new();
    for step in steps {
        groups
            .entry((step.kind, step.requests))
            .or_default()
            .push(step);
    }
    for group in groups.values_mut() {
        group.sort_by_key(|step| step.span_ns);
    }
    groups
}

/// The step of median length of the group that took the most time; there is at least one step.
fn typical(steps: &[StepAnalysis]) -> &StepAnalysis {
    grouped(steps)
        .into_values()
        .max_by_key(|group| group.iter().map(|step| step.span_ns).sum::<u64>())
        .map_or(&steps[0], |group| group[group.len() / 2])
}

fn many_steps(device: &DeviceAnalysis) -> String {
    let steps = &device.steps;
    let first = &steps[0];
    let by = first
        .spelling
        .map_or(String::new(), |s| format!(" by {}", s.label()));
    let on = device_name(device).map_or(String::new(), |name| format!(" on {name}"));
    let last_end = steps
        .iter()
        .map(|step| step.start_ns + step.span_ns)
        .max()
        .unwrap_or(0);
    let between = last_end - first.start_ns;
    let busy: u64 = steps.iter().map(|step| step.busy_ns).sum();
    format!(
        "{} steps{by}{on}, {} from the first kernel of the first to the last of the last; the GPU was busy with them {} of that.",
        steps.len(),
        duration(between as f64),
        percent(busy as f64 / between.max(1) as f64)
    )
}

fn device_name(device: &DeviceAnalysis) -> Option<String> {
    let name = &device.device.name;
    (!name.is_empty()).then(|| name.clone())
}

fn step_sentences(
    analysis: &Analysis,
    device: &DeviceAnalysis,
    step: &StepAnalysis,
) -> Vec<String> {
    let mut sentences = vec![what(analysis, device, step), busy(step)];
    if let Some(layers) = &step.layers {
        sentences.push(layers_sentence(layers));
    }
    sentences.push(families_sentence(step));
    sentences.extend(floor_sentences(step));
    if step.idle_ns > 0 {
        sentences.push(idle_sentence(step));
    }
    if step.overlap_in_stream_ns > 0 {
        sentences.push(format!(
            "Kernels of one stream overlap by {} in all, as programmatic dependent launch lets them: their durations add up to \
             {}.",
            duration(step.overlap_in_stream_ns as f64),
            duration(step.sum_ns as f64)
        ));
    }
    if step.overlap_of_streams_ns > 0 {
        sentences.push(format!(
            "Streams run beside each other for {}.",
            duration(step.overlap_of_streams_ns as f64)
        ));
    }
    sentences
}

/// `One decode step of 32 requests by sglang on AMD Instinct MI300X: 32 785 tokens of context, 1025 per request.`
fn what(analysis: &Analysis, device: &DeviceAnalysis, step: &StepAnalysis) -> String {
    let mut text = match step.tie {
        Tie::Window => "The whole window, taken as one step".to_owned(),
        Tie::GraphLaunch => "One graph launch, taken as a step".to_owned(),
        _ => format!("One {}", step.kind.label()),
    };
    match step.requests {
        Some(1) => text.push_str(" of one request"),
        Some(n) => {
            let _ = write!(text, " of {n} requests");
        }
        None => {}
    }
    match step.spelling {
        Some(Spelling::Profiler) => {
            let _ = write!(text, " of the profiler ({})", step.name);
        }
        Some(spelling) => {
            let _ = write!(text, " by {}", spelling.label());
        }
        None => {}
    }
    if analysis.format != Format::Stepscope {
        match device_name(device) {
            Some(name) => {
                let _ = write!(text, " on {name}");
            }
            None => text.push_str(" on a GPU that the trace does not name"),
        }
    }
    let mut details = Vec::new();
    if let Some(tokens) = step.tokens.filter(|_| step.kind != Kind::Decode) {
        details.push(format!("{tokens} new tokens"));
    }
    if let Some(context) = step.context_tokens {
        details.push(match step.requests {
            Some(requests @ 1..) => format!(
                "{context} tokens of context, {:.0} per request on average",
                context as f64 / requests as f64
            ),
            _ => format!("{context} tokens of context"),
        });
    }
    if !details.is_empty() {
        let _ = write!(text, ": {}", details.join(", "));
    }
    text + "."
}

fn busy(step: &StepAnalysis) -> String {
    let mut text = format!(
        "{} from its first kernel to the end of its last; the GPU was busy with it for {}, {} of that.",
        duration(step.span_ns as f64),
        duration(step.busy_ns as f64),
        percent(step.busy_ns as f64 / step.span_ns.max(1) as f64)
    );
    if step.others_ns > 0 {
        let _ = write!(
            text,
            " Other work alone ran for {}.",
            duration(step.others_ns as f64)
        );
    }
    text
}

fn layers_sentence(layers: &super::Layers) -> String {
    let how = if layers.by_attention {
        "there are as many runs of attention kernels"
    } else {
        "most kernels repeat so often"
    };
    let confirmed: Vec<&str> = layers
        .confirmed_by
        .iter()
        .map(|family| family.label())
        .collect();
    match confirmed.as_slice() {
        [] => format!("{} layers: {how}.", layers.count),
        _ => format!(
            "{} layers: {how}, and as many kernels of {}.",
            layers.count,
            listed(&confirmed)
        ),
    }
}

fn families_sentence(step: &StepAnalysis) -> String {
    let part = |time: &FamilyTime| time.busy_ns as f64 / step.busy_ns.max(1) as f64;
    let named: Vec<&FamilyTime> = step
        .families
        .iter()
        .filter(|time| part(time) >= WORTH_SAYING)
        .take(IN_SENTENCE)
        .collect();
    let parts: Vec<String> = named
        .iter()
        .map(|time| format!("{} {}", time.family.label(), percent(part(time))))
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if parts.is_empty() {
        return "Its kernels took no time that the trace shows.".to_owned();
    }
    format!("Of the busy time: {}.", listed(&parts))
}

/// What the floors say, where somebody who knows the model and the GPU has filled them in.
fn floor_sentences(step: &StepAnalysis) -> Vec<String> {
    if step.floors.is_empty() {
        return Vec::new();
    }
    let floor_ns: u64 = step.floors.iter().map(|floor| floor.floor_ns).sum();
    let mut sentences = vec![format!(
        "The model's work takes at least {} on this GPU, {} of the busy time.",
        duration(floor_ns as f64),
        percent(floor_ns as f64 / step.busy_ns.max(1) as f64)
    )];
    let below: Vec<&str> = step
        .floors
        .iter()
        .filter(|floor| {
            let time = step
                .families
                .iter()
                .find(|time| time.family == floor.family);
            time.is_some_and(|time| time.busy_ns < floor.floor_ns)
        })
        .map(|floor| floor.family.label())
        .collect();
    if !below.is_empty() {
        sentences.push(format!(
            "Faster than its floor, which is an error and no result: {}. The model, the GPU, the number format or the lengths are \
             not those of the trace.",
            listed(&below)
        ));
    }
    sentences
}

fn idle_sentence(step: &StepAnalysis) -> String {
    let causes: Vec<String> = step
        .gaps
        .iter()
        .map(|gap| {
            let why = match gap.cause {
                super::Cause::LaunchedLate => {
                    "because a launch came late, which is the host's doing"
                }
                super::Cause::Dependency => "when the next kernel had been launched and waited",
                super::Cause::Unknown => "for a reason that the trace does not tell",
            };
            format!("{} {why}", duration(gap.total_ns as f64))
        })
        .collect();
    format!(
        "Idle for {}: {}.",
        duration(step.idle_ns as f64),
        causes.join("; ")
    )
}

fn window_sentences(analysis: &Analysis, device: &DeviceAnalysis) -> Vec<String> {
    let window = &device.window;
    let outside = &device.outside;
    let mut sentences = Vec::new();
    let is_whole = device.steps.iter().any(|step| step.tie == Tie::Window);
    let outside_ns = window.idle_ns.saturating_sub(window.idle_in_steps_ns);
    if !is_whole {
        let mut text = format!(
            "The file covers {} of this GPU, from its first activity to its last, {} of it idle",
            duration(window.span_ns as f64),
            percent(window.idle_ns as f64 / window.span_ns.max(1) as f64)
        );
        if outside_ns > 0 {
            let _ = write!(
                text,
                "; {} of the idle time lies outside of steps",
                duration(outside_ns as f64)
            );
        }
        sentences.push(text + ".");
        if let Some(gap) = window.gaps.iter().max_by_key(|gap| gap.longest_ns)
            && gap.longest_ns as f64 > 0.1 * window.span_ns as f64
        {
            sentences.push(format!(
                "Its longest gap is {}: {}.",
                duration(gap.longest_ns as f64),
                gap.cause.label()
            ));
        }
    }
    if outside.activities > 0 {
        let mut of_them = Vec::new();
        if outside.around_steps > 0 {
            of_them.push(format!(
                "{} launched before or after a step within an annotation around it",
                outside.around_steps
            ));
        }
        if outside.without_call > 0 {
            of_them.push(format!(
                "{} by no call in the file, as what was launched before recording began",
                outside.without_call
            ));
        }
        let of_them = if of_them.is_empty() {
            String::new()
        } else {
            format!(" ({})", of_them.join("; "))
        };
        sentences.push(format!(
            "Outside of steps: {} kernels and copies{of_them}, busy for {}.",
            outside.activities,
            duration(outside.busy_ns as f64)
        ));
    }
    if window.communication_ns > 0 {
        sentences.push(format!(
            "Communication ran for {}, {} of it with no computation beside it.",
            duration(window.communication_ns as f64),
            percent(window.exposed_communication_ns as f64 / window.communication_ns as f64)
        ));
    }
    if let Some(hta) = &analysis.holistic_trace_analysis
        && analysis.devices.len() == 1
        && analysis.format == Format::Kineto
    {
        let is_around = !is_whole && outside_ns as f64 > 0.5 * window.idle_ns as f64;
        sentences.push(hta_sentence(
            hta,
            window.busy_ns,
            is_around,
            &analysis.damage,
        ));
    }
    sentences
}

/// `is_around` says whether most of the idle time lies outside of steps.
fn hta_sentence(hta: &HtaShares, busy_ns: u64, is_around: bool, damage: &Damage) -> String {
    if hta.fails {
        return "Holistic Trace Analysis fails on this file: it rounds events inwards to whole microseconds, which makes the \
                shortest ones negative."
            .to_owned();
    }
    let mut text = format!(
        "Holistic Trace Analysis says {:.1} % idle, {:.1} % compute and {:.1} % else of {}",
        hta.idle_percent,
        hta.compute_percent,
        hta.non_compute_percent,
        duration(hta.window_us * 1e3)
    );
    let mut notes = Vec::new();
    if is_around {
        notes.push(
            "it takes the whole window, and what it calls idle lies around the steps, not in them"
                .to_owned(),
        );
    }
    if hta.drops_last_step {
        notes.push("it leaves the profiler's last step out".to_owned());
    }
    let loss = hta.rounding_loss_ns as f64 / busy_ns.max(1) as f64;
    if loss >= 0.005 && damage.broken_off.is_none() {
        notes.push(format!(
            "its rounding to whole microseconds loses {} of the busy time",
            percent(loss)
        ));
    }
    if !notes.is_empty() {
        let _ = write!(text, ": {}", notes.join("; "));
    }
    text + "."
}

/// `a, b and c`.
fn listed(parts: &[&str]) -> String {
    match parts {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
