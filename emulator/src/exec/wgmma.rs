//! Matrix instructions of four warps, which run beside the warps: each is executed when it is waited for and not before.
//!
//! A warp computes its 16 of the 64 rows. What the four have in common is what they read, and when they are done: the wait of one
//! ends only when all four have started, and then none of them reads shared memory any more. Kernels rely on that where one thread
//! gives back a stage for all of its warpgroup.

use std::ops::Range;
use std::sync::Arc;

use super::bulk;
use super::chunks::Chunks;
use super::observe::{self, Memory};
use super::state::{Async, Group, Wait, Warp, Worker};
use crate::check::finding::{FindingKind, Instance};
use crate::error::{Error, ErrorKind};
use crate::program::Code;
use crate::program::op::{Accumulator, Inst, Op, WgmmaOp};
use crate::program::op_async::Wgmma;
use crate::tensor::{self, Columns, Rows, Tile, columns_k_major};
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

/// An instruction that was started. Its registers are those of the code.
#[derive(Debug)]
struct Pending {
    pc: u32,
    a: A,
    b: Operand,
    /// The columns of B, where they were read before the warp itself waited.
    columns: Option<Arc<Vec<Columns>>>,
    scale_d: bool,
    group: Option<u32>,
    time: u32,
}

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "rows that were read take the place of where to read them"
)]
enum A {
    Rows(Rows),
    Shared(Operand),
}

/// The registers of D of an instruction, and those that hold A.
fn registers<'a>(code: &'a Code, op: &Wgmma, pc: u32) -> (&'a [u32], &'a [u32]) {
    let per_register = match op.accumulator {
        Accumulator::F16 => 4,
        _ => 2,
    };
    let r = code.registers(&code.instructions[pc as usize]);
    let (accumulators, sources) = r.split_at(usize::from(op.n) / per_register);
    let a = if op.a_in_registers {
        &sources[1..5]
    } else {
        &[]
    };
    (accumulators, a)
}

/// The instruction with a number; those that are pending are all `wgmma.mma_async`.
fn operation(code: &Code, pc: u32) -> Option<&Wgmma> {
    match &code.instructions[pc as usize].op {
        Op::Wgmma(WgmmaOp::Mma(op)) => Some(op),
        _ => None,
    }
}

/// Columns of B that were read for one wait, and buffers for those of the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    read: Vec<(Operand, u16, Arc<Vec<Columns>>)>,
    free: Vec<Arc<Vec<Columns>>>,
    /// The bytes of an operand, 32 of each row or column.
    bytes: Vec<[u32; 8]>,
    /// What an instruction reads: by chunks, and by bytes.
    chunks: Chunks,
    ranges: Vec<Range<u32>>,
}

impl Scratch {
    /// Shared memory may change from here on.
    fn forget(&mut self) {
        self.free
            .extend(self.read.drain(..).map(|(.., columns)| columns));
    }

    /// A buffer that nobody reads any more.
    fn buffer(&mut self) -> Arc<Vec<Columns>> {
        let unused = self
            .free
            .iter_mut()
            .position(|columns| Arc::get_mut(columns).is_some());
        unused.map_or_else(Arc::default, |index| self.free.swap_remove(index))
    }
}

impl Queue {
    #[inline(always)]
    pub(super) fn in_flight(&self) -> bool {
        !self.pending.is_empty()
    }

    fn mark_busy(&mut self, code: &Code) {
        self.busy.clear();
        self.read.clear();
        for pending in &self.pending {
            if let Some(op) = operation(code, pending.pc) {
                let (accumulators, inputs) = registers(code, op, pending.pc);
                accumulators.iter().for_each(|&row| self.busy.insert(row));
                inputs.iter().for_each(|&row| self.read.insert(row));
            }
        }
    }

    /// How many of the instructions a wait for the groups before one waits for. In order: one may continue the sums of another.
    fn due(&self, target: u32) -> usize {
        let is_due = |pending: &&Pending| pending.group.is_some_and(|group| group < target);
        self.pending.iter().take_while(is_due).count()
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
            let code = &w.launch.kernel.code;
            let works_on = |pending: &&Pending| {
                operation(code, pending.pc).is_some_and(|op| {
                    let (accumulators, inputs) = registers(code, op, pending.pc);
                    accumulators.contains(&row) || inputs.contains(&row)
                })
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
            // The rest of the warpgroup may wait for it.
            w.changes += 1;
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
fn warpgroup(g: &Group, warp: &Warp) -> Range<usize> {
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
    let code = &w.launch.kernel.code;
    let (accumulators, inputs) = registers(code, op, pc);
    let s = &r[accumulators.len()..];
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
        (A::Rows(tensor::rows(&registers)), s[5])
    } else {
        (
            A::Shared(operand(w, warp.registers.r64(s[1])[lane], op.transpose_a)?),
            s[2],
        )
    };
    let b = operand(w, warp.registers.r64(b_row)[lane], op.transpose_b)?;
    let checks = w.launch.checks;
    if checks.memory || checks.init || checks.race {
        let Scratch { chunks, ranges, .. } = &mut w.wgmma;
        if let A::Shared(a) = &a {
            a.visit(rows_of(warp), u32::from(op.k), |at| chunks.insert(at));
        }
        b.visit(0..u32::from(op.n), u32::from(op.k), |at| chunks.insert(at));
        chunks.take_ranges(ranges);
        let ranges = std::mem::take(ranges);
        let may_read = bulk::check_read(w, g, warp, &ranges, lane, pc);
        w.wgmma.ranges = ranges;
        if !may_read? {
            return Ok(());
        }
    }
    warp.wgmma.pending.push(Pending {
        pc,
        a,
        b,
        columns: None,
        scale_d,
        group: None,
        time: g.time,
    });
    if checks.race {
        warp.wgmma.mark_busy(&w.launch.kernel.code);
        g.advance(warp);
    }
    Ok(())
}

/// The warp's rows of A.
fn rows_of(warp: &Warp) -> Range<u32> {
    let first = warp.index % 4 * 16;
    first..first + 16
}

/// Executes the groups before one.
fn wait(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    target: u32,
    mask: u32,
) -> Result<(), Error> {
    let mut others: [Option<Box<Warp>>; 4] = Default::default();
    for (other, index) in others.iter_mut().zip(warpgroup(g, warp)) {
        *other = g.blocks[warp.rank].warps[index].take();
    }
    let mut times = [(warp.index, 0); 4];
    for (time, other) in times.iter_mut().zip(&others) {
        if let Some(other) = other {
            let due = &other.wgmma.pending[..other.wgmma.due(target)];
            let done = due.iter().map(|pending| pending.time).max();
            *time = (other.index, other.wgmma.done.max(done.unwrap_or(0)));
        }
    }
    let mut scratch = std::mem::take(&mut w.wgmma);
    let result = finish_due(w, g, &mut scratch, warp, &mut others, target, mask);
    scratch.forget();
    w.wgmma = scratch;
    for (other, index) in others.into_iter().zip(warpgroup(g, warp)) {
        // The place of the warp itself stays empty while it runs.
        if other.is_some() {
            g.blocks[warp.rank].warps[index] = other;
        }
    }
    result?;
    if w.launch.checks.race {
        warp.wgmma.mark_busy(&w.launch.kernel.code);
        for (index, time) in times {
            let time = match index == warp.index {
                true => warp.wgmma.done,
                false => time,
            };
            let slot = g.async_slot(Async::Wgmma, g.slot(warp.rank, index));
            warp.clock.raise(slot, time + 1);
        }
    }
    Ok(())
}

/// Reads what the instructions before a group multiply, of all warps of a warpgroup, and multiplies for those that wait.
fn finish_due(
    w: &mut Worker<'_>,
    g: &Group,
    scratch: &mut Scratch,
    warp: &mut Warp,
    others: &mut [Option<Box<Warp>>; 4],
    target: u32,
    mask: u32,
) -> Result<(), Error> {
    let due = warp.wgmma.due(target);
    read_operands(w, g, scratch, warp, due)?;
    // Of each other warp that stands at its wait: it would multiply next, and nobody sees whether it is itself that does.
    let mut standing = [(0, 0); 4];
    for (other, standing) in others.iter_mut().zip(&mut standing) {
        let Some(other) = other else { continue };
        let due = other.wgmma.due(target);
        read_operands(w, g, scratch, other, due)?;
        if let [split] = other.splits[..]
            && let Wait::Warpgroup { target: own } = split.wait
        {
            *standing = (due.min(other.wgmma.due(own)), split.mask);
        }
    }
    let code = &w.launch.kernel.code;
    let mut done = [0; 4];
    for index in 0..due {
        let pending = &warp.wgmma.pending[index];
        let (Some(op), Some(columns)) = (operation(code, pending.pc), &pending.columns) else {
            continue;
        };
        let (accumulators, _) = registers(code, op, pending.pc);
        let mut tiles = Vec::with_capacity(4);
        for (slot, other) in others.iter_mut().enumerate() {
            let (due, mask) = standing[slot];
            let Some(other) = other.as_mut().filter(|_| done[slot] < due) else {
                continue;
            };
            let also = &other.wgmma.pending[done[slot]];
            let A::Rows(a) = &also.a else { continue };
            let is_same = |other: &Arc<Vec<Columns>>| Arc::ptr_eq(other, columns);
            if also.pc == pending.pc
                && also.scale_d == pending.scale_d
                && also.columns.as_ref().is_some_and(is_same)
            {
                done[slot] += 1;
                other.wgmma.done = other.wgmma.done.max(also.time);
                tiles.push(Tile {
                    a,
                    registers: other.registers.all_mut(),
                    accumulators,
                    mask,
                });
            }
        }
        warp.wgmma.done = warp.wgmma.done.max(pending.time);
        if let A::Rows(a) = &pending.a {
            tiles.push(Tile {
                a,
                registers: warp.registers.all_mut(),
                accumulators,
                mask,
            });
        }
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
        tensor::wgmma(&shape, columns, pending.scale_d, &mut tiles);
    }
    warp.wgmma.pending.drain(..due);
    for (other, done) in others.iter_mut().zip(done) {
        if let Some(other) = other {
            other.wgmma.pending.drain(..done);
        }
    }
    Ok(())
}

/// Reads the rows of A and the columns of B of a warp's first instructions, where that has not been done.
fn read_operands(
    w: &mut Worker<'_>,
    g: &Group,
    scratch: &mut Scratch,
    warp: &mut Warp,
    count: usize,
) -> Result<(), Error> {
    let code = &w.launch.kernel.code;
    for index in 0..count {
        let pending = &warp.wgmma.pending[index];
        let (pc, b) = (pending.pc, pending.b);
        let Some(op) = operation(code, pc).filter(|_| pending.columns.is_none()) else {
            continue;
        };
        if let A::Shared(operand) = pending.a {
            let rows = fetch(
                w,
                g,
                warp,
                &operand,
                rows_of(warp),
                op,
                pc,
                &mut scratch.bytes,
            )?;
            if let Some(rows) = rows.first_chunk() {
                warp.wgmma.pending[index].a = A::Rows(*rows);
            }
        }
        let known = scratch
            .read
            .iter()
            .find(|(operand, n, _)| (operand, n) == (&b, &op.n));
        let columns = match known {
            Some((.., columns)) => columns.clone(),
            None => {
                let mut columns = scratch.buffer();
                let all = 0..u32::from(op.n);
                let bytes = fetch(w, g, warp, &b, all, op, pc, &mut scratch.bytes)?;
                if let Some(columns) = Arc::get_mut(&mut columns) {
                    columns.clear();
                    columns.extend(bytes.as_chunks().0.iter().map(columns_k_major));
                }
                scratch.read.push((b, op.n, columns.clone()));
                columns
            }
        };
        warp.wgmma.pending[index].columns = Some(columns);
    }
    Ok(())
}

/// The 32 bytes of each row that an operand has.
fn fetch<'a>(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    operand: &Operand,
    rows: Range<u32>,
    op: &Wgmma,
    pc: u32,
    out: &'a mut Vec<[u32; 8]>,
) -> Result<&'a [[u32; 8]], Error> {
    out.clear();
    out.resize(rows.len(), [0; 8]);
    let shared = &g.blocks[warp.rank].shared;
    let read = |address: u32| {
        shared
            .get(address as usize..)
            .and_then(<[u8]>::first_chunk::<16>)
            .copied()
            .ok_or(address)
    };
    let bytes = bytemuck::cast_slice_mut(out);
    if let Err(address) = operand.gather(rows, u32::from(op.k), bytes, read) {
        let size = shared.len() as u64;
        let what = Memory {
            space: "shared",
            address: u64::from(address),
            bytes: 16,
            allocation: Some((0, size)),
        };
        observe::illegal(w, g, warp, 0, FindingKind::OutOfBounds, what, pc)?;
    }
    Ok(out)
}
