//! Types of matrix elements as tests see them, and where fragments lie.

/// The type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    F32,
    F16,
    Bf16,
    Tf32,
    E4m3,
    E5m2,
    S8,
    U8,
    S32,
}

impl Type {
    pub fn bits(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 | Self::S32 => 32,
            Self::F16 | Self::Bf16 => 16,
            Self::E4m3 | Self::E5m2 | Self::S8 | Self::U8 => 8,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Tf32 => "tf32",
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
            Self::S8 => "s8",
            Self::U8 => "u8",
            Self::S32 => "s32",
        }
    }

    pub fn value(self, bits: u64) -> f64 {
        match self {
            Self::F32 => f32::from_bits(bits as u32).into(),
            Self::F16 => half::f16::from_bits(bits as u16).into(),
            Self::Bf16 => half::bf16::from_bits(bits as u16).into(),
            // The low 13 bits do not count.
            Self::Tf32 => f32::from_bits(bits as u32 & !0x1fff).into(),
            Self::E4m3 => eight(bits as u8, 3),
            Self::E5m2 => eight(bits as u8, 2),
            Self::S8 => f64::from(bits as i8),
            Self::U8 => f64::from(bits as u8),
            Self::S32 => f64::from(bits as i32),
        }
    }

    /// A value of the type near this one; integers are exact.
    pub fn bits_of(self, value: f64) -> u64 {
        match self {
            Self::F32 | Self::Tf32 => u64::from((value as f32).to_bits()),
            Self::F16 => u64::from(half::f16::from_f64(value).to_bits()),
            Self::Bf16 => u64::from(half::bf16::from_f64(value).to_bits()),
            Self::E4m3 | Self::E5m2 => {
                let near = (0..=0xffu64).filter(|&bits| self.value(bits).is_finite());
                let distance = |bits: &u64| (self.value(*bits) - value).abs();
                near.min_by(|x, y| distance(x).total_cmp(&distance(y)))
                    .unwrap()
            }
            Self::S8 | Self::U8 => u64::from(value as i64 as u8),
            Self::S32 => u64::from(value as i64 as u32),
        }
    }
}

/// A float of eight bits with so many bits of significand; E4M3 has a NaN and no infinities.
fn eight(bits: u8, fraction: u32) -> f64 {
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let magnitude = i32::from(bits & 0x7f);
    let bias = (1 << (6 - fraction)) - 1;
    let (exponent, significand) = (magnitude >> fraction, magnitude & ((1 << fraction) - 1));
    if magnitude == 0x7f || fraction == 2 && exponent == 31 {
        return f64::NAN;
    }
    let one = 1 << fraction;
    let value = if exponent == 0 {
        f64::from(significand) * 2f64.powi(1 - bias)
    } else {
        f64::from(one + significand) * 2f64.powi(exponent - bias)
    };
    sign * value / f64::from(one)
}

/// Elements as bits and as values.
pub struct Values {
    pub bits: Vec<u64>,
    pub values: Vec<f64>,
}

impl Values {
    pub fn draw(ty: Type, count: usize, mut next: impl FnMut() -> f64) -> Self {
        let mut known = std::collections::HashMap::new();
        let mut bits_of = |value: f64| {
            *known
                .entry(value.to_bits())
                .or_insert_with(|| ty.bits_of(value))
        };
        let bits: Vec<u64> = (0..count).map(|_| bits_of(next())).collect();
        let values = bits.iter().map(|&bits| ty.value(bits)).collect();
        Self { bits, values }
    }
}

/// Row of A in a lane's register, of those of four (or of two, at the lower indices); and which half of K.
pub fn fragment(lane: usize, register: usize) -> (usize, usize) {
    (lane / 4 + 8 * (register & 1), register >> 1)
}

/// Place along K of an element of a register, `per` of which are in one.
pub fn fragment_k(lane: usize, half: usize, element: usize, per: usize) -> usize {
    per * (lane % 4) + element + 4 * per * half
}

/// Row and column of D in a lane's register, of 8 columns per 4 registers, or per 2 of packed halves.
pub fn accumulator_place(ty: Type, lane: usize, register: usize, half: usize) -> (usize, usize) {
    let (group, pair) = (lane / 4, 2 * (lane % 4));
    if ty.bits() == 16 {
        (group + 8 * (register & 1), register / 2 * 8 + pair + half)
    } else {
        (
            group + 8 * (register >> 1 & 1),
            register / 4 * 8 + pair + (register & 1),
        )
    }
}
