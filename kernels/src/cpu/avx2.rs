use std::arch::x86_64::*;

use half::{bf16, f16};

use super::simd::{Op, Simd};

/// AVX2, FMA and F16C. A value exists only where the processor has all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Avx2> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Avx2(()))
    }

    /// Runs `op` in a function that uses the features.
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn featured<O: Op>(s: Avx2, op: O) -> O::Output {
            op.run(s)
        }
        // SAFETY: `detect` made `self`, so that the processor has the features.
        unsafe { featured(self, op) }
    }
}

impl Simd for Avx2 {
    type F = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves the features; so in all methods below.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn scale_by_power(self, a: __m256, n: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
        }
    }

    #[inline(always)]
    fn sum_each(self, v: [__m256; 8]) -> __m256 {
        // Adds lanes 4 apart, then 2 apart, then neighbours, as `Simd::sum` does, so that both give the same bits.
        // SAFETY: `self` proves the features.
        unsafe {
            // Halves of vectors i and i + 4 side by side: lanes 0..4 belong to i, lanes 4..8 to i + 4.
            let halves = |i: usize| {
                let low = _mm256_permute2f128_ps::<0x20>(v[i], v[i + 4]);
                let high = _mm256_permute2f128_ps::<0x31>(v[i], v[i + 4]);
                _mm256_add_ps(low, high)
            };
            let quarters = |a: __m256, b: __m256| {
                let low = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
                let high = _mm256_shuffle_ps::<0b11_10_11_10>(a, b);
                _mm256_add_ps(low, high)
            };
            let (a, b) = (
                quarters(halves(0), halves(1)),
                quarters(halves(2), halves(3)),
            );
            let even = _mm256_shuffle_ps::<0b10_00_10_00>(a, b);
            let odd = _mm256_shuffle_ps::<0b11_01_11_01>(a, b);
            _mm256_add_ps(even, odd)
        }
    }

    #[inline(always)]
    fn transpose(self, v: [__m256; 8]) -> [__m256; 8] {
        // SAFETY: `self` proves the features.
        unsafe {
            let pair = |i: usize| {
                let (a, b) = (v[i], v[i + 1]);
                (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
            };
            let ((a0, a1), (b0, b1), (c0, c1), (d0, d1)) = (pair(0), pair(2), pair(4), pair(6));
            let four = |a: __m256, b: __m256| {
                let low = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
                let high = _mm256_shuffle_ps::<0b11_10_11_10>(a, b);
                (low, high)
            };
            let ((e0, e1), (e2, e3)) = (four(a0, b0), four(a1, b1));
            let ((f0, f1), (f2, f3)) = (four(c0, d0), four(c1, d1));
            [
                _mm256_permute2f128_ps::<0x20>(e0, f0),
                _mm256_permute2f128_ps::<0x20>(e1, f1),
                _mm256_permute2f128_ps::<0x20>(e2, f2),
                _mm256_permute2f128_ps::<0x20>(e3, f3),
                _mm256_permute2f128_ps::<0x31>(e0, f0),
                _mm256_permute2f128_ps::<0x31>(e1, f1),
                _mm256_permute2f128_ps::<0x31>(e2, f2),
                _mm256_permute2f128_ps::<0x31>(e3, f3),
            ]
        }
    }

    #[inline(always)]
    fn to_array(self, a: __m256) -> [f32; 8] {
        let mut array = [0.0; 8];
        // SAFETY: `self` proves the features; the array holds eight.
        unsafe { _mm256_storeu_ps(array.as_mut_ptr(), a) };
        array
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        // SAFETY: the caller's, and `self` proves the features.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        // SAFETY: the caller's, and `self` proves the features.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m256 {
        // SAFETY: the caller's, and `self` proves the features.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m256 {
        // SAFETY: the caller's, and `self` proves the features.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16_even_odd(self, p: *const bf16) -> (__m256, __m256) {
        // SAFETY: the caller's, and `self` proves the features.
        unsafe {
            let pairs = _mm256_loadu_si256(p.cast());
            let odd = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
            (
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)),
                _mm256_castsi256_ps(odd),
            )
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: __m256) {
        // SAFETY: the caller's, and `self` proves the features.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: __m256) {
        // SAFETY: the caller's, and `self` proves the features.
        unsafe {
            let bits = _mm256_castps_si256(v);
            // Adding 0x7fff and the lowest bit that stays carries into it just when that is nearer, or the tie is odd.
            let lowest = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded =
                _mm256_add_epi32(bits, _mm256_add_epi32(lowest, _mm256_set1_epi32(0x7fff)));
            // A NaN could carry into infinity or zero: it is cut and made quiet.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            let chosen = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
            // Packing works in halves of 128 bits, each of which now holds its numbers twice: the first and the
            // third quarter are wanted.
            let packed = _mm256_packus_epi32(chosen, chosen);
            let packed = _mm256_permute4x64_epi64::<0b00_00_10_00>(packed);
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(packed));
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
