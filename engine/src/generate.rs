//! Prompts in, tokens out: what a person checks a model with.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use stepscope_kernels::Backend;

use crate::{Error, Runner};

/// What to generate.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tokens per prompt, the first included.
    pub max_new_tokens: usize,
    /// A prompt that produced one of these has ended; empty to ignore ends.
    pub stop_ids: Vec<u32>,
    /// Tokens to feed instead of those sampled, per prompt: the n-th is fed where the n-th output token would be.
    pub forced_ids: Option<Vec<Vec<u32>>>,
    /// Keep the logits of every step.
    pub keep_logits: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Per prompt, up to and with the stop id.
    pub output_ids: Vec<Vec<u32>>,
    /// `[prompts, vocab]`, after the last prompt token; empty when not kept.
    pub prefill_logits: Vec<f32>,
    /// `[steps][prompts, vocab]`, one entry per decode step; empty when not kept.
    pub decode_logits: Vec<Vec<f32>>,
}

/// Runs `prompts` as one ragged batch until every one of them has ended. A prompt that ends early rides along, as its row
/// of the batch does in sglang's static batch.
///
/// `on_step` sees the ids of every step and may stop the run by returning `false`.
///
/// # Errors
/// When a prompt or the forced ids do not fit the model, or a step fails.
pub fn generate<B: Backend>(
    runner: &mut Runner<B>,
    prompts: &[&[u32]],
    options: &Options,
    mut on_step: impl FnMut(&[u32]) -> bool,
) -> Result<Generated, Error> {
    if options.max_new_tokens == 0 {
        return Err(Error::input(
            "--max-new-tokens 0 generates nothing; give at least 1",
        ));
    }
    if let Some(forced) = &options.forced_ids {
        if forced.len() != prompts.len() {
            return Err(Error::input(format!(
                "the forced ids are {} lists for {} prompts; give one list per prompt",
                forced.len(),
                prompts.len()
            )));
        }
        if let Some(short) = forced
            .iter()
            .position(|ids| ids.len() + 1 < options.max_new_tokens)
        {
            return Err(Error::input(format!(
                "the forced ids of prompt {short} are {}, but {} decode steps need one each; lower --max-new-tokens",
                forced[short].len(),
                options.max_new_tokens - 1
            )));
        }
    }
    let (mut batch, _) = runner.prefill(prompts)?;
    let mut generated = Generated {
        output_ids: vec![Vec::new(); prompts.len()],
        prefill_logits: Vec::new(),
        decode_logits: Vec::new(),
    };
    if options.keep_logits {
        generated.prefill_logits = runner.logits(&batch)?;
    }
    let mut ended = vec![false; prompts.len()];
    for step in 0..options.max_new_tokens {
        if step > 0 {
            let forced = options
                .forced_ids
                .as_ref()
                .map(|forced| forced.iter().map(|ids| ids[step - 1]).collect::<Vec<_>>());
            runner.decode(&mut batch, forced.as_deref())?;
            if options.keep_logits {
                generated.decode_logits.push(runner.logits(&batch)?);
            }
        }
        let ids = runner.sampled(&batch)?;
        for (prompt, &id) in ids.iter().enumerate() {
            if !ended[prompt] {
                generated.output_ids[prompt].push(id);
                ended[prompt] = options.stop_ids.contains(&id);
            }
        }
        let go_on = on_step(&ids);
        if !go_on || ended.iter().all(|&e| e) {
            break;
        }
    }
    runner.check_logits(&batch)?;
    runner.release(batch);
    Ok(generated)
}

/// Writes kept logits as float32 tensors: `prefill` `[prompts, vocab]` and `decode` `[prompts, steps, vocab]`.
///
/// # Errors
/// When the file cannot be written.
pub fn write_logits(
    path: &Path,
    prompts: usize,
    vocab: usize,
    generated: &Generated,
) -> Result<(), Error> {
    let steps = generated.decode_logits.len();
    let mut decode = Vec::with_capacity(prompts * steps * vocab);
    for prompt in 0..prompts {
        for logits in &generated.decode_logits {
            decode.extend_from_slice(&logits[prompt * vocab..(prompt + 1) * vocab]);
        }
    }
    let failed = |e: safetensors::SafeTensorError| {
        Error::failed(format!("cannot write {}: {e}", path.display()))
    };
    let prefill = bytemuck::cast_slice(&generated.prefill_logits);
    let prefill = TensorView::new(Dtype::F32, vec![prompts, vocab], prefill).map_err(failed)?;
    let decode = TensorView::new(
        Dtype::F32,
        vec![prompts, steps, vocab],
        bytemuck::cast_slice(&decode),
    )
    .map_err(failed)?;
    let tensors = [("prefill", prefill), ("decode", decode)];
    safetensors::serialize_to_file(tensors, None, path).map_err(failed)
}
