"""Random networks against their packed form, answer for answer: blocks in any order, odd sizes, modules in two places.

Weights are +-1/4 and 0, other numbers eighths, and a sign follows each normalisation but that of nothing: the float
network's sums are exact, so that the packed one has to answer to the bit.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from lua_compat.nn import SpatialDropout
from lua_compat.nn.containers import ConcatTable
from lua_compat.nn.normalization import SpatialBatchNormalization
from lua_compat.nn.table import CAddTable
from xnornet_port import XnorModel
from xnornet_port.layers import BinActiveZ

MOST_CHANNELS = 66
channels = st.sampled_from([1, 2, 5, 8, 63, 64, MOST_CHANNELS])
side = st.sampled_from([1, 2, 3])


class Numbers:
    """Exact numbers, some of them those at which mistakes are made: 0, -0.0, a channel without weights."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def eighths(self, tensor: torch.Tensor, low: int = -8, high: int = 9) -> None:
        zero = torch.rand((), generator=self.generator) < 0.2
        tensor.copy_(torch.randint(low, high, tensor.shape, generator=self.generator) * ~zero / 8)

    def weights(self, tensor: torch.Tensor, share_of_zeros: float) -> None:
        tensor.copy_(torch.randint(0, 2, tensor.shape, generator=self.generator) / 2 - 0.25)
        drawn = torch.rand(tensor.shape, generator=self.generator)
        tensor.masked_fill_(drawn < share_of_zeros, 0).masked_fill_(drawn < share_of_zeros / 2, -0.0)


@st.composite
def normalizations(draw: st.DrawFn, n: int, numbers: Numbers) -> nn.Module:
    module = draw(st.sampled_from([SpatialBatchNormalization, nn.BatchNorm2d]))(n, affine=draw(st.booleans()))
    with torch.no_grad():
        numbers.eighths(module.running_mean, -9, 9)
        numbers.eighths(module.running_var, 0, 30)
        if module.affine:
            numbers.eighths(module.weight, draw(st.sampled_from([-8, 0])))
            numbers.eighths(module.bias)
    return module


@st.composite
def convolutions(draw: st.DrawFn, n_inputs: int, n_outputs: int, numbers: Numbers) -> nn.Conv2d:
    sizes = {"stride": st.sampled_from([1, 1, 2]), "padding": st.integers(0, 3), "dilation": st.sampled_from([1, 1, 2])}
    pairs = {name: (draw(sizes[name]), draw(sizes[name])) for name in sizes}
    has_bias = draw(st.booleans())
    module = nn.Conv2d(n_inputs, n_outputs, (draw(side), draw(side)), bias=has_bias, **pairs)  # type: ignore[arg-type]
    with torch.no_grad():
        numbers.weights(module.weight, draw(st.sampled_from([0, 0, 0.05, 0.6])))
        if module.bias is not None:
            numbers.eighths(module.bias)
    return module


@st.composite
def poolings(draw: st.DrawFn) -> nn.Module:
    kernel = draw(side), draw(side)
    padding = draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2))
    return nn.MaxPool2d(kernel, (draw(side), draw(side)), padding, ceil_mode=draw(st.booleans()))


@st.composite
def betweens(draw: st.DrawFn, n: int, numbers: Numbers) -> list[nn.Module]:
    """What may stand between a convolution and the next sign, foldable or not."""
    piece = st.one_of(
        normalizations(n, numbers),
        poolings(),
        st.builds(nn.ReLU, st.booleans()),
        st.builds(SpatialDropout, st.just(0.5)),
        st.builds(nn.AvgPool2d, st.just(2), st.just(1)),
        st.builds(nn.Sequential),
    )
    pieces = draw(st.lists(piece, max_size=5))
    return [*pieces, pieces[0]] if pieces and draw(st.booleans()) else pieces


@st.composite
def blocks(draw: st.DrawFn, n_inputs: int, n_outputs: int, numbers: Numbers) -> list[nn.Module]:
    """Whatever, a sign and a convolution; nested, in two places or with a way around it."""
    before = draw(betweens(n_inputs, numbers))
    if n_inputs == n_outputs and draw(st.booleans()):
        plain = nn.Conv2d(n_inputs, n_inputs, 3, padding=1)
        with torch.no_grad():
            numbers.weights(plain.weight, 0)
            numbers.eighths(plain.bias)
        block = nn.Sequential(draw(normalizations(n_inputs, numbers)), BinActiveZ(), plain)
        if draw(st.booleans()):
            return [*before, block, block]
        around = draw(st.sampled_from([nn.Identity, nn.Sequential]))()
        return [*before, BinActiveZ(), ConcatTable([block, around]), CAddTable()]
    made: list[nn.Module] = [*before, BinActiveZ(), draw(convolutions(n_inputs, n_outputs, numbers))]
    return [nn.Sequential(*made)] if draw(st.booleans()) else made


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, torch.Tensor]:
    """A network and pictures that it takes."""
    numbers = Numbers(draw(st.integers(0, 1000)))
    n = draw(channels)
    modules: list[nn.Module] = [draw(convolutions(3, n, numbers))]
    for _ in range(draw(st.integers(1, 4))):
        n_outputs = draw(st.one_of(st.just(n), channels))
        modules += draw(blocks(n, n_outputs, numbers))
        n = n_outputs
    last = nn.Conv2d(n, 4, 1)
    with torch.no_grad():
        numbers.weights(last.weight, 0)
        numbers.eighths(last.bias)
    x = torch.empty(draw(st.integers(1, 5)), 3, draw(st.integers(6, 15)), draw(st.integers(6, 15)))
    numbers.eighths(x)
    x.masked_fill_(torch.rand(x.shape, generator=numbers.generator) < draw(st.sampled_from([0, 0.5, 1])), -0.0)
    if draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    return nn.Sequential(*modules, last).eval(), x


def takes(network: nn.Module, x: torch.Tensor) -> bool:
    """Whether the pictures are large enough."""
    try:
        with torch.no_grad():
            return bool(network(x).numel())
    except RuntimeError:
        return False


@settings(max_examples=90)
@given(networks(), st.sampled_from(["cpu", "reference"]), st.booleans())
def test_packed_networks_answer_to_the_bit(drawn: tuple[nn.Sequential, torch.Tensor], backend: str, kept: bool) -> None:
    network, x = drawn
    assume(takes(network, x))
    model = XnorModel.from_model(network, backend)
    if kept:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.xnor.safetensors")
            model.save(path)
            model = XnorModel.load(path, backend)
    with torch.no_grad():
        expected = copy.deepcopy(network)(x)
    assert torch.equal(model(x), expected)
