//! Whether one of two that were measured in turn is slower.

use stepscope_profiler::gate::{Judgement, Samples, Thresholds, judge};
use stepscope_profiler::stats::median;

use super::Series;

/// Rounds on either side of one over which a drift is looked at: so many that the few that something disturbed do not move their
/// median.
const NEIGHBOURS: usize = 10;

/// Holds the second of a pair against the first, by the gate's rule: SLOW and FAST need intervals that lie apart in time and, where
/// each sample has its clock, in cycles too.
///
/// The two must have been measured in turn ([`Bench::measure_pair`](super::Bench::measure_pair)): their samples belong together in
/// pairs, and a drift that both show is taken out of both before, so that it widens neither interval. Cycles stay as they are.
pub fn verdict(pair: &[Series; 2], thresholds: &Thresholds) -> Judgement {
    let [mut base, mut head] = pair.each_ref().map(Series::to_gate);
    take_out_drift(&mut base, &mut head);
    judge(&base, &head, thresholds)
}

/// Divides the times of each round by how far its neighbourhood lies above the whole, both sides by the same number.
fn take_out_drift(base: &mut Samples, head: &mut Samples) {
    if base.times_ns.len() != head.times_ns.len() {
        return;
    }
    let rounds = base.times_ns.iter().zip(&head.times_ns);
    let means: Vec<f64> = rounds.map(|(a, b)| (a * b).sqrt()).collect();
    if !means.iter().all(|mean| mean.is_finite() && *mean > 0.0) {
        return;
    }
    let Some(whole) = median(&means) else {
        return;
    };
    for round in 0..means.len() {
        let last = (round + NEIGHBOURS + 1).min(means.len());
        let near = median(&means[round.saturating_sub(NEIGHBOURS)..last]);
        let drift = near.unwrap_or(whole) / whole;
        for side in [&mut *base, &mut *head] {
            side.times_ns[round] /= drift;
            // The product of the two, the cycles, is that of what was measured.
            if let Some(clock) = side.clocks_hz.as_mut().and_then(|c| c.get_mut(round)) {
                *clock *= drift;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stepscope_profiler::Timer;
    use stepscope_profiler::gate::Verdict;

    use super::super::Sample;
    use super::*;

    /// Times around `ns` that rise by a tenth on the way, at a clock that falls as much.
    fn drifting(ns: f64, jitter: u32) -> Series {
        let sample = |i: u32| {
            let drift = 1.0 + 0.1 * f64::from(i) / 200.0;
            let noise = 1.0 + 1e-4 * f64::from((i * 7 + jitter) % 11);
            Sample {
                time_ns: ns * drift * noise,
                sm_clock_hz: Some(1.8e9 / drift),
            }
        };
        Series::new(Timer::Event, 1, (0..200).map(sample).collect())
    }

    #[test]
    fn a_drift_that_both_share_hides_nothing() {
        let thresholds = Thresholds::default();
        let (base, head) = (drifting(1e4, 0), drifting(1.02e4, 3));
        let judgement = verdict(&[base.clone(), head.clone()], &thresholds);
        assert_eq!(judgement.verdict, Verdict::Slow);
        assert_eq!(judgement.reason.code(), "gap_in_time_and_cycles");
        assert!((judgement.ratio.unwrap() - 1.02).abs() < 1e-3);
        // Without what is known of pairs it stays open.
        let alone = judge(&base.to_gate(), &head.to_gate(), &thresholds);
        assert_eq!(alone.verdict, Verdict::Ambiguous);
        let same = verdict(&[base, drifting(1e4, 3)], &thresholds);
        assert_eq!(same.verdict, Verdict::Same);
    }

    #[test]
    fn cycles_stay_what_was_measured() {
        let [mut base, mut head] = [drifting(1e4, 0), drifting(1.02e4, 3)].map(|s| s.to_gate());
        let cycles = |of: &Samples| -> Vec<f64> {
            let clocks = of.clocks_hz.as_ref().unwrap();
            of.times_ns.iter().zip(clocks).map(|(t, c)| t * c).collect()
        };
        let before = cycles(&base);
        take_out_drift(&mut base, &mut head);
        let after = cycles(&base);
        assert!(
            before
                .iter()
                .zip(&after)
                .all(|(a, b)| (a / b - 1.0).abs() < 1e-12)
        );
    }

    #[test]
    fn what_is_no_pair_is_left_alone() {
        let of = |times: &[f64]| Samples {
            times_ns: times.to_vec(),
            ..drifting(1.0, 0).to_gate()
        };
        for (a, b) in [
            (vec![1.0, 2.0], vec![1.0]),
            (vec![1.0, 0.0], vec![1.0, 2.0]),
            (vec![], vec![]),
        ] {
            let (mut base, mut head) = (of(&a), of(&b));
            take_out_drift(&mut base, &mut head);
            assert_eq!((base.times_ns, head.times_ns), (a, b));
        }
    }
}
