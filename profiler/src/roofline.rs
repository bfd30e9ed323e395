//! What bounds an operation, and what bounds a step.
//!
//! The floor of an operation is the time that its arithmetic, or the movement of its bytes, takes at the rates this machine
//! was measured to reach, whichever is longer (Williams, Waterman and Patterson, "Roofline", CACM 2009). Bytes move at the
//! rate of the memory level they can still be in: weights and KV cache were last touched one step ago, so the whole step's
//! weights and KV cache must fit a level to be found there; an operation's activations were written just before it runs.
//! Without that distinction a model small enough for the cache would seem to beat its roof.

mod sentence;

use crate::breakdown::WorkMean;
use crate::record::{BandwidthRoof, Roofs};
use crate::recorder::Work;

pub use sentence::sentence;

/// An operation this many times faster than its floor says that the cost model or the roof is wrong; less is noise of the
/// measurements.
pub const ABOVE_ROOF: f64 = 1.1;

/// The least time that an operation can take on a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Floor {
    /// The longer of `compute_s` and `memory_s`.
    pub seconds: f64,
    /// Time of its floating-point operations.
    pub compute_s: f64,
    /// Time of all its bytes.
    pub memory_s: f64,
    /// Time of its weights, part of `memory_s`.
    pub weights_s: f64,
    /// Time of its part of the KV cache, part of `memory_s`.
    pub kv_s: f64,
    /// Time of its activations, part of `memory_s`.
    pub activations_s: f64,
    /// Which of the two is longer.
    pub bound: Bound,
}

/// What an operation would wait for if it ran as fast as the machine can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Reading and writing.
    Memory {
        /// The level of the memory hierarchy that takes longest: `L2`, `DRAM`.
        level: String,
    },
}

impl Bound {
    /// `compute`, or the memory level.
    pub fn name(&self) -> &str {
        match self {
            Bound::Compute => "compute",
            Bound::Memory { level } => level,
        }
    }
}

/// The floor of one operation. `step_bytes` is the working set of the whole step: weights and KV cache of all its operations.
/// Nothing when the operation has no work or the roofs are not usable.
pub fn floor(work: &Work, roofs: &Roofs, step_bytes: u64) -> Option<Floor> {
    let work = WorkMean {
        flops: work.flops as f64,
        weight_bytes: work.weight_bytes as f64,
        kv_bytes: work.kv_bytes as f64,
        activation_bytes: work.activation_bytes as f64,
    };
    mean_floor(&work, roofs, step_bytes as f64)
}

/// [`floor`] of a mean over calls.
pub(crate) fn mean_floor(work: &WorkMean, roofs: &Roofs, step_bytes: f64) -> Option<Floor> {
    let far = level(roofs, step_bytes);
    let near = level(roofs, work.activation_bytes);
    let seconds_at = |amount: f64, rate: Option<f64>| match rate {
        Some(rate) if rate > 0.0 && rate.is_finite() => amount / rate,
        _ => 0.0,
    };
    let rate_of = |level: Option<&BandwidthRoof>| level.map(|l| l.bytes_per_s);
    let compute_s = seconds_at(work.flops, Some(roofs.flops_per_s));
    let weights_s = seconds_at(work.weight_bytes, rate_of(far));
    let kv_s = seconds_at(work.kv_bytes, rate_of(far));
    let activations_s = seconds_at(work.activation_bytes, rate_of(near));
    let memory_s = weights_s + kv_s + activations_s;
    let seconds = compute_s.max(memory_s);
    if seconds <= 0.0 {
        return None;
    }
    let bound = if compute_s >= memory_s {
        Bound::Compute
    } else {
        let slowest = if activations_s > weights_s + kv_s {
            near
        } else {
            far
        };
        Bound::Memory {
            level: slowest.map_or("memory", |l| &l.name).to_owned(),
        }
    };
    Some(Floor {
        seconds,
        compute_s,
        memory_s,
        weights_s,
        kv_s,
        activations_s,
        bound,
    })
}

/// The level of the memory hierarchy that serves a working set of `bytes`.
fn level(roofs: &Roofs, bytes: f64) -> Option<&BandwidthRoof> {
    roofs
        .bandwidth
        .iter()
        .find(|l| l.up_to_bytes.is_none_or(|limit| bytes <= limit as f64))
        .or(roofs.bandwidth.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roofs() -> Roofs {
        let level = |name: &str, up_to_bytes, bytes_per_s| BandwidthRoof {
            name: name.to_owned(),
            up_to_bytes,
            bytes_per_s,
        };
        Roofs {
            flops_per_s: 100e9,
            bandwidth: vec![
                level("L2", Some(1_000_000), 80e9),
                level("L3", Some(16_000_000), 40e9),
                level("DRAM", None, 20e9),
            ],
            method: String::new(),
        }
    }

    #[track_caller]
    fn check(work: Work, step_bytes: u64, seconds: f64, bound: &str) {
        let floor = floor(&work, &roofs(), step_bytes).unwrap();
        assert!(
            (floor.seconds - seconds).abs() < 1e-12,
            "{} instead of {seconds}",
            floor.seconds
        );
        assert_eq!(floor.bound.name(), bound);
        assert_eq!(floor.seconds, floor.compute_s.max(floor.memory_s));
    }

    #[test]
    fn weights_come_from_where_the_whole_step_fits() {
        let work = Work {
            flops: 2_000_000,
            weight_bytes: 2_000_000,
            ..Work::default()
        };
        check(work, 270_000_000, 100e-6, "DRAM");
        check(work, 16_000_000, 50e-6, "L3");
        check(work, 1_000_000, 25e-6, "L2");
    }

    #[test]
    fn activations_come_from_where_they_fit() {
        let activations = |activation_bytes| Work {
            activation_bytes,
            ..Work::default()
        };
        check(activations(800_000), u64::MAX, 10e-6, "L2");
        check(activations(4_000_000), u64::MAX, 100e-6, "L3");
        // The larger part names the level.
        let work = Work {
            kv_bytes: 2_000_000,
            activation_bytes: 800_000,
            ..Work::default()
        };
        check(work, u64::MAX, 110e-6, "DRAM");
    }

    #[test]
    fn arithmetic_bounds_when_it_takes_longer() {
        let work = Work {
            flops: 20_000_000,
            weight_bytes: 2_000_000,
            ..Work::default()
        };
        check(work, u64::MAX, 200e-6, "compute");
    }

    #[test]
    fn no_work_or_no_roof_has_no_floor() {
        assert_eq!(floor(&Work::default(), &roofs(), 0), None);
        let work = Work {
            flops: 1,
            weight_bytes: 1,
            ..Work::default()
        };
        let unusable = Roofs {
            flops_per_s: f64::NAN,
            bandwidth: vec![BandwidthRoof {
                name: "DRAM".to_owned(),
                up_to_bytes: None,
                bytes_per_s: 0.0,
            }],
            method: String::new(),
        };
        assert_eq!(floor(&work, &unusable, 1), None);
        let none = Roofs {
            bandwidth: Vec::new(),
            ..unusable
        };
        assert_eq!(floor(&work, &none, 1), None);
    }
}
