//! Every crate opens with a page that says what it is and what is deliberately absent from it.

use super::{Complaint, Tree};

/// The file in which a crate starts.
#[derive(Debug, PartialEq)]
pub(super) struct CrateRoot {
    /// Relative to the repository's root.
    pub(super) path: String,
    /// A library states its invariants; a binary, test or bench only says what it is.
    pub(super) is_library: bool,
}

/// A front page is there, and a library's names an invariant.
pub(super) fn check(tree: &Tree, roots: &[CrateRoot]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for root in roots {
        let text = tree.text(&root.path);
        let page: Vec<&str> = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        if page.is_empty() {
            complaints.push(Complaint::of_file(
                &root.path,
                "no front page: the first lines say in `//!` comments what this is",
            ));
        } else if root.is_library && !page.iter().any(|line| line.contains("**Invariant")) {
            complaints.push(Complaint::of_file(
                &root.path,
                "the front page names no **Invariant:**, what is deliberately absent",
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
    fn check_root(is_library: bool, text: &str, expected: &[&str]) {
        let root = CrateRoot {
            path: "a.rs".to_owned(),
            is_library,
        };
        assert_eq!(lines(&check(&tree(&[("a.rs", text)]), &[root])), expected);
    }

    #[test]
    fn a_library_opens_with_its_invariants() {
        let bare = "a.rs: no front page: the first lines say in `//!` comments what this is";
        let open = "a.rs: the front page names no **Invariant:**, what is deliberately absent";
        check_root(true, "", &[bare]);
        check_root(true, "use std::fmt;\n//! Late.\n", &[bare]);
        check_root(true, "//! Kernels.\n", &[open]);
        check_root(
            true,
            "//! Kernels.\n\n//! **Invariant:** no timer.\n",
            &[open],
        );
        check_root(
            true,
            "//! Kernels.\n//!\n//! **Invariant:** no timer.\n",
            &[],
        );
    }

    #[test]
    fn a_binary_says_what_it_is() {
        check_root(false, "//! The binary.\nfn main() {}\n", &[]);
        check_root(
            false,
            "fn main() {}\n",
            &["a.rs: no front page: the first lines say in `//!` comments what this is"],
        );
    }
}
