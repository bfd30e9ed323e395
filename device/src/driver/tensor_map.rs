//! Descriptions of tensors for the Tensor Memory Accelerator.

use std::mem::MaybeUninit;

use cudarc::driver::sys::{
    CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle,
};

use super::{Context, DevicePointer};
use crate::Error;

/// What a kernel takes to copy tiles of a tensor by TMA: 128 bytes, passed as a `__grid_constant__` parameter.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct TensorMap(CUtensorMap);

impl TensorMap {
    /// Its 128 bytes, for [`Function::launch_with_bytes`](super::Function::launch_with_bytes).
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0
            .opaque
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }
}

impl std::fmt::Debug for TensorMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TensorMap")
    }
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// Bytes; also for 8-bit floating point.
    U8,
    /// 16-bit integers.
    U16,
    /// 32-bit integers.
    U32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE single precision.
    F32,
}

/// How the 16-byte pieces of a tile's rows are permuted in shared memory, so that columns do not meet in the same banks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Swizzle {
    /// Not at all.
    #[default]
    None,
    /// Within 32 bytes.
    Bytes32,
    /// Within 64 bytes.
    Bytes64,
    /// Within 128 bytes.
    Bytes128,
}

/// A tensor in device memory and the tile that one copy moves. The innermost dimension comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// The type of the elements.
    pub element: ElementType,
    /// The tensor's first element; a multiple of 16.
    pub address: DevicePointer,
    /// Elements of the tensor in each dimension.
    pub extents: Vec<u64>,
    /// Bytes from one element to the next in each dimension but the first, where they are adjacent; multiples of 16.
    pub strides_bytes: Vec<u64>,
    /// Elements of a tile in each dimension, 256 at most.
    pub tile: Vec<u32>,
    /// How the tile lies in shared memory.
    pub swizzle: Swizzle,
}

impl ElementType {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            ElementType::U8 => 1,
            ElementType::U16 | ElementType::F16 | ElementType::BF16 => 2,
            ElementType::U32 | ElementType::F32 => 4,
        }
    }

    fn raw(self) -> CUtensorMapDataType {
        match self {
            ElementType::U8 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            ElementType::U16 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT16,
            ElementType::U32 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT32,
            ElementType::F16 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            ElementType::BF16 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            ElementType::F32 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        }
    }
}

impl Swizzle {
    /// The most bytes that a row of the tile may have.
    fn span(self) -> Option<u64> {
        match self {
            Swizzle::None => None,
            Swizzle::Bytes32 => Some(32),
            Swizzle::Bytes64 => Some(64),
            Swizzle::Bytes128 => Some(128),
        }
    }

    fn raw(self) -> CUtensorMapSwizzle {
        match self {
            Swizzle::None => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            Swizzle::Bytes32 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            Swizzle::Bytes64 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            Swizzle::Bytes128 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        }
    }
}

impl Tile {
    /// What the rules of `cuTensorMapEncodeTiled` in CUDA's driver API forbid about it; the driver itself answers with "invalid
    /// value" whatever the reason.
    pub fn complaint(&self) -> Option<String> {
        let rank = self.extents.len();
        if !(1..=5).contains(&rank) {
            return Some(format!("{rank} dimensions; there can be 1 to 5"));
        }
        if self.tile.len() != rank || self.strides_bytes.len() != rank - 1 {
            return Some(format!(
                "{rank} extents need as many tile sizes and one stride less, but there are {} and {}",
                self.tile.len(),
                self.strides_bytes.len()
            ));
        }
        if !self.address.0.is_multiple_of(16) {
            return Some(format!(
                "address {:#x} is no multiple of 16",
                self.address.0
            ));
        }
        if let Some(extent) = self
            .extents
            .iter()
            .find(|extent| !(1..=1 << 32).contains(*extent))
        {
            return Some(format!("an extent of {extent}; it can be 1 to 2^32"));
        }
        if let Some(size) = self.tile.iter().find(|size| !(1..=256).contains(*size)) {
            return Some(format!("a tile size of {size}; it can be 1 to 256"));
        }
        if let Some(stride) = self
            .strides_bytes
            .iter()
            .find(|stride| !stride.is_multiple_of(16) || **stride >= 1 << 40)
        {
            return Some(format!(
                "a stride of {stride} bytes; it must be a multiple of 16 below 2^40"
            ));
        }
        let row = u64::from(self.tile[0]) * self.element.bytes();
        if !row.is_multiple_of(16) {
            return Some(format!(
                "rows of {row} bytes in the tile; they must be multiples of 16"
            ));
        }
        match self.swizzle.span() {
            Some(span) if row > span => Some(format!(
                "rows of {row} bytes in the tile, but the swizzle spans {span}"
            )),
            _ => None,
        }
    }

    /// Makes the description that kernels take. Elements beyond the tensor read as zero.
    ///
    /// # Errors
    /// The rules forbid it, or the driver is older than TMA.
    pub fn encode(&self, context: &Context) -> Result<TensorMap, Error> {
        if let Some(complaint) = self.complaint() {
            return Err(Error::arguments(format!("a tensor map with {complaint}")));
        }
        let mut map = MaybeUninit::<CUtensorMap>::zeroed();
        let element_strides = [1_u32; 5];
        let rank = self.extents.len() as u32; // 5 at most
        // SAFETY: the context is current; the arrays have as many entries as the rank asks for; the map is of the size and
        // alignment that cuda.h gives it.
        unsafe {
            context.bound()?.cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                self.element.raw(),
                rank,
                std::ptr::without_provenance_mut(self.address.0 as usize),
                self.extents.as_ptr(),
                self.strides_bytes.as_ptr(),
                self.tile.as_ptr(),
                element_strides.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                self.swizzle.raw(),
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )?;
        }
        // SAFETY: the map is an array of integers, zeroed before the driver wrote it.
        Ok(TensorMap(unsafe { map.assume_init() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile() -> Tile {
        Tile {
            element: ElementType::BF16,
            address: DevicePointer(0x1000),
            extents: vec![4096, 128],
            strides_bytes: vec![8192],
            tile: vec![64, 128],
            swizzle: Swizzle::Bytes128,
        }
    }

    #[test]
    fn each_rule_is_named_with_the_value() {
        let check = |change: &dyn Fn(&mut Tile), expected: Option<&str>| {
            let mut tile = tile();
            change(&mut tile);
            assert_eq!(tile.complaint().as_deref(), expected);
        };
        check(&|_| (), None);
        check(
            &|t| t.address.0 = 0x1008,
            Some("address 0x1008 is no multiple of 16"),
        );
        check(
            &|t| t.tile[1] = 257,
            Some("a tile size of 257; it can be 1 to 256"),
        );
        check(
            &|t| t.tile[0] = 128,
            Some("rows of 256 bytes in the tile, but the swizzle spans 128"),
        );
        check(
            &|t| t.tile[0] = 4,
            Some("rows of 8 bytes in the tile; they must be multiples of 16"),
        );
        check(
            &|t| t.strides_bytes[0] = 100,
            Some("a stride of 100 bytes; it must be a multiple of 16 below 2^40"),
        );
        check(
            &|t| t.extents[0] = 0,
            Some("an extent of 0; it can be 1 to 2^32"),
        );
        check(
            &|t| t.extents.push(3),
            Some("3 extents need as many tile sizes and one stride less, but there are 2 and 1"),
        );
    }

    #[test]
    fn a_map_is_what_cuda_h_says() {
        assert_eq!(size_of::<TensorMap>(), 128);
        assert_eq!(align_of::<TensorMap>() % 64, 0);
    }
}
