//! The CUDA kernel's launcher.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use crate::cuda::{Cuda, CudaBuffer, CudaIndices, CudaMatrix, Source};
use crate::{Error, Kernel};

static SOURCE: Source = Source {
    name: "embedding.cu",
    text: include_str!("embedding.cu"),
};

/// Threads of a block.
const THREADS: usize = 256;

/// Rows of one launch: blocks along y.
const ROWS: usize = 65_535;

arguments! {
    struct GatherRows {
        ids: DevicePointer,
        table: DevicePointer,
        out: DevicePointer,
        width: u32,
    }
}

/// Row `ids[t]` of `table` into row `t` of `out` `[tokens, cols]`.
pub(crate) fn embedding(
    cuda: &Cuda,
    ids: &CudaIndices,
    tokens: usize,
    table: &CudaMatrix,
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    gather(
        cuda,
        ids,
        tokens,
        table.values.pointer(),
        table.cols,
        out.pointer(),
    )?;
    Ok("embedding")
}

/// Rows of `width` from `table`, as `rows` names them, to `out`.
pub(crate) fn gather(
    cuda: &Cuda,
    rows: &CudaIndices,
    count: usize,
    table: DevicePointer,
    width: usize,
    out: DevicePointer,
) -> Result<(), Error> {
    let vector = vector(width);
    let kernel =
        cuda.kernel::<GatherRows>(&SOURCE, [vector as u32, 0, 0, 0], || expression(vector))?;
    for first in (0..count).step_by(ROWS) {
        let rows_here = (count - first).min(ROWS);
        let launch = geometry(rows_here, width);
        let arguments = GatherRows {
            ids: rows.pointer_to(first)?,
            table,
            out: DevicePointer(out.0 + (first * width * 2) as u64),
            width: width as u32,
        };
        // SAFETY: the buffers hold as many elements as the shapes say, and ids are rows of the table, which is the contract of
        // `Backend`.
        unsafe { cuda.launch(&kernel, &launch, &arguments)? };
    }
    Ok(())
}

/// Elements of a thread. `out` may begin at any row: whole vectors only where rows are whole vectors.
fn vector(width: usize) -> usize {
    if width.is_multiple_of(8) { 8 } else { 1 }
}

fn expression(vector: usize) -> String {
    format!("gather_rows<{vector}>")
}

fn geometry(rows: usize, width: usize) -> Launch {
    let columns = width.div_ceil(vector(width)).div_ceil(THREADS);
    Launch::of_grid([columns as u32, rows as u32, 1], [THREADS as u32, 1, 1])
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests {
    use crate::cuda::testing::{emulated, rounded};
    use crate::testing::numbers;
    use crate::{Backend, DType, HostTensor};

    #[test]
    fn rows_by_index() {
        for (vocab, width) in [(50, 64), (9, 7), (5, 2056)] {
            let Some(cuda) = emulated(DType::BF16) else {
                return;
            };
            let values = numbers(3, vocab * width);
            let table = HostTensor::from_f32(&[vocab, width], values.clone()).unwrap();
            let table = cuda.matrix(&[table]).unwrap();
            let ids: Vec<i32> = [0, vocab as i32 - 1, 2, 2, 1].to_vec();
            let indices = cuda.upload_indices(&ids);
            let mut out = cuda.poisoned(ids.len() * width);
            cuda.embedding(&indices, ids.len(), &table, &mut out)
                .unwrap();
            let got = cuda.download_bits(&out);
            let bits = rounded(&values, DType::BF16);
            for (t, &id) in ids.iter().enumerate() {
                assert_eq!(
                    got[t * width..][..width],
                    bits[id as usize * width..][..width]
                );
            }
            cuda.assert_clean(&out, ids.len() * width);

            let x = cuda.upload(&bits);
            let mut out = cuda.poisoned(4 * width);
            cuda.gather_rows(&x, &cuda.upload_indices(&[3, 0]), 2, width, 2, &mut out)
                .unwrap();
            let got = cuda.download_bits(&out);
            assert_eq!(got[2 * width..3 * width], bits[3 * width..4 * width]);
            assert_eq!(got[3 * width..4 * width], bits[..width]);
            assert!(got[..2 * width].iter().all(|&bits| bits == 0xffff));
            let reports = cuda.assert_clean(&out, 4 * width);
            if width % 8 == 0 && width >= 256 {
                let counters = &reports[0].report.counters;
                // One sector for the index, 16 for 16 bytes of each lane.
                assert!(counters.global_store_sectors <= 16 * counters.global_store_requests);
            }
        }
    }
}
