//! `stepscope lab` and `stepscope tune`, as a person uses them, on the emulated device.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;
use support::{Ran, Stepscope, fixture, has_compiler};

const OPERATION: &str = "silu_mul";

/// A folder with the starting file of `silu_mul`, changed.
fn with_kernel(change: impl Fn(String) -> String) -> Stepscope {
    let stepscope = Stepscope::new();
    stepscope
        .run(&["lab", "new", OPERATION, "--out", "k.cu"])
        .success();
    let text = std::fs::read_to_string(stepscope.path("k.cu")).unwrap();
    stepscope.write("k.cu", change(text));
    stepscope
}

fn lab(stepscope: &Stepscope, args: &[&str]) -> Ran {
    let mut all = vec!["lab", OPERATION, "--device", "emulated"];
    if !args.contains(&"--shape") {
        all.extend(["--shape", "rows=4,width=100"]);
    }
    all.extend(args);
    stepscope.run(&all)
}

fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap()
}

/// Whether a line has these words, whatever the space between them.
fn has_row(ran: &Ran, words: &str) -> bool {
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    ran.stdout.lines().any(|line| plain(line) == words)
}

#[test]
fn a_new_kernel_is_checked_beside_the_builtin_one() {
    if !has_compiler() {
        return;
    }
    let stepscope = with_kernel(|text| text);
    stepscope
        .run(&["lab", "new", OPERATION, "--out", "k.cu"])
        .error(2, &["k.cu cannot be written: it is there already"]);
    let ran = lab(&stepscope, &["--kernel", "k.cu"]).success();
    for text in [
        "silu_mul at rows=4,width=100,dtype=bf16; emulated device of compute capability 9.0",
        "k.cu: my_silu_mul, grid 2 × 1 × 1, block 256 × 1 × 1",
        "builtin: silu_mul<bf16,",
        "out: all 400 elements are right; the worst is out[",
        "registers of a thread",
        "sectors of a load",
        "no times: an emulated device has none",
        "results are right; nothing was found",
    ] {
        assert!(
            ran.stdout.contains(text),
            "{text:?} is not in\n{}",
            ran.stdout
        );
    }
    assert!(!ran.stdout.contains("µs"), "{}", ran.stdout);
    let json = document(&lab(&stepscope, &["--kernel", "k.cu", "--json"]).success());
    assert_eq!(json["schema"], "stepscope.lab/1");
    assert_eq!(json["is_right"], true);
    assert_eq!(json["times"], Value::Null);
    assert_eq!(json["mine"]["outputs"][0]["elements"], 400);
    assert_eq!(json["mine"]["counters"]["stores of a warp"], 13.0);
    assert!(
        json["mine"]["resources"]["registers of a thread"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    // The kernel of this program alone, and two files against each other.
    lab(&stepscope, &[]).success();
    let same = lab(&stepscope, &["--kernel", "k.cu", "--against", "k.cu"]).success();
    assert!(
        !same.stdout.contains(" %\n"),
        "nothing changed:\n{}",
        same.stdout
    );
}

#[test]
fn wrong_results_are_told_by_the_worst_element() {
    if !has_compiler() {
        return;
    }
    let stepscope = with_kernel(|text| text.replace("(1.0f + expf(-gate))", "(1.0f + expf(gate))"));
    let ran = lab(&stepscope, &["--kernel", "k.cu"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("elements are wrong; the worst is out["),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout
            .ends_with("results are wrong; nothing was found\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_race_is_told_by_its_line() {
    if !has_compiler() {
        return;
    }
    // Every thread writes its element's neighbour's place in shared memory, without a barrier before it is read.
    let stepscope = with_kernel(|text| {
        text.replace("    const STORAGE *row", "    __shared__ float shared[256];\n    shared[threadIdx.x] = 1.0f;\n    float one = shared[255 - threadIdx.x];\n    const STORAGE *row")
            .replace("* up)", "* up * one)")
    });
    let ran = lab(
        &stepscope,
        &["--kernel", "k.cu", "--shape", "rows=4,width=64"],
    );
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    let text = std::fs::read_to_string(stepscope.path("k.cu")).unwrap();
    let line = 1 + text
        .lines()
        .position(|line| line.contains("float one ="))
        .unwrap();
    let found = format!("found: k.cu:{line}: race: read after write");
    assert!(ran.stdout.contains(&found), "{found}\n{}", ran.stdout);
    assert!(
        ran.stdout
            .contains("float one = shared[255 - threadIdx.x];"),
        "{}",
        ran.stdout
    );
}

#[test]
fn mistakes_of_a_file_are_one_line() {
    let check = |stepscope: &Stepscope, args: &[&str], parts: &[&str]| {
        lab(stepscope, args).error(2, parts);
    };
    let stepscope = with_kernel(|text| {
        text.replace(
            "grid = ceil(rows * width / 256)",
            "grid = rows * width / 256",
        )
    });
    check(
        &stepscope,
        &["--kernel", "none.cu"],
        &["none.cu cannot be read"],
    );
    check(
        &stepscope,
        &["--shape", "rows=0"],
        &["--shape rows=0: rows=0: it must be"],
    );
    check(
        &stepscope,
        &["--against", "cublaslt"],
        &["cuBLASLt runs on a GPU only"],
    );
    check(
        &stepscope,
        &["--arch", "sm_70"],
        &["--arch sm_70 cannot be emulated"],
    );
    stepscope.run(&["lab", "gem"]).error(
        2,
        &["no operation is called gem; there are advance, embedding, rms_norm"],
    );
    stepscope
        .run(&["lab", "gemm", "--device", "cpu"])
        .error(2, &["--device cpu runs no CUDA kernels"]);
    if !has_compiler() {
        return;
    }
    check(
        &stepscope,
        &["--kernel", "k.cu"],
        &["k.cu:", "grid at rows=4,width=100", "which is not whole"],
    );
    check(
        &stepscope,
        &["--kernel", "k.cu", "--param", "TILE=3"],
        &["--param TILE=3: k.cu has no param TILE"],
    );
    let broken = with_kernel(|text| text.replace("float gate =", "flaot gate ="));
    check(
        &broken,
        &["--kernel", "k.cu"],
        &["k.cu(", "error: identifier \"flaot\" is undefined"],
    );
    let other =
        with_kernel(|text| text.replace(", unsigned width)", ", unsigned width, int more)"));
    check(
        &other,
        &["--kernel", "k.cu"],
        &["my_silu_mul takes 5 parameters; a kernel for silu_mul has 4"],
    );
}

#[test]
fn a_sweep_tries_all_params_and_draws_them() {
    if !has_compiler() {
        return;
    }
    let stepscope = Stepscope::new();
    stepscope.run(&["lab", "new", "gemv"]).success();
    let ran = stepscope
        .run(&[
            "lab",
            "gemv",
            "--shape",
            "N=32,K=64",
            "--kernel",
            "gemv.cu",
            "--device",
            "emulated",
            "--sweep",
            "--plot",
            "p.svg",
            "--save",
            "s.json",
        ])
        .success();
    let rows: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|line| line.starts_with("WARPS="))
        .collect();
    assert_eq!(rows.len(), 2, "{}", ran.stdout);
    assert!(
        rows.iter()
            .all(|row| row.contains("yes") && row.ends_with('–')),
        "{rows:?}"
    );
    let saved = stepscope.json("s.json");
    assert_eq!(saved["schema"], "stepscope.lab_sweep/1");
    assert_eq!(saved["points"][1]["params"]["WARPS"], 8);
    assert_eq!(saved["points"][1]["median_ns"], Value::Null);
    let svg = std::fs::read_to_string(stepscope.path("p.svg")).unwrap();
    assert!(
        svg.starts_with("<svg ") && svg.contains("WARPS=8") && svg.contains("warp instructions")
    );
    with_kernel(|text| text);
    let without = with_kernel(|text| text);
    lab(&without, &["--kernel", "k.cu", "--sweep"]).error(2, &["k.cu has no params to try"]);
}

#[test]
fn events_of_an_emulated_device_are_no_trace() {
    if !has_compiler() {
        return;
    }
    let stepscope = with_kernel(|text| {
        text.replace(
            "#include \"prelude.cuh\"",
            "#include \"prelude.cuh\"\n#include \"timeline.cuh\"\n// stepscope: role 0 = all of it",
        )
        .replace(
            "    const STORAGE *row",
            "    timeline_begin(0);\n    const STORAGE *row",
        )
        .replace("* up);", "* up);\n    timeline_end(0);")
    });
    let ran = lab(&stepscope, &["--kernel", "k.cu", "--timeline", "t.json"]).success();
    assert!(
        ran.stdout
            .contains("events: 26; without their other half: 0; without room: 0"),
        "{}",
        ran.stdout
    );
    assert!(has_row(&ran, "all of it 13"), "{}", ran.stdout);
    assert!(
        ran.stderr
            .contains("t.json is not written: an emulated device has no time"),
        "{}",
        ran.stderr
    );
    assert!(!stepscope.path("t.json").exists());
    let plain = with_kernel(|text| text);
    lab(&plain, &["--kernel", "k.cu", "--timeline", "t.json"])
        .error(2, &["the kernel writes no events"]);
    lab(&plain, &["--timeline", "t.json"])
        .error(2, &["the kernel of this program for silu_mul at rows=4,width=100,dtype=bf16 writes no events"]);
    // Four warps, two steps of 64 columns: each waits, multiplies, and then writes once.
    let shape = "M=64,N=64,K=128";
    let ran = plain
        .run(&[
            "lab",
            "gemm",
            "--shape",
            shape,
            "--device",
            "emulated",
            "--timeline",
            "t.json",
        ])
        .success();
    for row in ["wait for copies 8", "multiply 8", "write 4"] {
        assert!(has_row(&ran, row), "{row:?} is not in\n{}", ran.stdout);
    }
}

#[test]
fn a_saved_file_is_tried_again_and_changes_are_told() {
    if !has_compiler() {
        return;
    }
    let stepscope = with_kernel(|text| text.replace("expf(-gate)", "expf(gate)"));
    let wrong = std::fs::read_to_string(stepscope.path("k.cu")).unwrap();
    let mut command = stepscope.command(&[
        "lab",
        OPERATION,
        "--shape",
        "rows=4,width=100",
        "--device",
        "emulated",
        "--kernel",
        "k.cu",
        "--watch",
    ]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut wait = || {
        let mut line = String::new();
        while !line.starts_with("waiting for k.cu to be saved") {
            line.clear();
            assert!(errors.read_line(&mut line).unwrap() > 0, "it ended");
        }
    };
    wait();
    // Editors save within a clock tick; a second length tells the two apart whatever the file system's resolution.
    stepscope.write("k.cu", wrong.replace("expf(gate)", "expf(-gate)"));
    wait();
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("results are wrong") && text.contains("results are right"),
        "{text}"
    );
    let changes = text.split("Since the last run").nth(1).unwrap();
    let line = changes
        .lines()
        .find(|line| line.starts_with("wrong elements"))
        .unwrap();
    assert!(line.ends_with(" 0"), "{line}");
}

#[test]
fn all_variants_of_a_model_are_right() {
    if !has_compiler() {
        return;
    }
    let stepscope = Stepscope::new();
    let config = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1, "vocab_size": 64,
        "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16"}"#;
    stepscope.write("config.json", config);
    let ran = stepscope
        .run(&[
            "tune",
            "--model-path",
            "config.json",
            "--batch",
            "1",
            "2",
            "--input",
            "8",
            "--kv-len",
            "256",
            "--device",
            "emulated",
            "--out",
            "t.json",
        ])
        .success();
    let gemms: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|line| line.starts_with("gemm "))
        .collect();
    let attentions = ran
        .stdout
        .lines()
        .filter(|line| line.starts_with("attention_decode"))
        .count();
    assert!(gemms.len() >= 9 && attentions == 2, "{}", ran.stdout);
    assert!(
        gemms.iter().all(|line| line.ends_with(" 0")),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr
            .contains("no table is written: an emulated device has no time"),
        "{}",
        ran.stderr
    );
    assert!(!stepscope.path("t.json").exists());
}

/// A table for the emulated device, as a person would write it.
fn table(version: &str, uuid: &str) -> String {
    format!(
        r#"{{"schema": "stepscope.tuning/1", "version": "{version}", "gpu": {{"name": "emulated", "uuid": "{uuid}",
        "compute_capability": [8, 0]}}, "dtype": "float32", "model": "mini", "entries": []}}"#
    )
}

#[test]
fn a_run_uses_the_table_and_its_record_names_it() {
    if !has_compiler() {
        return;
    }
    let stepscope = Stepscope::new();
    let model = fixture("mini-qwen2");
    let run = |variable: &str| -> (Ran, Value) {
        let mut command = stepscope.command(&[
            "one-batch",
            "--model-path",
            &model,
            "--dtype",
            "bfloat16",
            "--batch",
            "2",
            "--input",
            "8",
            "--output",
            "3",
            "--out",
            "run",
            "--device",
            "emulated",
            "--result-filename",
            "",
        ]);
        command.env("STEPSCOPE_TUNING", variable);
        let ran = Ran::from(command.output().unwrap()).success();
        (ran, stepscope.json("run/record.json"))
    };
    let (_, plain) = run("none");
    assert_eq!(plain["run"].get("tuning"), None);
    let gpu = &plain["environment"]["gpu"];
    let config = &plain["run"]["model"]["config"];
    let size = |name: &str| config[name].as_u64().unwrap();
    // The output projection of both requests' rows, through the large kernel.
    let (hidden, inner) = (size("hidden_size"), size("intermediate_size"));
    let entries = format!(
        r#"[{{"operation": "gemm", "shape": {{"M": 2, "N": {hidden}, "K": {inner}}}, "variant": "gemm_mma_64x64"}}]"#
    );
    let good = table(env!("CARGO_PKG_VERSION"), gpu["uuid"].as_str().unwrap())
        .replace("[8, 0]", &gpu["compute_capability"].to_string())
        .replace("float32", "bfloat16")
        .replace("\"entries\": []", &format!("\"entries\": {entries}"));
    stepscope.write("good.json", &good);
    let (ran, tuned) = run("good.json");
    let tuning = &tuned["run"]["tuning"];
    assert_eq!(
        (&tuning["file"], &tuning["shapes"]),
        (&"good.json".into(), &1.into()),
        "{}",
        ran.stderr
    );
    assert_eq!(tuning["sha256"].as_str().unwrap().len(), 64);
    let uses = |record: &Value| record["points"].to_string().contains("gemm_mma_64x64");
    assert!(uses(&tuned) && !uses(&plain));
    // A table of another version or GPU changes nothing, and a line says so.
    for (name, text, why) in [
        (
            "old.json",
            good.replace(env!("CARGO_PKG_VERSION"), "0.0.1"),
            "version 0.0.1 of this program measured it",
        ),
        (
            "other.json",
            table(env!("CARGO_PKG_VERSION"), "GPU-1"),
            "it is for emulated (GPU-1)",
        ),
    ] {
        stepscope.write(name, text);
        let (ran, record) = run(name);
        assert!(
            ran.stderr
                .contains(&format!("the tuning table {name} is not used: {why}")),
            "{}",
            ran.stderr
        );
        assert!(record["run"].get("tuning").is_none() && !uses(&record));
    }
    let mut command = stepscope.command(&[
        "one-batch",
        "--model-path",
        &model,
        "--dtype",
        "bfloat16",
        "--device",
        "emulated",
    ]);
    command.env("STEPSCOPE_TUNING", "none.json");
    Ran::from(command.output().unwrap()).error(2, &["STEPSCOPE_TUNING=none.json cannot be read"]);
}
