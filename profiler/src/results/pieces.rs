//! A file's bytes as JSON objects and lines of text, whatever lies between them and wherever it breaks off.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// One thing that a file holds; lines count from 1.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    Object {
        line: usize,
        object: Map<String, Value>,
    },
    /// A line that is no JSON, without its end.
    Line { line: usize, text: &'a str },
    /// What begins as an object and is none.
    Broken { line: usize, reason: String },
}

/// Text out of bytes: byte-order marks go, UTF-16 (which a Windows shell's `>` writes) is decoded, and what is no UTF-8 is
/// replaced.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    let utf16 = |read: fn([u8; 2]) -> u16| {
        let units = bytes[2..]
            .chunks_exact(2)
            .map(|pair| read([pair[0], pair[1]]));
        Cow::Owned(
            char::decode_utf16(units)
                .map(|c| c.unwrap_or('\u{fffd}'))
                .collect(),
        )
    };
    match bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest),
        _ => String::from_utf8_lossy(bytes),
    }
}

/// Everything that `text` holds, in order. Lines beginning with `#`, blank lines, and the brackets and commas of an array of
/// objects are left out.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut position = 0;
    let mut line = 1;
    while let Some(rest) = text.get(position..)
        && let Some(first) = rest.chars().next()
    {
        let length = match first {
            '{' => {
                let (piece, length) = object(rest, line);
                found.push(piece);
                length
            }
            ',' | ']' => 1,
            '[' if opens_array_of_objects(rest) => 1,
            c if c.is_whitespace() || c == '\u{feff}' => c.len_utf8(),
            _ => {
                let text = rest.split('\n').next().unwrap_or(rest);
                if first != '#' {
                    let text = text.trim_end_matches('\r');
                    found.push(Piece::Line { line, text });
                }
                text.len()
            }
        };
        line += rest.as_bytes()[..length]
            .iter()
            .filter(|&&b| b == b'\n')
            .count();
        position += length;
    }
    found
}

fn opens_array_of_objects(rest: &str) -> bool {
    let inside = rest[1..].trim_start();
    inside.is_empty() || inside.starts_with(['{', ']'])
}

/// The object at the start of `rest`, and how many bytes it takes.
fn object(rest: &str, line: usize) -> (Piece<'_>, usize) {
    let extent = extent(rest);
    let reason = match extent.end {
        Some(end) => match serde_json::from_str(&quote_what_is_no_number(&rest[..end])) {
            Ok(object) => return (Piece::Object { line, object }, end),
            Err(error) => reason(&error),
        },
        None => "it ends early; was the run or the copy of it interrupted?".to_owned(),
    };
    match extent.restart {
        // A run that was killed while it wrote, and the next one appended.
        Some(restart) => {
            let reason = if extent.end.is_none_or(|end| end > restart) {
                "it ends early, before the next line begins something else".to_owned()
            } else {
                reason
            };
            let length = extent.end.map_or(restart, |end| end.min(restart));
            (Piece::Broken { line, reason }, length)
        }
        None => {
            let length = extent.end.unwrap_or(rest.len());
            (Piece::Broken { line, reason }, length)
        }
    }
}

fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // The position counts from the object's start, which the line that stands before the message is already.
    let text = text.split(" at line ").next().unwrap_or(&text);
    format!("it is no JSON: {text}")
}

struct Extent {
    /// Behind the bracket that closes the object.
    end: Option<usize>,
    /// Where a line begins that no object continues with.
    restart: Option<usize>,
}

/// How far the object at the start of `text` goes. Looks past few lines that seem to begin something else, so that a file of
/// nothing but opening brackets takes no square of its length.
fn extent(text: &str) -> Extent {
    const RESTARTS: usize = 64;
    let bytes = text.as_bytes();
    let mut restart = None;
    let mut restarts = 0;
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (index, &byte) in bytes.iter().enumerate() {
        if byte == b'\n'
            && let Some(&next) = bytes.get(index + 1)
            && (matches!(next, b'{' | b'#' | b'|') || next.is_ascii_alphabetic())
        {
            restart = restart.or(Some(index + 1));
            restarts += 1;
            if restarts > RESTARTS {
                break;
            }
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Extent {
                        end: Some(index + 1),
                        restart,
                    };
                }
            }
            _ => {}
        }
    }
    Extent { end: None, restart }
}

/// Python writes `NaN`, `Infinity` and `-Infinity`, which JSON has not: as strings they survive the parser.
fn quote_what_is_no_number(json: &str) -> Cow<'_, str> {
    if !json.contains("NaN") && !json.contains("Infinity") {
        return Cow::Borrowed(json);
    }
    let mut quoted = String::with_capacity(json.len() + 16);
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_length(rest),
            _ => ["NaN", "Infinity", "-Infinity"]
                .into_iter()
                .find(|word| rest.starts_with(word))
                .map_or(0, str::len),
        };
        if length == 0 {
            quoted.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (token, after) = rest.split_at(length);
        if first == '"' {
            quoted.push_str(token);
        } else {
            quoted.push('"');
            quoted.push_str(token);
            quoted.push('"');
        }
        rest = after;
    }
    Cow::Owned(quoted)
}

/// Bytes of the string at the start of `text`, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a text falls into: `line:keys` of objects, `line=text` of lines, `line!reason` of what is broken.
    #[track_caller]
    fn check(content: &str, expected: &[&str]) {
        let found: Vec<String> = pieces(content)
            .into_iter()
            .map(|piece| match piece {
                Piece::Object { line, object } => {
                    let keys: Vec<_> = object.keys().cloned().collect();
                    format!("{line}:{}", keys.join(","))
                }
                Piece::Line { line, text } => format!("{line}={text}"),
                Piece::Broken { line, reason } => format!("{line}!{reason}"),
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn objects_need_no_separators() {
        check(
            "{\"a\":1}{\"b\":{\"c\":[{}]}}\n\n{\n\"d\"\n\n:2}\n",
            &["1:a", "1:b", "3:d"],
        );
        check(
            "# heading\n[\n {\"a\": 1},\n {\"b\": 2}\n]\n",
            &["3:a", "4:b"],
        );
        check(
            "[2026-01-01] started\n{\"a\":\"}\\\"{\"}",
            &["1=[2026-01-01] started", "2:a"],
        );
    }

    #[test]
    fn lines_end_as_windows_ends_them() {
        check(
            "Warmup ...\r\n{\"a\": 1}\r\nx\r\n",
            &["1=Warmup ...", "2:a", "3=x"],
        );
    }

    #[test]
    fn what_breaks_off_costs_no_neighbour() {
        let early = "it ends early; was the run or the copy of it interrupted?";
        let next = "it ends early, before the next line begins something else";
        check("{\"a\": 1}\n{\"b\": ", &["1:a", &format!("2!{early}")]);
        check("{\"a\": \"x\n{\"b\": 2}\n", &[&format!("1!{next}"), "2:b"]);
        check(
            "{\"a\": 1,\nTotal.\n{\"b\": 2}",
            &[&format!("1!{next}"), "2=Total.", "3:b"],
        );
        check(
            "{a}\n{\"b\": 2}",
            &["1!it is no JSON: key must be a string", "2:b"],
        );
        check("{\"a\": 1e999}", &["1!it is no JSON: number out of range"]);
        check(
            &"{\n".repeat(3),
            &[
                &format!("1!{next}"),
                &format!("2!{next}"),
                &format!("3!{early}"),
            ],
        );
    }

    #[test]
    fn python_s_numbers_that_are_none_are_read() {
        let found = pieces("{\"a\": Infinity, \"NaN\": [-Infinity, NaN], \"b\": \"x NaN\"}");
        let [Piece::Object { object, .. }] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(object["a"], "Infinity");
        assert_eq!(object["NaN"][0], "-Infinity");
        assert_eq!(object["NaN"][1], "NaN");
        assert_eq!(object["b"], "x NaN");
    }

    #[test]
    fn marks_and_encodings() {
        assert_eq!(text(b"\xef\xbb\xbf{}"), "{}");
        assert_eq!(text(b"\xff\xfe{\0}\0"), "{}");
        assert_eq!(text(b"\xfe\xff\0{\0}"), "{}");
        assert_eq!(text(b"a\xff"), "a\u{fffd}");
    }
}
