// Instructions whose results a GPU can confirm: each thread writes what one of them makes of its bits.
typedef unsigned u32;
typedef unsigned long long u64;
typedef unsigned short u16;

// Roundings and modes of f32; x, y and z are any bits.
extern "C" __global__ void roundings(const float *x, const float *y, const float *z, u32 *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
    float a = x[i], b = y[i], c = z[i];
    u32 *o = out + i;
#define PUT(value) { *o = __float_as_uint(value); o += n; }
    PUT(__fadd_rn(a, b)) PUT(__fadd_rz(a, b)) PUT(__fadd_ru(a, b)) PUT(__fadd_rd(a, b))
    PUT(__fmul_rn(a, b)) PUT(__fmul_rz(a, b)) PUT(__fmul_ru(a, b)) PUT(__fmul_rd(a, b))
    PUT(__fmaf_rn(a, b, c)) PUT(__fmaf_rz(a, b, c)) PUT(__fmaf_ru(a, b, c)) PUT(__fmaf_rd(a, b, c))
    PUT(__fdiv_rn(a, b)) PUT(__fdiv_rz(a, b)) PUT(__fdiv_ru(a, b)) PUT(__fdiv_rd(a, b))
    PUT(__fsqrt_rn(a)) PUT(__fsqrt_rz(a)) PUT(__frcp_rn(a)) PUT(__frcp_ru(a))
    PUT(fminf(a, b)) PUT(fmaxf(a, b)) PUT(rintf(a)) PUT(truncf(a)) PUT(floorf(a)) PUT(ceilf(a))
    PUT(__saturatef(a)) PUT(copysignf(a, b))
    PUT(__uint_as_float(__float2int_rn(a))) PUT(__uint_as_float(__float2uint_rz(a)))
    PUT(__int2float_rn(__float_as_int(b))) PUT(__uint2float_rz(__float_as_uint(b)))
    float f;
    asm("add.ftz.f32 %0, %1, %2;" : "=f"(f) : "f"(a), "f"(b)); PUT(f)
    asm("mul.ftz.sat.f32 %0, %1, %2;" : "=f"(f) : "f"(a), "f"(b)); PUT(f)
    asm("fma.rn.ftz.f32 %0, %1, %2, %3;" : "=f"(f) : "f"(a), "f"(b), "f"(c)); PUT(f)
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(f) : "f"(a), "f"(b)); PUT(f)
    asm("cvt.rna.tf32.f32 %0, %1;" : "=f"(f) : "f"(a)); PUT(f)
#undef PUT
}

// Approximations of f32, which are close and not the same.
extern "C" __global__ void approximations(const float *x, float *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
    float a = x[i], f;
    asm("ex2.approx.f32 %0, %1;" : "=f"(f) : "f"(a)); out[i] = f;
    asm("lg2.approx.f32 %0, %1;" : "=f"(f) : "f"(fabsf(a))); out[i + n] = f;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(f) : "f"(fabsf(a))); out[i + 2 * n] = f;
    asm("rcp.approx.f32 %0, %1;" : "=f"(f) : "f"(a)); out[i + 3 * n] = f;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(f) : "f"(fabsf(a))); out[i + 4 * n] = f;
    asm("tanh.approx.f32 %0, %1;" : "=f"(f) : "f"(a)); out[i + 5 * n] = f;
}

// 16-bit formats, packed; x and y are any bits.
extern "C" __global__ void halves(const u32 *x, const u32 *y, u32 *out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
    u32 a = x[i], b = y[i], r;
    u32 *o = out + i;
#define PUT(text) { asm(text : "=r"(r) : "r"(a), "r"(b)); *o = r; o += n; }
    PUT("add.f16x2 %0, %1, %2;") PUT("sub.f16x2 %0, %1, %2;") PUT("mul.f16x2 %0, %1, %2;")
    PUT("fma.rn.f16x2 %0, %1, %2, %1;") PUT("fma.rn.bf16x2 %0, %1, %2, %1;") PUT("fma.rn.relu.f16x2 %0, %1, %2, %1;")
    PUT("min.f16x2 %0, %1, %2;") PUT("max.NaN.bf16x2 %0, %1, %2;") PUT("add.sat.f16x2 %0, %1, %2;")
#undef PUT
    float f = __uint_as_float(a), g = __uint_as_float(b);
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(f), "f"(g)); *o = r; o += n;
    asm("cvt.rz.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(f), "f"(g)); *o = r; o += n;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(f), "f"(g)); *o = r; o += n;
    asm("cvt.rz.relu.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(f), "f"(g)); *o = r;
}

// One mma.sync of any bits: a [8][32] registers of A (4), B (2) and C (2 or 4) per lane and block.
#define MMA(NAME, TEXT) \
    extern "C" __global__ void NAME(const u32 *a, const u32 *b, const u32 *c, u32 *d) { \
        int i = blockIdx.x * 32 + threadIdx.x, n = gridDim.x * 32; \
        u32 r0, r1, r2, r3; \
        asm volatile(TEXT : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) \
            : "r"(a[i]), "r"(a[i + n]), "r"(a[i + 2 * n]), "r"(a[i + 3 * n]), "r"(b[i]), "r"(b[i + n]), \
              "r"(c[i]), "r"(c[i + n]), "r"(c[i + 2 * n]), "r"(c[i + 3 * n])); \
        d[i] = r0; d[i + n] = r1; d[i + 2 * n] = r2; d[i + 3 * n] = r3; \
    }
#define OPERANDS " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
MMA(mma_bf16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" OPERANDS)
MMA(mma_f16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" OPERANDS)
MMA(mma_tf32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32" OPERANDS)
MMA(mma_s8, "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.u8.s32" OPERANDS)
