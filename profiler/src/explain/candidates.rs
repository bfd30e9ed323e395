//! Which GPUs a result can have been measured on.

use serde::Serialize;

use super::ceilings::{Ceilings, practice};
use super::floor::step_floor;
use super::observation::Observation;
use super::precision::Precision;
use super::step_work::{StepModel, StepWork};
use crate::gpus::{GPUS, Gpu};
use crate::quantity;
use crate::recorder::StepKind;

/// A step may come this close to its floor; closer is a contradiction, given that floors count only what cannot be avoided.
const CLOSEST: f64 = 0.99;
/// The share of a card's memory that weights and KV cache can have at most.
const USABLE_MEMORY: f64 = 0.97;
/// sglang gives weights and KV cache together this share of the card's memory, by ranks (0.88 on one to 0.79 on 16); what other
/// frameworks and settings give lies within.
const STATIC_SHARE: [f64; 2] = [0.70, 0.95];

/// A link so many times faster than needed would not be the limiter that it seems to be.
const FAR: f64 = 3.0;

/// A GPU, and whether the result is possible on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// The GPU.
    pub gpu: &'static Gpu,
    /// Why it is none, where it is none.
    pub impossible: Option<String>,
    /// Floor over time of the largest prefill.
    pub prefill_share: Option<f64>,
    /// Floor over time of the smallest decode step.
    pub decode_share: Option<f64>,
    /// Weights and KV pool over the card's memory; absent when the size of the pool is not known.
    pub memory_share: Option<f64>,
    /// How far the all-reduce rate that the prefill would need lies outside of what the card's own link reaches, as a factor; absent
    /// on one rank.
    pub link_distance: Option<f64>,
    /// Whether that share is what a framework's settings would give.
    pub memory_fits: Option<bool>,
}

impl Candidate {
    /// Whether it is possible and neither its memory nor its link speaks against it.
    pub fn is_likely(&self) -> bool {
        self.impossible.is_none()
            && self.memory_fits != Some(false)
            && self.link_distance.is_none_or(|d| d <= FAR)
    }
}

/// All GPUs of the table, possible ones first. Those whose memory matches the KV pool come first, then those whose link is as
/// slow as the prefill needs it to be, and among these the ones whose floors account for more of the decode step: the plainer story. `pool_tokens` is the size of the KV pool where the result tells it.
pub(super) fn candidates(
    model: &dyn StepModel,
    prefills: &[(&Observation, StepWork)],
    decodes: &[(&Observation, StepWork)],
    pool_tokens: Option<f64>,
    precision: Precision,
) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = GPUS
        .iter()
        .map(|gpu| {
            let ceilings = Ceilings::of_gpu_for(gpu, None, precision);
            candidate(gpu, &ceilings, model, prefills, decodes, pool_tokens)
        })
        .collect();
    all.sort_by(|a, b| {
        let key = |c: &Candidate| {
            let share = c.decode_share.or(c.prefill_share).unwrap_or(0.0);
            (
                c.impossible.is_some(),
                c.memory_fits == Some(false),
                c.link_distance.is_some_and(|d| d > FAR),
                -(share * 1e6) as i64,
            )
        };
        key(a).cmp(&key(b))
    });
    all
}

fn candidate(
    gpu: &'static Gpu,
    ceilings: &Ceilings,
    model: &dyn StepModel,
    prefills: &[(&Observation, StepWork)],
    decodes: &[(&Observation, StepWork)],
    pool_tokens: Option<f64>,
) -> Candidate {
    let weights = model.weight_bytes() as f64;
    let pool = pool_tokens.map(|tokens| tokens * model.kv_bytes_per_token() as f64);
    let needed = weights + pool.unwrap_or(0.0);
    let memory_share = pool.map(|_| needed / gpu.memory_bytes);
    let mut impossible = None;
    if needed > USABLE_MEMORY * gpu.memory_bytes {
        let what = if pool.is_some() {
            "weights and KV pool"
        } else {
            "weights"
        };
        impossible = Some(format!(
            "{what} take {}, the card has {}",
            quantity::bytes(needed),
            quantity::bytes(gpu.memory_bytes)
        ));
    }
    let share = |(observation, work): &(&Observation, StepWork)| {
        step_floor(work, ceilings).total_s / observation.seconds
    };
    for step in prefills.iter().chain(decodes) {
        if impossible.is_none() && share(step) > CLOSEST {
            let (observation, work) = step;
            let floor = step_floor(work, ceilings);
            let what = match observation.shape.kind {
                StepKind::Prefill => "its arithmetic alone",
                StepKind::Decode => "reading its weights and KV cache alone",
            };
            impossible = Some(format!(
                "{what} takes {}, longer than the {} measured ({})",
                quantity::duration(floor.total_s * 1e9),
                quantity::duration(observation.seconds * 1e9),
                observation.shape.label(),
            ));
        }
    }
    Candidate {
        gpu,
        impossible,
        prefill_share: prefills.last().map(share),
        decode_share: decodes.first().map(share),
        memory_share,
        link_distance: prefills.last().and_then(|(observation, work)| {
            let sent = work.communication.ring_bytes();
            (sent > 0.0)
                .then(|| practice::link_bytes_per_s(gpu.link).distance(sent / observation.seconds))
        }),
        memory_fits: memory_share.map(|s| (STATIC_SHARE[0]..=STATIC_SHARE[1]).contains(&s)),
    }
}
