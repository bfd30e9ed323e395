//! sglang's `--correctness-test`: three prompts, the second half of each on the cached prefix of the first.

use stepscope_kernels::Backend;

use crate::bench::one_batch::Observer;
use crate::bench::torch_format;
use crate::tokenizer::Tokenizer;
use crate::{Error, Runner};

/// sglang's three prompts, its typing error included.
pub const PROMPTS: [&str; 3] = [
    "The capital of France is",
    "The capital of the United Kindom is",
    "Today is a sunny day and I like",
];

/// Runs the test and prints what sglang prints.
///
/// # Errors
/// When a prompt is not longer than `cut_len` tokens, or a step fails.
pub fn run<B: Backend>(
    runner: &mut Runner<B>,
    tokenizer: &Tokenizer,
    prompts: &[String],
    cut_len: usize,
    output_len: usize,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    observer.line(&format!(
        "max_total_num_tokens={}",
        runner.max_total_tokens()
    ))?;
    let mut sequences = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let ids = tokenizer.encode(prompt, true)?;
        if ids.len() <= cut_len {
            return Err(Error::input(format!(
                "prompt {prompt:?} has {} tokens, and --cut-len {cut_len} leaves none of them for the second half; lower \
                 --cut-len or use longer prompts",
                ids.len()
            )));
        }
        sequences.push(ids);
    }
    observer.line(&format!("\ninput_ids={sequences:?}\n"))?;
    let parts = |from: usize, to: Option<usize>| -> Vec<&[u32]> {
        sequences
            .iter()
            .map(|ids| &ids[from..to.unwrap_or(ids.len())])
            .collect()
    };
    let mut batch = if cut_len > 0 {
        let (mut batch, _) = runner.prefill(&parts(0, Some(cut_len)))?;
        let logits = torch_format::matrix(&runner.logits(&batch)?, runner.vocab_size());
        observer.line(&format!("prefill logits (first half): {logits} \n"))?;
        runner.extend(&mut batch, &parts(cut_len, None))?;
        batch
    } else {
        runner.prefill(&parts(0, None))?.0
    };
    let logits = torch_format::matrix(&runner.logits(&batch)?, runner.vocab_size());
    observer.line(&format!("prefill logits (final): {logits} \n"))?;
    runner.check_logits(&batch)?;
    let append = |sequences: &mut Vec<Vec<u32>>, ids: Vec<u32>| {
        for (sequence, id) in sequences.iter_mut().zip(ids) {
            sequence.push(id);
        }
    };
    append(&mut sequences, runner.sampled(&batch)?);
    for _ in 1..output_len {
        runner.decode(&mut batch, None)?;
        append(&mut sequences, runner.sampled(&batch)?);
    }
    runner.release(batch);
    for (i, sequence) in sequences.iter().enumerate() {
        observer.line(&format!("========== Prompt {i} =========="))?;
        observer.line(&format!("{} \n", tokenizer.decode(sequence, false)?))?;
    }
    Ok(())
}
