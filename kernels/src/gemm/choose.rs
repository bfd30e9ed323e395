//! Which kernel computes a product, in which tiles, and with its columns split or not.
//!
//! [`choose`] knows the shape and the device, and nothing else: the same product always runs the same way.

/// How a product is computed on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// One row of `x`: `rows` rows of the weight at a time for every `warps` warps.
    Gemv { rows: u32, warps: u32 },
    /// Few rows.
    Skinny { width: Width, split: Split },
    /// Many.
    Mma { tile: Tile, split: Split },
}

/// The columns, cut into `splits` pieces of `k_per_split` (the last may be shorter).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    pub(super) splits: u32,
    pub(super) k_per_split: u32,
}

/// An instance of `gemm_skinny`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Width {
    /// Tiles of 8 rows of `x`.
    pub(super) token_tiles: u32,
    /// Warps that have 16 rows of the weight each.
    pub(super) warps_n: u32,
    /// Warps that take turns along the columns.
    pub(super) warps_k: u32,
}

/// An instance of `gemm_mma`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(super) name: &'static str,
    /// The name when the columns are split.
    pub(super) split_name: &'static str,
    pub(super) m: u32,
    pub(super) n: u32,
    pub(super) k: u32,
    pub(super) warps_m: u32,
    pub(super) warps_n: u32,
    pub(super) stages: u32,
}

/// Up to this many rows of `x` the weights are streamed: `gemm_skinny` has tiles for four times 8.
pub(super) const MOST_SKINNY_ROWS: usize = 32;

/// For 8, 16, 24 and 32 rows of `x`. Every block reads all of `x` (from the caches) and `16 * warps_n` rows of the weight, so wide
/// blocks come with many rows of `x`: there is never more to read of `x` than half as much as of the weight.
pub(super) const WIDTHS: [Width; 4] = [
    width(1, 1, 8),
    width(2, 2, 4),
    width(3, 4, 2),
    width(4, 4, 2),
];

/// The larger the tile, the fewer bytes for a multiplication. Warps have 64x64 of the large ones, the most that registers allow
/// (128 sums, and 64 registers of two sets of fragments). Three stages suffice the large ones: 128x128x32 needs 512 cycles of the
/// tensor cores of an A100 for a stage, and two stages cover what memory takes; and 48 KB let two blocks share a multiprocessor
/// of 100 KB (8.6, 8.9). The small ones are for few rows, when the weights come from memory: a stage more is on its way.
pub(super) const TILES: [Tile; 4] = [
    Tile {
        name: "gemm_mma_128x256",
        split_name: "gemm_mma_128x256_split_k",
        m: 128,
        n: 256,
        k: 32,
        warps_m: 2,
        warps_n: 4,
        stages: 3,
    },
    Tile {
        name: "gemm_mma_128x128",
        split_name: "gemm_mma_128x128_split_k",
        m: 128,
        n: 128,
        k: 32,
        warps_m: 2,
        warps_n: 2,
        stages: 3,
    },
    Tile {
        name: "gemm_mma_128x64",
        split_name: "gemm_mma_128x64_split_k",
        m: 128,
        n: 64,
        k: 32,
        warps_m: 2,
        warps_n: 2,
        stages: 4,
    },
    PLAIN_TILE,
];

/// The tile that has an instance for rows which do not begin at multiples of 16 bytes, too.
pub(super) const PLAIN_TILE: Tile = Tile {
    name: "gemm_mma_64x64",
    split_name: "gemm_mma_64x64_split_k",
    m: 64,
    n: 64,
    k: 64,
    warps_m: 2,
    warps_n: 2,
    stages: 4,
};

/// Columns that a warp of `gemm_skinny` takes at a time.
pub(super) const SKINNY_STEP: u32 = 64;
/// Columns that a warp of `gemv` takes at a time.
const GEMV_STEP: usize = 256;
/// Warps of a block of `gemv`.
pub(super) const GEMV_WARPS: u32 = 8;

/// Partial sums that fit into the workspace.
const MOST_PARTIALS: usize = 16 << 20;

/// Cycles (about 2 µs) from the end of a kernel to the first results of the one behind it: what a split costs at least.
const SECOND_KERNEL: f64 = 3000.0;
/// Cycles to start a block, fill its first stages and write its tile, beside the bytes of the tile.
const BLOCK_START: f64 = 1500.0;
/// The most bytes a cycle that a multiprocessor takes from the second-level cache.
const L2_PORT: f64 = 64.0;
/// So many times its share does a multiprocessor read when others are idle: on an H100, 32 blocks take 1.63 times as long as 128 for
/// the same bytes, 61 % of the bandwidth with 24 % of the multiprocessors.
const MEMORY_REACH: f64 = 2.5;
/// Bytes a cycle of shared memory.
const SHARED: f64 = 128.0;

/// The plan for `[m, k] @ [n, k]^T` on a device of so many multiprocessors and this compute capability.
///
/// One row is a sum for each row of the weight; up to 32 rows stream the weights past tensor cores that have more than enough time.
/// For more rows, every tile and split is rated by [`cycles`], and the cheapest is taken.
pub(super) fn choose(
    m: usize,
    n: usize,
    k: usize,
    multiprocessors: usize,
    capability: [u32; 2],
) -> Plan {
    if m <= 1 {
        gemv(n, k, multiprocessors)
    } else if m <= MOST_SKINNY_ROWS {
        skinny([m, n, k], multiprocessors, capability)
    } else {
        tiled([m, n, k], multiprocessors, capability)
    }
}

/// Pieces that columns are cut into.
const PIECES: [usize; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// Every plan that computes this product: what a tuner tries. That of [`choose`] is among them.
pub(crate) fn variants(m: usize, n: usize, k: usize) -> Vec<Plan> {
    let aligned = k.is_multiple_of(8);
    let mut plans = Vec::new();
    let fits = |split: Split, least: u32| {
        split.splits == 1
            || (split.k_per_split >= least && split.splits as usize * m * n <= MOST_PARTIALS)
    };
    if m == 1 {
        for rows in [1, 2] {
            let warps = [1, 2, 4, GEMV_WARPS].into_iter();
            plans.extend(warps.map(|warps| Plan::Gemv { rows, warps }));
        }
    }
    if (1..=MOST_SKINNY_ROWS).contains(&m) {
        let width = if aligned {
            WIDTHS[m.div_ceil(8) - 1]
        } else {
            WIDTHS[3]
        };
        let granule = SKINNY_STEP * width.warps_k;
        let splits = PIECES.map(|pieces| cut(k, pieces, granule)).into_iter();
        let splits = splits.filter(|&split| fits(split, 4 * granule));
        plans.extend(splits.map(|split| Plan::Skinny { width, split }));
    }
    for tile in TILES
        .into_iter()
        .filter(|&tile| aligned || tile == PLAIN_TILE)
    {
        let splits = PIECES.map(|pieces| cut(k, pieces, tile.k)).into_iter();
        let splits = splits.filter(|&split| fits(split, 256));
        plans.extend(splits.map(|split| Plan::Mma { tile, split }));
    }
    // Columns that are few cannot be cut into as many pieces as asked: the same plan comes up again.
    let mut known: Vec<Plan> = Vec::new();
    for plan in plans {
        if !known.contains(&plan) {
            known.push(plan);
        }
    }
    known
}

impl Plan {
    /// What a table of plans calls it: `gemm_mma_128x64 / 4`.
    pub(crate) fn name(self) -> String {
        let (name, splits) = match self {
            Plan::Gemv { rows, warps } => return format!("gemv {rows} rows {warps} warps"),
            Plan::Skinny { width, split } => (
                format!("gemm_skinny {}", 8 * width.token_tiles),
                split.splits,
            ),
            Plan::Mma { tile, split } => (tile.name.to_owned(), split.splits),
        };
        match splits {
            1 => name,
            _ => format!("{name} / {splits}"),
        }
    }
}

/// The cheapest tile and split, whatever the number of rows.
pub(super) fn tiled([m, n, k]: [usize; 3], multiprocessors: usize, capability: [u32; 2]) -> Plan {
    // Rows that begin anywhere are for the odd model: one instance of each kernel copes with them.
    let aligned = k.is_multiple_of(8);
    let rates = Rates::of(capability);
    let mut best = (
        f64::INFINITY,
        Plan::Mma {
            tile: PLAIN_TILE,
            split: cut(k, 1, PLAIN_TILE.k),
        },
    );
    for tile in TILES
        .into_iter()
        .filter(|&tile| aligned || tile == PLAIN_TILE)
    {
        for pieces in PIECES {
            let split = cut(k, pieces, tile.k);
            if split.splits > 1
                && (split.k_per_split < 256 || split.splits as usize * m * n > MOST_PARTIALS)
            {
                break;
            }
            let cycles = cycles(tile, split, [m, n, k], multiprocessors, rates);
            if cycles < best.0 {
                best = (cycles, Plan::Mma { tile, split });
            }
        }
    }
    best.1
}

/// Warps share a row only as far as that makes enough of them: 16 for a multiprocessor, with 4 KiB on their way each, read as fast as
/// memory gives. A warp has at least two steps.
pub(super) fn gemv(n: usize, k: usize, multiprocessors: usize) -> Plan {
    let rows = if n <= 2 * multiprocessors { 1 } else { 2 };
    let mut warps = 1;
    while warps < GEMV_WARPS
        && n.div_ceil(rows) * (warps as usize) < 16 * multiprocessors
        && k >= 4 * GEMV_STEP * warps as usize
    {
        warps *= 2;
    }
    Plan::Gemv {
        rows: rows as u32,
        warps,
    }
}

/// Columns are split as far as saved time of reading outweighs the second kernel. A warp has at least four steps.
pub(super) fn skinny([m, n, k]: [usize; 3], multiprocessors: usize, capability: [u32; 2]) -> Plan {
    let rates = Rates::of(capability);
    let aligned = k.is_multiple_of(8);
    let width = if aligned {
        WIDTHS[m.div_ceil(8) - 1]
    } else {
        WIDTHS[3]
    };
    let blocks = n.div_ceil(16 * width.warps_n as usize);
    let granule = SKINNY_STEP * width.warps_k;
    let mut best = (f64::INFINITY, cut(k, 1, granule));
    for pieces in PIECES {
        let split = cut(k, pieces, granule);
        if split.splits > 1
            && (split.k_per_split < 4 * granule || split.splits as usize * m * n > MOST_PARTIALS)
        {
            break;
        }
        let blocks = blocks * split.splits as usize;
        let cycles = reading(2 * n * k, blocks, multiprocessors, rates)
            + adding(m, n, split, multiprocessors, rates);
        if cycles < best.0 {
            best = (cycles, split);
        }
    }
    Plan::Skinny {
        width,
        split: best.1,
    }
}

/// `k` columns in about `pieces` pieces of whole granules, none of them empty.
pub(super) fn cut(k: usize, pieces: usize, granule: u32) -> Split {
    let k_per_split = k.div_ceil(pieces).next_multiple_of(granule as usize).max(1);
    Split {
        splits: k.div_ceil(k_per_split).max(1) as u32,
        k_per_split: k_per_split as u32,
    }
}

/// What a multiprocessor does in a cycle, and what it holds.
#[derive(Debug, Clone, Copy)]
struct Rates {
    /// Multiply-adds of the tensor cores through mma.sync, 16-bit with sums in float. On 9.0 that is 65 % of what wgmma reaches.
    multiply_adds: f64,
    /// Bytes from memory when all multiprocessors read: 3.35 TB/s / 132 / 1.7 GHz on an H100.
    memory: f64,
    /// Bytes from the second-level cache when all read: 28 to 40 on an H100, 28 on an A100.
    l2: f64,
    /// Shared memory.
    shared_bytes: u32,
}

impl Rates {
    fn of([major, minor]: [u32; 2]) -> Rates {
        let rates = |multiply_adds, memory, l2, shared_kib: u32| Rates {
            multiply_adds,
            memory,
            l2,
            shared_bytes: shared_kib << 10,
        };
        match (major, minor) {
            (8, 0) => rates(1024.0, 13.0, 28.0, 164),
            (9, _) => rates(1340.0, 15.0, 32.0, 228),
            (10, _) => rates(1024.0, 29.0, 32.0, 228),
            // Graphics processors: 1 TB/s / 128 / 2.5 GHz on an RTX 4090.
            _ => rates(512.0, 4.0, 16.0, 100),
        }
    }
}

/// Cycles that a product takes with this tile: rounds of blocks, each as slow as the slowest of tensor cores, shared memory and
/// second-level cache; or the time to read everything once.
fn cycles(
    tile: Tile,
    split: Split,
    [m, n, k]: [usize; 3],
    multiprocessors: usize,
    rates: Rates,
) -> f64 {
    let [tile_m, tile_n] = [f64::from(tile.m), f64::from(tile.n)];
    let blocks = m.div_ceil(tile.m as usize) * n.div_ceil(tile.n as usize) * split.splits as usize;
    let rounds = blocks.div_ceil(multiprocessors);
    let active = (blocks as f64 / multiprocessors as f64).min(1.0);
    // For one column of the tile.
    let tensor = tile_m * tile_n / rates.multiply_adds;
    let fragments = 2.0 * (tile_m * f64::from(tile.warps_n) + tile_n * f64::from(tile.warps_m));
    let fill = 2.0 * (tile_m + tile_n);
    let column = tensor
        .max((fragments + fill) / SHARED)
        .max(fill / (rates.l2 / active).min(L2_PORT));
    let block = f64::from(split.k_per_split.min(k as u32)) * column;
    // One block starts or finishes while another that shares its multiprocessor multiplies.
    let finish = BLOCK_START + tile_m * tile_n * 2.0 / rates.l2;
    (rounds as f64 * block).max(reading(2 * (m + n) * k, blocks, multiprocessors, rates))
        + rounds.div_ceil(tile.residents(rates.shared_bytes)) as f64 * finish
        + adding(m, n, split, multiprocessors, rates)
}

impl Tile {
    /// Threads of a block.
    pub(super) fn threads(&self) -> u32 {
        32 * self.warps_m * self.warps_n
    }

    /// Shared memory of a block.
    pub(super) fn shared_bytes(&self) -> u32 {
        self.stages * (self.m + self.n) * self.k * 2
    }

    /// Blocks that a multiprocessor holds: each takes 1 KiB of shared memory more than it asks for, and of the 65536 registers one
    /// for each sum and about 80 for each thread.
    fn residents(&self, shared_bytes: u32) -> usize {
        let by_shared = shared_bytes / (self.shared_bytes() + 1024);
        let by_registers = 65_536 / (self.m * self.n + 80 * self.threads());
        by_shared.min(by_registers).max(1) as usize
    }
}

/// Cycles to read so many bytes from memory.
fn reading(bytes: usize, blocks: usize, multiprocessors: usize, rates: Rates) -> f64 {
    let active = (MEMORY_REACH * blocks as f64).min(multiprocessors as f64);
    bytes as f64 / (rates.memory * active)
}

/// Cycles to write, read and add up the partial sums of a split.
fn adding(m: usize, n: usize, split: Split, multiprocessors: usize, rates: Rates) -> f64 {
    if split.splits == 1 {
        return 0.0;
    }
    let bytes = m * n * (8 * split.splits as usize + 2);
    SECOND_KERNEL + bytes as f64 / (rates.l2 * multiprocessors as f64)
}

const fn width(token_tiles: u32, warps_n: u32, warps_k: u32) -> Width {
    Width {
        token_tiles,
        warps_n,
        warps_k,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const H100: (usize, [u32; 2]) = (132, [9, 0]);
    const A100: (usize, [u32; 2]) = (108, [8, 0]);
    const RTX_4090: (usize, [u32; 2]) = (128, [8, 9]);

    /// `gemm_mma_64x64 / 2`: the kernel, and the splits if more than one.
    fn plan(
        m: usize,
        n: usize,
        k: usize,
        (multiprocessors, capability): (usize, [u32; 2]),
    ) -> String {
        let (name, splits) = match choose(m, n, k, multiprocessors, capability) {
            Plan::Gemv { rows, warps } => (format!("gemv {rows} rows, {warps} warps"), 1),
            Plan::Skinny { width, split } => (
                format!("gemm_skinny {}", 8 * width.token_tiles),
                split.splits,
            ),
            Plan::Mma { tile, split } => (tile.name.to_owned(), split.splits),
        };
        if splits == 1 {
            name
        } else {
            format!("{name} / {splits}")
        }
    }

    #[test]
    fn shapes_of_models() {
        let check = |[m, n, k]: [usize; 3], device, expected: &str| {
            assert_eq!(plan(m, n, k, device), expected, "[{m}, {k}] @ [{n}, {k}]");
        };
        // One row: warps share rows where there are few.
        check([1, 151_936, 896], H100, "gemv 2 rows, 1 warps");
        check([1, 4096, 4096], H100, "gemv 2 rows, 2 warps");
        check([1, 576, 7168], H100, "gemv 2 rows, 8 warps");
        check([1, 8, 4096], H100, "gemv 1 rows, 8 warps");
        // Few rows: a split where a few blocks have much to read.
        check([4, 4096, 4096], H100, "gemm_skinny 8");
        check([16, 4096, 14_336], H100, "gemm_skinny 16");
        check([32, 896, 4864], H100, "gemm_skinny 32 / 4");
        // Small tiles and splits until all multiprocessors have something to read, then the largest that fill them.
        check([64, 4096, 4096], H100, "gemm_mma_64x64 / 2");
        check([64, 151_936, 896], H100, "gemm_mma_64x64");
        check([256, 6144, 4096], H100, "gemm_mma_128x128");
        check([512, 1152, 896], H100, "gemm_mma_128x64");
        check([8192, 4096, 4096], H100, "gemm_mma_128x256");
        check([2048, 4096, 4096], A100, "gemm_mma_128x128");
        // Tensor cores are the bound there at any size, and two blocks of 128x128 start while others multiply.
        check([8192, 4096, 4096], RTX_4090, "gemm_mma_128x128");
        // Rows that begin anywhere.
        check([2000, 4096, 4095], H100, "gemm_mma_64x64");
        check([2, 4096, 4095], H100, "gemm_skinny 32");
    }

    proptest! {
        #[test]
        fn the_choice_is_among_the_variants(m in 1_usize..300, n in 1_usize..5000, k in 1_usize..5000) {
            let variants = variants(m, n, k);
            for (multiprocessors, capability) in [H100, A100, RTX_4090] {
                let plan = choose(m, n, k, multiprocessors, capability);
                prop_assert!(variants.contains(&plan), "{plan:?}");
            }
            // A name stands for one plan.
            let names: std::collections::HashSet<String> = variants.iter().map(|plan| plan.name()).collect();
            prop_assert_eq!(names.len(), variants.len());
        }

        #[test]
        fn every_column_belongs_to_one_piece(
            m in 2_usize..5000,
            n in 1_usize..200_000,
            k in 1_usize..30_000,
            device in prop::sample::select(vec![H100, A100, RTX_4090]),
        ) {
            let (split, granule, aligned) = match choose(m, n, k, device.0, device.1) {
                Plan::Gemv { .. } => return Err(TestCaseError::fail("one row")),
                Plan::Skinny { width, split } => {
                    prop_assert!(m <= 8 * width.token_tiles as usize);
                    (split, SKINNY_STEP, width != WIDTHS[3])
                }
                Plan::Mma { tile, split } => (split, tile.k, tile != PLAIN_TILE),
            };
            let per_split = split.k_per_split as usize;
            prop_assert!(per_split.is_multiple_of(granule as usize));
            prop_assert!((split.splits as usize - 1) * per_split < k && split.splits as usize * per_split >= k);
            prop_assert!(split.splits == 1 || split.splits as usize * m * n <= MOST_PARTIALS);
            prop_assert!(k.is_multiple_of(8) || !aligned, "an instance that needs whole vectors");
        }
    }
}
