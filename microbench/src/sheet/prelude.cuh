// What every probe includes. No header of NVIDIA's is needed.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 WARP = 32;

struct __align__(16) vec16 { u32 x, y, z, w; };

// ---- clocks --------------------------------------------------------------------------------------------------------------

// Cycles of this multiprocessor, and nanoseconds of the GPU. Both in one place, so that a probe knows the clock it ran at.
struct Moment { u64 cycles, ns; };

__device__ __forceinline__ u64 clock64_now() {
    u64 t;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(t)::"memory");
    return t;
}
__device__ __forceinline__ u64 globaltimer() {
    u64 t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t)::"memory");
    return t;
}
__device__ __forceinline__ u32 smid() {
    u32 id;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
    return id;
}
// The timer first and the cycles last when it begins, the other way round when it ends: the cycles hold nothing but the probe.
__device__ __forceinline__ Moment begins() {
    Moment m;
    m.ns = globaltimer();
    m.cycles = clock64_now();
    return m;
}
__device__ __forceinline__ Moment ends() {
    Moment m;
    m.cycles = clock64_now();
    m.ns = globaltimer();
    return m;
}
// A block's stamp: cycles and nanoseconds at the begin, at the end, and the multiprocessor.
__device__ __forceinline__ void put_stamp(u64 *stamps, Moment from, Moment to) {
    u64 *at = stamps + 5 * (u64)blockIdx.x;
    at[0] = from.cycles;
    at[1] = to.cycles;
    at[2] = from.ns;
    at[3] = to.ns;
    at[4] = smid();
}

// ---- sums ----------------------------------------------------------------------------------------------------------------

// The sum over a block of whole warps, in thread 0.
__device__ __forceinline__ u32 block_sum(u32 x) {
    __shared__ u32 warps[WARP];
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = x;
    __syncthreads();
    u32 sum = 0;
    if (threadIdx.x == 0)
        for (u32 warp = 0; warp < blockDim.x / WARP; warp++) sum += warps[warp];
    return sum;
}
