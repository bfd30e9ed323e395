//! Groups `prefill` and `decode`: whole steps of a model with random weights, by the engine's own record.

use std::rc::Rc;

use serde_json::{Map, json};
use stepscope_engine::model::{LoadFormat, LoadOptions, Model, NoProgress, load};
use stepscope_engine::sglang::Compat;
use stepscope_engine::{
    Batch, GPU_CHUNK_TOKENS, Instruments, Place, Runner, RunnerOptions, new_record, one_batch,
};
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::{Backend, Cpu, DType};
use stepscope_profiler::{Clock, EventClock, Level, Record};

use super::arguments::Mode;
use super::suite::{Case, Device, Rate, Suite};
use crate::Error;

/// A model, and the batches that its steps are measured on: requests and prompt tokens of each.
struct Plan {
    model: &'static str,
    prefills: &'static [[usize; 2]],
    decodes: &'static [[usize; 2]],
}

const ON_CPU: Plan = Plan {
    model: "smollm2-135m",
    prefills: &[[1, 32], [1, 512]],
    decodes: &[[1, 256], [4, 256], [16, 64]],
};
const ON_GPU: [Plan; 2] = [
    Plan {
        model: "qwen2.5-0.5b",
        prefills: &[[1, 1024], [8, 1024]],
        decodes: &[[1, 1024], [8, 1024], [64, 1024]],
    },
    Plan {
        model: "llama-3.1-8b",
        prefills: &[[1, 1024], [8, 1024]],
        decodes: &[[1, 1024], [8, 1024], [64, 1024]],
    },
];
/// In test mode: one layer, so that an emulated device is done in a second.
const SMALL: Plan = Plan {
    model: "smollm2-135m",
    prefills: &[[1, 4]],
    decodes: &[[2, 4]],
};
/// Decode steps of a profile, at least.
const PROFILED_STEPS: u64 = 16;
/// Decode steps behind a prompt, before a new batch starts: the context grows by so much at most.
const STEPS: usize = 64;

fn engine(error: stepscope_engine::Error) -> Error {
    Error::Unusable(error.to_string())
}

/// A model that is loaded when the first benchmark asks for it.
struct Lazy {
    name: &'static str,
    is_small: bool,
    loaded: Option<Rc<Model>>,
}

impl Lazy {
    fn get(&mut self, cpu: &Cpu, on_device: bool) -> Result<Rc<Model>, Error> {
        if let Some(model) = &self.loaded {
            return Ok(Rc::clone(model));
        }
        let one_layer: Map<_, _> = [("num_hidden_layers".to_owned(), json!(1))]
            .into_iter()
            .collect();
        let options = LoadOptions {
            model: self.name.to_owned(),
            format: LoadFormat::Dummy,
            dtype: Some(DType::BF16),
            config_overrides: if self.is_small { one_layer } else { Map::new() },
            skip_tokenizer: true,
            dummy_on_device: on_device,
            ..LoadOptions::default()
        };
        let model = Rc::new(load(&options, cpu, &NoProgress).map_err(engine)?);
        self.loaded = Some(Rc::clone(&model));
        Ok(model)
    }
}

pub(super) fn run(suite: &mut Suite) -> Result<(), Error> {
    let plan = if suite.is_test() { &SMALL } else { &ON_CPU };
    if suite.wants_any(&plan.cases("cpu")) {
        let (cpu, _) = suite.cpu()?;
        let mut model = plan.lazy(suite.is_test());
        plan.run("cpu", suite, &mut || {
            Ok((Cpu::new(None)?, model.get(&cpu, false)?, Clock::Host))
        });
    }
    let plans: &[Plan] = if suite.is_test() { &[SMALL] } else { &ON_GPU };
    for group in ["prefill", "decode"] {
        let cases = plans.iter().flat_map(|plan| plan.cases("cuda"));
        let cases: Vec<Case> = cases.filter(|case| case.group == group).collect();
        suite.skip_without_device(group, &cases);
    }
    let cases: Vec<Case> = plans.iter().flat_map(|plan| plan.cases("cuda")).collect();
    if !suite.wants_any(&cases) {
        return Ok(());
    }
    if suite.mode() == Mode::List {
        for case in &cases {
            suite.host(case, &mut |_| Ok(0.0));
        }
        return Ok(());
    }
    let (device, mode) = (suite.device().clone(), suite.mode());
    let (Device::Gpu(shared) | Device::Emulated(shared)) = &device else {
        return Ok(());
    };
    for plan in plans {
        let (cpu, _) = suite.cpu()?;
        let mut model = plan.lazy(suite.is_test());
        plan.run("cuda", suite, &mut || {
            let context = shared.context();
            let own = Cuda::new(context.driver(), context.device().ordinal, DType::BF16)?;
            let clock = match (&device, mode) {
                (Device::Emulated(_), _) => Clock::Untimed,
                (_, Mode::Profile) => Clock::Device(Box::new(EventClock::new(own.stream()))),
                _ => Clock::HostOfQueue,
            };
            Ok((own, model.get(&cpu, true)?, clock))
        });
    }
    Ok(())
}

/// Gives a device, a model, and what takes the times of its steps.
type Make<'a, B> = dyn FnMut() -> Result<(B, Rc<Model>, Clock), Error> + 'a;

impl Plan {
    fn lazy(&self, is_small: bool) -> Lazy {
        Lazy {
            name: self.model,
            is_small,
            loaded: None,
        }
    }

    fn case(&self, group: &'static str, device: &str, [requests, tokens]: [usize; 2]) -> Case {
        let (what, rate) = match group {
            "prefill" => ("", requests * tokens),
            _ => (" in the cache", requests),
        };
        Case {
            group,
            function: device.to_owned(),
            shape: format!("{} {requests}x{tokens}{what}", self.model),
            operation: group,
            dtype: "bf16",
            rate: Rate::Tokens(rate as u64),
            bound: None,
        }
    }

    fn cases(&self, device: &str) -> Vec<Case> {
        let of = |group: &'static str, shapes: &[[usize; 2]]| -> Vec<Case> {
            shapes
                .iter()
                .map(|shape| self.case(group, device, *shape))
                .collect()
        };
        [of("prefill", self.prefills), of("decode", self.decodes)].concat()
    }

    /// `make` gives a device of this kind, with the model; it is called when a benchmark runs.
    fn run<B: Backend>(&self, device: &'static str, suite: &mut Suite, make: &mut Make<'_, B>) {
        // What is recorded of a step takes time from it: only what is looked at.
        let level = match suite.mode() {
            Mode::Profile => Level::Operations,
            _ => Level::Steps,
        };
        // Making the model may take all the time of a profile, and one step shows little.
        let least = match suite.mode() {
            Mode::Profile => PROFILED_STEPS,
            _ => 1,
        };
        let profile = Rc::clone(&suite.profile);
        let surroundings = suite.surroundings.clone();
        let place = || Place {
            program: surroundings.program.clone(),
            environment: surroundings.environment(),
            device: if device == "cpu" { "cpu" } else { "cuda" },
            threads: 0,
            load_s: 0.0,
        };
        for &shape in self.prefills {
            let mut ready: Option<Ready<B>> = None;
            suite.host(&self.case("prefill", device, shape), &mut |n| {
                let ready = Ready::get(&mut ready, make, shape, level)?;
                let mut total = 0.0;
                for _ in 0..n {
                    let prompts: Vec<&[u32]> = vec![&ready.prompt; shape[0]];
                    let (batch, step) = ready.runner.prefill(&prompts).map_err(engine)?;
                    ready.runner.check_logits(&batch).map_err(engine)?;
                    ready.runner.release(batch);
                    total += step.wall_ns as f64;
                    profile
                        .borrow_mut()
                        .keep(step, shape, || ready.record(place()));
                }
                Ok(ready.timed(total))
            });
        }
        for &shape in self.decodes {
            let mut ready: Option<Ready<B>> = None;
            suite.host(&self.case("decode", device, shape), &mut |n| {
                let ready = Ready::get(&mut ready, make, shape, level)?;
                let mut total = 0.0;
                for _ in 0..n.max(least) {
                    let step = ready.decode(shape[0])?;
                    total += step.wall_ns as f64;
                    profile
                        .borrow_mut()
                        .keep(step, shape, || ready.record(place()));
                }
                Ok(ready.timed(total))
            });
        }
    }
}

/// A runner with what its benchmark needs.
struct Ready<B: Backend> {
    runner: Runner<B>,
    model: Rc<Model>,
    options: RunnerOptions,
    prompt: Vec<u32>,
    /// The batch that decodes, and its steps so far.
    batch: Option<(Batch, usize)>,
}

impl<B: Backend> Ready<B> {
    fn get<'a>(
        known: &'a mut Option<Ready<B>>,
        make: &mut Make<'_, B>,
        [requests, tokens]: [usize; 2],
        level: Level,
    ) -> Result<&'a mut Ready<B>, Error> {
        if known.is_none() {
            let (backend, model, clock) = make()?;
            let small = RunnerOptions::small(1, 1);
            let options = RunnerOptions {
                memory_budget: u64::MAX,
                chunk_tokens: match backend.has_own_memory() {
                    true => GPU_CHUNK_TOKENS.min(requests * tokens),
                    false => small.chunk_tokens,
                },
                level,
                ..RunnerOptions::small(requests, tokens + STEPS + 1)
            };
            let instruments = Instruments {
                clock,
                ..Instruments::default()
            };
            let runner = Runner::watched(backend, &model, &options, instruments).map_err(engine)?;
            *known = Some(Ready {
                runner,
                model,
                options,
                prompt: vec![1; tokens],
                batch: None,
            });
        }
        known
            .as_mut()
            .ok_or_else(|| Error::Unusable("no runner".to_owned()))
    }

    /// The next step of a batch; a new one starts after [`STEPS`].
    fn decode(&mut self, requests: usize) -> Result<stepscope_profiler::Step, Error> {
        if self.batch.as_ref().is_none_or(|(_, steps)| *steps >= STEPS) {
            if let Some((old, _)) = self.batch.take() {
                self.runner.check_logits(&old).map_err(engine)?;
                self.runner.release(old);
            }
            let prompts: Vec<&[u32]> = vec![&self.prompt; requests];
            let (mut batch, _) = self.runner.prefill(&prompts).map_err(engine)?;
            // The first step of a batch records its graph.
            self.runner.decode(&mut batch, None).map_err(engine)?;
            self.batch = Some((batch, 1));
        }
        let Some((batch, steps)) = &mut self.batch else {
            return Err(Error::Unusable("no batch".to_owned()));
        };
        *steps += 1;
        self.runner.decode(batch, None).map_err(engine)
    }

    /// An emulated device has no time.
    fn timed(&self, total_ns: f64) -> f64 {
        if self.runner.is_timed() {
            total_ns
        } else {
            0.0
        }
    }

    fn record(&self, place: Place) -> Record {
        let options = one_batch::Options {
            run_name: "bench".to_owned(),
            batch_sizes: Vec::new(),
            input_lens: Vec::new(),
            output_lens: Vec::new(),
            prompts: None,
            compat: Compat::default(),
            seed: 0,
            log_decode_step: 0,
            repetitions: 1,
            warmup_per_point: false,
            keep_all_operations: true,
            profile: false,
        };
        new_record(place, &self.model, &self.runner, &self.options, &options)
    }
}
