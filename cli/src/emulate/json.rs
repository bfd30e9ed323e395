//! Everything about a launch, for programs.

use serde_json::{Map, Value, json};
use stepscope_emulator::check::{Finding, Party};
use stepscope_emulator::count::Counters;

use super::findings::{self, Memory};
use super::sources::from_here;
use super::{Run, cause, tables};

pub(super) fn document(run: &Run<'_>) -> Value {
    let report = &run.report;
    let launch = &run.launch;
    let kernel = &run.loaded.kernel;
    let (major, minor) = run.machine.compute_capability;
    json!({
        "schema": "stepscope.emulation/1",
        "file": run.args.file.display().to_string(),
        "kernel": { "name": run.loaded.name, "symbol": kernel.name() },
        "launch": {
            "grid": launch.grid,
            "block": launch.block,
            "cluster": launch.cluster.or(kernel.required_cluster()),
            "cooperative": launch.cooperative,
            "dynamic_shared_bytes": launch.dynamic_shared_bytes,
            "static_shared_bytes": kernel.static_shared_bytes(),
            "arguments": arguments(run),
        },
        "device": {
            "compute_capability": format!("{major}.{minor}"),
            "multiprocessors": run.machine.capacity.multiprocessors,
        },
        "compiler": run.loaded.compiler.as_ref().map(|compiler| json!({
            "nvrtc": compiler.version.to_string(),
            "arch": run.machine.arch.to_string(),
            "registers_per_thread": compiler.registers,
            "spill_store_bytes": compiler.spill_store_bytes,
            "spill_load_bytes": compiler.spill_load_bytes,
        })),
        "checks": {
            "memory": launch.checks.memory,
            "race": launch.checks.race,
            "sync": launch.checks.sync,
            "init": launch.checks.init,
        },
        "verdict": findings::verdict(run),
        "failure": report.failure.as_ref().map(|error| json!({
            "cause": cause(error.kind()),
            "message": from_here(&error.to_string()),
        })),
        "findings": run.findings
            .iter()
            .map(|finding| one_finding(run, finding))
            .collect::<Vec<_>>(),
        "counters": counters(&report.counters),
        "metrics": report.counters.metrics().into_iter().map(|metric| json!({
            "name": metric.name,
            "value": metric.value,
            "exactness": tables::exactness(metric.exactness).replace(' ', "_"),
        })).collect::<Vec<_>>(),
        "occupancy": {
            "blocks": run.occupancy.blocks,
            "warps_fraction": run.occupancy.warps_fraction,
            "limit_blocks": run.occupancy.limit_blocks,
            "limit_threads": run.occupancy.limit_threads,
            "limit_registers": run.occupancy.limit_registers,
            "limit_shared": run.occupancy.limit_shared,
        },
        "lines": report.lines.iter().map(|line| json!({
            "file": run.sources.name(&line.file),
            "line": line.line,
            "source": run.sources.line(&line.file, line.line),
            "findings": tables::findings_of(run, line),
            "counters": counters(&line.counters),
        })).collect::<Vec<_>>(),
        "output": report.output,
        "written": run.written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    })
}

fn arguments(run: &Run<'_>) -> Vec<Value> {
    let parameters = run.loaded.kernel.parameters();
    let arguments = run.args.arg.iter().zip(parameters).enumerate();
    arguments
        .map(|(index, (argument, parameter))| {
            let buffer = run.buffers.iter().find(|buffer| buffer.index == index);
            json!({
                "text": argument.text,
                "parameter_bytes": parameter.bytes,
                "array": buffer.map(|buffer| json!({
                    "address": buffer.address,
                    "bytes": buffer.bytes(),
                    "type": buffer.element.name(),
                    "shape": buffer.shape,
                })),
            })
        })
        .collect()
}

fn one_finding(run: &Run<'_>, finding: &Finding) -> Value {
    let memory = finding
        .address
        .map(|address| Memory::of(run, finding, address));
    json!({
        "class": findings::class(finding.kind).name,
        "severity": findings::severity(finding.severity),
        "at": party(run, &finding.party),
        "other": finding.other.as_ref().map(|other| party(run, other)),
        "count": finding.count,
        "memory": memory.map(|memory| json!({
            "space": finding.space,
            "address": memory.address,
            "bytes": finding.bytes,
            "allocation": memory.allocation.map(|(base, bytes)| json!({
                "address": base,
                "bytes": bytes,
                "offset": memory.offset().and_then(|offset| i64::try_from(offset).ok()),
                "argument": memory.buffer.map(|buffer| buffer.index),
                "variable": memory.variable,
            })),
        })),
    })
}

fn party(run: &Run<'_>, party: &Party) -> Value {
    json!({
        "file": run.sources.name(&party.file),
        "line": party.line,
        "source": run.sources.line(&party.file, party.line),
        "block": party.block,
        "thread": party.thread,
        "operation": party.operation,
    })
}

/// The emulator's counters under their own names.
pub(crate) fn counters(c: &Counters) -> Value {
    let named = c.named().into_iter();
    Value::Object(Map::from_iter(
        named.map(|(name, value)| (name.to_owned(), Value::from(value))),
    ))
}
