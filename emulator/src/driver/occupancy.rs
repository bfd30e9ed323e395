//! What the driver says about how many blocks fit.

use super::abi::functions;
use super::argument::{In, Out};
use super::function::{Function, function};
use super::launch::shape_of;
use super::registry::Handle;
use super::status::Status;
use super::types::{LaunchConfig, SharedOfBlock};
use crate::count::occupancy::{Occupancy, occupancy};

/// Blocks of a kernel with this much dynamic shared memory.
fn of(function: &Function, threads: u32, dynamic_bytes: usize) -> Result<Occupancy, Status> {
    let capability = function
        .module
        .context
        .gpu
        .device
        .options()
        .compute_capability;
    let bytes = u32::try_from(dynamic_bytes).unwrap_or(u32::MAX);
    let shared = bytes.saturating_add(function.kernel.static_shared_bytes());
    occupancy(capability, threads, function.registers(), shared).ok_or(Status::INVALID_DEVICE)
}

fn blocks(
    out: Out<i32>,
    handle: Handle<Function>,
    threads: i32,
    dynamic_bytes: usize,
) -> Result<(), Status> {
    let function = function(handle)?;
    let threads = u32::try_from(threads).ok().filter(|threads| *threads > 0);
    let threads = threads.ok_or(Status::INVALID_VALUE)?;
    let fits = threads <= function.max_threads();
    let held = of(&function, threads, dynamic_bytes)?.blocks;
    out.set(if fits { held as i32 } else { 0 })
}

/// The block with most threads on a multiprocessor; of several, the largest.
fn best_block(
    grid: Out<i32>,
    block: Out<i32>,
    handle: Handle<Function>,
    shared_of: SharedOfBlock,
    dynamic_bytes: usize,
    limit: i32,
) -> Result<(), Status> {
    let function = function(handle)?;
    let most = match u32::try_from(limit) {
        Ok(0) | Err(_) => function.max_threads(),
        Ok(limit) => limit.min(function.max_threads()),
    };
    let mut best = (0, 0, 0);
    let sizes = (1..=most / 32)
        .map(|warps| warps * 32)
        .chain((most % 32 != 0).then_some(most));
    for threads in sizes {
        let bytes = match shared_of {
            // SAFETY: the caller gave the function for this call; it takes a block's threads.
            Some(shared_of) => unsafe { shared_of(threads as i32) },
            None => dynamic_bytes,
        };
        let held = of(&function, threads, bytes)?.blocks;
        if held > 0 && held * threads >= best.0 {
            best = (held * threads, threads, held);
        }
    }
    block.set(best.1 as i32)?;
    grid.set((best.2 * function.module.context.gpu.multiprocessors()) as i32)
}

/// Clusters that the device holds. On hardware, a cluster must fit into one group of multiprocessors, whose sizes differ from card
/// to card; here every multiprocessor can take part in any.
fn clusters(function: &Function, config: &LaunchConfig) -> Result<u32, Status> {
    let shape = shape_of(config)?;
    let cluster = shape.cluster.or_else(|| function.kernel.required_cluster());
    let size: u32 = cluster.unwrap_or([1; 3]).iter().product();
    let threads: u32 = shape.block.iter().product();
    let gpu = &function.module.context.gpu;
    if gpu.device.options().compute_capability.0 < 9 {
        return Err(Status::NOT_SUPPORTED);
    }
    let largest = if function.has_large_clusters() { 16 } else { 8 };
    if size == 0 || size > largest {
        return Err(Status::INVALID_CLUSTER_SIZE);
    }
    let held = of(function, threads, shape.shared_bytes as usize)?.blocks;
    Ok(held * gpu.multiprocessors() / size)
}

functions! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        count: Out<i32>, function: Handle<Function>, threads: i32, dynamic_bytes: usize,
    ) {
        blocks(count, function, threads, dynamic_bytes)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        count: Out<i32>, function: Handle<Function>, threads: i32, dynamic_bytes: usize, _flags: u32,
    ) {
        blocks(count, function, threads, dynamic_bytes)
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>, block: Out<i32>, function: Handle<Function>, shared_of: SharedOfBlock, dynamic_bytes: usize,
        limit: i32,
    ) {
        best_block(grid, block, function, shared_of, dynamic_bytes, limit)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>, block: Out<i32>, function: Handle<Function>, shared_of: SharedOfBlock, dynamic_bytes: usize,
        limit: i32, _flags: u32,
    ) {
        best_block(grid, block, function, shared_of, dynamic_bytes, limit)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: Out<usize>, handle: Handle<Function>, blocks: i32, threads: i32,
    ) {
        let function = function(handle)?;
        let blocks = u32::try_from(blocks).ok().filter(|blocks| *blocks > 0);
        let threads = u32::try_from(threads).ok().filter(|threads| *threads > 0);
        let (Some(blocks), Some(threads)) = (blocks, threads) else {
            return Err(Status::INVALID_VALUE);
        };
        if of(&function, threads, 0)?.blocks < blocks {
            return Err(Status::INVALID_VALUE);
        }
        let capacity = &function.module.context.gpu.capacity;
        // In whole units of 128 bytes, like the memory that blocks get.
        let each = capacity.shared_bytes / blocks / 128 * 128;
        let own = each.saturating_sub(capacity.reserved_shared_bytes);
        let own = own.min(capacity.shared_bytes_per_block);
        bytes.set(own.saturating_sub(function.kernel.static_shared_bytes()) as usize)
    }

    fn cuOccupancyMaxActiveClusters(count: Out<i32>, handle: Handle<Function>, config: In<LaunchConfig>) {
        count.set(clusters(&*function(handle)?, &config.get()?)? as i32)
    }

    fn cuOccupancyMaxPotentialClusterSize(size: Out<i32>, handle: Handle<Function>, config: In<LaunchConfig>) {
        let function = function(handle)?;
        let shape = shape_of(&config.get()?)?;
        if function.module.context.gpu.device.options().compute_capability.0 < 9 {
            return Err(Status::NOT_SUPPORTED);
        }
        let threads = shape.block.iter().product();
        let held = of(&function, threads, shape.shared_bytes as usize)?.blocks;
        let largest = if function.has_large_clusters() { 16 } else { 8 };
        size.set(if held > 0 { largest } else { 0 })
    }
}
