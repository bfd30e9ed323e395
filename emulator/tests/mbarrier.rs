//! Barriers in shared memory, of threads, of copies and of clusters, in kernels with known results.
#![allow(clippy::unwrap_used)] // a test

mod support;

use support::{Arg, Bench};

fn bench(cluster: Option<[u32; 3]>) -> Bench {
    let mut bench = Bench::new(include_str!("kernels/barriers.ptx"));
    bench.cluster = cluster;
    bench
}

fn input() -> Vec<i32> {
    (0..512).map(|i| 7 * i % 509).collect()
}

#[test]
fn counts_states_drops_and_bytes_one_by_one() {
    let bench = bench(None);
    let out = bench.buffer(&[-1i32; 15]);
    bench.run("counts", [1, 1, 1], [1, 1, 1], &[Arg::U64(out)]);
    let expected = [
        5, 3, 0, // pending before 2 and before 1 of 5 arrivals; not complete
        1, // the phase before counts as complete, the current one does not
        3, 2, // complete, by both states and by parity
        5, 1, // a drop of 2, then 3: complete
        7, // of 3
        0, 0, 1, // bytes
        0, 1, // bytes that come first
        1, // initialised again
    ];
    assert_eq!(bench.read::<i32>(out, 15), expected);
}

#[test]
fn many_phases_drops_and_a_ring() {
    let bench = bench(None);
    let out = bench.buffer(&[-1i32; 64 * 20]);
    let run = |kernel: &str, more: &[Arg]| {
        let arguments = [&[Arg::U64(out)], more].concat();
        bench.run(kernel, [1, 1, 1], [128, 1, 1], &arguments);
    };
    run("phases", &[]);
    let expected: Vec<i32> = (0..128).map(|t| (t + 20) % 128 + 20).collect();
    assert_eq!(bench.read::<i32>(out, 128), expected);
    run("drops", &[]);
    assert_eq!(bench.read::<i32>(out, 1), [32 * (1 + 2 + 3 + 4)]);
    run("ring", &[Arg::U32(20)]);
    let expected: Vec<i32> = (0..64 * 20).map(|i| i / 64 * 100 + 63 - i % 64).collect();
    assert_eq!(bench.read::<i32>(out, 64 * 20), expected);
    run("peek", &[Arg::U32(9)]);
    assert_eq!(
        bench.read::<i32>(out, 1),
        [(0..9).map(|i| i * (i + 1)).sum::<i32>()]
    );
}

#[test]
fn copies_that_count_as_arrivals_and_relaxed_ones() {
    let bench = bench(None);
    let (x, out) = (bench.buffer(&input()), bench.buffer(&[-1i32; 128]));
    for kernel in ["copies_count", "copies_instead", "fences"] {
        bench.run(
            kernel,
            [1, 1, 1],
            [128, 1, 1],
            &[Arg::U64(x), Arg::U64(out)],
        );
        // One lane of each warp is elected.
        let leader = |t: usize| i32::from(kernel == "fences" && t.is_multiple_of(32));
        let expected: Vec<i32> = (0..128).map(|t| input()[127 - t] + leader(t)).collect();
        assert_eq!(bench.read::<i32>(out, 128), expected, "{kernel}");
    }
}

#[test]
fn named_barriers_between_warpgroups() {
    let bench = bench(None);
    let out = bench.buffer(&[-1i32; 512]);
    bench.run("named", [1, 1, 1], [384, 1, 1], &[Arg::U64(out)]);
    let expected: Vec<i32> = (0..512)
        .map(|i| 2 * (10 * (i / 128) + 127 - i % 128))
        .collect();
    assert_eq!(bench.read::<i32>(out, 512), expected);
}

#[test]
fn stores_atomics_and_arrivals_in_another_block() {
    let bench = bench(Some([4, 1, 1]));
    let out = bench.buffer(&[-1i32; 518]);
    bench.run("remote", [4, 1, 1], [128, 1, 1], &[Arg::U64(out)]);
    let got = bench.read::<i32>(out, 518);
    for (i, value) in got[..512].iter().enumerate() {
        assert_eq!(*value, (i / 128 * 1000 + i % 128) as i32);
    }
    assert_eq!(got[512..], [4 * 127 * 64, 21, 3, 3, 3, 3]);
}

#[test]
fn bulk_copies_and_reductions_between_blocks() {
    let bench = bench(Some([4, 1, 1]));
    let input = input();
    let x = bench.buffer(&input);
    let out = bench.buffer(&[-1i32; 640]);
    let total = bench.buffer(&[100i32; 256]);
    let arguments = [Arg::U64(x), Arg::U64(out), Arg::U64(total)];
    let report = bench.run("travel", [4, 1, 1], [128, 1, 1], &arguments);
    let got = bench.read::<i32>(out, 640);
    let column = |t: usize| (0..4).map(move |block| 128 * block + t);
    for (i, value) in got[..512].iter().enumerate() {
        assert_eq!(*value, input[(i + 384) % 512]);
    }
    let sums = |t: usize| column(t).map(|at| input[at]).sum::<i32>();
    let totals = bench.read::<i32>(total, 256);
    for t in 0..128 {
        assert_eq!(got[512 + t], 1000 + sums(t));
        assert_eq!(totals[t], 100 + sums(t));
        assert_eq!(
            totals[128 + t],
            column(t).map(|at| input[at]).max().unwrap().max(100)
        );
    }
    assert_eq!(report.counters.bulk_store_bytes, 2 * 4 * 512);
}

#[test]
fn a_copy_to_some_blocks_of_a_cluster() {
    let bench = bench(Some([4, 1, 1]));
    let (x, out) = (bench.buffer(&input()), bench.buffer(&[0i32; 512]));
    for mask in [0b1010, 0b0001, 0b1111, 0b0100] {
        let arguments = [Arg::U64(x), Arg::U64(out), Arg::U32(mask)];
        bench.run("multicast", [4, 1, 1], [128, 1, 1], &arguments);
        let expected = |i: usize| {
            if mask >> (i / 128) & 1 == 1 {
                input()[i % 128]
            } else {
                -1
            }
        };
        let expected: Vec<i32> = (0..512).map(expected).collect();
        assert_eq!(bench.read::<i32>(out, 512), expected, "{mask:b}");
    }
}
