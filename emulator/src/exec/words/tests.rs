//! Every way that words go between memory and registers against lane by lane, element by element.

use proptest::prelude::*;

use super::*;
use crate::memory::cells::{Plain, PlainMut};
use crate::memory::global::GlobalMemory;
use crate::program::Code;
use crate::program::op::{Order, Scope, Space};

/// Bytes of the memory.
const BYTES: usize = 2048;
/// Rows of registers; each element takes two.
const ROWS: u32 = 8;

fn access(bytes: u8, lanes: u8) -> Access {
    Access {
        space: Space::Global,
        wide: true,
        bytes,
        lanes,
        signed: false,
        width: if bytes == 8 { Width::B64 } else { Width::B32 },
        order: Order::Weak,
        scope: Scope::Block,
        offset: 0,
    }
}

fn registers(seed: u64) -> Registers {
    let code = Code {
        rows: ROWS,
        ..Code::default()
    };
    let mut registers = Registers::new(&code);
    for (row, lanes) in registers.all_mut().iter_mut().enumerate() {
        for (lane, value) in lanes.iter_mut().enumerate() {
            let number = seed.wrapping_add((32 * row + lane) as u64);
            *value = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
        }
    }
    registers
}

/// Where the lanes are, in units of an access, up to the end of the memory: side by side, evenly apart, or anywhere.
fn units() -> impl Strategy<Value = ([u64; 32], bool)> {
    prop_oneof![
        (0u64..97).prop_map(|first| (std::array::from_fn(|lane| first + lane as u64), true)),
        (0u64..4, 0u64..4).prop_map(|(first, step)| {
            (
                std::array::from_fn(|lane| first + step * lane as u64),
                false,
            )
        }),
        prop::array::uniform32(0u64..128).prop_map(|units| (units, false)),
    ]
}

/// What a lane's element is in memory, and in a register.
fn place(a: &Access, at: u64, element: usize) -> std::ops::Range<usize> {
    let from = at as usize + element * usize::from(a.bytes);
    from..from + usize::from(a.bytes)
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

proptest! {
    #[test]
    fn words_are_moved_as_lane_by_lane(
        form in prop::sample::select(vec![(4u8, 1u8), (4, 2), (4, 4), (8, 1), (8, 2)]),
        (units, is_row) in units(),
        mask in prop_oneof![Just(u32::MAX), any::<u32>()],
        seed in any::<u64>(),
    ) {
        let a = access(form.0, form.1);
        let size = u64::from(a.bytes * a.lanes);
        let at = units.map(|unit| unit * size);
        let r = [0, 2, 4, 6];

        let mut memory = GlobalMemory::new();
        memory.add_pool(1 << 20);
        let base = memory.allocate(0, BYTES as u64, 1).unwrap();
        let bytes: Vec<u8> = (0..BYTES as u64)
            .map(|at| (seed.wrapping_add(at).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect();
        memory.write(base, &bytes).unwrap();
        let allocation = memory.find(base, &mut 0).unwrap();

        // Loads.
        let mut expected = registers(seed);
        for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
            for element in 0..usize::from(a.lanes) {
                let value = number(&bytes[place(&a, at[lane], element)]);
                if a.bytes == 8 {
                    expected.r64_mut(r[element])[lane] = value;
                } else {
                    expected.r32_mut(r[element])[lane] = value as u32;
                }
            }
        }
        let mut check = |found: &mut Registers, what: &str| {
            prop_assert_eq!(found.all_mut(), expected.all_mut(), "{}", what);
            Ok(())
        };
        macro_rules! loads {
            ($memory:expr, $what:expr) => {{
                let mut found = registers(seed);
                // SAFETY: the accesses were made to be within the memory and aligned.
                unsafe { load(&mut found, $memory, &a, &r, mask, |lane| at[lane]) };
                check(&mut found, $what)?;
                if is_row {
                    let mut found = registers(seed);
                    // SAFETY: as above; a row is so many whole lines.
                    let line = |line: usize| unsafe { $memory.line(at[0] + 64 * line as u64) };
                    match size {
                        4 => put::<4>(&mut found, &a, &r, mask, line),
                        8 => put::<8>(&mut found, &a, &r, mask, line),
                        _ => put::<16>(&mut found, &a, &r, mask, line),
                    }
                    check(&mut found, concat!($what, ", by lines"))?;
                }
            }};
        }
        loads!(Plain::new(&bytes), "shared memory");
        loads!(allocation.cells(), "cells");
        if let Some(vectors) = allocation.vectors() {
            loads!(vectors, "vectors");
        }

        // Stores, which all lanes take part in.
        let from = registers(seed);
        let mut expected = bytes.clone();
        for lane in 0..32 {
            for element in 0..usize::from(a.lanes) {
                let value = from.lane(r[element], lane, a.bytes == 8).to_le_bytes();
                expected[place(&a, at[lane], element)].copy_from_slice(&value[..usize::from(a.bytes)]);
            }
        }
        macro_rules! stores {
            ($memory:expr) => {{
                // SAFETY: as of the loads.
                unsafe { store(&from, $memory, &a, &r, |lane| at[lane]) };
            }};
        }
        macro_rules! lines {
            ($memory:expr) => {{
                // SAFETY: as of the loads.
                let line = |line: usize, words| unsafe { $memory.set_line(at[0] + 64 * line as u64, words) };
                match size {
                    4 => take::<4>(&from, &a, &r, line),
                    8 => take::<8>(&from, &a, &r, line),
                    _ => take::<16>(&from, &a, &r, line),
                }
            }};
        }
        let mut found = bytes.clone();
        stores!(PlainMut::new(&mut found));
        prop_assert_eq!(&found, &expected, "shared memory");
        if is_row {
            found.copy_from_slice(&bytes);
            lines!(PlainMut::new(&mut found));
            prop_assert_eq!(&found, &expected, "shared memory, by lines");
        }
        for by_lines in [false, true] {
            for has_vectors in [false, true] {
                memory.write(base, &bytes).unwrap();
                match allocation.vectors().filter(|_| has_vectors) {
                    _ if by_lines && !is_row => continue,
                    Some(vectors) if by_lines => lines!(vectors),
                    Some(vectors) => stores!(vectors),
                    None if by_lines => lines!(allocation.cells()),
                    None => stores!(allocation.cells()),
                }
                allocation.read(0, &mut found);
                prop_assert_eq!(&found, &expected, "lines {}, vectors {}", by_lines, has_vectors);
            }
        }
    }
}
