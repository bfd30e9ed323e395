//! Operations timed by replaying a graph of their launches.

use serde::{Deserialize, Serialize};

use crate::clock::DeviceClock;
use crate::recorder::{Timer, Work};
use crate::stats;

/// Replays of one graph that are timed.
const ROUNDS: std::ops::RangeInclusive<u64> = 5..=50;

/// Time that the replays of one graph may take all together, more or less.
const BUDGET_NS: u64 = 20_000_000;

/// An operation of the decode step, or all of them, timed apart from any step.
///
/// A graph holds it in every layer, again and again; the graph is replayed between events. So its weights come from wherever they
/// lie when the layers take turns, as in a step; its activations lie in L2, and there is no gap that a host makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplayedOperation {
    /// The operation; of all of them together, `forward`.
    pub name: String,
    /// The kernel that ran it; empty of all of them together.
    pub kernel: String,
    /// How often a step runs it: layers, mostly.
    pub calls: u64,
    /// Kernels of a call.
    pub launches: f64,
    /// Work of a call.
    #[serde(flatten)]
    pub work: Work,
    /// Calls that the graph holds.
    pub calls_in_graph: u64,
    /// Nanoseconds of a call, replay by replay: the replay's time over its calls.
    pub samples_ns: Vec<f64>,
    /// [`Timer::Graph`].
    pub timer: Timer,
}

impl ReplayedOperation {
    /// Median time of a call, nanoseconds.
    pub fn call_ns(&self) -> Option<f64> {
        stats::median(&self.samples_ns)
    }

    /// Of all calls of a step.
    pub fn step_ns(&self) -> Option<f64> {
        Some(self.call_ns()? * self.calls as f64)
    }
}

/// The times of a call, of a graph that holds `calls` of them: `replay` puts it into the device's queue, `wait` waits until the
/// queue is empty. Two replays that are not counted come first, the second of which says how many more there are.
///
/// # Errors
/// Those of the two. A device whose clock does not tell gives no times.
pub fn time_replays<E>(
    clock: &mut dyn DeviceClock,
    calls: u64,
    mut replay: impl FnMut() -> Result<(), E>,
    mut wait: impl FnMut() -> Result<(), E>,
) -> Result<Vec<f64>, E> {
    replay()?;
    clock.restart();
    let before = clock.mark();
    replay()?;
    let behind = clock.mark();
    wait()?;
    let between = |from: Option<usize>, to: Option<usize>| Some((from?, to?));
    let first = between(before, behind).and_then(|(from, to)| clock.elapsed_ns(from, to));
    let Some(first_ns) = first.filter(|&ns| ns > 0 && calls > 0) else {
        return Ok(Vec::new());
    };
    let rounds = (BUDGET_NS / first_ns).clamp(*ROUNDS.start(), *ROUNDS.end());
    // Everything is queued before it is waited for, so that the device never waits for the host between two marks.
    clock.restart();
    replay()?;
    let mut marks = vec![clock.mark()];
    for _ in 0..rounds {
        replay()?;
        marks.push(clock.mark());
    }
    wait()?;
    let times = marks.windows(2).map(|pair| {
        let (from, to) = between(pair[0], pair[1])?;
        Some(clock.elapsed_ns(from, to)? as f64 / calls as f64)
    });
    Ok(times.collect::<Option<_>>().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A device on which a replay takes what it is told to.
    #[derive(Debug)]
    struct Fake {
        now_ns: u64,
        marks: Vec<u64>,
        per_replay_ns: u64,
        refuses: bool,
    }

    impl DeviceClock for Fake {
        fn restart(&mut self) {
            self.marks.clear();
        }

        fn mark(&mut self) -> Option<usize> {
            // Each mark but the first lies behind one replay more.
            self.now_ns += self.per_replay_ns;
            self.marks.push(self.now_ns);
            (!self.refuses).then(|| self.marks.len() - 1)
        }

        fn elapsed_ns(&self, from: usize, to: usize) -> Option<u64> {
            self.marks.get(to)?.checked_sub(*self.marks.get(from)?)
        }
    }

    fn check(per_replay_ns: u64, refuses: bool, samples: usize, replays: u64) {
        let mut clock = Fake {
            now_ns: 5,
            marks: Vec::new(),
            per_replay_ns,
            refuses,
        };
        let (queued, waited) = (Cell::new(0), Cell::new(0));
        let times = time_replays(
            &mut clock,
            10,
            || {
                queued.set(queued.get() + 1);
                Ok::<(), ()>(())
            },
            || {
                waited.set(waited.get() + 1);
                Ok(())
            },
        );
        let times = times.unwrap();
        assert_eq!(times, vec![per_replay_ns as f64 / 10.0; samples]);
        assert_eq!(queued.get(), replays);
        assert_eq!(waited.get(), 1 + u64::from(samples > 0));
    }

    #[test]
    fn a_call_s_time_is_its_share_of_a_replay() {
        // 20 ms hold 20 replays of 1 ms; there are 5 at least and 50 at most.
        check(1_000_000, false, 20, 3 + 20);
        check(100_000_000, false, 5, 3 + 5);
        check(10_000, false, 50, 3 + 50);
    }

    #[test]
    fn a_device_without_a_clock_gives_no_times() {
        check(1_000_000, true, 0, 2);
        check(0, false, 0, 2);
    }

    #[test]
    fn a_step_s_time_is_that_of_its_calls() {
        let operation = ReplayedOperation {
            name: "qkv_proj".to_owned(),
            kernel: "gemv".to_owned(),
            calls: 28,
            launches: 1.0,
            work: Work::default(),
            calls_in_graph: 84,
            samples_ns: vec![900.0, 1000.0, 5000.0],
            timer: Timer::Graph,
        };
        assert_eq!(operation.call_ns(), Some(1000.0));
        assert_eq!(operation.step_ns(), Some(28_000.0));
        let text = serde_json::to_string(&operation).unwrap();
        assert!(text.contains(r#""timer":"graph""#), "{text}");
        assert_eq!(
            serde_json::from_str::<ReplayedOperation>(&text).unwrap(),
            operation
        );
    }
}
