"""How fast the packed convolution of a layer is on this machine, against PyTorch's float convolution of the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import conv2d, linear

from cache_tools.network_profile import LayerProfile
from xnornet_port.kernels import pack_weights, xnor_conv2d

__all__ = ["Measurement", "measure"]

LEAST_SECONDS = 0.2  # of measuring, and of each of the two
LEAST_TIMES = 3


class Measurement(NamedTuple):
    """The quickest of several runs each."""

    float_seconds: float
    xnor_seconds: float

    @property
    def speedup(self) -> float:
        return self.float_seconds / self.xnor_seconds


def measure(layer: LayerProfile, batch: int, backend: str = "cpu") -> Measurement:
    """Time an XNOR layer on random numbers of its sizes, the two in turn; weights are packed beforehand, inputs not.

    Where the filter covers the whole input, the float side may also be the matrix product that the convolution then is:
    conv2d is very slow at it.

    Raises XnorNetError where the backend is not there.
    """
    if layer.weight_shape is None:
        raise ValueError(f"{layer.name} is no convolution")
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(layer.weight_shape, generator=generator)
    x = torch.randn(batch, *layer.input_shape, generator=generator)
    places = layer.stride, layer.padding, layer.dilation
    packed = pack_weights(weight)
    signs, binary = x.sign(), weight.sign() * packed.alpha.view(-1, 1, 1, 1)
    floats = [lambda: conv2d(signs, binary, None, *places)]
    if layer.weight_shape[1:] == layer.input_shape and not any(layer.padding):
        floats.append(lambda: linear(signs.flatten(1), binary.flatten(1)))
    with torch.no_grad():
        *float_seconds, xnor_seconds = _quickest(*floats, lambda: xnor_conv2d(x, packed, *places, backend=backend))
    return Measurement(min(float_seconds), xnor_seconds)


def _quickest(*programs: Callable[[], object]) -> list[float]:
    """The least wall time of each; they take turns, so that what else the machine does hits all alike."""
    for program in programs:
        program()
    least = [float("inf")] * len(programs)
    start = time.perf_counter()
    times = 0
    while times < LEAST_TIMES or time.perf_counter() - start < LEAST_SECONDS * len(programs):
        for number, program in enumerate(programs):
            before = time.perf_counter()
            program()
            least[number] = min(least[number], time.perf_counter() - before)
        times += 1
    return least
