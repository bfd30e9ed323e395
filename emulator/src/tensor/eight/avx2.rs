//! Eight lanes in registers.

use super::Eight;
use std::arch::x86_64::*;

/// Registers. Only named by functions that are compiled for AVX2 and F16C, and those only called where [`has_avx2`].
#[derive(Debug)]
pub(in crate::tensor) struct Avx2;

/// Whether the processor has what [`Avx2`] asks for: AVX2 and F16C, which every processor with AVX2 has had.
#[inline(always)]
pub(in crate::tensor) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;

/// An intrinsic, or several.
macro_rules! avx2 {
    ($expression:expr) => {
        // SAFETY: whoever names `Avx2` has made sure that the processor has AVX2 and F16C; no intrinsic here asks for more.
        unsafe { $expression }
    };
}

/// A byte shuffle: low halves of the lanes first, then the high ones.
#[inline(always)]
fn apart() -> __m128i {
    avx2!(_mm_setr_epi8(
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15
    ))
}

impl Eight for Avx2 {
    type Float = __m256;
    type Int = __m256i;

    const IS_FAST: bool = true;

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
    fn abs(a: __m256i) -> __m256i {
        avx2!(_mm256_abs_epi32(a))
    }
    #[inline(always)]
    fn sign(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_sign_epi32(a, b))
    }
    #[inline(always)]
    fn and(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_and_si256(a, b))
    }
    #[inline(always)]
    fn without(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_andnot_si256(b, a))
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
    fn select_negative(by: __m256i, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_blendv_ps(b, a, _mm256_castsi256_ps(by)))
    }
    #[inline(always)]
    fn any(mask: __m256i) -> bool {
        avx2!(_mm256_testz_si256(mask, mask)) == 0
    }
    #[inline(always)]
    fn shl_halves<const N: i32>(a: __m256i) -> __m256i {
        avx2!(_mm256_slli_epi16::<N>(a))
    }
    #[inline(always)]
    fn shr_halves<const N: i32>(a: __m256i) -> __m256i {
        avx2!(_mm256_srli_epi16::<N>(a))
    }
    #[inline(always)]
    fn sar_halves<const N: i32>(a: __m256i) -> __m256i {
        avx2!(_mm256_srai_epi16::<N>(a))
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
    fn min_halves(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_min_epu16(a, b))
    }
    #[inline(always)]
    fn excess_halves(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_subs_epu16(a, b))
    }
    #[inline(always)]
    fn equal_halves(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_cmpeq_epi16(a, b))
    }
    #[inline(always)]
    fn dot_halves(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_madd_epi16(a, b))
    }
    #[inline(always)]
    fn add_bytes(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_adds_epi8(a, b))
    }
    #[inline(always)]
    fn max_bytes(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_max_epi8(a, b))
    }
    #[inline(always)]
    fn equal_bytes(a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_cmpeq_epi8(a, b))
    }
    #[inline(always)]
    fn pair(a: __m256i) -> __m256i {
        avx2!(_mm256_or_si256(a, _mm256_srli_epi64::<16>(a)))
    }
    #[inline(always)]
    fn join(low: &[u32; 4], high: &[u32; 4]) -> __m256i {
        avx2!(_mm256_set_m128i(
            bytemuck::cast(*high),
            bytemuck::cast(*low)
        ))
    }
    #[inline(always)]
    fn transpose(rows: &[u32; 32]) -> [__m256i; 4] {
        avx2!({
            let [a, b, c, d]: [__m256i; 4] = bytemuck::cast(*rows);
            let (low, low2) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (high, high2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(low, low2),
                _mm256_unpackhi_epi64(low, low2),
                _mm256_unpacklo_epi64(high, high2),
                _mm256_unpackhi_epi64(high, high2),
            ]
        })
    }
    #[inline(always)]
    fn f16_halves(words: __m256i) -> [__m256; 2] {
        avx2!({
            let sorted = _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(apart()));
            let sorted = _mm256_permute4x64_epi64::<0b11_01_10_00>(sorted);
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(sorted)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(sorted)),
            ]
        })
    }
    #[inline(always)]
    fn f16_join(words: &[u32; 4]) -> __m256 {
        avx2!(_mm256_cvtph_ps(_mm_shuffle_epi8(
            bytemuck::cast(*words),
            apart()
        )))
    }
    #[inline(always)]
    fn f16_split(values: __m256) -> [u32; 4] {
        avx2!({
            let halves = _mm256_cvtps_ph::<NEAREST>(values);
            let high = _mm_srli_si128::<8>(halves);
            bytemuck::cast(_mm_unpacklo_epi16(halves, high))
        })
    }
    #[inline(always)]
    fn f16_round(values: __m256) -> __m256 {
        avx2!(_mm256_cvtph_ps(_mm256_cvtps_ph::<NEAREST>(values)))
    }
}
