//! Who else computes the same, measured beside ours.
//!
//! [`cublaslt`] multiplies matrices in this process, in turn with ours. [`torch`] asks the machine's Python, in a process of its own
//! behind ours, which is said wherever its times stand. A peer that is missing costs one line that says why.

pub mod cublaslt;
pub mod python;
pub mod torch;

use stepscope_profiler::gate::Thresholds;
use stepscope_profiler::microbench::{Peer, Series, Status};

use crate::verdict;

/// A peer as it stands in the row of ours, where the two were timed in turn.
pub fn in_turn(name: &str, version: Option<String>, ours: Option<&Series>, theirs: Series) -> Peer {
    let judged = ours.map(|ours| {
        let pair = [theirs.clone(), ours.clone()];
        verdict(&pair, &Thresholds::default()).verdict
    });
    Peer {
        name: name.to_owned(),
        version,
        kernel: None,
        in_turn: true,
        status: Status::Ok,
        reason: None,
        series: Some(theirs),
        verdict: judged,
    }
}

#[cfg(test)]
mod tests {
    use stepscope_profiler::Timer;
    use stepscope_profiler::gate::Verdict;
    use stepscope_profiler::microbench::Sample;

    use super::*;

    fn series(us: f64) -> Series {
        let sample = |i: i32| Sample {
            time_ns: 1e3 * us * (1.0 + 1e-4 * f64::from(i % 5)),
            sm_clock_hz: Some(1.8e9),
        };
        Series::new(Timer::Event, 1, (0..30).map(sample).collect())
    }

    #[test]
    fn the_verdict_is_on_ours() {
        let of = |ours: Option<f64>| {
            let ours = ours.map(series);
            in_turn("cuBLASLt", None, ours.as_ref(), series(10.0)).verdict
        };
        assert_eq!(of(Some(12.0)), Some(Verdict::Slow));
        assert_eq!(of(Some(8.0)), Some(Verdict::Fast));
        assert_eq!(of(Some(10.0)), Some(Verdict::Same));
        assert_eq!(of(None), None);
    }
}
