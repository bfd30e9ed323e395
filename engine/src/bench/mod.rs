//! The bench loops, and the formats of what they print.

pub mod correctness;
pub mod one_batch;
mod overhead;
mod record;
pub mod sglang;
mod torch_format;

pub use record::{Place, new_record, roofs};
