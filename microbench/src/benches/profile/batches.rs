//! What ran while a benchmark was profiled, over time: its batches, and the kernels of which CUPTI kept records.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

/// As many are kept of each: a trace of more is slow to open.
const MOST: usize = 20_000;

/// One call of a benchmark: so many iterations in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    /// Since the profile began.
    pub(super) start_ns: u64,
    pub(super) wall_ns: u64,
    pub(super) iterations: u64,
    /// By the benchmark's own timer, of all iterations; none where it failed.
    pub(super) measured_ns: Option<f64>,
}

/// One kernel by CUPTI's clock.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct KernelSpan {
    pub(in super::super) name: Arc<str>,
    pub(in super::super) stream: u32,
    pub(in super::super) start_ns: u64,
    pub(in super::super) end_ns: u64,
}

/// Everything of one benchmark.
#[derive(Debug)]
pub(super) struct Timeline {
    begun: Instant,
    batches: Vec<Batch>,
    kernels: Vec<KernelSpan>,
}

impl Timeline {
    pub(super) fn begin() -> Timeline {
        Timeline {
            begun: Instant::now(),
            batches: Vec::new(),
            kernels: Vec::new(),
        }
    }

    pub(super) fn add_batch(&mut self, start: Instant, iterations: u64, measured_ns: f64) {
        if self.batches.len() < MOST {
            self.batches.push(Batch {
                start_ns: start.duration_since(self.begun).as_nanos() as u64,
                wall_ns: start.elapsed().as_nanos() as u64,
                iterations,
                measured_ns: (measured_ns > 0.0).then_some(measured_ns),
            });
        }
    }

    pub(super) fn add_kernels(&mut self, kernels: impl Iterator<Item = KernelSpan>) {
        let room = MOST - self.kernels.len();
        self.kernels.extend(kernels.take(room));
    }

    pub(super) fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// `kernel nanoseconds` for each kernel by name, the longest first.
    pub(super) fn kernel_stacks(&self, id: &str) -> Vec<String> {
        let mut stacks: Vec<(&str, u64)> = Vec::new();
        for kernel in &self.kernels {
            let ns = kernel.end_ns.saturating_sub(kernel.start_ns);
            match stacks.iter_mut().find(|(name, _)| *name == &*kernel.name) {
                Some((_, sum)) => *sum += ns,
                None => stacks.push((&kernel.name, ns)),
            }
        }
        stacks.sort_by_key(|&(_, ns)| std::cmp::Reverse(ns));
        let plain = |name: &str| name.replace([';', '\n'], ",");
        let line = |(name, ns): &(&str, u64)| format!("{};{} {ns}", plain(id), plain(name));
        stacks.iter().map(line).collect()
    }

    /// Writes a trace for ui.perfetto.dev and chrome://tracing. Kernels have a clock of their own: it begins with the first of them.
    pub(super) fn write_trace(
        &self,
        id: &str,
        timer: &str,
        file: &mut impl Write,
    ) -> Result<(), String> {
        const HOST: u64 = 1;
        const DEVICE: u64 = 2;
        let us = |ns: u64| ns as f64 / 1e3;
        let named = |process: u64, name: &str| json!({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}});
        let mut events: Vec<Value> = vec![named(HOST, "host: batches of iterations")];
        events.extend(self.batches.iter().map(|batch| {
            let each = batch
                .measured_ns
                .map(|ns| ns / batch.iterations.max(1) as f64);
            json!({
                "ph": "X", "name": id, "pid": HOST, "tid": 1,
                "ts": us(batch.start_ns), "dur": us(batch.wall_ns),
                "args": {"iterations": batch.iterations, "timer": timer, "ns per iteration": each},
            })
        }));
        if let Some(first) = self.kernels.iter().map(|kernel| kernel.start_ns).min() {
            events.push(named(
                DEVICE,
                "GPU: kernels by stream, from the first on (CUPTI)",
            ));
            events.extend(self.kernels.iter().map(|kernel| {
                json!({
                    "ph": "X", "name": &*kernel.name, "pid": DEVICE, "tid": kernel.stream,
                    "ts": us(kernel.start_ns - first),
                    "dur": us(kernel.end_ns.saturating_sub(kernel.start_ns)),
                })
            }));
        }
        let trace = json!({"displayTimeUnit": "ns", "traceEvents": events});
        serde_json::to_writer(file, &trace).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(name: &str, stream: u32, [start_ns, end_ns]: [u64; 2]) -> KernelSpan {
        KernelSpan {
            name: name.into(),
            stream,
            start_ns,
            end_ns,
        }
    }

    #[test]
    fn kernels_lie_on_their_streams_from_the_first_on() {
        let mut timeline = Timeline::begin();
        timeline.add_batch(Instant::now(), 3, 6e3);
        timeline.add_kernels(
            [
                kernel("gemv", 7, [5_000, 7_000]),
                kernel("splitK<a;b>", 8, [6_000, 6_500]),
                kernel("gemv", 7, [8_000, 9_000]),
            ]
            .into_iter(),
        );
        assert_eq!(
            timeline.kernel_stacks("gemv/cuda/1x2"),
            ["gemv/cuda/1x2;gemv 3000", "gemv/cuda/1x2;splitK<a,b> 500"]
        );
        let mut text = Vec::new();
        timeline
            .write_trace("gemv/cuda/1x2", "cupti", &mut text)
            .unwrap();
        let trace: Value = serde_json::from_slice(&text).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let of = |process: u64| -> Vec<&Value> {
            let is_its = |event: &&Value| event["ph"] == "X" && event["pid"] == process;
            events.iter().filter(is_its).collect()
        };
        assert_eq!(of(1)[0]["args"]["ns per iteration"], 2e3);
        let starts: Vec<f64> = of(2)
            .iter()
            .filter_map(|event| event["ts"].as_f64())
            .collect();
        assert_eq!(starts, [0.0, 1.0, 3.0]);
        assert_eq!(of(2)[1]["tid"], 8);
    }

    #[test]
    fn a_long_profile_keeps_its_beginning() {
        let mut timeline = Timeline::begin();
        timeline.add_kernels((0..MOST as u64 + 5).map(|i| kernel("k", 1, [i, i + 1])));
        timeline.add_kernels(std::iter::once(kernel("k", 1, [0, 1])));
        assert_eq!(timeline.kernel_stacks("x"), [format!("x;k {MOST}")]);
        timeline.add_batch(Instant::now(), 1, 0.0);
        assert_eq!(timeline.batches()[0].measured_ns, None, "it failed");
    }
}
