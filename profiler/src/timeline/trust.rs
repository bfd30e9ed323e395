//! How far what is said of a trace can be believed.

use super::analysis::Analysis;
use super::annotations::Spelling;
use super::events::{Format, Trace};
use super::families::Family;
use super::steps::{Steps, Tie};
use crate::activity::{Grade, Trust};

/// A window longer than this is of several clocks.
const LONGEST_WINDOW_NS: u64 = 24 * 3600 * 1_000_000_000;

/// The grade of an analysis whose other fields are filled in; what lowers it, in short. The remarks say each at length.
pub(super) fn of(analysis: &Analysis, trace: &Trace, steps: &Steps) -> Trust {
    let mut reasons = Vec::new();
    if analysis.devices.is_empty() {
        return Trust {
            grade: Grade::Unusable,
            reasons: vec!["no kernel is in the file".to_owned()],
        };
    }
    let damage = &analysis.damage;
    let mut say = |is_so: bool, reason: &str| {
        if is_so {
            reasons.push(reason.to_owned());
        }
    };
    say(damage.broken_off.is_some(), "the file breaks off");
    say(
        analysis
            .devices
            .iter()
            .any(|d| d.window.span_ns > LONGEST_WINDOW_NS),
        "time stamps are of different clocks or units",
    );
    let left_out = damage.without_time + damage.negative + damage.out_of_range + damage.malformed;
    say(
        left_out > 0,
        "events were left out, since they have no usable time or name",
    );
    say(
        damage.is_coarse,
        "time stamps are held to a quarter of a microsecond only",
    );
    say(!damage.diagnostics.is_empty(), "the recorder complained");
    let mut all_steps = analysis.devices.iter().flat_map(|d| &d.steps);
    let tied_by = |tie| all_steps.clone().any(|step| step.tie == tie);
    say(tied_by(Tie::Window), "nothing in the file separates steps");
    say(
        tied_by(Tie::GraphLaunch),
        "steps are taken from graph launches, since no annotation says what a step is",
    );
    say(
        tied_by(Tie::LaunchOnAnyThread)
            || (tied_by(Tie::Device) && analysis.format == Format::Kineto),
        "kernels are tied to steps by time alone",
    );
    say(
        all_steps.any(|step| step.spelling == Some(Spelling::Profiler)),
        "a step of the profiler may hold several passes of the model",
    );
    say(
        steps.ambiguous > 0,
        "calls of several ranks have the same numbers, so that kernels have no step",
    );
    let clocks_disagree =
        trace
            .activities
            .iter()
            .zip(&steps.launched_by)
            .any(|(activity, call)| {
                let call = call.and_then(|call| trace.calls.get(call as usize));
                call.is_some_and(|call| call.start_ns > activity.start_ns)
            });
    say(clocks_disagree, "the clocks of host and GPU disagree");
    say(
        analysis
            .devices
            .iter()
            .any(|d| d.window.families.iter().any(|f| f.family == Family::Graph)),
        "graph replays were recorded without their kernels",
    );
    Trust {
        grade: if reasons.is_empty() {
            Grade::Good
        } else {
            Grade::Limited
        },
        reasons,
    }
}
