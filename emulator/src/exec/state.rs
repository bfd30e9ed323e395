//! The state of a launch, of a worker, of a cluster of blocks, of a block and of a warp.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::budget::Budget;
use super::copy::Copies;
use super::in_flight::InFlight;
use super::knowledge::{Knowledge, LaneKnowledge};
use super::mbarrier::Phase;
use super::order::Published;
use super::registers::Registers;
use crate::check::Checks;
use crate::check::clock::{Clock, LaneOrder};
use crate::check::finding::{FindingKind, Findings, Instance};
use crate::check::race::{GlobalShadow, Home, SharedShadow};
use crate::count::counters::InstructionCounters;
use crate::count::touched::Touched;
use crate::device::DeviceOptions;
use crate::error::{Error, ErrorKind};
use crate::memory::global::GlobalMemory;
use crate::program::KernelCode;

/// What all blocks of a launch share, and nothing changes.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) kernel: &'a KernelCode,
    pub(crate) options: &'a DeviceOptions,
    pub(crate) memory: &'a GlobalMemory,
    pub(crate) parameters: Vec<u8>,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Blocks of a cluster by axis; all 1 without clusters.
    pub(crate) cluster: [u32; 3],
    pub(crate) has_clusters: bool,
    pub(crate) dynamic_shared: u32,
    pub(crate) checks: Checks,
    pub(crate) max_instructions: u64,
    pub(crate) deadline: Instant,
    /// Instructions of warps, of all workers.
    pub(crate) executed: AtomicU64,
}

/// What one core of the host has to itself while it runs blocks; merged when all have run.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    pub(crate) launch: &'a Launch<'a>,
    pub(crate) counters: Vec<InstructionCounters>,
    pub(crate) findings: Findings,
    /// What blocks printed.
    pub(crate) output: Vec<(u32, String)>,
    /// Instructions not yet added to those of the launch.
    pub(crate) executed: u64,
    /// Writes so far: a kernel that polls while nothing changes is stuck.
    pub(crate) changes: u64,
    pub(crate) shadow: GlobalShadow,
    /// What was released at an address of global memory by an atomic or volatile access.
    pub(crate) published: Published,
    pub(crate) touched: Touched,
    /// Where the last global access found its allocation.
    pub(crate) hint: usize,
    pub(crate) wgmma: super::wgmma::Scratch,
}

/// Blocks that are on the device together: a cluster, or one block.
#[derive(Debug)]
pub(crate) struct Group {
    /// Which of the launch.
    pub(crate) index: u32,
    pub(crate) blocks: Vec<Block>,
    /// Time of the group: every synchronisation of a warp takes the next moment.
    pub(crate) time: u32,
    pub(crate) bulk: super::bulk::Queue,
    /// The barrier of the cluster.
    pub(crate) barrier: Barrier,
    /// What was released at a place of its shared memory by an atomic or volatile access.
    pub(crate) published: Published,
}

/// Kinds of asynchronous operations; numbers are those of their slots, after the warps' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Async {
    /// Copies that an mbarrier waits for.
    Load = 1,
    /// Copies from shared to global memory: what they read.
    Store = 2,
    Wgmma = 3,
    /// What copies from shared to global memory write.
    Written = 4,
}

#[derive(Debug, Default)]
pub(crate) struct Barrier {
    pub(crate) arrived: u32,
    /// Explicit thread count.
    pub(crate) expected: Option<u32>,
    pub(crate) generation: u32,
    /// Of those that have arrived, and of those that let the last generations go.
    pub(crate) arrivals: Knowledge,
    pub(crate) released: Knowledge,
    /// `bar.red`: threads whose predicate held, all predicates held, any held; of this and of the last generation.
    pub(crate) votes: [u32; 2],
    pub(crate) result: [u32; 2],
    /// Instruction and thread of the last arrival.
    pub(crate) last: (u32, u32),
}

#[derive(Debug)]
pub(crate) struct Block {
    /// Which of the launch.
    pub(crate) index: u32,
    pub(crate) shared: Vec<u8>,
    /// One byte per byte: 1 once written.
    pub(crate) defined: Vec<u8>,
    /// Where copies are under way to.
    pub(crate) in_flight: InFlight,
    pub(crate) shadow: Option<SharedShadow>,
    pub(crate) barriers: [Barrier; 16],
    pub(crate) mbarriers: BTreeMap<u32, Phase>,
    /// Threads that have not exited.
    pub(crate) threads: u32,
    pub(crate) warps: Vec<Option<Box<Warp>>>,
    /// Registers, where the kernel says how many it has.
    pub(crate) budget: Option<Budget>,
    /// Threads that exited.
    pub(crate) exited: u32,
    /// What was before the exit of a warp.
    pub(crate) exit_clock: Clock,
    /// By slot of a warp of another block: time, instruction and thread of its last access to this block's shared memory.
    pub(crate) visitors: HashMap<u32, Visit>,
}

/// An access to another block's shared memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit {
    pub(crate) time: u32,
    pub(crate) pc: u32,
    /// Block in the launch, and thread in it.
    pub(crate) thread: (u32, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    Ready,
    /// For all live lanes to come to the same instruction, which the whole warp must execute together.
    Together,
    /// For the other lanes of a member mask.
    Members(u32),
    Barrier {
        id: u8,
        generation: u32,
    },
    Cluster {
        generation: u32,
    },
    /// For the other warps of the warpgroup to commit as many groups of `wgmma`.
    Warpgroup {
        target: u32,
    },
    /// For registers that other warps of the block have.
    Registers {
        count: u32,
    },
    /// For a phase of an mbarrier of the own block.
    Phase {
        address: u32,
        /// What had happened to the group's barriers when it looked.
        seen: u64,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    pub(crate) wait: Wait,
    pub(crate) yielded: bool,
    /// It waited for the rest of its warp in vain, and goes on alone.
    pub(crate) alone: bool,
    /// Backward branches since it last let others run.
    pub(crate) turns: u32,
    /// Since then it read what another thread may change.
    pub(crate) polling: bool,
}

impl Split {
    pub(crate) fn new(pc: u32, mask: u32, wait: Wait) -> Self {
        Self {
            pc,
            mask,
            wait,
            yielded: false,
            alone: false,
            turns: 0,
            polling: false,
        }
    }

    /// Lets others run first.
    pub(crate) fn yielding(self) -> Self {
        Self {
            yielded: true,
            turns: 0,
            polling: false,
            ..self
        }
    }
}

#[derive(Debug)]
pub(crate) struct Warp {
    /// Rank of its block in the group.
    pub(crate) rank: usize,
    pub(crate) index: u32,
    pub(crate) registers: Registers,
    pub(crate) initial: u32,
    pub(crate) exited: u32,
    pub(crate) splits: Vec<Split>,
    pub(crate) local: Vec<u8>,
    pub(crate) local_defined: Vec<u8>,
    /// What of the group's and other groups' past is before the warp's present.
    pub(crate) clock: Clock,
    pub(crate) order: LaneOrder,
    /// What only some of its lanes know.
    pub(crate) lanes: LaneKnowledge,
    /// The split that ran last gave up its turn while it polled, or while it did not.
    pub(crate) polled: bool,
    pub(crate) worked: bool,
    pub(crate) instructions: u64,
    pub(crate) copies: Copies,
    pub(crate) wgmma: super::wgmma::Queue,
    /// Generation of the cluster barrier at the last arrival.
    pub(crate) cluster_arrival: Option<u32>,
    /// Lanes whose wait for an mbarrier is given up.
    pub(crate) expired: u32,
    /// The mbarrier that was last tested in vain.
    pub(crate) tested: Option<u32>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(launch: &'a Launch<'a>) -> Self {
        Self {
            launch,
            counters: vec![InstructionCounters::default(); launch.kernel.code.instructions.len()],
            findings: Findings::default(),
            output: Vec::new(),
            executed: 0,
            changes: 0,
            shadow: GlobalShadow::default(),
            published: Published::default(),
            touched: Touched::new(launch.memory.allocations().len()),
            hint: 0,
            wgmma: super::wgmma::Scratch::default(),
        }
    }

    /// Adds what another worker found.
    pub(crate) fn merge(&mut self, other: Self) {
        for (own, other) in self.counters.iter_mut().zip(&other.counters) {
            own.merge(other);
        }
        self.findings.merge(other.findings);
        self.output.extend(other.output);
        self.touched.merge(&other.touched);
    }

    /// Adds a finding that concerns no memory.
    pub(crate) fn find(&mut self, kind: FindingKind, pc: u32, block: u32, warp: u32, lanes: u32) {
        let thread = warp * 32 + lanes.trailing_zeros();
        self.findings.add(kind, pc, 0, Instance::new(block, thread));
    }

    /// The error of a kernel that did what the device cannot.
    pub(crate) fn fail(&self, kind: ErrorKind, pc: u32, what: &str) -> Error {
        let (file, line) = self.launch.kernel.place(pc);
        Error::new(
            kind,
            format!("{file}:{line}: {}: {what}", self.launch.kernel.name),
        )
    }
}

impl Launch<'_> {
    /// Up to 8 bytes of the parameters.
    pub(crate) fn parameter(&self, at: u64, bytes: u8) -> Option<u64> {
        let rest = self.parameters.get(usize::try_from(at).ok()?..)?;
        let mut value = [0; 8];
        value[..usize::from(bytes)].copy_from_slice(rest.get(..usize::from(bytes))?);
        Some(u64::from_le_bytes(value))
    }

    pub(crate) fn threads_per_block(&self) -> u32 {
        self.block.iter().product()
    }

    pub(crate) fn warps_per_block(&self) -> u32 {
        self.threads_per_block().div_ceil(32)
    }

    pub(crate) fn cluster_size(&self) -> u32 {
        self.cluster.iter().product()
    }

    pub(crate) fn groups(&self) -> u32 {
        let blocks: u64 = self.grid.iter().map(|&axis| u64::from(axis)).product();
        (blocks / u64::from(self.cluster_size())) as u32
    }

    /// A thread, by coordinates as a kernel sees them, of a block of the launch.
    pub(crate) fn thread_name(&self, block: u32, thread: u32) -> String {
        let [x, y, z] = coordinates(block, self.grid);
        let [i, j, k] = coordinates(thread, self.block);
        format!("block ({x}, {y}, {z}) thread ({i}, {j}, {k})")
    }

    /// The number in the launch of a block of a group.
    pub(crate) fn block_index(&self, group: u32, rank: u32) -> u32 {
        if !self.has_clusters {
            return group;
        }
        let clusters: [u32; 3] = std::array::from_fn(|axis| self.grid[axis] / self.cluster[axis]);
        let at = coordinates(group, clusters);
        let within = coordinates(rank, self.cluster);
        let [x, y, z]: [u32; 3] =
            std::array::from_fn(|axis| at[axis] * self.cluster[axis] + within[axis]);
        (z * self.grid[1] + y) * self.grid[0] + x
    }
}

/// A linear index as x, y, z.
pub(crate) fn coordinates(index: u32, size: [u32; 3]) -> [u32; 3] {
    [
        index % size[0],
        index / size[0] % size[1],
        index / size[0] / size[1],
    ]
}

impl Group {
    pub(crate) fn new(launch: &Launch<'_>, index: u32) -> Self {
        let blocks = (0..launch.cluster_size())
            .map(|rank| Block::new(launch, index, rank))
            .collect();
        Self {
            index,
            blocks,
            time: 1,
            bulk: super::bulk::Queue::default(),
            barrier: Barrier::default(),
            published: Published::default(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.blocks.iter().all(|block| block.threads == 0)
    }

    /// Number of a warp among those of the group.
    pub(crate) fn slot(&self, rank: usize, warp: u32) -> u32 {
        (rank * self.blocks[rank].warps.len()) as u32 + warp
    }

    /// The block of an access of one of its warps, for the race check.
    #[inline(always)]
    pub(crate) fn home(&self, rank: usize) -> Home {
        let warps = self.blocks[rank].warps.len() as u32;
        Home {
            first: rank as u32 * warps,
            warps,
            all: self.blocks.len() as u32 * warps,
        }
    }

    /// The next moment.
    pub(crate) fn tick(&mut self) -> u32 {
        self.time += 1;
        self.time
    }

    /// Warps of all blocks.
    pub(crate) fn warps(&self) -> usize {
        self.blocks.len() * self.blocks[0].warps.len()
    }

    /// The slot of the asynchronous operations of a kind that a warp starts, behind those of the warps. They are kept apart by
    /// kind, since what waits for one kind says nothing of another.
    pub(crate) fn async_slot(&self, kind: Async, slot: u32) -> u32 {
        self.warps() as u32 * kind as u32 + slot
    }

    /// Notes that a warp touched another block's shared memory.
    pub(crate) fn visit(&mut self, rank: usize, warp: &Warp, lane: usize, time: u32, pc: u32) {
        if rank != warp.rank && warp.clock.is_kept() {
            let slot = self.slot(warp.rank, warp.index);
            let thread = (self.blocks[warp.rank].index, warp.thread(lane));
            let visit = Visit { time, pc, thread };
            self.blocks[rank].visitors.insert(slot, visit);
        }
    }

    /// Begins a new interval of a warp: what it does from here on is not covered by what it released.
    pub(crate) fn advance(&mut self, warp: &mut Warp) {
        let slot = self.slot(warp.rank, warp.index);
        let now = self.tick();
        warp.clock.set(slot, now);
    }

    /// Orders the accesses of these lanes before what any of them does from here on.
    pub(crate) fn synchronise(&mut self, warp: &mut Warp, mask: u32) {
        if !warp.clock.is_kept() {
            return;
        }
        self.advance(warp);
        let live = warp.live();
        warp.order.synchronise(self.time, mask, live);
        let slot = self.slot(warp.rank, warp.index);
        warp.share(slot, mask);
    }
}

impl Block {
    fn new(launch: &Launch<'_>, group: u32, rank: u32) -> Self {
        let kernel = launch.kernel;
        let bytes = (kernel.dynamic_shared_base + launch.dynamic_shared) as usize;
        let threads = launch.threads_per_block();
        let warp_count = launch.warps_per_block();
        let local = kernel.code.local_bytes as usize * 32;
        let checks = launch.checks;
        let slots = warp_count * launch.cluster_size();
        let warps = (0..warp_count)
            .map(|warp| {
                let lanes = (threads - warp * 32).min(32);
                let initial = if lanes == 32 {
                    u32::MAX
                } else {
                    (1 << lanes) - 1
                };
                let mut clock = Clock::default();
                if checks.race {
                    clock = Clock::new(group, slots as usize);
                    clock.set(rank * warp_count + warp, 1);
                }
                Some(Box::new(Warp {
                    rank: rank as usize,
                    index: warp,
                    registers: Registers::new(&kernel.code),
                    initial,
                    exited: 0,
                    splits: vec![Split::new(0, initial, Wait::Ready)],
                    local: vec![0; local],
                    local_defined: vec![0; if checks.init { local } else { 0 }],
                    clock,
                    order: LaneOrder::default(),
                    lanes: LaneKnowledge::default(),
                    polled: false,
                    worked: false,
                    instructions: 0,
                    copies: Copies::default(),
                    wgmma: super::wgmma::Queue::default(),
                    cluster_arrival: None,
                    expired: 0,
                    tested: None,
                }))
            })
            .collect();
        Self {
            index: launch.block_index(group, rank),
            shared: vec![0; bytes],
            defined: vec![0; if checks.init { bytes } else { 0 }],
            in_flight: InFlight::new(if checks.race { bytes } else { 0 }),
            shadow: checks.race.then(|| SharedShadow::new(bytes)),
            barriers: Default::default(),
            mbarriers: BTreeMap::new(),
            threads,
            warps,
            budget: Budget::new(kernel, warp_count),
            exited: 0,
            exit_clock: Clock::default(),
            visitors: HashMap::new(),
        }
    }
}

impl Warp {
    pub(crate) fn live(&self) -> u32 {
        self.initial & !self.exited
    }

    /// The thread of a lane within its block.
    pub(crate) fn thread(&self, lane: usize) -> u32 {
        self.index * 32 + lane as u32
    }
}
