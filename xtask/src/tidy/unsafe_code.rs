//! Where unsafe code may be: the bullet of docs/ARCHITECTURE.md that begins with [`BEGIN`] names it.

use super::dependencies::ARCHITECTURE;
use super::{Complaint, Tree};

/// How the bullet begins; the folders behind it are those that are made of unsafe code.
const BEGIN: &str = "- `unsafe` outside ";
/// Spelled in halves, so that this file passes its own rule.
const WORDS: [&str; 4] = [
    concat!("unsa", "fe {"),
    concat!("unsa", "fe fn"),
    concat!("unsa", "fe impl"),
    concat!("unsa", "fe extern"),
];

/// Each Rust file with unsafe code is named there, or lies in a folder that is; and what is named has some.
pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let text = tree.text(ARCHITECTURE);
    let Some((line, named)) = named(text) else {
        return vec![Complaint::of_file(
            ARCHITECTURE,
            format!("no paragraph begins with `{BEGIN}`, and says where unsafe code may be"),
        )];
    };
    let found: Vec<&str> = tree
        .texts
        .iter()
        .filter(|file| file.path.ends_with(".rs") && has_unsafe(&file.text))
        .map(|file| file.path.as_str())
        .collect();
    let mut complaints = Vec::new();
    for path in &found {
        if !named.iter().any(|name| path.starts_with(name)) {
            complaints.push(Complaint::of_file(
                path,
                format!("unsafe code that {ARCHITECTURE}:{line} does not name"),
            ));
        }
    }
    for name in named {
        if !found.iter().any(|path| path.starts_with(name)) {
            complaints.push(Complaint::at_line(
                ARCHITECTURE,
                line,
                format!("`{name}` has no unsafe code"),
            ));
        }
    }
    complaints
}

/// The paths in the bullet, and where it begins.
fn named(text: &str) -> Option<(usize, Vec<&str>)> {
    let (line, first) = text
        .lines()
        .zip(1..)
        .map(|(text, line)| (line, text))
        .find(|(_, text)| text.starts_with(BEGIN))?;
    let rest = text.lines().skip(line);
    let bullet = std::iter::once(first).chain(rest.take_while(|text| text.starts_with("  ")));
    // Of a path there is a slash, which no other code in a sentence has.
    let paths = bullet.flat_map(|text| text.split('`').skip(1).step_by(2));
    Some((line, paths.filter(|path| path.contains('/')).collect()))
}

/// Whether a line is unsafe code, and no comment.
fn has_unsafe(text: &str) -> bool {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
        .any(|line| WORDS.iter().any(|word| line.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lines, tree};
    use super::*;

    const PAGE: &str =
        "# A\n\n- `unsafe` outside `device/`: `a/b.rs` maps\n  files, and `c/`.\n- `d/` is next.\n";

    #[track_caller]
    fn check_files(page: &str, files: &[(&str, &str)], expected: &[&str]) {
        let mut all = vec![(ARCHITECTURE, page)];
        all.extend(files);
        assert_eq!(lines(&check(&tree(&all))), expected);
    }

    #[test]
    fn unsafe_code_is_where_the_page_says() {
        let block = format!("fn f() {{\n    {} g() }}\n}}\n", WORDS[0]);
        let comment = format!("// {} g() }}\n", WORDS[0]);
        let named = [
            ("device/x.rs", block.as_str()),
            ("a/b.rs", block.as_str()),
            ("c/d/e.rs", block.as_str()),
            ("d/f.rs", comment.as_str()),
        ];
        check_files(PAGE, &named, &[]);
        let other = [named.as_slice(), &[("d/g.rs", block.as_str())]].concat();
        let complaint = "d/g.rs: unsafe code that docs/ARCHITECTURE.md:3 does not name";
        check_files(PAGE, &other, &[complaint]);
        let gone = "docs/ARCHITECTURE.md:3: `c/` has no unsafe code";
        check_files(PAGE, &named[..2], &[gone]);
    }

    #[test]
    fn a_page_without_the_paragraph_is_told() {
        let complaint = format!(
            "docs/ARCHITECTURE.md: no paragraph begins with `{BEGIN}`, and says where unsafe code may be"
        );
        check_files("# A\n", &[], &[&complaint]);
    }
}
