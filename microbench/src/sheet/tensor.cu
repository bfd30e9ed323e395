// Rates and latency of the tensor cores by `mma.sync`: a warp keeps CHAINS tiles D and adds A B of its own to each in turn, with
// the operands in registers all the time.
#include "prelude.cuh"

#define MMA(NAME, SHAPE_AND_TYPES, SUM)                                                                                            \
    struct NAME {                                                                                                                  \
        static __device__ __forceinline__ void mma(u32 (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {                               \
            asm volatile("{ .reg ." SUM " d0, d1, d2, d3; mov.b32 d0, %0; mov.b32 d1, %1; mov.b32 d2, %2; mov.b32 d3, %3; "        \
                         "mma.sync.aligned." SHAPE_AND_TYPES " {d0, d1, d2, d3}, {%4, %5, %6, %7}, {%8, %9}, {d0, d1, d2, d3}; "    \
                         "mov.b32 %0, d0; mov.b32 %1, d1; mov.b32 %2, d2; mov.b32 %3, d3; }"                                       \
                         : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])                                                          \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                          \
        }                                                                                                                          \
    }
MMA(Bf16, "m16n8k16.row.col.f32.bf16.bf16.f32", "f32");
MMA(F16, "m16n8k16.row.col.f32.f16.f16.f32", "f32");
MMA(Tf32, "m16n8k8.row.col.f32.tf32.tf32.f32", "f32");
MMA(S8, "m16n8k32.row.col.s32.s8.s8.s32", "s32");

// `operands`: A as [4][32 lanes], then B of each chain as [2][32 lanes]. `out[block][warp][chain][4][32 lanes]`: D. UNROLL
// instructions in a loop.
template <class INSTRUCTION, int CHAINS, int UNROLL>
__global__ void __launch_bounds__(512) mma_sync(u32 iterations, const u32 *operands, u32 *out, u64 *stamps) {
    u32 lane = threadIdx.x % WARP, warp = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    u32 a[4], b[CHAINS][2], d[CHAINS][4];
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = operands[i * WARP + lane];
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++) {
#pragma unroll
        for (int i = 0; i < 2; i++) b[chain][i] = operands[(4 + 2 * chain + i) * WARP + lane];
#pragma unroll
        for (int i = 0; i < 4; i++) d[chain][i] = 0;
    }
    __syncthreads();
    Moment from = begins();
#pragma unroll 1
    for (u32 i = 0; i < iterations; i++) {
#pragma unroll
        for (int step = 0; step < UNROLL; step++) {
            constexpr int MOST = CHAINS;
            INSTRUCTION::mma(d[step % MOST], a, b[step % MOST][0], b[step % MOST][1]);
        }
    }
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++)
#pragma unroll
        for (int i = 0; i < 4; i++) out[((warp * CHAINS + chain) * 4 + i) * WARP + lane] = d[chain][i];
    __syncthreads();
    Moment to = ends();
    if (threadIdx.x == 0) put_stamp(stamps, from, to);
}
