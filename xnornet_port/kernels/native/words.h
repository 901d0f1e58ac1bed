/* Weights and windows for paths that work on words of 64 bits: weights [panel][word][filter]. Included once per path.
 *
 * Words come first, run after run. Where runs have an odd number of units, each run's last unit follows after all words
 * as half a word, whose upper half is masked away.
 */

static int64_t PATH(n_words)(const struct xnor_layer *layer) {
    return xnor_n_runs(layer) * (xnor_run_units(layer) / 2);
}

static int64_t PATH(n_offsets)(const struct xnor_layer *layer) {
    return PATH(n_words)(layer) + xnor_n_runs(layer) * (xnor_run_units(layer) % 2);
}

static void PATH(fill_window)(const struct xnor_layer *layer, int32_t *offsets, struct xnor_window *window) {
    const int64_t runs = xnor_n_runs(layer), units = xnor_run_units(layer);
    int64_t k = 0;
    for (int64_t run = 0; run < runs; run++)
        for (int64_t unit = 0; unit + 2 <= units; unit += 2)
            offsets[k++] = (int32_t)(4 * (xnor_run_start(layer, run) + unit));
    window->offsets = offsets;
    window->n_words = k;
    window->n_halves = units % 2 ? runs : 0;
    for (int64_t run = 0; run < window->n_halves; run++)
        offsets[k++] = (int32_t)(4 * (xnor_run_start(layer, run) + units - 1));
}

static int64_t PATH(panel_bytes)(const struct xnor_layer *layer) { return 8 * PATH(panel) * PATH(n_offsets)(layer); }

static int64_t PATH(weight_bytes)(const struct xnor_layer *layer) {
    return xnor_ceil_div(layer->filters, PATH(panel)) * PATH(panel_bytes)(layer);
}

static void PATH(prepare)(const struct xnor_layer *layer, const uint64_t *signs, void *weights) {
    const int64_t runs = xnor_n_runs(layer), units = xnor_run_units(layer);
    uint64_t *out = weights;
    for (int64_t panel = 0; panel < xnor_ceil_div(layer->filters, PATH(panel)); panel++) {
        for (int64_t run = 0; run < runs; run++)
            for (int64_t unit = 0; unit + 2 <= units; unit += 2)
                for (int64_t j = 0; j < PATH(panel); j++) {
                    const int64_t filter = panel * PATH(panel) + j;
                    *out++ = xnor_weight_unit(layer, signs, filter, run, unit) |
                             (uint64_t)xnor_weight_unit(layer, signs, filter, run, unit + 1) << 32;
                }
        for (int64_t run = 0; run < (units % 2 ? runs : 0); run++)
            for (int64_t j = 0; j < PATH(panel); j++)
                *out++ = xnor_weight_unit(layer, signs, panel * PATH(panel) + j, run, units - 1);
    }
}
