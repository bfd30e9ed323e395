//! Every floating-point instruction, in every format and rounding, against exact arithmetic.
#![allow(clippy::unwrap_used)] // a test

mod support;

use std::cmp::Ordering;
use support::exact::{
    BF16, F16, F32, F64, Fmt, Num, WAYS, Way, add, compare, div, mul, negate, sqrt,
};
use support::floats::{After, inputs, same};
use support::opcode::{H, Kind, L, W, check, check_with};

/// A scalar type and its kind of register.
const SCALARS: [(&str, Fmt, Kind); 4] = [
    ("f32", F32, W),
    ("f64", F64, L),
    ("f16", F16, H),
    ("bf16", BF16, H),
];

/// The modifiers that a format's sums and products have.
fn afters(f: Fmt) -> Vec<After> {
    let mut all = vec![After::default()];
    if f == F32 || f == F16 {
        for (ftz, sat) in [(true, false), (false, true), (true, true)] {
            all.push(After {
                ftz,
                sat,
                relu: false,
            });
        }
    }
    all
}

fn sum_or_product(name: &str, r: &[Num], way: Way) -> Num {
    match name {
        "add" => add(&r[0], &r[1], way),
        "sub" => add(&r[0], &negate(&r[1]), way),
        "mul" => mul(&r[0], &r[1]),
        _ => add(&mul(&r[0], &r[1]), &r[2], way),
    }
}

fn arithmetic(name: &str, columns: usize) {
    for (ty, f, kind) in SCALARS {
        let inputs = inputs(f, columns);
        let ways = if f == F32 || f == F64 {
            &WAYS[..]
        } else {
            &WAYS[..1]
        };
        let mut afters = afters(f);
        if name == "fma" && f != F32 && f != F64 {
            afters.push(After {
                relu: true,
                ..After::default()
            });
        }
        for &(round, way) in ways {
            for &after in &afters {
                let text = format!(
                    "{name}.{round}{}.{ty} %d, %a, %b{};",
                    after.name(),
                    if columns == 3 { ", %c" } else { "" }
                );
                let one = |r: &[u64]| {
                    let r: Vec<Num> = r.iter().map(|&bits| f.num(after.read(f, bits))).collect();
                    after.finish(f, f.bits(&sum_or_product(name, &r, way), way, false))
                };
                check_with(
                    &text,
                    &vec![kind; columns],
                    &[kind],
                    &inputs,
                    |r| vec![one(r)],
                    same(f),
                );
                if kind == H {
                    // Two at once: the row and the row upside down.
                    let pairs: Vec<Vec<u64>> = inputs
                        .iter()
                        .zip(inputs.iter().rev())
                        .map(|(low, high)| {
                            low.iter()
                                .zip(high)
                                .map(|(l, h)| l & 0xffff | (h & 0xffff) << 16)
                                .collect()
                        })
                        .collect();
                    check(
                        &text.replace(ty, &format!("{ty}x2")),
                        &vec![W; columns],
                        &[W],
                        &pairs,
                        |r| {
                            let part = |shift: u32| {
                                one(&r.iter().map(|x| x >> shift & 0xffff).collect::<Vec<u64>>())
                            };
                            vec![part(0) | part(16) << 16]
                        },
                    );
                }
            }
        }
        // Without a rounding it is to nearest.
        if name != "fma" {
            check_with(
                &format!("{name}.{ty} %d, %a, %b;"),
                &[kind; 2],
                &[kind],
                &inputs,
                |r| {
                    let r: Vec<Num> = r.iter().map(|&bits| f.num(bits)).collect();
                    vec![f.bits(&sum_or_product(name, &r, Way::Near), Way::Near, false)]
                },
                same(f),
            );
        }
    }
}

#[test]
fn sums() {
    arithmetic("add", 2);
    arithmetic("sub", 2);
}

#[test]
fn products() {
    arithmetic("mul", 2);
}

#[test]
fn fused_products() {
    arithmetic("fma", 3);
}

#[test]
fn quotients_and_roots() {
    for (ty, f, kind) in &SCALARS[..2] {
        let (f, kind) = (*f, *kind);
        for (round, way) in WAYS {
            for ftz in [false, true] {
                if ftz && f == F64 {
                    continue;
                }
                let after = After {
                    ftz,
                    ..After::default()
                };
                let name = after.name();
                check_with(
                    &format!("div.{round}{name}.{ty} %d, %a, %b;"),
                    &[kind; 2],
                    &[kind],
                    &inputs(f, 2),
                    |r| {
                        let (quotient, cut) =
                            div(&f.num(after.read(f, r[0])), &f.num(after.read(f, r[1])));
                        vec![after.finish(f, f.bits(&quotient, way, cut))]
                    },
                    same(f),
                );
                check_with(
                    &format!("rcp.{round}{name}.{ty} %d, %a;\nsqrt.{round}{name}.{ty} %e, %a;"),
                    &[kind],
                    &[kind; 2],
                    &inputs(f, 1),
                    |r| {
                        let a = f.num(after.read(f, r[0]));
                        let one = f.num(f.infinity() >> 1 & !((1 << f.fraction) - 1));
                        let ((reciprocal, cut), (root, root_cut)) = (div(&one, &a), sqrt(&a));
                        vec![
                            after.finish(f, f.bits(&reciprocal, way, cut)),
                            after.finish(f, f.bits(&root, way, root_cut)),
                        ]
                    },
                    same(f),
                );
            }
        }
    }
}

#[test]
fn extremes() {
    for (ty, f, kind) in SCALARS {
        let ftzs: &[bool] = if f == F32 || f == F16 {
            &[false, true]
        } else {
            &[false]
        };
        for name in ["min", "max"] {
            for flags in 0..4 {
                let (nan, xorsign) = (flags & 1 != 0, flags & 2 != 0);
                if flags != 0 && f == F64 {
                    continue;
                }
                for &ftz in ftzs {
                    let after = After {
                        ftz,
                        ..After::default()
                    };
                    let text = format!(
                        "{name}{}{}{}.{ty} %d, %a, %b;",
                        after.name(),
                        if nan { ".NaN" } else { "" },
                        if xorsign { ".xorsign.abs" } else { "" }
                    );
                    let one = |r: &[u64]| {
                        let [mut a, mut b] = [0, 1].map(|i| after.read(f, r[i]));
                        let sign = (a ^ b) & f.sign();
                        if xorsign {
                            (a, b) = (a & !f.sign(), b & !f.sign());
                        }
                        let result = match (f.is_nan(a), f.is_nan(b)) {
                            (true, true) => f.nan,
                            (true, false) | (false, true) if nan => f.nan,
                            (true, false) => b,
                            (false, true) => a,
                            _ => {
                                let order = compare(&f.num(a), &f.num(b)).unwrap();
                                // -0 is below +0.
                                let order = order.then((b & f.sign()).cmp(&(a & f.sign())));
                                if (order == Ordering::Less) == (name == "min") {
                                    a
                                } else {
                                    b
                                }
                            }
                        };
                        after.finish(
                            f,
                            if xorsign && !f.is_nan(result) {
                                result | sign
                            } else {
                                result
                            },
                        )
                    };
                    let inputs = inputs(f, 2);
                    check_with(
                        &text,
                        &[kind; 2],
                        &[kind],
                        &inputs,
                        |r| vec![one(r)],
                        same(f),
                    );
                    if kind == H {
                        check(
                            &text.replace(ty, &format!("{ty}x2")),
                            &[W; 2],
                            &[W],
                            &inputs,
                            |r| {
                                let part = |shift: u32| {
                                    one(&[r[0] >> shift & 0xffff, r[1] >> shift & 0xffff])
                                };
                                vec![part(0) | part(16) << 16]
                            },
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn signs() {
    for (ty, f, kind) in SCALARS {
        let inputs = inputs(f, 2);
        check(
            &format!("neg.{ty} %d, %a;\nabs.{ty} %e, %a;"),
            &[kind; 2],
            &[kind; 2],
            &inputs,
            |r| vec![r[0] ^ f.sign(), r[0] & !f.sign()],
        );
        if f == F32 || f == F16 {
            check(
                &format!("neg.ftz.{ty} %d, %a;\nabs.ftz.{ty} %e, %a;"),
                &[kind; 2],
                &[kind; 2],
                &inputs,
                |r| vec![f.flush(r[0]) ^ f.sign(), f.flush(r[0]) & !f.sign()],
            );
        }
        if kind == H {
            check(
                &format!("neg.{ty}x2 %d, %a;\nabs.{ty}x2 %e, %a;"),
                &[W; 2],
                &[W; 2],
                &inputs,
                |r| vec![r[0] ^ 0x8000_8000, r[0] & 0x7fff_7fff],
            );
        } else {
            // The sign is the first operand's.
            check(
                &format!("copysign.{ty} %d, %a, %b;"),
                &[kind; 2],
                &[kind],
                &inputs,
                |r| vec![r[1] & !f.sign() | r[0] & f.sign()],
            );
        }
    }
}

#[test]
fn immediates() {
    let single = inputs(F32, 1);
    let a = |r: &[u64]| f32::from_bits(r[0] as u32);
    let bits = |x: f32| {
        vec![if x.is_nan() {
            F32.nan
        } else {
            u64::from(x.to_bits())
        }]
    };
    check("add.f32 %d, %a, 0f3FC00000;", &[W], &[W], &single, |r| {
        bits(a(r) + 1.5)
    });
    check("mul.f32 %d, %a, -2.5;", &[W], &[W], &single, |r| {
        bits(a(r) * -2.5)
    });
    check(
        "fma.rn.f32 %d, %a, 0d4000000000000000, 0fBF800000;",
        &[W],
        &[W],
        &single,
        |r| bits(a(r).mul_add(2.0, -1.0)),
    );
    let wide = inputs(F64, 1);
    check_with(
        "add.f64 %d, %a, 0d3FF8000000000000;\nsub.f64 %e, 0f3F800000, %a;",
        &[L],
        &[L, L],
        &wide,
        |r| {
            let a = f64::from_bits(r[0]);
            vec![(a + 1.5).to_bits(), (1.0 - a).to_bits()]
        },
        same(F64),
    );
}
