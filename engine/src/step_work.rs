//! The work of a step of any model on any number of ranks, without running it.
//!
//! It is what the forward pass would tell the recorder, which a test holds it against, and what tensor parallelism adds: each
//! rank has its share of the heads, of the MLP and of the output matrix, and the ranks sum their hidden states after each
//! attention and MLP block (Shoeybi et al., "Megatron-LM", 2019), and after the embedding, as sglang and vLLM do.

use stepscope_kernels::{
    DType, QkvLayout, advance, attention_decode, attention_prefill, embedding, gemm, logits,
    rms_norm, rope_kv, sample, silu_mul,
};
use stepscope_profiler::StepKind;
use stepscope_profiler::explain::{Communication, OperationWork, StepModel, StepShape, StepWork};

use crate::Error;
use crate::forward::work;
use crate::model::ModelConfig;

/// A model spread over tensor-parallel ranks.
#[derive(Debug, Clone)]
pub struct ShardedModel {
    name: String,
    config: ModelConfig,
    tp: usize,
    pp: usize,
    dtypes: DTypes,
    /// Bytes of weights over those of `dtypes`: less than 1 for quantised ones.
    weight_scale: f64,
    /// Bytes of keys and values over those of `dtypes`.
    kv_scale: f64,
    /// Of one rank.
    layout: QkvLayout,
}

/// How a step stores what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DTypes {
    /// Weights.
    pub weights: DType,
    /// Activations.
    pub activations: DType,
    /// Keys and values.
    pub kv: DType,
}

impl DTypes {
    /// All of them alike.
    pub fn all(dtype: DType) -> DTypes {
        DTypes {
            weights: dtype,
            activations: dtype,
            kv: dtype,
        }
    }
}

impl ShardedModel {
    /// `config` over `tp` ranks; `name` is what sentences call it. With more ranks than key and value heads, each of these lies
    /// on several ranks.
    ///
    /// # Errors
    /// When the ranks cannot share heads, MLP and vocabulary evenly.
    pub fn new(
        name: impl Into<String>,
        config: &ModelConfig,
        tp: usize,
        dtypes: DTypes,
    ) -> Result<ShardedModel, Error> {
        let shared_evenly = |what: &str, count: usize| {
            if tp > 0 && count.is_multiple_of(tp) {
                Ok(count / tp)
            } else {
                Err(Error::input(format!(
                    "--tp {tp}: the model's {count} {what} cannot be shared evenly by {tp} ranks"
                )))
            }
        };
        let heads = shared_evenly("query heads", config.heads)?;
        shared_evenly("columns of the MLP", config.intermediate_size)?;
        let kv_heads = if config.kv_heads < tp {
            if !tp.is_multiple_of(config.kv_heads) {
                return Err(Error::input(format!(
                    "--tp {tp}: the model's {} key and value heads cannot be spread over {tp} ranks",
                    config.kv_heads
                )));
            }
            1
        } else {
            shared_evenly("key and value heads", config.kv_heads)?
        };
        Ok(ShardedModel {
            name: name.into(),
            config: config.clone(),
            tp,
            pp: 1,
            dtypes,
            weight_scale: 1.0,
            kv_scale: 1.0,
            layout: QkvLayout {
                heads,
                kv_heads,
                head_dim: config.head_dim,
            },
        })
    }

    /// The same model with its layers over `pp` pipeline stages: a batch still passes through all of them, but each rank holds the
    /// layers of its stage alone.
    ///
    /// # Errors
    /// When there are more stages than layers, or none.
    pub fn with_stages(mut self, pp: usize) -> Result<ShardedModel, Error> {
        if pp == 0 || pp > self.config.layers {
            return Err(Error::input(format!(
                "--pp {pp}: the model has {} layers, and each stage needs one",
                self.config.layers
            )));
        }
        self.pp = pp;
        Ok(self)
    }

    /// The same model with weights of `bytes` altogether, as a quantised file has them; arithmetic stays what it is.
    pub fn with_weight_bytes(mut self, bytes: f64) -> ShardedModel {
        let plain = self.config.parameters() * self.dtypes.weights.size() as u64;
        if bytes > 0.0 && plain > 0 {
            self.weight_scale = bytes / plain as f64;
        }
        self
    }

    /// The same model with weights of so many bits, and keys and values of so many.
    pub fn with_bits(mut self, weight_bits: f64, kv_bits: f64) -> ShardedModel {
        let scale = |bits: f64, dtype: DType| bits / (8.0 * dtype.size() as f64);
        if weight_bits > 0.0 && kv_bits > 0.0 {
            self.weight_scale = scale(weight_bits, self.dtypes.weights);
            self.kv_scale = scale(kv_bits, self.dtypes.kv);
        }
        self
    }

    fn scaled(&self, weight_bytes: u64) -> u64 {
        (weight_bytes as f64 * self.weight_scale) as u64
    }

    /// Layers of the stage that has most of them.
    fn layers_per_stage(&self) -> u64 {
        self.config.layers.div_ceil(self.pp) as u64
    }
}

impl StepModel for ShardedModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn tp(&self) -> u64 {
        self.tp as u64
    }

    fn pp(&self) -> u64 {
        self.pp as u64
    }

    fn step(&self, shape: &StepShape) -> StepWork {
        let ShardedModel {
            config,
            layout,
            dtypes,
            ..
        } = self;
        let (batch, new_tokens) = (shape.batch_size as usize, shape.new_tokens as usize);
        let tokens = batch.saturating_mul(new_tokens);
        let hidden = config.hidden_size;
        let inner = config.intermediate_size / self.tp;
        let vocab = config.vocab_size.div_ceil(self.tp);
        let act = dtypes.activations;
        let gemm = |m, n, k, bias| work(gemm::cost(m, n, k, bias, dtypes.weights, act));
        let lengths = vec![(new_tokens, shape.context as usize); batch];
        let attention = match shape.kind {
            StepKind::Prefill => attention_prefill::cost(&lengths, *layout, act, dtypes.kv),
            StepKind::Decode => {
                let contexts = vec![shape.context as usize; batch];
                attention_decode::cost(&contexts, *layout, act, dtypes.kv)
            }
        };
        let layers = config.layers as u64;
        let add_norm = work(rms_norm::add_cost(tokens, hidden, act));
        let mut operations = Vec::new();
        let mut push = |name, calls, work| {
            if calls > 0 {
                operations.push(OperationWork { name, calls, work });
            }
        };
        if shape.kind == StepKind::Decode {
            // A request begins a page once in a page's length of steps, which adds next to nothing.
            push("advance", 1, work(advance::cost(batch, 0)));
        }
        push(
            "embedding",
            1,
            work(embedding::cost(tokens, hidden, dtypes.weights, act)),
        );
        // The first norm has no block's output to add.
        push("input_norm", 1, work(rms_norm::cost(tokens, hidden, act)));
        push("input_norm", layers - 1, add_norm);
        push(
            "qkv_proj",
            layers,
            gemm(tokens, layout.width(), hidden, config.qkv_bias),
        );
        if config.qk_norm {
            push(
                "qk_norm",
                layers,
                work(rms_norm::qk_cost(tokens, *layout, act)),
            );
        }
        push(
            "rope_kv",
            layers,
            work(rope_kv::cost(tokens, *layout, act, dtypes.kv)),
        );
        push("attention", layers, work(attention));
        push(
            "o_proj",
            layers,
            gemm(tokens, hidden, layout.q_width(), config.o_bias),
        );
        push("post_attention_norm", layers, add_norm);
        push(
            "gate_up_proj",
            layers,
            gemm(tokens, 2 * inner, hidden, config.mlp_bias),
        );
        push("silu_mul", layers, work(silu_mul::cost(tokens, inner, act)));
        push(
            "down_proj",
            layers,
            gemm(tokens, hidden, inner, config.mlp_bias),
        );
        push("final_norm", 1, add_norm);
        push("last_token", 1, work(logits::cost(batch, hidden, act)));
        push("lm_head", 1, gemm(batch, vocab, hidden, false));
        push(
            "sample",
            1,
            work(sample::cost(batch, config.vocab_size, act)),
        );
        let communication = if self.tp < 2 {
            Communication::default()
        } else {
            let size = act.size() as u64;
            Communication {
                ranks: self.tp as u64,
                all_reduces: 2 * layers + 1,
                all_reduce_bytes: tokens as u64 * hidden as u64 * size,
                gathered_bytes: batch as u64 * config.vocab_size as u64 * size,
            }
        };
        for operation in &mut operations {
            operation.work.weight_bytes = self.scaled(operation.work.weight_bytes);
            operation.work.kv_bytes = (operation.work.kv_bytes as f64 * self.kv_scale) as u64;
        }
        StepWork {
            operations,
            communication,
        }
    }

    fn weight_bytes(&self) -> u64 {
        let ShardedModel { config, layout, .. } = self;
        let (hidden, layers) = (config.hidden_size as u64, self.layers_per_stage());
        let inner = (config.intermediate_size / self.tp) as u64;
        let vocab = config.vocab_size.div_ceil(self.tp) as u64;
        let per_layer = hidden * (layout.width() + layout.q_width()) as u64 + 3 * hidden * inner;
        // The first stage has the embedding and the last one the output matrix.
        let tables = if config.tie_word_embeddings || self.pp > 1 {
            1
        } else {
            2
        };
        let elements = layers * per_layer + tables * vocab * hidden;
        self.scaled(elements * self.dtypes.weights.size() as u64)
    }

    fn kv_bytes_per_token(&self) -> u64 {
        let layers = self.layers_per_stage();
        let bytes = 2 * layers * self.layout.kv_width() as u64 * self.dtypes.kv.size() as u64;
        (bytes as f64 * self.kv_scale) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stepscope_kernels::Cpu;
    use stepscope_profiler::{Step, Work};

    use super::*;
    use crate::model::{LoadFormat, LoadOptions, NoProgress, find_config, load};
    use crate::{Runner, RunnerOptions};

    /// Calls and summed work by name.
    type Totals = BTreeMap<String, (u64, Work)>;

    fn recorded(step: &Step) -> Totals {
        let mut totals = Totals::new();
        for operation in &step.operations {
            let entry = totals.entry(operation.name.to_string()).or_default();
            entry.0 += 1;
            entry.1 += operation.work;
        }
        totals
    }

    fn planned(work: &StepWork) -> Totals {
        let mut totals = Totals::new();
        for operation in &work.operations {
            let entry = totals.entry(operation.name.to_owned()).or_default();
            entry.0 += operation.calls;
            for _ in 0..operation.calls {
                entry.1 += operation.work;
            }
        }
        totals
    }

    /// What one rank is expected to do is what a run's recorder says that it did.
    #[test]
    fn one_rank_does_what_the_forward_pass_records() {
        for (model, overrides) in [
            (
                "qwen2.5-0.5b",
                r#"{"num_hidden_layers": 2, "vocab_size": 320}"#,
            ),
            (
                "qwen3-0.6b",
                r#"{"num_hidden_layers": 3, "vocab_size": 320}"#,
            ),
        ] {
            let cpu = Cpu::new(None).unwrap();
            let options = LoadOptions {
                model: model.to_owned(),
                format: LoadFormat::Dummy,
                config_overrides: serde_json::from_str(overrides).unwrap(),
                ..LoadOptions::default()
            };
            let loaded = load(&options, &cpu, &NoProgress).unwrap();
            let mut options = RunnerOptions::small(2, 16);
            options.kv_dtype = Some(DType::BF16);
            let mut runner = Runner::new(cpu, &loaded, &options).unwrap();
            let prompts: [&[u32]; 2] = [&[1, 2, 3, 4, 5], &[5, 4, 3, 2, 1]];
            let (mut batch, prefill) = runner.prefill(&prompts).unwrap();
            let decode = runner.decode(&mut batch, None).unwrap();

            let dtypes = DTypes {
                weights: loaded.config.dtype,
                activations: DType::F32, // the CPU device's
                kv: DType::BF16,
            };
            let sharded = ShardedModel::new(model, &loaded.config, 1, dtypes).unwrap();
            let shape = |kind, new_tokens, context| StepShape {
                kind,
                batch_size: 2,
                new_tokens,
                context,
            };
            let planned_prefill = sharded.step(&shape(StepKind::Prefill, 5, 5));
            assert_eq!(planned(&planned_prefill), recorded(&prefill), "{model}");
            let planned_decode = sharded.step(&shape(StepKind::Decode, 1, 6));
            assert_eq!(planned(&planned_decode), recorded(&decode), "{model}");
        }
    }

    fn qwen_32b(tp: usize) -> ShardedModel {
        let (_, config) = find_config("qwen2.5-32b").unwrap();
        ShardedModel::new("qwen2.5-32b", &config, tp, DTypes::all(DType::BF16)).unwrap()
    }

    #[test]
    fn ranks_share_the_work() {
        let decode = StepShape {
            kind: StepKind::Decode,
            batch_size: 4,
            new_tokens: 1,
            context: 1536,
        };
        let (one, eight) = (qwen_32b(1).step(&decode), qwen_32b(8).step(&decode));
        assert_eq!(one.communication, Communication::default());
        assert_eq!(
            eight.communication,
            Communication {
                ranks: 8,
                all_reduces: 129,
                all_reduce_bytes: 4 * 5120 * 2,
                gathered_bytes: 4 * 152_064 * 2,
            }
        );
        let ratio = |a: u64, b: u64| a as f64 / b as f64;
        let (one, eight) = (one.total(), eight.total());
        assert!((ratio(one.weight_bytes, eight.weight_bytes) - 8.0).abs() < 0.01);
        assert!((ratio(one.kv_bytes, eight.kv_bytes) - 8.0).abs() < 0.01);
        // llm.c-style arithmetic by hand: 262,144 bytes of KV cache per token of the whole model.
        assert_eq!(qwen_32b(1).kv_bytes_per_token(), 262_144);
        assert_eq!(qwen_32b(8).kv_bytes_per_token(), 32_768);
        // 63.97 GB are read in a decode step: all weights but the embedding.
        assert!((one.weight_bytes as f64 / 63.97e9 - 1.0).abs() < 0.001);
    }

    #[test]
    fn ranks_that_cannot_share_are_refused() {
        let (_, config) = find_config("qwen2.5-7b").unwrap(); // 28 query heads, 4 of keys and values
        let dtypes = DTypes::all(DType::BF16);
        let refused = ShardedModel::new("m", &config, 8, dtypes).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "--tp 8: the model's 28 query heads cannot be shared evenly by 8 ranks"
        );
        assert!(ShardedModel::new("m", &config, 4, dtypes).is_ok());
        assert!(ShardedModel::new("m", &config, 0, dtypes).is_err());
        let four = || ShardedModel::new("m", &config, 4, dtypes).unwrap();
        assert!(four().with_stages(29).is_err());
        let halves = four().with_stages(2).unwrap();
        assert_eq!(2 * halves.kv_bytes_per_token(), four().kv_bytes_per_token());
        assert!(halves.weight_bytes() < four().weight_bytes() * 6 / 10);
        // Four bits and a half per weight, as llama.cpp's Q4 formats have.
        let bytes = config.parameters() as f64 * 4.5 / 8.0;
        let quantised = four().with_weight_bytes(bytes);
        let ratio = quantised.weight_bytes() as f64 / four().weight_bytes() as f64;
        assert!((ratio - 4.5 / 16.0).abs() < 1e-6, "{ratio}");
        let fp8 = four().with_bits(8.0, 8.0);
        assert_eq!(2 * fp8.weight_bytes(), four().weight_bytes());
        assert_eq!(2 * fp8.kv_bytes_per_token(), four().kv_bytes_per_token());
    }
}
