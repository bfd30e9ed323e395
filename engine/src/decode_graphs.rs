//! Decode steps as recorded graphs.
//!
//! A graph holds a decode step but for sampling: the tables go on by a position, then all layers, and the logits. What differs from step to step lies in
//! buffers, so that one graph serves all steps of a batch size, as long as no launch depends on how long the requests are.
//! One does: decode attention cuts long requests into ranges, more of them the longer they are. So lengths are rounded up
//! to powers of two, and there is a graph for each. Steps that replay no graph use the rounded length too: the results are
//! the same, bit for bit.
//!
//! Sampling is not in the graph: its random numbers are of the step.

use std::collections::HashMap;

use stepscope_kernels::{Backend, advance};
use stepscope_profiler::{Choice, Level, Operation, Phase, Recorder, StepKind};

use crate::Error;
use crate::batch::{HostBatch, StepIndices};
use crate::forward::{Buffers, Chunk, Forward, work};

/// Requests of up to this many positions share a graph: attention does not cut them.
const SHORTEST_BOUND: usize = 128;

/// What `len` positions are rounded up to, where no request has more than `longest`.
pub(crate) fn kv_len_bound(len: usize, longest: usize) -> usize {
    len.next_power_of_two()
        .max(SHORTEST_BOUND)
        .min(longest.max(len))
}

/// A decode step but for sampling, of a batch whose tables lie on the device as the step before left them.
///
/// # Errors
/// When an operation fails.
pub(crate) fn decode_pass<B: Backend>(
    forward: &Forward<B>,
    host: &HostBatch,
    indices: &mut StepIndices<B>,
    page_size: usize,
    kv: &mut B::KvPool,
    buffers: &mut Buffers<B>,
    recorder: &mut Recorder,
) -> Result<(), Error> {
    forward.advance(indices.tables(host, page_size), host.begun, recorder)?;
    let chunk = host.chunk(StepKind::Decode, indices, page_size, 0);
    forward.layers(&chunk, kv, buffers, recorder)?;
    forward.logits(host.lengths.len(), buffers, recorder)
}

/// A graph of the chosen operations of a decode step but for sampling, so many times one after another, and what it does in order.
/// Nothing runs.
///
/// # Errors
/// When a kernel cannot be had, or the device refuses.
pub(crate) fn record_pass<B: Backend>(
    forward: &Forward<B>,
    host: &HostBatch,
    indices: &mut StepIndices<B>,
    page_size: usize,
    kv: &mut B::KvPool,
    buffers: &mut Buffers<B>,
    (chosen, passes): (Choice, u64),
) -> Result<(B::Graph, Vec<Operation>), Error> {
    let mut recorder = Recorder::new(Level::Operations)
        .counting(forward.backend.launches())
        .choosing(chosen);
    let mut operations = Vec::new();
    let mut failure = None;
    let mut work = || {
        recorder.begin_step(StepKind::Decode, 0, host.lengths.len());
        let done = recorder.phase(Phase::Forward, |recorder| {
            (0..passes).try_for_each(|_| {
                decode_pass(forward, host, indices, page_size, kv, buffers, recorder)
            })
        });
        operations = recorder.end_step().operations;
        done.map_err(|error| {
            let message = error.to_string();
            failure = Some(error);
            stepscope_kernels::Error::shape(message)
        })
    };
    let recorded = forward.backend.record(&mut work);
    match failure {
        Some(error) => Err(error),
        None => Ok((recorded?, operations)),
    }
}

/// A recorded forward pass.
#[derive(Debug)]
pub(crate) struct DecodeGraph<B: Backend> {
    pub(crate) graph: B::Graph,
    /// What it does, in order.
    operations: Vec<Operation>,
}

impl<B: Backend> DecodeGraph<B> {
    /// Its operations, for a step whose requests are as long as those of `chunk`, and of which `begun` begin a page.
    pub(crate) fn operations<'a>(
        &'a self,
        forward: &Forward<B>,
        chunk: &Chunk<'_, B>,
        begun: usize,
    ) -> impl Iterator<Item = Operation> + 'a {
        let attention = forward.attention_work(chunk);
        let advance = work(advance::cost(chunk.attention.requests, begun));
        self.operations.iter().map(move |operation| Operation {
            work: match operation.name.as_ref() {
                Forward::<B>::ATTENTION => attention,
                Forward::<B>::ADVANCE => advance,
                _ => operation.work,
            },
            ..operation.clone()
        })
    }
}

/// The graphs recorded so far, by number of requests and bound of their lengths.
#[derive(Debug)]
pub(crate) struct DecodeGraphs<B: Backend>(HashMap<(usize, usize), DecodeGraph<B>>);

impl<B: Backend> DecodeGraphs<B> {
    pub(crate) fn new() -> DecodeGraphs<B> {
        DecodeGraphs(HashMap::new())
    }

    pub(crate) fn get(&self, requests: usize, kv_len_bound: usize) -> Option<&DecodeGraph<B>> {
        self.0.get(&(requests, kv_len_bound))
    }

    /// Records the graph for `requests` requests of up to `kv_len_bound` positions, unless it is there. Nothing runs.
    ///
    /// # Errors
    /// When a kernel cannot be had, or the device refuses.
    #[allow(clippy::too_many_arguments)] // the parts of a runner, which it lends one by one
    pub(crate) fn record(
        &mut self,
        requests: usize,
        kv_len_bound: usize,
        max_pages: usize,
        page_size: usize,
        forward: &Forward<B>,
        indices: &mut StepIndices<B>,
        kv: &mut B::KvPool,
        buffers: &mut Buffers<B>,
    ) -> Result<(), Error> {
        if self.0.contains_key(&(requests, kv_len_bound)) {
            return Ok(());
        }
        let host = HostBatch::of_decode(requests, kv_len_bound, max_pages);
        let once = (Choice::All, 1);
        let (graph, operations) =
            record_pass(forward, &host, indices, page_size, kv, buffers, once)?;
        let graph = DecodeGraph { graph, operations };
        self.0.insert((requests, kv_len_bound), graph);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_rounded_up_to_few_bounds() {
        let bounds: Vec<usize> = [1, 128, 129, 1000, 1024, 1025, 1500, 1600]
            .iter()
            .map(|&len| kv_len_bound(len, 1500))
            .collect();
        assert_eq!(bounds, [128, 128, 256, 1024, 1024, 1500, 1500, 1600]);
        assert_eq!(kv_len_bound(3, 10), 10);
    }
}
