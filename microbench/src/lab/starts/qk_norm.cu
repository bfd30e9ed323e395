// A warp has a head. Values are no part of the grid: they stay as they are.
extern "C" __global__ void my_qk_norm(STORAGE *qkv, const float *q_weight, const float *k_weight, unsigned tokens, unsigned heads, unsigned kv_heads, unsigned head_dim, float eps) {
    unsigned head = blockIdx.x, token = blockIdx.y;
    STORAGE *x = qkv + ((u64)token * (heads + 2 * kv_heads) + head) * head_dim;
    const float *weight = head < heads ? q_weight : k_weight;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < head_dim; i += WARP) {
        float value = to_float(x[i]);
        sum += value * value;
    }
    float scale = 1.0f / sqrtf(warp_sum(sum) / head_dim + eps);
    for (unsigned i = threadIdx.x; i < head_dim; i += WARP)
        x[i] = from_float<STORAGE>(to_float(x[i]) * scale * weight[i]);
}
