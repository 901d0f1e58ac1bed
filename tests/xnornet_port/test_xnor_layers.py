"""Packed layers against torch's convolution of the same weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from xnornet_port import xnor_layers
from xnornet_port.errors import XnorNetError
from xnornet_port.kernels import Geometry, pack_weights
from xnornet_port.kernels.native_library import load_library
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


def whole_input(padding: int = 0, groups: int = 1, zeros: bool = False) -> tuple[BinaryWeightConvolution, torch.Tensor]:
    """A layer whose kernel is as large as its input, and that input; their products are exact."""
    weight = binary_weights(10, 6 // groups, 3, 2, zeros=zeros)
    alpha, bias = torch.full((10,), 0.25), torch.arange(10.0)
    layer = BinaryWeightConvolution.pack(weight, alpha, bias, Geometry.of(1, padding, 1), groups, "5")
    return layer, torch.randint(-9, 9, (3, 6, 3, 2)).float()


@pytest.mark.skipif(load_library() is None, reason="the C library was not built")
def test_a_kernel_as_large_as_its_input_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = whole_input()
    expected = functional.conv2d(x, layer.unpacked() * 0.25, layer.bias)
    monkeypatch.setattr(layer, "unpacked", None)
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer(x.contiguous(memory_format=torch.channels_last)), expected)
    assert layer(x[:0]).shape == (0, 10, 1, 1)
    with torch.no_grad():
        assert torch.equal(layer(x.clone().requires_grad_()), expected)


@pytest.mark.parametrize(("padding", "groups", "zeros"), [(1, 1, False), (0, 2, False), (0, 1, True)])
def test_other_layers_are_unpacked(padding: int, groups: int, zeros: bool) -> None:
    layer, x = whole_input(padding, groups, zeros)
    expected = functional.conv2d(x, layer.unpacked() * 0.25, layer.bias, padding=padding, groups=groups)
    assert torch.equal(layer(x), expected)


def test_a_gradient_passes_through_unpacked_weights() -> None:
    layer, x = whole_input()
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad[0], (layer.unpacked() * 0.25).sum(0))


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


def snippet(weight: torch.Tensor, bias: torch.Tensor | None) -> XnorConvolution:
    """The layer of docs/packed.md, made as the page says."""
    page = (Path(__file__).parents[2] / "docs" / "packed.md").read_text(encoding="utf-8")
    code = page.split("\n## One layer in a network of one's own\n")[1].split("```")[1].removeprefix("python\n")
    names = {"weight": weight, "bias": bias}
    exec(code, names)  # noqa: S102
    layer = names["layer"]
    assert isinstance(layer, XnorConvolution)
    return layer


class Own(nn.Module):
    """A network of one's own."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.first = nn.Conv2d(3, 70, 1)
        self.binary = snippet(weight, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.binary(self.first(x))
        return result


def test_a_layer_in_a_network_of_ones_own(tmp_path: Path) -> None:
    """Float in, float32 out, and what the page says of its state, of other precisions and of gradients."""
    weight, bias = binary_weights(5, 70, 3, 3, zeros=False), torch.arange(5.0)  # magnitude 1/4: alpha times the sign
    torch.manual_seed(1)  # no value so small that it is 0 in half precision
    network = Own(weight, bias)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    hidden = network.first(x).detach()
    expected = functional.conv2d(hidden.sign(), weight, bias, padding=1)  # sums of quarters are exact
    assert torch.equal(network(x), expected)
    assert not network(x).requires_grad
    for dtype in (torch.float64, torch.float16):
        assert torch.equal(network.binary(hidden.to(dtype)), expected)
    assert network.binary(hidden.half()).dtype == torch.float32

    torch.save(network.state_dict(), tmp_path / "own.pt")
    other = Own(-weight, bias + 1)
    assert not torch.equal(other(x), expected)
    state = torch.load(tmp_path / "own.pt", weights_only=True)
    assert sorted(name for name in state if "binary" in name) == ["binary.alpha", "binary.bias", "binary.signs"]
    other.load_state_dict(state)
    assert torch.equal(other(x), expected)
    assert torch.equal(copy.deepcopy(other).to("cpu")(x), expected)

    zeros = Own(binary_weights(5, 70, 3, 3, zeros=True), bias)
    assert "binary.nonzero" in zeros.state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"binary\.nonzero\""):
        other.load_state_dict(zeros.state_dict())
    with pytest.raises(XnorNetError, match=r"^conv2: packed layers compute in float32"):
        other.half().binary(hidden)


class OnGpu(torch.Tensor):
    """Says that it is on a GPU."""

    is_cuda = True  # type: ignore[assignment]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_backend_goes_with_the_device(backend: str) -> None:
    layer = XnorConvolution(pack_weights(torch.randn(2, 3, 1, 1)), Geometry(), "5.2", backend=backend)
    network = nn.Sequential(layer)
    network.to("cpu")
    assert layer.backend == backend
    network._apply(lambda tensor: tensor.as_subclass(OnGpu))  # as .to("cuda") does
    assert layer.backend == "cuda"
    network._apply(lambda tensor: tensor.as_subclass(torch.Tensor))
    assert layer.backend == "cpu"


def test_prepared_once_until_a_buffer_changes() -> None:
    layer = XnorConvolution(pack_weights(torch.randn(2, 3, 1, 1)), Geometry(), "5.2", backend="reference")
    first = layer.packed
    assert layer.packed is first
    layer.load_state_dict({"signs": torch.zeros(2, 1, 1, 1, dtype=torch.int64), "alpha": torch.ones(2)})
    assert layer.packed is not first
    assert torch.equal(layer(torch.ones(1, 3, 1, 1)).flatten(), torch.tensor([3.0, 3.0]))


def test_weights_that_are_not_packed() -> None:
    """The message of the kernels' functions, see tests/xnornet_port/kernels/test_operations.py."""
    expected = r"^the weights must be PackedWeights, not Tensor: pack_weights\(weight\), once, makes them of it$"
    with pytest.raises(XnorNetError, match=expected):
        XnorConvolution(torch.ones(2, 3, 3, 3), Geometry.of(1, 1), "conv2")  # type: ignore[arg-type]


def test_other_precisions_are_refused() -> None:
    layer = XnorConvolution(pack_weights(torch.randn(2, 3, 1, 1)), Geometry(), "5.2", backend="reference").half()
    with pytest.raises(XnorNetError, match=r"^5\.2: packed layers compute in float32, not torch\.float16"):
        layer(torch.ones(1, 3, 1, 1))
