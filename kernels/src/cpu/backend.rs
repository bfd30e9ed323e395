use std::convert::Infallible;

use crate::advance::Tables;
use crate::rope_kv::CpuRopeTable;
use crate::sample::SamplingParams;
use crate::{
    AttentionBatch, Backend, Cpu, CpuBuffer, CpuKvPool, CpuMatrix, DType, Error, HostTensor,
    Kernel, QkvLayout, advance, attention_decode, attention_prefill, embedding, gemm, logits,
    rms_norm, rope_kv, sample, silu_mul,
};

impl Backend for Cpu {
    type Buffer = CpuBuffer<f32>;
    type Indices = Vec<i32>;
    type Matrix = CpuMatrix;
    type Vector = Vec<f32>;
    type RopeTable = CpuRopeTable;
    type KvPool = CpuKvPool;
    type Graph = Infallible;

    fn activation_dtype(&self) -> DType {
        DType::F32
    }

    fn buffer(&self, len: usize) -> Result<CpuBuffer<f32>, Error> {
        CpuBuffer::zeroed("the activation buffer", len)
    }

    fn indices(&self, len: usize) -> Result<Vec<i32>, Error> {
        let mut indices = Vec::new();
        indices
            .try_reserve_exact(len)
            .map_err(|_| Error::out_of_memory("the index buffer", len as u128 * 4))?;
        indices.resize(len, 0);
        Ok(indices)
    }

    fn matrix(&self, blocks: &[HostTensor]) -> Result<CpuMatrix, Error> {
        CpuMatrix::new(blocks)
    }

    fn vector(&self, blocks: &[HostTensor]) -> Result<Vec<f32>, Error> {
        Ok(blocks.iter().flat_map(HostTensor::to_f32).collect())
    }

    fn rope_table(
        &self,
        inverse_frequencies: &[f64],
        positions: usize,
    ) -> Result<CpuRopeTable, Error> {
        CpuRopeTable::new(inverse_frequencies, positions)
    }

    fn kv_pool(
        &self,
        layers: usize,
        slots: usize,
        layout: QkvLayout,
        dtype: DType,
    ) -> Result<CpuKvPool, Error> {
        CpuKvPool::new(layers, slots, layout, dtype)
    }

    fn write_indices(&self, indices: &mut Vec<i32>, values: &[i32]) -> Result<(), Error> {
        indices[..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn read_indices(&self, indices: &Vec<i32>, values: &mut [i32]) -> Result<(), Error> {
        values.copy_from_slice(&indices[..values.len()]);
        Ok(())
    }

    fn read_buffer(&self, buffer: &CpuBuffer<f32>, values: &mut [f32]) -> Result<(), Error> {
        values.copy_from_slice(&buffer[..values.len()]);
        Ok(())
    }

    fn synchronize(&self) -> Result<(), Error> {
        Ok(())
    }

    fn record(&self, _work: &mut dyn FnMut() -> Result<(), Error>) -> Result<Infallible, Error> {
        Err(Error::shape("the CPU device has no graphs"))
    }

    fn replay(&self, graph: &Infallible) -> Result<(), Error> {
        match *graph {}
    }

    fn advance(&self, tables: Tables<'_, Vec<i32>>) -> Result<Kernel, Error> {
        Ok(advance::reference(tables))
    }

    fn embedding(
        &self,
        ids: &Vec<i32>,
        tokens: usize,
        table: &CpuMatrix,
        out: &mut CpuBuffer<f32>,
    ) -> Result<Kernel, Error> {
        let out = &mut out[..tokens * table.cols()];
        self.run(|| embedding::reference(&ids[..tokens], table, out))
    }

    fn rms_norm(
        &self,
        x: &CpuBuffer<f32>,
        rows: usize,
        weight: &Vec<f32>,
        eps: f32,
        out: &mut CpuBuffer<f32>,
    ) -> Result<Kernel, Error> {
        let len = rows * weight.len();
        Ok(self.run(|| rms_norm::reference(&x[..len], weight, eps, &mut out[..len])))
    }

    fn add_rms_norm(
        &self,
        x: &CpuBuffer<f32>,
        residual: &mut CpuBuffer<f32>,
        rows: usize,
        weight: &Vec<f32>,
        eps: f32,
        out: &mut CpuBuffer<f32>,
    ) -> Result<Kernel, Error> {
        let len = rows * weight.len();
        let (residual, out) = (&mut residual[..len], &mut out[..len]);
        Ok(self.run(|| rms_norm::add_reference(&x[..len], residual, weight, eps, out)))
    }

    fn qk_norm(
        &self,
        qkv: &mut CpuBuffer<f32>,
        tokens: usize,
        layout: QkvLayout,
        q_weight: &Vec<f32>,
        k_weight: &Vec<f32>,
        eps: f32,
    ) -> Result<Kernel, Error> {
        let qkv = &mut qkv[..tokens * layout.width()];
        Ok(self.run(|| rms_norm::qk_reference(qkv, layout, q_weight, k_weight, eps)))
    }

    fn gemm(
        &self,
        x: &CpuBuffer<f32>,
        m: usize,
        weight: &CpuMatrix,
        bias: Option<&Vec<f32>>,
        out: &mut CpuBuffer<f32>,
    ) -> Result<Kernel, Error> {
        let x = &x[..m * weight.cols()];
        let out = &mut out[..m * weight.rows()];
        Ok(self.run(|| gemm::reference(x, m, weight, bias.map(Vec::as_slice), out)))
    }

    fn rope_kv(
        &self,
        qkv: &mut CpuBuffer<f32>,
        tokens: usize,
        layout: QkvLayout,
        positions: &Vec<i32>,
        slots: &Vec<i32>,
        rope: &CpuRopeTable,
        kv: &mut CpuKvPool,
        layer: usize,
    ) -> Result<Kernel, Error> {
        let qkv = &mut qkv[..tokens * layout.width()];
        let (positions, slots) = (&positions[..tokens], &slots[..tokens]);
        self.run(|| rope_kv::reference(qkv, layout, positions, slots, rope, kv, layer))
    }

    fn attention_prefill(
        &self,
        qkv: &CpuBuffer<f32>,
        layout: QkvLayout,
        batch: &AttentionBatch<'_, Vec<i32>>,
        kv: &CpuKvPool,
        layer: usize,
        out: &mut CpuBuffer<f32>,
    ) -> Result<Kernel, Error> {
        let qkv = &qkv[..batch.tokens * layout.width()];
        let out = &mut out[..batch.tokens * layout.q_width()];
        self.run(|| attention_prefill::reference(qkv, layout, batch, kv, layer, out))
    }

    fn attention_decode(
        &self,
        qkv: &CpuBuffer<f32>,
        layout: QkvLayout,
        batch: &AttentionBatch<'_, Vec<i32>>,
        kv: &CpuKvPool,
        layer: usize,
        out: &mut CpuBuffer<f32>,
    ) -> Result<Kernel, Error> {
        let qkv = &qkv[..batch.requests * layout.width()];
        let out = &mut out[..batch.requests * layout.q_width()];
        self.run(|| attention_decode::reference(qkv, layout, batch, kv, layer, out))
    }

    fn silu_mul(
        &self,
        gate_up: &CpuBuffer<f32>,
        rows: usize,
        width: usize,
        out: &mut CpuBuffer<f32>,
    ) -> Result<Kernel, Error> {
        let gate_up = &gate_up[..rows * 2 * width];
        let out = &mut out[..rows * width];
        Ok(self.run(|| silu_mul::reference(gate_up, width, out)))
    }

    fn gather_rows(
        &self,
        x: &CpuBuffer<f32>,
        rows: &Vec<i32>,
        count: usize,
        width: usize,
        first: usize,
        out: &mut CpuBuffer<f32>,
    ) -> Result<Kernel, Error> {
        let out = &mut out[first * width..][..count * width];
        self.run(|| logits::reference(x, &rows[..count], width, out))
    }

    fn sample(
        &self,
        logits: &CpuBuffer<f32>,
        requests: usize,
        vocab: usize,
        params: &SamplingParams,
        step: u64,
        out: &mut Vec<i32>,
    ) -> Result<Kernel, Error> {
        let logits = &logits[..requests * vocab];
        let out = &mut out[..requests];
        Ok(self.run(|| sample::reference(logits, vocab, params, step, out)))
    }
}
