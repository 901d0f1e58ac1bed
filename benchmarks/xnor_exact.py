"""A recorded run of random cases: every code path of the CPU, the NumPy and reference backends, the CUDA kernels.

    python benchmarks/xnor_exact.py --native 10000 --python 2000 --output benchmarks/results/xnor_exact.md

native: tests/xnornet_port/kernels/native_check.c, the C source against the definition in C; each case is integer
dot products, scaled results, pooled and thresholded signs and packing, from floats and from packed bits, on 1 to 3
threads. python: the public functions against torch's convolution of signs in double, which is exact for integers.
cuda: the same on xnor.cu compiled for the CPU (tests/.../cuda_shim.py), each kind of tile in turn, one a case.
With --compiler and --emulator the native part runs for another processor. Exit code 1 with the first difference.
"""

import argparse
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests/xnornet_port/kernels"))

from cuda_shim import ShimDevice, compile_kernels

from xnornet_port.kernels import (
    Backend,
    Geometry,
    PackedInput,
    Pooling,
    Thresholds,
    cpu_numpy,
    load_backend,
    pack_weights,
    reference,
)
from xnornet_port.kernels.cpu import CpuBackend, available_paths
from xnornet_port.kernels.cuda import CudaBackend
from xnornet_port.kernels.cuda_device import kernel_source
from xnornet_port.kernels.packing import as_words, pack_bits

SOURCE = Path(__file__).resolve().parent.parent / "tests/xnornet_port/kernels/native_check.c"

# Compute capability and multiprocessors that make the CUDA backend choose each kind of tile.
TILES = {
    "tensor core, large tiles": ((9, 0), 1),
    "tensor core, small tiles": ((8, 0), 10**6),
    "popcount, large tiles": ((10, 0), 1),
    "popcount, small tiles": ((7, 5), 10**6),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--native", type=int, default=10000)
    parser.add_argument("--python", type=int, default=2000)
    parser.add_argument("--cuda", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compiler", default="gcc -O3 -ffp-contract=off")
    parser.add_argument("--emulator", default="")
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    where = f"compiled by `{arguments.compiler}`" + (f", run by {arguments.emulator}" if arguments.emulator else "")
    lines = [f"Seed {arguments.seed}, on {platform.machine()}, {where}:", ""]
    if arguments.native:
        lines += run_native(arguments)
    if arguments.python:
        start = time.perf_counter()
        backends: dict[str, Backend] = {path: CpuBackend(path) for path in available_paths()}
        backends |= {"numpy": cpu_numpy, "reference": load_backend("reference")}
        for case in range(arguments.python):
            check(arguments.seed * 1_000_003 + case, backends)
        names = ", ".join(backends)
        lines.append(f"* {arguments.python} cases through Python, exact: {names} ({time.perf_counter() - start:.0f} s)")
    if arguments.cuda:
        lines.append(run_cuda(arguments))
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        with arguments.output.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    return 0


def run_native(arguments: argparse.Namespace) -> list[str]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "native_check")
        compiler = shlex.split(arguments.compiler)
        subprocess.run([*compiler, "-std=c11", str(SOURCE), "-o", program, "-pthread", "-lm"], check=True)
        command = [*shlex.split(arguments.emulator), program, str(arguments.native), str(arguments.seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"xnor_exact: {done.stdout}{done.stderr}")
    paths = [line.split(":")[0] for line in done.stdout.splitlines() if line.endswith(": exact")]
    return [f"* {arguments.native} cases in C, exact: {', '.join(paths)} ({time.perf_counter() - start:.0f} s)"]


def run_cuda(arguments: argparse.Namespace) -> str:
    """The CUDA kernels on the CPU; their result line."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        library = compile_kernels(kernel_source(), Path(folder))
        backends = [(name, CudaBackend(ShimDevice(library, *device))) for name, device in TILES.items()]
        for case in range(arguments.cuda):
            name, backend = backends[case % len(backends)]
            check(arguments.seed * 1_000_003 + case, {name: backend})
    names = ", ".join(TILES)
    return (
        f"* {arguments.cuda} cases on the simulated CUDA kernels, exact: {names} ({time.perf_counter() - start:.0f} s)"
    )


def nonzero_plane(bits: PackedInput) -> torch.Tensor:
    """Where there is no zero; the CUDA kernels always have the plane, the others only where there is one."""
    if bits.nonzero is not None:
        return bits.nonzero
    return as_words(pack_bits(np.ones(bits.channels, bool))).expand(bits.signs.shape)


def check(seed: int, backends: dict[str, Backend]) -> None:
    """One case on all backends; SystemExit where one differs."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    channels, filters = between(1, 140), between(1, 70)
    kernel = (between(1, 4), between(1, 4))
    geometry = Geometry(*((between(low, high), between(low, high)) for low, high in ((1, 3), (0, 3), (1, 2))))
    least = [max(1, geometry.dilation[i] * (kernel[i] - 1) + 1 - 2 * geometry.padding[i]) for i in (0, 1)]
    x = torch.randn(between(1, 3), channels, *(n + between(0, 12) for n in least), generator=generator)
    weight = torch.randn(filters, channels, *kernel, generator=generator)
    for tensor in (x, weight):
        if between(0, 3) == 0:
            tensor *= torch.rand(tensor.shape, generator=generator) < 0.8
    packed = pack_weights(weight, torch.randn(filters, generator=generator))
    places = (geometry.stride, geometry.padding, geometry.dilation)
    dot = functional.conv2d(x.double().sign(), weight.double().sign(), None, *places).to(torch.int32)
    scaled = reference.scaled(dot, packed)
    level = torch.randint(-6, 7, (filters,), generator=generator, dtype=torch.int32)
    descending = torch.rand(filters, generator=generator) < 0.5
    thresholds = Thresholds(level, level + torch.where(descending, 2, -2).int(), descending)
    pooling = Pooling((2, 2), (2, 2)) if min(dot.shape[2:]) >= 2 and between(0, 1) else None
    signs = reference.pooled_signs(dot, thresholds, pooling)
    for name, backend in backends.items():
        bits = backend.pack_input(x)
        found = backend.xnor_sign(bits, packed, thresholds, geometry, pooling)
        is_equal = (
            torch.equal(backend.xnor_dot(x, packed, geometry), dot)
            and torch.equal(backend.xnor_conv2d(bits, packed, geometry), scaled)
            and torch.equal(backend.xnor_conv2d(x, packed, geometry), scaled)
            and torch.equal(found.signs, signs.signs)
            and torch.equal(nonzero_plane(found), nonzero_plane(signs))
        )
        if not is_equal:
            sys.exit(f"xnor_exact: {name} differs, seed {seed}: {tuple(x.shape)}, {tuple(weight.shape)}, {geometry}")


if __name__ == "__main__":
    sys.exit(main())
