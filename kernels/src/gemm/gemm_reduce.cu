// gemm_reduce: out[i, j] = sum over s of partials[s, i, j] (+ bias[j]): the end of a product whose columns were split.
//
// Shapes: partials [splits, m, n] and bias [n] in float, out [m, n] in T. VECTOR is 4, or 1 if n is no multiple of it.
//
//   partials   s = 0   |----|----|----| ...      a thread adds VECTOR neighbours of every split, in the order of the splits:
//              s = 1   |----|----|----| ...      the same sum in every run, unlike with atomic additions
//
// What bounds it: memory, and as the sums were just written, the second-level cache.
#include "prelude.cuh"

template <typename T, int VECTOR>
__global__ void __launch_bounds__(256)
    gemm_reduce(const float *partials, const float *bias, T *out, int splits, u64 elements, int n) {
    struct __align__(4 * VECTOR) Floats { float x[VECTOR]; };
    struct __align__(2 * VECTOR) Elements { T x[VECTOR]; };
    u64 at = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * VECTOR;
    if (at >= elements) return;
    Floats sum = *(const Floats *)(partials + at);
    for (int s = 1; s < splits; s++) {
        Floats more = *(const Floats *)(partials + (s * elements + at));
#pragma unroll
        for (int i = 0; i < VECTOR; i++) sum.x[i] += more.x[i];
    }
    Elements result;
    Floats added = bias ? *(const Floats *)(bias + at % n) : Floats{};
#pragma unroll
    for (int i = 0; i < VECTOR; i++) result.x[i] = from_float<T>(sum.x[i] + added.x[i]);
    *(Elements *)(out + at) = result;
}
