//! A comparison, for programs.

use serde_json::{Map, Value, json};

use super::evaluate::{Figure, Group, Side};
use super::{Findings, Session, time};

pub(super) fn document(session: &Session<'_>, findings: &Findings) -> Value {
    let case = &session.case;
    let device = session.gpu.device();
    let sizes = case.shape().values().iter();
    let sizes: Map<String, Value> = sizes
        .map(|&(name, value)| (name.to_owned(), value.into()))
        .collect();
    let work = case.work();
    json!({
        "schema": "stepscope.lab/1",
        "operation": case.operation().name,
        "shape": sizes,
        "dtype": case.shape().dtype().to_string(),
        "seed": session.args.seed,
        "device": {
            "name": device.name,
            "is_emulated": session.gpu.is_emulated(),
            "compute_capability": device.compute_capability,
        },
        "work": { "flops": work.flops, "bytes": work.bytes },
        "is_right": findings.is_right(),
        "mine": side(&findings.mine),
        "incumbent": findings.incumbent.as_ref().map(side),
        "times": findings.times.as_ref().map(time::json),
    })
}

fn side(side: &Side) -> Value {
    let (outputs, failure) = match &side.comparisons {
        Ok(comparisons) => {
            let outputs: Vec<Value> = comparisons
                .iter()
                .map(|c| {
                    json!({
                        "name": c.name,
                        "elements": c.elements,
                        "wrong": c.wrong,
                        "unwritten": c.unwritten,
                        "is_guard_whole": c.is_guard_whole,
                        "worst": c.worst.as_ref().map(|worst| json!({
                            "index": worst.index,
                            "got": number(worst.got.into()),
                            "expected": number(worst.expected.into()),
                            "tolerance": worst.tolerance,
                        })),
                    })
                })
                .collect();
            (outputs, Value::Null)
        }
        Err(why) => (Vec::new(), json!(why)),
    };
    let kernels: Vec<Value> = side
        .kernels
        .iter()
        .map(|kernel| {
            json!({
                "name": kernel.name,
                "grid": kernel.launch.grid,
                "block": kernel.launch.block,
                "dynamic_shared_bytes": kernel.launch.shared_bytes,
                "registers_per_thread": kernel.report.registers,
                "spill_store_bytes": kernel.report.spill_store_bytes,
                "spill_load_bytes": kernel.report.spill_load_bytes,
                "static_shared_bytes": kernel.report.shared_bytes,
                "occupancy": kernel.occupancy.as_ref().map(|o| o.warps_fraction),
            })
        })
        .collect();
    json!({
        "name": side.name,
        "outputs": outputs,
        "failure": failure,
        "findings": side.findings,
        "kernels": kernels,
        "results": group(&side.figures, Group::Results),
        "resources": group(&side.figures, Group::Resources),
        "instructions": group(&side.figures, Group::Instructions),
        "opcodes": group(&side.figures, Group::Opcodes),
        "counters": group(&side.figures, Group::Counters),
    })
}

fn group(figures: &[Figure], group: Group) -> Map<String, Value> {
    let figures = figures.iter().filter(|figure| figure.group == group);
    figures
        .map(|figure| (figure.name.clone(), number(figure.value)))
        .collect()
}

/// JSON has neither NaN nor infinity.
fn number(value: f64) -> Value {
    match value.is_finite() {
        true => json!(value),
        false => json!(value.to_string()),
    }
}
