//! `stepscope gpu-check`, all of it, on the emulated device; and `stepscope kernel prebuild`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Stepscope, fixture, has_compiler};

#[test]
fn every_stage_works_and_leaves_its_result() {
    if !has_compiler() {
        return;
    }
    let stepscope = Stepscope::new();
    let fixtures = fixture("");
    let ran = stepscope
        .run(&[
            "gpu-check",
            "--device",
            "emulated",
            "--small",
            "--fixtures",
            &fixtures,
        ])
        .success();
    let results = stepscope.json("gpu-check/results.json");
    assert_eq!(results["schema"], "stepscope.gpu-check/1");
    let stages = results["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "doctor",
            "micro-kernels",
            "kernels",
            "device",
            "fixtures",
            "steps smollm2-135m",
            "timers",
            "bench",
            "shapes"
        ]
    );
    for stage in stages {
        assert_eq!(stage["status"], "ok", "{stage}");
        assert!(
            ran.stdout.contains(stage["name"].as_str().unwrap()),
            "{}",
            ran.stdout
        );
    }
    let kernels = stages[2]["result"]["cases"].as_array().unwrap();
    assert!(kernels.len() > 80, "{}", kernels.len());
    assert!(kernels.iter().all(|case| case["right"] == true));
    let models = stages[4]["result"]["models"].as_array().unwrap();
    assert_eq!(models.len(), 6); // three, with and without graphs
    let device = &stages[3]["result"];
    assert_eq!(device["schema"], "stepscope.device/1");
    assert_eq!(device["summary"], stages[3]["detail"]);
    // An emulated device has no time: its steps leave none.
    assert_eq!(stages[5]["detail"], "");
    let stderr = std::fs::read_to_string(stepscope.path("gpu-check/timers.stderr")).unwrap();
    assert!(
        stderr.contains("--counters: there are none, since an emulated device has no hardware"),
        "{stderr}"
    );
    let shapes = &stages[8]["result"];
    assert_eq!(shapes["timer"], "none");
    assert_eq!(shapes["summary"], stages[8]["detail"]);
    let rows = shapes["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 28); // 3 decode batches of 6 shapes, 2 prefills of 5
    for row in rows {
        assert_eq!(row["status"], "ok", "{row}");
        for time in ["ours_us", "peer_us", "tflop_per_s", "gb_per_s"] {
            assert!(row[time].is_null(), "{row}");
        }
    }
    // The same rows as a record, which says why there is no time.
    for (group, rows) in [("gemm", 23), ("attention", 5)] {
        let folder = format!("gpu-check/shapes/{group}");
        let record = stepscope.json(&format!("{folder}/microbench.json"));
        assert_eq!(record["schema"], "stepscope.microbench/1");
        let lines = record["rows"].as_array().unwrap();
        assert_eq!(lines.len(), rows, "{group}");
        for line in lines {
            assert_eq!([&line["group"], &line["status"]], [group, "ok"]);
            assert_eq!(line["reason"], "an emulated device has no time");
            assert!(
                line["series"].is_null() && line["peers"].is_null(),
                "{line}"
            );
        }
        let report = stepscope.run(&["report", &folder]).success();
        assert!(report.stdout.contains("small decode"), "{}", report.stdout);
    }
    let stderr = std::fs::read_to_string(stepscope.path("gpu-check/shapes.stderr")).unwrap();
    assert!(
        stderr.contains("no times: the device is emulated"),
        "{stderr}"
    );
    assert!(
        stderr.contains("cuBLASLt runs on NVIDIA's GPUs only"),
        "{stderr}"
    );
}

#[test]
fn a_stage_that_fails_is_named_and_costs_no_other() {
    let stepscope = Stepscope::new();
    std::fs::create_dir(stepscope.path("empty")).unwrap();
    let mut command = stepscope.command(&["gpu-check", "--small", "--fixtures", "empty"]);
    // No driver: the doctor says so, and everything after it fails.
    command.env("STEPSCOPE_LIBCUDA", "/nowhere");
    let ran = support::Ran::from(command.output().unwrap());
    ran.error(
        1,
        &["9 of 10 stages failed", "gpu-check has what each printed"],
    );
    let results = stepscope.json("gpu-check/results.json");
    let stages = results["stages"].as_array().unwrap();
    assert_eq!(stages[0]["status"], "ok");
    for stage in &stages[1..] {
        assert_eq!(stage["status"], "failed", "{stage}");
        let detail = stage["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("error: STEPSCOPE_LIBCUDA=/nowhere cannot be used"),
            "{detail}"
        );
    }
}

#[test]
fn prebuilt_kernels_need_an_architecture_with_machine_code() {
    let stepscope = Stepscope::new();
    stepscope
        .run(&["kernel", "prebuild", "--arch", "compute_90"])
        .error(2, &["--arch compute_90", "use one such as sm_90a"]);
    stepscope
        .run(&["kernel", "prebuild", "--arch", "gfx90a"])
        .error(2, &["--arch gfx90a"]);
}

/// Makes a folder as sglang's pack script does, of a program that prints what sglang prints, and a torch to be found.
const PACK: &str = r##"
import os, sys, tarfile, zipfile

root, torch = sys.argv[1:3]
pack = os.path.join(root, "pack")
os.makedirs(pack)
with zipfile.ZipFile(os.path.join(pack, "sglang-0.5.11-py3-none-any.whl"), "w") as wheel:
    wheel.writestr("sglang/__init__.py", "")
    wheel.writestr("sglang/bench_one_batch.py", open(os.path.join(root, "bench_one_batch.py")).read())
    wheel.writestr("sglang-0.5.11.dist-info/METADATA", "Name: sglang\nVersion: 0.5.11\nRequires-Dist: torch==2.11.0\n")
    wheel.writestr("sglang-0.5.11.data/purelib/beside.py", "HERE = 1\n")
kernel = os.path.join(root, "sgl_kernel")
os.makedirs(kernel)
open(os.path.join(kernel, "__init__.py"), "w").close()
with tarfile.open(os.path.join(pack, "sgl_kernel.tar.xz"), "w:xz") as archive:
    archive.add(kernel, "sgl_kernel")
if torch != "none":
    info = os.path.join(root, "modules", f"torch-{torch}.dist-info")
    os.makedirs(info)
    open(os.path.join(info, "METADATA"), "w").write(f"Metadata-Version: 2.1\nName: torch\nVersion: {torch}\n")
"##;

/// sglang's options, lines and file, without its work.
const BENCH_ONE_BATCH: &str = r#"
import argparse, itertools, json, os
import beside, sgl_kernel

parser = argparse.ArgumentParser()
for name in ("model-path", "load-format", "attention-backend", "sampling-backend", "run-name", "result-filename"):
    parser.add_argument("--" + name, required=True)
for name in ("batch-size", "input-len", "output-len"):
    parser.add_argument("--" + name, type=int, nargs="+", required=True)
args = parser.parse_args()
config = json.load(open(os.path.join(args.model_path, "config.json")))
assert config["architectures"] == ["LlamaForCausalLM"] and config["num_hidden_layers"] == 1, config
json.load(open(os.path.join(args.model_path, "tokenizer.json")))
assert os.environ["HF_HUB_OFFLINE"] == "1"

behaviour = os.environ.get("FAKE_SGLANG", "")
results = []

def run(batch, length, output):
    prefill, decode = 0.02, 0.004
    total = prefill + decode * (output - 1)
    print(f"Prefill. latency: {prefill:6.5f} s, throughput: {length * batch / prefill:9.2f} token/s")
    print(f"Decode 0. Batch size: {batch}, latency: {decode:6.5f} s, throughput: {batch / decode:9.2f} token/s")
    print(f"Decode.  median latency: {decode:6.5f} s, median throughput: {batch / decode:9.2f} token/s")
    print(f"Total. latency: {total:6.3f} s, throughput: {(length + output) * batch / total:9.2f} token/s", flush=True)
    # The file has more digits.
    prefill, decode = prefill + 1e-7, decode + 1e-7
    return {
        "run_name": args.run_name, "batch_size": batch, "input_len": length, "output_len": output,
        "prefill_latency": prefill, "prefill_throughput": length * batch / prefill,
        "median_decode_latency": decode, "median_decode_throughput": batch / decode,
        "total_latency": total, "overall_throughput": (length + output) * batch / total,
    }

print("max_total_num_tokens=196755")
print("Warmup ...")
run(args.batch_size[0], args.input_len[0], 8)
print("Benchmark ...")
for batch, length, output in itertools.product(args.batch_size, args.input_len, args.output_len):
    results.append(run(batch, length, output))
if behaviour == "crash":
    raise RuntimeError("no kernel image is available for execution on the device")
with open(args.result_filename, "a") as file:
    for result in results:
        file.write(json.dumps(result) + "\n")
"#;

/// `gpu-check` with a packed sglang, on a machine whose Python has this torch, and no driver: all other stages fail at once.
struct WithSglang {
    stepscope: Stepscope,
    has_python: bool,
}

impl WithSglang {
    fn new(torch: &str) -> WithSglang {
        let stepscope = Stepscope::new();
        stepscope.write("bench_one_batch.py", BENCH_ONE_BATCH);
        let packed = Command::new("python3")
            .args(["-c", PACK])
            .arg(stepscope.folder.path())
            .arg(torch)
            .output();
        let has_python = match packed {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{said}");
                true
            }
            Err(error) => {
                println!("skipped: python3 cannot be started: {error}");
                false
            }
        };
        WithSglang {
            stepscope,
            has_python,
        }
    }

    fn run(&self, behaviour: &str) -> support::Ran {
        let arguments = ["gpu-check", "--small", "--sglang", "pack"];
        let mut command = self.stepscope.command(&arguments);
        command
            .env("STEPSCOPE_LIBCUDA", "/nowhere")
            .env("PYTHONPATH", self.stepscope.path("modules"))
            .env("FAKE_SGLANG", behaviour);
        support::Ran::from(command.output().unwrap())
    }

    /// The stage `sglang` and the one of the model, and the points beside ours.
    fn results(&self) -> [Value; 3] {
        let mut results = self.stepscope.json("gpu-check/results.json");
        let stages = results["stages"].as_array().unwrap();
        assert_eq!(stages[0]["status"], "ok"); // the doctor's results are whole
        let named = |name: &str| stages.iter().find(|stage| stage["name"] == name).cloned();
        let (set_up, model) = (named("sglang"), named("sglang smollm2-135m"));
        [
            set_up.unwrap(),
            model.unwrap(),
            results["beside_sglang"].take(),
        ]
    }
}

#[track_caller]
fn check_stage(stage: &Value, status: &str, parts: &[&str]) {
    assert_eq!(stage["status"], status, "{stage}");
    let detail = stage["detail"].as_str().unwrap();
    assert!(!detail.contains('\n'), "{detail}");
    for part in parts {
        assert!(detail.contains(part), "{detail:?} lacks {part:?}");
    }
}

#[test]
fn sglang_runs_on_the_sizes_of_ours() {
    let machine = WithSglang::new("2.11.0+cu130");
    if !machine.has_python {
        return;
    }
    // Lines of an earlier run are no results of this one.
    std::fs::create_dir(machine.stepscope.path("gpu-check")).unwrap();
    let stale = r#"{"batch_size": 64, "input_len": 4, "output_len": 2, "prefill_latency": 9.0}"#;
    machine
        .stepscope
        .write("gpu-check/sglang-smollm2-135m.jsonl", stale);
    let ran = machine.run("");
    let [set_up, model, points] = machine.results();
    check_stage(&set_up, "ok", &["sglang 0.5.11 with torch 2.11.0+cu130"]);
    check_stage(&model, "ok", &["prefill and decode, s: 0.02000, 0.00400"]);
    let points = points.as_array().unwrap();
    assert_eq!(points.len(), 1);
    assert_eq!(points[0]["batch_size"], 1);
    assert_eq!(points[0]["sglang"]["prefill_latency"], 0.0200001);
    assert_eq!(points[0]["sglang"]["median_decode_latency"], 0.0040001);
    assert!(points[0]["ours"].is_null()); // the steps failed
    assert!(ran.stdout.contains("by sglang"), "{}", ran.stdout);
    assert!(ran.stdout.contains("20.0"), "{}", ran.stdout);
    assert!(!machine.stepscope.path("gpu-check/sglang-site").exists());
}

#[test]
fn a_sglang_that_fails_leaves_what_it_printed() {
    let machine = WithSglang::new("2.11.0");
    if !machine.has_python {
        return;
    }
    machine.run("crash");
    let [_, model, points] = machine.results();
    let why = "exit code 1: RuntimeError: no kernel image is available";
    check_stage(&model, "skipped", &[why]);
    assert_eq!(points[0]["sglang"]["prefill_latency"], 0.02);
    assert_eq!(points[0]["sglang"]["median_decode_latency"], 0.004);
}

#[test]
fn a_machine_that_cannot_run_sglang_says_why() {
    let check = |torch: &str, break_it: &dyn Fn(&Path), parts: &[&str]| {
        let machine = WithSglang::new(torch);
        if !machine.has_python {
            return;
        }
        break_it(machine.stepscope.folder.path());
        machine.run("");
        let [set_up, model, points] = machine.results();
        check_stage(&set_up, "skipped", parts);
        check_stage(&model, "skipped", &["without the stage sglang"]);
        assert_eq!(points, Value::Array(Vec::new()));
    };
    let nothing = |_: &Path| {};
    check("none", &nothing, &["has no torch", "needs torch 2.11.0"]);
    check(
        "2.9.1+cu126",
        &nothing,
        &["built for torch 2.11.0", "has torch 2.9.1+cu126"],
    );
    check(
        "2.11.0",
        &|root| std::fs::remove_dir_all(root.join("pack")).unwrap(),
        &["pack is not a folder"],
    );
    check(
        "2.11.0",
        &|root| std::fs::remove_file(root.join("pack/sgl_kernel.tar.xz")).unwrap(),
        &["sgl_kernel.tar.xz is missing"],
    );
    check(
        "2.11.0",
        &|root| std::fs::write(root.join("pack/sglang-0.5.11-py3-none-any.whl"), "no zip").unwrap(),
        &["cannot unpack pack"],
    );
    check(
        "2.11.0",
        &|root| {
            std::fs::write(
                root.join("pack/orjson-3-cp27-cp27m-manylinux_2_17_x86_64.whl"),
                "",
            )
            .unwrap()
        },
        &["orjson-3-cp27-cp27m-manylinux_2_17_x86_64.whl does not fit Python 3"],
    );
}
