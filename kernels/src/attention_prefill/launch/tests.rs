use proptest::prelude::*;
use stepscope_emulator::driver::LaunchReport;

use super::*;
use crate::DType;
use crate::attention_prefill::{cost, testing::OnDevice};
use crate::cuda::testing::{Emulated, emulated};
use crate::testing::Attention;

/// Runs `problem` with `m_tiles`, twice if `is_repeated`; the result must be right, the same both times, and cleanly made.
/// What the first launch did.
fn check(cuda: &Emulated, problem: &Attention, m_tiles: usize, is_repeated: bool) -> LaunchReport {
    let on_device = OnDevice::new(cuda, problem);
    let tile = Tile {
        head_dim: problem.layout.head_dim,
        m_tiles,
    };
    let mut first: Option<(Vec<u32>, LaunchReport)> = None;
    for _ in 0..1 + usize::from(is_repeated) {
        let mut out = cuda.poisoned(on_device.len());
        launch(
            cuda,
            tile,
            &on_device.qkv,
            problem.layout,
            &on_device.batch(),
            on_device.pools(),
            &mut out,
        )
        .unwrap();
        let mut reports = cuda.assert_clean(&out, on_device.len());
        let got = cuda.download(&out);
        let bits = got.iter().map(|x| x.to_bits()).collect();
        match &first {
            None => {
                on_device.assert_close(&format!("{tile:?} of {problem:?}"), &got);
                first = Some((bits, reports.remove(0)));
            }
            Some((before, _)) => assert!(*before == bits, "two runs differ: {problem:?}"),
        }
    }
    first.unwrap().1
}

fn layout(kv_heads: usize, group: usize, head_dim: usize) -> QkvLayout {
    QkvLayout {
        heads: kv_heads * group,
        kv_heads,
        head_dim,
    }
}

fn problem(layout: QkvLayout, requests: Vec<(usize, usize)>, dtype: DType) -> Attention {
    Attention {
        layout,
        requests,
        page_size: 16,
        dtype,
        seed: 7,
        scale: 2.0,
    }
}

/// Whole rows: 32 lanes of 16 bytes are 16 sectors, those that arrive and those that leave.
fn check_sectors(cuda: &Emulated, head_dim: usize) {
    let problem = problem(layout(2, 1, head_dim), vec![(64, 128)], DType::BF16);
    let report = check(cuda, &problem, 1, false).report;
    let copies = report
        .lines
        .iter()
        .map(|line| line.counters)
        .filter(|c| c.global_load_requests > 0 && c.shared_store_requests > 0);
    let (requests, sectors) = copies.fold((0, 0), |(requests, sectors), c| {
        (
            requests + c.global_load_requests,
            sectors + c.global_load_sectors,
        )
    });
    // 64 rows of queries and 128 of keys and values, of 2 heads.
    assert_eq!(requests as usize * 512, 2 * (64 + 2 * 128) * head_dim * 2);
    assert_eq!(sectors, 16 * requests);
    let counters = report.counters;
    assert_eq!(
        counters.global_store_sectors,
        16 * counters.global_store_requests
    );
}

#[test]
fn every_instance_agrees_with_float64() {
    for (dtype, head_dims) in [(DType::BF16, &HEAD_DIMS[..]), (DType::F16, &[64, 128])] {
        let Some(cuda) = emulated(dtype) else { return };
        for &head_dim in head_dims {
            for m_tiles in [1, 2] {
                if head_dim == 256 && m_tiles == 2 {
                    continue;
                }
                // Two blocks of rows, the second with a tail; a cached prefix; one row.
                let requests = vec![(64 * m_tiles + 5, 64 * m_tiles + 5), (3, 70), (1, 1)];
                let problem = problem(layout(1, 2, head_dim), requests, dtype);
                let report = check(&cuda, &problem, m_tiles, head_dim == 64);
                let counters = &report.report.counters;
                let tile = Tile { head_dim, m_tiles };
                assert_eq!(
                    counters.tensor_flops,
                    tile.padded_flops(&problem.requests, problem.layout.heads)
                );
                let least = cost(&problem.requests, problem.layout, dtype, dtype).flops;
                assert!(counters.tensor_flops >= least);
                assert_eq!(
                    counters.shared_wavefronts, counters.shared_ideal_wavefronts,
                    "{tile:?}"
                );
            }
            if dtype == DType::BF16 {
                check_sectors(&cuda, head_dim);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1))]

    /// One device for all cases, so that each kernel is compiled once.
    #[test]
    fn any_ragged_batch_is_right(
        problems in prop::collection::vec(
            (
                (1_usize..3, 1_usize..4, prop::sample::select(vec![64_usize, 80])),
                prop::collection::vec((1_usize..80, 0_usize..140), 1..3),
                prop::sample::select(vec![1_usize, 3, 16, 64, 100]),
                any::<u32>(),
                prop::sample::select(vec![0.1_f32, 1.0, 4.0]),
            ),
            10,
        ),
    ) {
        let Some(cuda) = emulated(DType::F16) else { return Ok(()) };
        for ((kv_heads, group, head_dim), requests, page_size, seed, scale) in problems {
            let requests = requests.into_iter().map(|(q, cached)| (q, q + cached)).collect();
            let problem = Attention {
                page_size,
                seed: u64::from(seed),
                scale,
                ..problem(layout(kv_heads, group, head_dim), requests, DType::F16)
            };
            check(&cuda, &problem, 1, false);
        }
    }
}

#[test]
fn other_head_dimensions_are_refused() {
    let Some(cuda) = emulated(DType::BF16) else {
        return;
    };
    let on_device = OnDevice::new(&cuda, &problem(layout(1, 1, 8), vec![(1, 1)], DType::BF16));
    let tile = Tile {
        head_dim: 8,
        m_tiles: 1,
    };
    let mut out = cuda.poisoned(8);
    let error = launch(
        &cuda,
        tile,
        &on_device.qkv,
        layout(1, 1, 8),
        &on_device.batch(),
        on_device.pools(),
        &mut out,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "a head dimension of 8: the CUDA attention kernels have [64, 80, 96, 128, 256]"
    );
}

#[test]
fn wide_tiles_are_for_devices_that_they_fill() {
    let check = |head_dim, heads, max_query_len, expected| {
        let tile = Tile::choose(head_dim, heads, max_query_len, 132);
        assert_eq!(
            tile.m_tiles, expected,
            "{head_dim}, {heads}, {max_query_len}"
        );
    };
    check(128, 32, 512, 1); // 128 blocks of 128 rows, 132 multiprocessors
    check(128, 32, 640, 2);
    check(256, 32, 8192, 1); // no registers
    check(64, 14 * 32, 64, 1); // half of each block would be empty
    check(64, 14 * 32, 65, 2);
}

#[test]
fn shared_memory_fits_every_device() {
    for head_dim in HEAD_DIMS {
        for m_tiles in [1, 2] {
            let tile = Tile { head_dim, m_tiles };
            if head_dim * m_tiles <= 256 {
                // One block in the 99 KiB of compute capability 8.6 and 8.9, two in the 163 of 8.0.
                assert!(tile.shared_bytes() <= 66 << 10, "{tile:?}");
            }
        }
    }
}

/// The formula of `swizzled` in the prelude.
fn swizzled(chunks: usize, row: usize, chunk: usize) -> usize {
    let run = 1 << chunks.trailing_zeros().min(3);
    row * chunks + (chunk ^ (row / (8 / run) % run))
}

#[test]
fn swizzled_rows_and_columns_differ_in_their_banks() {
    for chunks in HEAD_DIMS.map(|head_dim| head_dim / 8) {
        let places: Vec<usize> = (0..64 * chunks)
            .map(|at| swizzled(chunks, at / chunks, at % chunks))
            .collect();
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert!(
            sorted.into_iter().eq(0..64 * chunks),
            "no two chunks share a place"
        );
        let is_free = |eight: Vec<usize>| {
            let banks: u32 = eight.iter().map(|place| 1 << (place % 8)).sum();
            banks == 0xff
        };
        // Eight chunks that a quarter of a warp copies, and a column of eight rows that ldmatrix reads.
        assert!(places.chunks(8).all(|eight| is_free(eight.to_vec())));
        for row in (0..64).step_by(8) {
            for chunk in 0..chunks {
                assert!(is_free(
                    (0..8).map(|i| swizzled(chunks, row + i, chunk)).collect()
                ));
            }
        }
    }
}
