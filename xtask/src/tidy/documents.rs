//! What the documents must hold: a changelog in order, links that lead somewhere, and no path of one machine.

use super::{Complaint, TextFile, Tree};

const CHANGELOG: &str = "CHANGELOG.md";

/// Beginnings of paths that exist on the machine of whoever wrote them.
const PRIVATE_PATHS: [&str; 4] = ["/work/", "/tmp/target", "/root/", "/home/"];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if !tree
        .text(CHANGELOG)
        .lines()
        .any(|line| line.trim() == "## [Unreleased]")
    {
        complaints.push(Complaint::of_file(
            CHANGELOG,
            "no `## [Unreleased]` section, the one that changes are written into",
        ));
    }
    for file in tree.texts.iter().filter(|file| file.path.ends_with(".md")) {
        complaints.extend(check_paths(file));
        complaints.extend(check_links(file, &tree.paths));
    }
    complaints
}

fn check_paths(file: &TextFile) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for private in PRIVATE_PATHS.iter().filter(|private| names(line, private)) {
            complaints.push(Complaint::at_line(
                &file.path,
                index + 1,
                format!("`{private}…` is a path of one machine"),
            ));
        }
    }
    complaints
}

/// Whether `line` holds `path` as an absolute path: `../work/` and `network/work/` are none.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && !"._-/}".contains(before))
    })
}

/// Relative links lead to files or folders of the repository.
fn check_links(file: &TextFile, paths: &[String]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut in_code = false;
    for (index, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in link_targets(line) {
            let inside = target.split('#').next().unwrap_or_default();
            let is_relative = !inside.is_empty() && !inside.contains(':');
            if is_relative && !exists(&resolve(&file.path, inside), paths) {
                complaints.push(Complaint::at_line(
                    &file.path,
                    index + 1,
                    format!("the link to `{target}` leads nowhere"),
                ));
            }
        }
    }
    complaints
}

/// The `target` of each `[text](target)`.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?;
        // `(target "title")`
        target.split_whitespace().next()
    })
}

/// `target` as seen from the file at `path`, relative to the repository's root.
fn resolve(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                // A link out of the repository resolves to a name that no file has.
                if parts.pop().is_none() {
                    return format!("../{target}");
                }
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn exists(target: &str, paths: &[String]) -> bool {
    let folder = format!("{target}/");
    target.is_empty()
        || paths
            .iter()
            .any(|path| path == target || path.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lines, tree};
    use super::*;

    const IN_ORDER: &str = "# Changelog\n\n## [Unreleased]\n";

    #[track_caller]
    fn check_page(text: &str, expected: &[&str]) {
        let tree = tree(&[
            (CHANGELOG, IN_ORDER),
            ("README.md", ""),
            ("docs/page.md", text),
            ("docs/decode.svg", ""),
        ]);
        assert_eq!(lines(&check(&tree)), expected);
    }

    #[test]
    fn the_changelog_has_room_for_changes() {
        let missing =
            "CHANGELOG.md: no `## [Unreleased]` section, the one that changes are written into";
        for changelog in [("other.md", ""), (CHANGELOG, "# Changelog\n\n## [0.1.0]\n")] {
            assert_eq!(lines(&check(&tree(&[changelog]))), [missing]);
        }
        assert_eq!(check(&tree(&[(CHANGELOG, IN_ORDER)])), []);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let machine = concat!("/ro", "ot/");
        check_page(
            &format!("cd {machine}stepscope\n"),
            &[&format!(
                "docs/page.md:1: `{machine}…` is a path of one machine"
            )],
        );
        check_page(
            concat!("see `/wo", "rk/main`\n"),
            &[concat!(
                "docs/page.md:1: `/wo",
                "rk/…` is a path of one machine"
            )],
        );
        check_page(
            "in $HOME/work/main, ../work/main and network/work/main\n",
            &[],
        );
    }

    #[test]
    fn links_lead_somewhere() {
        check_page(
            "[the graph](decode.svg), [readme](../README.md#use), ![up](../docs), [here](#below)\n",
            &[],
        );
        check_page("[sglang](https://github.com/sgl-project/sglang)\n", &[]);
        check_page("```rust\nlet x = rows[0](prefill);\n```\n", &[]);
        check_page(
            "one\n[a](prefill.svg) [b](../../shared/a.md \"title\")\n",
            &[
                "docs/page.md:2: the link to `prefill.svg` leads nowhere",
                "docs/page.md:2: the link to `../../shared/a.md` leads nowhere",
            ],
        );
    }
}
