//! Where each state space lies in the generic address space.

/// Generic addresses of shared memory: the 32-bit shared address is added.
pub(crate) const SHARED: u64 = 1 << 32;
/// Generic addresses of a thread's local memory.
pub(crate) const LOCAL: u64 = 2 << 32;
/// Generic addresses of kernel parameters.
pub(crate) const PARAM: u64 = 3 << 32;
/// The first device address. It cannot be confused with a window, nor with the host's memory, which kernels may use at its own
/// addresses: systems put programs, heaps and mappings either far below or above 0x5500_0000_0000.
pub(crate) const GLOBAL: u64 = 0x1000_0000_0000;
/// Device addresses end here.
pub(crate) const GLOBAL_END: u64 = 0x5000_0000_0000;

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
