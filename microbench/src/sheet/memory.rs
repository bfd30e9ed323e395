//! Bandwidth of device memory and of L2: a set that is read, written or copied whole, from outside of every cache or within L2.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Kernel, Launch};
use stepscope_device::nvrtc::Program;
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::device_sheet::{Group, Quantity, RowTimer, Unit};

use super::context::{Claims, Context, Probe};
use super::kernels::{Module, Timed, program as program_of};
use crate::{Error, L2, Work};

/// Threads of a block, as `memory.cu` bounds them.
const THREADS: u32 = 512;
/// Bytes that a block reads with all its loads under way: eight of 16 bytes a thread.
const CHUNK: usize = 8 * 16 * THREADS as usize;
/// What word i holds: `i * FACTOR + SEED`.
const FACTOR: u32 = 0x9E37_79B1;
const SEED: u32 = 12345;
/// Bytes that a timed launch reads where the set is smaller: some 0.3 ms on an H100, so that the launch itself is below 1 %.
const BYTES_READ: usize = 1 << 30;

const MIB: usize = 1 << 20;
/// Working sets of the curve.
const SETS: [usize; 19] = [
    MIB / 4,
    MIB / 2,
    MIB,
    2 * MIB,
    4 * MIB,
    8 * MIB,
    12 * MIB,
    16 * MIB,
    24 * MIB,
    32 * MIB,
    40 * MIB,
    48 * MIB,
    64 * MIB,
    96 * MIB,
    128 * MIB,
    192 * MIB,
    256 * MIB,
    512 * MIB,
    1024 * MIB,
];
const QUICK_SETS: [usize; 7] = [
    MIB,
    4 * MIB,
    16 * MIB,
    32 * MIB,
    64 * MIB,
    128 * MIB,
    512 * MIB,
];

arguments! {
    struct ReadSet {
        set: DevicePointer,
        chunks: u32,
        passes: u32,
        sums: DevicePointer,
    }
}
arguments! {
    struct WriteSet {
        set: DevicePointer,
        vectors: u64,
        seed: u32,
    }
}
arguments! {
    struct CopySet {
        to: DevicePointer,
        from: DevicePointer,
        vectors: u64,
    }
}

pub(super) fn program() -> Program {
    let names = ["read_set", "write_set", "copy_set"].map(str::to_owned);
    program_of("memory.cu", include_str!("memory.cu"), &names)
}

fn probe(name: &str, title: &str, claim: &str) -> Probe {
    Probe {
        group: Group::Memory,
        name: name.to_owned(),
        title: title.to_owned(),
        claim: claim.to_owned(),
        unit: Unit::BytesPerSecond,
        timer: RowTimer::Event,
        at: None,
    }
}

/// What words `0..words` add up to, modulo 2³².
fn sum_of(words: u64) -> u32 {
    let pairs = u128::from(words) * u128::from(words.saturating_sub(1)) / 2;
    let sum = u128::from(FACTOR) * (pairs % (1 << 32)) + u128::from(SEED) * u128::from(words);
    (sum % (1 << 32)) as u32
}

struct Kernels {
    read: Kernel<ReadSet>,
    write: Kernel<WriteSet>,
    copy: Kernel<CopySet>,
}

/// Buffers and kernels of the group.
struct Memory {
    kernels: Kernels,
    set: DeviceBuffer<u32>,
    target: DeviceBuffer<u32>,
    sums: DeviceBuffer<u32>,
    launch: Launch,
}

impl Memory {
    fn new(context: &Context<'_>) -> Result<Memory, Error> {
        let cuda = context.cuda();
        let module = Module::load(cuda, &program())?;
        let kernels = Kernels {
            read: module.kernel("read_set")?,
            write: module.kernel("write_set")?,
            copy: module.kernel("copy_set")?,
        };
        let (free, _) = cuda.context().memory()?;
        let most = if context.is_quick() {
            512 * MIB
        } else {
            1024 * MIB
        };
        let bytes = context.sized(most.min(free / 4) / MIB * MIB, MIB / 4);
        let resident = kernels
            .read
            .function()
            .blocks_per_multiprocessor(THREADS, 0)?;
        let blocks = context.sized(resident.max(1) * context.multiprocessors(), 4);
        let buffer = |what, len| DeviceBuffer::<u32>::new(cuda.context(), what, len);
        Ok(Memory {
            kernels,
            set: buffer("a set to read", bytes / 4)?,
            target: buffer("a set to write", bytes / 4)?,
            sums: buffer("sums of blocks", blocks as usize)?,
            launch: Launch::of_blocks(blocks, THREADS),
        })
    }

    fn bytes(&self) -> usize {
        self.set.bytes()
    }

    /// A launch that reads the first `bytes` of the set `passes` times.
    fn reading<'a>(
        &'a self,
        context: &'a Context<'_>,
        bytes: usize,
        passes: u32,
    ) -> Timed<'a, ReadSet> {
        let cuda = context.cuda();
        Timed {
            cuda,
            kernel: &self.kernels.read,
            launch: self.launch,
            arguments: ReadSet {
                set: self.set.pointer(),
                chunks: (bytes / CHUNK) as u32,
                passes,
                sums: self.sums.pointer(),
            },
            work: Work {
                flops: 0,
                bytes: bytes as u64 * u64::from(passes),
            },
            check: Box::new(move || {
                let mut sums = vec![0; self.sums.len()];
                self.sums.read(cuda.stream(), 0, &mut sums)?;
                let found = sums.iter().fold(0_u32, |sum, x| sum.wrapping_add(*x));
                let expected = sum_of(bytes as u64 / 4).wrapping_mul(passes);
                match found == expected {
                    true => Ok(()),
                    false => Err(Error::Wrong(format!(
                        "{bytes} bytes read {passes} times add up to {found:#x}, not {expected:#x}"
                    ))),
                }
            }),
        }
    }

    /// That `buffer` holds its words, in as many places as a moment allows: all of a small one, 256 pieces of a large one.
    fn holds_words(&self, context: &Context<'_>, buffer: &DeviceBuffer<u32>) -> Result<(), Error> {
        const PIECE: usize = 4096;
        let pieces = (buffer.len() / PIECE).clamp(1, 256);
        let last = buffer.len().saturating_sub(PIECE);
        for piece in 0..pieces {
            let at = last / PIECE * piece / (pieces - 1).max(1) * PIECE;
            let mut words = vec![0; PIECE.min(buffer.len() - at)];
            buffer.read(context.cuda().stream(), at, &mut words)?;
            for (index, &word) in words.iter().enumerate() {
                let expected = ((at + index) as u32)
                    .wrapping_mul(FACTOR)
                    .wrapping_add(SEED);
                if word != expected {
                    return Err(Error::Wrong(format!(
                        "word {} is {word:#x}, not {expected:#x}",
                        at + index
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Reads from device memory, as a load.
pub(super) struct Load(Memory);

impl Load {
    pub(super) fn new(context: &Context<'_>) -> Result<Load, Error> {
        let mut memory = Memory::new(context)?;
        memory.set.fill(context.cuda().stream(), 0x3f)?;
        Ok(Load(memory))
    }

    /// Puts a launch that reads the whole set into the stream.
    pub(super) fn launch(&self, cuda: &Cuda) -> Result<(), Error> {
        let memory = &self.0;
        let arguments = ReadSet {
            set: memory.set.pointer(),
            chunks: (memory.bytes() / CHUNK) as u32,
            passes: 1,
            sums: memory.sums.pointer(),
        };
        // SAFETY: the buffers are this one's, and as large as the arguments say.
        unsafe { cuda.launch(&memory.kernels.read, &memory.launch, &arguments)? };
        Ok(())
    }
}

pub(super) fn run(context: &mut Context<'_>) {
    let write = probe(
        "dram_write",
        "write to DRAM",
        "each launch writes a set of a gibibyte, far larger than L2, once, 16 bytes a thread",
    );
    let read = probe(
        "dram_read",
        "read from DRAM",
        "each launch reads a set of a gibibyte, far larger than L2, once, past the first-level cache, 8 × 16 bytes of a thread under way",
    );
    let copy = probe(
        "dram_copy",
        "copy within DRAM, both ways counted",
        "each launch reads a set of a gibibyte and writes it elsewhere",
    );
    let l2 = probe(
        "l2_read",
        "read from L2",
        "each launch reads a quarter of L2 again and again, past the first-level cache",
    );
    let memory = match Memory::new(context) {
        Ok(memory) => memory,
        Err(error) => return context.without(&[write, read, copy, l2], &error),
    };
    let bytes = memory.bytes();
    let whole = bytes as u64;
    let claims = Claims::Sum(vec![
        (Quantity::StoredBytes, whole),
        (Quantity::WrittenSetBytes, whole),
        (Quantity::LoadedBytes, 0),
    ]);
    context.probe(&write, &claims, |context| {
        let mut subject = Timed {
            cuda: context.cuda(),
            kernel: &memory.kernels.write,
            launch: memory.launch,
            arguments: WriteSet {
                set: memory.set.pointer(),
                vectors: whole / 16,
                seed: SEED,
            },
            work: Work {
                flops: 0,
                bytes: whole,
            },
            check: Box::new(|| memory.holds_words(context, &memory.set)),
        };
        context.rate(&mut subject, L2::Cold, bytes as f64)
    });
    let claims = |bytes: usize, passes: u32| {
        Claims::Sum(vec![
            (Quantity::LoadedBytes, bytes as u64 * u64::from(passes)),
            (Quantity::ReadSetBytes, bytes as u64),
        ])
    };
    context.probe(&read, &claims(bytes, 1), |context| {
        context.rate(
            &mut memory.reading(context, bytes, 1),
            L2::Cold,
            bytes as f64,
        )
    });
    let both = Claims::Sum(vec![
        (Quantity::LoadedBytes, whole),
        (Quantity::StoredBytes, whole),
        (Quantity::ReadSetBytes, whole),
        (Quantity::WrittenSetBytes, whole),
    ]);
    context.probe(&copy, &both, |context| {
        let mut subject = Timed {
            cuda: context.cuda(),
            kernel: &memory.kernels.copy,
            launch: memory.launch,
            arguments: CopySet {
                to: memory.target.pointer(),
                from: memory.set.pointer(),
                vectors: whole / 16,
            },
            work: Work {
                flops: 0,
                bytes: 2 * whole,
            },
            check: Box::new(|| memory.holds_words(context, &memory.target)),
        };
        context.rate(&mut subject, L2::Cold, 2.0 * bytes as f64)
    });
    let l2_bytes = context.cuda().context().device().limits.l2_bytes as usize;
    let set = context.sized((l2_bytes / 4 / CHUNK * CHUNK).min(bytes), bytes / 4);
    let passes = passes(context, set);
    if set == 0 {
        context.skip(&l2, "the driver does not say how large L2 is");
    } else {
        context.probe(&l2, &claims(set, passes), |context| {
            let amount = set as f64 * f64::from(passes);
            context.rate(&mut memory.reading(context, set, passes), L2::Warm, amount)
        });
    }
    curve(context, &memory);
}

/// How often a set is read in a launch.
fn passes(context: &Context<'_>, set: usize) -> u32 {
    let gpu = u32::try_from(BYTES_READ / set.max(1)).unwrap_or(u32::MAX);
    context.sized(gpu.max(1), 2)
}

/// Reads by the size of what is read again and again: the step is where L2 ends.
fn curve(context: &mut Context<'_>, memory: &Memory) {
    let sets: Vec<usize> = match (context.is_emulated(), context.is_quick()) {
        (true, _) => vec![CHUNK, 2 * CHUNK],
        (false, true) => QUICK_SETS.to_vec(),
        (false, false) => SETS.to_vec(),
    };
    for set in sets.into_iter().filter(|&set| set <= memory.bytes()) {
        let passes = passes(context, set);
        let probe = Probe {
            at: Some(set as f64),
            ..probe(
                "set_read",
                "read by working set",
                "each launch reads the working set again and again, a gibibyte in all, past the first-level cache",
            )
        };
        let claims = Claims::Sum(vec![
            (Quantity::LoadedBytes, set as u64 * u64::from(passes)),
            (Quantity::ReadSetBytes, set as u64),
        ]);
        context.probe(&probe, &claims, |context| {
            let amount = set as f64 * f64::from(passes);
            context.rate(&mut memory.reading(context, set, passes), L2::Warm, amount)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_a_closed_form() {
        for words in [0_u64, 1, 2, 1000, 70_001] {
            let sum = (0..words).fold(0_u32, |sum, i| {
                sum.wrapping_add((i as u32).wrapping_mul(FACTOR).wrapping_add(SEED))
            });
            assert_eq!(sum_of(words), sum, "{words}");
        }
        // Beyond 2^32 words they begin anew.
        assert_eq!(
            sum_of((1 << 32) + 5),
            sum_of(1 << 32).wrapping_add(sum_of(5))
        );
    }

    #[test]
    fn sets_grow_and_are_whole_chunks() {
        assert!(
            SETS.iter()
                .chain(&QUICK_SETS)
                .all(|set| set.is_multiple_of(CHUNK))
        );
        assert!(SETS.is_sorted() && QUICK_SETS.is_sorted());
    }
}
