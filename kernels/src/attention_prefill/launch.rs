//! The CUDA kernel's launcher.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use crate::cuda::{Cuda, CudaBuffer, CudaIndices, CudaKvPool, Source};
use crate::{AttentionBatch, Error, Kernel, QkvLayout};

static SOURCE: Source = Source {
    name: "attention_prefill.cu",
    text: include_str!("attention_prefill.cu"),
};

/// Warps of a block.
const WARPS: usize = 4;

/// Bytes of shared memory that a block may have without asking.
pub(crate) const SHARED_UNASKED: usize = 48 << 10;

arguments! {
    struct AttentionPrefill {
        qkv: DevicePointer,
        keys: DevicePointer,
        values: DevicePointer,
        query_start: DevicePointer,
        kv_len: DevicePointer,
        page_table: DevicePointer,
        out: DevicePointer,
        heads: u32,
        kv_heads: u32,
        max_pages: u32,
        page_size: u32,
        scale: f32,
    }
}

/// The head dimensions that the CUDA attention kernels are made for.
pub(crate) const HEAD_DIMS: [usize; 5] = [64, 80, 96, 128, 256];

/// What a block works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    head_dim: usize,
    /// Query rows of a warp, in tiles of 16.
    m_tiles: usize,
}

impl Tile {
    /// The tile for `heads` heads of all requests together and up to `max_query_len` rows of each.
    ///
    /// Two tiles of rows in a warp share each key and value that it reads from shared memory. That needs twice the registers
    /// for sums, which a head dimension of 256 does not have, and halves the blocks: where 64 rows are not even one block for
    /// each multiprocessor, more and smaller blocks keep more of the device busy.
    fn choose(head_dim: usize, heads: usize, max_query_len: usize, multiprocessors: usize) -> Tile {
        let wide = Tile {
            head_dim,
            m_tiles: 2,
        };
        let blocks = heads * max_query_len.div_ceil(wide.block_m());
        let is_wide = head_dim <= 128 && max_query_len > 64 && blocks >= multiprocessors;
        Tile {
            head_dim,
            m_tiles: if is_wide { 2 } else { 1 },
        }
    }

    /// Query rows of a block.
    fn block_m(self) -> usize {
        WARPS * 16 * self.m_tiles
    }

    /// Positions of a step: scores take `block_n / 8 * m_tiles * 4` registers of a thread, sums `head_dim / 8 * m_tiles * 4`.
    /// Of 255, 128 for sums leave room for 32 scores; at 64 scores they spill.
    fn block_n(self) -> usize {
        if self.head_dim * self.m_tiles >= 256 {
            32
        } else {
            64
        }
    }

    /// Queries, keys and values, and the slots of two steps.
    fn shared_bytes(self) -> usize {
        (self.block_m() + 2 * self.block_n()) * self.head_dim * 2 + 2 * self.block_n() * 4
    }

    fn expression(self, element: &str) -> String {
        format!(
            "attention_prefill<{element}, {}, {}, {}>",
            self.head_dim,
            self.block_n(),
            self.m_tiles
        )
    }
}

/// Attention of every query row over the positions that it sees: see [`Backend::attention_prefill`](crate::Backend).
pub(crate) fn attention_prefill(
    cuda: &Cuda,
    qkv: &CudaBuffer,
    layout: QkvLayout,
    batch: &AttentionBatch<'_, CudaIndices>,
    kv: &CudaKvPool,
    layer: usize,
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    let tile = Tile::choose(
        layout.head_dim,
        layout.heads * batch.requests,
        batch.max_query_len,
        cuda.multiprocessors(),
    );
    launch(cuda, tile, qkv, layout, batch, kv.layer(layer)?, out)
}

fn launch(
    cuda: &Cuda,
    tile: Tile,
    qkv: &CudaBuffer,
    layout: QkvLayout,
    batch: &AttentionBatch<'_, CudaIndices>,
    [keys, values]: [DevicePointer; 2],
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    if !HEAD_DIMS.contains(&layout.head_dim) {
        return Err(Error::shape(format!(
            "a head dimension of {}: the CUDA attention kernels have {HEAD_DIMS:?}",
            layout.head_dim
        )));
    }
    if batch.requests == 0 || batch.max_query_len == 0 {
        return Ok("attention_prefill");
    }
    let numbers = [tile.head_dim as u32, tile.m_tiles as u32, 0, 0];
    let kernel =
        cuda.kernel::<AttentionPrefill>(&SOURCE, numbers, || tile.expression(cuda.element()))?;
    let shared_bytes = tile.shared_bytes();
    if shared_bytes > SHARED_UNASKED {
        kernel.function().allow_shared_bytes(shared_bytes as u32)?;
    }
    let launch = geometry(tile, layout.heads, batch.requests, batch.max_query_len);
    let arguments = AttentionPrefill {
        qkv: qkv.pointer(),
        keys,
        values,
        query_start: batch.query_start.pointer(),
        kv_len: batch.kv_len.pointer(),
        page_table: batch.page_table.pointer(),
        out: out.pointer(),
        heads: layout.heads as u32,
        kv_heads: layout.kv_heads as u32,
        max_pages: batch.max_pages as u32,
        page_size: batch.page_size as u32,
        scale: softmax_scale(layout.head_dim),
    };
    // SAFETY: the buffers hold as many elements as the shapes say, and the batch describes requests whose pages lie in the pool,
    // which is the contract of `Backend`; 16 bytes at a time are aligned, since rows are whole multiples of 8 elements.
    unsafe { cuda.launch(&kernel, &launch, &arguments)? };
    Ok("attention_prefill")
}

/// Blocks start in the order of x, then y, then z: those of late rows, which see most, first, and those that share keys and
/// values at the same time.
fn geometry(tile: Tile, heads: usize, requests: usize, max_query_len: usize) -> Launch {
    let tiles = max_query_len.div_ceil(tile.block_m());
    let grid = [heads, requests, tiles].map(|blocks| blocks as u32);
    Launch::of_grid(grid, [WARPS as u32 * 32, 1, 1]).with_shared_bytes(tile.shared_bytes() as u32)
}

/// What scores are multiplied by in the exponent of 2.
pub(crate) fn softmax_scale(head_dim: usize) -> f32 {
    (std::f64::consts::LOG2_E / (head_dim as f64).sqrt()) as f32
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests;
