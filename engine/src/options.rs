//! How a [`Runner`](crate::Runner) is sized and watched.

use std::fmt;

use stepscope_kernels::DType;
use stepscope_kernels::sample::SamplingParams;
use stepscope_profiler::gpu_watch::Sampler;
use stepscope_profiler::{Clock, CycleClock, DeviceClock, KernelCounters, Launch, Level, Timing};

use crate::Error;
use crate::model::{Model, NoProgress, Progress};

/// How a [`Runner`](crate::Runner) is sized.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// The most requests of a batch.
    pub max_requests: usize,
    /// The most tokens of a request, prompt and output together.
    pub max_sequence_len: usize,
    /// Slots per page of the KV pool.
    pub page_size: usize,
    /// Slots of the KV pool; by default what `memory_budget` allows.
    pub max_total_tokens: Option<usize>,
    /// Bytes that weights and KV pool may take together.
    pub memory_budget: u64,
    /// A prefill runs through the layers in chunks of up to this many tokens. The result is the same; the buffers are
    /// smaller and stay in cache.
    pub chunk_tokens: usize,
    /// How keys and values are stored; as the weights by default.
    pub kv_dtype: Option<DType>,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// How much of each step is recorded.
    pub level: Level,
    /// Decode steps replay a recorded graph, where the device has graphs.
    pub cuda_graph: bool,
}

impl RunnerOptions {
    /// Options for a model of a few hundred megabytes at most: `requests` requests of up to `sequence_len` tokens, greedy,
    /// recorded down to operations.
    pub fn small(requests: usize, sequence_len: usize) -> RunnerOptions {
        const PAGE_SIZE: usize = 16;
        let tokens = requests.saturating_mul(sequence_len.next_multiple_of(PAGE_SIZE));
        RunnerOptions {
            max_requests: requests,
            max_sequence_len: sequence_len,
            page_size: PAGE_SIZE,
            max_total_tokens: Some(tokens),
            memory_budget: 1 << 30,
            chunk_tokens: CHUNK_TOKENS,
            kv_dtype: None,
            sampling: SamplingParams::greedy(),
            level: Level::Operations,
            cuda_graph: true,
        }
    }

    pub(crate) fn kv_dtype(&self, model: &Model) -> DType {
        self.kv_dtype.unwrap_or(model.dtype)
    }

    /// Slots of the KV pool that `model` gets, in whole pages: `max_total_tokens`, but no more than the budget leaves once
    /// the weights are paid for.
    ///
    /// # Errors
    /// When not even one page fits.
    pub fn pool_tokens(&self, model: &Model) -> Result<usize, Error> {
        if self.page_size == 0 {
            return Err(Error::input(
                "--page-size 0 is not possible: a page holds at least one token",
            ));
        }
        let kv_bytes = model.config.kv_bytes_per_token(self.kv_dtype(model)).max(1);
        let affordable = self.memory_budget.saturating_sub(model.weight_bytes) / kv_bytes;
        let affordable = usize::try_from(affordable)
            .unwrap_or(usize::MAX)
            .min(i32::MAX as usize);
        let tokens = self
            .max_total_tokens
            .map_or(affordable, |n| n.min(affordable));
        if tokens >= self.page_size {
            return Ok(tokens / self.page_size * self.page_size);
        }
        if self.max_total_tokens.is_some_and(|n| n < self.page_size) {
            return Err(Error::input(format!(
                "--max-total-tokens {tokens} is less than one page of {} tokens; raise it or lower --page-size",
                self.page_size
            )));
        }
        Err(Error::failed(format!(
            "no memory is left for a KV pool: the weights take {} MB of a budget of {} MB, and a page of {} tokens needs {} \
             bytes; raise --mem-fraction-static, or use a smaller model or dtype",
            model.weight_bytes / 1_000_000,
            self.memory_budget / 1_000_000,
            self.page_size,
            kv_bytes.saturating_mul(self.page_size as u64),
        )))
    }
}

/// The default of [`RunnerOptions::chunk_tokens`]: at 1024 tokens the widest buffers of a 135M model take 13 MB, within
/// the last-level cache of a server CPU, while a GEMM of 1024 rows already runs at its full rate.
pub const CHUNK_TOKENS: usize = 1024;

/// [`RunnerOptions::chunk_tokens`] of a GPU: sglang's `chunked_prefill_size` of cards of 80 GB.
pub const GPU_CHUNK_TOKENS: usize = 8192;

/// Who watches a [`Runner`](crate::Runner), and how.
pub struct Instruments<'a> {
    /// Told how far copying the weights has come.
    pub progress: &'a dyn Progress,
    /// What takes the times of steps.
    pub clock: Clock,
    /// What a record says of that clock, where it is a GPU's.
    pub timing: Option<Timing>,
    /// Who watches the GPU's state meanwhile.
    pub watch: Option<Sampler>,
    /// What the device's kernels did since it was last asked, launch by launch in order, where the device counts.
    pub counts: Option<Box<dyn FnMut() -> Vec<Launch> + Send>>,
    /// What reads the clock that the device's multiprocessors hold during a step.
    pub sm_clock: Option<Box<dyn CycleClock>>,
    /// What counts for [`Runner::count`](crate::Runner::count).
    pub counters: Option<Box<dyn KernelCounters>>,
    /// What takes the times of [`Runner::time_replays`](crate::Runner::time_replays).
    pub replay_clock: Option<Box<dyn DeviceClock>>,
}

impl Default for Instruments<'_> {
    /// The host's clock, and nothing else.
    fn default() -> Self {
        Instruments {
            progress: &NoProgress,
            clock: Clock::Host,
            timing: None,
            watch: None,
            counts: None,
            sm_clock: None,
            counters: None,
            replay_clock: None,
        }
    }
}

impl fmt::Debug for Instruments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instruments")
            .field("clock", &self.clock)
            .field("counts", &self.counts.is_some())
            .field("sm_clock", &self.sm_clock)
            .field("counters", &self.counters)
            .field("replay_clock", &self.replay_clock)
            .finish_non_exhaustive()
    }
}
