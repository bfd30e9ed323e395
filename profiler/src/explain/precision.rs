//! In which number format a model's matrices are stored and multiplied.

use serde::Serialize;

use crate::gpus::Gpu;

/// What tensor cores multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// bfloat16 or float16.
    Half,
    /// 8-bit floating point.
    Fp8,
    /// 8-bit integers.
    Int8,
    /// 4-bit floating point.
    Fp4,
}

impl Arithmetic {
    /// As people write it.
    pub fn title(self) -> &'static str {
        match self {
            Arithmetic::Half => "16-bit",
            Arithmetic::Fp8 => "fp8",
            Arithmetic::Int8 => "int8",
            Arithmetic::Fp4 => "fp4",
        }
    }

    /// The dense rate of a GPU, operations/s. A GPU without it unpacks the weights and multiplies 16-bit numbers.
    pub fn flops_per_s(self, gpu: &Gpu) -> f64 {
        let own = match self {
            Arithmetic::Half => None,
            Arithmetic::Fp8 => gpu.fp8_flops_per_s,
            Arithmetic::Int8 => gpu.int8_ops_per_s,
            Arithmetic::Fp4 => gpu.fp4_flops_per_s,
        };
        own.unwrap_or(gpu.flops_per_s)
    }
}

/// The number format of a model's matrices; attention and all else stays 16-bit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Precision {
    /// Bits of a weight, scales left out.
    pub weight_bits: f64,
    /// What they are multiplied as.
    pub arithmetic: Arithmetic,
}

impl Precision {
    /// Weights of 16 bits.
    pub const HALF: Precision = Precision {
        weight_bits: 16.0,
        arithmetic: Arithmetic::Half,
    };

    /// From what frameworks call it: `bfloat16`, `fp8`, `W4A16_AWQ`, `gptq`, `int8`, `NVFP4`. Nothing where the name is not known.
    pub fn parse(name: &str) -> Option<Precision> {
        let name = name.to_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        let (weight_bits, arithmetic) = match () {
            // Weight-only formats say so, or are such by their method.
            () if has(&["w4a16", "awq", "gptq", "int4", "u4"]) && !has(&["w4a8"]) => {
                (4.0, Arithmetic::Half)
            }
            () if has(&["w8a16"]) => (8.0, Arithmetic::Half),
            () if has(&["w4a8"]) => (4.0, Arithmetic::Fp8),
            () if has(&["fp4"]) => (4.0, Arithmetic::Fp4),
            () if has(&["fp8", "float8", "e4m3", "e5m2"]) => (8.0, Arithmetic::Fp8),
            () if has(&["int8", "w8a8", "smoothquant"]) => (8.0, Arithmetic::Int8),
            () if has(&["float32", "fp32", "f32"]) || name == "float" => (32.0, Arithmetic::Half),
            () if has(&["bf16", "bfloat16", "fp16", "float16", "f16", "half"]) => {
                (16.0, Arithmetic::Half)
            }
            () => return None,
        };
        Some(Precision {
            weight_bits,
            arithmetic,
        })
    }

    /// `weights of 8 bits, multiplied in fp8`.
    pub fn words(&self) -> String {
        format!(
            "weights of {} bits, multiplied in {}",
            self.weight_bits,
            self.arithmetic.title()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpus;

    #[track_caller]
    fn check(name: &str, bits: f64, arithmetic: Arithmetic) {
        let expected = Precision {
            weight_bits: bits,
            arithmetic,
        };
        assert_eq!(Precision::parse(name), Some(expected), "{name}");
    }

    #[test]
    fn frameworks_names() {
        check("bfloat16", 16.0, Arithmetic::Half);
        check("torch.float16", 16.0, Arithmetic::Half);
        check("float32", 32.0, Arithmetic::Half);
        check("FP8", 8.0, Arithmetic::Fp8);
        check("fp8_e4m3", 8.0, Arithmetic::Fp8);
        check("W8A8_SQ_PER_CHANNEL", 8.0, Arithmetic::Int8);
        check("W4A16_AWQ", 4.0, Arithmetic::Half);
        check("W4A8_AWQ", 4.0, Arithmetic::Fp8);
        check("gptq", 4.0, Arithmetic::Half);
        check("W8A16", 8.0, Arithmetic::Half);
        check("NVFP4", 4.0, Arithmetic::Fp4);
        assert_eq!(Precision::parse("llama 8B Q4_K"), None);
    }

    /// The data sheets: fp8 twice the 16-bit rate since Hopper and Ada, none before, where weights are unpacked.
    #[test]
    fn rates_of_cards_that_have_them_and_that_have_not() {
        let rate = |gpu: &str, arithmetic: Arithmetic| {
            arithmetic.flops_per_s(gpus::find(gpu).unwrap()) / 1e12
        };
        assert_eq!(rate("h100-sxm", Arithmetic::Fp8), 1978.9);
        assert_eq!(rate("h100-sxm", Arithmetic::Int8), 1978.9);
        assert_eq!(rate("h100-sxm", Arithmetic::Fp4), 989.4);
        assert_eq!(rate("a100-80g-sxm", Arithmetic::Fp8), 312.0);
        assert_eq!(rate("a100-80g-sxm", Arithmetic::Int8), 624.0);
        assert_eq!(rate("rtx4090", Arithmetic::Int8), 660.6);
        assert_eq!(rate("v100", Arithmetic::Int8), 125.0);
        assert_eq!(rate("b200", Arithmetic::Fp4), 9000.0);
    }
}
