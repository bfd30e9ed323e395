//! Flame graphs of prefill and decode steps, from records.
//!
//! A record's steps become folded stacks ([`folded`]), and folded stacks become a picture ([`svg`]); two lists of stacks
//! become the picture of what changed between them ([`diff_svg`]). Frames are, from the root: the kind of step, its phases,
//! within `forward` the blocks of the model, the operations, and the kernels that ran them. The pictures are drawn by the
//! crate `inferno`.
//!
//! ```
//! use std::path::Path;
//! use stepscope_flamegraphs::{FoldOptions, SvgOptions, folded, subtitle_for, svg, title_for};
//! use stepscope_profiler::{Record, StepKind};
//!
//! let record = Record::read(Path::new("../profiler/tests/sample/record.json"))?; // runs/<name> for a run of yours
//! let options = FoldOptions { point: Some(0), ..FoldOptions::default() };
//! let stacks = folded(&record, StepKind::Decode, &options);
//! assert!(stacks.iter().any(|stack| stack.starts_with("decode;forward;attention;qkv_proj;gemv_avx2 ")));
//!
//! let picture = svg(&stacks, &SvgOptions {
//!     title: title_for(&record, StepKind::Decode, Some(0)),
//!     subtitle: Some(subtitle_for(&record, StepKind::Decode, Some(0))),
//!     ..SvgOptions::default()
//! })?;
//! assert!(picture.contains("lm_head"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** widths are times: the root of one point is the mean wall time of its steps to the nanosecond, and what no
//! operation covers is a frame of its own, `(between operations)`.
//!
//! **Invariant:** frames stand in the order in which the step runs them, from left to right.
//!
//! **Invariant:** the same stacks give the same bytes.
#![forbid(unsafe_code)]

mod blocks;
mod diff;
mod error;
mod fold;
mod palette;
mod stacks;
mod svg;
mod titles;

pub use diff::{DiffGraph, diff_svg};
pub use error::Error;
pub use fold::{FoldOptions, folded};
pub use svg::{SvgOptions, svg};
pub use titles::{subtitle_for, title_for};
