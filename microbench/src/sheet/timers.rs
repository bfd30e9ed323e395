//! How fine the timers are that everything else rests on.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Event, Launch};
use stepscope_kernels::Backend as _;
use stepscope_profiler::device_sheet::{Group, Quantity, RowTimer, Unit};

use super::context::{Claims, Context, Probe, Values};
use super::kernels::{self, Module};
use super::launch::program;
use crate::Error;

arguments! {
    struct TimerSteps {
        values: DevicePointer,
        count: u32,
        most: u32,
    }
}

fn probe(name: &str, title: &str, claim: &str, timer: RowTimer) -> Probe {
    Probe {
        group: Group::Timers,
        name: name.to_owned(),
        title: title.to_owned(),
        claim: claim.to_owned(),
        unit: Unit::Nanoseconds,
        timer,
        at: None,
    }
}

/// Nanoseconds between neighbouring events in an idle stream.
fn event_gaps(context: &Context<'_>, count: usize) -> Result<Vec<f64>, Error> {
    let cuda = context.cuda();
    let events: Vec<Event> = (0..=count)
        .map(|_| Event::with_time(cuda.context()))
        .collect::<Result<_, _>>()?;
    cuda.synchronize()?;
    for event in &events {
        event.record(cuda.stream())?;
    }
    cuda.synchronize()?;
    if context.is_emulated() {
        return Ok(Vec::new());
    }
    let gaps = events
        .windows(2)
        .map(|pair| Ok(1e6 * pair[1].elapsed_ms(&pair[0])?));
    gaps.collect()
}

/// The smallest difference between values that are not the same: what values are multiples of.
fn step(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let differences = sorted.windows(2).map(|pair| pair[1] - pair[0]);
    // elapsed_ms is a float32 of milliseconds: differences below a nanosecond are its roundings.
    differences.filter(|d| *d > 1.0).reduce(f64::min)
}

pub(super) fn run(context: &mut Context<'_>) {
    const EVENTS: usize = 500;
    let gap = probe(
        "event_gap",
        "two events, nothing between",
        "what CUDA events say of nothing at all: 500 events, one behind another in an idle stream",
        RowTimer::Event,
    );
    let events = context.sized(EVENTS, 3);
    context.probe(&gap, &Claims::none(), |context| {
        Ok(Values::of(event_gaps(context, events)?))
    });
    let resolution = probe(
        "event_step",
        "step of events",
        "the smallest difference between times of events that are not the same",
        RowTimer::Event,
    );
    context.probe(&resolution, &Claims::none(), |context| {
        let mut steps = Vec::new();
        let rounds = context.sized(3, 1);
        for _ in 0..rounds {
            steps.extend(step(&event_gaps(context, events)?));
        }
        if steps.is_empty() && !context.is_emulated() {
            return Err(Error::Unusable(
                "all times between events are the same: no step shows".to_owned(),
            ));
        }
        Ok(Values::of(steps))
    });
    let timer = probe(
        "globaltimer_step",
        "step of %globaltimer",
        "one thread looks at the GPU's timer until it has seen 64 values; how far each lies from the one before",
        RowTimer::Globaltimer,
    );
    let claims = Claims::Sum(vec![(Quantity::Launches, 1)]);
    context.probe(&timer, &claims, |context| {
        const COUNT: usize = 64;
        let cuda = context.cuda();
        let module = Module::load(cuda, &program())?;
        let kernel = module.kernel::<TimerSteps>("timer_steps")?;
        let mut buffer = DeviceBuffer::<u64>::new(cuda.context(), "values of the timer", COUNT)?;
        buffer.fill(cuda.stream(), 0)?;
        let arguments = TimerSteps {
            values: buffer.pointer(),
            count: COUNT as u32,
            // A look takes some 20 cycles: 64 steps of 1 µs are there long before.
            most: 1 << 20,
        };
        kernels::launch(cuda, &kernel, &Launch::of_blocks(1, 1), &arguments)?;
        let mut values = vec![0; COUNT];
        buffer.read(cuda.stream(), 0, &mut values)?;
        if !values.is_sorted_by(|a, b| a < b) {
            return Err(Error::Wrong(format!(
                "the timer did not go on from value to value: {:?} …",
                &values[..4]
            )));
        }
        let steps = values.windows(2).map(|pair| (pair[1] - pair[0]) as f64);
        Ok(Values::of(steps))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_the_smallest_difference() {
        assert_eq!(step(&[32.0, 96.0, 32.0, 64.0, 64.5]), Some(31.5));
        assert_eq!(step(&[1.0, 1.0]), None);
        assert_eq!(step(&[]), None);
    }
}
