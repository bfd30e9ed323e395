//! Kernel names as short as they can be told apart.

use std::borrow::Cow;

/// As many letters as a table has room for.
const WIDTH: usize = 56;

/// The name without return type, template and function arguments; of PyTorch's elementwise kernels, what they compute.
///
/// `void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*)` becomes `vllm::rotary_embedding_kernel`.
pub(super) fn short(name: &str) -> String {
    if let Some(text) = tensile(name) {
        return text;
    }
    let demangled = demangle(name);
    let whole = demangled.trim_start_matches("void ").trim();
    let base = base(whole);
    let mut text = base.replace("(anonymous namespace)::", "");
    if let Some(functor) = functor(whole).filter(|_| base.starts_with("at::native::")) {
        text = format!("{} [{functor}]", text.trim_start_matches("at::native::"));
    }
    if let Some(argument) = first_argument(whole, base) {
        text = format!("{text} [{argument}]");
    }
    if text.chars().count() > WIDTH {
        text = text.chars().take(WIDTH - 1).collect();
        text.push('…');
    }
    text
}

/// The first template argument of an entry point that any kernel goes through, which by itself says nothing.
fn first_argument<'a>(name: &'a str, base: &str) -> Option<&'a str> {
    const ENTRY_POINTS: [&str; 3] = [
        "cutlass::Kernel",
        "cutlass::Kernel2",
        "cutlass::device_kernel",
    ];
    let rest = ENTRY_POINTS
        .contains(&base)
        .then(|| name[base.len()..].strip_prefix('<'))??;
    let end = rest.find(['<', '>', ',']).unwrap_or(rest.len());
    let first = &rest[..end];
    // A wrapper again: what it wraps.
    let inner = rest[end..]
        .strip_prefix('<')
        .filter(|_| first.contains("enable_sm") || first.contains("GemmUniversal"));
    Some(inner.map_or(first, |inner| {
        &inner[..inner.find(['<', '>', ',']).unwrap_or(inner.len())]
    }))
}

/// Of a name by hipBLASLt's Tensile, which lists all of a kernel's parameters, the problem's layout and the tile.
fn tensile(name: &str) -> Option<String> {
    let rest = name.strip_prefix("Cijk_")?;
    let tile = rest.split('_').find(|part| part.starts_with("MT"))?;
    let layout: Vec<&str> = rest.split('_').take(3).collect();
    let text = format!("Cijk_{}…{tile}", layout.join("_"));
    (text.chars().count() <= WIDTH).then_some(text)
}

/// Of a mangled name the part that can be read without a demangler, whose output can be exponentially long: `a::b` of
/// `_ZN1a1bI…`, and for entry points that any kernel goes through, the first template argument behind it.
fn demangle(name: &str) -> Cow<'_, str> {
    const ENTRY_POINTS: [&str; 3] = ["kentry", "kernel", "device_kernel"];
    let Some(mut rest) = name.strip_prefix("_ZN").or_else(|| name.strip_prefix("_Z")) else {
        return Cow::Borrowed(name);
    };
    let mut parts = Vec::new();
    while let Some((part, after)) = component(rest) {
        parts.push(part);
        rest = after;
    }
    let Some(last) = parts.last() else {
        return Cow::Borrowed(name);
    };
    let argument = ENTRY_POINTS.contains(last).then(|| {
        let starts = rest.match_indices(|c: char| c.is_ascii_digit());
        starts
            .filter_map(|(at, _)| component(&rest[at..]))
            .map(|(part, _)| part)
            .find(|part| part.len() > 3 && part.starts_with(|c: char| c.is_ascii_alphabetic()))
    });
    let base = parts.join("::");
    Cow::Owned(match argument.flatten() {
        Some(argument) => format!("{base} [{argument}]"),
        None => base,
    })
}

/// `abc` and the rest of `3abc…`.
fn component(text: &str) -> Option<(&str, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .filter(|&n| n > 0)?;
    let end = digits.checked_add(text[..digits].parse().ok()?)?;
    Some((text.get(digits..end)?, text.get(end..)?))
}

/// What comes before the first `<`, or before the arguments.
fn base(name: &str) -> &str {
    let mut from = 0;
    loop {
        let end = name[from..]
            .find(['<', '('])
            .map_or(name.len(), |at| from + at);
        // `(anonymous namespace)` is part of a name, and so is the space before our own `(kernel)`.
        if name[end..].starts_with("(anonymous namespace)") {
            from = end + "(anonymous namespace)".len();
            continue;
        }
        if end > 0 && name[..end].ends_with(' ') {
            return name;
        }
        return &name[..end];
    }
}

/// What an elementwise or reducing kernel of PyTorch computes: the first word that is called a functor, a kernel or an
/// operation, wrappers of those aside.
fn functor(name: &str) -> Option<&str> {
    const BEFORE: [&str; 5] = [
        "_kernel_cuda",
        "_kernel_impl<",
        "_kernel(",
        "Functor<",
        "Ops<",
    ];
    const AFTER: [&str; 2] = ["Functor_", "FunctorOnSelf_"];
    const WRAPPERS: [&str; 5] = ["gpu", "Binary", "AUnary", "BUnary", ""];
    let inner = name.split_once('<')?.1;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let before = BEFORE.iter().flat_map(|mark| {
        inner.match_indices(mark).map(|(at, _)| {
            let word = inner[..at].rsplit(|c| !is_word(c)).next();
            (at, word.unwrap_or_default())
        })
    });
    let after = AFTER.iter().flat_map(|mark| {
        inner.match_indices(mark).map(|(at, mark)| {
            let rest = &inner[at + mark.len()..];
            (
                at,
                &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())],
            )
        })
    });
    before
        .chain(after)
        .filter(|(_, word)| !WRAPPERS.contains(word))
        .min()
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(short(name), expected);
    }

    #[test]
    fn short_names() {
        check(
            "void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*)",
            "vllm::rotary_embedding_kernel",
        );
        check(
            "void (anonymous namespace)::store_kvcache<2048l, 4>((anonymous namespace)::P)",
            "store_kvcache",
        );
        check("kernel_unified_attention_3d", "kernel_unified_attention_3d");
        check(
            "_ZN7sgl_hip10activation18act_and_mul_kernelI14__hip_bfloat16TnPFT_RKS3_EXadL_Z4silu",
            "sgl_hip::activation::act_and_mul_kernel",
        );
        check(
            "Memcpy DtoD (Device -> Device)",
            "Memcpy DtoD (Device -> Device)",
        );
        check("rms_norm (rms_norm_cpu)", "rms_norm (rms_norm_cpu)");
        check(
            "void at::native::vectorized_elementwise_kernel<4, at::native::(anonymous namespace)::silu_kernel(at::TensorIteratorBase&)::{lambda()#1}>",
            "vectorized_elementwise_kernel [silu]",
        );
        check(
            "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::BinaryFunctor<float, at::native::binary_internal::MulFunctor<float> > >(at::TensorIteratorBase&)>",
            "elementwise_kernel [Mul]",
        );
        check(
            "void at::native::elementwise_kernel<128, 2, at::native::gpu_kernel_impl<at::native::CUDAFunctor_add<float> >>",
            "elementwise_kernel [add]",
        );
        check(
            "_ZN7ck_tile6kentryILi1ENS_12Rmsnorm2dFwdINS_27Rmsnorm2dFwdPipelineOnePass",
            "ck_tile::kentry [Rmsnorm2dFwd]",
        );
        check(
            "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT256x32x64_MI16x16x1_SN_LDSB1",
            "Cijk_Alik_Bljk_BBS…MT256x32x64",
        );
        check(
            "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16>(Params)",
            "cutlass::Kernel2 [cutlass_80_wmma_tensorop_bf16_s161616…",
        );
        check(
            "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<T> > >(P)",
            "cutlass::device_kernel [flash::FlashAttnFwdSm90]",
        );
        check("", "");
        check("_Z", "_Z");
        check("_ZN99999999999999999999x", "_ZN99999999999999999999x");
        check(&"é".repeat(100), &format!("{}…", "é".repeat(55)));
    }
}
