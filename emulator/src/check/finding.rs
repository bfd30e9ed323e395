//! Findings, merged so that their list does not depend on the order in which blocks ran.

use std::collections::BTreeMap;
use std::fmt;

use crate::exec::coordinates;
use crate::program::KernelCode;
use crate::program::op::{BulkOp, Op};

/// The class of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// An access outside of every allocation, or beyond shared or local memory.
    OutOfBounds,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// An access to memory that was freed.
    UseAfterFree,
    /// A write to constant memory.
    WriteToConstant,
    /// A read of memory that nothing has written.
    UninitialisedMemory,
    /// A read of a register that nothing has written.
    UninitialisedRegister,
    /// A read, and a write that came before it unordered.
    RaceReadAfterWrite,
    /// A write, and a read that came before it unordered.
    RaceWriteAfterRead,
    /// Two unordered writes.
    RaceWriteAfterWrite,
    /// An access to the destination of an asynchronous copy that was not waited for, or to registers that `wgmma` works on.
    MissingWait,
    /// An instruction that all lanes of a warp must execute together, executed by some of them.
    DivergentInstruction,
    /// A barrier for all threads of a block, of which some have exited.
    BarrierAfterExit,
    /// Threads of a block that wait at different barriers, or with different thread counts.
    BarrierMismatch,
    /// An asynchronous operation reads what ordinary stores wrote without a fence of the asynchronous proxy, or tells an mbarrier
    /// that was initialised without a fence.
    MissingProxyFence,
    /// `wgmma` without the `wgmma.fence` that must come before it: before the first, and after its registers are written.
    MissingFence,
    /// An mbarrier that is used without having been initialised, or whose counts do not fit what it is used for.
    MbarrierMisuse,
    /// Bytes that an mbarrier expects and bytes that arrive are not the same.
    ExpectedBytes,
    /// An asynchronous operation was under way when its block ended.
    UnfinishedAtExit,
    /// `setmaxnreg.inc` asks for registers that the block never has, or `.inc` for fewer or `.dec` for more than the warp has.
    RegisterBudget,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Wrong on hardware.
    Error,
    /// Right only where the lanes of a warp proceed together, which hardware does not promise.
    Warning,
    /// Unordered writes of the same value.
    Note,
}

/// A thread and what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Its block.
    pub block: [u32; 3],
    /// Its place in the block.
    pub thread: [u32; 3],
    /// Source file, or `PTX` where the compiler left no line.
    pub file: String,
    /// Line in that file.
    pub line: u32,
    /// What it does there: `load`, `store`, `atomic`, `asynchronous copy`, …; empty where memory is not concerned.
    pub operation: &'static str,
}

/// What an instruction does to memory.
fn operation(op: &Op) -> &'static str {
    match op {
        Op::Load(_) | Op::LoadMatrix { .. } => "load",
        Op::Store(_) | Op::StoreMatrix { .. } => "store",
        Op::Atom { .. } => "atomic",
        Op::CopyAsync { .. } => "asynchronous copy",
        Op::Bulk(BulkOp::Plain { .. } | BulkOp::Tensor { .. }) => "bulk copy",
        Op::Wgmma(_) => "wgmma",
        Op::Mbarrier(_) => "mbarrier",
        _ => "",
    }
}

/// Something a kernel did wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its class.
    pub kind: FindingKind,
    /// How bad it is.
    pub severity: Severity,
    /// The kernel.
    pub kernel: String,
    /// The thread that did it: of all that did, the first by block and thread.
    pub party: Party,
    /// State space, where memory is concerned.
    pub space: Option<&'static str>,
    /// Address of the access.
    pub address: Option<u64>,
    /// Bytes of the access.
    pub bytes: u32,
    /// Base and size of the allocation concerned, or the nearest one.
    pub allocation: Option<(u64, u64)>,
    /// The other thread of a race, or the one that started the copy.
    pub other: Option<Party>,
    /// How often it happened between these two instructions.
    pub count: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FindingKind::OutOfBounds => "out of bounds",
            FindingKind::Misaligned => "misaligned access",
            FindingKind::UseAfterFree => "use after free",
            FindingKind::WriteToConstant => "write to constant memory",
            FindingKind::UninitialisedMemory => "read of uninitialised memory",
            FindingKind::UninitialisedRegister => "read of an uninitialised register",
            FindingKind::RaceReadAfterWrite => "race: read after write",
            FindingKind::RaceWriteAfterRead => "race: write after read",
            FindingKind::RaceWriteAfterWrite => "race: write after write",
            FindingKind::MissingWait => "asynchronous copy or wgmma not waited for",
            FindingKind::DivergentInstruction => {
                "divergent lanes at an instruction for the whole warp"
            }
            FindingKind::BarrierAfterExit => "barrier after threads of the block have exited",
            FindingKind::BarrierMismatch => {
                "threads that wait at different barriers or with different counts"
            }
            FindingKind::MissingProxyFence => {
                "ordinary stores that an asynchronous operation uses without fence.proxy.async"
            }
            FindingKind::MissingFence => "wgmma without wgmma.fence before it",
            FindingKind::MbarrierMisuse => "misuse of an mbarrier",
            FindingKind::ExpectedBytes => "an mbarrier expects other bytes than arrive",
            FindingKind::RegisterBudget => "setmaxnreg beyond the registers of the block",
            FindingKind::UnfinishedAtExit => "asynchronous operation not waited for before exit",
        };
        let of = |operation: &str| match operation {
            "" => String::new(),
            operation => format!("{operation} by "),
        };
        let severity = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
            Severity::Note => "note: ",
        };
        write!(
            f,
            "{}:{}: {severity}{what} in {}",
            self.party.file, self.party.line, self.kernel
        )?;
        if let (Some(space), Some(address)) = (self.space, self.address) {
            write!(
                f,
                ", {} bytes of {space} memory at 0x{address:x}",
                self.bytes
            )?;
        }
        write!(
            f,
            ", {}block {:?} thread {:?}",
            of(self.party.operation),
            self.party.block,
            self.party.thread
        )?;
        if let Some((base, bytes)) = self.allocation {
            write!(f, ", allocation of {bytes} bytes at 0x{base:x}")?;
        }
        if let Some(other) = &self.other {
            write!(
                f,
                "; the other: {}:{}, {}block {:?} thread {:?}",
                other.file,
                other.line,
                of(other.operation),
                other.block,
                other.thread
            )?;
        }
        if self.count > 1 {
            write!(f, " ({} times)", self.count)?;
        }
        Ok(())
    }
}

/// What identifies a finding while a kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    kind: FindingKind,
    pc: u32,
    other_pc: u32,
    severity: Severity,
}

/// One instance; ordered so that the first by block and thread is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    pub(crate) block: u32,
    pub(crate) thread: u32,
    pub(crate) address: Option<u64>,
    pub(crate) space: Option<&'static str>,
    pub(crate) bytes: u32,
    pub(crate) allocation: Option<(u64, u64)>,
    /// Block and thread.
    pub(crate) other: Option<(u32, u32)>,
}

impl Instance {
    pub(crate) fn new(block: u32, thread: u32) -> Self {
        Self {
            block,
            thread,
            address: None,
            space: None,
            bytes: 0,
            allocation: None,
            other: None,
        }
    }
}

/// Collects findings.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    found: BTreeMap<Key, (Instance, u64)>,
}

impl Findings {
    pub(crate) fn add(&mut self, kind: FindingKind, pc: u32, other_pc: u32, instance: Instance) {
        self.add_with(kind, Severity::Error, pc, other_pc, instance);
    }

    pub(crate) fn add_with(
        &mut self,
        kind: FindingKind,
        severity: Severity,
        pc: u32,
        other_pc: u32,
        instance: Instance,
    ) {
        self.found
            .entry(Key {
                kind,
                pc,
                other_pc,
                severity,
            })
            .and_modify(|(first, count)| {
                *first = (*first).min(instance);
                *count += 1;
            })
            .or_insert((instance, 1));
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (key, (instance, count)) in other.found {
            self.found
                .entry(key)
                .and_modify(|(first, sum)| {
                    *first = (*first).min(instance);
                    *sum += count;
                })
                .or_insert((instance, count));
        }
    }

    /// The findings with their places in the source; those of one line (and one other line) are one.
    pub(crate) fn finish(
        self,
        kernel: &KernelCode,
        grid: [u32; 3],
        block: [u32; 3],
    ) -> Vec<Finding> {
        let party = |pc: u32, (b, t): (u32, u32)| {
            let (file, line) = kernel.place(pc);
            Party {
                block: coordinates(b, grid),
                thread: coordinates(t, block),
                file,
                line,
                operation: operation(&kernel.code.instructions[pc as usize].op),
            }
        };
        let mut by_line: BTreeMap<_, (Key, Instance, u64)> = BTreeMap::new();
        for (key, (instance, count)) in self.found {
            let other = instance.other.map(|_| kernel.place(key.other_pc));
            let place = (key.kind, key.severity, kernel.place(key.pc), other);
            match by_line.get_mut(&place) {
                Some((first, least, sum)) => {
                    *sum += count;
                    if instance < *least {
                        (*first, *least) = (key, instance);
                    }
                }
                None => {
                    by_line.insert(place, (key, instance, count));
                }
            }
        }
        by_line
            .into_values()
            .map(|(key, instance, count)| Finding {
                kind: key.kind,
                severity: key.severity,
                kernel: kernel.name.clone(),
                party: party(key.pc, (instance.block, instance.thread)),
                space: instance.space,
                address: instance.address,
                bytes: instance.bytes,
                allocation: instance.allocation,
                other: instance.other.map(|other| party(key.other_pc, other)),
                count,
            })
            .collect()
    }
}
