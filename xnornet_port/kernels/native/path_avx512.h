/* AVX-512 with VPOPCNTDQ and VBMI2 (Intel Ice Lake and later, AMD Zen 4 and later), in two forms, included once for each.
 *
 * A tile is 8 (or 6) pixels by 16 filters; each lane of 64 bits keeps one filter's sum. CARRY_SAVE 0 takes xor, vpopcntq
 * and add for each word. CARRY_SAVE 1 adds two words at a time by a carry-save adder that does the xor on the way,
 *     sum' = sum ^ (w1 ^ a1) ^ (w2 ^ a2), two vpternlog;  carry = majority(sum, w1 ^ a1, w2 ^ a2), one more;
 * so that two words cost 5 instructions for 6, but more moves between registers. Intel, with two ports for them, gains
 * by it (410 bit products per cycle for 341); AMD Zen 5, with four, loses (about 510 for 650).
 */
#ifndef XNOR_TRUTH_TABLES
#define XNOR_TRUTH_TABLES
enum {
    XOR3 = 0x96,                /* x ^ y ^ z */
    MAJORITY_OF_CHANGES = 0x74, /* of old sum s, middle t = s ^ p and new n = t ^ q: majority(s, p, q) */
    DIFFER_IN_MASK = 0x28,      /* (x ^ y) & z */
};
#endif

#if CARRY_SAVE
#define PATH(name) name##_avx512_carry_save
#define PATH_NAME "avx512_carry_save"
enum { PATH(tile_rows) = 6 };
#else
#define PATH(name) name##_avx512
#define PATH_NAME "avx512"
enum { PATH(tile_rows) = 8 };
#endif
enum { PATH(panel) = 16, PATH(is_encoded) = 0 };

XNOR_BEGIN_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,avx512vbmi2,avx2,fma,bmi2,popcnt")

static int PATH(is_available)(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vbmi2") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

static inline uint64_t PATH(popcount)(uint64_t word) { return (uint64_t)__builtin_popcountll(word); }

/* The word at pixel + offset, of which each lane gets a copy, xor w: loading it anew for each vector of filters takes no
 * instruction of its own, so that fewer have to be issued where another thread shares the core. */
static inline __m512i PATH(xor)(const uint8_t *pixel, int64_t offset, __m512i w) {
    __m512i differing;
    __asm__("vpxorq (%2,%3)%{1to8%}, %1, %0" : "=v"(differing) : "v"(w), "r"(pixel), "r"(offset),
            "m"(*(const uint8_t(*)[1 << 30])pixel));
    return differing;
}

static inline __m512i PATH(word)(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return _mm512_set1_epi64((long long)word);
}

static inline __m512i PATH(half_word)(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, 4);
    return _mm512_set1_epi64((long long)(uint64_t)word);
}

static inline __m512i PATH(differing)(__m512i a, __m512i w, __m512i mask) {
    return _mm512_popcnt_epi64(_mm512_ternarylogic_epi64(a, w, mask, DIFFER_IN_MASK));
}

static inline __attribute__((always_inline)) void PATH(store_dots)(const int rows, __m512i sums[8][2],
                                                                   const struct xnor_dots *dots) {
    const __m512i lower_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m128i shift = _mm_cvtsi32_si128(dots->shift);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        const __m512i start = _mm512_loadu_si512(dots->start[i] + dots->start_offset);
        const __m512i counts = _mm512_permutex2var_epi32(sums[i][0], lower_halves, sums[i][1]);
        _mm512_storeu_si512(dots->out + 16 * i, _mm512_sub_epi32(start, _mm512_sll_epi32(counts, shift)));
    }
}

/* Words from `k` on, xor, popcount and add; in the last n_halves only the lower half counts. */
static inline __attribute__((always_inline)) void PATH(add_words)(
    const int rows, int64_t k, const struct xnor_window *window, const uint8_t *const *pixels, const uint64_t *weights,
    __m512i sums[8][2]) {
    weights += 16 * k;
    for (; k < window->n_words; k++, weights += 16) {
        const __m512i w0 = _mm512_loadu_si512(weights), w1 = _mm512_loadu_si512(weights + 8);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const __m512i a0 = PATH(xor)(pixels[i], window->offsets[k], w0);
            const __m512i a1 = PATH(xor)(pixels[i], window->offsets[k], w1);
            sums[i][0] = _mm512_add_epi64(sums[i][0], _mm512_popcnt_epi64(a0));
            sums[i][1] = _mm512_add_epi64(sums[i][1], _mm512_popcnt_epi64(a1));
        }
    }
    const __m512i lower = _mm512_set1_epi64(0xffffffff);
    for (; k < window->n_words + window->n_halves; k++, weights += 16) {
        const __m512i w0 = _mm512_loadu_si512(weights), w1 = _mm512_loadu_si512(weights + 8);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const __m512i a = PATH(word)(pixels[i] + window->offsets[k]);
            sums[i][0] = _mm512_add_epi64(sums[i][0], PATH(differing)(a, w0, lower));
            sums[i][1] = _mm512_add_epi64(sums[i][1], PATH(differing)(a, w1, lower));
        }
    }
}

#if CARRY_SAVE
/* Pairs of words; returns how many words that were. */
static inline __attribute__((always_inline)) int64_t PATH(add_pairs)(
    const int rows, const struct xnor_window *window, const uint8_t *const *pixels, const uint64_t *weights,
    __m512i sums[8][2]) {
    __m512i ones[6][2];
    int64_t k = 0;
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) ones[i][0] = ones[i][1] = _mm512_setzero_si512();
    for (; k + 2 <= window->n_words; k += 2, weights += 32) {
        const __m512i w1[2] = {_mm512_loadu_si512(weights), _mm512_loadu_si512(weights + 8)};
        const __m512i w2[2] = {_mm512_loadu_si512(weights + 16), _mm512_loadu_si512(weights + 24)};
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            __m512i a1 = PATH(word)(pixels[i] + window->offsets[k]), a2 = PATH(word)(pixels[i] + window->offsets[k + 1]);
            __asm__("" : "+v"(a1), "+v"(a2));
#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                const __m512i old = ones[i][j];
                const __m512i middle = _mm512_ternarylogic_epi64(old, w1[j], a1, XOR3);
                ones[i][j] = _mm512_ternarylogic_epi64(middle, w2[j], a2, XOR3);
                const __m512i carry = _mm512_ternarylogic_epi64(old, middle, ones[i][j], MAJORITY_OF_CHANGES);
                sums[i][j] = _mm512_add_epi64(sums[i][j], _mm512_popcnt_epi64(carry));
            }
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++)
            sums[i][j] = _mm512_add_epi64(_mm512_slli_epi64(sums[i][j], 1), _mm512_popcnt_epi64(ones[i][j]));
    return k;
}
#else
static inline __attribute__((always_inline)) int64_t PATH(add_pairs)(
    const int rows, const struct xnor_window *window, const uint8_t *const *pixels, const uint64_t *weights,
    __m512i sums[8][2]) {
    (void)rows, (void)window, (void)pixels, (void)weights, (void)sums;
    return 0;
}
#endif

static inline __attribute__((always_inline)) void PATH(tile_plain)(
    const int rows, const struct xnor_window *window, const uint8_t *const *pixels, const uint64_t *weights,
    const struct xnor_dots *dots) {
    __m512i sums[8][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = _mm512_setzero_si512();
    const int64_t done = PATH(add_pairs)(rows, window, pixels, weights, sums);
    PATH(add_words)(rows, done, window, pixels, weights, sums);
    PATH(store_dots)(rows, sums, dots);
}

/* Where zeros take part: popcount((a ^ w) & mask). */
static inline __attribute__((always_inline)) void PATH(tile_masked)(
    const int rows, const struct xnor_window *window, const uint8_t *const *pixels, int64_t to_mask,
    const uint64_t *weights, const struct xnor_dots *dots) {
    __m512i sums[8][2];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = _mm512_setzero_si512();
    for (int64_t k = 0; k < window->n_words + window->n_halves; k++, weights += 16) {
        const __m512i w0 = _mm512_loadu_si512(weights), w1 = _mm512_loadu_si512(weights + 8);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const uint8_t *at = pixels[i] + window->offsets[k];
            const __m512i a = PATH(word)(at);
            const __m512i mask = k < window->n_words ? PATH(word)(at + to_mask) : PATH(half_word)(at + to_mask);
            sums[i][0] = _mm512_add_epi64(sums[i][0], PATH(differing)(a, w0, mask));
            sums[i][1] = _mm512_add_epi64(sums[i][1], PATH(differing)(a, w1, mask));
        }
    }
    PATH(store_dots)(rows, sums, dots);
}

#define TILE_CASE(rows)                                                             \
    case rows:                                                                      \
        if (to_mask)                                                                \
            PATH(tile_masked)(rows, window, pixels, to_mask, weights, dots);        \
        else                                                                        \
            PATH(tile_plain)(rows, window, pixels, weights, dots);                  \
        break;

static void PATH(tile)(int rows, const struct xnor_window *window, const uint8_t *const *pixels, int64_t to_mask,
                       const void *weights, const struct xnor_dots *dots) {
    switch (rows) {
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
        TILE_CASE(4)
        TILE_CASE(5)
        TILE_CASE(6)
#if !CARRY_SAVE
        TILE_CASE(7)
        TILE_CASE(8)
#endif
    }
}
#undef TILE_CASE

/* Signs of up to 32 channels of 16 pixels at a time: each channel's sign bits are shifted in from below. */
static int PATH(pack_pixels)(const float *x, int64_t channel_stride, int64_t channels, int64_t pixels,
                             uint32_t *signs, uint32_t *nonzero, int64_t pixel_stride) {
    __mmask16 zeros = 0;
    for (int64_t first = 0; first < channels; first += 32) {
        const int64_t last = (first + 32 < channels ? first + 32 : channels) - 1;
        for (int64_t p = 0; p < pixels; p += 16) {
            const int64_t n = pixels - p < 16 ? pixels - p : 16;
            const __mmask16 here = (__mmask16)((1u << n) - 1);
            __m512i sign_bits = _mm512_setzero_si512(), zero_bits = sign_bits;
            __mmask16 found = 0;
            for (int64_t c = last; c >= first; c--) {
                const __m512i v = _mm512_maskz_loadu_epi32(here, x + c * channel_stride + p);
                /* the same pixels of the next channels: each channel is far from the one before in memory */
                if (c + 32 < channels) _mm_prefetch((const char *)(x + (c + 32) * channel_stride + p), _MM_HINT_T0);
                const __mmask16 is_zero = _mm512_fpclass_ps_mask(_mm512_castsi512_ps(v), 0x87); /* NaN, 0, -0 */
                found = _kor_mask16(found, is_zero);
                sign_bits = _mm512_shldi_epi32(sign_bits, v, 1);
                if (nonzero)
                    zero_bits = _mm512_mask_sub_epi32(_mm512_slli_epi32(zero_bits, 1), is_zero,
                                                      _mm512_slli_epi32(zero_bits, 1), _mm512_set1_epi32(-1));
            }
            uint32_t sign_words[16], zero_words[16];
            const uint32_t all = (uint32_t)((UINT64_C(1) << (last - first + 1)) - 1);
            _mm512_storeu_si512(sign_words, _mm512_andnot_si512(zero_bits, sign_bits));
            _mm512_storeu_si512(zero_words, zero_bits);
            for (int64_t i = 0; i < n; i++) signs[(p + i) * pixel_stride + first / 32] = sign_words[i];
            for (int64_t i = 0; nonzero && i < n; i++)
                nonzero[(p + i) * pixel_stride + first / 32] = all & ~zero_words[i];
            zeros = (__mmask16)(zeros | (found & here));
        }
    }
    return zeros != 0;
}

/* The same for one pixel: channels lie side by side in memory. */
static int PATH(pack_channels)(const float *x, int64_t channels, uint32_t *signs, uint32_t *nonzero) {
    uint32_t zeros = 0;
    for (int64_t first = 0; first < channels; first += 16) {
        const int64_t n = channels - first < 16 ? channels - first : 16;
        const __mmask16 here = (__mmask16)((1u << n) - 1);
        const __m512i v = _mm512_maskz_loadu_epi32(here, x + first);
        const uint32_t is_zero = _mm512_mask_fpclass_ps_mask(here, _mm512_castsi512_ps(v), 0x87);
        const uint32_t is_negative = _mm512_movepi32_mask(v) & ~is_zero;
        const int64_t shift = first & 16;
        signs[first / 32] = shift ? signs[first / 32] | is_negative << 16 : is_negative;
        if (nonzero) {
            const uint32_t is_nonzero = here & ~is_zero;
            nonzero[first / 32] = shift ? nonzero[first / 32] | is_nonzero << 16 : is_nonzero;
        }
        zeros |= is_zero;
    }
    return zeros != 0;
}

static inline void PATH(transpose)(__m512 row[16]) {
    __m512 t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(row[2 * i], row[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(row[2 * i], row[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]);
        const __m512d c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
        row[4 * i + 0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        row[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        row[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        row[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(row[i], row[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(row[i], row[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(row[i + 8], row[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(row[i + 8], row[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        row[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        row[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        row[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        row[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* dots [pixel][16] to alpha * dot + bias at out[filter * out_stride + pixel]; the integers themselves without alpha.
 * The last 16 pixels may overlap those before, which is quicker than storing a part of a vector. */
static void PATH(store)(const int32_t *dots, int64_t pixels, const float *alpha, const float *bias, int64_t filters,
                        float *out, int64_t out_stride) {
    const __m512 scale = alpha ? _mm512_loadu_ps(alpha) : _mm512_setzero_ps();
    const __m512 shift = alpha ? _mm512_loadu_ps(bias) : _mm512_setzero_ps();
    const int64_t step = xnor_min(16, pixels);
    for (int64_t start = 0; start < pixels; start += step) {
        const int64_t p = xnor_min(start, pixels - step);
        __m512 row[16];
        for (int i = 0; i < 16; i++) {
            const __m512i dot = _mm512_loadu_si512(dots + 16 * (p + (i < step ? i : 0)));
            row[i] = alpha ? _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot), shift) : _mm512_castsi512_ps(dot);
        }
        PATH(transpose)(row);
        if (step == 16 && filters == 16)
            for (int i = 0; i < 16; i++) _mm512_storeu_ps(out + i * out_stride + p, row[i]);
        else
            for (int i = 0; i < xnor_min(16, filters); i++)
                _mm512_mask_storeu_ps(out + i * out_stride + p, (__mmask16)((1u << step) - 1), row[i]);
    }
}

enum { PATH(can_stream) = 1 };

static void PATH(stream_lines)(float *out, const float *from, int64_t lines) {
    for (int64_t i = 0; i < lines; i++) _mm512_stream_si512((void *)(out + 16 * i), _mm512_loadu_si512(from + 16 * i));
}

static void PATH(end_stream)(void) { _mm_sfence(); }

/* The signs of a panel's dots as bits: negative, and (the result) not 0. */
static uint64_t PATH(threshold)(const int32_t *dots, const int32_t *flip, const int32_t *positive_from,
                                const int32_t *negative_to, uint64_t *negative) {
    const __m512i way = _mm512_loadu_si512(flip);
    const __m512i dot = _mm512_sub_epi32(_mm512_xor_si512(_mm512_loadu_si512(dots), way), way);
    const __mmask16 above = _mm512_cmpge_epi32_mask(dot, _mm512_loadu_si512(positive_from));
    const __mmask16 below = _mm512_cmple_epi32_mask(dot, _mm512_loadu_si512(negative_to));
    *negative = (uint64_t)below & ~(uint64_t)above;
    return (uint64_t)below | above;
}

#include "words.h"
#include "convolve.h"
#include "batch.h"
XNOR_END_TARGET
#undef PATH_NAME
#undef PATH
#undef CARRY_SAVE
