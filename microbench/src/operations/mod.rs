//! The operations of a step, each as something to measure: its dimensions, the arguments that a kernel for it takes, inputs, a
//! reference, its cost, and the launch of the kernel that this program has for it.
//!
//! [`Operation`] is the description; [`Case`] is one at a shape, with its inputs and its reference; [`Case::builtin`] and
//! [`Case::foreign`] are [`Subject`](crate::Subject)s.
//!
//! ```
//! use stepscope_microbench::operations;
//!
//! let gemm = operations::find("gemm").unwrap();
//! let shape = gemm.shape("M=64,N=256,K=512").unwrap();
//! assert_eq!(gemm.work(&shape).flops, 2 * 64 * 256 * 512);
//! let names: Vec<_> = gemm.arguments.iter().map(|argument| argument.name).collect();
//! assert_eq!(names, ["x", "weight", "bias", "out", "M", "N", "K"]);
//! ```
//!
//! **Invariant:** the kernel of this program and a person's get the same inputs, lying in the same way, and are held against the same
//! reference.

mod advance;
mod attention;
mod case;
mod compare;
mod dummy_weights;
mod embedding;
mod gather_rows;
mod gemm;
mod inputs;
mod probe;
mod rms_norm;
mod rope_kv;
mod sample;
mod silu_mul;
mod subject;
#[cfg(test)]
mod tests;

use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Dimension, Shape};
use stepscope_kernels::{Cost, Cpu};

pub use case::{Case, copies_for_cold_cache};
pub use compare::{Comparison, Worst};
pub use subject::{Blas, Builtin, Foreign, ForeignLaunch};

use crate::{Error, Work};
use inputs::Inputs;
use probe::{OnCuda, Problem};

/// An operation that one kernel, or a fixed row of them, computes.
#[derive(Debug)]
pub struct Operation {
    /// As the command line has it, and as the module of `kernels/` is called where there is one for it alone.
    pub name: &'static str,
    /// What it computes, in half a line.
    pub summary: &'static str,
    /// What it computes, as a formula.
    pub formula: &'static str,
    /// What a shape consists of. The defaults take an emulated device a few seconds.
    pub dimensions: &'static [Dimension],
    /// What a kernel for it takes, in order.
    pub arguments: &'static [Argument],
    /// Why a shape cannot be, beyond what its dimensions say.
    check: fn(&Shape) -> Result<(), Error>,
    cost: fn(&Shape) -> Cost,
    /// Roundings of a typical result that happen on the way, beside that of the result itself; none where results are whole
    /// numbers, which must be equal.
    roundings: Option<f64>,
    on_cuda: fn(&Cuda, &Shape, &Inputs) -> Made<dyn OnCuda>,
    on_cpu: fn(&Cpu, &Shape, &Inputs) -> Made<dyn Problem<Cpu>>,
}

/// An operation at a shape, on a device that had memory for it.
type Made<P> = Result<Box<P>, stepscope_kernels::Error>;

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// As starting files have it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Elements by axis, outermost first, in the names of dimensions; empty of a number.
    pub shape: &'static str,
    /// Whether it is read, written or both.
    pub role: Role,
    /// What it means.
    pub meaning: &'static str,
}

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pointer to 16-bit floats: `bf16` or `f16`, as the shape says.
    Storage,
    /// A pointer to 32-bit floats.
    Floats,
    /// A pointer to 32-bit integers.
    Integers,
    /// `unsigned`.
    Count,
    /// `float`.
    Float,
}

/// Which way an argument's data go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read.
    In,
    /// Written, and NaN (or -1, of integers) before.
    Out,
    /// Read and written.
    InOut,
}

impl Argument {
    const fn new(
        name: &'static str,
        kind: Kind,
        shape: &'static str,
        role: Role,
        meaning: &'static str,
    ) -> Argument {
        Argument {
            name,
            kind,
            shape,
            role,
            meaning,
        }
    }

    const fn count(name: &'static str, meaning: &'static str) -> Argument {
        Argument::new(name, Kind::Count, "", Role::In, meaning)
    }

    const fn float(name: &'static str, meaning: &'static str) -> Argument {
        Argument::new(name, Kind::Float, "", Role::In, meaning)
    }

    /// As C++ declares it, with `element` for the storage type: `const bf16 *x`.
    pub fn declaration(&self, element: &str) -> String {
        let pointee = match self.kind {
            Kind::Storage => element,
            Kind::Floats => "float",
            Kind::Integers => "int",
            Kind::Count => return format!("unsigned {}", self.name),
            Kind::Float => return format!("float {}", self.name),
        };
        match self.role {
            Role::In => format!("const {pointee} *{}", self.name),
            Role::Out | Role::InOut => format!("{pointee} *{}", self.name),
        }
    }

    /// Its bytes among the parameters.
    pub const fn bytes(&self) -> usize {
        match self.kind {
            Kind::Storage | Kind::Floats | Kind::Integers => 8,
            Kind::Count | Kind::Float => 4,
        }
    }
}

/// All of them, in the order of a step; what makes weights, which is before the first, comes last.
pub fn all() -> impl Iterator<Item = &'static Operation> {
    [
        &advance::ADVANCE,
        &embedding::EMBEDDING,
        &rms_norm::RMS_NORM,
        &rms_norm::ADD_RMS_NORM,
        &rms_norm::QK_NORM,
        &gemm::GEMM,
        &gemm::GEMV,
        &rope_kv::ROPE_KV,
        &attention::ATTENTION_PREFILL,
        &attention::ATTENTION_DECODE,
        &silu_mul::SILU_MUL,
        &gather_rows::GATHER_ROWS,
        &sample::ARGMAX,
        &sample::SAMPLE,
        &dummy_weights::DUMMY_WEIGHTS,
    ]
    .into_iter()
}

/// The one with this name.
///
/// # Errors
/// There is none; the message has all of them.
pub fn find(name: &str) -> Result<&'static Operation, Error> {
    all()
        .find(|operation| operation.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = all().map(|operation| operation.name).collect();
            Error::Unusable(format!(
                "no operation is called {name}; there are {}",
                names.join(", ")
            ))
        })
}

impl Operation {
    /// The shape that `text` says, `M=4096,N=1024`; what it does not say is as in the example.
    ///
    /// # Errors
    /// The text has another form, or no launch has this shape.
    pub fn shape(&self, text: &str) -> Result<Shape, Error> {
        let shape = Shape::parse_dimensions(self.name, self.dimensions, text)?;
        (self.check)(&shape)?;
        Ok(shape)
    }

    /// What a launch cannot do without.
    pub fn work(&self, shape: &Shape) -> Work {
        let cost = (self.cost)(shape);
        Work {
            flops: cost.flops,
            bytes: cost.bytes(),
        }
    }
}

/// No condition beyond those of the dimensions.
fn any_shape(_: &Shape) -> Result<(), Error> {
    Ok(())
}

/// The query heads are groups of as many as there are key heads.
fn heads_are_groups(shape: &Shape) -> Result<(), Error> {
    let [heads, kv_heads] = ["heads", "kv_heads"].map(|name| shape.get(name));
    if heads.is_multiple_of(kv_heads) {
        Ok(())
    } else {
        Err(Error::Unusable(format!(
            "heads={heads},kv_heads={kv_heads}: heads must be a multiple of kv_heads"
        )))
    }
}

fn layout(shape: &Shape) -> stepscope_kernels::QkvLayout {
    stepscope_kernels::QkvLayout {
        heads: shape.get("heads"),
        kv_heads: shape.get("kv_heads"),
        head_dim: shape.get("head_dim"),
    }
}

/// Two elements make a pair.
fn is_even(shape: &Shape, name: &str) -> Result<(), Error> {
    match shape.get(name) % 2 {
        0 => Ok(()),
        _ => Err(Error::Unusable(format!(
            "{name}={}: it must be an even number",
            shape.get(name)
        ))),
    }
}
