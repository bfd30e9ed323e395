// Loops of one kind of instruction each, whose rate the benchmarks measure. Eight or sixteen at a time, so that the loop itself
// weighs little.
typedef unsigned u32;

extern "C" __global__ void rate_float(float *out, int n) {
    float a = threadIdx.x, b = blockIdx.x + 1.5f, c = 0.25f, d = 1.0f;
    for (int i = 0; i < n; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            a = __fmaf_rn(a, b, c);
            d = __fadd_rn(d, a);
            c = __fmul_rn(c, b);
            b = __fmaf_rn(c, d, b);
        }
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = a + b + c + d;
}

extern "C" __global__ void rate_integer(u32 *out, int n) {
    u32 a = threadIdx.x, b = blockIdx.x + 3, c = 0x9e3779b9u, d = n;
    for (int i = 0; i < n; i++) {
#pragma unroll
        for (int j = 0; j < 3; j++) {
            a = a * b + c;
            d += a;
            c ^= d;
            b = d << 3;
            c += b;
            d ^= a >> 7;
        }
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = a + b + c + d;
}

// Every thread has its own word, or 16 bytes, or a word in every second bank.
template <int STRIDE> __device__ void shared_words(u32 *out, int n) {
    __shared__ u32 s[256 * STRIDE];
    u32 at = (u32)__cvta_generic_to_shared(s) + threadIdx.x * 4 * STRIDE, v = threadIdx.x;
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
    for (int i = 0; i < n; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at) : "memory");
            asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
        }
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}
extern "C" __global__ void rate_shared(u32 *out, int n) { shared_words<1>(out, n); }
extern "C" __global__ void rate_shared_strided(u32 *out, int n) { shared_words<2>(out, n); }

extern "C" __global__ void rate_shared_16(u32 *out, int n) {
    __shared__ uint4 s[256];
    u32 at = (u32)__cvta_generic_to_shared(s) + threadIdx.x * 16;
    uint4 v = {threadIdx.x, 1, 2, 3};
    asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
    for (int i = 0; i < n; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at) : "memory");
            asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
        }
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = v.x;
}

extern "C" __global__ void rate_shared_atomic(u32 *out, int n) {
    __shared__ u32 s[256];
    s[threadIdx.x] = 0;
    __syncthreads();
    for (int i = 0; i < n; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) atomicAdd(&s[(threadIdx.x + j) & 255], 1u);
    }
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = s[threadIdx.x];
}

// 256 threads copy eight pieces of a part of the buffer to the next eight, all parts of a block `passes` times.
template <typename T, int STRIDE> __device__ void global_copies(T *data, int n, int passes) {
    const int step = 256 * STRIDE;
    for (int pass = 0; pass < passes; pass++) {
        T *at = data + blockIdx.x * n * 16 * step + threadIdx.x * STRIDE;
        for (int i = 0; i < n; i++) {
#pragma unroll
            for (int j = 0; j < 8; j++) at[(8 + j) * step] = at[j * step];
            at += 16 * step;
        }
    }
}
extern "C" __global__ void rate_global(u32 *data, int n, int passes) { global_copies<u32, 1>(data, n, passes); }
extern "C" __global__ void rate_global_strided(u32 *data, int n, int passes) { global_copies<u32, 4>(data, n, passes); }
extern "C" __global__ void rate_global_16(uint4 *data, int n, int passes) {
    global_copies<uint4, 1>(data, n, passes);
}

extern "C" __global__ void rate_global_atomic(u32 *data, int n) {
    u32 *at = data + threadIdx.x;
    for (int i = 0; i < n; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) atomicAdd(at + j * 256, 1u);
    }
}

// What a block costs that does next to nothing.
extern "C" __global__ void rate_blocks(u32 *out) {
    __shared__ u32 s[128];
    s[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = s[threadIdx.x ^ 1];
}

// Matrix products of 16 x 8 x 16, eight sums side by side, of numbers from 1/2 to 1 of either sign.
extern "C" __global__ void rate_mma(float *out, int n) {
    u32 seed = blockIdx.x * blockDim.x + threadIdx.x;
    auto pair = [&] { seed = seed * 1664525u + 1013904223u; return (seed >> 8 & 0x807f) * 0x10001u | 0x3f003f00u; };
    u32 a[4], b[8][2];
    float c[8][4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = pair();
#pragma unroll
    for (int j = 0; j < 16; j++) b[j / 2][j % 2] = pair();
    for (int i = 0; i < n; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                         : "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[j][0]), "r"(b[j][1]));
    }
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 32; j++) sum += c[j / 4][j % 4];
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
