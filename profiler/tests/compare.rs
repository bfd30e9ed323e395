//! Results side by side, as people and programs see them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use stepscope_profiler::compare::export::{Exported, Form, export};
use stepscope_profiler::compare::{Comparison, Override, Source};
use stepscope_profiler::results;

const FOLDER: &str = "tests/data/results";

fn sources(names: &[&str]) -> Vec<Source> {
    names
        .iter()
        .map(|name| Source {
            name: (*name).to_owned(),
            import: results::read(&Path::new(FOLDER).join(name)).unwrap(),
        })
        .collect()
}

fn all() -> Vec<Source> {
    let mut names: Vec<String> = std::fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    sources(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A source out of a text.
fn source(name: &str, content: &str) -> Source {
    Source {
        name: name.to_owned(),
        import: results::parse(name, content.as_bytes()).unwrap(),
    }
}

/// One line of `bench_one_batch`, batch 1, 100 in, 11 out, of which all 10 decode steps take as long.
fn one_batch(run: &str, prefill: f64, step: f64) -> String {
    let total = prefill + 10.0 * step;
    format!(
        "{{\"run_name\": \"{run}\", \"batch_size\": 1, \"input_len\": 100, \"output_len\": 11, \"prefill_latency\": {prefill}, \
         \"prefill_throughput\": {}, \"median_decode_latency\": {step}, \"median_decode_throughput\": {}, \"total_latency\": {total}, \
         \"overall_throughput\": {}}}",
        100.0 / prefill,
        1.0 / step,
        111.0 / total
    )
}

#[test]
fn all_fixtures() {
    let sources = all();
    insta::assert_snapshot!(Comparison::new(&sources).text());
}

#[test]
fn a_result_file_and_what_the_same_run_printed() {
    let sources = sources(&[
        "sglang-0.5.11-cpu-smollm2.jsonl",
        "sglang-0.5.11-cpu-smollm2.stdout.txt",
    ]);
    let comparison = Comparison::new(&sources);
    assert_eq!(comparison.groups.len(), 4);
    assert!(comparison.groups.iter().all(|group| group.rows.len() == 2));
    insta::assert_snapshot!(comparison.text());
}

#[test]
fn rows_of_the_same_work_are_ranked_with_ratios() {
    let sources = [
        source("slow.jsonl", &one_batch("slow", 0.2, 0.03)),
        source("fast.jsonl", &one_batch("fast", 0.1, 0.02)),
        source(
            "other.jsonl",
            &one_batch("fast", 0.1, 0.02).replace("\"batch_size\": 1", "\"batch_size\": 2"),
        ),
    ];
    let comparison = Comparison::new(&sources);
    assert_eq!(
        comparison
            .groups
            .iter()
            .map(|g| g.rows.clone())
            .collect::<Vec<_>>(),
        [vec![1, 2], vec![3]]
    );
    let places = |index: usize| -> Vec<(usize, f64)> {
        comparison.groups[0].rankings[index]
            .places
            .iter()
            .map(|p| (p.row, (p.times_best * 100.0).round()))
            .collect()
    };
    let metrics: Vec<_> = comparison.groups[0]
        .rankings
        .iter()
        .map(|r| r.metric)
        .collect();
    assert_eq!(metrics, ["TTFT", "TPOT", "E2E"]);
    assert_eq!(places(0), [(2, 100.0), (1, 200.0)]);
    assert_eq!(places(1), [(2, 100.0), (1, 150.0)]);
    assert_eq!(places(2), [(2, 100.0), (1, 167.0)]);
    assert_eq!(comparison.differences[0].dimension, "batch or concurrency");
    insta::assert_snapshot!(comparison.text());
}

/// The older server benchmark has the whole call, the static one the sum of its steps.
#[test]
fn figures_of_another_basis_are_not_ranked() {
    let server = "{\"run_name\": \"s\", \"batch_size\": 1, \"input_len\": 100, \"output_len\": 11, \"latency\": 0.4, \
                  \"last_ttft\": 0.12, \"input_throughput\": 833.3, \"output_throughput\": 39.3, \"overall_throughput\": 277.5}";
    let sources = [
        source("static.jsonl", &one_batch("a", 0.1, 0.02)),
        source("server.jsonl", server),
    ];
    let comparison = Comparison::new(&sources);
    let [group] = comparison.groups.as_slice() else {
        panic!("{:?}", comparison.groups);
    };
    assert_eq!(group.rankings, []);
    assert_eq!(
        group.notes[..3],
        [
            "#1, #2 measured the same work, but have no figure in common.",
            "TTFT is not ranked across what it was measured over: prefill step (#1) · client, first token (#2).",
            "E2E is not ranked across what it was measured over: sum of steps (#1) · whole call (#2).",
        ]
    );
}

#[test]
fn asked_for_is_not_counted() {
    let serving =
        std::fs::read_to_string(Path::new(FOLDER).join("sglang-bench_serving.jsonl")).unwrap();
    let newer = serving.replacen('{', "{\"total_throughput\": 5120.0, ", 1);
    let sources = [source("old.jsonl", &serving), source("new.jsonl", &newer)];
    let comparison = Comparison::new(&sources);
    assert_eq!(comparison.groups.len(), 2);
    let [difference] = comparison.differences.as_slice() else {
        panic!("{:?}", comparison.differences);
    };
    assert_eq!(difference.dimension, "output tokens");
    assert_eq!(
        difference.values,
        [
            ("256 asked for".to_owned(), vec![1]),
            ("256".to_owned(), vec![2])
        ]
    );
}

#[test]
fn models_gpus_and_request_rates_that_are_known_must_be_equal() {
    let serve = std::fs::read_to_string(Path::new(FOLDER).join("vllm-bench-serve.json")).unwrap();
    let mut sources = vec![
        source("a.json", &serve),
        source("b.json", &serve.replace("Qwen/Qwen2.5", "/models/QWEN2.5")),
        source("c.json", &serve.replace("2.5-7B", "3-8B")),
        source(
            "d.json",
            &serve.replace("\"request_rate\": \"inf\"", "\"request_rate\": 4.0"),
        ),
    ];
    let groups = |sources: &[Source]| {
        Comparison::new(sources)
            .groups
            .into_iter()
            .map(|g| g.rows)
            .collect::<Vec<_>>()
    };
    assert_eq!(groups(&sources), [vec![1, 2], vec![3], vec![4]]);
    for setting in ["a.json:gpu=H100", "b.json:gpu=H200"] {
        setting
            .parse::<Override>()
            .unwrap()
            .apply(&mut sources)
            .unwrap();
    }
    assert_eq!(groups(&sources), [vec![1], vec![2], vec![3], vec![4]]);
}

#[test]
fn what_a_file_does_not_say_can_be_set_and_what_it_says_cannot_be_changed() {
    let mut sources = sources(&["vllm-bench-latency.json", "sglang-bench_serving.jsonl"]);
    let says_so = "Ranked against nothing, since the file does not say its batch, input length, output length";
    assert!(Comparison::new(&sources).text().contains(says_so));
    for setting in ["batch=8", "input-len=32", "output-len=128", "tp=2"] {
        let setting: Override = format!("vllm-bench-latency.json:{setting}")
            .parse()
            .unwrap();
        setting.apply(&mut sources).unwrap();
    }
    assert!(
        !Comparison::new(&sources)
            .text()
            .contains("Ranked against nothing")
    );
    let row = &sources[0].import.rows[0];
    assert_eq!(row.tp, Some(2));
    assert_eq!(row.rates.output_tokens_per_s, Some(512.0));
    assert_eq!(row.rates.total_tokens_per_s, Some(640.0));
    for (setting, expected) in [
        (
            "sglang-bench_serving.jsonl:batch=8",
            "the file itself says another value",
        ),
        (
            "sglang-bench_serving.jsonl:input-len=8",
            "the file itself says another value",
        ),
        ("missing.json:tp=8", "no file of that name was given"),
    ] {
        let error = setting
            .parse::<Override>()
            .unwrap()
            .apply(&mut sources)
            .unwrap_err();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn markdown_csv_and_json_hold_every_row() {
    let sources = all();
    let comparison = Comparison::new(&sources);
    let count = comparison.entries.len();

    let csv = comparison.csv();
    let columns: Vec<usize> = csv.lines().map(|line| line.matches(',').count()).collect();
    assert_eq!(columns.len(), count + 1);
    // Remarks with commas are quoted; all other lines have as many commas as the header.
    assert!(
        csv.lines()
            .zip(&columns)
            .all(|(line, n)| *n == columns[0] || line.contains('"'))
    );

    let json = comparison.json();
    assert_eq!(json["results"].as_array().unwrap().len(), count);
    assert_eq!(json["results"][0]["result"]["framework"], "llama-cpp");
    assert_eq!(
        json["groups"].as_array().unwrap().len(),
        comparison.groups.len()
    );

    let small = self::sources(&["vllm-bench-serve.json", "trtllm-bench-throughput.json"]);
    insta::assert_snapshot!(Comparison::new(&small).markdown());
}

/// An engine's own benchmark and a client's: what both measured per request is ranked, the first token is not.
#[test]
fn percentiles_of_another_method_are_ranked_and_told_of() {
    let mut sources = sources(&["vllm-bench-serve.json", "trtllm-bench-throughput.json"]);
    for setting in [
        "trtllm-bench-throughput.json:concurrency=8",
        "trtllm-bench-throughput.json:model=qwen2.5-7b-instruct",
    ] {
        setting
            .parse::<Override>()
            .unwrap()
            .apply(&mut sources)
            .unwrap();
    }
    let comparison = Comparison::new(&sources);
    let group = &comparison.groups[0];
    let metrics: Vec<_> = group
        .rankings
        .iter()
        .map(|r| (r.metric, r.places[0].row))
        .collect();
    assert_eq!(metrics, [("TPOT", 1), ("output", 2)]);
    assert_eq!(
        group.notes[..2],
        [
            "TTFT is not ranked across what it was measured over: client, first token (#1) · engine, first token (#2).",
            "The median TPOT of #2 is the nearest rank, that of #1 is interpolated; with few requests they differ.",
        ]
    );
    assert_eq!(
        group.notes.last().unwrap(),
        "They differ in requests: 200 (#1) · 512 (#2)."
    );
}

/// A run that was interrupted after its warm-up.
#[test]
fn a_warm_up_alone_is_no_result() {
    let sources = [source(
        "out.txt",
        "Warmup ...\nPrefill. latency: 2.00000 s, throughput:    128.00 token/s\nTotal. latency:  2.000 s, throughput:    128.50 token/s\n",
    )];
    let comparison = Comparison::new(&sources);
    assert_eq!(
        comparison.text(),
        "No file holds a result.\n\nRemarks\n  out.txt: The warm-up is no result and is in no table (prefill 2.00 s).\n"
    );
    assert_eq!(comparison.csv(), "");
}

#[track_caller]
fn exported(sources: &[Source], form: Form) -> Exported {
    export(form, &Comparison::new(sources).entries)
}

#[test]
fn sglang_s_own_file_is_written_byte_for_byte() {
    let name = "sglang-0.5.11-cpu-smollm2.jsonl";
    let exported = exported(&sources(&[name]), Form::Sglang);
    assert_eq!(exported.refused, []);
    assert_eq!(
        exported.text,
        std::fs::read_to_string(Path::new(FOLDER).join(name)).unwrap()
    );

    // The loose form comes out in the strict one, with the same figures.
    let loose = sources(&["sglang-bench_one_batch-32b-tp8.log"]);
    let strict = [source("file", &self::exported(&loose, Form::Sglang).text)];
    for (a, b) in loose[0].import.rows.iter().zip(&strict[0].import.rows) {
        let b = results::ResultRow {
            line: a.line,
            ..b.clone()
        };
        assert_eq!(*a, b);
    }
}

#[test]
fn our_own_record_becomes_the_form_of_sglang_and_of_vllm() {
    let record = [Source {
        name: "record.json".to_owned(),
        import: results::read(Path::new("tests/sample/record.json")).unwrap(),
    }];
    let row = &record[0].import.rows[0];
    let sglang = source("file", &exported(&record, Form::Sglang).text);
    let read = &sglang.import.rows[0];
    assert_eq!(read.remarks, [""; 0]);
    assert_eq!(
        read.ttft.as_ref().unwrap().median_s,
        row.ttft.as_ref().unwrap().median_s
    );
    assert_eq!(
        read.tpot.as_ref().unwrap().median_s,
        row.tpot.as_ref().unwrap().median_s
    );

    let vllm = exported(&record, Form::Vllm);
    assert_eq!(
        vllm.notes,
        [
            "#1, #2: the sum of the timed steps stands where vllm bench latency has the whole call, scheduler and detokeniser included."
        ]
    );
    let read = source("file", &vllm.text);
    assert_eq!(read.import.rows[0].e2e_samples_s, row.e2e_samples_s);
}

#[test]
fn vllm_s_own_files_are_read_back_as_they_were() {
    for name in ["vllm-bench-latency.json", "vllm-bench-serve.json"] {
        let original = sources(&[name]);
        let exported = exported(&original, Form::Vllm);
        assert_eq!((&*exported.refused, &*exported.notes), (&[][..], &[][..]));
        let read = source("file", &exported.text);
        assert_eq!(read.import, original[0].import, "{}", exported.text);
    }
    // A client's file of another framework becomes one of vLLM's form.
    let sglang = sources(&["sglang-bench_serving.jsonl"]);
    let read = source("file", &exported(&sglang, Form::Vllm).text);
    let (a, b) = (&sglang[0].import.rows[0], &read.import.rows[0]);
    assert_eq!(
        (
            &a.ttft,
            &a.tpot,
            &a.itl,
            &a.e2e,
            &a.workload["request_rate"]
        ),
        (&b.ttft, &b.tpot, &b.itl, &b.e2e, &"4.0".to_owned())
    );
}

#[test]
fn llama_bench_s_table() {
    let exported = exported(&sources(&["llama-bench.jsonl"]), Form::LlamaBenchMarkdown);
    insta::assert_snapshot!(exported.text);
    let read = source("file", &exported.text);
    let again = self::exported(&[read], Form::LlamaBenchMarkdown);
    assert_eq!(again.text, exported.text);
}

#[test]
fn what_a_form_cannot_express_is_refused_with_the_reason() {
    let sources = all();
    let comparison = Comparison::new(&sources);
    let mut lines = String::new();
    for (name, form) in [
        ("sglang", Form::Sglang),
        ("vllm", Form::Vllm),
        ("llama-bench-md", Form::LlamaBenchMarkdown),
    ] {
        for (number, reason) in export(form, &comparison.entries).refused {
            let row = comparison.entries[number - 1].row;
            let line = format!(
                "{name}: {} {}: {reason}\n",
                row.framework.name(),
                row.program
            );
            if !lines.contains(&line) {
                lines += &line;
            }
        }
    }
    insta::assert_snapshot!(lines);
}
