//! Where the positions of a batch lie in the KV pool.

use crate::cpu::CpuKvPool;
use crate::{AttentionBatch, Error, QkvLayout};

/// Checks that every position that `batch` mentions lies in the pool and every query row in its buffers, so that what
/// reads them need not.
///
/// # Errors
/// Names the request and the value that is out of range.
pub(crate) fn check(
    batch: &AttentionBatch<'_, Vec<i32>>,
    layout: QkvLayout,
    kv: &CpuKvPool,
) -> Result<(), Error> {
    let pool = kv.layout();
    if (layout.kv_heads, layout.head_dim) != (pool.kv_heads, pool.head_dim) {
        return Err(Error::shape(format!(
            "attention over {layout:?} needs a KV pool of the same heads, not {pool:?}"
        )));
    }
    let empty = layout.heads == 0 || layout.kv_heads == 0 || layout.head_dim == 0;
    if empty || !layout.heads.is_multiple_of(layout.kv_heads) {
        return Err(Error::shape(format!(
            "attention needs heads, and KV heads that divide the query heads, not {layout:?}"
        )));
    }
    let AttentionBatch {
        requests,
        tokens,
        page_size,
        max_pages,
        ..
    } = *batch;
    let slots = kv.slots();
    let mut end = 0;
    for r in 0..requests {
        let refuse = |what: String| Err(Error::shape(format!("request {r} of the batch: {what}")));
        let start = end;
        end = match usize::try_from(batch.query_start[r + 1]) {
            Ok(end) if batch.query_start[r] as usize == start && end >= start && end <= tokens => {
                end
            }
            _ => {
                let rows = &batch.query_start[r..=r + 1];
                return refuse(format!(
                    "query rows {rows:?} do not continue at {start} of {tokens}"
                ));
            }
        };
        let kv_len = usize::try_from(batch.kv_len[r]).unwrap_or(0);
        if kv_len < end - start || kv_len > max_pages * page_size {
            let queries = end - start;
            return refuse(format!(
                "{} positions, of which {queries} are queries, in {max_pages} pages of {page_size}",
                batch.kv_len[r]
            ));
        }
        let pages = &batch.page_table[r * max_pages..][..kv_len.div_ceil(page_size.max(1))];
        for (i, &page) in pages.iter().enumerate() {
            let used = page_size.min(kv_len - i * page_size);
            let fits = usize::try_from(page).is_ok_and(|p| p * page_size + used <= slots);
            if !fits {
                return refuse(format!(
                    "page {page} of {page_size} slots is outside the KV pool of {slots}"
                ));
            }
        }
    }
    Ok(())
}

/// One request as attention sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// Its first query row.
    pub(crate) first_row: usize,
    /// Its query rows.
    pub(crate) query_len: usize,
    /// Its positions, of which the last `query_len` are queries.
    pub(crate) kv_len: usize,
}

/// Request `r` of a checked batch.
pub(crate) fn request(batch: &AttentionBatch<'_, Vec<i32>>, r: usize) -> Request {
    let first_row = batch.query_start[r] as usize;
    Request {
        first_row,
        query_len: batch.query_start[r + 1] as usize - first_row,
        kv_len: batch.kv_len[r] as usize,
    }
}

/// Where head `kv_head` of each of `positions` of request `r` starts in keys or values `[slots, kv_heads, head_dim]`, in elements,
/// into the front of `offsets`. The batch was checked.
pub(crate) fn offsets(
    batch: &AttentionBatch<'_, Vec<i32>>,
    layout: QkvLayout,
    r: usize,
    kv_head: usize,
    positions: std::ops::Range<usize>,
    offsets: &mut [usize],
) {
    let page_size = batch.page_size;
    let pages = &batch.page_table[r * batch.max_pages..][..positions.end.div_ceil(page_size)];
    let stride = layout.kv_width();
    let first = kv_head * layout.head_dim;
    let offsets = &mut offsets[..positions.len()];
    let mut within = positions.start % page_size;
    let mut done = 0;
    for &page in &pages[positions.start / page_size..] {
        let slot = page as usize * page_size + within;
        let count = (page_size - within).min(offsets.len() - done);
        for (i, offset) in offsets[done..done + count].iter_mut().enumerate() {
            *offset = (slot + i) * stride + first;
        }
        done += count;
        within = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    const LAYOUT: QkvLayout = QkvLayout {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
    };

    /// The answer for a batch of two requests over a pool of 12 slots, as `change` makes it.
    fn check_of(change: impl Fn(&mut [Vec<i32>; 3], &mut QkvLayout, &mut usize)) -> String {
        let mut values = [vec![0, 2, 3], vec![5, 1], vec![0, 2, 1, -1]];
        let (mut layout, mut page_size) = (LAYOUT, 4);
        change(&mut values, &mut layout, &mut page_size);
        let [query_start, kv_len, page_table] = values;
        let kv = CpuKvPool::new(1, 12, LAYOUT, DType::F32).unwrap();
        let batch = AttentionBatch {
            requests: 2,
            tokens: 3,
            max_query_len: 2,
            max_kv_len: 5,
            query_start: &query_start,
            kv_len: &kv_len,
            page_table: &page_table,
            max_pages: 2,
            page_size,
        };
        check(&batch, layout, &kv).map_or_else(|e| e.to_string(), |()| "fits".to_owned())
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(check_of(|_, _, _| ()), "fits");
        assert_eq!(
            check_of(|v, _, _| v[2][1] = 3),
            "request 0 of the batch: page 3 of 4 slots is outside the KV pool of 12"
        );
        assert_eq!(
            check_of(|v, _, _| v[2][2] = -1),
            "request 1 of the batch: page -1 of 4 slots is outside the KV pool of 12"
        );
        assert_eq!(
            check_of(|v, _, _| v[1][0] = 9),
            "request 0 of the batch: 9 positions, of which 2 are queries, in 2 pages of 4"
        );
        assert_eq!(
            check_of(|v, _, _| v[1][0] = 1),
            "request 0 of the batch: 1 positions, of which 2 are queries, in 2 pages of 4"
        );
        assert_eq!(
            check_of(|v, _, _| v[0][2] = 4),
            "request 1 of the batch: query rows [2, 4] do not continue at 2 of 3"
        );
        assert_eq!(
            check_of(|v, _, _| v[0][0] = -1),
            "request 0 of the batch: query rows [-1, 2] do not continue at 0 of 3"
        );
        assert!(check_of(|_, _, page_size| *page_size = 0).contains("in 2 pages of 0"));
        assert!(check_of(|_, layout, _| layout.heads = 5).contains("divide the query heads"));
        assert!(check_of(|_, layout, _| layout.heads = 0).contains("attention needs heads"));
        assert!(
            check_of(|_, layout, _| layout.head_dim = 4).contains("a KV pool of the same heads")
        );
    }
}
