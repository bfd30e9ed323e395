//! Traces as they should not be, traces too large for a disk, and formats other than PyTorch's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::path::Path;

use rusqlite::Connection;
use stepscope_profiler::explain::page::trace_page;
use stepscope_profiler::timeline::{
    self, Analysis, Cause, Family, Format, Kind, Spelling, Tie, Trace, from_json,
};
use stepscope_profiler::trace::{self, Selection};

/// One decode step with two launches, the second late.
const STEP: &str = r#"
  {"ph": "X", "cat": "user_annotation", "name": "step[DECODE bs=4]", "pid": 1, "tid": 1, "ts": 0, "dur": 100},
  {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": 5, "dur": 4, "args": {"correlation": 1}},
  {"ph": "X", "cat": "kernel", "name": "gemm_a", "pid": 0, "tid": 7, "ts": 12, "dur": 20, "args": {"device": 0, "stream": 7, "correlation": 1}},
  {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": 50, "dur": 4, "args": {"correlation": 2}},
  {"ph": "X", "cat": "kernel", "name": "rms_norm", "pid": 0, "tid": 7, "ts": 60, "dur": 5, "args": {"device": 0, "stream": 7, "correlation": 2}}"#;

fn read(json: &str) -> Trace {
    from_json(json.as_bytes(), "trace.json").unwrap()
}

fn analysed(events: &str) -> Analysis {
    timeline::analyse(&read(&format!("{{\"traceEvents\": [{events}]}}")))
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    let error = from_json(bytes, "trace.json").unwrap_err();
    let message = error.to_string();
    assert!(message.contains(why), "{message}");
    assert!(message.starts_with("trace.json is no trace"), "{message}");
    assert!(error.is_input());
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[track_caller]
fn remarked(analysis: &Analysis, text: &str) {
    let remarks = analysis.remarks.join("\n");
    assert!(remarks.contains(text), "{remarks}");
}

#[test]
fn a_small_step() {
    let analysis = analysed(STEP);
    let step = &analysis.devices[0].steps[0];
    assert_eq!(
        (step.span_ns, step.busy_ns, step.idle_ns),
        (53_000, 25_000, 28_000)
    );
    assert_eq!((step.kind, step.requests), (Kind::Decode, Some(4)));
    assert_eq!(
        (step.gaps[0].cause, step.gaps[0].count),
        (Cause::LaunchedLate, 1)
    );
    assert_eq!(step.families[0].family, Family::Gemm);
    // Categories and arguments may come in any order, the list alone may be the document.
    let list = read(&format!("[{STEP}]"));
    assert_eq!(list.activities.len(), 2);
    assert_eq!(list.damage.broken_off, None);
}

#[test]
fn what_is_no_trace() {
    refused(b"", "the file is empty");
    refused(b"hello", "not JSON");
    refused(b"\x28\xb5\x2f\xfd....", "zstd");
    refused(b"PK\x03\x04....", "zip");
    refused(
        br#"{"schema": "stepscope.record/1"}"#,
        "without a list `traceEvents`",
    );
    refused(br#"{"traceEvents": 3}"#, "a list of events");
    refused(br#"{"traceEvents": []}"#, "its list of events holds none");
    refused(br#""text""#, "a Chrome trace");
    refused(b"\x1f\x8bnot gzip after all", "not JSON");
    let missing = timeline::read(Path::new("no-such-trace.json")).unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("cannot read no-such-trace.json")
    );
}

#[test]
fn a_truncated_trace_keeps_what_was_read() {
    let whole = format!("{{\"traceEvents\": [{STEP}]}}");
    let cut = &whole[..whole.len() - 60];
    let analysis = timeline::analyse(&read(cut));
    assert_eq!(analysis.devices[0].window.activities, 1);
    remarked(&analysis, "The file breaks off");

    let kernels: Vec<String> = (0..5000_u64)
        .map(|i| {
            let (ts, dur) = (i * 997 % 100_003, i * 31 % 97);
            format!(r#"{{"ph": "X", "cat": "kernel", "name": "gemm", "ts": {ts}, "dur": {dur}}}"#)
        })
        .collect();
    let whole = format!("{{\"traceEvents\": [{}]}}", kernels.join(","));
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(whole.as_bytes()).unwrap();
    let zipped = zipped.finish().unwrap();
    assert_eq!(
        from_json(zipped.as_slice(), "t").unwrap().activities.len(),
        5000
    );
    let cut = from_json(&zipped[..zipped.len() / 2], "t").unwrap();
    assert!(cut.damage.broken_off.is_some());
    assert!(cut.activities.len() > 1000 && cut.activities.len() < 4000);
}

#[test]
fn python_writes_numbers_that_json_does_not_know() {
    let bad = r#"{"ph": "X", "cat": "kernel", "name": "k", "ts": NaN, "dur": 1},
        {"ph": "X", "cat": "kernel", "name": "k", "ts": 70, "dur": Infinity, "args": {"x": -Infinity}},"#;
    let analysis = analysed(&format!("{bad}{STEP}"));
    assert_eq!(analysis.devices[0].window.activities, 2);
    assert_eq!(analysis.damage.not_numbers, 3);
    assert_eq!(analysis.damage.without_time, 2);
    remarked(
        &analysis,
        "Numbers that are NaN or infinite and count as missing: 3.",
    );
}

#[test]
fn bad_times_are_left_out_and_counted() {
    let bad = r#"{"ph": "X", "cat": "kernel", "name": "negative", "ts": 1, "dur": -1},
        {"ph": "X", "cat": "kernel", "name": "no duration", "ts": 1},
        {"ph": "X", "cat": "kernel", "name": "no start", "dur": 1},
        {"ph": "X", "cat": "kernel", "name": "beyond", "ts": 1e300, "dur": 1},
        {"ph": "X", "cat": "kernel", "name": "endless", "ts": 1, "dur": 1e15},
        {"ph": "X", "cat": "kernel", "name": "empty", "ts": 13, "dur": 0, "args": {"correlation": 1}},
        {"ph": "X", "cat": "kernel", "ts": 13, "dur": 0},
        {"ph": "B", "cat": "user_annotation", "name": "b", "ts": 13}, {"ph": "E", "ts": 14},
        17, null, [], "text",
        {"ph": "X", "cat": "kernel", "name": {"not": "text"}, "ts": [], "dur": {}, "args": 5},"#;
    let analysis = analysed(&format!("{bad}{STEP}"));
    let damage = &analysis.damage;
    assert_eq!(
        (damage.negative, damage.without_time, damage.out_of_range),
        (1, 2, 2)
    );
    assert_eq!(
        (damage.zero_duration, damage.malformed, damage.begin_end),
        (1, 6, 2)
    );
    assert_eq!(analysis.devices[0].window.activities, 3);
    assert_eq!(analysis.devices[0].steps[0].busy_ns, 25_000);
    remarked(&analysis, "mix units of time");
}

#[test]
fn a_window_of_years_is_remarked() {
    let far = r#"{"ph": "X", "cat": "kernel", "name": "gemm", "ts": 1695835542514261, "dur": 3},"#;
    remarked(&analysed(&format!("{far}{STEP}")), "longer than a day");
}

#[test]
fn overlapping_kernels_count_once() {
    let events = STEP.replace("\"ts\": 60, \"dur\": 5", "\"ts\": 30, \"dur\": 10");
    let analysis = analysed(&events);
    let step = &analysis.devices[0].steps[0];
    assert_eq!((step.busy_ns, step.sum_ns), (28_000, 30_000));
    assert_eq!(
        (step.overlap_in_stream_ns, step.overlap_of_streams_ns),
        (2_000, 0)
    );
    let families: u64 = step.families.iter().map(|time| time.busy_ns).sum();
    assert_eq!(families, 28_000);
    remarked(&analysis, "programmatic dependent launch");
    // The launch of the second came after its start: the clocks disagree.
    remarked(
        &analysis,
        "Kernels that start before the call that launched them: 1, by up to 20.0 µs",
    );

    let other_stream = analysed(&events.replacen(
        "\"stream\": 7, \"correlation\": 2",
        "\"stream\": 8, \"correlation\": 2",
        1,
    ));
    let step = &other_stream.devices[0].steps[0];
    assert_eq!(
        (step.overlap_in_stream_ns, step.overlap_of_streams_ns),
        (0, 2_000)
    );
}

#[test]
fn merged_ranks_with_one_numbering_are_tied_to_none() {
    let second = STEP
        .replace("\"pid\": 1,", "\"pid\": 2,")
        .replace("\"device\": 0", "\"device\": 1");
    let analysis = analysed(&format!("{STEP},{second}"));
    assert_eq!(analysis.devices.len(), 2);
    remarked(
        &analysis,
        "several calls have their correlation id, as in merged traces of several ranks: 4.",
    );
    assert_eq!(analysis.devices[0].outside.activities, 2);
}

#[test]
fn steps_without_annotations() {
    let kernels: Vec<String> = (0..24)
        .map(|i| {
            let name = ["flash_fwd", "gemm"][i % 2];
            format!(
                r#"{{"ph": "X", "cat": "kernel", "name": "{name}", "ts": {}, "dur": 5, "args": {{"stream": 1, "correlation": {}}}}}"#,
                10 + i * 6,
                7 + i / 12
            )
        })
        .collect();
    let launches = r#"{"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 1, "dur": 2, "args": {"correlation": 7}},
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 4, "dur": 2, "args": {"correlation": 8}}"#;
    let analysis = analysed(&format!("{},{launches}", kernels.join(",")));
    let steps = &analysis.devices[0].steps;
    assert_eq!(steps.len(), 2);
    assert_eq!((steps[0].tie, steps[0].activities), (Tie::GraphLaunch, 12));
    assert_eq!(steps[0].layers.as_ref().unwrap().count, 6);
    // Within a graph, and before one that waits in the queue, the launch was not late.
    assert!(
        steps
            .iter()
            .flat_map(|step| &step.gaps)
            .all(|gap| gap.cause == Cause::Dependency)
    );
    let text = timeline::text(&analysis);
    assert!(text.contains("2 steps"), "{text}");

    let only_kernels = analysed(&kernels.join(","));
    assert_eq!(only_kernels.devices[0].steps[0].tie, Tie::Window);
    remarked(&only_kernels, "Nothing separates steps");
}

#[test]
fn many_steps_by_kind_and_batch() {
    // Nine decode steps of four requests and one of a prompt, 200 µs apart; correlation ids of their own.
    let steps: Vec<String> = (0..10_u64)
        .map(|i| {
            let (name, kernel_us) = match i {
                4 => ("step[EXTEND bs=1 toks=512]", 90),
                _ => ("step[DECODE bs=4]", 10 + i),
            };
            let (at, id) = (i * 200, i + 1);
            format!(
                r#"{{"ph": "X", "cat": "user_annotation", "name": "{name}", "pid": 1, "tid": 1, "ts": {at}, "dur": 50}},
                {{"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": {}, "dur": 4, "args": {{"correlation": {id}}}}},
                {{"ph": "X", "cat": "kernel", "name": "gemm", "ts": {}, "dur": {kernel_us}, "args": {{"stream": 1, "correlation": {id}}}}}"#,
                at + 5,
                at + 20
            )
        })
        .collect();
    let analysis = analysed(&steps.join(","));
    assert_eq!(analysis.devices[0].steps.len(), 10);
    let text = timeline::text(&analysis);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| !line.starts_with('─'))
        .skip(1)
        .take(2)
        .map(|line| line.split_whitespace().collect())
        .collect();
    // Kind, requests, steps, shortest, median, longest, busy, kernels, layers.
    assert_eq!(
        rows[0],
        [
            "prefill", "1", "1", "90.0", "90.0", "90.0", "100.0", "1", "-"
        ],
        "{text}"
    );
    assert_eq!(
        rows[1],
        [
            "decode", "4", "9", "10.0", "15.0", "19.0", "100.0", "1", "-"
        ],
        "{text}"
    );
    assert!(text.contains("Step 6, of median length"), "{text}");
    assert!(
        text.starts_with("Trust: good.\n\n10 steps by sglang"),
        "{text}"
    );
}

#[test]
fn annotations_on_the_gpu_only() {
    let events = STEP
        .replace("\"user_annotation\"", "\"gpu_user_annotation\"")
        .replacen("\"pid\": 1, \"tid\": 1", "\"pid\": 0, \"tid\": 7", 1);
    let analysis = analysed(&events);
    assert_eq!(analysis.devices[0].steps[0].tie, Tie::Device);
    assert_eq!(analysis.devices[0].steps[0].activities, 2);
}

/// JSON that is made while it is read: many host operations and Python frames between few kernels, as in a real trace.
struct Endless {
    chunk: Vec<u8>,
    at: usize,
    events: u64,
    bytes: u64,
    limit: u64,
    kernels: u64,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.chunk.len() {
            self.at = 0;
            self.chunk.clear();
            if self.bytes == 0 {
                self.chunk.extend_from_slice(b"{\"traceEvents\": [");
            } else if self.bytes >= self.limit {
                if self.limit == 0 {
                    return Ok(0);
                }
                self.limit = 0;
                self.chunk.extend_from_slice(b"{}]}");
            }
            while self.limit != 0 && self.chunk.len() < 1 << 16 {
                let n = self.events;
                self.events += 1;
                let ts = n * 3;
                match n % 20 {
                    0 => {
                        self.kernels += 1;
                        writeln!(
                            self.chunk,
                            r#"{{"ph": "X", "cat": "kernel", "name": "kernel_{}", "pid": 0, "tid": 7, "ts": {ts}.25, "dur": 2.5, "args": {{"device": 0, "stream": 7, "correlation": {n}, "grid": [1, 1, 1]}}}},"#,
                            n % 7
                        )?;
                    }
                    1 => writeln!(
                        self.chunk,
                        r#"{{"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": {ts}.5, "dur": 1.5, "args": {{"correlation": {n}}}}},"#
                    )?,
                    // Every frame and every operation has a name of its own.
                    2..10 => writeln!(
                        self.chunk,
                        r#"{{"ph": "X", "cat": "python_function", "name": "model.py({n}): forward", "pid": 1, "tid": 1, "ts": {ts}, "dur": 9, "args": {{"Python id": {n}, "Ev Idx": {n}}}}},"#
                    )?,
                    _ => writeln!(
                        self.chunk,
                        r#"{{"ph": "X", "cat": "cpu_op", "name": "aten::mm_{n}", "pid": 1, "tid": 1, "ts": {ts}, "dur": 9, "args": {{"Input Dims": [[1, 2], [{n}, 4]], "x": NaN}}}},"#
                    )?,
                }
            }
            self.bytes += self.chunk.len() as u64;
        }
        let length = out.len().min(self.chunk.len() - self.at);
        out[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[test]
fn memory_grows_with_kernels_alone() {
    let mut source = Endless {
        chunk: Vec::new(),
        at: 0,
        events: 0,
        bytes: 0,
        limit: 200 << 20,
        kernels: 0,
    };
    let trace = from_json(&mut source, "endless").unwrap();
    assert!(source.bytes > 200 << 20);
    assert_eq!(trace.damage.broken_off, None);
    assert_eq!(trace.activities.len() as u64, source.kernels);
    assert!(source.kernels > 50_000, "{}", source.kernels);
    // 40 bytes for a kernel, 40 for its launch, and eight names.
    assert!(
        trace.kept_bytes() <= 80 * source.kernels + 40 + 8 * 128,
        "{}",
        trace.kept_bytes()
    );
    assert_eq!(trace.names.len(), 8);
}

#[test]
fn our_own_traces_are_read() {
    let record = support::sample::record(2);
    let mut out = Vec::new();
    trace::write(&record, &Selection::default(), &mut out).unwrap();
    let trace = from_json(out.as_slice(), "ours").unwrap();
    assert_eq!(trace.format, Format::Stepscope);
    let analysis = timeline::analyse(&trace);
    let steps: Vec<_> = analysis
        .devices
        .iter()
        .flat_map(|device| &device.steps)
        .collect();
    assert!(!steps.is_empty());
    assert!(
        steps
            .iter()
            .all(|step| step.spelling == Some(Spelling::Stepscope))
    );
    assert!(
        steps
            .iter()
            .any(|step| step.kind == Kind::Prefill && step.requests.is_some())
    );
    remarked(&analysis, "stepscope's own trace");
}

/// An export as Nsight Systems makes it, with one process, one GPU and two steps of TensorRT-LLM.
fn export(path: &Path, with_pid: bool) {
    let database = Connection::open(path).unwrap();
    let pid = if with_pid { ", globalPid INT" } else { "" };
    database
        .execute_batch(&format!(
            "CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT NOT NULL);
             CREATE TABLE TARGET_INFO_GPU (id INT, name TEXT, smCount INT, totalMemory INT);
             CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INT NOT NULL, end INT NOT NULL, deviceId INT, streamId INT,
                correlationId INT{pid}, demangledName INT, shortName INT, graphNodeId INT);
             CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INT, end INT, deviceId INT, streamId INT, correlationId INT{pid}, copyKind INT, bytes INT);
             CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INT, end INT, globalTid INT, correlationId INT, nameId INT);
             CREATE TABLE NVTX_EVENTS (start INT, end INT, eventType INT, text TEXT, textId INT, globalTid INT);
             CREATE TABLE DIAGNOSTIC_EVENT (severity INT, text TEXT);
             INSERT INTO StringIds VALUES (1, 'void flash::flash_fwd_kernel<T>(P)'), (2, 'nvjet_tst_128x64'), (3, 'cudaLaunchKernel_v7000'),
                (4, '[Executor] _forward_step 1: 0 ctx reqs, 0 ctx tokens, 8 gen reqs'), (5, 'cudaMemcpyAsync_v3020'), (6, 'cudaGetDevice_v3020');
             INSERT INTO TARGET_INFO_GPU VALUES (0, 'NVIDIA H100 80GB HBM3', 132, 85017755648);
             INSERT INTO DIAGNOSTIC_EVENT VALUES (1, 'fine'), (3, 'Not all events were recorded');"
        ))
        .unwrap();
    let process: i64 = 4321 << 24;
    let thread = process | 4321;
    for step in 0..2_i64 {
        let at = 1_700_000_000_000_000_000 + step * 100_000;
        let (text, id) = match step {
            0 => ("NULL".to_owned(), "4".to_owned()),
            _ => (
                "'[Executor] _forward_step 2: 1 ctx reqs, 100 ctx tokens, 0 gen reqs'".to_owned(),
                "NULL".to_owned(),
            ),
        };
        let mut sql = format!(
            "INSERT INTO NVTX_EVENTS VALUES ({at}, {}, 59, {text}, {id}, {thread});
             INSERT INTO NVTX_EVENTS VALUES ({at}, NULL, 34, 'mark', NULL, {thread});
             INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES ({at}, {at}, {thread}, 0, 6);",
            at + 90_000
        );
        let pid = if with_pid {
            format!(", {process}")
        } else {
            String::new()
        };
        for kernel in 0..4 {
            let correlation = 1 + step * 10 + kernel;
            let (launch, start) = (at + 1000 + kernel * 2000, at + 10_000 + kernel * 6000);
            sql += &format!(
                "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES ({launch}, {}, {thread}, {correlation}, 3);
                 INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES ({start}, {}, 0, 7, {correlation}{pid}, {}, 2, NULL);",
                launch + 900,
                start + 5000,
                1 + kernel % 2
            );
        }
        sql += &format!(
            "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES ({}, {}, {thread}, {}, 5);
             INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY VALUES ({}, {}, 0, 7, {}{pid}, 2, 64);",
            at + 60_000,
            at + 62_000,
            9 + step * 10,
            at + 65_000,
            at + 66_000,
            9 + step * 10
        );
        database.execute_batch(&sql).unwrap();
    }
}

#[test]
fn exports_of_nsight_systems() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.sqlite");
    export(&path, true);
    let trace = timeline::read(&path).unwrap();
    assert_eq!(trace.format, Format::Nsys);
    let analysis = timeline::analyse(&trace);
    let device = &analysis.devices[0];
    assert_eq!(device.device.name, "NVIDIA H100 80GB HBM3");
    assert_eq!(device.device.multiprocessors, Some(132));
    assert_eq!(device.steps.len(), 2);
    let step = &device.steps[0];
    assert_eq!(
        (step.spelling, step.kind),
        (Some(Spelling::TensorRtLlm), Kind::Decode)
    );
    assert_eq!((step.requests, step.activities), (Some(8), 5));
    assert_eq!((step.span_ns, step.busy_ns), (56_000, 21_000));
    assert_eq!(step.layers.as_ref().unwrap().count, 2);
    // Three gaps of 1 µs between kernels that were launched in time, and one before a copy that was launched late and then
    // waited for 3 µs.
    let gap = |cause| step.gaps.iter().find(|gap| gap.cause == cause).unwrap();
    assert_eq!(
        (
            gap(Cause::Dependency).count,
            gap(Cause::Dependency).total_ns
        ),
        (4, 6000)
    );
    assert_eq!(
        (
            gap(Cause::LaunchedLate).count,
            gap(Cause::LaunchedLate).total_ns
        ),
        (1, 29_000)
    );
    let prefill = &device.steps[1];
    assert_eq!((prefill.kind, prefill.tokens), (Kind::Prefill, Some(100)));
    remarked(&analysis, "The recorder says: Not all events were recorded");
}

#[test]
fn exports_with_other_columns_and_tables() {
    let folder = tempfile::tempdir().unwrap();
    // Kernels that do not say of which process they are, beside calls of one.
    let path = folder.path().join("old.sqlite");
    export(&path, false);
    let old = timeline::analyse(&timeline::read(&path).unwrap());
    assert_eq!(old.devices[0].steps.len(), 2);
    assert_eq!(old.devices[0].steps[0].activities, 5);

    // A capture of whole graphs has no kernels.
    let path = folder.path().join("graphs.sqlite");
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch(
            "CREATE TABLE StringIds (id INT, value TEXT); INSERT INTO StringIds VALUES (1, 'cudaGraphLaunch_v10000');
             CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE (start INT, end INT, deviceId INT, streamId INT, correlationId INT, graphId INT);
             CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INT, end INT, globalTid INT, correlationId INT, nameId INT);
             INSERT INTO CUPTI_ACTIVITY_KIND_GRAPH_TRACE VALUES (100, 200, 0, 7, 5, 1), (300, 400, 0, 7, 6, 1);
             INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (10, 20, 0, 5, 1), (210, 220, 0, 6, 1);",
        )
        .unwrap();
    drop(database);
    let analysis = timeline::analyse(&timeline::read(&path).unwrap());
    assert_eq!(analysis.devices[0].steps.len(), 2);
    remarked(&analysis, "--cuda-graph-trace=node");

    let path = folder.path().join("other.sqlite");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE t (a INT)")
        .unwrap();
    let error = timeline::read(&path).unwrap_err().to_string();
    assert!(error.contains("no export of Nsight Systems"), "{error}");

    let path = folder.path().join("broken.sqlite");
    let mut bytes = b"SQLite format 3\0".to_vec();
    bytes.extend([0xff; 2000]);
    std::fs::write(&path, bytes).unwrap();
    let error = timeline::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("cannot be read as a SQLite database"),
        "{error}"
    );
}

/// Bytes changed at random, always by the same generator: everything is read or refused, and nothing panics.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        // Xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const BITS: [&[u8]; 12] = [
            b"-",
            b"NaN",
            b"1e308",
            b"\"",
            b"}",
            b"[",
            b"\\",
            b"9999999999999999999",
            b"null",
            b"0",
            b"\xff",
            b"{\"traceEvents\":[",
        ];
        for _ in 0..1 + self.next() % 4 {
            let at = self.next() as usize % bytes.len().max(1);
            match self.next() % 4 {
                0 => bytes.truncate(at),
                1 => bytes[at] = self.next() as u8,
                2 => {
                    let bit = BITS[self.next() as usize % BITS.len()];
                    bytes.splice(at..at, bit.iter().copied());
                }
                _ => {
                    let end = (at + self.next() as usize % 64).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
            if bytes.is_empty() {
                return;
            }
        }
    }
}

#[test]
fn mutated_traces_do_not_panic() {
    let whole = format!(
        "{{\"deviceProperties\": [{{\"id\": 0, \"name\": \"GPU\"}}], \"traceEvents\": [{STEP}]}}"
    );
    let mut generator = Generator(0x9e37_79b9_7f4a_7c15);
    let mut read = 0;
    for _ in 0..4000 {
        let mut bytes = whole.clone().into_bytes();
        generator.mutate(&mut bytes);
        if let Ok(trace) = from_json(bytes.as_slice(), "mutated") {
            read += 1;
            let analysis = timeline::analyse(&trace);
            assert!(!timeline::text(&analysis).is_empty() || analysis.devices.is_empty());
            assert!(serde_json::from_str::<serde_json::Value>(&timeline::json(&analysis)).is_ok());
            if read % 8 == 0 {
                assert!(trace_page(&trace, &analysis, None).ends_with("</html>\n"));
            }
            for step in analysis.devices.iter().flat_map(|device| &device.steps) {
                assert_eq!(step.busy_ns + step.others_ns + step.idle_ns, step.span_ns);
            }
        }
    }
    assert!(read > 1000, "{read}");
}

#[test]
fn mutated_exports_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.sqlite");
    export(&path, true);
    let whole = std::fs::read(&path).unwrap();
    let mut generator = Generator(0x2545_f491_4f6c_dd1d);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..1 + generator.next() % 8 {
            let at = generator.next() as usize % bytes.len();
            bytes[at] = generator.next() as u8;
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(trace) = timeline::read(&path) {
            let analysis = timeline::analyse(&trace);
            let _ = timeline::text(&analysis);
            let _ = trace_page(&trace, &analysis, None);
        }
    }
}
