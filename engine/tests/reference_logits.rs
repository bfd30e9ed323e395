//! The CPU device against Hugging Face transformers, on tiny random models.
//!
//! The rule: every logit lies within twice the error that the framework's own bfloat16 run has against its float32 run, and
//! the greedy token is the reference's wherever its two best logits lie further apart than that.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use stepscope_engine::generate::{Options, generate};
use stepscope_engine::model::{LoadOptions, Model, NoProgress, load};
use stepscope_engine::{Runner, RunnerOptions};
use stepscope_kernels::{Cpu, DType};

struct Reference {
    prompts: Vec<Vec<u32>>,
    greedy: Vec<Vec<u32>>,
    tolerance: f32,
    prefill: Vec<f32>,
    decode: Vec<f32>,
}

/// Floats of a float32 tensor.
fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = tensors.tensor(name).unwrap();
    data.data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn reference(folder: &Path) -> Reference {
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ids = |key: &str| serde_json::from_value(expected[key].clone()).unwrap();
    let yardstick = largest_difference(
        &floats(&tensors, "prefill_bf16"),
        &floats(&tensors, "prefill_f32"),
    )
    .max(largest_difference(
        &floats(&tensors, "decode_bf16"),
        &floats(&tensors, "decode_f32"),
    ));
    Reference {
        prompts: ids("prompts"),
        greedy: ids("greedy_f32"),
        tolerance: 2.0 * yardstick,
        prefill: floats(&tensors, "prefill_f32"),
        decode: floats(&tensors, "decode_f32"),
    }
}

/// `mini-*` are part of the project; `tiny-*` lie beside it, where they lie at all.
fn folders() -> Vec<PathBuf> {
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

fn load_from(folder: &Path, dtype: Option<DType>) -> Model {
    let options = LoadOptions {
        model: folder.display().to_string(),
        dtype,
        skip_tokenizer: true,
        ..LoadOptions::default()
    };
    load(&options, &Cpu::new(Some(2)).unwrap(), &NoProgress).unwrap()
}

struct Setup {
    dtype: Option<DType>,
    page_size: usize,
    chunk_tokens: usize,
    threads: usize,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            dtype: None,
            page_size: 16,
            chunk_tokens: 1024,
            threads: 2,
        }
    }
}

fn runner(model: &Model, reference: &Reference, setup: &Setup) -> Runner<Cpu> {
    let longest = reference.prompts.iter().map(Vec::len).max().unwrap() + reference.greedy[0].len();
    let options = RunnerOptions {
        page_size: setup.page_size,
        chunk_tokens: setup.chunk_tokens,
        max_total_tokens: None,
        ..RunnerOptions::small(reference.prompts.len(), longest)
    };
    Runner::new(Cpu::new(Some(setup.threads)).unwrap(), model, &options).unwrap()
}

#[track_caller]
fn check_close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    let difference = largest_difference(ours, theirs);
    assert!(
        difference <= tolerance,
        "{what}: off by {difference}, allowed {tolerance}"
    );
}

/// Prefill, then every decode step fed with the reference's tokens.
#[track_caller]
fn check(folder: &Path, setup: &Setup) {
    let reference = reference(folder);
    let model = load_from(folder, setup.dtype);
    let mut runner = runner(&model, &reference, setup);
    let prompts: Vec<&[u32]> = reference.prompts.iter().map(Vec::as_slice).collect();
    let steps = reference.greedy[0].len();
    let options = Options {
        max_new_tokens: steps,
        stop_ids: Vec::new(),
        forced_ids: Some(reference.greedy.clone()),
        keep_logits: true,
    };
    let generated = generate(&mut runner, &prompts, &options, |_| true).unwrap();
    let name = folder.file_name().unwrap().to_string_lossy();
    check_close(
        &format!("{name} prefill"),
        &generated.prefill_logits,
        &reference.prefill,
        reference.tolerance,
    );

    let vocab = model.config.vocab_size;
    for (prompt, greedy) in reference.greedy.iter().enumerate() {
        for (step, &token) in greedy.iter().enumerate() {
            let theirs = match step {
                0 => &reference.prefill[prompt * vocab..][..vocab],
                _ => &reference.decode[(prompt * (steps - 1) + step - 1) * vocab..][..vocab],
            };
            if step > 0 {
                let ours = &generated.decode_logits[step - 1][prompt * vocab..][..vocab];
                check_close(
                    &format!("{name} prompt {prompt} step {step}"),
                    ours,
                    theirs,
                    reference.tolerance,
                );
            }
            let mut sorted = theirs.to_vec();
            sorted.sort_by(f32::total_cmp);
            let margin = sorted[vocab - 1] - sorted[vocab - 2];
            if margin > reference.tolerance {
                assert_eq!(
                    generated.output_ids[prompt][step], token,
                    "{name} prompt {prompt} step {step}: the reference's best token leads by {margin}"
                );
            }
        }
    }
}

#[test]
fn every_model_in_its_own_dtype() {
    for folder in folders() {
        check(&folder, &Setup::default());
    }
}

#[test]
fn float32_is_far_closer_than_the_yardstick() {
    for folder in folders() {
        let mut reference = reference(&folder);
        reference.tolerance = 2e-4; // of logits up to 20: float32 rounding, sums in another order
        let model = load_from(&folder, Some(DType::F32));
        let mut runner = runner(&model, &reference, &Setup::default());
        let prompts: Vec<&[u32]> = reference.prompts.iter().map(Vec::as_slice).collect();
        let (batch, _) = runner.prefill(&prompts).unwrap();
        let name = folder.file_name().unwrap().to_string_lossy();
        check_close(
            &name,
            &runner.logits(&batch).unwrap(),
            &reference.prefill,
            reference.tolerance,
        );
    }
}

#[test]
fn float16_storage() {
    for folder in folders() {
        check(
            &folder,
            &Setup {
                dtype: Some(DType::F16),
                ..Setup::default()
            },
        );
    }
}

#[test]
fn page_sizes_and_chunks_and_threads_change_nothing_that_matters() {
    for folder in folders() {
        for (page_size, chunk_tokens, threads) in [(1, 1024, 1), (3, 7, 2), (64, 1, 3), (16, 20, 2)]
        {
            check(
                &folder,
                &Setup {
                    page_size,
                    chunk_tokens,
                    threads,
                    ..Setup::default()
                },
            );
        }
    }
}

#[test]
fn the_second_half_on_a_cached_prefix_equals_the_whole() {
    for folder in folders() {
        let reference = reference(&folder);
        let model = load_from(&folder, None);
        // Only prompts that can be cut in two.
        let prompts: Vec<&[u32]> = reference
            .prompts
            .iter()
            .map(Vec::as_slice)
            .filter(|p| p.len() > 1)
            .collect();
        let mut runner = runner(
            &model,
            &reference,
            &Setup {
                page_size: 4,
                ..Setup::default()
            },
        );
        let (whole, _) = runner.prefill(&prompts).unwrap();
        let expected = runner.logits(&whole).unwrap();
        runner.release(whole);

        let cut = |p: &&[u32]| p.len() / 2;
        let first: Vec<&[u32]> = prompts.iter().map(|p| &p[..cut(p)]).collect();
        let second: Vec<&[u32]> = prompts.iter().map(|p| &p[cut(p)..]).collect();
        let (mut batch, _) = runner.prefill(&first).unwrap();
        runner.extend(&mut batch, &second).unwrap();
        let name = folder.file_name().unwrap().to_string_lossy();
        check_close(
            &name,
            &runner.logits(&batch).unwrap(),
            &expected,
            reference.tolerance / 10.0,
        );
    }
}
