//! Graphs: work with an order, and the calls about their shape.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};

use super::abi::functions;
use super::argument::{In, Out};
pub(super) use super::graph_exec::GraphExec;
use super::memory;
use super::registry::{Handle, Object as _, lock, object};
use super::status::Status;
use super::types::EdgeData;
use super::work::Work;

/// A graph.
pub(super) struct Graph {
    pub(super) handle: Handle<Graph>,
    entries: Mutex<Vec<Entry>>,
    memory: Arc<OwnMemory>,
}

/// A node of a graph, as the graph has it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) node: Handle<Node>,
    pub(super) work: Work,
    /// The nodes that come before it.
    pub(super) after: Vec<Handle<Node>>,
    /// In a clone, the node that it was cloned from.
    cloned_from: Handle<Node>,
}

/// What the handle of a node stands for.
pub(super) struct Node {
    graph: Weak<Graph>,
}

/// Memory that was allocated by capturing: it goes with the last graph that uses it.
#[derive(Default)]
pub(super) struct OwnMemory(Mutex<Vec<u64>>);

impl Drop for OwnMemory {
    fn drop(&mut self) {
        for address in std::mem::take(&mut *lock(&self.0)) {
            // The program may have freed it itself.
            let _ = memory::free_in_graph(address);
        }
    }
}

object!(Graph);
object!(Node);

impl Graph {
    /// An empty graph, whose handle nobody knows yet.
    pub(super) fn new() -> Arc<Graph> {
        Arc::new(Graph {
            handle: Handle::reserve(),
            entries: Mutex::new(Vec::new()),
            memory: Arc::default(),
        })
    }

    /// Makes its handle known.
    pub(super) fn publish(self: &Arc<Self>) -> Handle<Graph> {
        Graph::registry().add(self.handle, Arc::clone(self));
        self.handle
    }

    pub(super) fn own(&self, address: u64) {
        lock(&self.memory.0).push(address);
    }

    pub(super) fn owns(&self, address: u64) -> bool {
        lock(&self.memory.0).contains(&address)
    }

    pub(super) fn memory(&self) -> Arc<OwnMemory> {
        Arc::clone(&self.memory)
    }

    /// Adds work behind nodes of this graph.
    pub(super) fn add(
        self: &Arc<Self>,
        work: Work,
        after: Vec<Handle<Node>>,
    ) -> Result<Handle<Node>, Status> {
        let mut entries = lock(&self.entries);
        let is_own = |node: &Handle<Node>| entries.iter().any(|entry| entry.node == *node);
        if !after.iter().all(is_own) {
            return Err(Status::INVALID_VALUE);
        }
        let node = Handle::reserve();
        let graph = Arc::downgrade(self);
        Node::registry().add(node, Arc::new(Node { graph }));
        entries.push(Entry {
            node,
            work,
            after,
            cloned_from: Handle::NULL,
        });
        Ok(node)
    }

    /// Whether all of these are nodes of it.
    pub(super) fn check(&self, nodes: &[Handle<Node>]) -> Result<(), Status> {
        let entries = lock(&self.entries);
        let is_own = |node: &Handle<Node>| entries.iter().any(|entry| entry.node == *node);
        if nodes.iter().all(is_own) {
            Ok(())
        } else {
            Err(Status::INVALID_VALUE)
        }
    }

    /// The numbers of these nodes and of all that come before them.
    pub(super) fn behind<'a>(
        &self,
        nodes: impl Iterator<Item = &'a Handle<Node>>,
    ) -> BTreeSet<usize> {
        let entries = lock(&self.entries);
        let mut open: Vec<Handle<Node>> = nodes.copied().collect();
        let mut found = BTreeSet::new();
        while let Some(node) = open.pop() {
            if found.insert(node.number())
                && let Some(entry) = entries.iter().find(|entry| entry.node == node)
            {
                open.extend(&entry.after);
            }
        }
        found
    }

    /// Its nodes in an order in which they can be done; of those that could be next, the one that was added first.
    pub(super) fn in_order(&self) -> Result<Vec<Entry>, Status> {
        let mut open = lock(&self.entries).clone();
        let mut done = BTreeSet::new();
        let mut order = Vec::with_capacity(open.len());
        while !open.is_empty() {
            let next = open
                .iter()
                .position(|entry| entry.after.iter().all(|node| done.contains(&node.number())));
            // Dependencies that go in a circle.
            let entry = open.remove(next.ok_or(Status::INVALID_VALUE)?);
            done.insert(entry.node.number());
            order.push(entry);
        }
        Ok(order)
    }

    fn copy(&self) -> Arc<Graph> {
        let clone = Arc::new(Graph {
            handle: Handle::reserve(),
            entries: Mutex::new(Vec::new()),
            memory: Arc::clone(&self.memory),
        });
        let mut copied: Vec<Entry> = Vec::new();
        for entry in lock(&self.entries).iter() {
            let node = Handle::reserve();
            let graph = Arc::downgrade(&clone);
            Node::registry().add(node, Arc::new(Node { graph }));
            copied.push(Entry {
                node,
                work: entry.work.clone(),
                after: entry.after.clone(),
                cloned_from: entry.node,
            });
        }
        let renamed: Vec<_> = copied.iter().map(|e| (e.cloned_from, e.node)).collect();
        for node in copied.iter_mut().flat_map(|entry| &mut entry.after) {
            if let Some((_, new)) = renamed.iter().find(|(old, _)| old == node) {
                *node = *new;
            }
        }
        *lock(&clone.entries) = copied;
        clone
    }

    fn edges(&self) -> Vec<(Handle<Node>, Handle<Node>)> {
        let entries = lock(&self.entries);
        let of = |entry: &Entry| {
            let to = entry.node;
            entry
                .after
                .iter()
                .map(move |from| (*from, to))
                .collect::<Vec<_>>()
        };
        entries.iter().flat_map(of).collect()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        for entry in lock(&self.entries).iter() {
            Node::registry().remove(entry.node);
        }
    }
}

impl Handle<Node> {
    fn graph(self) -> Result<Arc<Graph>, Status> {
        self.get()?.graph.upgrade().ok_or(Status::INVALID_HANDLE)
    }

    /// Reads or changes what the graph has of this node.
    pub(super) fn with<R>(
        self,
        use_it: impl FnOnce(&mut Entry) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let graph = self.graph()?;
        let mut entries = lock(&graph.entries);
        let entry = entries.iter_mut().find(|entry| entry.node == self);
        use_it(entry.ok_or(Status::INVALID_HANDLE)?)
    }
}

/// Writes a list as `cuGraphGetNodes` and its kind do: its length alone where there is no place, else as much as there is room
/// for, and nulls in the rest.
fn list<T: std::marker::Copy>(
    values: &[T],
    null: T,
    out: Out<T>,
    count: Out<usize>,
) -> Result<(), Status> {
    if out.is_null() {
        return count.set(values.len());
    }
    let room = count.get()?;
    let rest = std::iter::repeat(null);
    out.fill(values.iter().copied().chain(rest), room);
    count.set(values.len().min(room))
}

fn edges(
    graph: Handle<Graph>,
    from: Out<Handle<Node>>,
    to: Out<Handle<Node>>,
    count: Out<usize>,
) -> Result<(), Status> {
    let (starts, ends): (Vec<_>, Vec<_>) = graph.get()?.edges().into_iter().unzip();
    if from.is_null() != to.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    let room = if from.is_null() { 0 } else { count.get()? };
    list(&starts, Handle::NULL, from, count)?;
    if !to.is_null() {
        count.set(room)?;
        list(&ends, Handle::NULL, to, count)?;
    }
    Ok(())
}

/// Adds or removes edges.
fn connect(
    graph: Handle<Graph>,
    from: In<Handle<Node>>,
    to: In<Handle<Node>>,
    count: usize,
    adds: bool,
) -> Result<(), Status> {
    let graph = graph.get()?;
    let (from, to) = (from.list(count)?, to.list(count)?);
    graph.check(&from)?;
    graph.check(&to)?;
    for (from, to) in from.into_iter().zip(to) {
        to.with(|entry| {
            let known = entry.after.iter().position(|node| *node == from);
            match (known, adds) {
                (None, true) if from != to => entry.after.push(from),
                (Some(at), false) => drop(entry.after.remove(at)),
                _ => return Err(Status::INVALID_VALUE),
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn before(node: Handle<Node>, nodes: Out<Handle<Node>>, count: Out<usize>) -> Result<(), Status> {
    let after = node.with(|entry| Ok(entry.after.clone()))?;
    list(&after, Handle::NULL, nodes, count)
}

fn following(
    node: Handle<Node>,
    nodes: Out<Handle<Node>>,
    count: Out<usize>,
) -> Result<(), Status> {
    let edges = node.graph()?.edges();
    let found: Vec<_> = edges
        .iter()
        .filter(|(from, _)| *from == node)
        .map(|(_, to)| *to)
        .collect();
    list(&found, Handle::NULL, nodes, count)
}

functions! {
    fn cuGraphCreate(graph: Out<Handle<Graph>>, flags: u32) {
        super::gpu::machine()?;
        if graph.is_null() || flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        graph.set(Graph::new().publish())
    }

    fn cuGraphDestroy(graph: Handle<Graph>) {
        super::gpu::machine()?;
        Graph::registry().remove(graph).map(drop).ok_or(Status::INVALID_HANDLE)
    }

    fn cuGraphClone(clone: Out<Handle<Graph>>, graph: Handle<Graph>) {
        let graph = graph.get()?;
        if clone.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        clone.set(graph.copy().publish())
    }

    fn cuGraphNodeFindInClone(found: Out<Handle<Node>>, original: Handle<Node>, clone: Handle<Graph>) {
        let clone = clone.get()?;
        let entries = lock(&clone.entries);
        let entry = entries.iter().find(|entry| entry.cloned_from == original);
        found.set(entry.ok_or(Status::INVALID_VALUE)?.node)
    }

    fn cuGraphAddDependencies(graph: Handle<Graph>, from: In<Handle<Node>>, to: In<Handle<Node>>, count: usize) {
        connect(graph, from, to, count, true)
    }

    fn cuGraphAddDependencies_v2(
        graph: Handle<Graph>, from: In<Handle<Node>>, to: In<Handle<Node>>, _data: In<EdgeData>, count: usize,
    ) {
        connect(graph, from, to, count, true)
    }

    fn cuGraphRemoveDependencies(graph: Handle<Graph>, from: In<Handle<Node>>, to: In<Handle<Node>>, count: usize) {
        connect(graph, from, to, count, false)
    }

    fn cuGraphRemoveDependencies_v2(
        graph: Handle<Graph>, from: In<Handle<Node>>, to: In<Handle<Node>>, _data: In<EdgeData>, count: usize,
    ) {
        connect(graph, from, to, count, false)
    }

    fn cuGraphDestroyNode(node: Handle<Node>) {
        let graph = node.graph()?;
        let mut entries = lock(&graph.entries);
        entries.retain(|entry| entry.node != node);
        for entry in entries.iter_mut() {
            entry.after.retain(|other| *other != node);
        }
        Node::registry().remove(node);
        Ok(())
    }

    fn cuGraphGetNodes(graph: Handle<Graph>, nodes: Out<Handle<Node>>, count: Out<usize>) {
        let graph = graph.get()?;
        let all: Vec<_> = lock(&graph.entries).iter().map(|entry| entry.node).collect();
        list(&all, Handle::NULL, nodes, count)
    }

    fn cuGraphGetRootNodes(graph: Handle<Graph>, nodes: Out<Handle<Node>>, count: Out<usize>) {
        let graph = graph.get()?;
        let entries = lock(&graph.entries);
        let roots = entries.iter().filter(|entry| entry.after.is_empty());
        let roots: Vec<_> = roots.map(|entry| entry.node).collect();
        list(&roots, Handle::NULL, nodes, count)
    }

    fn cuGraphGetEdges(graph: Handle<Graph>, from: Out<Handle<Node>>, to: Out<Handle<Node>>, count: Out<usize>) {
        edges(graph, from, to, count)
    }

    fn cuGraphGetEdges_v2(
        graph: Handle<Graph>, from: Out<Handle<Node>>, to: Out<Handle<Node>>, data: Out<EdgeData>, count: Out<usize>,
    ) {
        edges(graph, from, to, count)?;
        if !from.is_null() {
            data.fill(std::iter::repeat(EdgeData::default()), count.get()?);
        }
        Ok(())
    }

    fn cuGraphNodeGetType(node: Handle<Node>, kind: Out<u32>) {
        kind.set(node.with(|entry| Ok(entry.work.kind()))?)
    }

    fn cuGraphNodeGetDependencies(node: Handle<Node>, nodes: Out<Handle<Node>>, count: Out<usize>) {
        before(node, nodes, count)
    }

    fn cuGraphNodeGetDependencies_v2(
        node: Handle<Node>, nodes: Out<Handle<Node>>, data: Out<EdgeData>, count: Out<usize>,
    ) {
        before(node, nodes, count)?;
        if !nodes.is_null() {
            data.fill(std::iter::repeat(EdgeData::default()), count.get()?);
        }
        Ok(())
    }

    fn cuGraphNodeGetDependentNodes(node: Handle<Node>, nodes: Out<Handle<Node>>, count: Out<usize>) {
        following(node, nodes, count)
    }

    fn cuGraphNodeGetDependentNodes_v2(
        node: Handle<Node>, nodes: Out<Handle<Node>>, data: Out<EdgeData>, count: Out<usize>,
    ) {
        following(node, nodes, count)?;
        if !nodes.is_null() {
            data.fill(std::iter::repeat(EdgeData::default()), count.get()?);
        }
        Ok(())
    }
}
