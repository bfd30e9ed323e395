use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Device, positive};

/// Check and measure everything on a machine with a GPU
///
/// What the bundle's run.sh calls (see `cargo xtask gpu-bundle`). Each stage runs in a process of its own, so that one that
/// crashes or takes too long costs no other; results.json is written after each.
#[derive(Debug, Args)]
pub(crate) struct GpuCheck {
    /// Folder with the models that have reference logits, each in a folder of its own
    #[arg(long, value_name = "DIR")]
    pub(crate) fixtures: Option<PathBuf>,

    /// Folder for results.json and for what each stage prints
    #[arg(long, value_name = "DIR", default_value = "gpu-check")]
    pub(crate) out: PathBuf,

    /// cuda, cuda:N, or emulated, which shows on any machine that the stages work
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    pub(crate) device: Device,

    /// Minutes after which no stage is started any more
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub(crate) minutes: usize,

    /// Small shapes and one small model, for an emulated device
    #[arg(long)]
    pub(crate) small: bool,

    /// Folder with sglang's wheels and sgl_kernel.tar.xz, to run its bench_one_batch on the same sizes
    #[arg(long, value_name = "DIR")]
    pub(crate) sglang: Option<PathBuf>,

    /// One stage, in this process, with its result as JSON on standard output
    #[arg(long, value_enum, value_name = "STAGE")]
    pub(crate) only: Option<Stage>,

    /// With --only, how long the stage may take; shapes and sglang end by themselves then
    #[arg(long, value_name = "N", value_parser = positive, requires = "only")]
    pub(crate) seconds: Option<usize>,
}

/// A stage that is no command of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// Every kernel over its shapes against the CPU device
    Kernels,
    /// The models with reference logits
    Fixtures,
    /// Every GEMM and attention shape of the models, beside cuBLASLt and torch
    Shapes,
    /// Unpacks sglang, and writes the models' configs for it
    Sglang,
}
