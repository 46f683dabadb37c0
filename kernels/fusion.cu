// The merged plan of `schedule.py` in CUDA C++: the same rows, buffers and counters as `fusion.py`, which says what
// they mean and is what the tests run without a GPU. One head of D = 512, head self_attention, float16 activations,
// weights in float16 or, with W8, INT8.
//
// A block has 8 warps; warp w owns inputs 64 w to 64 w + 63 of every product, so that each thread loads its
// tensor-core operands from L2 straight into registers, 16 bytes at a time, and shared memory only adds the warps'
// parts. To that end the inputs of a product are numbered so that a thread of quad lane c has twice 8 adjacent ones, from
// 8 c and from 32 + 8 c, in all four steps of 16: a sum does not mind the order, as long as both operands have the same.
//
// Macros: M modalities, KT tiles of 16 keys (S, and the blocks of the final encoder), W8, STRESS.
// References: PTX ISA, "Matrix Fragments for mma.m16n8k16".

typedef unsigned u32;
typedef unsigned short u16;
constexpr int D = 512, ROW = 32, BN = 16, WARPS = 8, MOST = 4;
enum { INPUT, NORM, PLAIN, ATTEND, HEAD, LAYER, CROSS, LAST };
constexpr float EPS = EPSILON;

#ifdef W8
typedef signed char weight;
#else
typedef u16 weight;
#endif

struct Quad { u32 v[4]; };

__device__ __forceinline__ Quad load16(const void* p) {  // past L1: other blocks wrote it
    Quad q;
    asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(q.v[0]), "=r"(q.v[1]), "=r"(q.v[2]), "=r"(q.v[3]) : "l"(p));
    return q;
}
__device__ __forceinline__ Quad constant16(const void* p) {
    Quad q;
    asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(q.v[0]), "=r"(q.v[1]), "=r"(q.v[2]), "=r"(q.v[3]) : "l"(p));
    return q;
}
__device__ __forceinline__ u32 load4(const void* p) {
    u32 v;
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
__device__ __forceinline__ float half_of(u16 h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
__device__ __forceinline__ float load_half(const u16* p) {
    u16 v;
    asm volatile("ld.global.cg.u16 %0, [%1];" : "=h"(v) : "l"(p));
    return half_of(v);
}
__device__ __forceinline__ float low(u32 v) { return half_of((u16)v); }
__device__ __forceinline__ float high(u32 v) { return half_of((u16)(v >> 16)); }
__device__ __forceinline__ u32 pack(float a, float b) {
    u32 v;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(b), "f"(a));
    return v;
}
__device__ __forceinline__ void store_half(u16* p, float f) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    *p = h;
}
__device__ __forceinline__ void mma(float* c, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}
template <int N>
__device__ __forceinline__ void warp_sums(float (&x)[N]) {  // step by step together: their latencies overlap
    for (int i = 16; i; i >>= 1)
        for (int n = 0; n < N; n++) x[n] += __shfl_xor_sync(~0u, x[n], i);
}
__device__ __forceinline__ float warp_sum(float x) {
    for (int i = 16; i; i >>= 1) x += __shfl_xor_sync(~0u, x, i);
    return x;
}

// a thread's 16 inputs of two outputs: per output 8 registers of two float16
#ifdef W8
struct Weights { uint2 q[4]; };
__device__ __forceinline__ uint2 constant8(const void* p) {
    uint2 q;
    asm volatile("ld.global.nc.v2.u32 {%0,%1}, [%2];" : "=r"(q.x), "=r"(q.y) : "l"(p));
    return q;
}
__device__ __forceinline__ void unpack(u32 bytes, u32* w) {  // byte + 128 under an exponent of 1024, less 1152: exact
    u32 b = bytes ^ 0x80808080u, lo = __byte_perm(b, 0x64646464u, 0x4140), hi = __byte_perm(b, 0x64646464u, 0x4342);
    asm("sub.f16x2 %0, %1, %2;" : "=r"(w[0]) : "r"(lo), "r"(0x64806480u));
    asm("sub.f16x2 %0, %1, %2;" : "=r"(w[1]) : "r"(hi), "r"(0x64806480u));
}
#else
struct Weights { Quad q[4]; };
#endif

__device__ __forceinline__ void load_weights(Weights& w, const weight* p, int warp, int lane) {
    const weight* at = p + (lane >> 2) * D + warp * 64 + (lane & 3) * 8;
#ifdef W8
    w.q[0] = constant8(at), w.q[1] = constant8(at + 32), w.q[2] = constant8(at + 8 * D), w.q[3] = constant8(at + 8 * D + 32);
#else
    w.q[0] = constant16(at), w.q[1] = constant16(at + 32), w.q[2] = constant16(at + 8 * D), w.q[3] = constant16(at + 8 * D + 32);
#endif
}

struct Rows { u32 a[8], b[8]; };  // a thread's 16 inputs of rows lane / 4 and lane / 4 + 8

__device__ __forceinline__ void load_row(u32* a, const u16* p, bool there) {
    Quad x = {0, 0, 0, 0}, y = {0, 0, 0, 0};
    if (there) x = load16(p), y = load16(p + 32);
    #pragma unroll
    for (int i = 0; i < 4; i++) a[i] = x.v[i], a[4 + i] = y.v[i];
}

// c[2][4] += 16 rows by 16 columns of this warp's inputs
__device__ __forceinline__ void product(float (*c)[4], const Rows& x, const Weights& w) {
    #pragma unroll
    for (int n = 0; n < 2; n++) {
#ifdef W8
        u32 b[8];
        unpack(w.q[2 * n].x, b), unpack(w.q[2 * n].y, b + 2), unpack(w.q[2 * n + 1].x, b + 4), unpack(w.q[2 * n + 1].y, b + 6);
#else
        u32 b[8];
        #pragma unroll
        for (int i = 0; i < 4; i++) b[i] = w.q[2 * n].v[i], b[4 + i] = w.q[2 * n + 1].v[i];
#endif
        #pragma unroll
        for (int t = 0; t < 4; t++) mma(c[n], x.a[2 * t], x.b[2 * t], x.a[2 * t + 1], x.b[2 * t + 1], b[2 * t], b[2 * t + 1]);
    }
}

// shared memory: the warps' parts of up to MOST (or KT) tiles of 16 by 16
struct Shared {
    float part[WARPS][(KT > MOST ? KT : MOST)][16][BN];
    int row[2][ROW];
    float total[WARPS][16][2];  // of each row: sum, squares
    float columns[MOST][16][BN];
    u16 probability[16][16 * KT + 8];
    float inverse[16];
    u16 values[WARPS][16 * KT][66];
    float score[M][16 * KT], mean[M][16 * KT], scale[M][16 * KT], weights[WARPS][M * 16 * KT];
    u16 attended[M][D];
    u16 keys[KT == 1 ? M * 16 : 1][D];  // at more keys they are read again
    float hidden[512];
};

static_assert(sizeof(Shared) == SHARED, "native.shared_bytes and struct Shared differ");

// where, from a thread's first input, its register i lies
__device__ __forceinline__ constexpr int place(int i) { return 2 * i + (i < 4 ? 0 : 24); }

__device__ __forceinline__ void put(float (*part)[BN], float (*c)[4], int lane) {
    int r = lane >> 2, k = (lane & 3) * 2;
    #pragma unroll
    for (int n = 0; n < 2; n++) {
        *(float2*)&part[r][n * 8 + k] = make_float2(c[n][0], c[n][1]);
        *(float2*)&part[r + 8][n * 8 + k] = make_float2(c[n][2], c[n][3]);
    }
}
__device__ __forceinline__ float gather(const Shared& s, int tile, int r, int c) {  // in a fixed order
    float x = 0;
    for (int w = 0; w < WARPS; w++) x += s.part[w][tile][r][c];
    return x;
}

struct Arguments {
    const u16* features; u16* work; const weight* weights; const float* params; const float* present;
    float* logits; float* attention;
};

__device__ __forceinline__ void project(const Arguments& g, Shared& s, const int* f, Weights* w, int n_rows, bool features) {
    int thread = threadIdx.x, warp = thread >> 5, lane = thread & 31, tile = f[24];
    int units = f[2], outs = f[3], rows = f[9], stride = f[8];
    int r = tile * 16 + (lane >> 2), at = warp * 64 + (lane & 3) * 8;
    int row = tile * 16 + (thread >> 4), column = thread & 15;
    float residual[MOST] = {0, 0, 0, 0}, bias[MOST];
#ifdef W8
    float scale[MOST];
#endif
    #pragma unroll
    for (int j = 0; j < MOST; j++) {
        bool mine = j < outs && row < rows;
        if (mine && f[14] >= 0) residual[j] = load_half(g.work + f[14] + j * BN + row * stride + column);
        bias[j] = j < outs ? g.params[f[5] + j * BN + column] : 0;
#ifdef W8
        scale[j] = j < outs ? g.params[f[6] + j * BN + column] : 0;
#endif
    }
    constexpr int PARTS = M > 2 ? M : 2;
    Rows x[PARTS];
    bool here[PARTS], here8[PARTS];
    #pragma unroll
    for (int u = 0; u < PARTS; u++) {
        if (u < units) {
            const u16* p = (features ? g.features : g.work) + f[10] + u * f[11] + r * f[12] * D + at;
            load_row(x[u].a, p, r < rows);
            load_row(x[u].b, p + 8 * f[12] * D, r + 8 < rows);
            here[u] = !features || r >= rows || g.present[r * M + f[18] + u] > 0.5f;
            here8[u] = !features || r + 8 >= rows || g.present[(r + 8) * M + f[18] + u] > 0.5f;
        }
    }
    if (features) {
        #pragma unroll
        for (int u = 0; u < PARTS; u++) {
            if (u < units) {
                const float* token = g.params + f[15] + (f[18] + u) * D + at;
                if (!here[u])
                    #pragma unroll
                    for (int i = 0; i < 8; i++) x[u].a[i] = pack(token[place(i)], token[place(i) + 1]);
                if (!here8[u])
                    #pragma unroll
                    for (int i = 0; i < 8; i++) x[u].b[i] = pack(token[place(i)], token[place(i) + 1]);
                if (f[13] & 2)
                    #pragma unroll
                    for (int i = 0; i < 8; i++) x[u].a[i] &= 0x7fff7fffu, x[u].b[i] &= 0x7fff7fffu;
            }
        }
    }
    if (units > 1) {
        float c[2][4] = {};
        for (int u = 0; u < (M > 2 ? M : 2); u++)
            if (u < units) product(c, x[u], w[u]);
        put(s.part[warp][0], c, lane);
    } else {
        #pragma unroll
        for (int j = 0; j < MOST; j++) {
            if (j < outs) {
                float c[2][4] = {};
                product(c, x[0], w[j]);
                put(s.part[warp][j], c, lane);
            }
        }
        if (features && f[16] >= 0) {
            #pragma unroll
            for (int side = 0; side < 2; side++) {
                u32* a = side ? x[0].b : x[0].a;
                uint4* p = (uint4*)(g.work + f[16] + (r + 8 * side) * D + at);
                if (r + 8 * side < rows) p[0] = make_uint4(a[0], a[1], a[2], a[3]), p[4] = make_uint4(a[4], a[5], a[6], a[7]);
            }
        }
    }
    __syncthreads();
    if (row < rows) {
        #pragma unroll
        for (int j = 0; j < MOST; j++) {
            if (j < outs) {
                float y = gather(s, j, thread >> 4, column);
#ifdef W8
                y *= scale[j];
#endif
                store_half(g.work + f[7] + j * BN + row * stride + column, y + bias[j] + residual[j]);
            }
        }
    }
}

__device__ __forceinline__ void layer(const Arguments& g, Shared& s, const int* f, Weights* w) {
    int thread = threadIdx.x, warp = thread >> 5, lane = thread & 31, outs = f[3], length = f[20], step = f[21];
    int tiles = (length + 15) / 16, tile = f[24] % tiles, base = f[24] / tiles * f[22];
    int r = tile * 16 + (lane >> 2), c = lane & 3, at = warp * 64 + c * 8;
    const u16 *q = g.work + f[10] + at, *k = g.work + f[11] + at, *v = g.work + f[12] + at;
    Rows query, rest, keys[KT], values[KT];
    load_row(query.a, q + (base + r * step) * f[13], r < length);
    load_row(query.b, q + (base + (r + 8) * step) * f[13], r + 8 < length);
    #pragma unroll
    for (int t = 0; t < KT; t++) {
        int j = t * 16 + (lane >> 2);
        load_row(keys[t].a, k + (base + j * step) * f[14], j < length);
        load_row(keys[t].b, k + (base + (j + 8) * step) * f[14], j + 8 < length);
    }
    #pragma unroll
    for (int t = 0; t < KT; t++) {
        int j = t * 16 + (lane >> 2);
        load_row(values[t].a, v + (base + j * step) * f[13], j < length);
        load_row(values[t].b, v + (base + (j + 8) * step) * f[13], j + 8 < length);
    }
    if (KT == 1) {  // the queries are all the keys
        rest = keys[0];
    } else {
        load_row(rest.a, k + (base + r * step) * f[14], r < length);
        load_row(rest.b, k + (base + (r + 8) * step) * f[14], r + 8 < length);
    }
    int row = thread >> 4, column = thread & 15, mine = tile * 16 + row;
    float bias[MOST], sums[MOST], gain[MOST], shift[MOST];
#ifdef W8
    float scale[MOST];
#endif
    #pragma unroll
    for (int j = 0; j < MOST; j++) {
        int n = (j < outs ? j : 0) * BN + column;
        bias[j] = g.params[f[5] + n], sums[j] = g.params[f[19] + n];
        gain[j] = g.params[f[15] + f[17] + n], shift[j] = g.params[f[15] + D + f[17] + n];
#ifdef W8
        scale[j] = g.params[f[6] + n];
#endif
    }
    float before[16];
    #pragma unroll
    for (int i = 0; i < 4; i++) *(float4*)&before[4 * i] = *(const float4*)(g.params + f[18] + at + 4 * i + (i < 2 ? 0 : 24));

    #pragma unroll
    for (int t = 0; t < KT; t++) {  // scores: the keys are what the weights are elsewhere
        float acc[2][4] = {};
        #pragma unroll
        for (int n = 0; n < 2; n++) {
            const u32* b = n ? keys[t].b : keys[t].a;
            #pragma unroll
            for (int i = 0; i < 4; i++)
                mma(acc[n], query.a[2 * i], query.b[2 * i], query.a[2 * i + 1], query.b[2 * i + 1], b[2 * i], b[2 * i + 1]);
        }
        put(s.part[warp][t], acc, lane);
    }
    #pragma unroll
    for (int t = 0; t < KT; t++) {
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            *(u32*)&s.values[warp][t * 16 + (lane >> 2)][c * 8 + place(i)] = values[t].a[i];
            *(u32*)&s.values[warp][t * 16 + (lane >> 2) + 8][c * 8 + place(i)] = values[t].b[i];
        }
    }
    __syncthreads();
    float score[KT], top = -__int_as_float(0x7f800000), total = 0;
    #pragma unroll
    for (int t = 0; t < KT; t++) {
        score[t] = t * 16 + column < length ? gather(s, t, row, column) : -__int_as_float(0x7f800000);
        top = fmaxf(top, score[t]);
    }
    for (int i = 8; i; i >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
    #pragma unroll
    for (int t = 0; t < KT; t++) {
        float p = __expf(score[t] - top);
        total += p;
        store_half(&s.probability[row][t * 16 + column], p);
    }
    for (int i = 8; i; i >>= 1) total += __shfl_xor_sync(~0u, total, i);
    if (column == 0) s.inverse[row] = 1 / total;
    __syncthreads();
    float mid[8][4] = {};
    #pragma unroll
    for (int t = 0; t < KT; t++) {
        const u16* p = &s.probability[lane >> 2][t * 16 + 2 * c];
        constexpr int next = 8 * (16 * KT + 8);
        u32 a0 = *(u32*)p, a1 = *(u32*)(p + next), a2 = *(u32*)(p + 8), a3 = *(u32*)(p + next + 8);
        #pragma unroll
        for (int u = 0; u < 8; u++) {
            int from = (lane >> 3) * 8 + place(u) + ((lane >> 2) & 1), j = t * 16 + 2 * c;
            u32 b0 = s.values[warp][j][from] | (u32)s.values[warp][j + 1][from] << 16;
            u32 b1 = s.values[warp][j + 8][from] | (u32)s.values[warp][j + 9][from] << 16;
            mma(mid[u], a0, a1, a2, a3, b0, b1);
        }
    }
    float inverse = s.inverse[lane >> 2], inverse8 = s.inverse[(lane >> 2) + 8], sum = 0, squares = 0, sum8 = 0, squares8 = 0;
    Rows x;
    #pragma unroll
    for (int u = 0; u < 8; u++) {
        float* m = mid[u];
        m[0] = m[0] * inverse + before[2 * u] + low(rest.a[u]), m[1] = m[1] * inverse + before[2 * u + 1] + high(rest.a[u]);
        m[2] = m[2] * inverse8 + before[2 * u] + low(rest.b[u]), m[3] = m[3] * inverse8 + before[2 * u + 1] + high(rest.b[u]);
        sum += m[0] + m[1], squares += m[0] * m[0] + m[1] * m[1];
        sum8 += m[2] + m[3], squares8 += m[2] * m[2] + m[3] * m[3];
        x.a[u] = pack(m[0], m[1]), x.b[u] = pack(m[2], m[3]);
    }
    sum = quad_sum(sum), squares = quad_sum(squares), sum8 = quad_sum(sum8), squares8 = quad_sum(squares8);
    if (c == 0) {
        *(float2*)s.total[warp][lane >> 2] = make_float2(sum, squares);
        *(float2*)s.total[warp][(lane >> 2) + 8] = make_float2(sum8, squares8);
    }
    #pragma unroll
    for (int j = 0; j < MOST; j++) {
        if (j < outs) {
            float acc[2][4] = {};
            product(acc, x, w[j]);
            put(s.part[warp][j], acc, lane);
            int column_of = f[17] + j * BN;  // whoever has the columns that the residual behind the feed-forward layers needs
            if (column_of >> 6 == warp && (column_of >> 4 & 1) == c >> 1) {
                #pragma unroll
                for (int u = 0; u < 8; u++) {
                    if ((column_of >> 5 & 1) == u >> 2) {
                        int to = (c & 1) * 8 + 2 * (u & 3);
                        *(float2*)&s.columns[j][lane >> 2][to] = make_float2(mid[u][0], mid[u][1]);
                        *(float2*)&s.columns[j][(lane >> 2) + 8][to] = make_float2(mid[u][2], mid[u][3]);
                    }
                }
            }
        }
    }
    __syncthreads();
    sum = squares = 0;
    for (int i = 0; i < WARPS; i++) {
        float2 both = *(float2*)s.total[i][row];
        sum += both.x, squares += both.y;
    }
    float mean = sum / D, scaled = rsqrtf(fmaxf(squares / D - mean * mean, 0) + EPS);
    if (mine < length) {
        #pragma unroll
        for (int j = 0; j < MOST; j++) {
            if (j < outs) {
                int n = (base + mine * step) * D + j * BN + column;
                float y = gather(s, j, row, column);
#ifdef W8
                y *= scale[j];
#endif
                store_half(g.work + f[7] + n, fmaxf((y - mean * sums[j]) * scaled + bias[j], 0));
                store_half(g.work + f[16] + f[17] + n, (s.columns[j][row][column] - mean) * scaled * gain[j] + shift[j]);
            }
        }
    }
}

struct Halves { float v[16]; };  // a lane's 16 of the 512 columns

struct Raw { Quad x, y; };

__device__ __forceinline__ Raw ask(const u16* p, int lane) { return {load16(p + lane * 8), load16(p + lane * 8 + 256)}; }
__device__ __forceinline__ Halves columns_of(const Raw& raw) {
    Halves h;
    const Quad &x = raw.x, &y = raw.y;
    #pragma unroll
    for (int i = 0; i < 4; i++) {
        h.v[2 * i] = low(x.v[i]), h.v[2 * i + 1] = high(x.v[i]);
        h.v[8 + 2 * i] = low(y.v[i]), h.v[8 + 2 * i + 1] = high(y.v[i]);
    }
    return h;
}
__device__ __forceinline__ Halves constants_of(const float* p, int lane) {
    Halves h;
    #pragma unroll
    for (int i = 0; i < 4; i++) *(float4*)&h.v[4 * i] = *(const float4*)(p + lane * 8 + 4 * i + (i < 2 ? 0 : 248));
    return h;
}

// the weights exp(score - top) / total of n scores, times each one's scale; and the sum of those times their means
__device__ __forceinline__ float softmax(const float* score, const float* scale, const float* mean, int n, float* out) {
    constexpr int EACH = (16 * KT + 31) / 32;
    int lane = threadIdx.x & 31;
    float p[EACH], top = -__int_as_float(0x7f800000), total = 0, centre = 0;
    for (int h = 0; h < EACH; h++) {
        p[h] = lane + 32 * h < n ? score[lane + 32 * h] : -__int_as_float(0x7f800000);
        top = fmaxf(top, p[h]);
    }
    for (int i = 16; i; i >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
    for (int h = 0; h < EACH; h++) p[h] = __expf(p[h] - top), total += p[h];
    total = warp_sum(total);
    for (int h = 0; h < EACH; h++) {
        int j = lane + 32 * h;
        float y = j < n ? p[h] / total * scale[j] : 0;
        if (j < 16 * KT) out[j] = y;
        centre += j < n ? y * mean[j] : 0;
    }
    return warp_sum(centre);
}

__device__ __forceinline__ void cross(const Arguments& g, Shared& s, const int* f, Weights* w, int n_rows) {
    int thread = threadIdx.x, warp = thread >> 5, lane = thread & 31, r = f[24], rows = f[9], steps = f[12], results = f[13];
    int begin = r / results * steps, outs = f[3], mine = warp * 64 + lane * 2;
    const u16* enc = g.work + f[14];
    // one trip: this warp's keys, and its columns of all keys
    Raw raw_e = ask(enc + (f[11] * n_rows + begin + steps - results + r % results) * D, lane), raw_q = ask(g.work + f[10] + r * D, lane);
    constexpr int HELD = 2;  // of a warp's keys, so many are asked for at once
    Raw raw[M][HELD];
    #pragma unroll
    for (int i = 0; i < M; i++)
        #pragma unroll
        for (int n = 0; n < HELD; n++) {
            int j = n * WARPS + warp < steps ? n * WARPS + warp : 0;
            raw[i][n] = ask(enc + ((f[18 + i] & 255) * n_rows + begin + j) * D, lane);
        }
    Halves qsum = constants_of(g.params + f[15], lane), q = constants_of(g.params + f[16], lane);
    {
        Halves e = columns_of(raw_e), pre = columns_of(raw_q);
        float sums[2] = {0, 0};
        #pragma unroll
        for (int i = 0; i < 16; i++) sums[0] += e.v[i], sums[1] += e.v[i] * e.v[i];
        warp_sums(sums);
        float mean = sums[0] / D, scaled = rsqrtf(fmaxf(sums[1] / D - mean * mean, 0) + EPS);
        #pragma unroll
        for (int i = 0; i < 16; i++) q.v[i] += (pre.v[i] - mean * qsum.v[i]) * scaled;
    }
    #pragma unroll
    for (int i = 0; i < M; i++) {
        int key = f[18 + i] & 255;
        Halves gain = constants_of(g.params + f[17] + key * 2 * D, lane);
        float sums[1 + 3 * HELD] = {};
        #pragma unroll
        for (int n = 0; n < 16; n++) gain.v[n] *= q.v[n], sums[0] += gain.v[n];
        for (int first = 0; first < 2 * KT; first += HELD) {
            #pragma unroll
            for (int n = 0; n < HELD; n++) {
                int j = (first + n) * WARPS + warp;
                Raw row = first ? ask(enc + (key * n_rows + begin + (j < steps ? j : 0)) * D, lane) : raw[i][n];
                Halves x = columns_of(row);
                float *own = sums + 1 + 3 * n;
                own[0] = own[1] = own[2] = 0;
                for (int m = 0; m < 16; m++) own[0] += x.v[m], own[1] += x.v[m] * x.v[m], own[2] += x.v[m] * gain.v[m];
                if (KT == 1) {
                    *(uint4*)&s.keys[i * 16 + j][lane * 8] = make_uint4(row.x.v[0], row.x.v[1], row.x.v[2], row.x.v[3]);
                    *(uint4*)&s.keys[i * 16 + j][256 + lane * 8] = make_uint4(row.y.v[0], row.y.v[1], row.y.v[2], row.y.v[3]);
                }
            }
            if (first) {
                float again[3 * HELD];
                for (int n = 0; n < 3 * HELD; n++) again[n] = sums[1 + n];
                warp_sums(again);
                for (int n = 0; n < 3 * HELD; n++) sums[1 + n] = again[n];
            } else {
                warp_sums(sums);
            }
            #pragma unroll
            for (int n = 0; n < HELD; n++) {
                int j = (first + n) * WARPS + warp;
                float average = sums[1 + 3 * n] / D, inverse = rsqrtf(fmaxf(sums[2 + 3 * n] / D - average * average, 0) + EPS);
                if (lane == 0) {
                    s.score[i][j] = j < steps ? (sums[3 + 3 * n] - average * sums[0]) * inverse : -__int_as_float(0x7f800000);
                    s.mean[i][j] = average, s.scale[i][j] = inverse;
                }
            }
        }
    }
    float2 gains[M], shifts[M];
    #pragma unroll
    for (int i = 0; i < M; i++) {
        const float* norm = g.params + f[17] + (f[18 + i] & 255) * 2 * D + mine;
        gains[i] = *(const float2*)norm, shifts[i] = *(const float2*)(norm + D);
    }
    __syncthreads();
    float centres[M];
    if (KT == 1) {  // two sources at a time, 16 lanes each
        #pragma unroll
        for (int two = 0; two < M; two += 2) {
            int i = two + (lane >> 4), j = lane & 15;
            bool there = i < M;
            float score = there ? s.score[i][j] : 0, top = score;
            for (int k = 8; k; k >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, k));
            float p = __expf(score - top), weighted = p * (there ? s.scale[i][j] : 0);
            float sums[2] = {p, there ? weighted * s.mean[i][j] : 0};
            for (int k = 8; k; k >>= 1)
                #pragma unroll
                for (int n = 0; n < 2; n++) sums[n] += __shfl_xor_sync(~0u, sums[n], k);
            if (there) s.weights[warp][i * 16 + j] = weighted / sums[0];
            float centre = sums[1] / sums[0];
            centres[two] = __shfl_sync(~0u, centre, 0);
            if (two + 1 < M) centres[two + 1] = __shfl_sync(~0u, centre, 16);
        }
    } else {
        #pragma unroll
        for (int i = 0; i < M; i++) centres[i] = softmax(s.score[i], s.scale[i], s.mean[i], steps, s.weights[warp] + i * 16 * KT);
    }
    __syncwarp();
    #pragma unroll
    for (int i = 0; i < M; i++) {
        const u16* p = enc + ((f[18 + i] & 255) * n_rows + begin) * D + mine;
        float a = 0, b = 0;
        #pragma unroll
        for (int t = 0; t < KT; t++) {
            #pragma unroll
            for (int j = 0; j < 16; j++) {
                u32 x = KT == 1 ? *(u32*)&s.keys[i * 16 + j][mine] : t * 16 + j < steps ? load4(p + (t * 16 + j) * D) : 0;
                float weight_of = s.weights[warp][(i * KT + t) * 16 + j];
                a += weight_of * low(x), b += weight_of * high(x);
            }
        }
        *(u32*)&s.attended[i][mine] = pack((a - centres[i]) * gains[i].x + shifts[i].x, (b - centres[i]) * gains[i].y + shifts[i].y);
    }
    __syncwarp();
    Rows x;
    #pragma unroll
    for (int i = 0; i < 8; i++) {
        x.a[i] = (lane >> 2) < M ? *(u32*)&s.attended[(lane >> 2) < M ? lane >> 2 : 0][warp * 64 + (lane & 3) * 8 + place(i)] : 0;
        x.b[i] = 0;
    }
    #pragma unroll
    for (int j = 0; j < MOST; j++) {
        if (j < outs) {
            float c[2][4] = {};
            product(c, x, w[j]);
            put(s.part[warp][j], c, lane);
        }
    }
    __syncthreads();
    for (int n = thread; n < outs * M * BN; n += 256) {
        int j = n / (M * BN), i = n / BN % M, column = n % BN, block = f[18 + i] >> 8;
        float y = gather(s, j, i, column);
#ifdef W8
        y *= g.params[f[6] + j * BN + column];
#endif
        store_half(g.work + f[7] + j * BN + (block * rows + r) * f[8] + column, y + g.params[f[5] + j * BN + column]);
    }
}

__device__ __forceinline__ void last(const Arguments& g, Shared& s, const int* f) {
    int thread = threadIdx.x, warp = thread >> 5, lane = thread & 31, r = f[24], rows = f[9], blocks = f[23], hidden = f[17];
    int logits = f[18], span = f[22];
    // one trip: all that this warp reads, and its constants
    Raw raw_e = ask(g.work + f[11] + ((blocks - 1) * rows + r) * D, lane), raw_q = ask(g.work + f[10] + r * D, lane), raw;
    if (warp < blocks) raw = ask(g.work + f[11] + (warp * rows + r) * D, lane);
    Halves qsum = constants_of(g.params + f[13], lane), q = constants_of(g.params + f[14], lane);
    Halves gain = constants_of(g.params + f[15], lane);
    float readout[16], readout_bias = warp < logits ? g.params[f[20] + warp] : 0, here[M];
    #pragma unroll
    for (int n = 0; n < 16; n++) readout[n] = warp < logits && lane + 32 * n < hidden ? g.params[f[19] + warp * hidden + lane + 32 * n] : 0;
    int owner = lane < blocks ? (int)g.params[f[21] + lane] : -1;
    for (int m = 0; m < M; m++) here[m] = g.present[(r * span + span - 1) * M + m] > 0.5f ? 1 : 0;
    constexpr int HELD = 8;  // blocks whose values are asked for now, in the same trip
    float value[2][HELD], bias[2], vsum[2];
    #pragma unroll
    for (int n = 0; n < 2; n++) {
        int h = thread + n * 256;
        bias[n] = h < hidden ? g.params[f[5] + h] : 0, vsum[n] = h < hidden ? g.params[f[16] + h] : 0;
        for (int l = 0; l < HELD; l++)
            value[n][l] = h < hidden && l < blocks ? load_half(g.work + f[12] + (l * rows + r) * hidden + h) : 0;
    }
    Halves e = columns_of(raw_e), pre = columns_of(raw_q);
    float own[2] = {0, 0};
    #pragma unroll
    for (int i = 0; i < 16; i++) own[0] += e.v[i], own[1] += e.v[i] * e.v[i];
    warp_sums(own);
    float mean = own[0] / D, scaled = rsqrtf(fmaxf(own[1] / D - mean * mean, 0) + EPS);
    #pragma unroll
    for (int i = 0; i < 16; i++) q.v[i] = ((pre.v[i] - mean * qsum.v[i]) * scaled + q.v[i]) * gain.v[i];
    for (int l = warp; l < blocks; l += WARPS) {
        Halves x = columns_of(l == warp ? raw : ask(g.work + f[11] + (l * rows + r) * D, lane));
        float sums[4] = {0, 0, 0, 0};
        #pragma unroll
        for (int i = 0; i < 16; i++) sums[0] += x.v[i], sums[1] += x.v[i] * x.v[i], sums[2] += x.v[i] * q.v[i], sums[3] += q.v[i];
        warp_sums(sums);
        float average = sums[0] / D, inverse = rsqrtf(fmaxf(sums[1] / D - average * average, 0) + EPS);
        if (lane == 0) s.score[0][l] = (sums[2] - average * sums[3]) * inverse, s.mean[0][l] = average, s.scale[0][l] = inverse;
    }
    __syncthreads();
    float score = lane < blocks ? s.score[0][lane] : -__int_as_float(0x7f800000), top = score;
    for (int i = 16; i; i >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
    float p = __expf(score - top), scale_of = lane < blocks ? p * s.scale[0][lane] : 0;
    float totals[2] = {p, lane < blocks ? scale_of * s.mean[0][lane] : 0};
    warp_sums(totals);
    float centre = totals[1] / totals[0];
    p /= totals[0], scale_of /= totals[0];
    #pragma unroll
    for (int n = 0; n < 2; n++) {
        int h = thread + n * 256;
        float y = bias[n] - centre * vsum[n];
        for (int l = 0; l < HELD; l++) y += __shfl_sync(~0u, scale_of, l) * value[n][l];
        for (int l = HELD; l < blocks; l++)
            y += __shfl_sync(~0u, scale_of, l) * (h < hidden ? load_half(g.work + f[12] + (l * rows + r) * hidden + h) : 0);
        if (h < hidden) s.hidden[h] = fmaxf(y, 0);
    }
    __syncthreads();
    if (warp < logits) {  // as many as warps: see native.obstacle
        float y = 0;
        #pragma unroll
        for (int n = 0; n < 16; n++)
            if (lane + 32 * n < hidden) y += readout[n] * s.hidden[lane + 32 * n];
        y = warp_sum(y);
        if (lane == 0) g.logits[r * logits + warp] = y + readout_bias;
    }
    if (warp == WARPS - 1) {  // each modality's part of the weights; the joint's is split over those present
        float share[M], present = 0, total = 0, joint = warp_sum(owner == M ? p : 0);
        for (int m = 0; m < M; m++) {
            present += here[m];
            share[m] = warp_sum(owner == m ? p : 0);
        }
        for (int m = 0; m < M; m++) share[m] = here[m] * (share[m] + joint / fmaxf(present, 1)), total += share[m];
        for (int m = 0; m < M; m++)
            if (lane == m) g.attention[r * M + m] = share[m] / fmaxf(total, 1e-12f);
    }
}

#ifdef STRESS  // a test's build: every order of arrival should give the same
__device__ __forceinline__ void dawdle() { __nanosleep(((u32)clock() * 2654435761u ^ blockIdx.x * 40503u) >> 20); }
#else
__device__ __forceinline__ void dawdle() {}
#endif

__device__ __forceinline__ void arrive(int* counter) {  // by one thread, after a __syncthreads
    dawdle();
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory");
}

__device__ __forceinline__ void wait(const int* counter, int target) {
    for (int left = 1 << 23; left; left--) {
        int value;
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
        if (value - target >= 0) return dawdle();
    }
    __trap();  // not every block was resident: better than a launch that never ends
}

extern "C" __global__ void __launch_bounds__(256, 1) fusion_kernel(
    const u16* features, u16* work, const weight* weights, const float* params, const float* present, float* logits,
    float* attention, const int* plan, const int* index, int* barrier, int n_rows, int launch, int pitch) {
    extern __shared__ __align__(16) char memory[];
    Shared& s = *(Shared*)memory;
    const Arguments g = {features, work, weights, params, present, logits, attention};
    int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
    int start = (launch * gridDim.x + blockIdx.x) * pitch;
    if (thread < ROW) s.row[0][thread] = plan[start * ROW + thread];
    __syncthreads();
    int count = s.row[0][28], base = s.row[0][29], keeper = s.row[0][30], epoch = 1;
    if (base >= 0 && thread == 0) {
        asm volatile("ld.global.cg.s32 %0, [%1];" : "=r"(epoch) : "l"(barrier + base));
        epoch++;
    }
    for (int i = 0; i < count; i++) {
        const int* f = s.row[i & 1];
        int op = f[0], tiles = op == LAST ? 0 : f[2] * f[3], next = 0;
        Weights w[MOST];
        #pragma unroll
        for (int j = 0; j < MOST; j++)
            if (j < tiles) load_weights(w[j], weights + f[1] + j * BN * D, warp, lane);
        if (thread < ROW && i + 1 < count) next = plan[(start + i + 1) * ROW + thread];
        if (i == 0 && base >= 0 && thread == 0) arrive(barrier + base + 32);  // it has read the epoch
        if (f[25] >= 0) {
            if (thread == 0) wait(barrier + f[25], f[26] * epoch);
            __syncthreads();
        }
        if (op == INPUT || op == PLAIN) project(g, s, f, w, n_rows, op == INPUT);
        else if (op == LAYER) layer(g, s, f, w);
        else if (op == CROSS) cross(g, s, f, w, n_rows);
        else if (op == LAST) last(g, s, f);
        int after = f[27];
        if (thread < ROW) s.row[(i + 1) & 1][thread] = next;
        __syncthreads();
        if (after >= 0 && thread == 0) arrive(barrier + after);
    }
    if (base >= 0 && !count && thread == 0) arrive(barrier + base + 32);
    if (base >= 0 && keeper && thread == 0) {  // the launch's keeper: the epoch moves on when every block has read it
        wait(barrier + base + 32, gridDim.x * epoch);
        barrier[base] = epoch;
    }
}
