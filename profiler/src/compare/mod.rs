//! Results of any frameworks side by side: one set of tables, a ranking of those that measured the same, and the reason where
//! two did not.
//!
//! [`Comparison::new`] takes what [`crate::results`] imports. Rows whose work differs (batch, lengths, model, GPU, requests' pattern)
//! are shown and never ranked against each other; within a group of rows of the same work, latencies are ranked only where they were
//! measured over the same thing ([`Basis`]).
//!
//! **Invariant:** a ranking says what it is of: the statistic, the basis, and what had to be taken as equal because no file says it.

mod alike;
pub mod export;
mod formats;
mod overrides;
mod ranking;
mod tables;

use crate::results::{Import, ResultRow};

pub use alike::{Difference, Group};
pub use overrides::Override;
pub use ranking::{Place, Ranking, Statistic};

#[cfg(doc)]
use crate::results::Basis;

/// A file that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// As the person named it.
    pub name: String,
    /// What it holds.
    pub import: Import,
}

/// A row and where it is from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry<'a> {
    /// Counts all rows of all files, from 1; tables and rankings call the row by it.
    pub number: usize,
    /// The file.
    pub source: &'a str,
    /// The row.
    pub row: &'a ResultRow,
}

/// Rows side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison<'a> {
    sources: &'a [Source],
    /// Every row of every file, in order.
    pub entries: Vec<Entry<'a>>,
    /// The rows by the work they measured; a group of one is ranked against nothing.
    pub groups: Vec<Group>,
    /// In what the groups differ.
    pub differences: Vec<Difference>,
}

impl<'a> Comparison<'a> {
    /// Puts the rows of all sources side by side.
    pub fn new(sources: &'a [Source]) -> Comparison<'a> {
        let rows = sources.iter().flat_map(|source| {
            source
                .import
                .rows
                .iter()
                .map(|row| (source.name.as_str(), row))
        });
        let entries: Vec<Entry<'a>> = rows
            .enumerate()
            .map(|(index, (source, row))| Entry {
                number: index + 1,
                source,
                row,
            })
            .collect();
        let groups = alike::groups(&entries);
        let differences = alike::differences(&entries, &groups);
        Comparison {
            sources,
            entries,
            groups,
            differences,
        }
    }

    /// Tables and sentences for a terminal, 120 columns at most unless a name is longer.
    pub fn text(&self) -> String {
        formats::text(self)
    }

    /// The same as Markdown.
    pub fn markdown(&self) -> String {
        formats::markdown(self)
    }

    /// One line per row with every dimension, seconds and tokens per second, for spreadsheets.
    pub fn csv(&self) -> String {
        formats::csv(self)
    }

    /// Everything, for programs.
    pub fn json(&self) -> serde_json::Value {
        formats::json(self)
    }
}
