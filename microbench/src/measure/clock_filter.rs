//! Which samples count by the clock they were taken at: pure numbers.

use std::time::Duration;

/// What a device is given to recover when its clock was held down. NVBench's (`--throttle-recovery-delay`).
const PAUSE: Duration = Duration::from_millis(50);
/// So many throttled rounds in a row make the pause longer, by [`PAUSE`] each, up to [`LONGEST_PAUSE`]. NVBench's.
const PATIENCE: u32 = 3;
const LONGEST_PAUSE: Duration = Duration::from_millis(550);

/// Sets samples aside whose clock is far below what the device runs at by default.
#[derive(Debug)]
pub(super) struct ClockFilter {
    /// Hz; nothing is set aside where the default clock is not known.
    least_hz: Option<f64>,
    in_a_row: u32,
}

/// What becomes of a round of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Counts,
    /// And the device is left alone for so long.
    SetAside(Duration),
}

impl ClockFilter {
    /// Sets aside what lies below `part` of `default_hz`.
    pub(super) fn new(default_hz: Option<f64>, part: f64) -> ClockFilter {
        ClockFilter {
            least_hz: default_hz.map(|hz| hz * part).filter(|hz| *hz > 0.0),
            in_a_row: 0,
        }
    }

    /// Of one round, a sample of each side: they count together or not at all, so that both sides keep the same conditions.
    pub(super) fn judge(&mut self, clocks: &[Option<f64>]) -> Fate {
        let is_low = |clock: &Option<f64>| {
            let pair = clock.zip(self.least_hz);
            pair.is_some_and(|(clock, least)| clock < least)
        };
        if !clocks.iter().any(is_low) {
            self.in_a_row = 0;
            return Fate::Counts;
        }
        self.in_a_row += 1;
        let longer = self.in_a_row.saturating_sub(PATIENCE);
        let pause = PAUSE.saturating_mul(longer.saturating_add(1));
        Fate::SetAside(pause.min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn low_clocks_are_set_aside() {
        let mut filter = ClockFilter::new(Some(2e9), 0.75);
        assert_eq!(filter.judge(&[Some(1.5e9)]), Fate::Counts);
        assert_eq!(filter.judge(&[None]), Fate::Counts);
        let aside = Fate::SetAside(50 * MILLISECOND);
        assert_eq!(filter.judge(&[Some(1.49e9)]), aside);
        // One side alone.
        assert_eq!(filter.judge(&[Some(1.9e9), Some(1.4e9)]), aside);
    }

    #[test]
    fn pauses_grow_while_it_lasts_and_start_again_afterwards() {
        let mut filter = ClockFilter::new(Some(2e9), 0.75);
        let mut pauses = |count: usize, clock: f64| -> Vec<u64> {
            let fates = (0..count).map(|_| filter.judge(&[Some(clock)]));
            fates
                .map(|fate| match fate {
                    Fate::Counts => 0,
                    Fate::SetAside(pause) => pause.as_millis() as u64,
                })
                .collect()
        };
        assert_eq!(pauses(5, 1e9), [50, 50, 50, 100, 150]);
        assert_eq!(pauses(20, 1e9).last(), Some(&550));
        assert_eq!(pauses(1, 1.9e9), [0]);
        assert_eq!(pauses(1, 1e9), [50]);
    }

    #[test]
    fn a_device_without_a_default_clock_keeps_everything() {
        for default in [None, Some(0.0)] {
            let mut filter = ClockFilter::new(default, 0.75);
            assert_eq!(filter.judge(&[Some(1.0)]), Fate::Counts);
        }
    }
}
