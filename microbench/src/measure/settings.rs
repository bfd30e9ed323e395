//! What a person chooses about a measurement.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the L2 cache is to hold when a launch begins. What it held in the end stands in the series
/// ([`CacheState`](super::CacheState)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum L2 {
    /// Nothing of the inputs: they are rotated through copies larger than the cache, or the cache is flushed where there are too few
    /// copies.
    #[default]
    Cold,
    /// What the last launch on the same inputs left there.
    Warm,
}

/// What ends a measurement, beside its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// The noise is low, or does not get lower: NVBench's `stdrel`.
    #[default]
    Noise,
    /// More samples bring nothing new: NVBench's `entropy`. It is quicker with kernels that stay noisy.
    Entropy,
    /// So many samples.
    Samples(usize),
}

/// How something is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the L2 cache is to hold.
    pub l2: L2,
    /// What ends it.
    pub rule: Rule,
    /// It does not end before so many samples count, unless no time is left.
    pub least_samples: usize,
    /// It ends after so many samples at the latest.
    pub most_samples: usize,
    /// The rule of noise asks for so much time of the device first.
    pub least_device_time: Duration,
    /// It ends after so much time of the host.
    pub time_limit: Duration,
    /// Samples whose clock is below this part of the device's default clock are set aside.
    pub least_clock: f64,
}

impl Default for Settings {
    /// NVBench's (`--min-samples`, `--min-time`, `--timeout` and `--throttle-threshold`), with a limit of samples, for which it has
    /// none: launches of 50 µs took it hours (NVBench issue 61).
    fn default() -> Settings {
        Settings {
            l2: L2::Cold,
            rule: Rule::Noise,
            least_samples: 10,
            most_samples: 1000,
            least_device_time: Duration::from_millis(500),
            time_limit: Duration::from_secs(15),
            least_clock: 0.75,
        }
    }
}

impl Settings {
    /// For a look: a tenth of the time, and a looser answer.
    pub fn quick() -> Settings {
        Settings {
            most_samples: 200,
            least_device_time: Duration::from_millis(50),
            time_limit: Duration::from_millis(1500),
            ..Settings::default()
        }
    }
}
