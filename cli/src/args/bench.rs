use clap::Args;

/// Run the groups of benchmarks behind `cargo bench`
///
/// The groups: launch, memory, gemm, gemv, attention, norm, rope_kv, sampling, token_pool, kv_alloc, prefill, decode, host.
/// A word is a regular expression that names of benchmarks must match; flags are those of criterion: --quick, --list, --test,
/// --save-baseline NAME, --baseline NAME, --profile-time SECONDS, --sample-size N, --measurement-time SECONDS, … (all of them:
/// stepscope bench -- --help). Without a GPU the CPU device's run, and the rest says why it is skipped.
///
/// Results lie in runs/bench, or where CRITERION_HOME says: criterion's, and microbench.json per group with every sample.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Bench {
    /// Which benchmarks, and criterion's flags
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "FILTER AND FLAGS"
    )]
    pub(crate) words: Vec<String>,
}
