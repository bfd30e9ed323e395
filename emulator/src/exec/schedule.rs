//! Which split of which warp of which block runs next.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::state::{Group, Split, Wait, Warp, Worker, coordinates};
use super::{step, sync};
use crate::check::finding::FindingKind;
use crate::error::{Error, ErrorKind};
use crate::program::op::Op;

/// Rounds in which warps only polled and nothing was written, after which the launch is stuck in any case. It is stuck sooner
/// where its state comes back: then it stays so.
const STUCK_ROUNDS: u32 = 1 << 20;

/// Rounds without a change before states are compared.
const QUIET_ROUNDS: u32 = 8;

/// How long blocks may wait before the next begins, though something is written meanwhile: rounds in which one polled.
const PATIENCE: u32 = 256;

/// What a turn without polling adds to those rounds: it is as long as many of them.
const LONG_TURN: u32 = 128;

/// How often in a row `try_wait` gives up because nothing else can happen, before that counts as stuck: a kernel may look for a
/// phase that needs what it does next, and a loop that waits for one that never comes looks again at once.
const EXPIRIES: u32 = 1024;

/// Instructions of a worker between two looks at the limits.
const LIMIT_INTERVAL: u64 = 1 << 12;

/// Looks for a state that was there before: nothing can come of it but itself.
#[derive(Debug, Default)]
struct Stillness {
    rounds: u32,
    /// A state, kept until so many rounds as are a power of two have passed.
    state: u64,
}

impl Stillness {
    /// After a round in which nothing changed that others see: whether nothing will ever happen. `ran`: a warp ran in it.
    fn is_final(&mut self, groups: &[Group], ran: bool) -> bool {
        self.rounds += 1;
        if !ran && groups.iter().all(is_blocked) || self.rounds > STUCK_ROUNDS {
            return true;
        }
        if self.rounds < QUIET_ROUNDS {
            return false;
        }
        let state = state(groups);
        if self.rounds > QUIET_ROUNDS && state == self.state {
            return true;
        }
        if self.rounds.is_power_of_two() {
            self.state = state;
        }
        false
    }
}

/// What decides how warps go on while memory stays as it is.
fn state(groups: &[Group]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let blocks = groups.iter().flat_map(|group| &group.blocks);
    for warp in blocks.flat_map(|block| block.warps.iter().flatten()) {
        for split in &warp.splits {
            (split.pc, split.mask, split.wait, split.alone).hash(&mut hasher);
        }
        if !warp.splits.is_empty() {
            warp.registers.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// What came of a round.
#[derive(Debug, Default)]
struct Round {
    /// A warp was interrupted in a long computation.
    worked: bool,
    /// A warp waited for what another does.
    polled: bool,
    /// A warp ran at all.
    ran: bool,
}

/// Runs one group to its end: nothing of it waits for another.
pub(super) fn run_alone(w: &mut Worker<'_>, mut group: Group) -> Result<(), Error> {
    let mut still = Stillness::default();
    let mut expiries = Expiries::default();
    while !group.is_done() {
        let before = w.changes;
        let Round { worked, ran, .. } = round(w, &mut group)?;
        if worked || w.changes != before {
            still = Stillness::default();
            continue;
        }
        let groups = std::slice::from_mut(&mut group);
        if expiries.expire(w.changes, groups) {
            continue;
        }
        if still.is_final(groups, ran) {
            if !part_warps(groups) {
                return Err(deadlock(w, groups));
            }
            still = Stillness::default();
        }
    }
    Ok(())
}

/// Runs all groups on one core, each as far as it gets: one that only waits for others lets the next begin.
pub(super) fn run_together(w: &mut Worker<'_>, resident_limit: usize) -> Result<(), Error> {
    let groups = w.launch.groups();
    let mut resident: Vec<Group> = Vec::new();
    let mut next = 0;
    let mut still = Stillness::default();
    let mut expiries = Expiries::default();
    let mut waited = 0;
    while next < groups || !resident.is_empty() {
        let before = w.changes;
        let (mut worked, mut ran) = (false, false);
        let mut index = 0;
        while index < resident.len() {
            let round = round(w, &mut resident[index])?;
            worked |= round.worked;
            ran |= round.ran;
            waited += u32::from(round.polled) + LONG_TURN * u32::from(round.worked);
            if resident[index].is_done() {
                resident.remove(index);
                waited = 0;
            } else {
                index += 1;
            }
        }
        let is_quiet = !worked && w.changes == before;
        if next < groups
            && resident.len() < resident_limit
            && (is_quiet || waited > PATIENCE * resident.len() as u32)
        {
            resident.push(Group::new(w.launch, next));
            next += 1;
            waited = 0;
            still = Stillness::default();
            continue;
        }
        if !is_quiet {
            still = Stillness::default();
        } else if expiries.expire(w.changes, &mut resident) {
            continue;
        } else if !resident.is_empty() && still.is_final(&resident, ran) {
            if !part_warps(&mut resident) {
                return Err(deadlock(w, &resident));
            }
            still = Stillness::default();
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

/// Lets every warp run once.
fn round(w: &mut Worker<'_>, g: &mut Group) -> Result<Round, Error> {
    let mut all = Round::default();
    for rank in 0..g.blocks.len() {
        for index in 0..g.blocks[rank].warps.len() {
            // The warp is taken out, so that it and the rest of its group can be changed side by side.
            let Some(mut warp) = g.blocks[rank].warps[index].take() else {
                continue;
            };
            let result = if warp.splits.is_empty() {
                Ok(())
            } else {
                run_warp(w, g, &mut warp, &mut all)
            };
            g.blocks[rank].warps[index] = Some(warp);
            result?;
        }
    }
    Ok(all)
}

/// Runs a warp until it waits, polls or ends.
fn run_warp(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    round: &mut Round,
) -> Result<(), Error> {
    let interval = LIMIT_INTERVAL.min(w.launch.max_instructions);
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
            return Ok(());
        };
        let mut split = warp.splits.swap_remove(index);
        // Others at the same place join.
        merge(warp, &mut split);
        let before = warp.instructions;
        round.ran = true;
        step::run(w, g, warp, split)?;
        w.executed += warp.instructions - before;
        round.polled |= std::mem::take(&mut warp.polled);
        round.worked |= std::mem::take(&mut warp.worked);
        if w.executed > interval {
            check_limits(w)?;
        }
    }
}

/// Adds what was executed to the launch's count, and gives up where a limit is reached.
pub(super) fn check_limits(w: &mut Worker<'_>) -> Result<(), Error> {
    let launch = w.launch;
    let more = std::mem::take(&mut w.executed);
    let executed = launch.executed.fetch_add(more, Relaxed) + more;
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
            split.turns = split.turns.max(other.turns);
            split.polling |= other.polling;
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
            warp.splits.push(Split::new(pc, live, Wait::Ready));
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
            g.synchronise(warp, arrived & members);
        } else {
            warp.splits.retain(|s| !waits(s));
            warp.splits.push(Split::new(pc, arrived, Wait::Ready));
        }
        index = 0;
    }
}

/// Every warp's place and what it waits for.
fn deadlock(w: &mut Worker<'_>, groups: &[Group]) -> Error {
    /// Lines of a report; what a launch of many blocks would add says the same again.
    const LINES: usize = 128;
    let kernel = w.launch.kernel;
    let place = |[x, y, z]: [u32; 3]| format!("({x}, {y}, {z})");
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
                        Wait::Registers { count } => {
                            if w.launch.checks.sync {
                                let kind = FindingKind::RegisterBudget;
                                w.find(kind, split.pc, block.index, warp.index, split.mask);
                            }
                            let budget = block.budget.as_ref();
                            budget.map_or_else(String::new, |budget| budget.describe(count))
                        }
                        Wait::Phase { address, .. } => super::mbarrier::describe(block, address),
                    };
                    let at = coordinates(block.index, w.launch.grid);
                    let first = warp.thread(split.mask.trailing_zeros() as usize);
                    let thread = coordinates(first, w.launch.block);
                    lines.push(format!(
                        "  {file}:{line}: block {} warp {} lanes {:08x} (from thread {}) {what}",
                        place(at),
                        warp.index,
                        split.mask,
                        place(thread)
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
