//! What atomic and volatile accesses order: releases and acquires, by the address they are made at.

use std::collections::HashMap;
use std::sync::Arc;

use super::knowledge::join_shared;
use super::memory::Addresses;
use super::observe::{RANK_SHIFT, rank_of};
use super::state::{Group, Warp, Worker};
use crate::check::clock::Clock;
use crate::program::op::{Access, Order, Scope};

/// The places that lanes of a mask access, with the lanes that access each.
pub(super) fn by_address(at: &Addresses, mask: u32) -> impl Iterator<Item = (u64, u32)> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let first = at[rest.trailing_zeros() as usize & 31];
        let mut same = 0;
        for (lane, &address) in at.iter().enumerate() {
            same |= u32::from(address == first) << lane;
        }
        let lanes = rest & same;
        rest &= !same;
        (lanes != 0).then_some((first, lanes))
    })
}

/// A place of a group's shared memory.
fn shared_key(warp: &Warp, address: u64) -> u64 {
    let rank = rank_of(warp, address, None) as u64;
    rank << RANK_SHIFT | address & ((1 << RANK_SHIFT) - 1)
}

/// What was released at places of memory.
pub(crate) type Published = HashMap<u64, Vec<Released>>;

/// What was released at a place, to those that a scope reaches.
#[derive(Debug)]
pub(crate) struct Released {
    scope: Scope,
    /// Group and rank of the block that did; none where several did.
    by: Option<(u32, usize)>,
    clock: Arc<Clock>,
}

impl Released {
    /// The narrowest scope that holds a block and the one that released. What several released counts as near to all of them,
    /// which can hide a race and never makes one up.
    fn distance(&self, g: &Group, rank: usize) -> Scope {
        match self.by {
            Some((group, _)) if group != g.index => Scope::Device,
            Some((_, by)) if by != rank => Scope::Cluster,
            _ => Scope::Block,
        }
    }
}

pub(super) fn acquire_global(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    at: &Addresses,
    mask: u32,
    access: &Access,
) {
    if w.launch.checks.race && !w.published.is_empty() {
        for (address, lanes) in by_address(at, mask) {
            acquire(w.published.get(&address), g, warp, lanes, access);
        }
    }
}

pub(super) fn acquire_shared(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    at: &Addresses,
    mask: u32,
    access: &Access,
) {
    if w.launch.checks.race && !g.published.is_empty() {
        for (address, lanes) in by_address(at, mask) {
            let key = shared_key(warp, address);
            acquire(g.published.get(&key), g, warp, lanes, access);
        }
    }
}

/// What was released at a place is before what comes: at once, or from the next fence on. Who released and who acquires must be
/// within the scope of both.
fn acquire(
    published: Option<&Vec<Released>>,
    g: &Group,
    warp: &mut Warp,
    lanes: u32,
    access: &Access,
) {
    for released in published.into_iter().flatten() {
        let distance = released.distance(g, warp.rank);
        if distance > released.scope.min(access.scope) {
            continue;
        }
        if matches!(access.order, Order::Acquire | Order::AcquireRelease) {
            warp.acquire(&released.clock, g.slot(warp.rank, warp.index), lanes);
        } else {
            warp.lanes.read(lanes, distance, &released.clock);
        }
    }
}

/// Of a write that was made. An update keeps what was released there before.
pub(super) fn release_global(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &Addresses,
    mask: u32,
    access: &Access,
    is_update: bool,
) {
    if w.launch.checks.race && mask != 0 && !is_mute(warp, access, is_update) {
        begin_release(g, warp, access);
        for (address, lanes) in by_address(at, mask) {
            publish(&mut w.published, address, g, warp, lanes, access, is_update);
        }
    }
}

/// As [`release_global`], of shared memory.
pub(super) fn release_shared(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    at: &Addresses,
    mask: u32,
    access: &Access,
    is_update: bool,
) {
    if w.launch.checks.race && mask != 0 && !is_mute(warp, access, is_update) {
        begin_release(g, warp, access);
        let mut published = std::mem::take(&mut g.published);
        for (address, lanes) in by_address(at, mask) {
            let key = shared_key(warp, address);
            publish(&mut published, key, g, warp, lanes, access, is_update);
        }
        g.published = published;
    }
}

fn releases(order: Order) -> bool {
    matches!(order, Order::Release | Order::AcquireRelease)
}

/// Whether a write neither releases nor ends what was released.
fn is_mute(warp: &Warp, access: &Access, is_update: bool) -> bool {
    is_update && !releases(access.order) && !warp.lanes.has_fenced()
}

/// The release covers what came before it: that interval ends.
fn begin_release(g: &mut Group, warp: &mut Warp, access: &Access) {
    if releases(access.order) {
        g.advance(warp);
    }
}

/// Notes what the writes of lanes to one place release: all that came before it, or what the last fences cover.
fn publish(
    published: &mut Published,
    key: u64,
    g: &Group,
    warp: &Warp,
    lanes: u32,
    access: &Access,
    is_update: bool,
) {
    if !is_update {
        published.remove(&key);
    }
    let by = (g.index, warp.rank);
    if releases(access.order) {
        let past = Arc::new(warp.past(g.slot(warp.rank, warp.index), lanes));
        add(published.entry(key).or_default(), access.scope, by, &past);
        return;
    }
    for held in warp.lanes.fenced(lanes) {
        let place = published.entry(key).or_default();
        add(place, held.scope.min(access.scope), by, &held.clock);
    }
}

/// Adds a release to those of a place.
fn add(place: &mut Vec<Released>, scope: Scope, by: (u32, usize), clock: &Arc<Clock>) {
    let is_alike =
        |old: &&mut Released| old.scope == scope && (old.by == Some(by) || scope == Scope::Device);
    match place.iter_mut().find(is_alike) {
        Some(old) => {
            if old.by != Some(by) {
                old.by = None;
            }
            join_shared(&mut old.clock, clock);
        }
        None => place.push(Released {
            scope,
            by: Some(by),
            clock: Arc::clone(clock),
        }),
    }
}
