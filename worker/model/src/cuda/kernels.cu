// The few operations that the tensor library lacks or is slow at. Compiled by NVRTC when the first of them runs; no headers,
// so bf16 is handled by its bits: it is the upper half of an f32, rounded to nearest even.

typedef unsigned short bf16;
#define INFINITY __int_as_float(0x7f800000)

__device__ __forceinline__ float load(const float *p, size_t i) { return p[i]; }
__device__ __forceinline__ float load(const bf16 *p, size_t i) { return __uint_as_float((unsigned)p[i] << 16); }

__device__ __forceinline__ void store(float *p, size_t i, float v) { p[i] = v; }
__device__ __forceinline__ void store(bf16 *p, size_t i, float v) {
    unsigned bits = __float_as_uint(v);
    unsigned rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    p[i] = v != v ? 0x7fc0 : (bf16)rounded;
}

// A code of MXFP4 (OCP MX 1.0, E2M1): sign, two bits of exponent, one of mantissa.
__device__ __forceinline__ float e2m1(unsigned code) {
    unsigned exponent = (code >> 1) & 3, mantissa = code & 1;
    float value = exponent == 0 ? 0.5f * mantissa : (1.0f + 0.5f * mantissa) * (float)(1u << (exponent - 1));
    return code & 8 ? -value : value;
}

// Eight neighbouring values in as few writes as there can be.
__device__ __forceinline__ void store8(float *p, size_t i, const float *v) {
    float4 *to = (float4 *)(p + i);
    to[0] = make_float4(v[0], v[1], v[2], v[3]);
    to[1] = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ __forceinline__ void store8(bf16 *p, size_t i, const float *v) {
    // Exact: what is stored has two bits of mantissa.
    unsigned w[4];
    for (int j = 0; j < 4; j++) w[j] = (__float_as_uint(v[2 * j]) >> 16) | (__float_as_uint(v[2 * j + 1]) & 0xffff0000u);
    *(uint4 *)(p + i) = make_uint4(w[0], w[1], w[2], w[3]);
}

// Four bytes a thread: eight values, the low half of a byte first. A scale 2^(s - 127) serves 32 values.
template <typename T>
__device__ void expand(const unsigned *codes, const unsigned char *scales, T *out, size_t words) {
    size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= words) return;
    unsigned word = codes[at];
    int exponent = (int)scales[at / 4] - 127;
    float v[8];
    for (int i = 0; i < 8; i++) v[i] = ldexpf(e2m1((word >> (4 * i)) & 15), exponent);
    store8(out, at * 8, v);
}

// The sixteen values of NF4.
__device__ const float NF4[16] = {-1.0f, -0.6961928f, -0.52507305f, -0.3949175f, -0.28444138f, -0.18477343f, -0.091050036f, 0.0f,
                                  0.0795803f, 0.1609302f, 0.2461123f, 0.33791524f, 0.44070983f, 0.562617f, 0.72295684f, 1.0f};

// `count` values of an NF4 matrix from value `first` on, eight a thread; the high half of a byte first. 64 values share a
// scale, which is a code itself: `numbers` are its 256 steps, what is added to all, and a factor for each 256 scales.
// No operation is fused, so that the values are the CPU's.
template <typename T>
__device__ void nf4(const unsigned char *codes, const unsigned char *scales, const float *numbers, T *out, size_t first, size_t count) {
    __shared__ float values[16];
    if (threadIdx.x < 16) values[threadIdx.x] = NF4[threadIdx.x];
    __syncthreads();
    size_t at = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 8, known = ~(size_t)0;
    float scale = 0.0f;
    for (int j = 0; j < 8 && at + j < count; j++) {
        size_t i = first + at + j, block = i >> 6;
        if (block != known) {
            scale = __fadd_rn(__fmul_rn(numbers[scales[block]], numbers[257 + (block >> 8)]), numbers[256]);
            known = block;
        }
        unsigned byte = codes[i >> 1];
        store(out, at + j, __fmul_rn(values[i & 1 ? byte & 15 : byte >> 4], scale));
    }
}

// A bias added to every row; one block a row.
template <typename T>
__device__ void add_bias(const T *x, const T *bias, T *out, unsigned width) {
    size_t row = (size_t)blockIdx.x * width;
    for (unsigned c = threadIdx.x; c < width; c += blockDim.x) store(out, row + c, load(x, row + c) + load(bias, c));
}

// Row i of the result is row ids[i]; one block a row, rows of `words` times 32 bits.
extern "C" __global__ void gather(const unsigned *x, const unsigned *ids, unsigned *out, unsigned words) {
    const unsigned *from = x + (size_t)ids[blockIdx.x] * words;
    unsigned *to = out + (size_t)blockIdx.x * words;
    for (unsigned c = threadIdx.x; c < words; c += blockDim.x) to[c] = from[c];
}

// gpt-oss's unit on rows of gate and up in turns: (up + 1) * gate * sigmoid(alpha gate), both clamped.
template <typename T>
__device__ void unit(const T *pairs, T *out, size_t count, float alpha, float limit) {
    size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    float gate = load(pairs, 2 * at), up = load(pairs, 2 * at + 1);
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : (up < -limit ? -limit : up);
    store(out, at, (up + 1.0f) * gate / (1.0f + expf(-alpha * gate)));
}

// The unit's gradient: that of the output into those of gate and up, in turns. A clamped input has none.
template <typename T>
__device__ void unit_back(const T *pairs, const T *grads, T *out, size_t count, float alpha, float limit) {
    size_t at = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    float gate = load(pairs, 2 * at), up = load(pairs, 2 * at + 1), grad = load(grads, at);
    bool gate_moves = !(gate > limit), up_moves = !(up > limit || up < -limit);
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : (up < -limit ? -limit : up);
    float s = 1.0f / (1.0f + expf(-alpha * gate));
    float by_gate = (up + 1.0f) * s * (1.0f + alpha * gate * (1.0f - s));
    store(out, 2 * at, gate_moves ? grad * by_gate : 0.0f);
    store(out, 2 * at + 1, up_moves ? grad * gate * s : 0.0f);
}

// One block a token: the sum of its `k` rows, which lie at `places`, each times its gate.
template <typename T>
__device__ void sum_places(const T *rows, const unsigned *places, const T *gates, T *out, unsigned width, unsigned k) {
    size_t token = blockIdx.x;
    for (unsigned c = threadIdx.x; c < width; c += blockDim.x) {
        float sum = 0.0f;
        for (unsigned i = 0; i < k; i++) {
            size_t slot = token * k + i;
            sum += load(gates, slot) * load(rows, (size_t)places[slot] * width + c);
        }
        store(out, token * width + c, sum);
    }
}

// One warp a row: its Euclidean norm.
template <typename T>
__device__ void norms(const T *x, float *out, size_t rows, unsigned width) {
    size_t row = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    unsigned lane = threadIdx.x % 32;
    if (row >= rows) return;
    float sum = 0.0f;
    for (unsigned c = lane; c < width; c += 32) {
        float v = load(x, row * width + c);
        sum += v * v;
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
    if (lane == 0) out[row] = sqrtf(sum);
}

__device__ __forceinline__ float warp_max(float v) {
    for (int step = 16; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}
__device__ __forceinline__ float warp_sum(float v) {
    for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

// Causal attention of ragged sequences, online over 32 keys at a time (Milakov & Gimelshein 2018; Dao et al. 2022).
//
// A block of 8 warps serves 8 * R pairs of query and head: the `8 * R / group` queries from tile.position on, and the query
// heads that share KV head blockIdx.y. tile: where the sequence's rows begin in `rows`, the tile's first position, and the
// sequence's length. A head has 32 * L values. `window` 0 is none; a sink is a logit that joins the sum and is dropped.
template <typename T, int L, int R>
__device__ void attend(const T *q, const T *k, const T *v, const unsigned *rows, const unsigned *tiles, const float *sinks,
                       T *out, unsigned heads, unsigned kv_heads, unsigned window, unsigned has_sinks, float scale) {
    constexpr int D = 32 * L;
    extern __shared__ float4 shared[];
    float *qs = (float *)shared, *buffer = qs + 8 * R * D;
    const unsigned *tile = tiles + 3 * blockIdx.x, *row_of = rows + tile[0];
    int first = tile[1], length = tile[2];
    int group = heads / kv_heads, queries = 8 * R / group, kv = blockIdx.y;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = threadIdx.x; i < 8 * R * D; i += blockDim.x) {
        int r = i / D, position = first + r / group, head = kv * group + r % group;
        bool real = r / group < queries && position < length;
        qs[i] = real ? scale * load(q, ((size_t)row_of[position] * heads + head) * D + i % D) : 0.0f;
    }
    float top[R], sum[R], mixed[R][L];
    for (int r = 0; r < R; r++) {
        int head = kv * group + (warp * R + r) % group;
        top[r] = has_sinks ? sinks[head] : -INFINITY;
        sum[r] = has_sinks ? 1.0f : 0.0f;
        for (int x = 0; x < L; x++) mixed[r][x] = 0.0f;
    }
    int end = min(length, first + queries), begin = window ? max(0, first - (int)window + 1) : 0;
    for (int base = begin; base < end; base += 32) {
        __syncthreads();
        for (int i = threadIdx.x; i < 32 * D; i += blockDim.x) {
            int key = base + i / D;
            buffer[i / D * (D + 1) + i % D] =
                key < end ? load(k, ((size_t)row_of[key] * kv_heads + kv) * D + i % D) : 0.0f;
        }
        __syncthreads();
        float p[R];
        for (int r = 0; r < R; r++) p[r] = 0.0f;
        for (int c = 0; c < D; c += 4) {
            const float *key = buffer + lane * (D + 1) + c;
            float k0 = key[0], k1 = key[1], k2 = key[2], k3 = key[3];
#pragma unroll
            for (int r = 0; r < R; r++) {
                float4 query = *(const float4 *)(qs + (warp * R + r) * D + c);
                p[r] += query.x * k0 + query.y * k1 + query.z * k2 + query.w * k3;
            }
        }
#pragma unroll
        for (int r = 0; r < R; r++) {
            int position = first + (warp * R + r) / group, key = base + lane;
            bool seen = key <= position && key < end && (!window || position - key < (int)window);
            float score = seen ? p[r] : -INFINITY;
            float higher = fmaxf(top[r], warp_max(score));
            float keep = higher == -INFINITY ? 1.0f : expf(top[r] - higher);
            p[r] = seen ? expf(score - higher) : 0.0f;
            sum[r] = sum[r] * keep + warp_sum(p[r]);
            for (int x = 0; x < L; x++) mixed[r][x] *= keep;
            top[r] = higher;
        }
        __syncthreads();
        for (int i = threadIdx.x; i < 32 * D; i += blockDim.x) {
            int key = base + i / D;
            buffer[i / D * (D + 1) + i % D] =
                key < end ? load(v, ((size_t)row_of[key] * kv_heads + kv) * D + i % D) : 0.0f;
        }
        __syncthreads();
        for (int j = 0; j < 32; j++) {
            float value[L];
            for (int x = 0; x < L; x++) value[x] = buffer[j * (D + 1) + lane + 32 * x];
#pragma unroll
            for (int r = 0; r < R; r++) {
                float weight = __shfl_sync(0xffffffffu, p[r], j);
                for (int x = 0; x < L; x++) mixed[r][x] += weight * value[x];
            }
        }
    }
    for (int r = 0; r < R; r++) {
        int at = warp * R + r, position = first + at / group, head = kv * group + at % group;
        if (at / group >= queries || position >= length) continue;
        for (int x = 0; x < L; x++)
            store(out, ((size_t)row_of[position] * heads + head) * D + lane + 32 * x, mixed[r][x] / sum[r]);
    }
}

#define ATTEND(T, NAME, L, R)                                                                                           \
    extern "C" __global__ void attend_##L##_##NAME(const T *q, const T *k, const T *v, const unsigned *rows,            \
                                                   const unsigned *tiles, const float *sinks, T *out, unsigned heads,   \
                                                   unsigned kv_heads, unsigned window, unsigned has, float scale) {     \
        attend<T, L, R>(q, k, v, rows, tiles, sinks, out, heads, kv_heads, window, has, scale);                         \
    }

#define FOR_TYPE(T, NAME)                                                                                               \
    extern "C" __global__ void expand_##NAME(const unsigned *c, const unsigned char *s, T *o, size_t n) {               \
        expand(c, s, o, n);                                                                                             \
    }                                                                                                                   \
    extern "C" __global__ void nf4_##NAME(const unsigned char *c, const unsigned char *s, const float *m, T *o, size_t f,   \
                                          size_t n) {                                                                   \
        nf4(c, s, m, o, f, n);                                                                                          \
    }                                                                                                                   \
    extern "C" __global__ void unit_##NAME(const T *p, T *o, size_t n, float alpha, float limit) {                      \
        unit(p, o, n, alpha, limit);                                                                                    \
    }                                                                                                                   \
    extern "C" __global__ void unit_back_##NAME(const T *p, const T *g, T *o, size_t n, float alpha, float limit) {     \
        unit_back(p, g, o, n, alpha, limit);                                                                            \
    }                                                                                                                   \
    extern "C" __global__ void sum_places_##NAME(const T *r, const unsigned *p, const T *g, T *o, unsigned w,           \
                                                 unsigned k) {                                                          \
        sum_places(r, p, g, o, w, k);                                                                                   \
    }                                                                                                                   \
    extern "C" __global__ void add_bias_##NAME(const T *x, const T *b, T *o, unsigned w) { add_bias(x, b, o, w); }      \
    ATTEND(T, NAME, 1, 8)                                                                                               \
    ATTEND(T, NAME, 2, 8)                                                                                               \
    ATTEND(T, NAME, 4, 4)                                                                                                                   \
    extern "C" __global__ void norms_##NAME(const T *x, float *o, size_t n, unsigned w) { norms(x, o, n, w); }

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
