//! Sampling: one token id from each row of logits.
//!
//! Shapes: `logits` `[requests, vocab]`, `out` `[requests]`.
//!
//! Greedy takes the largest logit. Otherwise, as sglang's `top_k_top_p_min_p_sampling_from_probs_torch`:
//! 1. probabilities are `softmax(logits / temperature)`, sorted downwards, equal ones by id;
//! 2. top-k keeps the first `top_k`;
//! 3. top-p keeps those before which at most `top_p` has accumulated, of all probabilities and not only those that
//!    top-k kept;
//! 4. min-p keeps those of at least `min_p` times the first;
//! 5. one of those kept is drawn in proportion to its probability.
//!
//! Each filter keeps a beginning of the same order, so that together they keep the shortest. Nothing is sorted for that:
//! the last kept is found by selection, in time linear in the vocabulary (see `filter.rs`). The random number of request
//! `r` in step `t` is block `(t, r)` of the Philox stream with key `seed`.
//!
//! ```text
//!   logits row   [ ........ | ........ | … ]     a task has whole rows, 8 logits at a time
//!    greedy        largest  ->  its lowest id
//!    filtered      largest  ->  weights exp((x - largest) / temperature)  ->  the last that is kept, by halving
//!                  ->  the id at which the weights of those kept, added up by id, pass a random part of their sum
//! ```
//!
//! What bounds it: memory, and the exponentials where there is a temperature.

pub(crate) mod launch;

mod filter;

use crate::cpu::{self, Op, Shared, Simd, exp};
use crate::philox::{philox4x32_10, unit_f64};
use crate::{Cost, DType, Error, Kernel};

/// How the next token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits before softmax; 0 is greedy.
    pub temperature: f32,
    /// Keeps the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the likeliest tokens until their probabilities pass `top_p`; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least `min_p` times as likely as the likeliest; 0 keeps all.
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

    /// Whether the likeliest token is taken and no random number drawn.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }

    /// Checks that each value lies in its range.
    ///
    /// # Errors
    /// Names the first value that does not, and the range.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |message: String| Err(Error::shape(message));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse(format!(
                "temperature must be 0 (greedy) or above, not {}",
                self.temperature
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse(format!(
                "top_p must be above 0 and at most 1 (all), not {}",
                self.top_p
            ));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse(format!(
                "min_p must be between 0 (off) and 1, not {}",
                self.min_p
            ));
        }
        Ok(())
    }
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams::greedy()
    }
}

/// One token id per row of `logits`, rows of `vocab`, into `out`; request `r` is row `r`.
///
/// NaN logits never win; a row of NaN alone gives 0. Of equal logits greedy takes the lowest id. A row with an infinite logit,
/// or without a finite one, is sampled greedily.
///
/// # Panics
/// When `out` is shorter than its shape.
pub fn reference(
    logits: &[f32],
    vocab: usize,
    params: &SamplingParams,
    step: u64,
    out: &mut [i32],
) -> Kernel {
    let level = cpu::level();
    let requests = logits.len() / vocab.max(1);
    let out = Shared::new(&mut out[..requests]);
    let sample = |r: usize| {
        let row = &logits[r * vocab..(r + 1) * vocab];
        let id = if params.is_greedy() {
            level.run(ArgMax(row)).1
        } else {
            draw(row, params, step, r)
        };
        // SAFETY: each request has an element of its own.
        let out = unsafe { out.slice(r..r + 1) };
        out[0] = id as i32;
    };
    cpu::parallel_rows(requests, vocab, |requests| requests.for_each(sample));
    if params.is_greedy() {
        level.pick("sample_greedy_avx2", "sample_greedy_portable")
    } else {
        level.pick("sample_filtered_avx2", "sample_filtered_portable")
    }
}

fn draw(logits: &[f32], params: &SamplingParams, step: u64, request: usize) -> usize {
    let level = cpu::level();
    let (max, likeliest) = level.run(ArgMax(logits));
    if !max.is_finite() {
        return likeliest;
    }
    let vocab = logits.len();
    // The candidates of the filters are pairs of 32-bit numbers.
    let weights_len = vocab.next_multiple_of(16);
    cpu::with_scratch(weights_len + 2 * vocab, |scratch| {
        let (weights, candidates) = scratch.split_at_mut(weights_len);
        let weights = &mut weights[..vocab];
        let total = level.run(Weigh {
            logits,
            max,
            temperature: params.temperature,
            weights,
        });
        let last = filter::last_kept(weights, total, params, bytemuck::cast_slice_mut(candidates));
        let request = request as u64;
        let counter = [
            step as u32,
            (step >> 32) as u32,
            request as u32,
            (request >> 32) as u32,
        ];
        let words = philox4x32_10(counter, params.seed);
        filter::pick(weights, last, unit_f64(words[0], words[1])).unwrap_or(likeliest)
    })
}

/// The largest logit and its lowest index.
struct ArgMax<'a>(&'a [f32]);

impl Op for ArgMax<'_> {
    type Output = (f32, usize);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, usize) {
        let (chunks, rest) = self.0.as_chunks::<32>();
        let mut maxes = [s.splat(f32::NEG_INFINITY); 4];
        for chunk in chunks {
            for (max, v) in maxes.iter_mut().zip(chunk.as_chunks::<8>().0) {
                // In this order of operands NaN is passed over.
                *max = s.max(s.load_array(v), *max);
            }
        }
        let [a, b, c, d] = maxes;
        let max = s.max_lane(s.max(s.max(a, b), s.max(c, d)));
        let max = rest
            .iter()
            .fold(max, |max, &x| if x > max { x } else { max });
        // Minus infinity may be there or stand for nothing.
        (max, self.0.iter().position(|&x| x == max).unwrap_or(0))
    }
}

/// Writes `exp((logit - max) / temperature)` and returns the sum; NaN counts as 0.
struct Weigh<'a> {
    logits: &'a [f32],
    max: f32,
    temperature: f32,
    weights: &'a mut [f32],
}

impl Op for Weigh<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let (max, temperature) = (s.splat(self.max), s.splat(self.temperature));
        let mut total = 0.0;
        // Float32 sums of 1024 terms, float64 sums of those: 150 000 terms in float32 would lose 1e-5.
        for (logits, weights) in self.logits.chunks(1024).zip(self.weights.chunks_mut(1024)) {
            let mut sum = s.splat(0.0);
            let (chunks, rest) = logits.as_chunks::<8>();
            let (outs, out_rest) = weights.as_chunks_mut::<8>();
            for (x, out) in chunks.iter().zip(outs) {
                let weight = weigh(s, s.load_array(x), max, temperature);
                sum = s.add(sum, weight);
                s.store_array(out, weight);
            }
            if !rest.is_empty() {
                let mut copy = [f32::NEG_INFINITY; 8];
                copy[..rest.len()].copy_from_slice(rest);
                let weight = weigh(s, s.load_array(&copy), max, temperature);
                sum = s.add(sum, weight);
                out_rest.copy_from_slice(&s.to_array(weight)[..rest.len()]);
            }
            total += f64::from(s.sum(sum));
        }
        total
    }
}

#[inline(always)]
fn weigh<S: Simd>(s: S, logits: S::F, max: S::F, temperature: S::F) -> S::F {
    // In this order of operands NaN becomes 0.
    s.max(exp(s, s.div(s.sub(logits, max), temperature)), s.splat(0.0))
}

/// The work of one row of `vocab` logits per request: each is read and compared or weighed, and an id is written.
pub fn cost(requests: usize, vocab: usize, activation: DType) -> Cost {
    let elements = (requests * vocab) as u64;
    Cost {
        flops: elements,
        weight_bytes: 0,
        kv_bytes: 0,
        activation_bytes: elements * activation.size() as u64 + requests as u64 * 4,
    }
}

#[cfg(test)]
mod tests;
