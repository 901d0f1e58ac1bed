"""Packed layers under torch.compile; warnings are errors in these tests, Dynamo's too."""

import torch
from torch import Tensor, nn

from xnornet_port import XnorModel
from xnornet_port.kernels import pack_input, pack_weights, xnor_conv2d, xnor_dot
from xnornet_port.layers import BinActiveZ


def compiled(function: object) -> object:
    torch._dynamo.reset()
    return torch.compile(function, backend="eager")  # type: ignore[call-overload]  # the graphs are what matters here


def network(binary_inputs: bool) -> nn.Module:
    sign = BinActiveZ if binary_inputs else nn.ReLU
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), sign(), nn.Conv2d(8, 70, 3, padding=1), nn.BatchNorm2d(70), sign(),
        nn.Conv2d(70, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1),
    )  # fmt: skip
    return model.eval()


def test_a_function_that_calls_the_kernels() -> None:
    packed = pack_weights(torch.randn(4, 16, 3, 3))

    def function(x: Tensor) -> Tensor:
        dots = xnor_dot(pack_input(x * 2), packed, padding=1)
        return torch.relu(xnor_conv2d(x - 1, packed, padding=1)) + dots

    run = compiled(function)
    for size in (5, 5, 7):
        x = torch.randn(2, 16, size, size)
        assert torch.equal(run(x), function(x))  # type: ignore[operator]


def test_a_packed_network() -> None:
    x = torch.randn(2, 3, 9, 9)
    for binary_inputs in (True, False):
        model = XnorModel.from_model(network(binary_inputs), binary_weights=not binary_inputs)
        assert torch.equal(compiled(model)(x), model(x))  # type: ignore[operator]


def test_packed_layers_in_a_network_of_ones_own() -> None:
    x = torch.randn(2, 3, 9, 9)
    model = XnorModel.from_model(network(binary_inputs=True)).network
    assert torch.equal(compiled(model)(x), model(x))  # type: ignore[operator]
