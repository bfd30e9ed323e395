use proptest::prelude::*;

use super::*;
use crate::testing::{cpus, numbers};

fn params(temperature: f32, seed: u64) -> SamplingParams {
    SamplingParams {
        temperature,
        seed,
        ..SamplingParams::greedy()
    }
}

fn sampled(logits: &[f32], vocab: usize, params: &SamplingParams, step: u64) -> Vec<i32> {
    let runs = cpus().map(|cpu| {
        let mut out = vec![-1; logits.len() / vocab + 1];
        cpu.run(|| reference(logits, vocab, params, step, &mut out));
        assert_eq!(out.pop(), Some(-1), "wrote past the end");
        out
    });
    assert!(params.temperature > 0.0 || runs[0] == runs[1], "{runs:?}");
    let [best, _] = runs;
    best
}

proptest! {
    #[test]
    fn greedy_takes_the_first_of_the_largest(
        requests in 1_usize..5,
        vocab in 1_usize..300,
        seed in any::<u32>(),
        steps in 1_u32..50,
        nans in 0_usize..20,
    ) {
        let mut logits = numbers(u64::from(seed), requests * vocab);
        // Few different values, so that ties happen; some NaN.
        logits.iter_mut().for_each(|x| *x = (*x * steps as f32).round());
        for i in 0..nans {
            let at = i * 7919 % logits.len();
            logits[at] = f32::NAN;
        }
        let expected: Vec<i32> = logits
            .chunks_exact(vocab)
            .map(|row| {
                let better = |best: usize, i: usize| row[i] > row[best] || (row[best].is_nan() && !row[i].is_nan());
                (0..vocab).reduce(|best, i| if better(best, i) { i } else { best }).unwrap_or(0) as i32
            })
            .collect();
        let expected: Vec<i32> = expected
            .iter()
            .zip(logits.chunks_exact(vocab))
            .map(|(&id, row)| if row.iter().all(|x| x.is_nan()) { 0 } else { id })
            .collect();
        prop_assert_eq!(sampled(&logits, vocab, &SamplingParams::greedy(), 0), expected.clone());
        // A temperature close to 0 comes to the same, and so does top-k 1 at any temperature.
        let one = SamplingParams { top_k: 1, ..params(1.0, 5) };
        prop_assert_eq!(sampled(&logits, vocab, &one, 3), expected);
    }

    #[test]
    fn nothing_that_was_filtered_is_drawn(
        vocab in 2_usize..400,
        seed in any::<u32>(),
        top_k in 2_u32..20,
        top_p in 0.05_f32..1.0,
        min_p in 0.0_f32..0.9,
        temperature in 0.1_f32..3.0,
    ) {
        let logits: Vec<f32> = numbers(u64::from(seed), vocab).iter().map(|x| x * 8.0).collect();
        let params = SamplingParams { temperature, top_k, top_p, min_p, seed: u64::from(seed) };
        // In float64 from the logits; bounds a little wide for the float32 exponentials.
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |id: usize| (f64::from(logits[id] - max) / f64::from(temperature)).exp();
        let total: f64 = (0..vocab).map(weight).sum();
        for step in 0..20 {
            let id = sampled(&logits, vocab, &params, step)[0] as usize;
            let before: Vec<usize> = (0..vocab).filter(|&i| logits[i] > logits[id]).collect();
            prop_assert!(before.len() < top_k as usize);
            prop_assert!(before.iter().map(|&i| weight(i)).sum::<f64>() <= f64::from(top_p) * total + 1e-5 * total);
            prop_assert!(weight(id) >= f64::from(min_p) - 1e-5);
        }
    }
}

/// How often each of `vocab` ids is drawn in `draws` steps, as a chi-square over `expected` probabilities.
fn chi_square(logits: &[f32], params: &SamplingParams, expected: &[f64], draws: usize) -> f64 {
    let cpu = crate::Cpu::new(Some(1)).unwrap();
    let mut counts = vec![0_usize; logits.len()];
    let mut out = [0];
    for step in 0..draws {
        cpu.run(|| reference(logits, logits.len(), params, step as u64, &mut out));
        counts[out[0] as usize] += 1;
    }
    let terms = counts.iter().zip(expected).map(|(&count, &p)| {
        if p == 0.0 {
            assert_eq!(count, 0, "a token without probability was drawn");
            return 0.0;
        }
        let mean = p * draws as f64;
        (count as f64 - mean).powi(2) / mean
    });
    terms.sum()
}

#[test]
fn draws_follow_the_probabilities() {
    let logits: Vec<f32> = (0..20).map(|i| (i * 7 % 20) as f32 * 0.2).collect();
    let softmax = |temperature: f64, keep: &dyn Fn(f32) -> bool| -> Vec<f64> {
        let weight = |&x: &f32| {
            if keep(x) {
                (f64::from(x) / temperature).exp()
            } else {
                0.0
            }
        };
        let total: f64 = logits.iter().map(weight).sum();
        logits.iter().map(|x| weight(x) / total).collect()
    };
    // The 0.1 % quantile of chi-square with 19 degrees of freedom is 43.8; with 4 it is 18.5.
    let all = softmax(1.0, &|_| true);
    for seed in [1, 2] {
        let value = chi_square(&logits, &params(1.0, seed), &all, 20_000);
        assert!(value < 43.8, "seed {seed}: {value}");
    }
    let flat = softmax(4.0, &|_| true);
    let value = chi_square(&logits, &params(4.0, 3), &flat, 20_000);
    assert!(value < 43.8, "temperature 4: {value}");
    let five = SamplingParams {
        top_k: 5,
        ..params(1.0, 4)
    };
    let value = chi_square(&logits, &five, &softmax(1.0, &|x| x > 2.9), 20_000);
    assert!(value < 18.5, "top_k 5: {value}");
}

#[test]
fn requests_and_steps_draw_independently_and_again_the_same() {
    let logits = vec![0.0; 64 * 1000];
    let first = sampled(&logits, 1000, &params(1.0, 7), 0);
    assert_eq!(first, sampled(&logits, 1000, &params(1.0, 7), 0));
    for other in [
        sampled(&logits, 1000, &params(1.0, 7), 1),
        sampled(&logits, 1000, &params(1.0, 8), 0),
    ] {
        let equal = first.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(equal < 5, "{equal} of 64 equal");
    }
    let mut distinct = first.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 50, "{} of 64 distinct", distinct.len());
}

#[test]
fn strange_logits_do_not_panic() {
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    let check = |logits: &[f32], expected: &[i32]| {
        for params in [
            SamplingParams::greedy(),
            params(1.0, 1),
            params(1e-30, 1),
            SamplingParams {
                top_k: 2,
                top_p: 0.5,
                min_p: 0.1,
                ..params(1.0, 1)
            },
        ] {
            let id = sampled(logits, logits.len(), &params, 0)[0];
            assert!(
                expected.contains(&id),
                "{logits:?} gave {id} with {params:?}"
            );
        }
    };
    check(&[NAN; 9], &[0]);
    check(&[NAN, -INF, NAN], &[1]);
    check(&[NAN, 1.0, NAN, -50.0], &[1]);
    check(&[0.0, INF, 0.0, INF], &[1]);
    check(&[-INF; 3], &[0]);
    check(&[f32::MAX, f32::MIN, 0.0], &[0]);
    check(&[5.0], &[0]);
}

#[test]
fn a_whole_vocabulary_with_every_filter() {
    let vocab = 151_936;
    let logits: Vec<f32> = numbers(11, vocab).iter().map(|x| x * 3.0).collect();
    for (top_k, top_p, min_p) in [
        (0, 0.9, 0.0),
        (50, 1.0, 0.0),
        (0, 1.0, 0.2),
        (1000, 0.01, 0.5),
    ] {
        let params = SamplingParams {
            temperature: 0.8,
            top_k,
            top_p,
            min_p,
            seed: 3,
        };
        let id = sampled(&logits, vocab, &params, 0)[0] as usize;
        let rank = logits.iter().filter(|&&x| x > logits[id]).count();
        assert!(top_k == 0 || rank < top_k as usize);
    }
}

#[test]
fn values_out_of_range_are_named() {
    let check = |change: &dyn Fn(&mut SamplingParams), expected: &str| {
        let mut params = params(1.0, 0);
        params.validate().unwrap();
        change(&mut params);
        assert_eq!(params.validate().unwrap_err().to_string(), expected);
    };
    check(
        &|p| p.temperature = -1.0,
        "temperature must be 0 (greedy) or above, not -1",
    );
    check(
        &|p| p.temperature = f32::NAN,
        "temperature must be 0 (greedy) or above, not NaN",
    );
    check(
        &|p| p.top_p = 0.0,
        "top_p must be above 0 and at most 1 (all), not 0",
    );
    check(
        &|p| p.top_p = 1.5,
        "top_p must be above 0 and at most 1 (all), not 1.5",
    );
    check(
        &|p| p.min_p = -0.5,
        "min_p must be between 0 (off) and 1, not -0.5",
    );
    assert_eq!(SamplingParams::default(), SamplingParams::greedy());
    assert!(SamplingParams::greedy().is_greedy() && !params(0.5, 0).is_greedy());
    assert!(
        SamplingParams {
            top_k: 1,
            ..params(0.5, 0)
        }
        .is_greedy()
    );
}

#[test]
fn costs() {
    let expected = Cost {
        flops: 30,
        weight_bytes: 0,
        kv_bytes: 0,
        activation_bytes: 30 * 4 + 3 * 4,
    };
    assert_eq!(cost(3, 10, DType::F32), expected);
}
