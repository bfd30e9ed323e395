//! Barriers of a block, and fences.

use super::state::{Barrier, Block, Group, Wait, Warp, Worker};
use crate::check::finding::{FindingKind, Instance, Severity};
use crate::error::{Error, ErrorKind};
use crate::program::op::{BarrierKind, Reduction, Scope};

/// Arrives at a barrier. `None` if the warp need not wait.
pub(super) fn barrier(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    kind: BarrierKind,
    has_count: bool,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<Option<Wait>, Error> {
    let s = if let BarrierKind::Reduce(_) = kind {
        &r[1..]
    } else {
        r
    };
    let lane = mask.trailing_zeros() as usize;
    let id = warp.registers.r32(s[0])[lane];
    if id >= 16 {
        let what = format!("barrier {id} does not exist, there are 16");
        return Err(w.fail(ErrorKind::InvalidValue, pc, &what));
    }
    let count = has_count.then(|| warp.registers.r32(s[1])[lane]);
    if let Some(count) = count
        && (count == 0 || !count.is_multiple_of(32))
    {
        let what =
            format!("barrier {id} is used with {count} threads; it must be a multiple of 32");
        return Err(w.fail(ErrorKind::InvalidValue, pc, &what));
    }
    let rank = warp.rank;
    let block_index = g.blocks[rank].index;
    let barrier = &mut g.blocks[rank].barriers[id as usize];
    if w.launch.checks.sync && barrier.arrived > 0 && barrier.expected != count {
        let instance = Instance::new(block_index, warp.thread(lane));
        w.findings
            .add(FindingKind::BarrierMismatch, pc, 0, instance);
    }
    barrier.expected = count;
    barrier.arrived += mask.count_ones();
    barrier.last = (pc, warp.thread(lane));
    if let BarrierKind::Reduce(_) = kind {
        let predicate = warp.registers.predicates[s[s.len() - 1] as usize];
        barrier.votes[0] += (predicate & mask).count_ones();
        barrier.votes[1] += (!predicate & mask).count_ones();
    }
    let generation = barrier.generation;
    w.changes += 1;
    if w.launch.checks.race {
        g.synchronise(warp, mask);
        // The clock after the tick covers all that came before the arrival.
        let slot = g.slot(rank, warp.index);
        let arrivals = &mut g.blocks[rank].barriers[id as usize].arrivals;
        arrivals.take_from(warp, slot, mask);
    }
    let block = &mut g.blocks[rank];
    if complete(&mut block.barriers[id as usize], block.threads)
        && count.is_none()
        && block.exited > 0
    {
        find_exited(w, block, id as usize);
    }
    Ok((kind != BarrierKind::Arrive).then_some(Wait::Barrier {
        id: id as u8,
        generation,
    }))
}

/// A barrier for all threads was passed without those that had exited.
fn find_exited(w: &mut Worker<'_>, block: &Block, id: usize) {
    if w.launch.checks.sync {
        let (pc, thread) = block.barriers[id].last;
        // Hardware does not wait for them; kernels that mean it are rare.
        let instance = Instance::new(block.index, thread);
        w.findings.add_with(
            FindingKind::BarrierAfterExit,
            Severity::Warning,
            pc,
            0,
            instance,
        );
    }
}

/// Ends the phase of a barrier at which all have arrived; whether they have.
pub(super) fn complete(barrier: &mut Barrier, threads: u32) -> bool {
    let is_complete = barrier.arrived > 0 && barrier.arrived >= barrier.expected.unwrap_or(threads);
    if is_complete {
        barrier.generation += 1;
        barrier.arrived = 0;
        barrier.result = std::mem::take(&mut barrier.votes);
        barrier
            .released
            .join(&std::mem::take(&mut barrier.arrivals));
    }
    is_complete
}

/// Threads that exit are not waited for.
pub(super) fn after_exit(w: &mut Worker<'_>, g: &mut Group, rank: usize) {
    let block = &mut g.blocks[rank];
    let threads = block.threads;
    for id in 0..block.barriers.len() {
        let barrier = &mut block.barriers[id];
        if barrier.expected.is_none() && threads > 0 && complete(barrier, threads) {
            find_exited(w, block, id);
        }
    }
    let all: u32 = g.blocks.iter().map(|block| block.threads).sum();
    if all > 0 {
        complete(&mut g.barrier, all);
    }
}

/// Lets the splits of a warp go on whose barrier is complete.
pub(super) fn wake(w: &Worker<'_>, g: &mut Group, warp: &mut Warp) {
    let mut splits = std::mem::take(&mut warp.splits);
    let slot = g.slot(warp.rank, warp.index);
    for split in &mut splits {
        match split.wait {
            Wait::Ready | Wait::Together | Wait::Members(_) => {}
            Wait::Barrier { id, generation } => {
                let barrier = &g.blocks[warp.rank].barriers[usize::from(id)];
                if barrier.generation != generation {
                    barrier.released.give_to(warp, slot, split.mask);
                    reduce(w, &g.blocks[warp.rank], warp, split.pc, split.mask, id);
                    split.wait = Wait::Ready;
                    split.pc += 1;
                }
            }
            Wait::Cluster { generation } => {
                if g.barrier.generation != generation {
                    g.barrier.released.give_to(warp, slot, split.mask);
                    split.wait = Wait::Ready;
                    split.pc += 1;
                }
            }
            Wait::Warpgroup { target } => {
                if super::wgmma::others_have_started(g, warp, target) {
                    split.wait = Wait::Ready;
                }
            }
            Wait::Registers { count } => {
                let budget = &g.blocks[warp.rank].budget;
                if budget.as_ref().is_some_and(|budget| budget.has(count)) {
                    split.wait = Wait::Ready;
                }
            }
            // The instruction looks again.
            Wait::Phase { seen, .. } => {
                if super::mbarrier::may_go_on(g, seen) {
                    split.wait = Wait::Ready;
                }
            }
        }
    }
    warp.splits = splits;
}

/// Delivers the result of `bar.red`.
fn reduce(w: &Worker<'_>, block: &Block, warp: &mut Warp, pc: u32, mask: u32, id: u8) {
    let code = &w.launch.kernel.code;
    let inst = &code.instructions[pc as usize];
    let crate::program::op::Op::Barrier {
        kind: BarrierKind::Reduce(reduction),
        ..
    } = inst.op
    else {
        return;
    };
    let [yes, no] = block.barriers[usize::from(id)].result;
    let row = code.registers(inst)[0];
    match reduction {
        Reduction::Count => warp.registers.write32(row, &[yes; 32], mask),
        Reduction::All => {
            warp.registers
                .write_predicate(row, if no == 0 { u32::MAX } else { 0 }, mask)
        }
        Reduction::Any => {
            warp.registers
                .write_predicate(row, if yes > 0 { u32::MAX } else { 0 }, mask)
        }
    }
}

/// `barrier.cluster.arrive`.
pub(super) fn cluster_arrive(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    mask: u32,
    relaxed: bool,
) {
    w.changes += 1;
    g.barrier.arrived += mask.count_ones();
    warp.cluster_arrival = Some(g.barrier.generation);
    if w.launch.checks.race && !relaxed {
        g.synchronise(warp, mask);
        let slot = g.slot(warp.rank, warp.index);
        g.barrier.arrivals.take_from(warp, slot, mask);
    } else {
        // A relaxed arrival releases what a fence before it covers, as `fence.mbarrier_init` does.
        let fenced = warp.lanes.fenced(mask);
        for held in fenced.filter(|held| held.scope >= Scope::Cluster) {
            g.barrier.arrivals.clock.join(&held.clock);
        }
    }
    let all: u32 = g.blocks.iter().map(|block| block.threads).sum();
    complete(&mut g.barrier, all);
}

/// A block that ends takes its shared memory with it: accesses of other blocks must be before that.
pub(super) fn find_visitors(w: &mut Worker<'_>, block: &mut Block, thread: u32, pc: u32) {
    for (slot, visit) in std::mem::take(&mut block.visitors) {
        if w.launch.checks.race && !block.exit_clock.covers(slot, visit.time) {
            let instance = Instance {
                space: Some("shared"),
                other: Some((block.index, thread)),
                ..Instance::new(visit.thread.0, visit.thread.1)
            };
            w.findings
                .add(FindingKind::UseAfterFree, visit.pc, pc, instance);
        }
    }
}

/// `fence.proxy.async`: what is before it can be read by asynchronous operations.
pub(super) fn fence_proxy(g: &mut Group, warp: &mut Warp, mask: u32) {
    if warp.clock.is_kept() {
        g.advance(warp);
        warp.fence_proxy(mask);
    }
}

/// `membar` and `fence`.
pub(super) fn fence(g: &mut Group, warp: &mut Warp, mask: u32, scope: Scope) {
    if warp.clock.is_kept() {
        warp.fence(g, mask, scope);
    }
}

/// An instruction for the whole warp is executed by a part of it.
#[cold]
pub(super) fn find_divergence(w: &mut Worker<'_>, g: &Group, warp: &Warp, mask: u32, pc: u32) {
    if w.launch.checks.sync {
        w.find(
            FindingKind::DivergentInstruction,
            pc,
            g.blocks[warp.rank].index,
            warp.index,
            mask,
        );
    }
}
