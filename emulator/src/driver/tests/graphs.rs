//! Captures and graphs.

use super::launches::launch_in;
use super::*;
use crate::driver::graph::{Graph, GraphExec, Node};
use crate::driver::types::{KernelNodeParams, UpdateResult};
use crate::driver::{
    capture, copy, event, fill, graph, graph_exec, graph_nodes, launch, memory, pool,
};

/// Calls disturb captures of the same thread only.
const THREAD_LOCAL: u32 = 1;

fn begin(stream: Handle<Stream>) {
    assert_eq!(
        call!(capture::cuStreamBeginCapture_v2, stream, THREAD_LOCAL),
        0
    );
}

fn end(stream: Handle<Stream>) -> Result<Handle<Graph>, u32> {
    let mut graph = Handle::NULL;
    match call!(capture::cuStreamEndCapture, stream, Out::to(&mut graph)) {
        0 => Ok(graph),
        code => {
            assert_eq!(graph, Handle::NULL);
            Err(code)
        }
    }
}

fn instantiate(graph: Handle<Graph>) -> Handle<GraphExec> {
    let mut exec = Handle::NULL;
    assert_eq!(
        call!(
            graph_exec::cuGraphInstantiateWithFlags,
            Out::to(&mut exec),
            graph,
            0
        ),
        0
    );
    exec
}

fn nodes(graph: Handle<Graph>) -> Vec<Handle<Node>> {
    let mut count = 0;
    assert_eq!(
        call!(
            graph::cuGraphGetNodes,
            graph,
            Out::of(0),
            Out::to(&mut count)
        ),
        0
    );
    let mut nodes = vec![Handle::NULL; count + 1];
    let mut room = count + 1;
    assert_eq!(
        call!(
            graph::cuGraphGetNodes,
            graph,
            Out::to_all(&mut nodes),
            Out::to(&mut room)
        ),
        0
    );
    assert_eq!((room, nodes.pop()), (count, Some(Handle::NULL)));
    nodes
}

fn edges(graph: Handle<Graph>) -> Vec<(usize, usize)> {
    let all = nodes(graph);
    let index = |node: &Handle<Node>| all.iter().position(|other| other == node).unwrap();
    let (mut from, mut to, mut count) = ([Handle::NULL; 9], [Handle::NULL; 9], 9);
    let places = (
        Out::to_all(&mut from),
        Out::to_all(&mut to),
        Out::to(&mut count),
    );
    assert_eq!(
        call!(graph::cuGraphGetEdges, graph, places.0, places.1, places.2),
        0
    );
    (0..count)
        .map(|at| (index(&from[at]), index(&to[at])))
        .collect()
}

fn kind(node: Handle<Node>) -> u32 {
    let mut kind = 99;
    assert_eq!(
        call!(graph::cuGraphNodeGetType, node, Out::to(&mut kind)),
        0
    );
    kind
}

fn new_event() -> Handle<event::Event> {
    let mut event = Handle::NULL;
    assert_eq!(call!(event::cuEventCreate, Out::to(&mut event), 2), 0);
    event
}

fn numbers(address: u64) -> [u32; 4] {
    let mut data = [0; 4];
    let place = data.as_mut_ptr().expose_provenance();
    assert_eq!(call!(copy::cuMemcpyDtoH_v2, place, address, 16), 0);
    data
}

fn zeros() -> u64 {
    let mut address = 0;
    assert_eq!(call!(memory::cuMemAlloc_v2, Out::to(&mut address), 16), 0);
    assert_eq!(call!(fill::cuMemsetD32_v2, address, 0, 4), 0);
    address
}

#[test]
fn a_capture_records_and_a_launch_does() {
    context();
    let (stream, add, x) = (new_stream(), kernel("add_one"), zeros());
    begin(stream);
    let mut status = 9;
    assert_eq!(
        call!(capture::cuStreamIsCapturing, stream, Out::to(&mut status)),
        0
    );
    assert_eq!(status, 1);
    assert_eq!(call!(fill::cuMemsetD32Async, x, 5, 4, stream), 0);
    // The arguments are copied: those of the call are gone by the time the graph runs.
    assert_eq!(launch_in(stream, add, 1, 32, x, 3), 0);
    let graph = end(stream).unwrap();
    assert_eq!(
        nodes(graph)
            .iter()
            .map(|node| kind(*node))
            .collect::<Vec<_>>(),
        [2, 0]
    );
    assert_eq!(edges(graph), [(0, 1)]);
    assert_eq!(numbers(x), [0; 4], "recorded, not done");
    let exec = instantiate(graph);
    for _ in 0..2 {
        assert_eq!(call!(graph_exec::cuGraphLaunch, exec, stream), 0);
        assert_eq!(numbers(x), [6, 6, 6, 5]);
    }
    // What is ready does not need the graph.
    assert_eq!(call!(graph::cuGraphDestroy, graph), 0);
    assert_eq!(call!(graph_exec::cuGraphLaunch, exec, stream), 0);
    assert_eq!(call!(graph_exec::cuGraphExecDestroy, exec), 0);
    assert_eq!(call!(graph_exec::cuGraphLaunch, exec, stream), 400);
}

#[test]
fn streams_join_a_capture_by_events() {
    context();
    let (main, side, x) = (new_stream(), new_stream(), zeros());
    let (fork, join) = (new_event(), new_event());
    let fill_in = |stream| assert_eq!(call!(fill::cuMemsetD32Async, x, 1, 4, stream), 0);
    begin(main);
    fill_in(main);
    assert_eq!(call!(event::cuEventRecord, fork, main), 0);
    assert_eq!(call!(stream::cuStreamWaitEvent, side, fork, 0), 0);
    fill_in(side);
    fill_in(main);
    assert_eq!(call!(event::cuEventRecord, join, side), 0);
    assert_eq!(call!(stream::cuStreamWaitEvent, main, join, 0), 0);
    fill_in(main);
    let graph = end(main).unwrap();
    let mut found = edges(graph);
    found.sort_unstable();
    assert_eq!(found, [(0, 1), (0, 2), (1, 3), (2, 3)]);
    assert_eq!(
        call!(stream::cuStreamSynchronize, side),
        0,
        "it is free again"
    );

    begin(main);
    fill_in(main);
    assert_eq!(call!(event::cuEventRecord, fork, main), 0);
    assert_eq!(call!(stream::cuStreamWaitEvent, side, fork, 0), 0);
    fill_in(side);
    assert_eq!(end(side), Err(903), "begun in another stream");
    assert_eq!(end(main), Err(901));
    begin(main);
    assert_eq!(call!(event::cuEventRecord, fork, main), 0);
    assert_eq!(call!(stream::cuStreamWaitEvent, side, fork, 0), 0);
    fill_in(side);
    assert_eq!(end(main), Err(904), "not joined");
}

#[test]
fn what_a_capture_forbids_breaks_it() {
    context();
    let (stream, other, event) = (new_stream(), new_stream(), new_event());
    assert_eq!(end(stream), Err(401), "there is none");
    assert_eq!(
        call!(capture::cuStreamBeginCapture_v2, Handle::NULL, THREAD_LOCAL),
        900
    );
    let breaks = |what: &str, code: u32, expected: u32| {
        assert_eq!(code, expected, "{what}");
        assert_eq!(call!(fill::cuMemsetD8Async, 0, 0, 0, stream), 901, "{what}");
        assert_eq!(end(stream), Err(901), "{what}");
    };
    begin(stream);
    breaks(
        "synchronize",
        call!(stream::cuStreamSynchronize, stream),
        900,
    );
    begin(stream);
    breaks("query", call!(stream::cuStreamQuery, stream), 900);
    begin(stream);
    breaks("the whole context", call!(context::cuCtxSynchronize), 900);
    begin(stream);
    breaks(
        "allocate",
        call!(memory::cuMemAlloc_v2, Out::to(&mut 0), 4),
        900,
    );
    begin(stream);
    assert_eq!(call!(event::cuEventRecord, event, stream), 0);
    breaks(
        "wait for an event",
        call!(event::cuEventSynchronize, event),
        907,
    );
    begin(stream);
    assert_eq!(call!(event::cuEventRecord, event, other), 0);
    breaks(
        "uncaptured work",
        call!(stream::cuStreamWaitEvent, stream, event, 0),
        905,
    );
    begin(stream);
    assert_eq!(
        call!(capture::cuStreamBeginCapture_v2, stream, THREAD_LOCAL),
        401
    );
    let code = std::thread::scope(|scope| {
        let current = stream.get().unwrap().context.handle;
        let thread = scope.spawn(move || {
            assert_eq!(call!(context::cuCtxSetCurrent, current), 0);
            end(stream)
        });
        thread.join().unwrap()
    });
    assert_eq!(code, Err(908), "another thread");
    assert!(end(stream).is_ok());
}

#[test]
fn memory_of_a_graph_goes_with_it() {
    context();
    let stream = new_stream();
    begin(stream);
    let mut address = 0;
    assert_eq!(
        call!(pool::cuMemAllocAsync, Out::to(&mut address), 16, stream),
        0
    );
    assert_eq!(call!(fill::cuMemsetD32Async, address, 3, 4, stream), 0);
    assert_eq!(call!(pool::cuMemFreeAsync, address, stream), 0);
    let graph = end(stream).unwrap();
    let exec = instantiate(graph);
    for _ in 0..2 {
        assert_eq!(call!(graph_exec::cuGraphLaunch, exec, stream), 0);
    }
    assert_eq!(numbers(address), [3; 4]);
    assert_eq!(call!(graph::cuGraphDestroy, graph), 0);
    assert_eq!(call!(graph_exec::cuGraphExecDestroy, exec), 0);
    assert_eq!(call!(memory::cuMemFree_v2, address), 1, "gone");
}

#[test]
fn graphs_are_updated_where_their_shape_is_the_same() {
    context();
    let (stream, add, x) = (new_stream(), kernel("add_one"), zeros());
    let capture = |counts: &[u32]| {
        begin(stream);
        for count in counts {
            assert_eq!(launch_in(stream, add, 1, 32, x, *count), 0);
        }
        end(stream).unwrap()
    };
    let exec = instantiate(capture(&[4, 4]));
    let mut info = UpdateResult {
        result: 9,
        node: Handle::NULL,
        from_node: Handle::NULL,
    };
    let mut update = |graph| {
        let code = call!(
            graph_exec::cuGraphExecUpdate_v2,
            exec,
            graph,
            Out::to(&mut info)
        );
        (code, info.result)
    };
    assert_eq!(update(capture(&[1, 2])), (0, 0));
    assert_eq!(call!(graph_exec::cuGraphLaunch, exec, stream), 0);
    assert_eq!(numbers(x), [2, 1, 0, 0]);
    assert_eq!(update(capture(&[1])), (910, 2));
    begin(stream);
    assert_eq!(launch_in(stream, add, 1, 32, x, 1), 0);
    assert_eq!(call!(fill::cuMemsetD32Async, x, 0, 4, stream), 0);
    assert_eq!(
        update(end(stream).unwrap()),
        (910, 3),
        "another kind of node"
    );
}

#[test]
fn kernel_nodes_are_read_and_changed() {
    context();
    let (stream, add, x) = (new_stream(), kernel("add_one"), zeros());
    let mut graph = Handle::NULL;
    assert_eq!(call!(graph::cuGraphCreate, Out::to(&mut graph), 0), 0);
    let count = 4_u32;
    let places = [
        std::ptr::from_ref(&x).expose_provenance(),
        std::ptr::from_ref(&count).expose_provenance(),
    ];
    let params = KernelNodeParams {
        function: add,
        grid: [1, 1, 1],
        block: [32, 1, 1],
        shared_bytes: 0,
        parameters: In::all(&places).cast(),
        extra: In::of(0),
        kernel: Handle::NULL,
        context: Handle::NULL,
    };
    let mut pair = [Handle::NULL; 2];
    let none = In::of(0);
    assert_eq!(
        call!(
            graph_nodes::cuGraphAddKernelNode_v2,
            Out::to(&mut pair[0]),
            graph,
            none,
            0,
            In::from(&params)
        ),
        0
    );
    let after = In::from(&pair[0]);
    let mut second = Handle::NULL;
    assert_eq!(
        call!(
            graph_nodes::cuGraphAddKernelNode_v2,
            Out::to(&mut second),
            graph,
            after,
            1,
            In::from(&params)
        ),
        0
    );
    pair[1] = second;
    // In a circle, nothing comes first.
    let back = (In::from(&pair[1]), In::from(&pair[0]));
    assert_eq!(
        call!(graph::cuGraphAddDependencies, graph, back.0, back.1, 1),
        0
    );
    let refused = call!(
        graph_exec::cuGraphInstantiateWithFlags,
        Out::to(&mut Handle::of(0)),
        graph,
        0
    );
    assert_eq!(refused, 1);
    assert_eq!(
        call!(graph::cuGraphRemoveDependencies, graph, back.0, back.1, 1),
        0
    );

    // The parameters that a node gives can be given back to it.
    let mut given = params;
    assert_eq!(
        call!(
            graph_nodes::cuGraphKernelNodeGetParams_v2,
            pair[0],
            Out::to(&mut given)
        ),
        0
    );
    assert_eq!(given.function, add);
    let mut clone = Handle::NULL;
    assert_eq!(call!(graph::cuGraphClone, Out::to(&mut clone), graph), 0);
    assert_eq!(edges(clone), [(0, 1)]);
    let exec = instantiate(clone);
    given.block = [2, 1, 1];
    let own = nodes(clone)[1];
    let code = call!(
        graph_exec::cuGraphExecKernelNodeSetParams_v2,
        exec,
        own,
        In::from(&given)
    );
    assert_eq!(code, 0);
    assert_eq!(
        call!(
            graph_exec::cuGraphExecKernelNodeSetParams_v2,
            exec,
            pair[1],
            In::from(&given)
        ),
        1
    );
    assert_eq!(call!(graph_exec::cuGraphLaunch, exec, stream), 0);
    assert_eq!(numbers(x), [2, 2, 1, 1]);
    assert_eq!(call!(graph_exec::cuGraphNodeSetEnabled, exec, own, 0), 0);
    assert_eq!(call!(graph_exec::cuGraphLaunch, exec, stream), 0);
    assert_eq!(numbers(x), [3, 3, 2, 2]);
}

#[test]
fn a_node_stays_cooperative_when_its_parameters_change() {
    context();
    let (stream, small) = (new_stream(), kernel("small"));
    begin(stream);
    let code = call!(
        launch::cuLaunchCooperativeKernel,
        small,
        2,
        1,
        1,
        1,
        1,
        1,
        0,
        stream,
        In::of(0)
    );
    assert_eq!(code, 0);
    let graph = end(stream).unwrap();
    let (node, exec) = (nodes(graph)[0], instantiate(graph));
    for (blocks, expected) in [(132 * 32, 0), (132 * 32 + 1, 720)] {
        let params = KernelNodeParams {
            function: small,
            grid: [blocks, 1, 1],
            block: [1, 1, 1],
            shared_bytes: 0,
            parameters: In::of(0),
            extra: In::of(0),
            kernel: Handle::NULL,
            context: Handle::NULL,
        };
        let params = In::from(&params);
        let of_node = call!(graph_nodes::cuGraphKernelNodeSetParams_v2, node, params);
        let of_exec = call!(
            graph_exec::cuGraphExecKernelNodeSetParams_v2,
            exec,
            node,
            params
        );
        assert_eq!((of_node, of_exec), (expected, expected), "{blocks} blocks");
    }
    assert_eq!(call!(graph_exec::cuGraphLaunch, exec, stream), 0);
    assert_eq!(call!(stream::cuStreamSynchronize, stream), 0);
}
