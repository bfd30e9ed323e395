//! One function body, two machine codes: with AVX2 and FMA where the processor has them, plain otherwise. The results are the
//! same bits: `mul_add` is fused either way.

/// Whether the AVX2 code may run.
#[inline(always)]
pub(crate) fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// An array of a function of its index. `std::array::from_fn` and `map` are not inlined at 32 elements, and what is not inlined is
/// not compiled for AVX2: a gather took twice as long with them.
#[inline(always)]
pub(crate) fn each<T: Copy + Default, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut out = [T::default(); N];
    for (index, value) in out.iter_mut().enumerate() {
        *value = f(index);
    }
    out
}

/// Defines a function that picks its AVX2 version at run time.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn fast($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                if $crate::exec::vectorise::has_avx2() {
                    // SAFETY: the processor has AVX2 and FMA, which is all that `fast` asks for.
                    return unsafe { fast($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use vectorised;
