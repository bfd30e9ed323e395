// out = silu(gate) * up, silu(x) = x / (1 + exp(-x)).
//
// Shapes: gate_up [rows, 2 * width], each row its gates and then its ups; out [rows, width].
//
//   gate_up row   [ g0 g1 … g(width-1) | u0 u1 … u(width-1) ]
//                    └─ 8 values ─┐       └─ 8 values ─┐
//   out row       [ 8 values of one thread … ]
//
// A thread has VECTOR neighbours of a row: 8 (16 bytes) where rows are whole vectors, else 1. What bounds it: memory.
#include "prelude.cuh"

__device__ __forceinline__ float silu_mul_one(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

template <typename T, int VECTOR>
__global__ void __launch_bounds__(256) silu_mul(const T *__restrict__ gate_up, T *__restrict__ out, u32 rows, u32 width) {
    u32 per_row = width / VECTOR;
    u64 item = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= (u64)rows * per_row) return;
    u64 row = item / per_row, column = item % per_row * VECTOR;
    const T *gate = gate_up + row * 2 * width + column, *up = gate + width;
    T *to = out + row * width + column;
    if constexpr (VECTOR == 8) {
        float g[8], u[8];
        unpack8<T>(load16(gate), g);
        unpack8<T>(load16(up), u);
#pragma unroll
        for (int i = 0; i < 8; i++) g[i] = silu_mul_one(g[i], u[i]);
        store16_whole(to, pack8<T>(g));
    } else {
        *to = from_float<T>(silu_mul_one(to_float(*gate), to_float(*up)));
    }
}
