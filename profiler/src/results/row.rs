//! One measured configuration in the dimensions that all frameworks share.
//!
//! Times are seconds and rates per second, whatever the file's units were. What a file does not say is absent, never guessed;
//! what was computed on import rather than read stands in [`ResultRow::derived`].

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

/// Rates per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Prompt tokens over the time of the prefill alone.
    pub prefill_tokens_per_s: Option<f64>,
    /// Generated tokens over the time of decode steps alone, all sequences together.
    pub decode_tokens_per_s: Option<f64>,
    /// Prompt tokens over the whole duration.
    pub input_tokens_per_s: Option<f64>,
    /// Generated tokens over the whole duration.
    pub output_tokens_per_s: Option<f64>,
    /// Prompt and generated tokens over the whole duration.
    pub total_tokens_per_s: Option<f64>,
    /// Finished requests over the whole duration.
    pub requests_per_s: Option<f64>,
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
    /// The model, as the file names it.
    pub model: Option<String>,
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
    /// Rates.
    pub rates: Rates,
    /// Names of the fields above that the file does not hold and that were computed from those it does, as `rates.input_tokens_per_s`.
    pub derived: Vec<&'static str>,
    /// Where in the file the row begins, from 1; absent where a file is one row.
    pub line: Option<usize>,
    /// What in the row contradicts itself or should be known by who reads it, one sentence each.
    pub remarks: Vec<String>,
}
