//! Loads and stores of every width in every space, addresses at the edges, state spaces and their windows.
#![allow(clippy::unwrap_used)] // a test

mod support;

use stepscope_emulator::check::FindingKind;
use support::opcode::{H, INTEGERS, L, P, W, check, module, refusal, rows, value};
use support::{Arg, Bench};

const TYPES: [(&str, u32, bool); 14] = [
    ("u8", 8, false),
    ("s8", 8, true),
    ("b8", 8, false),
    ("u16", 16, false),
    ("s16", 16, true),
    ("b16", 16, false),
    ("u32", 32, false),
    ("s32", 32, true),
    ("b32", 32, false),
    ("f32", 32, false),
    ("u64", 64, false),
    ("s64", 64, true),
    ("b64", 64, false),
    ("f64", 64, false),
];

/// How each space is reached: statements that put an address of 64 bytes of a thread's own into `%tl0`, the opcode's part.
const SPACES: [(&str, &str); 6] = [
    (
        ".shared",
        "mov.u64 %tl0, own;\nmov.u32 %t0, %tid.x;\nmad.wide.u32 %tl0, %t0, 64, %tl0;",
    ),
    (
        ".shared::cta",
        "mov.u64 %tl0, own;\nmov.u32 %t0, %tid.x;\nmad.wide.u32 %tl0, %t0, 64, %tl0;",
    ),
    (
        "",
        "mov.u64 %tl0, own;\nmov.u32 %t0, %tid.x;\nmad.wide.u32 %tl0, %t0, 64, %tl0;\ncvta.shared.u64 %tl0, %tl0;",
    ),
    (".local", "mov.u64 %tl0, mine;"),
    ("", "mov.u64 %tl0, mine;\ncvta.local.u64 %tl0, %tl0;"),
    (
        ".global",
        "mov.u64 %tl0, everyones;\nmad.wide.u32 %tl0, %i, 64, %tl0;",
    ),
];

/// The variables that `SPACES` names go in front of the statements; the harness gives each the guard, so they are put in by hand.
fn with_variables(text: &str) -> String {
    text.replace(
        ".reg .b64 %in,",
        ".shared .align 64 .b8 own[2048];\n.local .align 64 .b8 mine[64];\n.reg .b64 %in,",
    )
    .replace(
        ".visible .entry",
        ".global .align 64 .b8 everyones[65536];\n.visible .entry",
    )
}

/// Runs a kernel of the harness after `change`; rows are given and got as there.
fn run(
    text: &str,
    sources: &[support::opcode::Kind],
    results: usize,
    kinds: &[support::opcode::Kind],
    input: &[Vec<u64>],
) -> Vec<Vec<u64>> {
    assert_eq!(kinds.len(), results);
    let bench = Bench::new(&with_variables(&module(text, sources, kinds)));
    let count = input.len().next_multiple_of(32);
    let flat: Vec<u64> = (0..count)
        .flat_map(|i| [&[1], &input[i % input.len()][..]].concat())
        .collect();
    let (from, to) = (bench.buffer(&flat), bench.empty::<u64>(count * results));
    bench.run(
        "k",
        [(count / 32) as u32, 1, 1],
        [32, 1, 1],
        &[Arg::U64(from), Arg::U64(to)],
    );
    let got = bench.read::<u64>(to, count * results);
    got.chunks(results)
        .take(input.len())
        .map(<[u64]>::to_vec)
        .collect()
}

#[test]
fn every_type_in_every_space() {
    let input = rows(&[INTEGERS], 41);
    for (space, address) in SPACES {
        for (ty, width, signed) in TYPES {
            // Into a register of 64 bits, which shows the extension; from one, which shows the truncation.
            let text = format!(
                "{address}\nst{space}.u64 [%tl0+8], -1;\nst{space}.{ty} [%tl0+8], %a;\nld{space}.{ty} %d, [%tl0+8];\nld{space}.u64 %e, [%tl0+8];"
            );
            for (row, got) in input.iter().zip(run(&text, &[L], 2, &[L, L], &input)) {
                let keep = u64::MAX >> (64 - width);
                assert_eq!(got[0], value(row[0], width, signed) as u64, "{text}");
                assert_eq!(got[1], row[0] & keep | !keep, "{text}");
            }
            // Registers of the type's own width.
            let kind = if width <= 16 {
                H
            } else if width == 32 {
                W
            } else {
                L
            };
            let text = format!("{address}\nst{space}.{ty} [%tl0], %a;\nld{space}.{ty} %d, [%tl0];");
            for (row, got) in input.iter().zip(run(&text, &[kind], 1, &[kind], &input)) {
                let own = if width == 8 { 16 } else { width };
                assert_eq!(
                    got[0],
                    value(row[0], width, signed) as u64 & (u64::MAX >> (64 - own)),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn vectors_of_every_width() {
    let input = rows(&[INTEGERS, INTEGERS], 0);
    for (space, address) in SPACES {
        for (ty, width, signed) in TYPES {
            for lanes in [2u32, 4] {
                if lanes * width > 128 {
                    continue;
                }
                let bytes = width / 8;
                let data = if lanes == 2 {
                    "{%a, %b}"
                } else {
                    "{%a, %b, %b, 5}"
                };
                let data = if ty.starts_with('f') && lanes == 4 {
                    "{%a, %b, %b, %a}"
                } else {
                    data
                };
                let back = if lanes == 2 {
                    "{%e, %d}"
                } else {
                    "{_, %d, _, %e}"
                };
                let last = lanes - 1;
                let text = format!(
                    "{address}\nst{space}.v{lanes}.{ty} [%tl0+16], {data};\nld{space}.v{lanes}.{ty} {back}, [%tl0+16];\nld{space}.{ty} %tl1, [%tl0+{}];",
                    16 + bytes * last
                );
                for (row, got) in input.iter().zip(run(&text, &[L, L], 2, &[L, L], &input)) {
                    let own = |x: u64| value(x, width, signed) as u64;
                    let e = match (lanes, ty.starts_with('f')) {
                        (2, _) => own(row[0]),
                        (_, true) => own(row[0]),
                        _ => 5,
                    };
                    assert_eq!(got, [own(row[1]), e], "{text}");
                }
            }
        }
    }
}

#[test]
fn addresses_and_hints() {
    // Negative offsets, 32-bit addresses that wrap, immediates, symbols with offsets, and all kinds of cache operators.
    let text = "mov.u32 %t0, %tid.x;
        shl.b32 %t0, %t0, 6;
        mov.u32 %t1, own;
        add.u32 %t0, %t0, %t1;
        add.u32 %t2, %t0, 16;
        st.shared.u32 [%t2+-8], %a;
        ld.shared.u32 %d, [%t0+8];
        sub.u32 %t3, %t0, 64;
        ld.volatile.shared.u32 %e, [%t3+72];";
    let input = rows(&[INTEGERS], 0);
    for (row, got) in input.iter().zip(run(text, &[W], 2, &[W, W], &input)) {
        assert_eq!(got, [row[0] & 0xffff_ffff; 2]);
    }
    for store in [
        "wb",
        "cg",
        "cs",
        "wt",
        "volatile",
        "relaxed.gpu",
        "release.sys",
        "L1::no_allocate",
        "L1::evict_first",
        "weak",
    ] {
        for load in [
            "ca",
            "cg",
            "cs",
            "lu",
            "cv",
            "nc",
            "nc.L1::no_allocate.L2::128B",
            "relaxed.cta",
            "acquire.gpu",
            "L1::evict_last",
            "L2::256B",
        ] {
            // A read through the other cache need not see what the same kernel wrote.
            let load = if load.starts_with("nc") { "weak" } else { load };
            // Qualifiers of order stand before the space, those of caching behind it.
            let put = |name: &str, op: &str| {
                if ["volatile", "relaxed", "release", "acquire", "weak"]
                    .iter()
                    .any(|order| name.starts_with(order))
                {
                    format!("{op}.{name}.global")
                } else {
                    format!("{op}.global.{name}")
                }
            };
            let text = format!(
                "mov.u64 %tl0, everyones;\nmad.wide.u32 %tl0, %i, 64, %tl0;\n{}.u32 [%tl0], %a;\n{}.u32 %d, [%tl0];",
                put(store, "st"),
                put(load, "ld")
            );
            for (row, got) in input.iter().zip(run(&text, &[W], 1, &[W], &input)) {
                assert_eq!(got, [row[0] & 0xffff_ffff], "{text}");
            }
        }
    }
    let text = "createpolicy.fractional.L2::evict_last.b64 %tl3, 0f3F800000;
        mov.u64 %tl0, everyones;
        mad.wide.u32 %tl0, %i, 64, %tl0;
        st.global.L2::cache_hint.v2.u32 [%tl0], {%a, 7}, %tl3;
        ld.global.L1::no_allocate.L2::cache_hint.u32 %d, [%tl0], %tl3;
        prefetch.global.L2 [%tl0];
        prefetchu.L1 [%tl0];
        red.global.add.L2::cache_hint.u32 [%tl0+4], 3, %tl3;
        ld.global.u32 %e, [%tl0+4];";
    for (row, got) in input.iter().zip(run(text, &[W], 2, &[W, W], &input)) {
        assert_eq!(got, [row[0] & 0xffff_ffff, 10]);
    }
}

#[test]
fn a_warp_over_all_spaces() {
    // Lane by lane a generic address in another space; the harness's own row is its part of global memory.
    let text = "mov.u32 %t0, %tid.x;
        and.b32 %t1, %t0, 3;
        mov.u64 %tl0, own;
        mad.wide.u32 %tl0, %t0, 64, %tl0;
        cvta.shared.u64 %tl0, %tl0;
        mov.u64 %tl1, mine;
        cvta.local.u64 %tl1, %tl1;
        mov.u64 %tl2, everyones;
        mad.wide.u32 %tl2, %i, 64, %tl2;
        cvta.global.u64 %tl2, %tl2;
        setp.eq.u32 %tp0, %t1, 0;
        setp.eq.u32 %tp1, %t1, 1;
        selp.b64 %tl3, %tl0, %tl1, %tp0;
        or.pred %tp2, %tp0, %tp1;
        selp.b64 %tl3, %tl3, %tl2, %tp2;
        st.v2.u32 [%tl3+8], {%a, %t0};
        ld.u32 %t2, [%tl3+12];
        ld.u32 %d, [%tl3+8];
        isspacep.shared %tp3, %tl3;
        isspacep.local %tp4, %tl3;
        isspacep.global %tp5, %tl3;
        isspacep.shared::cluster %tp6, %tl3;
        selp.u32 %e, 1, 0, %tp3;
        selp.u32 %t4, 2, 0, %tp4;
        or.b32 %e, %e, %t4;
        selp.u32 %t4, 4, 0, %tp5;
        or.b32 %e, %e, %t4;
        selp.u32 %t4, 8, 0, %tp6;
        or.b32 %e, %e, %t4;
        sub.u32 %t2, %t2, %t0;
        shl.b32 %t2, %t2, 8;
        or.b32 %e, %e, %t2;";
    let input: Vec<Vec<u64>> = (0..64).map(|i| vec![i * 77]).collect();
    for (i, (row, got)) in input
        .iter()
        .zip(run(text, &[W], 2, &[W, W], &input))
        .enumerate()
    {
        let space = [9, 2, 4, 4][i % 4];
        assert_eq!(got, [row[0], space], "{i}");
    }
    // There and back.
    for space in ["shared", "local", "global", "const", "param", "shared::cta"] {
        check(
            &format!("cvta.{space}.u64 %tl0, %a;\ncvta.to.{space}.u64 %d, %tl0;"),
            &[L],
            &[L],
            &rows(&[INTEGERS], 20),
            |r| vec![r[0]],
        );
    }
    check(
        "isspacep.param %d, %a;",
        &[L],
        &[P],
        &rows(&[&[0, 1 << 32]], 0),
        |_| vec![0],
    );
}

const PARAMETERS: &str = ".version 9.0
.target sm_90a
.address_size 64
.const .align 4 .b32 table[4] = {1, -2, 0x30, 4};
.global .align 4 .u32 word = 77;
.global .align 8 .u64 to_word = word;
.global .align 8 .u64 to_next[2] = {generic(numbers)+4, numbers+8};
.global .align 4 .u32 numbers[3] = {10, 20, 30};
.global .align 4 .f32 floats[2] = {0f3F800000, 2.5};
.extern .shared .align 128 .b8 dynamic[];
.visible .entry k(.param .align 8 .b8 block[24], .param .u8 small, .param .u64 out, .param .align 16 .b8 large[32])
{
    .reg .b64 %o, %x, %y;
    .reg .b32 %r<20>;
    .reg .b16 %h<4>;
    .shared .align 4 .b8 fixed[12];
    ld.param.u64 %o, [out];
    cvta.to.global.u64 %o, %o;
    ld.param.u32 %r1, [block];
    ld.param.u8 %h1, [block+4];
    cvt.u32.u16 %r2, %h1;
    ld.param.s16 %r3, [block+6];
    ld.param.u64 %x, [block+8];
    cvt.u32.u64 %r4, %x;
    ld.param.v2.u32 {%r5, %r6}, [block+16];
    ld.param.s8 %r7, [small];
    mov.b64 %x, large;
    cvta.param.u64 %y, %x;
    ld.u32 %r8, [%y+4];
    ld.param.v4.u32 {%r9, _, _, %r10}, [large+16];
    ld.const.u32 %r11, [table+4];
    mov.u64 %x, table;
    ld.const.u32 %r12, [%x+8];
    ld.global.u64 %x, [to_word];
    ld.u32 %r13, [%x];
    ld.global.u64 %x, [to_next];
    ld.global.u32 %r14, [%x];
    ld.global.u64 %x, [to_next+8];
    ld.global.u32 %r15, [%x];
    ld.global.u32 %r16, [floats+4];
    mov.u32 %r17, dynamic;
    mov.u32 %r18, %dynamic_smem_size;
    mov.u32 %r19, %total_smem_size;
    st.shared.u32 [fixed+8], 1;
    st.global.v4.u32 [%o], {%r1, %r2, %r3, %r4};
    st.global.v4.u32 [%o+16], {%r5, %r6, %r7, %r8};
    st.global.v4.u32 [%o+32], {%r9, %r10, %r11, %r12};
    st.global.v4.u32 [%o+48], {%r13, %r14, %r15, %r16};
    st.global.v4.u32 [%o+64], {%r17, %r18, %r19, 0};
    ret;
}
";

#[test]
fn parameters_constants_and_initial_values() {
    let mut bench = Bench::new(PARAMETERS);
    bench.shared = 100;
    let out = bench.empty::<u32>(20);
    let mut block = vec![0u8; 24];
    block[..4].copy_from_slice(&0x1234_5678u32.to_le_bytes());
    block[4] = 200;
    block[6..8].copy_from_slice(&(-3i16).to_le_bytes());
    block[8..16].copy_from_slice(&0xffff_ffff_0000_0009u64.to_le_bytes());
    block[16..24].copy_from_slice(&0x0000_0006_0000_0005u64.to_le_bytes());
    let large: Vec<u8> = (0..32).collect();
    bench.run(
        "k",
        [1, 1, 1],
        [1, 1, 1],
        &[
            Arg::Bytes(block),
            Arg::Bytes(vec![0xf0]),
            Arg::U64(out),
            Arg::Bytes(large),
        ],
    );
    let word = |at: u32| u32::from_le_bytes([at as u8, at as u8 + 1, at as u8 + 2, at as u8 + 3]);
    let expected = [
        0x1234_5678,
        200,
        -3i32 as u32,
        9,
        5,
        6,
        -16i32 as u32,
        word(4),
        word(16),
        word(28),
        -2i32 as u32,
        0x30,
        77,
        20,
        30,
        2.5f32.to_bits(),
        128,
        100,
        256,
        0,
    ];
    assert_eq!(bench.read::<u32>(out, 20), expected);
}

/// The kinds of finding of one thread that runs `text`.
fn findings(text: &str) -> Vec<FindingKind> {
    let bench = Bench::new(&with_variables(&module(text, &[], &[W, L])));
    let (from, to) = (bench.buffer(&[1u64; 32]), bench.empty::<u64>(64));
    let report = bench.launch("k", [1, 1, 1], [1, 1, 1], &[Arg::U64(from), Arg::U64(to)]);
    assert!(report.failure.is_none(), "{text}: {:?}", report.failure);
    report.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn addresses_at_the_ends_of_everything() {
    use FindingKind::{Misaligned, OutOfBounds, WriteToConstant};
    for space in ["", ".global", ".shared", ".shared::cluster", ".local"] {
        for address in [
            "-4",
            "-8",
            "-16",
            "0xfffffffffffffffc",
            "0x7ffffffffffffff0",
            "0xfffffff0",
            "0x1fffffff0",
            "0x2fffffff0",
            "0x3fffffff0",
            "0x8000000000000000",
        ] {
            for (op, data) in [
                ("ld", "%t1"),
                ("st", "%t1"),
                ("ld.v4", "{%t1, %t2, %t3, %t4}"),
                ("st.v4", "{%t1, %t2, %t3, %t4}"),
            ] {
                let (base, vector) = op
                    .split_once('.')
                    .map_or((op, String::new()), |(base, v)| (base, format!(".{v}")));
                let operands = if base == "ld" {
                    format!("{data}, [%tl0]")
                } else {
                    format!("[%tl0], {data}")
                };
                let text = format!(
                    "mov.b32 %t1, 0;\nmov.b32 %t2, 0;\nmov.b32 %t3, 0;\nmov.b32 %t4, 0;\nmov.u64 %tl0, {address};\n{base}{space}{vector}.u32 {operands};"
                );
                let found = findings(&text);
                assert!(
                    !found.is_empty()
                        && found
                            .iter()
                            .all(|kind| matches!(kind, OutOfBounds | Misaligned | WriteToConstant)),
                    "{text}: {found:?}"
                );
            }
            if space != ".local" {
                let found = findings(&format!(
                    "mov.u64 %tl0, {address};\natom{space}.add.u32 %d, [%tl0], 1;"
                ));
                assert!(!found.is_empty(), "{space} {address}");
            }
        }
    }
    // Offsets that leave a variable, or wrap in 32 bits.
    assert_eq!(
        findings("mov.u32 %t0, 0;\nld.shared.u32 %d, [%t0-4];"),
        [OutOfBounds]
    );
    assert_eq!(
        findings("mov.u64 %tl0, mine;\nld.local.u32 %d, [%tl0-4];"),
        [OutOfBounds]
    );
    assert_eq!(
        findings("mov.u64 %tl0, mine;\nst.local.u32 [%tl0+2], 0;"),
        [Misaligned]
    );
    assert_eq!(
        findings("mov.u64 %tl0, mine;\nst.local.v2.u32 [%tl0+4], {0, 0};"),
        [Misaligned]
    );
    assert_eq!(findings("ld.param.u64 %e, [in+1000];"), [OutOfBounds]);
    assert_eq!(
        findings("mov.u64 %tl0, own;\nst.shared.u64 [%tl0+4], %e;"),
        [Misaligned]
    );
}

#[test]
fn uninitialised_memory_is_found_by_atomics_too() {
    let none: [FindingKind; 0] = [];
    let uninitialised = [FindingKind::UninitialisedMemory];
    for (text, expected) in [
        ("atom.shared.add.u32 %d, [own], 1;", &uninitialised[..]),
        ("red.shared.or.b32 [own], 1;", &uninitialised),
        ("atom.shared.cas.b32 %d, [own], 1, 2;", &uninitialised),
        ("atom.shared.exch.b32 %d, [own], 1;", &none),
        (
            "st.shared.u32 [own], 0;\natom.shared.add.u32 %d, [own], 1;\nld.shared.u32 %d, [own];",
            &none,
        ),
        (
            "st.shared.u32 [own], 0;\natom.shared.add.u64 %e, [own], 1;",
            &uninitialised,
        ),
        (
            "ld.param.u64 %tl0, [out];\nred.global.add.u32 [%tl0], 1;",
            &uninitialised,
        ),
        (
            "ld.param.u64 %tl0, [out];\natom.max.u64 %e, [%tl0], 1;",
            &uninitialised,
        ),
        (
            "ld.param.u64 %tl0, [out];\natom.global.exch.b32 %d, [%tl0], 1;",
            &none,
        ),
        (
            "ld.param.u64 %tl0, [out];\nst.global.u32 [%tl0], 1;\natom.global.add.u32 %d, [%tl0], 1;",
            &none,
        ),
        ("red.global.add.u32 [everyones], 1;", &none),
    ] {
        assert_eq!(findings(text), expected, "{text}");
    }
}

#[test]
fn what_is_refused_is_named() {
    for (text, what) in [
        ("ld.global.b128 %d, [%tl0];", "the type .b128"),
        ("ld.global.u32.xyz %d, [%tl0];", "the modifier .xyz"),
        ("ld.global.u32 %d, [%tl0], %tl1;", "3 operands instead of 2"),
        ("ld.global.v2.u32 %d, [%tl0];", "a vector of another length"),
        ("st.const.u32 [%tl0], %a;", "a store to constant memory"),
        ("cvta.u64 %tl0, %tl1;", "without a state space"),
        ("cvta.to.shared.u32 %d, %a;", "32-bit addresses"),
        ("isspacep.xyz %tp0, %tl0;", "the modifier .xyz"),
        ("fence.xyz;", "the modifier .xyz"),
        (
            "cp.async.cg.shared.global [%tl0], [%tl1], 8;",
            "the modifier .cg with less than 16 bytes",
        ),
        ("cp.async.ca.shared.global [%tl0], [%tl1], 3;", "this size"),
        (
            "ld.global.u64 %d, [%tl0];",
            "a register narrower than the type",
        ),
        ("alloca.u64 %tl0, 64;", "unknown instruction"),
        ("stacksave.u64 %tl0;", "unknown instruction"),
    ] {
        let error = refusal(text, &[W; 3], &[W]);
        let opcode = text.split([' ', ';']).next().unwrap();
        assert!(
            error.contains(what) && error.contains(opcode),
            "{text}: {error}"
        );
    }
}
