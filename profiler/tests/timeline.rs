//! Real traces of sglang, vLLM, transformers and training, read and explained.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use stepscope_profiler::timeline::{
    self, Analysis, Cause, Family, Format, Kind, Spelling, StepAnalysis, Tie,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/traces")
        .join(name)
}

/// A trace too large to be part of the project; `None` where it is not at hand.
fn large_fixture(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/fixtures/traces")
        .join(name);
    if !path.exists() {
        eprintln!("skipped: {name} is not at hand");
        return None;
    }
    Some(path)
}

#[track_caller]
fn analysed(path: &Path) -> Analysis {
    timeline::analyse(&timeline::read(path).unwrap())
}

fn only_step(analysis: &Analysis) -> &StepAnalysis {
    let [device] = analysis.devices.as_slice() else {
        panic!("{} GPUs", analysis.devices.len());
    };
    let [step] = device.steps.as_slice() else {
        panic!("{} steps", device.steps.len());
    };
    step
}

fn percent_of_busy(step: &StepAnalysis, family: Family) -> f64 {
    let time = step.families.iter().find(|time| time.family == family);
    100.0 * time.map_or(0, |time| time.busy_ns) as f64 / step.busy_ns as f64
}

fn count(step: &StepAnalysis, family: Family) -> u64 {
    let time = step.families.iter().find(|time| time.family == family);
    time.map_or(0, |time| time.count)
}

#[track_caller]
fn near(actual: f64, expected: f64, tolerance: f64) {
    assert!(
        (actual - expected).abs() <= tolerance,
        "{actual} is not {expected}"
    );
}

#[test]
fn sglang_decode_step() {
    let analysis = analysed(&fixture("sglang-qwen3-8b-decode.json.gz"));
    assert_eq!(analysis.format, Format::Kineto);
    assert_eq!(analysis.devices[0].device.name, "AMD Instinct MI300X");
    let step = only_step(&analysis);
    assert_eq!(step.spelling, Some(Spelling::Sglang));
    assert_eq!(
        (step.kind, step.requests, step.tie),
        (Kind::Decode, Some(32), Tie::Launch)
    );
    // The annotation around the step, in vLLM's spelling, is where the context comes from.
    assert_eq!(step.context_tokens, Some(32_785));
    assert_eq!(step.tokens, Some(32));

    // Qwen3-8B has 36 layers; all but the activation's count of another kind agree.
    let layers = step.layers.as_ref().unwrap();
    assert_eq!((layers.count, layers.by_attention), (36, true));
    assert_eq!(
        layers.confirmed_by,
        [Family::Rope, Family::KvWrite, Family::Activation]
    );
    assert_eq!(
        count(step, Family::Attention),
        72,
        "each with its reduction"
    );
    assert_eq!(count(step, Family::Gemm), 4 * 36 + 1);
    assert_eq!(count(step, Family::Norm), 4 * 36 + 1);

    // Sums over the kernels of the annotated step, made with a script of a few lines from the same file.
    near(step.span_ns as f64, 10_366_888.0, 1500.0);
    near(step.busy_ns as f64, 9_694_013.0, 1500.0);
    near(percent_of_busy(step, Family::Gemm), 59.65, 0.05);
    near(percent_of_busy(step, Family::Attention), 21.95, 0.05);
    near(percent_of_busy(step, Family::Norm), 7.06, 0.05);
    let shares: u64 = step.families.iter().map(|time| time.busy_ns).sum();
    assert!(shares.abs_diff(step.busy_ns) <= step.families.len() as u64);

    // One graph, behind five gaps in which the host prepares it.
    let host = step.host.unwrap();
    assert_eq!(
        (host.graph_launches, host.launches, host.memory_calls),
        (1, 6, 1)
    );
    assert_eq!(step.gaps[0].cause, Cause::LaunchedLate);
    // The kernel behind the longest gap had been launched at once, and waited for work that this file does not hold.
    let longest = analysis.devices[0].window.gaps[0];
    assert_eq!(longest.cause, Cause::Dependency);
    assert!(longest.longest_ns > 462_000_000);
    assert_eq!(
        step.idle_ns,
        step.gaps.iter().map(|gap| gap.total_ns).sum::<u64>()
    );
    assert_eq!(step.idle_ns + step.busy_ns, step.span_ns);

    // Outside: an arange 463 ms before, and positions before and sampling after, all in the outer annotation.
    let device = &analysis.devices[0];
    assert_eq!(device.outside.activities, 3 + 4);
    assert_eq!(device.outside.around_steps, 7);
    assert_eq!(device.outside.without_call, 0);
    assert!(device.window.idle_in_steps_ns < device.window.idle_ns / 500);
}

#[test]
fn vllm_decode_step() {
    let analysis = analysed(&fixture("vllm-decode-full-graph.json.gz"));
    assert_eq!(
        analysis.devices[0].device.name, "",
        "device properties without names"
    );
    let step = only_step(&analysis);
    assert_eq!(step.spelling, Some(Spelling::Vllm));
    assert_eq!((step.kind, step.requests), (Kind::Decode, Some(32)));
    assert_eq!(step.context_tokens, Some(55_086));
    // gpt-oss-20b: 24 layers, attention over all tokens and over a window by turns, experts in MXFP4.
    let layers = step.layers.as_ref().unwrap();
    assert_eq!(layers.count, 24);
    assert!(layers.confirmed_by.contains(&Family::Rope));
    assert!(layers.confirmed_by.contains(&Family::KvWrite));
    assert_eq!(analysis.devices[0].outside.activities, 0);
    assert!(percent_of_busy(step, Family::Gemm) > 75.0);
    let remarks = analysis.remarks.join("\n");
    assert!(remarks.contains("does not name its GPU"), "{remarks}");
}

#[test]
fn transformers_on_h100() {
    let Some(path) = large_fixture("h100-qwen1.5-0.5b.json.gz") else {
        return;
    };
    let analysis = analysed(&path);
    let step = only_step(&analysis);
    assert_eq!(step.spelling, Some(Spelling::Profiler));
    assert_eq!(step.name, "ProfilerStep#6");
    assert_eq!(step.layers.as_ref().unwrap().count, 24);
    // What was launched before recording began runs into the window.
    let outside = &analysis.devices[0].outside;
    assert_eq!((outside.activities, outside.without_call), (509, 509));
    let hta = analysis.holistic_trace_analysis.as_ref().unwrap();
    assert!(hta.fails, "its assertion fails on this file");
    let text = timeline::text(&analysis);
    assert!(
        text.contains("Holistic Trace Analysis fails on this file"),
        "{text}"
    );
}

/// Shares of the window as the tool itself printed them, to a tenth of a point.
#[test]
fn holistic_trace_analysis_agrees() {
    let theirs: Value =
        serde_json::from_str(&std::fs::read_to_string(fixture("hta.json")).unwrap()).unwrap();
    let traces = theirs["traces"].as_object().unwrap();
    let mut compared = 0;
    for (name, theirs) in traces {
        let path = if fixture(name).exists() {
            fixture(name)
        } else if let Some(path) = large_fixture(name) {
            path
        } else {
            continue;
        };
        let analysis = analysed(&path);
        let ours = analysis.holistic_trace_analysis.as_ref().unwrap();
        let temporal = &theirs["temporal"];
        let number = |key: &str| temporal[key].as_f64().unwrap();
        near(ours.idle_percent, number("idle_time_pctg"), 0.1);
        near(ours.compute_percent, number("compute_time_pctg"), 0.1);
        near(
            ours.non_compute_percent,
            number("non_compute_time_pctg"),
            0.1,
        );
        assert!(!ours.fails);
        for kind in theirs["kernel_types"].as_array().unwrap() {
            let name = kind["kernel_type"].as_str().unwrap();
            let share = ours
                .kernel_types_percent
                .iter()
                .find(|(ours, _)| ours == name);
            near(
                share.map_or(0.0, |s| s.1),
                kind["percentage"].as_f64().unwrap(),
                0.1,
            );
        }
        compared += 1;
    }
    assert!(compared >= 4, "{compared}");
}

#[test]
fn training_traces_have_no_steps_of_inference() {
    let analysis = analysed(&fixture("alexnet-training.json.gz"));
    let step = only_step(&analysis);
    assert_eq!((step.kind, step.tie), (Kind::Unknown, Tie::Window));
    assert_eq!(step.layers, None);
    assert_eq!(step.activities, 79 + 16 + 3);
    let one = analysed(&fixture("triton-example.json.gz"));
    assert_eq!(only_step(&one).busy_ns, 1760);
}

#[test]
fn counter_ranges_are_no_kernels() {
    let analysis = analysed(&fixture("cupti-counters.json.gz"));
    assert!(analysis.devices.is_empty());
    assert_eq!(analysis.holistic_trace_analysis, None);
    let text = timeline::text(&analysis);
    assert!(text.contains("77 ranges of performance counters"), "{text}");
    assert!(text.contains("Record again"), "{text}");
}

#[test]
fn the_sglang_step_in_words() {
    let analysis = analysed(&fixture("sglang-qwen3-8b-decode.json.gz"));
    let mut analysis = analysis;
    analysis.trace = "trace.json.gz".to_owned();
    insta::assert_snapshot!(timeline::text(&analysis));
}

#[test]
fn the_vllm_step_in_words() {
    let analysis = analysed(&fixture("vllm-decode-full-graph.json.gz"));
    insta::assert_snapshot!(timeline::text(&analysis));
}

#[test]
fn floors_stand_beside_the_times() {
    let mut analysis = analysed(&fixture("sglang-qwen3-8b-decode.json.gz"));
    let floor = |family, floor_ns| timeline::Floor {
        flops: 0,
        bytes: 0,
        family,
        floor_ns,
        bound_by: "memory".to_owned(),
    };
    let step = &mut analysis.devices[0].steps[0];
    step.floors = vec![
        floor(Family::Gemm, 3_000_000),
        floor(Family::Rope, 1_000_000),
    ];
    let text = timeline::text(&analysis);
    assert!(
        text.contains("at least 4.00 ms on this GPU, 41 % of the busy time"),
        "{text}"
    );
    assert!(
        text.contains("Faster than its floor, which is an error and no result: rope."),
        "{text}"
    );
    let row = text.lines().find(|line| line.starts_with("GEMM ")).unwrap();
    assert!(
        row.trim_end().ends_with("3000.0        51.9   memory"),
        "{row}"
    );
    assert!(timeline::json(&analysis).contains("\"floor_ns\": 3000000"));
}

#[test]
fn json_has_units_in_its_names() {
    let analysis = analysed(&fixture("sglang-qwen3-8b-decode.json.gz"));
    let json: Value = serde_json::from_str(&timeline::json(&analysis)).unwrap();
    let step = &json["devices"][0]["steps"][0];
    assert_eq!(step["kind"], "decode");
    assert_eq!(step["spelling"], "sglang");
    assert_eq!(step["layers"]["count"], 36);
    assert_eq!(step["families"][0]["family"], "gemm");
    assert_eq!(step["gaps"][0]["cause"], "launched_late");
    assert!(step["busy_ns"].as_u64().unwrap() > 9_000_000);
    assert!(
        json["holistic_trace_analysis"]["idle_percent"]
            .as_f64()
            .unwrap()
            > 98.0
    );
}
