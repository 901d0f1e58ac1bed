"""XNOR-Net++ (Bulat and Tzimiropoulos, arXiv 1909.13863): the scale of a binary convolution is learned."""

from __future__ import annotations

import math

import torch
from torch import nn

from lua_compat.nn.simple import CMul
from xnornet_port.schemes.scheme import Scheme

__all__ = ["LearnedScale"]


class LearnedScale(Scheme):
    """(sign(I) * sign(W)) times a number per output channel, which training finds (the paper's case 1).

    The number is not derived from weights or inputs; it is a parameter, nn.CMul in Torch7. It begins as the mean |W| of
    weights from N(0, 2 / n), n the size of a filter, where XNOR-Net's alpha begins. The paper's other cases have a
    factor for each place as well, and so fit pictures of one size only.
    """

    def block(self, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
        block = super().block(n_inputs, n_outputs, kernel, stride, padding)
        start = math.sqrt(2 / math.pi) * math.sqrt(2 / (n_inputs * kernel**2))
        return block.append(CMul(nn.Parameter(torch.full((1, n_outputs, 1, 1), start))))

    def convolution(
        self, n_inputs: int, n_outputs: int, kernel: int, stride: int = 1, padding: int = 0, *, bias: bool = False
    ) -> nn.Conv2d:
        return super().convolution(n_inputs, n_outputs, kernel, stride, padding, bias=bias)
