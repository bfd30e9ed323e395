// One kernel for each class of finding.
extern "C" __global__ void out_of_bounds(int *p) { p[threadIdx.x + 1] = 1; }
extern "C" __global__ void misaligned(char *p) { *(int *)(p + 1) = 1; }
extern "C" __global__ void read(const int *p, int *out) { out[threadIdx.x] = p[threadIdx.x]; }
extern "C" __global__ void shared_uninitialised(int *out) {
    __shared__ int s[64];
    if (threadIdx.x < 16) s[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void shared_out_of_bounds(int *out, int i) {
    extern __shared__ int dyn[];
    dyn[i + threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = dyn[threadIdx.x];
}
extern "C" __global__ void missing_barrier(int *out) {
    __shared__ int s[64];
    s[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void missing_warp_sync(int *out) {
    __shared__ int s[32];
    s[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = s[31 - threadIdx.x];
}
extern "C" __global__ void with_warp_sync(int *out) {
    __shared__ int s[32];
    s[threadIdx.x] = threadIdx.x;
    __syncwarp();
    out[threadIdx.x] = s[31 - threadIdx.x];
}
extern "C" __global__ void write_write(int *out) { out[0] = threadIdx.x + blockIdx.x; }
extern "C" __global__ void blocks_race(int *data) {
    if (blockIdx.x == 0) data[threadIdx.x] = 1;
    else data[32 + threadIdx.x] = data[threadIdx.x];
}
extern "C" __global__ void divergent_barrier(int *out) {
    __shared__ int s[64];
    s[threadIdx.x] = threadIdx.x;
    if (threadIdx.x < 40) __syncthreads();
    else __syncthreads();
    out[threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void exit_before_barrier(int *out) {
    if (threadIdx.x >= 32) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}
extern "C" __global__ void deadlock(int *out) {
    if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;" ::: "memory");
    else asm volatile("bar.sync 2, 64;" ::: "memory");
    out[threadIdx.x] = 1;
}
extern "C" __global__ void spin_forever(int *flag) {
    while (*(volatile int *)flag == 0) {}
}
extern "C" __global__ void endless() {
    int i = 0;
    while (true) { asm volatile("add.s32 %0, %0, 1;" : "+r"(i)); }
}
extern "C" __global__ void traps(int *out) { if (threadIdx.x == 5) __trap(); out[threadIdx.x] = 1; }
extern "C" __global__ void register_uninitialised(int *out) {
    int v;
    asm volatile("{ .reg .b32 t; .reg .pred p; setp.lt.s32 p, %1, 7; @p mov.b32 t, 5; mov.b32 %0, t; }" : "=r"(v) : "r"((int)threadIdx.x));
    out[threadIdx.x] = v;
}
