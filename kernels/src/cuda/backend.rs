use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stepscope_device::driver::{DeviceBuffer, Graph, GraphExec, PinnedBuffer};

use super::memory::widen;
use super::{Cuda, CudaBuffer, CudaIndices, CudaKvPool, CudaMatrix, CudaRopeTable, CudaVector};
use crate::advance::Tables;
use crate::sample::SamplingParams;
use crate::{
    AttentionBatch, Backend, DType, Error, HostTensor, Kernel, QkvLayout, TuningSource, advance,
    attention_decode, attention_prefill, dummy_weights, embedding, gemm, logits, rms_norm, rope_kv,
    sample, silu_mul,
};

/// Recorded operations, ready to be repeated.
#[derive(Debug)]
pub struct CudaGraph {
    exec: GraphExec,
    /// Kernels in it.
    launches: u64,
}

impl Backend for Cuda {
    type Buffer = CudaBuffer;
    type Indices = CudaIndices;
    type Matrix = CudaMatrix;
    type Vector = CudaVector;
    type RopeTable = CudaRopeTable;
    type KvPool = CudaKvPool;
    type Graph = CudaGraph;

    fn activation_dtype(&self) -> DType {
        self.dtype
    }

    fn buffer(&self, len: usize) -> Result<CudaBuffer, Error> {
        let mut buffer = DeviceBuffer::new(&self.context, "an activation buffer", len)?;
        buffer.fill(&self.stream, 0)?;
        Ok(buffer)
    }

    fn indices(&self, len: usize) -> Result<CudaIndices, Error> {
        let mut values = DeviceBuffer::new(&self.context, "an index buffer", len)?;
        values.fill(&self.stream, 0)?;
        let staged = PinnedBuffer::new(&self.context, "an index buffer", len)?;
        Ok(CudaIndices { values, staged })
    }

    fn matrix(&self, blocks: &[HostTensor]) -> Result<CudaMatrix, Error> {
        self.new_matrix(blocks)
    }

    fn dummy_matrix(&self, dtype: DType, blocks: &[[usize; 2]]) -> Result<CudaMatrix, Error> {
        let cols = blocks.first().map_or(0, |block| block[1]);
        if dtype == self.dtype && blocks.iter().all(|block| block[1] == cols) {
            let rows: Vec<usize> = blocks.iter().map(|block| block[0]).collect();
            if let Some(matrix) = dummy_weights::launch::matrix(self, &rows, cols)? {
                return Ok(matrix);
            }
        }
        self.new_matrix(&dummy_weights::blocks_here(dtype, blocks)?)
    }

    fn vector(&self, blocks: &[HostTensor]) -> Result<CudaVector, Error> {
        let values: Vec<f32> = blocks.iter().flat_map(HostTensor::to_f32).collect();
        let mut vector = DeviceBuffer::new(&self.context, "a weight vector", values.len())?;
        vector.write(&self.stream, 0, &values)?;
        Ok(vector)
    }

    fn rope_table(
        &self,
        inverse_frequencies: &[f64],
        positions: usize,
    ) -> Result<CudaRopeTable, Error> {
        let pairs = inverse_frequencies.len();
        // In float64, as the CPU device has it: the angle of a late position has no digits left in float32.
        let values: Vec<f32> = (0..positions)
            .flat_map(|position| {
                let angles = inverse_frequencies.iter().map(move |f| position as f64 * f);
                angles.flat_map(|angle| [angle.cos() as f32, angle.sin() as f32])
            })
            .collect();
        let what = format!("the rope table of {positions} positions");
        let mut table = DeviceBuffer::new(&self.context, &what, values.len())?;
        table.write(&self.stream, 0, &values)?;
        Ok(CudaRopeTable {
            values: table,
            pairs,
        })
    }

    fn kv_pool(
        &self,
        layers: usize,
        slots: usize,
        layout: QkvLayout,
        dtype: DType,
    ) -> Result<CudaKvPool, Error> {
        self.new_pool(layers, slots, layout, dtype)
    }

    fn write_indices(&self, indices: &mut CudaIndices, values: &[i32]) -> Result<(), Error> {
        indices.staged.host_mut()?[..values.len()].copy_from_slice(values);
        let CudaIndices {
            values: device,
            staged,
        } = indices;
        Ok(device.upload(&self.stream, 0, staged, values.len())?)
    }

    fn read_indices(&self, indices: &CudaIndices, values: &mut [i32]) -> Result<(), Error> {
        Ok(indices.values.read(&self.stream, 0, values)?)
    }

    fn read_buffer(&self, buffer: &CudaBuffer, values: &mut [f32]) -> Result<(), Error> {
        let mut bits = vec![0; values.len()];
        buffer.read(&self.stream, 0, &mut bits)?;
        for (value, bits) in values.iter_mut().zip(bits) {
            *value = widen(bits, self.dtype);
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<(), Error> {
        self.usable()?;
        let launches = self.launches.load(Ordering::Relaxed);
        let since = launches - self.synchronized.swap(launches, Ordering::Relaxed);
        let done = self.stream.synchronize();
        done.map_err(|error| {
            let message = match since {
                0 => error.to_string(),
                n => format!(
                    "one of the {n} kernels launched since the device was last waited for failed: {error}; run again with \
                     CUDA_LAUNCH_BLOCKING=1 in the environment and --disable-cuda-graph to have it named"
                ),
            };
            self.note(&error, &message);
            Error::failed(message)
        })
    }

    fn launches(&self) -> Option<Arc<AtomicU64>> {
        Some(Arc::clone(&self.launches))
    }

    fn has_graphs(&self) -> bool {
        true
    }

    fn tuning_source(&self) -> Option<TuningSource> {
        self.tuning()?.source().cloned()
    }

    fn has_own_memory(&self) -> bool {
        true
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<(), Error>) -> Result<CudaGraph, Error> {
        // Loading a kernel is not allowed while a graph is recorded.
        self.only_loads.store(true, Ordering::Relaxed);
        let loaded = work();
        self.only_loads.store(false, Ordering::Relaxed);
        loaded?;
        let mut failure = None;
        let before = self.launches.load(Ordering::Relaxed);
        let graph = Graph::capture(&self.stream, || {
            failure = work().err();
            Ok(())
        });
        // They were noted, not launched.
        let launches = self.launches.swap(before, Ordering::Relaxed) - before;
        if let Some(error) = failure {
            return Err(error);
        }
        let exec = graph?.instantiate()?;
        exec.upload(&self.stream)?;
        Ok(CudaGraph { exec, launches })
    }

    fn replay(&self, graph: &CudaGraph) -> Result<(), Error> {
        self.usable()?;
        // SAFETY: what it was recorded with is there, which is the contract of `Backend`; kernels, their modules and the workspace live as long as this device does.
        unsafe { graph.exec.launch(&self.stream)? };
        self.launches.fetch_add(graph.launches, Ordering::Relaxed);
        Ok(())
    }

    fn advance(&self, tables: Tables<'_, CudaIndices>) -> Result<Kernel, Error> {
        advance::launch::advance(self, tables)
    }

    fn embedding(
        &self,
        ids: &CudaIndices,
        tokens: usize,
        table: &CudaMatrix,
        out: &mut CudaBuffer,
    ) -> Result<Kernel, Error> {
        embedding::launch::embedding(self, ids, tokens, table, out)
    }

    fn rms_norm(
        &self,
        x: &CudaBuffer,
        rows: usize,
        weight: &CudaVector,
        eps: f32,
        out: &mut CudaBuffer,
    ) -> Result<Kernel, Error> {
        rms_norm::launch::rms_norm(self, x, rows, weight, eps, out)
    }

    fn add_rms_norm(
        &self,
        x: &CudaBuffer,
        residual: &mut CudaBuffer,
        rows: usize,
        weight: &CudaVector,
        eps: f32,
        out: &mut CudaBuffer,
    ) -> Result<Kernel, Error> {
        rms_norm::launch::add_rms_norm(self, x, residual, rows, weight, eps, out)
    }

    fn qk_norm(
        &self,
        qkv: &mut CudaBuffer,
        tokens: usize,
        layout: QkvLayout,
        q_weight: &CudaVector,
        k_weight: &CudaVector,
        eps: f32,
    ) -> Result<Kernel, Error> {
        rms_norm::launch::qk_norm(self, qkv, tokens, layout, q_weight, k_weight, eps)
    }

    fn gemm(
        &self,
        x: &CudaBuffer,
        m: usize,
        weight: &CudaMatrix,
        bias: Option<&CudaVector>,
        out: &mut CudaBuffer,
    ) -> Result<Kernel, Error> {
        gemm::launch::gemm(self, x, m, weight, bias, out)
    }

    fn rope_kv(
        &self,
        qkv: &mut CudaBuffer,
        tokens: usize,
        layout: QkvLayout,
        positions: &CudaIndices,
        slots: &CudaIndices,
        rope: &CudaRopeTable,
        kv: &mut CudaKvPool,
        layer: usize,
    ) -> Result<Kernel, Error> {
        rope_kv::launch::rope_kv(self, qkv, tokens, layout, positions, slots, rope, kv, layer)
    }

    fn attention_prefill(
        &self,
        qkv: &CudaBuffer,
        layout: QkvLayout,
        batch: &AttentionBatch<'_, CudaIndices>,
        kv: &CudaKvPool,
        layer: usize,
        out: &mut CudaBuffer,
    ) -> Result<Kernel, Error> {
        attention_prefill::launch::attention_prefill(self, qkv, layout, batch, kv, layer, out)
    }

    fn attention_decode(
        &self,
        qkv: &CudaBuffer,
        layout: QkvLayout,
        batch: &AttentionBatch<'_, CudaIndices>,
        kv: &CudaKvPool,
        layer: usize,
        out: &mut CudaBuffer,
    ) -> Result<Kernel, Error> {
        attention_decode::launch::attention_decode(self, qkv, layout, batch, kv, layer, out)
    }

    fn silu_mul(
        &self,
        gate_up: &CudaBuffer,
        rows: usize,
        width: usize,
        out: &mut CudaBuffer,
    ) -> Result<Kernel, Error> {
        silu_mul::launch::silu_mul(self, gate_up, rows, width, out)
    }

    fn gather_rows(
        &self,
        x: &CudaBuffer,
        rows: &CudaIndices,
        count: usize,
        width: usize,
        first: usize,
        out: &mut CudaBuffer,
    ) -> Result<Kernel, Error> {
        logits::launch::gather_rows(self, x, rows, count, width, first, out)
    }

    fn sample(
        &self,
        logits: &CudaBuffer,
        requests: usize,
        vocab: usize,
        params: &SamplingParams,
        step: u64,
        out: &mut CudaIndices,
    ) -> Result<Kernel, Error> {
        sample::launch::sample(self, logits, requests, vocab, params, step, out)
    }
}
