//! The clock that a GPU's multiprocessors ran at between two points of a stream, in cycles over nanoseconds of the GPU's own timer.
//!
//! ```text
//!   stream   [ sm_clock ] [ work that is measured ] [ sm_clock ]
//!              cycles, ns                             cycles', ns'        MHz = 1000 (cycles' - cycles) / (ns' - ns)
//! ```
//!
//! It needs no permission and no library beside the driver, and it is of this stretch of this stream, where NVML gives what the clock
//! is when it is asked. The method is NVBench's (`gpu_frequency.cxx`, `timestamps_kernel.cu`).
//!
//! How exact it is depends on the steps in which `%globaltimer` moves, which NVIDIA does not state (PTX: "intended for use by NVIDIA
//! tools", its "lower 32 bits wrap around"): two readings are off by up to a step each, so that a stretch of a thousand steps is right
//! to 0.2 %. Between the two, the multiprocessor's cycles go on also while it has no work.
//!
//! What bounds it: latency. A thread of each multiprocessor reads three registers.
//!
//! **Invariant:** an emulated device has no clock: of its readings, which only count up, no rate is ever made.

pub(crate) mod launch;

use crate::Cost;

pub use launch::SmClock;

/// What a multiprocessor's registers held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The multiprocessor (`%smid`).
    pub multiprocessor: u32,
    /// Its cycles so far (`%clock64`).
    pub cycles: u64,
    /// Nanoseconds of the GPU's timer (`%globaltimer`).
    pub ns: u64,
}

/// The clock in MHz between two readings, of the first multiprocessor that both have: `None` where they share none, or where
/// its cycles or the timer did not move on.
pub fn mhz(before: &[Reading], after: &[Reading]) -> Option<f64> {
    let pairs = before.iter().flat_map(|from| {
        let same = after
            .iter()
            .filter(|to| to.multiprocessor == from.multiprocessor);
        same.map(move |to| (from, to))
    });
    let (from, to) = pairs.min_by_key(|(from, _)| from.multiprocessor)?;
    let cycles = to.cycles.checked_sub(from.cycles).filter(|&n| n > 0)?;
    let ns = to.ns.checked_sub(from.ns).filter(|&n| n > 0)?;
    Some(cycles as f64 / ns as f64 * 1e3)
}

/// The work of a launch of `blocks` blocks: each writes three numbers.
pub fn cost(blocks: usize) -> Cost {
    Cost {
        activation_bytes: 24 * blocks as u64,
        ..Cost::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn reading(multiprocessor: u32, cycles: u64, ns: u64) -> Reading {
        Reading {
            multiprocessor,
            cycles,
            ns,
        }
    }

    #[test]
    fn the_clock_is_cycles_over_time_of_one_multiprocessor() {
        // Multiprocessors begin to count at different times; 0 is not in the second launch.
        let before = [
            reading(0, 7, 1000),
            reading(5, 4_000_000, 1000),
            reading(2, 90, 1010),
        ];
        let after = [
            reading(2, 90 + 1980, 2010),
            reading(5, 4_000_000, 1000),
            reading(9, 1, 2),
        ];
        assert_eq!(mhz(&before, &after), Some(1980.0));
    }

    #[test]
    fn what_did_not_move_on_has_no_clock() {
        let at = |cycles, ns| [reading(0, cycles, ns)];
        for (before, after) in [
            (at(10, 10), at(10, 20)),
            (at(10, 10), at(20, 10)),
            (at(10, 10), at(5, 20)),
            (at(10, 10), at(20, 5)),
        ] {
            assert_eq!(mhz(&before, &after), None);
        }
        assert_eq!(mhz(&at(1, 1), &[reading(1, 2, 2)]), None);
        assert_eq!(mhz(&[], &at(1, 1)), None);
    }
}
