use std::collections::BTreeMap;

use stepscope_device::driver::DeviceBuffer;
use stepscope_kernels::{DType, QkvLayout};

use super::list::Phase;
use super::method::Times;
use super::timing::{Launches, measure};
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

/// The way of a GPU's rows, on a device whose times mean nothing: that there are as many as there should be.
#[test]
fn a_shape_goes_the_whole_way() {
    let Some(cuda) = emulated() else { return };
    let pattern = Pattern::new(&cuda).unwrap();
    let wanted = Wanted {
        cuda: &cuda,
        pattern: &pattern,
        copies: 3,
        is_timed: true,
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
        let measured = outcome.measured.unwrap();
        assert_eq!(measured.launches % 3, 0);
        assert!((5..=30).contains(&measured.ours.samples.len()));
        assert_eq!(measured.theirs, None);
    }
}

#[test]
fn both_sides_take_turns() {
    // Copies that take the host a while: the shorter a launch, the more of them a graph has.
    const LEN: usize = 1 << 20;
    let Some(cuda) = emulated() else { return };
    let buffer = || DeviceBuffer::<u16>::new(cuda.context(), "a test", LEN).unwrap();
    let (mut from, mut to) = (buffer(), buffer());
    from.fill(cuda.stream(), 7).unwrap();
    to.fill(cuda.stream(), 0).unwrap();
    let mut asked = [Vec::new(), Vec::new()];
    let [our_launches, their_launches] = &mut asked;
    let weight = cuda.dummy_matrix(DType::BF16, &[[64, 64]]).unwrap();
    let (x, mut out) = (cuda.buffer(64).unwrap(), cuda.buffer(64).unwrap());
    let mut ours = |launches| {
        our_launches.push(launches);
        let graph = cuda.record(&mut || {
            for _ in 0..launches {
                cuda.gemm(&x, 1, &weight, None, &mut out)?;
            }
            Ok(())
        })?;
        Ok(Launches::Ours(graph))
    };
    let mut theirs = |launches| {
        their_launches.push(launches);
        let work = || {
            for _ in 0..launches {
                to.copy_from(cuda.stream(), 0, &from, 0..LEN)?;
            }
            Ok(())
        };
        // SAFETY: the buffers stay until the end of the test.
        unsafe { Launches::of_peer(&cuda, work) }
    };
    let measured = measure(&cuda, 2, &mut ours, Some(&mut theirs)).unwrap();
    let theirs = measured.theirs.unwrap();
    assert_eq!(theirs.samples.len(), measured.ours.samples.len());
    assert!(theirs.samples.len() >= 5);
    // First one round over the copies, then as many launches on both sides.
    assert_eq!(asked[0], [2, measured.launches]);
    assert_eq!(asked[0], asked[1]);
    let mut copied = vec![0; LEN];
    to.read(cuda.stream(), 0, &mut copied).unwrap();
    assert!(copied.iter().all(|&value| value == 0x0707));
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

fn times(samples: &[f64]) -> Times {
    Times {
        samples: samples.to_vec(),
    }
}

fn done(worst: f64, ours: &[f64], theirs: Option<&[f64]>) -> Fate {
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
            launches: 8,
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

fn rows() -> Vec<Row> {
    let of_torch = sdpa::Row::Measured {
        times: times(&[4.0]),
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

fn conditions() -> Conditions {
    Conditions {
        is_emulated: false,
        cublaslt: Err("libcublasLt.so.13 is nowhere".to_owned()),
        sdpa: Sdpa {
            torch: Some("2.11.0".to_owned()),
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
        sdpa: Sdpa {
            missing: Some("no torch".to_owned()),
            ..Sdpa::default()
        },
        ..conditions()
    };
    let alone = [row(gemm_shape(Phase::Decode, 1), done(0.5, &[20.0], None))];
    assert_eq!(
        table::summary(&alone, &without_peers),
        "1 of 1 shapes right; no cuBLASLt; no SDPA"
    );
}

#[test]
fn an_emulated_device_leaves_no_time() {
    let emulated = Conditions {
        is_emulated: true,
        data_sheet: None,
        copy_gb_per_s: None,
        sdpa: Sdpa::default(),
        ..conditions()
    };
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
