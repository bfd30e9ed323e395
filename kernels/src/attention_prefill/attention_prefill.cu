// out = softmax(q kT / sqrt(HEAD_DIM)) v, causal, head by head, of a ragged batch over the paged KV pool (FlashAttention-2).
//
// Shapes: qkv [tokens, (heads + 2 * kv_heads) * HEAD_DIM], of which the front of a row is its queries; keys and values
// [slots, kv_heads, HEAD_DIM]; out [tokens, heads * HEAD_DIM]. Request r has the rows query_start[r] .. query_start[r + 1], the
// last of its kv_len[r] positions; position p lies in slot page_table[r][p / page_size] * page_size + p % page_size.
//
//   a block: one request, one head, BLOCK_M query rows; a warp has 16 * M_TILES of them
//
//                        positions  ->  BLOCK_N at a time, forwards from 0
//                     +---------+---------+---------+
//   queries  warp 0   |         |  \  mask|         |     scores = q kT     in registers, layout D of mma
//   BLOCK_M  warp 1   |  whole  | \       |  never  |     weights = exp2(scale * (scores - max)), rounded to T: layout A of mma
//            warp 2   |  tiles  |         |\ begun  |     sums of values += weights v
//            warp 3   |         |         | \       |
//                     +---------+---------+---------+
//
//   shared memory     [ Q: BLOCK_M rows | K: BLOCK_N rows | V: BLOCK_N rows | slots of this tile and the next ]
//   time              scores (V arrives) | softmax, sums (the next K arrives)
//
// Warps that see nothing of a tile leave it out. K and V are gathered row by row through the page table with copies of 16 bytes;
// rows past the last position that a block sees become zeros, since a slot that nobody has written may hold NaN, and 0 * NaN
// is NaN. Blocks of late rows, which see most, start first.
//
// What bounds it: tensor cores. 16-row warps take as many cycles of shared memory as of tensor cores (each 8 keys of a k-step,
// 256 bytes, serve one mma); M_TILES = 2 halves that, where registers allow it.
#include "prelude.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;

template <typename T, int HEAD_DIM, int BLOCK_N, int M_TILES>
__global__ void __launch_bounds__(THREADS)
    attention_prefill(const T *__restrict__ qkv, const T *__restrict__ keys, const T *__restrict__ values,
                      const int *__restrict__ query_start, const int *__restrict__ kv_len, const int *__restrict__ page_table,
                      T *__restrict__ out, u32 heads, u32 kv_heads, u32 max_pages, u32 page_size, float scale) {
    constexpr int CHUNKS = HEAD_DIM / 8, WARP_M = 16 * M_TILES, BLOCK_M = WARPS * WARP_M;
    // Queries stay in registers if they are at most 32 of them; else each k-step reads them again.
    constexpr bool Q_STAYS = M_TILES * HEAD_DIM <= 128;
    extern __shared__ __align__(128) u8 shared[];

    u32 head = blockIdx.x, request = blockIdx.y, thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
    int first_row = (int)(gridDim.z - 1 - blockIdx.z) * BLOCK_M;
    int start = query_start[request], queries = query_start[request + 1] - start;
    if (first_row >= queries) return;
    int rows = min(BLOCK_M, queries - first_row);
    int cached = kv_len[request] - queries;
    // Positions that the block's last row sees, and tiles of them.
    int seen = cached + first_row + rows, tiles = ceil_div(seen, BLOCK_N);

    u32 q_tile = shared_address(shared), k_tile = q_tile + BLOCK_M * HEAD_DIM * 2, v_tile = k_tile + BLOCK_N * HEAD_DIM * 2;
    int *slots = (int *)(shared + (BLOCK_M + 2 * BLOCK_N) * HEAD_DIM * 2);
    const int *pages = page_table + (u64)request * max_pages;
    // Threads 0 to BLOCK_N - 1 look up a slot each. Between the two halves lie the scores, which hide the page table's latency.
    auto look_up = [&](int tile) {
        int position = tile * BLOCK_N + (int)thread;
        return thread < BLOCK_N && position < seen ? slot_of(pages, position, page_size) : -1;
    };
    auto keep = [&](int tile, int slot) {
        if (thread < BLOCK_N) slots[tile % 2 * BLOCK_N + thread] = slot;
    };
    u64 slot_width = (u64)kv_heads * HEAD_DIM, in_slot = (u64)(head / (heads / kv_heads)) * HEAD_DIM;
    auto copy = [&](u32 to, const T *pool, int tile) {
        copy_tile<BLOCK_N, CHUNKS, THREADS>(to, thread, pool, [&](u32 row) {
            int slot = slots[tile % 2 * BLOCK_N + row];
            return slot < 0 ? nullptr : pool + slot * slot_width + in_slot;
        });
        cp_async_commit_group();
    };

    u64 q_width = (u64)heads * HEAD_DIM, width = q_width + 2 * slot_width;
    copy_tile<BLOCK_M, CHUNKS, THREADS>(q_tile, thread, qkv, [&](u32 row) {
        return (int)row < rows ? qkv + (u64)(start + first_row + (int)row) * width + head * HEAD_DIM : nullptr;
    });
    cp_async_commit_group();
    keep(0, look_up(0));
    __syncthreads();
    copy(k_tile, keys, 0);

    // This warp's rows, and how many tiles its last row sees.
    int warp_row = (int)warp * WARP_M, warp_rows = min(WARP_M, rows - warp_row);
    int warp_tiles = warp_rows > 0 ? ceil_div(cached + first_row + warp_row + warp_rows, BLOCK_N) : 0;
    int first_position = cached + first_row + warp_row;

    u32 q[Q_STAYS ? M_TILES : 1][Q_STAYS ? HEAD_DIM / 16 : 1][4];
    float sums[M_TILES][HEAD_DIM / 8][4] = {}, max[M_TILES][2], weight_sum[M_TILES][2] = {};
#pragma unroll
    for (int m = 0; m < M_TILES; m++) max[m][0] = max[m][1] = -INFINITE;

    for (int tile = 0; tile < tiles; tile++) {
        // K of this tile is there, and all warps are done with V of the one before.
        cp_async_wait_group<0>();
        __syncthreads();
        copy(v_tile, values, tile);
        int next_slot = look_up(tile + 1);
        bool has_work = tile < warp_tiles;
        float score[M_TILES][BLOCK_N / 8][4] = {};
        if (has_work) {
            if constexpr (Q_STAYS) {
                if (tile == 0) {
#pragma unroll
                    for (int m = 0; m < M_TILES; m++)
#pragma unroll
                        for (int k = 0; k < HEAD_DIM / 16; k++)
                            ldmatrix_x4(q[m][k], address_of_rows<CHUNKS>(q_tile, warp_row + 16 * m, 2 * k));
                }
            }
#pragma unroll
            for (int k = 0; k < HEAD_DIM / 16; k++) {
                u32 a[M_TILES][4];
#pragma unroll
                for (int m = 0; m < M_TILES; m++) {
                    if constexpr (Q_STAYS) {
#pragma unroll
                        for (int i = 0; i < 4; i++) a[m][i] = q[m][k][i];
                    } else {
                        ldmatrix_x4(a[m], address_of_rows<CHUNKS>(q_tile, warp_row + 16 * m, 2 * k));
                    }
                }
#pragma unroll
                for (int n = 0; n < BLOCK_N / 16; n++) {
                    u32 b[4];
                    ldmatrix_x4(b, address_of_columns<CHUNKS>(k_tile, 16 * n, 2 * k));
#pragma unroll
                    for (int m = 0; m < M_TILES; m++) {
                        mma_m16n8k16<T>(score[m][2 * n], a[m], b[0], b[1]);
                        mma_m16n8k16<T>(score[m][2 * n + 1], a[m], b[2], b[3]);
                    }
                }
            }
        }
        keep(tile + 1, next_slot);
        // V of this tile is there, and all warps are done with K.
        cp_async_wait_group<0>();
        __syncthreads();
        if (tile + 1 < tiles) copy(k_tile, keys, tile + 1);
        if (!has_work) continue;

        int tile_end = (tile + 1) * BLOCK_N;
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            // The positions of rows g and g + 8 of this tile; what lies behind them is not seen.
            int position = first_position + 16 * m + (int)(lane / 4);
            if (tile_end > first_position + 16 * m + 1) {
#pragma unroll
                for (int n = 0; n < BLOCK_N / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (tile * BLOCK_N + 8 * n + (int)(lane % 4) * 2 + i % 2 > position + i / 2 * 8) score[m][n][i] = -INFINITE;
            }
            online_softmax(score[m], sums[m], max[m], weight_sum[m], scale);
        }
#pragma unroll
        for (int k = 0; k < BLOCK_N / 16; k++) {
            u32 a[M_TILES][4];
#pragma unroll
            for (int m = 0; m < M_TILES; m++) weights_of<T>(a[m], score[m], k);
#pragma unroll
            for (int n = 0; n < HEAD_DIM / 16; n++) {
                u32 b[4];
                ldmatrix_x4_trans(b, address_of_rows<CHUNKS>(v_tile, 16 * k, 2 * n));
#pragma unroll
                for (int m = 0; m < M_TILES; m++) {
                    mma_m16n8k16<T>(sums[m][2 * n], a[m], b[0], b[1]);
                    mma_m16n8k16<T>(sums[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
    if (warp_rows <= 0) return;

    // A warp's results go where its queries were, which no other warp reads, and leave from there 16 bytes at a time.
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float inverse = 1.0f / warp_sum<4>(weight_sum[m][half]);
            u32 row = warp_row + 16 * m + 8 * half + lane / 4;
#pragma unroll
            for (int n = 0; n < CHUNKS; n++) {
                u32 pair = pack<T>(sums[m][n][2 * half] * inverse, sums[m][n][2 * half + 1] * inverse);
                *(u32 *)(shared + 16 * swizzled<CHUNKS>(row, n) + 4 * (lane % 4)) = pair;
            }
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < WARP_M * CHUNKS / WARP; i++) {
        u32 at = i * WARP + lane, row = at / CHUNKS, chunk = at % CHUNKS;
        if ((int)row < warp_rows) {
            T *to = out + (u64)(start + first_row + warp_row + (int)row) * q_width + head * HEAD_DIM + 8 * chunk;
            store16(to, load16(shared + 16 * swizzled<CHUNKS>(warp_row + row, chunk)));
        }
    }
}
