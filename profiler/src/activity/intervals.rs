//! Unions of intervals of time.

/// A time in which something ran: start, end, and which record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) record: usize,
}

/// A stretch without a gap: start, end, and the record that it begins with.
pub(super) type Busy = Interval;

/// The stretches of time that `intervals` cover, in order. Intervals that touch are one stretch.
pub(super) fn union(mut intervals: Vec<Interval>) -> Vec<Busy> {
    intervals.sort_by_key(|i| (i.start_ns, i.end_ns, i.record));
    let mut stretches: Vec<Busy> = Vec::new();
    for interval in intervals {
        match stretches.last_mut() {
            Some(last) if interval.start_ns <= last.end_ns => {
                last.end_ns = last.end_ns.max(interval.end_ns);
            }
            _ => stretches.push(interval),
        }
    }
    stretches
}

/// The time that stretches cover.
pub(super) fn length_ns(stretches: &[Busy]) -> u64 {
    stretches.iter().map(|s| s.end_ns - s.start_ns).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(intervals: &[(u64, u64)], expected: &[(u64, u64, usize)]) {
        let intervals = intervals.iter().enumerate();
        let intervals = intervals.map(|(record, &(start_ns, end_ns))| Interval {
            start_ns,
            end_ns,
            record,
        });
        let stretches = union(intervals.collect());
        let found: Vec<_> = stretches
            .iter()
            .map(|s| (s.start_ns, s.end_ns, s.record))
            .collect();
        assert_eq!(found, expected);
        let sum: u64 = expected.iter().map(|(start, end, _)| end - start).sum();
        assert_eq!(length_ns(&stretches), sum);
    }

    #[test]
    fn what_touches_is_one_stretch_and_begins_with_its_first() {
        check(&[], &[]);
        check(&[(5, 9), (0, 3)], &[(0, 3, 1), (5, 9, 0)]);
        check(&[(0, 10), (2, 4), (10, 12)], &[(0, 12, 0)]);
        check(&[(3, 3), (3, 8)], &[(3, 8, 0)]);
    }
}
