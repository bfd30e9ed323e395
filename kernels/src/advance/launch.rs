//! The CUDA kernel's launcher.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use super::Tables;
use crate::cuda::{Cuda, CudaIndices, Source};
use crate::{Error, Kernel};

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

/// Moves the requests on: see [`Backend::advance`](crate::Backend).
pub(crate) fn advance(cuda: &Cuda, tables: Tables<'_, CudaIndices>) -> Result<Kernel, Error> {
    let Tables {
        kv_len,
        page_table,
        positions,
        slots,
        new_pages,
        requests,
        max_pages,
        page_size,
    } = tables;
    let of_requests = [kv_len.len(), positions.len(), slots.len(), new_pages.len()];
    let is_short = of_requests.iter().any(|&len| len < requests)
        || page_table.len() / max_pages.max(1) < requests;
    if is_short || page_size == 0 {
        return Err(Error::shape(format!(
            "advance: {requests} requests with rows of {max_pages} pages of {page_size} slots, but the buffers hold \
             {of_requests:?} and {}",
            page_table.len()
        )));
    }
    if requests == 0 {
        return Ok("advance");
    }
    let kernel = cuda.kernel::<Advance>(&SOURCE, [0; 4], expression)?;
    let arguments = Advance {
        kv_len: kv_len.pointer(),
        page_table: page_table.pointer(),
        new_pages: new_pages.pointer(),
        positions: positions.pointer(),
        slots: slots.pointer(),
        requests: requests as u32,
        max_pages: max_pages as u32,
        page_size: page_size as u32,
    };
    // SAFETY: the buffers hold as many elements as the shapes say; that each next page lies in its row is the caller's promise.
    unsafe { cuda.launch(&kernel, &geometry(requests), &arguments)? };
    Ok("advance")
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
    use crate::advance::reference;
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
            let table = (0..(requests * max_pages) as i32).map(|i| i * 7 % 1000).collect();
            let new_pages: Vec<i32> = (0..requests as i32).map(|r| 2000 + r).collect();
            // Lengths, page table, positions, slots: of the reference, and on the device.
            let mut expected = [lengths, table, vec![-1; requests], vec![-1; requests]];
            let mut got = expected.each_ref().map(|values| cuda.upload_indices(values));
            let pages = cuda.upload_indices(&new_pages);
            // Two steps: what the first wrote, the second reads.
            for _ in 0..2 {
                let fits = expected[0].iter().all(|&len| (len as usize) < max_pages * page_size);
                if !fits {
                    break;
                }
                let on_device = tables(&mut got, &pages, requests, max_pages, page_size);
                prop_assert_eq!(cuda.advance(on_device).unwrap(), "advance");
                reference(tables(&mut expected, &new_pages, requests, max_pages, page_size));
            }
            cuda.reports();
            for (got, expected) in got.iter().zip(&expected) {
                let mut values = vec![0; expected.len()];
                cuda.read_indices(got, &mut values).unwrap();
                prop_assert_eq!(&values, expected);
            }
        }
    }

    /// Lengths, page table, positions and slots as tables.
    fn tables<'a, I>(
        [kv_len, page_table, positions, slots]: &'a mut [I; 4],
        new_pages: &'a I,
        requests: usize,
        max_pages: usize,
        page_size: usize,
    ) -> Tables<'a, I> {
        Tables {
            kv_len,
            page_table,
            positions,
            slots,
            new_pages,
            requests,
            max_pages,
            page_size,
        }
    }

    #[test]
    fn a_short_buffer_is_refused() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let mut buffers = [2, 3, 2, 2].map(|len| cuda.upload_indices(&vec![0; len]));
        let pages = cuda.upload_indices(&[0, 0]);
        let error = cuda
            .advance(tables(&mut buffers, &pages, 2, 2, 16))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("2 requests with rows of 2 pages"),
            "{error}"
        );
    }
}
