/* An experiment, not part of the package: binary weights with real inputs by sums alone, dot = 2 sum(x where w > 0) - sum(x).
 *
 * 16 filters to a vector; of each weight one bit is read as the mask of an addition. `rows` inputs are worked on together
 * so that a mask, once loaded, serves them all. AVX-512. benchmarks/bwn_sums.py times it against torch.
 */
#include <immintrin.h>
#include <stdint.h>

/* x (rows, inputs); masks (filters / 16, inputs): bit j where filter 16 * panel + j is positive; out (rows, filters). */
__attribute__((target("avx512f"))) static inline __attribute__((always_inline)) void panel_sums(
    const int rows, const float *x, const uint16_t *masks, const float *alpha, float *out, int64_t inputs,
    int64_t filters) {
    __m512 sums[8], totals[8];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) sums[i] = totals[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < inputs; k++) {
        const __mmask16 positive = (__mmask16)masks[k];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
            sums[i] = _mm512_mask_add_ps(sums[i], positive, sums[i], _mm512_set1_ps(x[i * inputs + k]));
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
        float total = 0;
        for (int64_t k = 0; k < inputs; k++) total += x[i * inputs + k];
        totals[i] = _mm512_sub_ps(_mm512_add_ps(sums[i], sums[i]), _mm512_set1_ps(total));
        _mm512_storeu_ps(out + i * filters, _mm512_mul_ps(totals[i], _mm512_loadu_ps(alpha)));
    }
}

__attribute__((target("avx512f"))) void bwn_sums(const float *x, const uint16_t *masks, const float *alpha, float *out,
                                                 int64_t n, int64_t inputs, int64_t filters) {
    for (int64_t panel = 0; panel < filters / 16; panel++) {
        int64_t row = 0;
        for (; row + 8 <= n; row += 8)
            panel_sums(8, x + row * inputs, masks + panel * inputs, alpha + 16 * panel,
                       out + row * filters + 16 * panel, inputs, filters);
        for (; row < n; row++)
            panel_sums(1, x + row * inputs, masks + panel * inputs, alpha + 16 * panel,
                       out + row * filters + 16 * panel, inputs, filters);
    }
}
