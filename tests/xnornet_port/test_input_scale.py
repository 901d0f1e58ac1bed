"""The input scale K against its definition, its gradient against differences, in float, in files and on kernels."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import lua_compat
import lua_compat.nn
from cache_tools.parity_layers import LayerChecks
from lua_compat.errors import LuaCompatError
from lua_compat.generator import Generator
from lua_compat.nn import from_torch, to_torch
from xnornet_port.binarization import Binarizer
from xnornet_port.errors import XnorNetError
from xnornet_port.input_scale import InputScaledConvolution, input_scale
from xnornet_port.kernels import pack_weights, xnor_conv2d
from xnornet_port.models import NETWORKS, NetworkSettings
from xnornet_port.xnor_inference import XnorModel
from xnornet_port.xnor_layers import XnorConvolution

GEOMETRIES = [  # kernel, stride, padding
    ((3, 3), (1, 1), (1, 1)),
    ((3, 3), (2, 2), (1, 1)),
    ((5, 5), (1, 1), (2, 2)),
    ((2, 3), (2, 1), (1, 0)),
    ((1, 1), (2, 2), (0, 0)),
    ((1, 1), (1, 1), (1, 1)),  # as much padding as avg_pool2d refuses
]


def test_k_by_hand() -> None:
    x = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]], [[-1.0, 4.0], [1.0, 2.0]]]])
    # A, the mean of |x| over the two channels, is 1, 3 / 2, 1; the 2x2 box takes a quarter of each; padding adds 0.
    assert input_scale(x, (2, 2), (1, 1), (0, 0)).tolist() == [[[[7 / 4]]]]
    padded = input_scale(x, (2, 2), (1, 1), (1, 1)).tolist()
    assert padded == [[[[1 / 4, 1.0, 3 / 4], [3 / 4, 7 / 4, 1.0], [1 / 2, 3 / 4, 1 / 4]]]]


@pytest.mark.parametrize(("kernel", "stride", "padding"), GEOMETRIES)
def test_k_is_the_papers_convolution_with_a_box(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    box = torch.full((1, 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=torch.float64)
    wanted = functional.conv2d(x.abs().mean(1, keepdim=True), box, None, stride, padding)
    torch.testing.assert_close(input_scale(x, kernel, stride, padding), wanted, atol=1e-14, rtol=0)


def layer(activation: nn.Module | None = None, stride: int = 1) -> InputScaledConvolution:
    torch.manual_seed(1)
    return InputScaledConvolution(nn.Conv2d(3, 4, 3, stride, padding=1, bias=False), activation).double()


@pytest.mark.parametrize("stride", [1, 2])
def test_gradient_against_numerical_differentiation(stride: int) -> None:
    """With a smooth function in the place of the sign, whose own gradient is no derivative."""
    scaled = layer(nn.Tanh(), stride)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    parameters = tuple(scaled.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: scaled(x), (x, *parameters))


def test_gradient_through_the_sign_and_through_k() -> None:
    """d/dx of (sign(x) * W) K(x): the sign straight through where |x| < 1, plus K's, by central differences."""
    scaled = layer()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    wish = torch.randn(1, 4, 4, 4, dtype=torch.float64)
    scaled(x).backward(wish)

    start, weight = x.detach(), scaled.convolution.weight.detach()
    sums = functional.conv2d(start.sign(), weight, padding=1)
    k = input_scale(start, (3, 3), (1, 1), (1, 1))
    straight = functional.conv_transpose2d(wish * k, weight, padding=1) * (start.abs() < 1)
    through_k, step = torch.empty_like(start), 1e-6
    for place in range(start.numel()):
        moved = torch.zeros_like(start).view(-1).index_fill(0, torch.tensor(place), step).view_as(start)
        above, below = (input_scale(start + sign * moved, (3, 3), (1, 1), (1, 1)) for sign in (1, -1))
        through_k.view(-1)[place] = ((above - below) * sums * wish).sum() / (2 * step)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, straight + through_k, atol=1e-7, rtol=1e-7)


def test_saved_and_loaded() -> None:
    scaled = layer().float()
    written = from_torch(scaled)
    assert written.typename == "nn.BinConvolutionK"
    assert [child.typename for child in written["modules"].to_list()] == ["nn.BinActiveZ", "nn.SpatialConvolution"]
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(to_torch(lua_compat.loads(lua_compat.dumps(written)))(x), scaled(x))


def test_what_has_no_input_scale() -> None:
    for convolution in (nn.Conv2d(3, 4, 3, dilation=2, bias=False), nn.Conv2d(3, 4, 3)):
        with pytest.raises(XnorNetError, match="no dilation, one group and no bias"):
            InputScaledConvolution(convolution)
    written = from_torch(layer().float())
    written["modules"] = lua_compat.LuaTable({1: written["modules"][2]})
    with pytest.raises(LuaCompatError, match=r"BinConvolutionK.* a binary activation and a convolution, found Conv2d"):
        to_torch(written)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("has_bias", [True, False])
def test_kernels_multiply_before_the_bias(backend: str, has_bias: bool) -> None:
    """alpha dot K + bias. dot is exact; three roundings of float32 follow."""
    x, weight = torch.randn(2, 70, 6, 6), torch.randn(4, 70, 3, 3)
    bias = torch.randn(4) if has_bias else None
    k = input_scale(x, (3, 3), (2, 2), (1, 1))
    packed = pack_weights(weight, bias)
    dot = functional.conv2d(x.sign().double(), weight.sign().double(), stride=2, padding=1)
    wanted = packed.alpha.double().view(-1, 1, 1) * dot * k
    for _ in range(2):  # what the backend has prepared the first time is used the second
        found = xnor_conv2d(x, packed, stride=2, padding=1, backend=backend, factor=k)
        expected = wanted if bias is None else wanted + bias.double().view(-1, 1, 1)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=3e-7)
    without = xnor_conv2d(x, packed, stride=2, padding=1, backend=backend)  # still with its bias
    plain = packed.alpha.double().view(-1, 1, 1) * dot
    expected = plain if bias is None else plain + bias.double().view(-1, 1, 1)
    torch.testing.assert_close(without.double(), expected, atol=1e-5, rtol=3e-7)
    with pytest.raises(XnorNetError, match="factor of"):
        xnor_conv2d(x, packed, stride=2, padding=1, backend=backend, factor=k[:, :, :2])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    made = NETWORKS["resnetxnor"].build(NetworkSettings(5, depth=8, scheme="xnork"))
    NETWORKS["resnetxnor"].initialize(made, Generator(2))
    with torch.no_grad():
        made.train()(torch.randn(4, 3, 32, 32))  # statistics other than 0 and 1
    return made.eval()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_packed_network_answers_as_the_float_one(network: nn.Module, backend: str, tmp_path: Path) -> None:
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), Binarizer(network).binary_weights():  # in float, a sum next to 0 may take the other sign
        wanted = copy.deepcopy(network).double()(pictures.double()).float()
    packed = XnorModel.from_model(network, backend)
    assert [layer.input_scaled for layer in packed.binary_layers if isinstance(layer, XnorConvolution)] == [True] * 8
    torch.testing.assert_close(packed(pictures), wanted, atol=1e-5, rtol=1e-5)
    path = tmp_path / "net.xnor.safetensors"
    packed.save(path)
    assert torch.equal(XnorModel.load(path, backend)(pictures), packed(pictures))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_parity_follows_the_scaled_outputs(network: nn.Module, backend: str) -> None:
    """cache_tools parity recomputes each layer's numbers from its integers; with K they are alpha dot K, to the bit."""
    checks = LayerChecks(XnorModel.from_model(network, backend), None)
    with checks.watching():
        checks.model(torch.randn(2, 3, 32, 32))
    assert [check.wrong_outputs for check in checks.checks.values()] == [0] * 8
    assert all(check.n_dots and not check.wrong_filters for check in checks.checks.values())
