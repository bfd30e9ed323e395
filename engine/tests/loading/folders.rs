//! Hugging Face folders, named shapes, and what can be wrong with them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Value, json};
use stepscope_engine::model::{LoadFormat, LoadOptions, shape_names};
use stepscope_kernels::DType;

use crate::support::{
    Stored, assert_weights, fixtures, folder, load_error, options, overrides, read_safetensors,
    safetensors_bytes, tiny_config, tiny_folder, tiny_tensors, try_load,
};

#[test]
fn each_architecture_loads_mapped() {
    for name in ["mini-llama", "mini-qwen2", "mini-qwen3"] {
        let dir = fixtures().join("models").join(name);
        let model = try_load(&options(&dir)).unwrap();
        assert_eq!(model.name, name);
        assert_eq!(model.load_format, LoadFormat::Safetensors);
        assert_eq!(model.dtype, DType::BF16);
        assert_eq!(model.files, [dir.join("model.safetensors")]);
        assert_eq!(model.mapped_bytes, model.weight_bytes);
        assert_eq!(model.weight_bytes, 2 * model.config.parameters());
        assert_weights(
            model.weights.as_ref().unwrap(),
            &read_safetensors(&model.files[0]),
            DType::BF16,
        );
    }
}

#[test]
fn another_dtype_is_converted() {
    let dir = fixtures().join("models/mini-qwen2");
    let stored = read_safetensors(&dir.join("model.safetensors"));
    for dtype in [DType::F32, DType::F16] {
        let model = try_load(&LoadOptions {
            dtype: Some(dtype),
            ..options(&dir)
        })
        .unwrap();
        assert_eq!((model.dtype, model.mapped_bytes), (dtype, 0));
        assert_weights(model.weights.as_ref().unwrap(), &stored, dtype);
    }
}

#[test]
fn auto_stores_float32_as_float16_as_sglang_does() {
    let mut tensors = tiny_tensors();
    for t in tensors.values_mut() {
        let wide = t.bytes.chunks(2).flat_map(|b| [0, 0, b[0], b[1]]);
        (t.bytes, t.dtype) = (wide.collect(), Dtype::F32);
    }
    for torch_dtype in [json!("float32"), Value::Null] {
        let mut config = tiny_config();
        config["torch_dtype"] = torch_dtype;
        let dir = folder(&config, &tensors);
        let model = try_load(&options(dir.path())).unwrap();
        assert_eq!((model.config.dtype, model.dtype), (DType::F32, DType::F16));
        assert_weights(model.weights.as_ref().unwrap(), &tensors, DType::F16);
    }
}

#[test]
fn a_config_without_dtype_goes_by_the_weights() {
    let mut config = tiny_config();
    config["torch_dtype"] = Value::Null;
    let dir = folder(&config, &tiny_tensors());
    let model = try_load(&options(dir.path())).unwrap();
    assert_eq!(
        (model.config.dtype, model.dtype),
        (DType::BF16, DType::BF16)
    );
}

#[test]
fn tensors_that_lie_crooked_are_copied() {
    let tensors = tiny_tensors();
    let bytes = safetensors_bytes(&tensors);
    let (length, rest) = bytes.split_at(8);
    let header = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    // One more space at the end of the header: every tensor comes to lie at an odd address.
    let mut crooked = (header as u64 + 1).to_le_bytes().to_vec();
    crooked.extend(&rest[..header]);
    crooked.push(b' ');
    crooked.extend(&rest[header..]);
    let dir = tiny_folder();
    fs::write(dir.path().join("model.safetensors"), crooked).unwrap();
    let model = try_load(&options(dir.path())).unwrap();
    assert_eq!(model.mapped_bytes, 0);
    assert_weights(model.weights.as_ref().unwrap(), &tensors, DType::BF16);
}

#[test]
fn tied_embeddings_win_over_a_stored_output_matrix() {
    let mut tensors = tiny_tensors();
    tensors.insert(
        "lm_head.weight".to_owned(),
        tensors["model.embed_tokens.weight"].clone(),
    );
    let mut config = tiny_config();
    let tied = try_load(&options(folder(&config, &tensors).path())).unwrap();
    assert!(tied.weights.as_ref().unwrap().lm_head.is_none());
    config["tie_word_embeddings"] = json!(false);
    let untied = try_load(&options(folder(&config, &tensors).path())).unwrap();
    assert_weights(untied.weights.as_ref().unwrap(), &tensors, DType::BF16);
    assert!(untied.weights.as_ref().unwrap().lm_head.is_some());
    assert_eq!(untied.weight_bytes, tied.weight_bytes + 2 * 80);
}

/// Splits `tensors` over two files with an index, by whether a name holds `mlp`.
fn sharded(config: &Value, tensors: &HashMap<String, Stored>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut weight_map = serde_json::Map::new();
    for (number, wants_mlp) in [(1, false), (2, true)] {
        let part: HashMap<_, _> = tensors
            .iter()
            .filter(|(name, _)| name.contains("mlp") == wants_mlp)
            .map(|(name, t)| (name.clone(), t.clone()))
            .collect();
        let file = format!("model-0000{number}-of-00002.safetensors");
        fs::write(dir.path().join(&file), safetensors_bytes(&part)).unwrap();
        weight_map.extend(part.into_keys().map(|name| (name, json!(file))));
    }
    let index = json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
    fs::write(
        dir.path().join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    dir
}

fn edit_index(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join("model.safetensors.index.json");
    let mut index = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut index);
    fs::write(path, index.to_string()).unwrap();
}

#[test]
fn shards_load_by_their_index_or_without_one() {
    let dir = sharded(&tiny_config(), &tiny_tensors());
    let model = try_load(&options(dir.path())).unwrap();
    assert_weights(
        model.weights.as_ref().unwrap(),
        &tiny_tensors(),
        DType::BF16,
    );
    assert_eq!(model.files.len(), 2);
    fs::remove_file(dir.path().join("model.safetensors.index.json")).unwrap();
    let model = try_load(&options(dir.path())).unwrap();
    assert_weights(
        model.weights.as_ref().unwrap(),
        &tiny_tensors(),
        DType::BF16,
    );
    assert_eq!(model.files.len(), 2);
}

#[test]
fn an_index_that_is_wrong() {
    const GATE: &str = "model.layers.0.mlp.gate_proj.weight";
    let check = |edit: &dyn Fn(&mut Value), expected: &str| {
        let dir = sharded(&tiny_config(), &tiny_tensors());
        edit_index(dir.path(), |index| edit(index));
        assert_eq!(load_error(dir.path(), &options(dir.path())), expected);
    };
    check(
        &|index| index["weight_map"][GATE] = json!("../model-00002-of-00002.safetensors"),
        "DIR/model.safetensors.index.json names \"\\\"../model-00002-of-00002.safetensors\\\"\" as the file of model.layers.0.mlp.gate_proj.weight, expected the plain name of a file beside it: download it again",
    );
    check(
        &|index| index["weight_map"][GATE] = json!("/etc/passwd"),
        "DIR/model.safetensors.index.json names \"\\\"/etc/passwd\\\"\" as the file of model.layers.0.mlp.gate_proj.weight, expected the plain name of a file beside it: download it again",
    );
    check(
        &|index| index["weight_map"][GATE] = json!(7),
        "DIR/model.safetensors.index.json names \"7\" as the file of model.layers.0.mlp.gate_proj.weight, expected the plain name of a file beside it: download it again",
    );
    check(
        &|index| index["weight_map"][GATE] = json!("model-00001-of-00002.safetensors"),
        "DIR/model.safetensors.index.json says that model-00001-of-00002.safetensors holds the tensor model.layers.0.mlp.gate_proj.weight, but it does not: download both again",
    );
    check(
        &|index| index["weight_map"][GATE] = json!("model-00003-of-00002.safetensors"),
        "cannot read DIR/model-00003-of-00002.safetensors: No such file or directory (os error 2)",
    );
    check(
        &|index| {
            drop(
                index["weight_map"]
                    .as_object_mut()
                    .unwrap()
                    .shift_remove(GATE),
            )
        },
        "DIR/model.safetensors.index.json: tensor model.layers.0.mlp.gate_proj.weight (shape [12, 8]) is missing, which config.json asks for: the weights are incomplete or of another model",
    );
    check(
        &|index| index["weight_map"] = json!([]),
        "DIR/model.safetensors.index.json has no object \"weight_map\": download it again",
    );
}

#[test]
fn two_files_with_the_same_tensor() {
    let dir = sharded(&tiny_config(), &tiny_tensors());
    fs::remove_file(dir.path().join("model.safetensors.index.json")).unwrap();
    let file = |n: u8| {
        dir.path()
            .join(format!("model-0000{n}-of-00002.safetensors"))
    };
    let mlp_only =
        ["down", "gate", "up"].map(|part| format!("model.layers.0.mlp.{part}_proj.weight"));
    let mut tensors = tiny_tensors();
    tensors.retain(|name, _| *name == mlp_only[1] || !name.contains("mlp"));
    fs::write(file(1), safetensors_bytes(&tensors)).unwrap();
    assert_eq!(
        load_error(dir.path(), &options(dir.path())),
        "DIR/model-00001-of-00002.safetensors and DIR/model-00002-of-00002.safetensors both hold the tensor \"model.layers.0.mlp.gate_proj.weight\": remove one of them"
    );
}

#[test]
fn fewer_layers_leave_the_other_tensors_alone() {
    let dir = fixtures().join("models/mini-qwen3");
    let model = try_load(&LoadOptions {
        config_overrides: overrides(json!({"num_hidden_layers": 1})),
        ..options(&dir)
    })
    .unwrap();
    assert_eq!(model.weights.as_ref().unwrap().layers.len(), 1);
    assert_weights(
        model.weights.as_ref().unwrap(),
        &read_safetensors(&model.files[0]),
        DType::BF16,
    );

    // Files that hold no tensor that is wanted need not be there.
    let dir = sharded(&tiny_config(), &tiny_tensors());
    edit_index(dir.path(), |index| {
        index["weight_map"]["model.layers.1.mlp.up_proj.weight"] =
            json!("model-00003-of-00003.safetensors");
    });
    assert!(try_load(&options(dir.path())).is_ok());
}

#[test]
fn a_tensor_that_does_not_fit_the_config() {
    const NORM: &str = "model.layers.0.input_layernorm.weight";
    let check = |edit: &dyn Fn(&mut HashMap<String, Stored>), expected: &str| {
        let mut tensors = tiny_tensors();
        edit(&mut tensors);
        let dir = folder(&tiny_config(), &tensors);
        assert_eq!(load_error(dir.path(), &options(dir.path())), expected);
    };
    check(
        &|tensors| drop(tensors.remove(NORM)),
        "DIR/model.safetensors: tensor model.layers.0.input_layernorm.weight (shape [8]) is missing, which config.json asks for: the weights are incomplete or of another model",
    );
    check(
        &|tensors| tensors.get_mut(NORM).unwrap().shape = vec![2, 4],
        "DIR/model.safetensors: tensor \"model.layers.0.input_layernorm.weight\" has shape [2, 4], but config.json asks for [8]: they belong to different models",
    );
    check(
        &|tensors| tensors.get_mut(NORM).unwrap().dtype = Dtype::I16,
        "DIR/model.safetensors: tensor \"model.layers.0.input_layernorm.weight\" is stored as I16, which is not supported; F32, F16 and BF16 are",
    );
}

/// A safetensors file with this header and `data` zeros after it.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn a_safetensors_file_that_is_none() {
    let check = |bytes: &[u8], expected: &str| {
        let dir = tiny_folder();
        fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        assert_eq!(
            load_error(dir.path(), &options(dir.path())),
            format!("DIR/model.safetensors {expected}")
        );
    };
    let good = safetensors_bytes(&tiny_tensors());
    let len = good.len();
    let header = u64::from_le_bytes(good[..8].try_into().unwrap());
    check(&[], "is empty: download it again");
    check(
        &good[..7],
        "is shorter than a safetensors header: it is truncated, download it again",
    );
    check(
        &good[..500],
        &format!(
            "claims a header of {header} bytes, but has 500 (and at most 100000000 are allowed): it is truncated, or no safetensors file"
        ),
    );
    check(
        &good[..good.len() - 1],
        &format!(
            "has {} bytes, but its header describes {len}: it is truncated, download it again",
            len - 1
        ),
    );
    check(
        &[&good[..], b"x"].concat(),
        &format!(
            "has {} bytes, but its header describes {len}: it is damaged, download it again",
            len + 1
        ),
    );
    check(
        &[&u64::MAX.to_le_bytes()[..], &good[8..]].concat(),
        &format!(
            "claims a header of 18446744073709551615 bytes, but has {len} (and at most 100000000 are allowed): it is truncated, or no safetensors file"
        ),
    );
    check(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder",
    );
    check(
        &with_header("{\"a\": ", 0),
        "has a header that is not right (EOF while parsing a value at line 1 column 6): download it again",
    );
    check(
        &with_header("[]", 0),
        "has a header that is not right (invalid type: sequence, expected an object with one entry per tensor at line 1 column 0): download it again",
    );
    let tensor = |from: u64, to: u64| {
        format!(r#"{{"dtype":"BF16","shape":[4],"data_offsets":[{from},{to}]}}"#)
    };
    let twice = format!(r#"{{"a":{},"a":{}}}"#, tensor(0, 8), tensor(0, 8));
    check(
        &with_header(&twice, 8),
        "has a header that is not right (tensor \"a\" appears twice at line 1 column 109): download it again",
    );
    check(
        &with_header(
            &format!(r#"{{"a":{},"b":{}}}"#, tensor(0, 8), tensor(4, 12)),
            8,
        ),
        "has a header that is not right (invalid offset for tensor `b`): download it again",
    );
    let beyond = format!(r#"{{"a":{}}}"#, tensor(0, 8));
    check(
        &with_header(&beyond, 4),
        "has 67 bytes, but its header describes 71: it is truncated, download it again",
    );
    let huge = r#"{"a":{"dtype":"BF16","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,8]}}"#;
    check(
        &with_header(huge, 8),
        "has a header that is not right (overflow computing buffer size from shape and/or element type): download it again",
    );
    let backwards = format!(r#"{{"a":{}}}"#, tensor(8, 0));
    check(
        &with_header(&backwards, 8),
        "has a header that is not right (invalid offset for tensor `a`): download it again",
    );
}

#[test]
fn a_folder_without_weights() {
    let dir = tiny_folder();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert_eq!(
        load_error(dir.path(), &options(dir.path())),
        "DIR should hold model.safetensors or model.safetensors.index.json and its files, but holds none: download the weights too, or run without (load format dummy)"
    );
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert_eq!(
        load_error(dir.path(), &options(dir.path())),
        "DIR should hold model.safetensors or model.safetensors.index.json and its files, but holds only PyTorch's .bin, which are not supported: convert them to safetensors"
    );
    let dummy = LoadOptions {
        format: LoadFormat::Dummy,
        ..options(dir.path())
    };
    let model = try_load(&dummy).unwrap();
    assert_eq!(model.load_format, LoadFormat::Dummy);
    assert_eq!(
        (model.weight_bytes, model.mapped_bytes),
        (2 * model.config.parameters(), 0)
    );
    assert!(
        model
            .weights
            .as_ref()
            .unwrap()
            .embedding
            .to_f32()
            .iter()
            .all(|x| x.abs() <= 1e-3)
    );
    assert!(model.files.is_empty());
}

#[test]
fn a_path_that_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let check = |model: &str, expected: &str| {
        assert_eq!(load_error(dir.path(), &LoadOptions::new(model)), expected);
    };
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    check(
        &path(""),
        "DIR/ holds neither a config.json nor a .gguf file: it is no model's folder",
    );
    check(
        "smolm2-135m",
        "no model \"smolm2-135m\": there is no such file or folder, nor a shape of that name; did you mean the shape smollm2-135m?",
    );
    check(
        "Qwen/Qwen2.5-0.5B-Instruct",
        "no model \"Qwen/Qwen2.5-0.5B-Instruct\": there is no such file or folder, nor a shape of that name; a Hugging Face repository must be downloaded first (hf download); did you mean the shape qwen2.5-0.5b?",
    );
    fs::write(path("weights.safetensors"), "x").unwrap();
    check(
        &path("weights.safetensors"),
        "DIR/weights.safetensors is neither a folder nor a GGUF file: name the folder that it lies in",
    );
    let error = load_error(dir.path(), &LoadOptions::new(""));
    assert!(
        error.starts_with("no model \"\": ") && error.contains("named shapes are smollm2-135m, "),
        "{error}"
    );
}

#[test]
fn a_format_that_is_not_there() {
    let dir = tiny_folder();
    let check = |model: &str, format: LoadFormat, expected: &str| {
        let options = LoadOptions {
            format,
            ..LoadOptions::new(model)
        };
        assert_eq!(load_error(dir.path(), &options), expected);
    };
    check(
        dir.path().to_str().unwrap(),
        LoadFormat::Gguf,
        "DIR is a folder without GGUF file: load format gguf cannot be had, use auto",
    );
    check(
        "smollm2-135m",
        LoadFormat::Safetensors,
        "smollm2-135m is a named shape, which has no weights: load format safetensors cannot be had, use auto",
    );
}

#[test]
fn a_named_shape_loads_without_files() {
    assert_eq!(shape_names().count(), 20);
    let model = try_load(&LoadOptions {
        config_overrides: overrides(json!({"num_hidden_layers": 1, "vocab_size": 64})),
        ..LoadOptions::new("Qwen3-0.6B")
    })
    .unwrap();
    assert_eq!(model.name, "qwen3-0.6b");
    assert_eq!(model.load_format, LoadFormat::Dummy);
    assert_eq!(model.weights.as_ref().unwrap().layers.len(), 1);
    assert_eq!(
        model.weights.as_ref().unwrap().embedding.shape(),
        [64, 1024]
    );
    assert!(model.weights.as_ref().unwrap().layers[0].q_norm.is_some());
    assert!(model.tokenizer.is_none());
}

#[test]
fn more_than_the_machine_has_is_refused_before_it_is_asked_for() {
    let options = LoadOptions {
        config_overrides: overrides(json!({"num_hidden_layers": 6_000})),
        ..LoadOptions::new("llama-3.1-70b")
    };
    let error = load_error(Path::new("DIR"), &options);
    assert!(error.starts_with("the weights need 102"), "{error}");
}

#[test]
fn generation_config_adds_tokens_that_end_a_text() {
    let dir = tiny_folder();
    fs::write(
        dir.path().join("generation_config.json"),
        r#"{"eos_token_id": [2, 7]}"#,
    )
    .unwrap();
    let options = LoadOptions {
        config_overrides: overrides(json!({"eos_token_id": 2})),
        ..options(dir.path())
    };
    assert_eq!(try_load(&options).unwrap().config.eos_token_ids, [2, 7]);
}
