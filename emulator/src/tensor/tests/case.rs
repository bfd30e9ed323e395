//! A matrix product as tests write it down, and its way into and out of fragments, element by element.

use super::super::fragment::columns_k_major;
use super::super::*;

/// A warp whose registers are D's, in order.
pub(super) fn tile<'a>(a: &'a Rows, registers: &'a mut [[u32; 32]]) -> Tile<'a> {
    const IN_ORDER: [u32; 128] = {
        let mut rows = [0; 128];
        let mut row = 0;
        while row < 128 {
            rows[row] = row as u32;
            row += 1;
        }
        rows
    };
    Tile {
        a,
        accumulators: &IN_ORDER[..registers.len()],
        registers,
        mask: u32::MAX,
    }
}

/// One matrix product in plain layouts, elements and accumulators as bits.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) k: usize,
    pub(super) a_type: Element,
    pub(super) b_type: Element,
    pub(super) accumulator: Accumulator,
    /// `[16][k]`.
    pub(super) a: Vec<u32>,
    /// By columns: `[8][k]`.
    pub(super) b: Vec<u32>,
    /// `[16][8]`.
    pub(super) c: Vec<u32>,
}

pub(super) fn bits_of(element: Element) -> usize {
    match element {
        Element::F16 | Element::Bf16 => 16,
        Element::Tf32 => 32,
        _ => 8,
    }
}

/// Row and column of element `i` of a lane's fragment of A, by the ISA's table for each size and shape.
fn a_position(bits: usize, k: usize, lane: usize, i: usize) -> (usize, usize) {
    let (g, t) = (lane >> 2, lane & 3);
    match (bits, k) {
        (16, 8) => (if i < 2 { g } else { g + 8 }, 2 * t + (i & 1)),
        (16, 16) => (
            if i < 2 || (4..6).contains(&i) {
                g
            } else {
                g + 8
            },
            2 * t + (i & 1) + if i < 4 { 0 } else { 8 },
        ),
        (32, 4) => (if i == 0 { g } else { g + 8 }, t),
        (32, 8) => (
            if i == 0 || i == 2 { g } else { g + 8 },
            if i < 2 { t } else { t + 4 },
        ),
        (8, 16) => (if i < 4 { g } else { g + 8 }, 4 * t + (i & 3)),
        (8, 32) => (
            if i < 4 || (8..12).contains(&i) {
                g
            } else {
                g + 8
            },
            4 * t + (i & 3) + if i < 8 { 0 } else { 16 },
        ),
        _ => panic!("no such shape"),
    }
}

/// The step of K of element `i` of a lane's fragment of B; its column is the lane's group.
fn b_position(bits: usize, k: usize, lane: usize, i: usize) -> usize {
    let t = lane & 3;
    match (bits, k) {
        (16, _) => 2 * t + (i & 1) + if i < 2 { 0 } else { 8 },
        (32, _) => t + 4 * i,
        (8, _) => 4 * t + (i & 3) + if i < 4 { 0 } else { 16 },
        _ => panic!("no such shape"),
    }
}

/// Row and column of element `i` of a lane's accumulators, of either size.
fn c_position(lane: usize, i: usize) -> (usize, usize) {
    (
        (lane >> 2) + if i < 2 { 0 } else { 8 },
        2 * (lane & 3) + (i & 1),
    )
}

/// Fills a fragment from `element(lane, i)`.
fn pack(bits: usize, count: usize, element: impl Fn(usize, usize) -> u32) -> Vec<[u32; 32]> {
    let per = 32 / bits;
    let mut registers = vec![[0; 32]; count / per];
    for i in 0..count {
        for (lane, word) in registers[i / per].iter_mut().enumerate() {
            *word |= element(lane, i) << (i % per * bits);
        }
    }
    registers
}

impl Case {
    fn accumulator_bits(&self) -> usize {
        if self.accumulator == Accumulator::F16 {
            16
        } else {
            32
        }
    }

    fn a_registers(&self) -> Vec<[u32; 32]> {
        let bits = bits_of(self.a_type);
        pack(bits, 16 * self.k / 32, |lane, i| {
            let (row, column) = a_position(bits, self.k, lane, i);
            self.a[row * self.k + column]
        })
    }

    pub(super) fn c_registers(&self) -> Vec<[u32; 32]> {
        pack(self.accumulator_bits(), 4, |lane, i| {
            let (row, column) = c_position(lane, i);
            self.c[row * 8 + column]
        })
    }

    pub(super) fn unpack(&self, registers: &[[u32; 32]]) -> Vec<u32> {
        let bits = self.accumulator_bits();
        let mut d = vec![0; 128];
        for i in 0..4 {
            for (lane, word) in registers[i * bits / 32].iter().enumerate() {
                let (row, column) = c_position(lane, i);
                d[row * 8 + column] = word >> (i * bits % 32) & (u32::MAX >> (32 - bits));
            }
        }
        d
    }

    pub(super) fn mma(&self, generation: Generation, satfinite: bool) -> Vec<u32> {
        self.mma_with(
            |shape, a, b, c, d| mma(generation, shape, a, b, c, d),
            satfinite,
        )
    }

    /// On arrays, whatever the processor has.
    pub(super) fn mma_plain(&self, generation: Generation, satfinite: bool) -> Vec<u32> {
        self.mma_with(
            |shape, a, b, c, d| mma_on::<Plain>(&Unit::mma(generation, shape), a, b, c, d),
            satfinite,
        )
    }

    fn mma_with(
        &self,
        run: impl Fn(&Mma, &[&[u32; 32]], &[&[u32; 32]], &[&[u32; 32]], &mut [[u32; 32]]),
        satfinite: bool,
    ) -> Vec<u32> {
        let bits = bits_of(self.b_type);
        let (a, c) = (self.a_registers(), self.c_registers());
        let b = pack(bits, 8 * self.k / 32, |lane, i| {
            self.b[(lane >> 2) * self.k + b_position(bits, self.k, lane, i)]
        });
        let mut d = c.clone();
        let shape = Mma {
            n: 8,
            k: self.k as u16,
            a: self.a_type,
            b: self.b_type,
            accumulator: self.accumulator,
            satfinite,
        };
        run(
            &shape,
            &a.iter().collect::<Vec<_>>(),
            &b.iter().collect::<Vec<_>>(),
            &c.iter().collect::<Vec<_>>(),
            &mut d,
        );
        self.unpack(&d)
    }

    pub(super) fn shape(&self, saturate: bool) -> Wgmma {
        Wgmma {
            n: 8,
            k: self.k as u16,
            a: self.a_type,
            b: self.b_type,
            accumulator: self.accumulator,
            negate_a: false,
            negate_b: false,
            saturate,
        }
    }

    /// 32 bytes of each column, as they are in memory.
    pub(super) fn columns(&self) -> Columns {
        let bits = bits_of(self.b_type);
        let mut bytes = [[0; 8]; 8];
        for (column, words) in bytes.iter_mut().enumerate() {
            for i in 0..self.k {
                words[i * bits / 32] |= self.b[column * self.k + i] << (i * bits % 32);
            }
        }
        columns_k_major(&bytes)
    }

    pub(super) fn rows(&self) -> Rows {
        rows(&self.a_registers().iter().collect::<Vec<_>>())
    }

    pub(super) fn wgmma(&self, shape: &Wgmma, scale_d: bool) -> Vec<u32> {
        let mut d = self.c_registers();
        let a = self.rows();
        wgmma(shape, &[self.columns()], scale_d, &mut [tile(&a, &mut d)]);
        self.unpack(&d)
    }

    pub(super) fn wgmma_plain(&self, shape: &Wgmma) -> Vec<u32> {
        let mut d = self.c_registers();
        let a = self.rows();
        wgmma_on::<Plain>(shape, &[self.columns()], true, &mut [tile(&a, &mut d)]);
        self.unpack(&d)
    }

    /// The model in plain integers, element by element.
    pub(super) fn slow(&self, model: &Model) -> Vec<u32> {
        let bits = bits_of(self.a_type);
        let step = model.chunk_words * 32 / bits;
        (0..128)
            .map(|at| {
                let a = &self.a[at / 8 * self.k..][..self.k];
                let b = &self.b[at % 8 * self.k..][..self.k];
                let elements = (self.a_type, self.b_type);
                let mut sum = self.c[at];
                for (a, b) in a.chunks(step).zip(b.chunks(step)) {
                    let words = |elements: &[u32]| -> Vec<u32> {
                        let word = |e: &[u32]| e.iter().rev().fold(0, |w, e| w << (bits % 32) | e);
                        elements.chunks(32 / bits).map(word).collect()
                    };
                    let (a, b) = (words(a), words(b));
                    sum = model.dot(elements, a.into_iter(), b.into_iter(), sum);
                }
                sum
            })
            .collect()
    }
}

#[track_caller]
pub(super) fn assert_same(name: &str, case: &Case, found: &[u32], expected: &[u32]) {
    for at in 0..128 {
        let (row, column) = (at / 8, at % 8);
        assert!(
            found[at] == expected[at],
            "{name}: row {row}, column {column}: {:08x} instead of {:08x}\na {:08x?}\nb {:08x?}\nc {:08x}",
            found[at],
            expected[at],
            &case.a[row * case.k..][..case.k],
            &case.b[column * case.k..][..case.k],
            case.c[at],
        );
    }
}
