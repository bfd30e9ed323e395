//! Into how many ranges the positions of a request are cut, each for a block of its own.

/// Blocks that a multiprocessor runs at the same time: they take 51 to 76 KiB of shared memory, of which compute capability 8.0
/// has 164 and 9.0 has 228. 8.6 and 8.9 have 100 and run one; twice the blocks are two waves as full as one would be.
const RESIDENT: usize = 2;

/// Positions that are worth a block: 2 tiles of 16 for each of 4 warps. The ring holds as many, so they arrive all at the same
/// time, and half of them would take as long.
const LEAST_POSITIONS: usize = 128;

/// More ranges than this and the merge, a warp per head, reads longer than a range takes.
const MOST_SPLITS: usize = 128;

/// Positions of a round: a tile of 16 for each of 4 warps. Ranges are whole rounds.
const ROUND: usize = 64;

/// How many ranges, for `blocks` blocks if there were one, and up to `max_kv_len` positions of a request.
///
/// Attention of one row reads keys and values once, so what counts is that all multiprocessors read all the time. A launch takes
/// as long as its longest range, for each wave of `RESIDENT * multiprocessors` blocks:
///
/// - four blocks for every five places are enough without cutting: a second kernel costs more than what the wave lacks;
/// - else, of all numbers of ranges, the least whose time is within 15 % of the shortest: each range costs a partial result,
///   written and read in float32. (FlashAttention's `num_splits_heuristic` has the same two rules, but counts ranges as if
///   they could have any length.)
pub(crate) fn splits(blocks: usize, max_kv_len: usize, multiprocessors: usize) -> usize {
    let places = RESIDENT * multiprocessors;
    let most = (max_kv_len / LEAST_POSITIONS).clamp(1, MOST_SPLITS);
    if most == 1 || blocks == 0 || 5 * blocks >= 4 * places {
        return 1;
    }
    let rounds = max_kv_len.div_ceil(ROUND);
    let time = |splits: usize| {
        let longest = rounds.div_ceil(splits);
        let ranges = rounds.div_ceil(longest);
        (blocks * ranges).div_ceil(places) * longest
    };
    let shortest = (1..=most).map(time).min().unwrap_or(0);
    (1..=most)
        .find(|&splits| 100 * time(splits) <= 115 * shortest)
        .unwrap_or(1)
}

/// Numbers of ranges that differ in their longest: what a tuner tries.
pub(super) fn candidates(max_kv_len: usize) -> impl Iterator<Item = usize> {
    let most = (max_kv_len / LEAST_POSITIONS).clamp(1, MOST_SPLITS);
    let rounds = max_kv_len.div_ceil(ROUND).max(1);
    (1..=most)
        .filter(move |&splits| splits == 1 || rounds.div_ceil(splits) < rounds.div_ceil(splits - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_fill_the_device_and_stay_long() {
        let check = |blocks, max_kv_len, expected| {
            assert_eq!(
                splits(blocks, max_kv_len, 132),
                expected,
                "{blocks} blocks, {max_kv_len} positions"
            );
        };
        check(8, 100, 1); // too short
        check(8, 255, 1);
        check(8, 256, 2);
        check(8, 1024, 8); // ranges of 128
        check(8, 8192, 32); // 4 rounds each
        check(8, 131_072, 29); // 71 rounds in one wave; 63 would take more ranges, and two
        check(1, 1 << 20, 112); // one KV head
        check(64, 4096, 4); // 256 of 264 places in one wave
        check(100, 4096, 5); // 500 of 528 in two
        check(210, 32_768, 5); // 1050 of 1056 in four
        check(212, 32_768, 1); // four fifths of the places
        check(1000, 32_768, 1);
        check(0, 0, 1);
    }

    #[test]
    fn what_is_chosen_is_among_the_candidates() {
        for (blocks, max_kv_len) in [(8, 100), (8, 1024), (8, 8192), (64, 4096), (1, 1 << 20)] {
            let chosen = splits(blocks, max_kv_len, 132);
            let all: Vec<usize> = candidates(max_kv_len).collect();
            assert!(all.contains(&chosen), "{chosen} of {max_kv_len}: {all:?}");
        }
        assert_eq!(candidates(1024).collect::<Vec<_>>(), [1, 2, 3, 4, 6, 8]);
    }

    #[test]
    fn a_partial_result_never_outgrows_the_workspace() {
        // 16 heads of 256 and their two numbers for each block; the workspace has 16 Mi floats.
        for multiprocessors in [16, 108, 132, 148, 160] {
            for blocks in 1..600 {
                let splits = splits(blocks, 1 << 20, multiprocessors);
                if splits > 1 {
                    assert!(blocks * splits * 16 * 258 <= 16 << 20, "{blocks}");
                }
            }
        }
    }
}
