// A block has a request. Each thread looks for the largest of its logits, then threads are halved until one is left; of equal logits the
// lower id wins.
extern "C" __global__ void my_argmax(const STORAGE *logits, int *out, unsigned requests, unsigned vocab) {
    __shared__ float largest[THREADS];
    __shared__ unsigned ids[THREADS];
    const STORAGE *row = logits + (u64)blockIdx.x * vocab;
    float best = -INFINITE;
    unsigned id = 0;
    for (unsigned i = threadIdx.x; i < vocab; i += THREADS) {
        float x = to_float(row[i]);
        if (x > best) best = x, id = i;
    }
    largest[threadIdx.x] = best;
    ids[threadIdx.x] = id;
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x >= half) continue;
        float other = largest[threadIdx.x + half];
        unsigned other_id = ids[threadIdx.x + half];
        if (other > best || (other == best && other_id < id)) best = other, id = other_id;
        largest[threadIdx.x] = best;
        ids[threadIdx.x] = id;
    }
    if (threadIdx.x == 0) out[blockIdx.x] = id;
}
