//! The ten keys of sglang's `bench_one_batch`, in its order.

use std::fmt::Write as _;

use crate::python;
use crate::results::{Basis, Latency, Length, Load, ResultRow};

/// A line of the result file, without its end.
///
/// # Errors
/// When the row is no static batch of synchronised steps, or lacks a figure.
pub(super) fn line(row: &ResultRow) -> Result<String, String> {
    let batch_size = match row.load {
        Load::StaticBatch(batch_size) => batch_size,
        Load::Concurrency { .. } => {
            return Err("bench_one_batch is of one static batch, and this is not".to_owned());
        }
        Load::Unknown => {
            return Err("it does not say its batch size; --set FILE:batch=…".to_owned());
        }
    };
    let input_len = tokens(row.input_len, "prompt tokens")?;
    let output_len = tokens(row.output_len, "generated tokens")?;
    let prefill = seconds(&row.ttft, Basis::PrefillStep, "prefill")?;
    let total = seconds(&row.e2e, Basis::SumOfSteps, "total")?;
    let batch = batch_size as f64;
    let rate = |given: Option<f64>, tokens: f64, seconds: f64| given.unwrap_or(tokens / seconds);
    let mut line = format!(
        "{{\"run_name\": {}, \"batch_size\": {batch_size}, \"input_len\": {input_len}, \"output_len\": {output_len}",
        python::string(row.label.as_deref().unwrap_or("default")),
    );
    let mut float = |key: &str, value: f64| {
        let _ = write!(line, ", \"{key}\": {}", python::float(value)); // writing to a String cannot fail
    };
    let rates = &row.rates;
    float("prefill_latency", prefill);
    float(
        "prefill_throughput",
        rate(
            rates.prefill_tokens_per_s,
            input_len as f64 * batch,
            prefill,
        ),
    );
    if output_len > 1 {
        let median = seconds(&row.tpot, Basis::DecodeStep, "median decode")?;
        float("median_decode_latency", median);
        float(
            "median_decode_throughput",
            rate(rates.decode_tokens_per_s, batch, median),
        );
    }
    float("total_latency", total);
    float(
        "overall_throughput",
        rate(
            rates.total_tokens_per_s,
            (input_len + output_len) as f64 * batch,
            total,
        ),
    );
    line.push('}');
    Ok(line)
}

fn tokens(length: Option<Length>, what: &str) -> Result<u64, String> {
    match length {
        Some(Length {
            tokens,
            realised: true,
        }) if tokens >= 1.0 && tokens.fract() == 0.0 => Ok(tokens as u64), // whole, and far below 2^53 by import
        _ => Err(format!(
            "bench_one_batch has a whole number of {what} per request, and this row has none"
        )),
    }
}

fn seconds(latency: &Option<Latency>, basis: Basis, what: &str) -> Result<f64, String> {
    let latency = latency
        .as_ref()
        .ok_or_else(|| format!("it has no {what} latency"))?;
    if latency.basis != basis {
        return Err(format!(
            "its {what} latency is of another kind ({}) than bench_one_batch's ({})",
            latency.basis.name(),
            basis.name()
        ));
    }
    latency
        .typical_s()
        .ok_or_else(|| format!("it has no {what} latency"))
}
