/* scaling.py's scale_crop for 8-bit pictures: bilinear scaling, crop, mirroring, normalising. The same float32
 * operations in the same order, so the same bits. Ports Main_scaleBilinear of torch/image, generic/image.c.
 *
 * Build with -ffp-contract=off: a fused multiply-add rounds once where Torch7 rounds twice. C with the vector extensions
 * of GCC and clang, called through ctypes, which releases the interpreter's lock.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

/* On x86 Linux the library holds the loops three times, and the processor at hand chooses. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))

#define LINE 64 /* bytes of a cache line */
#define LARGEST_SIDE (1 << 22) /* float32 tells neighbouring edges apart up to here; larger ones go to NumPy */

#define ROWS 4   /* source rows that are scaled across together */
#define PIXEL 4  /* floats to a pixel of such a block: red, green, blue, and one that is not used */
#define BLOCK (ROWS * PIXEL)

typedef float Four __attribute__((vector_size(16), aligned(4)));
typedef float Sixteen __attribute__((vector_size(64)));

/* The results start up to start + count of one axis. Each is
 *
 *     (weights[0] * source[first] + weights[1] * source[first + 1] + ...) / total
 *
 * Torch7 adds a share of the first pixel covered, whole pixels, a share of the last. A whole pixel is 1 times itself,
 * and what lies beyond those covered counts 0 times: neither changes a bit of a sum of finite numbers from 0 on.
 */
typedef struct {
    ptrdiff_t source_size, size, start, count;
    ptrdiff_t taps;    /* weights per result */
    int32_t *first;    /* [count] */
    float *weights;    /* [count][taps] */
    float *total;      /* [count]; used when shrinking */
} Axis;

static ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

typedef struct {
    ptrdiff_t whole;
    float share;
} Place;

/* Where result pixel i begins in the source when it covers source_size / size pixels of it. */
static Place edge(const Axis *axis, ptrdiff_t i)
{
    float step = (float)axis->source_size / (float)axis->size;
    float position = (float)i * step;
    Place place = {(ptrdiff_t)position, 0};
    if (place.whole >= axis->source_size)
        place.whole = axis->source_size; /* the source ends here */
    else
        place.share = position - (float)place.whole;
    return place;
}

/* Where result pixel i lies when the corner pixels of source and result coincide. */
static Place corner(const Axis *axis, ptrdiff_t i)
{
    ptrdiff_t last = axis->source_size - 1;
    float step = (float)last / (float)(axis->size > 1 ? axis->size - 1 : 1);
    float position = (float)i * step;
    Place place = {(ptrdiff_t)position, position - (float)(ptrdiff_t)position};
    if (place.whole > last) place.whole = last;
    if (i == axis->size - 1) { /* Torch7 copies the last pixel: rounding may have put its place a little before it */
        place.whole = last;
        place.share = 0;
    }
    return place;
}

static ptrdiff_t taps_needed(const Axis *axis)
{
    if (axis->size == axis->source_size) return 1;
    if (axis->size > axis->source_size) return 2;
    ptrdiff_t most = 0;
    for (ptrdiff_t i = axis->start; i < axis->start + axis->count; i++) {
        ptrdiff_t covered = edge(axis, i + 1).whole - edge(axis, i).whole;
        if (covered > most) most = covered;
    }
    return most + 1;
}

/* Fill result `at`, which is pixel i. */
static void plan_one(const Axis *axis, ptrdiff_t at, ptrdiff_t i)
{
    float *weights = axis->weights + at * axis->taps;
    for (ptrdiff_t tap = 0; tap < axis->taps; tap++) weights[tap] = 0;
    if (axis->size == axis->source_size) {
        axis->first[at] = (int32_t)i;
        weights[0] = 1;
    } else if (axis->size > axis->source_size) {
        Place place = corner(axis, i);
        axis->first[at] = (int32_t)place.whole;
        weights[0] = 1 - place.share;
        weights[1] = place.share;
    } else {
        Place from = edge(axis, i), to = edge(axis, i + 1);
        ptrdiff_t covered = to.whole - from.whole;
        axis->first[at] = (int32_t)from.whole;
        float total = weights[0] = 1 - from.share;
        for (ptrdiff_t tap = 1; tap < covered; tap++) {
            weights[tap] = 1;
            total += 1;
        }
        weights[covered] = to.share;
        axis->total[at] = total + to.share;
    }
}

static void plan(const Axis *axis, int is_mirrored)
{
    for (ptrdiff_t k = 0; k < axis->count; k++) plan_one(axis, is_mirrored ? axis->count - 1 - k : k, axis->start + k);
}

typedef struct {
    const uint8_t *pixels;
    ptrdiff_t pixel_bytes, row_bytes;
    float step;
    const float *normal;
    ptrdiff_t begin, end;     /* source columns needed */
    uint8_t *bytes;           /* room for all source pixels of four rows, BLOCK bytes each */
    Sixteen *block;           /* the same as floats, and `taps` pixels more, which are 0 */
    float *narrowed[2][ROWS]; /* source rows scaled across: row r of block r / ROWS, blocks alternate */
    float *sum;               /* a row of the result: red, green, blue */
    float *one;               /* a row of one colour */
} Work;

/* The needed pixels of four rows, side by side as `mix` wants them, from 0 to 1. */
INLINE void gather(const uint8_t *const *rows, const Work *work, ptrdiff_t pixel_bytes)
{
    uint8_t *restrict bytes = work->bytes;
    float *restrict pixels = (float *)work->block;
    ptrdiff_t begin = work->begin, end = work->end, last = end - 1;
    for (ptrdiff_t p = begin; p < last; p++)
        for (int k = 0; k < ROWS; k++) memcpy(bytes + BLOCK * p + PIXEL * k, rows[k] + pixel_bytes * p, PIXEL);
    for (int k = 0; k < ROWS; k++) /* nothing may be read behind the picture */
        memcpy(bytes + BLOCK * last + PIXEL * k, rows[k] + pixel_bytes * last, 3);
    for (ptrdiff_t i = BLOCK * begin; i < BLOCK * end; i++) pixels[i] = (float)bytes[i] * work->step;
}

INLINE void mix(const Sixteen *pixels, const Axis *axis, ptrdiff_t taps, float *const *out)
{
    const float *weights = axis->weights;
    int is_shrinking = axis->size < axis->source_size;
    for (ptrdiff_t x = 0; x < axis->count; x++, weights += taps) {
        const Sixteen *at = pixels + axis->first[x];
        Sixteen sum = at[0] * weights[0];
        for (ptrdiff_t tap = 1; tap < taps; tap++) sum += at[tap] * weights[tap];
        if (is_shrinking) sum /= axis->total[x];
        Four rows[ROWS];
        memcpy(rows, &sum, sizeof rows);
        for (int k = 0; k < ROWS; k++) *(Four *)(out[k] + 3 * x) = rows[k]; /* the fourth is written over by the next */
    }
}

/* Four source rows of red, green, blue, scaled across to `out`, each 3 * axis->count + 1 floats. */
INLINE void narrow(const uint8_t *const *rows, const Work *work, const Axis *axis, float *const *out)
{
    const Sixteen *pixels = work->block;
    if (work->pixel_bytes == 4) /* numbers the compiler knows, here and below */
        gather(rows, work, 4);
    else
        gather(rows, work, 3);
    switch (axis->taps) {
    case 1: mix(pixels, axis, 1, out); break;
    case 2: mix(pixels, axis, 2, out); break;
    case 3: mix(pixels, axis, 3, out); break;
    case 4: mix(pixels, axis, 4, out); break;
    default: mix(pixels, axis, axis->taps, out);
    }
}

/* Write a row that nobody reads soon, past the caches where that can be. Afterwards: finish_writing. */
INLINE void write_row(float *restrict out, const float *restrict values, ptrdiff_t width)
{
#ifdef __SSE__
    if (width % 4 == 0 && (uintptr_t)out % 16 == 0) {
        for (ptrdiff_t x = 0; x < width; x += 4) _mm_stream_ps(out + x, _mm_load_ps(values + x));
        return;
    }
#endif
    memcpy(out, values, (size_t)width * sizeof(float));
}

static void finish_writing(void)
{
#ifdef __SSE__
    _mm_sfence();
#endif
}

/* One finished row of red, green, blue to three planes: (value - mean) / std where `normal` gives -mean and std. */
INLINE void spread(const float *restrict row, ptrdiff_t width, const float *normal, float *restrict one, float *out,
                   ptrdiff_t plane)
{
    for (int c = 0; c < 3; c++) {
        if (normal) {
            float minus_mean = normal[c], std = normal[3 + c];
            for (ptrdiff_t x = 0; x < width; x++) one[x] = (row[3 * x + c] + minus_mean) / std;
        } else {
            for (ptrdiff_t x = 0; x < width; x++) one[x] = row[3 * x + c];
        }
        write_row(out + c * plane, one, width);
    }
}

FOR_EACH_PROCESSOR
static void scale_rows(const Work *work, const Axis *across, const Axis *down, float *out)
{
    ptrdiff_t length = 3 * across->count, held[2] = {-1, -1};
    float *restrict sum = work->sum;
    for (ptrdiff_t y = 0; y < down->count; y++) {
        for (ptrdiff_t tap = 0; tap < down->taps; tap++) {
            ptrdiff_t r = down->first[y] + tap, block = r / ROWS;
            float weight = down->weights[y * down->taps + tap];
            if (weight == 0) continue; /* also what lies behind the last row */
            if (held[block % 2] != block) {
                const uint8_t *rows[ROWS];
                for (int k = 0; k < ROWS; k++)
                    rows[k] = work->pixels + smaller(block * ROWS + k, down->source_size - 1) * work->row_bytes;
                narrow(rows, work, across, work->narrowed[block % 2]);
                held[block % 2] = block;
            }
            const float *restrict narrowed = work->narrowed[block % 2][r % ROWS];
            if (tap == 0)
                for (ptrdiff_t i = 0; i < length; i++) sum[i] = narrowed[i] * weight;
            else
                for (ptrdiff_t i = 0; i < length; i++) sum[i] += narrowed[i] * weight;
        }
        if (down->size < down->source_size) {
            float total = down->total[y];
            for (ptrdiff_t i = 0; i < length; i++) sum[i] /= total;
        }
        spread(sum, across->count, work->normal, work->one, out + y * across->count, down->count * across->count);
    }
}

/* The next `bytes` of a block of memory, on a cache line; without a block only counted. */
static void *take(char *block, size_t *used, size_t bytes)
{
    void *taken = block ? block + *used : NULL;
    *used += (bytes + LINE - 1) / LINE * LINE;
    return taken;
}

static size_t lay_out(char *block, Axis *across, Axis *down, Work *work)
{
    size_t used = 0, width = (size_t)across->count, height = (size_t)down->count, row = (3 * width + 1) * sizeof(float);
    size_t pixels = (size_t)(across->source_size + across->taps);
    across->first = take(block, &used, width * sizeof(int32_t));
    across->weights = take(block, &used, width * (size_t)across->taps * sizeof(float));
    across->total = take(block, &used, width * sizeof(float));
    down->first = take(block, &used, height * sizeof(int32_t));
    down->weights = take(block, &used, height * (size_t)down->taps * sizeof(float));
    down->total = take(block, &used, height * sizeof(float));
    for (int k = 0; k < 2 * ROWS; k++) work->narrowed[k / ROWS][k % ROWS] = take(block, &used, row);
    work->sum = take(block, &used, row);
    work->one = take(block, &used, row);
    work->bytes = take(block, &used, pixels * BLOCK);
    work->block = take(block, &used, pixels * sizeof(Sixteen));
    return used;
}

/* pixels: red, green, blue in 3 or 4 bytes (pixel_bytes), rows row_bytes apart. sizes: source width and height, scaled
 * width and height, then the crop's left, top, width and height in the scaled picture. normal: NULL, or -mean and std of
 * red, green and blue. out: [3][crop height][crop width]. Returns 0; 1 where nothing was done, because the picture is
 * too large or memory is out. The caller has checked that the crop is inside.
 */
int lua_image_scale_crop(const uint8_t *pixels, ptrdiff_t pixel_bytes, ptrdiff_t row_bytes, const int64_t *sizes,
                         int is_mirrored, float step, const float *normal, float *out)
{
    Axis across = {sizes[0], sizes[2], sizes[4], sizes[6], 0, NULL, NULL, NULL};
    Axis down = {sizes[1], sizes[3], sizes[5], sizes[7], 0, NULL, NULL, NULL};
    Work work = {.pixels = pixels, .pixel_bytes = pixel_bytes, .row_bytes = row_bytes, .step = step, .normal = normal};
    for (int i = 0; i < 4; i++)
        if (sizes[i] > LARGEST_SIDE) return 1;
    across.taps = taps_needed(&across);
    down.taps = taps_needed(&down);
    void *memory = malloc(lay_out(NULL, &across, &down, &work) + LINE);
    if (!memory) return 1;
    lay_out((char *)memory + (LINE - (uintptr_t)memory % LINE), &across, &down, &work);
    plan(&across, is_mirrored);
    plan(&down, 0);
    ptrdiff_t lowest = across.first[is_mirrored ? across.count - 1 : 0];
    ptrdiff_t highest = across.first[is_mirrored ? 0 : across.count - 1];
    work.begin = lowest;
    work.end = smaller(highest + across.taps, across.source_size);
    memset(work.block + work.end, 0, (size_t)across.taps * sizeof(Sixteen));
    scale_rows(&work, &across, &down, out);
    finish_writing();
    free(memory);
    return 0;
}
