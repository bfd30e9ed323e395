//! `cuMemset` in its forms.

use super::abi::functions;
use super::registry::Handle;
use super::status::Status;
use super::stream::{Stream, stream};
use super::types::FillNodeParams;
use super::work::Work;
use crate::Device;

/// A fill of `height` rows of `width` elements.
#[derive(Clone, Copy)]
pub(super) struct Fill {
    address: u64,
    pitch: usize,
    pattern: [u8; 4],
    pattern_bytes: usize,
    width: usize,
    height: usize,
}

impl Fill {
    /// With elements of 1, 2 or 4 bytes, to whose size the address must be aligned.
    fn new(
        address: u64,
        pitch: usize,
        value: u32,
        bytes: usize,
        width: usize,
        height: usize,
    ) -> Result<Fill, Status> {
        let row = width.checked_mul(bytes).ok_or(Status::INVALID_VALUE)?;
        let is_aligned = matches!(bytes, 1 | 2 | 4)
            && address.is_multiple_of(bytes as u64)
            && (height <= 1 || pitch.is_multiple_of(bytes) && pitch >= row);
        if !is_aligned {
            return Err(Status::INVALID_VALUE);
        }
        Ok(Fill {
            address,
            pitch,
            pattern: value.to_le_bytes(),
            pattern_bytes: bytes,
            width,
            height,
        })
    }

    pub(super) fn of_node(node: &FillNodeParams) -> Result<Fill, Status> {
        let bytes = node.element_bytes as usize;
        Fill::new(
            node.address,
            node.pitch,
            node.value,
            bytes,
            node.width,
            node.height,
        )
    }

    pub(super) fn as_node(&self) -> FillNodeParams {
        FillNodeParams {
            address: self.address,
            pitch: self.pitch,
            value: u32::from_le_bytes(self.pattern),
            element_bytes: self.pattern_bytes as u32,
            width: self.width,
            height: self.height,
        }
    }

    /// Does it.
    pub(super) fn run(&self, device: &Device) -> Result<(), Status> {
        let pattern = &self.pattern[..self.pattern_bytes];
        for row in 0..self.height {
            let address = self.address.wrapping_add((row * self.pitch) as u64);
            device.fill(address, pattern, self.width as u64)?;
        }
        Ok(())
    }
}

/// Fills in the legacy default stream. The host does not wait for it, as on hardware.
fn now(fill: Fill) -> Result<(), Status> {
    Stream::legacy()?.submit(Work::Fill(fill))
}

fn later(handle: Handle<Stream>, fill: Fill) -> Result<(), Status> {
    stream(handle)?.submit(Work::Fill(fill))
}

functions! {
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        now(Fill::new(to, 0, value.into(), 1, count, 1)?)
    }

    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle<Stream>) {
        later(stream, Fill::new(to, 0, value.into(), 1, count, 1)?)
    }

    fn cuMemsetD16_v2(to: u64, value: u16, count: usize) {
        now(Fill::new(to, 0, value.into(), 2, count, 1)?)
    }

    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle<Stream>) {
        later(stream, Fill::new(to, 0, value.into(), 2, count, 1)?)
    }

    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        now(Fill::new(to, 0, value, 4, count, 1)?)
    }

    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle<Stream>) {
        later(stream, Fill::new(to, 0, value, 4, count, 1)?)
    }

    fn cuMemsetD2D8_v2(to: u64, pitch: usize, value: u8, width: usize, height: usize) {
        now(Fill::new(to, pitch, value.into(), 1, width, height)?)
    }

    fn cuMemsetD2D8Async(to: u64, pitch: usize, value: u8, width: usize, height: usize, stream: Handle<Stream>) {
        later(stream, Fill::new(to, pitch, value.into(), 1, width, height)?)
    }

    fn cuMemsetD2D16_v2(to: u64, pitch: usize, value: u16, width: usize, height: usize) {
        now(Fill::new(to, pitch, value.into(), 2, width, height)?)
    }

    fn cuMemsetD2D16Async(to: u64, pitch: usize, value: u16, width: usize, height: usize, stream: Handle<Stream>) {
        later(stream, Fill::new(to, pitch, value.into(), 2, width, height)?)
    }

    fn cuMemsetD2D32_v2(to: u64, pitch: usize, value: u32, width: usize, height: usize) {
        now(Fill::new(to, pitch, value, 4, width, height)?)
    }

    fn cuMemsetD2D32Async(to: u64, pitch: usize, value: u32, width: usize, height: usize, stream: Handle<Stream>) {
        later(stream, Fill::new(to, pitch, value, 4, width, height)?)
    }
}
