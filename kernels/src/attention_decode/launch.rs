//! The CUDA kernels' launchers.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use super::split;
use crate::attention_prefill::launch::{HEAD_DIMS, SHARED_UNASKED, softmax_scale};
use crate::cuda::{Cuda, CudaBuffer, CudaIndices, CudaKvPool, Source};
use crate::{AttentionBatch, Error, Kernel, QkvLayout};

static SOURCE: Source = Source {
    name: "attention_decode.cu",
    text: include_str!("attention_decode.cu"),
};

/// Query heads of a block: rows of an mma tile.
const GROUP_ROWS: usize = 16;
/// Positions of a warp's tile: columns of scores, rows of values.
const TILE: usize = 16;
/// Warps of a block of the merge, each with a head of a request.
const MERGE_WARPS: usize = 4;

arguments! {
    struct AttentionDecode {
        qkv: DevicePointer,
        keys: DevicePointer,
        values: DevicePointer,
        kv_len: DevicePointer,
        page_table: DevicePointer,
        out: DevicePointer,
        partial: DevicePointer,
        heads: u32,
        kv_heads: u32,
        max_pages: u32,
        page_size: u32,
        scale: f32,
    }
}

arguments! {
    struct Merge {
        partial: DevicePointer,
        kv_len: DevicePointer,
        out: DevicePointer,
        requests: u32,
        heads: u32,
        splits: u32,
    }
}

/// Warps of a block, and tiles of keys and values that each has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ring {
    head_dim: usize,
    warps: usize,
    stages: usize,
}

impl Ring {
    /// 48 to 72 KiB of keys and values under way in a block: the 3.35 TB/s of 132 multiprocessors, at a latency of a
    /// microsecond, are 25 KB each. Above, fewer blocks fit a multiprocessor.
    fn of(head_dim: usize) -> Ring {
        let (warps, stages) = match head_dim {
            256 => (2, 2),
            128 => (4, 2),
            _ => (4, 3),
        };
        Ring {
            head_dim,
            warps,
            stages,
        }
    }

    /// The rings, the queries, and of each warp and row the largest score and the sum of weights.
    fn shared_bytes(self) -> usize {
        let tile = TILE * self.head_dim * 2;
        self.warps * 2 * self.stages * tile + tile + self.warps * GROUP_ROWS * 8
    }

    fn expression(self, element: &str) -> String {
        let Ring {
            head_dim,
            warps,
            stages,
        } = self;
        format!("attention_decode<{element}, {head_dim}, {warps}, {stages}>")
    }

    fn merge_expression(self, element: &str) -> String {
        let Ring {
            head_dim, warps, ..
        } = self;
        format!("attention_decode_merge<{element}, {head_dim}, {warps}>")
    }
}

/// Attention of one query row per request over all its positions: see [`Backend::attention_decode`](crate::Backend).
pub(crate) fn attention_decode(
    cuda: &Cuda,
    qkv: &CudaBuffer,
    layout: QkvLayout,
    batch: &AttentionBatch<'_, CudaIndices>,
    kv: &CudaKvPool,
    layer: usize,
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    let tuned = cuda
        .tuning()
        .and_then(|tuning| tuning.decode_splits(layout, batch.requests, batch.max_kv_len));
    let splits = tuned.unwrap_or_else(|| {
        split::splits(
            batch.requests * group_blocks(layout),
            batch.max_kv_len,
            cuda.multiprocessors(),
        )
    });
    launch(cuda, splits, qkv, layout, batch, kv.layer(layer)?, out)
}

/// All numbers of ranges that a tuner tries, 1 first, for which the workspace has room.
pub(crate) fn variants(layout: QkvLayout, requests: usize, kv_len: usize) -> Vec<usize> {
    let partials = requests * layout.heads * (layout.head_dim + 2);
    split::candidates(kv_len)
        .filter(|&splits| splits == 1 || partials * splits <= crate::cuda::WORKSPACE)
        .collect()
}

/// Blocks of a request and a range of its positions.
fn group_blocks(layout: QkvLayout) -> usize {
    layout.kv_heads * (layout.heads / layout.kv_heads).div_ceil(GROUP_ROWS)
}

fn launch(
    cuda: &Cuda,
    splits: usize,
    qkv: &CudaBuffer,
    layout: QkvLayout,
    batch: &AttentionBatch<'_, CudaIndices>,
    [keys, values]: [DevicePointer; 2],
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    let name = if splits == 1 {
        "attention_decode"
    } else {
        "attention_decode_split"
    };
    if !HEAD_DIMS.contains(&layout.head_dim) {
        return Err(Error::shape(format!(
            "a head dimension of {}: the CUDA attention kernels have {HEAD_DIMS:?}",
            layout.head_dim
        )));
    }
    if batch.tokens != batch.requests {
        return Err(Error::shape(format!(
            "{} query rows of {} requests: decode attention takes one of each",
            batch.tokens, batch.requests
        )));
    }
    if batch.requests == 0 {
        return Ok(name);
    }
    let ring = Ring::of(layout.head_dim);
    let numbers = |is_merge: bool| [layout.head_dim as u32, is_merge.into(), 0, 0];
    let kernel = cuda
        .kernel::<AttentionDecode>(&SOURCE, numbers(false), || ring.expression(cuda.element()))?;
    let shared_bytes = ring.shared_bytes();
    if shared_bytes > SHARED_UNASKED {
        kernel.function().allow_shared_bytes(shared_bytes as u32)?;
    }
    let partial = if splits == 1 {
        DevicePointer::default()
    } else {
        // Sums, and of each range the largest score and the sum of weights.
        cuda.workspace(batch.requests * layout.heads * splits * (layout.head_dim + 2))?
    };
    let launch = geometry(ring, splits, layout, batch.requests);
    let arguments = AttentionDecode {
        qkv: qkv.pointer(),
        keys,
        values,
        kv_len: batch.kv_len.pointer(),
        page_table: batch.page_table.pointer(),
        out: out.pointer(),
        partial,
        heads: layout.heads as u32,
        kv_heads: layout.kv_heads as u32,
        max_pages: batch.max_pages as u32,
        page_size: batch.page_size as u32,
        scale: softmax_scale(layout.head_dim),
    };
    // SAFETY: the buffers hold as many elements as the shapes say, and the batch describes requests whose pages lie in the pool,
    // which is the contract of `Backend`; 16 bytes at a time are aligned, since rows are whole multiples of 8 elements. The
    // workspace has room for the partial results.
    unsafe { cuda.launch(&kernel, &launch, &arguments)? };
    if splits > 1 {
        let merge = cuda.kernel::<Merge>(&SOURCE, numbers(true), || {
            ring.merge_expression(cuda.element())
        })?;
        let launch = merge_geometry(layout, batch.requests);
        let arguments = Merge {
            partial,
            kv_len: batch.kv_len.pointer(),
            out: out.pointer(),
            requests: batch.requests as u32,
            heads: layout.heads as u32,
            splits: splits as u32,
        };
        // SAFETY: as above; what it reads is what the kernel before it in the stream wrote.
        unsafe { cuda.launch(&merge, &launch, &arguments)? };
    }
    Ok(name)
}

fn geometry(ring: Ring, splits: usize, layout: QkvLayout, requests: usize) -> Launch {
    let grid = [splits, group_blocks(layout), requests].map(|blocks| blocks as u32);
    Launch::of_grid(grid, [ring.warps as u32 * 32, 1, 1])
        .with_shared_bytes(ring.shared_bytes() as u32)
}

fn merge_geometry(layout: QkvLayout, requests: usize) -> Launch {
    let rows = requests * layout.heads;
    Launch::of_blocks(rows.div_ceil(MERGE_WARPS) as u32, MERGE_WARPS as u32 * 32)
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests;
