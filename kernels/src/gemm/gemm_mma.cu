// gemm_mma: out[i, j] = sum over p of x[i, p] * weight[j, p] (+ bias[j]), on tensor cores.
//
// Shapes: x [m, k], weight [n, k], out [m, n] in T (bf16 or f16), bias [n] in float; sums are in float. Any m, n and k.
//
//              weight: BLOCK_N rows               a block makes one tile of out, and walks along k; STAGES pieces of
//              +--------+--------+                BLOCK_K columns are in shared memory or on their way:
//              |        |        | BLOCK_K
//              +--------+--------+                  k: | in use | arriving | arriving |  ->
//     x        | warp   | warp   |
//     BLOCK_M  | (0, 0) | (0, 1) |                a warp's part is WARP_M x WARP_N in registers, as m16n8 pieces:
//     rows     +--------+--------+                WARP_M / 16 + WARP_N / 16 ldmatrix feed
//              | warp   | warp   |                WARP_M / 16 * WARP_N / 8 mma for every 16 columns
//              | (1, 0) | (1, 1) |
//              +--------+--------+
//
// With few tiles the columns are split among the z blocks of the grid, and each leaves its sums in `partials`
// [splits, m, n]; gemm_reduce adds them up.
//
// What bounds it: tensor cores for hundreds of rows. Shared memory is next: a warp's 64x64 part reads 128 rows of 32 bytes, 32
// cycles' worth, for 32 mma, 64 cycles on an A100; a 32x32 part reads 16 cycles' worth for 16. With fewer rows it is the weights'
// way from memory.
// Events, in a build that writes them (timeline.cuh):
// stepscope: role 0 = wait for copies
// stepscope: role 1 = multiply
// stepscope: role 2 = write
#include "prelude.cuh"
#include "timeline.cuh"

// Tiles of out are taken in groups of this many rows of tiles, column by column: blocks that run together then share rows of
// `weight` and of x in the second-level cache.
constexpr int RASTER = 8;

// Byte offset of a 16-byte chunk in a tile with BLOCK_K columns. ldmatrix reads the same chunk of eight rows, a copy writes
// neighbouring chunks: both touch every bank once if eight consecutive rows keep a chunk in eight places of a 128-byte line.
template <int BLOCK_K> __device__ __forceinline__ u32 swizzled(int row, int chunk) {
    static_assert(BLOCK_K == 32 || BLOCK_K == 64, "a row is half a 128-byte line, or a whole one");
    int place = BLOCK_K == 64 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3);
    return (u32)(row * (BLOCK_K / 8) + place) * 16;
}

// Columns [first_k, first_k + BLOCK_K) of ROWS rows from first_row on, to shared memory; zeros past the last row and past end_k.
template <typename T, int ROWS, int BLOCK_K, int THREADS, bool ALIGNED>
__device__ __forceinline__ void fill(char *tile, const T *matrix, int first_row, int rows, int first_k, int end_k, int k) {
    constexpr int CHUNKS = BLOCK_K / 8, AT_ONCE = THREADS / CHUNKS;
    static_assert(ROWS % AT_ONCE == 0, "every thread copies as much");
    int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    int from_k = first_k + 8 * chunk;
    // Eight loads for a chunk are enough code once.
#pragma unroll (ALIGNED ? ROWS / AT_ONCE : 1)
    for (int i = 0; i < ROWS; i += AT_ONCE, row += AT_ONCE) {
        bool valid = first_row + row < rows && from_k < end_k;
        const T *from = valid ? matrix + ((u64)(first_row + row) * k + from_k) : matrix;
        char *to = tile + swizzled<BLOCK_K>(row, chunk);
        if constexpr (ALIGNED) cp_async16(shared_address(to), from, valid);
        else store16(to, load8_part<false>(from, valid ? end_k - from_k : 0));
    }
}

// What a warp multiplies at once: 16 columns of its rows of x and of weight.
template <int TILES_M, int TILES_N> struct Fragments {
    u32 x[TILES_M][4];
    u32 weight[TILES_N / 2][4];
};

template <int BLOCK_K, int TILES_M, int TILES_N>
__device__ __forceinline__ void load(Fragments<TILES_M, TILES_N> &f, u32 x, u32 weight, int warp_m, int warp_n, int step) {
    int lane = threadIdx.x % WARP;
    // x: rows 0 to 7 and 8 to 15 of the first 8 columns, then of the next: the order of the registers of A.
    int row = warp_m + lane % 16, chunk = 2 * step + lane / 16;
#pragma unroll
    for (int i = 0; i < TILES_M; i++) ldmatrix_x4(f.x[i], x + swizzled<BLOCK_K>(row + 16 * i, chunk));
    // weight: both halves of the columns of rows 0 to 7, then of rows 8 to 15: B of two neighbouring pieces.
    row = warp_n + lane % 8 + lane / 16 * 8, chunk = 2 * step + lane / 8 % 2;
#pragma unroll
    for (int j = 0; j < TILES_N / 2; j++) ldmatrix_x4(f.weight[j], weight + swizzled<BLOCK_K>(row + 16 * j, chunk));
}

// The finished tile from shared memory to out, VECTOR elements at a time.
template <int VECTOR, typename T, int BLOCK_M, int BLOCK_N, int STRIDE, int THREADS>
__device__ __forceinline__ void store(const T *tile, T *out, int first_m, int first_n, int m, int n) {
    struct __align__(2 * VECTOR) Elements { T x[VECTOR]; };
    for (int i = threadIdx.x; i < BLOCK_M * BLOCK_N / VECTOR; i += THREADS) {
        int row = i / (BLOCK_N / VECTOR), column = i % (BLOCK_N / VECTOR) * VECTOR;
        if (first_m + row < m && first_n + column < n)
            *(Elements *)(out + ((u64)(first_m + row) * n + first_n + column)) =
                *(const Elements *)(tile + row * STRIDE + column);
    }
}

template <typename T, int BLOCK_M, int BLOCK_N, int BLOCK_K, int WARPS_M, int WARPS_N, int STAGES, bool ALIGNED>
__global__ void __launch_bounds__(WARP *WARPS_M *WARPS_N)
    gemm_mma(const T *x, const T *weight, const float *bias, T *out, float *partials, int m, int n, int k, int k_per_split) {
    constexpr int THREADS = WARP * WARPS_M * WARPS_N;
    constexpr int WARP_M = BLOCK_M / WARPS_M, WARP_N = BLOCK_N / WARPS_N;
    constexpr int TILES_M = WARP_M / 16, TILES_N = WARP_N / 8;
    constexpr int X_BYTES = BLOCK_M * BLOCK_K * 2, STAGE_BYTES = X_BYTES + BLOCK_N * BLOCK_K * 2;
    // Rows of the finished tile are 4 banks apart: the 8 rows of a fragment then use all 32. (Where the last tile has 16 columns, only
    // two lanes of eight load a row of it: half as many wavefronts could do if rows did not share banks. It is that tile only.)
    constexpr int STRIDE = BLOCK_N + 8;
    static_assert(BLOCK_M * STRIDE * 2 <= STAGES * STAGE_BYTES, "the finished tile takes the place of the stages");
    extern __shared__ __align__(128) char shared[];

    int tiles_m = ceil_div(m, BLOCK_M), tiles_n = ceil_div(n, BLOCK_N);
    int group = blockIdx.x / (RASTER * tiles_n), in_group = blockIdx.x % (RASTER * tiles_n);
    int height = min(RASTER, tiles_m - group * RASTER);
    int first_m = (group * RASTER + in_group % height) * BLOCK_M, first_n = in_group / height * BLOCK_N;
    int first_k = blockIdx.z * k_per_split, end_k = min(k, first_k + k_per_split);
    int steps = ceil_div(end_k - first_k, BLOCK_K);

    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int warp_m = warp / WARPS_N * WARP_M, warp_n = warp % WARPS_N * WARP_N;

    auto fill_stage = [&](int step) {
        if (step < steps) {
            char *stage = shared + step % STAGES * STAGE_BYTES;
            int at = first_k + step * BLOCK_K;
            fill<T, BLOCK_M, BLOCK_K, THREADS, ALIGNED>(stage, x, first_m, m, at, end_k, k);
            fill<T, BLOCK_N, BLOCK_K, THREADS, ALIGNED>(stage + X_BYTES, weight, first_n, n, at, end_k, k);
        }
        // An empty group at the end keeps the count that the wait below relies on.
        cp_async_commit_group();
    };

    float sums[TILES_M][TILES_N][4] = {};
    Fragments<TILES_M, TILES_N> fragments[2];
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) fill_stage(step);
    for (int step = 0; step < steps; step++) {
        // This step's copies have arrived, in every thread; and every warp is done with the stage that is filled next.
        timeline_begin(0);
        cp_async_wait_group<STAGES - 2>();
        __syncthreads();
        timeline_end(0);
        timeline_begin(1);
        u32 stage = shared_address(shared + step % STAGES * STAGE_BYTES);
        load<BLOCK_K>(fragments[0], stage, stage + X_BYTES, warp_m, warp_n, 0);
        fill_stage(step + STAGES - 1);
#pragma unroll
        for (int part = 0; part < BLOCK_K / 16; part++) {
            // The next fragments are on their way while these are multiplied.
            if (part + 1 < BLOCK_K / 16)
                load<BLOCK_K>(fragments[(part + 1) % 2], stage, stage + X_BYTES, warp_m, warp_n, part + 1);
            const auto &f = fragments[part % 2];
#pragma unroll
            for (int i = 0; i < TILES_M; i++)
#pragma unroll
                for (int j = 0; j < TILES_N; j++)
                    mma_m16n8k16<T>(sums[i][j], f.x[i], f.weight[j / 2][j % 2 * 2], f.weight[j / 2][j % 2 * 2 + 1]);
        }
        timeline_end(1);
    }
    timeline_begin(2);

    // A lane's sums lie in rows lane / 4 and 8 more, in columns 2 (lane % 4) and 1 more, of each piece.
    int lane_m = warp_m + lane / 4, lane_n = warp_n + lane % 4 * 2;
    if (partials) {
        float *to = partials + (u64)blockIdx.z * m * n;
#pragma unroll
        for (int i = 0; i < 2 * TILES_M; i++)
#pragma unroll
            for (int j = 0; j < TILES_N; j++) {
                int row = first_m + lane_m + 8 * i, column = first_n + lane_n + 8 * j;
                const float *sum = &sums[i / 2][j][i % 2 * 2];
                if (row >= m) continue;
                float *at = to + ((u64)row * n + column);
                if (n % 2 == 0) {
                    if (column < n) *(float2 *)at = make_float2(sum[0], sum[1]);
                } else {
                    if (column < n) at[0] = sum[0];
                    if (column + 1 < n) at[1] = sum[1];
                }
            }
        timeline_end(2);
        return;
    }

    cp_async_wait_group<0>();
    __syncthreads();
    T *tile = (T *)shared;
#pragma unroll
    for (int j = 0; j < TILES_N; j++) {
        int column = first_n + lane_n + 8 * j;
        float bias0 = bias && column < n ? bias[column] : 0.0f;
        float bias1 = bias && column + 1 < n ? bias[column + 1] : 0.0f;
#pragma unroll
        for (int i = 0; i < 2 * TILES_M; i++) {
            const float *sum = &sums[i / 2][j][i % 2 * 2];
            *(u32 *)(tile + (lane_m + 8 * i) * STRIDE + lane_n + 8 * j) = pack<T>(sum[0] + bias0, sum[1] + bias1);
        }
    }
    __syncthreads();
    if (n % 8 == 0) store<8, T, BLOCK_M, BLOCK_N, STRIDE, THREADS>(tile, out, first_m, first_n, m, n);
    else if (n % 2 == 0) store<2, T, BLOCK_M, BLOCK_N, STRIDE, THREADS>(tile, out, first_m, first_n, m, n);
    else store<1, T, BLOCK_M, BLOCK_N, STRIDE, THREADS>(tile, out, first_m, first_n, m, n);
    timeline_end(2);
}
