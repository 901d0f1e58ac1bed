"""GoogLeNet in its batch-normalised shape (arXiv 1502.03167), without and with the normalisation.

soumith/imagenet-multiGPU.torch models/googlenet.lua and models/googlenetbn.lua. Beside the main classifier stands one
auxiliary classifier; the network's answer is both, one after the other.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from lua_compat.nn import LogSoftMax, View
from lua_compat.nn.containers import Concat
from xnornet_port.layers import batch_normalization, linear, max_pooling
from xnornet_port.models.multigpu_layers import (
    average_pooling,
    convolution,
    normalized_convolution,
    relu,
    whole_network,
)
from xnornet_port.models.settings import NetworkSettings

__all__ = ["googlenet", "googlenetbn"]


class Inception(NamedTuple):
    """Output planes of an inception module's convolutions; 0 leaves one out."""

    n_inputs: int
    single: int  # 1x1
    triple: tuple[int, int]  # 1x1, then 3x3
    double_triple: tuple[int, int]  # 1x1, then 3x3 twice
    pooling: str  # max or avg
    pooled: int  # 1x1 after the pooling


MODULES = {
    "3a": Inception(192, 64, (64, 64), (64, 96), "avg", 32),
    "3b": Inception(256, 64, (64, 96), (64, 96), "avg", 64),
    "3c": Inception(320, 0, (128, 160), (64, 96), "max", 0),
    "4a": Inception(576, 224, (64, 96), (96, 128), "avg", 128),
    "4b": Inception(576, 192, (96, 128), (96, 128), "avg", 128),
    "4c": Inception(576, 160, (128, 160), (128, 160), "avg", 96),
    "4d": Inception(576, 96, (128, 192), (160, 192), "avg", 96),
    "4e": Inception(576, 0, (128, 192), (192, 256), "max", 0),
    "5a": Inception(1024, 352, (192, 320), (160, 224), "avg", 128),
    "5b": Inception(1024, 352, (192, 320), (192, 224), "max", 128),
}


def googlenet(settings: NetworkSettings) -> nn.Sequential:
    """(N, 3, 224, 224) to (N, 2 n_classes): log-probabilities of the main, then of the auxiliary classifier."""
    return _network(settings.n_classes, normalized=False)


def googlenetbn(settings: NetworkSettings) -> nn.Sequential:
    """The same with batch normalisation after every convolution."""
    return _network(settings.n_classes, normalized=True)


def _network(n_classes: int, normalized: bool) -> nn.Sequential:
    inceptions = {name: _inception(module, normalized) for name, module in MODULES.items()}
    features = nn.Sequential(
        *normalized_convolution(3, 64, 7, normalized, stride=2, padding=3),  # 224 -> 112
        max_pooling(3, 2, ceil=True),  # 112 -> 56
        *normalized_convolution(64, 64, 1, normalized),
        *normalized_convolution(64, 192, 3, normalized, padding=1),
        max_pooling(3, 2, ceil=True),  #  56 -> 28
        *(inceptions[name] for name in ("3a", "3b", "3c")),
        *_halving(576, normalized),  #  28 -> 14
        *(inceptions[name] for name in ("4a", "4b", "4c", "4d")),
    )
    main_branch = nn.Sequential(
        inceptions["4e"],
        *_halving(1024, normalized),  #  14 -> 7
        inceptions["5a"],
        inceptions["5b"],
        average_pooling(7),
        View((1024,), n_input_dims=3),
        linear(1024, n_classes),
        LogSoftMax(),
    )
    return whole_network(features, Concat([main_branch, _auxiliary(n_classes, normalized)], dimension=2))


def _auxiliary(n_classes: int, normalized: bool) -> nn.Sequential:
    normalization = [batch_normalization(128, eps=1e-3), relu()] if normalized else []
    return nn.Sequential(
        average_pooling(5, 3, ceil=True),  # 14 -> 4
        convolution(576, 128, 1),
        *normalization,
        View((128 * 4 * 4,), n_input_dims=3),
        linear(128 * 4 * 4, 768),
        relu(inplace=False),
        linear(768, n_classes),
        LogSoftMax(),
    )


def _halving(n_planes: int, normalized: bool) -> list[nn.Module]:
    """2x2 with stride 2; a plain convolution in the network without normalisation."""
    normalization = [batch_normalization(n_planes, eps=1e-3), relu()] if normalized else []
    return [convolution(n_planes, n_planes, 2, stride=2), *normalization]


def _inception(module: Inception, normalized: bool) -> Concat:
    n_inputs = module.n_inputs
    branches = [nn.Sequential(*_inner(n_inputs, module.single, 1, normalized))] if module.single else []
    middle, last = module.triple
    branches.append(nn.Sequential(*_inner(n_inputs, middle, 1, normalized), *_inner(middle, last, 3, normalized)))
    middle, last = module.double_triple
    branches.append(
        nn.Sequential(
            *_inner(n_inputs, middle, 1, normalized),
            *_inner(middle, last, 3, normalized),
            *_inner(last, last, 3, normalized),
        )
    )
    pooled = _inner(n_inputs, module.pooled, 1, normalized) if module.pooled else []
    branches.append(nn.Sequential(*_pooling(module.pooling, normalized), *pooled))
    return Concat(branches, dimension=2)


def _inner(n_inputs: int, n_outputs: int, kernel: int, normalized: bool) -> list[nn.Module]:
    """A convolution in an inception module; with normalisation there is a ReLU on both sides of it."""
    normalization = [batch_normalization(n_outputs, eps=1e-3), relu()] if normalized else []
    return [convolution(n_inputs, n_outputs, kernel, padding=kernel // 2), relu(), *normalization]


def _pooling(kind: str, normalized: bool) -> list[nn.Module]:
    """3x3 with stride 1 over the zero-padded planes; the network without normalisation pads in a layer of its own."""
    padding = 1 if normalized else 0
    pool = max_pooling if kind == "max" else average_pooling
    return [*([] if normalized else [nn.ZeroPad2d(1)]), pool(3, 1, padding, ceil=True)]
