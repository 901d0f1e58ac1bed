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

__attribute__((target("avx512f,avx512vpopcntdq"))) static void limit_avx512(void) {
    __m512i sum[8], ones[8];
    const __m512i w1 = _mm512_set1_epi64(0x123456789), w2 = _mm512_set1_epi64(0x987654321);
    for (int j = 0; j < 8; j++) sum[j] = ones[j] = _mm512_set1_epi64(j);
    for (int i = 0; i < 1000; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const __m512i middle = _mm512_ternarylogic_epi64(ones[j], w1, w2, 0x96);
            const __m512i next = _mm512_ternarylogic_epi64(middle, w2, w2, 0x96);
            sum[j] = _mm512_add_epi64(
                sum[j], _mm512_popcnt_epi64(_mm512_ternarylogic_epi64(ones[j], middle, next, 0x74)));
            ones[j] = next;
            __asm__ volatile("" : "+v"(sum[j]), "+v"(ones[j]));
        }
    }
}

__attribute__((target("avx2"))) static void limit_avx2(void) {
    __m256i bytes[8];
    __m256i table = _mm256_set1_epi8(3), w = _mm256_set1_epi8(5);
    for (int j = 0; j < 8; j++) bytes[j] = _mm256_set1_epi8((char)j);
    for (int i = 0; i < 1000; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            __asm__ volatile("" : "+x"(w));
            bytes[j] = _mm256_add_epi8(bytes[j], _mm256_shuffle_epi8(table, w));
            __asm__ volatile("" : "+x"(bytes[j]));
        }
    }
}
#endif

static double time_tile(const struct xnor_path *path, void (*tile)(int, const struct xnor_window *,
                        const uint8_t *const *, int64_t, const void *, int32_t *), int rows, int64_t words,
                        int unit_bytes, size_t weight_bytes, const void *table) {
    enum { REPEATS = 20 };
    const int64_t n_offsets = unit_bytes == 8 ? 2 * words : words;
    int32_t *offsets = malloc(4 * (size_t)n_offsets), counts[8 * 64];
    uint8_t *pictures = calloc(1, (size_t)(8 * 16 * words + 64)), *weights = aligned_alloc(64, weight_bytes);
    const uint8_t *pixels[8];
    double seconds;
    if (!offsets || !pictures || !weights) exit(2);
    memset(weights, 5, weight_bytes);
    for (int64_t k = 0; k < n_offsets; k++) offsets[k] = (int32_t)(8 * k);
    for (int i = 0; i < 8; i++) pixels[i] = pictures + i * 16 * words;
    const struct xnor_window window = {offsets, n_offsets, 0, table};
    BEST_SECONDS(seconds, for (int i = 0; i < REPEATS; i++) {
        tile(rows, &window, pixels, 0, weights, counts);
        __asm__ volatile("" : : "r"(counts) : "memory");
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
        printf("avx512_limit %.0f\n", 1000 * 8 * 1024 / seconds / clock);
        printf("avx512_tile %.0f\n", time_tile(&path_avx512, tile_avx512, 8, words, 4, (size_t)(128 * words), NULL) / clock);
    }
    if (path_avx2.is_available()) {
        struct table_avx2 table;
        fill_table_avx2(&table);
        BEST_SECONDS(seconds, limit_avx2());
        printf("avx2_limit %.0f\n", 1000 * 8 * 128 / seconds / clock);
        printf("avx2_tile %.0f\n",
               time_tile(&path_avx2, tile_avx2, 4, words, 8, (size_t)(1024 * words), table.counts) / clock);
    }
#else
    printf("plain_tile_per_second %.0f\n", time_tile(&path_plain, tile_plain, 1, words, 4, (size_t)(64 * words), NULL));
#endif
    return 0;
}
