//! How much of one list of values has a near neighbour in another.

/// Parts from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Coverage {
    /// Of the values.
    pub(super) samples: f64,
    /// Of the distinct values, rare ones left out where others repeat.
    pub(super) support: f64,
}

/// A distinct value that makes up less than this part of a list is rare. As NVBench has it (`bulk.rare_support`).
const RARE_PART: f64 = 0.001;
/// Rare values count after all if they make up more than this part together.
const MOST_RARE: f64 = 0.01;

/// How much of `values` has a neighbour in `others` that differs by the factor 1 + `tolerance` at most. All values are positive.
pub(super) fn of(values: &[f64], others: &[f64], tolerance: f64) -> Coverage {
    let mut others = others.to_vec();
    others.sort_by(f64::total_cmp);
    let limit = tolerance.ln_1p();
    let is_covered = |value: f64| {
        let above = others.partition_point(|&other| other < value);
        let neighbours = [above.checked_sub(1), Some(above)];
        let mut near = neighbours
            .into_iter()
            .filter_map(|index| others.get(index?));
        // Two equal values are neighbours at any tolerance.
        near.any(|&other| (value.ln() - other.ln()).abs() <= limit)
    };
    let distinct: Vec<(usize, bool)> = distinct(values)
        .into_iter()
        .map(|(value, count)| (count, is_covered(value)))
        .collect();
    let support = common(&distinct);
    let covered: usize = distinct.iter().filter(|d| d.1).map(|d| d.0).sum();
    let covered_support = support.iter().filter(|d| d.1).count();
    Coverage {
        samples: covered as f64 / values.len().max(1) as f64,
        support: covered_support as f64 / support.len().max(1) as f64,
    }
}

/// The distinct values, with how often each occurs.
fn distinct(values: &[f64]) -> Vec<(f64, usize)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let runs = sorted.chunk_by(|a, b| a == b);
    runs.map(|run| (run[0], run.len())).collect()
}

/// Those that are not rare, or all of them if that would leave out too much.
fn common(distinct: &[(usize, bool)]) -> Vec<(usize, bool)> {
    let total: usize = distinct.iter().map(|d| d.0).sum();
    let least = ((RARE_PART * total as f64).ceil() as usize).max(2);
    let common: Vec<(usize, bool)> = distinct.iter().filter(|d| d.0 >= least).copied().collect();
    let left_out = total - common.iter().map(|d| d.0).sum::<usize>();
    if common.is_empty() || left_out as f64 > MOST_RARE * total as f64 {
        distinct.to_vec()
    } else {
        common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_on_either_side_count() {
        let coverage = of(&[100.0, 100.4, 102.0, 99.6], &[100.0, 200.0], 0.005);
        assert_eq!(coverage.samples, 0.75);
        assert_eq!(coverage.support, 0.75);
        assert_eq!(of(&[1.0], &[1.0], 0.0).samples, 1.0);
        assert_eq!(of(&[1.0], &[], 0.5).samples, 0.0);
    }

    #[test]
    fn values_count_as_often_as_they_occur_and_rare_ones_not_in_the_support() {
        let mut values = vec![100.0; 150];
        values.extend([200.0; 149]);
        values.push(300.0); // once in 300: rare
        let coverage = of(&values, &[100.0], 0.005);
        assert_eq!(coverage.samples, 0.5);
        assert_eq!(coverage.support, 0.5);
        // Ten rare values of 210 are too many to leave out.
        let mut values = vec![100.0; 200];
        values.extend((0..10).map(|i| 300.0 + f64::from(i)));
        let coverage = of(&values, &[100.0], 0.005);
        assert_eq!(coverage.support, 1.0 / 11.0);
    }
}
