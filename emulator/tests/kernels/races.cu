// Kernels in pairs: `ok_...` synchronises rightly, `bad_...` is the same with one mistake. Most take `data`, 4096 integers,
// and `flag`, 64 of them, all zero.
#define KERNEL extern "C" __global__ void
#define LANE (threadIdx.x & 31)
#define WARP (threadIdx.x >> 5)

__device__ void st_release(int *p, int v) { asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(p), "r"(v) : "memory"); }
__device__ void st_relaxed(int *p, int v) { asm volatile("st.relaxed.gpu.global.s32 [%0], %1;" ::"l"(p), "r"(v) : "memory"); }
__device__ int ld_acquire(int *p) { int v; asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(p) : "memory"); return v; }
__device__ int ld_relaxed(int *p) { int v; asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(p) : "memory"); return v; }
__device__ void red_release(int *p, int v) { asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(p), "r"(v) : "memory"); }
__device__ int atom_acq_rel(int *p, int v) { int o; asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], %2;" : "=r"(o) : "l"(p), "r"(v) : "memory"); return o; }
__device__ int vol(int *p) { return *(volatile int *)p; }
__device__ void arrive(int id, int n) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(n) : "memory"); }
__device__ void sync(int id, int n) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n) : "memory"); }

// --- Barriers of a block ---
template <int SYNC> __device__ void reduce_block(int *data) {
    __shared__ int s[128];
    s[threadIdx.x] = data[threadIdx.x];
    if (SYNC != 1) __syncthreads();
    for (int d = 64; d > 0; d >>= 1) {
        if (SYNC == 2) __syncthreads();
        if (threadIdx.x < d) s[threadIdx.x] += s[threadIdx.x + d];
        if (SYNC == 0 || SYNC == 1) __syncthreads();
        if (SYNC == 3 && d > 32) __syncthreads();
    }
    if (threadIdx.x == 0) data[blockIdx.x + 1024] = s[0];
}
KERNEL ok_reduce(int *data, int *flag) { reduce_block<0>(data); }
KERNEL bad_reduce_first(int *data, int *flag) { reduce_block<1>(data); }
KERNEL ok_reduce_before(int *data, int *flag) { reduce_block<2>(data); }
KERNEL bad_reduce_last_warp(int *data, int *flag) { reduce_block<3>(data); }

// Two buffers need one barrier a step; one buffer needs two.
template <int BUFFERS, int BARRIERS> __device__ void buffered(int *data) {
    __shared__ int s[BUFFERS][64];
    int sum = 0;
    for (int step = 0; step < 6; step++) {
        s[step % BUFFERS][threadIdx.x] = data[step * 64 + threadIdx.x];
        __syncthreads();
        sum += s[step % BUFFERS][63 - threadIdx.x];
        if (BARRIERS == 2) __syncthreads();
    }
    data[1024 + threadIdx.x] = sum;
}
KERNEL ok_double_buffer(int *data, int *flag) { buffered<2, 1>(data); }
KERNEL ok_single_buffer(int *data, int *flag) { buffered<1, 2>(data); }
KERNEL bad_single_buffer(int *data, int *flag) { buffered<1, 1>(data); }
// Three stages loaded ahead: with the barrier behind the load, the stage that others still read is overwritten.
template <bool LATE> __device__ void stages(int *data) {
    __shared__ int s[3][64];
    int sum = 0;
    s[0][threadIdx.x] = data[threadIdx.x];
    s[1][threadIdx.x] = data[64 + threadIdx.x];
    if (LATE) __syncthreads();
    for (int step = 0; step < 6; step++) {
        if (!LATE) __syncthreads();
        s[(step + 2) % 3][threadIdx.x] = data[step * 64 + threadIdx.x];
        sum += s[step % 3][63 - threadIdx.x];
        if (LATE && step % 2) __syncthreads();
    }
    data[1024 + threadIdx.x] = sum;
}
KERNEL ok_stages(int *data, int *flag) { stages<false>(data); }
KERNEL bad_stages(int *data, int *flag) { stages<true>(data); }

template <int MODE> __device__ void named(int *data) {
    __shared__ int s[32];
    for (int step = 0; step < 4; step++) {
        if (WARP == 0) {
            sync(2, 64);
            s[LANE] = step;
            arrive(MODE == 1 ? 3 : 1, 64);
            if (MODE == 1) arrive(1, 64);
        } else {
            if (MODE != 2 || step == 0) arrive(2, 64);
            sync(1, 64);
            // Too early: the producer may overwrite what is read here.
            if (MODE == 2 && step < 3) arrive(2, 64);
            data[step * 32 + LANE] = s[31 - LANE];
            if (MODE == 1) sync(3, 64);
        }
    }
}
KERNEL ok_named(int *data, int *flag) { named<0>(data); }
KERNEL ok_named_both(int *data, int *flag) { named<1>(data); }
KERNEL bad_named_refill(int *data, int *flag) { named<2>(data); }
// Arriving is no waiting.
KERNEL bad_arrive_reads(int *data, int *flag) {
    __shared__ int s[64];
    s[threadIdx.x] = 1;
    if (WARP == 0) arrive(1, 64); else sync(1, 64);
    data[threadIdx.x] = s[63 - threadIdx.x];
}
KERNEL ok_bar_red(int *data, int *flag) {
    __shared__ int s[64];
    s[threadIdx.x] = 1;
    int n = __syncthreads_count(threadIdx.x < 5);
    int v = s[63 - threadIdx.x];
    int any = __syncthreads_or(threadIdx.x == 63);
    s[threadIdx.x] = v + n;
    int all = __syncthreads_and(threadIdx.x < 63);
    data[threadIdx.x] = s[63 - threadIdx.x] * 10 + any * 2 + all;
}
KERNEL bad_early_exit(int *data, int *flag) {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    data[threadIdx.x] = 1;
}
KERNEL ok_exit_of_block(int *data, int *flag) {
    if (blockIdx.x > 0) return;
    __syncthreads();
    data[threadIdx.x] = 1;
}

// --- Warps ---
template <int MODE> __device__ void warp_reduce(int *data) {
    __shared__ int s[64];
    s[threadIdx.x] = 1;
    if (MODE == 0) __syncwarp();
    for (int d = 16; d; d >>= 1) {
        int v = s[threadIdx.x ^ d];
        if (MODE == 0) __syncwarp();
        s[threadIdx.x] += v;
        if (MODE == 0) __syncwarp();
        if (MODE == 2) v = __shfl_sync(~0u, v, 0), __any_sync(~0u, v);
    }
    data[threadIdx.x] = s[threadIdx.x];
}
KERNEL ok_warp_reduce(int *data, int *flag) { warp_reduce<0>(data); }
KERNEL bad_warp_reduce(int *data, int *flag) { warp_reduce<1>(data); }
KERNEL bad_warp_shuffles(int *data, int *flag) { warp_reduce<2>(data); }
// Both halves of a warp synchronise at once, each by its own mask.
template <int OTHER> __device__ void halves(int *data) {
    __shared__ int s[32];
    s[LANE] = LANE;
    __syncwarp(LANE < 16 ? 0xffffu : 0xffff0000u);
    data[LANE] = s[LANE ^ OTHER];
}
KERNEL ok_halves(int *data, int *flag) { halves<15>(data); }
KERNEL bad_halves(int *data, int *flag) { halves<16>(data); }
KERNEL ok_half_collectives(int *data, int *flag) {
    unsigned mask = LANE < 16 ? 0xffffu : 0xffff0000u;
    data[LANE] = __reduce_add_sync(mask, LANE);
    data[32 + LANE] = __ballot_sync(mask, LANE & 1);
    data[64 + LANE] = __any_sync(mask, LANE == 3);
    data[96 + LANE] = __match_any_sync(mask, 7);
    data[128 + LANE] = __shfl_xor_sync(mask, LANE, 1);
}
// Lanes of two branches meet at two instructions.
template <unsigned MASK> __device__ void branches(int *data) {
    __shared__ int s[32];
    if (LANE < 8) { s[LANE] = 1; __syncwarp(MASK); data[LANE] = s[LANE + 8]; }
    else if (LANE < 16) { s[LANE] = 2; __syncwarp(MASK == 0xffff ? MASK : 0xff00); data[LANE] = s[LANE - 8]; }
}
KERNEL ok_branches(int *data, int *flag) { branches<0xffff>(data); }
KERNEL bad_branches(int *data, int *flag) { branches<0x00ff>(data); }
KERNEL ok_divergent_local(int *data, int *flag) {
    int local[8];
    for (int i = 0; i < 8; i++) local[i] = data[i] + threadIdx.x;
    if (LANE & 1) local[data[9] & 7] += 3; else local[(data[8] + LANE) & 7] += 4;
    data[1024 + threadIdx.x] = local[LANE & 7];
}

// --- Flags between blocks ---
template <int OUT, int IN> __device__ void message(int *data, int *flag) {
    if (blockIdx.x == 0) {
        data[threadIdx.x] = 7;
        if (OUT != 9) __syncthreads();
        if (threadIdx.x == 0) {
            if (OUT == 0 || OUT == 8 || OUT == 9) { __threadfence(); atomicExch(flag, 1); }
            if (OUT == 1) atomicExch(flag, 1);
            if (OUT == 2) st_release(flag, 1);
            if (OUT == 3) st_relaxed(flag, 1);
            if (OUT == 4) { __threadfence(); *(volatile int *)flag = 1; }
            if (OUT == 5) *(volatile int *)flag = 1;
            if (OUT == 6) red_release(flag, 1);
            if (OUT == 7) { __threadfence(); st_relaxed(flag, 1); }
        }
    } else {
        if (threadIdx.x == 0) {
            if (IN == 0) { while (vol(flag) == 0) {} __threadfence(); }
            if (IN == 1) while (vol(flag) == 0) {}
            if (IN == 2) while (ld_acquire(flag) == 0) {}
            if (IN == 3) { while (ld_relaxed(flag) == 0) {} __threadfence(); }
            if (IN == 4) while (ld_relaxed(flag) == 0) {}
            if (IN == 5) { while (atomicAdd(flag, 0) == 0) {} __threadfence(); }
            if (IN == 6) { while (atomicCAS(flag, 1, 1) != 1) __nanosleep(100); __threadfence(); }
            if (IN == 7) while (atom_acq_rel(flag, 0) == 0) {}
            if (IN == 8) { while (vol(flag) == 0) atomicAdd(flag + 1, 1); __threadfence(); }
        }
        if (IN != 9) __syncthreads();
        data[1024 + threadIdx.x] = data[64 - threadIdx.x - 1];
    }
}
#define MESSAGE(name, out, in) KERNEL name(int *data, int *flag) { message<out, in>(data, flag); }
MESSAGE(ok_fence_fence, 0, 0)
MESSAGE(bad_no_release_fence, 1, 0)
MESSAGE(bad_no_acquire_fence, 0, 1)
MESSAGE(ok_release_acquire, 2, 2)
MESSAGE(bad_relaxed_acquire, 3, 2)
MESSAGE(bad_release_relaxed, 2, 4)
MESSAGE(ok_release_relaxed_fence, 2, 3)
MESSAGE(ok_volatile_fences, 4, 0)
MESSAGE(bad_volatile, 5, 1)
MESSAGE(ok_red_release, 6, 2)
MESSAGE(ok_fence_relaxed, 7, 3)
MESSAGE(ok_poll_by_add, 0, 5)
MESSAGE(ok_poll_by_cas, 0, 6)
MESSAGE(ok_poll_acq_rel, 2, 7)
MESSAGE(bad_no_block_barrier, 9, 2)
// The reader waits, and it is of the block that starts first.
#define WAITS(name, out, in) KERNEL name(int *data, int *flag) { \
    if (blockIdx.x == 0) { if (threadIdx.x == 0) { in; } __syncthreads(); data[1024 + threadIdx.x] = data[63 - threadIdx.x]; } \
    else { data[threadIdx.x] = 7; __syncthreads(); if (threadIdx.x == 0) { out; } } }
WAITS(ok_waits_by_add, __threadfence(); atomicExch(flag, 1), while (atomicAdd(flag, 0) == 0) {} __threadfence())
WAITS(ok_waits_by_cas, __threadfence(); atomicExch(flag, 1), while (atomicCAS(flag, 1, 2) != 1) {} __threadfence())
WAITS(ok_waits_and_counts, __threadfence(); atomicExch(flag, 1), while (vol(flag) == 0) atomicAdd(flag + 1, 1); __threadfence())
WAITS(ok_waits_asleep, __threadfence(); atomicExch(flag, 1), while (vol(flag) == 0) __nanosleep(50); __threadfence())
// Who saw the flag may overwrite it by an ordinary store.
WAITS(ok_flag_reset, st_release(flag, 1), while (ld_acquire(flag) == 0) {} *flag = 0)
WAITS(ok_flag_reset_fences, __threadfence(); st_relaxed(flag, 1), while (ld_relaxed(flag) == 0) {} __threadfence(); *flag = 0)
WAITS(bad_flag_reset, st_release(flag, 1); *flag = 2, while (ld_acquire(flag) == 0) {})

// An exchange hands on what it replaces.
template <bool STORE> __device__ void exchange(int *data, int *flag) {
    if (blockIdx.x == 0) { data[LANE] = 1; __syncwarp(); if (LANE == 0) st_release(flag, 1); }
    if (blockIdx.x == 1 && LANE == 0) {
        while (ld_relaxed(flag) != 1) {}
        if (STORE) st_relaxed(flag, 2); else atomicExch(flag, 2);
    }
    if (blockIdx.x == 2) {
        if (LANE == 0) while (ld_acquire(flag) != 2) {}
        __syncwarp();
        data[64 + LANE] = data[31 - LANE];
    }
}
KERNEL ok_exchange(int *data, int *flag) { exchange<false>(data, flag); }
KERNEL bad_store_breaks(int *data, int *flag) { exchange<true>(data, flag); }
// A comparison that fails writes nothing, and releases nothing.
KERNEL bad_failed_cas(int *data, int *flag) {
    if (threadIdx.x) return;
    if (blockIdx.x == 0) { data[0] = 1; __threadfence(); atomicCAS(flag, 5, 6); }
    else { int v = vol(flag); __threadfence(); data[1] = data[0] + v; }
}
// The reader tells the writer that it may overwrite.
template <bool FENCE> __device__ void war(int *data, int *flag) {
    if (threadIdx.x) return;
    if (blockIdx.x == 0) { data[1] = data[0]; if (FENCE) __threadfence(); atomicExch(flag, 1); }
    else { while (vol(flag) == 0) {} __threadfence(); data[0] = 5; }
}
KERNEL ok_may_overwrite(int *data, int *flag) { war<true>(data, flag); }
KERNEL bad_may_overwrite(int *data, int *flag) { war<false>(data, flag); }

// --- Locks ---
template <bool IN, bool OUT, bool PER_THREAD> __device__ void locked(int *data, int *flag) {
    bool done = !PER_THREAD && threadIdx.x != 0;
    while (!done) {
        if (atomicCAS(flag, 0, 1) == 0) {
            if (IN) __threadfence();
            data[0] += 1;
            if (OUT) __threadfence();
            atomicExch(flag, 0);
            done = true;
        }
    }
}
KERNEL ok_lock(int *data, int *flag) { locked<true, true, false>(data, flag); }
KERNEL ok_lock_per_thread(int *data, int *flag) { locked<true, true, true>(data, flag); }
KERNEL bad_lock_acquire(int *data, int *flag) { locked<false, true, false>(data, flag); }
KERNEL bad_lock_release(int *data, int *flag) { locked<true, false, false>(data, flag); }
// Tickets.
KERNEL ok_ticket_lock(int *data, int *flag) {
    if (threadIdx.x) return;
    int mine = atomicAdd(flag, 1);
    while (ld_acquire(flag + 1) != mine) {}
    data[0] += 1;
    st_release(flag + 1, mine + 1);
}
KERNEL bad_ticket_lock(int *data, int *flag) {
    if (threadIdx.x) return;
    int mine = atomicAdd(flag, 1);
    while (vol(flag + 1) != mine) {}
    data[0] += 1;
    *(volatile int *)(flag + 1) = mine + 1;
}
template <bool FENCE> __device__ void once(int *data, int *flag) {
    if (threadIdx.x) return;
    if (vol(flag) == 0) {
        while (atomicCAS(flag + 1, 0, 1)) {}
        __threadfence();
        if (vol(flag) == 0) { data[0] = 42; __threadfence(); atomicExch(flag, 1); }
        __threadfence();
        atomicExch(flag + 1, 0);
    } else if (FENCE) {
        __threadfence();
    }
    data[1 + blockIdx.x] = data[0];
}
KERNEL ok_checked_twice(int *data, int *flag) { once<true>(data, flag); }
KERNEL bad_checked_twice(int *data, int *flag) { once<false>(data, flag); }

// --- Patterns of the whole grid ---
template <bool OUT, bool IN> __device__ void last_block(int *data, int *flag) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        data[blockIdx.x] = blockIdx.x;
        if (OUT) __threadfence();
        last = atomicAdd(flag, 1) == gridDim.x - 1;
        if (IN && last) __threadfence();
    }
    __syncthreads();
    if (last) {
        int sum = 0;
        for (int b = threadIdx.x; b < gridDim.x; b += blockDim.x) sum += data[b];
        atomicAdd(data + 4000, sum);
        if (threadIdx.x == 0) *flag = 0;
    }
}
KERNEL ok_last_block(int *data, int *flag) { last_block<true, true>(data, flag); }
KERNEL bad_last_block_release(int *data, int *flag) { last_block<false, true>(data, flag); }
KERNEL bad_last_block_acquire(int *data, int *flag) { last_block<true, false>(data, flag); }
KERNEL ok_last_block_acq_rel(int *data, int *flag) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        data[blockIdx.x] = blockIdx.x;
        last = atom_acq_rel(flag, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    int sum = 0;
    for (int b = threadIdx.x; b < gridDim.x; b += blockDim.x) sum += data[b];
    atomicAdd(data + 4000, sum);
    if (threadIdx.x == 0) *flag = 0;
}
template <bool BEFORE, bool FENCE> __device__ void grid_sync(int *data, int *flag) {
    for (int phase = 0; phase < 3; phase++) {
        int i = blockIdx.x * 64 + threadIdx.x, n = gridDim.x * 64;
        data[phase * 1024 + i] = i;
        if (BEFORE) __syncthreads();
        if (threadIdx.x == 0) {
            if (FENCE) __threadfence();
            atomicAdd(flag, 1);
            while (vol(flag) < gridDim.x * (phase + 1)) {}
            __threadfence();
        }
        __syncthreads();
        if (phase) data[3072 + i] += data[phase * 1024 + n - 1 - i];
    }
}
KERNEL ok_grid_sync(int *data, int *flag) { grid_sync<true, true>(data, flag); }
KERNEL bad_grid_sync_block(int *data, int *flag) { grid_sync<false, true>(data, flag); }
KERNEL bad_grid_sync_fence(int *data, int *flag) { grid_sync<true, false>(data, flag); }
// Fences of every thread and an atomic of one, with a barrier between them, release and acquire together.
template <bool OUT, bool IN> __device__ void fences_and_barriers(int *data, int *flag) {
    __shared__ bool last;
    data[blockIdx.x * 64 + threadIdx.x] = threadIdx.x;
    if (OUT) __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(flag, 1) == gridDim.x - 1;
    __syncthreads();
    if (!last) return;
    if (IN) __threadfence();
    int sum = 0;
    for (int b = 0; b < gridDim.x; b++) sum += data[b * 64 + 63 - threadIdx.x];
    data[2048 + threadIdx.x] = sum;
}
KERNEL ok_fences_and_barriers(int *data, int *flag) { fences_and_barriers<true, true>(data, flag); }
KERNEL bad_barriers_release(int *data, int *flag) { fences_and_barriers<false, true>(data, flag); }
KERNEL bad_barriers_acquire(int *data, int *flag) { fences_and_barriers<true, false>(data, flag); }
// What lane 0 releases is its own past, and that of lanes it synchronised with.
template <unsigned MASK> __device__ void leader(int *data, int *flag) {
    if (blockIdx.x == 0) {
        data[LANE] = 1;
        if (MASK) __syncwarp(MASK == ~0u || LANE < 16 ? MASK : ~MASK);
        if (LANE == 0) { data[64] = 1; __threadfence(); atomicExch(flag, 1); }
    } else {
        if (LANE == 0) { while (vol(flag) == 0) {} __threadfence(); }
        __syncwarp();
        data[128 + LANE] = data[31 - LANE] + data[64];
    }
}
KERNEL ok_leader(int *data, int *flag) { leader<~0u>(data, flag); }
KERNEL bad_leader(int *data, int *flag) { leader<0>(data, flag); }
KERNEL bad_leader_of_half(int *data, int *flag) { leader<0xffff>(data, flag); }
// Decoupled look-back: state and value side by side in data[256 + 2 b], with 1 for a sum and 2 for a prefix.
template <bool FENCE> __device__ void look_back(int *data, int *flag) {
    __shared__ int before;
    int *value = data + 256, *state = data + 512;
    if (threadIdx.x == 0) {
        int b = atomicAdd(flag, 1), sum = b + 1, prefix = 0;
        value[2 * b] = sum;
        if (FENCE) __threadfence();
        atomicExch(&state[b], b ? 1 : 2);
        if (b == 0 && FENCE) { value[1] = sum; __threadfence(); }
        if (b == 0) atomicExch(&state[0], 2);
        for (int p = b - 1; p >= 0;) {
            int s;
            while ((s = vol(&state[p])) == 0) {}
            if (FENCE) __threadfence();
            if (s == 2 && p == 0) { prefix += value[0]; break; }
            if (s == 3) { prefix += value[2 * p + 1]; break; }
            prefix += value[2 * p];
            p--;
        }
        value[2 * b + 1] = prefix + sum;
        if (FENCE) __threadfence();
        atomicExch(&state[b], b ? 3 : 2);
        before = prefix;
        data[b] = prefix;
    }
    __syncthreads();
    data[1024 + blockIdx.x * 64 + threadIdx.x] = before;
}
KERNEL ok_look_back(int *data, int *flag) { look_back<true>(data, flag); }
KERNEL bad_look_back(int *data, int *flag) { look_back<false>(data, flag); }
// Blocks of a split sum add to one tile in turn.
template <int MODE> __device__ void semaphore(int *data, int *flag) {
    if (threadIdx.x == 0) while (ld_acquire(flag) != blockIdx.x) {}
    if (MODE != 1) __syncthreads();
    data[threadIdx.x] += blockIdx.x + 1;
    if (MODE != 2) __syncthreads();
    if (threadIdx.x == 0) st_release(flag, blockIdx.x + 1);
}
KERNEL ok_semaphore(int *data, int *flag) { semaphore<0>(data, flag); }
KERNEL bad_semaphore_wait(int *data, int *flag) { semaphore<1>(data, flag); }
KERNEL bad_semaphore_release(int *data, int *flag) { semaphore<2>(data, flag); }
KERNEL ok_split_sum(int *data, int *flag) { atomicAdd(data + threadIdx.x, blockIdx.x); }
KERNEL bad_split_sum(int *data, int *flag) { data[threadIdx.x] += blockIdx.x; }

// --- Flags within a block ---
template <bool OUT, bool IN> __device__ void shared_flag(int *data) {
    __shared__ int s[32], ready;
    if (threadIdx.x == 0) ready = 0;
    __syncthreads();
    if (WARP == 0) {
        s[LANE] = LANE;
        __syncwarp();
        if (LANE == 0) { if (OUT) __threadfence_block(); atomicAdd(&ready, 1); }
    } else {
        if (LANE == 0) { while (*(volatile int *)&ready == 0) {} if (IN) __threadfence_block(); }
        __syncwarp();
        data[LANE] = s[31 - LANE];
    }
}
KERNEL ok_shared_flag(int *data, int *flag) { shared_flag<true, true>(data); }
KERNEL bad_shared_flag_out(int *data, int *flag) { shared_flag<false, true>(data); }
KERNEL bad_shared_flag_in(int *data, int *flag) { shared_flag<true, false>(data); }

// --- Bytes ---
KERNEL ok_bytes(int *data, int *flag) { ((char *)data)[blockIdx.x * 64 + threadIdx.x] = threadIdx.x; }
KERNEL ok_byte_neighbours(int *data, int *flag) { ((char *)data)[threadIdx.x * 2 + blockIdx.x] = threadIdx.x; }
KERNEL ok_half_neighbours(int *data, int *flag) {
    __shared__ short s[128];
    s[threadIdx.x * 2] = threadIdx.x;
    s[(threadIdx.x ^ 32) * 2 + 1] = threadIdx.x;
    __syncthreads();
    data[threadIdx.x] = ((int *)s)[threadIdx.x];
}
KERNEL bad_half_overlap(int *data, int *flag) {
    if (blockIdx.x == 0) ((short *)data)[threadIdx.x * 2 + 1] = threadIdx.x;
    else ((int *)data)[threadIdx.x] = threadIdx.x;
}
KERNEL bad_byte_of_word(int *data, int *flag) {
    __shared__ char s[256];
    s[threadIdx.x] = s[threadIdx.x + 64] = s[threadIdx.x + 128] = s[threadIdx.x + 192] = 1;
    data[threadIdx.x] = ((int *)s)[threadIdx.x];
}
KERNEL ok_vector_neighbours(int *data, int *flag) {
    if (blockIdx.x == 0) ((int4 *)data)[threadIdx.x * 2] = make_int4(1, 2, 3, 4);
    else for (int i = 0; i < 4; i++) data[threadIdx.x * 8 + 4 + i] = i;
}
KERNEL bad_vector_overlap(int *data, int *flag) {
    if (blockIdx.x == 0) ((int4 *)data)[threadIdx.x * 2] = make_int4(1, 2, 3, 4);
    else data[threadIdx.x * 8 + 3] = threadIdx.x;
}
KERNEL bad_vector_read(int *data, int *flag) {
    if (blockIdx.x == 0) data[threadIdx.x * 4 + 2] = threadIdx.x;
    else { int2 v = ((int2 *)data)[threadIdx.x * 2 + 1]; data[2048 + threadIdx.x] = v.x + v.y; }
}
KERNEL note_equal_writes(int *data, int *flag) { data[0] = 1; }
KERNEL bad_other_writes(int *data, int *flag) { data[0] = blockIdx.x * 64 + threadIdx.x; }

// --- Addresses and guards ---
template <bool SYNC> __device__ void generic(int *data, int *flag) {
    __shared__ int s[64];
    int *p = flag[threadIdx.x & 1] ? data : s;
    p[threadIdx.x] = 5;
    if (SYNC) __syncthreads();
    data[64 + threadIdx.x] = p[63 - threadIdx.x];
}
KERNEL ok_generic(int *data, int *flag) { generic<true>(data, flag); }
KERNEL bad_generic(int *data, int *flag) { generic<false>(data, flag); }
KERNEL ok_fill(int *data, int *flag) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < 4096; i += gridDim.x * blockDim.x) data[i] = 9;
}
KERNEL bad_fill(int *data, int *flag) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i <= 4096; i += gridDim.x * blockDim.x) data[i] = 9;
}
KERNEL ok_guarded(int *data, int *flag) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int v = i < 4096 ? data[i] : 0;
    if (i < 4096) data[i] = v + 1;
}

// --- Initialisation; `data` holds what nothing wrote ---
struct Padded { char c; int i; };
KERNEL ok_members(int *data, int *flag) {
    __shared__ Padded s[64];
    s[threadIdx.x].c = 1;
    s[threadIdx.x].i = 2;
    __syncthreads();
    flag[threadIdx.x & 63] = s[63 - threadIdx.x].c + s[63 - threadIdx.x].i;
}
KERNEL bad_atomic_add(int *data, int *flag) { atomicAdd(data + threadIdx.x, 1); }
KERNEL bad_shared_atomic(int *data, int *flag) {
    __shared__ int s;
    atomicAdd(&s, 1);
    __syncthreads();
    flag[threadIdx.x] = s;
}
KERNEL ok_exchange_first(int *data, int *flag) { atomicExch(data + threadIdx.x, 1); flag[threadIdx.x] = data[threadIdx.x]; }
KERNEL bad_half_of_pair(int *data, int *flag) {
    data[2 * threadIdx.x] = 1;
    int2 v = ((int2 *)data)[threadIdx.x];
    flag[threadIdx.x] = v.x + v.y;
}
KERNEL bad_predicate(int *data, int *flag) {
    int v = threadIdx.x;
    asm volatile("{ .reg .pred p, q; setp.lt.s32 p, %0, 7; @p setp.gt.s32 q, %0, 3; @q add.s32 %0, %0, 100; }" : "+r"(v));
    flag[threadIdx.x] = v;
}

// --- Many blocks ---
template <bool FENCES> __device__ void tickets(int *data, int *flag) {
    int mine = 0;
    if (threadIdx.x == 0) {
        data[blockIdx.x] = 1;
        if (FENCES) __threadfence();
        mine = FENCES ? atomicAdd(flag, 1) : atom_acq_rel(flag, 1);
        if (FENCES) __threadfence();
    }
    if (__syncthreads_or(threadIdx.x == 0 && mine == gridDim.x - 1)) {
        int sum = 0;
        for (int b = threadIdx.x; b < gridDim.x; b += blockDim.x) sum += data[b];
        atomicAdd(flag + 1, sum);
        if (threadIdx.x == 0) *flag = 0;
    }
}
KERNEL many_tickets(int *data, int *flag) { tickets<true>(data, flag); }
KERNEL many_acq_rel(int *data, int *flag) { tickets<false>(data, flag); }
KERNEL many_releases(int *data, int *flag) { for (int i = 0; i < 64; i++) red_release(flag, 1); }

// --- Liveness: each of these ends ---
// Lanes of one branch wait for those of the other, in a loop that both are in.
KERNEL live_lanes(int *data, int *flag) {
    for (int i = 0; i < 100;) {
        if (LANE & 1) { if (vol(flag) == 2 * i) { atomicExch(flag, 2 * i + 1); i++; } }
        else if (LANE == 0) { if (vol(flag) == 2 * i + 1) { atomicExch(flag, 2 * i + 2); i++; } }
        else break;
        if (LANE > 1) break;
    }
}
// The two sides of a branch poll for what another warp writes late.
KERNEL live_branches(int *data, int *flag) {
    if (WARP == 0) {
        for (;;) {
            int v;
            if (LANE & 1) v = vol(flag) + vol(flag + 2); else v = vol(flag + 1);
            if (v) break;
        }
    } else {
        for (int i = 0; i < 1000; i++) data[threadIdx.x] += i;
        if (LANE == 0) { __threadfence(); atomicExch(flag, 1); atomicExch(flag + 1, 1); }
    }
}
KERNEL live_switch(int *data, int *flag) {
    if (WARP == 0) {
        int state = 0, polls = 0;
        while (state < 9) {
            switch (state) {
                case 0: if (vol(flag)) state = 3; polls++; break;
                case 3: state = 5; data[0] = polls; break;
                case 5: state = 7; data[1] = polls * 3; break;
                case 6: state = 1; data[2] = polls * 5; break;
                case 7: state = 8; data[3] = polls / 7; break;
                case 8: state = 9; data[4] = polls ^ 7; break;
                default: state++; data[5] = polls - 3;
            }
        }
    } else atomicExch(flag, 1);
}
// An ordinary load that the compiler leaves in the loop.
KERNEL live_weak_poll(int *data, int *flag) {
    if (blockIdx.x == 0) { int v; do asm volatile("ld.global.cg.s32 %0, [%1];" : "=r"(v) : "l"(flag) : "memory"); while (v == 0); }
    else atomicExch(flag, 1);
}
KERNEL live_sleep(int *data, int *flag) { for (int i = 0; i < 20000; i++) __nanosleep(100); }
KERNEL live_reads(int *data, int *flag) {
    int sum = 0;
    if (threadIdx.x < 16) for (int i = 0; i < 400000; i++) sum += vol(data + (i & 4095)) + i;
    __syncthreads();
    data[threadIdx.x] = sum;
}
KERNEL live_clock(int *data, int *flag) {
    long long begin = clock64();
    while (clock64() - begin < 500000) if (vol(flag)) break;
    data[threadIdx.x] = 1;
}
// These do not.
KERNEL dead_lock(int *data, int *flag) { while (atomicCAS(flag, 0, 1)) {} data[0] = 1; }
KERNEL dead_add(int *data, int *flag) { while (atomicAdd(flag, 0) == 0) __nanosleep(20); }
KERNEL dead_backoff(int *data, int *flag) {
    for (int ns = 1; vol(flag) == 0; ns = ns == 3 ? 1 : ns + 1) __nanosleep(ns);
}
KERNEL dead_mask(int *data, int *flag) { if (LANE < 8) __syncwarp(); else if (LANE < 16) while (vol(flag) == 0) {} }
KERNEL long_barriers(int *data, int *flag) { for (int i = 0; i < 100000000; i++) { __syncthreads(); data[threadIdx.x] = i; } }
