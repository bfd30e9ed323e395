//! Copies: every form of `cuMemcpy` comes down to rows of bytes between two places.

use super::abi::functions;
use super::argument::In;
use super::context::Context;
use super::registry::Handle;
use super::status::Status;
use super::stream::{Stream, refuse_while_capturing, stream};
use super::types::{Copy2D, Copy3D, Side2D, Side3D};
use super::work::Work;
use crate::Device;

/// A copy of `depth` slices of `height` rows of `width` bytes.
#[derive(Clone, Copy)]
pub(super) struct Copy {
    from: Place,
    to: Place,
    width: usize,
    height: usize,
    depth: usize,
}

/// Where rows begin, and how far apart rows and slices are.
#[derive(Clone, Copy)]
struct Place {
    side: Side,
    pitch: usize,
    slice: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Host(usize),
    Device(u64),
    /// Whichever it is: addresses tell.
    Any(u64),
}

impl Side {
    fn resolved(self, device: &Device) -> Side {
        match self {
            Side::Any(address) if device.allocation_of(address).is_some() => Side::Device(address),
            Side::Any(address) => Side::Host(address as usize),
            other => other,
        }
    }

    fn offset(self, bytes: usize) -> Side {
        match self {
            Side::Host(address) => Side::Host(address.wrapping_add(bytes)),
            Side::Device(address) => Side::Device(address.wrapping_add(bytes as u64)),
            Side::Any(address) => Side::Any(address.wrapping_add(bytes as u64)),
        }
    }
}

impl Copy {
    fn of_bytes(to: Side, from: Side, bytes: usize) -> Copy {
        let place = |side| Place {
            side,
            pitch: bytes,
            slice: bytes,
        };
        Copy {
            from: place(from),
            to: place(to),
            width: bytes,
            height: 1,
            depth: 1,
        }
    }

    fn of_2d(copy: &Copy2D) -> Result<Copy, Status> {
        Ok(Copy {
            from: place_2d(&copy.from, copy.width)?,
            to: place_2d(&copy.to, copy.width)?,
            width: copy.width,
            height: copy.height,
            depth: 1,
        })
    }

    pub(super) fn of_3d(copy: &Copy3D) -> Result<Copy, Status> {
        Ok(Copy {
            from: place_3d(&copy.from, copy.width, copy.height)?,
            to: place_3d(&copy.to, copy.width, copy.height)?,
            width: copy.width,
            height: copy.height,
            depth: copy.depth,
        })
    }

    /// Does it.
    pub(super) fn run(&self, device: &Device) -> Result<(), Status> {
        let (from, to) = (
            self.from.side.resolved(device),
            self.to.side.resolved(device),
        );
        if self.width == 0 || self.height == 0 || self.depth == 0 {
            return Ok(());
        }
        if from == Side::Host(0) || to == Side::Host(0) {
            return Err(Status::INVALID_VALUE);
        }
        for slice in 0..self.depth {
            for row in 0..self.height {
                let from = from.offset(slice * self.from.slice + row * self.from.pitch);
                let to = to.offset(slice * self.to.slice + row * self.to.pitch);
                copy_row(device, to, from, self.width)?;
            }
        }
        Ok(())
    }
}

fn copy_row(device: &Device, to: Side, from: Side, bytes: usize) -> Result<(), Status> {
    match (to, from) {
        (Side::Device(to), Side::Device(from)) => device.copy(to, from, bytes as u64)?,
        (Side::Device(to), Side::Host(from)) => {
            // SAFETY: the caller of the copy promised that so many bytes are there to be read until the copy is done.
            let data = unsafe {
                std::slice::from_raw_parts(std::ptr::with_exposed_provenance(from), bytes)
            };
            device.write(to, data)?;
        }
        (Side::Host(to), Side::Device(from)) => {
            // SAFETY: the caller promised so many bytes to be written, and does not use them until the copy is done.
            let data = unsafe {
                std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(to), bytes)
            };
            device.read(from, data)?;
        }
        (Side::Host(to), Side::Host(from)) => {
            let to = std::ptr::with_exposed_provenance_mut::<u8>(to);
            let from = std::ptr::with_exposed_provenance::<u8>(from);
            // SAFETY: both as above; the two may overlap.
            unsafe { std::ptr::copy(from, to, bytes) }
        }
        // `resolved` leaves none of these.
        (Side::Any(_), _) | (_, Side::Any(_)) => return Err(Status::INVALID_VALUE),
    }
    Ok(())
}

/// The side that `CUmemorytype` names: host, device, or unified; arrays are not supported.
fn side(memory_type: u32, host: usize, device: u64) -> Result<Side, Status> {
    match memory_type {
        1 => Ok(Side::Host(host)),
        2 => Ok(Side::Device(device)),
        3 => Err(Status::NOT_SUPPORTED),
        4 => Ok(Side::Any(device)),
        _ => Err(Status::INVALID_VALUE),
    }
}

fn place_2d(own: &Side2D, width: usize) -> Result<Place, Status> {
    let pitch = if own.pitch == 0 { width } else { own.pitch };
    if own.x_bytes.saturating_add(width) > pitch {
        return Err(Status::INVALID_VALUE);
    }
    let side = side(own.memory_type, own.host, own.device)?;
    let offset = own.y.checked_mul(pitch).ok_or(Status::INVALID_VALUE)?;
    Ok(Place {
        side: side.offset(offset.wrapping_add(own.x_bytes)),
        pitch,
        slice: 0,
    })
}

fn place_3d(own: &Side3D, width: usize, height: usize) -> Result<Place, Status> {
    let pitch = if own.pitch == 0 { width } else { own.pitch };
    let rows = if own.height == 0 { height } else { own.height };
    if own.x_bytes.saturating_add(width) > pitch || own.y.saturating_add(height) > rows {
        return Err(Status::INVALID_VALUE);
    }
    let slice = pitch.checked_mul(rows).ok_or(Status::INVALID_VALUE)?;
    let side = side(own.memory_type, own.host, own.device)?;
    let offset = own.z.checked_mul(slice).ok_or(Status::INVALID_VALUE)?;
    Ok(Place {
        side: side.offset(offset.wrapping_add(own.y * pitch).wrapping_add(own.x_bytes)),
        pitch,
        slice,
    })
}

/// Copies in the legacy default stream, and waits.
fn now(copy: Copy) -> Result<(), Status> {
    let stream = Stream::legacy()?;
    refuse_while_capturing(&stream.context)?;
    stream.submit(Work::Copy(copy))?;
    stream.context.wait()
}

/// Copies in the order of a stream.
fn later(handle: Handle<Stream>, copy: Copy) -> Result<(), Status> {
    stream(handle)?.submit(Work::Copy(copy))
}

fn bytes(to: Side, from: Side, bytes: usize) -> Copy {
    Copy::of_bytes(to, from, bytes)
}

functions! {
    fn cuMemcpy(to: u64, from: u64, count: usize) {
        now(bytes(Side::Any(to), Side::Any(from), count))
    }

    fn cuMemcpyAsync(to: u64, from: u64, count: usize, stream: Handle<Stream>) {
        later(stream, bytes(Side::Any(to), Side::Any(from), count))
    }

    fn cuMemcpyHtoD_v2(to: u64, from: usize, count: usize) {
        now(bytes(Side::Device(to), Side::Host(from), count))
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: usize, count: usize, stream: Handle<Stream>) {
        later(stream, bytes(Side::Device(to), Side::Host(from), count))
    }

    fn cuMemcpyDtoH_v2(to: usize, from: u64, count: usize) {
        now(bytes(Side::Host(to), Side::Device(from), count))
    }

    fn cuMemcpyDtoHAsync_v2(to: usize, from: u64, count: usize, stream: Handle<Stream>) {
        later(stream, bytes(Side::Host(to), Side::Device(from), count))
    }

    fn cuMemcpyDtoD_v2(to: u64, from: u64, count: usize) {
        now(bytes(Side::Device(to), Side::Device(from), count))
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, count: usize, stream: Handle<Stream>) {
        later(stream, bytes(Side::Device(to), Side::Device(from), count))
    }

    // Devices share one address space, and the copy needs no access to be enabled, as on hardware.
    fn cuMemcpyPeer(
        to: u64, to_context: Handle<Context>, from: u64, from_context: Handle<Context>, count: usize,
    ) {
        to_context.get()?;
        from_context.get()?;
        now(bytes(Side::Device(to), Side::Device(from), count))
    }

    fn cuMemcpyPeerAsync(
        to: u64, to_context: Handle<Context>, from: u64, from_context: Handle<Context>, count: usize,
        stream: Handle<Stream>,
    ) {
        to_context.get()?;
        from_context.get()?;
        later(stream, bytes(Side::Device(to), Side::Device(from), count))
    }

    fn cuMemcpy2D_v2(copy: In<Copy2D>) {
        now(Copy::of_2d(&copy.get()?)?)
    }

    fn cuMemcpy2DUnaligned_v2(copy: In<Copy2D>) {
        now(Copy::of_2d(&copy.get()?)?)
    }

    fn cuMemcpy2DAsync_v2(copy: In<Copy2D>, stream: Handle<Stream>) {
        later(stream, Copy::of_2d(&copy.get()?)?)
    }

    fn cuMemcpy3D_v2(copy: In<Copy3D>) {
        now(Copy::of_3d(&copy.get()?)?)
    }

    fn cuMemcpy3DAsync_v2(copy: In<Copy3D>, stream: Handle<Stream>) {
        later(stream, Copy::of_3d(&copy.get()?)?)
    }
}
