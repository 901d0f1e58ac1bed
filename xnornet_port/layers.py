"""The layers XNOR-Net's networks are made of: the sign activation, and constructors that know their Torch7 names.

The constructors leave parameters uninitialised; the functions of `initialization` fill them as Torch7 would.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from lua_compat.nn import Origin, register, set_origin
from lua_compat.nn.normalization import SpatialBatchNormalization

__all__ = [
    "BinActiveZ",
    "average_pooling",
    "batch_normalization",
    "convolution",
    "linear",
    "max_pooling",
    "relu",
    "sign_with_straight_through",
]

Package = Literal["cudnn", "nn"]  # of Torch7: whose class a layer is written as


class _SignStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return gradient.masked_fill(x.abs() >= 1, 0)


def sign_with_straight_through(x: torch.Tensor) -> torch.Tensor:
    """sign(x), with sign(0) = 0; the gradient passes where |x| < 1 and is 0 elsewhere (XNOR-Net paper, section 3.1)."""
    signs: torch.Tensor = _SignStraightThrough.apply(x)  # type: ignore[no-untyped-call]
    return signs


@register("nn.BinActiveZ")
class BinActiveZ(nn.Module):
    """The binary activation of XNOR-Net (newLayers/BinActiveZ.lua); see `sign_with_straight_through`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sign_with_straight_through(x)


def convolution(
    n_inputs: int,
    n_outputs: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    *,
    bias: bool = True,
    package: Package = "cudnn",
) -> nn.Conv2d:
    """A square convolution, `package`.SpatialConvolution in Torch7. Parameters are not initialised."""
    layer = nn.Conv2d(n_inputs, n_outputs, kernel, stride, padding, bias=bias, device="meta").to_empty(device="cpu")
    set_origin(layer, Origin(f"{package}.SpatialConvolution"))
    return layer


def linear(n_inputs: int, n_outputs: int) -> nn.Linear:
    """nn.Linear. Parameters are not initialised."""
    return nn.Linear(n_inputs, n_outputs, device="meta").to_empty(device="cpu")


def batch_normalization(n_features: int, eps: float = 1e-5) -> SpatialBatchNormalization:
    """nn.SpatialBatchNormalization with learned scale and shift and momentum 0.1.

    XNOR-Net's third argument `false` was meant to switch scale and shift off but stands in the momentum's place.
    """
    return SpatialBatchNormalization(n_features, eps=eps, momentum=0.1)


def relu(*, inplace: bool = True, package: Package = "cudnn") -> nn.ReLU:
    """`package`.ReLU(inplace)"""
    layer = nn.ReLU(inplace)
    set_origin(layer, Origin(f"{package}.ReLU"))
    return layer


def max_pooling(kernel: int, stride: int, padding: int = 0, *, ceil: bool = False) -> nn.MaxPool2d:
    """nn.SpatialMaxPooling, sizes rounded down, or up with `ceil`."""
    return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)


def average_pooling(
    kernel: int, stride: int = 1, padding: int = 0, *, ceil: bool = False, package: Package = "cudnn"
) -> nn.AvgPool2d:
    """`package`.SpatialAveragePooling, sizes rounded down, or up with `ceil`; zeros of the padding count."""
    layer = nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil)
    set_origin(layer, Origin(f"{package}.SpatialAveragePooling"))
    return layer
