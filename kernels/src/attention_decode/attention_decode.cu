// out = softmax(q kT / sqrt(HEAD_DIM)) v, head by head, of one query row per request over the paged KV pool (split-KV).
//
// Shapes: qkv [requests, (heads + 2 * kv_heads) * HEAD_DIM], of which the front of a row is its queries; keys and values
// [slots, kv_heads, HEAD_DIM]; out [requests, heads * HEAD_DIM]; position p of request r lies in slot
// page_table[r][p / page_size] * page_size + p % page_size.
//
//   a block: one request, up to 16 of the query heads that share a KV head, one of `splits` ranges of the positions
//
//   positions of the range  | 16 | 16 | 16 | 16 | 16 | 16 | 16 | 16 | …
//   warp                      0    1    2    3    0    1    2    3        each with STAGES tiles of K and V under way
//
//   one mma tile of scores:       16 rows = query heads of the group (those past its end are zeros)
//                                 16 columns = positions
//
//   a warp     weights = exp2(scale * (scores - max)), sums += weights v, as in attention_prefill, without waiting for others
//   a block    merges its warps through shared memory: the largest maximum wins, the others' sums shrink to it
//   merge      does the same with the ranges of a request, from float32 partial results (only if splits > 1)
//
// Every access takes as few sectors as its bytes need, but for two: the merge's look at a row's maxima, which lie right behind those
// of the row before, so that `splits` floats may begin within a sector; and entries of page tables whose rows are not whole sectors.
//
// What bounds it: memory. K and V are read once for 16 query heads, 16 bytes a lane, into a ring that each warp owns: between
// two tiles no warp waits for another. Slots of positions past the end may hold NaN: rows of zeros stand for them.
#include "prelude.cuh"

constexpr int GROUP_ROWS = 16;
constexpr int TILE = 16;

// The positions of a split: whole rounds of all warps, so that ranges are the same whatever the split.
template <int WARPS> __device__ __forceinline__ int positions_per_split(int kv_len, int splits) {
    return ceil_div(ceil_div(kv_len, WARPS * TILE), splits) * WARPS * TILE;
}

template <typename T, int HEAD_DIM, int WARPS, int STAGES>
__global__ void __launch_bounds__(WARPS *WARP)
    attention_decode(const T *__restrict__ qkv, const T *__restrict__ keys, const T *__restrict__ values,
                     const int *__restrict__ kv_len, const int *__restrict__ page_table, T *__restrict__ out,
                     float *__restrict__ partial, u32 heads, u32 kv_heads, u32 max_pages, u32 page_size, float scale) {
    constexpr int CHUNKS = HEAD_DIM / 8, TILE_BYTES = TILE * HEAD_DIM * 2, RING = 2 * STAGES * TILE_BYTES;
    // 64 registers of queries beside 128 of sums would be too many.
    constexpr bool Q_STAYS = HEAD_DIM <= 128;
    // Rows of the warps' sums, in floats: 8 more than whole, so that the 4 rows that 16 lanes write differ in all banks.
    constexpr int SUM_ROW = HEAD_DIM + 8;
    static_assert(GROUP_ROWS * SUM_ROW * 4 <= RING, "a warp's sums take the place of its ring");
    extern __shared__ __align__(128) u8 shared[];

    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int split = blockIdx.x, splits = gridDim.x;
    u32 request = blockIdx.z, group = heads / kv_heads, group_tiles = ceil_div(group, GROUP_ROWS);
    u32 kv_head = blockIdx.y / group_tiles, group_row = blockIdx.y % group_tiles * GROUP_ROWS;
    u32 first_head = kv_head * group + group_row, rows = min((u32)GROUP_ROWS, group - group_row);
    int len = kv_len[request], per_split = positions_per_split<WARPS>(len, splits);
    int begin = split * per_split, end = min(begin + per_split, len);
    // Nothing is left for this block; the merge knows.
    if (split > 0 && begin >= end) return;

    u8 *q_shared = shared + WARPS * RING, *ring_shared = shared + warp * RING;
    // Of each warp and row the largest score and the sum of weights.
    float *maxima = (float *)(q_shared + GROUP_ROWS * HEAD_DIM * 2), *weight_sums = maxima + WARPS * GROUP_ROWS;
    u32 q_tile = shared_address(q_shared), ring = shared_address(ring_shared);
    u32 slot_width = kv_heads * HEAD_DIM;
    const T *q_row = qkv + (u64)request * (heads * HEAD_DIM + 2 * slot_width) + first_head * HEAD_DIM;
    keys += kv_head * HEAD_DIM, values += kv_head * HEAD_DIM;
    if (warp == 0) {
        copy_tile<GROUP_ROWS, CHUNKS, WARP>(q_tile, lane, qkv, [&](u32 row) { return row < rows ? q_row + row * HEAD_DIM : nullptr; });
    }
    cp_async_commit_group();

    const int *pages = page_table + (u64)request * max_pages;
    // Each lane looks up the slot of one position of a tile (two lanes the same).
    auto look_up = [&](int tile) {
        int position = begin + tile * TILE + (int)lane % TILE;
        return position < end ? slot_of(pages, position, page_size) : -1;
    };
    auto copy = [&](int stage, int tile, int slot) {
        if (begin + tile * TILE < end) {
            u32 k_tile = ring + stage * 2 * TILE_BYTES;
            auto row_of = [&](const T *pool, u32 row) {
                int at = __shfl_sync(FULL_WARP, slot, row);
                return at < 0 ? nullptr : pool + (u64)at * slot_width;
            };
            copy_tile<TILE, CHUNKS, WARP>(k_tile, lane, keys, [&](u32 row) { return row_of(keys, row); });
            copy_tile<TILE, CHUNKS, WARP>(k_tile + TILE_BYTES, lane, values, [&](u32 row) { return row_of(values, row); });
        }
        // A group with nothing in it keeps the count of groups that are under way.
        cp_async_commit_group();
    };
    int slot[STAGES];
#pragma unroll
    for (int stage = 0; stage < STAGES; stage++) slot[stage] = look_up(warp + stage * WARPS);
#pragma unroll
    for (int stage = 0; stage < STAGES; stage++) copy(stage, warp + stage * WARPS, slot[stage]);

    cp_async_wait_group<STAGES>();
    __syncthreads();
    u32 q[Q_STAYS ? HEAD_DIM / 16 : 1][4];
    if constexpr (Q_STAYS) {
#pragma unroll
        for (int k = 0; k < HEAD_DIM / 16; k++) ldmatrix_x4(q[k], address_of_rows<CHUNKS>(q_tile, 0, 2 * k));
    }

    float sums[HEAD_DIM / 8][4] = {}, max[2] = {-INFINITE, -INFINITE}, weight_sum[2] = {};
    int stage = 0;
    for (int tile = warp; begin + tile * TILE < end; tile += WARPS) {
        cp_async_wait_group<STAGES - 1>();
        __syncwarp();
        u32 k_tile = ring + stage * 2 * TILE_BYTES, v_tile = k_tile + TILE_BYTES;
        // For the copy below: the tile's arithmetic hides the page table's latency.
        int next_slot = look_up(tile + STAGES * WARPS);
        float score[2][4] = {};
#pragma unroll
        for (int k = 0; k < HEAD_DIM / 16; k++) {
            u32 a[4], b[4];
            if constexpr (Q_STAYS) {
#pragma unroll
                for (int i = 0; i < 4; i++) a[i] = q[k][i];
            } else {
                ldmatrix_x4(a, address_of_rows<CHUNKS>(q_tile, 0, 2 * k));
            }
            ldmatrix_x4(b, address_of_columns<CHUNKS>(k_tile, 0, 2 * k));
            mma_m16n8k16<T>(score[0], a, b[0], b[1]);
            mma_m16n8k16<T>(score[1], a, b[2], b[3]);
        }
        if (begin + (tile + 1) * TILE > end) {
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (begin + tile * TILE + 8 * n + (int)(lane % 4) * 2 + i % 2 >= end) score[n][i] = -INFINITE;
        }
        online_softmax(score, sums, max, weight_sum, scale);
        u32 a[4];
        weights_of<T>(a, score, 0);
#pragma unroll
        for (int n = 0; n < HEAD_DIM / 16; n++) {
            u32 b[4];
            ldmatrix_x4_trans(b, address_of_rows<CHUNKS>(v_tile, 0, 2 * n));
            mma_m16n8k16<T>(sums[2 * n], a, b[0], b[1]);
            mma_m16n8k16<T>(sums[2 * n + 1], a, b[2], b[3]);
        }
        // All lanes are done with the tile before it is overwritten.
        __syncwarp();
        copy(stage, tile + STAGES * WARPS, next_slot);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }

    // The warp's sums take the place of its ring, in which nothing is under way any more.
    cp_async_wait_group<0>();
    __syncwarp();
    float *warp_sums = (float *)ring_shared;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u32 row = lane / 4 + 8 * half;
        float total = warp_sum<4>(weight_sum[half]);
        // Maxima are from here on in units of exp2's argument.
        if (lane % 4 == 0) {
            maxima[warp * GROUP_ROWS + row] = max[half] * scale;
            weight_sums[warp * GROUP_ROWS + row] = total;
        }
#pragma unroll
        for (int n = 0; n < HEAD_DIM / 8; n++)
            *(float2 *)(warp_sums + row * SUM_ROW + 8 * n + 2 * (lane % 4)) = make_float2(sums[n][2 * half], sums[n][2 * half + 1]);
    }
    __syncthreads();
    for (u32 row = warp; row < rows; row += WARPS) {
        float highest = -INFINITE, total = 0.0f, shrink[WARPS];
#pragma unroll
        for (int w = 0; w < WARPS; w++) highest = fmaxf(highest, maxima[w * GROUP_ROWS + row]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float weights = weight_sums[w * GROUP_ROWS + row];
            // A warp without positions has the maximum minus infinity; so has each of a request without any.
            shrink[w] = weights > 0.0f ? ex2_approx(maxima[w * GROUP_ROWS + row] - highest) : 0.0f;
            total += weights * shrink[w];
        }
        float inverse = total > 0.0f ? 1.0f / total : 0.0f;
        u64 out_row = (u64)request * heads + first_head + row;
        for (u32 column = 4 * lane; column < HEAD_DIM; column += 4 * WARP) {
            float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                float4 y = *(const float4 *)((const float *)(shared + w * RING) + row * SUM_ROW + column);
                x.x += y.x * shrink[w], x.y += y.y * shrink[w], x.z += y.z * shrink[w], x.w += y.w * shrink[w];
            }
            if (splits == 1) {
                T *to = out + out_row * HEAD_DIM + column;
                store8_whole(to, pack<T>(x.x * inverse, x.y * inverse), pack<T>(x.z * inverse, x.w * inverse));
            } else {
                vec16 sums = {__float_as_uint(x.x), __float_as_uint(x.y), __float_as_uint(x.z), __float_as_uint(x.w)};
                store16_whole(partial + (out_row * splits + split) * HEAD_DIM + column, sums);
            }
        }
        if (splits > 1 && lane == 0) {
            // Behind all partial sums.
            u64 ranges = (u64)gridDim.z * heads * splits;
            float *partial_maxima = partial + ranges * HEAD_DIM, *partial_weights = partial_maxima + ranges;
            partial_maxima[out_row * splits + split] = highest;
            partial_weights[out_row * splits + split] = total;
        }
    }
}

// A warp merges the splits of one request and head. `partial`: sums [requests, heads, splits, HEAD_DIM], then maxima and then
// sums of weights, each [requests, heads, splits]. WARPS is that of the kernel above, 32 * MERGE_WARPS the block's own threads.
constexpr int MERGE_WARPS = 4;
template <typename T, int HEAD_DIM, int WARPS>
__global__ void __launch_bounds__(MERGE_WARPS *WARP)
    attention_decode_merge(const float *__restrict__ partial, const int *__restrict__ kv_len, T *__restrict__ out, u32 requests,
                           u32 heads, u32 splits) {
    u32 lane = threadIdx.x % WARP;
    u64 row = (u64)blockIdx.x * MERGE_WARPS + threadIdx.x / WARP, rows = (u64)requests * heads;
    if (row >= rows) return;
    int len = kv_len[row / heads], per_split = positions_per_split<WARPS>(len, splits);
    // Splits that had positions: the others wrote nothing. A request without positions has one, of weight 0.
    u32 active = len > 0 ? ceil_div(len, per_split) : 1;
    const float *maxima = partial + rows * splits * HEAD_DIM + row * splits, *weight_sums = maxima + rows * splits;
    float highest = -INFINITE;
    for (u32 split = lane; split < active; split += WARP) highest = fmaxf(highest, maxima[split]);
    highest = warp_max(highest);
    constexpr int STEPS = (HEAD_DIM + 4 * WARP - 1) / (4 * WARP);
    float4 sums[STEPS] = {};
    float total = 0.0f;
    for (u32 split = 0; split < active; split++) {
        float weights = weight_sums[split], shrink = weights > 0.0f ? ex2_approx(maxima[split] - highest) : 0.0f;
        total += weights * shrink;
        const float *from = partial + (row * splits + split) * HEAD_DIM;
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            u32 column = 4 * (step * WARP + lane);
            if (column < HEAD_DIM) {
                float4 x = *(const float4 *)(from + column), &y = sums[step];
                y.x += x.x * shrink, y.y += x.y * shrink, y.z += x.z * shrink, y.w += x.w * shrink;
            }
        }
    }
    float inverse = total > 0.0f ? 1.0f / total : 0.0f;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 column = 4 * (step * WARP + lane);
        if (column < HEAD_DIM) {
            float4 x = sums[step];
            store8_whole(out + row * HEAD_DIM + column, pack<T>(x.x * inverse, x.y * inverse), pack<T>(x.z * inverse, x.w * inverse));
        }
    }
}
