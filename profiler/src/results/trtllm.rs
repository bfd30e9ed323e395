//! `trtllm-bench`: the report that `--report_json` writes, and the plain dump of its statistics that came before.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::row::{Basis, Framework, Latency, Length, Load, Percentiles, Rates, ResultRow};

/// The report. Blocks that older versions lack are optional, all but `request_info` and `performance`.
pub(super) fn report(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let requests = below(fields, "request_info")?;
    let performance = below(fields, "performance")?;
    let empty = Map::new();
    let engine = Fields::new("engine", fields.below("engine").unwrap_or(&empty));
    let mut world = Fields::new("world_info", fields.below("world_info").unwrap_or(&empty));
    let mut requests = Fields::new("request_info", requests);
    let mut performance = Fields::new("performance", performance);

    let duration = performance.required("total_latency_ms", "milliseconds of the whole run")? / 1e3;
    let mut row = ResultRow {
        version: engine.text("version"),
        backend: engine.text("backend"),
        model: engine.text("model"),
        tp: world.ranks("tp_size")?,
        pp: world.ranks("pp_size")?,
        dtype: engine.text("quantization").or_else(|| engine.text("dtype")),
        load: Load::Concurrency {
            limit: None,
            mean: requests.figure("avg_num_concurrent_requests")?,
        },
        requests: Some(requests.required_count("num_requests", "a number of requests")?),
        input_len: length(requests.figure("avg_input_length")?),
        output_len: length(requests.figure("avg_output_length")?),
        duration_s: Some(duration),
        e2e: Latency {
            mean_s: performance.milliseconds("avg_request_latency_ms")?,
            ..percentiles(
                performance.below("request_latency_percentiles_ms"),
                Basis::Request,
                1e3,
            )?
        }
        .known(),
        rates: Rates {
            output_tokens_per_s: performance.figure("system_output_throughput_tok_s")?,
            total_tokens_per_s: performance.figure("system_total_throughput_tok_s")?,
            requests_per_s: performance.figure("request_throughput_req_s")?,
            output_tokens_per_s_per_user: performance.figure("output_throughput_per_user_tok_s")?,
            output_tokens_per_s_per_gpu: performance.figure("output_throughput_per_gpu_tok_s")?,
            ..Rates::default()
        },
        settings: engine
            .texts(["kv_cache_dtype"])
            .chain(world.texts([
                "ep_size",
                "max_batch_size",
                "max_num_tokens",
                "scheduling_policy",
            ]))
            .collect(),
        ..ResultRow::new(Framework::TensorrtLlm, "trtllm-bench")
    };
    if let Some(streaming) = fields.below("streaming_metrics") {
        let mut streaming = Fields::new("streaming_metrics", streaming);
        row.ttft = Latency {
            mean_s: streaming.milliseconds("avg_ttft_ms")?,
            ..percentiles(
                streaming.below("ttft_percentiles"),
                Basis::EngineFirstToken,
                1e3,
            )?
        }
        .known();
        row.tpot = Latency {
            mean_s: streaming.milliseconds("avg_tpot_ms")?,
            ..percentiles(streaming.below("tpot_percentiles"), Basis::PerRequest, 1e3)?
        }
        .known();
    }
    if fields.has("decoding_stats") {
        row.settings
            .insert("speculative".to_owned(), "yes".to_owned());
    }
    Ok(row)
}

/// The statistics as the program holds them, in nanoseconds.
pub(super) fn statistics(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    const NS: f64 = 1e9;
    let duration = fields.required("total_latency_ns", "nanoseconds of the whole run")? / NS;
    let requests = fields.required_count("num_requests", "a number of requests")?;
    let per_s = |rate: Option<f64>| rate.map(|per_ns| per_ns * NS);
    Ok(ResultRow {
        load: Load::Concurrency {
            limit: None,
            mean: fields.figure("avg_concurrent_requests")?,
        },
        requests: Some(requests),
        input_len: length(fields.figure("average_input_length")?),
        output_len: length(fields.figure("average_output_length")?),
        total_input_tokens: fields.figure("total_input_tokens")?,
        total_output_tokens: fields.figure("total_output_tokens")?,
        duration_s: Some(duration),
        ttft: percentiles(
            fields.below("ttft_percentiles"),
            Basis::EngineFirstToken,
            NS,
        )?
        .known(),
        tpot: percentiles(fields.below("tpot_percentiles"), Basis::PerRequest, NS)?.known(),
        e2e: percentiles(
            fields.below("request_latency_percentiles"),
            Basis::Request,
            NS,
        )?
        .known(),
        rates: Rates {
            output_tokens_per_s: per_s(fields.figure("output_throughput_tok_ns")?),
            total_tokens_per_s: per_s(fields.figure("total_token_throughput_tok_ns")?),
            requests_per_s: per_s(fields.figure("request_throughput_ns")?),
            ..Rates::default()
        },
        ..ResultRow::new(Framework::TensorrtLlm, "trtllm-bench")
    })
}

fn below<'a>(fields: &Fields<'a>, key: &str) -> Result<&'a Map<String, Value>, String> {
    fields
        .below(key)
        .ok_or_else(|| format!("{key:?} is missing or no object; {} has one", fields.form))
}

fn length(tokens: Option<f64>) -> Option<Length> {
    tokens.map(|tokens| Length {
        tokens,
        realised: true,
    })
}

/// `p50`, `p99` and `average`, of which `per_second` make a second. The percentiles are no interpolation.
fn percentiles(
    object: Option<&Map<String, Value>>,
    basis: Basis,
    per_second: f64,
) -> Result<Latency, String> {
    let mut latency = Latency::new(basis);
    if let Some(object) = object {
        let mut fields = Fields::new("its list of percentiles", object);
        let mut of = |key| Ok::<_, String>(fields.figure(key)?.map(|time| time / per_second));
        latency.mean_s = of("average")?;
        latency.median_s = of("p50")?;
        latency.p99_s = of("p99")?;
        latency.percentiles = Some(Percentiles::NearestRank);
    }
    Ok(latency)
}
