//! Loads and stores of what a thread has to itself, its local memory, and of the kernel's parameters.

use super::memory::{Addresses, Site, deliver, lanes, set_word, value, word};
use super::observe;
use super::state::{Group, Warp, Worker};
use crate::check::finding::FindingKind;
use crate::error::Error;
use crate::program::op::Access;

/// A thread's local memory begins at its lane's share.
fn local_place(warp: &Warp, lane: usize, at: u64, bytes: u64) -> Option<usize> {
    let size = warp.local.len() as u64 / 32;
    (at.checked_add(bytes)? <= size).then_some((lane as u64 * size + at) as usize)
}

pub(super) fn load(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    at: &Addresses,
    site: Site,
) -> Result<(), Error> {
    w.counters[site.pc as usize].requests += 1;
    let places = places_of(w, g, warp, a, at, site)?;
    for element in 0..usize::from(a.lanes) {
        let mut values = [0; 32];
        for lane in lanes(site.mask) {
            let Some(start) = places[lane] else {
                continue;
            };
            let place = start + element * usize::from(a.bytes);
            let address = at[lane].wrapping_add(element as u64 * u64::from(a.bytes));
            let bytes = usize::from(a.bytes);
            if w.launch.checks.init && warp.local_defined[place..place + bytes].contains(&0) {
                let what = observe::Memory {
                    space: "local",
                    address,
                    bytes: bytes as u32,
                    allocation: None,
                };
                observe::report(
                    w,
                    g,
                    warp,
                    lane,
                    FindingKind::UninitialisedMemory,
                    what,
                    site.pc,
                );
            }
            values[lane] = word(&warp.local, place, a.bytes);
        }
        deliver(&mut warp.registers, a, r[element], &values, site.mask);
    }
    Ok(())
}

/// Where the lanes' accesses to local memory begin, those that may be made: a vector as a whole.
fn places_of(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    a: &Access,
    at: &Addresses,
    site: Site,
) -> Result<[Option<usize>; 32], Error> {
    let mut places = [None; 32];
    for lane in lanes(site.mask) {
        places[lane] = place_of(w, g, warp, lane, at[lane], a.bytes * a.lanes, site.pc)?;
    }
    Ok(places)
}

/// Where an access to local memory goes, if it is one that may be made.
fn place_of(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    lane: usize,
    address: u64,
    bytes: u8,
    pc: u32,
) -> Result<Option<usize>, Error> {
    let what = observe::Memory {
        space: "local",
        address,
        bytes: u32::from(bytes),
        allocation: None,
    };
    if !address.is_multiple_of(u64::from(bytes)) {
        observe::illegal(w, g, warp, lane, FindingKind::Misaligned, what, pc)?;
        return Ok(None);
    }
    let place = local_place(warp, lane, address, u64::from(bytes));
    if place.is_none() {
        observe::illegal(w, g, warp, lane, FindingKind::OutOfBounds, what, pc)?;
    }
    Ok(place)
}

pub(super) fn store(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    at: &Addresses,
    site: Site,
) -> Result<(), Error> {
    w.counters[site.pc as usize].requests += 1;
    let places = places_of(w, g, warp, a, at, site)?;
    for element in 0..usize::from(a.lanes) {
        for lane in lanes(site.mask) {
            let value = value(&warp.registers, a, r[1 + element], lane);
            let Some(start) = places[lane] else {
                continue;
            };
            let place = start + element * usize::from(a.bytes);
            set_word(&mut warp.local, place, a.bytes, value);
            if w.launch.checks.init {
                warp.local_defined[place..place + usize::from(a.bytes)].fill(1);
            }
        }
    }
    Ok(())
}

/// `ld.param`, by each lane.
pub(super) fn load_parameter(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    a: &Access,
    r: &[u32],
    at: &Addresses,
    site: Site,
) -> Result<(), Error> {
    for element in 0..usize::from(a.lanes) {
        let mut values = [0; 32];
        let add = element as u64 * u64::from(a.bytes);
        // Almost always one parameter for all: lanes that take no part have the address of one that does.
        if at.iter().all(|&address| address == at[0])
            && let Some(value) = w.launch.parameter(at[0].wrapping_add(add), a.bytes)
        {
            deliver(&mut warp.registers, a, r[element], &[value; 32], site.mask);
            continue;
        }
        for lane in lanes(site.mask) {
            let from = at[lane].wrapping_add(add);
            values[lane] = parameter(w, g, warp, lane, from, a, site.pc)?;
        }
        deliver(&mut warp.registers, a, r[element], &values, site.mask);
    }
    Ok(())
}

fn parameter(
    w: &mut Worker<'_>,
    g: &Group,
    warp: &Warp,
    lane: usize,
    at: u64,
    a: &Access,
    pc: u32,
) -> Result<u64, Error> {
    match w.launch.parameter(at, a.bytes) {
        Some(value) => Ok(value),
        None => {
            let what = observe::Memory {
                space: "parameter",
                address: at,
                bytes: u32::from(a.bytes),
                allocation: None,
            };
            observe::illegal(w, g, warp, lane, FindingKind::OutOfBounds, what, pc)?;
            Ok(0)
        }
    }
}
