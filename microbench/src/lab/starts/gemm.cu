// A block has a tile of TILE x TILE outputs, a thread one of them. Tiles of x and of the weight go through shared memory, TILE columns
// at a time; one element more to a row, so that the threads of a warp, which read a column, find it in different banks.
extern "C" __global__ void __launch_bounds__(TILE * TILE) my_gemm(const STORAGE *x, const STORAGE *weight, const float *bias, STORAGE *out, unsigned M, unsigned N, unsigned K) {
    __shared__ float x_tile[TILE][TILE + 1], weight_tile[TILE][TILE + 1];
    unsigned column = threadIdx.x % TILE, row = threadIdx.x / TILE;
    unsigned m = blockIdx.y * TILE + row, n = blockIdx.x * TILE + column;
    float sum = 0.0f;
    for (unsigned k = 0; k < K; k += TILE) {
        // A thread loads an element of either; n of the weight's tile is a row of it.
        unsigned weight_row = blockIdx.x * TILE + row;
        bool inside = k + column < K;
        x_tile[row][column] = m < M && inside ? to_float(x[(u64)m * K + k + column]) : 0.0f;
        weight_tile[row][column] = weight_row < N && inside ? to_float(weight[(u64)weight_row * K + k + column]) : 0.0f;
        __syncthreads();
        for (unsigned i = 0; i < TILE; i++) sum += x_tile[row][i] * weight_tile[column][i];
        // Nobody overwrites a tile that another thread still reads.
        __syncthreads();
    }
    if (m < M && n < N) out[(u64)m * N + n] = from_float<STORAGE>(sum + (bias ? bias[n] : 0.0f));
}
