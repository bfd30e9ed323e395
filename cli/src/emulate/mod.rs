//! `stepscope emulate`: one launch of a kernel on an emulated device.

mod argument;
mod element;
mod findings;
pub(crate) mod json;
pub(crate) mod kernel;
pub(crate) mod machine;
mod npy;
mod sources;
pub(crate) mod tables;

use std::path::PathBuf;
use std::process::ExitCode;

use stepscope_emulator::check::{Finding, Severity};
use stepscope_emulator::count::Occupancy;
use stepscope_emulator::{Device, ErrorKind, Launch, Limits, Report};

pub(crate) use argument::Argument;
use argument::Buffer;
use kernel::Loaded;
pub(crate) use kernel::short_name;
use machine::Machine;
use sources::Sources;
pub(crate) use sources::{from_here, source_line};

use crate::args::{self, Check};
use crate::output::{Failure, write_stdout};

/// A launch that has been made, with all that is told about it.
#[derive(Debug)]
struct Run<'a> {
    args: &'a args::Emulate,
    machine: Machine,
    loaded: Loaded,
    buffers: Vec<Buffer>,
    launch: Launch,
    occupancy: Occupancy,
    report: &'a Report,
    findings: Vec<&'a Finding>,
    sources: Sources,
    written: Vec<PathBuf>,
}

impl Run<'_> {
    fn shared_bytes(&self) -> u32 {
        let fixed = self.loaded.kernel.static_shared_bytes();
        fixed.saturating_add(self.launch.dynamic_shared_bytes)
    }

    /// Findings that are no mere notes.
    fn faults(&self) -> usize {
        let findings = self.findings.iter();
        findings.filter(|f| f.severity < Severity::Note).count()
    }
}

/// The exit code is 1 where there are findings, which standard output tells.
pub(crate) fn run(args: &args::Emulate) -> Result<ExitCode, Failure> {
    let machine = Machine::named(&args.arch)?;
    let device = Device::new(machine.options());
    let loaded = kernel::load(args, &machine, &device)?;
    let name = &loaded.name;
    let prepared = argument::prepare(&device, &args.arg)?;
    let bytes = argument::pack(&loaded.kernel, name, &args.arg, &prepared.values)?;
    let launch = launch(args);
    let shared = loaded.kernel.static_shared_bytes();
    let threads = launch
        .block
        .iter()
        .fold(1, |n: u32, &axis| n.saturating_mul(axis));
    let occupancy = machine.occupancy(
        threads,
        loaded.compiler.as_ref().and_then(|c| c.registers),
        shared.saturating_add(launch.dynamic_shared_bytes),
    )?;
    check_cooperative(&launch, &machine, &occupancy)?;
    let report = device
        .launch(&loaded.kernel, &launch, &bytes)
        .map_err(|error| Failure::input(error.to_string()))?;
    let mut written = Vec::new();
    let mut unwritten = None;
    for buffer in &prepared.buffers {
        match buffer.write_back(&device) {
            Ok(true) => written.extend(buffer.output.clone()),
            Ok(false) => {}
            // The others are still written, and the report printed.
            Err(failure) => unwritten = Some(failure),
        }
    }
    let run = Run {
        sources: Sources::of(&report, &args.file, &loaded.ptx),
        machine,
        loaded,
        buffers: prepared.buffers,
        launch,
        occupancy,
        findings: findings::sorted(&report),
        report: &report,
        written,
        args,
    };
    let text = if args.json {
        format!("{:#}\n", json::document(&run))
    } else {
        text(&run)
    };
    write_stdout(text.as_bytes())?;
    if let Some(failure) = unwritten {
        return Err(failure);
    }
    match &run.report.failure {
        Some(error) => Err(Failure::run(format!(
            "{} stopped before its end: {}",
            run.loaded.name,
            cause(error.kind())
        ))),
        None if run.faults() > 0 => Ok(ExitCode::FAILURE),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn launch(args: &args::Emulate) -> Launch {
    Launch {
        cluster: args.cluster.map(|cluster| cluster.0),
        dynamic_shared_bytes: args.smem,
        cooperative: args.cooperative,
        checks: Check::checks(&args.check),
        limits: Limits {
            warp_instructions: args.limit_instructions.unwrap_or(u64::MAX),
            seconds: args.limit_seconds,
            cores: args.cores.unwrap_or(0),
        },
        ..Launch::new(args.grid.0, args.block.0)
    }
}

/// All blocks of a cooperative launch must be on the device at once.
fn check_cooperative(
    launch: &Launch,
    machine: &Machine,
    occupancy: &Occupancy,
) -> Result<(), Failure> {
    let blocks: u64 = launch.grid.iter().map(|&axis| u64::from(axis)).product();
    let fit = u64::from(occupancy.blocks) * u64::from(machine.capacity.multiprocessors);
    if launch.cooperative && blocks > fit {
        return Err(Failure::input(format!(
            "a cooperative launch of {blocks} blocks; {} multiprocessors hold {fit} at once, {} each",
            machine.capacity.multiprocessors, occupancy.blocks
        )));
    }
    Ok(())
}

/// What ended a launch, in a word or two.
fn cause(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Trap => "trap",
        ErrorKind::Assertion => "failed assertion",
        ErrorKind::Deadlock => "deadlock",
        ErrorKind::Limit => "limit reached",
        ErrorKind::IllegalAddress => "illegal address",
        ErrorKind::Misaligned => "misaligned address",
        ErrorKind::OutOfMemory => "out of memory",
        _ => "error",
    }
}

/// Everything, for a person.
fn text(run: &Run<'_>) -> String {
    let mut sections = vec![tables::header(run)];
    if !run.report.output.is_empty() {
        sections.push(run.report.output.trim_end_matches('\n').to_owned());
    }
    sections.extend(tables::counters(run));
    if run.args.lines {
        sections.push(tables::lines(run));
    }
    sections.extend(findings::sections(run));
    sections.push(findings::verdict(run));
    sections.join("\n\n") + "\n"
}
