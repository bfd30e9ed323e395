//! How a launch becomes a sample: copies of its inputs, batches, and what the L2 cache holds. Pure numbers.

use std::time::Duration;

use super::{CacheState, L2};

/// So many times the L2 cache do the inputs have that are taken in turn, as in FlashInfer's benchmarks: then none of them is still
/// there when its turn comes.
const L2_TIMES: u64 = 5;
/// The most copies of a launch's inputs.
const MOST_COPIES: usize = 1024;
/// A launch shorter than this is timed as one of many in a graph: an event resolves half a microsecond, and the two around a launch
/// see some of what lies between kernels.
const SHORT: Duration = Duration::from_micros(10);
/// What a graph of short launches takes at least, unless it has [`MOST_LAUNCHES`].
const GRAPH: Duration = Duration::from_millis(1);
/// The most launches of a graph, unless there are more copies.
const MOST_LAUNCHES: usize = 1024;

/// Copies of inputs and outputs of `bytes` each that keep the L2 cache cold, on a device with a cache of `l2_bytes` and so much free
/// memory, half of which may be used.
///
/// Inputs that are 5 times the cache by themselves are there once; smaller ones get a copy more than makes them as large.
pub fn copies(bytes: u64, l2_bytes: u64, free_bytes: u64) -> usize {
    let wanted = L2_TIMES * l2_bytes;
    let copies = match bytes {
        0 => 1,
        bytes if bytes >= wanted => 1,
        bytes => wanted.div_ceil(bytes) + 1,
    };
    let fitting = (free_bytes / 2).checked_div(bytes).unwrap_or(1);
    copies.min(fitting).clamp(1, MOST_COPIES as u64) as usize
}

/// What one sample of a subject consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Launches of a sample: one, or a graph of so many.
    pub(super) launches: usize,
    pub(super) l2: CacheState,
    /// Whether each launch takes the next copy.
    rotates: bool,
}

impl Plan {
    pub(super) fn is_graph(&self) -> bool {
        self.launches > 1
    }
}

/// What the plans of subjects that are measured together depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Extent {
    /// Copies of the subject's inputs.
    pub(super) copies: usize,
    /// What a launch moves.
    pub(super) bytes: u64,
    /// What a launch takes.
    pub(super) launch_ns: f64,
}

/// The plans of subjects that are measured in turn: all by themselves or all in graphs, and the cache in one state for all.
pub(super) fn plans<const N: usize>(l2: L2, l2_bytes: u64, of: [Extent; N]) -> [Plan; N] {
    let shortest_ns = of
        .iter()
        .map(|extent| extent.launch_ns)
        .fold(f64::MAX, f64::min);
    let is_short = shortest_ns < SHORT.as_nanos() as f64;
    let outgrows = |extent: &Extent| {
        let together = extent.bytes.saturating_mul(extent.copies as u64);
        together >= L2_TIMES * l2_bytes
    };
    let rotates = of.iter().all(outgrows);
    let state = match (l2, rotates) {
        (L2::Warm, _) => CacheState::Warm,
        (L2::Cold, true) => CacheState::Rotated,
        // No flush fits between the launches of a graph.
        (L2::Cold, false) if is_short => CacheState::Warm,
        (L2::Cold, false) => CacheState::Flushed,
    };
    of.map(|extent| Plan {
        launches: match is_short {
            true => launches(extent.copies, shortest_ns),
            false => 1,
        },
        l2: state,
        rotates: l2 == L2::Cold,
    })
}

/// Launches of a graph: whole rounds over the copies, long enough to be timed, where one takes `launch_ns`. At least two, since a
/// graph is what they are for.
fn launches(copies: usize, launch_ns: f64) -> usize {
    let needed = (GRAPH.as_nanos() as f64 / launch_ns.max(100.0)).ceil() as usize;
    let copies = copies.max(1);
    needed.clamp(2, MOST_LAUNCHES).div_ceil(copies) * copies
}

/// Which copy a launch works on.
///
/// Sides may share their inputs, so the second begins half a round after the first: what it reads was last touched as long ago.
pub(super) fn copy_for(
    plan: &Plan,
    launch: usize,
    [side, sides]: [usize; 2],
    copies: usize,
) -> usize {
    match plan.rotates {
        true => (launch + side * copies / sides.max(1)) % copies.max(1),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn copies_outgrow_the_cache_and_fit_into_memory() {
        // 250 MiB of an H100's 50 MiB of cache.
        assert_eq!(copies(250 * MIB, 50 * MIB, 80_000 * MIB), 1);
        assert_eq!(copies(100 * MIB, 50 * MIB, 80_000 * MIB), 4);
        assert_eq!(copies(2 * MIB, 50 * MIB, 80_000 * MIB), 126);
        // Half of 16 MiB holds 4 of 2 MiB.
        assert_eq!(copies(2 * MIB, 50 * MIB, 16 * MIB), 4);
        assert_eq!(copies(2 * MIB, 50 * MIB, MIB), 1);
        assert_eq!(copies(1, 50 * MIB, 80_000 * MIB), 1024);
        assert_eq!(copies(0, 50 * MIB, 80_000 * MIB), 1);
        assert_eq!(copies(5, 0, 80_000 * MIB), 1);
    }

    fn extent(copies: usize, bytes: u64, launch_us: f64) -> Extent {
        Extent {
            copies,
            bytes,
            launch_ns: 1e3 * launch_us,
        }
    }

    #[track_caller]
    fn check(l2: L2, of: Extent, launches: usize, state: CacheState) {
        let [plan] = plans(l2, 50 * MIB, [of]);
        let rotates = l2 == L2::Cold;
        let expected = Plan {
            launches,
            l2: state,
            rotates,
        };
        assert_eq!(plan, expected);
    }

    #[test]
    fn long_launches_are_timed_by_themselves() {
        check(L2::Cold, extent(126, 2 * MIB, 10.0), 1, CacheState::Rotated);
        check(L2::Cold, extent(1, 300 * MIB, 90.0), 1, CacheState::Rotated);
        check(L2::Cold, extent(4, 2 * MIB, 10.0), 1, CacheState::Flushed);
        check(L2::Warm, extent(126, 2 * MIB, 10.0), 1, CacheState::Warm);
    }

    #[test]
    fn short_launches_come_in_graphs_over_all_copies() {
        check(
            L2::Cold,
            extent(126, 2 * MIB, 5.0),
            252,
            CacheState::Rotated,
        );
        check(L2::Warm, extent(1, MIB, 5.0), 200, CacheState::Warm);
        check(L2::Cold, extent(1024, 1, 0.0), 1024, CacheState::Warm);
        // Copies that together fit into the cache leave it warm, and the series says so.
        check(L2::Cold, extent(7, MIB, 9.9), 105, CacheState::Warm);
        check(L2::Cold, extent(1023, MIB, 0.5), 2046, CacheState::Rotated);
    }

    #[test]
    fn two_sides_have_the_same_conditions() {
        // One is short: both come in graphs. One cannot rotate: neither does.
        let [ours, theirs] = plans(
            L2::Cold,
            50 * MIB,
            [extent(126, 2 * MIB, 12.0), extent(126, 2 * MIB, 8.0)],
        );
        assert_eq!((ours, theirs), (theirs, ours));
        assert_eq!(ours.launches, 126);
        let both = plans(
            L2::Cold,
            50 * MIB,
            [extent(126, 2 * MIB, 12.0), extent(1, 2 * MIB, 18.0)],
        );
        assert!(both.iter().all(|plan| plan.l2 == CacheState::Flushed));
    }

    #[test]
    fn sides_that_share_inputs_stay_half_a_round_apart() {
        let plan = Plan {
            launches: 1,
            l2: CacheState::Rotated,
            rotates: true,
        };
        let turns =
            |side| -> Vec<usize> { (0..4).map(|n| copy_for(&plan, n, [side, 2], 4)).collect() };
        assert_eq!(turns(0), [0, 1, 2, 3]);
        assert_eq!(turns(1), [2, 3, 0, 1]);
        let warm = Plan {
            rotates: false,
            ..plan
        };
        assert_eq!(copy_for(&warm, 3, [1, 2], 4), 0);
    }
}
