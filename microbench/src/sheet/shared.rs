//! Bandwidth of shared memory: each thread of a block on every multiprocessor reads its own 16 bytes again and again.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Launch};
use stepscope_device::nvrtc::Program;
use stepscope_profiler::device_sheet::{Group, Quantity, RowTimer, Unit};

use super::context::{Claims, Context, Probe, per_clock};
use super::kernels::program as program_of;
use super::loops::Loops;
use crate::{Error, Work};

/// As `shared.cu` has it.
const THREADS: u32 = 1024;
/// Loads of the shorter loop, and of the longer one.
const UNROLL: [u32; 2] = [128, 256];

arguments! {
    struct SharedRead {
        iterations: u32,
        sums: DevicePointer,
        stamps: DevicePointer,
    }
}

fn expression(unroll: u32) -> String {
    format!("shared_read<{unroll}>")
}

pub(super) fn program() -> Program {
    program_of(
        "shared.cu",
        include_str!("shared.cu"),
        &UNROLL.map(expression),
    )
}

fn probes() -> [Probe; 2] {
    let probe = |name: &str, title: &str, claim: &str, unit, timer| Probe {
        group: Group::Shared,
        name: name.to_owned(),
        title: title.to_owned(),
        claim: claim.to_owned(),
        unit,
        timer,
        at: None,
    };
    [
        probe(
            "shared_read_clk",
            "read, per multiprocessor",
            "a block of 1024 threads on every multiprocessor, 16 bytes a thread without bank conflicts; loop taken out by difference",
            Unit::BytesPerClock,
            RowTimer::Clock64,
        ),
        probe(
            "shared_read",
            "read, whole device",
            "the same from outside, its loop included (3 instructions in 256 loads)",
            Unit::BytesPerSecond,
            RowTimer::Event,
        ),
    ]
}

struct Shared {
    loops: Loops<SharedRead>,
    sums: DeviceBuffer<u32>,
}

impl Shared {
    fn new(context: &Context<'_>) -> Result<Shared, Error> {
        let cuda = context.cuda();
        let blocks = context.multiprocessors();
        Ok(Shared {
            loops: Loops::new(
                context,
                &program(),
                expression,
                UNROLL,
                Launch::of_blocks(blocks, THREADS),
                context.sized(100, 1),
            )?,
            sums: DeviceBuffer::new(cuda.context(), "sums", (blocks * THREADS) as usize)?,
        })
    }

    fn arguments(&self) -> SharedRead {
        SharedRead {
            iterations: self.loops.iterations,
            sums: self.sums.pointer(),
            stamps: self.loops.stamps.pointer(),
        }
    }

    fn check(&self, context: &Context<'_>, which: usize) -> Result<(), Error> {
        let mut sums = vec![0; self.sums.len()];
        self.sums.read(context.cuda().stream(), 0, &mut sums)?;
        let loads = self.loops.steps(which);
        for (index, &sum) in sums.iter().enumerate() {
            let first = 4 * (index as u32 % THREADS) + 1;
            let expected = loads.wrapping_mul(4 * first + 6);
            if sum != expected {
                return Err(Error::Wrong(format!(
                    "thread {index} read {sum} in all, not {expected}"
                )));
            }
        }
        Ok(())
    }

    /// Loads of warps in a launch of the kernel `which`.
    fn loads(&self, which: usize) -> u64 {
        self.loops.blocks() * u64::from(THREADS / 32) * u64::from(self.loops.steps(which))
    }
}

pub(super) fn run(context: &mut Context<'_>) {
    let probes = probes();
    let shared = match Shared::new(context) {
        Ok(shared) => shared,
        Err(error) => return context.without(&probes, &error),
    };
    let more = shared.loads(1) - shared.loads(0);
    let claims = Claims::Difference(vec![
        (Quantity::SharedLoads, more),
        (Quantity::SharedWavefronts, 4 * more),
        (Quantity::BankConflicts, 0),
    ]);
    context.probe(&probes[0], &claims, |context| {
        let check = |which| shared.check(context, which);
        let pairs = shared.loops.pairs(context, &shared.arguments(), check)?;
        let bytes = 512.0 * more as f64 / shared.loops.blocks() as f64;
        Ok(per_clock(&pairs, bytes))
    });
    let bytes = 512 * shared.loads(1);
    // The block's own words are written once, 512 bytes of a warp, and its sums take a load of each warp's.
    let claims = Claims::Sum(vec![(Quantity::BankConflicts, 0)]);
    context.probe(&probes[1], &claims, |context| {
        let work = Work { flops: 0, bytes };
        let check = |which| shared.check(context, which);
        shared.loops.whole(context, shared.arguments(), work, check)
    });
}
