//! The JSON of `vllm bench latency` and `vllm bench serve`.

use serde_json::{Map, Value};

use super::super::Entry;
use crate::results::{Basis, Framework, Latency, Load, ResultRow};
use crate::stats;

/// The percentiles that `vllm bench latency` writes.
const PERCENTILES: [f64; 6] = [10.0, 25.0, 50.0, 75.0, 90.0, 99.0];

/// An object, without the line's end.
///
/// # Errors
/// When neither form fits the row.
pub(super) fn line(row: &ResultRow) -> Result<String, String> {
    let object = match row.load {
        Load::Concurrency { .. } => serve(row),
        Load::StaticBatch(_) | Load::Unknown => latency(row),
    }?;
    Ok(python(&Value::Object(object)))
}

/// What is not the same in vLLM.
pub(super) fn notes(entries: &[Entry<'_>], refused: &[(usize, String)]) -> Vec<String> {
    let is_written =
        |entry: &&Entry<'_>| !refused.iter().any(|(number, _)| *number == entry.number);
    let of_steps = |entry: &Entry<'_>| {
        entry
            .row
            .e2e
            .as_ref()
            .is_some_and(|e2e| e2e.basis == Basis::SumOfSteps)
    };
    let numbers: Vec<usize> = entries
        .iter()
        .filter(is_written)
        .filter(|entry| of_steps(entry))
        .map(|entry| entry.number)
        .collect();
    if numbers.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "{}: the sum of the timed steps stands where vllm bench latency has the whole call, scheduler and detokeniser included.",
        super::super::alike::list(&numbers)
    )]
}

fn latency(row: &ResultRow) -> Result<Map<String, Value>, String> {
    let e2e = row.e2e.as_ref().ok_or("it has no end-to-end latency")?;
    if !matches!(e2e.basis, Basis::WholeCall | Basis::SumOfSteps) {
        return Err(format!(
            "its latency is of another kind ({}) than that of vllm bench latency (whole call)",
            e2e.basis.name()
        ));
    }
    let mean = e2e
        .mean_s
        .or(e2e.median_s)
        .ok_or("it has no end-to-end latency")?;
    let samples = if row.e2e_samples_s.is_empty() {
        vec![mean]
    } else {
        row.e2e_samples_s.clone()
    };
    let percentiles = PERCENTILES.iter().filter_map(|&q| {
        let given = match q {
            50.0 => e2e.median_s,
            99.0 => e2e.p99_s,
            _ => None,
        };
        let value = given.or_else(|| stats::percentile(&samples, q))?;
        Some((q.to_string(), value.into()))
    });
    let percentiles: Map<String, Value> = percentiles.collect();
    let mut object = Map::new();
    object.insert("avg_latency".to_owned(), mean.into());
    object.insert("latencies".to_owned(), samples.into());
    object.insert("percentiles".to_owned(), percentiles.into());
    Ok(object)
}

fn serve(row: &ResultRow) -> Result<Map<String, Value>, String> {
    let duration = row.duration_s.ok_or("it has no duration")?;
    let requests = row.requests.ok_or("it has no number of requests")?;
    for (name, latency, basis) in [
        ("TTFT", &row.ttft, Basis::ClientFirstToken),
        ("TPOT", &row.tpot, Basis::PerRequest),
        ("ITL", &row.itl, Basis::PerChunk),
        ("E2E", &row.e2e, Basis::Request),
    ] {
        if let Some(latency) = latency
            && latency.basis != basis
        {
            return Err(format!(
                "its {name} is of another kind ({}) than that of vllm bench serve ({})",
                latency.basis.name(),
                basis.name()
            ));
        }
    }
    if row.ttft.is_none() && row.e2e.is_none() {
        return Err("vllm bench serve is of what a client measured, and this is not".to_owned());
    }
    let mut object = Map::new();
    let text = |text: Option<&String>| text.map_or(Value::Null, |text| text.as_str().into());
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("endpoint_type", text(row.settings.get("endpoint_type")));
    put("backend", text(row.backend.as_ref()));
    put("label", text(row.label.as_ref()));
    put("model_id", text(row.model.as_ref()));
    put("num_prompts", requests.into());
    put(
        "request_rate",
        number_or_text(row.workload.get("request_rate")),
    );
    if let Some(burstiness) = row.settings.get("burstiness") {
        put("burstiness", number_or_text(Some(burstiness)));
    }
    put(
        "max_concurrency",
        match row.load {
            Load::Concurrency {
                limit: Some(limit), ..
            } if limit.fract() == 0.0 => (limit as u64).into(),
            Load::Concurrency { limit, .. } => limit.into(),
            _ => Value::Null,
        },
    );
    put("duration", duration.into());
    put("completed", requests.into());
    let whole = |tokens: Option<f64>| match tokens {
        Some(tokens) if tokens.fract() == 0.0 => (tokens as u64).into(),
        other => Value::from(other),
    };
    put("total_input_tokens", whole(row.total_input_tokens));
    put("total_output_tokens", whole(row.total_output_tokens));
    put("request_throughput", row.rates.requests_per_s.into());
    put("output_throughput", row.rates.output_tokens_per_s.into());
    put(
        "total_token_throughput",
        row.rates.total_tokens_per_s.into(),
    );
    for (name, latency) in [
        ("ttft", &row.ttft),
        ("tpot", &row.tpot),
        ("itl", &row.itl),
        ("e2el", &row.e2e),
    ] {
        let Some(latency) = latency else { continue };
        for (statistic, seconds) in statistics(latency) {
            if let Some(seconds) = seconds {
                put(
                    &format!("{statistic}_{name}_ms"),
                    milliseconds(seconds).into(),
                );
            }
        }
    }
    if row.framework != Framework::Vllm {
        put(
            "measured_by",
            format!("{} {}", row.framework.name(), row.program).into(),
        );
    }
    Ok(object)
}

fn statistics(latency: &Latency) -> [(&'static str, Option<f64>); 4] {
    [
        ("mean", latency.mean_s),
        ("median", latency.median_s),
        ("std", latency.std_s),
        ("p99", latency.p99_s),
    ]
}

/// The number of milliseconds that is read back as exactly these seconds.
fn milliseconds(seconds: f64) -> f64 {
    let near = seconds * 1e3;
    let candidates = [
        near,
        near.next_up(),
        near.next_down(),
        near.next_up().next_up(),
        near.next_down().next_down(),
    ];
    candidates
        .into_iter()
        .find(|ms| ms / 1e3 == seconds)
        .unwrap_or(near)
}

fn number_or_text(value: Option<&String>) -> Value {
    let Some(value) = value else {
        return Value::Null;
    };
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() => number.into(),
        // Not as `Infinity`, which is no JSON.
        Ok(_) => "inf".into(),
        Err(_) => value.as_str().into(),
    }
}

/// As Python's `json.dumps` writes it.
fn python(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let members = object
                .iter()
                .map(|(key, value)| format!("{}: {}", crate::python::string(key), python(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Array(values) => format!(
            "[{}]",
            values.iter().map(python).collect::<Vec<_>>().join(", ")
        ),
        Value::String(text) => crate::python::string(text),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => crate::python::float(float),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}
