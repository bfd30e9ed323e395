//! Shadow memory: who last wrote and read each granule, and whether that is ordered before the access at hand.

use std::collections::HashMap;

const ATOMIC: u64 = 1;
const PC_SHIFT: u32 = 1;
const PC_BITS: u32 = 20;
const LANE_SHIFT: u32 = PC_SHIFT + PC_BITS;
const SLOT_SHIFT: u32 = LANE_SHIFT + 5;
const SLOT_BITS: u32 = 11;
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
        // as past, which can only report too much; 2^25 is more than a launch of hours reaches.
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

/// Of a granule the last write, and two reads since: the first that is not ordered before the others, and the newest.
#[derive(Debug, Clone, Copy)]
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

    #[inline(always)]
    fn races(&self, other: Stamp, group: G, ordered: impl Fn(Stamp, G) -> bool) -> bool {
        !(self.follows(other, group)
            || other.is_atomic() && self.stamp.is_atomic()
            || ordered(other, group))
    }

    /// Records the access and returns what it conflicts with.
    #[inline(always)]
    fn touch(
        &self,
        cell: &mut Cell<G>,
        ordered: &impl Fn(Stamp, G) -> bool,
    ) -> Option<Conflict<G>> {
        let mut conflict = None;
        let kinds = if self.is_write {
            WRITE..=NEWEST_READ
        } else {
            WRITE..=WRITE
        };
        for kind in kinds {
            let (other, group) = (cell.stamps[kind], cell.groups[kind]);
            if conflict.is_none() && self.races(other, group, ordered) {
                conflict = Some(Conflict {
                    other,
                    group,
                    other_wrote: kind == WRITE,
                });
            }
        }
        let kind = if self.is_write {
            cell.stamps[READ] = Stamp::NONE;
            cell.stamps[NEWEST_READ] = Stamp::NONE;
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
    /// By kind: words of a lane, as a power of two.
    words: [u8; 3],
    /// Its cells are apart.
    is_split: bool,
}

/// Who last accessed each granule of a range of memory. Granules are as large as the smallest access so far.
#[derive(Debug)]
pub(crate) struct Shadow<G> {
    shift: u32,
    segments: Vec<Segment<G>>,
    /// Empty until a segment is split.
    cells: Vec<Cell<G>>,
}

/// Shadow of a block's shared memory.
pub(crate) type SharedShadow = Shadow<()>;

impl<G: Tag> Shadow<G> {
    pub(crate) fn new(bytes: usize) -> Self {
        let segment = Segment {
            cell: Cell::fresh(),
            words: [0; 3],
            is_split: false,
        };
        Self {
            shift: COARSEST,
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
        let Segment { cell, words, .. } = self.segments[index];
        let lanes = (cell.stamps.iter().zip(words)).filter(|(stamp, _)| **stamp != Stamp::NONE);
        let finest = lanes.map(|(_, words)| u32::from(words) + 2).min();
        if let Some(finest) = finest.filter(|&finest| finest < self.shift) {
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
            *own = cell;
            for (stamp, words) in own.stamps.iter_mut().zip(words) {
                *stamp = stamp.after(part << shift >> words);
            }
        }
    }

    /// Makes granules smaller.
    #[cold]
    fn refine(&mut self, shift: u32) {
        if shift < 2 {
            // What is smaller than a word is not in a segment's cell.
            for index in 0..self.segments.len() {
                if !self.segments[index].is_split {
                    self.split_segment(index);
                }
            }
        }
        let parts = 1 << (self.shift - shift);
        self.cells = (self.cells.iter())
            .flat_map(|&cell| std::iter::repeat_n(cell, parts))
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
        let fine = (offset | bytes).trailing_zeros();
        if fine < self.shift {
            self.refine(fine);
        }
        for index in offset / SEGMENT..=(offset + bytes - 1) / SEGMENT {
            if (self.segments.get(index as usize)).is_some_and(|segment| !segment.is_split) {
                self.split_segment(index as usize);
            }
        }
        let (first, end) = (offset >> self.shift, (offset + bytes) >> self.shift);
        let end = (end as usize).min(self.cells.len());
        let mut conflict = None;
        for cell in self.cells.get_mut(first as usize..end).unwrap_or_default() {
            let found = access.touch(cell, &ordered);
            conflict = conflict.or(found);
        }
        conflict
    }

    /// As [`Self::access`] of every lane of a mask, wherever they are; `found` is told of conflicts, by lane. `access` is that of
    /// any lane.
    #[inline(always)]
    pub(crate) fn access_lanes(
        &mut self,
        offsets: &[u32; 32],
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
            let offset = u64::from(offsets[lane]);
            // The common case: one granule that nobody else has had since.
            if bytes == 1 << self.shift
                && let Some(segment) = self.segments.get((offset / SEGMENT) as usize)
                && segment.is_split
                && let Some(cell) = self.cells.get_mut((offset >> self.shift) as usize)
                && own.follows(cell.stamps[WRITE], cell.groups[WRITE])
                && own.follows(cell.stamps[READ], cell.groups[READ])
                && !(own.is_write && cell.stamps[NEWEST_READ] != Stamp::NONE)
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

    /// As [`Self::access`] of every lane of a warp, of 4, 8 or 16 bytes each that lie side by side. `access` is that of lane 0,
    /// and `ordered` says whether another access is before that of every lane. Whether the access is recorded: where it is not,
    /// nothing has changed, and the lanes have to be looked at one by one.
    #[inline(always)]
    pub(crate) fn access_row(
        &mut self,
        offset: u64,
        bytes: u64,
        access: &Access<G>,
        ordered: impl Fn(Stamp, G) -> bool,
    ) -> bool {
        if self.shift < 2 || !offset.is_multiple_of(SEGMENT) || !matches!(bytes, 4 | 8 | 16) {
            return false;
        }
        let words = (bytes / 4).trailing_zeros() as u8;
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
                if !own.is_write || !self.is_past(first + part, &own, words) {
                    return false;
                }
                continue;
            }
            let (stamps, groups) = (&segment.cell.stamps, &segment.cell.groups);
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
                |kind: usize| !(follows(kind) || stamps[kind].is_atomic() && own.stamp.is_atomic());
            if own.is_write {
                if races(WRITE) || races(READ) || races(NEWEST_READ) {
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
                segment.cell.stamps[WRITE].after(word >> segment.words[WRITE])
            }
            Some(_) => self.cells[(offset >> self.shift) as usize].stamps[WRITE],
            None => Stamp::NONE,
        }
    }
}

/// What was found out last about other warps' accesses: those of one instruction follow one another.
#[derive(Debug, Default)]
pub(crate) struct Memo<G: Copy>(std::cell::Cell<(u64, G, bool)>);

impl<G: Tag> Memo<G> {
    /// Whether an access of another warp is before; `find_out` depends on its warp and time only.
    #[inline(always)]
    pub(crate) fn is_before(
        &self,
        other: Stamp,
        group: G,
        find_out: impl FnOnce() -> bool,
    ) -> bool {
        let key = other.0 >> SLOT_SHIFT;
        let (known, of, is_before) = self.0.get();
        if known == key && of == group {
            return is_before;
        }
        let is_before = find_out();
        self.0.set((key, group, is_before));
        is_before
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
    #[inline(always)]
    fn page(&mut self, number: u64) -> &mut Shadow<u32> {
        if self.last.0 != number || self.pages.is_empty() {
            let fresh = self.pages.len();
            let at = *self.index.entry(number).or_insert(fresh);
            if at == fresh {
                self.pages.push(Shadow::new(PAGE as usize));
            }
            self.last = (number, at);
        }
        &mut self.pages[self.last.1]
    }

    /// As [`Shadow::access`], of an access that is aligned to its size, and so within one page.
    #[inline(always)]
    pub(crate) fn access(
        &mut self,
        address: u64,
        bytes: u64,
        access: &Access<u32>,
        ordered: impl Fn(Stamp, u32) -> bool,
    ) -> Option<Conflict<u32>> {
        self.page(address / PAGE)
            .access(address % PAGE, bytes, access, ordered)
    }

    /// As [`Shadow::access_row`].
    #[inline(always)]
    pub(crate) fn access_row(
        &mut self,
        address: u64,
        bytes: u64,
        access: &Access<u32>,
        ordered: impl Fn(Stamp, u32) -> bool,
    ) -> bool {
        self.page(address / PAGE)
            .access_row(address % PAGE, bytes, access, ordered)
    }
}

#[cfg(test)]
mod tests;
