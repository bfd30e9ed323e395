//! Where each state space lies in the generic address space.

/// Generic addresses of shared memory: the 32-bit shared address is added.
pub(crate) const SHARED: u64 = 1 << 32;
/// Generic addresses of a thread's local memory.
pub(crate) const LOCAL: u64 = 2 << 32;
/// Generic addresses of kernel parameters.
pub(crate) const PARAM: u64 = 3 << 32;
/// The first device address. It looks like a device pointer and cannot be confused with a window.
pub(crate) const GLOBAL: u64 = 0x7000_0000_0000;
/// Device addresses end here.
pub(crate) const GLOBAL_END: u64 = 0x7fff_ffff_0000;

/// The space of a generic address, and the address within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Global(u64),
    Shared(u64),
    Local(u64),
    Param(u64),
}

/// Which window a generic address is in.
#[inline(always)]
pub(crate) fn place(address: u64) -> Place {
    match address >> 32 {
        1 => Place::Shared(address & 0xffff_ffff),
        2 => Place::Local(address & 0xffff_ffff),
        3 => Place::Param(address & 0xffff_ffff),
        _ => Place::Global(address),
    }
}
