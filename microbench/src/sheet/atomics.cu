// Rates of additions to counters in L2. Lane l of every warp adds to the counter `l * spacing` words on: 0, all lanes to one; 1, to
// the 32 words of a line of 128 bytes; 32, each to a line of its own.
#include "prelude.cuh"

// `atom` brings the counter's value back, `red` does not. out[block * blockDim.x + thread]: the sum of what came back.
template <bool RETURNS>
__global__ void __launch_bounds__(256) atomics(u32 *counters, u32 spacing, u32 iterations, u32 *out) {
    constexpr int UNROLL = 16;
    u32 *counter = counters + threadIdx.x % WARP * spacing;
    u32 one = spacing < 64 ? 1 : 0, sum = 0; // known at run time only, so that a warp's additions are not made one
#pragma unroll 1
    for (u32 i = 0; i < iterations; i++) {
#pragma unroll
        for (int j = 0; j < UNROLL; j++) {
            if (RETURNS) {
                u32 before;
                asm volatile("atom.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(counter), "r"(one) : "memory");
                sum += before;
            } else {
                asm volatile("red.global.add.u32 [%0], %1;" ::"l"(counter), "r"(one) : "memory");
            }
        }
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
