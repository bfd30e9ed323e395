//! The kernel laboratory: a kernel that somebody is working on, as something that can be compiled, checked, held against another
//! one, and measured.
//!
//! A [`KernelFile`] is CUDA C++ whose comments say how it is launched ([`directives`]); [`KernelFile::load`] makes a
//! [`Foreign`](crate::operations::Foreign) of it. [`start`] writes a first one for every operation. [`sass`] says in what two pieces of
//! machine code differ, and [`timeline`] reads the events that a kernel wrote while it ran.
//!
//! **Invariant:** nothing here times anything, and nothing here knows what an emulated device counts: that is put together by whoever
//! asks.

pub mod directives;
pub mod expression;
mod kernel_file;
pub mod sass;
pub mod start;
#[cfg(test)]
mod tests;
pub mod timeline;

pub use kernel_file::{KernelFile, Loaded, Point};
