/* Pictures inside the kernels: padded, 32 channels of a pixel to a unit of 32 bits, pixels side by side.
 *
 * Half a word is the unit, not a word, so that 96 channels cost 3 units and not 4. A filter meets a picture in runs: per
 * kernel row the units of all its pixels, which lie side by side; with horizontal dilation pixel by pixel.
 */
#ifndef XNOR_LAYOUT_H
#define XNOR_LAYOUT_H

#include <stdlib.h>

#include "xnor_cpu.h"

static inline int64_t xnor_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t xnor_min(int64_t a, int64_t b) { return a < b ? a : b; }

/* Memory that begins with a cache line: vectors that lie across two take twice as long. */
static inline void *xnor_allocate_lines(size_t n_bytes) { return aligned_alloc(64, (n_bytes + 63) / 64 * 64); }

static inline int64_t xnor_units(int64_t channels) { return xnor_ceil_div(channels, 32); }
static inline int64_t xnor_words(int64_t channels) { return xnor_ceil_div(channels, 64); }

static inline int64_t xnor_padded_width(const struct xnor_layer *layer) { return layer->width + 2 * layer->padding_x; }
static inline int64_t xnor_padded_height(const struct xnor_layer *layer) {
    return layer->height + 2 * layer->padding_y;
}

/* A pixel of a picture, among the pixels with padding. */
static inline int64_t xnor_padded_pixel(const struct xnor_layer *layer, int64_t y, int64_t x) {
    return (y + layer->padding_y) * xnor_padded_width(layer) + layer->padding_x + x;
}

static inline int xnor_is_dense(const struct xnor_layer *layer) {
    return layer->dilation_x == 1 || layer->kernel_x == 1;
}
static inline int64_t xnor_n_runs(const struct xnor_layer *layer) {
    return xnor_is_dense(layer) ? layer->kernel_y : layer->kernel_y * layer->kernel_x;
}
static inline int64_t xnor_run_units(const struct xnor_layer *layer) {
    return xnor_units(layer->channels) * (xnor_is_dense(layer) ? layer->kernel_x : 1);
}

/* Where a run begins, in units from the window's first pixel. */
static inline int64_t xnor_run_start(const struct xnor_layer *layer, int64_t run) {
    const int64_t y = xnor_is_dense(layer) ? run : run / layer->kernel_x;
    const int64_t x = xnor_is_dense(layer) ? 0 : run % layer->kernel_x;
    return (y * layer->dilation_y * xnor_padded_width(layer) + x * layer->dilation_x) * xnor_units(layer->channels);
}

/* A unit of a filter, out of signs [filters][kernel_y][kernel_x][words]; 0 past the last filter. */
static inline uint32_t xnor_weight_unit(const struct xnor_layer *layer, const uint64_t *signs, int64_t filter,
                                        int64_t run, int64_t index) {
    const int64_t units = xnor_units(layer->channels), words = xnor_words(layer->channels);
    const int64_t tap = xnor_is_dense(layer) ? run * layer->kernel_x + index / units : run;
    const int64_t taps = layer->kernel_y * layer->kernel_x, unit = index % units;
    if (filter >= layer->filters) return 0;
    return (uint32_t)(signs[(filter * taps + tap) * words + unit / 2] >> (32 * (unit % 2)));
}

#endif
