//! Group `memory` on a GPU, and what all groups on a GPU share: times from the measuring loop, handed to criterion one by one.

use std::collections::VecDeque;
use std::rc::Rc;

use stepscope_device::driver::DeviceBuffer;
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::Timer;
use stepscope_profiler::microbench::{CacheState, Series};

use super::arguments::Mode;
use super::roofs::{Bound, Roofs};
use super::suite::{Case, Device, Rate, Suite, TIMER};
use crate::measure::{Bench, Measured, Settings, Subject};
use crate::{Error, Work};

/// Launches that are timed at once, at least: the results are checked each time.
pub(super) const CHUNK: u64 = 64;

/// What was measured of ours and of a peer, in turn, and not handed to criterion yet.
#[derive(Default)]
pub(super) struct Taken {
    times: VecDeque<f64>,
    /// Every sample so far.
    pub(super) all: Option<Series>,
}

impl Taken {
    pub(super) fn add(&mut self, measured: Measured) {
        let Measured::Timed(series) = measured else {
            return;
        };
        self.times.extend(series.times_ns());
        match &mut self.all {
            Some(all) => {
                all.samples.extend(series.samples);
                all.set_aside.extend(series.set_aside);
            }
            // One measurement is followed by another until criterion has enough: why each ended says nothing.
            none => {
                *none = Some(Series {
                    stopped: None,
                    ..series
                });
            }
        }
    }

    /// What bounds `work` that was measured like this, where its data were in a cache.
    pub(super) fn bound(&self, roofs: &Roofs, work: Work) -> Option<Bound> {
        let is_warm = self.all.as_ref()?.l2 == Some(CacheState::Warm);
        is_warm.then(|| roofs.of(work)).flatten()
    }

    /// The sum of the next `n` times; none while there are fewer.
    pub(super) fn next(&mut self, n: u64) -> Option<f64> {
        let n = n as usize;
        (self.times.len() >= n).then(|| self.times.drain(..n).sum())
    }
}

/// Of this many samples at least.
pub(super) fn settings(n: u64) -> Settings {
    Settings {
        most_samples: n.max(CHUNK) as usize,
        ..Settings::default()
    }
}

pub(super) fn run(suite: &mut Suite) -> Result<(), Error> {
    let names = memory_cases(suite.is_test(), &Roofs::default());
    if suite.mode() == Mode::List {
        for case in &names {
            suite.on_device(case, &mut |_, _| Ok(0.0));
        }
        return Ok(());
    }
    suite.skip_without_device("memory", &names);
    if !suite.wants_any(&names) {
        return Ok(());
    }
    let (Device::Gpu(cuda) | Device::Emulated(cuda)) = suite.device().clone() else {
        return Ok(());
    };
    let roofs = suite.gpu_roofs(&cuda);
    memory(suite, &cuda, &roofs);
    Ok(())
}

const MIB: usize = 1 << 20;

fn sizes(is_test: bool) -> &'static [usize] {
    if is_test {
        &[MIB / 16]
    } else {
        &[16 * MIB, 256 * MIB, 1024 * MIB]
    }
}

fn memory_case(what: &str, bytes: usize, moved: usize, roofs: &Roofs) -> Case {
    let work = Work {
        flops: 0,
        bytes: moved as u64,
    };
    Case {
        group: "memory",
        function: format!("cuda {what}"),
        shape: match bytes / MIB {
            0 => format!("{} KiB", bytes >> 10),
            mib => format!("{mib} MiB"),
        },
        operation: "memory",
        dtype: "u8",
        rate: Rate::Work(work),
        bound: roofs.of_cold(),
    }
}

fn memory_cases(is_test: bool, roofs: &Roofs) -> Vec<Case> {
    let of = |&bytes: &usize| {
        [
            memory_case("copy", bytes, 2 * bytes, roofs),
            memory_case("fill", bytes, bytes, roofs),
        ]
    };
    sizes(is_test).iter().flat_map(of).collect()
}

/// What the driver's own copies and fills reach.
fn memory(suite: &mut Suite, cuda: &Rc<Cuda>, roofs: &Roofs) {
    for &bytes in sizes(suite.is_test()) {
        for (what, moved) in [("copy", 2 * bytes), ("fill", bytes)] {
            let case = memory_case(what, bytes, moved, roofs);
            let mut taken = Taken::default();
            let mut subject = None;
            let mut bound = None;
            suite.on_device(&case, &mut |watch, n| {
                let bench = Bench::new(cuda)?;
                if subject.is_none() {
                    subject = Some(Transfer::new(cuda, bytes, what == "copy")?);
                }
                let Some(subject) = &mut subject else {
                    return Err(Error::Unusable("nothing was made".to_owned()));
                };
                if watch.timer() == Timer::Cupti {
                    // They are no kernels.
                    return Err(Error::Unusable(format!(
                        "CUPTI's records of kernels do not hold a {what}; leave {} unset",
                        TIMER
                    )));
                }
                loop {
                    if let Some(time) = taken.next(n) {
                        bound = taken.bound(roofs, case.work());
                        watch.bound_by(bound.as_ref());
                        return Ok(time);
                    }
                    let measured = bench.measure(subject, &settings(n))?;
                    if measured.series().is_none() {
                        return Ok(0.0);
                    }
                    taken.add(measured);
                }
            });
            suite.amend(&case, |row| {
                if taken.all.is_some() {
                    row.series = taken.all;
                }
                if let Some(bound) = bound {
                    row.roof = Some(bound.roof);
                }
            });
        }
    }
}

/// A copy, or a fill, by the driver.
struct Transfer {
    cuda: Rc<Cuda>,
    from: Option<DeviceBuffer<u8>>,
    to: DeviceBuffer<u8>,
}

impl Transfer {
    const VALUE: u8 = 0x3f;

    fn new(cuda: &Rc<Cuda>, bytes: usize, copies: bool) -> Result<Transfer, Error> {
        let buffer = |what, value| -> Result<_, Error> {
            let mut buffer = DeviceBuffer::new(cuda.context(), what, bytes)?;
            buffer.fill(cuda.stream(), value)?;
            Ok(buffer)
        };
        Ok(Transfer {
            from: copies
                .then(|| buffer("a copy's source", Transfer::VALUE))
                .transpose()?,
            to: buffer("a target", 0)?,
            cuda: Rc::clone(cuda),
        })
    }
}

impl Subject for Transfer {
    fn launch(&mut self, _copy: usize) -> Result<(), Error> {
        let stream = self.cuda.stream();
        match &self.from {
            Some(from) => self.to.copy_from(stream, 0, from, 0..from.len())?,
            None => self.to.fill(stream, Transfer::VALUE)?,
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        let mut bytes = vec![0; self.to.len()];
        self.to.read(self.cuda.stream(), 0, &mut bytes)?;
        match bytes.iter().position(|&byte| byte != Transfer::VALUE) {
            None => Ok(()),
            Some(at) => Err(Error::Wrong(format!(
                "byte {at} of the target is {}",
                bytes[at]
            ))),
        }
    }

    fn work(&self) -> Work {
        let bytes = self.to.len() as u64;
        let moved = if self.from.is_some() {
            2 * bytes
        } else {
            bytes
        };
        Work {
            flops: 0,
            bytes: moved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::roofs::tests::of_h100;
    use super::*;

    #[test]
    fn only_what_was_in_the_cache_is_held_against_it() {
        let mut taken = Taken::default();
        let work = Work { flops: 1, bytes: 1 };
        assert_eq!(taken.bound(&of_h100(), work), None, "nothing was measured");
        let mut series = Series::new(Timer::Event, 1, Vec::new());
        series.l2 = Some(CacheState::Rotated);
        taken.add(Measured::Timed(series.clone()));
        assert_eq!(taken.bound(&of_h100(), work), None);
        series.l2 = Some(CacheState::Warm);
        let mut taken = Taken::default();
        taken.add(Measured::Timed(series));
        assert_eq!(taken.bound(&of_h100(), work), of_h100().of(work));
    }

    #[test]
    fn times_are_handed_over_once() {
        let mut taken = Taken::default();
        assert_eq!(taken.next(1), None);
        taken.times.extend([1.0, 2.0, 4.0, 8.0]);
        assert_eq!(taken.next(2), Some(3.0));
        assert_eq!(taken.next(3), None);
        assert_eq!(taken.next(2), Some(12.0));
    }
}
