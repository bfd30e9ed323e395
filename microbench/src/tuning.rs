//! The variants that were the fastest on a GPU, on disk.
//!
//! A file is for one GPU, one storage type and one version of this program; [`TuningFile::tuning`] says why it is not taken where one
//! of them is another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stepscope_device::driver::Device;
use stepscope_kernels::cuda::catalog::Shape;
use stepscope_kernels::{DType, QkvLayout, Tuned, Tuning};

/// What its documents call themselves.
pub const SCHEMA: &str = "stepscope.tuning/1";

/// All of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TuningFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of this program that measured.
    pub version: String,
    /// The GPU it measured on.
    pub gpu: TunedGpu,
    /// The storage type: `bfloat16` or `float16`.
    pub dtype: String,
    /// The model whose shapes these are.
    pub model: String,
    /// Shapes at which another variant than the chooser's won.
    pub entries: Vec<Entry>,
}

/// A GPU, as the driver names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunedGpu {
    /// For people.
    pub name: String,
    /// What tells it from others of its kind.
    pub uuid: String,
    /// Major and minor.
    pub compute_capability: [u32; 2],
}

/// A shape and what won.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// `gemm` or `attention_decode`.
    pub operation: String,
    /// Its dimensions, as the laboratory has them.
    pub shape: BTreeMap<String, usize>,
    /// The variant: of a product its name, of attention the number of ranges.
    pub variant: String,
    /// Its median time, ns; absent from a table written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_ns: Option<f64>,
    /// That of the chooser's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_ns: Option<f64>,
}

impl Entry {
    /// The entry for a shape of `gemm`, `gemv` or `attention_decode`.
    pub fn new(operation: &str, shape: &Shape, variant: &str) -> Entry {
        let values = shape.values().iter();
        Entry {
            operation: operation.to_owned(),
            shape: values
                .map(|&(name, value)| (name.to_owned(), value))
                .collect(),
            variant: variant.to_owned(),
            median_ns: None,
            chosen_ns: None,
        }
    }

    /// As the kernels understand it.
    ///
    /// # Errors
    /// A dimension is missing, or the operation has no variants.
    pub fn tuned(&self) -> Result<Tuned, String> {
        let size = |name: &str| {
            let known = self.shape.get(name).copied();
            known.ok_or_else(|| format!("an entry for {} has no {name}", self.operation))
        };
        match self.operation.as_str() {
            "gemm" => Ok(Tuned::Gemm {
                size: [size("M")?, size("N")?, size("K")?],
                variant: self.variant.clone(),
            }),
            "attention_decode" => Ok(Tuned::AttentionDecode {
                layout: QkvLayout {
                    heads: size("heads")?,
                    kv_heads: size("kv_heads")?,
                    head_dim: size("head_dim")?,
                },
                requests: size("requests")?,
                kv_len: size("kv_len")?,
                splits: self.variant.parse().map_err(|_| {
                    format!(
                        "attention_decode: {:?} is no number of ranges",
                        self.variant
                    )
                })?,
            }),
            other => Err(format!("{other} has no variants")),
        }
    }
}

/// Names of the operations that have variants, with all of them at a shape.
pub fn variants(operation: &str, shape: &Shape) -> Vec<String> {
    match operation {
        "gemm" => Tuning::gemm_variants(["M", "N", "K"].map(|name| shape.get(name))),
        "attention_decode" => {
            let layout = QkvLayout {
                heads: shape.get("heads"),
                kv_heads: shape.get("kv_heads"),
                head_dim: shape.get("head_dim"),
            };
            let splits =
                Tuning::decode_variants(layout, shape.get("requests"), shape.get("kv_len"));
            splits.iter().map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    }
}

impl TuningFile {
    /// A file without entries.
    pub fn new(version: &str, device: &Device, dtype: DType, model: &str) -> TuningFile {
        TuningFile {
            schema: SCHEMA.to_owned(),
            version: version.to_owned(),
            gpu: TunedGpu {
                name: device.name.clone(),
                uuid: device.uuid.clone(),
                compute_capability: device.compute_capability,
            },
            dtype: dtype.name().to_owned(),
            model: model.to_owned(),
            entries: Vec::new(),
        }
    }

    /// Where it lies if nobody says otherwise: `tuning/UUID-DTYPE.json` in this user's cache; nowhere for a user without a home.
    pub fn default_path(device: &Device, dtype: DType) -> Option<PathBuf> {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        };
        let uuid: String = device.uuid.chars().map(plain).collect();
        let folder = stepscope_device::nvrtc::cache_folder()?;
        Some(folder.join("tuning").join(format!("{uuid}-{dtype}.json")))
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is not there, or is no such document.
    pub fn read(path: &Path) -> Result<TuningFile, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Its table, for this program on this device.
    ///
    /// # Errors
    /// Why it is not taken: another version, GPU or storage type, or an entry that this program does not understand.
    pub fn tuning(&self, version: &str, device: &Device, dtype: DType) -> Result<Tuning, String> {
        if self.schema != SCHEMA {
            return Err(format!("its schema is {}, not {SCHEMA}", self.schema));
        }
        if self.version != version {
            return Err(format!(
                "version {} of this program measured it, and this is {version}; run `stepscope tune` again",
                self.version
            ));
        }
        if self.gpu.uuid != device.uuid || self.gpu.compute_capability != device.compute_capability
        {
            return Err(format!(
                "it is for {} ({}), and this is {} ({})",
                self.gpu.name, self.gpu.uuid, device.name, device.uuid
            ));
        }
        if self.dtype != dtype.name() {
            return Err(format!(
                "it is for {}, and the model runs in {dtype}",
                self.dtype
            ));
        }
        let entries = self.entries.iter().map(Entry::tuned);
        let entries: Vec<Tuned> = entries.collect::<Result<_, _>>()?;
        Tuning::new(&entries).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations;
    use crate::testing::emulated;

    fn file(device: &Device) -> TuningFile {
        let gemm = operations::find("gemm")
            .unwrap()
            .shape("M=64,N=128,K=512")
            .unwrap();
        TuningFile {
            entries: vec![Entry::new("gemm", &gemm, "gemm_mma_64x64 / 2")],
            ..TuningFile::new("1.2.3", device, DType::BF16, "tiny")
        }
    }

    #[test]
    fn a_table_is_taken_only_where_it_was_measured() {
        let Some((cuda, _turn)) = emulated() else {
            return;
        };
        let device = cuda.context().device();
        let good = file(device);
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<TuningFile>(&text).unwrap(), good);
        assert_eq!(good.tuning("1.2.3", device, DType::BF16).unwrap().len(), 1);
        let check = |change: fn(&mut TuningFile), expected: &str| {
            let mut file = good.clone();
            change(&mut file);
            let why = file.tuning("1.2.3", device, DType::BF16).unwrap_err();
            assert!(why.starts_with(expected), "{why}");
        };
        check(|f| f.schema = "x/9".to_owned(), "its schema is x/9");
        check(
            |f| f.version = "0.1.0".to_owned(),
            "version 0.1.0 of this program measured it, and this is 1.2.3",
        );
        check(|f| f.gpu.uuid = "GPU-1".to_owned(), "it is for ");
        check(
            |f| f.dtype = "float16".to_owned(),
            "it is for float16, and the model runs in bfloat16",
        );
        check(
            |f| f.entries[0].variant = "gemm_wgmma".to_owned(),
            "gemm M=64,N=128,K=512 has no variant",
        );
        check(
            |f| f.entries[0].operation = "silu_mul".to_owned(),
            "silu_mul has no variants",
        );
        check(
            |f| {
                f.entries[0].shape.remove("K");
            },
            "an entry for gemm has no K",
        );
    }

    #[test]
    fn operations_with_variants_list_them() {
        let check = |operation: &str, shape: &str, wanted: &[&str]| {
            let shape = operations::find(operation).unwrap().shape(shape).unwrap();
            let all = variants(operation, &shape);
            for name in wanted {
                assert!(all.iter().any(|known| known == name), "{name}: {all:?}");
            }
        };
        check(
            "gemm",
            "M=1,N=4096,K=4096",
            &["gemv 2 rows 4 warps", "gemm_skinny 8", "gemm_mma_64x64"],
        );
        check("gemm", "M=64,N=4096,K=4096", &["gemm_mma_128x64 / 4"]);
        check("attention_decode", "kv_len=1024", &["1", "8"]);
    }
}
