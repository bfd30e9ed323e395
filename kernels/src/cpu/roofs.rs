use std::fs;
use std::time::Instant;

use super::{CpuBuffer, Op, Shared, Simd, level, parallel};
use crate::Cpu;

/// What this machine's processor and memory can do at best, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRoofs {
    /// Float32 operations of all threads, a multiply-add counting two.
    pub flops_per_s: f64,
    /// Read bandwidth of all threads together, the fastest level first.
    pub memory: Vec<MemoryLevel>,
}

/// The read bandwidth of one level of the memory hierarchy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryLevel {
    /// `L2`, `L3` or `DRAM`.
    pub name: &'static str,
    /// The capacity up to which this level serves a working set that all threads share out; `u64::MAX` for the last.
    pub working_set_bytes: u64,
    /// Bytes read per second.
    pub bytes_per_s: f64,
}

/// What becomes of the bytes of a working set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Each is read.
    Read,
    /// Each is read and written again, which counts twice.
    Update,
}

/// The best of this many: what else runs on the machine only ever makes a run slower.
const RUNS: usize = 5;
/// A run reads at least this much per thread, so that starting the threads does not count.
const LEAST_BYTES: usize = 16 << 20;
/// Multiply-adds of a run on each thread: 5 ms at 2 x 8 lanes and 3 GHz.
const STEPS: usize = 1 << 20;
/// Enough independent sums for 2 units of 4 cycles latency, with registers to spare.
const SUMS: usize = 12;

impl Cpu {
    /// Measures the roofs: float32 multiply-adds in registers, and reads from each level of the memory hierarchy, on all
    /// threads. Takes about 0.2 s. A level for which the machine grants no memory is left out.
    ///
    /// The working sets are half of each core's second-level cache, half of the third-level cache, and four times
    /// the latter but at least 128 MB. Where Linux does not tell the sizes, they count as 512 KiB and 16 MiB.
    pub fn measure_roofs(&self) -> HostRoofs {
        let threads = self.threads();
        let caches = Caches::read(threads);
        let l2 = caches.l2_bytes_per_core;
        let l3 = caches.l3_bytes;
        let levels = [
            ("L2", l2 / 2 * threads, (l2 * threads) as u64),
            ("L3", l3 / 2, l3 as u64),
            ("DRAM", (4 * l3).max(128 << 20), u64::MAX),
        ];
        self.run(|| HostRoofs {
            flops_per_s: flops_per_s(threads),
            memory: levels
                .into_iter()
                .filter_map(|(name, bytes, working_set_bytes)| {
                    Some(MemoryLevel {
                        name,
                        working_set_bytes,
                        bytes_per_s: bytes_per_s(threads, bytes, Traffic::Read)?,
                    })
                })
                .collect(),
        })
    }

    /// Float32 operations per second of multiply-adds in registers, on all threads. Takes 30 ms.
    pub fn measure_flops_per_s(&self) -> f64 {
        self.run(|| flops_per_s(self.threads()))
    }

    /// Bytes per second that all threads together move in a working set that they share out and go over again and again; none if
    /// the machine grants no memory for it. Takes 10 to 30 ms for what a cache holds.
    ///
    /// A set somewhat larger than a cache, read in order, has been thrown out of it by the time that its turn comes again, and is
    /// slower than a larger one; another order finds a part of it there. So the rate is that of the fastest set of this size, twice
    /// and four times of it: what a larger set gets, a smaller one can.
    pub fn measure_bytes_per_s(&self, working_set_bytes: usize, traffic: Traffic) -> Option<f64> {
        /// Larger ones lie in no cache of a core.
        const MOST: usize = 16 << 20;
        let threads = self.threads();
        let larger = [2, 4].map(|n| working_set_bytes.saturating_mul(n));
        let sets = larger.into_iter().filter(|&bytes| bytes <= MOST);
        let sets = std::iter::once(working_set_bytes).chain(sets);
        self.run(|| {
            let rates = sets.filter_map(|bytes| bytes_per_s(threads, bytes, traffic));
            rates.reduce(f64::max)
        })
    }
}

fn best_seconds(mut run: impl FnMut()) -> f64 {
    (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn flops_per_s(threads: usize) -> f64 {
    let level = level();
    let seconds = best_seconds(|| {
        parallel(threads, |_| {
            std::hint::black_box(level.run(MultiplyAdds));
        });
    });
    (threads * STEPS * SUMS * 8 * 2) as f64 / seconds
}

fn bytes_per_s(threads: usize, bytes: usize, traffic: Traffic) -> Option<f64> {
    let level = level();
    // A whole number of steps of `Read` and `Update`.
    let share = (bytes / threads / 4).max(1).next_multiple_of(SUMS * 8);
    let mut data = CpuBuffer::<f32>::zeroed("the bandwidth measurement", share * threads).ok()?;
    let parts = Shared::new(&mut data);
    // SAFETY: each task has its own share, and one of them at a time.
    let part = |i: usize| unsafe { parts.slice(i * share..(i + 1) * share) };
    // Pages that were never written are all the same page of zeroes, which a cache holds.
    parallel(threads, |i| part(i).fill(1.0));
    let passes = (LEAST_BYTES / (share * 4)).max(1);
    let seconds = best_seconds(|| {
        parallel(threads, |i| {
            for _ in 0..passes {
                match traffic {
                    Traffic::Read => {
                        std::hint::black_box(level.run(Read(part(i))));
                    }
                    Traffic::Update => level.run(Update(part(i))),
                }
            }
        });
    });
    let moved_per_byte = match traffic {
        Traffic::Read => 1,
        Traffic::Update => 2,
    };
    Some((moved_per_byte * passes * share * threads * 4) as f64 / seconds)
}

/// Multiply-adds that wait for nothing but the units.
struct MultiplyAdds;

impl Op for MultiplyAdds {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(1.0); SUMS];
        let (a, b) = (
            s.splat(std::hint::black_box(0.999)),
            s.splat(std::hint::black_box(1e-3)),
        );
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = s.fma(*sum, a, b);
            }
        }
        sums.into_iter().map(|v| s.sum(v)).sum()
    }
}

/// Reads of every byte, in order.
struct Read<'a>(&'a [f32]);

impl Op for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); SUMS];
        for step in self.0.chunks_exact(SUMS * 8) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the step holds 8 floats for each sum.
                *sum = s.add(*sum, unsafe { s.load(step.as_ptr().add(8 * i)) });
            }
        }
        sums.into_iter().map(|v| s.sum(v)).sum()
    }
}

/// Reads and writes of every byte, in order.
struct Update<'a>(&'a mut [f32]);

impl Op for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, b) = (s.splat(0.999), s.splat(1e-3));
        for step in self.0.chunks_exact_mut(8) {
            // SAFETY: the step holds 8 floats.
            unsafe {
                let x = s.load(step.as_ptr());
                s.store(step.as_mut_ptr(), s.fma(x, a, b));
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Caches {
    l2_bytes_per_core: usize,
    /// Of all the caches that `threads` threads have.
    l3_bytes: usize,
}

impl Caches {
    fn read(threads: usize) -> Caches {
        let mut caches = Caches {
            l2_bytes_per_core: 512 << 10,
            l3_bytes: 16 << 20,
        };
        for index in 0..8 {
            let read = |name: &str| {
                let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
                fs::read_to_string(path).unwrap_or_default()
            };
            let Some(bytes) = parse_size(&read("size")) else {
                continue;
            };
            let sharers = count_cpus(&read("shared_cpu_list")).max(1);
            match read("level").trim() {
                "2" => caches.l2_bytes_per_core = bytes / sharers,
                "3" => caches.l3_bytes = bytes * threads.div_ceil(sharers),
                _ => {}
            }
        }
        caches
    }
}

/// `512K`, `32M` or plain bytes.
fn parse_size(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix(['K', 'M']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) => (digits, 1 << 20),
        None => (text, 1),
    };
    digits
        .parse::<usize>()
        .ok()?
        .checked_mul(unit)
        .filter(|&n| n > 0)
}

/// How many numbers a list such as `0-3,8` holds.
fn count_cpus(list: &str) -> usize {
    list.trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
            Some(last.checked_sub(first)? + 1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roofs_are_ordered_and_quickly_measured() {
        let cpu = Cpu::new(None).unwrap();
        let roofs = cpu.measure_roofs();
        assert!(roofs.flops_per_s > 1e8, "{roofs:?}");
        let names: Vec<_> = roofs.memory.iter().map(|m| m.name).collect();
        assert_eq!(names, ["L2", "L3", "DRAM"]);
        assert!(
            roofs.memory.is_sorted_by_key(|m| m.working_set_bytes),
            "{roofs:?}"
        );
        assert_eq!(roofs.memory[2].working_set_bytes, u64::MAX);
        assert!(
            roofs.memory.iter().all(|m| m.bytes_per_s > 1e7),
            "{roofs:?}"
        );
    }

    #[test]
    fn every_working_set_has_a_rate() {
        let cpu = Cpu::new(Some(2)).unwrap();
        for traffic in [Traffic::Read, Traffic::Update] {
            for bytes in [0, 1, 100_000] {
                let rate = cpu.measure_bytes_per_s(bytes, traffic);
                assert!(
                    rate.is_some_and(|rate| rate > 1e7),
                    "{bytes} {traffic:?}: {rate:?}"
                );
            }
        }
    }

    #[test]
    fn sizes_and_lists_of_sysfs() {
        let check = |text, expected| assert_eq!(parse_size(text), expected, "{text}");
        check("512K\n", Some(512 << 10));
        check("32M", Some(32 << 20));
        check("4096", Some(4096));
        check("", None);
        check("K", None);
        check("0K", None);
        let check = |list, expected| assert_eq!(count_cpus(list), expected, "{list}");
        check("0\n", 1);
        check("0-3,8,10-11", 7);
        check("", 0);
    }
}
