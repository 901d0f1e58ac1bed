"""Convolutions inside the context: the same sums, whatever the order, and PyTorch as before afterwards."""

import pytest
import torch
from torch import nn

from xnornet_port import summation
from xnornet_port.summation import convolution_sums

CPU = torch.device("cpu")
LAYERS = [
    nn.Conv2d(4, 6, 3),
    nn.Conv2d(4, 6, 3, bias=False),
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, 3, groups=2),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("size", [3, 5])  # 3: the kernel covers the whole input
@pytest.mark.parametrize("limit", [0, 10**6])
def test_values_and_gradients_are_pytorchs(layer: nn.Conv2d, size: int, limit: int,
                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(summation, "SMALL_NETWORK", limit)
    x = torch.randn(2, 4, size, size)
    plain = values_and_gradients(layer, x)
    with convolution_sums(layer, CPU):
        ours = values_and_gradients(layer, x)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)  # another order of the same float32 sums


def values_and_gradients(layer: nn.Conv2d, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    output = layer(x)
    output.square().sum().backward()
    return [output.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]


def test_onednn_is_back_even_after_an_error() -> None:
    before = torch.backends.mkldnn.enabled
    sums = convolution_sums(nn.Conv2d(1, 1, 1), CPU)
    with pytest.raises(RuntimeError, match="inside"), sums:
        raise RuntimeError("inside")
    assert torch.backends.mkldnn.enabled == before


def test_gpus_are_not_touched() -> None:
    with convolution_sums(nn.Conv2d(1, 1, 1), torch.device("cuda")):
        assert torch.backends.mkldnn.enabled
