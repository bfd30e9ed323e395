use crate::Error;

/// A request's row in the [`TokenPool`].
#[derive(Debug, PartialEq, Eq)]
pub struct Row(u32);

/// Request → token slots: position `p` of the request that holds row `r` lies in KV slot `slots[r][p]`.
///
/// This is sglang's `req_to_token` pool: `[requests, context]`, one row per running request.
#[derive(Debug)]
pub struct TokenPool {
    slots: Box<[i32]>,
    context_len: usize,
    rows: usize,
    free: Vec<u32>,
}

impl TokenPool {
    /// A pool for `rows` requests of up to `context_len` tokens each. The table's memory is committed as it is written.
    ///
    /// # Errors
    /// When the table is larger than memory.
    pub fn new(rows: usize, context_len: usize) -> Result<TokenPool, Error> {
        let too_large = || {
            let bytes = rows as u128 * context_len as u128 * size_of::<i32>() as u128;
            Error::from(stepscope_kernels::Error::out_of_memory(
                format!("the token pool of {rows} requests of {context_len} tokens"),
                bytes,
            ))
        };
        let len = rows.checked_mul(context_len).ok_or_else(too_large)?;
        u32::try_from(rows).map_err(|_| too_large())?;
        let slots = bytemuck::allocation::try_zeroed_slice_box(len).map_err(|()| too_large())?;
        let mut pool = TokenPool {
            slots,
            context_len,
            rows,
            free: Vec::with_capacity(rows),
        };
        pool.clear();
        Ok(pool)
    }

    /// Bytes of the table at its full size.
    pub fn bytes(&self) -> u64 {
        size_of_val::<[i32]>(&self.slots) as u64
    }

    /// The most tokens a request can have.
    pub fn context_len(&self) -> usize {
        self.context_len
    }

    /// Rows that no request holds.
    pub fn free_rows(&self) -> usize {
        self.free.len()
    }

    /// Takes `count` rows; takes none if there are fewer.
    ///
    /// # Errors
    /// When too many requests run.
    pub fn take(&mut self, count: usize) -> Result<Vec<Row>, Error> {
        if count > self.free.len() {
            return Err(Error::failed(format!(
                "the token pool is exhausted: {count} requests were to start, {} of {} rows are free; use a smaller \
                 batch",
                self.free.len(),
                self.rows
            )));
        }
        Ok((0..count)
            .filter_map(|_| self.free.pop())
            .map(Row)
            .collect())
    }

    /// Gives a row back; its contents are forgotten.
    pub fn release(&mut self, row: Row) {
        self.free.push(row.0);
    }

    /// Gives every row back, also those whose [`Row`] is still around: those must not be used any more.
    pub fn clear(&mut self) {
        self.free.clear();
        // Popped from the end: the first request gets row 0.
        self.free.extend((0..self.rows as u32).rev());
    }

    /// The slots of a request, `[context_len]`; those past its length mean nothing.
    pub fn row(&self, row: &Row) -> &[i32] {
        let start = row.0 as usize * self.context_len;
        &self.slots[start..start + self.context_len]
    }

    /// The slots of a request, to be written.
    pub fn row_mut(&mut self, row: &Row) -> &mut [i32] {
        let start = row.0 as usize * self.context_len;
        &mut self.slots[start..start + self.context_len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_handed_out_once_and_come_back() {
        let mut pool = TokenPool::new(3, 8).unwrap();
        let mut rows = pool.take(2).unwrap();
        assert_eq!(rows, [Row(0), Row(1)]);
        assert!(pool.take(2).is_err());
        assert_eq!(pool.free_rows(), 1, "a failed take takes nothing");
        pool.release(rows.remove(0));
        assert_eq!(pool.take(2).unwrap(), [Row(0), Row(2)]);
        pool.clear();
        assert_eq!(pool.free_rows(), 3);
    }

    #[test]
    fn rows_do_not_overlap() {
        let mut pool = TokenPool::new(2, 4).unwrap();
        let rows = pool.take(2).unwrap();
        pool.row_mut(&rows[0]).fill(7);
        pool.row_mut(&rows[1]).fill(9);
        assert_eq!(pool.row(&rows[0]), [7; 4]);
        assert_eq!(pool.row(&rows[1]), [9; 4]);
    }

    #[test]
    fn exhaustion_says_what_was_asked_for() {
        let mut pool = TokenPool::new(2, 4).unwrap();
        assert_eq!(
            pool.take(5).unwrap_err().to_string(),
            "the token pool is exhausted: 5 requests were to start, 2 of 2 rows are free; use a smaller batch"
        );
    }

    #[test]
    fn an_absurd_pool_is_an_error() {
        assert!(TokenPool::new(usize::MAX, 2).is_err());
        assert!(TokenPool::new(1 << 30, 1 << 30).is_err());
    }
}
