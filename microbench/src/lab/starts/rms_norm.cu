// A block of threads has a row, and reads it twice: for the sum of squares, and to scale it.
extern "C" __global__ void my_rms_norm(const STORAGE *x, const float *weight, STORAGE *out, unsigned rows, unsigned width, float eps) {
    __shared__ float sums[WARP];
    u64 row = (u64)blockIdx.x * width;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x) {
        float value = to_float(x[row + i]);
        sum += value * value;
    }
    float scale = 1.0f / sqrtf(block_sum(sum, sums) / width + eps);
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x)
        out[row + i] = from_float<STORAGE>(to_float(x[row + i]) * scale * weight[i]);
}
