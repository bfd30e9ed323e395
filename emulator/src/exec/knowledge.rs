//! What the lanes of a warp know of the past of others, and can hand on: by the lane, and by how far fences and atomics reach.

use std::sync::Arc;

use super::state::{Group, Warp};
use crate::check::clock::Clock;
use crate::program::op::Scope;

/// A past that some lanes of a warp have a part in.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) lanes: u32,
    /// How far a fence reached; or how far away is what an atomic read.
    pub(crate) scope: Scope,
    pub(crate) clock: Arc<Clock>,
}

/// Entries that are remembered of a kind; beyond them the two oldest become one, which can hide a race and never makes one up.
const REMEMBERED: usize = 64;

/// Pasts of a kind, for different lanes and scopes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Shares(Vec<Held>);

impl Shares {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of these lanes.
    pub(crate) fn of(&self, lanes: u32) -> impl Iterator<Item = &Held> {
        self.0.iter().filter(move |held| held.lanes & lanes != 0)
    }

    /// Adds a past; `lenient` is the scope that hides most, for entries that become one.
    fn add(&mut self, lanes: u32, scope: Scope, clock: &Arc<Clock>, lenient: Scope) {
        let mut same = self.0.iter_mut();
        if let Some(held) = same.find(|held| (held.lanes, held.scope) == (lanes, scope)) {
            join_shared(&mut held.clock, clock);
            return;
        }
        if self.0.len() == REMEMBERED {
            let oldest = self.0.remove(0);
            let next = &mut self.0[0];
            (next.lanes, next.scope) = (next.lanes | oldest.lanes, lenient);
            join_shared(&mut next.clock, &oldest.clock);
        }
        let clock = Arc::clone(clock);
        self.0.push(Held {
            lanes,
            scope,
            clock,
        });
    }

    /// Lanes are in order: what one knows all do.
    fn spread(&mut self, lanes: u32) {
        let Some(first) = (self.0.iter()).position(|held| held.lanes & lanes != 0) else {
            return;
        };
        let held: Vec<Held> = self.0.drain(first..).collect();
        for Held {
            lanes: own,
            scope,
            clock,
        } in held
        {
            let lanes = if own & lanes == 0 { own } else { own | lanes };
            self.add(lanes, scope, &clock, scope);
        }
    }
}

/// What lanes of a warp know beside what all of them do.
#[derive(Debug, Default)]
pub(crate) struct LaneKnowledge {
    /// Before what these lanes do.
    known: Shares,
    /// What fences of theirs allow relaxed atomics to release.
    fenced: Shares,
    /// What relaxed atomics of theirs read, until a fence acquires it.
    acquired: Shares,
}

/// Joins a clock that may be shared with other warps and places.
pub(crate) fn join_shared(own: &mut Arc<Clock>, other: &Arc<Clock>) {
    if !Arc::ptr_eq(own, other) {
        Arc::make_mut(own).join(other);
    }
}

impl LaneKnowledge {
    /// What fences of these lanes allow to release.
    pub(crate) fn fenced(&self, lanes: u32) -> impl Iterator<Item = &Held> {
        self.fenced.of(lanes)
    }

    pub(crate) fn has_fenced(&self) -> bool {
        !self.fenced.is_empty()
    }

    pub(crate) fn has_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// A relaxed atomic of these lanes read what a thread at this distance released.
    pub(crate) fn read(&mut self, lanes: u32, distance: Scope, clock: &Arc<Clock>) {
        self.acquired.add(lanes, distance, clock, Scope::Block);
    }

    /// Whether a lane knows something by itself.
    #[inline(always)]
    pub(crate) fn knows(&self, lane: u32, is_known: impl Fn(&Clock) -> bool) -> bool {
        !self.known.is_empty() && self.known.of(1 << lane).any(|held| is_known(&held.clock))
    }
}

/// What a barrier hands on.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    pub(crate) clock: Clock,
    /// A fence before the barrier, and an atomic behind it by another thread, release together.
    fenced: Shares,
    /// An atomic before the barrier, and a fence behind it by another thread, acquire together.
    acquired: Shares,
}

impl Knowledge {
    pub(crate) fn join(&mut self, other: &Self) {
        self.clock.join(&other.clock);
        for held in &other.fenced.0 {
            (self.fenced).add(held.lanes, held.scope, &held.clock, Scope::Device);
        }
        for held in &other.acquired.0 {
            (self.acquired).add(held.lanes, held.scope, &held.clock, Scope::Block);
        }
    }

    /// Takes what lanes of a warp bring.
    pub(crate) fn take_from(&mut self, warp: &Warp, slot: u32, lanes: u32) {
        warp.release_to(&mut self.clock, slot, lanes);
        for held in warp.lanes.fenced.of(lanes) {
            (self.fenced).add(u32::MAX, held.scope, &held.clock, Scope::Device);
        }
        for held in warp.lanes.acquired.of(lanes) {
            (self.acquired).add(u32::MAX, held.scope, &held.clock, Scope::Block);
        }
    }

    /// Gives lanes of a warp what the others brought.
    pub(crate) fn give_to(&self, warp: &mut Warp, slot: u32, lanes: u32) {
        warp.acquire(&self.clock, slot, lanes);
        for held in &self.fenced.0 {
            (warp.lanes.fenced).add(lanes, held.scope, &held.clock, Scope::Device);
        }
        for held in &self.acquired.0 {
            warp.lanes.read(lanes, held.scope, &held.clock);
        }
    }
}

impl Warp {
    /// What was released is before what these lanes do from here on.
    pub(crate) fn acquire(&mut self, released: &Clock, slot: u32, lanes: u32) {
        let live = self.live();
        if !released.is_kept() {
            return;
        }
        if lanes & live != live {
            let released = Arc::new(released.clone());
            (self.lanes.known).add(lanes, Scope::Device, &released, Scope::Device);
            return;
        }
        if let Some(times) = released.times_of(&self.clock) {
            self.order.raise(times.of(slot));
            for (lanes, time) in times.lanes_of(slot) {
                self.order.raise_lanes(time, lanes);
            }
        }
        self.clock.join(released);
    }

    /// What these lanes can release, at the beginning of a new interval.
    pub(crate) fn past(&self, slot: u32, lanes: u32) -> Clock {
        let mut clock = self.clock.clone();
        if lanes & self.live() != self.live() {
            clock.narrow(slot, lanes, &self.order);
        }
        for held in self.lanes.known.of(lanes) {
            clock.join(&held.clock);
        }
        clock
    }

    /// Joins to a clock what these lanes can release.
    pub(crate) fn release_to(&self, clock: &mut Clock, slot: u32, lanes: u32) {
        if lanes & self.live() == self.live() && self.lanes.known.is_empty() {
            clock.join(&self.clock);
        } else {
            clock.join(&self.past(slot, lanes));
        }
    }

    /// These lanes are in order: what one of them knows all do.
    pub(crate) fn share(&mut self, slot: u32, lanes: u32) {
        self.lanes.fenced.spread(lanes);
        self.lanes.acquired.spread(lanes);
        if self.lanes.known.is_empty() {
            return;
        }
        self.lanes.known.spread(lanes);
        let live = self.live();
        let known = std::mem::take(&mut self.lanes.known.0);
        let (of_all, of_some) = known
            .into_iter()
            .partition(|held| held.lanes & live == live);
        self.lanes.known.0 = of_some;
        for held in of_all {
            self.acquire(&held.clock, slot, live);
        }
    }

    /// A fence of these lanes: what their atomics read is acquired, what they did can be released by atomics.
    pub(crate) fn fence(&mut self, g: &mut Group, lanes: u32, scope: Scope) {
        let slot = g.slot(self.rank, self.index);
        let mut acquired = std::mem::take(&mut self.lanes.acquired.0);
        for held in acquired.iter_mut().filter(|held| held.scope <= scope) {
            if held.lanes & lanes != 0 {
                self.acquire(&held.clock, slot, held.lanes & lanes);
                held.lanes &= !lanes;
            }
        }
        acquired.retain(|held| held.lanes & self.live() != 0);
        self.lanes.acquired.0 = acquired;
        g.advance(self);
        let past = Arc::new(self.past(slot, lanes));
        // What an earlier fence of these lanes covers this one does too.
        let fenced = &mut self.lanes.fenced;
        (fenced.0).retain(|held| held.lanes & !lanes != 0 || held.scope > scope);
        fenced.add(lanes, scope, &past, Scope::Device);
    }

    /// `fence.proxy.async` by these lanes.
    pub(crate) fn fence_proxy(&mut self, lanes: u32) {
        self.clock.fence_proxy();
        for held in (self.lanes.known.0.iter_mut()).filter(|held| held.lanes & lanes != 0) {
            Arc::make_mut(&mut held.clock).fence_proxy();
        }
    }
}
