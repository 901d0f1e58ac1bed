"""The paper's scale of binary inputs, K (XNOR-Net paper, section 3.2, equation 11)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from lua_compat.nn import register
from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from xnornet_port.errors import XnorNetError
from xnornet_port.layers import BinActiveZ

__all__ = ["InputScaledConvolution", "input_scale"]

Pair = tuple[int, int]


def input_scale(x: torch.Tensor, kernel: Pair, stride: Pair, padding: Pair) -> torch.Tensor:
    """K (N, 1, H', W') of real inputs x (N, C, H, W): K = A * k, A = mean |x| over channels, k = 1 / (kH kW).

    One value for each place of the convolution with that kernel, stride and zero padding: the mean |x| under the
    kernel. The box is summed down and then across, kH + kW additions, once for all filters.
    """
    magnitude = x.abs().mean(dim=1, keepdim=True)
    magnitude = functional.pad(magnitude, (padding[1], padding[1], padding[0], padding[0]))
    columns = functional.avg_pool2d(magnitude, (kernel[0], 1), (stride[0], 1))
    return functional.avg_pool2d(columns, (1, kernel[1]), (1, stride[1]))


@register("nn.BinConvolutionK", container=True)
class InputScaledConvolution(nn.Module):
    """A binary activation and a convolution without bias, its result times K: Y = (sign(I) * W) K (-inputScale).

    I is the layer's input, as a rule of a batch normalisation; W is alpha sign(W) while the weights are binary. The
    gradient goes through K as well as, straight through, the sign. In Torch7 it would be a class of two `modules`.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module | None = None):
        super().__init__()
        is_plain = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
        if not is_plain or convolution.dilation != (1, 1) or convolution.groups != 1 or convolution.bias is not None:
            raise XnorNetError(
                f"{convolution}: an input scale needs zero padding in numbers, no dilation, one group and no bias"
            )
        self.activation = BinActiveZ() if activation is None else activation
        self.convolution = convolution

    @property
    def box(self) -> tuple[Pair, Pair, Pair]:
        """Kernel, stride and padding, as `input_scale` takes them."""
        sizes = (self.convolution.kernel_size, self.convolution.stride, self.convolution.padding)
        kernel, stride, padding = ((int(pair[0]), int(pair[1])) for pair in sizes)
        return kernel, stride, padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.convolution(self.activation(x))
        return y * input_scale(x, *self.box)

    @classmethod
    def from_t7(cls, fields: Fields) -> InputScaledConvolution:
        children = fields.children()
        if len(children) != 2 or not isinstance(children[0], BinActiveZ) or not isinstance(children[1], nn.Conv2d):
            found = ", ".join(type(child).__name__ for child in children)
            raise fields.error(f"its modules should be a binary activation and a convolution, found {found or 'none'}")
        try:
            return cls(children[1], children[0])
        except XnorNetError as error:
            raise fields.error(str(error)) from error

    def to_t7(self, out: FieldWriter) -> dict[str, object]:
        return {"modules": out.children([self.activation, self.convolution])}
