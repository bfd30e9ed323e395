//! What a decoded instruction does. Registers are not in here: an [`Inst`] names them in one list, destinations first.

use crate::arith::Round;
use crate::arith::approx::Approx;
use crate::arith::convert::Conversion;
use crate::arith::float::Test;
use crate::arith::int::Permute;

pub(crate) use super::op_async::{BulkOp, MbarrierOp, WgmmaOp};
pub(crate) use super::op_packed::{
    HalfType, Packed, PackedInt, Part, Second, Selection, Video, VideoOp,
};

/// A decoded instruction.
#[derive(Debug, Clone)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    /// First of its registers in [`Code::pool`](super::Code).
    pub(crate) at: u32,
    pub(crate) destinations: u8,
    pub(crate) sources: u8,
    /// Predicate row, or [`NO_GUARD`].
    pub(crate) guard: u32,
    pub(crate) guard_negated: bool,
    /// It touches a register that a path may read unwritten.
    pub(crate) watched: bool,
    /// It is no `wgmma` and no move, and writes a register that one works on.
    pub(crate) writes_operand: bool,
    /// Line in the PTX.
    pub(crate) line: u32,
    /// Index of the source location in [`Code::locations`](super::Code).
    pub(crate) location: u32,
}

pub(crate) const NO_GUARD: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    B16,
    B32,
    B64,
}

/// Integer instructions that are one function of their operands' bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Int {
    Add,
    Sub,
    Mul,
    MulHigh,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Not,
    CNot,
    Neg,
    Abs,
    Shl,
    Shr,
    Popc,
    Clz,
    Reverse,
    Mad,
    MadHigh,
    Sad,
    AddSat,
    SubSat,
    Bfind { shift_amount: bool },
    Bfe,
    Bfi,
}

/// Floating-point instructions that exist for several formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Float {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Sqrt,
    Min,
    Max,
    Neg,
    Abs,
    CopySign,
    Reciprocal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    F32,
    F64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) round: Round,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    /// `.NaN` of `min` and `max`.
    pub(crate) nan: bool,
    pub(crate) relu: bool,
    /// `.xorsign.abs` of `min` and `max`.
    pub(crate) xorsign: bool,
    /// `.approx` of `div`, which has results of its own for large divisors.
    pub(crate) approx: bool,
}

impl Mode {
    pub(crate) const DEFAULT: Self = Self {
        round: Round::Near,
        ftz: false,
        sat: false,
        nan: false,
        relu: false,
        xorsign: false,
        approx: false,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    ClusterId(u8),
    NclusterId(u8),
    ClusterCtaid(u8),
    ClusterNctaid(u8),
    ClusterCtarank,
    ClusterNctarank,
    IsExplicitCluster,
    Lane,
    Warp,
    Nwarp,
    Sm,
    Nsm,
    Grid,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    Clock,
    ClockHi,
    Clock64,
    GlobalTimer,
    GlobalTimerHi,
    DynamicShared,
    TotalShared,
    Zero,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Floating point: also true when an operand is NaN.
    EqU,
    NeU,
    LtU,
    LeU,
    GtU,
    GeU,
    Num,
    Nan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompareType {
    Unsigned(Width),
    Signed(Width),
    F16 { ftz: bool },
    Bf16,
    F32 { ftz: bool },
    F64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bool {
    And,
    Or,
    Xor,
    Not,
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    /// A shared address of any block of the cluster.
    Cluster,
    Local,
    Const,
    Param,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Weak,
    Volatile,
    Relaxed,
    Acquire,
    Release,
    AcquireRelease,
}

/// The threads that an atomic access or a fence reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Block,
    Cluster,
    /// The device, or all of the system.
    Device,
}

/// A memory operand: register + offset in a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) space: Space,
    /// The address register has 64 bits.
    pub(crate) wide: bool,
    /// Bytes of one element.
    pub(crate) bytes: u8,
    /// Elements per lane.
    pub(crate) lanes: u8,
    pub(crate) signed: bool,
    /// Width of the data registers.
    pub(crate) width: Width,
    pub(crate) order: Order,
    pub(crate) scope: Scope,
    pub(crate) offset: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Atomic {
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    Exchange,
    CompareExchange,
}

/// The type an atomic works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomicType {
    Unsigned,
    Signed,
    F32,
    F64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redux {
    Add,
    MinS,
    MinU,
    MaxS,
    MaxU,
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Sync,
    Arrive,
    /// `bar.red`.
    Reduce(Reduction),
}

/// What `bar.red` makes of the threads' predicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Count,
    All,
    Any,
}

/// The kinds of `fence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    Memory(Scope),
    /// `fence.mbarrier_init`.
    Initialisation,
    /// `fence.proxy.async`.
    Proxy,
    /// Those that order what is always in order here.
    Other,
}

/// Element types of the matrix instructions' operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    F16,
    Bf16,
    Tf32,
    E4m3,
    E5m2,
    S8,
    U8,
    F64,
}

/// Element types of the matrix instructions' accumulators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Accumulator {
    F32,
    F16,
    S32,
    F64,
}

/// `mma.sync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mma {
    pub(crate) n: u16,
    pub(crate) k: u16,
    pub(crate) a: Element,
    pub(crate) b: Element,
    pub(crate) accumulator: Accumulator,
    pub(crate) satfinite: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Nop,
    Int {
        op: Int,
        width: Width,
        signed: bool,
    },
    MulWide {
        from: Width,
        signed: bool,
        add: bool,
    },
    Mul24 {
        signed: bool,
        add: bool,
    },
    Lop3(u8),
    Prmt(Permute),
    Funnel {
        left: bool,
        wrap: bool,
    },
    Dp4a {
        a_signed: bool,
        b_signed: bool,
    },
    Dp2a {
        a_signed: bool,
        b_signed: bool,
        high: bool,
    },
    Float {
        op: Float,
        precision: Precision,
        mode: Mode,
    },
    Approx {
        function: Approx,
        ftz: bool,
    },
    /// `tanh` and `ex2` of 16-bit formats.
    ApproxHalf {
        function: Approx,
        precision: Precision,
        ftz: bool,
    },
    /// `rcp.approx.ftz.f64` and `rsqrt.approx.f64`; `coarse` ones give the upper 32 bits.
    ApproxDouble {
        root: bool,
        coarse: bool,
    },
    Convert {
        conversion: Conversion,
        from: Width,
        to: Width,
    },
    /// Two sources to one packed register, the first in the high half.
    ConvertPack(Conversion),
    /// A packed register to a packed register twice as wide.
    ConvertUnpack(Conversion),
    Mov(Width),
    /// Sources, low part first, into one register; `bits` of each.
    Pack {
        bits: u32,
        width: Width,
    },
    Unpack {
        bits: u32,
        width: Width,
    },
    Special {
        register: Special,
        width: Width,
    },
    Compare {
        op: Compare,
        ty: CompareType,
        combine: Option<(Bool, bool)>,
        second: bool,
    },
    /// `set`: `one`, which is all ones or 1.0, where the comparison holds.
    Set {
        op: Compare,
        ty: CompareType,
        one: u32,
        combine: Option<(Bool, bool)>,
    },
    /// `testp`, of `f64` where it is wide.
    Test {
        test: Test,
        wide: bool,
    },
    Packed(Packed),
    Select(Width),
    Pred(Bool),
    /// Moves an address between a space and the generic window.
    Window {
        space: Space,
        to_generic: bool,
    },
    IsSpace(Space),
    Load(Access),
    Store(Access),
    Atom {
        access: Access,
        op: Atomic,
        ty: AtomicType,
        returns: bool,
    },
    Prefetch,
    Fence(Fence),
    Shuffle {
        mode: Shuffle,
        has_predicate: bool,
    },
    Vote(Vote),
    Match {
        all: bool,
        width: Width,
        has_predicate: bool,
    },
    Redux(Redux),
    ActiveMask,
    Elect,
    WarpSync,
    Barrier {
        kind: BarrierKind,
        aligned: bool,
        has_count: bool,
    },
    Branch {
        target: u32,
    },
    BranchTable {
        table: u32,
    },
    Exit,
    Trap,
    Sleep,
    Assert,
    Print,
    Mma(Mma),
    LoadMatrix {
        access: Access,
        count: u8,
        transposed: bool,
    },
    StoreMatrix {
        access: Access,
        count: u8,
        transposed: bool,
    },
    MoveMatrix,
    CopyAsync {
        bytes: u8,
        shared_wide: bool,
        shared_offset: i64,
        global_offset: i64,
        global_wide: bool,
        has_size: bool,
    },
    CopyAsyncCommit,
    /// `None` waits for all, committed or not.
    CopyAsyncWait {
        keep: Option<u32>,
    },
    /// Add, subtract, or multiply and add with the carry flag, which is a predicate: the last source, the last destination.
    Carry {
        op: Carry,
        width: Width,
        takes: bool,
        gives: bool,
    },
    ClusterArrive {
        aligned: bool,
        relaxed: bool,
    },
    ClusterWait {
        aligned: bool,
    },
    /// `mapa`.
    MapAddress {
        wide: bool,
        generic: bool,
    },
    /// `getctarank`.
    ClusterRank {
        wide: bool,
        generic: bool,
    },
    /// `setmaxnreg`: registers of a thread from here on.
    SetMaxRegisters {
        count: u32,
        increases: bool,
    },
    Mbarrier(MbarrierOp),
    Bulk(BulkOp),
    Wgmma(WgmmaOp),
}

/// What is done with the carry flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carry {
    Add,
    Subtract,
    MultiplyLow,
    MultiplyHigh { signed: bool },
}

impl Mma {
    /// Registers of the accumulators, and of D.
    pub(crate) fn destinations(&self) -> usize {
        if self.accumulator == Accumulator::F16 {
            2
        } else {
            4
        }
    }

    /// Registers of A.
    pub(crate) fn a_registers(&self) -> usize {
        16 * usize::from(self.k) * self.a.bytes() / 128
    }

    /// Registers of B.
    pub(crate) fn b_registers(&self) -> usize {
        usize::from(self.n) * usize::from(self.k) * self.a.bytes() / 128
    }
}

impl Element {
    /// Bytes of an element in memory and in registers.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::Tf32 => 4,
            Self::E4m3 | Self::E5m2 | Self::S8 | Self::U8 => 1,
            Self::F64 => 8,
        }
    }
}

impl Op {
    /// Whether every lane named in a member mask has to arrive before the instruction executes.
    pub(crate) fn converges(&self) -> bool {
        matches!(
            self,
            Self::Shuffle { .. }
                | Self::Vote(_)
                | Self::Match { .. }
                | Self::Redux(_)
                | Self::Elect
                | Self::WarpSync
        )
    }

    /// Whether all live lanes of the warp must execute the instruction together.
    pub(crate) fn is_aligned(&self) -> bool {
        match self {
            Self::Barrier { aligned, .. }
            | Self::ClusterArrive { aligned, .. }
            | Self::ClusterWait { aligned } => *aligned,
            Self::Mma(_)
            | Self::LoadMatrix { .. }
            | Self::StoreMatrix { .. }
            | Self::MoveMatrix
            | Self::Wgmma(_)
            | Self::SetMaxRegisters { .. } => true,
            _ => false,
        }
    }

    /// Whether no thread of the warp may have exited, as it may before a barrier.
    pub(crate) fn needs_all_lanes(&self) -> bool {
        matches!(
            self,
            Self::Mma(_)
                | Self::LoadMatrix { .. }
                | Self::StoreMatrix { .. }
                | Self::MoveMatrix
                | Self::Wgmma(_)
        )
    }

    /// Whether a destination, by position, is in the predicate file.
    pub(crate) fn destination_is_predicate(&self, position: usize) -> bool {
        match self {
            Self::Compare { .. }
            | Self::Pred(_)
            | Self::IsSpace(_)
            | Self::Test { .. }
            | Self::Packed(Packed::Compare { .. }) => true,
            Self::Vote(vote) => *vote != Vote::Ballot,
            Self::Barrier {
                kind: BarrierKind::Reduce(reduction),
                ..
            } => *reduction != Reduction::Count,
            Self::Mbarrier(MbarrierOp::Wait { .. }) => true,
            Self::Carry { gives, .. } => *gives && position == 1,
            Self::Shuffle { .. } | Self::Match { .. } | Self::Elect => position == 1,
            _ => false,
        }
    }

    /// Whether a source, by position, is in the predicate file.
    pub(crate) fn source_is_predicate(&self, position: usize) -> bool {
        match self {
            Self::Pred(_) => true,
            Self::Compare { combine, .. } | Self::Set { combine, .. } => {
                combine.is_some() && position == 2
            }
            Self::Packed(packed) => packed.source_is_predicate(position),
            Self::Select(_) => position == 2,
            Self::Vote(_) => position == 1,
            Self::Barrier {
                kind: BarrierKind::Reduce(_),
                has_count,
                ..
            } => position == 1 + usize::from(*has_count),
            Self::Carry { op, takes, .. } => {
                let factors = match op {
                    Carry::Add | Carry::Subtract => 2,
                    Carry::MultiplyLow | Carry::MultiplyHigh { .. } => 3,
                };
                *takes && position == factors
            }
            Self::Wgmma(WgmmaOp::Mma(_)) => position == 0,
            _ => false,
        }
    }
}
