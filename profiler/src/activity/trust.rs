//! How far what was recorded can be believed.

use serde::Serialize;

use super::DeviceActivity;
use crate::gpu_watch::GpuWatch;
use crate::quantity;

/// How far times can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Nothing speaks against them.
    Good,
    /// They hold with the reservations that are named.
    Limited,
    /// They do not hold, and none is stated.
    Unusable,
}

impl Grade {
    /// `good`, `limited` or `unusable`.
    pub const fn name(self) -> &'static str {
        match self {
            Grade::Good => "good",
            Grade::Limited => "limited",
            Grade::Unusable => "unusable",
        }
    }
}

/// A grade, and everything that speaks against a better one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trust {
    /// The worst that any reason gives.
    pub grade: Grade,
    /// Each in one sentence, the worst first.
    pub reasons: Vec<String>,
}

/// Recording that takes more of a step than this is named. It is the share that a trace of kernels is allowed to cost.
const RECORDING_SHARE: f64 = 0.05;

/// A multiprocessor clock that fell by more than this under load is named; NVBench's default is to throw samples away from a
/// quarter on, which is too late for a comparison.
const CLOCK_SPREAD: f64 = 0.05;

/// How far the times of steps can be believed: `activity` is what was recorded of them, `watch` the state of the GPU meanwhile.
/// Nothing of either is no reason for trust.
pub fn trust(activity: Option<&DeviceActivity>, watch: Option<&GpuWatch>) -> Trust {
    let mut reasons = Vec::new();
    if let Some(activity) = activity {
        of_records(activity, &mut reasons);
    }
    match watch {
        Some(watch) => of_gpu(watch, &mut reasons),
        None => reasons.push((
            Grade::Limited,
            "nobody watched the GPU's clocks, power and other processes".to_owned(),
        )),
    }
    // Stable: reasons of one grade stay in the order in which they were found.
    reasons.sort_by_key(|(grade, _)| std::cmp::Reverse(*grade));
    Trust {
        grade: reasons.first().map_or(Grade::Good, |(grade, _)| *grade),
        reasons: reasons.into_iter().map(|(_, reason)| reason).collect(),
    }
}

fn of_records(activity: &DeviceActivity, reasons: &mut Vec<(Grade, String)>) {
    let mut say = |grade: Grade, reason: String| reasons.push((grade, reason));
    if activity.untraced > 0 {
        let why = activity.problem.as_deref().unwrap_or("for no known reason");
        let grade = match activity.untraced == activity.steps {
            true => Grade::Unusable,
            false => Grade::Limited,
        };
        say(
            grade,
            format!(
                "{} of {} steps have no trace: {why}",
                activity.untraced, activity.steps
            ),
        );
    }
    if activity.malformed > 0 {
        say(
            Grade::Unusable,
            format!(
                "{} records of CUPTI's could not be read",
                activity.malformed
            ),
        );
    }
    if activity.kernels < activity.launched {
        say(
            Grade::Unusable,
            format!(
                "{} of {} kernels launched were not recorded: busy time and gaps are not known",
                activity.launched - activity.kernels,
                activity.launched
            ),
        );
    }
    if activity.kernels > activity.launched {
        say(
            Grade::Limited,
            format!(
                "{} kernels were recorded, but {} launched: a library launches kernels of its own",
                activity.kernels, activity.launched
            ),
        );
    }
    if activity.dropped > 0 {
        say(
            Grade::Limited,
            format!("CUPTI dropped {} records", activity.dropped),
        );
    }
    if activity.untimed > 0 {
        say(
            Grade::Limited,
            format!(
                "{} of {} kernels were recorded without times",
                activity.untimed, activity.kernels
            ),
        );
    }
    if activity.unmatched > 0 {
        say(
            Grade::Limited,
            format!(
                "{} operations have no time, since the kernels recorded are not those that they launched",
                activity.unmatched
            ),
        );
    }
    if activity.foreign > 0 {
        say(
            Grade::Limited,
            format!(
                "{} kernels ran that no operation launched",
                activity.foreign
            ),
        );
    }
    if activity.late > 0 {
        say(
            Grade::Limited,
            format!(
                "{} records came after their step had been looked at",
                activity.late
            ),
        );
    }
    let share = activity.recording_ns as f64 / activity.window_ns.max(1) as f64;
    if share > RECORDING_SHARE {
        say(
            Grade::Limited,
            format!("recording took {} of the steps", quantity::percent(share)),
        );
    }
}

fn of_gpu(watch: &GpuWatch, reasons: &mut Vec<(Grade, String)>) {
    let mut say = |reason: String| reasons.push((Grade::Limited, reason));
    if let Some(clock) = watch.loaded_sm_clock_mhz
        && f64::from(clock.max.saturating_sub(clock.min)) > f64::from(clock.max) * CLOCK_SPREAD
    {
        say(format!(
            "the multiprocessors' clock was not held: {} to {} MHz under load",
            clock.min, clock.max
        ));
    }
    if !watch.throttled_by.is_empty() {
        say(format!(
            "the clocks were held down: {}",
            watch.throttled_by.join(", ")
        ));
    }
    match watch.other_processes {
        None | Some(0) => {}
        Some(1) => say("another process used the GPU".to_owned()),
        Some(n) => say(format!("{n} other processes used the GPU")),
    }
    if watch.samples == 0 {
        say("no state of the GPU was sampled: the run was too short".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu_watch::Range;

    fn quiet() -> GpuWatch {
        GpuWatch {
            samples: 40,
            other_processes: Some(0),
            ..GpuWatch::default()
        }
    }

    #[track_caller]
    fn check(activity: &DeviceActivity, watch: Option<&GpuWatch>, expected: &[&str], grade: Grade) {
        let trust = trust(Some(activity), watch);
        assert_eq!(trust.reasons, expected);
        assert_eq!(trust.grade, grade);
    }

    fn whole() -> DeviceActivity {
        DeviceActivity {
            steps: 4,
            window_ns: 1000,
            busy_ns: 900,
            launched: 400,
            kernels: 400,
            ..DeviceActivity::default()
        }
    }

    #[test]
    fn a_whole_trace_on_a_quiet_gpu_is_good() {
        check(&whole(), Some(&quiet()), &[], Grade::Good);
        let unwatched = "nobody watched the GPU's clocks, power and other processes";
        check(&whole(), None, &[unwatched], Grade::Limited);
    }

    #[test]
    fn kernels_that_are_missing_make_a_trace_unusable_and_come_first() {
        let activity = DeviceActivity {
            kernels: 388,
            dropped: 12,
            unmatched: 3,
            ..whole()
        };
        check(
            &activity,
            Some(&quiet()),
            &[
                "12 of 400 kernels launched were not recorded: busy time and gaps are not known",
                "CUPTI dropped 12 records",
                "3 operations have no time, since the kernels recorded are not those that they launched",
            ],
            Grade::Unusable,
        );
    }

    #[test]
    fn steps_without_a_trace_say_why() {
        let mut activity = whole();
        activity.add(&DeviceActivity::missing("CUPTI gave up".to_owned()));
        check(
            &activity,
            Some(&quiet()),
            &["1 of 5 steps have no trace: CUPTI gave up"],
            Grade::Limited,
        );
        let none = DeviceActivity::missing("CUPTI gave up".to_owned());
        let reason = "1 of 1 steps have no trace: CUPTI gave up";
        check(&none, Some(&quiet()), &[reason], Grade::Unusable);
    }

    #[test]
    fn the_state_of_the_gpu_counts() {
        let watch = GpuWatch {
            loaded_sm_clock_mhz: Some(Range {
                min: 1500,
                median: 1700,
                max: 1980,
            }),
            throttled_by: vec!["sw power cap".to_owned()],
            other_processes: Some(2),
            ..quiet()
        };
        check(
            &whole(),
            Some(&watch),
            &[
                "the multiprocessors' clock was not held: 1500 to 1980 MHz under load",
                "the clocks were held down: sw power cap",
                "2 other processes used the GPU",
            ],
            Grade::Limited,
        );
    }

    #[test]
    fn costly_recording_and_foreign_kernels_are_named() {
        let activity = DeviceActivity {
            recording_ns: 51,
            foreign: 1,
            kernels: 401,
            ..whole()
        };
        let trust = trust(Some(&activity), Some(&quiet()));
        assert_eq!(trust.grade, Grade::Limited);
        assert_eq!(trust.reasons.len(), 3);
        assert!(trust.reasons[2].starts_with("recording took 5"));
    }
}
