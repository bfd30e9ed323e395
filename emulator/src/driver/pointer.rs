//! What is known about an address.

use super::abi::functions;
use super::argument::{In, Out};
use super::context::Context;
use super::memory::{Allocation, Kind, allocation_of};
use super::registry::Handle;
use super::status::Status;
use super::types::Places;

/// Writes the attribute of this number in `CUpointer_attribute` of an address.
fn attribute(place: Out<u8>, attribute: u32, address: u64) -> Result<(), Status> {
    let found = allocation_of(address);
    let Some(allocation) = found else {
        return Err(Status::INVALID_VALUE);
    };
    let is_device = allocation.kind.is_device();
    let is_managed = matches!(allocation.kind, Kind::Managed);
    match attribute {
        1 => place.cast::<Handle<Context>>().set(allocation.context),
        // Managed memory counts as device memory.
        2 => place
            .cast::<u32>()
            .set(if is_device || is_managed { 2 } else { 1 }),
        3 => place.cast::<u64>().set(address),
        4 if is_device => Err(Status::INVALID_VALUE),
        4 => place.cast::<u64>().set(address),
        6 => place.cast::<u32>().set(0),
        7 => place.cast::<u64>().set(allocation.id),
        8 => place.cast::<u32>().set(u32::from(is_managed)),
        9 => place.cast::<i32>().set(allocation.gpu.ordinal as i32),
        10 => place.cast::<u32>().set(0),
        11 => place.cast::<u64>().set(allocation.address),
        12 => place.cast::<usize>().set(allocation.bytes as usize),
        13 => place.cast::<u32>().set(1),
        14 => place.cast::<u64>().set(0),
        15 => place.cast::<u32>().set(0),
        16 => place.cast::<u32>().set(3),
        17 => place.cast::<usize>().set(pool_of(&allocation)),
        18 => place.cast::<usize>().set(allocation.bytes as usize),
        19 => place.cast::<u64>().set(allocation.address),
        20 => place.cast::<u64>().set(allocation.id),
        _ => Err(Status::INVALID_VALUE),
    }
}

fn pool_of(allocation: &Allocation) -> usize {
    match &allocation.kind {
        Kind::Pool(pool) => pool.handle.number(),
        _ => 0,
    }
}

functions! {
    fn cuPointerGetAttribute(place: Out<u8>, number: u32, address: u64) {
        super::gpu::machine()?;
        attribute(place, number, address)
    }

    // Unlike the function above, this one leaves zeros for what is no address of the driver's.
    fn cuPointerGetAttributes(count: u32, numbers: In<u32>, places: Places, address: u64) {
        super::gpu::machine()?;
        let numbers = numbers.list(count as usize)?;
        let places = places.list(count as usize)?;
        for (number, place) in numbers.into_iter().zip(places) {
            match attribute(place, number, address) {
                Ok(()) => {}
                Err(_) if matches!(number, 1 | 3 | 4 | 7 | 11 | 12 | 14 | 17..=20) => {
                    place.cast::<u64>().set(0)?;
                }
                Err(_) if number == 9 => place.cast::<i32>().set(-2)?,
                Err(_) if (1..=20).contains(&number) => place.cast::<u32>().set(0)?,
                Err(status) => return Err(status),
            }
        }
        Ok(())
    }

    // Only `SYNC_MEMOPS` can be set, and copies are always synchronous here.
    fn cuPointerSetAttribute(_value: In<u8>, attribute: u32, address: u64) {
        super::gpu::machine()?;
        if attribute != 6 || allocation_of(address).is_none() {
            return Err(Status::INVALID_VALUE);
        }
        Ok(())
    }
}
