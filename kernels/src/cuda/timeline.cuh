// Events that a kernel writes while it runs: which warp does what from when to when.
//
//   #include "timeline.cuh"
//   timeline_begin(LOAD);          // a role, a small number of the kernel's own: `// stepscope: role 0 = load` names it
//   …
//   timeline_end(LOAD);
//
// Without the macro STEPSCOPE_TIMELINE all of it is nothing, and the machine code is what it would be without. With it, the first lane
// of a warp writes 16 bytes for each event: such a kernel is slower, and %globaltimer counts in steps that are as long as 1 µs on some
// GPUs (32 ns on an H100), so that it says what overlaps with what, not how long an instruction takes.
#pragma once

#ifdef STEPSCOPE_TIMELINE
struct __align__(16) TimelineEvent {
    unsigned long long time_ns;  // %globaltimer
    unsigned block;              // x fastest
    unsigned short sm;           // %smid
    unsigned char warp;          // of the block
    unsigned char what;          // twice the role, and one more for an end
};

constexpr unsigned TIMELINE_CAPACITY = 65536;
extern "C" {
__device__ TimelineEvent stepscope_timeline_events[TIMELINE_CAPACITY];
// Events so far, those for which there was no room among them.
__device__ unsigned stepscope_timeline_count;
}

__device__ __forceinline__ void timeline_event(unsigned what) {
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    if (thread % 32 != 0) return;
    TimelineEvent event;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(event.time_ns) :: "memory");
    unsigned sm;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    event.block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    event.sm = (unsigned short)sm;
    event.warp = (unsigned char)(thread / 32);
    event.what = (unsigned char)what;
    unsigned place = atomicAdd(&stepscope_timeline_count, 1u);
    if (place < TIMELINE_CAPACITY) stepscope_timeline_events[place] = event;
}
#define timeline_begin(role) timeline_event(2 * (role))
#define timeline_end(role) timeline_event(2 * (role) + 1)
#else
#define timeline_begin(role) ((void)0)
#define timeline_end(role) ((void)0)
#endif
