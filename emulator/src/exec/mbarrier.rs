//! Barriers in shared memory.
use super::state::{Block, Group, Warp, Worker};
use crate::error::Error;
use crate::program::op::MbarrierOp;

#[derive(Debug)]
pub(crate) struct Phase {}

#[derive(Debug)]
pub(super) enum Next {
    GoOn,
    Poll,
    Wait { mask: u32, address: u32 },
}

pub(super) fn may_go_on(_: &Group, _: &Warp, _: u32) -> bool {
    true
}

pub(super) fn describe(_: &Block, address: u32) -> String {
    format!("waits for the mbarrier at {address}")
}

pub(super) fn execute(
    _: &mut Worker<'_>,
    _: &mut Group,
    _: &mut Warp,
    _: &MbarrierOp,
    _: &[u32],
    _: u32,
    _: u32,
) -> Result<Next, Error> {
    Ok(Next::GoOn)
}
