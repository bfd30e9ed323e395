//! The CUDA kernels' launchers.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use super::SamplingParams;
use crate::cuda::{Cuda, CudaBuffer, CudaIndices, Source};
use crate::{Error, Kernel};

static SOURCE: Source = Source {
    name: "sample.cu",
    text: include_str!("sample.cu"),
};

/// Threads of `argmax_parts`.
const THREADS: usize = 256;

/// The most parts of a row: a multiprocessor has work enough with them, and one warp adds them up at once.
const PARTS: usize = 128;

arguments! {
    struct ArgmaxParts {
        logits: DevicePointer,
        vocab: u32,
        parts: DevicePointer,
    }
}

arguments! {
    struct ArgmaxRows {
        parts: DevicePointer,
        per_row: u32,
        out: DevicePointer,
    }
}

arguments! {
    struct SampleFiltered {
        logits: DevicePointer,
        vocab: u32,
        temperature: f32,
        top_k: u32,
        top_p: f32,
        min_p: f32,
        seed: u64,
        step: u64,
        out: DevicePointer,
    }
}

/// One token id per row of `logits` `[requests, vocab]` into `out`.
pub(crate) fn sample(
    cuda: &Cuda,
    logits: &CudaBuffer,
    requests: usize,
    vocab: usize,
    params: &SamplingParams,
    step: u64,
    out: &mut CudaIndices,
) -> Result<Kernel, Error> {
    if requests == 0 || vocab == 0 {
        return Ok("sample");
    }
    let element = cuda.element();
    if params.is_greedy() {
        let per_row = parts_of_row(vocab);
        let parts = cuda.workspace(2 * requests * per_row)?;
        let first = cuda.kernel::<ArgmaxParts>(&SOURCE, [0; 4], || parts_expression(element))?;
        let second = cuda.kernel::<ArgmaxRows>(&SOURCE, [1, 0, 0, 0], rows_expression)?;
        let launch = parts_geometry(requests, vocab);
        let arguments = ArgmaxParts {
            logits: logits.pointer(),
            vocab: vocab as u32,
            parts,
        };
        // SAFETY: the buffers hold as many elements as the shapes say, which is the contract of `Backend`; the workspace is ours
        // until the second kernel is done.
        unsafe { cuda.launch(&first, &launch, &arguments)? };
        let arguments = ArgmaxRows {
            parts,
            per_row: per_row as u32,
            out: out.pointer(),
        };
        // SAFETY: as above.
        unsafe { cuda.launch(&second, &rows_geometry(requests), &arguments)? };
        return Ok("sample_greedy");
    }
    let kernel =
        cuda.kernel::<SampleFiltered>(&SOURCE, [2, 0, 0, 0], || filtered_expression(element))?;
    let arguments = SampleFiltered {
        logits: logits.pointer(),
        vocab: vocab as u32,
        temperature: params.temperature,
        top_k: params.top_k,
        top_p: params.top_p,
        min_p: params.min_p.min(1.0),
        seed: params.seed,
        step,
        out: out.pointer(),
    };
    // SAFETY: as above.
    unsafe { cuda.launch(&kernel, &filtered_geometry(requests), &arguments)? };
    Ok("sample_filtered")
}

/// Parts of a row for `argmax_parts`, each with at least four values for a thread.
fn parts_of_row(vocab: usize) -> usize {
    vocab.div_ceil(4 * THREADS).clamp(1, PARTS)
}

fn parts_expression(element: &str) -> String {
    format!("argmax_parts<{element}>")
}

fn parts_geometry(requests: usize, vocab: usize) -> Launch {
    let grid = [parts_of_row(vocab) as u32, requests as u32, 1];
    Launch::of_grid(grid, [THREADS as u32, 1, 1])
}

fn rows_expression() -> String {
    "argmax_rows".to_owned()
}

fn rows_geometry(requests: usize) -> Launch {
    Launch::of_blocks(requests as u32, 32)
}

fn filtered_expression(element: &str) -> String {
    format!("sample_filtered<{element}>")
}

fn filtered_geometry(requests: usize) -> Launch {
    Launch::of_blocks(requests as u32, 1024)
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests {
    use crate::cuda::testing::{Emulated, emulated, rounded, widened};
    use crate::sample::{SamplingParams, reference};
    use crate::testing::numbers;
    use crate::{Backend, DType};

    /// Ids of the CUDA kernel and of the CPU reference on the same logits.
    fn both(
        cuda: &Emulated,
        logits: &[f32],
        vocab: usize,
        params: &SamplingParams,
        step: u64,
    ) -> [Vec<i32>; 2] {
        let requests = logits.len() / vocab;
        let x = cuda.upload(&rounded(logits, DType::BF16));
        let mut out = cuda.upload_indices(&vec![-1; requests]);
        cuda.sample(&x, requests, vocab, params, step, &mut out)
            .unwrap();
        let mut got = vec![0; requests];
        cuda.read_indices(&out, &mut got).unwrap();
        cuda.reports();
        let wide: Vec<f32> = logits.iter().map(|&x| widened(x, DType::BF16)).collect();
        let mut expected = vec![-1; requests];
        reference(&wide, vocab, params, step, &mut expected);
        [got, expected]
    }

    #[test]
    fn greedy_takes_the_likeliest_and_the_lowest_of_equals() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        for (requests, vocab) in [(1, 1), (3, 50), (2, 5000), (1, 70_001)] {
            let mut logits = numbers(8, requests * vocab);
            if vocab > 2 {
                logits[vocab / 2] = f32::NAN;
                logits[1] = 3.0;
                logits[vocab - 1] = 3.0;
            }
            let [got, expected] = both(&cuda, &logits, vocab, &SamplingParams::greedy(), 0);
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn filters_and_draws_as_the_reference() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let (requests, vocab) = (4, 1500);
        let logits: Vec<f32> = numbers(9, requests * vocab)
            .iter()
            .map(|x| x * 6.0)
            .collect();
        let params = |temperature, top_k, top_p, min_p| SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            seed: 42,
        };
        let mut same = 0;
        let mut all = 0;
        for params in [
            params(1.0, 0, 1.0, 0.0),
            params(0.7, 20, 1.0, 0.0),
            params(1.3, 0, 0.8, 0.0),
            params(1.0, 0, 1.0, 0.3),
            params(0.9, 50, 0.9, 0.05),
            params(2.0, 2, 0.5, 0.0),
        ] {
            for step in 0..3 {
                let [got, expected] = both(&cuda, &logits, vocab, &params, step);
                let [again, _] = both(&cuda, &logits, vocab, &params, step);
                assert_eq!(got, again, "a draw can be repeated");
                all += got.len();
                same += got.iter().zip(&expected).filter(|(a, b)| a == b).count();
            }
        }
        // The weights differ in their last bits: a draw between two tokens may fall to the other one, rarely.
        assert!(
            same * 100 >= all * 97,
            "{same} of {all} draws are the reference's"
        );
    }

    #[test]
    fn nothing_but_what_is_kept_is_drawn() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let vocab = 64;
        let logits: Vec<f32> = (0..vocab)
            .map(|i| if i % 8 == 3 { 5.0 } else { i as f32 * 1e-2 })
            .collect();
        let params = SamplingParams {
            temperature: 1.0,
            top_k: 8,
            top_p: 1.0,
            min_p: 0.0,
            seed: 1,
        };
        let mut seen = std::collections::BTreeSet::new();
        for step in 0..40 {
            let [got, _] = both(&cuda, &logits, vocab as usize, &params, step);
            assert_eq!(got[0] % 8, 3);
            seen.insert(got[0]);
        }
        assert!(seen.len() > 4, "{seen:?}");
    }
}
