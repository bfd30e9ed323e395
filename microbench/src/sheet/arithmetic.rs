//! Rates of the units beside the tensor cores, and the latency of a multiply-add.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Launch};
use stepscope_device::nvrtc::Program;
use stepscope_profiler::device_sheet::{Group, Quantity, RowTimer, Unit};

use super::context::{Claims, Context, Probe, cycles_each, per_clock};
use super::kernels::program as program_of;
use super::loops::Loops;
use crate::{Error, Work};

const UNROLL: [u32; 2] = [128, 256];
/// Numbers of a thread that are changed in turn, so that none waits for the one before.
const CHAINS: u32 = 8;
const THREADS: u32 = 1024;

arguments! {
    struct Arithmetic {
        a: u32,
        b: u32,
        iterations: u32,
        start: DevicePointer,
        out: DevicePointer,
        stamps: DevicePointer,
    }
}

/// One operation, again and again.
struct Operation {
    /// In `arithmetic.cu`.
    kernel: &'static str,
    name: &'static str,
    title: &'static str,
    a: u32,
    b: u32,
    /// Where a chain begins: of a thread and a chain.
    start: fn(u32, u32) -> u32,
    /// Where it is after so many steps.
    end: End,
    unit: Unit,
    /// What one is worth in `unit`.
    worth: u32,
    /// What is counted of one.
    counted: &'static [(Quantity, u64)],
}

/// What is known of a chain's end.
enum End {
    /// Its bits, from the first ones, `a`, `b` and the steps.
    Exactly(fn(u32, u32, u32, u32) -> u32),
    /// That it came to rest at this number.
    Near(f32),
}

fn of_float(thread: u32, chain: u32) -> u32 {
    (thread as f32 / 2048.0 + chain as f32 / 16.0).to_bits()
}

fn of_whole(thread: u32, chain: u32) -> u32 {
    ((thread + 1024 * chain) as f32).to_bits()
}

fn of_integer(thread: u32, chain: u32) -> u32 {
    thread.wrapping_mul(2_654_435_761).wrapping_add(chain)
}

/// a = b = 1: each multiply-add is one more, exactly up to 2²⁴.
fn counted_up(start: u32, _a: u32, _b: u32, steps: u32) -> u32 {
    (f32::from_bits(start) + steps as f32).to_bits()
}

fn multiplied(start: u32, a: u32, b: u32, steps: u32) -> u32 {
    (0..steps).fold(start, |x, _| x.wrapping_mul(a).wrapping_add(b))
}

fn added(start: u32, a: u32, b: u32, steps: u32) -> u32 {
    start.wrapping_add(steps.wrapping_mul(a.wrapping_add(b)))
}

const ONE: u32 = 1.0_f32.to_bits();

/// The fixed points of `f(x + a)` were computed in double precision.
const OPERATIONS: [Operation; 6] = [
    Operation {
        kernel: "Fma",
        name: "fma_f32",
        title: "FP32 multiply-add",
        a: ONE,
        b: ONE,
        start: of_whole,
        end: End::Exactly(counted_up),
        unit: Unit::FlopPerClock,
        worth: 2,
        counted: &[(Quantity::F32Flops, 2)],
    },
    Operation {
        kernel: "Ex2",
        name: "ex2",
        title: "special function ex2",
        a: (-1.0_f32).to_bits(),
        b: 0,
        start: of_float,
        end: End::Near(1.0),
        unit: Unit::OperationsPerClock,
        worth: 1,
        counted: &[(Quantity::F32Flops, 2)],
    },
    Operation {
        kernel: "Rcp",
        name: "rcp",
        title: "special function rcp",
        a: ONE,
        b: 0,
        start: of_float,
        end: End::Near(0.618_034),
        unit: Unit::OperationsPerClock,
        worth: 1,
        counted: &[(Quantity::F32Flops, 2)],
    },
    Operation {
        kernel: "Sin",
        name: "sin",
        title: "special function sin",
        a: ONE,
        b: 0,
        start: of_float,
        end: End::Near(0.934_563_2),
        unit: Unit::OperationsPerClock,
        worth: 1,
        counted: &[(Quantity::F32Flops, 2)],
    },
    Operation {
        kernel: "Imad",
        name: "imad",
        title: "INT32 multiply-add (IMAD)",
        a: 1_664_525,
        b: 1_013_904_223,
        start: of_integer,
        end: End::Exactly(multiplied),
        unit: Unit::OperationsPerClock,
        worth: 1,
        counted: &[(Quantity::IntegerInstructions, 1)],
    },
    Operation {
        kernel: "Iadd3",
        name: "iadd3",
        title: "INT32 addition (IADD3)",
        a: 0x9E37_79B1,
        b: 12345,
        start: of_integer,
        end: End::Exactly(added),
        unit: Unit::OperationsPerClock,
        worth: 2,
        counted: &[(Quantity::IntegerInstructions, 2)],
    },
];

fn expression(kernel: &str, chains: u32, unroll: u32) -> String {
    format!("arithmetic<{kernel}, {chains}, {unroll}>")
}

pub(super) fn program() -> Program {
    let mut names = Vec::new();
    for unroll in UNROLL {
        names.extend(
            OPERATIONS
                .iter()
                .map(|operation| expression(operation.kernel, CHAINS, unroll)),
        );
        names.push(expression("Fma", 1, unroll));
    }
    program_of("arithmetic.cu", include_str!("arithmetic.cu"), &names)
}

/// Kernels and buffers of one operation.
struct Rate<'a> {
    operation: &'a Operation,
    loops: Loops<Arithmetic>,
    chains: u32,
    threads: u32,
    start: DeviceBuffer<u32>,
    out: DeviceBuffer<u32>,
}

impl<'a> Rate<'a> {
    fn new(
        context: &Context<'_>,
        operation: &'a Operation,
        chains: u32,
        blocks: u32,
        threads: u32,
    ) -> Result<Rate<'a>, Error> {
        let cuda = context.cuda();
        let loops = Loops::new(
            context,
            &program(),
            |unroll| expression(operation.kernel, chains, unroll),
            UNROLL,
            Launch::of_blocks(blocks, threads),
            // Some 0.1 ms on a GPU; elsewhere as few as bring chains to rest.
            context.sized(256, 4),
        )?;
        let values: Vec<u32> = (0..chains)
            .flat_map(|chain| (0..threads).map(move |thread| (operation.start)(thread, chain)))
            .collect();
        let mut start = DeviceBuffer::new(cuda.context(), "where chains begin", values.len())?;
        start.write(cuda.stream(), 0, &values)?;
        let len = (blocks * threads * chains) as usize;
        Ok(Rate {
            operation,
            loops,
            chains,
            threads,
            start,
            out: DeviceBuffer::new(cuda.context(), "where chains end", len)?,
        })
    }

    fn arguments(&self) -> Arithmetic {
        Arithmetic {
            a: self.operation.a,
            b: self.operation.b,
            iterations: self.loops.iterations,
            start: self.start.pointer(),
            out: self.out.pointer(),
            stamps: self.loops.stamps.pointer(),
        }
    }

    /// Of one block, in a launch of the kernel `which`.
    fn operations(&self, which: usize) -> u64 {
        u64::from(self.threads) * u64::from(self.loops.steps(which))
    }

    fn check(&self, context: &Context<'_>, which: usize) -> Result<(), Error> {
        let mut found = vec![0; self.out.len()];
        self.out.read(context.cuda().stream(), 0, &mut found)?;
        let Operation { a, b, title, .. } = *self.operation;
        let steps = self.loops.steps(which) / self.chains;
        // A long chain is computed for some threads of each block alone.
        let per_block = (self.chains * self.threads) as usize;
        let stride = if found.len() > 1 << 16 { 257 } else { 1 };
        for index in (0..found.len()).step_by(stride) {
            let within = (index % per_block) as u32;
            let (chain, thread) = (within / self.threads, within % self.threads);
            let is_right = match self.operation.end {
                End::Exactly(end) => {
                    found[index] == end((self.operation.start)(thread, chain), a, b, steps)
                }
                End::Near(rest) => (f32::from_bits(found[index]) / rest - 1.0).abs() < 1e-5,
            };
            if !is_right {
                return Err(Error::Wrong(format!(
                    "{title}: chain {chain} of thread {thread} ended at {:#x} after {steps} steps",
                    found[index]
                )));
            }
        }
        Ok(())
    }

    /// What the longer loop does more than the shorter one, in all blocks.
    fn claims(&self) -> Claims {
        let more = self.loops.blocks() * (self.operations(1) - self.operations(0));
        let counted = self.operation.counted.iter();
        Claims::Difference(counted.map(|&(what, each)| (what, each * more)).collect())
    }
}

pub(super) fn run(context: &mut Context<'_>) {
    for operation in &OPERATIONS {
        let clk = Probe {
            group: Group::Arithmetic,
            name: format!("{}_clk", operation.name),
            title: operation.title.to_owned(),
            claim: "a block of 1024 threads on every multiprocessor, 8 chains a thread; loop taken out by difference".to_owned(),
            unit: operation.unit,
            timer: RowTimer::Clock64,
            at: None,
        };
        let blocks = context.multiprocessors();
        let rate = match Rate::new(context, operation, CHAINS, blocks, THREADS) {
            Ok(rate) => rate,
            Err(error) => {
                context.without(&[clk], &error);
                continue;
            }
        };
        context.probe(&clk, &rate.claims(), |context| {
            let check = |which| rate.check(context, which);
            let pairs = rate.loops.pairs(context, &rate.arguments(), check)?;
            let more = (rate.operations(1) - rate.operations(0)) * u64::from(operation.worth);
            Ok(per_clock(&pairs, more as f64))
        });
        if operation.name == "fma_f32" {
            whole_device(context, &rate);
        }
    }
    fma_latency(context);
}

/// FP32 from outside.
fn whole_device(context: &mut Context<'_>, rate: &Rate<'_>) {
    let probe = Probe {
        group: Group::Arithmetic,
        name: "fma_f32".to_owned(),
        title: "FP32 multiply-add, whole device".to_owned(),
        claim: "the same from outside, its loop included (3 instructions in 256)".to_owned(),
        unit: Unit::FlopPerSecond,
        timer: RowTimer::Event,
        at: None,
    };
    let flops = 2 * rate.loops.blocks() * rate.operations(1);
    let claims = Claims::Sum(vec![(Quantity::F32Flops, flops)]);
    context.probe(&probe, &claims, |context| {
        let work = Work { flops, bytes: 0 };
        let check = |which| rate.check(context, which);
        rate.loops.whole(context, rate.arguments(), work, check)
    });
}

/// One chain of one warp: each multiply-add waits for the one before.
fn fma_latency(context: &mut Context<'_>) {
    let probe = Probe {
        group: Group::Arithmetic,
        name: "fma_latency".to_owned(),
        title: "FP32 multiply-add, latency".to_owned(),
        claim: "one warp, one chain: each waits for the one before; loop taken out by difference"
            .to_owned(),
        unit: Unit::Cycles,
        timer: RowTimer::Clock64,
        at: None,
    };
    let rate = match Rate::new(context, &OPERATIONS[0], 1, 1, 32) {
        Ok(rate) => rate,
        Err(error) => return context.without(&[probe], &error),
    };
    context.probe(&probe, &rate.claims(), |context| {
        let check = |which| rate.check(context, which);
        let pairs = rate.loops.pairs(context, &rate.arguments(), check)?;
        Ok(cycles_each(&pairs, f64::from(rate.loops.more_steps())))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chains come to rest where `f(x + a)` is `x`, and from wherever they begin.
    #[test]
    fn fixed_points_are_fixed() {
        for (name, f) in [
            ("ex2", f64::exp2 as fn(f64) -> f64),
            ("rcp", f64::recip),
            ("sin", f64::sin),
        ] {
            let operation = OPERATIONS.iter().find(|o| o.name == name).unwrap();
            let End::Near(rest) = operation.end else {
                panic!("{name}")
            };
            for (thread, chain) in [(0, 0), (1023, 7)] {
                let start = f32::from_bits((operation.start)(thread, chain));
                let a = f64::from(f32::from_bits(operation.a));
                // As many steps as the shortest launch has.
                let end = (0..4 * UNROLL[0] / CHAINS).fold(f64::from(start), |x, _| f(x + a));
                assert!((end / f64::from(rest) - 1.0).abs() < 1e-6, "{name}: {end}");
            }
        }
    }

    #[test]
    fn integer_chains_have_known_ends() {
        assert_eq!(multiplied(1, 3, 5, 2), 29);
        assert_eq!(added(u32::MAX, 1, 2, 2), 5);
        assert_eq!(counted_up(ONE, ONE, ONE, 3), 4.0_f32.to_bits());
    }
}
