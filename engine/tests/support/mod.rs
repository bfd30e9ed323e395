//! Tiny random models, and what Hugging Face transformers computed with them.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)] // for tests
#![allow(dead_code)] // each test file uses a part of it

use std::path::{Path, PathBuf};

use stepscope_engine::Runner;
use stepscope_engine::generate::{Generated, generate};
use stepscope_engine::model::{LoadOptions, Model, NoProgress, load};
use stepscope_engine::reference::{Reference, largest_difference};
use stepscope_kernels::{Backend, Cpu, DType};

/// `mini-*` are part of the project; `tiny-*` lie beside it, where they lie at all.
pub fn folders() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<_> = ["mini-llama", "mini-qwen2", "mini-qwen3"]
        .map(|name| here.join("tests/fixtures/models").join(name))
        .to_vec();
    for name in ["tiny-llama", "tiny-llama31", "tiny-qwen2", "tiny-qwen3"] {
        let folder = here.join("../../shared/fixtures/models").join(name);
        if folder.is_dir() {
            folders.push(folder);
        } else {
            println!("skipped: {name}: {} is not there", folder.display());
        }
    }
    folders
}

pub fn load_from(folder: &Path, dtype: Option<DType>) -> Model {
    let options = LoadOptions {
        model: folder.display().to_string(),
        dtype,
        skip_tokenizer: true,
        ..LoadOptions::default()
    };
    load(&options, &Cpu::new(Some(2)).unwrap(), &NoProgress).unwrap()
}

#[track_caller]
pub fn check_close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    let difference = largest_difference(ours, theirs);
    assert!(
        difference <= tolerance,
        "{what}: off by {difference}, allowed {tolerance}"
    );
}

/// Prefill, then every decode step fed with the reference's tokens: all within the rule. What was generated.
#[track_caller]
pub fn check<B: Backend>(
    name: &str,
    runner: &mut Runner<B>,
    model: &Model,
    reference: &Reference,
) -> Generated {
    let prompts: Vec<&[u32]> = reference.prompts.iter().map(Vec::as_slice).collect();
    let generated = generate(runner, &prompts, &reference.options(), |_| true).unwrap();
    let nearness = reference.nearness(&generated, model.config.vocab_size);
    assert!(nearness.is_near(), "{name}: {nearness:?}");
    generated
}
