//! The emulated devices as `libcuda`: the C functions of NVIDIA's driver, over [`Device`](crate::Device).
//!
//! There are two ways in. As a shared library, this crate is a `libcuda.so.1`: open it by its path before anything else looks for
//! the driver, and it is the one that they find. Linked into a program, [`symbol`] gives each function by its name, and no file
//! is needed.
//!
//! - [`configure`] or the variables `STEPSCOPE_EMULATED_…` say what there is: see [`Configuration`].
//! - Work is done by the time its call returns: copies, fills and kernels in the order of the calls, whatever their streams. In a
//!   capture they are recorded. Threads that use different streams run their kernels at the same time.
//! - Times of events are the host's. The device's name says that they mean nothing, and its clocks are 0.
//! - Only PTX is loaded; machine code is refused with `CUDA_ERROR_NO_BINARY_FOR_GPU`.
//! - A kernel that fails takes its context down: the next call that waits says so, and every one after it.
//! - [`take_reports`] gives what each launch did.
//! - Functions that are not written answer `CUDA_ERROR_NOT_SUPPORTED`.
//!
//! Collectives between these devices would attach here without a copy of NCCL's transports: all devices of a process lie in one
//! address space ([`Device::beside`](crate::Device::beside)), kernels of different threads run at the same time, and system-scoped
//! atomics reach every device. A `libnccl` of this crate's kind would keep a communicator per set of devices, let the ranks
//! of a call meet, and do the sum as one piece of work in the stream of each, or run NCCL-like kernels that wait on
//! each other's flags.
//!
//! **Invariant:** no handle is looked behind that is not in a registry, and no panic leaves a C function.

mod abi;
mod argument;
mod capture;
mod config;
mod context;
mod copy;
mod event;
mod fill;
mod function;
mod gpu;
mod graph;
mod graph_exec;
mod graph_nodes;
mod launch;
mod memory;
mod module;
mod occupancy;
mod pointer;
mod pool;
mod query;
mod registry;
mod report;
mod status;
mod stream;
mod tensor_map;
#[cfg(test)]
mod tests;
mod types;
mod unsupported;
mod work;

use std::ffi::c_void;

pub use config::Configuration;
pub use report::LaunchReport;

/// The functions of each file.
static TABLES: [&abi::Table; 20] = [
    &capture::FUNCTIONS,
    &context::FUNCTIONS,
    &copy::FUNCTIONS,
    &event::FUNCTIONS,
    &fill::FUNCTIONS,
    &function::FUNCTIONS,
    &gpu::FUNCTIONS,
    &graph::FUNCTIONS,
    &graph_exec::FUNCTIONS,
    &graph_nodes::FUNCTIONS,
    &launch::FUNCTIONS,
    &memory::FUNCTIONS,
    &module::FUNCTIONS,
    &occupancy::FUNCTIONS,
    &pointer::FUNCTIONS,
    &pool::FUNCTIONS,
    &query::FUNCTIONS,
    &stream::FUNCTIONS,
    &tensor_map::FUNCTIONS,
    &unsupported::FUNCTIONS,
];

/// The function of this name, as `libcuda.so.1` would export it.
pub fn symbol(name: &str) -> Option<*const c_void> {
    TABLES.iter().find_map(|table| {
        let found = table.0.iter().find(|(own, _)| *own == name);
        found.map(|(_, function)| *function)
    })
}

/// Sets what the driver offers, instead of the environment. It must come before `cuInit`.
///
/// # Errors
/// `cuInit` was called already; what it made stays.
pub fn configure(configuration: Configuration) -> Result<(), String> {
    gpu::configure(configuration)
}

/// What the launches on a device did since the last time this was asked, in order. Reports are kept if
/// [`Configuration::keep_reports`] says so; there are none of a device that does not exist.
pub fn take_reports(device: usize) -> Vec<LaunchReport> {
    let gpus = gpu::machine().map(|machine| machine.gpus.as_slice());
    match gpus.unwrap_or_default().get(device) {
        Some(gpu) => std::mem::take(&mut *registry::lock(&gpu.reports)),
        None => Vec::new(),
    }
}
