//! Shadow of global memory, and what is remembered of accesses to it.

use std::collections::HashMap;
use std::ops::Range;

use super::{Access, Conflict, LANE_SHIFT, Outcome, SLOT_SHIFT, Shadow, Stamp, Tag};

/// What was found out last about other accesses: those of one instruction, or of one operation, are alike. `N` moments of warps
/// are remembered.
#[derive(Debug)]
pub(crate) struct Memo<G: Copy, const N: usize = 1>([std::cell::Cell<(u64, G, bool)>; N]);

impl<G: Tag, const N: usize> Default for Memo<G, N> {
    fn default() -> Self {
        // No access has the key 0.
        Self(std::array::from_fn(|_| Default::default()))
    }
}

impl<G: Tag, const N: usize> Memo<G, N> {
    /// Whether an access of another warp is before; `find_out` depends on its warp and time only.
    #[inline(always)]
    pub(crate) fn is_before(
        &self,
        other: Stamp,
        group: G,
        find_out: impl FnOnce() -> bool,
    ) -> bool {
        self.look_up(other.0 >> SLOT_SHIFT, group, find_out)
    }

    /// As [`Self::is_before`], where `find_out` depends on the lane too.
    #[inline(always)]
    pub(crate) fn is_before_of_lane(
        &self,
        other: Stamp,
        group: G,
        find_out: impl FnOnce() -> bool,
    ) -> bool {
        self.look_up(other.0 >> LANE_SHIFT, group, find_out)
    }

    #[inline(always)]
    fn look_up(&self, key: u64, group: G, find_out: impl FnOnce() -> bool) -> bool {
        // Slots differ in the low bits; where lanes are below them, in those above.
        let place = &self.0[(key ^ key >> 5) as usize % N];
        let (known, of, is_before) = place.get();
        if known == key && of == group {
            return is_before;
        }
        let is_before = find_out();
        place.set((key, group, is_before));
        is_before
    }
}

const PAGE: u64 = 4096;

/// Shadow of global memory, made page by page.
#[derive(Debug)]
pub(crate) struct GlobalShadow {
    index: HashMap<u64, usize>,
    pages: Vec<Shadow<u32>>,
    /// By the low bits of their numbers, pages that were accessed last.
    recent: [(u64, usize); RECENT],
}

const RECENT: usize = 64;

impl Default for GlobalShadow {
    fn default() -> Self {
        Self {
            index: HashMap::new(),
            pages: Vec::new(),
            recent: [(u64::MAX, 0); RECENT],
        }
    }
}

impl GlobalShadow {
    #[inline(always)]
    fn page(&mut self, number: u64) -> &mut Shadow<u32> {
        let recent = &mut self.recent[number as usize % RECENT];
        if recent.0 != number {
            let fresh = self.pages.len();
            let at = *self.index.entry(number).or_insert(fresh);
            if at == fresh {
                self.pages.push(Shadow::new(PAGE as usize));
            }
            *recent = (number, at);
        }
        &mut self.pages[recent.1]
    }

    /// As [`Shadow::access_lanes`], of accesses that are aligned to their size.
    #[inline(always)]
    pub(crate) fn access_lanes(
        &mut self,
        addresses: &[u64; 32],
        mask: u32,
        bytes: u64,
        access: &Access<u32>,
        ordered: impl Fn(usize, Stamp, u32) -> bool,
        mut found: impl FnMut(usize, Conflict<u32>),
    ) {
        let at = |lane: usize| addresses[lane] % PAGE;
        let mut rest = mask;
        while rest != 0 {
            let number = addresses[rest.trailing_zeros() as usize & 31] / PAGE;
            let mut same = 0;
            for (lane, address) in addresses.iter().enumerate() {
                same |= u32::from(address / PAGE == number) << lane;
            }
            let (page, lanes) = (self.page(number), rest & same);
            page.access_lanes(at, lanes, bytes, access, &ordered, &mut found);
            rest &= !same;
        }
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
        size: (u64, u64),
        access: &Access<u32>,
        ordered: impl Fn(Stamp, u32) -> bool,
    ) -> bool {
        self.page(address / PAGE)
            .access_row(address % PAGE, size, access, ordered)
    }

    /// As [`Shadow::access_range`], of a range of whole words; `found` is told of conflicts, by the granule's address.
    pub(crate) fn access_range(
        &mut self,
        range: Range<u64>,
        access: &Access<u32>,
        ordered: impl Fn(Stamp, u32) -> bool,
        mut found: impl FnMut(u64, Conflict<u32>),
    ) {
        let mut outcome = Outcome::of_fresh(access);
        let mut at = range.start;
        while at < range.end {
            let page = at - at % PAGE;
            let end = range.end.min(page + PAGE);
            self.page(at / PAGE).access_range(
                at - page..end - page,
                access,
                &mut outcome,
                &ordered,
                |granule, _, conflict| {
                    if let Some(conflict) = conflict {
                        found(page + granule.start, conflict);
                    }
                },
            );
            at = end;
        }
    }
}
