//! What a GPU did during the steps, and how far that can be believed.

use super::fold_line;
use super::table::{self, Table, TimeUnit};
use crate::activity::{Cause, DeviceActivity, Grade, Trust, trust};
use crate::breakdown::share;
use crate::gpu_watch::{GpuWatch, Range};
use crate::quantity;
use crate::record::{Point, Record, RecordingCost};
use crate::recorder::StepKind;
use crate::stats;

/// The busy time and the gaps of the steps of `kind`, if the kernels were recorded.
pub(super) fn activity_text(point: &Point, kind: StepKind) -> Option<String> {
    let activity = point.total(kind)?.device.as_ref()?;
    let trust = trust(Some(activity), point.gpu.as_ref());
    let title = format!("{} steps on the GPU", kind.title());
    let verdict = verdict(&trust);
    let traced = activity.steps.saturating_sub(activity.untraced);
    if trust.grade == Grade::Unusable || traced == 0 {
        let refusal = "No busy time and no gaps are stated: the records do not carry them.";
        return Some(format!("{title}\n\n{refusal}\n{verdict}"));
    }
    let per_step = |ns: u64| ns as f64 / traced as f64;
    let window_ns = per_step(activity.window_ns);
    let unit = TimeUnit::for_largest(window_ns);
    let mut table = Table::new(
        "lrrr",
        [
            String::new(),
            "times".to_owned(),
            format!("{} per\nstep", unit.name),
            "% of\nstep".to_owned(),
        ],
    );
    let mut row = |name: &str, times: Option<f64>, ns: u64| {
        table.row([
            name.to_owned(),
            times.map_or_else(String::new, count),
            unit.cell(per_step(ns)),
            table::percentage(share(ns as f64, activity.window_ns as f64)),
        ]);
    };
    row("busy", None, activity.busy_ns);
    for cause in Cause::ALL {
        let (count, ns) = activity.gap(cause);
        if count > 0 {
            row(cause.words(), Some(per_step(count)), ns);
        }
    }
    table.total([
        "step, on the GPU's clock".to_owned(),
        String::new(),
        unit.cell(window_ns),
        table::percentage(Some(1.0)),
    ]);
    let steps = match traced {
        1 => "1 step".to_owned(),
        n => format!("{n} steps"),
    };
    Some(format!(
        "{title}, mean of {steps}, by CUPTI's records of kernels and transfers\n\n{}\n\n{}\n{verdict}",
        table.render(),
        fold_line(&kernels(activity, traced)),
    ))
}

/// A number of things a step, which is whole if every step had as many.
fn count(per_step: f64) -> String {
    match per_step.fract() == 0.0 {
        true => format!("{per_step}"),
        false => quantity::significant(per_step, 3),
    }
}

fn kernels(activity: &DeviceActivity, traced: u64) -> String {
    let mut text = format!(
        "{} of {} kernels that were launched were recorded, {} a step",
        activity.kernels,
        activity.launched,
        count(activity.kernels as f64 / traced as f64)
    );
    if let Some(in_graphs) = share(activity.graph_kernels as f64, activity.kernels as f64)
        && activity.graph_kernels > 0
    {
        text += &format!(", {} of them inside graphs", quantity::percent(in_graphs));
    }
    text += ".";
    if activity.overlap_ns > 0 {
        let overlap = quantity::duration(activity.overlap_ns as f64 / traced as f64);
        text += &format!(" Kernels ran beside one another for {overlap} a step.");
    }
    text
}

/// The state of the GPU while a point ran, and its energy.
pub(super) fn watch_text(record: &Record, point: &Point) -> Option<String> {
    if record.run.device != "cuda" {
        return None;
    }
    // Where kernels were recorded, the steps of each kind have a grade.
    let totals = std::iter::once(&point.prefill).chain(&point.decode);
    let is_graded = totals.into_iter().any(|total| total.device.is_some());
    let verdict = (!is_graded).then(|| verdict(&trust(None, point.gpu.as_ref())));
    let Some(watch) = &point.gpu else {
        return verdict;
    };
    let mut parts = vec![format!("{} samples", watch.samples)];
    let mut add = |name: &str, range: Option<Range>, scale: f64, unit: &str| {
        if let Some(range) = range {
            let [min, median, max] = [range.min, range.median, range.max]
                .map(|value| quantity::significant(f64::from(value) * scale, 4));
            parts.push(match range.min == range.max {
                true => format!("{name} {median} {unit}"),
                false => format!("{name} {median} {unit} ({min} to {max})"),
            });
        }
    };
    let clock = watch.loaded_sm_clock_mhz.or(watch.sm_clock_mhz);
    add("multiprocessor clock", clock, 1.0, "MHz");
    add("memory clock", watch.memory_clock_mhz, 1.0, "MHz");
    add("power", watch.power_milliwatts, 1e-3, "W");
    add("temperature", watch.temperature_celsius, 1.0, "°C");
    if let Some([sm, tensor, dram]) = watch.gpm_percent {
        parts.push(format!(
            "multiprocessors busy {sm:.0} %, tensor cores {tensor:.0} %, bandwidth of device memory {dram:.0} % (means over the whole \
             time, by GPM)"
        ));
    }
    parts.push(match watch.throttle_bits {
        None => "NVML does not tell what holds the clocks down".to_owned(),
        Some(_) if watch.throttled_by.is_empty() => "nothing held the clocks down".to_owned(),
        Some(bits) => format!(
            "clocks held down by {} ({bits:#x})",
            watch.throttled_by.join(", ")
        ),
    });
    parts.push(energy(watch, point));
    let text = fold_line(&format!("GPU while the point ran: {}.", parts.join("; ")));
    Some(match verdict {
        Some(verdict) => format!("{text}\n{verdict}"),
        None => text,
    })
}

/// The clock of the multiprocessors that kernels before and behind the steps read.
pub(super) fn clock_text(point: &Point) -> Option<String> {
    let mut clocks = [const { Vec::new() }; 2];
    for step in point.repetitions.iter().flat_map(|r| &r.steps) {
        clocks[usize::from(step.kind == StepKind::Decode)].extend(step.sm_clock_mhz);
    }
    let of_kind = |(clocks, kind): (&Vec<f64>, StepKind)| {
        let [min, median, max] = [0.0, 50.0, 100.0]
            .map(|rank| stats::percentile(clocks, rank).map(|mhz| quantity::significant(mhz, 4)));
        Some(format!(
            "{} steps {} MHz ({} to {})",
            kind.name(),
            median?,
            min?,
            max?
        ))
    };
    let kinds = [StepKind::Prefill, StepKind::Decode];
    let parts: Vec<String> = clocks.iter().zip(kinds).filter_map(of_kind).collect();
    let text = format!(
        "Multiprocessor clock during the steps, by kernels before and behind each: {}.",
        parts.join("; ")
    );
    (!parts.is_empty()).then(|| fold_line(&text))
}

fn energy(watch: &GpuWatch, point: &Point) -> String {
    match (watch.energy_j, &watch.no_energy) {
        (Some(joules), _) => {
            let requests = point.batch_size as f64 * point.repetitions.len() as f64;
            let per_token = share(joules, requests * point.output_len as f64).map_or_else(
                String::new,
                |joules| {
                    format!(
                        ", {} J per generated token",
                        quantity::significant(joules, 3)
                    )
                },
            );
            format!(
                "{} J in {} s{per_token}, prefill included (the power sensor of data-centre GPUs looks at a quarter of the time)",
                quantity::significant(joules, 4),
                quantity::significant(watch.seconds, 3)
            )
        }
        (None, Some(reason)) => format!("no energy: {reason}"),
        (None, None) => "no energy".to_owned(),
    }
}

/// How the times of operations were taken, why not better, and what that costs.
pub(super) fn timing_lines(record: &Record) -> Vec<String> {
    let Some(timing) = &record.timing else {
        return Vec::new();
    };
    let mut line = format!("timer    {}", timing.words());
    if let Some(reason) = &timing.reason {
        line += &format!("; {reason}");
    }
    let mut lines = vec![line];
    if !timing.overhead.is_empty() {
        lines.push(format!("cost     {}", overhead_text(&timing.overhead)));
    }
    lines
}

/// What recording costs, in one sentence.
pub fn overhead_text(costs: &[RecordingCost]) -> String {
    let parts: Vec<String> = costs
        .iter()
        .map(|cost| {
            let (with, without) = (cost.with_ns as f64, cost.without_ns as f64);
            let share = share(with - without, without).map_or_else(table::none, |share| {
                let sign = if share < 0.0 { "-" } else { "+" };
                format!("{sign}{} %", quantity::significant(share.abs() * 100.0, 2))
            });
            format!(
                "{} {share} ({} for {}, medians of {} decode steps each)",
                cost.what,
                quantity::duration_with_digits(with, 4),
                quantity::duration_with_digits(without, 4),
                cost.steps
            )
        })
        .collect();
    format!("recording {} of a decode step", parts.join(", "))
}

/// `Trust: limited. First reason. Second.`
pub(crate) fn verdict(trust: &Trust) -> String {
    let reasons = sentences(&trust.reasons);
    fold_line(&format!("Trust: {}.{reasons}", trust.grade.name()))
}

/// ` First. Second.`
fn sentences(reasons: &[String]) -> String {
    let sentence = |reason: &String| {
        let mut letters = reason.chars();
        let first = letters.next().map(|c| c.to_uppercase().to_string());
        format!(" {}{}.", first.unwrap_or_default(), letters.as_str())
    };
    reasons.iter().map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::GapTotal;
    use crate::record::{Repetition, Step, StepTotal};

    fn activity() -> DeviceActivity {
        DeviceActivity {
            steps: 4,
            window_ns: 4_000_000,
            busy_ns: 3_600_000,
            overlap_ns: 40_000,
            gaps: vec![
                GapTotal {
                    cause: Cause::LaunchLate,
                    count: 4,
                    ns: 300_000,
                },
                GapTotal {
                    cause: Cause::Dependency,
                    count: 400,
                    ns: 100_000,
                },
            ],
            launched: 1200,
            kernels: 1200,
            graph_kernels: 1196,
            ..DeviceActivity::default()
        }
    }

    fn point(activity: DeviceActivity, gpu: Option<GpuWatch>) -> Point {
        let total = StepTotal {
            device: Some(activity),
            ..StepTotal::empty()
        };
        Point {
            batch_size: 2,
            input_len: 8,
            output_len: 50,
            repetitions: Vec::new(),
            prefill: StepTotal::empty(),
            decode: Some(total),
            gpu,
            counted: Vec::new(),
            replayed: Vec::new(),
        }
    }

    fn quiet() -> GpuWatch {
        GpuWatch {
            samples: 40,
            throttle_bits: Some(1),
            other_processes: Some(0),
            ..GpuWatch::default()
        }
    }

    #[test]
    fn clocks_of_steps_are_a_median_and_its_range() {
        let step = |kind, sm_clock_mhz| Step {
            kind,
            index: 0,
            batch_size: 2,
            wall_ns: 1,
            phases: Vec::new(),
            operations: Vec::new(),
            kernels: Vec::new(),
            findings: Vec::new(),
            device: None,
            sm_clock_mhz,
        };
        let clocks = [Some(1980.0), Some(1755.25), Some(1950.0), None];
        let mut point = point(activity(), None);
        assert_eq!(clock_text(&point), None);
        point.repetitions = vec![Repetition {
            prefill_latency_s: 0.0,
            first_decode_latency_s: None,
            median_decode_latency_s: None,
            total_latency_s: 0.0,
            output_ids: Vec::new(),
            steps: clocks.map(|mhz| step(StepKind::Decode, mhz)).to_vec(),
        }];
        let text = clock_text(&point).unwrap().replace('\n', " ");
        assert!(
            text.ends_with("each: decode steps 1950 MHz (1755 to 1980)."),
            "{text}"
        );
    }

    #[test]
    fn busy_time_and_gaps_add_up_to_the_step() {
        let text = activity_text(&point(activity(), Some(quiet())), StepKind::Decode).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn costs_are_shares_of_a_step_without_recording() {
        let cost = |what: &str, with_ns| RecordingCost {
            what: what.to_owned(),
            with_ns,
            without_ns: 1_000_000,
            steps: 48,
        };
        assert_eq!(
            overhead_text(&[cost("phases", 999_000), cost("operations", 1_034_000)]),
            "recording phases -0.10 % (999.0 µs for 1.000 ms, medians of 48 decode steps each), operations +3.4 % (1.034 ms for \
             1.000 ms, medians of 48 decode steps each) of a decode step"
        );
    }

    #[test]
    fn what_the_records_do_not_carry_is_not_stated() {
        let broken = DeviceActivity {
            kernels: 900,
            ..activity()
        };
        let text = activity_text(&point(broken, Some(quiet())), StepKind::Decode).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_run_on_a_gpu_is_graded_with_and_without_records() {
        let mut record = Record::read(std::path::Path::new("tests/sample/record.json")).unwrap();
        let mut point = point(activity(), None);
        assert_eq!(watch_text(&record, &point), None);
        record.run.device = "cuda".to_owned();
        assert_eq!(watch_text(&record, &point), None, "the steps have a grade");
        point.decode = None;
        assert_eq!(
            watch_text(&record, &point).unwrap(),
            "Trust: limited. Nobody watched the GPU's clocks, power and other processes."
        );
        point.gpu = Some(GpuWatch {
            sm_clock_mhz: Some(Range {
                min: 1965,
                median: 1980,
                max: 1980,
            }),
            power_milliwatts: Some(Range {
                min: 410_000,
                median: 640_250,
                max: 690_000,
            }),
            no_energy: Some("the window is short".to_owned()),
            ..quiet()
        });
        assert_eq!(
            watch_text(&record, &point).unwrap(),
            "GPU while the point ran: 40 samples; multiprocessor clock 1980 MHz (1965 to 1980); power 640.2 W (410.0 to\n690.0); \
             nothing held the clocks down; no energy: the window is short.\nTrust: good."
        );
    }

    #[test]
    fn energy_comes_with_its_window_or_with_the_reason() {
        let mut point = point(activity(), None);
        let watch = GpuWatch {
            energy_j: Some(600.0),
            seconds: 2.5,
            ..quiet()
        };
        assert!(energy(&watch, &point).starts_with("600.0 J in 2.50 s, prefill included"));
        point.repetitions = vec![
            crate::record::Repetition {
                prefill_latency_s: 1.0,
                first_decode_latency_s: None,
                median_decode_latency_s: None,
                total_latency_s: 1.0,
                output_ids: Vec::new(),
                steps: Vec::new(),
            };
            3
        ];
        assert!(energy(&watch, &point).contains(", 2.00 J per generated token"));
        let watch = GpuWatch {
            no_energy: Some("the window is short".to_owned()),
            ..quiet()
        };
        assert_eq!(energy(&watch, &point), "no energy: the window is short");
    }
}
