//! Whether one of two that were measured in turn is slower.

use stepscope_profiler::gate::{Judgement, Thresholds, judge};

use super::Series;

/// Holds the second of a pair against the first, by the gate's rule: SLOW and FAST need intervals that lie apart in time and, where
/// each sample has its clock, in cycles too.
pub fn verdict(pair: &[Series; 2], thresholds: &Thresholds) -> Judgement {
    let [base, head] = pair.each_ref().map(Series::to_gate);
    judge(&base, &head, thresholds)
}
