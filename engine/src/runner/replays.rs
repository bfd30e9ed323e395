//! Operations of a decode step, timed by replaying graphs of them.

use std::borrow::Cow;

use stepscope_kernels::Backend;
use stepscope_profiler::{
    Choice, DeviceClock, Operation, ReplayedOperation, Timer, Work, time_replays,
};

use super::Runner;
use crate::Error;
use crate::batch::HostBatch;
use crate::decode_graphs::{kv_len_bound, record_pass};
use crate::forward::Forward;

/// Calls that a graph holds at least: the replay's own cost is shared by so many.
const CALLS: u64 = 64;

/// An operation as a step has it: the same kernel for the same work, in each layer.
struct Class {
    name: &'static str,
    kernel: String,
    work: Work,
    calls: u64,
    launches: u64,
}

impl<B: Backend> Runner<B> {
    /// Times each operation of the decode step behind a prefill of `prompts`, and all of them together, by replaying graphs of them;
    /// nothing where nobody takes such times, and on a device that has no graphs or no time. All batches are dropped.
    ///
    /// Moving the tables on is left out, and sampling: each replay computes the same step again. What it overwrites, the residual
    /// stream and the last position's keys and values, is of a batch that is dropped.
    ///
    /// # Errors
    /// When a step fails, or the device refuses.
    pub fn time_replays(&mut self, prompts: &[&[u32]]) -> Result<Vec<ReplayedOperation>, Error> {
        let is_possible = self.is_timed && self.forward.backend.has_graphs();
        let Some(mut clock) = self.replay_clock.take_if(|_| is_possible) else {
            return Ok(Vec::new());
        };
        let measured = self.replay_operations(prompts, clock.as_mut());
        self.replay_clock = Some(clock);
        self.on_device = None;
        self.clear();
        measured
    }

    fn replay_operations(
        &mut self,
        prompts: &[&[u32]],
        clock: &mut dyn DeviceClock,
    ) -> Result<Vec<ReplayedOperation>, Error> {
        self.clear();
        let (mut batch, _) = self.prefill(prompts)?;
        // It leaves the tables of its step on the device, and loads every kernel.
        self.decode(&mut batch, None)?;
        let lengths: Vec<(usize, usize)> = batch.requests.iter().map(|r| (1, r.len)).collect();
        let longest = lengths.iter().map(|l| l.1).max().unwrap_or(0);
        let bound = kv_len_bound(longest, self.token_pool.context_len());
        let host = HostBatch {
            lengths,
            ..HostBatch::of_decode(batch.len(), bound, self.pages_per_request)
        };
        let all = Choice::Without(Forward::<B>::ADVANCE);
        let (graph, operations) = self.record_chosen(&host, all, 1)?;
        let mut work = Work::default();
        operations.iter().for_each(|o| work += o.work);
        let launches: u64 = operations.iter().map(|o| u64::from(o.launches)).sum();
        let mut measured = vec![ReplayedOperation {
            name: "forward".to_owned(),
            kernel: String::new(),
            calls: 1,
            launches: launches as f64,
            work,
            calls_in_graph: 1,
            samples_ns: self.replay(&graph, 1, clock)?,
            timer: Timer::Graph,
        }];
        drop(graph);
        for class in classes(&operations) {
            let passes = CALLS.div_ceil(class.calls);
            let chosen = Choice::Only(class.name, class.work);
            let (graph, _) = self.record_chosen(&host, chosen, passes)?;
            let calls_in_graph = class.calls * passes;
            measured.push(ReplayedOperation {
                name: class.name.to_owned(),
                kernel: class.kernel,
                calls: class.calls,
                launches: class.launches as f64 / class.calls as f64,
                work: class.work,
                calls_in_graph,
                samples_ns: self.replay(&graph, calls_in_graph, clock)?,
                timer: Timer::Graph,
            });
        }
        Ok(measured)
    }

    /// A graph of the chosen operations of the decode step, over and over.
    fn record_chosen(
        &mut self,
        host: &HostBatch,
        chosen: Choice,
        passes: u64,
    ) -> Result<(B::Graph, Vec<Operation>), Error> {
        record_pass(
            &self.forward,
            host,
            &mut self.indices,
            self.kv_allocator.page_size(),
            &mut self.kv,
            &mut self.buffers,
            (chosen, passes),
        )
    }

    /// The times of a call, replay by replay.
    fn replay(
        &self,
        graph: &B::Graph,
        calls: u64,
        clock: &mut dyn DeviceClock,
    ) -> Result<Vec<f64>, Error> {
        let backend = &self.forward.backend;
        // Everything the graph was recorded with is made with this runner, and stays where it is.
        let replay = || Ok(backend.replay(graph)?);
        time_replays(clock, calls, replay, || Ok(backend.synchronize()?))
    }
}

/// The operations that differ in what they do, in the order in which they first ran.
fn classes(operations: &[Operation]) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for operation in operations {
        // Operations of ours have names of ours.
        let Cow::Borrowed(name) = operation.name else {
            continue;
        };
        let launches = u64::from(operation.launches);
        match classes
            .iter_mut()
            .find(|class| class.name == name && class.work == operation.work)
        {
            Some(class) => {
                class.calls += 1;
                class.launches += launches;
            }
            None => classes.push(Class {
                name,
                kernel: operation.kernel.to_string(),
                work: operation.work,
                calls: 1,
                launches,
            }),
        }
    }
    classes
}
