//! From stored tensors to weights: mapped where they are stored as they are wanted, converted otherwise.

use std::hint::black_box;
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use stepscope_kernels::{DType, HostTensor};

use super::encoding::{Element, Encoding};
use super::file::{ModelFile, shown};
use super::weights::TensorId;
use super::{ModelConfig, Progress, Weights, memory};
use crate::error::Error;

/// Numbers that a thread converts at a time: their float32 form stays in its second-level cache.
const CHUNK_LEN: usize = 1 << 16;
/// Bytes of a mapping that a thread reads in at a time.
const TOUCH_BYTES: usize = 1 << 21;
const PAGE_BYTES: usize = 4096;

/// Files of weights, their headers read.
pub(crate) trait Checkpoint {
    /// What a tensor is called here.
    fn name_of(&self, id: TensorId) -> String;
    /// Where a tensor lies, if it is here.
    fn find(&self, id: TensorId) -> Result<Option<StoredTensor<'_>>, Error>;
    /// Where a tensor that is nowhere should have been.
    fn origin(&self) -> &Path;
    /// What says of which shape tensors must be.
    fn described_by(&self) -> &'static str;
}

/// A tensor in a file.
#[derive(Debug)]
pub(crate) struct StoredTensor<'a> {
    pub(crate) file: &'a ModelFile,
    pub(crate) name: String,
    /// Its bytes: within the file, and as many as shape and encoding need.
    pub(crate) range: Range<usize>,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
    pub(crate) encoding: Encoding,
    /// The rows of each head of this length are interleaved: `0, d/2, 1, d/2 + 1, …` (GGUF's Llama).
    pub(crate) interleaved_head_dim: Option<usize>,
}

/// The weights of a model, and how they came to be in memory.
#[derive(Debug)]
pub(crate) struct Loaded<W = Weights> {
    pub(crate) weights: W,
    pub(crate) weight_bytes: u64,
    pub(crate) mapped_bytes: u64,
}

impl Loaded {
    /// The same, where there might be none.
    pub(crate) fn held(self) -> Loaded<Option<Weights>> {
        Loaded {
            weights: Some(self.weights),
            weight_bytes: self.weight_bytes,
            mapped_bytes: self.mapped_bytes,
        }
    }
}

/// Loads what `config` asks for, stored as `dtype`. All tensors are checked before the first is read.
pub(crate) fn load_weights(
    config: &ModelConfig,
    dtype: DType,
    checkpoint: &dyn Checkpoint,
    progress: &dyn Progress,
) -> Result<Loaded, Error> {
    let find = |id: TensorId| {
        let expected = config.shape_of(id.role);
        let tensor = checkpoint.find(id)?.ok_or_else(|| {
            Error::input(format!(
                "{}: tensor {} (shape {expected:?}) is missing, which {} asks for: the weights are incomplete or of another model",
                checkpoint.origin().display(),
                checkpoint.name_of(id),
                checkpoint.described_by(),
            ))
        })?;
        tensor.require_shape(&expected, checkpoint.described_by())?;
        Ok::<_, Error>(tensor)
    };

    let (mut stored_bytes, mut weight_bytes, mut mapped_bytes) = (0, 0, 0);
    for id in config.tensors() {
        let tensor = find(id)?;
        let bytes = (tensor.len() * dtype.size()) as u64;
        stored_bytes += tensor.range.len() as u64;
        weight_bytes += bytes;
        if tensor.is_mapped_as(dtype) {
            mapped_bytes += bytes;
        }
    }
    memory::require(weight_bytes - mapped_bytes, "the weights")?;

    progress.begin("loading weights", stored_bytes);
    let weights = Weights::build(config, |id| find(id)?.load(dtype, progress));
    progress.finish();
    Ok(Loaded {
        weights: weights?,
        weight_bytes,
        mapped_bytes,
    })
}

impl StoredTensor<'_> {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// An error unless the tensor has the shape that `described_by` asks for.
    pub(crate) fn require_shape(
        &self,
        expected: &[usize],
        described_by: &str,
    ) -> Result<(), Error> {
        if self.shape == expected {
            return Ok(());
        }
        Err(Error::input(format!(
            "{}: tensor {} has shape {:?}, but {described_by} asks for {expected:?}: they belong to different models",
            self.file.path.display(),
            shown(&self.name),
            self.shape
        )))
    }

    /// Whether the stored bytes can be used as they lie.
    pub(crate) fn is_mapped_as(&self, dtype: DType) -> bool {
        let address = self.file.bytes().as_ptr() as usize + self.range.start;
        self.encoding == Encoding::Plain(dtype)
            && self.interleaved_head_dim.is_none()
            && address.is_multiple_of(dtype.size())
    }

    /// The tensor, stored as `dtype`.
    pub(crate) fn load(&self, dtype: DType, progress: &dyn Progress) -> Result<HostTensor, Error> {
        if self.is_mapped_as(dtype) {
            let bytes = self.file.slice(self.range.clone());
            read_in(&bytes, progress);
            return Ok(HostTensor::new(dtype, &self.shape, bytes)?);
        }
        Ok(match dtype {
            DType::F32 => HostTensor::from_f32(&self.shape, self.convert::<f32>(progress)?)?,
            DType::F16 => HostTensor::from_f16(&self.shape, self.convert::<f16>(progress)?)?,
            DType::BF16 => HostTensor::from_bf16(&self.shape, self.convert::<bf16>(progress)?)?,
        })
    }

    /// The numbers as float32.
    pub(crate) fn read_f32(&self) -> Result<Vec<f32>, Error> {
        self.convert(&super::NoProgress)
    }

    fn convert<T: Element>(&self, progress: &dyn Progress) -> Result<Vec<T>, Error> {
        let mut out = memory::zeroed(self.len(), || format!("tensor {}", self.name))?;
        let rows = self.rows();
        let row_bytes = self.range.len() / rows.count;
        let convert_chunk = |(raw, values): &mut (Vec<u8>, Vec<f32>),
                             (chunk, out): (usize, &mut [T])| {
            let count = out.len() / rows.len;
            raw.resize(count * row_bytes, 0);
            values.resize(out.len(), 0.0);
            self.file
                .read_at(self.range.start + chunk * rows.per_chunk * row_bytes, raw)?;
            self.encoding.decode(raw, values);
            for (row, out) in out.chunks_mut(rows.len).enumerate() {
                let from = rows.source(row) * rows.len;
                T::narrow(&values[from..from + rows.len], out);
            }
            progress.advance(raw.len() as u64);
            Ok(())
        };
        out.par_chunks_mut(rows.per_chunk * rows.len)
            .enumerate()
            .try_for_each_init(Default::default, convert_chunk)
            .map(|()| out)
    }

    /// How the tensor is cut for conversion. A permuted vector has rows of one element.
    fn rows(&self) -> Rows {
        let len = match (self.shape.as_slice(), self.interleaved_head_dim) {
            ([_], Some(_)) => 1,
            (shape, _) => shape.last().copied().unwrap_or(1),
        };
        let at_once = (CHUNK_LEN / len).max(1);
        Rows {
            len,
            count: self.len() / len,
            per_chunk: match self.interleaved_head_dim {
                Some(d) => at_once.next_multiple_of(d),
                None => at_once,
            },
            interleaved_head_dim: self.interleaved_head_dim,
        }
    }
}

/// A tensor as rows, and chunks of rows that are converted together.
struct Rows {
    /// Numbers in a row.
    len: usize,
    count: usize,
    /// Rows in a chunk; whole heads where rows of heads are interleaved.
    per_chunk: usize,
    interleaved_head_dim: Option<usize>,
}

impl Rows {
    /// Which stored row of a chunk becomes its row `row`. Stored row `2 i + j` of a head is row `j d / 2 + i` of it.
    fn source(&self, row: usize) -> usize {
        match self.interleaved_head_dim {
            None => row,
            Some(d) => {
                let (head, row) = (row / d, row % d);
                head * d + 2 * (row % (d / 2)) + row / (d / 2)
            }
        }
    }
}

/// Brings mapped bytes into memory, so that the first step does not wait for the disk.
fn read_in(bytes: &[u8], progress: &dyn Progress) {
    bytes.par_chunks(TOUCH_BYTES).for_each(|chunk| {
        black_box(
            chunk
                .iter()
                .step_by(PAGE_BYTES)
                .fold(0, |all, byte| all ^ byte),
        );
        progress.advance(chunk.len() as u64);
    });
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::NoProgress;

    fn file_of(values: &[f32]) -> ModelFile {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        ModelFile::from_bytes(Path::new("test"), Bytes::from(bytes)).unwrap()
    }

    fn load(file: &ModelFile, shape: &[usize], head_dim: Option<usize>) -> Vec<f32> {
        StoredTensor {
            file,
            name: "t".to_owned(),
            range: 0..file.bytes().len(),
            shape: shape.to_vec(),
            encoding: Encoding::Plain(DType::F32),
            interleaved_head_dim: head_dim,
        }
        .load(DType::F32, &NoProgress)
        .unwrap()
        .to_f32()
    }

    #[test]
    fn interleaved_heads_come_apart() {
        // Two heads of four rows; each row holds its own number twice.
        let stored = [0, 2, 1, 3, 4, 6, 5, 7].map(|row| [row as f32; 2]).concat();
        let wanted = (0..8)
            .map(|row| [row as f32; 2])
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(load(&file_of(&stored), &[8, 2], Some(4)), wanted);
    }

    #[test]
    fn an_interleaved_vector_comes_apart() {
        let file = file_of(&[0.0, 2.0, 1.0, 3.0]);
        assert_eq!(load(&file, &[4], Some(4)), [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn every_row_of_a_tensor_beyond_one_chunk_is_converted() {
        let (rows, cols) = (1000, 300);
        let values: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
        let file = file_of(&values);
        let tensor = StoredTensor {
            file: &file,
            name: "t".to_owned(),
            range: 0..file.bytes().len(),
            shape: vec![rows, cols],
            encoding: Encoding::Plain(DType::F32),
            interleaved_head_dim: None,
        };
        let found = tensor.load(DType::BF16, &NoProgress).unwrap();
        for (i, (found, value)) in found.to_f32().into_iter().zip(values).enumerate() {
            assert_eq!(found, bf16::from_f32(value).to_f32(), "element {i}");
        }
    }
}
