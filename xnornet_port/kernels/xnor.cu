// Convolutions of signs with signs on the GPU. docs/kernels.md explains the mapping; cuda.py launches what is here.
//
// Bits are as in packing.py: 64 channels of a pixel to a word, 1 where the value is negative, a second plane with 1
// where it is not 0. With a the signs and m the nonzero plane of the input, b and n those of the weights,
//     dot = m.n - 2 (a.n + m.b) + 4 a.b        where u.v counts the places at which both have a 1,
// for the value is m - 2a. Pixels outside the picture have neither bit and so add nothing. Where the weights have no
// zero, m.n - 2 a.n is a sum over the pixels of the window alone ("row sum"); where the window has no zero, m.n - 2 m.b
// is a sum over the kernel's places inside the picture alone ("border sum", read from prefix sums). As a rule both
// hold, and a.b is the one product left. Horner's rule takes the four terms in one accumulator (`convolve`).
//
// The file needs no header: built-ins and inline PTX only. Tests compile it with g++ as well (tests/xnornet_port/
// kernels/cuda_shim.h), where the five functions of the first section are the shim's.

typedef unsigned int uint32;
typedef unsigned long long uint64;

#ifdef __CUDACC__

// The block's shared memory; its size comes with the launch.
__device__ __forceinline__ uint4* shared_memory() {
  extern __shared__ uint4 bytes[];
  return bytes;
}

// Copies BYTES (8 or 16) to shared memory, or zeros where `present` is false; complete after wait_for_copies.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from, bool present) {
#if __CUDA_ARCH__ >= 800
  uint32 address = (uint32)__cvta_generic_to_shared(to);
  int bytes = present ? BYTES : 0;
  // .ca keeps the line in L1: neighbouring windows read the same pixels again
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(BYTES), "r"(bytes)
               : "memory");
#else
  for (int i = 0; i < BYTES / 8; ++i) ((uint64*)to)[i] = present ? ((const uint64*)from)[i] : 0;
#endif
}

__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING of this thread's groups of copies are still under way.
template <int PENDING>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

#if __CUDA_ARCH__ >= 800 && __CUDA_ARCH__ < 1000
#define HAS_ONE_BIT_TENSOR_CORE 1
// sums (16 x 8) += popcount(a (16 x 256 bits) AND b (256 bits x 8)), by a whole warp.
__device__ __forceinline__ void multiply_bits(int (&sums)[4], uint32 a0, uint32 a1, uint32 a2, uint32 a3, uint32 b0,
                                              uint32 b1) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
#endif

#endif  // __CUDACC__

// ---------------------------------------------------------------------------------------------------------- packing

// What the convolution has to know of a pixel besides its bits: the sum of its signs, and whether one of them is 0.
__device__ __forceinline__ int pixel_info(int n_nonzero, int n_negative, int channels) {
  return ((n_nonzero - 2 * n_negative) << 1) | (n_nonzero != channels);
}

// x float32 (N, C, H, W) to signs and nonzero (N, H, W, words) and info (N, H, W). A block of 256 threads takes
// 256 / word_lanes neighbouring pixels, word_lanes (1, 2, 4 or 8) words of them at a time: a warp reads 32 neighbouring
// floats of a channel, 32 channels in flight per thread, and the words leave by way of shared memory, pixel by pixel.
// The floats are read as the bits they are: CuPy compiles with -ftz=true, where a comparison takes subnormals for 0.
// Four blocks to a multiprocessor, for left to itself the compiler saves registers, and has few floats in flight.
extern "C" __global__ void __launch_bounds__(256, 4)
    xnor_pack(const uint32* __restrict__ x, uint64* __restrict__ signs, uint64* __restrict__ nonzero,
              int* __restrict__ info, int n_pixels, int picture, int channels, int words, int word_lanes) {
  uint64* shared_signs = (uint64*)shared_memory();  // [pixels][word_lanes]
  uint64* shared_nonzero = shared_signs + 256;
  const int pixels = 256 / word_lanes;
  const int first = blockIdx.x * pixels;
  const int pixel = first + threadIdx.x % pixels;  // this thread reads
  const int lane = threadIdx.x / pixels;
  const int stored_pixel = first + threadIdx.x / word_lanes;  // this thread writes
  const int stored_lane = threadIdx.x % word_lanes;
  const uint32* source = x + (long long)(pixel / picture) * channels * picture + pixel % picture;
  int n_nonzero = 0, n_negative = 0;
  for (int start = 0; start < words; start += word_lanes) {
    const int word = start + lane;
    uint64 negative_bits = 0, nonzero_bits = 0;
    if (pixel < n_pixels && word < words) {
      for (int half = 0; half < 64; half += 32) {
        const int channel = word * 64 + half, last = channels - 1;
        const uint32* from = source + (long long)min(channel, last) * picture;
        uint32 value[32];  // behind the last channel that one again: without a condition all are fetched before any is used
#pragma unroll
        for (int i = 0; i < 32; ++i) {
          value[i] = *from;
          from += channel + i < last ? picture : 0;
        }
        uint32 negative_half = 0, nonzero_half = 0;
#pragma unroll
        for (int i = 0; i < 32; ++i) {  // from the least subnormal to infinity; NaN counts as 0, as in Torch7's sign
          negative_half |= (value[i] >> 31) << i;
          nonzero_half |= (uint32)((value[i] & 0x7fffffffu) - 1 < 0x7f800000u) << i;
        }
        const int n_missing = channel + 31 - last;
        nonzero_half &= n_missing <= 0 ? ~0u : n_missing < 32 ? ~0u >> n_missing : 0;
        negative_bits |= (uint64)(negative_half & nonzero_half) << half;
        nonzero_bits |= (uint64)nonzero_half << half;
      }
    }
    const int slot = (threadIdx.x % pixels) * word_lanes + lane;
    shared_signs[slot] = negative_bits;
    shared_nonzero[slot] = nonzero_bits;
    __syncthreads();
    negative_bits = shared_signs[threadIdx.x];
    nonzero_bits = shared_nonzero[threadIdx.x];
    n_negative += __popcll(negative_bits);
    n_nonzero += __popcll(nonzero_bits);
    if (stored_pixel < n_pixels && start + stored_lane < words) {
      const long long place = (long long)stored_pixel * words + start + stored_lane;
      signs[place] = negative_bits;
      nonzero[place] = nonzero_bits;
    }
    __syncthreads();
  }
  for (int distance = word_lanes / 2; distance > 0; distance /= 2) {  // the lanes of a pixel are neighbours
    n_nonzero += __shfl_xor_sync(0xffffffffu, n_nonzero, distance);
    n_negative += __shfl_xor_sync(0xffffffffu, n_negative, distance);
  }
  if (stored_lane == 0 && stored_pixel < n_pixels) info[stored_pixel] = pixel_info(n_nonzero, n_negative, channels);
}

// info of pixels that came packed; nonzero may be null.
extern "C" __global__ void __launch_bounds__(256)
    xnor_pixel_info(const uint64* __restrict__ signs, const uint64* __restrict__ nonzero, int* __restrict__ info,
                    int n_pixels, int channels, int words) {
  const int pixel = blockIdx.x * 256 + threadIdx.x;
  if (pixel >= n_pixels) return;
  const long long start = (long long)pixel * words;
  int n_negative = 0, n_nonzero = nonzero ? 0 : channels;
  for (int word = 0; word < words; ++word) {
    n_negative += __popcll(signs[start + word]);
    if (nonzero) n_nonzero += __popcll(nonzero[start + word]);
  }
  info[pixel] = pixel_info(n_nonzero, n_negative, channels);
}

// For each filter and place of the kernel what it adds to a border sum: -2 b, or n - 2 b where weights are 0. Once.
extern "C" __global__ void __launch_bounds__(256)
    xnor_place_sums(const uint64* __restrict__ signs, const uint64* __restrict__ nonzero, int* __restrict__ sums,
                    int n_places, int words) {
  const int place = blockIdx.x * 256 + threadIdx.x;
  if (place >= n_places) return;
  const long long start = (long long)place * words;
  int sum = 0;
  for (int word = 0; word < words; ++word) {
    sum -= 2 * __popcll(signs[start + word]);
    if (nonzero) sum += __popcll(nonzero[start + word]);
  }
  sums[place] = sum;
}

// ------------------------------------------------------------------------------------------------------ convolution

enum Output { FLOATS = 0, DOTS = 1, SIGNS = 2 };

struct Convolution {
  const uint64 *input_signs, *input_nonzero;    // (N, H, W, words); nonzero null: no zero anywhere
  const int* info;                              // (N, H, W)
  const uint64 *weight_signs, *weight_nonzero;  // (O, kH, kW, words); nonzero null: no zero
  const int* prefix;                            // (O, kH + 1, kW + 1): border sums of the kernel's corners
  const float *alpha, *bias;                    // (O); bias may be null
  const int *positive_from, *negative_to;       // (O); SIGNS only
  const unsigned char* descending;
  void* out;              // FLOATS, DOTS: (N, O, H', W'); SIGNS: (N, H', W', 2 * out_words) halves of words
  uint32* out_nonzero;    // SIGNS only
  int output;
  int batch, height, width, words, out_channels, kernel_h, kernel_w, out_h, out_w;
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
};

#define CONVOLUTION_PARAMETERS                                                                                         \
  const uint64 *input_signs, const uint64 *input_nonzero, const int *info, const uint64 *weight_signs,                 \
      const uint64 *weight_nonzero, const int *prefix, const float *alpha, const float *bias,                          \
      const int *positive_from, const int *negative_to, const unsigned char *descending, void *out,                    \
      uint32 *out_nonzero, int output, int batch, int height, int width, int words, int out_channels, int kernel_h,    \
      int kernel_w, int out_h, int out_w, int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h,            \
      int dilation_w
#define CONVOLUTION                                                                                                    \
  Convolution {                                                                                                        \
    input_signs, input_nonzero, info, weight_signs, weight_nonzero, prefix, alpha, bias, positive_from, negative_to,   \
        descending, out, out_nonzero, output, batch, height, width, words, out_channels, kernel_h, kernel_w, out_h,    \
        out_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w                                                \
  }

// The product is (output pixels x window bits) times (window bits x filters). A block makes ROWS x COLUMNS of it with
// warps of WARP_ROWS x WARP_COLUMNS each, SLICES of them sharing one tile and dividing the bits between them. Bits come
// in stages of 512 per slice, which is 64 bytes of a row, CHUNK words to a copy.
template <int ROWS_, int COLUMNS_, int WARP_ROWS_, int WARP_COLUMNS_, int SLICES_, int CHUNK_>
struct Tile {
  static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, WARP_ROWS = WARP_ROWS_, WARP_COLUMNS = WARP_COLUMNS_;
  static constexpr int SLICES = SLICES_, CHUNK = CHUNK_;
  static constexpr int WARPS_DOWN = ROWS / WARP_ROWS, WARPS_ACROSS = COLUMNS / WARP_COLUMNS;
  static constexpr int THREADS = 32 * WARPS_DOWN * WARPS_ACROSS * SLICES;
  static constexpr int STAGES = 3;
  static constexpr int ROW_WORDS = 8;                                      // 512 bits of a row
  static constexpr int SLICE_WORDS = (ROWS + COLUMNS) * ROW_WORDS;         // one slice of a stage: pixels, then filters
  static constexpr int STAGE_WORDS = SLICES * SLICE_WORDS;
  static constexpr int SLAB = COLUMNS < 64 ? COLUMNS : 64;                 // columns that leave together
  static constexpr int SLAB_STRIDE = ROWS + 4;                             // fragments then fall on 32 different banks
  static constexpr int PIPELINE_BYTES = STAGES * STAGE_WORDS * 8;
  static constexpr int SLAB_BYTES = SLICES * SLAB * SLAB_STRIDE * 4;
  static constexpr int ROWS_AT = PIPELINE_BYTES > SLAB_BYTES ? PIPELINE_BYTES : SLAB_BYTES;  // the RowData begin here
};

// What a row of the product, an output pixel, needs when its bits are fetched and when it leaves.
struct RowData {
  int pixel, y, x;     // upper left of its window: place in the input counted in pixels (may be before it), coordinates
  int picture, place;  // n and h' * W' + w'; n is -1 past the last row
  int sum;             // row sum
  unsigned short top, bottom, left, right;  // the kernel's places inside the picture: [top, bottom) x [left, right)
};

// First and last + 1 of the places k with 0 <= first + k * dilation < size.
__device__ __forceinline__ void places_inside(int first, int dilation, int length, int size, unsigned short& begin,
                                              unsigned short& end) {
  const int from = first >= 0 ? 0 : (-first + dilation - 1) / dilation;
  const int to = first >= size ? 0 : min((size - 1 - first) / dilation + 1, length);
  begin = (unsigned short)min(from, to);
  end = (unsigned short)to;
}

template <class T>
__device__ __forceinline__ void describe_rows(const Convolution& c, RowData* rows) {
  const uint32 places = c.out_h * c.out_w;
  for (int r = threadIdx.x; r < T::ROWS; r += T::THREADS) {
    const uint32 row = blockIdx.x * T::ROWS + r;  // the host sees to it that rows are fewer than 2^31
    RowData data = {0, -0x40000000, 0, -1, 0, 0, 0, 0, 0, 0};  // far outside: only zeros
    if (row < (uint32)c.batch * places) {
      data.picture = (int)(row / places);
      data.place = (int)(row % places);
      data.y = data.place / c.out_w * c.stride_h - c.pad_h;
      data.x = data.place % c.out_w * c.stride_w - c.pad_w;
      data.pixel = (data.picture * c.height + data.y) * c.width + data.x;
      places_inside(data.y, c.dilation_h, c.kernel_h, c.height, data.top, data.bottom);
      places_inside(data.x, c.dilation_w, c.kernel_w, c.width, data.left, data.right);
    }
    rows[r] = data;
  }
}

// Adds up the row sums; says whether this thread met a pixel with a zero.
template <class T>
__device__ __forceinline__ int sum_rows(const Convolution& c, RowData* rows) {
  int has_zero = 0;
  for (int item = threadIdx.x; item < T::ROWS * c.kernel_h * c.kernel_w; item += T::THREADS) {
    const int r = item % T::ROWS, i = item / T::ROWS / c.kernel_w, j = item / T::ROWS % c.kernel_w;
    if (i < rows[r].top || i >= rows[r].bottom || j < rows[r].left || j >= rows[r].right) continue;
    const int info = c.info[rows[r].pixel + i * c.dilation_h * c.width + j * c.dilation_w];
    atomicAdd(&rows[r].sum, info >> 1);
    has_zero |= info & 1;
  }
  return has_zero;
}

// Brings the bits in. A thread copies the same CHUNK of the 8 words of a stage for LOADS_A pixels and LOADS_B filters.
template <class T>
struct Loader {
  static constexpr int ROW_CHUNKS = T::ROW_WORDS / T::CHUNK;
  static constexpr int CHUNKS = ROW_CHUNKS * T::SLICES;  // of a row in a stage
  static constexpr int STEP = T::THREADS / CHUNKS;       // rows between a thread's copies
  static constexpr int LOADS_A = T::ROWS / STEP, LOADS_B = T::COLUMNS / STEP;

  int kernel_y, kernel_x, word;  // where in the window this thread's next chunk lies
  int filter_word;               // the same place, counted in words of a filter

  __device__ __forceinline__ void rewind(const Convolution& c) {
    filter_word = word = threadIdx.x % CHUNKS * T::CHUNK;
    kernel_y = kernel_x = 0;
    settle(c);
  }

  // Carries an overflow of `word` into the place of the kernel.
  __device__ __forceinline__ void settle(const Convolution& c) {
    while (word >= c.words && kernel_y < c.kernel_h) {
      word -= c.words;
      if (++kernel_x == c.kernel_w) {
        kernel_x = 0;
        ++kernel_y;
      }
    }
  }

  // Starts the copies of one stage and moves on to the next.
  __device__ __forceinline__ void load(const Convolution& c, const RowData* rows, const uint64* input,
                                       const uint64* weights, uint64* stage) {
    const int chunk = threadIdx.x % CHUNKS, first_row = threadIdx.x / CHUNKS;
    uint64* to = stage + chunk / ROW_CHUNKS * T::SLICE_WORDS + first_row * T::ROW_WORDS + chunk % ROW_CHUNKS * T::CHUNK;
    const bool inside_kernel = kernel_y < c.kernel_h;
    const int down = kernel_y * c.dilation_h, across = kernel_x * c.dilation_w;
    const int beyond = down * c.width + across;  // pixels from the window's corner
#pragma unroll
    for (int i = 0; i < LOADS_A; ++i) {
      const RowData& row = rows[first_row + i * STEP];
      const bool present = inside_kernel && (uint32)(row.y + down) < (uint32)c.height &&
                           (uint32)(row.x + across) < (uint32)c.width;
      const long long from = present ? (long long)(row.pixel + beyond) * c.words + word : 0;
      copy_async<T::CHUNK * 8>(to + i * STEP * T::ROW_WORDS, input + from, present);
    }
    const int filter_words = c.kernel_h * c.kernel_w * c.words;
    const int first_filter = blockIdx.y * T::COLUMNS + first_row;
#pragma unroll
    for (int i = 0; i < LOADS_B; ++i) {
      const bool present = inside_kernel && first_filter + i * STEP < c.out_channels;
      const long long from = present ? (long long)(first_filter + i * STEP) * filter_words + filter_word : 0;
      copy_async<T::CHUNK * 8>(to + (T::ROWS + i * STEP) * T::ROW_WORDS, weights + from, present);
    }
    filter_word += T::ROW_WORDS * T::SLICES;
    word += T::ROW_WORDS * T::SLICES;
    settle(c);
  }
};

// One of the four products of dot: all the bits of one plane of the pixels with those of one of the filters.
template <class T>
struct Pass {
  const Convolution& c;
  const RowData* rows;
  uint64* stages;
  const uint64 *input, *weights;
  Loader<T> loader;
  int n_stages;

  __device__ __forceinline__ Pass(const Convolution& convolution, const RowData* row_data, uint64* memory)
      : c(convolution), rows(row_data), stages(memory) {
    const int words = T::ROW_WORDS * T::SLICES;
    n_stages = (c.kernel_h * c.kernel_w * c.words + words - 1) / words;
  }

  __device__ __forceinline__ void load(int s) {
    if (s < n_stages) loader.load(c, rows, input, weights, stages + s % T::STAGES * T::STAGE_WORDS);
    commit_copies();  // an empty group too, so that counting groups is counting stages
  }

  __device__ __forceinline__ void start(const uint64* input_plane, const uint64* weight_plane) {
    input = input_plane;
    weights = weight_plane;
    loader.rewind(c);
#pragma unroll 1
    for (int s = 0; s < T::STAGES - 1; ++s) load(s);
  }

  template <class M>
  __device__ __forceinline__ void run(M& multiplier) {
#pragma unroll 1
    for (int s = 0; s < n_stages; ++s) {
      wait_for_copies<T::STAGES - 2>();
      __syncthreads();  // stage s is there for all, and all are done with stage s - 1, whose room is filled next
      load(s + T::STAGES - 1);
      multiplier.stage(stages + s % T::STAGES * T::STAGE_WORDS);
    }
    wait_for_copies<0>();
    multiplier.end_of_pass();
  }
};

// Border sum of a filter: its places inside the picture. A whole window, as most are, is one number.
__device__ __forceinline__ int border_sum(const Convolution& c, const RowData& row, const int* prefix) {
  const int width = c.kernel_w + 1;
  const int whole = row.bottom * width + row.right;
  if ((row.top | row.left) == 0) return prefix[whole];
  return prefix[whole] - prefix[row.top * width + row.right] - prefix[row.bottom * width + row.left] +
         prefix[row.top * width + row.left];
}

// The integer dot product of a row with a filter, from the products in the slab.
template <class T>
__device__ __forceinline__ int dot_product(const Convolution& c, const int* slab, const RowData& row, int r, int column,
                                           int filter, bool input_zero) {
  int dot = 0;
#pragma unroll
  for (int slice = 0; slice < T::SLICES; ++slice) dot += slab[(slice * T::SLAB + column) * T::SLAB_STRIDE + r];
  if (c.weight_nonzero == 0) dot += row.sum;
  if (!input_zero) dot += border_sum(c, row, c.prefix + (long long)filter * (c.kernel_h + 1) * (c.kernel_w + 1));
  return dot;
}

// Floats or integers, NCHW. Neighbouring threads write neighbouring places: pixels of a channel, or where a picture
// is one pixel (a fully connected layer) its channels.
template <class T>
__device__ void store_numbers(const Convolution& c, const int* slab, const RowData* rows, int first_filter,
                              bool input_zero) {
  const int places = c.out_h * c.out_w;
  const bool by_channel = places == 1;
  const int row_lanes = by_channel ? T::THREADS / T::SLAB : T::ROWS;
  const int column_lanes = T::THREADS / row_lanes;
  const int first_row = by_channel ? threadIdx.x / T::SLAB : threadIdx.x % T::ROWS;
  const int first_column = by_channel ? threadIdx.x % T::SLAB : threadIdx.x / T::ROWS;
  for (int r = first_row; r < T::ROWS; r += row_lanes) {
    const RowData row = rows[r];
    if (row.picture < 0) continue;
    for (int column = first_column; column < T::SLAB; column += column_lanes) {
      const int filter = first_filter + column;
      if (filter >= c.out_channels) break;
      const int dot = dot_product<T>(c, slab, row, r, column, filter, input_zero);
      const long long place = ((long long)row.picture * c.out_channels + filter) * places + row.place;
      if (c.output == DOTS) {
        ((int*)c.out)[place] = dot;
      } else {
        ((float*)c.out)[place] = __fmaf_ieee_rn(c.alpha[filter], (float)dot, c.bias ? c.bias[filter] : 0.0f);
      }
    }
  }
}

// The sign of dot by its channel's thresholds as two bits: negative, nonzero.
__device__ __forceinline__ void threshold(const int* positive_from, const int* negative_to,
                                          const unsigned char* descending, int filter, int dot, int bit,
                                          uint32& negative_bits, uint32& nonzero_bits) {
  const int high = positive_from[filter], low = negative_to[filter];
  const bool mirrored = descending[filter] != 0;
  const bool positive = mirrored ? dot <= high : dot >= high;
  const bool negative = !positive && (mirrored ? dot >= low : dot <= low);
  negative_bits |= (uint32)negative << bit;
  nonzero_bits |= (uint32)(positive || negative) << bit;
}

// Signs of 32 channels of a pixel per thread, half a word.
template <class T>
__device__ void store_signs(const Convolution& c, const int* slab, const RowData* rows, int first_filter,
                            bool input_zero) {
  const int places = c.out_h * c.out_w, out_halves = (c.out_channels + 63) / 64 * 2;
  for (int item = threadIdx.x; item < T::ROWS * (T::SLAB / 32); item += T::THREADS) {
    const int r = item % T::ROWS, first_column = item / T::ROWS * 32;
    const int half = (first_filter + first_column) / 32;
    const RowData row = rows[r];
    if (row.picture < 0 || half >= out_halves) continue;
    uint32 negative_bits = 0, nonzero_bits = 0;
    for (int bit = 0; bit < 32; ++bit) {
      const int filter = first_filter + first_column + bit;
      if (filter >= c.out_channels) break;
      const int dot = dot_product<T>(c, slab, row, r, first_column + bit, filter, input_zero);
      threshold(c.positive_from, c.negative_to, c.descending, filter, dot, bit, negative_bits, nonzero_bits);
    }
    const long long place = ((long long)row.picture * places + row.place) * out_halves + half;
    ((uint32*)c.out)[place] = negative_bits;
    c.out_nonzero[place] = nonzero_bits;
  }
}

// The block's tile: Horner's rule over the products a.b, a.n, m.b, m.n, then out with it. As a rule a.b is all.
template <class T, class M>
__device__ __forceinline__ void convolve(const Convolution& c) {
  uint4* shared = shared_memory();
  RowData* rows = (RowData*)((char*)shared + T::ROWS_AT);
  describe_rows<T>(c, rows);
  __syncthreads();
  Pass<T> pass(c, rows, (uint64*)shared);
  pass.start(c.input_signs, c.weight_signs);
  const int has_zero = sum_rows<T>(c, rows);  // while the first bits are on their way
  const bool input_zero = __syncthreads_or(c.input_nonzero != 0 && has_zero) != 0;
  const bool weight_zero = c.weight_nonzero != 0;
  M multiplier;
#pragma unroll 1
  for (int product = 0; product < 4; ++product) {
    const bool of_weight_zeros = product % 2 == 1, of_input_zeros = product / 2 == 1;
    if (of_weight_zeros) multiplier.times_minus_two();
    if ((of_weight_zeros && !weight_zero) || (of_input_zeros && !input_zero)) continue;
    if (product > 0) {
      __syncthreads();  // the stages are free again
      pass.start(of_input_zeros ? c.input_nonzero : c.input_signs, of_weight_zeros ? c.weight_nonzero : c.weight_signs);
    }
    pass.run(multiplier);
  }
  int* slab = (int*)shared;
  for (int first = 0; first < T::COLUMNS; first += T::SLAB) {
    __syncthreads();  // the stages, or the slab before, are no longer read
    multiplier.put(slab, first);
    __syncthreads();
    const int first_filter = blockIdx.y * T::COLUMNS + first;
    if (c.output == SIGNS) {
      store_signs<T>(c, slab, rows, first_filter, input_zero);
    } else {
      store_numbers<T>(c, slab, rows, first_filter, input_zero);
    }
  }
}

#ifdef HAS_ONE_BIT_TENSOR_CORE

// One warp's share of a tile by the one-bit tensor core. A fragment wants, of row g = lane / 4, bits 32 t .. 32 t + 31
// of each half of 256, t = lane % 4. Which bits those are is ours to say as long as pixels and filters agree, so a
// thread takes 16 bytes that lie together: two instructions' worth, and 8 threads read 128 bytes in a row, no bank twice.
template <class T>
struct TensorCoreProduct {
  static constexpr int DOWN = T::WARP_ROWS / 16, ACROSS = T::WARP_COLUMNS / 8;
  int sums[DOWN][ACROSS][4];
  int row, column, slice, group, member;

  __device__ __forceinline__ TensorCoreProduct() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    slice = warp / (T::WARPS_DOWN * T::WARPS_ACROSS);
    row = warp % T::WARPS_DOWN * T::WARP_ROWS;
    column = warp / T::WARPS_DOWN % T::WARPS_ACROSS * T::WARP_COLUMNS;
    group = lane / 4;
    member = lane % 4;
#pragma unroll
    for (int i = 0; i < DOWN * ACROSS * 4; ++i) sums[i / 4 / ACROSS][i / 4 % ACROSS][i % 4] = 0;
  }

  __device__ __forceinline__ void stage(const uint64* words) {
    const uint4* pixels = (const uint4*)(words + slice * T::SLICE_WORDS);
    const uint4* filters = pixels + T::ROWS * 4;
    uint4 b[ACROSS];
#pragma unroll
    for (int j = 0; j < ACROSS; ++j) b[j] = filters[(column + j * 8 + group) * 4 + member];
#pragma unroll
    for (int i = 0; i < DOWN; ++i) {
      const uint4 upper = pixels[(row + i * 16 + group) * 4 + member];
      const uint4 lower = pixels[(row + i * 16 + group + 8) * 4 + member];
#pragma unroll
      for (int j = 0; j < ACROSS; ++j) multiply_bits(sums[i][j], upper.x, lower.x, upper.y, lower.y, b[j].x, b[j].y);
#pragma unroll
      for (int j = 0; j < ACROSS; ++j) multiply_bits(sums[i][j], upper.z, lower.z, upper.w, lower.w, b[j].z, b[j].w);
    }
  }

  __device__ __forceinline__ void end_of_pass() {}

  __device__ __forceinline__ void times_minus_two() {
#pragma unroll
    for (int i = 0; i < DOWN * ACROSS * 4; ++i) sums[i / 4 / ACROSS][i / 4 % ACROSS][i % 4] *= -2;
  }

  // Into the slab if this warp's columns are in it: sums 0 and 1 are row g, columns 2t and 2t + 1; 2 and 3 row g + 8.
  __device__ __forceinline__ void put(int* slab, int first) {
    if (column < first || column >= first + T::SLAB) return;
    int* to = slab + (slice * T::SLAB + column - first) * T::SLAB_STRIDE + row;
#pragma unroll
    for (int i = 0; i < DOWN; ++i)
#pragma unroll
      for (int j = 0; j < ACROSS; ++j)
#pragma unroll
        for (int k = 0; k < 4; ++k)
          to[(j * 8 + member * 2 + k % 2) * T::SLAB_STRIDE + i * 16 + group + k / 2 * 8] = sums[i][j][k];
  }
};

#define TENSOR_CORE_KERNEL(name, rows, columns, warp_rows, warp_columns, slices, chunk, blocks)                        \
  extern "C" __global__ void __launch_bounds__(32 * (rows / warp_rows) * (columns / warp_columns) * slices, blocks)    \
      name(CONVOLUTION_PARAMETERS) {                                                                                   \
    typedef Tile<rows, columns, warp_rows, warp_columns, slices, chunk> T;                                             \
    convolve<T, TensorCoreProduct<T>>(CONVOLUTION);                                                                    \
  }

TENSOR_CORE_KERNEL(xnor_tensor_128x128_2, 128, 128, 64, 32, 1, 2, 2)
TENSOR_CORE_KERNEL(xnor_tensor_128x128_1, 128, 128, 64, 32, 1, 1, 2)
TENSOR_CORE_KERNEL(xnor_tensor_128x64_2, 128, 64, 32, 32, 1, 2, 2)
TENSOR_CORE_KERNEL(xnor_tensor_128x64_1, 128, 64, 32, 32, 1, 1, 2)
TENSOR_CORE_KERNEL(xnor_tensor_32x32_2, 32, 32, 32, 32, 4, 2, 4)
TENSOR_CORE_KERNEL(xnor_tensor_32x32_1, 32, 32, 32, 32, 4, 1, 4)

#endif  // HAS_ONE_BIT_TENSOR_CORE

// One thread's share of a tile by __popc: 4 x 4 sums, a quarter of the tile apart. popc runs at a quarter of the rate
// of logic, so an adder of bits (two instructions) takes the words in pairs and halves how many are counted: `ones`
// holds what was not counted yet, the carries count double.
template <class T>
struct PopcountProduct {
  static constexpr int DOWN = T::ROWS / 4, ACROSS = T::COLUMNS / 4;  // threads of a slice
  int sums[4][4];
  uint32 ones[4][4];
  int row, column, slice;

  __device__ __forceinline__ PopcountProduct() {
    column = threadIdx.x % ACROSS;
    row = threadIdx.x / ACROSS % DOWN;
    slice = threadIdx.x / (ACROSS * DOWN);
#pragma unroll
    for (int i = 0; i < 16; ++i) sums[i / 4][i % 4] = ones[i / 4][i % 4] = 0;
  }

  __device__ __forceinline__ static void add(uint32& ones, int& sum, uint32 x, uint32 y) {
    const uint32 carry = (ones & x) | (ones & y) | (x & y);
    ones ^= x ^ y;
    sum += 2 * __popc(carry);
  }

  __device__ __forceinline__ void stage(const uint64* words) {
    const uint4* pixels = (const uint4*)(words + slice * T::SLICE_WORDS);
    const uint4* filters = pixels + T::ROWS * 4;
#pragma unroll 1
    for (int turn = 0; turn < 4; ++turn) {
      const int quarter = (turn + column / 2) % 4;  // of a row of 64 bytes; neighbours differ, so no bank twice
      uint4 b[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) b[j] = filters[(column + ACROSS * j) * 4 + quarter];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint4 a = pixels[(row + DOWN * i) * 4 + quarter];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          add(ones[i][j], sums[i][j], a.x & b[j].x, a.y & b[j].y);
          add(ones[i][j], sums[i][j], a.z & b[j].z, a.w & b[j].w);
        }
      }
    }
  }

  __device__ __forceinline__ void end_of_pass() {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      sums[i / 4][i % 4] += __popc(ones[i / 4][i % 4]);
      ones[i / 4][i % 4] = 0;
    }
  }

  __device__ __forceinline__ void times_minus_two() {
#pragma unroll
    for (int i = 0; i < 16; ++i) sums[i / 4][i % 4] *= -2;
  }

  __device__ __forceinline__ void put(int* slab, int first) {
    (void)first;  // a tile is one slab
#pragma unroll
    for (int i = 0; i < 16; ++i)
      slab[(slice * T::SLAB + column + ACROSS * (i % 4)) * T::SLAB_STRIDE + row + DOWN * (i / 4)] = sums[i / 4][i % 4];
  }
};

#define POPCOUNT_KERNEL(name, side, slices, chunk)                                                                     \
  extern "C" __global__ void __launch_bounds__(256, 2) name(CONVOLUTION_PARAMETERS) {                                  \
    typedef Tile<side, side, 32, 16, slices, chunk> T; /* a warp's 32 threads make 4 x 4 sums each */                  \
    convolve<T, PopcountProduct<T>>(CONVOLUTION);                                                                      \
  }

POPCOUNT_KERNEL(xnor_popcount_64x64_2, 64, 1, 2)
POPCOUNT_KERNEL(xnor_popcount_64x64_1, 64, 1, 1)
POPCOUNT_KERNEL(xnor_popcount_32x32_2, 32, 4, 2)
POPCOUNT_KERNEL(xnor_popcount_32x32_1, 32, 4, 1)

// ---------------------------------------------------------------------------------------------------------- pooling

// Max pooling of dots (N, O, H, W), then the thresholds: signs and nonzero (N, H', W', halves of words). A thread makes
// 32 channels of a pixel; neighbouring threads have neighbouring pixels.
extern "C" __global__ void __launch_bounds__(256)
    xnor_pool_signs(const int* __restrict__ dots, const int* __restrict__ positive_from,
                    const int* __restrict__ negative_to, const unsigned char* __restrict__ descending,
                    uint32* __restrict__ signs, uint32* __restrict__ nonzero, int n_pixels, int out_channels,
                    int height, int width, int out_h, int out_w, int kernel_h, int kernel_w, int stride_h,
                    int stride_w, int pad_h, int pad_w) {
  const int pixel = blockIdx.x * 256 + threadIdx.x, half = blockIdx.y;
  if (pixel >= n_pixels) return;
  const int out_halves = (out_channels + 63) / 64 * 2;
  const int n = pixel / (out_h * out_w), place = pixel % (out_h * out_w);
  const int y = place / out_w * stride_h - pad_h, x = place % out_w * stride_w - pad_w;
  const int top = y > 0 ? y : 0, bottom = y + kernel_h < height ? y + kernel_h : height;
  const int left = x > 0 ? x : 0, right = x + kernel_w < width ? x + kernel_w : width;
  uint32 negative_bits = 0, nonzero_bits = 0;
  for (int bit = 0; bit < 32; ++bit) {
    const int channel = half * 32 + bit;
    if (channel >= out_channels) break;
    const int* from = dots + ((long long)n * out_channels + channel) * height * width;
    int largest = -0x7fffffff - 1;
    for (int i = top; i < bottom; ++i)
      for (int j = left; j < right; ++j) largest = max(largest, from[i * width + j]);
    threshold(positive_from, negative_to, descending, channel, largest, bit, negative_bits, nonzero_bits);
  }
  signs[(long long)pixel * out_halves + half] = negative_bits;
  nonzero[(long long)pixel * out_halves + half] = nonzero_bits;
}
