//! Exact floating-point arithmetic for comparison: numbers as large integers times powers of two, rounded once. It shares
//! nothing with the crate.

use std::cmp::Ordering;

/// A rounding direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Near,
    Away,
    Zero,
    Down,
    Up,
}

pub const WAYS: [(&str, Way); 4] = [
    ("rn", Way::Near),
    ("rz", Way::Zero),
    ("rm", Way::Down),
    ("rp", Way::Up),
];

/// A binary format; `nan` is what instructions return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fmt {
    pub fraction: u32,
    pub exponent: u32,
    pub nan: u64,
    /// E4M3 has numbers where others have infinities.
    pub finite: bool,
}

const fn fmt(fraction: u32, exponent: u32, nan: u64) -> Fmt {
    Fmt {
        fraction,
        exponent,
        nan,
        finite: false,
    }
}

pub const F64: Fmt = fmt(52, 11, 0x7fff_ffff_ffff_ffff);
pub const F32: Fmt = fmt(23, 8, 0x7fff_ffff);
pub const F16: Fmt = fmt(10, 5, 0x7fff);
pub const BF16: Fmt = fmt(7, 8, 0x7fff);
pub const E5M2: Fmt = fmt(2, 5, 0x7f);
pub const TF32: Fmt = fmt(10, 8, 0x3_ffff);
pub const E4M3: Fmt = Fmt {
    finite: true,
    ..fmt(3, 4, 0x7f)
};

/// A number.
#[derive(Debug, Clone, PartialEq)]
pub enum Num {
    Nan,
    Inf(bool),
    /// Sign, magnitude, exponent of its last bit.
    Fin(bool, Big, i32),
}

use Num::{Fin, Inf, Nan};

impl Fmt {
    pub fn sign(self) -> u64 {
        1 << (self.fraction + self.exponent)
    }

    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    pub fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.fraction
    }

    /// The largest finite number.
    pub fn max(self) -> u64 {
        if self.finite {
            self.sign() - 2
        } else {
            self.infinity() - 1
        }
    }

    pub fn is_nan(self, bits: u64) -> bool {
        let magnitude = bits & (self.sign() - 1);
        if self.finite {
            magnitude == self.sign() - 1
        } else {
            magnitude > self.infinity()
        }
    }

    /// A subnormal becomes zero of its sign.
    pub fn flush(self, bits: u64) -> u64 {
        if bits & self.infinity() == 0 {
            bits & self.sign()
        } else {
            bits
        }
    }

    pub fn num(self, bits: u64) -> Num {
        let negative = bits & self.sign() != 0;
        let magnitude = bits & (self.sign() - 1);
        if self.is_nan(bits) {
            return Nan;
        }
        if magnitude == self.infinity() && !self.finite {
            return Inf(negative);
        }
        let (field, fraction) = (
            magnitude >> self.fraction,
            magnitude & ((1 << self.fraction) - 1),
        );
        let lowest = 1 - self.bias() - self.fraction as i32;
        if field == 0 {
            Fin(negative, Big::from(u128::from(fraction)), lowest)
        } else {
            let significand = fraction | 1 << self.fraction;
            Fin(
                negative,
                Big::from(u128::from(significand)),
                lowest + field as i32 - 1,
            )
        }
    }

    /// Rounds; `sticky`: the number is a little larger in magnitude than it says.
    pub fn bits(self, number: &Num, way: Way, sticky: bool) -> u64 {
        let (negative, magnitude, exponent) = match number {
            Nan => return self.nan,
            Inf(negative) if self.finite => {
                return self.nan | if *negative { self.sign() } else { 0 };
            }
            Inf(negative) => return self.infinity() | if *negative { self.sign() } else { 0 },
            Fin(negative, magnitude, exponent) => (*negative, magnitude, *exponent),
        };
        let sign = if negative { self.sign() } else { 0 };
        if magnitude.length() == 0 && !sticky {
            return sign;
        }
        let lowest = 1 - self.bias() - self.fraction as i32;
        let last = (exponent + magnitude.length() as i32 - 1 - self.fraction as i32).max(lowest);
        let drop = last - exponent;
        let (kept, half, rest) = if drop <= 0 {
            (magnitude.shl((-drop) as u32).low(), false, sticky)
        } else {
            let drop = drop as u32;
            (
                magnitude.shr(drop).low(),
                magnitude.bit(drop - 1),
                sticky || magnitude.any_below(drop - 1),
            )
        };
        let up = match way {
            Way::Near => half && (rest || kept & 1 == 1),
            Way::Away => half,
            Way::Zero => false,
            Way::Down => negative && (half || rest),
            Way::Up => !negative && (half || rest),
        };
        let kept = kept as u64 + u64::from(up);
        let field = (last - lowest) as u64;
        let result = if kept >> self.fraction == 0 {
            kept
        } else {
            (field << self.fraction) + kept
        };
        if result > self.max() {
            let grows = match way {
                Way::Near | Way::Away => true,
                Way::Zero => false,
                Way::Down => negative,
                Way::Up => !negative,
            };
            return match (grows, self.finite) {
                (false, _) => sign | self.max(),
                (true, true) => sign | self.nan,
                (true, false) => sign | self.infinity(),
            };
        }
        sign | result
    }
}

/// `a + b`; exact zeros of unlike signs give that of the direction.
pub fn add(a: &Num, b: &Num, way: Way) -> Num {
    match (a, b) {
        (Nan, _) | (_, Nan) => Nan,
        (Inf(x), Inf(y)) if x != y => Nan,
        (Inf(x), _) | (_, Inf(x)) => Inf(*x),
        (Fin(an, am, ae), Fin(bn, bm, be)) => {
            let exponent = *ae.min(be);
            let (x, y) = (
                am.shl((ae - exponent) as u32),
                bm.shl((be - exponent) as u32),
            );
            if an == bn {
                return Fin(*an, x.add(&y), exponent);
            }
            match x.cmp(&y) {
                Ordering::Equal => Fin(way == Way::Down, Big::from(0), exponent),
                Ordering::Greater => Fin(*an, x.sub(&y), exponent),
                Ordering::Less => Fin(*bn, y.sub(&x), exponent),
            }
        }
    }
}

pub fn negate(a: &Num) -> Num {
    match a {
        Nan => Nan,
        Inf(negative) => Inf(!negative),
        Fin(negative, magnitude, exponent) => Fin(!negative, magnitude.clone(), *exponent),
    }
}

/// `a × b`.
pub fn mul(a: &Num, b: &Num) -> Num {
    match (a, b) {
        (Nan, _) | (_, Nan) => Nan,
        (Inf(x), Inf(y)) => Inf(x != y),
        (Inf(x), Fin(y, magnitude, _)) | (Fin(y, magnitude, _), Inf(x)) => {
            if magnitude.length() == 0 {
                Nan
            } else {
                Inf(x != y)
            }
        }
        // Significands have at most 53 bits.
        (Fin(an, am, ae), Fin(bn, bm, be)) => {
            Fin(an != bn, Big::from(am.low() * bm.low()), ae + be)
        }
    }
}

/// `a / b`, and whether it is cut off.
pub fn div(a: &Num, b: &Num) -> (Num, bool) {
    match (a, b) {
        (Nan, _) | (_, Nan) | (Inf(_), Inf(_)) => (Nan, false),
        (Inf(x), Fin(y, ..)) => (Inf(x != y), false),
        (Fin(x, ..), Inf(y)) => (Fin(x != y, Big::from(0), 0), false),
        (Fin(an, am, ae), Fin(bn, bm, be)) => {
            let (x, y) = (am.low(), bm.low());
            if y == 0 {
                return (if x == 0 { Nan } else { Inf(an != bn) }, false);
            }
            if x == 0 {
                return (Fin(an != bn, Big::from(0), 0), false);
            }
            let lift = x.leading_zeros();
            let x = x << lift;
            (
                Fin(an != bn, Big::from(x / y), ae - be - lift as i32),
                x % y != 0,
            )
        }
    }
}

/// The root, and whether it is cut off.
pub fn sqrt(a: &Num) -> (Num, bool) {
    match a {
        Nan | Inf(true) => (Nan, false),
        Inf(false) => (Inf(false), false),
        Fin(negative, magnitude, exponent) => {
            let x = magnitude.low();
            if x == 0 {
                return (a.clone(), false);
            }
            if *negative {
                return (Nan, false);
            }
            let mut lift = x.leading_zeros() as i32 - 1;
            lift -= (exponent - lift).rem_euclid(2);
            let x = x << lift;
            // Bit by bit from above.
            let mut root = 0u128;
            for bit in (0..64).rev() {
                let next = root | 1 << bit;
                if next.checked_mul(next).is_some_and(|square| square <= x) {
                    root = next;
                }
            }
            (
                Fin(false, Big::from(root), (exponent - lift) / 2),
                root * root != x,
            )
        }
    }
}

/// How two numbers compare; `None` with a NaN.
pub fn compare(a: &Num, b: &Num) -> Option<Ordering> {
    match (a, b) {
        (Nan, _) | (_, Nan) => None,
        (Inf(x), Inf(y)) if x == y => Some(Ordering::Equal),
        (Inf(x), _) => Some(if *x {
            Ordering::Less
        } else {
            Ordering::Greater
        }),
        (_, Inf(y)) => Some(if *y {
            Ordering::Greater
        } else {
            Ordering::Less
        }),
        _ => Some(match add(a, &negate(b), Way::Near) {
            Fin(_, magnitude, _) if magnitude.length() == 0 => Ordering::Equal,
            Fin(true, ..) => Ordering::Less,
            _ => Ordering::Greater,
        }),
    }
}

/// A large natural number, lowest word first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Big(Vec<u64>);

impl From<u128> for Big {
    fn from(value: u128) -> Self {
        Self(vec![value as u64, (value >> 64) as u64])
    }
}

impl Big {
    /// Bits without leading zeros.
    pub fn length(&self) -> u32 {
        let top = self.0.iter().rposition(|&word| word != 0);
        top.map_or(0, |top| 64 * top as u32 + 64 - self.0[top].leading_zeros())
    }

    fn word(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    pub fn bit(&self, index: u32) -> bool {
        self.word(index as usize / 64) >> (index % 64) & 1 == 1
    }

    pub fn any_below(&self, end: u32) -> bool {
        (0..end).any(|index| self.bit(index))
    }

    pub fn low(&self) -> u128 {
        u128::from(self.word(1)) << 64 | u128::from(self.word(0))
    }

    pub fn shl(&self, count: u32) -> Self {
        let (words, bits) = ((count / 64) as usize, count % 64);
        let mut out = vec![0; words];
        let mut carry = 0;
        for &word in self.0.iter().chain(&[0]) {
            out.push(word << bits | carry);
            carry = if bits == 0 { 0 } else { word >> (64 - bits) };
        }
        Self(out)
    }

    pub fn shr(&self, count: u32) -> Self {
        let (words, bits) = ((count / 64) as usize, count % 64);
        let part = |index: usize| {
            let high = if bits == 0 {
                0
            } else {
                self.word(index + 1) << (64 - bits)
            };
            self.word(index) >> bits | high
        };
        Self((words..self.0.len().max(words + 1)).map(part).collect())
    }

    pub fn add(&self, other: &Self) -> Self {
        let mut carry = 0u128;
        let length = self.0.len().max(other.0.len()) + 1;
        Self(
            (0..length)
                .map(|index| {
                    let sum = u128::from(self.word(index)) + u128::from(other.word(index)) + carry;
                    carry = sum >> 64;
                    sum as u64
                })
                .collect(),
        )
    }

    /// Of a smaller number.
    pub fn sub(&self, other: &Self) -> Self {
        let mut borrow = 0u64;
        Self(
            (0..self.0.len())
                .map(|index| {
                    let (part, first) = self.word(index).overflowing_sub(other.word(index));
                    let (part, second) = part.overflowing_sub(borrow);
                    borrow = u64::from(first || second);
                    part
                })
                .collect(),
        )
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let length = self.0.len().max(other.0.len());
        (0..length)
            .rev()
            .map(|index| self.word(index).cmp(&other.word(index)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}
