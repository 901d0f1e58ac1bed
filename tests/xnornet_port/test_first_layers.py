"""The first layers at once against the modules one by one: the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lua_compat.generator import Generator
from lua_compat.nn.normalization import SpatialBatchNormalization
from xnornet_port import XnorModel
from xnornet_port.first_layers import FirstLayers
from xnornet_port.initialization import as_xnornet
from xnornet_port.kernels import pack_input
from xnornet_port.layers import BinActiveZ
from xnornet_port.models.alexnetxnor import alexnetxnor
from xnornet_port.models.settings import NetworkSettings


def normalization(n: int, generator: torch.Generator) -> nn.Module:
    """Weights of both signs, one of them 0."""
    module = SpatialBatchNormalization(n)
    with torch.no_grad():
        for tensor in (module.weight, module.bias, module.running_mean):
            tensor.normal_(generator=generator)
        module.running_var.uniform_(0.1, 2, generator=generator)
        module.weight[0] = 0
    return module


def network(n: int, front: list[nn.Module]) -> nn.Sequential:
    binary = nn.Conv2d(n, 5, 1)
    return nn.Sequential(nn.Conv2d(3, n, 5, 2, 1), *front, BinActiveZ(), binary, nn.Conv2d(5, 2, 1)).eval()


def fronts(n: int, generator: torch.Generator) -> dict[str, list[nn.Module]]:
    def norm() -> nn.Module:
        return normalization(n, generator)

    return {
        "as alexnetxnor": [norm(), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2), norm()],
        "pooling first": [nn.MaxPool2d(3, 2, 1, ceil_mode=True), norm()],
        "no pooling": [norm(), nn.ReLU(), norm()],
        "normalisation only": [norm()],
    }


@pytest.mark.parametrize("n", [5, 64, 96])
@pytest.mark.parametrize("name", ["as alexnetxnor", "pooling first", "no pooling", "normalisation only"])
def test_the_same_bits(n: int, name: str) -> None:
    generator = torch.Generator().manual_seed(n)
    model = XnorModel.from_model(network(n, fronts(n, generator)[name]), "reference")
    first = FirstLayers.of(model.network)
    assert first is not None
    x = torch.randn(2, 3, 21, 21, generator=generator)
    bits = first(x)
    assert bits is not None
    with torch.no_grad():
        y = x
        for module in first.modules:
            y = module(y)
    expected = pack_input(y.contiguous(), "reference")
    assert torch.equal(bits.signs, expected.signs)
    assert (bits.nonzero is None) == (expected.nonzero is None)
    assert bits.nonzero is None or expected.nonzero is None or torch.equal(bits.nonzero, expected.nonzero)


def test_exact_zeros_are_kept() -> None:
    """Without bias, a picture of zeros gives zeros: sign(0) = 0, as where the modules run one by one."""
    front = SpatialBatchNormalization(70)
    with torch.no_grad():
        front.weight[:35], front.weight[35:] = 1, -1
        front.bias.zero_()
    built = network(70, [front])
    with torch.no_grad():
        built[0].bias.zero_()
    model = XnorModel.from_model(built, "reference")
    first = FirstLayers.of(model.network)
    assert first is not None
    x = torch.randn(1, 3, 21, 21)
    x[:, :, :12] = 0
    bits = first(x)
    with torch.no_grad():
        expected = pack_input(first.modules[1](first.modules[0](x)), "reference")
    assert bits is not None
    assert bits.nonzero is not None
    assert expected.nonzero is not None
    assert torch.equal(bits.signs, expected.signs)
    assert torch.equal(bits.nonzero, expected.nonzero)


def test_a_change_is_noticed() -> None:
    model = XnorModel.from_model(network(5, [normalization(5, torch.Generator().manual_seed(1))]), "reference")
    x = torch.randn(1, 3, 21, 21)
    before = model(x)
    with torch.no_grad():
        model.network[1].bias.add_(3)
    assert not torch.equal(model(x), before)


def test_where_the_modules_run_themselves() -> None:
    generator = torch.Generator().manual_seed(1)
    model = XnorModel.from_model(network(5, [normalization(5, generator)]), "reference")
    first = FirstLayers.of(model.network)
    assert first is not None
    assert first(torch.full((1, 3, 21, 21), torch.nan)) is None
    with torch.no_grad():
        model.network[1].running_var[2] = torch.nan
    assert first(torch.randn(1, 3, 21, 21)) is None
    two = [nn.MaxPool2d(2), nn.MaxPool2d(2)]
    assert FirstLayers.of(XnorModel.from_model(network(5, two), "reference").network) is None
    tanh = XnorModel.from_model(network(5, [nn.Tanh()]), "reference")
    assert FirstLayers.of(tanh.network) is None
    assert tanh(torch.randn(1, 3, 21, 21)).shape == (1, 2, 10, 10)


def test_alexnetxnor_from_pictures_to_bits() -> None:
    """The real first layers: the same bits as one by one, the first convolution in either memory order."""
    built = alexnetxnor(NetworkSettings(n_classes=5))
    as_xnornet(nn.Sequential(*built[:4], built[4][0]), Generator(2))  # the large layers are not needed
    modules = [*built[:4], built[4][0]]
    first = FirstLayers([module.eval() for module in modules])
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        bits, expected = first(x), pack_input(nn.Sequential(*modules)(x), "reference")
    assert bits is not None
    assert int((bits.signs != expected.signs).sum()) == 0


def test_a_minus_zero_is_zero() -> None:
    """One weight of 1 and pictures of -0.0: the convolution's output is -0.0, whose sign is 0."""
    built = network(8, [nn.Identity()])
    built[0] = nn.Conv2d(1, 8, 1, bias=False)
    nn.init.ones_(built[0].weight)
    first = FirstLayers.of(XnorModel.from_model(built, "reference").network)
    assert first is not None
    x = torch.tensor([-0.0, 0.0, 1.0, -1.0]).view(1, 1, 2, 2)
    bits = first(x)
    assert bits is not None
    expected = pack_input(built[0](x).detach(), "reference")
    assert bits.nonzero is not None
    assert expected.nonzero is not None
    assert torch.equal(bits.nonzero, expected.nonzero)
    assert torch.equal(bits.signs, expected.signs)


@pytest.mark.parametrize("n", [8, 64])
@pytest.mark.parametrize("size", [(5, 5), (5, 9), (9, 5)])
def test_one_pixel_wide_or_high(n: int, size: tuple[int, int]) -> None:
    """Where there is one of something its stride is anything, which a view as words minds."""
    built = network(n, [])
    built[0] = nn.Conv2d(1, n, 5, 3, 2, bias=False)
    built.insert(1, nn.MaxPool2d(2, (1, 2)))
    model = XnorModel.from_model(built.eval(), "reference")
    first = FirstLayers.of(model.network)
    assert first is not None
    x = torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(1))
    bits = first(x)
    assert bits is not None
    expected = pack_input(built[1](built[0](x)).detach(), "reference")
    assert torch.equal(bits.signs, expected.signs)
