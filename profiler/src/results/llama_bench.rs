//! llama-bench: one test of prompt processing, generation or both, repeated. All five of its output forms become the same fields.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::row::{Basis, Framework, Latency, Load, Rates, ResultRow};
use super::sglang::exact;
use crate::stats;

/// A row of csv, json, jsonl or sql.
pub(super) fn test(fields: &mut Fields<'_>) -> Result<ResultRow, String> {
    let prompt = fields.count("n_prompt")?.unwrap_or(0);
    let generated = fields.count("n_gen")?.unwrap_or(0);
    let rate = fields.required("avg_ts", "tokens per second")?;
    let tokens = prompt + generated;
    if tokens == 0 {
        return Err(
            "\"n_prompt\" and \"n_gen\" are both 0 or missing; one of them says what was measured"
                .to_owned(),
        );
    }
    let model_type = fields.text("model_type");
    let file = fields.text("model_filename");
    let file = file.as_deref().map(file_name);
    let mut row = ResultRow {
        version: version(fields),
        backend: fields.text("backends").or_else(|| fields.text("backend")),
        model: file.map(str::to_owned).or_else(|| model_type.clone()),
        model_parameters: fields.figure("model_n_params")?,
        model_bytes: fields.figure("model_size")?,
        gpu: fields.text("gpu_info"),
        dtype: model_type
            .as_deref()
            .and_then(weights_type)
            .map(str::to_owned),
        load: Load::StaticBatch(1),
        input_len: exact(prompt),
        output_len: exact(generated),
        kv_depth: fields.number("n_depth")?,
        settings: fields
            .texts([
                "model_type",
                "cpu_info",
                "n_gpu_layers",
                "n_threads",
                "n_batch",
                "n_ubatch",
                "type_k",
                "type_v",
                "flash_attn",
                "split_mode",
                "no_kv_offload",
            ])
            .collect(),
        ..ResultRow::new(Framework::LlamaCpp, "llama-bench")
    };
    row.rates.std_tokens_per_s = fields.number("stddev_ts")?.filter(|&std| std >= 0.0);

    let samples = fields.list("samples_ns");
    row.repetitions = samples.as_ref().map(|samples| samples.len() as u64);
    let per = if prompt == 0 { generated as f64 } else { 1.0 };
    let seconds = |ns: f64| ns / 1e9 / per;
    let basis = basis(prompt, generated);
    let mut latency = Latency {
        mean_s: fields.figure("avg_ns")?.map(seconds),
        std_s: fields.figure("stddev_ns")?.map(seconds),
        median_s: samples.as_deref().and_then(stats::median).map(seconds),
        ..Latency::new(basis)
    };
    let name = set_rate(&mut row.rates, rate, basis);
    if latency.median_s.is_some() {
        row.derived.push(match basis {
            Basis::PromptWithoutSampling => "ttft.median_s",
            Basis::GenerationWithoutSampling => "tpot.median_s",
            _ => "e2e.median_s",
        });
    }
    if latency.mean_s.is_none() {
        // Markdown has the rate alone.
        latency.mean_s = Some(tokens as f64 / rate / per);
        row.derived.push(name);
    } else if let Some(mean) = latency.mean_s
        && (tokens as f64 / (mean * per) - rate).abs() > 0.02 * rate
    {
        row.remarks.push(format!(
            "avg_ts is {rate} token/s, but {tokens} tokens in avg_ns, {:.6} s, are {:.2} token/s.",
            mean * per,
            tokens as f64 / (mean * per)
        ));
    }
    match basis {
        Basis::PromptWithoutSampling => row.ttft = Some(latency),
        Basis::GenerationWithoutSampling => row.tpot = Some(latency),
        _ => row.e2e = Some(latency),
    }
    Ok(row)
}

fn basis(prompt: u64, generated: u64) -> Basis {
    match (prompt, generated) {
        (_, 0) => Basis::PromptWithoutSampling,
        (0, _) => Basis::GenerationWithoutSampling,
        _ => Basis::PromptAndGenerationWithoutSampling,
    }
}

/// Puts the one rate of a test where it belongs; gives the name of the latency that it is the inverse of.
fn set_rate(rates: &mut Rates, rate: f64, basis: Basis) -> &'static str {
    match basis {
        Basis::PromptWithoutSampling => {
            rates.prefill_tokens_per_s = Some(rate);
            rates.prefill_basis = Some(basis);
            "ttft"
        }
        Basis::GenerationWithoutSampling => {
            rates.decode_tokens_per_s = Some(rate);
            rates.decode_basis = Some(basis);
            "tpot"
        }
        _ => {
            rates.total_tokens_per_s = Some(rate);
            "e2e"
        }
    }
}

/// `0104b151 (7000)`, as the footer of llama-bench's own table has it.
fn version(fields: &Fields<'_>) -> Option<String> {
    let commit = fields.text("build_commit")?;
    Some(match fields.text("build_number") {
        Some(number) => format!("{commit} ({number})"),
        None => commit,
    })
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// llama.cpp describes a model as architecture, size and type of the weights: `qwen2 7B Q4_K - Medium`.
fn weights_type(model_type: &str) -> Option<&str> {
    let (_, after_architecture) = model_type.split_once(' ')?;
    let (_, weights) = after_architecture.split_once(' ')?;
    Some(weights).filter(|weights| !weights.starts_with('('))
}

/// The cells of a line of a Markdown table.
pub(super) fn cells(line: &str) -> Option<Vec<&str>> {
    let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inside.split('|').map(str::trim).collect())
}

/// A row of the Markdown table as the fields of the other forms.
///
/// # Errors
/// When the row does not fit the header, or its `test` or `t/s` are not as llama-bench writes them.
pub(super) fn markdown_fields(
    header: &[String],
    cells: &[&str],
) -> Result<Map<String, Value>, String> {
    if header.len() != cells.len() {
        return Err(format!(
            "it has {} cells where the table's header has {}",
            cells.len(),
            header.len()
        ));
    }
    let mut object = Map::new();
    let mut put = |key: &str, value: String| object.insert(key.to_owned(), Value::String(value));
    for (name, &cell) in header.iter().zip(cells) {
        match name.as_str() {
            "model" => {
                put("model_type", cell.to_owned());
            }
            "size" => {
                put(
                    "model_size",
                    prefixed(cell, &[("GiB", GIB), ("MiB", MIB), ("KiB", 1024.0)])?,
                );
            }
            "params" => {
                put(
                    "model_n_params",
                    prefixed(cell, &[("B", 1e9), ("M", 1e6), ("K", 1e3)])?,
                );
            }
            "test" => {
                let (prompt, generated, depth) = parse_test(cell).ok_or_else(|| {
                    format!(
                        "its test is {cell:?}, where llama-bench has pp512, tg128 or pp512+tg128"
                    )
                })?;
                put("n_prompt", prompt.to_string());
                put("n_gen", generated.to_string());
                put("n_depth", depth.to_string());
            }
            "t/s" => {
                let wrong =
                    || format!("its t/s is {cell:?}, where llama-bench has mean ± deviation");
                // A console that does not know UTF-8 puts something else before the sign.
                let mut numbers = cell.split(|c: char| !(c.is_ascii_digit() || c == '.'));
                let mut number = || numbers.find(|part| !part.is_empty());
                put("avg_ts", number().ok_or_else(wrong)?.to_owned());
                if let Some(deviation) = number() {
                    put("stddev_ts", deviation.to_owned());
                }
            }
            other => {
                put(long_name(other), cell.to_owned());
            }
        }
    }
    Ok(object)
}

pub(crate) const GIB: f64 = 1_073_741_824.0;
pub(crate) const MIB: f64 = 1_048_576.0;

/// The table's short names, as the other forms have them.
fn long_name(short: &str) -> &str {
    match short {
        "ngl" => "n_gpu_layers",
        "threads" | "th" => "n_threads",
        "sm" => "split_mode",
        "fa" => "flash_attn",
        "nkvo" => "no_kv_offload",
        other => other,
    }
}

fn prefixed(cell: &str, units: &[(&str, f64)]) -> Result<String, String> {
    let parsed = units.iter().find_map(|(unit, scale)| {
        let number: f64 = cell.strip_suffix(unit)?.trim().parse().ok()?;
        Some((number * scale).to_string())
    });
    parsed.ok_or_else(|| format!("{cell:?} is no size as llama-bench writes them"))
}

/// Prompt tokens, generated tokens and depth of `pp512+tg128 @ d1024`.
fn parse_test(cell: &str) -> Option<(u64, u64, u64)> {
    let (test, depth) = match cell.split_once('@') {
        Some((test, depth)) => (test.trim(), depth.trim().strip_prefix('d')?.parse().ok()?),
        None => (cell, 0),
    };
    let (prompt, generated) = match test.split_once('+') {
        Some((prompt, generated)) => (Some(prompt), Some(generated)),
        None if test.starts_with("pp") => (Some(test), None),
        None => (None, Some(test)),
    };
    let number = |part: Option<&str>, prefix| match part {
        Some(part) => part.strip_prefix(prefix)?.parse::<u32>().ok(),
        None => Some(0),
    };
    Some((
        number(prompt, "pp")?.into(),
        number(generated, "tg")?.into(),
        depth,
    ))
}

/// Names and values of an `INSERT INTO llama_bench (…) VALUES (…);`.
pub(super) fn sql_fields(line: &str) -> Result<Map<String, Value>, String> {
    let wrong = || "it is no INSERT as llama-bench writes them; was it cut off?".to_owned();
    let after = line.split_once('(').ok_or_else(wrong)?.1;
    let (names, after) = after.split_once(')').ok_or_else(wrong)?;
    let mut rest = after.split_once('(').ok_or_else(wrong)?.1;
    let mut values = Vec::new();
    loop {
        let quoted = rest.trim_start().strip_prefix('\'').ok_or_else(wrong)?;
        let (value, after) = quoted.split_once('\'').ok_or_else(wrong)?;
        values.push(value.to_owned());
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next,
            None if after.trim_start().starts_with(')') => break,
            None => return Err(wrong()),
        }
    }
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    if names.len() != values.len() {
        return Err(format!(
            "it names {} columns and gives {} values",
            names.len(),
            values.len()
        ));
    }
    let pairs = names.into_iter().zip(values);
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .collect())
}

/// How llama-bench names the test of a row.
pub(crate) fn test_name(
    input: Option<super::row::Length>,
    output: Option<super::row::Length>,
    depth: Option<f64>,
) -> String {
    let tokens = |length: Option<super::row::Length>| length.map_or(0.0, |l| l.tokens);
    let mut parts = Vec::new();
    if tokens(input) > 0.0 {
        parts.push(format!("pp{}", tokens(input)));
    }
    if tokens(output) > 0.0 {
        parts.push(format!("tg{}", tokens(output)));
    }
    let depth = depth.filter(|&d| d > 0.0).map(|d| format!(" @ d{d}"));
    parts.join("+") + &depth.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_as_llama_bench_names_them() {
        for (cell, expected) in [
            ("pp512", Some((512, 0, 0))),
            ("tg128", Some((0, 128, 0))),
            ("pp512+tg128", Some((512, 128, 0))),
            ("tg32 @ d4096", Some((0, 32, 4096))),
            ("pp512@d1", Some((512, 0, 1))),
            ("", None),
            ("512", None),
            ("pp-1", None),
            ("tg1+pp1", None),
        ] {
            assert_eq!(parse_test(cell), expected, "{cell}");
            if let Some((prompt, generated, depth)) = parse_test(cell) {
                let name = test_name(exact(prompt), exact(generated), Some(depth as f64));
                assert_eq!(name.replace(' ', ""), cell.replace(' ', ""));
            }
        }
    }

    #[test]
    fn inserts_are_read_and_broken_ones_refused() {
        let fields = sql_fields("INSERT INTO llama_bench (a, b) VALUES ('x, y', '');").unwrap();
        assert_eq!(fields["a"], "x, y");
        assert_eq!(fields["b"], "");
        for broken in [
            "INSERT INTO llama_bench",
            "INSERT INTO l (a) VALUES ('1",
            "INSERT (a) VALUES ()",
        ] {
            assert!(sql_fields(broken).unwrap_err().contains("cut off"));
        }
        let error = sql_fields("INSERT INTO l (a) VALUES ('1', '2');").unwrap_err();
        assert_eq!(error, "it names 1 columns and gives 2 values");
    }

    #[test]
    fn weights_stand_after_architecture_and_size() {
        assert_eq!(
            weights_type("qwen2 7B Q4_K - Medium"),
            Some("Q4_K - Medium")
        );
        assert_eq!(weights_type("llama 8B BF16"), Some("BF16"));
        assert_eq!(weights_type("unknown"), None);
    }
}
