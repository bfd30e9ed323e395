//! The JSON lines of sglang's benchmarks. Both versions of a form that has changed are told apart by what only one of them has.

use super::fields::Fields;
use super::row::{Basis, Framework, Latency, Length, Load, Percentiles, Rates, ResultRow};

/// `bench_one_batch`: one synchronised prefill step and the decode steps of one static batch.
pub(super) fn one_batch(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let batch_size = fields.required_count("batch_size", "a number of requests")?;
    let input_len = fields.required_count("input_len", "prompt tokens per request")?;
    let output_len = fields.required_count("output_len", "tokens per request")?;
    let prefill = fields.required("prefill_latency", "seconds of the prefill step")?;
    let total = fields.required("total_latency", "seconds of all steps")?;
    let median = if output_len > 1 {
        fields.figure("median_decode_latency")?
    } else {
        None
    };
    Ok(ResultRow {
        label: fields.text("run_name"),
        load: Load::StaticBatch(batch_size),
        input_len: exact(input_len),
        output_len: exact(output_len),
        duration_s: Some(total),
        ttft: Some(Latency::single(Basis::PrefillStep, prefill)),
        tpot: median.map(|median| Latency {
            median_s: Some(median),
            ..Latency::new(Basis::DecodeStep)
        }),
        e2e: Some(Latency::single(Basis::SumOfSteps, total)),
        rates: Rates {
            prefill_tokens_per_s: fields.figure("prefill_throughput")?,
            prefill_basis: Some(Basis::PrefillStep),
            decode_tokens_per_s: fields.figure("median_decode_throughput")?,
            decode_basis: median.map(|_| Basis::DecodeStep),
            total_tokens_per_s: fields.figure("overall_throughput")?,
            ..Rates::default()
        },
        ..ResultRow::new(Framework::Sglang, "bench_one_batch")
    })
}

/// `bench_offline_throughput`: all requests given to an engine at once.
pub(super) fn offline_throughput(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let requests = fields.required_count("successful_requests", "a number of requests")?;
    let duration = fields.required("total_latency", "seconds of the whole run")?;
    let mut row = ResultRow {
        backend: fields.text("backend"),
        load: Load::Concurrency {
            limit: None,
            mean: None,
        },
        requests: Some(requests),
        total_input_tokens: fields.figure("total_input_tokens")?,
        total_output_tokens: fields.figure("total_output_tokens")?,
        duration_s: Some(duration),
        rates: Rates {
            input_tokens_per_s: fields.figure("input_throughput")?,
            output_tokens_per_s: fields.figure("output_throughput")?,
            total_tokens_per_s: fields.figure("total_throughput")?,
            requests_per_s: fields.figure("request_throughput")?,
            ..Rates::default()
        },
        ..ResultRow::new(Framework::Sglang, "bench_offline_throughput")
    };
    mean_lengths(&mut row, true);
    Ok(row)
}

/// `bench_one_batch_server`: one batch through a server. The newer one streams, and its `output_throughput` is over the time after
/// the first token; the older one's is over the whole call.
pub(super) fn one_batch_server(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let batch_size = fields.required_count("batch_size", "a number of requests")?;
    let input_len = fields.required_count("input_len", "prompt tokens per request")?;
    let output_len = fields.required_count("output_len", "tokens per request")?;
    let latency = fields.required("latency", "seconds of the whole call")?;
    let ttft = fields.figure("last_ttft")?;
    let output = fields.figure("output_throughput")?;
    let streams = fields.has("last_ttft");
    Ok(ResultRow {
        label: fields.text("run_name"),
        load: Load::StaticBatch(batch_size),
        input_len: exact(input_len),
        output_len: exact(output_len),
        duration_s: Some(latency),
        ttft: ttft.map(|ttft| Latency::single(Basis::ClientFirstToken, ttft)),
        e2e: Some(Latency::single(Basis::WholeCall, latency)),
        rates: Rates {
            prefill_tokens_per_s: fields.figure("input_throughput")?,
            prefill_basis: streams.then_some(Basis::ClientFirstToken),
            decode_tokens_per_s: output.filter(|_| streams),
            decode_basis: streams.then_some(Basis::AfterFirstToken),
            output_tokens_per_s: output.filter(|_| !streams),
            total_tokens_per_s: fields.figure("overall_throughput")?,
            ..Rates::default()
        },
        settings: fields.texts(["acc_length", "cache_hit_rate"]).collect(),
        ..ResultRow::new(Framework::Sglang, "bench_one_batch_server")
    })
}

/// `bench_serving`: a client that sends requests to a server of sglang or of another framework.
pub(super) fn serving(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let requests = fields.required_count("completed", "a number of requests")?;
    let duration = fields.required("duration", "seconds of the whole run")?;
    // The older version writes down the length that was asked for, whatever the server made of it.
    let is_new = ["total_throughput", "tag", "server_info", "accept_length"]
        .into_iter()
        .any(|key| fields.has(key));
    let limit = fields.figure("max_concurrency")?;
    let mean = fields.figure("concurrency")?;
    let mut row = ResultRow {
        label: fields.text("tag"),
        backend: fields.text("backend"),
        model: fields.text("model"),
        load: Load::Concurrency { limit, mean },
        requests: Some(requests),
        total_input_tokens: fields.figure("total_input_tokens")?,
        total_output_tokens: fields.figure("total_output_tokens")?,
        duration_s: Some(duration),
        ttft: milliseconds(fields, "ttft", Basis::ClientFirstToken)?,
        tpot: milliseconds(fields, "tpot", Basis::PerRequest)?,
        itl: milliseconds(fields, "itl", Basis::PerChunk)?,
        e2e: milliseconds(fields, "e2e_latency", Basis::Request)?,
        rates: Rates {
            input_tokens_per_s: fields.figure("input_throughput")?,
            output_tokens_per_s: fields.figure("output_throughput")?,
            total_tokens_per_s: fields.figure("total_throughput")?,
            requests_per_s: fields.figure("request_throughput")?,
            ..Rates::default()
        },
        workload: fields.texts(["dataset_name", "request_rate"]).collect(),
        settings: fields.texts(["accept_length"]).collect(),
        ..ResultRow::new(Framework::Sglang, "bench_serving")
    };
    mean_lengths(&mut row, is_new);
    details(fields, &mut row);
    random_lengths(fields, &mut row)?;
    if !is_new {
        row.remarks.push(
            "This version of bench_serving writes the output length that was asked for, so output rates and TPOT are too good \
             where a request ended early."
                .to_owned(),
        );
    }
    Ok(row)
}

/// A length that every request had.
pub(super) fn exact(tokens: u64) -> Option<Length> {
    Some(Length {
        tokens: tokens as f64,
        realised: true,
    })
}

/// The mean lengths of a run's requests, from the totals.
pub(super) fn mean_lengths(row: &mut ResultRow, output_is_counted: bool) {
    let mean = |total: Option<f64>, realised| {
        Some(Length {
            tokens: total? / row.requests.filter(|&n| n > 0)? as f64,
            realised,
        })
    };
    row.input_len = mean(row.total_input_tokens, true);
    row.output_len = mean(row.total_output_tokens, output_is_counted);
    for (length, name) in [(row.input_len, "input_len"), (row.output_len, "output_len")] {
        if length.is_some() {
            row.derived.push(name);
        }
    }
}

/// Lengths of the single requests, where `--output-details` or `--save-detailed` kept them and no total stands beside.
pub(super) fn details(fields: &Fields<'_>, row: &mut ResultRow) {
    for (key, length) in [
        ("input_lens", &mut row.input_len),
        ("output_lens", &mut row.output_len),
    ] {
        if length.is_none()
            && let Some(lens) = fields.list(key)
        {
            *length = crate::stats::mean(&lens).map(|tokens| Length {
                tokens,
                realised: true,
            });
        }
    }
}

/// What is known of random prompts: their lengths are drawn from `[ratio × L, L]`, and the default ratio is 0.
pub(super) fn random_lengths(fields: &mut Fields<'_>, row: &mut ResultRow) -> Result<(), String> {
    if fields
        .text("dataset_name")
        .is_none_or(|name| !name.starts_with("random"))
    {
        return Ok(());
    }
    let input = fields.figure("random_input_len")?;
    let output = fields.figure("random_output_len")?;
    let ratio = fields.number("random_range_ratio")?;
    for (asked, length) in [(input, &mut row.input_len), (output, &mut row.output_len)] {
        if let Some(tokens) = asked {
            length.get_or_insert(Length {
                tokens,
                realised: false,
            });
        }
    }
    if let (Some(ratio), Some(input), Some(output)) = (ratio, input, output)
        && ratio < 1.0
    {
        row.workload
            .insert("random_range_ratio".to_owned(), ratio.to_string());
        row.remarks.push(format!(
            "Lengths differ from request to request: they were drawn from {:.0} to {input:.0} prompt tokens and {:.0} to {output:.0} \
             generated ones.",
            (input * ratio).floor().max(1.0),
            (output * ratio).floor(),
        ));
    }
    Ok(())
}

/// `{mean,median,std,p99}_{name}_ms`.
pub(super) fn milliseconds(
    fields: &mut Fields<'_>,
    name: &str,
    basis: Basis,
) -> Result<Option<Latency>, String> {
    let mut of = |statistic: &str| fields.milliseconds(&format!("{statistic}_{name}_ms"));
    let p99_s = of("p99")?;
    Ok(Latency {
        mean_s: of("mean")?,
        median_s: of("median")?,
        std_s: of("std")?,
        p99_s,
        percentiles: p99_s.map(|_| Percentiles::Linear),
        basis,
    }
    .known())
}
