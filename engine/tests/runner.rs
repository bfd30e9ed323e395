//! Pools, batches and bad input, on a dummy model.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use stepscope_engine::model::{LoadFormat, LoadOptions, Model, NoProgress, load};
use stepscope_engine::{Runner, RunnerOptions};
use stepscope_kernels::Cpu;
use stepscope_profiler::Phase;

fn dummy() -> Model {
    dummy_made(false)
}

fn dummy_made(dummy_on_device: bool) -> Model {
    let overrides = r#"{"num_hidden_layers": 2, "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}"#;
    let options = LoadOptions {
        model: "smollm2-135m".to_owned(),
        format: LoadFormat::Dummy,
        config_overrides: serde_json::from_str(overrides).unwrap(),
        skip_tokenizer: true,
        dummy_on_device,
        ..LoadOptions::default()
    };
    load(&options, &Cpu::new(Some(1)).unwrap(), &NoProgress).unwrap()
}

fn runner(options: &RunnerOptions) -> Runner<Cpu> {
    Runner::new(Cpu::new(Some(2)).unwrap(), &dummy(), options).unwrap()
}

#[test]
fn the_phases_of_a_step_come_in_order_and_add_up() {
    let mut runner = runner(&RunnerOptions::small(2, 32));
    let (mut batch, prefill) = runner.prefill(&[&[1, 2, 3], &[4; 17]]).unwrap();
    let decode = runner.decode(&mut batch, None).unwrap();
    for step in [prefill, decode] {
        assert_eq!(
            step.phases.iter().map(|p| p.host_ns).sum::<u64>(),
            step.wall_ns
        );
        let mut names: Vec<_> = step.phases.iter().map(|p| p.name).collect();
        names.sort_by_key(|name| Phase::ALL.iter().position(|p| p == name));
        assert_eq!(names, Phase::ALL);
        let within: u64 = step.operations.iter().map(|o| o.duration_ns).sum();
        assert!(within <= step.wall_ns);
        for pair in step.operations.windows(2) {
            assert!(pair[0].start_ns + pair[0].duration_ns <= pair[1].start_ns);
        }
    }
}

/// A model without weights gets the very ones that it would have been loaded with.
#[test]
fn dummy_weights_that_the_device_makes_are_those_of_the_host() {
    let logits = [false, true].map(|dummy_on_device| {
        let model = dummy_made(dummy_on_device);
        assert_eq!(model.weights.is_none(), dummy_on_device);
        let options = RunnerOptions::small(2, 32);
        let mut runner = Runner::new(Cpu::new(Some(2)).unwrap(), &model, &options).unwrap();
        let (batch, _) = runner.prefill(&[&[1, 2, 3], &[4; 17]]).unwrap();
        runner.logits(&batch).unwrap()
    });
    assert!(logits[0].iter().any(|&x| x != 0.0));
    assert_eq!(logits[0], logits[1]);
}

#[test]
fn released_memory_is_used_again() {
    let options = RunnerOptions::small(2, 20);
    let mut runner = runner(&options);
    for _ in 0..10 {
        let (mut batch, _) = runner.prefill(&[&[1; 15], &[2; 15]]).unwrap();
        for _ in 0..5 {
            runner.decode(&mut batch, None).unwrap();
        }
        runner.release(batch);
    }
}

#[test]
fn an_exhausted_pool_takes_nothing() {
    let options = RunnerOptions {
        max_total_tokens: Some(32),
        ..RunnerOptions::small(2, 32)
    };
    let mut runner = runner(&options);
    let error = runner
        .prefill(&[&[1; 17], &[1; 17]])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "the KV pool is exhausted: 4 pages of 16 tokens were asked for, 2 of 2 are free"
        ),
        "{error}"
    );
    let (batch, _) = runner.prefill(&[&[1; 16], &[1; 16]]).unwrap();
    assert_eq!(batch.len(), 2);
}

#[test]
fn a_request_cannot_outgrow_what_was_planned() {
    let mut runner = runner(&RunnerOptions::small(1, 4));
    let (mut batch, _) = runner.prefill(&[&[1, 2, 3]]).unwrap();
    runner.decode(&mut batch, None).unwrap();
    let error = runner.decode(&mut batch, None).unwrap_err().to_string();
    assert_eq!(
        error,
        "a request of 4 tokens cannot grow: 4 were planned for"
    );
}

#[test]
fn bad_prompts_are_named() {
    let mut runner = runner(&RunnerOptions::small(2, 8));
    for (prompts, message) in [
        (
            vec![&[][..]],
            "prompt 0 is empty: give it at least one token",
        ),
        (
            vec![&[1][..], &[1, 128]],
            "token id 128 at position 1 of prompt 1 is beyond the vocabulary of 128 tokens; ids run from 0 to 127",
        ),
        (
            vec![&[1; 9][..]],
            "prompt 0 has 9 tokens, but only 8 were planned for; shorten it",
        ),
    ] {
        let error = runner.prefill(&prompts).unwrap_err();
        assert!(error.is_input());
        assert_eq!(error.to_string(), message);
    }
    let error = runner.prefill(&[&[1], &[1], &[1]]).unwrap_err().to_string();
    assert!(
        error.starts_with("the token pool is exhausted: 3 requests"),
        "{error}"
    );
}

#[test]
fn a_batch_computes_each_request_as_if_alone() {
    let mut runner = runner(&RunnerOptions::small(3, 40));
    let prompts: [&[u32]; 3] = [&[5, 6, 7], &[9; 20], &[3, 1]];
    let (batch, _) = runner.prefill(&prompts).unwrap();
    let together = runner.logits(&batch).unwrap();
    runner.release(batch);
    for (i, prompt) in prompts.iter().enumerate() {
        let (batch, _) = runner.prefill(&[prompt]).unwrap();
        let alone = runner.logits(&batch).unwrap();
        runner.release(batch);
        let largest = alone.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for (a, b) in alone.iter().zip(&together[i * 128..]) {
            assert!((a - b).abs() <= 1e-4 * largest, "request {i}: {a} {b}");
        }
    }
}

#[test]
fn pools_that_cannot_be_are_errors() {
    for (options, message) in [
        (
            RunnerOptions {
                page_size: 0,
                ..RunnerOptions::small(1, 8)
            },
            "--page-size 0 is not possible: a page holds at least one token",
        ),
        (
            RunnerOptions {
                max_total_tokens: Some(8),
                ..RunnerOptions::small(1, 8)
            },
            "--max-total-tokens 8 is less than one page of 16 tokens; raise it or lower --page-size",
        ),
        (
            RunnerOptions {
                memory_budget: 0,
                max_total_tokens: None,
                ..RunnerOptions::small(1, 8)
            },
            "no memory is left for a KV pool",
        ),
    ] {
        let error = Runner::new(Cpu::new(Some(1)).unwrap(), &dummy(), &options)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(message), "{error}");
    }
}
