// Straight arithmetic, warp collectives, calls, local memory and printf.
typedef unsigned int u32;
typedef unsigned long long u64;

extern "C" __global__ void saxpy(float a, const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}

extern "C" __global__ void divergent(const int *in, int *out) {
    int i = threadIdx.x;
    int v = in[i], steps = 0;
    while (v != 1) {
        v = (v & 1) ? 3 * v + 1 : v / 2;
        steps++;
    }
    out[i] = steps;
}

__device__ __noinline__ int gcd_steps(int a, int b, int *steps) {
    int local[8];
    int n = 0;
    while (b) {
        local[n & 7] = a;
        int t = a % b;
        a = b;
        b = t;
        n++;
    }
    *steps = n + (n ? local[(n - 1) & 7] * 0 : 0);
    return a;
}

extern "C" __global__ void calls(const int *a, const int *b, int *out) {
    int i = threadIdx.x, steps;
    int g = gcd_steps(a[i], b[i], &steps);
    out[2 * i] = g;
    out[2 * i + 1] = steps;
}

extern "C" __global__ void integers(const u32 *a, const u32 *b, u32 *out) {
    int i = threadIdx.x;
    u32 x = a[i], y = b[i];
    u32 *o = out + 24 * i;
    o[0] = x / (y | 1);
    o[1] = (int)x % (int)(y | 1);
    o[2] = __umulhi(x, y);
    o[3] = __mulhi((int)x, (int)y);
    o[4] = __popc(x);
    o[5] = __clz(x);
    o[6] = __brev(x);
    o[7] = __byte_perm(x, y, 0x5140);
    o[8] = __funnelshift_l(x, y, 7);
    o[9] = __ffs(x);
    o[10] = __dp4a((int)x, (int)y, 5);
    o[11] = __sad((int)x, (int)y, 3u);
    o[12] = min((int)x, (int)y);
    o[13] = max(x, y);
    u64 w = ((u64)x << 32 | y) * 0x9e3779b97f4a7c15ull;
    o[14] = (u32)(w >> 37);
    o[15] = (u32)__umul64hi(w, w);
    o[16] = (u32)(w / (x | 1));
    o[17] = (u32)((long long)w % (int)(y | 1));
    o[18] = (x >> (y & 31)) | (x << (32 - (y & 31)));
    o[19] = (u32)((int)x >> 3);
    o[20] = (u32)(unsigned char)x + (u32)(signed char)y;
    o[21] = x > y ? x - y : y - x;
    o[22] = (x & 0xff00ff) * 3 ^ y;
    o[23] = (u32)__float2int_rn((float)(int)x * 0.001f);
}

extern "C" __global__ void warps(const int *in, int *out) {
    int i = threadIdx.x, lane = i & 31;
    int v = in[i];
    int sum = v;
    for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
    int scan = v;
    for (int d = 1; d < 32; d <<= 1) {
        int up = __shfl_up_sync(~0u, scan, d);
        if (lane >= d) scan += up;
    }
    u32 odd = __ballot_sync(~0u, v & 1);
    u32 same = __match_any_sync(~0u, v & 3);
    int *o = out + 8 * i;
    o[0] = sum;
    o[1] = scan;
    o[2] = odd;
    o[3] = same;
    o[4] = __reduce_max_sync(~0u, v);
    o[5] = __any_sync(~0u, v == 7) | __all_sync(~0u, v > -1000) << 1;
    o[6] = __shfl_sync(~0u, v, 3, 8);
    if (lane < 10) {
        o[7] = __popc(__activemask()) + __shfl_down_sync(0x3ff, v, 2);
    } else {
        o[7] = 0;
    }
}

extern "C" __global__ void print(int n) {
    if (threadIdx.x < n) printf("thread %d of %u: %.2f %s %c %lld %x%%\n", threadIdx.x, blockDim.x, threadIdx.x * 0.5, "text", 'c', -1LL << 40, 255u);
}

__constant__ float table[4] = {1.5f, 2.5f, 3.5f, 4.5f};
__device__ int counter = 40;

extern "C" __global__ void constants(float *out) {
    out[threadIdx.x] = table[threadIdx.x & 3];
    if (threadIdx.x == 0) atomicAdd(&counter, 2);
}

extern "C" __global__ void select(const int *in, int *out) {
    int i = threadIdx.x;
    int r;
    switch (in[i]) {
    case 0: r = i * 3; break;
    case 1: r = i + 100; break;
    case 2: r = i ^ 0x55; break;
    case 3: r = -i; break;
    case 4: r = i / 3; break;
    case 5: r = i % 7; break;
    case 6: r = i << 3; break;
    case 7: r = 42; break;
    default: r = -1;
    }
    out[i] = r;
}
