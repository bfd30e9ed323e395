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

#[test]
fn operations_that_are_not_chosen_do_not_run() {
    let work = |flops| Work {
        flops,
        ..Work::default()
    };
    let check = |chosen: Choice, expected: &[(&str, u32)]| {
        for level in [Level::Phases, Level::Operations] {
            let mut recorder = Recorder::new(level).choosing(chosen);
            let mut ran = Vec::new();
            recorder.begin_step(StepKind::Decode, 0, 1);
            for (name, layer, flops) in [
                ("norm", 0, 1),
                ("gemm", 0, 2),
                ("norm", 1, 3),
                ("gemm", 1, 2),
            ] {
                let done = recorder.operation(name, Some(layer), work(flops), || {
                    ran.push((name, layer));
                    Ok::<_, ()>("kernel")
                });
                assert!(done.is_ok());
            }
            assert_eq!(ran, expected, "{chosen:?}");
            let recorded = recorder.end_step().operations.len();
            let all = match level {
                Level::Operations => expected.len(),
                _ => 0,
            };
            assert_eq!(recorded, all);
        }
    };
    check(Choice::Only("gemm", work(2)), &[("gemm", 0), ("gemm", 1)]);
    check(Choice::Only("norm", work(3)), &[("norm", 1)]);
    check(Choice::Without("gemm"), &[("norm", 0), ("norm", 1)]);
    check(Choice::Only("gemm", work(1)), &[]);
}
