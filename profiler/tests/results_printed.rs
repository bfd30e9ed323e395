//! What benchmarks of servers print, read beside their result files; and rates per user and per GPU.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use stepscope_profiler::results::{self, Format, Import, ResultRow};

const FOLDER: &str = "tests/data/results";

#[track_caller]
fn only_row(name: &str, format: Format) -> ResultRow {
    let import = results::read(&Path::new(FOLDER).join(name)).unwrap();
    assert_eq!((import.format, import.rows.len()), (format, 1));
    import.rows.into_iter().next().unwrap()
}

#[track_caller]
fn parse(content: impl AsRef<str>) -> Import {
    results::parse("file", padded(content.as_ref()).as_bytes()).unwrap()
}

/// The text with the blanks that the programs fill a value's column with, which source files cannot have.
fn padded(text: &str) -> String {
    let lines = text.split('\n').map(|line| match line.contains(":  ") {
        true => format!("{line:<51}"),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check_refused(content: impl AsRef<[u8]>, expected: &str) {
    let error = results::parse("file", content.as_ref()).unwrap_err();
    assert!(error.is_input());
    assert_eq!(error.to_string(), expected);
}

#[track_caller]
fn close(actual: Option<f64>, expected: f64) {
    let actual = actual.unwrap();
    assert!(
        (actual - expected).abs() <= 1e-9 * expected.abs(),
        "{actual} instead of {expected}"
    );
}

/// The same made-up run as its result file and as what the program would have printed, with the lines of sglang's source.
const SGLANG_SERVING: &str = "\
#Input tokens: 245760
Starting warmup with 1 sequences...
Warmup completed with 1 sequences. Starting main benchmark run...
100%|██████████| 240/240 [01:00<00:00,  4.00it/s]

============ Serving Benchmark Result ============
Backend:                                 sglang
Traffic request rate:                    4.0
Max request concurrency:                 16
Successful requests:                     240
Benchmark duration (s):                  60.00
Total input tokens:                      245760
Total input text tokens:                 245760
Total input vision tokens:               0
Total generated tokens:                  61440
Total generated tokens (retokenized):    61391
Request throughput (req/s):              4.00
Input token throughput (tok/s):          4096.00
Output token throughput (tok/s):         1024.00
Peak output token throughput (tok/s):    1180.00
Peak concurrent requests:                16
Total token throughput (tok/s):          5120.00
Concurrency:                             10.72
----------------End-to-End Latency----------------
Mean E2E Latency (ms):                   2680.00
Median E2E Latency (ms):                 2650.00
---------------Time to First Token----------------
Mean TTFT (ms):                          130.00
Median TTFT (ms):                        120.00
P99 TTFT (ms):                           310.00
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          10.00
Median TPOT (ms):                        9.90
P99 TPOT (ms):                           12.10
---------------Inter-Token Latency----------------
Mean ITL (ms):                           10.00
Median ITL (ms):                         9.40
P95 ITL (ms):                            20.00
P99 ITL (ms):                            24.00
Max ITL (ms):                            40.00
==================================================
";

#[test]
fn what_bench_serving_prints_agrees_with_its_file() {
    let printed = parse(SGLANG_SERVING);
    assert_eq!(printed.format, Format::SglangServingOutput);
    assert_eq!((&*printed.rejected, &*printed.remarks), (&[][..], &[][..]));
    let file = only_row("sglang-bench_serving.jsonl", Format::SglangServing);
    let row = &printed.rows[0];
    assert_eq!(row.load, file.load);
    assert_eq!(row.requests, file.requests);
    assert_eq!(row.total_output_tokens, file.total_output_tokens);
    close(row.ttft.as_ref().unwrap().p99_s, 0.31);
    close(row.tpot.as_ref().unwrap().median_s, 0.0099);
    close(row.e2e.as_ref().unwrap().mean_s, 2.68);
    close(row.rates.output_tokens_per_s, 1024.0);
    assert_eq!(row.workload["request_rate"], "4.0");
    assert!(row.remarks.is_empty(), "{:?}", row.remarks);
}

const VLLM_SERVE: &str = "\
Namespace(subparser='bench', bench_type='serve', backend='openai', model='Qwen/Qwen2.5-7B-Instruct', dataset_name='random', \
random_input_len=1024, random_output_len=128, random_range_ratio=0.0, request_rate=inf, max_concurrency=8)
Starting initial single prompt test run...
Traffic request rate: inf
Burstiness factor: 1.0 (Poisson process)
Maximum request concurrency: 8
100%|██████████| 200/200 [00:40<00:00,  5.00it/s]
============ Serving Benchmark Result ============
Successful requests:                     200
Failed requests:                         3
Maximum request concurrency:             8
Benchmark duration (s):                  40.00
Total input tokens:                      204800
Total generated tokens:                  25600
Request throughput (req/s):              5.00
Output token throughput (tok/s):         640.00
Peak output token throughput (tok/s):    812.00
Peak concurrent requests:                12.00
Total Token throughput (tok/s):          5760.00
---------------Time to First Token----------------
Mean TTFT (ms):                          95.00
Median TTFT (ms):                        90.00
P99 TTFT (ms):                           180.00
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          11.60
Median TPOT (ms):                        11.50
P99 TPOT (ms):                           13.00
---------------Inter-token Latency----------------
Mean ITL (ms):                           11.60
Median ITL (ms):                         11.20
P99 ITL (ms):                            21.00
==================================================
";

#[test]
fn what_vllm_bench_serve_prints_is_read_with_its_arguments() {
    let printed = parse(VLLM_SERVE);
    assert_eq!(printed.format, Format::VllmServeOutput);
    let file = only_row("vllm-bench-serve.json", Format::VllmServe);
    let row = &printed.rows[0];
    assert_eq!((&row.model, row.load), (&file.model, file.load));
    assert_eq!(row.workload["request_rate"], "inf");
    close(row.rates.total_tokens_per_s, 5760.0);
    close(row.itl.as_ref().unwrap().median_s, 0.0112);
    assert_eq!(
        row.remarks,
        ["3 of 203 requests failed and are in no figure."]
    );
    // Two runs one after the other, the second one cut off before its rule.
    let both = format!("{VLLM_SERVE}{}", VLLM_SERVE.replace(&"=".repeat(50), ""));
    assert_eq!(parse(&both).rows.len(), 2);
}

/// A request every 16 seconds is printed as 0.06 requests/s, which is 7 % off: it is computed instead, and contradicts nothing.
#[test]
fn printed_rates_of_which_rounding_left_too_little_are_computed() {
    let text = "============ Serving Benchmark Result ============
Backend:                                 sglang
Successful requests:                     50
Benchmark duration (s):                  890.81
Total input tokens:                      204800
Total generated tokens:                  76800
Request throughput (req/s):              0.06
==================================================";
    let import = parse(text);
    let row = &import.rows[0];
    close(row.rates.requests_per_s, 50.0 / 890.81);
    assert!(row.derived.contains(&"rates.requests_per_s"));
    // The older version says nothing of where its output length comes from.
    assert_eq!(row.remarks.len(), 1, "{:?}", row.remarks);
}

#[test]
fn what_offline_throughput_prints() {
    let text = "====== Offline Throughput Benchmark Result =======
Backend:                                 engine
Successful requests:                     10
Benchmark duration (s):                  12.50
Total input tokens:                      2500
Total generated tokens:                  2000
Request throughput (req/s):              0.80
Input token throughput (tok/s):          200.00
Output token throughput (tok/s):         160.00
Total token throughput (tok/s):          360.00
==================================================";
    let import = parse(text);
    assert_eq!(import.format, Format::SglangOfflineThroughputOutput);
    let file = only_row(
        "sglang-bench_offline_throughput.jsonl",
        Format::SglangOfflineThroughput,
    );
    close(import.rows[0].rates.total_tokens_per_s, 360.0);
    assert_eq!(import.rows[0].input_len, file.input_len);
    // A block that says nothing is no result.
    check_refused(
        "============ Serving Benchmark Result ============\n",
        "file holds no result that can be read: line 1: \"completed\" is missing; vllm bench serve (what it prints) has a number of \
         requests there",
    );
}

#[test]
fn rates_per_user_and_gpu_are_held_against_the_others() {
    let row = only_row("trtllm-bench-throughput.json", Format::TrtllmBench);
    close(row.rates.output_tokens_per_s_per_user, 64.1);
    close(row.rates.output_tokens_per_s_per_gpu, 4096.0);
    let text =
        std::fs::read_to_string(Path::new(FOLDER).join("trtllm-bench-throughput.json")).unwrap();
    let wrong = text
        .replace("\"tp_size\": 1", "\"tp_size\": 4")
        .replace("per_user_tok_s\": 64.1", "per_user_tok_s\": 640.1");
    assert_eq!(
        parse(&wrong).rows[0].remarks,
        [
            "The output rate per GPU is 4096 token/s, but 4096 token/s over 4 GPUs are 1024.",
            "The output rate per user is 640.1 token/s, but 128 tokens in 1.996 s are 64.13.",
        ]
    );
}
