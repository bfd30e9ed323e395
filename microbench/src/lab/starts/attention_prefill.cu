// A warp has a query head of a row, and takes the positions that the row sees one after the other. Softmax is computed on the way: when
// a larger score comes, what has been added up so far is scaled down.
constexpr unsigned MOST_PER_LANE = 256 / WARP; // the largest head has 256 elements

extern "C" __global__ void my_attention_prefill(const STORAGE *qkv, const STORAGE *keys, const STORAGE *values, const int *query_start, const int *kv_len, const int *page_table, STORAGE *out, unsigned requests, unsigned heads, unsigned kv_heads, unsigned head_dim, unsigned query_len, unsigned max_pages, unsigned page_size, float scale) {
    unsigned head = blockIdx.x, i_of_request = blockIdx.y, request = blockIdx.z, kv_head = head / (heads / kv_heads);
    unsigned row = query_start[request] + i_of_request, rows = query_start[request + 1] - query_start[request];
    // Shorter requests have fewer rows than the grid.
    if (i_of_request >= rows) return;
    unsigned sees = kv_len[request] - rows + i_of_request + 1;
    const STORAGE *q = qkv + ((u64)row * (heads + 2 * kv_heads) + head) * head_dim;
    float query[MOST_PER_LANE] = {}, sum[MOST_PER_LANE] = {};
    for (unsigned i = threadIdx.x, n = 0; i < head_dim; i += WARP, n++) query[n] = to_float(q[i]) * scale;
    float largest = -INFINITE, total = 0.0f;
    for (unsigned p = 0; p < sees; p++) {
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
        out[((u64)row * heads + head) * head_dim + i] = from_float<STORAGE>(sum[n] / total);
}
