//! `stepscope device`: the sheet of what a GPU was measured to do.

mod counts;
pub(crate) mod kept;

use std::path::Path;
use std::time::{Duration, Instant};

use stepscope_kernels::DType;
use stepscope_microbench::Bench;
use stepscope_microbench::sheet::{self, Counts, Options};
use stepscope_profiler::device_sheet::{DeviceSheet, Group, Row, SCHEMA, Status};
use stepscope_profiler::explain::page::{sheet_page, sheet_svg};
use stepscope_profiler::{Program, environment};

use crate::args::Device;
use crate::args::sheet::Sheet;
use crate::device::Gpu;
use crate::output::{Failure, print_stderr, write_stdout};
use crate::timing;

pub(crate) fn run(args: &Sheet) -> Result<(), Failure> {
    if matches!(args.device, Device::Cpu) {
        return Err(Failure::input(
            "--device cpu: the sheet is of a GPU; use --device cuda, or --device emulated to see that every probe works",
        ));
    }
    let begin = Instant::now();
    let gpu = Gpu::start(args.device)?;
    let cuda = gpu.cuda(DType::BF16)?;
    let bench = Bench::new(&cuda).map_err(|e| Failure::Run(e.into()))?;
    let options = Options {
        only: args.only.clone(),
        quick: args.quick,
        until: args
            .seconds
            .map(|seconds| begin + Duration::from_secs(seconds as u64) * 4 / 5),
    };
    let described = gpu.describe()?;
    let (watch, no_watch) = match gpu.is_emulated() {
        true => (None, Some("the device is emulated".to_owned())),
        false => match timing::watch(&described.uuid) {
            Ok(watch) => (Some(watch), None),
            Err(why) => (None, Some(why)),
        },
    };
    let counts = gpu.reports().is_some().then(|| -> Counts<'_> {
        Box::new(|| {
            let reports = gpu.reports().unwrap_or_default();
            reports.iter().map(counts::counted).collect()
        })
    });
    let mut group = None;
    let mut seen = |row: &Row| tell(row, &mut group);
    let rows = sheet::run(&bench, &options, counts, &mut seen);
    let rows = rows.map_err(|e| Failure::Run(e.into()))?;
    let document = DeviceSheet {
        schema: SCHEMA.to_owned(),
        summary: DeviceSheet::summarised(&rows),
        program: Program {
            name: "stepscope".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("STEPSCOPE_COMMIT").map(str::to_owned),
            command: std::env::args().collect(),
        },
        created: environment::utc_now(),
        device: gpu.name().to_owned(),
        gpu: described,
        watch: watch.map(|watch| watch.finish()),
        no_watch,
        quick: args.quick,
        rows,
    };
    if let Some(path) = &args.html {
        write(path, &sheet_page(&document))?;
    }
    if let Some(path) = &args.svg {
        write(path, &sheet_svg(&document))?;
    }
    let json = format!("{:#}\n", serde_json::json!(document));
    if let Some(path) = &args.out {
        write(path, &json)?;
    }
    kept::keep(&document);
    let text = match args.json {
        true => json,
        false => document.text(),
    };
    write_stdout(text.as_bytes())?;
    let bad = |row: &&Row| matches!(row.status, Status::Wrong | Status::Failed);
    match document.rows.iter().filter(bad).collect::<Vec<_>>()[..] {
        [] => Ok(()),
        [first, ..] => Err(Failure::run(format!(
            "{}; the first is {}: {}",
            document.summary,
            first.name,
            first.note.as_deref().unwrap_or("no reason is known")
        ))),
    }
}

/// Says which group is measured, once, and at once what is wrong.
fn tell(row: &Row, group: &mut Option<Group>) {
    if *group != Some(row.group) {
        *group = Some(row.group);
        print_stderr(&format!("{} …", row.group.name()));
    }
    if matches!(row.status, Status::Wrong | Status::Failed) {
        let why = row.note.as_deref().unwrap_or_default();
        print_stderr(&format!("{}: {why}", row.name));
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|e| Failure::run(format!("cannot write {}: {e}", path.display())))?;
    print_stderr(&format!("wrote {}", path.display()));
    Ok(())
}
