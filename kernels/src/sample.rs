//! Sampling of the next token.

use crate::philox::{philox4x32_10, unit_f64};
use crate::{Cost, DType, Error, Kernel};

/// How the next token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keep the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens until their probabilities pass `top_p`; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least `min_p` times as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Key of the random numbers.
    pub seed: u64,
}

impl SamplingParams {
    /// Always the likeliest token.
    pub const fn greedy() -> SamplingParams {
        SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
        }
    }

    /// Whether no random number is drawn.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }

    /// Whether every value lies in its range.
    pub fn validate(&self) -> Result<(), Error> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::shape(format!(
                "temperature must be at least 0 and finite, not {}",
                self.temperature
            )));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::shape(format!(
                "top_p must be above 0 and at most 1, not {}",
                self.top_p
            )));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Err(Error::shape(format!(
                "min_p must be between 0 and 1, not {}",
                self.min_p
            )));
        }
        Ok(())
    }
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams::greedy()
    }
}

fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &x) in row.iter().enumerate() {
        if x > row[best] || (row[best].is_nan() && !x.is_nan()) {
            best = i;
        }
    }
    best
}

/// One token id per row of `logits`.
pub fn reference(
    logits: &[f32],
    vocab: usize,
    params: &SamplingParams,
    step: u64,
    out: &mut [i32],
) -> Kernel {
    for (r, (row, out)) in logits.chunks_exact(vocab).zip(out).enumerate() {
        let best = argmax(row);
        *out = best as i32;
        if params.is_greedy() || !row[best].is_finite() {
            continue;
        }
        let mut probs: Vec<(f64, usize)> = row
            .iter()
            .enumerate()
            .filter(|(_, x)| !x.is_nan())
            .map(|(i, &x)| {
                (
                    (f64::from(x - row[best]) / f64::from(params.temperature)).exp(),
                    i,
                )
            })
            .collect();
        let total: f64 = probs.iter().map(|p| p.0).sum();
        probs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if params.top_k > 0 {
            probs.truncate(params.top_k as usize);
        }
        let mut before = 0.0;
        let kept = probs
            .iter()
            .take_while(|p| {
                let keep = before / total <= f64::from(params.top_p);
                before += p.0;
                keep
            })
            .count();
        probs.truncate(kept);
        let floor = probs[0].0 * f64::from(params.min_p);
        probs.retain(|p| p.0 >= floor);
        let sum: f64 = probs.iter().map(|p| p.0).sum();
        let words = philox4x32_10([step as u32, (step >> 32) as u32, r as u32, 0], params.seed);
        let mut left = unit_f64(words[0], words[1]) * sum;
        let mut drawn = probs[0].1;
        for p in &probs {
            drawn = p.1;
            if left < p.0 {
                break;
            }
            left -= p.0;
        }
        *out = drawn as i32;
    }
    if params.is_greedy() {
        "sample_greedy"
    } else {
        "sample_filtered"
    }
}

/// Work of one row of `vocab` logits per request.
pub fn cost(requests: usize, vocab: usize, activation: DType) -> Cost {
    let elements = (requests * vocab) as u64;
    Cost {
        flops: elements,
        weight_bytes: 0,
        kv_bytes: 0,
        activation_bytes: elements * activation.size() as u64 + requests as u64 * 4,
    }
}
