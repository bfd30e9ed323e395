use std::fmt;

/// How a number is stored. Arithmetic is float32 on the CPU whatever the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// The name that Hugging Face configs and sglang's `--dtype` use.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
        }
    }

    /// The inverse of [`DType::name`]; also takes `float`, `half`, `fp16`, `bf16`, `fp32` and a `torch.` prefix.
    pub fn parse(name: &str) -> Option<DType> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "float32" | "float" | "fp32" | "f32" => Some(DType::F32),
            "float16" | "half" | "fp16" | "f16" => Some(DType::F16),
            "bfloat16" | "bf16" => Some(DType::BF16),
            _ => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
