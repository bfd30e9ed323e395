//! The rows of lmdeploy's CSV files.

use super::fields::Fields;
use super::row::{Basis, Framework, Latency, Load, Rates, ResultRow};
use super::sglang::{mean_lengths, random_lengths};

/// `profile_throughput.py` and `profile_pipeline_api.py`, which measure inside the engine's process.
pub(super) fn profiler(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let limit = fields.required("bs", "the concurrency")?;
    let mut row = row(fields, Basis::EngineFirstToken)?;
    row.program = "profile_throughput";
    row.load = Load::Concurrency {
        limit: Some(limit),
        mean: None,
    };
    if let Some(asked) = fields.count("num_prompts")?
        && let Some(done) = row.requests
        && done < asked
    {
        row.remarks.push(format!(
            "{} of {asked} requests failed or ended early and are in no figure.",
            asked - done
        ));
    }
    Ok(row)
}

/// `profile_restful_api.py`, a client that grew out of sglang's.
pub(super) fn restful(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let mut row = row(fields, Basis::ClientFirstToken)?;
    row.program = "profile_restful_api";
    row.load = Load::Concurrency {
        limit: None,
        mean: None,
    };
    row.workload.extend(fields.texts(["request_rate"]));
    // As in the sglang client that it grew out of: the output length is the one that was asked for.
    if let Some(length) = &mut row.output_len {
        length.realised = false;
    }
    Ok(row)
}

fn row(fields: &mut Fields<'_>, first_token: Basis) -> Result<ResultRow, String> {
    let requests = fields.required_count("completed", "a number of requests")?;
    let duration = fields.required("duration", "seconds of the whole run")?;
    let mut mean = |key, basis| {
        let latency = Latency {
            mean_s: fields.milliseconds(key)?,
            ..Latency::new(basis)
        };
        Ok::<_, String>(latency.known())
    };
    let mut row = ResultRow {
        ttft: mean("mean_ttft_ms", first_token)?,
        tpot: mean("mean_tpot_ms", Basis::PerRequest)?,
        itl: mean("mean_itl_ms", Basis::PerChunk)?,
        e2e: mean("mean_e2e_latency_ms", Basis::Request)?,
        backend: fields.text("backend"),
        requests: Some(requests),
        total_input_tokens: fields.figure("total_input_tokens")?,
        total_output_tokens: fields.figure("total_output_tokens")?,
        duration_s: Some(duration),
        rates: Rates {
            input_tokens_per_s: fields.figure("input_throughput")?,
            output_tokens_per_s: fields.figure("output_throughput")?,
            requests_per_s: fields.figure("request_throughput")?,
            ..Rates::default()
        },
        workload: fields.texts(["dataset_name"]).collect(),
        ..ResultRow::new(Framework::Lmdeploy, "")
    };
    mean_lengths(&mut row, true);
    random_lengths(fields, &mut row)?;
    Ok(row)
}
