//! Tensor maps: a tensor in global memory, and the tile that one copy moves.

use super::element::{ElementType, Fill};
use super::swizzle::Swizzle;

/// Dimensions that a tensor can have.
pub(crate) const MAX_RANK: usize = 5;

/// Bytes that the address of a tensor map must be a multiple of when it is encoded.
pub(crate) const MAP_ALIGNMENT: u64 = 64;

/// How much of what a copy touches L2 fetches from DRAM; changes nothing that a kernel can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Promotion {
    #[default]
    None,
    Bytes64,
    Bytes128,
    Bytes256,
}

/// A tensor in global memory and the tile that one copy moves. The innermost dimension comes first; of dimensions beyond the rank,
/// extent, tile and element stride are 1 and the stride is 0.
///
/// Interleaved layouts (`CU_TENSOR_MAP_INTERLEAVE_16B` and `_32B`) are refused when a map is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TensorMap {
    pub(crate) element: ElementType,
    /// 1 to 5.
    pub(crate) rank: u32,
    /// The first element, in global memory.
    pub(crate) address: u64,
    /// Elements of the tensor.
    pub(crate) extents: [u64; MAX_RANK],
    /// Bytes from one element to the next; the first is the element's size.
    pub(crate) strides: [u64; MAX_RANK],
    /// Elements that the tile spans, counting those that element strides skip.
    pub(crate) tile: [u32; MAX_RANK],
    /// Of so many neighbours in the tile, one is copied. The first is ignored: the innermost dimension has no steps.
    pub(crate) element_strides: [u32; MAX_RANK],
    pub(crate) swizzle: Swizzle,
    pub(crate) promotion: Promotion,
    pub(crate) fill: Fill,
}

/// What `cuTensorMapEncodeTiled` is called with: its enums as numbers, its arrays with the length that the rank gives them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TiledArguments<'a> {
    /// `tensorDataType`
    pub(crate) data_type: u32,
    /// `globalAddress`
    pub(crate) address: u64,
    /// `globalDim`, of as many entries as the tensor has dimensions
    pub(crate) extents: &'a [u64],
    /// `globalStrides`, of one less
    pub(crate) strides: &'a [u64],
    /// `boxDim`
    pub(crate) tile: &'a [u32],
    /// `elementStrides`
    pub(crate) element_strides: &'a [u32],
    /// `interleave`
    pub(crate) interleave: u32,
    /// `swizzle`
    pub(crate) swizzle: u32,
    /// `l2Promotion`
    pub(crate) promotion: u32,
    /// `oobFill`
    pub(crate) fill: u32,
}

/// The rank as a length, for who must know it before the arrays can be read.
pub(crate) fn check_rank(rank: u32) -> Result<usize, String> {
    match rank as usize {
        rank @ 1..=MAX_RANK => Ok(rank),
        _ => Err(format!("tensorRank is {rank}; it can be 1 to {MAX_RANK}")),
    }
}

impl TensorMap {
    /// The map, or which argument breaks which rule of `cuTensorMapEncodeTiled` (CUDA driver API, "Tensor Map Object Management").
    ///
    /// Strides need not grow from dimension to dimension: the documentation derives them so, but does not demand it, and tensors
    /// with permuted dimensions or overlapping rows depend on it.
    pub(crate) fn encode(arguments: &TiledArguments<'_>) -> Result<Self, String> {
        let rank = check_rank(u32::try_from(arguments.extents.len()).unwrap_or(u32::MAX))?;
        if arguments.strides.len() != rank - 1
            || arguments.tile.len() != rank
            || arguments.element_strides.len() != rank
        {
            return Err(format!(
                "tensorRank is {rank}, but globalStrides has {} entries, boxDim {} and elementStrides {}",
                arguments.strides.len(),
                arguments.tile.len(),
                arguments.element_strides.len()
            ));
        }
        let element = ElementType::from_number(arguments.data_type).ok_or_else(|| {
            format!(
                "tensorDataType is {}; this device knows 0 to 12",
                arguments.data_type
            )
        })?;
        let swizzle = Swizzle::from_tensor_map(arguments.swizzle)
            .ok_or_else(|| format!("swizzle is {}; this device knows 0 to 3", arguments.swizzle))?;
        let promotion = match arguments.promotion {
            0 => Promotion::None,
            1 => Promotion::Bytes64,
            2 => Promotion::Bytes128,
            3 => Promotion::Bytes256,
            other => return Err(format!("l2Promotion is {other}; it can be 0 to 3")),
        };
        let fill = match arguments.fill {
            0 => Fill::Zeros,
            1 if element.is_float() => Fill::Nan,
            1 => {
                return Err(format!(
                    "oobFill asks for NaN, but tensorDataType {element:?} is no floating-point type"
                ));
            }
            other => return Err(format!("oobFill is {other}; it can be 0 or 1")),
        };
        check_interleave(arguments, rank, swizzle)?;
        check_geometry(arguments, element, swizzle)?;
        if arguments.interleave != 0 {
            return Err(format!(
                "interleave is {}; this device emulates only CU_TENSOR_MAP_INTERLEAVE_NONE",
                arguments.interleave
            ));
        }
        let mut map = Self {
            element,
            rank: rank as u32, // 5 at most
            address: arguments.address,
            extents: [1; MAX_RANK],
            strides: [0; MAX_RANK],
            tile: [1; MAX_RANK],
            element_strides: [1; MAX_RANK],
            swizzle,
            promotion,
            fill,
        };
        map.extents[..rank].copy_from_slice(arguments.extents);
        map.strides[0] = u64::from(element.bytes());
        map.strides[1..rank].copy_from_slice(arguments.strides);
        map.tile[..rank].copy_from_slice(arguments.tile);
        map.element_strides[..rank].copy_from_slice(arguments.element_strides);
        Ok(map)
    }
}

fn check_interleave(
    arguments: &TiledArguments<'_>,
    rank: usize,
    swizzle: Swizzle,
) -> Result<(), String> {
    match arguments.interleave {
        0 => return Ok(()),
        1 | 2 => {}
        other => return Err(format!("interleave is {other}; it can be 0 to 2")),
    }
    if rank < 3 {
        return Err(format!(
            "tensorRank is {rank}; with interleave it must be at least 3"
        ));
    }
    if arguments.interleave == 2 && swizzle != Swizzle::Bytes32 {
        return Err(format!(
            "swizzle is {}; with an interleave of 32 bytes it must be CU_TENSOR_MAP_SWIZZLE_32B",
            arguments.swizzle
        ));
    }
    Ok(())
}

fn check_geometry(
    arguments: &TiledArguments<'_>,
    element: ElementType,
    swizzle: Swizzle,
) -> Result<(), String> {
    let alignment = if arguments.interleave == 2 { 32 } else { 16 };
    if !arguments.address.is_multiple_of(alignment) {
        return Err(format!(
            "globalAddress {:#x} is no multiple of {alignment}",
            arguments.address
        ));
    }
    for (dimension, &extent) in arguments.extents.iter().enumerate() {
        if !(1..=1 << 32).contains(&extent) {
            return Err(format!(
                "globalDim[{dimension}] is {extent}; it can be 1 to 2^32"
            ));
        }
    }
    for (dimension, &stride) in arguments.strides.iter().enumerate() {
        if !stride.is_multiple_of(alignment) || stride >= 1 << 40 {
            return Err(format!(
                "globalStrides[{dimension}] is {stride} bytes; it must be a multiple of {alignment} below 2^40"
            ));
        }
    }
    for (dimension, &elements) in arguments.tile.iter().enumerate() {
        if !(1..=256).contains(&elements) {
            return Err(format!(
                "boxDim[{dimension}] is {elements}; it can be 1 to 256"
            ));
        }
    }
    for (dimension, &stride) in arguments.element_strides.iter().enumerate() {
        if !(1..=8).contains(&stride) {
            return Err(format!(
                "elementStrides[{dimension}] is {stride}; it can be 1 to 8"
            ));
        }
    }
    if arguments.interleave != 0 {
        // The rules of the innermost dimension below are those of plain layouts.
        return Ok(());
    }
    let row = arguments.tile[0] * element.bytes();
    if !row.is_multiple_of(16) {
        return Err(format!(
            "boxDim[0] makes rows of {row} bytes; they must be multiples of 16"
        ));
    }
    match swizzle.span_bytes() {
        Some(span) if row > span => Err(format!(
            "boxDim[0] makes rows of {row} bytes, but the swizzle spans {span}"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A matrix of bf16, `[128, 4096]`, in tiles of `[64, 64]`.
    pub(crate) fn arguments() -> TiledArguments<'static> {
        TiledArguments {
            data_type: 9,
            address: 0x1000,
            extents: &[4096, 128],
            strides: &[8192],
            tile: &[64, 64],
            element_strides: &[1, 1],
            interleave: 0,
            swizzle: 3,
            promotion: 2,
            fill: 0,
        }
    }

    /// The same as an interleaved tensor of rank 3, legal but for not being emulated.
    fn interleaved() -> TiledArguments<'static> {
        TiledArguments {
            extents: &[4096, 128, 2],
            strides: &[8192, 1 << 20],
            tile: &[16, 8, 1],
            element_strides: &[1, 1, 1],
            interleave: 2,
            swizzle: 1,
            ..arguments()
        }
    }

    /// A legal call with one thing changed, and what is said about it.
    fn check(change: impl Fn(&mut TiledArguments<'static>), expected: &str) {
        let mut arguments = arguments();
        change(&mut arguments);
        assert_eq!(TensorMap::encode(&arguments).unwrap_err(), expected);
    }

    fn check_interleaved(change: impl Fn(&mut TiledArguments<'static>), expected: &str) {
        let mut arguments = interleaved();
        change(&mut arguments);
        assert_eq!(TensorMap::encode(&arguments).unwrap_err(), expected);
    }

    #[test]
    fn a_legal_map_holds_its_arguments() {
        let map = TensorMap::encode(&arguments()).unwrap();
        assert_eq!(
            map,
            TensorMap {
                element: ElementType::BF16,
                rank: 2,
                address: 0x1000,
                extents: [4096, 128, 1, 1, 1],
                strides: [2, 8192, 0, 0, 0],
                tile: [64, 64, 1, 1, 1],
                element_strides: [1; 5],
                swizzle: Swizzle::Bytes128,
                promotion: Promotion::Bytes128,
                fill: Fill::Zeros,
            }
        );
    }

    #[test]
    fn the_limits_are_legal() {
        TensorMap::encode(&TiledArguments {
            data_type: 0,
            extents: &[1 << 32; 5],
            strides: &[(1 << 40) - 16, 0, 16, 48],
            tile: &[256; 5],
            element_strides: &[8; 5],
            swizzle: 0,
            ..arguments()
        })
        .unwrap();
    }

    #[test]
    fn rank() {
        let zero = "tensorRank is 0; it can be 1 to 5";
        assert_eq!(check_rank(0), Err(zero.into()));
        assert_eq!(check_rank(5), Ok(5));
        check(|a| a.extents = &[], zero);
        check(|a| a.extents = &[1; 6], "tensorRank is 6; it can be 1 to 5");
        check(
            |a| a.extents = &[4096, 128, 2],
            "tensorRank is 3, but globalStrides has 1 entries, boxDim 2 and elementStrides 2",
        );
    }

    #[test]
    fn enumerations() {
        check(
            |a| a.data_type = 13,
            "tensorDataType is 13; this device knows 0 to 12",
        );
        check(|a| a.swizzle = 4, "swizzle is 4; this device knows 0 to 3");
        check(|a| a.promotion = 4, "l2Promotion is 4; it can be 0 to 3");
        check(|a| a.fill = 2, "oobFill is 2; it can be 0 or 1");
        check(|a| a.interleave = 3, "interleave is 3; it can be 0 to 2");
    }

    #[test]
    fn nan_needs_floats() {
        for (data_type, is_float) in (0..13).map(|number| (number, number >= 6)) {
            let size = ElementType::from_number(data_type).unwrap().bytes();
            let result = TensorMap::encode(&TiledArguments {
                data_type,
                tile: &[64 / size, 64],
                fill: 1,
                ..arguments()
            });
            assert_eq!(result.is_ok(), is_float, "{result:?}");
        }
        check(
            |a| (a.data_type, a.fill) = (1, 1),
            "oobFill asks for NaN, but tensorDataType U16 is no floating-point type",
        );
    }

    #[test]
    fn address() {
        check(
            |a| a.address = 0x1008,
            "globalAddress 0x1008 is no multiple of 16",
        );
        check_interleaved(
            |a| a.address = 0x1010,
            "globalAddress 0x1010 is no multiple of 32",
        );
    }

    #[test]
    fn extents() {
        check(
            |a| a.extents = &[4096, 0],
            "globalDim[1] is 0; it can be 1 to 2^32",
        );
        check(
            |a| a.extents = &[(1 << 32) + 1, 1],
            "globalDim[0] is 4294967297; it can be 1 to 2^32",
        );
    }

    #[test]
    fn strides() {
        check(
            |a| a.strides = &[100],
            "globalStrides[0] is 100 bytes; it must be a multiple of 16 below 2^40",
        );
        check(
            |a| a.strides = &[1 << 40],
            "globalStrides[0] is 1099511627776 bytes; it must be a multiple of 16 below 2^40",
        );
        check_interleaved(
            |a| a.strides = &[8192, 48],
            "globalStrides[1] is 48 bytes; it must be a multiple of 32 below 2^40",
        );
    }

    #[test]
    fn tile() {
        check(
            |a| a.tile = &[64, 257],
            "boxDim[1] is 257; it can be 1 to 256",
        );
        check(|a| a.tile = &[0, 64], "boxDim[0] is 0; it can be 1 to 256");
        check(
            |a| a.tile = &[4, 64],
            "boxDim[0] makes rows of 8 bytes; they must be multiples of 16",
        );
        for (swizzle, span) in [(1, 32), (2, 64), (3, 128)] {
            check(
                |a| (a.tile, a.swizzle) = (&[128, 64], swizzle),
                &format!("boxDim[0] makes rows of 256 bytes, but the swizzle spans {span}"),
            );
        }
    }

    #[test]
    fn element_strides() {
        check(
            |a| a.element_strides = &[1, 9],
            "elementStrides[1] is 9; it can be 1 to 8",
        );
        check(
            |a| a.element_strides = &[0, 1],
            "elementStrides[0] is 0; it can be 1 to 8",
        );
    }

    #[test]
    fn interleave() {
        check(
            |a| a.interleave = 1,
            "tensorRank is 2; with interleave it must be at least 3",
        );
        check_interleaved(
            |a| a.swizzle = 3,
            "swizzle is 3; with an interleave of 32 bytes it must be CU_TENSOR_MAP_SWIZZLE_32B",
        );
        check_interleaved(
            |_| (),
            "interleave is 2; this device emulates only CU_TENSOR_MAP_INTERLEAVE_NONE",
        );
    }
}
