use std::collections::BTreeMap;

use stepscope_kernels::{DType, QkvLayout};
use stepscope_microbench::Sample;
use stepscope_profiler::Timer;

use super::list::Phase;
use super::*;

/// The emulated device of this program; it is said where its kernels cannot be compiled.
#[allow(clippy::print_stdout)]
pub(super) fn emulated() -> Option<Cuda> {
    let driver = crate::device::emulated_driver().unwrap();
    match Cuda::new(&driver, 0, DType::BF16) {
        Ok(cuda) => Some(cuda),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn layout() -> QkvLayout {
    QkvLayout {
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
    }
}

/// Every copy is computed and compared, and there is no time.
#[test]
fn a_shape_goes_the_whole_way() {
    let Some(cuda) = emulated() else { return };
    let pattern = Pattern::new(&cuda).unwrap();
    let bench = Bench::new(&cuda).unwrap();
    let wanted = Wanted {
        cuda: &cuda,
        pattern: &pattern,
        copies: 3,
        work: Work::default(),
        bench: &bench,
        settings: &settings(),
    };
    let gemm = gemm::gemm(&wanted, [2, 64, 128], None).unwrap();
    let requests = Requests {
        phase: Phase::Decode,
        count: 2,
        queries: 1,
        positions: 40,
        layout: layout(),
    };
    let attention = attention::attention(&wanted, requests).unwrap();
    for outcome in [gemm, attention] {
        assert!(outcome.checked.difference.is_right(), "{outcome:?}");
        assert!(outcome.checked.difference.elements > 0);
        assert!(!outcome.checked.kernel.is_empty());
        assert_eq!(outcome.measured, None);
    }
}

#[test]
fn wrong_results_have_no_time_and_errors_stay_errors() {
    let wrong = timed(Err(Error::Wrong("element 3 is NaN".to_owned())));
    assert_eq!(wrong.unwrap(), None);
    assert!(timed(Err(Error::Unusable("no memory".to_owned()))).is_err());
    let untimed = stepscope_microbench::Measured::Untimed("no time");
    assert_eq!(timed(Ok(untimed)).unwrap(), None);
    let series = times(&[4.0]);
    let measured = stepscope_microbench::Measured::Timed(series.clone());
    assert_eq!(timed(Ok(measured)).unwrap(), Some(series));
}

#[test]
fn a_data_sheet_bounds_a_launch() {
    let h100 = gpus::find("NVIDIA H100 80GB HBM3").unwrap();
    // 1 GB at 3350 GB/s; 989.4 GFLOP in a millisecond.
    assert!((floor_us(h100, 1, 1_000_000_000) - 298.5).abs() < 0.1);
    assert!((floor_us(h100, 989_400_000_000, 1) - 1000.0).abs() < 1e-6);
}

fn gemm_shape(phase: Phase, m: usize) -> Shape {
    Shape {
        model: "m".to_owned(),
        phase,
        batch: 1,
        work: Operation::Gemm {
            name: "o",
            m,
            n: 4096,
            k: 4096,
        },
    }
}

fn attention_shape() -> Shape {
    Shape {
        work: Operation::Attention {
            layout: layout(),
            queries: 16,
            positions: 16,
        },
        ..gemm_shape(Phase::Prefill, 0)
    }
}

/// Of these times in µs.
pub(super) fn times(samples: &[f64]) -> Series {
    let samples = samples.iter().map(|us| Sample {
        time_ns: 1e3 * us,
        sm_clock_hz: None,
    });
    Series::new(Timer::Event, 8, samples.collect())
}

pub(super) fn done(worst: f64, ours: &[f64], theirs: Option<&[f64]>) -> Fate {
    Fate::Done(Outcome {
        checked: Checked {
            kernel: "kernel".to_owned(),
            difference: Difference {
                worst,
                elements: 10,
            },
            from_peer: theirs.map(|_| Difference {
                worst: 0.5,
                elements: 10,
            }),
        },
        measured: (!ours.is_empty()).then(|| Measured {
            ours: times(ours),
            theirs: theirs.map(times),
        }),
        note: None,
    })
}

fn row(shape: Shape, fate: Fate) -> Row {
    Row {
        shape,
        copies: 4,
        fate,
        sdpa: None,
    }
}

/// A decode step's product of 64 rows.
pub(super) fn product_row(model: &str, name: &'static str, fate: Fate) -> Row {
    let shape = Shape {
        model: model.to_owned(),
        work: Operation::Gemm {
            name,
            m: 64,
            n: 37_888,
            k: 3584,
        },
        ..gemm_shape(Phase::Decode, 64)
    };
    row(shape, fate)
}

pub(super) fn rows() -> Vec<Row> {
    let of_torch = torch::Row::Measured {
        series: times(&[4.0]),
        backend: Some("flash".to_owned()),
    };
    vec![
        row(
            gemm_shape(Phase::Decode, 1),
            done(0.5, &[19.0, 20.0, 22.0], Some(&[16.0])),
        ),
        row(
            gemm_shape(Phase::Decode, 8),
            done(0.5, &[20.0], Some(&[25.0])),
        ),
        row(
            gemm_shape(Phase::Prefill, 1024),
            done(0.5, &[100.0], Some(&[100.0])),
        ),
        Row {
            sdpa: Some(of_torch),
            ..row(attention_shape(), done(0.5, &[6.0], None))
        },
        row(gemm_shape(Phase::Decode, 2), done(3.25, &[], None)),
        row(
            gemm_shape(Phase::Decode, 3),
            Fate::Failed("out of memory".to_owned()),
        ),
        row(
            gemm_shape(Phase::Decode, 4),
            Fate::NotMeasured("no time was left"),
        ),
        row(
            gemm_shape(Phase::Prefill, 1024),
            done(0.5, &[10.0], Some(&[90.0])),
        ),
    ]
}

pub(super) fn conditions() -> Conditions {
    Conditions {
        is_emulated: false,
        cublaslt: Err("libcublasLt.so.13 is nowhere".to_owned()),
        sdpa: torch::Answer {
            torch: Some("2.11.0".to_owned()),
            triton: None,
            missing: None,
            rows: BTreeMap::new(),
        },
        data_sheet: gpus::find("NVIDIA H100 80GB HBM3").ok(),
        copy_gb_per_s: Some(2900.0),
    }
}

#[test]
fn a_table_has_a_line_for_each_shape() {
    let text = table::render(&rows(), &conditions());
    let cells = |line: usize| -> Vec<&str> {
        let line = text.lines().nth(line).unwrap();
        line.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect()
    };
    // 33.6 MB in 20 µs, of 3350 GB/s; 33.6 MFLOP.
    assert_eq!(
        cells(3),
        [
            "m",
            "decode",
            "o",
            "1 × 4096 × 4096",
            "kernel",
            "20.0",
            "16.0",
            "1.25",
            "1.68",
            "1679",
            "50.1"
        ]
    );
    // 34.4 GFLOP in 10 µs are more than there are.
    assert!(text.contains("faster than the data sheet allows"), "{text}");
    assert_eq!(cells(6)[5..8], ["6.00", "4.00", "1.50"]);
    assert!(cells(7)[5].starts_with("WRONG: 3.250 times"), "{text}");
    assert!(text.contains("FAILED: out of memory"), "{text}");
    assert!(text.contains("not measured: no time was left"), "{text}");
    assert!(
        text.contains("no cuBLASLt: libcublasLt.so.13 is nowhere"),
        "{text}"
    );
    assert!(text.contains("torch 2.11.0"), "{text}");
    assert!(text.contains("2900 GB/s"), "{text}");
}

#[test]
fn a_summary_counts_and_compares() {
    // The mean of 1.25 and 0.8 is 1.
    assert_eq!(
        table::summary(&rows(), &conditions()),
        "5 of 7 shapes right; 1 not measured; time by cuBLASLt's: decode 1.00, prefill 1.00; time by SDPA's: prefill 1.50"
    );
    let without_peers = Conditions {
        sdpa: torch::Answer {
            missing: Some("no torch".to_owned()),
            ..torch::Answer::default()
        },
        ..conditions()
    };
    let alone = [row(gemm_shape(Phase::Decode, 1), done(0.5, &[20.0], None))];
    assert_eq!(
        table::summary(&alone, &without_peers),
        "1 of 1 shapes right; no cuBLASLt; no SDPA"
    );
}

pub(super) fn emulated_conditions() -> Conditions {
    Conditions {
        is_emulated: true,
        data_sheet: None,
        copy_gb_per_s: None,
        sdpa: torch::Answer::default(),
        ..conditions()
    }
}

#[test]
fn an_emulated_device_leaves_no_time() {
    let emulated = emulated_conditions();
    let rows = [row(gemm_shape(Phase::Decode, 1), done(0.5, &[], None))];
    let text = table::render(&rows, &emulated);
    assert!(!text.contains("µs") && !text.contains("/s"), "{text}");
    assert!(text.contains("right"), "{text}");
    let json = rows[0].to_json(&emulated);
    for key in [
        "ours_us",
        "peer_us",
        "tflop_per_s",
        "gb_per_s",
        "ours_by_peer",
    ] {
        assert!(json[key].is_null(), "{json}");
    }
}

#[test]
fn a_peer_that_differs_is_no_peer() {
    let Fate::Done(mut outcome) = done(0.5, &[20.0], Some(&[16.0])) else {
        panic!("it is done");
    };
    outcome.checked.from_peer = Some(Difference {
        worst: 7.0,
        elements: 10,
    });
    let row = row(gemm_shape(Phase::Decode, 1), Fate::Done(outcome));
    assert!(!row.is_good());
    let note = row.note(None).unwrap();
    assert_eq!(note, "cuBLASLt DIFFERS: by 7.000 times what is allowed");
}

#[test]
fn json_keeps_every_sample() {
    let rows = rows();
    let json = rows[0].to_json(&conditions());
    assert_eq!(json["status"], "ok");
    assert_eq!(json["shape"]["n"], 4096);
    assert_eq!(json["ours_us"]["samples"], json!([19.0, 20.0, 22.0]));
    assert_eq!(json["peer"], "cuBLASLt");
    assert_eq!(json["ours_by_peer"], 1.25);
    let json = rows[3].to_json(&conditions());
    assert_eq!([&json["peer"], &json["peer_backend"]], ["SDPA", "flash"]);
    assert_eq!(rows[4].to_json(&conditions())["status"], "wrong");
    assert_eq!(rows[5].to_json(&conditions())["status"], "failed");
    assert_eq!(rows[6].to_json(&conditions())["status"], "not measured");
    assert_eq!(rows[7].to_json(&conditions())["status"], "implausible");
}
