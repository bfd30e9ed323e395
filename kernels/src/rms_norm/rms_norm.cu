// out = x / sqrt(mean(x²) + eps) * weight, row by row; with ADD first residual += x, and that is normalised; and the same for each
// query and key head of a QKV buffer, in place.
//
// Shapes: x, residual, out [rows, width]; weight [width], in float.
//
//   row   [ v0 v1 … v255 | v256 … ]       thread t has vectors t, t + threads, …: up to PER of them stay in its registers
//           │  │                          between the sum of squares and the scaling, so that each value is read once
//           t0 t1
//
// What bounds it: memory; four operations for each value that is read and written.
//
// Rows are read and written side by side, 16 sectors for a warp's 16 bytes a lane. Weights, in float, are not: a lane has 32 bytes of
// them, a sector, and asks for half of it twice, so that each of the two loads takes 32 sectors for 16 sectors' bytes. The second
// load finds them in the first-level cache, and all rows have the same; shuffling halves between lanes would cost more than it saves.
#include "prelude.cuh"

// One block per row. VECTOR: 8 where rows are whole vectors of 16 bytes, else 1.
template <typename T, int VECTOR, int PER, bool ADD>
__global__ void __launch_bounds__(1024) rms_norm(const T *__restrict__ x, T *__restrict__ residual, const float *__restrict__ weight, float eps, u32 width, T *__restrict__ out) {
    __shared__ float sums[WARP];
    u64 row = (u64)blockIdx.x * width;
    float values[PER][VECTOR];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        u32 column = (threadIdx.x + i * blockDim.x) * VECTOR;
        if (column >= width) continue;
        if constexpr (VECTOR == 8) {
            unpack8<T>(load16(x + row + column), values[i]);
            if constexpr (ADD) {
                float old[8];
                unpack8<T>(load16(residual + row + column), old);
#pragma unroll
                for (int j = 0; j < 8; j++) values[i][j] += old[j];
                store16(residual + row + column, pack8<T>(values[i]));
            }
        } else {
            values[i][0] = to_float(x[row + column]);
            if constexpr (ADD) {
                values[i][0] += to_float(residual[row + column]);
                residual[row + column] = from_float<T>(values[i][0]);
            }
        }
#pragma unroll
        for (int j = 0; j < VECTOR; j++) sum += values[i][j] * values[i][j];
    }
    float scale = 1.0f / sqrtf(block_sum(sum, sums) / width + eps);
#pragma unroll
    for (int i = 0; i < PER; i++) {
        u32 column = (threadIdx.x + i * blockDim.x) * VECTOR;
        if (column >= width) continue;
        float w[VECTOR];
        if constexpr (VECTOR == 8) load8(weight + column, w);
        else w[0] = weight[column];
#pragma unroll
        for (int j = 0; j < VECTOR; j++) values[i][j] = values[i][j] * scale * w[j];
        if constexpr (VECTOR == 8) store16(out + row + column, pack8<T>(values[i]));
        else out[row + column] = from_float<T>(values[i][0]);
    }
}

// A warp per head: queries, then keys. PAIRS: pairs of neighbours that a lane has at most.
template <typename T, int PAIRS>
__global__ void __launch_bounds__(128) qk_norm(T *__restrict__ qkv, const float *__restrict__ q_weight, const float *__restrict__ k_weight, float eps, u32 tokens, u32 heads, u32 kv_heads, u32 head_dim) {
    u32 warp = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
    u32 per_token = heads + kv_heads;
    if (warp >= tokens * per_token) return;
    u32 head = warp % per_token;
    T *row = qkv + (u64)(warp / per_token) * (heads + 2 * kv_heads) * head_dim + head * head_dim;
    const float *weight = head < heads ? q_weight : k_weight;
    float a[PAIRS], b[PAIRS], sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        u32 column = 2 * (lane + i * WARP);
        if (column >= head_dim) continue;
        u32 pair = *(const u32 *)(row + column);
        a[i] = low_half<T>(pair);
        b[i] = high_half<T>(pair);
        sum += a[i] * a[i] + b[i] * b[i];
    }
    float scale = 1.0f / sqrtf(warp_sum(sum) / head_dim + eps);
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
        u32 column = 2 * (lane + i * WARP);
        if (column >= head_dim) continue;
        // Both at once: two loads of 4 bytes would each have half of the sectors' bytes.
        float2 w = *(const float2 *)(weight + column);
        *(u32 *)(row + column) = pack<T>(a[i] * scale * w.x, b[i] * scale * w.y);
    }
}
