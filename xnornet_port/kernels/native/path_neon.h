/* NEON (every 64-bit ARM). A tile is 4 pixels by 8 filters; bytes are counted by vcnt and added up before they overflow. */
#define PATH(name) name##_neon
#define PATH_NAME "neon"
enum { PATH(panel) = 8, PATH(tile_rows) = 4, PATH(is_encoded) = 0 };

static int PATH(is_available)(void) { return 1; }

static inline uint64_t PATH(popcount)(uint64_t word) { return (uint64_t)__builtin_popcountll(word); }

static inline uint8x16_t PATH(word)(const uint8_t *at, uint64_t mask) {
    uint64_t word;
    memcpy(&word, at, 8);
    return vreinterpretq_u8_u64(vdupq_n_u64(word & mask));
}

static inline __attribute__((always_inline)) void PATH(tile_rows_of)(
    const int rows, const struct xnor_window *window, const uint8_t *const *pixels, int64_t to_mask,
    const uint64_t *weights, int first_row, const struct xnor_dots *dots) {
    enum { VECTORS = 4, BYTES_HOLD = 31 }; /* 31 words of at most 8 bits per byte: 248 */
    const int64_t n = window->n_words + window->n_halves;
    uint64x2_t sums[4][VECTORS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < VECTORS; j++) sums[i][j] = vdupq_n_u64(0);
    for (int64_t first = 0; first < n; first += BYTES_HOLD) {
        uint8x16_t bytes[4][VECTORS];
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < VECTORS; j++) bytes[i][j] = vdupq_n_u8(0);
        for (int64_t k = first; k < xnor_min(n, first + BYTES_HOLD); k++, weights += 8) {
            const uint64_t used = k < window->n_words ? UINT64_MAX : 0xffffffff;
            uint8x16_t w[VECTORS];
            for (int j = 0; j < VECTORS; j++) w[j] = vreinterpretq_u8_u64(vld1q_u64(weights + 2 * j));
            for (int i = 0; i < rows; i++) {
                const uint8_t *at = pixels[i] + window->offsets[k];
                const uint8x16_t a = PATH(word)(at, used);
                /* weights are 0 in the unused half */
                if (to_mask) {
                    const uint8x16_t mask = PATH(word)(at + to_mask, used);
                    for (int j = 0; j < VECTORS; j++)
                        bytes[i][j] = vaddq_u8(bytes[i][j], vcntq_u8(vandq_u8(veorq_u8(a, w[j]), mask)));
                } else {
                    for (int j = 0; j < VECTORS; j++)
                        bytes[i][j] = vaddq_u8(bytes[i][j], vcntq_u8(veorq_u8(a, w[j])));
                }
            }
        }
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < VECTORS; j++)
                sums[i][j] = vpadalq_u32(sums[i][j], vpaddlq_u16(vpaddlq_u8(bytes[i][j])));
    }
    for (int i = first_row; i < first_row + rows; i++) {
        const int32_t *start = dots->start[i] + dots->start_offset;
        for (int j = 0; j < VECTORS; j++) {
            const int32x2_t count = vreinterpret_s32_u32(vmovn_u64(sums[i - first_row][j]));
            const int32x2_t differing = vshl_s32(count, vdup_n_s32(dots->shift));
            vst1_s32(dots->out + 8 * i + 2 * j, vsub_s32(vld1_s32(start + 2 * j), differing));
        }
    }
}

static void PATH(tile)(int rows, const struct xnor_window *window, const uint8_t *const *pixels, int64_t to_mask,
                       const void *weights, const struct xnor_dots *dots) {
    if (rows == 4 && to_mask) PATH(tile_rows_of)(4, window, pixels, to_mask, weights, 0, dots);
    else if (rows == 4) PATH(tile_rows_of)(4, window, pixels, 0, weights, 0, dots);
    else
        for (int i = 0; i < rows; i++) PATH(tile_rows_of)(1, window, pixels + i, to_mask, weights, i, dots);
}

#include "portable.h"
#include "words.h"
#include "convolve.h"
#include "batch.h"
#undef PATH_NAME
#undef PATH
