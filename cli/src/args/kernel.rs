//! `stepscope kernel`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Look at the CUDA kernels of this program: resources, machine code, work, and what they do on the emulated device
///
/// Needs NVRTC, NVIDIA's run-time compiler, and no GPU. Nothing of it is a time.
#[derive(Debug, Args)]
pub(crate) struct Kernel {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    List(List),
    Show(Show),
    Count(Count),
    Prebuild(Prebuild),
}

/// Compile all kernels, for machines that have a GPU but no compiler
///
/// The program uses them where they lie in a folder `cubins` beside it, or in the one that STEPSCOPE_CUBINS names.
#[derive(Debug, Args)]
pub(crate) struct Prebuild {
    /// What to compile for
    #[arg(
        long,
        value_name = "ARCH",
        value_delimiter = ',',
        default_value = "sm_80,sm_86,sm_89,sm_90a"
    )]
    pub(crate) arch: Vec<String>,

    /// Folder to put them in
    #[arg(long, value_name = "DIR", default_value = "cubins")]
    pub(crate) out: PathBuf,
}

/// All kernels, by operation
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print everything, instances included, as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a kernel takes of a multiprocessor, what it is made of, and the work of a shape
///
/// Registers, spills, shared memory and occupancy as the compiler and NVIDIA's rules have them; the mix of machine instructions,
/// for which nvdisasm is needed; FLOPs and bytes that the shape cannot do without.
///   stepscope kernel show gemm_mma --shape M=4096,N=4096,K=4096
///   stepscope kernel show 'attention_decode<bf16, 128, 4, 2>' --arch sm_80 --sass
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) which: Which,

    /// What to compile for: sm_80, sm_90a, sm_120a, or another that NVRTC knows
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    pub(crate) arch: String,

    /// Also print the machine code
    #[arg(long)]
    pub(crate) sass: bool,

    /// Also print the PTX
    #[arg(long)]
    pub(crate) ptx: bool,

    /// Print everything as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a kernel does on the emulated device, beside what is expected of it
///
/// Launches it once, with every check on, and compares FLOPs and bytes with the cost model. Exit code 1 if one differs or something
/// is found.
///   stepscope kernel count gemm_skinny --shape M=8,N=4096,K=4096
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Count {
    #[command(flatten)]
    pub(crate) which: Which,

    /// What to compile for and emulate: sm_80, sm_86, sm_89 or sm_90a
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    pub(crate) arch: String,

    /// Print everything as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// A kernel and a shape.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// A kernel of `stepscope kernel list`, or one instance of it, as 'gemv<bf16, 2, true>'
    pub(crate) name: String,

    /// Numbers that differ from the kernel's example, as M=16,N=1024,dtype=f16; `kernel show` names them
    #[arg(
        long,
        value_name = "NAME=N,…",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) shape: String,
}
