//! Who else computes the same, measured beside ours.
//!
//! [`cublaslt`] multiplies matrices in this process, in turn with ours. [`torch`] asks the machine's Python, in a process of its own
//! behind ours, which is said wherever its times stand. A peer that is missing costs one line that says why.

pub mod cublaslt;
pub mod python;
pub mod torch;
