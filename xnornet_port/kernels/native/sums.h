/* Binary weights with real inputs (BWN) as a product of matrices: out[r][o] = alpha[o] * (sum of x[r][k] sign[o][k]) + bias[o].
 *
 * The weights stay bits: a byte of signs finds eight masks in a table, which turn the signs of eight inputs round before
 * they are added. So a filter is read in 1/32 of the memory, which is what such layers wait for. Float sums, in an order
 * of their own: eight for each row and filter, over every eighth input. Plain C with the vectors of GCC and clang.
 */
#ifndef XNOR_SUMS_H
#define XNOR_SUMS_H

#include <stdint.h>
#include <string.h>

#include "parallel.h"

/* On x86 Linux the loops are there three times, and the processor at hand chooses. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define XNOR_FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define XNOR_FOR_EACH_PROCESSOR
#endif

typedef float xnor_eight_floats __attribute__((vector_size(32), aligned(4)));
typedef uint32_t xnor_eight_words __attribute__((vector_size(32), aligned(4)));

enum { XNOR_SUM_ROWS = 4, XNOR_SUM_FILTERS = 4, XNOR_SUM_ITEM = 64 /* filters that are one thread's at a time */ };

struct xnor_sums {
    const float *x;            /* [rows][8 * bytes]: 0 past the last input */
    const uint8_t *signs;      /* [filters][bytes], bit 1 where negative */
    const float *alpha, *bias; /* [filters]; bias may be NULL */
    float *out;                /* [rows][filters] */
    int64_t rows, filters, bytes;
    int64_t threads;
    void *parallel;            /* as in struct xnor_call */
};

struct xnor_sum_table {
    uint32_t masks[256][8]; /* of a byte of signs: the sign bit of each float to be turned round */
};

struct xnor_sum_work {
    const struct xnor_sums *sums;
    const struct xnor_sum_table *table;
};

static inline __attribute__((always_inline)) void xnor_sum_tile(const struct xnor_sums *s, const struct xnor_sum_table *table,
                                                                const int rows, const int filters, int64_t row,
                                                                int64_t filter) {
    xnor_eight_floats sums[XNOR_SUM_ROWS][2 * XNOR_SUM_FILTERS];
    const float *x = s->x + row * 8 * s->bytes;
    const uint8_t *signs = s->signs + filter * s->bytes;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < filters; j++) sums[i][j] = (xnor_eight_floats){0};
    for (int64_t k = 0; k < s->bytes; k++) {
        xnor_eight_words inputs[XNOR_SUM_ROWS];
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) memcpy(&inputs[i], x + (i * s->bytes + k) * 8, sizeof inputs[i]);
#pragma GCC unroll 8
        for (int j = 0; j < filters; j++) {
            xnor_eight_words masks;
            memcpy(&masks, table->masks[signs[j * s->bytes + k]], sizeof masks);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) sums[i][j] += (xnor_eight_floats)(inputs[i] ^ masks);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < filters; j++) {
            const xnor_eight_floats v = sums[i][j];
            const float dot = ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
            const int64_t o = filter + j;
            s->out[(row + i) * s->filters + o] = s->alpha[o] * dot + (s->bias ? s->bias[o] : 0);
        }
}

/* One item: some filters for all rows. */
XNOR_FOR_EACH_PROCESSOR
static void xnor_sum_item(void *context, int64_t index) {
    const struct xnor_sum_work *work = context;
    const struct xnor_sums *s = work->sums;
    const int64_t first = index * XNOR_SUM_ITEM;
    const int64_t last = first + XNOR_SUM_ITEM < s->filters ? first + XNOR_SUM_ITEM : s->filters;
    int64_t row = 0;
    for (; row + XNOR_SUM_ROWS <= s->rows; row += XNOR_SUM_ROWS) {
        int64_t o = first;
        for (; o + XNOR_SUM_FILTERS <= last; o += XNOR_SUM_FILTERS)
            xnor_sum_tile(s, work->table, XNOR_SUM_ROWS, XNOR_SUM_FILTERS, row, o);
        for (; o < last; o++) xnor_sum_tile(s, work->table, XNOR_SUM_ROWS, 1, row, o);
    }
    for (; row < s->rows; row++) {
        int64_t o = first;
        for (; o + 2 * XNOR_SUM_FILTERS <= last; o += 2 * XNOR_SUM_FILTERS)
            xnor_sum_tile(s, work->table, 1, 2 * XNOR_SUM_FILTERS, row, o);
        for (; o < last; o++) xnor_sum_tile(s, work->table, 1, 1, row, o);
    }
}

static void xnor_sum(const struct xnor_sums *sums) {
    struct xnor_sum_table table;
    for (int byte = 0; byte < 256; byte++)
        for (int bit = 0; bit < 8; bit++) table.masks[byte][bit] = (uint32_t)(byte >> bit & 1) << 31;
    struct xnor_sum_work work = {sums, &table};
    const int64_t items = (sums->filters + XNOR_SUM_ITEM - 1) / XNOR_SUM_ITEM;
    xnor_parallel(sums->threads, sums->parallel, items, xnor_sum_item, &work);
}

#endif
