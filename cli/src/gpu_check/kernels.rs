//! Every operation over its shapes, against the CPU device.

use serde_json::{Value, json};
use stepscope_kernels::conformance::cases;
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::{Cpu, DType};

use crate::args::gpu_check::GpuCheck;
use crate::device::Gpu;
use crate::output::{Failure, print_stderr, write_stdout};

pub(super) fn run(args: &GpuCheck) -> Result<(), Failure> {
    let gpu = Gpu::start(args.device)?;
    let cpu = Cpu::new(None)?;
    let mut results = Vec::new();
    let mut wrong = 0;
    for dtype in [DType::BF16, DType::F16] {
        let cuda: Cuda = gpu.cuda(dtype)?;
        for case in cases(args.small) {
            // After a crash every case fails the same way: the first one is the one to look at.
            let outcome = match case.check(&cuda, &cpu) {
                Ok(outcome) => outcome,
                Err(error) => {
                    wrong += 1;
                    print_stderr(&format!("{case}, {dtype}: {error}"));
                    results.push(json!({
                        "case": case.to_string(), "dtype": dtype.name(), "error": error.to_string(),
                    }));
                    continue;
                }
            };
            if !outcome.is_right() {
                wrong += 1;
                print_stderr(&format!("{case}, {dtype}: wrong: {outcome:?}"));
            }
            results.push(json!({
                "case": case.to_string(),
                "dtype": dtype.name(),
                "kernel": outcome.kernel,
                "right": outcome.is_right(),
                "elements": outcome.elements,
                "wrong_elements": outcome.wrong,
                "worst": Some(outcome.worst).filter(|worst| worst.is_finite()),
                "guards_whole": outcome.guards_whole,
                "repeats": outcome.repeats,
            }));
        }
    }
    let summary = format!("{} of {} cases right", results.len() - wrong, results.len());
    let document: Value = json!({
        "schema": "stepscope.kernel-conformance/1",
        "device": gpu.describe()?,
        "summary": summary,
        "cases": results,
    });
    write_stdout(format!("{document:#}\n").as_bytes())?;
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::run(summary)),
    }
}
