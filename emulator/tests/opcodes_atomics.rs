//! Atomics of every operation, type and space.
#![allow(clippy::unwrap_used)] // a test

mod support;

use support::exact::{BF16, F16, F32, F64, Fmt, Way, add};
use support::floats::special;
use support::opcode::{FEW, H, INTEGERS, Kind, L, W, module, refusal, rows, value};
use support::{Arg, Bench};

const SPACES: [(&str, &str); 4] = [
    (
        ".global",
        "mov.u64 %tl0, everyones;\nmad.wide.u32 %tl0, %i, 8, %tl0;",
    ),
    (
        ".shared",
        "mov.u64 %tl0, own;\nmov.u32 %t0, %tid.x;\nmad.wide.u32 %tl0, %t0, 8, %tl0;",
    ),
    (
        "",
        "mov.u64 %tl0, everyones;\nmad.wide.u32 %tl0, %i, 8, %tl0;",
    ),
    (
        "",
        "mov.u64 %tl0, own;\nmov.u32 %t0, %tid.x;\nmad.wide.u32 %tl0, %t0, 8, %tl0;\ncvta.shared.u64 %tl0, %tl0;",
    ),
];

/// `%a` is what memory holds, `%b` (and `%c`) the operands; the results are what the atomic returned and what is there after.
fn atomic(
    op: &str,
    kind: Kind,
    space: usize,
    input: &[Vec<u64>],
    expected: impl Fn(&[u64]) -> [u64; 2],
) {
    let (name, address) = SPACES[space];
    let bits = match kind {
        H => "b16",
        W => "b32",
        _ => "b64",
    };
    let third = if input[0].len() == 3 { ", %c" } else { "" };
    let text = format!(
        "{address}\nst{name}.u64 [%tl0], -1;\nst{name}.{bits} [%tl0], %a;\natom{name}.{op} %d, [%tl0], %b{third};\nld{name}.{bits} %e, [%tl0];"
    );
    let sources = vec![kind; input[0].len()];
    let ptx = module(&text, &sources, &[kind, kind])
        .replace(
            ".reg .b64 %in,",
            ".shared .align 8 .b8 own[256];\n.reg .b64 %in,",
        )
        .replace(
            ".visible .entry",
            ".global .align 8 .b8 everyones[65536];\n.visible .entry",
        );
    let without_result = ptx.replace(&format!("atom{name}.{op} %d,"), &format!("red{name}.{op}"));
    let sunk = ptx.replace(
        &format!("atom{name}.{op} %d,"),
        &format!("atom{name}.{op} _,"),
    );
    let has_red = !op.starts_with("exch") && !op.starts_with("cas");
    for (ptx, returns) in [(&ptx, true), (&without_result, false), (&sunk, false)] {
        if !has_red && std::ptr::eq(ptx, &without_result) {
            continue;
        }
        let bench = Bench::new(ptx);
        let count = input.len().next_multiple_of(32);
        let flat: Vec<u64> = (0..count)
            .flat_map(|i| [&[1], &input[i % input.len()][..]].concat())
            .collect();
        let (from, to) = (bench.buffer(&flat), bench.empty::<u64>(2 * count));
        bench.run(
            "k",
            [(count / 32) as u32, 1, 1],
            [32, 1, 1],
            &[Arg::U64(from), Arg::U64(to)],
        );
        let got = bench.read::<u64>(to, 2 * count);
        for (row, got) in input.iter().zip(got.chunks(2)) {
            let row: Vec<u64> = row.iter().map(|x| x & kind.keep()).collect();
            let [old, new] = expected(&row).map(|x| x & kind.keep());
            assert_eq!(got[1], new, "{op} in {name}: {row:x?}");
            if returns {
                assert_eq!(got[0], old, "{op} in {name}: {row:x?}");
            }
        }
    }
}

#[test]
fn integers() {
    let input = rows(&[FEW, INTEGERS], 60);
    for space in 0..SPACES.len() {
        for (ty, width, signed) in [
            ("u32", 32, false),
            ("s32", 32, true),
            ("u64", 64, false),
            ("s64", 64, true),
        ] {
            let kind = if width == 32 { W } else { L };
            for op in ["add", "min", "max"] {
                for order in ["", "relaxed.gpu.", "acq_rel.cta."] {
                    if !order.is_empty() && (op != "add" || space != 2) {
                        continue;
                    }
                    atomic(&format!("{order}{op}.{ty}"), kind, space, &input, |r| {
                        let [a, b] = [0, 1].map(|i| value(r[i], width, signed));
                        let new = match op {
                            "add" => a + b,
                            "min" => a.min(b),
                            _ => a.max(b),
                        };
                        [r[0], new as u64]
                    });
                }
            }
        }
        for (ty, kind) in [("b32", W), ("b64", L)] {
            for (op, f) in [
                ("and", (|a, b| a & b) as fn(u64, u64) -> u64),
                ("or", |a, b| a | b),
                ("xor", |a, b| a ^ b),
                ("exch", |_, b| b),
            ] {
                atomic(&format!("{op}.{ty}"), kind, space, &input, |r| {
                    [r[0], f(r[0], r[1])]
                });
            }
        }
        atomic("inc.u32", W, space, &input, |r| {
            [r[0], if r[0] >= r[1] { 0 } else { r[0] + 1 }]
        });
        atomic("dec.u32", W, space, &input, |r| {
            [
                r[0],
                if r[0] == 0 || r[0] > r[1] {
                    r[1]
                } else {
                    r[0] - 1
                },
            ]
        });
        for (ty, kind) in [("b16", H), ("b32", W), ("b64", L)] {
            let input = rows(&[FEW, FEW, &[5, u64::MAX]], 0);
            atomic(&format!("cas.{ty}"), kind, space, &input, |r| {
                [r[0], if r[0] == r[1] { r[2] } else { r[0] }]
            });
        }
    }
}

#[test]
fn floats() {
    let sum =
        |f: Fmt, a: u64, b: u64| f.bits(&add(&f.num(a), &f.num(b), Way::Near), Way::Near, false);
    for (space, (name, _)) in SPACES.iter().enumerate() {
        // Global memory flushes, whichever way it is reached; shared memory does not.
        let flushes = *name == ".global" || space == 2;
        let values: Vec<u64> = special(F32)
            .into_iter()
            .chain([0x0080_0001, 0x8080_0000])
            .collect();
        atomic("add.f32", W, space, &rows(&[&values, &values], 50), |r| {
            let read = |x| if flushes { F32.flush(x) } else { x };
            [r[0], read(sum(F32, read(r[0]), read(r[1])))]
        });
        let values: Vec<u64> = special(F64)
            .into_iter()
            .filter(|&x| !F64.is_nan(x) && x & !F64.sign() != F64.infinity())
            .collect();
        atomic("add.f64", L, space, &rows(&[&values, &values], 0), |r| {
            [r[0], sum(F64, r[0], r[1])]
        });
        for (ty, f) in [("f16", F16), ("bf16", BF16)] {
            let values = special(f);
            atomic(
                &format!("add.noftz.{ty}"),
                H,
                space,
                &rows(&[&values, &values], 100),
                |r| [r[0], sum(f, r[0], r[1])],
            );
            atomic(
                &format!("add.noftz.{ty}x2"),
                W,
                space,
                &rows(&[&values, &values], 300),
                |r| {
                    let part = |shift: u32| sum(f, r[0] >> shift & 0xffff, r[1] >> shift & 0xffff);
                    [r[0], part(0) | part(16) << 16]
                },
            );
        }
    }
}

#[test]
fn lanes_that_meet_at_one_place_take_turns() {
    let text = ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 out)\n{\n.reg .b64 %o, %p;\n.reg .b32 %r<4>;\n.reg .pred %p1;\n.shared .align 4 .u32 s;\nld.param.u64 %o, [out];\nmov.u32 %r1, %tid.x;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [s], 0;\nbar.sync 0;\natom.shared.inc.u32 %r2, [s], 9;\nmad.wide.u32 %p, %r1, 4, %o;\nst.global.u32 [%p+4], %r2;\nred.global.add.u32 [%o], %r1;\nret;\n}\n";
    let bench = Bench::new(text);
    let out = bench.buffer(&[0u32; 65]);
    bench.run("k", [1, 1, 1], [64, 1, 1], &[Arg::U64(out)]);
    let got = bench.read::<u32>(out, 65);
    assert_eq!(got[0], 64 * 63 / 2);
    // Every count but those of the last round comes equally often.
    let mut counts = [0; 10];
    got[1..]
        .iter()
        .for_each(|&count| counts[count as usize] += 1);
    assert_eq!(counts, [7, 7, 7, 7, 6, 6, 6, 6, 6, 6]);
}

#[test]
fn vectors() {
    let text = ".version 9.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 out)
{
    .reg .b64 %o;
    .reg .b32 %r<9>;
    .reg .f32 %f<9>;
    .reg .b16 %h<9>;
    ld.param.u64 %o, [out];
    atom.global.v2.f32.add {%f1, %f2}, [%o], {0f3F800000, 0f40000000};
    red.relaxed.gpu.global.v4.f32.add [%o], {%f1, %f2, 0f3F800000, 0f40800000};
    mov.b32 %r1, 0x40003f80;
    mov.b32 %r2, 0x3f80bf80;
    red.global.v2.bf16x2.max.noftz [%o+16], {%r1, %r2};
    mov.b16 %h1, 0x3c00;
    red.global.add.noftz.v4.f16 [%o+24], {%h1, %h1, %h1, %h1};
    ret;
}
";
    let bench = Bench::new(text);
    let mut bytes: Vec<u32> = [1f32, 2., 3., 4.].map(f32::to_bits).to_vec();
    bytes.extend([0x3f80_0000, 0, 0x3c00_0000, 0x3c00_4000]);
    let out = bench.buffer(&bytes);
    bench.run("k", [1, 1, 1], [1, 1, 1], &[Arg::U64(out)]);
    let got = bench.read::<u32>(out, 8);
    assert_eq!(got[..4], [3f32, 6., 4., 8.].map(f32::to_bits));
    assert_eq!(
        got[4..],
        [0x4000_3f80, 0x3f80_0000, 0x4000_3c00, 0x4000_4200]
    );
}

#[test]
fn what_is_refused_is_named() {
    for (text, what) in [
        (
            "atom.global.add.b32 %d, [%tl0], 1;",
            "this operation on the type .b32",
        ),
        (
            "atom.global.inc.u64 %tl1, [%tl0], 1;",
            "this operation on the type .u64",
        ),
        (
            "atom.global.max.f32 %d, [%tl0], %a;",
            "this operation on the type .f32",
        ),
        (
            "atom.global.add.f16 %th0, [%tl0], %th1;",
            "the type .f16 without .noftz",
        ),
        ("atom.global.exch.b128 %d, [%tl0], %a;", "the type .b128"),
        (
            "atom.global.cas.b32 %d, [%tl0], %a;",
            "3 operands instead of 4",
        ),
        (
            "atom.global.v2.u32.add {%d, %t0}, [%tl0], {%a, %b};",
            "a vector of the type .u32",
        ),
        (
            "red.global.exch.u32 [%tl0], %a;",
            "this operation on the type .u32",
        ),
        ("atom.global.sub.u32 %d, [%tl0], %a;", "this operation"),
        ("red.async.shared.add.u32 [%tl0], %a, [%tl1];", "async"),
    ] {
        let error = refusal(text, &[W; 3], &[W]);
        let opcode = text.split(' ').next().unwrap();
        assert!(
            error.contains(what) && error.contains(opcode),
            "{text}: {error}"
        );
    }
}
