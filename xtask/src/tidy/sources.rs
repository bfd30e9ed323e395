//! What every text file must be: short, finished, and clean at the end of its lines.

use super::{Complaint, TextFile};

/// A Rust file longer than this has more than one subject.
const MAX_LINES: usize = 700;

/// Rust files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Words of unfinished work. Spelled in halves, so that this file passes its own rule.
const UNFINISHED: [&str; 4] = [
    concat!("to", "do!"),
    concat!("unimplemen", "ted!"),
    concat!("FIX", "ME"),
    concat!("#[ign", "ore"),
];

/// Whether the file at `path` is one that people write, as opposed to data and generated text.
pub(super) fn is_text(path: &str) -> bool {
    let suffixes = [".rs", ".toml", ".md", ".cu", ".cuh", ".sh", ".py", ".j2"];
    suffixes.iter().any(|suffix| path.ends_with(suffix)) || path == ".ci/run"
}

fn is_code(path: &str) -> bool {
    [".rs", ".cu", ".cuh", ".sh", ".py"]
        .iter()
        .any(|suffix| path.ends_with(suffix))
}

/// The rules that look at one line at a time.
pub(super) fn check(file: &TextFile) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let mut complain =
            |message: String| complaints.push(Complaint::at_line(&file.path, index + 1, message));
        if line.ends_with([' ', '\t']) {
            complain("white space at the end of the line".to_owned());
        }
        if file.path.ends_with(".rs") && line.contains('\t') {
            complain("a tab; rustfmt indents with spaces, a string says \\t".to_owned());
        }
        if is_code(&file.path) {
            for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                complain(format!("`{word}`: unfinished work belongs in an issue"));
            }
        }
    }
    complaints
}

/// No Rust file is long without a reason, and no reason outlives its file.
pub(super) fn check_long_files(files: &[TextFile]) -> Vec<Complaint> {
    check_lengths(files, LONG_FILES)
}

fn check_lengths(files: &[TextFile], allowed: &[(&str, &str)]) -> Vec<Complaint> {
    let long =
        |file: &&TextFile| file.path.ends_with(".rs") && file.text.lines().count() > MAX_LINES;
    let is_allowed = |file: &&TextFile| allowed.iter().any(|(path, _)| *path == file.path);
    let too_long = files.iter().filter(long).filter(|file| !is_allowed(file));
    let mut complaints: Vec<Complaint> = too_long
        .map(|file| {
            let lines = file.text.lines().count();
            Complaint::of_file(
                &file.path,
                format!("{lines} lines, more than {MAX_LINES}: split it by subject"),
            )
        })
        .collect();
    for (path, _) in allowed {
        if !files.iter().filter(long).any(|file| file.path == *path) {
            complaints.push(Complaint::of_file(
                path,
                format!("listed as long, but there is no such file of more than {MAX_LINES} lines"),
            ));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lines, tree};
    use super::*;

    #[track_caller]
    fn check_text(path: &str, text: &str, expected: &[&str]) {
        let tree = tree(&[(path, text)]);
        assert_eq!(lines(&check(&tree.texts[0])), expected);
    }

    #[test]
    fn lines_end_where_their_text_ends() {
        let complaint = |line: usize| format!("a.md:{line}: white space at the end of the line");
        check_text(
            "a.md",
            "one\ntwo \n\nfour\t\n",
            &[&complaint(2), &complaint(4)],
        );
        check_text("a.rs", "fn main() {}\n", &[]);
    }

    #[test]
    fn tabs_are_for_makefiles() {
        check_text(
            "a.rs",
            "fn main() {\n\tmain()\n}\n",
            &["a.rs:2: a tab; rustfmt indents with spaces, a string says \\t"],
        );
        check_text("a.cu", "\tint x;\n", &[]);
    }

    #[test]
    fn unfinished_work_is_found_in_code_only() {
        for word in UNFINISHED {
            let complaint = format!("a.rs:1: `{word}`: unfinished work belongs in an issue");
            check_text("a.rs", &format!("// {word}\n"), &[&complaint]);
            check_text("a.md", &format!("{word}\n"), &[]);
        }
    }

    #[test]
    fn long_files_need_a_reason_and_reasons_a_long_file() {
        let long = "//\n".repeat(MAX_LINES + 1);
        let at_limit = "//\n".repeat(MAX_LINES);
        let files = tree(&[("long.rs", &long), ("fits.rs", &at_limit), ("a.md", &long)]).texts;
        assert_eq!(
            lines(&check_lengths(&files, &[])),
            ["long.rs: 701 lines, more than 700: split it by subject"]
        );
        assert_eq!(check_lengths(&files, &[("long.rs", "one table")]), []);
        assert_eq!(
            lines(&check_lengths(&files[1..], &[("fits.rs", "one table")])),
            ["fits.rs: listed as long, but there is no such file of more than 700 lines"]
        );
    }

    #[test]
    fn data_is_no_text() {
        for path in [
            "a.rs",
            "docs/a.md",
            ".ci/run",
            "Cargo.toml",
            "kernels/cuda/gemm.cu",
        ] {
            assert!(is_text(path), "{path}");
        }
        for path in ["a.snap", "a.json", "Cargo.lock", "docs/decode.svg"] {
            assert!(!is_text(path), "{path}");
        }
    }
}
