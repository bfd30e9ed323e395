//! The types of a tensor's elements, and what stands for elements outside the tensor.

/// The type of a tensor's elements, numbered as `CUtensorMapDataType` (not as the `.elemtype` of `tensormap.replace`, which
/// swaps some).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ElementType {
    U8,
    U16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
    BF16,
    /// `f32` whose reductions flush subnormals.
    F32Ftz,
    /// `f32` that a load rounds to tf32.
    TF32,
    /// Both.
    TF32Ftz,
}

/// What a load puts where the tile lies outside the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Fill {
    #[default]
    Zeros,
    /// The NaN that `fma.oob` takes for zero; only for floating point.
    Nan,
}

impl ElementType {
    /// From a `CUtensorMapDataType`; the packed types of 4 and 6 bits are not Hopper's.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::U16,
            2 => Self::U32,
            3 => Self::I32,
            4 => Self::U64,
            5 => Self::I64,
            6 => Self::F16,
            7 => Self::F32,
            8 => Self::F64,
            9 => Self::BF16,
            10 => Self::F32Ftz,
            11 => Self::TF32,
            12 => Self::TF32Ftz,
            _ => return None,
        })
    }

    /// Bytes of an element.
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 | Self::F32Ftz | Self::TF32 | Self::TF32Ftz => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        !matches!(
            self,
            Self::U8 | Self::U16 | Self::U32 | Self::I32 | Self::U64 | Self::I64
        )
    }

    /// Whether a load rounds each element to tf32, to nearest even (PTX 5.5.1, "Tensor Dimension, size and format").
    pub(crate) fn is_rounded_to_tf32(self) -> bool {
        matches!(self, Self::TF32 | Self::TF32Ftz)
    }
}

impl Fill {
    /// Two bytes that fill the outside of a tensor of any type.
    ///
    /// PTX names the NaN (`OOB-NaN`, section 5.5.3.3) but not its bits. 0x7FF7 in every 16 bits is what the authors of another
    /// emulator report from hardware, which nothing here has confirmed; it is a NaN in every floating-point type of a tensor.
    pub(crate) fn pattern(self) -> u16 {
        match self {
            Self::Zeros => 0,
            Self::Nan => 0x7ff7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fill_is_a_nan_in_each_type() {
        let pattern = u64::from(Fill::Nan.pattern());
        let four = pattern << 16 | pattern;
        assert!(half::f16::from_bits(pattern as u16).is_nan());
        assert!(half::bf16::from_bits(pattern as u16).is_nan());
        assert!(f32::from_bits(four as u32).is_nan());
        assert!(f64::from_bits(four << 32 | four).is_nan());
    }
}
