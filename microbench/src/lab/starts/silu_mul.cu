// A thread has an element.
extern "C" __global__ void my_silu_mul(const STORAGE *gate_up, STORAGE *out, unsigned rows, unsigned width) {
    u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (u64)rows * width) return;
    const STORAGE *row = gate_up + i / width * 2 * width;
    float gate = to_float(row[i % width]), up = to_float(row[width + i % width]);
    out[i] = from_float<STORAGE>(gate / (1.0f + expf(-gate)) * up);
}
