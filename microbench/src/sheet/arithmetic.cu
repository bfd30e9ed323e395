// Rates and latencies of the units beside the tensor cores.
//
// A thread keeps CHAINS numbers and changes each by the same operation again and again: UNROLL operations in a loop, in turn over
// the chains. Each is written as PTX, so that the compiler cannot find a shorter way, and its result is known.
#include "prelude.cuh"

struct Fma { // x = x a + b
    static __device__ __forceinline__ void step(u32 &x, u32 a, u32 b) {
        asm volatile("{ .reg .f32 x, a, b; mov.b32 x, %0; mov.b32 a, %1; mov.b32 b, %2; fma.rn.f32 x, x, a, b; mov.b32 %0, x; }"
                     : "+r"(x) : "r"(a), "r"(b));
    }
};

// x = f(x + a), which comes to rest where x = f(x + a): the addition is an operation of another unit, and hides behind f.
struct Ex2 {
    static __device__ __forceinline__ void step(u32 &x, u32 a, u32) {
        asm volatile("{ .reg .f32 x, a; mov.b32 x, %0; mov.b32 a, %1; add.ftz.f32 x, x, a; ex2.approx.ftz.f32 x, x; mov.b32 %0, x; }"
                     : "+r"(x) : "r"(a));
    }
};
struct Rcp {
    static __device__ __forceinline__ void step(u32 &x, u32 a, u32) {
        asm volatile("{ .reg .f32 x, a; mov.b32 x, %0; mov.b32 a, %1; add.ftz.f32 x, x, a; rcp.approx.ftz.f32 x, x; mov.b32 %0, x; }"
                     : "+r"(x) : "r"(a));
    }
};
struct Sin {
    static __device__ __forceinline__ void step(u32 &x, u32 a, u32) {
        asm volatile("{ .reg .f32 x, a; mov.b32 x, %0; mov.b32 a, %1; add.ftz.f32 x, x, a; sin.approx.ftz.f32 x, x; mov.b32 %0, x; }"
                     : "+r"(x) : "r"(a));
    }
};

struct Imad { // x = x a + b
    static __device__ __forceinline__ void step(u32 &x, u32 a, u32 b) {
        asm volatile("mad.lo.u32 %0, %0, %1, %2;" : "+r"(x) : "r"(a), "r"(b));
    }
};
// x = x + a + b: two additions, of which NVRTC 13.0 makes one IADD3 for sm_90 and newer, and two for what is older.
struct Iadd3 {
    static __device__ __forceinline__ void step(u32 &x, u32 a, u32 b) {
        asm volatile("{ .reg .u32 t; add.u32 t, %0, %1; add.u32 %0, t, %2; }" : "+r"(x) : "r"(a), "r"(b));
    }
};

// `start[chain][thread]` is where a chain begins, `out[block][chain][thread]` where it ended.
template <class OPERATION, int CHAINS, int UNROLL>
__global__ void __launch_bounds__(1024) arithmetic(u32 a, u32 b, u32 iterations, const u32 *start, u32 *out, u64 *stamps) {
    u32 x[CHAINS];
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++) x[chain] = start[chain * blockDim.x + threadIdx.x];
    __syncthreads();
    Moment from = begins();
#pragma unroll 1
    for (u32 i = 0; i < iterations; i++) {
#pragma unroll
        for (int step = 0; step < UNROLL; step++) OPERATION::step(x[step % CHAINS], a, b);
    }
#pragma unroll
    for (int chain = 0; chain < CHAINS; chain++) out[(blockIdx.x * CHAINS + chain) * blockDim.x + threadIdx.x] = x[chain];
    __syncthreads();
    Moment to = ends();
    if (threadIdx.x == 0) put_stamp(stamps, from, to);
}
