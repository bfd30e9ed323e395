//! The CPU device against Hugging Face transformers, on tiny random models.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::path::Path;

use stepscope_engine::model::Model;
use stepscope_engine::reference::Reference;
use stepscope_engine::{Runner, RunnerOptions};
use stepscope_kernels::{Cpu, DType};
use support::{check_close, folders, load_from};

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
    let options = RunnerOptions {
        page_size: setup.page_size,
        chunk_tokens: setup.chunk_tokens,
        max_total_tokens: None,
        ..RunnerOptions::small(reference.prompts.len(), reference.longest())
    };
    Runner::new(Cpu::new(Some(setup.threads)).unwrap(), model, &options).unwrap()
}

#[track_caller]
fn check(folder: &Path, setup: &Setup) {
    let reference = Reference::read(folder).unwrap();
    let model = load_from(folder, setup.dtype);
    let mut runner = runner(&model, &reference, setup);
    let name = folder.file_name().unwrap().to_string_lossy();
    support::check(&name, &mut runner, &model, &reference);
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
        let mut reference = Reference::read(&folder).unwrap();
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
        let reference = Reference::read(&folder).unwrap();
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
