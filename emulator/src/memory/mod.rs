//! The device's memory: allocations with addresses that are never used twice, and the windows of the generic address space.

pub(crate) mod cells;
pub(crate) mod global;
pub(crate) mod window;
