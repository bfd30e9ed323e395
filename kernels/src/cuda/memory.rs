//! What lies in the device's memory.

use std::sync::Arc;

use half::{bf16, f16};
use stepscope_device::driver::{Context, DeviceBuffer, DevicePointer};

use super::Cuda;
use crate::{DType, Error, HostTensor, QkvLayout};

/// Activations, as 16-bit values.
pub type CudaBuffer = DeviceBuffer<u16>;

/// Token ids, positions, slots, tables.
pub type CudaIndices = DeviceBuffer<i32>;

/// Norm weights and biases, as `f32`: they are small, and then nothing of them is lost.
pub type CudaVector = DeviceBuffer<f32>;

/// A weight matrix `[rows, cols]`, row after row.
#[derive(Debug)]
pub struct CudaMatrix {
    pub(crate) values: DeviceBuffer<u16>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl CudaMatrix {
    /// Rows: outputs of the layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: inputs of the layer.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// Cosine and sine of each position and pair, `[positions, pairs, 2]`.
#[derive(Debug)]
pub struct CudaRopeTable {
    pub(crate) values: DeviceBuffer<f32>,
    pub(crate) pairs: usize,
}

/// Keys and values of all layers, `[layers, 2, slots, kv_heads, head_dim]`: of each layer the keys, then the values.
#[derive(Debug)]
pub struct CudaKvPool {
    values: DeviceBuffer<u16>,
    slots: usize,
    width: usize,
}

impl CudaKvPool {
    /// Where the keys of a layer begin, and where its values do.
    pub(crate) fn layer(&self, layer: usize) -> Result<[DevicePointer; 2], Error> {
        let part = self.slots * self.width;
        Ok([
            self.values.pointer_to(2 * layer * part)?,
            self.values.pointer_to((2 * layer + 1) * part)?,
        ])
    }

    /// Keys and values of a layer, as they are stored.
    #[cfg(test)]
    pub(super) fn read_layer(&self, cuda: &Cuda, layer: usize) -> Result<[Vec<u16>; 2], Error> {
        let part = self.slots * self.width;
        let mut both = [vec![0; part], vec![0; part]];
        for (kind, values) in both.iter_mut().enumerate() {
            self.values
                .read(&cuda.stream, (2 * layer + kind) * part, values)?;
        }
        Ok(both)
    }

    /// Slots of a layer.
    pub fn slots(&self) -> usize {
        self.slots
    }
}

/// Memory that operations use between their kernels: partial sums, split attention. It is made once, so that no step allocates.
#[derive(Debug)]
pub(super) struct Workspace {
    values: DeviceBuffer<f32>,
}

/// Floats of the workspace: 32 rows of split-K partial sums of the largest vocabulary fit, and the partial results of split
/// attention of 256 requests.
const WORKSPACE: usize = 16 << 20;

impl Workspace {
    pub(super) fn new(context: &Arc<Context>) -> Result<Workspace, Error> {
        Ok(Workspace {
            values: DeviceBuffer::new(context, "the workspace of the kernels", WORKSPACE)?,
        })
    }
}

impl Cuda {
    /// The workspace, which an operation may use from its first kernel to its last.
    ///
    /// # Errors
    /// It has less than `floats` floats.
    pub(crate) fn workspace(&self, floats: usize) -> Result<DevicePointer, Error> {
        if floats > self.workspace.values.len() {
            return Err(Error::shape(format!(
                "an operation needs a workspace of {floats} floats, but there are {}",
                self.workspace.values.len()
            )));
        }
        Ok(self.workspace.values.pointer())
    }

    /// Values in the storage type.
    fn round_all(&self, tensor: &HostTensor) -> Vec<u16> {
        tensor
            .to_f32()
            .into_iter()
            .map(|x| round(x, self.dtype))
            .collect()
    }

    pub(super) fn new_matrix(&self, blocks: &[HostTensor]) -> Result<CudaMatrix, Error> {
        let mut rows = 0;
        let mut cols = 0;
        for block in blocks {
            let [r, c] = block.shape() else {
                return Err(Error::shape(format!(
                    "a matrix of shape {:?}",
                    block.shape()
                )));
            };
            if rows > 0 && *c != cols {
                return Err(Error::shape(format!(
                    "a matrix of blocks with {cols} and {c} columns"
                )));
            }
            rows += r;
            cols = *c;
        }
        let what = format!("a weight matrix [{rows}, {cols}]");
        let mut values = DeviceBuffer::new(&self.context, &what, rows * cols)?;
        let mut at = 0;
        for block in blocks {
            let data = self.round_all(block);
            values.write(&self.stream, at, &data)?;
            at += data.len();
        }
        Ok(CudaMatrix { values, rows, cols })
    }

    pub(super) fn new_pool(
        &self,
        layers: usize,
        slots: usize,
        layout: QkvLayout,
        dtype: DType,
    ) -> Result<CudaKvPool, Error> {
        if dtype != self.dtype {
            return Err(Error::shape(format!(
                "the CUDA device keeps keys and values as it keeps activations, in {}, not in {dtype}",
                self.dtype
            )));
        }
        let width = layout.kv_width();
        let what = format!("the KV pool ({layers} layers, {slots} slots)");
        let values = DeviceBuffer::new(&self.context, &what, 2 * layers * slots * width)?;
        Ok(CudaKvPool {
            values,
            slots,
            width,
        })
    }
}

/// A value in a 16-bit type, to nearest even.
pub(crate) fn round(x: f32, dtype: DType) -> u16 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_bits(),
        _ => bf16::from_f32(x).to_bits(),
    }
}

/// The value of 16 bits.
pub(crate) fn widen(bits: u16, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_bits(bits).to_f32(),
        _ => bf16::from_bits(bits).to_f32(),
    }
}
