//! What takes steps of its own, apart from those that are timed: counted steps, replayed operations, and the clock of a step.

use stepscope_device::cupti::Counted;
use stepscope_engine::StepClock;
use stepscope_profiler::{CycleClock, DeviceClock, KernelCounters, StepKind};

use super::*;

/// Counts what the emulated device does, under the names of the hardware's counters.
#[derive(Debug, Default)]
struct Counters {
    refuses: Option<&'static str>,
    /// Kernels that room was made for, in each count.
    rooms: Arc<Mutex<Vec<usize>>>,
}

impl KernelCounters for Counters {
    fn start(&mut self, most_kernels: usize) -> Result<(), String> {
        take_reports(0);
        self.rooms.lock().unwrap().push(most_kernels);
        self.refuses.map_or(Ok(()), |why| Err(why.to_owned()))
    }

    fn finish(&mut self) -> Result<Counted, String> {
        let bytes = |report: &LaunchReport| {
            let counters = &report.report.counters;
            vec![
                counters.compulsory_read_bytes as f64,
                counters.compulsory_write_bytes as f64,
            ]
        };
        Ok(Counted {
            chip: "EMULATED".to_owned(),
            metrics: ["dram__bytes_read.sum", "dram__bytes_write.sum"]
                .map(str::to_owned)
                .to_vec(),
            passes: 1,
            kernels: take_reports(0).iter().map(bytes).collect(),
        })
    }
}

/// A clock on which each mark lies 10 ms behind the one before.
#[derive(Debug, Default)]
struct Ticking(u64);

impl DeviceClock for Ticking {
    fn restart(&mut self) {
        self.0 = 0;
    }

    fn mark(&mut self) -> Option<usize> {
        self.0 += 1;
        Some(self.0 as usize - 1)
    }

    fn elapsed_ns(&self, from: usize, to: usize) -> Option<u64> {
        Some(10_000_000 * (to - from) as u64)
    }
}

/// A multiprocessor whose clock rises by 10 MHz from step to step.
#[derive(Debug)]
struct Rising(f64);

impl CycleClock for Rising {
    fn before(&mut self) {
        self.0 += 10.0;
    }

    fn behind(&mut self) -> Option<f64> {
        Some(self.0)
    }
}

fn watched<'a>(
    driver: &Arc<Driver>,
    model: &Model,
    options: &RunnerOptions,
    instruments: Instruments<'a>,
) -> Runner<Cuda> {
    let cuda = Cuda::new(driver, 0, model.dtype).unwrap();
    Runner::watched(cuda, model, options, instruments).unwrap()
}

fn untimed() -> Instruments<'static> {
    Instruments {
        clock: Clock::Untimed,
        ..Instruments::default()
    }
}

/// The tokens of a prefill and three decode steps.
fn tokens(runner: &mut Runner<Cuda>, prompts: &[&[u32]]) -> Vec<Vec<u32>> {
    runner.clear();
    let (mut batch, _) = runner.prefill(prompts).unwrap();
    let mut tokens = vec![runner.sampled(&batch).unwrap()];
    for _ in 0..3 {
        runner.decode(&mut batch, None).unwrap();
        tokens.push(runner.sampled(&batch).unwrap());
    }
    runner.release(batch);
    tokens
}

#[test]
fn steps_are_counted_apart_and_kernels_belong_to_operations() {
    let Some((driver, _guard)) = driver() else {
        return;
    };
    let folder = &folders()[0];
    let model = load_from(folder, None);
    let options = RunnerOptions::small(2, 16);
    let prompts: [&[u32]; 2] = [&[1, 5, 9], &[2, 7]];
    let rooms = Arc::default();
    let mut runner = watched(
        &driver,
        &model,
        &options,
        Instruments {
            counters: Some(Box::new(Counters {
                refuses: None,
                rooms: Arc::clone(&rooms),
            })),
            ..untimed()
        },
    );
    let before = tokens(&mut runner, &prompts);
    let counted = runner.count(&prompts, true).unwrap().unwrap();
    let kinds: Vec<StepKind> = counted.iter().map(|step| step.kind).collect();
    assert_eq!(kinds, [StepKind::Prefill, StepKind::Decode]);
    let layers = model.config.layers as u64;
    for (step, room) in counted.iter().zip(rooms.lock().unwrap().iter()) {
        let launches: u64 = step.operations.iter().map(|o| o.launches).sum();
        assert_eq!(launches, *room as u64, "{:?}", step.kind);
        let named = |name: &str| step.operations.iter().find(|o| o.name == name).unwrap();
        let qkv = named("qkv_proj");
        assert!(qkv.launches >= layers && qkv.launches.is_multiple_of(layers));
        // A product reads its weights once: what is counted is not less than the cost model has of them.
        let read = qkv.values["dram__bytes_read.sum"];
        assert!(
            read >= qkv.work.weight_bytes as f64,
            "{read}: {:?}",
            qkv.work
        );
        assert!(named("sample").launches >= 1);
        let (dram, by_shape) = step.dram_and_model_bytes().unwrap();
        assert!(dram > 0.0 && by_shape > 0.0);
    }
    // Graphs, the recorder and the tables are as they were.
    assert_eq!(tokens(&mut runner, &prompts), before);
    let again = runner.count(&prompts, false).unwrap().unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0], counted[0]);
}

#[test]
fn a_refusal_is_told_once_and_changes_nothing() {
    let Some((driver, _guard)) = driver() else {
        return;
    };
    let model = load_from(&folders()[0], None);
    let prompts: [&[u32]; 1] = [&[1, 5, 9]];
    let mut runner = watched(
        &driver,
        &model,
        &RunnerOptions::small(1, 16),
        Instruments {
            counters: Some(Box::new(Counters {
                refuses: Some("counters need a permission"),
                ..Counters::default()
            })),
            ..untimed()
        },
    );
    let before = tokens(&mut runner, &prompts);
    let refused = runner.count(&prompts, true).unwrap();
    assert_eq!(refused, Err("counters need a permission".to_owned()));
    assert_eq!(runner.count(&prompts, true).unwrap(), Ok(Vec::new()));
    assert_eq!(tokens(&mut runner, &prompts), before);
}

#[test]
fn operations_are_replayed_in_graphs_of_their_own() {
    let Some((driver, _guard)) = driver() else {
        return;
    };
    let model = load_from(&folders()[0], None);
    let options = RunnerOptions::small(2, 16);
    let prompts: [&[u32]; 2] = [&[1, 5, 9], &[2, 7]];
    let instruments = |clock| Instruments {
        clock,
        replay_clock: Some(Box::new(Ticking::default())),
        ..Instruments::default()
    };
    let clock = Clock::Device(Box::new(Ticking::default()));
    let mut runner = watched(&driver, &model, &options, instruments(clock));
    let before = tokens(&mut runner, &prompts);
    let replayed = runner.time_replays(&prompts).unwrap();
    let layers = model.config.layers as u64;
    let forward = &replayed[0];
    assert_eq!((forward.name.as_str(), forward.calls), ("forward", 1));
    // A replay takes 10 ms on this clock.
    assert_eq!(forward.samples_ns, [1e7; 5]);
    let launches: f64 = replayed[1..]
        .iter()
        .map(|o| o.launches * o.calls as f64)
        .sum();
    assert_eq!(launches, forward.launches);
    for operation in &replayed {
        assert_eq!(operation.timer, Timer::Graph);
        // Moving on would change the step, and sampling lies outside of the graph.
        assert!(!["advance", "sample"].contains(&operation.name.as_str()));
        let calls = operation.calls_in_graph;
        assert!(calls.is_multiple_of(operation.calls));
        assert_eq!(
            operation.samples_ns,
            vec![1e7 / calls as f64; 5],
            "{operation:?}"
        );
    }
    let named = |name: &str| replayed.iter().find(|o| o.name == name).unwrap();
    assert_eq!(named("qkv_proj").calls, layers);
    assert!(named("qkv_proj").calls_in_graph >= 64);
    assert_eq!(named("lm_head").calls_in_graph, 64);
    // The first norm of a layer adds nothing to the residual in the first one.
    let norms = replayed.iter().filter(|o| o.name == "input_norm");
    assert_eq!(norms.map(|o| o.calls).sum::<u64>(), layers);
    // Nothing of it is left.
    assert_eq!(tokens(&mut runner, &prompts), before);
    // Without time there are no times, whatever clock is at hand.
    let mut runner = watched(&driver, &model, &options, instruments(Clock::Untimed));
    assert!(runner.time_replays(&prompts).unwrap().is_empty());
}

#[test]
fn each_step_has_the_clock_that_was_read_around_it_and_an_emulated_device_none() {
    let Some((driver, _guard)) = driver() else {
        return;
    };
    let model = load_from(&folders()[0], None);
    let options = RunnerOptions::small(1, 16);
    let cuda = Cuda::new(&driver, 0, model.dtype).unwrap();
    let rising: Box<dyn CycleClock> = Box::new(Rising(1900.0));
    let of_kernels: Box<dyn CycleClock> = Box::new(StepClock::new(&cuda).unwrap());
    for (clock, expected) in [
        (rising, [Some(1910.0), Some(1920.0)]),
        (of_kernels, [None, None]),
    ] {
        let instruments = Instruments {
            sm_clock: Some(clock),
            ..untimed()
        };
        let mut runner = watched(&driver, &model, &options, instruments);
        let (mut batch, prefill) = runner.prefill(&[&[1, 5, 9]]).unwrap();
        let decode = runner.decode(&mut batch, None).unwrap();
        assert_eq!([prefill.sm_clock_mhz, decode.sm_clock_mhz], expected);
        // Its kernels are no operation's.
        let launches: u32 = decode.operations.iter().map(|o| o.launches).sum();
        assert!(launches > 0);
    }
}
