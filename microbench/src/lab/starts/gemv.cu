// A warp has a row of the weight: its lanes take elements side by side, and add up at the end.
extern "C" __global__ void my_gemv(const STORAGE *x, const STORAGE *weight, const float *bias, STORAGE *out, unsigned M, unsigned N, unsigned K) {
    unsigned n = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (n >= N) return;
    float sum = 0.0f;
    for (unsigned k = lane; k < K; k += WARP) sum += to_float(x[k]) * to_float(weight[(u64)n * K + k]);
    sum = warp_sum(sum);
    if (lane == 0) out[n] = from_float<STORAGE>(sum + (bias ? bias[n] : 0.0f));
}
