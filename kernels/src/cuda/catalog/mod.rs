//! Every CUDA kernel, in one list: what it is made from, which instances there are, how it is launched for a shape, and what it
//! then does.
//!
//! The entries lie with the operations, beside the launchers, and call what the launchers call. [`families`] puts them side by side
//! for the tests of machine code, for those that count, and for `stepscope kernel`.
//!
//! ```
//! use stepscope_kernels::cuda::catalog::{self, Shape, Target};
//!
//! let gemm = catalog::family("gemm_mma").unwrap();
//! let shape = Shape::parse(gemm, "M=4096,N=4096,K=4096").unwrap();
//! let plan = gemm.plan(&shape, Target::of_capability([9, 0])).unwrap();
//! assert_eq!(plan.expression, "gemm_mma<bf16, 128, 256, 32, 2, 4, 3, true>");
//! assert_eq!(plan.launch.grid, [512, 1, 1]);
//! assert_eq!(plan.cost.flops, 2 * 4096 * 4096 * 4096);
//! ```

mod sectors;
mod shape;
#[cfg(test)]
mod tests;

use stepscope_device::driver::{Launch, Parameter};
use stepscope_device::nvrtc::{Options, Program};

pub(crate) use sectors::{beyond_fewest, beyond_fewest_of, distinct_sectors, whole_sectors};
pub use shape::{Dimension, Shape, dimension, option};

use super::{Cuda, PRELUDE, Source};
use crate::{
    Cost, DType, Error, advance, attention_decode, attention_prefill, dummy_weights, embedding,
    gemm, rms_norm, rope_kv, sample, silu_mul, sm_clock,
};

/// A kernel as its source has it: a template, or a plain function.
#[derive(Debug)]
pub struct Family {
    /// Its name in the source.
    pub name: &'static str,
    /// The operation that launches it, a module of this crate.
    pub operation: &'static str,
    /// What it does, in half a line.
    pub summary: &'static str,
    /// Where it is written.
    pub source: &'static Source,
    /// Its arguments, in their order.
    pub arguments: &'static [Parameter],
    /// What a shape consists of.
    pub dimensions: &'static [Dimension],
    /// Machine instructions without which it is not what it should be.
    pub instructions: &'static [&'static str],
    /// What its page promises of memory.
    pub promises: Promises,
    pub(crate) instances: fn(element: &str) -> Vec<String>,
    pub(crate) plan: fn(&Shape, Target) -> Result<Plan, Error>,
    pub(crate) run: fn(&Cuda, &Shape) -> Result<(), Error>,
}

/// What a kernel's page says of its way with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promises {
    /// Each access to global memory takes as few sectors as its bytes need, 4 for 4 bytes of each lane, 16 for 16, where rows
    /// are whole sectors. Of a kernel that cannot promise it, the page says which accesses take more, and
    /// [`Counted::scattered_sectors`] how many.
    pub coalesced: bool,
    /// No bank of shared memory is asked for two words at once.
    pub conflict_free: bool,
}

impl Promises {
    /// Both.
    pub(crate) const ALL: Promises = Promises {
        coalesced: true,
        conflict_free: true,
    };
}

/// The GPU that a launch is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Major and minor.
    pub capability: [u32; 2],
    /// Multiprocessors, which choosers of tiles fill.
    pub multiprocessors: usize,
}

impl Target {
    /// The GPU that is best known for a compute capability: A100, RTX 3090, RTX 4090, H100, B200, RTX 5090.
    pub fn of_capability(capability: [u32; 2]) -> Target {
        let multiprocessors = match capability {
            [8, 0] => 108,
            [8, 6] => 82,
            [8, _] => 128,
            [9, _] => 132,
            [10, _] => 148,
            _ => 170,
        };
        Target {
            capability,
            multiprocessors,
        }
    }
}

/// One launch: which instance, how, and what it does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The instance, as C++ writes it.
    pub expression: String,
    /// Blocks, threads and dynamic shared memory.
    pub launch: Launch,
    /// The work that it cannot do without.
    pub cost: Cost,
    /// The work that the emulated device counts.
    pub counted: Counted,
}

/// What is counted of a launch, exactly. It differs from the cost where tiles are not whole, and by indices and tables that the
/// cost leaves to the caches. Of FLOPs,
/// `cost.flops = tensor_flops - padding + float_flops - overhead + comparisons`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// FLOPs of the tensor cores, in whole tiles.
    pub tensor_flops: u64,
    /// Of those, FLOPs of rows, columns and positions that are there to fill tiles.
    pub padding: u64,
    /// FLOPs of other instructions, all of them in float32.
    pub float_flops: u64,
    /// Of those, FLOPs that the cost does not have: sums over lanes and warps, what each lane repeats, softmax.
    pub overhead: u64,
    /// Operations of the cost that are none of the counters' FLOPs: comparisons.
    pub comparisons: u64,
    /// Bytes read and written, each sector of 32 bytes once.
    pub bytes: u64,
    /// Of those, bytes of indices and tables that the cost leaves to the caches.
    pub left_out: u64,
    /// Sectors that accesses of warps to global memory take, all together, beyond the fewest for their bytes; `None` where rows
    /// end within sectors, so that the next ones begin there.
    pub scattered_sectors: Option<u64>,
    /// Why they are more than the cost, where they are.
    pub because: &'static str,
}

impl Counted {
    /// FLOPs of the cost that tensor cores do.
    pub fn useful_tensor_flops(&self) -> u64 {
        self.tensor_flops - self.padding
    }

    /// What the cost's FLOPs must be.
    pub fn cost_flops(&self) -> u64 {
        self.useful_tensor_flops() + (self.float_flops - self.overhead) + self.comparisons
    }
}

/// Every kernel, by operation.
pub fn families() -> impl Iterator<Item = &'static Family> {
    [
        embedding::launch::catalog::FAMILIES,
        rms_norm::launch::catalog::FAMILIES,
        gemm::launch::catalog::FAMILIES,
        rope_kv::launch::catalog::FAMILIES,
        attention_prefill::launch::catalog::FAMILIES,
        attention_decode::launch::catalog::FAMILIES,
        silu_mul::launch::catalog::FAMILIES,
        sample::launch::catalog::FAMILIES,
        advance::launch::catalog::FAMILIES,
        dummy_weights::launch::catalog::FAMILIES,
        sm_clock::launch::catalog::FAMILIES,
    ]
    .into_iter()
    .flatten()
}

/// The kernel with this name.
pub fn family(name: &str) -> Option<&'static Family> {
    families().find(|family| family.name == name)
}

/// The family that has this instance for a storage type.
pub fn family_of(expression: &str, dtype: DType) -> Option<&'static Family> {
    families().find(|family| family.instances(dtype).iter().any(|i| i == expression))
}

/// How a storage type is called in the sources.
pub fn element(dtype: DType) -> &'static str {
    if dtype == DType::F16 { "f16" } else { "bf16" }
}

impl Family {
    /// All instances for a storage type. Those of a kernel that has no storage type are the same for each.
    pub fn instances(&self, dtype: DType) -> Vec<String> {
        (self.instances)(element(dtype))
    }

    /// A program of all instances for a storage type, as kernels are compiled for machines that have no compiler.
    pub fn all(&self, dtype: DType) -> Program {
        self.program(self.instances(dtype))
    }

    /// How it is launched for a shape, and what it then does.
    ///
    /// # Errors
    /// It is not made for this shape, or the shape takes another instance than the one that was asked for.
    pub fn plan(&self, shape: &Shape, target: Target) -> Result<Plan, Error> {
        let plan = (self.plan)(shape, target)?;
        match shape.instance() {
            Some(asked) if asked != plan.expression => Err(Error::shape(format!(
                "{}: {shape} takes the instance {}, not {asked}",
                self.name, plan.expression
            ))),
            _ => Ok(plan),
        }
    }

    /// Launches it for a shape, on numbers of its own; and what must run before it.
    ///
    /// # Errors
    /// As [`Family::plan`], or the device failed.
    pub fn run(&self, cuda: &Cuda, shape: &Shape) -> Result<(), Error> {
        self.plan(shape, cuda.target())?;
        (self.run)(cuda, shape)?;
        cuda.stream().synchronize()?;
        Ok(())
    }

    /// What NVRTC makes its instances from.
    pub fn program(&self, expressions: impl IntoIterator<Item = String>) -> Program {
        expressions
            .into_iter()
            .fold(program(self.source), Program::kernel)
    }
}

/// What kernels include as `prelude.cuh`: types, conversions, vectors, reductions, and PTX instructions under their names.
pub const PRELUDE_TEXT: &str = PRELUDE;

/// What kernels include as `timeline.cuh`: events that they write while they run, where the macro `STEPSCOPE_TIMELINE` is defined.
pub const TIMELINE_TEXT: &str = include_str!("../timeline.cuh");

/// A source and what it includes, with the options that every kernel is compiled with.
pub(super) fn program(source: &Source) -> Program {
    Program::new(source.name, source.text)
        .header("prelude.cuh", PRELUDE)
        .header("timeline.cuh", TIMELINE_TEXT)
        .options(Options {
            line_info: true,
            ..Options::default()
        })
}
