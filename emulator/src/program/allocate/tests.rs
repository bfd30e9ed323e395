//! Random control flow, run once with every register apart and once with the rows given out: all reads must agree.

use std::collections::HashMap;

use proptest::prelude::*;

use super::liveness::Lifetimes;
use super::*;
use crate::program::op::{Accumulator, Element, Inst, Op};
use crate::program::op_async::Wgmma;

const KINDS: [RegKind; 3] = [RegKind::Narrow, RegKind::Wide, RegKind::Predicate];
/// Registers of each kind; the first two of each are constants.
const REGISTERS: u32 = 9;
const CONSTANTS: u32 = 2;

fn reg(kind: RegKind, index: u32) -> Reg {
    Reg((kind as u32) << 30 | index)
}

fn numbering() -> Numbering {
    Numbering {
        narrow: REGISTERS as usize,
        wide: REGISTERS as usize,
        predicates: REGISTERS as usize,
    }
}

fn constants() -> Vec<Reg> {
    let of = |kind| (0..CONSTANTS).map(move |index| reg(kind, index));
    KINDS.into_iter().flat_map(of).collect()
}

/// A well-mixed number.
fn mix(values: &[u64]) -> u64 {
    values.iter().fold(0x9e37_79b9_7f4a_7c15, |hash, value| {
        let hash = (hash ^ value).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^ hash >> 29
    })
}

struct Program {
    code: Code,
    held: Held,
}

/// `Op::Nop` stands for any instruction; `CopyAsyncCommit` for one whose destinations arrive at a later `Sleep`.
fn program(seed: u64, length: u32) -> Program {
    let mut state = seed;
    let mut random = |below: u32| {
        state = mix(&[state, 1]);
        (state >> 20) as u32 % below
    };
    let mut code = Code {
        leaders: vec![false; length as usize + 1],
        ..Code::default()
    };
    for _ in 0..random(3) {
        let targets: Vec<u32> = (0..1 + random(4)).map(|_| random(length)).collect();
        code.tables.push(targets);
    }
    let mut late = Vec::new();
    for pc in 0..length {
        let op = match random(16) {
            _ if pc + 1 == length => Op::Exit,
            0..=2 => Op::Branch {
                target: random(length),
            },
            3 if !code.tables.is_empty() => Op::BranchTable {
                table: random(code.tables.len() as u32),
            },
            4 if random(4) == 0 => Op::Exit,
            5 => Op::CopyAsyncCommit,
            6 => Op::Sleep,
            _ => Op::Nop,
        };
        let mut destinations = Vec::new();
        let mut sources = Vec::new();
        if matches!(op, Op::Nop | Op::CopyAsyncCommit) {
            for _ in 0..random(3) {
                let written = CONSTANTS + random(REGISTERS - CONSTANTS);
                let written = reg(KINDS[random(3) as usize], written);
                if !destinations.contains(&written) {
                    destinations.push(written);
                }
            }
        }
        for _ in 0..random(3) {
            sources.push(reg(KINDS[random(3) as usize], random(REGISTERS)));
        }
        if matches!(op, Op::CopyAsyncCommit) {
            late.extend_from_slice(&destinations);
        }
        let guarded = pc + 1 < length && random(3) == 0;
        let guard = if guarded {
            reg(RegKind::Predicate, random(REGISTERS)).0
        } else {
            NO_GUARD
        };
        code.instructions.push(Inst {
            op,
            at: code.pool.len() as u32,
            destinations: destinations.len() as u8,
            sources: sources.len() as u8,
            guard,
            guard_negated: random(2) == 0,
            line: 0,
            location: 0,
            watched: false,
            writes_operand: false,
        });
        code.pool
            .extend(destinations.iter().chain(&sources).map(|reg| reg.0));
    }
    let mut held = Held {
        instructions: Vec::new(),
        registers: late,
    };
    for (pc, inst) in (0..).zip(&code.instructions) {
        match inst.op {
            Op::Branch { target } => code.leaders[target as usize] = true,
            Op::Sleep => held.instructions.push(pc),
            _ => {}
        }
    }
    for &target in code.tables.iter().flatten() {
        code.leaders[target as usize] = true;
    }
    Program { code, held }
}

/// Registers as cells: `None` until written. Each name has two cells in the first run, and its row's in the second.
struct File<'a> {
    rows: Option<&'a Rows>,
    cells: [Vec<Option<u64>>; 2],
}

impl File<'_> {
    fn cell(&self, register: Reg) -> (usize, usize) {
        let number = numbering().of(register);
        match self.rows {
            None => (0, 2 * number),
            Some(rows) => (Rows::file(register.kind()), rows.of[number] as usize),
        }
    }

    fn read(&self, register: Reg) -> Vec<Option<u64>> {
        let (file, at) = self.cell(register);
        let cells = 1 + usize::from(register.kind() == RegKind::Wide);
        self.cells[file][at..at + cells].to_vec()
    }

    fn write(&mut self, register: Reg, value: u64) {
        let (file, at) = self.cell(register);
        for half in 0..1 + usize::from(register.kind() == RegKind::Wide) {
            self.cells[file][at + half] = Some(mix(&[value, half as u64]));
        }
    }
}

/// What one lane reads. `lane` decides branches where no register does.
fn run(program: &Program, rows: Option<&Rows>, lane: u64) -> Vec<Vec<Option<u64>>> {
    let code = &program.code;
    let cells = match rows {
        None => [vec![None; 2 * numbering().total()], Vec::new()],
        Some(rows) => rows.next.map(|count| vec![None; count as usize]),
    };
    let mut file = File { rows, cells };
    for constant in constants() {
        file.write(constant, u64::from(constant.0));
    }
    let mut reads = Vec::new();
    let mut pending: Vec<(Reg, u64)> = Vec::new();
    let mut pc = 0;
    for step in 0..400 {
        let inst = &code.instructions[pc];
        let value = mix(&[lane, step, pc as u64]);
        pc += 1;
        if inst.guard != NO_GUARD {
            let guard = file.read(Reg(inst.guard));
            let holds = guard[0].unwrap_or(lane) & 1 == 1;
            reads.push(guard);
            if holds == inst.guard_negated {
                continue;
            }
        }
        let (destinations, sources) = code
            .registers(inst)
            .split_at(usize::from(inst.destinations));
        reads.extend(sources.iter().map(|&source| file.read(Reg(source))));
        for &destination in destinations {
            file.write(Reg(destination), value);
        }
        match inst.op {
            Op::Branch { target } => pc = target as usize,
            Op::BranchTable { table } => {
                let targets = &code.tables[table as usize];
                pc = targets[value as usize % targets.len()] as usize;
            }
            Op::Exit => break,
            Op::CopyAsyncCommit => {
                pending.extend(destinations.iter().map(|&reg| (Reg(reg), !value)));
            }
            Op::Sleep => {
                for (register, value) in pending.drain(..) {
                    file.write(register, value);
                }
            }
            _ => {}
        }
    }
    reads
}

fn check(program: &Program, rows: &Rows) {
    for lane in 0..8 {
        assert_eq!(run(program, None, lane), run(program, Some(rows), lane));
    }
    // An instruction's rows are apart, so that lanes may read what others wrote before they read.
    for inst in &program.code.instructions {
        let mut taken = HashMap::new();
        for &register in program.code.registers(inst) {
            let register = Reg(register);
            let row = rows.of[numbering().of(register)];
            for half in 0..1 + u32::from(register.kind() == RegKind::Wide) {
                let place = (Rows::file(register.kind()), row + half);
                assert_eq!(*taken.entry(place).or_insert(register), register);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn rows_hold_what_registers_hold(seed: u64, length in 1u32..60) {
        let program = program(seed, length);
        check(&program, &assign(&program.code, &numbering(), &constants(), &program.held));
    }

    #[test]
    fn giving_up_is_right_too(seed: u64, length in 1u32..60, steps in 0u64..20) {
        let program = program(seed, length);
        let lifetimes = Lifetimes::within(&program.code, &numbering(), &program.held, steps);
        let exact = Lifetimes::new(&program.code, &numbering(), &program.held);
        for register in 0..numbering().total() {
            if let Some((first, last)) = exact.interval(register) {
                let (wide_first, wide_last) = lifetimes.interval(register).unwrap();
                prop_assert!(wide_first <= first && last <= wide_last);
            }
            prop_assert!(lifetimes.live_at_entry[register] >= exact.live_at_entry[register]);
        }
    }
}

/// A chain of values, each used by the next instruction: two rows will do.
fn chain(length: u32, branch_every: u32) -> Code {
    let mut code = Code::default();
    for pc in 0..length {
        let is_branch = pc % branch_every == branch_every - 1;
        let (op, registers) = match is_branch {
            true => (Op::Branch { target: pc + 1 }, vec![]),
            false => (
                Op::Nop,
                vec![pc, pc.saturating_sub(1 + u32::from(pc % branch_every == 0))],
            ),
        };
        code.instructions.push(Inst {
            op,
            at: code.pool.len() as u32,
            destinations: u8::from(!is_branch),
            sources: u8::from(!is_branch && pc > 0),
            guard: NO_GUARD,
            guard_negated: false,
            line: 0,
            location: 0,
            watched: false,
            writes_operand: false,
        });
        code.pool
            .extend(&registers[..if pc == 0 { 1 } else { registers.len() }]);
    }
    code.instructions[length as usize - 1].op = Op::Exit;
    code.leaders = (0..=length).map(|pc| pc % branch_every == 0).collect();
    code
}

#[test]
fn a_long_chain_needs_two_rows() {
    let length = 300_000;
    let code = chain(length, 10);
    let numbering = Numbering {
        narrow: length as usize,
        wide: 0,
        predicates: 0,
    };
    let rows = assign(&code, &numbering, &[], &Held::default());
    assert_eq!(rows.next, [2, 0]);
}

#[test]
fn waits_hold_the_accumulators() {
    let mma = Op::Wgmma(WgmmaOp::Mma(Wgmma {
        n: 8,
        k: 16,
        a: Element::Bf16,
        b: Element::Bf16,
        accumulator: Accumulator::F32,
        a_in_registers: false,
        negate_a: false,
        negate_b: false,
        transpose_a: false,
        transpose_b: false,
        satfinite: false,
    }));
    let mut code = chain(6, 100);
    code.instructions[1].op = mma;
    code.instructions[4].op = Op::Wgmma(WgmmaOp::Wait { keep: 0 });
    let held = Held::by_waits(&code);
    assert_eq!(
        (held.instructions.as_slice(), held.registers.as_slice()),
        (&[4][..], &[Reg(1)][..])
    );
    let numbering = Numbering {
        narrow: 6,
        wide: 0,
        predicates: 0,
    };
    let lifetimes = Lifetimes::new(&code, &numbering, &held);
    assert_eq!(lifetimes.interval(1), Some((1, 4)));
    assert_eq!(lifetimes.interval(2), Some((2, 3)));
}
