use super::*;
use crate::gate::{Thresholds, Verdict};
use crate::record::{Cpu, Gpu};
use crate::recorder::Timer;

fn series(median_ns: f64) -> Series {
    let sample = |i: i32| Sample {
        time_ns: median_ns * (1.0 + 0.0001 * f64::from(i)),
        sm_clock_hz: Some(1.8e9),
    };
    let mut series = Series::new(Timer::Event, 1, (-10..=10).map(sample).collect());
    series.l2 = Some(CacheState::Flushed);
    series.launch_hidden = true;
    series.stopped = Some(Stopped::LowNoise);
    series
}

fn row(shape: &str, series: Option<Series>) -> Row {
    Row {
        group: "gemm".to_owned(),
        operation: "gemm".to_owned(),
        kernel: "gemm_mma".to_owned(),
        shape: shape.to_owned(),
        dtype: "bf16".to_owned(),
        status: Status::Ok,
        reason: None,
        flops: 2_000_000_000,
        bytes: 33_500_000,
        roof: Some(Roof {
            flops_per_s: Some(1e15),
            bytes_per_s: Some(3.35e12),
            source: "data sheet of H100".to_owned(),
        }),
        series,
        peers: Vec::new(),
    }
}

fn bench(rows: Vec<Row>) -> Microbench {
    let program = Program {
        name: "stepscope".to_owned(),
        version: "0.1.0".to_owned(),
        commit: None,
        command: vec!["cargo".to_owned(), "bench".to_owned()],
    };
    let environment = Environment {
        host: None,
        os: "Linux".to_owned(),
        cpu: Cpu {
            name: "a CPU".to_owned(),
            threads: 16,
            simd: "avx2".to_owned(),
        },
        memory_bytes: 0,
        load_average: None,
        gpu: Some(Gpu {
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            uuid: "GPU-1".to_owned(),
            compute_capability: [9, 0],
            multiprocessors: 132,
            l2_bytes: 50 << 20,
            memory_bytes: 80 << 30,
            clocks_khz: [1_980_000, 2_619_000],
            driver: "13.0".to_owned(),
            nvrtc: "13.0".to_owned(),
        }),
        roofs: None,
    };
    let mut bench = Microbench::new(program, "2026-02-03T04:05:06Z".to_owned(), environment);
    bench.rows = rows;
    bench
}

fn judge(base: &Microbench, head: &Microbench) -> Outcome {
    compare(
        ("base", base),
        ("head", head),
        &Thresholds::default(),
        false,
    )
    .unwrap()
}

#[test]
fn statistics_are_those_of_the_samples_that_count() {
    let of = |times: &[f64]| {
        let samples = times.iter().map(|&time_ns| Sample {
            time_ns,
            sm_clock_hz: None,
        });
        Series::new(Timer::Event, 4, samples.collect())
    };
    let some = of(&[10.0, 14.0, 11.0, 13.0, 12.0]);
    assert_eq!(some.median_ns(), Some(12.0));
    assert_eq!(some.quartiles_ns(), Some([11.0, 13.0]));
    assert_eq!(some.min_ns(), Some(10.0));
    assert_eq!(some.quartile_noise(), Some(2.0 / 12.0));
    assert!((some.relative_deviation().unwrap() - 2.5_f64.sqrt() / 12.0).abs() < 1e-12);
    assert_eq!(some.clocks_hz(), None);
    let none = of(&[]);
    assert_eq!(none.median_ns(), None);
    assert_eq!(none.quartile_noise(), None);
    assert_eq!(none.relative_deviation(), None);
    assert_eq!(none.clocks_hz(), None);
    assert_eq!(series(1e4).median_clock_hz(), Some(1.8e9));
}

#[test]
fn a_file_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut timed = row("m=1 n=4096 k=4096", Some(series(1e4)));
    if let Some(series) = &mut timed.series {
        series.set_aside = vec![Sample {
            time_ns: 1.5e4,
            sm_clock_hz: Some(1.2e9),
        }];
    }
    timed.peers = vec![Peer {
        name: "cuBLASLt".to_owned(),
        version: Some("13.0".to_owned()),
        kernel: None,
        in_turn: true,
        status: Status::Ok,
        reason: None,
        series: Some(series(8e3)),
        verdict: Some(Verdict::Fast),
    }];
    let written = bench(vec![timed, row("m=2 n=4096 k=4096", None)]);
    written.write(&folder.path().join(FILE)).unwrap();
    assert!(Microbench::is_at(folder.path()));
    assert_eq!(Microbench::read(folder.path()).unwrap(), written);

    let other = folder.path().join("other.json");
    std::fs::write(&other, r#"{"schema": "stepscope.record/1"}"#).unwrap();
    assert!(!Microbench::is_at(&other));
    let error = Microbench::read(&other).unwrap_err().to_string();
    assert!(
        error.contains("its schema is \"stepscope.record/1\""),
        "{error}"
    );
    std::fs::write(&other, "nothing").unwrap();
    assert!(!Microbench::is_at(&other));
    assert!(
        Microbench::read(&other)
            .unwrap_err()
            .to_string()
            .contains("no \"schema\"")
    );
    assert!(!Microbench::is_at(&folder.path().join("nowhere.json")));
}

#[test]
fn a_table_has_ours_theirs_ratio_and_roof() {
    let mut timed = row("m=1 n=4096 k=4096", Some(series(2e4)));
    timed.peers = vec![Peer {
        name: "cuBLASLt".to_owned(),
        version: Some("13.0.2".to_owned()),
        kernel: None,
        in_turn: true,
        status: Status::Ok,
        reason: None,
        series: Some(series(1.6e4)),
        verdict: Some(Verdict::Slow),
    }];
    let mut throttled = row("m=2 n=4096 k=4096", Some(series(2e4)));
    if let Some(series) = &mut throttled.series {
        series.set_aside = std::mem::take(&mut series.samples);
        series.launches_per_sample = 12;
        series.l2 = Some(CacheState::Rotated);
    }
    let wrong = Row {
        status: Status::Wrong,
        reason: Some("element 7 is NaN".to_owned()),
        ..row("m=3 n=4096 k=4096", None)
    };
    let skipped = Row {
        status: Status::Skipped,
        reason: Some("no GPU".to_owned()),
        ..row("m=4 n=4096 k=4096", None)
    };
    let above = row("m=5 n=4096 k=4096", Some(series(5e3)));
    let text = text(&bench(vec![timed, throttled, wrong, skipped, above]));
    let line = |of: &str| {
        let line = text.lines().find(|line| line.contains(of)).unwrap();
        line.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect::<Vec<_>>()
    };
    // 10 µs of 20 by the bandwidth.
    assert_eq!(
        line("m=1 "),
        [
            "gemm",
            "m=1 n=4096 k=4096",
            "bf16",
            "gemm_mma",
            "20.00",
            "0.100",
            "21",
            "100",
            "1675",
            "50.0",
            "cold, flushed"
        ]
    );
    assert_eq!(
        line("· cuBLASLt"),
        [
            "· cuBLASLt",
            "16.00",
            "0.100",
            "21",
            "1.25",
            "cold, flushed; ours is SLOW"
        ]
    );
    assert!(
        text.contains("NO SAMPLE COUNTS: all 21 were taken while the clock was held down"),
        "{text}"
    );
    assert!(
        text.contains("12 launches per sample; cold, rotated"),
        "{text}"
    );
    assert!(text.contains("WRONG: element 7 is NaN"), "{text}");
    assert!(text.contains("\nskipped, 1 of gemm_mma: no GPU"), "{text}");
    assert!(text.contains("FASTER THAN ITS ROOF ALLOWS"), "{text}");
    assert!(text.contains("roof: data sheet of H100"), "{text}");
    assert!(text.contains("cuBLASLt 13.0.2"), "{text}");
    assert!(!text.contains("NaN µs") && !text.contains("n/a"), "{text}");
}

/// What is the same for many rows is said once.
#[test]
fn reasons_and_sources_are_told_once() {
    let skipped = |shape: &str| Row {
        status: Status::Skipped,
        reason: Some("no GPU".to_owned()),
        ..row(shape, None)
    };
    let with = |shape: &str, source: &str| {
        let mut row = row(shape, Some(series(2e4)));
        row.roof.as_mut().unwrap().source = source.to_owned();
        row
    };
    let all = bench(vec![
        with("a", "measured; reads of 1 MB"),
        skipped("b"),
        skipped("c"),
        with("d", "measured; reads of 2 MB"),
        with("e", "sheet; DRAM"),
    ]);
    let text = text(&all);
    let [.., a, b, c] = &text.lines().collect::<Vec<_>>()[..] else {
        panic!("{text}");
    };
    assert!(
        text.contains("\nskipped, 2 of gemm_mma: no GPU\n"),
        "{text}"
    );
    assert_eq!(*a, "");
    assert_eq!(
        *b,
        "roof: measured; memory by each row's own bytes, as in: reads of 1 MB"
    );
    assert_eq!(*c, "roof: sheet; DRAM");
}

#[test]
fn json_has_figures_and_no_samples() {
    let mut timed = row("m=1 n=4096 k=4096", Some(series(2e4)));
    timed.peers = vec![Peer {
        name: "cuBLASLt".to_owned(),
        version: None,
        kernel: None,
        in_turn: false,
        status: Status::Skipped,
        reason: Some("it is nowhere".to_owned()),
        series: None,
        verdict: None,
    }];
    let json = json(&bench(vec![timed]));
    let row = &json["rows"][0];
    assert_eq!(row["times"]["median_ns"], 2e4);
    assert_eq!(row["times"]["samples"], 21);
    assert_eq!(row["times"]["stopped"], "low_noise");
    assert_eq!(row["share_of_roof"], 0.5);
    assert!(row["peers"][0]["ours_by_peer"].is_null());
    assert_eq!(row["peers"][0]["status"], "skipped");
}

#[test]
fn rows_are_judged_by_operation_shape_and_cache() {
    let slow = |mut series: Series| {
        series.samples.iter_mut().for_each(|s| s.time_ns *= 1.03);
        series
    };
    let base = bench(vec![
        row("m=1", Some(series(1e4))),
        row("m=2", Some(series(1e4))),
        row("m=3", Some(series(1e4))),
    ]);
    let mut head = base.clone();
    // Another kernel for the same work is what a change may bring.
    head.rows[0].kernel = "gemm_wgmma".to_owned();
    head.rows[1].series = Some(slow(series(1e4)));
    head.rows[2].series.as_mut().unwrap().l2 = Some(CacheState::Warm);
    let outcome = judge(&base, &head);
    let verdicts: Vec<Verdict> = outcome
        .rows
        .iter()
        .map(|row| row.judgement.verdict)
        .collect();
    use Verdict::{Ambiguous, Same, Slow};
    assert_eq!(verdicts, [Same, Slow, Ambiguous, Ambiguous]);
    assert_eq!(
        outcome.rows[0].judgement.reason.code(),
        "same_in_time_and_cycles"
    );
    assert_eq!(
        outcome.rows[1].judgement.reason.code(),
        "gap_in_time_and_cycles"
    );
    assert_eq!(outcome.rows[2].label, "gemm m=3 bf16 cold");
    assert_eq!(outcome.rows[3].label, "gemm m=3 bf16 warm");
    assert_eq!(
        outcome.sentence(),
        "SLOW: 1 of 4 rows; 2 AMBIGUOUS, 1 SAME."
    );
    assert!(outcome.text().contains("+3.0"), "{}", outcome.text());
    assert!(
        outcome.markdown().contains("| SLOW |"),
        "{}",
        outcome.markdown()
    );
    assert_eq!(outcome.json()["rows"][1]["verdict"], "SLOW");
}

#[test]
fn a_slower_clock_is_no_slower_kernel() {
    let base = bench(vec![row("m=1", Some(series(1e4)))]);
    let mut head = base.clone();
    for sample in &mut head.rows[0].series.as_mut().unwrap().samples {
        sample.time_ns *= 1.05;
        sample.sm_clock_hz = sample.sm_clock_hz.map(|clock| clock / 1.05);
    }
    let outcome = judge(&base, &head);
    assert_eq!(outcome.verdict(), Verdict::Ambiguous);
    assert_eq!(outcome.rows[0].judgement.reason.code(), "gap_not_in_cycles");
}

#[test]
fn what_cannot_be_judged_says_why() {
    let base = bench(vec![
        row("m=1", Some(series(1e4))),
        row("m=2", Some(series(1e4))),
        row("m=3", None),
        row("m=4", Some(series(1e4))),
    ]);
    let mut head = base.clone();
    head.rows[0].status = Status::Wrong;
    head.rows[0].series = None;
    head.rows[0].reason = Some("element 7 is NaN".to_owned());
    let series = head.rows[1].series.as_mut().unwrap();
    series.set_aside = std::mem::take(&mut series.samples);
    head.rows[3].series.as_mut().unwrap().launches_per_sample = 64;
    let outcome = judge(&base, &head);
    assert_eq!(outcome.verdict(), Verdict::Unusable);
    assert_eq!(
        outcome.rows[0].why.as_deref(),
        Some("HEAD is WRONG: element 7 is NaN")
    );
    assert_eq!(
        outcome.rows[1].why.as_deref(),
        Some("every sample of HEAD was taken while the clock was held down")
    );
    assert_eq!(outcome.rows.len(), 3);
    assert!(
        outcome.notes[0].contains("1 launches per sample in BASE, 64 in HEAD"),
        "{:?}",
        outcome.notes
    );
    assert!(
        outcome.notes[1].starts_with("1 rows have no time on either side"),
        "{:?}",
        outcome.notes
    );
}

#[test]
fn kernels_of_the_same_work_are_told_apart() {
    let variant = |kernel: &str, ns: f64| Row {
        kernel: kernel.to_owned(),
        ..row("m=1", Some(series(ns)))
    };
    let base = bench(vec![variant("a", 1e4), variant("b", 2e4)]);
    let head = bench(vec![variant("b", 2e4), variant("a", 1e4)]);
    let outcome = judge(&base, &head);
    assert_eq!(outcome.verdict(), Verdict::Same);
    assert_eq!(outcome.rows[1].label, "gemm m=1 bf16 by b cold");
}

#[test]
fn other_machines_are_refused() {
    let base = bench(vec![row("m=1", Some(series(1e4)))]);
    let refused = |head: &Microbench| {
        let outcome = compare(
            ("base", &base),
            ("head", head),
            &Thresholds::default(),
            false,
        );
        outcome.unwrap_err().to_string()
    };
    let mut head = base.clone();
    head.environment.gpu.as_mut().unwrap().name = "NVIDIA H200".to_owned();
    assert!(refused(&head).contains("the GPU is NVIDIA H100 80GB HBM3 in the one, NVIDIA H200"));
    let mut head = base.clone();
    head.environment.gpu.as_mut().unwrap().uuid = "GPU-2".to_owned();
    assert!(refused(&head).contains("--across-cards"));
    let across = compare(
        ("base", &base),
        ("head", &head),
        &Thresholds::default(),
        true,
    )
    .unwrap();
    assert_eq!(across.notes, ["Two cards: GPU-1 and GPU-2."]);
    assert!(
        refused(&bench(vec![row("m=2", Some(series(1e4)))])).contains("no timed row in common")
    );
}
