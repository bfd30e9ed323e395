use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::advance::Tables;
use crate::sample::SamplingParams;
use crate::{DType, Error, HostTensor, TuningSource, dummy_weights};

/// The name of the kernel that an operation ran, as records and tables show it.
pub type Kernel = &'static str;

/// How the rows of a fused QKV buffer are laid out: `[tokens, (heads + 2 * kv_heads) * head_dim]`, queries first, then
/// keys, then values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QkvLayout {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
}

impl QkvLayout {
    /// Elements in a row.
    pub const fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Elements of a row that are queries.
    pub const fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of a row that are keys (as many are values).
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// What attention needs to know of a batch. Request `r` owns the query rows `query_start[r] .. query_start[r + 1]`, which
/// are the last of its `kv_len[r]` positions; its position `p` lives in slot
/// `page_table[r * max_pages + p / page_size] * page_size + p % page_size`.
#[derive(Debug)]
pub struct AttentionBatch<'a, I> {
    /// Requests in the batch.
    pub requests: usize,
    /// Query rows of all requests together.
    pub tokens: usize,
    /// The most query rows of any one request.
    pub max_query_len: usize,
    /// The most positions of any one request.
    pub max_kv_len: usize,
    /// `[requests + 1]`, ascending from 0 to `tokens`.
    pub query_start: &'a I,
    /// `[requests]`: positions in the cache, those of this step's queries included.
    pub kv_len: &'a I,
    /// `[requests, max_pages]`; entries past a request's last page are never read.
    pub page_table: &'a I,
    /// Row length of `page_table`.
    pub max_pages: usize,
    /// Slots per page.
    pub page_size: usize,
}

/// A device that runs the operations of a step.
///
/// A forward pass is written once over this trait. Each method runs one operation, whose module documents formula,
/// shapes and cost, and returns the name of the kernel that ran. Buffers are made before a step and reused: no method
/// but the constructors allocates.
///
/// Callers keep the shapes: a method may panic on buffers shorter than its shapes say, never on their contents.
pub trait Backend: fmt::Debug {
    /// Activations, in [`Backend::activation_dtype`].
    type Buffer: fmt::Debug + Send;
    /// 32-bit integers: token ids, positions, slots, tables.
    type Indices: fmt::Debug + Send;
    /// A weight matrix `[rows, cols]`.
    type Matrix: fmt::Debug + Send + Sync;
    /// A weight vector (norm weights, biases).
    type Vector: fmt::Debug + Send + Sync;
    /// Cosines and sines of every position.
    type RopeTable: fmt::Debug + Send + Sync;
    /// The keys and values of all layers: per layer `[slots, kv_heads, head_dim]` of each.
    type KvPool: fmt::Debug + Send;
    /// Operations that were recorded to be repeated.
    type Graph: fmt::Debug + Send;

    /// How activations are stored, which the cost models need.
    fn activation_dtype(&self) -> DType;

    /// A zeroed buffer of `len` activations.
    fn buffer(&self, len: usize) -> Result<Self::Buffer, Error>;
    /// Zeroed indices.
    fn indices(&self, len: usize) -> Result<Self::Indices, Error>;
    /// A matrix whose rows are those of `blocks`, one block under the other (all with the same columns and data type).
    fn matrix(&self, blocks: &[HostTensor]) -> Result<Self::Matrix, Error>;
    /// A matrix of [`crate::dummy_weights`]: parameters `[rows, cols]` under one another, all with the same columns, as they are
    /// where a host stores them as `dtype`.
    fn dummy_matrix(&self, dtype: DType, blocks: &[[usize; 2]]) -> Result<Self::Matrix, Error> {
        self.matrix(&dummy_weights::blocks_here(dtype, blocks)?)
    }
    /// A vector that holds `blocks` end to end.
    fn vector(&self, blocks: &[HostTensor]) -> Result<Self::Vector, Error>;
    /// The rotation of position `p` and pair `i` is `p * inverse_frequencies[i]`, for `positions` positions.
    fn rope_table(
        &self,
        inverse_frequencies: &[f64],
        positions: usize,
    ) -> Result<Self::RopeTable, Error>;
    /// A pool of `slots` slots for `layers` layers, stored as `dtype`. Memory is taken only as slots are written, where
    /// the device can do that.
    fn kv_pool(
        &self,
        layers: usize,
        slots: usize,
        layout: QkvLayout,
        dtype: DType,
    ) -> Result<Self::KvPool, Error>;

    /// Copies `values` to the front of `indices`.
    fn write_indices(&self, indices: &mut Self::Indices, values: &[i32]) -> Result<(), Error>;
    /// Copies the front of `indices` to `values`, after all work so far.
    fn read_indices(&self, indices: &Self::Indices, values: &mut [i32]) -> Result<(), Error>;
    /// Copies the front of `buffer` to `values`, widened to float32, after all work so far.
    fn read_buffer(&self, buffer: &Self::Buffer, values: &mut [f32]) -> Result<(), Error>;
    /// Returns when all work so far is done.
    fn synchronize(&self) -> Result<(), Error>;

    /// Counts the kernels that were put into the device's queue, where it has one.
    fn launches(&self) -> Option<Arc<AtomicU64>> {
        None
    }

    /// The table that takes the place of its choosers, where one does.
    fn tuning_source(&self) -> Option<TuningSource> {
        None
    }

    /// Whether weights are copied to memory of the device's own.
    fn has_own_memory(&self) -> bool {
        false
    }

    /// Whether [`Backend::record`] can be had.
    fn has_graphs(&self) -> bool {
        false
    }

    /// Notes the operations that `work` calls, and does none of them; `work` is called twice. What they do may differ from
    /// one repetition to the next only by what their buffers hold.
    ///
    /// # Errors
    /// Those of `work`; the device has no graphs.
    fn record(&self, work: &mut dyn FnMut() -> Result<(), Error>) -> Result<Self::Graph, Error>;

    /// Does what was recorded. The buffers, matrices, vectors, tables and pools of the recorded operations must still be
    /// there: as their shapes, callers keep that.
    ///
    /// # Errors
    /// The device refused.
    fn replay(&self, graph: &Self::Graph) -> Result<(), Error>;

    /// [`crate::advance`]: each request of a decode batch gets a position more, of which the tables then tell.
    fn advance(&self, tables: Tables<'_, Self::Indices>) -> Result<Kernel, Error>;

    /// [`crate::embedding`]: row `ids[t]` of `table` into row `t` of `out` `[tokens, cols]`.
    fn embedding(
        &self,
        ids: &Self::Indices,
        tokens: usize,
        table: &Self::Matrix,
        out: &mut Self::Buffer,
    ) -> Result<Kernel, Error>;

    /// [`crate::rms_norm`]: `out = x / rms(x) * weight`, `rows` rows of `weight`'s length.
    fn rms_norm(
        &self,
        x: &Self::Buffer,
        rows: usize,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Buffer,
    ) -> Result<Kernel, Error>;

    /// [`crate::rms_norm`] with the residual fused in: `residual += x`, then `out = rms_norm(residual)`.
    fn add_rms_norm(
        &self,
        x: &Self::Buffer,
        residual: &mut Self::Buffer,
        rows: usize,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Buffer,
    ) -> Result<Kernel, Error>;

    /// [`crate::rms_norm`] of each query and key head of `qkv`, in place (QK norm).
    fn qk_norm(
        &self,
        qkv: &mut Self::Buffer,
        tokens: usize,
        layout: QkvLayout,
        q_weight: &Self::Vector,
        k_weight: &Self::Vector,
        eps: f32,
    ) -> Result<Kernel, Error>;

    /// [`crate::gemm`]: `out = x @ weight^T (+ bias)`, `x` `[m, cols]`, `out` `[m, rows]`.
    fn gemm(
        &self,
        x: &Self::Buffer,
        m: usize,
        weight: &Self::Matrix,
        bias: Option<&Self::Vector>,
        out: &mut Self::Buffer,
    ) -> Result<Kernel, Error>;

    /// [`crate::rope_kv`]: rotates queries and keys of `qkv` in place by their `positions`, and writes keys and values to
    /// their `slots` of layer `layer`.
    #[allow(clippy::too_many_arguments)] // one launch: the fused kernel takes all of them
    fn rope_kv(
        &self,
        qkv: &mut Self::Buffer,
        tokens: usize,
        layout: QkvLayout,
        positions: &Self::Indices,
        slots: &Self::Indices,
        rope: &Self::RopeTable,
        kv: &mut Self::KvPool,
        layer: usize,
    ) -> Result<Kernel, Error>;

    /// [`crate::attention_prefill`]: causal attention of a ragged batch over the paged pool, queries from `qkv`, into
    /// `out` `[tokens, heads * head_dim]`.
    fn attention_prefill(
        &self,
        qkv: &Self::Buffer,
        layout: QkvLayout,
        batch: &AttentionBatch<'_, Self::Indices>,
        kv: &Self::KvPool,
        layer: usize,
        out: &mut Self::Buffer,
    ) -> Result<Kernel, Error>;

    /// [`crate::attention_decode`]: the same for one query row per request.
    fn attention_decode(
        &self,
        qkv: &Self::Buffer,
        layout: QkvLayout,
        batch: &AttentionBatch<'_, Self::Indices>,
        kv: &Self::KvPool,
        layer: usize,
        out: &mut Self::Buffer,
    ) -> Result<Kernel, Error>;

    /// [`crate::silu_mul`]: `out = silu(gate) * up`, rows of `gate_up` being `[gate, up]`, each `width` long.
    fn silu_mul(
        &self,
        gate_up: &Self::Buffer,
        rows: usize,
        width: usize,
        out: &mut Self::Buffer,
    ) -> Result<Kernel, Error>;

    /// [`crate::logits`]: row `rows[i]` of `x` into row `first + i` of `out`, `count` rows of `width`. A prefill that runs
    /// in chunks gathers each chunk's last tokens behind those of the chunks before.
    fn gather_rows(
        &self,
        x: &Self::Buffer,
        rows: &Self::Indices,
        count: usize,
        width: usize,
        first: usize,
        out: &mut Self::Buffer,
    ) -> Result<Kernel, Error>;

    /// [`crate::sample`]: one token id per row of `logits` `[requests, vocab]` into `out`. `step` makes the random
    /// numbers of one decode step differ from those of the next.
    fn sample(
        &self,
        logits: &Self::Buffer,
        requests: usize,
        vocab: usize,
        params: &SamplingParams,
        step: u64,
        out: &mut Self::Indices,
    ) -> Result<Kernel, Error>;
}
