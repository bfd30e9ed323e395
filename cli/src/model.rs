//! From command-line arguments to a model on a device.

use stepscope_engine::model::{LoadFormat, LoadOptions, Model, load};
use stepscope_engine::{CHUNK_TOKENS, GPU_CHUNK_TOKENS, Instruments, RunnerOptions};
use stepscope_kernels::sample::SamplingParams;
use stepscope_kernels::{Cpu, DType};
use stepscope_profiler::{Level, environment};

use crate::args::{Format, ModelArgs, SamplingArgs};
use crate::device::{Gpu, Work};
use crate::output::Failure;
use crate::progress::Bar;

/// The shape that runs when no model is given.
pub(crate) const DEFAULT_SHAPE: &str = "smollm2-135m";

/// A loaded model and the device it is going to run on.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) cpu: Cpu,
    /// What runs the model, unless the CPU does.
    pub(crate) gpu: Option<Gpu>,
    pub(crate) model: Model,
    pub(crate) load_s: f64,
    /// Free memory of the device before the model was loaded, times `--mem-fraction-static`.
    pub(crate) memory_budget: u64,
}

/// The CPU device, which also loads models for the others.
pub(crate) fn start_cpu(args: &ModelArgs) -> Result<Cpu, Failure> {
    Ok(Cpu::new(args.threads)?)
}

/// Loads the model that was asked for.
pub(crate) fn open(
    args: &ModelArgs,
    cpu: Cpu,
    gpu: Option<Gpu>,
    skip_tokenizer: bool,
    bar: &Bar,
) -> Result<Loaded, Failure> {
    let free = match &gpu {
        Some(gpu) => gpu.free_memory()?,
        None => environment::available_memory_bytes(),
    };
    let memory_budget = (free as f64 * args.mem_fraction_static) as u64;
    let start = std::time::Instant::now();
    let model = load(
        &LoadOptions {
            model: args
                .model_path
                .clone()
                .unwrap_or_else(|| DEFAULT_SHAPE.to_owned()),
            format: match args.load_format {
                Format::Auto => LoadFormat::Auto,
                Format::Safetensors => LoadFormat::Safetensors,
                Format::Gguf => LoadFormat::Gguf,
                Format::Dummy => LoadFormat::Dummy,
            },
            dtype: args.dtype.given(),
            config_overrides: args.json_model_override_args.clone(),
            tokenizer_path: args.tokenizer_path.clone(),
            skip_tokenizer,
            // The kernels of an emulated device run on the CPU, slower than what makes weights there.
            dummy_on_device: gpu.as_ref().is_some_and(|gpu| !gpu.is_emulated()),
        },
        &cpu,
        bar,
    )?;
    Ok(Loaded {
        cpu,
        gpu,
        model,
        load_s: start.elapsed().as_secs_f64(),
        memory_budget,
    })
}

impl Loaded {
    /// Does `work` on the device.
    pub(crate) fn run(self, bar: &Bar, work: impl Work) -> Result<(), Failure> {
        let model = &self.model;
        match self.gpu {
            Some(gpu) => gpu.run(model, bar, work),
            None => work.run(self.cpu, model, Instruments::default()),
        }
    }

    /// Runner options for sequences of up to `max_sequence_len` tokens; the batch is still to be set. Keys and values are
    /// stored as `auto_kv_dtype` unless the person said otherwise, and as the weights when both are `None`, and on a GPU.
    pub(crate) fn runner_options(
        &self,
        args: &ModelArgs,
        sampling: SamplingParams,
        max_sequence_len: usize,
        auto_kv_dtype: Option<DType>,
    ) -> Result<RunnerOptions, Failure> {
        let trained = self.model.config.max_position_embeddings;
        let context = match args.context_length {
            Some(n) if n > trained => {
                return Err(Failure::input(format!(
                    "--context-length {n} is more than the {trained} positions of {}; lower it, or override \
                     max_position_embeddings with --json-model-override-args",
                    self.model.name
                )));
            }
            Some(n) => n,
            None => trained,
        };
        if max_sequence_len > context {
            return Err(Failure::input(format!(
                "a sequence of {max_sequence_len} tokens (prompt and output together) exceeds the context of {context} of {}; \
                 use shorter lengths",
                self.model.name
            )));
        }
        let kv_dtype = args.kv_cache_dtype.given();
        if let Some(kv_dtype) = kv_dtype
            && self.gpu.is_some()
            && kv_dtype != self.model.dtype
        {
            return Err(Failure::input(format!(
                "--kv-cache-dtype {kv_dtype}: the CUDA kernels keep keys and values as the weights, in {}; use auto",
                self.model.dtype
            )));
        }
        let (auto_kv_dtype, chunk_tokens) = match self.gpu {
            Some(_) => (None, GPU_CHUNK_TOKENS),
            None => (auto_kv_dtype, CHUNK_TOKENS),
        };
        Ok(RunnerOptions {
            max_requests: 1,
            max_sequence_len,
            page_size: args.page_size,
            max_total_tokens: args.max_total_tokens,
            memory_budget: self.memory_budget,
            chunk_tokens,
            kv_dtype: kv_dtype.or(auto_kv_dtype),
            sampling,
            level: Level::Operations,
            cuda_graph: !args.disable_cuda_graph,
        })
    }
}

/// The sampling parameters that were asked for.
pub(crate) fn sampling(args: &SamplingArgs, seed: u64) -> Result<SamplingParams, Failure> {
    let params = SamplingParams {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        seed,
    };
    params.validate().map_err(|e| Failure::Input(e.into()))?;
    Ok(params)
}
