//! Whole jobs, held against what they need at least. The model is made up (`support/model.rs`): 70 billion weights on eight ranks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use stepscope_profiler::activity::Grade;
use stepscope_profiler::explain::page::results_page;
use stepscope_profiler::explain::results::{Explanation, JobFloor, Subject, explain};
use stepscope_profiler::explain::{Ceilings, Precision};
use stepscope_profiler::gpus;
use stepscope_profiler::results::{Framework, Length, Load, ResultRow};
use support::model::Model;

/// So many requests of 1000 and 200 tokens, served in so many seconds.
fn row(requests: u64, limit: Option<f64>, seconds: f64) -> ResultRow {
    let length = |tokens| {
        Some(Length {
            tokens,
            realised: true,
        })
    };
    ResultRow {
        requests: Some(requests),
        load: Load::Concurrency { limit, mean: None },
        input_len: length(1000.0),
        output_len: length(200.0),
        duration_s: Some(seconds),
        ..ResultRow::new(Framework::Vllm, "bench throughput")
    }
}

fn explained(row: &ResultRow, gpu: Option<&str>) -> Explanation {
    let device = gpu.map(|name| Ceilings::of_gpu(gpus::find(name).unwrap(), None));
    explain(&Subject {
        rows: std::slice::from_ref(row),
        model: Some(&Model),
        device: device.as_ref(),
        precision: Precision::HALF,
        pool_tokens: None,
    })
}

fn floor(row: &ResultRow) -> JobFloor {
    explained(row, Some("h100-sxm")).jobs[0]
        .floor
        .clone()
        .unwrap()
}

fn said(explanation: &Explanation) -> String {
    let statements = explanation.jobs.iter().flat_map(|job| &job.statements);
    statements
        .map(|s| s.text.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

/// 500 requests generate 199 tokens each after the first one. 80 GiB less 17.6 GB of weights hold 1659 requests of 1100 tokens at 40,960
/// bytes: the memory is no limit, and all of them run at once, in 199 steps.
#[test]
fn the_memory_and_the_load_limit_a_batch() {
    let all = floor(&row(500, None, 60.0));
    assert_eq!((all.decode_batch, all.decode_steps), (500, 199.0));
    let limited = floor(&row(500, Some(50.0), 60.0));
    assert_eq!((limited.decode_batch, limited.decode_steps), (50, 1990.0));
    let many = floor(&row(3000, None, 600.0));
    let fits = (80.0 * f64::from(1 << 30) - 17.6e9) / (1100.0 * 40_960.0);
    assert_eq!(many.decode_batch, fits as u64);
    // Reading the weights is what the smaller batch does more often: 4 times 110 MB in 80 layers a step.
    let weights = 320.0 * 110e6;
    let more_s = 1791.0 * weights / 3.35e12;
    assert!((limited.decode_s - all.decode_s) / more_s > 0.9);
}

#[test]
fn utilisation_is_work_over_time() {
    let row = row(500, None, 60.0);
    let floor = floor(&row);
    // 2 FLOP for each of 8.8 billion weights a rank and token, and what attention adds.
    let least = 2.0 * 320.0 * 440e6 / 8.0 / 4.0 * 500.0 * 1199.0;
    assert!(
        floor.flops > least && floor.flops < 1.5 * least,
        "{floor:?}"
    );
    assert!((floor.mfu - floor.flops / 60.0 / 989.4e12).abs() < 1e-12);
    assert!((floor.mbu - floor.decode_bytes / 60.0 / 3.35e12).abs() < 1e-12);
    assert!(floor.communication_s > 0.0, "eight ranks");
    let text = said(&explained(&row, Some("h100-sxm")));
    for part in [
        "500 requests of 1000 prompt tokens and 200 generated ones took 60.0 s",
        "with the best batching possible",
        "--concurrency N says so",
        "All-reduces at the whole rate of the link would add",
        "Each rank did",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn a_job_faster_than_possible_and_one_that_does_not_fit() {
    let text = said(&explained(&row(500, None, 0.5), Some("h100-sxm")));
    assert!(
        text.contains("This cannot be: NVIDIA H100 SXM needs"),
        "{text}"
    );
    assert!(
        !text.contains("MFU") && !text.contains("could be all"),
        "{text}"
    );
    assert_eq!(
        explained(&row(500, None, 0.5), Some("h100-sxm"))
            .trust
            .grade,
        Grade::Unusable
    );
    let slow = explained(&row(500, None, 60.0), Some("h100-sxm"));
    assert_eq!(
        slow.trust.reasons,
        ["how requests were batched is not known"]
    );
    let text = said(&explained(&row(500, None, 60.0), Some("t4")));
    assert!(
        text.contains("do not fit the memory of NVIDIA T4"),
        "{text}"
    );
    let explanation = explained(&row(500, None, 60.0), None);
    let on = |name: &str| {
        let gpus = &explanation.jobs[0].on_gpus;
        gpus.iter().find(|g| g.gpu == name).unwrap().clone()
    };
    assert!(on("h100-sxm").share.unwrap() < 1.0);
    assert_eq!(on("t4").floor_s, None);
    let text = said(&explained(&row(500, None, 0.5), None));
    assert!(text.contains("No GPU of the table is that fast"), "{text}");
}

/// Whose pace it was: the client's, or the server's.
#[test]
fn a_rate_that_was_asked_for_is_told() {
    let mut row = row(240, None, 60.0);
    row.workload
        .insert("request_rate".to_owned(), "4.0".to_owned());
    let text = said(&explained(&row, Some("h100-sxm")));
    assert!(
        text.contains("served as fast: the rate is the client's"),
        "{text}"
    );
    row.workload
        .insert("request_rate".to_owned(), "10".to_owned());
    let text = said(&explained(&row, Some("h100-sxm")));
    assert!(
        text.contains("10.0 requests/s, and 4.00 were served: the server was the limit"),
        "{text}"
    );
    row.workload
        .insert("request_rate".to_owned(), "inf".to_owned());
    assert!(!said(&explained(&row, Some("h100-sxm"))).contains("The client sent"));
}

proptest! {
    /// Fewer requests at once never need less, hiding one part behind the other never needs more, and no figure breaks the page.
    #[test]
    fn smaller_batches_need_more(
        requests in 1..100_000_u64,
        limit in 1.0..1000.0_f64,
        input in 1.0..4000.0_f64,
        output in 1.0..4000.0_f64,
        seconds in 1e-6..1e9_f64,
    ) {
        let mut row = row(requests, None, seconds);
        row.input_len.as_mut().unwrap().tokens = input;
        row.output_len.as_mut().unwrap().tokens = output;
        let free = floor(&row);
        row.load = Load::Concurrency { limit: Some(limit), mean: None };
        let limited = floor(&row);
        prop_assert!(limited.total_s >= free.total_s * (1.0 - 1e-9), "{limited:?} {free:?}");
        prop_assert!(limited.overlapped_s <= limited.total_s * (1.0 + 1e-9), "{limited:?}");
        for gpu in [Some("h100-sxm"), None] {
            let explanation = explained(&row, gpu);
            let _ = explanation.text(true);
            prop_assert!(!results_page(&explanation, "t", "s").contains("NaN"));
        }
    }
}
