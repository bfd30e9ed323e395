//! What whole warps access, side by side or as words anywhere, goes other ways than what lanes access one by one. Through generic
//! addresses every access goes lane by lane: values, counters and findings are the same.
#![allow(clippy::unwrap_used)] // a test

mod support;

use proptest::prelude::*;
use stepscope_emulator::check::Checks;
use support::{Arg, Bench};

/// Bytes of shared memory, and of each of the two buffers. The first half of the one that is read is written before.
const BYTES: u64 = 4096;
const THREADS: usize = 64;

/// A kernel that stores to shared memory, loads from it and from global memory, and stores to that; each thread at offsets that
/// it is given, or not at all where the offset is negative. `spaces` are those of its instructions.
fn kernel(vector: usize, ty: &str, register: &str, generic: bool) -> String {
    let (global, shared, window) = if generic {
        ("", "", "cvta.shared.u64")
    } else {
        (".global", ".shared", "mov.u64")
    };
    let list = |prefix: &str| {
        let names: Vec<String> = (0..vector).map(|i| format!("{prefix}{i}")).collect();
        match vector {
            1 => names[0].clone(),
            _ => format!("{{{}}}", names.join(",")),
        }
    };
    let suffix = match vector {
        1 => format!(".{ty}"),
        _ => format!(".v{vector}.{ty}"),
    };
    let own = |i: usize| match register {
        "b64" => {
            format!("cvt.u64.u32 %a{i}, %r1; mad.lo.u64 %a{i}, %a{i}, 0x9e3779b97f4a7c15, {i};")
        }
        "b16" => format!("cvt.u16.u32 %a{i}, %r1;"),
        _ => format!("mad.lo.u32 %a{i}, %r1, 0x9e3779b9, {i};"),
    };
    let own: Vec<String> = (0..vector).map(own).collect();
    format!(
        ".version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 writes, .param .u64 reads, .param .u64 source, .param .u64 target, .param .u32 sync) {{
.reg .{register} %a<4>, %b<4>, %c<4>;
.reg .b32 %r<4>;
.reg .b64 %o<8>, %s<4>;
.reg .pred %p<4>;
.shared .align 16 .b8 memory[{BYTES}];
mov.u32 %r1, %tid.x;
mul.wide.u32 %o1, %r1, 8;
ld.param.u64 %o2, [writes];
add.s64 %o2, %o2, %o1;
ld.global.u64 %o2, [%o2];
ld.param.u64 %o3, [reads];
add.s64 %o3, %o3, %o1;
ld.global.u64 %o3, [%o3];
setp.ge.s64 %p1, %o2, 0;
setp.ge.s64 %p2, %o3, 0;
ld.param.u32 %r2, [sync];
setp.ne.u32 %p3, %r2, 0;
mov.u64 %s1, memory;
{window} %s1, %s1;
add.s64 %s2, %s1, %o2;
add.s64 %s3, %s1, %o3;
{}
@%p1 st{shared}{suffix} [%s2], {};
@%p3 bar.sync 0;
@%p2 ld{shared}{suffix} {}, [%s3];
ld.param.u64 %o4, [source];
add.s64 %o4, %o4, %o3;
@%p2 ld{global}{suffix} {}, [%o4];
ld.param.u64 %o5, [target];
add.s64 %o5, %o5, %o2;
@%p1 st{global}{suffix} [%o5+16], {};
@%p1 st{global}{suffix} [%o5], {};
ret;
}}
",
        own.join("\n"),
        list("%a"),
        list("%b"),
        list("%c"),
        list("%b"),
        list("%c"),
    )
}

/// Offsets of the lanes of a warp, in units of an access.
fn warp() -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![
        4 => (0i64..70, prop::sample::select(vec![1i64, 1, 1, 0, 2, 4, 6, -1])).prop_map(|(first, step)| {
            (0..32).map(|lane| first + step * lane + if step < 0 { 31 } else { 0 }).collect()
        }),
        // Up to the end of the memory, or beyond; of a lane or two less, or one that is elsewhere.
        2 => (1i64..40, 0i64..BYTES as i64 / 16, 0i64..32, prop_oneof![Just(0i64), Just(1), Just(-1_000_000)]).prop_map(
            |(step, first, lane, add)| {
                let mut warp: Vec<i64> = (0..32).map(|lane| first + step * lane).collect();
                warp[lane as usize] += add;
                warp
            },
        ),
        1 => prop::collection::vec(0i64..100, 32),
        1 => (0i64..64, 0i64..32).prop_map(|(first, xor)| (0..32).map(|lane| first + (lane ^ xor)).collect()),
        1 => (0i64..60).prop_map(|lanes| (0..32).map(|lane| if lane < lanes { lane } else { -1_000_000 }).collect()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whole_warps_are_as_their_lanes(
        writes in prop::collection::vec(warp(), 2),
        reads in prop::collection::vec(warp(), 2),
        shift in prop_oneof![6 => Just(0i64), 1 => 1i64..64],
        form in prop::sample::select(vec![
            (1, "u32", "b32"), (2, "u32", "b32"), (4, "u32", "b32"), (1, "u64", "b64"), (2, "u64", "b64"),
            (1, "u8", "b16"), (1, "u16", "b16"), (2, "u16", "b16"), (1, "s8", "b32"), (1, "u32", "b64"),
        ]),
        sync in 0u32..2,
        all in any::<bool>(),
    ) {
        let (vector, ty, register) = form;
        let unit = vector as i64 * ty[1..].parse::<i64>().unwrap() / 8;
        let at = |warps: &[Vec<i64>]| -> Vec<i64> {
            warps.iter().flatten().map(|&units| units * unit + shift).collect()
        };
        let run = |generic: bool| {
            let mut bench = Bench::new(&kernel(vector, ty, register, generic));
            bench.checks = if all { Checks::ALL } else { Checks::NONE };
            bench.cores = 1;
            let offsets = [bench.buffer(&at(&writes)), bench.buffer(&at(&reads))];
            let source = bench.empty::<u8>(BYTES as usize);
            let half: Vec<u8> = (0..BYTES / 2).map(|i| (i * 7 % 251) as u8).collect();
            bench.device.write(source, &half).unwrap();
            let target = bench.buffer(&vec![0u8; BYTES as usize]);
            let arguments = [
                Arg::U64(offsets[0]),
                Arg::U64(offsets[1]),
                Arg::U64(source),
                Arg::U64(target),
                Arg::U32(sync),
            ];
            let report = bench.launch("k", [1, 1, 1], [THREADS as u32, 1, 1], &arguments);
            (report, bench.read::<u8>(target, BYTES as usize))
        };
        let ((whole, bytes), (lanes, expected)) = (run(false), run(true));
        prop_assert_eq!(&whole.findings, &lanes.findings);
        prop_assert_eq!(
            whole.failure.map(|error| error.to_string()),
            lanes.failure.map(|error| error.to_string())
        );
        prop_assert_eq!(bytes, expected);
        prop_assert_eq!(whole.lines, lanes.lines);
        prop_assert_eq!(whole.counters, lanes.counters);
    }
}
