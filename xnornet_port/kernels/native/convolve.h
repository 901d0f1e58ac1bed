/* The algorithm for a part of a batch, compiled once per code path (PATH(name) gives each its own names).
 *
 * 1. pack:    pictures to padded sign bits; pictures with zeros (or NaN) in them are noted
 * 2. mask:    a plane of what is not 0, only for chunks of pictures in which a zero was found
 * 3. multiply: per chunk of output pixels and panel of filters: count differing bits and make dot products of them, tile
 *    by tile, and scale and store these, or pool them, compare with thresholds and store bits
 *
 * A chunk is several small pictures, one picture, or a piece of a large one: enough pixels for full tiles, few enough
 * to stay in the first-level cache. batch.h makes the parts.
 */

/* One part of a batch. */
struct PATH(job) {
    const struct xnor_layer *layer;
    const struct xnor_call *call;
    struct xnor_window window;
    int is_streamed;           /* the results go past the caches */
    const uint8_t *ahead;      /* the next part's floats, fetched from memory while this one is multiplied; or NULL */
    uint32_t *signs, *nonzero; /* [batch][padded_height][padded_width][units]; `nonzero` right behind `signs` */
    uint8_t *encoded;          /* instead of both, where a path has its own form of a picture */
#ifdef PATH_ENCODES
    const struct PATH(table) *table;
#endif
    uint8_t *has_zeros;        /* per picture (and part of its rows) */
    int32_t *n_nonzero;        /* [batch][out_height][out_width]: places in the window that are not 0 */
    int64_t picture_units, n_panels;
    int64_t row_parts;         /* pieces of a picture in stage 1 */
    int64_t chunk_pictures, picture_pieces, panel_parts;
    atomic_int has_zero_results, is_out_of_memory;
};

static int64_t PATH(out_pixels)(const struct xnor_layer *layer) { return layer->out_height * layer->out_width; }

/* ---- 1. pack ---- */

static void PATH(copy_rows)(const struct PATH(job) *job, const uint64_t *words, int64_t picture, int64_t from,
                            int64_t to, uint32_t *out) {
    const struct xnor_layer *layer = job->layer;
    const int64_t units = xnor_units(layer->channels), per_pixel = xnor_words(layer->channels);
    for (int64_t y = from; y < to; y++) {
        const uint64_t *row = words + (picture * layer->height + y) * layer->width * per_pixel;
        uint32_t *into = out + xnor_padded_pixel(layer, y, 0) * units;
        for (int64_t x = 0; x < layer->width; x++) memcpy(into + x * units, row + x * per_pixel, 4 * (size_t)units);
    }
}

static int PATH(pack_padded)(const struct xnor_layer *layer, const float *x, int64_t from, int64_t to, uint32_t *signs,
                             uint32_t *nonzero) {
    const int64_t units = xnor_units(layer->channels), pixels = layer->height * layer->width;
    int found = 0;
    for (int64_t y = from; y < to; y++, x += layer->width) {
        const int64_t at = xnor_padded_pixel(layer, y, 0) * units;
        found |= PATH(pack_pixels)(x, pixels, layer->channels, layer->width, signs + at, nonzero + at, units);
    }
    return found;
}

/* Rows of a picture; the plane of what is not 0 serves as a place for them where it is not asked for. */
static int PATH(pack_rows)(const struct PATH(job) *job, int64_t picture, int64_t from, int64_t to, uint32_t *signs,
                           uint32_t *nonzero) {
    const struct xnor_layer *layer = job->layer;
    const int64_t units = xnor_units(layer->channels), pixels = layer->height * layer->width;
    const float *x = job->call->x + picture * layer->channels * pixels;
    if (from >= to) return 0;
    if (pixels == 1) {
        const int64_t at = xnor_padded_pixel(layer, 0, 0) * units;
        return PATH(pack_channels)(x, layer->channels, signs + at, nonzero ? nonzero + at : NULL);
    }
    const int64_t n = (to - from) * layer->width;
    x += from * layer->width;
    if (nonzero) return PATH(pack_padded)(layer, x, from, to, signs, nonzero);
    /* All rows at once, for a row seldom is a whole number of vectors; put apart afterwards. */
    uint32_t *rows = job->nonzero + picture * job->picture_units + from * layer->width * units;
    const int found = PATH(pack_pixels)(x, pixels, layer->channels, n, rows, NULL, units);
    for (int64_t y = from; y < to; y++, rows += layer->width * units)
        memcpy(signs + xnor_padded_pixel(layer, y, 0) * units, rows, 4 * (size_t)(layer->width * units));
    return found;
}

static void PATH(pack_item)(void *context, int64_t index) {
    struct PATH(job) *job = context;
    const struct xnor_layer *layer = job->layer;
    const int64_t picture = index / job->row_parts, part = index % job->row_parts;
    const int64_t height = xnor_padded_height(layer), row = xnor_padded_width(layer) * xnor_units(layer->channels);
    const int64_t top = height * part / job->row_parts, bottom = height * (part + 1) / job->row_parts;
    const int64_t from = top > layer->padding_y ? top - layer->padding_y : 0;
    const int64_t to = xnor_min(bottom - layer->padding_y, layer->height);
    uint32_t *signs = job->signs + picture * job->picture_units;
    memset(signs + top * row, 0, 4 * (size_t)((bottom - top) * row));
    if (job->call->signs) PATH(copy_rows)(job, job->call->signs, picture, from, to, signs);
    else if (PATH(pack_rows)(job, picture, from, to, signs, NULL)) job->has_zeros[index] = 1;
}

/* ---- 2. mask ---- */

static int PATH(chunk_has_zeros)(const struct PATH(job) *job, int64_t picture) {
    const int64_t first = picture / job->chunk_pictures * job->chunk_pictures;
    const int64_t last = xnor_min(first + job->chunk_pictures, job->call->batch);
    for (int64_t i = first * job->row_parts; i < last * job->row_parts; i++)
        if (job->has_zeros[i]) return 1;
    return 0;
}

/* Per output pixel the number of places that are not 0: those of each pixel added up over the window. */
static void PATH(count_nonzero)(const struct PATH(job) *job, const uint32_t *nonzero, int32_t *out) {
    const struct xnor_layer *layer = job->layer;
    const int64_t units = xnor_units(layer->channels), width = xnor_padded_width(layer);
    for (int64_t y = 0; y < layer->out_height; y++)
        for (int64_t x = 0; x < layer->out_width; x++) {
            const uint32_t *window = nonzero + (y * layer->stride_y * width + x * layer->stride_x) * units;
            uint64_t n = 0;
            for (int64_t run = 0; run < xnor_n_runs(layer); run++)
                for (int64_t unit = 0; unit < xnor_run_units(layer); unit++)
                    n += PATH(popcount)(window[xnor_run_start(layer, run) + unit]);
            *out++ = (int32_t)n;
        }
}

static void PATH(mask_item)(void *context, int64_t picture) {
    struct PATH(job) *job = context;
    const struct xnor_layer *layer = job->layer;
    uint32_t *signs = job->signs + picture * job->picture_units;
    uint32_t *nonzero = job->nonzero + picture * job->picture_units;
    const int is_masked = PATH(chunk_has_zeros)(job, picture);
    if (is_masked) {
        memset(nonzero, 0, 4 * (size_t)job->picture_units);
        if (job->call->signs) PATH(copy_rows)(job, job->call->nonzero, picture, 0, layer->height, nonzero);
        else PATH(pack_rows)(job, picture, 0, layer->height, signs, nonzero);
        PATH(count_nonzero)(job, nonzero, job->n_nonzero + picture * PATH(out_pixels)(layer));
    }
#ifdef PATH_ENCODES
    PATH(encode)(job->table, signs, is_masked ? nonzero : NULL, job->picture_units,
                 job->encoded + picture * job->picture_units * 8);
#endif
}

/* ---- 3. multiply ---- */

struct PATH(chunk) {
    int64_t picture, n_pictures; /* pictures of this chunk */
    int64_t pixel, n_pixels;     /* output pixels of each */
    int is_masked;
    const uint8_t **windows;     /* where each pixel's window begins */
    const int32_t **starts;      /* and its dot products, before what differs is taken off: see struct xnor_dots */
    const int32_t **dot_rows;    /* the starts of a panel's second set of weights: `dots`; or NULL */
    int32_t *nonzero_starts;     /* [picture][pixel][panel]: the starts where zeros take part, or NULL */
    const uint8_t *ahead;        /* memory to fetch with the next tile, so many bytes; or NULL */
    int64_t ahead_bytes;
    int32_t *dots;               /* [picture][pixel][panel] */
    int32_t *pooled;             /* the same after pooling, or NULL */
    float *rows;                 /* [panel][pixel] of one picture's results before they are streamed, or NULL */
};

static void PATH(fill_windows)(const struct PATH(job) *job, const struct PATH(chunk) *chunk) {
    const struct xnor_layer *layer = job->layer;
    const int64_t unit_bytes = PATH(is_encoded) ? 8 : 4, pixel = unit_bytes * xnor_units(layer->channels);
    const int64_t row = layer->stride_y * xnor_padded_width(layer) * pixel, step = layer->stride_x * pixel;
    const uint8_t *picture = PATH(is_encoded) ? job->encoded : (const uint8_t *)job->signs;
    const uint8_t **window = chunk->windows;
    picture += unit_bytes * chunk->picture * job->picture_units;
    for (int64_t i = 0; i < chunk->n_pictures; i++, picture += unit_bytes * job->picture_units) {
        int64_t y = chunk->pixel / layer->out_width, x = chunk->pixel % layer->out_width;
        for (int64_t p = 0; p < chunk->n_pixels; p++) {
            *window++ = picture + y * row + x * step;
            if (++x == layer->out_width) x = 0, y++;
        }
    }
}

/* A panel's integers; written as a vector, for gcc 12 makes pieces of a loop that wait for each other in memory. */
typedef int32_t PATH(vector) __attribute__((vector_size(4 * PATH(panel)), aligned(4), may_alias));

/* Those of the first panel; the next ones' follow at equal distances. Where zeros take part, all panels have the same. */
static void PATH(fill_starts)(const struct PATH(job) *job, const struct PATH(chunk) *chunk) {
    const struct xnor_layer *layer = job->layer;
    for (int64_t i = 0, k = 0; i < chunk->n_pictures; i++) {
        const int64_t at = (chunk->picture + i) * PATH(out_pixels)(layer) + chunk->pixel;
        for (int64_t p = 0; p < chunk->n_pixels; p++, k++) {
            if (chunk->dot_rows) chunk->dot_rows[k] = chunk->dots + k * PATH(panel);
            chunk->starts[k] = layer->base + layer->pixel_class[chunk->pixel + p] * PATH(panel);
            if (!chunk->is_masked) continue;
            chunk->starts[k] = chunk->nonzero_starts + k * PATH(panel);
            ((PATH(vector) *)chunk->nonzero_starts)[k] = (PATH(vector)){0} + job->n_nonzero[at + p];
        }
    }
}

static void PATH(share_ahead)(const struct PATH(job) *job, struct PATH(chunk) *chunk, int64_t piece) {
    const struct xnor_layer *layer = job->layer;
    const int64_t bytes = 4 * job->call->batch * layer->channels * layer->height * layer->width / job->picture_pieces;
    const int64_t tiles = job->n_panels * xnor_ceil_div(chunk->n_pictures * chunk->n_pixels, PATH(tile_rows));
    chunk->ahead = job->ahead ? job->ahead + piece * bytes : NULL;
    chunk->ahead_bytes = job->ahead ? xnor_ceil_div(xnor_ceil_div(bytes, tiles), 64) * 64 : 0;
}

static void PATH(place_chunk)(const struct PATH(job) *job, int64_t index, struct PATH(chunk) *chunk) {
    const int64_t all = PATH(out_pixels)(job->layer), piece = index % job->picture_pieces;
    chunk->picture = index / job->picture_pieces * job->chunk_pictures;
    chunk->n_pictures = xnor_min(job->chunk_pictures, job->call->batch - chunk->picture);
    /* pieces begin at multiples of 16 pixels, which keeps their stores aligned */
    chunk->pixel = all * piece / job->picture_pieces / 16 * 16;
    const int64_t end = piece + 1 == job->picture_pieces ? all : all * (piece + 1) / job->picture_pieces / 16 * 16;
    chunk->n_pixels = end - chunk->pixel;
    chunk->is_masked = PATH(chunk_has_zeros)(job, chunk->picture);
    PATH(share_ahead)(job, chunk, piece);
}

/* 0 where there is no memory for it; what there is belongs to the chunk all the same. */
static int PATH(allocate_chunk)(const struct PATH(job) *job, struct PATH(chunk) *chunk) {
    const struct xnor_pooling *pooling = &job->call->pooling;
    const int has_second = job->layer->second_panel != NULL, is_pooled = pooling->kernel_y > 0;
    const size_t n = (size_t)(chunk->n_pictures * chunk->n_pixels), panel = 4 * PATH(panel);
    const size_t n_pooled = (size_t)(chunk->n_pictures * pooling->out_height * pooling->out_width);
    chunk->windows = malloc(sizeof(*chunk->windows) * n);
    chunk->starts = malloc(sizeof(*chunk->starts) * n);
    chunk->dots = xnor_allocate_lines(panel * n);
    chunk->dot_rows = has_second ? malloc(sizeof(*chunk->dot_rows) * n) : NULL;
    chunk->nonzero_starts = chunk->is_masked ? xnor_allocate_lines(panel * n) : NULL;
    chunk->pooled = is_pooled ? xnor_allocate_lines(panel * n_pooled) : NULL;
    chunk->rows = job->is_streamed ? xnor_allocate_lines(panel * (size_t)chunk->n_pixels) : NULL;
    return chunk->windows && chunk->starts && chunk->dots && (chunk->dot_rows || !has_second) &&
           (chunk->nonzero_starts || !chunk->is_masked) && (chunk->pooled || !is_pooled) &&
           (chunk->rows || !job->is_streamed);
}

static int PATH(open_chunk)(const struct PATH(job) *job, int64_t index, struct PATH(chunk) *chunk) {
    PATH(place_chunk)(job, index, chunk);
    if (!PATH(allocate_chunk)(job, chunk)) return 0;
    PATH(fill_windows)(job, chunk);
    PATH(fill_starts)(job, chunk);
    return 1;
}

static void PATH(close_chunk)(struct PATH(chunk) *chunk) {
    free(chunk->windows);
    free(chunk->dots);
    free(chunk->starts);
    free(chunk->dot_rows);
    free(chunk->nonzero_starts);
    free(chunk->pooled);
    free(chunk->rows);
}

/* Has memory brought to the second-level cache; returns where it ends. */
static inline const uint8_t *PATH(fetch)(const uint8_t *from, int64_t n_bytes) {
    for (int64_t i = 0; i < n_bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
    return n_bytes ? from + n_bytes : from; /* nothing may be added to NULL, not even 0 */
}

/* Dot products of a set of weights with every pixel of the chunk, in tiles of as equal heights as can be. */
static void PATH(multiply_panel)(const struct PATH(job) *job, struct PATH(chunk) *chunk, int64_t panel,
                                 struct xnor_dots dots) {
    enum { FEW_TILES = 6 };
    const int64_t n = chunk->n_pictures * chunk->n_pixels;
    const int64_t tiles = xnor_ceil_div(n, PATH(tile_rows)), rows = n / tiles, n_higher = n % tiles;
    const uint8_t *weights = (const uint8_t *)job->layer->weights + panel * PATH(panel_bytes)(job->layer);
    /* Weights that serve few tiles are not computed upon for long enough to hide how long the next panel's take; a
     * single tile cannot hide them anyway. */
    const int is_fetched = tiles > 1 && tiles <= FEW_TILES && panel + 1 < job->n_panels;
    const uint8_t *next_weights = weights + PATH(panel_bytes)(job->layer);
    const int64_t next_bytes = is_fetched ? xnor_ceil_div(PATH(panel_bytes)(job->layer), 64 * tiles) * 64 : 0;
    const int64_t to_mask =
        chunk->is_masked && !PATH(is_encoded) ? 4 * (int64_t)(job->nonzero - job->signs) : 0;
    const uint8_t *const *windows = chunk->windows;
    for (int64_t tile = 0; tile < tiles; tile++) {
        const int height = (int)(rows + (tile < n_higher));
        PATH(tile)(height, &job->window, windows, to_mask, weights, &dots);
        windows += height, dots.start += height, dots.out += height * PATH(panel);
        chunk->ahead = PATH(fetch)(chunk->ahead, chunk->ahead_bytes);
        next_weights = PATH(fetch)(next_weights, next_bytes);
    }
}

/* dot = start - 2 * differing bits; the mean of two sets of weights where some of the panel's are 0. */
static void PATH(find_dots)(const struct PATH(job) *job, struct PATH(chunk) *chunk, int64_t panel) {
    const struct xnor_layer *layer = job->layer;
    const int64_t second_panel = layer->second_panel ? layer->second_panel[panel] : -1;
    struct xnor_dots dots = {chunk->starts, 0, second_panel >= 0 ? 0 : 1, chunk->dots};
    if (!chunk->is_masked) dots.start_offset = panel * layer->n_classes * PATH(panel);
    PATH(multiply_panel)(job, chunk, panel, dots);
    if (second_panel < 0) return;
    PATH(multiply_panel)(job, chunk, second_panel, (struct xnor_dots){chunk->dot_rows, 0, 0, chunk->dots});
}

/* One output pixel per picture: its filters lie side by side in memory, as in the dots. */
static void PATH(store_single)(const struct xnor_call *call, const struct xnor_layer *layer, const int32_t *dots,
                               int64_t picture, int64_t first, int64_t n_filters) {
    void *out = (float *)call->out + picture * layer->filters + first;
    float scaled[PATH(panel)];
    for (int j = 0; j < PATH(panel); j++) scaled[j] = fmaf(layer->alpha[first + j], (float)dots[j], layer->bias[first + j]);
    memcpy(out, call->result == XNOR_SCALED ? (const void *)scaled : (const void *)dots, 4 * (size_t)n_filters);
}

/* Rows [filter][pixel] to their places in `out`, past the caches but for cache lines that are not whole. */
static void PATH(stream_rows)(const float *rows, int64_t n_rows, int64_t length, float *out, int64_t out_stride) {
    if (length == out_stride) length *= n_rows, n_rows = 1; /* they follow each other there, too */
    for (int64_t i = 0; i < n_rows; i++, rows += length, out += out_stride) {
        const int64_t head = xnor_min(length, (int64_t)(-(uintptr_t)out % 64 / sizeof *out));
        const int64_t lines = (length - head) / 16, body = head + 16 * lines;
        memcpy(out, rows, sizeof *out * (size_t)head);
        PATH(stream_lines)(out + head, rows + head, lines);
        memcpy(out + body, rows + body, sizeof *out * (size_t)(length - body));
    }
}

static void PATH(store_chunk)(const struct PATH(job) *job, const struct PATH(chunk) *chunk, int64_t panel) {
    const struct xnor_layer *layer = job->layer;
    const int64_t all = PATH(out_pixels)(layer), first = panel * PATH(panel);
    const int64_t n_filters = xnor_min(PATH(panel), layer->filters - first);
    const float *alpha = job->call->result == XNOR_SCALED ? layer->alpha + first : NULL;
    if (all == 1) {
        for (int64_t i = 0; i < chunk->n_pictures; i++)
            PATH(store_single)(job->call, layer, chunk->dots + i * PATH(panel), chunk->picture + i, first, n_filters);
        return;
    }
    for (int64_t i = 0; i < chunk->n_pictures; i++) {
        const int32_t *dots = chunk->dots + i * chunk->n_pixels * PATH(panel);
        float *out = (float *)job->call->out + ((chunk->picture + i) * layer->filters + first) * all + chunk->pixel;
        float *rows = chunk->rows ? chunk->rows : out;
        const int64_t stride = chunk->rows ? chunk->n_pixels : all;
        PATH(store)(dots, chunk->n_pixels, alpha, layer->bias + first, n_filters, rows, stride);
        if (chunk->rows) PATH(stream_rows)(rows, n_filters, stride, out, all);
    }
}

/* Max pooling of one picture's dots [out_height][out_width][panel]. */
static void PATH(pool)(const struct xnor_layer *layer, const struct xnor_pooling *pooling, const int32_t *dots,
                       int32_t *pooled) {
    for (int64_t y = 0; y < pooling->out_height; y++)
        for (int64_t x = 0; x < pooling->out_width; x++, pooled += PATH(panel)) {
            const int64_t top = y * pooling->stride_y - pooling->padding_y, left = x * pooling->stride_x - pooling->padding_x;
            const int64_t bottom = xnor_min(top + pooling->kernel_y, layer->out_height);
            const int64_t right = xnor_min(left + pooling->kernel_x, layer->out_width);
            for (int j = 0; j < PATH(panel); j++) pooled[j] = INT32_MIN;
            for (int64_t row = top > 0 ? top : 0; row < bottom; row++)
                for (int64_t column = left > 0 ? left : 0; column < right; column++) {
                    const int32_t *from = dots + (row * layer->out_width + column) * PATH(panel);
                    for (int j = 0; j < PATH(panel); j++) pooled[j] = from[j] > pooled[j] ? from[j] : pooled[j];
                }
        }
}

static void PATH(sign_chunk)(struct PATH(job) *job, const struct PATH(chunk) *chunk, int64_t panel) {
    const struct xnor_layer *layer = job->layer;
    const struct xnor_call *call = job->call;
    const struct xnor_pooling *pooling = &call->pooling;
    const int64_t first = panel * PATH(panel), n_filters = xnor_min(PATH(panel), layer->filters - first);
    const int64_t n = pooling->kernel_y ? pooling->out_height * pooling->out_width : chunk->n_pixels;
    const int64_t all = pooling->kernel_y ? n : PATH(out_pixels)(layer), stride = 8 * xnor_words(layer->filters);
    const uint64_t here = n_filters == 64 ? UINT64_MAX : (UINT64_C(1) << n_filters) - 1;
    uint64_t all_nonzero = here;
    for (int64_t i = 0; i < chunk->n_pictures; i++) {
        const int32_t *dots = chunk->dots + i * chunk->n_pixels * PATH(panel);
        if (pooling->kernel_y) {
            PATH(pool)(layer, pooling, dots, chunk->pooled + i * n * PATH(panel));
            dots = chunk->pooled + i * n * PATH(panel);
        }
        const int64_t at = ((chunk->picture + i) * all + chunk->pixel) * stride + first / 8;
        uint8_t *signs = (uint8_t *)call->out_signs + at, *nonzero = (uint8_t *)call->out_nonzero + at;
        for (int64_t p = 0; p < n; p++, dots += PATH(panel), signs += stride, nonzero += stride) {
            uint64_t negative;
            const uint64_t known = here & PATH(threshold)(dots, call->flip + first, call->positive_from + first,
                                                          call->negative_to + first, &negative);
            negative &= here;
            all_nonzero &= known;
            memcpy(signs, &negative, PATH(panel) / 8);
            memcpy(nonzero, &known, PATH(panel) / 8);
        }
    }
    if (all_nonzero != here) atomic_store_explicit(&job->has_zero_results, 1, memory_order_relaxed);
}

static void PATH(multiply_item)(void *context, int64_t index) {
    struct PATH(job) *job = context;
    const int64_t part = index % job->panel_parts;
    struct PATH(chunk) chunk;
    if (PATH(open_chunk)(job, index / job->panel_parts, &chunk)) {
        const int64_t end = job->n_panels * (part + 1) / job->panel_parts;
        for (int64_t panel = job->n_panels * part / job->panel_parts; panel < end; panel++) {
            PATH(find_dots)(job, &chunk, panel);
            if (job->call->result == XNOR_SIGNS) PATH(sign_chunk)(job, &chunk, panel);
            else PATH(store_chunk)(job, &chunk, panel);
        }
    } else {
        atomic_store_explicit(&job->is_out_of_memory, 1, memory_order_relaxed);
    }
    if (job->is_streamed) PATH(end_stream)();
    PATH(close_chunk)(&chunk);
}

/* ---- a part of the batch ---- */

enum { PATH(chunk_pixels) = 256 };

/* Pictures that give enough pixels for full tiles. */
static int64_t PATH(chunk_pictures)(const struct xnor_layer *layer) {
    const int64_t pixels = PATH(out_pixels)(layer);
    return pixels < PATH(chunk_pixels) ? PATH(chunk_pixels) / pixels : 1;
}

static int64_t PATH(plan)(struct PATH(job) *job) {
    enum { PIXELS = PATH(chunk_pixels), ITEMS_PER_THREAD = 8 };
    const int64_t batch = job->call->batch, threads = job->call->threads, pixels = PATH(out_pixels)(job->layer);
    job->picture_units =
        xnor_padded_height(job->layer) * xnor_padded_width(job->layer) * xnor_units(job->layer->channels);
    job->n_panels = xnor_ceil_div(job->layer->filters, PATH(panel));
    job->row_parts = batch < threads ? xnor_min(threads, xnor_padded_height(job->layer)) : 1;
    const int64_t full_chunks = batch / PATH(chunk_pictures)(job->layer);
    job->chunk_pictures = full_chunks ? xnor_ceil_div(batch, full_chunks) : batch;
    const int can_be_cut = !job->call->pooling.kernel_y;
    job->picture_pieces = can_be_cut && pixels > PIXELS + PIXELS / 2 ? xnor_ceil_div(pixels, PIXELS) : 1;
    const int64_t chunks = xnor_ceil_div(batch, job->chunk_pictures) * job->picture_pieces;
    const int64_t wanted = threads > 1 ? ITEMS_PER_THREAD * threads : 1;
    job->panel_parts = xnor_min(job->n_panels, xnor_ceil_div(wanted, chunks));
    return chunks * job->panel_parts;
}

static int PATH(run_job)(struct PATH(job) *job, int64_t n_items) {
    const struct xnor_call *call = job->call;
    const int64_t n_flags = call->batch * job->row_parts;
    int has_zeros = call->nonzero != NULL;
    memset(job->has_zeros, has_zeros, (size_t)n_flags);
    xnor_parallel(call->threads, call->parallel, n_flags, PATH(pack_item), job);
    for (int64_t i = 0; i < n_flags; i++) has_zeros |= job->has_zeros[i];
    if (has_zeros) {
        job->n_nonzero = malloc(4 * (size_t)(call->batch * PATH(out_pixels)(job->layer)));
        if (!job->n_nonzero) return XNOR_NO_MEMORY;
    }
    if (has_zeros || PATH(is_encoded)) xnor_parallel(call->threads, call->parallel, call->batch, PATH(mask_item), job);
    xnor_parallel(call->threads, call->parallel, n_items, PATH(multiply_item), job);
    free(job->n_nonzero);
    if (atomic_load(&job->is_out_of_memory)) return XNOR_NO_MEMORY;
    return atomic_load(&job->has_zero_results) ? XNOR_ZEROS : XNOR_OK;
}
