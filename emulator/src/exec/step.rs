//! One split of a warp, instruction after instruction.

use super::schedule::merge;
use super::state::{Group, Split, Wait, Warp, Worker};
use super::{
    atomic, bulk, collective, copy, matrix, mbarrier, memory, print, quick, special, sync, wgmma,
};
use crate::check::finding::FindingKind;
use crate::error::{Error, ErrorKind};
use crate::program::op::{Fence, Inst, NO_GUARD, Op, WgmmaOp};

/// Backward branches after which a split that polls lets others run, and one that does not.
const POLLS: u32 = 64;
const TURNS: u32 = 1 << 16;

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
    let mut turns = 0u32;
    let mut polling = false;
    loop {
        let ends = quick::ends(w, warp);
        if code.quick[split.pc as usize].flags & ends == 0 && !warp.wgmma.in_flight() {
            let most = if polling { POLLS } else { TURNS };
            quick::run(w, g, warp, &mut split, ends, &mut turns, most)?;
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
            check_registers(w, g, warp, inst, r, mask, split.mask, pc);
        }
        if warp.wgmma.in_flight() && w.launch.checks.race {
            wgmma::check_registers(w, g, warp, inst, r, mask, pc);
        }
        if inst.writes_operand && mask != 0 {
            wgmma::note_writes(warp, inst, r);
        }
        warp.instructions += 1;
        if mask != 0 && inst.op.converges() {
            let members = warp.registers.r32(r[usize::from(inst.destinations)])
                [mask.trailing_zeros() as usize];
            if members & warp.live() & !mask != 0 {
                if split.mask != mask {
                    warp.splits.push(Split {
                        pc: pc + 1,
                        mask: split.mask & !mask,
                        ..split
                    });
                }
                warp.splits.push(Split {
                    mask,
                    wait: Wait::Members(members),
                    ..split
                });
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
                polling |= memory::is_poll(access);
                memory::load(w, g, warp, access, r, mask, pc)?;
            }
            Op::Store(access) => memory::store(w, g, warp, access, r, mask, pc)?,
            op @ Op::Atom {
                access, returns, ..
            } => {
                polling |= atomic::is_poll(access, *returns);
                atomic::execute(w, g, warp, op, r, mask, pc)?;
            }
            Op::Fence(Fence::Memory) => sync::fence(g, warp),
            Op::Fence(Fence::Initialisation) => {
                sync::fence(g, warp);
                mbarrier::show(g, warp);
            }
            Op::Fence(Fence::Proxy) => {
                sync::fence_proxy(g, warp);
                mbarrier::show(g, warp);
            }
            Op::Fence(Fence::Other) => {}
            Op::Shuffle { .. }
            | Op::Vote(_)
            | Op::Match { .. }
            | Op::Redux(_)
            | Op::Elect
            | Op::ActiveMask => {
                collective::execute(registers, &inst.op, r, mask);
            }
            Op::WarpSync => g.synchronise(warp, mask),
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
                    warp.splits.push(Split {
                        pc,
                        mask,
                        wait,
                        yielded: false,
                        alone: false,
                    });
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
                warp.splits.push(Split {
                    pc,
                    mask,
                    wait: Wait::Cluster { generation },
                    yielded: false,
                    alone: false,
                });
                return Ok(());
            }
            Op::Branch { target } => {
                let target = *target;
                let rest = split.mask & !mask;
                if target <= pc {
                    turns += 1;
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
                if turns > if polling { POLLS } else { TURNS } {
                    warp.polled = polling;
                    warp.splits.push(Split {
                        yielded: polling,
                        ..split
                    });
                    return Ok(());
                }
            }
            Op::BranchTable { table } => {
                branch_table(warp, &code.tables[*table as usize], r[0], split, mask);
                return Ok(());
            }
            Op::Exit => {
                wgmma::before_exit(w, g, warp, mask);
                bulk::before_exit(w, g, warp, mask);
                copy::abandon(w, g, warp, mask);
                warp.exited |= mask;
                let block = &mut g.blocks[warp.rank];
                block.threads -= mask.count_ones();
                block.exited += mask.count_ones();
                block.exit_clock.join(&warp.clock);
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
                let (block, thread) = (
                    g.blocks[warp.rank].index,
                    warp.thread(mask.trailing_zeros() as usize),
                );
                return Err(w.fail(
                    ErrorKind::Trap,
                    pc,
                    &format!("trap in block {block} thread {thread}"),
                ));
            }
            Op::Assert => return Err(print::assertion(w, g, warp, r, mask, pc)),
            Op::Sleep => {
                warp.polled = true;
                warp.splits.push(Split {
                    yielded: true,
                    ..split
                });
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
                    warp.splits.push(Split {
                        yielded: true,
                        ..split
                    });
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
            Op::SetMaxRegisters => {}
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
    warp.splits.push(Split {
        pc,
        mask,
        wait,
        yielded: false,
        alone: false,
    });
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

/// Reads of registers that a path reaches unwritten.
fn check_registers(
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
    if inst.guard != NO_GUARD && code.unwritten_predicates[inst.guard as usize] {
        missing |= all & !warp.registers.predicates_written[inst.guard as usize];
    }
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
        } else if code.unwritten_rows[row as usize] {
            missing |= mask & !warp.registers.written[row as usize];
        }
    }
    for (position, &row) in destinations.iter().enumerate() {
        if inst.op.destination_is_predicate(position) {
            warp.registers.predicates_written[row as usize] |= mask;
        } else {
            warp.registers.written[row as usize] |= mask;
        }
    }
    if missing != 0 {
        w.find(
            FindingKind::UninitialisedRegister,
            pc,
            g.blocks[warp.rank].index,
            warp.index,
            missing,
        );
    }
}
