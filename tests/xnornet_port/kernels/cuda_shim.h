// Runs CUDA kernels on the CPU, for tests: the kernel's file is compiled by g++ after this header.
//
// A CUDA thread is a fiber. One runs until it comes to a barrier or to something a warp does together; which goes on
// next is drawn at random, so that a missing barrier shows. Copies that CUDA makes in the background happen at once or
// as late as allowed, at random too. Shared memory starts as noise and ends at a page that cannot be touched, as do
// the arrays of shim_allocate. What a GPU would do wrong or never finish ends the launch with a message: a barrier that
// not all threads reach, a warp that parts before a collective, an address not aligned or outside, an argument of
// another size. Floats that are subnormal count as 0 (where g++ compiles for x86), for so does CuPy compile kernels.
// What the shim cannot show: speed, and that the hardware is as the PTX manual says.
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

struct Triple {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
static Triple gridDim, blockDim, blockIdx, threadIdx;

namespace shim {

const int WARP = 32;
const size_t STACK = 24 * 1024 + 448;  // not a power of two: stacks would share lines of the cache

struct Copy {
  void* to;
  const void* from;
  int bytes;  // 0: this many...
  int zeros;  // ...and so many zeros
};

struct Fiber {
  ucontext_t start;
  jmp_buf resume;
  bool started = false, finished = false;
  std::vector<std::vector<Copy>> groups;  // committed copies, oldest first
  std::vector<Copy> open;                 // copies of the group not committed yet
  void* offer = nullptr;                  // what this thread brings to a collective of its warp
};

struct Meeting {  // of a warp or a block
  int arrived = 0;
  const char* kind = nullptr;
};

static std::deque<Fiber> fibers;  // a deque: glibc's contexts point into themselves
static std::vector<int> ready;
static std::vector<Meeting> warps;
static Meeting block;
static int current, n_threads, n_finished, block_or, block_or_result;
static std::function<void()> body;
static jmp_buf scheduler;
static sigjmp_buf stop;
static std::string message;
static uint64_t random_state;
static char* shared_begin;

static uint64_t draw() {  // xorshift64*
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 2685821657736338717ull;
}

[[noreturn]] static void fail(const std::string& what) {
  message = what + " (block " + std::to_string(blockIdx.x) + "," + std::to_string(blockIdx.y) + ", thread " +
            std::to_string(current) + ")";
  siglongjmp(stop, 1);
}

static void switch_away() {
  const int me = current;
  if (_setjmp(fibers[me].resume) == 0) _longjmp(scheduler, 1);
  threadIdx = {me % blockDim.x, me / blockDim.x % blockDim.y, me / (blockDim.x * blockDim.y)};
}

static void fiber_main() {
  for (;;) {  // a fiber serves one thread of each block in turn
    body();
    fibers[current].finished = true;
    ++n_finished;
    switch_away();
  }
}

static void resume(int thread) {
  current = thread;
  if (_setjmp(scheduler) != 0) return;
  Fiber& fiber = fibers[thread];
  if (fiber.started) _longjmp(fiber.resume, 1);
  fiber.started = true;
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
  setcontext(&fiber.start);
}

static void wait_for_block(const char* kind) {
  if (n_finished) fail("a thread has ended before a barrier of its block");
  if (block.arrived++ == 0) block.kind = kind;
  if (block.arrived < n_threads) return switch_away();
  block.arrived = 0;
  block_or_result = block_or;
  block_or = 0;
  for (int i = 0; i < n_threads; ++i)
    if (i != current) ready.push_back(i);
  ready.push_back(current);
  switch_away();
}

// All 32 threads of a warp come here with `offer`; the last does `work` for all of them.
static void together(const char* kind, void* offer, void (*work)(int first)) {
  const int warp = current / WARP;
  Meeting& meeting = warps[warp];
  if (meeting.arrived++ == 0) meeting.kind = kind;
  if (strcmp(meeting.kind, kind) != 0) fail(std::string("a warp meets for ") + meeting.kind + " and " + kind);
  fibers[current].offer = offer;
  if (meeting.arrived < WARP) return switch_away();
  meeting.arrived = 0;
  work(warp * WARP);
  for (int i = warp * WARP; i < warp * WARP + WARP; ++i) ready.push_back(i);
  switch_away();
}

static void run_block(unsigned shared_bytes) {
  for (unsigned i = 0; i < shared_bytes; ++i) shared_begin[i] = (char)(draw() >> 56);
  ready.clear();
  for (int i = 0; i < n_threads; ++i) {
    ready.push_back(i);
    fibers[i].finished = false;
    fibers[i].groups.clear();
    fibers[i].open.clear();
  }
  warps.assign((n_threads + WARP - 1) / WARP, Meeting());
  block = Meeting();
  n_finished = block_or = 0;
  while (!ready.empty()) {
    const size_t pick = draw() % ready.size();
    std::swap(ready[pick], ready.back());
    const int thread = ready.back();
    ready.pop_back();
    resume(thread);
  }
  if (n_finished == n_threads) return;
  if (block.arrived) fail("a barrier that not all threads of the block reach");
  fail("a collective that not all threads of the warp reach");
}

static void on_bad_address(int, siginfo_t* info, void*) {
  char where[40];
  snprintf(where, sizeof where, "address %p is outside", info->si_addr);
  fail(where);
}

// A region whose last byte lies before a page that cannot be touched; or whose first lies behind one.
static char* guarded(size_t bytes, bool guard_behind) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
  char* all = (char*)mmap(nullptr, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(all + page, room, PROT_READ | PROT_WRITE);
  return guard_behind ? all + page + room - (bytes + 15) / 16 * 16 : all + page;
}

static void free_guarded(char* begin, size_t bytes) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
  munmap((char*)((uintptr_t)begin / page * page) - page, room + 2 * page);
}

// Fibers stay from launch to launch, each on a stack of its own; after a failure all begin anew.
static void start_fibers(bool anew) {
  static char* stacks = nullptr;
  const size_t most = 1024;
  if (stacks == nullptr) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    stacks = (char*)mmap(nullptr, most * STACK, PROT_READ | PROT_WRITE, flags, -1, 0);
  }
  if (anew) fibers.clear();
  while ((int)fibers.size() < n_threads) {
    char* stack = stacks + fibers.size() * STACK;
    fibers.emplace_back();
    Fiber& fiber = fibers.back();
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stack;
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, fiber_main, 0);
  }
}

// While it lives subnormal floats are 0, as arguments and as results; or, with `flush` false, are what they are.
struct Subnormals {
#ifdef __SSE__
  const unsigned before = _mm_getcsr();
  explicit Subnormals(bool flush) { _mm_setcsr(flush ? before | 0x8040 : before & ~0x8040u); }
  ~Subnormals() { _mm_setcsr(before); }
#else
  explicit Subnormals(bool) {}
#endif
};

static const char* launch(const unsigned* grid, const unsigned* threads, unsigned shared_bytes, uint64_t seed) {
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {threads[0], threads[1], threads[2]};
  n_threads = (int)(threads[0] * threads[1] * threads[2]);
  random_state = seed * 2 + 1;
  message.clear();
  static bool failed_before = false;
  char* region = shared_begin = guarded(shared_bytes, true);
  struct sigaction action = {}, old_segv, old_bus;
  action.sa_sigaction = on_bad_address;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, &old_segv);
  sigaction(SIGBUS, &action, &old_bus);
  const Subnormals flushed(true);
  start_fibers(failed_before);
  failed_before = false;
  if (sigsetjmp(stop, 1) == 0) {
    for (unsigned z = 0; z < grid[2]; ++z)
      for (unsigned y = 0; y < grid[1]; ++y)
        for (unsigned x = 0; x < grid[0]; ++x) {
          blockIdx = {x, y, z};
          run_block(shared_bytes);
        }
  }
  sigaction(SIGSEGV, &old_segv, nullptr);
  sigaction(SIGBUS, &old_bus, nullptr);
  free_guarded(region, shared_bytes);
  failed_before = !message.empty();
  return failed_before ? message.c_str() : nullptr;
}

// A kernel with its arguments as cuLaunchKernel takes them: the address of each.
template <class... P, size_t... I>
const char* call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
  std::tuple<P...> values(*(P*)arguments[I]...);
  body = [=] { std::apply(kernel, values); };
  return nullptr;
}

template <class... P>
const char* prepare(void (*kernel)(P...), void** arguments, const int* sizes, int n_arguments) {
  const int expected[] = {(int)sizeof(P)...};
  if (n_arguments != (int)sizeof...(P)) return "the kernel takes another number of arguments";
  for (int i = 0; i < n_arguments; ++i)
    if (sizes[i] != expected[i]) return "an argument has another size than the kernel's";
  return call(kernel, arguments, std::index_sequence_for<P...>());
}

}  // namespace shim

extern "C" void* shim_allocate(size_t bytes, int guard_behind) { return shim::guarded(bytes, guard_behind != 0); }
extern "C" void shim_free(void* begin, size_t bytes) { shim::free_guarded((char*)begin, bytes); }

// ------------------------------------------------------------------------------------------- what kernels may call

static inline uint4* shared_memory() { return (uint4*)shim::shared_begin; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int max(int a, int b) { return a > b ? a : b; }

// fma.rn.f32 without .ftz, whatever the compiler was told; volatile, so that it stays between the changes of mode.
static inline float __fmaf_ieee_rn(float x, float y, float z) {
  const shim::Subnormals kept(false);
  volatile float a = x, b = y, c = z;
  volatile float result = std::fma(a, b, c);
  return result;
}

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int atomicAdd(int* to, int value) { return *to += value, *to - value; }

static inline void __syncthreads() { shim::wait_for_block("__syncthreads"); }

static inline int __syncthreads_or(int value) {
  shim::block_or |= value;
  shim::wait_for_block("__syncthreads_or");
  return shim::block_or_result;
}

struct Shuffle {
  int value, from, result;
};

static inline int __shfl_xor_sync(unsigned mask, int value, int distance) {
  if (mask != 0xffffffffu) shim::fail("a shuffle of part of a warp");
  Shuffle mine = {value, (shim::current % shim::WARP) ^ distance, 0};
  shim::together("__shfl_xor_sync", &mine, [](int first) {
    for (int i = first; i < first + shim::WARP; ++i) {
      Shuffle* one = (Shuffle*)shim::fibers[i].offer;
      one->result = ((Shuffle*)shim::fibers[first + one->from].offer)->value;
    }
  });
  return mine.result;
}

static inline void perform(const shim::Copy& copy) {
  memcpy(copy.to, copy.from, copy.bytes);
  memset((char*)copy.to + copy.bytes, 0, copy.zeros);
}

template <int BYTES>
static inline void copy_async(void* to, const void* from, bool present) {
  if ((uintptr_t)to % BYTES || (uintptr_t)from % BYTES) shim::fail("a copy to or from an address not aligned");
  const shim::Copy copy = {to, from, present ? BYTES : 0, present ? 0 : BYTES};
  if (shim::draw() >> 63) {
    perform(copy);
  } else {
    shim::fibers[shim::current].open.push_back(copy);
  }
}

static inline void commit_copies() {
  shim::Fiber& fiber = shim::fibers[shim::current];
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}

template <int PENDING>
static inline void wait_for_copies() {
  std::vector<std::vector<shim::Copy>>& groups = shim::fibers[shim::current].groups;
  while ((int)groups.size() > PENDING) {
    for (const shim::Copy& copy : groups.front()) perform(copy);
    groups.erase(groups.begin());
  }
}

// mma.sync m16n8k256 b1 and.popc, by the tables of the PTX manual ("Matrix Fragments for mma.m16n8k256"): of a the
// register r of lane 4 g + t holds row g + 8 (r % 2), bits 32 t + 128 (r / 2) and the 31 after; of b column g, bits
// 32 t + 128 r; of the sums row g + 8 (r / 2), column 2 t + r % 2.
#define HAS_ONE_BIT_TENSOR_CORE 1

struct Fragments {
  int* sums;
  unsigned a[4], b[2];
};

static inline void multiply_fragments(int first) {
  unsigned a[16][8], b[8][8];  // words of 32 bits
  for (int lane = 0; lane < shim::WARP; ++lane) {
    const Fragments* one = (Fragments*)shim::fibers[first + lane].offer;
    const int g = lane / 4, t = lane % 4;
    for (int r = 0; r < 4; ++r) a[g + 8 * (r % 2)][t + 4 * (r / 2)] = one->a[r];
    for (int r = 0; r < 2; ++r) b[g][t + 4 * r] = one->b[r];
  }
  for (int lane = 0; lane < shim::WARP; ++lane) {
    const Fragments* one = (Fragments*)shim::fibers[first + lane].offer;
    for (int r = 0; r < 4; ++r) {
      const int row = lane / 4 + 8 * (r / 2), column = 2 * (lane % 4) + r % 2;
      for (int k = 0; k < 8; ++k) one->sums[r] += __popc(a[row][k] & b[column][k]);
    }
  }
}

static inline void multiply_bits(int (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                 unsigned b1) {
  Fragments mine = {sums, {a0, a1, a2, a3}, {b0, b1}};
  shim::together("mma", &mine, multiply_fragments);
}
