//! The repository's own rules: those that neither the compiler nor clippy checks.
//!
//! Each rule is a pure function from texts to [`Complaint`]s, tested on small texts; [`run`] reads the tree once and
//! hands it to all of them. Files that git ignores are none of its business.

mod dependencies;
mod documents;
mod front_pages;
mod sources;
mod unsafe_code;

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A rule that is broken somewhere.
#[derive(Debug, PartialEq)]
struct Complaint {
    /// Relative to the repository's root.
    path: String,
    /// Counted from one; `None` where the whole file is meant.
    line: Option<usize>,
    message: String,
}

impl Complaint {
    fn at_line(path: &str, line: usize, message: impl Into<String>) -> Complaint {
        Complaint {
            path: path.to_owned(),
            line: Some(line),
            message: message.into(),
        }
    }

    fn of_file(path: &str, message: impl Into<String>) -> Complaint {
        Complaint {
            path: path.to_owned(),
            line: None,
            message: message.into(),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// A file of the repository.
#[derive(Debug)]
struct TextFile {
    /// Relative to the repository's root, with `/` between its parts.
    path: String,
    text: String,
}

/// The files git tracks or would track, as far as they are text.
#[derive(Debug)]
struct Tree {
    paths: Vec<String>,
    texts: Vec<TextFile>,
}

impl Tree {
    fn read(root: &Path) -> Result<Tree> {
        let output = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root)
            .output()
            .context("cannot start git, which tidy asks for the repository's files")?;
        ensure!(
            output.status.success(),
            "tidy works in a git checkout; git says: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let listing = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
        let listed = listing.split('\0').filter(|path| !path.is_empty());
        // A deleted file stays listed until the next commit.
        let paths: Vec<String> = listed
            .filter(|path| root.join(path).is_file())
            .map(str::to_owned)
            .collect();
        let mut texts = Vec::new();
        for path in paths.iter().filter(|path| sources::is_text(path)) {
            let bytes =
                std::fs::read(root.join(path)).with_context(|| format!("cannot read {path}"))?;
            let text = String::from_utf8(bytes).with_context(|| format!("{path} is not UTF-8"))?;
            texts.push(TextFile {
                path: path.clone(),
                text,
            });
        }
        Ok(Tree { paths, texts })
    }

    /// The text of the file at `path`; empty where there is none.
    fn text(&self, path: &str) -> &str {
        let file = self.texts.iter().find(|file| file.path == path);
        file.map_or("", |file| &file.text)
    }
}

/// Checks every rule and prints each place where one is broken.
///
/// # Errors
/// A rule is broken, or the repository cannot be read.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let metadata = dependencies::Metadata::read(root)?;

    let mut complaints = Vec::new();
    complaints.extend(tree.texts.iter().flat_map(sources::check));
    complaints.extend(sources::check_long_files(&tree.texts));
    complaints.extend(front_pages::check(&tree, &metadata.crate_roots(root)));
    complaints.extend(documents::check(&tree));
    complaints.extend(unsafe_code::check(&tree));
    complaints.extend(dependencies::check_described(
        &metadata.direct_dependencies(),
        tree.text(dependencies::ARCHITECTURE),
    ));
    complaints.extend(dependencies::check_licences(
        &metadata.licences(),
        tree.text(dependencies::DENY),
    ));

    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    match complaints.len() {
        0 => {
            println!("tidy: {} files in order", tree.paths.len());
            Ok(())
        }
        1 => bail!("tidy has one complaint, above"),
        many => bail!("tidy has {many} complaints, above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders complaints as [`run`] prints them.
    pub(super) fn lines(complaints: &[Complaint]) -> Vec<String> {
        complaints.iter().map(Complaint::to_string).collect()
    }

    /// A tree of these files.
    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |&(path, text): &(&str, &str)| TextFile {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        Tree {
            paths: files.iter().map(|(path, _)| path.to_string()).collect(),
            texts: files.iter().map(file).collect(),
        }
    }

    #[test]
    fn complaints_name_the_place() {
        let complaints = [
            Complaint::at_line("a/b.rs", 3, "a tab"),
            Complaint::of_file("c.md", "too long"),
        ];
        assert_eq!(lines(&complaints), ["a/b.rs:3: a tab", "c.md: too long"]);
    }
}
