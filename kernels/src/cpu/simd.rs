//! Eight float32 lanes, on any processor.
//!
//! An inner loop is written once, generic over [`Simd`], and compiled for each instruction set: [`Op::run`] is inlined
//! into one function per set, which enables its features. Which set runs is chosen once, when a [`super::Cpu`] is made.

use half::{bf16, f16};

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What every processor of the target has.
    Portable,
    /// AVX2 with FMA and F16C: x86 since 2013.
    #[cfg(target_arch = "x86_64")]
    Avx2(super::avx2::Avx2),
}

impl Level {
    /// The best of this processor.
    pub(crate) fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = super::avx2::Avx2::detect() {
            return Level::Avx2(avx2);
        }
        Level::Portable
    }

    /// Runs `op` with this set.
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        match self {
            Level::Portable => op.run(Portable),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(avx2) => avx2.run(op),
        }
    }

    /// The features used, as records show them.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "avx2+fma+f16c",
        }
    }

    /// The one of two kernel names that fits.
    pub(crate) fn pick(self, _avx2: &'static str, portable: &'static str) -> &'static str {
        match self {
            Level::Portable => portable,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => _avx2,
        }
    }
}

/// An inner loop and its arguments.
pub(crate) trait Op {
    type Output;

    /// Must be `#[inline(always)]`, and so must be what it calls: only code inlined into the function that enables the features
    /// uses them. No closure that computes with lanes: called twice, it is not inlined, and each instruction of it is a call.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Eight lanes. A value of the implementing type proves that the processor has the instructions.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    type F: Copy;

    fn splat(self, x: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the processor can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// To nearest, ties to even, for magnitudes below 2^22.
    fn round(self, a: Self::F) -> Self::F;
    /// `a * 2^n` for whole `n` from -126 to 127; 0 for -127.
    fn scale_by_power(self, a: Self::F, n: Self::F) -> Self::F;
    /// Lane `i` is the sum of the lanes of vector `i`.
    fn sum_each(self, v: [Self::F; 8]) -> Self::F;
    /// Lane `j` of vector `i` becomes lane `i` of vector `j`.
    fn transpose(self, v: [Self::F; 8]) -> [Self::F; 8];
    fn to_array(self, a: Self::F) -> [f32; 8];

    /// # Safety
    /// `p` is valid for reads of 8 elements.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// `p` is valid for writes of 8 elements.
    unsafe fn store(self, p: *mut f32, v: Self::F);
    /// # Safety
    /// `p` is valid for reads of 8 elements.
    unsafe fn load_f16(self, p: *const f16) -> Self::F;
    /// # Safety
    /// `p` is valid for reads of 8 elements.
    unsafe fn load_bf16(self, p: *const bf16) -> Self::F;
    /// Elements 0, 2, … 14 and elements 1, 3, … 15: that order costs two instructions less than the natural one.
    ///
    /// # Safety
    /// `p` is valid for reads of 16 elements.
    unsafe fn load_bf16_even_odd(self, p: *const bf16) -> (Self::F, Self::F);
    /// Rounds to nearest even.
    ///
    /// # Safety
    /// `p` is valid for writes of 8 elements.
    unsafe fn store_f16(self, p: *mut f16, v: Self::F);
    /// Rounds to nearest even; NaN stays NaN.
    ///
    /// # Safety
    /// `p` is valid for writes of 8 elements.
    unsafe fn store_bf16(self, p: *mut bf16, v: Self::F);
    /// Asks for the cache line of `p`, which may be any address.
    fn prefetch(self, p: *const u8);

    #[inline(always)]
    fn load_array(self, a: &[f32; 8]) -> Self::F {
        // SAFETY: the array holds 8.
        unsafe { self.load(a.as_ptr()) }
    }

    #[inline(always)]
    fn store_array(self, a: &mut [f32; 8], v: Self::F) {
        // SAFETY: the array holds 8.
        unsafe { self.store(a.as_mut_ptr(), v) }
    }

    /// The sum of the lanes.
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        let a = self.to_array(a);
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }

    /// The largest lane.
    #[inline(always)]
    fn max_lane(self, a: Self::F) -> f32 {
        self.to_array(a)
            .into_iter()
            .fold(f32::NEG_INFINITY, f32::max)
    }
}

/// `e^x`, within 2e-7 of the true value. Above 88 it stays at `e^88`; below -87.6, just before the result would be denormal, and
/// so at minus infinity, it is 0. NaN stays NaN.
///
/// As in Cephes `expf`: `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, `ln 2` split in two so that `r` keeps its bits, and a
/// polynomial for `e^r`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Operands in this order let NaN through. From -87.68 on `n` is -127, and scaling gives 0.
    let clamped = s.max(s.splat(-88.0), s.min(s.splat(88.0), x));
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-0.693_359_4), clamped);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = s.fma(p, r, s.splat(c));
    }
    let y = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    s.scale_by_power(y, n)
}

/// Plain Rust on arrays of eight, which the compiler turns into what the target has: NEON on aarch64, SSE2 on x86.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn map(a: [f32; 8], f: impl Fn(f32) -> f32) -> [f32; 8] {
    let mut out = a;
    for x in &mut out {
        *x = f(*x);
    }
    out
}

#[inline(always)]
fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    let mut out = a;
    for i in 0..8 {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl Simd for Portable {
    type F = [f32; 8];

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }

    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], mut c: [f32; 8]) -> [f32; 8] {
        for i in 0..8 {
            // Where the target has no such instruction, `mul_add` calls a library function for every lane.
            c[i] = if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
                a[i].mul_add(b[i], c[i])
            } else {
                a[i] * b[i] + c[i]
            };
        }
        c
    }

    #[inline(always)]
    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self, a: [f32; 8]) -> [f32; 8] {
        // At 1.5 * 2^23 the spacing of float32 is 1.
        const MAGIC: f32 = 12_582_912.0;
        map(a, |a| (a + MAGIC) - MAGIC)
    }

    #[inline(always)]
    fn scale_by_power(self, a: [f32; 8], n: [f32; 8]) -> [f32; 8] {
        zip(a, n, |a, n| {
            a * f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)
        })
    }

    #[inline(always)]
    fn sum_each(self, v: [[f32; 8]; 8]) -> [f32; 8] {
        v.map(|v| self.sum(v))
    }

    #[inline(always)]
    fn transpose(self, v: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        let mut out = v;
        for i in 0..8 {
            for j in 0..8 {
                out[j][i] = v[i][j];
            }
        }
        out
    }

    #[inline(always)]
    fn to_array(self, a: [f32; 8]) -> [f32; 8] {
        a
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; 8] {
        // SAFETY: the caller's; an array of float32 is aligned as one.
        unsafe { p.cast::<[f32; 8]>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: [f32; 8]) {
        // SAFETY: the caller's.
        unsafe { p.cast::<[f32; 8]>().write(v) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> [f32; 8] {
        // SAFETY: the caller's.
        unsafe { p.cast::<[f16; 8]>().read() }.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> [f32; 8] {
        // SAFETY: the caller's.
        let bits = unsafe { p.cast::<[u16; 8]>().read() };
        bits.map(|b| f32::from_bits(u32::from(b) << 16))
    }

    #[inline(always)]
    unsafe fn load_bf16_even_odd(self, p: *const bf16) -> ([f32; 8], [f32; 8]) {
        // SAFETY: the caller's.
        let bits = unsafe { p.cast::<[u16; 16]>().read() };
        let (mut even, mut odd) = ([0.0; 8], [0.0; 8]);
        for i in 0..8 {
            even[i] = f32::from_bits(u32::from(bits[2 * i]) << 16);
            odd[i] = f32::from_bits(u32::from(bits[2 * i + 1]) << 16);
        }
        (even, odd)
    }

    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: [f32; 8]) {
        // SAFETY: the caller's.
        unsafe { p.cast::<[f16; 8]>().write(v.map(f16::from_f32)) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16, v: [f32; 8]) {
        // SAFETY: the caller's.
        unsafe { p.cast::<[bf16; 8]>().write(v.map(bf16::from_f32)) }
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What every set must compute alike, bit for bit.
    struct Everything {
        a: [f32; 64],
        b: [f32; 8],
    }

    impl Op for Everything {
        type Output = Vec<[f32; 8]>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<[f32; 8]> {
            let half: Vec<f16> = self.a.iter().map(|&x| f16::from_f32(x)).collect();
            let brain: Vec<bf16> = self.a.iter().map(|&x| bf16::from_f32(x)).collect();
            // SAFETY: all arrays hold at least 16 elements, `rows` 64.
            unsafe {
                let (a, b) = (s.load(self.a.as_ptr()), s.load(self.b.as_ptr()));
                let rows: [S::F; 8] = std::array::from_fn(|i| s.load(self.a.as_ptr().add(8 * i)));
                let (even, odd) = s.load_bf16_even_odd(brain.as_ptr());
                let mut stored = [0.0; 8];
                s.store_array(&mut stored, a);
                let (mut halves, mut brains) = ([f16::ZERO; 8], [bf16::ZERO; 8]);
                s.store_f16(halves.as_mut_ptr(), s.mul(a, b));
                s.store_bf16(brains.as_mut_ptr(), s.mul(a, b));
                s.prefetch(self.a.as_ptr().cast());
                let whole = s.max(s.splat(-127.0), s.min(s.splat(127.0), s.round(b)));
                let mut results = vec![
                    s.add(a, b),
                    s.sub(a, b),
                    s.mul(a, b),
                    s.div(a, b),
                    s.max(a, b),
                    s.min(a, b),
                    s.round(a),
                    s.scale_by_power(a, whole),
                    s.load_f16(half.as_ptr()),
                    s.load_bf16(brain.as_ptr()),
                    even,
                    odd,
                    s.splat(s.sum(a)),
                    s.splat(s.max_lane(a)),
                    s.sum_each(rows),
                    s.load_array(&stored),
                    s.load_f16(halves.as_ptr()),
                    s.load_bf16(brains.as_ptr()),
                ];
                results.extend(s.transpose(rows));
                results.into_iter().map(|v| s.to_array(v)).collect()
            }
        }
    }

    struct Exp([f32; 8]);

    impl Op for Exp {
        type Output = [f32; 8];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; 8] {
            // SAFETY: the array holds eight.
            s.to_array(exp(s, unsafe { s.load(self.0.as_ptr()) }))
        }
    }

    proptest! {
        #[test]
        fn all_sets_agree(a in prop::array::uniform32(-200.0_f32..200.0), b in prop::array::uniform8(-130.0_f32..130.0)) {
            let a: [f32; 64] = std::array::from_fn(|i| a[i % 32] * (1 + i / 32) as f32);
            let op = || Everything { a, b };
            let (best, portable) = (Level::detect().run(op()), Level::Portable.run(op()));
            prop_assert_eq!(best, portable);
        }

        #[test]
        fn exp_is_accurate(x in prop::array::uniform8(-87.2_f32..88.0)) {
            for level in [Level::detect(), Level::Portable] {
                for (y, x) in level.run(Exp(x)).into_iter().zip(x) {
                    let truth = f64::from(x).exp();
                    let error = (f64::from(y) - truth).abs() / truth;
                    prop_assert!(error < 2e-7, "exp({x}) = {y}, off by {error:e} on {level:?}");
                }
            }
        }
    }

    struct Narrow([f32; 8]);

    impl Op for Narrow {
        type Output = ([f16; 8], [bf16; 8]);

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> ([f16; 8], [bf16; 8]) {
            let mut out = ([f16::ZERO; 8], [bf16::ZERO; 8]);
            let v = s.load_array(&self.0);
            // SAFETY: the arrays hold eight.
            unsafe {
                s.store_f16(out.0.as_mut_ptr(), v);
                s.store_bf16(out.1.as_mut_ptr(), v);
            }
            out
        }
    }

    #[test]
    fn narrowing_rounds_to_even_and_keeps_nan() {
        let tie = |bits| f32::from_bits(bits); // halfway between two bfloat16 values
        let x = [
            tie(0x3f80_8000),
            tie(0x3f81_8000),
            f32::MAX,
            f32::INFINITY,
            -0.0,
            1e-40,
            70000.0,
            f32::NAN,
        ];
        for level in [Level::detect(), Level::Portable] {
            let (halves, brains) = level.run(Narrow(x));
            for i in 0..7 {
                assert_eq!(
                    halves[i].to_bits(),
                    f16::from_f32(x[i]).to_bits(),
                    "{} on {level:?}",
                    x[i]
                );
                assert_eq!(
                    brains[i].to_bits(),
                    bf16::from_f32(x[i]).to_bits(),
                    "{} on {level:?}",
                    x[i]
                );
            }
            assert!(halves[7].is_nan() && brains[7].is_nan(), "{level:?}");
        }
    }

    #[test]
    fn exp_at_its_edges() {
        for level in [Level::detect(), Level::Portable] {
            let x = [
                0.0,
                -0.0,
                f32::NEG_INFINITY,
                -87.7,
                -1e30,
                88.0,
                f32::INFINITY,
                f32::NAN,
            ];
            let y = level.run(Exp(x));
            assert_eq!(y[..5], [1.0, 1.0, 0.0, 0.0, 0.0], "{level:?}");
            assert_eq!(y[5], y[6], "{level:?}");
            assert!(y[7].is_nan(), "{level:?}");
        }
    }
}
