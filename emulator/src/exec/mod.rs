//! Runs kernels: warps in lockstep, 32 lanes at a time.
//!
//! A warp is a list of splits: sets of lanes with one instruction to execute next. The split with the lowest instruction runs;
//! splits that meet at the target of a branch become one. A split waits where all lanes of a member mask have to arrive, and at
//! barriers; one that only polls memory lets others run.

mod atomic;
mod budget;
mod bulk;
mod chunks;
mod collective;
mod copy;
mod data;
mod floating;
mod in_flight;
mod integer;
mod knowledge;
mod lanes;
mod local;
mod matrix;
mod mbarrier;
mod memory;
mod observe;
mod order;
mod packed;
mod print;
mod quick;
mod race;
mod registers;
mod row;
mod scatter;
mod schedule;
mod shuffle;
mod special;
mod state;
mod step;
mod sync;
mod unwritten;
pub(crate) mod vectorise;
mod wgmma;
mod words;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::count::counters;
use crate::count::occupancy::occupancy;
use crate::device::{self, DeviceOptions, Report};
use crate::error::{Error, ErrorKind};
use crate::memory::global::GlobalMemory;
use crate::program::KernelCode;
pub(crate) use state::coordinates;
use state::{Launch, Worker};

/// The most shared memory that a block may have, by compute capability.
pub(crate) fn shared_limit(capability: (u32, u32)) -> u32 {
    match capability {
        (8, 0) => 163 << 10,
        (8, _) => 99 << 10,
        _ => 227 << 10,
    }
}

/// Runs a kernel to its end.
pub(crate) fn run(
    kernel: &KernelCode,
    options: &DeviceOptions,
    memory: &GlobalMemory,
    asked: &device::Launch,
    arguments: &[u8],
) -> Result<Report, Error> {
    let cluster = check(kernel, options, asked, arguments)?;
    let seconds = asked.limits.seconds.clamp(0.0, 1e9);
    let launch = Launch {
        kernel,
        options,
        memory,
        parameters: arguments.to_vec(),
        grid: asked.grid,
        block: asked.block,
        cluster: cluster.unwrap_or([1; 3]),
        has_clusters: cluster.is_some(),
        dynamic_shared: asked.dynamic_shared_bytes,
        checks: asked.checks,
        max_instructions: asked.limits.warp_instructions,
        deadline: Instant::now() + Duration::from_secs_f64(seconds),
        executed: AtomicU64::new(0),
    };
    let cores = match asked.limits.cores {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        cores => cores,
    };
    let cores = cores.min(launch.groups() as usize);
    // What one block does must not reach another but through the device's memory in an order that does not matter.
    let in_order = kernel.order_matters || asked.cooperative || asked.checks.race || cores == 1;
    let (worker, failure) = if in_order {
        run_in_order(&launch, asked.cooperative)
    } else {
        run_on(cores, &launch)
    };
    let (mut total, lines) = counters::summarise(kernel, &worker.counters);
    [total.compulsory_read_bytes, total.compulsory_write_bytes] = worker.touched.bytes();
    if !asked.checks.init {
        worker.touched.define(memory);
    }
    let mut output = worker.output;
    // Blocks print in their order, whichever ran first.
    output.sort_by_key(|(block, _)| *block);
    Ok(Report {
        kernel: kernel.name.clone(),
        counters: total,
        lines,
        findings: worker.findings.finish(kernel, asked.grid, asked.block),
        output: output.into_iter().map(|(_, text)| text).collect(),
        failure,
    })
}

/// Whether the device can make a launch; the shape of its clusters.
fn check(
    kernel: &KernelCode,
    options: &DeviceOptions,
    asked: &device::Launch,
    arguments: &[u8],
) -> Result<Option<[u32; 3]>, Error> {
    let refuse = |what: String| {
        Err(Error::new(
            ErrorKind::InvalidValue,
            format!("{}: {what}", kernel.name),
        ))
    };
    let [gx, gy, gz] = asked.grid;
    let [bx, by, bz] = asked.block;
    if gx == 0 || gy == 0 || gz == 0 || gx > i32::MAX as u32 || gy > 65535 || gz > 65535 {
        return refuse(format!(
            "a grid of {gx} x {gy} x {gz} blocks; it takes 1 to 2147483647 x 65535 x 65535"
        ));
    }
    let blocks: u64 = asked.grid.iter().map(|&axis| u64::from(axis)).product();
    if blocks > u64::from(u32::MAX) {
        return refuse(format!(
            "a grid of {blocks} blocks; more than 4294967295 cannot be emulated"
        ));
    }
    let threads = u64::from(bx) * u64::from(by) * u64::from(bz);
    if threads == 0 || threads > 1024 || bx > 1024 || by > 1024 || bz > 64 {
        return refuse(format!(
            "a block of {bx} x {by} x {bz} threads; it takes 1 to 1024, at most 64 along z"
        ));
    }
    if let Some(required) = kernel.required_threads
        && required != asked.block
    {
        return refuse(format!(
            "a block of {bx} x {by} x {bz} threads; it was compiled for {required:?}"
        ));
    }
    if let Some(most) = kernel.max_threads
        && threads > most.iter().map(|&axis| u64::from(axis)).product()
    {
        return refuse(format!(
            "a block of {threads} threads; it was compiled for at most {most:?}"
        ));
    }
    let shared = u64::from(kernel.dynamic_shared_base) + u64::from(asked.dynamic_shared_bytes);
    let limit = shared_limit(options.compute_capability);
    if shared > u64::from(limit) {
        return refuse(format!(
            "{shared} bytes of shared memory for a block; the device has {limit}"
        ));
    }
    if arguments.len() != kernel.parameter_bytes as usize {
        let needs = kernel.parameter_bytes;
        return refuse(format!(
            "{} bytes of arguments; its parameters take {needs}",
            arguments.len()
        ));
    }
    let cluster = asked.cluster.or(kernel.required_cluster);
    if let (Some(asked), Some(required)) = (asked.cluster, kernel.required_cluster)
        && asked != required
    {
        return refuse(format!(
            "clusters of {asked:?} blocks; it was compiled for {required:?}"
        ));
    }
    if let Some(cluster) = cluster {
        let size: u64 = cluster.iter().map(|&axis| u64::from(axis)).product();
        if options.compute_capability < (9, 0) && size > 1 {
            return refuse("clusters need compute capability 9.0".to_owned());
        }
        if size == 0
            || size > 16
            || (0..3).any(|axis| !asked.grid[axis].is_multiple_of(cluster[axis]))
        {
            return refuse(format!(
                "clusters of {cluster:?} blocks in a grid of {gx} x {gy} x {gz}"
            ));
        }
    }
    if asked.cooperative {
        check_cooperative(kernel, options, blocks, threads as u32, shared as u32)?;
    }
    Ok(cluster)
}

/// Whether all blocks of a cooperative launch are on the device at once, so that they can wait for one another.
fn check_cooperative(
    kernel: &KernelCode,
    options: &DeviceOptions,
    blocks: u64,
    threads: u32,
    shared: u32,
) -> Result<(), Error> {
    let capability = options.compute_capability;
    let Some(held) = occupancy(capability, threads, kernel.max_registers, shared) else {
        return Ok(());
    };
    let (held, multiprocessors) = (held.blocks, options.multiprocessors);
    let most = u64::from(held) * u64::from(multiprocessors);
    if blocks <= most {
        return Ok(());
    }
    let what = format!(
        "{}: a cooperative launch of {blocks} blocks; the device holds {most} at once, {held} of {threads} threads and {shared} bytes of shared memory on each of {multiprocessors} multiprocessors",
        kernel.name
    );
    Err(Error::new(ErrorKind::CooperativeLaunchTooLarge, what))
}

fn run_in_order<'a>(launch: &'a Launch<'a>, cooperative: bool) -> (Worker<'a>, Option<Error>) {
    let mut worker = Worker::new(launch);
    let threads = launch.threads_per_block() * launch.cluster_size();
    let per_multiprocessor = (2048 / threads.max(1)).clamp(1, 32);
    let limit = launch.options.multiprocessors.max(1) * per_multiprocessor;
    // All blocks of a cooperative launch are on the device: `check` refuses those that are not.
    let limit = if cooperative { launch.groups() } else { limit };
    let result = schedule::run_together(&mut worker, limit as usize);
    (worker, result.err())
}

/// Runs groups on several cores. Their counters and findings are merged by sums and minima, so the order does not show.
fn run_on<'a>(cores: usize, launch: &'a Launch<'a>) -> (Worker<'a>, Option<Error>) {
    let next = AtomicU32::new(0);
    let failed = AtomicU32::new(u32::MAX);
    let failure: Mutex<Option<(u32, Error)>> = Mutex::new(None);
    let run = || {
        let mut worker = Worker::new(launch);
        loop {
            let index = next.fetch_add(1, Relaxed);
            // Groups before one that failed still run, so that the first failure is always the one that is told.
            if index >= launch.groups() || index > failed.load(Relaxed) {
                break;
            }
            let group = state::Group::new(launch, index);
            if let Err(error) = schedule::run_alone(&mut worker, group) {
                failed.fetch_min(index, Relaxed);
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                if failure.as_ref().is_none_or(|(other, _)| index < *other) {
                    *failure = Some((index, error));
                }
                break;
            }
        }
        worker
    };
    let mut total = std::thread::scope(|scope| {
        let others: Vec<_> = (1..cores).map(|_| scope.spawn(run)).collect();
        let mut total = run();
        for other in others {
            match other.join() {
                Ok(worker) => total.merge(worker),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        total
    });
    total.executed = 0;
    let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    (total, failure.map(|(_, error)| error))
}
