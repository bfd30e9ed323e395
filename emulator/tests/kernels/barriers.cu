// Barriers in shared memory in every use, and copies between the blocks of a cluster.
typedef unsigned u32;
typedef unsigned long long u64;
typedef unsigned short u16;

#define SMEM(p) ((u32)__cvta_generic_to_shared(p))
#define INIT(bar, count) asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SMEM(bar)), "r"(count) : "memory")
#define FENCE_INIT() asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory")
#define FENCE_ASYNC() asm volatile("fence.proxy.async;" ::: "memory")
#define ARRIVE(bar) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SMEM(bar)) : "memory")
#define EXPECT(bar, bytes) asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SMEM(bar)), "r"(bytes) : "memory")
#define WAIT(bar, parity) asm volatile("{ .reg .pred p; LAB_WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @!p bra LAB_WAIT; }" ::"r"(SMEM(bar)), "r"(parity) : "memory")
#define CLUSTER_SYNC() asm volatile("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;" ::: "memory")

__device__ u64 arrive_state(u64 *bar, u32 count) {
    u64 state;
    asm volatile("mbarrier.arrive.shared::cta.b64 %0, [%1], %2;" : "=l"(state) : "r"(SMEM(bar)), "r"(count) : "memory");
    return state;
}
__device__ int test_state(u64 *bar, u64 state) {
    int done;
    asm volatile("{ .reg .pred p; mbarrier.test_wait.shared::cta.b64 p, [%1], %2; selp.s32 %0, 1, 0, p; }" : "=r"(done) : "r"(SMEM(bar)), "l"(state) : "memory");
    return done;
}
__device__ int test_parity(u64 *bar, u32 parity) {
    int done;
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.s32 %0, 1, 0, p; }" : "=r"(done) : "r"(SMEM(bar)), "r"(parity) : "memory");
    return done;
}
__device__ int pending(u64 state) {
    int count;
    asm volatile("mbarrier.pending_count.b64 %0, %1;" : "=r"(count) : "l"(state));
    return count;
}
__device__ u32 cluster_rank() { u32 r; asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r)); return r; }
__device__ u32 there(const void *p, u32 rank) {
    u32 address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(SMEM(p)), "r"(rank));
    return address;
}

// What one thread sees of counts, states, drops, bytes.
extern "C" __global__ void counts(int *out) {
    __shared__ u64 bar;
    int n = 0;
    INIT(&bar, 5);
    u64 first = arrive_state(&bar, 2), state;
    out[n++] = pending(first);
    asm volatile("mbarrier.arrive.noComplete.shared::cta.b64 %0, [%1], 1;" : "=l"(state) : "r"(SMEM(&bar)) : "memory");
    out[n++] = pending(state);
    out[n++] = test_state(&bar, first);
    out[n++] = test_parity(&bar, 0) * 2 + test_parity(&bar, 1);
    state = arrive_state(&bar, 2);
    out[n++] = test_state(&bar, first) * 2 + test_state(&bar, state);
    out[n++] = test_parity(&bar, 0) * 2 + test_parity(&bar, 1);
    // A drop counts for this phase, and lowers the next ones to 3.
    asm volatile("mbarrier.arrive_drop.shared::cta.b64 %0, [%1], 2;" : "=l"(state) : "r"(SMEM(&bar)) : "memory");
    out[n++] = pending(state);
    arrive_state(&bar, 3);
    out[n++] = test_state(&bar, state);
    state = arrive_state(&bar, 3);
    out[n++] = pending(state) * 2 + test_state(&bar, state);
    // Bytes: expected alone, completed alone.
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], 32;" ::"r"(SMEM(&bar)) : "memory");
    state = arrive_state(&bar, 3);
    out[n++] = test_state(&bar, state);
    asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], 16;" ::"r"(SMEM(&bar)) : "memory");
    out[n++] = test_state(&bar, state);
    asm volatile("mbarrier.complete_tx.shared::cta.b64 [%0], 16;" ::"r"(SMEM(&bar)) : "memory");
    out[n++] = test_state(&bar, state);
    // Completed before they are expected.
    asm volatile("mbarrier.complete_tx.shared::cta.b64 [%0], 8;" ::"r"(SMEM(&bar)) : "memory");
    state = arrive_state(&bar, 3);
    out[n++] = test_state(&bar, state);
    asm volatile("mbarrier.expect_tx.shared::cta.b64 [%0], 8;" ::"r"(SMEM(&bar)) : "memory");
    out[n++] = test_state(&bar, state);
    asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(SMEM(&bar)) : "memory");
    INIT(&bar, 1);
    state = arrive_state(&bar, 1);
    out[n++] = test_state(&bar, state);
}

// Twenty phases of all threads, with a value that goes around.
extern "C" __global__ void phases(int *out) {
    __shared__ u64 bar;
    __shared__ int values[2][128];
    int t = threadIdx.x, x = t;
    if (t == 0) INIT(&bar, 128);
    __syncthreads();
    for (int i = 0; i < 20; i++) {
        values[i & 1][t] = x;
        ARRIVE(&bar);
        WAIT(&bar, i & 1);
        x = values[i & 1][(t + 1) % 128] + 1;
    }
    out[t] = x;
}

// Warps leave one after the other.
extern "C" __global__ void drops(int *out) {
    __shared__ u64 bar;
    __shared__ int sum;
    int t = threadIdx.x;
    if (t == 0) { INIT(&bar, 128); sum = 0; }
    __syncthreads();
    for (int i = 0; i <= t / 32; i++) {
        atomicAdd(&sum, 1);
        if (i < t / 32) { ARRIVE(&bar); WAIT(&bar, i & 1); }
        else asm volatile("mbarrier.arrive_drop.shared::cta.b64 _, [%0];" ::"r"(SMEM(&bar)) : "memory");
    }
    if (t == 127) { WAIT(&bar, 1); *out = sum; }
}

// Two warps store, two read, three stages between them.
extern "C" __global__ void ring(int *out, int count) {
    __shared__ u64 full[3], empty[3];
    __shared__ int stages[3][64];
    int t = threadIdx.x, s = 0, phase = 0;
    if (t < 3) { INIT(&full[t], 64); INIT(&empty[t], 2); }
    __syncthreads();
    for (int i = 0; i < count; i++) {
        if (t < 64) {
            WAIT(&empty[s], phase ^ 1);
            stages[s][t] = 100 * i + t;
            ARRIVE(&full[s]);
        } else {
            WAIT(&full[s], phase);
            out[64 * i + t - 64] = stages[s][127 - t];
            __syncwarp();
            if (t % 32 == 0) ARRIVE(&empty[s]);
        }
        if (++s == 3) { s = 0; phase ^= 1; }
    }
}

// The copies' arrivals beside the threads' own, and instead of them.
template <bool NOINC>
__device__ void copies(const int *in, int *out) {
    __shared__ __align__(16) int tile[128];
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (t == 0) INIT(&bar, 128);
    __syncthreads();
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(SMEM(tile + t)), "l"(in + t) : "memory");
    if (NOINC) asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(SMEM(&bar)) : "memory");
    else {
        asm volatile("cp.async.mbarrier.arrive.shared::cta.b64 [%0];" ::"r"(SMEM(&bar)) : "memory");
        ARRIVE(&bar);
    }
    WAIT(&bar, 0);
    out[t] = tile[127 - t];
}
extern "C" __global__ void copies_count(const int *in, int *out) { copies<false>(in, out); }
extern "C" __global__ void copies_instead(const int *in, int *out) { copies<true>(in, out); }

// A consumer that looks for the next phase before it gives back the only stage.
extern "C" __global__ void peek(int *out, int count) {
    __shared__ u64 full, empty;
    __shared__ int stage;
    int t = threadIdx.x;
    if (t == 0) { INIT(&full, 1); INIT(&empty, 1); }
    __syncthreads();
    if (t == 0)
        for (int i = 0; i < count; i++) {
            WAIT(&empty, (i & 1) ^ 1);
            stage = i;
            ARRIVE(&full);
        }
    if (t == 32) {
        int sum = 0, ready = 0;
        for (int i = 0; i < count; i++) {
            if (!ready) WAIT(&full, i & 1);
            sum += stage * (i + 1);
            asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.s32 %0, 1, 0, p; }" : "=r"(ready) : "r"(SMEM(&full)), "r"((i + 1) & 1) : "memory");
            ARRIVE(&empty);
        }
        *out = sum;
    }
}

// Fences around relaxed arrivals and waits; the fences that there are; elect and the order of grids.
extern "C" __global__ void fences(const int *in, int *out) {
    __shared__ u64 bar;
    __shared__ int values[128];
    int t = threadIdx.x;
    u32 leader;
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (t == 0) { INIT(&bar, 4); FENCE_INIT(); }
    __syncthreads();
    values[t] = in[t];
    __syncwarp();
    asm volatile("fence.acq_rel.cta;" ::: "memory");
    asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.b32 %0, 1, 0, p; }" : "=r"(leader));
    if (leader) asm volatile("mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%0];" ::"r"(SMEM(&bar)) : "memory");
    asm volatile("{ .reg .pred p; LAB_WAIT: mbarrier.try_wait.parity.relaxed.cta.shared::cta.b64 p, [%0], 0, 1000; @!p bra LAB_WAIT; }" ::"r"(SMEM(&bar)) : "memory");
    asm volatile("fence.acq_rel.cta;" ::: "memory");
    int v = values[127 - t];
    asm volatile("fence.acq_rel.cluster; fence.acq_rel.gpu; fence.acq_rel.sys; fence.sc.cta; fence.sc.gpu; membar.cta; membar.gl; membar.sys;" ::: "memory");
    asm volatile("fence.proxy.alias; fence.proxy.async; fence.proxy.async.global; fence.proxy.async.shared::cta; fence.proxy.async.shared::cluster;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    out[t] = v + (int)leader;
}

// Three warpgroups: the first hands over to the second, the second to the third, round after round.
extern "C" __global__ void named(int *out) {
    __shared__ int values[2][128];
    int t = threadIdx.x, group = t / 128, i = t % 128;
    if (group == 0) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    else asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
    for (int k = 0; k < 4; k++) {
        if (group == 0) {
            if (k) asm volatile("bar.sync 4, 256;" ::: "memory");
            values[0][i] = 10 * k + i;
            asm volatile("bar.arrive 1, 256;" ::: "memory");
        } else if (group == 1) {
            asm volatile("bar.sync 1, 256;" ::: "memory");
            int v = values[0][127 - i];
            if (k < 3) asm volatile("bar.arrive 4, 256;" ::: "memory");
            if (k) asm volatile("barrier.sync 3, 256;" ::: "memory");
            values[1][i] = 2 * v;
            asm volatile("barrier.cta.arrive 2, 256;" ::: "memory");
        } else {
            asm volatile("barrier.cta.sync 2, 256;" ::: "memory");
            out[128 * k + i] = values[1][i];
            if (k < 3) asm volatile("bar.arrive 3, 256;" ::: "memory");
        }
    }
}

// All blocks of a cluster store, add and arrive in the first.
extern "C" __global__ void remote(int *out) {
    __shared__ u64 bar;
    __shared__ int values[4][128], sum, exchanged;
    int t = threadIdx.x;
    u32 rank = cluster_rank();
    if (t == 0) { INIT(&bar, 4 * 128 + 4); FENCE_INIT(); sum = 0; exchanged = 0; }
    CLUSTER_SYNC();
    u64 generic;
    asm volatile("st.shared::cluster.s32 [%0], %1;" ::"r"(there(&values[rank][t], 0)), "r"((int)rank * 1000 + t) : "memory");
    asm volatile("red.shared::cluster.add.s32 [%0], %1;" ::"r"(there(&sum, 0)), "r"(t) : "memory");
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(generic) : "l"(&exchanged), "r"(0));
    atomicMax((int *)generic, (int)rank * 7);
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(there(&bar, 0)) : "memory");
    if (t == 5) asm volatile("mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%0], 0;" ::"r"(there(&bar, 0)) : "memory");
    if (rank == 0) {
        asm volatile("{ .reg .pred p; LAB_WAIT: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], 0; @!p bra LAB_WAIT; }" ::"r"(SMEM(&bar)) : "memory");
        for (int i = 0; i < 4; i++) out[128 * i + t] = values[i][t];
        if (t == 0) { out[512] = sum; out[513] = exchanged; }
    }
    u32 owner;
    asm volatile("getctarank.shared::cluster.u32 %0, %1;" : "=r"(owner) : "r"(there(&sum, 3)));
    if (t == 0) out[514 + rank] = owner;
}

// Each block copies to the next one, whose barrier is told; then all add to the first; then to global memory.
extern "C" __global__ void travel(const u32 *in, u32 *out, u32 *total) {
    __shared__ __align__(128) u32 own[128], got[128], sums[128];
    __shared__ u64 bar, done;
    int t = threadIdx.x;
    u32 rank = cluster_rank();
    own[t] = in[blockIdx.x * 128 + t];
    sums[t] = 1000;
    if (t == 0) { INIT(&bar, 1); INIT(&done, 1); FENCE_INIT(); EXPECT(&bar, 512); if (rank == 0) EXPECT(&done, 4 * 512); }
    FENCE_ASYNC();
    CLUSTER_SYNC();
    if (t == 0) {
        u32 next = (rank + 1) % 4;
        asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], 512, [%2];" ::"r"(there(got, next)), "r"(SMEM(own)), "r"(there(&bar, next)) : "memory");
        asm volatile("cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u32 [%0], [%1], 512, [%2];" ::"r"(there(sums, 0)), "r"(SMEM(own)), "r"(there(&done, 0)) : "memory");
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], 512;" ::"l"(in) : "memory");
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%0], [%1], 512;" ::"l"(total), "r"(SMEM(own)) : "memory");
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.max.s32 [%0], [%1], 512;" ::"l"(total + 128), "r"(SMEM(own)) : "memory");
        asm volatile("cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;" ::: "memory");
    }
    WAIT(&bar, 0);
    if (rank == 0) WAIT(&done, 0);
    out[blockIdx.x * 128 + t] = got[t];
    if (rank == 0) out[512 + t] = sums[t];
    // The others' copies read what this block has.
    CLUSTER_SYNC();
}

// One block's copy goes to the blocks of a mask.
extern "C" __global__ void multicast(const int *in, int *out, u32 mask) {
    __shared__ __align__(128) int tile[128];
    __shared__ u64 bar;
    int t = threadIdx.x;
    u32 rank = cluster_rank();
    bool takes = mask >> rank & 1;
    if (t == 0) { INIT(&bar, 1); FENCE_INIT(); if (takes) EXPECT(&bar, 512); }
    tile[t] = -1;
    CLUSTER_SYNC();
    if (rank == 2 && t == 0)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], 512, [%2], %3;" ::"r"(SMEM(tile)), "l"(in), "r"(SMEM(&bar)), "h"((u16)mask) : "memory");
    if (takes) WAIT(&bar, 0);
    out[blockIdx.x * 128 + t] = tile[t];
}
