//! What the emulated device counted, in the words of the sheet.

use stepscope_emulator::driver::LaunchReport;
use stepscope_microbench::sheet::Counted;
use stepscope_profiler::device_sheet::Quantity;

use crate::emulate;

/// Bytes of a sector.
const SECTOR: u64 = 32;

pub(super) fn counted(report: &LaunchReport) -> Counted {
    let c = &report.report.counters;
    let conflicts = c.shared_wavefronts - c.shared_ideal_wavefronts;
    let of = [
        (Quantity::Launches, 1),
        (Quantity::LoadedBytes, SECTOR * c.global_load_sectors),
        (Quantity::StoredBytes, SECTOR * c.global_store_sectors),
        (Quantity::ReadSetBytes, c.compulsory_read_bytes),
        (Quantity::WrittenSetBytes, c.compulsory_write_bytes),
        (Quantity::GlobalLoads, c.global_load_requests),
        (Quantity::SharedLoads, c.shared_load_requests),
        (Quantity::SharedWavefronts, c.shared_wavefronts),
        (Quantity::BankConflicts, conflicts),
        (Quantity::TensorInstructions, c.tensor_instructions),
        (Quantity::TensorFlops, c.tensor_flops),
        (
            Quantity::TensorIntegerOperations,
            c.tensor_integer_operations,
        ),
        (Quantity::F32Flops, c.f32_flops),
        (Quantity::IntegerInstructions, c.integer_instructions),
        (Quantity::Atomics, c.global_atomics),
        (Quantity::LocalAccesses, c.local_requests),
    ];
    Counted {
        kernel: emulate::short_name(&report.kernel),
        of: of.into_iter().collect(),
        findings: report
            .report
            .findings
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}
