//! The forward pass, written once over the operations of `stepscope-kernels`.

use stepscope_kernels::advance::Tables;
use stepscope_kernels::{
    AttentionBatch, Backend, Cost, DType, advance, attention_decode, attention_prefill, embedding,
    gemm, logits, rms_norm, rope_kv, silu_mul,
};
use stepscope_profiler::{Recorder, StepKind, Work};

use crate::Error;
use crate::device_model::{DeviceModel, qkv_layout};
use crate::model::ModelConfig;

/// Buffers of a step, made once for the largest chunk of tokens and reused by every step.
#[derive(Debug)]
pub(crate) struct Buffers<B: Backend> {
    residual: B::Buffer,
    normed: B::Buffer,
    qkv: B::Buffer,
    attention: B::Buffer,
    /// Output of a block, which the next norm adds to the residual.
    block: B::Buffer,
    gate_up: B::Buffer,
    activated: B::Buffer,
    /// Hidden states of each request's last token.
    last: B::Buffer,
    pub(crate) logits: B::Buffer,
    bytes: u64,
}

impl<B: Backend> Buffers<B> {
    /// Buffers for chunks of up to `tokens` tokens and batches of up to `requests` requests.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub(crate) fn new(
        backend: &B,
        config: &ModelConfig,
        tokens: usize,
        requests: usize,
    ) -> Result<Buffers<B>, Error> {
        let layout = qkv_layout(config);
        let mut elements = 0_u64;
        let mut buffer = |rows: usize, width: usize| {
            let len = rows.checked_mul(width).ok_or_else(|| {
                stepscope_kernels::Error::out_of_memory(
                    format!("a buffer of {rows} rows of {width}"),
                    rows as u128 * width as u128,
                )
            })?;
            elements += len as u64;
            backend.buffer(len)
        };
        let mut buffers = Buffers {
            residual: buffer(tokens, config.hidden_size)?,
            normed: buffer(tokens, config.hidden_size)?,
            qkv: buffer(tokens, layout.width())?,
            attention: buffer(tokens, layout.q_width())?,
            block: buffer(tokens, config.hidden_size)?,
            gate_up: buffer(tokens, 2 * config.intermediate_size)?,
            activated: buffer(tokens, config.intermediate_size)?,
            last: buffer(requests, config.hidden_size)?,
            logits: buffer(requests, config.vocab_size)?,
            bytes: 0,
        };
        buffers.bytes = elements * backend.activation_dtype().size() as u64;
        Ok(buffers)
    }

    /// Bytes of all buffers together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// One chunk of a step: rows of one or more requests that go through the layers together.
#[derive(Debug)]
pub(crate) struct Chunk<'a, B: Backend> {
    pub(crate) kind: StepKind,
    /// `[tokens]`
    pub(crate) ids: &'a B::Indices,
    /// `[tokens]`
    pub(crate) positions: &'a B::Indices,
    /// `[tokens]`
    pub(crate) slots: &'a B::Indices,
    pub(crate) attention: AttentionBatch<'a, B::Indices>,
    /// `(query_len, kv_len)` of each request, for the cost models.
    pub(crate) lengths: &'a [(usize, usize)],
    /// Rows of the tokens whose hidden state the output matrix needs.
    pub(crate) last_rows: &'a B::Indices,
    /// How many they are, and where they go in the buffer of last hidden states.
    pub(crate) last_count: usize,
    pub(crate) last_first: usize,
}

/// A model on a device, and its forward pass.
#[derive(Debug)]
pub(crate) struct Forward<B: Backend> {
    pub(crate) backend: B,
    pub(crate) config: ModelConfig,
    /// How weights are stored.
    pub(crate) dtype: DType,
    /// How keys and values are stored.
    pub(crate) kv_dtype: DType,
    pub(crate) model: DeviceModel<B>,
}

impl<B: Backend> Forward<B> {
    /// The name of the one operation of the layers whose work depends on how long requests are.
    pub(crate) const ATTENTION: &'static str = "attention";
    /// The name of the operation whose work depends on how many requests begin a page.
    pub(crate) const ADVANCE: &'static str = "advance";

    /// Moves the tables of a decode batch on by a position, of which its step then is. `begun` requests begin a page.
    ///
    /// # Errors
    /// When the operation fails.
    pub(crate) fn advance(
        &self,
        tables: Tables<'_, B::Indices>,
        begun: usize,
        recorder: &mut Recorder,
    ) -> Result<(), Error> {
        let work = work(advance::cost(tables.requests, begun));
        recorder.operation(Self::ADVANCE, None, work, || self.backend.advance(tables))?;
        Ok(())
    }

    /// Takes a chunk's tokens through all layers, and the hidden states of its last tokens to `buffers.last`.
    ///
    /// # Errors
    /// When an operation fails.
    pub(crate) fn layers(
        &self,
        chunk: &Chunk<'_, B>,
        kv: &mut B::KvPool,
        buffers: &mut Buffers<B>,
        recorder: &mut Recorder,
    ) -> Result<(), Error> {
        let Forward {
            backend,
            config,
            model,
            ..
        } = self;
        let tokens = chunk.attention.tokens;
        let hidden = config.hidden_size;
        let eps = config.rms_norm_eps;
        let layout = qkv_layout(config);
        let act = backend.activation_dtype();
        let buf = buffers;
        let attention_work = self.attention_work(chunk);

        recorder.operation(
            "embedding",
            None,
            work(embedding::cost(tokens, hidden, self.dtype, act)),
            || backend.embedding(chunk.ids, tokens, &model.embedding, &mut buf.residual),
        )?;
        for (index, layer) in model.layers.iter().enumerate() {
            let at = Some(index as u32);
            if index == 0 {
                recorder.operation(
                    "input_norm",
                    at,
                    work(rms_norm::cost(tokens, hidden, act)),
                    || {
                        backend.rms_norm(
                            &buf.residual,
                            tokens,
                            &layer.input_norm,
                            eps,
                            &mut buf.normed,
                        )
                    },
                )?;
            } else {
                recorder.operation(
                    "input_norm",
                    at,
                    work(rms_norm::add_cost(tokens, hidden, act)),
                    || {
                        backend.add_rms_norm(
                            &buf.block,
                            &mut buf.residual,
                            tokens,
                            &layer.input_norm,
                            eps,
                            &mut buf.normed,
                        )
                    },
                )?;
            }
            recorder.operation(
                "qkv_proj",
                at,
                self.gemm_work(tokens, layout.width(), hidden, layer.qkv_bias.is_some()),
                || {
                    backend.gemm(
                        &buf.normed,
                        tokens,
                        &layer.qkv,
                        layer.qkv_bias.as_ref(),
                        &mut buf.qkv,
                    )
                },
            )?;
            if let Some((q_norm, k_norm)) = &layer.qk_norm {
                recorder.operation(
                    "qk_norm",
                    at,
                    work(rms_norm::qk_cost(tokens, layout, act)),
                    || backend.qk_norm(&mut buf.qkv, tokens, layout, q_norm, k_norm, eps),
                )?;
            }
            recorder.operation(
                "rope_kv",
                at,
                work(rope_kv::cost(tokens, layout, act, self.kv_dtype)),
                || {
                    backend.rope_kv(
                        &mut buf.qkv,
                        tokens,
                        layout,
                        chunk.positions,
                        chunk.slots,
                        &model.rope,
                        kv,
                        index,
                    )
                },
            )?;
            recorder.operation(Self::ATTENTION, at, attention_work, || match chunk.kind {
                StepKind::Prefill => backend.attention_prefill(
                    &buf.qkv,
                    layout,
                    &chunk.attention,
                    kv,
                    index,
                    &mut buf.attention,
                ),
                StepKind::Decode => backend.attention_decode(
                    &buf.qkv,
                    layout,
                    &chunk.attention,
                    kv,
                    index,
                    &mut buf.attention,
                ),
            })?;
            recorder.operation(
                "o_proj",
                at,
                self.gemm_work(tokens, hidden, layout.q_width(), layer.o_bias.is_some()),
                || {
                    backend.gemm(
                        &buf.attention,
                        tokens,
                        &layer.o,
                        layer.o_bias.as_ref(),
                        &mut buf.block,
                    )
                },
            )?;
            recorder.operation(
                "post_attention_norm",
                at,
                work(rms_norm::add_cost(tokens, hidden, act)),
                || {
                    backend.add_rms_norm(
                        &buf.block,
                        &mut buf.residual,
                        tokens,
                        &layer.post_attention_norm,
                        eps,
                        &mut buf.normed,
                    )
                },
            )?;
            let inner = config.intermediate_size;
            recorder.operation(
                "gate_up_proj",
                at,
                self.gemm_work(tokens, 2 * inner, hidden, layer.gate_up_bias.is_some()),
                || {
                    backend.gemm(
                        &buf.normed,
                        tokens,
                        &layer.gate_up,
                        layer.gate_up_bias.as_ref(),
                        &mut buf.gate_up,
                    )
                },
            )?;
            recorder.operation(
                "silu_mul",
                at,
                work(silu_mul::cost(tokens, inner, act)),
                || backend.silu_mul(&buf.gate_up, tokens, inner, &mut buf.activated),
            )?;
            recorder.operation(
                "down_proj",
                at,
                self.gemm_work(tokens, hidden, inner, layer.down_bias.is_some()),
                || {
                    backend.gemm(
                        &buf.activated,
                        tokens,
                        &layer.down,
                        layer.down_bias.as_ref(),
                        &mut buf.block,
                    )
                },
            )?;
        }
        if chunk.last_count == 0 {
            return Ok(()); // no request ends in this chunk: its keys and values are all that is needed of it
        }
        recorder.operation(
            "final_norm",
            None,
            work(rms_norm::add_cost(tokens, hidden, act)),
            || {
                backend.add_rms_norm(
                    &buf.block,
                    &mut buf.residual,
                    tokens,
                    &model.final_norm,
                    eps,
                    &mut buf.normed,
                )
            },
        )?;
        recorder.operation(
            "last_token",
            None,
            work(logits::cost(chunk.last_count, hidden, act)),
            || {
                backend.gather_rows(
                    &buf.normed,
                    chunk.last_rows,
                    chunk.last_count,
                    hidden,
                    chunk.last_first,
                    &mut buf.last,
                )
            },
        )?;
        Ok(())
    }

    /// Takes the last hidden states of `requests` requests to `buffers.logits`, `[requests, vocab]`.
    ///
    /// # Errors
    /// When the operation fails.
    pub(crate) fn logits(
        &self,
        requests: usize,
        buffers: &mut Buffers<B>,
        recorder: &mut Recorder,
    ) -> Result<(), Error> {
        let Forward {
            backend,
            config,
            model,
            ..
        } = self;
        let matrix = model.lm_head.as_ref().unwrap_or(&model.embedding);
        Ok(recorder.operation(
            "lm_head",
            None,
            self.gemm_work(requests, config.vocab_size, config.hidden_size, false),
            || backend.gemm(&buffers.last, requests, matrix, None, &mut buffers.logits),
        )?)
    }

    fn gemm_work(&self, m: usize, n: usize, k: usize, bias: bool) -> Work {
        work(gemm::cost(
            m,
            n,
            k,
            bias,
            self.dtype,
            self.backend.activation_dtype(),
        ))
    }

    /// The work of attention in a layer.
    pub(crate) fn attention_work(&self, chunk: &Chunk<'_, B>) -> Work {
        let layout = qkv_layout(&self.config);
        let act = self.backend.activation_dtype();
        match chunk.kind {
            StepKind::Prefill => work(attention_prefill::cost(
                chunk.lengths,
                layout,
                act,
                self.kv_dtype,
            )),
            StepKind::Decode => {
                let kv_lens: Vec<usize> = chunk.lengths.iter().map(|&(_, kv_len)| kv_len).collect();
                work(attention_decode::cost(&kv_lens, layout, act, self.kv_dtype))
            }
        }
    }
}

/// A cost as the recorder takes it.
pub(crate) fn work(cost: Cost) -> Work {
    Work {
        flops: cost.flops,
        weight_bytes: cost.weight_bytes,
        kv_bytes: cost.kv_bytes,
        activation_bytes: cost.activation_bytes,
    }
}
