// The instructions of sm_90: mbarriers, bulk and tensor copies, wgmma, clusters.
typedef unsigned u32;
typedef unsigned long long u64;
typedef unsigned short u16;
struct __align__(64) CUtensorMap { u64 opaque[16]; };

__device__ u32 smem(const void *p) { return (u32)__cvta_generic_to_shared(p); }
__device__ void init(u64 *bar, u32 count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem(bar)), "r"(count) : "memory"); }
__device__ void fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ void fence_async() { asm volatile("fence.proxy.async;" ::: "memory"); }
__device__ void expect(u64 *bar, u32 bytes) { asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem(bar)), "r"(bytes) : "memory"); }
__device__ void arrive(u64 *bar) { asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(smem(bar)) : "memory"); }
__device__ void wait(u64 *bar, u32 parity) {
    asm volatile("{ .reg .pred p; LAB_WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra DONE; bra LAB_WAIT; DONE: }" ::"r"(smem(bar)), "r"(parity) : "memory");
}
__device__ void load_2d(void *dst, const CUtensorMap *map, int x, int y, u64 *bar) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
                 ::"r"(smem(dst)), "l"(map), "r"(x), "r"(y), "r"(smem(bar)) : "memory");
}
__device__ void store_2d(const CUtensorMap *map, int x, int y, const void *src) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(x), "r"(y), "r"(smem(src)) : "memory");
}

// A bulk copy in, one addition, a bulk copy out. FENCE: of the asynchronous proxy, before the copy reads what was stored.
template <bool WAIT, bool FENCE, int BYTES>
__device__ void bulk(const int *in, int *out) {
    __shared__ __align__(128) int tile[256];
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (t == 0) { init(&bar, 1); fence_init(); }
    __syncthreads();
    if (t == 0) {
        expect(&bar, BYTES);
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                     ::"r"(smem(tile)), "l"(in + blockIdx.x * 256), "r"(1024), "r"(smem(&bar)) : "memory");
    }
    if (WAIT) wait(&bar, 0);
    tile[t] += 1;
    if (FENCE) fence_async();
    __syncthreads();
    if (t == 0) {
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(out + blockIdx.x * 256), "r"(smem(tile)), "r"(1024) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}
extern "C" __global__ void bulk_copy(const int *in, int *out) { bulk<true, true, 1024>(in, out); }
extern "C" __global__ void bulk_without_wait(const int *in, int *out) { bulk<false, true, 1024>(in, out); }
extern "C" __global__ void bulk_without_fence(const int *in, int *out) { bulk<true, false, 1024>(in, out); }
extern "C" __global__ void bulk_expects_too_much(const int *in, int *out) { bulk<true, true, 2048>(in, out); }

// A tile of a tensor in, negated, out to the transposed place.
extern "C" __global__ void tensor_copy(const __grid_constant__ CUtensorMap from, const __grid_constant__ CUtensorMap to, int x, int y) {
    __shared__ __align__(1024) float tile[16][32];
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (t == 0) { init(&bar, 1); fence_init(); }
    __syncthreads();
    if (t == 0) {
        expect(&bar, sizeof(tile));
        load_2d(tile, &from, x, y, &bar);
    }
    wait(&bar, 0);
    for (int i = t; i < 512; i += blockDim.x) tile[i / 32][i % 32] *= -1;
    fence_async();
    __syncthreads();
    if (t == 0) {
        store_2d(&to, 0, 0, tile);
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    }
}

// Where the swizzle puts what: the tile as shared memory has it.
extern "C" __global__ void tensor_as_it_lies(const __grid_constant__ CUtensorMap from, u32 *out, int words) {
    extern __shared__ __align__(1024) u32 dyn[];
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (t == 0) { init(&bar, 1); fence_init(); }
    __syncthreads();
    if (t == 0) {
        expect(&bar, words * 4);
        load_2d(dyn, &from, 0, 0, &bar);
    }
    wait(&bar, 0);
    for (int i = t; i < words; i += blockDim.x) out[i] = dyn[i];
}

__device__ u64 descriptor(const void *p) {
    return (u64)((smem(p) & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
__device__ void mma64(float *d, u64 a, u64 b) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, p, 1, 1, 0, 0; }"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(a), "l"(b));
}

// C = A B^T: a producer warp fills stages by tensor copies, a warpgroup multiplies. 64 x 64 x 64 tiles, two stages.
template <bool WAIT, bool EMPTY>
__device__ void gemm(const CUtensorMap *a, const CUtensorMap *b, float *C, int N, int K) {
    extern __shared__ __align__(1024) unsigned char stages[];
    __shared__ u64 full[2], empty[2];
    int t = threadIdx.x, tiles = K / 64;
    if (t == 0) {
        for (int i = 0; i < 2; i++) { init(&full[i], 1); init(&empty[i], 128); }
        fence_init();
        fence_async();
    }
    __syncthreads();
    if (t >= 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        u32 leader;
        asm volatile("{ .reg .pred P1; elect.sync _|P1, 0xFFFFFFFF; selp.b32 %0, 1, 0, P1; }" : "=r"(leader));
        if (leader) {
            for (int k = 0; k < tiles; k++) {
                int s = k & 1;
                if (EMPTY) wait(&empty[s], ((k >> 1) & 1) ^ 1);
                expect(&full[s], 16384);
                load_2d(stages + s * 16384, a, k * 64, blockIdx.y * 64, &full[s]);
                load_2d(stages + s * 16384 + 8192, b, k * 64, blockIdx.x * 64, &full[s]);
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        float d[32] = {};
        for (int k = 0; k < tiles; k++) {
            int s = k & 1;
            wait(&full[s], (k >> 1) & 1);
            asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
            for (int i = 0; i < 4; i++)
                mma64(d, descriptor(stages + s * 16384 + i * 32), descriptor(stages + s * 16384 + 8192 + i * 32));
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            if (WAIT || k + 1 == tiles) asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
            arrive(&empty[s]);
        }
        int row = blockIdx.y * 64 + (t >> 5) * 16 + ((t & 31) >> 2), col = blockIdx.x * 64 + (t & 3) * 2;
        for (int j = 0; j < 8; j++) {
            C[row * N + col + 8 * j] = d[4 * j];
            C[row * N + col + 8 * j + 1] = d[4 * j + 1];
            C[(row + 8) * N + col + 8 * j] = d[4 * j + 2];
            C[(row + 8) * N + col + 8 * j + 1] = d[4 * j + 3];
        }
    }
}
extern "C" __global__ void __launch_bounds__(160) gemm_wgmma(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, float *C, int N, int K) { gemm<true, true>(&a, &b, C, N, K); }
extern "C" __global__ void __launch_bounds__(160) gemm_without_empty(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, float *C, int N, int K) { gemm<true, false>(&a, &b, C, N, K); }
extern "C" __global__ void __launch_bounds__(160) gemm_early_arrive(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b, float *C, int N, int K) { gemm<false, true>(&a, &b, C, N, K); }

// Blocks of a cluster read each other's shared memory.
template <bool BARRIER>
__device__ void ring(const int *in, int *out) {
    __shared__ int own[64];
    u32 rank, size;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    own[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
    asm volatile("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;" ::: "memory");
    u32 there;
    int v;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(smem(own + 63 - threadIdx.x)), "r"((rank + 1) % size));
    asm volatile("ld.shared::cluster.s32 %0, [%1];" : "=r"(v) : "r"(there) : "memory");
    out[blockIdx.x * 64 + threadIdx.x] = v;
    if (BARRIER) asm volatile("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;" ::: "memory");
    else own[threadIdx.x] = 0;
}
extern "C" __global__ void cluster_ring(const int *in, int *out) { ring<true>(in, out); }
extern "C" __global__ void cluster_race(const int *in, int *out) { ring<false>(in, out); }

// One block's copy lands in all blocks of the cluster.
extern "C" __global__ void multicast(const int *in, int *out) {
    __shared__ __align__(128) int tile[64];
    __shared__ u64 bar;
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (threadIdx.x == 0) { init(&bar, 1); fence_init(); expect(&bar, 256); }
    asm volatile("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;" ::: "memory");
    if (rank == 0 && threadIdx.x == 0)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], 256, [%2], %3;"
                     ::"r"(smem(tile)), "l"(in), "r"(smem(&bar)), "h"((u16)0xf) : "memory");
    wait(&bar, 0);
    out[blockIdx.x * 64 + threadIdx.x] = tile[threadIdx.x] * (rank + 1);
}

// cp.async that arrives at an mbarrier.
extern "C" __global__ void copies_arrive(const int *in, int *out) {
    __shared__ __align__(16) int tile[256];
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (t == 0) { init(&bar, 64); fence_init(); }
    __syncthreads();
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(smem(tile + 4 * t)), "l"(in + 4 * t) : "memory");
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(smem(&bar)) : "memory");
    wait(&bar, 0);
    for (int i = 0; i < 4; i++) out[64 * i + t] = tile[255 - (64 * i + t)];
}
