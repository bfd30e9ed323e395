//! Operands for tensor cores: small numbers that every type has exactly, so that products and their sums are known.

/// A type of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Bf16,
    F16,
    Tf32,
    E4m3,
    S8,
}

impl Element {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Element::Tf32 => 32,
            Element::Bf16 | Element::F16 => 16,
            Element::E4m3 | Element::S8 => 8,
        }
    }

    pub(super) const fn is_integer(self) -> bool {
        matches!(self, Element::S8)
    }

    /// `eighths` / 8, from -1 to 1, in this type; of integers `eighths` itself.
    pub(super) fn encoded(self, eighths: i32) -> u32 {
        let (mantissa_bits, bias) = match self {
            Element::Bf16 => (7, 127),
            Element::F16 => (10, 15),
            Element::Tf32 => (23, 127),
            Element::E4m3 => (3, 7),
            Element::S8 => return eighths as u32 & 0xff,
        };
        let size = eighths.unsigned_abs();
        if size == 0 {
            return 0;
        }
        // size / 8 = 2^exponent (1 + rest / 2^power), where 2^power <= size < 2^(power + 1).
        let power = size.ilog2();
        let rest = size - (1 << power);
        let exponent = power as i32 - 3 + bias;
        let sign = u32::from(eighths < 0) << (self.bits() - 1);
        sign | (exponent as u32) << mantissa_bits | rest << (mantissa_bits - power)
    }

    /// What it stands for.
    pub(super) fn value(self, eighths: i32) -> f64 {
        match self {
            Element::S8 => f64::from(eighths),
            _ => f64::from(eighths) / 8.0,
        }
    }
}

/// `count` numbers from -8 to 8 at random, the same for a seed.
pub(super) fn random(seed: u64, count: usize) -> Vec<i32> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 17) as i32 - 8
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(element: Element, eighths: i32, bits: u32) {
        assert_eq!(element.encoded(eighths), bits, "{element:?} {eighths}");
    }

    #[test]
    fn numbers_have_their_bits() {
        for eighths in -8..=8 {
            let float = (eighths as f32 / 8.0).to_bits();
            check(Element::Tf32, eighths, float);
            check(Element::Bf16, eighths, float >> 16);
        }
        check(Element::F16, 8, 0x3c00);
        check(Element::F16, -4, 0xb800);
        check(Element::F16, 7, 0x3b00);
        check(Element::F16, 1, 0x3000);
        check(Element::E4m3, 8, 0x38);
        check(Element::E4m3, -8, 0xb8);
        check(Element::E4m3, 7, 0x36); // 1.75 / 2
        check(Element::E4m3, 1, 0x20);
        check(Element::E4m3, 0, 0);
        check(Element::S8, -8, 0xf8);
    }

    #[test]
    fn random_numbers_are_of_all_sizes() {
        let numbers = random(1, 1000);
        for wanted in -8..=8 {
            assert!(numbers.contains(&wanted), "{wanted}");
        }
        assert_ne!(numbers, random(2, 1000));
    }
}
