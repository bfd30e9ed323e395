// In the style of the CUDA samples: results are known.
extern "C" __global__ void reduce(const float *in, float *out, int n) {
    __shared__ float s[256];
    int t = threadIdx.x;
    float v = 0;
    for (int i = blockIdx.x * 256 + t; i < n; i += gridDim.x * 256) v += in[i];
    s[t] = v;
    __syncthreads();
    for (int d = 128; d > 0; d >>= 1) {
        if (t < d) s[t] += s[t + d];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = s[0];
}

extern "C" __global__ void scan(const int *in, int *out) {
    extern __shared__ int temp[];
    int t = threadIdx.x, n = blockDim.x;
    temp[t] = in[t];
    __syncthreads();
    for (int d = 1; d < n; d <<= 1) {
        int v = t >= d ? temp[t - d] : 0;
        __syncthreads();
        temp[t] += v;
        __syncthreads();
    }
    out[t] = temp[t];
}

template <int PAD, bool SWIZZLE>
__device__ void transpose_tile(const float *in, float *out, int n) {
    __shared__ float tile[32][32 + PAD];
    int x = threadIdx.x, bx = blockIdx.x * 32, by = blockIdx.y * 32;
    for (int y = threadIdx.y; y < 32; y += 8) tile[y][SWIZZLE ? x ^ y : x] = in[(by + y) * n + bx + x];
    __syncthreads();
    for (int y = threadIdx.y; y < 32; y += 8) out[(bx + y) * n + by + x] = tile[x][SWIZZLE ? y ^ x : y];
}
extern "C" __global__ void transpose_direct(const float *in, float *out, int n) {
    int x = blockIdx.x * 32 + threadIdx.x, by = blockIdx.y * 32;
    for (int y = threadIdx.y; y < 32; y += 8) out[x * n + by + y] = in[(by + y) * n + x];
}
extern "C" __global__ void transpose_naive(const float *in, float *out, int n) { transpose_tile<0, false>(in, out, n); }
extern "C" __global__ void transpose_padded(const float *in, float *out, int n) { transpose_tile<1, false>(in, out, n); }
extern "C" __global__ void transpose_swizzled(const float *in, float *out, int n) { transpose_tile<0, true>(in, out, n); }

extern "C" __global__ void histogram(const unsigned char *in, unsigned *out, int n) {
    __shared__ unsigned bins[256];
    bins[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) atomicAdd(&bins[in[i]], 1u);
    __syncthreads();
    atomicAdd(&out[threadIdx.x], bins[threadIdx.x]);
}

extern "C" __global__ void bitonic(unsigned *data) {
    __shared__ unsigned s[512];
    int t = threadIdx.x;
    s[t] = data[t];
    s[t + 256] = data[t + 256];
    for (int size = 2; size <= 512; size <<= 1) {
        for (int stride = size / 2; stride > 0; stride >>= 1) {
            __syncthreads();
            int pos = 2 * t - (t & (stride - 1));
            bool up = (pos & size) == 0;
            unsigned a = s[pos], b = s[pos + stride];
            if ((a > b) == up) { s[pos] = b; s[pos + stride] = a; }
        }
    }
    __syncthreads();
    data[t] = s[t];
    data[t + 256] = s[t + 256];
}

// Warp-aggregated: one atomic per warp.
extern "C" __global__ void filter(const int *in, int *out, int *count, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    bool keep = i < n && in[i] > 0;
    unsigned mask = __ballot_sync(~0u, keep);
    int lane = threadIdx.x & 31, base = 0;
    if (lane == 0 && mask) base = atomicAdd(count, __popc(mask));
    base = __shfl_sync(~0u, base, 0);
    if (keep) out[base + __popc(mask & ((1u << lane) - 1))] = in[i];
}

// The last block to arrive adds up the others' partial sums.
extern "C" __global__ void last_block(const int *in, int *partial, unsigned *arrived, int *out) {
    __shared__ bool last;
    int v = in[blockIdx.x * 32 + threadIdx.x];
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = v;
        __threadfence();
        last = atomicAdd(arrived, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        __threadfence();
        int sum = 0;
        for (int b = 0; b < gridDim.x; b++) sum += partial[b];
        *out = sum;
    }
}

// A spin lock taken by every thread, and a barrier of the whole grid.
extern "C" __global__ void spin_lock(int *lock, int *value) {
    bool done = false;
    while (!done) {
        if (atomicCAS(lock, 0, 1) == 0) {
            __threadfence();
            *(volatile int *)value = *(volatile int *)value + 1;
            __threadfence();
            atomicExch(lock, 0);
            done = true;
        }
    }
}
extern "C" __global__ void grid_barrier(unsigned *arrived, const int *in, int *mid, int *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
    mid[i] = in[i] * 2;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (*(volatile unsigned *)arrived < gridDim.x) {}
        __threadfence();
    }
    __syncthreads();
    out[i] = mid[n - 1 - i];
}

// Producer and consumer warps that meet at named barriers.
extern "C" __global__ void named_barriers(const int *in, int *out) {
    __shared__ int buffer[32];
    int lane = threadIdx.x & 31;
    for (int step = 0; step < 4; step++) {
        if (threadIdx.x < 32) {
            buffer[lane] = in[step * 32 + lane];
            asm volatile("bar.arrive 1, 64;" ::: "memory");
            asm volatile("bar.sync 2, 64;" ::: "memory");
        } else {
            asm volatile("bar.sync 1, 64;" ::: "memory");
            out[step * 32 + lane] = buffer[31 - lane];
            asm volatile("bar.arrive 2, 64;" ::: "memory");
        }
    }
}
