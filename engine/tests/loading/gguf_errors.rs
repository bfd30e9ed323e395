//! GGUF files that are no models, or not whole, or not right.

use std::fs;

use stepscope_engine::model::LoadOptions;

use crate::gguf::{convert, mini};
use crate::gguf_writer::{BF16, F32, GgufWriter, Q5_K, Q8_0};
use crate::support::{fixtures, load_error, options, try_load};

/// Loads `file` after `edit`, and compares the error (with the file's name left out).
fn check_error(file: &GgufWriter, edit: &dyn Fn(&mut GgufWriter), expected: &str) {
    let mut file = file.clone();
    edit(&mut file);
    check_bytes(&file.bytes(), expected);
}

fn check_bytes(bytes: &[u8], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    fs::write(&path, bytes).unwrap();
    let options = LoadOptions {
        skip_tokenizer: true,
        ..options(&path)
    };
    let error = load_error(dir.path(), &options);
    assert_eq!(error.strip_prefix("DIR/m.gguf").unwrap_or(&error), expected);
}

#[test]
fn a_file_that_is_no_gguf_or_not_whole() {
    let (config, tensors) = mini("mini-qwen3");
    let file = convert(&config, &tensors, BF16);
    let bytes = file.bytes();
    check_bytes(b"", " is empty: download it again");
    check_bytes(b"GGML", " does not begin with GGUF: it is not a GGUF file");
    check_bytes(
        &bytes[..6],
        " ends within its header (4 bytes wanted at 4 of 6): it is truncated or damaged, download it again",
    );
    check_bytes(
        &bytes[..100],
        " claims 13 key-value pairs, but its 100 bytes hold at most 5: it is truncated or damaged, download it again",
    );
    check_bytes(
        &bytes[..bytes.len() - 1],
        &format!(
            " ends within the tensor \"output_norm.weight\" (shape [128], offset 867328): it has {} bytes and is truncated, download it again",
            bytes.len() - 1
        ),
    );
    check_bytes(
        b"version https://git-lfs.github.com/spec/v1\n",
        " is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder",
    );
    check_error(
        &file,
        &|file| file.version = 1,
        " has GGUF version 1, but 2 and 3 are supported: convert the model again",
    );
    check_error(
        &file,
        &|file| file.version = 3_u32.swap_bytes(),
        " is a big-endian GGUF file, which is not supported: convert it again, little-endian",
    );
    let claim = |at: usize, what: &str| {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        let left = (bytes.len() - 24) / if what == "tensors" { 24 } else { 13 };
        check_bytes(
            &bytes,
            &format!(
                " claims 1152921504606846976 {what}, but its {} bytes hold at most {left}: it is truncated or damaged, download it again",
                bytes.len()
            ),
        );
    };
    claim(8, "tensors");
    claim(16, "key-value pairs");
}

#[test]
fn metadata_that_cannot_be() {
    let (config, tensors) = mini("mini-llama");
    let file = convert(&config, &tensors, BF16);
    let check = |edit: &dyn Fn(&mut GgufWriter), expected: &str| check_error(&file, edit, expected);
    check(
        &|file| {
            file.without("llama.block_count");
        },
        " lacks the key llama.block_count: convert the model again",
    );
    check(
        &|file| {
            file.text("llama.block_count", "two");
        },
        ": llama.block_count is \"two\", expected a whole number from 0",
    );
    check(
        &|file| {
            file.i32s("llama.attention.head_count_kv", &[1, 2]);
        },
        ": llama.attention.head_count_kv is an array of 2 I32, expected one whole number from 0 for all layers",
    );
    check(
        &|file| {
            file.f32("llama.rope.freq_base", f32::NAN);
        },
        ": \"rope_theta\" is \"NaN\", expected a number above 0",
    );
    check(
        &|file| {
            file.u32("llama.rope.dimension_count", 32);
        },
        ": llama.rope.dimension_count is 32, but only the length of keys (64) is supported",
    );
    check(
        &|file| {
            file.u32("general.alignment", 24);
        },
        " has general.alignment 24, expected a power of two up to 1048576: convert the model again",
    );
    check(
        &|file| {
            file.raw_again("llama.block_count", 4, &[2, 0, 0, 0]);
        },
        " holds the key \"llama.block_count\" twice: it is damaged, download it again",
    );
    check(
        &|file| {
            file.raw("general.odd", 13, &[0; 8]);
        },
        " holds a value of the unknown kind 13 under \"general.odd\": it is damaged, download it again",
    );
    check(
        &|file| {
            file.raw(
                "general.nested",
                9,
                &[[9, 0, 0, 0].as_slice(), &[0; 8]].concat(),
            );
        },
        " nests arrays under \"general.nested\", which is not supported: convert the model again",
    );
    check(
        &|file| {
            file.raw("general.name", 8, b"\x01\0\0\0\0\0\0\0\xff");
        },
        " holds a string that is not UTF-8 (at byte 598): it is damaged, download it again",
    );
    let long = [[4, 0, 0, 0].as_slice(), &(1_u64 << 61).to_le_bytes()].concat();
    let mut with_long = file.clone();
    let len = with_long.raw("general.long", 9, &long).bytes().len();
    let error = " claims 2305843009213693952 elements of an array, but its ";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("m.gguf"), with_long.bytes()).unwrap();
    let found = load_error(dir.path(), &options(&dir.path().join("m.gguf")));
    assert!(
        found.starts_with(&format!("DIR/m.gguf{error}{len} bytes hold at most ")),
        "{found}"
    );
}

#[test]
fn what_a_gguf_model_may_not_be() {
    let (config, tensors) = mini("mini-llama");
    let file = convert(&config, &tensors, BF16);
    let check = |edit: &dyn Fn(&mut GgufWriter), expected: &str| check_error(&file, edit, expected);
    check(
        &|file| {
            file.text("general.architecture", "gemma3");
        },
        ": architecture \"gemma3\" is not supported; llama, qwen2 and qwen3 are",
    );
    check(
        &|file| {
            file.raw("split.count", 2, &[3, 0]);
        },
        " is one of 3 parts, which is not supported: join them with llama-gguf-split --merge",
    );
    check(
        &|file| {
            file.u32("llama.expert_count", 8);
        },
        ": llama.expert_count is 8: mixtures of experts are not supported, only models with one MLP per layer",
    );
    check(
        &|file| {
            file.u32("llama.attention.sliding_window", 1024);
        },
        ": sliding window attention (1024 of 4096 positions) is not supported",
    );
    check(
        &|file| {
            file.text("llama.rope.scaling.type", "yarn");
        },
        ": rotary embeddings of type \"yarn\" are not supported; default, linear and llama3 are (override \"rope_scaling\" to run without)",
    );
}

#[test]
fn tensors_that_cannot_be() {
    let (config, tensors) = mini("mini-llama");
    let file = convert(&config, &tensors, BF16);
    const Q: &str = "blk.0.attn_q.weight";
    let check = |edit: &dyn Fn(&mut GgufWriter), expected: &str| check_error(&file, edit, expected);
    check(
        &|file| file.tensor_mut(Q).ggml_type = Q5_K,
        ": tensor blk.0.attn_q.weight has the GGML type Q5_K, which is not supported; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K are",
    );
    check(
        &|file| file.tensor_mut(Q).ggml_type = 77,
        ": tensor blk.0.attn_q.weight has the GGML type number 77, which is not supported; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K are",
    );
    check(
        &|file| file.tensor_mut(Q).shape = vec![64, 256],
        ": tensor \"blk.0.attn_q.weight\" has shape [64, 256], but its metadata asks for [128, 128]: they belong to different models",
    );
    check(
        &|file| file.tensors.retain(|t| t.name != Q),
        ": tensor blk.0.attn_q.weight (shape [128, 128]) is missing, which its metadata asks for: the weights are incomplete or of another model",
    );
    check(
        &|file| file.tensors.retain(|t| t.name != "token_embd.weight"),
        " has no tensor token_embd.weight: it holds no model that can be run",
    );
    check(
        &|file| file.tensor_mut(Q).name = "blk.0.attn_k.weight".to_owned(),
        " holds the tensor \"blk.0.attn_k.weight\" twice: it is damaged, download it again",
    );
    check(
        &|file| file.tensor_mut(Q).shape = vec![],
        " gives the tensor \"blk.0.attn_q.weight\" 0 dimensions, expected 1 to 4: it is damaged, download it again",
    );
    check(
        &|file| file.tensor_mut(Q).shape = vec![128, 0],
        " gives the tensor \"blk.0.attn_q.weight\" a dimension of 0: it is damaged, download it again",
    );
    check(
        &|file| {
            let tensor = file.tensor_mut(Q);
            (tensor.ggml_type, tensor.shape) = (Q8_0, vec![1024, 16]);
        },
        " holds the tensor \"blk.0.attn_q.weight\" of shape [1024, 16], whose rows are not whole Q8_0 blocks: it is damaged, download it again",
    );
    let end = file.bytes().len();
    for (shape, offset) in [
        (vec![1 << 62, 1 << 62], 0),
        (vec![128, 128], u64::MAX - 31),
        (vec![128, 128], 1 << 40),
    ] {
        check(
            &|file| {
                let tensor = file.tensor_mut(Q);
                (tensor.shape, tensor.offset) = (shape.clone(), Some(offset));
            },
            &format!(
                " ends within the tensor \"blk.0.attn_q.weight\" (shape {shape:?}, offset {offset}): it has {end} bytes and is truncated, download it again"
            ),
        );
    }
    check(
        &|file| file.tensor_mut(Q).offset = Some(16),
        " places the tensor \"blk.0.attn_q.weight\" at offset 16, which is no multiple of its alignment 32: it is damaged, download it again",
    );
    check(
        &|file| file.tensor_mut(Q).offset = Some(0),
        " places the tensors \"blk.0.attn_q.weight\" and \"output.weight\" on the same bytes: it is damaged, download it again",
    );
}

#[test]
fn frequency_factors_that_cannot_be() {
    let (config, tensors) = mini("mini-llama");
    let mut file = convert(&config, &tensors, BF16);
    file.tensor("rope_freqs.weight", &[32], F32, &[0.0; 32]);
    check_error(
        &file,
        &|_| {},
        ": rope_freqs.weight holds a factor that is not a number above 0: the file is damaged, download it again",
    );
    check_error(
        &file,
        &|file| file.tensor_mut("rope_freqs.weight").shape = vec![4, 8],
        ": tensor \"rope_freqs.weight\" has shape [4, 8], but the metadata asks for [32]: they belong to different models",
    );
}

#[test]
fn a_quantised_bias_cannot_be_put_in_order() {
    let (config, tensors) = mini("mini-llama");
    let mut file = convert(&config, &tensors, BF16);
    for layer in 0..2 {
        for (part, len) in [("q", 128), ("k", 64), ("v", 64)] {
            file.tensor(
                &format!("blk.{layer}.attn_{part}.bias"),
                &[len],
                Q8_0,
                &vec![1.0; len],
            );
        }
    }
    check_error(
        &file,
        &|_| {},
        ": the bias blk.0.attn_q.bias is quantised, which is not supported: convert the model again, with biases as F32",
    );
}

#[test]
fn a_shape_beyond_all_numbers_of_a_type_that_is_not_supported() {
    let (config, tensors) = mini("mini-llama");
    let mut file = convert(&config, &tensors, BF16);
    for name in ["blk.0.attn_q.weight", "blk.1.attn_q.weight"] {
        let tensor = file.tensor_mut(name);
        (tensor.ggml_type, tensor.shape) = (Q5_K, vec![u64::MAX; 4]);
    }
    check_error(
        &file,
        &|_| {},
        ": tensor blk.0.attn_q.weight has the GGML type Q5_K, which is not supported; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K are",
    );
}

#[test]
fn a_tokenizer_that_is_missing_broken_or_wanted_from_elsewhere() {
    let (config, tensors) = mini("mini-llama");
    let mut file = convert(&config, &tensors, BF16);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    fs::write(&path, file.bytes()).unwrap();
    let options = options(&path);
    assert!(try_load(&options).unwrap().tokenizer.is_none());
    fs::write(&path, file.text("tokenizer.ggml.model", "gpt2").bytes()).unwrap();
    assert_eq!(
        load_error(dir.path(), &options),
        "DIR/m.gguf: its tokenizer cannot be used: tokenizer.ggml.tokens is missing; give a tokenizer.json instead, or run without text"
    );
    let with = LoadOptions {
        tokenizer_path: Some(fixtures().join("tokenizer/tokenizer.json")),
        ..options
    };
    let tokenizer = try_load(&with).unwrap().tokenizer.unwrap();
    assert_eq!(tokenizer.vocab_size(), 421);
    let without = LoadOptions {
        skip_tokenizer: true,
        ..with
    };
    assert!(try_load(&without).unwrap().tokenizer.is_none());
}
