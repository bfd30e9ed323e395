//! Which sheet an explanation takes its ceilings from.

use std::path::Path;

use stepscope_profiler::device_sheet::{DeviceSheet, Kept};
use stepscope_profiler::{Gpu, Record};

use crate::output::{Failure, print_stderr};

/// The name under which a sheet is looked for beside a record.
const BESIDE: &str = "device.json";

/// Keeps a sheet for explanations and benchmarks that come later.
pub(super) fn keep(sheet: &DeviceSheet) {
    if let Some(kept) = Kept::of_this_user()
        && let Err(error) = kept.keep(sheet)
    {
        print_stderr(&format!(
            "the sheet is not kept for explain and the benchmarks: {error}"
        ));
    }
}

/// Puts the ceilings of a sheet into a record that has none: those of `chosen`, of a sheet beside `record_path`, or of the last one of
/// the same card.
///
/// # Errors
/// `chosen` cannot be read, has no ceilings, or is of another kind of card.
pub(crate) fn add_ceilings(
    record: &mut Record,
    record_path: &Path,
    chosen: Option<&Path>,
) -> Result<(), Failure> {
    let gpu = record.environment.gpu.as_ref();
    let gpu = gpu.filter(|_| record.run.device == "cuda");
    if let Some(path) = chosen {
        let sheet =
            DeviceSheet::read(path).map_err(|e| Failure::input(format!("--ceilings: {e}")))?;
        let refused = |why: String| {
            Err(Failure::input(format!(
                "--ceilings {}: {why}",
                path.display()
            )))
        };
        let Some(gpu) = gpu else {
            return refused(format!(
                "the record is of the device {}, and the sheet of a GPU",
                record.run.device
            ));
        };
        if gpu.name != sheet.gpu.name {
            return refused(format!(
                "the sheet is of {}, the record of {}; measure that card with `stepscope device`, or take --gpu NAME",
                sheet.gpu.name, gpu.name
            ));
        }
        let Some(mut roofs) = sheet.roofs() else {
            return refused(
                "it has no ceilings: they need the groups memory and tensor, measured on a GPU"
                    .to_owned(),
            );
        };
        if gpu.uuid != sheet.gpu.uuid {
            roofs.method += " (another card of the same name)";
        }
        record.environment.roofs = Some(roofs);
        return Ok(());
    }
    if record.environment.roofs.is_some() {
        return Ok(());
    }
    record.environment.roofs = gpu.and_then(|gpu| found(gpu, record_path)?.roofs());
    Ok(())
}

/// The sheet of this very card that lies beside a record or in the folder above, or was kept last.
fn found(gpu: &Gpu, record_path: &Path) -> Option<DeviceSheet> {
    let folder = match record_path.is_dir() {
        true => record_path,
        false => record_path.parent()?,
    };
    let above = folder.parent().map(|above| above.join(BESIDE));
    for beside in [Some(folder.join(BESIDE)), above].into_iter().flatten() {
        if !beside.is_file() {
            continue;
        }
        match DeviceSheet::read(&beside) {
            Ok(sheet) if sheet.gpu.uuid == gpu.uuid => return Some(sheet),
            Ok(sheet) => print_stderr(&format!(
                "note: {} is of {} {}, not of the record's card, and is not used",
                beside.display(),
                sheet.gpu.name,
                sheet.gpu.uuid
            )),
            Err(error) => print_stderr(&format!("note: {error}; it is not used")),
        }
    }
    Kept::of_this_user()?
        .find(&gpu.uuid)
        .unwrap_or_else(|error| {
            print_stderr(&format!("note: {error}; it is not used"));
            None
        })
}
