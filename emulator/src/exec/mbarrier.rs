//! Barriers in shared memory that count arrivals and bytes.

use std::sync::Arc;

use super::memory::{Site, addresses, fill_inactive, lanes};
use super::observe::{self, Memory};
use super::state::{Block, Group, Warp, Worker};
use super::{bulk, copy, order};
use crate::check::clock::Clock;
use crate::check::finding::{FindingKind, Instance};
use crate::error::Error;
use crate::memory::window;
use crate::program::op::{MbarrierOp, Scope, Space};
use crate::program::op_async::At;

/// An mbarrier. Where it lies in shared memory is an opaque word; what it is, is here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase {
    /// Arrivals of a phase.
    expected: u32,
    /// Arrivals that the phase still needs.
    pending: u32,
    /// Bytes that the phase still needs; below zero where more have arrived than were announced.
    bytes: i64,
    /// Phases completed.
    number: u64,
    clock: Clock,
    released: Clock,
    /// The last instruction that changed it, and its thread.
    pc: u32,
    thread: u32,
    /// Instruction, slot of the warp, time and thread of its initialisation.
    init: (u32, u32, u32, u32),
    /// A fence has made the initialisation visible to asynchronous operations.
    is_shown: bool,
}

/// Arrivals and bytes that a barrier counts to at most.
const LARGEST: u32 = (1 << 20) - 1;

/// What the warp does next.
#[derive(Debug)]
pub(super) enum Next {
    GoOn,
    /// Let others run: a test that failed is made again.
    Poll {
        address: u32,
    },
    /// These lanes wait for the phase of a barrier at this address.
    Wait {
        mask: u32,
        address: u32,
        seen: u64,
    },
}

/// Whether something happened to the group's barriers since a warp began to wait.
pub(super) fn may_go_on(g: &Group, seen: u64) -> bool {
    g.bulk.version != seen
}

/// Why a warp waits, for a report.
pub(super) fn describe(block: &Block, address: u32) -> String {
    match block.mbarriers.get(&address) {
        Some(phase) => format!(
            "waits for phase {} of the mbarrier at 0x{address:x}, which needs {} more arrivals and {} more bytes",
            phase.number, phase.pending, phase.bytes
        ),
        None => format!("waits for the mbarrier at 0x{address:x}, which is not initialised"),
    }
}

impl Phase {
    /// Ends the phase if nothing is missing.
    fn complete(&mut self) -> bool {
        let is_complete = self.pending == 0 && self.bytes == 0;
        if is_complete {
            self.number += 1;
            self.pending = self.expected;
            self.released.join(&std::mem::take(&mut self.clock));
        }
        is_complete
    }

    /// The state that an arrival returns: the phase it belongs to, and what was pending.
    fn state(&self) -> u64 {
        self.number << 20 | u64::from(self.pending)
    }

    fn has_passed(&self, parity: bool, value: u64) -> bool {
        if parity {
            self.number & 1 != value & 1
        } else {
            self.number > value >> 20
        }
    }
}

/// Bytes of a bulk copy have arrived.
pub(super) fn deliver(
    w: &mut Worker<'_>,
    g: &mut Group,
    rank: usize,
    address: u32,
    bytes: u64,
    clock: &Clock,
) {
    w.changes += 1;
    g.bulk.version += 1;
    if let Some(phase) = g.blocks[rank].mbarriers.get_mut(&address) {
        phase.bytes -= bytes as i64;
        phase.clock.join(clock);
        phase.complete();
    }
}

/// Copies of a thread have arrived, which count as arrivals.
pub(super) fn deliver_arrivals(
    w: &mut Worker<'_>,
    g: &mut Group,
    rank: usize,
    address: u32,
    count: u32,
    clock: &Clock,
) {
    w.changes += 1;
    g.bulk.version += 1;
    if let Some(phase) = g.blocks[rank].mbarriers.get_mut(&address) {
        phase.pending = phase.pending.saturating_sub(count);
        phase.clock.join(clock);
        phase.complete();
    }
}

/// Barriers of a block whose bytes do not add up when it ends, or when nothing goes on.
pub(super) fn find_unbalanced(w: &mut Worker<'_>, block: &Block) {
    if !w.launch.checks.sync {
        return;
    }
    for (&address, phase) in block.mbarriers.iter().filter(|(_, phase)| phase.bytes != 0) {
        let instance = Instance {
            address: Some(u64::from(address)),
            space: Some("shared"),
            bytes: 8,
            ..Instance::new(block.index, phase.thread)
        };
        w.findings
            .add(FindingKind::ExpectedBytes, phase.pc, 0, instance);
    }
}

/// The barrier a lane means: rank of the block, and offset. `None` where it is not a place for one, which is reported.
fn locate(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    at: &At,
    address: u64,
    lane: usize,
    pc: u32,
) -> Result<Option<(usize, u32)>, Error> {
    let address = if at.space == Space::Generic {
        address.wrapping_sub(window::SHARED)
    } else {
        address
    };
    let rank = observe::rank_of(warp, address, None);
    let offset = address & ((1 << observe::RANK_SHIFT) - 1);
    let size = g
        .blocks
        .get(rank)
        .map_or(0, |block| block.shared.len() as u64);
    let what = Memory {
        space: "shared",
        address,
        bytes: 8,
        allocation: Some((0, size)),
    };
    let is_gone = rank != warp.rank && g.blocks.get(rank).is_some_and(|block| block.threads == 0);
    if is_gone {
        observe::illegal(w, g, warp, lane, FindingKind::UseAfterFree, what, pc)?;
        return Ok(None);
    }
    if address >> 32 != 0 || offset + 8 > size {
        observe::illegal(w, g, warp, lane, FindingKind::OutOfBounds, what, pc)?;
        return Ok(None);
    }
    if !offset.is_multiple_of(8) {
        observe::illegal(w, g, warp, lane, FindingKind::Misaligned, what, pc)?;
        return Ok(None);
    }
    Ok(Some((rank, offset as u32)))
}

/// A barrier is used in a way it cannot be.
fn misuse(w: &mut Worker<'_>, g: &Group, warp: &Warp, lane: usize, offset: u32, pc: u32) {
    if w.launch.checks.sync {
        let what = Memory {
            space: "shared",
            address: u64::from(offset),
            bytes: 8,
            allocation: None,
        };
        observe::report(w, g, warp, lane, FindingKind::MbarrierMisuse, what, pc);
    }
}

pub(super) fn execute(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    op: &MbarrierOp,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<Next, Error> {
    match *op {
        MbarrierOp::Init(at) | MbarrierOp::Invalidate(at) => {
            let is_init = matches!(op, MbarrierOp::Init(_));
            let all = addresses(&warp.registers, r[0], at.wide, at.offset, mask);
            for lane in lanes(mask) {
                let Some((rank, offset)) = locate(w, g, warp, &at, all[lane], lane, pc)? else {
                    continue;
                };
                // The barrier's word is written: by an ordinary store, as far as others are concerned.
                let site = Site {
                    pc,
                    mask: 1 << lane,
                    bytes: 8,
                    is_write: true,
                    is_atomic: false,
                };
                let place = [u64::from(offset); 32];
                if rank == warp.rank {
                    let requests = w.counters[pc as usize];
                    let found = observe::shared(w, g, warp, &place, site, Space::Shared)?;
                    w.counters[pc as usize] = requests;
                    if w.launch.checks.race {
                        super::race::race_shared(w, g, warp, &place, &found, site, |_, _, _, _| {
                            false
                        });
                    }
                }
                if is_init {
                    let count = warp.registers.r32(r[1])[lane];
                    let slot = g.slot(warp.rank, warp.index);
                    let thread = warp.thread(lane);
                    let phase = Phase {
                        expected: count,
                        pending: count,
                        pc,
                        thread,
                        init: (pc, slot, warp.clock.of(slot), thread),
                        ..Phase::default()
                    };
                    let before = g.blocks[rank].mbarriers.insert(offset, phase);
                    // What holds a barrier has to be invalidated before it holds another.
                    if count == 0 || count > LARGEST || before.is_some() {
                        misuse(w, g, warp, lane, offset, pc);
                    }
                } else if g.blocks[rank].mbarriers.remove(&offset).is_none() {
                    misuse(w, g, warp, lane, offset, pc);
                }
            }
            w.changes += 1;
            Ok(Next::GoOn)
        }
        MbarrierOp::Arrive {
            at,
            has_count,
            expects,
            drops,
            returns,
            relaxed,
            no_complete,
        } => {
            let s = &r[usize::from(returns)..];
            let all = addresses(&warp.registers, s[0], at.wide, at.offset, mask);
            let mut states = [0; 32];
            if !relaxed && w.launch.checks.race {
                // What came before the arrival is released; what follows is not.
                g.advance(warp);
            }
            // Of some lanes, that is their own past.
            let is_part = mask != warp.live() || warp.lanes.has_known();
            let is_part = is_part && w.launch.checks.race;
            let past = is_part.then(|| warp.past(g.slot(warp.rank, warp.index), mask));
            for lane in lanes(mask) {
                let Some((rank, offset)) = locate(w, g, warp, &at, all[lane], lane, pc)? else {
                    continue;
                };
                read_check(w, g, warp, rank, offset, lane, pc);
                let now = warp.clock.of(g.slot(warp.rank, warp.index));
                g.visit(rank, warp, lane, now - u32::from(!relaxed && now > 0), pc);
                let value = if has_count {
                    warp.registers.r32(s[1])[lane]
                } else {
                    1
                };
                let (count, bytes) = if expects {
                    (1, i64::from(value))
                } else {
                    (value, 0)
                };
                let Some(phase) = g.blocks[rank].mbarriers.get_mut(&offset) else {
                    misuse(w, g, warp, lane, offset, pc);
                    continue;
                };
                states[lane] = phase.state();
                (phase.pc, phase.thread) = (pc, warp.thread(lane));
                phase.bytes += bytes;
                let is_wrong =
                    count == 0 || count > phase.pending || phase.bytes > i64::from(LARGEST);
                phase.pending = phase.pending.saturating_sub(count);
                if drops {
                    phase.expected = phase.expected.saturating_sub(count);
                }
                if !relaxed {
                    phase.clock.join(past.as_ref().unwrap_or(&warp.clock));
                } else {
                    for held in warp.lanes.fenced(1 << lane) {
                        phase.clock.join(&held.clock);
                    }
                }
                if phase.complete() && no_complete || is_wrong {
                    misuse(w, g, warp, lane, offset, pc);
                }
            }
            if returns {
                warp.registers.write64(r[0], &states, mask);
            }
            w.changes += 1;
            g.bulk.version += 1;
            Ok(Next::GoOn)
        }
        MbarrierOp::ExpectTx(at) | MbarrierOp::CompleteTx(at) => {
            let all = addresses(&warp.registers, r[0], at.wide, at.offset, mask);
            for lane in lanes(mask) {
                let Some((rank, offset)) = locate(w, g, warp, &at, all[lane], lane, pc)? else {
                    continue;
                };
                read_check(w, g, warp, rank, offset, lane, pc);
                let now = warp.clock.of(g.slot(warp.rank, warp.index));
                g.visit(rank, warp, lane, now, pc);
                let bytes = i64::from(warp.registers.r32(r[1])[lane]);
                let Some(phase) = g.blocks[rank].mbarriers.get_mut(&offset) else {
                    misuse(w, g, warp, lane, offset, pc);
                    continue;
                };
                (phase.pc, phase.thread) = (pc, warp.thread(lane));
                phase.bytes += if matches!(op, MbarrierOp::ExpectTx(_)) {
                    bytes
                } else {
                    -bytes
                };
                let is_wrong = phase.bytes.unsigned_abs() > u64::from(LARGEST);
                phase.complete();
                if is_wrong {
                    misuse(w, g, warp, lane, offset, pc);
                }
            }
            w.changes += 1;
            g.bulk.version += 1;
            Ok(Next::GoOn)
        }
        MbarrierOp::Wait {
            at,
            parity,
            may_wait,
            relaxed,
        } => wait(w, g, warp, &at, parity, may_wait, relaxed, r, mask, pc),
        MbarrierOp::PendingCount => {
            let counts = warp
                .registers
                .r64(r[1])
                .map(|state| state as u32 & 0xf_ffff);
            warp.registers.write32(r[0], &counts, mask);
            Ok(Next::GoOn)
        }
        MbarrierOp::ArriveOnCopies { at, noinc } => {
            let all = addresses(&warp.registers, r[0], at.wide, at.offset, mask);
            let mut rest = mask;
            while rest != 0 {
                let first = rest.trailing_zeros() as usize;
                let same = lanes(rest)
                    .filter(|&lane| all[lane] == all[first])
                    .fold(0, |same, lane| same | 1u32 << lane);
                rest &= !same;
                let Some((rank, offset)) = locate(w, g, warp, &at, all[first], first, pc)? else {
                    continue;
                };
                read_check(w, g, warp, rank, offset, first, pc);
                let Some(phase) = g.blocks[rank].mbarriers.get_mut(&offset) else {
                    misuse(w, g, warp, first, offset, pc);
                    continue;
                };
                (phase.pc, phase.thread) = (pc, warp.thread(first));
                if !noinc {
                    phase.pending += same.count_ones();
                }
                let batches = copy::take(warp, same);
                bulk::arrive_on_copies(w, g, warp, batches, (rank, offset), same);
            }
            w.changes += 1;
            g.bulk.version += 1;
            Ok(Next::GoOn)
        }
    }
}

/// A fence shows asynchronous operations the barriers whose initialisation the warp made, or knows.
pub(super) fn show(g: &mut Group, warp: &Warp, mask: u32) {
    let own = g.slot(warp.rank, warp.index);
    for block in &mut g.blocks {
        for phase in block.mbarriers.values_mut() {
            let (_, slot, time, _) = phase.init;
            let is_known = |clock: &Clock| clock.covers(slot, time);
            phase.is_shown |= slot == own
                || is_known(&warp.clock)
                || lanes(mask).any(|lane| warp.lanes.knows(lane as u32, is_known));
        }
    }
}

/// A barrier that a copy to a block will tell: it is in that block, initialised before, in order, and visible to the copy.
pub(super) fn check_signal(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    to: usize,
    (rank, offset): (usize, u32),
    lane: usize,
    pc: u32,
) {
    let phase = g.blocks.get(rank).map(|block| block.mbarriers.get(&offset));
    let Some(Some(phase)) = phase else {
        misuse(w, g, warp, lane, offset, pc);
        return;
    };
    if rank != to {
        misuse(w, g, warp, lane, offset, pc);
    }
    if !phase.is_shown && w.launch.checks.race {
        let what = Memory {
            space: "shared",
            address: u64::from(offset),
            bytes: 8,
            allocation: None,
        };
        let (init_pc, .., thread) = phase.init;
        let instance = Instance {
            other: Some((g.blocks[rank].index, thread)),
            ..observe::instance(g, warp, lane, what)
        };
        w.findings
            .add(FindingKind::MissingProxyFence, pc, init_pc, instance);
    }
    read_check(w, g, warp, rank, offset, lane, pc);
}

/// A barrier that is used was initialised before, in order.
fn read_check(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &Warp,
    rank: usize,
    offset: u32,
    lane: usize,
    pc: u32,
) {
    if !w.launch.checks.race || !g.blocks[rank].mbarriers.contains_key(&offset) {
        return;
    }
    let site = Site {
        pc,
        mask: 1 << lane,
        bytes: 8,
        is_write: false,
        is_atomic: true,
    };
    let found = observe::Shared {
        rank: Some(rank),
        mask: 1 << lane,
        offsets: [offset; 32],
    };
    let mut place = [u64::from(offset); 32];
    fill_inactive(&mut place, 1 << lane);
    super::race::race_shared(w, g, warp, &place, &found, site, |_, _, _, _| false);
}

fn wait(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &At,
    parity: bool,
    may_wait: bool,
    relaxed: bool,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<Next, Error> {
    let all = addresses(&warp.registers, r[1], at.wide, at.offset, mask);
    let (mut passed, mut waiting, mut address, mut delivered) = (0, 0, 0, false);
    for lane in lanes(mask) {
        let Some((rank, offset)) = locate(w, g, warp, at, all[lane], lane, pc)? else {
            passed |= 1 << lane;
            continue;
        };
        if rank != warp.rank || !g.blocks[rank].mbarriers.contains_key(&offset) {
            // Only barriers of the own block can be waited for.
            misuse(w, g, warp, lane, offset, pc);
            passed |= 1 << lane;
            continue;
        }
        if lane == mask.trailing_zeros() as usize {
            read_check(w, g, warp, rank, offset, lane, pc);
        }
        let value = warp.registers.lane(r[2], lane, !parity);
        let has_passed = |g: &Group| {
            g.blocks[rank]
                .mbarriers
                .get(&offset)
                .is_some_and(|phase| phase.has_passed(parity, value))
        };
        if has_passed(g) {
            passed |= 1 << lane;
            continue;
        }
        // Nothing arrives before somebody has to wait for it.
        delivered |= bulk::deliver_one(w, g, rank, offset);
        if may_wait {
            while !has_passed(g) && bulk::deliver_one(w, g, rank, offset) {}
            if has_passed(g) {
                passed |= 1 << lane;
                continue;
            }
        }
        waiting |= 1u32 << lane;
        address = offset;
    }
    if w.launch.checks.race {
        let slot = g.slot(warp.rank, warp.index);
        for (address, lanes) in order::by_address(&all, passed) {
            let offset = address as u32 & ((1 << observe::RANK_SHIFT) - 1);
            let Some(phase) = g.blocks[warp.rank].mbarriers.get(&offset) else {
                continue;
            };
            if relaxed {
                let released = Arc::new(phase.released.clone());
                warp.lanes.read(lanes, Scope::Block, &released);
            } else {
                warp.acquire(&phase.released, slot, lanes);
            }
        }
    }
    if may_wait {
        // Those that are given up fail; the others do not before their phase is complete.
        let given_up = waiting & warp.expired;
        warp.expired &= !mask;
        waiting &= !given_up;
        warp.registers
            .write_predicate(r[0], passed, passed | given_up);
        if waiting != 0 {
            return Ok(Next::Wait {
                mask: waiting,
                address,
                seen: g.bulk.version,
            });
        }
        return Ok(Next::GoOn);
    }
    warp.registers.write_predicate(r[0], passed, mask);
    if waiting != 0 && !delivered {
        Ok(Next::Poll { address })
    } else {
        Ok(Next::GoOn)
    }
}
