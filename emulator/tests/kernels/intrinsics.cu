// Integer intrinsics whose code is not one obvious instruction.
extern "C" __global__ void intrinsics(const unsigned* in, unsigned* out) {
    const unsigned i = threadIdx.x;
    const unsigned a = in[3 * i], b = in[3 * i + 1], c = in[3 * i + 2];
    unsigned* o = out + 24 * i;
    o[0] = __vabsdiffu4(a, b);
    o[1] = __vabsdiffs4(a, b);
    o[2] = __vadd4(a, b);
    o[3] = __vsub4(a, b);
    o[4] = __vmaxs4(a, b);
    o[5] = __vaddus4(a, b);
    o[6] = __vsads4(a, b);
    o[7] = __vsadu4(a, b);
    o[8] = __vadd2(a, b);
    o[9] = __vmaxs2(a, b);
    o[10] = __vavgu4(a, b);
    o[11] = __vcmpgtu4(a, b);
    o[12] = __viaddmax_s16x2(a, b, c);
    o[13] = __vimax_s32_relu(a, b);
    o[14] = __vimin_s16x2_relu(a, b);
    o[15] = __vimax3_u16x2(a, b, c);
    o[16] = __fns(a, b & 31, (int)(c & 7) - 3);
    o[17] = __usad(a, b, c);
    o[18] = __uhadd(a, b);
    o[19] = __vaddss4(a, b);
    o[20] = __vsubus2(a, b);
    unsigned __int128 x = (unsigned __int128)a << 64 | (unsigned long long)b << 32 | c;
    x = x * x + a;
    o[21] = (unsigned)(x >> 96);
    o[22] = (unsigned)(x >> 64);
    o[23] = (unsigned)(x >> 32);
}
