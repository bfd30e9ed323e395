//! Runs of instructions in their quick form: one loop, compiled for AVX2 as a whole, that leaves everything that is rare to
//! [`step`](super::step), which executes the same instructions one at a time.

use super::lanes::{map1, map2};
use super::registers::Registers;
use super::state::{Group, Split, Warp, Worker};
use super::vectorise::vectorised;
use super::{collective, data, floating, integer, memory, packed};
use crate::arith::float::{canonical, max_f32, min_f32};
use crate::error::Error;
use crate::program::op::{NO_GUARD, Op};
use crate::program::quick::{LEADER, NOT_QUICK, OPERAND, Quick, WATCHED};

/// Flags of instructions that end a quick run of this split.
#[inline(always)]
pub(super) fn ends(w: &Worker<'_>, warp: &Warp) -> u8 {
    let checks = w.launch.checks;
    let mut ends = NOT_QUICK;
    if !warp.splits.is_empty() {
        ends |= LEADER;
    }
    if checks.init {
        ends |= WATCHED;
    }
    if checks.sync {
        ends |= OPERAND;
    }
    ends
}

/// Executes an instruction that is a function of registers.
pub(super) fn of_registers(registers: &mut Registers, op: &Op, r: &[u32], mask: u32) {
    match op {
        Op::Int { op, width, signed } => {
            integer::execute(registers, *op, *width, *signed, r, mask);
        }
        Op::MulWide { .. }
        | Op::Mul24 { .. }
        | Op::Lop3(_)
        | Op::Prmt(_)
        | Op::Funnel { .. }
        | Op::Dp4a { .. }
        | Op::Dp2a { .. } => integer::special(registers, op, r, mask),
        Op::Carry { .. } => integer::carry(registers, op, r, mask),
        Op::Float {
            op,
            precision,
            mode,
        } => floating::execute(registers, *op, *precision, *mode, r, mask),
        Op::Approx { function, ftz } => floating::approximate(registers, *function, *ftz, r, mask),
        Op::ApproxHalf {
            function,
            precision,
            ftz,
        } => floating::approximate_half(registers, *function, *precision, *ftz, r, mask),
        Op::ApproxDouble { root, coarse } => {
            floating::approximate_double(registers, *root, *coarse, r, mask);
        }
        Op::Test { test, wide } => floating::test(registers, *test, *wide, r, mask),
        Op::Packed(op) => packed::execute(registers, op, r, mask),
        Op::Convert {
            conversion,
            from,
            to,
        } => data::cvt(registers, conversion, *from, *to, r, mask),
        Op::ConvertPack(conversion) => data::cvt_pack(registers, conversion, r, mask),
        Op::ConvertUnpack(conversion) => data::cvt_unpack(registers, conversion, r, mask),
        Op::Mov(width) => data::mov(registers, *width, r, mask),
        Op::Pack { bits, width } => data::pack(registers, *bits, *width, r, mask),
        Op::Unpack { bits, width } => data::unpack(registers, *bits, *width, r, mask),
        Op::Compare { .. } | Op::Set { .. } => data::comparison(registers, op, r, mask),
        Op::Select(width) => data::select(registers, *width, r, mask),
        Op::Pred(op) => data::logic(registers, *op, r, mask),
        _ => {}
    }
}

/// A register of 32 lanes of 4 bytes, or of the half of 8.
type Quarter = [u32; 8];

/// `d = f(a, b, c)` of 32-bit lanes, eight at a time: the operands are not copied first.
///
/// # Safety
/// `rows` is the [pointer](Registers::pointer) of registers that have so many rows, and nothing else refers to them.
#[inline(always)]
unsafe fn apply3(rows: *mut u32, r: [u32; 4], mask: u32, f: impl Fn(u32, u32, u32) -> u32) {
    // SAFETY: a row is 32 lanes of 4 bytes, and the caller keeps all four within the registers. Rows are the same or apart, and
    // eight lanes are read before the same eight lanes are written.
    unsafe {
        let row = |register: u32| rows.add(32 * register as usize).cast::<Quarter>();
        let (d, a, b, c) = (row(r[0]), row(r[1]), row(r[2]), row(r[3]));
        for part in 0..4 {
            let (a, b, c) = (*a.add(part), *b.add(part), *c.add(part));
            let mut out = [0; 8];
            for lane in 0..8 {
                out[lane] = f(a[lane], b[lane], c[lane]);
            }
            if mask != u32::MAX {
                let old = *d.add(part);
                for lane in 0..8 {
                    let keep = 0u32.wrapping_sub(mask >> (8 * part + lane) & 1);
                    out[lane] = (out[lane] & keep) | (old[lane] & !keep);
                }
            }
            *d.add(part) = out;
        }
    }
}

vectorised! {
    /// Executes a split's instructions from its place on, as long as they have a quick form and none of what `ends` says, and
    /// leaves its place at the first that has not been executed. `turns` counts backward branches, of which `most` may be taken.
    pub(super) fn run(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, split: &mut Split, ends: u8, turns: &mut u32, most: u32) -> Result<(), Error> {
        let code = &w.launch.kernel.code;
        let mut pc = split.pc;
        let mut executed = 0;
        let mut result = Ok(());
        // A copy: where the registers keep it, its address can look to a processor like that of a row just written, and each
        // instruction would wait for the one before.
        let mut rows = warp.registers.pointer();
        macro_rules! apply {
            ($r:expr, $mask:expr, $f:expr) => {{
                // SAFETY: quick forms name rows below `code.rows` only, which is how many the registers of the code have, and since
                // the pointer was taken nothing but this has touched their rows.
                unsafe { apply3(rows, $r, $mask, $f) }
                continue;
            }};
        }
        macro_rules! compare {
            ($r:expr, $mask:expr, $t:ty, $f:expr) => {{
                let holds = data::mask_of::<$t>(&warp.registers, &$r[1..], $f);
                warp.registers.write_predicate($r[0], holds, $mask);
            }};
        }
        loop {
            let inst = &code.quick[pc as usize];
            if inst.flags & ends != 0 {
                break;
            }
            let mut mask = split.mask;
            if inst.guard != NO_GUARD {
                let guard = warp.registers.predicates[inst.guard as usize];
                mask &= if inst.guard_negated { !guard } else { guard };
            }
            let r = inst.r;
            if inst.quick == Quick::Branch && mask != 0 {
                let is_backward = r[0] <= pc;
                if mask != split.mask || is_backward && *turns >= most {
                    break;
                }
                *turns += u32::from(is_backward);
            }
            if inst.quick == Quick::Shuffle && mask != 0 {
                let missing = warp.live() & !mask;
                let members = warp.registers.r32(r[0]);
                // Each lane names the lanes it waits for.
                if missing != 0 && memory::lanes(mask).any(|lane| members[lane] & missing != 0) {
                    break;
                }
            }
            let counters = &mut w.counters[pc as usize];
            counters.warps += 1;
            counters.threads += u64::from(mask.count_ones());
            executed += 1;
            pc += 1;
            if mask == 0 {
                continue;
            }
            match inst.quick {
                Quick::None | Quick::Nop => {}
                Quick::Branch => pc = r[0],
                Quick::Registers => {
                    let inst = &code.instructions[pc as usize - 1];
                    of_registers(&mut warp.registers, &inst.op, code.registers(inst), mask);
                }
                Quick::Shuffle => {
                    let inst = &code.instructions[pc as usize - 1];
                    collective::execute(&mut warp.registers, &inst.op, code.registers(inst), mask);
                }
                Quick::Load => {
                    let inst = &code.instructions[pc as usize - 1];
                    if let Op::Load(access) = &inst.op {
                        result = memory::load(w, g, warp, access, code.registers(inst), mask, pc - 1);
                    }
                }
                Quick::Store => {
                    let inst = &code.instructions[pc as usize - 1];
                    if let Op::Store(access) = &inst.op {
                        result = memory::store(w, g, warp, access, code.registers(inst), mask, pc - 1);
                    }
                }
                Quick::Add => apply!(r, mask, |a, b, _| a.wrapping_add(b)),
                Quick::Subtract => apply!(r, mask, |a, b, _| a.wrapping_sub(b)),
                Quick::Multiply => apply!(r, mask, |a, b, _| a.wrapping_mul(b)),
                Quick::MultiplyAdd => apply!(r, mask, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
                Quick::And => apply!(r, mask, |a, b, _| a & b),
                Quick::Or => apply!(r, mask, |a, b, _| a | b),
                Quick::Xor => apply!(r, mask, |a, b, _| a ^ b),
                Quick::Not => apply!(r, mask, |a, _, _| !a),
                Quick::Move => apply!(r, mask, |a, _, _| a),
                Quick::ShiftLeft => apply!(r, mask, |a, b, _| if b < 32 { a << b } else { 0 }),
                Quick::ShiftRight => apply!(r, mask, |a, b, _| if b < 32 { a >> b } else { 0 }),
                Quick::ShiftRightSigned => apply!(r, mask, |a, b, _| ((a as i32) >> b.min(31)) as u32),
                Quick::MinUnsigned => apply!(r, mask, |a, b, _| a.min(b)),
                Quick::MinSigned => apply!(r, mask, |a, b, _| (a as i32).min(b as i32) as u32),
                Quick::MaxUnsigned => apply!(r, mask, |a, b, _| a.max(b)),
                Quick::MaxSigned => apply!(r, mask, |a, b, _| (a as i32).max(b as i32) as u32),
                Quick::AddFloat => apply!(r, mask, |a, b, _| canonical(f32::from_bits(a) + f32::from_bits(b))),
                Quick::SubtractFloat => apply!(r, mask, |a, b, _| canonical(f32::from_bits(a) - f32::from_bits(b))),
                Quick::MultiplyFloat => apply!(r, mask, |a, b, _| canonical(f32::from_bits(a) * f32::from_bits(b))),
                Quick::FusedMultiplyAdd => apply!(r, mask, |a, b, c| canonical(f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c)))),
                Quick::MinFloat => apply!(r, mask, |a, b, _| min_f32(f32::from_bits(a), f32::from_bits(b), false)),
                Quick::MaxFloat => apply!(r, mask, |a, b, _| max_f32(f32::from_bits(a), f32::from_bits(b), false)),
                Quick::Select => {
                    let chosen = warp.registers.predicates[r[3] as usize];
                    let (a, b) = (*warp.registers.r32(r[1]), *warp.registers.r32(r[2]));
                    let mut out = [0; 32];
                    for lane in 0..32 {
                        let take = 0u32.wrapping_sub(chosen >> lane & 1);
                        out[lane] = (a[lane] & take) | (b[lane] & !take);
                    }
                    warp.registers.write32(r[0], &out, mask);
                }
                Quick::AddWide => map2(&mut warp.registers, &r, mask, |a: u64, b: u64| a.wrapping_add(b)),
                Quick::SubtractWide => map2(&mut warp.registers, &r, mask, |a: u64, b: u64| a.wrapping_sub(b)),
                Quick::ShiftLeftWide => map2(&mut warp.registers, &r, mask, |a: u64, b: u32| if b < 64 { a << b } else { 0 }),
                Quick::MultiplyToWide => map2(&mut warp.registers, &r, mask, |a: u32, b: u32| u64::from(a) * u64::from(b)),
                Quick::MultiplyToWideSigned => map2(&mut warp.registers, &r, mask, |a: u32, b: u32| (i64::from(a as i32) * i64::from(b as i32)) as u64),
                Quick::WidenUnsigned => map1(&mut warp.registers, &r, mask, |a: u32| u64::from(a)),
                Quick::WidenSigned => map1(&mut warp.registers, &r, mask, |a: u32| i64::from(a as i32) as u64),
                Quick::Narrow => map1(&mut warp.registers, &r, mask, |a: u64| a as u32),
                Quick::MoveWide => map1(&mut warp.registers, &r, mask, |a: u64| a),
                Quick::Equal => compare!(r, mask, u32, |a, b| a == b),
                Quick::NotEqual => compare!(r, mask, u32, |a, b| a != b),
                Quick::Less => compare!(r, mask, u32, |a, b| a < b),
                Quick::LessEqual => compare!(r, mask, u32, |a, b| a <= b),
                Quick::Greater => compare!(r, mask, u32, |a, b| a > b),
                Quick::GreaterEqual => compare!(r, mask, u32, |a, b| a >= b),
                Quick::LessSigned => compare!(r, mask, u32, |a, b| (a as i32) < (b as i32)),
                Quick::LessEqualSigned => compare!(r, mask, u32, |a, b| (a as i32) <= (b as i32)),
                Quick::GreaterSigned => compare!(r, mask, u32, |a, b| (a as i32) > (b as i32)),
                Quick::GreaterEqualSigned => compare!(r, mask, u32, |a, b| (a as i32) >= (b as i32)),
                Quick::LessFloat => compare!(r, mask, f32, |a, b| a < b),
                Quick::LessEqualFloat => compare!(r, mask, f32, |a, b| a <= b),
                Quick::GreaterFloat => compare!(r, mask, f32, |a, b| a > b),
                Quick::GreaterEqualFloat => compare!(r, mask, f32, |a, b| a >= b),
            }
            if result.is_err() {
                break;
            }
            rows = warp.registers.pointer();
        }
        split.pc = pc;
        split.alone &= executed == 0;
        warp.instructions += executed;
        result
    }
}
