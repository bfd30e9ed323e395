//! The JSON files of `vllm bench`.

use super::fields::Fields;
use super::row::{Basis, Framework, Latency, Load, Percentiles, Rates, ResultRow};
use super::sglang::{details, mean_lengths, milliseconds};

/// `vllm bench latency`: whole calls of `generate`, with neither batch nor lengths in the file.
pub(super) fn latency(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let mean = fields.required("avg_latency", "seconds of a call")?;
    let mut e2e = Latency {
        mean_s: Some(mean),
        ..Latency::new(Basis::WholeCall)
    };
    if let Some(percentiles) = fields.below("percentiles") {
        let mut percentiles = Fields::new("its list of percentiles", percentiles);
        e2e.median_s = percentiles.figure("50")?;
        e2e.p99_s = percentiles.figure("99")?;
        e2e.percentiles = Some(Percentiles::Linear);
    }
    let mut row = ResultRow::new(Framework::Vllm, "bench latency");
    if let Some(latencies) = fields.list("latencies") {
        e2e.std_s = crate::stats::stddev(&latencies);
        if e2e.std_s.is_some() {
            row.derived.push("e2e.std_s");
        }
        row.repetitions = Some(latencies.len() as u64);
        row.remarks.extend(mean_of_list(mean, &latencies));
        row.e2e_samples_s = latencies;
    }
    row.e2e = Some(e2e);
    Ok(row)
}

fn mean_of_list(mean: f64, latencies: &[f64]) -> Option<String> {
    let of_list = crate::stats::mean(latencies)?;
    let differs = (of_list - mean).abs() > 0.01 * mean;
    differs.then(|| {
        format!(
            "avg_latency is {mean} s, but the mean of its {} latencies is {of_list} s.",
            latencies.len()
        )
    })
}

/// `vllm bench throughput`: all requests given to an engine at once; prompt and generated tokens are counted together.
pub(super) fn throughput(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let duration = fields.required("elapsed_time", "seconds of the whole run")?;
    let requests = fields.required_count("num_requests", "a number of requests")?;
    let mut row = ResultRow {
        load: Load::Concurrency {
            limit: None,
            mean: None,
        },
        requests: Some(requests),
        duration_s: Some(duration),
        rates: Rates {
            total_tokens_per_s: fields.figure("tokens_per_second")?,
            requests_per_s: fields.figure("requests_per_second")?,
            ..Rates::default()
        },
        ..ResultRow::new(Framework::Vllm, "bench throughput")
    };
    if let (Some(tokens), Some(rate)) = (
        fields.figure("total_num_tokens")?,
        row.rates.total_tokens_per_s,
    ) && (tokens / duration - rate).abs() > 0.01 * rate
    {
        row.remarks.push(format!(
            "tokens_per_second is {rate}, but {tokens:.0} tokens in {duration} s are {:.1} token/s.",
            tokens / duration
        ));
    }
    Ok(row)
}

/// `vllm bench serve`: a client of any server that speaks its protocol.
pub(super) fn serve(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let requests = fields.required_count("completed", "a number of requests")?;
    let duration = fields.required("duration", "seconds of the whole run")?;
    let limit = fields.figure("max_concurrency")?;
    let mut row = ResultRow {
        label: fields.text("label"),
        backend: fields.text("backend"),
        model: fields.text("model_id"),
        version: fields.text("version"),
        gpu: fields.text("gpu"),
        tp: fields.ranks("tensor_parallel_size")?,
        load: Load::Concurrency { limit, mean: None },
        requests: Some(requests),
        total_input_tokens: fields.figure("total_input_tokens")?,
        total_output_tokens: fields.figure("total_output_tokens")?,
        duration_s: Some(duration),
        ttft: milliseconds(fields, "ttft", Basis::ClientFirstToken)?,
        tpot: milliseconds(fields, "tpot", Basis::PerRequest)?,
        itl: milliseconds(fields, "itl", Basis::PerChunk)?,
        e2e: milliseconds(fields, "e2el", Basis::Request)?,
        rates: Rates {
            output_tokens_per_s: fields.figure("output_throughput")?,
            total_tokens_per_s: fields.figure("total_token_throughput")?,
            requests_per_s: fields.figure("request_throughput")?,
            ..Rates::default()
        },
        workload: fields.texts(["request_rate"]).collect(),
        settings: fields.texts(["endpoint_type", "burstiness"]).collect(),
        ..ResultRow::new(Framework::Vllm, "bench serve")
    };
    mean_lengths(&mut row, true);
    details(fields, &mut row);
    if let Some(failed) = fields.count("failed")?.filter(|&n| n > 0) {
        row.remarks.push(format!(
            "{failed} of {} requests failed and are in no figure.",
            requests + failed
        ));
    }
    Ok(row)
}
