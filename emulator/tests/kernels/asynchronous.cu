// For each class of mistake with asynchronous instructions a kernel that makes it and one that does not.
// What a finding names is on the line with the kernel's name in a comment.
typedef unsigned u32;
typedef unsigned long long u64;

#define SMEM(p) ((u32)__cvta_generic_to_shared(p))
#define INIT(bar, count) asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SMEM(bar)), "r"(count) : "memory")
#define FENCE_INIT() asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory")
#define FENCE_ASYNC() asm volatile("fence.proxy.async;" ::: "memory")
#define EXPECT(bar, bytes) asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SMEM(bar)), "r"(bytes) : "memory")
#define ARRIVE(bar) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SMEM(bar)) : "memory")
#define ARRIVE_MANY(bar, count) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(SMEM(bar)), "r"(count) : "memory")
#define WAIT(bar, parity) asm volatile("{ .reg .pred p; LAB_WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @!p bra LAB_WAIT; }" ::"r"(SMEM(bar)), "r"(parity) : "memory")
#define TEST(bar, parity) asm volatile("{ .reg .pred p; LAB_WAIT: mbarrier.test_wait.parity.shared::cta.b64 p, [%0], %1; @!p bra LAB_WAIT; }" ::"r"(SMEM(bar)), "r"(parity) : "memory")
#define LOAD(dst, src, bytes, bar) asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(SMEM(dst)), "l"(src), "r"(bytes), "r"(SMEM(bar)) : "memory")
#define STORE(dst, src, bytes) asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(dst), "r"(SMEM(src)), "r"(bytes) : "memory")
#define COMMIT() asm volatile("cp.async.bulk.commit_group;" ::: "memory")
#define STORED() asm volatile("cp.async.bulk.wait_group 0;" ::: "memory")
#define STORE_READ() asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory")
#define COPY(dst, src) asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(SMEM(dst)), "l"(src) : "memory")
#define CLUSTER_SYNC() asm volatile("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;" ::: "memory")

#define BOTH(name) \
    extern "C" __global__ void name##_broken(const int *in, int *out) { name<false>(in, out); } \
    extern "C" __global__ void name##_mended(const int *in, int *out) { name<true>(in, out); }

// The newest group is not waited for.
template <bool OK>
__device__ void copy_groups(const int *in, int *out) {
    __shared__ int tile[256];
    int t = threadIdx.x;
    COPY(tile + t, in + t);
    asm volatile("cp.async.commit_group;" ::: "memory");
    COPY(tile + 128 + t, in + 128 + t); // copy_groups other
    asm volatile("cp.async.commit_group;" ::: "memory");
    if (OK) asm volatile("cp.async.wait_group 0;" ::: "memory");
    else asm volatile("cp.async.wait_group 1;" ::: "memory");
    __syncthreads();
    int a = tile[127 - t];
    int b = tile[255 - t]; // copy_groups
    out[t] = a + b;
}
BOTH(copy_groups)

// The barrier is not waited for.
template <bool OK>
__device__ void load_wait(const int *in, int *out) {
    __shared__ __align__(16) int tile[128];
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (t == 0) { INIT(&bar, 1); FENCE_INIT(); }
    __syncthreads();
    if (t == 0) {
        EXPECT(&bar, 512);
        LOAD(tile, in, 512, &bar); // load_wait other
    }
    if (OK || t < 64) WAIT(&bar, 0);
    else __nanosleep(20);
    out[t] = tile[t]; // load_wait
}

// Warps 2 and 3 read without having waited.
BOTH(load_wait)

// A producer that fills a stage before its consumers have given it back; consumers that give it back before they have read it.
template <bool EMPTY, bool LATE>
__device__ void ring(const int *in, int *out) {
    __shared__ __align__(16) int tile[2][96];
    __shared__ u64 full[2], empty[2];
    int t = threadIdx.x, c = t - 32, sum = 0;
    if (t == 0) {
        for (int s = 0; s < 2; s++) { INIT(&full[s], 1); INIT(&empty[s], 96); }
        FENCE_INIT();
    }
    __syncthreads();
    if (t == 0) {
        for (int k = 0; k < 6; k++) {
            int s = k & 1;
            if (EMPTY) WAIT(&empty[s], (k >> 1 & 1) ^ 1);
            EXPECT(&full[s], 384);
            LOAD(tile[s], in + 96 * k, 384, &full[s]); // ring load
        }
    } else if (t >= 32) {
        for (int k = 0; k < 6; k++) {
            int s = k & 1;
            WAIT(&full[s], k >> 1 & 1);
            if (!LATE) ARRIVE(&empty[s]);
            sum = 3 * sum + tile[s][95 - c]; // ring read
            if (LATE) ARRIVE(&empty[s]);
        }
        out[c] = sum;
    }
}
extern "C" __global__ void ring_mended(const int *in, int *out) { ring<true, true>(in, out); }
extern "C" __global__ void ring_without_empty(const int *in, int *out) { ring<false, true>(in, out); }
extern "C" __global__ void ring_early_arrive(const int *in, int *out) { ring<true, false>(in, out); }

__device__ u64 plain_descriptor(const void *p) {
    return (u64)((SMEM(p) & 0x3ffff) >> 4) | (u64)(128 >> 4) << 16 | (u64)(256 >> 4) << 32;
}
#define MMA(d, a, b) asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;" \
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b))

// Matrices of ones that threads store: the fence between these stores and wgmma, wgmma.fence, and the wait.
template <bool PROXY, bool FENCE, bool WAIT_FIRST>
__device__ void product(int *out) {
    __shared__ __align__(128) u32 a[512], b[64];
    int t = threadIdx.x;
    float d[4] = {0, 0, 0, 0};
    for (int i = t; i < 512; i += 128) a[i] = 0x3f803f80;
    if (t < 64) b[t] = 0x3f803f80; // product store
    if (PROXY) FENCE_ASYNC();
    __syncthreads();
    if (FENCE) asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    MMA(d, plain_descriptor(a), plain_descriptor(b)); // product mma
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    if (WAIT_FIRST) asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    out[t] = (int)d[0]; // product read
    if (!WAIT_FIRST) asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}
extern "C" __global__ void product_mended(const int *in, int *out) { product<true, true, true>(out); }
extern "C" __global__ void product_without_proxy_fence(const int *in, int *out) { product<false, true, true>(out); }
extern "C" __global__ void product_without_fence(const int *in, int *out) { product<true, false, true>(out); }
extern "C" __global__ void product_without_wait(const int *in, int *out) { product<true, true, false>(out); }

// A bulk store of what threads stored: fence before it, wait before its source is used again, wait before the end.
template <bool FENCE, bool READ, bool END>
__device__ void store(const int *in, int *out) {
    __shared__ __align__(16) int tile[128];
    int t = threadIdx.x;
    tile[t] = in[t]; // store source
    if (FENCE) FENCE_ASYNC();
    __syncthreads();
    if (t == 0) {
        STORE(out, tile, 512); // store copy
        COMMIT();
        if (READ) STORE_READ();
    }
    __syncthreads();
    tile[t] = -1; // store reuse
    if (END && t == 0) STORED();
}
extern "C" __global__ void store_mended(const int *in, int *out) { store<true, true, true>(in, out); }
extern "C" __global__ void store_without_fence(const int *in, int *out) { store<false, true, true>(in, out); }
extern "C" __global__ void store_without_read(const int *in, int *out) { store<true, false, true>(in, out); }
extern "C" __global__ void store_without_end(const int *in, int *out) { store<true, false, false>(in, out); }

// Two copies; the barrier is told of one, of both, or of more.
template <int BYTES>
__device__ void expected(const int *in, int *out) {
    __shared__ __align__(16) int tile[128];
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (t == 0) { INIT(&bar, 1); FENCE_INIT(); }
    __syncthreads();
    if (t == 0) {
        EXPECT(&bar, BYTES); // expected
        LOAD(tile, in, 256, &bar);
        LOAD(tile + 64, in + 64, 256, &bar);
    }
    WAIT(&bar, 0); // expected wait
    out[t] = tile[t];
}
extern "C" __global__ void expected_mended(const int *in, int *out) { expected<512>(in, out); }
extern "C" __global__ void expected_too_few(const int *in, int *out) { expected<256>(in, out); }
extern "C" __global__ void expected_too_many(const int *in, int *out) { expected<528>(in, out); }

// A barrier that others use before they know it, that copies use before they see it, and that nobody initialised.
template <bool INITIALISED, bool SYNC, bool FENCE>
__device__ void start(const int *in, int *out) {
    __shared__ __align__(16) int tile[128];
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (INITIALISED && t == 0) {
        INIT(&bar, 128); // start init
        if (FENCE) FENCE_INIT();
    }
    if (SYNC) __syncthreads();
    if (t == 0) {
        EXPECT(&bar, 512);
        LOAD(tile, in, 512, &bar); // start load
    } else {
        ARRIVE(&bar); // start arrive
    }
    if (INITIALISED) WAIT(&bar, 0);
    out[t] = INITIALISED ? tile[t] : 0;
}
extern "C" __global__ void start_mended(const int *in, int *out) { start<true, true, true>(in, out); }
extern "C" __global__ void start_without_init(const int *in, int *out) { start<false, true, true>(in, out); }
extern "C" __global__ void start_without_sync(const int *in, int *out) { start<true, false, true>(in, out); }
extern "C" __global__ void start_without_fence(const int *in, int *out) { start<true, true, false>(in, out); }

// A block that ends while another reads its memory, or arrives at its barrier.
template <bool OK>
__device__ void visit(const int *in, int *out) {
    __shared__ int own[128];
    u32 rank, there;
    int t = threadIdx.x, v;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    own[t] = in[blockIdx.x * 128 + t];
    CLUSTER_SYNC();
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(SMEM(own + t)), "r"(rank ^ 1));
    asm volatile("ld.shared::cluster.s32 %0, [%1];" : "=r"(v) : "r"(there) : "memory"); // visit
    out[blockIdx.x * 128 + t] = v;
    if (OK) CLUSTER_SYNC();
}
BOTH(visit)

template <bool OK>
__device__ void tail(const int *in, int *out) {
    __shared__ u64 bar;
    u32 rank, there;
    int t = threadIdx.x;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (t == 0) { INIT(&bar, 128); FENCE_INIT(); }
    // The fence and a relaxed arrival are enough to show the barrier.
    asm volatile("barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;" ::: "memory");
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(SMEM(&bar)), "r"(rank ^ 1));
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(there) : "memory"); // tail
    if (OK) WAIT(&bar, 0);
    out[blockIdx.x * 128 + t] = in[t];
}
BOTH(tail)

// Half of each warp executes what the whole warp must.
template <bool OK>
__device__ void divergent(const int *in, int *out) {
    __shared__ __align__(16) int tile[128];
    int t = threadIdx.x;
    u32 v = 0;
    tile[t] = in[t];
    __syncthreads();
    if (OK || t % 32 < 16)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(v) : "r"(SMEM(tile + t % 8 * 4)) : "memory"); // divergent
    out[t] = v;
}
BOTH(divergent)

// More arrivals than a phase has.
template <bool OK>
__device__ void arrivals(const int *in, int *out) {
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (t == 0) { INIT(&bar, 4); FENCE_INIT(); }
    __syncthreads();
    if (t % 32 == 0) ARRIVE_MANY(&bar, OK ? 1 : 2 + t / 64); // arrivals
    WAIT(&bar, 0);
    out[t] = in[t];
}
BOTH(arrivals)

// A phase that never completes.
extern "C" __global__ void lost_phase(const int *in, int *out) {
    __shared__ u64 bar;
    int t = threadIdx.x;
    if (t == 0) { INIT(&bar, 4); FENCE_INIT(); }
    __syncthreads();
    if (t == 0) {
        ARRIVE_MANY(&bar, 4);
        EXPECT(&bar, 64); // lost_phase
        ARRIVE(&bar);
    }
    WAIT(&bar, 1); // lost_phase wait
    out[t] = in[t];
}
extern "C" __global__ void lost_test(const int *in, int *out) {
    __shared__ u64 bar;
    if (threadIdx.x == 0) { INIT(&bar, 2); FENCE_INIT(); }
    __syncthreads();
    if (threadIdx.x == 0) ARRIVE(&bar);
    TEST(&bar, 0); // lost_test
    out[threadIdx.x] = in[threadIdx.x];
}
