//! When there are enough samples: pure numbers.

use std::collections::VecDeque;

use super::entropy::Entropy;
use super::{Rule, Settings, Stopped};

/// The standard deviation that is low enough, as a part of the mean. NVBench's (`--max-noise`).
const LOW_NOISE: f64 = 0.005;
/// The noise is looked at over so many estimates at least, and most. NVBench's.
const LEAST_ESTIMATES: usize = 64;
const MOST_ESTIMATES: usize = 512;
/// How far estimates may scatter around the last one to be stable, as a part of it. NVBench's.
const STABLE: f64 = 0.05;
/// Whether it is stable is asked after so many samples each. NVBench's.
const EVERY: usize = 16;
/// After so many estimates in a row that are no numbers there will be none. NVBench's.
const MOST_NOT_FINITE: usize = 64;

/// What a series has come to, sample by sample.
#[derive(Debug)]
pub(super) struct Stopping {
    rule: Rule,
    least_samples: usize,
    most_samples: usize,
    least_device_ns: f64,
    samples: usize,
    device_ns: f64,
    mean: f64,
    /// The sum of squared differences from the mean (Welford, Technometrics 1962): no pass over the samples for each new one.
    squares: f64,
    estimates: VecDeque<f64>,
    not_finite: usize,
    entropy: Entropy,
}

impl Stopping {
    pub(super) fn new(settings: &Settings) -> Stopping {
        Stopping {
            rule: settings.rule,
            least_samples: settings.least_samples,
            most_samples: settings.most_samples,
            least_device_ns: settings.least_device_time.as_secs_f64() * 1e9,
            samples: 0,
            device_ns: 0.0,
            mean: 0.0,
            squares: 0.0,
            estimates: VecDeque::new(),
            not_finite: 0,
            entropy: Entropy::default(),
        }
    }

    /// Takes in a sample that counts: the time of one launch, of `launches` that it consists of.
    pub(super) fn push(&mut self, time_ns: f64, launches: usize) {
        self.samples += 1;
        self.device_ns += time_ns * launches as f64;
        let difference = time_ns - self.mean;
        self.mean += difference / self.samples as f64;
        self.squares += difference * (time_ns - self.mean);
        let noise = (self.squares / (self.samples as f64 - 1.0)).sqrt() / self.mean;
        if noise.is_finite() {
            self.not_finite = 0;
            if self.estimates.len() == MOST_ESTIMATES {
                self.estimates.pop_front();
            }
            self.estimates.push_back(noise);
        } else {
            self.not_finite += 1;
        }
        if self.rule == Rule::Entropy {
            self.entropy.push(time_ns);
        }
    }

    /// Why there are enough samples, if there are.
    pub(super) fn enough(&self) -> Option<Stopped> {
        if self.samples >= self.most_samples {
            return Some(Stopped::MostSamples);
        }
        if self.not_finite >= MOST_NOT_FINITE {
            return Some(Stopped::NoEstimate);
        }
        if self.samples < self.least_samples {
            return None;
        }
        match self.rule {
            Rule::Samples(wanted) => (self.samples >= wanted).then_some(Stopped::SampleCount),
            Rule::Entropy => self.entropy.is_stable().then_some(Stopped::StableEntropy),
            Rule::Noise if self.device_ns < self.least_device_ns => None,
            Rule::Noise => self.noise(),
        }
    }

    fn noise(&self) -> Option<Stopped> {
        let &last = self.estimates.back()?;
        if last < LOW_NOISE {
            return Some(Stopped::LowNoise);
        }
        if self.estimates.len() < LEAST_ESTIMATES || !self.samples.is_multiple_of(EVERY) {
            return None;
        }
        let squares: f64 = self.estimates.iter().map(|e| (e - last).powi(2)).sum();
        let scatter = (squares / (self.estimates.len() - 1) as f64).sqrt() / last;
        (scatter < STABLE).then_some(Stopped::StableNoise)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::simulated::Random;
    use super::*;

    fn settings(rule: Rule) -> Settings {
        Settings {
            rule,
            least_device_time: Duration::from_millis(1),
            most_samples: 100_000,
            ..Settings::default()
        }
    }

    /// After how many of `times` it ends, and why.
    fn run(settings: &Settings, times: impl IntoIterator<Item = f64>) -> (usize, Option<Stopped>) {
        let mut stopping = Stopping::new(settings);
        for (index, time) in times.into_iter().enumerate() {
            stopping.push(time, 1);
            if let Some(why) = stopping.enough() {
                return (index + 1, Some(why));
            }
        }
        (stopping.samples, None)
    }

    /// Times around 100 µs with this relative deviation.
    fn normal(deviation: f64) -> impl Iterator<Item = f64> {
        let mut random = Random::new(7);
        std::iter::repeat_with(move || 1e5 * (1.0 + deviation * random.normal()))
    }

    #[test]
    fn low_noise_ends_it_after_the_least_time() {
        // A millisecond of 100 µs each, and 10 at least.
        let (count, why) = run(&settings(Rule::Noise), normal(0.002));
        assert_eq!((count, why), (10, Some(Stopped::LowNoise)));
        let longer = Settings {
            least_device_time: Duration::from_millis(50),
            ..settings(Rule::Noise)
        };
        let (count, why) = run(&longer, normal(0.002));
        assert!((498..=502).contains(&count), "{count}");
        assert_eq!(why, Some(Stopped::LowNoise));
    }

    #[test]
    fn noise_that_stays_ends_it_too() {
        let (count, why) = run(&settings(Rule::Noise), normal(0.05));
        assert_eq!(why, Some(Stopped::StableNoise));
        assert!((64..2000).contains(&count) && count % 16 == 0, "{count}");
    }

    #[test]
    fn noise_that_grows_does_not_end_it() {
        // A drift: the deviation grows with every sample.
        let drift = (0..500).map(|i| 1e5 * (1.0 + 0.01 * f64::from(i)));
        assert_eq!(run(&settings(Rule::Noise), drift), (500, None));
    }

    #[test]
    fn limits_hold_whatever_the_rule() {
        for rule in [Rule::Noise, Rule::Entropy, Rule::Samples(1000)] {
            let few = Settings {
                most_samples: 20,
                least_device_time: Duration::from_secs(1),
                ..settings(rule)
            };
            assert_eq!(run(&few, normal(0.05)), (20, Some(Stopped::MostSamples)));
        }
        let counted = run(&settings(Rule::Samples(100)), normal(0.05));
        assert_eq!(counted, (100, Some(Stopped::SampleCount)));
        // The least of the settings is asked for, too.
        let counted = run(&settings(Rule::Samples(3)), normal(0.05));
        assert_eq!(counted, (10, Some(Stopped::SampleCount)));
    }

    #[test]
    fn times_of_zero_end_it() {
        let zeros = std::iter::repeat(0.0);
        assert_eq!(
            run(&settings(Rule::Noise), zeros),
            (64, Some(Stopped::NoEstimate))
        );
    }

    #[test]
    fn quantised_times_have_a_stable_entropy() {
        // What events resolve: a few values, again and again.
        let quantised = normal(0.01).map(|ns| (ns / 500.0).round() * 500.0);
        let (count, why) = run(&settings(Rule::Entropy), quantised);
        assert_eq!(why, Some(Stopped::StableEntropy));
        assert!(count < 2000, "{count}");
    }

    #[test]
    fn device_time_counts_all_launches_of_a_sample() {
        let mut stopping = Stopping::new(&settings(Rule::Noise));
        for _ in 0..10 {
            stopping.push(1000.0, 100);
        }
        assert_eq!(stopping.enough(), Some(Stopped::LowNoise));
    }
}
