//! `stepscope generate`.

use std::fs;
use std::path::Path;

use serde_json::json;
use stepscope_engine::generate::{self, Generated, Options};
use stepscope_engine::model::Model;
use stepscope_engine::tokenizer::ChatMessage;
use stepscope_engine::{Instruments, Runner, RunnerOptions};
use stepscope_kernels::{Backend, DType};

use crate::args::Generate;
use crate::device::{self, Work};
use crate::model;
use crate::output::{Failure, write_stdout};
use crate::progress::Bar;

pub(crate) fn run(args: &Generate) -> Result<(), Failure> {
    let bar = Bar::new(args.quiet);
    let prompt_ids = args
        .prompt_ids
        .as_deref()
        .map(|path| read_ids(path, "prompt"))
        .transpose()?;
    let forced_ids = args
        .forced_ids
        .as_deref()
        .map(|path| read_ids(path, "forced"))
        .transpose()?;
    let sampling = model::sampling(&args.sampling, args.model.random_seed)?;
    let gpu = device::start(&args.model)?;
    let cpu = model::start_cpu(&args.model)?;
    let loaded = model::open(&args.model, cpu, gpu, false, &bar)?;
    let prompts = match prompt_ids {
        Some(ids) => ids,
        None => encode(&loaded.model, &args.prompt, args.chat)?,
    };
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let mut runner_options = loaded.runner_options(
        &args.model,
        sampling,
        longest.saturating_add(args.max_new_tokens),
        Some(DType::F32),
    )?;
    runner_options.max_requests = prompts.len();
    let work = Generating {
        args,
        runner_options,
        prompts,
        forced_ids,
        bar: &bar,
    };
    loaded.run(&bar, work)
}

/// Prompts, and all that is needed to go on from them.
struct Generating<'a> {
    args: &'a Generate,
    runner_options: RunnerOptions,
    prompts: Vec<Vec<u32>>,
    forced_ids: Option<Vec<Vec<u32>>>,
    bar: &'a Bar,
}

impl Work for Generating<'_> {
    fn run<B: Backend>(
        self,
        backend: B,
        model: &Model,
        instruments: Instruments<'_>,
    ) -> Result<(), Failure> {
        let Generating { args, bar, .. } = self;
        let mut runner = Runner::watched(backend, model, &self.runner_options, instruments)?;
        let options = Options {
            max_new_tokens: args.max_new_tokens,
            stop_ids: if args.ignore_eos {
                Vec::new()
            } else {
                stop_ids(model)
            },
            forced_ids: self.forced_ids,
            keep_logits: args.logits.is_some(),
        };
        let prompts: Vec<&[u32]> = self.prompts.iter().map(Vec::as_slice).collect();
        let mut steps = 0;
        let outcome = generate::generate(&mut runner, &prompts, &options, |_| {
            steps += 1;
            bar.steps("generating", steps, args.max_new_tokens);
            true
        });
        bar.clear();
        let generated = outcome?;
        if let Some(path) = &args.logits {
            generate::write_logits(path, prompts.len(), model.config.vocab_size, &generated)?;
        }
        print(args, model, &prompts, &generated)
    }
}

fn print(
    args: &Generate,
    model: &Model,
    prompts: &[&[u32]],
    generated: &Generated,
) -> Result<(), Failure> {
    let text = |ids: &[u32]| {
        model
            .tokenizer
            .as_ref()
            .map(|t| t.decode(ids, true))
            .transpose()
    };
    if args.json {
        let mut outputs = Vec::new();
        for (input_ids, output_ids) in prompts.iter().zip(&generated.output_ids) {
            outputs.push(json!({"input_ids": input_ids, "output_ids": output_ids, "text": text(output_ids)?}));
        }
        return write_stdout(format!("{}\n", json!({ "outputs": outputs })).as_bytes());
    }
    let mut lines = String::new();
    for (i, output_ids) in generated.output_ids.iter().enumerate() {
        if prompts.len() > 1 {
            lines.push_str(&format!("========== Prompt {i} ==========\n"));
        }
        let shown = text(output_ids)?.unwrap_or_else(|| format!("{output_ids:?}"));
        lines.push_str(&shown);
        lines.push('\n');
    }
    write_stdout(lines.as_bytes())
}

fn encode(model: &Model, texts: &[String], chat: bool) -> Result<Vec<Vec<u32>>, Failure> {
    let Some(tokenizer) = &model.tokenizer else {
        return Err(Failure::input(format!(
            "{} has no tokenizer; give --tokenizer-path, or token ids with --prompt-ids",
            model.name
        )));
    };
    let mut prompts = Vec::new();
    for text in texts {
        let ids = if chat {
            let message = ChatMessage {
                role: "user".to_owned(),
                content: text.clone(),
            };
            // The template writes the special tokens itself.
            tokenizer.encode(&tokenizer.render_chat(&[message], true)?, false)?
        } else {
            tokenizer.encode(text, true)?
        };
        prompts.push(ids);
    }
    Ok(prompts)
}

/// The tokens that end a text, by the model's config and by its tokenizer.
fn stop_ids(model: &Model) -> Vec<u32> {
    let mut ids = model.config.eos_token_ids.clone();
    if let Some(tokenizer) = &model.tokenizer {
        ids.extend(tokenizer.eos_token_ids());
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn read_ids(path: &Path, what: &str) -> Result<Vec<Vec<u32>>, Failure> {
    let text = fs::read(path).map_err(|e| {
        Failure::input(format!(
            "cannot read the {what} ids {}: {e}",
            path.display()
        ))
    })?;
    let ids: Vec<Vec<u32>> = serde_json::from_slice(&text).map_err(|e| {
        Failure::input(format!(
            "{} does not hold {what} ids as a JSON list of lists of whole numbers, such as [[1, 2], [3]]: {e}",
            path.display()
        ))
    })?;
    if ids.is_empty() {
        return Err(Failure::input(format!(
            "{} holds no {what} ids",
            path.display()
        )));
    }
    Ok(ids)
}
