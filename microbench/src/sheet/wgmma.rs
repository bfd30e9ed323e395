//! Rates of the tensor cores by `wgmma`, with both operands in shared memory: compute capability 9.0.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Launch};
use stepscope_device::nvrtc::{Arch, Program};
use stepscope_profiler::device_sheet::{Group, Quantity, RowTimer, Unit};

use super::context::{Claims, Context, Probe, per_clock};
use super::kernels::program as program_of;
use super::loops::Loops;
use super::numbers::{Element, random};
use crate::{Error, Work};

/// Instructions of a group that is waited for: the longer loop does not wait more often.
const UNROLL: [u32; 2] = [32, 64];
/// Threads of a warpgroup, and warpgroups of a block.
const GROUP: usize = 128;
const GROUPS: u32 = 2;
const ROWS: usize = 64;
const COLUMNS: usize = 256;
/// Bytes of a row of A and of a column of B.
const BYTES: usize = 128;
/// Instructions along those bytes.
const STEPS: usize = 4;

arguments! {
    struct Wgmma {
        iterations: u32,
        a: DevicePointer,
        b: DevicePointer,
        out: DevicePointer,
        stamps: DevicePointer,
    }
}

struct Instruction {
    /// In `wgmma.cu`.
    kernel: &'static str,
    name: &'static str,
    title: &'static str,
    element: Element,
    /// Of the sum of all products' sizes: how far sums may be off. Those of 8-bit products keep fewer bits than float32.
    tolerance: f64,
}

const INSTRUCTIONS: [Instruction; 3] = [
    Instruction {
        kernel: "Bf16",
        name: "wgmma_bf16",
        title: "wgmma m64n256k16 bf16",
        element: Element::Bf16,
        tolerance: 1e-3,
    },
    Instruction {
        kernel: "F16",
        name: "wgmma_f16",
        title: "wgmma m64n256k16 f16",
        element: Element::F16,
        tolerance: 1e-3,
    },
    Instruction {
        kernel: "E4m3",
        name: "wgmma_e4m3",
        title: "wgmma m64n256k32 fp8 (e4m3)",
        element: Element::E4m3,
        tolerance: 0.02,
    },
];

fn expression(kernel: &str, unroll: u32) -> String {
    format!("wgmma<{kernel}, {unroll}>")
}

/// Whether machine code of this architecture has the instruction.
pub(super) fn is_for(arch: Arch) -> bool {
    arch.to_string() == "sm_90a"
}

pub(super) fn program() -> Program {
    let names: Vec<String> = UNROLL
        .iter()
        .flat_map(|&unroll| {
            INSTRUCTIONS
                .iter()
                .map(move |i| expression(i.kernel, unroll))
        })
        .collect();
    program_of("wgmma.cu", include_str!("wgmma.cu"), &names)
}

/// Where byte `byte` of row or column `row` lies in shared memory: 16 bytes number c at c ^ (row % 8).
fn swizzled(row: usize, byte: usize) -> usize {
    row * BYTES + ((byte / 16) ^ (row % 8)) * 16 + byte % 16
}

/// `rows` times 128 bytes of numbers as shared memory holds them.
fn image(element: Element, numbers: &[i32], rows: usize) -> Vec<u8> {
    let size = element.bits() as usize / 8;
    let k = BYTES / size;
    let mut bytes = vec![0; rows * BYTES];
    for row in 0..rows {
        for column in 0..k {
            let at = swizzled(row, column * size);
            let encoded = element.encoded(numbers[row * k + column]).to_le_bytes();
            bytes[at..at + size].copy_from_slice(&encoded[..size]);
        }
    }
    bytes
}

struct Rate<'a> {
    instruction: &'a Instruction,
    loops: Loops<Wgmma>,
    a: DeviceBuffer<u8>,
    b: DeviceBuffer<u8>,
    /// `[row][column]`: the product along all 128 bytes, and that of the factors' sizes.
    products: Vec<[f64; 2]>,
    out: DeviceBuffer<f32>,
}

impl<'a> Rate<'a> {
    fn new(context: &Context<'_>, instruction: &'a Instruction) -> Result<Rate<'a>, Error> {
        let cuda = context.cuda();
        let blocks = context.sized(context.multiprocessors(), 1);
        let loops = Loops::new(
            context,
            &program(),
            |unroll| expression(instruction.kernel, unroll),
            UNROLL,
            Launch::of_blocks(blocks, GROUPS * GROUP as u32),
            context.sized(20, 1),
        )?;
        let element = instruction.element;
        let k = 8 * BYTES / element.bits() as usize;
        let (a, b) = (random(11, ROWS * k), random(12, COLUMNS * k));
        let mut products = Vec::with_capacity(ROWS * COLUMNS);
        for row in 0..ROWS {
            for column in 0..COLUMNS {
                let terms = (0..k)
                    .map(|i| element.value(a[row * k + i]) * element.value(b[column * k + i]));
                products.push([terms.clone().sum(), terms.map(f64::abs).sum()]);
            }
        }
        let upload = |what, bytes: &[u8]| -> Result<DeviceBuffer<u8>, Error> {
            let mut buffer = DeviceBuffer::new(cuda.context(), what, bytes.len())?;
            buffer.write(cuda.stream(), 0, bytes)?;
            Ok(buffer)
        };
        let len = (blocks * GROUPS) as usize * ROWS * COLUMNS;
        Ok(Rate {
            instruction,
            loops,
            a: upload("operand A", &image(element, &a, ROWS))?,
            b: upload("operand B", &image(element, &b, COLUMNS))?,
            products,
            out: DeviceBuffer::new(cuda.context(), "sums", len)?,
        })
    }

    fn arguments(&self) -> Wgmma {
        Wgmma {
            iterations: self.loops.iterations,
            a: self.a.pointer(),
            b: self.b.pointer(),
            out: self.out.pointer(),
            stamps: self.loops.stamps.pointer(),
        }
    }

    /// FLOPs of one block.
    fn flops(&self, which: usize) -> u64 {
        let k = (256 / self.instruction.element.bits()) as u64;
        let of_one = 2 * (ROWS * COLUMNS) as u64 * k;
        of_one * u64::from(GROUPS * self.loops.steps(which))
    }

    /// Register r of thread t of a warpgroup: row 16 (t / 32) + t % 32 / 4, eight more where r / 2 is odd; column 8 (r / 4) +
    /// 2 (t % 4) + r % 2.
    fn check(&self, context: &Context<'_>, which: usize) -> Result<(), Error> {
        let mut found = vec![0.0; self.out.len()];
        self.out.read(context.cuda().stream(), 0, &mut found)?;
        let rounds = f64::from(self.loops.steps(which)) / STEPS as f64;
        for (index, &value) in found.iter().enumerate() {
            let (thread, register) = (index % GROUP, index / GROUP % (COLUMNS / 2));
            let row = 16 * (thread / 32) + thread % 32 / 4 + 8 * (register / 2 % 2);
            let column = 8 * (register / 4) + 2 * (thread % 4) + register % 2;
            let [product, size] = self.products[row * COLUMNS + column];
            let expected = rounds * product;
            let is_right =
                (f64::from(value) - expected).abs() <= self.instruction.tolerance * rounds * size;
            if !is_right {
                return Err(Error::Wrong(format!(
                    "row {row}, column {column} is {value} after {rounds} rounds, not {expected}"
                )));
            }
        }
        Ok(())
    }
}

fn probes(instruction: &Instruction) -> [Probe; 2] {
    let probe = |name: String, title: String, claim: &str, unit, timer| Probe {
        group: Group::Tensor,
        name,
        title,
        claim: claim.to_owned(),
        unit,
        timer,
        at: None,
    };
    [
        probe(
            format!("{}_clk", instruction.name),
            format!("{}, per multiprocessor", instruction.title),
            "two warpgroups on every multiprocessor, both operands in shared memory (128-byte swizzle), random numbers from -1 to 1; waiting for groups taken out by difference",
            Unit::FlopPerClock,
            RowTimer::Clock64,
        ),
        probe(
            instruction.name.to_owned(),
            instruction.title.to_owned(),
            "the same from outside, whole device; a group of 64 instructions is waited for while the other warpgroup goes on",
            Unit::FlopPerSecond,
            RowTimer::Event,
        ),
    ]
}

pub(super) fn run(context: &mut Context<'_>) {
    for instruction in &INSTRUCTIONS {
        let [clk, whole] = probes(instruction);
        let [major, minor] = context.cuda().context().device().compute_capability;
        if [major, minor] != [9, 0] {
            let why = format!(
                "wgmma is an instruction of compute capability 9.0, and this GPU has {major}.{minor}"
            );
            context.skip(&clk, why.clone());
            context.skip(&whole, why);
            continue;
        }
        let rate = match Rate::new(context, instruction) {
            Ok(rate) => rate,
            Err(error) => {
                context.without(&[clk, whole], &error);
                continue;
            }
        };
        let blocks = rate.loops.blocks();
        // The emulated device counts matrix instructions by warps.
        let warps = u64::from(4 * GROUPS * rate.loops.more_steps());
        let more = rate.flops(1) - rate.flops(0);
        let claims = Claims::Difference(vec![
            (Quantity::TensorInstructions, blocks * warps),
            (Quantity::TensorFlops, blocks * more),
        ]);
        context.probe(&clk, &claims, |context| {
            let check = |which| rate.check(context, which);
            let pairs = rate.loops.pairs(context, &rate.arguments(), check)?;
            Ok(per_clock(&pairs, more as f64))
        });
        let flops = blocks * rate.flops(1);
        let claims = Claims::Sum(vec![(Quantity::TensorFlops, flops)]);
        context.probe(&whole, &claims, |context| {
            let work = Work { flops, bytes: 0 };
            let check = |which| rate.check(context, which);
            rate.loops.whole(context, rate.arguments(), work, check)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_swizzle_moves_every_byte_to_a_place_of_its_own() {
        let mut places: Vec<usize> = (0..16)
            .flat_map(|row| (0..BYTES).map(move |byte| swizzled(row, byte)))
            .collect();
        places.sort_unstable();
        assert!(places.into_iter().eq(0..16 * BYTES));
        assert_eq!(swizzled(0, 17), 17);
        assert_eq!(swizzled(1, 0), BYTES + 16);
        assert_eq!(swizzled(9, 18), 9 * BYTES + 2);
    }
}
