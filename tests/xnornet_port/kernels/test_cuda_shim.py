"""The shim finds what it is there to find: small kernels with one mistake each, next to the same without it."""

import ctypes
from pathlib import Path

import cuda_shim
import pytest
import torch
from cuda_shim import ShimDevice, ShimError

KERNELS = r"""
template <bool BARRIER>
__device__ void reverse(int* out) {  // each thread writes one and reads another's
  int* shared = (int*)shared_memory();
  shared[threadIdx.x] = threadIdx.x;
  if (BARRIER) __syncthreads();
  out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void reverse_right(int* out) { reverse<true>(out); }
extern "C" __global__ void reverse_wrong(int* out) { reverse<false>(out); }

template <bool WAIT>
__device__ void background(const int* in, int* out) {
  uint4* shared = shared_memory();
  copy_async<16>(shared + threadIdx.x, (const uint4*)in + threadIdx.x, true);
  commit_copies();
  if (WAIT) wait_for_copies<0>();
  __syncthreads();
  out[threadIdx.x] = ((int*)shared)[threadIdx.x * 4];
}
extern "C" __global__ void background_right(const int* in, int* out) { background<true>(in, out); }
extern "C" __global__ void background_wrong(const int* in, int* out) { background<false>(in, out); }

extern "C" __global__ void divergent_barrier(int* out) {
  if (threadIdx.x < 32) __syncthreads();
  else __shfl_xor_sync(0xffffffffu, 0, 1);
  if (threadIdx.x >= 64) __syncthreads();
  out[threadIdx.x] = 0;
}
extern "C" __global__ void early_end(int* out) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  out[threadIdx.x] = 0;
}
extern "C" __global__ void parted_warp(int* out) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}
extern "C" __global__ void mixed_collectives(int* out) {
  int sums[4] = {0, 0, 0, 0};
  if (threadIdx.x % 32 < 16) __shfl_xor_sync(0xffffffffu, 1, 1);
  else multiply_bits(sums, 0, 0, 0, 0, 0, 0);
  out[threadIdx.x] = sums[0];
}
extern "C" __global__ void beyond_the_end(int* out) { out[threadIdx.x + 1] = 0; }
extern "C" __global__ void before_the_start(int* out) { out[(int)threadIdx.x - 1] = 0; }
extern "C" __global__ void beyond_shared(int* out) { out[threadIdx.x] = ((int*)shared_memory())[threadIdx.x + 256]; }
extern "C" __global__ void unaligned(const int* in, int* out) {
  copy_async<16>(shared_memory(), in + threadIdx.x, true);
  out[threadIdx.x] = 0;
}
extern "C" __global__ void fragments(const int* a, const int* b, int* out) {  // a [16][8] words, b [8][8], out [16][8]
  int sums[4] = {0, 0, 0, 0};
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  multiply_bits(sums, a[g * 8 + t], a[g * 8 + 64 + t], a[g * 8 + t + 4], a[g * 8 + 64 + t + 4], b[g * 8 + t],
                b[g * 8 + t + 4]);
  out[g * 8 + 2 * t] = sums[0];
  out[g * 8 + 2 * t + 1] = sums[1];
  out[g * 8 + 64 + 2 * t] = sums[2];
  out[g * 8 + 64 + 2 * t + 1] = sums[3];
}
"""

NAMES = tuple(line.split("(")[0].split()[-1] for line in KERNELS.splitlines() if line.startswith('extern "C"'))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> ShimDevice:
    folder: Path = tmp_path_factory.mktemp("shim")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_shim, "KERNELS", NAMES)
        library: ctypes.CDLL = cuda_shim.compile_kernels(KERNELS, folder)
    return ShimDevice(library, (9, 0), 1)


def integers(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.int32)


def is_right(device: ShimDevice, kernel: str, *inputs: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether all of some launches, each in another order of the threads, give what they should."""
    for _ in range(8):
        out = torch.zeros_like(expected)
        device.launch(kernel, (1,), len(out), 16 * len(out), (*inputs, out))
        if not torch.equal(out, expected):
            return False
    return True


def launch_twice(device: ShimDevice, kernel: str, out: torch.Tensor) -> None:
    """Arrays end at a page's end in every second launch, and begin at its start in the others."""
    for _ in range(2):
        device.launch(kernel, (1,), len(out), 16, (out,))


def test_a_missing_barrier_shows(device: ShimDevice) -> None:
    expected = integers(64).flip(0)
    assert is_right(device, "reverse_right", expected=expected)
    assert not is_right(device, "reverse_wrong", expected=expected)


def test_a_missing_wait_for_copies_shows(device: ShimDevice) -> None:
    values = integers(256)
    assert is_right(device, "background_right", values, expected=values[::4].contiguous())
    assert not is_right(device, "background_wrong", values, expected=values[::4].contiguous())


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("divergent_barrier", "a thread has ended before a barrier|a barrier that not all threads"),
        ("early_end", "a thread has ended before a barrier|a barrier that not all threads"),
        ("parted_warp", "a collective that not all threads of the warp reach"),
        ("mixed_collectives", "a warp meets for .* and "),
        ("beyond_the_end", "address 0x[0-9a-f]+ is outside"),
        ("before_the_start", "address 0x[0-9a-f]+ is outside"),
        ("beyond_shared", "address 0x[0-9a-f]+ is outside"),
    ],
)
def test_mistakes_end_the_launch(device: ShimDevice, kernel: str, message: str) -> None:
    out = torch.zeros(96, dtype=torch.int32)
    with pytest.raises(ShimError, match=message):
        launch_twice(device, kernel, out)
    assert is_right(device, "reverse_right", expected=integers(96).flip(0))  # a failure leaves nothing behind


def test_unaligned_copies_and_wrong_arguments(device: ShimDevice) -> None:
    out = torch.zeros(32, dtype=torch.int32)
    with pytest.raises(ShimError, match="not aligned"):
        device.launch("unaligned", (1,), 32, 16, (integers(64), out))
    with pytest.raises(ShimError, match="another number of arguments"):
        device.launch("reverse_right", (1,), 32, 128, (out, 1))
    with pytest.raises(ShimError, match="another size"):
        device.launch("reverse_right", (1,), 32, 128, (1,))
    with pytest.raises(ShimError, match="no such kernel"):
        device.launch("absent", (1,), 32, 128, (out,))


def test_fragments_of_the_one_bit_product(device: ShimDevice) -> None:
    """16 x 256 bits times 256 x 8: popcounts of the ands, counted in Python."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randint(-(2**31), 2**31, (rows, 8), generator=generator, dtype=torch.int64).int() for rows in (16, 8))
    expected = [
        [sum(bin(int(x) & int(y) & 0xFFFFFFFF).count("1") for x, y in zip(row, column, strict=True)) for column in b]
        for row in a
    ]
    out = torch.zeros(16, 8, dtype=torch.int32)
    device.launch("fragments", (1,), 32, 16, (a, b, out))
    assert out.tolist() == expected
