//! The CUDA kernels' launchers.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use super::choose::{GEMV_WARPS, Plan, Split, Tile, Width, choose};
use crate::cuda::{Cuda, CudaBuffer, CudaMatrix, CudaVector, Source};
use crate::{Error, Kernel};

static MMA: Source = Source {
    name: "gemm_mma.cu",
    text: include_str!("gemm_mma.cu"),
};
static SKINNY: Source = Source {
    name: "gemm_skinny.cu",
    text: include_str!("gemm_skinny.cu"),
};
static GEMV: Source = Source {
    name: "gemv.cu",
    text: include_str!("gemv.cu"),
};
static REDUCE: Source = Source {
    name: "gemm_reduce.cu",
    text: include_str!("gemm_reduce.cu"),
};

/// Dynamic shared memory that needs no permission.
const FREE_SHARED_BYTES: u32 = 48 << 10;
/// Columns of `x` that `gemv` has in shared memory at a time.
const GEMV_CHUNK: u32 = 16_384;

arguments! {
    /// Of `gemm_mma` and of `gemm_skinny`.
    struct Tiled {
        x: DevicePointer,
        weight: DevicePointer,
        bias: DevicePointer,
        out: DevicePointer,
        partials: DevicePointer,
        m: i32,
        n: i32,
        k: i32,
        k_per_split: i32,
    }
}

arguments! {
    struct Gemv {
        x: DevicePointer,
        weight: DevicePointer,
        bias: DevicePointer,
        out: DevicePointer,
        n: i32,
        k: i32,
        warps_k: i32,
    }
}

arguments! {
    struct Reduce {
        partials: DevicePointer,
        bias: DevicePointer,
        out: DevicePointer,
        splits: i32,
        elements: u64,
        n: i32,
    }
}

/// `out = x @ weight^T (+ bias)`, `x` `[m, cols]`, `out` `[m, rows]` of `weight`.
pub(crate) fn gemm(
    cuda: &Cuda,
    x: &CudaBuffer,
    m: usize,
    weight: &CudaMatrix,
    bias: Option<&CudaVector>,
    out: &mut CudaBuffer,
) -> Result<Kernel, Error> {
    let (n, k) = (weight.rows, weight.cols);
    let product = Product::new(x, m, weight, bias, out)?;
    if m == 0 || n == 0 {
        return Ok("gemm_nothing");
    }
    let capability = cuda.context().device().compute_capability;
    let tuned = cuda.tuning().and_then(|tuning| tuning.gemm([m, n, k]));
    let plan = tuned.unwrap_or_else(|| choose(m, n, k, cuda.multiprocessors(), capability));
    product.run(cuda, plan)
}

/// A product to compute.
#[derive(Debug, Clone, Copy)]
struct Product {
    x: DevicePointer,
    weight: DevicePointer,
    bias: DevicePointer,
    out: DevicePointer,
    m: u32,
    n: u32,
    k: u32,
}

impl Product {
    fn new(
        x: &CudaBuffer,
        m: usize,
        weight: &CudaMatrix,
        bias: Option<&CudaVector>,
        out: &mut CudaBuffer,
    ) -> Result<Product, Error> {
        let (n, k) = (weight.rows, weight.cols);
        if x.len() < m * k || out.len() < m * n || bias.is_some_and(|bias| bias.len() < n) {
            return Err(Error::shape(format!(
                "gemm: [{m}, {k}] @ [{n}, {k}]^T of x with {} elements into {}",
                x.len(),
                out.len()
            )));
        }
        // The kernels count rows and columns in 32 bits, and a tile beyond the last.
        let count = |what: &str, value: usize| {
            u32::try_from(value)
                .ok()
                .filter(|&value| value < 1 << 30)
                .ok_or_else(|| Error::shape(format!("gemm: {value} {what}, but 2^30 is the limit")))
        };
        Ok(Product {
            x: x.pointer(),
            weight: weight.values.pointer(),
            bias: bias.map_or(DevicePointer(0), CudaVector::pointer),
            out: out.pointer(),
            m: count("rows of x", m)?,
            n: count("rows of the weight", n)?,
            k: count("columns", k)?,
        })
    }

    /// Whether rows are whole 16-byte vectors, and begin at multiples of 16 bytes.
    fn is_aligned(&self) -> bool {
        self.k.is_multiple_of(8)
    }

    fn run(&self, cuda: &Cuda, plan: Plan) -> Result<Kernel, Error> {
        match plan {
            Plan::Gemv { rows, warps } => self.gemv(cuda, rows, warps),
            Plan::Skinny { width, split } => self.skinny(cuda, width, split),
            Plan::Mma { tile, split } => self.mma(cuda, tile, split),
        }
    }

    fn gemv(&self, cuda: &Cuda, rows: u32, warps: u32) -> Result<Kernel, Error> {
        let aligned = self.is_aligned();
        let kernel = cuda.kernel::<Gemv>(&GEMV, [rows, u32::from(aligned), 0, 0], || {
            gemv_instance(cuda.element(), rows, aligned)
        })?;
        let launch = gemv_launch(self.n, self.k, rows, warps);
        let arguments = Gemv {
            x: self.x,
            weight: self.weight,
            bias: self.bias,
            out: self.out,
            n: self.n as i32,
            k: self.k as i32,
            warps_k: warps as i32,
        };
        // SAFETY: the buffers hold as many elements as the shapes say, which `Product::new` has checked.
        unsafe { cuda.launch(&kernel, &launch, &arguments)? };
        Ok("gemv")
    }

    fn skinny(&self, cuda: &Cuda, width: Width, split: Split) -> Result<Kernel, Error> {
        let aligned = self.is_aligned();
        let numbers = [
            width.token_tiles,
            width.warps_n,
            width.warps_k,
            u32::from(aligned),
        ];
        let kernel = cuda.kernel::<Tiled>(&SKINNY, numbers, || {
            skinny_instance(cuda.element(), width, aligned)
        })?;
        let launch = skinny_launch(self.n, width, split);
        let arguments = self.tiled(cuda, split)?;
        // SAFETY: as above; the workspace holds the partial sums.
        unsafe { cuda.launch(&kernel, &launch, &arguments)? };
        self.reduce(cuda, split, arguments.partials)?;
        Ok(if split.splits > 1 {
            "gemm_skinny_split_k"
        } else {
            "gemm_skinny"
        })
    }

    fn mma(&self, cuda: &Cuda, tile: Tile, split: Split) -> Result<Kernel, Error> {
        let aligned = self.is_aligned();
        let kernel =
            cuda.kernel::<Tiled>(&MMA, [tile.m, tile.n, tile.k, u32::from(aligned)], || {
                mma_instance(cuda.element(), tile, aligned)
            })?;
        let launch = mma_launch(self.m, self.n, tile, split)?;
        if launch.shared_bytes > FREE_SHARED_BYTES {
            kernel.function().allow_shared_bytes(launch.shared_bytes)?;
        }
        let arguments = self.tiled(cuda, split)?;
        // SAFETY: as above.
        unsafe { cuda.launch(&kernel, &launch, &arguments)? };
        self.reduce(cuda, split, arguments.partials)?;
        Ok(if split.splits > 1 {
            tile.split_name
        } else {
            tile.name
        })
    }

    fn tiled(&self, cuda: &Cuda, split: Split) -> Result<Tiled, Error> {
        let partials = if split.splits > 1 {
            cuda.workspace(split.splits as usize * self.m as usize * self.n as usize)?
        } else {
            DevicePointer(0)
        };
        Ok(Tiled {
            x: self.x,
            weight: self.weight,
            bias: self.bias,
            out: self.out,
            partials,
            m: self.m as i32,
            n: self.n as i32,
            k: self.k as i32,
            k_per_split: split.k_per_split as i32,
        })
    }

    /// Adds up the partial sums, if there are any.
    fn reduce(&self, cuda: &Cuda, split: Split, partials: DevicePointer) -> Result<(), Error> {
        if split.splits == 1 {
            return Ok(());
        }
        let (vector, launch) = reduce_launch(self.m, self.n);
        let kernel = cuda.kernel::<Reduce>(&REDUCE, [vector, 0, 0, 0], || {
            reduce_instance(cuda.element(), vector)
        })?;
        let elements = u64::from(self.m) * u64::from(self.n);
        let arguments = Reduce {
            partials,
            bias: self.bias,
            out: self.out,
            splits: split.splits as i32,
            elements,
            n: self.n as i32,
        };
        // SAFETY: as above.
        unsafe { cuda.launch(&kernel, &launch, &arguments) }
    }
}

fn gemv_launch(n: u32, k: u32, rows: u32, warps: u32) -> Launch {
    let blocks = n.div_ceil(GEMV_WARPS / warps * rows);
    let staged = 2 * k.min(GEMV_CHUNK).next_multiple_of(8);
    Launch::of_blocks(blocks, 32 * GEMV_WARPS).with_shared_bytes(staged)
}

fn skinny_launch(n: u32, width: Width, split: Split) -> Launch {
    let blocks = n.div_ceil(16 * width.warps_n);
    let threads = 32 * width.warps_n * width.warps_k;
    Launch::of_grid([blocks, split.splits, 1], [threads, 1, 1])
}

fn mma_launch(m: u32, n: u32, tile: Tile, split: Split) -> Result<Launch, Error> {
    let tiles = u64::from(m.div_ceil(tile.m)) * u64::from(n.div_ceil(tile.n));
    let tiles = u32::try_from(tiles)
        .map_err(|_| Error::shape(format!("gemm: {tiles} tiles, more than a grid has blocks")))?;
    let launch = Launch::of_grid([tiles, 1, split.splits], [tile.threads(), 1, 1]);
    Ok(launch.with_shared_bytes(tile.shared_bytes()))
}

/// Elements of a thread, and the launch.
fn reduce_launch(m: u32, n: u32) -> (u32, Launch) {
    let vector = if n.is_multiple_of(4) { 4 } else { 1 };
    let elements = u64::from(m) * u64::from(n);
    // The partial sums fit into the workspace: that is fewer blocks than 2^32.
    let blocks = elements.div_ceil(u64::from(256 * vector)) as u32;
    (vector, Launch::of_blocks(blocks, 256))
}

fn gemv_instance(element: &str, rows: u32, aligned: bool) -> String {
    format!("gemv<{element}, {rows}, {aligned}>")
}

fn skinny_instance(element: &str, width: Width, aligned: bool) -> String {
    let Width {
        token_tiles,
        warps_n,
        warps_k,
    } = width;
    format!("gemm_skinny<{element}, {token_tiles}, {warps_n}, {warps_k}, {aligned}>")
}

fn mma_instance(element: &str, tile: Tile, aligned: bool) -> String {
    let Tile {
        m,
        n,
        k,
        warps_m,
        warps_n,
        stages,
        ..
    } = tile;
    format!("gemm_mma<{element}, {m}, {n}, {k}, {warps_m}, {warps_n}, {stages}, {aligned}>")
}

fn reduce_instance(element: &str, vector: u32) -> String {
    format!("gemm_reduce<{element}, {vector}>")
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests;
