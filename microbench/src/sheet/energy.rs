//! Power under two loads, by the counter of energy that NVML has.

use std::time::{Duration, Instant};

use stepscope_device::nvml::Monitor;
use stepscope_kernels::Backend as _;
use stepscope_profiler::device_sheet::{Group, RowTimer, Sample, Unit};

use super::context::{Claims, Context, Probe, Values};
use super::{memory, mma};
use crate::Error;

/// How long a load runs: the sensors of GPUs are averages over a second, and look at a part of the time (arXiv 2312.02741).
const WINDOW: Duration = Duration::from_millis(2500);
/// Before the window, so that clocks and power have settled.
const SETTLING: Duration = Duration::from_millis(500);
/// Launches between two looks at the clock.
const BATCH: usize = 20;

fn probes() -> [Probe; 2] {
    let probe = |name: &str, title: &str, claim: &str| Probe {
        group: Group::Energy,
        name: name.to_owned(),
        title: title.to_owned(),
        claim: claim.to_owned(),
        unit: Unit::Watts,
        timer: RowTimer::Nvml,
        at: None,
    };
    [
        probe(
            "tensor_power",
            "tensor cores (mma.sync bf16)",
            "energy per second over 2.5 s in which all tensor cores multiply random numbers, half a second after they began",
        ),
        probe(
            "dram_power",
            "reads from DRAM",
            "energy per second over 2.5 s in which a set far larger than L2 is read again and again, half a second after that began",
        ),
    ]
}

pub(super) fn run(context: &mut Context<'_>) {
    let probes = probes();
    let why = match (context.is_emulated(), context.is_quick()) {
        (true, _) => Some("an emulated device draws no power"),
        (false, true) => Some("a window of 2.5 s is too long for --quick"),
        (false, false) => None,
    };
    if let Some(why) = why {
        for probe in &probes {
            context.skip(probe, why);
        }
        return;
    }
    let uuid = context.cuda().context().device().uuid.clone();
    let mut monitor = match Monitor::open(&uuid) {
        Ok(monitor) => monitor,
        Err(error) => {
            for probe in &probes {
                context.skip(probe, error.to_string());
            }
            return;
        }
    };
    if monitor.sample().energy_millijoules.is_none() {
        for probe in &probes {
            context.skip(probe, "this GPU has no counter of energy");
        }
        return;
    }
    let [tensor, dram] = &probes;
    context.probe(tensor, &Claims::none(), |context| {
        let rate = mma::Rate::load(context)?;
        watts(context, &mut monitor, || rate.launch(context.cuda()))
    });
    context.probe(dram, &Claims::none(), |context| {
        let load = memory::Load::new(context)?;
        watts(context, &mut monitor, || load.launch(context.cuda()))
    });
}

fn watts(
    context: &Context<'_>,
    monitor: &mut Monitor,
    mut launch: impl FnMut() -> Result<(), Error>,
) -> Result<Values, Error> {
    let mut run_for = |time: Duration| -> Result<Duration, Error> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            for _ in 0..BATCH {
                launch()?;
            }
            context.cuda().synchronize()?;
        }
        Ok(begin.elapsed())
    };
    run_for(SETTLING)?;
    let before = monitor.sample();
    let taken = run_for(WINDOW)?;
    let after = monitor.sample();
    let energy = after.energy_millijoules.zip(before.energy_millijoules);
    let Some((after_mj, before_mj)) = energy else {
        return Err(Error::Unusable(
            "the counter of energy went away".to_owned(),
        ));
    };
    let millijoules = after_mj.saturating_sub(before_mj) as f64;
    Ok(Values {
        samples: vec![Sample {
            value: millijoules / 1e3 / taken.as_secs_f64(),
            sm_clock_hz: after.sm_clock_mhz.map(|mhz| 1e6 * f64::from(mhz)),
        }],
        ..Values::default()
    })
}
