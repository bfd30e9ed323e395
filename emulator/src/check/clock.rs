//! Vector clocks: what of every other warp's past a warp knows to be before its present.

use super::times::{Groups, Times};

/// The moments up to which the past of every warp is known: of the warps of the own group (a cluster of blocks, or one block)
/// and, where blocks synchronise with one another, of other groups. An access at a time is known where the entry is later.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    group: u32,
    own: Times,
    /// As `own`, counting only what a fence of the asynchronous proxy covers.
    proxied: Vec<u32>,
    /// The least of the warps' entries in `own`.
    floor: u32,
    /// Filled only by synchronisation between groups.
    foreign: Groups,
}

/// Entries of a warp: its own, and those of the four kinds of asynchronous operations that it starts.
const KINDS: usize = 5;

impl Clock {
    /// Of a group with so many warps: behind the warps' entries are those of the asynchronous operations that each started.
    pub(crate) fn new(group: u32, warps: usize) -> Self {
        Self {
            group,
            own: Times::new(KINDS * warps),
            proxied: vec![0; KINDS * warps],
            floor: 0,
            foreign: Groups::default(),
        }
    }

    /// Whether time is kept at all: it is not where races are not looked for.
    #[inline(always)]
    pub(crate) fn is_kept(&self) -> bool {
        !self.own.warps.is_empty()
    }

    /// Of the asynchronous operations of a warp what began before a time is known.
    pub(crate) fn raise(&mut self, slot: u32, time: u32) {
        if let Some(own) = self.own.warps.get_mut(slot as usize) {
            *own = time.max(*own);
        }
    }

    /// Whether it is of a warp of a group.
    pub(crate) fn is_of(&self, group: u32) -> bool {
        self.is_kept() && self.group == group
    }

    /// What is known of the warps of a group.
    pub(crate) fn times_of(&self, other: &Self) -> Option<&Times> {
        if self.group == other.group {
            Some(&self.own)
        } else {
            self.foreign.get(other.group)
        }
    }

    /// What is known of a warp of the own group; of the warp itself, its present.
    #[inline(always)]
    pub(crate) fn of(&self, slot: u32) -> u32 {
        self.own.of(slot)
    }

    pub(crate) fn set(&mut self, slot: u32, time: u32) {
        if let Some(own) = self.own.warps.get_mut(slot as usize) {
            *own = time;
            self.raise_floor();
        }
    }

    fn raise_floor(&mut self) {
        let warps = self.own.warps.len() / KINDS;
        self.floor = self.own.warps[..warps].iter().copied().min().unwrap_or(0);
    }

    /// A time before which everything in the group is known.
    #[inline(always)]
    pub(crate) fn floor(&self) -> u32 {
        self.floor
    }

    /// What lanes of a warp can release of it: their own past, and what the warp's order says of the others.
    pub(crate) fn narrow(&mut self, slot: u32, mask: u32, order: &LaneOrder) {
        let now = self.of(slot);
        self.set(slot, order.all());
        self.own.add_lanes(slot, mask, now);
        for (time, lanes) in order.before(mask) {
            self.own.add_lanes(slot, lanes, time);
        }
    }

    /// Whether a moment of a lane of the own group is past.
    #[inline(always)]
    pub(crate) fn covers_lane(&self, slot: u32, lane: u32, time: u32) -> bool {
        self.own.covers(slot, lane, time)
    }

    /// Whether a moment of some lane of a warp of the own group is past.
    pub(crate) fn covers(&self, slot: u32, time: u32) -> bool {
        self.covers_all(slot, time) || self.own.lanes_of(slot).any(|(_, until)| time < until)
    }

    /// Whether a moment of all lanes of a warp of the own group is past.
    #[inline(always)]
    pub(crate) fn covers_all(&self, slot: u32, time: u32) -> bool {
        time < self.own.of(slot)
    }

    /// As [`Self::covers_all`], of another group.
    pub(crate) fn covers_all_foreign(&self, group: u32, slot: u32, time: u32) -> bool {
        let times = self.foreign.get(group);
        times.is_some_and(|times| time < times.of(slot))
    }

    /// Whether a moment of a warp of the own group is past, with a fence of the asynchronous proxy since.
    pub(crate) fn covers_proxied(&self, slot: u32, time: u32) -> bool {
        self.proxied
            .get(slot as usize)
            .is_some_and(|&known| time < known)
    }

    /// Whether a moment of another group is past.
    pub(crate) fn covers_foreign(&self, group: u32, slot: u32, lane: u32, time: u32) -> bool {
        let times = self.foreign.get(group);
        times.is_some_and(|times| times.covers(slot, lane, time))
    }

    /// Whether a moment of a lane is past, of whatever group.
    pub(crate) fn covers_of(&self, group: u32, slot: u32, lane: u32, time: u32) -> bool {
        if group == self.group {
            self.covers_lane(slot, lane, time)
        } else {
            self.covers_foreign(group, slot, lane, time)
        }
    }

    /// A fence of the asynchronous proxy: it covers everything known.
    pub(crate) fn fence_proxy(&mut self) {
        self.proxied.clone_from(&self.own.warps);
    }

    pub(crate) fn join(&mut self, other: &Self) {
        if !other.is_kept() {
            return;
        }
        if !self.is_kept() {
            *self = other.clone();
            return;
        }
        if other.group == self.group {
            self.own.join(&other.own);
            for (time, &other) in self.proxied.iter_mut().zip(&other.proxied) {
                *time = (*time).max(other);
            }
        } else {
            self.foreign.add(other.group, &other.own);
        }
        if let Some(times) = other.foreign.get(self.group) {
            self.own.join(times);
        }
        self.foreign.join(&other.foreign);
        self.raise_floor();
    }
}

/// When lanes of a warp were last in order with one another.
#[derive(Debug, Default)]
pub(crate) struct LaneOrder {
    /// All live lanes at once.
    all: u32,
    /// Some of them, since then.
    some: Vec<(u32, u32)>,
    /// What some did before a moment is before the present of all.
    past: Vec<(u32, u32)>,
}

/// Partial synchronisations that are remembered; beyond them the oldest counts for all lanes, which can hide a race and never
/// makes one up.
const REMEMBERED: usize = 64;

impl LaneOrder {
    /// The lanes of a mask are in order up to this moment.
    pub(crate) fn synchronise(&mut self, time: u32, mask: u32, live: u32) {
        if mask & live == live {
            self.all = time;
            self.some.clear();
            self.past.clear();
            return;
        }
        if self.some.len() == REMEMBERED {
            self.all = self.all.max(self.some.remove(0).0);
        }
        self.some.push((time, mask));
    }

    /// When all live lanes were last in order.
    pub(crate) fn all(&self) -> u32 {
        self.all
    }

    /// What the warp did before a moment is before its present, whichever lane did it.
    pub(crate) fn raise(&mut self, time: u32) {
        self.all = self.all.max(time);
    }

    /// As [`Self::raise`], of some lanes.
    pub(crate) fn raise_lanes(&mut self, time: u32, mask: u32) {
        if time <= self.all {
            return;
        }
        if let Some(entry) = self.past.iter_mut().find(|entry| entry.1 == mask) {
            entry.0 = time.max(entry.0);
            return;
        }
        if self.past.len() == REMEMBERED {
            self.all = self.all.max(self.past.remove(0).0);
        }
        self.past.push((time, mask));
    }

    /// What is before the present of lanes of a mask, beside what is before that of all: times and lanes.
    fn before(&self, mask: u32) -> impl Iterator<Item = (u32, u32)> {
        let some = self.some.iter().filter(move |entry| entry.1 & mask != 0);
        some.chain(&self.past).copied()
    }

    /// Whether what one lane did at a time is before the present of another.
    pub(crate) fn covers(&self, time: u32, lane: u32, other: u32) -> bool {
        let both = 1 << lane | 1 << other;
        time < self.all
            || self
                .past
                .iter()
                .any(|&(at, mask)| time < at && mask >> lane & 1 == 1)
            || self
                .some
                .iter()
                .rev()
                .any(|&(at, mask)| time < at && mask & both == both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knowledge_flows_through_a_release() {
        let (mut a, mut b) = (Clock::new(0, 2), Clock::new(7, 1));
        a.set(1, 5);
        let written = 5;
        // The releasing warp ends its interval, then publishes.
        a.set(1, 6);
        let published = a.clone();
        assert!(!b.covers_foreign(0, 1, 0, written));
        b.join(&published);
        assert!(b.covers_foreign(0, 1, 0, written));
        assert!(!b.covers_foreign(0, 1, 0, 6));
        let mut c = Clock::new(0, 2);
        c.join(&b);
        assert!(c.covers_lane(1, 0, written) && !c.covers_lane(1, 0, 6));
    }

    #[test]
    fn a_proxy_fence_covers_what_is_known() {
        let mut writer = Clock::new(0, 2);
        writer.set(0, 3);
        let written = 3;
        writer.set(0, 4);
        let mut issuer = Clock::new(0, 2);
        issuer.join(&writer);
        assert!(issuer.covers(0, written) && !issuer.covers_proxied(0, written));
        issuer.fence_proxy();
        assert!(issuer.covers_proxied(0, written));
    }

    #[test]
    fn a_lane_releases_its_own_past_and_what_it_synchronised_with() {
        let mut order = LaneOrder::default();
        order.synchronise(4, 0b0110, 0b1111);
        let mut clock = Clock::new(0, 1);
        clock.set(0, 9);
        clock.narrow(0, 0b0010, &order);
        assert!(clock.covers_lane(0, 1, 8) && clock.covers_lane(0, 2, 3));
        assert!(!clock.covers_lane(0, 2, 4) && !clock.covers_lane(0, 3, 3));
    }

    #[test]
    fn lanes_are_ordered_by_masks_that_hold_both() {
        let mut order = LaneOrder::default();
        order.synchronise(10, 0b0011, 0b1111);
        assert!(order.covers(9, 0, 1) && !order.covers(9, 0, 2) && !order.covers(10, 0, 1));
        order.synchronise(20, 0b1111, 0b1111);
        assert!(order.covers(19, 3, 2));
    }
}
