use stepscope_kernels::{Backend, HostRoofs};
use stepscope_profiler::{
    BandwidthRoof, Environment, Memory, ModelInfo, Program, Record, Roofs, Run, SCHEMA, Sampling,
    environment,
};

use crate::bench::one_batch::Options;
use crate::model::{LoadFormat, Model};
use crate::{Runner, RunnerOptions};

/// A record of a run that is about to start: everything but its points.
#[allow(clippy::too_many_arguments)] // each is one part of the record
pub fn new_record<B: Backend>(
    program: Program,
    environment: Environment,
    model: &Model,
    runner: &Runner<B>,
    runner_options: &RunnerOptions,
    options: &Options,
    threads: usize,
    load_s: f64,
) -> Record {
    let (kv_pool, kv_used_peak) = runner.kv_bytes();
    let sampling = &runner_options.sampling;
    Record {
        schema: SCHEMA.to_owned(),
        program,
        started: environment::utc_now(),
        environment,
        run: Run {
            name: options.run_name.clone(),
            model: ModelInfo {
                name: model.name.clone(),
                architecture: model.config.architecture_name.clone(),
                load_format: format_name(model.load_format).to_owned(),
                parameters: model.config.parameters(),
                config: model.config.raw.clone(),
            },
            dtype: model.dtype.name().to_owned(),
            kv_cache_dtype: runner.kv_dtype().name().to_owned(),
            tp: 1,
            device: "cpu".to_owned(),
            threads,
            page_size: runner.page_size(),
            max_total_num_tokens: runner.max_total_tokens(),
            seed: options.seed,
            compat: options.compat.name().to_owned(),
            sampling: Sampling {
                temperature: sampling.temperature,
                top_k: sampling.top_k,
                top_p: sampling.top_p,
                min_p: sampling.min_p,
                seed: sampling.seed,
            },
            cuda_graph: None,
            load_s,
        },
        memory: Memory {
            weights: model.weight_bytes,
            weights_mapped: model.mapped_bytes,
            kv_pool,
            kv_used_peak,
            token_pool: runner.token_pool_bytes(),
            activations: runner.activation_bytes(),
            peak_rss: environment::peak_rss_bytes(),
        },
        points: Vec::new(),
        skipped: Vec::new(),
        complete: false,
    }
}

/// Measured roofs, as a record holds them.
pub fn roofs(measured: &HostRoofs) -> Roofs {
    Roofs {
        flops_per_s: measured.flops_per_s,
        bandwidth: measured
            .memory
            .iter()
            .map(|level| BandwidthRoof {
                name: level.name.to_owned(),
                up_to_bytes: (level.working_set_bytes != u64::MAX).then_some(level.working_set_bytes),
                bytes_per_s: level.bytes_per_s,
            })
            .collect(),
        method: "all threads: float32 multiply-add in registers; sequential reads of a working set of each level".to_owned(),
    }
}

fn format_name(format: LoadFormat) -> &'static str {
    match format {
        LoadFormat::Auto => "auto",
        LoadFormat::Safetensors => "safetensors",
        LoadFormat::Gguf => "gguf",
        LoadFormat::Dummy => "dummy",
    }
}
