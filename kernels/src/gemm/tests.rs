use proptest::prelude::*;

use super::*;
use crate::Cpu;

/// `out` in float64, and how far float32 sums may be from it: `k` roundings of terms whose magnitudes add up to `size`.
fn naive(
    x: &[f32],
    m: usize,
    weight: &[f32],
    n: usize,
    k: usize,
    bias: Option<&[f32]>,
) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let (mut sum, mut size) = (0.0, 0.0);
            for p in 0..k {
                let term = f64::from(x[i * k + p]) * f64::from(weight[j * k + p]);
                sum += term;
                size += term.abs();
            }
            let bias = bias.map_or(0.0, |b| f64::from(b[j]));
            out.push((
                sum + bias,
                (size + bias.abs()) * 1.2e-7 * (k as f64).sqrt().max(4.0),
            ));
        }
    }
    out
}

fn numbers(seed: u64, len: usize) -> Vec<f32> {
    crate::testing::numbers(seed, len)
}

/// Runs the product on poisoned memory with a guard behind it, on both instruction sets.
fn check(m: usize, n: usize, k: usize, dtype: DType, with_bias: bool, cuts: &[usize], seed: u64) {
    let x = numbers(seed, m * k);
    let weight = HostTensor::from_f32_as(dtype, &[n, k], numbers(seed + 1, n * k)).unwrap();
    let bias = with_bias.then(|| numbers(seed + 2, n));
    let wide = weight.to_f32();
    let mut blocks = Vec::new();
    let mut from = 0;
    for to in cuts.iter().map(|c| c % (n + 1)).chain([n]) {
        if to > from {
            let part = wide[from * k..to * k].to_vec();
            blocks.push(HostTensor::from_f32_as(dtype, &[to - from, k], part).unwrap());
            from = to;
        }
    }
    let matrix = CpuMatrix::new(&blocks).unwrap();
    let expected = naive(&x, m, &wide, n, k, bias.as_deref());
    for cpu in [Cpu::new(Some(2)).unwrap(), Cpu::portable(Some(2)).unwrap()] {
        let mut out = vec![f32::NAN; m * n + 16];
        let kernel = cpu.run(|| reference(&x, m, &matrix, bias.as_deref(), &mut out));
        for (i, (&(truth, tolerance), &got)) in expected.iter().zip(&out).enumerate() {
            let error = (f64::from(got) - truth).abs();
            assert!(
                error <= tolerance,
                "{kernel} [{m}, {k}] @ [{n}, {k}] in {dtype}: element {i} is {got}, should be {truth}"
            );
        }
        assert!(
            out[m * n..].iter().all(|x| x.is_nan()),
            "{kernel} wrote past the end"
        );
    }
}

fn dtypes() -> impl Strategy<Value = DType> {
    prop::sample::select(vec![DType::F32, DType::F16, DType::BF16])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_shape_is_right(
        m in 1_usize..40,
        n in 1_usize..150,
        k in 1_usize..700,
        dtype in dtypes(),
        bias in any::<bool>(),
        cuts in (0_usize..1000, 0_usize..1000),
        seed in any::<u32>(),
    ) {
        let mut cuts = [cuts.0 % (n + 1), cuts.1 % (n + 1)];
        cuts.sort();
        check(m, n, k, dtype, bias, &cuts, u64::from(seed));
    }
}

#[test]
fn shapes_at_the_edges_of_tiles() {
    for m in [
        1,
        2,
        3,
        4,
        5,
        MOST_SKINNY_ROWS,
        MOST_SKINNY_ROWS + 1,
        18,
        97,
    ] {
        for (n, k) in [
            (1, 1),
            (4, 16),
            (15, 17),
            (16, 320),
            (17, 321),
            (129, 15),
            (257, 640),
            (3, 961),
        ] {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                check(m, n, k, dtype, (m + n) % 2 == 0, &[n / 3, n / 2], 7);
            }
        }
    }
}

#[test]
fn nothing_is_computed_of_nothing() {
    for (m, n, k) in [(0, 3, 4), (2, 3, 0), (20, 17, 0)] {
        check(m, n, k, DType::BF16, true, &[], 1);
    }
}

#[test]
fn an_infinite_or_nan_weight_shows() {
    let cpu = Cpu::new(Some(1)).unwrap();
    for m in [1, 2, 20] {
        let mut weight = vec![1.0; 2 * 33];
        (weight[0], weight[33]) = (f32::INFINITY, f32::NAN);
        let weight = HostTensor::from_f32_as(DType::BF16, &[2, 33], weight).unwrap();
        let mut out = vec![0.0; m * 2];
        cpu.run(|| {
            reference(
                &vec![1.0; m * 33],
                m,
                &CpuMatrix::new(&[weight]).unwrap(),
                None,
                &mut out,
            )
        });
        for out in out.chunks(2) {
            assert!(out[0] == f32::INFINITY && out[1].is_nan());
        }
    }
}

#[test]
fn the_chooser_streams_few_rows_and_blocks_many() {
    let check = |m, expected| assert_eq!(choose(m), expected, "m = {m}");
    check(0, Variant::Gemv);
    check(1, Variant::Gemv);
    check(2, Variant::Skinny);
    check(MOST_SKINNY_ROWS, Variant::Skinny);
    check(MOST_SKINNY_ROWS + 1, Variant::Blocked);
    check(4096, Variant::Blocked);
}

#[test]
fn cost_counts_each_weight_once() {
    // 3 rows of 5 outputs over 7 inputs: 105 multiply-adds.
    let cost = |bias| super::cost(3, 5, 7, bias, DType::BF16, DType::F32);
    let expected = Cost {
        flops: 210,
        weight_bytes: 5 * 7 * 2,
        kv_bytes: 0,
        activation_bytes: (21 + 15) * 4,
    };
    assert_eq!(cost(false), expected);
    assert_eq!(
        cost(true),
        expected
            + Cost {
                flops: 15,
                weight_bytes: 20,
                ..Cost::default()
            }
    );
}
