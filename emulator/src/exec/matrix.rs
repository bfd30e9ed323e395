//! Matrix instructions of one warp.

use super::memory::{Site, addresses};
use super::observe;
use super::race;
use super::scatter;
use super::shuffle::transpose_halves_of_words;
use super::state::{Group, Warp, Worker};
use super::vectorise::vectorised;
use crate::error::Error;
use crate::memory::cells::Quad;
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
            for (matrix, &register) in matrices(&rows).iter().zip(&r[..count]) {
                let rows = turned(matrix, transposed);
                warp.registers
                    .write32(register, &bytemuck::cast(rows), mask);
            }
        }
        Op::StoreMatrix {
            ref access,
            count,
            transposed,
        } => {
            let count = usize::from(count);
            let mut rows = [[[0; 4]; 8]; 4];
            for (rows, &register) in rows.iter_mut().zip(&r[1..=count]) {
                *rows = turned(bytemuck::cast_ref(warp.registers.r32(register)), transposed);
            }
            let rows: [Quad; 32] = bytemuck::cast(rows);
            write_rows(w, g, warp, access, r[0], count, &rows, mask, pc)?;
        }
        Op::MoveMatrix => {
            let rows = turned(bytemuck::cast_ref(warp.registers.r32(r[1])), true);
            warp.registers.write32(r[0], &bytemuck::cast(rows), mask);
        }
        _ => {}
    }
    Ok(())
}

/// A matrix of 8 × 8 elements of 16 bits: rows of 16 bytes. In a register of a warp they follow one another, four lanes each.
type Matrix = [Quad; 8];

fn matrices(rows: &[Quad; 32]) -> &[Matrix; 4] {
    bytemuck::cast_ref(rows)
}

/// The matrix, or its rows against its columns.
#[inline(always)]
fn turned(matrix: &Matrix, transposed: bool) -> Matrix {
    if transposed {
        transpose_halves_of_words(matrix)
    } else {
        *matrix
    }
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
    fn read_rows(w: &mut Worker<'_>, g: &mut Group, warp: &mut Warp, access: &Access, base: u32, count: usize, mask: u32, pc: u32) -> Result<[Quad; 32], Error> {
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
    rows: &[Quad; 32],
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
        if let Some(place) = g.blocks[warp.rank].shared[from..].first_chunk_mut::<16>() {
            *place = bytemuck::cast(rows[lane]);
        }
    }
    Ok(())
}
