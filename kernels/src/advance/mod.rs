//! Each request of a decode batch gets a position more: where its new token lies is written to what the step's other operations read.
//!
//! Shapes: `kv_len`, `new_pages`, `positions`, `slots` `[requests]`; `page_table` `[requests, max_pages]`.
//!
//! ```text
//!   position  = kv_len[r]
//!   page      = position / page_size         at the first slot of a page: new_pages[r], which is put into the table
//!   slot      = page_table[r][page] * page_size + position % page_size
//!   kv_len[r] = position + 1
//! ```
//!
//! With it, positions, slots, lengths and page tables stay on the device from one decode step to the next; the host only says
//! which page a request gets that needs one, and a graph of a step holds it as it holds the forward pass.
//!
//! What bounds it: latency. A request is a few integers.

pub(crate) mod launch;

use crate::{Cost, Kernel};

/// A decode batch's tables on a device whose integers are `I`.
#[derive(Debug)]
pub struct Tables<'a, I> {
    /// `[requests]`: positions that each request has.
    pub kv_len: &'a mut I,
    /// `[requests, max_pages]`.
    pub page_table: &'a mut I,
    /// `[requests]`: of this step's tokens.
    pub positions: &'a mut I,
    /// `[requests]`: of this step's tokens.
    pub slots: &'a mut I,
    /// `[requests]`: read where a request begins a page.
    pub new_pages: &'a I,
    /// Requests of the batch.
    pub requests: usize,
    /// Row length of `page_table`, in which each request's next page must lie.
    pub max_pages: usize,
    /// Slots per page.
    pub page_size: usize,
}

/// Moves every request on by a position.
///
/// # Panics
/// When a buffer is shorter than its shape, or a request's next page lies past its row.
pub fn reference(tables: Tables<'_, Vec<i32>>) -> Kernel {
    let (max_pages, page_size) = (tables.max_pages, tables.page_size);
    for r in 0..tables.requests {
        let position = tables.kv_len[r] as usize;
        let pages = &mut tables.page_table[r * max_pages..(r + 1) * max_pages];
        let entry = &mut pages[position / page_size];
        if position.is_multiple_of(page_size) {
            *entry = tables.new_pages[r];
        }
        tables.positions[r] = position as i32;
        tables.slots[r] = *entry * page_size as i32 + (position % page_size) as i32;
        tables.kv_len[r] += 1;
    }
    "advance"
}

/// The work of `requests` of which `begin` begin a page: a length is read and written, position, slot and the table's entry come with
/// it, and the new page where there is one.
pub fn cost(requests: usize, begin: usize) -> Cost {
    Cost {
        activation_bytes: 4 * (5 * requests + begin) as u64,
        ..Cost::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_where_one_begins() {
        let [mut kv_len, mut positions, mut slots] = [vec![0, 3, 4], vec![-1; 3], vec![-1; 3]];
        let mut page_table = vec![-1, -1, 7, -1, 5, -1];
        let kernel = reference(Tables {
            kv_len: &mut kv_len,
            page_table: &mut page_table,
            positions: &mut positions,
            slots: &mut slots,
            new_pages: &vec![9, 90, 2],
            requests: 3,
            max_pages: 2,
            page_size: 4,
        });
        assert_eq!(kernel, "advance");
        assert_eq!(kv_len, [1, 4, 5]);
        assert_eq!(page_table, [9, -1, 7, -1, 5, 2]);
        assert_eq!(positions, [0, 3, 4]);
        assert_eq!(slots, [36, 31, 8]);
        assert_eq!(cost(3, 2).bytes(), 68);
    }
}
