// Correct kernels in the forms that libraries for sm_90 use. Nothing may be found in them.
typedef unsigned u32;
typedef unsigned long long u64;
typedef unsigned short u16;
struct __align__(64) CUtensorMap { u64 opaque[16]; };

__device__ u32 smem(const void *p) { return (u32)__cvta_generic_to_shared(p); }
__device__ void init(u64 *bar, u32 count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem(bar)), "r"(count) : "memory"); }
__device__ void fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ void expect(u64 *bar, u32 bytes) { asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem(bar)), "r"(bytes) : "memory"); }
__device__ void arrive(u64 *bar) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem(bar)) : "memory"); }
__device__ void arrive_at(u64 *bar, u32 rank) {
    asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there]; }" ::"r"(smem(bar)), "r"(rank) : "memory");
}
__device__ void wait(u64 *bar, u32 parity) {
    asm volatile("{ .reg .pred p; LAB_WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra DONE; bra LAB_WAIT; DONE: }" ::"r"(smem(bar)), "r"(parity) : "memory");
}
__device__ void load_2d(void *dst, const CUtensorMap *map, int x, int y, u64 *bar) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(smem(dst)), "l"(map), "r"(x), "r"(y), "r"(smem(bar)) : "memory");
}
__device__ void load_2d_to(void *dst, const CUtensorMap *map, int x, int y, u64 *bar, u16 mask) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(smem(dst)), "l"(map), "r"(x), "r"(y), "r"(smem(bar)), "h"(mask) : "memory");
}
__device__ void store_2d(const CUtensorMap *map, int x, int y, const void *src) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(x), "r"(y), "r"(smem(src)) : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
__device__ void named_barrier(u32 id, u32 count) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory"); }
__device__ void named_arrive(u32 id, u32 count) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(count) : "memory"); }
__device__ void mma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void mma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
__device__ void mma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// Rows of 128 bytes, swizzled.
__device__ u64 descriptor(const void *p) {
    return (u64)((smem(p) & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
#define D32(d) "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define N32 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"
__device__ void mma(float *d, u64 a, u64 b, int adds) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0;\n wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " N32 ", %32, %33, p, 1, 1, 0, 0; }"
                 : D32(d) : "l"(a), "l"(b), "r"(adds));
}
// A in registers; B with N running fastest.
__device__ void mma_registers(float *d, const u32 *a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " N32 ", {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : D32(d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// C = A B^T in tiles of 128 x 64 x 64. A producer, two consumer warpgroups of 64 rows each, three stages; each stage is given back
// when the next one's products are under way. C leaves through shared memory. A block takes tile after tile.
// CLUSTER: two blocks below one another load half of B each, for both.
const int STAGES = 3, A_BYTES = 128 * 128, STAGE_BYTES = A_BYTES + 64 * 128;
template <bool CLUSTER>
__device__ void gemm(const CUtensorMap *ta, const CUtensorMap *tb, const CUtensorMap *tc, int M, int N, int K) {
    extern __shared__ __align__(1024) unsigned char mem[];
    __shared__ u64 full[STAGES], empty[STAGES];
    float *tile_c = (float *)(mem + STAGES * STAGE_BYTES);
    int t = threadIdx.x, group = t / 128, steps = K / 64;
    u32 rank = 0;
    if (CLUSTER) asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (t == 0) {
        asm volatile("prefetch.tensormap [%0];" ::"l"(ta) : "memory");
        for (int s = 0; s < STAGES; s++) { init(&full[s], 1); init(&empty[s], CLUSTER ? 4 : 2); }
        fence_init();
    }
    if (CLUSTER) asm volatile("barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
    else __syncthreads();
    int tiles = (M / 128) * (N / 64);
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (t == 0) {
            int stage = 0, phase = 0;
            for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
                int m = tile % (M / 128), n = tile / (M / 128);
                for (int k = 0; k < steps; k++) {
                    wait(&empty[stage], phase ^ 1);
                    unsigned char *to = mem + stage * STAGE_BYTES;
                    expect(&full[stage], STAGE_BYTES);
                    load_2d(to, ta, k * 64, m * 128, &full[stage]);
                    if (CLUSTER) load_2d_to(to + A_BYTES + rank * 4096, tb, k * 64, n * 64 + rank * 32, &full[stage], 3);
                    else load_2d(to + A_BYTES, tb, k * 64, n * 64, &full[stage]);
                    if (++stage == STAGES) { stage = 0; phase ^= 1; }
                }
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        int c = group - 1, lane = t % 32, warp = t % 128 / 32, stage = 0, phase = 0;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            int m = tile % (M / 128), n = tile / (M / 128), before = 0;
            float d[32] = {};
            for (int k = 0; k < steps; k++) {
                wait(&full[stage], phase);
                unsigned char *from = mem + stage * STAGE_BYTES;
                mma_fence();
                for (int i = 0; i < 4; i++)
                    mma(d, descriptor(from + c * 8192 + 32 * i), descriptor(from + A_BYTES + 32 * i), k > 0 || i > 0);
                mma_commit();
                if (k > 0) {
                    mma_wait<1>();
                    if (CLUSTER) { if (t % 128 < 2) arrive_at(&empty[before], t % 128); }
                    else if (t % 128 == 0) arrive(&empty[before]);
                }
                before = stage;
                if (++stage == STAGES) { stage = 0; phase ^= 1; }
            }
            mma_wait<0>();
            if (CLUSTER) { if (t % 128 < 2) arrive_at(&empty[before], t % 128); }
            else if (t % 128 == 0) arrive(&empty[before]);
            // The last tile's store has to have read what is overwritten now.
            if (t == 128) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
            named_barrier(1, 256);
            int row = c * 64 + warp * 16 + lane / 4, column = 2 * (lane % 4);
            for (int j = 0; j < 8; j++) {
                *(float2 *)&tile_c[row * 64 + 8 * j + column] = make_float2(d[4 * j], d[4 * j + 1]);
                *(float2 *)&tile_c[(row + 8) * 64 + 8 * j + column] = make_float2(d[4 * j + 2], d[4 * j + 3]);
            }
            fence_async();
            named_barrier(1, 256);
            if (t == 128) store_2d(tc, n * 64, m * 128, tile_c);
        }
        if (t == 128) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
    // Arrivals from the other block may still come.
    if (CLUSTER) {
        __syncwarp();
        asm volatile("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;" ::: "memory");
    }
}
extern "C" __global__ void __launch_bounds__(384) gemm_persistent(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, const __grid_constant__ CUtensorMap c, int M, int N, int K) { gemm<false>(&a, &b, &c, M, N, K); }
extern "C" __global__ void __launch_bounds__(384) gemm_cluster(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, const __grid_constant__ CUtensorMap c, int M, int N, int K) { gemm<true>(&a, &b, &c, M, N, K); }

// C = A B^T in tiles of 64 x 64 x 64 by one warpgroup whose threads copy, three stages.
extern "C" __global__ void __launch_bounds__(128) gemm_copies(const u16 *A, const u16 *B, float *C, int N, int K) {
    extern __shared__ __align__(1024) unsigned char mem[];
    int t = threadIdx.x, lane = t % 32, warp = t / 32, steps = K / 64;
    int m = blockIdx.y * 64, n = blockIdx.x * 64;
    float d[32] = {};
    auto load = [&](int k) {
        if (k < steps)
            for (int i = t; i < 1024; i += 128) {
                int row = i % 512 / 8, chunk = i % 8;
                const u16 *from = (i < 512 ? A + (size_t)(m + row) * K : B + (size_t)(n + row) * K) + k * 64 + chunk * 8;
                u32 to = smem(mem) + k % 3 * 16384 + i / 512 * 8192 + row * 128 + ((chunk ^ (row & 7)) << 4);
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
            }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    load(0);
    load(1);
    for (int k = 0; k < steps; k++) {
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        fence_async();
        __syncthreads();
        load(k + 2);
        unsigned char *from = mem + k % 3 * 16384;
        mma_fence();
        for (int i = 0; i < 4; i++) mma(d, descriptor(from + 32 * i), descriptor(from + 8192 + 32 * i), 1);
        mma_commit();
        mma_wait<0>();
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
    int row = m + warp * 16 + lane / 4, column = n + 2 * (lane % 4);
    for (int j = 0; j < 8; j++) {
        *(float2 *)&C[row * N + column + 8 * j] = make_float2(d[4 * j], d[4 * j + 1]);
        *(float2 *)&C[(row + 8) * N + column + 8 * j] = make_float2(d[4 * j + 2], d[4 * j + 3]);
    }
}

__device__ float exp2_fast(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ u32 pack(float low, float high) { u32 d; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low)); return d; }

// O = softmax(Q K^T / 8) V for heads of 64: a block takes 128 queries, two consumer warpgroups by turns start their products; P goes
// to the second product in registers, V lies with its columns fastest.
extern "C" __global__ void __launch_bounds__(384) attention(const __grid_constant__ CUtensorMap tq, const __grid_constant__ CUtensorMap tk, const __grid_constant__ CUtensorMap tv, float *O, int keys) {
    extern __shared__ __align__(1024) unsigned char mem[];
    unsigned char *q = mem, *k_stages = mem + 16384, *v_stages = k_stages + 2 * 8192;
    __shared__ u64 q_full, k_full[2], k_empty[2], v_full[2], v_empty[2];
    int t = threadIdx.x, group = t / 128, blocks = keys / 64;
    if (t == 0) {
        init(&q_full, 1);
        for (int s = 0; s < 2; s++) { init(&k_full[s], 1); init(&v_full[s], 1); init(&k_empty[s], 256); init(&v_empty[s], 256); }
        fence_init();
    }
    __syncthreads();
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (t == 0) {
            expect(&q_full, 16384);
            load_2d(q, &tq, 0, blockIdx.x * 128, &q_full);
            for (int j = 0; j < blocks; j++) {
                int s = j & 1, phase = j >> 1 & 1;
                wait(&k_empty[s], phase ^ 1);
                expect(&k_full[s], 8192);
                load_2d(k_stages + s * 8192, &tk, 0, j * 64, &k_full[s]);
                wait(&v_empty[s], phase ^ 1);
                expect(&v_full[s], 8192);
                load_2d(v_stages + s * 8192, &tv, 0, j * 64, &v_full[s]);
            }
        }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    int c = group - 1, lane = t % 32, warp = t % 128 / 32;
    if (c == 1) named_arrive(2, 256);
    float o[32] = {}, top[2] = {-1e30f, -1e30f}, sum[2] = {0, 0};
    wait(&q_full, 0);
    for (int j = 0; j < blocks; j++) {
        int s = j & 1, phase = j >> 1 & 1;
        float p[32];
        for (int i = 0; i < 32; i++) p[i] = 0;
        wait(&k_full[s], phase);
        named_barrier(2 + c, 256);
        mma_fence();
        for (int i = 0; i < 4; i++) mma(p, descriptor(q + c * 8192 + 32 * i), descriptor(k_stages + s * 8192 + 32 * i), i > 0);
        mma_commit();
        named_arrive(3 - c, 256);
        mma_wait<0>();
        arrive(&k_empty[s]);
        const float scale = 1.44269504f / 8;
        u32 a[16];
        for (int half = 0; half < 2; half++) {
            float high = top[half];
            for (int i = 0; i < 8; i++) high = fmaxf(high, fmaxf(p[4 * i + 2 * half], p[4 * i + 2 * half + 1]));
            high = fmaxf(high, __shfl_xor_sync(~0u, high, 1));
            high = fmaxf(high, __shfl_xor_sync(~0u, high, 2));
            float shrink = exp2_fast((top[half] - high) * scale);
            top[half] = high;
            sum[half] *= shrink;
            for (int i = 0; i < 8; i++)
                for (int e = 0; e < 2; e++) {
                    int at = 4 * i + 2 * half + e;
                    p[at] = exp2_fast((p[at] - high) * scale);
                    sum[half] += p[at];
                    o[at] *= shrink;
                }
        }
        for (int i = 0; i < 16; i++) a[i] = pack(p[2 * i], p[2 * i + 1]);
        wait(&v_full[s], phase);
        mma_fence();
        for (int i = 0; i < 4; i++) mma_registers(o, a + 4 * i, descriptor(v_stages + s * 8192 + 2048 * i));
        mma_commit();
        mma_wait<0>();
        arrive(&v_empty[s]);
    }
    for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
        sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
        int row = blockIdx.x * 128 + c * 64 + warp * 16 + lane / 4 + 8 * half;
        for (int i = 0; i < 8; i++)
            for (int e = 0; e < 2; e++) O[row * 64 + 8 * i + 2 * (lane % 4) + e] = o[4 * i + 2 * half + e] / sum[half];
    }
}

// Each thread's value and its neighbours', again and again: arrive, work, then wait; the same between blocks of a cluster.
extern "C" __global__ void split_barriers(const int *in, int *out, int rounds) {
    __shared__ int own[2][128];
    __shared__ u64 bar;
    int t = threadIdx.x;
    u32 rank, size, there;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    if (t == 0) { init(&bar, 128); fence_init(); }
    __syncthreads();
    int x = in[blockIdx.x * 128 + t];
    for (int i = 0; i < rounds; i++) {
        u64 state;
        own[i & 1][t] = x;
        asm volatile("mbarrier.arrive.shared::cta.b64 %0, [%1];" : "=l"(state) : "r"(smem(&bar)) : "memory");
        int mine = 3 * x;
        asm volatile("{ .reg .pred p; LAB_WAIT: mbarrier.try_wait.shared::cta.b64 p, [%0], %1; @!p bra LAB_WAIT; }" ::"r"(smem(&bar)), "l"(state) : "memory");
        x = mine + own[i & 1][(t + 1) % 128] - own[i & 1][(t + 127) % 128];
    }
    // The same buffer is written again: its readers are one phase behind, unless the last round read it.
    own[rounds & 1][t] = x;
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    int mine = 5 * x, v;
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(smem(&own[rounds & 1][t])), "r"((rank + 1) % size));
    asm volatile("ld.shared::cluster.s32 %0, [%1];" : "=r"(v) : "r"(there) : "memory");
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    out[blockIdx.x * 128 + t] = mine + v;
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
