/* AVX2, which cannot count bits: a table of 16 bytes holds popcount(a ^ w) of four places for each w, and vpshufb looks
 * up 32 filters at once. Pictures are kept as the number of the table's row for each four places (a "nibble"), weights
 * as one byte per four places. Zeros cost nothing: a nibble has 81 rows, for each place is +, - or 0.
 *
 * A tile is 4 pixels by 64 filters.
 */
#define PATH(name) name##_avx2
#define PATH_NAME "avx2"
#define PATH_ENCODES
enum { PATH(panel) = 64, PATH(tile_rows) = 4, PATH(is_encoded) = 1 };

XNOR_BEGIN_TARGET("avx2,fma,bmi,bmi2,popcnt")

static int PATH(is_available)(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

static inline uint64_t PATH(popcount)(uint64_t word) { return (uint64_t)__builtin_popcountll(word); }

/* ---- the table: rows of 16 bytes; those without a zero come first, in order ---- */

struct PATH(table) {
    uint8_t row[16][16]; /* of mask and signs: the row's number, doubled, for an address is table + 8 * that */
    uint8_t counts[81][16];
};

static void PATH(fill_table)(struct PATH(table) *table) {
    int n = 0;
    for (int mask = 15; mask >= 0; mask--)
        for (int a = 0; a < 16; a++) {
            if (a & ~mask) continue;
            table->row[mask][a] = (uint8_t)(2 * n);
            for (int w = 0; w < 16; w++) table->counts[n][w] = (uint8_t)__builtin_popcount((unsigned)((a ^ w) & mask));
            n++;
        }
}

static void PATH(encode)(const struct PATH(table) *table, const uint32_t *signs, const uint32_t *nonzero,
                         int64_t n_units, uint8_t *encoded) {
    for (int64_t unit = 0; unit < n_units; unit++, encoded += 8) {
        const uint64_t spread = UINT64_C(0x0f0f0f0f0f0f0f0f), a = _pdep_u64(signs[unit], spread);
        if (nonzero) {
            const uint64_t mask = _pdep_u64(nonzero[unit], spread);
            for (int i = 0; i < 8; i++) {
                const uint64_t of_mask = mask >> 8 * i & 15;
                encoded[i] = table->row[of_mask][a >> 8 * i & of_mask];
            }
        } else {
            memcpy(encoded, &(uint64_t){2 * a}, 8);
        }
    }
}

/* ---- windows and weights: [panel][unit][nibble][filter] ---- */

static int64_t PATH(n_offsets)(const struct xnor_layer *layer) { return xnor_n_runs(layer) * xnor_run_units(layer); }

static void PATH(fill_window)(const struct xnor_layer *layer, int32_t *offsets, struct xnor_window *window) {
    const int64_t units = xnor_run_units(layer);
    for (int64_t k = 0; k < PATH(n_offsets)(layer); k++)
        offsets[k] = (int32_t)(8 * (xnor_run_start(layer, k / units) + k % units));
    window->offsets = offsets;
    window->n_words = PATH(n_offsets)(layer);
    window->n_halves = 0;
}

static int64_t PATH(panel_bytes)(const struct xnor_layer *layer) { return 512 * PATH(n_offsets)(layer); }

static int64_t PATH(weight_bytes)(const struct xnor_layer *layer) {
    return xnor_ceil_div(layer->filters, PATH(panel)) * PATH(panel_bytes)(layer);
}

/* Filter j of 32 lies where unpacking bytes to 16 bits, which works within halves of a vector, brings it into order. */
static int64_t PATH(place)(int64_t j) { return j / 32 * 32 + j / 8 % 2 * 16 + j / 16 % 2 * 8 + j % 8; }

static void PATH(prepare)(const struct xnor_layer *layer, const uint64_t *signs, void *weights) {
    const int64_t units = xnor_run_units(layer);
    uint8_t *out = weights;
    for (int64_t panel = 0; panel < xnor_ceil_div(layer->filters, PATH(panel)); panel++)
        for (int64_t k = 0; k < PATH(n_offsets)(layer); k++, out += 512)
            for (int64_t j = 0; j < PATH(panel); j++) {
                const uint32_t unit = xnor_weight_unit(layer, signs, panel * PATH(panel) + j, k / units, k % units);
                for (int i = 0; i < 8; i++) out[64 * i + PATH(place)(j)] = (uint8_t)(unit >> 4 * i & 15);
            }
}

/* ---- the tile ---- */

static inline __attribute__((always_inline)) void PATH(store_dots)(const int rows, __m256i sums[4][4], int is_first,
                                                                   const struct xnor_dots *dots) {
    const __m128i shift = _mm_cvtsi32_si128(dots->shift);
    for (int i = 0; i < rows; i++) {
        int32_t *out = dots->out + 64 * i;
        const int32_t *start = is_first ? dots->start[i] + dots->start_offset : out;
        for (int j = 0; j < 8; j++) {
            const __m256i four = sums[i][j / 2];
            const __m128i half = j % 2 ? _mm256_extracti128_si256(four, 1) : _mm256_castsi256_si128(four);
            const __m256i counts = _mm256_sll_epi32(_mm256_cvtepu16_epi32(half), shift);
            const __m256i before = _mm256_loadu_si256((const __m256i *)(start + 8 * j));
            _mm256_storeu_si256((__m256i *)(out + 8 * j), _mm256_sub_epi32(before, counts));
        }
    }
}

/* Adds the bytes to sums of 16 bits, [pixel][filter]. */
static inline __attribute__((always_inline)) void PATH(widen)(const int rows, __m256i bytes[4][2],
                                                              __m256i sums[4][4]) {
    const __m256i zero = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            sums[i][2 * j] = _mm256_add_epi16(sums[i][2 * j], _mm256_unpacklo_epi8(bytes[i][j], zero));
            sums[i][2 * j + 1] = _mm256_add_epi16(sums[i][2 * j + 1], _mm256_unpackhi_epi8(bytes[i][j], zero));
        }
}

/* At most 7 units, so that no byte overflows: 7 * 8 nibbles * 4 places = 224. */
static inline __attribute__((always_inline)) void PATH(tile_units)(
    const int rows, const uint8_t *table, const int32_t *offsets, int64_t n, const uint8_t *const *pixels,
    const uint8_t *weights, __m256i sums[4][4]) {
    __m256i bytes[4][2];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) bytes[i][0] = bytes[i][1] = _mm256_setzero_si256();
    for (int64_t k = 0; k < n; k++) {
        const int64_t at = offsets[k];
#pragma GCC unroll 8
        for (int nibble = 0; nibble < 8; nibble++, weights += 64) {
            const __m256i w0 = _mm256_loadu_si256((const __m256i *)weights);
            const __m256i w1 = _mm256_loadu_si256((const __m256i *)(weights + 32));
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) {
                const uint8_t *row = table + 8 * (size_t)pixels[i][at + nibble];
                const __m256i counts = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)row));
                bytes[i][0] = _mm256_add_epi8(bytes[i][0], _mm256_shuffle_epi8(counts, w0));
                bytes[i][1] = _mm256_add_epi8(bytes[i][1], _mm256_shuffle_epi8(counts, w1));
                /* else gcc adds up the nibbles first, and runs out of registers for them */
                __asm__("" : "+x"(bytes[i][0]), "+x"(bytes[i][1]));
            }
        }
    }
    PATH(widen)(rows, bytes, sums);
}

static inline __attribute__((always_inline)) void PATH(tile_rows_of)(
    const int rows, const struct xnor_window *window, const uint8_t *const *pixels, const uint8_t *weights,
    const struct xnor_dots *dots) {
    enum { BYTES_HOLD = 7, SUMS_HOLD = 2044 }; /* 2044 units of 32 places: 65408 */
    for (int64_t block = 0; block < window->n_words; block += SUMS_HOLD) {
        const int64_t end = xnor_min(window->n_words, block + SUMS_HOLD);
        __m256i sums[4][4];
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < 4; j++) sums[i][j] = _mm256_setzero_si256();
        for (int64_t k = block; k < end; k += BYTES_HOLD)
            PATH(tile_units)(rows, window->table, window->offsets + k, xnor_min(BYTES_HOLD, end - k), pixels,
                             weights + 512 * k, sums);
        PATH(store_dots)(rows, sums, block == 0, dots);
    }
}

static void PATH(tile)(int rows, const struct xnor_window *window, const uint8_t *const *pixels, int64_t to_mask,
                       const void *weights, const struct xnor_dots *dots) {
    (void)to_mask; /* zeros are in the encoding */
    switch (rows) {
    case 1: PATH(tile_rows_of)(1, window, pixels, weights, dots); break;
    case 2: PATH(tile_rows_of)(2, window, pixels, weights, dots); break;
    case 3: PATH(tile_rows_of)(3, window, pixels, weights, dots); break;
    case 4: PATH(tile_rows_of)(4, window, pixels, weights, dots); break;
    }
}

/* ---- packing ---- */

enum { PATH(block_pixels) = 8 };

/* Signs of up to 32 channels of up to 8 pixels: each channel's sign bits are shifted in from below. Returns whether there
 * is a zero or NaN among them. */
static inline __attribute__((always_inline)) int PATH(pack_block)(const int64_t pixels, const float *x,
                                                                  int64_t channel_stride, int64_t channels,
                                                                  uint32_t *signs, uint32_t *nonzero,
                                                                  int64_t pixel_stride) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i here = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)pixels), lane);
    __m256i sign_bits = _mm256_setzero_si256(), zero_bits = sign_bits, found = sign_bits;
    for (int64_t c = channels - 1; c >= 0; c--) {
        const float *at = x + c * channel_stride;
        const __m256 v = pixels == 8 ? _mm256_loadu_ps(at) : _mm256_maskload_ps(at, here);
        const __m256i is_zero = _mm256_castps_si256(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_EQ_UQ)); /* -1; NaN too */
        found = _mm256_or_si256(found, is_zero);
        sign_bits = _mm256_or_si256(_mm256_slli_epi32(sign_bits, 1), _mm256_srli_epi32(_mm256_castps_si256(v), 31));
        if (nonzero) zero_bits = _mm256_sub_epi32(_mm256_slli_epi32(zero_bits, 1), is_zero);
    }
    const uint32_t all = (uint32_t)((UINT64_C(1) << channels) - 1);
    uint32_t sign_words[8], zero_words[8];
    _mm256_storeu_si256((__m256i *)sign_words, _mm256_andnot_si256(zero_bits, sign_bits));
    _mm256_storeu_si256((__m256i *)zero_words, zero_bits);
    for (int64_t i = 0; i < pixels; i++) signs[i * pixel_stride] = sign_words[i];
    for (int64_t i = 0; nonzero && i < pixels; i++) nonzero[i * pixel_stride] = all & ~zero_words[i];
    return !_mm256_testz_si256(found, here);
}

#include "packing.h"

/* The same for one pixel: channels lie side by side in memory. */
static int PATH(pack_channels)(const float *x, int64_t channels, uint32_t *signs, uint32_t *nonzero) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    uint32_t zeros = 0;
    for (int64_t first = 0; first < channels; first += 8) {
        const __m256i here = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)xnor_min(8, channels - first)), lane);
        const __m256 v = _mm256_maskload_ps(x + first, here);
        const uint32_t inside = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(here));
        const uint32_t is_zero =
            inside & (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_EQ_UQ));
        const uint32_t is_negative = (uint32_t)_mm256_movemask_ps(v) & ~is_zero;
        const int64_t shift = first % 32;
        signs[first / 32] = (shift ? signs[first / 32] : 0) | is_negative << shift;
        if (nonzero) nonzero[first / 32] = (shift ? nonzero[first / 32] : 0) | (inside & ~is_zero) << shift;
        zeros |= is_zero;
    }
    return zeros != 0;
}

/* ---- results ---- */

static inline void PATH(transpose)(__m256 row[8]) {
    __m256 t[8], u[8];
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(row[2 * i], row[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(row[2 * i], row[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        u[4 * i + 0] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        row[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        row[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

/* dots [pixel][64] to alpha * dot + bias at out[filter * out_stride + pixel]; the integers themselves without alpha.
 * The last 8 pixels may overlap those before, for storing a part of a vector takes long. */
static void PATH(store)(const int32_t *dots, int64_t pixels, const float *alpha, const float *bias, int64_t filters,
                        float *out, int64_t out_stride) {
    const int64_t step = xnor_min(8, pixels);
    for (int64_t j = 0; j < filters; j += 8) {
        const __m256 scale = alpha ? _mm256_loadu_ps(alpha + j) : _mm256_setzero_ps();
        const __m256 shift = alpha ? _mm256_loadu_ps(bias + j) : _mm256_setzero_ps();
        for (int64_t first = 0; first < pixels; first += step) {
            const int64_t p = xnor_min(first, pixels - step);
            __m256 row[8];
            for (int i = 0; i < 8; i++) {
                const __m256i dot = _mm256_loadu_si256((const __m256i *)(dots + 64 * (p + (i < step ? i : 0)) + j));
                row[i] = alpha ? _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot), shift) : _mm256_castsi256_ps(dot);
            }
            PATH(transpose)(row);
            float *to = out + j * out_stride + p;
            const int n = (int)xnor_min(8, filters - j);
            if (step == 8)
                for (int i = 0; i < n; i++) _mm256_storeu_ps(to + i * out_stride, row[i]);
            else
                for (int i = 0; i < n; i++) memcpy(to + i * out_stride, &row[i], 4 * (size_t)step);
        }
    }
}

enum { PATH(can_stream) = 1 };

static void PATH(stream_lines)(float *out, const float *from, int64_t lines) {
    for (int64_t i = 0; i < 2 * lines; i++)
        _mm256_stream_si256((__m256i *)(out + 8 * i), _mm256_loadu_si256((const __m256i *)(from + 8 * i)));
}

static void PATH(end_stream)(void) { _mm_sfence(); }

/* The signs of a panel's dots as bits: negative, and (the result) not 0. */
static uint64_t PATH(threshold)(const int32_t *dots, const int32_t *flip, const int32_t *positive_from,
                                const int32_t *negative_to, uint64_t *negative) {
    uint64_t not_above = 0, not_below = 0;
    for (int j = 0; j < 64; j += 8) {
        const __m256i way = _mm256_loadu_si256((const __m256i *)(flip + j));
        const __m256i raw = _mm256_loadu_si256((const __m256i *)(dots + j));
        const __m256i dot = _mm256_sub_epi32(_mm256_xor_si256(raw, way), way);
        const __m256i least = _mm256_loadu_si256((const __m256i *)(positive_from + j));
        const __m256i most = _mm256_loadu_si256((const __m256i *)(negative_to + j));
        const int under = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(least, dot)));
        const int over = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(dot, most)));
        not_above |= (uint64_t)(unsigned)under << j;
        not_below |= (uint64_t)(unsigned)over << j;
    }
    *negative = ~not_below & not_above;
    return ~(not_below & not_above);
}

#include "convolve.h"
#include "batch.h"
XNOR_END_TARGET
#undef PATH_ENCODES
#undef PATH_NAME
#undef PATH
