//! The record of a run: every sample, one file per group beside criterion's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stepscope_profiler::environment::utc_now;
use stepscope_profiler::microbench::{FILE, Microbench, Row};
use stepscope_profiler::{Environment, Program};

use super::Surroundings;
use crate::Error;

/// Where criterion keeps its files: `CRITERION_HOME`, `criterion` in the target folder that the program lies in, or
/// `target/criterion` here. As criterion finds it, without asking cargo.
pub(super) fn folder() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(home) = variable("CRITERION_HOME") {
        return home.into();
    }
    if let Some(target) = variable("CARGO_TARGET_DIR") {
        return Path::new(&target).join("criterion");
    }
    let program = std::env::current_exe().unwrap_or_default();
    of_program(&program).unwrap_or_else(|| Path::new("target").join("criterion"))
}

/// cargo puts benches to `target/release/deps/`.
fn of_program(program: &Path) -> Option<PathBuf> {
    let deps = program.parent()?;
    let target = deps.parent()?.parent()?;
    (deps.file_name()? == "deps").then(|| target.join("criterion"))
}

/// The name given to `--save-baseline`.
pub(super) fn baseline(words: impl IntoIterator<Item = String>) -> Option<String> {
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "-s" || word == "--save-baseline" {
            return words.next();
        }
        if let Some(name) = word.strip_prefix("--save-baseline=") {
            return Some(name.to_owned());
        }
    }
    None
}

/// The record of a run that begins, without rows.
pub(super) fn of(surroundings: &Surroundings) -> Microbench {
    Microbench::new(
        surroundings.program.clone(),
        utc_now(),
        surroundings.environment(),
    )
}

/// Where the files of the groups lie, in one line.
pub(super) fn places(paths: &[PathBuf]) -> Option<String> {
    let first = paths.first()?;
    let group = |path: &PathBuf| {
        let folder = path.parent().and_then(Path::file_name);
        folder.unwrap_or_default().to_string_lossy().into_owned()
    };
    let groups: Vec<String> = paths.iter().map(group).collect();
    if groups.len() == 1 {
        return Some(format!("every sample: {}", first.display()));
    }
    let all = first.parent().and_then(Path::parent)?.join("GROUP");
    let all = all.join(first.file_name().unwrap_or_default());
    Some(format!(
        "every sample: {}, of {}",
        all.display(),
        groups.join(", ")
    ))
}

/// Writes a [`FILE`] for each group, in a folder of the group's name within `folder`, and says where they are; under names of their
/// own if a baseline is kept.
///
/// # Errors
/// A folder or a file cannot be written.
pub fn write_record(
    folder: &Path,
    program: &Program,
    environment: &Environment,
    rows: &[Row],
    baseline: Option<&str>,
) -> Result<Vec<PathBuf>, Error> {
    let mut groups: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in rows {
        groups
            .entry(row.group.clone())
            .or_default()
            .push(row.clone());
    }
    let name = match baseline {
        None => FILE.to_owned(),
        Some(baseline) => FILE.replace(".json", &format!(".{}.json", baseline.replace('/', "_"))),
    };
    let mut written = Vec::new();
    for (group, rows) in groups {
        let mut record = Microbench::new(program.clone(), utc_now(), environment.clone());
        record.rows = rows;
        let path = folder.join(&group).join(&name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(|error| {
            Error::Unusable(format!("cannot make {}: {error}", parent.display()))
        })?;
        record
            .write(&path)
            .map_err(|error| Error::Unusable(error.to_string()))?;
        written.push(path);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_where_criterions_do() {
        let of = |path: &str| of_program(Path::new(path));
        assert_eq!(
            of("/src/target/release/deps/groups-1a2b"),
            Some(PathBuf::from("/src/target/criterion"))
        );
        assert_eq!(of("/opt/stepscope/stepscope"), None);
        assert_eq!(of("stepscope"), None);
    }

    #[test]
    fn one_line_tells_where_all_files_lie() {
        let of = |groups: &[&str]| {
            let path = |group: &&str| Path::new("target/criterion").join(group).join(FILE);
            places(&groups.iter().map(path).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(
            of(&["gemm"]).unwrap(),
            "every sample: target/criterion/gemm/microbench.json"
        );
        assert_eq!(
            of(&["gemm", "norm"]).unwrap(),
            "every sample: target/criterion/GROUP/microbench.json, of gemm, norm"
        );
    }

    #[test]
    fn a_baseline_has_a_file_of_its_own() {
        let of = |line: &str| baseline(line.split_whitespace().map(str::to_owned));
        assert_eq!(
            of("--bench --save-baseline main gemm"),
            Some("main".to_owned())
        );
        assert_eq!(of("--bench --save-baseline=main"), Some("main".to_owned()));
        assert_eq!(of("--bench -s main"), Some("main".to_owned()));
        assert_eq!(of("--bench --baseline main"), None);
    }
}
