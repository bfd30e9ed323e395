//! Numbers to run a kernel on when only what it does is of interest, and not what it computes.

use stepscope_device::driver::DeviceBuffer;

use super::memory::round;
use super::{Cuda, CudaBuffer, CudaIndices, CudaKvPool, CudaMatrix, CudaVector};
use crate::{Backend, Error, QkvLayout};

/// From -0.5 to 0.5, different from their neighbours.
fn number(i: usize) -> f32 {
    let scattered = (i as u32).wrapping_mul(0x9E37_79B9);
    (scattered >> 16) as f32 / 65_536.0 - 0.5
}

impl Cuda {
    /// A buffer of numbers.
    pub(crate) fn example(&self, len: usize) -> Result<CudaBuffer, Error> {
        self.upload_values((0..len).map(number))
    }

    /// A buffer of these numbers, in the storage type.
    pub(crate) fn upload_values(
        &self,
        values: impl Iterator<Item = f32>,
    ) -> Result<CudaBuffer, Error> {
        let bits: Vec<u16> = values.map(|x| round(x, self.dtype)).collect();
        let mut buffer = DeviceBuffer::new(&self.context, "example numbers", bits.len())?;
        buffer.write(&self.stream, 0, &bits)?;
        Ok(buffer)
    }

    /// A weight matrix of numbers.
    pub(crate) fn example_matrix(&self, rows: usize, cols: usize) -> Result<CudaMatrix, Error> {
        let values = self.example(rows * cols)?;
        Ok(CudaMatrix { values, rows, cols })
    }

    /// A weight vector of numbers.
    pub(crate) fn example_vector(&self, len: usize) -> Result<CudaVector, Error> {
        let values: Vec<f32> = (0..len).map(number).collect();
        let mut vector = DeviceBuffer::new(&self.context, "an example vector", len)?;
        vector.write(&self.stream, 0, &values)?;
        Ok(vector)
    }

    /// A pool of one layer in which every slot has keys and values.
    pub(crate) fn example_pool(
        &self,
        slots: usize,
        layout: QkvLayout,
    ) -> Result<CudaKvPool, Error> {
        Ok(CudaKvPool {
            values: self.example(2 * slots * layout.kv_width())?,
            slots,
            width: layout.kv_width(),
        })
    }

    /// Indices on the device.
    pub(crate) fn upload_integers(&self, values: &[i32]) -> Result<CudaIndices, Error> {
        let mut indices = self.indices(values.len())?;
        self.write_indices(&mut indices, values)?;
        Ok(indices)
    }
}
