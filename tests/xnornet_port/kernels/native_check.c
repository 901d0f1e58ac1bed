/* Every code path of xnor_cpu.c against the definition, over random cases: `native_check CASES SEED`.
 *
 * A program of its own, so that it also runs under sanitizers and under an emulator of another processor. Prints the
 * cases per path; exit code 1 with the first difference.
 */
#define XNOR_CACHE_BYTES 8192 /* about half of the cases have larger results */
#include "../../../xnornet_port/kernels/native/xnor_cpu.c"

#include <stdio.h>

static uint64_t state;

static uint64_t random_bits(void) { /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static int64_t between(int64_t low, int64_t high) { return low + (int64_t)(random_bits() % (uint64_t)(high - low + 1)); }

static int sign(float v) { return (v > 0) - (v < 0); }

struct problem {
    struct xnor_layer layer;
    struct xnor_pooling pooling;
    int64_t batch, words;
    float *x, *w, *alpha, *bias;
    uint64_t *signs, *nonzero, *weight_signs;
    int32_t *dots, *pooled, *pixel_class, *base, *flip, *positive_from, *negative_to;
    int has_zeros;
};

enum { ROOM = 192 }; /* filters past the last one, up to a whole number of panels */

static void *room(int64_t n, size_t size) {
    void *memory = calloc((size_t)n + 1, size);
    if (!memory) exit(2);
    return memory;
}

static void draw_sizes(struct problem *p) {
    struct xnor_layer *l = &p->layer;
    const int64_t odd[] = {31, 32, 33, 63, 64, 65, 96, 128, 130, 200};
    l->channels = between(0, 1) ? between(1, 40) : odd[between(0, 9)];
    l->filters = between(0, 1) ? between(1, 20) : between(1, 130);
    l->kernel_y = between(1, 4), l->kernel_x = between(1, 4);
    l->stride_y = between(1, 3), l->stride_x = between(1, 3);
    l->padding_y = between(0, 3), l->padding_x = between(0, 3);
    l->dilation_y = between(1, 2), l->dilation_x = between(1, 2);
    do {
        l->height = between(1, 24), l->width = between(1, 24);
    } while (l->height + 2 * l->padding_y < l->dilation_y * (l->kernel_y - 1) + 1 ||
             l->width + 2 * l->padding_x < l->dilation_x * (l->kernel_x - 1) + 1);
    l->out_height = (l->height + 2 * l->padding_y - l->dilation_y * (l->kernel_y - 1) - 1) / l->stride_y + 1;
    l->out_width = (l->width + 2 * l->padding_x - l->dilation_x * (l->kernel_x - 1) - 1) / l->stride_x + 1;
    p->batch = between(0, 3) ? between(1, 4) : between(5, 14); /* the latter are cut into parts for each thread */
    p->words = (l->channels + 63) / 64;
    struct xnor_pooling *q = &p->pooling;
    if (between(0, 1)) {
        q->kernel_y = between(1, xnor_min(3, l->out_height)), q->kernel_x = between(1, xnor_min(3, l->out_width));
        q->stride_y = between(1, 3), q->stride_x = between(1, 3);
        q->padding_y = between(0, q->kernel_y / 2), q->padding_x = between(0, q->kernel_x / 2);
        q->out_height = (l->out_height + 2 * q->padding_y - q->kernel_y) / q->stride_y + 1;
        q->out_width = (l->out_width + 2 * q->padding_x - q->kernel_x) / q->stride_x + 1;
    }
}

static void draw_values(struct problem *p) {
    const struct xnor_layer *l = &p->layer;
    const int64_t pixels = l->height * l->width, taps = l->kernel_y * l->kernel_x;
    const int zeros = (int)between(0, 2); /* none, one, many */
    p->x = room(p->batch * l->channels * pixels, 4);
    p->signs = room(p->batch * pixels * p->words, 8);
    p->nonzero = room(p->batch * pixels * p->words, 8);
    const int64_t lonely = between(0, p->batch * l->channels * pixels - 1);
    for (int64_t i = 0; i < p->batch * l->channels * pixels; i++) {
        const int64_t n = i / l->channels / pixels, c = i / pixels % l->channels, at = (n * pixels + i % pixels);
        p->x[i] = (float)between(1, 1000) * (between(0, 1) ? 1 : -1);
        if ((zeros == 1 && i == lonely) || (zeros == 2 && !between(0, 3)))
            p->x[i] = between(0, 2) == 0 ? -0.0f : between(0, 1) ? 0.0f : NAN;
        if (sign(p->x[i]) == 0) p->has_zeros = 1;
        else p->nonzero[at * p->words + c / 64] |= UINT64_C(1) << c % 64;
        if (sign(p->x[i]) < 0) p->signs[at * p->words + c / 64] |= UINT64_C(1) << c % 64;
    }
    p->w = room(l->filters * taps * l->channels, 4);
    p->weight_signs = room(l->filters * taps * p->words, 8);
    for (int64_t i = 0; i < l->filters * taps * l->channels; i++) { /* [filter][tap][channel] */
        p->w[i] = between(0, 1) ? 1.0f : -1.0f;
        const int64_t c = i % l->channels, at = i / l->channels;
        if (p->w[i] < 0) p->weight_signs[at * p->words + c / 64] |= UINT64_C(1) << c % 64;
    }
    p->alpha = room(l->filters + ROOM, 4), p->bias = room(l->filters + ROOM, 4);
    p->flip = room(l->filters + ROOM, 4);
    p->positive_from = room(l->filters + ROOM, 4), p->negative_to = room(l->filters + ROOM, 4);
    for (int64_t o = 0; o < l->filters; o++) {
        p->alpha[o] = (float)between(1, 1 << 24) / 3e7f, p->bias[o] = (float)between(-9999, 9999) / 777;
        p->flip[o] = (int32_t)between(-1, 0);
        p->positive_from[o] = (int32_t)between(-5, 5);
        p->negative_to[o] = p->positive_from[o] - (int32_t)between(1, 3);
    }
}

/* The definition: dots [picture][filter][pixel]; each pixel is a class of its own. */
static void solve(struct problem *p) {
    struct xnor_layer *l = &p->layer;
    const int64_t all = l->out_height * l->out_width, taps = l->kernel_y * l->kernel_x;
    p->dots = room(p->batch * l->filters * all, 4);
    p->pixel_class = room(all, 4);
    for (int64_t i = 0; i < p->batch * l->filters * all; i++) {
        const int64_t n = i / l->filters / all, o = i / all % l->filters, y = i % all / l->out_width, x = i % l->out_width;
        int32_t dot = 0;
        for (int64_t t = 0; t < taps; t++) {
            const int64_t row = y * l->stride_y - l->padding_y + t / l->kernel_x * l->dilation_y;
            const int64_t column = x * l->stride_x - l->padding_x + t % l->kernel_x * l->dilation_x;
            if (row < 0 || row >= l->height || column < 0 || column >= l->width) continue;
            for (int64_t c = 0; c < l->channels; c++)
                dot += sign(p->x[((n * l->channels + c) * l->height + row) * l->width + column]) *
                       (int32_t)p->w[(o * taps + t) * l->channels + c];
        }
        p->dots[i] = dot;
        p->pixel_class[i % all] = (int32_t)(i % all);
    }
    const struct xnor_pooling *q = &p->pooling;
    p->pooled = room(p->batch * l->filters * (q->kernel_y ? q->out_height * q->out_width : all), 4);
    if (!q->kernel_y) memcpy(p->pooled, p->dots, 4 * (size_t)(p->batch * l->filters * all));
    for (int64_t i = 0; q->kernel_y && i < p->batch * l->filters * q->out_height * q->out_width; i++) {
        const int64_t plane = i / (q->out_height * q->out_width), y = i / q->out_width % q->out_height, x = i % q->out_width;
        p->pooled[i] = INT32_MIN;
        for (int64_t row = y * q->stride_y - q->padding_y; row < y * q->stride_y - q->padding_y + q->kernel_y; row++)
            for (int64_t column = x * q->stride_x - q->padding_x; column < x * q->stride_x - q->padding_x + q->kernel_x;
                 column++)
                if (row >= 0 && row < l->out_height && column >= 0 && column < l->out_width) {
                    const int32_t dot = p->dots[plane * all + row * l->out_width + column];
                    if (dot > p->pooled[i]) p->pooled[i] = dot;
                }
    }
}

static void fill_base(struct problem *p, int64_t panel) {
    struct xnor_layer *l = &p->layer;
    const int64_t all = l->out_height * l->out_width, taps = l->kernel_y * l->kernel_x;
    p->base = room((l->filters + ROOM) * all, 4);
    for (int64_t o = 0; o < l->filters; o++)
        for (int64_t pixel = 0; pixel < all; pixel++) {
            int32_t base = 0;
            for (int64_t t = 0; t < taps; t++) {
                const int64_t row = pixel / l->out_width * l->stride_y - l->padding_y + t / l->kernel_x * l->dilation_y;
                const int64_t column = pixel % l->out_width * l->stride_x - l->padding_x + t % l->kernel_x * l->dilation_x;
                const int inside = row >= 0 && row < l->height && column >= 0 && column < l->width;
                for (int64_t c = 0; c < l->channels; c++)
                    base += inside ? 1 : 2 * (p->w[(o * taps + t) * l->channels + c] < 0);
            }
            p->base[(o / panel * all + pixel) * panel + o % panel] = base;
        }
    l->n_classes = all, l->base = p->base, l->pixel_class = p->pixel_class, l->alpha = p->alpha, l->bias = p->bias;
}

static int fail(const char *path, const char *what, const struct problem *p, int64_t at) {
    const struct xnor_layer *l = &p->layer;
    printf("%s: %s differs at %lld: channels %lld of %lldx%lld, filters %lld of %lldx%lld, stride %lld %lld, padding "
           "%lld %lld, dilation %lld %lld, batch %lld\n",
           path, what, (long long)at, (long long)l->channels, (long long)l->height, (long long)l->width,
           (long long)l->filters, (long long)l->kernel_y, (long long)l->kernel_x, (long long)l->stride_y,
           (long long)l->stride_x, (long long)l->padding_y, (long long)l->padding_x, (long long)l->dilation_y,
           (long long)l->dilation_x, (long long)p->batch);
    return 1;
}

static int check_signs(const char *name, const struct xnor_path *path, struct problem *p, struct xnor_call *call) {
    const struct xnor_layer *l = &p->layer;
    const int64_t all = p->pooling.kernel_y ? p->pooling.out_height * p->pooling.out_width : l->out_height * l->out_width;
    const int64_t words = (l->filters + 63) / 64;
    int is_wrong = 0, has_zeros = 0;
    call->result = XNOR_SIGNS, call->pooling = p->pooling;
    call->out_signs = room(p->batch * all * words, 8), call->out_nonzero = room(p->batch * all * words, 8);
    const int status = path->run(l, call);
    for (int64_t i = 0; i < p->batch * all * 64 * words && !is_wrong; i++) {
        const int64_t o = i % (64 * words), pixel = i / (64 * words) % all, n = i / (64 * words) / all;
        int expected = 0;
        if (o < l->filters) {
            const int32_t dot = p->pooled[(n * l->filters + o) * all + pixel] * (p->flip[o] ? -1 : 1);
            expected = dot >= p->positive_from[o] ? 1 : dot <= p->negative_to[o] ? -1 : 0;
            has_zeros |= !expected;
        }
        if ((int)(call->out_signs[i / 64] >> i % 64 & 1) != (expected < 0) ||
            (int)(call->out_nonzero[i / 64] >> i % 64 & 1) != (expected != 0))
            is_wrong = fail(name, "a sign", p, i);
    }
    if (!is_wrong && status != (has_zeros ? XNOR_ZEROS : XNOR_OK)) is_wrong = fail(name, "the status", p, status);
    free(call->out_signs), free(call->out_nonzero);
    return is_wrong;
}

static int check(const struct xnor_path *path, struct problem *p, int is_packed) {
    struct xnor_layer *l = &p->layer;
    const int64_t n = p->batch * l->filters * l->out_height * l->out_width;
    struct xnor_call call = {.batch = p->batch, .threads = between(1, 3), .flip = p->flip,
                             .positive_from = p->positive_from, .negative_to = p->negative_to};
    if (is_packed) call.signs = p->signs, call.nonzero = p->has_zeros ? p->nonzero : NULL;
    else call.x = p->x;
    int32_t *dots = room(n, 4);
    float *scaled = room(n, 4);
    call.result = XNOR_DOTS, call.out = dots;
    int is_wrong = path->run(l, &call) != XNOR_OK;
    call.result = XNOR_SCALED, call.out = scaled;
    is_wrong |= path->run(l, &call) != XNOR_OK;
    for (int64_t i = 0; i < n && !is_wrong; i++) {
        const int64_t o = i / (l->out_height * l->out_width) % l->filters;
        if (dots[i] != p->dots[i]) is_wrong = fail(path->name, "a dot product", p, i);
        else if (scaled[i] != fmaf(p->alpha[o], (float)dots[i], p->bias[o])) is_wrong = fail(path->name, "a result", p, i);
    }
    free(dots), free(scaled);
    return is_wrong || check_signs(path->name, path, p, &call);
}

static int check_pack(const struct xnor_path *path, struct problem *p) {
    const int64_t pixels = p->layer.height * p->layer.width, n = p->batch * pixels * p->words;
    uint64_t *signs = room(n, 8), *nonzero = room(n, 8);
    int is_wrong = path->pack(p->x, p->batch, p->layer.channels, pixels, signs, NULL) != p->has_zeros;
    path->pack(p->x, p->batch, p->layer.channels, pixels, signs, nonzero);
    is_wrong |= memcmp(signs, p->signs, 8 * (size_t)n) || memcmp(nonzero, p->nonzero, 8 * (size_t)n);
    free(signs), free(nonzero);
    return is_wrong && fail(path->name, "packing", p, 0);
}

static int run_case(void) {
    struct problem p = {0};
    draw_sizes(&p), draw_values(&p), solve(&p);
    int is_wrong = 0;
    for (int64_t i = 0; i < xnor_n_paths() && !is_wrong; i++) {
        const struct xnor_path *path = xnor_paths[i];
        if (!path->is_available()) continue;
        void *weights = aligned_alloc(64, (size_t)xnor_ceil_div(path->weight_bytes(&p.layer), 64) * 64);
        if (!weights) exit(2);
        path->prepare(&p.layer, p.weight_signs, weights);
        p.layer.weights = weights;
        fill_base(&p, path->panel);
        is_wrong = check_pack(path, &p) || check(path, &p, 0) || check(path, &p, 1);
        free(p.base), free(weights);
    }
    free(p.x), free(p.w), free(p.alpha), free(p.bias), free(p.signs), free(p.nonzero), free(p.weight_signs);
    free(p.dots), free(p.pooled), free(p.pixel_class), free(p.flip), free(p.positive_from), free(p.negative_to);
    return is_wrong;
}

/* Products of whole numbers with signs, which are exact. */
static int check_sums(void) {
    const int64_t rows = between(1, 11), filters = between(1, 150), inputs = between(1, 90), bytes = (inputs + 7) / 8;
    float *x = room(rows * bytes * 8, sizeof *x), *out = room(rows * filters, sizeof *out);
    float *alpha = room(filters, sizeof *alpha), *bias = room(filters, sizeof *bias);
    uint8_t *signs = room(filters * bytes, 1);
    const int has_bias = (int)between(0, 1);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < inputs; k++) x[r * bytes * 8 + k] = (float)between(-99, 99);
    for (int64_t i = 0; i < filters * bytes; i++) signs[i] = (uint8_t)between(0, 255);
    for (int64_t o = 0; o < filters; o++) alpha[o] = 0.25f, bias[o] = (float)between(-9, 9);
    const struct xnor_sums sums = {x, signs, alpha, has_bias ? bias : NULL, out, rows, filters, bytes, between(1, 3), NULL};
    xnor_sum_signed(&sums);
    int differs = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < filters; o++) {
            int64_t dot = 0;
            for (int64_t k = 0; k < inputs; k++) {
                const int64_t value = (int64_t)x[r * bytes * 8 + k];
                dot += signs[o * bytes + k / 8] >> k % 8 & 1 ? -value : value;
            }
            differs |= out[r * filters + o] != (float)dot / 4 + (has_bias ? bias[o] : 0);
        }
    free(x), free(out), free(alpha), free(bias), free(signs);
    if (differs) printf("sums of %ld inputs, %ld rows, %ld filters differ\n", (long)inputs, (long)rows, (long)filters);
    return differs;
}

int main(int n_arguments, char **arguments) {
    const long n_cases = n_arguments > 1 ? atol(arguments[1]) : 100;
    state = n_arguments > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    for (long i = 0; i < n_cases; i++)
        if (run_case() || check_sums()) {
            printf("case %ld\n", i);
            return 1;
        }
    for (int64_t i = 0; i < xnor_n_paths(); i++)
        printf("%s: %s\n", xnor_path_name(i), xnor_path_is_available(i) ? "exact" : "not available here");
    printf("%ld cases\n", n_cases);
    return 0;
}
