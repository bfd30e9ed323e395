//! Which tokens the filters keep, and the draw among them.
//!
//! A token is a candidate `!weight << 32 | id` (weights are not negative, so that their bits sort as they do): ascending
//! candidates are the order of the filters, likeliest first and equal ones by id.

use super::SamplingParams;

fn candidate(weight: f32, id: usize) -> u64 {
    u64::from(!weight.to_bits()) << 32 | id as u64
}

fn weight_of(candidate: u64) -> f64 {
    f64::from(f32::from_bits(!(candidate >> 32) as u32))
}

/// The last candidate, in their order, that all filters keep; none when they keep all. `total` is the sum of `weights`, whose
/// largest is 1; `space` has room for all candidates.
pub(super) fn last_kept(
    weights: &[f32],
    total: f64,
    params: &SamplingParams,
    space: &mut [u64],
) -> Option<u64> {
    let SamplingParams {
        top_k,
        top_p,
        min_p,
        ..
    } = *params;
    let all_k = top_k == 0 || top_k as usize >= weights.len();
    if all_k && top_p >= 1.0 && min_p <= 0.0 {
        return None;
    }
    // Tokens lighter than this weigh less than 1 - top_p all together, so that top-p keeps none of them. A little
    // lower, for the roundings of this line.
    let tail = (1.0 - f64::from(top_p)) * total / weights.len() as f64 * (1.0 - 1e-6);
    let lightest = (tail as f32).max(min_p.min(1.0));
    let mut count = 0;
    for (id, &weight) in weights.iter().enumerate() {
        space[count] = candidate(weight, id);
        count += usize::from(weight >= lightest);
    }
    let mut kept = &mut space[..count];
    let k = top_k as usize;
    if !all_k && k < kept.len() {
        kept.select_nth_unstable(k - 1);
        kept = &mut kept[..k];
    }
    let mut last = kept.iter().copied().max();
    if top_p < 1.0 {
        last = last_within(kept, f64::from(top_p) * total).or(last);
    }
    last
}

/// The last of `candidates` before which at most `most` weighs, found by halving.
fn last_within(candidates: &mut [u64], most: f64) -> Option<u64> {
    let mut rest = candidates;
    let mut before = 0.0;
    let mut last = None;
    while !rest.is_empty() {
        let middle = rest.len() / 2;
        rest.select_nth_unstable(middle);
        let lighter = rest[..middle].iter().map(|&c| weight_of(c)).sum::<f64>();
        if before + lighter <= most {
            // The middle one is kept, and so are all before it.
            last = Some(rest[middle]);
            before += lighter + weight_of(rest[middle]);
            rest = &mut rest[middle + 1..];
        } else {
            rest = &mut rest[..middle];
        }
    }
    last
}

/// The token at which the weights of those up to `last`, added up by id, pass `unit` of their sum; `unit` is in `[0, 1)`.
pub(super) fn pick(weights: &[f32], last: Option<u64>, unit: f64) -> Option<usize> {
    let kept = || {
        let with_id = weights.iter().enumerate();
        with_id.filter(move |&(id, &w)| w > 0.0 && last.is_none_or(|last| candidate(w, id) <= last))
    };
    let sum: f64 = kept().map(|(_, &w)| f64::from(w)).sum();
    let mut left = unit * sum;
    let mut picked = None;
    for (id, &weight) in kept() {
        picked = Some(id);
        left -= f64::from(weight);
        if left < 0.0 {
            break;
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The filters as the module says, by sorting.
    fn naive(weights: &[f32], params: &SamplingParams) -> Vec<usize> {
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        let mut kept = Vec::new();
        let mut before = 0.0;
        for (rank, &id) in order.iter().enumerate() {
            let weight = f64::from(weights[id]);
            let by_k = params.top_k == 0 || rank < params.top_k as usize;
            // A sum that is within rounding of the bound may be on either side.
            let by_p = before <= f64::from(params.top_p) * total;
            let by_min = weight >= f64::from(params.min_p);
            if by_k && by_p && by_min {
                kept.push(id);
            }
            before += weight;
        }
        kept.sort_unstable();
        kept
    }

    fn kept(weights: &[f32], params: &SamplingParams) -> Vec<usize> {
        let total = weights.iter().map(|&w| f64::from(w)).sum();
        let mut space = vec![0; weights.len()];
        let last = last_kept(weights, total, params, &mut space);
        (0..weights.len())
            .filter(|&id| last.is_none_or(|last| candidate(weights[id], id) <= last))
            .collect()
    }

    fn params(top_k: u32, top_p: f32, min_p: f32) -> SamplingParams {
        SamplingParams {
            temperature: 1.0,
            top_k,
            top_p,
            min_p,
            seed: 0,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Weights are multiples of 2^-12, so that float64 sums are exact and both sides of the bound agree.
        #[test]
        fn filters_keep_what_sorting_keeps(
            weights in prop::collection::vec(0_u32..=4096, 1..300),
            top_k in prop_oneof![Just(0_u32), 1_u32..400],
            top_p in prop_oneof![Just(1.0_f32), 0.01_f32..1.0],
            min_p in prop_oneof![Just(0.0_f32), 0.0_f32..=1.0],
            ties in 1_u32..3000,
        ) {
            let mut weights: Vec<f32> = weights.iter().map(|w| (w / ties * ties) as f32 / 4096.0).collect();
            weights[0] = 1.0;
            let params = params(top_k, top_p, min_p);
            prop_assert_eq!(kept(&weights, &params), naive(&weights, &params));
        }
    }

    #[test]
    fn each_filter_alone() {
        let weights = [0.25, 1.0, 0.5, 0.25];
        let check = |top_k, top_p, min_p, expected: &[usize]| {
            assert_eq!(kept(&weights, &params(top_k, top_p, min_p)), expected);
        };
        check(0, 1.0, 0.0, &[0, 1, 2, 3]);
        check(1, 1.0, 0.0, &[1]);
        check(3, 1.0, 0.0, &[0, 1, 2]); // of equal ones the lower id
        check(9, 1.0, 0.0, &[0, 1, 2, 3]);
        check(0, 0.4, 0.0, &[1]); // half of the weight comes with the first
        check(0, 0.5, 0.0, &[1, 2]); // not yet passed
        check(0, 0.8, 0.0, &[0, 1, 2]);
        check(0, 1.0, 0.5, &[1, 2]);
        check(0, 1.0, 0.51, &[1]);
        check(3, 0.8, 0.3, &[1, 2]);
    }

    #[test]
    fn a_draw_takes_each_token_by_its_share() {
        let weights = [0.25, 0.0, 0.5, 0.25];
        let check = |unit, expected| assert_eq!(pick(&weights, None, unit), Some(expected));
        check(0.0, 0);
        check(0.249, 0);
        check(0.25, 2);
        check(0.749, 2);
        check(0.75, 3);
        check(0.999_999_999_999, 3);
        // Of those kept only: the first two by weight are ids 2 and 0.
        assert_eq!(pick(&weights, Some(candidate(0.25, 0)), 0.34), Some(2));
        assert_eq!(pick(&weights, Some(candidate(0.25, 0)), 0.32), Some(0));
        assert_eq!(pick(&[0.0; 3], None, 0.5), None);
    }
}
