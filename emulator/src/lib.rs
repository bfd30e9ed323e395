//! An emulated CUDA device: runs PTX on the CPU, counts what each kernel does, finds its races.
//!
//! The types to know: [`Device`] holds memory, loads modules and launches kernels; a [`Launch`] says how, and which
//! [`Checks`](check::Checks) are made; the [`Report`] of a launch has its [`Counters`](count::Counters), by source line too,
//! and its [`Finding`](check::Finding)s.
//!
//! ```
//! use stepscope_emulator::{Device, DeviceOptions, Launch};
//!
//! let ptx = r#"
//!     .version 8.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry twice(.param .u64 twice_0) {
//!         .reg .b32 %r<4>;
//!         .reg .b64 %rd<4>;
//!         ld.param.u64 %rd1, [twice_0];
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd2, %r1, 4;
//!         add.s64 %rd3, %rd1, %rd2;
//!         ld.global.u32 %r2, [%rd3];
//!         shl.b32 %r3, %r2, 1;
//!         st.global.u32 [%rd3], %r3;
//!         ret;
//!     }"#;
//! let device = Device::new(DeviceOptions::default());
//! let kernel = device.load_module(ptx)?.kernel("twice")?;
//! let data = device.allocate(128)?;
//! device.write(data, &[1; 128])?;
//! let report = device.launch(&kernel, &Launch::new([1, 1, 1], [32, 1, 1]), &data.to_le_bytes())?;
//! assert!(report.failure.is_none() && report.findings.is_empty());
//! // 32 lanes of 4 bytes, side by side: 4 sectors.
//! assert_eq!(report.counters.global_load_sectors, 4);
//! let mut bytes = [0; 4];
//! device.read(data, &mut bytes)?;
//! assert_eq!(bytes, [2; 4]);
//! # Ok::<(), stepscope_emulator::Error>(())
//! ```
//!
//! **Invariant:** nothing here is a time; clock registers count instructions.
//!
//! **Invariant:** an instruction that is not known is an error at load, never a guess.
//!
//! **Invariant:** no result, counter or finding depends on how many cores of the host ran a launch.
//!
//! **Invariant:** it knows no other crate of the project.
#![allow(dead_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "a lane is an index into several rows"
)]
#![allow(
    clippy::too_many_arguments,
    reason = "launch, group, warp, registers, lanes and place belong to every instruction"
)]

mod arith;
pub mod check;
pub mod conformance;
pub mod count;
mod device;
pub mod driver;
mod error;
mod exec;
mod memory;
mod program;
mod ptx;
mod tensor;
mod tma;

pub use device::{
    Device, DeviceOptions, Kernel, Launch, Limits, Module, Report, TensorMapOptions,
    encode_tensor_map,
};
pub use error::{Error, ErrorKind};
pub use program::Parameter;
