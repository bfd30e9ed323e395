//! Shadow memory: who last wrote and read each granule, and whether that is ordered before the access at hand.

mod global;
mod range;

pub(crate) use global::{GlobalShadow, Memo};
pub(crate) use range::Outcome;

use crate::program::op::Scope;

/// 0 of an ordinary access; of an atomic one how far it reaches.
const STRENGTH: u64 = 3;
const PC_SHIFT: u32 = 2;
/// An instruction beyond these is told as another: kernels are shorter.
const PC_BITS: u32 = 18;
const LANE_SHIFT: u32 = PC_SHIFT + PC_BITS;
const SLOT_SHIFT: u32 = LANE_SHIFT + 5;
const SLOT_BITS: u32 = 12;
const VALID: u64 = 1 << (SLOT_SHIFT + SLOT_BITS);
const TIME_SHIFT: u32 = SLOT_SHIFT + SLOT_BITS + 1;
const TIME_BITS: u32 = 63 - TIME_SHIFT;
/// Of asynchronous operations, whose past is never told by one comparison.
const ASYNC: u64 = 1 << 63;

/// An access of a thread in one word: the time of its warp on top, so that one comparison tells that it is old; then the warp's
/// slot in its group, the lane, the instruction, and how far it reaches if it is atomic. 0 is no access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

impl Stamp {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn new(time: u32, slot: u32, lane: usize, pc: u32, atomic: Option<Scope>) -> Self {
        // A warp that synchronised more often than the bits can count stays at the last moment: its accesses no longer count
        // as past, which can only report too much; 2^25 is more than a launch of hours reaches.
        let time = u64::from(time.min((1 << TIME_BITS) - 1));
        let pc = u64::from(pc & ((1 << PC_BITS) - 1));
        let place = u64::from(slot) << SLOT_SHIFT | (lane as u64) << LANE_SHIFT | pc << PC_SHIFT;
        let strength = match atomic {
            None => 0,
            Some(Scope::Block) => 1,
            Some(Scope::Cluster) => 2,
            Some(Scope::Device) => 3,
        };
        Self(time << TIME_SHIFT | VALID | place | strength)
    }

    /// An access of an asynchronous operation that a lane started.
    pub(crate) fn asynchronous(
        time: u32,
        slot: u32,
        lane: usize,
        pc: u32,
        atomic: Option<Scope>,
    ) -> Self {
        Self(Self::new(time, slot, lane, pc, atomic).0 | ASYNC)
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

    /// The same access of the lane so many after this one's.
    #[inline(always)]
    fn after(self, lanes: usize) -> Self {
        if self == Self::NONE {
            return self;
        }
        Self(self.0 + ((lanes as u64) << LANE_SHIFT))
    }

    /// Whether both are of one warp, or one warp's asynchronous operations.
    #[inline(always)]
    fn same_warp(self, other: Self) -> bool {
        (self.0 ^ other.0) >> SLOT_SHIFT & ((1 << SLOT_BITS) - 1) == 0
    }

    /// Whether both are of one warp at one time.
    #[inline(always)]
    pub(crate) fn same_moment(self, other: Self) -> bool {
        (self.0 ^ other.0) >> SLOT_SHIFT == 0
    }

    fn is_atomic(self) -> bool {
        self.0 & STRENGTH != 0
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
    pub(crate) home: Home,
}

/// The block of an access: its first slot, how many it has, and how many its group has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Home {
    pub(crate) first: u32,
    pub(crate) warps: u32,
    pub(crate) all: u32,
}

impl Home {
    fn holds(self, stamp: Stamp) -> bool {
        let slot = stamp.slot().checked_rem(self.all);
        slot.is_some_and(|slot| slot >= self.first && slot - self.first < self.warps)
    }
}

/// Of a granule the last write, and two reads since: the first that is not ordered before the others, and the newest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell<G> {
    stamps: [Stamp; 3],
    groups: [G; 3],
}

const WRITE: usize = 0;
const READ: usize = 1;
const NEWEST_READ: usize = 2;

impl<G: Tag> Cell<G> {
    fn fresh() -> Self {
        Self {
            stamps: [Stamp::NONE; 3],
            groups: [G::default(); 3],
        }
    }
}

impl<G: Tag> Access<G> {
    /// Whether another access is past, or of the same thread.
    #[inline(always)]
    fn follows(&self, other: Stamp, group: G) -> bool {
        other == Stamp::NONE
            || group == self.group && (other.0 < self.limit || other.same_thread(self.stamp))
    }

    /// Whether both are atomic, and each within reach of the other.
    #[inline(always)]
    fn is_atomic_with(&self, other: Stamp, group: G) -> bool {
        match (self.stamp.0 & STRENGTH).min(other.0 & STRENGTH) {
            0 => false,
            1 => group == self.group && self.home.holds(other),
            2 => group == self.group,
            _ => true,
        }
    }

    #[inline(always)]
    fn races(&self, other: Stamp, group: G, ordered: impl Fn(Stamp, G) -> bool) -> bool {
        !(self.follows(other, group) || self.is_atomic_with(other, group) || ordered(other, group))
    }

    /// Whether the last write is an atomic one that was read by an atomic read before this access: that is behind it, whatever
    /// else is released by it.
    #[cold]
    fn has_seen(&self, cell: &Cell<G>, ordered: impl Fn(Stamp, G) -> bool) -> bool {
        let is_seen = |kind: usize| {
            let (read, group) = (cell.stamps[kind], cell.groups[kind]);
            read.is_atomic() && (self.follows(read, group) || ordered(read, group))
        };
        cell.stamps[WRITE].is_atomic() && (is_seen(READ) || is_seen(NEWEST_READ))
    }

    /// Whether an access need not be kept when this atomic one takes its place: what comes after this is after it too, or is
    /// atomic with it.
    #[inline(always)]
    fn outdates(&self, other: Stamp, group: G) -> bool {
        other.is_atomic() || other == Stamp::NONE || group == self.group && other.0 < self.limit
    }

    /// Ordinary accesses are not behind an atomic one for other atomics: they stay in the place of reads.
    #[cold]
    fn keep_ordinary(&self, cell: &mut Cell<G>) {
        for kind in [READ, NEWEST_READ] {
            if self.outdates(cell.stamps[kind], cell.groups[kind]) {
                cell.stamps[kind] = Stamp::NONE;
            }
        }
        if !self.outdates(cell.stamps[WRITE], cell.groups[WRITE]) {
            cell.stamps[READ] = cell.stamps[WRITE];
            cell.groups[READ] = cell.groups[WRITE];
        }
    }

    /// Records the access and returns what it conflicts with.
    #[inline(always)]
    fn touch(
        &self,
        cell: &mut Cell<G>,
        ordered: &impl Fn(Stamp, G) -> bool,
    ) -> Option<Conflict<G>> {
        let mut conflict = None;
        let kinds = if self.is_write { 3 } else { 1 };
        for kind in WRITE..kinds {
            let (other, group) = (cell.stamps[kind], cell.groups[kind]);
            if conflict.is_none()
                && self.races(other, group, ordered)
                && !(kind == WRITE && self.has_seen(cell, ordered))
            {
                conflict = Some(Conflict {
                    other,
                    group,
                    other_wrote: kind == WRITE,
                });
            }
        }
        let kind = if self.is_write {
            if self.stamp.is_atomic() {
                self.keep_ordinary(cell);
            } else {
                cell.stamps[READ] = Stamp::NONE;
                cell.stamps[NEWEST_READ] = Stamp::NONE;
            }
            WRITE
        } else {
            let (first, group) = (cell.stamps[READ], cell.groups[READ]);
            if self.follows(first, group) || ordered(first, group) {
                READ
            } else {
                NEWEST_READ
            }
        };
        cell.stamps[kind] = self.stamp;
        cell.groups[kind] = self.group;
        conflict
    }
}

/// Words of a segment.
const SEGMENT_WORDS: usize = 32;
const SEGMENT: u64 = 4 * SEGMENT_WORDS as u64;
/// Granules have 16 bytes to begin with: kernels that move shared memory by 16 bytes, as those with matrix instructions do, are
/// then checked by a fourth of the comparisons.
const COARSEST: u32 = 4;

/// The 32 words that a warp accesses at once where its lanes' words lie side by side. As long as nothing else happens to them,
/// one cell stands for all: its stamps are those of the first word's lane, and every word, or every second or fourth, is the
/// next lane's. A copy of memory is so checked by one comparison per 32 words instead of 32.
#[derive(Debug, Clone, Copy)]
struct Segment<G> {
    cell: Cell<G>,
    /// By kind: words from a lane to the next, as a power of two.
    words: [u8; 3],
    /// The words that it stands for, by bits: all, or some of each lane's where lanes stride over others.
    live: u32,
    /// Its cells are apart.
    is_split: bool,
}

/// Who last accessed each granule of a range of memory. Granules are as large as the smallest access so far.
#[derive(Debug)]
pub(crate) struct Shadow<G> {
    shift: u32,
    /// Where less than a granule was accessed, and always the same bytes of each: where they begin in it, and how many they are.
    /// The cells stand for these alone. What strides over memory so needs a cell for each access, not for each word.
    part: Option<Part>,
    segments: Vec<Segment<G>>,
    /// Empty until a segment is split.
    cells: Vec<Cell<G>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: u8,
    bytes: u8,
}

impl Part {
    /// What an access touches of each granule of the coarsest size.
    #[inline(always)]
    fn of(offset: u64, bytes: u64) -> Self {
        Self {
            first: offset as u8 & ((1 << COARSEST) - 1),
            bytes: bytes as u8,
        }
    }

    fn holds(self, offset: u64) -> bool {
        let at = offset as u8 & ((1 << COARSEST) - 1);
        at >= self.first && at - self.first < self.bytes
    }
}

/// Shadow of a block's shared memory.
pub(crate) type SharedShadow = Shadow<()>;

impl<G: Tag> Shadow<G> {
    pub(crate) fn new(bytes: usize) -> Self {
        let segment = Segment {
            cell: Cell::fresh(),
            words: [0; 3],
            live: u32::MAX,
            is_split: false,
        };
        Self {
            shift: COARSEST,
            part: None,
            segments: vec![segment; bytes.div_ceil(SEGMENT as usize)],
            cells: Vec::new(),
        }
    }

    /// Cells of a segment.
    fn parts(&self) -> usize {
        SEGMENT as usize >> self.shift
    }

    /// Gives every granule of a segment a cell of its own.
    #[cold]
    fn split_segment(&mut self, index: usize) {
        // Lanes of fewer bytes than a granule make granules smaller.
        let Segment {
            cell, words, live, ..
        } = self.segments[index];
        let lanes = (cell.stamps.iter().zip(words)).filter(|(stamp, _)| **stamp != Stamp::NONE);
        let finest = lanes.map(|(_, words)| {
            if live == u32::MAX {
                u32::from(words) + 2
            } else {
                2
            }
        });
        let finest = finest.min();
        if let Some(finest) = finest.filter(|&finest| finest < self.shift || self.part.is_some()) {
            self.refine(finest);
        }
        let (parts, shift) = (self.parts(), self.shift - 2);
        if self.cells.is_empty() {
            self.cells = vec![Cell::fresh(); self.segments.len() * parts];
        }
        self.segments[index].is_split = true;
        if finest.is_none() {
            // Nothing has come to the segment, nor to its cells.
            return;
        }
        for (part, own) in self.cells[index * parts..][..parts].iter_mut().enumerate() {
            if live >> (part << shift) & 1 == 0 {
                *own = Cell::fresh();
                continue;
            }
            *own = cell;
            for (stamp, words) in own.stamps.iter_mut().zip(words) {
                *stamp = stamp.after(part << shift >> words);
            }
        }
    }

    /// Makes room for an access to a part of a granule, or to another part than those before it.
    #[cold]
    fn make_room(&mut self, offset: u64, bytes: u64) {
        let fine = (offset | bytes).trailing_zeros();
        if self.part.is_none() && self.cells.is_empty() && self.shift == COARSEST && fine >= 2 {
            self.part = Some(Part::of(offset, bytes));
        } else {
            self.refine(fine.min(self.shift));
        }
    }

    /// Whether an access has cells of its own: of its size or less.
    #[inline(always)]
    fn has_room(&self, offset: u64, bytes: u64) -> bool {
        match self.part {
            None => (offset | bytes).trailing_zeros() >= self.shift,
            Some(part) => part == Part::of(offset, bytes),
        }
    }

    /// Makes granules smaller.
    #[cold]
    fn refine(&mut self, shift: u32) {
        if let Some(part) = self.part.take() {
            // A part is of whole words.
            self.divide((part.first | part.bytes).trailing_zeros(), Some(part));
        }
        if shift < 2 {
            // What is smaller than a word is not in a segment's cell.
            for index in 0..self.segments.len() {
                if !self.segments[index].is_split {
                    self.split_segment(index);
                }
            }
        }
        if shift < self.shift {
            self.divide(shift, None);
        }
    }

    /// Gives each of the smaller granules a cell: that of the larger one, or of the part of it that was accessed at all.
    fn divide(&mut self, shift: u32, part: Option<Part>) {
        let parts = 1u64 << (self.shift - shift);
        let of_part = |(cell, index): (Cell<G>, u64)| match part {
            Some(part) if !part.holds(index << shift) => Cell::fresh(),
            _ => cell,
        };
        self.cells = (self.cells.iter())
            .flat_map(|&cell| (0..parts).map(move |index| (cell, index)))
            .map(of_part)
            .collect();
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
        if !self.has_room(offset, bytes) {
            self.make_room(offset, bytes);
        }
        for index in offset / SEGMENT..=(offset + bytes - 1) / SEGMENT {
            if (self.segments.get(index as usize)).is_some_and(|segment| !segment.is_split) {
                self.split_segment(index as usize);
            }
        }
        let (first, last) = (offset >> self.shift, (offset + bytes - 1) >> self.shift);
        let end = (last as usize + 1).min(self.cells.len());
        let mut conflict = None;
        for cell in self.cells.get_mut(first as usize..end).unwrap_or_default() {
            let found = access.touch(cell, &ordered);
            conflict = conflict.or(found);
        }
        conflict
    }

    /// As [`Self::access`] of every lane of a mask, at the offset that `at` says; `found` is told of conflicts, by lane. `access`
    /// is that of any lane.
    #[inline(always)]
    pub(crate) fn access_lanes(
        &mut self,
        at: impl Fn(usize) -> u64,
        mask: u32,
        bytes: u64,
        access: &Access<G>,
        ordered: impl Fn(usize, Stamp, G) -> bool,
        mut found: impl FnMut(usize, Conflict<G>),
    ) {
        let mut rest = mask;
        while rest != 0 {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let own = Access {
                stamp: access.stamp.of_lane(lane),
                ..*access
            };
            let offset = at(lane);
            // The common case: one granule that nobody else has had since.
            if (bytes == 1 << self.shift || self.part.is_some())
                && self.has_room(offset, bytes)
                && let Some(segment) = self.segments.get((offset / SEGMENT) as usize)
                && segment.is_split
                && let Some(cell) = self.cells.get_mut((offset >> self.shift) as usize)
                && own.follows(cell.stamps[WRITE], cell.groups[WRITE])
                && own.follows(cell.stamps[READ], cell.groups[READ])
                && !(own.is_write && cell.stamps[NEWEST_READ] != Stamp::NONE)
                && (!(own.is_write && own.stamp.is_atomic())
                    || own.outdates(cell.stamps[WRITE], cell.groups[WRITE])
                        && own.outdates(cell.stamps[READ], cell.groups[READ]))
            {
                let kind = if own.is_write { WRITE } else { READ };
                if own.is_write {
                    cell.stamps[READ] = Stamp::NONE;
                }
                cell.stamps[kind] = own.stamp;
                cell.groups[kind] = own.group;
                continue;
            }
            let ordered = |other: Stamp, group: G| ordered(lane, other, group);
            if let Some(conflict) = self.access(offset, bytes, &own, ordered) {
                found(lane, conflict);
            }
        }
    }

    /// As [`Self::access`] of every lane of a warp, of 4, 8 or 16 bytes each that lie side by side, or of a part of so many from
    /// the same place in each. `access` is that of lane 0, and `ordered` says whether another access is before that of every
    /// lane. Whether the access is recorded: where it is not, nothing has changed, and the lanes have to be looked at one by one.
    #[inline(always)]
    pub(crate) fn access_row(
        &mut self,
        offset: u64,
        (stride, bytes): (u64, u64),
        access: &Access<G>,
        ordered: impl Fn(Stamp, G) -> bool,
    ) -> bool {
        let within = offset & (stride - 1);
        if self.shift < 2
            || !matches!(stride, 4 | 8 | 16)
            || !(offset - within).is_multiple_of(SEGMENT)
            || (within | bytes) & 3 != 0
            || within + bytes > stride
        {
            return false;
        }
        let words = (stride / 4).trailing_zeros() as u8;
        let of_each = ((1u64 << (bytes / 4)) - 1) << (within / 4);
        // The same of each lane's words.
        let live = (of_each * (u64::from(u32::MAX) / ((1 << (stride / 4)) - 1))) as u32;
        let first = (offset / SEGMENT) as usize;
        let count = 1 << words;
        if first + count > self.segments.len() {
            return false;
        }
        let lanes = SEGMENT_WORDS >> words;
        // Where a read is kept, by segment.
        let mut kinds = [WRITE; 4];
        for (part, kind) in kinds.iter_mut().enumerate().take(count) {
            let own = Access {
                stamp: access.stamp.after(part * lanes),
                ..*access
            };
            let segment = &self.segments[first + part];
            if segment.is_split {
                if !own.is_write
                    || own.stamp.is_atomic()
                    || live != u32::MAX
                    || !self.is_past(first + part, &own, words)
                {
                    return false;
                }
                continue;
            }
            let (stamps, groups) = (&segment.cell.stamps, &segment.cell.groups);
            // What it stands for changes only where that is nothing, or all of it is overwritten.
            if segment.live != live
                && !(own.is_write && live == u32::MAX)
                && stamps.iter().any(|&stamp| stamp != Stamp::NONE)
            {
                return false;
            }
            // Accesses of other warps are before all lanes or none; of the own one some may be.
            let is_own =
                |kind: usize| groups[kind] == own.group && stamps[kind].same_warp(own.stamp);
            let follows = |kind: usize| {
                let (other, group) = (stamps[kind], groups[kind]);
                other == Stamp::NONE
                    || group == own.group
                        && (other.0 < own.limit
                            || other.same_thread(own.stamp) && segment.words[kind] == words)
                    || ordered(other, group)
            };
            let races =
                |kind: usize| !(follows(kind) || own.is_atomic_with(stamps[kind], groups[kind]));
            if own.is_write {
                if races(WRITE) || races(READ) || races(NEWEST_READ) {
                    return false;
                }
                let is_kept = |kind: usize| !own.outdates(stamps[kind], groups[kind]);
                if own.stamp.is_atomic() && (WRITE..=NEWEST_READ).any(is_kept) {
                    return false;
                }
            } else {
                if races(WRITE) {
                    return false;
                }
                *kind = if follows(READ) {
                    READ
                } else if is_own(READ) {
                    return false;
                } else {
                    NEWEST_READ
                };
            }
        }
        for (part, &kind) in kinds.iter().enumerate().take(count) {
            let segment = &mut self.segments[first + part];
            segment.live = live;
            if access.is_write {
                segment.is_split = false;
                segment.cell.stamps[READ] = Stamp::NONE;
                segment.cell.stamps[NEWEST_READ] = Stamp::NONE;
            }
            segment.cell.stamps[kind] = access.stamp.after(part * lanes);
            segment.cell.groups[kind] = access.group;
            segment.words[kind] = words;
        }
        true
    }

    /// Whether all accesses to the words of a split segment are past, or of the thread that has the word now.
    fn is_past(&self, index: usize, access: &Access<G>, words: u8) -> bool {
        let cells = &self.cells[index * self.parts()..][..self.parts()];
        (0..SEGMENT_WORDS).all(|word| {
            let own = Access {
                stamp: access.stamp.after(word >> words),
                ..*access
            };
            let cell = &cells[word >> (self.shift - 2)];
            (cell.stamps.iter().zip(cell.groups)).all(|(&other, group)| own.follows(other, group))
        })
    }

    /// The last write to the granule at an offset.
    pub(crate) fn last_write(&self, offset: u64) -> Stamp {
        match self.segments.get((offset / SEGMENT) as usize) {
            Some(segment) if !segment.is_split => {
                let word = (offset % SEGMENT / 4) as usize;
                if segment.live >> word & 1 == 0 {
                    return Stamp::NONE;
                }
                segment.cell.stamps[WRITE].after(word >> segment.words[WRITE])
            }
            Some(_) if self.part.is_some_and(|part| !part.holds(offset)) => Stamp::NONE,
            Some(_) => self.cells[(offset >> self.shift) as usize].stamps[WRITE],
            None => Stamp::NONE,
        }
    }
}

#[cfg(test)]
mod tests;
