"""The CUDA backend's convolutions beside cuDNN's in half precision, TF32 and float32, layer by layer, in one run.

    python benchmarks/xnor_conv_cuda.py [--batches 1 32 256] [--rounds 9] [--tiles] [--output PAGE]

Ours is float in, float out: signs, packing, product, alpha and bias. cuDNN gets tensors of signs in its own precision
already, and counts in its faster layout (and as F.linear where the layer is one). Each contestant's calls are captured
in a CUDA graph, and each turn is timed behind an untimed one of the same graph, so that it is the GPU's time that is
measured; the graphs alternate, medians count. A call has the same input as the one before, so what fits stays in the
GPU's cache (L2) for all contestants. The limit is measured too: one-bit products from registers alone. A last table has
calls without a graph, Python and launches included. --tiles measures every tile for every layer, to tune the choice.
PAGE is written after every row, so that what was measured is there if the run is ended.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from xnornet_port import XnorNetError
from xnornet_port.kernels import PackedInput, PackedWeights, Thresholds, pack_input, pack_weights, xnor_dot, xnor_sign
from xnornet_port.kernels import xnor_conv2d as convolve
from xnornet_port.kernels.cuda import backend_of
from xnornet_port.kernels.cuda_tiles import TILES, has_tensor_core

Call = Callable[[], object]


@dataclass(frozen=True)
class Layer:
    name: str
    channels: int
    filters: int
    kernel: int
    size: int
    padding: int

    def products(self, batch: int) -> int:
        """Multiply-adds of signs that the layer asks for, borders and unused bits not counted."""
        out = self.size + 2 * self.padding - self.kernel + 1
        return batch * out * out * self.filters * self.channels * self.kernel**2


LAYERS = (
    Layer("conv2 96-256 5x5 @27", 96, 256, 5, 27, 2),
    Layer("conv3 256-384 3x3 @13", 256, 384, 3, 13, 1),
    Layer("conv4 384-384 3x3 @13", 384, 384, 3, 13, 1),
    Layer("conv5 384-256 3x3 @13", 384, 256, 3, 13, 1),
    Layer("fc6 256-4096 6x6", 256, 4096, 6, 6, 0),
    Layer("fc7 4096-4096 1x1", 4096, 4096, 1, 1, 0),
    Layer("ResNet 64 3x3 @56", 64, 64, 3, 56, 1),
    Layer("ResNet 128 3x3 @28", 128, 128, 3, 28, 1),
    Layer("ResNet 256 3x3 @14", 256, 256, 3, 14, 1),
    Layer("ResNet 512 3x3 @7", 512, 512, 3, 7, 1),
)

# Eight independent one-bit products in each warp, over and over: nothing but the tensor core works.
LIMIT_SOURCE = r"""
extern "C" __global__ void one_bit_limit(int* out, int rounds) {
  int sums[8][4] = {};
  unsigned a = threadIdx.x * 2654435761u, b = ~a;
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                   "{%0,%1,%2,%3};"
                   : "+r"(sums[i][0]), "+r"(sums[i][1]), "+r"(sums[i][2]), "+r"(sums[i][3])
                   : "r"(a), "r"(b), "r"(a), "r"(b), "r"(a), "r"(b));
  }
  int total = 0;
  for (int i = 0; i < 8; ++i) total += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
  out[blockIdx.x * blockDim.x + threadIdx.x] = total;
}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--rounds", type=int, default=9, help="measured turns of each contestant (default 9)")
    parser.add_argument("--tiles", action="store_true", help="every tile instead of the comparison")
    parser.add_argument("--output", type=Path, help="also write the tables here")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("xnor_conv_cuda: torch finds no GPU here", file=sys.stderr)
        return 1
    torch.backends.cudnn.benchmark = True
    try:
        page = Page([__doc__.splitlines()[0], "", machine(), ""], arguments.output)
        if arguments.tiles:
            tile_table(arguments, page)
        else:
            comparison(arguments, page)
    except XnorNetError as error:
        print(f"xnor_conv_cuda: {error}", file=sys.stderr)
        return 1
    return 0


@dataclass
class Page:
    """Lines that are printed, and written as a whole each time there are more."""

    lines: list[str]
    path: Path | None

    def add(self, *lines: str) -> None:
        print(*lines, sep="\n", flush=True)
        self.lines += lines
        if self.path is not None:
            self.path.write_text("\n".join([*self.lines, ""]))


def comparison(arguments: argparse.Namespace, page: Page) -> None:
    limit = one_bit_limit()
    page.add(
        f"One-bit products from registers alone: {limit / 1e15:.3f} peta multiply-adds per second." if limit else
        "This GPU has no one-bit tensor core.",
        "Microseconds, median (least to most). bits: from packed bits to packed bits. share: of the one-bit limit.",
        "",
        "| layer | batch | ours | fp16 | TF32 | fp32 | fp16 / ours | bits | fp16 / bits | share, ours | share, bits |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    )  # fmt: skip
    eager = [
        "",
        "Without graphs, batch 1:",
        "",
        "| layer | ours | bits | fp16 | TF32 | fp32 |",
        "|---|---|---|---|---|---|",
    ]
    for layer in LAYERS:
        weight, bias = parameters(layer, "cuda")
        packed = pack_weights(weight.cpu(), bias.cpu())
        for batch in arguments.batches:
            x = pictures(layer, batch, "cuda")
            check_exact(x, weight, packed, layer)
            calls = {**our_calls(x, packed, layer), **cudnn_calls(x, weight, bias, layer)}
            page.add(row(layer, batch, graph_clock(calls, arguments.rounds), limit))
            if batch == 1:
                best = fastest({name: [elapsed(call, 50) / 50 for _ in range(5)] for name, call in calls.items()})
                eager.append(f"| {layer.name} | {' | '.join(f'{statistics.median(v):.1f}' for v in best.values())} |")
    page.add(*eager)


def fastest(times: dict[str, list[float]]) -> dict[str, list[float]]:
    """Of each kind of contestant the form with the least median."""
    return {
        kind: min((v for name, v in times.items() if name.startswith(kind)), key=statistics.median)
        for kind in ("ours", "bits", "fp16", "TF32", "fp32")
    }


def row(layer: Layer, batch: int, times: dict[str, list[float]], limit: float) -> str:
    """One line of the table from microseconds; of a precision the fastest form counts."""
    best = fastest(times)
    middle = {kind: statistics.median(values) for kind, values in best.items()}
    spread = {kind: f"{middle[kind]:.1f} ({min(v):.1f} to {max(v):.1f})" for kind, v in best.items()}
    ideal = layer.products(batch) / limit * 1e6 if limit else 0.0
    cells = [
        layer.name, str(batch), spread["ours"], spread["fp16"], spread["TF32"], spread["fp32"],
        f"{middle['fp16'] / middle['ours']:.2f}", spread["bits"], f"{middle['fp16'] / middle['bits']:.2f}",
        f"{ideal / middle['ours']:.0%}", f"{ideal / middle['bits']:.0%}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def tile_table(arguments: argparse.Namespace, page: Page) -> None:
    """Microseconds of xnor_dot from packed bits by each tile; the one that is chosen by itself comes first."""
    tiles = [tile for tile in TILES if tile.family == "popcount" or has_tensor_core(capability())]
    page.add(f"| layer | batch | chosen | {' | '.join(tile.name for tile in tiles)} |", "|---" * (3 + len(tiles)) + "|")
    for layer in LAYERS:
        weight, bias = parameters(layer, "cuda")
        packed = pack_weights(weight.cpu(), bias.cpu())
        for batch in arguments.batches:
            x = pictures(layer, batch, "cuda")
            bits = pack_input(x, "cuda")
            calls: dict[str, Call] = {
                "chosen": lambda b=bits, p=packed, n=layer.padding: xnor_dot(b, p, 1, n, backend="cuda")
            }
            for tile in tiles:
                backend = backend_of(x, tile.name)
                calls[tile.name] = lambda b=bits, p=packed, n=layer.padding, on=backend: xnor_dot(
                    b, p, 1, n, backend=on
                )
            times = graph_clock(calls, arguments.rounds)
            cells = [f"{statistics.median(values):.1f}" for values in times.values()]
            page.add(f"| {layer.name} | {batch} | {' | '.join(cells)} |")


def parameters(layer: Layer, device: str) -> tuple[Tensor, Tensor]:
    """Weight and bias."""
    generator = torch.Generator().manual_seed(1)
    shape = (layer.filters, layer.channels, layer.kernel, layer.kernel)
    weight, bias = torch.randn(shape, generator=generator), torch.randn(layer.filters, generator=generator)
    return weight.to(device), bias.to(device)


def pictures(layer: Layer, batch: int, device: str) -> Tensor:
    generator = torch.Generator(device).manual_seed(batch)
    return torch.randn(batch, layer.channels, layer.size, layer.size, device=device, generator=generator)


def check_exact(x: Tensor, weight: Tensor, packed: PackedWeights, layer: Layer) -> None:
    """The integers of the first two pictures against a convolution in double."""
    dots = xnor_dot(x, packed, padding=layer.padding, backend="cuda")[:2]
    expected = functional.conv2d(x[:2].double().sign(), weight.double().sign(), padding=layer.padding)
    if not torch.equal(dots, expected.round().int()):
        raise XnorNetError(f"{layer.name}: the integers are wrong")


def our_calls(x: Tensor, packed: PackedWeights, layer: Layer, backend: object = "cuda") -> dict[str, Call]:
    bits: PackedInput = pack_input(x, backend)  # type: ignore[arg-type]
    middle = torch.zeros(layer.filters, dtype=torch.int32, device=x.device)
    thresholds = Thresholds(middle, middle - 1, torch.zeros_like(middle, dtype=torch.bool))
    padding = layer.padding
    return {
        "ours": lambda: convolve(x, packed, 1, padding, backend=backend),  # type: ignore[arg-type]
        "bits": lambda: xnor_sign(bits, packed, thresholds, 1, padding, backend=backend),  # type: ignore[arg-type]
    }


def cudnn_calls(x: Tensor, weight: Tensor, bias: Tensor, layer: Layer) -> dict[str, Call]:
    """Convolution of alpha * sign(W) with sign(x), in each precision and layout."""
    alpha = weight.abs().mean(dim=(1, 2, 3), keepdim=True)
    calls: dict[str, Call] = {}
    for kind, dtype, tf32 in (
        ("fp16", torch.float16, False),
        ("TF32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        values, filters, addend = x.sign().to(dtype), (weight.sign() * alpha).to(dtype), bias.to(dtype)
        for layout in (torch.contiguous_format, torch.channels_last):
            a, w = values.to(memory_format=layout), filters.to(memory_format=layout)

            def convolution(a: Tensor = a, w: Tensor = w, addend: Tensor = addend, tf32: bool = tf32) -> Tensor:
                torch.backends.cudnn.allow_tf32 = tf32
                return functional.conv2d(a, w, addend, padding=layer.padding)

            calls[f"{kind} {layout}"] = convolution
        if layer.kernel == layer.size and layer.padding == 0:
            flat, matrix = values.flatten(1), filters.flatten(1)

            def linear(a: Tensor = flat, w: Tensor = matrix, addend: Tensor = addend, tf32: bool = tf32) -> Tensor:
                torch.backends.cuda.matmul.allow_tf32 = tf32
                return functional.linear(a, w, addend)

            calls[f"{kind} linear"] = linear
    return calls


def graph_clock(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Microseconds per call of each, `rounds` times in turn, each turn a graph of calls worth some milliseconds."""
    graphs = {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        repeats = max(2, min(200, int(3000 / elapsed(call, 3) * 3)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(repeats):
                call()
        graphs[name] = (graph, repeats)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (graph, repeats) in graphs.items():
            times[name].append(elapsed(graph.replay, 1) / repeats)
    return times


def elapsed(call: Call, times: int) -> float:
    """Microseconds on the GPU of so many calls, behind one more: what the host takes to begin is none of theirs."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    call()
    start.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1000


def one_bit_limit() -> float:
    """Multiply-adds of signs per second by the tensor core alone; 0 where there is no one-bit one."""
    if not has_tensor_core(capability()):
        return 0.0
    import cupy
    import numpy as np

    kernel = cupy.RawKernel(LIMIT_SOURCE, "one_bit_limit", options=("--std=c++17",))
    n_multiprocessors = torch.cuda.get_device_properties("cuda").multi_processor_count
    blocks, threads, rounds = 8 * n_multiprocessors, 256, 4096
    out = torch.empty(blocks * threads, dtype=torch.int32, device="cuda")

    def launch() -> None:
        with cupy.cuda.Stream.from_external(torch.cuda.current_stream()):
            kernel((blocks,), (threads,), (np.uint64(out.data_ptr()), np.int32(rounds)))

    launch()
    products = blocks * threads // 32 * rounds * 8 * 16 * 8 * 256
    return products / min(elapsed(launch, 1) for _ in range(5)) * 1e6


def capability() -> tuple[int, int]:
    major, minor = torch.cuda.get_device_capability()
    return int(major), int(minor)


def machine() -> str:
    import cupy

    driver = cupy.cuda.runtime.driverGetVersion()  # 13000: 13.0
    return (
        f"{torch.cuda.get_device_name()}, CUDA {driver // 1000}.{driver % 1000 // 10}, torch {torch.__version__}, "
        f"cuDNN {torch.backends.cudnn.version()}, CuPy {cupy.__version__}, {platform.platform()}"
    )


if __name__ == "__main__":
    sys.exit(main())
