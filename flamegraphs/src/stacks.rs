//! Folded stacks as a tree whose frames keep the order in which they first appear.

use std::collections::HashMap;

use crate::error::ErrorKind;

/// A stack deeper than this is a mistake, and more than a picture or this program's own stack could take.
const MOST_FRAMES: usize = 500;

/// A frame, its own time and the frames on top of it.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) name: String,
    /// Time spent in the frame itself, by profile: old and new where two are compared, otherwise only the second.
    pub(crate) own: [u128; 2],
    pub(crate) children: Vec<Tree>,
    places: HashMap<String, usize>,
}

impl Tree {
    /// A tree of the stacks in `lines`, which count for profile `profile`.
    pub(crate) fn add_lines(&mut self, lines: &[String], profile: usize) -> Result<(), ErrorKind> {
        for (index, line) in lines.iter().enumerate() {
            let text = line.trim();
            if text.is_empty() {
                continue;
            }
            let stack = text.rsplit_once(' ').and_then(|(frames, count)| {
                let frames = frames.trim();
                Some((frames, count.parse::<u64>().ok()?)).filter(|_| !frames.is_empty())
            });
            let Some((frames, count)) = stack.filter(|(frames, _)| depth(frames) <= MOST_FRAMES)
            else {
                return Err(ErrorKind::NotAStack {
                    line: index + 1,
                    text: text.chars().take(80).collect(),
                });
            };
            let mut tree = &mut *self;
            for name in frames.split(';') {
                tree = tree.child(frame(name));
            }
            tree.own[profile] += u128::from(count);
        }
        Ok(())
    }

    /// The child named `name`, which comes last if it is new.
    pub(crate) fn child(&mut self, name: String) -> &mut Tree {
        let next = self.children.len();
        let place = *self.places.entry(name.clone()).or_insert(next);
        if place == next {
            self.children.push(Tree {
                name,
                ..Tree::default()
            });
        }
        &mut self.children[place]
    }

    /// Time of the frame with all frames on top of it.
    pub(crate) fn total(&self, profile: usize) -> u128 {
        let children = self.children.iter().map(|child| child.total(profile));
        self.own[profile] + children.sum::<u128>()
    }

    /// Calls `f` with the `;`-joined path of every frame, the lower frame first.
    pub(crate) fn visit(&self, f: &mut impl FnMut(&str, &Tree)) {
        for child in &self.children {
            child.visit_under(&mut String::new(), f);
        }
    }

    fn visit_under(&self, path: &mut String, f: &mut impl FnMut(&str, &Tree)) {
        let length = path.len();
        if length > 0 {
            path.push(';');
        }
        path.push_str(&self.name);
        f(path, self);
        for child in &self.children {
            child.visit_under(path, f);
        }
        path.truncate(length);
    }
}

fn depth(frames: &str) -> usize {
    frames.split(';').count()
}

/// `name` as a frame that every reader of folded stacks takes as one name: `;` separates frames, a line ends a stack, a last
/// word of digits is read as a count (and before another count as the base of a difference), `_[k]` and its like at the end
/// are taken off as annotations.
pub(crate) fn frame(name: &str) -> String {
    let mut frame: String = name
        .trim()
        .chars()
        .map(|c| match c {
            ';' => ':',
            c => writable(c),
        })
        .collect();
    frame.truncate(frame.trim_end().len());
    if frame.trim().is_empty() {
        return "(unnamed)".to_owned();
    }
    if let Some((before, last)) = frame.rsplit_once(' ')
        && last.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        frame = format!("{}_{last}", before.trim_end());
    }
    if let Some(start) = frame.strip_suffix(']')
        && let Some((before, annotation)) = start.rsplit_once("_[")
        && annotation.len() == 1
    {
        frame = format!("{before}_({annotation})");
    }
    frame
}

/// `c`, or a space for what XML has no way to write.
pub(crate) fn writable(c: char) -> char {
    match c {
        '\u{fffe}' | '\u{ffff}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_one_name_to_every_reader() {
        for (name, expected) in [
            ("qkv_proj", "qkv_proj"),
            ("layer 3", "layer_3"),
            ("v 1.5", "v_1.5"),
            ("batch=1 in=1024 out=128", "batch=1 in=1024 out=128"),
            ("(between operations)", "(between operations)"),
            ("[u8; 4]", "[u8: 4]"),
            ("gemm_[k]", "gemm_(k)"),
            ("a\nb\u{1}", "a b"),
            ("\n 7", "7"),
            ("", "(unnamed)"),
            ("  ", "(unnamed)"),
            ("<&>", "<&>"),
        ] {
            assert_eq!(frame(name), expected, "{name:?}");
        }
    }

    #[test]
    fn unsorted_lines_merge_in_order_of_appearance() {
        let lines = ["b;x 1", "a 2", "b;y 3", "b;x 4", "b 5"].map(str::to_owned);
        let mut tree = Tree::default();
        tree.add_lines(&lines, 1).unwrap();
        let mut seen = Vec::new();
        tree.visit(&mut |path, tree| seen.push(format!("{path} {}", tree.total(1))));
        assert_eq!(seen, ["b 13", "b;x 5", "b;y 3", "a 2"]);
    }

    #[test]
    fn lines_that_are_no_stacks_are_refused() {
        for line in ["decode", "decode x", "decode -1", "decode 1.5", "7", " 7"] {
            let error = Tree::default().add_lines(&[line.to_owned()], 1);
            assert!(error.is_err(), "{line:?}");
        }
    }
}
