//! What sglang's `bench_one_batch` prints and writes, byte for byte.

use std::fmt::Write as _;
use std::str::FromStr;

use stepscope_profiler::python;

/// Which version of sglang's `bench_one_batch` to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compat {
    /// v0.4.2 (February 2025): every prompt token is id 1, the warm-up decodes 8 tokens, `Decode.  latency: …`.
    #[default]
    V042,
    /// 2026: random prompts below id 10000, the warm-up decodes min(32, output length), `Decode 0. Batch size: …`.
    Latest,
}

impl Compat {
    /// `v0.4.2` or `latest`.
    pub const fn name(self) -> &'static str {
        match self {
            Compat::V042 => "v0.4.2",
            Compat::Latest => "latest",
        }
    }

    /// Output length of the warm-up.
    pub fn warmup_output_len(self, first_output_len: usize) -> usize {
        match self {
            Compat::V042 => 8,
            Compat::Latest => first_output_len.min(32),
        }
    }
}

impl FromStr for Compat {
    type Err = String;

    fn from_str(name: &str) -> Result<Compat, String> {
        match name {
            "v0.4.2" | "0.4.2" => Ok(Compat::V042),
            "latest" => Ok(Compat::Latest),
            _ => Err(format!(
                "{name:?} is not a version this program follows; use v0.4.2 or latest"
            )),
        }
    }
}

/// The figures of one measured point, in sglang's terms. Latencies in seconds.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the fields are sglang's keys
pub struct Measurement {
    pub run_name: String,
    pub batch_size: usize,
    pub input_len: usize,
    pub output_len: usize,
    pub prefill_latency: f64,
    /// Absent when `output_len` is 1.
    pub median_decode_latency: Option<f64>,
    pub total_latency: f64,
}

impl Measurement {
    /// Input tokens per second of prefill.
    pub fn prefill_throughput(&self) -> f64 {
        (self.input_len as f64 * self.batch_size as f64) / self.prefill_latency
    }

    /// Tokens per second of the median decode step.
    pub fn median_decode_throughput(&self) -> Option<f64> {
        self.median_decode_latency
            .map(|latency| self.batch_size as f64 / latency)
    }

    /// Input and output tokens together, per second of all timed steps.
    pub fn overall_throughput(&self) -> f64 {
        ((self.input_len + self.output_len) as f64 * self.batch_size as f64) / self.total_latency
    }

    /// One line of the result file, without its newline: sglang's keys, in its order, as Python's `json.dumps` writes
    /// them.
    pub fn json_line(&self) -> String {
        let mut line = format!(
            "{{\"run_name\": {}, \"batch_size\": {}, \"input_len\": {}, \"output_len\": {}",
            python::string(&self.run_name),
            self.batch_size,
            self.input_len,
            self.output_len
        );
        let mut float = |key: &str, value: f64| {
            let _ = write!(line, ", \"{key}\": {}", python::float(value)); // writing to a String cannot fail
        };
        float("prefill_latency", self.prefill_latency);
        float("prefill_throughput", self.prefill_throughput());
        if let Some((latency, throughput)) = self
            .median_decode_latency
            .zip(self.median_decode_throughput())
        {
            float("median_decode_latency", latency);
            float("median_decode_throughput", throughput);
        }
        float("total_latency", self.total_latency);
        float("overall_throughput", self.overall_throughput());
        line.push('}');
        line
    }

    /// `Prefill. latency: …`
    pub fn prefill_line(&self) -> String {
        format!(
            "Prefill. latency: {:6.5} s, throughput: {:9.2} token/s",
            self.prefill_latency,
            self.prefill_throughput()
        )
    }

    /// `Decode.  median latency: …`, absent when nothing was decoded.
    pub fn median_decode_line(&self) -> Option<String> {
        let latency = self.median_decode_latency?;
        Some(format!(
            "Decode.  median latency: {latency:6.5} s, median throughput: {:9.2} token/s",
            self.batch_size as f64 / latency
        ))
    }

    /// `Total. latency: …`
    pub fn total_line(&self) -> String {
        format!(
            "Total. latency: {:6.3} s, throughput: {:9.2} token/s",
            self.total_latency,
            self.overall_throughput()
        )
    }
}

/// The line of one decode step.
pub fn decode_line(compat: Compat, step: usize, batch_size: usize, latency: f64) -> String {
    let throughput = batch_size as f64 / latency;
    match compat {
        Compat::V042 => {
            format!("Decode.  latency: {latency:6.5} s, throughput: {throughput:9.2} token/s")
        }
        Compat::Latest => format!(
            "Decode {step}. Batch size: {batch_size}, latency: {latency:6.5} s, throughput: {throughput:9.2} token/s"
        ),
    }
}

/// Whether sglang prints the line of decode step `step`: the first five, and every `log_decode_step`-th when that is not 0.
pub fn prints_decode_step(step: usize, log_decode_step: usize) -> bool {
    step < 5 || (log_decode_step > 0 && step.is_multiple_of(log_decode_step))
}

/// The line of a point that does not fit the KV pool.
pub fn skipping_line(batch_size: usize, input_len: usize, output_len: usize) -> String {
    format!("skipping ({batch_size}, {input_len}, {output_len}) due to max batch size limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first decoded point of a real run of sglang: Qwen2.5-32B, TP 8, batch 4, 1024 in, 1024 out.
    fn real_point() -> Measurement {
        Measurement {
            run_name: "test_run".to_owned(),
            batch_size: 4,
            input_len: 1024,
            output_len: 1024,
            prefill_latency: 3.58247447013855,
            median_decode_latency: Some(0.018887758255004883),
            total_latency: 22.969415187835693,
        }
    }

    #[test]
    fn lines_are_those_of_a_real_run() {
        let point = real_point();
        assert_eq!(
            point.prefill_line(),
            "Prefill. latency: 3.58247 s, throughput:   1143.34 token/s"
        );
        assert_eq!(
            point.median_decode_line().unwrap(),
            "Decode.  median latency: 0.01889 s, median throughput:    211.78 token/s"
        );
        assert_eq!(
            point.total_line(),
            "Total. latency: 22.969 s, throughput:    356.65 token/s"
        );
        assert_eq!(
            decode_line(Compat::V042, 0, 4, 2.03403),
            "Decode.  latency: 2.03403 s, throughput:      1.97 token/s"
        );
        assert_eq!(
            decode_line(Compat::Latest, 3, 4, 0.11750),
            "Decode 3. Batch size: 4, latency: 0.11750 s, throughput:     34.04 token/s"
        );
        assert_eq!(
            skipping_line(64, 1024, 16),
            "skipping (64, 1024, 16) due to max batch size limit"
        );
    }

    #[test]
    fn json_lines_are_those_of_real_runs() {
        assert_eq!(
            real_point().json_line(),
            "{\"run_name\": \"test_run\", \"batch_size\": 4, \"input_len\": 1024, \"output_len\": 1024, \
             \"prefill_latency\": 3.58247447013855, \"prefill_throughput\": 1143.3438072320973, \
             \"median_decode_latency\": 0.018887758255004883, \"median_decode_throughput\": 211.77738225975435, \
             \"total_latency\": 22.969415187835693, \"overall_throughput\": 356.64817467091535}"
        );
        let prefill_only = Measurement {
            run_name: "cpu".to_owned(),
            batch_size: 1,
            input_len: 256,
            output_len: 1,
            prefill_latency: 2.9737280359995566,
            median_decode_latency: None,
            total_latency: 2.9737280359995566,
        };
        assert_eq!(
            prefill_only.json_line(),
            "{\"run_name\": \"cpu\", \"batch_size\": 1, \"input_len\": 256, \"output_len\": 1, \
             \"prefill_latency\": 2.9737280359995566, \"prefill_throughput\": 86.08722684149257, \
             \"total_latency\": 2.9737280359995566, \"overall_throughput\": 86.42350507134215}"
        );
    }

    #[test]
    fn the_first_five_decode_steps_are_printed_and_then_every_nth() {
        let printed = |n| {
            (0..20)
                .filter(|&i| prints_decode_step(i, n))
                .collect::<Vec<_>>()
        };
        assert_eq!(printed(0), [0, 1, 2, 3, 4]);
        assert_eq!(printed(8), [0, 1, 2, 3, 4, 8, 16]);
    }
}
