//! Matrix instructions of one warp.

use super::memory::{Site, addresses};
use super::observe;
use super::race;
use super::scatter;
use super::state::{Group, Warp, Worker};
use super::vectorise::{each, vectorised};
use crate::error::Error;
use crate::program::op::{Access, Op, Space};
use crate::tensor::{self, Generation};

pub(super) fn execute(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    op: &Op,
    r: &[u32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    match *op {
        Op::Mma(ref mma) => {
            let (d, s) = r.split_at(mma.destinations());
            let (a, rest) = s.split_at(mma.a_registers());
            let (b, c) = rest.split_at(mma.b_registers());
            let mut rows = [&[0; 32]; 16];
            for (row, &register) in rows.iter_mut().zip(s) {
                *row = warp.registers.r32(register);
            }
            let mut result = [[0; 32]; 4];
            tensor::mma(
                Generation::of(w.launch.options.compute_capability),
                mma,
                &rows[..a.len()],
                &rows[a.len()..a.len() + b.len()],
                &rows[a.len() + b.len()..a.len() + b.len() + c.len()],
                &mut result[..d.len()],
            );
            for (&register, values) in d.iter().zip(&result) {
                warp.registers.write32(register, values, mask);
            }
        }
        Op::LoadMatrix {
            ref access,
            count,
            transposed,
        } => {
            let count = usize::from(count);
            let rows = read_rows(w, g, warp, access, r[count], count, mask, pc)?;
            // Row after row, each of four lanes' words.
            let matrices: &[[u32; 32]; 4] = bytemuck::cast_ref(&rows);
            for (matrix, &register) in matrices.iter().zip(&r[..count]) {
                if !transposed {
                    warp.registers.write32(register, matrix, mask);
                    continue;
                }
                let element = |row: usize, column: usize| {
                    matrix[4 * row + column / 2] >> (16 * (column % 2)) & 0xffff
                };
                let out = each(|lane| {
                    let (group, pair) = (lane / 4, 2 * (lane % 4));
                    element(pair, group) | element(pair + 1, group) << 16
                });
                warp.registers.write32(register, &out, mask);
            }
        }
        Op::StoreMatrix {
            ref access,
            count,
            transposed,
        } => {
            let count = usize::from(count);
            let mut rows = [[0u16; 8]; 32];
            for matrix in 0..count {
                let values = warp.registers.r32(r[1 + matrix]);
                for (lane, &value) in values.iter().enumerate() {
                    let (group, pair) = (lane / 4, 2 * (lane % 4));
                    for (half, element) in
                        [value as u16, (value >> 16) as u16].into_iter().enumerate()
                    {
                        let (row, column) = if transposed {
                            (pair + half, group)
                        } else {
                            (group, pair + half)
                        };
                        rows[8 * matrix + row][column] = element;
                    }
                }
            }
            write_rows(w, g, warp, access, r[0], count, &rows, mask, pc)?;
        }
        Op::MoveMatrix => {
            let values = *warp.registers.r32(r[1]);
            let element = |row: usize, column: usize| {
                values[4 * row + column / 2] >> (16 * (column % 2)) & 0xffff
            };
            let out = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4, 2 * (lane % 4));
                element(column, row) | element(column + 1, row) << 16
            });
            warp.registers.write32(r[0], &out, mask);
        }
        _ => {}
    }
    Ok(())
}

/// The lanes whose addresses count: eight per matrix.
fn row_lanes(count: usize, mask: u32) -> u32 {
    mask & ((1u64 << (8 * count)) - 1) as u32
}

fn space_of(access: &Access, at: &mut [u64; 32]) -> Space {
    if access.space == Space::Generic {
        for address in at {
            *address = address.wrapping_sub(crate::memory::window::SHARED);
        }
    }
    Space::Shared
}

vectorised! {
    fn read_rows(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, access: &Access, base: u32, count: usize, mask: u32, pc: u32) -> Result<[[u32; 4]; 32], Error> {
        let mask = row_lanes(count, mask);
        if mask == u32::MAX
            && let Some(rows) = scatter::load_rows(w, g, warp, access, base, pc)
        {
            return Ok(rows);
        }
        let mut rows = [[0; 4]; 32];
        if mask == 0 {
            return Ok(rows);
        }
        let mut at = addresses(&warp.registers, base, access.wide, access.offset, mask);
        let space = space_of(access, &mut at);
        let site = Site {
            pc,
            mask,
            bytes: 16,
            is_write: false,
            is_atomic: false,
        };
        let found = observe::shared(w, g, warp, &at, site, space)?;
        let shared = &g.blocks[warp.rank].shared;
        for lane in super::memory::lanes(found.mask) {
            let from = found.offsets[lane] as usize;
            if let Some(row) = shared[from..].first_chunk::<16>() {
                rows[lane] = bytemuck::cast(*row);
            }
        }
        Ok(rows)
    }
}

fn write_rows(
    w: &mut Worker<'_>,
    g: &mut Group,
    warp: &mut Warp,
    access: &Access,
    base: u32,
    count: usize,
    rows: &[[u16; 8]; 32],
    mask: u32,
    pc: u32,
) -> Result<(), Error> {
    let mask = row_lanes(count, mask);
    if mask == 0 {
        return Ok(());
    }
    w.changes += 1;
    let mut at = addresses(&warp.registers, base, access.wide, access.offset, mask);
    let space = space_of(access, &mut at);
    let site = Site {
        pc,
        mask,
        bytes: 16,
        is_write: true,
        is_atomic: false,
    };
    let found = observe::shared(w, g, warp, &at, site, space)?;
    if w.launch.checks.race {
        race::race_shared(w, g, warp, &at, &found, site, |_, _, _, _| false);
    }
    for lane in super::memory::lanes(found.mask) {
        let from = found.offsets[lane] as usize;
        for (column, element) in rows[lane].iter().enumerate() {
            super::memory::set_word(
                &mut g.blocks[warp.rank].shared,
                from + 2 * column,
                2,
                u64::from(*element),
            );
        }
    }
    Ok(())
}
