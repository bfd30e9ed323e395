//! Sentences, and the figures that each of them can be traced to.

use serde::Serialize;

use crate::quantity;

/// A figure and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// The value, in `unit`.
    pub value: f64,
    /// `s`, `B`, `FLOP`, `B/s`, `FLOP/s`, `token/s`, or empty for a ratio or a count.
    pub unit: &'static str,
    /// The arithmetic with its inputs, or the source of a figure that was looked up.
    pub from: String,
}

impl Figure {
    /// A figure.
    pub fn new(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        from: impl Into<String>,
    ) -> Figure {
        Figure {
            name: name.into(),
            value,
            unit,
            from: from.into(),
        }
    }

    /// The value as people read it: `3.58 s`, `8.21 GB`, `9.04 TFLOP/s`.
    pub fn shown(&self) -> String {
        match self.unit {
            "s" => quantity::duration(self.value * 1e9),
            "" => quantity::significant(self.value, 4),
            unit => quantity::with_prefix(self.value, unit),
        }
    }
}

/// A sentence, or a few that belong together, and the figures they rest on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statement {
    /// Plain text.
    pub text: String,
    /// In the order of the text.
    pub figures: Vec<Figure>,
}

impl Statement {
    /// A statement.
    pub fn new(text: impl Into<String>, figures: Vec<Figure>) -> Statement {
        Statement {
            text: text.into(),
            figures,
        }
    }

    /// A statement that rests on no figure.
    pub fn plain(text: impl Into<String>) -> Statement {
        Statement::new(text, Vec::new())
    }

    /// The text, and under it, if asked for, a line per figure.
    pub fn render(&self, why: bool) -> String {
        let mut out = super::fold_line(&self.text);
        if why {
            for figure in &self.figures {
                out += &format!(
                    "\n    {} = {}\n        {}",
                    figure.name,
                    figure.shown(),
                    figure.from
                );
            }
        }
        out
    }
}
