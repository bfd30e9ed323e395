//! Whole counts, against a CUPTI whose counters a test makes up.

use std::sync::Arc;

use super::*;
use crate::Kind;
use crate::cupti::fake::{self, with};
use crate::driver::Driver;

const METRICS: [&str; 3] = [
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "lts__t_sectors.sum",
];

fn context() -> Arc<Context> {
    // SAFETY: the emulator's functions have the signatures and the meaning of cuda.h.
    let driver = unsafe { Driver::emulated(stepscope_emulator::driver::symbol) }.unwrap();
    Context::new(&driver, 0).unwrap()
}

fn start(metrics: &[&str], most_kernels: usize) -> Result<RangeProfiler, Error> {
    RangeProfiler::start(&fake::open().unwrap(), &context(), metrics, most_kernels)
}

/// Everything that was done was undone.
fn assert_undone() {
    with(|fake| {
        let ranges = &fake.ranges;
        assert!(!ranges.is_initialised && !ranges.is_running);
        assert_eq!((ranges.hosts, ranges.context), (0, 0));
    });
}

#[test]
fn kernels_are_counted_one_by_one_in_the_order_of_their_launches() {
    let _turn = fake::turn();
    with(|fake| fake.count([9.0; 3])); // nobody counts yet
    let profiler = start(&[METRICS[1], METRICS[0]], 4).unwrap();
    assert_eq!(profiler.passes(), 1);
    with(|fake| {
        fake.count([100.0, 4096.0, 0.0]);
        fake.count([200.0, 8192.0, 0.0]);
        fake.count([300.0, f64::NAN, 0.0]);
        // As texts, numbers may come in another order.
        fake.ranges.order = Some(vec![2, 0, 1]);
    });
    let counted = profiler.finish().unwrap();
    assert_eq!(counted.chip, "GH100");
    assert_eq!(counted.metrics, [METRICS[1], METRICS[0]]);
    assert_eq!(counted.kernels[..2], [[4096.0, 100.0], [8192.0, 200.0]]);
    assert!(counted.kernels[2][0].is_nan() && counted.kernels[2][1] == 300.0);
    assert_undone();
    let calls = with(|fake| fake.ranges.calls.clone());
    assert_eq!(
        calls,
        [
            "initialise",
            "chip",
            "enable",
            "size",
            "image",
            "configure",
            "start",
            "stop",
            "decode",
            "disable",
            "deinitialise"
        ]
    );
}

#[test]
fn chip_and_passes_are_known_before_anything_is_counted() {
    let _turn = fake::turn();
    let cupti = fake::open().unwrap();
    let plan = |metrics: &[&str]| RangeProfiler::plan(&cupti, &context(), metrics);
    assert_eq!(plan(&METRICS[..2]).unwrap(), ("GH100".to_owned(), 1));
    assert_undone();
    assert_eq!(plan(&METRICS).unwrap(), ("GH100".to_owned(), 2));
    let error = plan(&["sm__cake.sum"]).unwrap_err();
    // A name that the chip does not have is no refusal of CUPTI's.
    assert_eq!((error.kind(), error.code()), (Kind::Profiler, None));
    assert_undone();
    let calls = with(|fake| fake.ranges.calls.clone());
    assert!(!calls.contains(&"enable"));
}

#[test]
fn a_count_after_another_begins_anew() {
    let _turn = fake::turn();
    for round in 0..2 {
        let profiler = start(&METRICS, 2).unwrap();
        assert_eq!(profiler.passes(), 2);
        // A second one at the same time is refused, and takes nothing away from the first.
        let error = start(&METRICS, 2).unwrap_err().to_string();
        assert_eq!(error, "this process counts already; end that first");
        with(|fake| fake.count([f64::from(round), 1.0, 2.0]));
        let counted = profiler.finish().unwrap();
        let first = counted.kernels.last().unwrap();
        assert_eq!(first[..], [f64::from(round), 1.0, 2.0]);
        assert_undone();
        with(|fake| fake.ranges = Default::default());
    }
}

#[test]
fn refusals_are_said_in_words_and_leave_nothing_behind() {
    let _turn = fake::turn();
    let check = |function: &'static str, status: u32, expected: &str| {
        with(|fake| fake.fails = Some((function, status)));
        let error = start(&METRICS, 2).unwrap_err();
        with(|fake| fake.fails = None);
        assert_eq!((error.kind(), error.code()), (Kind::Profiler, Some(status)));
        let text = error.to_string();
        assert!(text.starts_with("counting with CUPTI: "), "{text}");
        assert!(text.contains(expected), "{text}");
        assert_undone();
    };
    let enable = "cuptiRangeProfilerEnable";
    check(
        enable,
        35,
        "NVreg_RestrictProfilingToAdminUsers=0, or run with CAP_SYS_ADMIN",
    );
    check(
        "cuptiRangeProfilerStart",
        26,
        "pause it with `dcgmi profile --pause`",
    );
    check(enable, 27, "this GPU or this driver cannot do it");
    check(enable, 33, "its host does not allow profiling");
    check(enable, 40, "its host must give this guest the permission");
    check(enable, 41, "confidential-computing mode");
    check(enable, 43, "MIG slice: counters need the whole GPU");
    check("cuptiProfilerInitialize", 38, "older interface");
    check("cuptiRangeProfilerSetConfig", 7, "INVALID_OPERATION");
    check("cuptiRangeProfilerGetCounterDataSize", 8, "OUT_OF_MEMORY");
    // And one that works, after all of them.
    drop(start(&METRICS, 2).unwrap());
    assert_undone();
}

#[test]
fn what_the_chip_does_not_have_is_named() {
    let _turn = fake::turn();
    let error = start(&[METRICS[0], "sm__cake.sum"], 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "GH100 does not have the metrics sm__cake.sum; the names differ from chip to chip"
    );
    assert_undone();
    assert!(start(&[], 2).is_err() && start(&METRICS, 0).is_err());
}

#[test]
fn a_cupti_without_the_interface_says_from_when_on_there_is_one() {
    let _turn = fake::turn();
    with(|fake| fake.lacks = Some("cuptiRangeProfilerEnable"));
    let error = start(&METRICS, 2).unwrap_err().to_string();
    assert!(
        error.contains("cuptiRangeProfilerEnable") && error.contains("12.6"),
        "{error}"
    );
    assert_undone();
}

#[test]
fn counts_that_are_not_whole_are_refused() {
    let _turn = fake::turn();
    let check = |set: &dyn Fn(&mut fake::Fake), expected: &str| {
        with(|fake| fake.ranges = Default::default());
        let profiler = start(&METRICS, 2).unwrap();
        with(|fake| {
            (0..3).for_each(|_| fake.count([1.0; 3]));
            set(fake);
        });
        let error = profiler.finish().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_undone();
    };
    check(&|_| (), "1 kernels were not counted: there was room for 2");
    check(
        &|fake| fake.ranges.is_incomplete = true,
        "did not run every kernel as often",
    );
    check(
        &|fake| {
            fake.ranges.name = Some("gemm");
            fake.ranges.order = Some(vec![0, 1]);
        },
        "there was room for 2",
    );
    // A name that is no number, where there is room.
    with(|fake| fake.ranges = Default::default());
    let profiler = start(&METRICS, 2).unwrap();
    with(|fake| {
        fake.count([1.0; 3]);
        fake.ranges.name = Some("step/gemm");
    });
    let error = profiler.finish().unwrap_err().to_string();
    assert!(
        error.contains("\"step/gemm\" where a number was expected"),
        "{error}"
    );
    assert_undone();
}

/// A count that is given up, by an error elsewhere, stops and is undone.
#[test]
fn a_count_that_nobody_finishes_is_undone() {
    let _turn = fake::turn();
    drop(start(&METRICS, 2).unwrap());
    assert_undone();
    let calls = with(|fake| fake.ranges.calls.clone());
    assert!(
        calls.ends_with(&["start", "stop", "disable", "deinitialise"]),
        "{calls:?}"
    );
}

/// The CUPTI that `cargo xtask cuda` brings, where it did.
fn brought() -> Option<Arc<Cupti>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/cuda/nvidia/cuda_cupti/lib/libcupti.so.12");
    if !path.is_file() {
        println!("skipped: `cargo xtask cuda` has not brought CUPTI");
        return None;
    }
    Some(Cupti::open_at(&path).unwrap())
}

#[test]
fn nvidias_library_has_every_function_under_its_name() {
    let Some(cupti) = brought() else { return };
    let missing: Vec<&str> = cupti
        .functions()
        .into_iter()
        .filter_map(|(name, is_there)| (!is_there).then_some(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn an_emulated_device_has_no_counters_of_nvidias() {
    let Some(cupti) = brought() else { return };
    let error = RangeProfiler::plan(&cupti, &context(), &METRICS).unwrap_err();
    assert_eq!(error.kind(), Kind::NoDevice);
    assert!(
        error
            .to_string()
            .contains("CUPTI counts on NVIDIA's GPUs only")
    );
}
