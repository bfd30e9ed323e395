//! Explaining a record of this program.

use stepscope_profiler::Record;
use stepscope_profiler::explain::record;
use stepscope_profiler::gpus::Gpu;

use super::page;
use crate::args::explain::Explain;
use crate::output::{Failure, write_stdout};

pub(super) fn explain(
    record: &Record,
    gpu: Option<&'static Gpu>,
    args: &Explain,
) -> Result<(), Failure> {
    let explanation = record::explain(record, gpu);
    if let Some(path) = &args.html {
        page::write_record(record, &explanation, gpu, path)?;
    }
    let text = if args.json {
        format!("{:#}\n", serde_json::json!(explanation))
    } else {
        explanation.text(args.why)
    };
    write_stdout(text.as_bytes())
}
