// A warp has a query head of a request, and takes its positions one after the other. Softmax is computed on the way: when a larger
// score comes, what has been added up so far is scaled down.
constexpr unsigned MOST_PER_LANE = 256 / WARP; // the largest head has 256 elements

extern "C" __global__ void my_attention_decode(const STORAGE *qkv, const STORAGE *keys, const STORAGE *values, const int *kv_len, const int *page_table, STORAGE *out, unsigned requests, unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned max_pages, unsigned page_size, float scale) {
    unsigned head = blockIdx.x, request = blockIdx.y, kv_head = head / (heads / kv_heads);
    const STORAGE *q = qkv + ((u64)request * (heads + 2 * kv_heads) + head) * head_dim;
    float query[MOST_PER_LANE] = {}, sum[MOST_PER_LANE] = {};
    for (unsigned i = threadIdx.x, n = 0; i < head_dim; i += WARP, n++) query[n] = to_float(q[i]) * scale;
    float largest = -INFINITE, total = 0.0f;
    for (unsigned p = 0; p < kv_len[request]; p++) {
        u64 slot = (u64)page_table[request * max_pages + p / page_size] * page_size + p % page_size;
        u64 at = (slot * kv_heads + kv_head) * head_dim;
        float score = 0.0f;
        for (unsigned i = threadIdx.x, n = 0; i < head_dim; i += WARP, n++) score += query[n] * to_float(keys[at + i]);
        score = warp_sum(score);
        float now = fmaxf(largest, score), shrink = expf(largest - now), weight = expf(score - now);
        for (unsigned i = threadIdx.x, n = 0; i < head_dim; i += WARP, n++) sum[n] = sum[n] * shrink + weight * to_float(values[at + i]);
        total = total * shrink + weight;
        largest = now;
    }
    for (unsigned i = threadIdx.x, n = 0; i < head_dim; i += WARP, n++)
        out[((u64)request * heads + head) * head_dim + i] = from_float<STORAGE>(sum[n] / total);
}
