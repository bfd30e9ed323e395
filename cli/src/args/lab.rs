//! `stepscope lab`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Device;

/// Try out a kernel: is it right, what did a change do to machine code and counters, and, on a GPU, is it faster
///
/// `stepscope lab new OP` writes a first kernel for an operation. Its comments say what it gets, and how it is launched. Then:
///   stepscope lab rms_norm --kernel rms_norm.cu --watch
///   stepscope lab gemm --shape M=64,N=4096,K=4096 --kernel gemm.cu --sweep
/// Without --kernel, the kernel of this program is looked at. Without a GPU, the emulated device checks results, looks for races and
/// other mistakes, and counts; it has no time. Exit code 1: wrong results, or something was found.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Lab {
    #[command(subcommand)]
    pub(crate) new: Option<Action>,

    #[command(flatten)]
    pub(crate) check: Check,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    New(New),
}

/// Write a first kernel for an operation: simple, right, and with all there is to know of the operation above it
#[derive(Debug, Args)]
pub(crate) struct New {
    /// An operation: advance, embedding, rms_norm, add_rms_norm, qk_norm, gemm, gemv, rope_kv, attention_prefill, attention_decode,
    /// silu_mul, gather_rows, argmax, sample or dummy_weights
    pub(crate) operation: String,

    /// File to write; it must not be there yet [default: OP.cu]
    #[arg(long, value_name = "FILE.cu")]
    pub(crate) out: Option<PathBuf>,
}

/// What is tried out, and how.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// An operation: advance, embedding, rms_norm, add_rms_norm, qk_norm, gemm, gemv, rope_kv, attention_prefill, attention_decode,
    /// silu_mul, gather_rows, argmax, sample or dummy_weights
    #[arg(value_name = "OP", required = true)]
    pub(crate) operation: Option<String>,

    /// Numbers that differ from the operation's example, as M=64,N=4096,dtype=f16; `lab new` names them
    #[arg(
        long,
        value_name = "NAME=N,…",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) shape: String,

    /// The kernel: CUDA C++ with `// stepscope:` comments, as `lab new` writes it [default: the kernel of this program]
    #[arg(long, value_name = "FILE.cu")]
    pub(crate) kernel: Option<PathBuf>,

    /// What it is held against: builtin (the kernel of this program), cublaslt (gemm and gemv on a GPU), or another file
    #[arg(long, value_name = "WHAT", default_value = "builtin")]
    pub(crate) against: String,

    /// Values of the kernel's params, as TILE=32 [default: the first of each]
    #[arg(
        long,
        value_name = "NAME=N,…",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) param: String,

    /// Try all combinations of the kernel's params
    #[arg(long, requires = "kernel")]
    pub(crate) sweep: bool,

    /// File for a plot of the sweep
    #[arg(long, value_name = "FILE.svg", requires = "sweep")]
    pub(crate) plot: Option<PathBuf>,

    /// Do it again whenever the kernel's file is saved, and say what changed
    #[arg(long, requires = "kernel", conflicts_with_all = ["sweep", "timeline", "json", "save"])]
    pub(crate) watch: bool,

    /// Build the kernel with its timeline_begin and timeline_end, and write a trace of them: lanes of each multiprocessor
    ///
    /// Of the kernels of this program, gemm's with more than 32 rows has them.
    #[arg(long, value_name = "FILE.json", conflicts_with = "sweep")]
    pub(crate) timeline: Option<PathBuf>,

    /// File for the machine instructions that differ, as a unified diff
    #[arg(long, value_name = "FILE")]
    pub(crate) sass_diff: Option<PathBuf>,

    /// Where it runs: auto (a GPU, or else the emulated device), cuda, cuda:N or emulated
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    pub(crate) device: Device,

    /// What the emulated device is: sm_80, sm_86, sm_89 or sm_90a
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    pub(crate) arch: String,

    /// Seed of the inputs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Print everything as one JSON document
    #[arg(long)]
    pub(crate) json: bool,

    /// Also write the JSON document to a file
    #[arg(long, value_name = "FILE.json")]
    pub(crate) save: Option<PathBuf>,
}
