//! JSON as profilers really write it, made into JSON that a strict parser takes.
//!
//! Python writes `NaN` and `Infinity` for numbers that are none; kernel names have come with control characters and with
//! escapes that JSON does not know. This reader replaces them byte for byte, so that positions stay those of the file:
//! a number that is none becomes an empty string, a control character in a string a space, an unknown escape a backslash.
//! A string goes on to [`LONGEST_STRING`] bytes; the rest of it is dropped, so that no input makes a parser hold more.

use std::io::{self, BufRead, Read};

/// Longer than any name a profiler writes: the longest C++ kernel names have some ten thousand letters.
pub(super) const LONGEST_STRING: usize = 64 * 1024;

/// The state between two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside strings.
    Between,
    /// Within a word that stands for a number that is none.
    NotANumber { at_first: bool },
    /// In a string.
    String,
    /// After a backslash.
    Escape,
    /// In the digits of `\u`.
    Hex(u8),
}

/// A reader over another; see the module.
#[derive(Debug)]
pub(super) struct Lenient<R> {
    inner: R,
    filter: Filter,
    buffer: Vec<u8>,
    at: usize,
}

#[derive(Debug)]
struct Filter {
    state: State,
    /// How long the current string is so far.
    in_string: usize,
    /// Whether the rest of the current string is dropped.
    drops: bool,
    /// A minus sign held back until the next byte says what it belongs to.
    held_minus: bool,
    not_numbers: u64,
}

impl<R: BufRead> Lenient<R> {
    pub(super) fn new(inner: R) -> Lenient<R> {
        Lenient {
            inner,
            filter: Filter {
                state: State::Between,
                in_string: 0,
                drops: false,
                held_minus: false,
                not_numbers: 0,
            },
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// How many numbers were none so far.
    pub(super) fn not_numbers(&self) -> u64 {
        self.filter.not_numbers
    }
}

impl Filter {
    fn run(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while let [first, rest @ ..] = bytes {
            // Most bytes are as they should be, and are taken in one piece.
            let as_is = match self.state {
                State::String if !self.drops => {
                    let plain = |b: &u8| *b != b'"' && *b != b'\\' && *b >= 0x20;
                    let room = LONGEST_STRING.saturating_sub(self.in_string);
                    let length = bytes.iter().take(room).take_while(|b| plain(b)).count();
                    self.in_string += length;
                    length
                }
                State::Between if !self.held_minus => {
                    let plain = |b: &u8| !matches!(*b, b'"' | b'-' | b'N' | b'I');
                    bytes.iter().take_while(|b| plain(b)).count()
                }
                _ => 0,
            };
            if as_is > 0 {
                out.extend_from_slice(&bytes[..as_is]);
                bytes = &bytes[as_is..];
            } else {
                self.push(*first, out);
                bytes = rest;
            }
        }
    }

    fn push(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::NotANumber { at_first } => {
                if byte.is_ascii_alphabetic() {
                    out.push(if at_first { b'"' } else { b' ' });
                    self.state = State::NotANumber { at_first: false };
                } else {
                    self.state = State::Between;
                    self.push(byte, out);
                }
            }
            State::Between => {
                let minus = std::mem::take(&mut self.held_minus);
                if byte == b'N' || byte == b'I' {
                    if minus {
                        out.push(b' ');
                    }
                    self.not_numbers += 1;
                    out.push(b'"');
                    self.state = State::NotANumber { at_first: true };
                    return;
                }
                if minus {
                    out.push(b'-');
                }
                match byte {
                    b'-' => self.held_minus = true,
                    b'"' => {
                        self.state = State::String;
                        self.in_string = 0;
                        self.drops = false;
                        out.push(byte);
                    }
                    _ => out.push(byte),
                }
            }
            State::String if byte == b'"' => {
                self.state = State::Between;
                out.push(byte);
            }
            State::String => {
                self.in_string += 1;
                self.drops |= self.in_string > LONGEST_STRING;
                if byte == b'\\' {
                    self.state = State::Escape;
                }
                if !self.drops {
                    out.push(if byte < 0x20 { b' ' } else { byte });
                }
            }
            State::Escape => {
                self.in_string += 1;
                self.state = match byte {
                    b'u' => State::Hex(4),
                    _ => State::String,
                };
                let is_known = matches!(
                    byte,
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u'
                );
                if !self.drops {
                    out.push(if is_known { byte } else { b'\\' });
                }
            }
            State::Hex(left) => {
                self.in_string += 1;
                self.state = match left {
                    1 => State::String,
                    left => State::Hex(left - 1),
                };
                if !self.drops {
                    out.push(byte);
                }
            }
        }
    }
}

impl<R: BufRead> Read for Lenient<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
            let chunk = self.inner.fill_buf()?;
            if chunk.is_empty() {
                return Ok(0);
            }
            let length = chunk.len();
            self.filter.run(chunk, &mut self.buffer);
            self.inner.consume(length);
        }
        let length = out.len().min(self.buffer.len() - self.at);
        out[..length].copy_from_slice(&self.buffer[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(text: &[u8]) -> String {
        let mut out = String::new();
        // A small buffer, so that words stand across its border.
        let inner = io::BufReader::with_capacity(3, text);
        Lenient::new(inner).read_to_string(&mut out).unwrap();
        out
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let actual = through(text.as_bytes());
        assert_eq!(actual, expected);
        assert!(serde_json::from_str::<serde_json::Value>(&actual).is_ok());
    }

    #[test]
    fn numbers_that_are_none() {
        check("[NaN, 1]", r#"["" , 1]"#);
        check("[-Infinity,Infinity]", "[ \"\"      ,\"\"      ]");
        check("[-1, -2e5]", "[-1, -2e5]");
        check(r#"["NaN and -Infinity"]"#, r#"["NaN and -Infinity"]"#);
    }

    #[test]
    fn strings_that_are_not_quite() {
        check("[\"a\nb\"]", "[\"a b\"]");
        check(r#"["C:\xyz"]"#, r#"["C:\\yz"]"#);
        check(r#"["\u00e9\n\""]"#, r#"["\u00e9\n\""]"#);
    }

    #[test]
    fn endless_strings_end() {
        for unit in ["x", "\\n", "\\u00e9", "é"] {
            let text = format!("[\"{}\", 1]", unit.repeat(LONGEST_STRING));
            let out = through(text.as_bytes());
            assert!(out.len() < LONGEST_STRING + 32, "{}", out.len());
            if unit != "é" {
                assert!(
                    serde_json::from_str::<serde_json::Value>(&out).is_ok(),
                    "{unit}"
                );
            }
            assert!(out.ends_with("\", 1]"));
        }
    }
}
