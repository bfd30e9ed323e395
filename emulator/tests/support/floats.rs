//! Floating-point numbers to test with.

use super::exact::{F64, Fmt};
use super::opcode::rows;

/// Numbers at which things change.
pub fn special(f: Fmt) -> Vec<u64> {
    let one = f.infinity() >> 1 & !((1 << f.fraction) - 1);
    let normal = 1 << f.fraction;
    let magnitudes = [
        0,
        1,
        normal - 1,
        normal,
        normal + 1,
        one - 1,
        one,
        one + 1,
        one + normal,
        one + 3 * normal / 2,
        f.max(),
        f.infinity(),
        f.infinity() | 1,
        f.sign() - 1,
    ];
    magnitudes.iter().flat_map(|&m| [m, m | f.sign()]).collect()
}

/// Fewer of them, for three operands.
pub fn few(f: Fmt) -> Vec<u64> {
    let all = special(f);
    [0, 1, 2, 5, 6, 11, 12, 14, 17, 20, 21, 22, 23, 24]
        .iter()
        .map(|&i| all[i])
        .collect()
}

/// Numbers whose exponents are near to each other, so that what is rounded away matters.
pub fn near(f: Fmt, columns: usize, count: usize) -> Vec<Vec<u64>> {
    let mut next = super::random(5);
    let mut bits = || u64::from(next()) << 32 | u64::from(next());
    (0..count)
        .map(|_| {
            let base = bits() % (1 << f.exponent);
            (0..columns)
                .map(|_| {
                    let field = (base + bits() % 8).min((1 << f.exponent) - 2);
                    let fraction = bits() & ((1 << f.fraction) - 1);
                    // Often few bits: ties.
                    let fraction = if bits() & 1 == 0 {
                        fraction & !((1 << (f.fraction / 2)) - 1)
                    } else {
                        fraction
                    };
                    field << f.fraction | fraction | if bits() & 1 == 0 { f.sign() } else { 0 }
                })
                .collect()
        })
        .collect()
}

pub fn inputs(f: Fmt, columns: usize) -> Vec<Vec<u64>> {
    let values = if columns == 3 { few(f) } else { special(f) };
    let mut all = rows(&vec![&values[..]; columns], 300);
    all.extend(near(f, columns, 300));
    all
}

/// The host's NaN stands for any where the instruction does not say which.
pub fn same(f: Fmt) -> impl Fn(u64, u64) -> bool {
    move |a, b| f == F64 && f.is_nan(a) && f.is_nan(b)
}

/// What follows the rounding.
#[derive(Clone, Copy, Default)]
pub struct After {
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
}

impl After {
    pub fn read(self, f: Fmt, bits: u64) -> u64 {
        let bits = bits & (f.sign() | (f.sign() - 1));
        if self.ftz { f.flush(bits) } else { bits }
    }

    pub fn finish(self, f: Fmt, bits: u64) -> u64 {
        let one = f.infinity() >> 1 & !((1 << f.fraction) - 1);
        let bits = if self.ftz { f.flush(bits) } else { bits };
        let negative = bits & f.sign() != 0;
        if self.sat {
            return if f.is_nan(bits) || negative {
                0
            } else {
                bits.min(one)
            };
        }
        if self.relu && negative && !f.is_nan(bits) {
            0
        } else {
            bits
        }
    }

    pub fn name(self) -> String {
        [(self.ftz, ".ftz"), (self.sat, ".sat"), (self.relu, ".relu")]
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| *name)
            .collect()
    }
}
