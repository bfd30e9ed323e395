//! What takes the times of a step.

use std::ops::Range;

use crate::activity::{self, DeviceActivity, Launched, OperationLaunches, Tracer};
use crate::record::{Operation, PhaseTime};
use crate::recorder::{Phase, Timer};

/// Times on a device's own clock. A mark is a point in the device's queue; times between marks can be asked for once the
/// device has passed them.
pub trait DeviceClock: std::fmt::Debug + Send {
    /// A step begins: marks made so far are not asked for again.
    fn restart(&mut self);
    /// Marks the point that the queue has come to; nothing where the device refuses.
    fn mark(&mut self) -> Option<usize>;
    /// Nanoseconds from one mark to a later one; nothing where the device does not tell.
    fn elapsed_ns(&self, from: usize, to: usize) -> Option<u64>;
}

/// The clock that a device's multiprocessors run at. Each reading is put into the device's queue.
pub trait CycleClock: std::fmt::Debug + Send {
    /// Reads it before a step.
    fn before(&mut self);
    /// Reads it behind the step; the clock between the two, in MHz, once the device has come so far. Nothing where the device does
    /// not tell.
    fn behind(&mut self) -> Option<f64>;
}

/// What takes the times of a step.
#[derive(Debug)]
pub enum Clock {
    /// The host's clock: every call returns when its work is done.
    Host,
    /// The host's clock alone, on a device whose calls return when the work is queued: phases and steps have times, operations
    /// have none.
    HostOfQueue,
    /// Phases by the host's clock, and those that run kernels, and operations, by the device's: calls return when the work is
    /// queued.
    Device(Box<dyn DeviceClock>),
    /// As `Device`, with times from records of the kernels, which nothing in the device's queue takes.
    Traced(Box<dyn Tracer>),
    /// Nothing: an emulated device has no time.
    Untimed,
}

impl Clock {
    /// What takes an operation's time.
    pub(crate) fn operation_timer(&self) -> Timer {
        match self {
            Clock::Host => Timer::Wall,
            Clock::Device(_) => Timer::Event,
            Clock::Traced(_) => Timer::Cupti,
            Clock::HostOfQueue | Clock::Untimed => Timer::None,
        }
    }
}

/// Points in the device's queue, of a step that a [`DeviceClock`] times.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub(crate) start: Option<usize>,
    /// The last one made.
    pub(crate) last: Option<usize>,
    /// Before and behind each stretch of a phase that runs kernels.
    pub(crate) phases: Vec<(Phase, Option<usize>, Option<usize>)>,
    /// Before and behind each operation.
    pub(crate) operations: Vec<(Option<usize>, Option<usize>)>,
}

impl Marks {
    /// The device's times, once it has passed all marks.
    pub(crate) fn read(
        &self,
        clock: &dyn DeviceClock,
        phases: &mut [PhaseTime],
        operations: &mut [Operation],
    ) {
        let between = |from: Option<usize>, to: Option<usize>| clock.elapsed_ns(from?, to?);
        for &(phase, before, behind) in &self.phases {
            add_gpu_time(phases, phase, between(before, behind));
        }
        for (operation, &(before, behind)) in operations.iter_mut().zip(&self.operations) {
            let start_ns = between(self.start, before);
            let time = start_ns.zip(between(before, behind));
            set_time(operation, time.map(|(start, duration)| [start, duration]));
        }
    }
}

/// What a [`Tracer`]'s records are held against.
#[derive(Debug, Default)]
pub(crate) struct Stretches {
    /// Each stretch of a phase with its operations, in order.
    pub(crate) phases: Vec<(Phase, Range<usize>)>,
    /// The device's launches when the step began.
    pub(crate) launches_before: u64,
}

impl Stretches {
    /// Takes the records of a step that was numbered `step` and launched `kernels` kernels.
    pub(crate) fn read(
        &self,
        tracer: &mut dyn Tracer,
        step: u32,
        kernels: u64,
        phases: &mut [PhaseTime],
        operations: &mut [Operation],
    ) -> DeviceActivity {
        let trace = match tracer.end(kernels) {
            Ok(trace) => trace,
            Err(problem) => {
                operations.iter_mut().for_each(|o| set_time(o, None));
                return DeviceActivity::missing(problem);
            }
        };
        let launched = Launched {
            step,
            kernels,
            operations: operations
                .iter()
                .map(|operation| OperationLaunches {
                    kernels: operation.launches,
                    is_replayed: operation.timer == Timer::None,
                })
                .collect(),
            stretches: self.phases.iter().map(|(_, range)| range.clone()).collect(),
        };
        let found = activity::analyse(&trace, &launched);
        for (operation, time) in operations.iter_mut().zip(&found.operations) {
            operation.timer = Timer::Cupti;
            set_time(operation, *time);
        }
        for ((phase, _), time) in self.phases.iter().zip(&found.stretches) {
            // As with events: the others do not live by kernels.
            if phase.runs_kernels() && time.is_some() {
                add_gpu_time(phases, *phase, *time);
            }
        }
        found.activity
    }
}

fn add_gpu_time(phases: &mut [PhaseTime], phase: Phase, ns: Option<u64>) {
    let time = phases.iter_mut().find(|p| p.name == phase);
    if let (Some(time), Some(ns)) = (time, ns) {
        time.gpu_ns = Some(time.gpu_ns.unwrap_or(0) + ns);
    }
}

/// Gives an operation the start and time that the device tells, or none.
fn set_time(operation: &mut Operation, time: Option<[u64; 2]>) {
    match (operation.timer, time) {
        (Timer::Event | Timer::Cupti, Some([start_ns, duration_ns])) => {
            operation.start_ns = start_ns;
            operation.duration_ns = duration_ns;
        }
        (Timer::Event | Timer::Cupti, None) => {
            operation.start_ns = 0;
            operation.duration_ns = 0;
            operation.timer = Timer::None;
        }
        (Timer::Wall | Timer::Graph | Timer::None, _) => {}
    }
}
