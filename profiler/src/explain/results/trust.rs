//! How far an explained result can be believed.

use super::{AtOnce, Explanation, Subject};
use crate::activity::{Grade, Trust};

/// The grade of an explanation whose other fields are filled in, and everything that lowers it.
pub(super) fn of(explanation: &Explanation, subject: &Subject<'_>) -> Trust {
    let mut reasons: Vec<(Grade, String)> = Vec::new();
    let steps = || {
        [&explanation.prefill, &explanation.decode]
            .into_iter()
            .flatten()
    };
    let is_impossible = steps().flat_map(|s| &s.steps).any(|s| {
        s.floor
            .as_ref()
            .is_some_and(|f| f.total_s > s.observation.seconds)
    }) || explanation.jobs.iter().any(|job| {
        let floor = job.floor.as_ref().map(|f| f.least_s());
        floor.is_some_and(|floor_s| floor_s > job.job.seconds)
            || (subject.device.is_some() && job.floor.is_none())
    });
    if is_impossible {
        reasons.push((
            Grade::Unusable,
            "a time is shorter than possible: the GPU, the model, its ranks, the data type or the row is another one".to_owned(),
        ));
    }
    let mut say = |is_so: bool, reason: &str| {
        if is_so {
            reasons.push((Grade::Limited, reason.to_owned()));
        }
    };
    say(
        subject.model.is_none(),
        "the model is not known, so that there are no floors",
    );
    say(
        subject.model.is_some() && subject.device.is_none(),
        "the GPU is not known, so that ranges are over several",
    );
    say(
        steps()
            .flat_map(|s| &s.steps)
            .any(|s| s.observation.caveat.is_some()),
        "times of steps were taken under load or by a client",
    );
    say(
        explanation
            .jobs
            .iter()
            .any(|job| job.job.at_once != AtOnce::All),
        "how requests were batched is not known",
    );
    let remarks = subject
        .rows
        .iter()
        .filter(|row| !row.remarks.is_empty())
        .count();
    say(
        remarks > 0,
        "rows contradict themselves or come with a remark",
    );
    reasons.sort_by_key(|(grade, _)| std::cmp::Reverse(*grade));
    Trust {
        grade: reasons.first().map_or(Grade::Good, |(grade, _)| *grade),
        reasons: reasons.into_iter().map(|(_, reason)| reason).collect(),
    }
}
