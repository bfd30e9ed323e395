//! Approximations within the bounds of the manual, comparisons and classes of floating-point numbers, and what is refused.
#![allow(clippy::unwrap_used)] // a test

mod support;

use std::cmp::Ordering;
use support::exact::{BF16, F16, F32, F64, Fmt, compare};
use support::floats::{After, inputs, special};
use support::opcode::{H, Kind, L, P, W, check, check_with, refusal, rows};

/// A scalar type and its kind of register.
const SCALARS: [(&str, Fmt, Kind); 4] = [
    ("f32", F32, W),
    ("f64", F64, L),
    ("f16", F16, H),
    ("bf16", BF16, H),
];

const COMPARISONS: [&str; 14] = [
    "eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
];

fn holds(op: &str, order: Option<Ordering>) -> bool {
    let Some(order) = order else {
        return op == "nan" || op.len() == 3 && op != "num";
    };
    match &op[..2] {
        "eq" => order.is_eq(),
        "ne" => order.is_ne(),
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        "ge" => order.is_ge(),
        name => name == "nu",
    }
}

#[test]
fn comparisons() {
    for (ty, f, kind) in SCALARS {
        let inputs = inputs(f, 2);
        let one = |op: &str, ftz: bool, a: u64, b: u64| {
            let after = After {
                ftz,
                ..After::default()
            };
            u64::from(holds(
                op,
                compare(&f.num(after.read(f, a)), &f.num(after.read(f, b))),
            ))
        };
        for op in COMPARISONS {
            for ftz in [false, true] {
                if ftz && (f == F64 || f == BF16) {
                    continue;
                }
                let flush = if ftz { ".ftz" } else { "" };
                check(
                    &format!("setp.{op}{flush}.{ty} %d|%e, %a, %b;"),
                    &[kind; 2],
                    &[P, P],
                    &inputs,
                    |r| {
                        let result = one(op, ftz, r[0], r[1]);
                        vec![result, 1 - result]
                    },
                );
                check(
                    &format!(
                        "set.{op}{flush}.u32.{ty} %d, %a, %b;\nset.{op}{flush}.f32.{ty} %e, %a, %b;"
                    ),
                    &[kind; 2],
                    &[W, W],
                    &inputs,
                    |r| {
                        let result = one(op, ftz, r[0], r[1]);
                        vec![0xffff_ffff * result, 0x3f80_0000 * result]
                    },
                );
                if kind != H {
                    continue;
                }
                let scale = if f == F16 { 0x3c00 } else { 0x3f80 };
                check(
                    &format!("set.{op}{flush}.{ty}.{ty} %d, %a, %b;"),
                    &[H; 2],
                    &[H],
                    &inputs,
                    |r| vec![scale * one(op, ftz, r[0], r[1])],
                );
                let halves = |r: &[u64]| {
                    [0, 16].map(|s| one(op, ftz, r[0] >> s & 0xffff, r[1] >> s & 0xffff))
                };
                check(
                    &format!(
                        "set.{op}{flush}.{ty}x2.{ty}x2 %d, %a, %b;\nset.{op}{flush}.u32.{ty}x2 %e, %a, %b;"
                    ),
                    &[W; 2],
                    &[W, W],
                    &inputs,
                    |r| {
                        let [low, high] = halves(r);
                        vec![scale * (low | high << 16), 0xffff * (low | high << 16)]
                    },
                );
                check(
                    &format!("setp.{op}{flush}.and.{ty}x2 %d|%e, %a, %b, !%c;"),
                    &[W, W, P],
                    &[P, P],
                    &rows(&[&special(f), &special(f), &[0, 1]], 100),
                    |r| halves(r).map(|x| x & (1 - r[2])).to_vec(),
                );
            }
        }
    }
}

#[test]
fn classes() {
    for (ty, f, kind) in &SCALARS[..2] {
        let f = *f;
        for class in [
            "finite",
            "infinite",
            "number",
            "notanumber",
            "normal",
            "subnormal",
        ] {
            check(
                &format!("testp.{class}.{ty} %d, %a;"),
                &[*kind],
                &[P],
                &inputs(f, 1),
                |r| {
                    let magnitude = r[0] & !f.sign();
                    let field = magnitude >> f.fraction;
                    let holds = match class {
                        "finite" => magnitude < f.infinity(),
                        "infinite" => magnitude == f.infinity(),
                        "number" => magnitude <= f.infinity(),
                        "notanumber" => magnitude > f.infinity(),
                        "normal" => magnitude == 0 || field > 0 && magnitude < f.infinity(),
                        _ => magnitude != 0 && field == 0,
                    };
                    vec![u64::from(holds)]
                },
            );
        }
    }
}

/// Whether a result is as near to `exact` as the manual promises, with the same rules for what is not a finite number.
fn is_near(found: u64, exact: f64, f: Fmt, relative: f64, absolute: f64) -> bool {
    let wide = |bits: u64| match f {
        F64 => f64::from_bits(bits),
        F32 => f64::from(f32::from_bits(bits as u32)),
        F16 => half::f16::from_bits(bits as u16).to_f64(),
        _ => half::bf16::from_bits(bits as u16).to_f64(),
    };
    let found = wide(found);
    if exact.is_nan() {
        return found.is_nan();
    }
    if !exact.is_finite() || exact.abs() > wide(f.max()) {
        return found == exact || found.abs() >= wide(f.max());
    }
    // Zeros keep their sign.
    (found - exact).abs() <= (exact.abs() * relative).max(absolute)
        && (exact != 0.0 || found.is_sign_negative() == exact.is_sign_negative() || found != 0.0)
}

/// What an approximation is of.
type Function = fn(f64) -> f64;

#[test]
fn approximations() {
    let functions: [(&str, Function, f64, f64); 9] = [
        ("ex2.approx", f64::exp2, 2e-7, 2e-45),
        ("lg2.approx", f64::log2, 2e-7, 3e-7),
        ("sin.approx", f64::sin, 1.0, 5e-7),
        ("cos.approx", f64::cos, 1.0, 5e-7),
        ("tanh.approx", f64::tanh, 6e-4, 2e-45),
        ("rsqrt.approx", |x| 1.0 / x.sqrt(), 2.0_f64.powf(-22.4), 0.0),
        ("rcp.approx", |x| 1.0 / x, 2.0_f64.powi(-23), 2e-45),
        ("sqrt.approx", f64::sqrt, 2.0_f64.powi(-22), 2e-45),
        ("div.full", |x| x / 3.0, 2.0_f64.powi(-22), 2e-45),
    ];
    for (name, f, relative, absolute) in functions {
        for ftz in [false, true] {
            if ftz && name.starts_with("tanh") {
                continue;
            }
            let after = After {
                ftz,
                ..After::default()
            };
            let more = if name == "div.full" { ", 3.0" } else { "" };
            let text = format!("{name}{}.f32 %d, %a{more};\nmov.b32 %e, %a;", after.name());
            check_with(
                &text,
                &[W],
                &[W, W],
                &inputs(F32, 1),
                |r| vec![r[0], r[0]],
                |found, input| {
                    // The manual bounds the error in this range.
                    let x = f64::from(f32::from_bits(input as u32));
                    if matches!(name, "sin.approx" | "cos.approx")
                        && x.is_finite()
                        && x.abs() > std::f64::consts::PI
                    {
                        return true;
                    }
                    let exact = f(f64::from(f32::from_bits(after.read(F32, input) as u32)));
                    let absolute = if ftz { absolute.max(1.2e-38) } else { absolute };
                    is_near(found, exact, F32, relative, absolute)
                },
            );
        }
    }
}

#[test]
fn approximations_of_halves_and_doubles() {
    let halves: Vec<Vec<u64>> = (0..=0xffff).step_by(5).map(|bits| vec![bits]).collect();
    for (ty, f, name, function, relative) in [
        (
            "f16",
            F16,
            "ex2.approx",
            f64::exp2 as fn(f64) -> f64,
            2.0_f64.powf(-9.9),
        ),
        ("bf16", BF16, "ex2.approx.ftz", f64::exp2, 2.0_f64.powi(-7)),
        ("f16", F16, "tanh.approx", f64::tanh, 2.0_f64.powf(-10.987)),
        ("bf16", BF16, "tanh.approx", f64::tanh, 2.0_f64.powi(-8)),
    ] {
        let wide = move |bits: u64| {
            if f == F16 {
                half::f16::from_bits(bits as u16).to_f64()
            } else {
                half::bf16::from_bits(bits as u16).to_f64()
            }
        };
        let ftz = name.ends_with("ftz");
        // The exact value comes as the input's bits.
        let exact = move |bits: u64| function(wide(if ftz { f.flush(bits) } else { bits }));
        let least = if f == F16 {
            2.0_f64.powi(-25)
        } else {
            2.0_f64.powi(-126)
        };
        check_with(
            &format!("{name}.{ty} %d, %a;\nmov.b16 %e, %a;"),
            &[H],
            &[H, H],
            &halves,
            |r| vec![r[0], r[0]],
            move |found, input| is_near(found, exact(input), f, relative, least),
        );
        // Both halves alike.
        check(
            &format!(
                "{name}.{ty}x2 %t0, %a;\nmov.b32 {{%th0, %th1}}, %a;\n{name}.{ty} %th0, %th0;\n{name}.{ty} %th1, %th1;\nmov.b32 %t1, {{%th0, %th1}};\nsub.u32 %d, %t0, %t1;"
            ),
            &[W],
            &[W],
            &rows(&[&special(F32)], 300),
            |_| vec![0],
        );
    }
    let wide = inputs(F64, 1);
    check_with(
        "rcp.approx.ftz.f64 %d, %a;\nmov.b64 %e, %a;",
        &[L],
        &[L, L],
        &wide,
        |r| vec![r[0], r[0]],
        |found, input| {
            let exact = 1.0 / f64::from_bits(F64.flush(input));
            (found & 0xffff_ffff == 0 || F64.is_nan(found))
                && is_near(found, exact, F64, 2e-6, 2.3e-308)
        },
    );
    check_with(
        "rsqrt.approx.ftz.f64 %d, %a;\nmov.b64 %e, %a;",
        &[L],
        &[L, L],
        &wide,
        |r| vec![r[0], r[0]],
        |found, input| {
            is_near(
                found,
                1.0 / f64::from_bits(F64.flush(input)).sqrt(),
                F64,
                2e-6,
                0.0,
            )
        },
    );
    check_with(
        "rsqrt.approx.f64 %d, %a;\nmov.b64 %e, %a;",
        &[L],
        &[L, L],
        &wide,
        |r| vec![r[0], r[0]],
        |found, input| {
            is_near(
                found,
                1.0 / f64::from_bits(input).sqrt(),
                F64,
                2.0_f64.powi(-50),
                0.0,
            )
        },
    );
}

#[test]
fn what_is_refused_is_named() {
    for (text, what) in [
        (
            "add.relu.f32 %d, %a, %b;",
            "the modifier .relu with the type .f32",
        ),
        (
            "add.ftz.f64 %tl0, %tl1, %tl2;",
            "the modifier .ftz with the type .f64",
        ),
        (
            "add.rz.f16 %th0, %th1, %th2;",
            "the modifier .rz with the type .f16",
        ),
        (
            "fma.rn.ftz.bf16 %th0, %th1, %th2, %th3;",
            "the modifier .ftz with the type .bf16",
        ),
        ("add.f32.f16 %d, %th0, %b;", "mixed precision"),
        ("min.f32 %d, %a, %b, %c;", "three inputs"),
        (
            "max.NaN.f64 %tl0, %tl1, %tl2;",
            "the modifier .NaN with the type .f64",
        ),
        (
            "max.abs.f32 %d, %a, %b;",
            "one of .xorsign and .abs without the other",
        ),
        (
            "sqrt.rn.f16 %th0, %th1;",
            "the modifier .rn with the type .f16",
        ),
        ("div.f16 %th0, %th1, %th2;", "the type .f16"),
        ("lg2.approx.f16 %th0, %th1;", "the type .f16"),
        ("tanh.approx.ftz.f32 %d, %a;", "the modifier .ftz"),
        ("ex2.f32 %d, %a;", "without .approx"),
        ("rcp.approx.f64 %tl0, %tl1;", "without .ftz"),
        (
            "setp.lt.ftz.bf16 %tp0, %th0, %th1;",
            "the modifier .ftz with the type .bf16",
        ),
        (
            "setp.eq.f16x2 %tp0, %a, %b;",
            "one destination for two halves",
        ),
        ("testp.finite.f16 %tp0, %th0;", "the type .f16"),
        ("redux.sync.min.f32 %d, %a, -1;", "floating-point redux"),
    ] {
        let error = refusal(text, &[W; 3], &[W]);
        let opcode = text.split(' ').next().unwrap();
        assert!(
            error.contains(what) && error.contains(opcode),
            "{text}: {error}"
        );
    }
}
