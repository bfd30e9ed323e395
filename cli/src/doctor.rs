//! What this machine has, and what to do about the rest.

use stepscope_device::doctor;

use crate::args;
use crate::output::{Failure, write_stdout};

pub(crate) fn run(args: &args::Doctor) -> Result<(), Failure> {
    let report = doctor::examine();
    let text = if args.json {
        let json = serde_json::to_string_pretty(&report);
        json.map_err(|e| Failure::run(format!("the findings have no JSON form: {e}")))?
    } else {
        report.to_string()
    };
    write_stdout(format!("{text}\n").as_bytes())
}
