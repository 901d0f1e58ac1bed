"""The layers of soumith/imagenet-multiGPU.torch's networks, which are made of Torch7's nn, not of cudnn.

A layer here is that of `xnornet_port.layers` under its nn name. Parameters are not initialised.
"""

from __future__ import annotations

from torch import nn

from lua_compat.nn import Origin, set_origin
from xnornet_port import layers

__all__ = [
    "average_pooling",
    "convolution",
    "convolution_relu",
    "normalized_convolution",
    "relu",
    "threshold",
    "whole_network",
]


def convolution(n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """nn.SpatialConvolution"""
    return layers.convolution(n_inputs, n_outputs, kernel, stride, padding, package="nn")


def relu(*, inplace: bool = True) -> nn.ReLU:
    """nn.ReLU(inplace)"""
    return layers.relu(inplace=inplace, package="nn")


def convolution_relu(
    n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0
) -> tuple[nn.Conv2d, nn.ReLU]:
    """A convolution and what follows it in all but a few places."""
    return convolution(n_inputs, n_outputs, kernel, stride, padding), relu()


def normalized_convolution(
    n_inputs: int, n_outputs: int, kernel: int, normalized: bool, stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    """Convolution, batch normalisation where `normalized`, ReLU."""
    normalization = [layers.batch_normalization(n_outputs, eps=1e-3)] if normalized else []
    return [convolution(n_inputs, n_outputs, kernel, stride, padding), *normalization, relu()]


def threshold() -> nn.Threshold:
    """nn.Threshold(0, 1e-6): a ReLU that gives 1e-6 in place of 0."""
    return nn.Threshold(0, 1e-6)


def average_pooling(kernel: int, stride: int = 1, padding: int = 0, *, ceil: bool = False) -> nn.AvgPool2d:
    """nn.SpatialAveragePooling"""
    return layers.average_pooling(kernel, stride, padding, ceil=ceil, package="nn")


def whole_network(*parts: nn.Module) -> nn.Sequential:
    """An nn.Sequential that says, as the originals do, for which pictures it was made."""
    network = nn.Sequential(*parts)
    set_origin(network, Origin("nn.Sequential", {"imageSize": 256, "imageCrop": 224}))
    return network
