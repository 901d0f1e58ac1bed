"""Packed layers against torch's convolution of the same weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from xnornet_port import xnor_layers
from xnornet_port.errors import XnorNetError
from xnornet_port.kernels import Geometry, pack_weights
from xnornet_port.xnor_layers import BinaryWeightConvolution, XnorConvolution


def binary_weights(*shape: int, zeros: bool, seed: int = 1) -> torch.Tensor:
    """+-1/4 (and 0): sums of them are exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 2, shape, generator=generator).float() * 0.5 - 0.25
    return values.masked_fill(torch.rand(shape, generator=generator) < 0.1, 0) if zeros else values


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("groups", "at_once"), [(1, 1 << 22), (1, 3 * 6 * 9 + 1), (2, 1)])
def test_real_inputs_with_weights_unpacked_on_use(
    zeros: bool, groups: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xnor_layers, "_UNPACKED_AT_ONCE", at_once)
    weight = binary_weights(10, 6 // groups, 3, 3, zeros=zeros)
    bias = torch.arange(10.0)
    geometry = Geometry.of((2, 1), (1, 0), 1)
    alpha = torch.full((10,), 0.25)
    layer = BinaryWeightConvolution.pack(weight, alpha, bias, geometry, groups, "5")
    assert torch.equal(layer.unpacked() * 0.25, weight)
    assert (layer.nonzero is not None) == zeros
    x = torch.randint(-9, 9, (2, 6, 7, 8)).float()
    expected = functional.conv2d(x, weight, bias, (2, 1), (1, 0), 1, groups)
    assert torch.equal(layer(x), expected)
    assert layer.n_weights == weight.numel()


@pytest.mark.parametrize("zeros", [False, True])
def test_binary_inputs(zeros: bool) -> None:
    weight = binary_weights(5, 70, 3, 3, zeros=zeros)
    packed = pack_weights(weight.sign())
    layer = XnorConvolution(packed, Geometry.of(1, 1, 1), "5.2", backend="reference")
    x = torch.randn(2, 70, 4, 4).masked_fill_(torch.rand(2, 70, 4, 4) < 0.05, 0)
    assert torch.equal(layer.unpacked(), weight.sign())
    expected = functional.conv2d(x.sign(), weight.sign(), padding=1) * layer.alpha.view(-1, 1, 1)
    assert torch.equal(layer(x), expected)
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    assert "70, 5, kernel_size=(3, 3)" in repr(layer)


def test_prepared_once_until_a_buffer_changes() -> None:
    layer = XnorConvolution(pack_weights(torch.randn(2, 3, 1, 1)), Geometry(), "5.2", backend="reference")
    first = layer.packed
    assert layer.packed is first
    layer.load_state_dict({"signs": torch.zeros(2, 1, 1, 1, dtype=torch.int64), "alpha": torch.ones(2)})
    assert layer.packed is not first
    assert torch.equal(layer(torch.ones(1, 3, 1, 1)).flatten(), torch.tensor([3.0, 3.0]))


def test_other_precisions_are_refused() -> None:
    layer = XnorConvolution(pack_weights(torch.randn(2, 3, 1, 1)), Geometry(), "5.2", backend="reference").half()
    with pytest.raises(XnorNetError, match=r"^5\.2: packed layers compute in float32, not torch\.float16"):
        layer(torch.ones(1, 3, 1, 1))
