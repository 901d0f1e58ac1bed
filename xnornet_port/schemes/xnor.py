"""XNOR-Net's own schemes: binary weights alpha sign(W), alpha = mean |W| per filter (sections 3.1 and 3.2)."""

from __future__ import annotations

import torch
from torch import nn

from xnornet_port.input_scale import InputScaledConvolution
from xnornet_port.layers import batch_normalization, convolution, relu
from xnornet_port.schemes.scheme import BinaryFilters, Scheme
from xnornet_port.schemes.xnor_weights import binarize_into, filter_scales, mean_centre_and_clamp, scale_gradient

__all__ = ["BinaryWeights", "Xnor", "XnorWithInputScale"]


class Xnor(Scheme):
    """Binary inputs and weights as in models/alexnetxnor.lua, whose blocks have no input scale and no ReLU."""

    def convolution(
        self, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0, *, bias: bool = True
    ) -> nn.Conv2d:
        """Without the scheme's name: a file of the original has none."""
        return convolution(n_inputs, n_outputs, kernel, stride, padding, bias=bias)

    def prepare(self, weight: torch.Tensor) -> None:
        """w -= mean over input channels per kernel position, then to [-1, 1]."""
        mean_centre_and_clamp(weight)

    def scales(self, weight: torch.Tensor) -> torch.Tensor:
        """mean |W| per filter."""
        return filter_scales(weight)

    def binarize(self, weight: torch.Tensor, binary: torch.Tensor) -> BinaryFilters:
        return binarize_into(weight, binary)

    def scale_gradient(
        self, weight: torch.Tensor, gradient: torch.Tensor, filters: BinaryFilters, times_n: bool, factor: float
    ) -> None:
        """From the gradient of the paper's section 3.1: per element, m = (alpha [|w| < 1] + 1/n) (1 - 1/I).

        n is the size of a filter and I its input channels (util.lua updateBinaryGradWeight).
        """
        scale_gradient(weight, gradient, filters, times_n, factor)


class BinaryWeights(Xnor):
    """Binary weights only (BWN): real inputs, with the ReLU that binary inputs do without."""

    def block(self, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
        return nn.Sequential(
            batch_normalization(n_inputs, eps=1e-4),
            relu(),
            self.convolution(n_inputs, n_outputs, kernel, stride, padding),
        )


class XnorWithInputScale(Xnor):
    """XNOR-Net as its paper has it: the result times K, the size of the input around each place (-inputScale)."""

    def block(self, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
        return nn.Sequential(
            batch_normalization(n_inputs, eps=1e-4),
            InputScaledConvolution(self.convolution(n_inputs, n_outputs, kernel, stride, padding, bias=False)),
        )
