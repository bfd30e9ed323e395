//! Result files of other frameworks: what is read from them, and what is refused with which words.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use proptest::prelude::*;
use stepscope_profiler::results::{self, Basis, Format, Import, Load, Percentiles, ResultRow};

const FOLDER: &str = "tests/data/results";

#[track_caller]
fn import(name: &str) -> Import {
    results::read(&Path::new(FOLDER).join(name)).unwrap()
}

#[track_caller]
fn only_row(name: &str, format: Format) -> ResultRow {
    let import = import(name);
    assert_eq!((import.format, import.rows.len()), (format, 1));
    assert_eq!((&*import.rejected, &*import.remarks), (&[][..], &[][..]));
    import.rows.into_iter().next().unwrap()
}

#[track_caller]
fn parse(content: impl AsRef<[u8]>) -> Import {
    results::parse("file", content.as_ref()).unwrap()
}

/// The message of a file without a readable result.
#[track_caller]
fn check_refused(content: impl AsRef<[u8]>, expected: &str) {
    let error = results::parse("file", content.as_ref()).unwrap_err();
    assert!(error.is_input());
    assert_eq!(error.to_string(), expected);
}

/// A line of `bench_one_batch`.
fn one_batch_line(prefill: f64, overall: f64) -> String {
    format!(
        "{{\"run_name\": \"a\", \"batch_size\": 2, \"input_len\": 100, \"output_len\": 1, \"prefill_latency\": {prefill}, \
         \"prefill_throughput\": {}, \"total_latency\": {prefill}, \"overall_throughput\": {overall}}}",
        200.0 / prefill
    )
}

#[track_caller]
fn close(actual: Option<f64>, expected: f64) {
    let actual = actual.unwrap();
    assert!(
        (actual - expected).abs() <= 1e-9 * expected.abs(),
        "{actual} instead of {expected}"
    );
}

#[test]
fn one_batch_in_its_loose_form() {
    let import = import("sglang-bench_one_batch-32b-tp8.log");
    assert_eq!(import.format, Format::SglangOneBatch);
    assert!(import.rejected.is_empty() && import.remarks.is_empty());
    let lines: Vec<_> = import.rows.iter().map(|row| row.line.unwrap()).collect();
    assert_eq!(lines, [3, 12, 24, 35]);
    let row = &import.rows[1];
    assert_eq!(row.load, Load::StaticBatch(4));
    assert_eq!(row.label.as_deref(), Some("test_run"));
    close(row.ttft.as_ref().unwrap().median_s, 3.58247447013855);
    close(row.tpot.as_ref().unwrap().median_s, 0.018887758255004883);
    assert_eq!(row.tpot.as_ref().unwrap().basis, Basis::DecodeStep);
    assert_eq!(row.tpot.as_ref().unwrap().mean_s, None);
    close(row.rates.total_tokens_per_s, 356.64817467091535);
    close(row.rates.output_tokens_per_s, 4096.0 / 22.969415187835693);
    assert!(row.derived.contains(&"rates.output_tokens_per_s"));
    assert!(row.remarks.is_empty(), "{:?}", row.remarks);
    assert_eq!(import.rows[0].tpot, None);
}

#[test]
fn both_versions_of_one_batch_s_output() {
    for (name, expected, warmups) in [
        (
            "sglang-bench_one_batch-32b-tp8.stdout.txt",
            [(4, 1024, 1), (4, 1024, 1024), (8, 1024, 1), (8, 1024, 1024)],
            1,
        ),
        (
            "sglang-0.5.11-cpu-smollm2.stdout.txt",
            [(1, 256, 1), (1, 256, 32), (4, 256, 1), (4, 256, 32)],
            1,
        ),
    ] {
        let import = import(name);
        assert_eq!(import.format, Format::SglangOneBatchOutput);
        assert_eq!(import.warmup.len(), warmups);
        let points: Vec<_> = import
            .rows
            .iter()
            .map(|row| {
                let Load::StaticBatch(batch_size) = row.load else {
                    panic!("{:?}", row.load);
                };
                let tokens = |length: Option<results::Length>| length.unwrap().tokens as u64;
                (batch_size, tokens(row.input_len), tokens(row.output_len))
            })
            .collect();
        assert_eq!(points, expected);
        for row in import.rows.iter().chain(&import.warmup) {
            assert!(row.remarks.is_empty(), "{:?}", row.remarks);
        }
    }
    let import = import("sglang-bench_one_batch-32b-tp8.stdout.txt");
    assert_eq!(import.warmup[0].first_decode_steps_s[0], 2.03403);
    assert_eq!(
        import.rows[1].first_decode_steps_s,
        [0.03126, 0.01914, 0.01905, 0.01889, 0.01888]
    );
    close(import.rows[1].tpot.as_ref().unwrap().median_s, 0.01889);
}

/// The same run, once as its result file and once as what it printed.
#[test]
fn output_and_result_file_agree() {
    let files = import("sglang-0.5.11-cpu-smollm2.jsonl").rows;
    let printed = import("sglang-0.5.11-cpu-smollm2.stdout.txt").rows;
    for (file, printed) in files.iter().zip(&printed) {
        assert_eq!(
            (file.load, file.input_len, file.output_len),
            (printed.load, printed.input_len, printed.output_len)
        );
        let difference =
            file.rates.total_tokens_per_s.unwrap() - printed.rates.total_tokens_per_s.unwrap();
        assert!(difference.abs() <= 0.005);
    }
}

#[test]
fn offline_throughput() {
    let row = only_row(
        "sglang-bench_offline_throughput.jsonl",
        Format::SglangOfflineThroughput,
    );
    assert_eq!(row.requests, Some(10));
    assert_eq!(row.input_len.unwrap().tokens, 250.0);
    assert_eq!(row.duration_s, Some(12.5));
    assert_eq!(row.rates.total_tokens_per_s, Some(360.0));
    assert_eq!(row.remarks, [""; 0]);
}

#[test]
fn serving_of_the_older_version() {
    let row = only_row("sglang-bench_serving.jsonl", Format::SglangServing);
    assert_eq!(
        row.load,
        Load::Concurrency {
            limit: Some(16.0),
            mean: Some(10.72)
        }
    );
    assert_eq!(row.workload["request_rate"], "4.0");
    let ttft = row.ttft.unwrap();
    assert_eq!(ttft.basis, Basis::ClientFirstToken);
    assert_eq!((ttft.mean_s, ttft.p99_s), (Some(0.13), Some(0.31)));
    assert_eq!(ttft.percentiles, Some(Percentiles::Linear));
    assert_eq!(row.itl.unwrap().basis, Basis::PerChunk);
    assert_eq!(row.rates.total_tokens_per_s, Some(5120.0));
    assert!(row.derived.contains(&"rates.total_tokens_per_s"));
    assert!(row.input_len.unwrap().realised && !row.output_len.unwrap().realised);
    assert!(row.remarks[0].starts_with("This version of bench_serving writes the output length"));
    assert_eq!(row.remarks.len(), 1, "{:?}", row.remarks);
}

#[test]
fn serving_of_the_newer_version_with_python_s_infinity_and_details() {
    let import = parse(
        "{\"tag\": null, \"backend\": \"sglang\", \"dataset_name\": \"random\", \"request_rate\": Infinity, \"max_concurrency\": null, \
         \"random_input_len\": 100, \"random_output_len\": 20, \"random_range_ratio\": 0.5, \"duration\": 2.0, \"completed\": 2, \
         \"total_input_tokens\": 160, \"total_output_tokens\": 30, \"total_throughput\": 95.0, \"mean_ttft_ms\": 20.0, \
         \"p99_ttft_ms\": NaN, \"input_lens\": [75, 85], \"output_lens\": [10, 20], \"errors\": [\"\", \"\"]}\n",
    );
    let row = &import.rows[0];
    assert_eq!(row.workload["request_rate"], "Infinity");
    assert_eq!(row.workload["random_range_ratio"], "0.5");
    assert_eq!(row.input_len.unwrap().tokens, 80.0);
    assert!(row.output_len.unwrap().realised);
    assert_eq!(row.ttft.as_ref().unwrap().p99_s, None);
    assert_eq!(
        row.remarks,
        [
            "Lengths differ from request to request: they were drawn from 50 to 100 prompt tokens and 10 to 20 generated ones.",
            "p99_ttft_ms is NaN, so it is left out."
        ]
    );
}

#[test]
fn both_versions_of_one_batch_server_mean_another_output_rate() {
    let old = "{\"run_name\": \"a\", \"batch_size\": 2, \"input_len\": 100, \"output_len\": 10, \"latency\": 2.0, \
               \"output_throughput\": 10.0, \"overall_throughput\": 110.0}";
    let new = "{\"run_name\": \"a\", \"batch_size\": 2, \"input_len\": 100, \"output_len\": 10, \"latency\": 2.0, \
               \"last_ttft\": 1.0, \"input_throughput\": 200.0, \"output_throughput\": 20.0, \"overall_throughput\": 110.0}";
    let import = parse(format!("{old}\n{new}\n"));
    assert_eq!(import.format, Format::SglangOneBatchServer);
    let [old, new] = import.rows.as_slice() else {
        panic!("{import:?}");
    };
    assert_eq!(
        (old.rates.output_tokens_per_s, old.rates.decode_tokens_per_s),
        (Some(10.0), None)
    );
    assert_eq!(
        (new.rates.output_tokens_per_s, new.rates.decode_tokens_per_s),
        (Some(10.0), Some(20.0))
    );
    assert_eq!(new.rates.decode_basis, Some(Basis::AfterFirstToken));
    assert!(old.remarks.is_empty() && new.remarks.is_empty());
}

#[test]
fn vllm_s_three_forms() {
    let latency = only_row("vllm-bench-latency.json", Format::VllmLatency);
    let e2e = latency.e2e.unwrap();
    assert_eq!(e2e.basis, Basis::WholeCall);
    assert_eq!(
        (e2e.mean_s, e2e.median_s, e2e.p99_s),
        (Some(2.0), Some(2.0), Some(2.0291))
    );
    assert_eq!(
        (latency.load, latency.repetitions),
        (Load::Unknown, Some(10))
    );

    let throughput = only_row("vllm-bench-throughput.json", Format::VllmThroughput);
    assert_eq!(throughput.rates.total_tokens_per_s, Some(12800.0));
    assert_eq!(throughput.rates.output_tokens_per_s, None);

    let serve = only_row("vllm-bench-serve.json", Format::VllmServe);
    assert_eq!(serve.model.as_deref(), Some("Qwen/Qwen2.5-7B-Instruct"));
    assert_eq!(serve.input_len.unwrap().tokens, 1024.0);
    assert_eq!(serve.rates.input_tokens_per_s, Some(5120.0));
    assert_eq!(serve.tpot.unwrap().mean_s, Some(0.0116));
    assert_eq!(serve.e2e, None);
    assert_eq!(serve.remarks, [""; 0]);
}

#[test]
fn tensorrt_llm_s_percentiles_are_no_interpolation() {
    let row = only_row("trtllm-bench-throughput.json", Format::TrtllmBench);
    assert_eq!(row.version.as_deref(), Some("1.2.0"));
    assert_eq!((row.tp, row.pp), (Some(1), Some(1)));
    assert_eq!(row.dtype.as_deref(), Some("bfloat16"));
    let ttft = row.ttft.unwrap();
    assert_eq!(ttft.basis, Basis::EngineFirstToken);
    assert_eq!((ttft.mean_s, ttft.median_s), (Some(0.18), Some(0.17)));
    assert_eq!(ttft.percentiles, Some(Percentiles::NearestRank));
    assert_eq!(row.rates.output_tokens_per_s, Some(4096.0));
    assert_eq!(row.remarks, [""; 0]);
}

#[test]
fn tensorrt_llm_without_streaming_and_as_its_plain_statistics() {
    let report = "{\"engine\": {\"model\": \"m\", \"version\": \"0.17.0\", \"backend\": \"TRT\", \"dtype\": \"float16\", \"quantization\": \"FP8\"}, \
                  \"request_info\": {\"num_requests\": 4, \"avg_input_length\": 10.0, \"avg_output_length\": 5.0}, \
                  \"performance\": {\"total_latency_ms\": 2000.0, \"request_throughput_req_s\": 2.0}}";
    let statistics = "{\"total_latency_ns\": 2e9, \"total_output_tokens\": 20, \"total_input_tokens\": 40, \"num_requests\": 4, \
                      \"request_throughput_ns\": 2e-9, \"tpot_percentiles\": {\"p50\": 1e7, \"p99\": 2e7, \"average\": 1.1e7}}";
    let import = parse(format!("{report}\n{statistics}"));
    let [report, statistics] = import.rows.as_slice() else {
        panic!("{import:?}");
    };
    assert_eq!(report.dtype.as_deref(), Some("FP8"));
    assert_eq!(
        (report.ttft.as_ref(), report.rates.requests_per_s),
        (None, Some(2.0))
    );
    close(statistics.rates.requests_per_s, 2.0);
    close(statistics.tpot.as_ref().unwrap().median_s, 0.01);
    close(statistics.rates.output_tokens_per_s, 10.0);
}

#[test]
fn lmdeploy_s_tables() {
    let row = only_row("lmdeploy-profile_throughput.csv", Format::LmdeployProfiler);
    assert_eq!(
        row.load,
        Load::Concurrency {
            limit: Some(64.0),
            mean: None
        }
    );
    assert_eq!(row.ttft.unwrap().basis, Basis::EngineFirstToken);
    close(row.rates.total_tokens_per_s, 28800.0);
    assert_eq!(row.remarks, [""; 0]);
}

#[test]
fn tables_that_were_appended_to_and_have_dashes() {
    let header = "backend,dataset_name,sharegpt_output_len,random_input_len,random_output_len,random_range_ratio,request_rate,completed,\
                  total_input_tokens,total_output_tokens,duration,request_throughput,input_throughput,output_throughput,\
                  mean_e2e_latency_ms,mean_ttft_ms,mean_tpot_ms,mean_itl_ms";
    let row = "lmdeploy,random,,100,20,1.0,inf,10,1000,200,5.0,2.0,200.0,40.0,900.0,-,40.0,-";
    let import = parse(format!(
        "{header}\r\n{row}\r\n{header}\r\n{row}\r\nlmdeploy,random,,100"
    ));
    assert_eq!(
        (import.format, import.rows.len()),
        (Format::LmdeployRestful, 2)
    );
    assert_eq!((&import.rows[0].ttft, &import.rows[0].itl), (&None, &None));
    assert_eq!(import.rows[1].line, Some(4));
    assert_eq!(import.rejected[0].line, 5);
    assert_eq!(
        import.rejected[0].reason,
        "it has 4 cells where the header has 18; was it cut off?"
    );
}

#[test]
fn llama_bench_s_five_forms_say_the_same() {
    let import = import("llama-bench.jsonl");
    let [prompt, generation] = import.rows.as_slice() else {
        panic!("{import:?}");
    };
    assert_eq!(prompt.ttft.as_ref().unwrap().mean_s, Some(0.064));
    assert_eq!(prompt.rates.prefill_tokens_per_s, Some(8000.0));
    assert_eq!(prompt.dtype.as_deref(), Some("F16"));
    assert_eq!(prompt.gpu.as_deref(), Some("NVIDIA H100 80GB HBM3"));
    close(
        generation.tpot.as_ref().unwrap().mean_s,
        914285714e-9 / 128.0,
    );
    assert_eq!(
        generation.tpot.as_ref().unwrap().basis,
        Basis::GenerationWithoutSampling
    );
    assert_eq!(generation.repetitions, Some(3));
    assert_eq!(prompt.remarks, [""; 0]);

    let text = std::fs::read_to_string(Path::new(FOLDER).join("llama-bench.jsonl")).unwrap();
    let objects: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let json = parse(serde_json::to_string_pretty(&objects).unwrap());
    assert_eq!(
        json.rows[1],
        ResultRow {
            line: json.rows[1].line,
            ..generation.clone()
        }
    );

    let keys = [
        "build_commit",
        "build_number",
        "gpu_info",
        "backends",
        "model_filename",
        "model_type",
        "n_prompt",
        "n_gen",
        "n_depth",
        "avg_ns",
        "stddev_ns",
        "avg_ts",
        "stddev_ts",
    ];
    let plain = |value: &serde_json::Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let quoted = |quote: &str, object: &serde_json::Value| -> String {
        keys.map(|key| format!("{quote}{}{quote}", plain(&object[key])))
            .join(",")
    };
    let csv = parse(format!(
        "{}\n{}\n{}\n",
        keys.join(","),
        quoted("\"", &objects[0]),
        quoted("\"", &objects[1])
    ));
    assert_eq!(csv.format, Format::LlamaBenchCsv);
    let inserts: String = objects
        .iter()
        .map(|object| {
            format!(
                "INSERT INTO llama_bench ({}) VALUES ({});\n",
                keys.join(", "),
                quoted("'", object)
            )
        })
        .collect();
    let sql = parse(format!(
        "CREATE TABLE IF NOT EXISTS llama_bench (\n  build_commit TEXT,\n  avg_ts REAL\n);\n\n{inserts}"
    ));
    assert_eq!(sql.format, Format::LlamaBenchSql);
    for import in [csv, sql] {
        for (row, expected) in import.rows.iter().zip([prompt, generation]) {
            assert_eq!(
                (&row.rates, &row.model, &row.gpu, &row.version),
                (
                    &expected.rates,
                    &expected.model,
                    &expected.gpu,
                    &expected.version
                )
            );
            assert!(import.remarks.is_empty() && import.rejected.is_empty());
        }
    }
    let markdown = parse(
        "| model                          |       size |     params | backend    | ngl |            test |                  t/s |\n\
         | ------------------------------ | ---------: | ---------: | ---------- | --: | --------------: | -------------------: |\n\
         | qwen2 7B F16                   |  14.19 GiB |     7.62 B | CUDA       |  99 |           pp512 |      8000.00 ± 50.00 |\n\
         | qwen2 7B F16                   |  14.19 GiB |     7.62 B | CUDA       |  99 |   tg128 @ d1024 |        140.00 ± 0.77 |\n\
         | qwen2 7B F16                   |  14.19 GiB |     7.6\n\n\
         build: 0104b151 (7000)\n",
    );
    assert_eq!(
        (markdown.format, markdown.rows.len()),
        (Format::LlamaBenchMarkdown, 2)
    );
    let row = &markdown.rows[1];
    assert_eq!(row.rates.decode_tokens_per_s, Some(140.0));
    assert_eq!(row.rates.std_tokens_per_s, Some(0.77));
    assert_eq!(row.kv_depth, Some(1024.0));
    assert_eq!(row.version.as_deref(), Some("0104b151 (7000)"));
    assert!(row.derived.contains(&"tpot"));
    assert_eq!(markdown.rejected[0].line, 5);
}

#[test]
fn our_own_records_give_medians() {
    let import = results::read(Path::new("tests/sample/record.json")).unwrap();
    assert_eq!(import.format, Format::Record);
    let row = &import.rows[0];
    assert_eq!(row.repetitions, Some(2));
    let ttft = row.ttft.as_ref().unwrap();
    assert_eq!(ttft.basis, Basis::PrefillStep);
    assert!(ttft.median_s.is_some() && ttft.std_s.is_some());
    assert!(row.tpot.is_some() && row.rates.decode_tokens_per_s.is_some());
    assert_eq!(row.first_decode_steps_s.len(), 1);
}

#[test]
fn several_forms_in_one_file_with_marks_and_line_ends_of_windows() {
    let line = one_batch_line(0.5, 404.0);
    let serving =
        std::fs::read_to_string(Path::new(FOLDER).join("sglang-bench_serving.jsonl")).unwrap();
    let content = format!("\u{feff}{line}\r\nsome log\r\n{serving}\r\n{}", &line[..60]);
    let utf16: Vec<u8> = content.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for import in [parse(&content), parse(utf16)] {
        assert_eq!(
            (import.format, import.rows.len()),
            (Format::SglangOneBatch, 2)
        );
        assert_eq!(
            import.remarks,
            [
                "The file holds results of several forms: sglang bench_one_batch (JSON lines), and sglang bench_serving.",
                "Line 2 is of no form that is known."
            ]
        );
        assert_eq!(import.rejected.len(), 1);
        assert_eq!(
            import.rejected[0].reason,
            "it ends early; was the run or the copy of it interrupted?"
        );
    }
}

#[test]
fn a_run_that_was_interrupted_loses_its_last_measurement_only() {
    let text =
        std::fs::read_to_string(Path::new(FOLDER).join("sglang-0.5.11-cpu-smollm2.stdout.txt"))
            .unwrap();
    let cut = text.len() - 120;
    let import = parse(&text[..cut]);
    assert_eq!((import.rows.len(), import.rejected.len()), (3, 1));
    assert_eq!(import.rejected[0].line, 18);
}

#[test]
fn what_holds_no_result_says_so() {
    check_refused("", "file holds no result: it is empty");
    check_refused("\u{feff} \n", "file holds no result: it is empty");
    check_refused(
        "{\"a\": 1, \"b\": 2}",
        "file holds no result that can be read: line 1: an object with a, b is of no form that is known",
    );
    check_refused(
        "{}",
        "file holds no result that can be read: line 1: it is an object without content",
    );
    check_refused(
        "\n{\"batch_size\": 4, \"input_len\": 1024, \"output_len\": 16, \"prefill_latency\": \"fast\"}",
        "file holds no result that can be read: line 2: \"prefill_latency\" is \"fast\", where sglang bench_one_batch (JSON lines) has a number",
    );
    check_refused(
        "{\"prefill_latency\": 1.0}",
        "file holds no result that can be read: line 1: \"batch_size\" is missing; sglang bench_one_batch (JSON lines) has a number of requests there",
    );
    check_refused(
        format!("{0}\n{0}", one_batch_line(-0.5, 404.0)),
        "file holds no result that can be read: line 1: \"prefill_latency\" is -0.5; seconds of the prefill step must be above 0 (and 1 more)",
    );
    check_refused(
        "{\"schema\": \"stepscope.record/9\"}",
        "file holds no result that can be read: line 1: it is no record of this program: missing field `program`",
    );
    let error = results::parse("notes.txt", b"hello, world\n")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("notes.txt is in no form that is known; these are: sglang bench_one_batch (JSON lines), "),
        "{error}"
    );
    assert!(error.ends_with("stepscope record"), "{error}");
    let error = results::read(Path::new("no/such/file.jsonl"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot read no/such/file.jsonl: "),
        "{error}"
    );
}

/// The remarks of a serving result in which some fields have other values.
#[track_caller]
fn check_contradiction(changes: &[(&str, f64)], expected: &str) {
    let text =
        std::fs::read_to_string(Path::new(FOLDER).join("sglang-bench_serving.jsonl")).unwrap();
    let mut object: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in changes {
        object[*key] = (*value).into();
    }
    let import = parse(object.to_string());
    assert_eq!(import.rows[0].remarks[1..], [expected]);
}

#[test]
fn contradictions_are_named_with_both_figures() {
    let import = parse(one_batch_line(0.5, 300.0));
    assert_eq!(
        import.rows[0].remarks,
        ["The total rate is 300 token/s, but 202 tokens in 0.5000 s are 404 token/s."]
    );
    check_contradiction(
        &[("output_throughput", 2000.0)],
        "The output rate is 2000 token/s, but 61440 tokens in 60 s are 1024 token/s.",
    );
    check_contradiction(
        &[("p99_ttft_ms", 125.0)],
        "The 99th percentile of TTFT, 125.0 ms, is below its mean, 130.0 ms, which takes a few values far above all others.",
    );
    check_contradiction(
        &[
            ("concurrency", 16.5),
            ("mean_e2e_latency_ms", 4125.0),
            ("mean_ttft_ms", 1575.0),
            ("p99_ttft_ms", 2000.0),
            ("p99_e2e_latency_ms", 5000.0),
        ],
        "16.50 requests were in flight on average, more than the limit of 16.",
    );
}

#[test]
fn latencies_in_the_wrong_unit_are_noticed() {
    let text =
        std::fs::read_to_string(Path::new(FOLDER).join("lmdeploy-profile_throughput.csv")).unwrap();
    let import = parse(text.replace(",17.953,17.953", ",0.017953,0.017953"));
    assert_eq!(
        import.rows[0].remarks,
        [
            "The end-to-end latency is 2.520 s, but a first token after 240.0 ms and 127 more at 17.95 µs make 242.3 ms."
        ]
    );
    let import = parse(text.replace("2520.0,240.0,17.953", "2520000.0,240000.0,17953.0"));
    assert!(
        import.rows[0].remarks.iter().any(|r| r == "E2E is 2520 s, longer than the whole run of 20.00 s; are its units what they should be?"),
        "{:?}",
        import.rows[0].remarks
    );
}

/// Every fixture, and a few lines that are none.
fn seeds() -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

proptest! {
    #[test]
    fn any_bytes_are_rows_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = results::parse("file", &bytes);
    }

    #[test]
    fn any_cut_and_any_changed_byte_are_rows_or_an_error(
        seed in 0_usize..13, cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let seeds = seeds();
        let mut bytes = seeds[seed % seeds.len()].clone();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(import) = results::parse("file", &bytes) {
            let lines = bytes.iter().filter(|&&b| b == b'\n').count() + 1;
            for row in &import.rows {
                prop_assert!(row.line.unwrap() <= lines);
            }
            serde_json::to_string(&import).unwrap();
        }
    }

    /// A file that breaks off keeps every row before the break.
    #[test]
    fn a_cut_file_keeps_its_whole_lines(cut in 0.0..1.0_f64) {
        let text = std::fs::read_to_string(Path::new(FOLDER).join("sglang-0.5.11-cpu-smollm2.jsonl")).unwrap();
        let length = (text.len() as f64 * cut) as usize;
        let whole = text[..length].matches('}').count();
        match results::parse("file", &text.as_bytes()[..length]) {
            Ok(import) => prop_assert_eq!(import.rows.len(), whole),
            Err(_) => prop_assert_eq!(whole, 0),
        }
    }

    #[test]
    fn numbers_in_any_spelling(latency in 1e-6..1e3_f64, exponent in any::<bool>()) {
        let spelled = if exponent { format!("{latency:e}") } else { format!("{latency}") };
        let line = format!(
            "{{\"batch_size\": 1, \"input_len\": 1, \"output_len\": 1.0, \"prefill_latency\": {spelled}, \"total_latency\": \"{spelled}\"}}"
        );
        let row = parse(line).rows.remove(0);
        prop_assert_eq!(row.ttft.unwrap().mean_s, Some(latency));
        prop_assert_eq!(row.duration_s, Some(latency));
    }
}
