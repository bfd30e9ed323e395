// C = A B^T in bf16: mma.sync, ldmatrix and cp.async with two stages; 64x64x32 tiles, 4 warps.
typedef unsigned u32;
typedef unsigned short u16;

__device__ u32 smem(const void *p) { return (u32)__cvta_generic_to_shared(p); }
__device__ void cp16(u32 dst, const void *src) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}
__device__ void ldsm4(u32 *r, u32 a) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a));
}
__device__ void mma(float *c, const u32 *a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// 64-byte rows of four 16-byte chunks; the swizzle makes ldmatrix free of conflicts.
template <bool SWIZZLE> __device__ int chunk_at(int row, int chunk) {
    return row * 64 + (SWIZZLE ? chunk ^ ((row >> 1) & 3) : chunk) * 16;
}
template <bool SWIZZLE, bool WAIT>
__device__ void gemm(const u16 *A, const u16 *B, float *C, int M, int N, int K) {
    __shared__ __align__(128) unsigned char sa[2][64 * 64], sb[2][64 * 64];
    int t = threadIdx.x, lane = t & 31, warp = t >> 5;
    const u16 *a = A + blockIdx.y * 64 * K, *b = B + blockIdx.x * 64 * K;
    float acc[8][4] = {};
    auto fetch = [&](int stage, int k) {
        for (int i = t; i < 256; i += 128) {
            int row = i >> 2, chunk = i & 3;
            cp16(smem(sa[stage]) + chunk_at<SWIZZLE>(row, chunk), a + row * K + k + chunk * 8);
            cp16(smem(sb[stage]) + chunk_at<SWIZZLE>(row, chunk), b + row * K + k + chunk * 8);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    fetch(0, 0);
    int tiles = K / 32;
    for (int k = 0; k < tiles; k++) {
        if (k + 1 < tiles) {
            fetch((k + 1) & 1, (k + 1) * 32);
            if (WAIT) asm volatile("cp.async.wait_group 1;" ::: "memory");
        } else {
            if (WAIT) asm volatile("cp.async.wait_group 0;" ::: "memory");
        }
        __syncthreads();
        int stage = k & 1;
        for (int kk = 0; kk < 2; kk++) {
            u32 fa[4];
            ldsm4(fa, smem(sa[stage]) + chunk_at<SWIZZLE>(warp * 16 + (lane & 15), kk * 2 + (lane >> 4)));
            for (int j = 0; j < 4; j++) {
                u32 fb[4];
                ldsm4(fb, smem(sb[stage]) + chunk_at<SWIZZLE>(j * 16 + (lane & 7) + ((lane >> 4) << 3), kk * 2 + ((lane >> 3) & 1)));
                mma(acc[2 * j], fa, fb[0], fb[1]);
                mma(acc[2 * j + 1], fa, fb[2], fb[3]);
            }
        }
        __syncthreads();
    }
    int row = blockIdx.y * 64 + warp * 16 + (lane >> 2), col = blockIdx.x * 64 + (lane & 3) * 2;
    for (int j = 0; j < 8; j++) {
        C[row * N + col + j * 8] = acc[j][0];
        C[row * N + col + j * 8 + 1] = acc[j][1];
        C[(row + 8) * N + col + j * 8] = acc[j][2];
        C[(row + 8) * N + col + j * 8 + 1] = acc[j][3];
    }
}
extern "C" __global__ void __launch_bounds__(128) gemm_swizzled(const u16 *A, const u16 *B, float *C, int M, int N, int K) {
    gemm<true, true>(A, B, C, M, N, K);
}
extern "C" __global__ void __launch_bounds__(128) gemm_plain(const u16 *A, const u16 *B, float *C, int M, int N, int K) {
    gemm<false, true>(A, B, C, M, N, K);
}
extern "C" __global__ void __launch_bounds__(128) gemm_without_wait(const u16 *A, const u16 *B, float *C, int M, int N, int K) {
    gemm<true, false>(A, B, C, M, N, K);
}
