//! `stepscope explain`: records, other programs' results, and traces.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use support::Stepscope;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../profiler/tests/data");

fn result(name: &str) -> String {
    format!("{DATA}/results/{name}")
}

fn trace(name: &str) -> String {
    format!("{DATA}/traces/{name}")
}

/// Text without its line breaks.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn explain(args: &[&str]) -> String {
    let mut all = vec!["explain"];
    all.extend(args);
    let ran = Stepscope::new().run(&all);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    ran.stdout
}

/// What docs/explain.md walks through. The GPU was not named: from the data alone, prefill costs something per token, compute is far
/// from it, a rate of all-reduces would account for it, and decode is split.
#[test]
fn a_real_result_on_eight_ranks() {
    let file = result("sglang-bench_one_batch-32b-tp8.log");
    let text = explain(&[&file, "--model", "qwen2.5-32b", "--tp", "8"]);
    let said = words(&text);
    for part in [
        "Prefill is bound by something that it pays for every token: 2.21 ms per step + 874 µs per token.",
        "4096 tokens take 3.58 s (1143.3 token/s) and 8192 tokens take 7.16 s (1143.7 token/s)",
        "Tensor-core compute is far from it",
        "All-reduces would account for all of it if each rank sent 2.64 GB/s",
        "14.7 ms per step + 1.05 ms per sequence",
        "874 µs, 83 % of the 1.05 ms by which it grows",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{text}");
    }
    insta::assert_snapshot!(text);
}

/// The program's output also tells the size of the KV pool, and with it the card's memory.
#[test]
fn the_kv_pool_tells_the_size_of_the_card() {
    let file = result("sglang-bench_one_batch-32b-tp8.stdout.txt");
    let said = words(&explain(&[&file, "--model", "qwen2.5-32b", "--tp", "8"]));
    let part = "The GPU is most likely NVIDIA A10, NVIDIA A30, NVIDIA GeForce RTX 3090 or NVIDIA GeForce RTX 4090: weights and KV pool take \
                19.8 GB of each";
    assert!(said.contains(part), "{said}");
    assert!(said.contains("l4: reading its weights and KV cache alone takes 27.3 ms"));
}

/// sglang on a CPU: no card of the table is a thousand times slower than itself.
#[test]
fn a_result_that_no_gpu_limited() {
    let file = result("sglang-0.5.11-cpu-smollm2.jsonl");
    let said = words(&explain(&[&file, "--model", "smollm2-135m"]));
    assert!(
        said.contains("No GPU of the table is as slow as this"),
        "{said}"
    );
}

#[test]
fn every_figure_of_a_result_has_its_arithmetic() {
    let file = result("sglang-bench_one_batch-32b-tp8.log");
    let args = [
        file.as_str(),
        "--model",
        "qwen2.5-32b",
        "--tp",
        "8",
        "--gpu",
        "h100-sxm",
    ];
    let why = explain(&[&args[..], &["--why"]].concat());
    for part in [
        "(7.162742 s − 3.582474 s) / (8192 − 4096)",
        "129 × 83886080 B × 2 × 7 / 8 / 7.162742 s",
        "1536 tokens × 32768 B per token",
    ] {
        assert!(why.contains(part), "no {part:?} in\n{why}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&explain(&[&args[..], &["--json"]].concat())).unwrap();
    let explanation = &json["explanation"];
    for statements in [
        &explanation["summary"],
        &explanation["prefill"]["statements"],
        &explanation["decode"]["statements"],
    ] {
        let figures = statements.as_array().unwrap().iter();
        for figure in figures.flat_map(|s| s["figures"].as_array().unwrap()) {
            assert!(figure["value"].is_number(), "{figure}");
            assert!(!figure["from"].as_str().unwrap().is_empty(), "{figure}");
        }
    }
    let decode = &explanation["decode"]["fit"]["terms"];
    assert!((decode[0]["seconds"].as_f64().unwrap() - 14.6716e-3).abs() < 1e-6);
    assert!((decode[1]["seconds"].as_f64().unwrap() - 1.05405e-3).abs() < 1e-7);
}

/// Every form of result that can be read is explained, or says what it lacks.
#[test]
fn all_frameworks_results() {
    for (file, part) in [
        (
            "llama-bench.jsonl",
            "Decode: reading weights explains it best, at 1.98 TB/s.",
        ),
        (
            "vllm-bench-serve.json",
            "Decode: reading weights explains it best, at 1.23 TB/s.",
        ),
        (
            "sglang-0.5.11-cpu-smollm2.jsonl",
            "Without a model there are no floors",
        ),
        ("vllm-bench-serve.json", "A time to first token under load"),
        (
            "sglang-bench_serving.jsonl",
            "Without a model there are no floors",
        ),
        ("trtllm-bench-throughput.json", "llama-3.1-8b"),
        (
            "lmdeploy-profile_throughput.csv",
            "Without a model there are no floors",
        ),
        (
            "vllm-bench-latency.json",
            "the file does not say its batch, the prompts' length, how much was generated. --batch N, --input-len N, --output-len N add",
        ),
        (
            "vllm-bench-throughput.json",
            "the file does not say the prompts' length, how much was generated.",
        ),
        (
            "sglang-bench_offline_throughput.jsonl",
            "Without a model there are no floors",
        ),
    ] {
        let said = words(&explain(&[&result(file)]));
        let found = said.contains(part) || said.contains(&part.replace("A time to", "a time to"));
        assert!(found, "no {part:?} in {file}:\n{said}");
    }
}

/// `vllm bench latency` says neither batch nor lengths. With them 128 steps read 15 GB each: at 3.35 TB/s that is 574 ms.
#[test]
fn a_call_of_which_only_the_time_is_known() {
    let file = result("vllm-bench-latency.json");
    let known = [
        file.as_str(),
        "--model",
        "llama-3.1-8b",
        "--gpu",
        "h100-sxm",
        "--batch",
        "8",
        "--input-len",
        "32",
        "--output-len",
        "128",
    ];
    let said = words(&explain(&known));
    for part in [
        "8 requests of 32 prompt tokens and 128 generated ones took 2.00 s: 4.000 requests/s",
        "It took 3.46 times the 578 ms that NVIDIA H100 SXM needs at least, as one batch",
        "of weights and KV cache to generate, 29 % of its bandwidth (MBU)",
        "Reading weights comes closest to being all of it, and would have to be 961 GB/s",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    // Weights of half the size, read in half the time.
    let fp8 = words(&explain(&[&known[..], &["--dtype", "fp8"]].concat()));
    assert!(fp8.contains("times the 29"), "{fp8}");
    assert!(
        fp8.contains("weights of 8 bits, multiplied in fp8"),
        "{fp8}"
    );
}

#[test]
fn a_job_without_a_gpu_is_held_against_all_of_them() {
    let file = result("vllm-bench-throughput.json");
    let text = explain(&[
        &file,
        "--model",
        "llama-3.1-8b",
        "--input-len",
        "512",
        "--output-len",
        "128",
    ]);
    let said = words(&text);
    assert!(
        said.contains("13 of the 24 GPUs of the table are fast enough"),
        "{said}"
    );
    assert!(said.contains("Too slow or too small: rtx4090"), "{said}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_server_s_job_says_whose_pace_it_was() {
    let file = result("sglang-bench_serving.jsonl");
    let args = [
        file.as_str(),
        "--model",
        "llama-3.1-8b",
        "--gpu",
        "h100-sxm",
        "--html",
        "page.html",
    ];
    let stepscope = Stepscope::new();
    let ran = stepscope.run(&[&["explain"], &args[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        words(&ran.stdout)
            .contains("The client sent 4.00 requests/s, and they were served as fast")
    );
    let page = std::fs::read_to_string(stepscope.path("page.html")).unwrap();
    assert!(page.contains("<h2>Whole jobs</h2>"));
}

#[test]
fn a_record_of_our_own() {
    let stepscope = Stepscope::new();
    let ran = stepscope.one_batch(&["--input", "16", "--output", "4", "--quiet"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = stepscope.run(&["explain", "runs/default", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let steps = json["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    for step in steps {
        let parts = step["parts"].as_array().unwrap().iter();
        let sum: f64 = parts.map(|p| p["ns"].as_f64().unwrap()).sum();
        let wall = step["wall_ns"].as_f64().unwrap();
        assert!((sum - wall).abs() < 1e-6 * wall, "{sum} of {wall}");
        assert!(!step["operations"].as_array().unwrap().is_empty());
    }
    let ran = stepscope.run(&["explain", "runs/default", "--html", "page.html"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "wrote page.html\n"));
    let page = std::fs::read_to_string(stepscope.path("page.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") || page.starts_with("<!DOCTYPE html>"));
    assert!(
        page.contains("iframe") && page.contains("Roofline"),
        "flame graphs and roofline"
    );
    let ran = stepscope.run(&["explain", "runs/default/record.json", "--why"]);
    assert!(
        ran.stdout.contains("operation, by saving"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_trace_with_its_floors() {
    let file = trace("sglang-qwen3-8b-decode.json.gz");
    let text = explain(&[&file, "--model", "qwen3-8b", "--gpu", "mi300x"]);
    for part in [
        "One decode step of 32 requests by sglang on AMD Instinct MI300X",
        "36 layers",
        "The model's work takes at least 3.78 ms on this GPU, 39 % of the busy time.",
        "it takes the whole window",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&explain(&[&trace("small-decode.json"), "--json"])).unwrap();
    assert!(json["devices"].is_array());
    let stepscope = Stepscope::new();
    let page = [
        "--html",
        "page.html",
        "--model",
        "qwen3-8b",
        "--dtype",
        "fp8",
    ];
    let ran = stepscope.run(&[&["explain", file.as_str()], &page[..]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "wrote page.html\n"));
    let page = std::fs::read_to_string(stepscope.path("page.html")).unwrap();
    assert!(page.contains("<h2>The step of median length</h2>"));
    assert!(page.contains("<h2>Roofline</h2>"));
}

#[track_caller]
fn refused(args: &[&str], expected: &str) {
    let stepscope = Stepscope::new();
    stepscope.write("empty.json", "");
    stepscope.write("prose.txt", "It was a dark and stormy night.\n");
    stepscope.write(
        "cut.json",
        "{\"schema\": \"stepscope.record/1\", \"points\": [",
    );
    let mut all = vec!["explain"];
    all.extend(args);
    let ran = stepscope.run(&all);
    assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
}

#[test]
fn mistakes_are_one_line_with_a_way_out() {
    let file = result("sglang-bench_one_batch-32b-tp8.log");
    refused(
        &[&file, "--dtype", "fp7"],
        "--dtype fp7: not known; known are",
    );
    refused(
        &[
            &result("vllm-bench-throughput.json"),
            "--model",
            "llama-3.1-8b",
            "--input-len",
            "512",
            "--output-len",
            "256",
        ],
        "--output-len 256: 1000 requests of 512 and 256 tokens make 768000 tokens, and the file counted 640000",
    );
    refused(
        &[&file, "--batch", "3"],
        "--batch 3: the file itself says another value",
    );
    refused(&["nowhere.json"], "cannot read nowhere.json");
    refused(&["empty.json"], "empty.json");
    refused(&["prose.txt"], "prose.txt");
    refused(&["cut.json"], "cut.json");
    refused(&[&file, "--gpu", "rtx4080"], "did you mean rtx4090");
    refused(&[&file, "--model", "qwen2.5-33b"], "did you mean");
    refused(
        &[&file, "--model", "qwen2.5-7b", "--tp", "8"],
        "28 query heads cannot be shared evenly by 8 ranks",
    );
}
