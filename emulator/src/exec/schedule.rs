//! Which split of which warp of which block runs next.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::state::{Group, Split, Wait, Warp, Worker};
use super::{step, sync};
use crate::error::{Error, ErrorKind};
use crate::program::op::Op;

/// Rounds in which every warp only polled and nothing was written, after which the launch is stuck.
const STUCK_ROUNDS: u32 = 4096;

/// How often in a row `try_wait` gives up because nothing else can happen, before that counts as stuck: a kernel may look for a
/// phase that needs what it does next, and a loop that waits for one that never comes looks again at once.
const EXPIRIES: u32 = 1024;

/// Instructions of a worker between two looks at the limits.
const LIMIT_INTERVAL: u64 = 1 << 16;

/// Runs one group to its end: nothing of it waits for another.
pub(super) fn run_alone(w: &mut Worker<'_>, mut group: Group) -> Result<(), Error> {
    let mut stuck = 0;
    let mut expiries = Expiries::default();
    while !group.is_done() {
        let before = w.changes;
        if round(w, &mut group)? || w.changes != before {
            stuck = 0;
            continue;
        }
        let groups = std::slice::from_mut(&mut group);
        if part_warps(groups) || expiries.expire(w.changes, groups) {
            continue;
        }
        stuck += 1;
        if is_blocked(&group) || stuck > STUCK_ROUNDS {
            return Err(deadlock(w, std::slice::from_ref(&group)));
        }
    }
    Ok(())
}

/// Runs all groups on one core, each as far as it gets: one that only waits for others lets the next begin.
pub(super) fn run_together(w: &mut Worker<'_>, resident_limit: usize) -> Result<(), Error> {
    let groups = w.launch.groups();
    let mut resident: Vec<Group> = Vec::new();
    let mut next = 0;
    let mut stuck = 0;
    let mut expiries = Expiries::default();
    while next < groups || !resident.is_empty() {
        let before = w.changes;
        let mut progressed = false;
        let mut index = 0;
        while index < resident.len() {
            progressed |= round(w, &mut resident[index])?;
            if resident[index].is_done() {
                resident.remove(index);
            } else {
                index += 1;
            }
        }
        if progressed || w.changes != before {
            stuck = 0;
            continue;
        }
        if next < groups && resident.len() < resident_limit {
            resident.push(Group::new(w.launch, next));
            next += 1;
            stuck = 0;
            continue;
        }
        if part_warps(&mut resident) || expiries.expire(w.changes, &mut resident) {
            continue;
        }
        stuck += 1;
        if !resident.is_empty() && (resident.iter().all(is_blocked) || stuck > STUCK_ROUNDS) {
            return Err(deadlock(w, &resident));
        }
    }
    Ok(())
}

/// Lets splits go on alone that wait for the rest of their warp, when nothing else can happen. Whether there were any.
fn part_warps(groups: &mut [Group]) -> bool {
    let warps = groups
        .iter_mut()
        .flat_map(|group| &mut group.blocks)
        .flat_map(|block| block.warps.iter_mut().flatten());
    let mut any = false;
    for split in warps
        .flat_map(|warp| &mut warp.splits)
        .filter(|split| split.wait == Wait::Together)
    {
        split.wait = Wait::Ready;
        split.alone = true;
        any = true;
    }
    any
}

/// How often waits for barriers were given up since something last changed.
#[derive(Debug, Default)]
struct Expiries {
    count: u32,
    changes: u64,
}

impl Expiries {
    /// Lets every `try_wait` that waits fail, as it may at any time. Whether there were any, and it makes sense.
    fn expire(&mut self, changes: u64, groups: &mut [Group]) -> bool {
        if self.changes != changes {
            (self.count, self.changes) = (0, changes);
        }
        self.count += 1;
        if self.count > EXPIRIES {
            return false;
        }
        let mut any = false;
        let warps = groups
            .iter_mut()
            .flat_map(|group| &mut group.blocks)
            .flat_map(|block| block.warps.iter_mut().flatten());
        for warp in warps {
            for split in &mut warp.splits {
                if let Wait::Phase { .. } = split.wait {
                    split.wait = Wait::Ready;
                    warp.expired |= split.mask;
                    any = true;
                }
            }
        }
        any
    }
}

fn is_blocked(group: &Group) -> bool {
    let warps = group
        .blocks
        .iter()
        .flat_map(|block| block.warps.iter().flatten());
    warps
        .flat_map(|warp| &warp.splits)
        .all(|split| split.wait != Wait::Ready)
}

/// Lets every warp run once; whether one did more than poll.
fn round(w: &mut Worker<'_>, g: &mut Group) -> Result<bool, Error> {
    let mut progressed = false;
    for rank in 0..g.blocks.len() {
        for index in 0..g.blocks[rank].warps.len() {
            // The warp is taken out, so that it and the rest of its group can be changed side by side.
            let Some(mut warp) = g.blocks[rank].warps[index].take() else {
                continue;
            };
            let result = if warp.splits.is_empty() {
                Ok(false)
            } else {
                run_warp(w, g, &mut warp)
            };
            g.blocks[rank].warps[index] = Some(warp);
            progressed |= result?;
        }
    }
    Ok(progressed)
}

/// Runs a warp until it waits, polls or ends. Whether it did more than poll.
fn run_warp(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp) -> Result<bool, Error> {
    let mut progressed = false;
    loop {
        sync::wake(w, g, warp);
        gather(w, g, warp);
        let ready = warp
            .splits
            .iter()
            .enumerate()
            .filter(|(_, s)| s.wait == Wait::Ready && !s.yielded);
        let Some((index, _)) = ready.min_by_key(|(_, split)| split.pc) else {
            for split in &mut warp.splits {
                split.yielded = false;
            }
            return Ok(progressed);
        };
        let mut split = warp.splits.swap_remove(index);
        // Others at the same place join.
        merge(warp, &mut split);
        let before = warp.instructions;
        step::run(w, g, warp, split)?;
        w.executed += warp.instructions - before;
        progressed |= !warp.polled;
        warp.polled = false;
        if w.executed >= LIMIT_INTERVAL {
            check_limits(w)?;
        }
    }
}

/// Adds what was executed to the launch's count, and gives up where a limit is reached.
pub(super) fn check_limits(w: &mut Worker<'_>) -> Result<(), Error> {
    let launch = w.launch;
    let executed = launch
        .executed
        .fetch_add(std::mem::take(&mut w.executed), Relaxed);
    let name = &launch.kernel.name;
    if executed > launch.max_instructions {
        let what = format!(
            "{name}: the limit of {} warp instructions is reached",
            launch.max_instructions
        );
        return Err(Error::new(ErrorKind::Limit, what));
    }
    if Instant::now() > launch.deadline {
        return Err(Error::new(
            ErrorKind::Limit,
            format!("{name}: the time limit of the launch is reached"),
        ));
    }
    Ok(())
}

/// Joins the ready splits at the same instruction.
#[inline]
pub(super) fn merge(warp: &mut Warp, split: &mut Split) {
    let mut index = 0;
    while index < warp.splits.len() {
        let other = warp.splits[index];
        if other.pc == split.pc && other.wait == Wait::Ready {
            split.mask |= other.mask;
            warp.splits.swap_remove(index);
        } else {
            index += 1;
        }
    }
}

/// Lets splits go on whose members have all arrived.
fn gather(w: &Worker<'_>, g: &mut Group, warp: &mut Warp) {
    let code = &w.launch.kernel.code;
    let is_sync = |pc: u32| matches!(code.instructions[pc as usize].op, Op::WarpSync);
    let live = warp.live();
    if let Some(&Split { pc, .. }) = warp
        .splits
        .iter()
        .find(|split| split.wait == Wait::Together)
    {
        let waits = |split: &Split| split.wait == Wait::Together && split.pc == pc;
        let arrived = warp
            .splits
            .iter()
            .filter(|s| waits(s))
            .fold(0, |mask, s| mask | s.mask);
        if arrived == live {
            warp.splits.clear();
            warp.splits.push(Split {
                pc,
                mask: live,
                wait: Wait::Ready,
                yielded: false,
                alone: false,
            });
        }
    }
    let mut index = 0;
    while index < warp.splits.len() {
        let Split {
            pc,
            wait: Wait::Members(members),
            ..
        } = warp.splits[index]
        else {
            index += 1;
            continue;
        };
        let waits = |split: &Split| {
            split.wait == Wait::Members(members)
                && (split.pc == pc || is_sync(split.pc) && is_sync(pc))
        };
        let arrived = warp
            .splits
            .iter()
            .filter(|s| waits(s))
            .fold(0, |mask, s| mask | s.mask);
        if members & live & !arrived != 0 {
            index += 1;
            continue;
        }
        if is_sync(pc) {
            for split in warp.splits.iter_mut().filter(|s| waits(s)) {
                split.wait = Wait::Ready;
                split.pc += 1;
            }
            g.synchronise(warp, arrived);
        } else {
            warp.splits.retain(|s| !waits(s));
            warp.splits.push(Split {
                pc,
                mask: arrived,
                wait: Wait::Ready,
                yielded: false,
                alone: false,
            });
        }
        index = 0;
    }
}

/// Every warp's place and what it waits for.
fn deadlock(w: &mut Worker<'_>, groups: &[Group]) -> Error {
    /// Lines of a report; what a launch of many blocks would add says the same again.
    const LINES: usize = 128;
    let kernel = w.launch.kernel;
    let mut lines = Vec::new();
    for group in groups {
        for block in &group.blocks {
            super::mbarrier::find_unbalanced(w, block);
            for warp in block.warps.iter().flatten() {
                for split in &warp.splits {
                    let (file, line) = kernel.place(split.pc);
                    let what = match split.wait {
                        Wait::Ready => match warp.tested {
                            Some(address) => super::mbarrier::describe(block, address),
                            None => "polls memory that nothing changes".to_owned(),
                        },
                        Wait::Together => "waits for the rest of its warp".to_owned(),
                        Wait::Members(members) => format!("waits for lanes {members:08x}"),
                        Wait::Barrier { id, .. } => {
                            let barrier = &block.barriers[usize::from(id)];
                            let expected = barrier.expected.unwrap_or(block.threads);
                            format!(
                                "waits at barrier {id}, where {} of {expected} threads have arrived",
                                barrier.arrived
                            )
                        }
                        Wait::Cluster { .. } => {
                            format!(
                                "waits at the cluster's barrier, where {} threads have arrived",
                                group.barrier.arrived
                            )
                        }
                        Wait::Warpgroup { .. } => "waits for wgmma, which the other warps of its warpgroup have not all started".to_owned(),
                        Wait::Phase { address, .. } => super::mbarrier::describe(block, address),
                    };
                    let (b, i) = (block.index, warp.index);
                    lines.push(format!(
                        "  {file}:{line}: block {b} warp {i} lanes {:08x} {what}",
                        split.mask
                    ));
                }
            }
        }
    }
    let more = lines.len().saturating_sub(LINES);
    lines.truncate(LINES);
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    Error::new(
        ErrorKind::Deadlock,
        format!("{}: deadlock:\n{}", kernel.name, lines.join("\n")),
    )
}
