//! Special registers and the windows of the generic address space.

use super::lanes::map1;
use super::observe::RANK_SHIFT;
use super::registers::Registers;
use super::state::{Group, Warp, Worker, coordinates};
use crate::memory::window;
use crate::program::op::{Space, Special, Width};

pub(super) fn read(
    w: &Worker<'_>,
    g: &Group,
    warp: &mut Warp,
    register: Special,
    width: Width,
    row: u32,
    mask: u32,
) {
    let launch = w.launch;
    let block = &g.blocks[warp.rank];
    let index = coordinates(block.index, launch.grid);
    let cluster: [u32; 3] = std::array::from_fn(|axis| index[axis] / launch.cluster[axis]);
    let within: [u32; 3] = std::array::from_fn(|axis| index[axis] % launch.cluster[axis]);
    // There is no time here: the clocks count instructions of the warp, so that they move on and the same way each time.
    let time = warp.instructions;
    let lane_value = |lane: u32| -> u64 {
        let below = (1u64 << lane) - 1;
        let value = match register {
            Special::Tid(axis) => {
                coordinates(warp.index * 32 + lane, launch.block)[usize::from(axis)]
            }
            Special::Ntid(axis) => launch.block[usize::from(axis)],
            Special::Ctaid(axis) => index[usize::from(axis)],
            Special::Nctaid(axis) => launch.grid[usize::from(axis)],
            Special::ClusterId(axis) => cluster[usize::from(axis)],
            Special::NclusterId(axis) => {
                launch.grid[usize::from(axis)] / launch.cluster[usize::from(axis)]
            }
            Special::ClusterCtaid(axis) => within[usize::from(axis)],
            Special::ClusterNctaid(axis) => launch.cluster[usize::from(axis)],
            Special::ClusterCtarank => warp.rank as u32,
            Special::ClusterNctarank => launch.cluster_size(),
            Special::IsExplicitCluster => u32::from(launch.has_clusters),
            Special::Zero => 0,
            Special::Lane => lane,
            Special::Warp => warp.index,
            Special::Nwarp => launch.warps_per_block(),
            Special::Sm => block.index % launch.options.multiprocessors.max(1),
            Special::Nsm => launch.options.multiprocessors,
            Special::Grid => 1,
            Special::LaneMaskEq => 1 << lane,
            Special::LaneMaskLt => below as u32,
            Special::LaneMaskLe => (below << 1 | 1) as u32,
            Special::LaneMaskGt => !(below << 1 | 1) as u32,
            Special::LaneMaskGe => !below as u32,
            Special::DynamicShared => launch.dynamic_shared,
            // In units of what a block can be given.
            Special::TotalShared => {
                (launch.kernel.dynamic_shared_base + launch.dynamic_shared).next_multiple_of(128)
            }
            Special::Clock64 | Special::GlobalTimer | Special::Clock => return time,
            Special::ClockHi | Special::GlobalTimerHi => (time >> 32) as u32,
        };
        u64::from(value)
    };
    let values: [u64; 32] = std::array::from_fn(|lane| lane_value(lane as u32));
    if width == Width::B64 {
        warp.registers.write64(row, &values, mask);
    } else {
        let keep = if width == Width::B16 {
            0xffff
        } else {
            u64::from(u32::MAX)
        };
        warp.registers
            .write32(row, &values.map(|value| (value & keep) as u32), mask);
    }
}

fn base(space: Space) -> u64 {
    match space {
        Space::Shared | Space::Cluster => window::SHARED,
        Space::Local => window::LOCAL,
        Space::Param => window::PARAM,
        Space::Generic | Space::Global | Space::Const => 0,
    }
}

/// `cvta`.
pub(super) fn window(
    registers: &mut Registers,
    space: Space,
    to_generic: bool,
    r: &[u32],
    mask: u32,
) {
    let base = base(space);
    map1(registers, r, mask, |a: u64| {
        if to_generic {
            a.wrapping_add(base)
        } else {
            a.wrapping_sub(base)
        }
    });
}

/// `isspacep`.
pub(super) fn is_space(registers: &mut Registers, space: Space, r: &[u32], mask: u32) {
    let addresses = *registers.r64(r[1]);
    let mut result = 0;
    for (lane, &address) in addresses.iter().enumerate() {
        let holds = match window::place(address) {
            window::Place::Global(_) => matches!(space, Space::Global | Space::Const),
            window::Place::Shared(_) => matches!(space, Space::Shared | Space::Cluster),
            window::Place::Local(_) => space == Space::Local,
            window::Place::Param(_) => space == Space::Param,
        };
        result |= u32::from(holds) << lane;
    }
    registers.write_predicate(r[0], result, mask);
}

/// `mapa`: the address of a place of shared memory in another block of the cluster.
pub(super) fn map_address(
    registers: &mut Registers,
    wide: bool,
    generic: bool,
    r: &[u32],
    mask: u32,
) {
    let ranks = *registers.r32(r[2]);
    let below = (1 << RANK_SHIFT) - 1;
    let base = if generic { window::SHARED } else { 0 };
    let map = |address: u64, rank: u32| {
        base | u64::from(rank.wrapping_add(1)) << RANK_SHIFT | address & below
    };
    if wide {
        let from = *registers.r64(r[1]);
        registers.write64(
            r[0],
            &std::array::from_fn(|lane| map(from[lane], ranks[lane])),
            mask,
        );
    } else {
        let from = *registers.r32(r[1]);
        registers.write32(
            r[0],
            &std::array::from_fn(|lane| map(u64::from(from[lane]), ranks[lane]) as u32),
            mask,
        );
    }
}

/// `getctarank`.
pub(super) fn cluster_rank(warp: &mut Warp, wide: bool, generic: bool, r: &[u32], mask: u32) {
    let own = warp.rank as u32;
    let rank = |address: u64| {
        let address = if generic {
            address.wrapping_sub(window::SHARED)
        } else {
            address
        };
        ((address >> RANK_SHIFT) as u32)
            .checked_sub(1)
            .unwrap_or(own)
    };
    let out = std::array::from_fn(|lane| rank(warp.registers.lane(r[1], lane, wide)));
    warp.registers.write32(r[0], &out, mask);
}
