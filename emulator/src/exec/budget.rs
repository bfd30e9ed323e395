//! `setmaxnreg`: warps give registers back to their block, and take more from it.

use super::state::{Group, Wait, Warp, Worker};
use crate::check::finding::FindingKind;
use crate::program::KernelCode;

/// Registers of a multiprocessor, for each thread 32 bits.
const REGISTERS: u32 = 1 << 16;
/// Registers of a thread are given out by so many.
const UNIT: u32 = 8;
/// The most that a thread can have.
const MOST: u32 = 256;

/// A block's registers.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Those that no warp has.
    free: u32,
    /// By warp, those of each of its threads; at first the most that it can be, unless the kernel says how many.
    warps: Vec<u32>,
    is_exact: bool,
}

/// Registers that each thread begins with: what `.maxnreg` says, or as many as let the block, or several of them, on a
/// multiprocessor. `None` where the kernel says nothing of it; then the instruction does nothing.
fn at_start(kernel: &KernelCode) -> Option<u32> {
    let threads = kernel.required_threads.or(kernel.max_threads);
    let by_threads = threads.map(|axes| {
        let blocks = kernel.min_blocks.unwrap_or(1).max(1);
        let threads = axes.iter().product::<u32>().max(1).next_multiple_of(32);
        (REGISTERS / threads.saturating_mul(blocks)).min(MOST)
    });
    let registers = kernel.max_registers.or(by_threads)?;
    // Of the explicit number the next multiple is given out; of the other there is no more.
    Some(match kernel.max_registers {
        Some(_) => registers.next_multiple_of(UNIT),
        None => registers / UNIT * UNIT,
    })
}

impl Budget {
    pub(super) fn new(kernel: &KernelCode, warps: u32) -> Option<Self> {
        let each = at_start(kernel)?;
        Some(Self {
            free: 0,
            warps: vec![each; warps as usize],
            is_exact: kernel.max_registers.is_some(),
        })
    }

    pub(super) fn has(&self, registers: u32) -> bool {
        self.free >= registers
    }

    /// What a warp that exits had others can have.
    pub(super) fn leave(&mut self, warp: u32) {
        self.free += 32 * std::mem::take(&mut self.warps[warp as usize]);
    }

    /// For a report.
    pub(super) fn describe(&self, registers: u32) -> String {
        let free = self.free;
        format!("waits for {registers} registers at setmaxnreg, where its block has {free} free")
    }
}

/// Changes the registers of a warp's threads. What the warp waits for, if its block has not as many.
pub(super) fn set(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    (count, increases): (u32, bool),
    mask: u32,
    pc: u32,
) -> Option<Wait> {
    let block = &mut g.blocks[warp.rank];
    let index = block.index;
    let budget = block.budget.as_mut()?;
    let own = &mut budget.warps[warp.index as usize];
    let before = *own;
    if increases {
        let more = 32 * count.saturating_sub(before);
        if more > budget.free {
            return Some(Wait::Registers { count: more });
        }
        budget.free -= more;
    } else {
        budget.free += 32 * before.saturating_sub(count);
    }
    // Neither more by `.dec`, nor less by `.inc`; of the most that it can be, less may well be more.
    let is_less = increases && count < before;
    let is_wrong = is_less && budget.is_exact || !increases && count > before;
    if !is_wrong && !is_less {
        *own = count;
    }
    if is_wrong && w.launch.checks.sync {
        w.find(FindingKind::RegisterBudget, pc, index, warp.index, mask);
    }
    w.changes += 1;
    None
}
