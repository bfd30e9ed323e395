//! The benchmark that sglang calls `bench_one_batch`: one static batch, prefilled and decoded without a server.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use stepscope_kernels::Backend;
use stepscope_profiler::gpu_watch::Sampler;
use stepscope_profiler::{
    Point, Record, RecordingCost, Repetition, Skipped, Step, StepKind, StepTotal, environment,
    stats,
};

use crate::bench::overhead;
use crate::bench::sglang::{Compat, Measurement, decode_line, prints_decode_step, skipping_line};
use crate::{Error, Runner};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Goes into every result.
    pub run_name: String,
    /// The sweep is the product of these three, the last varying fastest.
    pub batch_sizes: Vec<usize>,
    /// Prompt tokens per request.
    pub input_lens: Vec<usize>,
    /// Tokens to generate per request.
    pub output_lens: Vec<usize>,
    /// Prompts instead of synthetic ones; cut, or padded with the last one, to the batch size.
    pub prompts: Option<Vec<Vec<u32>>>,
    /// Which sglang to follow.
    pub compat: Compat,
    /// Seed of random prompts.
    pub seed: u64,
    /// Print every n-th decode step too.
    pub log_decode_step: usize,
    /// Measure every point so often.
    pub repetitions: usize,
    /// Run every point once, unmeasured, before measuring it: sglang warms up the first point only.
    pub warmup_per_point: bool,
    /// Keep the operations of every step in the record, not only those of the prefill and of three decode steps.
    pub keep_all_operations: bool,
    /// Write traces in sglang's way.
    pub profile: bool,
}

/// The longest sequence that any point of the sweep needs.
pub fn longest_sequence(options: &Options) -> usize {
    let longest = |lens: &[usize]| lens.iter().copied().max().unwrap_or(0);
    let prompt = match &options.prompts {
        Some(prompts) => prompts.iter().map(Vec::len).max().unwrap_or(0),
        None => longest(&options.input_lens),
    };
    let first = |lens: &[usize]| lens.first().copied().unwrap_or(0);
    let warmup = options
        .compat
        .warmup_output_len(first(&options.output_lens));
    let warmup = first(&options.input_lens).saturating_add(warmup);
    prompt
        .saturating_add(longest(&options.output_lens))
        .max(warmup)
}

/// The largest batch of the sweep that fits a KV pool of `max_total_tokens`; at least 1.
pub fn largest_batch(options: &Options, max_total_tokens: usize) -> usize {
    let shortest = |lens: &[usize]| lens.iter().copied().min().unwrap_or(0);
    let tokens = shortest(&options.input_lens)
        .saturating_add(shortest(&options.output_lens))
        .max(1);
    let fits = |&&batch_size: &&usize| batch_size <= max_total_tokens / tokens;
    options
        .batch_sizes
        .iter()
        .filter(fits)
        .copied()
        .max()
        .unwrap_or(1)
}

/// Where the benchmark tells what happens.
pub trait Observer {
    /// One line of sglang's standard output.
    ///
    /// # Errors
    /// When it cannot be written: the benchmark stops.
    fn line(&mut self, line: &str) -> Result<(), Error>;

    /// Something that a person should know and that is no result.
    fn note(&mut self, note: &str);

    /// `done` of `total` steps of the running point are done.
    fn progress(&mut self, label: &str, done: usize, total: usize);

    /// A point was measured once more: `measurement` is a line of the result file.
    ///
    /// # Errors
    /// When it cannot be written: the benchmark stops.
    fn measured(&mut self, measurement: &Measurement) -> Result<(), Error>;

    /// The last point of `record` is complete.
    ///
    /// # Errors
    /// When the record cannot be written: the benchmark stops.
    fn point(&mut self, record: &Record) -> Result<(), Error>;

    /// A trace of `steps` is wanted, of the given point and part of it (all of it when absent).
    ///
    /// # Errors
    /// When it cannot be written.
    fn trace(&mut self, record: &Record, point: Point, part: Option<StepKind>)
    -> Result<(), Error>;
}

/// Runs the sweep. Points go into `record` as they are finished, so that an error or an interruption loses none of them.
///
/// # Errors
/// When a step fails, computes nonsense, or cannot be reported; when `stop` was set ([`Error::is_interrupted`]).
pub fn run<B: Backend>(
    runner: &mut Runner<B>,
    options: &Options,
    record: &mut Record,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    let mut sweep = Sweep {
        runner,
        options,
        stop,
        observer,
    };
    sweep.observer.line(&format!(
        "max_total_num_tokens={}",
        sweep.runner.max_total_tokens()
    ))?;
    let first = |values: &[usize], what: &str| {
        values
            .first()
            .copied()
            .ok_or_else(|| Error::input(format!("no {what} was given")))
    };
    let batch_size = first(&options.batch_sizes, "batch size")?;
    let input_len = first(&options.input_lens, "input length")?;
    let output_len = options
        .compat
        .warmup_output_len(first(&options.output_lens, "output length")?);
    if !sweep.runner.is_timed() {
        sweep.observer.note(
            "an emulated device has no time: there is no warm-up, and no latency is printed or written",
        );
        return sweep.all_points(record);
    }
    sweep.observer.line("Warmup ...")?;
    sweep
        .observer
        .note("warming up: the lines between \"Warmup ...\" and \"Benchmark ...\" are not results");
    if sweep.fits(batch_size, input_len, output_len) {
        let prompts = synthetic_prompts(options, sweep.runner.vocab_size(), batch_size, input_len);
        sweep.measure(
            record,
            batch_size,
            input_len,
            output_len,
            &prompts,
            Purpose::Warmup,
        )?;
    } else {
        sweep
            .observer
            .line(&skipping_line(batch_size, input_len, output_len))?;
    }
    sweep.observer.line("Benchmark ...")?;
    sweep.all_points(record)
}

/// What recording costs a decode step of the sweep's first point.
///
/// # Errors
/// As [`overhead::measure`].
pub fn overhead<B: Backend>(
    runner: &mut Runner<B>,
    options: &Options,
) -> Result<Vec<RecordingCost>, Error> {
    let first = |values: &[usize]| values.first().copied().unwrap_or(1);
    let (batch_size, input_len) = (first(&options.batch_sizes), first(&options.input_lens));
    let prompts = synthetic_prompts(options, runner.vocab_size(), batch_size, input_len);
    overhead::measure(runner, &prompts, first(&options.output_lens))
}

struct Sweep<'a, B: Backend> {
    runner: &'a mut Runner<B>,
    options: &'a Options,
    stop: &'a AtomicBool,
    observer: &'a mut dyn Observer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The lines are printed, as sglang prints those of its warm-up.
    Warmup,
    /// Nothing is printed.
    SilentWarmup,
    Measure,
}

impl<B: Backend> Sweep<'_, B> {
    fn all_points(&mut self, record: &mut Record) -> Result<(), Error> {
        let options = self.options;
        for &batch_size in &options.batch_sizes {
            for &input_len in &options.input_lens {
                for &output_len in &options.output_lens {
                    self.point(record, batch_size, input_len, output_len)?;
                }
            }
        }
        Ok(())
    }

    fn fits(&self, batch_size: usize, input_len: usize, output_len: usize) -> bool {
        let tokens = input_len.saturating_add(output_len).max(1);
        batch_size <= self.runner.max_total_tokens() / tokens
    }

    fn point(
        &mut self,
        record: &mut Record,
        batch_size: usize,
        input_len: usize,
        output_len: usize,
    ) -> Result<(), Error> {
        if !self.fits(batch_size, input_len, output_len) {
            self.observer
                .line(&skipping_line(batch_size, input_len, output_len))?;
            record.skipped.push(Skipped {
                batch_size,
                input_len,
                output_len,
                reason: format!(
                    "{batch_size} x ({input_len} + {output_len}) tokens do not fit the KV pool of {}",
                    self.runner.max_total_tokens()
                ),
            });
            return Ok(());
        }
        let prompts = self.prompts(batch_size, input_len)?;
        if self.options.warmup_per_point && self.runner.is_timed() {
            let output_len = output_len.min(8);
            self.measure(
                record,
                batch_size,
                input_len,
                output_len,
                &prompts,
                Purpose::SilentWarmup,
            )?;
        }
        let mut point = Point {
            batch_size,
            input_len,
            output_len,
            repetitions: Vec::new(),
            prefill: StepTotal::empty(),
            decode: (output_len > 1).then(StepTotal::empty),
            gpu: None,
            counted: Vec::new(),
            replayed: Vec::new(),
        };
        let from = self.runner.watch().map(Sampler::now);
        for _ in 0..self.options.repetitions.max(1) {
            let (measurement, mut repetition) = self.measure(
                record,
                batch_size,
                input_len,
                output_len,
                &prompts,
                Purpose::Measure,
            )?;
            for step in &repetition.steps {
                match step.kind {
                    StepKind::Prefill => point.prefill.add(step),
                    StepKind::Decode => {
                        if let Some(decode) = &mut point.decode {
                            decode.add(step);
                        }
                    }
                }
            }
            if !self.options.keep_all_operations {
                keep_telling_operations(&mut repetition.steps);
            }
            if self.runner.is_timed() {
                self.observer.measured(&measurement)?;
            }
            point.repetitions.push(repetition);
        }
        let watch = self.runner.watch().zip(from);
        point.gpu = watch.map(|(watch, from)| watch.since(from));
        self.measure_apart(&mut point, &prompts)?;
        record.points.push(point);
        let (_, kv_used_peak) = self.runner.kv_bytes();
        record.memory.kv_used_peak = kv_used_peak;
        record.memory.peak_rss = environment::peak_rss_bytes();
        self.observer.point(record)
    }

    /// What takes steps of its own, apart from those that are timed.
    fn measure_apart(&mut self, point: &mut Point, prompts: &[Vec<u32>]) -> Result<(), Error> {
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let decodes = point.output_len > 1;
        if decodes {
            point.replayed = self.runner.time_replays(&prompts)?;
        }
        match self.runner.count(&prompts, decodes)? {
            Ok(counted) => point.counted = counted,
            Err(why) => self.observer.note(&format!("no hardware counters: {why}")),
        }
        Ok(())
    }

    /// The prompts of a point: given ones, cut or padded to the batch size, or synthetic ones.
    fn prompts(&mut self, batch_size: usize, input_len: usize) -> Result<Vec<Vec<u32>>, Error> {
        let Some(given) = &self.options.prompts else {
            return Ok(synthetic_prompts(
                self.options,
                self.runner.vocab_size(),
                batch_size,
                input_len,
            ));
        };
        let Some(last) = given.last() else {
            return Err(Error::input("the prompt file holds no prompt"));
        };
        let mut prompts: Vec<_> = given.iter().take(batch_size).cloned().collect();
        let what = match given.len().cmp(&batch_size) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(format!(
                "larger than batch_size ({batch_size}). Using the first {batch_size} prompts."
            )),
            std::cmp::Ordering::Less => Some(format!(
                "smaller than batch_size ({batch_size}). Pad to the desired batch_size with the last prompt."
            )),
        };
        if let Some(what) = what {
            self.observer
                .line(&format!("Custom input size ({}) is {what}", given.len()))?;
        }
        prompts.resize(batch_size, last.clone());
        let tokens: usize = prompts.iter().map(Vec::len).sum();
        if tokens != batch_size * input_len {
            self.observer.note(&format!(
                "the prompts hold {tokens} tokens; sglang's prefill throughput counts {batch_size} x {input_len} all the \
                 same"
            ));
        }
        Ok(prompts)
    }

    /// One measurement, as sglang's `latency_test_run_once`.
    fn measure(
        &mut self,
        record: &Record,
        batch_size: usize,
        input_len: usize,
        output_len: usize,
        prompts: &[Vec<u32>],
        purpose: Purpose,
    ) -> Result<(Measurement, Repetition), Error> {
        let options = self.options;
        let is_timed = self.runner.is_timed();
        let seconds = |step: &Step| {
            if is_timed {
                step.wall_ns as f64 * 1e-9
            } else {
                f64::NAN
            }
        };
        let prints = purpose != Purpose::SilentWarmup && is_timed;
        let traces = options.profile && purpose == Purpose::Measure && is_timed;
        let label = match purpose {
            Purpose::Measure => format!("batch {batch_size}, {input_len} in, {output_len} out"),
            Purpose::Warmup | Purpose::SilentWarmup => {
                format!("warm-up: batch {batch_size}, {input_len} in")
            }
        };
        let mut measurement = Measurement {
            run_name: options.run_name.clone(),
            batch_size,
            input_len,
            output_len,
            prefill_latency: 0.0,
            median_decode_latency: None,
            total_latency: 0.0,
        };
        self.runner.clear();
        self.observer.progress(&label, 0, output_len);
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let (mut batch, prefill) = self.runner.prefill(&prompts)?;
        self.runner.check_logits(&batch)?;
        let mut output_ids = vec![self.runner.sampled(&batch)?[0]];
        measurement.prefill_latency = seconds(&prefill);
        measurement.total_latency = measurement.prefill_latency;
        let mut steps = vec![prefill];
        if traces && options.compat == Compat::Latest {
            let point = point_of(&measurement, steps.clone(), output_ids.clone());
            self.observer
                .trace(record, point, Some(StepKind::Prefill))?;
        }
        if prints {
            self.observer.line(&measurement.prefill_line())?;
        }
        let mut latencies = Vec::with_capacity(output_len.saturating_sub(1));
        for index in 0..output_len - 1 {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::interrupted());
            }
            let step = self.runner.decode(&mut batch, None)?;
            let ids = self.runner.sampled(&batch)?;
            if output_ids.len() < KEPT_OUTPUT_IDS {
                output_ids.push(ids[0]);
            }
            if index == 0 || index + 2 == output_len {
                self.runner.check_logits(&batch)?;
            }
            let latency = seconds(&step);
            measurement.total_latency += latency;
            if is_timed {
                latencies.push(latency);
            }
            if traces && options.compat == Compat::Latest && index == output_len / 2 {
                let point = point_of(&measurement, vec![step.clone()], output_ids.clone());
                self.observer.trace(record, point, Some(StepKind::Decode))?;
            }
            steps.push(step);
            if prints
                && prints_decode_step(
                    index,
                    options.log_decode_step * usize::from(purpose == Purpose::Measure),
                )
            {
                self.observer
                    .line(&decode_line(options.compat, index, batch_size, latency))?;
            }
            self.observer.progress(&label, index + 2, output_len);
        }
        measurement.median_decode_latency = stats::median(&latencies);
        if traces && options.compat == Compat::V042 {
            let point = point_of(&measurement, steps.clone(), output_ids.clone());
            self.observer.trace(record, point, None)?;
        }
        if prints {
            if let Some(line) = measurement.median_decode_line() {
                self.observer.line(&line)?;
            }
            self.observer.line(&measurement.total_line())?;
        }
        self.runner.release(batch);
        let repetition = Repetition {
            prefill_latency_s: measurement.prefill_latency,
            first_decode_latency_s: latencies.first().copied(),
            median_decode_latency_s: measurement.median_decode_latency,
            total_latency_s: measurement.total_latency,
            output_ids,
            steps,
        };
        Ok((measurement, repetition))
    }
}

/// How many of the first request's tokens a record keeps.
const KEPT_OUTPUT_IDS: usize = 32;

/// A point that holds just these steps, for a trace.
fn point_of(measurement: &Measurement, steps: Vec<Step>, output_ids: Vec<u32>) -> Point {
    let mut prefill = StepTotal::empty();
    let mut decode = StepTotal::empty();
    for step in &steps {
        match step.kind {
            StepKind::Prefill => prefill.add(step),
            StepKind::Decode => decode.add(step),
        }
    }
    Point {
        batch_size: measurement.batch_size,
        input_len: measurement.input_len,
        output_len: measurement.output_len,
        repetitions: vec![Repetition {
            prefill_latency_s: measurement.prefill_latency,
            first_decode_latency_s: None,
            median_decode_latency_s: measurement.median_decode_latency,
            total_latency_s: measurement.total_latency,
            output_ids,
            steps,
        }],
        prefill,
        decode: (decode.steps > 0).then_some(decode),
        gpu: None,
        counted: Vec::new(),
        replayed: Vec::new(),
    }
}

/// Drops the operations of all decode steps but the first, the median and the slowest: a run of 1000 steps would be
/// hundreds of megabytes of JSON otherwise, of steps that differ little.
fn keep_telling_operations(steps: &mut [Step]) {
    let mut decodes: Vec<usize> = (0..steps.len())
        .filter(|&i| steps[i].kind == StepKind::Decode)
        .collect();
    let mut kept: HashSet<usize> = decodes.first().copied().into_iter().collect();
    decodes.sort_by_key(|&i| steps[i].wall_ns);
    kept.extend(decodes.last());
    // Of two middle steps the faster one: the median of an even number lies between them.
    kept.extend(decodes.get(decodes.len().saturating_sub(1) / 2));
    for (i, step) in steps.iter_mut().enumerate() {
        if step.kind == StepKind::Decode && !kept.contains(&i) {
            step.operations = Vec::new();
        }
    }
}

/// Prompts as sglang makes them: id 1 throughout, or random ids below 10000.
fn synthetic_prompts(
    options: &Options,
    vocab_size: usize,
    batch_size: usize,
    input_len: usize,
) -> Vec<Vec<u32>> {
    match options.compat {
        Compat::V042 => vec![vec![1.min(vocab_size as u32 - 1); input_len]; batch_size],
        Compat::Latest => {
            let bound = vocab_size.min(10_000) as u64;
            let mut state = options.seed;
            let mut next = || {
                // SplitMix64, and Lemire's multiplication to bring it below the bound.
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^= z >> 31;
                ((u128::from(z) * u128::from(bound)) >> 64) as u32
            };
            (0..batch_size)
                .map(|_| (0..input_len).map(|_| next()).collect())
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(compat: Compat) -> Options {
        Options {
            run_name: "test".to_owned(),
            batch_sizes: vec![1],
            input_lens: vec![16],
            output_lens: vec![4],
            prompts: None,
            compat,
            seed: 42,
            log_decode_step: 0,
            repetitions: 1,
            warmup_per_point: false,
            keep_all_operations: false,
            profile: false,
        }
    }

    fn step(kind: StepKind, index: usize, wall_ns: u64) -> Step {
        Step {
            kind,
            index,
            batch_size: 1,
            wall_ns,
            phases: Vec::new(),
            operations: vec![stepscope_profiler::Operation {
                name: "gemm".into(),
                kernel: "gemm".into(),
                phase: stepscope_profiler::Phase::Forward,
                layer: None,
                work: Default::default(),
                launches: 0,
                start_ns: 0,
                duration_ns: wall_ns,
                timer: stepscope_profiler::Timer::Wall,
            }],
            kernels: Vec::new(),
            findings: Vec::new(),
            device: None,
            sm_clock_mhz: None,
        }
    }

    #[test]
    fn operations_are_kept_for_prefill_first_median_and_slowest() {
        let walls = [50, 10, 30, 20, 90, 40];
        let mut steps = vec![step(StepKind::Prefill, 0, 1000)];
        steps.extend(
            walls
                .iter()
                .enumerate()
                .map(|(i, &w)| step(StepKind::Decode, i, w)),
        );
        keep_telling_operations(&mut steps);
        let kept: Vec<_> = steps.iter().map(|s| !s.operations.is_empty()).collect();
        // Prefill; 50 (first), 30 (the lower of the middle two), 90 (slowest).
        assert_eq!(kept, [true, true, false, true, false, true, false]);
        let mut prefill_only = vec![step(StepKind::Prefill, 0, 1000)];
        keep_telling_operations(&mut prefill_only);
        assert_eq!(prefill_only[0].operations.len(), 1);
    }

    #[test]
    fn synthetic_prompts_follow_the_version() {
        assert_eq!(
            synthetic_prompts(&options(Compat::V042), 100, 2, 3),
            [[1, 1, 1], [1, 1, 1]]
        );
        let random = synthetic_prompts(&options(Compat::Latest), 50_000, 4, 1000);
        let ids: Vec<u32> = random.concat();
        assert!(ids.iter().all(|&id| id < 10_000));
        assert!(ids.iter().any(|&id| id > 9_900));
        assert_eq!(
            random,
            synthetic_prompts(&options(Compat::Latest), 50_000, 4, 1000),
            "seeded"
        );
        assert!(
            synthetic_prompts(&options(Compat::Latest), 7, 1, 100)[0]
                .iter()
                .all(|&id| id < 7)
        );
    }

    #[test]
    fn batches_that_fit_nowhere_size_nothing() {
        let options = Options {
            batch_sizes: vec![1, 8, 1_000_000],
            ..options(Compat::V042)
        };
        assert_eq!(largest_batch(&options, 20 * 8), 8);
        assert_eq!(largest_batch(&options, 20 * 8 - 1), 1);
        assert_eq!(largest_batch(&options, 0), 1);
    }

    #[test]
    fn the_longest_sequence_counts_the_warm_up() {
        assert_eq!(longest_sequence(&options(Compat::V042)), 16 + 8);
        assert_eq!(longest_sequence(&options(Compat::Latest)), 16 + 4);
    }
}
