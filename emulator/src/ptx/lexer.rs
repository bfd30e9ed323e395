//! Characters to tokens.

use crate::error::{Error, ErrorKind};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// A name, an opcode with its modifiers, or a directive (which begins with a dot).
    Word(&'a str),
    Int(u64),
    F32(u32),
    F64(u64),
    Text(&'a str),
    Punct(char),
}

/// Splits PTX into tokens, each with its line (from 1).
pub(super) fn lex(text: &str) -> Result<Vec<(Token<'_>, u32)>, Error> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(bytes.len() / 4);
    let mut line = 1u32;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        let next = bytes.get(at + 1).copied();
        let token = match byte {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            // The compiler's text may come with its terminating zero.
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c | 0 => {
                at += 1;
                continue;
            }
            b'/' if next == Some(b'/') => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            b'/' if next == Some(b'*') => {
                let begin = line;
                at += 2;
                while !bytes[at.min(bytes.len())..].starts_with(b"*/") {
                    match bytes.get(at) {
                        Some(b'\n') => line += 1,
                        Some(_) => {}
                        None => return Err(syntax(begin, "expected `*/` to end this comment")),
                    }
                    at += 1;
                }
                at += 2;
                continue;
            }
            b'"' => {
                at += 1;
                loop {
                    match bytes.get(at) {
                        Some(b'"') => break,
                        Some(b'\\') if !matches!(bytes.get(at + 1), Some(b'\n') | None) => at += 2,
                        Some(b'\n') | None => {
                            return Err(syntax(line, "expected `\"` to end this string"));
                        }
                        Some(_) => at += 1,
                    }
                }
                at += 1;
                Token::Text(slice(text, start + 1, at - 1))
            }
            b'0'..=b'9' => {
                at = end_of_number(bytes, at);
                let word = slice(text, start, at);
                number(word)
                    .ok_or_else(|| syntax(line, &format!("expected a number, found `{word}`")))?
            }
            _ if is_word(byte, next) => {
                at = end_of_word(bytes, at);
                Token::Word(slice(text, start, at))
            }
            b',' | b';' | b'{' | b'}' | b'(' | b')' | b'[' | b']' | b':' | b'@' | b'!' | b'|'
            | b'<' | b'>' | b'=' | b'+' | b'-' | b'*' | b'~' | b'/' | b'&' | b'^' | b'?' | b'%' => {
                at += 1;
                Token::Punct(byte as char)
            }
            _ => {
                return Err(syntax(
                    line,
                    &format!("expected PTX, found the byte 0x{byte:02x}"),
                ));
            }
        };
        tokens.push((token, line));
    }
    Ok(tokens)
}

/// A piece of the text between two bytes of ASCII.
fn slice(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

/// Whether a word begins here. `%` is an operator where no name follows.
fn is_word(byte: u8, next: Option<u8>) -> bool {
    match byte {
        b'.' => true,
        b'%' => {
            next.is_some_and(|next| next.is_ascii_alphanumeric() || matches!(next, b'_' | b'$'))
        }
        _ => continues(byte),
    }
}

fn continues(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%')
}

/// `add.rn.f32` is one word, but `.reg.b32`, as hand-written assembly has it, is two directives.
fn end_of_word(bytes: &[u8], start: usize) -> usize {
    let is_directive = bytes[start] == b'.';
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            Some(&byte) if continues(byte) => at += 1,
            Some(b'.') if !is_directive => at += 1,
            // `shared::cta` is one word, `label:` is not.
            Some(b':') if bytes.get(at + 1) == Some(&b':') => at += 2,
            _ => return at,
        }
    }
}

fn end_of_number(bytes: &[u8], start: usize) -> usize {
    // The digits of `0x`, `0f` and `0d` may be an `e`; nothing follows it there.
    let is_decimal = !matches!(
        bytes.get(start + 1),
        Some(b'x' | b'X' | b'f' | b'F' | b'd' | b'D')
    );
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        let is_exponent = is_decimal
            && matches!(byte, b'e' | b'E')
            && matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        if is_exponent {
            at += 2;
        } else if byte.is_ascii_alphanumeric() || byte == b'.' {
            at += 1;
        } else {
            break;
        }
    }
    at
}

fn number(word: &str) -> Option<Token<'static>> {
    let lower = word.to_ascii_lowercase();
    // `from_str_radix` would accept a sign, which cannot occur within a number's characters.
    if let Some(digits) = lower.strip_prefix("0f") {
        return match digits.len() {
            8 => u32::from_str_radix(digits, 16).ok().map(Token::F32),
            _ => None,
        };
    }
    if let Some(digits) = lower.strip_prefix("0d") {
        return match digits.len() {
            16 => u64::from_str_radix(digits, 16).ok().map(Token::F64),
            _ => None,
        };
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    if let Some(hex) = digits.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Token::Int);
    }
    if let Some(binary) = digits.strip_prefix("0b") {
        return u64::from_str_radix(binary, 2).ok().map(Token::Int);
    }
    if digits.contains(['.', 'e']) {
        let value: f64 = digits.parse().ok()?;
        return Some(Token::F64(value.to_bits()));
    }
    match digits.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok().map(Token::Int),
        _ => digits.parse().ok().map(Token::Int),
    }
}

pub(super) fn syntax(line: u32, what: &str) -> Error {
    Error::new(ErrorKind::InvalidPtx, format!("PTX line {line}: {what}"))
}

/// PTX that may be right, but that the device does not take.
pub(super) fn unsupported(line: u32, what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("PTX line {line}: {what}: not supported"),
    )
}
