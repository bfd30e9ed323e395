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
//! What bounds it: latency. With it, positions, slots, lengths and page tables stay on the device from one decode step to the next;
//! the host only says which page a request gets that needs one. No forward pass uses it yet.

pub(crate) mod launch;

use crate::Cost;

/// The batch in host memory: as [`reference`] takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// `[requests]`: positions that each request has.
    pub kv_len: Vec<i32>,
    /// `[requests, max_pages]`.
    pub page_table: Vec<i32>,
    /// `[requests]`: of this step's tokens.
    pub positions: Vec<i32>,
    /// `[requests]`: of this step's tokens.
    pub slots: Vec<i32>,
}

/// Moves every request on by a position. `new_pages` `[requests]` is read where a request begins a page.
///
/// # Panics
/// When a slice is shorter than its shape, or a request's next page lies past its row.
pub fn reference(tables: &mut Tables, new_pages: &[i32], max_pages: usize, page_size: usize) {
    for (r, len) in tables.kv_len.iter_mut().enumerate() {
        let position = *len as usize;
        let pages = &mut tables.page_table[r * max_pages..(r + 1) * max_pages];
        let entry = &mut pages[position / page_size];
        if position.is_multiple_of(page_size) {
            *entry = new_pages[r];
        }
        tables.positions[r] = position as i32;
        tables.slots[r] = *entry * page_size as i32 + (position % page_size) as i32;
        *len += 1;
    }
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
        let mut tables = Tables {
            kv_len: vec![0, 3, 4],
            page_table: vec![-1, -1, 7, -1, 5, -1],
            positions: vec![-1; 3],
            slots: vec![-1; 3],
        };
        reference(&mut tables, &[9, 90, 2], 2, 4);
        let expected = Tables {
            kv_len: vec![1, 4, 5],
            page_table: vec![9, -1, 7, -1, 5, 2],
            positions: vec![0, 3, 4],
            slots: vec![36, 31, 8],
        };
        assert_eq!(tables, expected);
        assert_eq!(cost(3, 2).bytes(), 68);
    }
}
