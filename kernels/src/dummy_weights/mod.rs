//! Weights for runs without a checkpoint, as sglang's `initialize_dummy_weights` makes them: uniform in ±1e-3, small enough
//! that no activation overflows, random so that the arithmetic costs what it costs with a real model.
//!
//! Every parameter starts the same stream anew, so that its values depend only on its size and data type, however a model is
//! split. The stream is Philox with key 1234: element `i` is word `i % 4` of block `i / 4`.
//!
//! ```text
//!   a task     [ 32 Ki elements: a place of their own in the stream, so that tasks need nothing of each other ]
//!   a round    [ block | block | … ]     8 blocks of the stream, 4 elements of each, a block in each lane of a vector
//! ```
//!
//! What bounds it: arithmetic, 40 multiplications of 32 bits for four elements.

pub(crate) mod launch;

use bytes::Bytes;
use half::{bf16, f16};

use crate::cpu::{self, Element, Op, Shared, Simd, narrow};
use crate::philox::{BLOCKS, blocks, unit_f32};
use crate::{Cost, Cpu, CpuBuffer, DType, Error, HostTensor};

/// The key of the stream: sglang's default.
pub const SEED: u64 = 1234;
/// Half the width of the interval.
const LARGEST: f32 = 1e-3;
/// Elements of a task: 40 µs of work.
const TASK: usize = 32 << 10;

/// A tensor of `shape` filled by the threads of `cpu`.
///
/// # Errors
/// When the machine does not grant the memory.
pub fn uniform(cpu: &Cpu, dtype: DType, shape: &[usize]) -> Result<HostTensor, Error> {
    match dtype {
        DType::F32 => fill::<f32>(cpu, dtype, shape),
        DType::F16 => fill::<f16>(cpu, dtype, shape),
        DType::BF16 => fill::<bf16>(cpu, dtype, shape),
    }
}

/// The same by this thread alone: for norm weights and biases, and where there is no [`Cpu`].
///
/// # Errors
/// As [`uniform`].
pub fn uniform_here(dtype: DType, shape: &[usize]) -> Result<HostTensor, Error> {
    match dtype {
        DType::F32 => fill_here::<f32>(dtype, shape),
        DType::F16 => fill_here::<f16>(dtype, shape),
        DType::BF16 => fill_here::<bf16>(dtype, shape),
    }
}

/// Parameters `[rows, cols]`, each as [`uniform_here`] makes it.
pub(crate) fn blocks_here(dtype: DType, blocks: &[[usize; 2]]) -> Result<Vec<HostTensor>, Error> {
    blocks
        .iter()
        .map(|shape| uniform_here(dtype, shape))
        .collect()
}

fn zeroed<T: Element>(dtype: DType, shape: &[usize]) -> Result<CpuBuffer<T>, Error> {
    let what = format!("a dummy weight of shape {shape:?} in {dtype}");
    let len = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    let len = len.ok_or_else(|| Error::out_of_memory(&*what, u128::MAX))?;
    CpuBuffer::<T>::zeroed(&what, len)
}

fn fill_here<T: Element>(dtype: DType, shape: &[usize]) -> Result<HostTensor, Error> {
    let mut values = zeroed::<T>(dtype, shape)?;
    let out = &mut values[..];
    cpu::level().run(Uniform { first: 0, out });
    HostTensor::new(dtype, shape, Bytes::from_owner(Owner(values)))
}

fn fill<T: Element>(cpu: &Cpu, dtype: DType, shape: &[usize]) -> Result<HostTensor, Error> {
    let mut values = zeroed::<T>(dtype, shape)?;
    let len = values.len();
    let shared = Shared::new(&mut values);
    cpu.run(|| {
        let level = cpu::level();
        cpu::parallel(len.div_ceil(TASK), |task| {
            let first = task * TASK;
            // SAFETY: each task has elements of its own.
            let out = unsafe { shared.slice(first..len.min(first + TASK)) };
            level.run(Uniform { first, out });
        });
    });
    HostTensor::new(dtype, shape, Bytes::from_owner(Owner(values)))
}

/// The work of `elements`: of each a product, a difference and a product (its random bits are integers), and it is written.
pub fn cost(elements: usize, dtype: DType) -> Cost {
    Cost {
        flops: 3 * elements as u64,
        weight_bytes: (elements * dtype.size()) as u64,
        ..Cost::default()
    }
}

/// Keeps the values alive behind `Bytes`.
struct Owner<T: Element>(CpuBuffer<T>);

impl<T: Element> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Elements from `first` on, a multiple of those of a round.
struct Uniform<'a, T> {
    first: usize,
    out: &'a mut [T],
}

impl<T: Element> Op for Uniform<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (round, out) in self.out.chunks_mut(4 * BLOCKS).enumerate() {
            let words = blocks((self.first / 4 + round * BLOCKS) as u64, SEED);
            let mut values = [0.0; 4 * BLOCKS];
            for (block, values) in values.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                for (value, word) in values.iter_mut().zip(&words) {
                    *value = (unit_f32(word[block]) * 2.0 - 1.0) * LARGEST;
                }
            }
            narrow(s, &values[..out.len()], out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::philox4x32_10;
    use crate::testing::{cpus, narrowed};

    #[test]
    fn every_element_is_its_place_in_the_stream() {
        for (dtype, len) in [
            (DType::F32, 1),
            (DType::F16, 37),
            (DType::BF16, 3 * TASK + 5),
        ] {
            let expected: Vec<f32> = (0..len)
                .map(|i| philox4x32_10([(i / 4) as u32, 0, 0, 0], 1234)[i % 4])
                .map(|word| (unit_f32(word) * 2.0 - 1.0) * 1e-3)
                .collect();
            for cpu in cpus() {
                for tensor in [uniform(&cpu, dtype, &[len]), uniform_here(dtype, &[len])] {
                    let tensor = tensor.unwrap();
                    assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &[len][..]));
                    assert!(
                        tensor.to_f32() == narrowed(dtype, &expected),
                        "{len} in {dtype}"
                    );
                }
            }
        }
    }

    #[test]
    fn equal_sizes_are_equal_and_spread_over_the_interval() {
        let [cpu, _] = cpus();
        let (a, b) = (
            uniform(&cpu, DType::BF16, &[300, 500]),
            uniform(&cpu, DType::BF16, &[500, 300]),
        );
        let values = a.unwrap().to_f32();
        assert_eq!(values, b.unwrap().to_f32());
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        assert!(
            mean.abs() < 1e-5 && (square / (LARGEST * LARGEST / 3.0) - 1.0).abs() < 0.02,
            "{mean}, {square}"
        );
        assert!(values.iter().all(|x| x.abs() <= LARGEST));
    }

    #[test]
    fn more_than_the_machine_has_is_an_error() {
        let [cpu, _] = cpus();
        for shape in [&[usize::MAX, 2][..], &[1 << 40, 1 << 20]] {
            let error = uniform(&cpu, DType::BF16, shape).unwrap_err();
            assert!(error.is_out_of_memory(), "{error}");
        }
    }
}
