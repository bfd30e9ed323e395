use crate::Error;

/// Hands out the pages of the KV cache. A page is `page_size` consecutive slots; a slot holds one token's keys and values
/// in every layer.
///
/// Pages that were never used are handed out in ascending order, so that a short run touches only the front of the pool,
/// whose memory the system commits as it is written. Released pages are handed out again first.
#[derive(Debug)]
pub struct KvAllocator {
    page_size: usize,
    pages: usize,
    released: Vec<u32>,
    never_used: u32,
    peak_in_use: usize,
}

impl KvAllocator {
    /// A pool of `pages` free pages.
    ///
    /// # Errors
    /// When slots could not be numbered by 31 bits, which the kernels' indices are.
    pub fn new(pages: usize, page_size: usize) -> Result<KvAllocator, Error> {
        let slots = pages
            .checked_mul(page_size)
            .filter(|&n| n <= i32::MAX as usize);
        if slots.is_none() || page_size == 0 {
            return Err(Error::input(format!(
                "a KV pool of {pages} pages of {page_size} slots is not possible: slots are numbered from 0 to {}; \
                 lower --max-total-tokens",
                i32::MAX
            )));
        }
        Ok(KvAllocator {
            page_size,
            pages,
            released: Vec::new(),
            never_used: 0,
            peak_in_use: 0,
        })
    }

    /// Slots per page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// All slots of the pool.
    pub fn slots(&self) -> usize {
        self.pages * self.page_size
    }

    /// Pages that can still be handed out.
    pub fn free_pages(&self) -> usize {
        self.released.len() + (self.pages - self.never_used as usize)
    }

    /// The most slots that were ever handed out at once, counted in whole pages.
    pub fn peak_slots(&self) -> usize {
        self.peak_in_use * self.page_size
    }

    /// Pages that a request of `old_len` tokens needs to grow to `new_len`.
    pub fn pages_to_grow(&self, old_len: usize, new_len: usize) -> usize {
        new_len.div_ceil(self.page_size) - old_len.div_ceil(self.page_size)
    }

    /// Takes `count` pages and appends them to `out`; takes none if there are fewer.
    ///
    /// # Errors
    /// When the pool is exhausted.
    pub fn take(&mut self, count: usize, out: &mut Vec<u32>) -> Result<(), Error> {
        let free = self.free_pages();
        if count > free {
            return Err(Error::failed(format!(
                "the KV pool is exhausted: {count} pages of {} tokens were asked for, {free} of {} are free; \
                 use a smaller batch or shorter lengths, or raise --max-total-tokens",
                self.page_size, self.pages
            )));
        }
        let reused = count.min(self.released.len());
        out.extend(self.released.drain(self.released.len() - reused..).rev());
        for _ in reused..count {
            out.push(self.never_used);
            self.never_used += 1;
        }
        self.peak_in_use = self.peak_in_use.max(self.pages - self.free_pages());
        Ok(())
    }

    /// Gives pages back. A page must have been taken and not yet released.
    pub fn release(&mut self, pages: impl IntoIterator<Item = u32>) {
        for page in pages {
            debug_assert!(page < self.never_used, "page {page} was never taken");
            debug_assert!(
                !self.released.contains(&page),
                "page {page} was released twice"
            );
            self.released.push(page);
        }
    }

    /// Gives every page back.
    pub fn clear(&mut self) {
        self.released.clear();
        self.never_used = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_pages_ascend_and_released_ones_return_first() {
        let mut pool = KvAllocator::new(8, 4).unwrap();
        let mut pages = Vec::new();
        pool.take(3, &mut pages).unwrap();
        assert_eq!(pages, [0, 1, 2]);
        pool.release([1]);
        pages.clear();
        pool.take(2, &mut pages).unwrap();
        assert_eq!(pages, [1, 3]);
        assert_eq!(pool.peak_slots(), 16);
    }

    #[test]
    fn exhaustion_takes_nothing_and_says_how_much_is_free() {
        let mut pool = KvAllocator::new(2, 16).unwrap();
        let mut pages = Vec::new();
        let error = pool.take(3, &mut pages).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the KV pool is exhausted: 3 pages of 16 tokens were asked for, 2 of 2 are free; use a smaller batch or \
             shorter lengths, or raise --max-total-tokens"
        );
        assert!(pages.is_empty());
        assert_eq!(pool.free_pages(), 2);
        pool.take(2, &mut pages).unwrap();
        assert!(pool.take(1, &mut pages).is_err());
    }

    #[test]
    fn growth_is_counted_in_whole_pages() {
        let pool = KvAllocator::new(8, 16).unwrap();
        for (old, new, pages) in [
            (0, 1, 1),
            (0, 16, 1),
            (0, 17, 2),
            (16, 17, 1),
            (15, 16, 0),
            (1, 33, 2),
        ] {
            assert_eq!(pool.pages_to_grow(old, new), pages, "{old} -> {new}");
        }
    }

    #[test]
    fn a_pool_beyond_31_bits_is_refused() {
        assert!(KvAllocator::new(usize::MAX, 16).is_err());
        assert!(KvAllocator::new(1 << 27, 16).is_err());
        assert!(KvAllocator::new(4, 0).is_err());
    }

    proptest! {
        /// However pages are taken and released, no page is held twice and none is lost.
        #[test]
        fn pages_are_conserved(actions in prop::collection::vec((any::<bool>(), 1_usize..6), 1..200)) {
            const PAGES: usize = 24;
            let mut pool = KvAllocator::new(PAGES, 3).unwrap();
            let mut held: Vec<u32> = Vec::new();
            for (take, count) in actions {
                if take {
                    let before = held.len();
                    match pool.take(count, &mut held) {
                        Ok(()) => prop_assert_eq!(held.len(), before + count),
                        Err(_) => prop_assert!(count > PAGES - before),
                    }
                } else {
                    let at = held.len().saturating_sub(count);
                    pool.release(held.split_off(at));
                }
                let distinct: HashSet<_> = held.iter().collect();
                prop_assert_eq!(distinct.len(), held.len());
                prop_assert!(held.iter().all(|&p| (p as usize) < PAGES));
                prop_assert_eq!(pool.free_pages(), PAGES - held.len());
            }
            pool.clear();
            prop_assert_eq!(pool.free_pages(), PAGES);
        }
    }
}
