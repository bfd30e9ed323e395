//! Records for tests: one as a run would leave it, and random ones.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod arbitrary;
pub mod gpu;
pub mod model;
pub mod rates;
pub mod sample;
pub mod steps;
