//! What the lanes of a warp do together: shuffles, votes, matches, reductions, under every mode and under partial masks.
#![allow(clippy::unwrap_used)] // a test

mod support;

use support::opcode::{FEW, H, INTEGERS, Kind, L, P, W, module, refusal};
use support::{Arg, Bench, random};

/// Runs `text` on one warp after another of 32 rows each, where `on` says which lanes take part, and hands the results to `expected`,
/// which gives what each lane that is on must have.
fn warps(
    text: &str,
    sources: &[Kind],
    results: &[Kind],
    warps: &[([u64; 32], Vec<Vec<u64>>)],
    expected: impl Fn(u32, &[Vec<u64>], usize) -> Vec<Option<u64>>,
) {
    let bench = Bench::new(&module(text, sources, results));
    let mut input = Vec::new();
    for (on, rows) in warps {
        for (on, row) in on.iter().zip(rows) {
            input.push(*on);
            input.extend(row.iter().zip(sources).map(|(x, kind)| x & kind.keep()));
        }
    }
    let threads = warps.len() * 32;
    let (from, to) = (
        bench.buffer(&input),
        bench.empty::<u64>(threads * results.len()),
    );
    bench.run(
        "k",
        [warps.len() as u32, 1, 1],
        [32, 1, 1],
        &[Arg::U64(from), Arg::U64(to)],
    );
    let got = bench.read::<u64>(to, threads * results.len());
    for (index, (on, rows)) in warps.iter().enumerate() {
        let mask = (0..32)
            .filter(|&lane| on[lane] == 1)
            .fold(0u32, |mask, lane| mask | 1 << lane);
        let rows: Vec<Vec<u64>> = rows
            .iter()
            .map(|row| {
                row.iter()
                    .zip(sources)
                    .map(|(x, kind)| x & kind.keep())
                    .collect()
            })
            .collect();
        for lane in 0..32 {
            if mask >> lane & 1 == 0 {
                continue;
            }
            let want = expected(mask, &rows, lane);
            let at = (index * 32 + lane) * results.len();
            for (i, want) in want.iter().enumerate() {
                let Some(want) = want else { continue };
                assert_eq!(
                    got[at + i],
                    want & results[i].keep(),
                    "`{text}`, mask {mask:x}, lane {lane}, result {i}"
                );
            }
        }
    }
}

/// Warps with all lanes, one, few and many.
fn masks() -> Vec<[u64; 32]> {
    let mut next = random(3);
    let mut masks = vec![u32::MAX, 1, 1 << 31, 0x0000_ffff, 0xaaaa_aaaa, 0x7fff_fffe];
    masks.extend((0..4).map(|_| next() | 1 << 7));
    masks
        .iter()
        .map(|mask| std::array::from_fn(|lane| u64::from(mask >> lane & 1)))
        .collect()
}

fn mask_of(on: &[u64; 32]) -> u64 {
    (0..32).map(|lane| on[lane] << lane).sum()
}

fn with_values(values: &[u64]) -> Vec<([u64; 32], Vec<Vec<u64>>)> {
    let mut next = random(4);
    masks()
        .into_iter()
        .map(|on| {
            // The mask of the lanes that are on comes as the second source.
            let rows = (0..32).map(|_| {
                let bits = u64::from(next()) << 32 | u64::from(next());
                let value = if values.is_empty() {
                    bits
                } else {
                    values[bits as usize % values.len()]
                };
                vec![value, mask_of(&on)]
            });
            (on, rows.collect())
        })
        .collect()
}

#[test]
fn shuffles() {
    for mode in ["up", "down", "bfly", "idx"] {
        for width in [2u64, 4, 8, 16, 32] {
            for offset in [0u64, 1, 2, 3, 7, 16, 31] {
                let segment = (32 - width) << 8;
                for clamp in if mode == "up" {
                    [0, 0]
                } else {
                    [31, 31 & (width - 1)]
                } {
                    let c = segment | clamp;
                    let text = format!("shfl.sync.{mode}.b32 %d|%e, %a, {offset}, {c}, %b;");
                    warps(
                        &text,
                        &[W, W],
                        &[W, P],
                        &with_values(&[]),
                        |mask, rows, lane| {
                            let own = lane as u64;
                            let segment = c >> 8 & 31;
                            let max = own & segment | clamp & !segment & 31;
                            let min = own & segment;
                            let (from, inside) = match mode {
                                "up" => (
                                    own.wrapping_sub(offset),
                                    own as i64 - offset as i64 >= max as i64,
                                ),
                                "down" => (own + offset, own + offset <= max),
                                "bfly" => (own ^ offset, own ^ offset <= max),
                                _ => {
                                    let from = min | offset & !segment;
                                    (from, from <= max)
                                }
                            };
                            let from = if inside { from as usize } else { lane };
                            // A lane that takes no part has no value to give.
                            let value = (mask >> from & 1 == 1).then(|| rows[from][0]);
                            vec![value, Some(u64::from(inside))]
                        },
                    );
                }
            }
        }
    }
    // The lane to read from may differ.
    warps(
        "and.b32 %t0, %a, 31;\nshfl.sync.idx.b32 %d, %a, %t0, 31, %b;",
        &[W, W],
        &[W],
        &with_values(&[]),
        |mask, rows, lane| {
            let from = (rows[lane][0] & 31) as usize;
            vec![(mask >> from & 1 == 1).then(|| rows[from][0])]
        },
    );
    // Without a second destination, into the register that is read.
    warps(
        "mov.b32 %d, %a;\nshfl.sync.down.b32 %d|_, %d, 4, 31, %b;",
        &[W, W],
        &[W],
        &with_values(&[]),
        |mask, rows, lane| {
            let from = if lane + 4 < 32 { lane + 4 } else { lane };
            vec![(mask >> from & 1 == 1).then(|| rows[from][0])]
        },
    );
}

fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| mask >> lane & 1 == 1)
}

#[test]
fn votes() {
    for values in [&[0][..], &[1], &[0, 1], &[0, 0, 0, 0, 0, 1]] {
        for not in ["", "!"] {
            let yes = |rows: &[Vec<u64>], lane: usize| (rows[lane][0] == 1) == not.is_empty();
            let text =
                format!("vote.sync.all.pred %d, {not}%a, %b;\nvote.sync.any.pred %e, {not}%a, %b;");
            warps(
                &text,
                &[P, W],
                &[P, P],
                &with_values(values),
                |mask, rows, _| {
                    vec![
                        Some(u64::from(lanes(mask).all(|lane| yes(rows, lane)))),
                        Some(u64::from(lanes(mask).any(|lane| yes(rows, lane)))),
                    ]
                },
            );
            let text = format!(
                "vote.sync.uni.pred %d, {not}%a, %b;\nvote.sync.ballot.b32 %e, {not}%a, %b;"
            );
            warps(
                &text,
                &[P, W],
                &[P, W],
                &with_values(values),
                |mask, rows, _| {
                    let ballot: u64 = lanes(mask)
                        .filter(|&lane| yes(rows, lane))
                        .map(|lane| 1 << lane)
                        .sum();
                    vec![
                        Some(u64::from(ballot == 0 || ballot == u64::from(mask))),
                        Some(ballot),
                    ]
                },
            );
        }
    }
}

#[test]
fn matches() {
    for (ty, kind) in [("b32", W), ("b64", L)] {
        for values in [&[7][..], &[1, 2], FEW, &[]] {
            warps(
                &format!("match.any.sync.{ty} %d, %a, %b;"),
                &[kind, W],
                &[W],
                &with_values(values),
                |mask, rows, lane| {
                    vec![Some(
                        lanes(mask)
                            .filter(|&l| rows[l][0] == rows[lane][0])
                            .map(|l| 1 << l)
                            .sum(),
                    )]
                },
            );
            warps(
                &format!("match.all.sync.{ty} %d|%e, %a, %b;"),
                &[kind, W],
                &[W, P],
                &with_values(values),
                |mask, rows, lane| {
                    let agree = lanes(mask).all(|l| rows[l][0] == rows[lane][0]);
                    vec![
                        Some(if agree { u64::from(mask) } else { 0 }),
                        Some(u64::from(agree)),
                    ]
                },
            );
        }
    }
}

#[test]
fn reductions() {
    for (op, ty) in [
        ("add", "u32"),
        ("add", "s32"),
        ("min", "u32"),
        ("min", "s32"),
        ("max", "u32"),
        ("max", "s32"),
        ("and", "b32"),
        ("or", "b32"),
        ("xor", "b32"),
    ] {
        for values in [INTEGERS, &[]] {
            warps(
                &format!("redux.sync.{op}.{ty} %d, %a, %b;"),
                &[W, W],
                &[W],
                &with_values(values),
                |mask, rows, _| {
                    let values = lanes(mask).map(|lane| rows[lane][0] as u32);
                    let result = match (op, ty) {
                        ("add", _) => values.fold(0, u32::wrapping_add),
                        ("min", "s32") => values.map(|x| x as i32).min().unwrap() as u32,
                        ("max", "s32") => values.map(|x| x as i32).max().unwrap() as u32,
                        ("min", _) => values.min().unwrap(),
                        ("max", _) => values.max().unwrap(),
                        ("and", _) => values.fold(u32::MAX, |a, b| a & b),
                        ("or", _) => values.fold(0, |a, b| a | b),
                        _ => values.fold(0, |a, b| a ^ b),
                    };
                    vec![Some(u64::from(result))]
                },
            );
        }
    }
}

#[test]
fn masks_and_leaders() {
    warps(
        "activemask.b32 %d;\nbar.warp.sync %b;\nelect.sync %t1|%e, %b;",
        &[W, W],
        &[W, P],
        &with_values(&[]),
        |mask, _, lane| {
            vec![
                Some(u64::from(mask)),
                Some(u64::from(lane as u32 == mask.trailing_zeros())),
            ]
        },
    );
    warps(
        "elect.sync %d|%tp1, %b;",
        &[W, W],
        &[W],
        &with_values(&[]),
        |mask, _, _| vec![Some(u64::from(mask.trailing_zeros()))],
    );
    for (name, f) in [
        ("laneid", (|lane| lane) as fn(u64) -> u64),
        ("lanemask_eq", |lane| 1 << lane),
        ("lanemask_lt", |lane| (1 << lane) - 1),
        ("lanemask_le", |lane| (2 << lane) - 1),
        ("lanemask_gt", |lane| !((2 << lane) - 1)),
        ("lanemask_ge", |lane| !((1 << lane) - 1)),
        ("envreg0", |_| 0),
        ("envreg31", |_| 0),
        ("tid.x", |lane| lane),
        ("tid.y", |_| 0),
        ("ntid.x", |_| 32),
        ("nctaid.x", |_| 10),
        ("nctaid.z", |_| 1),
        ("warpid", |_| 0),
        ("dynamic_smem_size", |_| 0),
        ("total_smem_size", |_| 0),
        ("cluster_nctarank", |_| 1),
        ("cluster_ctarank", |_| 0),
        ("is_explicit_cluster", |_| 0),
        ("clock_hi", |_| 0),
    ] {
        if name == "is_explicit_cluster" {
            continue;
        }
        warps(
            &format!("mov.u32 %d, %{name};\nmov.u32 %e, %{name};"),
            &[W, W],
            &[W, W],
            &with_values(&[]),
            |_, _, lane| vec![Some(f(lane as u64)); 2],
        );
    }
    // Narrow and wide forms of a special register.
    warps(
        "cvt.u16.u32 %d, %laneid;\ncvt.u64.u32 %e, %laneid;",
        &[W, W],
        &[H, L],
        &with_values(&[]),
        |_, _, lane| vec![Some(lane as u64); 2],
    );
    // Clocks move on.
    warps(
        "mov.u64 %tl0, %clock64;\nmov.u32 %t0, %clock;\nmov.u64 %tl1, %clock64;\nsetp.gt.u64 %d, %tl1, %tl0;\nmov.u64 %tl2, %globaltimer;\nsetp.ge.u64 %e, %tl2, %tl1;",
        &[W, W],
        &[P, P],
        &with_values(&[]),
        |_, _, _| vec![Some(1), Some(1)],
    );
}

#[test]
fn lanes_of_a_mask_meet_on_different_paths() {
    // Both sides of a branch come to their own instruction with the whole mask: they meet, as the hardware lets them.
    let text = ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 out)\n{\n.reg .b64 %o;\n.reg .b32 %r<4>;\n.reg .pred %p;\nld.param.u64 %o, [out];\nmov.u32 %r1, %tid.x;\nmad.wide.u32 %o, %r1, 4, %o;\nand.b32 %r2, %r1, 1;\nsetp.eq.u32 %p, %r2, 0;\n@%p bra even;\nadd.u32 %r1, %r1, 100;\neven:\nshfl.sync.bfly.b32 %r3, %r1, 1, 31, -1;\nst.global.u32 [%o], %r3;\nret;\n}\n";
    let bench = Bench::new(text);
    let out = bench.empty::<u32>(32);
    bench.run("k", [1, 1, 1], [32, 1, 1], &[Arg::U64(out)]);
    let expected: Vec<u32> = (0..32)
        .map(|lane: u32| if lane & 1 == 0 { lane + 101 } else { lane - 1 })
        .collect();
    assert_eq!(bench.read::<u32>(out, 32), expected);
}

#[test]
fn what_is_refused_is_named() {
    for (text, what) in [
        ("shfl.idx.b32 %d, %a, 0, 31;", "without .sync"),
        ("shfl.sync.b32 %d, %a, 0, 31, -1;", "without a mode"),
        ("vote.all.pred %tp0, %tp1;", "without .sync"),
        ("vote.sync.pred %tp0, %tp1, -1;", "without a mode"),
        ("match.sync.b32 %d, %a, -1;", "without .sync and one of"),
        ("match.any.sync.u16 %d, %th0, -1;", "the type .u16"),
        ("redux.sync.add.f32 %d, %a, -1;", "floating-point redux"),
        ("redux.sync.min.abs.f32 %d, %a, -1;", "the modifier .abs"),
        ("bar.warp.arrive %a;", "without .sync"),
    ] {
        let error = refusal(text, &[W; 3], &[W]);
        assert!(error.contains(what), "{text}: {error}");
    }
}
