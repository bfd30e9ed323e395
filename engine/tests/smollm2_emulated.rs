//! The real SmolLM2-135M-Instruct on the emulated device: the tokens that the CPU device gives, and those of the reference.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use std::path::Path;

use serde_json::Value;
use stepscope_device::driver::Driver;
use stepscope_device::nvrtc::Compiler;
use stepscope_emulator::driver::{Configuration, configure, symbol};
use stepscope_engine::generate::{Options, generate};
use stepscope_engine::model::{LoadOptions, NoProgress, load};
use stepscope_engine::{Instruments, Runner, RunnerOptions};
use stepscope_kernels::Cpu;
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::Clock;

/// The prefill's token, and three decode steps.
const TOKENS: usize = 4;

#[test]
fn tokens_are_the_cpu_device_s_and_the_reference_s() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = here.join("../target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.is_file() {
        return println!(
            "skipped: {} is not there; `cargo xtask model smollm2` brings it",
            path.display()
        );
    }
    if let Err(error) = Compiler::open() {
        return println!("skipped: {error}");
    }
    configure(Configuration {
        compute_capability: (8, 0),
        memory_bytes: 2 << 30,
        ..Configuration::default()
    })
    .unwrap();
    // SAFETY: the emulator's functions have the signatures and the meaning of cuda.h.
    let driver = unsafe { Driver::emulated(symbol) }.unwrap();
    let options = LoadOptions {
        model: path.display().to_string(),
        skip_tokenizer: true,
        ..LoadOptions::default()
    };
    let cpu = Cpu::new(None).unwrap();
    let model = load(&options, &cpu, &NoProgress).unwrap();

    let expected = std::fs::read(here.join("tests/fixtures/smollm2/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let rows = expected["rows"].as_array().unwrap();
    // The shortest prompt: five tokens.
    let row = rows
        .iter()
        .min_by_key(|row| ids(&row["input_ids"]).len())
        .unwrap();
    let (prompt, greedy) = (ids(&row["input_ids"]), ids(&row["greedy"]));
    let sizes = RunnerOptions::small(1, prompt.len() + TOKENS);
    let options = Options {
        max_new_tokens: TOKENS,
        stop_ids: Vec::new(),
        forced_ids: None,
        keep_logits: false,
    };
    let instruments = Instruments {
        clock: Clock::Untimed,
        ..Instruments::default()
    };
    let cuda = Cuda::new(&driver, 0, model.dtype).unwrap();
    let mut emulated = Runner::watched(cuda, &model, &sizes, instruments).unwrap();
    let ours = generate(&mut emulated, &[&prompt], &options, |_| true).unwrap();
    let mut runner = Runner::new(cpu, &model, &sizes).unwrap();
    let theirs = generate(&mut runner, &[&prompt], &options, |_| true).unwrap();
    assert_eq!(ours.output_ids, theirs.output_ids);
    assert_eq!(ours.output_ids[0], greedy[..TOKENS]);
}
