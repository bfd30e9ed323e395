// A block has a token. Queries and keys rotate in place, keys on their way into the pool; values are copied.
extern "C" __global__ void my_rope_kv(STORAGE *qkv, const int *positions, const int *slots, const float *table, STORAGE *keys, STORAGE *values, unsigned tokens, unsigned heads, unsigned kv_heads, unsigned head_dim) {
    unsigned token = blockIdx.x, pairs = head_dim / 2;
    STORAGE *row = qkv + (u64)token * (heads + 2 * kv_heads) * head_dim;
    const float *turns = table + (u64)positions[token] * pairs * 2;
    u64 slot = (u64)slots[token] * kv_heads * head_dim;
    for (unsigned item = threadIdx.x; item < (heads + kv_heads) * pairs; item += blockDim.x) {
        unsigned head = item / pairs, i = item % pairs;
        STORAGE *a = row + head * head_dim + i, *b = a + pairs;
        float cos = turns[2 * i], sin = turns[2 * i + 1];
        float low = to_float(*a) * cos - to_float(*b) * sin, high = to_float(*b) * cos + to_float(*a) * sin;
        *a = from_float<STORAGE>(low);
        *b = from_float<STORAGE>(high);
        if (head >= heads) {
            STORAGE *to = keys + slot + (head - heads) * head_dim + i;
            to[0] = *a;
            to[pairs] = *b;
        }
    }
    for (unsigned i = threadIdx.x; i < kv_heads * head_dim; i += blockDim.x)
        values[slot + i] = row[(heads + kv_heads) * head_dim + i];
}
