//! Unions of intervals, and how long they overlap.

/// Half-open intervals in nanoseconds, merged: in order, and none touches the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Union(pub(super) Vec<(i64, i64)>);

impl Union {
    /// The union of intervals that come ordered by their start.
    pub(super) fn of(intervals: impl IntoIterator<Item = (i64, i64)>) -> Union {
        let mut merged: Vec<(i64, i64)> = Vec::new();
        for (start, end) in intervals {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Union(merged)
    }

    /// Its length.
    pub(super) fn length(&self) -> u64 {
        self.0.iter().fold(0_u64, |sum, &(start, end)| {
            sum.saturating_add(end.abs_diff(start))
        })
    }

    /// The part within `[start, end)`.
    pub(super) fn length_within(&self, start: i64, end: i64) -> u64 {
        let first = self.0.partition_point(|&(_, e)| e <= start);
        self.0[first..]
            .iter()
            .take_while(|&&(s, _)| s < end)
            .fold(0_u64, |sum, &(s, e)| {
                sum.saturating_add(e.min(end).max(s.max(start)).abs_diff(s.max(start)))
            })
    }
}

/// The time during which intervals of each class run, an instant shared evenly among those that run at it: per class, in
/// nanoseconds. The classes add up to the length of the union, to a nanosecond per class.
///
/// `intervals` are (start, end, class), ordered by start; `classes` is how many there are.
pub(super) fn shared(intervals: &[(i64, i64, usize)], classes: usize) -> Vec<f64> {
    // Ends in order, beside the starts: the two together are the instants at which something changes.
    let mut ends: Vec<(i64, usize)> = intervals
        .iter()
        .map(|&(_, end, class)| (end, class))
        .collect();
    ends.sort_unstable();
    let mut time = vec![0.0; classes];
    let mut running = vec![0_u64; classes];
    let mut total = 0_u64;
    let (mut next_start, mut next_end) = (0, 0);
    let mut now = intervals.first().map_or(0, |&(start, _, _)| start);
    while next_end < ends.len() {
        let start = intervals.get(next_start).map(|&(start, _, _)| start);
        let is_start = start.is_some_and(|start| start <= ends[next_end].0);
        let at = start.filter(|_| is_start).unwrap_or(ends[next_end].0);
        if total > 0 && at > now {
            let share = at.abs_diff(now) as f64 / total as f64;
            for (time, &count) in time.iter_mut().zip(&running) {
                *time += share * count as f64;
            }
        }
        now = now.max(at);
        if is_start {
            running[intervals[next_start].2] += 1;
            total += 1;
            next_start += 1;
        } else {
            running[ends[next_end].1] -= 1;
            total -= 1;
            next_end += 1;
        }
    }
    time
}

/// The time during which exactly a given set of classes runs, for every set: indexed by the set as bits.
///
/// `unions` has one union per class.
pub(super) fn by_set(unions: &[Union]) -> Vec<u64> {
    let mut edges: Vec<(i64, bool, usize)> = Vec::new();
    for (class, union) in unions.iter().enumerate() {
        for &(start, end) in union.0.iter().filter(|(start, end)| start < end) {
            edges.push((start, true, class));
            edges.push((end, false, class));
        }
    }
    edges.sort_unstable();
    let mut time = vec![0; 1 << unions.len()];
    let mut running = 0_usize;
    let mut now = 0;
    for (at, begins, class) in edges {
        if running != 0 {
            time[running] += at.abs_diff(now);
        }
        now = at;
        if begins {
            running |= 1 << class;
        } else {
            running &= !(1 << class);
        }
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unions() {
        let union = Union::of([(0, 4), (2, 3), (4, 6), (10, 10), (12, 15)]);
        assert_eq!(union.0, [(0, 6), (10, 10), (12, 15)]);
        assert_eq!(union.length(), 9);
        assert_eq!(union.length_within(5, 13), 2);
        assert_eq!(union.length_within(-5, 0), 0);
        assert_eq!(union.length_within(6, 12), 0);
        assert_eq!(Union::default().length(), 0);
    }

    #[test]
    fn shares_add_up_to_the_union() {
        // Two of class 0 and one of class 1 run together in [4, 6): a third each.
        let intervals = [(0, 6, 0), (2, 8, 1), (4, 6, 0), (20, 20, 1), (30, 31, 1)];
        let time = shared(&intervals, 2);
        let expected_0 = 2.0 + 1.0 + 2.0 * 2.0 / 3.0;
        let expected_1 = 1.0 + 2.0 / 3.0 + 2.0 + 1.0;
        assert!((time[0] - expected_0).abs() < 1e-9, "{time:?}");
        assert!((time[1] - expected_1).abs() < 1e-9, "{time:?}");
        assert_eq!(shared(&[], 2), [0.0, 0.0]);
    }

    #[test]
    fn time_by_set() {
        let compute = Union::of([(0, 10)]);
        let communication = Union::of([(5, 15), (15, 20), (30, 30)]);
        assert_eq!(by_set(&[compute, communication]), [0, 5, 10, 5]);
    }
}
