//! Order statistics and moments of a list of times. Every function gives `None` where the list is too short to say.

/// The middle value; the mean of the two middle ones when their number is even.
pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50.0)
}

/// The value below which `q` percent of `values` lie, `q` in 0..=100. Between two ranks it interpolates linearly, as
/// `numpy.percentile` does by default.
pub fn percentile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let rank = q.clamp(0.0, 100.0) / 100.0 * last as f64;
    let below = rank.floor() as usize;
    let above = (below + 1).min(last);
    let (low, high) = (sorted[below], sorted[above]);
    let fraction = rank - below as f64;
    // Not `low + fraction * (high - low)` alone: between two infinities that is NaN.
    Some(if low == high {
        low
    } else {
        low + fraction * (high - low)
    })
}

/// The arithmetic mean.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample standard deviation (divisor n − 1). One value has none.
pub fn stddev(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    if values.len() < 2 {
        return None;
    }
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(actual: Option<f64>, expected: f64) {
        let actual = actual.unwrap();
        assert!(
            (actual - expected).abs() <= 1e-12 * expected.abs(),
            "{actual} instead of {expected}"
        );
    }

    #[test]
    fn percentiles_are_numpys() {
        // numpy.percentile([15, 20, 35, 40, 50], [0, 5, 30, 40, 50, 99, 100])
        let values = [50.0, 15.0, 40.0, 20.0, 35.0];
        for (q, expected) in [
            (0.0, 15.0),
            (5.0, 16.0),
            (30.0, 23.0),
            (40.0, 29.0),
            (50.0, 35.0),
            (99.0, 49.6),
            (100.0, 50.0),
        ] {
            check(percentile(&values, q), expected);
        }
    }

    #[test]
    fn medians() {
        check(median(&[3.0]), 3.0);
        check(median(&[3.0, 1.0]), 2.0);
        check(median(&[3.0, 1.0, 10.0]), 3.0);
    }

    #[test]
    fn moments() {
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        check(mean(&values), 5.0);
        check(stddev(&values), (32.0_f64 / 7.0).sqrt());
    }

    #[test]
    fn short_lists_say_nothing() {
        assert_eq!(median(&[]), None);
        assert_eq!(percentile(&[], 90.0), None);
        assert_eq!(mean(&[]), None);
        assert_eq!(stddev(&[]), None);
        assert_eq!(stddev(&[1.0]), None);
    }

    #[test]
    fn values_that_are_not_numbers_do_not_panic() {
        assert_eq!(percentile(&[1.0, f64::NAN, 2.0], 0.0), Some(1.0));
        assert_eq!(
            percentile(&[f64::INFINITY, f64::INFINITY], 90.0),
            Some(f64::INFINITY)
        );
        assert!(percentile(&[1.0, 2.0], f64::NAN).is_some());
    }
}
