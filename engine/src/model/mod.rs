//! Models: their shape ([`ModelConfig`]), their weights ([`Weights`]) and where both come from ([`load`]).
//!
//! A Hugging Face folder's safetensors are mapped and used as they lie where their type is the wanted one; everything
//! else, GGUF above all, is converted tensor by tensor in pieces, so that no model is ever in memory twice.
//!
//! **Invariant:** files are untrusted. Counts, lengths, shapes and offsets are held against the file before memory is
//! asked for.
//!
//! **Invariant:** nothing here knows a device; weights end as host tensors.

mod checkpoint;
mod config;
mod encoding;
mod file;
#[doc(hidden)]
pub mod from_bytes;
mod gguf;
mod hugging_face;
mod lookup;
mod memory;
mod quantized;
mod shapes;
mod source;
mod weights;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use stepscope_kernels::{Cpu, DType, dummy_weights};

pub use config::{Architecture, ModelConfig, RopeScaling};
pub use lookup::find_config;
pub use weights::{LayerWeights, Weights};

pub(crate) use file::{read_json_object, read_whole, shown};
pub(crate) use gguf::Metadata as GgufMetadata;

use self::checkpoint::{Loaded, load_weights};
use self::file::ModelFile;
use self::gguf::GgufCheckpoint;
use self::hugging_face::HuggingFaceCheckpoint;
use self::shapes::Shape;
use self::source::Source;
use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// The longest `config.json` that is read.
const CONFIG_LIMIT: u64 = 16 << 20;

/// Where weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadFormat {
    /// Whatever is found under the given path; a named shape gets [`LoadFormat::Dummy`] weights.
    #[default]
    Auto,
    /// A Hugging Face folder: `config.json` and `*.safetensors`.
    Safetensors,
    /// A GGUF file, dequantised at load.
    Gguf,
    /// No checkpoint: small random weights of the right shapes.
    Dummy,
}

impl LoadFormat {
    /// As `--load-format` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            LoadFormat::Auto => "auto",
            LoadFormat::Safetensors => "safetensors",
            LoadFormat::Gguf => "gguf",
            LoadFormat::Dummy => "dummy",
        }
    }

    /// The inverse of [`LoadFormat::name`].
    pub fn parse(name: &str) -> Option<LoadFormat> {
        use LoadFormat::{Auto, Dummy, Gguf, Safetensors};
        [Auto, Safetensors, Gguf, Dummy]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// What to load, and how.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// A Hugging Face folder, a `.gguf` file, a folder that holds one, or a named shape ([`shape_names`]).
    pub model: String,
    /// Where weights come from.
    pub format: LoadFormat,
    /// How weights are to be stored. `None` is sglang's `auto`: float16 and bfloat16 as the checkpoint declares them,
    /// float16 for float32, and bfloat16 for quantised GGUF files.
    pub dtype: Option<DType>,
    /// Keys that replace those of `config.json`.
    pub config_overrides: Map<String, Value>,
    /// A `tokenizer.json`, or a folder with one, to use instead of the model's own.
    pub tokenizer_path: Option<PathBuf>,
    /// Load no tokenizer.
    pub skip_tokenizer: bool,
    /// Make no dummy weights: the device makes the same ones in its own memory. Weights of a checkpoint are loaded all the same.
    pub dummy_on_device: bool,
}

impl LoadOptions {
    /// `model`, with everything else found out by itself.
    pub fn new(model: impl Into<String>) -> LoadOptions {
        LoadOptions {
            model: model.into(),
            ..LoadOptions::default()
        }
    }
}

/// Told how far loading has come. [`Progress::advance`] is called from several threads.
pub trait Progress: Sync {
    /// A stretch of work over `total_bytes` begins.
    fn begin(&self, label: &str, total_bytes: u64);
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
    /// The stretch that began last is done, or given up.
    fn finish(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _label: &str, _total_bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self) {}
}

/// A model, ready to be given to a device.
#[derive(Debug)]
pub struct Model {
    /// What to call it: the folder's or file's name, or the shape's.
    pub name: String,
    /// Its shape.
    pub config: ModelConfig,
    /// How its weights are stored.
    pub dtype: DType,
    /// Its weights; `None` where the device is to make dummy ones.
    pub weights: Option<Weights>,
    /// Its tokenizer, where one was found and wanted.
    pub tokenizer: Option<Tokenizer>,
    /// Where the weights came from; never [`LoadFormat::Auto`].
    pub load_format: LoadFormat,
    /// The files that the weights came from.
    pub files: Vec<PathBuf>,
    /// Bytes of all weights, tied ones once.
    pub weight_bytes: u64,
    /// How many of `weight_bytes` are a mapped file, which the system can drop and read again.
    pub mapped_bytes: u64,
}

/// Loads the model that `options` name, on `cpu`'s threads.
///
/// # Errors
/// Input errors name the file, key or tensor at fault, what was found there and the way out.
pub fn load(options: &LoadOptions, cpu: &Cpu, progress: &dyn Progress) -> Result<Model, Error> {
    let source = source::resolve(&options.model, options.format)?;
    let mut model = cpu.run(|| match source {
        Source::Folder(folder) => load_folder(&folder, options, cpu, progress),
        Source::Gguf(path) => load_gguf(&path, options, cpu, progress),
        Source::Shape(shape) => load_shape(shape, options, cpu, progress),
    })?;
    if let Some(path) = options
        .tokenizer_path
        .as_deref()
        .filter(|_| !options.skip_tokenizer)
    {
        model.tokenizer = Some(Tokenizer::from_path(path)?);
    }
    Ok(model)
}

/// The named shapes, which load without a checkpoint.
pub fn shape_names() -> impl Iterator<Item = &'static str> {
    shapes::names()
}

impl LoadOptions {
    /// Whether the model's own tokenizer is wanted.
    fn wants_own_tokenizer(&self) -> bool {
        !self.skip_tokenizer && self.tokenizer_path.is_none()
    }

    /// How to store weights that were `declared` so.
    fn dtype_for(&self, declared: DType) -> DType {
        self.dtype.unwrap_or(match declared {
            DType::F32 => DType::F16,
            half => half,
        })
    }
}

fn load_folder(
    folder: &Path,
    options: &LoadOptions,
    cpu: &Cpu,
    progress: &dyn Progress,
) -> Result<Model, Error> {
    let config_path = folder.join("config.json");
    let map = read_json_object(&config_path, CONFIG_LIMIT)?;
    let mut config = ModelConfig::from_map(map, &config_path, &options.config_overrides)?;
    add_generation_config(&mut config, folder)?;
    let tokenizer = match options.wants_own_tokenizer() {
        true => Tokenizer::from_folder(folder)?,
        false => None,
    };
    let mut files = Vec::new();
    let (loaded, dtype, load_format) = match options.format {
        LoadFormat::Dummy => {
            let dtype = options.dtype_for(config.dtype);
            (
                dummy(&config, dtype, options, cpu, progress)?,
                dtype,
                LoadFormat::Dummy,
            )
        }
        _ => {
            let checkpoint = HuggingFaceCheckpoint::open(folder, &config)?;
            let says_dtype = ["dtype", "torch_dtype"]
                .iter()
                .any(|&key| config.raw[key].is_string());
            if let Some(stored) = checkpoint.stored_dtype().filter(|_| !says_dtype) {
                config.dtype = stored;
            }
            let dtype = options.dtype_for(config.dtype);
            files = checkpoint.paths();
            (
                load_weights(&config, dtype, &checkpoint, progress)?.held(),
                dtype,
                LoadFormat::Safetensors,
            )
        }
    };
    Ok(model(
        name_of(folder),
        config,
        dtype,
        loaded,
        tokenizer,
        load_format,
        files,
    ))
}

fn load_gguf(
    path: &Path,
    options: &LoadOptions,
    cpu: &Cpu,
    progress: &dyn Progress,
) -> Result<Model, Error> {
    let file = ModelFile::open(path)?;
    let (checkpoint, config) = GgufCheckpoint::open(&file, &options.config_overrides)?;
    let tokenizer = match options.wants_own_tokenizer() {
        true => Tokenizer::from_gguf(&checkpoint.header.metadata)?,
        false => None,
    };
    let dtype = options.dtype_for(config.dtype);
    let (loaded, load_format, files) = match options.format {
        LoadFormat::Dummy => (
            dummy(&config, dtype, options, cpu, progress)?,
            LoadFormat::Dummy,
            Vec::new(),
        ),
        _ => (
            load_weights(&config, dtype, &checkpoint, progress)?.held(),
            LoadFormat::Gguf,
            vec![path.to_owned()],
        ),
    };
    Ok(model(
        name_of(path),
        config,
        dtype,
        loaded,
        tokenizer,
        load_format,
        files,
    ))
}

fn load_shape(
    shape: &Shape,
    options: &LoadOptions,
    cpu: &Cpu,
    progress: &dyn Progress,
) -> Result<Model, Error> {
    let config = ModelConfig::from_map(
        shape.config_json(),
        Path::new(shape.name),
        &options.config_overrides,
    )?;
    let dtype = options.dtype_for(config.dtype);
    let loaded = dummy(&config, dtype, options, cpu, progress)?;
    let name = shape.name.to_owned();
    Ok(model(
        name,
        config,
        dtype,
        loaded,
        None,
        LoadFormat::Dummy,
        Vec::new(),
    ))
}

fn model(
    name: String,
    config: ModelConfig,
    dtype: DType,
    loaded: Loaded<Option<Weights>>,
    tokenizer: Option<Tokenizer>,
    load_format: LoadFormat,
    files: Vec<PathBuf>,
) -> Model {
    Model {
        name,
        config,
        dtype,
        weights: loaded.weights,
        tokenizer,
        load_format,
        files,
        weight_bytes: loaded.weight_bytes,
        mapped_bytes: loaded.mapped_bytes,
    }
}

/// Random weights, as sglang's dummy loader makes them: every tensor, norms too, is uniform in ±1e-3.
fn dummy(
    config: &ModelConfig,
    dtype: DType,
    options: &LoadOptions,
    cpu: &Cpu,
    progress: &dyn Progress,
) -> Result<Loaded<Option<Weights>>, Error> {
    let bytes_of = |shape: &[usize]| (shape.iter().product::<usize>() * dtype.size()) as u64;
    let weight_bytes = config.parameters() * dtype.size() as u64;
    let loaded = |weights| Loaded {
        weights,
        weight_bytes,
        mapped_bytes: 0,
    };
    if options.dummy_on_device {
        return Ok(loaded(None));
    }
    memory::require(weight_bytes, "the weights")?;
    progress.begin("making dummy weights", weight_bytes);
    let weights = Weights::build(config, |id| {
        let shape = config.shape_of(id.role);
        let tensor = dummy_weights::uniform(cpu, dtype, &shape)?;
        progress.advance(bytes_of(&shape));
        Ok(tensor)
    });
    progress.finish();
    Ok(loaded(Some(weights?)))
}

/// The tokens that end a text are also, and for chat models only, in `generation_config.json`.
fn add_generation_config(config: &mut ModelConfig, folder: &Path) -> Result<(), Error> {
    let path = folder.join("generation_config.json");
    if !path.exists() {
        return Ok(());
    }
    let generation = read_json_object(&path, CONFIG_LIMIT)?;
    let ids = match generation.get("eos_token_id") {
        Some(Value::Array(ids)) => ids.iter().collect(),
        Some(id) => vec![id],
        None => Vec::new(),
    };
    for id in ids.into_iter().filter_map(Value::as_u64) {
        if let Ok(id) = u32::try_from(id)
            && !config.eos_token_ids.contains(&id)
        {
            config.eos_token_ids.push(id);
        }
    }
    Ok(())
}

/// What the last part of a path calls a model; `.` and links are followed.
fn name_of(path: &Path) -> String {
    let name = |path: &Path| {
        path.file_stem()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let whole = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let named = if path.is_dir() { whole } else { name };
    named(path)
        .or_else(|| path.canonicalize().ok().and_then(|path| named(&path)))
        .unwrap_or_else(|| path.display().to_string())
}
