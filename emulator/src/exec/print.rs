//! `printf` and `assert`.

use super::memory::{lanes, word};
use super::state::{Group, Warp, Worker};
use crate::error::{Error, ErrorKind};
use crate::memory::window::{self, Place};

/// The longest text that is read from the device.
const LONGEST: usize = 1 << 16;

/// A byte of a lane's view of memory.
fn byte(w: &Worker<'_>, warp: &Warp, lane: usize, address: u64) -> Option<u8> {
    match window::place(address) {
        Place::Global(at) => {
            let allocation = w.launch.memory.find(at, &mut 0)?;
            Some(allocation.load(at - allocation.base, 1) as u8)
        }
        Place::Local(at) => {
            let size = warp.local.len() / 32;
            if at as usize >= size {
                return None;
            }
            warp.local.get(lane * size + at as usize).copied()
        }
        Place::Param(at) => w.launch.parameters.get(at as usize).copied(),
        Place::Shared(_) => None,
    }
}

fn number(w: &Worker<'_>, warp: &Warp, lane: usize, address: u64, bytes: u64) -> u64 {
    (0..bytes).rev().fold(0, |value, i| {
        value << 8 | u64::from(byte(w, warp, lane, address.wrapping_add(i)).unwrap_or(0))
    })
}

fn text(w: &Worker<'_>, warp: &Warp, lane: usize, address: u64) -> Vec<u8> {
    (0..LONGEST as u64)
        .map_while(|i| byte(w, warp, lane, address.wrapping_add(i)).filter(|&byte| byte != 0))
        .collect()
}

/// What a parameter of a call holds, which is in local memory at a fixed place.
fn argument(warp: &Warp, lane: usize, row: u32, bytes: u8) -> u64 {
    let size = warp.local.len() / 32;
    let at = warp.registers.r64(row)[lane] as usize;
    word(&warp.local, lane * size + at, bytes)
}

pub(super) fn print(w: &mut Worker<'_>, g: &Group, warp: &mut Warp, r: &[u32], mask: u32) {
    let block = g.blocks[warp.rank].index;
    let size = warp.local.len() / 32;
    for lane in lanes(mask) {
        let format = text(w, warp, lane, argument(warp, lane, r[0], 8));
        let values = argument(warp, lane, r[1], 8);
        let (line, count) = expand(
            &format,
            |bytes, at| number(w, warp, lane, values.wrapping_add(at), bytes),
            |address| text(w, warp, lane, address),
        );
        w.output
            .push((block, String::from_utf8_lossy(&line).into_owned()));
        let result = warp.registers.r64(r[2])[lane] as usize;
        if result < size {
            super::memory::set_word(&mut warp.local, lane * size + result, 4, count);
            if let Some(defined) = warp
                .local_defined
                .get_mut(lane * size + result..lane * size + result + 4)
            {
                defined.fill(1);
            }
        }
    }
}

/// The error of a failed assertion.
pub(super) fn assertion(
    w: &Worker<'_>,
    g: &Group,
    warp: &Warp,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Error {
    let lane = mask.trailing_zeros() as usize;
    let string = |row: u32| {
        String::from_utf8_lossy(&text(w, warp, lane, argument(warp, lane, row, 8))).into_owned()
    };
    let (message, file, line) = (string(r[0]), string(r[1]), argument(warp, lane, r[2], 4));
    let by = (w.launch).thread_name(g.blocks[warp.rank].index, warp.thread(lane));
    w.fail(
        ErrorKind::Assertion,
        pc,
        &format!("{file}:{line}: {by}: assertion `{message}` failed"),
    )
}

/// A `printf` format with its values: the text, and how many conversions it has.
fn expand(
    format: &[u8],
    value: impl Fn(u64, u64) -> u64,
    string: impl Fn(u64) -> Vec<u8>,
) -> (Vec<u8>, u64) {
    let mut out = Vec::new();
    let mut count = 0;
    let mut at = 0u64;
    let mut next = |bytes: u64| {
        at = at.next_multiple_of(bytes);
        let found = value(bytes, at);
        at += bytes;
        found
    };
    let mut rest = format;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            out.push(first);
            continue;
        }
        let length = rest
            .iter()
            .position(|c| !b"-+ #0123456789.*hlLqjzt".contains(c));
        let Some(length) = length else {
            out.push(b'%');
            out.extend_from_slice(rest);
            break;
        };
        let (spec, conversion) = (&rest[..length], rest[length]);
        rest = &rest[length + 1..];
        if conversion == b'%' {
            out.push(b'%');
            continue;
        }
        let spec = Spec::parse(spec, || next(4) as u32 as i32);
        count += 1;
        let text = match conversion {
            b'd' | b'i' => spec.integer(spec.signed(next(spec.bytes()))),
            b'u' => spec.integer(i128::from(spec.narrow(next(spec.bytes())))),
            b'x' => spec.radix(&format!("{:x}", spec.narrow(next(spec.bytes()))), "0x"),
            b'X' => spec.radix(&format!("{:X}", spec.narrow(next(spec.bytes()))), "0X"),
            b'o' => spec.radix(&format!("{:o}", spec.narrow(next(spec.bytes()))), "0"),
            b'c' => spec.pad(String::from(char::from(next(4) as u8))),
            b's' => {
                let mut text = string(next(8));
                text.truncate(spec.precision.unwrap_or(usize::MAX));
                spec.pad(String::from_utf8_lossy(&text).into_owned())
            }
            b'p' => spec.pad(format!("0x{:x}", next(8))),
            b'f' | b'F' | b'e' | b'E' | b'g' | b'G' | b'a' | b'A' => {
                spec.float(f64::from_bits(next(8)), conversion)
            }
            other => format!("%{}", char::from(other)),
        };
        out.extend_from_slice(text.as_bytes());
    }
    (out, count)
}

/// Flags, width, precision and length of a conversion.
#[derive(Debug, Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    alternative: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    length: u8,
}

impl Spec {
    fn parse(text: &[u8], mut star: impl FnMut() -> i32) -> Self {
        let mut spec = Self {
            length: 4,
            ..Self::default()
        };
        let mut in_precision = false;
        // Widths beyond this are not worth the memory.
        const WIDEST: usize = 4096;
        for &c in text {
            match c {
                b'-' => spec.left = true,
                b'+' => spec.plus = true,
                b' ' => spec.space = true,
                b'#' => spec.alternative = true,
                b'0' if !in_precision && spec.width == 0 => spec.zero = true,
                b'0'..=b'9' if in_precision => {
                    let digits = spec.precision.unwrap_or(0) * 10 + usize::from(c - b'0');
                    spec.precision = Some(digits.min(WIDEST));
                }
                b'0'..=b'9' => spec.width = (spec.width * 10 + usize::from(c - b'0')).min(WIDEST),
                b'*' if in_precision => {
                    spec.precision = usize::try_from(star()).ok().map(|p| p.min(WIDEST))
                }
                b'*' => {
                    let width = star();
                    spec.left |= width < 0;
                    spec.width = (width.unsigned_abs() as usize).min(WIDEST);
                }
                b'.' => {
                    in_precision = true;
                    spec.precision = Some(0);
                }
                b'h' => spec.length = if spec.length == 2 { 1 } else { 2 },
                b'l' | b'L' | b'q' | b'j' | b'z' | b't' => spec.length = 8,
                _ => {}
            }
        }
        spec
    }

    /// Bytes of the argument: at least those of an `int`.
    fn bytes(&self) -> u64 {
        u64::from(self.length.max(4))
    }

    fn narrow(&self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - 8 * u32::from(self.length)))
    }

    fn signed(&self, value: u64) -> i128 {
        let shift = 64 - 8 * u32::from(self.length);
        i128::from((value << shift) as i64 >> shift)
    }

    fn pad(&self, text: String) -> String {
        let width = self.width;
        if self.left {
            format!("{text:<width$}")
        } else {
            format!("{text:>width$}")
        }
    }

    /// Sign or prefix, then digits, padded with zeros where asked for.
    fn numeric(&self, prefix: &str, digits: &str, zeros_allowed: bool) -> String {
        let length = prefix.len() + digits.len();
        if self.zero && !self.left && zeros_allowed && length < self.width {
            return format!("{prefix}{}{digits}", "0".repeat(self.width - length));
        }
        self.pad(format!("{prefix}{digits}"))
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        }
    }

    fn integer(&self, value: i128) -> String {
        let mut digits = value.unsigned_abs().to_string();
        if let Some(precision) = self.precision {
            digits = format!(
                "{}{digits}",
                "0".repeat(precision.saturating_sub(digits.len()))
            );
        }
        self.numeric(self.sign(value < 0), &digits, self.precision.is_none())
    }

    fn radix(&self, digits: &str, prefix: &str) -> String {
        let zeros = self.precision.unwrap_or(0).saturating_sub(digits.len());
        let digits = format!("{}{digits}", "0".repeat(zeros));
        let prefix = if self.alternative && digits != "0" {
            prefix
        } else {
            ""
        };
        self.numeric(prefix, &digits, self.precision.is_none())
    }

    fn float(&self, value: f64, conversion: u8) -> String {
        let upper = conversion.is_ascii_uppercase();
        let magnitude = value.abs();
        let precision = self.precision.unwrap_or(6);
        let mut digits = if !value.is_finite() {
            if value.is_nan() {
                "nan".to_owned()
            } else {
                "inf".to_owned()
            }
        } else {
            match conversion.to_ascii_lowercase() {
                b'f' => format!("{magnitude:.precision$}"),
                b'e' => exponential(magnitude, precision),
                b'g' => general(magnitude, precision.max(1), self.alternative),
                _ => hexadecimal(magnitude),
            }
        };
        if upper {
            digits.make_ascii_uppercase();
        }
        self.numeric(
            self.sign(value.is_sign_negative() && !value.is_nan()),
            &digits,
            value.is_finite(),
        )
    }
}

fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn general(value: f64, precision: usize, keep_zeros: bool) -> String {
    let text = format!("{value:.*e}", precision - 1);
    let exponent: i32 = text
        .split_once('e')
        .and_then(|(_, e)| e.parse().ok())
        .unwrap_or(0);
    let trim = |text: String| {
        if keep_zeros || !text.contains('.') {
            return text;
        }
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if exponent < -4 || exponent >= precision as i32 {
        let text = exponential(value, precision - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{exponent}", trim(mantissa.to_owned()));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trim(format!("{value:.decimals$}"))
}

fn hexadecimal(value: f64) -> String {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
    if exponent == 0 && fraction == 0 {
        return "0x0p+0".to_owned();
    }
    let (lead, exponent) = if exponent == 0 {
        (0, -1022)
    } else {
        (1, exponent - 1023)
    };
    let digits = format!("{fraction:013x}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("0x{lead}{point}{digits}p{exponent:+}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, values: &[u8], expected: &str) {
        let number = |bytes: u64, at: u64| {
            (0..bytes).rev().fold(0, |value, i| {
                value << 8 | u64::from(values.get((at + i) as usize).copied().unwrap_or(0))
            })
        };
        let (text, _) = expand(format.as_bytes(), number, |_| b"text".to_vec());
        assert_eq!(String::from_utf8(text).unwrap(), expected, "{format}");
    }

    #[test]
    fn conversions_as_in_c() {
        check(
            "%d|%5d|%-5d|%05d",
            &[255, 255, 255, 255, 7, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0],
            "-1|    7|7    |00007",
        );
        check(
            "%u %x %#X %o",
            &[255, 255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 8, 0, 0, 0],
            "4294967295 ff 0XFF 10",
        );
        check("%lld", &(-5i64).to_le_bytes(), "-5");
        check("%hhd %hu", &[255, 0, 0, 0, 255, 255, 1, 0], "-1 65535");
        check(
            "%f %.2f",
            &[1.5f64.to_le_bytes(), 2.0f64.to_le_bytes()].concat(),
            "1.500000 2.00",
        );
        check("%e", &12345.678f64.to_le_bytes(), "1.234568e+04");
        check(
            "%g %g",
            &[1e-5f64.to_le_bytes(), 0.5f64.to_le_bytes()].concat(),
            "1e-05 0.5",
        );
        check("%a", &1.0f64.to_le_bytes(), "0x1p+0");
        check("%s|%6s|%.2s", &[0; 24], "text|  text|te");
        check("100%% %c", &[65, 0, 0, 0], "100% A");
        check("%*d", &[4, 0, 0, 0, 9, 0, 0, 0], "   9");
        check("%", &[], "%");
        check(
            "%f %f",
            &[f64::INFINITY.to_le_bytes(), f64::NAN.to_le_bytes()].concat(),
            "inf nan",
        );
    }
}
