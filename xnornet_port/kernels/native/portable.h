/* Packing, storing and thresholds in plain C, for paths that have no better; compilers turn these loops into vectors.
 * Included once for each of those.
 */

/* 4 pixels; every compiler of these files knows such vectors, on every processor. */
typedef uint32_t PATH(four) __attribute__((vector_size(16)));

enum { PATH(block_pixels) = 4 };

/* One unit of up to 4 pixels; returns whether there is a zero or NaN among them. */
static inline __attribute__((always_inline)) int PATH(pack_block)(const int64_t pixels, const float *x,
                                                                  int64_t channel_stride, int64_t channels,
                                                                  uint32_t *signs, uint32_t *nonzero,
                                                                  int64_t pixel_stride) {
    PATH(four) negative = {0}, filled = {0}, zeros = {0};
    for (int64_t c = channels - 1; c >= 0; c--) {
        PATH(four) bits = {1, 1, 1, 1}; /* what is not a pixel is not 0 */
        memcpy(&bits, x + c * channel_stride, 4 * (size_t)pixels);
        const PATH(four) magnitude = bits & 0x7fffffff;
        const PATH(four) is_zero = (PATH(four))(magnitude == 0) | (PATH(four))(magnitude > 0x7f800000); /* all bits */
        zeros |= is_zero;
        negative = negative << 1 | bits >> 31;
        filled = (filled << 1) + 1 + is_zero;
    }
    negative &= filled;
    for (int64_t i = 0; i < pixels; i++) {
        signs[i * pixel_stride] = negative[i];
        if (nonzero) nonzero[i * pixel_stride] = filled[i];
    }
    return (zeros[0] | zeros[1] | zeros[2] | zeros[3]) != 0;
}

#include "packing.h"

/* The same for one pixel: channels lie side by side in memory. */
static int PATH(pack_channels)(const float *x, int64_t channels, uint32_t *signs, uint32_t *nonzero) {
    return PATH(pack_pixels)(x, 1, channels, 1, signs, nonzero, xnor_units(channels));
}

/* Whether there are stores past the caches: stream_lines writes whole cache lines, end_stream waits for them. */
enum { PATH(can_stream) = 0 };
static void PATH(stream_lines)(float *out, const float *from, int64_t lines) { memcpy(out, from, 64 * (size_t)lines); }
static void PATH(end_stream)(void) {}

/* dots [pixel][panel] to alpha * dot + bias at out[filter * out_stride + pixel]; the integers themselves without alpha. */
static void PATH(store)(const int32_t *dots, int64_t pixels, const float *alpha, const float *bias, int64_t filters,
                        float *out, int64_t out_stride) {
    for (int64_t j = 0; j < filters; j++) {
        float *row = out + j * out_stride;
        if (alpha)
            for (int64_t p = 0; p < pixels; p++) row[p] = fmaf(alpha[j], (float)dots[p * PATH(panel) + j], bias[j]);
        else
            for (int64_t p = 0; p < pixels; p++) memcpy(row + p, dots + p * PATH(panel) + j, 4);
    }
}

/* The signs of a panel's dots as bits: negative, and (the result) not 0. */
static uint64_t PATH(threshold)(const int32_t *dots, const int32_t *flip, const int32_t *positive_from,
                                const int32_t *negative_to, uint64_t *negative) {
    uint64_t below = 0, above = 0;
    for (int j = 0; j < PATH(panel); j++) {
        const int32_t dot = (dots[j] ^ flip[j]) - flip[j];
        above |= (uint64_t)(dot >= positive_from[j]) << j;
        below |= (uint64_t)(dot <= negative_to[j]) << j;
    }
    *negative = below & ~above;
    return below | above;
}
