use bytes::Bytes;
use half::{bf16, f16};

use crate::DType;
use crate::error::{Error, ErrorKind};

/// A tensor in host memory, row-major, in its own data type.
///
/// The bytes are shared and may be a mapped file: cloning or slicing a tensor copies nothing.
#[derive(Debug, Clone)]
pub struct HostTensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// The elements of a [`HostTensor`].
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
}

/// Keeps a typed vector alive behind `Bytes`.
struct Typed<T>(Vec<T>);

impl<T: bytemuck::NoUninit> AsRef<[u8]> for Typed<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// `bytes`, a whole number of `T`, where a `T` may lie.
fn aligned_copy<T: bytemuck::Pod + Send>(bytes: &[u8]) -> Bytes {
    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
    Bytes::from_owner(Typed(values))
}

impl HostTensor {
    /// A tensor over `bytes` (little endian, row-major). Bytes that are not aligned for `dtype` are copied once.
    ///
    /// # Errors
    /// When the length of `bytes` is not that of `shape` in `dtype`.
    pub fn new(dtype: DType, shape: &[usize], bytes: Bytes) -> Result<HostTensor, Error> {
        let needed = shape
            .iter()
            .try_fold(dtype.size() as u128, |n, &d| n.checked_mul(d as u128))
            .unwrap_or(u128::MAX);
        if needed != bytes.len() as u128 {
            return Err(ErrorKind::Length {
                shape: shape.to_vec(),
                dtype,
                needed,
                given: bytes.len(),
            }
            .into());
        }
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(dtype.size());
        let bytes = match (aligned, dtype) {
            (true, _) => bytes,
            (false, DType::F32) => aligned_copy::<f32>(&bytes),
            (false, _) => aligned_copy::<u16>(&bytes),
        };
        Ok(HostTensor {
            dtype,
            shape: shape.to_vec(),
            bytes,
        })
    }

    /// A float32 tensor that owns `values`.
    pub fn from_f32(shape: &[usize], values: Vec<f32>) -> Result<HostTensor, Error> {
        HostTensor::new(DType::F32, shape, Bytes::from_owner(Typed(values)))
    }

    /// A float16 tensor that owns `values`.
    pub fn from_f16(shape: &[usize], values: Vec<f16>) -> Result<HostTensor, Error> {
        HostTensor::new(DType::F16, shape, Bytes::from_owner(Typed(values)))
    }

    /// A bfloat16 tensor that owns `values`.
    pub fn from_bf16(shape: &[usize], values: Vec<bf16>) -> Result<HostTensor, Error> {
        HostTensor::new(DType::BF16, shape, Bytes::from_owner(Typed(values)))
    }

    /// `values` rounded to nearest even in `dtype`.
    pub fn from_f32_as(
        dtype: DType,
        shape: &[usize],
        values: Vec<f32>,
    ) -> Result<HostTensor, Error> {
        match dtype {
            DType::F32 => HostTensor::from_f32(shape, values),
            DType::F16 => {
                HostTensor::from_f16(shape, values.into_iter().map(f16::from_f32).collect())
            }
            DType::BF16 => {
                HostTensor::from_bf16(shape, values.into_iter().map(bf16::from_f32).collect())
            }
        }
    }

    /// How elements are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The stored bytes, little endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements.
    pub fn values(&self) -> Values<'_> {
        // The casts cannot fail: `new` checked length and alignment, and no method changes `bytes` but by whole rows.
        match self.dtype {
            DType::F32 => Values::F32(bytemuck::cast_slice(&self.bytes)),
            DType::F16 => Values::F16(bytemuck::cast_slice(&self.bytes)),
            DType::BF16 => Values::BF16(bytemuck::cast_slice(&self.bytes)),
        }
    }

    /// The elements widened to float32, in a new vector.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.values() {
            Values::F32(v) => v.to_vec(),
            Values::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Values::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
        }
    }

    /// The same tensor stored as `dtype`; copies nothing when it already is.
    pub fn to_dtype(&self, dtype: DType) -> Result<HostTensor, Error> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        HostTensor::from_f32_as(dtype, &self.shape, self.to_f32())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_length_names_shape_and_bytes() {
        let error =
            HostTensor::new(DType::BF16, &[2, 3], Bytes::from_static(&[0; 11])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a tensor of shape [2, 3] in bfloat16 needs 12 bytes, but 11 bytes were given"
        );
    }

    #[test]
    fn an_absurd_shape_is_refused_without_overflow() {
        let shape = [usize::MAX, usize::MAX, usize::MAX];
        assert!(HostTensor::new(DType::F32, &shape, Bytes::new()).is_err());
    }

    #[test]
    fn unaligned_bytes_keep_their_values() {
        let mut raw = vec![0_u8];
        raw.extend(1.5_f32.to_le_bytes());
        raw.extend((-2.0_f32).to_le_bytes());
        for start in [1, 1 + 4] {
            let bytes = Bytes::from(raw.clone()).slice(start..);
            let n = bytes.len() / 4;
            let tensor = HostTensor::new(DType::F32, &[n], bytes).unwrap();
            assert_eq!(tensor.to_f32(), [1.5, -2.0][2 - n..]);
        }
    }

    #[test]
    fn narrowing_rounds_to_nearest_even() {
        let value = f32::from_bits(0x3f80_8000); // halfway between two bfloat16 values; the even one is 1.0
        let tensor = HostTensor::from_f32(&[1], vec![value]).unwrap();
        assert_eq!(tensor.to_dtype(DType::BF16).unwrap().to_f32(), [1.0]);
    }
}
