//! Tokenizers from `tokenizer.json` and from GGUF metadata, held against other programs (see the fixtures'
//! `make.py`).

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use stepscope_engine::model::from_bytes;
use stepscope_engine::tokenizer::{ChatMessage, Tokenizer};
use stepscope_kernels::DType;

use crate::gguf_writer::{F32, GgufWriter};
use crate::support::fixtures;

fn fixture(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join("tokenizer").join(name)).unwrap()).unwrap()
}

fn list<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A GGUF file with a tokenizer, and as little of a model as its header must have.
fn gguf(model: &str, tokens: &[String], types: &[i32]) -> GgufWriter {
    let mut file = GgufWriter::new();
    file.text("general.architecture", "llama");
    for key in [
        "block_count",
        "context_length",
        "feed_forward_length",
        "attention.head_count",
    ] {
        file.u32(&format!("llama.{key}"), 1);
    }
    file.u32("llama.embedding_length", 2)
        .tensor("token_embd.weight", &[1, 2], F32, &[0.0; 2])
        .text("tokenizer.ggml.model", model)
        .texts("tokenizer.ggml.tokens", tokens)
        .i32s("tokenizer.ggml.token_type", types);
    file
}

fn open(file: &GgufWriter) -> Result<Tokenizer, String> {
    match from_bytes::gguf(file.bytes(), DType::F32).0 {
        Ok(tokenizer) => Ok(tokenizer.expect("the file holds a tokenizer")),
        Err(e) => {
            assert!(e.is_input());
            Err(e.to_string())
        }
    }
}

/// The tokenizer of `tokenizer.json` as a GGUF file has it.
fn byte_level(pre: &str) -> GgufWriter {
    let json = fixture("tokenizer.json");
    let mut ids: HashMap<String, usize> =
        serde_json::from_value(json["model"]["vocab"].clone()).unwrap();
    ids.insert("<note>".to_owned(), ids.len());
    let mut tokens = vec![String::new(); ids.len()];
    for (token, &id) in &ids {
        tokens[id].clone_from(token);
    }
    let types: Vec<i32> = tokens
        .iter()
        .map(|token| match token.as_str() {
            "<note>" => 4,
            token if token.starts_with("<|") => 3,
            _ => 1,
        })
        .collect();
    let merges: Vec<[String; 2]> = list(&json["model"]["merges"]);
    let merges: Vec<String> = merges.iter().map(|pair| pair.join(" ")).collect();
    let mut file = gguf("gpt2", &tokens, &types);
    file.text("tokenizer.ggml.pre", pre)
        .texts("tokenizer.ggml.merges", &merges)
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .bool("tokenizer.ggml.add_bos_token", false);
    file
}

#[test]
fn byte_level_bpe_from_either_source() {
    let expected = fixture("expected.json");
    let texts: Vec<String> = list(&expected["texts"]);
    let check = |tokenizer: &Tokenizer, pre: &str, exact: bool| {
        let wanted: Vec<Vec<u32>> = list(&expected["byte_level"][pre]);
        assert_eq!(tokenizer.vocab_size(), 421);
        assert_eq!(
            (tokenizer.bos_token_id(), tokenizer.eos_token_ids()),
            (Some(0), &[2][..])
        );
        for (text, wanted) in texts.iter().zip(wanted) {
            let found = tokenizer.encode(text, true).unwrap();
            assert_eq!(found, wanted, "{pre}: {text:?}");
            let decoded = tokenizer.decode(&found, false).unwrap();
            assert!(
                !exact || decoded == *text,
                "{pre}: {text:?} became {decoded:?}"
            );
        }
    };
    let from_folder = Tokenizer::from_folder(&fixtures().join("tokenizer"))
        .unwrap()
        .unwrap();
    check(&from_folder, "qwen2", false); // Unicode's NFC joins what the text had in parts
    for pre in ["qwen2", "llama-bpe", "smollm", "gpt-2", "default"] {
        check(&open(&byte_level(pre)).unwrap(), pre, pre != "qwen2");
    }
}

#[test]
fn sentencepiece_from_its_scores() {
    let (expected, table) = (fixture("expected.json"), fixture("sentencepiece.json"));
    let texts: Vec<String> = list(&expected["sentencepiece_texts"]);
    let wanted: Vec<Vec<u32>> = list(&expected["sentencepiece"]);
    let mut file = gguf(
        "llama",
        &list::<String>(&table["tokens"]),
        &list::<i32>(&table["types"]),
    );
    file.f32s("tokenizer.ggml.scores", &list::<f32>(&table["scores"]))
        .u32("tokenizer.ggml.unknown_token_id", 0)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2);
    let tokenizer = open(&file).unwrap();
    for (text, wanted) in texts.iter().zip(&wanted) {
        assert_eq!(tokenizer.encode(text, false).unwrap(), *wanted, "{text:?}");
        assert_eq!(tokenizer.decode(wanted, true).unwrap(), *text);
    }
    // A first token is wanted unless the file says otherwise.
    let first = |tokenizer: &Tokenizer| tokenizer.encode(&texts[0], true).unwrap()[0];
    assert_eq!(first(&tokenizer), 1);
    file.bool("tokenizer.ggml.add_bos_token", false);
    assert_eq!(first(&open(&file).unwrap()), wanted[0][0]);
    // Without scores there are no merges.
    let error = open(file.without("tokenizer.ggml.scores")).unwrap_err();
    assert!(error.contains("420 tokens, but scores of 0"), "{error}");
}

#[test]
fn first_and_last_tokens_as_the_metadata_wants_them() {
    let check = |file: &GgufWriter, wanted: &[u32]| {
        let tokenizer = open(file).unwrap();
        assert_eq!(tokenizer.encode("<note>", true).unwrap(), wanted);
        assert_eq!(tokenizer.encode("<note>", false).unwrap(), [420]);
        assert_eq!(tokenizer.decode(wanted, true).unwrap(), "<note>");
    };
    let mut file = byte_level("smollm");
    check(&file, &[420]);
    check(file.bool("tokenizer.ggml.add_bos_token", true), &[0, 420]);
    check(
        file.bool("tokenizer.ggml.add_eos_token", true),
        &[0, 420, 2],
    );
    check(
        byte_level("llama-bpe").without("tokenizer.ggml.add_bos_token"),
        &[0, 420],
    );
    check(
        byte_level("qwen2").without("tokenizer.ggml.add_bos_token"),
        &[420],
    );
}

#[test]
fn chats_are_rendered_as_by_jinja2() {
    let template = fs::read_to_string(fixtures().join("tokenizer/chat.jinja")).unwrap();
    let mut file = byte_level("qwen2");
    file.text("tokenizer.chat_template", &template);
    let from_gguf = open(&file).unwrap();
    let from_folder = Tokenizer::from_folder(&fixtures().join("tokenizer"))
        .unwrap()
        .unwrap();
    for chat in list::<Value>(&fixture("expected.json")["chats"]) {
        let messages: Vec<ChatMessage> = list(&chat["messages"]);
        for tokenizer in [&from_gguf, &from_folder] {
            assert!(tokenizer.has_chat_template());
            let rendered =
                tokenizer.render_chat(&messages, chat["add_generation_prompt"] == json!(true));
            assert_eq!(rendered.unwrap(), chat["rendered"].as_str().unwrap());
        }
    }
}

#[test]
fn a_chat_that_cannot_be_rendered() {
    let message = |role: &str| ChatMessage {
        role: role.to_owned(),
        content: "x".to_owned(),
    };
    let check = |template: Option<&str>, expected: &str| {
        let mut file = byte_level("qwen2");
        if let Some(template) = template {
            file.text("tokenizer.chat_template", template);
        }
        let error = open(&file)
            .unwrap()
            .render_chat(&[message("judge")], false)
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        None,
        "this model brought no chat template: give it plain prompts",
    );
    check(
        Some("{{ raise_exception('no ' ~ messages[0].role) }}"),
        "the model's chat template cannot be used: invalid operation: no judge (in chat template:1)",
    );
    check(
        Some("{% for %}"),
        "the model's chat template cannot be used: syntax error: unexpected end of block, expected in (in chat template:1)",
    );
}

#[test]
fn todays_date_for_templates_that_ask() {
    let mut file = byte_level("qwen2");
    file.text("tokenizer.chat_template", "{{ strftime_now('%Y') }}");
    let year: u64 = open(&file)
        .unwrap()
        .render_chat(&[], false)
        .unwrap()
        .parse()
        .unwrap();
    assert!((2024..3000).contains(&year));
}

#[test]
fn metadata_that_makes_no_tokenizer() {
    let check = |file: &mut GgufWriter, problem: &str| {
        let expected = format!(
            "model.gguf: its tokenizer cannot be used: {problem}; give a tokenizer.json instead, or run without text"
        );
        assert_eq!(open(file).unwrap_err(), expected);
    };
    check(
        byte_level("qwen2").text("tokenizer.ggml.model", "bert"),
        "its kind \"bert\" is not supported; gpt2 (byte-level BPE) and llama (SentencePiece) are",
    );
    let error = open(&byte_level("kimi-k2")).unwrap_err();
    assert!(
        error.contains("its way of cutting words, \"kimi-k2\", is not known here; smollm, "),
        "{error}"
    );
    check(
        byte_level("qwen2").without("tokenizer.ggml.tokens"),
        "tokenizer.ggml.tokens is missing",
    );
    check(
        byte_level("qwen2").without("tokenizer.ggml.merges"),
        "tokenizer.ggml.merges is missing",
    );
    check(
        byte_level("qwen2").i32s("tokenizer.ggml.token_type", &[1, 2]),
        "it has 421 tokens, but types of 2",
    );
    check(
        byte_level("qwen2").u32("tokenizer.ggml.eos_token_id", 421),
        "tokenizer.ggml.eos_token_id is 421, but there are 421 tokens",
    );
    for merge in ["nospace", "x y", "Ġ missing"] {
        check(
            byte_level("qwen2").texts("tokenizer.ggml.merges", &[merge.to_owned()]),
            &format!("merge \"{merge}\" does not join two tokens to a third"),
        );
    }
    let twice = ["a", "b", "a"].map(str::to_owned);
    check(
        gguf("gpt2", &twice, &[1, 1, 1]).text("tokenizer.ggml.pre", "qwen2"),
        "tokens 0 and 2 are both \"a\"",
    );
}

fn write_tokenizer(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json = fixture("tokenizer.json");
    edit(&mut json);
    fs::write(dir.join("tokenizer.json"), json.to_string()).unwrap();
}

#[test]
fn a_tokenizer_json_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let error = || {
        let error = Tokenizer::from_folder(dir.path()).unwrap_err();
        assert!(error.is_input());
        error
            .to_string()
            .replace(dir.path().to_str().unwrap(), "DIR")
    };
    assert!(Tokenizer::from_folder(dir.path()).unwrap().is_none());
    write_tokenizer(dir.path(), |json| {
        json["model"]["merges"] = json!([["x".repeat(40), "y".repeat(40)]])
    });
    let message = error();
    assert!(
        message.starts_with("DIR/tokenizer.json is no tokenizer that can be used (merge \"xxx"),
        "{message}"
    );
    write_tokenizer(dir.path(), |json| {
        json["model"]["continuing_subword_prefix"] = json!("x".repeat(40))
    });
    assert!(error().contains("is no token"));
    write_tokenizer(dir.path(), |json| json["model"] = json!({"type": "Guess"}));
    assert!(error().starts_with("DIR/tokenizer.json is no tokenizer that can be used"));
    fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
    assert_eq!(
        error(),
        "DIR/tokenizer.json is no tokenizer that can be used (EOF while parsing an object at line 1 column 1): download it again"
    );
    write_tokenizer(dir.path(), |_| {});
    fs::write(dir.path().join("tokenizer_config.json"), "[]").unwrap();
    assert_eq!(
        error(),
        "DIR/tokenizer_config.json holds an array, not a JSON object: download it again"
    );
    let missing = Tokenizer::from_path(&dir.path().join("none.json"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("cannot read ") && missing.contains("none.json"),
        "{missing}"
    );
}

#[test]
fn what_training_left_in_a_tokenizer_json_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer(dir.path(), |json| {
        json["truncation"] =
            json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = json!({
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
        });
    });
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap().unwrap();
    let ids = tokenizer
        .encode("The decode is bound by memory.", true)
        .unwrap();
    assert_eq!(
        ids,
        list::<Vec<u32>>(&fixture("expected.json")["byte_level"]["qwen2"])[1]
    );
}

#[test]
fn a_template_file_wins_over_the_key() {
    let dir = tempfile::tempdir().unwrap();
    write_tokenizer(dir.path(), |_| {});
    fs::write(
        dir.path().join("tokenizer_config.json"),
        r#"{"chat_template": "key"}"#,
    )
    .unwrap();
    let render = || {
        Tokenizer::from_folder(dir.path())
            .unwrap()
            .unwrap()
            .render_chat(&[], false)
            .unwrap()
    };
    assert_eq!(render(), "key");
    fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(render(), "file");
}
