// out[0][b], out[1][b], out[2][b] = the multiprocessor that block b runs on, its cycles so far, and the nanoseconds of the GPU's timer.
//
// Shapes: out [3, blocks] of 64 bits, a block of one thread for each multiprocessor.
//
//   out   [ %smid       of block 0 | block 1 | … ]
//         [ %clock64    of block 0 | block 1 | … ]     cycles, at the rate that the multiprocessor runs at
//         [ %globaltimer of block 0 | block 1 | … ]     nanoseconds, whatever the clock does
//
// Two launches in a stream, and the cycles of one multiprocessor between them over the nanoseconds are the clock that the GPU held.
// Each block has a place of its own, so that it does not matter how blocks come to multiprocessors, nor whether two share one.
//
// What bounds it: latency. A thread reads three registers.
#include "prelude.cuh"

__global__ void __launch_bounds__(1) sm_clock(u64 *__restrict__ out, u32 blocks) {
    u32 sm;
    u64 cycles, ns;
    // In this order, and with nothing between the two that are compared.
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles)::"memory");
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
    if (blockIdx.x >= blocks) return;
    out[blockIdx.x] = sm;
    out[blocks + blockIdx.x] = cycles;
    out[2 * blocks + blockIdx.x] = ns;
}
