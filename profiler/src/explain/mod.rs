//! Why a step takes as long as it does.

mod step_work;

pub use step_work::{Communication, OperationWork, StepModel, StepShape, StepWork};
