//! Our own records: a row per point, the median over its repetitions.

use super::row::{Basis, Framework, Latency, Load, Rates, ResultRow};
use super::sglang::exact;
use crate::record::{Point, Record, Repetition};
use crate::stats;

/// The rows of a record.
///
/// # Errors
/// When it holds no time, as that of an emulated device.
pub(super) fn rows(record: &Record) -> Result<Vec<ResultRow>, String> {
    if !record.has_times() {
        return Err("it is a record of an emulated device, which has no time; stepscope report shows what it counted".to_owned());
    }
    if record.points.is_empty() {
        return Err("it is a record without a measured point".to_owned());
    }
    let points = record
        .points
        .iter()
        .filter(|point| !point.repetitions.is_empty());
    Ok(points.map(|point| row(record, point)).collect())
}

fn row(record: &Record, point: &Point) -> ResultRow {
    let (run, machine) = (&record.run, &record.environment);
    let over = |basis, of: fn(&Repetition) -> Option<f64>| {
        let values: Option<Vec<f64>> = point.repetitions.iter().map(of).collect();
        let values = values?
            .into_iter()
            .filter(|v| v.is_finite() && *v > 0.0)
            .collect::<Vec<_>>();
        Latency {
            mean_s: stats::mean(&values),
            median_s: stats::median(&values),
            std_s: stats::stddev(&values),
            ..Latency::new(basis)
        }
        .known()
    };
    let ttft = over(Basis::PrefillStep, |r| Some(r.prefill_latency_s));
    // The mean of medians would be neither.
    let tpot = over(Basis::DecodeStep, |r| r.median_decode_latency_s).map(|tpot| Latency {
        mean_s: None,
        ..tpot
    });
    let e2e = over(Basis::SumOfSteps, |r| Some(r.total_latency_s));
    let first = over(Basis::DecodeStep, |r| r.first_decode_latency_s);
    let (batch, input, output) = (
        point.batch_size as f64,
        point.input_len as f64,
        point.output_len as f64,
    );
    let per = |tokens: f64, latency: &Option<Latency>| Some(tokens / latency.as_ref()?.median_s?);
    let mut row = ResultRow {
        version: Some(match &record.program.commit {
            Some(commit) => format!("{} ({commit})", record.program.version),
            None => record.program.version.clone(),
        }),
        label: Some(run.name.clone()),
        backend: Some(run.device.clone()),
        model: Some(run.model.name.clone()),
        model_parameters: Some(run.model.parameters as f64),
        gpu: machine.gpu.as_ref().map(|gpu| gpu.name.clone()),
        tp: u32::try_from(run.tp).ok(),
        dtype: Some(run.dtype.clone()),
        load: Load::StaticBatch(point.batch_size as u64),
        input_len: exact(point.input_len as u64),
        output_len: exact(point.output_len as u64),
        duration_s: e2e.as_ref().and_then(Latency::typical_s),
        rates: Rates {
            prefill_tokens_per_s: per(input * batch, &ttft),
            prefill_basis: Some(Basis::PrefillStep),
            decode_tokens_per_s: per(batch, &tpot),
            decode_basis: tpot.as_ref().map(|_| Basis::DecodeStep),
            total_tokens_per_s: per((input + output) * batch, &e2e),
            ..Rates::default()
        },
        ttft,
        tpot,
        e2e,
        first_decode_steps_s: first.and_then(|l| l.median_s).into_iter().collect(),
        e2e_samples_s: point
            .repetitions
            .iter()
            .map(|r| r.total_latency_s)
            .filter(|s| s.is_finite())
            .collect(),
        repetitions: Some(point.repetitions.len() as u64),
        ..ResultRow::new(Framework::Stepscope, "one-batch")
    };
    row.settings
        .insert("kv_cache_dtype".to_owned(), run.kv_cache_dtype.clone());
    row.settings
        .insert("cpu_info".to_owned(), machine.cpu.name.clone());
    row.settings
        .insert("n_threads".to_owned(), run.threads.to_string());
    row.settings.insert("compat".to_owned(), run.compat.clone());
    if let Some(graph) = run.cuda_graph {
        row.settings
            .insert("cuda_graph".to_owned(), graph.to_string());
    }
    row.derived.extend([
        "rates.prefill_tokens_per_s",
        "rates.decode_tokens_per_s",
        "rates.total_tokens_per_s",
    ]);
    row
}
