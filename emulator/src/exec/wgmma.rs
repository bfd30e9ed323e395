//! Matrix instructions of four warps, which run beside the warps: each is executed when it is waited for and not before.
//!
//! A warp computes its 16 of the 64 rows; what the four have in common is only what they read.

use super::bulk;
use super::observe::{self, Memory};
use super::state::{Group, Warp, Worker};
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
    is_fenced: bool,
    /// One bit per row of the register file: it is an accumulator of an instruction under way.
    busy: Vec<u64>,
}

#[derive(Debug)]
struct Pending {
    op: Wgmma,
    pc: u32,
    a: A,
    b: Operand,
    scale_d: bool,
    /// Rows of the register file that hold D.
    accumulators: Vec<u32>,
    group: Option<u32>,
    time: u32,
}

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
        self.busy.fill(0);
        for pending in &self.pending {
            for &row in &pending.accumulators {
                let word = row as usize / 64;
                if self.busy.len() <= word {
                    self.busy.resize(word + 1, 0);
                }
                self.busy[word] |= 1 << (row % 64);
            }
        }
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
        let is_busy = warp
            .wgmma
            .busy
            .get(row as usize / 64)
            .is_some_and(|word| word >> (row % 64) & 1 == 1);
        if !is_predicate && is_busy {
            let holder = warp
                .wgmma
                .pending
                .iter()
                .find(|pending| pending.accumulators.contains(&row));
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
) -> Result<(), Error> {
    match op {
        WgmmaOp::Fence => {
            warp.wgmma.is_fenced = true;
            Ok(())
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
            Ok(())
        }
        WgmmaOp::Wait { keep } => wait(w, g, warp, *keep, mask),
        WgmmaOp::Mma(op) => start(w, g, warp, op, r, mask, pc),
    }
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
    if !warp.wgmma.is_fenced && w.launch.checks.sync {
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
        group: None,
        time: g.time,
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

/// Executes all but the newest groups.
fn wait(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    keep: u32,
    mask: u32,
) -> Result<(), Error> {
    let committed = warp.wgmma.committed;
    let mut time = 0;
    // In order: one may continue the sums of another.
    let is_due = |pending: &Pending| pending.group.is_some_and(|group| group + keep < committed);
    let due = warp
        .wgmma
        .pending
        .iter()
        .take_while(|pending| is_due(pending))
        .count();
    let ready: Vec<Pending> = warp.wgmma.pending.drain(..due).collect();
    for pending in ready {
        time = time.max(pending.time);
        finish(w, g, warp, &pending, mask)?;
    }
    if w.launch.checks.race {
        warp.wgmma.mark_busy();
        let slot = g.async_slot(g.slot(warp.rank, warp.index));
        warp.clock.raise(slot, time + 1);
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

fn finish(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    pending: &Pending,
    mask: u32,
) -> Result<(), Error> {
    let op = &pending.op;
    let a: Rows = match &pending.a {
        A::Registers(rows) => **rows,
        A::Shared(operand) => {
            let mut bytes = [0; 16 * 32];
            fetch(w, g, warp, operand, rows_of(warp), pending, &mut bytes)?;
            std::array::from_fn(|row| words(&bytes[32 * row..]))
        }
    };
    let mut bytes = [0; 256 * 32];
    let bytes = &mut bytes[..usize::from(op.n) * 32];
    fetch(w, g, warp, &pending.b, 0..u32::from(op.n), pending, bytes)?;
    let columns: Vec<Columns> = bytes
        .chunks_exact(8 * 32)
        .map(|eight| columns_k_major(&std::array::from_fn(|column| words(&eight[32 * column..]))))
        .collect();
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
    tensor::wgmma(&shape, &[a], &columns, pending.scale_d, &mut [&mut d]);
    for (&row, values) in pending.accumulators.iter().zip(&d) {
        warp.registers.write32(row, values, mask);
    }
    Ok(())
}
