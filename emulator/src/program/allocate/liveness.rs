//! From where to where each register holds a value that is needed.
//!
//! Each register is followed backwards from its reads to its writes. That takes memory for the graph alone, where sets of
//! registers per block would take the product of both.

use super::{Held, Numbering};
use crate::program::Code;
use crate::program::builder::Reg;
use crate::program::op::{Inst, NO_GUARD, Op};

/// Edges that are followed at most, over all registers: a third of a second. A GEMM of 3000 instructions follows some hundreds.
/// Registers that are left then count as needed everywhere, which is right but shares no rows.
const MAX_STEPS: u64 = 1 << 26;

/// A register's number and a block.
type Pair = (u32, u32);

/// The first and the last instruction that need each register.
#[derive(Debug)]
pub(super) struct Lifetimes {
    first: Vec<u32>,
    last: Vec<u32>,
    /// Whether a path from the kernel's start reads the register before it is certainly written.
    pub(super) live_at_entry: Vec<bool>,
}

impl Lifetimes {
    pub(super) fn new(code: &Code, numbering: &Numbering, held: &Held) -> Self {
        Self::within(code, numbering, held, MAX_STEPS)
    }

    /// As [`Lifetimes::new`], following this many edges at most.
    pub(super) fn within(code: &Code, numbering: &Numbering, held: &Held, mut steps: u64) -> Self {
        let total = numbering.total();
        let mut lifetimes = Self {
            first: vec![u32::MAX; total],
            last: vec![0; total],
            live_at_entry: vec![false; total],
        };
        let graph = Graph::new(code);
        let mut held = held;
        let nothing = Held::default();
        if (held.instructions.len() as u64).saturating_mul(held.registers.len() as u64) > steps {
            for &reg in &held.registers {
                lifetimes.need_everywhere(numbering.of(reg), code);
            }
            held = &nothing;
        }
        let (mut exposed, mut kills) = lifetimes.scan(code, numbering, held, &graph);
        exposed.sort_unstable();
        kills.sort_unstable();

        let nodes = graph.nodes();
        // The register (plus one) that a block was last seen to write, or to need at its start.
        let mut kill_of = vec![0u32; nodes];
        let mut live_of = vec![0u32; nodes];
        let mut kills = kills.as_slice();
        let mut stack = Vec::new();
        for reads in exposed.chunk_by(|a, b| a.0 == b.0) {
            let register = reads[0].0;
            let mark = register + 1;
            let skipped = kills.partition_point(|&(other, _)| other < register);
            kills = &kills[skipped..];
            for &(_, block) in kills.iter().take_while(|&&(other, _)| other == register) {
                kill_of[block as usize] = mark;
            }
            for &(_, block) in reads {
                live_of[block as usize] = mark;
                stack.push(block);
            }
            let register = register as usize;
            while let Some(node) = stack.pop() {
                if let Some((start, _)) = graph.range(node) {
                    lifetimes.touch(register, start);
                }
                lifetimes.live_at_entry[register] |= node == 0;
                for &before in graph.predecessors(node) {
                    steps = steps.saturating_sub(1);
                    if let Some((_, end)) = graph.range(before) {
                        lifetimes.touch(register, end - 1);
                    }
                    let seen = &mut live_of[before as usize];
                    if kill_of[before as usize] != mark && *seen != mark {
                        *seen = mark;
                        stack.push(before);
                    }
                }
                if steps == 0 {
                    stack.clear();
                    lifetimes.need_everywhere(register, code);
                }
            }
        }
        lifetimes
    }

    /// The interval, unless no instruction names the register.
    pub(super) fn interval(&self, register: usize) -> Option<(u32, u32)> {
        (self.first[register] != u32::MAX).then(|| (self.first[register], self.last[register]))
    }

    fn need_everywhere(&mut self, register: usize, code: &Code) {
        self.first[register] = 0;
        self.last[register] = code.instructions.len() as u32;
        self.live_at_entry[register] = true;
    }

    fn touch(&mut self, register: usize, pc: u32) {
        self.first[register] = self.first[register].min(pc);
        self.last[register] = self.last[register].max(pc);
    }

    /// Visits every instruction. Gives the pairs of register and block where the block reads it before it certainly writes it,
    /// and those where it certainly writes it.
    fn scan(
        &mut self,
        code: &Code,
        numbering: &Numbering,
        held: &Held,
        graph: &Graph,
    ) -> (Vec<Pair>, Vec<Pair>) {
        let (mut exposed, mut kills) = (Vec::new(), Vec::new());
        // The last block (plus one) of each kind, so that a pair is given once.
        let mut exposed_in = vec![0u32; numbering.total()];
        let mut killed_in = vec![0u32; numbering.total()];
        for block in 0..graph.blocks() {
            let (start, end) = graph.starts_and_ends[block as usize];
            for pc in start..end {
                let inst = &code.instructions[pc as usize];
                let is_holding = held.instructions.binary_search(&pc).is_ok();
                let held: &[Reg] = if is_holding { &held.registers } else { &[] };
                visit(code, inst, held, |reg, is_write| {
                    let register = numbering.of(reg);
                    self.touch(register, pc);
                    let pair = (register as u32, block);
                    if killed_in[register] == block + 1 {
                        return;
                    }
                    if !is_write && exposed_in[register] != block + 1 {
                        exposed_in[register] = block + 1;
                        exposed.push(pair);
                    }
                    if is_write && inst.guard == NO_GUARD {
                        killed_in[register] = block + 1;
                        kills.push(pair);
                    }
                });
            }
        }
        (exposed, kills)
    }
}

/// Calls `f` for every register of an instruction: those it reads first, then those it writes.
fn visit(code: &Code, inst: &Inst, held: &[Reg], mut f: impl FnMut(Reg, bool)) {
    if inst.guard != NO_GUARD {
        f(Reg(inst.guard), false);
    }
    let registers = code.registers(inst);
    let (destinations, sources) = registers.split_at(usize::from(inst.destinations));
    for &source in sources {
        f(Reg(source), false);
    }
    for &reg in held {
        f(reg, false);
    }
    for &destination in destinations {
        f(Reg(destination), true);
    }
}

/// Control flow. The nodes are the basic blocks, and after them the tables of `brx.idx`: many branches through one table are
/// then no more edges than its targets.
#[derive(Debug)]
struct Graph {
    starts_and_ends: Vec<(u32, u32)>,
    /// Where the predecessors of each node begin in `from`.
    first: Vec<u32>,
    from: Vec<u32>,
}

impl Graph {
    fn new(code: &Code) -> Self {
        let count = code.instructions.len();
        let mut block_at = Vec::with_capacity(count);
        let mut starts_and_ends: Vec<(u32, u32)> = Vec::new();
        for pc in 0..count {
            let after_branch = pc > 0
                && matches!(
                    code.instructions[pc - 1].op,
                    Op::Branch { .. } | Op::BranchTable { .. } | Op::Exit | Op::Trap
                );
            if pc == 0 || after_branch || code.leaders[pc] {
                starts_and_ends.push((pc as u32, pc as u32));
            }
            block_at.push(starts_and_ends.len() as u32 - 1);
            if let Some((_, end)) = starts_and_ends.last_mut() {
                *end = pc as u32 + 1;
            }
        }
        let blocks = starts_and_ends.len() as u32;
        let mut edges = Vec::new();
        for (block, &(_, end)) in (0u32..).zip(&starts_and_ends) {
            let last = &code.instructions[end as usize - 1];
            let leaves = match last.op {
                Op::Branch { target } => {
                    edges.push((block, block_at[target as usize]));
                    true
                }
                Op::BranchTable { table } => {
                    edges.push((block, blocks + table));
                    true
                }
                Op::Exit | Op::Trap => true,
                _ => false,
            };
            if (!leaves || last.guard != NO_GUARD) && block + 1 < blocks {
                edges.push((block, block + 1));
            }
        }
        for (table, targets) in (blocks..).zip(&code.tables) {
            edges.extend(targets.iter().map(|&pc| (table, block_at[pc as usize])));
        }
        let nodes = blocks as usize + code.tables.len();
        let mut first = vec![0u32; nodes + 1];
        for &(_, to) in &edges {
            first[to as usize + 1] += 1;
        }
        for node in 0..nodes {
            first[node + 1] += first[node];
        }
        let mut from = vec![0; edges.len()];
        let mut at = first.clone();
        for (source, to) in edges {
            let at = &mut at[to as usize];
            from[*at as usize] = source;
            *at += 1;
        }
        Self {
            starts_and_ends,
            first,
            from,
        }
    }

    fn blocks(&self) -> u32 {
        self.starts_and_ends.len() as u32
    }

    fn nodes(&self) -> usize {
        self.first.len() - 1
    }

    /// First instruction and the one after the last; a table has none.
    fn range(&self, node: u32) -> Option<(u32, u32)> {
        self.starts_and_ends.get(node as usize).copied()
    }

    fn predecessors(&self, node: u32) -> &[u32] {
        let node = node as usize;
        &self.from[self.first[node] as usize..self.first[node + 1] as usize]
    }
}
