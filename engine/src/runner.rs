use std::fmt;

use stepscope_kernels::sample::SamplingParams;
use stepscope_kernels::{Backend, DType};
use stepscope_profiler::gpu_watch::Sampler;
use stepscope_profiler::{
    Clock, CycleClock, DeviceClock, KernelCounters, Launch, Level, Phase, Recorder, Step, StepKind,
    Timing,
};

use crate::Error;
use crate::batch::{HostBatch, StepIndices, chunks};
use crate::decode_graphs::{DecodeGraphs, decode_pass, kv_len_bound};
use crate::device_model::{DeviceModel, qkv_layout};
use crate::forward::{Buffers, Forward, work};
use crate::model::Model;
use crate::options::{Instruments, RunnerOptions};
use crate::pool::{KvAllocator, Row, TokenPool};

/// Runs prefill and decode steps of one model on one device, and takes each of them apart.
///
/// A step's clock brackets what sglang's `bench_one_batch` brackets: pools, metadata, forward pass and sampling, with the
/// device synchronised before and after; not the reading back of token ids, nor any check.
#[derive(Debug)]
pub struct Runner<B: Backend> {
    forward: Forward<B>,
    kv: B::KvPool,
    token_pool: TokenPool,
    kv_allocator: KvAllocator,
    buffers: Buffers<B>,
    indices: StepIndices<B>,
    host: HostBatch,
    chunk_tokens: usize,
    /// Rows of the page table are this long in decode steps: graphs know the length, and from step to step they stay where they are.
    pages_per_request: usize,
    sampling: SamplingParams,
    recorder: Recorder,
    is_timed: bool,
    timing: Option<Timing>,
    watch: Option<Sampler>,
    counts: Counts,
    sm_clock: Option<Box<dyn CycleClock>>,
    counters: Option<Box<dyn KernelCounters>>,
    replay_clock: Option<Box<dyn DeviceClock>>,
    /// Graphs of decode steps, where they are wanted and can be had.
    graphs: Option<DecodeGraphs<B>>,
    /// Batches so far.
    batches: u64,
    /// The batch whose tables lie on the device as its last decode step left them.
    on_device: Option<u64>,
}

/// Tells what the device's kernels did.
struct Counts(Option<Box<dyn FnMut() -> Vec<Launch> + Send>>);

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counts").field(&self.0.is_some()).finish()
    }
}

/// A running batch. It holds rows and pages of its [`Runner`] until [`Runner::release`] or [`Runner::clear`].
#[derive(Debug)]
pub struct Batch {
    /// Which it is of its runner's.
    number: u64,
    requests: Vec<Request>,
    prefills: usize,
    decodes: usize,
}

#[derive(Debug)]
struct Request {
    row: Row,
    /// Tokens in the KV cache.
    len: usize,
}

impl Batch {
    /// Number of requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether the batch has no request.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

impl<B: Backend> Runner<B> {
    /// Puts `model` on the device and makes the pools and buffers.
    ///
    /// # Errors
    /// When memory does not suffice, or the lengths do not fit the model's context.
    pub fn new(backend: B, model: &Model, options: &RunnerOptions) -> Result<Runner<B>, Error> {
        Runner::watched(backend, model, options, Instruments::default())
    }

    /// [`Runner::new`], with other instruments than the host's clock.
    ///
    /// # Errors
    /// As [`Runner::new`].
    pub fn watched(
        backend: B,
        model: &Model,
        options: &RunnerOptions,
        instruments: Instruments<'_>,
    ) -> Result<Runner<B>, Error> {
        let config = &model.config;
        options.sampling.validate()?;
        let pages = options.pool_tokens(model)? / options.page_size;
        let kv_allocator = KvAllocator::new(pages, options.page_size)?;
        let kv = backend.kv_pool(
            config.layers,
            kv_allocator.slots(),
            qkv_layout(config),
            options.kv_dtype(model),
        )?;
        let token_pool = TokenPool::new(options.max_requests, options.max_sequence_len)?;
        let widest = options
            .max_requests
            .saturating_mul(options.max_sequence_len);
        let chunk_tokens = options
            .chunk_tokens
            .clamp(1, widest.max(1))
            .max(options.max_requests);
        let pages_per_request = options.max_sequence_len.div_ceil(options.page_size);
        let is_timed = !matches!(instruments.clock, Clock::Untimed);
        let recorder = Recorder::new(options.level)
            .with_clock(instruments.clock)
            .counting(backend.launches());
        let graphs = (options.cuda_graph && backend.has_graphs()).then(DecodeGraphs::new);
        Ok(Runner {
            buffers: Buffers::new(&backend, config, chunk_tokens, options.max_requests)?,
            indices: StepIndices::new(
                &backend,
                chunk_tokens,
                options.max_requests,
                pages_per_request,
            )?,
            forward: Forward {
                model: DeviceModel::new(
                    &backend,
                    model,
                    options.max_sequence_len,
                    instruments.progress,
                )?,
                backend,
                config: config.clone(),
                dtype: model.dtype,
                kv_dtype: options.kv_dtype(model),
            },
            kv,
            token_pool,
            kv_allocator,
            host: HostBatch::default(),
            chunk_tokens,
            pages_per_request,
            sampling: options.sampling,
            recorder,
            is_timed,
            timing: instruments.timing,
            watch: instruments.watch,
            counts: Counts(instruments.counts),
            sm_clock: instruments.sm_clock,
            counters: instruments.counters,
            replay_clock: instruments.replay_clock,
            graphs,
            batches: 0,
            on_device: None,
        })
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.forward.config.vocab_size
    }

    /// Slots of the KV pool: what sglang prints as `max_total_num_tokens`.
    pub fn max_total_tokens(&self) -> usize {
        self.kv_allocator.slots()
    }

    /// How keys and values are stored.
    pub fn kv_dtype(&self) -> DType {
        self.forward.kv_dtype
    }

    /// Slots per page.
    pub fn page_size(&self) -> usize {
        self.kv_allocator.page_size()
    }

    /// Bytes of the KV pool: at its full size, and the most that was in use at once.
    pub fn kv_bytes(&self) -> (u64, u64) {
        let per_token = self
            .forward
            .config
            .kv_bytes_per_token(self.forward.kv_dtype);
        (
            per_token * self.kv_allocator.slots() as u64,
            per_token * self.kv_allocator.peak_slots() as u64,
        )
    }

    /// Bytes of the token pool.
    pub fn token_pool_bytes(&self) -> u64 {
        self.token_pool.bytes()
    }

    /// Bytes of a step's buffers.
    pub fn activation_bytes(&self) -> u64 {
        self.buffers.bytes()
    }

    /// Whether steps take time: those of an emulated device do not.
    pub fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// What a record says of the clock, where it is a GPU's.
    pub fn timing(&self) -> Option<&Timing> {
        self.timing.as_ref()
    }

    /// Who watches the GPU's state, if anybody does.
    pub fn watch(&self) -> Option<&Sampler> {
        self.watch.as_ref()
    }

    /// Records so much of each step from here on.
    ///
    /// # Errors
    /// The device's recording cannot be turned on or off.
    pub fn record_at(&mut self, level: Level) -> Result<(), Error> {
        self.recorder.set_level(level).map_err(Error::failed)
    }

    /// Whether decode steps replay a recorded graph; nothing where the device has no graphs.
    pub fn cuda_graph(&self) -> Option<bool> {
        let has_graphs = self.forward.backend.has_graphs();
        has_graphs.then_some(self.graphs.is_some())
    }

    /// The table of tuned kernels that the device uses, where it uses one.
    pub fn tuning(&self) -> Option<stepscope_kernels::TuningSource> {
        self.forward.backend.tuning_source()
    }

    /// Gives back all rows and pages. A batch that still runs must not be used any more.
    pub fn clear(&mut self) {
        self.token_pool.clear();
        self.kv_allocator.clear();
    }

    /// Gives back the rows and pages of `batch`.
    pub fn release(&mut self, batch: Batch) {
        let page_size = self.kv_allocator.page_size();
        for request in batch.requests {
            let slots = &self.token_pool.row(&request.row)[..request.len];
            let pages = slots
                .iter()
                .step_by(page_size)
                .map(|&slot| slot as u32 / page_size as u32);
            self.kv_allocator.release(pages);
            self.token_pool.release(request.row);
        }
    }

    /// Starts one request per prompt and runs all prompts as one step.
    ///
    /// # Errors
    /// When a prompt is empty, too long, or holds an id beyond the vocabulary; when a pool is exhausted; when an operation
    /// fails. Nothing stays taken then.
    pub fn prefill(&mut self, prompts: &[&[u32]]) -> Result<(Batch, Step), Error> {
        self.check_tokens(prompts, |_| 0)?;
        self.begin(StepKind::Prefill, 0, prompts.len())?;
        let token_pool = &mut self.token_pool;
        let rows = self
            .recorder
            .phase(Phase::TokenPool, |_| token_pool.take(prompts.len()))?;
        let requests = rows
            .into_iter()
            .map(|row| Request { row, len: 0 })
            .collect();
        self.batches += 1;
        let mut batch = Batch {
            number: self.batches,
            requests,
            prefills: 0,
            decodes: 0,
        };
        match self.run_extend(&mut batch, prompts) {
            Ok(step) => Ok((batch, step)),
            Err(error) => {
                self.release(batch);
                Err(error)
            }
        }
    }

    /// Runs more prompt tokens of every request, on top of what is in the cache, as one step.
    ///
    /// # Errors
    /// As [`Runner::prefill`]; the batch keeps what it had.
    pub fn extend(&mut self, batch: &mut Batch, tokens: &[&[u32]]) -> Result<Step, Error> {
        let lens: Vec<usize> = batch.requests.iter().map(|r| r.len).collect();
        self.check_tokens(tokens, |i| lens[i])?;
        self.begin(StepKind::Prefill, batch.prefills, tokens.len())?;
        self.run_extend(batch, tokens)
    }

    /// Runs one token of every request: the one just sampled, or `forced[i]` for request `i`.
    ///
    /// # Errors
    /// When a request outgrows the context or the pool, or an operation fails.
    pub fn decode(&mut self, batch: &mut Batch, forced: Option<&[u32]>) -> Result<Step, Error> {
        if let Some(longest) = batch.requests.iter().map(|r| r.len).max()
            && longest >= self.token_pool.context_len()
        {
            return Err(Error::failed(format!(
                "a request of {longest} tokens cannot grow: {} were planned for",
                self.token_pool.context_len()
            )));
        }
        if let Some(ids) = forced {
            self.check_ids(ids, "the forced ids")?;
            let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            self.forward
                .backend
                .write_indices(&mut self.indices.ids, &ids)?;
        }
        let kv_len_bound = self.record_graph(batch)?;
        self.begin(StepKind::Decode, batch.decodes, batch.len())?;
        self.allocate(batch, |_| 1)?;
        // Whatever fails from here on, the tables are nobody's then.
        let has_tables = self.on_device.take() == Some(batch.number);
        let pages_per_request = self.pages_per_request;
        let Runner {
            recorder,
            host,
            indices,
            forward,
            token_pool,
            kv_allocator,
            ..
        } = self;
        recorder.phase(Phase::Prepare, |_| {
            let page_size = kv_allocator.page_size();
            host.clear_chunk();
            host.kv_len_bound = kv_len_bound;
            host.max_pages = pages_per_request;
            for request in &batch.requests {
                let row = token_pool.row(&request.row);
                host.push_decode(row, request.len - 1, page_size, has_tables);
            }
            indices.write_decode(&forward.backend, host, has_tables)
        })?;
        if !self.replay_graph(batch.len(), kv_len_bound)? {
            self.run_decode()?;
        }
        let step = self.finish(batch.len(), 1 + batch.decodes as u64)?;
        batch.decodes += 1;
        self.on_device = Some(batch.number);
        Ok(step)
    }

    /// The ids that the last step sampled, one per request.
    ///
    /// # Errors
    /// When the device fails, or an id is not one of the vocabulary: then the step computed nonsense.
    pub fn sampled(&self, batch: &Batch) -> Result<Vec<u32>, Error> {
        let mut ids = vec![0; batch.len()];
        self.forward
            .backend
            .read_indices(&self.indices.ids, &mut ids)?;
        ids.into_iter()
            .map(|id| match u32::try_from(id) {
                Ok(token) if (token as usize) < self.forward.config.vocab_size => Ok(token),
                _ => Err(Error::failed(format!(
                    "a step sampled token {id}, but the vocabulary has {} tokens",
                    self.forward.config.vocab_size
                ))),
            })
            .collect()
    }

    /// The logits of the last step, `[requests, vocab]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn logits(&self, batch: &Batch) -> Result<Vec<f32>, Error> {
        let mut logits = vec![0.0; batch.len() * self.forward.config.vocab_size];
        self.forward
            .backend
            .read_buffer(&self.buffers.logits, &mut logits)?;
        Ok(logits)
    }

    /// That the last step's logits are numbers. A time of a step that computed NaN is not a measurement.
    ///
    /// # Errors
    /// When they are not.
    pub fn check_logits(&self, batch: &Batch) -> Result<(), Error> {
        let logits = self.logits(batch)?;
        match logits.iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(at) => Err(Error::failed(format!(
                "the logit of token {} of request {} is {}: the weights or a kernel are broken",
                at % self.forward.config.vocab_size,
                at / self.forward.config.vocab_size,
                logits[at]
            ))),
        }
    }

    fn check_tokens(&self, tokens: &[&[u32]], len: impl Fn(usize) -> usize) -> Result<(), Error> {
        for (i, &ids) in tokens.iter().enumerate() {
            if ids.is_empty() {
                return Err(Error::input(format!(
                    "prompt {i} is empty: give it at least one token"
                )));
            }
            self.check_ids(ids, &format!("prompt {i}"))?;
            let total = len(i) + ids.len();
            if total > self.token_pool.context_len() {
                return Err(Error::input(format!(
                    "prompt {i} has {total} tokens, but only {} were planned for; shorten it",
                    self.token_pool.context_len()
                )));
            }
        }
        Ok(())
    }

    fn check_ids(&self, ids: &[u32], of: &str) -> Result<(), Error> {
        let vocab = self.forward.config.vocab_size;
        match ids.iter().position(|&id| id as usize >= vocab) {
            None => Ok(()),
            Some(at) => Err(Error::input(format!(
                "token id {} at position {at} of {of} is beyond the vocabulary of {vocab} tokens; ids run from 0 to {}",
                ids[at],
                vocab - 1
            ))),
        }
    }

    /// Gives `grow(i)` more slots to request `i`: pages from the KV pool, then their slots into its row.
    fn allocate(&mut self, batch: &mut Batch, grow: impl Fn(usize) -> usize) -> Result<(), Error> {
        let Runner {
            recorder,
            host,
            token_pool,
            kv_allocator,
            ..
        } = self;
        recorder.phase(Phase::KvAlloc, |_| {
            host.new_pages.clear();
            host.new_slots.clear();
            let page_size = kv_allocator.page_size();
            let pages = batch.requests.iter().enumerate();
            let pages = pages
                .map(|(i, r)| kv_allocator.pages_to_grow(r.len, r.len + grow(i)))
                .sum();
            kv_allocator.take(pages, &mut host.new_pages)?;
            let mut new_pages = host.new_pages.iter();
            for (i, request) in batch.requests.iter().enumerate() {
                let row = token_pool.row(&request.row);
                // A row's last slot is followed by the next one of its page, until the page is full.
                let mut slot = request.len.checked_sub(1).map_or(0, |last| row[last]);
                for position in request.len..request.len + grow(i) {
                    slot = match position % page_size {
                        0 => new_pages
                            .next()
                            .map_or(0, |&page| page as i32 * page_size as i32),
                        _ => slot + 1,
                    };
                    host.new_slots.push(slot);
                }
            }
            Ok::<_, Error>(())
        })?;
        recorder.phase(Phase::TokenPool, |_| {
            let mut from = 0;
            for (i, request) in batch.requests.iter_mut().enumerate() {
                let count = grow(i);
                let row = token_pool.row_mut(&request.row);
                row[request.len..request.len + count]
                    .copy_from_slice(&host.new_slots[from..from + count]);
                from += count;
                request.len += count;
            }
        });
        Ok(())
    }

    fn run_extend(&mut self, batch: &mut Batch, tokens: &[&[u32]]) -> Result<Step, Error> {
        self.on_device = None;
        let before: Vec<usize> = batch.requests.iter().map(|r| r.len).collect();
        self.allocate(batch, |i| tokens[i].len())?;
        let new_lens: Vec<usize> = tokens.iter().map(|t| t.len()).collect();
        let mut finished = 0;
        for chunk in chunks(&new_lens, self.chunk_tokens) {
            let Runner {
                recorder,
                host,
                indices,
                forward,
                token_pool,
                kv_allocator,
                ..
            } = self;
            recorder.phase(Phase::Prepare, |_| {
                let page_size = kv_allocator.page_size();
                let ends = chunk.iter().map(|p| before[p.request] + p.from + p.count);
                host.clear_chunk();
                host.max_pages = ends.max().unwrap_or(0).div_ceil(page_size);
                for part in &chunk {
                    let ids = &tokens[part.request][part.from..part.from + part.count];
                    host.ids.extend(ids.iter().map(|&id| id as i32));
                    let row = token_pool.row(&batch.requests[part.request].row);
                    host.push_request(row, before[part.request] + part.from, part.count, page_size);
                    if part.from + part.count == tokens[part.request].len() {
                        host.last_rows.push(host.positions.len() as i32 - 1);
                    }
                }
                indices.write(&forward.backend, host)
            })?;
            self.run_chunk(finished)?;
            finished += self.host.last_rows.len();
        }
        self.run_logits(batch.len())?;
        let step = self.finish(batch.len(), 0)?;
        batch.prefills += 1;
        Ok(step)
    }

    /// Runs the prepared decode step, but for sampling.
    fn run_decode(&mut self) -> Result<(), Error> {
        let Runner {
            recorder,
            host,
            indices,
            forward,
            kv,
            buffers,
            kv_allocator,
            ..
        } = self;
        let page_size = kv_allocator.page_size();
        recorder.phase(Phase::Forward, |recorder| {
            decode_pass(forward, host, indices, page_size, kv, buffers, recorder)
        })
    }

    /// Takes the prepared chunk of a prefill through the layers.
    fn run_chunk(&mut self, last_first: usize) -> Result<(), Error> {
        let Runner {
            recorder,
            host,
            indices,
            forward,
            kv,
            buffers,
            kv_allocator,
            ..
        } = self;
        recorder.phase(Phase::Forward, |recorder| {
            let page_size = kv_allocator.page_size();
            let chunk = host.chunk(StepKind::Prefill, indices, page_size, last_first);
            forward.layers(&chunk, kv, buffers, recorder)
        })
    }

    /// Takes the last hidden states of `requests` requests to the logits.
    fn run_logits(&mut self, requests: usize) -> Result<(), Error> {
        let Runner {
            recorder,
            forward,
            buffers,
            ..
        } = self;
        recorder.phase(Phase::Forward, |recorder| {
            forward.logits(requests, buffers, recorder)
        })
    }

    /// Starts the clock of a step, once the device has nothing more to do.
    fn begin(&mut self, kind: StepKind, index: usize, requests: usize) -> Result<(), Error> {
        if let Some(clock) = &mut self.sm_clock {
            clock.before(); // waited for, so that it is not of the step
        }
        self.forward.backend.synchronize()?;
        if let Some(counts) = &mut self.counts.0 {
            counts(); // those of a step that failed
        }
        self.recorder.begin_step(kind, index, requests);
        Ok(())
    }

    /// Sees to it that there is a graph for the next decode step of `batch`, if graphs are wanted. The bound of the step's
    /// lengths, on a device with graphs.
    fn record_graph(&mut self, batch: &Batch) -> Result<Option<usize>, Error> {
        if !self.forward.backend.has_graphs() {
            return Ok(None);
        }
        let longest = batch.requests.iter().map(|r| r.len + 1).max().unwrap_or(0);
        let bound = kv_len_bound(longest, self.token_pool.context_len());
        if let Some(graphs) = &mut self.graphs {
            graphs.record(
                batch.len(),
                bound,
                self.pages_per_request,
                self.kv_allocator.page_size(),
                &self.forward,
                &mut self.indices,
                &mut self.kv,
                &mut self.buffers,
            )?;
        }
        Ok(Some(bound))
    }

    /// Replays the graph of a decode step whose indices are in place; false if there is none.
    fn replay_graph(&mut self, requests: usize, bound: Option<usize>) -> Result<bool, Error> {
        let Runner {
            recorder,
            host,
            indices,
            forward,
            graphs,
            kv_allocator,
            ..
        } = self;
        let found = graphs.as_ref().zip(bound);
        let Some(graph) = found.and_then(|(graphs, bound)| graphs.get(requests, bound)) else {
            return Ok(false);
        };
        let chunk = host.chunk(StepKind::Decode, indices, kv_allocator.page_size(), 0);
        recorder.phase(Phase::Forward, |recorder| {
            // Everything it was recorded with is made with this runner and goes with it.
            forward.backend.replay(&graph.graph)?;
            recorder.replayed(graph.operations(forward, &chunk, host.begun));
            Ok::<(), Error>(())
        })?;
        Ok(true)
    }

    /// Sampling, and the end of the step.
    fn finish(&mut self, requests: usize, draw: u64) -> Result<Step, Error> {
        let Runner {
            recorder,
            indices,
            forward,
            buffers,
            ..
        } = self;
        let Forward {
            backend, config, ..
        } = &*forward;
        let vocab = config.vocab_size;
        let cost = stepscope_kernels::sample::cost(requests, vocab, backend.activation_dtype());
        recorder.phase(Phase::Sample, |recorder| {
            recorder.operation("sample", None, work(cost), || {
                backend.sample(
                    &buffers.logits,
                    requests,
                    vocab,
                    &self.sampling,
                    draw,
                    &mut indices.ids,
                )
            })
        })?;
        backend.synchronize()?;
        let mut step = recorder.end_step();
        if let Some(counts) = &mut self.counts.0 {
            step.take_counts(counts());
        }
        if let Some(clock) = &mut self.sm_clock {
            step.sm_clock_mhz = clock.behind();
        }
        Ok(step)
    }
}

mod counting;
mod replays;

#[cfg(test)]
mod tests;
