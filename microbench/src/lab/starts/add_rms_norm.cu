// A block of threads has a row. The sum of x and residual is kept in float32 only as far as it is added up: the second pass reads the
// residual that the first one wrote, each thread the elements that it wrote itself.
extern "C" __global__ void my_add_rms_norm(const STORAGE *x, STORAGE *residual, const float *weight, STORAGE *out, unsigned rows, unsigned width, float eps) {
    __shared__ float sums[WARP];
    u64 row = (u64)blockIdx.x * width;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x) {
        float value = to_float(x[row + i]) + to_float(residual[row + i]);
        residual[row + i] = from_float<STORAGE>(value);
        sum += value * value;
    }
    float scale = 1.0f / sqrtf(block_sum(sum, sums) / width + eps);
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x)
        out[row + i] = from_float<STORAGE>(to_float(residual[row + i]) * scale * weight[i]);
}
