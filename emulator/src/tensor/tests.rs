//! The two ways against each other, integers against loops, and fragments against plain products.

mod case;
mod vectors;

use super::fragment::columns_n_major;
use super::*;
use case::{Case, assert_same, bits_of, tile};
use proptest::prelude::*;

/// Types of A and B, accumulators and K of every floating-point `mma`.
const MMA_FORMS: [(Element, Element, Accumulator, usize); 16] = {
    use Accumulator::{F16 as H, F32 as S};
    use Element::*;
    [
        (F16, F16, S, 8),
        (F16, F16, S, 16),
        (F16, F16, H, 8),
        (F16, F16, H, 16),
        (Bf16, Bf16, S, 8),
        (Bf16, Bf16, S, 16),
        (Tf32, Tf32, S, 4),
        (Tf32, Tf32, S, 8),
        (E4m3, E4m3, S, 32),
        (E4m3, E5m2, S, 32),
        (E5m2, E4m3, S, 32),
        (E5m2, E5m2, S, 32),
        (E4m3, E4m3, H, 32),
        (E5m2, E4m3, S, 16),
        (E4m3, E5m2, H, 32),
        (E5m2, E5m2, H, 16),
    ]
};
const GENERATIONS: [Generation; 3] = [Generation::Ampere, Generation::Ada, Generation::Hopper];

fn is_fp8(element: Element) -> bool {
    matches!(element, Element::E4m3 | Element::E5m2)
}

const TAME: u32 = 4;
const FULL: u32 = 5;

#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        ((u128::from(self.0 ^ self.0 >> 31) * u128::from(end)) >> 64) as u64
    }

    /// Bits of a number with `exponent` bits and `fraction` bits, the latter above `low` more.
    fn number(&mut self, format: (u32, u32, u32), mode: u32) -> u32 {
        let (exponent, fraction, low) = format;
        let bits = 1 + exponent + fraction + low;
        let mask = u32::MAX >> (32 - bits);
        let any = self.below(1 << 32) as u32 & mask;
        let bias = (1 << (exponent - 1)) - 1;
        let place = fraction + low;
        let with_field = |field: u32| (any & !(((1 << exponent) - 1) << place)) | field << place;
        let is_rare = self.below(40) == 0;
        match mode {
            // Around one: nothing leaves the fast way.
            0 => with_field((bias - bias.min(5)) + self.below(u64::from(bias.min(5)) + 2) as u32),
            // All exponents but the largest.
            1 => with_field(self.below((1 << exponent) - 1) as u32),
            // Tiny, subnormal and zero.
            2 if is_rare => any & 1 << (bits - 1),
            2 => with_field(self.below(u64::from(bias / 3 + 1)) as u32),
            // All exponents of tame operands, and zero.
            TAME if is_rare => any & 1 << (bits - 1),
            TAME if exponent == 8 => with_field(bias - 30 + self.below(91) as u32),
            TAME => with_field(self.below((1 << exponent) - 1) as u32),
            // The largest below two: sums of products that do not fit with the accumulator.
            FULL => bias << place | ((1 << place) - 1),
            // Now and then anything.
            _ if is_rare => any | ((1 << exponent) - 1) << place,
            _ => with_field(bias),
        }
    }
}

fn format_of(element: Element) -> (u32, u32, u32) {
    match element {
        Element::F16 => (5, 10, 0),
        Element::Bf16 => (8, 7, 0),
        Element::E4m3 => (4, 3, 0),
        Element::E5m2 => (5, 2, 0),
        _ => (8, 10, 13),
    }
}

/// A case of one of `MMA_FORMS`; every row and every column has its own kind of numbers. In half of the cases all of A and B are
/// tame, and in half of those also C.
fn random_case(form: usize, seed: u64) -> Case {
    let (a_type, b_type, accumulator, k) = MMA_FORMS[form];
    let mut random = Random(seed);
    let tame = random.below(4);
    let mut numbers = |format: (u32, u32, u32), groups: usize, length: usize| -> Vec<u32> {
        let modes: &[u32] = match (tame, groups) {
            (0, _) | (1, 8 | 16) => &[0, TAME, FULL, FULL],
            _ => &[0, 0, 0, 1, 1, 2, 3],
        };
        let mut all = Vec::new();
        for _ in 0..groups {
            let mode = modes[random.below(modes.len() as u64) as usize];
            all.extend((0..length).map(|_| random.number(format, mode)));
        }
        all
    };
    let c_format = if accumulator == Accumulator::F16 {
        (5, 10, 0)
    } else {
        (8, 23, 0)
    };
    Case {
        k,
        a_type,
        b_type,
        accumulator,
        a: numbers(format_of(a_type), 16, k),
        b: numbers(format_of(b_type), 8, k),
        c: numbers(c_format, 32, 4),
    }
}

proptest! {
    #[test]
    fn the_fast_way_agrees_with_the_slow_one(form in 0..MMA_FORMS.len(), seed: u64, which in 0..3usize) {
        let case = random_case(form, seed);
        let generation = GENERATIONS[which];
        // Elsewhere FP8 goes through f16, which has a test of its own.
        if !is_fp8(case.a_type) || generation == Generation::Ada {
            let shape = Mma { n: 8, k: case.k as u16, a: case.a_type, b: case.b_type, accumulator: case.accumulator, satfinite: false };
            let expected = case.slow(&Model::mma(generation, &shape));
            assert_same("mma", &case, &case.mma(generation, false), &expected);
            assert_same("mma on arrays", &case, &case.mma_plain(generation, false), &expected);
        }
        let shape = case.shape(false);
        let expected = case.slow(&Model::wgmma(&shape));
        if case.k * bits_of(case.a_type) == 256 {
            assert_same("wgmma", &case, &case.wgmma(&shape, true), &expected);
            assert_same("wgmma on arrays", &case, &case.wgmma_plain(&shape), &expected);
        }
    }

    #[test]
    fn fp8_on_hopper_is_two_mma_of_f16(seed: u64, form in 8..12usize) {
        use crate::arith::Round;
        use crate::arith::format::{E4M3, E5M2, F16};
        let case = random_case(form, seed);
        let half = |element, elements: &[u32], start: usize| -> Vec<u32> {
            let format = if element == Element::E4m3 { E4M3 } else { E5M2 };
            let wide = |bits: &u32| F16.convert(&format, u64::from(*bits), Round::Near, false) as u32;
            elements.chunks(32).flat_map(|row| row[start..start + 16].iter().map(wide)).collect()
        };
        let part = |start, c| Case {
            k: 16,
            a_type: Element::F16,
            b_type: Element::F16,
            accumulator: case.accumulator,
            a: half(case.a_type, &case.a, start),
            b: half(case.b_type, &case.b, start),
            c,
        };
        let first = part(0, case.c.clone()).mma(Generation::Hopper, false);
        let expected = part(16, first).mma(Generation::Hopper, false);
        assert_same("fp8", &case, &case.mma(Generation::Hopper, false), &expected);
    }

    #[test]
    fn integers_agree_with_loops(seed: u64, a_signed: bool, b_signed: bool, long: bool, saturate: bool, extreme: bool) {
        let mut random = Random(seed);
        let k = if long { 32 } else { 16 };
        let mut bytes = |count: usize| -> Vec<u32> {
            (0..count).map(|_| if extreme { [0x80, 0x7f, 0xff][random.below(3) as usize] } else { random.below(256) as u32 }).collect()
        };
        let (a, b) = (bytes(16 * k), bytes(8 * k));
        let c: Vec<u32> = (0..128)
            .map(|_| random.below(1 << 32) as u32)
            .map(|c| if extreme { c | 0x7fff_0000 } else { c })
            .collect();
        let ty = |signed| if signed { Element::S8 } else { Element::U8 };
        let case = Case { k, a_type: ty(a_signed), b_type: ty(b_signed), accumulator: Accumulator::S32, a, b, c };
        let value = |signed: bool, bits: u32| if signed { i64::from(bits as u8 as i8) } else { i64::from(bits) };
        let expected: Vec<u32> = (0..128)
            .map(|at| {
                let (row, column) = (at / 8, at % 8);
                let dot: i64 = (0..k).map(|i| value(a_signed, case.a[row * k + i]) * value(b_signed, case.b[column * k + i])).sum();
                let sum = i64::from(case.c[at] as i32) + dot;
                if saturate { sum.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32 } else { sum as u32 }
            })
            .collect();
        assert_same("mma", &case, &case.mma(Generation::Ampere, saturate), &expected);
        assert_same("mma on arrays", &case, &case.mma_plain(Generation::Ampere, saturate), &expected);
        if long {
            assert_same("wgmma", &case, &case.wgmma(&case.shape(saturate), true), &expected);
        }
    }
}

/// Bits of a small integer.
fn small(element: Element, value: i32) -> u32 {
    let format = match element {
        Element::F16 => crate::arith::format::F16,
        Element::Bf16 => crate::arith::format::BF16,
        Element::E4m3 => crate::arith::format::E4M3,
        Element::E5m2 => crate::arith::format::E5M2,
        _ => crate::arith::format::TF32,
    };
    let bits = u64::from((value as f32).to_bits());
    format.convert(
        &crate::arith::format::F32,
        bits,
        crate::arith::Round::Near,
        false,
    ) as u32
}

/// Small integers, of which every format and every sum is exact, and their product in row order: `a`, `b`, `c`, `d`.
fn small_case(form: usize, seed: u64) -> (Case, [Vec<i32>; 4]) {
    let (a_type, b_type, accumulator, k) = MMA_FORMS[form];
    let mut random = Random(seed);
    let mut integers =
        |count: usize| -> Vec<i32> { (0..count).map(|_| random.below(7) as i32 - 3).collect() };
    let (a, b, c) = (integers(16 * k), integers(8 * k), integers(128));
    let d = (0..128)
        .map(|at| {
            c[at]
                + (0..k)
                    .map(|i| a[at / 8 * k + i] * b[at % 8 * k + i])
                    .sum::<i32>()
        })
        .collect();
    let bits = |element, values: &[i32]| values.iter().map(|v| small(element, *v)).collect();
    let case = Case {
        k,
        a_type,
        b_type,
        accumulator,
        a: bits(a_type, &a),
        b: bits(b_type, &b),
        c: bits(c_type(accumulator), &c),
    };
    (case, [a, b, c, d])
}

fn c_type(accumulator: Accumulator) -> Element {
    if accumulator == Accumulator::F16 {
        Element::F16
    } else {
        Element::Tf32
    }
}

#[test]
fn accumulators_of_any_size_survive_products_of_zero() {
    for form in 0..MMA_FORMS.len() {
        for seed in 0..50 {
            let mut case = random_case(form, seed);
            case.a.fill(0);
            // Infinities times zero would not be zero.
            case.b = small_case(form, seed).0.b;
            let shape = case.shape(false);
            let expected = case.slow(&Model::wgmma(&shape));
            let found = case.mma(Generation::Hopper, false);
            if !is_fp8(case.a_type) {
                assert_same("mma", &case, &found, &expected);
            }
            let found = case.wgmma(&shape, true);
            assert_same("wgmma", &case, &found, &expected);
        }
    }
}

#[test]
fn fragments_agree_with_plain_products() {
    for (form, (.., accumulator, _)) in MMA_FORMS.iter().enumerate() {
        for generation in GENERATIONS {
            let (case, [.., d]) = small_case(form, 7 + form as u64);
            let expected: Vec<u32> = d.iter().map(|v| small(c_type(*accumulator), *v)).collect();
            assert_same(
                &format!("{generation:?}"),
                &case,
                &case.mma(generation, false),
                &expected,
            );
        }
    }
}

#[test]
fn wgmma_scales_by_its_immediates() {
    for (form, (a_type, _, accumulator, k)) in MMA_FORMS.iter().enumerate() {
        if k * bits_of(*a_type) != 256 {
            continue;
        }
        for (negate_a, negate_b, scale_d) in [
            (false, false, false),
            (true, false, true),
            (false, true, true),
            (true, true, false),
        ] {
            let (case, [_, _, c, d]) = small_case(form, 70 + form as u64);
            let shape = Wgmma {
                negate_a,
                negate_b,
                ..case.shape(false)
            };
            let expected: Vec<u32> = (0..128)
                .map(|at| {
                    let product = d[at] - c[at];
                    let product = if negate_a != negate_b {
                        -product
                    } else {
                        product
                    };
                    small(
                        c_type(*accumulator),
                        product + if scale_d { c[at] } else { 0 },
                    )
                })
                .collect();
            assert_same("wgmma", &case, &case.wgmma(&shape, scale_d), &expected);
        }
    }
}

#[test]
fn wgmma_is_one_product_for_every_warp_and_every_eight_columns() {
    for form in [1, 3] {
        let cases: Vec<Case> = (0..6).map(|seed| small_case(form, seed).0).collect();
        let registers = if cases[0].accumulator == Accumulator::F16 {
            2
        } else {
            4
        };
        let shape = Wgmma {
            n: 24,
            ..cases[0].shape(false)
        };
        // Two warps with the rows of the first cases, three blocks with the columns of the first three.
        let a = [cases[0].rows(), cases[1].rows()];
        let b = [cases[0].columns(), cases[1].columns(), cases[2].columns()];
        let mut d: Vec<Vec<[u32; 32]>> = (0..2)
            .map(|warp| {
                (0..3)
                    .flat_map(|block| cases[warp * 3 + block].c_registers())
                    .collect()
            })
            .collect();
        let [first, second] = &mut d[..] else {
            panic!("two warps")
        };
        let mut tiles = [tile(&a[0], first), tile(&a[1], second)];
        wgmma(&shape, &b, true, &mut tiles);
        for warp in 0..2 {
            for block in 0..3 {
                let single = Case {
                    a: cases[warp].a.clone(),
                    b: cases[block].b.clone(),
                    ..cases[warp * 3 + block].clone()
                };
                let found = single.unpack(&d[warp][block * registers..][..registers]);
                assert_same(
                    "block",
                    &single,
                    &found,
                    &single.wgmma(&single.shape(false), true),
                );
            }
        }
    }
}

#[test]
fn wgmma_writes_the_registers_and_lanes_it_is_told() {
    let case = small_case(1, 5).0;
    let expected = case.wgmma(&case.shape(false), true);
    let (c, a) = (case.c_registers(), case.rows());
    // Last first, a row of something else between any two, and every second lane stays.
    let mask = 0x5555_5555;
    let mut registers = vec![[7; 32]; 2 * c.len()];
    let accumulators: Vec<u32> = (0..c.len() as u32).rev().map(|i| 2 * i).collect();
    for (&row, c) in accumulators.iter().zip(&c) {
        registers[row as usize] = *c;
    }
    let tile = Tile {
        a: &a,
        registers: &mut registers,
        accumulators: &accumulators,
        mask,
    };
    wgmma(&case.shape(false), &[case.columns()], true, &mut [tile]);
    let mut found = Vec::new();
    for (i, &row) in accumulators.iter().enumerate() {
        let mut register = registers[row as usize];
        for lane in (0..32).filter(|lane| mask >> lane & 1 == 0) {
            assert_eq!(register[lane], c[i][lane]);
        }
        found.push(register);
        register = registers[row as usize + 1];
        assert_eq!(register, [7; 32]);
    }
    let (found, before) = (case.unpack(&found), case.unpack(&c));
    // Even lanes have the columns 4 i and 4 i + 1 of eight.
    for (at, found) in found.into_iter().enumerate() {
        let is_written = at % 8 / 2 % 2 == 0;
        assert_eq!(found, if is_written { expected[at] } else { before[at] });
    }
}

#[test]
fn both_orders_of_memory_give_the_same_columns() {
    let case = random_case(1, 3);
    let steps =
        std::array::from_fn(|k| std::array::from_fn(|column| case.b[column * 16 + k] as u16));
    assert_eq!(columns_n_major(&steps), case.columns());
}

#[test]
fn numbers_that_are_not_finite_reach_the_outputs_that_they_are_in() {
    for (form, (a_type, _, accumulator, _)) in MMA_FORMS.iter().enumerate() {
        for (seed, bits) in (0..40).zip(
            [u32::MAX, 0x7f80_0000, 0xff80_0000, 0x7fff_ffff]
                .iter()
                .cycle(),
        ) {
            let (mut case, _) = small_case(form, seed);
            let mut random = Random(seed);
            let (exponent, fraction, low) = format_of(*a_type);
            let special = bits >> (31 - exponent - fraction - low);
            for _ in 0..random.below(3) {
                let at = random.below(case.a.len() as u64) as usize;
                case.a[at] = special;
            }
            for _ in 0..random.below(3) {
                let at = random.below(case.b.len() as u64) as usize;
                case.b[at] = special;
            }
            let c_special = if *accumulator == Accumulator::F16 {
                bits >> 16 & 0xfc00
            } else {
                *bits
            };
            case.c[random.below(128) as usize] = c_special;
            let generation = if is_fp8(*a_type) {
                Generation::Ada
            } else {
                GENERATIONS[seed as usize % 3]
            };
            let shape = Mma {
                n: 8,
                k: case.k as u16,
                a: case.a_type,
                b: case.b_type,
                accumulator: case.accumulator,
                satfinite: false,
            };
            let expected = case.slow(&Model::mma(generation, &shape));
            assert_same("mma", &case, &case.mma(generation, false), &expected);
            assert_same(
                "mma on arrays",
                &case,
                &case.mma_plain(generation, false),
                &expected,
            );
        }
    }
}

#[test]
fn e4m3_is_exact_in_f16() {
    use crate::arith::Round;
    use crate::arith::format::{E4M3, F16};
    for byte in 0..=255u32 {
        let mut rows = Rows::default();
        rows[0][0] = byte;
        let [first, _] = decode::widen_rows(Element::E4m3, &rows);
        let expected = F16.convert(&E4M3, u64::from(byte), Round::Near, false) as u32;
        let is_nan = byte & 0x7f == 0x7f;
        assert!(
            first[0][0] == expected || is_nan && first[0][0] & 0x7fff > 0x7c00,
            "{byte:02x}"
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn conversions_agree_with_arrays() {
    if !has_avx2() {
        return;
    }
    for high in 0..1u32 << 13 {
        let words = std::array::from_fn(|i| (high * 8 + i as u32) | (high ^ 0x5a5a) << 16);
        // All exponents that accumulators can have, with ties and what is next to them.
        let floats: [f32; 8] = std::array::from_fn(|i| {
            let low = [
                0,
                1,
                0xfff,
                0x1000,
                0x1001,
                0x1fff,
                0x8000_0000,
                0x8000_1000,
            ][i];
            f32::from_bits((high << 17 ^ low) & !(1 << 30) | (high & 1) << 30)
        });
        let plain = conversions::<Plain>(words, floats);
        // SAFETY: the processor has AVX2 and F16C.
        let found = unsafe { conversions_avx2(words, floats) };
        assert_eq!(found, plain, "{words:x?} {floats:?}");
    }
}

/// Bits of values that are not NaN, whose payload is nobody's business.
fn bits(values: [f32; 8]) -> [u32; 8] {
    values.map(|value| {
        if value.is_nan() {
            u32::MAX
        } else {
            value.to_bits()
        }
    })
}

#[inline(always)]
fn conversions<E: Eight>(words: [u32; 8], floats: [f32; 8]) -> [[u32; 8]; 5] {
    let [low, high] = E::f16_halves(E::load_words(&words));
    let joined = E::f16_join(words.first_chunk().unwrap_or(&[0; 4]));
    let floats = E::load_floats(&floats);
    let [a, b, c, d] = E::f16_split(floats);
    let rounded = E::f16_round(floats);
    [
        bits(bytemuck::cast(low)),
        bits(bytemuck::cast(high)),
        bits(bytemuck::cast(joined)),
        bits(bytemuck::cast(rounded)),
        [a, b, c, d, 0, 0, 0, 0],
    ]
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn conversions_avx2(words: [u32; 8], floats: [f32; 8]) -> [[u32; 8]; 5] {
    conversions::<Avx2>(words, floats)
}

#[test]
fn generations() {
    assert_eq!(Generation::of((8, 0)), Generation::Ampere);
    assert_eq!(Generation::of((8, 6)), Generation::Ampere);
    assert_eq!(Generation::of((8, 9)), Generation::Ada);
    assert_eq!(Generation::of((9, 0)), Generation::Hopper);
}
