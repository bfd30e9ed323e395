//! The entropy of a stream of times, and whether it still grows.

use std::collections::{HashMap, VecDeque};

/// Entropies that are looked at. NVBench's.
const WINDOW: usize = 299;
/// The slope of their line, in degrees, below which they stay. NVBench's (`--max-angle`).
const MOST_DEGREES: f64 = 0.048;
/// How well the line must fit, as R². NVBench's (`--min-r2`).
const LEAST_R2: f64 = 0.36;

/// The entropy of the distribution of the values so far, and what it was after each of the last ones.
#[derive(Debug, Default)]
pub(super) struct Entropy {
    /// How often each value came, by its bits.
    counts: HashMap<u64, u64>,
    values: u64,
    /// The sum of c·log2(c) over the counts: so a value costs the same however many came before.
    weighted: f64,
    last: VecDeque<f64>,
}

impl Entropy {
    pub(super) fn push(&mut self, value: f64) {
        let term = |count: u64| match count {
            0 => 0.0,
            count => count as f64 * (count as f64).log2(),
        };
        let count = self.counts.entry(value.to_bits()).or_default();
        self.weighted -= term(*count);
        *count += 1;
        self.weighted += term(*count);
        self.values += 1;
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(self.bits());
    }

    /// Of the distribution of all values, in bits.
    pub(super) fn bits(&self) -> f64 {
        match self.values {
            0 => 0.0,
            n => (n as f64).log2() - self.weighted / n as f64,
        }
    }

    /// Whether a line through the last entropies is flat and fits them.
    pub(super) fn is_stable(&self) -> bool {
        let Some((slope, r2)) = line(&self.last) else {
            return false;
        };
        slope.atan().to_degrees().abs() < MOST_DEGREES && r2 > LEAST_R2
    }
}

/// Slope and R² of the line of least squares through values one step apart; a line through equal values fits them.
fn line(values: &VecDeque<f64>) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    if values.len() < 2 {
        return None;
    }
    let (mean_x, mean_y) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in values.iter().enumerate() {
        let (x, y) = (x as f64 - mean_x, y - mean_y);
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    // Equal entropies differ in their last bits.
    let r2 = if yy > 1e-20 * n {
        xy * xy / (xx * yy)
    } else {
        1.0
    };
    Some((xy / xx, r2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Entropy {
        let mut entropy = Entropy::default();
        for value in values {
            entropy.push(value);
        }
        entropy
    }

    #[test]
    fn entropies_are_those_of_the_counts() {
        assert_eq!(of([]).bits(), 0.0);
        assert_eq!(of([5.0; 7]).bits(), 0.0);
        assert!((of([1.0, 2.0, 1.0, 2.0]).bits() - 1.0).abs() < 1e-12);
        assert!((of((0..8).map(f64::from)).bits() - 3.0).abs() < 1e-12);
        // A half, a quarter and a quarter: 1.5 bits.
        assert!((of([1.0, 1.0, 2.0, 3.0]).bits() - 1.5).abs() < 1e-12);
    }

    #[test]
    fn new_values_keep_it_growing_and_known_ones_do_not() {
        assert!(!of((0..40).map(f64::from)).is_stable());
        assert!(of([5.0; 12]).is_stable());
        // Few values that come again and again: after a while nothing is new.
        let few = |n: i32| of((0..n).map(|i| f64::from(i * 7 % 5)));
        assert!(!few(6).is_stable());
        assert!((1..=60).any(|tens| few(10 * tens).is_stable()));
    }

    #[test]
    fn lines_have_their_slope_and_fit() {
        let values: VecDeque<f64> = [1.0, 3.0, 5.0, 7.0].into();
        assert_eq!(line(&values), Some((2.0, 1.0)));
        let (slope, r2) = line(&[1.0, -1.0, 1.0, -1.0, 1.0].into()).unwrap();
        assert_eq!((slope, r2), (0.0, 0.0));
        assert_eq!(line(&[1.0].into()), None);
    }
}
