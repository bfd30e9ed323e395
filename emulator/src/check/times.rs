//! Up to when the past of warps is known: of one group, and of many groups in a tree that clocks share.

use std::sync::Arc;

/// Lanes of a group of which more is known than of their warps; beyond them the oldest counts for its whole warp, which can hide
/// a race and never makes one up.
const REMEMBERED: usize = 64;

/// Up to when the past of each warp of a group is known. An access at a time is known where the entry is later.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    /// By slot, of all lanes.
    pub(crate) warps: Vec<u32>,
    /// Of some lanes of a warp more: slot, lanes, time.
    lanes: Vec<(u32, u32, u32)>,
}

impl Times {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            warps: vec![0; slots],
            lanes: Vec::new(),
        }
    }

    pub(crate) fn of(&self, slot: u32) -> u32 {
        self.warps.get(slot as usize).copied().unwrap_or(0)
    }

    /// Whether what a lane did at a time is known.
    #[inline(always)]
    pub(crate) fn covers(&self, slot: u32, lane: u32, time: u32) -> bool {
        time < self.of(slot)
            || self
                .lanes
                .iter()
                .any(|&(of, lanes, until)| of == slot && lanes >> lane & 1 == 1 && time < until)
    }

    /// What is known of some lanes of a warp only: lanes and times.
    pub(crate) fn lanes_of(&self, slot: u32) -> impl Iterator<Item = (u32, u32)> {
        let own = self.lanes.iter().filter(move |entry| entry.0 == slot);
        own.map(|&(_, lanes, time)| (lanes, time))
    }

    pub(crate) fn add_lanes(&mut self, slot: u32, lanes: u32, time: u32) {
        if time <= self.of(slot) {
            return;
        }
        for entry in self.lanes.iter_mut().filter(|entry| entry.0 == slot) {
            if entry.1 == lanes || entry.2 == time {
                *entry = (slot, entry.1 | lanes, time.max(entry.2));
                return;
            }
        }
        if self.lanes.len() == REMEMBERED {
            let (slot, _, time) = self.lanes.remove(0);
            if let Some(own) = self.warps.get_mut(slot as usize) {
                *own = time.max(*own);
            }
        }
        self.lanes.push((slot, lanes, time));
    }

    pub(crate) fn join(&mut self, other: &Self) {
        if self.warps.len() < other.warps.len() {
            self.warps.resize(other.warps.len(), 0);
        }
        for (time, &other) in self.warps.iter_mut().zip(&other.warps) {
            *time = (*time).max(other);
        }
        for &(slot, lanes, time) in &other.lanes {
            self.add_lanes(slot, lanes, time);
        }
        let warps = &self.warps;
        self.lanes
            .retain(|&(slot, _, time)| time > warps.get(slot as usize).copied().unwrap_or(0));
    }

    /// Whether it says all that another says.
    fn holds(&self, other: &Self) -> bool {
        let warps = other.warps.iter().enumerate();
        warps
            .into_iter()
            .all(|(slot, &time)| time <= self.of(slot as u32))
            && other.lanes.iter().all(|&(slot, lanes, time)| {
                let known = |own: &(u32, u32, u32)| {
                    own.0 == slot && own.1 & lanes == lanes && own.2 >= time
                };
                time <= self.of(slot) || self.lanes.iter().any(known)
            })
    }
}

/// Children of a node.
const FAN: usize = 16;
const FAN_BITS: u32 = 4;

#[derive(Debug, Clone)]
enum Node {
    Group(Times),
    Inner([Option<Arc<Node>>; FAN]),
}

/// Times of groups by their number. Clocks that know the same share it, so that knowing of many groups costs little: what one
/// adds is a path of the tree, and joining looks only where two differ.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    root: Option<Arc<Node>>,
    /// Levels of inner nodes.
    height: u32,
}

impl Groups {
    pub(crate) fn get(&self, group: u32) -> Option<&Times> {
        if u64::from(group) >> (FAN_BITS * self.height) != 0 {
            return None;
        }
        let mut node = self.root.as_deref()?;
        let mut level = self.height;
        loop {
            match node {
                Node::Group(times) => return Some(times),
                Node::Inner(children) => {
                    level -= 1;
                    node = children[child(group, level)].as_deref()?;
                }
            }
        }
    }

    fn grow(&mut self, height: u32) {
        while self.height < height {
            if let Some(root) = self.root.take() {
                let mut children: [Option<Arc<Node>>; FAN] = Default::default();
                children[0] = Some(root);
                self.root = Some(Arc::new(Node::Inner(children)));
            }
            self.height += 1;
        }
    }

    /// Adds what is known of a group.
    pub(crate) fn add(&mut self, group: u32, times: &Times) {
        if self.get(group).is_some_and(|known| known.holds(times)) {
            return;
        }
        let mut height = 0;
        while u64::from(group) >> (FAN_BITS * height) != 0 {
            height += 1;
        }
        self.grow(height);
        let mut path = Arc::new(Node::Group(times.clone()));
        for level in 0..self.height {
            let mut children: [Option<Arc<Node>>; FAN] = Default::default();
            children[child(group, level)] = Some(path);
            path = Arc::new(Node::Inner(children));
        }
        join(&mut self.root, Some(&path));
    }

    pub(crate) fn join(&mut self, other: &Self) {
        if other.root.is_none() {
            return;
        }
        if self.root.is_none() || self.height == other.height {
            self.height = other.height;
            join(&mut self.root, other.root.as_ref());
        } else if self.height > other.height {
            let mut other = other.clone();
            other.grow(self.height);
            join(&mut self.root, other.root.as_ref());
        } else {
            self.grow(other.height);
            join(&mut self.root, other.root.as_ref());
        }
    }
}

fn child(group: u32, level: u32) -> usize {
    (u64::from(group) >> (FAN_BITS * level)) as usize % FAN
}

/// Joins two trees of one height; what then is as the other becomes the other.
fn join(own: &mut Option<Arc<Node>>, other: Option<&Arc<Node>>) {
    let Some(other) = other else { return };
    let Some(node) = own else {
        *own = Some(Arc::clone(other));
        return;
    };
    if Arc::ptr_eq(node, other) {
        return;
    }
    match (&**node, &**other) {
        (Node::Group(times), Node::Group(theirs)) => {
            if theirs.holds(times) {
                *node = Arc::clone(other);
            } else if !times.holds(theirs)
                && let Node::Group(times) = Arc::make_mut(node)
            {
                times.join(theirs);
            }
        }
        (Node::Inner(_), Node::Inner(theirs)) => {
            let Node::Inner(children) = Arc::make_mut(node) else {
                return;
            };
            for (child, theirs) in children.iter_mut().zip(theirs) {
                join(child, theirs.as_ref());
            }
            let mut pairs = children.iter().zip(theirs);
            if pairs.all(|pair| match pair {
                (Some(child), Some(theirs)) => Arc::ptr_eq(child, theirs),
                (own, theirs) => own.is_none() && theirs.is_none(),
            }) {
                *node = Arc::clone(other);
            }
        }
        // Trees of one height have their groups at one level.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(time: u32) -> Times {
        Times {
            warps: vec![time],
            lanes: Vec::new(),
        }
    }

    #[test]
    fn groups_of_any_number() {
        let mut groups = Groups::default();
        let numbers = [0, 1, 15, 16, 17, 255, 256, 70_000, u32::MAX];
        for (i, &number) in numbers.iter().enumerate() {
            assert!(groups.get(number).is_none());
            groups.add(number, &times(i as u32 + 1));
        }
        for (i, &number) in numbers.iter().enumerate() {
            assert_eq!(groups.get(number).unwrap().of(0), i as u32 + 1);
        }
        assert!(groups.get(2).is_none() && groups.get(70_001).is_none());
    }

    #[test]
    fn joining_takes_the_later_and_shares() {
        let (mut a, mut b) = (Groups::default(), Groups::default());
        a.add(3, &times(5));
        a.add(400, &times(1));
        b.add(3, &times(4));
        b.add(90, &times(2));
        b.join(&a);
        let found = [3, 400, 90].map(|group| b.get(group).unwrap().of(0));
        assert_eq!(found, [5, 1, 2]);
        a.join(&b);
        assert!(Arc::ptr_eq(
            a.root.as_ref().unwrap(),
            b.root.as_ref().unwrap()
        ));
    }

    #[test]
    fn some_lanes_of_a_warp() {
        let mut known = Times::new(2);
        known.add_lanes(1, 0b11, 8);
        assert!(known.covers(1, 0, 7) && !known.covers(1, 2, 7) && !known.covers(1, 0, 8));
        let mut later = times(0);
        later.warps.push(8);
        known.join(&later);
        assert!(known.covers(1, 2, 7) && known.lanes.is_empty());
    }
}
