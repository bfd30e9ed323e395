use stepscope_kernels::{Backend, HostRoofs};
use stepscope_profiler::{
    BandwidthRoof, Environment, Memory, ModelInfo, Program, Record, Roofs, Run, SCHEMA, Sampling,
    environment,
};

use crate::bench::one_batch::Options;
use crate::model::Model;
use crate::{Runner, RunnerOptions};

/// Where a run takes place.
#[derive(Debug)]
pub struct Place {
    /// The program that measures.
    pub program: Program,
    /// The machine.
    pub environment: Environment,
    /// `cpu`, `cuda` or `emulated`.
    pub device: &'static str,
    /// Host threads that run operations.
    pub threads: usize,
    /// Seconds that loading the weights took, until they were on the device.
    pub load_s: f64,
}

/// A record of a run that is about to start: everything but its points.
pub fn new_record<B: Backend>(
    place: Place,
    model: &Model,
    runner: &Runner<B>,
    runner_options: &RunnerOptions,
    options: &Options,
) -> Record {
    let (kv_pool, kv_used_peak) = runner.kv_bytes();
    let sampling = &runner_options.sampling;
    Record {
        schema: SCHEMA.to_owned(),
        program: place.program,
        started: environment::utc_now(),
        environment: place.environment,
        run: Run {
            name: options.run_name.clone(),
            model: ModelInfo {
                name: model.name.clone(),
                architecture: model.config.architecture_name.clone(),
                load_format: model.load_format.name().to_owned(),
                parameters: model.config.parameters(),
                config: model.config.raw.clone(),
            },
            dtype: model.dtype.name().to_owned(),
            kv_cache_dtype: runner.kv_dtype().name().to_owned(),
            tp: 1,
            device: place.device.to_owned(),
            threads: place.threads,
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
            cuda_graph: runner.cuda_graph(),
            tuning: runner.tuning().map(|source| stepscope_profiler::Tuning {
                file: source.file,
                sha256: source.sha256,
                shapes: source.shapes,
            }),
            load_s: place.load_s,
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
        timing: runner.timing().cloned(),
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
