//! Registers whose lifetimes do not overlap share a row of the register file.
//!
//! PTX is close to SSA: a kernel names thousands of registers of which few hold a value at any time. A register file as large
//! as the names would not fit a cache, and clearing it would cost more than many a kernel.
//!
//! [`liveness`] finds from where to where each register is needed; a linear scan over these intervals gives out rows.

mod liveness;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Code;
use super::builder::{Builder, Constant, Reg, RegKind};
use super::op::{Inst, NO_GUARD, Op, WgmmaOp};
use super::quick::quick_forms;
use liveness::Lifetimes;

/// Registers that some instructions need besides those they name: each of these instructions needs all of these registers.
///
/// The effect of an earlier instruction may arrive at a later one, as the accumulators of `wgmma` do at the wait for it.
#[derive(Debug, Default)]
struct Held {
    /// In order.
    instructions: Vec<u32>,
    registers: Vec<Reg>,
}

impl Held {
    /// What the waits of a kernel hold. Which of them a result arrives at is not known here, so that each holds all.
    fn by_waits(code: &Code) -> Self {
        let mut held = Self::default();
        for (pc, inst) in (0..).zip(&code.instructions) {
            match inst.op {
                Op::Wgmma(WgmmaOp::Mma(mma)) => {
                    let registers = code.registers(inst);
                    let (written, read) = registers.split_at(usize::from(inst.destinations));
                    held.registers.extend(written.iter().map(|&reg| Reg(reg)));
                    // A may be read until the wait, so that nothing else may take its registers.
                    if mma.a_in_registers {
                        held.registers
                            .extend(read[1..5].iter().map(|&reg| Reg(reg)));
                    }
                }
                Op::Wgmma(WgmmaOp::Wait { .. }) => held.instructions.push(pc),
                _ => {}
            }
        }
        held.registers.sort_unstable_by_key(|reg| reg.0);
        held.registers.dedup();
        held
    }
}

/// Gives every register a row and returns the finished code.
pub(super) fn allocate(builder: Builder<'_>, dynamic_shared_base: u32) -> Code {
    let numbering = Numbering {
        narrow: builder.count(RegKind::Narrow),
        wide: builder.count(RegKind::Wide),
        predicates: builder.count(RegKind::Predicate),
    };
    let mut constants: Vec<(Reg, Constant)> = builder
        .constants
        .iter()
        .map(|(&(c, _), &reg)| (reg, c))
        .collect();
    constants.sort_by_key(|(reg, _)| reg.0);
    let mut code = builder.code;
    let fixed: Vec<Reg> = constants.iter().map(|&(reg, _)| reg).collect();
    let held = Held::by_waits(&code);
    mark_operands(&mut code, &held);
    let rows = assign(&code, &numbering, &fixed, &held);
    for (reg, constant) in constants {
        let row = rows.of[numbering.of(reg)];
        let wide = reg.kind() == RegKind::Wide;
        match constant {
            Constant::Bool(value) => code.constant_predicates.push((row, value)),
            Constant::Bits(bits) => code.constants.push((row, bits, wide)),
            Constant::DynamicShared(offset) => {
                let address = offset.wrapping_add(u64::from(dynamic_shared_base));
                code.constants.push((row, address, wide));
            }
        }
    }
    for entry in &mut code.pool {
        *entry = rows.of[numbering.of(Reg(*entry))];
    }
    for inst in &mut code.instructions {
        if inst.guard != NO_GUARD {
            inst.guard = rows.of[numbering.of(Reg(inst.guard))];
        }
    }
    code.rows = rows.next[Rows::DATA];
    code.predicates = rows.next[Rows::PREDICATES];
    code.unwritten_rows = rows.unwritten[Rows::DATA].clone();
    code.unwritten_rows.resize(code.rows as usize, false);
    code.unwritten_wide = rows.unwritten_wide.clone();
    code.unwritten_wide.resize(code.rows as usize, false);
    code.unwritten_predicates = rows.unwritten[Rows::PREDICATES].clone();
    code.unwritten_predicates
        .resize(code.predicates as usize, false);
    for index in 0..code.instructions.len() {
        code.instructions[index].watched = is_watched(&code, index);
    }
    code.quick = quick_forms(&code);
    code
}

/// Notes which ordinary instructions write registers that `wgmma` works on.
///
/// Plain moves do not count: a compiler makes them just before the instruction that takes the register, behind the fence that the
/// source has after the assignment, and the assembler puts them right.
fn mark_operands(code: &mut Code, held: &Held) {
    if held.registers.is_empty() {
        return;
    }
    for index in 0..code.instructions.len() {
        let inst = &code.instructions[index];
        let written = &code.registers(inst)[..usize::from(inst.destinations)];
        let is_operand = |reg: &u32| held.registers.binary_search_by_key(reg, |r| r.0).is_ok();
        let writes =
            !matches!(inst.op, Op::Wgmma(_) | Op::Mov(_)) && written.iter().any(is_operand);
        code.instructions[index].writes_operand = writes;
    }
}

/// Whether an instruction touches a row that may be read unwritten.
fn is_watched(code: &Code, index: usize) -> bool {
    let inst = &code.instructions[index];
    if inst.guard != NO_GUARD && code.unwritten_predicates[inst.guard as usize] {
        return true;
    }
    let destinations = usize::from(inst.destinations);
    let mut registers = code.registers(inst).iter().enumerate();
    registers.any(|(position, &row)| {
        let is_predicate = match position.checked_sub(destinations) {
            Some(source) => inst.op.source_is_predicate(source),
            None => inst.op.destination_is_predicate(position),
        };
        if is_predicate {
            code.unwritten_predicates[row as usize]
        } else {
            code.unwritten_rows[row as usize]
        }
    })
}

/// Where each register lies.
#[derive(Debug)]
struct Rows {
    /// By the register's number; `u32::MAX` for one that no instruction names.
    of: Vec<u32>,
    /// How many rows there are in each file.
    next: [u32; 2],
    /// By row, as far as it goes: whether the register may be read before it is written.
    unwritten: [Vec<bool>; 2],
    /// Of these, where a wide register begins.
    unwritten_wide: Vec<bool>,
}

impl Rows {
    const DATA: usize = 0;
    const PREDICATES: usize = 1;

    fn file(kind: RegKind) -> usize {
        if kind == RegKind::Predicate {
            Self::PREDICATES
        } else {
            Self::DATA
        }
    }

    /// A row (two for a wide register) that nothing else has.
    fn fresh(&mut self, kind: RegKind) -> u32 {
        let next = &mut self.next[Self::file(kind)];
        let row = *next;
        *next += if kind == RegKind::Wide { 2 } else { 1 };
        row
    }
}

/// By register, whether a read may find it unwritten: those that a path reads before it writes them, and those that moves take
/// these to.
fn unwritten(code: &Code, numbering: &Numbering, live_at_entry: Vec<bool>) -> Vec<bool> {
    let mut unwritten = live_at_entry;
    let is_move =
        |inst: &&Inst| matches!(inst.op, Op::Mov(_) | Op::Pack { .. } | Op::Unpack { .. });
    let moves: Vec<&Inst> = code.instructions.iter().filter(is_move).collect();
    loop {
        let mut any = false;
        for inst in &moves {
            let (to, from) = code
                .registers(inst)
                .split_at(usize::from(inst.destinations));
            if from.iter().any(|&reg| unwritten[numbering.of(Reg(reg))]) {
                for &reg in to {
                    any |= !std::mem::replace(&mut unwritten[numbering.of(Reg(reg))], true);
                }
            }
        }
        if !any {
            return unwritten;
        }
    }
}

fn assign(code: &Code, numbering: &Numbering, fixed: &[Reg], held: &Held) -> Rows {
    let lifetimes = Lifetimes::new(code, numbering, held);
    let total = numbering.total();
    let mut rows = Rows {
        of: vec![u32::MAX; total],
        next: [0; 2],
        unwritten: Default::default(),
        unwritten_wide: Vec::new(),
    };
    for &reg in fixed {
        rows.of[numbering.of(reg)] = rows.fresh(reg.kind());
    }
    // What a path reads before writing keeps a row of its own, so that the read can be recognised.
    let unwritten = unwritten(code, numbering, lifetimes.live_at_entry.clone());
    for register in 0..total {
        if unwritten[register] && rows.of[register] == u32::MAX {
            let kind = numbering.kind(register);
            let row = rows.fresh(kind);
            rows.of[register] = row;
            let unwritten = &mut rows.unwritten[Rows::file(kind)];
            unwritten.resize(row as usize, false);
            unwritten.push(true);
            if kind == RegKind::Wide {
                unwritten.push(true);
                rows.unwritten_wide.resize(row as usize, false);
                rows.unwritten_wide.push(true);
            }
        }
    }

    // Linear scan over intervals, in order of their first instruction.
    let mut intervals: Vec<(u32, u32, usize)> = (0..total)
        .filter(|&register| rows.of[register] == u32::MAX)
        .filter_map(|register| {
            let (first, last) = lifetimes.interval(register)?;
            Some((first, last, register))
        })
        .collect();
    intervals.sort_unstable();
    let mut free: [Vec<u32>; 3] = Default::default();
    let mut active: BinaryHeap<Reverse<(u32, u32, usize)>> = BinaryHeap::new();
    for (first, last, register) in intervals {
        while let Some(&Reverse((end, row, kind))) = active.peek() {
            // An instruction may not write where it still reads: lanes are not independent in a shuffle.
            if end >= first {
                break;
            }
            free[kind].push(row);
            active.pop();
        }
        let kind = numbering.kind(register);
        let row = match free[kind as usize].pop() {
            Some(row) => row,
            None => rows.fresh(kind),
        };
        rows.of[register] = row;
        active.push(Reverse((last, row, kind as usize)));
    }
    rows
}

/// All registers in one sequence: narrow, wide, predicates.
#[derive(Debug)]
struct Numbering {
    narrow: usize,
    wide: usize,
    predicates: usize,
}

impl Numbering {
    fn total(&self) -> usize {
        self.narrow + self.wide + self.predicates
    }

    fn of(&self, reg: Reg) -> usize {
        match reg.kind() {
            RegKind::Narrow => reg.index(),
            RegKind::Wide => self.narrow + reg.index(),
            RegKind::Predicate => self.narrow + self.wide + reg.index(),
        }
    }

    fn kind(&self, register: usize) -> RegKind {
        if register < self.narrow {
            RegKind::Narrow
        } else if register < self.narrow + self.wide {
            RegKind::Wide
        } else {
            RegKind::Predicate
        }
    }
}
