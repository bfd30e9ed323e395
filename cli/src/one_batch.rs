//! `stepscope one-batch`.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use stepscope_engine::model::Model;
use stepscope_engine::one_batch::{self, Observer, Options};
use stepscope_engine::sglang::{Compat, Measurement};
use stepscope_engine::{
    Error, Instruments, Place, Runner, RunnerOptions, correctness, new_record, roofs,
};
use stepscope_flamegraphs::FoldOptions;
use stepscope_kernels::{Backend, DType};
use stepscope_profiler::trace::{self, Selection};
use stepscope_profiler::{Point, Program, Record, StepKind, Timing, environment, report};

use crate::args::timers::TimerChoice;
use crate::args::{ModelArgs, OneBatch};
use crate::device::{self, Gpu, Work};
use crate::model::{self, Loaded};
use crate::output::{Failure, print_stderr, write_stdout};
use crate::progress::Bar;
use crate::{reports, timing};

pub(crate) fn run(args: &OneBatch) -> Result<(), Failure> {
    let given = |lens: &[usize], default: usize| {
        if lens.is_empty() {
            vec![default]
        } else {
            lens.to_vec()
        }
    };
    let bar = Bar::new(args.quiet);
    let prompts = args
        .prompt_filename
        .as_deref()
        .map(read_prompts)
        .transpose()?;
    let needs_tokenizer = args.correctness_test || prompts.is_some();
    let sampling = model::sampling(&args.sampling, args.model.random_seed)?;
    let files = Files::open(args)?;
    if args.model.model_path.is_none() && !args.quiet {
        print_stderr(&format!(
            "no --model-path given: running {} with random weights and short prompts, to show what a run looks like",
            model::DEFAULT_SHAPE
        ));
    }
    let gpu = device::start(&args.model)?;
    check_timer(args, gpu.as_ref())?;
    if args.timers.counters.is_some()
        && !args.quiet
        && let Some(why) = timing::why_no_counters(gpu.as_ref())
    {
        print_stderr(why);
    }
    let cpu = model::start_cpu(&args.model)?;
    // Before the model is loaded: what this takes of memory does not come on top of the weights.
    let measures_roofs = !args.correctness_test && gpu.is_none();
    let roofs = measures_roofs.then(|| roofs(&cpu.measure_roofs()));
    let loaded = model::open(&args.model, cpu, gpu, !needs_tokenizer, &bar)?;
    let options = Options {
        run_name: args.run_name.clone(),
        batch_sizes: args.batch_size.clone(),
        input_lens: given(
            &args.input_len,
            if args.model.model_path.is_some() {
                1024
            } else {
                128
            },
        ),
        output_lens: given(&args.output_len, 16),
        prompts: None,
        compat: args.compat,
        seed: args.model.random_seed,
        log_decode_step: args.log_decode_step,
        repetitions: args.repetitions,
        warmup_per_point: args.warmup_per_point,
        keep_all_operations: args.record_all_steps,
        profile: args.profile,
    };
    if args.correctness_test {
        return correctness_test(args, loaded, &options, prompts, sampling, &bar);
    }
    let options = Options {
        prompts: prompts
            .map(|texts| encode(&loaded.model, &texts))
            .transpose()?,
        ..options
    };

    let mut runner_options = loaded.runner_options(
        &args.model,
        sampling,
        one_batch::longest_sequence(&options),
        None,
    )?;
    let pool_tokens = runner_options.pool_tokens(&loaded.model)?;
    runner_options.max_requests = one_batch::largest_batch(&options, pool_tokens);
    note_smaller_pool(&args.model, pool_tokens, args.quiet);
    let mut environment = environment::measure(loaded.cpu.simd(), roofs);
    environment.gpu = loaded.gpu.as_ref().map(Gpu::describe).transpose()?;
    let place = Place {
        program: program(),
        environment,
        device: loaded.gpu.as_ref().map_or("cpu", Gpu::name),
        threads: match loaded.gpu {
            Some(_) => 1,
            None => loaded.cpu.threads(),
        },
        load_s: loaded.load_s,
    };
    let work = Measuring {
        args,
        options,
        runner_options,
        place,
        files,
        bar: &bar,
    };
    loaded.run(&bar, work)
}

/// A sweep, and where its results go.
struct Measuring<'a> {
    args: &'a OneBatch,
    options: Options,
    runner_options: RunnerOptions,
    place: Place,
    files: Files,
    bar: &'a Bar,
}

impl Work for Measuring<'_> {
    fn timer(&self) -> Option<TimerChoice> {
        Some(self.args.timers.timer)
    }

    fn counters(&self) -> Option<&[String]> {
        self.args.timers.counters.as_deref()
    }

    fn is_quiet(&self) -> bool {
        self.args.quiet
    }

    fn run<B: Backend>(
        self,
        backend: B,
        model: &Model,
        instruments: Instruments<'_>,
    ) -> Result<(), Failure> {
        let Measuring {
            args,
            options,
            runner_options,
            mut place,
            mut files,
            bar,
        } = self;
        let start = Instant::now();
        let mut runner = Runner::watched(backend, model, &runner_options, instruments)?;
        // A device with memory of its own has the weights only now.
        place.load_s += start.elapsed().as_secs_f64();
        let mut record = new_record(place, model, &runner, &runner_options, &options);
        if args.timers.overhead {
            let costs = one_batch::overhead(&mut runner, &options)?;
            if !args.quiet {
                bar.suspend(|| print_stderr(&report::overhead_text(&costs)));
            }
            record.timing.get_or_insert_with(Timing::of_host).overhead = costs;
        }
        let stop = stop_on_interrupt();
        let mut console = Console {
            args,
            files: &mut files,
            bar,
            output_closed: false,
        };
        let outcome = one_batch::run(&mut runner, &options, &mut record, &stop, &mut console);
        let output_closed = console.output_closed;
        bar.clear();
        record.complete = outcome.is_ok();
        let finished = finish(args, &mut files, &record);
        match outcome {
            Ok(()) => finished.and_then(|()| device::check_findings(&record)),
            Err(_) if output_closed => Err(Failure::OutputClosed),
            Err(error) => {
                finished?;
                let saved = match record.points.len() {
                    0 => "no point was finished".to_owned(),
                    n => format!("the {n} finished points are in {}", files.folder.display()),
                };
                let message = anyhow::anyhow!("{error}; {saved}");
                if error.is_input() {
                    Err(Failure::Input(message))
                } else {
                    Err(Failure::Run(message))
                }
            }
        }
    }
}

/// Writes what is made from the whole record, and says where it is.
fn finish(args: &OneBatch, files: &mut Files, record: &Record) -> Result<(), Failure> {
    if record.points.is_empty() && record.complete {
        if !args.quiet {
            print_stderr(
                "every point was skipped: nothing was measured, and no record was written",
            );
        }
        return Ok(());
    }
    if record.points.is_empty() {
        return Ok(());
    }
    files.write_record(record)?;
    if !record.has_times() {
        if !args.quiet {
            print_stderr(&report::memory_text(record));
            let folder = files.folder.display();
            print_stderr(&format!(
                "{folder}: record.json; make the tables again with `stepscope report {folder}`. An emulated device has no time: \
                 there is neither trace nor flame graph"
            ));
        }
        return Ok(());
    }
    reports::write_flamegraphs(record, &files.folder, &FoldOptions::default(), false)?;
    reports::write_trace(record, None, &files.folder.join("trace.json"))?;
    if !args.quiet {
        print_stderr(&report::memory_text(record));
        let folder = files.folder.display();
        print_stderr(&format!(
            "{folder}: record.json, trace.json (open in ui.perfetto.dev), prefill.svg, decode.svg (open in a browser); make the \
             tables again with `stepscope report {folder}`"
        ));
    }
    Ok(())
}

/// That what was asked for can be had: a timer other than the host's takes a GPU, and an emulated device has no time at all.
fn check_timer(args: &OneBatch, gpu: Option<&Gpu>) -> Result<(), Failure> {
    let name = match args.timers.timer {
        TimerChoice::Auto => return Ok(()),
        TimerChoice::Wall => "wall",
        TimerChoice::Events => "events",
        TimerChoice::Cupti => "cupti",
        TimerChoice::Graph => "graph",
    };
    match gpu {
        Some(gpu) if gpu.is_emulated() => Err(Failure::input(format!(
            "--timer {name}: an emulated device has no time; leave it out, or use --device cuda"
        ))),
        None if args.timers.timer != TimerChoice::Wall => Err(Failure::input(format!(
            "--timer {name} times kernels on a GPU; on the CPU device the host's clock takes every time, which is --timer wall"
        ))),
        _ => Ok(()),
    }
}

fn correctness_test(
    args: &OneBatch,
    loaded: Loaded,
    options: &Options,
    prompts: Option<Vec<String>>,
    sampling: stepscope_kernels::sample::SamplingParams,
    bar: &Bar,
) -> Result<(), Failure> {
    let batch_size = options.batch_sizes.first().copied().unwrap_or(1);
    let output_len = options.output_lens.first().copied().unwrap_or(1);
    let prompts = match prompts {
        Some(mut prompts) => {
            if prompts.len() > batch_size {
                print_stderr(&format!(
                    "Custom input size ({}) is larger than batch_size ({batch_size}). Using the first {batch_size} prompts.",
                    prompts.len()
                ));
                prompts.truncate(batch_size);
            }
            prompts
        }
        None => correctness::PROMPTS.map(str::to_owned).to_vec(),
    };
    let tokenizer = loaded
        .model
        .tokenizer
        .as_ref()
        .ok_or_else(|| no_tokenizer(&loaded.model))?;
    let mut longest = 0;
    for prompt in &prompts {
        longest = longest.max(tokenizer.encode(prompt, true)?.len());
    }
    let mut runner_options = loaded.runner_options(
        &args.model,
        sampling,
        longest.saturating_add(output_len),
        Some(DType::F32),
    )?;
    runner_options.max_requests = prompts.len();
    let work = Correctness {
        args,
        runner_options,
        prompts,
        output_len,
        bar,
    };
    loaded.run(bar, work)
}

/// The prompts of a correctness test.
struct Correctness<'a> {
    args: &'a OneBatch,
    runner_options: RunnerOptions,
    prompts: Vec<String>,
    output_len: usize,
    bar: &'a Bar,
}

impl Work for Correctness<'_> {
    fn run<B: Backend>(
        self,
        backend: B,
        model: &Model,
        instruments: Instruments<'_>,
    ) -> Result<(), Failure> {
        let args = self.args;
        let tokenizer = model
            .tokenizer
            .as_ref()
            .ok_or_else(|| no_tokenizer(model))?;
        let mut runner = Runner::watched(backend, model, &self.runner_options, instruments)?;
        let mut files = Files::none();
        let mut console = Console {
            args,
            files: &mut files,
            bar: self.bar,
            output_closed: false,
        };
        let outcome = correctness::run(
            &mut runner,
            tokenizer,
            &self.prompts,
            args.cut_len,
            self.output_len,
            &mut console,
        );
        match outcome {
            Err(_) if console.output_closed => Err(Failure::OutputClosed),
            outcome => Ok(outcome?),
        }
    }
}

fn no_tokenizer(model: &Model) -> Failure {
    Failure::input(format!(
        "{} has no tokenizer, which prompts as text need; give --tokenizer-path",
        model.name
    ))
}

fn encode(model: &Model, prompts: &[String]) -> Result<Vec<Vec<u32>>, Failure> {
    let tokenizer = model
        .tokenizer
        .as_ref()
        .ok_or_else(|| no_tokenizer(model))?;
    prompts
        .iter()
        .map(|text| Ok(tokenizer.encode(text, true)?))
        .collect()
}

/// The prompts of a file, one per line.
fn read_prompts(path: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(path).map_err(|e| {
        Failure::input(format!(
            "cannot read the prompt file {}: {e}",
            path.display()
        ))
    })?;
    let prompts: Vec<String> = text
        .lines()
        .map(|l| l.trim().to_owned())
        .filter(|l| !l.is_empty())
        .collect();
    if prompts.is_empty() {
        return Err(Failure::input(format!(
            "the prompt file {} holds no prompt; write one per line",
            path.display()
        )));
    }
    Ok(prompts)
}

fn note_smaller_pool(args: &ModelArgs, pool_tokens: usize, quiet: bool) {
    if let Some(wanted) = args.max_total_tokens
        && wanted / args.page_size * args.page_size > pool_tokens
        && !quiet
    {
        print_stderr(&format!(
            "--max-total-tokens {wanted} is more than memory allows: the KV pool gets {pool_tokens} tokens"
        ));
    }
}

fn program() -> Program {
    Program {
        name: "stepscope".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("STEPSCOPE_COMMIT").map(str::to_owned),
        command: std::env::args().collect(),
    }
}

/// A flag that Ctrl-C sets. A second Ctrl-C ends the program at once.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let installed = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
        print_stderr("stopping after this step; press Ctrl-C again to stop at once");
    });
    if let Err(error) = installed {
        print_stderr(&format!(
            "Ctrl-C will end the run without writing its record: {error}"
        ));
    }
    stop
}

/// Where a run writes. Everything is opened before the first step: a result that cannot be kept is not worth computing.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    results: Option<(PathBuf, File)>,
    /// The record in the folder is this run's.
    record_is_ours: bool,
}

impl Files {
    fn open(args: &OneBatch) -> Result<Files, Failure> {
        if args.correctness_test {
            return Ok(Files::none());
        }
        let folder = match &args.out {
            Some(folder) => folder.clone(),
            // A run name is a name, not a path: it does not lead out of runs/.
            None => Path::new("runs").join(
                args.run_name
                    .replace(['/', '\\'], "_")
                    .trim_start_matches('.'),
            ),
        };
        fs::create_dir_all(&folder).map_err(|e| {
            Failure::input(format!(
                "cannot make the folder {}: {e}; give another with --out",
                folder.display()
            ))
        })?;
        let probe = folder.join(".writable");
        fs::write(&probe, b"")
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|e| {
                Failure::input(format!(
                    "cannot write to {}: {e}; give another folder with --out",
                    folder.display()
                ))
            })?;
        let results = match args.result_filename.as_str() {
            "" => None,
            name => {
                let file = OpenOptions::new().append(true).create(true).open(name).map_err(|e| {
                    Failure::input(format!("cannot write the result file {name}: {e}; give another with --result-filename"))
                })?;
                Some((PathBuf::from(name), file))
            }
        };
        Ok(Files {
            folder,
            results,
            record_is_ours: false,
        })
    }

    fn none() -> Files {
        Files {
            folder: PathBuf::new(),
            results: None,
            record_is_ours: false,
        }
    }

    /// Writes the record. An earlier run's is kept as `record.previous.json`, and only once there is something to replace it.
    fn write_record(&mut self, record: &Record) -> Result<(), Failure> {
        let path = self.folder.join("record.json");
        if !self.record_is_ours && path.exists() {
            let previous = self.folder.join("record.previous.json");
            fs::rename(&path, &previous)
                .map_err(|e| Failure::run(format!("cannot rename {}: {e}", path.display())))?;
        }
        self.record_is_ours = true;
        Ok(record.write(&path)?)
    }
}

/// Tells a person and the result file what the benchmark does.
#[derive(Debug)]
struct Console<'a> {
    args: &'a OneBatch,
    files: &'a mut Files,
    bar: &'a Bar,
    /// Standard output was closed by its reader.
    output_closed: bool,
}

impl Console<'_> {
    fn notify(&self, text: &str) {
        if !self.args.quiet {
            self.bar.suspend(|| print_stderr(text));
        }
    }

    fn trace_path(&self, point: &Point, part: Option<StepKind>) -> PathBuf {
        let mut name = format!(
            "{}_batch{}_input{}_output{}",
            self.args.profile_filename_prefix, point.batch_size, point.input_len, point.output_len
        );
        if let Some(kind) = part {
            name = format!("{name}_{}", kind.name());
        }
        name.push_str(".trace.json.gz");
        match self.args.compat {
            Compat::V042 => PathBuf::from(name),
            Compat::Latest => std::env::var_os("SGLANG_TORCH_PROFILER_DIR")
                .map_or_else(std::env::temp_dir, PathBuf::from)
                .join(name),
        }
    }
}

impl Observer for Console<'_> {
    fn line(&mut self, line: &str) -> Result<(), Error> {
        let written = self
            .bar
            .suspend(|| write_stdout(format!("{line}\n").as_bytes()));
        match written {
            Ok(()) => Ok(()),
            Err(Failure::OutputClosed) => {
                self.output_closed = true;
                Err(Error::interrupted())
            }
            Err(Failure::Input(error) | Failure::Run(error)) => {
                Err(Error::failed(error.to_string()))
            }
        }
    }

    fn note(&mut self, note: &str) {
        self.notify(note);
    }

    fn progress(&mut self, label: &str, done: usize, total: usize) {
        self.bar.steps(label, done, total);
    }

    fn measured(&mut self, measurement: &Measurement) -> Result<(), Error> {
        let Some((path, file)) = &mut self.files.results else {
            return Ok(());
        };
        file.write_all((measurement.json_line() + "\n").as_bytes())
            .map_err(|e| {
                Error::failed(format!(
                    "cannot append to the result file {}: {e}",
                    path.display()
                ))
            })
    }

    fn point(&mut self, record: &Record) -> Result<(), Error> {
        self.notify(&report::point_text(record, record.points.len() - 1));
        // A run that is killed has its finished points on disk.
        match self.files.write_record(record) {
            Err(Failure::Input(error) | Failure::Run(error)) => {
                Err(Error::failed(error.to_string()))
            }
            Ok(()) | Err(Failure::OutputClosed) => Ok(()),
        }
    }

    fn trace(
        &mut self,
        record: &Record,
        point: Point,
        part: Option<StepKind>,
    ) -> Result<(), Error> {
        let path = self.trace_path(&point, part);
        let selection = Selection {
            point: None,
            kind: part,
        };
        let record = Record {
            points: vec![point],
            ..record.clone()
        };
        let failed = |e: std::io::Error| {
            Error::failed(format!("cannot write the trace {}: {e}", path.display()))
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut encoder =
            GzEncoder::new(File::create(&path).map_err(failed)?, Compression::default());
        trace::write(&record, &selection, &mut encoder)
            .map_err(|e| Error::failed(e.to_string()))?;
        encoder.finish().map_err(failed)?;
        let part = part.map_or(String::new(), |kind| format!("for {} ", kind.name()));
        // The words are sglang's, since its line is what programs look for; the trace is ours.
        self.line(&format!(
            "torch profiler chrome trace {part}saved to {}",
            path.display()
        ))
    }
}
