//! The state of a GPU during a run: sampled in the background, summarised for the record.
//!
//! A [`Sampler`] reads clocks, power, temperature, throttling and other processes some ten times a second, from a thread of its own;
//! [`summarise`] makes a [`GpuWatch`] of the samples, a pure function. Nothing of the GPU's settings is changed.
//!
//! Energy is stated for windows of at least [`SHORTEST_ENERGY_WINDOW_S`]: the sensors of data-centre GPUs look at a quarter of the
//! time (arXiv 2312.02741), and their power is an average over a second.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stepscope_device::nvml::{GpuSample, throttle_names};

/// Samples per second are the inverse of this.
pub const PERIOD: Duration = Duration::from_millis(75);

/// Seconds that a window must have for its energy to be stated.
pub const SHORTEST_ENERGY_WINDOW_S: f64 = 2.0;

/// A GPU counts as loaded from this utilisation on, percent.
const LOADED_PERCENT: u32 = 50;

/// Least, median and greatest of the samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Range {
    pub min: u32,
    pub median: u32,
    pub max: u32,
}

/// The state of a GPU over a window of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuWatch {
    /// Samples taken.
    pub samples: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// The clock of the multiprocessors.
    pub sm_clock_mhz: Option<Range>,
    /// The same, of those samples in which the GPU was loaded.
    pub loaded_sm_clock_mhz: Option<Range>,
    /// The clock of the memory.
    pub memory_clock_mhz: Option<Range>,
    /// Power drawn, milliwatts.
    pub power_milliwatts: Option<Range>,
    /// The temperature of the chip.
    pub temperature_celsius: Option<Range>,
    /// The most memory that was in use, by whomever.
    pub used_memory_bytes: Option<u64>,
    /// All throttle bits that any sample had, as NVML gives them.
    pub throttle_bits: Option<u64>,
    /// The same in words, without idling.
    pub throttled_by: Vec<String>,
    /// The most other processes that computed on it at once.
    pub other_processes: Option<u32>,
    /// Energy from the first to the last sample, joules.
    pub energy_j: Option<f64>,
    /// Why there is no energy.
    pub no_energy: Option<String>,
    /// Means of what GPM measured, percent: multiprocessors, tensor cores, bandwidth of device memory. Of GPUs since Hopper.
    pub gpm_percent: Option<[f64; 3]>,
}

/// A sample, and when it was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Since the sampler started.
    pub at: Duration,
    /// The state.
    pub sample: GpuSample,
}

/// What gives samples. One that fails gives samples without values.
pub type Source = Box<dyn FnMut() -> GpuSample + Send>;

/// Samples a GPU in the background until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    taken: Arc<Mutex<Vec<Taken>>>,
    started: Instant,
    /// Dropping it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts sampling, every `period`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(mut source: Source, period: Duration) -> std::io::Result<Sampler> {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let started = Instant::now();
        let (stop, stopped) = mpsc::channel::<()>();
        let into = Arc::clone(&taken);
        let thread = std::thread::Builder::new()
            .name("gpu-watch".to_owned())
            .spawn(move || {
                loop {
                    let sample = source();
                    let at = started.elapsed();
                    into.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Taken { at, sample });
                    match stopped.recv_timeout(period) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
        Ok(Sampler {
            taken,
            started,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Now, for [`Sampler::since`].
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The state from `from` until now.
    pub fn since(&self, from: Duration) -> GpuWatch {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let first = taken.partition_point(|t| t.at < from);
        summarise(&taken[first..])
    }

    /// Ends the sampling; the state over all of it.
    pub fn finish(mut self) -> GpuWatch {
        self.end();
        self.since(Duration::ZERO)
    }

    fn end(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A source that panicked has left its samples; there will be no more.
            let _ = thread.join();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}

/// The state over the time of `samples`, which are in order.
pub fn summarise(samples: &[Taken]) -> GpuWatch {
    let of = |value: fn(&GpuSample) -> Option<u32>| {
        range(samples.iter().filter_map(|t| value(&t.sample)).collect())
    };
    let is_loaded = |t: &&Taken| {
        let percent = t.sample.utilization_percent;
        percent.is_some_and(|percent| percent >= LOADED_PERCENT)
    };
    let loaded = samples.iter().filter(is_loaded);
    let loaded_clocks = loaded.filter_map(|t| t.sample.sm_clock_mhz).collect();
    let throttle_bits = samples
        .iter()
        .filter_map(|t| t.sample.throttle_bits)
        .reduce(|all, bits| all | bits);
    let seconds = match samples {
        [first, .., last] => (last.at - first.at).as_secs_f64(),
        _ => 0.0,
    };
    let energy = energy_j(samples, seconds);
    GpuWatch {
        samples: samples.len() as u64,
        seconds,
        sm_clock_mhz: of(|s| s.sm_clock_mhz),
        loaded_sm_clock_mhz: range(loaded_clocks),
        memory_clock_mhz: of(|s| s.memory_clock_mhz),
        power_milliwatts: of(|s| s.power_milliwatts),
        temperature_celsius: of(|s| s.temperature_celsius),
        used_memory_bytes: samples
            .iter()
            .filter_map(|t| t.sample.used_memory_bytes)
            .max(),
        throttle_bits,
        throttled_by: throttle_bits.map(throttle_names).unwrap_or_default(),
        other_processes: samples
            .iter()
            .filter_map(|t| t.sample.other_processes)
            .max(),
        energy_j: energy.as_ref().ok().copied(),
        no_energy: energy.err(),
        gpm_percent: gpm_means(samples),
    }
}

fn energy_j(samples: &[Taken], seconds: f64) -> Result<f64, String> {
    let [first, .., last] = samples else {
        return Err("fewer than two samples were taken".to_owned());
    };
    let ends = first
        .sample
        .energy_millijoules
        .zip(last.sample.energy_millijoules);
    let Some((before, after)) = ends else {
        return Err("NVML does not tell this GPU's energy".to_owned());
    };
    if seconds < SHORTEST_ENERGY_WINDOW_S {
        return Err(format!(
            "a window of {seconds:.2} s is too short for the power sensor: it takes {SHORTEST_ENERGY_WINDOW_S} s"
        ));
    }
    match after.checked_sub(before) {
        Some(millijoules) => Ok(millijoules as f64 / 1e3),
        None => Err("the energy counter was set back meanwhile".to_owned()),
    }
}

fn gpm_means(samples: &[Taken]) -> Option<[f64; 3]> {
    // The first of a window measured time before it.
    let measured: Vec<_> = samples
        .iter()
        .skip(1)
        .filter_map(|t| t.sample.gpm)
        .collect();
    let count = measured.len() as f64;
    let mean = |value: fn(&stepscope_device::nvml::Gpm) -> f64| {
        measured.iter().map(value).sum::<f64>() / count
    };
    (!measured.is_empty()).then(|| {
        [
            mean(|g| g.sm_percent),
            mean(|g| g.tensor_percent),
            mean(|g| g.dram_percent),
        ]
    })
}

fn range(mut values: Vec<u32>) -> Option<Range> {
    values.sort_unstable();
    Some(Range {
        min: *values.first()?,
        median: values[values.len() / 2],
        max: *values.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(milliseconds: u64, sample: GpuSample) -> Taken {
        Taken {
            at: Duration::from_millis(milliseconds),
            sample,
        }
    }

    fn state(clock: u32, utilization: u32, energy: u64) -> GpuSample {
        GpuSample {
            sm_clock_mhz: Some(clock),
            utilization_percent: Some(utilization),
            energy_millijoules: Some(energy),
            throttle_bits: Some(if utilization == 0 { 1 } else { 4 }),
            other_processes: Some(u32::from(utilization == 99)),
            ..GpuSample::default()
        }
    }

    #[test]
    fn clocks_under_load_are_told_apart_from_idle_ones() {
        let watch = summarise(&[
            taken(0, state(345, 0, 1000)),
            taken(1000, state(1980, 97, 301_000)),
            taken(2000, state(1950, 98, 601_000)),
            taken(3000, state(1965, 99, 901_000)),
        ]);
        let clocks = watch.loaded_sm_clock_mhz.unwrap();
        assert_eq!((clocks.min, clocks.median, clocks.max), (1950, 1965, 1980));
        assert_eq!(watch.sm_clock_mhz.unwrap().min, 345);
        assert_eq!(watch.throttle_bits, Some(5));
        assert_eq!(watch.throttled_by, ["sw power cap"]);
        assert_eq!(watch.other_processes, Some(1));
        assert_eq!((watch.energy_j, watch.no_energy), (Some(900.0), None));
    }

    #[test]
    fn energy_is_not_stated_where_the_sensor_cannot_carry_it() {
        let check = |samples: &[Taken], reason: &str| {
            let watch = summarise(samples);
            assert_eq!(watch.energy_j, None);
            let why = watch.no_energy.unwrap();
            assert!(why.contains(reason), "{why}");
        };
        let (early, late) = (taken(0, state(1, 99, 5)), taken(1999, state(1, 99, 9)));
        check(&[], "fewer than two");
        check(std::slice::from_ref(&early), "fewer than two");
        check(&[early.clone(), late], "2.00 s is too short");
        check(
            &[early.clone(), taken(2000, GpuSample::default())],
            "does not tell",
        );
        check(&[early, taken(2000, state(1, 99, 4))], "set back");
    }

    #[test]
    fn a_gpu_that_tells_nothing_has_no_values() {
        let watch = summarise(&[taken(0, GpuSample::default())]);
        assert_eq!(watch.samples, 1);
        assert_eq!(watch.sm_clock_mhz, None);
        assert_eq!(watch.throttle_bits, None);
        assert!(watch.throttled_by.is_empty());
    }

    #[test]
    fn sampling_goes_on_in_the_background_until_it_is_ended() {
        let (sent, received) = mpsc::channel();
        let mut clock = 0;
        let source = Box::new(move || {
            clock += 1;
            let _ = sent.send(clock);
            state(clock, 99, 0)
        });
        let sampler = Sampler::start(source, Duration::from_millis(1)).unwrap();
        while received.recv().unwrap() < 3 {}
        let from = sampler.now();
        while received.recv().unwrap() < 6 {}
        assert!(sampler.since(from).sm_clock_mhz.is_none_or(|c| c.min >= 3));
        let watch = sampler.finish();
        assert!(watch.samples >= 5);
        assert_eq!(watch.sm_clock_mhz.unwrap().min, 1);
        // The thread is gone: it holds the sender.
        while received.recv().is_ok() {}
    }

    #[test]
    fn a_source_that_panics_ends_nothing_but_itself() {
        let source = Box::new(|| panic!("the driver went away"));
        let sampler = Sampler::start(source, Duration::from_millis(1)).unwrap();
        assert_eq!(sampler.finish().samples, 0);
    }
}
