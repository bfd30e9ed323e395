//! Operations that go on while the thread does: barriers in shared memory, bulk copies, matrix instructions of four warps.

use super::op::{Accumulator, Atomic, AtomicType, Element, Space};

/// An address operand: a register, of 64 bits or 32, plus an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) space: Space,
    pub(crate) wide: bool,
    pub(crate) offset: i64,
}

/// `mbarrier` instructions. Sources: the address, then the operands in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MbarrierOp {
    /// Sources: address, count.
    Init(At),
    Invalidate(At),
    /// Sources: address, count of arrivals (where `has_count`) or bytes (where `expects`). Destination: the state, where `returns`.
    Arrive {
        at: At,
        has_count: bool,
        expects: bool,
        drops: bool,
        returns: bool,
        relaxed: bool,
        /// The program promises that the phase goes on.
        no_complete: bool,
    },
    /// Sources: address, bytes.
    ExpectTx(At),
    CompleteTx(At),
    /// Sources: address, state or parity. Destination: a predicate.
    Wait {
        at: At,
        parity: bool,
        /// `try_wait` may wait; `test_wait` does not.
        may_wait: bool,
        relaxed: bool,
    },
    /// Source: a state. Destination: arrivals that it still needed.
    PendingCount,
    /// `cp.async.mbarrier.arrive`.
    ArriveOnCopies {
        at: At,
        noinc: bool,
    },
}

/// Which way a bulk copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BulkWay {
    /// To shared memory, of one block or of all in a mask; an mbarrier tells when it is there.
    Load { multicast: bool },
    /// From shared memory to that of a block of the cluster; an mbarrier there tells.
    Across,
    /// From shared to global memory; waited for by groups.
    Store,
}

/// A reduction of the copied elements into the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BulkReduction {
    pub(crate) op: Atomic,
    pub(crate) ty: AtomicType,
    pub(crate) bytes: u8,
}

/// Bulk copies. Sources: destination address, source address, then size, mbarrier and mask where the form has them; of tensor
/// copies the shared address, the map's address, the coordinates, then mbarrier and mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BulkOp {
    Plain {
        way: BulkWay,
        to: At,
        from: At,
        barrier: Option<At>,
        reduction: Option<BulkReduction>,
    },
    Tensor {
        way: BulkWay,
        shared: At,
        map: At,
        rank: u8,
        barrier: Option<At>,
        /// The map gives the type.
        reduction: Option<Atomic>,
    },
    Commit,
    Wait {
        keep: u32,
        read: bool,
    },
}

/// `wgmma` instructions. Sources of `Mma`: A (registers, or a descriptor), the descriptor of B, the accumulators; last the
/// predicate that scales D, in the predicate file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WgmmaOp {
    Mma(Wgmma),
    Fence,
    Commit,
    Wait { keep: u32 },
}

/// `wgmma.mma_async`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wgmma {
    pub(crate) n: u16,
    pub(crate) k: u16,
    pub(crate) a: Element,
    pub(crate) b: Element,
    pub(crate) accumulator: Accumulator,
    pub(crate) a_in_registers: bool,
    pub(crate) negate_a: bool,
    pub(crate) negate_b: bool,
    /// Whether M (of A) or N (of B) runs fastest in shared memory.
    pub(crate) transpose_a: bool,
    pub(crate) transpose_b: bool,
    pub(crate) satfinite: bool,
}
