//! The page of an explanation: what stands in it, that any record gives a well-formed one, and that a browser shows it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use stepscope_profiler::explain::page::{PageOptions, page, results_page, trace_page};
use stepscope_profiler::explain::results::Subject;
use stepscope_profiler::explain::{Ceilings, Precision, record, results};
use stepscope_profiler::results::{
    Basis, Framework, Latency, Length, Load, Percentiles, ResultRow,
};
use stepscope_profiler::{Record, StepKind, gpus, timeline};
use support::model::Model;
use support::{arbitrary, sample};

/// A flame graph as inferno writes it, in short.
const FLAME_GRAPH: &str = "<?xml version=\"1.0\"?><!DOCTYPE svg><svg width=\"1200\" height=\"120\" viewBox=\"0 0 1200 120\" \
                           xmlns=\"http://www.w3.org/2000/svg\"><script>\n// comment\nhistory.replaceState(null, null, '?x');\n</script>\
                           <rect width=\"1180\" height=\"19\"><title>decode</title></rect></svg>";

fn page_of(record: &Record) -> String {
    let explanation = record::explain(record, None);
    let options = PageOptions {
        flame_graphs: vec![("Decode <steps>".to_owned(), FLAME_GRAPH.to_owned())],
        datasheet: None,
    };
    page(record, &explanation, &options)
}

/// Reads the page as XML; numbers of pictures must be numbers, and sizes not negative.
#[track_caller]
fn check_well_formed(html: &str) {
    let mut reader = Reader::from_str(html);
    let mut open = 0;
    loop {
        let event = reader
            .read_event()
            .unwrap_or_else(|e| panic!("{e} at {}", excerpt(html, reader.error_position())));
        match &event {
            Event::Start(tag) => {
                open += 1;
                check_attributes(tag);
            }
            Event::Empty(tag) => check_attributes(tag),
            Event::End(_) => open -= 1,
            Event::Text(text) => {
                let text = text.decode().unwrap();
                assert!(!text.contains("NaN"), "{text}");
                assert!(
                    !text.contains(|c: char| c.is_control() && !c.is_whitespace()),
                    "{text:?}"
                );
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, 0);
}

fn excerpt(html: &str, at: u64) -> &str {
    let at = at as usize;
    let mut from = at.saturating_sub(200);
    while !html.is_char_boundary(from) {
        from += 1;
    }
    let mut to = (at + 50).min(html.len());
    while !html.is_char_boundary(to) {
        to -= 1;
    }
    html.get(from..to).unwrap_or_default()
}

fn check_attributes(tag: &BytesStart<'_>) {
    const NUMBERS: [&str; 10] = ["x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "width"];
    for attribute in tag.attributes() {
        let attribute = attribute.unwrap();
        let name = std::str::from_utf8(attribute.key.as_ref()).unwrap();
        let raw = std::str::from_utf8(&attribute.value).unwrap();
        let value = quick_xml::escape::unescape(raw).unwrap();
        if NUMBERS.contains(&name) || name == "height" {
            let number: f64 = value.parse().unwrap_or_else(|_| panic!("{name}={value}"));
            assert!(number.is_finite(), "{name}={value}");
            assert!(
                number >= 0.0 || !matches!(name, "width" | "height" | "r"),
                "{name}={value}"
            );
        }
        if name == "points" {
            for number in value.split([' ', ',']) {
                assert!(number.parse::<f64>().unwrap().is_finite(), "{value}");
            }
        }
    }
}

#[track_caller]
fn check_contains(html: &str, expected: &[&str]) {
    for text in expected {
        assert!(html.contains(text), "{text} is missing");
    }
}

const HEADINGS: [&str; 8] = [
    "At a glance",
    "Explanation",
    "Roofline",
    "Where the time goes",
    "Phases",
    "Timeline",
    "Flame graphs",
    "Operations",
];

#[test]
fn the_page_of_a_record() {
    let html = page_of(&sample::record(30));
    check_well_formed(&html);
    for heading in HEADINGS {
        check_contains(&html, &[&format!("<h2>{heading}</h2>")]);
    }
    check_contains(
        &html,
        &[
            "<h1>smollm2-135m in bfloat16 steps, explained</h1>",
            "AMD EPYC 9554 64-Core Processor, 2 threads · 2026-02-03",
            "stepscope one-batch --batch 1 4 --input 128",
            ">104 GFLOP/s measured</text>",
            ">DRAM 22.0 GB/s</text>",
            "prefill attention (attention_prefill_avx2): ",
            ">gate_up_proj</text>",
            "<title>layer 29: ",
            "<summary>why</summary>",
            "<h3>Decode &lt;steps&gt;</h3>",
            "Over batch size and length",
        ],
    );
    // Nothing is fetched.
    let fetches = ["src=\"", "url(", "@import", "<link rel=\"stylesheet"];
    for fetch in fetches {
        assert!(!html.contains(fetch), "{fetch}");
    }
}

#[test]
fn roofs_that_were_not_measured_are_a_data_sheets() {
    let mut record = sample::record(2);
    record.environment.roofs = None;
    let gpu = gpus::find("h100-sxm").unwrap();
    let html = page(
        &record,
        &record::explain(&record, Some(gpu)),
        &PageOptions::default(),
    );
    check_contains(&html, &["data sheet</text>", "class=\"roof datasheet\""]);
    assert!(!html.contains("class=\"roof\""));
    assert!(!html.contains("<h2>Flame graphs</h2>"));
}

#[test]
fn a_record_without_times_has_a_page_that_says_so() {
    let mut record = sample::record(1);
    record.points.clear();
    let html = page_of(&record);
    check_well_formed(&html);
    check_contains(&html, &["The record holds no point"]);
    assert!(!html.contains("<h2>Roofline</h2>"));
}

/// A static batch of which the prefill and a decode step took so long.
fn row(batch: u64, input: f64, prefill_s: f64, decode_s: f64) -> ResultRow {
    let latency = |basis, seconds| {
        Some(Latency {
            basis,
            mean_s: None,
            median_s: Some(seconds),
            p99_s: None,
            std_s: None,
            percentiles: Some(Percentiles::Linear),
        })
    };
    let length = |tokens| {
        Some(Length {
            tokens,
            realised: true,
        })
    };
    ResultRow {
        model: Some("70b".to_owned()),
        tp: Some(8),
        load: Load::StaticBatch(batch),
        input_len: length(input),
        output_len: length(128.0),
        ttft: latency(Basis::PrefillStep, prefill_s),
        tpot: latency(Basis::DecodeStep, decode_s),
        ..ResultRow::new(Framework::Sglang, "bench_one_batch")
    }
}

fn results_html(device: Option<&Ceilings>) -> String {
    let rows = [
        row(1, 1024.0, 0.93, 0.041),
        row(4, 1024.0, 3.58, 0.045),
        row(16, 1024.0, 14.4, 0.062),
        row(16, 256.0, 3.61, 0.058),
    ];
    let explanation = results::explain(&Subject {
        rows: &rows,
        model: Some(&Model),
        device,
        precision: Precision::HALF,
        pool_tokens: None,
    });
    let title = "70b on \"8 GPUs\", explained";
    results_page(&explanation, title, "sglang bench_one_batch · 2026-02-03")
}

#[test]
fn the_page_of_a_result() {
    let device = Ceilings::of_gpu(gpus::find("h100-sxm").unwrap(), None);
    let html = results_html(Some(&device));
    check_well_formed(&html);
    check_contains(
        &html,
        &[
            "<h1>70b on &quot;8 GPUs&quot;, explained</h1>",
            "<h2>What it comes to</h2>",
            "<h2>Prefill</h2>",
            "<h2>Decode</h2>",
            "What could be the whole story of the largest step",
            ">tensor-core compute</text>",
            "class=\"practice\"",
            "class=\"need\"",
            "class=\"floor-mark\"",
            "<polyline class=\"curve floor curve-0\"",
        ],
    );
    let html = results_html(None);
    check_well_formed(&html);
    check_contains(&html, &["<h2>Which GPU it may be</h2>"]);
}

fn trace_html(name: &str, has_floors: bool) -> String {
    let trace = timeline::read(&Path::new("tests/data/traces").join(name)).unwrap();
    let mut analysis = timeline::analyse(&trace);
    let roofs = gpus::find("mi300x").unwrap().roofs(None);
    let steps = analysis.devices.iter_mut().flat_map(|d| &mut d.steps);
    for step in steps.filter(|_| has_floors) {
        let families = step.families.iter().take(3);
        step.floors = families
            .map(|time| timeline::Floor {
                family: time.family,
                floor_ns: time.busy_ns / 2,
                bound_by: "memory".to_owned(),
                flops: 100_000_000_000,
                bytes: 3_000_000_000,
            })
            .collect();
    }
    trace_page(&trace, &analysis, has_floors.then_some(&roofs))
}

#[test]
fn the_page_of_a_trace() {
    let html = trace_html("sglang-qwen3-8b-decode.json.gz", true);
    check_well_formed(&html);
    check_contains(
        &html,
        &[
            "<h1>sglang-qwen3-8b-decode.json.gz, explained</h1>",
            "<h2>What it says</h2>",
            "Trust: ",
            "One decode step of 32 requests by sglang on AMD Instinct MI300X",
            "<h2>Steps</h2>",
            "94 % busy",
            "class=\"part launch-late\"",
            "<h2>What the GPU was busy with</h2>",
            "class=\"floor-mark\"",
            "<h2>The step of median length</h2>",
            "As long as one of its 36 layers",
            "<h2>Roofline</h2>",
            "<h2>To read with care</h2>",
        ],
    );
    for fetch in ["src=\"", "url(", "@import", "<link rel=\"stylesheet"] {
        assert!(!html.contains(fetch), "{fetch}");
    }
}

/// Every trace that can be read has a page, also one of many steps, of several streams, or of no step.
#[test]
fn all_traces_have_well_formed_pages() {
    for name in [
        "alexnet-training.json.gz",
        "cupti-counters.json.gz",
        "small-decode.json",
        "triton-example.json.gz",
        "vllm-decode-full-graph.json.gz",
    ] {
        let html = trace_html(name, false);
        check_well_formed(&html);
        assert!(
            !html.contains("<h2>Roofline</h2>"),
            "{name}: no model was named"
        );
    }
}

/// Hundreds of steps are columns, and those that no picture can tell apart are left out.
#[test]
fn many_steps_are_columns() {
    let mut events = Vec::new();
    for step in 0..500 {
        let at = step * 100;
        let call = step + 1;
        events.push(format!(
            r#"{{"ph": "X", "cat": "user_annotation", "name": "step[DECODE bs=4]", "pid": 1, "tid": 1, "ts": {at}, "dur": 30}},
               {{"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": {}, "dur": 4,
                 "args": {{"correlation": {call}}}}},
               {{"ph": "X", "cat": "kernel", "name": "gemm_a&b", "pid": 0, "tid": 7, "ts": {}, "dur": 20,
                 "args": {{"device": 0, "stream": 7, "correlation": {call}}}}}"#,
            at + 5,
            at + 12
        ));
    }
    let json = format!("{{\"traceEvents\": [{}]}}", events.join(","));
    let trace = timeline::from_json(json.as_bytes(), "many").unwrap();
    let html = trace_page(&trace, &timeline::analyse(&trace), None);
    check_well_formed(&html);
    check_contains(&html, &["The first 400 of 500 steps.", "gemm_a&amp;b"]);
}

/// The browser to open pages with, if there is one.
fn chromium() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("STEPSCOPE_CHROMIUM") {
        return Some(PathBuf::from(path));
    }
    let folders = std::env::var_os("PATH")?;
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .flat_map(|name| std::env::split_paths(&folders).map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}

/// Measures the page once it is laid out: pictures, those of no size, and whether it is wider than its window.
const MEASURE: &str = "<script>window.onload = () => { const all = [...document.querySelectorAll('.plot svg')]; \
                       const shown = all.filter(s => s.checkVisibility()); \
                       const flat = shown.filter(s => s.getBoundingClientRect().height < 20); \
                       const wide = document.documentElement.scrollWidth > window.innerWidth; \
                       document.body.dataset.measured = `${shown.length > 0} ${flat.length} ${wide}`; };</script>";

/// The page's DOM after a browser has shown it.
fn shown(browser: &Path, html: &str, width: u32) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    let measuring = html.replace("</body>", &format!("{MEASURE}</body>"));
    std::fs::write(&file, measuring).unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .args(["--enable-logging=stderr", "--disable-dev-shm-usage"])
        .arg(format!("--window-size={width},900"))
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        ))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let complaints: Vec<&str> = log.lines().filter(|l| l.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_browser_shows_the_pages() {
    let Some(browser) = chromium() else {
        println!(
            "skipped: no chromium, chromium-browser or google-chrome in PATH; STEPSCOPE_CHROMIUM names one"
        );
        return;
    };
    let device = Ceilings::of_gpu(gpus::find("h100-sxm").unwrap(), None);
    let record = shown(&browser, &page_of(&sample::record(30)), 1200);
    for heading in HEADINGS {
        check_contains(&record, &[&format!("<h2>{heading}</h2>")]);
    }
    let results = shown(&browser, &results_html(Some(&device)), 500);
    check_contains(&results, &["<h2>Prefill</h2>", "<h2>Decode</h2>"]);
    let trace = trace_html("sglang-qwen3-8b-decode.json.gz", true);
    let trace = shown(&browser, &trace, 1200);
    let narrow = shown(
        &browser,
        &trace_html("alexnet-training.json.gz", false),
        500,
    );
    for html in [&record, &results, &trace, &narrow] {
        check_contains(html, &["data-measured=\"true 0 false\""]);
    }
}

proptest! {
    #[test]
    fn any_record_gives_a_well_formed_page(record in arbitrary::record()) {
        check_well_formed(&page_of(&record));
    }

    #[test]
    fn any_result_gives_a_well_formed_page(
        rows in prop::collection::vec((1..1_000_000_u64, 1.0..1e9, 1e-12..1e12, 1e-12..1e12), 0..6),
        knows_device in any::<bool>(),
    ) {
        let rows: Vec<ResultRow> = rows
            .into_iter()
            .map(|(batch, input, prefill_s, decode_s)| row(batch, input, prefill_s, decode_s))
            .collect();
        let device = Ceilings::of_gpu(gpus::find("l4").unwrap(), None);
        let explanation = results::explain(&Subject {
            rows: &rows,
            model: None,
            device: knows_device.then_some(&device),
            precision: Precision::HALF,
        pool_tokens: None,
        });
        check_well_formed(&results_page(&explanation, "<title>", "\u{1}&"));
    }
}

#[test]
fn both_kinds_of_steps_are_drawn() {
    let html = page_of(&sample::record(2));
    for kind in [StepKind::Prefill, StepKind::Decode] {
        check_contains(&html, &[&format!("class=\"mark {}\"", kind.name())]);
    }
}
