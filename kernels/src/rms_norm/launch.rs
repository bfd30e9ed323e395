//! The CUDA kernels' launchers.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use crate::cuda::{Cuda, CudaBuffer, CudaVector, Source};
use crate::{Error, Kernel, QkvLayout};

static SOURCE: Source = Source {
    name: "rms_norm.cu",
    text: include_str!("rms_norm.cu"),
};

arguments! {
    struct RmsNorm {
        x: DevicePointer,
        residual: DevicePointer,
        weight: DevicePointer,
        eps: f32,
        width: u32,
        out: DevicePointer,
    }
}

arguments! {
    struct QkNorm {
        qkv: DevicePointer,
        q_weight: DevicePointer,
        k_weight: DevicePointer,
        eps: f32,
        tokens: u32,
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
    }
}

/// How a row is spread over a block: values of a vector, vectors of a thread, threads.
fn spread(width: usize) -> Result<(usize, usize, usize), Error> {
    let vector = if width.is_multiple_of(8) { 8 } else { 1 };
    let vectors = width.div_ceil(vector);
    // As many threads as there are vectors, up to a block; then more vectors for each.
    let mut pers = per_thread(vector).iter().copied();
    let per = pers.find(|per| vectors.div_ceil(*per) <= 1024);
    let per =
        per.ok_or_else(|| Error::shape(format!("rms_norm: rows of {width} values are too long")))?;
    Ok((vector, per, vectors.div_ceil(per).next_multiple_of(32)))
}

/// `out = x / rms(x) * weight`, `rows` rows of `weight`'s length.
pub(crate) fn rms_norm(
    cuda: &Cuda,
    x: &CudaBuffer,
    rows: usize,
    weight: &CudaVector,
    eps: f32,
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    launch(cuda, x, None, rows, weight, eps, out)?;
    Ok("rms_norm")
}

/// `residual += x`, then `out = rms_norm(residual)`.
pub(crate) fn add_rms_norm(
    cuda: &Cuda,
    x: &CudaBuffer,
    residual: &mut CudaBuffer,
    rows: usize,
    weight: &CudaVector,
    eps: f32,
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    launch(cuda, x, Some(residual), rows, weight, eps, out)?;
    Ok("add_rms_norm")
}

fn launch(
    cuda: &Cuda,
    x: &CudaBuffer,
    residual: Option<&mut CudaBuffer>,
    rows: usize,
    weight: &CudaVector,
    eps: f32,
    out: &mut CudaBuffer,
) -> Result<(), Error> {
    let width = weight.len();
    if rows == 0 || width == 0 {
        return Ok(());
    }
    let (vector, per, threads) = spread(width)?;
    let add = residual.is_some();
    let element = cuda.element();
    let numbers = [0, vector as u32, per as u32, u32::from(add)];
    let kernel =
        cuda.kernel::<RmsNorm>(&SOURCE, numbers, || expression(element, vector, per, add))?;
    let arguments = RmsNorm {
        x: x.pointer(),
        residual: residual.map_or(DevicePointer(0), |residual| residual.pointer()),
        weight: weight.pointer(),
        eps,
        width: width as u32,
        out: out.pointer(),
    };
    let launch = Launch::of_blocks(rows as u32, threads as u32);
    // SAFETY: the buffers hold as many elements as the shapes say, which is the contract of `Backend`.
    unsafe { cuda.launch(&kernel, &launch, &arguments) }
}

/// Normalises each query and key head of `qkv`, in place.
pub(crate) fn qk_norm(
    cuda: &Cuda,
    qkv: &mut CudaBuffer,
    tokens: usize,
    layout: QkvLayout,
    q_weight: &CudaVector,
    k_weight: &CudaVector,
    eps: f32,
) -> Result<Kernel, Error> {
    if !layout.head_dim.is_multiple_of(2) || layout.head_dim > 512 {
        return Err(Error::shape(format!(
            "qk_norm: heads of {} values; the kernel takes even numbers up to 512",
            layout.head_dim
        )));
    }
    let pairs = layout.head_dim.div_ceil(64);
    let element = cuda.element();
    let kernel = cuda.kernel::<QkNorm>(&SOURCE, [1, pairs as u32, 0, 0], || {
        qk_expression(element, pairs)
    })?;
    if tokens * (layout.heads + layout.kv_heads) == 0 {
        return Ok("qk_norm");
    }
    let arguments = QkNorm {
        qkv: qkv.pointer(),
        q_weight: q_weight.pointer(),
        k_weight: k_weight.pointer(),
        eps,
        tokens: tokens as u32,
        heads: layout.heads as u32,
        kv_heads: layout.kv_heads as u32,
        head_dim: layout.head_dim as u32,
    };
    let launch = qk_geometry(tokens, layout);
    // SAFETY: as above.
    unsafe { cuda.launch(&kernel, &launch, &arguments)? };
    Ok("qk_norm")
}

/// How many vectors a thread may have. Of 1024 threads each has 64 registers: 8 vectors of 8 values would not stay in them.
fn per_thread(vector: usize) -> &'static [usize] {
    if vector == 8 {
        &[1, 2, 4]
    } else {
        &[1, 2, 4, 8]
    }
}

fn expression(element: &str, vector: usize, per: usize, add: bool) -> String {
    format!("rms_norm<{element}, {vector}, {per}, {add}>")
}

fn qk_expression(element: &str, pairs: usize) -> String {
    format!("qk_norm<{element}, {pairs}>")
}

/// A warp for each head that is normalised.
fn qk_geometry(tokens: usize, layout: QkvLayout) -> Launch {
    let warps = tokens * (layout.heads + layout.kv_heads);
    Launch::of_blocks(warps.div_ceil(4) as u32, 128)
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests {
    use crate::cuda::testing::{emulated, rounded, widened};
    use crate::testing::numbers;
    use crate::{Backend, DType, HostTensor, QkvLayout};

    const EPS: f32 = 1e-5;
    /// Of the sum, the root and the two products, in float32.
    const RELATIVE: f64 = 1e-5;

    fn normalised(row: &[f64], weight: &[f32]) -> Vec<f64> {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean + f64::from(EPS)).sqrt();
        row.iter()
            .zip(weight)
            .map(|(x, w)| x * scale * f64::from(*w))
            .collect()
    }

    fn wide(values: &[f32], dtype: DType) -> Vec<f64> {
        values
            .iter()
            .map(|&x| f64::from(widened(x, dtype)))
            .collect()
    }

    #[test]
    fn rows_agree_with_float64() {
        for (dtype, rows, width) in [
            (DType::BF16, 3, 64),
            (DType::F16, 2, 896),
            (DType::BF16, 1, 8192),
            (DType::BF16, 2, 16384),
            (DType::BF16, 4, 7),
            (DType::F16, 2, 1030),
            (DType::BF16, 1, 1),
        ] {
            let Some(cuda) = emulated(dtype) else { return };
            let (x, old) = (numbers(1, rows * width), numbers(2, rows * width));
            let weight = numbers(3, width);
            let w = cuda
                .vector(&[HostTensor::from_f32(&[width], weight.clone()).unwrap()])
                .unwrap();
            let input = cuda.upload(&rounded(&x, dtype));
            let mut out = cuda.poisoned(rows * width);
            cuda.rms_norm(&input, rows, &w, EPS, &mut out).unwrap();
            let got = cuda.download(&out);
            for row in 0..rows {
                let truth = normalised(&wide(&x[row * width..][..width], dtype), &weight);
                for (got, truth) in got[row * width..].iter().zip(truth) {
                    cuda.assert_rounded("rms_norm", *got, truth, RELATIVE)
                        .unwrap();
                }
            }
            cuda.assert_clean(&out, rows * width);

            let mut residual = cuda.upload(&rounded(&old, dtype));
            let mut out = cuda.poisoned(rows * width);
            cuda.add_rms_norm(&input, &mut residual, rows, &w, EPS, &mut out)
                .unwrap();
            let (got, sums) = (cuda.download(&out), cuda.download(&residual));
            for row in 0..rows {
                let range = row * width..(row + 1) * width;
                let (a, b) = (
                    wide(&x[range.clone()], dtype),
                    wide(&old[range.clone()], dtype),
                );
                let sum: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
                for (got, truth) in sums[range.clone()].iter().zip(&sum) {
                    cuda.assert_rounded("residual", *got, *truth, 1e-7).unwrap();
                }
                for (got, truth) in got[range].iter().zip(normalised(&sum, &weight)) {
                    cuda.assert_rounded("add_rms_norm", *got, truth, RELATIVE)
                        .unwrap();
                }
            }
            cuda.assert_clean(&out, rows * width);
        }
    }

    #[test]
    fn heads_agree_with_float64() {
        for (dtype, head_dim) in [
            (DType::BF16, 64),
            (DType::F16, 80),
            (DType::BF16, 128),
            (DType::BF16, 256),
        ] {
            let Some(cuda) = emulated(dtype) else { return };
            let layout = QkvLayout {
                heads: 6,
                kv_heads: 2,
                head_dim,
            };
            let tokens = 3;
            let x = numbers(4, tokens * layout.width());
            let (q, k) = (numbers(5, head_dim), numbers(6, head_dim));
            let vector = |w: &[f32]| {
                cuda.vector(&[HostTensor::from_f32(&[head_dim], w.to_vec()).unwrap()])
                    .unwrap()
            };
            let mut qkv = cuda.upload(&rounded(&x, dtype));
            cuda.qk_norm(&mut qkv, tokens, layout, &vector(&q), &vector(&k), EPS)
                .unwrap();
            let got = cuda.download(&qkv);
            for token in 0..tokens {
                for head in 0..layout.heads + 2 * layout.kv_heads {
                    let at = token * layout.width() + head * head_dim;
                    let row = wide(&x[at..at + head_dim], dtype);
                    let truth = match head {
                        0..6 => normalised(&row, &q),
                        6..8 => normalised(&row, &k),
                        // Values stay.
                        _ => row,
                    };
                    for (got, truth) in got[at..].iter().zip(truth) {
                        cuda.assert_rounded("qk_norm", *got, truth, RELATIVE)
                            .unwrap();
                    }
                }
            }
            cuda.assert_clean(&qkv, tokens * layout.width());
        }
    }
}
