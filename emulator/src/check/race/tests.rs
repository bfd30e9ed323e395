use super::*;

fn access(slot: u32, lane: usize, is_write: bool) -> Access<()> {
    Access {
        stamp: Stamp::new(5, slot, lane, 9, None),
        group: (),
        is_write,
        limit: 0,
        home: Home::default(),
    }
}

#[test]
fn stamps_hold_their_parts() {
    let stamp = Stamp::new(77, 4095, 3, 200_000, Some(Scope::Device)).of_lane(31);
    assert_eq!(
        (stamp.time(), stamp.slot(), stamp.lane(), stamp.pc()),
        (77, 4095, 31, 200_000)
    );
    assert!(stamp.0 >= Stamp::limit(77) && stamp.0 < Stamp::limit(78));
}

#[test]
fn atomics_are_atomic_within_their_scopes() {
    let home = |first| Home {
        first,
        warps: 2,
        all: 4,
    };
    let by = |group, slot, scope| Access {
        stamp: Stamp::new(5, slot, 0, 9, Some(scope)),
        group,
        is_write: true,
        limit: 0,
        home: home(slot / 2 * 2),
    };
    for (first, second, races) in [
        (by(0, 0, Scope::Block), by(0, 1, Scope::Block), false),
        (by(0, 0, Scope::Block), by(0, 2, Scope::Block), true),
        (by(0, 0, Scope::Block), by(0, 2, Scope::Device), true),
        (by(0, 0, Scope::Cluster), by(0, 2, Scope::Device), false),
        (by(0, 0, Scope::Cluster), by(1, 0, Scope::Cluster), true),
        (by(0, 0, Scope::Device), by(1, 0, Scope::Block), true),
        (by(0, 0, Scope::Device), by(1, 3, Scope::Device), false),
    ] {
        let mut shadow = Shadow::<u32>::new(4);
        let never = |_: Stamp, _: u32| false;
        assert_eq!(shadow.access(0, 4, &first, never), None);
        let found = shadow.access(0, 4, &second, never);
        assert_eq!(found.is_some(), races, "{first:?} {second:?}");
    }
}

#[test]
fn ordinary_accesses_stay_behind_atomics() {
    let never = |_: Stamp, ()| false;
    let atomic = |slot| Access {
        stamp: Stamp::new(5, slot, 0, 9, Some(Scope::Device)),
        ..access(slot, 0, true)
    };
    for is_write in [true, false] {
        let mut shadow = SharedShadow::new(4);
        assert_eq!(shadow.access(0, 4, &access(0, 0, is_write), never), None);
        assert_eq!(shadow.access(0, 4, &atomic(0), never), None);
        assert_eq!(shadow.access(0, 4, &atomic(0), never), None);
        // Atomic with the atomics, and not with what came before them.
        let found = shadow.access(0, 4, &atomic(1), never).unwrap();
        assert_eq!(found.other, access(0, 0, is_write).stamp);
    }
}

#[test]
fn conflicts_by_bytes() {
    let mut shadow = SharedShadow::new(64);
    let never = |_: Stamp, ()| false;
    assert_eq!(shadow.access(0, 4, &access(0, 0, true), never), None);
    assert_eq!(shadow.access(0, 4, &access(0, 0, false), never), None);
    let conflict = shadow.access(0, 4, &access(1, 0, false), never).unwrap();
    assert!(conflict.other_wrote && conflict.other.slot() == 0);
    // Two halves of a word are two places.
    assert_eq!(shadow.access(8, 2, &access(0, 1, true), never), None);
    assert_eq!(shadow.access(10, 2, &access(0, 2, true), never), None);
    assert!(shadow.access(8, 4, &access(0, 2, true), never).is_some());
    assert_eq!(shadow.access(13, 1, &access(0, 2, true), never), None);
    assert_eq!(shadow.access(12, 1, &access(0, 3, true), never), None);
    assert_eq!(shadow.access(8, 4, &access(0, 5, true), |_, ()| true), None);
}

#[test]
fn the_reads_that_matter_are_kept() {
    let mut shadow = SharedShadow::new(4);
    let never = |_: Stamp, ()| false;
    for lane in 0..5 {
        assert_eq!(shadow.access(0, 4, &access(0, lane, false), never), None);
    }
    // Ordered behind all but the first, and behind all but the last.
    for spared in [0, 4] {
        let mut other = SharedShadow::new(4);
        for lane in 0..5 {
            other.access(0, 4, &access(0, lane, false), never);
        }
        let found = other.access(0, 4, &access(1, 0, true), |stamp, ()| {
            stamp.lane() != spared
        });
        assert_eq!(found.unwrap().other.lane(), spared);
    }
    assert!(
        !shadow
            .access(0, 4, &access(0, 0, true), never)
            .unwrap()
            .other_wrote
    );
}

#[test]
fn old_accesses_of_the_group_are_past() {
    let mut shadow = GlobalShadow::default();
    let never = |_: Stamp, _: u32| false;
    let at = |group, time, limit| Access {
        stamp: Stamp::new(time, 0, 0, 0, None),
        group,
        is_write: true,
        limit,
        home: Home::default(),
    };
    let by = |group, slot: u32, limit: u32| Access {
        stamp: Stamp::new(limit, slot, 0, 0, None),
        group,
        is_write: true,
        limit: Stamp::limit(limit),
        home: Home::default(),
    };
    assert_eq!(shadow.access(4096, 4, &at(1, 5, 0), never), None);
    assert_eq!(shadow.access(4096, 4, &by(1, 3, 6), never), None);
    assert_eq!(
        shadow.access(4096, 4, &by(2, 0, 60), never).unwrap().group,
        1
    );
}

use proptest::prelude::*;

/// An access of a warp: time, slot, first word, words of a lane as a power of two, whether it writes, whether it is atomic,
/// and either all lanes side by side or one lane alone.
type Step = (u32, u32, u64, u32, bool, bool, Option<usize>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        1u32..6,
        0u32..3,
        0u64..6,
        0u32..3,
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.2, 0usize..32),
    );
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn rows_are_as_their_lanes(steps in steps(), groups in prop::collection::vec(0u32..2, 40)) {
        let (mut rows, mut lanes) = (Shadow::<u32>::new(1024), Shadow::<u32>::new(1024));
        for (&(time, slot, segment, words, is_write, is_atomic, lane), &group) in steps.iter().zip(&groups) {
            let bytes = 4u64 << words;
            let offset = segment * SEGMENT;
            let access = |lane: usize| Access {
                stamp: Stamp::new(time, slot, lane, 7, is_atomic.then_some(Scope::Device)),
                group,
                is_write,
                limit: Stamp::limit(time.saturating_sub(2)),
                home: Home::default(),
            };
            // Of other warps what is even is known.
            let ordered = |other: Stamp, _: u32| other.slot() != slot && other.time().is_multiple_of(2);
            let each = |shadow: &mut Shadow<u32>, lane: usize| {
                shadow.access(offset + bytes * lane as u64, bytes, &access(lane), ordered)
            };
            if let Some(lane) = lane {
                prop_assert_eq!(each(&mut rows, lane), each(&mut lanes, lane));
                continue;
            }
            let mut found = [None; 32];
            if !rows.access_row(offset, (bytes, bytes), &access(0), ordered) {
                let at = |lane: usize| offset + bytes * lane as u64;
                let ordered = |_, other, group| ordered(other, group);
                rows.access_lanes(at, u32::MAX, bytes, &access(0), ordered, |lane, conflict| {
                    found[lane] = Some(conflict);
                });
            }
            for (lane, found) in found.into_iter().enumerate() {
                prop_assert_eq!(found, each(&mut lanes, lane));
            }
        }
        for index in 0..rows.segments.len() {
            for offset in (index as u64 * SEGMENT..).step_by(4).take(32) {
                prop_assert_eq!(rows.last_write(offset), lanes.last_write(offset));
            }
        }
    }
}

/// First word, words as a power of two, and slot of an access by lane 0 of a warp, whether it writes, or a row from there.
fn parts() -> impl Strategy<Value = Vec<(u64, u32, u32, bool, bool)>> {
    let at = prop_oneof![(0u64..16).prop_map(|i| 4 * i + 1), 0u64..64];
    let step = (
        at,
        0u32..3,
        0u32..3,
        any::<bool>(),
        prop::bool::weighted(0.3),
    );
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// Cells for parts of granules find what a cell for every word finds.
    #[test]
    fn parts_are_as_words(steps in parts()) {
        let (mut parts, mut words) = (SharedShadow::new(1024), SharedShadow::new(1024));
        words.refine(2);
        for (word, size, slot, is_write, is_row) in steps {
            let bytes = 4u64 << size;
            let ordered = |other: Stamp, ()| other.slot() + 1 == slot;
            if is_row {
                // A word of every lane, in order or in strides.
                let offset = word / 32 * SEGMENT + word % (1 << size) * 4;
                let at = |lane: usize| offset + bytes * lane as u64;
                let access = |lane: usize| access(slot, lane, is_write);
                let mut found = [None; 32];
                if !parts.access_row(offset, (bytes, 4), &access(0), ordered) {
                    let ordered = |_, other, group| ordered(other, group);
                    parts.access_lanes(at, u32::MAX, 4, &access(0), ordered, |lane, conflict| {
                        found[lane] = Some(conflict);
                    });
                }
                for (lane, found) in found.into_iter().enumerate() {
                    let other = words.access(at(lane), 4, &access(lane), ordered);
                    prop_assert_eq!(found, other);
                }
                continue;
            }
            let offset = (word * 4) & !(bytes - 1);
            let access = access(slot, 0, is_write);
            let found = parts.access(offset, bytes, &access, ordered);
            prop_assert_eq!(found, words.access(offset, bytes, &access, ordered));
            for offset in (0..1024).step_by(4) {
                prop_assert_eq!(parts.last_write(offset), words.last_write(offset));
            }
        }
    }
}

/// An access of shared memory: of a range by an asynchronous operation, in words; of a row of words from a segment on; or of one
/// lane's words.
#[derive(Debug, Clone)]
enum Kind {
    Range { first: u64, words: u64 },
    Row { segment: u64, shift: u32 },
    Lane { first: u64, shift: u32 },
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        // Chunks of 16 bytes, as most are, and words.
        4 => (0u64..48, 1u64..16).prop_map(|(first, count)| Kind::Range { first: 4 * first, words: 4 * count }),
        1 => (0u64..192, 1u64..60).prop_map(|(first, words)| Kind::Range { first, words }),
        2 => (0u64..6, 0u32..2).prop_map(|(segment, shift)| Kind::Row { segment, shift }),
        1 => (0u64..240, 0u32..3).prop_map(|(first, shift)| Kind::Lane { first, shift }),
    ]
}

proptest! {
    /// What is found of a range, and what is kept of it, is as if each of its words were accessed alone.
    #[test]
    fn ranges_are_as_their_words(
        steps in prop::collection::vec((kinds(), 1u32..8, 0u32..4, any::<bool>()), 1..40),
        bytes in prop::bool::weighted(0.1),
    ) {
        let (mut ranges, mut words) = (SharedShadow::new(1024), SharedShadow::new(1024));
        words.refine(2);
        if bytes {
            ranges.refine(0);
        }
        for (kind, time, slot, is_write) in steps {
            // Of other warps what is even is known; one lane, as which asynchronous operations go, knows more.
            let ordered = |other: Stamp, ()| other.slot() != slot && other.time().is_multiple_of(2);
            let by_lane = |other: Stamp, ()| ordered(other, ()) || other.lane() == 3;
            let access = |stamp: Stamp| Access {
                stamp,
                group: (),
                is_write,
                limit: Stamp::limit(time.saturating_sub(3)),
                home: Home::default(),
            };
            let of_lane = |lane: usize| access(Stamp::new(time, slot, lane, 7, None));
            match kind {
                Kind::Range { first, words: count } => {
                    let own = access(Stamp::asynchronous(time, slot + 4, 3, 9, None));
                    let mut outcome = Outcome::of_fresh(&own);
                    let mut found = Vec::new();
                    // In two parts, with what is remembered between them.
                    let (start, end) = (4 * first, 4 * (first + count));
                    let middle = start + 4 * (count / 2);
                    for part in [start..middle, middle..end] {
                        ranges.access_range(part, &own, &mut outcome, &by_lane, |granule, last, conflict| {
                            found.extend(granule.step_by(4).map(|at| (at, last, conflict)));
                        });
                    }
                    let mut expected = Vec::new();
                    for at in (start..end).step_by(4) {
                        let last = words.last_write(at);
                        expected.push((at, last, words.access(at, 4, &own, by_lane)));
                    }
                    prop_assert_eq!(found, expected);
                }
                Kind::Row { segment, shift } => {
                    let size = 4 << shift;
                    let at = |lane: usize| segment * SEGMENT + size * lane as u64;
                    let mut found = [None; 32];
                    if !ranges.access_row(at(0), (size, size), &of_lane(0), ordered) {
                        let ordered = |_, other, group| ordered(other, group);
                        ranges.access_lanes(at, u32::MAX, size, &of_lane(0), ordered, |lane, conflict| {
                            found[lane] = Some(conflict);
                        });
                    }
                    for (lane, found) in found.into_iter().enumerate() {
                        let other = words.access(at(lane), size, &of_lane(lane), ordered);
                        prop_assert_eq!(found, other);
                    }
                }
                Kind::Lane { first, shift } => {
                    let size = 4 << shift;
                    let at = (4 * first) & !(size - 1);
                    let found = ranges.access(at, size, &of_lane(1), ordered);
                    prop_assert_eq!(found, words.access(at, size, &of_lane(1), ordered));
                }
            }
            for offset in (0..1024).step_by(4) {
                prop_assert_eq!(ranges.last_write(offset), words.last_write(offset));
            }
        }
    }
}

/// What is remembered of one moment of a warp is not taken for another's.
#[test]
fn memos_tell_accesses_apart() {
    let memo = Memo::<(), 8>::default();
    let stamp = |time, slot, lane| Stamp::new(time, slot, lane, 0, None);
    for round in 0..2 {
        for time in 1..40 {
            for slot in 0..40 {
                let is_before = |other: Stamp| (other.time() + other.slot()).is_multiple_of(3);
                let other = stamp(time, slot, 5);
                let found = memo.is_before(other, (), || is_before(other));
                assert_eq!(found, is_before(other), "{round} {time} {slot}");
            }
        }
    }
    let memo = Memo::<(), 8>::default();
    for lane in (0..32).chain(0..32) {
        let other = stamp(9, 2, lane);
        let found = memo.is_before_of_lane(other, (), || lane % 2 == 0);
        assert_eq!(found, lane % 2 == 0);
    }
}
