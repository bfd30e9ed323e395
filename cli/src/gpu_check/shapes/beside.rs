//! What is measured beside the shapes: whole decode steps, ours and PyTorch's, and Triton's matrix products. Each side runs in a
//! process of its own, one behind the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Map, Value, json};
use stepscope_microbench::peers::python::{ending, telling_line, wait};
use stepscope_microbench::peers::torch::{self, Decoder, Task};
use stepscope_microbench::{Sample, Series};
use stepscope_profiler::quantity::significant;
use stepscope_profiler::report::Table;
use stepscope_profiler::{Point, Record, StepKind, Timer, gpus};

use super::list::{Operation, shapes};
use super::{Row, floor_us, median_us, times_to_json};
use crate::output::Failure;

/// The model, and how many layers of it: all of them would take most of the time to compile, and tell no more of a layer.
const MODEL: &str = "qwen2.5-7b";
const LAYERS: usize = 4;
/// The requests of a step.
const BATCHES: [usize; 3] = [1, 8, 64];
/// Tokens of each prompt, and of each answer.
const INPUT: usize = 1024;
const OUTPUT: usize = 33;
/// Keys that a request attends to in PyTorch's step: as many as in ours on the average.
const POSITIONS: usize = INPUT + OUTPUT / 2;
/// The product that Triton is asked for.
const PRODUCT: &str = "gate_up";
/// What our steps may take.
const OURS: Duration = Duration::from_secs(25);

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    lines: Vec<Line>,
    remarks: Vec<String>,
}

/// Ours and a peer's.
#[derive(Debug)]
struct Line {
    what: String,
    shape: String,
    peer: &'static str,
    ours: Option<Series>,
    theirs: Result<Series, String>,
    /// The least time by the data sheet, µs.
    floor_us: Option<f64>,
}

/// Measures all of it on GPU `ordinal`, in about `limit`.
pub(super) fn measure(
    rows: &[Row],
    ordinal: usize,
    l2_bytes: u64,
    data_sheet: Option<&gpus::Gpu>,
    limit: Duration,
) -> Result<Beside, Failure> {
    let ours = our_steps(ordinal, OURS.min(limit / 2));
    let left = limit.saturating_sub(OURS.min(limit / 2));
    let decoder = decoder()?;
    let products: Vec<&Row> = rows.iter().filter(|row| is_product(row)).collect();
    let tasks = tasks(decoder, &products);
    let answer = torch::measure(&tasks, ordinal, l2_bytes, left);
    Ok(gather(&tasks, &products, ours, answer, data_sheet))
}

fn is_product(row: &Row) -> bool {
    let is_wanted = matches!(row.shape.work, Operation::Gemm { name: PRODUCT, .. });
    is_wanted && row.shape.model == MODEL && row.ours_us().is_some()
}

fn overrides() -> Map<String, Value> {
    let layers = ("num_hidden_layers".to_owned(), json!(LAYERS));
    [layers].into_iter().collect()
}

fn decoder() -> Result<Decoder, Failure> {
    let config = crate::gpu_check::config(MODEL, &overrides())?;
    Ok(Decoder {
        layers: LAYERS,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        vocab_size: config.vocab_size,
    })
}

/// Eager steps first, then products, then what takes long to compile.
fn tasks(decoder: Decoder, products: &[&Row]) -> Vec<Task> {
    let steps = |is_compiled| {
        BATCHES.map(|batch| Task::DecodeStep {
            decoder,
            batch,
            positions: POSITIONS,
            is_compiled,
        })
    };
    let products = products.iter().filter_map(|row| match row.shape.work {
        Operation::Gemm { m, n, k, .. } => Some(Task::TritonProduct { m, n, k }),
        Operation::Attention { .. } => None,
    });
    let eager = steps(false).into_iter();
    eager.chain(products).chain(steps(true)).collect()
}

/// Our decode steps by the number of their requests, from `one-batch` in a process of its own.
fn our_steps(ordinal: usize, limit: Duration) -> Result<BTreeMap<usize, Series>, String> {
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let program = std::env::current_exe().map_err(|e| format!("this program's file: {e}"))?;
    let said = folder.path().join("stderr");
    let stderr = File::create(&said).map_err(|e| format!("{}: {e}", said.display()))?;
    let run = folder.path().join("run");
    let mut child = Command::new(&program)
        .args(arguments(&run, ordinal))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(|e| format!("{} cannot be started: {e}", program.display()))?;
    match wait(&mut child, limit) {
        None => {
            return Err(format!(
                "one-batch was stopped after {:.0} s",
                limit.as_secs_f64()
            ));
        }
        Some(status) if !status.success() => {
            let text = fs::read_to_string(&said).unwrap_or_default();
            return Err(format!(
                "one-batch: {}: {}",
                ending(status),
                telling_line(&text)
            ));
        }
        Some(_) => {}
    }
    let record = Record::read(&run).map_err(|e| e.to_string())?;
    Ok(record.points.iter().map(decode_steps).collect())
}

fn arguments(out: &Path, ordinal: usize) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "one-batch",
        "--model-path",
        MODEL,
        "--load-format",
        "dummy",
        "--result-filename",
        "",
        "-q",
        "--out",
    ]
    .map(str::to_owned)
    .to_vec();
    let overrides = Value::Object(overrides()).to_string();
    arguments.push(out.display().to_string());
    arguments.extend(["--device".to_owned(), format!("cuda:{ordinal}")]);
    arguments.extend(["--json-model-override-args".to_owned(), overrides]);
    arguments.extend(["--input".to_owned(), INPUT.to_string()]);
    arguments.extend([
        "--output".to_owned(),
        OUTPUT.to_string(),
        "--batch".to_owned(),
    ]);
    arguments.extend(BATCHES.map(|batch| batch.to_string()));
    arguments
}

/// The wall times of a point's decode steps but the first of each repetition, which may record a graph.
fn decode_steps(point: &Point) -> (usize, Series) {
    let steps = point.repetitions.iter().flat_map(|r| &r.steps);
    let steps = steps.filter(|step| step.kind == StepKind::Decode && step.index > 0);
    let samples = steps.map(|step| Sample {
        time_ns: step.wall_ns as f64,
        sm_clock_hz: None,
    });
    let series = Series::new(Timer::Wall, 1, samples.collect());
    (point.batch_size, series)
}

/// What the products and the attention of a step's layers, and its logits, take at least by the data sheet, µs.
fn step_floor_us(gpu: &gpus::Gpu, batch: usize) -> Option<f64> {
    let config = crate::gpu_check::config(MODEL, &overrides()).ok()?;
    let parts = shapes(MODEL, &config, &[], &[batch], POSITIONS);
    let floors = parts.iter().map(|shape| {
        let times = if shape.work.name() == "lm_head" {
            1
        } else {
            LAYERS
        };
        let cost = shape.cost();
        times as f64 * floor_us(gpu, cost.flops, cost.bytes())
    });
    Some(floors.sum())
}

/// Puts ours and theirs side by side.
fn gather(
    tasks: &[Task],
    products: &[&Row],
    ours: Result<BTreeMap<usize, Series>, String>,
    mut answer: torch::Answer,
    data_sheet: Option<&gpus::Gpu>,
) -> Beside {
    let mut remarks = Vec::new();
    let steps = ours.unwrap_or_else(|why| {
        remarks.push(format!("no decode steps of ours: {why}"));
        BTreeMap::new()
    });
    let versions = [("torch", &answer.torch), ("Triton", &answer.triton)];
    for (name, version) in versions {
        remarks.extend(
            version
                .as_ref()
                .map(|version| format!("{name} {version}, in a process of its own after ours")),
        );
    }
    let missing = answer.missing.take();
    let mut products = products.iter();
    let mut lines = Vec::new();
    for (id, task) in tasks.iter().enumerate() {
        let theirs = match answer.rows.remove(&id) {
            Some(torch::Row::Measured { series, .. }) => Ok(series),
            Some(torch::Row::Failed(why)) => Err(why),
            None => Err("not measured".to_owned()),
        };
        let line = match *task {
            Task::Attention { .. } => continue, // of the shapes, not of what stands beside them
            Task::DecodeStep {
                batch, is_compiled, ..
            } => Line {
                what: format!("{MODEL} decode step, {LAYERS} layers"),
                shape: format!("{batch} × 1 of {POSITIONS}"),
                peer: if is_compiled {
                    "torch.compile"
                } else {
                    "torch, eager"
                },
                ours: steps.get(&batch).cloned(),
                theirs,
                floor_us: data_sheet.and_then(|gpu| step_floor_us(gpu, batch)),
            },
            Task::TritonProduct { .. } => {
                let Some(row) = products.next() else { continue };
                let cost = row.shape.cost();
                Line {
                    what: format!("{MODEL} {} {PRODUCT}", row.shape.phase.name()),
                    shape: row.shape.dimensions(),
                    peer: "Triton",
                    ours: row
                        .outcome()
                        .and_then(|o| o.measured.as_ref())
                        .map(|m| m.ours.clone()),
                    theirs,
                    floor_us: data_sheet.map(|gpu| floor_us(gpu, cost.flops, cost.bytes())),
                }
            }
        };
        lines.push(line);
    }
    // One line says why, not each row.
    if let Some(why) = missing {
        remarks.push(format!("no PyTorch steps, or not all of them: {why}"));
        lines.retain(|line| {
            line.theirs.is_ok() || line.theirs.as_ref().is_err_and(|why| why != "not measured")
        });
    }
    Beside { lines, remarks }
}

impl Line {
    fn ours_us(&self) -> Option<f64> {
        median_us(self.ours.as_ref()?)
    }

    fn theirs_us(&self) -> Option<f64> {
        median_us(self.theirs.as_ref().ok()?)
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.ours_us()? / self.theirs_us()?)
    }

    fn share_of_limit(&self) -> Option<f64> {
        Some(self.floor_us? / self.ours_us()?)
    }

    fn to_json(&self) -> Value {
        json!({
            "what": self.what,
            "shape": self.shape,
            "peer": self.peer,
            "ours_us": self.ours.as_ref().map(times_to_json),
            "peer_us": self.theirs.as_ref().ok().map(times_to_json),
            "missing": self.theirs.as_ref().err(),
            "ours_by_peer": self.ratio(),
            "share_of_data_sheet": self.share_of_limit(),
        })
    }
}

impl Beside {
    /// Nothing was measured, for this reason.
    pub(super) fn without(why: &str) -> Beside {
        Beside {
            lines: Vec::new(),
            remarks: vec![format!("no decode steps beside PyTorch's: {why}")],
        }
    }

    pub(super) fn render(&self) -> String {
        let header = [
            "beside the shapes",
            "",
            "peer",
            "ours\nµs",
            "peer\nµs",
            "ours\nby peer",
            "of the data\nsheet, %",
            "",
        ];
        let mut table = Table::new("lllrrrrl", header.map(str::to_owned));
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| significant(v, 3));
        for line in &self.lines {
            table.row([
                line.what.clone(),
                line.shape.clone(),
                line.peer.to_owned(),
                number(line.ours_us()),
                number(line.theirs_us()),
                number(line.ratio()),
                number(line.share_of_limit().map(|share| 100.0 * share)),
                line.theirs.as_ref().err().cloned().unwrap_or_default(),
            ]);
        }
        let mut parts = Vec::new();
        if !self.lines.is_empty() {
            parts.push(table.render());
        }
        parts.extend(self.remarks.iter().cloned());
        parts.join("\n")
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "rows": self.lines.iter().map(Line::to_json).collect::<Vec<_>>(),
            "remarks": self.remarks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{done, product_row, times};
    use super::*;

    fn series_of(us: f64) -> Series {
        times(&[us])
    }

    #[test]
    fn ours_and_theirs_stand_side_by_side() {
        let h100 = gpus::find("NVIDIA H100 80GB HBM3").ok();
        let product = product_row(MODEL, PRODUCT, done(0.5, &[200.0], None));
        assert!(is_product(&product));
        assert!(!is_product(&product_row(
            MODEL,
            "down",
            done(0.5, &[200.0], None)
        )));
        assert!(!is_product(&product_row(
            MODEL,
            PRODUCT,
            done(0.5, &[], None)
        )));
        let products = [&product];
        let tasks = tasks(decoder().unwrap(), &products);
        assert_eq!(tasks.len(), 7);
        let measured = |us: f64| torch::Row::Measured {
            series: series_of(us),
            backend: None,
        };
        let answer = torch::Answer {
            torch: Some("2.11.0".to_owned()),
            triton: None,
            missing: None,
            rows: [
                (0, measured(900.0)),
                (3, measured(160.0)),
                (
                    4,
                    torch::Row::Failed("this Python cannot import triton".to_owned()),
                ),
            ]
            .into(),
        };
        let ours = Ok([(1, series_of(600.0))].into());
        let beside = gather(&tasks, &products, ours, answer, h100);
        let text = beside.render();
        let cells = |of: &str, peer: &str| -> Vec<&str> {
            let mut lines = text.lines();
            let line = lines
                .find(|line| line.contains(of) && line.contains(peer))
                .unwrap();
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        };
        let step = cells("1 × 1 of 1040", "eager");
        assert_eq!(step[3..6], ["600", "900", "0.667"], "{text}");
        // 4 layers of 466 MB and 1.09 GB of lm_head at 3350 GB/s.
        let share: f64 = step[6].parse().unwrap();
        assert!((130.0..160.0).contains(&share), "{text}");
        let product = cells("gate_up", "Triton");
        assert_eq!(product[3..6], ["200", "160", "1.25"], "{text}");
        assert!(cells("1 × 1 of 1040", "compile").contains(&"this Python cannot import triton"));
        assert!(
            text.contains("torch 2.11.0, in a process of its own after ours"),
            "{text}"
        );
        let json = beside.to_json();
        assert_eq!(json["rows"][3]["ours_by_peer"], 1.25);
        assert_eq!(json["rows"][1]["missing"], "not measured");
    }

    #[test]
    fn what_is_missing_takes_one_line() {
        let tasks = tasks(decoder().unwrap(), &[]);
        let answer = torch::Answer {
            missing: Some("this Python cannot import torch".to_owned()),
            ..torch::Answer::default()
        };
        let ours = Err("one-batch: exit code 1: error: no GPU".to_owned());
        let beside = gather(&tasks, &[], ours, answer, None);
        assert_eq!(
            beside.render(),
            "no decode steps of ours: one-batch: exit code 1: error: no GPU\n\
             no PyTorch steps, or not all of them: this Python cannot import torch"
        );
        assert_eq!(beside.to_json()["rows"], json!([]));
    }

    #[test]
    fn our_steps_are_asked_for_by_the_command_line() {
        let arguments = arguments(Path::new("out"), 2);
        let line = arguments.join(" ");
        assert!(line.starts_with("one-batch --model-path qwen2.5-7b --load-format dummy"));
        assert!(
            line.ends_with("--input 1024 --output 33 --batch 1 8 64"),
            "{line}"
        );
        assert!(
            line.contains(r#"--device cuda:2 --json-model-override-args {"num_hidden_layers":4}"#)
        );
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            _args: crate::args::OneBatch,
        }
        <Line as clap::Parser>::try_parse_from(&arguments).unwrap();
    }

    #[test]
    fn steps_behind_the_first_are_samples() {
        let step = |kind: &str, index: usize, wall_ns: u64| json!({ "kind": kind, "index": index, "batch_size": 8, "wall_ns": wall_ns, "phases": [] });
        let total = json!({ "steps": 0, "wall_ns": 0, "phases": [], "operations": [] });
        let point: Point = serde_json::from_value(json!({
            "batch_size": 8, "input_len": 16, "output_len": 4, "prefill": total, "decode": null,
            "repetitions": [{
                "prefill_latency_s": 1.0, "total_latency_s": 2.0, "output_ids": [],
                "first_decode_latency_s": null, "median_decode_latency_s": null,
                "steps": [step("prefill", 0, 900), step("decode", 0, 70), step("decode", 1, 20), step("decode", 2, 30)],
            }],
        }))
        .unwrap();
        let (batch, series) = decode_steps(&point);
        assert_eq!((batch, series.times_ns()), (8, vec![20.0, 30.0]));
        assert_eq!(series.timer, Timer::Wall);
    }
}
