//! Tiles that a copy writes and an instruction reads: the two sides know each other only through shared memory.

use proptest::prelude::*;

use super::element::ElementType;
use super::map::{TensorMap, TiledArguments};
use super::matrix::tests::{cute_swizzle, operand};
use super::matrix::{Major, MatrixDescriptor};
use super::swizzle::Swizzle;
use super::tile::{check_store, runs};

/// Each with so many bits as its place says.
const SWIZZLES: [Swizzle; 4] = [
    Swizzle::None,
    Swizzle::Bytes32,
    Swizzle::Bytes64,
    Swizzle::Bytes128,
];

/// A tensor at 0x1000 whose map has nothing special.
pub(crate) fn map(
    data_type: u32,
    extents: &[u64],
    strides: &[u64],
    tile: &[u32],
    swizzle: u32,
) -> TensorMap {
    TensorMap::encode(&TiledArguments {
        data_type,
        address: 0x1000,
        extents,
        strides,
        tile,
        element_strides: &[1; 5][..extents.len()],
        interleave: 0,
        swizzle,
        promotion: 0,
        fill: 0,
    })
    .unwrap()
}

/// Any legal map of a tensor and a tile of moderate size.
pub(crate) fn any_map() -> impl Strategy<Value = TensorMap> {
    (
        (
            0..13_u32,
            1..=5_usize,
            0..0x1000_0000_u64,
            0..4_u32,
            0..4_u32,
            any::<bool>(),
        ),
        prop::array::uniform5(1..70_u64),
        prop::array::uniform4(0..1000_u64),
        (1..=8_u32, prop::array::uniform4(1..=6_u32)),
        prop::array::uniform5(1..=8_u32),
    )
        .prop_map(
            |(numbers, extents, strides, (chunks, tile), element_strides)| {
                let (data_type, rank, address, swizzle, promotion, has_nan) = numbers;
                let element = ElementType::from_number(data_type).unwrap();
                let chunks = chunks.min([8, 2, 4, 8][swizzle as usize]);
                let row = chunks * 16 / element.bytes();
                let tile = [row, tile[0], tile[1], tile[2], tile[3]];
                TensorMap::encode(&TiledArguments {
                    data_type,
                    address: address * 16,
                    extents: &extents[..rank],
                    strides: &strides.map(|stride| stride * 16)[..rank - 1],
                    tile: &tile[..rank],
                    element_strides: &element_strides[..rank],
                    interleave: 0,
                    swizzle,
                    promotion,
                    fill: u32::from(has_nan && element.is_float()),
                })
                .unwrap()
            },
        )
}

fn read(shared: &[u8], address: u32) -> Result<[u8; 16], std::array::TryFromSliceError> {
    shared[address as usize..address as usize + 16].try_into()
}

/// Global memory from 0x1000 on and shared memory.
struct Memories {
    global: Vec<u8>,
    shared: Vec<u8>,
}

impl Memories {
    fn new(global_bytes: usize) -> Self {
        Self {
            global: (0..global_bytes).map(byte).collect(),
            shared: vec![0xee; 1 << 16],
        }
    }

    /// What a load does.
    fn load(&mut self, map: &TensorMap, coordinates: [i32; 5], tile: u32) {
        for run in runs(map, &coordinates) {
            let mut row = vec![0xdd; run.bytes as usize];
            if let Some(address) = run.global {
                let from = address as usize - 0x1000;
                let inside = run.inside();
                row[inside.clone()].copy_from_slice(&self.global[from..from + inside.len()]);
            }
            run.fill_outside(map.fill, &mut row);
            for piece in run.pieces(map.swizzle, tile) {
                let (from, to) = (piece.start as usize, piece.shared as usize);
                let bytes = piece.bytes as usize;
                self.shared[to..to + bytes].copy_from_slice(&row[from..from + bytes]);
            }
        }
    }

    fn gather(&self, descriptor: u64, major: Major, size: u32, rows: u32) -> Vec<u8> {
        let operand = MatrixDescriptor::decode(descriptor)
            .and_then(|descriptor| descriptor.operand(major, size))
            .unwrap();
        let mut out = vec![0; rows as usize * 32];
        operand
            .gather(0..rows, 32 / size, &mut out, |address| {
                read(&self.shared, address)
            })
            .unwrap();
        out
    }

    /// The matrix `[rows, 32 bytes of K]` with K adjacent in a tensor of `[height, width]` elements, or, transposed, with K over its
    /// rows; zeros outside.
    fn expected(
        &self,
        width: i32,
        height: i32,
        size: i32,
        at: impl Fn(i32, i32) -> (i32, i32),
        rows: i32,
    ) -> Vec<u8> {
        let mut all = Vec::new();
        for row in 0..rows {
            for k in 0..32 / size {
                let (x, y) = at(row, k);
                for byte in 0..size {
                    all.push(match (0..width).contains(&x) && (0..height).contains(&y) {
                        true => self.global[((y * width + x) * size + byte) as usize],
                        false => 0,
                    });
                }
            }
        }
        all
    }
}

/// A byte of global memory; never 0, so that it differs from the fill.
fn byte(index: usize) -> u8 {
    ((index.wrapping_mul(0x9e37_79b1) >> 7) % 255) as u8 + 1
}

/// A descriptor as kernels build it.
fn descriptor(start: u32, leading_bytes: u32, stride_bytes: u32, swizzle: u64) -> u64 {
    u64::from(start >> 4)
        | u64::from(leading_bytes >> 4) << 16
        | u64::from(stride_bytes >> 4) << 32
        | swizzle << 62
}

/// One copy of `[128 rows, a swizzle's span of K]`, read in steps of 32 bytes of K, as a GEMM does.
#[test]
fn a_swizzled_tile_is_a_k_major_operand() {
    for (swizzle, number, span) in [(3, 1, 128), (2, 2, 64), (1, 3, 32)] {
        for (data_type, size) in [(0, 1), (9, 2), (7, 4)] {
            let (width, height) = (1024 / size, 300);
            let map = map(
                data_type,
                &[width as u64, height as u64],
                &[1024],
                &[(span / size) as u32, 128],
                swizzle,
            );
            let mut memories = Memories::new(1024 * 300);
            // Inside, over the end of both dimensions, and before the start of both.
            // The last tile starts in the middle of the swizzle's pattern.
            for (x, y, tile) in [
                (span / size * 3, 128, 0x2400),
                (width - 8, 256, 0x2400),
                (-4, -100, 0x2400),
                (32, 7, 0x2480),
            ] {
                memories.load(&map, [x, y, 0, 0, 0], tile);
                for step in 0..span / 32 {
                    let start = tile + 32 * step as u32;
                    let bits = descriptor(start, 16, 8 * span as u32, number);
                    assert_eq!(
                        memories.gather(bits, Major::K, size as u32, 128),
                        memories.expected(
                            width,
                            height,
                            size,
                            |row, k| (x + step * 32 / size + k, y + row),
                            128
                        ),
                        "swizzle {span}, elements of {size} bytes at ({x}, {y}), step {step}"
                    );
                }
                // The second half of the rows, by another descriptor into the same tile.
                let bits = descriptor(tile + 64 * span as u32, 16, 8 * span as u32, number);
                assert_eq!(
                    memories.gather(bits, Major::K, size as u32, 64),
                    memories.expected(width, height, size, |row, k| (x + k, y + 64 + row), 64)
                );
            }
        }
    }
}

/// Without swizzle a copy per 16 bytes of K makes core matrices.
#[test]
fn unswizzled_tiles_are_a_k_major_operand() {
    let map = map(9, &[512, 300], &[1024], &[8, 128], 0);
    let mut memories = Memories::new(1024 * 300);
    memories.load(&map, [40, 200, 0, 0, 0], 0x800);
    memories.load(&map, [48, 200, 0, 0, 0], 0x800 + 2048);
    assert_eq!(
        memories.gather(descriptor(0x800, 2048, 128, 0), Major::K, 2, 128),
        memories.expected(512, 300, 2, |row, k| (40 + k, 200 + row), 128)
    );
}

/// B as `[K, N]` with N adjacent: a copy per span of N, each of 64 rows of K, read in steps of 16 rows.
#[test]
fn swizzled_tiles_are_an_mn_major_operand() {
    for (swizzle, number, span) in [(3, 1, 128), (2, 2, 64), (1, 3, 32)] {
        let map = map(9, &[512, 100], &[1024], &[span / 2, 64], swizzle);
        let mut memories = Memories::new(1024 * 100);
        let (tile, x, y) = (0x4000, 448, 48);
        for copy in 0..256 / span {
            let at = [x + (copy * span / 2) as i32, y, 0, 0, 0];
            memories.load(&map, at, tile + copy * 64 * span);
        }
        for step in 0..4 {
            let start = tile + step * 16 * span;
            let bits = descriptor(start, 64 * span, 8 * span, number);
            assert_eq!(
                memories.gather(bits, Major::MN, 2, 128),
                memories.expected(
                    512,
                    100,
                    2,
                    |row, k| (x + row, y + step as i32 * 16 + k),
                    128
                ),
                "swizzle {span}, step {step}"
            );
        }
    }
}

/// Without swizzle a copy per 16 bytes of N makes core matrices.
#[test]
fn unswizzled_tiles_are_an_mn_major_operand() {
    let map = map(9, &[512, 100], &[1024], &[8, 64], 0);
    let mut memories = Memories::new(1024 * 100);
    for copy in 0..8 {
        let at = [480 + copy as i32 * 8, 50, 0, 0, 0];
        memories.load(&map, at, 0x800 + copy * 1024);
    }
    for step in 0..4 {
        let bits = descriptor(0x800 + step * 256, 128, 1024, 0);
        assert_eq!(
            memories.gather(bits, Major::MN, 2, 64),
            memories.expected(
                512,
                100,
                2,
                |row, k| (480 + row, 50 + step as i32 * 16 + k),
                64
            )
        );
    }
}

/// A copy back restores what a load brought, and touches nothing else.
#[test]
fn a_stored_tile_returns_to_the_tensor() {
    let map = map(7, &[20, 10], &[96], &[32, 8], 3);
    let mut memories = Memories::new(96 * 10);
    let original = memories.global.clone();
    let coordinates = [4, 5, 0, 0, 0];
    check_store(&map, &coordinates).unwrap();
    memories.load(&map, coordinates, 0x480);
    let mut stored = vec![0; original.len()];
    for run in runs(&map, &coordinates) {
        let Some(address) = run.global else { continue };
        let mut row = vec![0; run.bytes as usize];
        for piece in run.pieces(map.swizzle, 0x480) {
            let (to, from) = (piece.start as usize, piece.shared as usize);
            row[to..to + 16].copy_from_slice(&memories.shared[from..from + 16]);
        }
        let inside = run.inside();
        let to = address as usize - 0x1000;
        stored[to..to + inside.len()].copy_from_slice(&row[inside]);
    }
    for (at, byte) in stored.iter().enumerate() {
        let (y, x) = (at / 96, at % 96 / 4);
        let is_inside = (4..20).contains(&x) && (5..10).contains(&y);
        assert_eq!(
            *byte,
            if is_inside { original[at] } else { 0 },
            "({x}, {y})"
        );
    }
}

/// A value for each element, of its size.
fn value(row: u32, column: u32, bytes: u32) -> Vec<u8> {
    let value = row.wrapping_mul(0x9e37_79b1) ^ column.wrapping_mul(0x85eb_ca6b);
    value.rotate_left(13).to_le_bytes()[..bytes as usize].to_vec()
}

/// Writes a `[rows, 128 bytes of K]` matrix as CUTLASS's `tile_to_shape(Layout_K_SW.._Atom, ..)` lays it out (atoms of 8 rows by a
/// span, M before K), and gathers it step by step.
#[test]
fn k_major_tiles_of_atoms_come_back() {
    let (base, rows) = (0x1400_u32.next_multiple_of(1024), 64);
    for (bits, swizzle) in SWIZZLES.into_iter().enumerate() {
        let span = 16 << bits;
        for size in [1, 2, 4] {
            let mut shared = vec![0xee; 1 << 16];
            let columns = 128 / size;
            for row in 0..rows {
                for column in 0..columns {
                    let byte = column * size;
                    let atom = row / 8 + byte / span * (rows / 8);
                    let offset = atom * 8 * span + row % 8 * span + byte % span;
                    let to = cute_swizzle(bits as u32, base + offset) as usize;
                    shared[to..to + size as usize].copy_from_slice(&value(row, column, size));
                }
            }
            for step in 0..4 {
                // 32 bytes of K: as many steps as fit within an atom, then the next column of atoms.
                let start = match span {
                    16 => base + step * 2 * (rows * 16),
                    _ => base + step * 32 / span * (rows * span) + step * 32 % span,
                };
                let operand = operand(start, rows * 16, 8 * span, swizzle, Major::K, size);
                let k = 32 / size;
                for slice in (0..rows).step_by(16) {
                    let mut out = vec![0; 16 * 32];
                    operand
                        .gather(slice..slice + 16, k, &mut out, |a| read(&shared, a))
                        .unwrap();
                    let expected: Vec<u8> = (slice..slice + 16)
                        .flat_map(|row| (0..k).map(move |i| (row, step * k + i)))
                        .flat_map(|(row, column)| value(row, column, size))
                        .collect();
                    assert_eq!(out, expected, "{swizzle:?} {size} step {step} row {slice}");
                }
            }
        }
    }
}

/// The same for `Layout_MN_SW.._Atom`: atoms of a span of M or N by 8 of K.
#[test]
fn mn_major_tiles_of_atoms_come_back() {
    let (base, rows, columns) = (0x2000, 128, 64);
    for (bits, swizzle) in SWIZZLES.into_iter().enumerate() {
        let span = 16 << bits;
        let atoms = rows * 2 / span;
        let mut shared = vec![0xee; 1 << 16];
        for row in 0..rows {
            for column in 0..columns {
                let atom = row * 2 / span + column / 8 * atoms;
                let offset = atom * 8 * span + column % 8 * span + row * 2 % span;
                let to = cute_swizzle(bits as u32, base + offset) as usize;
                shared[to..to + 2].copy_from_slice(&value(row, column, 2));
            }
        }
        let (next_rows, next_columns) = (8 * span, 8 * span * atoms);
        let (leading, stride) = match swizzle {
            Swizzle::None => (next_columns, next_rows),
            _ => (next_rows, next_columns),
        };
        for step in 0..columns / 16 {
            let start = base + step * 2 * next_columns;
            let operand = operand(start, leading, stride, swizzle, Major::MN, 2);
            for slice in (0..rows).step_by(16) {
                let mut out = vec![0; 16 * 32];
                operand
                    .gather(slice..slice + 16, 16, &mut out, |a| read(&shared, a))
                    .unwrap();
                let expected: Vec<u8> = (slice..slice + 16)
                    .flat_map(|row| (0..16).map(move |i| (row, step * 16 + i)))
                    .flat_map(|(row, column)| value(row, column, 2))
                    .collect();
                assert_eq!(out, expected, "{swizzle:?} step {step} row {slice}");
            }
        }
    }
}
