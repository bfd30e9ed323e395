// gemv: out[j] = sum over p of x[p] * weight[j, p] (+ bias[j]): one token.
//
// Shapes: x [k], weight [n, k], out [n] in T (bf16 or f16), bias [n] in float; sums are in float.
//
//   x, in shared memory    |------- CHUNK at most -------|
//                           lane 0: 8 columns, lane 1: 8, ...    256 columns of a warp, then those of the next
//   weight row 2 j         | warp 0 | warp 1 | warp 0 | warp 1 |    warps_k warps take turns along ROWS rows,
//          row 2 j + 1     | warp 0 | warp 1 | warp 0 | warp 1 |    and add up in shared memory at the end
//
// What bounds it: memory, reading the weights. ROWS * UNROLL loads of 16 bytes are on their way for each lane: with ROWS = 2 that
// is 4 KiB of a warp, and 5 warps of a multiprocessor have the 16 to 20 KB in flight that an H100 needs of each (3.35 TB/s for
// 0.6 to 0.8 us, by 132). The arithmetic, 8 multiply-adds and 8 conversions for a load, is a seventh of what the cores can do
// in that time.
#include "prelude.cuh"

constexpr int WARPS = 8, THREADS = WARP * WARPS;
// Columns of x in shared memory: 32 KiB, which leaves room for several blocks on a multiprocessor.
constexpr int CHUNK = 16384;
// Steps whose loads are issued together.
constexpr int UNROLL = 4;

template <typename T, int ROWS, bool ALIGNED>
__global__ void __launch_bounds__(THREADS)
    gemv(const T *x, const T *weight, const float *bias, T *out, int n, int k, int warps_k) {
    extern __shared__ __align__(16) u16 staged[];
    __shared__ float partials[WARPS * ROWS];

    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int block_rows = WARPS / warps_k * ROWS, step = 8 * WARP * warps_k;
    int first_row = blockIdx.x * block_rows, group_row = first_row + warp / warps_k * ROWS;
    const T *rows[ROWS];
    float sums[ROWS] = {};
#pragma unroll
    for (int r = 0; r < ROWS; r++) rows[r] = weight + (u64)min(group_row + r, n - 1) * k;

    for (int first = 0; first < k; first += CHUNK) {
        int count = min(CHUNK, k - first);
        if (first > 0) __syncthreads();
        for (int at = 8 * threadIdx.x; at < count; at += 8 * THREADS)
            store16(staged + at, load8_part<ALIGNED>(x + first + at, count - at));
        __syncthreads();
        for (int from = 8 * (warp % warps_k * WARP + lane); from < count; from += UNROLL * step) {
            vec16 w[UNROLL][ROWS];
#pragma unroll
            for (int u = 0; u < UNROLL; u++)
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    w[u][r] = load8_part_once<ALIGNED>(rows[r] + first + from + u * step, count - from - u * step);
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                if (from + u * step >= count) break;
                float a[8], b[8];
                unpack8<T>(load16(staged + from + u * step), a);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    unpack8<T>(w[u][r], b);
#pragma unroll
                    for (int i = 0; i < 8; i++) sums[r] = fmaf(a[i], b[i], sums[r]);
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sums[r] = warp_sum(sums[r]);
        if (lane == 0) partials[warp * ROWS + r] = sums[r];
    }
    __syncthreads();
    // All rows of the block lie side by side in out: a few lanes of one warp store them together.
    int row = first_row + threadIdx.x;
    if (threadIdx.x < block_rows && row < n) {
        const float *of_row = partials + threadIdx.x / ROWS * warps_k * ROWS + threadIdx.x % ROWS;
        float sum = 0.0f;
        for (int i = 0; i < warps_k; i++) sum += of_row[i * ROWS];
        out[row] = from_float<T>(sum + (bias ? bias[row] : 0.0f));
    }
}
