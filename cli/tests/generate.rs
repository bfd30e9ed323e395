//! `stepscope generate`, on the fixtures' models and on the real SmolLM2.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use safetensors::SafeTensors;
use support::{Stepscope, fixture, smollm2};

#[test]
fn json_holds_ids_and_logits_have_the_promised_shapes() {
    let stepscope = Stepscope::new();
    stepscope.write("prompts.json", "[[1, 2, 3], [4]]");
    stepscope.write("forced.json", "[[7, 8, 9], [7, 8, 9]]");
    let ran = stepscope
        .run(&[
            "generate",
            "--model-path",
            &fixture("mini-llama"),
            "--prompt-ids",
            "prompts.json",
            "--forced-ids",
            "forced.json",
            "--max-new-tokens",
            "4",
            "--ignore-eos",
            "--json",
            "--logits",
            "logits.safetensors",
        ])
        .success();
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let outputs = json["outputs"].as_array().unwrap();
    assert_eq!(outputs[0]["input_ids"], serde_json::json!([1, 2, 3]));
    assert_eq!(outputs[1]["output_ids"].as_array().unwrap().len(), 4);
    let bytes = std::fs::read(stepscope.path("logits.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("prefill").unwrap().shape(), [2, 320]);
    assert_eq!(tensors.tensor("decode").unwrap().shape(), [2, 3, 320]);
}

#[test]
fn sampling_is_reproducible_and_depends_on_the_seed() {
    let stepscope = Stepscope::new();
    stepscope.write("prompts.json", "[[1, 2, 3]]");
    let model = fixture("mini-qwen3");
    let ids = |seed: &str, extra: &[&str]| {
        let mut args = vec![
            "generate",
            "--model-path",
            &model,
            "--prompt-ids",
            "prompts.json",
            "--max-new-tokens",
            "24",
            "--ignore-eos",
            "--json",
            "--seed",
            seed,
        ];
        args.extend(extra);
        stepscope.run(&args).success().stdout
    };
    let warm = ["--temperature", "1.5"];
    assert_eq!(ids("1", &warm), ids("1", &warm));
    assert_ne!(ids("1", &warm), ids("2", &warm));
    assert_eq!(
        ids("1", &["--temperature", "1.5", "--top-k", "1"]),
        ids("2", &[]),
        "top-k 1 is greedy"
    );
}

#[test]
fn bad_input_is_one_line_that_names_it() {
    let stepscope = Stepscope::new();
    let model = fixture("mini-llama");
    stepscope.write("beyond.json", "[[1, 320]]");
    stepscope.write("empty.json", "[]");
    stepscope.write("hollow.json", "[[]]");
    stepscope.write("text.json", "[\"hello\"]");
    stepscope.write("good.json", "[[1]]");
    stepscope.write("two.json", "[[1], [2]]");
    for (args, parts) in [
        (
            &["--prompt-ids", "beyond.json"][..],
            &["token id 320", "position 1 of prompt 0", "0 to 319"][..],
        ),
        (&["--prompt-ids", "empty.json"], &["empty.json"]),
        (&["--prompt-ids", "hollow.json"], &["prompt 0 is empty"]),
        (
            &["--prompt-ids", "text.json"],
            &["text.json", "[[1, 2], [3]]"],
        ),
        (&["--prompt-ids", "missing.json"], &["missing.json"]),
        (
            &["--prompt-ids", "good.json", "--forced-ids", "two.json"],
            &["2 lists for 1 prompts"],
        ),
        (
            &["--prompt-ids", "good.json", "--forced-ids", "good.json"],
            &["--max-new-tokens"],
        ),
        (
            &["--prompt-ids", "good.json", "--max-new-tokens", "0"],
            &["0", "at least 1"],
        ),
        (
            &[
                "--prompt-ids",
                "good.json",
                "--max-new-tokens",
                "18446744073709551615",
            ],
            &["exceeds the context of 4096"],
        ),
        (
            &["--prompt", "hello"],
            &["mini-llama", "no tokenizer", "--prompt-ids"],
        ),
        (&[], &["--prompt"]),
    ] {
        let mut all = vec!["generate", "--model-path", &model];
        all.extend(args);
        println!("{args:?}");
        stepscope.run(&all).error(2, parts);
    }
    stepscope
        .run(&[
            "generate",
            "--model-path",
            &model,
            "--prompt-ids",
            "good.json",
            "--logits",
            "no/such/folder/x.safetensors",
        ])
        .error(1, &["no/such/folder/x.safetensors"]);
}

#[test]
fn smollm2_says_paris_and_chats() {
    let Some(model) = smollm2() else { return };
    let stepscope = Stepscope::new();
    let text = stepscope
        .run(&[
            "generate",
            "--model-path",
            &model,
            "--prompt",
            "The capital of France is",
            "--max-new-tokens",
            "2",
        ])
        .success()
        .stdout;
    assert_eq!(text, " Paris.\n");
    let text = stepscope
        .run(&[
            "generate",
            "--model-path",
            &model,
            "--chat",
            "--prompt",
            "List 3 countries and their capitals.",
            "--max-new-tokens",
            "64",
        ])
        .success()
        .stdout;
    assert!(
        text.starts_with("1. Russia: Moscow, St. Petersburg"),
        "{text}"
    );
    assert!(!text.contains("<|im_end|>"));
}
