//! Models with reference logits.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use stepscope_engine::generate::generate;
use stepscope_engine::model::{LoadOptions, NoProgress, load};
use stepscope_engine::reference::{Nearness, Reference};
use stepscope_engine::{Instruments, Runner, RunnerOptions};
use stepscope_kernels::Cpu;
use stepscope_profiler::Clock;

use crate::args::gpu_check::GpuCheck;
use crate::device::Gpu;
use crate::output::{Failure, print_stderr, write_stdout};

pub(super) fn run(args: &GpuCheck) -> Result<(), Failure> {
    let Some(folder) = &args.fixtures else {
        return Err(Failure::input("the stage fixtures needs --fixtures DIR"));
    };
    let gpu = Gpu::start(args.device)?;
    let models = models_in(folder)?;
    let mut results = Vec::new();
    let mut wrong = 0;
    for path in &models {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for cuda_graph in [true, false] {
            let nearness = nearness(&gpu, path, cuda_graph)?;
            if !nearness.is_near() {
                wrong += 1;
                print_stderr(&format!("{name}, CUDA graph {cuda_graph}: {nearness:?}"));
            }
            results.push(json!({
                "model": name,
                "cuda_graph": cuda_graph,
                "near": nearness.is_near(),
                "largest_difference": nearness.largest,
                "tolerance": nearness.tolerance,
                "wrong_tokens": nearness.wrong_tokens,
            }));
        }
    }
    let summary = format!(
        "{} of {} runs within the rule, {} models",
        results.len() - wrong,
        results.len(),
        models.len()
    );
    let document = json!({
        "schema": "stepscope.fixtures/1",
        "device": gpu.describe()?,
        "summary": summary,
        "models": results,
    });
    write_stdout(format!("{document:#}\n").as_bytes())?;
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::run(summary)),
    }
}

/// The folders in `folder` that hold a model with its reference.
fn models_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder)
        .map_err(|e| Failure::input(format!("cannot read {}: {e}", folder.display())))?;
    let mut models: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("expected.json").is_file())
        .collect();
    models.sort();
    if models.is_empty() {
        return Err(Failure::input(format!(
            "{} holds no model with an expected.json",
            folder.display()
        )));
    }
    Ok(models)
}

fn nearness(gpu: &Gpu, folder: &Path, cuda_graph: bool) -> Result<Nearness, Failure> {
    let reference = Reference::read(folder)?;
    let options = LoadOptions {
        model: folder.display().to_string(),
        skip_tokenizer: true,
        ..LoadOptions::default()
    };
    let model = load(&options, &Cpu::new(None)?, &NoProgress)?;
    let sizes = RunnerOptions {
        cuda_graph,
        ..RunnerOptions::small(reference.prompts.len(), reference.longest())
    };
    let instruments = Instruments {
        clock: Clock::Untimed,
        ..Instruments::default()
    };
    let mut runner = Runner::watched(gpu.cuda(model.dtype)?, &model, &sizes, instruments)?;
    let prompts: Vec<&[u32]> = reference.prompts.iter().map(Vec::as_slice).collect();
    let generated = generate(&mut runner, &prompts, &reference.options(), |_| true)?;
    Ok(reference.nearness(&generated, model.config.vocab_size))
}
