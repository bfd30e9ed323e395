extern "C" __global__ void block_sum(const float *in, float *out) {
    __shared__ float partial[256];
    int t = threadIdx.x;
    partial[t] = in[blockIdx.x * 256 + t];
    __syncthreads();
    for (int d = 128; d > 0; d /= 2) {
        if (t < d) partial[t] += partial[t + d];
    }
    if (t == 0) out[blockIdx.x] = partial[0];
}
