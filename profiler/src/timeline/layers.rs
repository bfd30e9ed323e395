//! How many layers a step went through, by what repeats in it.

use std::collections::HashMap;

use serde::Serialize;

use super::events::{Activity, ActivityKind};
use super::families::{Families, Family};

/// Layers seen in a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layers {
    /// How many.
    pub count: u64,
    /// Whether they were counted as runs of attention kernels; else by how often the kernels repeat.
    pub by_attention: bool,
    /// Other families that work layer by layer and have exactly as many kernels.
    pub confirmed_by: Vec<Family>,
}

/// Families that do the same in every layer, so that as many kernels of them speak for as many layers.
const PER_LAYER: [Family; 7] = [
    Family::Gemm,
    Family::Norm,
    Family::Rope,
    Family::KvWrite,
    Family::Activation,
    Family::MoeRouting,
    Family::Communication,
];

/// A step has at least as many kernels, and repeats at least as often, for layers to be read from repetition.
const FEWEST_KERNELS: usize = 40;
const FEWEST_REPEATS: u64 = 4;
/// The part of the kernels that must repeat as often as there are layers.
const REPEATING: f64 = 0.8;

/// The layers of a step whose activities come in order of their start.
pub(super) fn count(activities: &[&Activity], families: &Families) -> Option<Layers> {
    let kernels: Vec<&Activity> = activities
        .iter()
        .copied()
        .filter(|a| matches!(a.kind, ActivityKind::Kernel | ActivityKind::Operation))
        .collect();
    // Split attention and its reduction follow each other; between two layers there is always a GEMM.
    let is_attention = |a: &Activity| families.get(a) == Family::Attention;
    let runs = kernels.chunk_by(|a, b| is_attention(a) == is_attention(b));
    let attention_runs = runs.filter(|run| is_attention(run[0])).count() as u64;
    let (count, by_attention) = match attention_runs {
        0 => (by_repetition(&kernels)?, false),
        runs => (runs, true),
    };
    let mut per_family: HashMap<Family, u64> = HashMap::new();
    for kernel in &kernels {
        *per_family.entry(families.get(kernel)).or_default() += 1;
    }
    let mut confirmed_by: Vec<Family> = per_family
        .into_iter()
        .filter(|&(family, n)| n == count && PER_LAYER.contains(&family))
        .map(|(family, _)| family)
        .collect();
    confirmed_by.sort_unstable();
    Some(Layers {
        count,
        by_attention,
        confirmed_by,
    })
}

/// The largest number of times that most kernels repeat, or a divisor of how often they do.
fn by_repetition(kernels: &[&Activity]) -> Option<u64> {
    if kernels.len() < FEWEST_KERNELS {
        return None;
    }
    let mut per_name: HashMap<_, u64> = HashMap::new();
    for kernel in kernels {
        *per_name.entry(kernel.name).or_default() += 1;
    }
    let repeating = |times: u64| -> u64 { per_name.values().filter(|&&n| n % times == 0).sum() };
    let mut candidates: Vec<u64> = per_name
        .values()
        .copied()
        .filter(|&n| n >= FEWEST_REPEATS)
        .collect();
    candidates.sort_unstable();
    candidates.dedup();
    candidates
        .into_iter()
        .rev()
        .find(|&times| repeating(times) as f64 >= REPEATING * kernels.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::events::{Format, Trace};
    use super::*;

    fn layers_of(names: &[&str]) -> Option<Layers> {
        let mut trace = Trace::new("", Format::Kineto);
        for (at, name) in names.iter().enumerate() {
            let name = trace.names.intern(name);
            trace.activities.push(Activity {
                start_ns: at as i64,
                duration_ns: 1,
                correlation: 0,
                name,
                stream: 0,
                device: 0,
                kind: ActivityKind::Kernel,
            });
        }
        let families = Families::of(&trace);
        count(&trace.activities.iter().collect::<Vec<_>>(), &families)
    }

    #[test]
    fn runs_of_attention() {
        let layer = [
            "rms_norm",
            "gemm",
            "rotary",
            "flash_fwd",
            "reduce_segments",
            "gemm",
        ];
        let layers =
            layers_of(&[&["embedding"][..], &layer.repeat(12), &["gemm", "argmax"]].concat())
                .unwrap();
        assert_eq!((layers.count, layers.by_attention), (12, true));
        assert_eq!(layers.confirmed_by, [Family::Norm, Family::Rope]);
    }

    #[test]
    fn repetition_without_attention() {
        let layer = [
            "norm_a", "bmm_qk", "softmax", "bmm_pv", "gemm", "gemm", "silu",
        ];
        let layers = layers_of(&[&layer.repeat(8)[..], &["gemm_head", "argmax"]].concat()).unwrap();
        assert_eq!((layers.count, layers.by_attention), (8, false));
        assert_eq!(layers_of(&["a", "b", "a", "b"]), None);
        let distinct: Vec<String> = (0..100).map(|i| format!("kernel_{i}")).collect();
        assert_eq!(
            layers_of(&distinct.iter().map(String::as_str).collect::<Vec<_>>()),
            None
        );
    }
}
