//! What a person chooses about a measurement.

use serde::{Deserialize, Serialize};

/// What the L2 cache holds when a launch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum L2 {
    /// Nothing of the inputs: they are rotated through copies larger than the cache, or the cache is flushed where there is one copy.
    #[default]
    Cold,
    /// What the last launch on the same inputs left there.
    Warm,
}

/// How something is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the L2 cache holds.
    pub l2: L2,
    /// It ends after so many samples at the latest.
    pub most_samples: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            l2: L2::Cold,
            most_samples: 1000,
        }
    }
}
