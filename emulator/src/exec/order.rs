//! What atomic and volatile accesses order: releases and acquires, by the address they are made at.

use super::memory::{Addresses, lanes};
use super::observe::{RANK_SHIFT, rank_of};
use super::state::{Group, Warp, Worker};
use crate::program::op::Order;

/// A place of shared memory as a key among global addresses.
fn shared_key(g: &Group, warp: &Warp, address: u64) -> u64 {
    let rank = rank_of(warp, address, None);
    let block = g.blocks.get(rank).map_or(0, |block| u64::from(block.index));
    1 << 63 | block << RANK_SHIFT | address & ((1 << RANK_SHIFT) - 1)
}

pub(super) fn acquire_global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    at: &Addresses,
    mask: u32,
    order: Order,
) {
    if w.launch.checks.race {
        for lane in lanes(mask) {
            acquire(w, warp, g.slot(warp.rank, warp.index), at[lane], order);
        }
    }
}

pub(super) fn acquire_shared(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    at: &Addresses,
    mask: u32,
    order: Order,
) {
    if w.launch.checks.race {
        for lane in lanes(mask) {
            acquire(
                w,
                warp,
                g.slot(warp.rank, warp.index),
                shared_key(g, warp, at[lane]),
                order,
            );
        }
    }
}

/// What was released at a place is before what comes: at once, or from the next fence on.
fn acquire(w: &Worker<'_>, warp: &mut Warp, slot: u32, key: u64, order: Order) {
    let Some(published) = w.published.get(&key) else {
        return;
    };
    if matches!(order, Order::Acquire | Order::AcquireRelease) {
        warp.acquire(published, slot);
    } else {
        warp.acquired.get_or_insert_default().join(published);
    }
}

pub(super) fn release_global(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &Addresses,
    mask: u32,
    order: Order,
    is_update: bool,
) {
    if w.launch.checks.race {
        for lane in lanes(mask) {
            release(w, g, warp, at[lane], order, is_update);
        }
    }
}

pub(super) fn release_shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &Addresses,
    mask: u32,
    order: Order,
    is_update: bool,
) {
    if w.launch.checks.race {
        for lane in lanes(mask) {
            let key = shared_key(g, warp, at[lane]);
            release(w, g, warp, key, order, is_update);
        }
    }
}

/// What came before is released at a place: all of it, or what the last fence covers. An update keeps what was there.
fn release(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    key: u64,
    order: Order,
    is_update: bool,
) {
    let clock = if matches!(order, Order::Release | Order::AcquireRelease) {
        let clock = warp.clock.clone();
        g.advance(warp);
        // The release covers what came before it: its own interval has ended.
        let mut covered = clock;
        let slot = g.slot(warp.rank, warp.index);
        covered.set(slot, warp.clock.of(slot));
        Some(covered)
    } else {
        warp.fenced.as_deref().cloned()
    };
    if is_update {
        if let Some(clock) = clock {
            w.published.entry(key).or_default().join(&clock);
        }
    } else if let Some(clock) = clock {
        w.published.insert(key, clock);
    } else {
        w.published.remove(&key);
    }
}
