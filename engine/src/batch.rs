//! A batch as a step's kernels see it: flat arrays of integers, laid out on the host and copied to the device.

use stepscope_kernels::advance::Tables;
use stepscope_kernels::{AttentionBatch, Backend};
use stepscope_profiler::StepKind;

use crate::Error;
use crate::forward::Chunk;

/// A step's integers on the device.
#[derive(Debug)]
pub(crate) struct StepIndices<B: Backend> {
    /// Input ids of a chunk, then the ids that were sampled, which the next decode step reads in place.
    pub(crate) ids: B::Indices,
    pub(crate) positions: B::Indices,
    pub(crate) slots: B::Indices,
    pub(crate) query_start: B::Indices,
    pub(crate) kv_len: B::Indices,
    pub(crate) page_table: B::Indices,
    pub(crate) last_rows: B::Indices,
    /// Of each request that begins a page in a decode step, that page.
    pub(crate) new_pages: B::Indices,
}

impl<B: Backend> StepIndices<B> {
    pub(crate) fn new(
        backend: &B,
        tokens: usize,
        requests: usize,
        pages: usize,
    ) -> Result<StepIndices<B>, Error> {
        Ok(StepIndices {
            ids: backend.indices(tokens.max(requests))?,
            positions: backend.indices(tokens)?,
            slots: backend.indices(tokens)?,
            query_start: backend.indices(requests + 1)?,
            kv_len: backend.indices(requests)?,
            page_table: backend.indices(requests * pages)?,
            last_rows: backend.indices(requests)?,
            new_pages: backend.indices(requests)?,
        })
    }

    /// Copies a chunk of a prefill.
    pub(crate) fn write(&mut self, backend: &B, host: &HostBatch) -> Result<(), Error> {
        backend.write_indices(&mut self.ids, &host.ids)?;
        backend.write_indices(&mut self.positions, &host.positions)?;
        backend.write_indices(&mut self.slots, &host.slots)?;
        self.write_tables(backend, host)
    }

    /// Copies what a decode step needs: the pages that requests begin, and, unless the step before left them there, the tables
    /// as they were before this step.
    pub(crate) fn write_decode(
        &mut self,
        backend: &B,
        host: &HostBatch,
        has_tables: bool,
    ) -> Result<(), Error> {
        if !has_tables {
            self.write_tables(backend, host)?;
        }
        if host.begun > 0 {
            backend.write_indices(&mut self.new_pages, &host.begun_pages)?;
        }
        Ok(())
    }

    fn write_tables(&mut self, backend: &B, host: &HostBatch) -> Result<(), Error> {
        backend.write_indices(&mut self.query_start, &host.query_start)?;
        backend.write_indices(&mut self.kv_len, &host.kv_len)?;
        backend.write_indices(&mut self.page_table, &host.page_table)?;
        backend.write_indices(&mut self.last_rows, &host.last_rows)?;
        Ok(())
    }

    /// What a decode step moves on by a position.
    pub(crate) fn tables(&mut self, host: &HostBatch, page_size: usize) -> Tables<'_, B::Indices> {
        Tables {
            kv_len: &mut self.kv_len,
            page_table: &mut self.page_table,
            positions: &mut self.positions,
            slots: &mut self.slots,
            new_pages: &self.new_pages,
            requests: host.lengths.len(),
            max_pages: host.max_pages,
            page_size,
        }
    }
}

/// The same on the host, reused from step to step.
#[derive(Debug, Default)]
pub(crate) struct HostBatch {
    pub(crate) ids: Vec<i32>,
    pub(crate) positions: Vec<i32>,
    pub(crate) slots: Vec<i32>,
    pub(crate) query_start: Vec<i32>,
    pub(crate) kv_len: Vec<i32>,
    pub(crate) page_table: Vec<i32>,
    pub(crate) max_pages: usize,
    /// The most positions of any request, where a launch must not depend on what they are now.
    pub(crate) kv_len_bound: Option<usize>,
    pub(crate) last_rows: Vec<i32>,
    /// `(query_len, kv_len)` per request.
    pub(crate) lengths: Vec<(usize, usize)>,
    /// Of each request of a decode step the page that it begins, if it begins one.
    pub(crate) begun_pages: Vec<i32>,
    /// How many begin one.
    pub(crate) begun: usize,
    pub(crate) new_pages: Vec<u32>,
    pub(crate) new_slots: Vec<i32>,
}

impl HostBatch {
    pub(crate) fn clear_chunk(&mut self) {
        self.ids.clear();
        self.positions.clear();
        self.slots.clear();
        self.query_start.clear();
        self.query_start.push(0);
        self.kv_len.clear();
        self.page_table.clear();
        self.last_rows.clear();
        self.lengths.clear();
        self.begun_pages.clear();
        self.begun = 0;
        self.kv_len_bound = None;
    }

    /// Adds `count` tokens of a request, at positions `start ..`, whose slots stand in `row`.
    pub(crate) fn push_request(
        &mut self,
        row: &[i32],
        start: usize,
        count: usize,
        page_size: usize,
    ) {
        let end = start + count;
        self.positions.extend((start..end).map(|p| p as i32));
        self.slots.extend_from_slice(&row[start..end]);
        self.query_start.push(self.positions.len() as i32);
        self.lengths.push((count, end));
        self.push_tables(row, end, page_size);
    }

    /// Adds a request of a decode step that has `len` positions, and whose new one has its slot in `row` already; with what tells
    /// of the positions before, unless the device has that.
    pub(crate) fn push_decode(
        &mut self,
        row: &[i32],
        len: usize,
        page_size: usize,
        has_tables: bool,
    ) {
        self.last_rows.push(self.lengths.len() as i32);
        self.lengths.push((1, len + 1));
        let begins = len.is_multiple_of(page_size);
        self.begun += usize::from(begins);
        let page = if begins {
            row[len] / page_size as i32
        } else {
            0
        };
        self.begun_pages.push(page);
        if !has_tables {
            self.query_start.push(self.lengths.len() as i32);
            self.push_tables(row, len, page_size);
        }
    }

    /// A request's length, and the pages of its `end` positions.
    fn push_tables(&mut self, row: &[i32], end: usize, page_size: usize) {
        self.kv_len.push(end as i32);
        let pages = self.page_table.len();
        self.page_table.extend(
            row[..end]
                .iter()
                .step_by(page_size)
                .map(|&slot| slot / page_size as i32),
        );
        self.page_table.resize(pages + self.max_pages, 0);
    }

    /// Decode steps of `requests` requests of `len` positions, as far as launches depend on them.
    pub(crate) fn of_decode(requests: usize, len: usize, max_pages: usize) -> HostBatch {
        HostBatch {
            last_rows: vec![0; requests],
            lengths: vec![(1, len); requests],
            max_pages,
            kv_len_bound: Some(len),
            ..HostBatch::default()
        }
    }

    /// What the forward pass takes, with the last hidden states going to `last_first` and on.
    pub(crate) fn chunk<'a, B: Backend>(
        &'a self,
        kind: StepKind,
        indices: &'a StepIndices<B>,
        page_size: usize,
        last_first: usize,
    ) -> Chunk<'a, B> {
        Chunk {
            kind,
            ids: &indices.ids,
            positions: &indices.positions,
            slots: &indices.slots,
            attention: self.attention(indices, page_size),
            lengths: &self.lengths,
            last_rows: &indices.last_rows,
            last_count: self.last_rows.len(),
            last_first,
        }
    }

    fn attention<'a, B: Backend>(
        &self,
        indices: &'a StepIndices<B>,
        page_size: usize,
    ) -> AttentionBatch<'a, B::Indices> {
        AttentionBatch {
            requests: self.lengths.len(),
            tokens: self.lengths.iter().map(|l| l.0).sum(),
            max_query_len: self.lengths.iter().map(|l| l.0).max().unwrap_or(0),
            max_kv_len: self
                .kv_len_bound
                .unwrap_or_else(|| self.lengths.iter().map(|l| l.1).max().unwrap_or(0)),
            query_start: &indices.query_start,
            kv_len: &indices.kv_len,
            page_table: &indices.page_table,
            max_pages: self.max_pages,
            page_size,
        }
    }
}

/// A part of a prefill: tokens `from .. from + count` of what request `request` adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) request: usize,
    pub(crate) from: usize,
    pub(crate) count: usize,
}

/// Cuts the new tokens of a batch into chunks of up to `limit` tokens, in order.
pub(crate) fn chunks(new_lens: &[usize], limit: usize) -> Vec<Vec<Part>> {
    let mut chunks = Vec::new();
    let mut chunk = Vec::new();
    let mut room = limit;
    for (request, &len) in new_lens.iter().enumerate() {
        let mut from = 0;
        while from < len {
            if room == 0 {
                chunks.push(std::mem::take(&mut chunk));
                room = limit;
            }
            let count = room.min(len - from);
            chunk.push(Part {
                request,
                from,
                count,
            });
            from += count;
            room -= count;
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunks_cut_at_the_limit_and_keep_order() {
        let part = |request, from, count| Part {
            request,
            from,
            count,
        };
        assert_eq!(
            chunks(&[3, 6, 1], 4),
            [
                vec![part(0, 0, 3), part(1, 0, 1)],
                vec![part(1, 1, 4)],
                vec![part(1, 5, 1), part(2, 0, 1)],
            ]
        );
        assert_eq!(chunks(&[4], 4), [vec![part(0, 0, 4)]]);
        assert!(chunks(&[], 4).is_empty());
    }

    proptest! {
        /// Every token is in one chunk, in order, and no chunk is over the limit.
        #[test]
        fn chunks_cover_all_tokens(lens in prop::collection::vec(1_usize..20, 1..8), limit in 1_usize..25) {
            let mut next = vec![0; lens.len()];
            let mut last = 0;
            for chunk in chunks(&lens, limit) {
                prop_assert!(chunk.iter().map(|p| p.count).sum::<usize>() <= limit);
                for part in chunk {
                    prop_assert!(part.request >= last);
                    prop_assert_eq!(part.from, next[part.request]);
                    prop_assert!(part.count > 0);
                    next[part.request] += part.count;
                    last = part.request;
                }
            }
            prop_assert_eq!(next, lens);
        }
    }
}
