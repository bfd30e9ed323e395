//! Takes the steps of a run apart while they run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::activity::{Span, Tracer};
use crate::clock::{Clock, Marks, Stretches};
use crate::record::{Operation, PhaseTime, Step};

/// How much of a step is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Wall time of the step alone; a step has the one phase `other`.
    Steps,
    /// Phases too.
    Phases,
    /// Operations too.
    Operations,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// Runs whole prompts (sglang: extend).
    Prefill,
    /// Runs one token per request.
    Decode,
}

impl StepKind {
    /// `prefill` or `decode`.
    pub const fn name(self) -> &'static str {
        match self {
            StepKind::Prefill => "prefill",
            StepKind::Decode => "decode",
        }
    }

    /// The name at the start of a sentence.
    pub const fn title(self) -> &'static str {
        match self {
            StepKind::Prefill => "Prefill",
            StepKind::Decode => "Decode",
        }
    }
}

/// The phases of a step, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Request → token slots.
    TokenPool,
    /// Slots of the KV cache.
    KvAlloc,
    /// Batch metadata, host → device copies, attention plan.
    Prepare,
    /// The layers.
    Forward,
    /// Logits → token ids.
    Sample,
    /// The rest of the step's wall time.
    Other,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 6] = [
        Phase::TokenPool,
        Phase::KvAlloc,
        Phase::Prepare,
        Phase::Forward,
        Phase::Sample,
        Phase::Other,
    ];

    /// The name in records, tables and flame graphs.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::TokenPool => "token_pool",
            Phase::KvAlloc => "kv_alloc",
            Phase::Prepare => "prepare",
            Phase::Forward => "forward",
            Phase::Sample => "sample",
            Phase::Other => "other",
        }
    }

    /// Whether its work is kernels, so that a GPU's clock tells more of it than the host's.
    pub(crate) const fn runs_kernels(self) -> bool {
        matches!(self, Phase::Forward | Phase::Sample)
    }
}

/// What took a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timer {
    /// The host's monotonic clock around a call that returns when the work is done.
    Wall,
    /// CUDA events in the stream, behind the operation before and behind this one.
    Event,
    /// CUPTI's record of each kernel; the time is that in which at least one of the operation's kernels ran.
    Cupti,
    /// CUDA events around replays of a graph that holds the operation again and again: the mean of its launches, apart from any step.
    Graph,
    /// None: inside a replayed CUDA graph that was not recorded kernel by kernel, on an emulated device, or where the device's
    /// clock failed. The time reads 0.
    None,
}

impl Timer {
    /// The name in records and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Timer::Wall => "wall",
            Timer::Event => "event",
            Timer::Cupti => "cupti",
            Timer::Graph => "graph",
            Timer::None => "none",
        }
    }
}

/// The work an operation cannot do without, as its cost model gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Work {
    /// Floating-point operations; a multiply-add counts two.
    pub flops: u64,
    /// Bytes of weights read.
    pub weight_bytes: u64,
    /// Bytes of the KV cache read and written.
    pub kv_bytes: u64,
    /// Bytes of activations and indices read and written.
    pub activation_bytes: u64,
}

impl Work {
    /// All bytes together.
    pub const fn bytes(&self) -> u64 {
        self.weight_bytes
            .saturating_add(self.kv_bytes)
            .saturating_add(self.activation_bytes)
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.flops = self.flops.saturating_add(other.flops);
        self.weight_bytes = self.weight_bytes.saturating_add(other.weight_bytes);
        self.kv_bytes = self.kv_bytes.saturating_add(other.kv_bytes);
        self.activation_bytes = self.activation_bytes.saturating_add(other.activation_bytes);
    }
}

/// Takes a step apart while it runs. One step is open at a time; phases do not nest; operations lie within a phase.
#[derive(Debug)]
pub struct Recorder {
    level: Level,
    clock: Clock,
    /// Counts the kernels put into the device's queue.
    launches: Option<Arc<AtomicU64>>,
    step: Option<OpenStep>,
    /// Operations of the last step, to size the next one's list: growing it would be timed.
    operations_seen: usize,
    /// Steps begun so far: the number that a tracer knows a step by.
    steps: u32,
    /// Which operations run at all.
    chosen: Choice,
}

/// Which operations of a step run. The others are left out, as if the step did not have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// All of them.
    #[default]
    All,
    /// Those of one name and one work: the same kernel on the same shape, in each layer.
    Only(&'static str, Work),
    /// All but those of this name.
    Without(&'static str),
}

impl Choice {
    fn holds(self, name: &str, work: Work) -> bool {
        match self {
            Choice::All => true,
            Choice::Only(chosen, of_work) => name == chosen && work == of_work,
            Choice::Without(left_out) => name != left_out,
        }
    }
}

#[derive(Debug)]
struct OpenStep {
    kind: StepKind,
    index: usize,
    batch_size: usize,
    start: Instant,
    phases: Vec<PhaseTime>,
    operations: Vec<Operation>,
    open_phase: Option<Phase>,
    marks: Marks,
    stretches: Stretches,
}

impl Recorder {
    /// A recorder with no step open.
    pub fn new(level: Level) -> Recorder {
        Recorder {
            level,
            clock: Clock::Host,
            launches: None,
            step: None,
            operations_seen: 0,
            steps: 0,
            chosen: Choice::All,
        }
    }

    /// The recorder, which runs the chosen operations alone.
    #[must_use]
    pub fn choosing(self, chosen: Choice) -> Recorder {
        Recorder { chosen, ..self }
    }

    /// The recorder with another clock than the host's.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Recorder {
        Recorder { clock, ..self }
    }

    /// The recorder, noting with each operation by how much `launches` grew.
    #[must_use]
    pub fn counting(self, launches: Option<Arc<AtomicU64>>) -> Recorder {
        Recorder { launches, ..self }
    }

    /// How much this recorder records.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Records so much of each step from here on; a step that is open is dropped. Kernels are recorded one by one at [`Level::Operations`] only.
    ///
    /// # Errors
    /// Why recording of kernels cannot be turned on or off.
    pub fn set_level(&mut self, level: Level) -> Result<(), String> {
        self.step = None; // one that was left open by an error
        let on = |level: Level| level == Level::Operations;
        if let Clock::Traced(tracer) = &mut self.clock
            && on(self.level) != on(level)
        {
            tracer.set_recording(on(level))?;
        }
        self.level = level;
        Ok(())
    }

    /// What records the device's kernels, at the level at which it does.
    fn tracer(&mut self) -> Option<&mut dyn Tracer> {
        match (&mut self.clock, self.level) {
            (Clock::Traced(tracer), Level::Operations) => Some(tracer.as_mut()),
            _ => None,
        }
    }

    /// The device's launches so far; 0 where it does not count them.
    fn launched(&self) -> u64 {
        let launches = self.launches.as_ref();
        launches.map_or(0, |launches| launches.load(Ordering::Relaxed))
    }

    /// Starts the clock of a step. A step that was left open, by an error in it, is dropped.
    pub fn begin_step(&mut self, kind: StepKind, index: usize, batch_size: usize) {
        let capacity = match self.level {
            Level::Operations => self.operations_seen.max(64),
            Level::Steps | Level::Phases => 0,
        };
        let mut marks = Marks::default();
        if let Clock::Device(clock) = &mut self.clock {
            clock.restart();
            marks.start = clock.mark();
            marks.phases.reserve(4);
            marks.operations.reserve(capacity);
        }
        let mut stretches = Stretches::default();
        self.steps = self.steps.wrapping_add(1);
        let number = self.steps;
        if let Some(tracer) = self.tracer() {
            tracer.begin(number);
            stretches.phases.reserve(Phase::ALL.len());
            stretches.launches_before = self.launched();
        }
        self.step = Some(OpenStep {
            kind,
            index,
            batch_size,
            phases: Vec::with_capacity(Phase::ALL.len()),
            operations: Vec::with_capacity(capacity),
            open_phase: None,
            marks,
            stretches,
            start: Instant::now(), // last: making the lists is not part of the step
        });
    }

    /// Runs `f` as `phase` of the open step. The same phase may run several times in a step; its times add up.
    ///
    /// # Panics
    /// When no step is open or a phase already is: both are mistakes in the program, not in its input.
    pub fn phase<T>(&mut self, phase: Phase, f: impl FnOnce(&mut Recorder) -> T) -> T {
        if self.level < Level::Phases {
            return f(self);
        }
        let step = self.open_step();
        if let Some(open) = step.open_phase {
            panic!("phase {} inside phase {}", phase.name(), open.name());
        }
        step.open_phase = Some(phase);
        let first = step.operations.len();
        let stretch = step.stretches.phases.len();
        if let Some(tracer) = self.tracer() {
            tracer.enter(Span::Stretch(u16::try_from(stretch).unwrap_or(u16::MAX)));
        }
        let start = Instant::now();
        let before = self.mark_phase(phase);
        let result = f(self);
        let behind = self.mark_phase(phase);
        let host_ns = self.host_ns(start.elapsed());
        let since_step = start - self.open_step().start;
        let start_ns = self.host_ns(since_step);
        if let Some(tracer) = self.tracer() {
            tracer.leave();
            let step = self.open_step();
            let operations = first..step.operations.len();
            step.stretches.phases.push((phase, operations));
        }
        let has_marks = before.is_some();
        let step = self.open_step();
        step.open_phase = None;
        if has_marks {
            step.marks.phases.push((phase, before, behind));
        }
        match step.phases.iter_mut().find(|p| p.name == phase) {
            Some(time) => time.host_ns += host_ns,
            None => step.phases.push(PhaseTime {
                name: phase,
                start_ns,
                host_ns,
                gpu_ns: None,
            }),
        }
        result
    }

    /// Runs `f`, which returns the name of the kernel it ran, as operation `name` of layer `layer`, if it is a chosen one.
    ///
    /// # Errors
    /// Those of `f`; a failed operation is not recorded.
    pub fn operation<E>(
        &mut self,
        name: &'static str,
        layer: Option<u32>,
        work: Work,
        f: impl FnOnce() -> Result<&'static str, E>,
    ) -> Result<(), E> {
        if !self.chosen.holds(name, work) {
            return Ok(());
        }
        if self.level < Level::Operations {
            return f().map(|_| ());
        }
        let launched_before = self.launched();
        let index = self.step.as_ref().map_or(0, |step| step.operations.len());
        if let Some(tracer) = self.tracer() {
            tracer.enter(Span::Operation(u32::try_from(index).unwrap_or(u32::MAX)));
        }
        let start = Instant::now();
        let outcome = f();
        let duration = start.elapsed();
        if let Some(tracer) = self.tracer() {
            tracer.leave();
        }
        let kernel = outcome?;
        let launches = self.launched() - launched_before;
        let timer = self.clock.operation_timer();
        let duration_ns = self.host_ns(duration);
        self.mark_operation();
        let step = self.open_step();
        step.operations.push(Operation {
            name: name.into(),
            kernel: kernel.into(),
            phase: step.open_phase.unwrap_or(Phase::Other),
            layer,
            work,
            launches: u32::try_from(launches).unwrap_or(u32::MAX),
            start_ns: match timer {
                Timer::Wall => nanoseconds(start - step.start),
                Timer::Event | Timer::Cupti | Timer::Graph | Timer::None => 0,
            },
            duration_ns: match timer {
                Timer::None => 0,
                Timer::Wall | Timer::Event | Timer::Cupti | Timer::Graph => duration_ns,
            },
            timer,
        });
        Ok(())
    }

    /// Notes operations that ran as a whole, inside a replayed graph: what they are is known, their times are not.
    pub fn replayed(&mut self, operations: impl IntoIterator<Item = Operation>) {
        if self.level < Level::Operations {
            return;
        }
        let step = self.open_step();
        let phase = step.open_phase.unwrap_or(Phase::Other);
        for operation in operations {
            step.marks.operations.push((None, None));
            step.operations.push(Operation {
                phase,
                start_ns: 0,
                duration_ns: 0,
                timer: Timer::None,
                ..operation
            });
        }
    }

    /// A host time, unless no times are taken.
    fn host_ns(&self, duration: std::time::Duration) -> u64 {
        match self.clock {
            Clock::Untimed => 0,
            Clock::Host | Clock::HostOfQueue | Clock::Device(_) | Clock::Traced(_) => {
                nanoseconds(duration)
            }
        }
    }

    /// A mark before or behind a phase, if it runs kernels and the device has a clock.
    fn mark_phase(&mut self, phase: Phase) -> Option<usize> {
        if !phase.runs_kernels() {
            return None;
        }
        let Clock::Device(clock) = &mut self.clock else {
            return None;
        };
        let mark = clock.mark();
        self.open_step().marks.last = mark;
        mark
    }

    /// A mark behind an operation, if the device has a clock.
    fn mark_operation(&mut self) {
        let Clock::Device(clock) = &mut self.clock else {
            return;
        };
        let behind = clock.mark();
        let marks = &mut self.open_step().marks;
        marks.operations.push((marks.last, behind));
        marks.last = behind;
    }

    /// Stops the clock of the open step. What no phase covered becomes the phase `other`.
    ///
    /// # Panics
    /// When no step is open.
    pub fn end_step(&mut self) -> Step {
        let end = Instant::now();
        #[allow(clippy::expect_used)] // as documented: a mistake in the program, not in its input
        let mut step = self.step.take().expect("end_step without begin_step");
        let wall_ns = self.host_ns(end - step.start);
        let launched = self.launched() - step.stretches.launches_before;
        let mut device = None;
        match &mut self.clock {
            Clock::Device(clock) => {
                let marks = &step.marks;
                marks.read(clock.as_ref(), &mut step.phases, &mut step.operations);
            }
            Clock::Traced(tracer) if self.level == Level::Operations => {
                device = Some(step.stretches.read(
                    tracer.as_mut(),
                    self.steps,
                    launched,
                    &mut step.phases,
                    &mut step.operations,
                ));
            }
            Clock::Traced(_) | Clock::Host | Clock::HostOfQueue | Clock::Untimed => {}
        }
        self.operations_seen = self.operations_seen.max(step.operations.len());
        let covered: u64 = step.phases.iter().map(|p| p.host_ns).sum();
        step.phases.push(PhaseTime {
            name: Phase::Other,
            start_ns: step
                .phases
                .last()
                .map_or(0, |last| last.start_ns + last.host_ns),
            host_ns: wall_ns.saturating_sub(covered),
            gpu_ns: None,
        });
        Step {
            kind: step.kind,
            index: step.index,
            batch_size: step.batch_size,
            wall_ns,
            phases: step.phases,
            operations: step.operations,
            kernels: Vec::new(),
            findings: Vec::new(),
            device,
            sm_clock_mhz: None,
        }
    }

    fn open_step(&mut self) -> &mut OpenStep {
        #[allow(clippy::expect_used)] // a mistake in the program, not in its input
        self.step.as_mut().expect("no step is open")
    }
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
