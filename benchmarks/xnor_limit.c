/* What a processor can do with bits at most, and how near the tiles of xnor_cpu.c come: `xnor_limit WORDS`.
 *
 * All data is in the first-level cache. Prints name and figure per line; benchmarks/xnor_conv.py compiles and reads it.
 *   clock_ghz      from a chain of multiplications, 3 cycles each
 *   <path>_limit   bit products per cycle of the path's own instructions on registers alone: no loads, no remainders
 *   <path>_tile    bit products per cycle of one whole tile of WORDS words
 */
#define _POSIX_C_SOURCE 199309L
#include "../xnornet_port/kernels/native/xnor_cpu.c"

#include <stdio.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The best of many short rounds, for a longer one would be interrupted. */
#define BEST_SECONDS(result, statement)                           \
    do {                                                          \
        result = 1e9;                                             \
        for (int round_ = 0; round_ < 2000; round_++) {           \
            const double start_ = now();                          \
            statement;                                            \
            const double seconds_ = now() - start_;               \
            if (seconds_ < result) result = seconds_;             \
        }                                                         \
    } while (0)

#if defined(__x86_64__)
static void chain(void) {
    uint64_t x = 3;
    for (int i = 0; i < 2000; i++)
        __asm__ volatile("imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0" : "+r"(x));
}

enum { SUMS = 16 };

/* xor, popcount, add: 512 products for 3 instructions. */
__attribute__((target("avx512f,avx512vpopcntdq"))) static void limit_avx512(void) {
    __m512i sums[SUMS], a = _mm512_set1_epi64(0x123456789);
    const __m512i w = _mm512_set1_epi64(0x987654321);
#pragma GCC unroll 16
    for (int j = 0; j < SUMS; j++) sums[j] = _mm512_setzero_si512();
    for (int i = 0; i < 500; i++) {
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
__attribute__((target("avx512f,avx512vpopcntdq"))) static void limit_avx512_carry_save(void) {
    __m512i sums[12], ones[12], a = _mm512_set1_epi64(0x123456789);
    const __m512i w = _mm512_set1_epi64(0x987654321);
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) sums[j] = ones[j] = _mm512_setzero_si512();
    for (int i = 0; i < 500; i++) {
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
__attribute__((target("avx2"))) static void limit_avx2(void) {
    __m256i bytes[12], table = _mm256_set1_epi8(3);
    const __m256i w = _mm256_set1_epi8(5);
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) bytes[j] = _mm256_setzero_si256();
    for (int i = 0; i < 500; i++) {
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

static double time_tile(const struct xnor_path *path, void (*tile)(int, const struct xnor_window *,
                        const uint8_t *const *, int64_t, const void *, const struct xnor_dots *), int rows, int64_t words,
                        int unit_bytes, size_t weight_bytes, const void *table) {
    enum { REPEATS = 20 };
    const int64_t n_offsets = unit_bytes == 8 ? 2 * words : words;
    int32_t *offsets = malloc(4 * (size_t)n_offsets), start[64] = {0}, out[8 * 64];
    uint8_t *pictures = calloc(1, (size_t)(8 * 16 * words + 64)), *weights = aligned_alloc(64, weight_bytes);
    const uint8_t *pixels[8];
    const int32_t *const starts[8] = {start, start, start, start, start, start, start, start};
    const struct xnor_dots dots = {starts, 0, 1, out};
    double seconds;
    if (!offsets || !pictures || !weights) exit(2);
    memset(weights, 5, weight_bytes);
    for (int64_t k = 0; k < n_offsets; k++) offsets[k] = (int32_t)(8 * k);
    for (int i = 0; i < 8; i++) pixels[i] = pictures + i * 16 * words;
    const struct xnor_window window = {offsets, n_offsets, 0, table};
    BEST_SECONDS(seconds, for (int i = 0; i < REPEATS; i++) {
        tile(rows, &window, pixels, 0, weights, &dots);
        __asm__ volatile("" : : "r"(out) : "memory");
    });
    free(offsets), free(pictures), free(weights);
    return (double)(64 * words * rows * path->panel) * REPEATS / seconds;
}

int main(int n_arguments, char **arguments) {
    const int64_t words = n_arguments > 1 ? atol(arguments[1]) : 36;
#if defined(__x86_64__)
    double seconds;
    BEST_SECONDS(seconds, chain());
    const double clock = 2000 * 5 * 3 / seconds;
    printf("clock_ghz %.3f\n", clock / 1e9);
    if (path_avx512.is_available()) {
        BEST_SECONDS(seconds, limit_avx512());
        printf("avx512_limit %.0f\n", 500 * SUMS * 512 / seconds / clock);
        BEST_SECONDS(seconds, limit_avx512_carry_save());
        printf("avx512_carry_save_limit %.0f\n", 500 * 12 * 1024 / seconds / clock);
        printf("avx512_carry_save_tile %.0f\n",
               time_tile(&path_avx512_carry_save, tile_avx512_carry_save, 6, words, 4, (size_t)(128 * words), NULL) / clock);
        printf("avx512_tile %.0f\n", time_tile(&path_avx512, tile_avx512, 8, words, 4, (size_t)(128 * words), NULL) / clock);
    }
    if (path_avx2.is_available()) {
        struct table_avx2 table;
        fill_table_avx2(&table);
        BEST_SECONDS(seconds, limit_avx2());
        printf("avx2_limit %.0f\n", 500 * 12 * 128 / seconds / clock);
        printf("avx2_tile %.0f\n",
               time_tile(&path_avx2, tile_avx2, 4, words, 8, (size_t)(1024 * words), table.counts) / clock);
    }
#else
    printf("plain_tile_per_second %.0f\n", time_tile(&path_plain, tile_plain, 1, words, 4, (size_t)(64 * words), NULL));
#endif
    return 0;
}
