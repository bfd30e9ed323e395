//! What `bench_one_batch` says, ours and sglang's, and both side by side.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use stepscope_profiler::quantity::significant;
use stepscope_profiler::report::Table;
use stepscope_profiler::results::{self, Length, Load, ResultRow};

/// A measured batch.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gpu_check) struct Point {
    /// Requests, tokens of each prompt, tokens that follow.
    pub(in crate::gpu_check) size: [usize; 3],
    /// Seconds.
    prefill: f64,
    /// Seconds; none where nothing follows.
    decode: Option<f64>,
}

/// The points in what `bench_one_batch` wrote or printed, of those with these sizes: sglang writes its lines of JSON at the very end,
/// so that one that is stopped or fails at the last batch has only what it printed, which names batches alone.
pub(in crate::gpu_check) fn of_text(text: &str, sizes: &[[usize; 3]]) -> Vec<Point> {
    // What is no result at all has no points.
    let Ok(import) = results::parse("sglang's results", text.as_bytes()) else {
        return Vec::new();
    };
    let point = |row: &ResultRow| {
        let Load::StaticBatch(batch) = row.load else {
            return None;
        };
        let same = |length: Option<Length>, key: &str, tokens: usize| {
            let is_said = !row.derived.contains(&key);
            length.is_none_or(|length| !is_said || length.tokens == tokens as f64)
        };
        let size = sizes.iter().find(|[of_batch, input, output]| {
            *of_batch as u64 == batch
                && same(row.input_len, "input_len", *input)
                && same(row.output_len, "output_len", *output)
        });
        Some(Point {
            size: *size?,
            prefill: row.ttft.as_ref()?.median_s?,
            decode: row.tpot.as_ref().and_then(|tpot| tpot.median_s),
        })
    };
    import.rows.iter().filter_map(point).collect()
}

/// The points of a model: those of its file, or else those that were printed.
pub(in crate::gpu_check) fn of_files(
    lines: &Path,
    printed: &Path,
    sizes: &[[usize; 3]],
) -> Vec<Point> {
    let points = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        of_text(&text, sizes)
    };
    let written = points(lines);
    match written.is_empty() {
        true => points(printed),
        false => written,
    }
}

/// A batch that sglang measured, and ours of the same size, if there is one.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gpu_check) struct Pair {
    model: String,
    sglang: Point,
    ours: Option<Point>,
}

/// Each of sglang's points with ours.
pub(in crate::gpu_check) fn pairs(model: &str, ours: &[Point], sglang: &[Point]) -> Vec<Pair> {
    let pair = |point: &Point| Pair {
        model: model.to_owned(),
        sglang: point.clone(),
        ours: ours.iter().rfind(|ours| ours.size == point.size).cloned(),
    };
    sglang.iter().map(pair).collect()
}

impl Pair {
    /// Our seconds by sglang's, of prefill and of a decode step: above 1, ours is slower.
    fn ratios(&self) -> [Option<f64>; 2] {
        let Some(ours) = &self.ours else {
            return [None, None];
        };
        let decode = ours.decode.zip(self.sglang.decode);
        [
            Some(ours.prefill / self.sglang.prefill),
            decode.map(|(ours, sglang)| ours / sglang),
        ]
    }

    pub(in crate::gpu_check) fn to_json(&self) -> Value {
        let [batch, input, output] = self.sglang.size;
        let seconds = |point: &Point| json!({ "prefill_latency": point.prefill, "median_decode_latency": point.decode });
        let [prefill, decode] = self.ratios();
        json!({
            "model": self.model,
            "batch_size": batch,
            "input_len": input,
            "output_len": output,
            "ours": self.ours.as_ref().map(seconds),
            "sglang": seconds(&self.sglang),
            "ours_by_sglang": { "prefill": prefill, "decode": decode },
        })
    }
}

/// The pairs as a table, or nothing where there are none.
pub(in crate::gpu_check) fn table(pairs: &[Pair]) -> Option<String> {
    if pairs.is_empty() {
        return None;
    }
    let header = [
        "model",
        "batch",
        "in",
        "out",
        "prefill, ms\nours",
        "\nsglang",
        "ours\nby sglang",
        "decode step, ms\nours",
        "\nsglang",
        "ours\nby sglang",
    ];
    let mut table = Table::new("lrrrrrrrrr", header.map(str::to_owned));
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| significant(v, 3));
    let ms = |seconds: Option<f64>| number(seconds.map(|s| 1e3 * s));
    for pair in pairs {
        let [batch, input, output] = pair.sglang.size;
        let [prefill, decode] = pair.ratios();
        let ours = pair.ours.as_ref();
        table.row([
            pair.model.clone(),
            batch.to_string(),
            input.to_string(),
            output.to_string(),
            ms(ours.map(|ours| ours.prefill)),
            ms(Some(pair.sglang.prefill)),
            number(prefill),
            ms(ours.and_then(|ours| ours.decode)),
            ms(pair.sglang.decode),
            number(decode),
        ]);
    }
    Some(table.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    // What sglang 0.5.11 printed on a CPU, and the lines of its file, shortened.
    const PRINTED: &str = "\
max_total_num_tokens=196755
Warmup ...
Prefill. latency: 2.95134 s, throughput:     86.74 token/s
Total. latency:  2.951 s, throughput:     87.08 token/s
Benchmark ...
Prefill. latency: 2.98319 s, throughput:     85.81 token/s
Decode 0. Batch size: 1, latency: 0.05090 s, throughput:     19.65 token/s
Decode 1. Batch size: 1, latency: 0.04716 s, throughput:     21.21 token/s
Decode.  median latency: 0.04780 s, median throughput:     20.92 token/s
Total. latency:  4.477 s, throughput:     64.33 token/s
Prefill. latency: 11.47177 s, throughput:     89.26 token/s
";
    const LINES: &str = r#"{"run_name": "cpu", "batch_size": 1, "input_len": 256, "output_len": 32, "prefill_latency": 2.983191598000303, "prefill_throughput": 85.8141328138636, "median_decode_latency": 0.04779535699981352, "median_decode_throughput": 20.922534379310143, "total_latency": 4.4770437709985345, "overall_throughput": 64.3281626741313}
"#;
    const SIZES: [[usize; 3]; 2] = [[1, 256, 32], [4, 256, 32]];

    #[track_caller]
    fn check(points: &[Point], expected: &[([usize; 3], f64, Option<f64>)]) {
        let found: Vec<_> = points
            .iter()
            .map(|p| (p.size, p.prefill, p.decode))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_of_json_are_points() {
        check(
            &of_text(LINES, &SIZES),
            &[([1, 256, 32], 2.983191598000303, Some(0.04779535699981352))],
        );
        assert!(of_text(LINES, &[[1, 1024, 32], [4, 256, 32]]).is_empty());
        assert!(of_text("", &SIZES).is_empty());
        assert!(of_text("[1]\nnot JSON\n{\"batch_size\": 1}\n", &SIZES).is_empty());
    }

    #[test]
    fn printed_lines_are_points_as_far_as_they_go() {
        check(
            &of_text(PRINTED, &SIZES),
            &[([1, 256, 32], 2.98319, Some(0.0478))],
        );
        assert!(of_text("Warmup ...\nTotal. latency: 1 s\n", &SIZES).is_empty());
    }

    #[test]
    fn pairs_are_of_the_same_size() {
        let point = |batch, prefill, decode| Point {
            size: [batch, 1024, 64],
            prefill,
            decode,
        };
        let sglang = [point(1, 0.02, Some(0.004)), point(8, 0.1, Some(0.008))];
        // Of two runs in one file, the later one.
        let ours = [point(8, 9.0, None), point(8, 0.15, Some(0.004))];
        let pairs = pairs("m", &ours, &sglang);
        assert_eq!(pairs[0].ours, None);
        assert_eq!(pairs[1].ratios(), [Some(1.4999999999999998), Some(0.5)]);
        let json = pairs[1].to_json();
        assert_eq!(json["ours_by_sglang"]["decode"], 0.5);
        assert_eq!(json["sglang"]["prefill_latency"], 0.1);
        let table = table(&pairs).unwrap();
        let last = table.lines().last().unwrap();
        let cells: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "m", "8", "1024", "64", "150", "100", "1.50", "4.00", "8.00", "0.500"
            ]
        );
        assert_eq!(super::table(&[]), None);
    }
}
