//! Matrix instructions of four warps, which run beside the warps: each is executed when it is waited for and not before.
//!
//! A warp computes its 16 of the 64 rows. What the four have in common is what they read, and when they are done: the wait of one
//! ends only when all four have started, and then none of them reads shared memory any more. Kernels rely on that where one thread
//! gives back a stage for all of its warpgroup.

use super::bulk;
use super::observe::{self, Memory};
use super::state::{Async, Group, Wait, Warp, Worker};
use crate::check::finding::{FindingKind, Instance};
use crate::error::{Error, ErrorKind};
use crate::program::op::{Accumulator, Inst, WgmmaOp};
use crate::program::op_async::Wgmma;
use crate::tensor::{self, Columns, Rows, columns_k_major};
use crate::tma::matrix::{Major, MatrixDescriptor, Operand};

/// A warp's matrix instructions that nobody has waited for.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pending: Vec<Pending>,
    committed: u32,
    /// When the last of those that are done was started.
    done: u32,
    is_fenced: bool,
    /// Rows of the register file that are accumulators of an instruction under way.
    busy: RowSet,
    /// Those that hold A of one.
    read: RowSet,
    /// Those that something else wrote since the last fence.
    unfenced: RowSet,
}

/// One bit per row of the register file.
#[derive(Debug, Default)]
struct RowSet(Vec<u64>);

impl RowSet {
    fn insert(&mut self, row: u32) {
        let word = row as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (row % 64);
    }

    fn contains(&self, row: u32) -> bool {
        let word = self.0.get(row as usize / 64);
        word.is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }
}

#[derive(Debug)]
struct Pending {
    op: Wgmma,
    pc: u32,
    a: A,
    b: Operand,
    scale_d: bool,
    /// Rows of the register file that hold D, and those that hold A.
    accumulators: Vec<u32>,
    inputs: Vec<u32>,
    group: Option<u32>,
    time: u32,
    /// The operands, where they were read before the warp itself waited.
    operands: Option<Operands>,
}

/// The rows of A and the columns of B, eight by eight.
type Operands = Box<(Rows, Vec<Columns>)>;

#[derive(Debug)]
enum A {
    Registers(Box<Rows>),
    Shared(Operand),
}

impl Queue {
    #[inline(always)]
    pub(super) fn in_flight(&self) -> bool {
        !self.pending.is_empty()
    }

    fn mark_busy(&mut self) {
        self.busy.clear();
        self.read.clear();
        for pending in &self.pending {
            pending
                .accumulators
                .iter()
                .for_each(|&row| self.busy.insert(row));
            pending.inputs.iter().for_each(|&row| self.read.insert(row));
        }
    }
}

/// Notes that an instruction writes registers which the next `wgmma` may only see behind a fence.
pub(super) fn note_writes(warp: &mut Warp, inst: &Inst, r: &[u32]) {
    for &row in &r[..usize::from(inst.destinations)] {
        warp.wgmma.unfenced.insert(row);
    }
}

/// Looks whether an instruction touches accumulators under way.
pub(super) fn check_registers(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    inst: &Inst,
    r: &[u32],
    mask: u32,
    pc: u32,
) {
    if matches!(inst.op, crate::program::op::Op::Wgmma(_)) || mask == 0 {
        return;
    }
    let destinations = usize::from(inst.destinations);
    for (position, &row) in r.iter().enumerate() {
        let is_predicate = match position.checked_sub(destinations) {
            Some(source) => inst.op.source_is_predicate(source),
            None => inst.op.destination_is_predicate(position),
        };
        let queue = &warp.wgmma;
        let is_busy =
            queue.busy.contains(row) || position < destinations && queue.read.contains(row);
        if !is_predicate && is_busy {
            let works_on = |pending: &&Pending| {
                pending.accumulators.contains(&row) || pending.inputs.contains(&row)
            };
            let holder = queue.pending.iter().find(works_on);
            let block = g.blocks[warp.rank].index;
            let thread = warp.thread(mask.trailing_zeros() as usize);
            let other_pc = holder.map_or(0, |pending| pending.pc);
            let instance = Instance {
                other: Some((block, thread)),
                ..Instance::new(block, thread)
            };
            w.findings
                .add(FindingKind::MissingWait, pc, other_pc, instance);
            return;
        }
    }
}

/// An instruction that is under way when its warp ends.
pub(super) fn before_exit(w: &mut Worker<'_>, g: &Group, warp: &mut Warp, mask: u32) {
    if let Some(pending) = warp.wgmma.pending.first()
        && w.launch.checks.race
    {
        let thread = warp.thread(mask.trailing_zeros() as usize);
        let instance = Instance::new(g.blocks[warp.rank].index, thread);
        w.findings
            .add(FindingKind::UnfinishedAtExit, pending.pc, 0, instance);
    }
    warp.wgmma.pending.clear();
}

pub(super) fn execute(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    op: &WgmmaOp,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<Option<Wait>, Error> {
    match op {
        WgmmaOp::Fence => {
            warp.wgmma.is_fenced = true;
            warp.wgmma.unfenced.clear();
        }
        WgmmaOp::Commit => {
            let queue = &mut warp.wgmma;
            for pending in queue
                .pending
                .iter_mut()
                .filter(|pending| pending.group.is_none())
            {
                pending.group = Some(queue.committed);
            }
            queue.committed += 1;
        }
        WgmmaOp::Wait { keep } => {
            let target = warp.wgmma.committed.saturating_sub(*keep);
            if !others_have_started(g, warp, target) {
                return Ok(Some(Wait::Warpgroup { target }));
            }
            wait(w, g, warp, target, mask)?;
        }
        WgmmaOp::Mma(op) => start(w, g, warp, op, r, mask, pc)?,
    }
    Ok(None)
}

/// The numbers of the warps of a warpgroup.
fn warpgroup(g: &Group, warp: &Warp) -> std::ops::Range<usize> {
    let first = warp.index as usize / 4 * 4;
    first..(first + 4).min(g.blocks[warp.rank].warps.len())
}

/// Whether the other warps of the warpgroup have committed as many groups, or ended.
pub(super) fn others_have_started(g: &Group, warp: &Warp, target: u32) -> bool {
    // The warp itself is not among those of its block while it runs.
    let others = g.blocks[warp.rank].warps[warpgroup(g, warp)]
        .iter()
        .flatten();
    others
        .into_iter()
        .all(|other| other.wgmma.committed >= target || other.live() == 0)
}

fn start(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    op: &Wgmma,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    let lane = mask.trailing_zeros() as usize;
    let count = usize::from(op.n)
        / if op.accumulator == Accumulator::F16 {
            4
        } else {
            2
        };
    let (accumulators, s) = r.split_at(count);
    let inputs = if op.a_in_registers { &s[1..5] } else { &[] };
    let mut operands = accumulators.iter().chain(inputs);
    let is_unfenced =
        !warp.wgmma.is_fenced || operands.any(|&row| warp.wgmma.unfenced.contains(row));
    if is_unfenced && w.launch.checks.sync {
        w.find(
            FindingKind::MissingFence,
            pc,
            g.blocks[warp.rank].index,
            warp.index,
            mask,
        );
    }
    let scale_d = warp.registers.predicates[s[0] as usize] >> lane & 1 == 1;
    let operand = |w: &Worker<'_>, bits: u64, mn: bool| {
        let major = if mn { Major::MN } else { Major::K };
        let found =
            MatrixDescriptor::decode(bits).and_then(|d| d.operand(major, op.a.bytes() as u32));
        found.map_err(|what| {
            w.fail(
                ErrorKind::InvalidValue,
                pc,
                &format!("matrix descriptor 0x{bits:x}: {what}"),
            )
        })
    };
    let (a, b_row) = if op.a_in_registers {
        let registers = [1, 2, 3, 4].map(|i: usize| warp.registers.r32(s[i]));
        (A::Registers(Box::new(tensor::rows(&registers))), s[5])
    } else {
        (
            A::Shared(operand(w, warp.registers.r64(s[1])[lane], op.transpose_a)?),
            s[2],
        )
    };
    let b = operand(w, warp.registers.r64(b_row)[lane], op.transpose_b)?;
    let checks = w.launch.checks;
    if checks.memory || checks.init || checks.race {
        let mut chunks = Vec::new();
        if let A::Shared(a) = &a {
            visit(a, rows_of(warp), op, &mut chunks);
        }
        visit(&b, 0..u32::from(op.n), op, &mut chunks);
        for range in merged(&mut chunks) {
            if !bulk::check_read(w, g, warp, range, lane, pc)? {
                return Ok(());
            }
        }
    }
    let pending = Pending {
        op: *op,
        pc,
        a,
        b,
        scale_d,
        accumulators: accumulators.to_vec(),
        inputs: inputs.to_vec(),
        group: None,
        time: g.time,
        operands: None,
    };
    warp.wgmma.pending.push(pending);
    if checks.race {
        warp.wgmma.mark_busy();
        g.advance(warp);
    }
    Ok(())
}

/// The warp's rows of A.
fn rows_of(warp: &Warp) -> std::ops::Range<u32> {
    let first = warp.index % 4 * 16;
    first..first + 16
}

/// Collects the 16-byte chunks that an operand is read from.
fn visit(operand: &Operand, rows: std::ops::Range<u32>, op: &Wgmma, chunks: &mut Vec<u32>) {
    let mut out = vec![0; rows.len() * 32];
    let read = |address: u32| -> Result<[u8; 16], ()> {
        chunks.push(address);
        Ok([0; 16])
    };
    // It never answers with an error.
    let _ = operand.gather(rows, u32::from(op.k), &mut out, read);
}

/// Chunks as ranges of bytes, in order.
fn merged(chunks: &mut [u32]) -> Vec<std::ops::Range<u32>> {
    chunks.sort_unstable();
    let mut ranges: Vec<std::ops::Range<u32>> = Vec::new();
    for &mut chunk in chunks {
        let end = chunk.saturating_add(16);
        match ranges.last_mut() {
            Some(last) if last.end >= chunk => last.end = last.end.max(end),
            _ => ranges.push(chunk..end),
        }
    }
    ranges
}

/// Executes the groups before one.
fn wait(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    target: u32,
    mask: u32,
) -> Result<(), Error> {
    let is_due = |pending: &Pending| pending.group.is_some_and(|group| group < target);
    // In order: one may continue the sums of another.
    let due = warp
        .wgmma
        .pending
        .iter()
        .take_while(|pending| is_due(pending))
        .count();
    let ready: Vec<Pending> = warp.wgmma.pending.drain(..due).collect();
    for mut pending in ready {
        warp.wgmma.done = warp.wgmma.done.max(pending.time);
        let operands = match pending.operands.take() {
            Some(operands) => operands,
            None => read_operands(w, g, warp, &pending)?,
        };
        finish(warp, &pending, &operands, mask);
    }
    let mut times = vec![(warp.index, warp.wgmma.done)];
    for index in warpgroup(g, warp) {
        let Some(mut other) = g.blocks[warp.rank].warps[index].take() else {
            continue;
        };
        let mut queue = std::mem::take(&mut other.wgmma.pending);
        let mut done = other.wgmma.done;
        let mut result = Ok(());
        for pending in queue.iter_mut().filter(|pending| is_due(pending)) {
            done = done.max(pending.time);
            if pending.operands.is_none() {
                match read_operands(w, g, &other, pending) {
                    Ok(operands) => pending.operands = Some(operands),
                    Err(error) => result = Err(error),
                }
            }
        }
        other.wgmma.pending = queue;
        times.push((other.index, done));
        g.blocks[warp.rank].warps[index] = Some(other);
        result?;
    }
    if w.launch.checks.race {
        warp.wgmma.mark_busy();
        for (index, time) in times {
            let slot = g.async_slot(Async::Wgmma, g.slot(warp.rank, index));
            warp.clock.raise(slot, time + 1);
        }
    }
    Ok(())
}

/// The 32 bytes of each row that an operand has.
fn fetch(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    operand: &Operand,
    rows: std::ops::Range<u32>,
    pending: &Pending,
    out: &mut [u8],
) -> Result<(), Error> {
    let shared = &g.blocks[warp.rank].shared;
    let read = |address: u32| {
        shared
            .get(address as usize..)
            .and_then(<[u8]>::first_chunk::<16>)
            .copied()
            .ok_or(address)
    };
    operand
        .gather(rows, u32::from(pending.op.k), out, read)
        .or_else(|address| {
            let size = shared.len() as u64;
            let what = Memory {
                space: "shared",
                address: u64::from(address),
                bytes: 16,
                allocation: Some((0, size)),
            };
            observe::illegal(w, g, warp, 0, FindingKind::OutOfBounds, what, pending.pc)
        })
}

/// Eight words of 32 bytes.
fn words(bytes: &[u8]) -> [u32; 8] {
    std::array::from_fn(|i| {
        let word = bytes.get(4 * i..).and_then(<[u8]>::first_chunk::<4>);
        word.map_or(0, |word| u32::from_le_bytes(*word))
    })
}

/// Reads what an instruction multiplies.
fn read_operands(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    pending: &Pending,
) -> Result<Operands, Error> {
    let a: Rows = match &pending.a {
        A::Registers(rows) => **rows,
        A::Shared(operand) => {
            let mut bytes = [0; 16 * 32];
            fetch(w, g, warp, operand, rows_of(warp), pending, &mut bytes)?;
            std::array::from_fn(|row| words(&bytes[32 * row..]))
        }
    };
    let n = pending.op.n;
    let mut bytes = [0; 256 * 32];
    let bytes = &mut bytes[..usize::from(n) * 32];
    fetch(w, g, warp, &pending.b, 0..u32::from(n), pending, bytes)?;
    let columns = bytes
        .chunks_exact(8 * 32)
        .map(|eight| columns_k_major(&std::array::from_fn(|column| words(&eight[32 * column..]))))
        .collect();
    Ok(Box::new((a, columns)))
}

/// Multiplies, and writes the accumulators.
fn finish(warp: &mut Warp, pending: &Pending, operands: &Operands, mask: u32) {
    let op = &pending.op;
    let (a, columns) = &**operands;
    let mut d: Vec<[u32; 32]> = pending
        .accumulators
        .iter()
        .map(|&row| *warp.registers.r32(row))
        .collect();
    let shape = tensor::Wgmma {
        n: op.n,
        k: op.k,
        a: op.a,
        b: op.b,
        accumulator: op.accumulator,
        negate_a: op.negate_a,
        negate_b: op.negate_b,
        saturate: op.satfinite,
    };
    tensor::wgmma(&shape, &[*a], columns, pending.scale_d, &mut [&mut d]);
    for (&row, values) in pending.accumulators.iter().zip(&d) {
        warp.registers.write32(row, values, mask);
    }
}
