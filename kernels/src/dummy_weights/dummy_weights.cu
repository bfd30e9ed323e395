// out[i] = ((word >> 8) / 2^23 - 1) / 1000, rounded to T; word is word i % 4 of block i / 4 of the Philox stream.
//
// Shapes: out [elements] in T (bf16 or f16).
//
//   out   [ 0 … 7 | 8 … 15 | … ]      a thread makes two blocks, 8 elements, and stores them at once
//          thread 0  thread 1
//
// The values are those of the CPU, bit for bit: all but the last product and the rounding to T are exact in float.
//
// What bounds it: arithmetic, 40 multiplications of 32 bits for 16 bytes that are stored. It runs once, when a model is made.
#include "prelude.cuh"

template <typename T>
__global__ void __launch_bounds__(256) dummy_weights(T *__restrict__ out, u64 elements, u64 seed) {
    u64 first = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (first >= elements) return;
    float values[8];
#pragma unroll
    for (int block = 0; block < 2; block++) {
        u64 counter = first / 4 + block;
        u32 words[4] = {(u32)counter, (u32)(counter >> 32), 0, 0};
        philox4x32_10(words, seed);
#pragma unroll
        for (int i = 0; i < 4; i++) values[4 * block + i] = ((float)(words[i] >> 8) * 0x1p-23f - 1.0f) * 1e-3f;
    }
    if (first + 8 <= elements) {
        store16_whole(out + first, pack8<T>(values));
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (first + i < elements) out[first + i] = from_float<T>(values[i]);
    }
}
