//! What a device must offer beside its operations, so that results can be held against one another.

use stepscope_device::driver::{DeviceBuffer, DevicePointer};
use stepscope_kernels::cuda::{
    Cuda, CudaBuffer, CudaIndices, CudaKvPool, CudaMatrix, CudaVector, round, widen,
};
use stepscope_kernels::{
    Backend, Cpu, CpuBuffer, DType, Error, HostTensor, Kernel, QkvLayout, dummy_weights,
};

/// Elements behind an output that no kernel may touch.
const GUARD: usize = 64;

/// A device that can be asked what it did.
pub(super) trait Probe: Backend {
    /// A buffer with these values, and NaN behind them.
    fn filled(&self, values: &[f32]) -> Result<Self::Buffer, Error>;
    /// Writes these values to the front of a buffer, and NaN to the rest of it.
    fn refill(&self, buffer: &mut Self::Buffer, values: &[f32]) -> Result<(), Error>;
    /// All values of a buffer, the guard's too.
    fn contents(&self, buffer: &Self::Buffer) -> Result<Vec<f32>, Error>;
    /// A pool of one layer, `rows` `[slot, kv_width]` of keys and values in it and NaN everywhere else, `at` these slots.
    fn pool(
        &self,
        layout: QkvLayout,
        slots: usize,
        dtype: DType,
        at: &[i32],
        rows: [&[f32]; 2],
    ) -> Result<Self::KvPool, Error>;
    /// Makes all of a pool NaN.
    fn poison(&self, pool: &mut Self::KvPool) -> Result<(), Error>;
    /// Keys and values of the pool's layer, where they can be read.
    fn read_pool(&self, pool: &Self::KvPool) -> Result<Option<[Vec<f32>; 2]>, Error>;

    /// Whether it is what lies behind results from the start.
    fn is_poison(&self, x: f32) -> bool {
        x.is_nan()
    }

    /// Indices.
    fn loaded(&self, values: &[i32]) -> Result<Self::Indices, Error> {
        let mut indices = self.indices(values.len())?;
        self.write_indices(&mut indices, values)?;
        Ok(indices)
    }

    /// `len` results, NaN, with a guard.
    fn poisoned(&self, len: usize) -> Result<Self::Buffer, Error> {
        self.filled(&vec![f32::NAN; len])
    }

    /// Results as they lie in a buffer.
    fn output(
        &self,
        name: &'static str,
        shape: &[usize],
        buffer: &Self::Buffer,
    ) -> Result<Output, Error> {
        let mut values = self.contents(buffer)?;
        let guard = values.split_off(shape.iter().product());
        Ok(Output {
            name,
            shape: shape.to_vec(),
            values,
            is_guard_whole: guard.iter().all(|&x| self.is_poison(x)),
        })
    }

    /// [`stepscope_kernels::dummy_weights`]: `elements` of the type `dtype` to the front of `out`.
    fn dummy_weights(
        &self,
        out: &mut Self::Buffer,
        elements: usize,
        dtype: DType,
    ) -> Result<Kernel, Error>;

    /// Integers, with a guard of -1 behind them.
    fn guarded(&self, values: &[i32]) -> Result<Self::Indices, Error> {
        self.loaded(&[values, &[-1; GUARD]].concat())
    }

    /// Writes what [`Probe::guarded`] had at first to where it lies: those who launch with its address keep it.
    fn guard(&self, indices: &mut Self::Indices, values: &[i32]) -> Result<(), Error> {
        self.write_indices(indices, &[values, &[-1; GUARD]].concat())
    }

    /// Tokens, -1, with a guard.
    fn no_tokens(&self, len: usize) -> Result<Self::Indices, Error> {
        self.guarded(&vec![-1; len])
    }

    /// Tokens as they lie in indices made by [`Probe::guarded`].
    fn tokens(
        &self,
        name: &'static str,
        len: usize,
        indices: &Self::Indices,
    ) -> Result<Output, Error> {
        let mut values = vec![0; len + GUARD];
        self.read_indices(indices, &mut values)?;
        let guard = values.split_off(len);
        Ok(Output {
            name,
            shape: vec![len],
            values: values.into_iter().map(|token| token as f32).collect(),
            is_guard_whole: guard.iter().all(|&token| token == -1),
        })
    }

    /// A matrix of the storage type.
    fn weights(
        &self,
        values: &[f32],
        rows: usize,
        cols: usize,
        dtype: DType,
    ) -> Result<Self::Matrix, Error> {
        self.matrix(&[HostTensor::from_f32_as(
            dtype,
            &[rows, cols],
            values.to_vec(),
        )?])
    }

    /// A vector of floats.
    fn floats(&self, values: &[f32]) -> Result<Self::Vector, Error> {
        self.vector(&[HostTensor::from_f32(&[values.len()], values.to_vec())?])
    }
}

impl Probe for Cpu {
    fn filled(&self, values: &[f32]) -> Result<CpuBuffer<f32>, Error> {
        let mut buffer = self.buffer(values.len() + GUARD)?;
        self.refill(&mut buffer, values)?;
        Ok(buffer)
    }

    fn refill(&self, buffer: &mut CpuBuffer<f32>, values: &[f32]) -> Result<(), Error> {
        buffer[..values.len()].copy_from_slice(values);
        buffer[values.len()..].fill(f32::NAN);
        Ok(())
    }

    fn contents(&self, buffer: &CpuBuffer<f32>) -> Result<Vec<f32>, Error> {
        Ok(buffer.to_vec())
    }

    /// Through the operation that writes a pool, with a rotation by nothing: cosine 1 and sine 0 change no bit.
    fn pool(
        &self,
        layout: QkvLayout,
        slots: usize,
        dtype: DType,
        at: &[i32],
        [keys, values]: [&[f32]; 2],
    ) -> Result<Self::KvPool, Error> {
        let mut pool = self.kv_pool(1, slots, layout, dtype)?;
        pool.poison();
        let width = layout.kv_width();
        let mut qkv = vec![0.0; at.len() * layout.width()];
        for (row, (keys, values)) in qkv
            .chunks_exact_mut(layout.width())
            .zip(keys.chunks_exact(width).zip(values.chunks_exact(width)))
        {
            let (into_keys, into_values) = row[layout.q_width()..].split_at_mut(width);
            into_keys.copy_from_slice(keys);
            into_values.copy_from_slice(values);
        }
        let table = self.rope_table(&vec![0.0; layout.head_dim / 2], 1)?;
        let positions = self.loaded(&vec![0; at.len()])?;
        let mut qkv = self.filled(&qkv)?;
        let slots = self.loaded(at)?;
        self.rope_kv(
            &mut qkv,
            at.len(),
            layout,
            &positions,
            &slots,
            &table,
            &mut pool,
            0,
        )?;
        Ok(pool)
    }

    fn poison(&self, pool: &mut Self::KvPool) -> Result<(), Error> {
        pool.poison();
        Ok(())
    }

    fn dummy_weights(
        &self,
        out: &mut CpuBuffer<f32>,
        elements: usize,
        dtype: DType,
    ) -> Result<Kernel, Error> {
        let weights = dummy_weights::uniform(self, dtype, &[elements])?;
        out[..elements].copy_from_slice(&weights.to_f32());
        Ok("dummy_weights")
    }

    fn read_pool(&self, _: &Self::KvPool) -> Result<Option<[Vec<f32>; 2]>, Error> {
        Ok(None)
    }
}

impl Probe for Cuda {
    fn filled(&self, values: &[f32]) -> Result<CudaBuffer, Error> {
        let mut buffer = DeviceBuffer::new(self.context(), "a buffer", values.len() + GUARD)?;
        self.refill(&mut buffer, values)?;
        Ok(buffer)
    }

    fn refill(&self, buffer: &mut CudaBuffer, values: &[f32]) -> Result<(), Error> {
        let mut bits: Vec<u16> = values.iter().map(|&x| round(x, self.dtype())).collect();
        bits.resize(buffer.len(), 0xffff);
        Ok(buffer.write(self.stream(), 0, &bits)?)
    }

    fn contents(&self, buffer: &CudaBuffer) -> Result<Vec<f32>, Error> {
        let mut values = vec![0.0; buffer.len()];
        self.read_buffer(buffer, &mut values)?;
        Ok(values)
    }

    /// All bits are set, so that it is a negative NaN: what a kernel computes as NaN is positive.
    fn is_poison(&self, x: f32) -> bool {
        x.is_nan() && x.is_sign_negative()
    }

    fn pool(
        &self,
        layout: QkvLayout,
        slots: usize,
        dtype: DType,
        at: &[i32],
        rows: [&[f32]; 2],
    ) -> Result<CudaKvPool, Error> {
        let mut pool = self.kv_pool(1, slots, layout, dtype)?;
        let width = layout.kv_width();
        let both = rows.map(|rows| {
            let mut bits = vec![0xffff_u16; slots * width];
            for (row, &slot) in rows.chunks_exact(width).zip(at) {
                let to = &mut bits[slot as usize * width..][..width];
                for (to, &x) in to.iter_mut().zip(row) {
                    *to = round(x, dtype);
                }
            }
            bits
        });
        pool.write_layer(self, 0, [&both[0], &both[1]])?;
        Ok(pool)
    }

    fn poison(&self, pool: &mut CudaKvPool) -> Result<(), Error> {
        pool.poison(self)
    }

    fn dummy_weights(
        &self,
        out: &mut CudaBuffer,
        elements: usize,
        _: DType,
    ) -> Result<Kernel, Error> {
        self.fill_dummy_weights(out, elements)
    }

    fn read_pool(&self, pool: &CudaKvPool) -> Result<Option<[Vec<f32>; 2]>, Error> {
        let both = pool.read_layer(self, 0)?;
        let wide = |bits: Vec<u16>| bits.into_iter().map(|x| widen(x, self.dtype())).collect();
        Ok(Some(both.map(wide)))
    }
}

/// An operation at a shape on a device, with its inputs and outputs.
pub(super) trait Problem<B: Backend> {
    /// Puts it into the queue.
    fn launch(&mut self, b: &B) -> Result<Kernel, Error>;
    /// Puts back what launches move on, so that as many can follow: [`Subject::restore`](crate::Subject::restore). What lies where is
    /// the same as before.
    fn restore(&mut self, _b: &B) -> Result<(), Error> {
        Ok(())
    }
    /// Makes outputs NaN, and what is read and written what it was.
    fn reset(&mut self, b: &B) -> Result<(), Error>;
    /// What came out, after all work so far.
    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error>;
}

/// The same on a GPU, for kernels that this program does not have.
pub(super) trait OnCuda: Problem<Cuda> {
    /// What a kernel gets, in the order of [`Operation::arguments`](super::Operation::arguments).
    fn values(&self) -> Result<Vec<Value>, Error>;
}

/// A result, widened.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Output {
    pub(super) name: &'static str,
    /// Outermost axis first.
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) is_guard_whole: bool,
}

/// An argument's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Pointer(DevicePointer),
    Count(u32),
    Float(f32),
}

impl Value {
    pub(super) fn buffer(buffer: &CudaBuffer) -> Value {
        Value::Pointer(buffer.pointer())
    }

    pub(super) fn matrix(matrix: &CudaMatrix) -> Value {
        Value::Pointer(matrix.values().pointer())
    }

    pub(super) fn vector(vector: &CudaVector) -> Value {
        Value::Pointer(vector.pointer())
    }

    pub(super) fn indices(indices: &CudaIndices) -> Value {
        Value::Pointer(indices.pointer())
    }

    /// A dimension, at most 2^30.
    pub(super) fn count(count: usize) -> Value {
        Value::Count(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// As the kernel's parameter has it.
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Value::Pointer(pointer) => pointer.0.to_le_bytes().to_vec(),
            Value::Count(count) => count.to_le_bytes().to_vec(),
            Value::Float(float) => float.to_le_bytes().to_vec(),
        }
    }
}
