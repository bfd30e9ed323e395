use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use proptest::prelude::*;
use stepscope_emulator::count::Counters;

use super::super::choose::{SKINNY_STEP, TILES, WIDTHS};
use super::*;
use crate::cuda::testing::{Emulated, emulated, rounded, widened};
use crate::testing::numbers;
use crate::{Backend, DType, HostTensor, gemm};

/// A device for all tests of a type, so that each kernel is compiled once.
fn device(dtype: DType) -> Option<MutexGuard<'static, Emulated>> {
    static DEVICES: [OnceLock<Option<Mutex<Emulated>>>; 2] = [OnceLock::new(), OnceLock::new()];
    let cell = &DEVICES[usize::from(dtype == DType::F16)];
    let device = cell
        .get_or_init(|| emulated(dtype).map(Mutex::new))
        .as_ref()?
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    Some(device)
}

fn plain(k: usize) -> Split {
    Split {
        splits: 1,
        k_per_split: k.next_multiple_of(512) as u32,
    }
}

fn mma(tile: usize, k: usize) -> Plan {
    Plan::Mma {
        tile: TILES[tile],
        split: plain(k),
    }
}

fn skinny(width: usize, k: usize) -> Plan {
    Plan::Skinny {
        width: WIDTHS[width],
        split: plain(k),
    }
}

/// Computes `[m, k] @ [n, k]^T (+ bias)` twice, with this plan or the chosen one, and compares with float64. What the launches
/// of one time counted.
///
/// How far a sum of tensor cores may be off: on Ampere, 8 products and the sum so far are added at a time. Each of the 9 terms is
/// cut to 24 bits below the exponent of the largest, whose power of two is at most `size`, the sum of all magnitudes; then the
/// result is cut to 24 bits. That is less than `(9 * 2^-24 + 2^-23) * size`, for each 8 of k columns and a last piece: less
/// than `(k + 8) * 2^-23 * size`. Adding up warps, splits and the bias are at most 32 roundings more, of `2^-24 * size` each.
/// A chain of k fused multiply-adds is off by `k * 2^-24 * size` at most. Then there is one rounding to the storage type.
fn check(
    cuda: &Emulated,
    dtype: DType,
    [m, n, k]: [usize; 3],
    with_bias: bool,
    plan: Option<Plan>,
) -> Result<(Kernel, Vec<Counters>), TestCaseError> {
    let x = numbers(1, m * k);
    let weight = HostTensor::from_f32_as(dtype, &[n, k], numbers(2, n * k)).unwrap();
    let bias = with_bias.then(|| numbers(3, n));
    let device_x = cuda.upload(&rounded(&x, dtype));
    let matrix = cuda.matrix(std::slice::from_ref(&weight)).unwrap();
    let device_bias = bias.as_ref().map(|bias| {
        let tensor = HostTensor::from_f32(&[n], bias.clone()).unwrap();
        cuda.vector(&[tensor]).unwrap()
    });
    let run = || {
        cuda.reports();
        let mut out = cuda.poisoned(m * n);
        let kernel = match plan {
            None => cuda.gemm(&device_x, m, &matrix, device_bias.as_ref(), &mut out),
            Some(plan) => Product::new(&device_x, m, &matrix, device_bias.as_ref(), &mut out)
                .and_then(|product| product.run(cuda, plan)),
        };
        let counted = cuda.assert_clean(&out, m * n);
        let counted: Vec<Counters> = counted.into_iter().map(|r| r.report.counters).collect();
        (kernel.unwrap(), cuda.download(&out), counted)
    };
    let (kernel, got, counted) = run();
    let (_, again, _) = run();
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    prop_assert!(bits(&got) == bits(&again), "{kernel}: two runs differ");

    let x: Vec<f64> = x.iter().map(|&x| f64::from(widened(x, dtype))).collect();
    let weight: Vec<f64> = weight.to_f32().into_iter().map(f64::from).collect();
    let epsilon = 2f64.powi(if dtype == DType::F16 { -11 } else { -8 });
    for i in 0..m {
        for j in 0..n {
            let mut truth = bias.as_ref().map_or(0.0, |bias| f64::from(bias[j]));
            let mut size = truth.abs();
            for (x, w) in x[i * k..][..k].iter().zip(&weight[j * k..][..k]) {
                truth += x * w;
                size += (x * w).abs();
            }
            let of_sums = (k + 32) as f64 * 2f64.powi(-23) * size;
            let smallest = 2f64.powi(-25);
            let tolerance = of_sums + epsilon * (truth.abs() + of_sums) + smallest;
            let got = f64::from(got[i * n + j]);
            prop_assert!(
                (got - truth).abs() <= tolerance,
                "{kernel} [{m}, {k}] @ [{n}, {k}] in {dtype}, bias {with_bias}: [{i}, {j}] is {got}, should be {truth} within {tolerance:e}"
            );
        }
    }
    Ok((kernel, counted))
}

const DTYPES: [DType; 2] = [DType::BF16, DType::F16];

#[test]
fn every_tile_with_whole_and_broken_edges() {
    for dtype in DTYPES {
        let Some(cuda) = device(dtype) else { return };
        for (index, tile) in TILES.iter().enumerate() {
            let [m, n, k] = [tile.m, tile.n, tile.k].map(|x| x as usize);
            for (shape, bias) in [
                ([m, n, k], false),
                // One more than a tile, and two, and columns that end within a piece.
                ([m + 1, n + 2, 3 * k + 8], true),
                ([m - 3, n - 8, 5 * k - 8], true),
                ([1, 1, 8], false),
            ] {
                let (kernel, _) =
                    check(&cuda, dtype, shape, bias, Some(mma(index, shape[2]))).unwrap();
                assert_eq!(kernel, tile.name);
            }
        }
        // Rows that begin anywhere.
        for shape in [[64, 64, 1], [65, 67, 131], [33, 9, 77]] {
            check(&cuda, dtype, shape, true, Some(mma(3, shape[2]))).unwrap();
        }
    }
}

#[test]
fn every_width_with_whole_and_broken_edges() {
    for dtype in DTYPES {
        let Some(cuda) = device(dtype) else { return };
        for (index, width) in WIDTHS.iter().enumerate() {
            let (m, n) = (8 * width.token_tiles as usize, 16 * width.warps_n as usize);
            let k = (SKINNY_STEP * width.warps_k) as usize;
            for (shape, bias) in [
                ([m, n, k], false),
                ([m - 1, 2 * n + 4, 3 * k + 8], true),
                ([m - 3, n - 5, 2 * k - 24], true),
                ([1, 1, 8], false),
            ] {
                check(&cuda, dtype, shape, bias, Some(skinny(index, shape[2]))).unwrap();
            }
        }
        for shape in [[32, 64, 1], [17, 67, 131], [3, 9, 77]] {
            check(&cuda, dtype, shape, true, Some(skinny(3, shape[2]))).unwrap();
        }
    }
}

#[test]
fn every_gemv() {
    for dtype in DTYPES {
        let Some(cuda) = device(dtype) else { return };
        for rows in [1, 2] {
            for warps in [1, 2, 4, 8] {
                let plan = Some(Plan::Gemv { rows, warps });
                for (n, k) in [(64, 2048), (21, 776), (3, 77), (1, 1), (5, 1032)] {
                    check(&cuda, dtype, [1, n, k], n % 2 == 1, plan).unwrap();
                }
            }
        }
        // More columns than are in shared memory at a time.
        for k in [16_384, 33_000, 16_391] {
            check(&cuda, dtype, [1, 5, k], true, None).unwrap();
        }
    }
}

#[test]
fn split_columns() {
    for dtype in DTYPES {
        let Some(cuda) = device(dtype) else { return };
        for (n, k, splits) in [(64, 512, 4), (70, 456, 3), (37, 451, 2)] {
            let bias = n != 64;
            // 64 columns are a whole number of steps of the plain tile.
            let k_per_split = (k as u32).div_ceil(splits).next_multiple_of(64);
            let split = Split {
                splits: (k as u32).div_ceil(k_per_split),
                k_per_split,
            };
            assert_eq!(split.splits, splits);
            let tile = TILES[3];
            let (kernel, counted) = check(
                &cuda,
                dtype,
                [66, n, k],
                bias,
                Some(Plan::Mma { tile, split }),
            )
            .unwrap();
            assert_eq!((kernel, counted.len()), ("gemm_mma_64x64_split_k", 2));
            let width = WIDTHS[3];
            let (kernel, _) = check(
                &cuda,
                dtype,
                [31, n, k],
                bias,
                Some(Plan::Skinny { width, split }),
            )
            .unwrap();
            assert_eq!(kernel, "gemm_skinny_split_k");
        }
    }
}

#[test]
fn any_shape() {
    for dtype in DTYPES {
        let Some(cuda) = device(dtype) else { return };
        let rows = prop_oneof![Just(1_usize), 2_usize..33, 33_usize..200];
        let columns = prop_oneof![(1_usize..80).prop_map(|k| 8 * k), 1_usize..300];
        proptest!(ProptestConfig::with_cases(20), |(m in rows, n in 1_usize..200, k in columns, bias in any::<bool>())| {
            check(&cuda, dtype, [m, n, k], bias, None)?;
        });
    }
}

/// Bytes that must cross memory.
fn bytes([m, n, k]: [usize; 3], bias: bool) -> u64 {
    gemm::cost(m, n, k, bias, DType::BF16, DType::BF16).bytes()
}

/// Whole tiles: the FLOPs are those of the product, and memory is used without waste.
#[test]
fn whole_tiles_waste_nothing() {
    let Some(cuda) = device(DType::BF16) else {
        return;
    };
    let mut cases = Vec::new();
    for (index, tile) in TILES.iter().enumerate() {
        cases.push((
            [2 * tile.m, tile.n, 4 * tile.k].map(|x| x as usize),
            mma(index, 512),
        ));
    }
    for (index, width) in WIDTHS.iter().enumerate() {
        let shape = [
            8 * width.token_tiles,
            32 * width.warps_n,
            3 * SKINNY_STEP * width.warps_k,
        ];
        let shape = shape.map(|x| x as usize);
        cases.push((shape, skinny(index, shape[2])));
    }
    for warps in [1, 8] {
        cases.push(([1, 64, 4096], Plan::Gemv { rows: 2, warps }));
    }
    for (shape, plan) in cases {
        for bias in [false, true] {
            let (kernel, counted) = check(&cuda, DType::BF16, shape, bias, Some(plan)).unwrap();
            let [counted] = &counted[..] else {
                panic!("one kernel")
            };
            println!("{kernel} {shape:?}: {counted:?}");
            let [m, n, k] = shape.map(|x| x as u64);
            if m > 1 {
                assert_eq!(counted.tensor_flops, 2 * m * n * k, "{kernel}");
            }
            assert_eq!(
                counted.shared_wavefronts, counted.shared_ideal_wavefronts,
                "{kernel}"
            );
            assert_eq!(counted.local_requests, 0, "{kernel}");
            if !bias {
                assert_eq!(
                    counted.global_load_sectors,
                    16 * counted.global_load_requests,
                    "{kernel}"
                );
            }
            assert_eq!(
                counted.compulsory_read_bytes + counted.compulsory_write_bytes,
                bytes(shape, bias),
                "{kernel}"
            );
            if matches!(plan, Plan::Mma { .. }) {
                assert_eq!(
                    counted.global_store_sectors,
                    16 * counted.global_store_requests,
                    "{kernel}"
                );
                // Each tile reads its rows of x and of the weight once.
                let Plan::Mma { tile, .. } = plan else {
                    continue;
                };
                let read = m / u64::from(tile.m) * (u64::from(tile.m) + n) * k * 2;
                if !bias {
                    assert_eq!(32 * counted.global_load_sectors, read, "{kernel}");
                }
            }
        }
    }
}

/// Broken tiles: tensor cores multiply whole tiles, zeros included.
#[test]
fn broken_tiles_multiply_what_whole_ones_do() {
    let Some(cuda) = device(DType::BF16) else {
        return;
    };
    let flops = |shape, plan| {
        let (_, counted) = check(&cuda, DType::BF16, shape, false, Some(plan)).unwrap();
        counted.iter().map(|c| c.tensor_flops).sum::<u64>()
    };
    for (index, tile) in TILES.iter().enumerate() {
        let [m, n, k] = [tile.m, tile.n, tile.k].map(|x| x as usize);
        let counted = flops([m + 1, n - 1, 2 * k - 8], mma(index, 2 * k));
        assert_eq!(counted, 2 * (2 * m * n * 2 * k) as u64, "{}", tile.name);
    }
    for (index, width) in WIDTHS.iter().enumerate() {
        let (m, n) = (8 * width.token_tiles as usize, 16 * width.warps_n as usize);
        let counted = flops([m - 2, n + 1, 200], skinny(index, 200));
        assert_eq!(counted, 2 * (m * 2 * n * 256) as u64, "{width:?}");
    }
}
