//! Every dependency is there for a stated reason and under a licence that was agreed to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use super::Complaint;
use super::front_pages::CrateRoot;

/// The page that says what each dependency is for.
pub(super) const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

/// The licences agreed to, as `cargo deny` reads them.
pub(super) const DENY: &str = "deny.toml";

/// What `cargo metadata` tells of the workspace and all it depends on, for every target platform.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// Of a crate inside the workspace.
    path: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: String,
}

/// A crate's name, version and licence expression.
#[derive(Debug)]
pub(super) struct Licence<'a> {
    name: &'a str,
    version: &'a str,
    expression: Option<&'a str>,
}

impl Metadata {
    pub(super) fn read(root: &Path) -> Result<Metadata> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--quiet"])
            .current_dir(root)
            .output()
            .context("cannot start cargo")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("cargo metadata printed another format")
    }

    fn members(&self) -> impl Iterator<Item = &Package> {
        let is_member = |package: &&Package| self.workspace_members.contains(&package.id);
        self.packages.iter().filter(is_member)
    }

    /// What the members name in their `Cargo.toml`, and which members do.
    pub(super) fn direct_dependencies(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut dependencies: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for member in self.members() {
            for dependency in member.dependencies.iter().filter(|d| d.path.is_none()) {
                let users = dependencies.entry(&dependency.name).or_default();
                users.insert(&member.name);
            }
        }
        dependencies
    }

    /// The licences of everything that is not ours.
    pub(super) fn licences(&self) -> Vec<Licence<'_>> {
        let is_foreign = |package: &&Package| !self.workspace_members.contains(&package.id);
        let foreign = self.packages.iter().filter(is_foreign);
        foreign
            .map(|package| Licence {
                name: &package.name,
                version: &package.version,
                expression: package.license.as_deref(),
            })
            .collect()
    }

    /// Where the members' libraries and binaries start.
    pub(super) fn crate_roots(&self, root: &Path) -> Vec<CrateRoot> {
        let targets = self.members().flat_map(|member| &member.targets);
        targets
            .filter_map(|target| {
                let kind = |name: &str| target.kind.iter().any(|kind| kind == name);
                let path = Path::new(&target.src_path).strip_prefix(root).ok()?;
                (kind("lib") || kind("bin")).then(|| CrateRoot {
                    path: path.to_string_lossy().replace('\\', "/"),
                    is_library: kind("lib"),
                })
            })
            .collect()
    }
}

/// The table under `## Dependencies` in `architecture` (first cell: names with commas between) has a row for each direct
/// dependency, and none for anything else.
pub(super) fn check_described(
    dependencies: &BTreeMap<&str, BTreeSet<&str>>,
    architecture: &str,
) -> Vec<Complaint> {
    let described = described(architecture);
    let mut complaints = Vec::new();
    for (name, users) in dependencies {
        if !described.iter().any(|(_, described)| described == name) {
            let users = users.iter().copied().collect::<Vec<_>>().join(", ");
            complaints.push(Complaint::of_file(
                ARCHITECTURE,
                format!(
                    "no row under `## Dependencies` says what `{name}` is for; used by {users}"
                ),
            ));
        }
    }
    for (line, name) in described {
        if !dependencies.contains_key(name) {
            complaints.push(Complaint::at_line(
                ARCHITECTURE,
                line,
                format!("`{name}` is described, but no member depends on it"),
            ));
        }
    }
    complaints
}

/// The crates named in the table of dependencies, each with its line.
fn described(architecture: &str) -> Vec<(usize, &str)> {
    let lines = architecture.lines().zip(1..);
    let section = lines
        .skip_while(|(line, _)| *line != "## Dependencies")
        .skip(1)
        .take_while(|(line, _)| !line.starts_with("## "));
    // The table's first two rows are its head.
    let rows = section.filter(|(line, _)| line.starts_with('|')).skip(2);
    rows.flat_map(|(row, line)| {
        let names = row.split('|').nth(1).unwrap_or_default().split(',');
        names.map(move |name| (line, name.trim().trim_matches('`')))
    })
    .collect()
}

/// The part of `deny.toml` that is about licences.
#[derive(Debug, Deserialize)]
struct Deny {
    licenses: Licenses,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    crate_name: String,
    allow: Vec<String>,
}

/// Each licence is satisfied by the allow-list of `deny`, or by an exception for that crate; no exception is left over.
pub(super) fn check_licences(licences: &[Licence<'_>], deny: &str) -> Vec<Complaint> {
    let Licenses { allow, exceptions } = match toml::from_str::<Deny>(deny) {
        Ok(deny) => deny.licenses,
        Err(error) => return vec![Complaint::of_file(DENY, error.message().to_owned())],
    };
    let mut complaints = Vec::new();
    for licence in licences {
        let excepted = exceptions
            .iter()
            .filter(|exception| exception.crate_name == licence.name);
        let allowed = allow
            .iter()
            .chain(excepted.flat_map(|exception| &exception.allow));
        if let Err(reason) = check_licence(licence, allowed) {
            let message = format!("{} {}: {reason}", licence.name, licence.version);
            complaints.push(Complaint::of_file(DENY, message));
        }
    }
    for exception in &exceptions {
        if !licences
            .iter()
            .any(|licence| licence.name == exception.crate_name)
        {
            let message = format!(
                "an exception for `{}`, which nothing uses",
                exception.crate_name
            );
            complaints.push(Complaint::of_file(DENY, message));
        }
    }
    complaints
}

fn check_licence<'a>(
    licence: &Licence<'_>,
    allowed: impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    let text = licence.expression.ok_or("names no licence")?;
    // Lax: crates of the first years wrote `MIT/Apache-2.0`.
    let expression = Expression::parse_mode(text, ParseMode::LAX).map_err(|error| {
        format!(
            "its licence `{text}` is no SPDX expression: {}",
            error.reason
        )
    })?;
    let allowed = allowed
        .map(|name| Licensee::parse(name).map_err(|_| format!("`{name}` is no SPDX licence")))
        .collect::<Result<Vec<Licensee>, String>>()?;
    if expression.evaluate(|requirement| allowed.iter().any(|one| one.satisfies(requirement))) {
        Ok(())
    } else {
        Err(format!("its licence `{text}` is not allowed"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::lines;
    use super::*;

    const LIST: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "Unicode-3.0"]
        exceptions = [{ crate = "inferno", allow = ["CDDL-1.0"] }]
    "#;

    #[track_caller]
    fn check(name: &str, expression: Option<&str>, expected: &[&str]) {
        let licence = |name, expression| Licence {
            name,
            version: "1.0.0",
            expression,
        };
        let licences = [
            licence(name, expression),
            licence("inferno", Some("CDDL-1.0")),
        ];
        assert_eq!(lines(&check_licences(&licences, LIST)), expected);
    }

    #[test]
    fn allowed_licences_pass() {
        for expression in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
        ] {
            check("a", Some(expression), &[]);
        }
    }

    #[test]
    fn other_licences_do_not() {
        check(
            "a",
            Some("GPL-3.0-only"),
            &["deny.toml: a 1.0.0: its licence `GPL-3.0-only` is not allowed"],
        );
        check(
            "a",
            Some("MIT AND OpenSSL"),
            &["deny.toml: a 1.0.0: its licence `MIT AND OpenSSL` is not allowed"],
        );
        check("a", None, &["deny.toml: a 1.0.0: names no licence"]);
    }

    #[test]
    fn an_exception_is_for_one_crate() {
        check(
            "a",
            Some("CDDL-1.0"),
            &["deny.toml: a 1.0.0: its licence `CDDL-1.0` is not allowed"],
        );
        assert_eq!(
            lines(&check_licences(&[], LIST)),
            ["deny.toml: an exception for `inferno`, which nothing uses"]
        );
    }

    #[test]
    fn a_list_that_cannot_be_read_is_a_complaint() {
        assert_eq!(
            lines(&check_licences(&[], "")),
            ["deny.toml: missing field `licenses`"]
        );
    }

    #[test]
    fn dependencies_are_described() {
        let metadata: Metadata = serde_json::from_str(
            r#"{
                "workspace_members": ["engine 0.1.0"],
                "packages": [{
                    "id": "engine 0.1.0", "name": "engine", "version": "0.1.0", "license": "MIT",
                    "dependencies": [
                        { "name": "half", "path": null },
                        { "name": "rayon", "path": null },
                        { "name": "kernels", "path": "../kernels" }
                    ],
                    "targets": [
                        { "kind": ["lib"], "src_path": "/repo/engine/src/lib.rs" },
                        { "kind": ["bench"], "src_path": "/repo/engine/benches/step.rs" }
                    ]
                }]
            }"#,
        )
        .expect("the format of cargo metadata");
        let check = |architecture: &str, expected: &[&str]| {
            let complaints = check_described(&metadata.direct_dependencies(), architecture);
            assert_eq!(lines(&complaints), expected);
        };
        let head =
            "# Architecture\n\n`rayon`\n\n## Dependencies\n| crate | what for |\n|---|---|\n";
        check(
            &format!("{head}| half, `rayon` | numbers and threads |\n"),
            &[],
        );
        check(
            &format!("{head}| half | bf16 |\n| gemm | speed |\n\n## More\n| rayon | threads |\n"),
            &[
                "docs/ARCHITECTURE.md: no row under `## Dependencies` says what `rayon` is for; used by engine",
                "docs/ARCHITECTURE.md:9: `gemm` is described, but no member depends on it",
            ],
        );
        assert_eq!(
            metadata.crate_roots(Path::new("/repo")),
            [CrateRoot {
                path: "engine/src/lib.rs".to_owned(),
                is_library: true,
            }]
        );
        assert!(metadata.licences().is_empty());
    }
}
