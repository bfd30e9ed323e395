// Rotates queries and keys of a QKV buffer in place, and writes keys and values to their slots of the paged pool.
//
// (a, b) of a pair becomes (a cos - b sin, b cos + a sin); a pair is elements i and i + pairs of a head (the halves of Llama and
// Qwen), what lies behind 2 * pairs stays.
//
// Shapes: qkv [tokens, (heads + 2 * kv_heads) * head_dim]; table [positions, pairs, 2]: cosine and sine; keys, values
// [slots, kv_heads, head_dim].
//
//   a token   [ q heads … | k heads … | v heads … ]      one block per token; a thread takes VECTOR pairs of a head, then
//               rotate      rotate,      copy            VECTOR values
//                           copy ─▶ pool  ─▶ pool
//
// What bounds it: memory.
//
// Of the table a lane has 64 bytes, in four loads of 16. The heads of a warp read the same ones, so that a load takes a sector for each
// vector of a half, 4 to 16 of them, no more than its bytes need. A warp with a single head left is the exception: half of each of its
// sectors waits for the next load.
#include "prelude.cuh"

// Both halves of VECTOR pairs.
template <typename T, int VECTOR>
__device__ __forceinline__ void rotate(T *a, T *b, const float *table, T *a_copy, T *b_copy) {
    float x[VECTOR], y[VECTOR], turn[2 * VECTOR];
    if constexpr (VECTOR == 8) {
        unpack8<T>(load16(a), x);
        unpack8<T>(load16(b), y);
        load8(table, turn);
        load8(table + 8, turn + 8);
    } else {
        x[0] = to_float(*a);
        y[0] = to_float(*b);
        turn[0] = table[0];
        turn[1] = table[1];
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        float cos = turn[2 * i], sin = turn[2 * i + 1], low = x[i] * cos - y[i] * sin;
        y[i] = y[i] * cos + x[i] * sin;
        x[i] = low;
    }
    if constexpr (VECTOR == 8) {
        vec16 low = pack8<T>(x), high = pack8<T>(y);
        store16(a, low);
        store16(b, high);
        if (a_copy) {
            store16(a_copy, low);
            store16(b_copy, high);
        }
    } else {
        *a = from_float<T>(x[0]);
        *b = from_float<T>(y[0]);
        if (a_copy) {
            *a_copy = *a;
            *b_copy = *b;
        }
    }
}

template <int VECTOR> __device__ __forceinline__ void copy(u16 *to, const u16 *from) {
    if constexpr (VECTOR == 8) store16(to, load16(from));
    else *to = *from;
}

// VECTOR: 8 where heads and their halves are whole vectors of 16 bytes, else 1.
template <typename T, int VECTOR>
__global__ void __launch_bounds__(128) rope_kv(T *__restrict__ qkv, const int *__restrict__ positions, const int *__restrict__ slots, const float *__restrict__ table, T *__restrict__ keys, T *__restrict__ values, u32 heads, u32 kv_heads, u32 head_dim, u32 pairs) {
    u32 token = blockIdx.x;
    T *row = qkv + (u64)token * (heads + 2 * kv_heads) * head_dim;
    const float *turns = table + (u64)positions[token] * pairs * 2;
    u64 slot = (u64)slots[token] * kv_heads * head_dim;
    u32 per_head = pairs / VECTOR;
    for (u32 item = threadIdx.x; item < (heads + kv_heads) * per_head; item += blockDim.x) {
        u32 head = item / per_head, i = item % per_head * VECTOR;
        T *a = row + head * head_dim + i;
        T *to = head < heads ? nullptr : keys + slot + (head - heads) * head_dim + i;
        rotate<T, VECTOR>(a, a + pairs, turns + 2 * i, to, to ? to + pairs : nullptr);
    }
    // What of a key does not turn.
    u32 rest = (head_dim - 2 * pairs) / VECTOR;
    for (u32 item = threadIdx.x; item < kv_heads * rest; item += blockDim.x) {
        u32 at = item / rest * head_dim + 2 * pairs + item % rest * VECTOR;
        copy<VECTOR>((u16 *)(keys + slot + at), (const u16 *)(row + heads * head_dim + at));
    }
    for (u32 item = threadIdx.x; item < kv_heads * head_dim / VECTOR; item += blockDim.x)
        copy<VECTOR>((u16 *)(values + slot + item * VECTOR), (const u16 *)(row + (heads + kv_heads) * head_dim + item * VECTOR));
}
