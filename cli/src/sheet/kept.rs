//! Where sheets are kept, and which one an explanation takes its ceilings from.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use stepscope_device::nvrtc::cache_folder;
use stepscope_profiler::device_sheet::DeviceSheet;
use stepscope_profiler::{Gpu, Record};

use crate::output::{Failure, print_stderr};

/// The name under which a sheet is looked for beside a record.
const BESIDE: &str = "device.json";

/// Where the last sheet of a card lies.
fn file_of(uuid: &str) -> Option<PathBuf> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_safe = !uuid.is_empty() && uuid.chars().all(is_name);
    Some(cache_folder()?.join("devices").join(format!("{uuid}.json"))).filter(|_| is_safe)
}

/// Keeps a sheet of a GPU that has ceilings. A whole one is not replaced by a quick one.
pub(super) fn keep(sheet: &DeviceSheet) {
    if sheet.device != "cuda" || sheet.roofs().is_none() {
        return;
    }
    let Some(path) = file_of(&sheet.gpu.uuid) else {
        return;
    };
    let older = DeviceSheet::read(&path).ok();
    if sheet.quick && older.is_some_and(|older| !older.quick) {
        return;
    }
    if let Err(error) = write(&path, sheet) {
        print_stderr(&format!(
            "the sheet is not kept for explain: cannot write {}: {error}",
            path.display()
        ));
    }
}

/// Written beside and renamed: whoever reads sees a whole file.
fn write(path: &Path, sheet: &DeviceSheet) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, sheet)?;
    file.flush()?;
    file.persist(path)?;
    Ok(())
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
    let path = file_of(&gpu.uuid).filter(|path| path.is_file())?;
    match DeviceSheet::read(&path) {
        Ok(sheet) if sheet.gpu.uuid == gpu.uuid => Some(sheet),
        Ok(_) => None,
        Err(error) => {
            print_stderr(&format!("note: {error}; it is not used"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_without_a_plain_name_has_no_file() {
        assert!(file_of("").is_none());
        assert!(file_of("../x").is_none());
        if cache_folder().is_some() {
            let path = file_of("GPU-0123-abcd").unwrap();
            assert!(path.ends_with("devices/GPU-0123-abcd.json"));
        }
    }
}
