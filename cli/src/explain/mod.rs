//! `stepscope explain`: what the input is, and which explanation fits it.

mod page;
mod record;
mod result;
mod trace;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use stepscope_profiler::gpus::{self, Gpu};
use stepscope_profiler::{Record, SCHEMA};

use crate::args;
use crate::output::Failure;
use crate::sheet::kept::add_ceilings;

pub(crate) fn run(args: &args::explain::Explain) -> Result<(), Failure> {
    let gpu = args.gpu.as_deref().map(find_gpu).transpose()?;
    match kind_of(&args.input)? {
        Input::Record => {
            let mut record = Record::read(&args.input)?;
            add_ceilings(&mut record, &args.input, args.ceilings.as_deref())?;
            record::explain(&record, gpu, args)
        }
        Input::Result | Input::Trace if args.ceilings.is_some() => Err(Failure::input(
            "--ceilings is for records of this program; a result or a trace takes --gpu NAME",
        )),
        Input::Result => result::explain(gpu, args),
        Input::Trace => trace::explain(gpu, args),
    }
}

/// What an input may be.
enum Input {
    Record,
    Result,
    Trace,
}

/// How much of a file tells what it is.
const HEAD_BYTES: u64 = 1 << 16;

fn kind_of(path: &Path) -> Result<Input, Failure> {
    if path.is_dir() {
        return Ok(Input::Record);
    }
    let failed = |e: std::io::Error| Failure::input(format!("cannot read {}: {e}", path.display()));
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head))
        .map_err(failed)?;
    if trace::is_trace(path, &head) {
        return Ok(Input::Trace);
    }
    let head = String::from_utf8_lossy(&head);
    let family = SCHEMA.split('/').next().unwrap_or(SCHEMA);
    Ok(if head.contains(family) {
        Input::Record
    } else {
        Input::Result
    })
}

fn find_gpu(name: &str) -> Result<&'static Gpu, Failure> {
    gpus::find(name).map_err(|unknown| Failure::input(format!("--gpu: {unknown}")))
}
