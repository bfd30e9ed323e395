//! What lies in the device's memory.

use std::sync::{Arc, PoisonError};

use half::{bf16, f16};
use rayon::prelude::*;
use stepscope_device::driver::{Context, DeviceBuffer, DevicePointer, PinnedBuffer};

use super::Cuda;
use crate::{DType, Error, HostTensor, QkvLayout, Values};

/// Activations, as 16-bit values.
pub type CudaBuffer = DeviceBuffer<u16>;

/// Token ids, positions, slots, tables; with pinned memory of the same length, from which they are copied to the device
/// without stopping the host.
#[derive(Debug)]
pub struct CudaIndices {
    pub(super) values: DeviceBuffer<i32>,
    pub(super) staged: PinnedBuffer<i32>,
}

impl CudaIndices {
    /// Where they begin.
    pub fn pointer(&self) -> DevicePointer {
        self.values.pointer()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Where the index `index` lies.
    pub(crate) fn pointer_to(&self, index: usize) -> Result<DevicePointer, Error> {
        Ok(self.values.pointer_to(index)?)
    }
}

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

    /// Its elements, row after row, in the device's storage type: for a peer that multiplies by the same weights.
    pub fn values(&self) -> &CudaBuffer {
        &self.values
    }
}

/// Cosine and sine of each position and pair, `[positions, pairs, 2]`.
#[derive(Debug)]
pub struct CudaRopeTable {
    pub(crate) values: DeviceBuffer<f32>,
    pub(crate) pairs: usize,
}

impl CudaRopeTable {
    /// Where it begins.
    pub fn pointer(&self) -> DevicePointer {
        self.values.pointer()
    }
}

/// Keys and values of all layers, `[layers, 2, slots, kv_heads, head_dim]`: of each layer the keys, then the values.
#[derive(Debug)]
pub struct CudaKvPool {
    pub(super) values: DeviceBuffer<u16>,
    pub(super) slots: usize,
    pub(super) width: usize,
}

impl CudaKvPool {
    /// Where the keys of a layer begin, and where its values do.
    ///
    /// # Errors
    /// There is no such layer.
    pub fn layer(&self, layer: usize) -> Result<[DevicePointer; 2], Error> {
        let part = self.slots * self.width;
        Ok([
            self.values.pointer_to(2 * layer * part)?,
            self.values.pointer_to((2 * layer + 1) * part)?,
        ])
    }

    /// Keys and values of a layer, as they are stored, after all work so far.
    ///
    /// # Errors
    /// There is no such layer, or something in the stream failed.
    pub fn read_layer(&self, cuda: &Cuda, layer: usize) -> Result<[Vec<u16>; 2], Error> {
        let part = self.slots * self.width;
        let mut both = [vec![0; part], vec![0; part]];
        for (kind, values) in both.iter_mut().enumerate() {
            self.values
                .read(&cuda.stream, (2 * layer + kind) * part, values)?;
        }
        Ok(both)
    }

    /// Overwrites keys and values of a layer, `[slots, kv_heads, head_dim]` of each, as they are stored.
    ///
    /// # Errors
    /// There is no such layer, they are longer than it, or something in the stream failed.
    pub fn write_layer(
        &mut self,
        cuda: &Cuda,
        layer: usize,
        both: [&[u16]; 2],
    ) -> Result<(), Error> {
        let part = self.slots * self.width;
        for (kind, values) in both.into_iter().enumerate() {
            if values.len() > part {
                return Err(Error::shape(format!(
                    "{} elements for a layer of {part}",
                    values.len()
                )));
            }
            self.values
                .write(&cuda.stream, (2 * layer + kind) * part, values)?;
        }
        Ok(())
    }

    /// Makes all of it NaN, so that a kernel that reads a slot of nobody's shows it.
    ///
    /// # Errors
    /// The device refused.
    pub fn poison(&mut self, cuda: &Cuda) -> Result<(), Error> {
        Ok(self.values.fill(&cuda.stream, 0xff)?)
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
pub(crate) const WORKSPACE: usize = 16 << 20;

impl Workspace {
    pub(super) fn new(context: &Arc<Context>) -> Result<Workspace, Error> {
        Ok(Workspace {
            values: DeviceBuffer::new(context, "the workspace of the kernels", WORKSPACE)?,
        })
    }
}

/// Pinned memory through which weights go to the device, two pieces in turn.
#[derive(Debug)]
pub(super) struct Staging {
    pieces: [PinnedBuffer<u16>; 2],
    turn: usize,
}

impl Staging {
    /// Elements of a piece, 8 MiB: copying it takes a third of a millisecond at 25 GB/s, a hundred times what starting a copy
    /// costs.
    const ELEMENTS: usize = 4 << 20;

    fn new(context: &Arc<Context>) -> Result<Staging, Error> {
        let piece = || PinnedBuffer::new(context, "a piece of weights", Staging::ELEMENTS);
        Ok(Staging {
            pieces: [piece()?, piece()?],
            turn: 0,
        })
    }

    /// The piece whose last copy began longest ago.
    fn next(&mut self) -> &mut PinnedBuffer<u16> {
        self.turn ^= 1;
        &mut self.pieces[self.turn]
    }
}

/// The elements of `tensor` from `from` on, as many as `out` has, in a 16-bit type; by all threads.
fn convert(tensor: &HostTensor, from: usize, dtype: DType, out: &mut [u16]) {
    const PART: usize = 64 << 10;
    let range = from..from + out.len();
    fn each<T: Copy + Sync>(values: &[T], out: &mut [u16], to_bits: impl Fn(T) -> u16 + Sync) {
        let parts = out.par_chunks_mut(PART).zip(values.par_chunks(PART));
        parts.for_each(|(out, values)| {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = to_bits(value);
            }
        });
    }
    match (tensor.values(), dtype) {
        (Values::BF16(v), DType::BF16) => each(&v[range], out, bf16::to_bits),
        (Values::F16(v), DType::F16) => each(&v[range], out, f16::to_bits),
        (Values::BF16(v), _) => each(&v[range], out, |x| round(x.to_f32(), dtype)),
        (Values::F16(v), _) => each(&v[range], out, |x| round(x.to_f32(), dtype)),
        (Values::F32(v), _) => each(&v[range], out, |x| round(x, dtype)),
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

    /// Copies a tensor to the element `at` of `to`, in the storage type: in pieces through pinned memory, so that one piece is on
    /// its way while the next is read from the mapped file.
    fn stream_to(
        &self,
        to: &mut DeviceBuffer<u16>,
        at: usize,
        tensor: &HostTensor,
    ) -> Result<(), Error> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            *staging = Some(Staging::new(&self.context)?);
        }
        let Some(staging) = staging.as_mut() else {
            return Ok(()); // made just above
        };
        for from in (0..tensor.len()).step_by(Staging::ELEMENTS) {
            let len = Staging::ELEMENTS.min(tensor.len() - from);
            let buffer = staging.next();
            let piece = &mut buffer.host_mut()?[..len];
            convert(tensor, from, self.dtype, piece);
            to.upload(&self.stream, at + from, buffer, len)?;
        }
        Ok(())
    }

    /// A buffer with these values, rounded, and `guard` elements of NaN behind them.
    pub(crate) fn buffer_of(&self, values: &[f32], guard: usize) -> Result<CudaBuffer, Error> {
        let mut bits: Vec<u16> = values.iter().map(|&x| round(x, self.dtype)).collect();
        bits.resize(values.len() + guard, 0xffff);
        let mut buffer = DeviceBuffer::new(&self.context, "a buffer", bits.len())?;
        buffer.write(&self.stream, 0, &bits)?;
        Ok(buffer)
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
            self.stream_to(&mut values, at, block)?;
            at += block.len();
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
pub fn round(x: f32, dtype: DType) -> u16 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_bits(),
        _ => bf16::from_f32(x).to_bits(),
    }
}

/// The value of 16 bits.
pub fn widen(bits: u16, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_bits(bits).to_f32(),
        _ => bf16::from_bits(bits).to_f32(),
    }
}
