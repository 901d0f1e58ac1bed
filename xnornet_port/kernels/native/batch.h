/* A batch of pictures in parts, compiled once per code path.
 *
 * The floats of many pictures do not fit into the second-level cache. So a part is a few pictures, packed right before
 * they are multiplied; meanwhile the next part's floats are fetched from memory, a few cache lines with every tile.
 * Results that the caches have no room for go past them. A batch too small to give each thread several parts is one part that threads share.
 */

struct PATH(parts) {
    const struct xnor_layer *layer;
    const struct xnor_call *call;
    struct xnor_window window;
#ifdef PATH_ENCODES
    struct PATH(table) table;
#endif
    int64_t n;
    int is_streamed;
    atomic_int has_zero_results, is_out_of_memory;
};

static int PATH(run_part)(const struct PATH(parts) *parts, const struct xnor_call *call, const uint8_t *ahead) {
    const struct xnor_layer *layer = parts->layer;
    struct PATH(job) job = {.layer = layer, .call = call, .window = parts->window, .is_streamed = parts->is_streamed, .ahead = ahead};
    const int64_t n_items = PATH(plan)(&job);
    const size_t plane = 4 * (size_t)(call->batch * job.picture_units), slack = 64; /* half words are read as words */
    job.has_zeros = malloc((size_t)(call->batch * job.row_parts));
    job.signs = malloc(2 * plane + slack);
    if (PATH(is_encoded)) job.encoded = malloc(2 * plane + slack);
#ifdef PATH_ENCODES
    job.table = &parts->table;
#endif
    int status = XNOR_NO_MEMORY;
    if (job.has_zeros && job.signs && (job.encoded || !PATH(is_encoded))) {
        job.nonzero = job.signs + call->batch * job.picture_units;
        status = PATH(run_job)(&job, n_items);
    }
    free(job.has_zeros);
    free(job.signs);
    free(job.encoded);
    return status;
}

/* `call` for n of its pictures, on one thread. */
static struct xnor_call PATH(cut_call)(const struct xnor_layer *layer, const struct xnor_call *call, int64_t first,
                                       int64_t n) {
    const struct xnor_pooling *pooling = &call->pooling;
    const int64_t pixels = layer->height * layer->width, out_pixels = PATH(out_pixels)(layer);
    const int64_t in_words = first * pixels * xnor_words(layer->channels);
    const int64_t sign_pixels = pooling->kernel_y ? pooling->out_height * pooling->out_width : out_pixels;
    const int64_t out_words = first * sign_pixels * xnor_words(layer->filters);
    struct xnor_call part = *call;
    part.batch = n, part.threads = 1;
    if (call->x) part.x += first * layer->channels * pixels;
    if (call->signs) part.signs += in_words;
    if (call->nonzero) part.nonzero += in_words;
    if (call->out) part.out = (float *)call->out + first * layer->filters * out_pixels;
    if (call->out_signs) part.out_signs += out_words, part.out_nonzero += out_words;
    return part;
}

static void PATH(part_item)(void *context, int64_t index) {
    struct PATH(parts) *parts = context;
    const struct xnor_call *call = parts->call;
    const int64_t first = call->batch * index / parts->n, end = call->batch * (index + 1) / parts->n;
    const int64_t next = call->batch * xnor_min(index + call->threads, parts->n) / parts->n;
    const struct xnor_call part = PATH(cut_call)(parts->layer, call, first, end - first);
    const int has_next = call->x && next + (end - first) <= call->batch;
    const int64_t pixels = parts->layer->height * parts->layer->width;
    const float *ahead = has_next ? call->x + next * parts->layer->channels * pixels : NULL;
    const int status = PATH(run_part)(parts, &part, (const uint8_t *)ahead);
    if (status == XNOR_ZEROS) atomic_store(&parts->has_zero_results, 1);
    if (status == XNOR_NO_MEMORY) atomic_store(&parts->is_out_of_memory, 1);
}

/* How many parts to make of a batch; 1 where that would leave threads idle: then they share each picture. */
static int64_t PATH(count_parts)(const struct xnor_layer *layer, const struct xnor_call *call) {
    enum { PARTS_PER_THREAD = 3 };
    const int64_t parts = call->batch / PATH(chunk_pictures)(layer);
    if (call->threads > 1 && parts < PARTS_PER_THREAD * call->threads) return 1;
    return parts > call->threads ? parts / call->threads * call->threads : 1;
}

/* Whether the results go past the caches, where there is no room for so much; the memory's old content need not be read
 * then. One pixel per picture is stored as it comes. */
static int PATH(has_room)(const struct xnor_layer *layer, const struct xnor_call *call) {
    const int64_t pixels = PATH(out_pixels)(layer);
    return pixels == 1 || 4 * call->batch * layer->filters * pixels < XNOR_CACHE_BYTES;
}

static int PATH(run)(const struct xnor_layer *layer, const struct xnor_call *call) {
    struct PATH(parts) parts = {.layer = layer, .call = call, .n = PATH(count_parts)(layer, call)};
    parts.is_streamed = PATH(can_stream) && call->result != XNOR_SIGNS && !PATH(has_room)(layer, call);
    int32_t *offsets = malloc(4 * (size_t)PATH(n_offsets)(layer));
#ifdef PATH_ENCODES
    PATH(fill_table)(&parts.table);
    parts.window.table = parts.table.counts;
#endif
    if (!offsets) return XNOR_NO_MEMORY;
    PATH(fill_window)(layer, offsets, &parts.window);
    int status;
    if (parts.n > 1) {
        xnor_parallel(call->threads, call->parallel, parts.n, PATH(part_item), &parts);
        status = atomic_load(&parts.has_zero_results) ? XNOR_ZEROS : XNOR_OK;
        if (atomic_load(&parts.is_out_of_memory)) status = XNOR_NO_MEMORY;
    } else {
        status = PATH(run_part)(&parts, call, NULL);
    }
    free(offsets);
    return status;
}

/* Pictures to words of 64 channels, the form that goes between layers. */
static int PATH(pack)(const float *x, int64_t batch, int64_t channels, int64_t pixels, uint64_t *signs,
                      uint64_t *nonzero) {
    const int64_t words = xnor_words(channels);
    int found = 0;
    for (int64_t i = 0; i < batch; i++) {
        const float *picture = x + i * channels * pixels;
        const int64_t at = i * pixels * words;
        found |= PATH(pack_pixels)(picture, pixels, channels, pixels, (uint32_t *)(signs + at),
                                   nonzero ? (uint32_t *)(nonzero + at) : NULL, 2 * words);
    }
    return found ? XNOR_ZEROS : XNOR_OK;
}

static const struct xnor_path PATH(path) = {
    PATH_NAME, PATH(is_available), PATH(panel), PATH(weight_bytes), PATH(prepare), PATH(pack), PATH(run),
};
