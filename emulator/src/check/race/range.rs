//! Accesses of asynchronous operations: to ranges of memory, as the tile of a copy or the operand of a matrix instruction.

use std::ops::Range;

use super::{Access, Cell, Conflict, NEWEST_READ, READ, SEGMENT, Shadow, Stamp, Tag, WRITE};

/// What became of a granule. One operation makes the same of granules that were the same before, and most of a range's are: they
/// were last written by one copy, and read by the same warps.
#[derive(Debug)]
pub(crate) struct Outcome<G> {
    before: Cell<G>,
    after: Cell<G>,
    conflict: Option<Conflict<G>>,
}

impl<G: Tag> Outcome<G> {
    /// Whether a read makes of a granule what it made of this one: the reads before it are the same, and both were written in
    /// the past, whoever did.
    #[inline(always)]
    fn is_of_read(&self, access: &Access<G>, cell: &Cell<G>) -> bool {
        let is_past = |cell: &Cell<G>| {
            let (write, group) = (cell.stamps[WRITE], cell.groups[WRITE]);
            write == Stamp::NONE || group == access.group && write.0 < access.limit
        };
        let is_same = |kind: usize| {
            (cell.stamps[kind], cell.groups[kind])
                == (self.before.stamps[kind], self.before.groups[kind])
        };
        !access.is_write
            && is_same(READ)
            && is_same(NEWEST_READ)
            && is_past(cell)
            && is_past(&self.before)
    }

    /// Of granules that nobody has accessed.
    pub(crate) fn of_fresh(access: &Access<G>) -> Self {
        let before = Cell::fresh();
        let mut after = before;
        let conflict = access.touch(&mut after, &|_, _| true);
        Self {
            before,
            after,
            conflict,
        }
    }
}

impl<G: Tag> Shadow<G> {
    /// As [`Shadow::access`] of every 4 bytes of a range. `seen` is told of each granule, its last write before, and what the
    /// access to each 4 bytes of it conflicts with. `outcome` is kept from one range of an operation to the next.
    #[inline(always)]
    pub(crate) fn access_range(
        &mut self,
        range: Range<u64>,
        access: &Access<G>,
        outcome: &mut Outcome<G>,
        ordered: &impl Fn(Stamp, G) -> bool,
        mut seen: impl FnMut(Range<u64>, Stamp, Option<Conflict<G>>),
    ) {
        if range.is_empty() {
            return;
        }
        let fine = (range.start | range.end).trailing_zeros();
        if self.shift < 2 || fine < 2 {
            for offset in range.step_by(4) {
                let last = self.last_write(offset);
                let conflict = self.access(offset, 4, access, ordered);
                seen(offset..offset + 4, last, conflict);
            }
            return;
        }
        if self.part.is_some() || fine < self.shift {
            self.refine(fine.min(self.shift));
        }
        for index in range.start / SEGMENT..=(range.end - 1) / SEGMENT {
            if (self.segments.get(index as usize)).is_some_and(|segment| !segment.is_split) {
                self.split_segment(index as usize);
            }
        }
        let (first, end) = (range.start >> self.shift, range.end >> self.shift);
        let bytes = 1 << self.shift;
        let end = (end as usize).min(self.cells.len());
        let mut offset = range.start;
        for cell in self.cells.get_mut(first as usize..end).unwrap_or_default() {
            let before = *cell;
            let conflict = if outcome.is_of_read(access, &before) {
                for kind in [READ, NEWEST_READ] {
                    cell.stamps[kind] = outcome.after.stamps[kind];
                    cell.groups[kind] = outcome.after.groups[kind];
                }
                None
            } else if before == outcome.before {
                *cell = outcome.after;
                outcome.conflict
            } else {
                let conflict = access.touch(cell, ordered);
                *outcome = Outcome {
                    before,
                    after: *cell,
                    conflict,
                };
                conflict
            };
            seen(offset..offset + bytes, before.stamps[WRITE], conflict);
            offset += bytes;
        }
    }
}
