//! Operations on parts of a register: packed integers, packed comparisons, bit fields, the video instructions.

use super::op::{Bool, Compare};

/// Instructions that see a 32-bit register as several values, or as a field of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packed {
    /// `add`, `min` and `max` of two 16-bit integers; `min` and `max` of one of 32 bits where `.relu` asks for it.
    Integer {
        op: PackedInt,
        signed: bool,
        relu: bool,
        whole: bool,
    },
    /// `setp` of two halves: the first destination is the low half's, the second the high half's.
    Compare {
        op: Compare,
        half: HalfType,
        combine: Option<(Bool, bool)>,
    },
    /// `set` of two halves; `one` is what a half becomes where the comparison holds.
    Set {
        op: Compare,
        half: HalfType,
        one: u16,
        combine: Option<(Bool, bool)>,
    },
    /// `cvt.pack.sat`: the first source above the second, each saturated to `bits`; above them the third, where there is one.
    Saturate {
        bits: u32,
        signed: bool,
    },
    /// `bmsk`. Sources: position, width.
    Mask {
        wrap: bool,
    },
    /// `szext`. Sources: value, width.
    Extend {
        wrap: bool,
        signed: bool,
    },
    /// `fns`. Sources: mask, base, offset.
    NthSet,
    Video(Video),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackedInt {
    Add,
    Min,
    Max,
}

/// The format of packed halves that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfType {
    F16 { ftz: bool },
    Bf16,
}

/// `vadd` and its kind, scalar (one part of 8, 16 or 32 bits), of two halves or of four bytes. Sources: a, b, and c where the
/// form has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Video {
    pub(crate) op: VideoOp,
    /// How many parts: 1, 2 or 4.
    pub(crate) parts: u8,
    pub(crate) signed: bool,
    pub(crate) a: Selection,
    pub(crate) b: Selection,
    pub(crate) saturate: bool,
    /// What is done with the result and c; `None` merges the parts that are not in `mask` from c.
    pub(crate) second: Option<Second>,
    /// Of a scalar: which part of the destination it becomes.
    pub(crate) into: Part,
    /// Of two or four parts: those that are computed.
    pub(crate) mask: u8,
}

/// Which parts of an operand are taken, and how they are extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) signed: bool,
    /// Of a scalar.
    pub(crate) part: Part,
    /// Of two or four parts: numbers of parts of `b:a`, lowest first.
    pub(crate) from: [u8; 4],
}

/// A part of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) shift: u8,
    pub(crate) bits: u8,
}

impl Part {
    pub(crate) const WHOLE: Self = Self { shift: 0, bits: 32 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VideoOp {
    Add,
    Subtract,
    AbsoluteDifference,
    Min,
    Max,
    /// With rounding up.
    Average,
    Set(Compare),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    Add,
    Min,
    Max,
}

impl Packed {
    /// Whether a source, by position, is in the predicate file.
    pub(crate) fn source_is_predicate(&self, position: usize) -> bool {
        match self {
            Self::Compare { combine, .. } | Self::Set { combine, .. } => {
                combine.is_some() && position == 2
            }
            _ => false,
        }
    }
}
