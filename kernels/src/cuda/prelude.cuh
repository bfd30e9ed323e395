// What every kernel includes: types, conversions, vectors, warp reductions, and PTX instructions under their PTX names.
// No header of NVIDIA's is needed.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 FULL_WARP = 0xffffffffu;
constexpr int WARP = 32;

// ---- storage types -------------------------------------------------------------------------------------------------------

// 16-bit floats as storage: arithmetic is in float, rounding is to nearest even.
struct bf16 { u16 bits; };
struct f16 { u16 bits; };

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float to_float(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <> __device__ __forceinline__ f16 from_float<f16>(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Two values in one register, the first in the low half.
template <typename T> __device__ __forceinline__ u32 pack(float low, float high);
template <> __device__ __forceinline__ u32 pack<bf16>(float low, float high) {
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
template <> __device__ __forceinline__ u32 pack<f16>(float low, float high) {
    u32 y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
template <typename T> __device__ __forceinline__ float low_half(u32 pair) { return to_float(T{(u16)pair}); }
template <typename T> __device__ __forceinline__ float high_half(u32 pair) { return to_float(T{(u16)(pair >> 16)}); }

// ---- 16 bytes at a time --------------------------------------------------------------------------------------------------

struct __align__(16) vec16 { u32 words[4]; };

// Eight 16-bit values as floats.
template <typename T> __device__ __forceinline__ void unpack8(vec16 v, float *x) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = low_half<T>(v.words[i]);
        x[2 * i + 1] = high_half<T>(v.words[i]);
    }
}
template <typename T> __device__ __forceinline__ vec16 pack8(const float *x) {
    vec16 v;
#pragma unroll
    for (int i = 0; i < 4; i++) v.words[i] = pack<T>(x[2 * i], x[2 * i + 1]);
    return v;
}
__device__ __forceinline__ vec16 load16(const void *p) { return *(const vec16 *)p; }
__device__ __forceinline__ void store16(void *p, vec16 v) { *(vec16 *)p = v; }
// One store to global memory whatever the compiler thinks: behind divisions NVRTC 13.0 makes four of store16.
__device__ __forceinline__ void store16_whole(void *p, vec16 v) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.words[0]), "r"(v.words[1]), "r"(v.words[2]), "r"(v.words[3]) : "memory");
}
// The same of 8 bytes.
__device__ __forceinline__ void store8_whole(void *p, u32 low, u32 high) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(p), "r"(low), "r"(high) : "memory");
}
// Eight floats, of weights and tables: two loads.
__device__ __forceinline__ void load8(const float *p, float *x) {
    float4 low = ((const float4 *)p)[0], high = ((const float4 *)p)[1];
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}
// What no kernel writes while this one runs, and is read once: weights.
__device__ __forceinline__ vec16 load16_once(const void *p) {
    vec16 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.words[0]), "=r"(v.words[1]), "=r"(v.words[2]), "=r"(v.words[3]) : "l"(p));
    return v;
}

// ---- mathematics ---------------------------------------------------------------------------------------------------------

#define INFINITE __int_as_float(0x7f800000)
constexpr float LOG2_E = 1.44269504088896340736f;

__device__ __forceinline__ float ex2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ float rsqrt_approx(float x) {
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Philox 4x32 with ten rounds (Salmon and others, 2011): a counter becomes four random words.
__device__ __forceinline__ void philox4x32_10(u32 (&c)[4], u64 seed) {
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u32 high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
        u32 high1 = __umulhi(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
        c[0] = high1 ^ c[1] ^ k0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ k1;
        c[3] = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

// ---- warps ---------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float shfl_xor(float x, int lanes) { return __shfl_xor_sync(FULL_WARP, x, lanes); }

template <int LANES = WARP> __device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2) x += shfl_xor(x, lanes);
    return x;
}
template <int LANES = WARP> __device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2) x = fmaxf(x, shfl_xor(x, lanes));
    return x;
}

// The sum over the block, the same in every thread. `shared` has a float for each of at most 32 warps and may be used again
// after the next barrier.
__device__ __forceinline__ float block_sum(float x, float *shared) {
    x = warp_sum(x);
    int warp = threadIdx.x / WARP, warps = (blockDim.x + WARP - 1) / WARP;
    if (threadIdx.x % WARP == 0) shared[warp] = x;
    __syncthreads();
    return warp_sum(threadIdx.x % WARP < warps ? shared[threadIdx.x % WARP] : 0.0f);
}

// ---- shared memory and asynchronous copies (sm_80) -----------------------------------------------------------------------

__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// 16 bytes to shared memory past the registers and the first-level cache; zeros where `valid` is false (`from` must still be
// an address that may be read).
__device__ __forceinline__ void cp_async16(u32 to, const void *from, bool valid = true) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void cp_async_commit_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int KEEP> __device__ __forceinline__ void cp_async_wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(KEEP) : "memory");
}

// ---- tensor cores (sm_80) ------------------------------------------------------------------------------------------------

// Four 8x8 matrices of 16-bit elements: lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i, and each lane gets two
// neighbours of row lane / 4 of every matrix.
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
// The same, each matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// D[16][8] += A[16][16] B[16][8]. Lane l has g = l / 4 and t = l % 4; A: rows g and g + 8, columns 2 t, 2 t + 1 and those
// plus 8; B: column g, rows as A's columns; D: rows g (0, 1) and g + 8 (2, 3), columns 2 t and 2 t + 1.
template <typename T> __device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <> __device__ __forceinline__ void mma_m16n8k16<bf16>(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void mma_m16n8k16<f16>(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- rows that end or begin anywhere -------------------------------------------------------------------------------------

// The first `count` of eight elements, and zeros. With ALIGNED all eight are there or none, at a multiple of 16 bytes.
template <bool ALIGNED, typename T> __device__ __forceinline__ vec16 load8_part(const T *p, int count) {
    vec16 v{};
    if constexpr (ALIGNED) {
        if (count > 0) v = load16(p);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < count) v.words[i / 2] |= (u32)p[i].bits << (16 * (i % 2));
    }
    return v;
}
// The same of weights.
template <bool ALIGNED, typename T> __device__ __forceinline__ vec16 load8_part_once(const T *p, int count) {
    if constexpr (ALIGNED) {
        vec16 v{};
        if (count > 0) v = load16_once(p);
        return v;
    } else {
        return load8_part<false>(p, count);
    }
}

// ---- tiles in shared memory ----------------------------------------------------------------------------------------------

// Where chunk `chunk` (16 bytes) of row `row` of a tile lies, in chunks. Rows have CHUNKS chunks and no padding. Eight rows that
// one chunk column crosses (ldmatrix) begin at 8 / RUN different places of the 8 that 16 bytes can have in the banks, so groups
// of 8 / RUN rows swap their chunks within runs of RUN: then all 8 differ. Chunks side by side stay so but for their order.
template <int CHUNKS> __device__ __forceinline__ u32 swizzled(u32 row, u32 chunk) {
    constexpr u32 RUN = CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : CHUNKS % 2 == 0 ? 2 : 1;
    return row * CHUNKS + (chunk ^ (row / (8 / RUN) % RUN));
}

// Starts the copies of a tile of ROWS rows of 16-bit values to shared memory by THREADS threads, of which this is `thread`.
// `from(row)` is where a row begins, or null for a row of zeros; `readable` is any address that may be read.
template <int ROWS, int CHUNKS, int THREADS, typename T, typename From>
__device__ __forceinline__ void copy_tile(u32 to, u32 thread, const T *readable, From from) {
    static_assert(ROWS * CHUNKS % THREADS == 0, "each thread copies the same number of chunks");
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
        u32 at = i * THREADS + thread, row = at / CHUNKS, chunk = at % CHUNKS;
        const T *begin = from(row);
        cp_async16(to + 16 * swizzled<CHUNKS>(row, chunk), begin ? begin + 8 * chunk : readable, begin != nullptr);
    }
}

// The address that this lane gives ldmatrix_x4 for the 16x16 piece of a tile at `row` and `chunk`: as the operand A, or
// transposed as the operand B twice (r[0], r[1] and r[2], r[3]), the tile's rows being B's.
template <int CHUNKS> __device__ __forceinline__ u32 address_of_rows(u32 tile, u32 row, u32 chunk) {
    u32 lane = threadIdx.x % WARP;
    return tile + 16 * swizzled<CHUNKS>(row + lane % 16, chunk + lane / 16);
}
// The same for the operand B twice, the tile's rows being B's columns.
template <int CHUNKS> __device__ __forceinline__ u32 address_of_columns(u32 tile, u32 row, u32 chunk) {
    u32 lane = threadIdx.x % WARP;
    return tile + 16 * swizzled<CHUNKS>(row + lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2);
}

// ---- attention -----------------------------------------------------------------------------------------------------------

// The slot of a request's position, whose pages are `pages`.
__device__ __forceinline__ int slot_of(const int *pages, u32 position, u32 page_size) {
    u32 page = position / page_size;
    return pages[page] * (int)page_size + (int)(position - page * page_size);
}

// Scores of 16 rows in the layout of D become weights exp2(scale * (score - max)). `max` and `sum` are those of rows g and
// g + 8, `sum` of this lane's columns only; where a maximum rises, the weighted values so far are scaled down. At least one
// score of a row, of this or an earlier tile, is above minus infinity.
template <int SCORE_TILES, int VALUE_TILES>
__device__ __forceinline__ void online_softmax(float (&score)[SCORE_TILES][4], float (&value)[VALUE_TILES][4], float (&max)[2],
                                               float (&sum)[2], float scale) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float highest = max[half];
#pragma unroll
        for (int n = 0; n < SCORE_TILES; n++) highest = fmaxf(highest, fmaxf(score[n][2 * half], score[n][2 * half + 1]));
        highest = warp_max<4>(highest);
        float shrink = ex2_approx((max[half] - highest) * scale), offset = highest * scale;
        max[half] = highest;
        sum[half] *= shrink;
#pragma unroll
        for (int n = 0; n < SCORE_TILES; n++) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                score[n][i] = ex2_approx(score[n][i] * scale - offset);
                sum[half] += score[n][i];
            }
        }
#pragma unroll
        for (int n = 0; n < VALUE_TILES; n++) {
            value[n][2 * half] *= shrink;
            value[n][2 * half + 1] *= shrink;
        }
    }
}

// The weights of columns 16 k to 16 k + 15 as the operand A: D's layout of two tiles is A's of one.
template <typename T, int SCORE_TILES>
__device__ __forceinline__ void weights_of(u32 (&a)[4], const float (&score)[SCORE_TILES][4], int k) {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = pack<T>(score[2 * k + i / 2][i % 2 * 2], score[2 * k + i / 2][i % 2 * 2 + 1]);
}
