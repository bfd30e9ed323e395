//! Latencies by pointer chase: one thread, each load of which gives the address of the next.
//!
//! | row | ring | cache |
//! |---|---|---|
//! | `shared_latency` | 4 KiB of shared memory | – |
//! | `l1_latency` | 16 KiB, a slot each 64 bytes | `.ca`, gone round once before |
//! | `l2_latency` | 1 MiB, a slot each 128 bytes | `.cg`, read by all multiprocessors before |
//! | `dram_latency` | half a gibibyte, a slot each 256 bytes | `.cg`, L2 overwritten before each walk, every line seen once |
//! | `set_latency` | the working set, a slot each 128 bytes | `.ca`, read before: what a random reader sees |
//! | `tlb_latency` | a slot each 2 MiB, so that few lines need many pages | `.cg`, read before: all lines are in L2 |

mod ring;

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Kernel, Launch};
use stepscope_device::nvrtc::Program;
use stepscope_profiler::device_sheet::{Group, Quantity, RowTimer, Unit};

use self::ring::{Ring, Shape};
use super::context::{Claims, Context, Probe, cycles_each, pairs};
use super::kernels::{self, Module, program as program_of};
use super::stamps::Stamps;
use crate::Error;

const UNROLL: [u32; 2] = [128, 256];
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

arguments! {
    struct Chase {
        start: u64,
        warm: u32,
        iterations: u32,
        last: DevicePointer,
        stamps: DevicePointer,
    }
}
arguments! {
    struct ChaseShared {
        step: u32,
        iterations: u32,
        last: DevicePointer,
        stamps: DevicePointer,
    }
}

/// Which cache a load asks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    FirstLevel,
    L2,
}

fn chase(cache: Cache, unroll: u32) -> String {
    let cache = match cache {
        Cache::FirstLevel => "FIRST_LEVEL",
        Cache::L2 => "L2",
    };
    format!("chase<{cache}, {unroll}>")
}

fn chase_shared(unroll: u32) -> String {
    format!("chase_shared<{unroll}>")
}

pub(super) fn program() -> Program {
    let mut names = vec!["link_ring".to_owned(), "touch_ring".to_owned()];
    for unroll in UNROLL {
        names.extend([
            chase(Cache::FirstLevel, unroll),
            chase(Cache::L2, unroll),
            chase_shared(unroll),
        ]);
    }
    program_of("latency.cu", include_str!("latency.cu"), &names)
}

fn probe(name: &str, title: &str, claim: String, at: Option<u64>) -> Probe {
    Probe {
        group: Group::Latency,
        name: name.to_owned(),
        title: title.to_owned(),
        claim,
        unit: Unit::Cycles,
        timer: RowTimer::Clock64,
        at: at.map(|bytes| bytes as f64),
    }
}

/// A walk through a ring: what is done before each, and how long it is.
struct Walk {
    cache: Cache,
    /// Steps without a clock before.
    warm: u32,
    /// Loops of [`UNROLL`] steps.
    iterations: u32,
    /// Whether L2 is overwritten before, and each walk begins somewhere else.
    is_cold: bool,
}

/// Kernels and buffers of the group.
struct Latency {
    first_level: [Kernel<Chase>; 2],
    l2: [Kernel<Chase>; 2],
    shared: [Kernel<ChaseShared>; 2],
    rings: ring::Kernels,
    last: DeviceBuffer<u64>,
    stamps: Stamps,
}

impl Latency {
    fn new(context: &Context<'_>) -> Result<Latency, Error> {
        let cuda = context.cuda();
        let module = Module::load(cuda, &program())?;
        let both = |cache| -> Result<[Kernel<Chase>; 2], Error> {
            Ok([
                module.kernel(&chase(cache, UNROLL[0]))?,
                module.kernel(&chase(cache, UNROLL[1]))?,
            ])
        };
        Ok(Latency {
            first_level: both(Cache::FirstLevel)?,
            l2: both(Cache::L2)?,
            shared: [
                module.kernel(&chase_shared(UNROLL[0]))?,
                module.kernel(&chase_shared(UNROLL[1]))?,
            ],
            rings: ring::Kernels::new(&module)?,
            last: DeviceBuffer::new(cuda.context(), "where a chase ends", 1)?,
            stamps: Stamps::new(cuda, 1)?,
        })
    }

    /// The row of a walk through a ring of `shape`.
    fn row(&self, context: &mut Context<'_>, probe: &Probe, shape: Shape, walk: &Walk) {
        let ring = match Ring::new(context, &self.rings, shape) {
            Ok(ring) => ring,
            Err(error) => return context.without(std::slice::from_ref(probe), &error),
        };
        let more = u64::from(walk.iterations * (UNROLL[1] - UNROLL[0]));
        let claims = Claims::Difference(vec![(Quantity::GlobalLoads, more)]);
        context.probe(probe, &claims, |context| {
            let cuda = context.cuda();
            let mut flush = match walk.is_cold && !context.is_emulated() {
                true => Some(DeviceBuffer::<u8>::new(
                    cuda.context(),
                    "what pushes everything else out of L2",
                    2 * cuda.context().device().limits.l2_bytes as usize,
                )?),
                false => None,
            };
            let kernels = match walk.cache {
                Cache::FirstLevel => &self.first_level,
                Cache::L2 => &self.l2,
            };
            // Cold walks begin where none has been; the others anywhere.
            let first = |round: usize, which: usize| (2 * round + which) * 50_021 % ring.slots();
            let once = |round: usize, which: usize| -> Result<(), Error> {
                if let Some(flush) = &mut flush {
                    flush.fill(cuda.stream(), round as u8)?;
                }
                let arguments = Chase {
                    start: ring.address(first(round, which)),
                    warm: walk.warm,
                    iterations: walk.iterations,
                    last: self.last.pointer(),
                    stamps: self.stamps.pointer(),
                };
                let launch = Launch::of_blocks(1, 1);
                kernels::launch(cuda, &kernels[which], &launch, &arguments)
            };
            let check = |which: usize| -> Result<(), Error> {
                let steps = walk.warm + walk.iterations * UNROLL[which];
                let expected = ring.address(first(0, which) + steps as usize);
                let mut last = [0];
                self.last.read(cuda.stream(), 0, &mut last)?;
                same("the chase", last[0], expected)
            };
            let pairs = pairs(context, &self.stamps, once, check)?;
            Ok(cycles_each(&pairs, more as f64))
        });
    }

    fn shared_row(&self, context: &mut Context<'_>) {
        const STEP: u32 = 33;
        let probe = probe(
            "shared_latency",
            "shared memory",
            "one thread chases addresses through 4 KiB of shared memory; loop taken out by difference".to_owned(),
            None,
        );
        let iterations = context.sized(64, 1);
        let more = u64::from(iterations * (UNROLL[1] - UNROLL[0]));
        let claims = Claims::Difference(vec![(Quantity::SharedLoads, more)]);
        context.probe(&probe, &claims, |context| {
            let cuda = context.cuda();
            let once = |_, which: usize| {
                let arguments = ChaseShared {
                    step: STEP,
                    iterations,
                    last: self.last.pointer(),
                    stamps: self.stamps.pointer(),
                };
                kernels::launch(
                    cuda,
                    &self.shared[which],
                    &Launch::of_blocks(1, 1),
                    &arguments,
                )
            };
            let check = |which: usize| -> Result<(), Error> {
                let mut last = [0];
                self.last.read(cuda.stream(), 0, &mut last)?;
                let expected = u64::from(STEP * iterations * UNROLL[which] % 1024);
                same("the chase", last[0] & 0xffff_ffff, expected)
            };
            let pairs = pairs(context, &self.stamps, once, check)?;
            Ok(cycles_each(&pairs, more as f64))
        });
    }
}

fn same(what: &str, found: u64, expected: u64) -> Result<(), Error> {
    match found == expected {
        true => Ok(()),
        false => Err(Error::Wrong(format!(
            "{what} ended at {found:#x}, not {expected:#x}"
        ))),
    }
}

pub(super) fn run(context: &mut Context<'_>) {
    let latency = match Latency::new(context) {
        Ok(latency) => latency,
        Err(error) => {
            let probe = probe("l2_latency", "all latencies", String::new(), None);
            return context.without(&[probe], &error);
        }
    };
    latency.shared_row(context);
    let is_small = context.is_emulated();
    let iterations = |gpu| if is_small { 1 } else { gpu };
    let l1 = probe(
        "l1_latency",
        "L1 hit",
        "one thread chases pointers through 16 KiB, a slot each 64 bytes in random order, gone round once before; loop taken out by difference"
            .to_owned(),
        None,
    );
    let walk = Walk {
        cache: Cache::FirstLevel,
        warm: 256,
        iterations: iterations(32),
        is_cold: false,
    };
    latency.row(context, &l1, Shape::dense(16 * KIB, 64), &walk);
    let l2 = probe(
        "l2_latency",
        "L2 hit",
        "one thread chases pointers past the first-level cache through 1 MiB, a slot each 128 bytes in random order, read by all multiprocessors before: the mean over near and far partitions"
            .to_owned(),
        None,
    );
    let walk = Walk {
        cache: Cache::L2,
        warm: 0,
        iterations: iterations(32),
        is_cold: false,
    };
    let bytes = context.sized(MIB, 64 * KIB);
    latency.row(context, &l2, Shape::dense(bytes, 128), &walk);
    let free = context
        .cuda()
        .context()
        .memory()
        .map_or(0, |(free, _)| free as u64);
    let bytes = context.sized((512 * MIB).min(free / 4 / MIB * MIB), 256 * KIB);
    let dram = probe(
        "dram_latency",
        "DRAM",
        format!(
            "one thread chases pointers past the first-level cache through {} MiB, a slot each 256 bytes in random order, L2 overwritten before each walk; translations of addresses are part of it",
            bytes / MIB
        ),
        None,
    );
    let walk = Walk {
        cache: Cache::L2,
        warm: 0,
        iterations: iterations(16),
        is_cold: true,
    };
    latency.row(context, &dram, Shape::dense(bytes, 256), &walk);
    set_curve(context, &latency, free);
    tlb_curve(context, &latency, free);
}

/// Latency by the size of the working set: the steps are L1, L2 and what lies behind.
fn set_curve(context: &mut Context<'_>, latency: &Latency, free: u64) {
    const SETS: [u64; 16] = [
        16 * KIB,
        64 * KIB,
        128 * KIB,
        192 * KIB,
        256 * KIB,
        512 * KIB,
        MIB,
        4 * MIB,
        16 * MIB,
        24 * MIB,
        32 * MIB,
        48 * MIB,
        64 * MIB,
        128 * MIB,
        256 * MIB,
        512 * MIB,
    ];
    const QUICK: [u64; 6] = [16 * KIB, 256 * KIB, 4 * MIB, 32 * MIB, 128 * MIB, 512 * MIB];
    let sets = match (context.is_emulated(), context.is_quick()) {
        (true, _) => vec![4 * KIB, 16 * KIB],
        (false, true) => QUICK.to_vec(),
        (false, false) => SETS.to_vec(),
    };
    for bytes in sets.into_iter().filter(|&bytes| bytes <= free / 4) {
        let probe = probe(
            "set_latency",
            "latency by working set",
            "one thread chases pointers through the working set, a slot each 128 bytes in random order, read before".to_owned(),
            Some(bytes),
        );
        let walk = Walk {
            cache: Cache::FirstLevel,
            // Once round what a first-level cache can hold; more would only take time.
            warm: (bytes / 128).min(4096) as u32,
            iterations: context.sized(8, 1),
            is_cold: false,
        };
        latency.row(context, &probe, Shape::dense(bytes, 128), &walk);
    }
}

/// Latency of lines in L2 by how many pages of 2 MiB they are spread over: the steps are where translations run out.
fn tlb_curve(context: &mut Context<'_>, latency: &Latency, free: u64) {
    let page = context.sized(2 * MIB, 4 * KIB);
    let (count, step) = match (context.is_emulated(), context.is_quick()) {
        (true, _) => (2, 1),
        (false, true) => (11, 2),
        (false, false) => (11, 1),
    };
    for power in (0..count).step_by(step) {
        let bytes = (8 << power) * page;
        if bytes > free / 2 {
            break;
        }
        let probe = probe(
            "tlb_latency",
            "latency of L2 hits by the memory they are spread over, a line each 2 MiB",
            "one thread chases pointers past the first-level cache, a slot each 2 MiB in random order, all lines in L2: what grows is the time for translations".to_owned(),
            Some(bytes),
        );
        let shape = Shape {
            slots: bytes / page,
            stride: page,
            skew: 128,
        };
        let walk = Walk {
            cache: Cache::L2,
            warm: shape.slots as u32,
            iterations: context.sized(8, 1),
            is_cold: false,
        };
        latency.row(context, &probe, shape, &walk);
    }
}
