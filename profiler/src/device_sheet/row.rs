//! One thing that was measured.

use serde::{Deserialize, Serialize};

use super::{Bound, Expected, TOLERANCE};
use crate::{quantity, stats};

/// What a row belongs to, in the order in which it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Bandwidth of device memory and of L2.
    Memory,
    /// Bandwidth of shared memory.
    Shared,
    /// Latencies by pointer chase.
    Latency,
    /// Tensor cores.
    Tensor,
    /// Other units: floating point, integers, special functions.
    Arithmetic,
    /// Atomic additions.
    Atomics,
    /// Launches, by path.
    Launch,
    /// Resolution of events and of the GPU's timer.
    Timers,
    /// Copies between host and device, and between devices.
    Transfer,
    /// Energy.
    Energy,
}

impl Group {
    /// All of them, in order.
    pub const ALL: [Group; 10] = [
        Group::Memory,
        Group::Shared,
        Group::Latency,
        Group::Tensor,
        Group::Arithmetic,
        Group::Atomics,
        Group::Launch,
        Group::Timers,
        Group::Transfer,
        Group::Energy,
    ];

    /// As documents and options name it.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Memory => "memory",
            Group::Shared => "shared",
            Group::Latency => "latency",
            Group::Tensor => "tensor",
            Group::Arithmetic => "arithmetic",
            Group::Atomics => "atomics",
            Group::Launch => "launch",
            Group::Timers => "timers",
            Group::Transfer => "transfer",
            Group::Energy => "energy",
        }
    }

    /// As headings name it.
    pub const fn title(self) -> &'static str {
        match self {
            Group::Memory => "Device memory and L2 cache",
            Group::Shared => "Shared memory",
            Group::Latency => "Latencies",
            Group::Tensor => "Tensor cores",
            Group::Arithmetic => "Other arithmetic",
            Group::Atomics => "Atomic additions in L2",
            Group::Launch => "Launches",
            Group::Timers => "Timers",
            Group::Transfer => "Copies to and from the host, and between devices",
            Group::Energy => "Power",
        }
    }
}

/// What a value is in. Values are in the unit itself: B/s, not GB/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Unit {
    #[serde(rename = "B/s")]
    BytesPerSecond,
    #[serde(rename = "FLOP/s")]
    FlopPerSecond,
    #[serde(rename = "op/s")]
    OperationsPerSecond,
    /// Of one multiprocessor.
    #[serde(rename = "B/clk/SM")]
    BytesPerClock,
    /// Of one multiprocessor.
    #[serde(rename = "FLOP/clk/SM")]
    FlopPerClock,
    /// Of one multiprocessor.
    #[serde(rename = "op/clk/SM")]
    OperationsPerClock,
    #[serde(rename = "cycles")]
    Cycles,
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "W")]
    Watts,
}

impl Unit {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::BytesPerSecond => "B/s",
            Unit::FlopPerSecond => "FLOP/s",
            Unit::OperationsPerSecond => "op/s",
            Unit::BytesPerClock => "B/clk/SM",
            Unit::FlopPerClock => "FLOP/clk/SM",
            Unit::OperationsPerClock => "op/clk/SM",
            Unit::Cycles => "cycles",
            Unit::Nanoseconds => "ns",
            Unit::Watts => "W",
        }
    }

    /// Whether less is better.
    pub const fn is_cost(self) -> bool {
        matches!(self, Unit::Cycles | Unit::Nanoseconds | Unit::Watts)
    }

    /// A prefix for numbers of this size, and what to divide them by.
    pub(crate) fn prefixed(self, value: f64) -> (String, f64) {
        let has_prefix = matches!(
            self,
            Unit::BytesPerSecond | Unit::FlopPerSecond | Unit::OperationsPerSecond
        );
        let prefixes = [("T", 1e12), ("G", 1e9), ("M", 1e6)];
        match self {
            Unit::Nanoseconds if value >= 999.5 => ("µs".to_owned(), 1e3),
            _ if has_prefix => {
                let found = prefixes.iter().find(|(_, size)| value >= 0.9995 * size);
                let (prefix, divisor) = found.copied().unwrap_or(("", 1.0));
                (format!("{prefix}{}", self.name()), divisor)
            }
            _ => (self.name().to_owned(), 1.0),
        }
    }

    /// A value with its unit, as people read it.
    pub fn shown(self, value: f64) -> String {
        let (unit, divisor) = self.prefixed(value);
        format!("{} {unit}", quantity::significant(value / divisor, 4))
    }
}

/// What took the time that a value rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowTimer {
    /// CUDA events around a launch.
    Event,
    /// The multiprocessor's counter of cycles, in the kernel.
    Clock64,
    /// The GPU's timer, in the kernel.
    Globaltimer,
    /// The host's monotonic clock.
    Wall,
    /// The counter of energy of NVML, over the host's clock.
    Nvml,
    /// None: an emulated device has no time, and what was skipped neither.
    None,
}

impl RowTimer {
    /// As documents name it.
    pub const fn name(self) -> &'static str {
        match self {
            RowTimer::Event => "event",
            RowTimer::Clock64 => "clock64",
            RowTimer::Globaltimer => "globaltimer",
            RowTimer::Wall => "wall",
            RowTimer::Nvml => "nvml",
            RowTimer::None => "none",
        }
    }
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// In the row's unit.
    pub value: f64,
    /// The clock of the multiprocessors meanwhile, Hz, where it was measured.
    pub sm_clock_hz: Option<f64>,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has a value.
    Measured,
    /// It ran on an emulated device, and its result and counts are right.
    NoTime,
    /// It was left out: `note` says why.
    Skipped,
    /// Its result or its counts are wrong: `note` says by what.
    Wrong,
    /// The device or the driver refused: `note` says what.
    Failed,
}

/// What the emulated device counts of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Launches of kernels.
    Launches,
    /// Bytes of all sectors that accesses to global memory load.
    LoadedBytes,
    /// Bytes of all sectors that accesses to global memory store.
    StoredBytes,
    /// Bytes that are read from global memory, each sector once.
    ReadSetBytes,
    /// Bytes that are written to global memory, each sector once.
    WrittenSetBytes,
    /// Accesses to global memory that load, by warps.
    GlobalLoads,
    /// Accesses to shared memory that load, by warps.
    SharedLoads,
    /// Times 128 bytes of shared memory are accessed.
    SharedWavefronts,
    /// Times more than that because of bank conflicts.
    BankConflicts,
    /// Matrix instructions, by warps.
    TensorInstructions,
    /// FLOPs of matrix instructions.
    TensorFlops,
    /// Integer operations of matrix instructions.
    TensorIntegerOperations,
    /// FLOPs in float32 of other instructions; a multiply-add is two.
    F32Flops,
    /// Integer instructions of PTX, by threads.
    IntegerInstructions,
    /// Atomic operations on global memory, by threads.
    Atomics,
    /// Accesses to local memory: what did not fit into registers.
    LocalAccesses,
}

/// How much of a quantity a probe claims to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Of what.
    pub quantity: Quantity,
    /// How much, exactly.
    pub claimed: u64,
    /// What an emulated device counted.
    pub counted: Option<u64>,
}

/// One thing that was measured, or one point of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it belongs to.
    pub group: Group,
    /// Its name; points of a curve share one.
    pub name: String,
    /// In words.
    pub title: String,
    /// Where on a curve: bytes of the working set.
    pub at: Option<f64>,
    /// What the probe does, and in which regime its value holds.
    pub claim: String,
    /// What its value is in.
    pub unit: Unit,
    /// What took its time.
    pub timer: RowTimer,
    /// What became of it.
    pub status: Status,
    /// Why it has no value, or what else there is to know.
    pub note: Option<String>,
    /// The median of the samples.
    pub value: Option<f64>,
    /// Their first and third quartile.
    pub quartiles: Option<[f64; 2]>,
    /// All samples that count.
    pub samples: Vec<Sample>,
    /// Those taken while the clock was held down, which do not count.
    pub set_aside: Vec<Sample>,
    /// What it claims to do, with what an emulated device counted.
    pub claims: Vec<Claim>,
    /// What is expected of this GPU.
    pub expected: Option<Expected>,
    /// Value by expectation.
    pub ratio: Option<f64>,
}

impl Row {
    /// A row without a value.
    pub fn new(name: &str, title: &str) -> Row {
        Row {
            group: Group::Memory,
            name: name.to_owned(),
            title: title.to_owned(),
            at: None,
            claim: String::new(),
            unit: Unit::BytesPerSecond,
            timer: RowTimer::None,
            status: Status::Skipped,
            note: None,
            value: None,
            quartiles: None,
            samples: Vec::new(),
            set_aside: Vec::new(),
            claims: Vec::new(),
            expected: None,
            ratio: None,
        }
    }

    /// The row with these samples; it stays without a value if there are none.
    pub fn measured(mut self, samples: Vec<Sample>, set_aside: Vec<Sample>) -> Row {
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        self.value = stats::median(&values);
        let quartile = |percent| stats::percentile(&values, percent);
        self.quartiles = quartile(25.0).zip(quartile(75.0)).map(<[f64; 2]>::from);
        if self.value.is_some() {
            self.status = Status::Measured;
        } else {
            self.status = Status::Failed;
            self.note = Some(format!(
                "no sample counts: {} were taken while the clock was held down",
                set_aside.len()
            ));
        }
        self.samples = samples;
        self.set_aside = set_aside;
        self
    }

    /// The row beside what is expected.
    pub fn held_against(mut self, expected: Option<Expected>) -> Row {
        self.ratio = self
            .value
            .zip(expected.as_ref())
            .map(|(value, expected)| value / expected.value);
        self.expected = expected;
        self
    }

    /// Whether its value is farther from what is expected than [`TOLERANCE`] allows.
    pub fn is_far(&self) -> bool {
        let (Some(ratio), Some(expected)) = (self.ratio, &self.expected) else {
            return false;
        };
        match expected.bound {
            Bound::About => !(1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio),
            Bound::AtMost => ratio > 1.0 + TOLERANCE,
        }
    }

    /// The clock of the multiprocessors meanwhile, MHz: the median of the samples that know it.
    pub fn clock_mhz(&self) -> Option<f64> {
        let clocks: Vec<f64> = self.samples.iter().filter_map(|s| s.sm_clock_hz).collect();
        stats::median(&clocks).map(|hz| hz / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> Row {
        let sample = |&value: &f64| Sample {
            value,
            sm_clock_hz: Some(2e9),
        };
        Row::new("a", "a").measured(values.iter().map(sample).collect(), Vec::new())
    }

    #[track_caller]
    fn check(value: f64, expected: f64, bound: Bound, is_far: bool) {
        let expected = Expected {
            value: expected,
            bound,
            source: "a test".to_owned(),
        };
        assert_eq!(row(&[value]).held_against(Some(expected)).is_far(), is_far);
    }

    #[test]
    fn values_are_medians() {
        let row = row(&[3.0, 1.0, 2.0, 10.0, 2.0]);
        assert_eq!(row.value, Some(2.0));
        assert_eq!(row.quartiles, Some([2.0, 3.0]));
        assert_eq!(row.clock_mhz(), Some(2000.0));
        assert_eq!(row.status, Status::Measured);
    }

    #[test]
    fn a_row_without_samples_has_failed() {
        let row = row(&[]);
        assert_eq!((row.value, row.status), (None, Status::Failed));
        assert!(row.note.is_some());
    }

    #[test]
    fn what_is_far_is_far_by_the_kind_of_expectation() {
        check(1.1, 1.0, Bound::About, false);
        check(1.2, 1.0, Bound::About, true);
        check(0.8, 1.0, Bound::About, true);
        check(0.8, 1.0, Bound::AtMost, false);
        check(1.2, 1.0, Bound::AtMost, true);
        assert!(!row(&[1.0]).held_against(None).is_far());
    }

    #[test]
    fn values_are_shown_with_a_prefix_that_fits() {
        assert_eq!(Unit::BytesPerSecond.shown(3.216e12), "3.216 TB/s");
        assert_eq!(Unit::BytesPerSecond.shown(26.3e9), "26.30 GB/s");
        assert_eq!(Unit::FlopPerSecond.shown(989.4e12), "989.4 TFLOP/s");
        assert_eq!(Unit::Cycles.shown(263.0), "263.0 cycles");
        assert_eq!(Unit::Nanoseconds.shown(2100.0), "2.100 µs");
        assert_eq!(Unit::FlopPerClock.shown(4096.0), "4096 FLOP/clk/SM");
    }
}
