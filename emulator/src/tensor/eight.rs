//! Eight lanes at a time. The arithmetic is written once over [`Eight`]; arrays compute it anywhere, registers where there is AVX2.
//!
//! The compiler does not find these vectors by itself: left with arrays it vectorises along K, and adds across lanes.

use bytemuck::Pod;

/// Operations on eight lanes. Both implementations give the same bits for every operand that the functions here name.
pub(super) trait Eight {
    /// Eight `f32`.
    type Float: Pod;
    /// Eight `i32`, or masks: all ones or zero.
    type Int: Pod;

    fn splat(value: i32) -> Self::Int;
    fn splat_float(value: f32) -> Self::Float;
    fn mul(a: Self::Float, b: Self::Float) -> Self::Float;
    fn add_float(a: Self::Float, b: Self::Float) -> Self::Float;
    /// Toward zero; of magnitudes below 2^31.
    fn cut(a: Self::Float) -> Self::Int;
    fn float(a: Self::Int) -> Self::Float;
    fn add(a: Self::Int, b: Self::Int) -> Self::Int;
    fn sub(a: Self::Int, b: Self::Int) -> Self::Int;
    fn max(a: Self::Int, b: Self::Int) -> Self::Int;
    fn min(a: Self::Int, b: Self::Int) -> Self::Int;
    fn and(a: Self::Int, b: Self::Int) -> Self::Int;
    fn or(a: Self::Int, b: Self::Int) -> Self::Int;
    fn shl<const N: i32>(a: Self::Int) -> Self::Int;
    /// Fills with zeros.
    fn shr<const N: i32>(a: Self::Int) -> Self::Int;
    /// Fills with the sign.
    fn sar<const N: i32>(a: Self::Int) -> Self::Int;
    /// Sums of the 16-bit halves of each lane.
    fn add_halves(a: Self::Int, b: Self::Int) -> Self::Int;
    /// The larger of each of the signed 16-bit halves.
    fn max_halves(a: Self::Int, b: Self::Int) -> Self::Int;
    fn greater(a: Self::Int, b: Self::Int) -> Self::Int;
    fn equal(a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a` where the mask is set, else `b`.
    fn select(mask: Self::Int, a: Self::Int, b: Self::Int) -> Self::Int;
    fn any(mask: Self::Int) -> bool;
    /// `a + b` without overflow, rounded to `f32` toward zero, or to odd, which a second rounding sees as the exact sum.
    fn sum<const TO_ODD: bool>(a: Self::Int, b: Self::Int) -> Self::Float;

    #[inline(always)]
    fn load(lanes: &[i32; 8]) -> Self::Int {
        bytemuck::cast(*lanes)
    }
    #[inline(always)]
    fn load_words(lanes: &[u32; 8]) -> Self::Int {
        bytemuck::cast(*lanes)
    }
    #[inline(always)]
    fn load_floats(lanes: &[f32; 8]) -> Self::Float {
        bytemuck::cast(*lanes)
    }
    #[inline(always)]
    fn bits(a: Self::Float) -> Self::Int {
        bytemuck::cast(a)
    }
    #[inline(always)]
    fn from_bits(a: Self::Int) -> Self::Float {
        bytemuck::cast(a)
    }
}

/// Bits of an `f64`'s fraction that an `f32` has no place for.
const BELOW: i64 = (1 << 29) - 1;

/// Arrays.
#[derive(Debug)]
pub(super) struct Plain;

#[inline(always)]
fn zip<A: Copy, B: Copy, R>(a: [A; 8], b: [B; 8], f: impl Fn(A, B) -> R) -> [R; 8] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn mask(condition: bool) -> i32 {
    -i32::from(condition)
}

#[inline(always)]
fn halves(a: i32, b: i32, f: impl Fn(i16, i16) -> i16) -> i32 {
    let (low, high) = (f(a as i16, b as i16), f((a >> 16) as i16, (b >> 16) as i16));
    i32::from(low as u16) | i32::from(high) << 16
}

impl Eight for Plain {
    type Float = [f32; 8];
    type Int = [i32; 8];

    #[inline(always)]
    fn splat(value: i32) -> [i32; 8] {
        [value; 8]
    }
    #[inline(always)]
    fn splat_float(value: f32) -> [f32; 8] {
        [value; 8]
    }
    #[inline(always)]
    fn mul(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn add_float(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn cut(a: [f32; 8]) -> [i32; 8] {
        a.map(|a| a as i32)
    }
    #[inline(always)]
    fn float(a: [i32; 8]) -> [f32; 8] {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    fn add(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn max(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::max)
    }
    #[inline(always)]
    fn min(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::min)
    }
    #[inline(always)]
    fn and(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn or(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn shl<const N: i32>(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a << N)
    }
    #[inline(always)]
    fn shr<const N: i32>(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| (a as u32 >> N) as i32)
    }
    #[inline(always)]
    fn sar<const N: i32>(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a >> N)
    }
    #[inline(always)]
    fn add_halves(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| halves(a, b, i16::wrapping_add))
    }
    #[inline(always)]
    fn max_halves(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| halves(a, b, i16::max))
    }
    #[inline(always)]
    fn greater(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| mask(a > b))
    }
    #[inline(always)]
    fn equal(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| mask(a == b))
    }
    #[inline(always)]
    fn select(mask: [i32; 8], a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| if mask[i] < 0 { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn any(mask: [i32; 8]) -> bool {
        mask.iter().any(|lane| *lane < 0)
    }
    #[inline(always)]
    fn sum<const TO_ODD: bool>(a: [i32; 8], b: [i32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| {
            let bits = (f64::from(a) + f64::from(b)).to_bits() as i64;
            let sticky = if TO_ODD {
                ((bits & BELOW) + BELOW) & (BELOW + 1)
            } else {
                0
            };
            f64::from_bits(((bits & !BELOW) | sticky) as u64) as f32
        })
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BELOW, Eight};
    use std::arch::x86_64::*;

    /// Registers. Only named by functions that are compiled for AVX2, and those only called where the processor has it.
    #[derive(Debug)]
    pub(in crate::tensor) struct Avx2;

    /// An intrinsic, or several.
    macro_rules! avx2 {
        ($expression:expr) => {
            // SAFETY: whoever names `Avx2` has made sure that the processor has AVX2; no intrinsic here asks for more.
            unsafe { $expression }
        };
    }

    impl Eight for Avx2 {
        type Float = __m256;
        type Int = __m256i;

        #[inline(always)]
        fn splat(value: i32) -> __m256i {
            avx2!(_mm256_set1_epi32(value))
        }
        #[inline(always)]
        fn splat_float(value: f32) -> __m256 {
            avx2!(_mm256_set1_ps(value))
        }
        #[inline(always)]
        fn mul(a: __m256, b: __m256) -> __m256 {
            avx2!(_mm256_mul_ps(a, b))
        }
        #[inline(always)]
        fn add_float(a: __m256, b: __m256) -> __m256 {
            avx2!(_mm256_add_ps(a, b))
        }
        #[inline(always)]
        fn cut(a: __m256) -> __m256i {
            avx2!(_mm256_cvttps_epi32(a))
        }
        #[inline(always)]
        fn float(a: __m256i) -> __m256 {
            avx2!(_mm256_cvtepi32_ps(a))
        }
        #[inline(always)]
        fn add(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_add_epi32(a, b))
        }
        #[inline(always)]
        fn sub(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_sub_epi32(a, b))
        }
        #[inline(always)]
        fn max(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_max_epi32(a, b))
        }
        #[inline(always)]
        fn min(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_min_epi32(a, b))
        }
        #[inline(always)]
        fn and(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_and_si256(a, b))
        }
        #[inline(always)]
        fn or(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_or_si256(a, b))
        }
        #[inline(always)]
        fn shl<const N: i32>(a: __m256i) -> __m256i {
            avx2!(_mm256_slli_epi32::<N>(a))
        }
        #[inline(always)]
        fn shr<const N: i32>(a: __m256i) -> __m256i {
            avx2!(_mm256_srli_epi32::<N>(a))
        }
        #[inline(always)]
        fn sar<const N: i32>(a: __m256i) -> __m256i {
            avx2!(_mm256_srai_epi32::<N>(a))
        }
        #[inline(always)]
        fn add_halves(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_add_epi16(a, b))
        }
        #[inline(always)]
        fn max_halves(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_max_epi16(a, b))
        }
        #[inline(always)]
        fn greater(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_cmpgt_epi32(a, b))
        }
        #[inline(always)]
        fn equal(a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_cmpeq_epi32(a, b))
        }
        #[inline(always)]
        fn select(mask: __m256i, a: __m256i, b: __m256i) -> __m256i {
            avx2!(_mm256_blendv_epi8(b, a, mask))
        }
        #[inline(always)]
        fn any(mask: __m256i) -> bool {
            avx2!(_mm256_testz_si256(mask, mask)) == 0
        }
        #[inline(always)]
        fn sum<const TO_ODD: bool>(a: __m256i, b: __m256i) -> __m256 {
            avx2!({
                let low = sum_half::<TO_ODD>(_mm256_castsi256_si128(a), _mm256_castsi256_si128(b));
                let high = sum_half::<TO_ODD>(
                    _mm256_extracti128_si256::<1>(a),
                    _mm256_extracti128_si256::<1>(b),
                );
                _mm256_set_m128(high, low)
            })
        }
    }

    #[inline(always)]
    fn sum_half<const TO_ODD: bool>(a: __m128i, b: __m128i) -> __m128 {
        avx2!({
            let below = _mm256_set1_epi64x(BELOW);
            let sum = _mm256_add_pd(_mm256_cvtepi32_pd(a), _mm256_cvtepi32_pd(b));
            let bits = _mm256_castpd_si256(sum);
            let mut kept = _mm256_andnot_si256(below, bits);
            if TO_ODD {
                let carried = _mm256_add_epi64(_mm256_and_si256(bits, below), below);
                let sticky = _mm256_and_si256(carried, _mm256_set1_epi64x(BELOW + 1));
                kept = _mm256_or_si256(kept, sticky);
            }
            _mm256_cvtpd_ps(_mm256_castsi256_pd(kept))
        })
    }
}
