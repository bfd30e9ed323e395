//! Graphs made ready to be launched.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::abi::functions;
use super::argument::{In, Out};
use super::context::Context;
use super::copy::Copy;
use super::event::Event;
use super::fill::Fill;
use super::graph::{Graph, Node, OwnMemory};
use super::graph_nodes::{host_work, kernel_work, of_version_1};
use super::registry::{Handle, Object as _, lock, object};
use super::status::Status;
use super::stream::{Stream, stream};
use super::types::{
    Copy3D, FillNodeParams, HostNodeParams, InstantiateParams, KernelNodeParams,
    KernelNodeParamsV1, UpdateResult,
};
use super::work::Work;

/// A graph, ready.
pub(super) struct GraphExec {
    pub(super) context: Arc<Context>,
    flags: u64,
    /// In an order in which they can be done.
    steps: Mutex<Vec<Step>>,
    _memory: Arc<OwnMemory>,
}

/// A node, ready.
#[derive(Clone)]
struct Step {
    node: Handle<Node>,
    work: Work,
    /// The steps that come before, by index.
    after: Vec<usize>,
    is_enabled: Arc<AtomicBool>,
}

object!(GraphExec);

/// `CUgraphExecUpdateResult`.
const TOPOLOGY_CHANGED: u32 = 2;
const NODE_TYPE_CHANGED: u32 = 3;
const UNSUPPORTED_FUNCTION_CHANGE: u32 = 7;
/// `CU_GRAPH_KERNEL_NODE_…`: the flags of instantiating, all of which are for hardware.
const FLAGS: u64 = 15;

impl GraphExec {
    pub(super) fn of(graph: &Graph, flags: u64) -> Result<Arc<GraphExec>, Status> {
        Ok(Arc::new(GraphExec {
            context: Context::current()?,
            flags,
            steps: Mutex::new(steps(graph)?),
            _memory: graph.memory(),
        }))
    }

    /// Does all of its work, one node after the other.
    pub(super) fn run(&self, stream: &Stream) -> Result<(), Status> {
        let steps = lock(&self.steps).clone();
        for step in steps {
            // A kernel that failed takes what follows with it.
            if step.is_enabled.load(Ordering::Relaxed) && stream.context.works()? {
                step.work.run(stream)?;
            }
        }
        Ok(())
    }

    /// Takes over the work of a graph of the same shape.
    fn update(&self, graph: &Graph) -> Result<(), UpdateResult> {
        let refused = |result, node, from_node| UpdateResult {
            result,
            node,
            from_node,
        };
        let new = steps(graph).map_err(|_| refused(1, Handle::NULL, Handle::NULL))?;
        let mut own = lock(&self.steps);
        if own.len() != new.len() {
            let extra = new.get(own.len()).map_or(Handle::NULL, |step| step.node);
            return Err(refused(TOPOLOGY_CHANGED, extra, Handle::NULL));
        }
        for (old, new) in own.iter().zip(&new) {
            if old.after != new.after {
                return Err(refused(TOPOLOGY_CHANGED, new.node, old.node));
            }
            if old.work.kind() != new.work.kind() {
                return Err(refused(NODE_TYPE_CHANGED, new.node, old.node));
            }
            if let (Work::Kernel(old_kernel), Work::Kernel(new_kernel)) = (&old.work, &new.work)
                && old_kernel.context().handle != new_kernel.context().handle
            {
                return Err(refused(UNSUPPORTED_FUNCTION_CHANGE, new.node, old.node));
            }
        }
        for (old, new) in own.iter_mut().zip(new) {
            old.work = new.work;
        }
        Ok(())
    }

    /// Gives the step of a node other work of the same kind.
    fn replace(&self, node: Handle<Node>, work: Work) -> Result<(), Status> {
        self.with(node, |step| {
            if step.work.kind() != work.kind() {
                return Err(Status::INVALID_VALUE);
            }
            step.work = work.in_place_of(&step.work)?;
            Ok(())
        })
    }

    fn with<R>(
        &self,
        node: Handle<Node>,
        use_it: impl FnOnce(&mut Step) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let mut steps = lock(&self.steps);
        let step = steps.iter_mut().find(|step| step.node == node);
        use_it(step.ok_or(Status::INVALID_VALUE)?)
    }
}

fn steps(graph: &Graph) -> Result<Vec<Step>, Status> {
    let entries = graph.in_order()?;
    let order: Vec<_> = entries.iter().map(|entry| entry.node).collect();
    let step = |entry: super::graph::Entry| {
        let index = |node: &Handle<Node>| order.iter().position(|other| other == node);
        let mut after: Vec<usize> = entry.after.iter().filter_map(index).collect();
        after.sort_unstable();
        Step {
            node: entry.node,
            work: entry.work,
            after,
            is_enabled: Arc::new(AtomicBool::new(true)),
        }
    };
    Ok(entries.into_iter().map(step).collect())
}

fn instantiate(
    out: Out<Handle<GraphExec>>,
    graph: Handle<Graph>,
    flags: u64,
) -> Result<(), Status> {
    super::gpu::machine()?;
    let graph = graph.get()?;
    if out.is_null() || flags & !FLAGS != 0 {
        return Err(Status::INVALID_VALUE);
    }
    let handle = Handle::reserve();
    GraphExec::registry().add(handle, GraphExec::of(&graph, flags)?);
    out.set(handle)
}

functions! {
    // The name without a suffix is the oldest form; cuda.h means another function by it.
    fn cuGraphInstantiate(
        exec: Out<Handle<GraphExec>>, graph: Handle<Graph>, node: Out<Handle<Node>>, _log: usize, _bytes: usize,
    ) {
        node.set_if_wanted(Handle::NULL);
        instantiate(exec, graph, 0)
    }

    fn cuGraphInstantiate_v2(
        exec: Out<Handle<GraphExec>>, graph: Handle<Graph>, node: Out<Handle<Node>>, _log: usize, _bytes: usize,
    ) {
        node.set_if_wanted(Handle::NULL);
        instantiate(exec, graph, 0)
    }

    fn cuGraphInstantiateWithFlags(exec: Out<Handle<GraphExec>>, graph: Handle<Graph>, flags: u64) {
        instantiate(exec, graph, flags)
    }

    fn cuGraphInstantiateWithParams(
        exec: Out<Handle<GraphExec>>, graph: Handle<Graph>, params: Out<InstantiateParams>,
    ) {
        let mut given = params.get()?;
        let done = instantiate(exec, graph, given.flags);
        given.error_node = Handle::NULL;
        given.result = u32::from(done.is_err());
        params.set(given)?;
        done
    }

    fn cuGraphExecDestroy(exec: Handle<GraphExec>) {
        super::gpu::machine()?;
        GraphExec::registry().remove(exec).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    fn cuGraphExecGetFlags(exec: Handle<GraphExec>, flags: Out<u64>) {
        flags.set(exec.get()?.flags)
    }

    fn cuGraphLaunch(exec: Handle<GraphExec>, handle: Handle<Stream>) {
        let stream = stream(handle)?;
        stream.submit(Work::Graph(exec.get()?))
    }

    fn cuGraphUpload(exec: Handle<GraphExec>, handle: Handle<Stream>) {
        stream(handle)?;
        exec.get().map(drop)
    }

    fn cuGraphExecUpdate(exec: Handle<GraphExec>, graph: Handle<Graph>, node: Out<Handle<Node>>, result: Out<u32>) {
        let updated = exec.get()?.update(&*graph.get()?);
        let info = updated.err();
        node.set_if_wanted(info.map_or(Handle::NULL, |info| info.node));
        result.set_if_wanted(info.map_or(0, |info| info.result));
        info.map_or(Ok(()), |_| Err(Status::GRAPH_EXEC_UPDATE_FAILURE))
    }

    fn cuGraphExecUpdate_v2(exec: Handle<GraphExec>, graph: Handle<Graph>, result: Out<UpdateResult>) {
        match exec.get()?.update(&*graph.get()?) {
            Ok(()) => result.set(UpdateResult { result: 0, node: Handle::NULL, from_node: Handle::NULL }),
            Err(info) => {
                result.set(info)?;
                Err(Status::GRAPH_EXEC_UPDATE_FAILURE)
            }
        }
    }

    fn cuGraphExecKernelNodeSetParams(
        exec: Handle<GraphExec>, node: Handle<Node>, params: In<KernelNodeParamsV1>,
    ) {
        exec.get()?.replace(node, kernel_work(of_version_1(params.get()?))?)
    }

    fn cuGraphExecKernelNodeSetParams_v2(
        exec: Handle<GraphExec>, node: Handle<Node>, params: In<KernelNodeParams>,
    ) {
        exec.get()?.replace(node, kernel_work(params.get()?)?)
    }

    fn cuGraphExecMemcpyNodeSetParams(
        exec: Handle<GraphExec>, node: Handle<Node>, params: In<Copy3D>, _context: Handle<Context>,
    ) {
        exec.get()?.replace(node, Work::Copy(Copy::of_3d(&params.get()?)?))
    }

    fn cuGraphExecMemsetNodeSetParams(
        exec: Handle<GraphExec>, node: Handle<Node>, params: In<FillNodeParams>, _context: Handle<Context>,
    ) {
        exec.get()?.replace(node, Work::Fill(Fill::of_node(&params.get()?)?))
    }

    fn cuGraphExecHostNodeSetParams(exec: Handle<GraphExec>, node: Handle<Node>, params: In<HostNodeParams>) {
        exec.get()?.replace(node, host_work(params)?)
    }

    fn cuGraphExecEventRecordNodeSetEvent(exec: Handle<GraphExec>, node: Handle<Node>, event: Handle<Event>) {
        exec.get()?.replace(node, Work::RecordEvent(event.get()?))
    }

    fn cuGraphExecEventWaitNodeSetEvent(exec: Handle<GraphExec>, node: Handle<Node>, event: Handle<Event>) {
        exec.get()?.replace(node, Work::WaitEvent(event.get()?))
    }

    fn cuGraphNodeSetEnabled(exec: Handle<GraphExec>, node: Handle<Node>, enabled: u32) {
        exec.get()?.with(node, |step| {
            step.is_enabled.store(enabled != 0, Ordering::Relaxed);
            Ok(())
        })
    }

    fn cuGraphNodeGetEnabled(exec: Handle<GraphExec>, node: Handle<Node>, enabled: Out<u32>) {
        let own = exec.get()?.with(node, |step| Ok(step.is_enabled.load(Ordering::Relaxed)))?;
        enabled.set(u32::from(own))
    }
}
