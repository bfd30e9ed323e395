//! The picture of what changed between two profiles.

use inferno::flamegraph::color::{BackgroundColor, Color};

use crate::error::Error;
use crate::stacks::Tree;
use crate::svg::{SvgOptions, draw, inferno_options};

/// Darker than a frame that did not change, which is nearly white.
const BACKGROUND: Color = Color {
    r: 222,
    g: 222,
    b: 222,
};

const LEGEND: &str = "width: new · red: grew · blue: shrank";

/// A differential flame graph.
#[derive(Debug, Clone)]
pub struct DiffGraph {
    /// The picture: widths are the new times, red frames grew, blue ones shrank.
    pub svg: String,
    /// Stacks of the old profile that the new one lacks, as `frame;frame nanoseconds`: without a new time they have no width
    /// to show. The picture's subtitle counts them.
    pub only_in_old: Vec<String>,
}

/// Draws what changed from the stacks `old` to the stacks `new`. Widths are the new times; a frame's colour is the change of
/// the frame with all that stands on it: red grew, blue shrank.
///
/// # Errors
/// When a line is not a folded stack, or the new stacks hold no time.
pub fn diff_svg(old: &[String], new: &[String], options: &SvgOptions) -> Result<DiffGraph, Error> {
    // The new profile gives the order; what only the old one has follows.
    let mut root = Tree::default();
    root.add_lines(new, 1)?;
    root.add_lines(old, 0)?;

    let mut lines = Vec::new();
    let mut only_in_old = Vec::new();
    root.visit(&mut |path, tree| {
        let (before, after) = (tree.total(0), tree.total(1));
        if after == 0 {
            if tree.own[0] > 0 {
                only_in_old.push(format!("{path} {}", tree.own[0]));
            }
            return;
        }
        lines.push(change_line(path, before, after));
        if tree.own[1] > 0 {
            lines.push(format!("{path} {}", tree.own[1]));
        }
    });

    let mut subtitle = LEGEND.to_owned();
    subtitle += &match only_in_old.len() {
        0 => String::new(),
        1 => " · 1 stack of the old profile is gone".to_owned(),
        n => format!(" · {n} stacks of the old profile are gone"),
    };
    if let Some(own) = &options.subtitle {
        subtitle += &format!(" · {own}");
    }
    let mut inferno_options = inferno_options(&SvgOptions {
        subtitle: Some(subtitle),
        ..options.clone()
    });
    inferno_options.notes = LEGEND.to_owned();
    inferno_options.bgcolors = Some(BackgroundColor::Flat(BACKGROUND));
    Ok(DiffGraph {
        svg: draw(&root, &lines, &mut inferno_options)?,
        only_in_old,
    })
}

/// A line without width that gives the frame at the end of `path` its change of time.
///
/// inferno colours only the frame that ends a line, by that line's own two counts, and a frame keeps the change that it was
/// begun with. Without such a line before those of its children, `forward` would stay white while all within it slows down.
/// The second count is the width, here 0, and inferno subtracts the first from it as two's complement, so growth is written as the
/// complement of the change.
fn change_line(path: &str, before: u128, after: u128) -> String {
    let clamped = |ns: u128| i64::try_from(ns).unwrap_or(i64::MAX);
    let shrinkage = clamped(before) - clamped(after);
    format!("{path} {} 0", shrinkage as u64)
}
