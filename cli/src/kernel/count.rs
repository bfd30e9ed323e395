//! `stepscope kernel count`.

use std::process::ExitCode;

use serde_json::json;
use stepscope_emulator::check::{Checks, Severity};
use stepscope_emulator::driver::{Configuration, LaunchReport, configure, take_reports};
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Plan, Target};
use stepscope_profiler::report::Table;

use super::{document, find, header, no_plan, work};
use crate::args::kernel::Count;
use crate::device::emulated_driver;
use crate::emulate::{json as emulate_json, kernel as emulate_kernel, machine::Machine, tables};
use crate::output::{Failure, write_stdout};

/// The emulated device that the command makes.
const DEVICE: usize = 0;

pub(super) fn run(args: &Count) -> Result<ExitCode, Failure> {
    let (family, shape) = find(&args.which)?;
    let machine = Machine::named(&args.arch)?;
    let (major, minor) = machine.compute_capability;
    // What cannot be launched is said before anything is compiled.
    let target = Target {
        capability: [major, minor],
        multiprocessors: machine.capacity.multiprocessors as usize,
    };
    let plan = family
        .plan(&shape, target)
        .map_err(|error| no_plan(&error))?;
    let configuration = Configuration {
        compute_capability: machine.compute_capability,
        checks: Checks::ALL,
        keep_reports: true,
        ..Configuration::default()
    };
    configure(configuration).map_err(Failure::run)?;
    let driver = emulated_driver().map_err(|error| Failure::run(error.to_string()))?;
    let cuda = Cuda::new(&driver, DEVICE, shape.dtype())
        .map_err(|error| Failure::input(error.to_string()))?;
    take_reports(DEVICE);
    family.run(&cuda, &shape)?;
    let reports = take_reports(DEVICE);
    let report = reports
        .iter()
        .find(|report| emulate_kernel::is_called(&report.kernel, &plan.expression))
        .ok_or_else(|| Failure::run(format!("{} was not launched", plan.expression)))?;
    let rows = rows(&plan, report);
    let about = format!("emulated device of compute capability {major}.{minor}");
    let text = if args.json {
        let mut document = document(family, &shape, &plan);
        document.insert(
            "device".to_owned(),
            json!({
                "compute_capability": format!("{major}.{minor}"),
                "multiprocessors": target.multiprocessors,
            }),
        );
        document.insert("counted".to_owned(), rows.iter().map(Row::json).collect());
        document.insert("because".to_owned(), json!(plan.counted.because));
        document.insert(
            "counters".to_owned(),
            emulate_json::counters(&report.report.counters),
        );
        document.insert("findings".to_owned(), json!(findings(report)));
        format!(
            "{document:#}\n",
            document = serde_json::Value::Object(document)
        )
    } else {
        let mut sections = vec![
            header(family, &shape, &plan, &about),
            work(&plan),
            comparison(&rows, &plan),
        ];
        sections.extend(tables::stories(&report.report.counters));
        sections.push(verdict(&rows, report));
        sections.join("\n\n") + "\n"
    };
    write_stdout(text.as_bytes())?;
    let is_right = rows.iter().all(Row::is_right) && findings(report).is_empty();
    Ok(if is_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A number as counted, as expected and as the cost model has it.
struct Row {
    name: &'static str,
    counted: u64,
    /// `None`: nobody says what it should be.
    expected: Option<u64>,
    cost: Option<u64>,
}

impl Row {
    fn is_right(&self) -> bool {
        self.expected
            .is_none_or(|expected| expected == self.counted)
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "name": self.name,
            "counted": self.counted,
            "expected": self.expected,
            "cost": self.cost,
            "is_right": self.is_right(),
        })
    }
}

fn rows(plan: &Plan, report: &LaunchReport) -> Vec<Row> {
    let counters = &report.report.counters;
    let (expected, cost) = (plan.counted, plan.cost);
    let on_tensor_cores = expected.tensor_flops > 0;
    let mut rows = Vec::new();
    if on_tensor_cores || counters.tensor_flops > 0 {
        rows.push(Row {
            name: "FLOPs of tensor cores",
            counted: counters.tensor_flops,
            expected: Some(expected.tensor_flops),
            cost: Some(expected.useful_tensor_flops()),
        });
    }
    rows.push(Row {
        name: "FLOPs of other units",
        counted: counters.f32_flops,
        expected: Some(expected.float_flops),
        cost: Some(cost.flops - expected.useful_tensor_flops()),
    });
    rows.push(Row {
        name: "bytes, each sector once",
        counted: counters.compulsory_read_bytes + counters.compulsory_write_bytes,
        expected: Some(expected.bytes),
        cost: Some(cost.bytes()),
    });
    if let Some(scattered) = expected.scattered_sectors {
        let sectors = counters.global_load_sectors + counters.global_store_sectors;
        rows.push(Row {
            name: "sectors beyond the fewest",
            counted: sectors - counters.global_ideal_sectors,
            expected: Some(scattered),
            cost: None,
        });
    }
    rows
}

fn comparison(rows: &[Row], plan: &Plan) -> String {
    let header = ["Counted", "", "expected", "cost model", ""];
    let mut table = Table::new("lrrrl", header.map(str::to_owned));
    let number = |number: Option<u64>| number.map_or("–".to_owned(), |number| number.to_string());
    for row in rows {
        table.row([
            row.name.to_owned(),
            row.counted.to_string(),
            number(row.expected),
            number(row.cost),
            if row.is_right() { "" } else { "differs" }.to_owned(),
        ]);
    }
    let mut text = table.render();
    if !plan.counted.because.is_empty() {
        text += &format!("\n{}", plan.counted.because);
    }
    text
}

/// What is wrong with the launch; notes are not.
fn findings(report: &LaunchReport) -> Vec<String> {
    let findings = report.report.findings.iter();
    findings
        .filter(|finding| finding.severity < Severity::Note)
        .map(ToString::to_string)
        .collect()
}

fn verdict(rows: &[Row], report: &LaunchReport) -> String {
    let findings = findings(report);
    let differ = rows.iter().filter(|row| !row.is_right()).count();
    let counts = match differ {
        0 => "every count is as expected".to_owned(),
        1 => "one count differs".to_owned(),
        _ => format!("{differ} counts differ"),
    };
    match findings.len() {
        0 => format!("{counts}; no findings"),
        _ => format!(
            "{}\n\n{counts}; findings: {}",
            findings.join("\n"),
            findings.len()
        ),
    }
}
