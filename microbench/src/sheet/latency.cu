// Latencies by pointer chase: each load gives the address of the next one.
//
// A ring of slots, `stride` bytes apart, is linked in an order that the host chose at random (one cycle through all of them, so that
// nothing can be fetched ahead). `skew` moves each slot within its stride, so that slots whose stride is a large power of two do not
// all fall into the same few sets of a cache.
#include "prelude.cuh"

__device__ __forceinline__ u64 slot_at(u64 base, u64 slot, u64 stride, u64 skew) { return base + slot * stride + slot * skew % stride; }

// next[order[i]] = order[i + 1]: the slots of the ring, in order.
extern "C" __global__ void link_ring(u64 base, const u32 *order, u32 slots, u64 stride, u64 skew) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < slots; i += gridDim.x * blockDim.x) {
        u32 next = i + 1 == slots ? 0 : i + 1;
        *(u64 *)slot_at(base, order[i], stride, skew) = slot_at(base, order[next], stride, skew);
    }
}

// Reads every slot once, with all multiprocessors, so that L2 holds as many as it can.
extern "C" __global__ void touch_ring(u64 base, u32 slots, u64 stride, u64 skew, u32 *sink) {
    u64 seen = 0;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < slots; i += gridDim.x * blockDim.x) {
        u64 next;
        asm volatile("ld.global.cg.u64 %0, [%1];" : "=l"(next) : "l"(slot_at(base, i, stride, skew)));
        seen |= next;
    }
    if (seen == 0) *sink = 1; // never: addresses are not zero
}

enum Cache { FIRST_LEVEL, L2 };

template <Cache CACHE> __device__ __forceinline__ u64 follow(u64 at) {
    u64 next;
    if (CACHE == FIRST_LEVEL) asm volatile("ld.global.u64 %0, [%1];" : "=l"(next) : "l"(at) : "memory");
    else asm volatile("ld.global.cg.u64 %0, [%1];" : "=l"(next) : "l"(at) : "memory");
    return next;
}

// One thread follows the ring from `start`: `warm` steps without a clock, then UNROLL times `iterations`. *last is where it ended.
template <Cache CACHE, int UNROLL>
__global__ void chase(u64 start, u32 warm, u32 iterations, u64 *last, u64 *stamps) {
    u64 at = start;
#pragma unroll 1
    for (u32 i = 0; i < warm; i++) at = follow<CACHE>(at);
    Moment from = begins();
#pragma unroll 1
    for (u32 i = 0; i < iterations; i++) {
#pragma unroll
        for (int j = 0; j < UNROLL; j++) at = follow<CACHE>(at);
    }
    *last = at; // the clock is read when the last address is there
    Moment to = ends();
    put_stamp(stamps, from, to);
}

// The same in shared memory, whose ring moves on by `step` of SLOTS words. *last is the word's index.
template <int UNROLL>
__global__ void chase_shared(u32 step, u32 iterations, u32 *last, u64 *stamps) {
    constexpr u32 SLOTS = 1024;
    __shared__ u32 ring[SLOTS];
    u32 base = (u32)__cvta_generic_to_shared(ring);
#pragma unroll 1
    for (u32 i = 0; i < SLOTS; i++) ring[i] = base + 4 * ((i + step) % SLOTS);
    u32 at = base;
    Moment from = begins();
#pragma unroll 1
    for (u32 i = 0; i < iterations; i++) {
#pragma unroll
        for (int j = 0; j < UNROLL; j++) asm volatile("ld.volatile.shared.u32 %0, [%1];" : "=r"(at) : "r"(at) : "memory");
    }
    *last = (at - base) / 4;
    Moment to = ends();
    put_stamp(stamps, from, to);
}
