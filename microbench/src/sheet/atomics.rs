//! Atomic additions to counters in L2: with and without the value that was there, to one address, within a line, and to 32 lines.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Launch};
use stepscope_device::nvrtc::Program;
use stepscope_profiler::device_sheet::{Group, Quantity, RowTimer, Unit};

use super::context::{Claims, Context, Probe};
use super::kernels::{Module, Timed, program as program_of};
use crate::{Error, L2, Work};

/// As `atomics.cu` has them.
const THREADS: u32 = 256;
const UNROLL: u32 = 16;

arguments! {
    struct Atomics {
        counters: DevicePointer,
        spacing: u32,
        iterations: u32,
        out: DevicePointer,
    }
}

/// Name, words between the counters of neighbouring lanes, in words.
const PLACES: [(&str, u32, &str); 3] = [
    ("one", 0, "all to one address"),
    ("packed", 1, "32 counters in a line of 128 bytes"),
    ("apart", 32, "32 counters, each in a line of its own"),
];

fn expression(returns: bool) -> String {
    format!("atomics<{returns}>")
}

pub(super) fn program() -> Program {
    program_of(
        "atomics.cu",
        include_str!("atomics.cu"),
        &[false, true].map(expression),
    )
}

pub(super) fn run(context: &mut Context<'_>) {
    for (place, spacing, words) in PLACES {
        for returns in [false, true] {
            let instruction = if returns { "atom" } else { "red" };
            let probe = Probe {
                group: Group::Atomics,
                name: format!("{instruction}_{place}"),
                title: format!("{instruction}, {words}"),
                claim: "256 threads on every multiprocessor add 1 with 32 bits, again and again, each lane to its counter".to_owned(),
                unit: Unit::OperationsPerSecond,
                timer: RowTimer::Event,
                at: None,
            };
            let blocks = context.multiprocessors();
            let iterations = context.sized(8, 1);
            let each = u64::from(iterations * UNROLL);
            let all = u64::from(blocks * THREADS) * each;
            let claims = Claims::Sum(vec![(Quantity::Atomics, all)]);
            context.probe(&probe, &claims, |context| {
                let cuda = context.cuda();
                let module = Module::load(cuda, &program())?;
                let kernel = module.kernel::<Atomics>(&expression(returns))?;
                let mut counters = DeviceBuffer::<u32>::new(cuda.context(), "counters", 32 * 32)?;
                counters.fill(cuda.stream(), 0)?;
                let len = (blocks * THREADS) as usize;
                let out = DeviceBuffer::<u32>::new(cuda.context(), "what came back", len)?;
                let mut subject = Timed {
                    cuda,
                    kernel: &kernel,
                    launch: Launch::of_blocks(blocks, THREADS),
                    arguments: Atomics {
                        counters: counters.pointer(),
                        spacing,
                        iterations,
                        out: out.pointer(),
                    },
                    work: Work::default(),
                    check: Box::new(|| {
                        let mut found = vec![0; counters.len()];
                        counters.read(cuda.stream(), 0, &mut found)?;
                        check_counters(&found, spacing, all)?;
                        let mut sums = vec![0; len];
                        out.read(cuda.stream(), 0, &mut sums)?;
                        check_returned(&sums, returns, spacing, all)
                    }),
                };
                context.rate(&mut subject, L2::Warm, all as f64)
            });
        }
    }
}

/// That the counters hold all additions of one launch.
fn check_counters(found: &[u32], spacing: u32, all: u64) -> Result<(), Error> {
    for (index, &count) in found.iter().enumerate() {
        let index = index as u32;
        let expected = match spacing {
            0 if index == 0 => all,
            0 => 0,
            spacing if index.is_multiple_of(spacing) && index / spacing < 32 => all / 32,
            _ => 0,
        };
        if u64::from(count) != expected {
            return Err(Error::Wrong(format!(
                "counter {index} is {count}, not {expected}"
            )));
        }
    }
    Ok(())
}

/// That what came back is every count once, in whatever order: their sum says so, modulo 2³².
fn check_returned(sums: &[u32], returns: bool, spacing: u32, all: u64) -> Result<(), Error> {
    let found = sums.iter().fold(0_u32, |sum, x| sum.wrapping_add(*x));
    let counters: u64 = if spacing == 0 { 1 } else { 32 };
    let of_counter = u128::from(all / counters);
    let expected = match returns {
        true => u128::from(counters) * (of_counter * (of_counter - 1) / 2),
        false => 0,
    } % (1 << 32);
    match u128::from(found) == expected {
        true => Ok(()),
        false => Err(Error::Wrong(format!(
            "the values that came back add up to {found}, not {expected}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_addition_that_is_lost_is_found() {
        let mut counters = vec![0; 1024];
        counters[0] = 64;
        assert!(check_counters(&counters, 0, 64).is_ok());
        assert!(check_counters(&counters, 0, 65).is_err());
        let mut apart = vec![0; 1024];
        for lane in 0..32 {
            apart[32 * lane] = 2;
        }
        assert!(check_counters(&apart, 32, 64).is_ok());
        apart[33] = 1;
        assert!(check_counters(&apart, 32, 64).is_err());
        // Four additions to one counter bring back 0, 1, 2 and 3.
        assert!(check_returned(&[0, 6], true, 0, 4).is_ok());
        assert!(check_returned(&[0, 5], true, 0, 4).is_err());
    }
}
