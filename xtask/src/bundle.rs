//! Packs what a machine with a GPU needs, and nothing that must be fetched there.
//!
//! `target/gpu-bundle/` gets the program without its symbols, the kernels compiled for each architecture, the small models
//! with their reference logits, and `run.sh`, which runs `stepscope gpu-check` over them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cuda;

/// What the bundle may weigh.
const LIMIT: u64 = 60 << 20;

/// The architectures whose machine code goes along: A100, RTX 30, L4 and RTX 40, H100 and H200.
const ARCHS: &str = "sm_80,sm_86,sm_89,sm_90a";

/// The models with reference logits.
const FIXTURES: &str = "engine/tests/fixtures/models";

/// Where the bundle is made.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("target/gpu-bundle")
}

/// Makes it, and says what it weighs.
pub(crate) fn make(root: &Path) -> Result<u64> {
    cuda::bring(&cuda::folder(root))?;
    let folder = folder(root);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let program = build(root)?;
    copy(&program, &folder.join("stepscope"))?;
    copy(&root.join("bundle/run.sh"), &folder.join("run.sh"))?;
    copy_folder(&root.join(FIXTURES), &folder.join("fixtures"))?;
    run(Command::new(folder.join("stepscope"))
        .current_dir(root)
        .args(["kernel", "prebuild", "--arch", ARCHS, "--out"])
        .arg(folder.join("cubins")))?;
    let bytes = size(&folder)?;
    ensure!(
        bytes <= LIMIT,
        "{} has {bytes} bytes; {LIMIT} is the limit",
        folder.display()
    );
    Ok(bytes)
}

/// The program, optimised and without symbols.
fn build(root: &Path) -> Result<PathBuf> {
    run(Command::new(env!("CARGO"))
        .current_dir(root)
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .args(["build", "--release", "-p", "stepscope"]))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/stepscope"))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => copy(&entry.path(), &target)?,
        }
    }
    Ok(())
}

/// Bytes of all files below a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => size(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_copied_and_weighed() {
        let scratch = tempfile::tempdir().unwrap();
        let from = scratch.path().join("from");
        fs::create_dir_all(from.join("deep")).unwrap();
        fs::write(from.join("a"), [0; 3]).unwrap();
        fs::write(from.join("deep/b"), [0; 4]).unwrap();
        let to = scratch.path().join("to");
        copy_folder(&from, &to).unwrap();
        assert_eq!(size(&to).unwrap(), 7);
        assert!(to.join("deep/b").is_file());
    }
}
