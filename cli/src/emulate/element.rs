//! The types that scalars and arrays of a kernel's arguments have.

use half::{bf16, f16};

/// Type of a scalar or of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Element {
    pub(crate) const ALL: [Element; 12] = [
        Element::I8,
        Element::U8,
        Element::I16,
        Element::U16,
        Element::I32,
        Element::U32,
        Element::I64,
        Element::U64,
        Element::F16,
        Element::Bf16,
        Element::F32,
        Element::F64,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Element::I8 => "i8",
            Element::U8 => "u8",
            Element::I16 => "i16",
            Element::U16 => "u16",
            Element::I32 => "i32",
            Element::U32 => "u32",
            Element::I64 => "i64",
            Element::U64 => "u64",
            Element::F16 => "f16",
            Element::Bf16 => "bf16",
            Element::F32 => "f32",
            Element::F64 => "f64",
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Element::I8 | Element::U8 => 1,
            Element::I16 | Element::U16 | Element::F16 | Element::Bf16 => 2,
            Element::I32 | Element::U32 | Element::F32 => 4,
            Element::I64 | Element::U64 | Element::F64 => 8,
        }
    }

    fn is_float(self) -> bool {
        matches!(
            self,
            Element::F16 | Element::Bf16 | Element::F32 | Element::F64
        )
    }

    /// The type of this name.
    pub(crate) fn named(name: &str) -> Result<Element, String> {
        Element::ALL
            .into_iter()
            .find(|element| element.name() == name)
            .ok_or_else(|| {
                let names = Element::ALL.map(Element::name).join(", ");
                format!("{name:?} is no type; there are {names}")
            })
    }

    /// A number as a person writes it, as bytes. `0x…` gives the bits, whatever the type.
    pub(crate) fn encode(self, text: &str) -> Result<Vec<u8>, String> {
        let bits = 8 * self.bytes() as u32;
        let unsigned_max = u128::MAX >> (128 - bits);
        let range = || format!("{text} does not fit in {}", self.name());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let hexadecimal = digits
            .strip_prefix("0x")
            .or_else(|| digits.strip_prefix("0X"));
        if let Some(digits) = hexadecimal {
            let value = u128::from_str_radix(digits, 16)
                .ok()
                .filter(|_| !digits.starts_with('+'))
                .ok_or_else(|| format!("{text:?} is no number"))?;
            let value = if negative && self.is_float() {
                return Err(format!(
                    "{text}: hexadecimal digits are the bits of {}, so they have no sign",
                    self.name()
                ));
            } else if negative {
                self.negated(value).ok_or_else(range)?
            } else {
                value
            };
            if !negative && value > unsigned_max {
                return Err(range());
            }
            return Ok(value.to_le_bytes()[..self.bytes()].to_vec());
        }
        if self.is_float() {
            return self.encode_float(text);
        }
        let value: u128 = digits
            .parse()
            .ok()
            .filter(|_| !digits.starts_with('+'))
            .ok_or_else(|| format!("{text:?} is no whole number, which {} needs", self.name()))?;
        let is_signed = matches!(
            self,
            Element::I8 | Element::I16 | Element::I32 | Element::I64
        );
        let max = if is_signed {
            unsigned_max >> 1
        } else {
            unsigned_max
        };
        let value = match negative {
            true => self.negated(value).ok_or_else(range)?,
            false if value <= max => value,
            false => return Err(range()),
        };
        Ok(value.to_le_bytes()[..self.bytes()].to_vec())
    }

    /// `-value`, if the type has it.
    fn negated(self, value: u128) -> Option<u128> {
        let is_signed = matches!(
            self,
            Element::I8 | Element::I16 | Element::I32 | Element::I64
        );
        let least = if is_signed {
            1_u128 << (8 * self.bytes() - 1)
        } else {
            0
        };
        (value <= least).then(|| value.wrapping_neg())
    }

    fn encode_float(self, text: &str) -> Result<Vec<u8>, String> {
        let value: f64 = text
            .parse()
            .map_err(|_| format!("{text:?} is no number, which {} needs", self.name()))?;
        let (bytes, is_finite) = match self {
            Element::F16 => {
                let rounded = f16::from_f64(value);
                (rounded.to_le_bytes().to_vec(), rounded.is_finite())
            }
            Element::Bf16 => {
                let rounded = bf16::from_f64(value);
                (rounded.to_le_bytes().to_vec(), rounded.is_finite())
            }
            Element::F32 => {
                // Parsed as what it is, so that it is rounded once.
                let rounded: f32 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
                (rounded.to_le_bytes().to_vec(), rounded.is_finite())
            }
            _ => (value.to_le_bytes().to_vec(), value.is_finite()),
        };
        let says_infinite = text.to_ascii_lowercase().contains("inf");
        if !is_finite && !value.is_nan() && !says_infinite {
            return Err(format!("{text} does not fit in {}", self.name()));
        }
        Ok(bytes)
    }

    /// Elements drawn with a seed: floats from -1 to 1, integers from all there are.
    pub(crate) fn random(self, count: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        // SplitMix64 (Steele, Lea, Flood 2014): any seed is a good one.
        let mut next = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let mut bytes = Vec::with_capacity(count * self.bytes());
        for _ in 0..count {
            let bits = next();
            let f32 = || (bits >> 40) as f32 / (1_u32 << 23) as f32 - 1.0;
            match self {
                Element::F16 => bytes.extend(f16::from_f32(f32()).to_le_bytes()),
                Element::Bf16 => bytes.extend(bf16::from_f32(f32()).to_le_bytes()),
                Element::F32 => bytes.extend(f32().to_le_bytes()),
                Element::F64 => {
                    let value = (bits >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
                    bytes.extend(value.to_le_bytes());
                }
                _ => bytes.extend(&bits.to_le_bytes()[..self.bytes()]),
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let ok = |element: Element, text: &str| element.encode(text).unwrap();
        assert_eq!(ok(Element::I8, "-128"), [0x80]);
        assert_eq!(ok(Element::I32, "-0x10"), (-16_i32).to_le_bytes());
        assert_eq!(ok(Element::I32, "0xffffffff"), (-1_i32).to_le_bytes());
        assert_eq!(
            ok(Element::U64, "18446744073709551615"),
            u64::MAX.to_le_bytes()
        );
        assert_eq!(ok(Element::F32, "0.1"), 0.1_f32.to_le_bytes());
        assert_eq!(ok(Element::F32, "0x3f800000"), 1.0_f32.to_le_bytes());
        assert_eq!(ok(Element::F32, "-inf"), f32::NEG_INFINITY.to_le_bytes());
        assert_eq!(ok(Element::F16, "65504"), [0xff, 0x7b]);
        assert_eq!(ok(Element::Bf16, "1e-3"), [0x83, 0x3a]);
        assert!(f64::from_le_bytes(ok(Element::F64, "nan").try_into().unwrap()).is_nan());
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        for (element, text) in [
            (Element::I8, "128"),
            (Element::I8, "-129"),
            (Element::U8, "-1"),
            (Element::U8, "0x100"),
            (Element::U32, "1.5"),
            (Element::U32, ""),
            (Element::U32, "+-1"),
            (Element::U32, "0x"),
            (Element::U32, "0x+1"),
            (Element::F16, "70000"),
            (Element::F32, "1e39"),
            (Element::F32, "one"),
            (Element::F32, "-0x1"),
            (Element::F64, "1e999"),
        ] {
            assert!(
                element.encode(text).is_err(),
                "{} took {text}",
                element.name()
            );
        }
    }

    #[test]
    fn random_floats_lie_between_minus_one_and_one() {
        let bytes = Element::F32.random(1000, 7);
        let values: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        assert!(values.iter().all(|v| (-1.0..1.0).contains(v)));
        assert!(values.iter().any(|v| *v < -0.9) && values.iter().any(|v| *v > 0.9));
        assert_eq!(bytes, Element::F32.random(1000, 7));
        assert_ne!(bytes, Element::F32.random(1000, 8));
    }
}
