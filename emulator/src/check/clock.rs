//! Vector clocks: what of every other warp's past a warp knows to be before its present.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The moments up to which the past of every warp is known: of the warps of the own group (a cluster of blocks, or one block)
/// and, where blocks synchronise with one another, of other groups. An access at a time is known where the entry is later.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    group: u32,
    own: Vec<u32>,
    /// As `own`, counting only what a fence of the asynchronous proxy covers.
    proxied: Vec<u32>,
    /// The least of the warps' entries in `own`.
    floor: u32,
    /// Filled only by synchronisation between groups.
    foreign: Option<Arc<BTreeMap<u32, Vec<u32>>>>,
}

fn raise(times: &mut Vec<u32>, other: &[u32]) {
    if times.len() < other.len() {
        times.resize(other.len(), 0);
    }
    for (time, &other) in times.iter_mut().zip(other) {
        *time = (*time).max(other);
    }
}

/// Entries of a warp: its own, and those of the three kinds of asynchronous operations that it starts.
const KINDS: usize = 4;

impl Clock {
    /// Of a group with so many warps: behind the warps' entries are those of the asynchronous operations that each started.
    pub(crate) fn new(group: u32, warps: usize) -> Self {
        Self {
            group,
            own: vec![0; KINDS * warps],
            proxied: vec![0; KINDS * warps],
            floor: 0,
            foreign: None,
        }
    }

    /// Whether time is kept at all: it is not where races are not looked for.
    #[inline(always)]
    pub(crate) fn is_kept(&self) -> bool {
        !self.own.is_empty()
    }

    /// Of the asynchronous operations of a warp what began before a time is known.
    pub(crate) fn raise(&mut self, slot: u32, time: u32) {
        if let Some(own) = self.own.get_mut(slot as usize) {
            *own = time.max(*own);
        }
    }

    /// Whether it is of the same group.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.is_kept() && self.group == other.group
    }

    /// What is known of a warp of the own group; of the warp itself, its present.
    #[inline(always)]
    pub(crate) fn of(&self, slot: u32) -> u32 {
        self.own.get(slot as usize).copied().unwrap_or(0)
    }

    pub(crate) fn set(&mut self, slot: u32, time: u32) {
        if let Some(own) = self.own.get_mut(slot as usize) {
            *own = time;
            self.raise_floor();
        }
    }

    fn raise_floor(&mut self) {
        let warps = self.own.len() / KINDS;
        self.floor = self.own[..warps].iter().copied().min().unwrap_or(0);
    }

    /// A time before which everything in the group is known.
    #[inline(always)]
    pub(crate) fn floor(&self) -> u32 {
        self.floor
    }

    /// Whether a moment of a warp of the own group is past.
    #[inline(always)]
    pub(crate) fn covers(&self, slot: u32, time: u32) -> bool {
        time < self.of(slot)
    }

    /// Whether a moment of a warp of the own group is past, with a fence of the asynchronous proxy since.
    pub(crate) fn covers_proxied(&self, slot: u32, time: u32) -> bool {
        self.proxied
            .get(slot as usize)
            .is_some_and(|&known| time < known)
    }

    /// Whether a moment of another group is past.
    pub(crate) fn covers_foreign(&self, group: u32, slot: u32, time: u32) -> bool {
        let times = self
            .foreign
            .as_ref()
            .and_then(|foreign| foreign.get(&group));
        times
            .and_then(|times| times.get(slot as usize))
            .is_some_and(|&known| time < known)
    }

    /// A fence of the asynchronous proxy: it covers everything known.
    pub(crate) fn fence_proxy(&mut self) {
        self.proxied.clone_from(&self.own);
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
            raise(&mut self.own, &other.own);
            raise(&mut self.proxied, &other.proxied);
            self.raise_floor();
        } else {
            let foreign = Arc::make_mut(self.foreign.get_or_insert_default());
            raise(foreign.entry(other.group).or_default(), &other.own);
        }
        if let Some(theirs) = &other.foreign {
            if self
                .foreign
                .as_ref()
                .is_some_and(|ours| Arc::ptr_eq(ours, theirs))
            {
                return;
            }
            if self.foreign.is_none() && !theirs.contains_key(&self.group) {
                self.foreign = Some(Arc::clone(theirs));
                return;
            }
            for (&group, times) in theirs.iter() {
                if group == self.group {
                    raise(&mut self.own, times);
                    self.raise_floor();
                } else {
                    let foreign = Arc::make_mut(self.foreign.get_or_insert_default());
                    raise(foreign.entry(group).or_default(), times);
                }
            }
        }
    }
}

/// When lanes of a warp were last in order with one another.
#[derive(Debug, Default)]
pub(crate) struct LaneOrder {
    /// All live lanes at once.
    all: u32,
    /// Some of them, since then.
    some: Vec<(u32, u32)>,
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
            return;
        }
        if self.some.len() == REMEMBERED {
            self.all = self.some.remove(0).0;
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

    /// Whether what one lane did at a time is before the present of another.
    pub(crate) fn covers(&self, time: u32, lane: u32, other: u32) -> bool {
        let both = 1 << lane | 1 << other;
        time < self.all
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
        assert!(!b.covers_foreign(0, 1, written));
        b.join(&published);
        assert!(b.covers_foreign(0, 1, written));
        assert!(!b.covers_foreign(0, 1, 6));
        let mut c = Clock::new(0, 2);
        c.join(&b);
        assert!(c.covers(1, written) && !c.covers(1, 6));
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
    fn lanes_are_ordered_by_masks_that_hold_both() {
        let mut order = LaneOrder::default();
        order.synchronise(10, 0b0011, 0b1111);
        assert!(order.covers(9, 0, 1) && !order.covers(9, 0, 2) && !order.covers(10, 0, 1));
        order.synchronise(20, 0b1111, 0b1111);
        assert!(order.covers(19, 3, 2));
    }
}
