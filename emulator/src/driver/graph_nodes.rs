//! The kinds of nodes: how each is added, read and changed.

use super::abi::functions;
use super::argument::{In, Out};
use super::context::Context;
use super::copy::Copy;
use super::event::Event;
use super::fill::Fill;
use super::graph::{Graph, GraphExec, Node};
use super::launch::KernelLaunch;
use super::registry::Handle;
use super::status::Status;
use super::types::{Copy3D, FillNodeParams, HostNodeParams, KernelNodeParams, KernelNodeParamsV1};
use super::work::{HostWork, Work};

fn add(
    out: Out<Handle<Node>>,
    graph: Handle<Graph>,
    after: In<Handle<Node>>,
    count: usize,
    work: impl FnOnce() -> Result<Work, Status>,
) -> Result<(), Status> {
    super::gpu::machine()?;
    let graph = graph.get()?;
    if out.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    out.set(graph.add(work()?, after.list(count)?)?)
}

pub(super) fn host_work(params: In<HostNodeParams>) -> Result<Work, Status> {
    let params = params.get()?;
    let function = params.function.ok_or(Status::INVALID_VALUE)?;
    Ok(Work::Host(HostWork::new(function, params.argument)))
}

pub(super) fn kernel_work(params: KernelNodeParams) -> Result<Work, Status> {
    Ok(Work::Kernel(KernelLaunch::of_node(&params)?))
}

pub(super) fn of_version_1(params: KernelNodeParamsV1) -> KernelNodeParams {
    KernelNodeParams {
        function: params.function,
        grid: params.grid,
        block: params.block,
        shared_bytes: params.shared_bytes,
        parameters: params.parameters,
        extra: params.extra,
        kernel: Handle::NULL,
        context: Handle::NULL,
    }
}

/// Gives a node other work of the same kind.
fn replace(node: Handle<Node>, work: Work) -> Result<(), Status> {
    node.with(|entry| {
        if entry.work.kind() != work.kind() {
            return Err(Status::INVALID_VALUE);
        }
        entry.work = work.in_place_of(&entry.work)?;
        Ok(())
    })
}

fn kernel_params(node: Handle<Node>) -> Result<KernelNodeParams, Status> {
    node.with(|entry| match &entry.work {
        Work::Kernel(launch) => Ok(launch.as_node()),
        _ => Err(Status::INVALID_VALUE),
    })
}

functions! {
    fn cuGraphAddEmptyNode(node: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: usize) {
        add(node, graph, after, count, || Ok(Work::Empty))
    }

    fn cuGraphAddKernelNode(
        node: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: usize,
        params: In<KernelNodeParamsV1>,
    ) {
        add(node, graph, after, count, || kernel_work(of_version_1(params.get()?)))
    }

    fn cuGraphAddKernelNode_v2(
        node: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: usize,
        params: In<KernelNodeParams>,
    ) {
        add(node, graph, after, count, || kernel_work(params.get()?))
    }

    fn cuGraphAddMemcpyNode(
        node: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: usize,
        params: In<Copy3D>, _context: Handle<Context>,
    ) {
        add(node, graph, after, count, || Ok(Work::Copy(Copy::of_3d(&params.get()?)?)))
    }

    fn cuGraphAddMemsetNode(
        node: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: usize,
        params: In<FillNodeParams>, _context: Handle<Context>,
    ) {
        add(node, graph, after, count, || Ok(Work::Fill(Fill::of_node(&params.get()?)?)))
    }

    fn cuGraphAddHostNode(
        node: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: usize,
        params: In<HostNodeParams>,
    ) {
        add(node, graph, after, count, || host_work(params))
    }

    fn cuGraphAddChildGraphNode(
        node: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: usize, child: Handle<Graph>,
    ) {
        add(node, graph, after, count, || Ok(Work::Graph(GraphExec::of(&*child.get()?, 0)?)))
    }

    fn cuGraphAddEventRecordNode(
        node: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: usize, event: Handle<Event>,
    ) {
        add(node, graph, after, count, || Ok(Work::RecordEvent(event.get()?)))
    }

    fn cuGraphAddEventWaitNode(
        node: Out<Handle<Node>>, graph: Handle<Graph>, after: In<Handle<Node>>, count: usize, event: Handle<Event>,
    ) {
        add(node, graph, after, count, || Ok(Work::WaitEvent(event.get()?)))
    }

    fn cuGraphKernelNodeGetParams(node: Handle<Node>, params: Out<KernelNodeParamsV1>) {
        let all = kernel_params(node)?;
        params.set(KernelNodeParamsV1 {
            function: all.function,
            grid: all.grid,
            block: all.block,
            shared_bytes: all.shared_bytes,
            parameters: all.parameters,
            extra: all.extra,
        })
    }

    fn cuGraphKernelNodeGetParams_v2(node: Handle<Node>, params: Out<KernelNodeParams>) {
        params.set(kernel_params(node)?)
    }

    fn cuGraphKernelNodeSetParams(node: Handle<Node>, params: In<KernelNodeParamsV1>) {
        replace(node, kernel_work(of_version_1(params.get()?))?)
    }

    fn cuGraphKernelNodeSetParams_v2(node: Handle<Node>, params: In<KernelNodeParams>) {
        replace(node, kernel_work(params.get()?)?)
    }

    fn cuGraphEventRecordNodeGetEvent(node: Handle<Node>, event: Out<Handle<Event>>) {
        event.set(node.with(|entry| match &entry.work {
            Work::RecordEvent(own) => Ok(own.handle),
            _ => Err(Status::INVALID_VALUE),
        })?)
    }

    fn cuGraphEventRecordNodeSetEvent(node: Handle<Node>, event: Handle<Event>) {
        replace(node, Work::RecordEvent(event.get()?))
    }

    fn cuGraphEventWaitNodeGetEvent(node: Handle<Node>, event: Out<Handle<Event>>) {
        event.set(node.with(|entry| match &entry.work {
            Work::WaitEvent(own) => Ok(own.handle),
            _ => Err(Status::INVALID_VALUE),
        })?)
    }

    fn cuGraphEventWaitNodeSetEvent(node: Handle<Node>, event: Handle<Event>) {
        replace(node, Work::WaitEvent(event.get()?))
    }

    fn cuGraphMemFreeNodeGetParams(node: Handle<Node>, address: Out<u64>) {
        address.set(node.with(|entry| match &entry.work {
            Work::Free(own) => Ok(*own),
            _ => Err(Status::INVALID_VALUE),
        })?)
    }

    fn cuGraphMemsetNodeGetParams(node: Handle<Node>, params: Out<FillNodeParams>) {
        params.set(node.with(|entry| match &entry.work {
            Work::Fill(fill) => Ok(fill.as_node()),
            _ => Err(Status::INVALID_VALUE),
        })?)
    }

    fn cuGraphMemsetNodeSetParams(node: Handle<Node>, params: In<FillNodeParams>) {
        replace(node, Work::Fill(Fill::of_node(&params.get()?)?))
    }

    fn cuGraphMemcpyNodeSetParams(node: Handle<Node>, params: In<Copy3D>) {
        replace(node, Work::Copy(Copy::of_3d(&params.get()?)?))
    }

    fn cuGraphHostNodeGetParams(node: Handle<Node>, params: Out<HostNodeParams>) {
        params.set(node.with(|entry| match &entry.work {
            Work::Host(host) => Ok(HostNodeParams {
                function: Some(host.function),
                argument: host.argument,
            }),
            _ => Err(Status::INVALID_VALUE),
        })?)
    }

    fn cuGraphHostNodeSetParams(node: Handle<Node>, params: In<HostNodeParams>) {
        replace(node, host_work(params)?)
    }
}
