//! The device's part of a sample: the blocking kernel, the readings of the clocks, the flush, the events, and the graphs of short
//! launches.

mod clocks;
mod hold;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use stepscope_device::driver::{DeviceBuffer, Event, Graph, GraphExec};
use stepscope_device::nvrtc::Program;
use stepscope_kernels::Backend as _;
use stepscope_kernels::cuda::Cuda;

use self::clocks::{Clocks, Reading};
use self::hold::Hold;
use super::collect::Source;
use super::plan::{Extent, Plan, copy_for, plans};
use super::{CacheState, L2, Sample, Settings, Subject};
use crate::Error;

/// Samples by which the time of a launch is estimated.
const ESTIMATES: usize = 5;
/// After so many samples in a row that the blocking kernel did not hold, it is done without.
const MOST_TIMEOUTS: u32 = 2;

/// The kernels around a launch that is timed.
pub(crate) fn program() -> Program {
    Program::new("measure.cu", include_str!("measure.cu"))
}

/// What measuring needs on the device. Made once, used by one measurement after another.
#[derive(Debug)]
pub(super) struct Rig {
    hold: Hold,
    clocks: Clocks,
    start: Event,
    end: Event,
    /// As large as the L2 cache; made when it is first flushed.
    flush: Option<DeviceBuffer<u8>>,
}

impl Rig {
    pub(super) fn new(cuda: &Cuda) -> Result<Rig, Error> {
        let (module, _) = cuda.load(&program())?;
        let mut rig = Rig {
            hold: Hold::new(cuda, &module)?,
            clocks: Clocks::new(cuda, &module)?,
            start: Event::with_time(cuda.context())?,
            end: Event::with_time(cuda.context())?,
            flush: None,
        };
        // A kernel that is launched for the first time may have to be loaded, which waits for the device: never behind a held stream.
        rig.clocks.read(cuda, Reading::Before)?;
        rig.clocks.read(cuda, Reading::After)?;
        drop(rig.hold.hold(cuda)?);
        cuda.synchronize()?;
        rig.clocks.clock_hz(cuda)?;
        Ok(rig)
    }

    /// Overwrites the L2 cache, and waits for it: a flush under way would take bandwidth from the launch.
    fn flush(&mut self, cuda: &Cuda) -> Result<(), Error> {
        let bytes = cuda.context().device().limits.l2_bytes as usize;
        let buffer = match &mut self.flush {
            Some(buffer) => buffer,
            None => self.flush.insert(DeviceBuffer::new(
                cuda.context(),
                "flushing the L2 cache",
                bytes,
            )?),
        };
        buffer.fill(cuda.stream(), 0)?;
        Ok(cuda.synchronize()?)
    }
}

/// Subjects on a device, ready to be sampled.
pub(super) struct Samples<'a, 'b> {
    cuda: &'a Cuda,
    rig: &'a mut Rig,
    subjects: &'a mut [&'b mut dyn Subject],
    plans: Vec<Plan>,
    /// Of short launches, by side.
    graphs: Vec<Option<GraphExec>>,
    /// Samples taken so far, by side.
    taken: Vec<usize>,
    timeouts: u32,
    is_held: bool,
    begin: Instant,
}

impl<'a, 'b> Samples<'a, 'b> {
    /// Estimates what a launch takes, and plans samples by it. Every copy of every subject was launched before.
    pub(super) fn new<const N: usize>(
        cuda: &'a Cuda,
        rig: &'a mut Rig,
        subjects: &'a mut [&'b mut dyn Subject; N],
        settings: &Settings,
    ) -> Result<Samples<'a, 'b>, Error> {
        let alone = Extent {
            copies: 1,
            bytes: 0,
            launch_ns: f64::MAX,
        };
        let by_itself = plans(L2::Warm, 0, [alone; N]).to_vec();
        let mut samples = Samples::planned(cuda, rig, subjects, by_itself)?;
        let mut extents = [alone; N];
        for (side, extent) in extents.iter_mut().enumerate() {
            *extent = samples.extent(side)?;
        }
        let l2_bytes = cuda.context().device().limits.l2_bytes;
        samples.plan(plans(settings.l2, l2_bytes, extents).to_vec())?;
        Ok(samples)
    }

    /// By plans that are made.
    fn planned(
        cuda: &'a Cuda,
        rig: &'a mut Rig,
        subjects: &'a mut [&'b mut dyn Subject],
        plans: Vec<Plan>,
    ) -> Result<Samples<'a, 'b>, Error> {
        let is_held = rig.hold.holds();
        let mut samples = Samples {
            cuda,
            rig,
            subjects,
            plans: Vec::new(),
            graphs: Vec::new(),
            taken: Vec::new(),
            timeouts: 0,
            is_held,
            begin: Instant::now(),
        };
        samples.plan(plans)?;
        Ok(samples)
    }

    /// Goes by `plans` from now on, one for each side.
    fn plan(&mut self, plans: Vec<Plan>) -> Result<(), Error> {
        let sides = plans.len();
        self.taken = vec![0; sides];
        self.plans = plans;
        self.graphs = (0..sides)
            .map(|side| match self.plans[side].is_graph() {
                true => self.record(side, sides).map(Some),
                false => Ok(None),
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn extent(&mut self, side: usize) -> Result<Extent, Error> {
        let mut times = Vec::new();
        for _ in 0..ESTIMATES {
            times.extend(self.sample(side)?.map(|sample| sample.time_ns));
        }
        let subject = &self.subjects[side];
        Ok(Extent {
            copies: subject.copies().max(1),
            bytes: subject.work().bytes,
            launch_ns: stepscope_profiler::stats::median(&times).unwrap_or(f64::MAX),
        })
    }

    /// A graph of a side's launches, over its copies in turn.
    fn record(&mut self, side: usize, sides: usize) -> Result<GraphExec, Error> {
        let plan = self.plans[side];
        let subject = &mut self.subjects[side];
        subject.restore()?;
        let copies = subject.copies().max(1);
        let mut failure = None;
        let graph = Graph::capture(self.cuda.stream(), || {
            let done = (0..plan.launches).try_for_each(|launch| {
                subject.launch(copy_for(&plan, launch, [side, sides], copies))
            });
            failure = done.err();
            Ok(())
        });
        if let Some(error) = failure {
            return Err(error);
        }
        let exec = graph?.instantiate()?;
        exec.upload(self.cuda.stream())?;
        // The first replay may still set things up; it also fills the cache where it is to be warm.
        // SAFETY: as in `sample`.
        unsafe { exec.launch(self.cuda.stream())? };
        self.cuda.synchronize()?;
        Ok(exec)
    }

    /// What the L2 cache holds.
    pub(super) fn l2(&self, side: usize) -> CacheState {
        self.plans[side].l2
    }

    /// Whether no cost of launching is in the times.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Puts a sample into the stream. Nothing in here may wait for the device.
    fn queue(&mut self, side: usize) -> Result<(), Error> {
        let (cuda, plan) = (self.cuda, self.plans[side]);
        let stream = cuda.stream();
        let subject = &mut self.subjects[side];
        let copies = subject.copies().max(1);
        let copy = copy_for(&plan, self.taken[side], [side, self.plans.len()], copies);
        let Rig {
            hold,
            clocks,
            start,
            end,
            ..
        } = &mut *self.rig;
        let held = match self.is_held || !hold.holds() {
            true => Some(hold.hold(cuda)?),
            false => None,
        };
        clocks.read(cuda, Reading::Before)?;
        if plan.l2 == CacheState::Warm && !plan.is_graph() {
            subject.launch(copy)?;
        }
        start.record(stream)?;
        match &self.graphs[side] {
            // SAFETY: a subject keeps what it launches with where it is as long as it lives, which is its contract, and it is
            // borrowed; everything else that uses that memory is in this stream, in order.
            Some(graph) => unsafe { graph.launch(stream)? },
            None => subject.launch(copy)?,
        }
        end.record(stream)?;
        clocks.read(cuda, Reading::After)?;
        drop(held);
        Ok(())
    }
}

impl Source for Samples<'_, '_> {
    fn sample(&mut self, side: usize) -> Result<Option<Sample>, Error> {
        self.subjects[side].restore()?;
        if self.plans[side].l2 == CacheState::Flushed {
            self.rig.flush(self.cuda)?;
        }
        let queued = self.queue(side);
        self.taken[side] += 1;
        // Also where it failed: what was queued uses the subject's memory.
        self.cuda.synchronize()?;
        queued?;
        let sm_clock_hz = self.rig.clocks.clock_hz(self.cuda)?;
        if self.is_held && self.rig.hold.timed_out() {
            self.timeouts += 1;
            self.is_held = self.timeouts < MOST_TIMEOUTS;
            return Ok(None);
        }
        self.timeouts = 0;
        let time_ns = 1e6 * self.rig.end.elapsed_ms(&self.rig.start)?;
        Ok(Some(Sample {
            time_ns: time_ns / self.plans[side].launches as f64,
            sm_clock_hz,
        }))
    }

    fn launches(&self, side: usize) -> usize {
        self.plans[side].launches
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}
