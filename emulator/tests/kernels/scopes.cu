// Kernels in pairs, as in races.cu: scopes of atomics and fences, what single lanes know, mbarriers, clusters, bulk copies, and
// registers. `data` has 4096 integers, `flag` 64, all zero.
#define KERNEL extern "C" __global__ void
#define LANE (threadIdx.x & 31)
#define WARP (threadIdx.x >> 5)
typedef unsigned u32;
typedef unsigned long long u64;

#define STORE(name, how) __device__ void name(int *p, int v) { asm volatile("st." how ".s32 [%0], %1;" ::"l"(p), "r"(v) : "memory"); }
#define LOAD(name, how) __device__ int name(int *p) { int v; asm volatile("ld." how ".s32 %0, [%1];" : "=r"(v) : "l"(p) : "memory"); return v; }
#define FENCE(name, how) __device__ void name() { asm volatile("fence." how ";" ::: "memory"); }
STORE(release_cta, "release.cta.global") STORE(release_cluster, "release.cluster.global")
STORE(release_gpu, "release.gpu.global") STORE(release_sys, "release.sys.global")
STORE(relaxed_cta, "relaxed.cta.global") STORE(relaxed_gpu, "relaxed.gpu.global")
LOAD(acquire_cta, "acquire.cta.global") LOAD(acquire_cluster, "acquire.cluster.global")
LOAD(acquire_gpu, "acquire.gpu.global") LOAD(acquire_sys, "acquire.sys.global")
LOAD(polled_cta, "relaxed.cta.global") LOAD(polled_gpu, "relaxed.gpu.global") LOAD(polled, "volatile.global")
FENCE(fence_cta, "acq_rel.cta") FENCE(fence_cluster, "acq_rel.cluster") FENCE(fence_gpu, "acq_rel.gpu") FENCE(fence_sc, "sc.gpu")
FENCE(fence_async, "proxy.async")
__device__ u32 at(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// --- Atomics that reach less than all who use them ---
KERNEL ok_gpu_adds(int *data, int *flag) { atomicAdd(flag, 1); }
KERNEL ok_block_adds(int *data, int *flag) { atomicAdd_block(flag + blockIdx.x, 1); }
KERNEL bad_block_adds(int *data, int *flag) { atomicAdd_block(flag, 1); }
KERNEL bad_block_and_gpu_adds(int *data, int *flag) { if (blockIdx.x) atomicAdd(flag, 1); else atomicAdd_block(flag, 1); }
KERNEL ok_block_and_gpu_adds(int *data, int *flag) { if (WARP) atomicAdd(flag + blockIdx.x, 1); else atomicAdd_block(flag + blockIdx.x, 1); }
KERNEL bad_block_poll(int *data, int *flag) { if (blockIdx.x) data[1] = polled_cta(flag); else relaxed_gpu(flag, 1); }
// With ordinary accesses.
template <bool BEFORE, bool AFTER> __device__ void mixed(int *flag) {
    int *count = flag + blockIdx.x;
    if (threadIdx.x == 0) *count = 5;
    if (BEFORE) __syncthreads();
    atomicAdd(count, 1);
    if (AFTER) __syncthreads();
    if (threadIdx.x == 32) flag[32 + blockIdx.x] = *count;
}
KERNEL ok_mixed(int *data, int *flag) { mixed<true, true>(flag); }
KERNEL bad_mixed_before(int *data, int *flag) { mixed<false, true>(flag); }
KERNEL bad_mixed_after(int *data, int *flag) { mixed<true, false>(flag); }

// --- Flags that reach less than the reader ---
#define MESSAGE(name, out, in) KERNEL name(int *data, int *flag) { \
    if (blockIdx.x == 0) { data[threadIdx.x] = 7; __syncthreads(); if (threadIdx.x == 0) { out; } } \
    else { if (threadIdx.x == 0) { in; } __syncthreads(); data[1024 + threadIdx.x] = data[63 - threadIdx.x]; } }
MESSAGE(ok_sys, release_sys(flag, 1), while (!acquire_sys(flag)) {})
MESSAGE(ok_sys_gpu, release_sys(flag, 1), while (!acquire_gpu(flag)) {})
MESSAGE(bad_release_cta, release_cta(flag, 1), while (!acquire_gpu(flag)) {})
MESSAGE(bad_acquire_cta, release_gpu(flag, 1), while (!acquire_cta(flag)) {})
MESSAGE(bad_release_cluster, release_cluster(flag, 1), while (!acquire_cluster(flag)) {})
MESSAGE(ok_fence_sc, fence_sc(); relaxed_gpu(flag, 1), while (!polled_gpu(flag)) {} fence_sc())
MESSAGE(bad_fence_block_out, __threadfence_block(); relaxed_gpu(flag, 1), while (!polled_gpu(flag)) {} __threadfence())
MESSAGE(bad_fence_block_in, __threadfence(); relaxed_gpu(flag, 1), while (!polled_gpu(flag)) {} __threadfence_block())
MESSAGE(ok_both_fences, __threadfence_block(); __threadfence(); __threadfence_block(); relaxed_gpu(flag, 1), while (!polled_gpu(flag)) {} __threadfence_block(); __threadfence())
MESSAGE(ok_system_fences, __threadfence_system(); *(volatile int *)flag = 1, while (!polled(flag)) {} __threadfence_system())
// Within one block, or one cluster, these reach.
#define WITHIN(name, out, in) KERNEL name(int *data, int *flag) { \
    int *own = data + blockIdx.x * 64; flag += blockIdx.x; \
    if (WARP == 0) { own[LANE] = 7; __syncwarp(); if (LANE == 0) { out; } } \
    else { if (LANE == 0) { in; } __syncwarp(); own[32 + LANE] = own[31 - LANE]; } }
WITHIN(ok_cta_in_block, release_cta(flag, 1), while (!acquire_cta(flag)) {})
WITHIN(ok_cta_fences_in_block, fence_cta(); relaxed_cta(flag, 1), while (!polled_cta(flag)) {} fence_cta())
WITHIN(ok_gpu_cta_in_block, release_gpu(flag, 1), while (!acquire_cta(flag)) {})
WITHIN(bad_no_fence_in_block, relaxed_cta(flag, 1), while (!polled_cta(flag)) {} fence_cta())

// --- A release hands on what was acquired before it ---
template <int MODE> __device__ void relay(int *data, int *flag) {
    if (threadIdx.x) return;
    if (blockIdx.x == 0) { data[0] = 1; release_gpu(flag, 1); }
    if (blockIdx.x == 1) {
        if (MODE == 1) while (!polled_gpu(flag)) {} else while (!acquire_gpu(flag)) {}
        if (MODE == 2) relaxed_gpu(flag + 1, 1); else release_gpu(flag + 1, 1);
    }
    if (blockIdx.x == 2) { while (!acquire_gpu(flag + 1)) {} data[1] = data[0]; }
}
KERNEL ok_relay(int *data, int *flag) { relay<0>(data, flag); }
KERNEL bad_relay_in(int *data, int *flag) { relay<1>(data, flag); }
KERNEL bad_relay_out(int *data, int *flag) { relay<2>(data, flag); }
// From a thread of the block to another by a barrier, and on by a fence of that one.
template <bool SYNC> __device__ void through_block(int *data, int *flag) {
    if (blockIdx.x == 0) {
        data[threadIdx.x] = 3;
        if (SYNC) __syncthreads();
        if (threadIdx.x == 63) { __threadfence(); relaxed_gpu(flag, 1); }
    } else if (threadIdx.x == 0) {
        while (!acquire_gpu(flag)) {}
        data[64] = data[0];
    }
}
KERNEL ok_through_block(int *data, int *flag) { through_block<true>(data, flag); }
KERNEL bad_through_block(int *data, int *flag) { through_block<false>(data, flag); }

// --- What one lane acquires is known to it alone, until lanes synchronise ---
template <u32 MASK, int OUT> __device__ void lane_acquires(int *data, int *flag) {
    if (blockIdx.x == 0) {
        data[LANE] = 7;
        __syncwarp();
        if (LANE == 0) release_gpu(flag, 1);
    } else {
        if (LANE == 0) while (!acquire_gpu(flag)) {}
        if (MASK && (MASK >> LANE & 1)) __syncwarp(MASK);
        if (LANE < OUT) data[64 + LANE] = data[LANE];
    }
}
KERNEL ok_lane_itself(int *data, int *flag) { lane_acquires<0, 1>(data, flag); }
KERNEL ok_lane_and_warp(int *data, int *flag) { lane_acquires<~0u, 32>(data, flag); }
KERNEL ok_lane_and_half(int *data, int *flag) { lane_acquires<0xffff, 16>(data, flag); }
KERNEL bad_lane_and_warp(int *data, int *flag) { lane_acquires<0, 32>(data, flag); }
KERNEL bad_lane_and_half(int *data, int *flag) { lane_acquires<0xffff, 17>(data, flag); }
// The fence must be of the thread that reads or writes the flag.
template <int WRITER, int READER> __device__ void lane_fences(int *data, int *flag) {
    if (blockIdx.x == 0) {
        data[LANE] = 7;
        __syncwarp();
        if (LANE == WRITER) __threadfence();
        if (LANE == 0) relaxed_gpu(flag, 1);
    } else {
        if (LANE == 0) while (!polled_gpu(flag)) {}
        if (LANE == READER) __threadfence();
        __syncwarp();
        data[64 + LANE] = data[LANE];
    }
}
KERNEL ok_lane_fences(int *data, int *flag) { lane_fences<0, 0>(data, flag); }
KERNEL bad_lane_fences_out(int *data, int *flag) { lane_fences<1, 0>(data, flag); }
KERNEL bad_lane_fences_in(int *data, int *flag) { lane_fences<0, 1>(data, flag); }
// Lanes with a lock each: what one does under its lock another does under another.
template <bool OWN> __device__ void lane_locks(int *data, int *flag) {
    int lock = OWN ? 0 : LANE & 1;
    for (bool done = false; !done;)
        if (atomicCAS(flag + lock, 0, 1) == 0) { __threadfence(); data[0] += 1; __threadfence(); atomicExch(flag + lock, 0); done = true; }
}
KERNEL ok_lane_locks(int *data, int *flag) { lane_locks<true>(data, flag); }
KERNEL bad_lane_locks(int *data, int *flag) { lane_locks<false>(data, flag); }

// --- mbarriers ---
__device__ void init(u64 *bar, int count) { asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at(bar)), "r"(count) : "memory"); }
__device__ void arrive(u64 *bar) { asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(at(bar)) : "memory"); }
__device__ void wait(u64 *bar, int parity) {
    int done;
    do asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.s32 %0, 1, 0, p; }" : "=r"(done) : "r"(at(bar)), "r"(parity) : "memory");
    while (!done);
}
// One lane of the producer fills for its warp and arrives, one lane of the consumer waits for its warp.
template <bool OUT, bool IN> __device__ void hand_over(int *data) {
    __shared__ u64 bar;
    __shared__ int s[32];
    if (threadIdx.x == 0) init(&bar, 1);
    __syncthreads();
    if (WARP == 0) {
        s[LANE] = LANE;
        if (OUT) __syncwarp();
        if (LANE == 0) arrive(&bar);
    } else {
        if (LANE == 0) wait(&bar, 0);
        if (IN) __syncwarp();
        data[LANE] = s[31 - LANE];
    }
}
KERNEL ok_hand_over(int *data, int *flag) { hand_over<true, true>(data); }
KERNEL bad_hand_over_out(int *data, int *flag) { hand_over<false, true>(data); }
KERNEL bad_hand_over_in(int *data, int *flag) { hand_over<true, false>(data); }
// All lanes arrive and wait.
KERNEL ok_all_arrive(int *data, int *flag) {
    __shared__ u64 bar;
    __shared__ int s[64];
    if (threadIdx.x == 0) init(&bar, 64);
    __syncthreads();
    for (int i = 0; i < 3; i++) {
        s[threadIdx.x] = i;
        arrive(&bar);
        wait(&bar, i & 1);
        data[threadIdx.x] = s[63 - threadIdx.x];
        __syncthreads();
    }
}

// --- Clusters of two blocks ---
#define CLUSTER_ARRIVE(how) asm volatile("barrier.cluster.arrive" how ".aligned;" ::: "memory")
#define CLUSTER_WAIT() asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory")
template <int MODE> __device__ void across(int *data, int *flag) {
    int block = blockIdx.x, other = block ^ 1;
    data[block * 64 + threadIdx.x] = block;
    if (MODE == 0) { CLUSTER_ARRIVE(".release"); CLUSTER_WAIT(); }
    if (MODE == 1) { CLUSTER_ARRIVE(".relaxed"); CLUSTER_WAIT(); }
    if (MODE == 2) { fence_cluster(); CLUSTER_ARRIVE(".relaxed"); CLUSTER_WAIT(); }
    if (MODE == 3) { fence_cta(); CLUSTER_ARRIVE(".relaxed"); CLUSTER_WAIT(); }
    if (MODE > 3) {
        __syncthreads();
        if (threadIdx.x == 0) {
            if (MODE == 4) { release_cluster(flag + block, 1); while (!acquire_cluster(flag + other)) {} }
            if (MODE == 5) { fence_cluster(); relaxed_gpu(flag + block, 1); while (!polled_gpu(flag + other)) {} fence_cluster(); }
            if (MODE == 6) { release_cta(flag + block, 1); while (!acquire_cluster(flag + other)) {} }
        }
        __syncthreads();
    }
    data[1024 + block * 64 + threadIdx.x] = data[other * 64 + threadIdx.x];
}
KERNEL ok_cluster_barrier(int *data, int *flag) { across<0>(data, flag); }
KERNEL bad_cluster_relaxed(int *data, int *flag) { across<1>(data, flag); }
KERNEL ok_cluster_fence(int *data, int *flag) { across<2>(data, flag); }
KERNEL bad_cluster_fence(int *data, int *flag) { across<3>(data, flag); }
KERNEL ok_cluster_flags(int *data, int *flag) { across<4>(data, flag); }
KERNEL ok_cluster_fences(int *data, int *flag) { across<5>(data, flag); }
KERNEL bad_cluster_flags(int *data, int *flag) { across<6>(data, flag); }
KERNEL ok_cluster_adds(int *data, int *flag) { asm volatile("red.relaxed.cluster.global.add.s32 [%0], 1;" ::"l"(flag) : "memory"); }

// --- Bulk stores: `.read` waits until shared memory may be written again, not until the copy can be read ---
template <int WAIT> __device__ void drain(int *data, int *flag) {
    __shared__ __align__(128) int s[64];
    s[threadIdx.x] = threadIdx.x;
    fence_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 256;" ::"l"(data), "r"(at(s)) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        if (WAIT < 2) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
        if (WAIT == 2) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
        if (WAIT < 3) s[0] = 9;
        if (WAIT > 0) flag[0] = data[1];
    }
}
KERNEL ok_drain_read(int *data, int *flag) { drain<0>(data, flag); }
KERNEL bad_drain_read(int *data, int *flag) { drain<1>(data, flag); }
KERNEL ok_drain(int *data, int *flag) { drain<2>(data, flag); }
KERNEL bad_drain(int *data, int *flag) { drain<3>(data, flag); }

// --- Registers: 384 threads have 168 each ---
#define TAKE(n) asm volatile("setmaxnreg.inc.sync.aligned.u32 " #n ";")
#define GIVE(n) asm volatile("setmaxnreg.dec.sync.aligned.u32 " #n ";")
#define BOUNDED extern "C" __global__ void __launch_bounds__(384, 1)
BOUNDED ok_registers(int *data, int *flag) { if (threadIdx.x < 128) TAKE(232); else if (threadIdx.x < 256) GIVE(40); else TAKE(232); data[threadIdx.x] = 1; }
BOUNDED bad_registers(int *data, int *flag) { if (threadIdx.x < 128) GIVE(40); else TAKE(240); __syncthreads(); data[threadIdx.x] = 1; }
BOUNDED bad_no_dec(int *data, int *flag) { if (threadIdx.x < 128) TAKE(176); __syncthreads(); data[threadIdx.x] = 1; }
BOUNDED bad_dec(int *data, int *flag) { GIVE(176); data[threadIdx.x] = 1; }
KERNEL ok_unbounded(int *data, int *flag) { TAKE(240); data[threadIdx.x] = 1; }

// --- Pairs of which one half holds nothing ---
template <int HALF> __device__ void pair(int *data) {
    int v = threadIdx.x;
    asm volatile(
        "{ .reg .b32 nothing, low, high; .reg .b64 p, q;\n"
        "  mov.b64 p, {%0, nothing};\n"
        "  mov.b64 q, p;\n"
        "  mov.b64 {low, high}, q;\n"
        "  .reg .pred is_low; setp.eq.s32 is_low, %1, 0;\n"
        "  @is_low mov.b32 %0, low; @!is_low add.s32 %0, high, 1; }" : "+r"(v) : "r"(HALF));
    data[threadIdx.x] = v;
}
KERNEL ok_half(int *data, int *flag) { pair<0>(data); }
KERNEL bad_half(int *data, int *flag) { pair<1>(data); }
KERNEL bad_whole(int *data, int *flag) {
    u64 v;
    asm volatile("{ .reg .b32 nothing; .reg .b64 p; mov.b64 p, {%1, nothing}; add.u64 %0, p, 1; }" : "=l"(v) : "r"(threadIdx.x));
    ((u64 *)data)[threadIdx.x] = v;
}
KERNEL bad_moved(int *data, int *flag) {
    int v;
    asm volatile("{ .reg .b32 nothing, moved; mov.b32 moved, nothing; mov.b32 %0, moved; }" : "=r"(v));
    data[threadIdx.x] = v;
}
KERNEL ok_written_later(int *data, int *flag) {
    int v = threadIdx.x;
    asm volatile("{ .reg .b32 a, b; .reg .pred p; setp.gt.s32 p, %0, 7; @p mov.b32 a, 5; mov.b32 b, a; @!p mov.b32 b, 6; add.s32 %0, b, 1; }" : "+r"(v));
    data[threadIdx.x] = v;
}
