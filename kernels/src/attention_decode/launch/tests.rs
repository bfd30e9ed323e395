use proptest::prelude::*;
use stepscope_emulator::count::Counters;
use stepscope_emulator::driver::LaunchReport;

use super::*;
use crate::DType;
use crate::attention_decode::cost;
use crate::attention_prefill::testing::OnDevice;
use crate::cuda::testing::{Emulated, emulated};
use crate::testing::Attention;

/// Runs `problem` in `splits` ranges, twice if `is_repeated`; the result must be right, the same both times, and cleanly made.
/// What the launches did the first time.
fn check(
    cuda: &Emulated,
    problem: &Attention,
    splits: usize,
    is_repeated: bool,
) -> Vec<LaunchReport> {
    let on_device = OnDevice::new(cuda, problem);
    let mut first: Option<(Vec<u32>, Vec<LaunchReport>)> = None;
    for _ in 0..1 + usize::from(is_repeated) {
        let mut out = cuda.poisoned(on_device.len());
        launch(
            cuda,
            splits,
            &on_device.qkv,
            problem.layout,
            &on_device.batch(),
            on_device.pools(),
            &mut out,
        )
        .unwrap();
        let reports = cuda.assert_clean(&out, on_device.len());
        assert_eq!(reports.len(), 1 + usize::from(splits > 1));
        let got = cuda.download(&out);
        let bits = got.iter().map(|x| x.to_bits()).collect();
        match &first {
            None => {
                on_device.assert_close(&format!("{splits} ranges of {problem:?}"), &got);
                first = Some((bits, reports));
            }
            Some((before, _)) => assert!(*before == bits, "two runs differ: {problem:?}"),
        }
    }
    first.unwrap().1
}

fn problem(
    [kv_heads, group, head_dim]: [usize; 3],
    kv_lens: &[usize],
    page_size: usize,
    dtype: DType,
) -> Attention {
    Attention {
        layout: QkvLayout {
            heads: kv_heads * group,
            kv_heads,
            head_dim,
        },
        requests: kv_lens.iter().map(|&len| (1, len)).collect(),
        page_size,
        dtype,
        seed: 11,
        scale: 2.0,
    }
}

/// FLOPs of the mma tiles: of each block's 16 rows and each 16 positions, 4 for each element of a head.
fn padded_flops(problem: &Attention) -> u64 {
    let tiles: usize = problem.requests.iter().map(|r| r.1.div_ceil(TILE)).sum();
    let each = 4 * GROUP_ROWS * TILE * problem.layout.head_dim;
    (tiles * group_blocks(problem.layout) * each) as u64
}

fn total(reports: &[LaunchReport], number: impl Fn(&Counters) -> u64) -> u64 {
    reports.iter().map(|r| number(&r.report.counters)).sum()
}

/// Whole rows: 32 lanes of 16 bytes are 16 sectors.
fn check_sectors(cuda: &Emulated, head_dim: usize) {
    let problem = problem([1, 16, head_dim], &[256], 16, DType::BF16);
    let report = check(cuda, &problem, 1, false).remove(0).report;
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
    // 16 rows of queries and 256 of keys and values.
    let bytes = (16 + 2 * 256) * head_dim * 2;
    assert_eq!(requests as usize * 512, bytes);
    assert_eq!(sectors, 16 * requests);
    // Keys and values cross once: beside them there are the page table and the length.
    let read = report.counters.compulsory_read_bytes as usize;
    assert!((bytes..=bytes + 128).contains(&read), "{read}");
}

#[test]
fn every_instance_agrees_with_float64() {
    for (dtype, head_dims) in [(DType::BF16, &HEAD_DIMS[..]), (DType::F16, &[64, 96])] {
        let Some(cuda) = emulated(dtype) else { return };
        for &head_dim in head_dims {
            for splits in [1, 3] {
                // Several rounds of each warp's ring and a tail; less than a tile; more ranges than there are tiles.
                let problem = problem([2, 3, head_dim], &[437, 7, 64], 16, dtype);
                let reports = check(&cuda, &problem, splits, head_dim == 64);
                let flops = total(&reports, |c| c.tensor_flops);
                assert_eq!(flops, padded_flops(&problem));
                let lens: Vec<usize> = problem.requests.iter().map(|r| r.1).collect();
                assert!(flops >= cost(&lens, problem.layout, dtype, dtype).flops);
                assert_eq!(
                    total(&reports, |c| c.shared_wavefronts),
                    total(&reports, |c| c.shared_ideal_wavefronts),
                    "{head_dim}"
                );
            }
            if dtype == DType::BF16 {
                check_sectors(&cuda, head_dim);
            }
        }
    }
}

#[test]
fn groups_of_heads_of_any_size() {
    let Some(cuda) = emulated(DType::BF16) else {
        return;
    };
    for group in [1, 8, 16, 17, 40] {
        check(
            &cuda,
            &problem([1, group, 64], &[45, 1], 16, DType::BF16),
            1,
            false,
        );
        check(
            &cuda,
            &problem([1, group, 64], &[145], 16, DType::BF16),
            2,
            false,
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1))]

    /// One device for all cases, so that each kernel is compiled once.
    #[test]
    fn any_batch_is_right(
        problems in prop::collection::vec(
            (
                (1_usize..4, 1_usize..20, prop::sample::select(vec![64_usize, 80])),
                prop::collection::vec(1_usize..400, 1..4),
                prop::sample::select(vec![1_usize, 3, 16, 64, 100]),
                1_usize..6,
                any::<u32>(),
                prop::sample::select(vec![0.1_f32, 1.0, 4.0]),
            ),
            12,
        ),
    ) {
        let Some(cuda) = emulated(DType::F16) else { return Ok(()) };
        for ((kv_heads, group, head_dim), lens, page_size, splits, seed, scale) in problems {
            let problem = Attention {
                seed: u64::from(seed),
                scale,
                ..problem([kv_heads, group, head_dim], &lens, page_size, DType::F16)
            };
            check(&cuda, &problem, splits, false);
        }
    }
}

#[test]
fn what_the_kernels_do_not_do_is_refused() {
    let Some(cuda) = emulated(DType::BF16) else {
        return;
    };
    let check = |problem: &Attention, expected: &str| {
        let on_device = OnDevice::new(&cuda, problem);
        let mut out = cuda.poisoned(on_device.len());
        let error = launch(
            &cuda,
            1,
            &on_device.qkv,
            problem.layout,
            &on_device.batch(),
            on_device.pools(),
            &mut out,
        );
        assert_eq!(error.unwrap_err().to_string(), expected);
    };
    check(
        &problem([1, 1, 40], &[3], 1, DType::BF16),
        "a head dimension of 40: the CUDA attention kernels have [64, 80, 96, 128, 256]",
    );
    let two_rows = Attention {
        requests: vec![(2, 5)],
        ..problem([1, 1, 64], &[], 1, DType::BF16)
    };
    check(
        &two_rows,
        "2 query rows of 1 requests: decode attention takes one of each",
    );
}

#[test]
fn shared_memory_fits_every_device() {
    for head_dim in HEAD_DIMS {
        let bytes = Ring::of(head_dim).shared_bytes();
        assert!(bytes <= 99 << 10, "{head_dim}: {bytes}");
    }
}
