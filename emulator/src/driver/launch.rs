//! Launches: what a device refuses, and what becomes of a kernel that fails.

use std::sync::Arc;

use super::abi::functions;
use super::argument::In;
use super::context::Context;
use super::function::{Function, function};
use super::registry::Handle;
use super::report;
use super::status::Status;
use super::stream::{Stream, stream};
use super::types::{KernelNodeParams, LaunchAttribute, LaunchConfig};
use super::work::Work;
use crate::count::occupancy::occupancy;
use crate::{Error, ErrorKind, Launch, Parameter};

/// A kernel with its arguments and its shape.
#[derive(Clone)]
pub(super) struct KernelLaunch {
    function: Arc<Function>,
    shape: Shape,
    arguments: Arc<Arguments>,
}

/// How many blocks of what kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) cluster: Option<[u32; 3]>,
    pub(super) is_cooperative: bool,
}

/// The bytes of all parameters, and where each of them is, as `kernelParams` has it.
struct Arguments {
    bytes: Box<[u8]>,
    places: Box<[usize]>,
}

/// Ends and names of what `extra` holds.
const EXTRA_END: usize = 0;
const EXTRA_BUFFER: usize = 1;
const EXTRA_BYTES: usize = 2;

impl Arguments {
    fn new(bytes: Vec<u8>, parameters: &[Parameter]) -> Arguments {
        let bytes = bytes.into_boxed_slice();
        let start = bytes.as_ptr().expose_provenance();
        let places = parameters
            .iter()
            .map(|parameter| start + parameter.offset as usize);
        Arguments {
            places: places.collect(),
            bytes,
        }
    }

    /// Copies what `kernelParams` points to, or the buffer in `extra`.
    fn of_call(
        function: &Function,
        pointers: In<In<u8>>,
        extra: In<usize>,
    ) -> Result<Arguments, Status> {
        let parameters = function.kernel.parameters();
        let mut bytes = vec![0; function.kernel.parameter_bytes() as usize];
        if !extra.is_null() {
            if !pointers.is_null() {
                return Err(Status::INVALID_VALUE);
            }
            let (mut buffer, mut given) = (0, 0);
            let mut index = 0;
            loop {
                match extra.at(index)? {
                    EXTRA_END => break,
                    EXTRA_BUFFER => buffer = extra.at(index + 1)?,
                    EXTRA_BYTES => given = In::<usize>::of(extra.at(index + 1)?).get()?,
                    _ => return Err(Status::INVALID_VALUE),
                }
                index += 2;
            }
            if given < bytes.len() {
                return Err(Status::INVALID_VALUE);
            }
            bytes = In::<u8>::of(buffer).list(bytes.len())?;
        } else if !parameters.is_empty() {
            for (pointer, parameter) in pointers.list(parameters.len())?.into_iter().zip(parameters)
            {
                let argument = pointer.list(parameter.bytes as usize)?;
                bytes[parameter.offset as usize..][..argument.len()].copy_from_slice(&argument);
            }
        }
        Ok(Arguments::new(bytes, parameters))
    }
}

impl KernelLaunch {
    /// A launch that the device accepts.
    fn new(function: Arc<Function>, shape: Shape, arguments: Arguments) -> Result<Self, Status> {
        check(&function, &shape)?;
        let cluster = shape.cluster.or_else(|| function.kernel.required_cluster());
        Ok(KernelLaunch {
            function,
            shape: Shape { cluster, ..shape },
            arguments: Arc::new(arguments),
        })
    }

    pub(super) fn of_node(params: &KernelNodeParams) -> Result<Self, Status> {
        let function = if params.function == Handle::NULL {
            function(params.kernel.cast())?
        } else {
            function(params.function)?
        };
        let arguments = Arguments::of_call(&function, params.parameters, params.extra)?;
        let shape = Shape {
            grid: params.grid,
            block: params.block,
            shared_bytes: params.shared_bytes,
            cluster: None,
            is_cooperative: false,
        };
        Self::new(function, shape, arguments)
    }

    /// As the parameters of a node that is another launch: what the node has beside its parameters stays.
    pub(super) fn in_place_of(self, other: &Self) -> Result<Self, Status> {
        let KernelLaunch {
            function,
            shape,
            arguments,
        } = self;
        let shape = Shape {
            is_cooperative: other.shape.is_cooperative,
            ..shape
        };
        check(&function, &shape)?;
        Ok(KernelLaunch {
            function,
            shape,
            arguments,
        })
    }

    /// Its pointers are to the bytes that the launch keeps, and go with it.
    pub(super) fn as_node(&self) -> KernelNodeParams {
        KernelNodeParams {
            function: self.function.handle,
            grid: self.shape.grid,
            block: self.shape.block,
            shared_bytes: self.shape.shared_bytes,
            parameters: In::of(self.arguments.places.as_ptr().expose_provenance()),
            extra: In::of(0),
            kernel: Handle::NULL,
            context: self.context().handle,
        }
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.function.module.context
    }

    /// Runs it to its end. What goes wrong in the kernel comes to light at the next call that waits.
    pub(super) fn run(&self) -> Result<(), Status> {
        let context = self.context();
        let configuration = &super::gpu::machine()?.configuration;
        let launch = Launch {
            grid: self.shape.grid,
            block: self.shape.block,
            cluster: self.shape.cluster,
            dynamic_shared_bytes: self.shape.shared_bytes,
            cooperative: self.shape.is_cooperative,
            checks: configuration.checks,
            limits: configuration.limits,
        };
        let kernel = &self.function.kernel;
        let done = context
            .gpu
            .device
            .launch(kernel, &launch, &self.arguments.bytes);
        let report = done.map_err(|error| {
            report::complain(&format!("launching {}: {error}", kernel.name()));
            match error.kind() {
                ErrorKind::OutOfMemory => Status::OUT_OF_MEMORY,
                ErrorKind::CooperativeLaunchTooLarge => Status::COOPERATIVE_LAUNCH_TOO_LARGE,
                ErrorKind::Unsupported => Status::NOT_SUPPORTED,
                _ => Status::INVALID_VALUE,
            }
        })?;
        if let Some(failure) = &report.failure {
            report::complain(&format!("{} failed: {failure}", kernel.name()));
            context.fail(status_of(failure));
        }
        report::note(&context.gpu, configuration, &launch, report);
        Ok(())
    }
}

/// The answer that hardware gives where a kernel fails like this.
fn status_of(failure: &Error) -> Status {
    match failure.kind() {
        ErrorKind::IllegalAddress => Status::ILLEGAL_ADDRESS,
        ErrorKind::Misaligned => Status::MISALIGNED_ADDRESS,
        ErrorKind::Assertion => Status::ASSERT,
        ErrorKind::Deadlock | ErrorKind::Limit => Status::LAUNCH_TIMEOUT,
        // `trap` is an "unspecified launch failure" on hardware.
        _ => Status::LAUNCH_FAILED,
    }
}

/// Why the driver would refuse a launch.
fn check(function: &Function, shape: &Shape) -> Result<(), Status> {
    let gpu = &function.module.context.gpu;
    let capability = gpu.device.options().compute_capability;
    let kernel = &function.kernel;
    let volume = |shape: [u32; 3]| shape.into_iter().map(u64::from).product::<u64>();
    let ([gx, gy, gz], [bx, by, bz]) = (shape.grid, shape.block);
    let threads = volume(shape.block);
    if shape.grid.contains(&0)
        || shape.block.contains(&0)
        || gx > i32::MAX as u32
        || gy > 65_535
        || gz > 65_535
        || bx > 1024
        || by > 1024
        || bz > 64
        || threads > 1024
        || shape.shared_bytes > function.max_dynamic_shared()
    {
        return Err(Status::INVALID_VALUE);
    }
    if threads > u64::from(function.max_threads()) {
        return Err(Status::LAUNCH_OUT_OF_RESOURCES);
    }
    if kernel
        .code
        .required_threads
        .is_some_and(|required| required != shape.block)
    {
        return Err(Status::INVALID_VALUE);
    }
    let shared = kernel.static_shared_bytes() + shape.shared_bytes;
    let held = occupancy(capability, threads as u32, function.registers(), shared);
    let held = held.map_or(0, |held| u64::from(held.blocks));
    if held == 0 {
        return Err(Status::LAUNCH_OUT_OF_RESOURCES);
    }
    check_cluster(function, shape, capability)?;
    if shape.is_cooperative && volume(shape.grid) > held * u64::from(gpu.multiprocessors()) {
        return Err(Status::COOPERATIVE_LAUNCH_TOO_LARGE);
    }
    Ok(())
}

fn check_cluster(function: &Function, shape: &Shape, capability: (u32, u32)) -> Result<(), Status> {
    let required = function.kernel.required_cluster();
    let Some(cluster) = shape.cluster.or(required) else {
        return Ok(());
    };
    if cluster == [1, 1, 1] && required.is_none() {
        return Ok(());
    }
    if capability.0 < 9 {
        return Err(Status::NOT_SUPPORTED);
    }
    let blocks: u64 = cluster.into_iter().map(u64::from).product();
    let largest = if function.has_large_clusters() { 16 } else { 8 };
    let divides = shape
        .grid
        .iter()
        .zip(cluster)
        .all(|(grid, size)| size > 0 && grid % size == 0);
    if !divides || blocks > largest || required.is_some_and(|required| required != cluster) {
        return Err(Status::INVALID_CLUSTER_SIZE);
    }
    Ok(())
}

/// The shape of a `CUlaunchConfig`. Attributes that say how soon, how important or how cached a launch is change nothing here.
pub(super) fn shape_of(config: &LaunchConfig) -> Result<Shape, Status> {
    let mut shape = Shape {
        grid: config.grid,
        block: config.block,
        shared_bytes: config.shared_bytes,
        cluster: None,
        is_cooperative: false,
    };
    for attribute in config.attributes.list(config.attribute_count as usize)? {
        match attribute.id {
            LaunchAttribute::COOPERATIVE => shape.is_cooperative = attribute.word(0) != 0,
            LaunchAttribute::CLUSTER_DIMENSION => {
                shape.cluster = Some([attribute.word(0), attribute.word(1), attribute.word(2)]);
            }
            _ => {}
        }
    }
    Ok(shape)
}

fn launch(
    handle: Handle<Function>,
    shape: Shape,
    to: Handle<Stream>,
    pointers: In<In<u8>>,
    extra: In<usize>,
) -> Result<(), Status> {
    let to = stream(to)?;
    let function = function(handle)?;
    if function.module.context.handle != to.context.handle {
        return Err(Status::INVALID_HANDLE);
    }
    let arguments = Arguments::of_call(&function, pointers, extra)?;
    to.submit(Work::Kernel(KernelLaunch::new(function, shape, arguments)?))
}

functions! {
    fn cuLaunchKernel(
        function: Handle<Function>, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: Handle<Stream>, parameters: In<In<u8>>, extra: In<usize>,
    ) {
        let shape = Shape {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared_bytes,
            cluster: None,
            is_cooperative: false,
        };
        launch(function, shape, stream, parameters, extra)
    }

    fn cuLaunchCooperativeKernel(
        function: Handle<Function>, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: Handle<Stream>, parameters: In<In<u8>>,
    ) {
        let shape = Shape {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared_bytes,
            cluster: None,
            is_cooperative: true,
        };
        launch(function, shape, stream, parameters, In::of(0))
    }

    fn cuLaunchKernelEx(
        config: In<LaunchConfig>, function: Handle<Function>, parameters: In<In<u8>>, extra: In<usize>,
    ) {
        let config = config.get()?;
        launch(function, shape_of(&config)?, config.stream, parameters, extra)
    }
}
