//! `stepscope one-batch` as sglang's users know it.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use support::{Stepscope, TINY, fixture, without_numbers};

#[test]
fn standard_output_is_sglang_s_byte_for_byte() {
    let stepscope = Stepscope::new();
    let ran = stepscope
        .one_batch(&["--batch", "1", "2", "--input", "16", "--output", "1", "4"])
        .success();
    let lines: Vec<String> = ran.stdout.lines().map(without_numbers).collect();
    let prefill = "Prefill. latency: # s, throughput: # token/s";
    let decode = "Decode.  latency: # s, throughput: # token/s";
    let median = "Decode.  median latency: # s, median throughput: # token/s";
    let total = "Total. latency:  # s, throughput: # token/s";
    let squeezed: Vec<String> = lines.iter().map(|l| squeeze(l)).collect();
    let mut expected = vec!["max_total_num_tokens=#", "Warmup ...", prefill];
    expected.extend([decode; 5]);
    expected.extend([median, total, "Benchmark ..."]);
    for _batch in 0..2 {
        expected.extend([prefill, total]);
        expected.extend([prefill, decode, decode, decode, median, total]);
    }
    let expected: Vec<String> = expected.iter().map(|l| squeeze(l)).collect();
    assert_eq!(squeezed, expected);

    // The exact columns of one line of each kind.
    for line in ran
        .stdout
        .lines()
        .filter(|l| l.starts_with("Prefill") || l.starts_with("Decode.  latency"))
    {
        let (head, tail) = line.split_once(" s, throughput: ").unwrap();
        let latency = head.rsplit(' ').next().unwrap();
        assert_eq!(latency.split_once('.').unwrap().1.len(), 5, "{line}");
        let throughput = tail.strip_suffix(" token/s").unwrap();
        assert!(throughput.len() >= 9, "{line}");
        assert_eq!(throughput.split_once('.').unwrap().1.len(), 2, "{line}");
    }
}

/// Padding depends on how large a number is.
fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn sglang_s_own_parsing_finds_the_median_decode_throughput() {
    let stepscope = Stepscope::new();
    let ran = stepscope
        .one_batch(&["--batch-size", "1", "--input", "12", "--output", "8"])
        .success();
    let lines: Vec<&str> = ran.stdout.split('\n').collect();
    let words: Vec<&str> = lines[lines.len() - 3].split(' ').collect();
    let parsed: f64 = words[words.len() - 2].parse().unwrap();
    let result: serde_json::Value = serde_json::from_str(
        std::fs::read_to_string(stepscope.path("result.jsonl"))
            .unwrap()
            .trim(),
    )
    .unwrap();
    let median = result["median_decode_throughput"].as_f64().unwrap();
    assert!((parsed - median).abs() <= 0.005, "{parsed} {median}");
}

#[test]
fn the_result_file_has_sglang_s_keys_in_its_order_and_is_appended() {
    let stepscope = Stepscope::new();
    for run in ["first", "second"] {
        stepscope
            .one_batch(&[
                "--batch",
                "2",
                "--input",
                "8",
                "--output",
                "1",
                "3",
                "--run-name",
                run,
                "--result-filename",
                "out.jsonl",
            ])
            .success();
    }
    let text = std::fs::read_to_string(stepscope.path("out.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    let names: Vec<_> = lines
        .iter()
        .map(|l| l["run_name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["first", "first", "second", "second"]);
    let keys = |line: &serde_json::Value| {
        line.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    let prefill = [
        "run_name",
        "batch_size",
        "input_len",
        "output_len",
        "prefill_latency",
        "prefill_throughput",
    ];
    let total = ["total_latency", "overall_throughput"];
    assert_eq!(keys(&lines[0]), [&prefill[..], &total].concat());
    let decode = ["median_decode_latency", "median_decode_throughput"];
    assert_eq!(keys(&lines[1]), [&prefill[..], &decode, &total].concat());
    let float = |key: &str| lines[1][key].as_f64().unwrap();
    assert_eq!(
        float("prefill_throughput"),
        8.0 * 2.0 / float("prefill_latency")
    );
    assert_eq!(
        float("median_decode_throughput"),
        2.0 / float("median_decode_latency")
    );
    assert_eq!(
        float("overall_throughput"),
        (8.0 + 3.0) * 2.0 / float("total_latency")
    );
}

#[test]
fn latest_prints_the_new_decode_line_and_a_shorter_warm_up() {
    let stepscope = Stepscope::new();
    let ran = stepscope
        .one_batch(&[
            "--compat",
            "latest",
            "--batch",
            "2",
            "--input",
            "8",
            "--output",
            "9",
            "--log-decode-step",
            "7",
        ])
        .success();
    let decodes: Vec<String> = ran
        .stdout
        .lines()
        .filter(|l| l.starts_with("Decode "))
        .map(|l| l.split(", latency").next().unwrap().to_owned())
        .collect();
    let warmup: Vec<String> = (0..5)
        .map(|i| format!("Decode {i}. Batch size: 2"))
        .collect();
    let logged = ["Decode 7. Batch size: 2".to_owned()];
    assert_eq!(decodes, [&warmup[..], &warmup, &logged].concat());
}

#[test]
fn what_does_not_fit_is_skipped_and_the_rest_runs() {
    let stepscope = Stepscope::new();
    let ran = stepscope
        .one_batch(&[
            "--batch",
            "1",
            "1000000000",
            "--input",
            "8",
            "--output",
            "2",
            "--max-total-tokens",
            "64",
        ])
        .success();
    assert!(ran.stdout.contains("max_total_num_tokens=64\n"));
    assert!(
        ran.stdout
            .ends_with("skipping (1000000000, 8, 2) due to max batch size limit\n"),
        "{}",
        ran.stdout
    );
    let record = stepscope.json("runs/default/record.json");
    assert_eq!(record["points"].as_array().unwrap().len(), 1);
    assert_eq!(record["skipped"][0]["batch_size"], 1_000_000_000);
    assert_eq!(
        std::fs::read_to_string(stepscope.path("result.jsonl"))
            .unwrap()
            .lines()
            .count(),
        1
    );
}

#[test]
fn the_record_holds_what_was_measured() {
    let stepscope = Stepscope::new();
    stepscope
        .one_batch(&[
            "--batch",
            "2",
            "--input",
            "20",
            "--output",
            "6",
            "--repetitions",
            "3",
            "--run-name",
            "reps",
        ])
        .success();
    let record = stepscope.json("runs/reps/record.json");
    assert_eq!(record["schema"], "stepscope.record/1");
    assert_eq!(record["complete"], true);
    let point = &record["points"][0];
    let repetitions = point["repetitions"].as_array().unwrap();
    assert_eq!(repetitions.len(), 3);
    for repetition in repetitions {
        assert_eq!(
            repetition["output_ids"], repetitions[0]["output_ids"],
            "greedy decoding repeats itself"
        );
        let steps = repetition["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 6);
        for step in steps {
            let phases = step["phases"].as_array().unwrap();
            let sum: u64 = phases.iter().map(|p| p["host_ns"].as_u64().unwrap()).sum();
            assert_eq!(sum, step["wall_ns"].as_u64().unwrap());
        }
        let operations = steps[0]["operations"].as_array().unwrap();
        let first = operations[0].as_object().unwrap();
        let keys: Vec<_> = first.keys().map(String::as_str).collect();
        for key in [
            "name",
            "kernel",
            "layer",
            "flops",
            "start_ns",
            "duration_ns",
            "timer",
        ] {
            assert!(keys.contains(&key), "{keys:?} lacks {key}");
        }
    }
    assert_eq!(point["decode"]["steps"], 15);
    assert_eq!(
        std::fs::read_to_string(stepscope.path("result.jsonl"))
            .unwrap()
            .lines()
            .count(),
        3
    );
    for file in [
        "prefill.svg",
        "decode.svg",
        "prefill.folded",
        "decode.folded",
        "trace.json",
    ] {
        assert!(stepscope.path("runs/reps").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_second_run_keeps_the_first_one_s_record() {
    let stepscope = Stepscope::new();
    let args = ["--batch", "1", "--input", "4", "--output", "2"];
    stepscope.one_batch(&args).success();
    let first = stepscope.json("runs/default/record.json");
    stepscope.one_batch(&args).success();
    assert_eq!(stepscope.json("runs/default/record.previous.json"), first);
    // A run that measures nothing replaces nothing.
    stepscope
        .run(&["one-batch", "--model", "no-such-model"])
        .error(2, &["no-such-model"]);
    assert!(stepscope.path("runs/default/record.json").is_file());
    assert_eq!(stepscope.json("runs/default/record.previous.json"), first);
}

#[test]
fn reports_are_remade_from_the_record_alone() {
    let stepscope = Stepscope::new();
    let ran = stepscope
        .one_batch(&[
            "--batch", "1", "2", "--input", "8", "--output", "4", "--out", "kept",
        ])
        .success();
    assert!(ran.stderr.contains("forward"), "{}", ran.stderr);
    std::fs::create_dir(stepscope.path("elsewhere")).unwrap();
    std::fs::copy(
        stepscope.path("kept/record.json"),
        stepscope.path("elsewhere/record.json"),
    )
    .unwrap();
    let text = stepscope.run(&["report", "elsewhere"]).success().stdout;
    for phase in [
        "token_pool",
        "kv_alloc",
        "prepare",
        "forward",
        "sample",
        "other",
    ] {
        assert!(text.contains(phase), "{text}");
    }
    let json: serde_json::Value = serde_json::from_str(
        &stepscope
            .run(&["report", "elsewhere/record.json", "--json"])
            .success()
            .stdout,
    )
    .unwrap();
    assert!(json.is_object());
    stepscope.run(&["flamegraph", "elsewhere"]).success();
    stepscope.run(&["trace", "elsewhere"]).success();
    for file in ["prefill.svg", "decode.svg", "decode.folded", "trace.json"] {
        let original = std::fs::read(stepscope.path("kept").join(file)).unwrap();
        let remade = std::fs::read(stepscope.path("elsewhere").join(file)).unwrap();
        assert!(original == remade, "{file} differs when made again");
    }
    stepscope
        .run(&[
            "flamegraph",
            "--diff",
            "kept",
            "elsewhere",
            "--icicle",
            "--out",
            "diff",
        ])
        .success();
    assert!(stepscope.path("diff/decode-diff.svg").is_file());
    stepscope
        .run(&[
            "flamegraph",
            "kept",
            "--point",
            "1",
            "--by-layer",
            "--out",
            "one",
        ])
        .success();
    let folded = std::fs::read_to_string(stepscope.path("one/decode.folded")).unwrap();
    assert!(folded.contains("layer_01"), "{folded}");
}

#[test]
fn traces_are_named_as_sglang_names_them() {
    let stepscope = Stepscope::new();
    let ran = stepscope
        .one_batch(&["--batch", "1", "--input", "4", "--output", "4", "--profile"])
        .success();
    let name = "profile_batch1_input4_output4.trace.json.gz";
    assert!(
        ran.stdout.contains(&format!(
            "\ntorch profiler chrome trace saved to {name}\nDecode.  median"
        )),
        "{}",
        ran.stdout
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(stepscope.path(name)).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(!trace["traceEvents"].as_array().unwrap().is_empty());

    let ran: support::Ran = stepscope
        .command(&[
            "one-batch",
            "--json-model-override-args",
            TINY,
            "--compat",
            "latest",
            "--input",
            "4",
            "--output",
            "4",
            "--profile",
        ])
        .env("SGLANG_TORCH_PROFILER_DIR", stepscope.path("traces"))
        .output()
        .unwrap()
        .into();
    let ran = ran.success();
    for stage in ["prefill", "decode"] {
        let path = stepscope.path(&format!(
            "traces/profile_batch1_input4_output4_{stage}.trace.json.gz"
        ));
        assert!(ran.stdout.contains(&format!(
            "torch profiler chrome trace for {stage} saved to {}",
            path.display()
        )));
        assert!(path.is_file());
    }
}

#[test]
fn prompts_can_come_from_a_file_only_with_a_tokenizer() {
    let stepscope = Stepscope::new();
    stepscope.write("prompts.txt", "hello\nworld\n");
    stepscope
        .run(&[
            "one-batch",
            "--model-path",
            &fixture("mini-llama"),
            "--prompt-filename",
            "prompts.txt",
            "--input",
            "4",
            "--output",
            "2",
        ])
        .error(2, &["mini-llama", "no tokenizer"]);
}

#[test]
fn bad_input_is_one_line_that_names_it() {
    let stepscope = Stepscope::new();
    stepscope.write("empty.txt", "\n\n");
    stepscope.write("file", "");
    for (args, parts) in [
        (
            &["--batch", "0"][..],
            &["'0'", "--batch-size", "at least 1"][..],
        ),
        (&["--input", "-3"], &["-3"]),
        (
            &["--output", "99999999999999999999999"],
            &["99999999999999999999999"],
        ),
        (&["--input", "600"], &["exceeds the context of 512"]),
        (
            &["--context-length", "4096"],
            &["--context-length 4096", "512"],
        ),
        (
            &["--input", "18446744073709551615"],
            &["exceeds the context"],
        ),
        (&["--device", "tpu"], &["tpu", "cuda:N"]),
        (&["--tp", "2"], &["--tp-size 2"]),
        (&["--dtype", "int3"], &["int3", "bfloat16"]),
        (&["--compat", "v9"], &["v9", "latest"]),
        (&["--mem-fraction-static", "1.5"], &["1.5"]),
        (&["--mem-fraction-static", "nan"], &["nan"]),
        (
            &["--max-total-tokens", "8"],
            &["--max-total-tokens 8", "one page"],
        ),
        (&["--temperature", "-1"], &["-1"]),
        (&["--top-p", "0"], &["top_p", "0"]),
        (&["--json-model-override-args", "[1]"], &["JSON object"]),
        (&["--prompt-filename", "missing.txt"], &["missing.txt"]),
        (
            &["--prompt-filename", "empty.txt"],
            &["empty.txt", "one per line"],
        ),
        (
            &["--result-filename", "no/such/folder/out.jsonl"],
            &["no/such/folder/out.jsonl", "--result-filename"],
        ),
        (&["--out", "file/below"], &["file/below", "--out"]),
        (&["--model", "no-such-model"], &["no-such-model"]),
        (&["--frobnicate"], &["--frobnicate"]),
    ] {
        let mut all = vec!["one-batch"];
        if !args.contains(&"--json-model-override-args") {
            all.extend(["--json-model-override-args", TINY]);
        }
        all.extend(args);
        println!("{args:?}");
        let ran = stepscope.run(&all).error(2, parts);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
    stepscope.run(&[]).error_code(2);
    let ran = stepscope.run(&["report", "nowhere"]);
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.stderr,
        "error: cannot read nowhere: No such file or directory (os error 2)\n"
    );
    stepscope
        .run(&["report", "file"])
        .error(2, &["not a stepscope record"]);
}

impl support::Ran {
    fn error_code(self, code: i32) {
        assert_eq!(self.code, code);
    }
}

#[test]
fn a_full_disk_loses_no_finished_point() {
    if !std::path::Path::new("/dev/full").exists() {
        println!("skipped: there is no /dev/full to write to");
        return;
    }
    let stepscope = Stepscope::new();
    let ran = stepscope.one_batch(&[
        "--input",
        "4",
        "--output",
        "2",
        "--result-filename",
        "/dev/full",
    ]);
    let ran = ran.error(1, &["cannot append to the result file /dev/full"]);
    assert!(ran.stdout.contains("Total. latency"));
}

#[test]
fn an_interrupt_keeps_the_finished_points() {
    let stepscope = Stepscope::new();
    let args = [
        "one-batch",
        "--json-model-override-args",
        TINY,
        "--input",
        "16",
        "--output",
        "4",
        "480",
        "--repetitions",
        "1",
        "--batch",
        "1",
        "8",
        "16",
        "32",
    ];
    let mut child = stepscope
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    // After the first point of the benchmark, in the middle of the second.
    lines.find(|l| l == "Benchmark ...").unwrap();
    lines.find(|l| l.starts_with("Total.")).unwrap();
    lines.find(|l| l.starts_with("Prefill.")).unwrap();
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    lines.for_each(drop);
    let ran: support::Ran = child.wait_with_output().unwrap().into();
    let ran = ran.error(1, &["interrupted", "runs/default"]);
    assert!(ran.stderr.contains("press Ctrl-C again"), "{}", ran.stderr);
    let record = stepscope.json("runs/default/record.json");
    assert_eq!(record["complete"], false);
    let points = record["points"].as_array().unwrap().len();
    assert!((1..8).contains(&points), "{points}");
    assert_eq!(
        std::fs::read_to_string(stepscope.path("result.jsonl"))
            .unwrap()
            .lines()
            .count(),
        points
    );
    assert!(
        stepscope
            .run(&["report", "runs/default"])
            .success()
            .stdout
            .contains("interrupted")
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let stepscope = Stepscope::new();
    let args = [
        "one-batch",
        "--json-model-override-args",
        TINY,
        "--input",
        "4",
        "--output",
        "2",
        "--quiet",
    ];
    let mut child = stepscope
        .command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran: support::Ran = child.wait_with_output().unwrap().into();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn quiet_prints_nothing_but_results() {
    let stepscope = Stepscope::new();
    let ran = stepscope
        .one_batch(&["--input", "4", "--output", "2", "--quiet"])
        .success();
    assert_eq!(ran.stderr, "");
    assert!(ran.stdout.starts_with("max_total_num_tokens="));
}

#[test]
fn the_warm_up_is_labelled_where_people_look() {
    let stepscope = Stepscope::new();
    let ran = stepscope
        .one_batch(&["--input", "4", "--output", "2"])
        .success();
    assert!(ran.stderr.contains("are not results"), "{}", ran.stderr);
}

/// Weights × 1.15 + KV + 200 MB, on the real model and on one that is all overhead.
#[test]
fn memory_stays_near_weights_and_kv() {
    let stepscope = Stepscope::new();
    let lengths = ["--batch", "4", "--input", "64", "--output", "2"];
    stepscope.one_batch(&lengths).success();
    check_memory(&stepscope.json("runs/default/record.json"));
    let Some(model) = support::smollm2() else {
        return;
    };
    let args = [&["one-batch", "--model-path", &model][..], &lengths].concat();
    stepscope.run(&args).success();
    check_memory(&stepscope.json("runs/default/record.json"));
}

fn check_memory(record: &serde_json::Value) {
    let memory = |key: &str| record["memory"][key].as_u64();
    let Some(peak) = memory("peak_rss") else {
        println!("skipped: this system does not tell a process's peak memory");
        return;
    };
    let weights = memory("weights").unwrap();
    let allowed = weights * 115 / 100 + memory("kv_used_peak").unwrap() + 200_000_000;
    assert!(
        peak <= allowed,
        "{peak} bytes at the peak, {allowed} allowed"
    );
}

#[test]
fn help_and_completions_work() {
    let stepscope = Stepscope::new();
    let help = stepscope.run(&["one-batch", "--help"]).success().stdout;
    for option in [
        "--batch-size",
        "--input-len",
        "--output-len",
        "--correctness-test",
        "sglang",
    ] {
        assert!(help.contains(option), "{help}");
    }
    assert!(
        stepscope
            .run(&["completions", "bash"])
            .success()
            .stdout
            .contains("one-batch")
    );
    assert!(
        stepscope
            .run(&["--version"])
            .success()
            .stdout
            .starts_with("stepscope ")
    );
}
