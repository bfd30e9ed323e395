//! Where `wgmma` finds an operand in shared memory.
//!
//! An operand is a matrix of `mn` (rows of A, columns of B) by `k`. In units of 16-byte chunks, 16 bytes along the direction in which
//! neighbours are adjacent (its *major* direction), with `W` = 1, 2, 4, 8 chunks in a span without swizzle and with those of 32, 64
//! and 128 bytes, chunk (`line`, `chunk`) lies at
//!
//! ```text
//!   start + (line % 8) * 16 W + (line / 8) * group + (chunk % W) * 16 + (chunk / W) * span        then swizzled
//! ```
//!
//! | major | line | chunk | swizzle | group | span |
//! | --- | --- | --- | --- | --- | --- |
//! | K | `mn` | `k` in chunks | none | stride offset | leading offset |
//! | K | `mn` | `k` in chunks | yes | stride offset | chunks are adjacent; the leading offset is not used |
//! | MN | `k` | `mn` in chunks | none | leading offset | stride offset |
//! | MN | `k` | `mn` in chunks | yes | stride offset | leading offset |
//!
//! That is PTX's table of canonical layouts (9.7.15.5.1.2.1.3) with T, the elements of a chunk, divided out; the comment at
//! `make_gmma_desc` in CUTLASS's `mma_traits_sm90_gmma.hpp` has the same, and derives the two offsets from it. Without swizzle the
//! two directions swap the offsets' meaning: both sources agree on that too.
//!
//! A descriptor may point into the middle of a swizzled tile, as kernels do that step through K by 32 bytes: the swizzle looks at the
//! final address only.

use std::ops::Range;

use super::swizzle::Swizzle;

/// Along which direction of an operand neighbours are adjacent in shared memory: `imm-trans-a` and `imm-trans-b` of the instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Major {
    /// Along K: not transposed.
    K,
    /// Along M or N: transposed.
    MN,
}

/// A shared-memory matrix descriptor, as `wgmma.mma_async` takes it in a 64-bit register.
///
/// | bits | contents |
/// | --- | --- |
/// | 0–13 | start address, in 16 bytes |
/// | 16–29 | leading dimension byte offset, in 16 bytes |
/// | 32–45 | stride dimension byte offset, in 16 bytes |
/// | 49–51 | base offset |
/// | 62–63 | swizzle: 0 none, 1 128 bytes, 2 64 bytes, 3 32 bytes |
///
/// Source: PTX 9.7.15.5.1.2.2, "Matrix Descriptor Format".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MatrixDescriptor {
    /// Shared address of the first chunk, below 256 KiB.
    pub(crate) start: u32,
    /// The leading dimension byte offset.
    pub(crate) leading_bytes: u32,
    /// The stride dimension byte offset.
    pub(crate) stride_bytes: u32,
    /// Which of its rows the swizzle's pattern starts with, if not the first at a multiple of [`Swizzle::repeat_bytes`].
    pub(crate) base_offset: u32,
    pub(crate) swizzle: Swizzle,
}

/// An operand of one instruction, ready to compute addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operand {
    major: Major,
    /// 1, 2 or 4.
    element_bytes: u32,
    start: u32,
    /// Bytes from a line to the next of its eight.
    line_bytes: u32,
    /// Bytes from eight lines to the next eight.
    group_bytes: u32,
    /// Bytes from one span of chunks to the next.
    span_bytes: u32,
    /// The logarithm of the chunks of a span.
    span_shift: u32,
    swizzle: Swizzle,
}

/// Bits of a descriptor that PTX gives no meaning.
const RESERVED: u64 = 0x3ff1_c000_c000_c000;

impl MatrixDescriptor {
    /// The descriptor, or why it is none.
    pub(crate) fn decode(bits: u64) -> Result<Self, String> {
        // An address that was not masked to 18 bits shows here.
        if bits & RESERVED != 0 {
            return Err(format!(
                "matrix descriptor {bits:#018x} has bits set that mean nothing: {:#x}",
                bits & RESERVED
            ));
        }
        let field = |shift: u32| ((bits >> shift) as u32 & 0x3fff) << 4;
        Ok(Self {
            start: field(0),
            leading_bytes: field(16),
            stride_bytes: field(32),
            base_offset: (bits >> 49) as u32 & 7,
            swizzle: Swizzle::from_descriptor(bits >> 62),
        })
    }

    /// The operand that it describes for an instruction on elements of 1, 2 or 4 bytes.
    pub(crate) fn operand(&self, major: Major, element_bytes: u32) -> Result<Operand, String> {
        if !matches!(element_bytes, 1 | 2 | 4) {
            return Err(format!("wgmma has no elements of {element_bytes} bytes"));
        }
        if major == Major::MN && element_bytes != 2 {
            return Err(format!(
                "wgmma transposes only elements of 2 bytes, not of {element_bytes}"
            ));
        }
        // Without swizzle the field has no meaning. With one, PTX says how to compute it but not what it changes, and CUTLASS always
        // writes 0.
        if self.base_offset != 0 && self.swizzle != Swizzle::None {
            return Err(format!(
                "matrix descriptor has a base offset of {}: this device emulates only swizzle patterns that start at multiples of {} bytes",
                self.base_offset,
                self.swizzle.repeat_bytes()
            ));
        }
        let span = self.swizzle.span_bytes().unwrap_or(16);
        let (group_bytes, span_bytes) = match (major, self.swizzle) {
            (Major::MN, Swizzle::None) => (self.leading_bytes, self.stride_bytes),
            _ => (self.stride_bytes, self.leading_bytes),
        };
        Ok(Operand {
            major,
            element_bytes,
            start: self.start,
            line_bytes: span,
            group_bytes,
            span_bytes,
            span_shift: match (major, self.swizzle) {
                // One span holds all of K that an instruction reads.
                (Major::K, Swizzle::Bytes32 | Swizzle::Bytes64 | Swizzle::Bytes128) => 31,
                _ => (span / 16).trailing_zeros(),
            },
            swizzle: self.swizzle,
        })
    }
}

impl Operand {
    /// Shared address of 16 bytes along the major direction. For K-major operands `line` is the row of A or the column of B and
    /// `chunk` counts K in 16 bytes; for MN-major ones `line` is K and `chunk` counts rows or columns in 16 bytes.
    #[inline(always)]
    pub(crate) fn chunk(&self, line: u32, chunk: u32) -> u32 {
        let spans = chunk >> self.span_shift;
        let in_span = chunk & ((1 << self.span_shift) - 1);
        let address = self
            .start
            .wrapping_add((line % 8).wrapping_mul(self.line_bytes))
            .wrapping_add((line / 8).wrapping_mul(self.group_bytes))
            .wrapping_add(in_span.wrapping_mul(16))
            .wrapping_add(spans.wrapping_mul(self.span_bytes));
        self.swizzle.apply(address)
    }

    /// Shared address of one element.
    pub(crate) fn element(&self, mn: u32, k: u32) -> u32 {
        let (line, along) = match self.major {
            Major::K => (mn, k),
            Major::MN => (k, mn),
        };
        let per_chunk = 16 / self.element_bytes;
        self.chunk(line, along / per_chunk) + along % per_chunk * self.element_bytes
    }

    /// Shared addresses of the 16 bytes each that rows of A or columns of B lie in, as [`gather`](Self::gather) reads them.
    #[inline]
    pub(crate) fn visit(&self, rows: Range<u32>, k: u32, mut at: impl FnMut(u32)) {
        let (lines, chunks) = match self.major {
            Major::K => (rows, 0..k * self.element_bytes / 16),
            Major::MN => (0..k, rows.start / 8..rows.end / 8),
        };
        for line in lines {
            for chunk in chunks.clone() {
                at(self.chunk(line, chunk));
            }
        }
    }

    /// Copies rows of A or columns of B with all their `k` elements to `out`, one after the other, K innermost: `[rows, k]`.
    ///
    /// `read` fetches the 16 bytes at a shared address. Along the major direction whole chunks are read: `k` elements must fill
    /// chunks if that is K, and `rows` must start and end at a multiple of 8 if it is MN.
    ///
    /// # Errors
    /// The first that `read` answers with.
    ///
    /// # Panics
    /// `out` is not of that size, or `rows` or `k` cuts a chunk.
    #[inline]
    pub(crate) fn gather<E>(
        &self,
        rows: Range<u32>,
        k: u32,
        out: &mut [u8],
        mut read: impl FnMut(u32) -> Result<[u8; 16], E>,
    ) -> Result<(), E> {
        let row_bytes = (k * self.element_bytes) as usize;
        assert_eq!(
            out.len(),
            rows.len() * row_bytes,
            "room for {rows:?} by {k}"
        );
        match self.major {
            Major::K => {
                assert!(
                    row_bytes > 0 && row_bytes.is_multiple_of(16),
                    "{k} elements fill no whole number of chunks"
                );
                for (line, row) in rows.zip(out.chunks_exact_mut(row_bytes)) {
                    for (chunk, to) in row.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                        *to = read(self.chunk(line, chunk as u32))?;
                    }
                }
            }
            Major::MN => {
                assert!(
                    rows.start.is_multiple_of(8) && rows.end.is_multiple_of(8),
                    "{rows:?} cuts a chunk"
                );
                for chunk in rows.start / 8..rows.end / 8 {
                    let first = ((chunk - rows.start / 8) * 8) as usize;
                    for line in 0..k {
                        let elements = read(self.chunk(line, chunk))?;
                        for (row, element) in elements.as_chunks::<2>().0.iter().enumerate() {
                            let to = (first + row) * row_bytes + 2 * line as usize;
                            out[to..to + 2].copy_from_slice(element);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    impl MatrixDescriptor {
        /// As kernels put it together.
        pub(crate) fn encode(&self) -> u64 {
            let field = |bytes: u32| u64::from(bytes & 0x3ffff) >> 4;
            let swizzle = match self.swizzle {
                Swizzle::None => 0,
                Swizzle::Bytes128 => 1,
                Swizzle::Bytes64 => 2,
                Swizzle::Bytes32 => 3,
            };
            field(self.start)
                | field(self.leading_bytes) << 16
                | field(self.stride_bytes) << 32
                | u64::from(self.base_offset) << 49
                | swizzle << 62
        }
    }

    pub(crate) fn operand(
        start: u32,
        leading_bytes: u32,
        stride_bytes: u32,
        swizzle: Swizzle,
        major: Major,
        element_bytes: u32,
    ) -> Operand {
        let descriptor = MatrixDescriptor {
            start,
            leading_bytes,
            stride_bytes,
            base_offset: 0,
            swizzle,
        };
        MatrixDescriptor::decode(descriptor.encode())
            .and_then(|decoded| decoded.operand(major, element_bytes))
            .unwrap()
    }

    /// `Swizzle<bits, 4, 3>` of a byte offset, bit by bit.
    pub(crate) fn cute_swizzle(bits: u32, offset: u32) -> u32 {
        (0..bits).fold(offset, |result, bit| {
            result ^ ((offset >> (7 + bit) & 1) << (4 + bit))
        })
    }

    /// A CuTe layout mode `(a, b, ..):(x, y, ..)` at an index: the first shape varies fastest.
    fn cute_mode(mode: &[(u32, u32)], mut index: u32) -> u32 {
        let mut offset = 0;
        for &(shape, stride) in mode {
            offset += index % shape * stride;
            index /= shape;
        }
        offset
    }

    /// An exact layout of PTX's examples, `Swizzle<bits,4,3> o (mn, k)` in elements, against the descriptor that PTX gives for it.
    fn check(operand: Operand, start: u32, bits: u32, mn: &[(u32, u32)], k: &[(u32, u32)]) {
        let extent = |mode: &[(u32, u32)]| mode.iter().map(|(shape, _)| shape).product::<u32>();
        for row in 0..extent(mn) {
            for column in 0..extent(k) {
                let offset = cute_mode(mn, row) + cute_mode(k, column);
                assert_eq!(
                    operand.element(row, column),
                    cute_swizzle(bits, start + offset * operand.element_bytes),
                    "({row}, {column})"
                );
            }
        }
    }

    #[test]
    fn ptx_examples_of_canonical_layouts() {
        use Major::{K, MN};
        use Swizzle::{Bytes32, Bytes64, None};
        let start = 0x2000;
        // K-major, no swizzle, tf32
        check(
            operand(start, 64 * 4, 32 * 4, None, K, 4),
            start,
            0,
            &[(8, 4), (2, 32)],
            &[(4, 1), (4, 64)],
        );
        // K-major, 32 bytes, tf32; K up to the span, which is what an instruction reads
        check(
            operand(start, 16, 64 * 4, Bytes32, K, 4),
            start,
            1,
            &[(8, 8), (2, 64)],
            &[(4, 1), (2, 4)],
        );
        // MN-major, no swizzle, bf16
        check(
            operand(start, 128 * 2, 64 * 2, None, MN, 2),
            start,
            0,
            &[(8, 1), (1, 8), (2, 64)],
            &[(8, 8), (2, 128)],
        );
        // MN-major, 32 bytes, bf16
        check(
            operand(start, 128 * 2, 256 * 2, Bytes32, MN, 2),
            start,
            1,
            &[(8, 1), (2, 8), (2, 128)],
            &[(8, 16), (2, 256)],
        );
        // MN-major, 64 bytes, bf16
        check(
            operand(start, 256 * 2, 512 * 2, Bytes64, MN, 2),
            start,
            2,
            &[(8, 1), (4, 8), (2, 256)],
            &[(8, 32), (2, 512)],
        );
    }

    /// PTX's table of canonical layouts for an instruction's operand of 64 by 32 bytes of K, with offsets that no tiling suggests.
    #[test]
    fn every_canonical_layout_holds() {
        let (start, leading, stride) = (0x4000, 0x6230, 0x1450);
        for (bits, swizzle) in [
            Swizzle::None,
            Swizzle::Bytes32,
            Swizzle::Bytes64,
            Swizzle::Bytes128,
        ]
        .into_iter()
        .enumerate()
        {
            let (bits, w) = (bits as u32, 1 << bits);
            for size in [1, 2, 4] {
                let (t, lbo, sbo) = (16 / size, leading / size, stride / size);
                let next = if bits == 0 { lbo } else { t };
                check(
                    operand(start, leading, stride, swizzle, Major::K, size),
                    start,
                    bits,
                    &[(8, w * t), (8, sbo)],
                    &[(t, 1), (2, next)],
                );
            }
            let (t, lbo, sbo) = (8, leading / 2, stride / 2);
            let (span, group) = if bits == 0 { (sbo, lbo) } else { (lbo, sbo) };
            check(
                operand(start, leading, stride, swizzle, Major::MN, 2),
                start,
                bits,
                &[(t, 1), (w, t), (8 / w, span)],
                &[(8, w * t), (2, group)],
            );
        }
    }

    #[test]
    fn fields_of_a_descriptor() {
        // As a kernel builds it for a tile at 0x8400: 128-byte swizzle, leading offset 1, stride 1024 bytes.
        let bits = 1 << 62 | 64 << 32 | 1 << 16 | 0x840;
        assert_eq!(
            MatrixDescriptor::decode(bits),
            Ok(MatrixDescriptor {
                start: 0x8400,
                leading_bytes: 16,
                stride_bytes: 1024,
                base_offset: 0,
                swizzle: Swizzle::Bytes128,
            })
        );
    }

    #[test]
    fn what_is_no_operand() {
        assert_eq!(
            MatrixDescriptor::decode(1 << 14).unwrap_err(),
            "matrix descriptor 0x0000000000004000 has bits set that mean nothing: 0x4000"
        );
        for bit in [14, 15, 30, 31, 46, 47, 48, 52, 61] {
            assert!(MatrixDescriptor::decode(1 << bit).is_err(), "bit {bit}");
        }
        let based = MatrixDescriptor::decode(1 << 62 | 3 << 49).unwrap();
        assert_eq!(
            based.operand(Major::K, 2).unwrap_err(),
            "matrix descriptor has a base offset of 3: this device emulates only swizzle patterns that start at multiples of 1024 bytes"
        );
        let plain = MatrixDescriptor::decode(3 << 49).unwrap();
        assert!(plain.operand(Major::K, 2).is_ok());
        assert_eq!(
            plain.operand(Major::MN, 4).unwrap_err(),
            "wgmma transposes only elements of 2 bytes, not of 4"
        );
        assert_eq!(
            plain.operand(Major::K, 8).unwrap_err(),
            "wgmma has no elements of 8 bytes"
        );
    }

    #[test]
    fn a_failed_read_ends_the_gather() {
        let operand = operand(0x3fff0, 16, 1024, Swizzle::Bytes128, Major::K, 2);
        let mut reads = 0;
        let result = operand.gather(0..8, 16, &mut [0; 256], |address| {
            reads += 1;
            if reads < 3 { Ok([0; 16]) } else { Err(address) }
        });
        // The second row: 128 bytes on, with bits 4–6 of 0x40070 XORed with bits 7–9, which are 0.
        assert_eq!((result, reads), (Err(0x4_0070), 3));
    }

    proptest! {
        #[test]
        fn random_descriptors_never_panic(mut bits: u64, line: u32, chunk: u32, keep: bool) {
            if keep {
                bits &= !RESERVED;
            }
            let Ok(descriptor) = MatrixDescriptor::decode(bits) else {
                return Ok(());
            };
            prop_assert_eq!(descriptor.encode(), bits);
            for major in [Major::K, Major::MN] {
                for size in 0..9 {
                    if let Ok(operand) = descriptor.operand(major, size) {
                        let address = operand.chunk(line, chunk);
                        prop_assert!(address.is_multiple_of(16));
                        operand.element(line, chunk);
                    }
                }
            }
        }
    }
}
