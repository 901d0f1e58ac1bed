"""A Binary-Weight-Network on packed weights beside the float network: its large layers, and AlexNet whole.

    python benchmarks/bwn_sums.py [--seconds 3] [--threads 1 2]

A layer whose kernel covers its whole input takes its sums from the bits (`xnornet_port.kernels.sums`). Float is
F.linear on the float weights, which is what the float network is run with there; unpacked is what the packed layer does
where it cannot take the sums: float weights made anew for the call. Turns in one process, medians, and in brackets the
spread, (90th - 10th percentile) / median. The sums are checked against double precision first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))

from xnornet_port import XnorModel, build_model
from xnornet_port.binarization import Binarizer
from xnornet_port.kernels import Geometry
from xnornet_port.machine import describe_machine
from xnornet_port.summation import convolution_sums
from xnornet_port.xnor_layers import BinaryWeightConvolution

LAYERS = {"fc6, 256 x 6 x 6 to 4096": (256, 6, 4096), "fc7, 4096 to 4096": (4096, 1, 4096)}
BATCHES = (1, 32, 256)
Form = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="per row (default 3)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads (default 1 2)")
    arguments = parser.parse_args()
    machine = describe_machine(torch.device("cpu"))
    print(f"{machine['processor']}, {machine['cores']} cores, torch {torch.__version__}\n")
    print("| what | batch | threads | float32 ms | unpacked ms | sums ms | float32 / sums |")
    print("|---|---|---|---|---|---|---|")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for name, (planes, side, filters) in LAYERS.items():
            for batch in BATCHES:
                print_row(name, batch, threads, layer_forms(planes, side, filters, batch), arguments.seconds)
        for batch in BATCHES[:2]:
            print_row("alexnet whole", batch, threads, network_forms(batch), arguments.seconds)


def layer_forms(planes: int, side: int, filters: int, batch: int) -> list[Form]:
    weight = weights((filters, planes, side, side))
    alpha, bias = weight.abs().flatten(1).mean(1), torch.randn(filters)
    layer = BinaryWeightConvolution.pack(weight, alpha, bias, Geometry.of(), 1, "layer")
    x, binary = torch.randn(batch, planes, side, side), (weight.sign() * alpha.view(-1, 1, 1, 1)).flatten(1)
    exact = x.flatten(1).double() @ binary.double().T + bias
    difference = float((layer(x).flatten(1) - exact).abs().max() / exact.abs().max())
    if difference > 1e-5:
        sys.exit(f"bwn_sums: the sums differ from double precision by {difference:.1e}")
    return [lambda: functional.linear(x.flatten(1), binary, bias), lambda: unpacked(layer, x), lambda: layer(x)]


def network_forms(batch: int) -> list[Form]:
    network = build_model("alexnet").eval()
    with torch.no_grad():
        for parameter in network.parameters():  # the builders leave weights to the caller
            parameter.copy_(weights(parameter.shape) * 0.01)
    model = XnorModel.from_model(network, binary_weights=True)
    Binarizer(network).binarize()
    x = torch.randn(batch, 3, 224, 224)

    def as_floats() -> object:
        with convolution_sums(network, x.device), torch.no_grad():
            return network(x)

    return [as_floats, lambda: unpacked(model, x), lambda: model(x)]


def weights(shape: tuple[int, ...]) -> torch.Tensor:
    """Normal random numbers, none exactly 0: a layer with such a weight unpacks."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return values.masked_fill_(values == 0, 1)


def unpacked(module: nn.Module, x: torch.Tensor) -> object:
    """The module's answer, with all its weights unpacked."""
    takes_sums = BinaryWeightConvolution._takes_sums
    BinaryWeightConvolution._takes_sums = lambda layer, x: False  # type: ignore[method-assign]
    try:
        return module(x)
    finally:
        BinaryWeightConvolution._takes_sums = takes_sums  # type: ignore[method-assign]


def print_row(name: str, batch: int, threads: int, forms: list[Form], seconds: float) -> None:
    times: list[list[float]] = [[] for _ in forms]
    for form in forms:
        form()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for form, taken in zip(forms, times, strict=True):
            start = time.perf_counter()
            form()
            taken.append(time.perf_counter() - start)
    medians = [statistics.median(taken) * 1e3 for taken in times]
    shown = [f"{median:.2f} ({spread(taken):.0%})" for median, taken in zip(medians, times, strict=True)]
    print(f"| {name} | {batch} | {threads} | {' | '.join(shown)} | {medians[0] / medians[2]:.2f} |", flush=True)


def spread(times: list[float]) -> float:
    tenths = statistics.quantiles(times, n=10)
    return (tenths[-1] - tenths[0]) / statistics.median(times)


if __name__ == "__main__":
    main()
