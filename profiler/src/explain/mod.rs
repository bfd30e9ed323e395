//! Why a step takes as long as it does.
//!
//! Costs come in as numbers ([`StepModel`], or the spans of a record), ceilings from a measurement or a data sheet ([`Ceilings`]),
//! and times from a record or from another program's result ([`Observations`]). What goes out are sentences ([`Statement`]) with
//! the figures they rest on.
//!
//! **Invariant:** every figure of a sentence is one of its [`Figure`]s, with the arithmetic it came from.

mod candidates;
mod ceilings;
mod fit;
mod floor;
mod limiters;
mod observation;
pub mod page;
mod precision;
pub mod record;
pub mod results;
mod statement;
mod step_work;

pub use candidates::Candidate;
pub use ceilings::{Ceilings, Range, practice};
pub use fit::{Fit, Per, Term, fit};
pub use floor::{StepFloor, operation_floor, step_floor};
pub use limiters::{Growth, Limiter, Suspect};
pub use observation::{Observation, Observations};
pub use precision::{Arithmetic, Precision};
pub use statement::{Figure, Statement};
pub use step_work::{Communication, OperationWork, StepModel, StepShape, StepWork};

use crate::report::fold_line;
