//! What ranks told each other during a step: how much, how fast, and which of the two costs.

use super::{OperationExplanation, StepExplanation, is_communication};
use crate::explain::ceilings::practice;
use crate::explain::statement::{Figure, Statement};
use crate::gpus::Link;
use crate::quantity::{self, duration, percent};
use crate::record::Record;

/// Bytes that each rank sends in all calls of an operation by the algorithm that sends least: a ring, 2 (n − 1) / n of the tensor for a
/// sum and (n − 1) / n for a gathering. The tensor is half of the operation's activations, which are read once and written once.
pub(super) fn sent_bytes(name: &str, activation_bytes: f64, ranks: usize) -> f64 {
    if ranks < 2 {
        return 0.0;
    }
    let ranks = ranks as f64;
    let passes = if name.starts_with("all_reduce") {
        2.0
    } else {
        1.0
    };
    passes * (ranks - 1.0) / ranks * activation_bytes / 2.0
}

/// How long communication took, at which rate that was, and whether it is the number of calls or their bytes that costs.
pub(super) fn statement(
    record: &Record,
    step: &StepExplanation,
    link: Option<Link>,
) -> Option<Statement> {
    let timed = |o: &&OperationExplanation| is_communication(&o.name) && o.ns.is_some();
    let operations: Vec<&OperationExplanation> = step.operations.iter().filter(timed).collect();
    let ns: f64 = operations.iter().filter_map(|o| o.ns).sum();
    if ns <= 0.0 {
        return None;
    }
    let ranks = record.run.tp;
    let calls: f64 = operations.iter().map(|o| o.calls).sum();
    let sent: f64 = operations
        .iter()
        .map(|o| sent_bytes(&o.name, o.bytes, ranks))
        .sum();
    let rate = sent / (ns / 1e9);
    let mut text = format!(
        "Communication between the {ranks} ranks takes {}, {} of the step: {:.0} calls of {} each.",
        duration(ns),
        percent(ns / step.wall_ns),
        calls,
        duration(ns / calls.max(1.0)),
    );
    let mut figures = vec![Figure::new(
        "communication",
        ns / 1e9,
        "s",
        format!(
            "time of {}",
            operations
                .iter()
                .map(|o| o.name.as_str())
                .collect::<Vec<_>>()
                .join(" and ")
        ),
    )];
    if sent > 0.0 {
        text += &format!(
            " Each rank sends at least {}, so {}",
            quantity::bytes(sent),
            quantity::with_prefix(rate, "B/s")
        );
        figures.push(Figure::new(
            "sent by each rank",
            sent,
            "B",
            format!("2 × ({ranks} − 1) / {ranks} of each tensor that is summed, half of that of each that is gathered"),
        ));
        match link {
            Some(link) => {
                text += &format!(
                    ", {} of the {} of {}.",
                    percent(rate / link.bytes_per_s),
                    quantity::with_prefix(link.bytes_per_s, "B/s"),
                    link.kind.title()
                );
                text += verdict(rate, link);
                figures.push(Figure::new(
                    "rate of the link that is used",
                    rate / link.bytes_per_s,
                    "",
                    format!("{sent:.4e} B / {ns:.0} ns / {:.4e} B/s", link.bytes_per_s),
                ));
            }
            None => text += ".",
        }
    }
    Some(Statement::new(text, figures))
}

fn verdict(rate: f64, link: Link) -> &'static str {
    let usual = practice::link_bytes_per_s(link);
    if rate < usual.from {
        " That is less than such links reach with large tensors: the number of calls costs, not their bytes."
    } else if rate <= usual.to {
        " That is what such links reach: the bytes cost."
    } else {
        " That is more than such links have been seen to reach: the sizes, the ranks or the times are wrong."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_sends_each_tensor_nearly_twice() {
        // 8 ranks, a tensor of 1 MB: read and written, 2 MB of activations.
        assert_eq!(sent_bytes("all_reduce", 2e6, 8), 2.0 * 7.0 / 8.0 * 1e6);
        assert_eq!(sent_bytes("all_gather", 2e6, 8), 7.0 / 8.0 * 1e6);
        assert_eq!(sent_bytes("all_reduce", 2e6, 1), 0.0);
    }
}
