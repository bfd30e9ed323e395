//! What sglang's `bench_one_batch` prints. The lines hold neither batch size nor lengths: they follow from latency × throughput,
//! where rounding leaves one whole number.

use super::row::{Basis, Framework, Latency, Length, Load, Rates, ResultRow};

/// What a line of the output says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Line {
    Warmup,
    Benchmark,
    Prefill(Figures),
    DecodeStep {
        batch_size: Option<u64>,
        figures: Figures,
    },
    DecodeMedian(Figures),
    Total(Figures),
    /// A point of the sweep that did not fit.
    Skipped,
    /// Tokens that the KV pool has room for.
    Pool(u64),
}

/// A latency in seconds and a throughput in tokens per second, as printed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Figures {
    seconds: f64,
    tokens_per_s: f64,
}

/// Reads a line; absent if it is none of the program's.
pub(super) fn line(text: &str) -> Option<Line> {
    let text = text.trim_end();
    match text {
        "Warmup ..." => return Some(Line::Warmup),
        "Benchmark ..." => return Some(Line::Benchmark),
        _ => {}
    }
    if let Some(tokens) = text.strip_prefix("max_total_num_tokens=") {
        return tokens.trim().parse().ok().map(Line::Pool);
    }
    if text.starts_with("skipping (") {
        return Some(Line::Skipped);
    }
    if let Some(rest) = text.strip_prefix("Prefill. latency:") {
        return figures(rest, "throughput:").map(Line::Prefill);
    }
    if let Some(rest) = text.strip_prefix("Total. latency:") {
        return figures(rest, "throughput:").map(Line::Total);
    }
    if let Some(rest) = text.strip_prefix("Decode.  median latency:") {
        return figures(rest, "median throughput:").map(Line::DecodeMedian);
    }
    if let Some(rest) = text.strip_prefix("Decode.  latency:") {
        let figures = figures(rest, "throughput:")?;
        return Some(Line::DecodeStep {
            batch_size: None,
            figures,
        });
    }
    let (index, rest) = text.strip_prefix("Decode ")?.split_once(". Batch size: ")?;
    index.parse::<u64>().ok()?;
    let (batch_size, rest) = rest.split_once(", latency:")?;
    Some(Line::DecodeStep {
        batch_size: Some(batch_size.parse().ok()?),
        figures: figures(rest, "throughput:")?,
    })
}

/// ` 0.02052 s, throughput:    194.90 token/s`
fn figures(rest: &str, name: &str) -> Option<Figures> {
    let (seconds, rest) = rest.split_once(" s, ")?;
    let tokens = rest
        .trim_start()
        .strip_prefix(name)?
        .strip_suffix(" token/s")?;
    let number = |text: &str| {
        text.trim()
            .parse::<f64>()
            .ok()
            .filter(|n| *n >= 0.0 && *n < 1e30)
    };
    Some(Figures {
        seconds: number(seconds)?,
        tokens_per_s: number(tokens)?,
    })
}

impl Figures {
    /// The tokens that the figures are of, as a range: `decimals` are those of the latency, the throughput has two.
    fn tokens(self, decimals: i32) -> (f64, f64) {
        let (seconds, tokens) = (0.5 * 0.1_f64.powi(decimals), 0.005);
        (
            (self.seconds - seconds).max(0.0) * (self.tokens_per_s - tokens).max(0.0),
            (self.seconds + seconds) * (self.tokens_per_s + tokens),
        )
    }
}

/// The only whole number in a range.
fn only_whole((low, high): (f64, f64)) -> Option<u64> {
    let first = low.ceil().max(1.0);
    (first <= high && first + 1.0 > high && first < 1e15).then_some(first as u64)
}

/// One measurement under way: the lines from `Prefill.` to `Total.`.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) line: usize,
    prefill: Figures,
    batch_size: Option<u64>,
    steps: Vec<f64>,
    median: Option<Figures>,
}

impl Measurement {
    pub(super) fn new(line: usize, prefill: Figures) -> Measurement {
        Measurement {
            line,
            prefill,
            batch_size: None,
            steps: Vec::new(),
            median: None,
        }
    }

    pub(super) fn step(&mut self, batch_size: Option<u64>, figures: Figures) {
        self.batch_size = batch_size.or(self.batch_size);
        self.batch_size = self.batch_size.or_else(|| only_whole(figures.tokens(5)));
        self.steps.push(figures.seconds);
    }

    pub(super) fn median(&mut self, figures: Figures) {
        self.batch_size = self.batch_size.or_else(|| only_whole(figures.tokens(5)));
        self.median = Some(figures);
    }

    /// The row of the measurement, once its `Total.` is read.
    ///
    /// # Errors
    /// When a latency was rounded to nothing.
    pub(super) fn finish(self, total: Figures) -> Result<ResultRow, String> {
        if self.prefill.seconds <= 0.0 || total.seconds <= 0.0 {
            return Err("its latency is 0 s; a step takes longer".to_owned());
        }
        let mut row = ResultRow::new(Framework::Sglang, "bench_one_batch");
        row.line = Some(self.line);
        // Without decode steps the total is the prefill, which has more digits.
        let decoded = self.median.is_some() || !self.steps.is_empty();
        let (all, decimals) = if decoded {
            (total, 3)
        } else {
            (
                Figures {
                    seconds: self.prefill.seconds,
                    ..total
                },
                5,
            )
        };
        let prompt = self.prefill.tokens(5);
        let (low, high) = all.tokens(decimals);
        let batch_size = self.batch_size.or_else(|| {
            (!decoded)
                .then(|| only_whole((low - prompt.1, high - prompt.0)))
                .flatten()
        });
        if let Some(batch_size) = batch_size.filter(|&n| n > 0) {
            let batch = batch_size as f64;
            row.load = Load::StaticBatch(batch_size);
            if self.steps.is_empty() || self.batch_size.is_none() {
                row.derived.push("load");
            }
            let input = only_whole((prompt.0 / batch, prompt.1 / batch));
            let output = input.map(|n| n as f64).and_then(|input| {
                only_whole(((low / batch - input).max(0.0), high / batch - input))
            });
            row.input_len = input.and_then(super::sglang::exact);
            row.output_len = match output {
                Some(output) => super::sglang::exact(output),
                None if !decoded => super::sglang::exact(1),
                None => None,
            };
        }
        note_lengths(&mut row);
        row.duration_s = Some(all.seconds);
        row.ttft = Some(Latency::single(Basis::PrefillStep, self.prefill.seconds));
        row.tpot = self
            .median
            .filter(|m| m.seconds > 0.0)
            .map(|median| Latency {
                median_s: Some(median.seconds),
                ..Latency::new(Basis::DecodeStep)
            });
        row.e2e = Some(Latency::single(Basis::SumOfSteps, all.seconds));
        row.first_decode_steps_s = self.steps;
        row.rates = Rates {
            prefill_tokens_per_s: Some(self.prefill.tokens_per_s),
            prefill_basis: Some(Basis::PrefillStep),
            decode_tokens_per_s: row.tpot.as_ref().and(self.median).map(|m| m.tokens_per_s),
            decode_basis: row.tpot.as_ref().map(|_| Basis::DecodeStep),
            total_tokens_per_s: Some(total.tokens_per_s),
            ..Rates::default()
        };
        Ok(row)
    }
}

fn note_lengths(row: &mut ResultRow) {
    let missing: Vec<&str> = [
        (row.load == Load::Unknown, "batch size"),
        (row.input_len.is_none(), "input length"),
        (row.output_len.is_none(), "output length"),
    ]
    .into_iter()
    .filter_map(|(is_missing, name)| is_missing.then_some(name))
    .collect();
    let known: [(Option<Length>, &'static str); 2] =
        [(row.input_len, "input_len"), (row.output_len, "output_len")];
    row.derived.extend(
        known
            .into_iter()
            .filter(|(length, _)| length.is_some())
            .map(|(_, name)| name),
    );
    if !missing.is_empty() {
        row.remarks.push(format!(
            "Its {} do not follow from the rounded figures of these lines; the result file has them.",
            missing.join(" and ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_lines() {
        let figures = Figures {
            seconds: 0.02052,
            tokens_per_s: 194.9,
        };
        for (text, expected) in [
            ("Warmup ...", Some(Line::Warmup)),
            (
                "Prefill. latency: 0.02052 s, throughput:    194.90 token/s",
                Some(Line::Prefill(figures)),
            ),
            (
                "Decode.  latency: 0.02052 s, throughput:    194.90 token/s",
                Some(Line::DecodeStep {
                    batch_size: None,
                    figures,
                }),
            ),
            (
                "Decode 3. Batch size: 4, latency: 0.02052 s, throughput:    194.90 token/s",
                Some(Line::DecodeStep {
                    batch_size: Some(4),
                    figures,
                }),
            ),
            (
                "Decode.  median latency: 0.02052 s, median throughput:    194.90 token/s",
                Some(Line::DecodeMedian(figures)),
            ),
            (
                "Total. latency: 0.02052 s, throughput:    194.90 token/s",
                Some(Line::Total(figures)),
            ),
            ("Total. latency: 0.02052 s, through", None),
            ("Prefill. latency: -1 s, throughput: 1 token/s", None),
            (
                "Decode x. Batch size: 4, latency: 1 s, throughput: 1 token/s",
                None,
            ),
        ] {
            assert_eq!(line(text), expected, "{text}");
        }
    }

    #[test]
    fn rounding_leaves_one_whole_number_or_none() {
        let step = |seconds, tokens_per_s| Figures {
            seconds,
            tokens_per_s,
        };
        assert_eq!(only_whole(step(0.01889, 211.78).tokens(5)), Some(4));
        assert_eq!(only_whole(step(3.58247, 1143.34).tokens(5)), Some(4096));
        assert_eq!(only_whole(step(0.00001, 400_000.0).tokens(5)), None);
        assert_eq!(only_whole((2.2, 2.8)), None);
        assert_eq!(only_whole((0.0, 0.5)), None);
    }
}
