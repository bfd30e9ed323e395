//! Matrix product with a weight: `out[i, j] = sum over p of x[i, p] * weight[j, p] (+ bias[j])`.
//!
//! Shapes: `x` `[m, k]`, `weight` `[n, k]` as checkpoints store it, `out` `[m, n]`. Weights are bfloat16, float16 or
//! float32; arithmetic is float32.
//!
//! What bounds it depends on `m`, the rows that share one reading of the weights. A decode step has few: each weight is
//! read from memory for `2 m` operations, and memory is the bound until `m` is about 8 (a core that
//! reads 12 GB/s of bfloat16 and makes 70 GFLOP/s breaks even at `m` = 6). [`skinny`] streams the rows of the
//! weight once for all `m`. A prefill has hundreds: the multiply-adds are the bound, and [`blocked`] converts
//! each weight once per hundreds of uses.

pub(crate) mod launch;

mod choose;

pub(crate) use choose::{Plan as GpuPlan, variants as gpu_variants};

mod blocked;
mod skinny;

use crate::cpu::{self, Element};
use crate::{Cost, CpuMatrix, DType, HostTensor, Kernel, Values};

/// Up to this many rows of `x` the weights are streamed. See `benches/ratios.rs` for the crossing.
const MOST_SKINNY_ROWS: usize = 32;

/// How a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// One row of `x`.
    Gemv,
    /// A few rows.
    Skinny,
    /// Many.
    Blocked,
}

/// The variant for `m` rows.
fn choose(m: usize) -> Variant {
    match m {
        0..=1 => Variant::Gemv,
        2..=MOST_SKINNY_ROWS => Variant::Skinny,
        _ => Variant::Blocked,
    }
}

/// `out = x @ weight^T (+ bias)`, `x` `[m, cols]`, `out` `[m, rows]` of `weight`.
///
/// # Panics
/// When a slice is shorter than its shape.
pub fn reference(
    x: &[f32],
    m: usize,
    weight: &CpuMatrix,
    bias: Option<&[f32]>,
    out: &mut [f32],
) -> Kernel {
    let (n, k) = (weight.rows(), weight.cols());
    let (x, out) = (&x[..m * k], &mut out[..m * n]);
    let bias = bias.map(|b| &b[..n]);
    let variant = choose(m);
    match weight.dtype() {
        DType::F32 => run::<f32>(variant, x, m, weight, bias, out),
        DType::F16 => run::<half::f16>(variant, x, m, weight, bias, out),
        DType::BF16 => run::<half::bf16>(variant, x, m, weight, bias, out),
    }
    let level = cpu::level();
    match variant {
        Variant::Gemv => level.pick("gemv_avx2", "gemv_portable"),
        Variant::Skinny => level.pick("gemm_skinny_avx2", "gemm_skinny_portable"),
        Variant::Blocked => level.pick("gemm_blocked_avx2", "gemm_blocked_portable"),
    }
}

fn run<T: Weight>(
    variant: Variant,
    x: &[f32],
    m: usize,
    weight: &CpuMatrix,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    match variant {
        Variant::Gemv | Variant::Skinny => skinny::run::<T>(x, m, weight, bias, out),
        Variant::Blocked => blocked::run::<T>(x, m, weight, bias, out),
    }
}

/// An element type of a weight.
trait Weight: Element {
    /// The elements of `tensor`, empty if it has another type.
    fn elements(tensor: &HostTensor) -> &[Self];

    /// Where each of `COUNT` rows from `first` on starts; null past `end`.
    fn rows<const COUNT: usize>(
        weight: &CpuMatrix,
        first: usize,
        end: usize,
    ) -> [*const Self; COUNT] {
        let mut pointers = [std::ptr::null(); COUNT];
        let mut row = first;
        let mut top = 0;
        for block in weight.blocks() {
            let bottom = top + block.shape()[0];
            let elements = Self::elements(block);
            while row < bottom && row < end && row - first < COUNT {
                pointers[row - first] = elements[(row - top) * weight.cols()..].as_ptr();
                row += 1;
            }
            top = bottom;
        }
        pointers
    }
}

impl Weight for f32 {
    fn elements(tensor: &HostTensor) -> &[f32] {
        match tensor.values() {
            Values::F32(v) => v,
            _ => &[],
        }
    }
}

impl Weight for half::f16 {
    fn elements(tensor: &HostTensor) -> &[half::f16] {
        match tensor.values() {
            Values::F16(v) => v,
            _ => &[],
        }
    }
}

impl Weight for half::bf16 {
    fn elements(tensor: &HostTensor) -> &[half::bf16] {
        match tensor.values() {
            Values::BF16(v) => v,
            _ => &[],
        }
    }
}

/// The work of `[m, k] @ [n, k]^T`: a multiply and an add per term, each weight and each activation crossing memory once. Every
/// device keeps a bias in float.
pub fn cost(m: usize, n: usize, k: usize, bias: bool, weight: DType, activation: DType) -> Cost {
    let (m, n, k) = (m as u64, n as u64, k as u64);
    let bias = u64::from(bias);
    Cost {
        flops: 2 * m * n * k + bias * m * n,
        weight_bytes: n * k * weight.size() as u64 + bias * n * DType::F32.size() as u64,
        kv_bytes: 0,
        activation_bytes: (m * k + m * n) * activation.size() as u64,
    }
}

#[cfg(test)]
mod tests;
