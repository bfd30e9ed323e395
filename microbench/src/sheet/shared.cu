// Bandwidth of shared memory: every thread of a block reads its own 16 bytes, UNROLL times in a loop. A warp's 512 bytes are four
// wavefronts of 128 bytes without a conflict.
#include "prelude.cuh"

constexpr u32 THREADS = 1024;

// sums[block * THREADS + thread]: of all words that the thread read, modulo 2^32.
template <int UNROLL>
__global__ void __launch_bounds__(THREADS) shared_read(u32 iterations, u32 *sums, u64 *stamps) {
    __shared__ vec16 words[THREADS];
    u32 thread = threadIdx.x, first = 4 * thread + 1;
    words[thread] = {first, first + 1, first + 2, first + 3};
    u32 at = (u32)__cvta_generic_to_shared(words + thread), sum = 0;
    __syncthreads();
    Moment from = begins();
#pragma unroll 1
    for (u32 i = 0; i < iterations; i++) {
#pragma unroll
        for (int j = 0; j < UNROLL; j++) {
            vec16 v;
            // `volatile` in the PTX: the assembler would otherwise read once.
            asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
            sum += v.x + v.y + v.z + v.w;
        }
    }
    sums[blockIdx.x * THREADS + thread] = sum;
    __syncthreads();
    Moment to = ends();
    if (thread == 0) put_stamp(stamps, from, to);
}
