//! Matrix instructions of four warps.
use super::state::{Group, Warp, Worker};
use crate::error::Error;
use crate::program::op::{Inst, WgmmaOp};

#[derive(Debug, Default)]
pub(crate) struct Queue {}

impl Queue {
    pub(super) fn in_flight(&self) -> bool {
        false
    }
}

pub(super) fn check_registers(
    _: &mut Worker<'_>,
    _: &Group,
    _: &Warp,
    _: &Inst,
    _: &[u32],
    _: u32,
    _: u32,
) {
}

pub(super) fn execute(
    _: &mut Worker<'_>,
    _: &mut Group,
    _: &mut Warp,
    _: &WgmmaOp,
    _: &[u32],
    _: u32,
    _: u32,
) -> Result<(), Error> {
    Ok(())
}
