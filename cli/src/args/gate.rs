//! `stepscope gate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stepscope_profiler::gate::{Select, Thresholds};

/// Judge whether HEAD is slower than BASE, from their records: SAME, FAST, SLOW or AMBIGUOUS, per step and operation
///
/// Exit code: 0 nothing is slower (SAME, FAST, AMBIGUOUS); 1 something is SLOW; 2 the data cannot
/// be used. docs/gate.md has the rule, and how often it is wrong.
///
/// One record a side, with many repetitions:
///   stepscope one-batch --repetitions 20 --record-all-steps --out base
///   stepscope gate base head
///
/// Better: several processes of each build, recorded in turn; each is then one observation:
///   stepscope gate --base base-* --head head-*
///
/// BASE and HEAD are a record.json, the folder of a run, or a folder that holds several of either; or
/// two microbench.json, which are judged kernel by kernel.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Gate {
    /// Records of the build to hold the other one against
    #[arg(value_name = "BASE", required_unless_present = "base_files")]
    pub(crate) base: Option<PathBuf>,

    /// Records of the build that is judged
    #[arg(value_name = "HEAD", required_unless_present = "head_files")]
    pub(crate) head: Option<PathBuf>,

    /// Several records of BASE, one process each
    #[arg(long = "base", num_args = 1.., value_name = "FILE", conflicts_with_all = ["base", "head"], requires = "head_files")]
    pub(crate) base_files: Vec<PathBuf>,

    /// Several records of HEAD, one process each
    #[arg(long = "head", num_args = 1.., value_name = "FILE", conflicts_with_all = ["base", "head"], requires = "base_files")]
    pub(crate) head_files: Vec<PathBuf>,

    /// More records of BASE's own build: held against BASE first; where that alarms, SLOW and FAST become AMBIGUOUS
    #[arg(long, num_args = 1.., value_name = "FILE", help_heading = "Controls")]
    pub(crate) null: Vec<PathBuf>,

    /// Make the null control now: run BASE's recorded one-batch again, twice per record of BASE and in turn, and hold the one
    /// against the other
    ///
    /// PROGRAM is the stepscope that made BASE; without it this one, if version and commit are BASE's. Run it in the folder
    /// that BASE was recorded from, on the same machine.
    #[arg(long, value_name = "PROGRAM", num_args = 0..=1, require_equals = true, conflicts_with = "null", help_heading = "Controls")]
    pub(crate) null_run: Option<Option<PathBuf>>,

    /// Compare although the runs were on two cards of one kind
    #[arg(long, help_heading = "Controls")]
    pub(crate) across_cards: bool,

    /// Judge steps alone, or operations alone
    #[arg(long, value_name = "WHAT")]
    pub(crate) only: Option<Only>,

    /// One point of a sweep, counted from 0 [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) point: Option<usize>,

    #[command(flatten)]
    pub(crate) limits: Limits,

    /// Print the outcome as JSON
    #[arg(long, conflicts_with = "markdown")]
    pub(crate) json: bool,

    /// Print the outcome as Markdown, for a comment
    #[arg(long)]
    pub(crate) markdown: bool,
}

/// The rule's thresholds; the defaults are NVBench's.
#[derive(Debug, Args)]
#[command(next_help_heading = "Thresholds")]
pub(crate) struct Limits {
    /// How far apart the intervals from minimum to third quartile must lie for SLOW or FAST
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, value_parser = not_negative)]
    pub(crate) gap: f64,

    /// How near medians, and each sample's neighbour on the other side, must be for SAME
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, value_parser = not_negative)]
    pub(crate) same: f64,

    /// How much of the narrower interval must lie in the other one for SAME
    #[arg(long, value_name = "PERCENT", default_value_t = 50.0, value_parser = percent)]
    pub(crate) same_overlap: f64,

    /// The part of the samples that must have a near neighbour for SAME
    #[arg(long, value_name = "PERCENT", default_value_t = 97.0, value_parser = percent)]
    pub(crate) sample_coverage: f64,

    /// The part of the distinct samples that must have a near neighbour for SAME
    #[arg(long, value_name = "PERCENT", default_value_t = 80.0, value_parser = percent)]
    pub(crate) support_coverage: f64,

    /// Fewer steps a side are AMBIGUOUS
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = super::positive)]
    pub(crate) min_steps: usize,

    /// Fewer processes a side are AMBIGUOUS, where several are given
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = super::positive)]
    pub(crate) min_processes: usize,

    /// In how many comparisons of equal builds chance may make some row SLOW, where a process is a sample
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    pub(crate) false_alarms: f64,
}

impl Limits {
    /// The thresholds as fractions.
    pub(crate) fn thresholds(&self) -> Thresholds {
        Thresholds {
            gap: self.gap / 100.0,
            same: self.same / 100.0,
            same_overlap: self.same_overlap / 100.0,
            sample_coverage: self.sample_coverage / 100.0,
            support_coverage: self.support_coverage / 100.0,
            min_steps: self.min_steps,
            min_processes: self.min_processes,
            false_alarms: self.false_alarms / 100.0,
        }
    }
}

/// Which rows to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Only {
    Steps,
    Operations,
}

impl Only {
    /// The rows of an optional choice.
    pub(crate) fn select(only: Option<Only>) -> Select {
        match only {
            None => Select::All,
            Some(Only::Steps) => Select::Steps,
            Some(Only::Operations) => Select::Operations,
        }
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err("must be a number of percent, 0 or more".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("must be a number of percent from 0 to 100".to_owned()),
    }
}
