//! The types of tensors in GGUF files.

use stepscope_kernels::DType;

use crate::model::encoding::Encoding;

/// The types of `enum ggml_type` in ggml.h. The numbers between are of types that were withdrawn.
const NAMES: [(u32, &str); 33] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (8, "Q8_0"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (30, "BF16"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// What ggml calls the type with this number.
pub(super) fn name(number: u32) -> String {
    NAMES.iter().find(|(n, _)| *n == number).map_or_else(
        || format!("number {number}"),
        |(_, name)| (*name).to_owned(),
    )
}

/// How such a tensor is written, or the number again if that is not supported.
pub(super) fn encoding(ggml_type: u32) -> Result<Encoding, u32> {
    match ggml_type {
        0 => Ok(Encoding::Plain(DType::F32)),
        1 => Ok(Encoding::Plain(DType::F16)),
        2 => Ok(Encoding::Q4_0),
        3 => Ok(Encoding::Q4_1),
        8 => Ok(Encoding::Q8_0),
        12 => Ok(Encoding::Q4K),
        14 => Ok(Encoding::Q6K),
        30 => Ok(Encoding::Plain(DType::BF16)),
        other => Err(other),
    }
}
