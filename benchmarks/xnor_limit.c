/* What a processor can do with bits at most, and how near the tiles of xnor_cpu.c come; a library for xnor_conv.py.
 *
 * All data is in registers or in the first-level cache.
 *   xnor_limit   that many products of bits by the path's own instructions on registers alone: no loads, no remainders
 *   xnor_tile    that many products by whole tiles of so many words
 */
#include "../xnornet_port/kernels/native/xnor_cpu.c"

#if defined(__x86_64__)
enum { SUMS = 16 };

/* xor, popcount, add: 512 products for 3 instructions. */
__attribute__((target("avx512f,avx512vpopcntdq"))) static void limit_avx512(int64_t products) {
    __m512i sums[SUMS], a = _mm512_set1_epi64(0x123456789);
    const __m512i w = _mm512_set1_epi64(0x987654321);
#pragma GCC unroll 16
    for (int j = 0; j < SUMS; j++) sums[j] = _mm512_setzero_si512();
    for (int64_t done = 0; done < products; done += 512 * SUMS) {
#pragma GCC unroll 16
        for (int j = 0; j < SUMS; j++) {
            __asm__ volatile("" : "+v"(a)); /* not computed once for all */
            sums[j] = _mm512_add_epi64(sums[j], _mm512_popcnt_epi64(_mm512_xor_si512(a, w)));
        }
    }
#pragma GCC unroll 16
    for (int j = 0; j < SUMS; j++) __asm__ volatile("" : : "v"(sums[j]));
}

/* The carry-save form: 1024 products for 5 instructions. */
__attribute__((target("avx512f,avx512vpopcntdq"))) static void limit_avx512_carry_save(int64_t products) {
    __m512i sums[12], ones[12], a = _mm512_set1_epi64(0x123456789);
    const __m512i w = _mm512_set1_epi64(0x987654321);
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) sums[j] = ones[j] = _mm512_setzero_si512();
    for (int64_t done = 0; done < products; done += 1024 * 12) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) {
            __asm__ volatile("" : "+v"(a));
            const __m512i middle = _mm512_ternarylogic_epi64(ones[j], w, a, 0x96);
            const __m512i next = _mm512_ternarylogic_epi64(middle, a, w, 0x96);
            const __m512i carry = _mm512_ternarylogic_epi64(ones[j], middle, next, 0x74);
            sums[j] = _mm512_add_epi64(sums[j], _mm512_popcnt_epi64(carry));
            ones[j] = next;
        }
    }
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) __asm__ volatile("" : : "v"(sums[j]), "v"(ones[j]));
}

/* Table look-up and add: 32 filters by 4 places for 2 instructions. */
__attribute__((target("avx2"))) static void limit_avx2(int64_t products) {
    __m256i bytes[12], table = _mm256_set1_epi8(3);
    const __m256i w = _mm256_set1_epi8(5);
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) bytes[j] = _mm256_setzero_si256();
    for (int64_t done = 0; done < products; done += 128 * 12) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) {
            __asm__ volatile("" : "+x"(table));
            bytes[j] = _mm256_add_epi8(bytes[j], _mm256_shuffle_epi8(table, w));
        }
    }
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) __asm__ volatile("" : : "x"(bytes[j]));
}
#endif

typedef void tile_fn(int rows, const struct xnor_window *, const uint8_t *const *pixels, int64_t to_mask,
                     const void *weights, const struct xnor_dots *);

static const struct contender {
    const struct xnor_path *path;
    void (*limit)(int64_t products);
    tile_fn *tile;
    int rows, offsets_per_word, weight_bytes; /* of a tile; weights per offset and filter */
} contenders[] = {
#if defined(__x86_64__)
    {&path_avx512, limit_avx512, tile_avx512, tile_rows_avx512, 1, 8},
    {&path_avx512_carry_save, limit_avx512_carry_save, tile_avx512_carry_save, tile_rows_avx512_carry_save, 1, 8},
    {&path_avx2, limit_avx2, tile_avx2, tile_rows_avx2, 2, 8},
#endif
    {0},
};

static const struct contender *find(const char *path) {
    const struct contender *here = contenders;
    while (here->path && strcmp(here->path->name, path) != 0) here++;
    return here;
}

/* 0 where there is no such figure for the path. */
XNOR_EXPORT int xnor_limit(const char *path, int64_t products) {
    const struct contender *found = find(path);
    if (found->path) found->limit(products);
    return found->path != NULL;
}

XNOR_EXPORT int xnor_tile(const char *path, int64_t words, int64_t products) {
    const struct contender *found = find(path);
    if (!found->path) return 0;
    const int64_t n_offsets = found->offsets_per_word * words, panel = found->path->panel;
    const size_t n_weights = (size_t)(found->weight_bytes * n_offsets * panel);
    int32_t *offsets = malloc(4 * (size_t)n_offsets), start[64] = {0}, out[8 * 64];
    uint8_t *pictures = calloc(1, (size_t)(8 * 16 * words + 64)), *weights = xnor_allocate_lines(n_weights);
    if (!offsets || !pictures || !weights) abort();
    memset(weights, 5, n_weights);
    for (int64_t k = 0; k < n_offsets; k++) offsets[k] = (int32_t)(8 * k);
    const uint8_t *pixels[8];
    const int32_t *starts[8];
    for (int i = 0; i < 8; i++) pixels[i] = pictures + i * 16 * words, starts[i] = start;
    struct xnor_window window = {offsets, n_offsets, 0, NULL};
#if defined(__x86_64__)
    struct table_avx2 table;
    fill_table_avx2(&table);
    window.table = table.counts;
#endif
    const struct xnor_dots dots = {starts, 0, 1, out};
    for (int64_t done = 0; done < products; done += 64 * words * found->rows * panel) {
        found->tile(found->rows, &window, pixels, 0, weights, &dots);
        __asm__ volatile("" : : "r"(out) : "memory");
    }
    free(offsets), free(pictures), free(weights);
    return 1;
}
