//! `stepscope kernel`: the CUDA kernels of this program.

mod count;
mod list;
mod prebuild;
mod show;

use std::process::ExitCode;

use stepscope_kernels::DType;
use stepscope_kernels::cuda::catalog::{self, Family, Plan, Shape};
use stepscope_profiler::report::Table;

use crate::args::kernel::{Action, Which};
use crate::output::Failure;

pub(crate) fn run(action: &Action) -> Result<ExitCode, Failure> {
    match action {
        Action::List(args) => list::run(args)?,
        Action::Show(args) => show::run(args)?,
        Action::Count(args) => return count::run(args),
        Action::Prebuild(args) => prebuild::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The kernel that is asked for, and its shape.
fn find(which: &Which) -> Result<(&'static Family, Shape), Failure> {
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    let asked = plain(&which.name);
    let parse = |family| {
        Shape::parse(family, &which.shape)
            .map_err(|error| Failure::input(format!("--shape {}: {error}", which.shape)))
    };
    if let Some(family) = catalog::family(&asked) {
        return Ok((family, parse(family)?));
    }
    for family in catalog::families() {
        for dtype in [DType::BF16, DType::F16] {
            let instances = family.instances(dtype);
            if let Some(instance) = instances.iter().find(|name| plain(name) == asked) {
                let shape = parse(family)?;
                return Ok((family, shape.with_dtype(dtype).with_instance(instance)));
            }
        }
    }
    Err(unknown(&which.name))
}

fn unknown(name: &str) -> Failure {
    let asked = name.split('<').next().unwrap_or(name).trim();
    let likeness = |family: &&Family| strsim::jaro_winkler(family.name, asked);
    let nearest = catalog::families().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    // Two words that have nothing in common still have a likeness of 0.4 and more.
    let nearest = nearest.filter(|family| likeness(family) > 0.7);
    Failure::input(match nearest {
        Some(family) if family.name == asked => format!(
            "{asked} has no instance {name}; `stepscope kernel list --json` has all of them"
        ),
        Some(family) => format!(
            "no kernel is called {name}; is {} meant? `stepscope kernel list` has all of them",
            family.name
        ),
        None => format!("no kernel is called {name}; `stepscope kernel list` has all of them"),
    })
}

/// A shape without a launch is a person's mistake.
fn no_plan(error: &stepscope_kernels::Error) -> Failure {
    Failure::input(error.to_string())
}

/// What is looked at, on two lines.
fn header(family: &Family, shape: &Shape, plan: &Plan, about: &str) -> String {
    let axes = |[x, y, z]: [u32; 3]| format!("{x} × {y} × {z}");
    format!(
        "{}: {} ({}, {})\n{shape}: grid {}, block {}, {} bytes of dynamic shared memory; {about}",
        plan.expression,
        family.summary,
        family.operation,
        family.source.name,
        axes(plan.launch.grid),
        axes(plan.launch.block),
        plan.launch.shared_bytes
    )
}

/// A table of names and values.
fn pairs<'a>(title: &str, rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new("lr", [title, ""].map(str::to_owned));
    for (name, value) in rows {
        table.row([name.to_owned(), value]);
    }
    table.render()
}

/// The work of a shape, by the cost model.
fn work(plan: &Plan) -> String {
    let cost = plan.cost;
    let per_byte = if cost.bytes() == 0 {
        0.0
    } else {
        cost.flops as f64 / cost.bytes() as f64
    };
    pairs(
        "Work, each byte once",
        [
            ("FLOPs", cost.flops.to_string()),
            ("bytes of weights", cost.weight_bytes.to_string()),
            ("bytes of keys and values", cost.kv_bytes.to_string()),
            ("bytes of activations", cost.activation_bytes.to_string()),
            ("FLOPs per byte", format!("{per_byte:.2}")),
        ],
    )
}

fn work_json(plan: &Plan) -> serde_json::Value {
    serde_json::json!({
        "flops": plan.cost.flops,
        "weight_bytes": plan.cost.weight_bytes,
        "kv_bytes": plan.cost.kv_bytes,
        "activation_bytes": plan.cost.activation_bytes,
    })
}

/// What every document begins with.
fn document(
    family: &Family,
    shape: &Shape,
    plan: &Plan,
) -> serde_json::Map<String, serde_json::Value> {
    let sizes = shape.values().iter();
    let sizes: serde_json::Map<_, _> = sizes
        .map(|&(name, value)| (name.to_owned(), value.into()))
        .collect();
    let document = serde_json::json!({
        "schema": "stepscope.kernel/1",
        "kernel": family.name,
        "instance": plan.expression,
        "operation": family.operation,
        "source": family.source.name,
        "shape": sizes,
        "dtype": shape.dtype().to_string(),
        "launch": {
            "grid": plan.launch.grid,
            "block": plan.launch.block,
            "dynamic_shared_bytes": plan.launch.shared_bytes,
        },
        "cost": work_json(plan),
    });
    match document {
        serde_json::Value::Object(document) => document,
        _ => serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_unknown(name: &str, expected: &str) {
        let which = Which {
            name: name.to_owned(),
            shape: String::new(),
        };
        match find(&which) {
            Err(Failure::Input(error)) => assert_eq!(error.to_string(), expected),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn the_nearest_name_is_suggested() {
        check_unknown(
            "gem_mma",
            "no kernel is called gem_mma; is gemm_mma meant? `stepscope kernel list` has all of them",
        );
        check_unknown(
            "rmsnorm",
            "no kernel is called rmsnorm; is rms_norm meant? `stepscope kernel list` has all of them",
        );
        check_unknown(
            "gemv<bf16, 3, true>",
            "gemv has no instance gemv<bf16, 3, true>; `stepscope kernel list --json` has all of them",
        );
        check_unknown(
            "xyz",
            "no kernel is called xyz; `stepscope kernel list` has all of them",
        );
    }

    #[test]
    fn an_instance_brings_its_storage_type() {
        let which = Which {
            name: "gemv<f16,2,true>".to_owned(),
            shape: "N=64".to_owned(),
        };
        let (family, shape) = find(&which).unwrap();
        assert_eq!((family.name, shape.dtype()), ("gemv", DType::F16));
        assert_eq!(shape.instance(), Some("gemv<f16, 2, true>"));
    }
}
