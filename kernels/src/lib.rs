//! The operations of an LLM inference step.
//!
//! One operation is one module. It holds, top down: what the operation computes (formula, shapes, what bounds it), its
//! CPU reference, its cost model and its tests. A forward pass is written once over the [`Backend`] trait, whose methods
//! are these operations; [`Cpu`] implements it with the references, on all cores, and [`cuda::Cuda`] with CUDA kernels, on a
//! GPU or the emulated device.
//!
//! The types to know: [`Backend`] (what a step is written over), [`HostTensor`] (a weight in host memory, in its own
//! data type) and [`Cost`] (the floating-point operations and bytes that an operation cannot do without).
//!
//! ```
//! use stepscope_kernels::{DType, HostTensor, rms_norm};
//!
//! let x = [3.0_f32, 4.0];
//! let mut out = [0.0; 2];
//! rms_norm::reference(&x, &[1.0, 1.0], 0.0, &mut out);
//! assert!((out[0] - 3.0 / 12.5_f32.sqrt()).abs() < 1e-6);
//! assert_eq!(rms_norm::cost(1, 2, DType::F32).activation_bytes, 2 * 2 * 4);
//! # let _ = HostTensor::from_f32(&[1], vec![0.0]);
//! ```
//!
//! **Invariant:** this crate knows no model and no timer. An operation gets shapes and tensors, never a config.
//!
//! **Invariant:** no operation allocates device memory; the caller owns every buffer.
//!
//! **Invariant:** a cost depends on shapes and data types alone, never on a measurement.

mod backend;
mod cost;
mod cpu;
pub mod cuda;
mod dtype;
mod error;
mod tensor;
#[cfg(test)]
mod testing;
mod tuning;

pub mod advance;
pub mod attention_decode;
pub mod attention_prefill;
pub mod conformance;
pub mod dummy_weights;
pub mod embedding;
pub mod gemm;
pub mod logits;
pub mod philox;
pub mod rms_norm;
pub mod rope_kv;
pub mod sample;
pub mod silu_mul;
pub mod sm_clock;

pub use backend::{AttentionBatch, Backend, Kernel, QkvLayout};
pub use cost::Cost;
pub use cpu::{Cpu, CpuBuffer, CpuKvPool, CpuMatrix, HostRoofs, MemoryLevel, Traffic};
pub use dtype::DType;
pub use error::Error;
pub use rope_kv::CpuRopeTable;
pub use tensor::{HostTensor, Values};
pub use tuning::{Tuned, Tuning, TuningSource};
