//! The CUDA kernels, on the emulated device with all checks: the models' reference logits, the CPU device's tokens, and the
//! same bits with and without graphs.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

#[path = "cuda_emulated/apart.rs"]
mod apart;
mod support;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use stepscope_device::driver::Driver;
use stepscope_device::nvrtc::Compiler;
use stepscope_emulator::check::Checks;
use stepscope_emulator::driver::{Configuration, LaunchReport, configure, symbol, take_reports};
use stepscope_engine::generate::Generated;
use stepscope_engine::model::{LoadFormat, LoadOptions, Model, NoProgress, load};
use stepscope_engine::reference::{Reference, margin};
use stepscope_engine::{Instruments, Runner, RunnerOptions};
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::{Cpu, DType};
use stepscope_profiler::{Clock, Launch, Timer};
use support::{check, folders, load_from};

/// The driver, for one test at a time; none where NVRTC is missing, which is said.
fn driver() -> Option<(Arc<Driver>, MutexGuard<'static, ()>)> {
    static DRIVER: OnceLock<Arc<Driver>> = OnceLock::new();
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if let Err(error) = Compiler::open() {
        println!("skipped: {error}");
        return None;
    }
    let driver = DRIVER.get_or_init(|| {
        configure(Configuration {
            compute_capability: (8, 0),
            memory_bytes: 1 << 30,
            checks: Checks::ALL,
            keep_reports: true,
            ..Configuration::default()
        })
        .unwrap();
        // SAFETY: the emulator's functions have the signatures and the meaning of cuda.h.
        unsafe { Driver::emulated(symbol) }.unwrap()
    });
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    take_reports(0);
    Some((Arc::clone(driver), guard))
}

fn launch(report: &LaunchReport) -> Launch {
    Launch {
        function: report.kernel.clone(),
        counters: vec![(
            "warp_instructions",
            report.report.counters.warp_instructions,
        )],
        findings: report
            .report
            .findings
            .iter()
            .map(|finding| (finding.to_string(), finding.count))
            .collect(),
    }
}

fn options(reference: &Reference, cuda_graph: bool) -> RunnerOptions {
    RunnerOptions {
        cuda_graph,
        ..RunnerOptions::small(reference.prompts.len(), reference.longest())
    }
}

fn runner(driver: &Arc<Driver>, model: &Model, options: &RunnerOptions) -> Runner<Cuda> {
    let cuda = Cuda::new(driver, 0, model.dtype).unwrap();
    let instruments = Instruments {
        clock: Clock::Untimed,
        counts: Some(Box::new(|| take_reports(0).iter().map(launch).collect())),
        ..Instruments::default()
    };
    Runner::watched(cuda, model, options, instruments).unwrap()
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

fn bits(generated: &Generated) -> Vec<u32> {
    let all = generated.decode_logits.iter().flatten();
    let all = all.chain(&generated.prefill_logits);
    all.map(|x| x.to_bits()).collect()
}

/// Every model in its own type, within the rule; the same bits with and without graphs.
#[test]
fn logits_are_the_reference_s_with_and_without_graphs() {
    let Some((driver, _guard)) = driver() else {
        return;
    };
    for folder in folders() {
        let reference = Reference::read(&folder).unwrap();
        let model = load_from(&folder, None);
        let mut outputs = Vec::new();
        for cuda_graph in [true, false] {
            let mut runner = runner(&driver, &model, &options(&reference, cuda_graph));
            assert_eq!(runner.cuda_graph(), Some(cuda_graph));
            outputs.push(check(&name(&folder), &mut runner, &model, &reference));
        }
        assert_eq!(bits(&outputs[0]), bits(&outputs[1]), "{}", name(&folder));
    }
}

/// The tokens of the CPU device, with float16 weights too, but for near ties.
#[test]
fn tokens_are_the_cpu_device_s() {
    let Some((driver, _guard)) = driver() else {
        return;
    };
    for folder in folders() {
        for dtype in [DType::BF16, DType::F16] {
            let reference = Reference::read(&folder).unwrap();
            let model = load_from(&folder, Some(dtype));
            let options = options(&reference, true);
            let mut emulated = runner(&driver, &model, &options);
            let mut cpu = Runner::new(Cpu::new(Some(2)).unwrap(), &model, &options).unwrap();
            let ours = check(&name(&folder), &mut emulated, &model, &reference);
            let theirs = check(&name(&folder), &mut cpu, &model, &reference);
            let vocab = model.config.vocab_size;
            for (prompt, tokens) in theirs.output_ids.iter().enumerate() {
                for (step, &token) in tokens.iter().enumerate() {
                    let logits = match step {
                        0 => &theirs.prefill_logits,
                        _ => &theirs.decode_logits[step - 1],
                    };
                    // Activations are rounded on the one device and not on the other: that may turn what is nearly a tie.
                    let margin = margin(&logits[prompt * vocab..][..vocab]);
                    let is_same = ours.output_ids[prompt][step] == token;
                    assert!(
                        is_same || margin < reference.tolerance,
                        "{} in {dtype}, prompt {prompt}, step {step}: the CPU's token leads by {margin}",
                        name(&folder)
                    );
                }
            }
        }
    }
}

/// Dummy weights that kernels make on the device are those that the host would have copied there, bit for bit.
#[test]
fn dummy_weights_of_the_device_give_the_same_logits() {
    let Some((driver, _guard)) = driver() else {
        return;
    };
    let overrides = r#"{"num_hidden_layers": 2, "vocab_size": 96, "hidden_size": 64, "intermediate_size": 80,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64}"#;
    for dtype in [DType::BF16, DType::F16] {
        let mut all = Vec::new();
        for dummy_on_device in [false, true] {
            let options = LoadOptions {
                model: "qwen3-0.6b".to_owned(),
                format: LoadFormat::Dummy,
                dtype: Some(dtype),
                config_overrides: serde_json::from_str(overrides).unwrap(),
                skip_tokenizer: true,
                dummy_on_device,
                ..LoadOptions::default()
            };
            let model = load(&options, &Cpu::new(Some(2)).unwrap(), &NoProgress).unwrap();
            assert_eq!(model.weights.is_none(), dummy_on_device);
            let mut runner = runner(&driver, &model, &RunnerOptions::small(1, 24));
            let made = take_reports(0);
            let made = made.iter().filter(|r| r.kernel.contains("dummy_weights"));
            // Of each layer Q, K, V, O, gate, up and down; and the embedding, which is the output matrix too.
            assert_eq!(made.count(), if dummy_on_device { 15 } else { 0 });
            let (batch, step) = runner.prefill(&[&[1, 2, 3, 4, 5]]).unwrap();
            assert_eq!(step.findings, []);
            let logits = runner.logits(&batch).unwrap();
            all.push(logits.iter().map(|x| x.to_bits()).collect::<Vec<u32>>());
        }
        assert!(all[0].iter().any(|&bits| bits << 1 != 0));
        assert_eq!(all[0], all[1], "{dtype}");
    }
}

/// Of a step: no finding, no time, counters of every launch at its operation, and a graph's operations are those that run
/// without it.
#[test]
fn a_step_counts_what_its_kernels_do() {
    let Some((driver, _guard)) = driver() else {
        return;
    };
    let folder = &folders()[0];
    let reference = Reference::read(folder).unwrap();
    let model = load_from(folder, None);
    let prompts: Vec<&[u32]> = reference.prompts.iter().map(Vec::as_slice).collect();
    let mut steps = Vec::new();
    for cuda_graph in [true, false] {
        let mut runner = runner(&driver, &model, &options(&reference, cuda_graph));
        let (mut batch, prefill) = runner.prefill(&prompts).unwrap();
        let decode = runner.decode(&mut batch, None).unwrap();
        let decode_again = runner.decode(&mut batch, None).unwrap();
        for step in [&prefill, &decode, &decode_again] {
            assert_eq!(step.findings, []);
            assert_eq!(step.wall_ns, 0);
            assert!(step.phases.iter().all(|phase| phase.host_ns == 0));
            assert!(
                step.operations
                    .iter()
                    .all(|o| o.timer == Timer::None && o.duration_ns == 0)
            );
            let launches: u64 = step.operations.iter().map(|o| u64::from(o.launches)).sum();
            assert_eq!(
                step.kernels.iter().map(|k| k.launches).sum::<u64>(),
                launches
            );
            for kernel in &step.kernels {
                assert!(!kernel.operation.is_empty(), "{kernel:?}");
                assert!(kernel.counter("warp_instructions") > 0, "{kernel:?}");
            }
        }
        steps.push((prefill, decode, decode_again));
    }
    assert_eq!(steps[0].0, steps[1].0);
    assert_eq!(steps[0].1, steps[1].1);
    assert_eq!(steps[0].2, steps[1].2);
}
