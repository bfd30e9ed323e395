//! What was measured.

pub use stepscope_profiler::microbench::{CacheState, Sample, Series, Stopped};

/// What became of a measurement.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    /// It has times.
    Timed(Series),
    /// Its results are right, and it has no time: why.
    Untimed(&'static str),
}

impl Measured {
    /// Its times, where there are any.
    pub fn series(&self) -> Option<&Series> {
        match self {
            Measured::Timed(series) => Some(series),
            Measured::Untimed(_) => None,
        }
    }
}
