//! The Tensor Memory Accelerator's tiles, and how tensor cores find operands in shared memory.
//!
//! Pure functions from descriptions to addresses; nothing here reads or writes memory:
//!
//! - [`TensorMap`](map::TensorMap): what `cuTensorMapEncodeTiled` makes and `cp.async.bulk.tensor` takes: a tensor in global memory
//!   and the tile of one copy.
//! - [`runs`](tile::runs): the rows of one such copy, each with its global address, its place in the tile, and what of it lies
//!   outside the tensor.
//! - [`Swizzle`](swizzle::Swizzle): the permutation of shared memory that both sides must agree on.
//! - [`MatrixDescriptor`](matrix::MatrixDescriptor) and [`Operand`](matrix::Operand): where `wgmma` reads its operands.
//!
//! **Invariant:** the swizzle is a function of the shared-memory address, never of the position in a tile, so a tile that the copy
//! wrote and a descriptor that points into its middle agree without knowing of each other.
//!
//! Sources: PTX ISA 9.x, sections 5.5 "Tensors" and 9.7.15.5.1 "Register Fragments and Shared Memory Matrix Layouts"; CUDA driver API,
//! `cuTensorMapEncodeTiled`; CUDA programming guide, "The Swizzle Modes"; CUTLASS `mma_traits_sm90_gmma.hpp`.

pub(crate) mod element;
pub(crate) mod map;
pub(crate) mod matrix;
pub(crate) mod swizzle;
pub(crate) mod tile;
mod words;

#[cfg(test)]
mod tests;
