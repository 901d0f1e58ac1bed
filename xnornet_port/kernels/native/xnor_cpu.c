/* Convolutions of signs by XNOR and popcount on the CPU: the code paths, and what Python calls (cpu.py, by ctypes). */
#include "xnor_cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "parallel.h"
#include "sums.h"
#include "target.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define CARRY_SAVE 0
#include "path_avx512.h"
#define CARRY_SAVE 1
#include "path_avx512.h"
#include "path_avx2.h"
#elif defined(__aarch64__)
#include <arm_neon.h>
#include "path_neon.h"
#endif
#include "path_plain.h"

/* Best first, but for the two forms of AVX-512, of which xnor_path_is_preferred tells the better one. */
static const struct xnor_path *const xnor_paths[] = {
#if defined(__x86_64__)
    &path_avx512,
    &path_avx512_carry_save,
    &path_avx2,
#elif defined(__aarch64__)
    &path_neon,
#endif
    &path_plain,
};

#if defined(_WIN32)
#define XNOR_EXPORT __declspec(dllexport)
#else
#define XNOR_EXPORT __attribute__((visibility("default")))
#endif

XNOR_EXPORT int64_t xnor_n_paths(void) { return (int64_t)(sizeof xnor_paths / sizeof *xnor_paths); }
XNOR_EXPORT const char *xnor_path_name(int64_t path) { return xnor_paths[path]->name; }
XNOR_EXPORT int xnor_path_is_available(int64_t path) { return xnor_paths[path]->is_available(); }
/* Whether to take this path before those ahead of it in the table. */
XNOR_EXPORT int xnor_path_is_preferred(int64_t path) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return xnor_paths[path] == &path_avx512_carry_save && __builtin_cpu_is("intel");
#else
    return path == 0;
#endif
}

XNOR_EXPORT int64_t xnor_path_panel(int64_t path) { return xnor_paths[path]->panel; }

XNOR_EXPORT int64_t xnor_weight_bytes(int64_t path, const struct xnor_layer *layer) {
    return xnor_paths[path]->weight_bytes(layer);
}

XNOR_EXPORT void xnor_prepare(int64_t path, const struct xnor_layer *layer, const uint64_t *signs, void *weights) {
    xnor_paths[path]->prepare(layer, signs, weights);
}

/* XNOR_ZEROS where x has a 0 or NaN: then call again with `nonzero`. Both planes start as zeros. */
XNOR_EXPORT int xnor_pack(int64_t path, const float *x, int64_t batch, int64_t channels, int64_t pixels,
                          uint64_t *signs, uint64_t *nonzero) {
    return xnor_paths[path]->pack(x, batch, channels, pixels, signs, nonzero);
}

XNOR_EXPORT void xnor_sum_signed(const struct xnor_sums *sums) { xnor_sum(sums); }

/* XNOR_OK, XNOR_ZEROS where signs were asked for and some are 0, or XNOR_NO_MEMORY. */
XNOR_EXPORT int xnor_run(int64_t path, const struct xnor_layer *layer, const struct xnor_call *call) {
    return xnor_paths[path]->run(layer, call);
}
