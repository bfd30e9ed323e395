//! Both ways against what MMA-Sim returned.

use super::super::*;
use super::case::{Case, assert_same, bits_of};

const VECTORS: &str = include_str!("../../../tests/data/mmasim/vectors.txt");

fn element(name: &str) -> Element {
    match name {
        "f16" => Element::F16,
        "bf16" => Element::Bf16,
        "tf32" => Element::Tf32,
        "e4m3" => Element::E4m3,
        "e5m2" => Element::E5m2,
        _ => panic!("{name}"),
    }
}

fn hexadecimal(line: &str, bits: usize) -> Vec<u32> {
    line.as_bytes()
        .chunks(bits / 4)
        .map(|digits| u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn agrees_with_mma_sim() {
    let mut lines = VECTORS.lines().filter(|line| !line.starts_with('#'));
    let mut cases = 0;
    while let Some(name) = lines.next() {
        let words: Vec<&str> = name.split(' ').collect();
        let [_, arch, unit, shape, d_type, a_type, b_type] = words[..] else {
            panic!("{name}");
        };
        let accumulator = if d_type == "f16" {
            Accumulator::F16
        } else {
            Accumulator::F32
        };
        let (a_type, b_type) = (element(a_type), element(b_type));
        let mut take = |bits| hexadecimal(lines.next().unwrap(), bits);
        let c_bits = if d_type == "f16" { 16 } else { 32 };
        let case = Case {
            k: shape.split('k').nth(1).unwrap().parse().unwrap(),
            a_type,
            b_type,
            accumulator,
            a: take(bits_of(a_type)),
            b: take(bits_of(b_type)),
            c: take(c_bits),
        };
        let expected = take(c_bits);
        let (model, found) = if unit == "wgmma" {
            let shape = case.shape(false);
            (Model::wgmma(&shape), case.wgmma(&shape, true))
        } else {
            let generation = match arch {
                "Ampere" => Generation::Ampere,
                "Ada" => Generation::Ada,
                _ => Generation::Hopper,
            };
            let mma = Mma {
                n: 8,
                k: case.k as u16,
                a: a_type,
                b: b_type,
                accumulator,
                satfinite: false,
            };
            (Model::mma(generation, &mma), case.mma(generation, false))
        };
        assert_same(
            &format!("slow, {name}"),
            &case,
            &case.slow(&model),
            &expected,
        );
        assert_same(name, &case, &found, &expected);
        cases += 1;
    }
    assert_eq!(cases, 80);
}
