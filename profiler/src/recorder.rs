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
        }
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

    /// Runs `f`, which returns the name of the kernel it ran, as operation `name` of layer `layer`.
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
                Timer::Event | Timer::Cupti | Timer::None => 0,
            },
            duration_ns: match timer {
                Timer::None => 0,
                Timer::Wall | Timer::Event | Timer::Cupti => duration_ns,
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
mod tests {
    use super::*;
    use crate::clock::DeviceClock;

    fn spin(microseconds: u64) {
        let start = Instant::now();
        while start.elapsed().as_micros() < u128::from(microseconds) {}
    }

    #[test]
    fn phases_add_up_to_the_wall_time() {
        let mut recorder = Recorder::new(Level::Operations);
        recorder.begin_step(StepKind::Prefill, 0, 2);
        spin(50);
        recorder.phase(Phase::KvAlloc, |_| spin(20));
        recorder
            .phase(Phase::Forward, |recorder| {
                recorder.operation("gemm", Some(3), Work::default(), || {
                    spin(30);
                    Ok::<_, ()>("gemm_kernel")
                })
            })
            .unwrap();
        recorder.phase(Phase::KvAlloc, |_| spin(20));
        let step = recorder.end_step();
        assert_eq!(
            step.phases.iter().map(|p| p.host_ns).sum::<u64>(),
            step.wall_ns
        );
        let names: Vec<_> = step.phases.iter().map(|p| p.name).collect();
        assert_eq!(names, [Phase::KvAlloc, Phase::Forward, Phase::Other]);
        assert!(step.phases[0].host_ns >= 40_000);
        assert!(step.phases[2].host_ns >= 50_000);
        let operation = &step.operations[0];
        assert_eq!(operation.name, "gemm");
        assert_eq!(operation.layer, Some(3));
        assert_eq!(operation.phase, Phase::Forward);
        assert!(operation.start_ns + operation.duration_ns <= step.wall_ns);
    }

    #[test]
    fn a_failed_operation_leaves_the_recorder_usable() {
        let mut recorder = Recorder::new(Level::Operations);
        recorder.begin_step(StepKind::Decode, 0, 1);
        let failed = recorder.phase(Phase::Forward, |recorder| {
            recorder.operation("gemm", None, Work::default(), || Err("no memory"))
        });
        assert_eq!(failed, Err("no memory"));
        recorder.begin_step(StepKind::Decode, 1, 1);
        let step = recorder.end_step();
        assert_eq!((step.index, step.operations.len()), (1, 0));
    }

    #[test]
    fn lower_levels_record_less() {
        for (level, phases, operations) in [
            (Level::Steps, 1, 0),
            (Level::Phases, 2, 0),
            (Level::Operations, 2, 1),
        ] {
            let mut recorder = Recorder::new(level);
            recorder.begin_step(StepKind::Decode, 0, 1);
            recorder
                .phase(Phase::Forward, |recorder| {
                    recorder.operation("gemm", None, Work::default(), || Ok::<_, ()>("k"))
                })
                .unwrap();
            let step = recorder.end_step();
            assert_eq!(
                (step.phases.len(), step.operations.len()),
                (phases, operations)
            );
        }
    }

    /// A device on which every mark lies 1000 ns behind the one before.
    #[derive(Debug, Default)]
    struct Ticking(usize);

    impl DeviceClock for Ticking {
        fn restart(&mut self) {
            self.0 = 0;
        }

        fn mark(&mut self) -> Option<usize> {
            self.0 += 1;
            Some(self.0 - 1)
        }

        fn elapsed_ns(&self, from: usize, to: usize) -> Option<u64> {
            Some(1000 * to.checked_sub(from)? as u64)
        }
    }

    #[test]
    fn a_device_s_clock_times_operations_and_the_phases_that_run_kernels() {
        let clock = Clock::Device(Box::new(Ticking::default()));
        let mut recorder = Recorder::new(Level::Operations).with_clock(clock);
        for _ in 0..2 {
            recorder.begin_step(StepKind::Decode, 0, 1);
            recorder.phase(Phase::Prepare, |_| spin(20));
            let operation = |recorder: &mut Recorder, name| {
                recorder.operation(name, None, Work::default(), || Ok::<_, ()>("kernel"))
            };
            recorder.phase(Phase::Forward, |recorder| {
                operation(recorder, "a").unwrap();
                operation(recorder, "b").unwrap();
            });
            recorder
                .phase(Phase::Sample, |r| operation(r, "sample"))
                .unwrap();
            let step = recorder.end_step();
            // Marks: start 0; forward 1, a 2, b 3, its end 4; sample 5, its operation 6, its end 7.
            let gpu: Vec<_> = step.phases.iter().map(|p| (p.name, p.gpu_ns)).collect();
            assert_eq!(
                gpu,
                [
                    (Phase::Prepare, None),
                    (Phase::Forward, Some(3000)),
                    (Phase::Sample, Some(2000)),
                    (Phase::Other, None),
                ]
            );
            let times: Vec<_> = step
                .operations
                .iter()
                .map(|o| (o.start_ns, o.duration_ns, o.timer))
                .collect();
            assert_eq!(
                times,
                [
                    (1000, 1000, Timer::Event),
                    (2000, 1000, Timer::Event),
                    (5000, 1000, Timer::Event),
                ]
            );
            let hosts: u64 = step.phases.iter().map(|p| p.host_ns).sum();
            assert_eq!(hosts, step.wall_ns);
        }
    }

    #[test]
    fn operations_of_a_graph_have_no_time_and_its_phase_has() {
        let mut recorder = Recorder::new(Level::Operations);
        recorder.begin_step(StepKind::Decode, 0, 1);
        recorder
            .operation("gemm", Some(1), Work::default(), || Ok::<_, ()>("gemv"))
            .unwrap();
        let recorded = recorder.end_step().operations;
        let clock = Clock::Device(Box::new(Ticking::default()));
        let mut recorder = Recorder::new(Level::Operations).with_clock(clock);
        recorder.begin_step(StepKind::Decode, 1, 1);
        recorder.phase(Phase::Forward, |recorder| recorder.replayed(recorded));
        let step = recorder.end_step();
        let operation = &step.operations[0];
        assert_eq!((operation.timer, operation.duration_ns), (Timer::None, 0));
        assert_eq!(
            (operation.phase, operation.layer),
            (Phase::Forward, Some(1))
        );
        assert_eq!(step.phases[0].gpu_ns, Some(1000));
    }
}
