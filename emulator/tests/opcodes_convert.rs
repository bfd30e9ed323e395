//! `cvt` between all types, with every rounding and saturation, against exact arithmetic.
#![allow(clippy::unwrap_used)] // a test

mod support;

use support::exact::{BF16, Big, E4M3, E5M2, F16, F32, F64, Fmt, Num, TF32, WAYS, Way};
use support::floats::{inputs, same, special};
use support::opcode::{H, INTEGERS, Kind, L, W, check, check_with, refusal, rows, value};

const INTS: [(&str, u32, bool); 8] = [
    ("u8", 8, false),
    ("s8", 8, true),
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];
const FLOATS: [(&str, Fmt, Kind); 4] = [
    ("f16", F16, H),
    ("bf16", BF16, H),
    ("f32", F32, W),
    ("f64", F64, L),
];

fn register(width: u32) -> Kind {
    match width {
        8 | 16 => H,
        32 => W,
        _ => L,
    }
}

fn limits(width: u32, signed: bool) -> (i128, i128) {
    if signed {
        (-(1 << (width - 1)), (1 << (width - 1)) - 1)
    } else {
        (0, (1 << width) - 1)
    }
}

#[test]
fn integers_to_integers() {
    for (to, to_width, to_signed) in INTS {
        for (from, from_width, from_signed) in INTS {
            for sat in [false, true] {
                let expected = |bits: u64| {
                    let x = value(bits, from_width, from_signed);
                    let (low, high) = limits(to_width, to_signed);
                    let x = if sat { x.clamp(low, high) } else { x };
                    value(x as u64, to_width, to_signed) as u64
                };
                let text = format!("cvt{}.{to}.{from} %d, %a;", if sat { ".sat" } else { "" });
                let (a, d) = (register(from_width), register(to_width));
                check(&text, &[a], &[d], &rows(&[INTEGERS], 60), |r| {
                    vec![expected(r[0])]
                });
                // Registers may be wider than the types.
                check(&text, &[L], &[L], &rows(&[INTEGERS], 60), |r| {
                    vec![expected(r[0])]
                });
                if to_width <= 16 && from_width <= 16 {
                    check(&text, &[W], &[W], &rows(&[INTEGERS], 60), |r| {
                        vec![expected(r[0])]
                    });
                }
            }
        }
    }
}

fn integer(x: i128) -> Num {
    Num::Fin(x < 0, Big::from(x.unsigned_abs()), 0)
}

#[test]
fn integers_to_floats() {
    for (to, f, kind) in FLOATS {
        for (from, width, signed) in INTS {
            for (round, way) in WAYS {
                let text = format!("cvt.{round}.{to}.{from} %d, %a;");
                check(
                    &text,
                    &[register(width)],
                    &[kind],
                    &rows(&[INTEGERS], 200),
                    |r| vec![f.bits(&integer(value(r[0], width, signed)), way, false)],
                );
            }
        }
    }
    check(
        "cvt.rn.sat.f32.s32 %d, %a;",
        &[W],
        &[W],
        &rows(&[INTEGERS], 50),
        |r| vec![if (r[0] as i32) > 0 { 0x3f80_0000 } else { 0 }],
    );
}

/// The integer that a number rounds to, as far as 2^100.
fn rounded(number: &Num, way: Way) -> Option<i128> {
    let (negative, magnitude, exponent) = match number {
        Num::Nan => return None,
        Num::Inf(negative) => return Some(if *negative { -(1 << 100) } else { 1 << 100 }),
        Num::Fin(negative, magnitude, exponent) => (*negative, magnitude, *exponent),
    };
    let kept = if exponent >= 0 {
        magnitude.low() << exponent.min(70)
    } else {
        let drop = exponent.unsigned_abs();
        let (kept, half, rest) = (
            magnitude.shr(drop).low(),
            magnitude.bit(drop - 1),
            magnitude.any_below(drop - 1),
        );
        let up = match way {
            Way::Near => half && (rest || kept & 1 == 1),
            Way::Away => half,
            Way::Zero => false,
            Way::Down => negative && (half || rest),
            Way::Up => !negative && (half || rest),
        };
        kept + u128::from(up)
    };
    let value = kept as i128;
    Some(if negative { -value } else { value })
}

const INTEGRAL: [(&str, Way); 4] = [
    ("rni", Way::Near),
    ("rzi", Way::Zero),
    ("rmi", Way::Down),
    ("rpi", Way::Up),
];

/// Numbers near to integers and to the ends of the integer types.
fn with_integers(f: Fmt) -> Vec<Vec<u64>> {
    let mut all = inputs(f, 1);
    for power in 0..70 {
        for (add, half) in [(0i128, 0), (1, 0), (-1, 0), (0, 1), (1, 1), (-1, 1)] {
            // Halves too, in units of a half.
            let number = Num::Fin(
                false,
                Big::from((2 * ((1i128 << power) + add) + half).unsigned_abs()),
                -1,
            );
            for way in [Way::Zero, Way::Up] {
                let bits = f.bits(&number, way, false);
                all.push(vec![bits]);
                all.push(vec![bits | f.sign()]);
            }
        }
    }
    all
}

#[test]
fn floats_to_integers() {
    for (from, f, kind) in FLOATS {
        let inputs = with_integers(f);
        for (to, width, signed) in INTS {
            for (round, way) in INTEGRAL {
                for ftz in [false, true] {
                    if ftz && f != F32 {
                        continue;
                    }
                    let text = format!(
                        "cvt.{round}{}.{to}.{from} %d, %a;",
                        if ftz { ".ftz" } else { "" }
                    );
                    check(&text, &[kind], &[register(width)], &inputs, |r| {
                        let bits = if ftz { f.flush(r[0]) } else { r[0] };
                        let (low, high) = limits(width, signed);
                        let result = match rounded(&f.num(bits), way) {
                            Some(x) => x.clamp(low, high),
                            // The manual's rule for NaN.
                            None if f == F64 || width == 64 => 1 << (width - 1),
                            None => 0,
                        };
                        vec![value(result as u64, width, signed) as u64]
                    });
                }
            }
        }
    }
}

#[test]
fn floats_to_integral_floats() {
    for (ty, f, kind) in FLOATS {
        for (round, way) in INTEGRAL {
            for (ftz, sat) in [(false, false), (true, false), (false, true), (true, true)] {
                if ftz && f != F32 || sat && f != F32 && f != F64 {
                    continue;
                }
                let text = format!(
                    "cvt.{round}{}{}.{ty}.{ty} %d, %a;",
                    if ftz { ".ftz" } else { "" },
                    if sat { ".sat" } else { "" }
                );
                check_with(
                    &text,
                    &[kind],
                    &[kind],
                    &with_integers(f),
                    |r| {
                        let bits = if ftz { f.flush(r[0]) } else { r[0] };
                        let result = match f.num(bits) {
                            Num::Fin(negative, magnitude, exponent) if exponent < 0 => {
                                let x = rounded(
                                    &Num::Fin(false, magnitude.clone(), exponent),
                                    if !negative {
                                        way
                                    } else {
                                        match way {
                                            Way::Down => Way::Up,
                                            Way::Up => Way::Down,
                                            other => other,
                                        }
                                    },
                                );
                                f.bits(
                                    &Num::Fin(negative, Big::from(x.unwrap() as u128), 0),
                                    Way::Near,
                                    false,
                                )
                            }
                            Num::Nan => f.nan,
                            _ => bits,
                        };
                        vec![if sat { unit(f, result) } else { result }]
                    },
                    same(f),
                );
            }
        }
    }
}

/// `.sat`.
fn unit(f: Fmt, bits: u64) -> u64 {
    let one = f.infinity() >> 1 & !((1 << f.fraction) - 1);
    if f.is_nan(bits) || bits & f.sign() != 0 {
        0
    } else {
        bits.min(one)
    }
}

/// What may happen to a converted number.
#[derive(Clone, Copy, Default, PartialEq)]
struct With {
    ftz: bool,
    sat: bool,
    satfinite: bool,
    relu: bool,
}

impl With {
    fn name(self) -> String {
        [
            (self.ftz, ".ftz"),
            (self.sat, ".sat"),
            (self.relu, ".relu"),
            (self.satfinite, ".satfinite"),
        ]
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| *name)
        .collect()
    }

    fn convert(self, to: Fmt, from: Fmt, bits: u64, way: Way) -> u64 {
        let bits = bits & (from.sign() | (from.sign() - 1));
        let bits = if self.ftz && from == F32 {
            from.flush(bits)
        } else {
            bits
        };
        let negative = bits & from.sign() != 0;
        if self.relu && negative && !from.is_nan(bits) {
            return 0;
        }
        let result = to.bits(&from.num(bits), way, false);
        let is_finite = result & (to.sign() - 1) <= to.max();
        let result = if self.satfinite && !is_finite && !from.is_nan(bits) {
            to.max() | if negative { to.sign() } else { 0 }
        } else {
            result
        };
        let result = if self.ftz && to == F32 {
            to.flush(result)
        } else {
            result
        };
        if self.sat { unit(to, result) } else { result }
    }
}

fn floats(f: Fmt) -> Vec<Vec<u64>> {
    let mut all = inputs(f, 1);
    // Numbers at which narrower formats round, overflow or end.
    for narrow in [F16, BF16, E4M3, E5M2, TF32, F32] {
        if narrow.fraction >= f.fraction {
            continue;
        }
        for bits in [
            1,
            2,
            narrow.max() - 1,
            narrow.max(),
            1 << narrow.fraction,
            (1 << narrow.fraction) - 1,
        ] {
            let Num::Fin(_, magnitude, exponent) = narrow.num(bits) else {
                continue;
            };
            // It, half a step more, and a little to each side of that.
            for (add, down) in [
                (0u128, 0u128),
                (1 << 20, 0),
                (1 << 20, 1),
                (1 << 20, 2),
                (1 << 21, 1),
            ] {
                let number = Num::Fin(
                    false,
                    Big::from((magnitude.low() << 21) + add - down.min(add)),
                    exponent - 21,
                );
                for way in [Way::Zero, Way::Up] {
                    let wide = f.bits(&number, way, false);
                    all.extend([vec![wide], vec![wide | f.sign()]]);
                }
            }
        }
    }
    all
}

#[test]
fn floats_to_floats() {
    let plain = With::default();
    let ftz = With { ftz: true, ..plain };
    let sat = With { sat: true, ..plain };
    let relu = With {
        relu: true,
        ..plain
    };
    let satfinite = With {
        satfinite: true,
        ..plain
    };
    for (to, t, to_kind) in FLOATS {
        for (from, f, from_kind) in FLOATS {
            let widens = t.fraction >= f.fraction && t.exponent >= f.exponent;
            let ways = if widens {
                &[("", Way::Near)][..]
            } else {
                &WAYS[..]
            };
            for &(round, way) in ways {
                let mut all = vec![plain];
                if t == F32 && f != BF16 {
                    all.extend([ftz, sat]);
                } else if f == F32 && t == F16 {
                    all.extend([ftz, relu, satfinite, sat]);
                } else if f == F32 && t == BF16 {
                    all.extend([relu, satfinite]);
                }
                for with in all {
                    let dot = if round.is_empty() { "" } else { "." };
                    let text = format!("cvt{dot}{round}{}.{to}.{from} %d, %a;", with.name());
                    check_with(
                        &text,
                        &[from_kind],
                        &[to_kind],
                        &floats(f),
                        |r| {
                            // A copy between equal types has nothing to round.
                            vec![with.convert(t, f, r[0], way)]
                        },
                        |a, b| same(t)(a, b) || t == f && t.is_nan(a) && t.is_nan(b),
                    );
                }
            }
        }
    }
    for (round, way) in [("rna", Way::Away), ("rn", Way::Near), ("rz", Way::Zero)] {
        for with in [plain, satfinite, relu] {
            if with == relu && round == "rna" {
                continue;
            }
            check_with(
                &format!("cvt.{round}{}.tf32.f32 %d, %a;", with.name()),
                &[W],
                &[W],
                &floats(F32),
                |r| vec![with.convert(TF32, F32, r[0], way) << 13],
                same_tf32,
            );
        }
    }
}

fn same_tf32(a: u64, b: u64) -> bool {
    F32.is_nan(a) && F32.is_nan(b)
}

#[test]
fn pairs() {
    let plain = With::default();
    let mut pairs = floats(F32);
    for (row, other) in pairs.clone().iter().rev().zip(&mut pairs) {
        other.push(row[0]);
    }
    for (to, t, shift) in [
        ("f16", F16, 16),
        ("bf16", BF16, 16),
        ("e4m3", E4M3, 8),
        ("e5m2", E5M2, 8),
    ] {
        let kind = if shift == 16 { W } else { H };
        for (round, way) in [("rn", Way::Near), ("rz", Way::Zero)] {
            for (relu, satfinite) in [(false, false), (true, false), (false, true), (true, true)] {
                // Eight bits always saturate, to nearest.
                if shift == 8 && (!satfinite || way != Way::Near) {
                    continue;
                }
                let with = With {
                    relu,
                    satfinite,
                    ..plain
                };
                check(
                    &format!("cvt.{round}{}.{to}x2.f32 %d, %a, %b;", with.name()),
                    &[W, W],
                    &[kind],
                    &pairs,
                    |r| {
                        let part = |bits| with.convert(t, F32, bits, way);
                        vec![part(r[0]) << shift | part(r[1])]
                    },
                );
            }
        }
    }
    let halves = rows(&[&special(F32), &[0]], 2000);
    // Every byte in either place.
    let bytes: Vec<Vec<u64>> = (0..=0xff)
        .map(|byte| vec![byte << 8 | ((byte * 77) & 0xff)])
        .collect();
    for (ty, e) in [("e4m3", E4M3), ("e5m2", E5M2)] {
        for relu in [false, true] {
            let with = With { relu, ..plain };
            check(
                &format!("cvt.rn{}.f16x2.{ty}x2 %d, %a;", with.name()),
                &[H],
                &[W],
                &bytes,
                |r| {
                    let part = |shift: u32| with.convert(F16, e, r[0] >> shift & 255, Way::Near);
                    vec![part(0) | part(8) << 16]
                },
            );
            let with = With {
                satfinite: true,
                ..with
            };
            check(
                &format!("cvt.rn{}.{ty}x2.f16x2 %d, %a;", with.name()),
                &[W],
                &[H],
                &halves,
                |r| {
                    let part = |shift: u32| with.convert(e, F16, r[0] >> shift & 0xffff, Way::Near);
                    vec![part(0) | part(16) << 8]
                },
            );
        }
    }
}

#[test]
fn what_is_refused_is_named() {
    for (text, what) in [
        ("cvt.rs.f16x2.f32 %d, %a, %b, %c;", "the modifier .rs"),
        (
            "cvt.rn.relu.f32.f64 %d, %tl0;",
            "the modifier .relu with the type .f32",
        ),
        (
            "cvt.ftz.u32.u16 %d, %th0;",
            "the modifier .ftz without the type .f32",
        ),
        ("cvt.rni.f32.f64 %d, %tl0;", "rounding to an integer"),
        ("cvt.rn.satfinite.e2m1x2.f32 %th0, %a, %b;", "e2m1x2"),
        ("cvt.rn.satfinite.e4m3.f32 %th0, %a;", "this pair of types"),
        ("cvt.pack.sat.u32.s32 %d, %a, %b;", "the type .u32"),
    ] {
        let error = refusal(text, &[W; 3], &[W]);
        assert!(error.contains(what), "{text}: {error}");
    }
}
