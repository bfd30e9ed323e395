//! The rows of one tile copy.
//!
//! A tile lies in shared memory row after row, the innermost dimension first, then the next, as in the tensor (PTX 5.5.2, "tiled
//! mode"). Rows follow each other without gaps, except that a swizzled row occupies the whole span of its swizzle (CUDA programming
//! guide, "The Swizzle Modes": memory must be "allocated to accommodate the full swizzle width"). Then chunks are swizzled.
//!
//! ```text
//!   tensor, extents [10, 3]        tile [8, 3] at coordinates (6, -1)       run   global     before  after
//!   . . . . . . . . . .                        o o o o o o o o               0    none       all     0
//!   . . . . . . . . . .                        6 7 8 9 o o o o               1    (6, 0)     0       4 elements
//!   . . . . . . . . . .                        6 7 8 9 o o o o               2    (6, 1)     0       4 elements
//! ```

use std::ops::Range;

use super::element::Fill;
use super::map::TensorMap;
use super::swizzle::Swizzle;

/// Bytes that a tile's address in shared memory must be a multiple of, whatever the swizzle (CUDA programming guide, "The Swizzle
/// Modes"). With a swizzle, [`Swizzle::repeat_bytes`] makes the pattern start with the tile.
pub(crate) const SHARED_ALIGNMENT: u32 = 128;

/// A row of a tile: neighbours in the innermost dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Bytes from the tile's start to the row, before swizzle.
    pub(crate) offset: u32,
    /// Bytes of the row: as many in every row of a tile.
    pub(crate) bytes: u32,
    /// The first byte of the row that lies in the tensor, in global memory; `None` if none does.
    pub(crate) global: Option<u64>,
    /// Bytes at the row's start that lie outside the tensor; all if the whole row does.
    pub(crate) before: u32,
    /// Bytes at its end that do.
    pub(crate) after: u32,
}

/// A part of a row that is contiguous in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it is, with the swizzle.
    pub(crate) shared: u32,
    /// Which bytes of the row it holds.
    pub(crate) start: u32,
    pub(crate) bytes: u32,
}

/// The rows of a tile, in the order of their places.
#[derive(Debug, Clone)]
pub(crate) struct Runs<'a> {
    map: &'a TensorMap,
    coordinates: [i32; 5],
    /// Of the next row, in steps of each dimension's element stride; the innermost stays 0.
    position: [u32; 5],
    /// What all rows have in common.
    row: Run,
    is_done: bool,
}

/// The rows of the tile whose first element has the given coordinates, the innermost first; those beyond the rank are ignored.
///
/// Offsets are exact for tiles of less than 4 GiB: check [`TensorMap::shared_bytes`] against shared memory first.
pub(crate) fn runs<'a>(map: &'a TensorMap, coordinates: &[i32; 5]) -> Runs<'a> {
    let size = i64::from(map.element.bytes());
    let bytes = map.row_bytes();
    let first = i64::from(coordinates[0]);
    // Extents are at most 2^32: nothing here overflows.
    let before = (-first).clamp(0, i64::from(map.tile[0]));
    let after =
        (first + i64::from(map.tile[0]) - map.extents[0] as i64).clamp(0, i64::from(map.tile[0]));
    let is_inside = before + after < i64::from(map.tile[0]);
    Runs {
        map,
        coordinates: *coordinates,
        position: [0; 5],
        row: Run {
            offset: 0,
            bytes,
            global: is_inside.then(|| {
                map.address
                    .wrapping_add_signed((first + before).wrapping_mul(size))
            }),
            before: if is_inside {
                (before * size) as u32
            } else {
                bytes
            },
            after: if is_inside { (after * size) as u32 } else { 0 },
        },
        is_done: false,
    }
}

/// Why a copy from shared to global memory may not start at these coordinates, if so (PTX 9.7.9.27.1.1, "Restriction on Tensor
/// Copy instructions").
pub(crate) fn check_store(map: &TensorMap, coordinates: &[i32; 5]) -> Result<(), String> {
    match coordinates[..map.rank as usize]
        .iter()
        .position(|coordinate| *coordinate < 0)
    {
        None => Ok(()),
        Some(dimension) => Err(format!(
            "coordinate {dimension} is {}; a copy from shared memory can not start before the tensor",
            coordinates[dimension]
        )),
    }
}

impl TensorMap {
    /// Elements of a tile along a dimension: `ceil(boxDim[i] / elementStrides[i])`; all of them along the innermost, which has no
    /// steps.
    pub(crate) fn tile_elements(&self, dimension: usize) -> u32 {
        match dimension {
            0 => self.tile[0],
            _ => self.tile[dimension].div_ceil(self.element_strides[dimension]),
        }
    }

    /// Bytes that a copy moves and that its barrier counts, whether they lie in the tensor or not.
    pub(crate) fn tile_bytes(&self) -> u64 {
        self.rows() * u64::from(self.row_bytes())
    }

    /// Bytes of shared memory from a tile's start to its end. More than [`tile_bytes`](Self::tile_bytes) if rows are shorter than
    /// the swizzle's span; what lies between them is not written.
    pub(crate) fn shared_bytes(&self) -> u64 {
        self.rows() * u64::from(self.row_pitch())
    }

    fn rows(&self) -> u64 {
        (1..5)
            .map(|dimension| u64::from(self.tile_elements(dimension)))
            .product()
    }

    fn row_bytes(&self) -> u32 {
        self.tile[0] * self.element.bytes()
    }

    fn row_pitch(&self) -> u32 {
        self.row_bytes().max(self.swizzle.span_bytes().unwrap_or(0))
    }
}

impl Run {
    /// Which bytes of the row lie in the tensor. The first of them is at [`global`](Self::global).
    pub(crate) fn inside(&self) -> Range<usize> {
        self.before as usize..(self.bytes - self.after) as usize
    }

    /// Puts the fill where the row, all of whose bytes are given, lies outside the tensor.
    pub(crate) fn fill_outside(&self, fill: Fill, row: &mut [u8]) {
        let pattern = fill.pattern().to_le_bytes();
        let inside = self.inside();
        // Elements are of even size where the two bytes of the pattern differ.
        let mut put = |bytes: Range<usize>| {
            for (byte, value) in row[bytes].iter_mut().zip(pattern.into_iter().cycle()) {
                *byte = value;
            }
        };
        put(0..inside.start);
        put(inside.end..self.bytes as usize);
    }

    /// Where the row lies in shared memory, for a tile at the shared address `tile`.
    pub(crate) fn pieces(&self, swizzle: Swizzle, tile: u32) -> impl Iterator<Item = Piece> {
        let row = tile.wrapping_add(self.offset);
        let bytes = match swizzle {
            Swizzle::None => self.bytes,
            // Rows are whole numbers of chunks.
            _ => 16,
        };
        (0..self.bytes / bytes).map(move |piece| Piece {
            shared: swizzle.apply(row.wrapping_add(piece * bytes)),
            start: piece * bytes,
            bytes,
        })
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline]
    fn next(&mut self) -> Option<Run> {
        if self.is_done {
            return None;
        }
        let map = self.map;
        let rank = map.rank as usize;
        let mut run = self.row;
        for dimension in 1..rank {
            let coordinate = i64::from(self.coordinates[dimension])
                + i64::from(self.position[dimension] * map.element_strides[dimension]);
            if (0..map.extents[dimension] as i64).contains(&coordinate) {
                let distance = (coordinate as u64).wrapping_mul(map.strides[dimension]);
                run.global = run.global.map(|address| address.wrapping_add(distance));
            } else {
                run.global = None;
            }
        }
        if run.global.is_none() {
            run.before = run.bytes;
            run.after = 0;
        }
        self.row.offset = self.row.offset.wrapping_add(map.row_pitch());
        self.is_done = true;
        for dimension in 1..rank {
            self.position[dimension] += 1;
            if self.position[dimension] < map.tile_elements(dimension) {
                self.is_done = false;
                break;
            }
            self.position[dimension] = 0;
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tma::tests::{any_map, map};
    use proptest::prelude::*;

    /// Every element of a tile by the definition: its place before swizzle, and its address if it lies in the tensor.
    fn elements(map: &TensorMap, coordinates: &[i32; 5]) -> Vec<(u64, Option<u64>)> {
        let count = |dimension| u64::from(map.tile_elements(dimension));
        let size = u64::from(map.element.bytes());
        let pitch = match map.swizzle.span_bytes() {
            None => count(0) * size,
            Some(span) => u64::from(span),
        };
        let mut all = Vec::new();
        for e in 0..count(4) {
            for d in 0..count(3) {
                for c in 0..count(2) {
                    for b in 0..count(1) {
                        for a in 0..count(0) {
                            let row = ((e * count(3) + d) * count(2) + c) * count(1) + b;
                            let mut address = Some(i128::from(map.address));
                            for (dimension, index) in [a, b, c, d, e].into_iter().enumerate() {
                                if dimension >= map.rank as usize {
                                    continue;
                                }
                                let step = match dimension {
                                    0 => 1,
                                    _ => i128::from(map.element_strides[dimension]),
                                };
                                let at =
                                    i128::from(coordinates[dimension]) + i128::from(index) * step;
                                address = address
                                    .filter(|_| at >= 0 && at < i128::from(map.extents[dimension]))
                                    .map(|address| {
                                        address + at * i128::from(map.strides[dimension])
                                    });
                            }
                            all.push((row * pitch + a * size, address.map(|a| a as u64)));
                        }
                    }
                }
            }
        }
        all
    }

    /// The same from the runs.
    fn walked(map: &TensorMap, coordinates: &[i32; 5]) -> Vec<(u64, Option<u64>)> {
        let size = map.element.bytes();
        let mut all = Vec::new();
        for run in runs(map, coordinates) {
            let inside = run.inside();
            for start in (0..run.bytes).step_by(size as usize) {
                let address = run
                    .global
                    .filter(|_| inside.contains(&(start as usize)))
                    .map(|address| address + u64::from(start - run.before));
                all.push((u64::from(run.offset + start), address));
            }
        }
        all
    }

    fn check(map: &TensorMap, coordinates: [i32; 5]) {
        assert_eq!(
            walked(map, &coordinates),
            elements(map, &coordinates),
            "{map:?} at {coordinates:?}"
        );
    }

    #[test]
    fn every_rank_on_every_side_of_the_tensor() {
        let extents = [40, 5, 4, 3, 6];
        let strides = [96, 496, 2000, 6016];
        let tile = [16, 3, 2, 2, 3];
        for rank in 1..=5 {
            let map = map(9, &extents[..rank], &strides[..rank - 1], &tile[..rank], 0);
            for dimension in 0..rank {
                for start in [-300, -16, -3, -2, -1, 0, 1, 2, 3, 4, 5, 24, 25, 39, 40, 300] {
                    let mut coordinates = [0; 5];
                    coordinates[dimension] = start;
                    check(&map, coordinates);
                    check(&map, [start; 5]);
                }
            }
        }
    }

    #[test]
    fn the_picture_above() {
        let map = map(9, &[10, 3], &[32], &[8, 3], 0);
        let all: Vec<Run> = runs(&map, &[6, -1, 0, 0, 0]).collect();
        let row = |offset, global, before, after| Run {
            offset,
            bytes: 16,
            global,
            before,
            after,
        };
        assert_eq!(
            all,
            [
                row(0, None, 16, 0),
                row(16, Some(0x1000 + 12), 0, 8),
                row(32, Some(0x1000 + 32 + 12), 0, 8),
            ]
        );
    }

    #[test]
    fn a_row_can_lie_on_both_sides_of_the_tensor() {
        let map = map(7, &[3], &[], &[8], 0);
        let run = runs(&map, &[-2, 0, 0, 0, 0]).next().unwrap();
        assert_eq!((run.global, run.inside()), (Some(0x1000), 8..20));
        let mut row = [1; 32];
        run.fill_outside(Fill::Nan, &mut row);
        let (nan, one) = ([0xf7, 0x7f, 0xf7, 0x7f], [1; 4]);
        assert_eq!(row.as_chunks().0, [nan, nan, one, one, one, nan, nan, nan]);
        run.fill_outside(Fill::Zeros, &mut row);
        assert_eq!(row[..8], [0; 8]);
        assert_eq!(row[8..20], [1; 12]);
        assert_eq!(row[20..], [0; 12]);
    }

    #[test]
    fn steps_skip_elements_but_not_in_the_innermost_dimension() {
        let mut map = map(9, &[64, 20, 9], &[128, 2560], &[16, 8, 5], 0);
        map.element_strides = [2, 3, 5, 1, 1];
        assert_eq!(
            [0, 1, 2, 3].map(|dimension| map.tile_elements(dimension)),
            [16, 3, 1, 1]
        );
        assert_eq!(map.tile_bytes(), 3 * 32);
        let rows: Vec<_> = runs(&map, &[8, 14, 4, 0, 0])
            .map(|run| run.global)
            .collect();
        let row = |y: u64| Some(0x1000 + 4 * 2560 + y * 128 + 16);
        assert_eq!(rows, [row(14), row(17), None]);
        check(&map, [8, 14, 4, 0, 0]);
    }

    #[test]
    fn short_rows_occupy_the_swizzles_span() {
        let map = map(9, &[64, 64], &[128], &[16, 4], 3);
        assert_eq!((map.tile_bytes(), map.shared_bytes()), (128, 512));
        let offsets: Vec<u32> = runs(&map, &[0; 5]).map(|run| run.offset).collect();
        assert_eq!(offsets, [0, 128, 256, 384]);
        let second = runs(&map, &[0; 5]).nth(1).unwrap();
        // At 0x500 the pattern, which starts at multiples of 0x400, is in its row 2.
        let pieces: Vec<Piece> = second.pieces(map.swizzle, 0x480).collect();
        assert_eq!(
            pieces,
            [
                Piece {
                    shared: 0x520,
                    start: 0,
                    bytes: 16
                },
                Piece {
                    shared: 0x530,
                    start: 16,
                    bytes: 16
                },
            ]
        );
    }

    #[test]
    fn stores_start_in_the_tensor() {
        let map = map(9, &[64, 64], &[128], &[16, 4], 3);
        assert_eq!(check_store(&map, &[0, 70, -1, 0, 0]), Ok(()));
        assert_eq!(
            check_store(&map, &[0, -3, 0, 0, 0]).unwrap_err(),
            "coordinate 1 is -3; a copy from shared memory can not start before the tensor"
        );
    }

    /// Near the tensor, or anywhere.
    fn any_coordinates() -> impl Strategy<Value = [i32; 5]> {
        prop_oneof![
            prop::array::uniform5(-20..70_i32),
            prop::array::uniform5(any::<i32>())
        ]
    }

    proptest! {
        #[test]
        fn walks_follow_the_definition(map in any_map(), coordinates in any_coordinates()) {
            prop_assume!(map.tile_bytes() <= 1 << 14);
            prop_assert_eq!(walked(&map, &coordinates), elements(&map, &coordinates));
        }

        #[test]
        fn walks_never_leave_the_tile_nor_the_tensor(
            map in any_map(),
            coordinates in any_coordinates(),
            line in 0..1024_u32,
        ) {
            let tile = line * SHARED_ALIGNMENT;
            let end = u64::from(tile) + map.shared_bytes();
            prop_assume!(map.shared_bytes() <= 1 << 18);
            let last: u64 = (0..map.rank as usize)
                .map(|dimension| (map.extents[dimension] - 1) * map.strides[dimension])
                .sum();
            let last = map.address + last + u64::from(map.element.bytes());
            let mut seen = std::collections::HashSet::new();
            let mut bytes = 0;
            for run in runs(&map, &coordinates) {
                bytes += u64::from(run.bytes);
                prop_assert!(run.before + run.after <= run.bytes);
                prop_assert_eq!(run.global.is_some(), !run.inside().is_empty());
                if let Some(address) = run.global {
                    prop_assert!(address >= map.address);
                    prop_assert!(address + run.inside().len() as u64 <= last);
                }
                let mut next = 0;
                for piece in run.pieces(map.swizzle, tile) {
                    prop_assert_eq!(piece.start, next);
                    next += piece.bytes;
                    prop_assert!(piece.shared >= tile);
                    prop_assert!(u64::from(piece.shared + piece.bytes) <= end);
                    for chunk in (0..piece.bytes).step_by(16) {
                        prop_assert!(seen.insert(piece.shared + chunk));
                    }
                }
                prop_assert_eq!(next, run.bytes);
            }
            prop_assert_eq!(bytes, map.tile_bytes());
        }
    }
}
