//! `stepscope kernel list`.

use serde_json::json;
use stepscope_kernels::DType;
use stepscope_kernels::cuda::catalog::{self, Family};
use stepscope_profiler::report::Table;

use crate::args::kernel::List;
use crate::output::{Failure, write_stdout};

pub(super) fn run(args: &List) -> Result<(), Failure> {
    let text = if args.json {
        let kernels: Vec<_> = catalog::families().map(entry).collect();
        let document = json!({ "schema": "stepscope.kernels/1", "kernels": kernels });
        format!("{document:#}\n")
    } else {
        table() + "\n"
    };
    write_stdout(text.as_bytes())
}

fn table() -> String {
    let header = ["operation", "kernel", "instances", "source", "what it does"];
    let mut table = Table::new("llrll", header.map(str::to_owned));
    let mut last = "";
    for family in catalog::families() {
        let operation = if family.operation == last {
            ""
        } else {
            family.operation
        };
        last = family.operation;
        table.row([
            operation.to_owned(),
            family.name.to_owned(),
            instances(family).len().to_string(),
            family.source.name.to_owned(),
            family.summary.to_owned(),
        ]);
    }
    table.render()
}

/// Those of both storage types.
fn instances(family: &Family) -> Vec<String> {
    let mut instances = family.instances(DType::BF16);
    for instance in family.instances(DType::F16) {
        if !instances.contains(&instance) {
            instances.push(instance);
        }
    }
    instances
}

fn entry(family: &'static Family) -> serde_json::Value {
    json!({
        "name": family.name,
        "operation": family.operation,
        "source": family.source.name,
        "summary": family.summary,
        "instances": instances(family),
        "arguments": arguments(family),
        "shape": family.dimensions.iter().map(|dimension| json!({
            "name": dimension.name,
            "default": dimension.default,
            "least": dimension.least,
            "meaning": dimension.meaning,
        })).collect::<Vec<_>>(),
        "machine_instructions": family.instructions,
        "promises": {
            "coalesced": family.promises.coalesced,
            "conflict_free": family.promises.conflict_free,
        },
    })
}

fn arguments(family: &Family) -> Vec<serde_json::Value> {
    let arguments = family.arguments.iter();
    arguments
        .map(|argument| {
            json!({
                "name": argument.name,
                "type": argument.type_name,
                "bytes": argument.bytes,
            })
        })
        .collect()
}
