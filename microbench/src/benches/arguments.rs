//! What of criterion's command line the groups themselves must know: which benchmarks are meant, and what is to happen to them.
//!
//! criterion reads the same arguments again ([`Criterion::configure_from_args`](criterion::Criterion::configure_from_args)) and obeys
//! all of them; it does not tell what it read.

use regex::Regex;

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Their names are printed.
    List,
    /// Each runs once, is checked, and has no time.
    Test,
    /// They are measured.
    Measure,
    /// Each runs for so long, and what ran is written down.
    Profile,
}

/// The command line.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) mode: Mode,
    filter: Filter,
}

#[derive(Debug)]
enum Filter {
    All,
    Nothing,
    Exactly(String),
    Matching(Regex),
}

/// Options of criterion 0.8 that take a value in the word behind them.
const WITH_VALUE: [&str; 18] = [
    "-c",
    "--color",
    "--colour",
    "-s",
    "--save-baseline",
    "-b",
    "--baseline",
    "--baseline-lenient",
    "--load-baseline",
    "--format",
    "--profile-time",
    "--sample-size",
    "--warm-up-time",
    "--measurement-time",
    "--nresamples",
    "--noise-threshold",
    "--confidence-level",
    "--significance-level",
];
const MORE_WITH_VALUE: [&str; 2] = ["--plotting-backend", "--output-format"];

impl Arguments {
    /// Of the words behind the program's name.
    ///
    /// # Errors
    /// The filter is no regular expression, in one line.
    pub(super) fn parse(words: impl IntoIterator<Item = String>) -> Result<Arguments, String> {
        let mut words = words.into_iter();
        let (mut flags, mut text) = (Vec::new(), None);
        while let Some(word) = words.next() {
            if WITH_VALUE.contains(&word.as_str()) || MORE_WITH_VALUE.contains(&word.as_str()) {
                words.next();
                flags.push(word);
            } else if word.starts_with('-') {
                flags.push(word);
            } else {
                text = Some(word);
            }
        }
        let has = |name: &str| {
            flags.iter().any(|flag| {
                let rest = flag.strip_prefix(name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        };
        let mode = if has("--list") {
            Mode::List
        } else if has("--test") || !has("--bench") {
            Mode::Test
        } else if has("--profile-time") {
            Mode::Profile
        } else {
            Mode::Measure
        };
        let filter = match text {
            _ if has("--ignored") => Filter::Nothing,
            None => Filter::All,
            Some(text) if has("--exact") => Filter::Exactly(text),
            Some(text) => Filter::Matching(Regex::new(&text).map_err(|error| {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim();
                format!("`{text}` is no regular expression ({why}); `--exact` takes it as a name")
            })?),
        };
        Ok(Arguments { mode, filter })
    }

    /// Whether the benchmark of this name is meant.
    pub(super) fn wants(&self, id: &str) -> bool {
        match &self.filter {
            Filter::All => true,
            Filter::Nothing => false,
            Filter::Exactly(name) => id == name,
            Filter::Matching(regex) => regex.is_match(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn cargo_bench_measures_and_cargo_test_does_not() {
        let check = |line: &str, mode: Mode| assert_eq!(of(line).unwrap().mode, mode, "{line}");
        check("--bench", Mode::Measure);
        check("--bench --quick gemm", Mode::Measure);
        check("", Mode::Test);
        check("--show-output", Mode::Test);
        check("--bench --test", Mode::Test);
        check("--bench --list --format terse", Mode::List);
        check("--bench --profile-time 5 decode", Mode::Profile);
        check("--bench --profile-time=5", Mode::Profile);
        // As criterion has it: what is tested is not profiled.
        check("--bench --test --profile-time 5", Mode::Test);
    }

    #[test]
    fn the_filter_is_the_word_that_belongs_to_no_option() {
        let check = |line: &str, id: &str, wants: bool| {
            assert_eq!(of(line).unwrap().wants(id), wants, "{line}: {id}");
        };
        check("--bench", "gemm/cpu", true);
        check("--bench gemm", "gemm/cpu", true);
        check("--bench gemm", "gemv/cpu", false);
        check("--bench --save-baseline gemm", "norm/cpu", true);
        check("--bench --sample-size 20 ^ge.v/", "gemv/cpu", true);
        check("--bench gemm/cpu --exact", "gemm/cpu/2", false);
        check("--bench gemm/cpu --exact", "gemm/cpu", true);
        check("--bench --ignored gemm", "gemm/cpu", false);
    }

    #[test]
    fn a_filter_that_is_none_is_said_in_one_line() {
        let error = of("--bench gemm(").unwrap_err();
        assert_eq!(
            error,
            "`gemm(` is no regular expression (error: unclosed group); `--exact` takes it as a name"
        );
    }
}
