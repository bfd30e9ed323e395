// gemm_skinny: out[i, j] = sum over p of x[i, p] * weight[j, p] (+ bias[j]) for few rows of x: the weights stream by once.
//
// Shapes: x [m, k] with m <= 8 TOKEN_TILES, weight [n, k], out [m, n] in T (bf16 or f16), bias [n] in float; sums are in float.
//
// The weights are the 16-row operand of mma, the rows of x ("tokens") its 8 columns: one token costs no more than eight do.
//
//                    k ->      0      64     128    192
//   weight row 0    warp_n 0 | wk 0 | wk 1 | wk 0 | wk 1 | ...     WARPS_N warps have 16 rows each; WARPS_K take turns
//          row 16   warp_n 1 | wk 0 | wk 1 | wk 0 | wk 1 | ...     along k, and add up in shared memory at the end
//
// Weights go straight from memory to registers. mma wants, of 16 columns, 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 in lane t of four; but
// the order of the columns is free as long as both operands have the same. So lane t takes columns 8 t to 8 t + 7 of 32, one
// 16-byte load, and gives two words to one mma and two to the next. A warp's load is 8 rows of 64 bytes: 16 sectors, all used.
//
// x comes the same way, from the caches: warps with other rows of weights read the same columns at about the same time.
//
// With few blocks the columns are split among the y blocks of the grid as well, and each leaves its sums in `partials`
// [splits, m, n]; gemm_reduce adds them up.
//
// What bounds it: memory, reading the weights: 16 rows of 64 columns, 2 KiB, are on their way for each warp while it multiplies
// as many.
#include "prelude.cuh"

// Columns that a warp takes at a time: a 128-byte line of each row.
constexpr int STEP = 64;

// What a lane multiplies at once, by half of the step.
template <int TOKEN_TILES> struct Operands {
    vec16 weight[2][2];
    vec16 x[2][TOKEN_TILES];
};

template <typename T, int TOKEN_TILES, int WARPS_N, int WARPS_K, bool ALIGNED>
__global__ void __launch_bounds__(WARP *WARPS_N *WARPS_K)
    gemm_skinny(const T *x, const T *weight, const float *bias, T *out, float *partials, int m, int n, int k, int k_per_split) {
    constexpr int THREADS = WARP * WARPS_N * WARPS_K, ROWS = 16 * WARPS_N, TOKENS = 8 * TOKEN_TILES;
    // 4 banks more than a multiple of 16: the 8 rows and 4 even tokens of a fragment then use all 32.
    constexpr int STRIDE = ROWS + 4;
    __shared__ __align__(16) float shared[WARPS_K][TOKENS][STRIDE];

    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    int warp_n = warp % WARPS_N, warp_k = warp / WARPS_N;
    int first_n = blockIdx.x * ROWS;
    int first_k = blockIdx.y * k_per_split, end_k = min(k, first_k + k_per_split);
    int steps = ceil_div(end_k - first_k, STEP);

    // What lies past the last row or token is computed from the last, and not stored.
    const T *rows[2], *tokens[TOKEN_TILES];
#pragma unroll
    for (int i = 0; i < 2; i++) rows[i] = weight + (u64)min(first_n + 16 * warp_n + 8 * i + g, n - 1) * k;
#pragma unroll
    for (int j = 0; j < TOKEN_TILES; j++) tokens[j] = x + (u64)min(8 * j + g, m - 1) * k;

    auto load = [&](Operands<TOKEN_TILES> &o, int step) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int at = first_k + step * STEP + 32 * half + 8 * t, count = end_k - at;
#pragma unroll
            for (int i = 0; i < 2; i++) o.weight[half][i] = load8_part_once<ALIGNED>(rows[i] + at, count);
#pragma unroll
            for (int j = 0; j < TOKEN_TILES; j++) o.x[half][j] = load8_part<ALIGNED>(tokens[j] + at, count);
        }
    };
    float sums[TOKEN_TILES][4] = {};
    auto multiply = [&](const Operands<TOKEN_TILES> &o) {
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int word = 0; word < 4; word += 2) {
                const vec16 *w = o.weight[half];
                u32 a[4] = {w[0].words[word], w[1].words[word], w[0].words[word + 1], w[1].words[word + 1]};
#pragma unroll
                for (int j = 0; j < TOKEN_TILES; j++)
                    mma_m16n8k16<T>(sums[j], a, o.x[half][j].words[word], o.x[half][j].words[word + 1]);
            }
    };

    // Two sets of registers in turn: one is filled while the other is multiplied. A load past the last step gives zeros.
    Operands<TOKEN_TILES> even, odd;
    load(even, warp_k);
    for (int step = warp_k; step < steps; step += 2 * WARPS_K) {
        load(odd, step + WARPS_K);
        multiply(even);
        load(even, step + 2 * WARPS_K);
        if (step + WARPS_K < steps) multiply(odd);
    }

#pragma unroll
    for (int j = 0; j < TOKEN_TILES; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) shared[warp_k][8 * j + 2 * t + i % 2][16 * warp_n + g + i / 2 * 8] = sums[j][i];
    __syncthreads();

    // Four rows of a token are a thread's; the threads of a warp have neighbouring rows.
    for (int item = threadIdx.x; item < TOKENS * ROWS / 4; item += THREADS) {
        int token = item / (ROWS / 4), row = item % (ROWS / 4) * 4;
        // With 16 rows, 8 threads have two tokens: such that are 4 apart lie 16 banks apart.
        if (ROWS == 16) token = item / 32 * 8 + item / 8 % 4 + item / 4 % 2 * 4;
        float4 sum = *(const float4 *)&shared[0][token][row];
#pragma unroll
        for (int i = 1; i < WARPS_K; i++) {
            float4 more = *(const float4 *)&shared[i][token][row];
            sum = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
        }
        int column = first_n + row, count = n - column;
        if (token >= m || count <= 0) continue;
        float values[4] = {sum.x, sum.y, sum.z, sum.w};
        u64 at = (u64)token * n + column;
        if (partials) {
            float *to = partials + ((u64)blockIdx.y * m * n + at);
            if (n % 4 == 0) *(float4 *)to = sum;
            else
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (i < count) to[i] = values[i];
            continue;
        }
        if (bias && n % 4 == 0) {
            float4 added = *(const float4 *)(bias + column);
            values[0] += added.x, values[1] += added.y, values[2] += added.z, values[3] += added.w;
        } else if (bias) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (i < count) values[i] += bias[column + i];
        }
        if (n % 4 == 0) *(uint2 *)(out + at) = make_uint2(pack<T>(values[0], values[1]), pack<T>(values[2], values[3]));
        else
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (i < count) out[at + i] = from_float<T>(values[i]);
    }
}
