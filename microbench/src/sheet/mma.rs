//! Rates of the tensor cores by `mma.sync`, and its latency.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Launch};
use stepscope_device::nvrtc::Program;
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::device_sheet::{Group, Quantity, RowTimer, Unit};

use super::context::{Claims, Context, Probe, cycles_each, per_clock};
use super::kernels::program as program_of;
use super::loops::Loops;
use super::numbers::{Element, random};
use crate::{Error, Work};

const UNROLL: [u32; 2] = [128, 256];
/// Tiles of a warp that are added to in turn: at four and more, none waits for the one before.
const CHAINS: u32 = 8;
/// Two warps for each of a multiprocessor's four tensor cores.
const THREADS: u32 = 256;
const WARP: usize = 32;
/// Rows and columns of a tile.
const M: usize = 16;
const N: usize = 8;
/// Of the sum of all products' sizes: more than roundings of sums in float32 can come to.
const TOLERANCE: f64 = 1e-3;

arguments! {
    struct MmaSync {
        iterations: u32,
        operands: DevicePointer,
        out: DevicePointer,
        stamps: DevicePointer,
    }
}

/// An instruction.
struct Instruction {
    /// In `tensor.cu`.
    kernel: &'static str,
    name: &'static str,
    title: &'static str,
    element: Element,
}

const INSTRUCTIONS: [Instruction; 4] = [
    Instruction {
        kernel: "Bf16",
        name: "mma_bf16",
        title: "mma.sync m16n8k16 bf16",
        element: Element::Bf16,
    },
    Instruction {
        kernel: "F16",
        name: "mma_f16",
        title: "mma.sync m16n8k16 f16",
        element: Element::F16,
    },
    Instruction {
        kernel: "Tf32",
        name: "mma_tf32",
        title: "mma.sync m16n8k8 tf32",
        element: Element::Tf32,
    },
    Instruction {
        kernel: "S8",
        name: "mma_s8",
        title: "mma.sync m16n8k32 s8",
        element: Element::S8,
    },
];

fn expression(kernel: &str, chains: u32, unroll: u32) -> String {
    format!("mma_sync<{kernel}, {chains}, {unroll}>")
}

pub(super) fn program() -> Program {
    let mut names = Vec::new();
    for unroll in UNROLL {
        names.extend(
            INSTRUCTIONS
                .iter()
                .map(|i| expression(i.kernel, CHAINS, unroll)),
        );
        names.push(expression("Bf16", 1, unroll));
    }
    program_of("tensor.cu", include_str!("tensor.cu"), &names)
}

/// A of all chains and B of each, as lanes hold them, and the products.
struct Operands {
    words: Vec<u32>,
    /// `[chain][row][column]`: of one instruction.
    products: Vec<f64>,
    /// The same of the sizes of all factors.
    sizes: Vec<f64>,
}

impl Operands {
    /// Lane l has g = l / 4 and t = l % 4. Of E elements in a register: A's register r holds row g + 8 (r % 2) and columns E t on,
    /// beyond four times E where r is 2 or 3; B's register r column g and rows likewise.
    fn new(element: Element, chains: u32) -> Operands {
        let per_word = (32 / element.bits()) as usize;
        let k = 8 * per_word;
        let a = random(1, M * k);
        let packed = |of: &dyn Fn(usize) -> i32| {
            (0..per_word).fold(0, |word, i| {
                word | element.encoded(of(i)) << (i as u32 * element.bits())
            })
        };
        let mut operands = Operands {
            words: Vec::new(),
            products: Vec::new(),
            sizes: Vec::new(),
        };
        for register in 0..4 {
            for lane in 0..WARP {
                let (row, column) = (
                    lane / 4 + 8 * (register % 2),
                    per_word * (lane % 4 + 4 * (register / 2)),
                );
                operands.words.push(packed(&|i| a[row * k + column + i]));
            }
        }
        for chain in 0..chains {
            let b = random(2 + u64::from(chain), k * N);
            for register in 0..2 {
                for lane in 0..WARP {
                    let (row, column) = (per_word * (lane % 4 + 4 * register), lane / 4);
                    operands.words.push(packed(&|i| b[(row + i) * N + column]));
                }
            }
            for row in 0..M {
                for column in 0..N {
                    let terms = (0..k)
                        .map(|i| element.value(a[row * k + i]) * element.value(b[i * N + column]));
                    operands.products.push(terms.clone().sum());
                    operands.sizes.push(terms.map(f64::abs).sum());
                }
            }
        }
        operands
    }
}

/// Kernels and buffers of one instruction.
pub(super) struct Rate {
    element: Element,
    loops: Loops<MmaSync>,
    chains: u32,
    operands: Operands,
    uploaded: DeviceBuffer<u32>,
    out: DeviceBuffer<u32>,
}

impl Rate {
    fn new(
        context: &Context<'_>,
        instruction: &Instruction,
        chains: u32,
        blocks: u32,
        threads: u32,
    ) -> Result<Rate, Error> {
        let cuda = context.cuda();
        let loops = Loops::new(
            context,
            &program(),
            |unroll| expression(instruction.kernel, chains, unroll),
            UNROLL,
            Launch::of_blocks(blocks, threads),
            context.sized(100, 1),
        )?;
        let operands = Operands::new(instruction.element, chains);
        let mut uploaded = DeviceBuffer::new(cuda.context(), "operands", operands.words.len())?;
        uploaded.write(cuda.stream(), 0, &operands.words)?;
        let len = (blocks * threads * chains * 4) as usize;
        Ok(Rate {
            element: instruction.element,
            loops,
            chains,
            operands,
            uploaded,
            out: DeviceBuffer::new(cuda.context(), "tiles", len)?,
        })
    }

    /// bfloat16 on all tensor cores, as a load.
    pub(super) fn load(context: &Context<'_>) -> Result<Rate, Error> {
        Rate::new(
            context,
            &INSTRUCTIONS[0],
            CHAINS,
            context.multiprocessors(),
            THREADS,
        )
    }

    /// Puts a launch of the longer loop into the stream.
    pub(super) fn launch(&self, cuda: &Cuda) -> Result<(), Error> {
        let loops = &self.loops;
        // SAFETY: the buffers are this one's, and as large as the grid needs.
        unsafe { cuda.launch(&loops.kernels[1], &loops.launch, &self.arguments())? };
        Ok(())
    }

    fn arguments(&self) -> MmaSync {
        MmaSync {
            iterations: self.loops.iterations,
            operands: self.uploaded.pointer(),
            out: self.out.pointer(),
            stamps: self.loops.stamps.pointer(),
        }
    }

    /// Instructions of the warps of one block.
    fn instructions(&self, which: usize) -> u64 {
        u64::from(self.loops.launch.block[0] / 32) * u64::from(self.loops.steps(which))
    }

    /// FLOPs, or integer operations, of one instruction.
    fn worth(&self) -> u64 {
        (2 * M * N) as u64 * u64::from(8 * 32 / self.element.bits())
    }

    fn check(&self, context: &Context<'_>, which: usize) -> Result<(), Error> {
        let mut found = vec![0; self.out.len()];
        self.out.read(context.cuda().stream(), 0, &mut found)?;
        let steps = f64::from(self.loops.steps(which) / self.chains);
        for (index, &bits) in found.iter().enumerate() {
            let (lane, register) = (index % WARP, index / WARP % 4);
            let chain = index / (4 * WARP) % self.chains as usize;
            let row = lane / 4 + 8 * (register / 2);
            let column = 2 * (lane % 4) + register % 2;
            let place = (chain * M + row) * N + column;
            let value = match self.element.is_integer() {
                true => f64::from(bits.cast_signed()),
                false => f64::from(f32::from_bits(bits)),
            };
            let expected = steps * self.operands.products[place];
            let allowed = match self.element.is_integer() {
                true => 0.0,
                false => TOLERANCE * steps * self.operands.sizes[place],
            };
            if (value - expected).abs() > allowed || value.is_nan() {
                return Err(Error::Wrong(format!(
                    "row {row}, column {column} of chain {chain} is {value} after {steps} products, not {expected}"
                )));
            }
        }
        Ok(())
    }

    /// What the longer loop does more than the shorter one, in all blocks.
    fn claims(&self) -> Claims {
        let more = self.loops.blocks() * (self.instructions(1) - self.instructions(0));
        Claims::Difference(vec![
            (Quantity::TensorInstructions, more),
            (self.quantity(), more * self.worth()),
        ])
    }

    fn quantity(&self) -> Quantity {
        match self.element.is_integer() {
            true => Quantity::TensorIntegerOperations,
            false => Quantity::TensorFlops,
        }
    }
}

pub(super) fn run(context: &mut Context<'_>) {
    for instruction in &INSTRUCTIONS {
        let is_integer = instruction.element.is_integer();
        let probe = |name: &str, title: &str, claim: &str, unit, timer| Probe {
            group: Group::Tensor,
            name: name.to_owned(),
            title: title.to_owned(),
            claim: claim.to_owned(),
            unit,
            timer,
            at: None,
        };
        let clk = probe(
            &format!("{}_clk", instruction.name),
            &format!("{}, per multiprocessor", instruction.title),
            "8 warps on every multiprocessor, 8 tiles a warp, operands in registers, random numbers from -1 to 1; loop taken out by difference",
            if is_integer {
                Unit::OperationsPerClock
            } else {
                Unit::FlopPerClock
            },
            RowTimer::Clock64,
        );
        let whole = probe(
            instruction.name,
            instruction.title,
            "the same from outside, whole device, its loop included (3 instructions in 256)",
            if is_integer {
                Unit::OperationsPerSecond
            } else {
                Unit::FlopPerSecond
            },
            RowTimer::Event,
        );
        let blocks = context.multiprocessors();
        let rate = match Rate::new(context, instruction, CHAINS, blocks, THREADS) {
            Ok(rate) => rate,
            Err(error) => {
                context.without(&[clk, whole], &error);
                continue;
            }
        };
        context.probe(&clk, &rate.claims(), |context| {
            let check = |which| rate.check(context, which);
            let pairs = rate.loops.pairs(context, &rate.arguments(), check)?;
            let more = rate.worth() * (rate.instructions(1) - rate.instructions(0));
            Ok(per_clock(&pairs, more as f64))
        });
        let operations = rate.worth() * u64::from(blocks) * rate.instructions(1);
        let claims = Claims::Sum(vec![(rate.quantity(), operations)]);
        context.probe(&whole, &claims, |context| {
            let work = Work {
                flops: operations,
                bytes: 0,
            };
            let check = |which| rate.check(context, which);
            rate.loops.whole(context, rate.arguments(), work, check)
        });
    }
    latency(context);
}

/// One tile of one warp: each instruction waits for the one before.
fn latency(context: &mut Context<'_>) {
    let probe = Probe {
        group: Group::Tensor,
        name: "mma_latency".to_owned(),
        title: "mma.sync m16n8k16 bf16, latency".to_owned(),
        claim: "one warp adds to one tile: each instruction waits for the one before; loop taken out by difference".to_owned(),
        unit: Unit::Cycles,
        timer: RowTimer::Clock64,
        at: None,
    };
    let rate = match Rate::new(context, &INSTRUCTIONS[0], 1, 1, 32) {
        Ok(rate) => rate,
        Err(error) => return context.without(&[probe], &error),
    };
    context.probe(&probe, &rate.claims(), |context| {
        let check = |which| rate.check(context, which);
        let pairs = rate.loops.pairs(context, &rate.arguments(), check)?;
        Ok(cycles_each(&pairs, f64::from(rate.loops.more_steps())))
    });
}
