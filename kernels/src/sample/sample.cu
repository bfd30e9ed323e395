// One token id from each row of logits: the likeliest, or one drawn from those that top-k, top-p and min-p keep.
//
// Shapes: logits [requests, vocab], out [requests].
//
// Greedy takes two kernels, since one block per request would leave most of the GPU idle:
//
//   row   [ part 0 | part 1 | … ]     argmax_parts: a block per part    argmax_rows: a block per request
//
// Filtered is one block per request. The weight of a token is exp((logit - max) / temperature), at most 1, its key is
// ~weight << 32 | id: ascending keys are likeliest first, equal ones by id. Nothing is sorted: the last key that is kept is found
// digit by digit, from histograms of counts and of masses. Masses are integers (weight * 2^40), so that their sums do not depend on
// the order of the threads, and a draw can be repeated.
//
//   row   [ warp 0: ids 0 … per_warp - 1 | warp 1 | … | warp 31 ]     the draw: a warp adds up its run, 32 neighbours at a time;
//           lanes 0 … 31 | lanes 0 … 31 | …                           the run that holds the random part is gone through again
//
// What bounds it: latency, for a few requests; memory and the exponentials for many.
#include "prelude.cuh"

// 32 warps: a warp adds up what the warps of a block have.
constexpr int THREADS = 1024;
static_assert(THREADS == WARP * WARP);

// Floats in their order, as unsigned numbers.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float from_ordered(u32 key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// Value and id in one number: the larger value wins, then the lower id. NaN loses to everything.
__device__ __forceinline__ u64 candidate(float x, u32 id) { return (u64)(x == x ? ordered(x) : 0) << 32 | (0xffffffffu - id); }

__device__ __forceinline__ u64 warp_max_u64(u64 x) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
        u64 other = __shfl_xor_sync(FULL_WARP, x, lanes);
        x = other > x ? other : x;
    }
    return x;
}
// The same in every thread. All threads must be done with `shared` of earlier calls.
__device__ __forceinline__ u64 block_max(u64 x, u64 *shared) {
    x = warp_max_u64(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = x;
    __syncthreads();
    return warp_max_u64(threadIdx.x % WARP < blockDim.x / WARP ? shared[threadIdx.x % WARP] : 0);
}

template <typename T>
__global__ void __launch_bounds__(256) argmax_parts(const T *__restrict__ logits, u32 vocab, u64 *__restrict__ parts) {
    __shared__ u64 shared[WARP];
    const T *row = logits + (u64)blockIdx.y * vocab;
    u64 best = 0;
    for (u32 id = blockIdx.x * blockDim.x + threadIdx.x; id < vocab; id += gridDim.x * blockDim.x) {
        u64 one = candidate(to_float(row[id]), id);
        best = one > best ? one : best;
    }
    best = block_max(best, shared);
    if (threadIdx.x == 0) parts[blockIdx.y * gridDim.x + blockIdx.x] = best;
}

__global__ void __launch_bounds__(32) argmax_rows(const u64 *__restrict__ parts, u32 per_row, int *__restrict__ out) {
    u64 best = 0;
    for (u32 i = threadIdx.x; i < per_row; i += WARP) {
        u64 one = parts[blockIdx.x * per_row + i];
        best = one > best ? one : best;
    }
    best = warp_max_u64(best);
    if (threadIdx.x == 0) out[blockIdx.x] = (int)(0xffffffffu - (u32)best);
}

struct Weights {
    float max, temperature, least;
    // At most 1; NaN weighs nothing.
    __device__ __forceinline__ float operator()(float logit) const {
        float w = __expf((logit - max) / temperature);
        return w == w ? w : 0.0f;
    }
};
__device__ __forceinline__ u64 mass(float weight) { return __float2ull_rn(weight * 1099511627776.0f); }
__device__ __forceinline__ u64 key_of(float weight, u32 id) { return (u64)~__float_as_uint(weight) << 32 | id; }

__device__ __forceinline__ u64 warp_sum_u64(u64 x) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(FULL_WARP, x, lanes);
    return x;
}
// The sum over the lanes up to this one.
__device__ __forceinline__ u64 warp_prefix_sum_u64(u64 x) {
#pragma unroll
    for (u32 lanes = 1; lanes < WARP; lanes *= 2) {
        u64 left = __shfl_up_sync(FULL_WARP, x, lanes);
        if (threadIdx.x % WARP >= lanes) x += left;
    }
    return x;
}
__device__ __forceinline__ u64 block_sum_u64(u64 x, u64 *total) {
    __syncthreads();
    if (threadIdx.x == 0) *total = 0;
    __syncthreads();
    x = warp_sum_u64(x);
    if (threadIdx.x % WARP == 0) atomicAdd(total, x);
    __syncthreads();
    return *total;
}

template <typename T>
__global__ void __launch_bounds__(THREADS) sample_filtered(const T *__restrict__ logits, u32 vocab, float temperature, u32 top_k, float top_p, float min_p, u64 seed, u64 step, int *__restrict__ out) {
    __shared__ u64 shared[WARP], masses[256], total, sums[WARP];
    __shared__ u32 counts[256];
    const T *row = logits + (u64)blockIdx.x * vocab;
    int t = threadIdx.x;

    u64 best = 0;
    for (u32 id = t; id < vocab; id += THREADS) {
        u64 one = candidate(to_float(row[id]), id);
        best = one > best ? one : best;
    }
    best = block_max(best, shared);
    float max = from_ordered((u32)(best >> 32));
    if (!(fabsf(max) < INFINITE)) {
        if (t == 0) out[blockIdx.x] = (int)(0xffffffffu - (u32)best);
        return;
    }
    Weights weigh = {max, temperature, min_p};

    u64 last = ~0ull;
    bool filters = (top_k > 0 && top_k < vocab) || top_p < 1.0f || min_p > 0.0f;
    if (filters) {
        u64 sum = 0;
        for (u32 id = t; id < vocab; id += THREADS) sum += mass(weigh(to_float(row[id])));
        sum = block_sum_u64(sum, &total);
        // Kept is what is before this mass and this rank.
        u64 most = top_p < 1.0f ? (u64)((double)top_p * (double)sum) : ~0ull;
        u32 ranks = top_k > 0 && top_k < vocab ? top_k : vocab;
        u64 before = 0, prefix = 0;
        u32 rank = 0;
        bool found = true;
        // The key's digits, from the top: four of the weight, three of the id.
        for (int shift = 56; shift >= 0 && found; shift -= shift == 32 ? 16 : 8) {
            __syncthreads();
            if (t < 256) {
                counts[t] = 0;
                masses[t] = 0;
            }
            __syncthreads();
            u64 above = shift == 56 ? 0 : ~0ull << (shift + 8);
            for (u32 id = t; id < vocab; id += THREADS) {
                float w = weigh(to_float(row[id]));
                u64 key = key_of(w, id);
                if (w < min_p || (key & above) != prefix) continue;
                u32 digit = (u32)(key >> shift) & 255;
                atomicAdd(&counts[digit], 1u);
                atomicAdd(&masses[digit], mass(w));
            }
            __syncthreads();
            // The first digit within which the last kept key lies.
            found = false;
            for (u32 digit = 0; digit < 256; digit++) {
                u32 count = counts[digit];
                u64 weight = masses[digit];
                if (count > 0 && (rank + count >= ranks || before + weight > most)) {
                    prefix |= (u64)digit << shift;
                    found = true;
                    break;
                }
                rank += count;
                before += weight;
            }
        }
        // Without such a key all are kept.
        if (found) last = prefix;
    }

    // The token at which the masses of those kept, added up by id, pass a random part of their sum. Each warp has a run of
    // neighbours, 32 at a time.
    u32 lane = t % WARP, warp = t / WARP, per_warp = (vocab + THREADS - 1) / THREADS * WARP, first = warp * per_warp;
    u32 end = first + per_warp < vocab ? first + per_warp : vocab;
    auto kept = [&](u32 id) -> u64 {
        if (id >= end) return 0;
        float w = weigh(to_float(row[id]));
        return w >= min_p && key_of(w, id) <= last ? mass(w) : 0;
    };
    u64 own = 0;
    for (u32 id = first + lane; id < end; id += WARP) own += kept(id);
    own = warp_sum_u64(own);
    if (lane == 0) sums[warp] = own;
    __syncthreads();
    u64 of_warp = sums[lane], sum = warp_sum_u64(of_warp), before = warp_sum_u64(lane < warp ? of_warp : 0);
    // 53 random bits.
    u32 words[4] = {(u32)step, (u32)(step >> 32), blockIdx.x, 0};
    philox4x32_10(words, seed);
    u64 random = ((u64)words[0] << 32 | words[1]) >> 11, target = __umul64hi(sum, random << 11);
    // In one warp; the others have nothing left to do.
    if (target < before || before + own <= target) return;
    for (u32 from = first; from < end; from += WARP) {
        u64 up_to = warp_prefix_sum_u64(kept(from + lane));
        u32 past = __ballot_sync(FULL_WARP, before + up_to > target);
        if (past != 0) {
            if (lane == 0) out[blockIdx.x] = (int)from + __ffs(past) - 1;
            return;
        }
        before += __shfl_sync(FULL_WARP, up_to, WARP - 1);
    }
}
