//! The latencies of a point over its steps and repetitions.

use super::table::{self, Table, TimeUnit};
use crate::quantity;
use crate::record::Point;
use crate::recorder::StepKind;
use crate::stats;

/// Every latency of a point, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    /// Prefill, by repetition.
    pub(super) prefill: Vec<f64>,
    /// First decode step, by repetition.
    pub(super) first_decode: Vec<f64>,
    /// All decode steps of all repetitions.
    pub(super) decode: Vec<f64>,
    /// Prefill and all decode steps, by repetition.
    pub(super) total: Vec<f64>,
}

/// Throughput as sglang defines it.
pub(super) struct Rates {
    /// Prompt tokens over prefill latency.
    pub(super) prefill: Option<f64>,
    /// Requests over the median decode latency.
    pub(super) decode: Option<f64>,
    /// Prompt and output tokens over total latency.
    pub(super) total: Option<f64>,
}

impl Latencies {
    pub(super) fn of(point: &Point) -> Latencies {
        let repetitions = &point.repetitions;
        Latencies {
            prefill: repetitions
                .iter()
                .map(|r| r.prefill_latency_s * 1e9)
                .collect(),
            first_decode: repetitions
                .iter()
                .filter_map(|r| r.first_decode_latency_s)
                .map(|s| s * 1e9)
                .collect(),
            decode: repetitions
                .iter()
                .flat_map(|r| &r.steps)
                .filter(|step| step.kind == StepKind::Decode)
                .map(|step| step.wall_ns as f64)
                .collect(),
            total: repetitions
                .iter()
                .map(|r| r.total_latency_s * 1e9)
                .collect(),
        }
    }

    pub(super) fn prefill_ns(&self) -> Option<f64> {
        stats::median(&self.prefill)
    }

    pub(super) fn decode_ns(&self) -> Option<f64> {
        stats::median(&self.decode)
    }

    pub(super) fn total_ns(&self) -> Option<f64> {
        stats::median(&self.total)
    }

    pub(super) fn tokens_per_s(&self, point: &Point) -> Rates {
        let batch = point.batch_size as f64;
        let rate =
            |tokens: f64, ns: Option<f64>| ns.filter(|ns| *ns > 0.0).map(|ns| tokens / ns * 1e9);
        Rates {
            prefill: rate(batch * point.input_len as f64, self.prefill_ns()),
            decode: rate(batch, self.decode_ns()),
            total: rate(
                batch * (point.input_len as f64 + point.output_len as f64),
                self.total_ns(),
            ),
        }
    }
}

/// The latency table, unless the point has no repetition.
pub(super) fn text(point: &Point) -> Option<String> {
    let latencies = Latencies::of(point);
    if latencies.prefill.is_empty() {
        return None;
    }
    let rates = latencies.tokens_per_s(point);
    let mut table = Table::new(
        "llrrrrrrrr",
        [
            "latency",
            "unit",
            "samples",
            "mean",
            "± stddev",
            "min",
            "p50",
            "p90",
            "p99",
            "token/s\nat p50",
        ]
        .map(str::to_owned),
    );
    for (name, samples, rate) in [
        ("prefill", &latencies.prefill, rates.prefill),
        ("first decode step", &latencies.first_decode, None),
        ("decode step", &latencies.decode, rates.decode),
        ("total", &latencies.total, rates.total),
    ] {
        if samples.is_empty() {
            continue;
        }
        let unit = TimeUnit::for_largest(samples.iter().copied().fold(0.0, f64::max));
        // One sample has a middle but no spread.
        let spread = |q| {
            let value = stats::percentile(samples, q).filter(|_| samples.len() > 1);
            unit.optional(value)
        };
        table.row([
            name.to_owned(),
            unit.name.to_owned(),
            samples.len().to_string(),
            unit.optional(stats::mean(samples)),
            unit.optional(stats::stddev(samples)),
            spread(0.0),
            unit.optional(stats::median(samples)),
            spread(90.0),
            spread(99.0),
            rate.map_or_else(table::none, |rate| quantity::significant(rate, 4)),
        ]);
    }
    Some(table.render())
}
