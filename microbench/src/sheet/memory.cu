// Bandwidth of device memory and of the L2 cache.
//
// A set is read in chunks of 64 KiB, which a block reads with all loads of its threads under way, UNROLL of each. Chunks are dealt to
// the blocks in turn, `passes` times:
//
//     chunk | 0 | 1 | 2 | 3 | 0 | 1 | 2 | 3 | 0 …        a set of four chunks, read again and again
//     block | 0 | 1 | 2 | 3 | 4 | 5 | … | 0 | 1 …
//
// Every access is for L2: `.cg` passes by the first-level cache. What is in memory tells whether all of it was read: word i is
// `i * FACTOR + seed`, whose sum modulo 2^32 has a closed form.
#include "prelude.cuh"

constexpr u32 FACTOR = 0x9E3779B1u;
constexpr int UNROLL = 8;

__device__ __forceinline__ vec16 load_l2(const vec16 *p) {
    vec16 v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}
__device__ __forceinline__ void store(vec16 *p, vec16 v) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
__device__ __forceinline__ vec16 words_at(u64 vector, u32 seed) {
    u32 first = 4 * (u32)vector * FACTOR + seed;
    return {first, first + FACTOR, first + 2 * FACTOR, first + 3 * FACTOR};
}

constexpr u32 THREADS = 512;
constexpr u32 CHUNK = THREADS * UNROLL; // vectors

// sums[block]: of all words that the block read, modulo 2^32.
extern "C" __global__ void __launch_bounds__(THREADS) read_set(const vec16 *set, u32 chunks, u32 passes, u32 *sums) {
    u32 sum = 0;
    for (u32 turn = blockIdx.x; turn < chunks * passes; turn += gridDim.x) {
        const vec16 *chunk = set + (u64)(turn % chunks) * CHUNK + threadIdx.x;
        vec16 v[UNROLL];
#pragma unroll
        for (int j = 0; j < UNROLL; j++) v[j] = load_l2(chunk + j * THREADS);
#pragma unroll
        for (int j = 0; j < UNROLL; j++) sum += v[j].x + v[j].y + v[j].z + v[j].w;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) write_set(vec16 *set, u64 vectors, u32 seed) {
    u64 stride = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < vectors; i += stride) store(set + i, words_at(i, seed));
}

extern "C" __global__ void __launch_bounds__(THREADS) copy_set(vec16 *to, const vec16 *from, u64 vectors) {
    u64 stride = (u64)gridDim.x * blockDim.x;
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + (UNROLL - 1) * stride < vectors; i += UNROLL * stride) {
        vec16 v[UNROLL];
#pragma unroll
        for (int j = 0; j < UNROLL; j++) v[j] = load_l2(from + i + j * stride);
#pragma unroll
        for (int j = 0; j < UNROLL; j++) store(to + i + j * stride, v[j]);
    }
    for (; i < vectors; i += stride) store(to + i, load_l2(from + i));
}
