//! The loop: rounds of samples until there are enough.

use std::time::Duration;

use super::clock_filter::{ClockFilter, Fate};
use super::stopping::Stopping;
use super::{Sample, Settings, Stopped};
use crate::Error;

/// What samples come from: a device, or in tests a stream of numbers.
pub(super) trait Source {
    /// Takes a sample of a side, from 0. None if it is no sample: taken under conditions that the others were not.
    fn sample(&mut self, side: usize) -> Result<Option<Sample>, Error>;

    /// Launches of a sample of a side.
    fn launches(&self, side: usize) -> usize;

    /// Leaves the device alone.
    fn pause(&mut self, time: Duration);

    /// The host's time since the beginning.
    fn elapsed(&self) -> Duration;
}

/// What was collected of one side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Collected {
    pub(super) samples: Vec<Sample>,
    pub(super) set_aside: Vec<Sample>,
    pub(super) stopped: Stopped,
}

/// Takes rounds of one sample of each side, in turn, until every side has enough or no time is left. At least one round is tried.
pub(super) fn collect<const N: usize>(
    source: &mut dyn Source,
    settings: &Settings,
    default_hz: Option<f64>,
) -> Result<[Collected; N], Error> {
    let mut filter = ClockFilter::new(default_hz, settings.least_clock);
    let mut stopping: [Stopping; N] = std::array::from_fn(|_| Stopping::new(settings));
    let mut samples: [Vec<Sample>; N] = std::array::from_fn(|_| Vec::new());
    let mut set_aside: [Vec<Sample>; N] = std::array::from_fn(|_| Vec::new());
    loop {
        let mut round = [None; N];
        for (side, sample) in round.iter_mut().enumerate() {
            *sample = source.sample(side)?;
        }
        let clocks = round.map(|sample| sample.and_then(|sample| sample.sm_clock_hz));
        if round.iter().all(Option::is_some) {
            let fate = filter.judge(&clocks);
            let into = match fate {
                Fate::Counts => &mut samples,
                Fate::SetAside(_) => &mut set_aside,
            };
            for (side, sample) in round.into_iter().flatten().enumerate() {
                into[side].push(sample);
                if fate == Fate::Counts {
                    stopping[side].push(sample.time_ns, source.launches(side));
                }
            }
            if let Fate::SetAside(pause) = fate {
                let left = settings.time_limit.saturating_sub(source.elapsed());
                source.pause(pause.min(left));
            }
        }
        let enough = stopping.each_ref().map(Stopping::enough);
        if enough.iter().all(Option::is_some) || source.elapsed() >= settings.time_limit {
            let mut sides = samples.into_iter().zip(set_aside);
            return Ok(enough.map(|stopped| {
                let (samples, set_aside) = sides.next().unwrap_or_default();
                Collected {
                    samples,
                    set_aside,
                    stopped: stopped.unwrap_or(Stopped::TimeLimit),
                }
            }));
        }
    }
}

#[cfg(test)]
mod tests;
