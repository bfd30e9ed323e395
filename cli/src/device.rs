//! The device that runs a model: the CPU, a GPU, or an emulated one.

use std::sync::Arc;

use stepscope_device::driver::{Context, Driver};
use stepscope_device::{Error, Kind};
use stepscope_emulator::driver::{Configuration, LaunchReport, configure, symbol, take_reports};
use stepscope_engine::model::Model;
use stepscope_engine::{Instruments, StepClock};
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::{Backend, DType};
use stepscope_profiler::gpu_watch::Sampler;
use stepscope_profiler::{
    Clock, CycleClock, DeviceClock, EventClock, KernelCounters, Launch, Record, Timer, Timing,
};

use crate::args::timers::TimerChoice;
use crate::args::{Check, Device, ModelArgs};
use crate::output::{Failure, print_stderr};
use crate::progress::Bar;
use crate::{emulate, timing, tune};

/// A device with memory and a driver of its own.
#[derive(Debug)]
pub(crate) struct Gpu {
    driver: Arc<Driver>,
    context: Arc<Context>,
    ordinal: usize,
    /// The emulated device that is part of this program, which tells what kernels did.
    is_ours: bool,
}

/// Something to do with a model on a device, whichever it is.
pub(crate) trait Work {
    /// What is to take its times on a GPU, which is then watched too. Nothing if its times are not looked at.
    fn timer(&self) -> Option<TimerChoice> {
        None
    }

    /// What of the hardware's counters is wanted; the usual ones where the list is empty, and nothing if it is not given.
    fn counters(&self) -> Option<&[String]> {
        None
    }

    /// Whether a person wants to read nothing beside results.
    fn is_quiet(&self) -> bool {
        false
    }

    fn run<B: Backend>(
        self,
        backend: B,
        model: &Model,
        instruments: Instruments<'_>,
    ) -> Result<(), Failure>;
}

/// The driver within this program.
pub(crate) fn emulated_driver() -> Result<Arc<Driver>, Error> {
    // SAFETY: the emulator's functions have the signatures and the meaning of cuda.h, and are part of this program.
    unsafe { Driver::emulated(symbol) }
}

/// The GPU that was asked for; none for the CPU.
pub(crate) fn start(args: &ModelArgs) -> Result<Option<Gpu>, Failure> {
    let gpu = match args.device {
        Device::Cpu => None,
        Device::Auto => first_gpu()?,
        Device::Cuda { ordinal } => Some(Gpu::open(ordinal)?),
        Device::Emulated => Some(Gpu::emulated(&args.check)?),
    };
    if !args.check.is_empty() && !gpu.as_ref().is_some_and(|gpu| gpu.is_ours) {
        return Err(Failure::input(
            "--check looks into kernels that an emulated device runs; add --device emulated",
        ));
    }
    if args.tp_size > 1 {
        return Err(Failure::input(format!(
            "--tp-size {}: one rank runs so far; use --tp-size 1",
            args.tp_size
        )));
    }
    Ok(gpu)
}

/// A GPU, if this machine has one that works.
fn first_gpu() -> Result<Option<Gpu>, Failure> {
    let found = Driver::open().and_then(|driver| match driver.device_count()? {
        0 => Ok(None),
        _ => Gpu::new(driver, 0, false).map(Some),
    });
    match found {
        // An emulated driver in place of NVIDIA's is no GPU.
        Ok(gpu) => Ok(gpu.filter(|gpu| !gpu.is_emulated())),
        Err(error) if matches!(error.kind(), Kind::MissingLibrary | Kind::NoDevice) => Ok(None),
        Err(error) => {
            print_stderr(&format!("the GPU cannot be used, so the CPU is: {error}"));
            Ok(None)
        }
    }
}

fn configure_emulated(check: &[Check]) -> Result<(), Failure> {
    let from_environment = Configuration::from_environment().map_err(Failure::input)?;
    let checks = match check.is_empty() {
        true => from_environment.checks,
        false => Check::checks(check),
    };
    configure(Configuration {
        checks,
        keep_reports: true,
        ..from_environment
    })
    .map_err(Failure::run)
}

fn run(error: Error) -> Failure {
    Failure::Run(error.into())
}

impl Gpu {
    /// The device of this kind, without a model's arguments.
    pub(crate) fn start(device: Device) -> Result<Gpu, Failure> {
        match device {
            Device::Cpu => Err(Failure::input(
                "the CPU is what GPUs are held against; use --device cuda or emulated",
            )),
            Device::Auto => Gpu::open(0),
            Device::Cuda { ordinal } => Gpu::open(ordinal),
            Device::Emulated => Gpu::emulated(&[]),
        }
    }

    /// The device for work on kernels: a GPU where there is one, or the emulated device as one of `capability`, with every check on.
    pub(crate) fn for_kernels(device: Device, capability: (u32, u32)) -> Result<Gpu, Failure> {
        let gpu = match device {
            Device::Cpu => {
                return Err(Failure::input(
                    "--device cpu runs no CUDA kernels; use cuda or emulated",
                ));
            }
            Device::Auto => first_gpu()?,
            Device::Cuda { ordinal } => Some(Gpu::open(ordinal)?),
            Device::Emulated => None,
        };
        match gpu {
            Some(gpu) => Ok(gpu),
            None => {
                let configuration = Configuration {
                    compute_capability: capability,
                    checks: stepscope_emulator::check::Checks::ALL,
                    keep_reports: true,
                    ..Configuration::default()
                };
                configure(configuration).map_err(Failure::run)?;
                Gpu::new(emulated_driver().map_err(run)?, 0, true).map_err(run)
            }
        }
    }

    /// What the launches since the last call did, on the emulated device of this program; nothing on any other.
    pub(crate) fn take_reports(&self) -> Vec<LaunchReport> {
        match self.is_ours {
            true => take_reports(self.ordinal),
            false => Vec::new(),
        }
    }

    /// The device itself.
    pub(crate) fn device(&self) -> &stepscope_device::driver::Device {
        self.context.device()
    }

    fn open(ordinal: usize) -> Result<Gpu, Failure> {
        let driver = Driver::open().map_err(run)?;
        Gpu::new(driver, ordinal, false).map_err(run)
    }

    fn emulated(check: &[Check]) -> Result<Gpu, Failure> {
        configure_emulated(check)?;
        let driver = emulated_driver().map_err(run)?;
        Gpu::new(driver, 0, true).map_err(run)
    }

    /// Its kernels, for numbers stored as `dtype`.
    pub(crate) fn cuda(&self, dtype: DType) -> Result<Cuda, Failure> {
        Ok(Cuda::new(&self.driver, self.ordinal, dtype)?)
    }

    fn new(driver: Arc<Driver>, ordinal: usize, is_ours: bool) -> Result<Gpu, Error> {
        let context = Context::new(&driver, ordinal)?;
        Ok(Gpu {
            driver,
            context,
            ordinal,
            is_ours,
        })
    }

    /// Whether it has no time.
    pub(crate) fn is_emulated(&self) -> bool {
        self.context.device().is_emulated()
    }

    /// What the emulated device that is part of this program did since this was last asked; nothing of any other.
    pub(crate) fn reports(&self) -> Option<Vec<LaunchReport>> {
        self.is_ours.then(|| take_reports(self.ordinal))
    }

    /// As records name it.
    pub(crate) fn name(&self) -> &'static str {
        match self.is_emulated() {
            true => "emulated",
            false => "cuda",
        }
    }

    /// Bytes that are free.
    pub(crate) fn free_memory(&self) -> Result<u64, Failure> {
        let (free, _) = self.context.memory().map_err(run)?;
        Ok(free as u64)
    }

    /// Does `work` with `model` on it.
    pub(crate) fn run(self, model: &Model, bar: &Bar, work: impl Work) -> Result<(), Failure> {
        if !matches!(model.dtype, DType::BF16 | DType::F16) {
            return Err(Failure::input(format!(
                "--dtype {}: the CUDA kernels store bfloat16 or float16; use one of them, or --device cpu",
                model.dtype
            )));
        }
        let cuda = self.cuda(model.dtype)?;
        tune::apply(&cuda)?;
        let ordinal = self.ordinal;
        let instruments = Instruments {
            progress: bar,
            counts: self
                .is_ours
                .then(|| -> Box<dyn FnMut() -> Vec<Launch> + Send> {
                    Box::new(move || take_reports(ordinal).iter().map(launch_of).collect())
                }),
            ..self.instruments(&cuda, &work)?
        };
        let outcome = work.run(cuda, model, instruments);
        match outcome {
            Err(Failure::Run(error)) if self.is_ours => {
                Err(Failure::Run(match failure(&take_reports(ordinal)) {
                    Some(failure) => error.context(failure),
                    None => error,
                }))
            }
            outcome => outcome,
        }
    }

    /// What measures `work` on this device.
    fn instruments(&self, cuda: &Cuda, work: &impl Work) -> Result<Instruments<'static>, Failure> {
        let mut instruments = Instruments {
            clock: Clock::Untimed,
            ..Instruments::default()
        };
        if self.is_emulated() {
            return Ok(instruments);
        }
        // Before kernels are recorded: CUPTI is asked what it can count while it does nothing else.
        let counters = work.counters();
        let counters = counters.map(|metrics| timing::counters(metrics, &self.context));
        let counters = counters.transpose()?;
        let choice = work.timer().unwrap_or(TimerChoice::Events);
        let (clock, mut timing) = timing::choose(choice, cuda.stream())?;
        instruments.clock = clock;
        if work.timer().is_none() {
            return Ok(instruments);
        }
        instruments.watch = self.watch(&timing, work.is_quiet());
        let say = |text: &str| {
            if !work.is_quiet() {
                print_stderr(text);
            }
        };
        match StepClock::new(cuda) {
            Ok(clock) => {
                timing.sm_clock = Some(StepClock::SOURCE.to_owned());
                instruments.sm_clock = Some(Box::new(clock) as Box<dyn CycleClock>);
            }
            Err(error) => say(&format!("the clock of single steps is not read: {error}")),
        }
        if choice == TimerChoice::Graph {
            let clock = Box::new(EventClock::new(cuda.stream()));
            instruments.replay_clock = Some(clock as Box<dyn DeviceClock>);
        }
        if let Some(counters) = counters {
            match counters {
                Ok(counters) => {
                    let passes = match counters.passes() {
                        1 => "in one pass".to_owned(),
                        n => format!("in {n} passes, of which each runs every kernel again"),
                    };
                    say(&format!(
                        "--counters: a prefill and a decode step more per point, counted {passes}, not timed"
                    ));
                    instruments.counters = Some(Box::new(counters) as Box<dyn KernelCounters>);
                }
                Err(why) => say(&format!("no hardware counters: {why}")),
            }
        }
        instruments.timing = Some(timing);
        Ok(instruments)
    }

    /// Says once what takes the times, and starts watching the GPU.
    fn watch(&self, timing: &Timing, quiet: bool) -> Option<Sampler> {
        let watch = timing::watch(&self.context.device().uuid);
        if !quiet {
            let reason = timing.reason.as_ref();
            let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            print_stderr(&format!("times by {}{reason}", timing.words()));
            if timing.timer == Timer::Cupti {
                print_stderr(
                    "recording every kernel makes steps longer: --overhead says by how much, --timer events does without",
                );
            }
            if let Err(why) = &watch {
                print_stderr(&format!(
                    "the GPU's clocks and power are not watched: {why}"
                ));
            }
        }
        watch.ok()
    }

    /// What a record says of it.
    pub(crate) fn describe(&self) -> Result<stepscope_profiler::Gpu, Failure> {
        let device = self.context.device();
        let compiler = stepscope_device::nvrtc::Compiler::open_for_driver(self.driver.version());
        Ok(stepscope_profiler::Gpu {
            name: device.name.clone(),
            uuid: device.uuid.clone(),
            compute_capability: device.compute_capability,
            multiprocessors: device.limits.multiprocessors,
            l2_bytes: device.limits.l2_bytes,
            memory_bytes: device.memory_bytes,
            clocks_khz: [device.limits.clock_khz, device.limits.memory_clock_khz],
            driver: self.driver.version().to_string(),
            nvrtc: match compiler {
                Ok(compiler) => compiler.version().to_string(),
                Err(_) => "none (prebuilt kernels)".to_owned(),
            },
        })
    }
}

/// What the emulated device says of the launch that failed.
fn failure(reports: &[LaunchReport]) -> Option<String> {
    let report = reports.iter().find(|r| r.report.failure.is_some())?;
    let kernel = emulate::short_name(&report.kernel);
    let why = report.report.failure.as_ref()?;
    Some(format!("the emulated device gave up {kernel}: {why}"))
}

fn launch_of(report: &LaunchReport) -> Launch {
    Launch {
        function: emulate::short_name(&report.kernel),
        counters: report.report.counters.named(),
        findings: report
            .report
            .findings
            .iter()
            .map(|finding| (finding.to_string(), finding.count))
            .collect(),
    }
}

/// Fails if an emulated device found something in a kernel.
pub(crate) fn check_findings(record: &Record) -> Result<(), Failure> {
    let totals = record
        .points
        .iter()
        .flat_map(|point| std::iter::once(&point.prefill).chain(&point.decode));
    let findings: usize = totals.map(|total| total.findings.len()).sum();
    match findings {
        0 => Ok(()),
        n => Err(Failure::run(format!(
            "the emulated device found {n} things wrong in the kernels; they stand above and in the record"
        ))),
    }
}
