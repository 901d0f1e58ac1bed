"""Bi-Real Net (Liu et al., arXiv 1808.00278): a shortcut around every binary convolution, and a closer gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lua_compat.nn import Origin, origin_of, register, set_origin
from lua_compat.nn.containers import ConcatTable
from lua_compat.nn.table import CAddTable
from xnornet_port.layers import BinActiveZ, average_pooling, batch_normalization, convolution
from xnornet_port.schemes import REAL, SCHEME_FIELD
from xnornet_port.schemes.scheme import Scheme
from xnornet_port.schemes.xnor_weights import filter_scales

__all__ = ["BiReal", "BiRealActivation"]


class _ApproximateSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        factor: torch.Tensor = (2 - 2 * x.abs()).clamp_(min=0)
        return gradient * factor


@register("nn.BinActiveBiReal")
class BiRealActivation(BinActiveZ):
    """sign(x) with the gradient of a piecewise polynomial: 2 - 2 |x| where |x| < 1, 0 elsewhere (equation 4)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        signs: torch.Tensor = _ApproximateSign.apply(x)  # type: ignore[no-untyped-call]
        return signs


class BiReal(Scheme):
    """Sign, BinConv, BNorm, plus the block's input; alpha = mean |W| per filter, straight through (section 3.3).

    Where the size halves or the planes change, the shortcut is an average pooling and a real convolution of 1x1 with
    its normalisation. A block that shrinks its input by its kernel (no padding) has no shortcut.
    """

    has_shortcuts = True

    def block(self, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
        branch = nn.Sequential(
            nn.Sequential(self.activation()),
            self.convolution(n_inputs, n_outputs, kernel, stride, padding, bias=False),
            batch_normalization(n_outputs),
        )
        if 2 * padding != kernel - 1:
            return branch
        return nn.Sequential(ConcatTable([branch, _shortcut(n_inputs, n_outputs, stride)]), CAddTable(inplace=True))

    def activation(self) -> nn.Module:
        return BiRealActivation()

    def scales(self, weight: torch.Tensor) -> torch.Tensor:
        """mean |W| per filter."""
        return filter_scales(weight)


def _shortcut(n_inputs: int, n_outputs: int, stride: int) -> nn.Module:
    if stride == 1 and n_inputs == n_outputs:
        return nn.Identity()
    pooling = [average_pooling(stride, stride, ceil=True)] if stride > 1 else []
    return nn.Sequential(*pooling, _real_convolution(n_inputs, n_outputs), batch_normalization(n_outputs))


def _real_convolution(n_inputs: int, n_outputs: int) -> nn.Conv2d:
    """Marked, so that -binaryWeight passes over it."""
    layer = convolution(n_inputs, n_outputs, 1, bias=False)
    origin = origin_of(layer)
    if origin is not None:
        set_origin(layer, Origin(origin.typename, {SCHEME_FIELD: REAL}))
    return layer
