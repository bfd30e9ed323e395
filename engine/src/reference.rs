//! What another framework computed with a model, to hold a device against.
//!
//! A folder holds, beside the model, `expected.json` (`prompts`, and `greedy_f32`: the tokens that follow, both as lists of token
//! ids) and `expected.safetensors` (`prefill_f32` `[prompts, vocab]` and `decode_f32` `[prompts, steps, vocab]`, and the same from
//! a run in bfloat16).
//!
//! The rule: every logit lies within twice the error that the framework's own bfloat16 run has against its float32 run, and the
//! greedy token is the reference's wherever its two best logits lie further apart than that.

use std::path::Path;

use safetensors::SafeTensors;

use crate::Error;
use crate::generate::{Generated, Options};
use crate::model::{read_json_object, read_whole};

/// More than any reference there is.
const LIMIT: u64 = 1 << 30;

/// Prompts, and what follows them.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Token ids of each prompt.
    pub prompts: Vec<Vec<u32>>,
    /// The tokens that follow, as many for each prompt.
    pub greedy: Vec<Vec<u32>>,
    /// What a logit may differ by.
    pub tolerance: f32,
    /// `[prompts, vocab]`.
    pub prefill: Vec<f32>,
    /// `[prompts, steps, vocab]`.
    pub decode: Vec<f32>,
}

/// How near a run came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearness {
    /// The largest difference of a logit.
    pub largest: f32,
    /// What it may be.
    pub tolerance: f32,
    /// Tokens that differ from the reference's, though its best logit leads by more than the tolerance.
    pub wrong_tokens: usize,
}

impl Nearness {
    /// Whether the rule holds.
    pub fn is_near(&self) -> bool {
        self.largest <= self.tolerance && self.wrong_tokens == 0
    }
}

/// Floats of a float32 tensor.
fn floats(tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, Error> {
    let data = tensors
        .tensor(name)
        .map_err(|e| Error::input(format!("expected.safetensors: {name}: {e}")))?;
    let words = data.data().chunks_exact(4);
    Ok(words
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect())
}

/// The largest difference; infinite where one is NaN or the other is longer.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |largest, d| {
        if d.is_nan() {
            f32::INFINITY
        } else {
            d.max(largest)
        }
    })
}

/// By how much the best logit leads.
pub fn margin(logits: &[f32]) -> f32 {
    let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &x in logits {
        if x > best {
            (best, second) = (x, best);
        } else if x > second {
            second = x;
        }
    }
    best - second
}

impl Reference {
    /// The reference of a folder.
    ///
    /// # Errors
    /// A file is missing, or is none of a reference.
    pub fn read(folder: &Path) -> Result<Reference, Error> {
        let path = folder.join("expected.json");
        let expected = read_json_object(&path, LIMIT)?;
        let ids = |key: &str| -> Result<Vec<Vec<u32>>, Error> {
            let ids = expected.get(key).cloned().unwrap_or_default();
            serde_json::from_value(ids)
                .map_err(|e| Error::input(format!("{}: {key}: {e}", path.display())))
        };
        let path = folder.join("expected.safetensors");
        let bytes = read_whole(&path, LIMIT)?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|e| Error::input(format!("{}: {e}", path.display())))?;
        let (prefill, decode) = (
            floats(&tensors, "prefill_f32")?,
            floats(&tensors, "decode_f32")?,
        );
        let yardstick = largest_difference(&floats(&tensors, "prefill_bf16")?, &prefill).max(
            largest_difference(&floats(&tensors, "decode_bf16")?, &decode),
        );
        Ok(Reference {
            prompts: ids("prompts")?,
            greedy: ids("greedy_f32")?,
            tolerance: 2.0 * yardstick,
            prefill,
            decode,
        })
    }

    /// The longest sequence of prompt and output.
    pub fn longest(&self) -> usize {
        let prompt = self.prompts.iter().map(Vec::len).max().unwrap_or(0);
        prompt + self.greedy.first().map_or(0, Vec::len)
    }

    /// Prefill, and every decode step fed with the reference's tokens, all logits kept.
    pub fn options(&self) -> Options {
        Options {
            max_new_tokens: self.greedy.first().map_or(0, Vec::len),
            stop_ids: Vec::new(),
            forced_ids: Some(self.greedy.clone()),
            keep_logits: true,
        }
    }

    /// The reference's logits of a prompt's output token: the first is that of the prefill.
    pub fn logits(&self, prompt: usize, step: usize, vocab: usize) -> &[f32] {
        let steps = self.greedy.first().map_or(0, Vec::len);
        match step {
            0 => &self.prefill[prompt * vocab..][..vocab],
            _ => &self.decode[(prompt * (steps - 1) + step - 1) * vocab..][..vocab],
        }
    }

    /// How near a run with [`Reference::options`] came.
    pub fn nearness(&self, generated: &Generated, vocab: usize) -> Nearness {
        let mut nearness = Nearness {
            largest: largest_difference(&generated.prefill_logits, &self.prefill),
            tolerance: self.tolerance,
            wrong_tokens: 0,
        };
        for (prompt, greedy) in self.greedy.iter().enumerate() {
            for (step, &token) in greedy.iter().enumerate() {
                let theirs = self.logits(prompt, step, vocab);
                if let Some(index) = step.checked_sub(1) {
                    let ours = &generated.decode_logits[index][prompt * vocab..][..vocab];
                    nearness.largest = nearness.largest.max(largest_difference(ours, theirs));
                }
                let is_same = generated.output_ids[prompt].get(step) == Some(&token);
                if !is_same && margin(theirs) > self.tolerance {
                    nearness.wrong_tokens += 1;
                }
            }
        }
        nearness
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_near_only_with_all_logits_and_tokens() {
        let reference = Reference {
            prompts: vec![vec![1]],
            greedy: vec![vec![1, 0]],
            tolerance: 0.5,
            prefill: vec![0.0, 2.0],
            decode: vec![3.0, 2.8],
        };
        let run = |prefill: [f32; 2], decode: [f32; 2], ids: [u32; 2]| {
            let generated = Generated {
                output_ids: vec![ids.to_vec()],
                prefill_logits: prefill.to_vec(),
                decode_logits: vec![decode.to_vec()],
            };
            reference.nearness(&generated, 2)
        };
        assert!(run([0.25, 2.0], [3.0, 3.0], [1, 1]).is_near()); // the second token is nearly a tie
        assert_eq!(run([0.0, 2.0], [3.0, 2.8], [0, 0]).wrong_tokens, 1);
        assert_eq!(run([0.0, 2.0], [4.0, 2.8], [1, 0]).largest, 1.0);
        assert!(!run([0.0, f32::NAN], [3.0, 2.8], [1, 0]).is_near());
    }
}
