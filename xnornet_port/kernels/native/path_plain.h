/* Plain C: any processor. A tile is one pixel by 8 filters. */
#define PATH(name) name##_plain
#define PATH_NAME "plain"
enum { PATH(panel) = 8, PATH(tile_rows) = 1, PATH(is_encoded) = 0 };

static int PATH(is_available)(void) { return 1; }

/* Bits counted in pairs, fours and bytes, for compilers would call a function where they know of no instruction. */
static inline uint64_t PATH(popcount)(uint64_t word) {
    word -= word >> 1 & 0x5555555555555555;
    word = (word & 0x3333333333333333) + (word >> 2 & 0x3333333333333333);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return word * 0x0101010101010101 >> 56;
}

static void PATH(tile)(int rows, const struct xnor_window *window, const uint8_t *const *pixels, int64_t to_mask,
                       const void *weights, const struct xnor_dots *dots) {
    (void)rows;
    const uint64_t *w = weights;
    uint64_t sums[8] = {0};
    for (int64_t k = 0; k < window->n_words + window->n_halves; k++, w += 8) {
        uint64_t a, mask = UINT64_MAX;
        memcpy(&a, pixels[0] + window->offsets[k], 8);
        if (to_mask) memcpy(&mask, pixels[0] + window->offsets[k] + to_mask, 8);
        if (k >= window->n_words) mask &= 0xffffffff;
        for (int j = 0; j < 8; j++) sums[j] += PATH(popcount)((a ^ w[j]) & mask);
    }
    const int32_t *start = dots->start[0] + dots->start_offset;
    for (int j = 0; j < 8; j++) dots->out[j] = start[j] - (int32_t)(sums[j] << dots->shift);
}

#include "portable.h"
#include "words.h"
#include "convolve.h"
#include "batch.h"
#undef PATH_NAME
#undef PATH
