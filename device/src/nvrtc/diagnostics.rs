//! What the compiler says about a source.

use serde::{Deserialize, Serialize};

/// A remark of the compiler about a place in a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The path as given in [`Program::name`](super::Program::name), or a header's name.
    pub file: String,
    /// Counted from one.
    pub line: u32,
    /// How bad it is.
    pub severity: Severity,
    /// What the compiler says, its number included.
    pub message: String,
}

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The source compiles all the same.
    Warning,
    /// It does not compile.
    Error,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(
            f,
            "{}({}): {severity}: {}",
            self.file, self.line, self.message
        )
    }
}

/// The diagnostics in a program's log, in the compiler's order.
pub(super) fn parse(log: &str) -> Vec<Diagnostic> {
    log.lines().filter_map(parse_line).collect()
}

/// `kernels/cuda/k.cu(5): warning #177-D: variable "unused" …`
fn parse_line(line: &str) -> Option<Diagnostic> {
    let words = [
        ("): error", Severity::Error),
        ("): catastrophic error", Severity::Error),
        ("): warning", Severity::Warning),
    ];
    let found = words
        .iter()
        .find_map(|(word, severity)| Some((line.split_once(word)?, *severity)));
    let ((place, message), severity) = found?;
    let (file, number) = place.rsplit_once('(')?;
    // ` #177-D: variable …` or `: identifier …`
    let message = message.trim_start_matches(':').trim();
    Some(Diagnostic {
        file: file.to_owned(),
        line: number.parse().ok()?,
        severity,
        message: message.to_owned(),
    })
}

/// The first thing to mend, on one line, with how many more there are.
pub(super) fn headline(log: &str) -> String {
    let errors: Vec<Diagnostic> = parse(log)
        .into_iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .collect();
    match errors.as_slice() {
        [] => {
            // ptxas and the driver of the compiler name no line of the source.
            let is_error = |line: &&str| line.contains("error") || line.contains("fatal");
            let line = log
                .lines()
                .find(is_error)
                .or_else(|| log.lines().find(|line| !line.trim().is_empty()));
            line.unwrap_or("the compiler gave no reason")
                .trim()
                .to_owned()
        }
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_line_and_severity_are_taken_from_the_log() {
        let log = "\
kernels/cuda/bad.cu(1): error: identifier \"y\" is undefined
  __global__ void f(){ int x = y; }
                               ^

prelude.cuh(12): warning #177-D: variable \"u\" was declared
kernels/cuda/bad.cu(2): catastrophic error: cannot open source file \"q.h\"
1 error detected in the compilation of \"kernels/cuda/bad.cu\".
";
        let lines: Vec<String> = parse(log).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "kernels/cuda/bad.cu(1): error: identifier \"y\" is undefined",
                "prelude.cuh(12): warning: #177-D: variable \"u\" was declared",
                "kernels/cuda/bad.cu(2): error: cannot open source file \"q.h\"",
            ]
        );
        assert_eq!(
            headline(log),
            "kernels/cuda/bad.cu(1): error: identifier \"y\" is undefined (and 1 more)"
        );
    }

    #[test]
    fn errors_without_a_place_are_told_too() {
        assert_eq!(
            headline("nvrtc: error: invalid value for --gpu-architecture (-arch)\n"),
            "nvrtc: error: invalid value for --gpu-architecture (-arch)"
        );
        assert_eq!(
            headline("ptxas application ptx input, line 21; error   : Unknown modifier '.bar'\n"),
            "ptxas application ptx input, line 21; error   : Unknown modifier '.bar'"
        );
        assert_eq!(headline(""), "the compiler gave no reason");
    }
}
