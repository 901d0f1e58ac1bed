"""What a binary scheme is, and the plainest one: the signs of inputs and weights, scaled by nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lua_compat.nn import Origin, origin_of, set_origin
from xnornet_port.layers import BinActiveZ, batch_normalization, convolution
from xnornet_port.schemes import SCHEME_FIELD

__all__ = ["BinaryFilters", "Scheme"]


@dataclass(frozen=True)
class BinaryFilters:
    """What binarising a layer's weights found out: alpha (O) of the filters, and whether any |w| >= 1 (perhaps)."""

    alpha: torch.Tensor
    any_saturated: bool = True


class Scheme:
    """Binary weights sign(W), binary inputs sign(I), each with the straight-through gradient (arXiv 1602.02830).

    Other schemes override what they do otherwise. A convolution that `convolution` makes bears the scheme's name, in a
    .t7 file too, so that a network is trained, tested and packed as it was made.
    """

    has_shortcuts = False
    """Whether a block adds its input to its output, so that a residual network needs no way around it."""

    def __init__(self, name: str):
        self.name = name

    def block(self, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
        """The layers that stand for a convolution in a network: BNorm, BinActiv, BinConv (XNOR-Net paper, figure 3)."""
        return nn.Sequential(
            batch_normalization(n_inputs, eps=1e-4),
            nn.Sequential(self.activation()),
            self.convolution(n_inputs, n_outputs, kernel, stride, padding),
        )

    def activation(self) -> nn.Module:
        """The layer that makes inputs binary: a BinActiveZ, or a class of it with another gradient."""
        return BinActiveZ()

    def convolution(
        self, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0, *, bias: bool = True
    ) -> nn.Conv2d:
        """A convolution with binary weights, which bears the scheme's name. Parameters are not initialised."""
        layer = convolution(n_inputs, n_outputs, kernel, stride, padding, bias=bias)
        origin = origin_of(layer)
        if origin is not None:
            set_origin(layer, Origin(origin.typename, {**origin.extra, SCHEME_FIELD: self.name}))
        return layer

    def prepare(self, weight: torch.Tensor) -> None:
        """Change latent weights (O, I, kH, kW) in place before each training batch; the change stays."""

    def scales(self, weight: torch.Tensor) -> torch.Tensor:
        """alpha (O): what the signs of each filter of the latent weights are multiplied by."""
        return weight.new_ones(len(weight))

    def binarize(self, weight: torch.Tensor, binary: torch.Tensor) -> BinaryFilters:
        """Write alpha sign(weight) into `binary`."""
        alpha = self.scales(weight)
        torch.sign(weight, out=binary).mul_(alpha.view(-1, 1, 1, 1))
        return BinaryFilters(alpha)

    def scale_gradient(
        self, weight: torch.Tensor, gradient: torch.Tensor, filters: BinaryFilters, times_n: bool, factor: float
    ) -> None:
        """Turn, in place, the gradient by the binary weights into that by the latent ones, times `factor`.

        Here alpha where |w| <= 1 and 0 elsewhere: that of the sign, straight through, alpha a constant. `times_n` asks
        for a factor of a filter's size where the scheme's formula divides by it; it is what -optimType sgd does.
        """
        gradient.mul_(filters.alpha.view(-1, 1, 1, 1)).masked_fill_(weight.abs() > 1, 0)
        if factor != 1:
            gradient.mul_(factor)
