//! The catalogue's entry: see [`crate::cuda::catalog`].

use stepscope_device::driver::Arguments as _;

use super::{AttentionPrefill, HEAD_DIMS, SOURCE, Tile, geometry, launch};
use crate::attention_prefill::cost;
use crate::cuda::catalog::{
    Counted, Dimension, Family, Plan, Promises, Shape, Target, beyond_fewest, dimension,
    distinct_sectors, whole_sectors,
};
use crate::cuda::{Cuda, CudaIndices, CudaKvPool};
use crate::{AttentionBatch, Backend as _, Error, QkvLayout};

pub(crate) const HEADS: Dimension = dimension("heads", 8, "query heads");
pub(crate) const KV_HEADS: Dimension =
    dimension("kv_heads", 2, "key and value heads; divides heads");
pub(crate) const HEAD_DIM: Dimension = dimension(
    "head_dim",
    128,
    "elements of a head: 64, 80, 96, 128 or 256",
);
pub(crate) const KV_LEN: Dimension = dimension(
    "kv_len",
    512,
    "positions of each request, those of this step included",
);
pub(crate) const PAGE_SIZE: Dimension = dimension("page_size", 16, "slots of a page");

pub(crate) static FAMILIES: &[Family] = &[Family {
    name: "attention_prefill",
    operation: "attention_prefill",
    summary: "causal attention of the rows of a ragged batch over the paged pool",
    source: &SOURCE,
    arguments: AttentionPrefill::PARAMETERS,
    dimensions: &[
        dimension("requests", 2, "requests of the batch, all alike"),
        HEADS,
        KV_HEADS,
        HEAD_DIM,
        dimension("query_len", 128, "rows of each request"),
        KV_LEN,
        PAGE_SIZE,
    ],
    instructions: &["HMMA", "LDSM", "LDGSTS"],
    promises: Promises::ALL,
    instances: |element| {
        let tiles = HEAD_DIMS.map(|head_dim| [1, 2].map(|m_tiles| Tile { head_dim, m_tiles }));
        let tiles = tiles.into_iter().flatten();
        tiles
            .filter(|tile| tile.is_made())
            .map(|tile| tile.expression(element))
            .collect()
    },
    plan,
    run: |cuda, shape| {
        let problem = Problem::of(shape)?;
        let tile = tile(&problem, shape, cuda.target());
        problem.run(cuda, |batch, pool, qkv, out| {
            launch(cuda, tile, qkv, problem.layout, batch, pool.layer(0)?, out)?;
            Ok(())
        })
    },
}];

/// A batch of requests that are all alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Problem {
    pub(crate) requests: usize,
    pub(crate) layout: QkvLayout,
    pub(crate) query_len: usize,
    pub(crate) kv_len: usize,
    pub(crate) page_size: usize,
}

impl Problem {
    /// That of a shape; one row each where a shape has no `query_len`.
    pub(crate) fn of(shape: &Shape) -> Result<Problem, Error> {
        let has_rows = shape.values().iter().any(|(name, _)| *name == "query_len");
        let problem = Problem {
            requests: shape.get("requests"),
            layout: QkvLayout {
                heads: shape.get("heads"),
                kv_heads: shape.get("kv_heads"),
                head_dim: shape.get("head_dim"),
            },
            query_len: if has_rows { shape.get("query_len") } else { 1 },
            kv_len: shape.get("kv_len"),
            page_size: shape.get("page_size"),
        };
        let QkvLayout {
            heads,
            kv_heads,
            head_dim,
        } = problem.layout;
        if !HEAD_DIMS.contains(&head_dim) {
            return Err(Error::shape(format!(
                "head_dim={head_dim}: the attention kernels have {HEAD_DIMS:?}"
            )));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::shape(format!(
                "heads={heads} is no multiple of kv_heads={kv_heads}"
            )));
        }
        if problem.query_len > problem.kv_len {
            return Err(Error::shape(format!(
                "query_len={} is more than kv_len={}",
                problem.query_len, problem.kv_len
            )));
        }
        Ok(problem)
    }

    pub(crate) fn pages(&self) -> usize {
        self.kv_len.div_ceil(self.page_size)
    }

    /// Bytes of queries, keys, values, and of what says where they are.
    pub(crate) fn read_bytes(&self) -> u64 {
        let tokens = self.requests * self.query_len;
        let width = self.layout.width();
        let queries =
            distinct_sectors((0..tokens).map(|t| (2 * t * width, 2 * self.layout.q_width())));
        // Each request has whole pages; of the last one only positions that there are.
        let slots = self.pages() * self.page_size;
        let kv = distinct_sectors((0..self.requests).map(|r| {
            let row = 2 * self.layout.kv_width();
            (r * slots * row, self.kv_len * row)
        }));
        queries + 2 * kv + self.index_bytes()
    }

    /// Bytes of lengths and page tables.
    pub(crate) fn index_bytes(&self) -> u64 {
        whole_sectors(4 * self.requests * self.pages()) + whole_sectors(4 * self.requests)
    }

    /// Sectors beyond the fewest that a look-up in a request's page table takes, by `lanes` lanes of a warp, of the slots of
    /// these positions: neighbours among them share an entry, and entries may begin within a sector.
    pub(crate) fn look_up_sectors(
        &self,
        request: usize,
        [first, end]: [usize; 2],
        lanes: usize,
    ) -> u64 {
        let entries = first / self.page_size..(end - 1) / self.page_size + 1;
        let at = 4 * (request * self.pages() + entries.start);
        beyond_fewest(at, 4 * entries.len(), 4 * lanes)
    }

    /// Makes the batch and calls `launch` with it.
    pub(crate) fn run(
        &self,
        cuda: &Cuda,
        launch: impl FnOnce(
            &AttentionBatch<'_, CudaIndices>,
            &CudaKvPool,
            &crate::cuda::CudaBuffer,
            &mut crate::cuda::CudaBuffer,
        ) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (requests, tokens) = (self.requests, self.requests * self.query_len);
        let pages = self.pages();
        let slots = requests * pages * self.page_size;
        let pool = cuda.example_pool(slots, self.layout)?;
        let starts: Vec<i32> = (0..=requests)
            .map(|r| (r * self.query_len) as i32)
            .collect();
        let table: Vec<i32> = (0..(requests * pages) as i32).collect();
        let batch = AttentionBatch {
            requests,
            tokens,
            max_query_len: self.query_len,
            max_kv_len: self.kv_len,
            query_start: &cuda.upload_integers(&starts)?,
            kv_len: &cuda.upload_integers(&vec![self.kv_len as i32; requests])?,
            page_table: &cuda.upload_integers(&table)?,
            max_pages: pages,
            page_size: self.page_size,
        };
        let qkv = cuda.example(tokens * self.layout.width())?;
        let mut out = cuda.buffer(tokens * self.layout.q_width())?;
        launch(&batch, &pool, &qkv, &mut out)
    }
}

/// The tile that is chosen, or that of the instance that is wanted.
fn tile(problem: &Problem, shape: &Shape, target: Target) -> Tile {
    let head_dim = problem.layout.head_dim;
    let wanted = [1, 2].map(|m_tiles| Tile { head_dim, m_tiles });
    let wanted = wanted
        .into_iter()
        .find(|tile| Some(tile.expression(shape.element()).as_str()) == shape.instance());
    wanted.unwrap_or_else(|| {
        let heads = problem.layout.heads * problem.requests;
        Tile::choose(head_dim, heads, problem.query_len, target.multiprocessors)
    })
}

fn plan(shape: &Shape, target: Target) -> Result<Plan, Error> {
    let problem = Problem::of(shape)?;
    let Problem {
        requests,
        layout,
        query_len,
        kv_len,
        ..
    } = problem;
    let tile = tile(&problem, shape, target);
    let batch = vec![(query_len, kv_len); requests];
    let cost = cost(&batch, layout, shape.dtype(), shape.dtype());
    let tensor_flops = tile.padded_flops(&batch, layout.heads);
    let float_flops = tile.float_flops(&batch, layout.heads);
    Ok(Plan {
        expression: tile.expression(shape.element()),
        launch: geometry(tile, layout.heads, requests, query_len),
        cost,
        counted: Counted {
            tensor_flops,
            padding: tensor_flops - seen_flops(&batch, layout),
            float_flops,
            overhead: float_flops,
            bytes: problem.read_bytes()
                + whole_sectors(4 * (requests + 1))
                + whole_sectors(2 * requests * query_len * layout.q_width()),
            left_out: problem.index_bytes() + whole_sectors(4 * (requests + 1)),
            scattered_sectors: Some(look_ups(&problem, tile)),
            because: "tensor cores multiply whole tiles, also where the diagonal cuts them; the cost leaves softmax, lengths and page tables out",
            ..Counted::default()
        },
    })
}

/// FLOPs of requests of (rows, positions) that their results need: for each row and position that it sees a multiply-add for each
/// element of a key, and of a value.
pub(crate) fn seen_flops(requests: &[(usize, usize)], layout: QkvLayout) -> u64 {
    let seen = |&(queries, len): &(usize, usize)| (len - queries + 1..=len).sum::<usize>();
    let pairs: usize = requests.iter().map(seen).sum();
    (4 * pairs * layout.q_width()) as u64
}

/// FLOPs of `online_softmax` of a warp, for 16 rows, `positions` of a step and their sums: of each score a multiply-add, an
/// exponential and an addition, of each sum a product; and each lane has five for each of its two rows.
pub(crate) fn softmax_flops(positions: usize, head_dim: usize) -> usize {
    16 * (4 * positions + head_dim) + 32 * 2 * 5
}

/// Sectors beyond the fewest of all look-ups of a launch: of each block's steps, a warp has 32 positions.
fn look_ups(problem: &Problem, tile: Tile) -> u64 {
    let &Problem {
        requests,
        query_len,
        kv_len,
        layout,
        ..
    } = problem;
    let mut sectors = 0;
    for request in 0..requests {
        for first_row in (0..query_len).step_by(tile.block_m()) {
            let seen = kv_len - query_len + (first_row + tile.block_m()).min(query_len);
            for first in (0..seen).step_by(32) {
                let end = (first + 32).min(seen);
                sectors += problem.look_up_sectors(request, [first, end], end - first);
            }
        }
    }
    sectors * layout.heads as u64
}

impl Tile {
    /// Whether there is an instance: two tiles of rows need registers that a head dimension of 256 does not leave.
    fn is_made(self) -> bool {
        self.m_tiles == 1 || self.head_dim <= 128
    }

    /// FLOPs of the tiles that warps begin, for requests of (rows, positions): of each head, warp and step `16 * m_tiles` rows
    /// times `block_n` positions, 4 for each element of a head; steps go as far as the warp's last row sees.
    pub(super) fn padded_flops(self, requests: &[(usize, usize)], heads: usize) -> u64 {
        let rows = 16 * self.m_tiles;
        let [_, steps] = self.warps_and_steps(requests);
        (4 * steps * heads * rows * self.block_n() * self.head_dim) as u64
    }

    /// FLOPs of other units: softmax in each step; at the end the two sums of lanes and the reciprocal for each of a lane's rows,
    /// and a product for each element of the result.
    fn float_flops(self, requests: &[(usize, usize)], heads: usize) -> u64 {
        let [warps, steps] = self.warps_and_steps(requests);
        let at_end = 32 * 2 * 3 + 16 * self.head_dim;
        let of_tile = steps * softmax_flops(self.block_n(), self.head_dim) + warps * at_end;
        (heads * self.m_tiles * of_tile) as u64
    }

    /// Warps of a head that have rows, and their steps all together: as far as the warp's last row sees.
    fn warps_and_steps(self, requests: &[(usize, usize)]) -> [usize; 2] {
        let rows = 16 * self.m_tiles;
        let mut count = [0, 0];
        for &(queries, len) in requests {
            for first in (0..queries).step_by(rows) {
                let last = (first + rows).min(queries);
                count[0] += 1;
                count[1] += (len - queries + last).div_ceil(self.block_n());
            }
        }
        count
    }
}
