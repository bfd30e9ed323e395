use half::{bf16, f16};

use super::simd::Simd;

/// A type that weights, keys and values are stored in.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    /// # Safety
    /// `p` is valid for reads of 8 elements.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::F;

    /// Sixteen elements as two vectors, in the order that costs least.
    ///
    /// # Safety
    /// `p` is valid for reads of 16 elements.
    unsafe fn load_16<S: Simd>(s: S, p: *const Self) -> (S::F, S::F);

    /// Which element [`Element::load_16`] puts into lane `lane % 8` of vector `lane / 8`.
    #[inline(always)]
    fn element_of_lane(lane: usize) -> usize {
        lane
    }

    /// Rounds to nearest even.
    ///
    /// # Safety
    /// `p` is valid for writes of 8 elements.
    unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::F);

    fn widen(self) -> f32;

    /// Rounded to nearest even.
    fn narrow(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::F {
        // SAFETY: the caller's.
        unsafe { s.load(p) }
    }

    #[inline(always)]
    unsafe fn load_16<S: Simd>(s: S, p: *const f32) -> (S::F, S::F) {
        // SAFETY: the caller's.
        unsafe { (s.load(p), s.load(p.add(8))) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut f32, v: S::F) {
        // SAFETY: the caller's.
        unsafe { s.store(p, v) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f16) -> S::F {
        // SAFETY: the caller's.
        unsafe { s.load_f16(p) }
    }

    #[inline(always)]
    unsafe fn load_16<S: Simd>(s: S, p: *const f16) -> (S::F, S::F) {
        // SAFETY: the caller's.
        unsafe { (s.load_f16(p), s.load_f16(p.add(8))) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut f16, v: S::F) {
        // SAFETY: the caller's.
        unsafe { s.store_f16(p, v) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const bf16) -> S::F {
        // SAFETY: the caller's.
        unsafe { s.load_bf16(p) }
    }

    #[inline(always)]
    unsafe fn load_16<S: Simd>(s: S, p: *const bf16) -> (S::F, S::F) {
        // SAFETY: the caller's.
        unsafe { s.load_bf16_even_odd(p) }
    }

    #[inline(always)]
    fn element_of_lane(lane: usize) -> usize {
        2 * (lane % 8) + lane / 8
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut bf16, v: S::F) {
        // SAFETY: the caller's.
        unsafe { s.store_bf16(p, v) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
}

/// Widens `from` into `to`, which is as long.
#[inline(always)]
pub(crate) fn widen<S: Simd, T: Element>(s: S, from: &[T], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    let (from, from_tail) = from.as_chunks::<8>();
    let (to, to_tail) = to.as_chunks_mut::<8>();
    for (from, to) in from.iter().zip(to) {
        // SAFETY: the chunk holds 8.
        s.store_array(to, unsafe { T::load(s, from.as_ptr()) });
    }
    for (from, to) in from_tail.iter().zip(to_tail) {
        *to = from.widen();
    }
}

/// Narrows `from` into `to`, which is as long.
#[inline(always)]
pub(crate) fn narrow<S: Simd, T: Element>(s: S, from: &[f32], to: &mut [T]) {
    assert_eq!(from.len(), to.len());
    let (from, from_tail) = from.as_chunks::<8>();
    let (to, to_tail) = to.as_chunks_mut::<8>();
    for (from, to) in from.iter().zip(to) {
        // SAFETY: the chunk holds 8.
        unsafe { T::store(s, to.as_mut_ptr(), s.load_array(from)) };
    }
    for (from, to) in from_tail.iter().zip(to_tail) {
        *to = T::narrow(*from);
    }
}
