//! The source lines that counters and findings point to.

use std::collections::BTreeMap;
use std::path::Path;

use stepscope_emulator::Report;

/// The lines of every file that a report names and that can be read.
#[derive(Debug)]
pub(crate) struct Sources {
    files: BTreeMap<String, Vec<String>>,
    /// What `PTX` is called, where the file is PTX itself.
    ptx: Option<String>,
}

/// The emulator's name for the PTX, where the compiler left no source line.
const PTX: &str = "PTX";

impl Sources {
    pub(crate) fn of(report: &Report, file: &Path, ptx: &str) -> Sources {
        let lines = report.lines.iter().map(|line| &line.file);
        let parties = report.findings.iter().flat_map(|finding| {
            let other = finding.other.as_ref().map(|other| &other.file);
            std::iter::once(&finding.party.file).chain(other)
        });
        let mut files = BTreeMap::new();
        for name in lines.chain(parties) {
            if files.contains_key(name) {
                continue;
            }
            let text = if name == PTX {
                Some(ptx.to_owned())
            } else {
                std::fs::read_to_string(name).ok()
            };
            let lines = text.as_deref().unwrap_or_default().lines();
            files.insert(name.clone(), lines.map(str::to_owned).collect());
        }
        let is_ptx = file.extension().is_some_and(|extension| extension == "ptx");
        Sources {
            files,
            ptx: is_ptx.then(|| file.display().to_string()),
        }
    }

    /// A line's text without the space around it.
    pub(crate) fn line(&self, file: &str, line: u32) -> Option<&str> {
        let index = (line as usize).checked_sub(1)?;
        let text = self.files.get(file)?.get(index)?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// What to call a file.
    pub(crate) fn name(&self, file: &str) -> String {
        match &self.ptx {
            Some(ptx) if file == PTX => ptx.clone(),
            _ => from_here(file),
        }
    }

    /// `file:line`.
    pub(crate) fn place(&self, file: &str, line: u32) -> String {
        format!("{}:{line}", self.name(file))
    }
}

/// A text in which files of the current folder are named from there, as the person does.
pub(crate) fn from_here(text: &str) -> String {
    let folder = std::env::current_dir().ok();
    match folder.as_deref().and_then(Path::to_str) {
        Some(folder) if folder.len() > 1 => text.replace(&format!("{folder}/"), ""),
        _ => text.to_owned(),
    }
}

/// A line of a file that can be read, without the space around it.
pub(crate) fn source_line(file: &str, line: u32) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().nth((line as usize).checked_sub(1)?)?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
