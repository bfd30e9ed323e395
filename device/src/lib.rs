//! NVIDIA's libraries: found, opened, checked and wrapped.
//!
//! This is the only crate that talks to them, and where nearly all of the project's `unsafe` lives. None is linked:
//! [`library`] looks for each where it may lie and opens it by its path, and what is missing is an [`Error`] that says what
//! was tried and how to get it. cudarc gives the C types, and the compiler checks every signature against its bindings; the
//! functions themselves are looked up in the library that was chosen, so that one that a library lacks is an error of the
//! call that needs it, and so that two drivers can be open side by side.
//!
//! The types to know: [`nvrtc::Compiler`] makes machine code from a [`nvrtc::Program`] and keeps it in a [`nvrtc::Cache`];
//! [`driver::Context`] is a device, ready; [`driver::Kernel`] is a kernel with the type of its arguments; [`cupti::Session`] records
//! when each kernel ran, [`nvml::Monitor`] reads the state of a GPU meanwhile; [`cublaslt::Matmul`] is NVIDIA's matrix multiplication, to compare with.
//!
//! ```no_run
//! use stepscope_device::driver::{Context, DeviceBuffer, Driver, Launch, Module, Stream};
//! use stepscope_device::nvrtc::{Compiler, Program};
//!
//! stepscope_device::arguments! {
//!     struct Double {
//!         x: stepscope_device::driver::DevicePointer,
//!     }
//! }
//!
//! fn main() -> Result<(), stepscope_device::Error> {
//!     let context = Context::new(&Driver::open()?, 0)?;
//!     let [major, minor] = context.device().compute_capability;
//!     let compiler = Compiler::open_for_driver(context.driver().version())?;
//!     let source = r#"extern "C" __global__ void twice(float *x) { x[threadIdx.x] *= 2; }"#;
//!     let compiled = compiler.compile(&Program::new("twice.cu", source), compiler.arch_for(major, minor)?)?;
//!     let kernel = Module::from_compiled(&context, &compiled)?.function("twice")?.with_arguments()?;
//!
//!     let stream = Stream::new(&context)?;
//!     let mut x = DeviceBuffer::new(&context, "x", 32)?;
//!     x.write(&stream, 0, &[1.0_f32; 32])?;
//!     // SAFETY: the kernel takes one pointer, and accesses 32 elements behind it.
//!     unsafe { kernel.launch(&stream, &Launch::of_blocks(1, 32), &Double { x: x.pointer() })? };
//!     let mut doubled = [0.0; 32];
//!     x.read(&stream, 0, &mut doubled)?;
//!     assert_eq!(doubled, [2.0; 32]);
//!     Ok(())
//! }
//! ```
//!
//! **Invariant:** it knows no model and no kernel; sources and headers come from the caller as text.
//!
//! **Invariant:** nothing is linked and nothing panics where a library, a function, a driver or a device is missing.
//!
//! **Invariant:** no stream waits for another, and no event is recorded, unless the caller says so.
//!
//! **Invariant:** a library that was opened stays loaded until the process ends.

pub mod cublaslt;
pub mod cupti;
pub mod disassembly;
pub mod doctor;
pub mod driver;
mod error;
pub mod library;
pub mod nvml;
pub mod nvrtc;

pub use error::{Error, Kind, Version};
