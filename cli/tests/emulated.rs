//! A model on the emulated CUDA device, and what a person reads when a device is not as it should be.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use serde_json::Value;
use support::{Ran, Stepscope, fixture, has_compiler};

/// A model small enough for the emulated device, with heads as the CUDA kernels take them.
const SMALL: &str = r#"{"num_hidden_layers": 2, "vocab_size": 256, "hidden_size": 128, "intermediate_size": 192,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "max_position_embeddings": 512}"#;

fn one_batch(stepscope: &Stepscope, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut all = vec![
        "one-batch",
        "--json-model-override-args",
        SMALL,
        "--out",
        "run",
    ];
    all.extend(["--batch", "2", "--input", "20", "--output", "4"]);
    all.extend(args);
    let mut command = stepscope.command(&all);
    command.envs(variables.iter().copied());
    command.output().unwrap().into()
}

fn tokens(stepscope: &Stepscope, variables: &[(&str, &str)]) -> Vec<Value> {
    let model = fixture("mini-qwen2");
    let ids = stepscope.path("ids.json");
    let mut command = stepscope.command(&[
        "generate",
        "--model-path",
        &model,
        "--prompt-ids",
        ids.to_str().unwrap(),
        "--max-new-tokens",
        "4",
        "--ignore-eos",
        "--json",
        "--device",
        "emulated",
    ]);
    command.envs(variables.iter().copied());
    let ran = Ran::from(command.output().unwrap()).success();
    let outputs: Value = serde_json::from_str(&ran.stdout).unwrap();
    let outputs = outputs["outputs"].as_array().unwrap();
    outputs.iter().map(|o| o["output_ids"].clone()).collect()
}

#[test]
fn a_run_counts_what_kernels_do_and_prints_no_latency() {
    if !has_compiler() {
        return;
    }
    let stepscope = Stepscope::new();
    let ran = one_batch(&stepscope, &["--device", "emulated", "--check", "all"], &[]).success();
    let (name, value) = ran.stdout.trim_end().split_once('=').unwrap();
    assert_eq!(name, "max_total_num_tokens");
    assert!(value.parse::<u64>().is_ok(), "{value}");
    for text in [
        "an emulated device has no time",
        "Prefill counters of the emulated device, 1 step, all layers together",
        "Decode counters of the emulated device, mean of 3 steps, all layers together",
        "attention_prefill<bf16, 64,",
        "attention_decode<bf16, 64,",
    ] {
        assert!(
            ran.stderr.contains(text),
            "{text:?} is not in\n{}",
            ran.stderr
        );
    }
    for text in ["latency", "token/s", " ms", " µs"] {
        let lines = ran
            .stderr
            .lines()
            .filter(|line| !line.starts_with("an emulated device"));
        let found: Vec<&str> = lines.filter(|line| line.contains(text)).collect();
        assert_eq!(found, [""; 0], "{text:?}");
    }
    for file in ["run/trace.json", "run/prefill.svg", "run/decode.svg"] {
        assert!(!stepscope.path(file).exists(), "{file}");
    }
    let results = std::fs::read_to_string(stepscope.path("result.jsonl")).unwrap_or_default();
    assert_eq!(results, "");

    let record = std::fs::read(stepscope.path("run/record.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["run"]["device"], "emulated");
    assert_eq!(record["run"]["cuda_graph"], true);
    assert_eq!(
        record["environment"]["gpu"]["compute_capability"],
        serde_json::json!([9, 0])
    );
    let repetition = &record["points"][0]["repetitions"][0];
    assert_eq!(repetition["prefill_latency_s"], Value::Null);
    assert_eq!(repetition["median_decode_latency_s"], Value::Null);
    for step in repetition["steps"].as_array().unwrap() {
        assert_eq!(step["wall_ns"], 0);
        let kernels = step["kernels"].as_array().unwrap();
        assert!(kernels.iter().any(|k| k["operation"] == "attention"));
        assert!(
            kernels
                .iter()
                .all(|k| k["counters"]["warp_instructions"].as_u64() > Some(0))
        );
        assert_eq!(step.get("findings"), None);
    }

    let report = stepscope.run(&["report", "run"]).success();
    assert!(
        report.stdout.contains("times    none: an emulated device"),
        "{}",
        report.stdout
    );
    for command in ["flamegraph", "trace"] {
        let ran = stepscope.run(&[command, "run"]);
        assert_eq!(ran.code, 2);
        let line = "error: run: an emulated device ran these steps, which has no time to draw; `stepscope report` shows what it counted\n";
        assert_eq!(ran.stderr, line);
    }
}

#[test]
fn tokens_are_the_same_in_two_processes_at_once_and_from_a_damaged_cache() {
    if !has_compiler() {
        return;
    }
    let stepscope = Stepscope::new();
    let cache = stepscope.path("cache");
    let variables = [("STEPSCOPE_CACHE", cache.to_str().unwrap())];
    stepscope.write("ids.json", "[[1, 2, 3, 4, 5], [7]]");
    let expected = tokens(&stepscope, &[]);
    // Both find an empty cache.
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| tokens(&stepscope, &variables));
        (tokens(&stepscope, &variables), other.join().unwrap())
    });
    assert_eq!((&first, &second), (&expected, &expected));
    let mut damaged = 0;
    for arch in std::fs::read_dir(&cache).unwrap() {
        for file in std::fs::read_dir(arch.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 5, "{damaged}");
    assert_eq!(tokens(&stepscope, &variables), expected);
}

/// The error of a run that cannot be: exit code and line.
#[track_caller]
fn assert_fails(args: &[&str], variables: &[(&str, &str)], code: i32, start: &str, end: &str) {
    let ran = one_batch(&Stepscope::new(), args, variables);
    let line = ran.stderr.lines().last().unwrap_or_default();
    assert!(
        line.starts_with(&format!("error: {start}")) && line.ends_with(end),
        "{}",
        ran.stderr
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (code, ""),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_machine_without_driver_or_device_is_told_what_is_missing() {
    assert_fails(
        &["--device", "cuda"],
        &[("STEPSCOPE_LIBCUDA", "/nowhere")],
        1,
        "STEPSCOPE_LIBCUDA=/nowhere cannot be used: ",
        "",
    );
    assert_fails(
        &["--device", "emulated"],
        &[("STEPSCOPE_EMULATED_DEVICES", "0")],
        1,
        "the driver (emulated) sees no device; ",
        "look at nvidia-smi and CUDA_VISIBLE_DEVICES",
    );
    assert_fails(
        &["--device", "emulated"],
        &[("STEPSCOPE_NVRTC", "/nowhere")],
        1,
        "STEPSCOPE_NVRTC=/nowhere cannot be used: ",
        "",
    );
}

#[test]
fn what_the_kernels_do_not_store_or_take_is_said_before_anything_runs() {
    assert_fails(
        &["--device", "emulated", "--dtype", "float32"],
        &[],
        2,
        "--dtype float32: the CUDA kernels store bfloat16 or float16; ",
        "use one of them, or --device cpu",
    );
    assert_fails(
        &["--device", "emulated", "--kv-cache-dtype", "float32"],
        &[],
        2,
        "--kv-cache-dtype float32: the CUDA kernels keep keys and values as the weights, in bfloat16; ",
        "use auto",
    );
    assert_fails(
        &["--device", "cpu", "--check", "race"],
        &[],
        2,
        "--check looks into kernels that an emulated device runs; ",
        "add --device emulated",
    );
}

#[test]
fn memory_that_runs_out_names_what_asked_for_how_much() {
    if !has_compiler() {
        return;
    }
    assert_fails(
        &["--device", "emulated"],
        &[("STEPSCOPE_EMULATED_MEMORY", "500000")],
        1,
        "no memory is left for a KV pool: ",
        "",
    );
    // The budget is there, but not the memory: the workspace of the kernels alone takes 67 MB.
    assert_fails(
        &["--device", "emulated", "--max-total-tokens", "64"],
        &[("STEPSCOPE_EMULATED_MEMORY", "32M")],
        1,
        "the workspace of the kernels needs 67108864 bytes of device memory, which the driver did not grant (",
        " bytes are free)",
    );
}
