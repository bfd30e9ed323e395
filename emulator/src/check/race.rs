//! Shadow memory: who last wrote and read each granule, and whether that is ordered before the access at hand.

use std::collections::HashMap;

const ATOMIC: u64 = 1;
const PC_SHIFT: u32 = 1;
const PC_BITS: u32 = 20;
const LANE_SHIFT: u32 = PC_SHIFT + PC_BITS;
const SLOT_SHIFT: u32 = LANE_SHIFT + 5;
const SLOT_BITS: u32 = 10;
const VALID: u64 = 1 << (SLOT_SHIFT + SLOT_BITS);
const TIME_SHIFT: u32 = SLOT_SHIFT + SLOT_BITS + 1;
const TIME_BITS: u32 = 63 - TIME_SHIFT;
/// Of asynchronous operations, whose past is never told by one comparison.
const ASYNC: u64 = 1 << 63;

/// An access of a thread in one word: the time of its warp on top, so that one comparison tells that it is old; then the warp's
/// slot in its group, the lane, the instruction, and whether it is atomic. 0 is no access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

impl Stamp {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn new(time: u32, slot: u32, lane: usize, pc: u32, is_atomic: bool) -> Self {
        // A warp that synchronised more often than the bits can count stays at the last moment: its accesses no longer count
        // as past, which can only report too much; 2^26 is more than a launch of hours reaches.
        let time = u64::from(time.min((1 << TIME_BITS) - 1));
        let pc = u64::from(pc & ((1 << PC_BITS) - 1));
        let place = u64::from(slot) << SLOT_SHIFT | (lane as u64) << LANE_SHIFT | pc << PC_SHIFT;
        Self(time << TIME_SHIFT | VALID | place | u64::from(is_atomic))
    }

    /// An access of an asynchronous operation that a lane started.
    pub(crate) fn asynchronous(
        time: u32,
        slot: u32,
        lane: usize,
        pc: u32,
        is_atomic: bool,
    ) -> Self {
        Self(Self::new(time, slot, lane, pc, is_atomic).0 | ASYNC)
    }

    pub(crate) fn is_async(self) -> bool {
        self.0 & ASYNC != 0
    }

    /// The same access of another lane.
    #[inline(always)]
    pub(crate) fn of_lane(self, lane: usize) -> Self {
        Self(self.0 & !(31 << LANE_SHIFT) | (lane as u64) << LANE_SHIFT)
    }

    /// What is less than this is earlier than `time`.
    #[inline(always)]
    pub(crate) fn limit(time: u32) -> u64 {
        u64::from(time) << TIME_SHIFT
    }

    pub(crate) fn time(self) -> u32 {
        ((self.0 & !ASYNC) >> TIME_SHIFT) as u32
    }

    pub(crate) fn slot(self) -> u32 {
        (self.0 >> SLOT_SHIFT) as u32 & ((1 << SLOT_BITS) - 1)
    }

    pub(crate) fn lane(self) -> u32 {
        (self.0 >> LANE_SHIFT) as u32 & 31
    }

    pub(crate) fn pc(self) -> u32 {
        (self.0 >> PC_SHIFT) as u32 & ((1 << PC_BITS) - 1)
    }

    fn is_atomic(self) -> bool {
        self.0 & ATOMIC != 0
    }

    /// Whether both are of one thread, and so in its order. Asynchronous operations are in no order.
    fn same_thread(self, other: Self) -> bool {
        (self.0 | other.0) & ASYNC == 0
            && (self.0 ^ other.0) >> LANE_SHIFT & ((1 << (SLOT_BITS + 5)) - 1) == 0
    }
}

/// Which group an access is from: nothing where all are from one, a number in global memory.
pub(crate) trait Tag: Copy + Default + PartialEq + std::fmt::Debug {}
impl Tag for () {}
impl Tag for u32 {}

/// The other side of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict<G> {
    pub(crate) other: Stamp,
    pub(crate) group: G,
    pub(crate) other_wrote: bool,
}

/// An access, and what it takes to tell what is before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<G> {
    pub(crate) stamp: Stamp,
    pub(crate) group: G,
    pub(crate) is_write: bool,
    /// Accesses of the own group below this are past: see [`Stamp::limit`].
    pub(crate) limit: u64,
}

/// Per granule the last write, and two reads since: the first that is not ordered before the others, and the newest.
///
/// Granules are words until a smaller access makes them two bytes, or one.
#[derive(Debug)]
pub(crate) struct Shadow<G> {
    shift: u32,
    stamps: [Vec<Stamp>; 3],
    groups: [Vec<G>; 3],
}

const WRITE: usize = 0;
const READ: usize = 1;
const NEWEST_READ: usize = 2;

/// Shadow of a block's shared memory.
pub(crate) type SharedShadow = Shadow<()>;

impl<G: Tag> Shadow<G> {
    pub(crate) fn new(bytes: usize) -> Self {
        let cells = bytes.div_ceil(4);
        Self {
            shift: 2,
            stamps: [0, 1, 2].map(|_| vec![Stamp::NONE; cells]),
            groups: [0, 1, 2].map(|_| vec![G::default(); cells]),
        }
    }

    fn split(&mut self, shift: u32) {
        let parts = 1 << (self.shift - shift);
        for stamps in &mut self.stamps {
            *stamps = stamps
                .iter()
                .flat_map(|&stamp| std::iter::repeat_n(stamp, parts))
                .collect();
        }
        for groups in &mut self.groups {
            *groups = groups
                .iter()
                .flat_map(|&group| std::iter::repeat_n(group, parts))
                .collect();
        }
        self.shift = shift;
    }

    /// Records an access and returns what it conflicts with. `ordered` says whether another access is before it.
    #[inline(always)]
    pub(crate) fn access(
        &mut self,
        offset: u64,
        bytes: u64,
        access: &Access<G>,
        ordered: impl Fn(Stamp, G) -> bool,
    ) -> Option<Conflict<G>> {
        let fine = (offset | bytes).trailing_zeros();
        if fine < self.shift {
            self.split(fine.min(1));
        }
        let mut conflict = None;
        for cell in offset >> self.shift..(offset + bytes) >> self.shift {
            let found = self.touch(cell as usize, access, &ordered);
            conflict = conflict.or(found);
        }
        conflict
    }

    /// The last write to the granule at an offset.
    pub(crate) fn last_write(&self, offset: u64) -> Stamp {
        self.stamps[WRITE]
            .get((offset >> self.shift) as usize)
            .copied()
            .unwrap_or(Stamp::NONE)
    }

    #[inline(always)]
    fn touch(
        &mut self,
        cell: usize,
        access: &Access<G>,
        ordered: &impl Fn(Stamp, G) -> bool,
    ) -> Option<Conflict<G>> {
        if cell >= self.stamps[WRITE].len() {
            return None;
        }
        let stamp = access.stamp;
        let is_old = |stamp: Stamp, group: G| {
            stamp == Stamp::NONE || group == access.group && stamp.0 < access.limit
        };
        let races = |other: Stamp, group: G| {
            !(is_old(other, group)
                || group == access.group && other.same_thread(stamp)
                || other.is_atomic() && stamp.is_atomic()
                || ordered(other, group))
        };
        let mut conflict = None;
        let (other, group) = (self.stamps[WRITE][cell], self.groups[WRITE][cell]);
        if races(other, group) {
            conflict = Some(Conflict {
                other,
                group,
                other_wrote: true,
            });
        }
        if access.is_write {
            for kind in [READ, NEWEST_READ] {
                let (other, group) = (self.stamps[kind][cell], self.groups[kind][cell]);
                if conflict.is_none() && races(other, group) {
                    conflict = Some(Conflict {
                        other,
                        group,
                        other_wrote: false,
                    });
                }
                self.stamps[kind][cell] = Stamp::NONE;
            }
            self.stamps[WRITE][cell] = stamp;
            self.groups[WRITE][cell] = access.group;
        } else {
            let (first, group) = (self.stamps[READ][cell], self.groups[READ][cell]);
            let replace = is_old(first, group)
                || group == access.group && first.same_thread(stamp)
                || ordered(first, group);
            let kind = if replace { READ } else { NEWEST_READ };
            self.stamps[kind][cell] = stamp;
            self.groups[kind][cell] = access.group;
        }
        conflict
    }
}

const PAGE: u64 = 4096;

/// Shadow of global memory, made page by page.
#[derive(Debug, Default)]
pub(crate) struct GlobalShadow {
    index: HashMap<u64, usize>,
    pages: Vec<Shadow<u32>>,
    last: (u64, usize),
}

impl GlobalShadow {
    /// As [`Shadow::access`], of an access that is aligned to its size, and so within one page.
    #[inline(always)]
    pub(crate) fn access(
        &mut self,
        address: u64,
        bytes: u64,
        access: &Access<u32>,
        ordered: impl Fn(Stamp, u32) -> bool,
    ) -> Option<Conflict<u32>> {
        let number = address / PAGE;
        if self.last.0 != number || self.pages.is_empty() {
            let fresh = self.pages.len();
            let at = *self.index.entry(number).or_insert(fresh);
            if at == fresh {
                self.pages.push(Shadow::new(PAGE as usize));
            }
            self.last = (number, at);
        }
        self.pages[self.last.1].access(address % PAGE, bytes, access, ordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(slot: u32, lane: usize, is_write: bool) -> Access<()> {
        Access {
            stamp: Stamp::new(5, slot, lane, 9, false),
            group: (),
            is_write,
            limit: 0,
        }
    }

    #[test]
    fn stamps_hold_their_parts() {
        let stamp = Stamp::new(77, 1023, 3, 1_000_000, true).of_lane(31);
        assert_eq!(
            (stamp.time(), stamp.slot(), stamp.lane(), stamp.pc()),
            (77, 1023, 31, 1_000_000)
        );
        assert!(stamp.0 >= Stamp::limit(77) && stamp.0 < Stamp::limit(78));
    }

    #[test]
    fn conflicts_by_bytes() {
        let mut shadow = SharedShadow::new(64);
        let never = |_: Stamp, ()| false;
        assert_eq!(shadow.access(0, 4, &access(0, 0, true), never), None);
        assert_eq!(shadow.access(0, 4, &access(0, 0, false), never), None);
        let conflict = shadow.access(0, 4, &access(1, 0, false), never).unwrap();
        assert!(conflict.other_wrote && conflict.other.slot() == 0);
        // Two halves of a word are two places.
        assert_eq!(shadow.access(8, 2, &access(0, 1, true), never), None);
        assert_eq!(shadow.access(10, 2, &access(0, 2, true), never), None);
        assert!(shadow.access(8, 4, &access(0, 2, true), never).is_some());
        assert_eq!(shadow.access(13, 1, &access(0, 2, true), never), None);
        assert_eq!(shadow.access(12, 1, &access(0, 3, true), never), None);
        assert_eq!(shadow.access(8, 4, &access(0, 5, true), |_, ()| true), None);
    }

    #[test]
    fn the_reads_that_matter_are_kept() {
        let mut shadow = SharedShadow::new(4);
        let never = |_: Stamp, ()| false;
        for lane in 0..5 {
            assert_eq!(shadow.access(0, 4, &access(0, lane, false), never), None);
        }
        // Ordered behind all but the first, and behind all but the last.
        for spared in [0, 4] {
            let mut other = SharedShadow::new(4);
            for lane in 0..5 {
                other.access(0, 4, &access(0, lane, false), never);
            }
            let found = other.access(0, 4, &access(1, 0, true), |stamp, ()| {
                stamp.lane() != spared
            });
            assert_eq!(found.unwrap().other.lane(), spared);
        }
        assert!(
            !shadow
                .access(0, 4, &access(0, 0, true), never)
                .unwrap()
                .other_wrote
        );
    }

    #[test]
    fn old_accesses_of_the_group_are_past() {
        let mut shadow = GlobalShadow::default();
        let never = |_: Stamp, _: u32| false;
        let at = |group, time, limit| Access {
            stamp: Stamp::new(time, 0, 0, 0, false),
            group,
            is_write: true,
            limit,
        };
        let by = |group, slot: u32, limit: u32| Access {
            stamp: Stamp::new(limit, slot, 0, 0, false),
            group,
            is_write: true,
            limit: Stamp::limit(limit),
        };
        assert_eq!(shadow.access(4096, 4, &at(1, 5, 0), never), None);
        assert_eq!(shadow.access(4096, 4, &by(1, 3, 6), never), None);
        assert_eq!(
            shadow.access(4096, 4, &by(2, 0, 60), never).unwrap().group,
            1
        );
    }
}
