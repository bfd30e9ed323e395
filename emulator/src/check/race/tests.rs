use super::*;

fn access(slot: u32, lane: usize, is_write: bool) -> Access<()> {
    Access {
        stamp: Stamp::new(5, slot, lane, 9, false),
        group: (),
        is_write,
        limit: 0,
    }
}

#[test]
fn stamps_hold_their_parts() {
    let stamp = Stamp::new(77, 2047, 3, 1_000_000, true).of_lane(31);
    assert_eq!(
        (stamp.time(), stamp.slot(), stamp.lane(), stamp.pc()),
        (77, 2047, 31, 1_000_000)
    );
    assert!(stamp.0 >= Stamp::limit(77) && stamp.0 < Stamp::limit(78));
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
        stamp: Stamp::new(time, 0, 0, 0, false),
        group,
        is_write: true,
        limit,
    };
    let by = |group, slot: u32, limit: u32| Access {
        stamp: Stamp::new(limit, slot, 0, 0, false),
        group,
        is_write: true,
        limit: Stamp::limit(limit),
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
                stamp: Stamp::new(time, slot, lane, 7, is_atomic),
                group,
                is_write,
                limit: Stamp::limit(time.saturating_sub(2)),
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
            if !rows.access_row(offset, bytes, &access(0), ordered) {
                let offsets = std::array::from_fn(|lane| (offset + bytes * lane as u64) as u32);
                let ordered = |_, other, group| ordered(other, group);
                rows.access_lanes(&offsets, u32::MAX, bytes, &access(0), ordered, |lane, conflict| {
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
