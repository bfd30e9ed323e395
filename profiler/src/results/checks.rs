//! What follows from a row's figures, and where they contradict each other.

use super::row::{Basis, Latency, Length, Load, ResultRow};

/// Printed figures are rounded; what differs by more contradicts.
const ROUNDING: f64 = 0.01;

/// Means of products are no products of means.
const OF_MEANS: f64 = 0.1;

/// Computes the figures that the row has not and that follow from those it has; names them in [`ResultRow::derived`].
pub fn complete(row: &mut ResultRow) {
    let mut derived = Vec::new();
    let mut fill = |field: &mut Option<f64>, value: Option<f64>, name| {
        if let (None, Some(value)) = (*field, value.filter(|v| v.is_finite() && *v > 0.0)) {
            *field = Some(value);
            derived.push(name);
        }
    };
    let batch = batch(row);
    let requests = row.requests.map(|n| n as f64).or(batch);
    let of_all = |length: Option<Length>| Some(realised(length)? * requests?);
    fill(
        &mut row.total_input_tokens,
        of_all(row.input_len),
        "total_input_tokens",
    );
    fill(
        &mut row.total_output_tokens,
        of_all(row.output_len),
        "total_output_tokens",
    );
    let duration = row.duration_s.or_else(|| {
        // One call of a whole batch.
        let call = row.e2e.as_ref().filter(|e2e| e2e.basis == Basis::WholeCall);
        call.filter(|_| batch.is_some())
            .and_then(Latency::typical_s)
    });
    let per_s = |tokens: Option<f64>| Some(tokens? / duration?);
    let input = row.total_input_tokens;
    let output = row.total_output_tokens;
    let both = input.zip(output).map(|(input, output)| input + output);
    let rates = &mut row.rates;
    fill(
        &mut rates.input_tokens_per_s,
        per_s(input),
        "rates.input_tokens_per_s",
    );
    fill(
        &mut rates.output_tokens_per_s,
        per_s(output),
        "rates.output_tokens_per_s",
    );
    fill(
        &mut rates.total_tokens_per_s,
        per_s(both),
        "rates.total_tokens_per_s",
    );
    // Of one GPU it would be the rate again.
    let gpus = gpus(row.tp, row.pp).filter(|gpus| *gpus > 1.0);
    let output = rates.output_tokens_per_s;
    fill(
        &mut rates.output_tokens_per_s_per_gpu,
        output.zip(gpus).map(|(rate, gpus)| rate / gpus),
        "rates.output_tokens_per_s_per_gpu",
    );
    // Of a static batch it would be its latency again.
    let requests = requests.filter(|_| batch.is_none());
    fill(
        &mut rates.requests_per_s,
        per_s(requests),
        "rates.requests_per_s",
    );
    if row.requests.is_none()
        && let Load::StaticBatch(batch_size) = row.load
        && row.duration_s.is_some()
    {
        row.requests = Some(batch_size);
        derived.push("requests");
    }
    row.derived.append(&mut derived);
}

/// GPUs of a run, where it says how many ranks it had.
fn gpus(tp: Option<u32>, pp: Option<u32>) -> Option<f64> {
    Some(f64::from(tp?) * f64::from(pp.unwrap_or(1)))
}

fn batch(row: &ResultRow) -> Option<f64> {
    match row.load {
        Load::StaticBatch(batch_size) => Some(batch_size as f64),
        _ => None,
    }
}

fn realised(length: Option<Length>) -> Option<f64> {
    length.filter(|l| l.realised).map(|l| l.tokens)
}

/// Where the row's figures contradict each other, one sentence each.
pub(super) fn contradictions(row: &ResultRow) -> Vec<String> {
    let mut found = Vec::new();
    rates(row, &mut found);
    distributions(row, &mut found);
    latencies(row, &mut found);
    concurrency(row, &mut found);
    found
}

/// Rates against tokens and times.
fn rates(row: &ResultRow, found: &mut Vec<String>) {
    let rates = &row.rates;
    let is_given = |name: &str| !row.derived.contains(&name);
    let mut check = |name: &str,
                     given: Option<f64>,
                     unit: &str,
                     amount: Option<f64>,
                     what: &str,
                     seconds: Option<f64>| {
        let (Some(given), Some(amount), Some(seconds)) = (given, amount, seconds) else {
            return;
        };
        let expected = amount / seconds;
        if is_given(name) && differs(given, expected, ROUNDING) {
            found.push(format!(
                "The {what} rate is {} {unit}/s, but {} {unit}s in {} s are {} {unit}/s{}.",
                figure(given),
                figure(amount),
                figure(seconds),
                figure(expected),
                units_hint(given, expected),
            ));
        }
    };
    let batch = batch(row);
    let of_batch = |length: Option<Length>| Some(realised(length)? * batch?);
    let latency = |latency: &Option<Latency>, basis| {
        latency
            .as_ref()
            .filter(|l| l.basis == basis)
            .and_then(Latency::typical_s)
    };
    let first_token = rates
        .prefill_basis
        .filter(|basis| *basis != Basis::PromptWithoutSampling);
    check(
        "rates.prefill_tokens_per_s",
        rates.prefill_tokens_per_s,
        "token",
        of_batch(row.input_len),
        "prefill",
        first_token.and_then(|basis| latency(&row.ttft, basis)),
    );
    check(
        "rates.decode_tokens_per_s",
        rates.decode_tokens_per_s,
        "token",
        batch,
        "decode",
        latency(&row.tpot, Basis::DecodeStep),
    );
    let duration = row.duration_s;
    let (input, output) = (row.total_input_tokens, row.total_output_tokens);
    check(
        "rates.input_tokens_per_s",
        rates.input_tokens_per_s,
        "token",
        input,
        "input",
        duration,
    );
    check(
        "rates.output_tokens_per_s",
        rates.output_tokens_per_s,
        "token",
        output,
        "output",
        duration,
    );
    let both = input.zip(output).map(|(a, b)| a + b);
    check(
        "rates.total_tokens_per_s",
        rates.total_tokens_per_s,
        "token",
        both,
        "total",
        duration,
    );
    let requests = row.requests.map(|n| n as f64);
    check(
        "rates.requests_per_s",
        rates.requests_per_s,
        "request",
        requests,
        "request",
        duration,
    );
    per_gpu_and_user(row, found);
    if let (Some(total), Some(input), Some(output)) = (
        rates.total_tokens_per_s,
        rates.input_tokens_per_s,
        rates.output_tokens_per_s,
    ) && differs(total, input + output, ROUNDING)
        && duration.is_none()
    {
        found.push(format!(
            "The total rate is {} token/s, but input and output rate add up to {}.",
            figure(total),
            figure(input + output)
        ));
    }
}

/// Output rates of one GPU and of one request against those of all.
fn per_gpu_and_user(row: &ResultRow, found: &mut Vec<String>) {
    let rates = &row.rates;
    let is_given = !row.derived.contains(&"rates.output_tokens_per_s_per_gpu");
    if let (Some(given), Some(output), Some(gpus)) = (
        rates.output_tokens_per_s_per_gpu.filter(|_| is_given),
        rates.output_tokens_per_s,
        gpus(row.tp, row.pp),
    ) && differs(given, output / gpus, ROUNDING)
    {
        found.push(format!(
            "The output rate per GPU is {} token/s, but {} token/s over {} GPUs are {}.",
            figure(given),
            figure(output),
            figure(gpus),
            figure(output / gpus)
        ));
    }
    let e2e = row.e2e.as_ref().and_then(|l| l.mean_s);
    if let (Some(given), Some(output), Some(e2e)) = (
        rates.output_tokens_per_s_per_user,
        realised(row.output_len),
        e2e,
    ) && differs(given, output / e2e, OF_MEANS)
    {
        found.push(format!(
            "The output rate per user is {} token/s, but {} tokens in {} are {}.",
            figure(given),
            figure(output),
            time(e2e),
            figure(output / e2e)
        ));
    }
}

/// Means and percentiles of one latency against each other.
fn distributions(row: &ResultRow, found: &mut Vec<String>) {
    for (name, latency) in named(row) {
        let (Some(p99), percentiles) = (
            latency.p99_s,
            [("median", latency.median_s), ("mean", latency.mean_s)],
        ) else {
            continue;
        };
        for (statistic, value) in percentiles {
            if let Some(value) = value
                && p99 < value * (1.0 - 1e-9)
            {
                let why = if statistic == "median" {
                    "which cannot be"
                } else {
                    "which takes a few values far above all others"
                };
                found.push(format!(
                    "The 99th percentile of {name}, {}, is below its {statistic}, {}, {why}.",
                    time(p99),
                    time(value)
                ));
            }
        }
    }
}

/// Latencies against each other and against the duration.
fn latencies(row: &ResultRow, found: &mut Vec<String>) {
    let mean = |latency: &Option<Latency>| latency.as_ref().and_then(|l| l.mean_s.or(l.median_s));
    let (ttft, tpot, e2e) = (mean(&row.ttft), mean(&row.tpot), mean(&row.e2e));
    if let Some(duration) = row.duration_s {
        for (name, latency) in named(row) {
            if let Some(mean) = latency.mean_s.or(latency.median_s)
                && mean > duration * (1.0 + ROUNDING)
            {
                found.push(format!(
                    "{name} is {}, longer than the whole run of {}; are its units what they should be?",
                    time(mean),
                    time(duration)
                ));
            }
        }
    }
    let (Some(ttft), Some(e2e), Some(output)) = (ttft, e2e, realised(row.output_len)) else {
        return;
    };
    if e2e < ttft * (1.0 - ROUNDING) {
        found.push(format!(
            "The end-to-end latency, {}, is below the time to first token, {}.",
            time(e2e),
            time(ttft)
        ));
    }
    let (Some(tpot), Some(steps)) = (tpot, Some(output - 1.0).filter(|n| *n >= 1.0)) else {
        return;
    };
    match row.tpot.as_ref().map(|l| l.basis) {
        // Lengths that vary make the mean of products another number.
        Some(Basis::PerRequest) if !row.workload.contains_key("random_range_ratio") => {
            let expected = ttft + tpot * steps;
            if differs(e2e, expected, OF_MEANS) {
                found.push(format!(
                    "The end-to-end latency is {}, but a first token after {} and {} more at {} make {}{}.",
                    time(e2e),
                    time(ttft),
                    figure(steps),
                    time(tpot),
                    time(expected),
                    units_hint(e2e, expected),
                ));
            }
        }
        // At least half of the steps take the median or more.
        Some(Basis::DecodeStep) => {
            let least = ttft + tpot * (steps / 2.0).floor();
            if e2e < least * (1.0 - ROUNDING) {
                found.push(format!(
                    "All steps together take {}, but the prefill's {} and half of the {} decode steps at their median of {} are {} already.",
                    time(e2e),
                    time(ttft),
                    figure(steps),
                    time(tpot),
                    time(least)
                ));
            }
        }
        _ => {}
    }
}

/// Little's law, and the client's own limit.
fn concurrency(row: &ResultRow, found: &mut Vec<String>) {
    let Load::Concurrency {
        limit,
        mean: Some(mean),
    } = row.load
    else {
        return;
    };
    if let Some(limit) = limit
        && mean > limit * (1.0 + ROUNDING)
    {
        found.push(format!(
            "{} requests were in flight on average, more than the limit of {}.",
            figure(mean),
            figure(limit)
        ));
    }
    let e2e = row.e2e.as_ref().and_then(|l| l.mean_s);
    if let (Some(e2e), Some(rate)) = (e2e, row.rates.requests_per_s)
        && differs(mean, e2e * rate, OF_MEANS)
    {
        found.push(format!(
            "{} requests were in flight on average, but {} requests/s of {} each make {}{}.",
            figure(mean),
            figure(rate),
            time(e2e),
            figure(e2e * rate),
            units_hint(mean, e2e * rate),
        ));
    }
}

fn named(row: &ResultRow) -> impl Iterator<Item = (&'static str, &Latency)> {
    [
        ("TTFT", &row.ttft),
        ("TPOT", &row.tpot),
        ("ITL", &row.itl),
        ("E2E", &row.e2e),
    ]
    .into_iter()
    .filter_map(|(name, latency)| Some((name, latency.as_ref()?)))
}

fn differs(given: f64, expected: f64, tolerance: f64) -> bool {
    (given - expected).abs() > tolerance * given.abs().max(expected.abs())
}

/// A factor of thousand is no slip of a measurement.
fn units_hint(given: f64, expected: f64) -> &'static str {
    let ratio = (given / expected).abs().log10();
    let is_power_of_thousand =
        (ratio / 3.0).round() != 0.0 && (ratio - (ratio / 3.0).round() * 3.0).abs() < 0.05;
    if is_power_of_thousand {
        "; their units seem to differ"
    } else {
        ""
    }
}

fn figure(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e9 {
        format!("{value}")
    } else {
        crate::quantity::significant(value, 4)
    }
}

fn time(seconds: f64) -> String {
    crate::quantity::duration_with_digits(seconds * 1e9, 4)
}
