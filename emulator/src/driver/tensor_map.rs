//! Tensor maps, in the emulator's own layout: NVIDIA's is not public, and programs only carry them around.

use super::abi::functions;
use super::argument::{In, Out};
use super::context::Context;
use super::report::complain;
use super::status::Status;
use super::types::TensorMapWords;
use crate::tma::map::{MAP_ALIGNMENT, TensorMap, TiledArguments, check_rank};

/// `cuTensorMapEncodeTiled` and its kind are there from this compute capability on.
const SINCE: u32 = 9;

/// A refusal with its reason, which the C function has no place for.
fn refused(message: String) -> Status {
    complain(&format!("cuTensorMapEncodeTiled: {message}"));
    Status::INVALID_VALUE
}

fn check_device() -> Result<(), Status> {
    let context = Context::current()?;
    if context.gpu.device.options().compute_capability.0 < SINCE {
        return Err(Status::NOT_SUPPORTED);
    }
    Ok(())
}

functions! {
    fn cuTensorMapEncodeTiled(
        map: Out<TensorMapWords>, data_type: u32, rank: u32, address: u64, extents: In<u64>, strides: In<u64>,
        tile: In<u32>, element_strides: In<u32>, interleave: u32, swizzle: u32, promotion: u32, fill: u32,
    ) {
        check_device()?;
        if !map.is_aligned_to(MAP_ALIGNMENT as usize) {
            return Err(refused(format!("the map is not aligned to {MAP_ALIGNMENT} bytes")));
        }
        let rank = check_rank(rank).map_err(refused)?;
        let encoded = TensorMap::encode(&TiledArguments {
            data_type,
            address,
            extents: &extents.list(rank)?,
            strides: &strides.list(rank - 1)?,
            tile: &tile.list(rank)?,
            element_strides: &element_strides.list(rank)?,
            interleave,
            swizzle,
            promotion,
            fill,
        });
        map.set(TensorMapWords(encoded.map_err(refused)?.to_words()))
    }

    fn cuTensorMapReplaceAddress(map: Out<TensorMapWords>, address: u64) {
        check_device()?;
        let mut known = TensorMap::from_words(&map.get()?.0).ok_or(Status::INVALID_VALUE)?;
        // What the alignment of the address must be is decided again for the whole map.
        known.address = address;
        let words = known.to_words();
        TensorMap::from_words(&words).ok_or(Status::INVALID_VALUE)?;
        map.set(TensorMapWords(words))
    }
}
