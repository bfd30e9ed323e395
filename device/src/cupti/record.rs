//! Activity records: from CUPTI's bytes to plain values.
//!
//! A record's layout grows with CUPTI's version, but only at its end: what is read here lies at the same place in every version
//! since CUDA 9 (`CUpti_ActivityKernel4` to `Kernel13`, `Memcpy` to `Memcpy6`, …), which the assertions at the end of this file hold
//! against cudarc's bindings. So one reader serves every CUPTI, and a field that a record is too short for is left out.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What CUPTI recorded, in the order in which the buffers came back; that is not the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activity {
    /// Kernels, those inside graphs included where graphs were recorded node by node.
    pub kernels: Vec<Kernel>,
    /// Copies and fills of memory.
    pub transfers: Vec<Transfer>,
    /// Calls of the driver's and the runtime's functions.
    pub calls: Vec<Call>,
    /// Replays of graphs as a whole, where graphs were recorded so.
    pub graphs: Vec<GraphReplay>,
    /// What recording itself cost, and other work of the driver that is nobody's kernel.
    pub overheads: Vec<Overhead>,
    /// Which of our spans each call belongs to.
    pub correlations: Vec<Correlation>,
    /// Records of other kinds, by kind.
    pub unknown: BTreeMap<u32, u64>,
    /// Records too short for what their kind must hold. There should be none.
    pub malformed: u64,
    /// Records that CUPTI had no room for.
    pub dropped: u64,
}

/// A kernel that ran. Times are nanoseconds of CUPTI's clock; both are 0 where it could not be timed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The function's name in the module: mangled, if it is C++.
    pub name: Arc<str>,
    /// When its first block started.
    pub start_ns: u64,
    /// When its last block ended.
    pub end_ns: u64,
    /// The device, in CUDA's count.
    pub device: u32,
    /// CUPTI's number of the context.
    pub context: u32,
    /// CUPTI's number of the stream.
    pub stream: u32,
    /// Blocks.
    pub grid: [i32; 3],
    /// Threads per block.
    pub block: [i32; 3],
    /// Registers of a thread.
    pub registers: u16,
    /// Shared memory of a block: static and dynamic, bytes.
    pub shared_bytes: [i32; 2],
    /// Ties it to the [`Call`] that launched it. All nodes of one graph launch share it.
    pub correlation: u32,
    /// The graph it was a node of.
    pub node: Option<GraphNode>,
}

/// A node of a graph, by the numbers that CUPTI gives to both. They stay the same from replay to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub struct GraphNode {
    pub graph: u32,
    pub node: u64,
}

/// What a [`Transfer`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferKind {
    /// A copy; `CUpti_ActivityMemcpyKind`: 1 host to device, 2 device to host, 8 device to device.
    Copy(u8),
    /// A fill.
    Set,
}

/// A copy or fill of memory, on the device's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of Kernel")]
pub struct Transfer {
    pub kind: TransferKind,
    pub bytes: u64,
    pub start_ns: u64,
    pub end_ns: u64,
    pub device: u32,
    pub context: u32,
    pub stream: u32,
    pub correlation: u32,
    pub node: Option<GraphNode>,
}

/// Which interface a [`Call`] was of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// `libcuda`.
    Driver,
    /// `libcudart`, which NVIDIA's own libraries call.
    Runtime,
}

/// A call of a function of the driver or the runtime, on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Whose function.
    pub interface: Interface,
    /// Which function, in CUPTI's count.
    pub function: u32,
    /// When it was entered.
    pub start_ns: u64,
    /// When it returned.
    pub end_ns: u64,
    /// The thread that called.
    pub thread: u32,
    /// Ties it to what it launched.
    pub correlation: u32,
    /// What it returned.
    pub status: u32,
}

/// A graph that was replayed, from the start of its first node to the end of its last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of Kernel")]
pub struct GraphReplay {
    pub graph: u32,
    pub start_ns: u64,
    pub end_ns: u64,
    pub device: u32,
    pub context: u32,
    pub stream: u32,
    pub correlation: u32,
}

/// Time that the driver or CUPTI took for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "as of Kernel")]
pub struct Overhead {
    /// `CUpti_ActivityOverheadKind`; see [`Overhead::words`].
    pub kind: u32,
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Overhead {
    /// What it was, in words.
    pub fn words(&self) -> &'static str {
        match (self.kind, self.kind >> 16) {
            (1, _) => "compiling in the driver",
            (_, 1) => "flushing record buffers",
            (_, 2) => "instrumentation",
            (_, 3) => "CUPTI's own resources",
            (_, 4) => "loading modules",
            (_, 5) => "loading functions at their first launch",
            (_, 6) => "waiting for room in the launch queue",
            (_, 7) => "asking for record buffers",
            (_, 8) => "starting unified memory",
            _ => "other overhead",
        }
    }

    /// Whether it is there only because of recording.
    pub fn is_recording(&self) -> bool {
        matches!(self.kind >> 16, 1 | 2 | 3 | 7)
    }
}

/// Says that the call with this number happened within one of our spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Correlation {
    pub correlation: u32,
    pub span: u64,
}

mod kind {
    pub(super) const MEMCPY: u32 = 1;
    pub(super) const MEMSET: u32 = 2;
    pub(super) const KERNEL: u32 = 3;
    pub(super) const DRIVER: u32 = 4;
    pub(super) const RUNTIME: u32 = 5;
    pub(super) const CONCURRENT_KERNEL: u32 = 10;
    pub(super) const OVERHEAD: u32 = 17;
    pub(super) const EXTERNAL_CORRELATION: u32 = 39;
    pub(super) const GRAPH_TRACE: u32 = 51;
}

/// `CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0`, the one that our spans use.
const CUSTOM0: u32 = 3;

/// The bytes of one record; reading beyond its end gives nothing.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u8(&self, at: usize) -> Option<u8> {
        self.bytes::<1>(at).map(|[byte]| byte)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_ne_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_ne_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_ne_bytes)
    }

    fn i32s<const N: usize>(&self, at: usize) -> Option<[i32; N]> {
        let mut numbers = [0; N];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = self.bytes(at + 4 * index).map(i32::from_ne_bytes)?;
        }
        Some(numbers)
    }

    /// The graph node at `node` and `graph`, if the record is long enough to have one and it is not 0.
    fn graph_node(&self, node: usize, graph: usize) -> Option<GraphNode> {
        let (node, graph) = (self.u64(node)?, self.u32(graph)?);
        (node != 0).then_some(GraphNode { graph, node })
    }
}

impl Activity {
    /// Adds the records of one buffer: record `i` begins at `starts[i]` and ends at the latest where the next begins, the last
    /// at the buffer's end. `name` gives the text of a kernel's name by its address.
    ///
    /// Any bytes will do: records of kinds that are not known are counted, and what is too short is counted as malformed.
    pub fn add(&mut self, buffer: &[u8], starts: &[usize], mut name: impl FnMut(u64) -> Arc<str>) {
        let ends = starts.iter().copied().skip(1).chain([buffer.len()]);
        for (&start, next) in starts.iter().zip(ends) {
            // Nothing says that CUPTI goes through a buffer forwards.
            let end = if next > start { next } else { buffer.len() };
            let Some(fields) = buffer.get(start..end).map(Fields) else {
                self.malformed += 1;
                continue;
            };
            if self.add_record(fields, &mut name).is_none() {
                self.malformed += 1;
            }
        }
    }

    fn add_record(
        &mut self,
        fields: Fields<'_>,
        name: &mut impl FnMut(u64) -> Arc<str>,
    ) -> Option<()> {
        match fields.u32(0)? {
            kind::CONCURRENT_KERNEL | kind::KERNEL => self.kernels.push(kernel(fields, name)?),
            number @ (kind::MEMCPY | kind::MEMSET) => {
                let kind = match number {
                    kind::MEMCPY => TransferKind::Copy(fields.u8(4)?),
                    _ => TransferKind::Set,
                };
                self.transfers.push(transfer(fields, kind)?);
            }
            number @ (kind::DRIVER | kind::RUNTIME) => {
                let interface = match number {
                    kind::DRIVER => Interface::Driver,
                    _ => Interface::Runtime,
                };
                self.calls.push(call(fields, interface)?);
            }
            kind::GRAPH_TRACE => self.graphs.push(graph_replay(fields)?),
            kind::OVERHEAD => self.overheads.push(Overhead {
                kind: fields.u32(4)?,
                start_ns: fields.u64(24)?,
                end_ns: fields.u64(32)?,
            }),
            // Those of other programs' interfaces are not ours to read.
            kind::EXTERNAL_CORRELATION => {
                let correlation = Correlation {
                    span: fields.u64(8)?,
                    correlation: fields.u32(16)?,
                };
                if fields.u32(4)? == CUSTOM0 {
                    self.correlations.push(correlation);
                }
            }
            other => *self.unknown.entry(other).or_default() += 1,
        }
        Some(())
    }

    /// Adds what was recorded later.
    pub fn append(&mut self, mut later: Activity) {
        self.kernels.append(&mut later.kernels);
        self.transfers.append(&mut later.transfers);
        self.calls.append(&mut later.calls);
        self.graphs.append(&mut later.graphs);
        self.overheads.append(&mut later.overheads);
        self.correlations.append(&mut later.correlations);
        for (kind, count) in later.unknown {
            *self.unknown.entry(kind).or_default() += count;
        }
        self.malformed += later.malformed;
        self.dropped = self.dropped.saturating_add(later.dropped);
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.kernels.len()
            + self.transfers.len()
            + self.calls.len()
            + self.graphs.len()
            + self.overheads.len()
            + self.correlations.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn kernel(fields: Fields<'_>, name: &mut impl FnMut(u64) -> Arc<str>) -> Option<Kernel> {
    Some(Kernel {
        registers: fields.u16(6)?,
        start_ns: fields.u64(16)?,
        end_ns: fields.u64(24)?,
        device: fields.u32(40)?,
        context: fields.u32(44)?,
        stream: fields.u32(48)?,
        grid: fields.i32s(52)?,
        block: fields.i32s(64)?,
        shared_bytes: fields.i32s(76)?,
        correlation: fields.u32(92)?,
        name: name(fields.u64(104)?),
        node: fields.graph_node(144, 156),
    })
}

fn transfer(fields: Fields<'_>, kind: TransferKind) -> Option<Transfer> {
    Some(Transfer {
        kind,
        bytes: fields.u64(8)?,
        start_ns: fields.u64(16)?,
        end_ns: fields.u64(24)?,
        device: fields.u32(32)?,
        context: fields.u32(36)?,
        stream: fields.u32(40)?,
        correlation: fields.u32(44)?,
        node: fields.graph_node(64, 72),
    })
}

fn call(fields: Fields<'_>, interface: Interface) -> Option<Call> {
    Some(Call {
        interface,
        function: fields.u32(4)?,
        start_ns: fields.u64(8)?,
        end_ns: fields.u64(16)?,
        thread: fields.u32(28)?,
        correlation: fields.u32(32)?,
        status: fields.u32(36)?,
    })
}

fn graph_replay(fields: Fields<'_>) -> Option<GraphReplay> {
    Some(GraphReplay {
        correlation: fields.u32(4)?,
        start_ns: fields.u64(8)?,
        end_ns: fields.u64(16)?,
        device: fields.u32(24)?,
        graph: fields.u32(28)?,
        context: fields.u32(32)?,
        stream: fields.u32(36)?,
    })
}

/// The offsets above are those of NVIDIA's structs, as far as cudarc's bindings for CUDA 13.0 have them.
const _: () = {
    use std::mem::{offset_of, size_of};

    use cudarc::cupti::sys::*;

    macro_rules! same {
        ($($record:ident { $($field:ident: $offset:literal),* $(,)? })*) => {
            $( $( assert!(offset_of!($record, $field) == $offset); )* )*
        };
    }
    macro_rules! kernels {
        ($($record:ident $size:literal),*) => { $(
            same! { $record {
                registersPerThread: 6, start: 16, end: 24, deviceId: 40, contextId: 44, streamId: 48, gridX: 52, gridY: 56,
                gridZ: 60, blockX: 64, blockY: 68, blockZ: 72, staticSharedMemory: 76, dynamicSharedMemory: 80,
                correlationId: 92, name: 104,
            } }
            assert!(size_of::<$record>() == $size);
        )* };
    }
    kernels! {
        CUpti_ActivityKernel4 144, CUpti_ActivityKernel5 160, CUpti_ActivityKernel6 168, CUpti_ActivityKernel7 176,
        CUpti_ActivityKernel8 200, CUpti_ActivityKernel9 208, CUpti_ActivityKernel10 216
    }
    same! {
        CUpti_ActivityKernel5 { graphNodeId: 144, graphId: 156 }
        CUpti_ActivityKernel10 { graphNodeId: 144, graphId: 156 }
        CUpti_ActivityMemcpy5 {
            copyKind: 4, bytes: 8, start: 16, end: 24, deviceId: 32, contextId: 36, streamId: 40, correlationId: 44,
            graphNodeId: 64, graphId: 72,
        }
        CUpti_ActivityMemset4 {
            bytes: 8, start: 16, end: 24, deviceId: 32, contextId: 36, streamId: 40, correlationId: 44, graphNodeId: 64,
            graphId: 72,
        }
        CUpti_ActivityAPI { cbid: 4, start: 8, end: 16, threadId: 28, correlationId: 32, returnValue: 36 }
        CUpti_ActivityGraphTrace {
            correlationId: 4, start: 8, end: 16, deviceId: 24, graphId: 28, contextId: 32, streamId: 36,
        }
        CUpti_ActivityGraphTrace2 {
            correlationId: 4, start: 8, end: 16, deviceId: 24, graphId: 28, contextId: 32, streamId: 36,
        }
        CUpti_ActivityOverhead { overheadKind: 4, start: 24, end: 32 }
        CUpti_ActivityOverhead3 { overheadKind: 4, start: 24, end: 32 }
        CUpti_ActivityExternalCorrelation { externalKind: 4, externalId: 8, correlationId: 16 }
    }
    type Kind = CUpti_ActivityKind;
    assert!(Kind::CUPTI_ACTIVITY_KIND_MEMCPY as u32 == kind::MEMCPY);
    assert!(Kind::CUPTI_ACTIVITY_KIND_MEMSET as u32 == kind::MEMSET);
    assert!(Kind::CUPTI_ACTIVITY_KIND_KERNEL as u32 == kind::KERNEL);
    assert!(Kind::CUPTI_ACTIVITY_KIND_DRIVER as u32 == kind::DRIVER);
    assert!(Kind::CUPTI_ACTIVITY_KIND_RUNTIME as u32 == kind::RUNTIME);
    assert!(Kind::CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL as u32 == kind::CONCURRENT_KERNEL);
    assert!(Kind::CUPTI_ACTIVITY_KIND_OVERHEAD as u32 == kind::OVERHEAD);
    assert!(Kind::CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION as u32 == kind::EXTERNAL_CORRELATION);
    assert!(Kind::CUPTI_ACTIVITY_KIND_GRAPH_TRACE as u32 == kind::GRAPH_TRACE);
    type External = CUpti_ExternalCorrelationKind;
    assert!(External::CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0 as u32 == CUSTOM0);
};
