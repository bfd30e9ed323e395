//! The rule: two lists of times in, one of five verdicts out.
//!
//! It is the rule of NVBench's `nvbench-compare-robust` (docs/nvbench_compare_robust.md there, August 2026), with three changes:
//! where no clock is known the verdict rests on time alone and says so (NVBench answers AMBG); a minimum of samples is asked for;
//! and what cannot be compared at all is told apart from what stays open.

use super::coverage::{self, Coverage};
use super::{Interval, Judgement, Reason, Thresholds, Verdict};
use crate::recorder::Timer;

/// What one sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// One step of one process, or one sample of a kernel. Those of a process share its memory layout, its clocks and its
    /// neighbours on the machine.
    Step,
    /// The median of one process.
    Process,
}

/// Times of one thing, measured again and again by one timer.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Nanoseconds.
    pub times_ns: Vec<f64>,
    /// The clock of the multiprocessors during each sample, Hz, where it was measured; as many as there are times.
    pub clocks_hz: Option<Vec<f64>>,
    /// What took the times.
    pub timer: Timer,
    /// What one of them is.
    pub observation: Observation,
}

/// Holds `head` against `base`.
///
/// 1. Intervals [minimum, third quartile] that do not overlap and lie at least [`Thresholds::gap`] apart are SLOW or FAST, if
///    the same holds of the cycles (time × clock of each sample). Where either side lacks clocks, time alone decides.
/// 2. Otherwise medians within [`Thresholds::same`], intervals that overlap by [`Thresholds::same_overlap`] of the narrower one,
///    and enough samples of either side that have a near neighbour on the other (in time, and in cycles where clocks are known)
///    are SAME.
/// 3. All else is AMBIGUOUS.
pub fn judge(base: &Samples, head: &Samples, thresholds: &Thresholds) -> Judgement {
    if let Some(reason) = unusable(base, head) {
        return Judgement::without_times(Verdict::Unusable, reason);
    }
    let (Some(base_interval), Some(head_interval)) =
        (Interval::of(&base.times_ns), Interval::of(&head.times_ns))
    else {
        return Judgement::without_times(Verdict::Unusable, Reason::NoSamples);
    };
    let (verdict, reason) = decide(base, head, base_interval, head_interval, thresholds);
    Judgement {
        verdict,
        reason,
        base: Some(base_interval),
        head: Some(head_interval),
        samples: [base.times_ns.len(), head.times_ns.len()],
        ratio: Some(head_interval.median / base_interval.median),
    }
}

/// Why these two cannot be held against each other at all.
fn unusable(base: &Samples, head: &Samples) -> Option<Reason> {
    if base.timer != head.timer {
        return Some(Reason::TimersDiffer {
            base: base.timer,
            head: head.timer,
        });
    }
    if base.timer == Timer::None {
        return Some(Reason::NoTimer);
    }
    if base.observation != head.observation {
        return Some(Reason::ObservationsDiffer);
    }
    let sides = [&base.times_ns, &head.times_ns];
    if sides.iter().any(|times| times.is_empty()) {
        return Some(Reason::NoSamples);
    }
    let is_no_time = |time: &&f64| !is_positive(**time);
    let no_times = sides.map(|times| times.iter().filter(is_no_time).count());
    if no_times != [0, 0] {
        return Some(Reason::NotTimes {
            base: no_times[0],
            head: no_times[1],
        });
    }
    if sides.iter().any(|times| times.len() == 1) {
        return Some(Reason::OneSample);
    }
    None
}

fn decide(
    base: &Samples,
    head: &Samples,
    base_interval: Interval,
    head_interval: Interval,
    thresholds: &Thresholds,
) -> (Verdict, Reason) {
    let needed = thresholds.minimum(base.observation);
    if base.times_ns.len().min(head.times_ns.len()) < needed {
        let reason = Reason::TooFew {
            base: base.times_ns.len(),
            head: head.times_ns.len(),
            needed,
        };
        return (Verdict::Ambiguous, reason);
    }
    let cycles = match cycles(base, head) {
        Ok(cycles) => cycles,
        Err(reason) => return (Verdict::Ambiguous, reason),
    };
    if let Some(verdict) = clear_gap(base_interval, head_interval, thresholds.gap) {
        let Some([base_cycles, head_cycles]) = &cycles else {
            return (verdict, Reason::GapInTime);
        };
        let in_cycles = Interval::of(base_cycles)
            .zip(Interval::of(head_cycles))
            .and_then(|(base, head)| clear_gap(base, head, thresholds.gap));
        return if in_cycles == Some(verdict) {
            (verdict, Reason::GapInTimeAndCycles)
        } else {
            (Verdict::Ambiguous, Reason::GapNotInCycles)
        };
    }
    match same(base, head, base_interval, head_interval, thresholds) {
        Err(reason) => (Verdict::Ambiguous, reason),
        Ok(()) => match &cycles {
            None => (Verdict::Same, Reason::SameInTime),
            Some([base, head]) => match covered(base, head, thresholds) {
                Ok(()) => (Verdict::Same, Reason::SameInTimeAndCycles),
                Err(_) => (Verdict::Ambiguous, Reason::SameNotInCycles),
            },
        },
    }
}

/// The cycles of either side's samples; nothing where a side has no clocks.
fn cycles(base: &Samples, head: &Samples) -> Result<Option<[Vec<f64>; 2]>, Reason> {
    let (Some(base_clocks), Some(head_clocks)) = (&base.clocks_hz, &head.clocks_hz) else {
        return Ok(None);
    };
    let of = |times: &[f64], clocks: &[f64]| {
        let usable = times.len() == clocks.len() && clocks.iter().all(|&c| is_positive(c));
        let cycles = times.iter().zip(clocks).map(|(t, c)| t * 1e-9 * c);
        usable.then(|| cycles.collect::<Vec<f64>>())
    };
    match (
        of(&base.times_ns, base_clocks),
        of(&head.times_ns, head_clocks),
    ) {
        (Some(base), Some(head)) => Ok(Some([base, head])),
        _ => Err(Reason::ClocksUnusable),
    }
}

/// SLOW or FAST where the intervals lie at least `gap` apart, relative to the nearer end of the lower one.
fn clear_gap(base: Interval, head: Interval, gap: f64) -> Option<Verdict> {
    let apart = |lower: Interval, upper: Interval| {
        upper.min > lower.q3 && (upper.min - lower.q3) / lower.q3 >= gap
    };
    if apart(base, head) {
        Some(Verdict::Slow)
    } else if apart(head, base) {
        Some(Verdict::Fast)
    } else {
        None
    }
}

fn same(
    base: &Samples,
    head: &Samples,
    base_interval: Interval,
    head_interval: Interval,
    thresholds: &Thresholds,
) -> Result<(), Reason> {
    let (low, high) = (
        base_interval.median.min(head_interval.median),
        base_interval.median.max(head_interval.median),
    );
    if (high - low) / low > thresholds.same {
        return Err(Reason::MediansApart);
    }
    if overlap(base_interval, head_interval) < thresholds.same_overlap {
        return Err(Reason::IntervalsApart);
    }
    covered(&base.times_ns, &head.times_ns, thresholds)
}

fn covered(base: &[f64], head: &[f64], thresholds: &Thresholds) -> Result<(), Reason> {
    let within = |coverage: Coverage| {
        coverage.samples >= thresholds.sample_coverage
            && coverage.support >= thresholds.support_coverage
    };
    let coverages = [
        coverage::of(base, head, thresholds.same),
        coverage::of(head, base, thresholds.same),
    ];
    if coverages.into_iter().all(within) {
        Ok(())
    } else {
        Err(Reason::SamplesScattered)
    }
}

/// The part of the narrower interval that lies in the other one, from 0 to 1.
fn overlap(a: Interval, b: Interval) -> f64 {
    let common = a.q3.min(b.q3) - a.min.max(b.min);
    if common < 0.0 {
        return 0.0;
    }
    let narrower = (a.q3 - a.min).min(b.q3 - b.min);
    // An interval without width lies in the other one or, as `common` tells, it does not.
    if narrower > 0.0 {
        common / narrower
    } else {
        1.0
    }
}

fn is_positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

/// How often a gap between the intervals of `base` and `head` observations comes up, in one given direction, if both are drawn
/// from the same distribution and independent of one another, whatever that distribution is. An upper bound: the gap must also
/// be wide enough.
///
/// SLOW needs the head's minimum above the base's third quartile, the (r + 1)-th of its sorted observations: the r + 1 lowest of
/// all must be the base's, and each choice of who owns which rank is as likely as any other.
pub fn chance_of_gap(base: usize, head: usize) -> f64 {
    if base == 0 || head == 0 {
        return 1.0;
    }
    let all = base + head;
    (0..=rank(75, base))
        .map(|i| (base - i) as f64 / (all - i) as f64)
        .product()
}

/// The rank, from 0, of a percentile of `count` sorted values, of which there is at least one: NVBench's, the nearest of the
/// evenly spaced ranks.
pub(super) fn rank(percentile: usize, count: usize) -> usize {
    (percentile * (count - 1) + 50) / 100
}

impl Interval {
    /// The interval of some values; nothing of none.
    pub(super) fn of(values: &[f64]) -> Option<Interval> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Interval {
            min: *sorted.first()?,
            median: sorted[rank(50, sorted.len())],
            q3: sorted[rank(75, sorted.len())],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(times: &[f64]) -> Samples {
        Samples {
            times_ns: times.to_vec(),
            clocks_hz: None,
            timer: Timer::Event,
            observation: Observation::Step,
        }
    }

    /// Twelve samples from `low` to `high`, evenly spaced.
    fn spread(low: f64, high: f64) -> Samples {
        let step = (high - low) / 11.0;
        let times: Vec<f64> = (0..12).map(|i| low + step * f64::from(i)).collect();
        samples(&times)
    }

    fn with_clocks(samples: Samples, clock: impl Fn(f64) -> f64) -> Samples {
        let clocks = samples.times_ns.iter().map(|&t| clock(t)).collect();
        Samples {
            clocks_hz: Some(clocks),
            ..samples
        }
    }

    #[track_caller]
    fn check(base: &Samples, head: &Samples, verdict: Verdict, reason: &str) {
        let judgement = judge(base, head, &Thresholds::default());
        assert_eq!(
            (judgement.verdict, judgement.reason.code()),
            (verdict, reason)
        );
    }

    #[test]
    fn a_gap_of_half_a_percent_decides() {
        let base = spread(1000.0, 1010.0); // q3 is the 9th: 1007.27
        check(&base, &spread(1012.4, 1020.0), Verdict::Slow, "gap_in_time");
        check(&spread(1012.4, 1020.0), &base, Verdict::Fast, "gap_in_time");
        // 0.49 % above the base's third quartile.
        check(
            &base,
            &spread(1012.2, 1020.0),
            Verdict::Ambiguous,
            "medians_apart",
        );
    }

    #[test]
    fn the_interval_is_minimum_and_third_quartile() {
        let mut times: Vec<f64> = (1..=11).map(f64::from).collect();
        times.reverse();
        let interval = Interval::of(&times).unwrap();
        assert_eq!(
            (interval.min, interval.median, interval.q3),
            (1.0, 6.0, 9.0)
        );
        // A slow outlier does not move the third quartile, and so hides no gap.
        let mut base = spread(1000.0, 1010.0);
        base.times_ns[11] = 9000.0;
        check(&base, &spread(1030.0, 1040.0), Verdict::Slow, "gap_in_time");
    }

    #[test]
    fn a_gap_must_hold_in_cycles() {
        let slow = || spread(1030.0, 1040.0);
        let base = || spread(1000.0, 1010.0);
        let at = |ghz: f64| move |_| ghz * 1e9;
        check(
            &with_clocks(base(), at(1.98)),
            &with_clocks(slow(), at(1.98)),
            Verdict::Slow,
            "gap_in_time_and_cycles",
        );
        // The clock fell by 3 %: as many cycles as before.
        check(
            &with_clocks(base(), at(1.98)),
            &with_clocks(slow(), at(1.98 / 1.03)),
            Verdict::Ambiguous,
            "gap_not_in_cycles",
        );
        check(
            &base(),
            &with_clocks(slow(), at(1.98)),
            Verdict::Slow,
            "gap_in_time",
        );
        for broken in [0.0, f64::NAN, -1.0] {
            check(
                &with_clocks(base(), at(broken)),
                &with_clocks(slow(), at(1.98)),
                Verdict::Ambiguous,
                "clocks_unusable",
            );
        }
        let mut short = with_clocks(base(), at(1.98));
        short.clocks_hz.as_mut().unwrap().pop();
        check(
            &short,
            &with_clocks(slow(), at(1.98)),
            Verdict::Ambiguous,
            "clocks_unusable",
        );
    }

    #[test]
    fn same_needs_neighbours_on_both_sides() {
        check(
            &spread(1000.0, 1010.0),
            &spread(1000.5, 1010.5),
            Verdict::Same,
            "same_in_time",
        );
        // Medians and intervals agree; every other sample of one side lies where the other has none.
        let mut base = spread(1000.0, 1040.0);
        let mut head = base.clone();
        for (index, time) in head.times_ns.iter_mut().enumerate().skip(9) {
            *time = 1100.0 + 20.0 * index as f64;
        }
        check(&base, &head, Verdict::Ambiguous, "samples_scattered");
        // Narrow intervals beside each other, 0.4 % apart.
        base = spread(1000.0, 1000.1);
        head = spread(1004.0, 1004.1);
        check(&base, &head, Verdict::Ambiguous, "intervals_apart");
        let slower_clock = with_clocks(spread(1000.5, 1010.5), |_| 1.5e9);
        check(
            &with_clocks(spread(1000.0, 1010.0), |_| 1.9e9),
            &slower_clock,
            Verdict::Ambiguous,
            "same_not_in_cycles",
        );
        check(
            &slower_clock,
            &slower_clock,
            Verdict::Same,
            "same_in_time_and_cycles",
        );
    }

    #[test]
    fn identical_samples_are_the_same() {
        let constant = samples(&[5.0; 12]);
        check(&constant, &constant, Verdict::Same, "same_in_time");
        check(
            &constant,
            &samples(&[6.0; 12]),
            Verdict::Slow,
            "gap_in_time",
        );
    }

    #[test]
    fn what_is_no_time_is_unusable() {
        let good = spread(1000.0, 1010.0);
        for broken in [0.0, -3.0, f64::NAN, f64::INFINITY] {
            let mut bad = good.clone();
            bad.times_ns[4] = broken;
            check(&good, &bad, Verdict::Unusable, "not_times");
            check(&bad, &good, Verdict::Unusable, "not_times");
        }
        check(&good, &samples(&[]), Verdict::Unusable, "no_samples");
        check(&good, &samples(&[1000.0]), Verdict::Unusable, "one_sample");
        let few = samples(&[1000.0, 1001.0, 1002.0]);
        check(&good, &few, Verdict::Ambiguous, "too_few");
        let wall = Samples {
            timer: Timer::Wall,
            ..good.clone()
        };
        check(&good, &wall, Verdict::Unusable, "timers_differ");
        let untimed = Samples {
            timer: Timer::None,
            ..good.clone()
        };
        check(&untimed, &untimed, Verdict::Unusable, "no_timer");
        let processes = Samples {
            observation: Observation::Process,
            ..good.clone()
        };
        check(&good, &processes, Verdict::Unusable, "observations_differ");
    }

    #[test]
    fn chances_are_counted_orders() {
        // Of 6 the third quartile is the 5th: 7 of the 924 orders of 6 and 6 have the 5 lowest from the base.
        assert!((chance_of_gap(6, 6) - 7.0 / 924.0).abs() < 1e-12);
        assert!((chance_of_gap(10, 10) - 66.0 / 184_756.0).abs() < 1e-12);
        assert!((chance_of_gap(3, 3) - 1.0 / 20.0).abs() < 1e-12);
        assert_eq!(chance_of_gap(0, 5), 1.0);
    }
}
