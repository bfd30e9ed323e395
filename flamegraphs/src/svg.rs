//! The picture of folded stacks.

use inferno::flamegraph::color::{BackgroundColor, Color};
use inferno::flamegraph::{self, Direction, Options, TextTruncateDirection};

use crate::error::{Error, ErrorKind};
use crate::palette;
use crate::stacks::{Tree, writable};

const WIDTH: usize = 1200;
/// 104 days. inferno computes widths as doubles, and multiplies changes by 150 in 64 bits.
const MOST_NS: u128 = 1 << 53;
const FRAME_HEIGHT: usize = 20;
const BACKGROUND: Color = Color {
    r: 255,
    g: 255,
    b: 255,
};
/// Characters that fit above the graph: of the title between the buttons at its sides, of the subtitle below it.
const TITLE_CHARACTERS: usize = 96;
const SUBTITLE_CHARACTERS: usize = 160;

/// How a flame graph looks.
#[derive(Debug, Clone)]
pub struct SvgOptions {
    /// The line above the graph; see [`title_for`](crate::title_for).
    pub title: String,
    /// The smaller line below it; see [`subtitle_for`](crate::subtitle_for).
    pub subtitle: Option<String>,
    /// The root at the top.
    pub icicle: bool,
    /// What the widths count.
    pub count_name: String,
}

impl Default for SvgOptions {
    fn default() -> SvgOptions {
        SvgOptions {
            title: "Flame graph".to_owned(),
            subtitle: None,
            icicle: false,
            count_name: "ns".to_owned(),
        }
    }
}

/// Draws folded stacks, in any order of lines; frames keep the order in which they first appear.
///
/// # Errors
/// When a line is not a folded stack, or the stacks hold no time.
pub fn svg(folded: &[String], options: &SvgOptions) -> Result<String, Error> {
    let mut root = Tree::default();
    root.add_lines(folded, 1)?;
    let mut lines = Vec::new();
    root.visit(&mut |path, tree| {
        if tree.own[1] > 0 {
            lines.push(format!("{path} {}", tree.own[1]));
        }
    });
    let mut palette = palette::palette(&root);
    let mut inferno_options = inferno_options(options);
    inferno_options.palette_map = Some(&mut palette);
    draw(&root, &lines, &mut inferno_options)
}

/// What every picture has in common.
pub(crate) fn inferno_options<'a>(options: &SvgOptions) -> Options<'a> {
    let mut inferno_options = Options::default();
    inferno_options.title = text(&options.title, TITLE_CHARACTERS);
    let subtitle = options.subtitle.as_deref();
    inferno_options.subtitle = subtitle.map(|subtitle| text(subtitle, SUBTITLE_CHARACTERS));
    inferno_options.count_name = options.count_name.clone();
    inferno_options.name_type = "Frame:".to_owned();
    inferno_options.direction = if options.icicle {
        Direction::Inverted
    } else {
        Direction::Straight
    };
    inferno_options.text_truncate_direction = TextTruncateDirection::Right;
    inferno_options.image_width = Some(WIDTH);
    inferno_options.frame_height = FRAME_HEIGHT;
    inferno_options.bgcolors = Some(BackgroundColor::Flat(BACKGROUND));
    inferno_options.deterministic = true;
    // Keeps the order of the lines, which are in order of time; the other modes want them sorted by name.
    inferno_options.flame_chart = true;
    inferno_options
}

/// Draws `lines`, the stacks of `root` in the order in which they are to stand.
pub(crate) fn draw(
    root: &Tree,
    lines: &[String],
    options: &mut Options<'_>,
) -> Result<String, Error> {
    if root.total(1) == 0 {
        return Err(ErrorKind::Empty.into());
    }
    let longest = root.total(0).max(root.total(1));
    if longest > MOST_NS {
        return Err(ErrorKind::TooLong(longest).into());
    }
    let mut picture = Vec::new();
    // A flame chart is read from the last line to the first.
    let lines = lines.iter().rev().map(String::as_str);
    flamegraph::from_lines(options, lines, &mut picture).map_err(ErrorKind::Draw)?;
    Ok(String::from_utf8_lossy(&picture).into_owned())
}

/// Text without what XML cannot write, cut to `limit` characters.
fn text(text: &str, limit: usize) -> String {
    let mut shown: String = text.chars().map(writable).take(limit).collect();
    if text.chars().count() > limit {
        shown.pop();
        shown.push('…');
    }
    shown
}
