/* What Python (cpu.py) hands over, field by field as its ctypes structures, and what a code path is.
 *
 * A code path is one way to use a processor: path_plain.h, path_neon.h, path_avx2.h, path_avx512.h. Each defines the few
 * things that depend on the instructions and then includes convolve.h and batch.h, the algorithm, which is compiled once
 * per path.
 */
#ifndef XNOR_CPU_H
#define XNOR_CPU_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the packed words are read in halves, which needs a little-endian processor"
#endif

/* Larger results go past the caches. The second-level ones hold 1 or 2 MB, and other things as well. */
#ifndef XNOR_CACHE_BYTES
#define XNOR_CACHE_BYTES (2 << 20)
#endif

/* A convolution: sizes, prepared weights, and what each output pixel's padding changes. Filters come in panels. */
struct xnor_layer {
    int64_t channels, height, width;
    int64_t filters;
    int64_t kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
    int64_t out_height, out_width;
    const void *weights;         /* from xnor_prepare */
    const float *alpha, *bias;   /* of all panels, 0 past the last filter */
    int64_t n_classes;           /* of output pixels, by the kernel positions that lie inside the picture */
    const int32_t *pixel_class;  /* [out_height][out_width] */
    const int32_t *base;         /* [panel][class][filter]: dot = base - 2 * (bits that differ, padding counted as 0) */
    /* A weight that is 0 is the mean of +1 and -1. Panels with such weights are there twice, with 0 as +1 and, further
     * behind in `weights`, with 0 as -1; then dot = base - (bits that differ in both). -1 where a panel has none. */
    const int32_t *second_panel; /* [panel], or NULL where no weight is 0 */
};

/* Max pooling of the integers; kernel_y is 0 where there is none. */
struct xnor_pooling {
    int64_t kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, out_height, out_width;
};

enum xnor_result { XNOR_SCALED, XNOR_DOTS, XNOR_SIGNS };

/* One use of a layer. Either `x` or `signs` is given; `nonzero` goes with `signs` and may be NULL. */
struct xnor_call {
    int64_t batch;
    const float *x;                  /* [batch][channels][height][width] */
    const uint64_t *signs, *nonzero; /* [batch][height][width][words] */
    int64_t result;                  /* enum xnor_result */
    void *out;                       /* float or int32_t [batch][filters][out_height][out_width] */
    uint64_t *out_signs, *out_nonzero;  /* [batch][height][width][words], zeros where filters end inside a word */
    /* Of all panels. `flip` is 0, or -1 where the thresholds fall; dot and both thresholds are negated there. Then the
     * sign is +1 where dot >= positive_from, else -1 where dot <= negative_to, else 0. */
    const int32_t *flip, *positive_from, *negative_to;
    struct xnor_pooling pooling;
    int64_t threads;
    void *parallel;                  /* GOMP_parallel of the OpenMP that torch has loaded, or NULL */
};

/* What of a picture a filter meets, as byte offsets from the window's first pixel: words of 64 bits, then half words. */
struct xnor_window {
    const int32_t *offsets;
    int64_t n_words, n_halves;
    const void *table; /* of paths that encode pictures */
};

/* What becomes of a tile's counts of differing bits: dot = start - (count << shift). */
struct xnor_dots {
    const int32_t *const *start; /* per pixel: where the starts of a panel's filters lie, side by side */
    int64_t start_offset;        /* to be added to each pointer, in integers */
    int shift;
    int32_t *out;                /* [pixel][filter] */
};

enum { XNOR_OK = 0, XNOR_ZEROS = 1, XNOR_NO_MEMORY = -1 };

struct xnor_path {
    const char *name;
    int (*is_available)(void);
    int64_t panel; /* filters side by side */
    int64_t (*weight_bytes)(const struct xnor_layer *layer);
    void (*prepare)(const struct xnor_layer *layer, const uint64_t *signs, void *weights);
    int (*pack)(const float *x, int64_t batch, int64_t channels, int64_t pixels, uint64_t *signs, uint64_t *nonzero);
    int (*run)(const struct xnor_layer *layer, const struct xnor_call *call);
};

#endif
