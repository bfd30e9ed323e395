// One kernel for each thing that `stepscope emulate` can tell.
extern "C" __global__ void shift(const float *in, float *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i + 1] = 2.0f * in[i];
}

extern "C" __global__ void before(float *out) { out[(int)threadIdx.x - 4] = 1; }

extern "C" __global__ void null_pointer(const float *in, float *out) {
    out[threadIdx.x] = in[threadIdx.x] + 1;
}

__device__ int counter[4];
__global__ void variable(int n) { counter[threadIdx.x] = n; }

extern "C" __global__ void deadlock(int *out) {
    if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;" ::: "memory");
    else asm volatile("bar.sync 2, 64;" ::: "memory");
    out[threadIdx.x] = 1;
}

extern "C" __global__ void trap(int *out) {
    out[threadIdx.x] = 1;
    if (threadIdx.x == 5) __trap();
}

extern "C" __global__ void hello(int n) {
    if (threadIdx.x < 2) printf("thread %d of %d\n", threadIdx.x, n);
}

extern "C" __global__ void endless() {
    int i = 0;
    while (true) asm volatile("add.s32 %0, %0, 1;" : "+r"(i));
}

extern "C" __global__ void same_value(int *out) { out[0] = 7; }

extern "C" __global__ void copy(const float *in, float *out) { out[threadIdx.x] = in[threadIdx.x]; }

template <int N, typename T>
__global__ void scale(T *data, T by) {
    for (int i = 0; i < N; ++i) data[threadIdx.x * N + i] *= by;
}

struct Pair {
    int a;
    float b;
    long long c;
};
extern "C" __global__ void by_value(Pair p, double *out) { out[0] = p.a + p.b + p.c; }
