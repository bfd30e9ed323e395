// A block has a request. The kept tokens are found one by one, each as the heaviest of those lighter than the last one: as slow as
// top_k passes over the vocabulary. Then one thread draws.
struct Token { float logit; unsigned id; };

// Whether a comes before b: likelier, and of equal ones the lower id.
__device__ bool before(Token a, Token b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

extern "C" __global__ void my_sample(const STORAGE *logits, const float *uniform, int *out, unsigned requests, unsigned vocab, float temperature, unsigned top_k, float top_p) {
    __shared__ Token shared[THREADS];
    __shared__ float sums[WARP];
    const STORAGE *row = logits + (u64)blockIdx.x * vocab;
    Token last = {INFINITE, 0}, end = {-INFINITE, vocab};
    float most = 0.0f, total = 0.0f, largest = 0.0f, kept_weight = 0.0f;
    unsigned kept = 0;
    while (kept < top_k && kept < vocab) {
        Token best = end;
        for (unsigned i = threadIdx.x; i < vocab; i += THREADS) {
            Token token = {to_float(row[i]), i};
            if ((kept == 0 || before(last, token)) && before(token, best)) best = token;
        }
        shared[threadIdx.x] = best;
        for (unsigned half = THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (threadIdx.x < half && before(shared[threadIdx.x + half], shared[threadIdx.x])) shared[threadIdx.x] = shared[threadIdx.x + half];
        }
        __syncthreads();
        best = shared[0];
        // Nobody overwrites what another thread still reads.
        __syncthreads();
        if (kept == 0) {
            largest = best.logit;
            float weight = 0.0f;
            for (unsigned i = threadIdx.x; i < vocab; i += THREADS) weight += expf((to_float(row[i]) - largest) / temperature);
            total = block_sum(weight, sums);
            most = top_p * total;
        }
        // What the ones before it weigh decides whether it is kept.
        if (kept_weight > most) break;
        kept_weight += expf((best.logit - largest) / temperature);
        last = best;
        kept++;
    }
    if (threadIdx.x > 0) return;
    float left = uniform[blockIdx.x] * kept_weight;
    unsigned picked = last.id;
    for (unsigned i = 0; i < vocab; i++) {
        Token token = {to_float(row[i]), i};
        if (before(last, token)) continue;
        picked = i;
        left -= expf((token.logit - largest) / temperature);
        if (left < 0.0f) break;
    }
    out[blockIdx.x] = picked;
}
