//! Instructions that see a register as bytes or halves.
#![allow(clippy::unwrap_used)] // a test

mod support;

use support::opcode::{FEW, INTEGERS, W, check, rows, value};
use support::{Arg, Bench, random};

#[test]
fn bytes() {
    let selectors: &[u64] = &[
        0,
        1,
        2,
        3,
        0x3210,
        0x7654,
        0x4cb8,
        0xfedc,
        0x0123,
        0xffff_8888,
    ];
    let inputs = rows(&[FEW, FEW, selectors], 200);
    for mode in ["", ".f4e", ".b4e", ".rc8", ".ecl", ".ecr", ".rc16"] {
        check(
            &format!("prmt.b32{mode} %d, %a, %b, %c;"),
            &[W; 3],
            &[W],
            &inputs,
            |r| {
                let both = r[1] << 32 | r[0];
                let byte = |i: u64| both >> (8 * (i & 7)) & 255;
                let low = r[2] & 3;
                let pick = |i: u64| match mode {
                    "" => {
                        let digit = r[2] >> (4 * i) & 15;
                        let found = byte(digit);
                        if digit & 8 == 0 {
                            found
                        } else {
                            255 * (found >> 7)
                        }
                    }
                    ".f4e" => byte(low + i),
                    ".b4e" => byte(low.wrapping_sub(i)),
                    ".rc8" => byte(low),
                    ".ecl" => byte(i.max(low)),
                    ".ecr" => byte(i.min(low)),
                    _ => byte(2 * (low & 1) + (i & 1)),
                };
                vec![(0..4).map(|i| pick(i) << (8 * i)).sum()]
            },
        );
    }
    for (a, a_signed) in [("u32", false), ("s32", true)] {
        for (b, b_signed) in [("u32", false), ("s32", true)] {
            let byte = |x: u64, i: u32, signed| value(x >> (8 * i), 8, signed);
            check(
                &format!("dp4a.{a}.{b} %d, %a, %b, %c;"),
                &[W; 3],
                &[W],
                &inputs,
                |r| {
                    let products =
                        (0..4).map(|i| byte(r[0], i, a_signed) * byte(r[1], i, b_signed));
                    vec![(i128::from(r[2]) + products.sum::<i128>()) as u64]
                },
            );
            for (part, first) in [("lo", 0), ("hi", 2)] {
                check(
                    &format!("dp2a.{part}.{a}.{b} %d, %a, %b, %c;"),
                    &[W; 3],
                    &[W],
                    &inputs,
                    |r| {
                        let half = |i: u32| value(r[0] >> (16 * i), 16, a_signed);
                        let products = (0..2).map(|i| half(i) * byte(r[1], first + i, b_signed));
                        vec![(i128::from(r[2]) + products.sum::<i128>()) as u64]
                    },
                );
            }
        }
    }
}

#[test]
fn packed_halves() {
    let inputs = rows(&[INTEGERS, INTEGERS], 300);
    for (ty, signed) in [("u16x2", false), ("s16x2", true)] {
        for name in ["add", "min", "max", "min.relu", "max.relu"] {
            if name.ends_with("relu") && !signed {
                continue;
            }
            check(
                &format!("{name}.{ty} %d, %a, %b;"),
                &[W, W],
                &[W],
                &inputs,
                |r| {
                    let part = |i: u32| {
                        let [a, b] = [0, 1].map(|k| value(r[k] >> (16 * i), 16, signed));
                        let result = match name {
                            "add" => a + b,
                            "min" => a.min(b),
                            "max" => a.max(b),
                            "min.relu" => a.min(b).max(0),
                            _ => a.max(b).max(0),
                        };
                        (result as u64 & 0xffff) << (16 * i)
                    };
                    vec![part(0) | part(1)]
                },
            );
        }
    }
    // The compiler writes the modifier last.
    check("max.s32.relu %d, %a, %b;", &[W, W], &[W], &inputs, |r| {
        vec![value(r[0], 32, true).max(value(r[1], 32, true)).max(0) as u64]
    });
    for (ty, bits, signed) in [("u16", 16, false), ("s16", 16, true)] {
        check(
            &format!("cvt.pack.sat.{ty}.s32 %d, %a, %b;"),
            &[W, W],
            &[W],
            &inputs,
            |r| {
                let part = |x: u64| saturated(value(x, 32, true), bits, signed) as u64 & 0xffff;
                vec![part(r[0]) << 16 | part(r[1])]
            },
        );
    }
    for (ty, bits, signed) in [
        ("u8", 8, false),
        ("s8", 8, true),
        ("s4", 4, true),
        ("u4", 4, false),
        ("u2", 2, false),
        ("s2", 2, true),
    ] {
        check(
            &format!("cvt.pack.sat.{ty}.s32.b32 %d, %a, %b, %c;"),
            &[W; 3],
            &[W],
            &rows(&[FEW, FEW, FEW], 200),
            |r| {
                let keep = (1u64 << bits) - 1;
                let part = |x: u64| saturated(value(x, 32, true), bits, signed) as u64 & keep;
                vec![r[2] << (2 * bits) | part(r[0]) << bits | part(r[1])]
            },
        );
    }
}

fn saturated(x: i128, bits: u32, signed: bool) -> i128 {
    if signed {
        x.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        x.clamp(0, (1 << bits) - 1)
    }
}

fn video(name: &str, a: i128, b: i128) -> i128 {
    match name {
        "vadd" => a + b,
        "vsub" => a - b,
        "vabsdiff" => (a - b).abs(),
        "vmin" => a.min(b),
        "vmax" => a.max(b),
        _ => (a + b + i128::from(a + b >= 0)) >> 1,
    }
}

#[test]
fn video_instructions() {
    let inputs = rows(&[FEW, FEW, FEW], 200);
    let of = |signed| if signed { "s32" } else { "u32" };
    for parts in [2u32, 4] {
        let bits = 32 / parts;
        for name in ["vadd", "vsub", "vabsdiff", "vmin", "vmax", "vavrg"] {
            for flags in 0..16 {
                let [sd, sa, sat, add] = [1, 2, 4, 8].map(|flag| flags & flag != 0);
                let (saturates, adds) =
                    (if sat { ".sat" } else { "" }, if add { ".add" } else { "" });
                let text = format!(
                    "{name}{parts}.{}.{}.u32{saturates}{adds} %d, %a, %b, %c;",
                    of(sd),
                    of(sa)
                );
                check(&text, &[W; 3], &[W], &inputs, |r| {
                    let mut out = if add { r[2] } else { 0 };
                    for i in 0..parts {
                        let part = |x: u64, signed| value(x >> (bits * i), bits, signed);
                        let mut d = video(name, part(r[0], sa), part(r[1], false));
                        if sat {
                            d = saturated(d, bits, sd);
                        }
                        if add {
                            out = out.wrapping_add(value(d as u64, bits, sd) as u64);
                        } else {
                            out |= (d as u64 & ((1 << bits) - 1)) << (bits * i);
                        }
                    }
                    vec![out]
                });
            }
        }
    }
    // Parts named one by one, and parts of the destination that keep c's.
    check(
        "vsub4.u32.u32.u32 %d.b20, %a.b7012, %b.b7654, %c;",
        &[W; 3],
        &[W],
        &inputs,
        |r| {
            let byte = |i: u32| (r[1] << 32 | r[0]) >> (8 * i) & 255;
            let mut out = r[2];
            for (i, (a, b)) in [(2, 4), (1, 5), (0, 6), (7, 7)].into_iter().enumerate() {
                if i == 0 || i == 2 {
                    let d = byte(a).wrapping_sub(byte(b)) & 255;
                    out = out & !(255 << (8 * i)) | d << (8 * i);
                }
            }
            vec![out]
        },
    );
    check(
        "vset2.s32.s32.lt %d, %a, %b, %c;\nvset4.u32.u32.ge.add %e, %a, %b, %c;",
        &[W; 3],
        &[W, W],
        &inputs,
        |r| {
            let less = |i: u32| {
                u64::from(value(r[0] >> (16 * i), 16, true) < value(r[1] >> (16 * i), 16, true))
            };
            let count = (0..4)
                .filter(|i| r[0] >> (8 * i) & 255 >= r[1] >> (8 * i) & 255)
                .count() as u64;
            vec![less(0) | less(1) << 16, r[2] + count]
        },
    );
    // Scalars: one part of each operand.
    for (text, f) in [
        (
            "vadd.s32.s32.u32 %d, %a.b1, %b.h0;",
            (|a, b, _| value(a >> 8, 8, true) + value(b, 16, false)) as fn(u64, u64, u64) -> i128,
        ),
        ("vsub.s32.s32.s32.sat %d, %a, %b;", |a, b, _| {
            saturated(value(a, 32, true) - value(b, 32, true), 32, true)
        }),
        ("vabsdiff.u32.u32.u32.add %d, %a, %b.b3, %c;", |a, b, c| {
            (i128::from(a) - i128::from(b >> 24)).abs() + i128::from(c)
        }),
        ("vmax.s32.s32.u32.min %d, %a, %b, %c;", |a, b, c| {
            value(value(a, 32, true).max(i128::from(b)) as u64, 32, true).min(value(c, 32, true))
        }),
        ("vadd.u32.u32.u32.sat %d.b2, %a, %b, %c;", |a, b, c| {
            i128::from(c & !0xff_0000) | saturated(i128::from(a) + i128::from(b), 8, false) << 16
        }),
        ("vset.s32.u32.gt %d, %a.h1, %b;", |a, b, _| {
            i128::from(value(a >> 16, 16, true) > i128::from(b))
        }),
    ] {
        check(text, &[W; 3], &[W], &inputs, |r| {
            vec![f(r[0], r[1], r[2]) as u64]
        });
    }
}

#[test]
fn intrinsics_as_compiled() {
    let bench = Bench::new(include_str!("kernels/intrinsics.ptx"));
    let mut next = random(8);
    let special = [0, 1, 0x7f80_ff01, 0x8000_7fff, u32::MAX, 0x8080_8080];
    let input: Vec<[u32; 3]> = (0..256)
        .map(|_| {
            std::array::from_fn(|_| {
                if next() & 3 == 0 {
                    special[next() as usize % 6]
                } else {
                    next()
                }
            })
        })
        .collect();
    let (from, to) = (bench.buffer(&input), bench.empty::<u32>(256 * 24));
    bench.run(
        "intrinsics",
        [1, 1, 1],
        [256, 1, 1],
        &[Arg::U64(from), Arg::U64(to)],
    );
    for ([a, b, c], got) in input
        .into_iter()
        .zip(bench.read::<u32>(to, 256 * 24).chunks(24))
    {
        let bytes = |f: &dyn Fn(u8, u8) -> u8| {
            u32::from_le_bytes(std::array::from_fn(|i| {
                f(a.to_le_bytes()[i], b.to_le_bytes()[i])
            }))
        };
        let halves = |f: &dyn Fn(u16, u16, u16) -> u16| {
            let part = |x: u32, i: u32| (x >> (16 * i)) as u16;
            (0..2)
                .map(|i| u32::from(f(part(a, i), part(b, i), part(c, i))) << (16 * i))
                .sum::<u32>()
        };
        let sum = |f: &dyn Fn(u8, u8) -> u8| {
            bytes(f)
                .to_le_bytes()
                .iter()
                .map(|&x| u32::from(x))
                .sum::<u32>()
        };
        let unsigned = |a: u8, b: u8| a.abs_diff(b);
        let signed = |a: u8, b: u8| (a as i8).abs_diff(b as i8);
        let wide = u128::from(a) << 64 | u128::from(b) << 32 | u128::from(c);
        let wide = wide.wrapping_mul(wide).wrapping_add(u128::from(a));
        let expected = [
            bytes(&unsigned),
            bytes(&signed),
            bytes(&u8::wrapping_add),
            bytes(&u8::wrapping_sub),
            bytes(&|a, b| (a as i8).max(b as i8) as u8),
            bytes(&u8::saturating_add),
            sum(&signed),
            sum(&unsigned),
            halves(&|a, b, _| a.wrapping_add(b)),
            halves(&|a, b, _| (a as i16).max(b as i16) as u16),
            bytes(&|a, b| (u16::from(a) + u16::from(b)).div_ceil(2) as u8),
            bytes(&|a, b| if a > b { 255 } else { 0 }),
            halves(&|a, b, c| (a.wrapping_add(b) as i16).max(c as i16) as u16),
            (a as i32).max(b as i32).max(0) as u32,
            halves(&|a, b, _| (a as i16).min(b as i16).max(0) as u16),
            halves(&|a, b, c| a.max(b).max(c)),
            nth_set(a, b & 31, (c & 7) as i32 - 3),
            a.abs_diff(b).wrapping_add(c),
            ((u64::from(a) + u64::from(b)) / 2) as u32,
            bytes(&|a, b| (a as i8).saturating_add(b as i8) as u8),
            halves(&|a, b, _| a.saturating_sub(b)),
            (wide >> 96) as u32,
            (wide >> 64) as u32,
            (wide >> 32) as u32,
        ];
        assert_eq!(got, expected, "{a:x} {b:x} {c:x}");
    }
}

/// `__fns`.
fn nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    let is_set = |at: &u32| mask >> at & 1 == 1;
    let found = match offset {
        0 => Some(base).filter(is_set),
        1.. => (base..32).filter(is_set).nth(offset as usize - 1),
        _ => (0..=base).rev().filter(is_set).nth((-offset) as usize - 1),
    };
    found.unwrap_or(u32::MAX)
}
