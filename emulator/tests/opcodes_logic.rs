//! Logic, comparisons, selections and moves, of every type.
#![allow(clippy::unwrap_used)] // a test

mod support;

use support::opcode::{FEW, H, INTEGERS, Kind, L, P, W, check, rows, value};

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

#[test]
fn logic() {
    for (ty, kind, _) in BITS {
        for (name, f) in [
            ("and", (|a, b| a & b) as fn(u64, u64) -> u64),
            ("or", |a, b| a | b),
            ("xor", |a, b| a ^ b),
        ] {
            check(
                &format!("{name}.{ty} %d, %a, %b;"),
                &[kind, kind],
                &[kind],
                &pairs(),
                |r| vec![f(r[0], r[1])],
            );
        }
        check(
            &format!("not.{ty} %d, %a;\ncnot.{ty} %e, %a;"),
            &[kind],
            &[kind, kind],
            &rows(&[INTEGERS], 100),
            |r| vec![!r[0], u64::from(r[0] == 0)],
        );
    }
    for (name, f) in [
        ("and", (|a, b| a & b) as fn(u64, u64) -> u64),
        ("or", |a, b| a | b),
        ("xor", |a, b| a ^ b),
    ] {
        let bits: &[u64] = &[0, 1];
        check(
            &format!("{name}.pred %d, %a, %b;\n{name}.pred %e, !%a, %b;"),
            &[P, P],
            &[P, P],
            &rows(&[bits, bits], 0),
            |r| vec![f(r[0], r[1]), f(1 - r[0], r[1])],
        );
        check(
            "not.pred %d, %a;\nmov.pred %e, %a;",
            &[P],
            &[P, P],
            &rows(&[bits], 0),
            |r| vec![1 - r[0], r[0]],
        );
    }
    for table in [0u64, 0x80, 0xe8, 0x96, 0xca, 0x1b, 0xff, 0x42] {
        check(
            &format!("lop3.b32 %d, %a, %b, %c, {table};"),
            &[W; 3],
            &[W],
            &rows(&[FEW, FEW, FEW], 50),
            |r| {
                let bit = |i: u32| {
                    let at = (r[0] >> i & 1) << 2 | (r[1] >> i & 1) << 1 | r[2] >> i & 1;
                    (table >> at & 1) << i
                };
                vec![(0..32).map(bit).sum()]
            },
        );
    }
}

#[test]
fn comparisons_and_selections() {
    for (ty, kind, width, signed) in TYPES {
        for op in ["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"] {
            if signed && matches!(op, "lo" | "ls" | "hi" | "hs") {
                continue;
            }
            check(
                &format!("setp.{op}.{ty} %d|%e, %a, %b;"),
                &[kind, kind],
                &[P, P],
                &pairs(),
                |r| {
                    let [a, b] = [0, 1].map(|i| value(r[i], width, signed));
                    let holds = match op {
                        "eq" => a == b,
                        "ne" => a != b,
                        "lt" | "lo" => a < b,
                        "le" | "ls" => a <= b,
                        "gt" | "hi" => a > b,
                        _ => a >= b,
                    };
                    vec![u64::from(holds), u64::from(!holds)]
                },
            );
        }
    }
    let bits: &[u64] = &[0, 1];
    for (with, f) in [
        ("and", (|a, b| a & b) as fn(u64, u64) -> u64),
        ("or", |a, b| a | b),
        ("xor", |a, b| a ^ b),
    ] {
        check(
            &format!(
                "setp.lt.{with}.s32 %d|%e, %a, %b, %c;\nsetp.lt.{with}.s32 %d|_, %a, %b, !%c;"
            ),
            &[W, W, P],
            &[P, P],
            &rows(&[FEW, FEW, bits], 0),
            |r| {
                let less = u64::from((r[0] as i32) < r[1] as i32);
                vec![f(less, 1 - r[2]), f(1 - less, r[2])]
            },
        );
        check(
            &format!("set.ge.{with}.u32.u32 %d, %a, %b, %c;\nset.eq.f32.s32 %e, %a, %b;"),
            &[W, W, P],
            &[W, W],
            &rows(&[FEW, FEW, bits], 0),
            |r| {
                let holds = f(u64::from(r[0] >= r[1]), r[2]);
                vec![
                    if holds == 1 { u64::MAX } else { 0 },
                    if r[0] == r[1] { 0x3f80_0000 } else { 0 },
                ]
            },
        );
    }
    for (ty, kind) in [
        ("b16", H),
        ("u16", H),
        ("b32", W),
        ("s32", W),
        ("f32", W),
        ("b64", L),
        ("f64", L),
    ] {
        check(
            &format!("selp.{ty} %d, %a, %b, %c;\nselp.{ty} %e, %a, 3, !%c;")
                .replace(", 3,", if ty.starts_with('f') { ", %b," } else { ", 3," }),
            &[kind, kind, P],
            &[kind, kind],
            &rows(&[FEW, FEW, bits], 0),
            |r| {
                let other = if ty.starts_with('f') { r[1] } else { 3 };
                vec![
                    if r[2] == 1 { r[0] } else { r[1] },
                    if r[2] == 0 { r[0] } else { other },
                ]
            },
        );
        check(
            &format!("slct.{ty}.s32 %d, %a, %b, %c;"),
            &[kind, kind, W],
            &[kind],
            &rows(&[FEW, FEW, FEW], 0),
            |r| vec![if r[2] as i32 >= 0 { r[0] } else { r[1] }],
        );
    }
    let floats: &[u64] = &[
        0,
        0x8000_0000,
        0x8000_0001,
        0x3f80_0000,
        0xbf80_0000,
        0x7fc0_0000,
        0xffc0_0000,
        0xff80_0000,
    ];
    check(
        "slct.u32.f32 %d, %a, %b, %c;\nslct.ftz.u32.f32 %e, %a, %b, %c;",
        &[W; 3],
        &[W, W],
        &rows(&[FEW, FEW, floats], 0),
        |r| {
            let c = f32::from_bits(r[2] as u32);
            let pick = |holds| if holds { r[0] } else { r[1] };
            vec![pick(c >= 0.0), pick(c >= 0.0 || c.is_subnormal())]
        },
    );
}

#[test]
fn moves() {
    check(
        "mov.b32 {%d, %e}, %a;",
        &[W],
        &[H, H],
        &rows(&[INTEGERS], 50),
        |r| vec![r[0], r[0] >> 16],
    );
    check(
        "mov.b64 {%d, %e}, %a;",
        &[L],
        &[W, W],
        &rows(&[INTEGERS], 50),
        |r| vec![r[0], r[0] >> 32],
    );
    check(
        "mov.b64 {_, %d}, %a;",
        &[L],
        &[W],
        &rows(&[INTEGERS], 50),
        |r| vec![r[0] >> 32],
    );
    check(
        "mov.b64 {%th0, %d, _, %e}, %a;",
        &[L],
        &[H, H],
        &rows(&[INTEGERS], 50),
        |r| vec![r[0] >> 16, r[0] >> 48],
    );
    check(
        "mov.b64 %d, {%a, 7};",
        &[W],
        &[L],
        &rows(&[INTEGERS], 50),
        |r| vec![7 << 32 | r[0]],
    );
    check(
        "mov.b32 {%th0, %th1, %th2, %th3}, %a;\nmov.b32 %d, {%th3, %th2, %th1, %th0};",
        &[W],
        &[W],
        &rows(&[INTEGERS], 50),
        |r| vec![u64::from((r[0] as u32).swap_bytes())],
    );
}

#[test]
fn a_sign_extension_in_a_16_bit_register_stays_out_of_a_pair() {
    // A 16-bit register that was loaded with an extended byte.
    let text = "cvt.s16.s8 %th0, %a;\nmov.b32 %d, {%th0, %b};\nmov.b64 %tl0, {%th0, %b, %th0, %b};\nmov.b64 {%t0, %e}, %tl0;";
    check(text, &[H, H], &[W, W], &rows(&[INTEGERS, FEW], 0), |r| {
        let low = value(r[0], 8, true) as u64 & 0xffff;
        vec![low | r[1] << 16; 2]
    });
}
