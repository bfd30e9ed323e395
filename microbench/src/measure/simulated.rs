//! A device of numbers: samples with the noise of real ones, by fixed seeds.

use std::time::Duration;

use stepscope_kernels::philox::{philox4x32_10, unit_f32};

use super::Sample;
use super::collect::Source;
use crate::Error;

/// Random numbers by a seed.
#[derive(Debug)]
pub(super) struct Random {
    seed: u64,
    block: u32,
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random { seed, block: 0 }
    }

    fn four(&mut self) -> [f64; 4] {
        self.block += 1;
        philox4x32_10([self.block, 0, 0, 0], self.seed).map(|word| f64::from(unit_f32(word)))
    }

    /// From 0 to 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.four()[0]
    }

    /// Of mean 0 and deviation 1 (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let [a, b, ..] = self.four();
        (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// Of mean 1, from 0 on.
    pub(super) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

/// What disturbs a sample. Parts are of the kernel's time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Noise {
    /// The deviation of a normal distribution.
    pub(super) deviation: f64,
    /// The mean of a tail to the right.
    pub(super) tail: f64,
    /// How often a sample is in a second mode, and how much longer it is then.
    pub(super) second_mode: Option<(f64, f64)>,
    /// How often a sample is disturbed by 10 to 30 µs: what NVBench's issue 184 saw of events.
    pub(super) spikes: f64,
    /// What the timer resolves, nanoseconds.
    pub(super) quantum_ns: f64,
    /// How far the clock drifts, as a part of it, up and down within 2 seconds.
    pub(super) drift: f64,
    /// Part of the time in which the clock is held down to 60 %, in stretches of 0.2 seconds.
    pub(super) throttled: f64,
}

/// The clock that the device runs at when nothing holds it down, and the one that it is specified for.
const CLOCK_HZ: f64 = 1.755e9;
pub(super) const DEFAULT_HZ: f64 = 1.98e9;
/// What the host takes for a sample beside the kernel.
const OVERHEAD: Duration = Duration::from_micros(100);

/// Kernels that are there as numbers alone.
#[derive(Debug)]
pub(super) struct Simulated {
    /// Nanoseconds of a launch, by side, at [`CLOCK_HZ`].
    pub(super) launch_ns: Vec<f64>,
    pub(super) launches: usize,
    pub(super) noise: Noise,
    pub(super) random: Random,
    pub(super) elapsed: Duration,
    pub(super) pauses: Vec<Duration>,
}

impl Simulated {
    pub(super) fn new(launch_ns: &[f64], noise: Noise, seed: u64) -> Simulated {
        Simulated {
            launch_ns: launch_ns.to_vec(),
            launches: 1,
            noise,
            random: Random::new(seed),
            elapsed: Duration::ZERO,
            pauses: Vec::new(),
        }
    }

    fn clock_hz(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        let drift = self.noise.drift * (seconds / 2.0 * std::f64::consts::TAU).sin();
        let is_throttled = (seconds / 0.2).floor() * 0.618 % 1.0 < self.noise.throttled;
        CLOCK_HZ * (1.0 + drift) * if is_throttled { 0.6 } else { 1.0 }
    }
}

impl Source for Simulated {
    fn sample(&mut self, side: usize) -> Result<Option<Sample>, Error> {
        let Noise {
            deviation,
            tail,
            second_mode,
            spikes,
            quantum_ns,
            ..
        } = self.noise;
        let clock = self.clock_hz();
        let random = &mut self.random;
        let mut part = 1.0 + deviation * random.normal() + tail * random.exponential();
        if let Some((often, longer)) = second_mode
            && random.unit() < often
        {
            part += longer;
        }
        let mut whole = self.launch_ns[side] * self.launches as f64 * part * CLOCK_HZ / clock;
        if random.unit() < spikes {
            whole += 1e4 + 2e4 * random.unit();
        }
        if quantum_ns > 0.0 {
            whole = (whole / quantum_ns).round() * quantum_ns;
        }
        // Two readings of the clocks, a thousandth apart from the truth.
        let measured = clock * (1.0 + 1e-3 * (random.unit() - 0.5));
        self.elapsed += OVERHEAD + Duration::from_nanos(whole as u64);
        Ok(Some(Sample {
            time_ns: whole / self.launches as f64,
            sm_clock_hz: Some(measured),
        }))
    }

    fn launches(&self, _side: usize) -> usize {
        self.launches
    }

    fn pause(&mut self, time: Duration) {
        self.pauses.push(time);
        self.elapsed += time;
    }

    fn elapsed(&self) -> Duration {
        self.elapsed
    }
}
