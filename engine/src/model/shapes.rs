//! Named shapes: configs of well-known models, to run without their weights.

use serde_json::{Map, Value, json};

/// The config of a well-known model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    family: Family,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    tied: bool,
}

/// What the models of a series have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Family {
    SmolLm2 { rope_theta: f64 },
    Qwen25 { vocab: usize, eps: f64 },
    Qwen3,
    Llama3 { head_dim: usize, rope_factor: f64 },
}

const fn smollm2(name: &'static str, rope_theta: f64, size: [usize; 5]) -> Shape {
    shape(name, Family::SmolLm2 { rope_theta }, size, true)
}

const fn qwen25(name: &'static str, size: [usize; 5], vocab: usize, eps: f64, tied: bool) -> Shape {
    shape(name, Family::Qwen25 { vocab, eps }, size, tied)
}

const fn qwen3(name: &'static str, size: [usize; 5], tied: bool) -> Shape {
    shape(name, Family::Qwen3, size, tied)
}

const fn llama3(
    name: &'static str,
    size: [usize; 5],
    head_dim: usize,
    rope_factor: f64,
    tied: bool,
) -> Shape {
    shape(
        name,
        Family::Llama3 {
            head_dim,
            rope_factor,
        },
        size,
        tied,
    )
}

const fn shape(name: &'static str, family: Family, size: [usize; 5], tied: bool) -> Shape {
    let [hidden, intermediate, layers, heads, kv_heads] = size;
    Shape {
        name,
        family,
        hidden,
        intermediate,
        layers,
        heads,
        kv_heads,
        tied,
    }
}

/// Sizes are `[hidden, intermediate, layers, heads, kv_heads]`, from the `config.json` of the base models on Hugging
/// Face.
static SHAPES: [Shape; 20] = [
    smollm2("smollm2-135m", 1e5, [576, 1536, 30, 9, 3]),
    smollm2("smollm2-360m", 1e5, [960, 2560, 32, 15, 5]),
    smollm2("smollm2-1.7b", 1.3e5, [2048, 8192, 24, 32, 32]),
    qwen25("qwen2.5-0.5b", [896, 4864, 24, 14, 2], 151_936, 1e-6, true),
    qwen25("qwen2.5-1.5b", [1536, 8960, 28, 12, 2], 151_936, 1e-6, true),
    qwen25("qwen2.5-3b", [2048, 11_008, 36, 16, 2], 151_936, 1e-6, true),
    qwen25(
        "qwen2.5-7b",
        [3584, 18_944, 28, 28, 4],
        152_064,
        1e-6,
        false,
    ),
    qwen25(
        "qwen2.5-14b",
        [5120, 13_824, 48, 40, 8],
        152_064,
        1e-5,
        false,
    ),
    qwen25(
        "qwen2.5-32b",
        [5120, 27_648, 64, 40, 8],
        152_064,
        1e-5,
        false,
    ),
    qwen25(
        "qwen2.5-72b",
        [8192, 29_568, 80, 64, 8],
        152_064,
        1e-5,
        false,
    ),
    qwen3("qwen3-0.6b", [1024, 3072, 28, 16, 8], true),
    qwen3("qwen3-1.7b", [2048, 6144, 28, 16, 8], true),
    qwen3("qwen3-4b", [2560, 9728, 36, 32, 8], true),
    qwen3("qwen3-8b", [4096, 12_288, 36, 32, 8], false),
    qwen3("qwen3-14b", [5120, 17_408, 40, 40, 8], false),
    qwen3("qwen3-32b", [5120, 25_600, 64, 64, 8], false),
    llama3("llama-3.1-8b", [4096, 14_336, 32, 32, 8], 128, 8.0, false),
    llama3("llama-3.1-70b", [8192, 28_672, 80, 64, 8], 128, 8.0, false),
    llama3("llama-3.2-1b", [2048, 8192, 16, 32, 8], 64, 32.0, true),
    llama3("llama-3.2-3b", [3072, 8192, 28, 24, 8], 128, 32.0, true),
];

impl Shape {
    /// The `config.json` that the model has.
    pub(super) fn config_json(&self) -> Map<String, Value> {
        let mut config = json!({
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "tie_word_embeddings": self.tied,
            "hidden_act": "silu",
            "torch_dtype": "bfloat16",
        });
        let rest = match self.family {
            Family::SmolLm2 { rope_theta } => json!({
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "vocab_size": 49_152,
                "rms_norm_eps": 1e-5,
                "rope_theta": rope_theta,
                "rope_scaling": null,
                "max_position_embeddings": 8192,
                "attention_bias": false,
                "bos_token_id": 0,
                "eos_token_id": 0,
            }),
            Family::Qwen25 { vocab, eps } => json!({
                "architectures": ["Qwen2ForCausalLM"],
                "model_type": "qwen2",
                "vocab_size": vocab,
                "rms_norm_eps": eps,
                "rope_theta": 1e6,
                "max_position_embeddings": if self.hidden == 896 || self.hidden == 2048 { 32_768 } else { 131_072 },
                "use_sliding_window": false,
                "bos_token_id": 151_643,
                "eos_token_id": 151_643,
            }),
            Family::Qwen3 => json!({
                "architectures": ["Qwen3ForCausalLM"],
                "model_type": "qwen3",
                "vocab_size": 151_936,
                "head_dim": 128,
                "rms_norm_eps": 1e-6,
                "rope_theta": 1e6,
                "rope_scaling": null,
                "max_position_embeddings": 40_960,
                "attention_bias": false,
                "use_sliding_window": false,
                "bos_token_id": 151_643,
                "eos_token_id": 151_645,
            }),
            Family::Llama3 {
                head_dim,
                rope_factor,
            } => json!({
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "vocab_size": 128_256,
                "head_dim": head_dim,
                "rms_norm_eps": 1e-5,
                "rope_theta": 5e5,
                "rope_scaling": {
                    "factor": rope_factor,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                    "rope_type": "llama3",
                },
                "max_position_embeddings": 131_072,
                "attention_bias": false,
                "mlp_bias": false,
                "bos_token_id": 128_000,
                "eos_token_id": 128_001,
            }),
        };
        let mut map = Map::new();
        for part in [&mut config, &mut { rest }] {
            if let Value::Object(part) = part {
                map.append(part);
            }
        }
        map
    }
}

/// The names, small models first within each series.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.name)
}

/// The shape of this name.
pub(super) fn find(name: &str) -> Option<&'static Shape> {
    SHAPES
        .iter()
        .find(|shape| shape.name.eq_ignore_ascii_case(name))
}

/// The shape of a repository's model: `Qwen/Qwen2.5-32B-Instruct` is `qwen2.5-32b`, whatever its name goes on with.
pub(super) fn of_repository(repository: &str) -> Option<&'static Shape> {
    let name = repository.rsplit('/').next().unwrap_or(repository);
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("meta-").unwrap_or(&name);
    let follows = |rest: &str| rest.is_empty() || rest.starts_with(['-', '_', '.']);
    SHAPES
        .iter()
        .filter(|shape| name.strip_prefix(shape.name).is_some_and(follows))
        .max_by_key(|shape| shape.name.len())
}

/// Up to three names that a person may have meant by `typed`, the closest first.
pub(super) fn close_to(typed: &str) -> Vec<&'static str> {
    const FARTHEST: usize = 3;
    let typed = typed
        .rsplit('/')
        .next()
        .unwrap_or(typed)
        .to_ascii_lowercase();
    let mut close: Vec<_> = names()
        .filter_map(|name| {
            // `Qwen2.5-0.5B-Instruct` means the shape, whatever follows.
            let distance = if typed.starts_with(name) {
                0
            } else {
                edit_distance(&typed, name)
            };
            (distance <= FARTHEST).then_some((distance, name))
        })
        .collect();
    close.sort();
    close.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Levenshtein's distance in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::ModelConfig;

    #[test]
    fn parameters_are_those_of_the_published_checkpoints() {
        // Totals of the safetensors files on Hugging Face, tied matrices once.
        let published = [
            ("smollm2-135m", 134_515_008),
            ("smollm2-360m", 361_821_120),
            ("smollm2-1.7b", 1_711_376_384),
            ("qwen2.5-0.5b", 494_032_768),
            ("qwen2.5-1.5b", 1_543_714_304),
            ("qwen2.5-3b", 3_085_938_688),
            ("qwen2.5-7b", 7_615_616_512),
            ("qwen2.5-14b", 14_770_033_664),
            ("qwen2.5-32b", 32_763_876_352),
            ("qwen2.5-72b", 72_706_203_648),
            ("qwen3-0.6b", 596_049_920),
            ("qwen3-1.7b", 1_720_574_976),
            ("qwen3-4b", 4_022_468_096),
            ("qwen3-8b", 8_190_735_360),
            ("qwen3-14b", 14_768_307_200),
            ("qwen3-32b", 32_762_123_264),
            ("llama-3.1-8b", 8_030_261_248),
            ("llama-3.1-70b", 70_553_706_496),
            ("llama-3.2-1b", 1_235_814_400),
            ("llama-3.2-3b", 3_212_749_824),
        ];
        let found: Vec<_> = SHAPES
            .iter()
            .map(|shape| {
                let config =
                    ModelConfig::from_map(shape.config_json(), Path::new(shape.name), &Map::new());
                (shape.name, config.unwrap().parameters())
            })
            .collect();
        assert_eq!(found, published);
    }

    #[test]
    fn a_typo_finds_its_shape() {
        assert_eq!(close_to("smolm2-135m"), ["smollm2-135m"]);
        assert_eq!(close_to("Qwen/Qwen2.5-0.5B-Instruct"), ["qwen2.5-0.5b"]);
        assert_eq!(close_to("llama3.2-1b")[0], "llama-3.2-1b");
        assert!(close_to("/some/folder").is_empty());
    }
}
