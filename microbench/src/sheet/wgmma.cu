// Rates of the tensor cores by `wgmma` (sm_90a): a warpgroup multiplies 64 x 256 of K, both operands in shared memory.
//
// A has 64 rows of 128 bytes, B has 256 columns of 128 bytes, each with 128-byte swizzle: 16 bytes number c of a row r lie at
// c ^ (r % 8). Four instructions along K go through the 128 bytes (16 elements of 16 bits each, or 32 of 8 bits), and then begin anew.
#include "prelude.cuh"

constexpr u32 ROWS = 64, COLUMNS = 256, BYTES = 128, GROUP = 128;

// Start address, distance of groups of eight rows (1024 bytes), swizzle of 128 bytes; the leading offset is not used by it.
__device__ __forceinline__ u64 descriptor(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

#define FOUR(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIXTEEN(d, i) FOUR(d, i), FOUR(d, i + 4), FOUR(d, i + 8), FOUR(d, i + 12)
#define WGMMA(NAME, SHAPE_AND_TYPES, TRANSPOSITIONS)                                                                               \
    struct NAME {                                                                                                                  \
        static __device__ __forceinline__ void mma(float (&d)[COLUMNS / 2], u64 a, u64 b) {                                         \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned." SHAPE_AND_TYPES " {"                 \
                         "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                                                              \
                         "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"                                                              \
                         "}, %128, %129, p, 1, 1" TRANSPOSITIONS "; }"                                                            \
                         : SIXTEEN(d, 0), SIXTEEN(d, 16), SIXTEEN(d, 32), SIXTEEN(d, 48),                                                                                 \
                           SIXTEEN(d, 64), SIXTEEN(d, 80), SIXTEEN(d, 96), SIXTEEN(d, 112)                                                                                  \
                         : "l"(a), "l"(b));                                                                                        \
        }                                                                                                                          \
    }
WGMMA(Bf16, "m64n256k16.f32.bf16.bf16", ", 0, 0");
WGMMA(F16, "m64n256k16.f32.f16.f16", ", 0, 0");
WGMMA(E4m3, "m64n256k32.f32.e4m3.e4m3", "");

// `a` and `b` are what shared memory is to hold, byte for byte. out[block][warpgroup][128 registers][128 threads]: D. UNROLL
// instructions in a group that is waited for; the block's two warpgroups keep the tensor cores busy meanwhile.
template <class INSTRUCTION, int UNROLL>
__global__ void __launch_bounds__(2 * GROUP) wgmma(u32 iterations, const vec16 *a, const vec16 *b, float *out, u64 *stamps) {
    __shared__ __align__(1024) vec16 rows[ROWS * BYTES / 16];
    __shared__ __align__(1024) vec16 columns[COLUMNS * BYTES / 16];
    for (u32 i = threadIdx.x; i < ROWS * BYTES / 16; i += blockDim.x) rows[i] = a[i];
    for (u32 i = threadIdx.x; i < COLUMNS * BYTES / 16; i += blockDim.x) columns[i] = b[i];
    u32 at_a = (u32)__cvta_generic_to_shared(rows), at_b = (u32)__cvta_generic_to_shared(columns);
    float d[COLUMNS / 2];
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) d[i] = 0;
    asm volatile("fence.proxy.async;" ::: "memory");
    __syncthreads();
    Moment from = begins();
#pragma unroll 1
    for (u32 i = 0; i < iterations; i++) {
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int step = 0; step < UNROLL; step++) INSTRUCTION::mma(d, descriptor(at_a + step % 4 * 32), descriptor(at_b + step % 4 * 32));
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    }
    __syncthreads();
    Moment to = ends();
    u32 group = blockIdx.x * (blockDim.x / GROUP) + threadIdx.x / GROUP;
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) out[(group * (COLUMNS / 2) + i) * GROUP + threadIdx.x % GROUP] = d[i];
    if (threadIdx.x == 0) put_stamp(stamps, from, to);
}
