//! Counters, per instruction while a kernel runs, per line and kernel when it has run.

use std::collections::BTreeMap;
use std::ops::Add;

use crate::program::KernelCode;
use crate::program::op::{
    Accumulator, BulkOp, Element, Float, Int, Op, Order, Precision, Space, WgmmaOp,
};
use crate::program::op_async::BulkWay;

/// What one instruction did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InstructionCounters {
    /// Times a warp executed it.
    pub(crate) warps: u64,
    /// Threads that executed it with their predicate on.
    pub(crate) threads: u64,
    pub(crate) divergent: u64,
    /// Warp accesses with at least one thread.
    pub(crate) requests: u64,
    pub(crate) sectors: u64,
    pub(crate) ideal_sectors: u64,
    pub(crate) wavefronts: u64,
    pub(crate) ideal_wavefronts: u64,
    /// Bytes that bulk copies moved.
    pub(crate) bulk_bytes: u64,
}

impl InstructionCounters {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.warps += other.warps;
        self.threads += other.threads;
        self.divergent += other.divergent;
        self.requests += other.requests;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
        self.bulk_bytes += other.bulk_bytes;
    }
}

/// Counters of a kernel or of one of its source lines. Names of fields follow the metrics that [`Counters::metrics`] gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions executed by warps, as the PTX has them.
    pub warp_instructions: u64,
    /// Threads over all of those, predicated-off ones left out.
    pub thread_instructions: u64,
    /// Integer instructions, by threads.
    pub integer_instructions: u64,
    /// Floating-point instructions, by threads.
    pub float_instructions: u64,
    /// Moves, conversions, selections and comparisons, by threads.
    pub data_instructions: u64,
    /// Branches executed by warps.
    pub branches: u64,
    /// Of those, branches at which the threads of a warp parted.
    pub divergent_branches: u64,
    /// Warp accesses to global memory that load, asynchronous copies included.
    pub global_load_requests: u64,
    /// 32-byte sectors of those.
    pub global_load_sectors: u64,
    /// Warp accesses to global memory that store.
    pub global_store_requests: u64,
    /// 32-byte sectors of those.
    pub global_store_sectors: u64,
    /// Sectors that the accesses to global memory would need if their bytes lay side by side.
    pub global_ideal_sectors: u64,
    /// Warp accesses to shared memory that load.
    pub shared_load_requests: u64,
    /// Warp accesses to shared memory that store.
    pub shared_store_requests: u64,
    /// Wavefronts of all accesses to shared memory.
    pub shared_wavefronts: u64,
    /// Wavefronts without a bank conflict.
    pub shared_ideal_wavefronts: u64,
    /// Warp accesses to local memory.
    pub local_requests: u64,
    /// Atomic operations and reductions on global memory, by threads.
    pub global_atomics: u64,
    /// Atomic operations and reductions on shared memory, by threads.
    pub shared_atomics: u64,
    /// Barriers of a block, by warps.
    pub barriers: u64,
    /// Bytes that bulk and tensor copies moved to shared memory.
    pub bulk_load_bytes: u64,
    /// Bytes that bulk and tensor copies moved from shared memory.
    pub bulk_store_bytes: u64,
    /// Matrix instructions, by warps.
    pub tensor_instructions: u64,
    /// FLOPs (multiplications and additions) of matrix instructions.
    pub tensor_flops: u64,
    /// Integer operations of matrix instructions.
    pub tensor_integer_operations: u64,
    /// FLOPs in `f32`; a fused multiply-add is two.
    pub f32_flops: u64,
    /// FLOPs in `f64`.
    pub f64_flops: u64,
    /// FLOPs in `f16` and `bf16`.
    pub half_flops: u64,
    /// Distinct sectors read, in bytes: the least that memory has to deliver. Only for whole kernels.
    pub compulsory_read_bytes: u64,
    /// Distinct sectors written, in bytes. Only for whole kernels.
    pub compulsory_write_bytes: u64,
}

/// What goes over all fields: the compiler refuses a list that lacks one.
macro_rules! over_all_fields {
    ($($name:ident),* $(,)?) => {
        impl Counters {
            /// Each counter under the name of its field.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }

        impl Add for Counters {
            type Output = Counters;

            /// Of two launches together.
            fn add(self, other: Counters) -> Counters {
                Counters { $($name: self.$name + other.$name),* }
            }
        }
    };
}

over_all_fields!(
    warp_instructions,
    thread_instructions,
    integer_instructions,
    float_instructions,
    data_instructions,
    branches,
    divergent_branches,
    global_load_requests,
    global_load_sectors,
    global_store_requests,
    global_store_sectors,
    global_ideal_sectors,
    shared_load_requests,
    shared_store_requests,
    shared_wavefronts,
    shared_ideal_wavefronts,
    local_requests,
    global_atomics,
    shared_atomics,
    barriers,
    bulk_load_bytes,
    bulk_store_bytes,
    tensor_instructions,
    tensor_flops,
    tensor_integer_operations,
    f32_flops,
    f64_flops,
    half_flops,
    compulsory_read_bytes,
    compulsory_write_bytes,
);

/// How a counter relates to what a GPU's counter of the name would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// The same number, if the assembler keeps the PTX's memory instructions.
    Exact,
    /// The GPU counts at least this.
    LowerBound,
    /// Counted over PTX instructions, which the assembler turns into others.
    Approximate,
}

/// A counter under the name that Nsight Compute has for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Nsight Compute's name, or ours where it has none.
    pub name: &'static str,
    /// The value.
    pub value: f64,
    /// How it relates to hardware.
    pub exactness: Exactness,
}

impl Counters {
    /// The counters under Nsight Compute's names.
    pub fn metrics(&self) -> Vec<Metric> {
        use Exactness::{Approximate, Exact, LowerBound};
        let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        let sectors = self.global_load_sectors + self.global_store_sectors;
        let mut metrics = Vec::new();
        let mut add = |name, value, exactness| {
            metrics.push(Metric {
                name,
                value,
                exactness,
            })
        };
        let warps = self.warp_instructions;
        add("smsp__inst_executed.sum", warps as f64, Approximate);
        add(
            "smsp__thread_inst_executed_per_inst_executed.ratio",
            ratio(self.thread_instructions, warps),
            Approximate,
        );
        add(
            "smsp__sass_branch_targets.sum",
            self.branches as f64,
            Approximate,
        );
        add(
            "smsp__sass_branch_targets_threads_divergent.sum",
            self.divergent_branches as f64,
            Approximate,
        );
        let (loads, stores) = (self.global_load_requests, self.global_store_requests);
        add(
            "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
            loads as f64,
            Exact,
        );
        add(
            "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",
            stores as f64,
            Exact,
        );
        add(
            "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
            self.global_load_sectors as f64,
            Exact,
        );
        add(
            "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
            self.global_store_sectors as f64,
            Exact,
        );
        let per_load = ratio(self.global_load_sectors, loads);
        let per_store = ratio(self.global_store_sectors, stores);
        add(
            "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio",
            per_load,
            Exact,
        );
        add(
            "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio",
            per_store,
            Exact,
        );
        add(
            "memory_l2_theoretical_sectors_global",
            sectors as f64,
            Exact,
        );
        add(
            "memory_l2_theoretical_sectors_global_ideal",
            self.global_ideal_sectors as f64,
            Exact,
        );
        add(
            "memory_l1_wavefronts_shared",
            self.shared_wavefronts as f64,
            Exact,
        );
        add(
            "memory_l1_wavefronts_shared_ideal",
            self.shared_ideal_wavefronts as f64,
            Exact,
        );
        let conflicts = self.shared_wavefronts - self.shared_ideal_wavefronts;
        add(
            "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
            conflicts as f64,
            LowerBound,
        );
        add(
            "smsp__inst_executed_pipe_tensor.sum",
            self.tensor_instructions as f64,
            Approximate,
        );
        add(
            "dram__bytes_read.sum",
            self.compulsory_read_bytes as f64,
            LowerBound,
        );
        add(
            "dram__bytes_write.sum",
            self.compulsory_write_bytes as f64,
            LowerBound,
        );
        metrics
    }

    fn count(&mut self, op: &Op, c: &InstructionCounters) {
        self.warp_instructions += c.warps;
        self.thread_instructions += c.threads;
        let threads = c.threads;
        match op {
            Op::Float { op, precision, .. } => {
                self.float_instructions += threads;
                let each = match op {
                    Float::Fma => 2,
                    Float::Add
                    | Float::Sub
                    | Float::Mul
                    | Float::Div
                    | Float::Sqrt
                    | Float::Reciprocal => 1,
                    Float::Min | Float::Max | Float::Neg | Float::Abs | Float::CopySign => 0,
                };
                match precision {
                    Precision::F32 => self.f32_flops += each * threads,
                    Precision::F64 => self.f64_flops += each * threads,
                    Precision::F16 | Precision::Bf16 => self.half_flops += each * threads,
                    Precision::F16x2 | Precision::Bf16x2 => self.half_flops += 2 * each * threads,
                }
            }
            Op::Approx { .. } => {
                self.float_instructions += threads;
                self.f32_flops += threads;
            }
            Op::ApproxHalf { .. } => self.float_instructions += threads,
            Op::Int {
                op: Int::And | Int::Or | Int::Xor | Int::Not,
                ..
            }
            | Op::Int { .. } => {
                self.integer_instructions += threads;
            }
            Op::MulWide { .. }
            | Op::Mul24 { .. }
            | Op::Lop3(_)
            | Op::Prmt(_)
            | Op::Funnel { .. } => {
                self.integer_instructions += threads;
            }
            Op::Dp4a { .. } | Op::Dp2a { .. } => self.integer_instructions += threads,
            Op::Branch { .. } | Op::BranchTable { .. } => {
                self.branches += c.warps;
                self.divergent_branches += c.divergent;
            }
            Op::Load(access) => self.access(access.space, c, true),
            Op::Store(access) => self.access(access.space, c, false),
            Op::Atom { access, .. } => {
                if matches!(access.space, Space::Shared | Space::Cluster) {
                    self.shared_atomics += threads;
                } else {
                    self.global_atomics += threads;
                }
                debug_assert!(access.order != Order::Weak);
            }
            Op::LoadMatrix { .. } => self.access(Space::Shared, c, true),
            Op::StoreMatrix { .. } => self.access(Space::Shared, c, false),
            Op::CopyAsync { .. } => {
                self.global_load_requests += c.requests;
                self.global_load_sectors += c.sectors;
                self.global_ideal_sectors += c.ideal_sectors;
                self.shared_store_requests += c.requests;
                self.shared_wavefronts += c.wavefronts;
                self.shared_ideal_wavefronts += c.ideal_wavefronts;
            }
            Op::Barrier { .. } => self.barriers += c.warps,
            Op::Mma(mma) => {
                self.tensor_instructions += c.warps;
                let each = 2 * 16 * u64::from(mma.n) * u64::from(mma.k);
                if mma.accumulator == Accumulator::S32 || matches!(mma.a, Element::S8 | Element::U8)
                {
                    self.tensor_integer_operations += each * c.warps;
                } else {
                    self.tensor_flops += each * c.warps;
                }
            }
            Op::Bulk(BulkOp::Plain { way, .. } | BulkOp::Tensor { way, .. }) => {
                if *way == BulkWay::Store {
                    self.bulk_store_bytes += c.bulk_bytes;
                } else {
                    self.bulk_load_bytes += c.bulk_bytes;
                }
            }
            Op::Wgmma(WgmmaOp::Mma(mma)) => {
                self.tensor_instructions += c.warps;
                // Of a warp: 16 of the 64 rows.
                let each = 2 * 16 * u64::from(mma.n) * u64::from(mma.k) * c.warps;
                if mma.accumulator == Accumulator::S32 {
                    self.tensor_integer_operations += each;
                } else {
                    self.tensor_flops += each;
                }
            }
            _ => self.data_instructions += threads,
        }
    }

    fn access(&mut self, space: Space, c: &InstructionCounters, is_load: bool) {
        match space {
            Space::Local => self.local_requests += c.requests,
            Space::Param => {}
            _ => {
                // A generic access counts where it went: only one of the two is not zero.
                if c.wavefronts > 0 {
                    let requests = if is_load {
                        &mut self.shared_load_requests
                    } else {
                        &mut self.shared_store_requests
                    };
                    *requests += c.requests;
                } else {
                    let requests = if is_load {
                        &mut self.global_load_requests
                    } else {
                        &mut self.global_store_requests
                    };
                    *requests += c.requests;
                }
                let sectors = if is_load {
                    &mut self.global_load_sectors
                } else {
                    &mut self.global_store_sectors
                };
                *sectors += c.sectors;
                self.global_ideal_sectors += c.ideal_sectors;
                self.shared_wavefronts += c.wavefronts;
                self.shared_ideal_wavefronts += c.ideal_wavefronts;
            }
        }
    }
}

/// A source line with what its instructions did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineCounters {
    /// Source file, or `PTX` where the compiler left no line.
    pub file: String,
    /// Line in that file.
    pub line: u32,
    /// The counters.
    pub counters: Counters,
}

/// Sums instructions' counters into the kernel's and its lines'.
pub(crate) fn summarise(
    kernel: &KernelCode,
    counters: &[InstructionCounters],
) -> (Counters, Vec<LineCounters>) {
    let mut total = Counters::default();
    let mut lines: BTreeMap<(String, u32), Counters> = BTreeMap::new();
    for (pc, (inst, c)) in kernel.code.instructions.iter().zip(counters).enumerate() {
        if c.warps == 0 {
            continue;
        }
        total.count(&inst.op, c);
        lines
            .entry(kernel.place(pc as u32))
            .or_default()
            .count(&inst.op, c);
    }
    let lines = lines
        .into_iter()
        .map(|((file, line), counters)| LineCounters {
            file,
            line,
            counters,
        })
        .collect();
    (total, lines)
}
