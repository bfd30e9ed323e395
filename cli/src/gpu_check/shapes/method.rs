//! How a shape is measured: pure numbers.

use std::time::Duration;

use serde_json::{Value, json};
use stepscope_profiler::gpus::Gpu;
use stepscope_profiler::stats;

/// So many times the L2 cache do the inputs have that are taken in turn, as in FlashInfer's benchmarks: then none of them is still
/// there when its turn comes.
const L2_TIMES: u64 = 5;
/// The most copies of a shape's inputs.
const MOST_COPIES: usize = 1024;
/// The most launches of a graph, unless there are more copies.
const MOST_LAUNCHES: usize = 1024;
/// The least time of a replay: an event resolves half a microsecond, and the two around a replay cost a few.
const REPLAY: Duration = Duration::from_millis(1);
/// What the replays of a shape take together.
const MEASURING: Duration = Duration::from_millis(200);

/// Copies of inputs of `bytes` each, on a device with this cache and so much free memory, half of which may be used.
///
/// Inputs that are 5 times the cache by themselves are there once; smaller ones get a copy more than makes them as large.
pub(super) fn copies(bytes: u64, l2_bytes: u64, free_bytes: u64) -> usize {
    let wanted = L2_TIMES * l2_bytes;
    let copies = match bytes {
        0 => 1,
        bytes if bytes >= wanted => 1,
        bytes => wanted.div_ceil(bytes) + 1,
    };
    let fitting = (free_bytes / 2).checked_div(bytes).unwrap_or(1);
    copies.min(fitting).clamp(1, MOST_COPIES as u64) as usize
}

/// Launches of a graph: whole rounds over the copies, long enough to be timed, where one takes `launch_us`.
pub(super) fn launches(copies: usize, launch_us: f64) -> usize {
    let needed = (REPLAY.as_secs_f64() * 1e6 / launch_us.max(0.1)).ceil() as usize;
    needed.clamp(1, MOST_LAUNCHES).div_ceil(copies) * copies
}

/// How often each graph is replayed, where one replay of all takes `replay_us`.
pub(super) fn rounds(replay_us: f64) -> usize {
    ((MEASURING.as_secs_f64() * 1e6 / replay_us.max(1.0)) as usize).clamp(5, 30)
}

/// Times of one launch, µs: one for each replay, its time by the number of its launches.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Times {
    pub(super) samples: Vec<f64>,
}

impl Times {
    fn quartile(&self, percent: f64) -> Option<f64> {
        stats::percentile(&self.samples, percent)
    }

    pub(super) fn median(&self) -> Option<f64> {
        self.quartile(50.0)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "median": self.median(),
            "q1": self.quartile(25.0),
            "q3": self.quartile(75.0),
            "samples": self.samples,
        })
    }
}

/// The time below which no launch of this work can be by the data sheet of a GPU, µs.
pub(super) fn floor_us(gpu: &Gpu, flops: u64, bytes: u64) -> f64 {
    1e6 * (flops as f64 / gpu.flops_per_s).max(bytes as f64 / gpu.bytes_per_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn copies_outgrow_the_cache_and_fit_into_memory() {
        // 250 MiB of an H100's 50 MiB of cache.
        assert_eq!(copies(250 * MIB, 50 * MIB, 80_000 * MIB), 1);
        assert_eq!(copies(100 * MIB, 50 * MIB, 80_000 * MIB), 4);
        assert_eq!(copies(2 * MIB, 50 * MIB, 80_000 * MIB), 126);
        // Half of 16 MiB holds 4 of 2 MiB.
        assert_eq!(copies(2 * MIB, 50 * MIB, 16 * MIB), 4);
        assert_eq!(copies(2 * MIB, 50 * MIB, MIB), 1);
        assert_eq!(copies(1, 50 * MIB, 80_000 * MIB), 1024);
        assert_eq!(copies(0, 50 * MIB, 80_000 * MIB), 1);
        assert_eq!(copies(5, 0, 80_000 * MIB), 1);
    }

    #[test]
    fn a_graph_goes_over_all_copies_equally_often() {
        assert_eq!(launches(1, 400.0), 3);
        assert_eq!(launches(4, 400.0), 4);
        assert_eq!(launches(7, 10.0), 105);
        assert_eq!(launches(1, 5000.0), 1);
        assert_eq!(launches(1, 0.0), 1024);
        assert_eq!(launches(1023, 0.5), 2046);
    }

    #[test]
    fn slow_shapes_are_replayed_less() {
        assert_eq!(rounds(1000.0), 30);
        assert_eq!(rounds(10_000.0), 20);
        assert_eq!(rounds(1e6), 5);
    }

    #[test]
    fn a_median_has_its_quartiles() {
        let times = Times {
            samples: vec![4.0, 1.0, 3.0, 2.0, 5.0],
        };
        let json = times.to_json();
        assert_eq!([&json["q1"], &json["median"], &json["q3"]], [2.0, 3.0, 4.0]);
        let none = Times { samples: vec![] };
        assert_eq!(none.median(), None);
    }

    #[test]
    fn a_data_sheet_bounds_a_launch() {
        let h100 = stepscope_profiler::gpus::find("NVIDIA H100 80GB HBM3").unwrap();
        // 1 GB at 3350 GB/s; 989.4 GFLOP in a millisecond.
        assert!((floor_us(h100, 1, 1_000_000_000) - 298.5).abs() < 0.1);
        assert!((floor_us(h100, 989_400_000_000, 1) - 1000.0).abs() < 1e-6);
    }
}
