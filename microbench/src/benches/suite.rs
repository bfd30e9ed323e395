//! All groups share this: criterion, the device, what is printed of a benchmark, and what goes into the record.

use std::cell::{OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use stepscope_device::Kind;
use stepscope_device::driver::Driver;
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::{Cpu, DType};
use stepscope_profiler::Timer;
use stepscope_profiler::device_sheet::Kept;
use stepscope_profiler::microbench::{self, Row, Sample, Series, Status};

use super::arguments::{Arguments, Mode};
use super::cpu_roofs::CpuRoofs;
use super::format::{Format, Scale};
use super::profile::{FileProfiler, Profile};
use super::roofs::{Bound, Roofs, SHEET, of_gpu};
use super::stopwatch::{Failures, Stopwatch};
use super::{Surroundings, launch, record};
use crate::{Error, Work};

/// Chooses what takes the times of kernels on a GPU: `events` (the default) or `cupti`.
pub(super) const TIMER: &str = "STEPSCOPE_BENCH_TIMER";

/// Which GPU the groups run on, by its number; then one that cannot be used is an error, not a reason to skip.
const DEVICE: &str = "STEPSCOPE_BENCH_DEVICE";

/// The number in [`DEVICE`].
pub(super) fn wanted_device() -> Result<Option<usize>, Error> {
    let Some(text) = std::env::var_os(DEVICE).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    let wrong = || {
        Error::Input(format!(
            "{DEVICE}={}: it is the number of a GPU, like 0",
            text.display()
        ))
    };
    number.ok_or_else(wrong).map(Some)
}

/// One benchmark.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) group: &'static str,
    /// Who computes: `cpu`, `cuda`, `cublaslt`, or what is done where it is no kernel.
    pub(super) function: String,
    /// The shape, with the model that it is of.
    pub(super) shape: String,
    /// The operation, as `kernels/` calls it.
    pub(super) operation: &'static str,
    pub(super) dtype: &'static str,
    pub(super) rate: Rate,
    pub(super) bound: Option<Bound>,
}

/// What the throughput of a benchmark is counted in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rate {
    None,
    /// The work of a kernel: the rate printed is of what bounds it.
    Work(Work),
    Tokens(u64),
    Requests(u64),
    Bytes(u64),
}

impl Case {
    pub(super) fn id(&self) -> String {
        match self.shape.is_empty() {
            true => format!("{}/{}", self.group, self.function),
            false => format!("{}/{}/{}", self.group, self.function, self.shape),
        }
    }

    pub(super) fn work(&self) -> Work {
        match self.rate {
            Rate::Work(work) => work,
            Rate::Bytes(bytes) => Work { flops: 0, bytes },
            _ => Work::default(),
        }
    }

    fn throughput(&self) -> Option<(Throughput, &'static str)> {
        Some(match self.rate {
            Rate::None => return None,
            Rate::Tokens(count) => (Throughput::Elements(count), "token"),
            Rate::Requests(count) => (Throughput::Elements(count), "request"),
            Rate::Bytes(bytes) => (Throughput::Bytes(bytes), "byte"),
            Rate::Work(work) => match self.is_bound_by_arithmetic(work) {
                true => (Throughput::Elements(work.flops), "FLOP"),
                false => (Throughput::Bytes(work.bytes), "byte"),
            },
        })
    }

    fn is_bound_by_arithmetic(&self, work: Work) -> bool {
        let Some(bound) = &self.bound else {
            return work.bytes == 0;
        };
        let floor = |flops, bytes| bound.roof.floor_ns(flops, bytes).unwrap_or(0.0);
        floor(work.flops, 0) > floor(0, work.bytes)
    }
}

/// Does what is measured so often, and says how long it took, in nanoseconds; 0 where it has no time.
pub(super) type Routine<'a> = dyn FnMut(u64) -> Result<f64, Error> + 'a;

/// The wall time of `n` times `work`.
pub(super) fn wall(n: u64, mut work: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let start = Instant::now();
    for _ in 0..n {
        work()?;
    }
    Ok(start.elapsed().as_nanos() as f64)
}

/// A GPU, or what stands in for it.
#[derive(Debug, Clone)]
pub(super) enum Device {
    Gpu(Rc<Cuda>),
    /// Results are right there, and nothing has a time.
    Emulated(Rc<Cuda>),
    /// Why there is none, and what can be done.
    None(String),
}

/// Everything that runs.
pub(super) struct Suite {
    pub(super) arguments: Arguments,
    pub(super) surroundings: Surroundings,
    pub(super) profile: Rc<RefCell<Profile>>,
    host: Criterion<Stopwatch>,
    of_device: Option<(Criterion<Stopwatch>, Stopwatch)>,
    format: Format,
    failures: Failures,
    folder: PathBuf,
    device: OnceCell<Device>,
    cpu: OnceCell<(Rc<Cpu>, Option<Rc<CpuRoofs>>)>,
    gpu_roofs: OnceCell<Roofs>,
    /// What was measured, in the order in which it was.
    rows: Vec<Row>,
    /// What failed, one line each.
    failed: Vec<String>,
    ran: usize,
    /// While names are looked at alone: whether any is meant.
    only_names: Option<bool>,
}

impl Suite {
    pub(super) fn new(arguments: Arguments, surroundings: Surroundings) -> Suite {
        let (format, failures) = (Format::default(), Failures::default());
        let folder = record::folder();
        let profile = Rc::<RefCell<Profile>>::default();
        let watch = Stopwatch::host(format.clone(), failures.clone());
        let host = configured(watch, &folder, &profile);
        Suite {
            arguments,
            surroundings,
            profile,
            host,
            of_device: None,
            format,
            failures,
            folder,
            device: OnceCell::new(),
            cpu: OnceCell::new(),
            gpu_roofs: OnceCell::new(),
            rows: Vec::new(),
            failed: Vec::new(),
            ran: 0,
            only_names: None,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.arguments.mode
    }

    pub(super) fn is_test(&self) -> bool {
        self.mode() == Mode::Test
    }

    /// Whether a benchmark of this name is to run.
    pub(super) fn wants(&self, id: &str) -> bool {
        self.arguments.wants(id)
    }

    /// Whether any of these benchmarks is to run.
    pub(super) fn wants_any<'a>(&self, cases: impl IntoIterator<Item = &'a Case>) -> bool {
        let mut cases = cases.into_iter();
        cases.any(|case| self.arguments.wants(&case.id()))
    }

    /// The CPU device, with its roofs where times are measured.
    pub(super) fn cpu(&self) -> Result<(Rc<Cpu>, Option<Rc<CpuRoofs>>), Error> {
        if let Some(known) = self.cpu.get() {
            return Ok(known.clone());
        }
        let cpu = Rc::new(Cpu::new(None)?);
        let roofs = (self.mode() == Mode::Measure).then(|| Rc::new(CpuRoofs::measure(&cpu)));
        if let Some(roofs) = &roofs {
            println!("roofs of this CPU: {}", roofs.describe());
        }
        Ok(self.cpu.get_or_init(|| (cpu, roofs)).clone())
    }

    /// The roofs of the GPU that was opened, where they are needed; says once which they are.
    pub(super) fn gpu_roofs(&self, cuda: &Cuda) -> Roofs {
        if self.mode() != Mode::Measure {
            return Roofs::default();
        }
        let find = || {
            let named = std::env::var_os(SHEET).filter(|path| !path.is_empty());
            let named = named.as_ref().map(Path::new);
            let device = cuda.context().device();
            let (roofs, note) = of_gpu(device, named, Kept::of_this_user().as_ref());
            if let Some(note) = note {
                println!("note: {note}");
            }
            println!("roofs of this GPU: {}", roofs.describe());
            roofs
        };
        self.gpu_roofs.get_or_init(find).clone()
    }

    /// The GPU; the emulated device in test mode.
    pub(super) fn device(&self) -> &Device {
        self.device.get_or_init(|| {
            let found = self.find_device();
            found.unwrap_or_else(|error| Device::None(error.to_string()))
        })
    }

    /// Fails if a GPU was asked for by its number and cannot be used.
    pub(super) fn open_wanted_device(&self) -> Result<(), Error> {
        if self.mode() != Mode::List
            && let Some(ordinal) = wanted_device()?
        {
            Driver::open()?.device(ordinal)?;
        }
        Ok(())
    }

    fn find_device(&self) -> Result<Device, Error> {
        let ordinal = wanted_device()?.unwrap_or(0);
        let gpu = Driver::open().and_then(|driver| {
            let device = driver.device(ordinal)?;
            Ok((driver, device.is_emulated()))
        });
        let absent = match gpu {
            Ok((driver, false)) => {
                let cuda = Cuda::new(&driver, ordinal, DType::BF16)?;
                return Ok(Device::Gpu(Rc::new(cuda)));
            }
            Ok((_, true)) => "the driver that was found is an emulated one, which has no time".to_owned(),
            Err(error) if matches!(error.kind(), Kind::MissingLibrary | Kind::NoDevice) => {
                "this machine has no GPU that CUDA can use (`stepscope doctor` says what is missing)".to_owned()
            }
            Err(error) => error.to_string(),
        };
        match (self.mode(), self.surroundings.emulated) {
            (Mode::Test, Some(emulated)) => {
                let cuda = Cuda::new(&emulated()?, 0, DType::BF16)?;
                Ok(Device::Emulated(Rc::new(cuda)))
            }
            (Mode::Test, None) => Ok(Device::None(absent)),
            _ => Ok(Device::None(format!(
                "{absent}; `cargo test --benches` checks these on the emulated device"
            ))),
        }
    }

    /// Says once that these benchmarks do not run here, if anybody asked for them.
    pub(super) fn skip(&mut self, group: &'static str, what: &str, reason: &str, cases: &[Case]) {
        if self.mode() == Mode::List || !self.wants_any(cases) {
            return;
        }
        println!("skipped: {group} {what}: {reason}");
        for case in cases.iter().filter(|case| self.arguments.wants(&case.id())) {
            self.rows.push(Row {
                status: Status::Skipped,
                reason: Some(reason.to_owned()),
                ..row_of(case)
            });
        }
    }

    /// [`Suite::skip`], if there is no device for these benchmarks.
    pub(super) fn skip_without_device(&mut self, group: &'static str, cases: &[Case]) {
        if self.mode() != Mode::List
            && self.wants_any(cases)
            && let Device::None(reason) = self.device().clone()
        {
            self.skip(group, "on a GPU", &reason, cases);
        }
    }

    /// A benchmark by the host's clock. What is lent to `routine` is made when it is first called.
    pub(super) fn host(&mut self, case: &Case, routine: &mut Routine<'_>) {
        self.measure(case, Timer::Wall, routine);
    }

    /// A benchmark by a device's clock; `routine` hands over times of the device, or takes them with the stopwatch.
    pub(super) fn on_device(
        &mut self,
        case: &Case,
        routine: &mut dyn FnMut(&Stopwatch, u64) -> Result<f64, Error>,
    ) {
        if self.of_device.is_none() && self.only_names.is_none() && self.mode() != Mode::List {
            let watch = self.device_watch();
            let criterion = configured(watch.clone(), &self.folder, &self.profile);
            self.of_device = Some((criterion, watch));
        }
        let known = self.of_device.as_ref();
        let host = Stopwatch::host(self.format.clone(), self.failures.clone());
        let watch = known.map_or(host, |(_, watch)| watch.clone());
        let timer = watch.timer();
        self.measure(case, timer, &mut |n| routine(&watch, n));
    }

    /// By `STEPSCOPE_BENCH_TIMER`; the host's where nothing has a time.
    fn device_watch(&self) -> Stopwatch {
        let (format, failures) = (self.format.clone(), self.failures.clone());
        let Device::Gpu(cuda) = self.device() else {
            return Stopwatch::host(format, failures);
        };
        let stream = Arc::clone(cuda.stream());
        if std::env::var(TIMER).as_deref() == Ok("cupti") {
            match Stopwatch::cupti(&stream, &self.profile, format.clone(), failures.clone()) {
                Ok(watch) => return watch,
                Err(error) => {
                    println!("times by CUDA events, since CUPTI cannot be used: {error}");
                }
            }
        }
        Stopwatch::events(&stream, format, failures)
    }

    /// Whether any of the benchmarks that `groups` defines is to run; none of them does.
    pub(super) fn only_names(&mut self, groups: impl FnOnce(&mut Suite)) -> bool {
        self.only_names = Some(false);
        groups(self);
        self.only_names.take().unwrap_or(false)
    }

    fn measure(&mut self, case: &Case, timer: Timer, routine: &mut Routine<'_>) {
        let id = case.id();
        let mode = self.mode();
        if !self.arguments.wants(&id) {
            return;
        }
        if let Some(any) = &mut self.only_names {
            *any = true;
            return;
        }
        // A run that is stopped keeps the groups that were done.
        if self.rows.last().is_some_and(|row| row.group != case.group) && mode == Mode::Measure {
            let _ = self.save(); // the end says what cannot be written
        }
        let throughput = case.throughput();
        *self.format.0.borrow_mut() = Scale {
            element: throughput
                .as_ref()
                .map_or("element", |(_, element)| element),
            bound: case.bound.clone(),
        };
        let criterion = match (timer, &mut self.of_device) {
            (Timer::Event | Timer::Cupti, Some((of_device, _))) => of_device,
            _ => &mut self.host,
        };
        let mut group = criterion.benchmark_group(case.group);
        group.sampling_mode(SamplingMode::Flat);
        if let Some((throughput, _)) = throughput {
            group.throughput(throughput);
        }
        let mut samples: Vec<(u64, f64)> = Vec::new();
        let mut ran = false;
        let (failures, profile) = (&self.failures, &self.profile);
        let timer_name = timer.name();
        let benchmark = match case.shape.is_empty() {
            true => BenchmarkId::new(case.function.as_str(), ""),
            false => BenchmarkId::new(case.function.as_str(), &case.shape),
        };
        let run = |bencher: &mut criterion::Bencher<'_, Stopwatch>| {
            bencher.iter_custom(|iterations| {
                ran = true;
                let start = Instant::now();
                let time = failures.note(routine(iterations));
                (profile.borrow_mut()).keep_batch(start, iterations, time, timer_name);
                samples.push((iterations, time));
                // A test has no time, and one of a failure is none either.
                if time > 0.0 { time } else { 0.0 }
            });
        };
        match case.shape.is_empty() {
            true => group.bench_function(case.function.as_str(), run),
            false => group.bench_function(benchmark, run),
        };
        group.finish();
        if !ran {
            return;
        }
        self.ran += 1;
        match self.failures.take() {
            Some(error) => {
                self.failed.push(format!("{id}: {error}"));
                let status = match error {
                    Error::Wrong(_) => Status::Wrong,
                    _ => Status::Skipped,
                };
                self.rows.push(Row {
                    status,
                    reason: Some(error.to_string()),
                    ..row_of(case)
                });
            }
            None if mode == Mode::Measure => self.rows.push(Row {
                series: series(timer, &samples),
                ..row_of(case)
            }),
            None => {}
        }
    }

    /// Lets the row of a benchmark say more than criterion's times, if it ran.
    pub(super) fn amend(&mut self, case: &Case, change: impl FnOnce(&mut Row)) {
        let is_its = |row: &&mut Row| {
            row.group == case.group && row.kernel == case.function && row.shape == case.shape
        };
        if let Some(row) = self.rows.iter_mut().rev().find(is_its) {
            change(row);
        }
    }

    /// The times of a benchmark that was measured, per launch.
    pub(super) fn series_of(&self, case: &Case) -> Option<&Series> {
        let row = self.rows.iter().rev().find(|row| {
            row.group == case.group && row.kernel == case.function && row.shape == case.shape
        })?;
        row.series.as_ref()
    }

    /// What ran, in tables. What was skipped was said before; launches have a table of their own.
    fn summary(&self) -> Option<String> {
        let is_new = |row: &&Row| row.status != Status::Skipped && row.group != launch::GROUP;
        let mut record = record::of(&self.surroundings);
        record.rows = self.rows.iter().filter(is_new).cloned().collect();
        (!record.rows.is_empty()).then(|| microbench::text(&record))
    }

    fn save(&self) -> Result<Vec<PathBuf>, Error> {
        let baseline = record::baseline(std::env::args());
        record::write_record(
            &self.folder,
            &self.surroundings.program,
            &self.surroundings.environment(),
            &self.rows,
            baseline.as_deref(),
        )
    }

    /// Writes the record, prints criterion's last words, and says what failed.
    pub(super) fn finish(self) -> Result<(), Error> {
        let Suite {
            host,
            of_device,
            failed,
            ran,
            ..
        } = &self;
        host.final_summary();
        if let Some((of_device, _)) = of_device {
            of_device.final_summary();
        }
        match self.mode() {
            Mode::Measure => {
                let paths = self.save()?;
                if let Some(summary) = self.summary() {
                    print!("\n{summary}");
                }
                if let Some(line) = record::places(&paths) {
                    println!("\n{line}");
                }
            }
            Mode::Test => println!(
                "test result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
                if failed.is_empty() { "ok" } else { "FAILED" },
                ran - failed.len(),
                failed.len()
            ),
            Mode::List | Mode::Profile => {}
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Error::Unusable(failed.join("\n"))),
        }
    }
}

fn configured(
    watch: Stopwatch,
    folder: &Path,
    profile: &Rc<RefCell<Profile>>,
) -> Criterion<Stopwatch> {
    // Flags of the command line overrule these.
    Criterion::default()
        .with_measurement(watch)
        .with_profiler(FileProfiler(Rc::clone(profile)))
        .output_directory(folder)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots()
        .configure_from_args()
}

fn row_of(case: &Case) -> Row {
    let Work { flops, bytes } = case.work();
    Row {
        group: case.group.to_owned(),
        operation: case.operation.to_owned(),
        kernel: case.function.clone(),
        shape: case.shape.clone(),
        dtype: case.dtype.to_owned(),
        status: Status::Ok,
        reason: None,
        flops,
        bytes,
        roof: case.bound.as_ref().map(|bound| bound.roof.clone()),
        series: None,
        peers: Vec::new(),
    }
}

/// The samples that criterion evaluates: of flat sampling the last ones, which have as many iterations each; before them it warmed up.
fn series(timer: Timer, samples: &[(u64, f64)]) -> Option<Series> {
    let &(launches, _) = samples.last()?;
    let flat = samples
        .iter()
        .rev()
        .take_while(|(n, _)| *n == launches)
        .count();
    // `--quick` doubles from sample to sample.
    let kept = match flat {
        0 | 1 => &samples[samples.len().saturating_sub(2)..],
        flat => &samples[samples.len() - flat..],
    };
    let times: Vec<Sample> = kept
        .iter()
        .filter(|(_, time)| *time > 0.0)
        .map(|(n, time)| Sample {
            time_ns: time / *n as f64,
            sm_clock_hz: None,
        })
        .collect();
    (!times.is_empty()).then(|| Series::new(timer, launches.max(1) as usize, times))
}

#[cfg(test)]
mod tests {
    use stepscope_profiler::microbench::Roof;

    use super::super::roofs::Origin;
    use super::*;

    #[test]
    fn warming_up_is_no_sample() {
        let of = |samples: &[(u64, f64)]| {
            let series = series(Timer::Wall, samples)?;
            Some((series.launches_per_sample, series.times_ns()))
        };
        // Warm-up of 1, 2 and 4 iterations, then samples of 3.
        let flat = [
            (1, 90.0),
            (2, 50.0),
            (4, 44.0),
            (3, 30.0),
            (3, 33.0),
            (3, 36.0),
        ];
        assert_eq!(of(&flat), Some((3, vec![10.0, 11.0, 12.0])));
        // `--quick`: criterion compares the last two.
        let quick = [(1, 90.0), (2, 50.0), (4, 44.0)];
        assert_eq!(of(&quick), Some((4, vec![25.0, 11.0])));
        assert_eq!(of(&[(1, 0.0)]), None, "a failure has no time");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn the_rate_is_that_of_what_bounds_a_kernel() {
        let bound = Bound {
            roof: Roof {
                flops_per_s: Some(1e12),
                bytes_per_s: Some(1e9),
                source: "a test".to_owned(),
            },
            origin: Origin::DataSheet,
            level: None,
        };
        let case = |flops, bytes, bound: Option<Bound>| Case {
            group: "gemm",
            function: "cpu".to_owned(),
            shape: "1x2x3".to_owned(),
            operation: "gemm",
            dtype: "bf16",
            rate: Rate::Work(Work { flops, bytes }),
            bound,
        };
        let element = |case: Case| case.throughput().map(|(_, element)| element);
        assert_eq!(
            element(case(1_000_000, 10, Some(bound.clone()))),
            Some("FLOP")
        );
        assert_eq!(element(case(1_000, 10, Some(bound))), Some("byte"));
        assert_eq!(element(case(1_000, 10, None)), Some("byte"));
        assert_eq!(case(1, 1, None).id(), "gemm/cpu/1x2x3");
    }
}
