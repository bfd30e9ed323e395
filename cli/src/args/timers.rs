//! How times are taken, and what is counted.

use clap::{Args, ValueEnum};

/// What measures, besides the host's clock.
#[derive(Debug, Clone, Args)]
pub(crate) struct Timers {
    /// What takes the times on a GPU: auto, wall, events, cupti or graph
    ///
    /// cupti records every kernel, those inside CUDA graphs included, and costs the most; events lie behind each operation, and graphs
    /// have one time as a whole; graph is events, and after the steps each operation of the decode step again in a graph of its own;
    /// wall times steps and phases from the host alone. auto is cupti where it works, else events, and says why.
    #[arg(long, value_name = "TIMER", value_enum, default_value_t = TimerChoice::Auto, hide_possible_values = true)]
    pub(crate) timer: TimerChoice,

    /// First measure what recording costs a decode step of the first point
    #[arg(long)]
    pub(crate) overhead: bool,

    /// Count what the GPU's hardware does in each kernel: bytes of DRAM, sectors of L2, tensor instructions, or the metrics given
    ///
    /// It takes a prefill and a decode step more per point, which are not timed. Metrics are named as in Nsight Compute, and differ
    /// from chip to chip. Most machines let administrators count alone.
    #[arg(long, value_name = "METRIC,…", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    pub(crate) counters: Option<Vec<String>>,
}

/// What takes the times on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TimerChoice {
    Auto,
    Wall,
    Events,
    Cupti,
    Graph,
}
