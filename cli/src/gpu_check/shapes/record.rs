//! The rows as a record of microbenchmarks, which `report` and `gate` read.

use stepscope_kernels::cuda::catalog::element;
use stepscope_microbench::peers::{in_turn, torch};
use stepscope_profiler::microbench::{Peer, Roof, Row as Line, Status};

use super::list::{Operation, Phase};
use super::{Conditions, Fate, Row, STORAGE};

/// Of each shape what is known of it.
pub(super) fn lines(rows: &[Row], conditions: &Conditions) -> Vec<Line> {
    let mut lines: Vec<Line> = rows.iter().map(|row| line(row, conditions)).collect();
    // A report has a table for each group.
    lines.sort_by(|a, b| b.group.cmp(&a.group));
    lines
}

fn line(row: &Row, conditions: &Conditions) -> Line {
    let cost = row.shape.cost();
    let outcome = row.outcome();
    let (group, operation) = match (row.shape.work, row.shape.phase) {
        (Operation::Gemm { .. }, _) => ("gemm", "gemm"),
        (Operation::Attention { .. }, Phase::Prefill) => ("attention", "attention_prefill"),
        (Operation::Attention { .. }, Phase::Decode) => ("attention", "attention_decode"),
    };
    let measured = outcome.and_then(|outcome| outcome.measured.as_ref());
    let status = match &row.fate {
        Fate::Done(outcome) if outcome.checked.difference.is_right() => Status::Ok,
        Fate::Done(_) => Status::Wrong,
        Fate::Failed(_) | Fate::NotMeasured(_) => Status::Skipped,
    };
    Line {
        group: group.to_owned(),
        operation: operation.to_owned(),
        kernel: outcome.map_or_else(String::new, |outcome| outcome.checked.kernel.clone()),
        shape: row.shape.to_string(),
        dtype: element(STORAGE).to_owned(),
        status,
        reason: reason(row, conditions),
        flops: cost.flops,
        bytes: cost.bytes(),
        roof: conditions.data_sheet.map(Roof::of_data_sheet),
        series: measured.map(|measured| measured.ours.clone()),
        peers: peer(row, conditions).into_iter().collect(),
    }
}

/// Why there are no results, or no time.
fn reason(row: &Row, conditions: &Conditions) -> Option<String> {
    match &row.fate {
        Fate::Failed(why) => Some(why.clone()),
        Fate::NotMeasured(why) => Some((*why).to_owned()),
        Fate::Done(outcome) if !outcome.checked.difference.is_right() => Some(format!(
            "results differ by {:.3} times what is allowed",
            outcome.checked.difference.worst
        )),
        Fate::Done(_) if conditions.is_emulated => {
            Some("an emulated device has no time".to_owned())
        }
        Fate::Done(outcome) if !outcome.checked.is_right() => {
            Some("not timed, since the peer's results differ".to_owned())
        }
        Fate::Done(_) => None,
    }
}

/// The peer that the operation has, unless there is none on this machine.
fn peer(row: &Row, conditions: &Conditions) -> Option<Peer> {
    let without_time = |name: &str, version, status, reason: String| Peer {
        name: name.to_owned(),
        version,
        kernel: None,
        in_turn: false,
        status,
        reason: Some(reason),
        series: None,
        verdict: None,
    };
    let outcome = row.outcome()?;
    match (row.shape.work, &row.sdpa) {
        (Operation::Gemm { .. }, _) => {
            let version = conditions.cublaslt.as_ref().ok();
            let version = version.map(|handle| handle.library().version());
            let measured = outcome.measured.as_ref();
            let theirs = measured.and_then(|measured| measured.theirs.clone());
            match (theirs, outcome.checked.from_peer, &outcome.note) {
                (Some(theirs), ..) => {
                    let ours = measured.map(|measured| &measured.ours);
                    Some(in_turn("cuBLASLt", version, ours, theirs))
                }
                (None, Some(differs), _) if !differs.is_right() => {
                    let why = format!("it differs by {:.3} times what is allowed", differs.worst);
                    Some(without_time("cuBLASLt", version, Status::Wrong, why))
                }
                (None, _, Some(note)) => Some(without_time(
                    "cuBLASLt",
                    version,
                    Status::Skipped,
                    note.clone(),
                )),
                (None, _, None) => None,
            }
        }
        (Operation::Attention { .. }, Some(sdpa)) => {
            let version = conditions.sdpa.torch.clone();
            Some(match sdpa {
                torch::Row::Failed(why) => {
                    without_time("torch SDPA", version, Status::Skipped, why.clone())
                }
                torch::Row::Measured { series, backend } => Peer {
                    kernel: backend.clone(),
                    status: Status::Ok,
                    reason: None,
                    series: Some(series.clone()),
                    ..without_time("torch SDPA", version, Status::Ok, String::new())
                },
            })
        }
        (Operation::Attention { .. }, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use stepscope_profiler::gate::Verdict;

    use super::super::tests::{conditions, emulated_conditions, rows};
    use super::*;

    fn found<'a>(lines: &'a [Line], part: &str) -> &'a Line {
        lines.iter().find(|line| line.shape.contains(part)).unwrap()
    }

    #[test]
    fn every_shape_has_a_line_with_its_samples_and_its_peer() {
        let lines = lines(&rows(), &conditions());
        assert_eq!(lines.len(), 8);
        let groups: Vec<&str> = lines.iter().map(|line| line.group.as_str()).collect();
        assert_eq!(
            (groups[0], groups[6], groups[7]),
            ("gemm", "gemm", "attention")
        );

        let gemm = found(&lines, "m decode o (1 × 4096 × 4096)");
        assert_eq!([&gemm.operation, &gemm.dtype], ["gemm", "bf16"]);
        let times = gemm.series.as_ref().unwrap().times_ns();
        assert_eq!(times, [19e3, 20e3, 22e3]);
        // 33.6 MB at 3350 GB/s.
        assert!((gemm.share_of_roof().unwrap() - 0.501).abs() < 1e-3);
        let [peer] = gemm.peers.as_slice() else {
            panic!("{gemm:?}");
        };
        assert_eq!((peer.name.as_str(), peer.in_turn), ("cuBLASLt", true));
        assert_eq!(gemm.ratio_to(peer), Some(1.25));
        assert!(peer.verdict.is_some());

        let attention = found(&lines, "m prefill attention");
        assert_eq!(attention.operation, "attention_prefill");
        let peer = &attention.peers[0];
        assert_eq!((peer.name.as_str(), peer.in_turn), ("torch SDPA", false));
        assert_eq!(
            (peer.kernel.as_deref(), peer.verdict),
            (Some("flash"), None)
        );
        assert_eq!(peer.version.as_deref(), Some("2.11.0"));
        assert_eq!(attention.ratio_to(peer), Some(1.5));
    }

    #[test]
    fn what_has_no_time_says_why() {
        let lines = lines(&rows(), &conditions());
        for (shape, status, reason) in [
            (
                "(2 × ",
                Status::Wrong,
                "results differ by 3.250 times what is allowed",
            ),
            ("(3 × ", Status::Skipped, "out of memory"),
            ("(4 × ", Status::Skipped, "no time was left"),
        ] {
            let line = found(&lines, shape);
            assert_eq!(
                (line.status, line.reason.as_deref()),
                (status, Some(reason))
            );
            assert_eq!((&line.series, line.peers.len()), (&None, 0));
        }
    }

    #[test]
    fn a_peer_that_differs_or_refuses_says_so() {
        let mut rows = rows();
        let mut change = |at: usize, differs: Option<f64>, note: Option<&str>| {
            let Fate::Done(outcome) = &mut rows[at].fate else {
                panic!("it is done");
            };
            outcome.checked.from_peer = differs.map(|worst| super::super::Difference {
                worst,
                elements: 10,
            });
            outcome.measured = None;
            outcome.note = note.map(str::to_owned);
        };
        change(0, Some(7.0), None);
        change(1, None, Some("cuBLASLt: no algorithm"));
        let lines = lines(&rows, &conditions());
        let differs = found(&lines, "(1 × ");
        assert_eq!(differs.status, Status::Ok);
        assert_eq!(
            differs.reason.as_deref(),
            Some("not timed, since the peer's results differ")
        );
        assert_eq!(differs.peers[0].status, Status::Wrong);
        let refuses = &found(&lines, "(8 × ").peers[0];
        assert_eq!(refuses.status, Status::Skipped);
        assert_eq!(refuses.reason.as_deref(), Some("cuBLASLt: no algorithm"));
        assert_eq!(refuses.verdict, None::<Verdict>);
    }

    #[test]
    fn an_emulated_device_leaves_results_and_no_time() {
        let mut rows = rows();
        rows.truncate(1);
        if let Fate::Done(outcome) = &mut rows[0].fate {
            outcome.measured = None;
        }
        let lines = lines(&rows, &emulated_conditions());
        assert_eq!(lines[0].status, Status::Ok);
        assert_eq!(
            lines[0].reason.as_deref(),
            Some("an emulated device has no time")
        );
        assert_eq!((&lines[0].series, &lines[0].roof), (&None, &None));
        assert!(lines[0].peers.is_empty());
    }
}
