//! Runs kernels of the test modules on arrays.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used
)] // a test; each file uses a part

pub mod exact;
pub mod floats;
pub mod matrix;
pub mod opcode;

use bytemuck::Pod;
use std::sync::Arc;
use stepscope_emulator::check::Checks;
use stepscope_emulator::{
    Device, DeviceOptions, Launch, Module, Report, TensorMapOptions, encode_tensor_map,
};

/// A device with a module loaded.
pub struct Bench {
    pub device: Device,
    pub module: Arc<Module>,
    pub checks: Checks,
    pub cooperative: bool,
    pub shared: u32,
    pub cores: usize,
    pub cluster: Option<[u32; 3]>,
}

impl Bench {
    pub fn new(ptx: &str) -> Self {
        Self::on((9, 0), ptx)
    }

    pub fn on(compute_capability: (u32, u32), ptx: &str) -> Self {
        let options = DeviceOptions {
            compute_capability,
            ..DeviceOptions::default()
        };
        let device = Device::new(options);
        let module = device
            .load_module(ptx)
            .unwrap_or_else(|error| panic!("{error}"));
        Self {
            device,
            module,
            checks: Checks::ALL,
            cooperative: false,
            shared: 0,
            cores: 0,
            cluster: None,
        }
    }

    /// A buffer that holds these values.
    pub fn buffer<T: Pod>(&self, values: &[T]) -> u64 {
        let address = self.device.allocate(size_of_val(values) as u64).unwrap();
        self.device
            .write(address, bytemuck::cast_slice(values))
            .unwrap();
        address
    }

    /// A buffer that nothing was written to.
    pub fn empty<T>(&self, count: usize) -> u64 {
        self.device
            .allocate((count * size_of::<T>()) as u64)
            .unwrap()
    }

    pub fn read<T: Pod>(&self, address: u64, count: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); count];
        self.device
            .read(address, bytemuck::cast_slice_mut(&mut values))
            .unwrap();
        values
    }

    /// Launches, whatever comes of it.
    pub fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        arguments: &[Arg],
    ) -> Report {
        let kernel = self.module.kernel(kernel).unwrap();
        let mut bytes = vec![0; kernel.parameter_bytes() as usize];
        assert_eq!(
            kernel.parameters().len(),
            arguments.len(),
            "arguments of {}",
            kernel.name()
        );
        for (parameter, argument) in kernel.parameters().iter().zip(arguments) {
            let value = match argument {
                Arg::U32(value) => value.to_le_bytes().to_vec(),
                Arg::U64(value) => value.to_le_bytes().to_vec(),
                Arg::F32(value) => value.to_le_bytes().to_vec(),
                Arg::Bytes(bytes) => bytes.clone(),
            };
            assert_eq!(
                value.len(),
                parameter.bytes as usize,
                "an argument of {}",
                kernel.name()
            );
            bytes[parameter.offset as usize..][..value.len()].copy_from_slice(&value);
        }
        let mut launch = Launch::new(grid, block);
        launch.checks = self.checks;
        launch.cooperative = self.cooperative;
        launch.dynamic_shared_bytes = self.shared;
        launch.limits.cores = self.cores;
        launch.limits.warp_instructions = 1 << 32;
        launch.cluster = self.cluster;
        self.device
            .launch(&kernel, &launch, &bytes)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Launches; nothing may be wrong.
    pub fn run(&self, kernel: &str, grid: [u32; 3], block: [u32; 3], arguments: &[Arg]) -> Report {
        let report = self.launch(kernel, grid, block, arguments);
        if let Some(failure) = &report.failure {
            panic!("{failure}");
        }
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{kernel}: {}", findings.join("\n"));
        report
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone)]
pub enum Arg {
    U32(u32),
    U64(u64),
    F32(f32),
    Bytes(Vec<u8>),
}

/// The tensor map of a matrix of `rows` x `columns` elements.
pub fn matrix_map(
    address: u64,
    data_type: u32,
    size: u64,
    [rows, columns]: [u64; 2],
    tile: [u32; 2],
    swizzle: u32,
) -> Arg {
    let options = TensorMapOptions {
        data_type,
        address,
        extents: &[columns, rows],
        strides: &[columns * size],
        tile: &[tile[1], tile[0]],
        element_strides: &[1, 1],
        interleave: 0,
        swizzle,
        promotion: 0,
        fill: 0,
    };
    Arg::Bytes(bytemuck::cast_slice(&encode_tensor_map(&options).unwrap()).to_vec())
}

/// Numbers that look random and are the same each time.
pub fn random(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u32
    }
}
