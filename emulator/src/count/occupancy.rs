//! How many blocks a multiprocessor holds at once.
//!
//! The rules are those of NVIDIA's occupancy calculator (`cuda_occupancy.h` of the CUDA toolkit, and the calculator of Nsight
//! Compute): registers are given to warps in units of 256, from four parts of the register file; shared memory to blocks in units
//! of 128 bytes, with 1 KiB more for the system. The capacities are those of the CUDA programming guide's table of compute
//! capabilities.

/// What a multiprocessor has, and what the GPU around it usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Threads.
    pub threads: u32,
    /// Blocks.
    pub blocks: u32,
    /// 32-bit registers; a block may use them all.
    pub registers: u32,
    /// Shared memory.
    pub shared_bytes: u32,
    /// Shared memory that a block may opt in to.
    pub shared_bytes_per_block: u32,
    /// Shared memory that the system takes for itself in each block.
    pub reserved_shared_bytes: u32,
    /// Multiprocessors of the GPU that is known for this compute capability: A100, RTX 3090, RTX 4090, H100.
    pub multiprocessors: u32,
    /// Its L2 cache.
    pub l2_bytes: u32,
    /// The width of its memory's bus.
    pub memory_bus_bits: u32,
}

impl Capacity {
    /// That of a compute capability: 8.0, 8.6, 8.9 or 9.0.
    pub fn of(compute_capability: (u32, u32)) -> Option<Capacity> {
        let ampere = Capacity {
            threads: 2048,
            blocks: 32,
            registers: 65_536,
            shared_bytes: 164 << 10,
            shared_bytes_per_block: 163 << 10,
            reserved_shared_bytes: 1024,
            multiprocessors: 108,
            l2_bytes: 40 << 20,
            memory_bus_bits: 5120,
        };
        match compute_capability {
            (8, 0) => Some(ampere),
            (8, 6) => Some(Capacity {
                threads: 1536,
                blocks: 16,
                shared_bytes: 100 << 10,
                shared_bytes_per_block: 99 << 10,
                multiprocessors: 82,
                l2_bytes: 6 << 20,
                memory_bus_bits: 384,
                ..ampere
            }),
            (8, 9) => Some(Capacity {
                threads: 1536,
                blocks: 24,
                shared_bytes: 100 << 10,
                shared_bytes_per_block: 99 << 10,
                multiprocessors: 128,
                l2_bytes: 72 << 20,
                memory_bus_bits: 384,
                ..ampere
            }),
            (9, 0) => Some(Capacity {
                shared_bytes: 228 << 10,
                shared_bytes_per_block: 227 << 10,
                multiprocessors: 132,
                l2_bytes: 50 << 20,
                ..ampere
            }),
            _ => None,
        }
    }
}

/// How many blocks of a kind a multiprocessor holds, and what it is that keeps it from holding more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Occupancy {
    /// Blocks: the least of the limits.
    pub blocks: u32,
    /// Blocks by their number alone.
    pub limit_blocks: u32,
    /// Blocks by threads.
    pub limit_threads: u32,
    /// Blocks by registers; `None` where they are not known.
    pub limit_registers: Option<u32>,
    /// Blocks by shared memory.
    pub limit_shared: u32,
    /// Warps, of the most that a multiprocessor holds, between 0 and 1.
    pub warps_fraction: f64,
}

const WARP: u32 = 32;
/// Parts of a multiprocessor, each with a quarter of the registers.
const PARTS: u32 = 4;
/// Registers are given out in this many.
const REGISTER_UNIT: u32 = 256;
/// Shared memory is given out in this many bytes.
const SHARED_UNIT: u32 = 128;
const MAX_THREADS_PER_BLOCK: u32 = 1024;

/// Blocks of `threads` threads with `registers` registers each and `shared_bytes` of shared memory per block, static and dynamic.
///
/// PTX has virtual registers, of which only an assembler knows how many physical ones they take: with `None` registers are no
/// limit, which is right for kernels of up to 32 registers (64 on devices of 1536 threads: 40) and says too much for others.
/// `None` is the answer for a compute capability that is not emulated.
pub fn occupancy(
    compute_capability: (u32, u32),
    threads: u32,
    registers: Option<u32>,
    shared_bytes: u32,
) -> Option<Occupancy> {
    let capacity = Capacity::of(compute_capability)?;
    let warps = threads.div_ceil(WARP);
    let fits = (1..=MAX_THREADS_PER_BLOCK).contains(&threads);
    let limit_threads = if fits {
        capacity.threads / WARP / warps
    } else {
        0
    };
    let limit_registers = registers
        .filter(|registers| *registers > 0)
        .map(|registers| {
            let per_warp = (registers * WARP).next_multiple_of(REGISTER_UNIT);
            let warps_that_fit = capacity.registers / PARTS / per_warp * PARTS;
            warps_that_fit.checked_div(warps).unwrap_or(0)
        });
    let limit_shared = if shared_bytes > capacity.shared_bytes_per_block {
        0
    } else {
        let taken = (shared_bytes + capacity.reserved_shared_bytes).next_multiple_of(SHARED_UNIT);
        capacity.shared_bytes / taken
    };
    let blocks = capacity
        .blocks
        .min(limit_threads)
        .min(limit_registers.unwrap_or(u32::MAX))
        .min(limit_shared);
    Some(Occupancy {
        blocks,
        limit_blocks: capacity.blocks,
        limit_threads,
        limit_registers,
        limit_shared,
        warps_fraction: f64::from(blocks * warps) / f64::from(capacity.threads / WARP),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values worked out by hand from the rules above.
    #[test]
    fn blocks_by_each_limit() {
        let check = |capability, threads, registers, shared, expected| {
            let found = occupancy(capability, threads, registers, shared).unwrap();
            assert_eq!(found.blocks, expected, "{found:?}");
        };
        // By threads: 2048 / 256, 1536 / 256, 1536 / 1024.
        check((9, 0), 256, Some(32), 0, 8);
        check((8, 6), 256, Some(32), 0, 6);
        check((8, 9), 1024, None, 0, 1);
        // By blocks: one warp each.
        check((8, 0), 32, Some(16), 0, 32);
        check((8, 6), 32, Some(16), 0, 16);
        check((8, 9), 32, Some(16), 0, 24);
        // By registers: 168 · 32 = 5376 per warp; 16384 / 5376 = 3 warps in each part, 12 in all.
        check((9, 0), 128, Some(168), 0, 3);
        check((9, 0), 384, Some(168), 0, 1);
        check((9, 0), 416, Some(168), 0, 0);
        // 33 registers take 1280 per warp: 12 in each part, 48 warps, 6 blocks of 8.
        check((8, 0), 256, Some(33), 0, 6);
        // By shared memory: 48 KiB + 1 KiB; 228 / 49 = 4, 164 / 49 = 3, 100 / 49 = 2.
        check((9, 0), 128, None, 48 << 10, 4);
        check((8, 0), 128, None, 48 << 10, 3);
        check((8, 6), 128, None, 48 << 10, 2);
        // All of it, and more than that.
        check((9, 0), 128, None, 232_448, 1);
        check((9, 0), 128, None, 232_449, 0);
        // One byte takes 1152 with the system's: 228 · 1024 / 1152 = 202, more than there can be blocks.
        check((9, 0), 64, None, 1, 32);
        // More threads than a block may have.
        check((9, 0), 1025, None, 0, 0);
    }

    #[test]
    fn the_fraction_is_of_warps() {
        let found = occupancy((9, 0), 384, Some(168), 0).unwrap();
        assert!((found.warps_fraction - 12.0 / 64.0).abs() < 1e-12);
        assert_eq!(occupancy((7, 0), 32, None, 0), None);
    }
}
