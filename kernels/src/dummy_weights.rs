//! Weights for runs without a checkpoint.

use crate::philox::{philox4x32_10, unit_f32};
use crate::{Cpu, DType, Error, HostTensor};

const SEED: u64 = 1234;

/// A tensor of `shape` with values uniform in ±1e-3.
pub fn uniform(cpu: &Cpu, dtype: DType, shape: &[usize]) -> Result<HostTensor, Error> {
    let _ = cpu;
    let len = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    let refused = || {
        Error::out_of_memory(
            format!("a dummy weight of shape {shape:?}"),
            shape
                .iter()
                .fold(dtype.size() as u128, |n, &d| n.saturating_mul(d as u128)),
        )
    };
    let len = len.ok_or_else(refused)?;
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| refused())?;
    values.extend((0..len).map(|i| {
        let block = (i / 4) as u64;
        let word = philox4x32_10([block as u32, (block >> 32) as u32, 0, 0], SEED)[i % 4];
        unit_f32(word) * 2e-3 - 1e-3
    }));
    HostTensor::from_f32_as(dtype, shape, values)
}
