//! Every integer instruction, of every type, against 128-bit arithmetic.
#![allow(clippy::unwrap_used)] // a test

mod support;

use support::opcode::{FEW, H, INTEGERS, Kind, L, W, check, refusal, rows, value};

/// Types with their width.
const TYPES: [(&str, Kind, u32, bool); 6] = [
    ("u16", H, 16, false),
    ("s16", H, 16, true),
    ("u32", W, 32, false),
    ("s32", W, 32, true),
    ("u64", L, 64, false),
    ("s64", L, 64, true),
];
const BITS: [(&str, Kind, u32); 3] = [("b16", H, 16), ("b32", W, 32), ("b64", L, 64)];

fn pairs() -> Vec<Vec<u64>> {
    rows(&[INTEGERS, INTEGERS], 300)
}

fn binary(name: &str, f: impl Fn(i128, i128, u32, bool) -> i128) {
    for (ty, kind, width, signed) in TYPES {
        check(
            &format!("{name}.{ty} %d, %a, %b;"),
            &[kind, kind],
            &[kind],
            &pairs(),
            |r| {
                vec![f(
                    value(r[0], width, signed),
                    value(r[1], width, signed),
                    width,
                    signed,
                ) as u64]
            },
        );
    }
}

#[test]
fn sums_products_and_extremes() {
    binary("add", |a, b, _, _| a + b);
    binary("sub", |a, b, _, _| a - b);
    binary("mul.lo", |a, b, _, _| a.wrapping_mul(b));
    binary("min", |a, b, _, _| a.min(b));
    binary("max", |a, b, _, _| a.max(b));
    binary("mul.hi", |a, b, width, signed| {
        if signed {
            (a * b) >> width
        } else {
            ((a as u128).wrapping_mul(b as u128) >> width) as i128
        }
    });
    for (ty, kind, width, signed) in TYPES {
        let ones = -1;
        check(
            &format!("div.{ty} %d, %a, %b;\nrem.{ty} %e, %a, %b;"),
            &[kind, kind],
            &[kind, kind],
            &pairs(),
            |r| {
                let (a, b) = (value(r[0], width, signed), value(r[1], width, signed));
                // What hardware does with a divisor of 0.
                let (quotient, rest) = if b == 0 { (ones, a) } else { (a / b, a % b) };
                vec![quotient as u64, rest as u64]
            },
        );
    }
}

#[test]
fn immediates_and_negative_numbers() {
    for (text, f) in [
        ("add.s32 %d, %a, -7;", (|a| a - 7) as fn(i128) -> i128),
        ("sub.s32 %d, -1, %a;", |a| -1 - a),
        ("mul.lo.s32 %d, %a, 0x7fffffff;", |a| a * 0x7fff_ffff),
        ("mad.lo.s32 %d, %a, 3, 0U;", |a| a * 3),
        ("and.b32 %d, %a, 0b1010;", |a| a & 10),
        ("or.b32 %d, 017, %a;", |a| a | 15),
        ("max.s32 %d, %a, -5;", |a| a.max(-5)),
        ("shl.b32 %d, %a, 5;", |a| a << 5),
        ("add.s32 %d, %a, 3*(4+1)<<1;", |a| a + 30),
    ] {
        check(text, &[W], &[W], &rows(&[INTEGERS], 100), |r| {
            vec![f(value(r[0], 32, true)) as u64]
        });
    }
    check(
        "add.s64 %d, %a, -4294967297;",
        &[L],
        &[L],
        &rows(&[INTEGERS], 50),
        |r| vec![r[0].wrapping_sub(4_294_967_297)],
    );
    check(
        "add.s16 %d, %a, -1;",
        &[H],
        &[H],
        &rows(&[INTEGERS], 50),
        |r| vec![r[0].wrapping_sub(1)],
    );
}

#[test]
fn products_with_an_addend() {
    let triples = rows(&[FEW, FEW, FEW], 200);
    for (ty, kind, width, signed) in TYPES {
        for high in [false, true] {
            let part = if high { "hi" } else { "lo" };
            check(
                &format!("mad.{part}.{ty} %d, %a, %b, %c;"),
                &[kind; 3],
                &[kind],
                &triples,
                |r| {
                    let [a, b, c] = [0, 1, 2].map(|i| value(r[i], width, signed));
                    let product = if signed {
                        a * b
                    } else {
                        (a as u128).wrapping_mul(b as u128) as i128
                    };
                    let product = match (high, signed) {
                        (false, _) => product,
                        (true, true) => product >> width,
                        (true, false) => (product as u128 >> width) as i128,
                    };
                    vec![product.wrapping_add(c) as u64]
                },
            );
        }
        if width == 64 {
            continue;
        }
        let wide = if width == 16 { W } else { L };
        check(
            &format!("mul.wide.{ty} %d, %a, %b;\nmad.wide.{ty} %e, %a, %b, %c;"),
            &[kind, kind, wide],
            &[wide, wide],
            &triples,
            |r| {
                let product = value(r[0], width, signed) * value(r[1], width, signed);
                vec![product as u64, (product + i128::from(r[2])) as u64]
            },
        );
    }
    for (ty, signed) in [("u32", false), ("s32", true)] {
        check(
            &format!("mul24.lo.{ty} %d, %a, %b;\nmad24.lo.{ty} %e, %a, %b, %c;"),
            &[W; 3],
            &[W, W],
            &triples,
            |r| {
                let product = value(r[0], 24, signed) * value(r[1], 24, signed);
                vec![product as u64, (product + i128::from(r[2])) as u64]
            },
        );
    }
}

#[test]
fn saturation_and_signs() {
    for (name, sign) in [("add", 1), ("sub", -1)] {
        check(
            &format!("{name}.sat.s32 %d, %a, %b;"),
            &[W, W],
            &[W],
            &pairs(),
            |r| {
                let sum = value(r[0], 32, true) + sign * value(r[1], 32, true);
                vec![sum.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as u64]
            },
        );
    }
    for (ty, kind, width, signed) in TYPES {
        check(
            &format!("sad.{ty} %d, %a, %b, %c;"),
            &[kind; 3],
            &[kind],
            &rows(&[FEW, FEW, FEW], 100),
            |r| {
                let [a, b] = [0, 1].map(|i| value(r[i], width, signed));
                vec![(i128::from(r[2]) + (a - b).abs()) as u64]
            },
        );
        if signed {
            check(
                &format!("neg.{ty} %d, %a;\nabs.{ty} %e, %a;"),
                &[kind],
                &[kind, kind],
                &rows(&[INTEGERS], 100),
                |r| {
                    let a = value(r[0], width, true);
                    vec![-a as u64, a.unsigned_abs() as u64]
                },
            );
        }
    }
}

#[test]
fn shifts() {
    let amounts: &[u64] = &[
        0,
        1,
        5,
        15,
        16,
        17,
        31,
        32,
        33,
        63,
        64,
        65,
        255,
        256,
        u64::MAX,
    ];
    let inputs = rows(&[INTEGERS, amounts], 200);
    for (ty, kind, width) in BITS {
        check(
            &format!("shl.{ty} %d, %a, %b;"),
            &[kind, W],
            &[kind],
            &inputs,
            |r| {
                vec![if r[1] >= u64::from(width) {
                    0
                } else {
                    r[0] << r[1]
                }]
            },
        );
    }
    for (ty, kind, width, signed) in TYPES {
        check(
            &format!("shr.{ty} %d, %a, %b;"),
            &[kind, W],
            &[kind],
            &inputs,
            |r| vec![(value(r[0], width, signed) >> r[1].min(127)) as u64],
        );
    }
    for mode in ["wrap", "clamp"] {
        check(
            &format!("shf.l.{mode}.b32 %d, %a, %b, %c;\nshf.r.{mode}.b32 %e, %a, %b, %c;"),
            &[W; 3],
            &[W, W],
            &rows(&[FEW, FEW, amounts], 100),
            |r| {
                let amount = if mode == "wrap" {
                    r[2] & 31
                } else {
                    r[2].min(32)
                };
                let both = u128::from(r[1]) << 32 | u128::from(r[0]);
                vec![(both << amount >> 32) as u64, (both >> amount) as u64]
            },
        );
    }
}

#[test]
fn counts_and_searches() {
    for (ty, kind, width) in [("b32", W, 32u32), ("b64", L, 64)] {
        check(
            &format!("popc.{ty} %d, %a;\nclz.{ty} %e, %a;"),
            &[kind],
            &[W, W],
            &rows(&[INTEGERS], 200),
            |r| {
                let ones = (0..width).filter(|i| r[0] >> i & 1 == 1);
                let top = ones
                    .clone()
                    .next_back()
                    .map_or(width, |top| width - 1 - top);
                vec![ones.count() as u64, u64::from(top)]
            },
        );
        check(
            &format!("brev.{ty} %d, %a;"),
            &[kind],
            &[kind],
            &rows(&[INTEGERS], 200),
            |r| vec![(0..width).map(|i| (r[0] >> i & 1) << (width - 1 - i)).sum()],
        );
    }
    for (ty, kind, width, signed) in TYPES.into_iter().filter(|ty| ty.2 > 16) {
        check(
            &format!("bfind.{ty} %d, %a;\nbfind.shiftamt.{ty} %e, %a;"),
            &[kind],
            &[W, W],
            &rows(&[INTEGERS], 200),
            |r| {
                let a = value(r[0], width, signed);
                let a = if a < 0 { !a } else { a };
                match (0..width).rev().find(|i| a >> i & 1 == 1) {
                    Some(top) => vec![u64::from(top), u64::from(width - 1 - top)],
                    None => vec![u64::MAX; 2],
                }
            },
        );
    }
    let small: &[u64] = &[0, 1, 2, 5, 31];
    let offsets: &[u64] = &[
        0,
        1,
        2,
        3,
        32,
        33,
        u64::MAX,
        u64::MAX - 1,
        1 << 31,
        (1 << 31) - 1,
    ];
    check(
        "fns.b32 %d, %a, %b, %c;",
        &[W; 3],
        &[W],
        &rows(&[INTEGERS, small, offsets], 0),
        |r| {
            let (mask, base, offset) = (r[0], r[1] as i64, r[2] as i32);
            let is_set = |at: i64| (0..32).contains(&at) && mask >> at & 1 == 1;
            let mut count = i64::from(offset).abs() - 1;
            let mut at = base;
            if offset == 0 {
                return vec![if is_set(base) { base as u64 } else { u64::MAX }];
            }
            while (0..32).contains(&at) {
                if is_set(at) {
                    if count == 0 {
                        return vec![at as u64];
                    }
                    count -= 1;
                }
                at += i64::from(offset.signum());
            }
            vec![u64::MAX]
        },
    );
}

#[test]
fn fields() {
    let places: &[u64] = &[0, 1, 7, 16, 31, 32, 33, 63, 64, 100, 255, 256];
    for (ty, kind, width, signed) in TYPES.into_iter().filter(|ty| ty.2 > 16) {
        check(
            &format!("bfe.{ty} %d, %a, %b, %c;"),
            &[kind, W, W],
            &[kind],
            &rows(&[FEW, places, places], 100),
            |r| {
                let (at, length) = (r[1] & 255, r[2] & 255);
                let bit = |i: u64| r[0] >> i & 1;
                let top = u64::from(width) - 1;
                let sign = if signed && length > 0 {
                    bit((at + length - 1).min(top))
                } else {
                    0
                };
                let out = |i: u64| {
                    if i < length && at + i <= top {
                        bit(at + i)
                    } else {
                        sign
                    }
                };
                vec![(0..=top).map(|i| out(i) << i).sum()]
            },
        );
    }
    for (ty, kind, width) in [("b32", W, 32u64), ("b64", L, 64)] {
        for at in [0u64, 3, 31, 40, 200] {
            check(
                &format!("bfi.{ty} %d, %a, %b, {at}, %c;"),
                &[kind, kind, W],
                &[kind],
                &rows(&[FEW, FEW, places], 50),
                |r| {
                    let length = r[2] & 255;
                    let mut out = r[1];
                    for i in (0..length).filter(|i| at + i < width) {
                        out = out & !(1 << (at + i)) | (r[0] >> i & 1) << (at + i);
                    }
                    vec![out]
                },
            );
        }
    }
    for mode in ["wrap", "clamp"] {
        let wraps = mode == "wrap";
        let cut = move |x: u64| if wraps { x & 31 } else { x.min(32) };
        check(
            &format!("bmsk.{mode}.b32 %d, %a, %b;"),
            &[W, W],
            &[W],
            &rows(&[places, places], 50),
            |r| {
                let (at, length) = (cut(r[0]), cut(r[1]));
                vec![
                    (0..32)
                        .filter(|i| (at..at + length).contains(i))
                        .map(|i| 1 << i)
                        .sum(),
                ]
            },
        );
        for signed in [false, true] {
            let ty = if signed { "s32" } else { "u32" };
            check(
                &format!("szext.{mode}.{ty} %d, %a, %b;"),
                &[W, W],
                &[W],
                &rows(&[INTEGERS, places], 50),
                |r| {
                    let length = cut(r[1]) as u32;
                    vec![if length == 0 {
                        0
                    } else {
                        value(r[0], length, signed) as u64
                    }]
                },
            );
        }
    }
}

#[test]
fn carries() {
    // Sums and products of 128 bits from 64-bit and 32-bit parts.
    check(
        "add.cc.u64 %d, %a, %c;\naddc.u64 %e, %b, 5;",
        &[L; 3],
        &[L, L],
        &rows(&[FEW, FEW, FEW], 200),
        |r| {
            let sum = (u128::from(r[1]) << 64 | u128::from(r[0]))
                .wrapping_add(5 << 64 | u128::from(r[2]));
            vec![sum as u64, (sum >> 64) as u64]
        },
    );
    check(
        "sub.cc.u32 %d, %a, %c;\nsubc.cc.u32 %d, %b, 7;\nsubc.u32 %e, 0, 0;",
        &[W; 3],
        &[W, W],
        &rows(&[FEW, FEW, FEW], 200),
        |r| {
            let low = value(r[1] << 32 | r[0], 64, false) - value(7 << 32 | r[2], 64, false);
            vec![(low >> 32) as u64, if low < 0 { u64::MAX } else { 0 }]
        },
    );
    for (ty, signed) in [("u32", false), ("s32", true)] {
        check(
            &format!("mad.lo.cc.{ty} %d, %a, %b, %c;\nmadc.hi.{ty} %e, %a, %b, 0;"),
            &[W; 3],
            &[W, W],
            &rows(&[FEW, FEW, FEW], 200),
            |r| {
                let product = value(r[0], 32, signed) * value(r[1], 32, signed) + i128::from(r[2]);
                vec![product as u64, (product >> 32) as u64]
            },
        );
    }
    check(
        "mad.hi.cc.u64 %d, %a, %b, %c;\nmadc.lo.cc.u64 %tl0, 0, 0, -1;\naddc.u64 %e, 0, 0;",
        &[L; 3],
        &[L, L],
        &rows(&[FEW, FEW, FEW], 200),
        |r| {
            let high = ((u128::from(r[0]) * u128::from(r[1])) >> 64) + u128::from(r[2]);
            // Adding all ones gives the carry back.
            vec![high as u64, (high >> 64) as u64]
        },
    );
}

#[test]
fn what_is_refused_is_named() {
    for (text, what) in [
        (
            "add.sat.u32 %d, %a, %b;",
            "the modifier .sat with the type .u32",
        ),
        ("mul.u32 %d, %a, %b;", "none of .lo, .hi and .wide"),
        ("mad.hi.sat.s32 %d, %a, %b, %c;", "the modifier .sat"),
        ("mul24.hi.u32 %d, %a, %b;", "this form"),
        ("add.relu.s32 %d, %a, %b;", "the modifier .relu"),
        (
            "max.relu.u32 %d, %a, %b;",
            "the modifier .relu with the type .u32",
        ),
        ("shf.l.b32 %d, %a, %b, %c;", "this form"),
        ("prmt.b32.xyz %d, %a, %b, %c;", "the modifier .xyz"),
        ("bmsk.b32 %d, %a, %b;", "neither .wrap nor .clamp"),
        ("dp2a.u32.u32 %d, %a, %b, %c;", "neither .lo nor .hi"),
        ("vadd4.u32.u32.u32.min %d, %a, %b, %c;", "the modifier .min"),
        ("vshl.u32.u32.u32.clamp %d, %a, %b;", "unknown instruction"),
        ("add.s32 %d, %a;", "operands"),
        ("add.s32 %d, %a, %b, %c;", "4 operands instead of 3"),
        (
            "setp.lo.s32 %tp0, %a, %b;",
            "this comparison with the type .s32",
        ),
        (
            "setp.num.s32 %tp0, %a, %b;",
            "this comparison with the type .s32",
        ),
        ("setp.eq.s32.ftz %tp0, %a, %b;", "the modifier .ftz"),
        (
            "lop3.or.b32 %d|%tp0, %a, %b, %c, 3, %tp1;",
            "the modifier .or",
        ),
        ("addc.u16 %th0, %th1, %th2;", "the type .u16"),
        ("mov.b128 %d, %a;", "the type .b128"),
    ] {
        let error = refusal(text, &[W; 3], &[W]);
        let opcode = text.split(' ').next().unwrap();
        assert!(
            error.contains(what) && error.contains(opcode),
            "{text}: {error}"
        );
    }
}
