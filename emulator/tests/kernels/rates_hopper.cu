// Loops of wgmma, whose rate the benchmarks measure: four steps of K to a group, operands of one stage in 128-byte swizzle.
typedef unsigned u32;
typedef unsigned long long u64;

__device__ u32 smem(const void *p) { return (u32)__cvta_generic_to_shared(p); }
__device__ u64 descriptor(const void *p) {
    return (u64)((smem(p) & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
// Two numbers from 1/2 to 1 of either sign.
__device__ u32 pair(u32 seed) { return (seed * 2654435761u >> 9 & 0x807f) * 0x10001u | 0x3f003f00u; }

#define FOUR(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIXTEEN(d, i) FOUR(d, i), FOUR(d, i + 4), FOUR(d, i + 8), FOUR(d, i + 12)
#define SUMS_128(d) SIXTEEN(d, 0), SIXTEEN(d, 16), SIXTEEN(d, 32), SIXTEEN(d, 48)
#define SUMS_256(d) SUMS_128(d), SIXTEEN(d, 64), SIXTEEN(d, 80), SIXTEEN(d, 96), SIXTEEN(d, 112)

__device__ void mma_128(float *d, u64 a, u64 b) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, %64, %65, p, 1, 1, 0, 0; }" : SUMS_128(d) : "l"(a), "l"(b));
}
__device__ void mma_128_registers(float *d, const u32 *a, u64 b) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, {%64,%65,%66,%67}, %68, p, 1, 1, 0; }"
                 : SUMS_128(d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ void mma_256(float *d, u64 a, u64 b) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}, %128, %129, p, 1, 1, 0, 0; }" : SUMS_256(d) : "l"(a), "l"(b));
}

template <int N, bool A_IN_REGISTERS> __device__ void loop(float *out, int n) {
    __shared__ __align__(1024) u32 a[64 * 32];
    __shared__ __align__(1024) u32 b[N * 32];
    for (int i = threadIdx.x; i < 64 * 32; i += 128) a[i] = pair(i);
    for (int i = threadIdx.x; i < N * 32; i += 128) b[i] = pair(i + 64 * 32);
    u32 rows[4];
    float d[N / 2] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) rows[i] = pair(4 * threadIdx.x + i);
    asm volatile("fence.proxy.async;" ::: "memory");
    __syncthreads();
    for (int i = 0; i < n; i++) {
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (A_IN_REGISTERS) mma_128_registers(d, rows, descriptor(b + 8 * k));
            else if (N == 128) mma_128(d, descriptor(a + 8 * k), descriptor(b + 8 * k));
            else mma_256(d, descriptor(a + 8 * k), descriptor(b + 8 * k));
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    }
    float sum = 0;
#pragma unroll
    for (int j = 0; j < N / 2; j++) sum += d[j];
    out[blockIdx.x * 128 + threadIdx.x] = sum;
}
extern "C" __global__ void __launch_bounds__(128) rate_wgmma_128(float *out, int n) { loop<128, false>(out, n); }
extern "C" __global__ void __launch_bounds__(128) rate_wgmma_256(float *out, int n) { loop<256, false>(out, n); }
extern "C" __global__ void __launch_bounds__(128) rate_wgmma_registers(float *out, int n) { loop<128, true>(out, n); }
