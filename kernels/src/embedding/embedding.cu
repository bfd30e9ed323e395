// out[t] = table[ids[t]]: rows of a matrix, by index. Also the gather of rows whose logits are wanted.
//
// Shapes: ids [tokens], table [*, width], out [tokens, width].
//
//   ids    [  7 | 2 | 7 ]          one block column per 256 vectors of a row, one block row per token
//   table  row 7 ──────▶ out row 0
//          row 2 ──────▶ out row 1
//
// What bounds it: memory; it computes nothing.
#include "prelude.cuh"

// A thread copies VECTOR neighbours: 8 (16 bytes) where rows are whole vectors, else 1.
template <int VECTOR>
__global__ void __launch_bounds__(256) gather_rows(const int *__restrict__ ids, const u16 *__restrict__ table, u16 *__restrict__ out, u32 width) {
    u32 column = (blockIdx.x * blockDim.x + threadIdx.x) * VECTOR;
    if (column >= width) return;
    const u16 *from = table + (u64)ids[blockIdx.y] * width + column;
    u16 *to = out + (u64)blockIdx.y * width + column;
    if constexpr (VECTOR == 8) store16(to, load16(from));
    else *to = *from;
}
