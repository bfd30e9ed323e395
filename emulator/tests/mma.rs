//! Matrix instructions of one warp, of every shape and type, and the moves of 8 x 8 matrices, against plain formulas.
#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fmt::Write;
use support::matrix::{Type, Values, accumulator_place, fragment, fragment_k};
use support::{Arg, Bench, random};

fn names(prefix: &str, count: usize) -> String {
    let list: Vec<String> = (0..count).map(|i| format!("%{prefix}{i}")).collect();
    list.join(", ")
}

/// Multiplies small integers of 16 x `k` by `k` x 8; the registers of the lanes lie side by side in memory.
fn check(k: usize, a: Type, b: Type, d: Type, satfinite: bool) {
    let per = 32 / a.bits();
    let (a_count, b_count) = (k / per / 2, k / per / 4);
    let d_count = if d == Type::F16 { 2 } else { 4 };
    let mut text = ".version 8.4\n.target sm_90a\n.address_size 64\n\
        .visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pd) {\n\
        .reg .b32 %a<5>; .reg .b32 %b<3>; .reg .b32 %c<5>; .reg .b32 %r<2>; .reg .b64 %rd<9>;\n\
        mov.u32 %r0, %tid.x; mul.wide.u32 %rd0, %r0, 4;\n"
        .to_owned();
    for (parameter, register, count) in [
        ("pa", "a", a_count),
        ("pb", "b", b_count),
        ("pd", "c", d_count),
    ] {
        writeln!(
            text,
            "ld.param.u64 %rd1, [{parameter}]; add.u64 %rd1, %rd1, %rd0;"
        )
        .unwrap();
        for i in 0..count {
            writeln!(text, "ld.global.b32 %{register}{i}, [%rd1+{}];", 128 * i).unwrap();
        }
    }
    writeln!(
        text,
        "mma.sync.aligned.m16n8k{k}.row.col{}.{}.{}.{}.{} {{{}}}, {{{}}}, {{{}}}, {{{}}};",
        if satfinite { ".satfinite" } else { "" },
        d.name(),
        a.name(),
        b.name(),
        d.name(),
        names("c", d_count),
        names("a", a_count),
        names("b", b_count),
        names("c", d_count),
    )
    .unwrap();
    for i in 0..d_count {
        writeln!(text, "st.global.b32 [%rd1+{}], %c{i};", 128 * i).unwrap();
    }
    text += "ret; }\n";

    let mut next = random(k as u64);
    let mut draw = |ty: Type, count| {
        Values::draw(ty, count, || {
            f64::from(next() % 9) - if ty == Type::U8 { 0.0 } else { 4.0 }
        })
    };
    let (x, y, z) = (draw(a, 16 * k), draw(b, 8 * k), draw(d, 16 * 8));
    let pack = |count: usize, ty: Type, at: &dyn Fn(usize, usize, usize) -> u64| -> Vec<u32> {
        let words = (0..count * 32).map(|word| {
            let elements = 0..32 / ty.bits();
            elements.fold(0, |bits, e| {
                bits | (at(word % 32, word / 32, e) as u32) << (e * ty.bits())
            })
        });
        words.collect()
    };
    let pa = pack(a_count, a, &|lane, register, e| {
        let (row, half) = fragment(lane, register);
        x.bits[row * k + fragment_k(lane, half, e, per)]
    });
    let pb = pack(b_count, b, &|lane, register, e| {
        y.bits[lane / 4 * k + fragment_k(lane, register, e, per)]
    });
    let place = |lane, register, e| accumulator_place(d, lane, register, e);
    let pd = pack(d_count, d, &|lane, register, e| {
        let (row, column) = place(lane, register, e);
        z.bits[row * 8 + column]
    });
    let bench = Bench::new(&text);
    let out = bench.buffer(&pd);
    let arguments = [
        Arg::U64(bench.buffer(&pa)),
        Arg::U64(bench.buffer(&pb)),
        Arg::U64(out),
    ];
    bench.run("k", [1, 1, 1], [32, 1, 1], &arguments);
    for (at, word) in bench.read::<u32>(out, d_count * 32).into_iter().enumerate() {
        for e in 0..32 / d.bits() {
            let (row, column) = place(at % 32, at / 32, e);
            let sum: f64 = (0..k)
                .map(|i| x.values[row * k + i] * y.values[column * k + i])
                .sum();
            let expected = sum + z.values[row * 8 + column];
            let got = d.value(u64::from(word >> (16 * e)));
            assert_eq!(
                got, expected,
                "m16n8k{k} {a:?} {b:?} {d:?}: row {row} column {column}"
            );
        }
    }
}

#[test]
fn every_shape_and_type() {
    use Type::{Bf16, E4m3, E5m2, F16, F32, S8, S32, Tf32, U8};
    for k in [8, 16] {
        check(k, F16, F16, F32, false);
        check(k, F16, F16, F16, false);
        check(k, Bf16, Bf16, F32, false);
    }
    for k in [4, 8] {
        check(k, Tf32, Tf32, F32, false);
    }
    for a in [S8, U8] {
        for b in [S8, U8] {
            check(16, a, b, S32, a == b);
            check(32, a, b, S32, a != b);
        }
    }
    for a in [E4m3, E5m2] {
        for b in [E4m3, E5m2] {
            check(32, a, b, F32, false);
        }
    }
}

/// A kernel that fills shared memory with 32 rows of 8 halves, runs `body` and stores registers `%d0` to `%d3` or the memory.
fn moves(body: &str, registers: usize) -> String {
    let mut text = format!(
        ".version 8.3\n.target sm_90a\n.address_size 64\n.shared .align 16 .b8 tile[512];\n\
         .visible .entry k(.param .u64 px, .param .u64 py) {{\n\
         .reg .b32 %d<5>; .reg .b32 %r<8>; .reg .b64 %rd<8>;\n\
         mov.u32 %r0, %tid.x; mov.u32 %r1, tile; mul.lo.u32 %r2, %r0, 16; add.u32 %r1, %r1, %r2;\n\
         cvt.u64.u32 %rd0, %r2; ld.param.u64 %rd1, [px]; add.u64 %rd1, %rd1, %rd0;\n\
         ld.param.u64 %rd2, [py]; add.u64 %rd2, %rd2, %rd0;\n\
         ld.global.v4.b32 {{%d0, %d1, %d2, %d3}}, [%rd1];\n{body}\n"
    );
    if registers > 0 {
        for i in 0..registers {
            writeln!(text, "st.global.b32 [%rd2+{}], %d{i};", 4 * i).unwrap();
        }
    } else {
        text += "bar.warp.sync -1;\nld.shared.v4.b32 {%d0, %d1, %d2, %d3}, [%r1];\n\
                 st.global.v4.b32 [%rd2], {%d0, %d1, %d2, %d3};\n";
    }
    text + "ret; }\n"
}

fn run_moves(text: &str, input: &[u16]) -> Vec<u16> {
    let bench = Bench::new(text);
    let out = bench.buffer(&[0u16; 256]);
    let arguments = [Arg::U64(bench.buffer(input)), Arg::U64(out)];
    bench.run("k", [1, 1, 1], [32, 1, 1], &arguments);
    bench.read(out, 256)
}

/// Row and column in an 8 x 8 matrix of a half of a lane's register.
fn element(lane: usize, half: usize, transposed: bool) -> (usize, usize) {
    let (row, column) = (lane / 4, 2 * (lane % 4) + half);
    if transposed {
        (column, row)
    } else {
        (row, column)
    }
}

#[test]
fn ldmatrix_and_stmatrix_by_their_formulas() {
    let input: Vec<u16> = (0..256).collect();
    for count in [1, 2, 4] {
        for transposed in [false, true] {
            let trans = if transposed { ".trans" } else { "" };
            let form = format!("sync.aligned.m8n8.x{count}{trans}.shared.b16");
            // Lane i gives the address of row i; the rows of matrix m are those of lanes 8m to 8m + 7.
            let load = format!(
                "st.shared.v4.b32 [%r1], {{%d0, %d1, %d2, %d3}};\nbar.warp.sync -1;\nldmatrix.{form} {{{}}}, [%r1];",
                names("d", count)
            );
            let got = run_moves(&moves(&load, count), &input);
            for lane in 0..32 {
                for m in 0..count {
                    for half in 0..2 {
                        let (row, column) = element(lane, half, transposed);
                        let expected = (64 * m + 8 * row + column) as u16;
                        assert_eq!(got[8 * lane + 2 * m + half], expected, "{form} lane {lane}");
                    }
                }
            }
            // What is in the lanes' registers: lane, register and half as one number.
            let store = format!(
                "st.shared.v4.b32 [%r1], {{%d3, %d3, %d3, %d3}};\nbar.warp.sync -1;\nstmatrix.{form} [%r1], {{{}}};",
                names("d", count)
            );
            let got = run_moves(&moves(&store, 0), &input);
            for lane in 0..32 {
                for m in 0..count {
                    for half in 0..2 {
                        let (row, column) = element(lane, half, transposed);
                        let value = (8 * lane + 2 * m + half) as u16;
                        assert_eq!(got[64 * m + 8 * row + column], value, "{form} lane {lane}");
                    }
                }
            }
        }
    }
    let got = run_moves(
        &moves("movmatrix.sync.aligned.m8n8.trans.b16 %d0, %d0;", 1),
        &input,
    );
    for lane in 0..32 {
        for half in 0..2 {
            let (row, column) = element(lane, half, true);
            // The half at (row, column) was in the register of lane 4 row + column / 2.
            let expected = 8 * (4 * row + column / 2) + column % 2;
            assert_eq!(got[8 * lane + half], expected as u16, "lane {lane}");
        }
    }
}
