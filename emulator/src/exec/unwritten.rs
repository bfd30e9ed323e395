//! Reads of registers that nothing has written.

use super::registers::Registers;
use super::state::{Group, Warp, Worker};
use crate::check::finding::FindingKind;
use crate::program::Code;
use crate::program::op::{Inst, NO_GUARD, Op, WgmmaOp};

/// Finds reads of registers that a path reaches unwritten, and notes what is written.
pub(super) fn check(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    inst: &Inst,
    r: &[u32],
    mask: u32,
    all: u32,
    pc: u32,
) {
    let code = &w.launch.kernel.code;
    let mut missing = 0;
    if let Op::Mov(_) | Op::Pack { .. } | Op::Unpack { .. } = inst.op {
        pass_on(code, &mut warp.registers, inst, r, mask);
        missing = unwritten_guard(code, warp, inst, all);
        report(w, g, warp, missing, pc);
        return;
    }
    missing |= unwritten_guard(code, warp, inst, all);
    let (destinations, sources) = r.split_at(usize::from(inst.destinations));
    // A row number may belong to either file: flags of both are looked up, of the file the operand is in.
    for (position, &row) in sources.iter().enumerate() {
        if let Op::Wgmma(WgmmaOp::Mma(_)) = inst.op
            && position >= sources.len() - destinations.len()
            && warp.registers.predicates[sources[0] as usize] & mask == 0
        {
            // Accumulators are not read where D is not scaled.
            break;
        }
        if inst.op.source_is_predicate(position) {
            if code.unwritten_predicates[row as usize] {
                missing |= mask & !warp.registers.predicates_written[row as usize];
            }
        } else {
            missing |= mask & !written(code, &warp.registers, row);
        }
    }
    for (position, &row) in destinations.iter().enumerate() {
        if inst.op.destination_is_predicate(position) {
            warp.registers.predicates_written[row as usize] |= mask;
        } else {
            for part in parts(code, row) {
                warp.registers.written[part as usize] |= mask;
            }
        }
    }
    report(w, g, warp, missing, pc);
}

fn report(w: &mut Worker<'_>, g: &Group, warp: &Warp, lanes: u32, pc: u32) {
    if lanes != 0 {
        let kind = FindingKind::UninitialisedRegister;
        w.find(kind, pc, g.blocks[warp.rank].index, warp.index, lanes);
    }
}

/// Lanes whose guard nothing has written.
fn unwritten_guard(code: &Code, warp: &Warp, inst: &Inst, lanes: u32) -> u32 {
    if inst.guard != NO_GUARD && code.unwritten_predicates[inst.guard as usize] {
        lanes & !warp.registers.predicates_written[inst.guard as usize]
    } else {
        0
    }
}

/// The rows of a register whose reads are checked: two where it has 64 bits, low half first.
fn parts(code: &Code, row: u32) -> std::ops::Range<u32> {
    match (
        code.unwritten_rows[row as usize],
        code.unwritten_wide[row as usize],
    ) {
        (false, _) => row..row,
        (true, false) => row..row + 1,
        (true, true) => row..row + 2,
    }
}

/// Lanes that have written all of a register.
fn written(code: &Code, registers: &Registers, row: u32) -> u32 {
    parts(code, row).fold(u32::MAX, |lanes, part| {
        lanes & registers.written[part as usize]
    })
}

/// A move reads nothing yet: what nothing has written stays so where it is moved to, half by half. Compilers make a pair of a
/// float and of nothing where only the float is used later.
fn pass_on(code: &Code, registers: &mut Registers, inst: &Inst, r: &[u32], mask: u32) {
    let (destinations, sources) = r.split_at(usize::from(inst.destinations));
    let mut moved: Vec<(u32, u32)> = Vec::new();
    match inst.op {
        // Halves of 32 bits and their registers.
        Op::Pack { bits: 32, .. } => {
            let parts = parts(code, destinations[0]);
            let halves = sources.iter().map(|&row| written(code, registers, row));
            moved.extend(parts.zip(halves));
        }
        Op::Unpack { bits: 32, .. } => {
            let from = parts(code, sources[0]);
            for (half, &row) in (0..).zip(destinations) {
                let part = (from.start + half < from.end).then_some(from.start + half);
                let lanes = part.map_or(u32::MAX, |part| registers.written[part as usize]);
                moved.extend(parts(code, row).map(|to| (to, lanes)));
            }
        }
        Op::Mov(_) => {
            let from = parts(code, sources[0]);
            for (half, to) in (0..).zip(parts(code, destinations[0])) {
                let part = (from.start + half < from.end).then_some(from.start + half);
                let lanes = part.map_or(u32::MAX, |part| registers.written[part as usize]);
                moved.push((to, lanes));
            }
        }
        // Of smaller parts what one of them is all are.
        _ => {
            let any = sources.iter().fold(0, |lanes, &row| {
                let some = parts(code, row).map(|part| registers.written[part as usize]);
                lanes | some.reduce(|a, b| a | b).unwrap_or(u32::MAX)
            });
            for &row in destinations {
                moved.extend(parts(code, row).map(|to| (to, any)));
            }
        }
    }
    for (row, lanes) in moved {
        let written = &mut registers.written[row as usize];
        *written = *written & !mask | lanes & mask;
    }
}
