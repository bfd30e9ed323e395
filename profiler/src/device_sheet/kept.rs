//! Where the last sheet of each card is kept, for whoever needs its ceilings afterwards.

use std::path::{Path, PathBuf};

use stepscope_device::nvrtc::cache_folder;

use super::DeviceSheet;
use crate::Error;
use crate::record::write_whole;

/// A folder with a sheet for each card, named by its UUID.
#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// `devices` in this user's cache folder ([`cache_folder`]); none for a user without a home.
    pub fn of_this_user() -> Option<Kept> {
        Some(Kept::in_folder(cache_folder()?.join("devices")))
    }

    /// Those in a folder, which need not exist.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Kept {
        Kept {
            folder: folder.into(),
        }
    }

    /// Where the sheet of a card lies; none where its UUID is no plain name, as where the driver tells none.
    pub fn path_of(&self, uuid: &str) -> Option<PathBuf> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let is_safe = !uuid.is_empty() && uuid.chars().all(is_name);
        is_safe.then(|| self.folder.join(format!("{uuid}.json")))
    }

    /// Keeps a sheet of a GPU that has ceilings, and says where. A whole one is not replaced by a quick one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, sheet: &DeviceSheet) -> Result<Option<PathBuf>, Error> {
        if sheet.device != "cuda" || sheet.roofs().is_none() {
            return Ok(None);
        }
        let Some(path) = self.path_of(&sheet.gpu.uuid) else {
            return Ok(None);
        };
        let older = DeviceSheet::read(&path).ok();
        if sheet.quick && older.is_some_and(|older| !older.quick) {
            return Ok(None);
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| Error::write(folder, error))?;
        write_whole(sheet, &path)?;
        Ok(Some(path))
    }

    /// The sheet of a card, if one is kept.
    ///
    /// # Errors
    /// The file cannot be read, is no sheet, or is of another card.
    pub fn find(&self, uuid: &str) -> Result<Option<DeviceSheet>, Error> {
        let Some(path) = self.path_of(uuid).filter(|path| path.is_file()) else {
            return Ok(None);
        };
        let sheet = DeviceSheet::read(&path)?;
        if sheet.gpu.uuid != uuid {
            return Err(Error::content(format!(
                "{} is of {} {}, not of {uuid}",
                path.display(),
                sheet.gpu.name,
                sheet.gpu.uuid
            )));
        }
        Ok(Some(sheet))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sheet;
    use super::*;

    #[test]
    fn a_card_without_a_plain_name_has_no_file() {
        let kept = Kept::in_folder("devices");
        assert_eq!(kept.path_of(""), None);
        assert_eq!(kept.path_of("../x"), None);
        assert_eq!(
            kept.path_of("GPU-0123-abcd"),
            Some(Path::new("devices").join("GPU-0123-abcd.json"))
        );
    }

    #[test]
    fn the_last_whole_sheet_with_ceilings_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::in_folder(folder.path().join("cache/devices"));
        assert_eq!(kept.find("GPU-1").unwrap(), None);
        let mut first = sheet(&[("mma_bf16", 6e14), ("dram_read", 3e12)]);
        first.quick = true;
        let path = kept.keep(&first).unwrap();
        assert_eq!(path, kept.path_of("GPU-1"));
        let mut whole = sheet(&[("mma_bf16", 7e14), ("dram_read", 3e12)]);
        assert!(kept.keep(&whole).unwrap().is_some());
        assert_eq!(kept.keep(&first).unwrap(), None, "a quick one");
        assert_eq!(kept.keep(&sheet(&[("l2_read", 3e12)])).unwrap(), None);
        assert_eq!(kept.find("GPU-1").unwrap(), Some(whole.clone()));
        whole.device = "emulated".to_owned();
        whole.gpu.uuid = "GPU-2".to_owned();
        assert_eq!(kept.keep(&whole).unwrap(), None);
    }

    #[test]
    fn what_is_broken_or_of_another_card_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::in_folder(folder.path());
        let foreign = sheet(&[("mma_bf16", 6e14), ("dram_read", 3e12)]);
        let path = kept.path_of("GPU-2").unwrap();
        std::fs::write(&path, serde_json::to_string(&foreign).unwrap()).unwrap();
        let error = kept.find("GPU-2").unwrap_err().to_string();
        assert!(
            error.contains("is of a card GPU-1, not of GPU-2"),
            "{error}"
        );
        std::fs::write(&path, "{").unwrap();
        let error = kept.find("GPU-2").unwrap_err().to_string();
        assert!(error.contains("GPU-2.json is no device sheet"), "{error}");
    }
}
