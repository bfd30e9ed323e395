//! The CUDA kernel's launcher.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use crate::Error;
use crate::cuda::{Cuda, CudaIndices, Source};

static SOURCE: Source = Source {
    name: "advance.cu",
    text: include_str!("advance.cu"),
};

/// Threads of a block.
const THREADS: usize = 128;

arguments! {
    struct Advance {
        kv_len: DevicePointer,
        page_table: DevicePointer,
        new_pages: DevicePointer,
        positions: DevicePointer,
        slots: DevicePointer,
        requests: u32,
        max_pages: u32,
        page_size: u32,
    }
}

/// A decode batch's tables on the device: see [`Tables`](super::Tables).
#[derive(Debug)]
pub struct CudaTables<'a> {
    /// `[requests]`.
    pub kv_len: &'a mut CudaIndices,
    /// `[requests, max_pages]`.
    pub page_table: &'a mut CudaIndices,
    /// `[requests]`.
    pub positions: &'a mut CudaIndices,
    /// `[requests]`.
    pub slots: &'a mut CudaIndices,
}

impl Cuda {
    /// Moves `requests` requests on by a position. `new_pages` `[requests]` is read where a request begins a page; each request's
    /// next page lies in its row of the table.
    ///
    /// # Errors
    /// A buffer is shorter than its shape, or the device failed.
    pub fn advance(
        &self,
        tables: &mut CudaTables<'_>,
        new_pages: &CudaIndices,
        requests: usize,
        max_pages: usize,
        page_size: usize,
    ) -> Result<(), Error> {
        let of_requests = [
            tables.kv_len.len(),
            tables.positions.len(),
            tables.slots.len(),
            new_pages.len(),
        ];
        let is_short = of_requests.iter().any(|&len| len < requests)
            || tables.page_table.len() / max_pages.max(1) < requests;
        if is_short || page_size == 0 {
            return Err(Error::shape(format!(
                "advance: {requests} requests with rows of {max_pages} pages of {page_size} slots, but the buffers hold \
                 {of_requests:?} and {}",
                tables.page_table.len()
            )));
        }
        if requests == 0 {
            return Ok(());
        }
        let kernel = self.kernel::<Advance>(&SOURCE, [0; 4], expression)?;
        let arguments = Advance {
            kv_len: tables.kv_len.pointer(),
            page_table: tables.page_table.pointer(),
            new_pages: new_pages.pointer(),
            positions: tables.positions.pointer(),
            slots: tables.slots.pointer(),
            requests: requests as u32,
            max_pages: max_pages as u32,
            page_size: page_size as u32,
        };
        // SAFETY: the buffers hold as many elements as the shapes say; that each next page lies in its row is the caller's promise.
        unsafe { self.launch(&kernel, &geometry(requests), &arguments) }
    }
}

fn expression() -> String {
    "advance".to_owned()
}

fn geometry(requests: usize) -> Launch {
    Launch::of_blocks(requests.div_ceil(THREADS) as u32, THREADS as u32)
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::advance::{Tables, reference};
    use crate::cuda::testing::emulated;
    use crate::{Backend as _, DType};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn any_batch_is_the_references(
            lengths in prop::collection::vec(0_i32..40, 1..200),
            page_size in 1_usize..20,
        ) {
            let Some(cuda) = emulated(DType::BF16) else { return Ok(()) };
            let requests = lengths.len();
            let max_pages = 40 / page_size + 1;
            let mut tables = Tables {
                page_table: (0..(requests * max_pages) as i32).map(|i| i * 7 % 1000).collect(),
                positions: vec![-1; requests],
                slots: vec![-1; requests],
                kv_len: lengths,
            };
            let new_pages: Vec<i32> = (0..requests as i32).map(|r| 2000 + r).collect();
            let [mut kv_len, mut page_table, mut positions, mut slots] =
                [&tables.kv_len, &tables.page_table, &tables.positions, &tables.slots]
                    .map(|values| cuda.upload_indices(values));
            let mut on_device = CudaTables {
                kv_len: &mut kv_len,
                page_table: &mut page_table,
                positions: &mut positions,
                slots: &mut slots,
            };
            let pages = cuda.upload_indices(&new_pages);
            // Two steps: what the first wrote, the second reads.
            for _ in 0..2 {
                let fits = tables.kv_len.iter().all(|&len| (len as usize) < max_pages * page_size);
                if !fits {
                    break;
                }
                cuda.advance(&mut on_device, &pages, requests, max_pages, page_size).unwrap();
                reference(&mut tables, &new_pages, max_pages, page_size);
            }
            cuda.reports();
            let read = |buffer: &CudaIndices| {
                let mut values = vec![0; buffer.len()];
                cuda.read_indices(buffer, &mut values).unwrap();
                values
            };
            let got = Tables {
                kv_len: read(&kv_len),
                page_table: read(&page_table),
                positions: read(&positions),
                slots: read(&slots),
            };
            prop_assert_eq!(got, tables);
        }
    }

    #[test]
    fn a_short_buffer_is_refused() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let [mut a, mut b, mut c, mut d] =
            [2, 3, 2, 2].map(|len| cuda.upload_indices(&vec![0; len]));
        let mut tables = CudaTables {
            kv_len: &mut a,
            page_table: &mut b,
            positions: &mut c,
            slots: &mut d,
        };
        let pages = cuda.upload_indices(&[0, 0]);
        let error = cuda.advance(&mut tables, &pages, 2, 2, 16).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("2 requests with rows of 2 pages"),
            "{error}"
        );
    }
}
