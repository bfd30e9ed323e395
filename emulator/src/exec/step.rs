//! One split of a warp, instruction after instruction.

use super::schedule::merge;
use super::state::{Group, Split, Wait, Warp, Worker};
use super::{
    atomic, budget, bulk, collective, copy, matrix, mbarrier, memory, print, quick, special, sync,
    unwritten, wgmma,
};
use crate::error::{Error, ErrorKind};
use crate::program::op::{Fence, Inst, NO_GUARD, Op, Scope};

/// Backward branches after which a split that polls lets others run, and one that does not.
const POLLS: u32 = 64;
const TURNS: u32 = 1 << 9;
/// Instructions after which the next backward branch lets others run.
const INSTRUCTIONS: u64 = 1 << 18;

/// Whether a split has run long enough for others to have their turn.
fn is_tired(split: &Split, instructions: u64) -> bool {
    split.turns > if split.polling { POLLS } else { TURNS } || instructions > INSTRUCTIONS
}

/// Runs a split until it waits, yields or ends; what is left of it is put back into the warp.
pub(super) fn run(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    mut split: Split,
) -> Result<(), Error> {
    let kernel = w.launch.kernel;
    let code = &kernel.code;
    let checks_registers = w.launch.checks.init;
    let begin = warp.instructions;
    loop {
        let ends = quick::ends(w, warp);
        if code.quick[split.pc as usize].flags & ends == 0 && !warp.wgmma.in_flight() {
            let most = if split.polling { POLLS } else { TURNS };
            let mut turns = split.turns;
            quick::run(w, g, warp, &mut split, ends, &mut turns, most)?;
            split.turns = turns;
        }
        let pc = split.pc;
        if !warp.splits.is_empty() && code.leaders[pc as usize] {
            merge(warp, &mut split);
            if warp
                .splits
                .iter()
                .any(|other| other.wait == Wait::Ready && !other.yielded && other.pc < pc)
            {
                warp.splits.push(split);
                return Ok(());
            }
        }
        let inst: &Inst = &code.instructions[pc as usize];
        let mut mask = split.mask;
        if inst.guard != NO_GUARD {
            let guard = warp.registers.predicates[inst.guard as usize];
            mask &= if inst.guard_negated { !guard } else { guard };
        }
        let r = code.registers(inst);
        if checks_registers && inst.watched {
            unwritten::check(w, g, warp, inst, r, mask, split.mask, pc);
        }
        if warp.wgmma.in_flight() && w.launch.checks.race {
            wgmma::check_registers(w, g, warp, inst, r, mask, pc);
        }
        if inst.writes_operand && mask != 0 {
            wgmma::note_writes(warp, inst, r);
        }
        warp.instructions += 1;
        if mask != 0 && inst.op.converges() {
            let members = *warp.registers.r32(r[usize::from(inst.destinations)]);
            let live = warp.live();
            for (members, lanes) in by_members(&members, mask) {
                if members & live & !lanes != 0 {
                    warp.splits.push(Split {
                        mask: lanes,
                        wait: Wait::Members(members),
                        ..split
                    });
                    split.mask &= !lanes;
                    mask &= !lanes;
                }
            }
            if split.mask == 0 {
                return Ok(());
            }
        }
        if mask != warp.live() && mask != 0 && inst.op.is_aligned() && !split.alone {
            if split.mask != mask {
                warp.splits.push(Split {
                    pc: pc + 1,
                    mask: split.mask & !mask,
                    ..split
                });
            }
            warp.splits.push(Split {
                mask,
                wait: Wait::Together,
                ..split
            });
            return Ok(());
        }
        split.alone = false;
        let counters = &mut w.counters[pc as usize];
        counters.warps += 1;
        counters.threads += u64::from(mask.count_ones());
        split.pc += 1;
        if mask == 0 {
            continue;
        }
        if mask != warp.initial
            && inst.op.is_aligned()
            && (mask != warp.live() || inst.op.needs_all_lanes())
        {
            sync::find_divergence(w, g, warp, mask, pc);
        }
        let registers = &mut warp.registers;
        match &inst.op {
            Op::Nop | Op::Prefetch => {}
            op @ (Op::Int { .. }
            | Op::MulWide { .. }
            | Op::Mul24 { .. }
            | Op::Lop3(_)
            | Op::Prmt(_)
            | Op::Funnel { .. }
            | Op::Dp4a { .. }
            | Op::Dp2a { .. }
            | Op::Carry { .. }
            | Op::Float { .. }
            | Op::Approx { .. }
            | Op::ApproxHalf { .. }
            | Op::ApproxDouble { .. }
            | Op::Test { .. }
            | Op::Packed(_)
            | Op::Convert { .. }
            | Op::ConvertPack(_)
            | Op::ConvertUnpack(_)
            | Op::Mov(_)
            | Op::Pack { .. }
            | Op::Unpack { .. }
            | Op::Compare { .. }
            | Op::Set { .. }
            | Op::Select(_)
            | Op::Pred(_)) => quick::of_registers(registers, op, r, mask),
            Op::Special { register, width } => {
                special::read(w, g, warp, *register, *width, r[0], mask)
            }
            Op::Window { space, to_generic } => {
                special::window(registers, *space, *to_generic, r, mask)
            }
            Op::IsSpace(space) => special::is_space(registers, *space, r, mask),
            Op::MapAddress { wide, generic } => {
                special::map_address(registers, *wide, *generic, r, mask)
            }
            Op::ClusterRank { wide, generic } => {
                special::cluster_rank(warp, *wide, *generic, r, mask)
            }
            Op::Load(access) => {
                split.polling |= memory::is_poll(access);
                memory::load(w, g, warp, access, r, mask, pc)?;
            }
            Op::Store(access) => memory::store(w, g, warp, access, r, mask, pc)?,
            op @ Op::Atom {
                access, returns, ..
            } => {
                split.polling |= atomic::is_poll(access, *returns);
                atomic::execute(w, g, warp, op, r, mask, pc)?;
            }
            Op::Fence(Fence::Memory(scope)) => sync::fence(g, warp, mask, *scope),
            Op::Fence(Fence::Initialisation) => {
                sync::fence(g, warp, mask, Scope::Cluster);
                mbarrier::show(g, warp, mask);
            }
            Op::Fence(Fence::Proxy) => {
                sync::fence_proxy(g, warp, mask);
                mbarrier::show(g, warp, mask);
            }
            Op::Fence(Fence::Other) => {}
            Op::Shuffle { .. }
            | Op::Vote(_)
            | Op::Match { .. }
            | Op::Redux(_)
            | Op::Elect
            | Op::ActiveMask => {
                if inst.op.converges() {
                    let members = *registers.r32(r[usize::from(inst.destinations)]);
                    for (_, lanes) in by_members(&members, mask) {
                        collective::execute(registers, &inst.op, r, lanes);
                    }
                } else {
                    collective::execute(registers, &inst.op, r, mask);
                }
            }
            Op::WarpSync => {
                let members = *registers.r32(r[0]);
                for (members, lanes) in by_members(&members, mask) {
                    g.synchronise(warp, lanes & members);
                }
            }
            Op::Barrier {
                kind, has_count, ..
            } => {
                if let Some(wait) = sync::barrier(w, g, warp, *kind, *has_count, r, mask, pc)? {
                    if split.mask != mask {
                        warp.splits.push(Split {
                            mask: split.mask & !mask,
                            ..split
                        });
                    }
                    // It stands at its barrier until that completes.
                    warp.splits.push(Split::new(pc, mask, wait));
                    return Ok(());
                }
            }
            Op::ClusterArrive { relaxed, .. } => {
                sync::cluster_arrive(w, g, warp, mask, *relaxed);
            }
            Op::ClusterWait { .. } => {
                let Some(generation) = warp.cluster_arrival else {
                    return Err(w.fail(
                        ErrorKind::InvalidValue,
                        pc,
                        "barrier.cluster.wait without an arrival",
                    ));
                };
                if split.mask != mask {
                    warp.splits.push(Split {
                        mask: split.mask & !mask,
                        ..split
                    });
                }
                warp.splits
                    .push(Split::new(pc, mask, Wait::Cluster { generation }));
                return Ok(());
            }
            Op::Branch { target } => {
                let target = *target;
                let rest = split.mask & !mask;
                if target <= pc {
                    split.turns += 1;
                }
                if rest != 0 {
                    w.counters[pc as usize].divergent += 1;
                    // The lower side goes on.
                    let taken = Split {
                        pc: target,
                        mask,
                        ..split
                    };
                    let fallen = Split {
                        mask: rest,
                        ..split
                    };
                    let (now, later) = if target < fallen.pc {
                        (taken, fallen)
                    } else {
                        (fallen, taken)
                    };
                    warp.splits.push(later);
                    split = now;
                } else {
                    split.pc = target;
                }
                if is_tired(&split, warp.instructions - begin) {
                    warp.polled = split.polling;
                    warp.worked = !split.polling;
                    warp.splits.push(split.yielding());
                    return Ok(());
                }
            }
            Op::BranchTable { table } => {
                let table = &code.tables[*table as usize];
                split.turns += u32::from(table.iter().any(|&target| target <= pc));
                if is_tired(&split, 0) {
                    warp.polled = split.polling;
                    warp.worked = !split.polling;
                    split = split.yielding();
                }
                branch_table(warp, table, r[0], split, mask);
                return Ok(());
            }
            Op::Exit => {
                wgmma::before_exit(w, g, warp, mask);
                bulk::before_exit(w, g, warp, mask);
                copy::abandon(w, g, warp, mask);
                warp.exited |= mask;
                let slot = g.slot(warp.rank, warp.index);
                let block = &mut g.blocks[warp.rank];
                block.threads -= mask.count_ones();
                block.exited += mask.count_ones();
                warp.release_to(&mut block.exit_clock, slot, u32::MAX);
                if let (Some(budget), 0) = (&mut block.budget, warp.live()) {
                    budget.leave(warp.index);
                }
                if block.threads == 0 {
                    sync::find_visitors(w, block, warp.thread(mask.trailing_zeros() as usize), pc);
                }
                sync::after_exit(w, g, warp.rank);
                w.changes += 1;
                split.mask &= !mask;
                if split.mask == 0 {
                    return Ok(());
                }
            }
            Op::Trap => {
                let thread = warp.thread(mask.trailing_zeros() as usize);
                let by = w.launch.thread_name(g.blocks[warp.rank].index, thread);
                return Err(w.fail(ErrorKind::Trap, pc, &format!("trap in {by}")));
            }
            Op::Assert => return Err(print::assertion(w, g, warp, r, mask, pc)),
            Op::Sleep => {
                warp.polled = true;
                warp.splits.push(split.yielding());
                return Ok(());
            }
            Op::Print => print::print(w, g, warp, r, mask),
            op @ (Op::Mma(_) | Op::LoadMatrix { .. } | Op::StoreMatrix { .. } | Op::MoveMatrix) => {
                matrix::execute(w, g, warp, op, r, mask, pc)?;
            }
            op @ Op::CopyAsync { .. } => copy::start(w, g, warp, op, r, mask, pc)?,
            Op::CopyAsyncCommit => copy::commit(warp, mask),
            Op::CopyAsyncWait { keep } => copy::wait(w, g, warp, *keep, mask),
            Op::Mbarrier(op) => match mbarrier::execute(w, g, warp, op, r, mask, pc)? {
                mbarrier::Next::GoOn => {}
                mbarrier::Next::Poll { address } => {
                    warp.polled = true;
                    warp.tested = Some(address);
                    warp.splits.push(split.yielding());
                    return Ok(());
                }
                mbarrier::Next::Wait {
                    mask,
                    address,
                    seen,
                } => {
                    stand(w, warp, split, mask, Wait::Phase { address, seen });
                    return Ok(());
                }
            },
            Op::Bulk(op) => bulk::execute(w, g, warp, op, r, mask, pc)?,
            Op::Wgmma(op) => {
                if let Some(wait) = wgmma::execute(w, g, warp, op, r, mask, pc)? {
                    stand(w, warp, split, mask, wait);
                    return Ok(());
                }
            }
            Op::SetMaxRegisters { count, increases } => {
                if let Some(wait) = budget::set(w, g, warp, (*count, *increases), mask, pc) {
                    stand(w, warp, split, mask, wait);
                    return Ok(());
                }
            }
        }
    }
}

/// Lanes wait before an instruction that looks again when they are woken; the others of the split are past it.
fn stand(w: &mut Worker<'_>, warp: &mut Warp, split: Split, mask: u32, wait: Wait) {
    let pc = split.pc - 1;
    // It is executed once, however often it looks.
    let counters = &mut w.counters[pc as usize];
    counters.warps -= 1;
    counters.threads -= u64::from(mask.count_ones());
    if split.mask != mask {
        warp.splits.push(Split {
            mask: split.mask & !mask,
            ..split
        });
    }
    warp.splits.push(Split::new(pc, mask, wait));
}

/// The lanes of a mask by the member mask that each names: groups that meet by themselves, though at one instruction.
fn by_members(members: &[u32; 32], mask: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let first = members[rest.trailing_zeros() as usize & 31];
        let mut same = 0;
        for (lane, &other) in members.iter().enumerate() {
            same |= u32::from(other == first) << lane;
        }
        let lanes = rest & same;
        rest &= !same;
        (lanes != 0).then_some((first, lanes))
    })
}

/// `brx.idx`: each target takes its lanes.
fn branch_table(warp: &mut Warp, targets: &[u32], row: u32, split: Split, mask: u32) {
    let index = *warp.registers.r32(row);
    let rest = split.mask & !mask;
    if rest != 0 {
        warp.splits.push(Split {
            mask: rest,
            ..split
        });
    }
    let mut left = mask;
    while left != 0 {
        let value = index[left.trailing_zeros() as usize];
        let same = memory::lanes(left)
            .filter(|&lane| index[lane] == value)
            .fold(0, |m, lane| m | 1 << lane);
        left &= !same;
        let target = targets.get(value as usize).copied().unwrap_or(targets[0]);
        warp.splits.push(Split {
            pc: target,
            mask: same,
            ..split
        });
    }
}
