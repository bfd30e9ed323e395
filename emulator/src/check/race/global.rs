//! Shadow of global memory, and what is remembered of accesses to it.

use std::collections::HashMap;

use super::{Access, Conflict, SLOT_SHIFT, Shadow, Stamp, Tag};

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
}
