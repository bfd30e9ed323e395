//! NVIDIA's driver: contexts, streams, events, memory, modules, launches and graphs.
//!
//! [`Driver::open`] finds `libcuda` and asks whether it works; a [`Context`] is one device, ready; everything else is made
//! from a context and keeps it alive. Handles are destroyed when they are dropped. Nothing here orders streams behind the
//! caller's back: no event is recorded and nothing waits unless a method says so, which is also what makes every call
//! safe to capture into a [`Graph`].

mod api;
mod argument;
mod context;
mod device;
mod event;
mod function;
mod graph;
mod host_words;
mod launch;
mod memory;
mod module;
mod pinned;
mod stream;
mod tensor_map;

pub use api::Driver;
pub use argument::{Argument, Arguments, DevicePointer, Parameter};
pub use context::Context;
pub use device::{Device, Limits};
pub use event::Event;
pub use function::{Function, Kernel};
pub use graph::{Graph, GraphExec, Update};
pub use host_words::HostWords;
pub use launch::Launch;
pub use memory::DeviceBuffer;
pub use module::Module;
pub use pinned::PinnedBuffer;
pub use stream::Stream;
pub use tensor_map::{ElementType, Swizzle, TensorMap, Tile};
