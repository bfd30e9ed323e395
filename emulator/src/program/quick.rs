//! A second, flat form of the instructions that kernels spend their time in, 24 bytes each: what they do is one number, and
//! their registers are at hand. It is made of the finished code; what has no such form is executed from the code alone.

use super::Code;
use super::op::{
    Access, Compare, CompareType, Float, Inst, Int, Mode, Op, Order, Precision, Space, Width,
};

/// What an instruction does: functions of whole registers, of 32 bits where not said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quick {
    /// It has no quick form.
    None,
    Nop,
    /// A function of registers, executed from its [`Op`].
    Registers,
    /// Of a load or store of global memory, how far the next one lies is in place of the last register: see
    /// [`QuickInst::ahead`].
    Load,
    Store,
    /// The target is in place of the first register.
    Branch,
    /// Its first and last register are in place: the member mask is the last.
    Shuffle,
    Add,
    Subtract,
    Multiply,
    MultiplyAdd,
    And,
    Or,
    Xor,
    Not,
    ShiftLeft,
    ShiftRight,
    ShiftRightSigned,
    MinUnsigned,
    MinSigned,
    MaxUnsigned,
    MaxSigned,
    AddWide,
    SubtractWide,
    ShiftLeftWide,
    MultiplyToWide,
    MultiplyToWideSigned,
    WidenUnsigned,
    WidenSigned,
    Narrow,
    Move,
    MoveWide,
    Select,
    AddFloat,
    SubtractFloat,
    MultiplyFloat,
    FusedMultiplyAdd,
    MinFloat,
    MaxFloat,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    LessSigned,
    LessEqualSigned,
    GreaterSigned,
    GreaterEqualSigned,
    LessFloat,
    LessEqualFloat,
    GreaterFloat,
    GreaterEqualFloat,
}

/// The quick form of one instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuickInst {
    pub(crate) quick: Quick,
    /// Reasons to leave the quick path: see the constants.
    pub(crate) flags: u8,
    pub(crate) guard_negated: bool,
    /// Predicate row, or [`NO_GUARD`](super::op::NO_GUARD).
    pub(crate) guard: u32,
    /// Rows, destinations first; as many as the instruction has, the rest 0.
    pub(crate) r: [u32; 4],
}

impl QuickInst {
    /// Of a load or store of global memory: bytes from its addresses to those of the next that takes them from the same register,
    /// as it is in an unrolled loop; 0 if there is none nearby.
    #[inline(always)]
    pub(crate) fn ahead(&self) -> i64 {
        i64::from(self.r[3].cast_signed())
    }
}

/// Instructions within which the next access is looked for.
const AHEAD: usize = 16;

/// The number of a load's or store's register that has the address, if it is of global memory.
fn address(inst: &Inst) -> Option<(usize, &Access)> {
    match &inst.op {
        Op::Load(a) if a.space == Space::Global => Some((usize::from(a.lanes), a)),
        Op::Store(a) if a.space == Space::Global => Some((0, a)),
        _ => None,
    }
}

/// See [`QuickInst::ahead`].
fn ahead(code: &Code, pc: usize) -> Option<i32> {
    let own = &code.instructions[pc];
    let (index, access) = address(own)?;
    let register = code.registers(own)[index];
    let writes =
        |inst: &Inst| code.registers(inst)[..usize::from(inst.destinations)].contains(&register);
    if writes(own) {
        return None;
    }
    for next in code.instructions.iter().skip(pc + 1).take(AHEAD) {
        if let Some((index, other)) = address(next)
            && code.registers(next)[index] == register
        {
            return i32::try_from(other.offset.checked_sub(access.offset)?).ok();
        }
        if matches!(next.op, Op::Branch { .. }) || writes(next) {
            return None;
        }
    }
    None
}

/// It has no quick form.
pub(crate) const NOT_QUICK: u8 = 1;
/// Threads that parted may meet at it.
pub(crate) const LEADER: u8 = 2;
/// It touches a register that may be read unwritten.
pub(crate) const WATCHED: u8 = 4;
/// It writes a register that `wgmma` works on.
pub(crate) const OPERAND: u8 = 8;

/// Whether an instruction is a function of the warp's registers and nothing else.
pub(crate) fn is_of_registers(op: &Op) -> bool {
    matches!(
        op,
        Op::Int { .. }
            | Op::MulWide { .. }
            | Op::Mul24 { .. }
            | Op::Lop3(_)
            | Op::Prmt(_)
            | Op::Funnel { .. }
            | Op::Dp4a { .. }
            | Op::Dp2a { .. }
            | Op::Carry { .. }
            | Op::Float { .. }
            | Op::Approx { .. }
            | Op::ApproxHalf { .. }
            | Op::Convert { .. }
            | Op::ConvertPack(_)
            | Op::ConvertUnpack(_)
            | Op::Mov(_)
            | Op::Pack { .. }
            | Op::Unpack { .. }
            | Op::Compare { .. }
            | Op::Set { .. }
            | Op::Select(_)
            | Op::Pred(_)
    )
}

fn integer(op: Int, width: Width, signed: bool) -> Option<Quick> {
    let quick = match (op, width) {
        (Int::Add, Width::B64) => return Some(Quick::AddWide),
        (Int::Sub, Width::B64) => return Some(Quick::SubtractWide),
        (Int::Shl, Width::B64) => return Some(Quick::ShiftLeftWide),
        (_, Width::B64 | Width::B16) => return None,
        (Int::Add, _) => Quick::Add,
        (Int::Sub, _) => Quick::Subtract,
        (Int::Mul, _) => Quick::Multiply,
        (Int::Mad, _) => Quick::MultiplyAdd,
        (Int::And, _) => Quick::And,
        (Int::Or, _) => Quick::Or,
        (Int::Xor, _) => Quick::Xor,
        (Int::Not, _) => Quick::Not,
        (Int::Shl, _) => Quick::ShiftLeft,
        (Int::Shr, _) if signed => Quick::ShiftRightSigned,
        (Int::Shr, _) => Quick::ShiftRight,
        (Int::Min, _) if signed => Quick::MinSigned,
        (Int::Min, _) => Quick::MinUnsigned,
        (Int::Max, _) if signed => Quick::MaxSigned,
        (Int::Max, _) => Quick::MaxUnsigned,
        _ => return None,
    };
    Some(quick)
}

fn comparison(op: Compare, ty: CompareType) -> Option<Quick> {
    let quick = match (ty, op) {
        (CompareType::Unsigned(Width::B32) | CompareType::Signed(Width::B32), Compare::Eq) => {
            Quick::Equal
        }
        (CompareType::Unsigned(Width::B32) | CompareType::Signed(Width::B32), Compare::Ne) => {
            Quick::NotEqual
        }
        (CompareType::Unsigned(Width::B32), Compare::Lt) => Quick::Less,
        (CompareType::Unsigned(Width::B32), Compare::Le) => Quick::LessEqual,
        (CompareType::Unsigned(Width::B32), Compare::Gt) => Quick::Greater,
        (CompareType::Unsigned(Width::B32), Compare::Ge) => Quick::GreaterEqual,
        (CompareType::Signed(Width::B32), Compare::Lt) => Quick::LessSigned,
        (CompareType::Signed(Width::B32), Compare::Le) => Quick::LessEqualSigned,
        (CompareType::Signed(Width::B32), Compare::Gt) => Quick::GreaterSigned,
        (CompareType::Signed(Width::B32), Compare::Ge) => Quick::GreaterEqualSigned,
        (CompareType::F32 { ftz: false }, Compare::Lt) => Quick::LessFloat,
        (CompareType::F32 { ftz: false }, Compare::Le) => Quick::LessEqualFloat,
        (CompareType::F32 { ftz: false }, Compare::Gt) => Quick::GreaterFloat,
        (CompareType::F32 { ftz: false }, Compare::Ge) => Quick::GreaterEqualFloat,
        _ => return None,
    };
    Some(quick)
}

fn quick_of(op: &Op) -> Quick {
    use crate::arith::Round;
    use crate::arith::convert::Kind;
    let quick = match *op {
        Op::Nop | Op::Prefetch => Some(Quick::Nop),
        Op::Load(a) if a.order == Order::Weak && a.space != Space::Generic => Some(Quick::Load),
        Op::Store(a) if a.order == Order::Weak && a.space != Space::Generic => Some(Quick::Store),
        Op::Branch { .. } => Some(Quick::Branch),
        Op::Shuffle { .. } => Some(Quick::Shuffle),
        Op::Int { op, width, signed } => integer(op, width, signed),
        Op::MulWide {
            from: Width::B32,
            signed,
            add: false,
        } => Some(if signed {
            Quick::MultiplyToWideSigned
        } else {
            Quick::MultiplyToWide
        }),
        Op::Float {
            op,
            precision: Precision::F32,
            mode,
        } if mode == Mode::DEFAULT => match op {
            Float::Add => Some(Quick::AddFloat),
            Float::Sub => Some(Quick::SubtractFloat),
            Float::Mul => Some(Quick::MultiplyFloat),
            Float::Fma => Some(Quick::FusedMultiplyAdd),
            Float::Min => Some(Quick::MinFloat),
            Float::Max => Some(Quick::MaxFloat),
            _ => None,
        },
        Op::Convert {
            ref conversion,
            from,
            to,
        } => {
            let c = conversion;
            let plain = c.round == Round::Near && !c.sat && !c.integral && !c.ftz;
            match (c.to, c.from) {
                // Registers may be wider than the types.
                (Kind::Signed(64), Kind::Signed(32))
                    if plain && (from, to) == (Width::B32, Width::B64) =>
                {
                    Some(Quick::WidenSigned)
                }
                (Kind::Unsigned(64) | Kind::Signed(64), Kind::Unsigned(32))
                    if plain && (from, to) == (Width::B32, Width::B64) =>
                {
                    Some(Quick::WidenUnsigned)
                }
                (Kind::Unsigned(32) | Kind::Signed(32), Kind::Unsigned(64) | Kind::Signed(64))
                    if plain && (from, to) == (Width::B64, Width::B32) =>
                {
                    Some(Quick::Narrow)
                }
                _ => None,
            }
        }
        Op::Mov(Width::B64) => Some(Quick::MoveWide),
        Op::Mov(_) => Some(Quick::Move),
        Op::Select(Width::B32) => Some(Quick::Select),
        Op::Compare {
            op,
            ty,
            combine: None,
            second: false,
        } => comparison(op, ty),
        _ => None,
    };
    match quick {
        Some(quick) => quick,
        None if is_of_registers(op) => Quick::Registers,
        None => Quick::None,
    }
}

impl Quick {
    /// How many rows of 32 lanes × 4 bytes the executing loop takes for each register, by position; 0 for those that it does not
    /// read or write by row.
    fn rows(self) -> [u32; 4] {
        match self {
            Self::None
            | Self::Nop
            | Self::Registers
            | Self::Load
            | Self::Store
            | Self::Branch
            | Self::Shuffle => [0; 4],
            Self::AddWide | Self::SubtractWide => [2, 2, 2, 0],
            Self::ShiftLeftWide => [2, 2, 1, 0],
            Self::MultiplyToWide | Self::MultiplyToWideSigned => [2, 1, 1, 0],
            Self::WidenUnsigned | Self::WidenSigned => [2, 1, 0, 0],
            Self::Narrow => [1, 2, 0, 0],
            Self::MoveWide => [2, 2, 0, 0],
            Self::Move | Self::Not => [1, 1, 0, 0],
            Self::Select => [1, 1, 1, 0],
            Self::MultiplyAdd | Self::FusedMultiplyAdd => [1; 4],
            Self::Equal
            | Self::NotEqual
            | Self::Less
            | Self::LessEqual
            | Self::Greater
            | Self::GreaterEqual
            | Self::LessSigned
            | Self::LessEqualSigned
            | Self::GreaterSigned
            | Self::GreaterEqualSigned
            | Self::LessFloat
            | Self::LessEqualFloat
            | Self::GreaterFloat
            | Self::GreaterEqualFloat => [0, 1, 1, 0],
            _ => [1, 1, 1, 0],
        }
    }
}

/// The quick forms of all instructions.
pub(crate) fn quick_forms(code: &Code) -> Vec<QuickInst> {
    let form = |(pc, inst): (usize, &Inst)| {
        let mut quick = quick_of(&inst.op);
        let registers = code.registers(inst);
        let mut r = [0; 4];
        match inst.op {
            Op::Branch { target } => r[0] = target,
            Op::Shuffle { .. } => r[0] = registers[registers.len() - 1],
            _ => {
                for (r, &register) in r.iter_mut().zip(registers) {
                    *r = register;
                }
            }
        }
        if address(inst).is_some() {
            r[3] = ahead(code, pc).unwrap_or(0).cast_unsigned();
        }
        let needs = quick.rows();
        let named = needs.iter().filter(|&&rows| rows > 0).count();
        // The executing loop reads rows without looking: what is not there is left to the code that looks.
        let fits = (needs.iter().zip(r)).all(|(rows, r)| r + rows <= code.rows || *rows == 0);
        if !fits || registers.len() < named {
            quick = Quick::Registers;
        }
        let mut flags = 0;
        if quick == Quick::None {
            flags |= NOT_QUICK;
        }
        if code.leaders.get(pc).copied().unwrap_or(true) {
            flags |= LEADER;
        }
        if inst.watched {
            flags |= WATCHED;
        }
        if inst.writes_operand {
            flags |= OPERAND;
        }
        QuickInst {
            quick,
            flags,
            guard_negated: inst.guard_negated,
            guard: inst.guard,
            r,
        }
    };
    code.instructions.iter().enumerate().map(form).collect()
}

#[cfg(test)]
mod tests {
    use crate::{Device, DeviceOptions};

    #[test]
    fn the_next_access_of_an_unrolled_loop_is_known() {
        let ptx = "
            .version 8.0
            .target sm_80
            .address_size 64
            .visible .entry k(.param .u64 p) {
                .reg .b32 %r<8>;
                .reg .b64 %o<4>;
                ld.param.u64 %o1, [p];
                ld.global.u32 %r1, [%o1+4];
                add.u32 %r1, %r1, %r1;
                st.global.u32 [%o1+132], %r1;
                ld.global.v2.u32 {%r2, %r3}, [%o1];
                add.s64 %o2, %o1, 8;
                st.global.u32 [%o2], %r2;
                add.s64 %o2, %o2, 8;
                st.global.u32 [%o2], %r3;
                ret;
            }";
        let device = Device::new(DeviceOptions::default());
        let module = device.load_module(ptx).unwrap();
        let kernel = module.kernel("k").unwrap();
        let code = &kernel.code.code;
        let found: Vec<i64> = (0..code.instructions.len())
            .filter(|&pc| super::address(&code.instructions[pc]).is_some())
            .map(|pc| code.quick[pc].ahead())
            .collect();
        // Another register, and one that is another by then.
        assert_eq!(found, [128, -132, 0, 0, 0]);
    }
}
