//! What sglang's `bench_serving` and `bench_offline_throughput` and `vllm bench serve` print: a block of `Label:  value` lines under a
//! title. Its labels become the keys that the programs' result files have, so that both are read by the same rules.
//!
//! Printed figures have two decimals. Rates of which rounding leaves too few digits are left out: they follow from tokens and seconds.

use serde_json::{Map, Value};

use super::Format;

/// Rounding to two decimals may change a figure by this part before it is left out.
const ROUNDING: f64 = 0.005;

/// What a line says of a block's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Title {
    Serving,
    Offline,
}

/// The title of a block, between equals signs.
pub(super) fn title(line: &str) -> Option<Title> {
    let line = line.trim();
    let text = line.trim_matches('=').trim();
    let is_framed = line.starts_with("===") && line.ends_with("===");
    match text {
        "Serving Benchmark Result" if is_framed => Some(Title::Serving),
        "Offline Throughput Benchmark Result" if is_framed => Some(Title::Offline),
        _ => None,
    }
}

/// A block under way.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) line: usize,
    title: Title,
    /// By label, lower case.
    values: Vec<(String, String)>,
}

impl Block {
    pub(super) fn new(line: usize, title: Title) -> Block {
        Block {
            line,
            title,
            values: Vec::new(),
        }
    }

    /// Takes a line; false at the rule that ends the block.
    pub(super) fn line(&mut self, text: &str) -> bool {
        let text = text.trim();
        if text.len() >= 3 && text.bytes().all(|b| b == b'=') {
            return false;
        }
        if let Some((label, value)) = labelled(text) {
            self.values.push((label, value));
        }
        true
    }

    fn has(&self, label: &str) -> bool {
        self.values.iter().any(|(known, _)| known == label)
    }

    /// The block as the fields of the program's result file, and which form that is. `before` are lines that stood before it.
    pub(super) fn fields(self, before: &Preface) -> (Format, Map<String, Value>) {
        let is_sglang = self.has("backend") || self.has("input token throughput (tok/s)");
        let format = match self.title {
            Title::Offline => Format::SglangOfflineThroughputOutput,
            Title::Serving if is_sglang => Format::SglangServingOutput,
            Title::Serving => Format::VllmServeOutput,
        };
        // Older versions of sglang print neither, and write the output length that was asked for.
        let is_new = self.has("total input text tokens") || self.has("peak concurrent requests");
        let mut object = Map::new();
        for (key, value) in &before.0 {
            object.insert((*key).to_owned(), Value::String(value.clone()));
        }
        for (label, value) in self.values {
            let Some(key) = key(format, &label) else {
                continue;
            };
            if key == "total_throughput" && format == Format::SglangServingOutput && !is_new {
                continue;
            }
            if is_told(&key, &value) {
                object.insert(key, Value::String(value));
            }
        }
        if format == Format::VllmServeOutput
            && let Some(model) = object.remove("model")
        {
            object.insert("model_id".to_owned(), model);
        }
        (format, object)
    }
}

/// `Mean TTFT (ms):      7279.56`
fn labelled(text: &str) -> Option<(String, String)> {
    let (label, value) = text.split_once(':')?;
    let value = value.trim();
    (!value.is_empty()).then(|| (label.trim().to_lowercase(), value.to_owned()))
}

/// Whether a value says something: `not set`, and the -1 and -0.00 of what was not measured, do not; nor does what rounding took.
fn is_told(key: &str, value: &str) -> bool {
    if matches!(value, "not set" | "None") {
        return false;
    }
    let Ok(number) = value.parse::<f64>() else {
        return true;
    };
    if number.is_sign_negative() {
        return false;
    }
    !key.ends_with("throughput") || number.is_infinite() || 0.005 / number <= ROUNDING
}

/// The key of a label in the result file of `format`.
fn key(format: Format, label: &str) -> Option<String> {
    let is_offline = format == Format::SglangOfflineThroughputOutput;
    let is_vllm = format == Format::VllmServeOutput;
    let key = match label {
        "backend" => "backend",
        "successful requests" if is_offline => "successful_requests",
        "benchmark duration (s)" if is_offline => "total_latency",
        "successful requests" => "completed",
        "benchmark duration (s)" => "duration",
        "failed requests" => "failed",
        "traffic request rate" | "request rate configured (rps)" => "request_rate",
        "max request concurrency" | "maximum request concurrency" => "max_concurrency",
        "total input tokens" => "total_input_tokens",
        "total generated tokens" => "total_output_tokens",
        "request throughput (req/s)" => "request_throughput",
        "input token throughput (tok/s)" => "input_throughput",
        "output token throughput (tok/s)" => "output_throughput",
        "total token throughput (tok/s)" | "total throughput (tok/s)" if is_vllm => {
            "total_token_throughput"
        }
        "total token throughput (tok/s)" | "total throughput (tok/s)" => "total_throughput",
        "concurrency" => "concurrency",
        "accept length" => "accept_length",
        other => return latency_key(other, is_vllm),
    };
    Some(key.to_owned())
}

/// `mean ttft (ms)` as `mean_ttft_ms`.
fn latency_key(label: &str, is_vllm: bool) -> Option<String> {
    let (statistic, rest) = label.strip_suffix(" (ms)")?.split_once(' ')?;
    let name = match rest {
        "ttft" | "tpot" | "itl" => rest,
        "e2e latency" | "e2el" if is_vllm => "e2el",
        "e2e latency" | "e2el" => "e2e_latency",
        _ => return None,
    };
    matches!(statistic, "mean" | "median" | "p99" | "std").then(|| format!("{statistic}_{name}_ms"))
}

/// What the programs print before their block: the command's arguments, and the load.
#[derive(Debug, Default)]
pub(super) struct Preface(Vec<(&'static str, String)>);

impl Preface {
    /// Takes a line; false if it is of no use.
    pub(super) fn line(&mut self, text: &str) -> bool {
        let text = text.trim();
        if text.contains("Namespace(") {
            self.arguments(text);
            return true;
        }
        let Some((label, value)) = labelled(text) else {
            return false;
        };
        let key = match label.as_str() {
            "traffic request rate" => "request_rate",
            "maximum request concurrency" => "max_concurrency",
            _ => return false,
        };
        self.set(key, &value);
        true
    }

    fn set(&mut self, key: &'static str, value: &str) {
        self.0.retain(|(known, _)| *known != key);
        if is_told(key, value) {
            self.0.push((key, value.to_owned()));
        }
    }

    /// `Namespace(backend='vllm', …)`, as Python's argparse writes itself.
    fn arguments(&mut self, text: &str) {
        const ARGUMENTS: [(&str, &str); 7] = [
            ("model", "model"),
            ("dataset_name", "dataset_name"),
            ("random_input_len", "random_input_len"),
            ("random_output_len", "random_output_len"),
            ("random_range_ratio", "random_range_ratio"),
            ("request_rate", "request_rate"),
            ("max_concurrency", "max_concurrency"),
        ];
        for (argument, key) in ARGUMENTS {
            if let Some(value) = argument_value(text, argument) {
                self.set(key, value);
            }
        }
    }
}

/// The value of `name='…'` or `name=…`, where `name` is a whole name.
fn argument_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let sign = format!("{name}=");
    let (at, _) = text.match_indices(&sign).find(|(at, _)| {
        let before = text.get(..*at).and_then(|t| t.chars().next_back());
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })?;
    let value = text.get(at + sign.len()..)?;
    match value.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next(),
        None => value.split([',', ')']).next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_framed() {
        let framed = "============ Serving Benchmark Result ============";
        assert_eq!(title(framed), Some(Title::Serving));
        let offline = "====== Offline Throughput Benchmark Result =======";
        assert_eq!(title(offline), Some(Title::Offline));
        assert_eq!(title("Serving Benchmark Result"), None);
        assert_eq!(
            title("=================================================="),
            None
        );
    }

    #[test]
    fn arguments_are_whole_names() {
        let text = "benchmark_args=Namespace(served_model=None, model='a/b', max_concurrency=8, request_rate=inf)";
        assert_eq!(argument_value(text, "model"), Some("a/b"));
        assert_eq!(argument_value(text, "max_concurrency"), Some("8"));
        assert_eq!(argument_value(text, "request_rate"), Some("inf"));
        assert_eq!(argument_value(text, "rate"), None);
    }

    #[test]
    fn what_rounding_took_is_left_out() {
        assert!(is_told("request_throughput", "1.00"));
        assert!(!is_told("request_throughput", "0.06"));
        assert!(!is_told("mean_tpot_ms", "-0.00"));
        assert!(!is_told("concurrency", "-1.00"));
        assert!(is_told("mean_tpot_ms", "0.06"));
        assert!(is_told("request_rate", "inf"));
    }
}
