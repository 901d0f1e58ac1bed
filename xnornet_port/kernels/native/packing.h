/* Packing by blocks of PATH(block_pixels) pixels by one unit of channels, each by PATH(pack_block). Included once for each
 * path that packs so.
 */

/* Units of `pixels` pixels, `pixel_stride` apart; whether there is a zero or NaN, whose places `nonzero` gets, if given. */
static int PATH(pack_pixels)(const float *x, int64_t channel_stride, int64_t channels, int64_t pixels,
                             uint32_t *signs, uint32_t *nonzero, int64_t pixel_stride) {
    enum { BLOCK = PATH(block_pixels) };
    int found = 0;
    for (int64_t first = 0; first < channels; first += 32) {
        const int64_t n = xnor_min(32, channels - first);
        for (int64_t p = 0; p < pixels; p += BLOCK) {
            const float *from = x + first * channel_stride + p;
            const int64_t at = p * pixel_stride + first / 32, here = xnor_min(BLOCK, pixels - p);
            uint32_t *mask = nonzero ? nonzero + at : NULL;
            if (here == BLOCK) /* as a rule; the compiler makes whole vectors of it */
                found |= PATH(pack_block)(BLOCK, from, channel_stride, n, signs + at, mask, pixel_stride);
            else
                found |= PATH(pack_block)(here, from, channel_stride, n, signs + at, mask, pixel_stride);
        }
    }
    return found;
}
