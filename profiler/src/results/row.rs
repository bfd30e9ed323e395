//! One measured configuration in the dimensions that all frameworks share.
//!
//! Times are seconds and rates per second, whatever the file's units were. What a file does not say is absent, never guessed;
//! what was computed on import rather than read stands in [`ResultRow::derived`].

use std::collections::BTreeMap;

use serde::Serialize;

/// The framework whose program printed a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framework {
    /// This program.
    Stepscope,
    /// sgl-project/sglang.
    Sglang,
    /// vllm-project/vllm.
    Vllm,
    /// NVIDIA/TensorRT-LLM.
    TensorrtLlm,
    /// InternLM/lmdeploy.
    Lmdeploy,
    /// ggml-org/llama.cpp.
    LlamaCpp,
}

impl Framework {
    /// As its own people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Framework::Stepscope => "stepscope",
            Framework::Sglang => "sglang",
            Framework::Vllm => "vLLM",
            Framework::TensorrtLlm => "TensorRT-LLM",
            Framework::Lmdeploy => "lmdeploy",
            Framework::LlamaCpp => "llama.cpp",
        }
    }
}

/// How many requests ran at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// One batch from its prefill to its last token, nothing joining or leaving.
    StaticBatch(u64),
    /// A server or an engine with a scheduler.
    Concurrency {
        /// The most that the client kept in flight, when it had a limit.
        limit: Option<f64>,
        /// The mean in flight: the sum of the requests' latencies over the duration.
        mean: Option<f64>,
    },
    /// The file does not say.
    Unknown,
}

/// Tokens per request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Length {
    /// The mean.
    pub tokens: f64,
    /// Whether the tokens were counted or follow from a fixed length; otherwise the length was asked for, and the requests' own
    /// differ from it.
    pub realised: bool,
}

/// What a latency was measured over. Latencies of different bases are never ranked against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// One synchronised prefill step of the whole batch, sampling included; no queue, no tokeniser.
    PrefillStep,
    /// Synchronised decode steps of the whole batch.
    DecodeStep,
    /// From a client's request to its first piece of text, queue and network included.
    ClientFirstToken,
    /// From the request to its first token inside the engine's process, queue included, network not.
    EngineFirstToken,
    /// (end − first token) / (output tokens − 1), for each request.
    PerRequest,
    /// Gaps between streamed pieces of text, all requests together; a piece may hold several tokens.
    PerChunk,
    /// From a request to its last token.
    Request,
    /// All timed steps of a batch added up.
    SumOfSteps,
    /// One call that generates for a whole batch.
    WholeCall,
    /// Prompt processing without sampling, one wait at the end (llama-bench `pp`).
    PromptWithoutSampling,
    /// Generation without sampling, one wait per token (llama-bench `tg`).
    GenerationWithoutSampling,
    /// Both, one after the other (llama-bench `pp+tg`).
    PromptAndGenerationWithoutSampling,
    /// From the last request's first token to the end of the batch, all output tokens counted (sglang's newer
    /// `bench_one_batch_server`).
    AfterFirstToken,
}

impl Basis {
    /// A few words for a table's cell.
    pub const fn name(self) -> &'static str {
        match self {
            Basis::PrefillStep => "prefill step",
            Basis::DecodeStep => "decode step",
            Basis::ClientFirstToken => "client, first token",
            Basis::EngineFirstToken => "engine, first token",
            Basis::PerRequest => "per request",
            Basis::PerChunk => "per chunk",
            Basis::Request => "per request",
            Basis::SumOfSteps => "sum of steps",
            Basis::WholeCall => "whole call",
            Basis::PromptWithoutSampling => "prompt, no sampling",
            Basis::GenerationWithoutSampling => "generation, no sampling",
            Basis::PromptAndGenerationWithoutSampling => "prompt + generation, no sampling",
            Basis::AfterFirstToken => "after first token",
        }
    }
}

/// How percentiles were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Percentiles {
    /// Linear interpolation between neighbours (NumPy's default).
    Linear,
    /// `sorted[floor(n × q)]`.
    NearestRank,
}

impl Percentiles {
    /// A few words for a table's cell.
    pub const fn name(self) -> &'static str {
        match self {
            Percentiles::Linear => "linear",
            Percentiles::NearestRank => "nearest rank",
        }
    }
}

/// A latency and what is known of its distribution, seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// What it was measured over.
    pub basis: Basis,
    /// Mean.
    pub mean_s: Option<f64>,
    /// Median.
    pub median_s: Option<f64>,
    /// 99th percentile.
    pub p99_s: Option<f64>,
    /// Standard deviation.
    pub std_s: Option<f64>,
    /// How the percentiles were taken, where there are any besides a median.
    pub percentiles: Option<Percentiles>,
}

impl Latency {
    /// Nothing known yet but what it will be measured over.
    pub const fn new(basis: Basis) -> Latency {
        Latency {
            basis,
            mean_s: None,
            median_s: None,
            p99_s: None,
            std_s: None,
            percentiles: None,
        }
    }

    /// One measurement: it is its own mean and median.
    pub const fn single(basis: Basis, seconds: f64) -> Latency {
        Latency {
            mean_s: Some(seconds),
            median_s: Some(seconds),
            ..Latency::new(basis)
        }
    }

    /// The latency, if anything is known of it.
    pub fn known(self) -> Option<Latency> {
        let any = self.mean_s.or(self.median_s).or(self.p99_s);
        any.is_some().then_some(self)
    }

    /// The median, or else the mean.
    pub fn typical_s(&self) -> Option<f64> {
        self.median_s.or(self.mean_s)
    }
}

/// Rates per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Prompt tokens over the time of the prefill alone.
    pub prefill_tokens_per_s: Option<f64>,
    /// What the prefill's time was measured over.
    pub prefill_basis: Option<Basis>,
    /// Generated tokens over the time of decode steps alone, all sequences together.
    pub decode_tokens_per_s: Option<f64>,
    /// What the decode steps' time was measured over.
    pub decode_basis: Option<Basis>,
    /// Prompt tokens over the whole duration.
    pub input_tokens_per_s: Option<f64>,
    /// Generated tokens over the whole duration.
    pub output_tokens_per_s: Option<f64>,
    /// Prompt and generated tokens over the whole duration.
    pub total_tokens_per_s: Option<f64>,
    /// Finished requests over the whole duration.
    pub requests_per_s: Option<f64>,
    /// Generated tokens of one request over its end-to-end latency, mean over requests.
    pub output_tokens_per_s_per_user: Option<f64>,
    /// Generated tokens over the whole duration and the number of GPUs.
    pub output_tokens_per_s_per_gpu: Option<f64>,
    /// Standard deviation over repetitions of the one rate that llama-bench gives.
    pub std_tokens_per_s: Option<f64>,
}

/// One measured configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultRow {
    /// Who measured.
    pub framework: Framework,
    /// The program, as its framework calls it: `bench_one_batch`, `bench serve`.
    pub program: &'static str,
    /// Version of the framework.
    pub version: Option<String>,
    /// The name that the person gave to the run.
    pub label: Option<String>,
    /// What the client talked to, or which back end of a framework ran, as the file names it.
    pub backend: Option<String>,
    /// The model, as the file names it.
    pub model: Option<String>,
    /// Weights of the model.
    pub model_parameters: Option<f64>,
    /// Bytes of the model's file.
    pub model_bytes: Option<f64>,
    /// The GPU, as the file names it.
    pub gpu: Option<String>,
    /// Tensor-parallel ranks.
    pub tp: Option<u32>,
    /// Pipeline-parallel ranks.
    pub pp: Option<u32>,
    /// Data type of the weights.
    pub dtype: Option<String>,
    /// How many requests ran at once.
    pub load: Load,
    /// Requests that finished.
    pub requests: Option<u64>,
    /// Prompt tokens per request.
    pub input_len: Option<Length>,
    /// Generated tokens per request, the first one included.
    pub output_len: Option<Length>,
    /// Tokens in the KV cache before the measurement started, per sequence.
    pub kv_depth: Option<f64>,
    /// Prompt tokens of all requests.
    pub total_input_tokens: Option<f64>,
    /// Generated tokens of all requests.
    pub total_output_tokens: Option<f64>,
    /// What the rates are taken over, seconds.
    pub duration_s: Option<f64>,
    /// Time to first token.
    pub ttft: Option<Latency>,
    /// Time per output token.
    pub tpot: Option<Latency>,
    /// Inter-token latency.
    pub itl: Option<Latency>,
    /// End-to-end latency.
    pub e2e: Option<Latency>,
    /// The end-to-end latencies of the single repetitions, where the file has them, seconds.
    pub e2e_samples_s: Vec<f64>,
    /// The first decode steps in order, as far as the file has them, seconds; the very first is often slow.
    pub first_decode_steps_s: Vec<f64>,
    /// How often it was measured, where more than once.
    pub repetitions: Option<u64>,
    /// Rates.
    pub rates: Rates,
    /// What else the file says of the requests, as `dataset_name` or `request_rate`: rows that differ here measured different work.
    pub workload: BTreeMap<String, String>,
    /// What else the file says of how the framework ran, as `flash_attn`: rows that differ here may well be compared.
    pub settings: BTreeMap<String, String>,
    /// Names of the fields above that the file does not hold and that were computed from those it does, as `rates.input_tokens_per_s`.
    pub derived: Vec<&'static str>,
    /// Where in the file the row begins, from 1; absent where a file is one row.
    pub line: Option<usize>,
    /// What in the row contradicts itself or should be known by who reads it, one sentence each.
    pub remarks: Vec<String>,
}

impl ResultRow {
    /// A row of which nothing is known yet but who measured.
    pub fn new(framework: Framework, program: &'static str) -> ResultRow {
        ResultRow {
            framework,
            program,
            version: None,
            label: None,
            backend: None,
            model: None,
            model_parameters: None,
            model_bytes: None,
            gpu: None,
            tp: None,
            pp: None,
            dtype: None,
            load: Load::Unknown,
            requests: None,
            input_len: None,
            output_len: None,
            kv_depth: None,
            total_input_tokens: None,
            total_output_tokens: None,
            duration_s: None,
            ttft: None,
            tpot: None,
            itl: None,
            e2e: None,
            e2e_samples_s: Vec::new(),
            first_decode_steps_s: Vec::new(),
            repetitions: None,
            rates: Rates::default(),
            workload: BTreeMap::new(),
            settings: BTreeMap::new(),
            derived: Vec::new(),
            line: None,
            remarks: Vec::new(),
        }
    }
}
