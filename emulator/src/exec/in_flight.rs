//! Where in a block's shared memory asynchronous copies are under way to.

use std::ops::Range;

/// How many copies are under way to every 4 bytes; nothing where races are not looked for.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    cells: Vec<u8>,
    /// Of all cells: where nothing is under way, nobody needs to look at them.
    total: u64,
}

/// The places of some bytes.
#[inline(always)]
fn places(bytes: Range<u32>) -> Range<usize> {
    bytes.start as usize / 4..bytes.end.div_ceil(4) as usize
}

impl InFlight {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            cells: vec![0; bytes.div_ceil(4)],
            total: 0,
        }
    }

    /// A copy to some bytes begins.
    #[inline(always)]
    pub(super) fn begin(&mut self, bytes: Range<u32>) {
        if self.cells.is_empty() {
            return;
        }
        let cells = &mut self.cells[places(bytes)];
        self.total += cells.len() as u64;
        for cell in cells {
            *cell = cell.saturating_add(1);
        }
    }

    /// A copy to some bytes, which began, is made.
    #[inline(always)]
    pub(super) fn end(&mut self, bytes: Range<u32>) {
        if self.cells.is_empty() {
            return;
        }
        let cells = &mut self.cells[places(bytes)];
        self.total -= cells.len() as u64;
        for cell in cells {
            *cell = cell.saturating_sub(1);
        }
    }

    /// Whether no copy is under way at all.
    #[inline(always)]
    pub(super) fn is_quiet(&self) -> bool {
        self.total == 0
    }

    /// Whether a copy is under way to some of these bytes.
    #[inline(always)]
    pub(super) fn any(&self, bytes: Range<u32>) -> bool {
        if self.is_quiet() {
            return false;
        }
        let cells = &self.cells[places(bytes)];
        cells.iter().fold(0, |any, count| any | count) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_under_way_until_as_many_have_ended() {
        let mut copies = InFlight::new(64);
        copies.begin(16..32);
        copies.begin(16..20);
        assert!(copies.any(16..17) && copies.any(28..64) && !copies.any(0..16));
        copies.end(16..32);
        assert!(copies.any(0..64) && !copies.any(20..64));
        copies.end(16..20);
        assert!(copies.is_quiet() && !copies.any(0..64));
    }
}
