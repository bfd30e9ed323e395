//! Result files of other frameworks' benchmarks, in one set of dimensions.

mod row;

pub use row::{Basis, Framework, Latency, Length, Load, Percentiles, Rates, ResultRow};
