//! sglang's `bench_one_batch` on the shapes of ours, from a folder of wheels, on a machine without network.

pub(super) mod points;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};
use stepscope_microbench::peers::python;

use crate::args::gpu_check::GpuCheck;
use crate::output::{Failure, write_stdout};

const UNPACK: &str = include_str!("unpack.py");

/// The folder in which the wheels are unpacked, and from which Python imports them.
pub(super) fn site(out: &Path) -> PathBuf {
    out.join("sglang-site")
}

/// The folder of a model, with what sglang reads of it when weights are made up.
pub(super) fn config_folder(out: &Path, model: &str) -> PathBuf {
    out.join("configs").join(model)
}

/// The file that gets sglang's lines of results.
pub(super) fn lines_file(out: &Path, model: &str) -> PathBuf {
    out.join(format!("sglang-{model}.jsonl"))
}

/// The options of sglang's program: its weights are made up, and no kernel needs nvcc. The short forms of its documentation
/// (`--batch`) are refused as ambiguous.
pub(super) fn arguments(
    out: &Path,
    model: &str,
    batches: &[&str],
    input: &str,
    output: &str,
) -> Vec<String> {
    let (folder, lines) = (config_folder(out, model), lines_file(out, model));
    let mut arguments: Vec<String> = ["-m", "sglang.bench_one_batch", "--model-path"]
        .map(str::to_owned)
        .to_vec();
    arguments.push(folder.display().to_string());
    let fixed =
        "--load-format dummy --attention-backend triton --sampling-backend pytorch --run-name";
    arguments.extend(fixed.split(' ').map(str::to_owned));
    arguments.push(model.to_owned());
    arguments.push("--batch-size".to_owned());
    arguments.extend(batches.iter().map(|&batch| batch.to_owned()));
    arguments.extend(["--input-len", input, "--output-len", output].map(str::to_owned));
    arguments.push("--result-filename".to_owned());
    arguments.push(lines.display().to_string());
    arguments
}

/// What Python is to find in the environment: the unpacked wheels before all else, no wish to ask the network, and the GPU with this
/// ordinal as its first.
pub(super) fn environment(out: &Path, ordinal: usize) -> Vec<(String, String)> {
    let mut path = absolute(&site(out)).display().to_string();
    if let Ok(before) = std::env::var("PYTHONPATH")
        && !before.is_empty()
    {
        path = format!("{path}:{before}");
    }
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let mut variables = vec![
        ("PYTHONPATH", path),
        ("HF_HUB_OFFLINE", "1".to_owned()),
        ("TOKENIZERS_PARALLELISM", "false".to_owned()),
    ];
    if ordinal > 0 {
        variables.push((
            "CUDA_VISIBLE_DEVICES",
            visible_device(visible.as_deref(), ordinal),
        ));
    }
    let owned = variables.into_iter();
    owned
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The GPU `ordinal` of those that are visible.
fn visible_device(visible: Option<&str>, ordinal: usize) -> String {
    let listed = visible.and_then(|list| list.split(',').nth(ordinal));
    listed.map_or_else(|| ordinal.to_string(), |device| device.trim().to_owned())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The stage that unpacks sglang and writes the models' folders.
pub(super) fn set_up(args: &GpuCheck) -> Result<(), Failure> {
    let Some(pack) = &args.sglang else {
        return Err(Failure::input("the stage sglang needs --sglang DIR"));
    };
    let site = site(&args.out);
    if site.exists() {
        fs::remove_dir_all(&site)
            .map_err(|e| Failure::run(format!("cannot remove {}: {e}", site.display())))?;
    }
    for model in super::models(args.small) {
        write_config(
            &config_folder(&args.out, model),
            model,
            &super::overrides(args.small),
        )?;
    }
    let seconds = args.seconds.map_or(60, |seconds| seconds as u64);
    let arguments = [pack.display().to_string(), site.display().to_string()];
    let [pack, site] = arguments.each_ref().map(String::as_str);
    let limit = Duration::from_secs(seconds.saturating_sub(2).max(1));
    let answer = python::ask(UNPACK, &[pack, site], "", limit);
    if let Some(why) = answer.failure {
        return Err(Failure::run(format!("unpacking sglang: {why}")));
    }
    let said: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
    if let Some(why) = said["missing"].as_str() {
        return Err(Failure::run(why));
    }
    let (Some(version), Some(torch)) = (said["sglang"].as_str(), said["torch"].as_str()) else {
        return Err(Failure::run(format!(
            "unpacking sglang said {:?}",
            answer.stdout
        )));
    };
    let document = json!({
        "schema": "stepscope.sglang/1",
        "summary": format!("sglang {version} with torch {torch}"),
        "sglang": version,
        "torch": torch,
        "wheels": said["wheels"],
    });
    write_stdout(format!("{document:#}\n").as_bytes())
}

/// Writes what sglang reads of a model when weights are made up: its config, and a tokenizer, which it loads and never asks.
fn write_config(folder: &Path, model: &str, overrides: &Map<String, Value>) -> Result<(), Failure> {
    let config = crate::gpu_check::config(model, overrides)?;
    fs::create_dir_all(folder)
        .map_err(|e| Failure::run(format!("cannot create {}: {e}", folder.display())))?;
    let files = [
        ("config.json", config.raw),
        ("tokenizer.json", tokenizer()),
        (
            "tokenizer_config.json",
            json!({ "tokenizer_class": "PreTrainedTokenizerFast" }),
        ),
    ];
    for (name, value) in files {
        let path = folder.join(name);
        fs::write(&path, format!("{value:#}\n"))
            .map_err(|e| Failure::run(format!("cannot write {}: {e}", path.display())))?;
    }
    Ok(())
}

/// The smallest tokenizer that transformers load: two tokens.
fn tokenizer() -> Value {
    let bytes = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": { "a": 0, "b": 1 },
            "merges": [],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_folder_can_be_loaded() {
        use stepscope_engine::model::ModelConfig;
        use stepscope_engine::tokenizer::Tokenizer;

        let scratch = tempfile::tempdir().unwrap();
        let folder = config_folder(scratch.path(), "qwen2.5-7b");
        write_config(&folder, "qwen2.5-7b", &Map::new()).unwrap();
        let text = fs::read(folder.join("config.json")).unwrap();
        let config = ModelConfig::from_json(&text, &folder, &Map::new()).unwrap();
        assert_eq!(
            config,
            crate::gpu_check::config("qwen2.5-7b", &Map::new()).unwrap()
        );
        // The library that transformers read it with, too.
        assert!(Tokenizer::from_folder(&folder).unwrap().is_some());
    }

    #[test]
    fn the_gpu_is_the_one_that_was_asked_for() {
        assert_eq!(visible_device(None, 3), "3");
        assert_eq!(visible_device(Some("5, 6,GPU-1"), 1), "6");
        assert_eq!(visible_device(Some("5,6"), 2), "2");
    }

    #[test]
    fn sglang_is_asked_in_its_own_words() {
        let arguments = arguments(Path::new("out"), "m", &["1", "8"], "1024", "64").join(" ");
        assert_eq!(
            arguments,
            "-m sglang.bench_one_batch --model-path out/configs/m --load-format dummy --attention-backend triton \
             --sampling-backend pytorch --run-name m --batch-size 1 8 --input-len 1024 --output-len 64 \
             --result-filename out/sglang-m.jsonl"
        );
    }
}
